"""Categories: what can a linear reader tell of each label from voxels, from what voxels are mapped to, and from the truth?

One reader per input and label, fitted on the training stimuli, scored on the test stimuli by the area under the ROC curve:

    brain            voxels, repeats averaged
    mapped.SPACE     latents decoded from them, in every space of latents the recipe has
    true.SPACE       the same latents of the pictures themselves: as if the map were perfect

Penalties are chosen inside the training stimuli. The null is the same procedure with the labels of the training stimuli dealt
out at random, whole rows at a time, so that labels keep their frequencies and company.

Paper: Lin et al. 2022 (Mind Reader), section 3.4 (category classifiers), table 2: 171 labels of COCO from CLIP and ResNet-50,
true and mapped, by networks of two hidden layers; here by linear ones, whose penalty can be chosen. Labels are those of the
data set: NSD's may name what its crop cut off, as theirs do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analysis.base import COLUMNS, Analysis, Drawing, Findings
from phosphene.analysis.labels import STUFF, THINGS, LabelReader, Material, area, labels_of, mean_area, prepare
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.statistics import Statistic, bootstrap
from phosphene.reporting import drawing
from phosphene.run import Run
from phosphene.types import Stimuli

BRAIN = "brain"
_COLOURS = (drawing.BRAIN, drawing.CEILING, "#4f8a5b", "#8a5f9e", "#b8902f", "#5b7f95", "#9e5f5f")
_PER_COLUMN = 30


class CategoriesOptions(Config):
    """How labels are read."""

    reader: Literal["ridge", "logistic"] = Field(
        "ridge",
        description="least squares with exact leave-one-out, a penalty per label; or logistic, in three inner folds",
    )
    n_null: int = Field(20, ge=1, le=1000, description="fits with shuffled labels (logistic: at most 3)")
    min_positives: int = Field(3, ge=1, description="test stimuli with, and without, a label that is scored")
    fold: int = Field(0, ge=0, description="fold of the run")


class Categories(Analysis[CategoriesOptions]):
    """See the top of this file."""

    name = "categories"
    title = "Which categories can be read"
    options_class = CategoriesOptions

    def run(self, opened: Run, progress: Progress) -> Findings:
        """Fit a reader of every label on every input and score it on the test stimuli."""
        with progress.step("decoding latents"):
            m = prepare(opened, self.options.fold, self.rng("folds"), self.options.min_positives)
            inputs = _inputs(m, opened.stimuli)

        scores = {}
        null = {}

        for name, (train, test) in progress.each(inputs.items(), "reading labels", unit="input"):
            scores[name] = LabelReader(self.options.reader).fit(train, m.train_labels, m.folds).read(test)
            null[name] = self._null(name, m, train, test)

        words = {name: _words(name, len(m.recipe.latents(m.test).arrays) > 1) for name in inputs}
        each = self._each(m, scores, null)
        table = self._table(m, scores, null)
        differences = self._differences(m, scores)

        return Findings(
            self._sentences(m, table, each, differences, words),
            table,
            words,
            _MEASURES,
            figures=self._figures(m, each, table, words),
            tables={"labels": each, "differences": differences},
            notes={
                "auc": "Area under the ROC curve, mean over labels; 0.5 is chance. Readers are fitted on training stimuli.",
                "auc_null": "The same with the training labels dealt out at random; the interval is the middle 95 % of fits.",
                "above": "Labels whose interval lies above 0.5, as a share.",
                "ratio": "In per cent of what is read off the voxels themselves.",
            },
        )

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _null(self, name: str, m: Material, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """(n_null, n_labels) areas after fits with shuffled labels; all of them in one ridge, side by side."""
        if self.options.reader == "ridge":
            n = self.options.n_null
        else:
            n = min(3, self.options.n_null)

        rng = self.rng("null", name)
        k = len(m.names)
        dealt = np.concatenate([m.train_labels[rng.permutation(len(train))] for _ in range(n)], axis=1)
        read = LabelReader(self.options.reader).fit(train, dealt, m.folds).read(test)

        return np.array([[area(read[:, d * k + j], m.test_labels[:, j]) for j in range(k)] for d in range(n)])

    def _each(self, m: Material, scores: Mapping[str, np.ndarray], null: Mapping[str, np.ndarray]) -> pd.DataFrame:
        rows = []
        for name, read in scores.items():
            for j, label in enumerate(m.names):
                own = m.test_labels[:, [j]]
                interval = bootstrap(mean_area(read[:, [j]], own), len(own), rng=self.rng(name, label), n_draws=1000)
                spread = np.quantile(null[name][:, j], [0.025, 0.975])
                rows.append((name, label, m.groups[j], *interval, int(own.sum()), len(own), *spread))

        columns = ["input", "label", "group", "auc", "ci_low", "ci_high", "n_with", "n", "null_low", "null_high"]
        return pd.DataFrame(rows, columns=columns)

    def _table(self, m: Material, scores: Mapping[str, np.ndarray], null: Mapping[str, np.ndarray]) -> pd.DataFrame:
        rows: list[tuple] = []
        n = len(m.test_labels)
        every = np.ones(len(m.names), dtype=bool)
        parts = {"auc": every}

        if len(set(m.groups)) > 1:
            parts |= {f"auc_{g}": m.groups == g for g in (THINGS, STUFF)}

        base = mean_area(scores[BRAIN], m.test_labels)
        for name, read in scores.items():
            for measure, which in parts.items():
                own = mean_area(read[:, which], m.test_labels[:, which])
                rows.append((name, measure, *bootstrap(own, n, rng=self.rng(name, measure), n_draws=1000), n))

            of_fits = null[name].mean(axis=1)
            rows.append((name, "auc_null", of_fits.mean(), *np.quantile(of_fits, [0.025, 0.975]), n))
            own = mean_area(read, m.test_labels)

            if name != BRAIN:
                ratio = bootstrap(_ratio(own, base), n, rng=self.rng(name, "ratio"), n_draws=1000)
                rows.append((name, "ratio", *ratio, n))

        table = pd.DataFrame(rows, columns=list(COLUMNS))
        return table

    def _differences(self, m: Material, scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Every input minus the voxels, drawing the same stimuli for both."""
        base = mean_area(scores[BRAIN], m.test_labels)
        n = len(m.test_labels)
        rows = [
            (name, *bootstrap(_minus(mean_area(read, m.test_labels), base), n, rng=self.rng("minus", name)), n)
            for name, read in scores.items()
            if name != BRAIN
        ]

        return pd.DataFrame(rows, columns=["input", "difference", "ci_low", "ci_high", "n"])

    # -- words -----------------------------------------------------------------------------------------------------

    def _sentences(
        self, m: Material, table: pd.DataFrame, each: pd.DataFrame, differences: pd.DataFrame, words: Mapping[str, str]
    ) -> list[str]:
        rows = table.set_index(["input", "measure"])

        def say(name: str, measure: str = "auc") -> str:
            r = rows.loc[(name, measure)]
            return f"{r['value']:.3f} [{r['ci_low']:.3f}, {r['ci_high']:.3f}]"

        brain = each[each["input"] == BRAIN].sort_values("auc", ascending=False)
        clear = int((brain["ci_low"] > 0.5).sum())
        best = brain.iloc[0]
        worst = brain.iloc[-1]
        sentences = [
            f"Voxels tell {clear} of {len(m.names)} categories from the rest beyond doubt, with a mean area under the ROC "
            f"curve of {say(BRAIN)} (chance 0.5; with shuffled labels {say(BRAIN, 'auc_null')})."
        ]

        for r in differences.itertuples():
            if r.ci_low > 0:
                verdict = "more"
            elif r.ci_high < 0:
                verdict = "less"
            else:
                verdict = "no more and no less that can be told"

            sentences.append(
                f"{words[r.input][0].upper()}{words[r.input][1:]} give {say(r.input)}: {verdict} than the voxels "
                f"({r.difference:+.3f} [{r.ci_low:+.3f}, {r.ci_high:+.3f}], the same stimuli)."
            )

        sentences.append(
            f"Best read off voxels: {best['label']} ({best['auc']:.2f}); worst: {worst['label']} ({worst['auc']:.2f})."
        )

        if (BRAIN, f"auc_{THINGS}") in rows.index:
            sentences.append(
                f"Things {say(BRAIN, f'auc_{THINGS}')}, stuff {say(BRAIN, f'auc_{STUFF}')} off the voxels. Things are the "
                "labels that are the main category of some picture."
            )

        if m.n_dropped:
            left = f", {m.n_dropped} more labels left out for want of them"
        else:
            left = ""

        sentences.append(
            f"{len(m.test)} test stimuli, {int(m.test_labels.sum(axis=0).min())} or more with each label{left}; "
            f"{len(m.train)} training stimuli; readers: {_READERS[self.options.reader]}."
        )

        return sentences

    def _figures(
        self, m: Material, each: pd.DataFrame, table: pd.DataFrame, words: Mapping[str, str]
    ) -> dict[str, Drawing]:
        measures = {k: v for k, v in _MEASURES.items() if k in set(table["measure"]) and k != "ratio"}
        return {
            "labels": Drawing(
                _dots(each, words),
                "Area under the ROC curve of every category for every input, with intervals; the numbers stand in labels.csv.",
                "How well each category is read off each input, with 95 % intervals over test stimuli. The grey band is "
                "where readers of shuffled labels fall, chance is dashed.",
            ),
            "means": Drawing(
                drawing.scores(table, words, measures, dict.fromkeys(measures, 0.5)),
                "Mean area under the ROC curve of every input; the numbers stand in the table.",
                "Means over categories with 95 % intervals; chance dashed.",
            ),
        }


