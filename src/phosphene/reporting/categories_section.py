"""Which categories can be read (``phosphene.analysis.categories``), in sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phosphene.analysis.categories import BRAIN, CategoriesFindings
from phosphene.analysis.labels import STUFF, THINGS
from phosphene.reporting import drawing
from phosphene.reporting.flatmap import short
from phosphene.reporting.presentation import Drawing, Presentation
from phosphene.reporting.rows import rows_at
from phosphene.reporting.wording import capital, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["present_categories"]

_MEASURES = {
    "auc": "Mean AUC, all labels",
    "auc_things": "Mean AUC, things",
    "auc_stuff": "Mean AUC, stuff",
    "auc_null": "Mean AUC, shuffled labels",
    "ratio": "Per cent of the voxels'",
}
_NOTES = {
    "auc": "Area under the ROC curve, mean over labels; 0.5 is chance. Readers are fitted on training stimuli.",
    "auc_null": "The same with the training labels dealt out at random; the interval is the middle 95 % of fits.",
    "above": "Labels whose interval lies above 0.5, as a share.",
    "ratio": "In per cent of what is read off the voxels themselves.",
}
_READERS = {
    "ridge": "ridge, a penalty per label by leave-one-out",
    "logistic": "logistic, a penalty per label in folds",
}
_COLOURS = (drawing.BRAIN, drawing.CEILING, "#4f8a5b", "#8a5f9e", "#b8902f", "#5b7f95", "#9e5f5f")
_PER_COLUMN = 30


def present_categories(found: CategoriesFindings) -> Presentation:
    """Turn the findings into sentences and figures.

    Parameters
    ----------
    found : CategoriesFindings
        what the analysis found

    Returns
    -------
    Presentation
        sentences, words for the table, figures and notes
    """
    inputs = {name: _input_words(name) for name in found.inputs}

    return Presentation(
        sentences=_sentences(found, inputs),
        inputs=inputs,
        measures=_MEASURES,
        figures=_figures(found, inputs),
        notes=_NOTES,
    )


def _input_words(name: str) -> str:
    kind, _, space = name.partition(".")
    words = {BRAIN: "voxels", "mapped": "decoded latents", "true": "true latents"}[kind]
    if space:
        return f"{words}, {space}"

    return words


def _sentences(found: CategoriesFindings, inputs: Mapping[str, str]) -> list[str]:
    rows = found.table.set_index(["input", "measure"])

    def score(name: str, measure: str = "auc") -> str:
        return with_interval(rows.loc[(name, measure)])

    labels = found.tables["labels"]
    of_voxels = rows_at(labels, labels["input"] == BRAIN).sort_values("auc", ascending=False)
    n_clear = np.count_nonzero(of_voxels["ci_low"].to_numpy(float) > 0.5)
    best = of_voxels.iloc[0]
    worst = of_voxels.iloc[-1]

    sentences = [
        f"Voxels tell {n_clear} of {found.n_labels} categories from the rest beyond doubt, with a mean area under the ROC "
        f"curve of {score(BRAIN)} (chance 0.5; with shuffled labels {score(BRAIN, 'auc_null')})."
    ]

    for row in found.tables["differences"].to_dict("records"):
        if row["ci_low"] > 0:
            verdict = "more"
        elif row["ci_high"] < 0:
            verdict = "less"
        else:
            verdict = "no more and no less that can be told"

        sentences.append(
            f"{capital(inputs[row['input']])} give {score(row['input'])}: {verdict} than the voxels "
            f"({row['difference']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}], the same stimuli)."
        )

    sentences.append(
        f"Best read off voxels: {best['label']} ({best['auc']:.2f}); worst: {worst['label']} ({worst['auc']:.2f})."
    )

    if (BRAIN, f"auc_{THINGS}") in rows.index:
        sentences.append(
            f"Things {score(BRAIN, f'auc_{THINGS}')}, stuff {score(BRAIN, f'auc_{STUFF}')} off the voxels. Things are the "
            "labels that are the main category of some picture."
        )

    dropped = ""
    if found.n_dropped:
        dropped = f", {found.n_dropped} more labels left out for want of them"

    sentences.append(
        f"{found.n_test} test stimuli, {found.fewest} or more with each label{dropped}; "
        f"{found.n_train} training stimuli; readers: {_READERS[found.reader]}."
    )

    return sentences


# -- figures -----------------------------------------------------------------------------------------------------------


def _figures(found: CategoriesFindings, inputs: Mapping[str, str]) -> dict[str, Drawing]:
    drawn = set(found.table["measure"]) - {"ratio"}
    measures = {name: words for name, words in _MEASURES.items() if name in drawn}

    return {
        "labels": Drawing(
            _label_figure(found.tables["labels"], inputs),
            "Area under the ROC curve of every category for every input, with intervals; the numbers stand in labels.csv.",
            "How well each category is read off each input, with 95 % intervals over test stimuli. The grey band is "
            "where readers of shuffled labels fall, chance is dashed.",
        ),
        "means": Drawing(
            drawing.scores(found.table, inputs, measures, dict.fromkeys(measures, 0.5)),
            "Mean area under the ROC curve of every input; the numbers stand in the table.",
            "Means over categories with 95 % intervals; chance dashed.",
        ),
    }


def _label_figure(labels: pd.DataFrame, inputs: Mapping[str, str]) -> Figure:
    """A line per category, a colour per input; things above stuff, the best read off voxels first."""
    of_voxels = rows_at(labels, labels["input"] == BRAIN).assign(is_stuff=lambda table: table["group"] != THINGS)
    order = list(of_voxels.sort_values(["is_stuff", "auc"], ascending=[True, False])["label"])
    group = dict(zip(of_voxels["label"], of_voxels["group"], strict=True))

    n_columns = -(-len(order) // _PER_COLUMN)
    per_column = -(-len(order) // n_columns)
    step = 0.54 / max(1, len(inputs) - 1)
    row_height = max(0.17, 0.07 * len(inputs))
    width = 6.4
    if n_columns > 1:
        width = 1.2 + 3.6 * n_columns

    with drawing.style():
        figure = drawing.empty(width, 0.8 + row_height * per_column)
        panels = figure.subplots(1, n_columns, squeeze=False, sharex=True).ravel()

        for c, axes in enumerate(panels):
            part = order[c * per_column : (c + 1) * per_column]
            _label_panel(axes, labels, part, inputs, step)

            # A line where things end and stuff begins.
            for i in range(1, len(part)):
                if group[part[i]] != group[part[i - 1]]:
                    axes.axhline(i - 0.5, color=drawing.MUTED, linewidth=0.7)

            axes.set_xlabel("area under the ROC curve")

        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=min(len(inputs), 3 * n_columns))

    return figure


def _label_panel(
    axes: Axes, labels: pd.DataFrame, order: Sequence[str], inputs: Mapping[str, str], step: float
) -> None:
    rows = labels.set_index(["input", "label"])
    offset = step * (len(inputs) - 1) / 2

    for y, label in enumerate(order):
        null = rows.loc[(BRAIN, label)]
        axes.fill_betweenx(
            [y - 0.46, y + 0.46], null["null_low"], null["null_high"], color=drawing.GRID, alpha=0.7, linewidth=0
        )

    for i, (name, words) in enumerate(inputs.items()):
        part = rows.loc[[(name, label) for label in order]]
        y = np.arange(len(order)) - offset + i * step
        colour = _COLOURS[i % len(_COLOURS)]
        axes.hlines(y, part["ci_low"], part["ci_high"], color=colour, linewidth=1.1, alpha=0.75)
        axes.plot(part["auc"], y, "o", color=colour, markersize=3.4, label=short(words, 40))

    axes.axvline(0.5, color=drawing.MUTED, linewidth=1, linestyle=drawing.DASHED, zorder=1.5)
    axes.set_yticks(range(len(order)), [short(label, 22) for label in order])
    axes.tick_params(axis="y", length=0, labelcolor=drawing.INK)
    axes.set_ylim(len(order) - 0.45, -0.55)
    axes.set_xlim(right=1.01)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
