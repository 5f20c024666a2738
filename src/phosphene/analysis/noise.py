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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from phosphene.analysis.base import COLUMNS, Analysis, Drawing, Findings, chosen_folds
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.controls import paired_differences
from phosphene.metrics.metric import PICTURES, Decoded, Score, Scores, extractor_name
from phosphene.metrics.perceptual import TrueFeatures, extract_features, feature_extractors_for, feature_views
from phosphene.metrics.registry import kind_of, metric_of, score, space_of
from phosphene.metrics.resize import eight_bits, resized
from phosphene.metrics.statistics import Interval, bootstrap
from phosphene.reporting import noise_figures as figures
from phosphene.reporting.noise_figures import LATENT, NONE, PURE
from phosphene.run import Run
from phosphene.types.identity import listed

METRICS = (
    "pixcorr", "ssim.2d", "ssim.columns", "two_way.pixels", f"two_way.{PICTURES}*", f"cosine.{PICTURES}*",
    f"distance.{PICTURES}*",
)  # fmt: skip
"""Names and patterns of what is scored: the eight published scores where their networks are, else what stands for them."""
_EYES = {
    "clip_lab": "lab CLIP",
    "scenes": "lab classifier",
    "alexnet2": "AlexNet(2)",
    "alexnet5": "AlexNet(5)",
    "inception": "Inception",
    "clip_vit_l14": "CLIP",
    "efficientnet_b1": "EffNet-B1",
    "swav": "SwAV",
    "imagenet_lite0": "EffNet-Lite0",
}
_HEADS = {"two_way": "Two-way", "cosine": "Cosine", "distance": "Distance"}
_SHOWN = 3
_FOREIGN = "Seen by a network of the lab: not to be compared with published scores, which are of other networks."
_PURE = 256.0  # amplitude of `pure`

Amplitude = Annotated[float, Field(gt=0, le=10_000)]


class NoiseOptions(Config):
    """Which noise, on how many pictures."""

    amplitudes: tuple[Amplitude, ...] = Field(
        (8, 16, 32, 64, 256), min_length=1, description="of additive noise, pixels from 0 to 255; those of table 6"
    )
    n: int | None = Field(None, ge=3, description="most test responses of each fold; all, at most 200")
    fold: int | None = Field(None, ge=0, description="one fold only; all by default")

    @field_validator("amplitudes")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if list(values) != sorted(set(values)):
            raise ValueError(f"amplitudes should rise, each named once, but are {values}")

        return values


@dataclass
class _Went:
    """What went in and came out, over folds. Pictures are uint8."""

    ids: list[str] = field(default_factory=list)
    true: list[np.ndarray] = field(default_factory=list)
    given: dict[str, list[np.ndarray]] = field(default_factory=dict)
    made: dict[str, list[np.ndarray]] = field(default_factory=dict)


