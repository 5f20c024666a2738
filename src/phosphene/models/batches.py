"""Rows through a trained network, some at a time: what the parts of this room do when they are asked for latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from phosphene.errors import DataError

if TYPE_CHECKING:
    from torch import nn


def in_batches(
    function: Callable[[Any], Any], module: nn.Module, rows: np.ndarray, batch_size: int, what: str
) -> np.ndarray:
    """Rows through a network in evaluation mode; it is left in the mode it was in.

    Parameters
    ----------
    function : callable
        from a tensor (k, p) to one (k, ...), each row as if it were alone but for rounding; called on one block after
        the other
    module : nn.Module
        the network behind it, on whose device the rows are put
    rows : ndarray of shape (n, p)
        array or memory map
    batch_size : int
        rows at a time
    what : str
        the rows are, for error messages

    Returns
    -------
    ndarray
        (n, ...) float32

    Raises
    ------
    DataError
        Without rows, or with values that are not finite: one NaN would spread over its row.
    """
    import torch

    if np.ndim(rows) != 2:
        raise DataError(f"{what} must be one row an item, but came with shape {np.shape(rows)}.")

    if not len(rows):
        raise DataError(f"{what} has no rows (shape {np.shape(rows)}); give at least one.")

    was_training = module.training
    device = next(module.parameters()).device
    module.eval()
    out = np.empty(0, dtype=np.float32)

    try:
        with torch.no_grad():
            for start in range(0, len(rows), batch_size):
                block = np.array(rows[start : start + batch_size], dtype=np.float32)  # (k, p)
                _check_finite(block, start, what)
                result = function(torch.from_numpy(block).to(device)).float().cpu().numpy()  # (k, ...)

                if start == 0:  # only the first result tells the shape of the others
                    out = np.empty((len(rows), *result.shape[1:]), dtype=np.float32)

                out[start : start + len(block)] = result
    finally:
        module.train(was_training)

    return out


def _check_finite(block: np.ndarray, start: int, what: str) -> None:
    is_finite = np.isfinite(block)
    if not is_finite.all():
        row, column = np.argwhere(~is_finite)[0]
        raise DataError(
            f"{what} must be finite, but row {start + row}, column {column} (from 0) is {block[row, column]}; "
            "drop or repair such rows or columns first."
        )
