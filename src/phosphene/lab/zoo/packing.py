"""Weights in one byte each, for the networks of the zoo that can spare the digits: all must fit into 20 MB.

A matrix or filter is kept as whole numbers from -127 to 127 and one scale for each of its rows (its outputs); everything else
as float16. Scores on a card are of the weights as they come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SCALE", "packed", "unpacked"]

SCALE = ".row_scale"
"""What follows the name of a tensor in the name of its scales."""


def packed(tensors: Mapping[str, Tensor], stored: str) -> dict[str, Tensor]:
    """Tensors as they are stored.

    Parameters
    ----------
    tensors : mapping of {str: Tensor}
        Weights and buffers.
    stored : str
        ``float16``, or ``int8`` with ``NAME.row_scale`` beside each matrix or filter.

    Returns
    -------
    dict of {str: Tensor}
        Whole numbers that are no weights stay as they are.
    """
    import torch

    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            out[name] = tensor.contiguous().clone()
        elif stored == "int8" and tensor.ndim >= 2:
            rows = tensor.detach().float().flatten(1)  # (n_outputs, n_inputs)
            # Rounded up to float16 first, so that no value leaves -127 to 127.
            scale = (rows.abs().amax(1) / 127 * 1.001).clamp(min=6e-8).half()
            levels = (rows / scale.float()[:, None]).round().clamp(-127, 127)
            out[name] = levels.to(torch.int8).view(tensor.shape)
            out[f"{name}{SCALE}"] = scale
        else:
            out[name] = tensor.detach().half().contiguous().clone()

    return out


def unpacked(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of a file as a network takes them.

    Parameters
    ----------
    arrays : mapping of {str: ndarray}
        As :func:`packed` stores them.

    Returns
    -------
    dict of {str: ndarray}
        Without scales: each is multiplied in.

    Examples
    --------
    >>> stored = {"w": np.array([[127, -64]], np.int8), "w.row_scale": np.array([0.5], np.float16)}
    >>> unpacked(stored)
    {'w': array([[ 63.5, -32. ]], dtype=float32)}
    """
    out = {}
    for name, array in arrays.items():
        if name.endswith(SCALE):
            continue
        scale = arrays.get(f"{name}{SCALE}")
        if scale is not None:
            by_row = scale.astype(np.float32).reshape(-1, *(1,) * (array.ndim - 1))
            array = array.astype(np.float32) * by_row
        out[name] = array

    return out
