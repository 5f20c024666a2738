"""Pictures of a page: chosen stimuli as a grid of tiles, many of them on one sheet, all as data URIs."""

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

from phosphene.io.run_folder import SEEN
from phosphene.reporting.contents import SHEET, Contents, PictureGroup
from phosphene.reporting.drawing import as_uint8, mosaic
from phosphene.reporting.plain_words import input_words, number, whole

LARGEST_SIDE = 224
"""Pictures are shown at most this large, in pixels; the run holds them in full. Controls are shown half as large."""
_MOST_PIXELS = 20_000_000  # of a file that is believed
_SMALLEST_ON_SHEET = 28
_LARGEST_ON_SHEET = 64
_PER_STRIP = 20  # pictures in a row of the sheet
_PNG_UP_TO = 96  # a larger picture goes in as JPEG of quality 92, a tenth of the bytes


@dataclass(frozen=True)
class ImageTile:
    """A picture of the page.

    Parameters
    ----------
    uri : Markup
        data URI
    width, height : int
        on the page, pixels
    alt : str
        for who cannot see it
    sharp : bool
        whether its pixels should keep their edges
    """

    uri: Markup
    width: int
    height: int
    alt: str
    sharp: bool


def picture(array: np.ndarray, alt: str, largest: int = LARGEST_SIDE) -> ImageTile:
    """A picture for the page.

    Parameters
    ----------
    array : ndarray of shape (h, w, 1 or 3)
        floats of 0-1, or uint8
    alt : str
        for who cannot see it
    largest : int, optional
        pixels a side; a larger picture is made smaller

    Returns
    -------
    ImageTile
    """
    from PIL import Image

    pixels = as_uint8(array[None])[0]
    if array.shape[-1] == 1:
        pixels = pixels[..., 0]

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > largest:
        image.thumbnail((largest, largest), Image.Resampling.LANCZOS)

    buffer = io.BytesIO()
    is_small = max(image.size) <= _PNG_UP_TO

    if is_small:
        image.save(buffer, "PNG")
        uri = data_uri(buffer.getvalue(), "png")
    else:
        image.save(buffer, "JPEG", quality=92, subsampling=0)
        uri = data_uri(buffer.getvalue(), "jpeg")

    return ImageTile(uri, image.width, image.height, alt, is_small)


def picture_file(file: Path, alt: str, *, sharp: bool = False) -> ImageTile:
    """A PNG or GIF of the run as it is; GIFs move. Its size on the page follows the resolution that it states.

    Parameters
    ----------
    file : Path
        PNG or GIF
    alt : str
        for who cannot see it
    sharp : bool, default False
        whether its pixels should keep their edges

    Returns
    -------
    ImageTile

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

        kind = str(image.format).lower()
        dpi = image.info.get("dpi", (96.0, 96.0))[0] or 96.0
        width = round(image.width * 96 / dpi)
        height = round(image.height * 96 / dpi)
        image.verify()

    return ImageTile(data_uri(data, kind), width, height, alt, sharp)


def data_uri(data: bytes, kind: str) -> Markup:
    """Bytes as a data URI that the template takes as it is."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")


def image_grid(group: PictureGroup, contents: Contents, sources: Iterable[str]) -> dict[str, Any]:
    """Values of one grid for the template: a column per stimulus, a row per input.

    Parameters
    ----------
    group : PictureGroup
        which stimuli
    contents : Contents
        of the run
    sources : iterable of str
        inputs, from top to bottom

    Returns
    -------
    dict of {str: Any}
        title, note, columns (stimulus, value, category), rows (source, label, what, cells)
    """
    columns = _columns(group, contents)
    rows = []

    for source in sources:
        label, what = input_words(source)
        largest = LARGEST_SIDE // 2
        if source in (SEEN, "brain"):
            largest = LARGEST_SIDE

        cells = []
        for row, column in zip(group.rows, columns, strict=True):
            alt = f"{label}: stimulus {column['stimulus']}"
            if source == "brain" and contents.sorting_metric:
                alt += f", {contents.sorting_metric} {number(column['value'])}"

            array = contents.picture(source, int(row))
            cells.append(None if array is None else picture(array, alt, largest))

        rows.append({"source": source, "label": label, "what": what, "cells": cells})
        if source == "brain":
            rows += _other_samples(group, contents)

    return {"title": group.title, "note": group.note, "columns": columns, "rows": rows}


