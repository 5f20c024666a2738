"""Figures of noise on the first stage: scores against the amplitude, and the pictures themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from phosphene.reporting import drawing

NONE = "none"
PURE = "pure"
LATENT = "latent"
"""Arms without an amplitude: no noise, nothing but noise, and no first picture."""


def curves(
    table: pd.DataFrame,
    own: pd.DataFrame,
    words: Mapping[str, str],
    measures: Mapping[str, str],
    chance: Mapping[str, float],
) -> Any:
    """Every measure against the amplitude: of what was decoded, and of what the second stage was given (`own`).

    Parameters
    ----------
    table, own : DataFrame
        input, measure, value, ci_low, ci_high
    words, measures : mapping of {str: str}
        arms and measures by name, to what they are called
    chance : mapping of {str: float}
        measure to chance
    """
    additive = [k for k in words if k not in (PURE, LATENT)]
    place = {k: float(i) for i, k in enumerate(additive)}
    place |= {PURE: len(additive) + 0.5, LATENT: len(additive) + 1.9}
    ticks = {NONE: "0", PURE: "pure", LATENT: "none"}
    columns = min(4, len(measures))
    rows = -(-len(measures) // columns)

    with drawing.style():
        figure = drawing.empty(0.3 + 2.35 * columns, 0.35 + 1.75 * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()

        for axes in panels[len(measures) :]:
            axes.set_visible(False)

        for i, (axes, measure) in enumerate(zip(panels, measures, strict=False)):
            base = table[(table["measure"] == measure) & (table["input"] == NONE)].iloc[0]
            axes.axhspan(base["ci_low"], base["ci_high"], color=drawing.BRAIN, alpha=0.13, linewidth=0)
            if np.isfinite(chance[measure]):
                axes.axhline(chance[measure], color=drawing.MUTED, linewidth=1, linestyle=(0, (2, 1.5)), zorder=0)

            for part, colour, label in (
                (own, drawing.CONTROL, "given to the second stage"),
                (table, drawing.BRAIN, "decoded"),
            ):
                _line(axes, part[part["measure"] == measure].set_index("input"), place, additive, colour, label)

            axes.set_title(drawing.short(measures[measure], 34))
            axes.set_xticks(
                list(place.values()), [ticks.get(k, words[k].removeprefix("noise ")) for k in place], fontsize=7
            )

            axes.set_xlim(-0.4, place[LATENT] + 0.4)
            axes.locator_params(axis="y", nbins=5)
            axes.grid(axis="y")
            axes.set_axisbelow(True)

            if i >= len(measures) - columns:
                axes.set_xlabel("noise on the first picture")

        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=2)

    return figure


def _line(axes: Any, rows: pd.DataFrame, place: dict[str, float], additive: list[str], colour: str, label: str) -> None:
    there = [k for k in place if k in rows.index]
    x = {k: place[k] + (0.09 if colour == drawing.BRAIN else -0.09) for k in there}  # intervals side by side

    for k in there:
        if np.isfinite(rows.loc[k, "ci_low"]):
            axes.vlines(x[k], rows.loc[k, "ci_low"], rows.loc[k, "ci_high"], color=colour, linewidth=1.2)

    joined = [k for k in additive if k in there]
    axes.plot([x[k] for k in joined], rows.loc[joined, "value"], "-", color=colour, linewidth=1.4, label=label)
    axes.plot(list(x.values()), rows.loc[there, "value"], "o", color=colour, markersize=3.8, clip_on=False)


def strip(
    true: np.ndarray, given: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray], words: Mapping[str, str]
) -> Any:
    """Pictures seen, and for every arm what the second stage was given and what it made of it.

    Parameters
    ----------
    true : ndarray of shape (n, height, width, channels)
        0-1
    given, made : mapping of {str: ndarray}
        arm to pictures; nothing was given where there is no first picture
    words : mapping of {str: str}
        arm to what it is called
    """
    arms = list(words)
    h, w = true.shape[1:3]
    zoom = max(1, round(96 / max(h, w)))
    blank = np.zeros_like(true[0])
    rows = []

    for s in range(len(true)):
        rows.append(np.stack([true[s], *(given[k][s] if k in given else blank for k in arms)]))
        rows.append(np.stack([blank, *(made[k][s] for k in arms)]))

    gap = max(1, round(0.06 * h * zoom))
    enlarged = [np.repeat(np.repeat(drawing.as_uint8(r), zoom, axis=1), zoom, axis=2) for r in rows]
    picture = drawing.mosaic(enlarged, gap)
    step_y = h * zoom + gap
    step_x = w * zoom + gap

    for r in range(len(rows)):  # cells with nothing in them
        for c in [0] if r % 2 else [1 + arms.index(LATENT)]:
            picture[r * step_y : r * step_y + h * zoom, c * step_x : c * step_x + w * zoom, 3] = 0

    width = 9.0
    left = 0.7
    top = 0.24
    inches = width - left - 0.02
    tall = inches * picture.shape[0] / picture.shape[1]

    with drawing.style():
        figure = drawing.empty(width, tall + top + 0.02)
        figure.set_layout_engine("none")
        axes = figure.add_axes((left / width, 0.02 / (tall + top + 0.02), inches / width, tall / (tall + top + 0.02)))
        axes.imshow(picture, interpolation="none" if zoom == 1 else "nearest", aspect="auto")
        axes.set_axis_off()

        for r in range(len(rows)):
            y = 1 - (r * step_y + h * zoom / 2) / picture.shape[0]
            axes.text(
                -0.08 / inches, y, "decoded" if r % 2 else "given", transform=axes.transAxes, ha="right", va="center",
                color=drawing.INK if r % 2 else drawing.MUTED, fontweight="bold" if r % 2 else "normal",
            )  # fmt: skip

        for c, caption in enumerate(["seen", *words.values()]):
            x = (c * step_x + w * zoom / 2) / picture.shape[1]
            axes.text(
                x, 1 + 0.05 / tall, caption, transform=axes.transAxes, ha="center", va="bottom", color=drawing.MUTED
            )

    return figure
