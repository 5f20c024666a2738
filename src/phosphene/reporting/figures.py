"""The figures of a report: arrays and tables in, a matplotlib Figure out. No pyplot, no global state left behind.

They share the style of ``phosphene.reporting.drawing``, whose names are to be had from here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from phosphene.reporting.drawing import (
    BRAIN,
    CEILING,
    CONTROL,
    INK,
    MUTED,
    PALETTE,
    as_uint8,
    mosaic,
    picture_rows,
    png,
    style,
    svg,
)
from phosphene.reporting.drawing import empty as _figure
from phosphene.reporting.drawing import short as _short
from phosphene.reporting.rows import rows_at

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "PALETTE",
    "against_ceiling",
    "as_uint8",
    "flat_map",
    "identification",
    "mosaic",
    "picture_rows",
    "png",
    "retrieval",
    "roi_bars",
    "similarity",
    "style",
    "svg",
    "voxel_histogram",
]

SEQUENTIAL = "cividis"
MOST_CELLS = 400
"""Largest side of a matrix that is drawn; a larger one is thinned evenly."""

# -- which is which ----------------------------------------------------------------------------------------------------


def similarity(matrix: np.ndarray, groups: Sequence[str] | None = None, space: str = "") -> Figure:
    """Similarity of every decoded picture (row) with every seen one (column).

    Parameters
    ----------
    matrix : ndarray of shape (n, m)
        a side over 400 is thinned evenly, and the axes say so
    groups : sequence of str, optional
        (n,) category of each picture; rows and columns are then sorted by it, with a line between groups
    space : str, default ""
        feature space, for the title
    """
    n, m = matrix.shape
    order = np.arange(n)
    square = n == m
    names = np.empty(0, dtype=object)
    if groups is not None and square and len(groups) == n:
        names = np.asarray([str(group) for group in groups], dtype=object)
        order = np.argsort(names, kind="stable")

    rows = order[np.linspace(0, n - 1, min(n, MOST_CELLS)).round().astype(int)]
    if square:
        columns = rows
    else:
        columns = np.linspace(0, m - 1, min(m, MOST_CELLS)).round().astype(int)

    shown = np.asarray(matrix[rows][:, columns], dtype=np.float64)
    with style():
        figure = _figure(4.3, 3.7)
        axes = figure.add_subplot()
        axes.spines[:].set_visible(False)
        image = axes.imshow(shown, cmap=SEQUENTIAL, interpolation="nearest", aspect="equal" if square else "auto")

        if 1 < len(set(names)) <= 10:
            sorted_names = names[rows]
            edges = np.flatnonzero(sorted_names[1:] != sorted_names[:-1]) + 0.5
            for edge in edges:
                axes.axhline(edge, color="white", linewidth=0.8)
                axes.axvline(edge, color="white", linewidth=0.8)

        if len(rows) < n:
            thinned = f" (every {n / len(rows):.3g}th of {n})"
        else:
            thinned = ""

        axes.set_xlabel("picture seen" + thinned)
        axes.set_ylabel("picture decoded")
        axes.set_title(_short(space, 40))
        axes.set_xticks([])
        axes.set_yticks([])
        bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
        bar.outline.set_visible(False)
        bar.set_label("similarity")

    return figure


def retrieval(table: pd.DataFrame) -> Figure:
    """Retrieval accuracy against gallery size, with chance.

    Parameters
    ----------
    table : DataFrame
        columns space, direction, gallery, top, value
    """
    with style():
        figure = _figure(4.3, 3.3)
        axes = figure.add_subplot()
        top = int(np.nanmin(table["top"].to_numpy(float)))
        table = rows_at(table, table["top"] == top)
        shades = [BRAIN, CEILING, CONTROL, INK]
        names = list(dict.fromkeys(table["space"]))[: len(shades)]

        for space, colour in zip(names, shades, strict=False):
            for direction, line in (("forward", "-"), ("backward", (0, (3, 2)))):
                is_line = (table["space"] == space) & (table["direction"] == direction)
                part = rows_at(table, is_line).sort_values("gallery")
                if len(part):
                    if direction == "forward":
                        word = "brain → picture"
                    else:
                        word = "picture → brain"

                    axes.plot(
                        part["gallery"], part["value"], color=colour, linestyle=line, marker="o", markersize=3,
                        label=f"{_short(space, 24)}, {word}", clip_on=False,
                    )  # fmt: skip

        sizes = np.unique(table["gallery"].to_numpy(float))
        dense = np.geomspace(sizes[0], sizes[-1], 60)
        axes.plot(dense, np.minimum(1, top / dense), color=MUTED, linewidth=1, linestyle=":", label="chance")
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{int(s)}" for s in sizes])
        axes.set_xticks([], minor=True)
        axes.set_ylim(0, 1)
        axes.grid(axis="y")
        axes.set_xlabel("pictures to choose from")
        axes.set_ylabel(f"share found{'' if top == 1 else f' among the best {top}'}")
        figure.legend(loc="outside upper left", ncols=2)

    return figure


def identification(scores: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Identification scores as dots with intervals; chance as a tick, controls as open marks.

    Parameters
    ----------
    scores : DataFrame
        rows of scores.csv, all inputs
    titles : mapping of {str: str}
        metric to what it is called; only these are drawn, in this order
    """
    marks = {"brain": "o", "shuffled": "x", "noise": "^", "mean": "s", "category": "D", "truth": "*"}
    with style():
        figure = _figure(4.7, 0.95 + 0.3 * len(titles))
        axes = figure.add_subplot()
        place = {metric: y for y, metric in enumerate(titles)}
        scores = rows_at(scores, scores["metric"].isin(list(place)))
        brain = rows_at(scores, scores["input"] == "brain")
        y = np.array([place[metric] for metric in brain["metric"]], dtype=float)
        axes.hlines(y, brain["ci_low"], brain["ci_high"], color=BRAIN, linewidth=2)
        axes.vlines(brain["chance"], y - 0.35, y + 0.35, color=MUTED, linewidth=1, linestyle=(0, (2, 1.5)))

        for name, mark in marks.items():
            part = rows_at(scores, scores["input"] == name)
            if len(part):
                colour = {"brain": BRAIN, "truth": CEILING}.get(name, CONTROL)
                axes.plot(
                    part["value"],
                    [place[metric] for metric in part["metric"]],
                    mark,
                    color=colour,
                    markersize=5.5 if name == "brain" else 4.7,
                    markerfacecolor=colour if name in ("brain", "truth") else "none",
                    markeredgewidth=1,
                    zorder=3 if name == "brain" else 2,
                    clip_on=False,
                    label={"brain": "decoded", "truth": "ceiling"}.get(name, name),
                )

        axes.set_yticks(range(len(titles)), [_short(t, 40) for t in titles.values()])
        axes.tick_params(axis="y", length=0, pad=8, labelcolor=INK)
        axes.set_ylim(len(titles) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel("share right (dashed tick: chance)")
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.1)

    return figure


