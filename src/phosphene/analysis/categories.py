"""Categories: what can a linear reader tell of each label from voxels, from what voxels are mapped to, and from the truth?

One reader per input and label, fitted on the training stimuli, scored on the test stimuli by the area under the ROC curve:

    brain            voxels, repeats averaged
    mapped.SPACE     latents decoded from them, in every space of latents the recipe has
    true.SPACE       the same latents of the pictures themselves: as if the map were perfect

Penalties are chosen inside the training stimuli. The null is the same procedure with the labels of the training stimuli dealt
out at random, whole rows at a time, so that labels keep their frequencies and co-occurrences.

Paper: Lin et al. 2022 (Mind Reader), section 3.4 (category classifiers), table 2: 171 labels of COCO from CLIP and ResNet-50,
true and mapped, by networks of two hidden layers; here by linear ones, whose penalty can be chosen. Labels are those of the
data set: NSD's may name what its crop cut off, as theirs do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analysis.interface import COLUMNS, Analysis, Findings
from phosphene.analysis.labels import STUFF, THINGS, LabelReader, Material, area, mean_area, prepare
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.statistics import Statistic, bootstrap
from phosphene.run import Run
from phosphene.types import Stimuli

__all__ = ["BRAIN", "Categories", "CategoriesFindings", "CategoriesOptions"]

BRAIN = "brain"


class CategoriesOptions(Config):
    """How labels are read."""

    reader: Literal["ridge", "logistic"] = Field(
        default="ridge",
        description="least squares with exact leave-one-out, a penalty per label; or logistic, in three inner folds",
    )
    n_null: int = Field(default=20, ge=1, le=1000, description="fits with shuffled labels (logistic: at most 3)")
    min_positives: int = Field(default=3, ge=1, description="test stimuli with, and without, a label that is scored")
    fold: int = Field(default=0, ge=0, description="fold of the run")


@dataclass(frozen=True, kw_only=True, eq=False)
class CategoriesFindings(Findings):
    """How well each label is read off each input. The tables ``labels`` and ``differences`` hold the numbers.

    Attributes
    ----------
    table : DataFrame
        mean areas: ``auc``, ``auc_things``, ``auc_stuff``, ``auc_null``, and ``ratio`` to the voxels' in per cent
    tables : mapping of str to DataFrame
        ``labels``, a row per input and label; ``differences``, every input minus the voxels
    inputs : tuple of str
        ``brain``, ``mapped.SPACE``, ``true.SPACE``, in the order shown
    reader : {"ridge", "logistic"}
        how labels are read
    n_labels, n_dropped : int
        labels scored, and left out for want of test stimuli with or without them
    n_train, n_test : int
        stimuli
    fewest : int
        test stimuli with the rarest label
    """

    inputs: tuple[str, ...]
    reader: Literal["ridge", "logistic"]
    n_labels: int
    n_dropped: int
    n_train: int
    n_test: int
    fewest: int


class Categories(Analysis[CategoriesOptions]):
    """Fit a linear reader of every label on voxels, decoded latents and true latents, and compare their areas.

    Parameters
    ----------
    options : CategoriesOptions, optional
        how labels are read
    seed : int, default 0
        of inner folds, shuffled labels and bootstraps
    """

    name = "categories"
    title = "Which categories can be read"
    options_class = CategoriesOptions

    def run(self, opened: Run, progress: Progress) -> CategoriesFindings:
        """Fit a reader of every label on every input and score it on the test stimuli.

        Parameters
        ----------
        opened : Run
            a fitted run
        progress : Progress
            where progress is shown

        Returns
        -------
        CategoriesFindings
            tables, and the facts that sentences and figures are made of
        """
        with progress.step("decoding latents"):
            material = prepare(opened, self.options.fold, self.rng("folds"), self.options.min_positives)
            inputs = _inputs(material, opened.stimuli)

        scores: dict[str, np.ndarray] = {}  # (n_test, n_labels) each
        null: dict[str, np.ndarray] = {}  # (n_null, n_labels) each

        for name, (train, test) in progress.each(inputs.items(), "reading labels", unit="input"):
            reader = LabelReader(self.options.reader).fit(train, material.train_labels, material.folds)
            scores[name] = reader.read(test)
            null[name] = self._null(name, material, train, test)

        return CategoriesFindings(
            table=self._table(material, scores, null),
            tables={
                "labels": self._label_table(material, scores, null),
                "differences": self._differences(material, scores),
            },
            inputs=tuple(inputs),
            reader=self.options.reader,
            n_labels=len(material.names),
            n_dropped=material.n_dropped,
            n_train=len(material.train),
            n_test=len(material.test),
            fewest=int(material.test_labels.sum(axis=0).min()),
        )

    def _null(self, name: str, material: Material, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """(n_null, n_labels) areas after fits with shuffled labels; all of them in one ridge, side by side."""
        # Logistic readers are fitted one by one, each over seven penalties in three folds.
        n_null = self.options.n_null
        if self.options.reader == "logistic":
            n_null = min(3, n_null)

        rng = self.rng("null", name)
        n_labels = len(material.names)
        shuffled = []
        for _ in range(n_null):
            shuffled.append(material.train_labels[rng.permutation(len(train))])

        targets = np.concatenate(shuffled, axis=1)  # (n_train, n_null * n_labels)
        read = LabelReader(self.options.reader).fit(train, targets, material.folds).read(test)

        areas = np.empty((n_null, n_labels))
        for draw in range(n_null):
            for j in range(n_labels):
                areas[draw, j] = area(read[:, draw * n_labels + j], material.test_labels[:, j])

        return areas

    def _label_table(
        self, material: Material, scores: Mapping[str, np.ndarray], null: Mapping[str, np.ndarray]
    ) -> pd.DataFrame:
        """The area of every label off every input, with the middle 95 % of readers of shuffled labels."""
        rows = []
        for name, read in scores.items():
            for j, label in enumerate(material.names):
                # A column of one, as the mean over labels wants labels along the second axis.
                has_label = material.test_labels[:, [j]]  # (n_test, 1)
                n = len(has_label)
                interval = bootstrap(mean_area(read[:, [j]], has_label), n, rng=self.rng(name, label), n_draws=1000)
                null_bounds = np.quantile(null[name][:, j], [0.025, 0.975])
                rows.append((name, label, material.groups[j], *interval, int(has_label.sum()), n, *null_bounds))

        columns = ["input", "label", "group", "auc", "ci_low", "ci_high", "n_with", "n", "null_low", "null_high"]
        return pd.DataFrame(rows, columns=columns)

    def _table(
        self, material: Material, scores: Mapping[str, np.ndarray], null: Mapping[str, np.ndarray]
    ) -> pd.DataFrame:
        """Means over all labels, things and stuff; shuffled labels; and in per cent of the voxels' mean."""
        n = len(material.test_labels)
        parts = {"auc": np.ones(len(material.names), dtype=bool)}
        if len(set(material.groups)) > 1:
            for group in (THINGS, STUFF):
                parts[f"auc_{group}"] = material.groups == group

        # Both sides of a ratio are functions of the same draws of stimuli, so that what is hard for both cancels.
        of_voxels = mean_area(scores[BRAIN], material.test_labels)
        rows: list[tuple] = []

        for name, read in scores.items():
            for measure, is_part in parts.items():
                statistic = mean_area(read[:, is_part], material.test_labels[:, is_part])
                rows.append((name, measure, *bootstrap(statistic, n, rng=self.rng(name, measure), n_draws=1000), n))

            of_fits = null[name].mean(axis=1)  # (n_null,)
            rows.append((name, "auc_null", of_fits.mean(), *np.quantile(of_fits, [0.025, 0.975]), n))

            if name != BRAIN:
                per_cent = _per_cent(mean_area(read, material.test_labels), of_voxels)
                rows.append((name, "ratio", *bootstrap(per_cent, n, rng=self.rng(name, "ratio"), n_draws=1000), n))

        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _differences(self, material: Material, scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Every input minus the voxels, drawing the same stimuli for both."""
        of_voxels = mean_area(scores[BRAIN], material.test_labels)
        n = len(material.test_labels)
        rows = []

        for name, read in scores.items():
            if name != BRAIN:
                difference = _difference(mean_area(read, material.test_labels), of_voxels)
                rows.append((name, *bootstrap(difference, n, rng=self.rng("minus", name)), n))

        return pd.DataFrame(rows, columns=["input", "difference", "ci_low", "ci_high", "n"])


def _inputs(material: Material, stimuli: Stimuli) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of every input."""
    train = material.train
    test = material.test
    recipe = material.recipe
    decoded_train = recipe.latents(train)
    decoded_test = recipe.latents(test)
    true_train = recipe.true_latents(stimuli.select(train.stimuli))
    true_test = recipe.true_latents(stimuli.select(test.stimuli))

    inputs = {BRAIN: (material.voxels(train), material.voxels(test))}
    for space in material.spaces:
        inputs[f"mapped.{space}"] = (np.asarray(decoded_train[space]), np.asarray(decoded_test[space]))

    for space in material.spaces:
        inputs[f"true.{space}"] = (np.asarray(true_train[space]), np.asarray(true_test[space]))

    return inputs


def _difference(a: Statistic, b: Statistic) -> Statistic:
    return lambda counts: a(counts) - b(counts)


def _per_cent(a: Statistic, b: Statistic) -> Statistic:
    return lambda counts: 100 * a(counts) / b(counts)
