"""Several runs that were tested on the same pictures: paired differences, places, published numbers; for page and terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.errors import ModelError, SplitError
from phosphene.io.run_folder import SEEN, RunFolder
from phosphene.metrics.comparison import LEVEL, Comparison, compare_items
from phosphene.metrics.registry import kind_of
from phosphene.reporting.contents import Contents, PictureGroup
from phosphene.reporting.image_grid import image_grid, picture
from phosphene.reporting.plain_words import metric_words, number, p_value, signed
from phosphene.reporting.tables import in_families, score_cell
from phosphene.validity.check import rows_where

HEADLINES = ("two_way", "two_way_within_class", "pixcorr", "ssim.2d", "mse")
"""Kinds of metrics that summaries speak of, the first that is there before the others."""
_MAX_MATRICES = 12
_MAX_SENTENCES = 3


def check_comparable(runs: Sequence[Contents]) -> None:
    """Raise SplitError unless all runs were tested on the same split of the same stimuli."""
    first = runs[0]
    for other in runs[1:]:
        first_digest = first.manifest.get("split_digest")
        other_digest = other.manifest.get("split_digest")
        first_tested = _tested(first)
        other_tested = _tested(other)

        # Digests know the training side as well; older runs have none, and then the test stimuli must do.
        if first_digest and other_digest:
            is_same = first_digest == other_digest
        else:
            is_same = bool(first_tested) and first_tested == other_tested

        if first_tested and other_tested and first_tested != other_tested:
            is_same = False

        if not is_same:
            training = ""
            if first_tested and first_tested == other_tested:
                training = "; training sets differ"

            raise SplitError(
                f"these runs were tested on different splits, so their scores cannot stand side by side: {first.name} on "
                f"'{first.identity['split']}' ({len(first_tested)} test stimuli), {other.name} on "
                f"'{other.identity['split']}' ({len(other_tested)} test stimuli), {len(first_tested & other_tested)} of them "
                f"in common{training}. Fit both with the same --split, then report again."
            )

        differences = _protocol_differences(first, other)
        if differences:
            raise SplitError(
                f"these runs were scored under different protocols, so their scores cannot stand side by side: {first.name} and "
                f"{other.name} differ in {', '.join(differences)}. Decode and evaluate both anew with this version."
            )


_PROTOCOL = {
    "pictures": "the test pictures",
    "size": "the size at which pictures are scored",
    "responses_averaged": "how many responses to a picture are averaged",
}
"""What runs on one split may still differ in, in words."""


def _protocol_differences(first: Contents, other: Contents) -> list[str]:
    """In what two runs differ that makes their scores other quantities; nothing where an older run did not note it."""
    differences = []
    for key, words in _PROTOCOL.items():
        ours = first.protocol.get(key)
        theirs = other.protocol.get(key)
        if ours is None or theirs is None or ours == theirs:
            continue

        if key == "pictures":
            differences.append(words)
        else:
            differences.append(f"{words} ({_plain(ours)} against {_plain(theirs)})")

    return differences


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value))

    return str(value)


def _tested(contents: Contents) -> frozenset[str]:
    source = "brain"
    if contents.pictures(SEEN) is not None:
        source = SEEN

    return frozenset(contents.index(source)["stimulus"])


def run_labels(runs: Sequence[Contents]) -> list[str]:
    """A name for every run: that of its folder, numbered where two folders are called the same."""
    names = [c.name for c in runs]
    return [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]


def compare_contents(runs: Sequence[Contents]) -> Comparison:
    """Paired comparison of the decoded pictures of several runs, under the names of `run_labels`."""
    items = {}
    for name, contents in zip(run_labels(runs), runs, strict=True):
        table = contents.per_item
        items[name] = table[table["input"] == "brain"]

    return compare_items(items)


# -- the page ----------------------------------------------------------------------------------------------------------


def comparison(runs: Sequence[Contents]) -> dict[str, Any]:
    """What the page says of several runs together."""
    names = run_labels(runs)
    found = compare_contents(runs)
    rows = []

    for metric in dict.fromkeys(m for c in runs for m in c.scores.loc[c.scores["input"] == "brain", "metric"]):
        cells = [score_cell(c.scores, "brain", metric) for c in runs]
        for name, cell in zip(names, cells, strict=True):
            if cell is not None:
                cell["place"] = found.place(metric, name)

        chance = next((x["chance"] for x in cells if x and np.isfinite(x["chance"])), np.nan)
        pair = None
        if len(names) == 2:
            pair = found.pair(metric, names[0], names[1])

        rows.append({"words": metric_words(metric), "cells": cells, "chance": chance, "pair": pair})

    plates = []
    if runs[0].n_pictures:
        for group in runs[0].groups(np.random.default_rng(0)):
            plates.append(_compared_grid(group, runs, names))

    page = {
        "names": names,
        "two": len(names) == 2,
        "groups": in_families(rows),
        "matrices": _matrices(found) if len(names) > 2 else [],
        "plates": plates,
        "notes": _notes(runs),
        "conclusions": sentences(found),
        "published": _published(runs, names),
        "identities": [c.identity for c in runs],
        "relaxed": any(x and str(x["setting"]) == "relax" for r in rows for x in r["cells"]),
        "first": names[0],
    }

    shown = (("pictures", "Pictures", "plates"), ("scores", "Scores", "groups"), ("pairs", "Differences", "matrices"))
    shown += (("published", "Published", "published"),)
    page["sections"] = [(id_, name) for id_, name, key in shown if page[key]] + [("runs", "Every run")]

    return page


def _notes(runs: Sequence[Contents]) -> list[str]:
    notes = []
    ours = [contents for contents in runs if not contents.is_from_elsewhere]
    elsewhere = [contents.name for contents in runs if contents.is_from_elsewhere]

    if elsewhere:
        was = "was" if len(elsewhere) == 1 else "were"
        notes.append(
            f"{', '.join(elsewhere)} {was} made elsewhere: from which responses, and with what its decoder saw, cannot be known."
        )

    if len({c.manifest.get("data_digest") for c in ours}) > 1:
        notes.append("The runs use different responses (another person, ROI or preparation) to the same pictures.")

    if len({c.identity["setting"] for c in ours}) > 1:
        notes.append("The runs differ in setting: a relaxed one has seen test responses, a strict one has not.")

    return notes


def headlines(found: Comparison) -> list[str]:
    """The metrics compared that summaries speak of, the most telling first."""
    there = list(dict.fromkeys(found.ranks["metric"]))
    order = {m: i for i, m in enumerate(there)}
    known = [m for m in there if kind_of(m) in HEADLINES]
    return sorted(known, key=lambda m: (HEADLINES.index(kind_of(m)), order[m]))


def sentences(found: Comparison) -> list[str]:
    """What the comparison says of the first metrics, one sentence each."""
    chosen: dict[str, str] = {}
    for metric in headlines(found):  # one of each kind
        chosen.setdefault(kind_of(metric), metric)

    return [_sentence(found, metric) for metric in list(chosen.values())[:_MAX_SENTENCES]]


def _sentence(found: Comparison, metric: str) -> str:
    places = rows_where(found.ranks, metric=metric).sort_values("rank", kind="stable")
    words = metric_words(metric)
    best = places.iloc[0]
    over = f"over the same {int(best['n'])} pictures"

    if len(places) == 2:
        other = places.iloc[1]["run"]
        pair = found.pair(metric, best["run"], other)
        assert pair is not None  # runs that have places were compared
        low = number(pair["ci_low"], words.digits)
        high = number(pair["ci_high"], words.digits)
        gap = f"{signed(pair['value'], words.digits)} [{low}, {high}], p = {p_value(pair['p'])}"

        if pair["p"] < LEVEL:
            return f"{words.title}: {best['run']} is better than {other}, by {gap}, {over}."

        return f"{words.title}: {best['run']} and {other} cannot be told apart ({gap}, {over})."

    leaders = list(places.loc[places["rank_low"] == 1, "run"])
    start = f"{words.title}: {best['run']}"
    value = number(best["value"], words.digits)

    if len(leaders) == 1:
        return f"{start} is best ({value}), surely ahead of all {len(places) - 1} others, {over}."

    others = ", ".join(r for r in leaders if r != best["run"])
    return f"{start} scores highest ({value}), but may not be better than {others}, {over}."


def _matrices(found: Comparison) -> list[dict[str, Any]]:
    """For every headline a table of each run minus each other one, the best first."""
    matrices = []
    for metric in headlines(found)[:_MAX_MATRICES]:
        places = rows_where(found.ranks, metric=metric).sort_values("rank", kind="stable")
        runs = list(places["run"])
        rows = []

        for run in runs:
            cells = [None if run == other else found.pair(metric, run, other) for other in runs]
            rows.append((run, cells))

        matrices.append({"words": metric_words(metric), "n": int(places["n"].iloc[0]), "names": runs, "rows": rows})

    return matrices


def _published(runs: Sequence[Contents], names: Sequence[str]) -> list[dict[str, Any]]:
    """Published numbers with every run beside them; a run whose protocol differs is greyed, a row where all do."""
    keys = ["method", "metric", "value", "source"]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}

    for at, contents in enumerate(runs):
        for record in contents.published.to_dict("records"):
            key = tuple(str(record[k]) for k in keys)
            row = rows.setdefault(key, {k: record[k] for k in keys} | {"cells": [None] * len(runs)})
            row["cells"][at] = {
                "ours": score_cell(contents.scores, "brain", str(record["metric"])),
                "comparable": bool(record["comparable"]),
                "difference": "" if record["difference"] != record["difference"] else str(record["difference"] or ""),
            }

    for row in rows.values():
        row["cells"] = [x or {"ours": None, "comparable": False, "difference": "not scored"} for x in row["cells"]]
        row["words"] = metric_words(str(row["metric"]))
        row["comparable"] = any(x["comparable"] for x in row["cells"])
        reasons: dict[str, list[str]] = {}

        for name, x in zip(names, row["cells"], strict=True):
            if not x["comparable"]:
                reasons.setdefault(x["difference"] or "the protocol differs", []).append(name)

        everywhere = len(reasons) == 1 and len(next(iter(reasons.values()))) == len(names)
        row["why"] = "; ".join(why if everywhere else f"{', '.join(who)}: {why}" for why, who in reasons.items())

    return sorted(rows.values(), key=lambda r: not r["comparable"])


def _compared_grid(group: PictureGroup, runs: Sequence[Contents], names: Sequence[str]) -> dict[str, Any]:
    """Pictures that the first run chose, as every run decoded them."""
    grid = image_grid(group, runs[0], [SEEN, "brain"])
    for row in grid["rows"]:
        if row["source"] == "brain":
            row["label"] = names[0]

    stimuli = list(runs[0].index()["stimulus"].to_numpy()[group.rows])
    for contents, name in zip(runs[1:], names[1:], strict=True):
        grid["rows"].append(decoded_row(contents, name, stimuli))

    if group.title in ("Best", "Median", "Worst"):
        grid["title"] += f" of {names[0]}"

    return grid


def decoded_row(contents: Contents, name: str, stimuli: Sequence[str], source: str = "brain") -> dict[str, Any]:
    """A row of a grid: what a run decoded for these stimuli, or what was seen.

    Parameters
    ----------
    contents : Contents
        of the run
    name : str
        label of the row
    stimuli : sequence of str
        one per column
    source : str, default "brain"
        input of the decoder, or ``seen``

    Returns
    -------
    dict of str to Any
        source, label, what and cells, of which one is None where the run has no such picture
    """
    first: dict[str, int] = {}
    for row, stimulus in enumerate(contents.index()["stimulus"]):
        first.setdefault(stimulus, row)

    cells = []
    for stimulus in stimuli:
        array = None
        if stimulus in first:
            array = contents.picture(source, first[stimulus])

        cells.append(None if array is None else picture(array, f"{name}: stimulus {stimulus}"))

    return {"source": source, "label": name, "what": "", "cells": cells}


# -- the terminal ------------------------------------------------------------------------------------------------------


def against(run: str | Path, others: Sequence[str | Path]) -> list[Contents]:
    """A run and those it is to be compared with, checked before any work is done.

    Raises
    ------
    ModelError
        When a folder holds no run, or another run was not scored.
    SplitError
        When they were tested on different splits.
    """
    runs = [Contents(RunFolder.existing(r)) for r in (run, *others)]
    for contents in runs[1:]:
        if contents.per_item.empty:
            raise ModelError(
                f"{contents.run.path} was not scored, so it cannot be compared. Run: {contents.command('evaluate')}"
            )

    check_comparable(runs)
    return runs


def text_table(runs: Sequence[Contents]) -> str:
    """The comparison of the first run with each other one as a small table, then in words."""
    names = run_labels(runs)
    found = compare_contents(runs)
    metrics = headlines(found)
    if not metrics:
        return "The runs have no metric of single pictures in common."

    many = len(runs) > 2
    width = max(9, *(len(n) for n in names))
    head = f"{'metric':<40}" + f"{'run':>{width + 2}}{'value':>10}{'place':>8}"
    head += f"{'difference':>12}  {'95 % interval':<18}{'p':>8}{'p (Holm)' if many else '':>10}{'n':>6}"
    lines = [f"{names[0]} minus the other, picture by picture; a positive difference is better for {names[0]}", head]

    for metric in metrics:
        digits = metric_words(metric).digits
        for at, name in enumerate(names):
            place = found.place(metric, name)
            if place is None:
                continue

            low = int(place["rank_low"])
            high = int(place["rank_high"])
            line = f"{metric if at == 0 else '':<40}{name:>{width + 2}}{place['value']:>10.{digits}f}"
            line += f"{low if low == high else f'{low}-{high}':>8}"

            if at == 0:
                x = None
            else:
                x = found.pair(metric, names[0], name)

            if x is not None:
                interval = f"{x['ci_low']:.{digits}f} to {x['ci_high']:.{digits}f}"
                line += f"{x['value']:>+12.{digits}f}  {interval:<18}{p_value(x['p']):>8}"
                line += f"{p_value(x['p_holm']) if many else '':>10}{int(x['n']):>6}"

            lines.append(line.rstrip())

    return "\n".join([*lines, "", *sentences(found), *_notes(runs)])
