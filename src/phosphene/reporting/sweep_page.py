"""The page of a sweep: what was asked, every point with its interval and its difference from the base, and what it decoded.

A page has parts. Where axes are crossed, a part is what was tested on the same data; otherwise it is one axis beside the base.
Each part has a table, a figure per metric, and the same test pictures as every point decoded them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from phosphene._version import __version__
from phosphene.data.oracle import BestLinear
from phosphene.io import atomic
from phosphene.io.progress import duration
from phosphene.io.run_folder import SEEN, RunFolder
from phosphene.metrics.registry import kind_of
from phosphene.reporting.contents import Contents, plain
from phosphene.reporting.drawing import style
from phosphene.reporting.html import render
from phosphene.reporting.plain_words import input_words, is_secret, metric_words, number
from phosphene.reporting.rows import rows_at
from phosphene.reporting.run_comparison import decoded_row
from phosphene.reporting.run_figures import figure_values
from phosphene.reporting.sweep_figure import draw_sweep
from phosphene.reporting.sweep_results import SweepPoint, SweepResults
from phosphene.reporting.tables import rivals

__all__ = ["PAGE", "SweepSection", "write_sweep_page"]

PAGE = "sweep.html"
PICTURES = 10
"""Test pictures in a strip."""
_CEILING = "pearson.fraction_of_ceiling"
_MAX_COLUMNS = 6
_MAX_FIGURES = 4
_FEW_PAIRS = 10  # behind a difference, below which the page says how many there are
_LEVEL = 0.05


@dataclass(frozen=True)
class SweepSection:
    """Points to be shown together, the base first.

    Attributes
    ----------
    title : str
        heading
    axis : int
        number of the axis that is moved; -1 where axes are crossed
    points : sequence of SweepPoint
        the base first
    base : SweepPoint
        what the others are compared with
    """

    title: str
    axis: int
    points: Sequence[SweepPoint]
    base: SweepPoint


def write_sweep_page(results: SweepResults) -> Path:
    """Write OUT/sweep.html: self-contained, in the look of a run's report.

    Parameters
    ----------
    results : SweepResults
        the sweep and its tables

    Returns
    -------
    Path
        Path of the page
    """
    path = results.out / PAGE
    atomic.write_text(path, render(_SweepPage(results).values(), "sweep.html"))
    return path


class _SweepPage:
    def __init__(self, results: SweepResults) -> None:
        self.results = results
        self.summary = results.summary
        self.done = {name for name, run in results.runs.items() if run.is_done}
        self._contents: dict[str, Contents] = {}

    def values(self) -> dict[str, Any]:
        """Everything the template shows."""
        results = self.results
        parts = [self._section_values(section, f"part{i + 1}") for i, section in enumerate(self.sections)]
        missing = [name for name in results.runs if name not in self.done]
        failed = [(self._label_of(n), results.runs[n].failure) for n in missing if results.runs[n].failure]

        return {
            "title": results.title,
            "name": results.out.resolve().name,
            "lede": self._lede(),
            "conclusions": [line for part in parts for line in part["conclusions"]],
            "failed": failed,
            "open": [self._label_of(n) for n in missing if not results.runs[n].failure],
            "n_runs": len(results.runs),
            "parts": parts,
            "glance": self._overview(parts),
            "axes": self._axes(),
            "base": self._base_values(),
            "words": [metric_words(m) for m in dict.fromkeys(metric for _, metric in self.columns)],
            "command": results.command,
            "repeated": any(key.is_repeated for key in results.keys),
            "version": __version__,
        }

    # -- what was asked ------------------------------------------------------------------------------------------------

    def _lede(self) -> str:
        n_runs = len(self.results.runs)
        n_done = len(self.done)
        labels = {(point.axis, point.label) for point in self.results.points}
        repetitions = {point.repetition for point in self.results.points}

        repeated = ""
        if len(repetitions) > 1:
            repeated = f", each repeated {len(repetitions)} times"

        if n_done == n_runs:
            finished = "all of them finished"
        else:
            finished = f"{n_done} of them finished"

        return f"{len(labels)} points{repeated}: {n_runs} runs, {finished}."

    def _label_of(self, run: str) -> str:
        point = next(point for point in self.results.points if point.run == run)
        if point.repetition:
            return _readable(f"{point.label} ({point.repetition})")

        return _readable(point.label)

    def _axes(self) -> list[dict[str, Any]]:
        rows = []
        for key in self.results.keys:
            rows.append({"key": key.key, "values": key.values, "how": "repeated" if key.is_repeated else ""})

        return rows

    def _base_values(self) -> list[tuple[str, str]]:
        rows = []
        for key, value in self.results.base.items():
            if value is not None:
                rows.append((key, "[hidden]" if is_secret(key) else plain(value)))

        return rows

    # -- parts ---------------------------------------------------------------------------------------------------------

    @cached_property
    def sections(self) -> list[SweepSection]:
        """What is shown together."""
        points = self.results.points
        once = [point for point in points if point.repetition == points[0].repetition]
        base = once[0]

        if self.results.is_crossed:
            blocks: dict[str, list[SweepPoint]] = {}
            for point in once:
                blocks.setdefault(point.block, []).append(point)

            return [SweepSection(_heading(title), -1, members, members[0]) for title, members in blocks.items()]

        sections = []
        for axis in sorted({point.axis for point in once} - {-1}) or [-1]:
            members = [point for point in once if point.axis == axis and point.run != base.run]
            title = _readable(" and ".join(self.results.scales[axis].keys))
            sections.append(SweepSection(title, axis, [base, *members], base))

        return sections

    @cached_property
    def columns(self) -> list[tuple[str, str]]:
        """(input, metric) of the table, the share of the noise ceiling last where it is known."""
        if self.summary.empty:
            return []

        columns = [column for column in self.results.columns if column[1] != _CEILING][:_MAX_COLUMNS]
        if _CEILING in set(self.summary.loc[self.summary["input"] == "brain", "metric"]):
            columns.append(("brain", _CEILING))

        return columns

    def _section_values(self, section: SweepSection, id_: str) -> dict[str, Any]:
        scored = [point for point in section.points if self._runs(point)]
        best = self._best_linear(section)
        rows = [self._row(point, section, best) for point in scored]
        cells = [cell for row in rows for cell in row["cells"] if cell]
        others = [cell for row in rows for cell in row["cells"] if cell and not row["is_base"]]

        columns = []
        chance = []
        for k, (source, metric) in enumerate(self.columns):
            of = "" if source == "brain" else input_words(source)[0]
            columns.append({"words": metric_words(metric), "of": of})
            chance.append(_span([row["cells"][k]["chance"] for row in rows if row["cells"][k]]))

        return {
            "id": id_,
            "title": section.title,
            "note": self._note(scored, best),
            "columns": columns,
            "rows": rows,
            "chance": chance,
            "shares": best is not None and any(row["share"] for row in rows),
            "rivals": any(cell["rivals"] for cell in cells),
            "base": self._short(section.base, section),
            "compared": any(np.isfinite(cell["difference"]) for cell in others),
            "figures": self._figures(section, scored),
            "plate": self._pictures(section, scored),
            "conclusions": self._sentences(section, rows),
        }

    @staticmethod
    def _short(point: SweepPoint, section: SweepSection) -> str:
        label = point.label
        if section.axis == -1:
            label = point.within

        if "," not in label:
            label = label.removeprefix("recipe ")

        return _readable(label)

    def _note(self, scored: Sequence[SweepPoint], best: BestLinear | None) -> str:
        sentences = []
        if scored:
            n_tested = len(self._content(self._runs(scored[0])[0]).index())
            sentences.append(f"{n_tested} test pictures.")

        if best is not None:
            showings = f"{best.showings} responses to each averaged"
            if best.showings == 1:
                showings = "one response each"

            sentences.append(
                f"Best linear decoder of pixels, {showings}: r = {number(best.reached)} on these pictures, "
                f"{number(best.bound)} on the {best.learned} pictures that it learned from."
            )

        return " ".join(sentences)

    def _overview(self, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Where the same points were tested on several data: one score of each, points down and data across."""
        parts = [part for part in parts if part["rows"] and part["columns"]]
        if not self.results.is_crossed or len(parts) < 2:
            return None

        main = self._main_column()
        rows = {(part["id"], row["label"]): row for part in parts for row in part["rows"]}
        labels = list(dict.fromkeys(label for _, label in rows))
        table = []

        for label in labels:
            cells = []
            for part in parts:
                row = rows.get((part["id"], label))
                cells.append(row and {"score": row["cells"][main], "share": row["share"]})

            table.append((label, cells))

        return {
            "words": metric_words(self.columns[main][1]),
            "parts": [(part["id"], part["title"]) for part in parts],
            "rows": table,
            "chance": [part["chance"][main] for part in parts],
            "shares": any(row["share"] for row in rows.values()),
        }

    def _main_column(self) -> int:
        """The column that summaries speak of: identification where there is any, since it has a chance level."""
        return next((k for k, (_, metric) in enumerate(self.columns) if kind_of(metric) == "two_way"), 0)

    # -- one point -----------------------------------------------------------------------------------------------------

    def _runs(self, point: SweepPoint) -> list[str]:
        """Finished runs of a point, one per repetition."""
        same = [p for p in self.results.points if p.label == point.label and p.axis == point.axis]
        return [p.run for p in same if p.run in self.done]

    def _content(self, run: str) -> Contents:
        if run not in self._contents:
            self._contents[run] = Contents(RunFolder(self.results.runs[run].folder))

        return self._contents[run]

    def _score(self, point: SweepPoint, source: str, metric: str) -> pd.Series | None:
        table = self.summary
        is_point = (table["axis"] == point.axis) & (table["point"] == point.label)
        rows = table[is_point & (table["input"] == source) & (table["metric"] == metric)]
        if rows.empty:
            return None

        return rows.iloc[0]

    def _row(self, point: SweepPoint, section: SweepSection, best: BestLinear | None) -> dict[str, Any]:
        runs = self._runs(point)
        scores = self.results.scores
        taken = scores.loc[scores["run"].isin(runs), ["run", "seconds"]].drop_duplicates()
        time = "–"
        if len(taken):
            time = duration(float(taken["seconds"].mean()))

        return {
            "label": self._short(point, section),
            "is_base": point.run == section.base.run,
            "cells": [self._cell(point, runs[0], source, metric) for source, metric in self.columns],
            "share": self._share(runs, best),
            "time": time,
            "links": [self._link(run, len(runs), i) for i, run in enumerate(runs)],
        }

    def _cell(self, point: SweepPoint, run: str, source: str, metric: str) -> dict[str, Any] | None:
        row = self._score(point, source, metric)
        if row is None:
            return None

        gain = row["difference"]
        if metric_words(metric).lower_is_better:
            gain = -gain

        is_sure = bool(row["p_holm"] < _LEVEL)
        n_pairs = int(float(str(row["n_paired"])))
        beaten_by: list[str] = []
        if source == "brain":
            beaten_by = self._rivals(run, metric)

        return {
            "value": row["value"],
            "ci_low": row["ci_low"],
            "ci_high": row["ci_high"],
            "chance": row["chance"],
            "difference": row["difference"],
            "low": row["difference_low"],
            "high": row["difference_high"],
            "few": n_pairs * (n_pairs < _FEW_PAIRS),
            "p": row["p_holm"],
            "better": is_sure and gain > 0,
            "worse": is_sure and gain < 0,
            "rivals": ", ".join(beaten_by),
        }

    def _rivals(self, run: str, metric: str) -> list[str]:
        contents = self._content(run)
        names = []
        for source in dict.fromkeys(contents.scores["input"]):
            if source not in ("brain", "truth", "first_stage") and rivals(contents, metric, source):
                names.append(input_words(source)[0])

        return names

    def _link(self, run: str, n: int, i: int) -> dict[str, str]:
        target = f"runs/{quote(run)}/"
        if (self.results.runs[run].folder / "report.html").is_file():
            target += "report.html"

        text = "run" if n == 1 else str(i + 1)
        return {"href": target, "text": text, "title": run}

    # -- what can be reached -------------------------------------------------------------------------------------------

    def _best_linear(self, section: SweepSection) -> BestLinear | None:
        """That of the section, where all its points have the same."""
        best = {self.results.runs[point.run].best for point in section.points if point.run in self.done}
        if len(best) == 1:
            return best.pop()

        return None

    def _share(self, runs: Iterable[str], best: BestLinear | None) -> dict[str, float] | None:
        """Pixel correlation as a share of that of the best linear decoder; mean over repetitions."""
        if best is None or best.reached <= 0:
            return None

        correlations = []
        for run in runs:
            correlation = self.results.runs[run].correlation
            if correlation is None:
                return None

            correlations.append(np.array(correlation))

        value, low, high = np.mean(correlations, axis=0)
        return {
            "r": float(value),
            "value": value / best.reached,
            "ci_low": low / best.reached,
            "ci_high": high / best.reached,
        }

    # -- pictures ------------------------------------------------------------------------------------------------------

    def _figures(self, section: SweepSection, scored: Sequence[SweepPoint]) -> list[dict[str, Any]]:
        if len(scored) < 2:
            return []

        names = {}
        if self.results.is_crossed:
            names = {point.label: self._short(point, section) for point in scored}

        is_scored = self.summary["point"].isin([point.label for point in scored])
        is_here = self.summary["axis"].isin([-1, section.axis])
        summary = rows_at(self.summary, is_scored & is_here)
        summary = summary.assign(point=summary["point"].replace(names))
        figures = []

        for source, metric in self.columns[:_MAX_FIGURES]:
            part = rows_at(summary, (summary["input"] == source) & (summary["metric"] == metric))
            if part.empty:
                continue

            with style():
                figure = draw_sweep(part, [(source, metric)], self.results.scales)

            height = 2.9
            if section.axis == -1:
                height = max(1.5, 0.85 + 0.3 * len(scored))

            figure.set_size_inches(4.1, height)
            values = "; ".join(f"{row['point']} {number(row['value'])}" for row in part.to_dict("records"))
            whose = ""
            if len(part["chance"].round(3).dropna().unique()) > 1:
                whose = f" of {part['point'].iloc[0]}"

            alt = f"{metric_words(metric).title}: {values}"
            figures.append(figure_values(figure, alt, f"Dashed: chance{whose}."))

        return figures

    def _pictures(self, section: SweepSection, scored: Sequence[SweepPoint]) -> dict[str, Any] | None:
        """The same test pictures as every point decoded them."""
        contents = [(point, self._content(self._runs(point)[0])) for point in scored]
        contents = [(point, content) for point, content in contents if content.n_pictures]
        if not contents:
            return None

        first = contents[0][1]
        tested = np.sort(first.index()["stimulus"].unique().astype(str))
        stimuli = list(np.random.default_rng(0).choice(tested, min(PICTURES, len(tested)), replace=False))

        rows = [decoded_row(first, "seen", stimuli, SEEN)]
        for point, content in contents:
            rows.append(decoded_row(content, self._short(point, section), stimuli))

        index = first.index().drop_duplicates("stimulus").set_index("stimulus")
        categories = [""] * len(stimuli)
        if "category" in index:
            categories = index["category"].reindex(stimuli).fillna("")

        columns = []
        for stimulus, category in zip(stimuli, categories, strict=True):
            columns.append({"stimulus": stimulus, "value": np.nan, "category": category})

        note = "Drawn without looking at the scores, the same for every row."
        return {"title": f"{len(stimuli)} test pictures", "note": note, "columns": columns, "rows": rows}

    # -- in words ------------------------------------------------------------------------------------------------------

    def _sentences(self, section: SweepSection, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        if not self.columns:
            return []

        main = self._main_column()
        scored = [(row["label"], row["cells"][main], row["is_base"]) for row in rows if row["cells"][main]]
        if not scored:
            return []

        words = metric_words(self.columns[main][1])
        if words.lower_is_better:
            label, best, _ = min(scored, key=lambda entry: entry[1]["value"])
        else:
            label, best, _ = max(scored, key=lambda entry: entry[1]["value"])

        interval = ""
        if np.isfinite(best["ci_low"]):
            interval = f" [{number(best['ci_low'])}, {number(best['ci_high'])}]"

        start = ""
        if section.title:
            start = f"{_heading(section.title)}: "

        text = f"{start}{words.title} is best with {label}, {number(best['value'])}{interval}."
        others = [(name, cell) for name, cell, is_base in scored if not is_base and np.isfinite(cell["difference"])]
        if not others:
            return [text]

        groups = {
            "surely better": [name for name, cell in others if cell["better"]],
            "surely worse": [name for name, cell in others if cell["worse"]],
            "not to be told apart from it": [name for name, cell in others if not cell["better"] and not cell["worse"]],
        }
        base = next((name for name, _, is_base in scored if is_base), self._short(section.base, section))
        compared = "; ".join(f"{', '.join(names)} {verdict}" for verdict, names in groups.items() if names)

        return [f"{text} Against {base}: {compared}."]


def _readable(label: str) -> str:
    return label.replace("data.options.", "").replace("data.", "").replace("recipe.", "")


def _heading(label: str) -> str:
    label = _readable(label)
    return label[:1].upper() + label[1:]


def _span(values: Sequence[float]) -> str:
    """One chance level for a column: a number, or from lowest to highest where points have their own."""
    finite = [float(value) for value in values if np.isfinite(value)]
    if not finite:
        return "–"

    low = number(min(finite))
    high = number(max(finite))
    if low == high:
        return low

    return f"{low} to {high}"
