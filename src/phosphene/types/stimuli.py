"""Stimuli, Images, Latents: what was shown and what was decoded."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, replace
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from phosphene.errors import DataError, did_you_mean
from phosphene.types.identity import (
    HandedRows,
    Rows,
    SelectedRows,
    as_slice,
    digest_of,
    few,
    positions,
    select_rows,
    size_words,
    unique_ids,
)

_BLOCK = 512  # pictures read at a time: 100 MB of 256 x 256
_MOST_SHOWN = 12  # pictures, in a notebook
_SIDE_SHOWN = 96  # pixels of the longer side, in a notebook
_NO_PICTURES = (
    "these stimuli have no pictures, so nothing can be decoded: import the data with phosphene data import ... --images "
    "FOLDER, or in Python give Stimuli its images."
)


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Pictures shown, with what is known of them.

    Parameters
    ----------
    ids : ndarray of shape (n_stimuli,)
        unique str
    images : Rows, optional
        rows of (height, width, channels) uint8, 1 or 3 channels, 0-255; or None when there are no pictures. After a
        selection, those selected: an array in memory, or rows that are read when indexed
    captions : tuple of tuple of str, optional
        per stimulus 0 to k texts
    labels : DataFrame, optional
        (n_stimuli, n_labels) bool, several may be true
    category : ndarray of shape (n_stimuli,), str, optional
        the main category
    present : ndarray of shape (n_stimuli,), bool, optional
        false where a picture is missing; all true by default
    rows : ndarray of shape (n_stimuli,), int, optional
        which rows of `images` belong to these ids; all, in their order, by default
    """

    ids: np.ndarray
    images: Rows | None = None
    captions: tuple[tuple[str, ...], ...] | None = None
    labels: pd.DataFrame | None = None
    category: np.ndarray | None = None
    present: np.ndarray | None = None
    rows: InitVar[np.ndarray | None] = None

    def __post_init__(self, rows: np.ndarray | None) -> None:
        object.__setattr__(self, "ids", unique_ids(self.ids, "stimulus"))

        # Selected once, here: what is kept has one row per id, and no other method has to think of `rows`.
        if self.images is not None and rows is not None:
            object.__setattr__(self, "images", select_rows(self.images, np.asarray(rows)))

        n = len(self.ids)
        sizes: dict[str, int] = {}
        if self.images is not None:
            sizes["images"] = self.images.shape[0]  # not all rows have a length

        for name in ("captions", "labels", "category", "present"):
            part = getattr(self, name)
            if part is not None:
                sizes[name] = len(part)

        # Everything that goes by row is counted before anything is used, so that a picture never gets another's caption.
        for name, size in sizes.items():
            if size != n:
                raise DataError(f"{n} stimulus ids came with {size} {name}; there must be one entry per stimulus.")

        if self.images is not None:
            # A (3, height, width) picture of torch has its channels in front, and is refused here and not drawn wrong.
            shape = tuple(self.images.shape)
            if len(shape) != 4 or shape[3] not in (1, 3):
                raise DataError(f"images must be (n, height, width, 1 or 3), but have shape {shape}.")

        if self.category is not None:
            object.__setattr__(self, "category", np.asarray([str(c) for c in self.category], dtype=object))

        if self.labels is not None:
            object.__setattr__(self, "labels", self.labels.reset_index(drop=True).astype(bool))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        if self.images is None:
            pictures = "no pictures"
        else:
            pictures = size_words(self.image_shape)

        parts = [f"{len(self)} of {pictures}"]
        if self.present is not None and not self.present.all():
            parts.append(f"{int((~self.present).sum())} missing")
        if self.captions:
            parts.append("captions")
        if self.labels is not None:
            parts.append(f"{self.labels.shape[1]} labels")
        if self.category is not None:
            parts.append(f"{len(set(self.category))} categories")

        return f"Stimuli({', '.join(parts)})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every picture.

        Raises
        ------
        DataError
            When there are no pictures.
        """
        if self.images is None:
            raise DataError(_NO_PICTURES)

        height, width, channels = self.images.shape[1:]
        return int(height), int(width), int(channels)

    def select(self, ids: Iterable[str]) -> Stimuli:
        """These stimuli, in this order, as a view.

        Parameters
        ----------
        ids : iterable of str
            any of them, each once

        Returns
        -------
        Stimuli
            whose pictures are read when they are asked for

        Raises
        ------
        DataError
            Naming ids that do not exist.
        """
        at = positions(self.ids, ids, "stimulus")  # (n,)
        parts: dict[str, Any] = {}
        if self.images is not None:
            parts["images"] = select_rows(self.images, at)
        if self.captions is not None:
            parts["captions"] = tuple(self.captions[i] for i in at)
        if self.labels is not None:
            parts["labels"] = self.labels.iloc[at]
        if self.category is not None:
            parts["category"] = self.category[at]
        if self.present is not None:
            parts["present"] = self.present[at]

        return replace(self, ids=self.ids[at], **parts)

    def handed(self) -> Stimuli:
        """The same stimuli, from which no other picture of their source can be reached.

        Returns
        -------
        Stimuli
            with the same digest; pictures are read when they are asked for
        """
        if self.images is None:
            return self

        if isinstance(self.images, SelectedRows):
            return replace(self, images=HandedRows(self.images.source, self.images.index))

        return replace(self, images=HandedRows(self.images))

    def pixels(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Pictures as (n, height, width, channels) uint8, 0-255.

        Parameters
        ----------
        rows : slice or ndarray, optional
            which stimuli, as a slice, (n,) int or (n_stimuli,) bool; all by default

        Returns
        -------
        ndarray of shape (n, height, width, channels), uint8
            0-255, red first

        Raises
        ------
        DataError
            When there are no pictures, or one of those asked for is missing (its id is named).
        """
        if self.images is None:
            raise DataError(_NO_PICTURES)

        # A reader may give zeros for a missing picture: a black one, and nobody would notice.
        if self.present is not None and not self.present[rows].all():
            gone = self.ids[rows][~self.present[rows]]
            raise DataError(
                f"{len(gone)} of the pictures asked for are missing, first '{gone[0]}'. Leave these stimuli out "
                "(Stimuli.available), or put the files where the data set expects them."
            )

        index = np.arange(len(self))[rows]
        return np.asarray(self.images[as_slice(index)], dtype=np.uint8)  # (n, height, width, channels)

    def floats(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Pictures as (n, height, width, channels) float32, 0-1.

        Parameters
        ----------
        rows : slice or ndarray, optional
            see `pixels`

        Returns
        -------
        ndarray of shape (n, height, width, channels), float32
            0-1

        Raises
        ------
        DataError
            As `pixels` does.
        """
        # A divisor of float64 would make float64 of every picture, at twice the memory.
        return self.pixels(rows).astype(np.float32) / np.float32(255)

    def resized(self, size: tuple[int, int] | None, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Pictures at another size, (n, height, width, channels) float32, 0-1.

        Parameters
        ----------
        size : tuple of int or None
            (height, width), or None for the size they have
        rows : slice or ndarray, optional
            which stimuli

        Returns
        -------
        ndarray of shape (n, height, width, channels), float32
            0-1

        Raises
        ------
        DataError
            As `pixels` does.

        Notes
        -----
        Pillow's box filter in float32: an exact area average when shrinking, no ringing; colours are not linearised.
        """
        pixels = self.floats(rows)
        if size is None:
            return pixels

        return at_size(pixels, size)

    def available(self) -> Stimuli:
        """Only the stimuli whose picture is there."""
        if self.present is None:
            return self
        return self.select(self.ids[self.present])

    def category_of(self, ids: Iterable[str]) -> np.ndarray | None:
        """Category of each id, (n,) in their order; None where stimuli have none. Unlike in `select`, an id may come again."""
        if self.category is None:
            return None

        return self.category[positions(self.ids, ids, "stimulus")]

    def pixel_digests(self) -> np.ndarray:
        """(n_stimuli,) object: SHA-256 of each picture's size and pixels; '' where it is missing."""
        # The size goes in as well: 2 x 8 and 4 x 4 pixels may be the same bytes.
        out = np.full(len(self), "", dtype=object)
        shape = repr(self.image_shape).encode()

        for i in range(len(self)):
            if self.present is None or self.present[i]:
                pixels = self.pixels(slice(i, i + 1))  # (1, height, width, channels)
                out[i] = hashlib.sha256(shape + pixels.tobytes()).hexdigest()
        return out

    def digest(self) -> str:
        """SHA-256 of ids, categories, captions, labels and pictures (every picture up to 20,000, then a sample)."""
        # Every k-th, evenly through the set: NSD's 73,000 pictures would be read for minutes at each start.
        step = max(1, len(self) // 20_000)
        sample = np.arange(0, len(self), step)
        if self.present is not None:
            sample = sample[self.present[sample]]

        parts = [digest_of(self.ids, self.category, self.captions, self.labels)]
        if self.images is not None:
            for start in range(0, len(sample), _BLOCK):
                parts.append(digest_of(self.pixels(sample[start : start + _BLOCK])))

        return digest_of(parts)


def at_size(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pictures at another size, by Pillow's box filter: an exact area average when shrinking, whole pixels when growing.

    Parameters
    ----------
    pixels : ndarray of shape (n, height, width, channels), float32
        0-1
    size : tuple of int
        (height, width)

    Returns
    -------
    ndarray of shape (n, height, width, channels), float32
        0-1; the same array where they have that size
    """
    if tuple(size) == pixels.shape[1:3]:
        return pixels

    from PIL import Image

    height, width = size
    out = np.empty((len(pixels), height, width, pixels.shape[3]), dtype=np.float32)

    # One channel at a time: Pillow resizes floats in pictures of one channel only.
    for i, picture in enumerate(pixels):
        for c in range(pixels.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(picture[:, :, c], dtype=np.float32))
            other = plane.resize((width, height), Image.Resampling.BOX)  # Pillow counts width first
            out[i, :, :, c] = np.asarray(other)  # (height, width)

    return out


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded or true pictures.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        stimulus id of each picture; an id may appear several times (samples)
    pixels : ndarray of shape (n, height, width, channels), float32
        nominally 0-1; decoders may overshoot, `clipped` does not
    """

    ids: np.ndarray
    pixels: np.ndarray

    def __post_init__(self) -> None:
        pixels = np.asarray(self.pixels)
        if pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
            raise DataError(f"pictures must be (n, height, width, 1 or 3), but have shape {pixels.shape}.")
        if len(self.ids) != len(pixels):
            raise DataError(f"{len(pixels)} pictures came with {len(self.ids)} ids.")

        if pixels.dtype == np.uint8:
            pixels = pixels.astype(np.float32) / 255  # the one dtype whose range is certain
        else:
            pixels = pixels.astype(np.float32, copy=False)

        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "ids", np.asarray([str(i) for i in self.ids], dtype=object))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        n_stimuli = len(set(self.ids))
        if n_stimuli == len(self):
            samples = ""
        else:
            samples = f" of {n_stimuli} stimuli"
        return f"Images({len(self)}{samples}, {size_words(self.pixels.shape[1:])})"

    def _repr_html_(self) -> str:
        """The first pictures, for a notebook."""
        cells = []
        for name, picture in zip(self.ids[:_MOST_SHOWN], self.pixels[:_MOST_SHOWN], strict=True):
            cells.append(
                f'<figure style="display:inline-block;margin:4px"><img src="{_data_uri(picture)}" alt="{escape(name)}">'
                f'<figcaption style="font-size:smaller">{escape(name)}</figcaption></figure>'
            )
        return f"<div>{escape(repr(self))}</div><div>{''.join(cells)}</div>"

    def clipped(self) -> np.ndarray:
        """(n, height, width, channels) float32, 0-1."""
        return np.clip(self.pixels, 0, 1)

    def as_uint8(self) -> np.ndarray:
        """(n, height, width, channels) uint8, 0-255, rounded; what is saved as a picture file."""
        return np.round(self.clipped() * 255).astype(np.uint8)


def _data_uri(picture: np.ndarray) -> str:
    """A picture (height, width, channels), 0-1, as a small PNG inside an address; whole pixels stay whole."""
    from PIL import Image

    # Rounded and not cut off, which would darken every pixel by half a step.
    pixels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]  # (height, width), what Pillow takes for grey

    height, width = pixels.shape[:2]
    scale = _SIDE_SHOWN / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    # Digits of 8 x 8 pixels keep their edges; photographs are averaged.
    if scale > 1:
        method = Image.Resampling.NEAREST
    else:
        method = Image.Resampling.BOX

    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, method).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True, eq=False)
class Latents:
    """Named arrays with the feature space they live in.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        stimulus ids
    arrays : mapping of str to ndarray
        space name to (n, ...) float32
    """

    ids: np.ndarray
    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if len(array) != len(self.ids):
                raise DataError(f"latents '{name}' has {len(array)} rows for {len(self.ids)} ids.")

        object.__setattr__(self, "ids", np.asarray([str(i) for i in self.ids], dtype=object))

    def __repr__(self) -> str:
        spaces = []
        for name, array in self.arrays.items():
            spaces.append(f"{name} {size_words(np.shape(array)[1:])}")
        return f"Latents({len(self.ids)} in {few(spaces)})"

    def __getitem__(self, space: str) -> np.ndarray:
        if space not in self.arrays:
            raise DataError(f"no latents in space '{space}'. {did_you_mean(space, self.arrays)}")
        return self.arrays[space]
