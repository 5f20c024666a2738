"""Weights that MaskGIT was published with, under the names of our networks.

Every converter takes all tensors of a public file and refuses missing ones, extra ones, and ones of another shape.
Nothing is loaded in part. :func:`phosphene.generate.flax_file.read_flax` reads the Flax files.

=====================  =============================================================  ===================================
converter              public file                                                    for
=====================  =============================================================  ===================================
`flax_transformer`     ``maskgit_imagenet256_checkpoint`` of MaskGIT (Flax)           :class:`phosphene.generate.maskgit.MaskGit`
`flax_tokenizer`       ``tokenizer_imagenet256_checkpoint`` of MaskGIT (Flax)         :class:`phosphene.generate.vq.Vqgan`
`torch_tokenizer`      ``maskgit-vqgan-imagenet-f16-256.bin`` of TiTok (PyTorch)      the same tokenizer
=====================  =============================================================  ===================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from phosphene.generate.maskgit_config import MaskGitConfig, VqganConfig
from phosphene.train.foreign import must_fit

if TYPE_CHECKING:
    from phosphene.generate.maskgit import MaskGit

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _From:
    """Where one of our tensors comes from: public names with the shapes they must have, and how they become ours."""

    names: tuple[str, ...]
    shape: Shape
    convert: Callable[..., np.ndarray] = lambda *arrays: arrays[0]


def flat_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """A Flax tree as arrays by path, such as ``encoder/Conv_0/kernel``; an outer ``params`` is dropped.

    Examples
    --------
    >>> list(flat_tree({"params": {"a": {"b": np.zeros(2)}, "c": np.ones(1)}}))
    ['a/b', 'c']
    """
    out: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out.update(flat_tree(value, f"{path}/"))
        else:
            out[path] = np.asarray(value)
    return out if prefix else {k.removeprefix("params/"): v for k, v in out.items()}


def flax_transformer(tree: Mapping[str, Any], config: MaskGitConfig) -> dict[str, np.ndarray]:
    """MaskGIT's class-conditional transformer as weights of :class:`MaskGit`, all but the projection of the latent.

    Parameters
    ----------
    tree : nested or by path, with or without an outer ``params``: 393 arrays at the published size
    config : sizes of the network they are meant for

    Returns
    -------
    weights by our names, without ``latent.weight`` and ``latent.bias``: the public network has a class where ours has
    a latent

    Raises
    ------
    ModelError
        Naming arrays that are missing, too many, or of another shape.
    """
    return _convert(flat_tree(tree), _transformer_table(config), "the public MaskGIT transformer")


def start_from_public(network: MaskGit, tree: Mapping[str, Any]) -> None:
    """Put the public transformer into a network, whose projection of the latent alone stays as it is.

    This is how LEA starts its training. Raises like :func:`flax_transformer`.
    """
    from phosphene.train.checkpoint import load_module_state

    own = {k: v.detach().cpu().numpy() for k, v in network.state_dict().items() if k.startswith("latent.")}
    load_module_state(network, {**flax_transformer(tree, network.config), **own}, "MaskGIT")


def flax_tokenizer(tree: Mapping[str, Any], config: VqganConfig) -> dict[str, np.ndarray]:
    """MaskGIT's tokenizer as weights of :class:`Vqgan`.

    Parameters
    ----------
    tree : nested or by path, with or without an outer ``params``: 168 arrays at the published size
    config : sizes of the network they are meant for

    Raises
    ------
    ModelError
        Naming arrays that are missing, too many, or of another shape.
    """
    return _convert(flat_tree(tree), _flax_tokenizer_table(config), "the public MaskGIT tokenizer")


def torch_tokenizer(tensors: Mapping[str, Any], config: VqganConfig) -> dict[str, np.ndarray]:
    """The same tokenizer from its PyTorch file, which counts the decoder's sizes from the finest. Raises alike."""
    arrays = {k: np.asarray(v) for k, v in tensors.items()}
    return _convert(arrays, _torch_tokenizer_table(config), "the public PyTorch tokenizer of MaskGIT")


def _convert(arrays: Mapping[str, np.ndarray], table: Mapping[str, _From], what: str) -> dict[str, np.ndarray]:
    must_fit(arrays, {name: source.shape for source in table.values() for name in source.names}, what)
    return {
        ours: np.ascontiguousarray(source.convert(*(arrays[n] for n in source.names)), dtype=np.float32)
        for ours, source in table.items()
    }