# -- encoding ----------------------------------------------------------------------------------------------------------


def voxel_histogram(r: np.ndarray, ceiling_r: np.ndarray | None = None) -> Figure:
    """Distribution of encoding accuracy over voxels, against what a perfect model could reach.

    Parameters
    ----------
    r : ndarray of shape (n_voxels,)
        Pearson r of predicted and measured responses; NaN is left out and counted
    ceiling_r : ndarray of shape (n_voxels,), optional
        largest expected r of a perfect model, 0 where there is no signal, NaN where unknown
    """
    good = r[np.isfinite(r)]
    with style():
        figure = _figure(4.3, 3.1)
        axes = figure.add_subplot()
        high = 1.0

        if good.size:
            low = min(-0.2, float(good.min()))
        else:
            low = -0.2

        bins = np.linspace(np.floor(low * 10) / 10, high, 45)
        if ceiling_r is not None and np.isfinite(ceiling_r).any():
            silent = int((ceiling_r == 0).sum())  # one bar of them would flatten all others
            label = "ceiling" + (f" ({silent:,} voxels with none)" if silent else "")
            axes.hist(ceiling_r[ceiling_r > 0], bins, histtype="step", color=CEILING, linewidth=1.4, label=label)

        axes.hist(good, bins, color=BRAIN, alpha=0.85, label="predicted")
        if good.size:
            middle = float(np.median(good))
            axes.axvline(middle, color=INK, linewidth=1, linestyle=(0, (3, 2)), label=f"median {middle:.2f}")

        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel("r of predicted and measured response")
        axes.set_ylabel("voxels")
        undefined = len(r) - len(good)
        axes.set_title(f"{len(r):,} voxels" + (f", {undefined:,} undefined" if undefined else ""))
        figure.legend(loc="outside upper left", ncols=3)

    return figure


