"""What is scored, what a score holds, what a metric is, and everything that several metrics share.

``Decoded`` and ``Encoded`` are the inputs, ``Score`` the output. ``Evaluation`` stands between: it pairs rows with
stimuli, keeps each similarity matrix once, and turns a matrix of "what item i would score were j its truth" into a
value with interval, chance and p. A ``Metric`` holds all that is known of one metric: ``phosphene.metrics.catalogue`` lists
those of phosphene.
"""

from __future__ import annotations

import fnmatch
import html
import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from phosphene.errors import DataError
from phosphene.metrics.identification import Kind, similarity
from phosphene.metrics.pixel import as_pairs
from phosphene.metrics.statistics import (
    Interval,
    Statistic,
    bootstrap,
    mean_of_items,
    pairings,
    permutation_null,
    widened,
)

COLUMNS = ("split", "input", "metric", "value", "ci_low", "ci_high", "chance", "p", "n", "setting")
PIXELS = "pixels"  # the feature space that every pair of pictures has
OF_FEATURES = ("two_way", "two_way_within_class", "cosine", "fid", "kid")  # served by an extractor that names no others
PICTURES = "pictures."  # before the name of an extractor: features of the pictures, as against decoded latents


@dataclass(frozen=True, eq=False)
class FeatureView:
    """Features that one frozen network (see ``phosphene.metrics.perceptual``) extracts from decoded and true pictures.

    Parameters
    ----------
    features, true_features : ndarray of shape (n, d)
        one row per decoded item
    probabilities, true_probabilities : ndarray, optional
        (n, n_classes), or None where the network does not classify
    classes : tuple of str, default ()
        names of the classes
    metrics : tuple of str, optional
        heads of the names of metrics that the features serve, such as ``two_way``
    """

    features: np.ndarray
    true_features: np.ndarray
    probabilities: np.ndarray | None = None
    true_probabilities: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = OF_FEATURES

    @property
    def classifies(self) -> bool:
        """Whether the network tells classes apart."""
        return len(self.classes) > 1


@dataclass(frozen=True, eq=False)
class Decoded:
    """Decoded items beside their truths, one row per decoded item.

    Rows may repeat a stimulus (single trials, several samples): scores are averaged per stimulus, and no item is ever a
    distractor of itself.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        stimulus id of each row
    images, true_images : ndarray of shape (n, height, width, channels), optional
        0 to 1, or None
    latents : Mapping[str, tuple[ndarray, ndarray]], optional
        feature space -> (decoded (n, d), true (n, d))
    labels : ndarray of shape (n,), optional
        class of each row's stimulus, or None
    class_scores : Mapping[str, tuple[ndarray, ndarray]], optional
        classifier name -> (scores on the decoded pictures (n, classes), true class (n,))
    classifier : Any, optional
        reads classes off pictures (``phosphene.metrics.category.PictureClassifier``), fitted on training pictures, or
        None
    feature_views : Mapping[str, FeatureView], optional
        name of a feature extractor -> its features of the pictures
    texts : Mapping[str, Any], optional
        feature space -> categories with text embeddings in it, for zero-shot classification of the latents
        (``phosphene.metrics.zero_shot.Candidates``)
    exchangeable : ndarray of shape (n,), optional
        labels inside which pairings may be permuted (such as sessions), or None for all
    groups : ndarray of shape (n,), optional
        labels of rows whose stimuli depend on each other, such as sizes of one figure: these are drawn, and permuted, as a
        whole
    folds : ndarray of shape (n,), optional
        number of the fold that tested each row, or None for a single split

    Raises
    ------
    DataError
        When numbers of rows differ, or rows of one stimulus disagree about its picture, latents or label.
    """

    ids: np.ndarray
    images: np.ndarray | None = None
    true_images: np.ndarray | None = None
    latents: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    labels: np.ndarray | None = None
    class_scores: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    classifier: Any = None
    feature_views: Mapping[str, FeatureView] = field(default_factory=dict)
    texts: Mapping[str, Any] = field(default_factory=dict)
    exchangeable: np.ndarray | None = None
    groups: np.ndarray | None = None
    folds: np.ndarray | None = None

    def __post_init__(self):
        ids = np.asarray(self.ids)
        object.__setattr__(self, "ids", ids)
        if ids.ndim != 1 or not len(ids):
            raise DataError(f"scoring needs one stimulus id per decoded item, but ids have shape {ids.shape}.")
        if (self.images is None) != (self.true_images is None):
            raise DataError("decoded pictures and true pictures come together, but only one of them was given.")

        if self.images is not None and self.true_images is not None:
            images, true = as_pairs(self.images, self.true_images)
            object.__setattr__(self, "images", images)
            object.__setattr__(self, "true_images", true)

        for space in self.latents:
            if space == PIXELS or space.startswith(PICTURES):
                raise DataError(
                    f"the feature space name {space!r} is taken by the pictures themselves; rename the latents."
                )

        for name, values in self._per_row():
            if values is not None and len(values) != len(ids):
                raise DataError(f"{name} has {len(values)} rows but there are {len(ids)} ids; give one row per item.")

    def _per_row(self) -> list[tuple[str, np.ndarray | None]]:
        rows = [("images", self.images), ("labels", self.labels), ("exchangeable", self.exchangeable)]
        rows += [("groups", self.groups), ("folds", self.folds)]
        for space, (ours, true) in self.latents.items():
            rows += [(f"decoded latents of {space}", ours), (f"true latents of {space}", true)]

        for name, (scores, true) in self.class_scores.items():
            rows += [(f"class scores of {name}", scores), (f"true classes of {name}", true)]

        for name, v in self.feature_views.items():
            rows += [(f"{what} of {name}", getattr(v, what)) for what in ("features", "true_features")]
            rows += [(f"{what} of {name}", getattr(v, what)) for what in ("probabilities", "true_probabilities")]

        return rows


