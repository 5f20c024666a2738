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

# share of the bounding box that voxels fill
_SLICES = 12
_DENSE = 0.15


def timing(shifts_s: np.ndarray, r2: np.ndarray, best_s: float | None, moved_s: float) -> Figure:
    """Variance explained by "something is shown" against the shift of all onsets.

    Parameters
    ----------
    shifts_s, r2 : ndarray of shape (n,)
        seconds, and shares of variance
    best_s : float or None
        where the onsets seem to belong, or None where nothing speaks for moving them
    moved_s : float
        by how much they were moved
    """
    with style():
        figure = empty(4.7, 2.9)
        axes = figure.add_subplot()
        axes.plot(shifts_s, 100 * r2, color=BRAIN)
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (2, 1.5)), label="as filed")

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
    """How often stimuli were shown: rows of (times, stimuli)."""
    with style():
        figure = empty(4.7, 2.2)
        axes = figure.add_subplot()
        times = [str(int(t)) for t in counts[:, 0]]
        axes.bar(times, counts[:, 1], width=0.7, color=BRAIN, alpha=0.85)

        for x, n in enumerate(counts[:, 1]):
            axes.annotate(
                f"{int(n):,}", (x, n), (0, 2), textcoords="offset points", ha="center", fontsize=7.5, color=MUTED
            )

        axes.set_xlabel("times shown")
        axes.set_ylabel("stimuli")
        axes.margins(y=0.15)

    return figure


def components(curve: np.ndarray, chosen: int) -> Figure:
    """Cross-validated score of betas against the number of noise components.

    Parameters
    ----------
    curve : ndarray of shape (P + 1,)
        score with 0 ... P components, higher is better
    chosen : int
        how many were used
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
    """How many voxels have each of a few values."""
    counts = np.array([np.isclose(values, s).sum() for s in steps])
    with style():
        figure = empty(4.7, 2.3)
        axes = figure.add_subplot()

        if len(steps) > 1:
            width = 0.8 * np.diff(steps).min()
        else:
            width = 0.8

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
    edges, null : ndarray
        histogram of shuffled ones, scaled to as many voxels
    bar : float
        95th percentile of the null
    """
    with style():
        figure = empty(4.7, 2.9)
        axes = figure.add_subplot()
        low = min(-0.2, float(edges[np.flatnonzero(null)[0]]) if null.any() else -0.2, float(r.min()))
        axes.hist(r, list(edges[::2]), color=BRAIN, alpha=0.85, label="measured")
        axes.stairs(
            null.reshape(-1, 2).sum(axis=1), edges[::2], color=CONTROL, linewidth=1.4, label="pictures shuffled"
        )

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
        with ``i``, ``j``, ``k``
    values : ndarray of shape (n_voxels,)
    limits : tuple of (float, float), optional
        of the colours; by default the 1st and 99th percentile
    """
    cells = voxels[["i", "j", "k"]].to_numpy(dtype=int)
    cells = cells - cells.min(axis=0)
    shape = cells.max(axis=0) + 1
    low, high = limits or tuple(np.quantile(values, [0.01, 0.99]))
    sparse = len(cells) < _DENSE * np.prod(shape)

    if sparse:
        pictures = _projections(cells, values, shape)
    else:
        pictures = _slices_of(cells, values, shape)

    if sparse:
        columns = 3
    else:
        columns = min(len(pictures), 4 if shape[0] > shape[1] else 6)

    rows = -(-len(pictures) // columns)
    if len(pictures) == 1:
        width = 4.7
    else:
        width = 9.6

    tall = (width - 1.0) / columns * max(p.shape[0] / p.shape[1] for p in pictures.values()) * rows
    with style():
        figure = empty(width, float(np.clip(tall, 1.2, 7.5 if not sparse else 2.9)) + 0.35)
        panels = figure.subplots(rows, columns, squeeze=False)

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
    full = np.bincount(cells[:, 2], minlength=shape[2])
    out = {}

    for k in np.sort(np.argsort(-full, kind="stable")[: min(_SLICES, int((full > 0).sum()))]):
        here = cells[:, 2] == k
        picture = np.full((shape[1], shape[0]), np.nan)
        picture[cells[here, 1], cells[here, 0]] = values[here]
        out[f"slice {k + 1}"] = picture

    return out


def _projections(cells: np.ndarray, values: np.ndarray, shape: np.ndarray) -> dict[str, np.ndarray]:
    out = {}
    for title, (x, y) in {"from above": (0, 1), "from behind": (0, 2), "from the side": (1, 2)}.items():
        place = cells[:, y] * shape[x] + cells[:, x]
        n = np.bincount(place, minlength=shape[x] * shape[y])
        total = np.bincount(place, values, minlength=shape[x] * shape[y])
        mean = np.divide(total, n, out=np.full(len(total), np.nan), where=n > 0)
        out[title] = mean.reshape(shape[y], shape[x])

    return out


def carpet(shown: np.ndarray, ends_s: np.ndarray, onsets_s: np.ndarray) -> Figure:
    """Voxels' series over all runs as grey values, and ticks where trials begin.

    Parameters
    ----------
    shown : ndarray of shape (n_voxels, n_volumes), uint8
    ends_s : ndarray of shape (n_runs,)
        ends of runs
    onsets_s : ndarray of shape (n_trials,)
    """
    with style():
        figure = empty(9.6, 3.4)
        axes = figure.add_subplot()
        axes.imshow(
            shown, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="antialiased",
            extent=(0, float(ends_s[-1]), len(shown), 0),
        )  # fmt: skip

        for end in ends_s[:-1]:
            axes.axvline(end, color=CEILING, linewidth=1)

        if len(onsets_s) <= 400:
            _ticks(axes, onsets_s)

        axes.set_xlabel("seconds; lines: a new run" + ("; ticks above: trials" if len(onsets_s) <= 400 else ""))
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
    """Runs as bars of their length: where trials begin and end, and what is left after the last."""
    with style():
        shown = table.iloc[:24]
        figure = empty(4.7, 0.75 + 0.17 * len(shown))
        axes = figure.add_subplot()
        y = np.arange(len(shown))
        axes.barh(y, shown["duration_s"], height=0.66, color=CONTROL, alpha=0.35, label="run")
        axes.barh(
            y, shown["duration_s"] - shown["tail_s"] - shown["first_s"], left=shown["first_s"], height=0.66, color=BRAIN,
            alpha=0.85, label="first to last onset",
        )  # fmt: skip

        axes.set_yticks(y, [f"{s:.0f}.{r:.0f}" for s, r in zip(shown["session"], shown["run"], strict=True)])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("seconds" + ("" if len(shown) == len(table) else f"; the first 24 of {len(table)} runs"))
        axes.set_ylabel("session.run")
        figure.legend(loc="outside upper left", ncols=2)

    return figure
