"""Pictures from noise (``phosphene.analysis.reliability``), in sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from phosphene.analysis.image_stats import ImageStatsSource
from phosphene.analysis.reliability import NOISES, SAME, ReliabilityFindings
from phosphene.reporting import drawing
from phosphene.reporting.presentation import Drawing, Presentation
from phosphene.reporting.wording import confidence_words, space_words
from phosphene.types.identity import listed

__all__ = ["INPUTS", "present_reliability"]

INPUTS = {
    "true": "true pictures",
    "brain": "brain",
    "gaussian": "matched noise",
    "independent": "independent noise",
    "far": "noise, {scale:g} times as large",
    "zeros": "zeros",
    "mean": "mean response",
}
_MEASURES = {
    "confidence": "Confidence",
    "entropy": "Entropy (bits)",
    "nearest": "Cosine to nearest training",
    "match": "More like what was seen",
    "likeness": "Cosine to each other",
    "latent_likeness": "Cosine of latents to each other",
    "distinct": "Distinct categories, share",
    "categories": "Effective categories",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "auc_brain": "Brain the more confident",
    "auc_true": "True the more confident",
}
_CONDUCT = {
    "inductive": "A noise response decoded alone gives the same picture as in its batch.",
    "random": "The recipe '{recipe}' draws its pictures by chance: the same noise response decoded twice gives two "
    "pictures, so whether a picture depends on the other rows of its batch cannot be told.",
    "batch": "The recipe '{recipe}' is not inductive: a noise response decoded alone gives another picture than in its "
    "batch, so what is decoded depends on the other rows.",
    "company": "The recipe '{recipe}' is not inductive: it refuses a response that comes alone. A batch of noise was measured by "
    "itself here, which can make its pictures as plausible as those of a batch from the brain.",
}


def present_reliability(found: ReliabilityFindings) -> Presentation:
    """Turn the findings into sentences and figures.

    Parameters
    ----------
    found : ReliabilityFindings
        what the analysis found

    Returns
    -------
    Presentation
        sentences, words for the table, figures and notes
    """
    inputs = {name: words.format(scale=found.far) for name, words in INPUTS.items()}
    measures = {name: words for name, words in _MEASURES.items() if name in set(found.table["measure"])}

    return Presentation(
        sentences=_sentences(found, inputs),
        inputs=inputs,
        measures=measures,
        figures=_figures(found, inputs, measures),
        notes=_notes(found.source),
    )


# -- sentences ---------------------------------------------------------------------------------------------------------


def _sentences(found: ReliabilityFindings, inputs: Mapping[str, str]) -> list[str]:
    value = found.table.set_index(["input", "measure"])["value"].to_dict()
    match = found.table[found.table["measure"] == "match"].set_index("input")
    noises = {
        "gaussian": "matched noise",
        "independent": "independent noise",
        "far": f"noise {found.far:g} times as large",
    }
    sentences = [_verdict(found, match, noises), _comparisons(value, noises), _RULE]

    if "brain" in match.index:
        brain = match.loc["brain"]
        others = ", ".join(f"{match.loc[name, 'value']:.2f}" for name in NOISES)
        sentences.append(
            f"How often a picture decoded from the brain is more like the picture seen than like another: "
            f"{brain['value']:.2f} [{brain['ci_low']:.2f}, {brain['ci_high']:.2f}] (chance 0.5; the three noises, which were "
            f"shown nothing: {others})."
        )

    remaining = found.verdict.remaining
    if np.isfinite(remaining) and remaining > 0.01:
        sentences.append(
            f"Given the same response again and again, {100 * min(remaining, 9.99):.0f} % of the difference between "
            "decoded pictures remains: that part is drawn by chance, not by the brain."
        )

    if ("brain", "categories") in value:
        sentences.append(
            f"Categories read off the pictures, as an effective number: {value['true', 'categories']:.1f} in the true "
            f"pictures, {value['brain', 'categories']:.1f} decoded from the brain, "
            f"{value['gaussian', 'categories']:.1f} from matched noise."
        )

    likeness = value.get(("brain", "likeness"), np.nan)
    if np.isfinite(likeness):
        sentences.append(
            f"Mean cosine between two pictures in {space_words(found.source)}: {value['true', 'likeness']:.2f} for true "
            f"pictures, {likeness:.2f} decoded from the brain, {value['gaussian', 'likeness']:.2f} from matched noise."
        )
    else:
        sentences.append("A single picture per fold: how diverse pictures are is not known.")

    if found.n_undefined:
        counts = ", ".join(f"{n} from {inputs[name]}" for name, n in found.n_undefined.items())
        sentences.append(f"Pictures that hold values which are no numbers: {counts}. These values are read as grey.")

    for conduct in found.conduct:
        sentences.append(_CONDUCT[conduct].format(recipe=found.recipe))

    sentences.append(_what_was_decoded(found))
    return sentences


_RULE = (
    f"Rule: a decoder is exposed when a true picture and a brain-decoded one are each the more confident in fewer "
    f"than two of three comparisons with one decoded from noise, when over {100 * SAME:.0f} % of the difference "
    "between its pictures remains while the response stays the same, or when its pictures from the brain are no more "
    "like what was seen than chance has it."
)


def _verdict(found: ReliabilityFindings, match: pd.DataFrame, noises: Mapping[str, str]) -> str:
    verdict = found.verdict

    if verdict.outcome == "drawn by chance":
        return (
            "Exposed: the pictures differ as chance has it and not as the brain does. They alone are no evidence of "
            "decoding."
        )

    if verdict.outcome == "no more than noise":
        return (
            "Exposed: pictures decoded from the brain show no more of what was seen than pictures from noise do, as far as "
            f"{int(match.loc['brain', 'n'])} of them can tell. They are the prior's, and no evidence of decoding."
        )

    if verdict.outcome == "noise passes":
        passing = _names(verdict.passing, noises)
        return (
            f"Exposed: {passing} gives pictures about as confident as the brain's and as true ones. "
            "However good they look, the pictures alone are no evidence of decoding; only scores against controls are."
        )

    if verdict.outcome == "looks say nothing":
        return (
            f"Not exposed, but looks say nothing: pictures from {_names(verdict.alike, noises)} are about as confident "
            "as those from the brain, or more, and less so than true ones. Only scores against controls can tell."
        )

    return "Not exposed: pictures decoded from the brain are clearly more confident than any decoded from noise."


def _names(keys: Sequence[str], noises: Mapping[str, str]) -> str:
    return listed([noises[key] for key in keys])


def _comparisons(value: Mapping[tuple[str, str], float], noises: Mapping[str, str]) -> str:
    numbers = "; ".join(
        f"{noises[name]} {value[name, 'auc_brain']:.2f} (true pictures {value[name, 'auc_true']:.2f})"
        for name in NOISES
    )
    return f"How often the brain's picture is the more confident one of two, against {numbers}."


def _what_was_decoded(found: ReliabilityFindings) -> str:
    if found.n_folds > 1:
        folds = f"all {found.n_folds} folds"
    elif found.n_folds_of_run == 1:
        folds = "the only fold"
    else:
        folds = "a single fold"

    sentence = (
        f"Decoded with the recipe of {folds}: {found.n} test "
        f"responses and as many of each noise. Confidence is {confidence_words(found.source)}."
    )

    if found.source.has_clip and found.source.has_classifier:
        return sentence

    return f"{sentence} The lab's networks do not apply to these pictures or are not installed."


def _notes(source: ImageStatsSource) -> dict[str, str]:
    space = space_words(source)
    some = ""
    if source.is_thinned:
        some = f" ({source.n_training} of them, evenly spaced)"

    return {
        "confidence": f"{confidence_words(source)}.",
        "nearest": f"To the most similar training picture{some}, in {space}; 1 is a copy.",
        "match": f"Two-way identification of the picture seen in {space}; chance is 0.5, which is where noise belongs.",
        "likeness": f"Mean over pairs of pictures in {space}; 1 when all are alike.",
        "categories": "exp(entropy) of the categories read off the pictures. No interval: drawing again only loses categories.",
        "auc_brain": "Share of pairs in which the picture from the brain is more confident than the one of this column; "
        "0.5 is chance.",
        "auc_true": "The same for true pictures.",
    }


# -- figures -----------------------------------------------------------------------------------------------------------


def _figures(found: ReliabilityFindings, inputs: Mapping[str, str], measures: Mapping[str, str]) -> dict[str, Drawing]:
    controls = {inputs[name]: pixels for name, pixels in found.pictures.items() if name not in ("true", "brain")}
    pictures = drawing.picture_rows(
        found.pictures["true"],
        found.pictures["brain"],
        controls,
        labels=(inputs["true"], "decoded from brain"),
        width=9.0,
    )

    drawn = ("confidence", "nearest", "likeness", "contrast")
    scores = drawing.scores(found.table, inputs, {name: measures[name] for name in drawn if name in measures})

    return {
        "pictures": Drawing(
            pictures,
            "Rows of pictures: true, decoded from the brain, and decoded from each kind of noise.",
            "The first test pictures, what was decoded from the brain, and what the same recipe draws from noise. A "
            "row of convincing pictures below the second one is the prior at work.",
        ),
        "looks": Drawing(
            scores,
            "Confidence, nearness to training pictures, likeness among themselves and contrast of the pictures of "
            "every input; the numbers stand in the table.",
            "How the pictures of each input look, with 95 % intervals over pictures.",
        ),
    }