@dataclass(frozen=True, eq=False)
class Encoded:
    """Predicted responses beside measured ones, one row per stimulus (repeats averaged).

    Parameters
    ----------
    ids : ndarray of shape (n,)
        stimulus ids, all different
    predicted, measured : ndarray of shape (n, n_voxels)
        responses, in one unit
    ceiling : ndarray of shape (n_voxels,), optional
        noise ceiling of the measured average as a share of variance, or None
    unclipped : ndarray of shape (n_voxels,), optional
        the same with values below 0 as they were estimated
    reliable : ndarray of shape (n_voxels,), bool, optional
        voxels that answer alike to repeats of training stimuli; a fraction of the ceiling is then taken over these
    """

    ids: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray
    ceiling: np.ndarray | None = None
    unclipped: np.ndarray | None = None
    reliable: np.ndarray | None = None

    def __post_init__(self):
        ids = np.asarray(self.ids)
        object.__setattr__(self, "ids", ids)
        shape = np.shape(self.measured)
        if len(shape) != 2 or np.shape(self.predicted) != shape or ids.shape != shape[:1]:
            raise DataError(
                f"predicted responses have shape {np.shape(self.predicted)}, measured ones {shape} and ids "
                f"{ids.shape}; give (stimuli, voxels) twice and one id per stimulus."
            )

        unique, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise DataError(
                f"encoding is scored on one average per stimulus, but {unique[counts > 1][0]} has "
                f"{counts.max()} rows; average the repeats first."
            )

        if self.ceiling is not None and np.shape(self.ceiling) != shape[1:]:
            raise DataError(f"there are {shape[1]} voxels but the ceiling has shape {np.shape(self.ceiling)}.")


