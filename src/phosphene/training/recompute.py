"""Activation checkpointing for any network: repeated blocks keep their input only, and are computed again backwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputing(network: nn.Module, wanted: bool = True) -> Iterator[int]:
    """While this block runs, every entry of the network's outermost lists of blocks is computed twice in training.

    Far less memory for about a third more work, and the same results: noise inside a block is drawn again as it was.
    Blocks that keep running statistics are left alone, since they would count each batch twice.

    Parameters
    ----------
    network : nn.Module
        with blocks in ``nn.ModuleList``
    wanted : bool, default True
        False does nothing

    Yields
    ------
    int
        how many blocks are computed twice
    """
    if wanted:
        blocks = list(_blocks(network))
    else:
        blocks = []

    try:
        for block in blocks:
            # An attribute of this object hides the method of its class; deleting it brings the method back. A wrapper module
            # would do as well, but it would change the names of the weights and with them every checkpoint.
            block.forward = partial(_twice, block.forward)

        yield len(blocks)
    finally:
        for block in blocks:
            del block.forward


def _twice(forward: Any, *arguments: Any, **named: Any) -> Any:
    """The block's result now, and its activations a second time when the backward pass comes by."""
    # The reentrant variant gives no gradient where no input asks for one, as in a block behind a frozen embedding.
    return checkpoint(forward, *arguments, use_reentrant=False, **named)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Entries of the outermost lists of at least two; below a block nothing is computed a third time."""
    for child in module.children():
        if isinstance(child, nn.ModuleList) and len(child) > 1:
            for block in child:
                # A list in a list, such as levels of a U-Net: it has no forward pass of its own to wrap.
                if isinstance(block, (nn.ModuleList, nn.ModuleDict)):
                    yield from _blocks(block)
                # Wrapped already (a network that holds another), counting statistics, or without weights: left alone.
                elif (
                    "forward" not in vars(block)
                    and not _has_statistics(block)
                    and next(block.parameters(), None) is not None
                ):
                    yield block
        else:
            yield from _blocks(child)


def _has_statistics(block: nn.Module) -> bool:
    """Whether a batch normalisation inside would move its running mean and variance at each of the two passes."""
    return any(isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats for m in block.modules())
