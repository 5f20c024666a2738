"""Pictures of a page: chosen stimuli as plates, many of them as a contact sheet, all as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from phosphene.io.folder import SEEN
from phosphene.reporting import figures
from phosphene.reporting.contents import SHEET, Contents, PictureGroup
from phosphene.reporting.words import input_words, number, whole

LARGEST_SIDE = 224
"""Pictures are shown at most this large, in pixels; the run holds them in full. Controls are shown half as large."""
_MOST_PIXELS = 20_000_000  # of a file that is believed
_PNG_UP_TO = 96  # a larger picture goes in as JPEG of quality 92, a tenth of the bytes


@dataclass(frozen=True)
class ImageTile:
    """A picture of the page: data URI, size in pixels, alternative text, and whether its pixels should stay sharp."""

    uri: Markup
    width: int
    height: int
    alt: str
    sharp: bool


def picture(array: np.ndarray, alt: str, largest: int = LARGEST_SIDE) -> ImageTile:
    """A picture for the page from (h, w, 1 or 3) of 0-1 floats or uint8; made smaller when over `largest` a side."""
    from PIL import Image

    pixels = figures.as_uint8(array[None])[0]
    if array.shape[-1] == 1:
        pixels = pixels[..., 0]

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > largest:
        image.thumbnail((largest, largest), Image.Resampling.LANCZOS)

    buffer = io.BytesIO()
    small = max(image.size) <= _PNG_UP_TO

    if small:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=92, subsampling=0)

    return ImageTile(data_uri(buffer.getvalue(), "png" if small else "jpeg"), *image.size, alt, small)


def picture_file(file: Path, alt: str, *, sharp: bool = False) -> ImageTile:
    """A PNG or GIF of the run as it is; GIFs move. Its size on the page follows the resolution that it states.

    Raises
    ------
    OSError, ValueError, SyntaxError
        Unreadable, of another kind, or so large that nobody drew it on purpose.
    """
    from PIL import Image

    data = file.read_bytes()
    with Image.open(io.BytesIO(data), formats=("PNG", "GIF")) as image:
        if image.width * image.height * getattr(image, "n_frames", 1) > _MOST_PIXELS:
            raise ValueError("it is too large")

        kind = image.format.lower()
        size = image.size
        dpi = image.info.get("dpi", (96.0, 96.0))[0] or 96.0
        image.verify()

    return ImageTile(data_uri(data, kind), *(round(s * 96 / dpi) for s in size), alt, sharp)


def data_uri(data: bytes, kind: str) -> Markup:
    """Bytes as a data URI that the template takes as it is."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")


def image_grid(group: PictureGroup, c: Contents, sources: Iterable[str]) -> dict[str, Any]:
    """Values of one plate: title, note, columns (stimulus, value, category), rows (source, label, what, cells)."""
    stimuli = c.index()["stimulus"].to_numpy()
    if "category" in c.index():
        category = c.index()["category"].to_numpy()
    else:
        category = None

    columns = []
    for row in group.rows:
        if c.sorting_metric:
            value = c.item_values[row]
        else:
            value = np.nan

        if category is None or pd.isna(category[row]):
            label = ""
        else:
            label = str(category[row])

        columns.append({"stimulus": stimuli[row], "value": value, "category": label})

    rows = []
    for source in sources:
        label, what = input_words(source)
        if source in (SEEN, "brain"):
            largest = LARGEST_SIDE
        else:
            largest = LARGEST_SIDE // 2

        cells = []
        for row, column in zip(group.rows, columns, strict=True):
            found = c.picture(source, int(row))
            if source == "brain" and c.sorting_metric:
                score = f", {c.sorting_metric} {number(column['value'])}"
            else:
                score = ""

            alt = f"{label}: stimulus {column['stimulus']}{score}"
            cells.append(None if found is None else picture(found, alt, largest))

        rows.append({"source": source, "label": label, "what": what, "cells": cells})
        if source == "brain":
            rows += _other_samples(group, c)

    return {"title": group.title, "note": group.note, "columns": columns, "rows": rows}


def _other_samples(group: PictureGroup, c: Contents) -> list[dict[str, Any]]:
    """Rows of what a random generator drew beside the first sample, from the same decoded latents."""
    every = c.samples
    rows = []

    for s in range(1, 0 if every is None else every.shape[1]):
        alt = f"sample {s + 1}, stimulus"
        cells = [picture(every[row, s] / np.float32(255), f"{alt} {row}", LARGEST_SIDE // 2) for row in group.rows]
        rows.append({"source": f"sample{s + 1}", "label": f"sample {s + 1}", "what": "another draw", "cells": cells})

    return rows


def contact_sheet(c: Contents) -> dict[str, Any] | None:
    """A contact sheet of many pictures in one image, seen above decoded; evenly thinned for large test sets."""
    from PIL import Image

    n = c.n_pictures
    if n <= sum(len(g.rows) for g in c.groups(np.random.default_rng(0))):
        return None

    rows = np.unique(np.linspace(0, n - 1, min(n, SHEET)).round().astype(int))
    side = max(c.pictures("brain").shape[1:3])

    if side <= 28:
        target = 28
    else:
        target = min(side, 64)

    strips = []
    for start in range(0, len(rows), 20):
        part = rows[start : start + 20]
        for source in (SEEN, "brain"):
            found = [c.picture(source, int(i)) for i in part]
            if all(f is not None for f in found):
                strips.append(np.stack([_resized(f, target) for f in found]))

    sheet = Image.fromarray(figures.mosaic(strips, gap=max(1, target // 14)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    alt = f"{len(rows)} of {n} test pictures in order; each row of pictures seen stands above the row decoded from them"
    shown = ImageTile(data_uri(buffer.getvalue(), "png"), *sheet.size, alt, target <= 28)

    if len(rows) == n:
        count = f"All {n}"
    else:
        count = f"{whole(len(rows))} of {whole(n)}, evenly spaced,"

    return {"picture": shown, "title": f"{count} test pictures on one sheet"}


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    image = figures.as_uint8(pixels[None])[0]
    if image.shape[0] == image.shape[1] == side:
        return image

    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BILINEAR))


def stack(c: Contents, source: str, rows: np.ndarray) -> np.ndarray | None:
    """(n, h, w, 3) uint8 pictures of an input for these decoded rows; None unless all are there in one size."""
    found = [c.picture(source, int(r)) for r in rows]
    shapes = {f.shape[:2] for f in found if f is not None}
    same = len(shapes) == 1 and all(f is not None for f in found)
    if same:
        return np.stack([figures.as_uint8(f[None])[0] for f in found])

    return None
