"""Rows of a table by a mask, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

__all__ = ["rows_at"]


def rows_at(table: pd.DataFrame, is_wanted: ArrayLike) -> pd.DataFrame:
    """Rows of a table where a mask is true.

    ``table[mask]`` does the same, but a type checker cannot tell whether its answer is a table or a column.

    Parameters
    ----------
    table : DataFrame
        Such as scores.
    is_wanted : array_like of shape (n_rows,), bool
        A comparison of columns of the same table. Rows are taken by position; the index of the mask is not read.

    Returns
    -------
    DataFrame
        In the same order and with the same index, possibly without rows.

    Examples
    --------
    >>> table = pd.DataFrame({"input": ["brain", "noise"], "value": [0.8, 0.5]})
    >>> rows_at(table, table["value"] > 0.6)["input"].tolist()
    ['brain']
    """
    return table.take(np.flatnonzero(np.asarray(is_wanted, dtype=bool)))
