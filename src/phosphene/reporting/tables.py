"""Score tables of a page: brain, controls and published numbers side by side, and what one glance should tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from phosphene.metrics.registry import find_metric, kind_of
from phosphene.reporting.contents import Contents
from phosphene.reporting.words import metric_words
from phosphene.validity import compare

IDENTIFICATION = "Identification"
_FAMILIES = ("Pictures", IDENTIFICATION, "Encoding")


def _score(scores: pd.DataFrame, source: str, metric: str) -> pd.Series | None:
    found = scores[(scores["input"] == source) & (scores["metric"] == metric)]
    if found.empty:
        return None

    return found.iloc[0]


def score_cell(scores: pd.DataFrame, source: str, metric: str) -> dict[str, Any] | None:
    """Value, interval, chance, p, n and setting of one score; None when it is not there."""
    row = _score(scores, source, metric)
    if row is None:
        return None

    return {k: row[k] for k in ("value", "ci_low", "ci_high", "chance", "p", "n", "setting")}


def family(metric: str) -> str:
    """The part of the table a metric stands in."""
    entry = find_metric(metric)
    if entry is None:
        return IDENTIFICATION

    return entry.family


def in_families(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Rows of a table, each with its ``words``, by family; families without rows are left out."""
    grouped = [(name, [r for r in rows if family(r["words"].name) == name]) for name in _FAMILIES]
    return [(name, members) for name, members in grouped if members]


_FEW = 14
"""Tables up to this many rows are shown whole."""
_MAIN = (
    "pixcorr",
    "mse",
    "ssim.2d",
    "two_way",
    "zero_shot_centred_top1",
    "pearson.voxels",
    "pearson.fraction_of_ceiling",
)


def is_main(metric: str) -> bool:
    """Whether a metric belongs to the few that a reader needs first."""
    return kind_of(metric) in _MAIN or metric == "two_way_within_class.pixels"


def score_table(c: Contents) -> dict[str, Any]:
    """Rows in families, controls in order, and whether any control rivals the brain."""
    scores = c.scores
    present = list(dict.fromkeys(scores["input"].astype(str)))
    order = [*(n for n in c.inputs if n in present), *(n for n in present if n not in c.inputs)]
    controls = [n for n in order if n != "brain"]
    controls.sort(key=lambda n: n == "truth")
    rows = []

    for metric in dict.fromkeys(scores["metric"].astype(str)):
        words = metric_words(metric)
        brain = score_cell(scores, "brain", metric)
        others = {n: score_cell(scores, n, metric) for n in controls}

        for name, cell in others.items():
            if cell is not None:
                cell["rivals"] = name not in ("truth", "first_stage") and rivals(c, metric, name)

        rows.append({"words": words, "brain": brain, "controls": others, "dots": _dots(brain, others)})

    first = [r for r in rows if len(rows) <= _FEW or is_main(r["words"].name)]
    rest = [r for r in rows if r not in first]

    return {
        "groups": in_families(first),
        "rest": in_families(rest),
        "flat": rows,
        "controls": controls,
        "notes": [
            (n, [metric_words(m).title for m in g["metric"]]) for n, g in c.score_notes.groupby("note", sort=False)
        ],
        "rivals": any(x and x.get("rivals") for r in rows for x in r["controls"].values()),
        "relaxed": any(r["brain"] and str(r["brain"]["setting"]) == "relax" for r in rows),
    }


def rivals(c: Contents, metric: str, control: str) -> bool:
    """Whether the brain is not clearly better than a control, by the rule that the checks and conclusions use.

    Scores of sets say nothing here: shuffled pictures are the same set.
    """
    entry = find_metric(metric)
    if entry is not None and entry.items == "sets":
        return False

    if c.differences.empty:
        differences = None
    else:
        differences = c.differences

    return compare(c.scores, differences, metric, control) in ("unclear", "below")


def _dots(brain: Mapping[str, Any] | None, controls: Mapping[str, Any]) -> dict[str, Any] | None:
    """Places, 0-100, of a score, its interval, chance and controls on one small axis."""
    if brain is None or not np.isfinite(brain["value"]):
        return None

    others = [(n, x["value"]) for n, x in controls.items() if x is not None and np.isfinite(x["value"])]
    chance = brain["chance"]
    known = [brain["value"], brain["ci_low"], brain["ci_high"], chance, *(v for _, v in others)]
    known = [float(v) for v in known if np.isfinite(v)]
    low = min(known)
    high = max(known)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return round(5 + 90 * (float(value) - low) / span, 1)

    interval = [at(brain[k]) if np.isfinite(brain[k]) else at(brain["value"]) for k in ("ci_low", "ci_high")]
    return {
        "brain": at(brain["value"]),
        "low": interval[0],
        "high": interval[1],
        "chance": at(chance) if np.isfinite(chance) else None,
        "controls": [(at(v), n == "truth") for n, v in others],
    }


def published_table(c: Contents) -> list[dict[str, Any]]:
    """Published numbers, each with this run's own beside it."""
    rows = []
    for row in c.published.to_dict("records"):
        ours = score_cell(c.scores, "brain", str(row["metric"]))
        rows.append({**row, "words": metric_words(str(row["metric"])), "ours": ours})

    return rows
