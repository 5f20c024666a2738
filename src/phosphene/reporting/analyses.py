"""Analyses of a run, as ``phosphene analyse`` filed them: sentences, figures and a table each. Knows none by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from phosphene.analysis import analysis_names
from phosphene.errors import PhospheneError
from phosphene.io.folder import read_json
from phosphene.reporting.contents import Contents, plain
from phosphene.reporting.image_grid import data_uri, picture_file
from phosphene.reporting.words import is_secret

FOLDER = "analysis"
_COLUMNS = ("input", "measure", "value", "ci_low", "ci_high", "n")


def analyses(c: Contents) -> list[dict[str, Any]]:
    """Values of every analysis for the template, in the order of the registry; a damaged one is noted and left out."""
    folder = c.run.path / FOLDER
    if folder.is_dir():
        found = [p for p in folder.iterdir() if (p / "analysis.json").is_file()]
    else:
        found = []

    order = {name: i for i, name in enumerate(analysis_names())}
    found.sort(key=lambda p: (order.get(p.name, len(order)), p.name))

    return [values for values in (_values(c, place) for place in found) if values]


def _values(c: Contents, place: Path) -> dict[str, Any] | None:
    try:
        record = read_json(place / "analysis.json")
    except PhospheneError as error:
        c.notes.append(str(error))
        return None

    figures = record.get("figures")
    if isinstance(figures, list):
        pictures = [_figure(c, place, f) for f in figures if isinstance(f, Mapping)]
    else:
        pictures = []

    moving = record.get("animations")
    pictures += (
        [_shown(c, place, a, "gif") for a in moving if isinstance(a, Mapping)] if isinstance(moving, list) else []
    )

    if isinstance(record.get("options"), Mapping):
        options = record.get("options")
    else:
        options = {}

    return {
        "name": place.name,
        "title": plain(record.get("title") or place.name),
        "sentences": _sentences(place / "summary.txt"),
        "figures": [p for p in pictures if p],
        "table": _table(c, place, record),
        "notes": _words(record, "notes"),
        "measures": _words(record, "measures"),
        "options": {k: "[hidden]" if is_secret(k) else plain(v) for k, v in options.items()},
        "seed": plain(record.get("seed")),
        "command": f"{c.command('analyse')} {place.name}",
    }


def _words(record: Mapping[str, Any], key: str) -> dict[str, str]:
    words = record.get(key)
    if isinstance(words, Mapping):
        return {str(k): plain(v) for k, v in words.items()}

    return {}


def _sentences(file: Path) -> list[str]:
    if not file.is_file():
        return []

    return [x.strip() for x in file.read_text(encoding="utf-8", errors="replace").splitlines() if x.strip()]


def _table(c: Contents, place: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Measures down, inputs across."""
    table = c._table(_COLUMNS, FOLDER, place.name, "table.csv")
    if table.empty:
        return None

    for name in ("value", "ci_low", "ci_high", "n"):
        table[name] = pd.to_numeric(table[name], errors="coerce")

    inputs = _words(record, "inputs")
    measures = _words(record, "measures")
    columns = [*(k for k in inputs if k in set(table["input"])), *(set(table["input"]) - set(inputs))]
    rows = [*(k for k in measures if k in set(table["measure"])), *(set(table["measure"]) - set(measures))]
    cells = {(r.input, r.measure): r._asdict() for r in table.itertuples()}

    return {
        "inputs": [(k, inputs.get(k, str(k))) for k in columns],
        "rows": [(measures.get(m, str(m)), [cells.get((k, m)) for k in columns]) for m in rows],
    }


def _figure(c: Contents, place: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """A figure as drawn (SVG, which follows the reader's scheme), or else as PNG."""
    found = _shown(c, place, about, "png")
    svg = place / f"{Path(str(about.get('file', ''))).name}.svg"
    if found and svg.is_file():
        try:
            found["picture"] = replace(found["picture"], uri=data_uri(svg.read_bytes(), "svg+xml"))
        except OSError as error:
            c._damaged(f"{FOLDER}/{place.name}/{svg.name}", str(error))

    return found


def _shown(c: Contents, place: Path, about: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """The picture file of this kind, with its caption; None where there is none."""
    name = Path(str(about.get("file", ""))).name
    file = place / f"{name}.{kind}"
    if not file.is_file():
        return None

    try:
        shown = picture_file(file, plain(about.get("alt") or name), sharp=kind == "gif")
    except (OSError, ValueError, SyntaxError) as error:
        c._damaged(f"{FOLDER}/{place.name}/{file.name}", str(error))
        return None

    return {"picture": shown, "caption": plain(about.get("caption") or "")}
