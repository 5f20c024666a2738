"""Tables of a run: CSV files that people open in spreadsheets and programs read back as they were written.

Ids come from file names, so a picture called ``=1+1.png`` would be computed by whoever opens the table, and one called
``nan`` or ``007`` would come back as something else. Every table of a run is written and read here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from phosphene.errors import ModelError
from phosphene.io import atomic

TEXTS = frozenset(
    [
        "category",
        "fold_name",
        "id",
        "key",
        "nearest",
        "stimulus",
        "subject",
        "test",
        "train",
        "trial",
        "unit",
        "value_text",
    ]
)
"""Columns that hold texts whatever they look like; in them nothing is a missing value or a number."""

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What begins a formula in a spreadsheet, or is skipped in front of one."""


def write_table(table: pd.DataFrame, file: str | Path) -> None:
    """Write a table whole or not at all; a text that a spreadsheet would compute is guarded by an apostrophe.

    Parameters
    ----------
    table : DataFrame
        its index is not written
    file : str or Path
        of the CSV; one of that name is replaced

    Raises
    ------
    MachineError
        When the disk is full or the folder cannot be written.
    """
    atomic.write_text(file, table_text(table))


def table_text(table: pd.DataFrame) -> str:
    """The text of a table as `write_table` writes it.

    Parameters
    ----------
    table : DataFrame
        its index is not written

    Returns
    -------
    str
        CSV
    """
    safe = table.copy()
    safe.columns = [guarded(column) for column in safe.columns]

    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].map(guarded)

    return safe.to_csv(index=False)


def read_table(file: str | Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote; empty when it is not there.

    Parameters
    ----------
    file : str or Path
        of the CSV

    Returns
    -------
    DataFrame
        ids and categories are texts, as written (``NA`` stays ``NA``, ``nan`` stays ``nan``, ``007`` stays ``007``)

    Raises
    ------
    ModelError
        When it is no table.
    """
    file = Path(file)
    if not file.is_file():
        return pd.DataFrame()

    try:
        columns = pd.read_csv(file, nrows=0).columns
        texts = {column: str for column in columns if column in TEXTS}
        missing = {column: ["nan", ""] for column in columns if column not in TEXTS}
        table = pd.read_csv(file, keep_default_na=False, na_values=missing, dtype=texts)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (ValueError, OSError) as error:
        raise ModelError(
            f"{file} cannot be read as a table ({error}). Delete it and run the command that writes it."
        ) from error

    table.columns = [_unguarded(column) for column in table.columns]
    for column in table.columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            table[column] = table[column].map(_unguarded)

    return table


def guarded(value: Any) -> Any:
    """A text that a spreadsheet would compute, with an apostrophe before it; anything else as it is.

    Parameters
    ----------
    value : object
        a cell

    Returns
    -------
    object
        numbers, also those written as texts, stay as they are

    Examples
    --------
    >>> guarded("=1+1"), guarded("-0.5"), guarded("-cat"), guarded(3)
    ("'=1+1", '-0.5', "'-cat", 3)
    """
    if isinstance(value, str) and _needs_guard(value):
        return f"'{value}"

    return value


def _unguarded(value: Any) -> Any:
    """A cell as it was before `guarded`."""
    if isinstance(value, str) and value.startswith("'") and _needs_guard(value[1:]):
        return value[1:]

    return value


def _needs_guard(text: str) -> bool:
    # An apostrophe in front of a formula gets another one, so that reading back takes away one and not the text's own.
    bare = text.lstrip("' ")
    return bare.startswith(_FORMULA_SIGNS) and not _is_number(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False

    return True
