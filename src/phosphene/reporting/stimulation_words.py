"""What stimulating areas did, in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.analysis.effects import LEVEL, NEAREST, Effect, own_category
from phosphene.analysis.spaces import Pool, Space
from phosphene.analysis.targets import Edit
from phosphene.reporting.wording import capital, percent
from phosphene.types.identity import listed

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
NOTES = {
    "own_rise": "Change of the centred cosine of the decoded embedding with the category the area prefers, minus its mean over "
    "random voxel sets; interval over test responses.",
    "own_p": "Share of random voxel sets that raise it as much, one-sided.",
    "named_after": "Share of responses whose nearest category this is.",
    "captions_after": f"Share among the {NEAREST} nearest captions that describe training pictures of this category.",
    "dimensions": f"Two-sided against random voxel sets, false discovery rate {LEVEL:g}.",
    "consistency": "Mean cosine between the changes of two responses; 1 for every linear decoder.",
}
PAST = {"raise": "raised", "set": "set high", "silence": "silenced", "scale": "scaled"}


def outcome(effects: list[Effect], table: pd.DataFrame, space: Space, pool: Pool | None) -> list[str]:
    """The verdict, then a sentence per area and measure."""
    rows = table.set_index(["input", "measure"])
    areas = [e for e in effects if (e.target.name, "own_rise") in rows.index]

    if areas:
        sentences = [_verdict(areas, rows, space)]
    else:
        sentences = []

    sentences += [_area_sentence(e, rows, space) for e in areas]
    sentences += [_shift_sentence(e, rows) for e in effects]
    if pool is None:
        return sentences

    return [*sentences, *(_caption_sentence(e, space, pool) for e in areas)]


def controls(effects: list[Effect], n_sets: int, *, is_known: bool) -> str:
    """What every area stands against; `is_known` says whether noise ceilings are."""
    loose = [e.target.words for e in effects if not e.matched.is_matched]
    inside = [e.target.words for e in effects if not e.matched.outside]

    if is_known:
        matched = "matched in noise ceiling"
    else:
        matched = "not matched in noise ceiling, which is unknown"

    if loose and is_known:
        matched += f" except for {listed(loose)}"

    if inside:
        drawn = f"; for {listed(inside)} they are drawn from all voxels, as too few lie outside"
    else:
        drawn = ""

    return f"Each stands against {n_sets} random voxel sets of equal size, {matched}{drawn}."


def done(effects: list[Effect]) -> str:
    """What was done to the voxels of which areas."""
    kinds = {_amount_words(e.edit): e.edit.mode for e in effects}
    amounts = [
        f"{words} ({', '.join(e.target.words for e in effects if e.edit.mode == mode)})"
        for words, mode in kinds.items()
    ]

    return f"Done to the voxels: {listed(amounts)}."


def direction(effects: list[Effect], chosen: str) -> str:
    """Which way the voxels moved."""
    if chosen == "up":
        return "Every voxel moves the same way, so no knowledge of categories goes in."

    follow = [e.target.words for e in effects if e.edit.pattern is not None]
    if not follow:
        return "No area has a category in the training pictures, so every voxel moves the same way."

    return (
        f"The voxels of {listed(follow)} move along their own training contrast of the category, and so do the random voxels: "
        "the test is whether the area carries it more than others."
    )


def _verdict(areas: list[Effect], rows: pd.DataFrame, space: Space) -> str:
    def judged(above: bool) -> list[str]:
        return [f"{e.target.words} ({own_category(e.target, space)})" for e in areas if _rises(e, rows) is above]

    yes = judged(True)
    no = judged(False)
    if not no:
        return f"Every area brings forth its own category more than random voxels do: {listed(yes)}."
    if not yes:
        return f"No area brings forth its own category more than random voxels do: {listed(no)}."

    return f"More than random voxels do, {listed(yes)} bring forth their own category; {listed(no)} do not."


def _rises(e: Effect, rows: pd.DataFrame) -> bool:
    name = e.target.name
    return bool(rows.loc[(name, "own_p"), "value"] < LEVEL and rows.loc[(name, "own_rise"), "ci_low"] > 0)


def _area_sentence(e: Effect, rows: pd.DataFrame, space: Space) -> str:
    name = e.target.name
    rise = rows.loc[(name, "own_rise")]
    p, before, after, random = (
        rows.loc[(name, k), "value"] for k in ("own_p", "named_before", "named_after", "named_random")
    )

    if _rises(e, rows):
        verb = "rises"
    else:
        verb = "does not rise"

    return (
        f"{capital(e.target.words)} ({', '.join(e.target.rois) or 'voxel set'}) {PAST[e.edit.mode]}: "
        f"'{own_category(e.target, space)}' {verb} above random voxels, by {rise['value']:.3f} "
        f"[{rise['ci_low']:.3f}, {rise['ci_high']:.3f}] in cosine, p = {p:.2g}; it is named in {percent(after)} of responses, "
        f"{percent(before)} before and {percent(random)} with random voxels."
    )


def _shift_sentence(e: Effect, rows: pd.DataFrame) -> str:
    value = rows["value"]
    name = e.target.name
    consistency = value[name, "consistency"]

    if not np.isfinite(consistency):
        same = ""
    else:
        same = f"; cosine between the changes of two responses {consistency:.2f}"

    return (
        f"{capital(e.target.words)} {PAST[e.edit.mode]}: the embedding moves {value[name, 'shift']:.2f} times as far as by "
        f"random voxels (p = {value[name, 'shift_p']:.2g}), in {percent(value[name, 'dimensions'])} of its dimensions{same}."
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
