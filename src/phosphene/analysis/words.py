"""Words: what does a response read like, and which words describe an area?

    response -> decode -> embedding, less the mean training picture -> nearest captions, less the mean caption

For test pictures the true caption has a rank among the captions of a pool, and a place among the captions of all test
pictures. For an area, its voxels are raised in test responses; what this adds to the embedding beyond what random voxels of
equal size add is a direction, and the captions nearest to it say what the area stands for to the decoder.

Paper: Lin et al. 2022 (Mind Reader), future work: "text out" for voxels; ranks and nulls are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analysis.base import COLUMNS, Analysis, Drawing, Findings, chosen_folds
from phosphene.analysis.spaces import Pool, Space, pool_of, reading_space
from phosphene.analysis.targets import Edit, StandIns, StimulationTarget, moments, stimulated, targets
from phosphene.errors import ConfigError, DataError
from phosphene.features.prompts import TEMPLATES, category_texts
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.retrieval import retrieval_curve
from phosphene.metrics.statistics import bootstrap, mean_of_items, permutation_null
from phosphene.metrics.ties import bounds, grain_of
from phosphene.metrics.zero_shot import share_in_top
from phosphene.reporting.words_figures import described, ranks_figure, read_figure
from phosphene.run import Run
from phosphene.types import Stimuli, Trials

INPUTS = {"truth": "true pictures", "brain": "brain", "shuffled": "shuffled pairing"}
LEVEL = 0.05
_SHOWN = 8
_LISTED = 5
_NEAREST = 10


class WordsOptions(Config):
    """What is read, and with which texts."""

    pool: str | None = Field(
        None,
        description="text file, a caption a line; the captions of the training pictures and category names by default",
    )
    n: int | None = Field(None, ge=3, description="test responses; all by default")
    rois: tuple[str, ...] | None = Field(
        None, description="areas to describe, as for stimulate; those known by name by default, none for []"
    )
    sets: str | None = Field(None, description="file (.npz) of voxel sets by name, each a mask or positions")
    amount: float = Field(2.0, gt=0, description="SD of each voxel's training responses by which an area is raised")
    n_raised: int = Field(20, ge=2, description="test responses in which areas are raised")
    repeats: int = Field(200, ge=20, le=100_000, description="random voxel sets")
    fold: int = Field(0, ge=0, description="which fold")


@dataclass(frozen=True)
class Described:
    """An area in words.

    Attributes
    ----------
    target : StimulationTarget
        which
    order : ndarray
        captions of the pool, nearest first
    cosines : ndarray of shape (m,)
        of each caption with what the area drives beyond random voxels
    null_best : ndarray of shape (repeats,)
        cosine of the caption nearest to what each random set drives beyond the others
    p : float
        of a random set having a caption as near
    own : str or None
        the category it ought to stand for, in the words of the pool; None where there is none
    share, p_own : float
        share of the ten nearest captions that describe training pictures of it, and p of a random set having as many
    """

    target: StimulationTarget
    order: np.ndarray
    cosines: np.ndarray
    null_best: np.ndarray
    p: float
    own: str | None
    share: float
    p_own: float


class Words(Analysis[WordsOptions]):
    """See the top of this file."""

    name = "words"
    title = "Read in words"
    options_class = WordsOptions

    def run(self, opened: Run, progress: Progress) -> Findings:
        """Rank captions of test pictures, describe areas."""
        chosen_folds(opened, self.options.fold)
        recipe = opened.recipe(self.options.fold)
        train, test = opened.sides(self.options.fold)
        test = test.average_repeats()

        if self.options.n is not None and self.options.n < len(test):
            test = test.take(np.sort(self.rng("test").permutation(len(test))[: self.options.n]))

        if len(test) < 3:
            raise DataError(f"three test responses or more are needed to rank their captions; there are {len(test)}.")

        stimuli = opened.stimuli.select(test.stimuli)
        space = reading_space(opened, recipe, train)
        own = true_captions(stimuli, opened.dataset.nouns)
        every = [text for texts in own for text in texts]

        with progress.step("reading captions"):
            pool = pool_of(
                opened, train, space, file=self.options.pool, without=dict.fromkeys(every), rng=self.rng("pool")
            )

        embeddings = {"truth": np.asarray(space.see(stimuli)), "brain": np.asarray(space.embed(test))}
        embeddings["shuffled"] = embeddings["brain"][self.rng("shuffled").permutation(len(test))]
        table, curves, ps, retrieval = self._ranks(embeddings, own, space, pool)
        areas = self._areas(opened, train, test, space, pool, progress)
        nearest = pool.texts[np.argsort(-pool.cosines(embeddings["brain"], space.centre), axis=1)[:, :_LISTED]]
        figures: dict[str, Drawing] = {
            "captions": read_figure(stimuli, nearest[:, 0], own, _SHOWN),
        }

        if curves:
            figures["ranks"] = ranks_figure(curves, INPUTS, len(pool.texts))

        if areas:
            figures["areas"] = described(
                [
                    (a.target.words, str(pool.texts[a.order[0]]), float(a.cosines[a.order[0]]), a.null_best, a.p)
                    for a in areas
                ]
            )

        tables = {"nearest": _listed(test, nearest, own), "retrieval": retrieval}
        if areas:
            tables["areas"] = pd.concat([_area_rows(a, pool) for a in areas], ignore_index=True)

        return Findings(
            _sentences(opened, self.options, table, ps, areas, pool, space, len(test)),
            table, INPUTS, MEASURES, figures=figures, tables={k: v for k, v in tables.items() if len(v)}, notes=_NOTES,
        )  # fmt: skip

    # -- test pictures ---------------------------------------------------------------------------------------------

    def _ranks(
        self, embeddings: dict[str, np.ndarray], own: list[tuple[str, ...]], space: Space, pool: Pool
    ) -> tuple[pd.DataFrame, dict[str, np.ndarray], dict[str, float], pd.DataFrame]:
        rows = []
        curves = {}
        ps = {}
        sizes = []
        n = len(own)
        owner = np.repeat(np.arange(n), [len(texts) for texts in own])

        if not len(owner):
            return pd.DataFrame(rows, columns=list(COLUMNS)), {}, {}, pd.DataFrame()

        flat = [text for texts in own for text in texts]
        captions = pool._replace(embeddings=pool.place(space.read(flat)))
        gallery = pool._replace(embeddings=_by_owner(captions.embeddings, owner, n))

        for name, z in embeddings.items():
            beaten = beaten_share(pool.cosines(z, space.centre), captions.cosines(z, space.centre))
            as_truth = np.stack([np.nanmean(beaten[:, owner == j], axis=1) if (owner == j).any() else np.full(n, np.nan)
                                 for j in range(n)], axis=1)  # fmt: skip
            curves[name] = np.diagonal(as_truth)
            kept = np.isfinite(curves[name])
            rows.append((name, "beaten", *self._interval(curves[name], name, "beaten"), int(kept.sum())))
            scores = {"beaten": as_truth[np.ix_(kept, kept)]}
            similarity = gallery.cosines(z[kept], space.centre)[:, kept]

            for k in (1, 5):
                curve = retrieval_curve(similarity, k=k)
                sizes += [(name, k, r.size, r.accuracy, r.chance) for r in curve]
                if curve:
                    rows.append((name, f"top{k}", *self._interval(curve[-1].per_item, name, k), int(kept.sum())))
                    scores[f"top{k}"] = share_in_top(similarity, k)

            if name == "brain":
                ps = {m: permutation_null(s, rng=self.rng("null", m)).p for m, s in scores.items()}

        retrieval = pd.DataFrame(sizes, columns=["input", "k", "gallery", "accuracy", "chance"])
        return pd.DataFrame(rows, columns=list(COLUMNS)), curves, ps, retrieval

    def _interval(self, values: np.ndarray, *purpose: object) -> tuple[float, float, float]:
        return bootstrap(mean_of_items(values), len(values), rng=self.rng("interval", *map(str, purpose)))

    # -- areas -----------------------------------------------------------------------------------------------------

    def _areas(
        self, opened: Run, train: Trials, test: Trials, space: Space, pool: Pool, progress: Progress
    ) -> list[Described]:
        if self.options.rois == ():
            return []

        try:
            aims = targets(test, self.options.rois, self.options.sets)
        except ConfigError:
            if self.options.rois is not None or self.options.sets is not None:
                raise

            return []

        few = test.take(np.arange(min(len(test), self.options.n_raised)))
        base = np.asarray(space.embed(few))
        edit = Edit(*moments(train), "raise", self.options.amount)
        one = partial(self._area, few, base, edit, space, pool)

        return [one(aim) for aim in progress.each(aims, "describing areas", unit="area")]

    def _area(
        self, few: Trials, base: np.ndarray, edit: Edit, space: Space, pool: Pool, aim: StimulationTarget
    ) -> Described:
        matched = StandIns(aim.voxels, few.noise_ceiling, few.n_voxels)
        sets = [aim.voxels, *matched.draw(self.options.repeats, self.rng("sets", aim.name))]
        shifts = []

        for part, trials in stimulated(few, sets, edit):
            found = np.asarray(space.embed(trials)).reshape(part.stop - part.start, len(few), -1)
            shifts.append((found - base).mean(axis=1, dtype=np.float64))

        shift = np.concatenate(shifts)
        cosines, null = caption_cosines(shift[0], shift[1:], pool)
        order = np.argsort(-cosines)
        best = null.max(axis=1)
        p = float((1 + np.sum(best >= cosines.max() - 1e-7)) / (len(best) + 1))
        own = next((c for c in aim.categories if c in set(pool.categories)), None)
        share = float("nan")
        p_own = float("nan")

        if own is not None:
            k = min(_NEAREST, len(order))
            share = float((pool.categories[order[:k]] == own).mean())
            random = (pool.categories[np.argpartition(-null, k - 1, axis=1)[:, :k]] == own).mean(axis=1)
            p_own = float((1 + np.sum(random >= share - 1e-9)) / (len(random) + 1))

        return Described(aim, order, cosines, best, p, own, share, p_own)


# -- numbers -----------------------------------------------------------------------------------------------------------


def true_captions(stimuli: Stimuli, nouns: Mapping[str, str] | None = None) -> list[tuple[str, ...]]:
    """Captions of every picture; sentences that name its category where the data set has no captions; none otherwise.

    Parameters
    ----------
    stimuli : Stimuli
        n pictures
    nouns : mapping of {str: str}, optional
        what categories are called in a text, as ``Dataset.nouns`` has it

    Returns
    -------
    list of tuple of str
        n times the captions of one picture
    """
    if stimuli.captions is not None:
        return [tuple(texts) for texts in stimuli.captions]
    if stimuli.category is None:
        return [()] * len(stimuli)

    texts = category_texts(sorted(set(stimuli.category) - {""}), TEMPLATES, nouns)
    return [tuple(texts.get(c, ())) for c in stimuli.category]


def beaten_share(pool: np.ndarray, captions: np.ndarray) -> np.ndarray:
    """Share of a pool's captions that are farther away than a caption, ties counting one half.

    Parameters
    ----------
    pool : ndarray of shape (n, m)
        cosine of every embedding with the pool
    captions : ndarray
        (n, c) and with other captions

    Returns
    -------
    ndarray of shape (n, c)
        0 to 1; 1/2 is chance

    Examples
    --------
    >>> beaten_share(np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0.35, 0.2]]))
    array([[0.75 , 0.375]])
    """
    out = np.empty(captions.shape)
    low, high = bounds(captions, grain_of(pool))

    for i, row in enumerate(np.sort(pool, axis=1)):
        out[i] = (np.searchsorted(row, low[i], "left") + np.searchsorted(row, high[i], "right")) / (2 * len(row))

    return out


def caption_cosines(shift: np.ndarray, null: np.ndarray, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """How near captions are to what an area drives beyond random voxels, and to what random voxels drive beyond the others.

    Parameters
    ----------
    shift, null : ndarray
        (d,) and (repeats, d) mean changes of the embedding
    pool : Pool
        m captions

    Returns
    -------
    tuple of (ndarray, ndarray)
        (m,) and (repeats, m) cosines. The largest of the first against the largest of each row of the second pays for
        choosing among captions, as random sets choose as well.
    """
    others = (null.sum(axis=0) - null) / (len(null) - 1)
    return pool.cosines((shift - null.mean(axis=0))[None], 0.0)[0], pool.cosines(null - others, 0.0)


def _by_owner(embeddings: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    """(n, d) mean over the captions of each picture; 0 where it has none."""
    out = np.zeros((n, embeddings.shape[1]))
    np.add.at(out, owner, embeddings)
    return out / np.maximum(np.bincount(owner, minlength=n), 1)[:, None]


def _listed(test: Trials, nearest: np.ndarray, own: list[tuple[str, ...]]) -> pd.DataFrame:
    rows = [
        (s, rank + 1, text, " | ".join(true))
        for s, texts, true in zip(test.stimuli, nearest, own, strict=True)
        for rank, text in enumerate(texts)
    ]

    return pd.DataFrame(rows, columns=["stimulus", "rank", "caption", "true"])


def _area_rows(a: Described, pool: Pool) -> pd.DataFrame:
    best = a.order[:_NEAREST]
    return pd.DataFrame({
        "target": a.target.name, "rank": np.arange(1, len(best) + 1), "caption": pool.texts[best],
        "category": pool.categories[best], "cosine": a.cosines[best],
        "random_95": np.quantile(a.null_best, 0.95), "p": a.p, "own": a.own or "", "own_share": a.share, "p_own": a.p_own,
    })  # fmt: skip


# -- words -------------------------------------------------------------------------------------------------------------

MEASURES = {
    "beaten": "True caption nearer than one of the pool",
    "top1": "Own caption found among all test captions",
    "top5": "Own caption among the five nearest",
}
_NOTES = {
    "beaten": "Share of the pool's captions that the true caption beats, ties one half; 0.5 is chance.",
    "top1": "Exact; each picture's captions together make one candidate. Chance is one over the number of pictures.",
}


def _sentences(
    opened: Run, options: WordsOptions, table: pd.DataFrame, ps: dict[str, float], areas: list[Described],
    pool: Pool, space: Space, n: int,
) -> list[str]:  # fmt: skip
    rows = table.set_index(["input", "measure"])

    def say(name: str, measure: str) -> str:
        row = rows.loc[(name, measure)]
        if np.isfinite(row["ci_low"]):
            bounds = f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        else:
            bounds = ""

        return f"{row['value']:.3f}{bounds}"

    sentences = []
    if ("brain", "beaten") in rows.index:
        p = ps["beaten"]
        value = rows.loc[("brain", "beaten"), "value"]

        if p < LEVEL and value > 0.5:
            above = "above"
        else:
            above = "not above"

        sentences.append(
            f"Decoded responses read {above} chance: the true caption beats {say('brain', 'beaten')} of {len(pool.texts)} others "
            f"(chance 0.5, p = {p:.2g}; read from the true pictures {say('truth', 'beaten')}, pairing shuffled "
            f"{say('shuffled', 'beaten')})."
        )

        for k in (1, 5):
            if ("brain", f"top{k}") in rows.index:
                count = int(rows.loc[("brain", f"top{k}"), "n"])
                sentences.append(
                    f"Top-{k} among the captions of {count} test pictures: {say('brain', f'top{k}')} (chance {k / count:.3f}, "
                    f"p = {ps[f'top{k}']:.2g}; true pictures {say('truth', f'top{k}')})."
                )
    else:
        sentences.append(
            "The test pictures have neither captions nor categories, so how well they are read is not known."
        )

    for a in areas:
        category = ""
        if a.own is not None:
            if a.p_own < LEVEL:
                more = "more than of random voxels"
            else:
                more = "not clearly more than of random voxels"

            category = (
                f"{round(100 * a.share)} % of the nearest {_NEAREST} are of '{a.own}', {more} (p = {a.p_own:.2g}); "
            )

        if a.p < LEVEL:
            near = "nearer than any of random voxels'"
        else:
            near = "no nearer than captions come to random voxels'"

        sentences.append(
            f"What {a.target.words} ({', '.join(a.target.rois) or 'voxel set'}) drive reads most like "
            f"“{pool.texts[a.order[0]]}”: {category}its cosine of {a.cosines[a.order[0]]:.2f} is {near} (median "
            f"{np.median(a.null_best):.2f}, p = {a.p:.2g})."
        )

    if options.pool is None:
        source = "captions of the training pictures and category names"
    else:
        source = "captions of the file given"

    sentences.append(
        f"Read in {space.words}, with {len(pool.texts)} {source}, none of them of a test picture; {n} test responses "
        f"of {'the only fold' if len(opened.folds) == 1 else f'fold {options.fold}'}. Pictures and captions are each "
        "taken relative to their training mean."
    )

    return sentences
