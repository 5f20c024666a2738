"""Interpolate: from one response to another in small steps, decoding each: does the picture change step by step as well?

    x(t) = (1 - t) a + t b,   t = 0 ... 1        decoded by the same recipe, with the same noise where it draws

A decoder that reads the response passes from one picture to the other; one that classifies and paints jumps; one that does
not look at the response goes nowhere. All steps of a pair are decoded under the id and session of its first response, so
that what a recipe draws by chance stays the same. Beside each pair stands the same way measured against the ends of
the other pairs.

Paper: Lin et al. 2022 (Mind Reader), section A.9, "interpolations of two fMRI scans", shown as pictures; the numbers are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analyse import drawing
from phosphene.analyse._looks import Looks
from phosphene.analyse._targets import standing_in
from phosphene.analyse.base import COLUMNS, Analysis, Animation, Drawing, Found, chosen_folds
from phosphene.analyse.drawing import BRAIN, CONTROL, MUTED
from phosphene.errors import DataError
from phosphene.evaluate.statistics import bootstrap, mean_of_items, permutation_null
from phosphene.evaluate.ties import grain_of, midranks, outcomes
from phosphene.flow.opened import Opened
from phosphene.run.config import Config
from phosphene.run.progress import Progress
from phosphene.types import Trials

_COLUMNS = 9
_SHOWN = 5


class InterpolateOptions(Config):
    """How many pairs, and how finely."""

    n: int = Field(12, ge=2, le=200, description="pairs of test responses; fewer where there are not so many")
    steps: int = Field(17, ge=3, le=101, description="pictures along the way, ends included")
    fold: int = Field(0, ge=0, description="which fold")


@dataclass(frozen=True)
class Way:
    """One pair.

    Attributes
    ----------
    ids : of the two stimuli
    pixels : (steps, h, w, c), 0-1
    features : (steps, d) of length 1, what is seen in the pictures
    """

    ids: tuple[str, str]
    pixels: np.ndarray
    features: np.ndarray

    @property
    def to_start(self) -> np.ndarray:
        """(steps,) cosine with the picture decoded from the first response."""
        return self.features @ self.features[0]

    @property
    def to_end(self) -> np.ndarray:
        """(steps,) cosine with the picture decoded from the second response."""
        return self.features @ self.features[-1]


class Interpolate(Analysis[InterpolateOptions]):
    """See the top of this file."""

    name = "interpolate"
    title = "From one response to another"
    options_class = InterpolateOptions

    def run(self, opened: Opened, progress: Progress) -> Found:
        """Decode mixtures of two responses."""
        chosen_folds(opened, self.options.fold)
        recipe, (train, test) = opened.recipe(self.options.fold), opened.sides(self.options.fold)
        test = test.average_repeats()
        category = opened.stimuli.select(test.stimuli).category
        pairs = pairs_of(test, category, self.options.n, self.rng("pairs"))
        looks = Looks(opened.dataset.name, opened.stimuli.select(train.stimulus_ids))
        t = np.linspace(0, 1, self.options.steps)
        ways = []
        for a, b in progress.each(pairs, "interpolating", unit="pair"):
            start, end = test.read(np.array([a, b]))
            mixed = ((1 - t)[:, None] * start + t[:, None] * end).astype(np.float32)
            trials = standing_in(test, np.full(len(t), a), mixed, interpolated=f"towards {test.stimuli[b]}")
            pixels = np.nan_to_num(recipe.decode(trials).clipped(), nan=0.5)
            ways.append(Way((test.stimuli[a], test.stimuli[b]), pixels, looks.features(pixels)))
        table, p = self._table(t, ways)
        seen = opened.stimuli.resized(recipe.image_shape_[:2])
        row = {s: i for i, s in enumerate(opened.stimuli.ids)}
        ends = [(seen[row[w.ids[0]]], seen[row[w.ids[1]]]) for w in ways[:_SHOWN]]
        return Found(
            _sentences(table, p, looks.space, self.options.steps, len(pairs)),
            table,
            INPUTS,
            MEASURES,
            figures={"strips": _strips(ways[:_SHOWN], ends), "similarity": _curves(t, ways, looks.space)},
            animations={"moving": _moving(ways[:_SHOWN], ends)},
            tables={"steps": _per_step(t, ways)},
            notes=_NOTES,
        )

    def _table(self, t: np.ndarray, ways: list[Way]) -> tuple[pd.DataFrame, float]:
        towards = [[w.features @ (o.features[-1] - o.features[0]) for o in ways] for w in ways]
        matrix = {
            "monotonic": np.array([[monotonicity(t, x) for x in row] for row in towards]),
            "forward": np.array([[forward_share(x) for x in row] for row in towards]),
        }
        off = ~np.eye(len(ways), dtype=bool)
        values = {("brain", name): np.diagonal(m) for name, m in matrix.items()}
        values |= {("wrong", name): (m * off).sum(axis=1) / (len(ways) - 1) for name, m in matrix.items()}
        values["brain", "largest_step"] = np.array([largest_step(w.features) for w in ways])
        values["brain", "ends"] = np.array([w.to_end[0] for w in ways])
        rows = []
        for (name, measure), each in values.items():
            interval = bootstrap(mean_of_items(each), len(each), rng=self.rng(name, measure))
            rows.append((name, measure, *interval, int(np.isfinite(each).sum())))
        null = permutation_null(matrix["monotonic"], rng=self.rng("null"))
        return pd.DataFrame(rows, columns=list(COLUMNS)), null.p


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


# -- numbers -----------------------------------------------------------------------------------------------------------


def pairs_of(trials: Trials, category: np.ndarray | None, n: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Rows of trials to go between: each row in one pair at most, of two categories where it can be, of one session first.

    Parameters
    ----------
    trials : repeats averaged; statistics of the first session are used for both, hence the preference
    category : (n_trials,) or None
    n : most pairs

    Raises
    ------
    DataError
        With fewer than four trials, which make two pairs.
    """
    if len(trials) < 4:
        raise DataError(f"two pairs of test responses are needed, but there are only {len(trials)} responses.")
    session = trials.table["session"].to_numpy()
    free = list(rng.permutation(len(trials)))
    pairs: list[tuple[int, int]] = []
    while len(free) > 1 and len(pairs) < n:
        a = free.pop(0)
        alike = [(category is not None and category[a] == category[b], session[a] != session[b]) for b in free]
        best = min(range(len(free)), key=alike.__getitem__)
        pairs.append((int(a), int(free.pop(best))))
    return pairs


