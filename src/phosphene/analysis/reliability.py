"""Reliability: does the decoder make confident pictures from noise?

A decoder with a strong image prior draws a convincing picture whatever it is given. Its pictures from noise are then as
confident as those from a brain, and say nothing by themselves; a decoder that is nothing but such a prior shows no more of
the picture seen when it is given the brain than when it is given noise. Everything is fitted on training data: the recipe is
handed noise in place of test responses, and nothing here is matched to the batch of noise. A recipe that does so by itself,
such as LEA with the moments of its authors' code, is named.

Paper: Qian et al. 2024 (LEA), section 4.4, "random noise as fake fMRI signals". Its figure 6b gives pictures only;
the numbers are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analysis.image_stats import ImageStats, ImageStatsReader, ImageStatsSource, effective_number
from phosphene.analysis.interface import COLUMNS, Analysis, Findings, chosen_folds
from phosphene.errors import PhospheneError
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.identification import comparisons
from phosphene.metrics.statistics import Interval, bootstrap, mean_of_items, mean_of_pairs
from phosphene.metrics.ties import grain_of, outcomes
from phosphene.recipes.base import Recipe
from phosphene.run import Run
from phosphene.types import Trials
from phosphene.validity.behaviour import TOLERANCE

INPUTS = ("true", "brain", "gaussian", "independent", "far", "zeros", "mean")
"""Inputs in the order shown; ``true`` is not decoded. Matched noise (gaussian) has the mean and covariance of the training
responses, independent noise the mean and standard deviation of each voxel, far noise a larger one, so that it lies where no
brain does; then zeros, and the mean training response."""
NOISES = ("gaussian", "independent", "far")
PASSES = 2 / 3
"""Noise passes for something when that is the more confident one in fewer than this share of comparisons."""
SAME = 0.5
"""Largest share of the difference between pictures that may remain when the input stays the same."""
N_PICTURED = 10
"""Pictures of each input that are kept for the figure, and how often a constant input is decoded."""
_MEASURES = ("confidence", "entropy", "nearest", "contrast", "sharpness")

Conduct = Literal["inductive", "random", "batch", "company"]
Outcome = Literal["drawn by chance", "no more than noise", "noise passes", "looks say nothing", "clear"]


class ReliabilityOptions(Config):
    """What is decoded."""

    n: int | None = Field(
        default=None, ge=2, description="test responses of each fold, and noise inputs; all, at most 200"
    )
    far: float = Field(
        default=3.0, gt=1, le=100, description="spread of far noise, in standard deviations of each voxel"
    )
    fold: int | None = Field(default=None, ge=0, description="one fold only; all by default")


@dataclass(frozen=True)
class ReliabilityVerdict:
    """Whether pictures alone are evidence of decoding.

    Attributes
    ----------
    outcome : str
        ``drawn by chance``: most of the difference between pictures remains while the response stays the same;
        ``no more than noise``: pictures from the brain show no more of what was seen than chance has it;
        ``noise passes``: pictures from noise are about as confident as true ones and as those from the brain;
        ``looks say nothing``: as those from the brain only; ``clear``: none of these
    remaining : float
        share of the difference between pictures that remains while the response stays the same; NaN where unknown
    passing : tuple of str
        noises that pass for true pictures and for those from the brain
    alike : tuple of str
        noises that pass for the brain
    """

    outcome: Outcome
    remaining: float
    passing: tuple[str, ...]
    alike: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReliabilityFindings(Findings):
    """What pictures from noise look like beside those from the brain.

    Attributes
    ----------
    verdict : ReliabilityVerdict
        see there
    pictures : mapping of str to ndarray
        the first pictures of each input, (at most 10, h, w, c), 0-1
    n_undefined : mapping of str to int
        pictures of each input that hold values which are no numbers
    conduct : sequence of str
        over folds: whether a row's picture depends on the rows decoded with it, see `conduct_of`
    source : ImageStatsSource
        what pictures were measured with
    n : int
        test responses
    recipe : str
        kind of the recipe
    far : float
        standard deviations of far noise
    n_folds, n_folds_of_run : int
        folds decoded, and folds there are
    """

    verdict: ReliabilityVerdict
    pictures: Mapping[str, np.ndarray]
    n_undefined: Mapping[str, int]
    conduct: Sequence[Conduct]
    source: ImageStatsSource
    n: int
    recipe: str
    far: float
    n_folds: int
    n_folds_of_run: int


@dataclass
class _InputPictures:
    """Pictures of one input, over folds."""

    pixels: list[np.ndarray] = field(default_factory=list)
    stats: list[ImageStats] = field(default_factory=list)
    latents: list[np.ndarray] = field(default_factory=list)
    stimuli: list[str] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    n_undefined: int = 0

    def values(self, name: str) -> np.ndarray:
        """One value per picture."""
        return np.concatenate([getattr(stats, name) for stats in self.stats])

    @property
    def labels(self) -> np.ndarray | None:
        """Category read off each picture."""
        labels = []
        for stats in self.stats:
            if stats.labels is None:
                return None

            labels.append(stats.labels)

        return np.concatenate(labels)

    def cosines(self, rows_of_folds: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(n, n) cosines between pictures of one fold, and which entries those are."""
        # Pictures of two folds come from two decoders, which may differ for reasons of their own.
        fold = np.asarray(self.folds)
        counted = (fold[:, None] == fold) & ~np.eye(len(fold), dtype=bool)  # (n, n)
        cosine = np.zeros(counted.shape)
        start = 0

        for rows in rows_of_folds:
            unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            stop = start + len(rows)
            cosine[start:stop, start:stop] = unit @ unit.T  # (n_fold, n_fold)
            start = stop

        return np.where(counted, cosine, 0), counted


