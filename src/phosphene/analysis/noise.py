"""Noise on the first stage: how much of a two-stage decoder's score comes from its blurry first picture?

The first picture is brought to the size the second stage works at and to 8 bits, noise is added, and the second stage runs
unchanged, under the same tokens and with its own noise the same for a stimulus each time.

    additive   clip(x + A n) for every amplitude A on the scale of 0-255, n one standard normal picture per stimulus
    pure       clip(127.5 + 256 n): nothing of the first picture
    latent     no first picture at all: the second stage starts from pure noise in its latents and takes every step

The baseline is additive noise of amplitude 0 in the same subject, on the same stimuli: differences are paired.

Paper: Veronese et al. 2024 (two-stage GRU), section 3.4 and table 6, whose row without noise is a mean over four subjects
while the others are of one. There, 256 is called pure noise; clip(x + 256 n) still shows x, hence ``pure``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from phosphene.analysis.interface import COLUMNS, Analysis, Findings, chosen_folds
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.controls import paired_differences
from phosphene.metrics.metric import PICTURES, Decoded, Score, Scores
from phosphene.metrics.perceptual import TrueFeatures, extract_features, feature_extractors_for, feature_views
from phosphene.metrics.registry import compute_scores, metric_of
from phosphene.metrics.resize import eight_bits, resized
from phosphene.metrics.statistics import Interval, bootstrap
from phosphene.run import Run

NONE = "none"
PURE = "pure"
LATENT = "latent"
"""Arms without an amplitude: no noise, nothing but noise, and no first picture."""
METRICS = (
    "pixcorr",
    "ssim.2d",
    "ssim.columns",
    "two_way.pixels",
    f"two_way.{PICTURES}*",
    f"cosine.{PICTURES}*",
    f"distance.{PICTURES}*",
)
"""Names and patterns of what is scored: the eight published scores where their networks are, else what stands for them."""
N_PICTURED = 3
_PURE = 256.0  # amplitude of `pure`

Amplitude = Annotated[float, Field(gt=0, le=10_000)]


class NoiseOptions(Config):
    """Which noise, on how many pictures."""

    amplitudes: tuple[Amplitude, ...] = Field(
        default=(8, 16, 32, 64, 256),
        min_length=1,
        description="of additive noise, pixels from 0 to 255; those of table 6",
    )
    n: int | None = Field(default=None, ge=3, description="most test responses of each fold; all, at most 200")
    fold: int | None = Field(default=None, ge=0, description="one fold only; all by default")

    @field_validator("amplitudes")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if list(values) != sorted(set(values)):
            raise ValueError(f"amplitudes should rise, each named once, but are {values}")

        return values


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseFindings(Findings):
    """Scores of decoded pictures after noise on what the second stage is given.

    The tables are ``second_stage_input`` (its input scored itself), ``differences`` (every arm minus the baseline) and
    ``shares`` (of what is above chance, what is lost without the first stage).

    Attributes
    ----------
    amplitudes : sequence of float
        of additive noise, pixels from 0 to 255
    baseline : mapping of str to Score
        metric to the score of the unspoilt pictures
    chance : mapping of str to float
        metric to chance
    true : ndarray of shape (at most 3, h, w, c), uint8
        the first pictures seen
    given : mapping of str to ndarray
        arm to what the second stage is given for these, uint8; nothing for ``latent``
    refined : mapping of str to ndarray
        arm to what it makes of it, uint8
    n : int
        test pictures
    n_folds : int
        folds they are of
    """

    amplitudes: Sequence[float]
    baseline: Mapping[str, Score]
    chance: Mapping[str, float]
    true: np.ndarray
    given: Mapping[str, np.ndarray]
    refined: Mapping[str, np.ndarray]
    n: int
    n_folds: int


@dataclass
class _Refinements:
    """What went in and came out, over folds. Pictures are uint8."""

    ids: list[str] = field(default_factory=list)
    true: list[np.ndarray] = field(default_factory=list)
    given: dict[str, list[np.ndarray]] = field(default_factory=dict)
    refined: dict[str, list[np.ndarray]] = field(default_factory=dict)


class Noise(Analysis[NoiseOptions]):
    """Add noise to the first picture of a two-stage decoder and score what the second stage makes of it."""

    name = "noise"
    title = "How much comes from the first stage"
    options_class = NoiseOptions
    needs = ("decode", "refine")

    def run(self, opened: Run, progress: Progress) -> NoiseFindings:
        """Refine spoilt first pictures and score them beside the unspoilt ones.

        Parameters
        ----------
        opened : Run
            a fitted run
        progress : Progress
            where progress is shown

        Returns
        -------
        NoiseFindings
            tables, and the facts that sentences and figures are made of
        """
        folds = chosen_folds(opened, self.options.fold)
        outcome = _Refinements()

        for fold in folds:
            self._refine(opened, fold, outcome, progress)

        true = _as_floats(outcome.true)  # (n, side, side, c)
        true_features = []
        for extractor in feature_extractors_for(opened.dataset.name):
            true_features.append(extract_features(extractor, true))

        refined: dict[str, Scores] = {}
        given: dict[str, Scores] = {}

        for scores, stacks in ((refined, outcome.refined), (given, outcome.given)):
            for arm, parts in progress.each(stacks.items(), "scoring"):
                scores[arm] = self._score(outcome.ids, _as_floats(parts), true, true_features)

        return NoiseFindings(
            table=_table(refined),
            tables={
                "second_stage_input": _table(given),
                "differences": _differences(refined, self.seed),
                "shares": self._shares(refined),
            },
            amplitudes=self.options.amplitudes,
            baseline={score.metric: score for score in refined[NONE].scores},
            chance={score.metric: score.chance for score in refined[NONE].scores},
            true=np.concatenate(outcome.true)[:N_PICTURED],
            given=_first_of_each(outcome.given),
            refined=_first_of_each(outcome.refined),
            n=len(outcome.ids),
            n_folds=len(folds),
        )

    # -- pictures --------------------------------------------------------------------------------------------------

    def _refine(self, opened: Run, fold: int, outcome: _Refinements, progress: Progress) -> None:
        """Refine the first pictures of a fold in every arm."""
        recipe: Any = opened.recipe(fold)
        test = opened.sides(fold)[1].average_repeats()
        most = self.options.n or 200
        if len(test) > most:
            test = test.take(np.sort(self.rng("kept", fold).permutation(len(test))[:most]))

        side = recipe.image_shape_[0]
        is_grey = recipe.image_shape_[2] == 1

        # What a generator returns may lie beyond 0-1; a picture on a screen has 8 bits, and noise is added to such a one.
        first = resized(eight_bits(recipe.first_pictures(test)), side, "bicubic")

        for arm, spoilt in progress.each(self.arms(first, test.stimuli).items(), f"refining, fold {fold + 1}"):
            start = None
            if spoilt is not None:
                start = spoilt.astype(np.float32) / np.float32(255)

            outcome.refined.setdefault(arm, []).append(recipe.refine(start, test).as_uint8())

            if start is not None:
                # The second stage takes three channels; scores compare with true pictures, which may have one.
                pictured = start
                if is_grey:
                    pictured = start.mean(axis=-1, keepdims=True)  # (n, side, side, 1)

                outcome.given.setdefault(arm, []).append(np.round(pictured * 255).astype(np.uint8))

        true = opened.stimuli.select(test.stimuli).resized((side, side))
        outcome.true.append(np.round(true * 255).astype(np.uint8))
        outcome.ids += list(test.stimuli)

    def arms(self, first: np.ndarray, ids: Iterable[str]) -> dict[str, np.ndarray | None]:
        """What the second stage is given, by arm.

        Parameters
        ----------
        first : ndarray of shape (n, side, side, 3), uint8
            first pictures
        ids : iterable of str
            n stimulus ids; the noise of a picture is a function of seed and id, and the same at every amplitude

        Returns
        -------
        dict of str to ndarray or None
            arm to (n, side, side, 3) uint8, None for ``latent``
        """
        pictures_of_noise = []
        for stimulus in ids:
            rng = self.rng("picture", str(stimulus))
            pictures_of_noise.append(rng.standard_normal(first.shape[1:], dtype=np.float32))

        noise = np.stack(pictures_of_noise)  # (n, side, side, 3)

        arms: dict[str, np.ndarray | None] = {NONE: first}
        for amplitude in self.options.amplitudes:
            arms[arm_of(amplitude)] = _clipped(first + np.float32(amplitude) * noise)

        # Around mid grey: noise added to the picture itself, of whatever amplitude, would leave its sign to be seen.
        arms[PURE] = _clipped(127.5 + np.float32(_PURE) * noise)
        arms[LATENT] = None

        return arms

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _score(
        self, ids: list[str], pictures: np.ndarray, true: np.ndarray, true_features: Sequence[TrueFeatures]
    ) -> Scores:
        views = feature_views(true_features, pictures)
        decoded = Decoded(np.asarray(ids, dtype=object), pictures, true, feature_views=views)

        # Nothing here is permuted; p comes from paired differences.
        return compute_scores(decoded, metrics=METRICS, seed=self.seed, n_permutations=1)

    def _shares(self, refined: Mapping[str, Scores]) -> pd.DataFrame:
        """(baseline - without the first stage) / (baseline - chance), where the baseline is clear of chance."""
        rows = []
        for base in refined[NONE].scores:
            for arm in (LATENT, PURE):
                rows.append((base.metric, arm, *self._share(base, refined[arm][base.metric], arm), base.n))

        return pd.DataFrame(rows, columns=["measure", "without", "share", "ci_low", "ci_high", "n"])

    def _share(self, base: Score, without: Score, arm: str) -> Interval:
        sign = -1
        if metric_of(base.metric).better == "higher":
            sign = 1

        # A share of next to nothing is no share: it would be a ratio of two noises.
        is_clear = sign * (base.value - base.chance) > 0 and not base.ci_low <= base.chance <= base.ci_high
        if not is_clear:
            return Interval(float("nan"), float("nan"), float("nan"))

        lost = base.per_item - without.per_item  # (n,)
        above = base.per_item - base.chance  # (n,)
        is_defined = np.isfinite(lost) & np.isfinite(above)
        lost = lost[is_defined]
        above = above[is_defined]

        return bootstrap(
            lambda counts: (counts @ lost) / (counts @ above), len(lost), rng=self.rng("share", arm, base.metric)
        )


def arm_of(amplitude: float) -> str:
    """Name of an arm of additive noise.

    Examples
    --------
    >>> arm_of(8.0)
    'noise_8'
    """
    return f"noise_{amplitude:g}"


def _table(scores: Mapping[str, Scores]) -> pd.DataFrame:
    rows = []
    for arm, of_arm in scores.items():
        for s in of_arm.scores:
            rows.append((arm, s.metric, s.value, s.ci_low, s.ci_high, s.n))

    return pd.DataFrame(rows, columns=list(COLUMNS))


def _differences(refined: Mapping[str, Scores], seed: int) -> pd.DataFrame:
    """Every arm minus the baseline, picture by picture; turned so that above 0 is better than the baseline."""
    names = {"control": "input", "metric": "measure", "value": "difference"}
    parts = []

    for arm, scores in refined.items():
        if arm != NONE:
            parts.append(paired_differences(scores, refined[NONE], arm, seed=seed).rename(columns=names))

    differences = pd.concat(parts, ignore_index=True)
    return differences.loc[:, ["input", "measure", "difference", "ci_low", "ci_high", "p", "n"]]


def _first_of_each(stacks: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """The pictures of each arm that a figure shows."""
    return {arm: np.concatenate(parts)[:N_PICTURED] for arm, parts in stacks.items()}


def _clipped(values: np.ndarray) -> np.ndarray:
    return np.round(np.clip(values, 0, 255)).astype(np.uint8)


def _as_floats(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.float32) / np.float32(255)
