"""Scores of all points of a sweep in one table, and over repetitions: means, and differences from the base."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from phosphene.io.run_folder import RunFolder, read_json
from phosphene.io.run_tables import read_run_table
from phosphene.metrics.registry import bounds_of, kind_of
from phosphene.metrics.statistics import holm, paired_difference
from phosphene.sweeps.grid import Point, SweepGrid, is_data
from phosphene.sweeps.sweep_folder import Sweep

COLUMNS = ("input", "metric", "value", "ci_low", "ci_high", "chance", "p", "n")


def point_table(whole: Sweep) -> pd.DataFrame:
    """One row per point, input and metric of the runs that are there.

    Columns: point, axis, repeat, run, seconds, then those of scores.csv.
    """
    grid = whole.grid
    parts = []

    for point in grid.points:
        if not whole.is_done(point.run):
            continue

        scores = RunFolder(whole.folder(point.run)).table("scores.csv")[list(COLUMNS)]
        seconds = read_json(whole.out / "done" / f"{point.run}.json")["seconds"]
        about = {"point": point.label, "axis": point.axis, "repeat": repeat_label(point), "run": point.run}
        parts.append(scores.assign(**about, seconds=seconds))

    columns = ["point", "axis", "repeat", "run", "seconds", *COLUMNS]
    if parts:
        return pd.concat(parts, ignore_index=True).loc[:, columns]

    return pd.DataFrame(columns=columns)


def block_label(grid: SweepGrid, point: Point) -> str:
    """What a point was tested on, where crossed axes vary that: points of one block are compared with each other only."""
    return ", ".join(p for p in (Point(-1, {k: v}, {}, "").label for k, v in _data_part(grid, point).items()))


def within_block(grid: SweepGrid, point: Point) -> str:
    """What a point sets beside what it was tested on; "base" where that is nothing."""
    apart = _data_part(grid, point)
    return Point(point.axis, {k: v for k, v in point.sets.items() if k not in apart}, {}, "").label


def _data_part(grid: SweepGrid, point: Point) -> dict[str, Any]:
    if not grid.file.crossed:
        return {}

    return {k: v for k, v in point.sets.items() if is_data(k)}


def base_of(grid: SweepGrid, point: Point) -> Point:
    """The point that another is compared with: the first of its block, in the same repetition."""
    block = block_label(grid, point)
    return next(p for p in grid.points if p.repeat == point.repeat and block_label(grid, p) == block)


def repeat_label(point: Point) -> str:
    """Which repetition a point belongs to."""
    return ", ".join(f"{k} {v}" for k, v in point.repeat.items())


Items = Callable[[str], pd.DataFrame]


def summary_table(points: pd.DataFrame, grid: SweepGrid, items: Items | None = None) -> pd.DataFrame:
    """Over repetitions: the mean of each point and metric with a 95 % interval, and the paired difference from the base.

    The base is the first point; in a crossed grid that varies data or split, the first point on the same data.

    With one repetition the interval is that over pictures, as scores.csv has it, and the difference is paired over pictures
    where both runs were tested on the same ones. With several the interval is over pictures and repetitions, and the
    difference is paired over repetitions, by Student's t.

    Parameters
    ----------
    points : DataFrame
        as `point_table` makes it
    grid : SweepGrid
        the sweep
    items : Items, optional
        name of a run to its scores of single pictures (per_item.csv); without it, no difference of single repetitions

    Returns
    -------
    DataFrame
        axis, block, point, input, metric, value, ci_low, ci_high, chance, repeats, difference, difference_low,
        difference_high (this point minus the base, in the unit of the metric), p (two-sided), p_holm (over the points of a
        block and metric), n_paired (repetitions or pictures behind the difference)
    """
    rows = []
    planned = {(p.axis, p.label): p for p in reversed(grid.points)}
    order = {(p.axis, p.label): i for i, p in reversed(list(enumerate(grid.points)))}

    for key, group in points.groupby(["axis", "point", "input", "metric"], sort=False):
        assert isinstance(key, tuple)  # of several columns
        axis, label, source, metric = key
        values = group["value"].to_numpy(float)
        if len(group) == 1:
            value, low, high = (float(group.iloc[0][k]) for k in ("value", "ci_low", "ci_high"))
        else:
            widths = (group["ci_high"] - group["ci_low"]).to_numpy(float)
            repeats = planned[axis, label].repeat
            value, low, high = nested_interval(
                values, widths, group["n"].to_numpy(float), same_pictures=_only_seeds(repeats)
            )
            low, high = np.clip([low, high], *bounds_of(str(metric)))

        point = planned[axis, label]
        base = base_of(grid, point).label
        row = {
            "axis": axis, "block": block_label(grid, point), "point": label, "input": source, "metric": metric,
            "value": value, "ci_low": low, "ci_high": high, "chance": float(group["chance"].iloc[0]),
            "repeats": len(group),
        }  # fmt: skip

        of_base = (points["point"] == base) & (points["input"] == source) & (points["metric"] == metric)
        base_rows = points.loc[of_base].drop_duplicates("repeat").set_index("repeat")
        rows.append({**row, **_difference(group.set_index("repeat"), base_rows, source, metric, items)})

    table = pd.DataFrame(rows)
    if len(table):
        table = table.iloc[
            np.argsort([order[a, p] for a, p in zip(table["axis"], table["point"], strict=True)], kind="stable")
        ].reset_index(drop=True)

        family = table.groupby(["axis", "block", "input", "metric"], sort=False)["p"]
        table.insert(table.columns.get_loc("p") + 1, "p_holm", family.transform(lambda p: holm(p.to_numpy(float))))

    return table


def _difference(
    ours: pd.DataFrame, base: pd.DataFrame, source: str, metric: str, items: Items | None
) -> dict[str, float]:
    """Mean paired difference with interval and p: over repetitions, or over pictures where there is one repetition."""
    paired = (ours["value"] - base["value"]).dropna().to_numpy(float)
    mean, low, high = mean_interval(paired)
    p = np.nan
    n = len(paired)
    same = len(ours) == len(base) == 1 and ours["run"].iloc[0] == base["run"].iloc[0]

    if len(paired) > 1 and paired.std() > 0:
        test = stats.ttest_1samp(paired, 0)
        p = float(test.pvalue)  # pyright: ignore[reportAttributeAccessIssue]  scipy adds it when the result is made
    elif len(ours) == len(base) == 1 and not same and items is not None and source == "brain":
        both = [_of_items(items(table["run"].iloc[0]), source, metric) for table in (ours, base)]
        if len(both[0]) > 1 and set(both[0].index) == set(both[1].index):
            rng = np.random.default_rng(zlib.crc32(f"{metric} {ours['run'].iloc[0]}".encode()))
            paired_items = paired_difference(both[0].to_numpy(), both[1].loc[both[0].index].to_numpy(), rng=rng)
            mean, low, high, p, n = paired_items
        else:
            mean = np.nan
            n = 0

    values = (mean, low, high, p, n)
    return dict(zip(("difference", "difference_low", "difference_high", "p", "n_paired"), values, strict=True))


def _of_items(table: pd.DataFrame, source: str, metric: str) -> pd.Series:
    if not {"input", "metric", "stimulus", "value"} <= set(table):
        return pd.Series(dtype=float)

    scores = table.loc[(table["input"] == source) & (table["metric"] == metric)]
    return scores.drop_duplicates("stimulus").set_index("stimulus")["value"].astype(float)


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


def nested_interval(
    values: np.ndarray, widths: np.ndarray, n_pictures: np.ndarray, *, same_pictures: bool
) -> tuple[float, float, float]:
    """Mean over repetitions, with a 95 % interval over pictures and repetitions.

        variance = s^2 / k + v                       where all repetitions were tested on the same pictures
        variance = max(0, s^2 - v) / k + v / k       where each had its own, so that s^2 holds theirs as well

    with s^2 the variance of the k values and v the mean variance that the choice of pictures gives each of them. Two
    repetitions that happen to agree say nothing of other pictures; the interval is that of Student's t, with the degrees of
    freedom of the sum (Satterthwaite 1946).

    Parameters
    ----------
    values : ndarray of shape (k,)
        score of each repetition
    widths : ndarray of shape (k,)
        width of the 95 % interval of each over its pictures; NaN where there is none
    n_pictures : ndarray of shape (k,)
        pictures behind each
    same_pictures : bool
        whether all repetitions were tested on the same pictures

    Returns
    -------
    tuple of (float, float, float)
        mean, low and high; NaN bounds for fewer than two values

    References
    ----------
    Satterthwaite 1946, "An approximate distribution of estimates of variance components"

    Examples
    --------
    >>> one, low, high = nested_interval(np.array([0.9, 0.9]), np.array([0.1, 0.1]), np.array([50, 50]), same_pictures=True)
    >>> round(high - low, 3)
    0.103
    """
    is_there = np.isfinite(values)
    values = values[is_there]
    k = len(values)
    if k < 2:
        return mean_interval(values)

    of_pictures = np.square(widths[is_there] / (2 * stats.norm.ppf(0.975)))  # (k,) variance of each over its pictures
    v = 0.0
    if np.isfinite(of_pictures).any():
        v = float(np.nanmean(of_pictures))

    s2 = float(values.var(ddof=1))
    if same_pictures:
        between = s2 / k
        within = v
    else:
        between = max(0.0, s2 - v) / k
        within = v / k

    mean = float(values.mean())
    if between + within == 0:
        return mean, mean, mean

    n = float(np.nanmean(n_pictures[is_there]))
    freedom = (between + within) ** 2 / (between**2 / (k - 1) + within**2 / max(1.0, n - 1))
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(between + within))

    return mean, mean - half, mean + half


def _only_seeds(repeat: Mapping[str, Any]) -> bool:
    """Whether repetitions differ in nothing by which other pictures could test."""
    return all(key == "seed" or key.startswith("recipe.") for key in repeat)


_FIRST = ("two_way", "pixcorr", "pearson.voxels", "pearson.fraction_of_ceiling")
"""Kinds of metrics that are shown where nobody chose any."""


def shown_metrics(summary: pd.DataFrame, wanted: Sequence[str], most: int = 4) -> list[tuple[str, str]]:
    """(input, metric) to show: those wanted, where they were scored; a few of the brain's where nothing is said.

    A name is a metric of the brain, or INPUT:METRIC; a * at its end stands for all that start so.
    """
    there = list(dict.fromkeys(zip(summary["input"], summary["metric"], strict=True)))
    if not wanted:
        brain = [(i, m) for i, m in there if i == "brain"]
        first = [(i, m) for i, m in brain if kind_of(m) in _FIRST]
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
    grid = whole.grid
    summary = read_run_table(whole.out / "summary.csv")
    if summary.empty:
        return "no run is finished yet"

    shown = shown_metrics(summary, grid.file.metrics)
    scores = summary.set_index(["axis", "point", "input", "metric"])
    every = list(dict.fromkeys((p.axis, p.label) for p in grid.points))
    labels = [key for key in every if key in set(zip(summary["axis"], summary["point"], strict=True))]
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
            if np.isfinite(row["ci_low"]):
                interval = f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
            else:
                interval = ""

            cells.append(f"{row['value']:.3f}{interval}")

        lines.append(f"{key[1]:<{wide}}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths, strict=True)))

    if len(labels) < len(every):
        lines.append(f"{len(every) - len(labels)} of {len(every)} points have no finished run yet")

    return "\n".join(lines)
