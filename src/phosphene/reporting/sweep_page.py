"""The page of a sweep: what was asked, every point with its interval and its difference from the base, and what it decoded.

A page has parts. Where axes are crossed, a part is what was tested on the same data; otherwise it is one axis beside the base.
Each part has a table, a figure per metric, and the same test pictures as every point decoded them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from phosphene.io import atomic
from phosphene.io.config import flatten
from phosphene.io.folder import SEEN, RunFolder
from phosphene.io.progress import duration
from phosphene.metrics.registry import kind_of
from phosphene.reporting.contents import Contents, plain
from phosphene.reporting.html import render
from phosphene.reporting.run_comparison import decoded_row
from phosphene.reporting.run_figures import figure_values
from phosphene.reporting.tables import rivals
from phosphene.reporting.words import input_words, is_secret, metric_words, number
from phosphene.sweeps.grid import Point, value_words
from phosphene.sweeps.reference import BestLinear, best_linear_of, pixel_correlation
from phosphene.sweeps.table import block_label, shown_metrics, within_block

if TYPE_CHECKING:
    from phosphene.sweeps.run import Sweep

PAGE = "sweep.html"
PICTURES = 10
"""Test pictures in a strip."""
_CEILING = "pearson.fraction_of_ceiling"
_MOST_COLUMNS = 6
_MOST_FIGURES = 4
_LEVEL = 0.05


@dataclass(frozen=True)
class SweepSection:
    """Points to be shown together, the base first."""

    title: str
    axis: int
    points: Sequence[Point]
    base: Point


def write_page(whole: Sweep, points: pd.DataFrame, summary: pd.DataFrame) -> Path:
    """Write OUT/sweep.html: self-contained, in the look of a run's report.

    Parameters
    ----------
    whole : Sweep
        the sweep
    points, summary : DataFrame
        its tables

    Returns
    -------
    Path
        Path of the page
    """
    path = whole.out / PAGE
    atomic.write_text(path, render(_Page(whole, points, summary).values(), "sweep.html"))
    return path


class _Page:
    def __init__(self, whole: Sweep, points: pd.DataFrame, summary: pd.DataFrame) -> None:
        self.whole = whole
        self.grid = whole.grid
        self.scores = points
        self.summary = summary
        self.done = {n for n in self.grid.runs if whole.is_done(n)}
        self._contents: dict[str, Contents] = {}
        self._shares: dict[str, dict[str, float] | None] = {}

    def values(self) -> dict[str, Any]:
        """Everything the template shows."""
        from phosphene._version import __version__

        parts = [self._part_values(part, f"part{i + 1}") for i, part in enumerate(self.parts)]
        return {
            "title": self.grid.file.title or f"Sweep {self.whole.file.stem}",
            "name": self.whole.out.resolve().name,
            "lede": self._lede(),
            "conclusions": [line for part in parts for line in part["conclusions"]],
            "failed": [(self._label_of(n), self.whole.failure(n)) for n in self._missing() if self.whole.failure(n)],
            "open": [self._label_of(n) for n in self._missing() if not self.whole.failure(n)],
            "n_runs": len(self.grid.runs),
            "parts": parts,
            "glance": self._glance(parts),
            "axes": self._axes(),
            "base": self._base_values(),
            "words": [metric_words(m) for m in dict.fromkeys(m for _, m in self.columns)],
            "command": f"phosphene sweep {self.whole.file.name} --out {self.whole.out}",
            "repeated": bool(self.grid.file.repeat),
            "version": __version__,
        }

    # -- what was asked ------------------------------------------------------------------------------------------------

    def _lede(self) -> str:
        there = len(self.done)
        labels = {(p.axis, p.label) for p in self.grid.points}
        times = {tuple(p.repeat.items()) for p in self.grid.points}

        if len(times) > 1:
            over = f", each repeated {len(times)} times"
        else:
            over = ""

        if there == len(self.grid.runs):
            all_there = "all of them finished"
        else:
            all_there = f"{there} of them finished"

        return f"{len(labels)} points{over}: {len(self.grid.runs)} runs, {all_there}."

    def _missing(self) -> list[str]:
        return [n for n in self.grid.runs if n not in self.done]

    def _label_of(self, run: str) -> str:
        point = next(p for p in self.grid.points if p.run == run)
        again = ", ".join(f"{k} {value_words(v)}" for k, v in point.repeat.items())
        return _readable(f"{point.label}{f' ({again})' if again else ''}")

    def _axes(self) -> list[dict[str, Any]]:
        file = self.grid.file
        named = [("", axis) for axis in file.grid] + [("repeated", axis) for axis in file.repeat]
        return [
            {"key": key, "values": ", ".join(dict.fromkeys(map(value_words, values))), "how": how}
            for how, axis in named
            for key, values in axis.items()
        ]

    def _base_values(self) -> list[tuple[str, str]]:
        values = {"recipe": self.grid.file.recipe, **flatten(self.grid.file.base)}
        for _, over in self.whole.layers:  # of the command line
            values |= flatten(dict(over))

        return [(k, "[hidden]" if is_secret(k) else plain(v)) for k, v in values.items() if v is not None]

    # -- parts ---------------------------------------------------------------------------------------------------------

    @cached_property
    def parts(self) -> list[SweepSection]:
        """What is shown together."""
        grid = self.grid
        once = [p for p in self.grid.points if p.repeat == self.grid.points[0].repeat]
        base = once[0]

        if grid.file.crossed:
            blocks: dict[str, list[Point]] = {}
            for point in once:
                blocks.setdefault(block_label(grid, point), []).append(point)

            return [SweepSection(_heading(title), -1, members, members[0]) for title, members in blocks.items()]

        parts = []
        for axis in sorted({p.axis for p in once} - {-1}) or [-1]:
            mine = [p for p in once if p.axis == axis and p.run != base.run]
            if axis >= 0:
                keys = " and ".join(grid.file.grid[axis])
            else:
                keys = ""

            parts.append(SweepSection(_readable(keys), axis, [base, *mine] if base not in mine else mine, base))

        return parts

    @cached_property
    def columns(self) -> list[tuple[str, str]]:
        """(input, metric) of the table, the share of the noise ceiling last where it is known."""
        if self.summary.empty:
            return []

        shown = [x for x in shown_metrics(self.summary, self.grid.file.metrics) if x[1] != _CEILING][:_MOST_COLUMNS]
        known = _CEILING in set(self.summary.loc[self.summary["input"] == "brain", "metric"])
        return [*shown, *([("brain", _CEILING)] if known else [])]

    def _part_values(self, part: SweepSection, id_: str) -> dict[str, Any]:
        there = [p for p in part.points if self._runs(p)]
        columns = self.columns
        best = self._best_linear(part)
        rows = [self._row(p, part, columns, best) for p in there]

        return {
            "id": id_,
            "title": part.title,
            "note": self._note(part, there, best),
            "columns": [
                {"words": metric_words(m), "of": "" if i == "brain" else input_words(i)[0]} for i, m in columns
            ],
            "rows": rows,
            "chance": [_span([x["chance"] for r in rows if (x := r["cells"][k])]) for k in range(len(columns))],
            "shares": best is not None and any(r["share"] for r in rows),
            "rivals": any(x and x["rivals"] for r in rows for x in r["cells"]),
            "base": self._short(part.base, part),
            "compared": any(x and np.isfinite(x["difference"]) and not r["is_base"] for r in rows for x in r["cells"]),
            "figures": self._figures(part, there, columns),
            "plate": self._plate(part, there),
            "conclusions": self._sentences(part, rows, columns),
        }

    def _short(self, point: Point, part: SweepSection) -> str:
        if part.axis == -1:
            label = within_block(self.grid, point)
        else:
            label = point.label

        return _readable(label.removeprefix("recipe ") if label.count(",") == 0 else label)

    def _note(self, part: SweepSection, there: Sequence[Point], best: BestLinear | None) -> str:
        said = []
        if there:
            tested = len(self._content(self._runs(there[0])[0]).index())
            said.append(f"{tested} test pictures.")

        if best is not None:
            if best.showings == 1:
                words = "one response each"
            else:
                words = f"{best.showings} responses to each averaged"

            said.append(
                f"Best linear decoder of pixels, {words}: r = {number(best.reached)} on these pictures, {number(best.bound)} on "
                f"the {best.learned} pictures that it learned from."
            )

        return " ".join(said)

    def _glance(self, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Where the same points were tested on several data: one score of each, points down and data across."""
        parts = [p for p in parts if p["rows"] and p["columns"]]
        if not self.grid.file.crossed or len(parts) < 2:
            return None

        main = self._main(self.columns)
        metric = self.columns[main][1]
        labels = list(dict.fromkeys(r["label"] for p in parts for r in p["rows"]))
        found = {(p["id"], r["label"]): r for p in parts for r in p["rows"]}
        cells = [[found.get((p["id"], label)) for p in parts] for label in labels]

        return {
            "words": metric_words(metric),
            "parts": [(p["id"], p["title"]) for p in parts],
            "rows": [
                (label, [r and {"score": r["cells"][main], "share": r["share"]} for r in row])
                for label, row in zip(labels, cells, strict=True)
            ],
            "chance": [p["chance"][main] for p in parts],
            "shares": any(r and r["share"] for row in cells for r in row),
        }

    @staticmethod
    def _main(columns: Sequence[tuple[str, str]]) -> int:
        """The column that summaries speak of: identification where there is any, since it has a chance level."""
        return next((k for k, (_, m) in enumerate(columns) if kind_of(m) == "two_way"), 0)

    # -- one point -----------------------------------------------------------------------------------------------------

    def _runs(self, point: Point) -> list[str]:
        """Finished runs of a point, one per repetition."""
        same = [p for p in self.grid.points if p.label == point.label and p.axis == point.axis]
        return [p.run for p in same if p.run in self.done]

    def _content(self, run: str) -> Contents:
        if run not in self._contents:
            self._contents[run] = Contents(RunFolder(self.whole.folder(run)))

        return self._contents[run]

    def _score(self, point: Point, source: str, metric: str) -> pd.Series | None:
        table = self.summary
        found = table[
            (table["axis"] == point.axis) & (table["point"] == point.label)
            & (table["input"] == source) & (table["metric"] == metric)
        ]  # fmt: skip

        if found.empty:
            return None

        return found.iloc[0]

    def _row(
        self, point: Point, part: SweepSection, columns: Sequence[tuple[str, str]], best: BestLinear | None
    ) -> dict[str, Any]:
        runs = self._runs(point)
        taken = self.scores.loc[self.scores["run"].isin(runs), ["run", "seconds"]].drop_duplicates()
        return {
            "label": self._short(point, part),
            "is_base": point.run == part.base.run,
            "cells": [self._cell(point, runs[0], *c) for c in columns],
            "share": self._share(runs, best),
            "time": duration(float(taken["seconds"].mean())) if len(taken) else "–",
            "links": [self._link(r, len(runs), i) for i, r in enumerate(runs)],
        }

    def _cell(self, point: Point, run: str, source: str, metric: str) -> dict[str, Any] | None:
        row = self._score(point, source, metric)
        if row is None:
            return None

        if metric_words(metric).lower_is_better:
            sign = -1
        else:
            sign = 1

        sure = bool(row["p_holm"] < _LEVEL)
        if source == "brain":
            beaten_by = self._rivals(run, metric)
        else:
            beaten_by = []

        return {
            "value": row["value"], "ci_low": row["ci_low"], "ci_high": row["ci_high"], "chance": row["chance"],
            "difference": row["difference"], "low": row["difference_low"], "high": row["difference_high"],
            "p": row["p_holm"], "better": sure and sign * row["difference"] > 0,
            "worse": sure and sign * row["difference"] < 0, "rivals": ", ".join(beaten_by),
        }  # fmt: skip

    def _rivals(self, run: str, metric: str) -> list[str]:
        contents = self._content(run)
        controls = [i for i in dict.fromkeys(contents.scores["input"]) if i not in ("brain", "truth", "first_stage")]
        return [input_words(i)[0] for i in controls if rivals(contents, metric, i)]

    def _link(self, run: str, n: int, at: int) -> dict[str, str]:
        page = self.whole.folder(run) / "report.html"
        target = f"runs/{quote(run)}/" + ("report.html" if page.is_file() else "")
        return {"href": target, "text": "run" if n == 1 else str(at + 1), "title": run}

    # -- what can be reached -------------------------------------------------------------------------------------------

    def _best_linear(self, part: SweepSection) -> BestLinear | None:
        """That of the part, where all its points have the same."""
        found = {best_linear_of(self.grid.runs[p.run].config) for p in part.points if p.run in self.done}
        if len(found) == 1:
            return next(iter(found))

        return None

    def _share(self, runs: Iterable[str], best: BestLinear | None) -> dict[str, float] | None:
        """Pixel correlation as a share of that of the best linear decoder; mean over repetitions."""
        if best is None or best.reached <= 0:
            return None

        found = []
        for run in runs:
            contents = self._content(run)
            decoded = contents.pictures("brain")
            seen = contents.pictures(SEEN)
            if decoded is None or seen is None or decoded.shape != seen.shape:
                return None

            found.append(np.array(pixel_correlation(decoded, seen)))

        value, low, high = np.mean(found, axis=0)
        share = {"r": float(value), "value": value / best.reached, "ci_low": low / best.reached}

        return {**share, "ci_high": high / best.reached}

    # -- pictures ------------------------------------------------------------------------------------------------------

    def _figures(
        self, part: SweepSection, there: Sequence[Point], columns: Sequence[tuple[str, str]]
    ) -> list[dict[str, Any]]:
        from phosphene.reporting.drawing import style
        from phosphene.reporting.sweep_figure import draw

        if len(there) < 2:
            return []

        if self.grid.file.crossed:
            names = {p.label: self._short(p, part) for p in there}
        else:
            names = {}

        mine = self.summary[self.summary["point"].isin([p.label for p in there])]
        mine = mine[mine["axis"].isin([-1, part.axis])].assign(point=lambda t: t["point"].replace(names))
        made = []

        for source, metric in columns[:_MOST_FIGURES]:
            only = mine[(mine["input"] == source) & (mine["metric"] == metric)]
            file = self.grid.file.model_copy(update={"title": "", "metrics": [f"{source}:{metric}"]})

            with style():
                figure = draw(only, replace(self.grid, file=file))

            figure.set_size_inches(4.1, max(1.5, 0.85 + 0.3 * len(there)) if part.axis == -1 else 2.9)
            title = metric_words(metric).title
            values = "; ".join(f"{r.point} {number(r.value)}" for r in only.itertuples())

            if only["chance"].round(3).nunique() < 2:
                whose = ""
            else:
                whose = f" of {only['point'].iloc[0]}"

            made.append(figure_values(figure, f"{title}: {values}", f"Dashed: chance{whose}."))

        return made

    def _plate(self, part: SweepSection, there: Sequence[Point]) -> dict[str, Any] | None:
        shown = [(p, self._content(self._runs(p)[0])) for p in there]
        shown = [(p, c) for p, c in shown if c.n_pictures]
        if not shown:
            return None

        first = shown[0][1]
        tested = np.sort(first.index()["stimulus"].unique().astype(str))
        stimuli = np.random.default_rng(0).choice(tested, min(PICTURES, len(tested)), replace=False)
        rows = [
            decoded_row(first, "seen", stimuli, SEEN),
            *(decoded_row(c, self._short(p, part), stimuli) for p, c in shown),
        ]

        index = first.index().drop_duplicates("stimulus").set_index("stimulus")
        if "category" in index:
            category = index["category"].reindex(stimuli).fillna("")
        else:
            category = [""] * len(stimuli)

        columns = [{"stimulus": s, "value": np.nan, "category": c} for s, c in zip(stimuli, category, strict=True)]
        note = "Drawn without looking at the scores, the same for every row."

        return {"title": f"{len(stimuli)} test pictures", "note": note, "columns": columns, "rows": rows}

    # -- in words ------------------------------------------------------------------------------------------------------

    def _sentences(
        self, part: SweepSection, rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str]]
    ) -> list[str]:
        main = self._main(columns)
        there = [(r["label"], r["cells"][main], r["is_base"]) for r in rows if columns and r["cells"][main]]
        if not there:
            return []

        words = metric_words(columns[main][1])
        label, best, _ = (min if words.lower_is_better else max)(there, key=lambda x: x[1]["value"])

        if np.isfinite(best["ci_low"]):
            interval = f" [{number(best['ci_low'])}, {number(best['ci_high'])}]"
        else:
            interval = ""

        if part.title:
            start = f"{_heading(part.title)}: "
        else:
            start = ""

        text = f"{start}{words.title} is best with {label}, {number(best['value'])}{interval}."
        others = [x for x in there if not x[2] and np.isfinite(x[1]["difference"])]
        if others:
            better, worse = ([n for n, x, _ in others if x[key]] for key in ("better", "worse"))
            same = [n for n, x, _ in others if not x["better"] and not x["worse"]]
            base = next((n for n, _, is_base in there if is_base), self._short(part.base, part))
            said = [("surely better", better), ("surely worse", worse), ("not to be told apart from it", same)]
            text += f" Against {base}: " + "; ".join(f"{', '.join(n)} {what}" for what, n in said if n) + "."

        return [text]


def _readable(label: str) -> str:
    return label.replace("data.options.", "").replace("data.", "").replace("recipe.", "")


def _heading(label: str) -> str:
    label = _readable(label)
    return label[:1].upper() + label[1:]


def _span(values: Sequence[float]) -> str:
    """One chance level for a column: a number, or from lowest to highest where points have their own."""
    known = [float(v) for v in values if np.isfinite(v)]
    if not known:
        return "–"

    low = number(min(known))
    high = number(max(known))
    if low == high:
        return low

    return f"{low} to {high}"
