"""What is to be measured (steps), what was (rows of one table), and how it grows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SIZES = ("trials", "voxels", "targets", "items", "features", "pixels")
"""Columns that say how large a case was."""
SAME = ("benchmark", "task", "along", "who", "threads", *SIZES)
"""Columns that tell two rows apart; a later row takes the place of an earlier one."""
FIGURES = ("cpu_s", "cpu_min", "cpu_max", "wall_s", "memory_mb", "extra_mb", "ratio", "slope", "share", "difference")
COLUMNS = (*SAME, "part", "rounds", *FIGURES, "bar", "verdict", "measured", "gflop", "load", "note")
"""Of ``benchmarks.csv``: cpu_s is scaled to the whole where ``part`` of it was done; ratio is its CPU seconds over ours."""


@dataclass(frozen=True)
class Step:
    """Cases measured in turn at one size.

    Parameters
    ----------
    sizes : columns of SIZES and their values; keywords of every case
    cases : names of the benchmark's CASES; the first is ours and the unit of every ratio
    task : what is done, where a benchmark does several things
    along : the size that grows from step to step, where this is a point of a curve
    rounds : how many times
    level : 0 is also measured with --quick, 1 by default, 2 with --full
    threads : of every case
    options : more keywords of the cases
    """

    sizes: Mapping[str, int]
    cases: tuple[str, ...]
    task: str = ""
    along: str = ""
    rounds: int = 1
    level: int = 1
    threads: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


def growth(
    along: str,
    values: Mapping[int, int],
    cases: tuple[str, ...],
    sizes: Mapping[str, int] | None = None,
    up_to: Mapping[str, int] | None = None,
    **more: Any,
) -> list[Step]:
    """Steps at growing sizes.

    Parameters
    ----------
    along : the size that grows
    values : its values, and the level of each
    cases, more : of every step
    sizes : the other sizes
    up_to : by case, the largest value at which it is still measured; all by default
    """
    limits = up_to or {}
    return [
        Step({**(sizes or {}), along: value}, tuple(c for c in cases if value <= limits.get(c, value)), along=along,
             level=level, **more)
        for value, level in values.items()
    ]  # fmt: skip


def slope(size: np.ndarray, seconds: np.ndarray) -> float:
    """Exponent of growth: least squares of log seconds on log size.

    Examples
    --------
    >>> round(slope(np.array([1, 2, 4]), np.array([3, 12, 48])), 6)
    2.0
    """
    return float(np.polyfit(np.log(np.asarray(size, float)), np.log(np.asarray(seconds, float)), 1)[0])


class Record:
    """The table, kept in ``FOLDER/benchmarks.csv`` from row to row; opening it again goes on with what is there."""

    def __init__(self, folder: Path, gflop: float = float("nan")) -> None:
        self.path, self.gflop = folder / "benchmarks.csv", gflop
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = pd.DataFrame(columns=COLUMNS)
        if self.path.is_file():
            kept = pd.read_csv(self.path, keep_default_na=False, na_values=[""])
            texts = ["task", "along", "bar", "verdict", "note"]
            self.rows = kept.reindex(columns=COLUMNS)
            self.rows[texts] = self.rows[texts].astype(object).fillna("")

    def add(self, **row: Any) -> None:
        """One more row, in place of an older one of the same case."""
        row = {"task": "", "along": "", "threads": 1, "bar": "", "verdict": "", "note": ""} | row
        row |= {"measured": time.strftime("%Y-%m-%d"), "gflop": self.gflop}
        new = pd.DataFrame([row]).reindex(columns=COLUMNS)
        rows = new if self.rows.empty else pd.concat([self.rows, new], ignore_index=True)
        self.rows = rows.drop_duplicates(list(SAME), keep="last", ignore_index=True)

    def fit(self) -> None:
        """Write the exponent of every curve of three or more sizes at its largest."""
        for (*_, along, _), curve in self.curves():
            curve = curve[curve["cpu_s"].notna()].sort_values(along)
            if len(curve) >= 3:
                self.rows.loc[curve.index, "slope"] = np.nan
                self.rows.loc[curve.index[-1], "slope"] = slope(curve[along], curve["cpu_s"])

    def curves(self) -> Any:
        """((benchmark, task, along, who), rows) of whatever was measured at several sizes."""
        keys = ["benchmark", "task", "along", "who"]
        yield from self.rows[self.rows["along"].astype(str) != ""].groupby(keys, sort=False)

    def write(self) -> None:
        """Save, whole or not at all."""
        part = self.path.with_suffix(".part")
        self.rows.to_csv(part, index=False, float_format="%.6g")
        part.replace(self.path)
