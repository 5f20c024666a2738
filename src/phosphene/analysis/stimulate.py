"""Stimulate: voxels of an area are raised, silenced or scaled before decoding; what changes, compared with random voxels?

    betas of a test response -> + amount SD in the area's voxels -> decode -> less what the untouched response gives

Any change of so many voxels moves what is decoded. So everything stands against random voxel sets of equal size, drawn
from the other voxels with the same distribution of noise ceilings. Nothing is fitted here: a decoder learned elsewhere
is asked what it would have decoded, which is a statement about the decoder, and about the brain only as far as the
decoder is right.

Paper: Lin et al. 2022 (Mind Reader), section 3.3, "microstimulation": localiser areas set to 10, levels of the hierarchy
to 0, judged by eye. Adding a moderate amount, the random sets and the tests are ours; ``mode=set`` is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from phosphene.analysis.effects import (
    LEVEL,
    CategoryScores,
    Effect,
    category_table,
    consistency,
    dimension_p,
    own_category,
    share_of_category,
)
from phosphene.analysis.interface import COLUMNS, Analysis, Findings, chosen_folds
from phosphene.analysis.region_targets import (
    AMOUNTS,
    PRESETS,
    Edit,
    Mode,
    StandIns,
    StimulationTarget,
    category_contrast,
    moments,
    stimulated,
    targets,
)
from phosphene.analysis.spaces import Pool, Space, SpaceKind, answer_space, pool_of
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.statistics import Interval, bootstrap, mean_of_items
from phosphene.metrics.ties import first_best
from phosphene.recipes.base import Recipe
from phosphene.run import Run
from phosphene.types import Trials


class StimulateOptions(Config):
    """What is done to which voxels."""

    rois: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="faces, bodies, words, places, early, intermediate, late, or ROI expressions such as FFA+OFA; all of "
        "these that the subject has",
    )
    sets: str | None = Field(default=None, description="file (.npz) of voxel sets by name, each a mask or positions")
    mode: Mode | None = Field(
        default=None, description="raise, set, silence or scale; by default levels are silenced and all else is raised"
    )
    amount: float | None = Field(
        default=None,
        description="SD of each voxel's training responses, or the factor of scale; raise 2, set 10, scale 2",
    )
    direction: Literal["up", "contrast"] = Field(
        default="up", description="all voxels up, or each along its own response to the area's category"
    )
    n: int | None = Field(default=None, ge=2, description="test responses; all, at most 100")
    repeats: int = Field(default=200, ge=20, le=100_000, description="random voxel sets")
    pictures: int = Field(default=8, ge=0, le=16, description="test responses whose pictures are drawn")
    captions: int = Field(default=2000, ge=0, description="most captions to read changes with; 0 for none")
    fold: int = Field(default=0, ge=0, description="which fold")

    @model_validator(mode="after")
    def _amount_fits(self) -> StimulateOptions:
        if self.mode == "silence" and self.amount:
            raise ValueError("silence puts voxels at their mean and takes no amount; use mode=set or leave amount out")

        if self.direction == "contrast" and self.mode in ("silence", "scale"):
            raise ValueError(f"mode '{self.mode}' has no direction; use mode=raise or mode=set with direction=contrast")

        return self


@dataclass(frozen=True, eq=False)
class OwnRise:
    """How much the own category of one target rises when it is stimulated.

    Attributes
    ----------
    effect : Effect
        of the target
    interval : Interval
        mean rise of the centred cosine over responses, with its bounds
    null : ndarray of shape (repeats,)
        mean rise under each random set
    heights : ndarray of shape (repeats,)
        random, -0.24 to 0.24: where each random set is drawn within the row of the target
    """

    effect: Effect
    interval: Interval
    null: np.ndarray
    heights: np.ndarray


@dataclass(frozen=True, eq=False)
class StimulatedPictures:
    """Pictures before and after; each ndarray is (n, h, w, c), 0-1.

    Attributes
    ----------
    true, decoded, random : ndarray
        seen; decoded from the untouched responses; with random voxels stimulated
    stimulated : mapping of str to ndarray
        target to what is decoded with it stimulated
    """

    true: np.ndarray
    decoded: np.ndarray
    stimulated: Mapping[str, np.ndarray]
    random: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class StimulateFindings(Findings):
    """What stimulated areas bring forth, compared with random voxels.

    Attributes
    ----------
    effects : sequence of Effect
        one per target
    rising : sequence of str
        targets whose own category rises beyond random voxels
    categories : tuple of str
        of the space; none where it has none
    rises : sequence of OwnRise
        of the targets that have an own category
    nearest_captions : mapping of str to sequence of str
        target with an own category to the two captions nearest to what it drives beyond random voxels
    pictures : StimulatedPictures or None
        where any were asked for
    space : SpaceKind
        what responses are read in
    direction : {"up", "contrast"}
        which way voxels were moved
    repeats : int
        random voxel sets
    has_ceiling : bool
        whether noise ceilings are known
    n : int
        test responses
    fold, n_folds_of_run : int
        which fold, and folds there are
    """

    effects: Sequence[Effect]
    rising: Sequence[str]
    categories: tuple[str, ...]
    rises: Sequence[OwnRise]
    nearest_captions: Mapping[str, Sequence[str]]
    pictures: StimulatedPictures | None
    space: SpaceKind
    direction: Literal["up", "contrast"]
    repeats: int
    has_ceiling: bool
    n: int
    fold: int
    n_folds_of_run: int


class Stimulate(Analysis[StimulateOptions]):
    """Change the voxels of areas before decoding, and compare with random voxels."""

    name = "stimulate"
    title = "Stimulated areas"
    options_class = StimulateOptions

    def run(self, opened: Run, progress: Progress) -> StimulateFindings:
        """Change voxels, decode again, compare with random voxels.

        Parameters
        ----------
        opened : Run
            a fitted run
        progress : Progress
            where progress is shown

        Returns
        -------
        StimulateFindings
            tables, and the facts that sentences and figures are made of
        """
        fold = self.options.fold
        chosen_folds(opened, fold)
        recipe = opened.recipe(fold)
        train, test = opened.sides(fold)
        test = self._some(test.average_repeats())

        areas = targets(test, self.options.rois, self.options.sets)
        preferred = []
        for preset in PRESETS:
            if preset.categories:
                preferred.append(preset.categories[0])

        space = answer_space(opened, recipe, train, preferred)
        pool = None
        if space.read is not None and self.options.captions:
            pool = pool_of(opened, train, space, most=self.options.captions, rng=self.rng("captions"))

        edits = self._edits(opened, train, areas, space)
        base = space.embed(test)  # (n, d)
        effects = []
        for area, edit in progress.each(list(zip(areas, edits, strict=True)), "stimulating"):
            effects.append(self._effect(space, test, base, area, edit))

        table = self._table(effects, base, space, pool)

        return StimulateFindings(
            table=table,
            tables=self._tables(effects, base, space, pool, test),
            effects=effects,
            rising=_rising(effects, table),
            categories=() if space.candidates is None else space.candidates.names,
            rises=self._rises(effects, space),
            nearest_captions=_nearest_captions(effects, pool),
            pictures=self._pictures(opened, recipe, test, effects),
            space=space.kind,
            direction=self.options.direction,
            repeats=self.options.repeats,
            has_ceiling=test.noise_ceiling is not None,
            n=len(base),
            fold=fold,
            n_folds_of_run=len(opened.folds),
        )

    # -- stimulating -----------------------------------------------------------------------------------------------

    def _some(self, test: Trials) -> Trials:
        n = min(len(test), self.options.n or 100)
        if n == len(test):
            return test

        return test.take(np.sort(self.rng("test").permutation(len(test))[:n]))

    def _edits(self, opened: Run, train: Trials, areas: list[StimulationTarget], space: Space) -> list[Edit]:
        """What is done to the voxels of each target."""
        mean, std = moments(train)
        averaged = None
        category = None
        edits = []

        for area in areas:
            mode: Mode
            if self.options.mode is not None:
                mode = self.options.mode
            elif area.is_level:
                mode = "silence"
            else:
                mode = "raise"

            amount = self.options.amount
            if amount is None:
                amount = AMOUNTS[mode]

            pattern = None
            own = own_category(area, space)
            if self.options.direction == "contrast" and own is not None and mode in ("raise", "set"):
                # Read once, and only when a target asks: averaging holds all training responses in memory.
                if averaged is None:
                    averaged = train.average_repeats()
                    category = opened.stimuli.select(averaged.stimuli).category

                if category is not None and own in set(category):
                    pattern = category_contrast(averaged, category, own, std)

            edits.append(Edit(mean, std, mode, amount, pattern))

        return edits

    def _effect(self, space: Space, test: Trials, base: np.ndarray, area: StimulationTarget, edit: Edit) -> Effect:
        """Stimulate a target and its random sets in all responses."""
        matched = StandIns(area.voxels, test.noise_ceiling, test.n_voxels)
        sets = [area.voxels, *matched.draw(self.options.repeats, self.rng("sets", area.name))]
        n = len(test)
        shifts = []
        scores = []
        embeddings = None

        for part, trials in stimulated(test, sets, edit):
            block = space.embed(trials).reshape(part.stop - part.start, n, -1)  # (n_sets, n, d)
            if embeddings is None:
                embeddings = block[0].astype(np.float64)  # (n, d), the target's

            # Means are kept and embeddings are not: hundreds of random sets of all responses may not fit into memory.
            shifts.append((block - base).mean(axis=1, dtype=np.float64))  # (n_sets, d)
            if space.candidates is not None:
                flat = space.scores(block.reshape(-1, block.shape[2]))  # (n_sets * n, k)
                scores.append(flat.reshape(len(block), n, -1))

        assert embeddings is not None
        shift = np.concatenate(shifts)  # (1 + repeats, d), the target first
        length = np.linalg.norm(shift, axis=1)
        p_shift = float((1 + np.sum(length[1:] >= length[0] - 1e-12)) / len(length))

        of_categories = None
        if scores:
            score = np.concatenate(scores)  # (1 + repeats, n, k)
            of_categories = CategoryScores(space.scores(base), score[0], score[1:])

        return Effect(
            target=area,
            edit=edit,
            matched=matched,
            own=own_category(area, space),
            shift=shift[0],
            null_shift=shift[1:],
            p_dimensions=dimension_p(shift[0], shift[1:]),
            p_shift=p_shift,
            consistency=consistency(embeddings - base),
            scores=of_categories,
            embeddings=embeddings,
        )

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _table(self, effects: list[Effect], base: np.ndarray, space: Space, pool: Pool | None) -> pd.DataFrame:
        rows: list[tuple] = []
        n = len(base)

        for effect in effects:
            name = effect.target.name
            measures = self._own_category(effect, base, space, pool)

            random = np.linalg.norm(effect.null_shift, axis=1)  # (repeats,)
            ratio = np.linalg.norm(effect.shift) / max(float(random.mean()), 1e-12)
            measures |= {
                "shift": _without_bounds(float(ratio)),
                "shift_p": _without_bounds(effect.p_shift),
                "dimensions": _without_bounds(float((effect.p_dimensions < LEVEL).mean())),
                "consistency": _without_bounds(effect.consistency),
                "voxels": _without_bounds(float(len(effect.target.voxels))),
            }
            for measure, interval in measures.items():
                rows.append((name, measure, *interval, n))

        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _own_category(self, effect: Effect, base: np.ndarray, space: Space, pool: Pool | None) -> dict[str, Interval]:
        """Rise and naming of the category that a target ought to bring forth; nothing where there is none."""
        if effect.own is None or effect.scores is None or space.candidates is None:
            return {}

        name = effect.target.name
        scores = effect.scores
        n = len(base)
        column = space.candidates.names.index(effect.own)
        rise = bootstrap(mean_of_items(scores.excess[:, column]), n, rng=self.rng("rise", name))
        measures = {"own_rise": rise, "own_p": _without_bounds(float(scores.p_rise()[column]))}

        for measure, score in (("named_before", scores.before), ("named_after", scores.after)):
            is_named = (first_best(score) == column).astype(float)  # (n,)
            measures[measure] = bootstrap(mean_of_items(is_named), n, rng=self.rng(measure, name))

        measures["named_random"] = _without_bounds(float((first_best(scores.null_after) == column).mean()))

        if pool is not None and effect.own in set(pool.categories):
            for measure, embeddings in (("captions_before", base), ("captions_after", effect.embeddings)):
                share = share_of_category(pool, embeddings, space, effect.own)
                measures[measure] = bootstrap(mean_of_items(share), n, rng=self.rng(measure, name))

        return measures

    def _tables(
        self, effects: list[Effect], base: np.ndarray, space: Space, pool: Pool | None, test: Trials
    ) -> dict[str, pd.DataFrame]:
        parts = []
        for effect in effects:
            columns = {
                "target": effect.target.name,
                "dimension": np.arange(len(effect.shift)),
                "shift": effect.shift,
                "null_mean": effect.null_shift.mean(axis=0),
                "null_sd": effect.null_shift.std(axis=0, ddof=1),
                "p_fdr": effect.p_dimensions,
            }
            parts.append(pd.DataFrame(columns))

        tables = {"dimensions": pd.concat(parts, ignore_index=True)}
        if space.candidates is not None:
            tables["categories"] = category_table(effects, space.candidates.names)

        if pool is not None:
            rows = []
            before = pool.texts[pool.cosines(base, space.centre).argmax(axis=1)]

            for effect in effects:
                after = pool.texts[pool.cosines(effect.embeddings, space.centre).argmax(axis=1)]
                for stimulus, first, second in zip(test.stimuli, before, after, strict=True):
                    rows.append((effect.target.name, stimulus, first, second))

            tables["captions"] = pd.DataFrame(rows, columns=["target", "stimulus", "before", "after"])

        return tables

    def _rises(self, effects: list[Effect], space: Space) -> list[OwnRise]:
        rng = self.rng("figure")
        rises = []

        for effect in effects:
            if effect.own is None or effect.scores is None or space.candidates is None:
                continue

            column = space.candidates.names.index(effect.own)
            values = (effect.scores.after - effect.scores.before)[:, column]  # (n,)
            null = effect.scores.null_rise[:, column]  # (repeats,)
            heights = rng.uniform(-0.24, 0.24, len(null))
            interval = bootstrap(mean_of_items(values), len(values), rng=rng)
            rises.append(OwnRise(effect, interval, null, heights))

        return rises

    def _pictures(self, opened: Run, recipe: Recipe, test: Trials, effects: list[Effect]) -> StimulatedPictures | None:
        if not self.options.pictures:
            return None

        few = test.take(np.arange(min(self.options.pictures, len(test))))

        def decoded_with(voxels: np.ndarray, edit: Edit) -> np.ndarray:
            _, trials = next(stimulated(few, [voxels], edit))
            return recipe.decode(trials).clipped()

        after = {}
        for effect in effects:
            after[effect.target.name] = decoded_with(effect.target.voxels, effect.edit)

        # One random set, of the size of the first target, is shown for comparison with all of them.
        first = effects[0]
        (voxels,) = first.matched.draw(1, self.rng("picture"))
        random = decoded_with(voxels, first.edit)
        true = opened.stimuli.select(few.stimuli).resized(recipe.image_shape_[:2])

        return StimulatedPictures(true, recipe.decode(few).clipped(), after, random)


def _rising(effects: Sequence[Effect], table: pd.DataFrame) -> list[str]:
    """Targets whose own category rises beyond random voxels, in the test and in every response's interval."""
    rows = table.set_index(["input", "measure"])
    rising = []

    for effect in effects:
        name = effect.target.name
        if (name, "own_p") not in rows.index:
            continue

        if rows.loc[(name, "own_p"), "value"] < LEVEL and rows.loc[(name, "own_rise"), "ci_low"] > 0:
            rising.append(name)

    return rising


def _nearest_captions(effects: Sequence[Effect], pool: Pool | None) -> dict[str, list[str]]:
    """The two captions nearest to what a target drives beyond random voxels."""
    if pool is None:
        return {}

    nearest = {}
    for effect in effects:
        if effect.own is not None:
            beyond = effect.shift - effect.null_shift.mean(axis=0)  # (d,)
            order = np.argsort(-pool.cosines(beyond[None], 0.0)[0])
            nearest[effect.target.name] = list(pool.texts[order[:2]])

    return nearest


def _without_bounds(value: float) -> Interval:
    return Interval(value, float("nan"), float("nan"))
