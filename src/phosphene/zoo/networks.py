"""The zoo's architectures as plain values, and how each is built. All see 32 x 32 pictures."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

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

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": (
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
    ),
    # 8 x 8 codes of 256: the VQ-f4 layout of latent diffusion (CAD), and tokens for MaskGIT (LEA).
    "vq": ("diffusers:VQModel", {**_AUTOENCODER, "num_vq_embeddings": 256, "vq_embed_dim": 4}),
    "kl": ("diffusers:AutoencoderKL", {**_AUTOENCODER}),
    "mae": (
        "transformers:ViTMAEForPreTraining",
        {
            "image_size": 32, "patch_size": 4, "hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
            "intermediate_size": 384, "decoder_hidden_size": 96, "decoder_num_hidden_layers": 2,
            "decoder_num_attention_heads": 4, "decoder_intermediate_size": 192, "mask_ratio": 0.75,
            "norm_pix_loss": False,
        },
    ),
    "classifier": ("phosphene.zoo.classifier:SceneClassifier", {"widths": [32, 64, 128], "n_features": 128}),
}  # fmt: skip
"""Name to (class, configuration)."""


def build(name: str, config: dict[str, Any] | None = None) -> nn.Module:
    """An untrained network, drawing its weights from torch's global generator.

    Parameters
    ----------
    name : one of ``NETWORKS``
    config : as saved with trained weights; the default otherwise

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    if name not in NETWORKS:
        raise ConfigError(f"the zoo has no network '{name}'. {did_you_mean(name, NETWORKS)}")
    path, default = NETWORKS[name]
    module, _, kind = path.partition(":")
    network_class = getattr(import_module(module), kind)
    config = dict(default if config is None else config)
    if module == "transformers":
        return network_class(network_class.config_class(**config))
    return network_class(**config)


def make_tokenizer(saved: dict[str, Any]) -> CLIPTokenizer:
    """CLIP's tokenizer class from a vocabulary and merges."""
    from transformers import CLIPTokenizer

    merges = [tuple(pair.split(" ")) for pair in saved["merges"]]
    return CLIPTokenizer(vocab=saved["vocab"], merges=merges, model_max_length=saved["length"])


def train_tokenizer(texts: list[str], size: int = 512, length: int = 40) -> dict[str, Any]:
    """A byte-pair vocabulary for CLIP's tokenizer from captions, as plain values.

    Parameters
    ----------
    texts : captions
    size : entries, with the two marks for start and end of a text last
    length : tokens a text is cut to
    """
    from tokenizers import Tokenizer, models, trainers
    from transformers import CLIPTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    # Start from the class itself, so that normalisation and splitting into words are exactly CLIP's.
    blank = CLIPTokenizer(vocab={start: 0, end: 1}, merges=[]).backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", show_progress=False)
    )
    learned = json.loads(learner.to_str())["model"]["merges"]
    # Every printable character, within and at the end of a word, so that no text is unknown.
    letters = [chr(c) for c in range(33, 127)]
    entries = letters + [f"{c}</w>" for c in letters]
    merges = [m.split(" ") if isinstance(m, str) else m for m in learned][: size - 2 - len(entries)]
    vocab = {text: i for i, text in enumerate([*entries, *("".join(m) for m in merges)])}
    return {
        "vocab": {**vocab, start: size - 2, end: size - 1},
        "merges": [" ".join(m) for m in merges],
        "length": length,
    }