def _columns(group: PictureGroup, contents: Contents) -> list[dict[str, Any]]:
    index = contents.index()
    stimuli = index["stimulus"].to_numpy()
    columns = []

    for row in group.rows:
        value = np.nan
        if contents.sorting_metric:
            value = contents.item_values[row]

        category = ""
        if "category" in index and not pd.isna(index["category"].iloc[row]):
            category = str(index["category"].iloc[row])

        columns.append({"stimulus": stimuli[row], "value": value, "category": category})

    return columns


def _other_samples(group: PictureGroup, contents: Contents) -> list[dict[str, Any]]:
    """Rows of what a random generator drew beside the first sample, from the same decoded latents."""
    samples = contents.samples
    if samples is None:
        return []

    rows = []
    for i in range(1, samples.shape[1]):
        label = f"sample {i + 1}"
        cells = []
        for row in group.rows:
            pixels = samples[row, i] / np.float32(255)
            cells.append(picture(pixels, f"{label}, stimulus {row}", LARGEST_SIDE // 2))

        rows.append({"source": f"sample{i + 1}", "label": label, "what": "another draw", "cells": cells})

    return rows


def picture_sheet(contents: Contents) -> dict[str, Any] | None:
    """Many pictures in one image, seen above decoded; evenly thinned for large test sets.

    Parameters
    ----------
    contents : Contents
        of the run

    Returns
    -------
    dict of {str: Any} or None
        picture and title; None where the groups of the page show every picture already
    """
    from PIL import Image

    n = contents.n_pictures
    decoded = contents.pictures("brain")
    n_shown = sum(len(group.rows) for group in contents.groups(np.random.default_rng(0)))
    if decoded is None or n <= n_shown:
        return None

    rows = np.unique(np.linspace(0, n - 1, min(n, SHEET)).round().astype(int))
    side = max(decoded.shape[1:3])
    side = min(max(side, _SMALLEST_ON_SHEET), _LARGEST_ON_SHEET)
    strips = []

    for start in range(0, len(rows), _PER_STRIP):
        part = rows[start : start + _PER_STRIP]
        for source in (SEEN, "brain"):
            pictures = [contents.picture(source, int(row)) for row in part]
            present = [_resized(array, side) for array in pictures if array is not None]
            if len(present) == len(part):
                strips.append(np.stack(present))

    sheet = Image.fromarray(mosaic(strips, gap=max(1, side // 14)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    alt = f"{len(rows)} of {n} test pictures in order; each row of pictures seen stands above the row decoded from them"
    uri = data_uri(buffer.getvalue(), "png")
    tile = ImageTile(uri, sheet.width, sheet.height, alt, side <= _SMALLEST_ON_SHEET)

    count = f"{whole(len(rows))} of {whole(n)}, evenly spaced,"
    if len(rows) == n:
        count = f"All {n}"

    return {"picture": tile, "title": f"{count} test pictures on one sheet"}


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    image = as_uint8(pixels[None])[0]
    if image.shape[0] == image.shape[1] == side:
        return image

    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BILINEAR))


def stack(contents: Contents, source: str, rows: np.ndarray) -> np.ndarray | None:
    """Pictures of an input in one array.

    Parameters
    ----------
    contents : Contents
        of the run
    source : str
        the input
    rows : ndarray of int
        of the decoded pictures

    Returns
    -------
    ndarray of shape (n, h, w, 3), uint8, or None
        None unless all are there in one size
    """
    pictures = [contents.picture(source, int(row)) for row in rows]
    present = [as_uint8(array[None])[0] for array in pictures if array is not None]
    sizes = {array.shape for array in present}

    if len(present) == len(rows) and len(sizes) == 1:
        return np.stack(present)

    return None
