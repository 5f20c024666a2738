"""What stimulation does, drawn: own category against random voxels, pictures before and after, every category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from phosphene.analysis.base import Drawing
from phosphene.metrics.statistics import bootstrap, mean_of_items
from phosphene.reporting import drawing
from phosphene.reporting.drawing import BRAIN, CEILING, CONTROL, INK, MUTED

LEVEL = 0.05
_LARGEST = 6.0


def rise(areas: Sequence[tuple[str, np.ndarray, np.ndarray]], rng: np.random.Generator) -> Drawing:
    """Own category's rise: a cloud of random voxel sets, the area as a dot with its interval.

    Parameters
    ----------
    areas : sequence of tuple of (str, ndarray, ndarray)
        words, (n,) rise in every response, (repeats,) mean rise by each random set
    rng : numpy.random.Generator
        of the intervals and of the height of dots in a cloud
    """
    with drawing.style():
        figure = drawing.empty(6.6, 0.75 + 0.42 * len(areas))
        axes = figure.subplots()

        for y, (_, values, null) in enumerate(areas):
            jitter = rng.uniform(-0.24, 0.24, len(null))
            axes.plot(null, y + jitter, ".", color=CONTROL, markersize=2.6, alpha=0.55, markeredgewidth=0,
                      label="random voxel sets" if y == 0 else None)  # fmt: skip
            value, low, high = bootstrap(mean_of_items(values), len(values), rng=rng)
            axes.hlines(y, low, high, color=BRAIN, linewidth=2.4)
            axes.plot(value, y, "o", color=BRAIN, markersize=7, clip_on=False, label="the area" if y == 0 else None)

        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (2, 1.5)), zorder=0)
        drawing.one_a_row(axes, [a[0] for a in areas], "rise of the area's own category (cosine)")

    return Drawing(
        figure,
        "For every area, the rise of its own category beside the rises under random voxel sets.",
        "How much an area's own category rises when it is stimulated: the area with a 95 % interval over responses, and every "
        "random voxel set of equal size as a dot.",
    )


def strips(seen: np.ndarray, decoded: np.ndarray, rows: Mapping[str, np.ndarray]) -> Drawing:
    """Pictures before and after; every array (n, h, w, c), 0-1."""
    return Drawing(
        drawing.plate(seen, decoded, rows, labels=("seen", "decoded as it is"), width=9.0),
        "Rows of pictures: seen, decoded, and decoded with each area stimulated.",
        "Pictures before and after. The last row is what stimulating random voxels does.",
    )


def bubbles(
    table: pd.DataFrame, words: Mapping[str, str], own: Mapping[str, str | None], categories: Sequence[str]
) -> Drawing:
    """Every category under every target: size is the rise in standard deviations of random voxel sets.

    Parameters
    ----------
    table : DataFrame
        target, category, z, p_fdr
    words : mapping of {str: str}
        target to what it is called, in the order drawn
    own : mapping of {str: str or None}
        target to its own category
    categories : sequence of str
        in any order; own ones come first
    """
    first = [c for c in dict.fromkeys(own.values()) if c is not None]
    columns = [*first, *(c for c in categories if c not in first)]
    shown = columns[:24]
    targets = list(words)
    part = table[table["category"].isin(shown)]
    x = part["category"].map(shown.index).to_numpy()
    y = part["target"].map(targets.index).to_numpy()
    z = part["z"].to_numpy()
    clear = part["p_fdr"].to_numpy() < LEVEL
    most = max(1.0, float(np.abs(z).max(initial=1)))
    size = 260 * np.minimum(np.abs(z), _LARGEST) / min(most, _LARGEST)

    with drawing.style():
        figure = drawing.empty(2.1 + 0.34 * len(shown), 1.15 + 0.34 * len(targets))
        axes = figure.subplots()

        for up, colour in ((True, BRAIN), (False, CEILING)):
            for sure in (True, False):
                here = ((z > 0) == up) & (clear == sure)
                axes.scatter(x[here], y[here], s=size[here], facecolor=colour if sure else "none", edgecolor=colour,
                             linewidth=1, alpha=1 if sure else 0.6)  # fmt: skip

        for name, category in own.items():
            if category in shown:
                corner = shown.index(category) - 0.47, targets.index(name) - 0.47
                axes.add_patch(_box(corner))

        axes.set_xticks(range(len(shown)), shown, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(targets)), [drawing.short(w, 30) for w in words.values()])
        axes.set_xlim(-0.6, len(shown) - 0.4)
        axes.set_ylim(len(targets) - 0.4, -0.6)
        axes.tick_params(length=0, labelcolor=INK)

        for spine in axes.spines.values():
            spine.set_visible(False)

        for label, colour, filled in (("rises", BRAIN, True), ("falls", CEILING, True), ("not clear", MUTED, False)):
            axes.scatter([], [], s=45, facecolor=colour if filled else "none", edgecolor=colour, label=label)

        axes.scatter([], [], s=70, marker="s", facecolor="none", edgecolor=INK, label="own category")
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, handletextpad=0.2, columnspacing=1.2, borderpad=0
        )

    if most <= _LARGEST:
        largest = f"{most:.1f}"
    else:
        largest = f"{_LARGEST:.0f} or more"

    if len(columns) > len(shown):
        more = f" The first {len(shown)} of {len(columns)} categories."
    else:
        more = ""

    return Drawing(
        figure,
        "Circles for every target and category, larger where the category changes more; numbers in categories.csv.",
        f"Every category under every target, in standard deviations of random voxel sets (largest circle: {largest}); "
        f"filled where the false discovery rate is under {LEVEL:g}.{more}",
    )


def _box(corner: tuple[float, float]):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 0.94, 0.94, facecolor="none", edgecolor=INK, linewidth=1.1, joinstyle="round")
