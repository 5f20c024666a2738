"""Stimulated areas (``phosphene.analysis.stimulate``), in sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from phosphene.analysis.effects import LEVEL, NEAREST, Effect
from phosphene.analysis.region_targets import Edit
from phosphene.analysis.stimulate import OwnRise, StimulatedPictures, StimulateFindings
from phosphene.reporting import drawing
from phosphene.reporting.drawing import BRAIN, CEILING, CONTROL, INK, MUTED
from phosphene.reporting.flatmap import short
from phosphene.reporting.presentation import Drawing, Presentation
from phosphene.reporting.rows import rows_at
from phosphene.reporting.wording import capital, embedding_words, percent
from phosphene.types.identity import listed

__all__ = ["present_stimulation"]

_MEASURES = {
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
    "captions_after": f"Share among the {NEAREST} nearest captions that describe training pictures of this category.",
    "dimensions": f"Two-sided against random voxel sets, false discovery rate {LEVEL:g}.",
    "consistency": "Mean cosine between the changes of two responses; 1 for every linear decoder.",
}
_PAST = {"raise": "raised", "set": "set high", "silence": "silenced", "scale": "scaled"}
_LARGEST_Z = 6.0
_MAX_CATEGORIES = 24


def present_stimulation(found: StimulateFindings) -> Presentation:
    """Turn the findings into sentences and figures.

    Parameters
    ----------
    found : StimulateFindings
        what the analysis found

    Returns
    -------
    Presentation
        sentences, words for the table, figures and notes
    """
    names = {}
    for effect in found.effects:
        names[effect.target.name] = f"{effect.target.words}, {_PAST[effect.edit.mode]}"

    return Presentation(
        sentences=_sentences(found),
        inputs=names,
        measures={name: words for name, words in _MEASURES.items() if name in set(found.table["measure"])},
        figures=_figures(found, names),
        notes=_NOTES,
    )


# -- sentences ---------------------------------------------------------------------------------------------------------


def _sentences(found: StimulateFindings) -> list[str]:
    rows = found.table.set_index(["input", "measure"])
    with_own = [effect for effect in found.effects if effect.own is not None]
    sentences = []

    if with_own:
        sentences.append(_verdict(with_own, found.rising))

    for effect in with_own:
        sentences.append(_own_sentence(effect, rows, rises=effect.target.name in found.rising))

    for effect in found.effects:
        sentences.append(_shift_sentence(effect, rows))

    for effect in with_own:
        if effect.target.name in found.nearest_captions:
            captions = " / ".join(f"“{text}”" for text in found.nearest_captions[effect.target.name])
            sentences.append(f"What {effect.target.words} drive beyond random voxels reads most like: {captions}.")

    sentences.append(_controls(found))
    sentences.append(f"{_edits(found.effects)} {_direction(found)}")

    if found.n_folds_of_run == 1:
        fold = "the only fold"
    else:
        fold = f"fold {found.fold}"

    sentences.append(
        f"Read in {embedding_words(found.space)}, in {found.n} test responses of {fold}. It tells what the decoder makes of "
        "these voxels, and of the brain only as much as the decoder has learned."
    )

    return sentences


def _verdict(effects: Sequence[Effect], rising: Sequence[str]) -> str:
    yes = []
    no = []
    for effect in effects:
        words = f"{effect.target.words} ({effect.own})"
        if effect.target.name in rising:
            yes.append(words)
        else:
            no.append(words)

    if not no:
        return f"Every area brings forth its own category more than random voxels do: {listed(yes)}."

    if not yes:
        return f"No area brings forth its own category more than random voxels do: {listed(no)}."

    return f"More than random voxels do, {listed(yes)} bring forth their own category; {listed(no)} do not."


def _own_sentence(effect: Effect, rows: pd.DataFrame, *, rises: bool) -> str:
    name = effect.target.name
    rise = rows.loc[(name, "own_rise")]
    value = rows["value"].to_dict()
    verb = "rises" if rises else "does not rise"
    rois = ", ".join(effect.target.rois) or "voxel set"

    return (
        f"{capital(effect.target.words)} ({rois}) {_PAST[effect.edit.mode]}: "
        f"'{effect.own}' {verb} above random voxels, by {rise['value']:.3f} "
        f"[{rise['ci_low']:.3f}, {rise['ci_high']:.3f}] in cosine, p = {value[name, 'own_p']:.2g}; it is named in "
        f"{percent(value[name, 'named_after'])} of responses, {percent(value[name, 'named_before'])} before and "
        f"{percent(value[name, 'named_random'])} with random voxels."
    )


def _shift_sentence(effect: Effect, rows: pd.DataFrame) -> str:
    name = effect.target.name
    value = rows["value"].to_dict()
    consistency = ""
    if np.isfinite(value[name, "consistency"]):
        consistency = f"; cosine between the changes of two responses {value[name, 'consistency']:.2f}"

    return (
        f"{capital(effect.target.words)} {_PAST[effect.edit.mode]}: the embedding moves {value[name, 'shift']:.2f} times as "
        f"far as by random voxels (p = {value[name, 'shift_p']:.2g}), in {percent(value[name, 'dimensions'])} of its "
        f"dimensions{consistency}."
    )


def _controls(found: StimulateFindings) -> str:
    """What every area stands against."""
    unmatched = [effect.target.words for effect in found.effects if not effect.matched.is_matched]
    from_everywhere = [effect.target.words for effect in found.effects if not effect.matched.outside]

    if not found.has_ceiling:
        matched = "not matched in noise ceiling, which is unknown"
    elif unmatched:
        matched = f"matched in noise ceiling except for {listed(unmatched)}"
    else:
        matched = "matched in noise ceiling"

    drawn = ""
    if from_everywhere:
        drawn = f"; for {listed(from_everywhere)} they are drawn from all voxels, as too few lie outside"

    return f"Each stands against {found.repeats} random voxel sets of equal size, {matched}{drawn}."


def _edits(effects: Sequence[Effect]) -> str:
    """What was done to the voxels of which areas."""
    modes = {_edit_words(effect.edit): effect.edit.mode for effect in effects}
    parts = []

    for words, mode in modes.items():
        areas = [effect.target.words for effect in effects if effect.edit.mode == mode]
        parts.append(f"{words} ({', '.join(areas)})")

    return f"Done to the voxels: {listed(parts)}."


def _edit_words(edit: Edit) -> str:
    if edit.mode == "raise":
        return f"{edit.amount:g} SD of each voxel's training responses added"

    if edit.mode == "set":
        return f"each put {edit.amount:g} SD above its training mean"

    if edit.mode == "silence":
        return "each put at its training mean"

    return f"distance from the training mean times {edit.amount:g}"


def _direction(found: StimulateFindings) -> str:
    """Which way the voxels moved."""
    if found.direction == "up":
        return "Every voxel moves the same way, so no knowledge of categories goes in."

    following = [effect.target.words for effect in found.effects if effect.edit.pattern is not None]
    if not following:
        return "No area has a category in the training pictures, so every voxel moves the same way."

    return (
        f"The voxels of {listed(following)} move along their own training contrast of the category, and so do the random "
        "voxels: the test is whether the area carries it more than others."
    )


# -- figures -----------------------------------------------------------------------------------------------------------


def _figures(found: StimulateFindings, names: Mapping[str, str]) -> dict[str, Drawing]:
    figures = {}
    if found.rises:
        figures["rise"] = _rise(found.rises)

    if found.pictures is not None:
        figures["pictures"] = _pictures(found.pictures, names)

    if found.categories and len(found.effects) > 1:
        own = {effect.target.name: effect.own for effect in found.effects}
        figures["categories"] = _categories(found.tables["categories"], names, own, found.categories)

    return figures


def _rise(rises: Sequence[OwnRise]) -> Drawing:
    """Own category's rise: a cloud of random voxel sets, the area as a dot with its interval."""
    names = []

    with drawing.style():
        figure = drawing.empty(6.6, 0.75 + 0.42 * len(rises))
        axes = figure.subplots()

        for y, rise in enumerate(rises):
            names.append(f"{rise.effect.target.words}: {rise.effect.own}")
            value, low, high = rise.interval

            # The legend has one entry of each kind.
            random_label = "random voxel sets" if y == 0 else None
            area_label = "the area" if y == 0 else None
            axes.plot(
                rise.null, y + rise.heights, ".",
                color=CONTROL, markersize=2.6, alpha=0.55, markeredgewidth=0, label=random_label,
            )  # fmt: skip
            axes.hlines(y, low, high, color=BRAIN, linewidth=2.4)
            axes.plot(value, y, "o", color=BRAIN, markersize=7, clip_on=False, label=area_label)

        axes.axvline(0, color=MUTED, linewidth=1, linestyle=drawing.DASHED, zorder=0)
        drawing.one_a_row(axes, names, "rise of the area's own category (cosine)")

    return Drawing(
        figure,
        "For every area, the rise of its own category beside the rises under random voxel sets.",
        "How much an area's own category rises when it is stimulated: the area with a 95 % interval over responses, and every "
        "random voxel set of equal size as a dot.",
    )


