"""Scores of all points of a sweep in one table, and over repetitions: means, and differences from the base."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from phosphene.run import atomic
from phosphene.run.folder import RunFolder, read_json
from phosphene.sweep.grid import Grid, Point
from phosphene.sweep.run import Sweep

COLUMNS = ("input", "metric", "value", "ci_low", "ci_high", "chance", "p", "n")


def point_table(whole: Sweep) -> pd.DataFrame:
    """One row per point, input and metric of the runs that are there.

    Columns: point, axis, repeat, run, seconds, then those of scores.csv.
    """
    grid, parts = whole.grid, []
    for point in grid.points:
        if not whole.is_done(point.run):
            continue
        scores = RunFolder(whole.folder(point.run)).table("scores.csv")[list(COLUMNS)]
        seconds = read_json(whole.out / "done" / f"{point.run}.json")["seconds"]
        about = {"point": point.label, "axis": point.axis, "repeat": repeat_label(point), "run": point.run}
        parts.append(scores.assign(**about, seconds=seconds))
    columns = ["point", "axis", "repeat", "run", "seconds", *COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def repeat_label(point: Point) -> str:
    """Which repetition a point belongs to."""
    return ", ".join(f"{k} {v}" for k, v in point.repeat.items())


def summary_table(points: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """Over repetitions: the mean of each point and metric with a 95 % interval, and the paired difference from the base.

    With one repetition the interval is that over pictures, as scores.csv has it, and there is none for the difference.
    With several it is Student's t over repetitions.

    Columns: axis, point, input, metric, value, ci_low, ci_high, chance, repeats, difference, difference_low,
    difference_high.
    """
    rows = []
    order = {(p.axis, p.label): i for i, p in reversed(list(enumerate(grid.points)))}
    base = grid.points[0].label
    for (axis, label, source, metric), group in points.groupby(["axis", "point", "input", "metric"], sort=False):
        values = group["value"].to_numpy(float)
        if len(group) == 1:
            value, low, high = (float(group.iloc[0][k]) for k in ("value", "ci_low", "ci_high"))
        else:
            value, low, high = mean_interval(values)
        row = {
            "axis": axis, "point": label, "input": source, "metric": metric, "value": value, "ci_low": low,
            "ci_high": high, "chance": float(group["chance"].iloc[0]), "repeats": len(group),
        }  # fmt: skip
        there = points[(points["point"] == base) & (points["input"] == source) & (points["metric"] == metric)]
        paired = group.set_index("repeat")["value"] - there.drop_duplicates("repeat").set_index("repeat")["value"]
        difference = mean_interval(paired.dropna().to_numpy(float))
        rows.append({**row, **dict(zip(("difference", "difference_low", "difference_high"), difference, strict=True))})
    table = pd.DataFrame(rows)
    if len(table):
        table = table.iloc[
            np.argsort([order[a, p] for a, p in zip(table["axis"], table["point"], strict=True)], kind="stable")
        ]
    return table.reset_index(drop=True)


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, and the 95 % interval of Student's t; NaN bounds for fewer than two values.

    Examples
    --------
    >>> [round(x, 3) for x in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.484, 4.484]
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def write_tables(whole: Sweep) -> None:
    """Write points.csv, summary.csv and figure.png of the runs that are there."""
    grid, points = whole.grid, point_table(whole)
    atomic.write_text(whole.out / "points.csv", points.to_csv(index=False))
    summary = summary_table(points, grid)
    atomic.write_text(whole.out / "summary.csv", summary.to_csv(index=False))
    if len(summary):
        from phosphene.sweep.figure import draw

        buffer = io.BytesIO()
        draw(summary, grid).savefig(buffer, format="png", dpi=150, bbox_inches="tight")
        atomic.write_bytes(whole.out / "figure.png", buffer.getvalue())


def shown_metrics(summary: pd.DataFrame, wanted: Sequence[str], most: int = 4) -> list[tuple[str, str]]:
    """(input, metric) to show: those wanted, where they were scored; a few of the brain's where nothing is said.

    A name is a metric of the brain, or INPUT:METRIC; a * at its end stands for all that start so.
    """
    there = list(dict.fromkeys(zip(summary["input"], summary["metric"], strict=True)))
    if not wanted:
        brain = [(i, m) for i, m in there if i == "brain"]
        first = [(i, m) for i, m in brain if m.startswith(("two_way.", "pixcorr", "pearson"))]
        return (first or brain)[:most]
    found = []
    for name in wanted:
        source, _, metric = name.rpartition(":")
        source = source or "brain"
        start = metric.removesuffix("*")
        found += [
            (i, m) for i, m in there if i == source and (m == metric or (start != metric and m.startswith(start)))
        ]
    return found


def text_table(whole: Sweep) -> str:
    """The summary of the metrics shown as a small table for the terminal."""
    grid, summary = whole.grid, pd.read_csv(whole.out / "summary.csv")
    if summary.empty:
        return "no run is finished yet"
    shown = shown_metrics(summary, grid.file.metrics)
    scores = summary.set_index(["axis", "point", "input", "metric"])
    labels = list(dict.fromkeys((p.axis, p.label) for p in grid.points))
    wide = max(len(label) for _, label in labels)
    names = [metric if source == "brain" else f"{source}: {metric}" for source, metric in shown]
    widths = [max(22, len(name)) for name in names]
    lines = [" " * wide + "".join(f"  {n:>{w}}" for n, w in zip(names, widths, strict=True))]
    for key in labels:
        cells = []
        for which in shown:
            if (*key, *which) not in scores.index:
                cells.append("-")
                continue
            row = scores.loc[(*key, *which)]
            interval = f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]" if np.isfinite(row["ci_low"]) else ""
            cells.append(f"{row['value']:.3f}{interval}")
        lines.append(f"{key[1]:<{wide}}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths, strict=True)))
    return "\n".join(lines)
