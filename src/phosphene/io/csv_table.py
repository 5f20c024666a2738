"""The one writer of CSV tables, in which no text is a formula.

Spreadsheets compute a cell that begins with ``=``, ``+``, ``-`` or ``@``, also behind a tab or a line break, and a formula can
start programs. Ids and categories come from file names of strangers, so such a text gets an apostrophe before it, by which
spreadsheets know a text. Reading takes it off again: ids come back as they were. Numbers are left as they are.
"""

from __future__ import annotations

import csv
import re
from typing import Any

import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula may begin with, the wide signs of East Asian keyboards included."""

_GUARD = "'"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf")


def csv_text(table: pd.DataFrame, *, sep: str = ",", na_rep: str = "") -> str:
    """A table as text, with a line of names first and without its index; texts that look like formulas are guarded.

    Parameters
    ----------
    table : DataFrame
        of numbers, texts, and what is written as its text
    sep : str, default ","
        between cells
    na_rep : str, default ""
        for missing values

    Returns
    -------
    str
        lines that end with a line feed

    Examples
    --------
    >>> print(csv_text(pd.DataFrame({"stimulus": ["a", "=1+1"], "value": [1, -2]})), end="")
    stimulus,value
    a,1
    '=1+1,-2
    """
    safe = table.copy()
    safe.columns = [guarded(str(name)) for name in table.columns]
    for n in range(table.shape[1]):
        column = table.iloc[:, n]
        if not pd.api.types.is_numeric_dtype(column):
            safe.isetitem(n, column.astype(object).map(guarded))

    text = safe.to_csv(index=False, sep=sep, na_rep=na_rep, lineterminator="\n")
    if "\r" not in text:
        return text

    # The csv module quotes a line feed and not a carriage return, behind which a new line would begin.
    return safe.to_csv(index=False, sep=sep, na_rep=na_rep, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)


def read_guarded(table: pd.DataFrame) -> pd.DataFrame:
    """A table that was read from a CSV, with the guards taken off again.

    Parameters
    ----------
    table : DataFrame
        as `pandas.read_csv` gave it

    Returns
    -------
    DataFrame
        a new one

    Examples
    --------
    >>> list(read_guarded(pd.DataFrame({"stimulus": ["a", "'=1+1"]})).stimulus)
    ['a', '=1+1']
    """
    plain = table.copy()
    plain.columns = [unguarded(name) for name in table.columns]
    for n in range(table.shape[1]):
        column = table.iloc[:, n]
        if not pd.api.types.is_numeric_dtype(column) and len(column):
            plain.isetitem(n, column.map(unguarded))

    return plain


def guarded(value: Any) -> Any:
    """A text that a spreadsheet would compute, with an apostrophe before it; anything else as it is.

    Parameters
    ----------
    value : Any
        a cell

    Returns
    -------
    Any
        which `unguarded` turns back
    """
    if not isinstance(value, str) or not value.startswith((*_FORMULA, _GUARD)):
        return value
    if _NUMBER.fullmatch(value):
        return value

    return f"{_GUARD}{value}"


def unguarded(value: Any) -> Any:
    """The cell that `guarded` was given.

    Parameters
    ----------
    value : Any
        as it stands in the file

    Returns
    -------
    Any
        without its guard, where it has one
    """
    if isinstance(value, str) and value.startswith(_GUARD) and value[1:].startswith((*_FORMULA, _GUARD)):
        return value[1:]
    return value
