"""Stimulate: voxels of an area are raised, silenced or scaled before decoding; what changes, beside random voxels?

    betas of a test response -> + amount SD in the area's voxels -> decode -> less what the untouched response gives

Any change of so many voxels moves what is decoded. So everything stands against random voxel sets of equal size, drawn
from the other voxels with the same distribution of noise ceilings. Nothing is fitted here: a decoder learned elsewhere
is asked what it would have decoded, which is a statement about the decoder, and about the brain only as far as the
decoder is right.

Paper: Lin et al. 2022 (Mind Reader), section 3.3, "microstimulation": localiser areas set to 10, levels of the hierarchy
to 0, judged by eye. Adding a moderate amount, the random sets and the tests are ours; ``mode=set`` is the paper's.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from phosphene.analyse import _stimulation_figures as figures
from phosphene.analyse import _stimulation_words as words
from phosphene.analyse._effects import (
    LEVEL,
    Effect,
    category_table,
    consistency,
    dimension_p,
    own_category,
    share_of_category,
)
from phosphene.analyse._spaces import Pool, Space, pool_of, space_of
from phosphene.analyse._targets import (
    AMOUNTS,
    PRESETS,
    Edit,
    Mode,
    StandIns,
    Target,
    contrast,
    moments,
    stimulated,
    targets,
)
from phosphene.analyse.base import COLUMNS, Analysis, Found, chosen_folds
from phosphene.evaluate.statistics import Interval, bootstrap, mean_of_items
from phosphene.evaluate.ties import first_best
from phosphene.flow.opened import Opened
from phosphene.recipes.base import Recipe
from phosphene.run.config import Config
from phosphene.run.progress import Progress
from phosphene.types import Trials


class StimulateOptions(Config):
    """What is done to which voxels."""

    rois: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="faces, bodies, words, places, early, intermediate, late, or ROI expressions such as FFA+OFA; all of "
        "these that the subject has",
    )
    sets: str | None = Field(None, description="file (.npz) of voxel sets by name, each a mask or positions")
    mode: Mode | None = Field(
        None, description="raise, set, silence or scale; by default levels are silenced and all else is raised"
    )
    amount: float | None = Field(
        None, description="SD of each voxel's training responses, or the factor of scale; raise 2, set 10, scale 2"
    )
    direction: Literal["up", "contrast"] = Field(
        "up", description="all voxels up, or each along its own response to the area's category"
    )
    n: int | None = Field(None, ge=2, description="test responses; all, at most 100")
    repeats: int = Field(200, ge=20, le=100_000, description="random voxel sets")
    pictures: int = Field(8, ge=0, le=16, description="test responses whose pictures are drawn")
    captions: int = Field(2000, ge=0, description="most captions to read changes with; 0 for none")
    fold: int = Field(0, ge=0, description="which fold")

    @model_validator(mode="after")
    def _amount_fits(self) -> StimulateOptions:
        if self.mode == "silence" and self.amount:
            raise ValueError("silence puts voxels at their mean and takes no amount; use mode=set or leave amount out")
        if self.direction == "contrast" and self.mode in ("silence", "scale"):
            raise ValueError(f"mode '{self.mode}' has no direction; use mode=raise or mode=set with direction=contrast")
        return self


class Stimulate(Analysis[StimulateOptions]):
    """See the top of this file."""

    name = "stimulate"
    title = "Stimulated areas"
    options_class = StimulateOptions

    def run(self, opened: Opened, progress: Progress) -> Found:
        """Change voxels, decode again, compare with random voxels."""
        chosen_folds(opened, self.options.fold)
        fold = self.options.fold
        recipe, (train, test) = opened.recipe(fold), opened.sides(fold)
        test = self._some(test.average_repeats())
        aims = targets(test, self.options.rois, self.options.sets)
        wanted = [p.categories[0] for p in PRESETS if p.categories]
        space = space_of(opened, recipe, train, wanted)
        pool = None
        if space.read is not None and self.options.captions:
            pool = pool_of(opened, train, space, most=self.options.captions, rng=self.rng("captions"))
        edits = self._edits(opened, train, aims, space)
        base = space.embed(test)
        effects = [
            self._effect(space, test, base, aim, edit)
            for aim, edit in progress.each(list(zip(aims, edits, strict=True)), "stimulating")
        ]
        table = self._table(effects, base, space, pool)
        names = {e.target.name: f"{e.target.words}, {words.PAST[e.edit.mode]}" for e in effects}
        return Found(
            [
                *words.outcome(effects, table, space, pool),
                words.controls(effects, self.options.repeats, is_known=test.noise_ceiling is not None),
                f"{words.done(effects)} {words.direction(effects, self.options.direction)}",
                f"Read in {space.words}, in {len(base)} test responses of "
                f"{'the only fold' if len(opened.folds) == 1 else f'fold {fold}'}. It tells what the decoder makes of these "
                "voxels, and of the brain only as much as the decoder has learned.",
            ],
            table,
            names,
            {k: v for k, v in words.MEASURES.items() if k in set(table["measure"])},
            figures=self._figures(opened, recipe, test, effects, space, names),
            tables=self._tables(effects, base, space, pool, test),
            notes=words.NOTES,
        )

    # -- stimulating -----------------------------------------------------------------------------------------------

    def _some(self, test: Trials) -> Trials:
        n = min(len(test), self.options.n or 100)
        return test if n == len(test) else test.take(np.sort(self.rng("test").permutation(len(test))[:n]))

    def _edits(self, opened: Opened, train: Trials, aims: list[Target], space: Space) -> list[Edit]:
        mean, spread = moments(train)
        averaged, category, out = None, None, []
        for aim in aims:
            mode: Mode = self.options.mode or ("silence" if aim.is_level else "raise")
            amount = AMOUNTS[mode] if self.options.amount is None else self.options.amount
            pattern, own = None, own_category(aim, space)
            if self.options.direction == "contrast" and own is not None and mode in ("raise", "set"):
                if averaged is None:
                    averaged = train.average_repeats()
                    category = opened.stimuli.select(averaged.stimuli).category
                if category is not None and own in set(category):
                    pattern = contrast(averaged, category, own, spread)
            out.append(Edit(mean, spread, mode, amount, pattern))
        return out

    def _effect(self, space: Space, test: Trials, base: np.ndarray, aim: Target, edit: Edit) -> Effect:
        matched = StandIns(aim.voxels, test.noise_ceiling, test.n_voxels)
        sets = [aim.voxels, *matched.draw(self.options.repeats, self.rng("sets", aim.name))]
        n, shifts, scores, first = len(test), [], [], None
        for part, trials in stimulated(test, sets, edit):
            found = space.embed(trials).reshape(part.stop - part.start, n, -1)
            first = found[0].astype(np.float64) if first is None else first
            shifts.append((found - base).mean(axis=1, dtype=np.float64))
            if space.candidates is not None:
                flat = space.scores(found.reshape(-1, found.shape[2]))
                scores.append(flat.reshape(len(found), n, -1))
        shift = np.concatenate(shifts)
        length = np.linalg.norm(shift, axis=1)
        p_shift = float((1 + np.sum(length[1:] >= length[0] - 1e-12)) / len(length))
        score = np.concatenate(scores) if scores else None
        return Effect(
            aim, edit, matched, shift[0], shift[1:], dimension_p(shift[0], shift[1:]), p_shift, consistency(first - base),
            None if score is None else space.scores(base), None if score is None else score[0],
            None if score is None else score[1:], first,
        )  # fmt: skip

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _table(self, effects: list[Effect], base: np.ndarray, space: Space, pool: Pool | None) -> pd.DataFrame:
        rows: list[tuple] = []
        for e in effects:
            name, n = e.target.name, len(base)

            def add(measure: str, value: float | Interval, n: int = n, name: str = name) -> None:
                interval = value if isinstance(value, Interval) else Interval(value, float("nan"), float("nan"))
                rows.append((name, measure, *interval, n))

            own = own_category(e.target, space)
            if own is not None:
                column = space.candidates.names.index(own)
                add("own_rise", bootstrap(mean_of_items(e.excess[:, column]), n, rng=self.rng("rise", name)))
                add("own_p", float(e.p_rise()[column]))
                for measure, score in (("named_before", e.before), ("named_after", e.after)):
                    said = (first_best(score) == column).astype(float)
                    add(measure, bootstrap(mean_of_items(said), n, rng=self.rng(measure, name)))
                add("named_random", float((first_best(e.null_after) == column).mean()))
                if pool is not None and own in set(pool.categories):
                    for measure, z in (("captions_before", base), ("captions_after", e.embeddings)):
                        share = share_of_category(pool, z, space, own)
                        add(measure, bootstrap(mean_of_items(share), n, rng=self.rng(measure, name)))
            random = np.linalg.norm(e.null_shift, axis=1)
            ratio = np.linalg.norm(e.shift) / max(float(random.mean()), 1e-12)
            add("shift", float(ratio))
            add("shift_p", e.p_shift)
            add("dimensions", float((e.p_dimensions < LEVEL).mean()))
            add("consistency", e.consistency)
            add("voxels", float(len(e.target.voxels)))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _tables(
        self, effects: list[Effect], base: np.ndarray, space: Space, pool: Pool | None, test: Trials
    ) -> dict[str, pd.DataFrame]:
        dimensions = [
            pd.DataFrame({
                "target": e.target.name, "dimension": np.arange(len(e.shift)), "shift": e.shift,
                "null_mean": e.null_shift.mean(axis=0), "null_sd": e.null_shift.std(axis=0, ddof=1), "p_fdr": e.p_dimensions,
            })
            for e in effects
        ]  # fmt: skip
        out = {"dimensions": pd.concat(dimensions, ignore_index=True)}
        if space.candidates is not None:
            out["categories"] = category_table(effects, space)
        if pool is not None:
            rows = []
            before = pool.texts[pool.cosines(base, space.centre).argmax(axis=1)]
            for e in effects:
                after = pool.texts[pool.cosines(e.embeddings, space.centre).argmax(axis=1)]
                rows += [(e.target.name, s, b, a) for s, b, a in zip(test.stimuli, before, after, strict=True)]
            out["captions"] = pd.DataFrame(rows, columns=["target", "stimulus", "before", "after"])
        return out

    # -- figures ---------------------------------------------------------------------------------------------------

    def _figures(
        self, opened: Opened, recipe: Recipe, test: Trials, effects: list[Effect], space: Space, names: dict[str, str]
    ) -> dict[str, figures.Drawing]:
        out = {}
        with_own = [e for e in effects if own_category(e.target, space) is not None]
        if with_own:
            columns = [space.candidates.names.index(own_category(e.target, space)) for e in with_own]
            out["rise"] = figures.rise(
                [(f"{e.target.words}: {space.candidates.names[c]}", (e.after - e.before)[:, c], e.null_rise[:, c])
                 for e, c in zip(with_own, columns, strict=True)],
                self.rng("figure"),
            )  # fmt: skip
        if self.options.pictures:
            out["pictures"] = self._plate(opened, recipe, test, effects, names)
        if space.candidates is not None and len(effects) > 1:
            table = category_table(effects, space)
            own = {e.target.name: own_category(e.target, space) for e in effects}
            out["categories"] = figures.bubbles(table, names, own, space.candidates.names)
        return out

    def _plate(
        self, opened: Opened, recipe: Recipe, test: Trials, effects: list[Effect], names: dict[str, str]
    ) -> figures.Drawing:
        few = test.take(np.arange(min(self.options.pictures, len(test))))
        stimuli = opened.stimuli.select(few.stimuli)
        rows = {
            names[e.target.name]: recipe.decode(next(stimulated(few, [e.target.voxels], e.edit))[1]).clipped()
            for e in effects
        }
        first = effects[0]
        random = first.matched.draw(1, self.rng("picture"))
        rows["random voxels"] = recipe.decode(next(stimulated(few, random, first.edit))[1]).clipped()
        return figures.strips(stimuli.resized(recipe.image_shape_[:2]), recipe.decode(few).clipped(), rows)
