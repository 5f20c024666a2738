"""From one response to another (``phosphene.analysis.interpolate``), in sentences, figures and moving pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phosphene.analysis.interpolate import DecodedPath, InterpolateFindings
from phosphene.reporting import drawing
from phosphene.reporting.drawing import BRAIN, CONTROL, MUTED
from phosphene.reporting.presentation import Animation, Drawing, Presentation
from phosphene.reporting.wording import space_words

__all__ = ["INPUTS", "MEASURES", "present_interpolation"]

INPUTS = {"brain": "own ends", "wrong": "ends of other pairs"}
MEASURES = {
    "monotonic": "Monotonicity (rank correlation with t)",
    "forward": "Steps that go forward, share",
    "largest_step": "Largest step, share of the way",
    "ends": "Cosine between the two ends",
}
_NOTES = {
    "monotonic": "Spearman correlation between t and likeness to the end minus likeness to the start; 1 when every step leads "
    "on, 0 where pictures never change.",
    "largest_step": "Length of the largest step over the sum of all; 1 for a single jump.",
}
LEVEL = 0.05
_N_COLUMNS = 9


def present_interpolation(found: InterpolateFindings) -> Presentation:
    """Turn the findings into sentences and figures.

    Parameters
    ----------
    found : InterpolateFindings
        what the analysis found

    Returns
    -------
    Presentation
        sentences, words for the table, figures and notes
    """
    pictured = found.paths[: len(found.ends)]

    return Presentation(
        sentences=_sentences(found),
        inputs=INPUTS,
        measures=MEASURES,
        figures={"strips": _strips(pictured, found.ends), "similarity": _curves(found)},
        animations={"moving": _moving(pictured, found.ends)},
        notes=_NOTES,
    )


def _sentences(found: InterpolateFindings) -> list[str]:
    rows = found.table.set_index(["input", "measure"])
    own = rows.loc[("brain", "monotonic")]
    wrong = rows.loc[("wrong", "monotonic")]
    largest = rows.loc[("brain", "largest_step"), "value"]
    n_steps = len(found.t) - 1
    monotonicity = f"{own['value']:.2f} [{own['ci_low']:.2f}, {own['ci_high']:.2f}]"

    if not np.isfinite(largest):
        verdict = "The picture does not change between two responses: the decoder does not read them."
    elif own["ci_low"] > 0 and found.p < LEVEL:
        verdict = (
            f"Between two responses the picture passes from one to the other: monotonicity {monotonicity}, "
            f"1 being step by step, against {wrong['value']:.2f} "
            f"[{wrong['ci_low']:.2f}, {wrong['ci_high']:.2f}] for the ends of other pairs (p = {found.p:.2g})."
        )
    else:
        verdict = (
            f"Between two responses the picture does not clearly pass from one to the other: monotonicity {monotonicity}, "
            f"{wrong['value']:.2f} for the ends of other pairs (p = {found.p:.2g})."
        )

    sentences = [verdict]
    if np.isfinite(largest):
        steps = (
            f"The largest of {n_steps} steps makes {100 * largest:.0f} % of the way, where even steps would make "
            f"{100 * (1 / n_steps):.0f} %"
        )
        if largest > 0.5:
            sentences.append(f"{steps}; that is a jump.")
        else:
            sentences.append(f"{steps}.")

    sentences.append(
        f"{len(found.paths)} pairs of test responses, repeats averaged. Likeness is the cosine in {space_words(found.source)} "
        "with the pictures decoded from the two ends themselves."
    )

    return sentences


# -- figures -----------------------------------------------------------------------------------------------------------


def _strips(paths: Sequence[DecodedPath], ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> Drawing:
    """A row per pair: the first picture seen, a few pictures along the way, the second picture seen."""
    n_steps = len(paths[0].pixels)
    columns = np.unique(np.linspace(0, n_steps - 1, _N_COLUMNS).round().astype(int))
    zoom = max(1, round(64 / max(paths[0].pixels.shape[1:3])))
    rows = []

    for path, (first, second) in zip(paths, ends, strict=True):
        pictures = np.concatenate([first[None], path.pixels[columns], second[None]])  # (n_columns + 2, h, w, c)
        rows.append(drawing.enlarged(pictures, zoom))

    # The pictures seen stand a little apart from what was decoded.
    side = rows[0].shape[2]
    gap = max(1, side // 14)
    apart = side // 3
    step = side + gap
    left = drawing.mosaic([row[:1] for row in rows], gap)
    middle = drawing.mosaic([row[1:-1] for row in rows], gap)
    right = drawing.mosaic([row[-1:] for row in rows], gap)
    space = np.zeros((left.shape[0], apart, 4), np.uint8)
    picture = np.concatenate([left, space, middle, space, right], axis=1)  # (height, width, 4)

    width = 9.0
    tall = width * picture.shape[0] / picture.shape[1]
    top = 0.26

    t = columns / (n_steps - 1)
    centres = [side / 2, *(side + apart + i * step + side / 2 for i in range(len(t)))]
    centres.append(picture.shape[1] - side / 2)
    labels = ["seen first", *(f"{share:.3g}" for share in t), "seen second"]
    labels[1] = "t = 0"
    labels[-2] = "t = 1"

    with drawing.style():
        figure = drawing.empty(width, tall + top)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, tall / (tall + top)))
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_axis_off()

        for x, label in zip(centres, labels, strict=True):
            colour = BRAIN
            if label.startswith("seen"):
                colour = MUTED

            axes.text(
                x / picture.shape[1], 1 + 0.06 / tall, label,
                transform=axes.transAxes, ha="center", va="bottom", color=colour, fontsize=8,
            )  # fmt: skip

    return Drawing(
        figure,
        "A row for each pair: the first picture seen, pictures decoded along the way, the second picture seen.",
        "From one response to another. Between the two pictures seen: what is decoded from mixtures of the two responses, the "
        "share t of the second growing from left to right.",
    )


def _curves(found: InterpolateFindings) -> Drawing:
    """Likeness to both ends along the way, and how evenly the way is made."""
    t = found.t
    middle = (t[1:] + t[:-1]) / 2
    likeness = {
        "to the first": (CONTROL, np.array([path.to_start for path in found.paths])),  # (n_pairs, steps)
        "to the second": (BRAIN, np.array([path.to_end for path in found.paths])),
    }
    lengths = []
    for path in found.paths:
        lengths.append(np.linalg.norm(np.diff(path.features.astype(float), axis=0), axis=1))

    steps = np.array(lengths)  # (n_pairs, steps - 1)
    share = steps / np.maximum(steps.sum(axis=1, keepdims=True), 1e-12)

    with drawing.style():
        figure = drawing.empty(6.4, 2.6)
        left, right = figure.subplots(1, 2)

        for name, (colour, lines) in likeness.items():
            left.plot(t, lines.T, color=colour, linewidth=0.6, alpha=0.35)
            left.plot(t, lines.mean(axis=0), color=colour, linewidth=2.2, label=name)

        left.set_title("Likeness of the decoded picture")
        left.set_xlabel("share of the second response")
        left.set_ylabel("cosine")
        left.legend(loc="lower center")

        right.plot(middle, share.T, color=BRAIN, linewidth=0.6, alpha=0.35)
        right.plot(middle, share.mean(axis=0), color=BRAIN, linewidth=2.2)
        right.axhline(1 / len(middle), color=MUTED, linewidth=1, linestyle=drawing.DASHED)
        right.set_title("Share of the way made by each step")
        right.set_xlabel("share of the second response")
        right.set_ylim(bottom=0)

        for axes in (left, right):
            axes.grid(axis="y")
            axes.set_axisbelow(True)
            axes.set_xlim(0, 1)

    return Drawing(
        figure,
        "Left: likeness to the first and the second picture along the way. Right: the share of the way that each step makes.",
        f"Cosine in {space_words(found.source)} with the pictures decoded from both ends, and how evenly the way is made "
        "(dashed: even steps); thin lines are pairs, thick ones their mean.",
    )


def _moving(paths: Sequence[DecodedPath], ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> Animation:
    """All pairs side by side, there and back, the pictures seen above and below; on white, as GIF knows no half transparency."""
    zoom = max(1, round(112 / max(paths[0].pixels.shape[1:3])))
    n_steps = len(paths[0].pixels)
    gap = 6

    def row(pictures: list[np.ndarray]) -> np.ndarray:
        rgba = drawing.mosaic([drawing.enlarged(np.stack(pictures), zoom)], gap)
        return np.where(rgba[..., 3:] > 0, rgba[..., :3], 255).astype(np.uint8)  # (h, width, 3)

    def paled(pictures: np.ndarray, strength: float) -> np.ndarray:
        return (255 - (255 - pictures.astype(float)) * (0.15 + 0.85 * strength)).round().astype(np.uint8)

    first = row([start for start, _ in ends])
    second = row([end for _, end in ends])
    white = np.full((gap, first.shape[1], 3), 255, np.uint8)

    # There and back, a while at each end.
    hold = 4
    there = list(range(1, n_steps - 1))
    order = [0] * hold + there + [n_steps - 1] * hold + there[::-1]
    frames = []

    for i in order:
        # The picture seen at an end fades with the distance from it: which end is near needs no caption.
        share = i / (n_steps - 1)
        decoded = row([path.pixels[i] for path in paths])
        frames.append(np.concatenate([paled(first, 1 - share), white, decoded, white, paled(second, share)]))

    return Animation(
        np.stack(frames),
        "Decoded pictures changing from those of the first response to those of the second and back.",
        "The same ways in motion: the first picture seen above, the second below, each fading as the response moves away from "
        "its own; what is decoded between them.",
        milliseconds=110,
    )