@dataclass(frozen=True, eq=False)
class Score:
    """One number that can be believed or doubted.

    Attributes
    ----------
    metric : str
        name with variant and feature space, such as ``two_way.pixels``
    value : float
        the mean over stimuli (or voxels)
    ci_low, ci_high : float
        95 % BCa bootstrap over stimuli; NaN with a single one
    chance : float
        what random pairing gives, analytic where a closed form exists
    p : float
        permutation p against random pairing, one-sided, never 0; NaN where no pairing can be permuted
    n : int
        stimuli behind the number
    per_item : ndarray of shape (n,)
        values of each stimulus (of each voxel, for encoding)
    items : ndarray of shape (n,)
        what ``per_item`` belongs to
    note : str
        undefined items, skipped ones, restricted nulls; empty when there is nothing to say
    of_samples : tuple of float
        the score of each sample alone, where every stimulus was decoded equally often; empty otherwise. `value` is their
        mean
    oracle_best : float
        the score were the best sample of each stimulus picked with the help of the truth; NaN without samples. It stands
        apart and is no score of a decoder
    in_folds : float
        the mean over all pairings inside a fold; NaN with a single split. For an input that has nothing to do with the truth
        this is chance out of fold, see `phosphene.metrics.registry.chance_out_of_fold`
    """

    metric: str
    value: float
    ci_low: float
    ci_high: float
    chance: float
    p: float
    n: int
    per_item: np.ndarray
    items: np.ndarray
    note: str = ""
    of_samples: tuple[float, ...] = ()
    oracle_best: float = float("nan")
    in_folds: float = float("nan")

    def __repr__(self) -> str:
        parts = [f"{self.metric} {self.value:.3f}"]
        if np.isfinite(self.ci_low):
            parts.append(f"[{self.ci_low:.3f}, {self.ci_high:.3f}]")
        if np.isfinite(self.chance):
            parts.append(f"chance {self.chance:.3f}")
        if np.isfinite(self.p):
            parts.append(f"p {self.p:.2g}")

        return f"Score({', '.join(parts)}, n {self.n})"

    def row(self, split: str, input: str, setting: str) -> dict[str, Any]:
        """This score as a row of ``scores.csv``.

        Parameters
        ----------
        split, input, setting : str
            see `Scores.table`

        Returns
        -------
        dict[str, Any]
            one entry per column of ``COLUMNS``
        """
        numbers = {name: getattr(self, name) for name in ("metric", "value", "ci_low", "ci_high", "chance", "p", "n")}
        return {"split": split, "input": input, **numbers, "setting": setting}


@dataclass(frozen=True)
class Skipped:
    """A metric that could not be computed, and why. It never becomes a zero.

    Attributes
    ----------
    metric : str
        full name
    reason : str
        a sentence without a capital
    """

    metric: str
    reason: str


class Skip(Exception):
    """Raised inside a metric to say why it cannot be computed on this input."""


@dataclass(frozen=True)
class Scores:
    """All scores of one input on one split, and what was skipped.

    Attributes
    ----------
    scores : list of Score
        in the order of the table of metrics
    skipped : list of Skipped
        those that could not be computed
    """

    scores: list[Score]
    skipped: list[Skipped]

    def __getitem__(self, metric: str) -> Score:
        for score in self.scores:
            if score.metric == metric:
                return score

        known = ", ".join(score.metric for score in self.scores)
        raise KeyError(f"there is no score {metric!r} among these: {known}")

    def __repr__(self) -> str:
        if self.skipped:
            skipped = f", {len(self.skipped)} skipped"
        else:
            skipped = ""

        return f"Scores({', '.join(f'{s.metric} {s.value:.3f}' for s in self.scores)}{skipped})"

    def _repr_html_(self) -> str:
        """A table of metric, value, interval, chance, p and sample size, for notebooks."""
        head = "".join(f"<th>{title}</th>" for title in ("metric", "value", "95 % interval", "chance", "p", "n"))
        rows = []
        for s in self.scores:
            interval = f"{_number(s.ci_low)} to {_number(s.ci_high)}" if np.isfinite(s.ci_low) else "-"
            cells = (html.escape(s.metric), _number(s.value), interval, _number(s.chance), _number(s.p, 4), str(s.n))
            rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")

        caption = ""
        if self.skipped:
            names = ", ".join(f"{s.metric} ({s.reason})" for s in self.skipped)
            caption = f"<p>Skipped: {html.escape(names)}.</p>"

        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{caption}"

    def table(self, split: str, input: str, setting: str = "strict") -> pd.DataFrame:
        """Rows of ``scores.csv``: one per metric.

        Parameters
        ----------
        split : str
            name of the split
        input : str
            ``brain``, or what took its place: ``shuffled``, ``noise``, ``mean``, ``truth``, ``category``
        setting : str, default "strict"
            ``strict`` or ``relax``

        Returns
        -------
        DataFrame
            columns as ``COLUMNS``
        """
        return pd.DataFrame([s.row(split, input, setting) for s in self.scores], columns=list(COLUMNS))


