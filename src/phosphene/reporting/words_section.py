"""Read in words (``phosphene.analysis.words``), in sentences and figures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from phosphene.analysis.words import NEAREST, DescribedArea, WordsFindings
from phosphene.reporting import drawing
from phosphene.reporting.drawing import BRAIN, CEILING, CONTROL, INK, MUTED
from phosphene.reporting.flatmap import short
from phosphene.reporting.presentation import Drawing, Presentation
from phosphene.reporting.wording import embedding_words, with_interval

__all__ = ["INPUTS", "MEASURES", "present_words"]

INPUTS = {"truth": "true pictures", "brain": "brain", "shuffled": "shuffled pairing"}
MEASURES = {
    "beaten": "True caption nearer than one of the pool",
    "top1": "Own caption found among all test captions",
    "top5": "Own caption among the five nearest",
}
LEVEL = 0.05
_NOTES = {
    "beaten": "Share of the pool's captions that the true caption beats, ties one half; 0.5 is chance.",
    "top1": "Exact; each picture's captions together make one candidate. Chance is one over the number of pictures.",
}
_N_COLUMNS = 2


def present_words(found: WordsFindings) -> Presentation:
    """Turn the findings into sentences and figures.

    Parameters
    ----------
    found : WordsFindings
        what the analysis found

    Returns
    -------
    Presentation
        sentences, words for the table, figures and notes
    """
    figures = {"captions": _captions_figure(found)}
    if found.beaten:
        figures["ranks"] = _ranks_figure(found)

    if found.areas:
        figures["areas"] = _areas_figure(found.areas)

    return Presentation(sentences=_sentences(found), inputs=INPUTS, measures=MEASURES, figures=figures, notes=_NOTES)


# -- sentences ---------------------------------------------------------------------------------------------------------


def _sentences(found: WordsFindings) -> list[str]:
    sentences = _reading(found)
    for area in found.areas:
        sentences.append(_area_sentence(area))

    if found.is_file:
        source = "captions of the file given"
    else:
        source = "captions of the training pictures and category names"

    if found.n_folds_of_run == 1:
        fold = "the only fold"
    else:
        fold = f"fold {found.fold}"

    sentences.append(
        f"Read in {embedding_words(found.space)}, with {found.n_pool} {source}, none of them of a test picture; {found.n} "
        f"test responses of {fold}. Pictures and captions are each "
        "taken relative to their training mean."
    )

    return sentences


def _reading(found: WordsFindings) -> list[str]:
    """How well test responses are read."""
    rows = found.table.set_index(["input", "measure"])
    if ("brain", "beaten") not in rows.index:
        return ["The test pictures have neither captions nor categories, so how well they are read is not known."]

    def score(name: str, measure: str) -> str:
        return with_interval(rows.loc[(name, measure)])

    p = found.p["beaten"]
    verdict = "not above"
    if p < LEVEL and rows.loc[("brain", "beaten"), "value"] > 0.5:
        verdict = "above"

    sentences = [
        f"Decoded responses read {verdict} chance: the true caption beats {score('brain', 'beaten')} of {found.n_pool} others "
        f"(chance 0.5, p = {p:.2g}; read from the true pictures {score('truth', 'beaten')}, pairing shuffled "
        f"{score('shuffled', 'beaten')})."
    ]

    for k in (1, 5):
        measure = f"top{k}"
        if ("brain", measure) in rows.index:
            n = int(rows.loc[("brain", measure), "n"])
            sentences.append(
                f"Top-{k} among the captions of {n} test pictures: {score('brain', measure)} (chance {k / n:.3f}, "
                f"p = {found.p[measure]:.2g}; true pictures {score('truth', measure)})."
            )

    return sentences


def _area_sentence(area: DescribedArea) -> str:
    category = ""
    if area.own is not None:
        more = "more than of random voxels"
        if not area.p_own < LEVEL:
            more = "not clearly more than of random voxels"

        category = (
            f"{round(100 * area.share)} % of the nearest {NEAREST} are of '{area.own}', {more} (p = {area.p_own:.2g}); "
        )

    if area.p < LEVEL:
        near = "nearer than any of random voxels'"
    else:
        near = "no nearer than captions come to random voxels'"

    rois = ", ".join(area.target.rois) or "voxel set"
    return (
        f"What {area.target.words} ({rois}) drive reads most like "
        f"“{area.captions[0]}”: {category}its cosine of {area.cosines[0]:.2f} is {near} (median "
        f"{np.median(area.null_best):.2f}, p = {area.p:.2g})."
    )


# -- figures -----------------------------------------------------------------------------------------------------------


def _captions_figure(found: WordsFindings) -> Drawing:
    """Pictures seen, the caption nearest to what was decoded, and a caption of the picture."""
    pictures = drawing.as_uint8(found.pictures)
    n_rows = -(-len(pictures) // _N_COLUMNS)
    side = 0.9
    row_height = side + 0.12
    width = 9.0
    cell = width / _N_COLUMNS
    height = n_rows * row_height

    with drawing.style():
        figure = drawing.empty(width, height)
        figure.set_layout_engine("none")

        for i, picture in enumerate(pictures):
            left = (i % _N_COLUMNS) * cell
            bottom = height - (i // _N_COLUMNS + 1) * row_height + 0.06
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))

            # Small pictures keep their pixels.
            interpolation = "nearest" if picture.shape[0] < 96 else "antialiased"
            axes.imshow(picture, interpolation=interpolation)
            axes.set_axis_off()

            nearest = textwrap.wrap(short(found.nearest[i], 110), 46)
            true: list[str] = []
            if found.captions[i]:
                longest = max(found.captions[i], key=len)
                true = textwrap.wrap(short(longest, 110), 52)

            x = (left + side + 0.12) / width
            figure.text(
                x, (bottom + side - 0.04) / height, "\n".join(nearest),
                va="top", color=BRAIN, fontsize=8.5, fontweight="bold", linespacing=1.25,
            )  # fmt: skip
            below = bottom + side - 0.1 - 0.155 * len(nearest)
            figure.text(x, below / height, "\n".join(true), va="top", color=MUTED, fontsize=8, linespacing=1.25)

    return Drawing(
        figure,
        "Pictures seen, each with the caption nearest to what was decoded and one of its own captions.",
        "What the first test responses read like: in bold the caption of the pool nearest to what was decoded, below it one that "
        "was written for the picture.",
    )


def _ranks_figure(found: WordsFindings) -> Drawing:
    """Share of pictures whose true caption is among the nearest x % of the pool."""
    colours = {"truth": CEILING, "brain": BRAIN, "shuffled": CONTROL}

    with drawing.style():
        figure = drawing.empty(4.6, 2.9)
        axes = figure.subplots()

        for name, beaten in found.beaten.items():
            rank = np.sort(100 * (1 - beaten[np.isfinite(beaten)]))
            x = np.concatenate([[0], rank, [100]])
            y = np.concatenate([[0], np.arange(1, len(rank) + 1) / len(rank), [1]])
            linewidth = 2 if name == "brain" else 1.4
            axes.step(x, y, where="post", color=colours[name], label=INPUTS[name], linewidth=linewidth)

        axes.plot([0, 100], [0, 1], color=MUTED, linewidth=1, linestyle=drawing.DASHED, label="chance")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 1.01)
        axes.set_xlabel(f"nearest captions, % of {found.n_pool}")
        axes.set_ylabel("share of pictures found")
        axes.grid()
        axes.set_axisbelow(True)
        axes.legend(loc="lower right")

    return Drawing(
        figure,
        "Curves of the share of pictures whose true caption is among the nearest captions.",
        "How far down the list of captions the true one stands: share of pictures found against the share of the pool read.",
    )


def _areas_figure(areas: Sequence[DescribedArea]) -> Drawing:
    """The caption that describes each area best, and how near the best caption of random voxels comes."""
    with drawing.style():
        figure = drawing.empty(8.6, 0.8 + 0.36 * len(areas))
        axes, texts = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.45))

        for y, area in enumerate(areas):
            low, high = np.quantile(area.null_best, [0.05, 0.95])
            is_clear = area.p < LEVEL

            # The legend has one entry of each kind.
            random_label = "best of random voxels, 90 %" if y == 0 else None
            area_label = "the area" if y == 0 else None
            axes.hlines(y, low, high, color=CONTROL, linewidth=5, alpha=0.6, label=random_label)
            axes.plot(
                float(area.cosines[0]), y, "o",
                color=BRAIN, markersize=6, markerfacecolor=BRAIN if is_clear else "none", clip_on=False, label=area_label,
            )  # fmt: skip
            caption = short(str(area.captions[0]), 74)
            texts.text(0, y, caption, va="center", color=INK if is_clear else MUTED, fontsize=8)

        drawing.one_a_row(axes, [area.target.words for area in areas], "cosine with the nearest caption")
        texts.set_axis_off()

    return Drawing(
        figure,
        "For every area the nearest caption and its cosine beside the best cosines of random voxel sets.",
        "The caption nearest to what each area drives beyond random voxels; filled where no more than 5 % of random voxel sets "
        "have one as near.",
    )
