"""The figures of a page about betas: arrays in, a matplotlib Figure out, in the style of all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phosphene.reporting.drawing import BRAIN, CEILING, CONTROL, INK, MUTED, empty, style
from phosphene.reporting.figures import SEQUENTIAL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_SLICES = 12
_DENSE = 0.15  # share of the box round all voxels that they fill at least, to be drawn as slices
_MOST_TICKS = 400  # more trials than this would be one line
_MOST_RUNS = 24
_DASHES = (0, (2, 1.5))  # lengths of dash and gap, in line widths


def timing(shifts_s: np.ndarray, r2: np.ndarray, best_s: float | None, moved_s: float) -> Figure:
    """Variance explained by "something is shown" against the shift of all onsets.

    Parameters
    ----------
    shifts_s, r2 : ndarray of shape (n,)
        Seconds, and shares of variance.
    best_s : float or None
        Where the onsets seem to belong, or None where nothing speaks for moving them.
    moved_s : float
        By how many seconds they were moved.

    Returns
    -------
    Figure
        A curve whose peak should stand near 0.
    """
    with style():
        figure = empty(4.7, 2.9)
        axes = figure.add_subplot()
        axes.plot(shifts_s, 100 * r2, color=BRAIN)
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=_DASHES, label="as filed")

        if best_s is not None:
            axes.plot(best_s, 100 * np.interp(best_s, shifts_s, r2), "o", color=CEILING, label=f"best, {best_s:+.3g} s")

        if moved_s:
            axes.axvline(moved_s, color=CEILING, linewidth=1, label=f"used, {moved_s:+.3g} s")

        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.set_xlabel("seconds added to every onset")
        axes.set_ylabel("% of variance explained")
        figure.legend(loc="outside upper left", ncols=3)

    return figure


def repeats(counts: np.ndarray) -> Figure:
    """How often stimuli were shown.

    Parameters
    ----------
    counts : ndarray of shape (n, 2)
        Rows of times shown and number of stimuli.

    Returns
    -------
    Figure
        A bar per row, with its number above.
    """
    with style():
        figure = empty(4.7, 2.2)
        axes = figure.add_subplot()
        times = [str(int(n_times)) for n_times in counts[:, 0]]  # as names: 3 and 100 stand side by side
        axes.bar(times, counts[:, 1], width=0.7, color=BRAIN, alpha=0.85)

        for x, n in enumerate(counts[:, 1]):
            axes.annotate(
                f"{int(n):,}", (x, n), (0, 2), textcoords="offset points", ha="center", fontsize=7.5, color=MUTED
            )

        axes.set_xlabel("times shown")
        axes.set_ylabel("stimuli")
        axes.margins(y=0.15)

    return figure


def component_curve(curve: np.ndarray, chosen: int) -> Figure:
    """Cross-validated score of betas against the number of noise components.

    Parameters
    ----------
    curve : ndarray of shape (P + 1,)
        Score with 0 ... P components, higher is better.
    chosen : int
        How many were used.

    Returns
    -------
    Figure
        Gains over no component, which stands at 0.
    """
    gain = curve - curve[0]
    with style():
        figure = empty(4.7, 2.7)
        axes = figure.add_subplot()
        axes.plot(np.arange(len(gain)), gain, color=BRAIN, marker="o", markersize=3.5)
        axes.plot(chosen, gain[chosen], "o", color=CEILING, markersize=7, label=f"used: {chosen}")
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_xticks(np.arange(len(gain))[:: max(1, len(gain) // 12)])
        axes.grid(axis="y")
        axes.set_xlabel("noise components")
        axes.set_ylabel("gain in agreement of repeats")
        figure.legend(loc="outside upper left")

    return figure


def histogram(values: np.ndarray, label: str, steps: np.ndarray) -> Figure:
    """How many voxels have each of a few values.

    Parameters
    ----------
    values : ndarray of shape (n_voxels,)
        Each close to one of the steps.
    label : str
        Of the axis of values.
    steps : ndarray of shape (n,)
        The values there can be, rising.

    Returns
    -------
    Figure
        A bar per step.
    """
    counts = np.array([np.isclose(values, step).sum() for step in steps])
    width = 0.8
    if len(steps) > 1:
        width = 0.8 * np.diff(steps).min()

    with style():
        figure = empty(4.7, 2.3)
        axes = figure.add_subplot()
        axes.bar(steps, counts, width=width, color=BRAIN, alpha=0.85)
        axes.set_xticks(steps[:: max(1, len(steps) // 10)])
        axes.set_xlabel(label)
        axes.set_ylabel("voxels")

    return figure


def reliability(r: np.ndarray, edges: np.ndarray, null: np.ndarray, bar: float) -> Figure:
    """Split-half correlations of voxels, and what they are when stimuli are shuffled.

    Parameters
    ----------
    r : ndarray of shape (n_voxels,)
        Correlation of the mean betas of one half of the showings with the other.
    edges : ndarray of shape (2 * n_bins + 1,)
        Of the histogram of shuffled ones; two of its bins make one of the figure.
    null : ndarray of shape (2 * n_bins,)
        The histogram, scaled to as many voxels.
    bar : float
        95th percentile of the null.

    Returns
    -------
    Figure
        Bars for what was measured, an outline for what chance gives.
    """
    low = min(-0.2, float(r.min()))
    if null.any():
        low = min(low, float(edges[np.flatnonzero(null)[0]]))

    wide_edges = edges[::2]
    wide_null = null.reshape(-1, 2).sum(axis=1)  # (n_bins,)

    with style():
        figure = empty(4.7, 2.9)
        axes = figure.add_subplot()
        axes.hist(r, list(wide_edges), color=BRAIN, alpha=0.85, label="measured")
        axes.stairs(wide_null, wide_edges, color=CONTROL, linewidth=1.4, label="pictures shuffled")

        axes.axvline(bar, color=INK, linewidth=1, linestyle=(0, (3, 2)), label="95 % of shuffled")
        axes.set_xlim(low, 1)
        axes.set_xlabel("r of one half of the showings with the other")
        axes.set_ylabel("voxels")
        figure.legend(loc="outside upper left", ncols=3)

    return figure


def slices(voxels: pd.DataFrame, values: np.ndarray, label: str, limits: tuple[float, float] | None = None) -> Figure:
    """A value per voxel in slices of the volume, the twelve fullest from below to above.

    Of voxels that fill little of the volume, as of cortex alone, the three projections instead: means along each axis.

    Parameters
    ----------
    voxels : DataFrame
        With ``i``, ``j``, ``k``.
    values : ndarray of shape (n_voxels,)
        What the colours say.
    label : str
        Of the colour bar.
    limits : tuple of (float, float), optional
        Of the colours; by default the 1st and 99th percentile.

    Returns
    -------
    Figure
        Places without a voxel are left open.
    """
    cells = voxels[["i", "j", "k"]].to_numpy(dtype=int)
    cells = cells - cells.min(axis=0)
    shape = cells.max(axis=0) + 1  # (3,)
    low, high = limits or tuple(np.quantile(values, [0.01, 0.99]))
    is_sparse = len(cells) < _DENSE * np.prod(shape)

    if is_sparse:
        pictures = _projections(cells, values, shape)
        n_columns = 3
        most_height = 2.9
    else:
        pictures = _slices_of(cells, values, shape)
        most_columns = 6
        if shape[0] > shape[1]:
            most_columns = 4

        n_columns = min(len(pictures), most_columns)
        most_height = 7.5

    n_rows = -(-len(pictures) // n_columns)
    width = 9.6
    if len(pictures) == 1:
        width = 4.7

    # An inch of the width is for the colour bar.
    tallest = max(picture.shape[0] / picture.shape[1] for picture in pictures.values())
    height = (width - 1.0) / n_columns * tallest * n_rows

    with style():
        figure = empty(width, float(np.clip(height, 1.2, most_height)) + 0.35)
        panels = figure.subplots(n_rows, n_columns, squeeze=False)

        for axes in panels.ravel():
            axes.set_axis_off()

        for axes, (title, picture) in zip(panels.ravel(), pictures.items(), strict=False):
            axes.imshow(
                picture, cmap=SEQUENTIAL, vmin=low, vmax=max(high, low + 1e-6), origin="lower", interpolation="nearest"
            )

            if len(pictures) > 1:
                axes.set_title(title, color=MUTED, fontweight="normal")

        # All panels share their limits, so the colours of the first stand for all.
        bar = figure.colorbar(panels[0, 0].images[0], ax=panels, fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(label)

    return figure


def _slices_of(cells: np.ndarray, values: np.ndarray, shape: np.ndarray) -> dict[str, np.ndarray]:
    """Title to picture (n_j, n_i) of the fullest slices, from below to above; NaN where there is no voxel."""
    n_voxels = np.bincount(cells[:, 2], minlength=shape[2])  # (n_k,)
    n_slices = min(_MOST_SLICES, int((n_voxels > 0).sum()))
    fullest = np.argsort(-n_voxels, kind="stable")[:n_slices]
    pictures = {}

    for k in np.sort(fullest):
        in_slice = cells[:, 2] == k
        picture = np.full((shape[1], shape[0]), np.nan)
        picture[cells[in_slice, 1], cells[in_slice, 0]] = values[in_slice]
        pictures[f"slice {k + 1}"] = picture

    return pictures


def _projections(cells: np.ndarray, values: np.ndarray, shape: np.ndarray) -> dict[str, np.ndarray]:
    """Title to picture of the means along each axis of the volume; NaN where there is no voxel."""
    views = {"from above": (0, 1), "from behind": (0, 2), "from the side": (1, 2)}
    pictures = {}

    for title, (x, y) in views.items():
        n_pixels = shape[x] * shape[y]
        pixel = cells[:, y] * shape[x] + cells[:, x]  # (n_voxels,)
        n = np.bincount(pixel, minlength=n_pixels)
        total = np.bincount(pixel, values, minlength=n_pixels)
        mean = np.divide(total, n, out=np.full(len(total), np.nan), where=n > 0)
        pictures[title] = mean.reshape(shape[y], shape[x])

    return pictures


def carpet(series: np.ndarray, ends_s: np.ndarray, onsets_s: np.ndarray) -> Figure:
    """Voxels' series over all runs as grey values, and ticks where trials begin.

    Parameters
    ----------
    series : ndarray of shape (n_voxels, n_volumes), uint8
        The most responsive voxel first.
    ends_s : ndarray of shape (n_runs,)
        Ends of runs, seconds from the start of the first.
    onsets_s : ndarray of shape (n_trials,)
        On the same clock.

    Returns
    -------
    Figure
        As wide as the page.
    """
    has_ticks = len(onsets_s) <= _MOST_TICKS
    label = "seconds; lines: a new run"
    if has_ticks:
        label += "; ticks above: trials"

    with style():
        figure = empty(9.6, 3.4)
        axes = figure.add_subplot()
        axes.imshow(
            series, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="antialiased",
            extent=(0, float(ends_s[-1]), len(series), 0),
        )  # fmt: skip

        for end in ends_s[:-1]:
            axes.axvline(end, color=CEILING, linewidth=1)

        if has_ticks:
            _ticks(axes, onsets_s)

        axes.set_xlabel(label)
        axes.set_ylabel("voxels, most responsive above")
        axes.set_yticks([])
        axes.spines[:].set_visible(False)

    return figure


def _ticks(axes: Axes, onsets_s: np.ndarray) -> None:
    axes.plot(
        onsets_s, np.full(len(onsets_s), 1.015), "|", transform=axes.get_xaxis_transform(), clip_on=False, color=BRAIN,
        markersize=4, markeredgewidth=0.7,
    )  # fmt: skip


def runs(table: pd.DataFrame) -> Figure:
    """Runs as bars of their length: where trials begin and end, and what is left after the last.

    Parameters
    ----------
    table : DataFrame
        One row per run: session, run, duration_s, first_s (first onset) and tail_s (from the last onset to the end).

    Returns
    -------
    Figure
        The first on top; no more than 24.
    """
    first_runs = table.iloc[:_MOST_RUNS]
    first_s = first_runs["first_s"]
    onsets_span_s = first_runs["duration_s"] - first_runs["tail_s"] - first_s

    names = []
    for session, run in zip(first_runs["session"], first_runs["run"], strict=True):
        names.append(f"{session:.0f}.{run:.0f}")

    label = "seconds"
    if len(first_runs) < len(table):
        label = f"seconds; the first {_MOST_RUNS} of {len(table)} runs"

    with style():
        figure = empty(4.7, 0.75 + 0.17 * len(first_runs))
        axes = figure.add_subplot()
        y = np.arange(len(first_runs))
        axes.barh(y, first_runs["duration_s"], height=0.66, color=CONTROL, alpha=0.35, label="run")
        axes.barh(y, onsets_span_s, left=first_s, height=0.66, color=BRAIN, alpha=0.85, label="first to last onset")

        axes.set_yticks(y, names)
        axes.set_ylim(len(first_runs) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        axes.set_ylabel("session.run")
        figure.legend(loc="outside upper left", ncols=2)

    return figure
