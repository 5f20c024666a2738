"""Analyses of a run, as ``phosphene analyse`` filed them: sentences, figures and a table each. Knows none by name."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from phosphene.analyse import analysis_names
from phosphene.errors import PhospheneError
from phosphene.report.contents import Contents, plain
from phosphene.report.plates import Picture, data_uri
from phosphene.report.words import is_secret
from phosphene.run.folder import read_json

FOLDER = "analysis"
_COLUMNS = ("input", "measure", "value", "ci_low", "ci_high", "n")
_MOST_SIDE = 20_000_000  # pixels of a figure that is believed


def analyses(c: Contents) -> list[dict[str, Any]]:
    """Values of every analysis for the template, in the order of the registry; a damaged one is noted and left out."""
    folder = c.run.path / FOLDER
    found = [p for p in folder.iterdir() if (p / "analysis.json").is_file()] if folder.is_dir() else []
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
    pictures = [_figure(c, place, f) for f in figures if isinstance(f, Mapping)] if isinstance(figures, list) else []
    moving = record.get("animations")
    pictures += [_animation(c, place, a) for a in moving if isinstance(a, Mapping)] if isinstance(moving, list) else []
    options = record.get("options") if isinstance(record.get("options"), Mapping) else {}
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
    return {str(k): plain(v) for k, v in words.items()} if isinstance(words, Mapping) else {}


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
    inputs, measures = _words(record, "inputs"), _words(record, "measures")
    columns = [*(k for k in inputs if k in set(table["input"])), *(set(table["input"]) - set(inputs))]
    rows = [*(k for k in measures if k in set(table["measure"])), *(set(table["measure"]) - set(measures))]
    cells = {(r.input, r.measure): r._asdict() for r in table.itertuples()}
    return {
        "inputs": [(k, inputs.get(k, str(k))) for k in columns],
        "rows": [(measures.get(m, str(m)), [cells.get((k, m)) for k in columns]) for m in rows],
    }


def _figure(c: Contents, place: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """A figure as drawn (SVG, which follows the reader's scheme), or else as PNG."""
    from PIL import Image

    name = Path(str(about.get("file", ""))).name
    png, svg = place / f"{name}.png", place / f"{name}.svg"
    if not png.is_file():
        return None
    try:
        with Image.open(io.BytesIO(png.read_bytes())) as image:
            if image.width * image.height > _MOST_SIDE:
                raise ValueError("it is too large")
            image.verify()
            dpi = image.info.get("dpi", (200.0, 200.0))[0] or 200.0
            size = tuple(round(s * 96 / dpi) for s in image.size)
        uri = data_uri(png.read_bytes(), "png") if not svg.is_file() else data_uri(svg.read_bytes(), "svg+xml")
    except (OSError, ValueError, SyntaxError) as error:
        c._damaged(f"{FOLDER}/{place.name}/{name}.png", str(error))
        return None
    return {
        "picture": Picture(uri, *size, plain(about.get("alt") or name), False),
        "caption": plain(about.get("caption") or ""),
    }


def _animation(c: Contents, place: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Moving pictures, as they are."""
    from PIL import Image

    name = Path(str(about.get("file", ""))).name
    gif = place / f"{name}.gif"
    if not gif.is_file():
        return None
    try:
        with Image.open(io.BytesIO(gif.read_bytes()), formats=("GIF",)) as image:
            if image.width * image.height * getattr(image, "n_frames", 1) > _MOST_SIDE:
                raise ValueError("it is too large")
            size = image.size
    except (OSError, ValueError, SyntaxError) as error:
        c._damaged(f"{FOLDER}/{place.name}/{name}.gif", str(error))
        return None
    uri = data_uri(gif.read_bytes(), "gif")
    return {
        "picture": Picture(uri, *size, plain(about.get("alt") or name), True),
        "caption": plain(about.get("caption") or ""),
    }
