"""The zoo's architectures as plain values, and how each is built. All see 32 x 32 pictures."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from phosphene.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import nn
    from transformers import CLIPTokenizer

_AUTOENCODER = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [32, 64, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 32,
    "norm_num_groups": 8,
}
_TOWER = {"hidden_size": 128, "num_attention_heads": 4, "projection_dim": 64}

__all__ = ["NETWORKS", "NetworkEntry", "build", "find", "make_tokenizer", "train_tokenizer"]


class NetworkEntry(NamedTuple):
    """One network of the zoo, and where its training finds what it needs.

    Attributes
    ----------
    network : str
        its class
    config : dict of {str: Any}
        what it is made with
    objective : str
        what it is trained on (a class like those of ``objectives.py``)
    score : str
        what it is worth (a function like those of ``scores.py``)
    about : str
        what it is for, as the card says it
    stored : str
        how its weights are kept, ``float16``, or ``int8`` with a scale for each row
    """

    network: str
    config: dict[str, Any]
    objective: str
    score: str
    about: str
    stored: str = "float16"


NETWORKS: dict[str, NetworkEntry] = {
    "clip": NetworkEntry(
        "transformers:CLIPModel",
        {
            "projection_dim": 64,
            "vision_config": {
                **_TOWER, "num_hidden_layers": 6, "intermediate_size": 384, "image_size": 32, "patch_size": 8,
            },
            "text_config": {
                **_TOWER, "num_hidden_layers": 2, "intermediate_size": 256, "vocab_size": 512,
                "max_position_embeddings": 40, "bos_token_id": 510, "eos_token_id": 511, "pad_token_id": 511,
            },
        },
        "phosphene.lab.zoo.objectives:ClipObjective", "phosphene.lab.zoo.scores:clip",
        "Pictures and captions in one space (64 values): zero-shot classification, retrieval, caption screening, and the "
        "latents that stand in for CLIP's in every lab recipe. It has its own tokenizer (`phosphene.lab.zoo.tokenizer()`).",
    ),
    # 8 x 8 codes of 256: the VQ-f4 layout of latent diffusion (CAD), and tokens for MaskGIT (LEA).
    "vq": NetworkEntry(
        "diffusers:VQModel", {**_AUTOENCODER, "num_vq_embeddings": 256, "vq_embed_dim": 4},
        "phosphene.lab.zoo.objectives:VqObjective", "phosphene.lab.zoo.scores:vq",
        "Pictures as 8 x 8 codes of 256, and back: tokens for MaskGIT, latents for latent diffusion.",
    ),
    "kl": NetworkEntry(
        "diffusers:AutoencoderKL", {**_AUTOENCODER},
        "phosphene.lab.zoo.objectives:KlObjective", "phosphene.lab.zoo.scores:kl",
        "Pictures as 4 x 8 x 8 continuous latents, and back: for the dual-guided U-Net.",
    ),
    "mae": NetworkEntry(
        "transformers:ViTMAEForPreTraining",
        {
            "image_size": 32, "patch_size": 4, "hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
            "intermediate_size": 384, "decoder_hidden_size": 96, "decoder_num_hidden_layers": 2,
            "decoder_num_attention_heads": 4, "decoder_intermediate_size": 192, "mask_ratio": 0.75,
            "norm_pix_loss": False,
        },
        "phosphene.lab.zoo.objectives:MaeObjective", "phosphene.lab.zoo.scores:mae",
        "A masked autoencoder of pictures: the image side of cross-modal pretraining.",
        stored="int8",
    ),
    "classifier": NetworkEntry(
        "phosphene.lab.zoo.classifier:SceneClassifier", {"widths": [32, 64, 128], "n_features": 128},
        "phosphene.lab.zoo.objectives:ClassifierObjective", "phosphene.lab.zoo.scores:classifier",
        "Main category, place and labels: n-way accuracy, and features for FID and two-way identification.",
    ),
    "maskgit": NetworkEntry(
        "phosphene.models.maskgit:MaskGit",
        {
            "codes": 256, "unused": 0, "grid": 8, "latent": 64, "width": 128, "depth": 7, "heads": 4, "hidden": 512,
            "dropout": 0.01,
        },
        "phosphene.lab.zoo.generators:MaskGitObjective", "phosphene.lab.zoo.generators:maskgit",
        "The codes of `vq` from the latent of `clip`: pictures drawn from a latent, several for each.",
    ),
    "vdvae": NetworkEntry(
        "phosphene.models.vdvae:Vdvae",
        {
            "image_size": 32, "latent_channels": 4, "width": 64, "middle": 16, "mixtures": 5, "given": 5,
            "encoder": "32x1,32d2,16x2,16d2,8x2,8d2,4x1,4d4,1x1", "decoder": "1x1,4m1,4x1,8m4,8x1,16m8,16x1,32m16",
        },
        "phosphene.lab.zoo.vdvae_training:VdvaeObjective", "phosphene.lab.zoo.vdvae_training:vdvae",
        "Pictures as eight groups of latents from 1 x 1 to 32 x 32, and back: the first groups are what Brain-Diffuser and "
        "the two-stage decoder predict, the prior fills in the rest.",
    ),
    "dual_guided": NetworkEntry(
        "phosphene.models.dual_guided:DualUnet",
        {
            "size": 8, "channels": 4, "widths": [48, 48], "attention": [True, True], "blocks": 1, "heads": 4, "groups": 8,
            "context": 64, "vision_tokens": 17, "text_tokens": 40, "noise_levels": 1000, "beta_start": 0.00085,
            "beta_end": 0.012, "mixing": "uniform", "drop_vision": 0.3, "drop_text": 0.3,
        },
        "phosphene.lab.zoo.dual_guided_training:DualGuidedObjective", "phosphene.lab.zoo.dual_guided_training:dual_guided",
        "Latents of `kl` from noise or from a first picture, guided by the tokens of `clip` of a picture and of a text: the "
        "second stage of Brain-Diffuser and of the two-stage decoder.",
    ),
    "ldm": NetworkEntry(
        "phosphene.models.ldm:LdmUnet",
        {
            "size": 8, "channels": 4, "widths": [48, 64], "attention": [True, True], "blocks": 1, "heads": 4, "groups": 8,
            "context": 64, "condition": {"kind": "labels", "classes": [16, 10]}, "time": "none", "zero_time": False,
            "noise_levels": 1000, "beta_start": 0.0015, "beta_end": 0.0195,
        },
        "phosphene.lab.zoo.ldm_training:LdmObjective", "phosphene.lab.zoo.ldm_training:ldm",
        "Latents of `vq` from noise, told the main category and the place of a scene: what MinD-Vis and CAD tune to a brain "
        "in place of these labels.",
    ),
    "stylegan2": NetworkEntry(
        "phosphene.models.stylegan2:GeneratorNetwork",
        {
            "size": 32, "z": 64, "w": 64, "mapping_layers": 4, "condition": 64, "conditions": 2, "style": 64,
            "condition_gain": 8.0, "condition_pace": 0.3, "channel_base": 1024, "channel_max": 128, "group": 4,
            "logit": "each",
        },
        "phosphene.lab.zoo.stylegan2_training:StyleGan2Objective", "phosphene.lab.zoo.stylegan2_training:stylegan2",
        "Scenes in one pass from two latents of `clip`, of a picture and of a text: the generator of Mind Reader.",
        stored="int8",
    ),
}  # fmt: skip
"""Every network of the zoo by name."""


def find(path: str) -> Any:
    """What ``module:name`` names, imported now: most callers need one network of the ten."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def build(name: str, config: dict[str, Any] | None = None) -> nn.Module:
    """An untrained network, drawing its weights from torch's global generator.

    Parameters
    ----------
    name : str
        one of ``NETWORKS``
    config : dict of {str: Any}, optional
        as saved with trained weights; the default otherwise

    Returns
    -------
    nn.Module
        of the class that ``NETWORKS`` names

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    if name not in NETWORKS:
        raise ConfigError(f"the zoo has no network '{name}'. {did_you_mean(name, NETWORKS)}")

    entry = NETWORKS[name]
    network_class = find(entry.network)
    if config is None:
        values = dict(entry.config)
    else:
        values = dict(config)

    if entry.network.startswith("transformers:"):
        network = network_class(network_class.config_class(**values))
        if name == "mae":
            return _with_positions(network)
        return network

    return network_class(**values)


def _with_positions(network: Any) -> nn.Module:
    """A fresh ViTMAE with its sine and cosine codes: transformers 5 leaves those of both halves at zero."""
    patches = network.vit.embeddings.patch_embeddings
    patches.projection._is_hf_initialized = False
    network.vit.embeddings.initialize_weights()
    network.decoder.initialize_weights(patches.num_patches)
    return network


def make_tokenizer(saved: dict[str, Any]) -> CLIPTokenizer:
    """CLIP's tokenizer class from a vocabulary and merges, as :func:`train_tokenizer` gives them."""
    from transformers import CLIPTokenizer

    # transformers wants pairs; JSON has no tuples, so a pair is stored as one text.
    merges = [tuple(pair.split(" ")) for pair in saved["merges"]]
    # transformers takes pairs, and says it takes texts.
    return CLIPTokenizer(
        vocab=saved["vocab"],
        merges=merges,  # pyright: ignore[reportArgumentType]
        model_max_length=saved["length"],
    )