def _transformer_table(c: MaskGitConfig) -> dict[str, _From]:
    w, h, size = c.width, c.heads, c.width // c.heads
    table = {
        "tokens.weight": _From(("Embed_0/word_embeddings/embedding",), (c.mask + 1, w)),
        "positions": _From(("Embed_0/position_embeddings/embedding",), (1 + c.n_tokens, w)),
        "bias": _From(("MlmLayer_0/mlm_bias/bias",), (c.mask + 1,)),
    }

    def norm(ours: str, theirs: str) -> None:
        table[f"{ours}.weight"] = _From((f"{theirs}/scale",), (w,))
        table[f"{ours}.bias"] = _From((f"{theirs}/bias",), (w,))

    def linear(ours: str, theirs: str, n_in: int, n_out: int) -> None:
        table[f"{ours}.weight"] = _From((f"{theirs}/kernel",), (n_in, n_out), np.transpose)
        table[f"{ours}.bias"] = _From((f"{theirs}/bias",), (n_out,))

    norm("norm", "Embed_0/embeddings_ln")
    linear("head", "MlmLayer_0/mlm_dense", w, w)
    norm("head_norm", "MlmLayer_0/mlm_ln")
    for i in range(c.depth):
        ours, theirs = f"blocks.{i}", f"TransformerLayer_{i}"
        attention = f"{theirs}/Attention_0/self_attention"
        three = [f"{attention}/{name}" for name in ("query", "key", "value")]
        # Heads are the middle axis of the public kernels; ours are (out, in) with query, key, value stacked.
        table[f"{ours}.qkv.weight"] = _From(
            tuple(f"{n}/kernel" for n in three),
            (w, h, size),
            lambda *a: np.concatenate([x.reshape(len(x), -1).T for x in a]),
        )
        table[f"{ours}.qkv.bias"] = _From(
            tuple(f"{n}/bias" for n in three), (h, size), lambda *a: np.concatenate([x.ravel() for x in a])
        )
        table[f"{ours}.out.weight"] = _From(
            (f"{attention}/out/kernel",), (h, size, w), lambda a: a.reshape(-1, a.shape[2]).T
        )
        table[f"{ours}.out.bias"] = _From((f"{attention}/out/bias",), (w,))
        norm(f"{ours}.norm1", f"{theirs}/Attention_0/attention_output_ln")
        linear(f"{ours}.up", f"{theirs}/Mlp_0/intermediate_output", w, c.hidden)
        linear(f"{ours}.down", f"{theirs}/Mlp_0/layer_output", c.hidden, w)
        norm(f"{ours}.norm2", f"{theirs}/Mlp_0/layer_output_ln")
    return table


@lru_cache(maxsize=4)
def _tokenizer_shapes(c: VqganConfig) -> dict[str, Shape]:
    import torch

    from phosphene.generate.vq import Vqgan

    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in Vqgan(**c.model_dump(mode="json")).state_dict().items()}


def _flax_tokenizer_table(c: VqganConfig) -> dict[str, _From]:
    n_levels = len(c.multipliers)
    modules = {"encoder.conv_in": "Conv_0", "encoder.conv_out": "Conv_1", "encoder.norm_out": "GroupNorm_0"}
    modules |= {"decoder.conv_in": "Conv_0", "decoder.conv_out": f"Conv_{n_levels}", "decoder.norm_out": "GroupNorm_0"}
    modules |= {f"decoder.up.{i}.upsample.conv": f"Conv_{i + 1}" for i in range(n_levels - 1)}
    # The encoder runs its middle last, the decoder first.
    down = [f"encoder.down.{i}.block.{j}" for i in range(n_levels) for j in range(c.blocks)]
    up = [f"decoder.up.{i}.block.{j}" for i in range(n_levels) for j in range(c.blocks)]
    middle = {side: [f"{side}.mid.{j}" for j in range(c.blocks)] for side in ("encoder", "decoder")}
    inside = {"norm1": "GroupNorm_0", "norm2": "GroupNorm_1", "conv1": "Conv_0", "conv2": "Conv_1"}
    inside |= {"nin_shortcut": "Conv_2"}
    for blocks in ([*down, *middle["encoder"]], [*middle["decoder"], *up]):
        modules |= {f"{b}.{o}": f"ResBlock_{k}/{t}" for k, b in enumerate(blocks) for o, t in inside.items()}
    table = {"quantizer.embedding.weight": _From(("quantizer/codebook",), (c.codes, c.code_width))}
    for name, shape in _tokenizer_shapes(c).items():
        module, _, kind = name.rpartition(".")
        if module not in modules:
            continue
        place = f"{module.split('.')[0]}/{modules[module]}"
        if len(shape) == 4:  # kernels are (height, width, in, out) there, (out, in, height, width) here
            o, i, height, width = shape
            table[name] = _From((f"{place}/kernel",), (height, width, i, o), lambda a: a.transpose(3, 2, 0, 1))
        else:
            table[name] = _From((f"{place}/{'scale' if kind == 'weight' else kind}",), shape)
    return table


def _torch_tokenizer_table(c: VqganConfig) -> dict[str, _From]:
    last, table = len(c.multipliers) - 1, {}
    for name, shape in _tokenizer_shapes(c).items():
        theirs = name.replace("quantizer.", "quantize.").replace("upsample.conv", "upsample_conv")
        if theirs.startswith("decoder.up."):
            level, _, rest = theirs.removeprefix("decoder.up.").partition(".")
            theirs = f"decoder.up.{last - int(level)}.{rest}"
        table[name] = _From((theirs,), shape)
    return table