class Reliability(Analysis[ReliabilityOptions]):
    """Decode noise in place of test responses and compare how the pictures look."""

    name = "reliability"
    title = "Pictures from noise"
    options_class = ReliabilityOptions

    def run(self, opened: Run, progress: Progress) -> ReliabilityFindings:
        """Decode noise beside the brain and measure the pictures of both.

        Parameters
        ----------
        opened : Run
            a fitted run
        progress : Progress
            where progress is shown

        Returns
        -------
        ReliabilityFindings
            tables, and the facts that sentences and figures are made of
        """
        folds = chosen_folds(opened, self.options.fold)
        inputs = {name: _InputPictures() for name in INPUTS}
        conduct: set[Conduct] = set()

        for fold in progress.each(folds, "decoding noise", unit="fold"):
            reader, conduct_of_fold = self._decode(opened, fold, inputs)
            conduct.add(conduct_of_fold)

        table = self._table(inputs)
        pictures = {}
        n_undefined = {}

        for name, of in inputs.items():
            pictures[name] = np.concatenate(of.pixels)[:N_PICTURED]
            if of.n_undefined:
                n_undefined[name] = of.n_undefined

        return ReliabilityFindings(
            table=table,
            tables={"pictures": _per_picture(inputs)},
            verdict=_verdict(table),
            pictures=pictures,
            n_undefined=n_undefined,
            conduct=sorted(conduct),
            source=reader.source,
            n=len(inputs["brain"].folds),
            recipe=opened.config.recipe.kind,
            far=self.options.far,
            n_folds=len(folds),
            n_folds_of_run=len(opened.folds),
        )

    # -- decoding --------------------------------------------------------------------------------------------------

    def _decode(self, opened: Run, fold: int, inputs: dict[str, _InputPictures]) -> tuple[ImageStatsReader, Conduct]:
        """Decode every input of a fold and add the pictures to `inputs`."""
        recipe = opened.recipe(fold)
        train, test = opened.sides(fold)
        train = train.average_repeats()
        test = test.average_repeats()

        # 200 pictures a fold settle every measure, and slow recipes take seconds for each.
        n = min(len(test), self.options.n or 200)
        if n < len(test):
            test = test.take(np.sort(self.rng("test", fold).permutation(len(test))[:n]))

        stimuli = opened.stimuli.select(test.stimuli)
        size = recipe.image_shape_[:2]
        reader = ImageStatsReader(opened.dataset.name, opened.stimuli.select(train.stimuli))
        conduct: Conduct = "inductive"

        def add(name: str, pixels: np.ndarray, latents: np.ndarray | None) -> None:
            of = inputs[name]
            of.n_undefined += int((~np.isfinite(pixels)).any(axis=(1, 2, 3)).sum())
            pixels = _finite(pixels)
            of.pixels.append(pixels)
            of.stats.append(reader.measure(pixels))
            of.stimuli += list(stimuli.ids[: len(pixels)])
            of.folds += [fold] * len(pixels)

            if latents is not None:
                of.latents.append(latents)

        add("true", stimuli.resized(size), _first_latents(recipe.true_latents(stimuli).arrays))

        for name, trials in self._responses(train, test, fold).items():
            images = recipe.decode(trials)
            add(name, images.clipped(), _first_latents(recipe.latents(trials).arrays))
            if name == "gaussian":
                conduct = conduct_of(recipe, trials, images.pixels)

        return reader, conduct

    def _responses(self, train: Trials, test: Trials, fold: int) -> dict[str, Trials]:
        """What is decoded. Every moment is of the training responses, repeats averaged."""
        betas = train.betas
        rng = self.rng("noise", fold)
        mean = betas.mean(axis=0, dtype=np.float64).astype(np.float32)  # (n_voxels,)
        std = betas.std(axis=0, dtype=np.float64).astype(np.float32)  # (n_voxels,)
        n = len(test)
        n_constant = min(len(test), N_PICTURED)

        # Random mixtures of centred training rows have exactly their covariance, which is never formed.
        weights = rng.standard_normal((n, len(betas)), dtype=np.float32) / np.float32(np.sqrt(max(1, len(betas) - 1)))
        independent = mean + std * rng.standard_normal((n, len(mean)), dtype=np.float32)
        far = mean + std * rng.standard_normal((n, len(mean)), dtype=np.float32)
        noise = {
            "gaussian": weights @ (betas - mean) + mean,  # (n, n_voxels)
            "independent": independent,
            "far": mean + np.float32(self.options.far) * (far - mean),
            "zeros": np.zeros((n_constant, len(mean)), np.float32),
            "mean": np.repeat(mean[None], n_constant, axis=0),
        }

        responses = {"brain": test}
        for name, rows in noise.items():
            responses[name] = test.take(np.arange(len(rows))).with_betas(rows, control=name)

        return responses

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _table(self, inputs: Mapping[str, _InputPictures]) -> pd.DataFrame:
        """Every measure of every input, with intervals over pictures."""
        rows: list[tuple] = []
        for name, of in inputs.items():
            n = len(of.folds)
            is_decoded = name in (*NOISES, "brain")

            def add(measure: str, interval: Interval, n: int = n, name: str = name) -> None:
                rows.append((name, measure, *interval, n))

            for measure in _MEASURES:
                values = of.values(measure)
                if np.isfinite(values).any():
                    add(measure, bootstrap(mean_of_items(values), n, rng=self.rng(name, measure)))

            features = [stats.features for stats in of.stats]
            for measure, rows_of_folds in (("likeness", features), ("latent_likeness", of.latents)):
                if rows_of_folds and n > 1:
                    cosine, counted = of.cosines(rows_of_folds)
                    add(measure, bootstrap(mean_of_pairs(cosine, counted), n, rng=self.rng(name, measure)))

            if is_decoded and n > 1:
                wins, counted = _identification(of, inputs["true"])
                add("match", bootstrap(mean_of_pairs(wins, counted), n, rng=self.rng(name, "match")))

            if of.labels is not None:
                add("distinct", _without_bounds(len(set(of.labels)) / n))
                add("categories", _without_bounds(effective_number(of.labels)))

            for other in ("brain", "true"):
                if is_decoded and name != other:
                    better = inputs[other].values("confidence")
                    worse = of.values("confidence")
                    add(f"auc_{other}", auc(better, worse, self.rng(name, other)))

        return pd.DataFrame(rows, columns=list(COLUMNS))


