"""Tensors of pictures as other programs leave them: ``.npy``, ``.npz``, ``.pt`` and ``.safetensors`` files, arrays in memory.

Channels may stand first or last, values may be 8-bit integers or floats, and an item may have several pictures (samples).
What cannot be told for sure is not guessed: it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.errors import ConfigError, DataError, did_you_mean
from phosphene.io import memory
from phosphene.io.npz_file import SHAPE, read_npz
from phosphene.io.reading import open_npy, reading
from phosphene.types.tensors import tensor_values

LAYOUTS = ("NHWC", "NCHW")
VALUE_RANGES = ("0-1", "0-255", "-1-1")
TENSOR_ENDINGS = (".npy", ".npz", ".pt", ".pth", ".safetensors")

_PICTURE_KEYS = (
    "images",
    "pictures",
    "pixels",
    "decoded",
    "recons",
    "recon",
    "reconstructions",
    "all_recons",
    "samples",
    "seen",
    "stimuli",
)
"""Names of the array of pictures in a file that holds several arrays, in the order in which they are looked for."""

_NAME_KEYS = ("ids", "names", "stimulus", "stimulus_ids", "image_ids", "files")
"""Names of the array that says which row is of which picture."""

_ROUNDING = 1e-3  # how far values may lie outside 0 to 1 without being called that
_OVERSHOOT = 0.5  # how far those of a decoder may, which are clipped
_SCALES = {"0-1": (1.0, 0.0), "0-255": (255.0, 0.0), "-1-1": (2.0, 0.5)}  # divided by the first, then added the second


@dataclass(frozen=True, eq=False)
class NamedTensor:
    """A tensor of pictures, and the name of each row where the file has one.

    Parameters
    ----------
    values : ndarray
        as it came
    names : tuple of str or None
        one per row; None where rows go by their order
    source : str
        where it came from, for messages
    """

    values: np.ndarray
    names: tuple[str, ...] | None
    source: str


def is_tensor_file(path: str | Path) -> bool:
    """Whether a path, with or without ``:KEY`` behind it, names a file of tensors by its ending."""
    file, _ = _split_key(path)
    return file.suffix.lower() in TENSOR_ENDINGS


def read_tensor(path: str | Path) -> NamedTensor:
    """The tensor of pictures in a file, read without running anything that is in it.

    Parameters
    ----------
    path : str or Path
        a ``.npy``, ``.npz``, ``.pt``, ``.pth`` or ``.safetensors`` file; ``FILE:KEY`` for one array of several

    Returns
    -------
    NamedTensor
        with names where the file has an array ``ids``, ``names``, ``stimulus`` or the like

    Raises
    ------
    DataError
        When the file is not there, damaged, or does not say which array holds the pictures.
    ModelError
        When a ``.pt`` file wants to run anything.
    MachineError
        When the numbers do not fit into memory.
    """
    file, key = _split_key(path)
    if not file.is_file():
        raise DataError(
            f"there is no file {file}. Give a folder of pictures, or a file of {', '.join(TENSOR_ENDINGS)}."
        )

    ending = file.suffix.lower()
    with reading(file):
        if ending == ".npy":
            return NamedTensor(_read_npy(file), None, str(file))

        if ending == ".npz":
            arrays: Mapping[str, Any] = read_npz(file)
        elif ending == ".safetensors":
            arrays = _read_safetensors(file)
        else:
            arrays = _read_torch(file)

    return _chosen(arrays, key, file)


def _split_key(path: str | Path) -> tuple[Path, str]:
    """A file, and the key behind its colon, empty where there is none."""
    text = str(path)
    if Path(text).exists() or ":" not in text:
        return Path(text), ""

    head, _, key = text.rpartition(":")
    if Path(head).suffix.lower() in TENSOR_ENDINGS:
        return Path(head), key

    return Path(text), ""


def _read_npy(file: Path) -> np.ndarray:
    values = open_npy(file)
    memory.require_memory(values.size * values.itemsize, f"The array in {file}", SHAPE)
    return np.array(values)


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    memory.require_memory(file.stat().st_size, f"The tensors of {file}", SHAPE)
    return load_file(file)


def _read_torch(file: Path) -> dict[str, Any]:
    """Tensors of a ``torch.save`` by name (one without a name under ""), and texts that may name rows."""
    from phosphene.io.foreign import ForeignCheckpoint

    checkpoint = ForeignCheckpoint(file)
    memory.require_memory(file.stat().st_size, f"The tensors of {file}", SHAPE)
    arrays = {name: tensor_values(tensor) for name, tensor in checkpoint.every_tensor().items()}

    if isinstance(checkpoint.content, Mapping):
        for name, value in checkpoint.content.items():
            if name in _NAME_KEYS and isinstance(value, list | tuple):
                arrays[str(name)] = np.asarray(value)

    return arrays


def _chosen(arrays: Mapping[str, np.ndarray], key: str, file: Path) -> NamedTensor:
    """The array of pictures among several, and the names of its rows."""
    pictures = {}
    for name, array in arrays.items():
        if np.ndim(array) >= 3 and array.dtype.kind in "fiub":
            pictures[name] = array

    if key:
        if key not in arrays:
            raise DataError(f"{file} holds no array '{key}'. {did_you_mean(key, arrays)}")
        chosen = key
    elif len(pictures) == 1:
        chosen = next(iter(pictures))
    else:
        chosen = next((name for name in _PICTURE_KEYS if name in pictures), "")
        if not chosen:
            held = ", ".join(f"'{name}' {tuple(np.shape(array))}" for name, array in arrays.items()) or "no array"
            raise DataError(
                f"{file} does not say which array holds the pictures (it holds {held}). Name it: {file}:KEY."
            )

    values = np.asarray(arrays[chosen])
    for name in _NAME_KEYS:
        names = arrays.get(name)
        if names is not None and name != chosen and np.shape(names) == (len(values),):
            return NamedTensor(values, tuple(_texts(names)), str(file))

    return NamedTensor(values, None, str(file))


def _texts(names: np.ndarray) -> list[str]:
    texts = []
    for name in names.tolist():
        if isinstance(name, bytes):
            texts.append(name.decode("utf-8", "replace"))
        else:
            texts.append(str(name))

    return texts


# -- arrays in memory --------------------------------------------------------------------------------------------------


def as_picture_samples(
    values: np.ndarray, what: str, *, layout: str | None = None, value_range: str | None = None
) -> np.ndarray:
    """A tensor as pictures with their samples, channels last.

    Parameters
    ----------
    values : ndarray of shape (n, height, width), (n, height, width, channels) or (n, samples, height, width, channels)
        or with channels before height; 1 or 3 channels
    what : str
        the pictures are, as the subject of a sentence, such as "the decoded pictures in recons.npy"
    layout : {"NHWC", "NCHW"}, optional
        where channels stand; read off the shape by default, where it says so
    value_range : {"0-1", "0-255", "-1-1"}, optional
        what black and white are; 0 and 255 of 8-bit integers, 0 and 1 of floats by default

    Returns
    -------
    ndarray of shape (n, samples, height, width, channels)
        uint8 of 0-255, or float32 of 0-1, clipped

    Raises
    ------
    DataError
        For another shape, values that are not finite, or values of another range; one sentence that says what to do.
    ConfigError
        For a layout or a range that does not exist.
    """
    check_choices(layout, value_range)
    pictures = _channels_last(np.asarray(values), what, layout)  # (n, samples, height, width, channels)
    return _in_range(pictures, what, value_range)


def check_choices(layout: str | None, value_range: str | None) -> None:
    """Raise ConfigError for a layout or a range of values that does not exist."""
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"there is no layout '{layout}' of pictures. {did_you_mean(layout, LAYOUTS)}")

    if value_range is not None and value_range not in VALUE_RANGES:
        raise ConfigError(f"there is no range '{value_range}' of pictures. {did_you_mean(value_range, VALUE_RANGES)}")


def _channels_last(values: np.ndarray, what: str, layout: str | None) -> np.ndarray:
    """(n, samples, height, width, channels) as a view."""
    shape = values.shape
    if values.ndim == 3:
        if shape[0] in (1, 3, 4) or shape[2] in (1, 3, 4):
            raise DataError(
                f"{what} have shape {shape}, which is one picture, or a few without channels; nothing can be told apart in one "
                "picture, so give (n, height, width, channels) with n of 2 or more."
            )

        return values[:, None, :, :, None]

    if values.ndim not in (4, 5):
        raise DataError(
            f"{what} have shape {shape}, but pictures are (n, height, width, channels) or (n, channels, height, width), with "
            "an axis of samples behind n where there are several of each; reshape them."
        )

    of_picture = shape[-3:]
    if layout is None:
        layout = _layout_of(of_picture, what, shape)

    if layout == "NCHW":
        values = np.moveaxis(values, -3, -1)

    if values.shape[-1] == 4:
        raise DataError(
            f"{what} have 4 channels (shape {shape}): lay transparent pixels over a colour, and give 1 or 3 channels."
        )

    if values.shape[-1] not in (1, 3):
        raise DataError(f"{what} have shape {shape}, but with the layout {layout} a picture has 1 or 3 channels.")

    if values.ndim == 4:
        return values[:, None]

    return values


def _layout_of(of_picture: tuple[int, ...], what: str, shape: tuple[int, ...]) -> str:
    """Where the channels stand, by the one axis that has 1, 3 or 4 entries."""
    is_last = of_picture[2] in (1, 3, 4)
    is_first = of_picture[0] in (1, 3, 4)
    if is_last and is_first:
        raise DataError(
            f"{what} have shape {shape}, in which channels could stand first or last; say which with --layout NHWC or NCHW "
            "(in Python layout=)."
        )

    if is_first:
        return "NCHW"
    if is_last:
        return "NHWC"

    raise DataError(f"{what} have shape {shape}, in which no axis has the 1 or 3 channels of a picture.")


def _in_range(pictures: np.ndarray, what: str, value_range: str | None) -> np.ndarray:
    """Pictures as uint8 of 0-255 or float32 of 0-1."""
    if not pictures.size:
        raise DataError(f"{what} are none: the array has shape {pictures.shape}.")

    low = float(pictures.min())
    high = float(pictures.max())
    if not math.isfinite(low) or not math.isfinite(high):
        bad = ~np.isfinite(pictures).all(axis=(1, 2, 3, 4))
        raise DataError(
            f"{int(bad.sum())} of {len(pictures)} of {what} hold values that are not finite, first row {int(bad.argmax())}; "
            "decode these again, or leave them out on both sides."
        )

    if value_range is None and pictures.dtype.kind in "iu":
        return _of_integers(pictures, what, low, high)

    value_range = value_range or "0-1"
    scale, shift = _SCALES[value_range]
    low = low / scale + shift
    high = high / scale + shift
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT or high <= 2 / 255:
        raise DataError(_wrong_range(pictures, what, value_range))

    floats = pictures.astype(np.float32)
    if scale != 1.0:
        floats /= np.float32(scale)
        floats += np.float32(shift)

    return np.clip(floats, 0, 1, out=floats)


def _of_integers(pictures: np.ndarray, what: str, low: float, high: float) -> np.ndarray:
    """Integers of 0 to 255 as such."""
    if low < 0 or high > 255 or high <= 1:
        raise DataError(_wrong_range(pictures, what, "0-255"))

    return pictures.astype(np.uint8, copy=False)


def _wrong_range(pictures: np.ndarray, what: str, assumed: str) -> str:
    """One sentence on values that are not those of pictures, with the range that they may be of."""
    low = float(pictures.min())
    high = float(pictures.max())
    run = f"{what} are {pictures.dtype} and run from {low:.4g} to {high:.4g}, where {assumed} was expected"

    if high <= 2 / 255 and low >= 0:
        return f"{run}: nearly black, so perhaps divided by 255 twice; give them as they were before."

    if low >= 0 and high <= 1:
        likely = "0-1"
    elif -1 - _OVERSHOOT <= low < 0 and high <= 1 + _OVERSHOOT:
        likely = "-1-1"
    elif low >= -_OVERSHOOT * 255 and high <= 255 * (1 + _OVERSHOOT):
        likely = "0-255"
    else:
        return f"{run}; bring them to 0-1 first."

    return f"{run}; if black and white are {' and '.join(_ends(likely))}, say so with --range {likely} (in Python value_range=)."


def _ends(value_range: str) -> tuple[str, str]:
    """Black and white of a range, as text."""
    low, _, high = value_range.rpartition("-")
    return low, high


def overshoot(values: np.ndarray) -> float:
    """Share of float values outside 0 to 1, by more than rounding, which are clipped when pictures are scored.

    Parameters
    ----------
    values : ndarray
        of pictures, nominally 0 to 1

    Returns
    -------
    float
        0 for 8-bit integers
    """
    if values.dtype.kind != "f":
        return 0.0

    outside = (values < -_ROUNDING) | (values > 1 + _ROUNDING)
    return float(outside.mean())
