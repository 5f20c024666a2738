"""What an evaluation leaves in a run: scores and verdicts at its top, and the tables behind them in ``evaluation/SPLIT``.

A run of a recipe and pictures that were made elsewhere are written alike, so that one page shows both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.flow.decoding import KNOWN_CONTROLS
from phosphene.io import atomic
from phosphene.io.csv_table import csv_text
from phosphene.io.run_folder import RunFolder
from phosphene.io.seals import seal_texts
from phosphene.metrics.controls import paired_differences
from phosphene.metrics.golden import changed_metrics
from phosphene.metrics.metric import Scores, extractor_name
from phosphene.metrics.published import matching, published_rows
from phosphene.metrics.registry import kind_of, metric_of, space_of
from phosphene.metrics.retrieval import retrieval_curve
from phosphene.validity import CHECKS, Evidence, Verdict, verdict_record, verdict_table, why_not_comparable

LARGEST_MATRIX = 3000  # stimuli; a similarity matrix beyond that is not kept for the report

SAMPLE_COLUMNS = ("metric", "n_samples", "mean", "sd", "min", "max", "oracle_best_of_n")
"""Of evaluation/SPLIT/samples.csv. The last uses the truth to choose, and stands beside no score of a decoder."""

_PUBLISHED_COLUMNS = ("method", "compared_with", "value", "comparable", "difference", "source", "table", "note")


# -- tables ------------------------------------------------------------------------------------------------------------


def differences_from_controls(
    scored: Mapping[str, Scores], seed: int, *, groups: Mapping[str, str] | None = None, n_folds: int = 1
) -> pd.DataFrame | None:
    """Paired differences of the brain from each control. ``truth`` is a ceiling, not a control.

    Parameters
    ----------
    scored : mapping of str to Scores
        by input, ``brain`` among them
    seed : int
        of the bootstrap
    groups : mapping of str to str, optional
        stimulus to what it depends on with others; every stimulus for itself by default
    n_folds : int, default 1
        of the split

    Returns
    -------
    DataFrame or None
        rows of differences.csv; None without any control
    """
    tables = []
    for name, scores in scored.items():
        if name in KNOWN_CONTROLS and name != "truth":
            difference = paired_differences(scored["brain"], scores, name, seed=seed, groups=groups, n_folds=n_folds)
            tables.append(difference)

    if tables:
        return pd.concat(tables)

    return None


def named_verdicts(answers: Sequence[Verdict]) -> pd.DataFrame:
    """Rows of validity.csv, with the title of each check and who waived it.

    Parameters
    ----------
    answers : sequence of Verdict
        of `run_checks`

    Returns
    -------
    DataFrame
        id, verdict, value, reason, title, waiver
    """
    titles = [CHECKS[answer.id].title for answer in answers]
    waivers = [answer.waived_by for answer in answers]
    return verdict_table(answers).assign(title=titles, waiver=waivers)


def per_item_rows(scored: Mapping[str, Scores]) -> pd.DataFrame:
    """A row per input, metric and test picture, of metrics that score pictures one by one.

    Parameters
    ----------
    scored : mapping of str to Scores
        by input

    Returns
    -------
    DataFrame
        input, metric, stimulus, value
    """
    parts = []
    for name, scores in scored.items():
        for s in scores.scores:
            if metric_of(s.metric).items == "stimuli":
                rows = {"input": name, "metric": s.metric, "stimulus": s.items, "value": s.per_item}
                parts.append(pd.DataFrame(rows))

    return pd.concat(parts, ignore_index=True)


def skipped_rows(scored: Mapping[str, Scores]) -> pd.DataFrame:
    """What could not be scored, and why: input, metric, reason."""
    rows = []
    for name, scores in scored.items():
        for s in scores.skipped:
            rows.append((name, s.metric, s.reason))

    return pd.DataFrame(rows, columns=["input", "metric", "reason"])


def note_rows(scored: Mapping[str, Scores]) -> pd.DataFrame:
    """What a reader of a score should know: input, metric, note."""
    rows = []
    for name, scores in scored.items():
        for s in scores.scores:
            if s.note:
                rows.append((name, s.metric, s.note))

    return pd.DataFrame(rows, columns=["input", "metric", "note"])


def sample_rows(scores: Scores) -> pd.DataFrame:
    """How the score of the brain spreads over samples, and what an oracle would make of them; empty without samples."""
    rows = []
    for s in scores.scores:
        if s.of_samples:
            values = np.asarray(s.of_samples)
            row = (s.metric, len(values), values.mean(), values.std(ddof=1), values.min(), values.max(), s.oracle_best)
            rows.append(row)

    return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))


def retrieval_rows(similarity: np.ndarray) -> pd.DataFrame:
    """Top-1 retrieval over sizes of the gallery, by pixels; forward finds the true picture of a decoded one.

    Parameters
    ----------
    similarity : ndarray of shape (n, n)
        decoded items in rows, true ones in columns

    Returns
    -------
    DataFrame
        space, direction, gallery, top, value, chance
    """
    rows = []
    for direction in ("forward", "backward"):
        for r in retrieval_curve(similarity, direction=direction):
            rows.append(("pixels", direction, r.size, 1, r.accuracy, r.chance))

    return pd.DataFrame(rows, columns=["space", "direction", "gallery", "top", "value", "chance"])


def published_beside(
    dataset: str,
    split: str,
    scores: pd.DataFrame,
    gathered: Evidence,
    *,
    other_data: str = "",
    test_images: int,
    repeats_averaged: str | int | None,
    subjects: str | None,
    setting: str | None,
    unsaid: Sequence[str] = (),
) -> pd.DataFrame:
    """Published numbers of a data set, each with why it may not be compared; empty columns where there are none.

    Parameters
    ----------
    dataset, split : str
        what was tested on
    scores : DataFrame
        rows of scores.csv
    gathered : Evidence
        with ``golden`` and ``n_features``: whether metrics are those of the papers
    other_data : str, default ""
        why the data may be others than those published; empty for no reason
    test_images : int
        pictures tested
    repeats_averaged : str or int or None
        responses averaged for each; None where nobody knows, which is left unchecked here
    subjects, setting : str or None
        the person and the setting; None where nobody knows
    unsaid : sequence of str, default ()
        fields of a protocol that nobody has said here: a published row that states one is no longer comparable

    Returns
    -------
    DataFrame
        method, metric, value, comparable, difference, source, table, note
    """
    if dataset not in set(published_rows()["dataset"]):
        table = pd.DataFrame(columns=list(_PUBLISHED_COLUMNS))
        return table.rename(columns={"compared_with": "metric"})

    brain = scores.loc[scores["input"] == "brain"]
    matched = matching(
        dataset,
        split,
        metrics=list(brain["metric"]),
        test_images=test_images,
        repeats_averaged=repeats_averaged,
        subjects=subjects,
        setting=setting,
    )

    differences = []
    for row in matched.to_dict("records"):
        difference = str(row["difference"])
        metric = str(row["compared_with"])
        reasons = [other_data, difference, *_unsaid_here(row, unsaid), *_why_another_quantity(metric, brain, gathered)]
        differences.append("; ".join(filter(None, reasons)))

    matched["difference"] = differences
    matched["comparable"] = matched["difference"] == ""

    table = matched.loc[:, list(_PUBLISHED_COLUMNS)]
    return table.rename(columns={"compared_with": "metric"})


def _unsaid_here(row: Mapping[Hashable, Any], unsaid: Sequence[str]) -> list[str]:
    """What a published row states and nobody has said of these pictures."""
    reasons = []
    for field in unsaid:
        theirs = row[field]
        if not pd.isna(theirs) and theirs != "":
            reasons.append(f"{field.replace('_', ' ')} {theirs} there, not said here")

    return reasons


def _why_another_quantity(metric: str, brain: pd.DataFrame, gathered: Evidence) -> list[str]:
    """Why a score of this name is another quantity than the published one: checks M10 and M11."""
    reasons = []
    kind = kind_of(metric)

    if gathered.golden is not None:
        for name in changed_metrics(gathered.golden):
            if kind_of(name) == kind:
                reasons.append(f"{name} no longer gives its golden value (check M10)")
                break

    n = brain.loc[brain["metric"] == metric, "n"].to_numpy(float)
    if kind == "fid" and len(n):
        why = why_not_comparable(float(n[0]), gathered.n_features.get(extractor_name(space_of(metric))))
        if why:
            reasons.append(f"an FID of few is mostly bias ({why}; check M11)")

    return reasons


# -- files -------------------------------------------------------------------------------------------------------------


def write_score_tables(
    folder: Path, scored: Mapping[str, Scores], gathered: Evidence, published: pd.DataFrame, sentences: Sequence[str]
) -> None:
    """Write the tables that every evaluation has into its folder.

    Parameters
    ----------
    folder : Path
        ``evaluation/SPLIT`` of a run, or where it is being made
    scored : mapping of str to Scores
        by input
    gathered : Evidence
        what the checks were given, with ``similarity``
    published : DataFrame
        of `published_beside`
    sentences : sequence of str
        the conclusions
    """
    similarity = gathered.similarity
    assert similarity is not None  # of every evaluation

    tables = RunFolder(folder)
    tables.write_table(per_item_rows(scored), "per_item.csv")
    tables.write_table(skipped_rows(scored), "skipped.csv")
    tables.write_table(note_rows(scored), "notes.csv")
    tables.write_table(retrieval_rows(similarity), "retrieval.csv")
    samples = sample_rows(scored["brain"])
    if len(samples):
        tables.write_table(samples, "samples.csv")

    if gathered.differences is not None:
        tables.write_table(gathered.differences, "differences.csv")

    if len(similarity) <= LARGEST_MATRIX:
        np.save(folder / "similarity.pixels.npy", similarity.astype(np.float32), allow_pickle=False)

    tables.write_table(published, "published.csv")
    atomic.write_text(folder / "conclusions.txt", "".join(f"{s}\n" for s in sentences))


def write_sealed_scores(
    run: RunFolder, scores: pd.DataFrame, verdicts: pd.DataFrame, answers: Sequence[Verdict]
) -> None:
    """Write scores.csv, validity.csv and validity.json, with a seal by which a change by hand is seen.

    Parameters
    ----------
    run : RunFolder
        written to
    scores : DataFrame
        rows of scores.csv
    verdicts : DataFrame
        of `named_verdicts`
    answers : sequence of Verdict
        the same, with what each rests on
    """
    record = json.dumps({"verdicts": verdict_record(answers)}, indent=1) + "\n"
    tables = {
        "validity.csv": csv_text(verdicts),
        "validity.json": record,
        "scores.csv": csv_text(scores),  # last of all: a run counts as evaluated once scores.csv is there
    }
    seal_texts(run.path, {name: hashlib.sha256(text.encode()).hexdigest() for name, text in tables.items()})
    for name, text in tables.items():
        atomic.write_text(run.path / name, text)