def monotonicity(t: np.ndarray, values: np.ndarray) -> float:
    """Spearman's rank correlation of values along the way with t, ties sharing ranks; 0 where nothing changes.

    Examples
    --------
    >>> monotonicity(np.arange(5.0), np.array([0.0, 0.1, 0.5, 0.6, 1.0])), monotonicity(np.arange(3.0), np.ones(3))
    (1.0, 0.0)
    """
    a, b = midranks(t), midranks(values)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(np.clip(round(a @ b / size, 12), -1, 1)) if size > 0 else 0.0


def forward_share(values: np.ndarray) -> float:
    """Share of steps along which values rise; a step without change counts one half."""
    return float(outcomes(values[1:], values[:-1], grain_of(values)).mean())


def largest_step(features: np.ndarray) -> float:
    """Largest distance between neighbours over the length of the way; NaN where nothing changes."""
    steps = np.linalg.norm(np.diff(np.asarray(features, dtype=np.float64), axis=0), axis=1)
    return float(steps.max() / steps.sum()) if steps.sum() > 1e-5 else float("nan")


def _per_step(t: np.ndarray, ways: list[Way]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {"pair": i, "start": w.ids[0], "end": w.ids[1], "t": t, "to_start": w.to_start, "to_end": w.to_end}
        )
        for i, w in enumerate(ways)
    ]
    return pd.concat(parts, ignore_index=True)


# -- words -------------------------------------------------------------------------------------------------------------


def _sentences(table: pd.DataFrame, p: float, space: str, steps: int, n: int) -> list[str]:
    rows = table.set_index(["input", "measure"])
    own, wrong = rows.loc[("brain", "monotonic")], rows.loc[("wrong", "monotonic")]
    step, even = rows.loc[("brain", "largest_step"), "value"], 1 / (steps - 1)
    if not np.isfinite(step):
        verdict = "The picture does not change between two responses: the decoder does not read them."
    elif own["ci_low"] > 0 and p < 0.05:
        verdict = (
            f"Between two responses the picture passes from one to the other: monotonicity {own['value']:.2f} "
            f"[{own['ci_low']:.2f}, {own['ci_high']:.2f}], 1 being step by step, against {wrong['value']:.2f} "
            f"[{wrong['ci_low']:.2f}, {wrong['ci_high']:.2f}] for the ends of other pairs (p = {p:.2g})."
        )
    else:
        verdict = (
            f"Between two responses the picture does not clearly pass from one to the other: monotonicity {own['value']:.2f} "
            f"[{own['ci_low']:.2f}, {own['ci_high']:.2f}], {wrong['value']:.2f} for the ends of other pairs (p = {p:.2g})."
        )
    sentences = [verdict]
    if np.isfinite(step):
        sentences.append(
            f"The largest of {steps - 1} steps makes {100 * step:.0f} % of the way, where even steps would make "
            f"{100 * even:.0f} %" + ("; that is a jump." if step > 0.5 else ".")
        )
    sentences.append(
        f"{n} pairs of test responses, repeats averaged. Likeness is the cosine in {space} with the pictures decoded from the "
        "two ends themselves."
    )
    return sentences


# -- pictures ----------------------------------------------------------------------------------------------------------


