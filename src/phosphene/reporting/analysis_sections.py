"""Analyses of a run, as ``phosphene analyse`` filed them: sentences, figures and a table each. Knows none by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from phosphene.analysis import analysis_names
from phosphene.analysis.interface import COLUMNS
from phosphene.errors import PhospheneError
from phosphene.io.run_folder import read_json
from phosphene.reporting.contents import Contents, plain
from phosphene.reporting.image_grid import data_uri, picture_file
from phosphene.reporting.plain_words import HIDDEN, is_secret

__all__ = ["analysis_sections"]

FOLDER = "analysis"


def analysis_sections(contents: Contents) -> list[dict[str, Any]]:
    """Values of every analysis for the template, in the order of the registry; a damaged one is noted and left out.

    Parameters
    ----------
    contents : Contents
        of the run

    Returns
    -------
    list of dict of {str: Any}
        name, title, sentences, figures, table, notes, measures, options, seed, command
    """
    folder = contents.run.path / FOLDER
    if not folder.is_dir():
        return []

    places = [place for place in folder.iterdir() if (place / "analysis.json").is_file()]
    order = {name: i for i, name in enumerate(analysis_names())}
    places.sort(key=lambda place: (order.get(place.name, len(order)), place.name))
    sections = []

    for place in places:
        try:
            record = read_json(place / "analysis.json")
        except PhospheneError as error:
            contents.notes.append(str(error))
        else:
            sections.append(_section(contents, place, record))

    return sections


def _section(contents: Contents, place: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    options = {}
    if isinstance(record.get("options"), Mapping):
        for key, value in record["options"].items():
            options[key] = HIDDEN if is_secret(key) else plain(value)

    return {
        "name": place.name,
        "title": plain(record.get("title") or place.name),
        "sentences": _sentences(place / "summary.txt"),
        "figures": _figures(contents, place, record),
        "table": _table(contents, place, record),
        "notes": _words(record, "notes"),
        "measures": _words(record, "measures"),
        "options": options,
        "seed": plain(record.get("seed")),
        "command": f"{contents.command('analyse')} {place.name}",
    }


def _words(record: Mapping[str, Any], key: str) -> dict[str, str]:
    words = record.get(key)
    if isinstance(words, Mapping):
        return {str(name): plain(value) for name, value in words.items()}

    return {}


def _sentences(file: Path) -> list[str]:
    if not file.is_file():
        return []

    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _table(contents: Contents, place: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Measures down, inputs across."""
    table = contents.table(COLUMNS, FOLDER, place.name, "table.csv")
    if table.empty:
        return None

    for name in ("value", "ci_low", "ci_high", "n"):
        table[name] = pd.to_numeric(table[name], errors="coerce")

    inputs = _in_order(_words(record, "inputs"), list(table["input"]))
    measures = _in_order(_words(record, "measures"), list(table["measure"]))
    cells = {(row["input"], row["measure"]): row for row in table.to_dict("records")}
    rows = []

    for measure, title in measures.items():
        rows.append((title, [cells.get((name, measure)) for name in inputs]))

    return {"inputs": list(inputs.items()), "rows": rows}


def _in_order(words: Mapping[str, str], column: Sequence[str]) -> dict[str, str]:
    """Names that a column holds with their words: those of the record first, any other under its own name."""
    names = list(dict.fromkeys(column))
    in_order = {name: title for name, title in words.items() if name in names}

    for name in names:
        in_order.setdefault(name, str(name))

    return in_order


# -- pictures ----------------------------------------------------------------------------------------------------------


def _figures(contents: Contents, place: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures, then moving pictures; those that are missing or damaged are left out."""
    figures = []
    for about in _mappings(record.get("figures")):
        figures.append(_figure(contents, place, about))

    for about in _mappings(record.get("animations")):
        figures.append(_picture(contents, place, about, "gif"))

    return [figure for figure in figures if figure is not None]


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, list):
        return [entry for entry in value if isinstance(entry, Mapping)]

    return []


def _figure(contents: Contents, place: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """A figure as drawn (SVG, which follows the reader's scheme), or else as PNG."""
    figure = _picture(contents, place, about, "png")
    svg = place / f"{_file_name(about)}.svg"

    if figure is not None and svg.is_file():
        try:
            figure["picture"] = replace(figure["picture"], uri=data_uri(svg.read_bytes(), "svg+xml"))
        except OSError as error:
            contents.note_damage(f"{FOLDER}/{place.name}/{svg.name}", str(error))

    return figure


def _picture(contents: Contents, place: Path, about: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """The picture file of this kind, with its caption; None where there is none."""
    name = _file_name(about)
    file = place / f"{name}.{kind}"
    if not file.is_file():
        return None

    try:
        tile = picture_file(file, plain(about.get("alt") or name), sharp=kind == "gif")
    except (OSError, ValueError, SyntaxError) as error:
        contents.note_damage(f"{FOLDER}/{place.name}/{file.name}", str(error))
        return None

    return {"picture": tile, "caption": plain(about.get("caption") or "")}


def _file_name(about: Mapping[str, Any]) -> str:
    """The last part alone, so that a record cannot name a file elsewhere."""
    return Path(str(about.get("file", ""))).name
