"""Words: what does a response read like, and which words describe an area?

    response -> decode -> embedding, less the mean training picture -> nearest captions, less the mean caption

For test pictures the true caption has a rank among the captions of a pool, and a place among the captions of all test
pictures. For an area, its voxels are raised in test responses; what this adds to the embedding beyond what random voxels of
equal size add is a direction, and the captions nearest to it say what the area stands for to the decoder.

Paper: Lin et al. 2022 (Mind Reader), future work: "text out" for voxels; ranks and nulls are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analysis.interface import COLUMNS, Analysis, Findings, chosen_folds
from phosphene.analysis.region_targets import Edit, StandIns, StimulationTarget, moments, stimulated, targets
from phosphene.analysis.spaces import Pool, Space, SpaceKind, pool_of, reading_space
from phosphene.errors import ConfigError, DataError
from phosphene.features.prompts import TEMPLATES, category_texts
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.retrieval import retrieval_curve
from phosphene.metrics.statistics import Interval, bootstrap, mean_of_items, permutation_null
from phosphene.metrics.ties import bounds, grain_of
from phosphene.metrics.zero_shot import share_in_top
from phosphene.run import Run
from phosphene.types import Stimuli, Trials

NEAREST = 10
"""Captions nearest to an area that are listed, and whose categories are counted."""
N_PICTURED = 8
_LISTED = 5  # captions nearest to a response


class WordsOptions(Config):
    """What is read, and with which texts."""

    pool: str | None = Field(
        default=None,
        description="text file, a caption a line; the captions of the training pictures and category names by default",
    )
    n: int | None = Field(default=None, ge=3, description="test responses; all by default")
    rois: tuple[str, ...] | None = Field(
        default=None, description="areas to describe, as for stimulate; those known by name by default, none for []"
    )
    sets: str | None = Field(default=None, description="file (.npz) of voxel sets by name, each a mask or positions")
    amount: float = Field(
        default=2.0, gt=0, description="SD of each voxel's training responses by which an area is raised"
    )
    n_raised: int = Field(default=20, ge=2, description="test responses in which areas are raised")
    repeats: int = Field(default=200, ge=20, le=100_000, description="random voxel sets")
    fold: int = Field(default=0, ge=0, description="which fold")


@dataclass(frozen=True, eq=False)
class DescribedArea:
    """An area in words.

    Attributes
    ----------
    target : StimulationTarget
        which
    captions : ndarray of shape (at most 10,)
        of the pool, nearest first
    categories : ndarray
        of these captions
    cosines : ndarray
        of these captions with what the area drives beyond random voxels, descending
    null_best : ndarray of shape (repeats,)
        cosine of the caption nearest to what each random set drives beyond the others
    p : float
        of a random set having a caption as near
    own : str or None
        the category it ought to stand for, in the words of the pool; None where there is none
    share : float
        share of the nearest captions that describe training pictures of it; NaN without one
    p_own : float
        of a random set having as many; NaN without one
    """

    target: StimulationTarget
    captions: np.ndarray
    categories: np.ndarray
    cosines: np.ndarray
    null_best: np.ndarray
    p: float
    own: str | None
    share: float
    p_own: float


@dataclass(frozen=True, kw_only=True, eq=False)
class WordsFindings(Findings):
    """How well responses are read in words, and which words describe areas.

    Attributes
    ----------
    p : mapping of str to float
        measure to p against shuffled pairings; empty where test pictures have no captions
    beaten : mapping of str to ndarray
        input to (n,) share of the pool that the true caption beats, NaN without a caption
    pictures : ndarray of shape (at most 8, h, w, c)
        the first test pictures
    nearest : ndarray of shape (n,)
        caption nearest to what was decoded of each test response
    captions : sequence of tuple of str
        true captions of each test picture, maybe none
    areas : sequence of DescribedArea
        areas in words
    n_pool : int
        captions to choose among
    is_file : bool
        whether they are those of a file
    space : SpaceKind
        what responses are read in
    n : int
        test responses
    fold, n_folds_of_run : int
        which fold, and folds there are
    """

    p: Mapping[str, float]
    beaten: Mapping[str, np.ndarray]
    pictures: np.ndarray
    nearest: np.ndarray
    captions: Sequence[tuple[str, ...]]
    areas: Sequence[DescribedArea]
    n_pool: int
    is_file: bool
    space: SpaceKind
    n: int
    fold: int
    n_folds_of_run: int


class _Ranks(NamedTuple):
    """How the true captions of test pictures rank."""

    table: pd.DataFrame
    beaten: dict[str, np.ndarray]
    p: dict[str, float]
    retrieval: pd.DataFrame


class Words(Analysis[WordsOptions]):
    """Rank the true captions of test pictures by decoded responses, and describe areas by captions."""

    name = "words"
    title = "Read in words"
    options_class = WordsOptions

    def run(self, opened: Run, progress: Progress) -> WordsFindings:
        """Rank captions of test pictures, describe areas.

        Parameters
        ----------
        opened : Run
            a fitted run
        progress : Progress
            where progress is shown

        Returns
        -------
        WordsFindings
            tables, and the facts that sentences and figures are made of
        """
        fold = self.options.fold
        chosen_folds(opened, fold)
        recipe = opened.recipe(fold)
        train, test = opened.sides(fold)
        test = test.average_repeats()

        if self.options.n is not None and self.options.n < len(test):
            test = test.take(np.sort(self.rng("test").permutation(len(test))[: self.options.n]))

        if len(test) < 3:
            raise DataError(f"three test responses or more are needed to rank their captions; there are {len(test)}.")

        stimuli = opened.stimuli.select(test.stimuli)
        space = reading_space(opened, recipe, train)
        captions = true_captions(stimuli, opened.dataset.nouns)

        # Captions of test pictures are no competitors of themselves; a dictionary keeps their order.
        of_test: dict[str, None] = {}
        for texts in captions:
            of_test.update(dict.fromkeys(texts))

        with progress.step("reading captions"):
            pool = pool_of(opened, train, space, file=self.options.pool, without=list(of_test), rng=self.rng("pool"))

        embeddings = {"truth": np.asarray(space.see(stimuli)), "brain": np.asarray(space.embed(test))}
        embeddings["shuffled"] = embeddings["brain"][self.rng("shuffled").permutation(len(test))]
        ranks = self._ranks(embeddings, captions, space, pool)
        areas = self._areas(opened, train, test, space, pool, progress)

        cosines = pool.cosines(embeddings["brain"], space.centre)  # (n, m)
        nearest = pool.texts[np.argsort(-cosines, axis=1)[:, :_LISTED]]  # (n, 5)
        tables = {"nearest": _nearest_table(test, nearest, captions), "retrieval": ranks.retrieval}
        if areas:
            tables["areas"] = pd.concat(map(_area_table, areas), ignore_index=True)

        return WordsFindings(
            table=ranks.table,
            tables={name: table for name, table in tables.items() if len(table)},
            p=ranks.p,
            beaten=ranks.beaten,
            pictures=stimuli.resized(None, slice(0, min(N_PICTURED, len(stimuli)))),
            nearest=nearest[:, 0],
            captions=captions,
            areas=areas,
            n_pool=len(pool.texts),
            is_file=self.options.pool is not None,
            space=space.kind,
            n=len(test),
            fold=fold,
            n_folds_of_run=len(opened.folds),
        )

    # -- test pictures ---------------------------------------------------------------------------------------------

    def _ranks(
        self, embeddings: Mapping[str, np.ndarray], captions: Sequence[tuple[str, ...]], space: Space, pool: Pool
    ) -> _Ranks:
        """How the true caption ranks among those of the pool, and of all test pictures."""
        n = len(captions)
        flat: list[str] = []
        owners: list[int] = []  # the picture of each caption

        for picture, texts in enumerate(captions):
            flat.extend(texts)
            owners.extend([picture] * len(texts))

        owner = np.array(owners, dtype=int)  # (n_captions,)
        rows: list[tuple] = []
        sizes = []
        beaten = {}
        p = {}

        if not len(owner):
            return _Ranks(pd.DataFrame(rows, columns=list(COLUMNS)), {}, {}, pd.DataFrame())

        of_test = pool._replace(embeddings=pool.place(space.read_texts(flat)))
        gallery = pool._replace(embeddings=_mean_per_owner(of_test.embeddings, owner, n))

        for name, z in embeddings.items():
            of_pool = pool.cosines(z, space.centre)  # (n, m)
            of_captions = beaten_share(of_pool, of_test.cosines(z, space.centre))  # (n, n_captions)
            as_truth = _mean_of_pictures(of_captions, owner, n)  # (n, n)
            beaten[name] = np.diagonal(as_truth)

            # Pictures without a caption have no rank.
            ranked = np.isfinite(beaten[name])
            n_ranked = int(ranked.sum())
            rows.append((name, "beaten", *self._interval(beaten[name], name, "beaten"), n_ranked))
            scores = {"beaten": as_truth[np.ix_(ranked, ranked)]}
            similarity = gallery.cosines(z[ranked], space.centre)[:, ranked]  # (n_ranked, n_ranked)

            for k in (1, 5):
                curve = retrieval_curve(similarity, k=k)
                for point in curve:
                    sizes.append((name, k, point.size, point.accuracy, point.chance))

                if curve:
                    rows.append((name, f"top{k}", *self._interval(curve[-1].per_item, name, k), n_ranked))
                    scores[f"top{k}"] = share_in_top(similarity, k)

            if name == "brain":
                for measure, of_measure in scores.items():
                    p[measure] = permutation_null(of_measure, rng=self.rng("null", measure)).p

        table = pd.DataFrame(rows, columns=list(COLUMNS))
        retrieval = pd.DataFrame(sizes, columns=["input", "k", "gallery", "accuracy", "chance"])

        return _Ranks(table, beaten, p, retrieval)

    def _interval(self, values: np.ndarray, *purpose: object) -> Interval:
        return bootstrap(mean_of_items(values), len(values), rng=self.rng("interval", *map(str, purpose)))

    # -- areas -----------------------------------------------------------------------------------------------------

    def _areas(
        self, opened: Run, train: Trials, test: Trials, space: Space, pool: Pool, progress: Progress
    ) -> list[DescribedArea]:
        if self.options.rois == ():
            return []

        try:
            areas = targets(test, self.options.rois, self.options.sets)
        except ConfigError:
            if self.options.rois is not None or self.options.sets is not None:
                raise

            return []  # nobody asked for areas, and none is known by name

        few = test.take(np.arange(min(len(test), self.options.n_raised)))
        base = np.asarray(space.embed(few))  # (n, d)
        mean, std = moments(train)
        edit = Edit(mean, std, "raise", self.options.amount)
        described = []

        for area in progress.each(areas, "describing areas", unit="area"):
            described.append(self._describe(few, base, edit, space, pool, area))

        return described

    def _describe(
        self, few: Trials, base: np.ndarray, edit: Edit, space: Space, pool: Pool, area: StimulationTarget
    ) -> DescribedArea:
        """Raise an area and its random sets, and look up the captions nearest to what this adds."""
        matched = StandIns(area.voxels, few.noise_ceiling, few.n_voxels)
        sets = [area.voxels, *matched.draw(self.options.repeats, self.rng("sets", area.name))]
        shifts = []

        for part, trials in stimulated(few, sets, edit):
            block = np.asarray(space.embed(trials)).reshape(part.stop - part.start, len(few), -1)  # (n_sets, n, d)
            shifts.append((block - base).mean(axis=1, dtype=np.float64))

        shift = np.concatenate(shifts)  # (1 + repeats, d), the area first
        cosines, null = caption_cosines(shift[0], shift[1:], pool)
        order = np.argsort(-cosines)

        # The best caption of the area against the best of each random set, which had as many to choose among.
        null_best = null.max(axis=1)  # (repeats,)
        p = float((1 + np.sum(null_best >= cosines.max() - 1e-7)) / (len(null_best) + 1))

        own = None
        for category in area.categories:
            if category in set(pool.categories):
                own = category
                break

        share = float("nan")
        p_own = float("nan")

        if own is not None:
            k = min(NEAREST, len(order))
            share = float((pool.categories[order[:k]] == own).mean())
            nearest = np.argpartition(-null, k - 1, axis=1)[:, :k]  # (repeats, k)
            random = (pool.categories[nearest] == own).mean(axis=1)
            p_own = float((1 + np.sum(random >= share - 1e-9)) / (len(random) + 1))

        best = order[:NEAREST]
        return DescribedArea(
            target=area,
            captions=pool.texts[best],
            categories=pool.categories[best],
            cosines=cosines[best],
            null_best=null_best,
            p=p,
            own=own,
            share=share,
            p_own=p_own,
        )


# -- numbers -----------------------------------------------------------------------------------------------------------


def true_captions(stimuli: Stimuli, nouns: Mapping[str, str] | None = None) -> list[tuple[str, ...]]:
    """Captions of every picture; sentences that name its category where the data set has no captions; none otherwise."""
    if stimuli.captions is not None:
        return [tuple(texts) for texts in stimuli.captions]

    if stimuli.category is None:
        return [()] * len(stimuli)

    texts = category_texts(sorted(set(stimuli.category) - {""}), TEMPLATES, nouns)
    captions = []
    for category in stimuli.category:
        captions.append(tuple(texts.get(category, ())))

    return captions


def beaten_share(pool: np.ndarray, captions: np.ndarray) -> np.ndarray:
    """Share of a pool's captions that are farther away than a caption, ties counting one half.

    Parameters
    ----------
    pool : ndarray of shape (n, m)
        cosine of every embedding with the pool
    captions : ndarray of shape (n, c)
        cosine with other captions

    Returns
    -------
    ndarray of shape (n, c)
        0 to 1; 1/2 is chance

    Examples
    --------
    >>> beaten_share(np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0.35, 0.2]]))
    array([[0.75 , 0.375]])
    """
    share = np.empty(captions.shape)
    low, high = bounds(captions, grain_of(pool))

    for i, row in enumerate(np.sort(pool, axis=1)):
        n_below = np.searchsorted(row, low[i], "left")  # (c,)
        n_not_above = np.searchsorted(row, high[i], "right")  # (c,), ties among them
        share[i] = (n_below + n_not_above) / (2 * len(row))

    return share


def caption_cosines(shift: np.ndarray, null: np.ndarray, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """How near captions are to what an area drives beyond random voxels, and to what random voxels drive beyond the others.

    Parameters
    ----------
    shift : ndarray of shape (d,)
        mean change of the embedding by the area
    null : ndarray of shape (repeats, d)
        mean changes by random sets
    pool : Pool
        m captions

    Returns
    -------
    tuple of (ndarray, ndarray)
        (m,) and (repeats, m) cosines, -1 to 1. The largest of the first against the largest of each row of the second pays for
        choosing among captions, as random sets choose as well.
    """
    others = (null.sum(axis=0) - null) / (len(null) - 1)  # (repeats, d), mean over all other sets
    beyond = shift - null.mean(axis=0)  # (d,)
    return pool.cosines(beyond[None], 0.0)[0], pool.cosines(null - others, 0.0)


def _mean_per_owner(embeddings: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    """(n, d) mean over the captions of each picture; 0 where it has none."""
    total = np.zeros((n, embeddings.shape[1]))
    np.add.at(total, owner, embeddings)
    return total / np.maximum(np.bincount(owner, minlength=n), 1)[:, None]


def _mean_of_pictures(of_captions: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    """(n, n) mean over the captions of each picture, NaN where it has none."""
    columns = []
    for picture in range(n):
        is_own = owner == picture
        if is_own.any():
            columns.append(np.nanmean(of_captions[:, is_own], axis=1))
        else:
            columns.append(np.full(n, np.nan))

    return np.stack(columns, axis=1)


def _nearest_table(test: Trials, nearest: np.ndarray, captions: Sequence[tuple[str, ...]]) -> pd.DataFrame:
    rows = []
    for stimulus, texts, true in zip(test.stimuli, nearest, captions, strict=True):
        for i, text in enumerate(texts):
            rows.append((stimulus, i + 1, text, " | ".join(true)))

    return pd.DataFrame(rows, columns=["stimulus", "rank", "caption", "true"])


def _area_table(area: DescribedArea) -> pd.DataFrame:
    columns = {
        "target": area.target.name,
        "rank": np.arange(1, len(area.captions) + 1),
        "caption": area.captions,
        "category": area.categories,
        "cosine": area.cosines,
        "random_95": np.quantile(area.null_best, 0.95),
        "p": area.p,
        "own": area.own or "",
        "own_share": area.share,
        "p_own": area.p_own,
    }
    return pd.DataFrame(columns)
