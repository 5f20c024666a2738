"""Stimuli, Images, Latents: what was shown and what was decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from phosphene.errors import DataError, did_you_mean
from phosphene.types.identity import Rows, as_slice, digest_of, few, positions, size_words, unique_ids

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
        rows of (height, width, channels) uint8, 1 or 3 channels, 0-255; or None when there are no pictures
    captions : tuple of tuple of str, optional
        per stimulus 0 to k texts
    labels : DataFrame, optional
        (n_stimuli, n_labels) bool, several may be true
    category : ndarray of shape (n_stimuli,), str, optional
        the main category
    present : ndarray of shape (n_stimuli,), bool, optional
        false where a picture is missing; all true by default
    """

    ids: np.ndarray
    images: Rows | None = None
    captions: tuple[tuple[str, ...], ...] | None = None
    labels: pd.DataFrame | None = None
    category: np.ndarray | None = None
    present: np.ndarray | None = None
    rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", unique_ids(self.ids, "stimulus"))
        n = len(self.ids)

        if self.images is None:
            n_images = n
        elif self.rows is not None:
            n_images = len(self.rows)
        else:
            n_images = self.images.shape[0]

        sizes = {
            "images": n_images,
            "captions": n if self.captions is None else len(self.captions),
            "labels": n if self.labels is None else len(self.labels),
            "category": n if self.category is None else len(self.category),
            "present": n if self.present is None else len(self.present),
        }

        for name, size in sizes.items():
            if size != n:
                raise DataError(f"{n} stimulus ids came with {size} {name}; there must be one entry per stimulus.")

        if self.images is not None:
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
        parts = [f"{len(self)} of {'no pictures' if self.images is None else size_words(self.image_shape)}"]
        parts += (
            [f"{int((~self.present).sum())} missing"] if self.present is not None and not self.present.all() else []
        )

        if self.captions:
            parts += ["captions"]
        else:
            parts += []

        if self.labels is not None:
            parts += [f"{self.labels.shape[1]} labels"]
        else:
            parts += []

        if self.category is not None:
            parts += [f"{len(set(self.category))} categories"]
        else:
            parts += []

        return f"Stimuli({', '.join(parts)})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every picture."""
        if self.images is None:
            raise DataError(_NO_PICTURES)

        return tuple(int(s) for s in self.images.shape[1:])

    def select(self, ids: Iterable[str]) -> Stimuli:
        """These stimuli, in this order, as a view. Raises DataError naming ids that do not exist."""
        at = positions(self.ids, ids, "stimulus")
        if self.rows is None:
            base = np.arange(len(self.ids))
        else:
            base = self.rows

        return replace(
            self,
            ids=self.ids[at],
            rows=base[at],
            captions=None if self.captions is None else tuple(self.captions[i] for i in at),
            labels=None if self.labels is None else self.labels.iloc[at],
            category=None if self.category is None else self.category[at],
            present=None if self.present is None else self.present[at],
        )

    def pixels(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Pictures as (n, height, width, channels) uint8, 0-255.

        Raises
        ------
        DataError
            When there are no pictures, or one of those asked for is missing (its id is named).
        """
        if self.images is None:
            raise DataError(_NO_PICTURES)

        if self.present is not None and not self.present[rows].all():
            gone = self.ids[rows][~self.present[rows]]
            raise DataError(
                f"{len(gone)} of the pictures asked for are missing, first '{gone[0]}'. Leave these stimuli out "
                "(Stimuli.available), or put the files where the data set expects them."
            )

        if self.rows is None:
            base = np.arange(len(self.ids))
        else:
            base = self.rows

        return np.asarray(self.images[as_slice(base[rows])], dtype=np.uint8)

    def floats(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Pictures as (n, height, width, channels) float32, 0-1."""
        return self.pixels(rows).astype(np.float32) / np.float32(255)

    def resized(self, size: tuple[int, int] | None, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Pictures at another size, (n, height, width, channels) float32, 0-1.

        Parameters
        ----------
        size : tuple of (int, int) or None
            (height, width), or None for the size they have
        rows : slice or ndarray, optional
            which stimuli

        Notes
        -----
        Pillow's box filter in float32: an exact area average when shrinking, no ringing; colours are not linearised.
        """
        pixels = self.floats(rows)
        if size is None or tuple(size) == pixels.shape[1:3]:
            return pixels

        from PIL import Image

        height, width = size
        out = np.empty((len(pixels), height, width, pixels.shape[3]), dtype=np.float32)

        for i, picture in enumerate(pixels):
            for c in range(pixels.shape[3]):
                plane = Image.fromarray(np.ascontiguousarray(picture[:, :, c]))
                out[i, :, :, c] = np.asarray(plane.resize((width, height), Image.Resampling.BOX))

        return out

    def available(self) -> Stimuli:
        """Only the stimuli whose picture is there."""
        if self.present is None:
            return self

        return self.select(self.ids[self.present])

    def pixel_digests(self) -> np.ndarray:
        """(n_stimuli,) object: SHA-256 of each picture's size and pixels; '' where it is missing."""
        out = np.full(len(self), "", dtype=object)
        shape = repr(self.image_shape).encode()

        for i in range(len(self)):
            if self.present is None or self.present[i]:
                out[i] = hashlib.sha256(shape + self.pixels(slice(i, i + 1)).tobytes()).hexdigest()

        return out

    def digest(self) -> str:
        """SHA-256 of ids, categories, captions, labels and pictures (every picture up to 20,000, then a sample)."""
        step = max(1, len(self) // 20_000)
        there = np.arange(0, len(self), step)
        if self.present is not None:
            there = there[self.present[there]]

        h = [digest_of(self.ids, self.category, self.captions, self.labels)]
        if self.images is not None:
            h += [digest_of(self.pixels(there[i : i + 512])) for i in range(0, len(there), 512)]

        return digest_of(h)


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
            pixels = pixels.astype(np.float32) / 255
        else:
            pixels = pixels.astype(np.float32, copy=False)

        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "ids", np.asarray([str(i) for i in self.ids], dtype=object))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        n = len(set(self.ids))
        if n == len(self):
            of = ""
        else:
            of = f" of {n} stimuli"

        return f"Images({len(self)}{of}, {size_words(self.pixels.shape[1:])})"

    def clipped(self) -> np.ndarray:
        """(n, height, width, channels) float32, 0-1."""
        return np.clip(self.pixels, 0, 1)

    def as_uint8(self) -> np.ndarray:
        """(n, height, width, channels) uint8, 0-255, rounded; what is saved as a picture file."""
        return np.round(self.clipped() * 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Latents:
    """Named arrays with the feature space they live in.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        stimulus ids
    arrays : mapping of {str: ndarray}
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
        spaces = (f"{name} {size_words(np.shape(array)[1:])}" for name, array in self.arrays.items())
        return f"Latents({len(self.ids)} in {few(spaces)})"

    def __getitem__(self, space: str) -> np.ndarray:
        if space not in self.arrays:
            raise DataError(f"no latents in space '{space}'. {did_you_mean(space, self.arrays)}")

        return self.arrays[space]
