"""Tables of a run: CSV files that people open in spreadsheets and programs read back as they were written.

Ids come from file names, so a picture called ``=1+1.png`` would be computed by whoever opens the table, and one called
``nan`` or ``007`` would come back as something else. Every table of a run is written and read here.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phosphene.errors import ModelError
from phosphene.io import atomic
from phosphene.io.csv_table import csv_text, read_guarded

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
    atomic.write_text(file, csv_text(table))


def read_run_table(file: str | Path) -> pd.DataFrame:
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

    return read_guarded(table)
