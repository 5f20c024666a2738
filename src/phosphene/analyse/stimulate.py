"""Stimulate: voxels of an area are raised, silenced or scaled before decoding; what changes, beside random voxels?

    betas of a test response -> + amount SD in the area's voxels -> decode -> less what the untouched response gives

Any change of so many voxels moves what is decoded. So everything stands against random voxel sets of equal size, drawn
from the other voxels with the same distribution of noise ceilings. Nothing is fitted here: a decoder learned elsewhere
is asked what it would have decoded, which is a statement about the decoder, and about the brain only as far as the
decoder is right.

Paper: Lin et al. 2022 (Mind Reader), "microstimulation": localiser areas set to 10, levels of the hierarchy to 0, judged
by eye. Adding a moderate amount, the random sets and the tests are ours; ``mode=set`` is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy.stats import false_discovery_control

from phosphene.analyse import _stimulation_figures as figures
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
from phosphene.flow.opened import Opened
from phosphene.recipes.base import Recipe
from phosphene.run.config import Config
from phosphene.run.progress import Progress
from phosphene.types import Trials

LEVEL = 0.05
"""Of every test, and of the false discovery rate."""
_NEAREST = 10


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


@dataclass(frozen=True)
class Effect:
    """What stimulating one target did.

    Attributes
    ----------
    target, edit, matched : what was done, and its random sets
    shift : (d,) mean change of the embedding; ``null_shift`` (repeats, d) that of random sets
    p_dimensions : (d,) adjusted for the false discovery rate
    p_shift : of the length of the shift being larger than that of random sets
    consistency : mean cosine between the changes of two responses
    before, after : (n, k) score of each category, or None; ``null_after`` (repeats, n, k)
    embeddings : (n, d) of the stimulated responses
    """

    target: Target
    edit: Edit
    matched: StandIns
    shift: np.ndarray
    null_shift: np.ndarray
    p_dimensions: np.ndarray
    p_shift: float
    consistency: float
    before: np.ndarray | None
    after: np.ndarray | None
    null_after: np.ndarray | None
    embeddings: np.ndarray

    @property
    def excess(self) -> np.ndarray:
        """(n, k) rise of each category's score beyond the mean over random sets."""
        return self.after - self.null_after.mean(axis=0)

    @property
    def null_rise(self) -> np.ndarray:
        """(repeats, k) mean rise of each category under each random set."""
        return (self.null_after - self.before).mean(axis=1)

    @property
    def rise(self) -> np.ndarray:
        """(k,) mean rise of each category."""
        return (self.after - self.before).mean(axis=0)

    def p_rise(self) -> np.ndarray:
        """(k,) probability that a random set raises a category as much; one-sided, never 0."""
        null = self.null_rise
        return (1 + np.sum(null >= self.rise - 1e-12, axis=0)) / (len(null) + 1)

    def p_fall(self) -> np.ndarray:
        """(k,) the same for lowering it."""
        null = self.null_rise
        return (1 + np.sum(null <= self.rise + 1e-12, axis=0)) / (len(null) + 1)

    def z_rise(self) -> np.ndarray:
        """(k,) mean rise in standard deviations over random sets, from their mean."""
        null = self.null_rise
        return (self.rise - null.mean(axis=0)) / np.maximum(null.std(axis=0, ddof=1), 1e-12)


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
        words = {e.target.name: f"{e.target.words}, {_PAST[e.edit.mode]}" for e in effects}
        return Found(
            self._sentences(opened, effects, table, space, pool, test.noise_ceiling is not None),
            table,
            words,
            {k: v for k, v in MEASURES.items() if k in set(table["measure"])},
            figures=self._figures(opened, recipe, test, effects, space, words),
            tables=self._tables(effects, base, space, pool, test),
            notes=_NOTES,
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
            aim, edit, matched, shift[0], shift[1:], dimension_p(shift[0], shift[1:]), p_shift, _consistency(first - base),
            None if score is None else space.scores(base), None if score is None else score[0],
            None if score is None else score[1:], first,
        )  # fmt: skip

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _table(self, effects: list[Effect], base: np.ndarray, space: Space, pool: Pool | None) -> pd.DataFrame:
        rows: list[tuple] = []
        for e in effects:
            name, n = e.target.name, len(base)

            def add(measure: str, value: float | Interval, n: int = n, name: str = name) -> None:
                interval = value if isinstance(value, Interval) else _bare(value)
                rows.append((name, measure, *interval, n))

            own = own_category(e.target, space)
            if own is not None:
                column = space.candidates.names.index(own)
                add("own_rise", bootstrap(mean_of_items(e.excess[:, column]), n, rng=self.rng("rise", name)))
                add("own_p", float(e.p_rise()[column]))
                for measure, score in (("named_before", e.before), ("named_after", e.after)):
                    said = (score.argmax(axis=1) == column).astype(float)
                    add(measure, bootstrap(mean_of_items(said), n, rng=self.rng(measure, name)))
                add("named_random", float((e.null_after.argmax(axis=2) == column).mean()))
                if pool is not None and own in set(pool.categories):
                    for measure, z in (("captions_before", base), ("captions_after", e.embeddings)):
                        share = _of_category(pool, z, space, own)
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

    # -- words -----------------------------------------------------------------------------------------------------

    def _sentences(
        self, opened: Opened, effects: list[Effect], table: pd.DataFrame, space: Space, pool: Pool | None,
        is_known: bool,
    ) -> list[str]:  # fmt: skip
        rows = table.set_index(["input", "measure"])
        areas = [e for e in effects if (e.target.name, "own_rise") in rows.index]
        sentences = [_verdict(areas, rows, space)] if areas else []
        for e in areas:
            sentences.append(_area_sentence(e, rows, space))
        for e in effects:
            sentences.append(_shift_sentence(e, rows))
        if pool is not None:
            sentences += [s for e in areas if (s := _caption_sentence(e, space, pool))]
        random = f"Each stands against {self.options.repeats} random voxel sets of equal size"
        unknown = not is_known
        loose = [e.target.words for e in effects if not e.matched.is_matched]
        inside = [e.target.words for e in effects if not e.matched.outside]
        random += ", not matched in noise ceiling, which is unknown" if unknown else ", matched in noise ceiling"
        if loose and not unknown:
            random += f" except for {_and(loose)}"
        random += f"; for {_and(inside)} they are drawn from all voxels, as too few lie outside." if inside else "."
        done = {_amount_words(e.edit): e for e in effects}
        amount = [
            f"{words} ({', '.join(e.target.words for e in effects if e.edit.mode == some.edit.mode)})"
            for words, some in done.items()
        ]
        sentences += [
            random,
            f"Done to the voxels: {_and(amount)}. {self._direction_words(effects, space)}",
            f"Read in {space.words}, in {len(effects[0].embeddings)} test responses of "
            f"{'the only fold' if len(opened.folds) == 1 else f'fold {self.options.fold}'}. It tells what the decoder makes of "
            "these voxels, and of the brain only as much as the decoder has learned.",
        ]
        return sentences

    def _direction_words(self, effects: list[Effect], space: Space) -> str:
        if self.options.direction == "up":
            return "Every voxel moves the same way, so no knowledge of categories goes in."
        follow = [e.target.words for e in effects if e.edit.pattern is not None]
        if not follow:
            return "No area has a category in the training pictures, so every voxel moves the same way."
        return (
            f"The voxels of {_and(follow)} move along their own training contrast of the category, and so do the random voxels: "
            "the test is whether the area carries it more than others."
        )

    def _figures(
        self, opened: Opened, recipe: Recipe, test: Trials, effects: list[Effect], space: Space, words: dict[str, str]
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
            out["pictures"] = self._plate(opened, recipe, test, effects, words)
        if space.candidates is not None and len(effects) > 1:
            table = category_table(effects, space)
            own = {e.target.name: own_category(e.target, space) for e in effects}
            out["categories"] = figures.bubbles(table, words, own, space.candidates.names)
        return out

    def _plate(
        self, opened: Opened, recipe: Recipe, test: Trials, effects: list[Effect], words: dict[str, str]
    ) -> figures.Drawing:
        few = test.take(np.arange(min(self.options.pictures, len(test))))
        stimuli = opened.stimuli.select(few.stimuli)
        rows = {
            words[e.target.name]: recipe.decode(next(stimulated(few, [e.target.voxels], e.edit))[1]).clipped()
            for e in effects
        }
        first = effects[0]
        random = first.matched.draw(1, self.rng("picture"))
        rows["random voxels"] = recipe.decode(next(stimulated(few, random, first.edit))[1]).clipped()
        return figures.strips(stimuli.resized(recipe.image_shape_[:2]), recipe.decode(few).clipped(), rows)


# -- numbers without state ---------------------------------------------------------------------------------------------


def dimension_p(shift: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Two-sided p of every dimension's change, adjusted for the false discovery rate (Benjamini-Hochberg).

    Each dimension is measured in the standard deviations of its own random changes, and compared with those of all
    dimensions together, so that few random sets resolve small p.

    Parameters
    ----------
    shift : (d,) change
    null : (repeats, d) changes by random voxel sets

    Returns
    -------
    (d,), above 0; 1 where a dimension never changes
    """
    b, middle, variance = len(null), null.mean(axis=0), null.var(axis=0, ddof=1)
    moves = np.sqrt(variance) > 1e-12 * max(1.0, float(np.abs(null).max(initial=0)))
    p = np.where(np.abs(shift - middle) > 1e-12, 1 / (b + 1), 1.0)
    away, variance = np.abs(shift - middle)[moves], variance[moves]
    # Each random set against all others, as the target is: a share of its own in mean and spread would shrink it.
    squares = np.square(null - middle)[:, moves]
    others = np.maximum((b - 1) * variance - squares * b / (b - 1), 1e-12 * variance) / (b - 2)
    pooled = np.sort(np.sqrt(squares / (others * (b - 1) / b)).ravel())
    reached = len(pooled) - np.searchsorted(pooled, away / np.sqrt(variance * (1 + 1 / b)) - 1e-12)
    p[moves] = (1 + reached) / (len(pooled) + 1)
    return false_discovery_control(p)


def own_category(target: Target, space: Space) -> str | None:
    """The category a target ought to bring forth, in the words of the space; None where there is none."""
    names = () if space.candidates is None else space.candidates.names
    return next((c for c in target.categories if c in names), None)


def category_table(effects: list[Effect], space: Space) -> pd.DataFrame:
    """Every category's rise under every target: rise, excess over random sets, z, p, and p adjusted for a target's categories."""
    names = list(space.candidates.names)
    parts = [
        pd.DataFrame({
            "target": e.target.name, "category": names, "rise": e.rise, "excess": e.excess.mean(axis=0), "z": e.z_rise(),
            "p_rise": e.p_rise(), "p_two_sided": np.minimum(1, 2 * np.minimum(e.p_rise(), e.p_fall())),
        })
        for e in effects
    ]  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    return table.assign(p_fdr=np.concatenate([dimension_p(e.rise, e.null_rise) for e in effects]))


def _consistency(change: np.ndarray) -> float:
    """Mean cosine between two rows."""
    n, length = len(change), np.linalg.norm(change, axis=1, keepdims=True)
    if n < 2 or (length <= 1e-12).any():
        return float("nan")
    total = (change / length).sum(axis=0)
    return float((total @ total - n) / (n * (n - 1)))


def _of_category(pool: Pool, embeddings: np.ndarray, space: Space, own: str) -> np.ndarray:
    """(n,) share of the ten nearest captions that describe training pictures of a category."""
    cosines, k = pool.cosines(embeddings, space.centre), min(_NEAREST, len(pool.texts))
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    return (pool.categories[nearest] == own).mean(axis=1)


# -- words without state -----------------------------------------------------------------------------------------------

MEASURES = {
    "own_rise": "Own category: rise beyond random voxels",
    "own_p": "Own category: p",
    "named_before": "Named as own category, before",
    "named_after": "Named as own category, stimulated",
    "named_random": "Named as own category, random voxels",
    "captions_before": "Nearest captions of own category, before",
    "captions_after": "Nearest captions of own category, stimulated",
    "shift": "Change, in that of random voxels",
    "shift_p": "Change larger than of random voxels: p",
    "dimensions": "Share of dimensions changed",
    "consistency": "Same change in every response",
    "voxels": "Voxels",
}
_NOTES = {
    "own_rise": "Change of the centred cosine of the decoded embedding with the category the area prefers, minus its mean over "
    "random voxel sets; interval over test responses.",
    "own_p": "Share of random voxel sets that raise it as much, one-sided.",
    "named_after": "Share of responses whose nearest category this is.",
    "captions_after": f"Share among the {_NEAREST} nearest captions that describe training pictures of this category.",
    "dimensions": f"Two-sided against random voxel sets, false discovery rate {LEVEL:g}.",
    "consistency": "Mean cosine between the changes of two responses; 1 for every linear decoder.",
}
_PAST = {"raise": "raised", "set": "set high", "silence": "silenced", "scale": "scaled"}


def _verdict(areas: list[Effect], rows: pd.DataFrame, space: Space) -> str:
    def judged(above: bool) -> list[str]:
        return [f"{e.target.words} ({own_category(e.target, space)})" for e in areas if _rises(e, rows) is above]

    yes, no = judged(True), judged(False)
    if not no:
        return f"Every area brings forth its own category more than random voxels do: {_and(yes)}."
    if not yes:
        return f"No area brings forth its own category more than random voxels do: {_and(no)}."
    return f"More than random voxels do, {_and(yes)} bring forth their own category; {_and(no)} do not."


def _rises(e: Effect, rows: pd.DataFrame) -> bool:
    name = e.target.name
    return bool(rows.loc[(name, "own_p"), "value"] < LEVEL and rows.loc[(name, "own_rise"), "ci_low"] > 0)


def _area_sentence(e: Effect, rows: pd.DataFrame, space: Space) -> str:
    name = e.target.name
    rise = rows.loc[(name, "own_rise")]
    p, before, after, random = (
        rows.loc[(name, k), "value"] for k in ("own_p", "named_before", "named_after", "named_random")
    )
    verb = "rises" if _rises(e, rows) else "does not rise"
    return (
        f"{_capital(e.target.words)} ({', '.join(e.target.rois) or 'voxel set'}) {_PAST[e.edit.mode]}: "
        f"'{own_category(e.target, space)}' {verb} above random voxels, by {rise['value']:.3f} "
        f"[{rise['ci_low']:.3f}, {rise['ci_high']:.3f}] in cosine, p = {p:.2g}; it is named in {_percent(after)} of responses, "
        f"{_percent(before)} before and {_percent(random)} with random voxels."
    )


def _shift_sentence(e: Effect, rows: pd.DataFrame) -> str:
    value = rows["value"]
    name = e.target.name
    consistency = value[name, "consistency"]
    same = "" if not np.isfinite(consistency) else f"; cosine between the changes of two responses {consistency:.2f}"
    return (
        f"{_capital(e.target.words)} {_PAST[e.edit.mode]}: the embedding moves {value[name, 'shift']:.2f} times as far as by "
        f"random voxels (p = {value[name, 'shift_p']:.2g}), in {_percent(value[name, 'dimensions'])} of its dimensions{same}."
    )


def _caption_sentence(e: Effect, space: Space, pool: Pool) -> str:
    """Nearest captions of what a target drives beyond random voxels."""
    nearest = pool.texts[np.argsort(-pool.cosines((e.shift - e.null_shift.mean(axis=0))[None], 0.0)[0])[:2]]
    return f"What {e.target.words} drive beyond random voxels reads most like: {' / '.join(f'“{t}”' for t in nearest)}."


def _amount_words(edit: Edit) -> str:
    return {
        "raise": f"{edit.amount:g} SD of each voxel's training responses added",
        "set": f"each put {edit.amount:g} SD above its training mean",
        "silence": "each put at its training mean",
        "scale": f"distance from the training mean times {edit.amount:g}",
    }[edit.mode]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _bare(value: float) -> Interval:
    return Interval(value, float("nan"), float("nan"))