def _pictures(pictures: StimulatedPictures, names: Mapping[str, str]) -> Drawing:
    rows = {names[target]: pixels for target, pixels in pictures.stimulated.items()}
    rows["random voxels"] = pictures.random

    return Drawing(
        drawing.picture_rows(pictures.true, pictures.decoded, rows, labels=("seen", "decoded as it is"), width=9.0),
        "Rows of pictures: seen, decoded, and decoded with each area stimulated.",
        "Pictures before and after. The last row is what stimulating random voxels does.",
    )


def _categories(
    table: pd.DataFrame, names: Mapping[str, str], own: Mapping[str, str | None], categories: Sequence[str]
) -> Drawing:
    """Every category under every target: size is the rise in standard deviations of random voxel sets.

    Own categories stand first.
    """
    own_first = [category for category in dict.fromkeys(own.values()) if category is not None]
    columns = [*own_first, *(category for category in categories if category not in own_first)]
    drawn = columns[:_MAX_CATEGORIES]
    targets = list(names)

    part = rows_at(table, table["category"].isin(drawn))
    x = part["category"].map(drawn.index).to_numpy()
    y = part["target"].map(targets.index).to_numpy()
    z = part["z"].to_numpy()
    is_clear = part["p_fdr"].to_numpy() < LEVEL
    largest_z = max(1.0, float(np.abs(z).max(initial=1)))
    size = 260 * np.minimum(np.abs(z), _LARGEST_Z) / min(largest_z, _LARGEST_Z)

    with drawing.style():
        figure = drawing.empty(2.1 + 0.34 * len(drawn), 1.15 + 0.34 * len(targets))
        axes = figure.subplots()

        for rises, colour in ((True, BRAIN), (False, CEILING)):
            for clear in (True, False):
                dots = ((z > 0) == rises) & (is_clear == clear)
                axes.scatter(
                    x[dots], y[dots], s=size[dots],
                    facecolor=colour if clear else "none", edgecolor=colour, linewidth=1, alpha=1 if clear else 0.6,
                )  # fmt: skip

        for name, category in own.items():
            if category in drawn:
                corner = drawn.index(category) - 0.47, targets.index(name) - 0.47
                axes.add_patch(_box(corner))

        axes.set_xticks(range(len(drawn)), drawn, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(targets)), [short(words, 30) for words in names.values()])
        axes.set_xlim(-0.6, len(drawn) - 0.4)
        axes.set_ylim(len(targets) - 0.4, -0.6)
        axes.tick_params(length=0, labelcolor=INK)

        for spine in axes.spines.values():
            spine.set_visible(False)

        # Empty plots, for the legend.
        axes.scatter([], [], s=45, facecolor=BRAIN, edgecolor=BRAIN, label="rises")
        axes.scatter([], [], s=45, facecolor=CEILING, edgecolor=CEILING, label="falls")
        axes.scatter([], [], s=45, facecolor="none", edgecolor=MUTED, label="not clear")
        axes.scatter([], [], s=70, marker="s", facecolor="none", edgecolor=INK, label="own category")
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, handletextpad=0.2, columnspacing=1.2, borderpad=0
        )

    if largest_z <= _LARGEST_Z:
        largest = f"{largest_z:.1f}"
    else:
        largest = f"{_LARGEST_Z:.0f} or more"

    more = ""
    if len(columns) > len(drawn):
        more = f" The first {len(drawn)} of {len(columns)} categories."

    return Drawing(
        figure,
        "Circles for every target and category, larger where the category changes more; numbers in categories.csv.",
        f"Every category under every target, in standard deviations of random voxel sets (largest circle: {largest}); "
        f"filled where the false discovery rate is under {LEVEL:g}.{more}",
    )


def _box(corner: tuple[float, float]):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 0.94, 0.94, facecolor="none", edgecolor=INK, linewidth=1.1, joinstyle="round")