class Noise(Analysis[NoiseOptions]):
    """See the top of this file."""

    name = "noise"
    title = "How much comes from the first stage"
    options_class = NoiseOptions
    needs = ("decode", "refine")

    def run(self, opened: Run, progress: Progress) -> Findings:
        """Refine spoilt first pictures and score them beside the unspoilt ones."""
        folds = chosen_folds(opened, self.options.fold)
        went = _Went()

        for fold in folds:
            self._fold(opened, fold, went, progress)

        true = _floats(went.true)
        seen = [extract_features(eye, true) for eye in feature_extractors_for(opened.dataset.name)]
        made, given = (
            {arm: self._score(went.ids, _floats(p), true, seen) for arm, p in progress.each(stacks.items(), "scoring")}
            for stacks in (went.made, went.given)
        )

        words = self._words()
        measures = {s.metric: words_of(s.metric) for s in made[NONE].scores}
        table, own = (_table(scores) for scores in (made, given))
        differences = _differences(made, self.seed)
        shares = self._shares(made)

        return Findings(
            self._sentences(went, made, given, differences, shares, len(folds)),
            table,
            words,
            measures,
            figures=self._figures(went, table, own, made, words, measures),
            tables={"second_stage_input": own, "differences": differences, "shares": shares},
            notes={m: _FOREIGN for m in measures if extractor_name(space_of(m)) in ("clip_lab", "scenes")},
        )

    # -- pictures --------------------------------------------------------------------------------------------------

    def _fold(self, opened: Run, fold: int, went: _Went, progress: Progress) -> None:
        recipe: Any = opened.recipe(fold)
        test = opened.sides(fold)[1].average_repeats()
        if len(test) > (self.options.n or 200):
            test = test.take(np.sort(self.rng("kept", fold).permutation(len(test))[: self.options.n or 200]))

        side = recipe.image_shape_[0]
        grey = recipe.image_shape_[2] == 1
        first = resized(eight_bits(recipe.first_pictures(test)), side, "bicubic")

        for arm, spoilt in progress.each(self.arms(first, test.stimuli).items(), f"refining, fold {fold + 1}"):
            if spoilt is None:
                start = None
            else:
                start = spoilt.astype(np.float32) / np.float32(255)

            went.made.setdefault(arm, []).append(recipe.refine(start, test).as_uint8())
            if start is not None:
                if grey:
                    shown = start.mean(axis=-1, keepdims=True)
                else:
                    shown = start

                went.given.setdefault(arm, []).append(np.round(shown * 255).astype(np.uint8))

        went.true.append(np.round(opened.stimuli.select(test.stimuli).resized((side, side)) * 255).astype(np.uint8))
        went.ids += list(test.stimuli)

    def arms(self, first: np.ndarray, ids: Sequence[Any]) -> dict[str, np.ndarray | None]:
        """What the second stage is given, by arm.

        Parameters
        ----------
        first : ndarray of shape (n, side, side, 3), uint8
        ids : sequence
            n stimulus ids; the noise of a picture is a function of seed and id, and the same at every amplitude

        Returns
        -------
        dict of {str: ndarray or None}
            arm to (n, side, side, 3) uint8, None for ``latent``
        """
        noise = np.stack([self.rng("picture", str(i)).standard_normal(first.shape[1:], dtype=np.float32) for i in ids])
        spoilt = {_arm(a): _eight_bits(first + np.float32(a) * noise) for a in self.options.amplitudes}
        return {NONE: first, **spoilt, PURE: _eight_bits(127.5 + np.float32(_PURE) * noise), LATENT: None}

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _score(self, ids: list[str], pictures: np.ndarray, true: np.ndarray, seen: Sequence[TrueFeatures]) -> Scores:
        decoded = Decoded(np.asarray(ids, dtype=object), pictures, true, feature_views=feature_views(seen, pictures))
        # Nothing here is permuted; p comes from paired differences.
        return score(decoded, metrics=METRICS, seed=self.seed, n_permutations=1)

    def _shares(self, made: Mapping[str, Scores]) -> pd.DataFrame:
        """(baseline - without the first stage) / (baseline - chance), where the baseline is clear of chance."""
        rows = []
        for base in made[NONE].scores:
            for arm in (LATENT, PURE):
                rows.append((base.metric, arm, *self._share(base, made[arm][base.metric], arm), base.n))

        return pd.DataFrame(rows, columns=["measure", "without", "share", "ci_low", "ci_high", "n"])

    def _share(self, base: Score, without: Score, arm: str) -> Interval:
        if metric_of(base.metric).better == "higher":
            sign = 1
        else:
            sign = -1

        if not (sign * (base.value - base.chance) > 0 and not base.ci_low <= base.chance <= base.ci_high):
            return Interval(float("nan"), float("nan"), float("nan"))

        lost = base.per_item - without.per_item
        above = base.per_item - base.chance
        there = np.isfinite(lost) & np.isfinite(above)
        lost = lost[there]
        above = above[there]

        return bootstrap(
            lambda counts: (counts @ lost) / (counts @ above), len(lost), rng=self.rng("share", arm, base.metric)
        )

    # -- words -----------------------------------------------------------------------------------------------------

    def _words(self) -> dict[str, str]:
        added = {_arm(a): f"noise {a:g}" for a in self.options.amplitudes}
        return {NONE: "as decoded", **added, PURE: "pure noise", LATENT: "no first stage"}

    def _sentences(
        self,
        went: _Went,
        made: Mapping[str, Scores],
        given: Mapping[str, Scores],
        differences: pd.DataFrame,
        shares: pd.DataFrame,
        n_folds: int,
    ) -> list[str]:
        measured = shares[(shares["without"] == LATENT) & np.isfinite(shares["share"])]
        low = measured["ci_low"]
        high = measured["ci_high"]
        parts = {
            "over half of": low > 0.5,
            "under half of": (low > 0) & (high < 0.5),
            "a part of": (low > 0) & (low <= 0.5) & (high >= 0.5),
            "nothing measurable of": (low <= 0) & (high >= 0),
            "less than nothing, for it is better without, of": high < 0,
        }

        said = [
            f"{what} {listed([words_of(m) for m in measured.loc[which, 'measure']])}"
            for what, which in parts.items()
            if which.any()
        ]

        sentences = [
            f"Of what is above chance, the first stage carries {'; '.join(said)}."
            if said
            else "No score of the decoded pictures is clear of chance, so there is nothing to divide between the stages."
        ]

        if len(measured):
            each = (
                f"{words_of(r.measure)} {_percent(r.share)} % [{_percent(r.ci_low)}, {_percent(r.ci_high)}]"
                for r in measured.sort_values("share", ascending=False).itertuples()
            )

            sentences.append(f"Share lost when the second stage draws without any first picture: {', '.join(each)}.")

        sentences += self._changes(differences)
        pairs = [
            f"{words_of(s.metric)} {s.value:.3f} (refined {made[NONE][s.metric].value:.3f})"
            for s in given[NONE].scores
            if np.isfinite(s.value)
        ]

        sentences.append(f"What the second stage is given, scored itself: {', '.join(pairs)}.")
        sentences.append(
            f"{len(went.ids)} test pictures of {n_folds} fold{'s' if n_folds > 1 else ''}, the same in every column and "
            "compared picture by picture with the same subject's own unspoilt ones; intervals of differences are 95 % each, "
            f"{len(differences)} of them."
        )

        return sentences

    def _changes(self, differences: pd.DataFrame) -> list[str]:
        """From which amplitude on a score is worse, and whether any is better for a little noise."""
        worse = []
        better = []

        for measure, rows in differences.groupby("measure", sort=False):
            rows = rows.set_index("input").reindex([_arm(a) for a in self.options.amplitudes])
            hurt = [a for a in self.options.amplitudes if rows.loc[_arm(a), "ci_high"] < 0]
            helped = [a for a in self.options.amplitudes if rows.loc[_arm(a), "ci_low"] > 0]

            if hurt:
                worse.append(f"{words_of(str(measure))} from {hurt[0]:g}")

            if helped:
                best = rows.loc[_arm(helped[0])]
                better.append(
                    f"{words_of(str(measure))} at {helped[0]:g} by {best['difference']:.3f} "
                    f"[{best['ci_low']:.3f}, {best['ci_high']:.3f}]"
                )

        return [
            f"Additive noise makes a score worse: {', '.join(worse)}."
            if worse
            else "No amplitude of additive noise makes a score worse beyond doubt.",
            f"Better with noise than without: {', '.join(better)}." if better else "No score is better for noise.",
        ]

    # -- figures ---------------------------------------------------------------------------------------------------

    def _figures(
        self,
        went: _Went,
        table: pd.DataFrame,
        own: pd.DataFrame,
        made: Mapping[str, Scores],
        words: Mapping[str, str],
        measures: Mapping[str, str],
    ) -> dict[str, Drawing]:
        chance = {s.metric: s.chance for s in made[NONE].scores}

        def first(stacks: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
            return {arm: np.concatenate(parts)[:_SHOWN] for arm, parts in stacks.items()}

        return {
            "pictures": Drawing(
                figures.strip(np.concatenate(went.true)[:_SHOWN], first(went.given), first(went.made), words),
                "Pairs of rows for each of some stimuli: above, what the second stage is given with more and more noise; "
                "below, what it makes of it; the picture seen on the left.",
                "The first test pictures. Above, what the second stage is given; below, what it makes of it.",
            ),
            "amplitude": Drawing(
                figures.curves(table, own, words, measures, chance),
                "Each score against the amplitude of noise on the first picture; the numbers stand in the table.",
                "Scores of the decoded pictures (blue) and of what the second stage was given (brown), with 95 % intervals "
                "over pictures. The band is the unspoilt baseline, chance is dashed.",
            ),
        }


# -- small things ------------------------------------------------------------------------------------------------------


def words_of(measure: str) -> str:
    """A metric for people.

    Examples
    --------
    >>> words_of("two_way.pictures.clip_lab"), words_of("pixcorr")
    ('Two-way (lab CLIP)', 'PixCorr')
    """
    known = {
        "pixcorr": "PixCorr",
        "ssim.2d": "SSIM",
        "ssim.columns": "SSIM (columns)",
        "two_way.pixels": "Two-way (pixels)",
    }

    if measure in known:
        return known[measure]

    kind = kind_of(measure)
    extractor = extractor_name(space_of(measure))
    return f"{_HEADS.get(kind, kind)} ({_EYES.get(extractor, extractor)})"


def _table(scores: Mapping[str, Scores]) -> pd.DataFrame:
    rows = [(arm, s.metric, s.value, s.ci_low, s.ci_high, s.n) for arm, found in scores.items() for s in found.scores]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _differences(made: Mapping[str, Scores], seed: int) -> pd.DataFrame:
    """Every arm minus the baseline, picture by picture; turned so that above 0 is better than the baseline."""
    parts = [
        paired_differences(found, made[NONE], arm, seed=seed).rename(
            columns={"control": "input", "metric": "measure", "value": "difference"}
        )
        for arm, found in made.items()
        if arm != NONE
    ]

    return pd.concat(parts, ignore_index=True)[["input", "measure", "difference", "ci_low", "ci_high", "p", "n"]]


def _percent(share: float) -> int:
    return round(100 * share)  # an int has no minus zero


def _arm(amplitude: float) -> str:
    return f"noise_{amplitude:g}"


def _eight_bits(x: np.ndarray) -> np.ndarray:
    return np.round(np.clip(x, 0, 255)).astype(np.uint8)


def _floats(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.float32) / np.float32(255)
