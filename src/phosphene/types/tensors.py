"""Arrays of NumPy from those of others. No other library is imported for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from phosphene.errors import DataError


def tensor_values(tensor: Any) -> np.ndarray:
    """An array of NumPy from one of NumPy, PyTorch or anything that NumPy takes, wherever it lies.

    Parameters
    ----------
    tensor : Any
        an array; a tensor may require gradients, lie on another device or be of bfloat16

    Returns
    -------
    ndarray
        of the same shape; a view where that is possible

    Raises
    ------
    DataError
        For what is no array of numbers.
    """
    if hasattr(tensor, "detach") and hasattr(tensor, "cpu"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # which NumPy lacks
            tensor = tensor.float()

        return tensor.numpy()

    try:
        values = np.asarray(tensor)
    except ValueError as error:
        raise DataError(f"the pictures cannot be put into one array, as their sizes differ ({error}).") from error

    if values.dtype.kind not in "fiub":
        raise DataError(f"pictures should be an array of numbers, but are a {type(tensor).__name__} of {values.dtype}.")

    return values
