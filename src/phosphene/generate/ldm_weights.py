"""Weights that latent diffusion was published with, under the names of our networks.

Every converter takes all tensors of its part of a public file and refuses missing ones, extra ones, and ones of another
shape. Nothing is loaded in part.

===================  ====================================================================  ==============================
converter            public file                                                           for
===================  ====================================================================  ==============================
`public_network`     ``model.ckpt`` of CompVis' ``cin256-v2``; tuned ones of MinD-Vis      `LdmUnet`
`public_tokenizer`   the same                                                              VQ-f4, diffusers' VQModel
`tuned_encoder`      ``finetuned.pth``, ``checkpoint_best.pth`` of MinD-Vis                the brain encoder, by its names
===================  ====================================================================  ==============================
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from phosphene.errors import ModelError
from phosphene.generate.ldm_config import LdmConfig
from phosphene.run.reading import reads
from phosphene.train.foreign import must_fit, read_foreign
from phosphene.types.identity import few

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

NETWORK, TOKENIZER, CONDITION = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
ENCODER = f"{CONDITION}mae."
_SCHEDULE = frozenset(
    [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "lvlb_weights",
        "logvar",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "scale_factor",
    ]
)
# Classes of settings beside the weights; they are never imported.
_SETTINGS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.argparse.AttributeDict",
    "config.Config_Generative_Model",
    "config.Config_MBM_finetune",
    "config.Config_MBM_fMRI",
)
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


class Public(NamedTuple):
    """Where one of our tensors comes from: its public name, the shape it has there, and the one it has here."""

    name: str
    shape: tuple[int, ...]
    ours: tuple[int, ...]


@reads("file", ModelError)
def read_public(file: str | Path, *path: str, inert: Collection[str] = ()) -> dict[str, Tensor]:
    """All tensors of a public checkpoint, read without running anything in it.

    Parameters
    ----------
    file : of CompVis, or of MinD-Vis
    path : keys that lead to the weights; ``state_dict`` by default
    inert : further classes of settings the file may name

    Raises
    ------
    ModelError
        Missing or damaged files, or files that want to run anything.
    """
    return read_foreign(file, *(path or ("state_dict",)), inert=(*_SETTINGS, *inert))


def network_table(config: LdmConfig) -> dict[str, Public]:
    """Public name and shape of each tensor of a :class:`LdmUnet` of this configuration, by its name here."""
    return {ours: Public(_network_name(ours, config), shape, shape) for ours, shape in _network_shapes(config).items()}


def tokenizer_table(fields: Mapping[str, Any]) -> dict[str, Public]:
    """Public name and shape of each tensor of diffusers' VQModel of these fields, by its name here."""
    levels, out = len(fields["block_out_channels"]), {}
    for ours, shape in _tokenizer_shapes(json.dumps(dict(fields))).items():
        # Attention of the public network is a convolution of one pixel; here it is a linear layer.
        is_pixel = ".attentions." in ours and ours.endswith(".weight") and len(shape) == 2
        out[ours] = Public(_tokenizer_name(ours, levels), (*shape, 1, 1) if is_pixel else shape, shape)
    return out


def public_network(tensors: Mapping[str, Tensor], config: LdmConfig) -> dict[str, np.ndarray]:
    """The U-Net with its conditionings as weights of :class:`LdmUnet`.

    Parameters
    ----------
    tensors : of the whole file, tokenizer included
    config : sizes of the network they are meant for: :meth:`LdmConfig.published`, or :func:`tuned_config`

    Raises
    ------
    ModelError
        Naming tensors that are missing, too many, of another shape or not finite; or another noise schedule.
    """
    import torch

    _check_rest(tensors)
    if "betas" in tensors:
        c = config
        betas = torch.linspace(c.beta_start**0.5, c.beta_end**0.5, c.noise_levels, dtype=torch.float64) ** 2
        theirs = tensors["betas"].double()
        if theirs.shape != betas.shape or not torch.allclose(theirs, betas, rtol=1e-4):
            raise ModelError(
                f"the file was trained with {len(theirs)} noise levels of {float(theirs[0]):.4g} to {float(theirs[-1]):.4g}, "
                f"but {len(betas)} of {float(betas[0]):.4g} to {float(betas[-1]):.4g} are configured; it is of another network."
            )
    own = {k: v for k, v in tensors.items() if k.startswith((NETWORK, CONDITION)) and not k.startswith(ENCODER)}
    return _convert(own, network_table(config), "the public U-Net of latent diffusion")


