"""A sheet of pictures with their names, to look at a data set before believing it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phosphene.io import atomic
from phosphene.types import Dataset, Stimuli


def contact_sheet(
    data: Dataset | Stimuli,
    file: str | Path,
    *,
    ids: Sequence[str] | None = None,
    n: int = 40,
    columns: int = 8,
    side: int = 128,
) -> Path:
    """Write a PNG of stimuli with their ids, categories and captions.

    Parameters
    ----------
    data : Dataset or Stimuli
        a data set, or its stimuli, with pictures
    file : str or Path
        where to write
    ids : sequence of str, optional
        which; `n` of them evenly spaced by default
    n : int, default 40
        how many
    columns : int, default 8
        pictures in a row
    side : int, default 128
        width of a picture on the sheet, in pixels

    Returns
    -------
    Path
        Path of the file
    """
    from PIL import Image, ImageDraw, ImageFont

    if isinstance(data, Dataset):
        stimuli = data.stimuli
    else:
        stimuli = data

    if ids is None:
        rows = np.unique(np.linspace(0, len(stimuli) - 1, min(n, len(stimuli))).astype(int))
        ids = list(stimuli.ids[rows])

    chosen = stimuli.select(ids)
    height, width, channels = chosen.image_shape
    tall = max(1, round(side * height / width))
    gap = 10
    line = 13
    texts = [_sheet_text(chosen, i, side) for i in range(len(chosen))]
    lines = max(len(t) for t in texts)
    cell_w = side + gap
    cell_h = tall + lines * line + gap
    columns = min(columns, len(chosen))
    sheet = Image.new("RGB", (columns * cell_w + gap, -(-len(chosen) // columns) * cell_h + gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)

    for i, text in enumerate(texts):
        x = gap + i % columns * cell_w
        y = gap + i // columns * cell_h

        if chosen.present is not None and not chosen.present[i]:
            draw.rectangle((x, y, x + side - 1, y + tall - 1), outline="grey")
            draw.text((x + 8, y + tall // 2), "missing", fill="grey", font=font)
        else:
            pixels = chosen.pixels(slice(i, i + 1))[0]
            picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)

            if width * 2 <= side:
                smooth = Image.Resampling.NEAREST
            else:
                smooth = Image.Resampling.LANCZOS

            sheet.paste(picture.resize((side, tall), smooth), (x, y))

        for j, words in enumerate(text):
            draw.text((x, y + tall + 2 + j * line), words, fill="black" if j == 0 else "#555555", font=font)

    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    path = atomic.checked_path(file)
    atomic.write_bytes(path, buffer.getvalue())

    return path


def _sheet_text(stimuli: Stimuli, i: int, side: int) -> list[str]:
    wide = max(6, side // 6)
    out = [textwrap.shorten(str(stimuli.ids[i]), wide, placeholder="…")]
    if stimuli.category is not None:
        out.append(textwrap.shorten(str(stimuli.category[i]), wide, placeholder="…"))

    if stimuli.captions is not None and stimuli.captions[i]:
        out += textwrap.wrap(textwrap.shorten(stimuli.captions[i][0], 3 * wide, placeholder="…"), wide)[:3]

    return out