_MEASURES = {
    "auc": "Mean AUC, all labels",
    "auc_things": "Mean AUC, things",
    "auc_stuff": "Mean AUC, stuff",
    "auc_null": "Mean AUC, shuffled labels",
    "ratio": "Per cent of the voxels'",
}
_READERS = {
    "ridge": "ridge, a penalty per label by leave-one-out",
    "logistic": "logistic, a penalty per label in folds",
}


def _inputs(m: Material, stimuli: Stimuli) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of every input."""
    sides = m.train, m.test
    decoded = [m.recipe.latents(t) for t in sides]
    true = [m.recipe.true_latents(stimuli.select(t.stimuli)) for t in sides]
    inputs = {BRAIN: tuple(m.voxels(t) for t in sides)}
    inputs |= {f"mapped.{s}": tuple(np.asarray(x[s]) for x in decoded) for s in m.spaces}

    return inputs | {f"true.{s}": tuple(np.asarray(x[s]) for x in true) for s in m.spaces}


def _words(name: str, several: bool) -> str:
    kind, _, space = name.partition(".")
    what = {BRAIN: "voxels", "mapped": "decoded latents", "true": "true latents"}[kind]
    if space:
        return f"{what}, {space}"

    return what


def _minus(a: Statistic, b: Statistic) -> Statistic:
    return lambda counts: a(counts) - b(counts)


def _ratio(a: Statistic, b: Statistic) -> Statistic:
    return lambda counts: 100 * a(counts) / b(counts)


# -- drawing -----------------------------------------------------------------------------------------------------------


def _dots(each: pd.DataFrame, words: Mapping[str, str]) -> Any:
    """A line per category, a colour per input; things above stuff, the best read off voxels first."""
    brain = each[each["input"] == BRAIN].assign(rank=lambda t: t["group"] != THINGS)
    order = list(brain.sort_values(["rank", "auc"], ascending=[True, False])["label"])
    group = dict(zip(brain["label"], brain["group"], strict=True))
    columns = -(-len(order) // _PER_COLUMN)
    per = -(-len(order) // columns)
    step = 0.54 / max(1, len(words) - 1)
    row = max(0.17, 0.07 * len(words))

    with drawing.style():
        figure = drawing.empty(1.2 + 3.6 * columns if columns > 1 else 6.4, 0.8 + row * per)
        panels = figure.subplots(1, columns, squeeze=False, sharex=True).ravel()

        for c, axes in enumerate(panels):
            shown = order[c * per : (c + 1) * per]
            _panel(axes, each, shown, words, step)
            edges = [i for i in range(1, len(shown)) if group[shown[i]] != group[shown[i - 1]]]

            for i in edges:
                axes.axhline(i - 0.5, color=drawing.MUTED, linewidth=0.7)

            axes.set_xlabel("area under the ROC curve")

        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(words), 3 * columns))

    return figure


def _panel(axes: Any, each: pd.DataFrame, shown: Sequence[str], words: Mapping[str, str], step: float) -> None:
    rows = each.set_index(["input", "label"])
    offset = step * (len(words) - 1) / 2

    for y, label in enumerate(shown):
        null = rows.loc[(BRAIN, label)]
        axes.fill_betweenx(
            [y - 0.46, y + 0.46], null["null_low"], null["null_high"], color=drawing.GRID, alpha=0.7, linewidth=0
        )

    for i, (name, word) in enumerate(words.items()):
        part = rows.loc[[(name, label) for label in shown]]
        y = np.arange(len(shown)) - offset + i * step
        colour = _COLOURS[i % len(_COLOURS)]
        axes.hlines(y, part["ci_low"], part["ci_high"], color=colour, linewidth=1.1, alpha=0.75)
        axes.plot(part["auc"], y, "o", color=colour, markersize=3.4, label=drawing.short(word, 40))

    axes.axvline(0.5, color=drawing.MUTED, linewidth=1, linestyle=(0, (2, 1.5)), zorder=1.5)
    axes.set_yticks(range(len(shown)), [drawing.short(label, 22) for label in shown])
    axes.tick_params(axis="y", length=0, labelcolor=drawing.INK)
    axes.set_ylim(len(shown) - 0.45, -0.55)
    axes.set_xlim(right=1.01)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


__all__ = ["Categories", "CategoriesOptions", "LabelReader", "Material", "area", "labels_of", "mean_area", "prepare"]
