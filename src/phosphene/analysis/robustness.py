"""Robustness: how many voxels can be lost (masked) before the score falls?

A share of the voxels, from none to all, is set to its mean over the training stimuli, and the run decodes what is left. Voxels
go in random order, several times over, and with the most informative ones first. Scored are latents and pictures decoded from
the rest, and readers of categories (see ``categories``) on the voxels and on the latents decoded from them.

With every voxel lost the input is constant, and an honest score is at chance: that end of each curve is a control.

Paper: Lin et al. 2022 (Mind Reader), section A.6: readers on voxels stay level until nine in ten are lost, readers on mapped
latents sink steadily and end clearly above those on voxels, which a constant input cannot give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from phosphene.analysis.categories import BRAIN
from phosphene.analysis.interface import COLUMNS, Analysis, Findings, chosen_folds
from phosphene.analysis.labels import LabelReader, Material, mean_area, prepare
from phosphene.errors import DataError
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.identification import comparisons, similarity
from phosphene.metrics.metric import PICTURES, Decoded, Score
from phosphene.metrics.perceptual import extract_features, feature_extractors_for, feature_views
from phosphene.metrics.registry import compute_scores
from phosphene.metrics.statistics import Statistic, bootstrap, mean_of_items, mean_of_pairs
from phosphene.recipes.base import Recipe
from phosphene.run import Run
from phosphene.types import Trials

__all__ = ["Curve", "Robustness", "RobustnessFindings", "RobustnessOptions", "crossing", "mask"]

RANDOM = "random"
INFORMED = "informed"
"""Orders in which voxels are lost: at random, or the most informative first."""
FALL = 0.1
"""Share of what a score has above chance whose loss counts as a fall."""
N_PICTURED = 8
_METRICS = ("pixcorr", "ssim.2d", "two_way.pixels", f"two_way.{PICTURES}*")
_DRAWS = 500  # of bootstraps

Informative = Literal["recipe", "readers", "unknown"]
Share = Annotated[float, Field(ge=0, le=1)]


class RobustnessOptions(Config):
    """How much is lost, and how often."""

    fractions: tuple[Share, ...] = Field(
        default=(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1),
        description="shares of voxels that are lost",
    )
    draws: int = Field(default=5, ge=1, le=100, description="random orders in which voxels are lost")
    pictures: tuple[Share, ...] = Field(
        default=(0, 0.2, 0.4, 0.6, 0.8, 0.9, 1),
        description="shares at which pictures are decoded as well, in one random order; () for none",
    )
    n_pictures: int = Field(default=60, ge=3, description="most test stimuli whose pictures are decoded")
    fold: int = Field(default=0, ge=0, description="fold of the run")

    @field_validator("fractions", "pictures")
    @classmethod
    def _both_ends(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if values and (list(values) != sorted(set(values)) or values[0] != 0 or values[-1] != 1):
            raise ValueError(f"shares should rise from 0 to 1, each named once, but are {values}")

        return values


@dataclass(frozen=True, eq=False)
class Curve:
    """A score against the share of voxels lost.

    Attributes
    ----------
    fractions : sequence of float
        shares lost, ascending, 0-1
    statistics : list of Statistic
        of draw counts over stimuli, one per fraction
    chance : float
        chance level
    n : int
        stimuli behind each value
    """

    fractions: Sequence[float]
    statistics: list[Statistic]
    chance: float
    n: int

    def lost(self) -> Statistic:
        """Share of voxels that can be lost before the score falls by FALL of what it has above chance."""

        def statistic(counts: np.ndarray) -> np.ndarray:
            of_fractions = [of_fraction(counts) for of_fraction in self.statistics]
            values = np.stack(of_fractions, axis=1)  # (n_draws, n_fractions)
            return crossing(np.asarray(self.fractions, dtype=float), values, self.chance)

        return statistic


@dataclass(frozen=True, kw_only=True, eq=False)
class RobustnessFindings(Findings):
    """Scores against the share of voxels lost. The table ``curve`` holds every point.

    Attributes
    ----------
    table : DataFrame
        ``full``, ``none`` and ``lost`` of every measure: with all voxels, with none, and the share that can be lost
    tables : mapping of str to DataFrame
        ``curve``, a row per measure, order and share lost
    chance : mapping of str to float
        measure to chance, in the order of the measures: ``two_way.SPACE``, ``auc.INPUT``, ``picture.METRIC``
    standing : sequence of str
        measures that are clear of chance with every voxel there
    informed : sequence of str
        measures whose voxels were also lost most informative first
    true : ndarray of shape (at most 8, h, w, c) or None
        the first pictures seen, 0-1; None where no pictures were decoded
    pictures : mapping of float to ndarray
        share lost at random to what was decoded of these
    n_test, n_voxels : int
        stimuli, and voxels there are
    n_draws : int
        random orders
    informative : {"recipe", "readers", "unknown"}
        what says which voxels are informative: the recipe's own weights, readers of categories, or nothing
    n_unused : int
        voxels of weight zero
    """

    chance: Mapping[str, float]
    standing: Sequence[str]
    informed: Sequence[str]
    true: np.ndarray | None
    pictures: Mapping[float, np.ndarray]
    n_test: int
    n_voxels: int
    n_draws: int
    informative: Informative
    n_unused: int


Curves = dict[str, dict[str, Curve]]
"""Measure to order to curve."""
_Rows = dict[str, dict[str, dict[float, list[np.ndarray]]]]


@dataclass
class _Masked:
    """What was decoded from masked responses: name to order to share to one array per random order."""

    latents: _Rows = field(default_factory=dict)
    labels: _Rows = field(default_factory=dict)
    pictures: dict[str, dict[float, np.ndarray]] = field(default_factory=dict)


class Robustness(Analysis[RobustnessOptions]):
    """Mask voxels, decode what is left, and follow the scores down.

    Parameters
    ----------
    options : RobustnessOptions, optional
        how much is lost, and how often
    seed : int, default 0
        of the orders in which voxels are lost, and of bootstraps
    """

    name = "robustness"
    title = "How many voxels can be lost"
    options_class = RobustnessOptions

    def run(self, opened: Run, progress: Progress) -> RobustnessFindings:
        """Mask more and more voxels, decode, score.

        Parameters
        ----------
        opened : Run
            a fitted run
        progress : Progress
            where progress is shown

        Returns
        -------
        RobustnessFindings
            tables, and the facts that sentences and figures are made of
        """
        chosen_folds(opened, self.options.fold)
        material: Material | None
        try:
            material = prepare(opened, self.options.fold, self.rng("folds"))
            recipe = material.recipe
        except DataError:  # no labels, or too few test stimuli with any: latents and pictures are scored all the same
            material = None
            recipe = opened.recipe(self.options.fold)

        train, test = opened.sides(self.options.fold)
        train = train.average_repeats()
        test = test.average_repeats()
        weights, informative = _importance(recipe, material)
        masked = self._decode(recipe, material, train, test, weights, progress)
        curves = self._curves(opened, recipe, material, test, masked)
        curve_table = self._curve_table(curves)
        table = self._table(curves)

        pictures = {share: of[:N_PICTURED] for share, of in masked.pictures.get(RANDOM, {}).items()}
        true = None
        if pictures:
            size = next(iter(pictures.values())).shape[1:3]
            true = opened.stimuli.select(test.stimuli[: len(pictures[0])]).resized(size)

        return RobustnessFindings(
            table=table,
            tables={"curve": curve_table},
            chance={measure: orders[RANDOM].chance for measure, orders in curves.items()},
            standing=_standing(curves, table),
            informed=[measure for measure, orders in curves.items() if INFORMED in orders],
            true=true,
            pictures=pictures,
            n_test=len(test),
            n_voxels=test.n_voxels,
            n_draws=self.options.draws,
            informative=informative,
            n_unused=0 if weights is None else int((weights == 0).sum()),
        )

    # -- masking ---------------------------------------------------------------------------------------------------

    def _decode(
        self,
        recipe: Recipe,
        material: Material | None,
        train: Trials,
        test: Trials,
        weights: np.ndarray | None,
        progress: Progress,
    ) -> _Masked:
        """Decode latents, labels and pictures from responses with ever more voxels lost."""
        readers = _readers(recipe, material, train)
        mean = train.betas.mean(axis=0, dtype=np.float64).astype(np.float32)  # (n_voxels,)
        pictured = np.arange(min(len(test), self.options.n_pictures))
        shares = sorted({*self.options.fractions, *self.options.pictures})
        out = _Masked()

        def add(rows: _Rows, name: str, order: str, share: float, values: np.ndarray) -> None:
            rows.setdefault(name, {}).setdefault(order, {}).setdefault(share, []).append(values)

        for order, draw, voxels in progress.each(list(self._orders(test.n_voxels, weights)), "losing voxels"):
            for share in shares:
                masked = test.with_betas(mask(test.betas, mean, voxels, share), lost=share)

                if share in self.options.fractions:
                    latents = recipe.latents(masked)
                    for space, array in latents.arrays.items():
                        if np.ndim(array) == 2:
                            add(out.latents, space, order, share, np.asarray(array))

                    for name, reader in readers.items():
                        if name == BRAIN:
                            assert material is not None  # readers have labels to read
                            features = material.voxels(masked)
                        else:
                            features = latents[name.removeprefix("mapped.")]

                        add(out.labels, name, order, share, reader.read(np.asarray(features)))

                # Pictures cost most, so they are decoded in one random order only.
                if draw == 0 and share in self.options.pictures:
                    pictures = recipe.decode(masked.take(pictured)).clipped()
                    out.pictures.setdefault(order, {})[share] = pictures

        return out

    def _orders(self, n_voxels: int, weights: np.ndarray | None) -> Iterator[tuple[str, int, np.ndarray]]:
        """In which voxels are lost, random ones first; a larger share loses all that a smaller one does."""
        # Nested sets: a curve then falls because voxels are lost, not because others are.
        for draw in range(self.options.draws):
            yield RANDOM, draw, self.rng("order", draw).permutation(n_voxels)

        if weights is not None:
            # A stable sort of shuffled voxels: those of equal weight go in random order, not in that of the file.
            shuffled = self.rng("ties").permutation(n_voxels)
            yield INFORMED, 0, shuffled[np.argsort(-weights[shuffled], kind="stable")]

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _curves(self, opened: Run, recipe: Recipe, material: Material | None, test: Trials, masked: _Masked) -> Curves:
        stimuli = opened.stimuli.select(test.stimuli)
        fractions = self.options.fractions
        n = len(test)
        true = recipe.true_latents(stimuli)
        curves: Curves = {}

        for space, orders in masked.latents.items():
            of_space = np.asarray(true[space])  # (n, d)
            for order, shares in orders.items():
                statistics = [_two_way(decoded, of_space) for decoded in shares.values()]
                curves.setdefault(f"two_way.{space}", {})[order] = Curve(fractions, statistics, 0.5, n)

        for name, orders in masked.labels.items():
            assert material is not None
            for order, shares in orders.items():
                statistics = [mean_area(np.stack(read), material.test_labels) for read in shares.values()]
                curves.setdefault(f"auc.{name}", {})[order] = Curve(fractions, statistics, 0.5, n)

        for order, shares in masked.pictures.items():
            for metric, scores in self._picture_scores(opened, shares).items():
                statistics = [mean_of_items(s.per_item) for s in scores]
                curve = Curve(self.options.pictures, statistics, scores[0].chance, scores[0].n)
                curves.setdefault(f"picture.{metric}", {})[order] = curve

        return curves

    def _picture_scores(self, opened: Run, shares: Mapping[float, np.ndarray]) -> dict[str, list[Score]]:
        """Metric to its score at every share of voxels lost."""
        first = next(iter(shares.values()))
        test = opened.sides(self.options.fold)[1].average_repeats()
        stimuli = opened.stimuli.select(test.stimuli[: len(first)])
        true = stimuli.resized(first.shape[1:3])
        true_features = []
        for extractor in feature_extractors_for(opened.dataset.name):
            true_features.append(extract_features(extractor, true))

        scores: dict[str, list[Score]] = {}

        for pixels in shares.values():
            decoded = Decoded(stimuli.ids, pixels, true, feature_views=feature_views(true_features, pixels))

            # Intervals and p of each point are not used: the curve as a whole is drawn from scores per item.
            for s in compute_scores(decoded, metrics=_METRICS, seed=self.seed, n_draws=100, n_permutations=1).scores:
                scores.setdefault(s.metric, []).append(s)

        return scores

    def _curve_table(self, curves: Curves) -> pd.DataFrame:
        rows = []
        for measure, orders in curves.items():
            for order, curve in orders.items():
                for share, statistic in zip(curve.fractions, curve.statistics, strict=True):
                    rng = self.rng(measure, order, share)
                    interval = bootstrap(statistic, curve.n, rng=rng, n_draws=_DRAWS)
                    rows.append((order, measure, share, *interval, curve.chance, curve.n))

        return pd.DataFrame(rows, columns=["input", "measure", "lost", "value", "ci_low", "ci_high", "chance", "n"])

    def _table(self, curves: Curves) -> pd.DataFrame:
        """Every score with all voxels, with none, and the share that can be lost."""
        rows: list[tuple] = []
        for measure, orders in curves.items():
            for order, curve in orders.items():
                statistics = {"full": curve.statistics[0], "none": curve.statistics[-1], "lost": curve.lost()}
                for point, statistic in statistics.items():
                    interval = bootstrap(statistic, curve.n, rng=self.rng(measure, order, point), n_draws=_DRAWS)
                    rows.append((order, f"{point}.{measure}", *interval, curve.n))

        table = pd.DataFrame(rows, columns=list(COLUMNS))
        table["measure"] = table["measure"].astype(str)
        return table


def mask(betas: np.ndarray, mean: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """Responses with the first of the voxels set to their mean.

    Parameters
    ----------
    betas : ndarray of shape (n, n_voxels)
        responses; copied, not changed
    mean : ndarray of shape (n_voxels,)
        over training stimuli
    order : ndarray of shape (n_voxels,)
        in which voxels are lost
    share : float
        0-1, of voxels

    Returns
    -------
    ndarray of shape (n, n_voxels)
        a copy

    Examples
    --------
    >>> mask(np.ones((1, 4)), np.zeros(4), np.array([3, 0, 1, 2]), 0.5)
    array([[0., 1., 1., 0.]])
    """
    lost = order[: round(share * len(order))]
    out = np.array(betas)
    out[:, lost] = mean[lost]
    return out


def crossing(shares: np.ndarray, values: np.ndarray, chance: float, fall: float = FALL) -> np.ndarray:
    """Where curves first fall below (1 - fall) of their beginning above chance, on straight lines between points.

    Parameters
    ----------
    shares : ndarray of shape (k,)
        ascending
    values : ndarray of shape (n, k)
        a curve per row
    chance : float
        of the score
    fall : float, optional
        0-1

    Returns
    -------
    ndarray of shape (n,)
        NaN for curves that begin at chance or below; the last share for those that never fall

    Examples
    --------
    >>> crossing(np.array([0, 0.5, 1.0]), np.array([[1.0, 0.75, 0.5]]), 0.5)
    array([0.1])
    """
    level = chance + (1 - fall) * (values[:, 0] - chance)  # (n,)
    below = values < level[:, None]  # (n, k)
    at = below.argmax(axis=1)

    # The level lies between this point and the one before.
    rows = np.arange(len(values))
    before = np.maximum(at - 1, 0)
    high = values[rows, before]
    low = values[rows, at]
    step = np.divide(high - level, high - low, out=np.zeros(len(rows)), where=high > low)
    crossed = shares[before] + step * (shares[at] - shares[before])
    crossed = np.where(below.any(axis=1), crossed, shares[-1])

    return np.where(values[:, 0] > chance, crossed, np.nan)


def _standing(curves: Curves, table: pd.DataFrame) -> list[str]:
    """Measures that are clear of chance with every voxel there."""
    rows = table.set_index(["input", "measure"])
    standing = []
    for measure, orders in curves.items():
        if rows.loc[(RANDOM, f"full.{measure}"), "ci_low"] > orders[RANDOM].chance:
            standing.append(measure)

    return standing


def _readers(recipe: Recipe, material: Material | None, train: Trials) -> dict[str, LabelReader]:
    """Readers of categories on voxels and on decoded latents; none without labels."""
    if material is None:
        return {}

    readers = {BRAIN: LabelReader().fit(material.voxels(train), material.train_labels)}
    decoded = recipe.latents(train)
    for space in material.spaces:
        readers[f"mapped.{space}"] = LabelReader().fit(np.asarray(decoded[space]), material.train_labels)

    return readers


def _two_way(decoded: Sequence[np.ndarray], true: np.ndarray) -> Statistic:
    """Two-way identification, its comparisons averaged over random orders."""
    wins = []
    counted = []

    for latents in decoded:
        won, is_counted = comparisons(similarity(latents, true))  # (n, n) each
        wins.append(won)
        counted.append(is_counted)

    # Which comparisons count is the same in every order: all but those of a stimulus with itself.
    return mean_of_pairs(np.mean(wins, axis=0), counted[0])


def _importance(recipe: Recipe, material: Material | None) -> tuple[np.ndarray | None, Informative]:
    """(n_voxels,) how informative each voxel is, and what says so."""
    weights = recipe.voxel_weights()
    if weights is not None:
        return np.asarray(weights, dtype=float), "recipe"

    if material is None:
        return None, "unknown"

    reader = LabelReader().fit(material.voxels(material.train), material.train_labels)
    return np.linalg.norm(reader.weights_, axis=1), "readers"
