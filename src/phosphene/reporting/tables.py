"""Score tables of a page: brain, controls and published numbers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from phosphene.metrics.registry import find_metric, kind_of
from phosphene.reporting.contents import Contents
from phosphene.reporting.plain_words import metric_words
from phosphene.validity import compare

__all__ = [
    "IDENTIFICATION",
    "family",
    "in_families",
    "is_main",
    "published_table",
    "rivals",
    "score_cell",
    "score_table",
]

IDENTIFICATION = "Identification"
_FAMILIES = ("Pictures", IDENTIFICATION, "Encoding")
_CELL = ("value", "ci_low", "ci_high", "chance", "p", "n", "setting")
_FEW_ROWS = 14  # a table up to this long is shown whole
_MAIN = (
    "pixcorr",
    "mse",
    "ssim.2d",
    "two_way",
    "zero_shot_centred_top1",
    "pearson.voxels",
    "pearson.fraction_of_ceiling",
)


def score_cell(scores: pd.DataFrame, source: str, metric: str) -> dict[str, Any] | None:
    """One score as a cell of a table.

    Parameters
    ----------
    scores : DataFrame
        rows of scores.csv
    source : str
        input of the decoder
    metric : str
        its name

    Returns
    -------
    dict of str to Any or None
        value, ci_low, ci_high, chance, p, n and setting; None when it is not there
    """
    rows = scores[(scores["input"] == source) & (scores["metric"] == metric)]
    if rows.empty:
        return None

    return {name: rows.iloc[0][name] for name in _CELL}


def family(metric: str) -> str:
    """The part of the table a metric stands in."""
    entry = find_metric(metric)
    if entry is None:
        return IDENTIFICATION

    return entry.family


def in_families(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Rows of a table, each with its ``words``, by family; families without rows are left out."""
    grouped = []
    for name in _FAMILIES:
        members = [row for row in rows if family(row["words"].name) == name]
        if members:
            grouped.append((name, members))

    return grouped


def is_main(metric: str) -> bool:
    """Whether a metric belongs to the few that a reader needs first."""
    return kind_of(metric) in _MAIN or metric == "two_way_within_class.pixels"


def score_table(contents: Contents) -> dict[str, Any]:
    """Rows in families, controls in order, and whether any control rivals the brain.

    Parameters
    ----------
    contents : Contents
        of a run

    Returns
    -------
    dict of str to Any
        groups (shown), rest (folded away), flat (all rows), controls, notes, rivals, relaxed
    """
    scores = contents.scores
    controls = _controls(contents)
    rows = []

    for metric in dict.fromkeys(scores["metric"].astype(str)):
        brain = score_cell(scores, "brain", metric)
        others = {control: score_cell(scores, control, metric) for control in controls}

        for control, cell in others.items():
            if cell is not None:
                cell["rivals"] = control not in ("truth", "first_stage") and rivals(contents, metric, control)

        rows.append({"words": metric_words(metric), "brain": brain, "controls": others, "dots": _dots(brain, others)})

    is_short = len(rows) <= _FEW_ROWS
    shown = [row for row in rows if is_short or is_main(row["words"].name)]
    folded = [row for row in rows if row not in shown]
    control_cells = [cell for row in rows for cell in row["controls"].values() if cell is not None]

    return {
        "groups": in_families(shown),
        "rest": in_families(folded),
        "flat": rows,
        "controls": controls,
        "notes": _notes(contents),
        "rivals": any(cell["rivals"] for cell in control_cells),
        "relaxed": any(row["brain"] and str(row["brain"]["setting"]) == "relax" for row in rows),
    }


def _controls(contents: Contents) -> list[str]:
    """Inputs beside the brain: those with pictures first, in their order; the ceiling last."""
    scored = list(dict.fromkeys(contents.scores["input"].astype(str)))
    with_pictures = [source for source in contents.inputs if source in scored]
    without = [source for source in scored if source not in contents.inputs]
    controls = [source for source in (*with_pictures, *without) if source != "brain"]

    return sorted(controls, key=lambda source: source == "truth")


def _notes(contents: Contents) -> list[tuple[str, list[str]]]:
    """(note, titles of the metrics it is about)."""
    notes = []
    for note, rows in contents.score_notes.groupby("note", sort=False):
        notes.append((note, [metric_words(metric).title for metric in rows["metric"]]))

    return notes


def rivals(contents: Contents, metric: str, control: str) -> bool:
    """Whether the brain is not clearly better than a control, by the rule that the checks and conclusions use.

    Scores of sets say nothing here: shuffled pictures are the same set.

    Parameters
    ----------
    contents : Contents
        of a run
    metric, control : str
        their names

    Returns
    -------
    bool
        True where the score alone is no evidence of decoding
    """
    entry = find_metric(metric)
    if entry is not None and entry.items == "sets":
        return False

    differences = None
    if not contents.differences.empty:
        differences = contents.differences

    return compare(contents.scores, differences, metric, control) in ("unclear", "below")


def _dots(brain: Mapping[str, Any] | None, controls: Mapping[str, Any]) -> dict[str, Any] | None:
    """Places, 0-100, of a score, its interval, chance and controls on one small axis."""
    if brain is None or not np.isfinite(brain["value"]):
        return None

    others = {}
    for name, cell in controls.items():
        if cell is not None and np.isfinite(cell["value"]):
            others[name] = cell["value"]

    values = [brain["value"], brain["ci_low"], brain["ci_high"], brain["chance"], *others.values()]
    finite = [float(value) for value in values if np.isfinite(value)]
    low = min(finite)
    span = (max(finite) - low) or 1.0

    def place(value: float) -> float:
        return round(5 + 90 * (float(value) - low) / span, 1)

    def place_or(value: float, default: float | None) -> float | None:
        if np.isfinite(value):
            return place(value)

        return default

    middle = place(brain["value"])
    return {
        "brain": middle,
        "low": place_or(brain["ci_low"], middle),
        "high": place_or(brain["ci_high"], middle),
        "chance": place_or(brain["chance"], None),
        "controls": [(place(value), name == "truth") for name, value in others.items()],
    }


def published_table(contents: Contents) -> list[dict[str, Any]]:
    """Published numbers, each with this run's own.

    Parameters
    ----------
    contents : Contents
        of a run

    Returns
    -------
    list of dict of str to Any
        columns of published.csv, words of the metric, and ours (see `score_cell`)
    """
    rows = []
    for row in contents.published.to_dict("records"):
        metric = str(row["metric"])
        ours = score_cell(contents.scores, "brain", metric)
        rows.append({**row, "words": metric_words(metric), "ours": ours})

    return rows
