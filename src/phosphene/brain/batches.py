"""Rows through a trained network, some at a time: what the parts of this folder do when they are asked for latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from phosphene.errors import DataError

if TYPE_CHECKING:
    from torch import nn


def in_batches(
    arrow: Callable[[Any], Any], module: nn.Module, rows: np.ndarray, batch_size: int, what: str
) -> np.ndarray:
    """Rows through a network in evaluation mode, in the mode it was in afterwards.

    Parameters
    ----------
    arrow : from a tensor (k, p) to one (k, ...), each row as if it were alone but for rounding; called on one block after
        the other
    module : the network behind it, on whose device the rows are put
    rows : (n, p) array or memory map
    batch_size : rows at a time
    what : the rows are, for error messages

    Returns
    -------
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
    was_training, device = module.training, next(module.parameters()).device
    module.eval()
    out = None
    try:
        with torch.no_grad():
            for start in range(0, len(rows), batch_size):
                block = np.array(rows[start : start + batch_size], dtype=np.float32)
                if not np.isfinite(block).all():
                    row, column = np.argwhere(~np.isfinite(block))[0]
                    raise DataError(
                        f"{what} must be finite, but row {start + row}, column {column} (from 0) is {block[row, column]}; "
                        "drop or repair such rows or columns first."
                    )
                part = arrow(torch.from_numpy(block).to(device)).float().cpu().numpy()
                out = np.empty((len(rows), *part.shape[1:]), dtype=np.float32) if out is None else out
                out[start : start + len(block)] = part
    finally:
        module.train(was_training)
    return out