def train_tokenizer(texts: list[str], size: int = 512, length: int = 40) -> dict[str, Any]:
    """A byte-pair vocabulary for CLIP's tokenizer from captions, as plain values.

    Parameters
    ----------
    texts : list of str
        captions
    size : int, default 512
        entries, with the two marks for start and end of a text last
    length : int, default 40
        tokens a text is cut to

    Returns
    -------
    dict of {str: Any}
        ``vocab``, ``merges`` and ``length``
    """
    from tokenizers import Tokenizer, models, trainers
    from transformers import CLIPTokenizer

    start = "<|startoftext|>"
    end = "<|endoftext|>"

    # Start from the class itself, so that normalisation and splitting into words are exactly CLIP's.
    blank = CLIPTokenizer(vocab={start: 0, end: 1}, merges=[]).backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = blank.normalizer
    learner.pre_tokenizer = blank.pre_tokenizer
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", show_progress=False)
    )

    learned = []
    for merge in json.loads(learner.to_str())["model"]["merges"]:
        # Older versions of tokenizers write a merge as one text.
        if isinstance(merge, str):
            learned.append(merge.split(" "))
        else:
            learned.append(merge)

    # Every printable character, within and at the end of a word, so that no text is unknown.
    letters = [chr(code) for code in range(33, 127)]
    entries = letters + [f"{letter}</w>" for letter in letters]
    merges = []
    for merge in learned[: size - 2 - len(entries)]:
        entries.append("".join(merge))
        merges.append(" ".join(merge))

    # The two marks come last, where CLIP has them. A text learned twice keeps its last number.
    vocab = {text: number for number, text in enumerate(entries)}
    return {"vocab": {**vocab, start: size - 2, end: size - 1}, "merges": merges, "length": length}
