"""One figure per sweep: a row per axis, a column per metric, every point with its interval over the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phosphene.reporting.drawing import BRAIN, MUTED
from phosphene.reporting.words import input_words, metric_words
from phosphene.sweeps.grid import SweepGrid, value_words
from phosphene.sweeps.table import shown_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = BRAIN
GREY = MUTED


def draw(summary: pd.DataFrame, grid: SweepGrid) -> Figure:
    """The figure of a summary as `summary_table` makes it. A dashed line is chance, a band the base."""
    from matplotlib.figure import Figure

    shown = shown_metrics(summary, grid.file.metrics)
    axes_shown = sorted(set(summary["axis"]) - {-1}) or [-1]
    figure = Figure(figsize=(0.6 + 3.4 * len(shown), 0.5 + 2.7 * len(axes_shown)), layout="constrained")
    panels = np.atleast_2d(figure.subplots(len(axes_shown), len(shown), squeeze=False))

    for row, axis in zip(panels, axes_shown, strict=True):
        for panel, which in zip(row, shown, strict=True):
            _panel(panel, summary, grid, axis, *which)

    if grid.file.title:
        figure.suptitle(grid.file.title, fontsize=11)

    return figure


def _panel(panel: Axes, summary: pd.DataFrame, grid: SweepGrid, axis: int, source: str, metric: str) -> None:
    here = summary[(summary["input"] == source) & (summary["metric"] == metric)]
    base = here[here["axis"] == -1]
    mine = here[here["axis"] == axis]
    title = metric_words(metric).title
    panel.set_title(title if source == "brain" else f"{title}\n({input_words(source)[0]})", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)

    if mine.empty:
        panel.text(0.5, 0.5, "not scored", ha="center", va="center", transform=panel.transAxes, color=GREY)
        return

    chance = mine["chance"].iloc[0]
    places = _places(grid, axis)
    numeric = len(places) > 1 and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in places.values())
    x = [float(places[p]) if numeric else i for i, p in enumerate(mine["point"])]  # type: ignore[arg-type]
    low = (mine["value"] - mine["ci_low"]).clip(lower=0).fillna(0)
    high = (mine["ci_high"] - mine["value"]).clip(lower=0).fillna(0)

    if numeric:
        panel.errorbar(x, mine["value"], yerr=[low, high], fmt="o-", color=BLUE, ms=4, lw=1.2, capsize=2)
        if min(x) > 0 and max(x) / min(x) > 20:
            panel.set_xscale("log")

        if len(x) <= 8:
            panel.set_xticks(x, [f"{v:g}" for v in x])
            panel.minorticks_off()

        panel.set_xlabel(_axis_name(grid, axis), fontsize=8)
        if np.isfinite(chance):
            panel.axhline(chance, color=GREY, lw=0.8, ls="--")

        return

    x = [len(x) - 1 - i for i in x]
    panel.errorbar(mine["value"], x, xerr=[low, high], fmt="o", color=BLUE, ms=5, lw=1.2, capsize=2)
    panel.set_yticks(x, list(mine["point"]))
    panel.set_ylim(-0.6, len(x) - 0.4)

    if axis != -1 and len(base):
        panel.axvline(base["value"].iloc[0], color=BLUE, lw=0.8, alpha=0.5)

    if np.isfinite(chance):
        panel.axvline(chance, color=GREY, lw=0.8, ls="--")


def _places(grid: SweepGrid, axis: int) -> dict[str, object]:
    """The value that stands on the axis, by point: the first thing a point sets."""
    return {
        p.label: next(iter(p.sets.values())) if len(p.sets) == 1 else value_words(p.label)
        for p in grid.points
        if p.axis == axis and p.sets
    }


def _axis_name(grid: SweepGrid, axis: int) -> str:
    if axis >= 0:
        return ", ".join(grid.file.grid[axis]).replace("recipe.", "")

    return ""