# -- the rule ----------------------------------------------------------------------------------------------------------


def auc(better: np.ndarray, worse: np.ndarray, rng: np.random.Generator, n_draws: int = 2000) -> Interval:
    """Share of pairs in which the first is larger, ties within rounding one half: the exact Mann-Whitney statistic over n m.

    Parameters
    ----------
    better, worse : ndarray
        (n,) and (m,) values
    rng : numpy.random.Generator
        of the bootstrap, which draws both sides independently; percentile interval
    n_draws : int, default 2000
        of the bootstrap

    Returns
    -------
    Interval
        0 to 1, 0.5 where neither side is larger; NaN where a side has no finite value

    Examples
    --------
    >>> auc(np.array([2.0, 3]), np.array([1.0, 2]), np.random.default_rng(0)).value
    0.875
    """
    better = np.asarray(better, dtype=np.float64)[np.isfinite(better)]
    worse = np.asarray(worse, dtype=np.float64)[np.isfinite(worse)]
    if not len(better) or not len(worse):
        return _without_bounds(float("nan"))

    wins = outcomes(better[:, None], worse, grain_of(np.concatenate([better, worse])))  # (n, m)

    # How often the bootstrap drew each value, as shares.
    rows = rng.multinomial(len(better), np.full(len(better), 1 / len(better)), n_draws) / len(better)
    columns = rng.multinomial(len(worse), np.full(len(worse), 1 / len(worse)), n_draws) / len(worse)
    low, high = np.quantile(((rows @ wins) * columns).sum(axis=1), [0.025, 0.975])

    return Interval(float(wins.mean()), float(low), float(high))


