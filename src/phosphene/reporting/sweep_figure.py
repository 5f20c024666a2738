"""One figure per sweep: a row per axis, a column per metric, every point with its interval over the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phosphene.reporting.drawing import BRAIN, MUTED
from phosphene.reporting.plain_words import input_words, metric_words
from phosphene.reporting.rows import rows_at
from phosphene.reporting.sweep_results import SweepScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_sweep"]

_WIDE_RANGE = 20  # largest over smallest number, from which an axis is logarithmic
_MAX_TICKS = 8


def draw_sweep(
    summary: pd.DataFrame, columns: Sequence[tuple[str, str]], scales: Mapping[int, SweepScale], title: str = ""
) -> Figure:
    """Draw the scores of all points. A dashed line is chance, a thin one the base.

    Parameters
    ----------
    summary : DataFrame
        axis, point, input, metric, value, ci_low, ci_high, chance
    columns : sequence of tuple of (str, str)
        (input, metric) of each column
    scales : Mapping[int, SweepScale]
        axis to what stands on it
    title : str, default ""
        above the figure

    Returns
    -------
    Figure
        drawn in the style of all others
    """
    from matplotlib.figure import Figure

    rows = sorted(set(summary["axis"]) - {-1}) or [-1]
    figure = Figure(figsize=(0.6 + 3.4 * len(columns), 0.5 + 2.7 * len(rows)), layout="constrained")
    panels = np.atleast_2d(figure.subplots(len(rows), len(columns), squeeze=False))

    for of_axis, axis in zip(panels, rows, strict=True):
        for panel, (source, metric) in zip(of_axis, columns, strict=True):
            part = rows_at(summary, (summary["input"] == source) & (summary["metric"] == metric))
            points = rows_at(part, part["axis"] == axis)
            base = rows_at(part, part["axis"] == -1)

            _label(panel, source, metric)
            _panel(panel, points, base, axis, scales[axis])

    if title:
        figure.suptitle(title, fontsize=11)

    return figure


def _label(panel: Axes, source: str, metric: str) -> None:
    title = metric_words(metric).title
    if source != "brain":
        title = f"{title}\n({input_words(source)[0]})"

    panel.set_title(title, fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)


def _panel(panel: Axes, points: pd.DataFrame, base: pd.DataFrame, axis: int, scale: SweepScale) -> None:
    """Points of one axis: numbers from left to right, names from top to bottom."""
    if points.empty:
        panel.text(0.5, 0.5, "not scored", ha="center", va="center", transform=panel.transAxes, color=MUTED)
        return

    chance = points["chance"].iloc[0]
    low = (points["value"] - points["ci_low"]).clip(lower=0).fillna(0)
    high = (points["ci_high"] - points["value"]).clip(lower=0).fillna(0)
    numbers = _numbers(scale)

    if numbers is not None:
        x = [numbers[point] for point in points["point"]]
        panel.errorbar(x, points["value"], yerr=[low, high], fmt="o-", color=BRAIN, ms=4, lw=1.2, capsize=2)
        if min(x) > 0 and max(x) / min(x) > _WIDE_RANGE:
            panel.set_xscale("log")

        if len(x) <= _MAX_TICKS:
            panel.set_xticks(x, [f"{value:g}" for value in x])
            panel.minorticks_off()

        panel.set_xlabel(", ".join(scale.keys).replace("recipe.", ""), fontsize=8)
        if np.isfinite(chance):
            panel.axhline(chance, color=MUTED, lw=0.8, ls="--")

        return

    y = [len(points) - 1 - i for i in range(len(points))]  # the first point on top
    panel.errorbar(points["value"], y, xerr=[low, high], fmt="o", color=BRAIN, ms=5, lw=1.2, capsize=2)
    panel.set_yticks(y, list(points["point"]))
    panel.set_ylim(-0.6, len(y) - 0.4)

    if axis != -1 and len(base):
        panel.axvline(base["value"].iloc[0], color=BRAIN, lw=0.8, alpha=0.5)

    if np.isfinite(chance):
        panel.axvline(chance, color=MUTED, lw=0.8, ls="--")


def _numbers(scale: SweepScale) -> dict[str, float] | None:
    """Label of a point to its number; None where points are no numbers, or there is one only."""
    numbers = {}
    for label, value in scale.values.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None

        numbers[label] = float(value)

    if len(numbers) > 1:
        return numbers

    return None