def _strips(ways: list[Way], ends: list[tuple[np.ndarray, np.ndarray]]) -> Drawing:
    chosen = np.unique(np.linspace(0, len(ways[0].pixels) - 1, _COLUMNS).round().astype(int))
    zoom = max(1, round(64 / max(ways[0].pixels.shape[1:3])))
    rows = [np.concatenate([a[None], w.pixels[chosen], b[None]]) for w, (a, b) in zip(ways, ends, strict=True)]
    big = [drawing.as_uint8(r).repeat(zoom, axis=1).repeat(zoom, axis=2) for r in rows]
    w = big[0].shape[2]
    gap, apart = max(1, w // 14), w // 3
    step = w + gap
    parts = [drawing.mosaic([r[s] for r in big], gap) for s in (slice(0, 1), slice(1, -1), slice(-1, None))]
    space = np.zeros((parts[0].shape[0], apart, 4), np.uint8)
    picture = np.concatenate([parts[0], space, parts[1], space, parts[2]], axis=1)
    width = 9.0
    tall, top = width * picture.shape[0] / picture.shape[1], 0.26
    with drawing.style():
        figure = drawing.empty(width, tall + top)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, tall / (tall + top)))
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        t = chosen / (len(ways[0].pixels) - 1)
        centres = [w / 2, *(w + apart + i * step + w / 2 for i in range(len(t)))]
        centres.append(picture.shape[1] - w / 2)
        labels = ["seen first", *(f"{x:.3g}" for x in t), "seen second"]
        labels[1], labels[-2] = "t = 0", "t = 1"
        for x, label in zip(centres, labels, strict=True):
            outer = label.startswith("seen")
            axes.text(x / picture.shape[1], 1 + 0.06 / tall, label, transform=axes.transAxes, ha="center", va="bottom",
                      color=MUTED if outer else BRAIN, fontsize=8)  # fmt: skip
    return Drawing(
        figure,
        "A row for each pair: the first picture seen, pictures decoded along the way, the second picture seen.",
        "From one response to another. Between the two pictures seen: what is decoded from mixtures of the two responses, the "
        "share t of the second growing from left to right.",
    )


def _curves(t: np.ndarray, ways: list[Way], space: str) -> Drawing:
    with drawing.style():
        figure = drawing.empty(6.4, 2.6)
        left, right = figure.subplots(1, 2)
        for of, colour, name in (("to_start", CONTROL, "to the first"), ("to_end", BRAIN, "to the second")):
            lines = np.array([getattr(w, of) for w in ways])
            left.plot(t, lines.T, color=colour, linewidth=0.6, alpha=0.35)
            left.plot(t, lines.mean(axis=0), color=colour, linewidth=2.2, label=name)
        left.set_title("Likeness of the decoded picture")
        left.set_xlabel("share of the second response")
        left.set_ylabel("cosine")
        left.legend(loc="lower center")
        steps = np.array([np.linalg.norm(np.diff(w.features.astype(float), axis=0), axis=1) for w in ways])
        share = steps / np.maximum(steps.sum(axis=1, keepdims=True), 1e-12)
        middle = (t[1:] + t[:-1]) / 2
        right.plot(middle, share.T, color=BRAIN, linewidth=0.6, alpha=0.35)
        right.plot(middle, share.mean(axis=0), color=BRAIN, linewidth=2.2)
        right.axhline(1 / len(middle), color=MUTED, linewidth=1, linestyle=(0, (2, 1.5)))
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
        f"Cosine in {space} with the pictures decoded from both ends, and how evenly the way is made (dashed: even steps); thin "
        "lines are pairs, thick ones their mean.",
    )


def _moving(ways: list[Way], ends: list[tuple[np.ndarray, np.ndarray]]) -> Animation:
    """All pairs beside each other, there and back, the pictures seen above; on white, as GIF knows no half transparency."""
    zoom = max(1, round(112 / max(ways[0].pixels.shape[1:3])))
    n, gap = len(ways[0].pixels), 6

    def row(pictures: list[np.ndarray]) -> np.ndarray:
        big = drawing.as_uint8(np.stack(pictures)).repeat(zoom, axis=1).repeat(zoom, axis=2)
        rgba = drawing.mosaic([big], gap)
        return np.where(rgba[..., 3:] > 0, rgba[..., :3], 255).astype(np.uint8)

    first, second = ([e[i] for e in ends] for i in (0, 1))
    hold = 4
    order = [0] * hold + list(range(1, n - 1)) + [n - 1] * hold + list(range(n - 2, 0, -1))
    white = np.full((gap, row(first).shape[1], 3), 255, np.uint8)
    above, below = row(first), row(second)
    frames = []
    for i in order:
        share = i / (n - 1)
        # The picture seen at an end fades with the distance from it: which end is near needs no caption.
        pale = [(255 - (255 - x.astype(float)) * (0.15 + 0.85 * s)).round().astype(np.uint8)
                for x, s in ((above, 1 - share), (below, share))]  # fmt: skip
        frames.append(np.concatenate([pale[0], white, row([w.pixels[i] for w in ways]), white, pale[1]]))
    return Animation(
        np.stack(frames),
        "Decoded pictures changing from those of the first response to those of the second and back.",
        "The same ways in motion: the first picture seen above, the second below, each fading as the response moves away from "
        "its own; what is decoded between them.",
        milliseconds=110,
    )
