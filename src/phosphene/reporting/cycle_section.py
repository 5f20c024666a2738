"""Picture to brain to picture (``phosphene.analysis.cycle``), in sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from phosphene.analysis.cycle import CycleFindings
from phosphene.reporting import drawing
from phosphene.reporting.presentation import Drawing, Presentation
from phosphene.reporting.wording import with_interval

__all__ = ["INPUTS", "present_cycle"]

INPUTS = {
    "cycle": "cycle",
    "noisy": "cycle, real noise",
    "brain": "measured brain",
    "wrong": "wrong picture encoded",
    "shuffled": "shuffled pairing",
    "mean": "mean picture",
}
_MEASURES = {
    "pixcorr": "Pixel correlation",
    "ssim.2d": "SSIM",
    "two_way.pixels": "Two-way, pixels",
    "two_way.pictures.clip_lab": "Two-way, CLIP",
    "two_way.pictures.scenes": "Two-way, classifier",
    "clip_cosine": "CLIP cosine",
    "response_r": "Response r (predicted, measured)",
}
_NOTES = {
    "response_r": "Correlation over test pictures between predicted and measured responses, mean over voxels; "
    "the only row that is about the brain.",
    "clip_cosine": "Cosine between what the lab's CLIP sees in the input picture and in the outcome.",
}


def present_cycle(found: CycleFindings) -> Presentation:
    """Turn the findings into sentences and figures.

    Parameters
    ----------
    found : CycleFindings
        what the analysis found

    Returns
    -------
    Presentation
        sentences, words for the table, figures and notes
    """
    inputs = {arm: words for arm, words in INPUTS.items() if arm in set(found.table["input"])}
    measures = _measures(found.table)

    return Presentation(
        sentences=_sentences(found),
        inputs=inputs,
        measures=measures,
        figures=_figures(found, inputs, measures),
        notes=_NOTES,
    )


def _measures(table: pd.DataFrame) -> dict[str, str]:
    """Measures of the table in the order shown: those with words, then any other under its own name."""
    present_names = list(dict.fromkeys(table["measure"]))
    measures = {name: words for name, words in _MEASURES.items() if name in present_names}

    for name in present_names:
        measures.setdefault(name, name)

    return measures


def _sentences(found: CycleFindings) -> list[str]:
    rows = found.table.set_index(["input", "measure"])
    score = {arm: with_interval(rows.loc[(arm, found.measure)]) for arm in INPUTS if (arm, found.measure) in rows.index}

    if "clip" in found.measure:
        space = "in the lab's CLIP"
    else:
        space = "by pixels"

    if found.measured_variance > 0:
        share = f"{100 * found.predicted_variance / found.measured_variance:.0f} %"
    else:
        share = "an unknown share"

    sentences = [
        f"The cycle says nothing about the brain: pictures come back from predicted responses with two-way "
        f"identification {score['cycle']} {space} (chance 0.5), and could if the predictions were of no brain at all.",
        f"What is about the brain: predicted responses match measured ones with r = {np.nanmean(found.response_r):.3f} (mean "
        f"over {int(np.isfinite(found.response_r).sum())} voxels) and have {share} of their variance.",
    ]

    noisy = f"With as much noise added as predicted and measured responses differ by, the cycle gives {score['noisy']}"
    if "brain" in score:
        sentences.append(f"{noisy}; measured responses to the same pictures give {score['brain']}.")
    else:
        sentences.append(f"{noisy}.")

    if found.gain is not None:
        sentences.append(
            f"The cycle is {found.gain:.3f} better than the brain it imitates: predictions are "
            "free of noise, and made by the recipe's own maps."
        )

    sentences.append(
        f"Controls: pairing shuffled {score['shuffled']}, a wrong picture encoded {score['wrong']}, the mean training "
        f"picture {score['mean']}."
    )

    if found.depends_on_batch:
        sentences.append(
            f"The recipe '{found.recipe}' is not inductive: what comes back of a picture depends on which "
            "others go round with it, so a novel picture is measured by its company and no score here is its own."
        )

    sentences.append(_what_went_round(found))
    return sentences


def _what_went_round(found: CycleFindings) -> str:
    if found.is_folder:
        source = "pictures of the folder given"
    else:
        source = "test pictures"

    if found.n_folds > 1:
        folds = f"all {found.n_folds} folds"
    elif found.n_folds_of_run == 1:
        folds = "the only fold"
    else:
        folds = "one fold"

    return f"{found.n} {source}, none of them paired in training; recipe of {folds}."


def _figures(found: CycleFindings, inputs: Mapping[str, str], measures: Mapping[str, str]) -> dict[str, Drawing]:
    # Shuffled pictures are those of the cycle, in another order.
    others = {inputs[arm]: pixels for arm, pixels in found.pictures.items() if arm not in ("cycle", "shuffled")}
    pictures = drawing.picture_rows(
        found.true, found.pictures["cycle"], others, labels=("input picture", inputs["cycle"]), width=9.0
    )

    # What is about voxels has another scale and no controls.
    of_pictures = {name: words for name, words in measures.items() if name != "response_r"}
    scores = drawing.scores(found.table, inputs, of_pictures, found.chance)

    return {
        "pictures": Drawing(
            pictures,
            "Rows of pictures: the input, what comes back from predicted responses, with real noise, from measured "
            "responses, and controls.",
            "Round trip of the first pictures. Compare the second row, which never met a brain, with the measured one.",
        ),
        "scores": Drawing(
            scores,
            "Scores of the cycle and its controls with intervals; the numbers stand in the table.",
            "Scores against the input picture, with 95 % intervals over pictures; chance dashed.",
        ),
    }