def _number(value: float, digits: int = 3) -> str:
    if np.isnan(value):
        return "-"
    return f"{value:.{digits}f}"


class Evaluation:
    """One input being scored: pairs, cached similarities, and the statistics common to all metrics.

    Parameters
    ----------
    decoded : Decoded, optional
        what to score; either may be None
    encoded : Encoded, optional
        see `decoded`
    seed : int, default 0
        integer; every metric draws its bootstrap from its own stream of it, and all take the same random pairings, so that
        adding a metric changes no other
    n_draws, n_permutations : int, optional
        bootstrap draws and permutations
    """

    def __init__(
        self,
        decoded: Decoded | None = None,
        encoded: Encoded | None = None,
        *,
        seed: int = 0,
        n_draws: int = 2000,
        n_permutations: int = 10_000,
    ):
        self.decoded = decoded
        self.encoded = encoded
        self.seed = seed
        self.n_draws = n_draws
        self.n_permutations = n_permutations
        self._similarities: dict[tuple[str, str], np.ndarray] = {}

        if decoded is None:
            return

        _, first, which = np.unique(decoded.ids, return_index=True, return_inverse=True)
        order = np.argsort(first)  # stimuli in order of first appearance
        self.first = first[order]
        self.truth = np.argsort(order)[which]
        self.ids = decoded.ids[self.first]
        self.has_repeats = len(self.ids) < len(decoded.ids)

        if decoded.labels is None:
            self.labels = None
        else:
            self.labels = np.asarray(decoded.labels)[self.first]

        if decoded.groups is None:
            self.groups = None
        else:
            self.groups = np.asarray(decoded.groups)[self.first]

        self.n_folds = 1
        self.fold = None  # (stimuli,) of each stimulus; None with a single fold, or where stimuli are tested in several
        if decoded.folds is not None:
            folds = np.asarray(decoded.folds)
            self.n_folds = len(np.unique(folds))
            if self.n_folds > 1 and np.array_equal(folds, folds[self.first][self.truth]):
                self.fold = folds[self.first]

        if decoded.exchangeable is not None:
            self.exchangeable = np.asarray(decoded.exchangeable)[self.first]
        elif self.fold is not None and np.unique(self.fold, return_counts=True)[1].min() > 1:
            # A decoder has been trained on what other folds test, so that a pairing across folds is none by chance.
            self.exchangeable = self.fold
        else:
            self.exchangeable = None

        if self.has_repeats:
            self._check_repeats_agree()

    def __repr__(self) -> str:
        parts = []
        if self.decoded is not None:
            parts.append(f"{len(self.ids)} stimuli decoded to {', '.join(self.spaces)}")
        if self.encoded is not None:
            parts.append(f"{np.shape(self.encoded.measured)[1]} voxels predicted")

        return f"Evaluation({'; '.join(parts)})"

    def _check_repeats_agree(self) -> None:
        assert self.decoded is not None
        same = {"labels": self.decoded.labels, "true pictures": self.decoded.true_images}
        same |= {f"true latents of {space}": true for space, (_, true) in self.decoded.latents.items()}
        for name, values in same.items():
            if values is None:
                continue

            values = np.asanyarray(values)
            for row, column in enumerate(self.truth):
                if not np.array_equal(values[row], values[self.first[column]]):
                    raise DataError(
                        f"rows {self.first[column]} and {row} are both stimulus {self.ids[column]} but differ in "
                        f"their {name}; give different stimuli different ids."
                    )

    @property
    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Decoded and true pictures, (rows, height, width, channels) each.

        Raises
        ------
        Skip
            Where there are none.
        """
        if self.decoded is None or self.decoded.images is None or self.decoded.true_images is None:
            raise Skip("there are no decoded pictures")

        return self.decoded.images, self.decoded.true_images

    @property
    def responses(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and measured responses, (n_stimuli, n_voxels) each.

        Raises
        ------
        Skip
            Where there are none.
        """
        if self.encoded is None:
            raise Skip("there are no predicted responses")

        return np.asarray(self.encoded.predicted), np.asarray(self.encoded.measured)

    def inside_exchangeable(self, groups: np.ndarray) -> np.ndarray:
        """Groups of stimuli, each cut into the parts that may be permuted with each other.

        Parameters
        ----------
        groups : ndarray of shape (stimuli,)
            labels

        Returns
        -------
        ndarray of shape (stimuli,)
            labels; the same ones where everything is exchangeable
        """
        if self.exchangeable is None:
            return groups

        both = [f"{group} {block}" for group, block in zip(groups, self.exchangeable, strict=True)]
        _, codes, sizes = np.unique(both, return_inverse=True, return_counts=True)

        # Where most parts are a single stimulus, hardly a pairing would change: permuting across folds asks for more.
        is_by_fold = self.exchangeable is self.fold
        if is_by_fold and np.mean(sizes[codes] == 1) > 0.5:
            return groups

        return codes

    def rng(self, name: str) -> np.random.Generator:
        """The random stream of one metric, so that adding a metric changes no other.

        Parameters
        ----------
        name : str
            full name of the metric

        Returns
        -------
        numpy.random.Generator
            the same for a seed and a name
        """
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    @property
    def spaces(self) -> list[str]:
        """Feature spaces that can be compared: the pixels when there are pictures, then the latents."""
        if self.decoded is None:
            return []
        return [PIXELS] * (self.decoded.images is not None) + list(self.decoded.latents)

    def picture_spaces(self, kind: str) -> list[str]:
        """Spaces of the feature extractors that serve metrics of a kind.

        Parameters
        ----------
        kind : str
            such as ``two_way``

        Returns
        -------
        list of str
            ``pictures.NAME`` of each
        """
        if self.decoded is None:
            return []
        return [PICTURES + name for name, view in self.decoded.feature_views.items() if kind in view.metrics]

    @property
    def class_scores(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Classifier -> (scores on the decoded pictures, true class); a network's own answer to the true picture is the truth."""
        if self.decoded is None:
            return {}

        scores = dict(self.decoded.class_scores)
        for name, view in self.decoded.feature_views.items():
            if view.probabilities is not None and view.true_probabilities is not None and view.classifies:
                scores[name] = (view.probabilities, np.nan_to_num(view.true_probabilities).argmax(axis=1))

        return scores

    def view(self, extractor: str) -> FeatureView:
        """Features of decoded and true pictures by one extractor.

        Parameters
        ----------
        extractor : str
            its name

        Returns
        -------
        FeatureView
            with a row for each decoded picture
        """
        assert self.decoded is not None
        return self.decoded.feature_views[extractor]

    def pair(self, space: str) -> tuple[np.ndarray, np.ndarray]:
        """Decoded and true items in a feature space, one row each.

        Parameters
        ----------
        space : str
            ``pixels``, a space of latents, or ``pictures.NAME``

        Returns
        -------
        decoded : ndarray of shape (rows, d)
            a view where that is possible
        true : ndarray of shape (rows, d)
            the truth of each row
        """
        assert self.decoded is not None
        if space == PIXELS:
            ours, true = self.pictures
        elif space.startswith(PICTURES):
            view = self.decoded.feature_views[space.removeprefix(PICTURES)]
            ours = view.features
            true = view.true_features
        else:
            ours, true = self.decoded.latents[space]

        return np.reshape(ours, (len(ours), -1)), np.reshape(true, (len(true), -1))

    def sets(self, space: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Decoded and true items as sets, one decoded item for each stimulus: as many sets as there are samples.

        Parameters
        ----------
        space : str
            feature space

        Returns
        -------
        list of tuple of (ndarray, ndarray)
            (stimuli, d) decoded and true items of each set

        Raises
        ------
        Skip
            When stimuli have different numbers of decoded items.
        """
        ours, true = self.pair(space)
        counts = np.bincount(self.truth)
        if np.ptp(counts):
            raise Skip("stimuli have different numbers of decoded items, so there is no set with one of each")

        by_stimulus = np.argsort(self.truth, kind="stable").reshape(len(counts), counts[0])
        return [(ours[rows], true[self.first]) for rows in by_stimulus.T]

    def similarity(self, space: str, kind: Kind = "pearson") -> np.ndarray:
        """Similarity of every row with every stimulus in a feature space, computed once.

        Parameters
        ----------
        space : str
            feature space
        kind : {"pearson", "cosine", "neg_mse"}, default "pearson"
            as `phosphene.metrics.similarity` takes it

        Returns
        -------
        ndarray of shape (rows, stimuli)
            float32
        """
        if (space, kind) not in self._similarities:
            ours, true = self.pair(space)
            if self.has_repeats:
                true = true[self.first]

            self._similarities[space, kind] = similarity(ours, true, kind)

        return self._similarities[space, kind]

    def per_stimulus(self, rows: np.ndarray) -> np.ndarray:
        """Average the rows of each stimulus.

        Parameters
        ----------
        rows : ndarray of shape (rows, ...)
            values of every decoded item

        Returns
        -------
        ndarray of shape (stimuli, ...)
            float64
        """
        if not self.has_repeats:
            return np.asarray(rows, dtype=np.float64)

        sums = np.zeros((len(self.ids), *np.shape(rows)[1:]))
        np.add.at(sums, self.truth, rows)
        counts = np.bincount(self.truth)
        return sums / counts.reshape(-1, *[1] * (sums.ndim - 1))

    def score(
        self,
        name: str,
        per_row: np.ndarray,
        matrix: np.ndarray | None,
        *,
        chance: float | None = None,
        statistic: Statistic | None = None,
        better: Literal["higher", "lower"] = "higher",
        groups: np.ndarray | None = None,
        note: str = "",
    ) -> Score:
        """A score from the value of every row and the matrix of what it would be for every other truth.

        Parameters
        ----------
        name : str
            metric name
        per_row : ndarray of shape (rows,)
            NaN for rows that cannot be scored
        matrix : ndarray of shape (rows, stimuli) or None
            for the permutation null, or None for no p
        chance : float, optional
            analytic chance; default the mean over all pairings
        statistic : Statistic, optional
            of draw counts, for the interval; default the mean of items
        better : {"higher", "lower"}, default "higher"
            direction
        groups : ndarray of shape (stimuli,), optional
            permute only inside these; default ``exchangeable``
        note : str, default ""
            carried along

        Returns
        -------
        Score
            with interval, chance and p
        """
        per_item = self.per_stimulus(per_row)
        rng = self.rng(name)
        interval = bootstrap(
            statistic or mean_of_items(per_item), len(per_item), rng=rng, n_draws=self.n_draws, groups=self.groups
        )
        interval = self._out_of_fold(interval, matrix)
        groups = self.exchangeable if groups is None else groups
        p = float("nan")
        in_folds = float("nan")

        if matrix is not None and len(per_item) > 1:
            matrix = self.per_stimulus(matrix)
            orders = pairings(self.seed, len(per_item), self.n_permutations, groups, self.groups)
            null = permutation_null(matrix, orders=orders, larger_is_better=better == "higher")

            p = null.p
            in_folds = self._mean_in_folds(matrix, groups)
            if chance is None:
                if groups is not None:
                    chance = null.mean
                else:
                    chance = float(np.nanmean(matrix))

        if np.isfinite(per_item).any():
            value = float(np.nanmean(per_item))
        else:
            value = float("nan")

        n = int(np.isfinite(per_item).sum())
        if note:
            notes = [note]
        else:
            notes = []

        if n < len(per_item):
            notes.append(f"{len(per_item) - n} of {len(per_item)} items have no distractor and are left out")
        if n > 1 and np.ptp(per_item[np.isfinite(per_item)]) == 0:
            notes.append("all items score the same, so the interval has no width and says nothing about unseen items")

        of_samples, oracle_best = self._of_samples(per_row, better)
        return Score(
            name, value, interval.low, interval.high, float("nan") if chance is None else float(chance), p, n,
            per_item, self.ids, "; ".join(notes), of_samples, oracle_best, in_folds,
        )  # fmt: skip

    def _out_of_fold(self, interval: Interval, matrix: np.ndarray | None) -> Interval:
        """The interval as wide as folds make it, inside what an item can score."""
        if self.n_folds < 2:
            return interval

        value, low, high = widened(interval, self.n_folds)
        if matrix is not None and np.isfinite(matrix).any():
            low = max(low, float(np.nanmin(matrix)))
            high = min(high, float(np.nanmax(matrix)))

        return Interval(value, low, high)

    def _mean_in_folds(self, matrix: np.ndarray, groups: np.ndarray | None) -> float:
        """Mean score of all pairings inside a fold (and group); NaN with a single split."""
        if self.fold is None:
            return float("nan")

        is_pair = self.fold[:, None] == self.fold  # (stimuli, stimuli)
        if groups is not None:
            is_pair &= np.asarray(groups)[:, None] == np.asarray(groups)

        values = matrix[is_pair]
        values = values[~np.isnan(values)]
        if not len(values):
            return float("nan")

        return float(values.mean())

    def _of_samples(self, per_row: np.ndarray, better: Literal["higher", "lower"]) -> tuple[tuple[float, ...], float]:
        """The score of each sample, and that of the best of each stimulus."""
        is_in_several_folds = (
            self.n_folds > 1 and self.fold is None
        )  # its rows are then responses of their own, not samples
        if not self.has_repeats or is_in_several_folds:
            return (), float("nan")

        counts = np.bincount(self.truth)
        if np.ptp(counts):
            return (), float("nan")

        by_stimulus = np.argsort(self.truth, kind="stable").reshape(len(counts), counts[0])
        values = np.asarray(per_row, dtype=np.float64)[by_stimulus]  # (stimuli, samples)
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            return (), float("nan")

        if better == "higher":
            best = values.max(axis=1)
        else:
            best = values.min(axis=1)

        return tuple(values.mean(axis=0).tolist()), float(best.mean())

    def undefined_note(self, undefined: np.ndarray, counted_as: str) -> str:
        """A sentence that lists rows without a defined score.

        Parameters
        ----------
        undefined : ndarray of shape (rows,)
            bool
        counted_as : str
            what such a row scores, in words

        Returns
        -------
        str
            empty where all are defined
        """
        assert self.decoded is not None
        undefined = np.flatnonzero(undefined)
        if not len(undefined):
            return ""

        shown = ", ".join(str(self.decoded.ids[i]) for i in undefined[:10])
        if len(undefined) > 10:
            more = f" and {len(undefined) - 10} more"
        else:
            more = ""

        return f"{len(undefined)} constant or non-finite items counted as {counted_as}: {shown}{more}"


def bounded(score: Score, low: float, high: float) -> Score:
    """Interval ends inside the range of the score: influence values may point beyond it.

    Parameters
    ----------
    score : Score
        with an interval
    low, high : float
        least and greatest possible value

    Returns
    -------
    Score
        the same, its interval clipped
    """
    ci_low = float(np.clip(score.ci_low, low, high))
    ci_high = float(np.clip(score.ci_high, low, high))
    return replace(score, ci_low=ci_low, ci_high=ci_high)


def joined(*notes: str) -> str:
    """Notes that are not empty, one after the other.

    Parameters
    ----------
    *notes : str
        parts of a note

    Returns
    -------
    str
        separated by semicolons
    """
    return "; ".join(note for note in notes if note)


def extractor_name(space: str) -> str:
    """Name of the network that extracts the features of a space of pictures; other spaces go by their own name.

    Parameters
    ----------
    space : str
        such as ``pictures.clip_lab``

    Returns
    -------
    str
        such as ``clip_lab``

    Examples
    --------
    >>> extractor_name("pictures.clip_lab"), extractor_name("pixels")
    ('clip_lab', 'pixels')
    """
    return space.removeprefix(PICTURES)


Over = Literal["images", "space", "seen", "everywhere", "classes", "category", "texts", "voxels"]
Family = Literal["Pictures", "Identification", "Encoding"]
Compute = Callable[[Evaluation, str, str], Score]
"""(evaluation, full name of the metric, space) -> Score, or raises Skip."""


def _always(e: Evaluation, space: str) -> bool:
    """Whether the metric can be computed in a space: always.

    Parameters
    ----------
    e : Evaluation
        not looked at
    space : str
        not looked at

    Returns
    -------
    bool
        True
    """
    return True


@dataclass(frozen=True)
class Metric:
    """All that is known of one metric.

    Attributes
    ----------
    name : str
        name, with ``{space}`` where a feature space or classifier goes, and ``{n}`` where a number follows from the
        data
    over : {"images", "space", "seen", "everywhere", "classes", "category", "texts", "voxels"}
        what it is computed over: ``images``, ``space`` (pixels and each space of latents), ``seen`` (the features of
        the pictures by each extractor that is meant for the metric), ``everywhere`` (both), ``classes`` (each
        classifier's scores), ``category`` (whatever reads categories off pictures), ``texts`` (spaces of latents with
        text embeddings) or ``voxels``
    title : str
        for a sentence
    definition : str
        the variant, exactly
    better : {"higher", "lower"}
        direction
    chance : str
        what chance is, in words
    compute : callable
        (evaluation, full name, space) -> Score, or raises Skip
    family : {"Pictures", "Identification", "Encoding"}
        part of a table it stands in
    items : {"stimuli", "sets", "voxels"}
        what has a value of its own; sets of pictures have none, and shuffling the pairs leaves them as they are
    heading : str
        for a table, with the places of `name`; `title` by default
    reading : str
        what it measures, in one or two sentences for who reads a report, with the places of `name`
    digits : int
        decimals worth printing
    published_as : str
        what tables of published numbers call it, whatever the variant; `kind` by default
    protocol : Mapping[str, str]
        fields of a published protocol that the metric itself fixes, such as ``ssim_variant``
    applies : callable
        (evaluation, space) -> bool, whether it says something there
    kind : str
        `name` without the space, such as ``two_way`` or ``ssim.2d``; the same for pictures that were resized first
    bounds : tuple of float
        the least and the most it can be; infinite where there is no bound

    Examples
    --------
    >>> metric = Metric("mae.{space}", "images", "MAE", "mean absolute difference", "lower", "none", print)
    >>> metric.kind, metric.parts("mae.pixels")
    ('mae', {'space': 'pixels'})
    """

    name: str
    over: Over
    title: str
    definition: str
    better: Literal["higher", "lower"]
    chance: str
    compute: Compute
    family: Family = "Identification"
    items: Literal["stimuli", "sets", "voxels"] = "stimuli"
    heading: str = ""
    reading: str = ""
    digits: int = 3
    published_as: str = ""
    protocol: Mapping[str, str] = field(default_factory=dict)
    applies: Callable[[Evaluation, str], bool] = _always
    kind: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        kind = self.kind or self.name.removesuffix(".{space}")
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "heading", self.heading or self.title)
        object.__setattr__(self, "published_as", self.published_as or kind)

    def __repr__(self) -> str:
        return f"Metric({self.name}: {self.title}, {self.better} is better)"

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is: a value times this is better when larger."""
        if self.better == "higher":
            return 1
        return -1

    def parts(self, name: str) -> dict[str, str] | None:
        """What stands in the places of the template in a full name; None for a name of another metric.

        Parameters
        ----------
        name : str
            as in ``scores.csv``

        Returns
        -------
        dict[str, str] or None
            ``space`` and ``n``, those the metric has
        """
        match = re.fullmatch(self._expression(), name)
        if match is None:
            return None
        return match.groupdict()

    def filled(self, text: str, name: str) -> str:
        """A text with the places of the template filled in for one full name, for people.

        Parameters
        ----------
        text : str
            such as `heading`
        name : str
            as in ``scores.csv``

        Returns
        -------
        str
            features of pictures as ``NAME on pictures``
        """
        for key, value in (self.parts(name) or {}).items():
            shown = value
            if value.startswith(PICTURES):
                shown = f"{extractor_name(value)} on pictures"

            text = text.replace(f"{{{key}}}", shown)

        return text

    def could_match(self, pattern: str) -> bool:
        """Whether some full name of this metric fits a name or pattern such as ``two_way.*``.

        Parameters
        ----------
        pattern : str
            as `fnmatch` takes it

        Returns
        -------
        bool
            True for a pattern that fits in some space
        """
        if self.parts(pattern) is not None:
            return True

        head, dot, _ = pattern.partition(".")
        if dot and "{space}" in self.name:
            pattern = f"{head}.x"  # a space that a later data set may have

        # Classifiers draw among 50 classes, the lab's among its 16.
        names = {self.name.replace("{space}", "x").replace("{n}", n) for n in ("16", "50")}
        return any(fnmatch.fnmatch(name, pattern) for name in names)

    def _expression(self) -> str:
        """The template of the name as a regular expression."""
        return re.escape(self.name).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{space\}", r"(?P<space>.+)")