def against_ceiling(r: np.ndarray, ceiling_r: np.ndarray) -> Figure:
    """Encoding accuracy of each voxel against the r a perfect model could reach; the diagonal is the ceiling."""
    there = np.isfinite(r) & np.isfinite(ceiling_r)
    with style():
        figure = _figure(4.3, 3.1)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=CEILING, linewidth=1.2, label="ceiling")
        axes.axhline(0, color=MUTED, linewidth=0.8)
        size = float(np.clip(3e4 / max(1, there.sum()), 1, 14))
        axes.scatter(
            ceiling_r[there], r[there], s=size, color=BRAIN, alpha=0.35, linewidth=0, label="one voxel",
            rasterized=there.sum() > 1500,
        )  # fmt: skip

        axes.set_xlabel("r of a perfect model (noise ceiling)")
        axes.set_ylabel("r reached")
        axes.legend(loc="upper left")

    return figure


def roi_bars(table: pd.DataFrame, label: str) -> Figure:
    """One bar per ROI with its interval.

    Parameters
    ----------
    table : DataFrame
        columns roi, n, value, low, high, and optionally ceiling (drawn as a tick)
    label : str
        of the value axis, saying what the interval is
    """
    table = table.iloc[:MOST_ROIS]
    with style():
        figure = _figure(4.3, max(1.6, 0.7 + 0.25 * len(table)))
        axes = figure.add_subplot()
        y = np.arange(len(table))
        axes.barh(y, table["value"], height=0.62, color=BRAIN, alpha=0.85)
        spread = np.abs(np.stack([table["value"] - table["low"], table["high"] - table["value"]]).astype(float))
        axes.errorbar(table["value"], y, xerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=0)

        if "ceiling" in table and len(table["ceiling"].dropna()):
            axes.plot(table["ceiling"], y, "|", color=CEILING, markersize=11, markeredgewidth=2, label="ceiling")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1))

        names = [f"{_short(roi, 28)}  ({n:,})" for roi, n in zip(table["roi"], table["n"], strict=True)]
        axes.set_yticks(y, names)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel(label)
        axes.set_title("ROI (voxels)")

    return figure


MOST_ROIS = 30


def flat_map(u: np.ndarray, v: np.ndarray, values: np.ndarray, label: str = "r") -> Figure:
    """Values on the flattened cortex: one dot per voxel at its place (u, v)."""
    there = np.isfinite(u) & np.isfinite(v) & np.isfinite(values)
    with style():
        figure = _figure(6.5, 3.6)
        axes = figure.add_subplot()
        size = float(np.clip(4e4 / max(1, there.sum()), 0.5, 90))

        if there.any():
            high = float(np.quantile(values[there], 0.99))
        else:
            high = 1.0

        dots = axes.scatter(
            u[there], v[there], c=values[there], s=size, cmap=SEQUENTIAL, vmin=min(0.0, high), vmax=max(high, 1e-3),
            linewidth=0.4 if size > 10 else 0,
            edgecolor=MUTED, rasterized=True,
        )  # fmt: skip

        axes.set_aspect("equal")
        axes.set_axis_off()
        bar = figure.colorbar(dots, ax=axes, fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(label)

    return figure