def public_tokenizer(tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The first stage as weights of diffusers' VQModel of these fields. Raises like :func:`public_network`."""
    _check_rest(tensors)
    own = {k: v for k, v in tensors.items() if k.startswith(TOKENIZER)}
    return _convert(own, tokenizer_table(fields), "the public VQ-f4")


def tuned_config(tensors: Mapping[str, Tensor], config: LdmConfig) -> LdmConfig:
    """The configuration of a network that MinD-Vis tuned: tokens as its mappers take them, other sizes of `config`.

    Raises
    ------
    ModelError
        When the file has no mappers from brain tokens.
    """
    values = tensors.get(f"{CONDITION}dim_mapper.weight")
    if values is None:
        raise ModelError(
            f"a network tuned to a brain has '{CONDITION}dim_mapper.weight', but this file has not; the label-to-image "
            "network itself is read by Ldm.from_public."
        )
    first, last = (tensors.get(f"{CONDITION}channel_mapper.{i}.weight") for i in (0, 1))
    is_pooled = first is None or last is None
    count, mapped = (1, None) if is_pooled else (first.shape[1], last.shape[0])
    time = "mean" if is_pooled else "convolutions"
    if not any(k.startswith(f"{NETWORK}time_embed_condtion.") for k in tensors):
        time = "none"
    return config.with_tokens(int(count), int(values.shape[1]), mapped=mapped and int(mapped), time=time)


def tuned_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the brain encoder in a file that MinD-Vis tuned, by the names of SC-MBM."""
    return {k.removeprefix(ENCODER): v for k, v in tensors.items() if k.startswith(ENCODER)}


def _check_rest(tensors: Mapping[str, Tensor]) -> None:
    known = (NETWORK, TOKENIZER, CONDITION)
    if rest := sorted(k for k in tensors if not k.startswith(known) and k not in _SCHEDULE):
        raise ModelError(
            f"latent diffusion has weights under {', '.join(known)} and a schedule, but {few(rest, 3)} came as well; the file "
            "is of another network."
        )


def _convert(own: Mapping[str, Tensor], table: Mapping[str, Public], what: str) -> dict[str, np.ndarray]:
    must_fit(own, {public.name: public.shape for public in table.values()}, what)
    return {ours: own[public.name].float().reshape(public.ours).numpy() for ours, public in table.items()}


@lru_cache(maxsize=4)
def _network_shapes(config: LdmConfig) -> dict[str, tuple[int, ...]]:
    import torch

    from phosphene.generate.ldm_network import LdmUnet

    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in LdmUnet(**config.model_dump(mode="json")).state_dict().items()}


@lru_cache(maxsize=4)
def _tokenizer_shapes(fields: str) -> dict[str, tuple[int, ...]]:
    import torch
    from diffusers import VQModel

    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in VQModel(**json.loads(fields)).state_dict().items()}


# -- names -------------------------------------------------------------------------------------------------------------


def _network_name(ours: str, c: LdmConfig) -> str:
    if ours.startswith("unet."):
        return NETWORK + _unet_name(ours.removeprefix("unet."), c)
    if ours.startswith("condition.embeddings."):
        return ours.replace("condition.embeddings.0", f"{CONDITION}embedding", 1)
    if ours.startswith("condition."):
        rest = ours.removeprefix("condition.")
        return CONDITION + rest.replace("tokens", "channel_mapper", 1).replace("values", "dim_mapper", 1)
    # Over tokens first, then over values; the file spells it without an "i". The mean has a linear layer alone.
    steps = "time_embed_condtion" + (".2" if c.time == "convolutions" else "")
    return NETWORK + ours.replace("time.tokens", "time_embed_condtion", 1).replace("time.values", steps, 1)


def _unet_name(name: str, c: LdmConfig) -> str:
    for ours, public in _ENDS.items():
        if name.startswith(f"{ours}."):
            return public + _inner(name.removeprefix(ours))
    # Public blocks are counted through all sizes: the residual blocks of one, then what leads to the next.
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(\..+)", name)
    assert match, name
    side, level, kind, i, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if side == "down":
        start = 1 + level * (c.blocks + 1)
        if kind == "downsamplers":
            return f"input_blocks.{start + c.blocks}.0.op{rest.removeprefix('.conv')}"
        return f"input_blocks.{start + i}.{0 if kind == 'resnets' else 1}{_inner(rest)}"
    start = level * (c.blocks + 1)
    if kind == "upsamplers":
        return f"output_blocks.{start + c.blocks}.{2 if c.attention[-1 - level] else 1}{rest}"
    return f"output_blocks.{start + i}.{0 if kind == 'resnets' else 1}{_inner(rest)}"


def _inner(rest: str) -> str:
    """``.conv1.weight`` of a residual block as ``.in_layers.2.weight``; anything else, such as a transformer's, stays."""
    head, _, tail = rest[1:].partition(".")
    return f".{_RESNET[head]}.{tail}" if head in _RESNET else rest


def _tokenizer_name(name: str, levels: int) -> str:
    name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
    name = name.replace("down_blocks.", "down.").replace("samplers.0.conv.", "sample.conv.")
    if match := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", name):
        return f"{TOKENIZER}{match[1]}.mid.attn_1.{_ATTENTION[match[2]]}.{match[3]}"
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace(".resnets.", ".block.").replace("conv_shortcut", "nin_shortcut")
    return TOKENIZER + name.replace("conv_norm_out", "norm_out")
