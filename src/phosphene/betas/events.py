"""Tables of events: one reader for betas and data, and what in them was a trial.

Identifiers are texts: ``007``, ``10e1``, ``NA`` and ``null`` are names like others, and only ``n/a`` says that there is none, as
BIDS has it. Onsets and durations are seconds; a value that is none is named by file and row, never guessed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError, DataError, did_you_mean

STIMULUS = ("stimulus", "stim_file", "trial_type")
"""Columns that say what was shown, the first that is there."""

_PICTURE = re.compile(r"\.(?:png|jpe?g|bmp|gif|tiff?|webp|ppm)$", re.IGNORECASE)
_MILLISECONDS = 100.0  # a median duration that many times the gap between onsets is in other units
_MISSING = "n/a"
_NOTHING_SHOWN = ("rest", "blank", "fixation", "baseline", "iti", "isi")  # in any capitals


@dataclass(frozen=True)
class Shown:
    """What the user says of a study where its files are silent, or wrong: which rows are trials, what they showed, and when.

    Attributes
    ----------
    column : str, optional
        that names the stimulus; by default the first there is of ``stimulus``, ``stim_file`` and ``trial_type``
    rows : str, optional
        which rows count, such as ``event_type == 'stimulus' and trial_no > 2``: names of columns, texts and numbers, compared
        by ``== != < <= > >= in``, joined by ``and or not``
    duration_s : float, optional
        of every trial, in place of the table's
    tr_s : float, optional
        seconds between volumes, in place of what the files say
    """

    column: str | None = None
    rows: str | None = None
    duration_s: float | None = None
    tr_s: float | None = None


@dataclass
class Told:
    """What should be said of a study's events, counted over its runs.

    Attributes
    ----------
    left_out : dict of str to int
        reason to number of rows
    n_rows : int
        of all tables
    richer : dict of str to str
        column that holds names of pictures, to the one that was used
    """

    left_out: dict[str, int] = field(default_factory=dict)
    n_rows: int = 0
    richer: dict[str, str] = field(default_factory=dict)

    def count(self, reason: str, n: int) -> None:
        """Add rows that were left out."""
        if n:
            self.left_out[reason] = self.left_out.get(reason, 0) + n

    def sentences(self) -> list[str]:
        """One sentence for each thing to say."""
        said = []
        for reason, n in self.left_out.items():
            said.append(f"{n} of {self.n_rows} rows of the events are no trials: {reason}")

        for column, used in self.richer.items():
            said.append(
                f"stimuli are named by the column '{used}', but the column '{column}' names pictures; --stimulus {column} takes "
                "these"
            )

        return said


def read_events(path: Path, duration_s: float | None = None) -> pd.DataFrame:
    """A table of events as texts, but for onset and duration.

    Parameters
    ----------
    path : Path
        with tabs between columns
    duration_s : float, optional
        of every trial, where the table need not say it

    Returns
    -------
    DataFrame
        ``onset`` and ``duration`` as float64 seconds, NaN for n/a; all other columns as str, None for n/a

    Raises
    ------
    DataError
        For a file that is missing or no table, lacks a column, or has a time that is no number; the message names the row.
    """
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.") from error
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path} should be a table with tabs; reading it gave: {error}") from error

    table.columns = [str(column).strip() for column in table.columns]
    if duration_s is not None:
        table["duration"] = repr(float(duration_s))

    for column in ("onset", "duration"):
        if column not in table:
            hint = ""
            if column == "duration":
                hint = " Say how long a trial lasts with --duration SECONDS."

            raise DataError(f"{path} needs a column '{column}'; it has {', '.join(map(str, table.columns))}.{hint}")

    for column in table:
        table[column] = table[column].str.strip()

    blank = table.eq("").all(axis=1)
    table = table.loc[~blank].reset_index(drop=True)
    others = table.drop(columns=["onset", "duration"])
    says_nothing = others.isin([_MISSING, ""]).all(axis=1).to_numpy(bool)  # (n_rows,): a remark in the column of times
    typed = {}
    for column in table:
        values = table[column].to_numpy(dtype=object)
        if column in ("onset", "duration"):
            typed[column] = _seconds(values, column, path, says_nothing)
        else:
            is_missing = np.isin(values.astype(str), [_MISSING, ""])
            typed[column] = np.where(is_missing, None, values)

    return pd.DataFrame(typed)


def _seconds(values: np.ndarray, column: str, path: Path, says_nothing: np.ndarray) -> np.ndarray:
    """(n,) float64 seconds, NaN where there are none."""
    seconds = np.full(len(values), np.nan)
    for row, text in enumerate(values):
        if text in (_MISSING, ""):
            continue

        try:
            seconds[row] = float(text)
        except ValueError:
            if says_nothing[row]:
                continue

            comma = ""
            if re.fullmatch(r"-?\d+,\d+", text):
                comma = " Decimals are written with a point, not with a comma."

            raise DataError(
                f"{path}, line {row + 2}: {column} should be a number of seconds, but is '{text}'.{comma} Correct it, or "
                "take the row out."
            ) from None

    return seconds


def trials_of(events: pd.DataFrame, shown: Shown, name: str, told: Told) -> tuple[pd.DataFrame, dict[str, set[str]]]:
    """The rows of a run that are trials, in order of onset, and the trial types of each stimulus.

    Parameters
    ----------
    events : DataFrame
        of `read_events`
    shown : Shown
        which rows count
    name : str
        of the run, for messages
    told : Told
        is told what was left out

    Returns
    -------
    tuple of (DataFrame, dict of str to set of str)
        ``onset``, ``duration``, ``stimulus``, and ``trial`` and ``trial_type`` where there are such columns; trial types by
        stimulus, where another column names it

    Raises
    ------
    DataError
        When no column says what was shown, a trial has no time, or durations are in another unit than onsets.
    ConfigError
        When `shown` names a column that is not there, or cannot be read.
    """
    told.n_rows += len(events)
    column = _column(events, shown, name)
    if shown.rows is not None:
        chosen = chosen_rows(events, shown.rows)
        told.count(f"not {shown.rows}", int((~chosen).sum()))
        events = events.loc[chosen].reset_index(drop=True)

    is_shown = events[column].notna().to_numpy(bool)
    told.count(f"{column} is n/a", int((~is_shown).sum()))
    if shown.rows is None:  # else the user has said which rows count
        says_nothing = is_shown & events[column].str.strip().str.lower().isin(_NOTHING_SHOWN).to_numpy(bool)
        names = sorted(set(events.loc[says_nothing, column]))
        told.count(
            f"{column} is {', '.join(names)} (to keep them, say which rows count with --rows)", int(says_nothing.sum())
        )
        is_shown = is_shown & ~says_nothing

    others = [str(other) for other in events if other not in ("onset", "duration", column)]
    if shown.column is None:
        used = _texts(events, column)
        told.richer |= {other: column for other in others if _names_pictures(_texts(events, other), used)}

    trials = events.loc[is_shown].reset_index(drop=True)
    if not len(trials):
        raise DataError(f"no row of the events of {name} is a trial: {column} is n/a everywhere{_filtered(shown)}.")

    _check_times(trials, name)
    made = {"onset": trials["onset"], "duration": trials["duration"], "stimulus": trials[column].astype(str)}
    types: dict[str, set[str]] = {}
    for extra in ("trial", "trial_type"):
        if extra in trials and extra != column:
            made[extra] = trials[extra].fillna("").astype(str)

    if "trial_type" in made:
        for stimulus, kind in zip(made["stimulus"], made["trial_type"], strict=True):
            types.setdefault(stimulus, set()).add(kind)

    ordered = pd.DataFrame(made).sort_values("onset", kind="stable")
    return ordered.reset_index(drop=True), types


def _texts(events: pd.DataFrame, column: str) -> list[str]:
    return [str(value) for value in events[column].to_numpy(dtype=object) if value is not None]


def _names_pictures(texts: Sequence[str], used: Sequence[str]) -> bool:
    """Whether a column names picture files and tells more stimuli apart than the one that is used."""
    n_pictures = sum(bool(_PICTURE.search(text)) for text in texts)
    if n_pictures <= len(texts) / 2 or any(_PICTURE.search(text) for text in used):
        return False

    return len(set(texts)) > len(set(used))


def _filtered(shown: Shown) -> str:
    if shown.rows is None:
        return ""

    return f" among the rows with {shown.rows}"


def _column(events: pd.DataFrame, shown: Shown, name: str) -> str:
    if shown.column is not None:
        if shown.column not in events:
            raise ConfigError(
                f"the events of {name} have no column '{shown.column}'. {did_you_mean(shown.column, map(str, events.columns))}"
            )

        return shown.column

    for column in STIMULUS:
        if column in events:
            return column

    raise DataError(
        f"events of {name} need a column 'stimulus', 'stim_file' or 'trial_type' that says what was shown; they have "
        f"{', '.join(map(str, events.columns))}. Name the one that does with --stimulus COLUMN, and the rows that are "
        "trials with --rows \"COLUMN == 'VALUE'\"."
    )


def _check_times(trials: pd.DataFrame, name: str) -> None:
    timing = trials[["onset", "duration"]].to_numpy(dtype=np.float64)
    missing = np.flatnonzero(np.isnan(timing).any(axis=1))
    if len(missing):
        row = int(missing[0])
        raise DataError(
            f"trial {row} of {name} ('{trials['stimulus' if 'stimulus' in trials else trials.columns[-1]].iloc[row]}') has onset "
            f"{timing[row, 0]} and duration {timing[row, 1]}; both are seconds. Fill them in, take the row out, or give all "
            "trials one duration with --duration SECONDS."
        )

    gaps = np.diff(np.sort(timing[:, 0]))
    gaps = gaps[gaps > 0]
    if len(gaps) and np.median(timing[:, 1]) > _MILLISECONDS * np.median(gaps):
        raise DataError(
            f"durations of {name} are {np.median(timing[:, 1]):g} in the middle, but trials start {np.median(gaps):g} s apart: "
            "durations seem to be in milliseconds beside onsets in seconds. Divide them by 1000, or give one with --duration "
            "SECONDS."
        )


# -- which rows --------------------------------------------------------------------------------------------------------

_COMPARED: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}


def chosen_rows(table: pd.DataFrame, condition: str) -> np.ndarray:
    """Which rows of a table fulfil a condition in a small language; nothing else can be said in it, so it is safe to evaluate.

    Parameters
    ----------
    table : DataFrame
        texts and numbers
    condition : str
        see `Shown`

    Returns
    -------
    ndarray of shape (n_rows,), bool
        rows without a value fulfil no comparison but ``!=`` and ``not in``

    Raises
    ------
    ConfigError
        For anything else than comparisons of columns, and for columns that are not there.

    Examples
    --------
    >>> table = pd.DataFrame({"kind": ["rest", "stimulus"], "number": ["1", "2"]})
    >>> chosen_rows(table, "kind == 'stimulus' and number >= 2").tolist()
    [False, True]
    """
    try:
        tree = ast.parse(condition.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ConfigError(_not_understood(condition)) from error

    return _truth(tree.body, table, condition)


def _not_understood(condition: str) -> str:
    return (
        f'--rows "{condition}" is not understood. Compare columns with texts or numbers, such as "event_type == \'stimulus\'" or '
        "\"trial_type in ['face', 'house'] and not response == 'none'\"."
    )


def _truth(node: ast.AST, table: pd.DataFrame, condition: str) -> np.ndarray:
    if isinstance(node, ast.BoolOp):
        parts = [_truth(value, table, condition) for value in node.values]
        if isinstance(node.op, ast.And):
            return np.logical_and.reduce(parts)

        return np.logical_or.reduce(parts)

    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_truth(node.operand, table, condition)

    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.left, ast.Name):
        if node.left.id not in table:
            raise ConfigError(
                f"--rows \"{condition}\" names the column '{node.left.id}', which is not there. "
                f"{did_you_mean(node.left.id, map(str, table.columns))}"
            )

        values = table[node.left.id].to_numpy(dtype=object)
        wanted = _value(node.comparators[0], condition)
        kind = type(node.ops[0])
        if kind in (ast.In, ast.NotIn) and isinstance(wanted, list):
            is_in = np.zeros(len(table), dtype=bool)
            for one in wanted:
                is_in |= _compared(values, ast.Eq, one)

            return is_in if kind is ast.In else ~is_in

        if kind in _COMPARED and not isinstance(wanted, list):
            return _compared(values, kind, wanted)

    raise ConfigError(_not_understood(condition))


def _value(node: ast.AST, condition: str) -> Any:
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(one, condition) for one in node.elts]

    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, condition)
        if isinstance(value, (int, float)):
            return -value

    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float)):
        return node.value

    raise ConfigError(_not_understood(condition))


def _compared(values: np.ndarray, kind: type, wanted: str | float) -> np.ndarray:
    """(n_rows,) bool: texts with a text, numbers with a number."""
    compare = _COMPARED[kind]
    found = []
    for value in values:
        if value is None:
            found.append(kind is ast.NotEq)
        elif isinstance(wanted, str):
            found.append(bool(compare(str(value), wanted)))
        else:
            found.append(bool(compare(_as_number(value), float(wanted))))

    return np.asarray(found, dtype=bool)


def _as_number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:  # a text is no number, and equal to none
        return float("nan")
