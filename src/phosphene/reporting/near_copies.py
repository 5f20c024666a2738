"""The sheet of near copies that check S2 found: test pictures, and below each its near copy in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PAIRS", "near_copy_sheet"]

MAX_PAIRS = 40
"""Near copies that are drawn."""
_THUMBNAIL = 96
_GAP = _THUMBNAIL // 8
_PAIRS_PER_LINE = 10


def near_copy_sheet(test: np.ndarray, train: np.ndarray) -> Image:
    """Draw pairs in lines.

    Parameters
    ----------
    test : ndarray of shape (n, h, w, 1 or 3), uint8
        test pictures, at most `MAX_PAIRS`
    train : ndarray of shape (n, h, w, 1 or 3), uint8
        near copy of each

    Returns
    -------
    PIL.Image.Image
        RGB
    """
    from PIL import Image

    n = len(test)
    n_lines = -(-n // _PAIRS_PER_LINE)
    line_height = 2 * _THUMBNAIL + _GAP
    sheet = Image.new("RGB", (min(n, _PAIRS_PER_LINE) * _THUMBNAIL, n_lines * line_height - _GAP), "white")

    for below, pictures in enumerate((test, train)):
        for i, picture in enumerate(pictures):
            line, column = divmod(i, _PAIRS_PER_LINE)
            place = (column * _THUMBNAIL, line * line_height + below * _THUMBNAIL)
            pixels = picture[:, :, 0] if picture.shape[2] == 1 else picture
            sheet.paste(Image.fromarray(pixels).convert("RGB").resize((_THUMBNAIL, _THUMBNAIL)), place)

    return sheet
