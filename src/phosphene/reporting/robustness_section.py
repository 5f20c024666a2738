"""How many voxels can be lost (``phosphene.analysis.robustness``), in sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phosphene.analysis.categories import BRAIN
from phosphene.analysis.robustness import FALL, INFORMED, RANDOM, RobustnessFindings
from phosphene.metrics.metric import PICTURES
from phosphene.reporting import drawing
from phosphene.reporting.flatmap import short
from phosphene.reporting.presentation import Drawing, Presentation
from phosphene.reporting.rows import rows_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["INPUTS", "present_robustness", "robustness_measure_words"]

INPUTS = {RANDOM: "random voxels", INFORMED: "most informative first"}
_COLOURS = {RANDOM: drawing.BRAIN, INFORMED: drawing.CEILING}
_POINTS = {"full": "every voxel", "none": "no voxel", "lost": "share that can be lost"}
_NETWORKS = {"clip_lab": "lab CLIP", "scenes": "classifier"}
_INFORMATIVE = {
    "recipe": "Informative is what the recipe itself weights most.",
    "readers": "Informative is what readers of categories weight most in training.",
    "unknown": "Which voxels are informative is not known: the recipe weights none and there are no labels.",
}


def present_robustness(found: RobustnessFindings) -> Presentation:
    """Turn the findings into sentences and figures.

    Parameters
    ----------
    found : RobustnessFindings
        what the analysis found

    Returns
    -------
    Presentation
        sentences, words for the table, figures and notes
    """
    words = {measure: robustness_measure_words(measure) for measure in found.chance}
    measures = {}
    notes = {}

    for measure, title in words.items():
        for point, of_point in _POINTS.items():
            measures[f"{point}.{measure}"] = f"{title}: {of_point}"

        notes[f"lost.{measure}"] = (
            f"Share of all voxels that can be lost before the score falls by {100 * FALL:.0f} % of what it has "
            "above chance; between the shares tried, on a straight line."
        )

    return Presentation(
        sentences=_sentences(found, words),
        inputs={order: title for order, title in INPUTS.items() if order in set(found.table["input"])},
        measures=measures,
        figures=_figures(found, words),
        notes=notes,
    )


def robustness_measure_words(measure: str) -> str:
    """A measure for people.

    Parameters
    ----------
    measure : str
        ``two_way.SPACE``, ``auc.INPUT`` or ``picture.METRIC``

    Returns
    -------
    str
        its title

    Examples
    --------
    >>> robustness_measure_words("auc.mapped.clip_lab"), measure_words("picture.two_way.pictures.scenes")
    ('Categories, from clip_lab', 'Pictures two-way, classifier')
    """
    kind, _, rest = measure.partition(".")
    if kind == "two_way":
        return f"Two-way, {rest}"

    if kind == "auc":
        if rest == BRAIN:
            return "Categories, from voxels"

        return f"Categories, from {rest.removeprefix('mapped.')}"

    known = {"pixcorr": "Pictures, PixCorr", "ssim.2d": "Pictures, SSIM", "two_way.pixels": "Pictures two-way, pixels"}
    if rest in known:
        return known[rest]

    network = rest.removeprefix(f"two_way.{PICTURES}")
    return f"Pictures two-way, {_NETWORKS.get(network, network)}"


# -- sentences ---------------------------------------------------------------------------------------------------------


def _sentences(found: RobustnessFindings, words: Mapping[str, str]) -> list[str]:
    rows = found.table.set_index(["input", "measure"])
    small = {measure: title[:1].lower() + title[1:] for measure, title in words.items()}

    def lost(order: str, measure: str) -> str:
        row = rows.loc[(order, f"lost.{measure}")]
        return f"{100 * row['value']:.0f} % [{100 * row['ci_low']:.0f}, {100 * row['ci_high']:.0f}]"

    # Latents and readers of categories come before pictures.
    head = next((m for m in found.standing if m.startswith(("two_way.", "auc."))), next(iter(found.standing), None))

    if head is None:
        sentences = ["No score is clear of chance with every voxel there, so there is nothing to lose."]
    else:
        informed = ""
        if head in found.informed:
            informed = f", and {lost(INFORMED, head)} when the most informative go first"

        sentences = [
            f"Of {found.n_voxels} voxels, {lost(RANDOM, head)} can be lost at random before the score ({small[head]}) "
            f"falls by {100 * FALL:.0f} % of what it is above chance{informed}."
        ]

        others = [f"{small[measure]} {lost(RANDOM, measure)}" for measure in found.standing if measure != head]
        if others:
            sentences.append(f"At random, for the other scores: {'; '.join(others)}.")

        weak = [small[measure] for measure in words if measure not in found.standing]
        if weak:
            sentences.append(f"Not clear of chance to begin with: {'; '.join(weak)}.")

    ends = []
    for measure, chance in found.chance.items():
        value = rows.loc[(RANDOM, f"none.{measure}"), "value"]
        ends.append(f"{small[measure]} {value:.3f} (chance {chance:.3f})")

    sentences.append(f"Control, every voxel lost: {'; '.join(ends)}.")

    unused = ""
    if found.n_unused:
        unused = f" {found.n_unused} voxels count nothing and go last."

    sentences.append(
        f"Lost voxels are set to their mean over training stimuli; {found.n_test} test stimuli; {found.n_draws} random "
        f"orders, averaged. {_INFORMATIVE[found.informative]}{unused}"
    )

    return sentences


# -- figures -----------------------------------------------------------------------------------------------------------


def _figures(found: RobustnessFindings, words: Mapping[str, str]) -> dict[str, Drawing]:
    figures = {
        "curves": Drawing(
            _curves(found.tables["curve"], found.table, words, found.chance),
            "Each score against the share of voxels lost, at random and most informative first; numbers in curve.csv.",
            "Scores against the share of voxels lost, with 95 % intervals over stimuli. Chance is dashed; a ring "
            f"marks where a score has lost {100 * FALL:.0f} % of what it was above chance.",
        )
    }

    if found.pictures:
        rows = {f"{100 * share:g} % lost": pictures for share, pictures in found.pictures.items()}
        first, *others = rows
        pictures = drawing.picture_rows(
            found.true, rows[first], {name: rows[name] for name in others}, labels=("seen", first), width=9.0
        )
        figures["pictures"] = Drawing(
            pictures,
            "Rows of pictures: seen, and decoded with more and more voxels lost.",
            "The first test pictures, decoded with more and more voxels lost at random. The last row is drawn from no "
            "response at all: whatever it shows, the decoder brings along.",
        )

    return figures


def _curves(curve: pd.DataFrame, table: pd.DataFrame, words: Mapping[str, str], chance: Mapping[str, float]) -> Figure:
    """A panel per measure: its score against the share of voxels lost, in both orders."""
    n_columns = min(4, len(words))
    n_rows = -(-len(words) // n_columns)
    value = table.set_index(["input", "measure"])["value"].to_dict()

    with drawing.style():
        figure = drawing.empty(0.3 + 2.35 * n_columns, 0.4 + 1.9 * n_rows)
        panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()

        for axes in panels[len(words) :]:
            axes.set_visible(False)

        for i, (axes, (measure, title)) in enumerate(zip(panels, words.items(), strict=False)):
            for order, colour in _COLOURS.items():
                part = rows_at(curve, (curve["measure"] == measure) & (curve["input"] == order))
                if part.empty:
                    continue

                x = 100 * part["lost"]
                axes.fill_between(x, part["ci_low"], part["ci_high"], color=colour, alpha=0.16, linewidth=0)
                axes.plot(x, part["value"], "-o", color=colour, linewidth=1.5, markersize=2.6, label=INPUTS[order])

                # A ring where the score has fallen.
                lost = value.get((order, f"lost.{measure}"), np.nan)
                if np.isfinite(lost):
                    y = np.interp(100 * lost, x, part["value"])
                    axes.plot(100 * lost, y, "o", color=colour, markersize=8, markerfacecolor="none", clip_on=False)

            if np.isfinite(chance[measure]):
                axes.axhline(chance[measure], color=drawing.MUTED, linewidth=1, linestyle=drawing.DASHED, zorder=0)

            axes.set_title(short(title, 34))
            axes.set_xlim(-2, 102)
            axes.locator_params(axis="y", nbins=5)
            axes.grid(axis="y")
            axes.set_axisbelow(True)

            if i >= len(words) - n_columns:
                axes.set_xlabel("voxels lost, %")

        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2)

    return figure