def _verdict(table: pd.DataFrame) -> ReliabilityVerdict:
    """The first rule that applies, the gravest doubt first: later ones ask what earlier ones take for granted."""
    value: dict[tuple[str, str], float] = {}
    match_low: float | None = None  # None with a single picture, which no other can be told from

    for row in table.to_dict("records"):
        value[row["input"], row["measure"]] = float(row["value"])
        if (row["input"], row["measure"]) == ("brain", "match"):
            match_low = float(row["ci_low"])

    # A likeness of 1 would leave no difference between pictures to take a share of.
    difference = max(1 - value.get(("brain", "likeness"), np.nan), 1e-9)
    remaining = float((1 - value.get(("mean", "likeness"), np.nan)) / difference)
    alike = tuple(name for name in NOISES if value[name, "auc_brain"] < PASSES)
    passing = tuple(name for name in alike if value[name, "auc_true"] < PASSES)

    if remaining > SAME:
        outcome: Outcome = "drawn by chance"
    elif match_low is not None and not match_low > 0.5:  # so that an undefined bound is no evidence either
        outcome = "no more than noise"
    elif passing:
        outcome = "noise passes"
    elif alike:
        outcome = "looks say nothing"
    else:
        outcome = "clear"

    return ReliabilityVerdict(outcome, remaining, passing, alike)


def conduct_of(recipe: Recipe, trials: Trials, together: np.ndarray) -> Conduct:
    """Whether a row's picture depends on the rows decoded with it.

    Parameters
    ----------
    recipe : Recipe
        fitted
    trials : Trials
        responses, at least one
    together : ndarray of shape (n, height, width, channels)
        what was decoded from them

    Returns
    -------
    str
        ``inductive``, ``random`` (it cannot be told), ``batch``, or ``company`` (a row alone is refused)
    """
    row = len(trials) // 2
    try:
        # Twice: a recipe that draws by chance differs even from itself.
        alone = trials.take(np.array([row]))
        first = _finite(recipe.decode(alone).pixels[0])  # (h, w, c)
        second = _finite(recipe.decode(alone).pixels[0])
    except PhospheneError:
        return "company"

    together = _finite(together)
    size = max(float(np.abs(together).max()), 1e-12)
    if np.abs(first - second).max() > TOLERANCE * size:
        return "random"

    if np.abs(first - together[row]).max() <= TOLERANCE * size:
        return "inductive"

    return "batch"


# -- helpers -----------------------------------------------------------------------------------------------------------


def _identification(decoded: _InputPictures, true: _InputPictures) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) outcomes of comparing a picture with its own truth and with another of its fold, and which entries count."""
    n = len(decoded.folds)
    wins = np.zeros((n, n))
    counted = np.zeros((n, n), dtype=bool)
    start = 0

    for stats, truth in zip(decoded.stats, true.stats, strict=True):
        stop = start + len(stats.features)
        block = slice(start, stop)

        # A picture of noise is paired with a true one by its place, which is no pairing.
        wins[block, block], counted[block, block] = comparisons(stats.features @ truth.features.T)
        start = stop

    return wins, counted


def _per_picture(inputs: Mapping[str, _InputPictures]) -> pd.DataFrame:
    parts = []
    for name, of in inputs.items():
        labels = of.labels
        if labels is None:
            labels = np.full(len(of.folds), "")

        columns = {"input": name, "fold": of.folds, "stimulus": of.stimuli, "label": labels}
        for measure in ("confidence", "entropy", "nearest", "contrast", "sharpness"):
            columns[measure] = of.values(measure)

        parts.append(pd.DataFrame(columns))

    table = pd.concat(parts, ignore_index=True)

    # Noise was shown nothing.
    table.loc[~table["input"].isin(["true", "brain"]), "stimulus"] = ""

    return table


def _first_latents(arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The first latents, a flat row each; None where a recipe gives none."""
    latents = next(iter(arrays.values()), None)
    if latents is None or not len(latents):
        return None

    return np.asarray(latents, np.float64).reshape(len(latents), -1)


def _finite(pixels: np.ndarray) -> np.ndarray:
    """Pictures with grey where a value is no number."""
    return np.nan_to_num(pixels, nan=0.5, posinf=1.0, neginf=0.0)


def _without_bounds(value: float) -> Interval:
    return Interval(value, float("nan"), float("nan"))
