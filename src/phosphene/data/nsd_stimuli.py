"""NSD's pictures, captions and categories by NSD id."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.arrays import open_arrays
from phosphene.data.importing import read_table, read_text
from phosphene.data.nsd_design import STIM_INFO
from phosphene.data.pictures import PictureFolder, list_pictures, read_picture
from phosphene.errors import DataError
from phosphene.types import Rows

BRICK = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
SHARED_FOLDER = "nsddata_stimuli/stimuli/nsd/shared1000"
CAPTIONS = "COCO_73k_annots_curated.npy"
COCO = "coco/annotations"
CAPTION_PLACES = ("", "annots", "nsddata_stimuli/stimuli/nsd", "nsddata/experiments/nsd")
_COCO_PARTS = ("train2017", "val2017")


def stimulus_id(number: int) -> str:
    """``nsd00000`` to ``nsd72999``: the 0-based row of ``imgBrick``.

    Examples
    --------
    >>> stimulus_id(2950)
    'nsd02950'
    """
    return f"nsd{int(number):05d}"


class BrickRows:
    """Rows of ``imgBrick``, read from the HDF5 file when asked for.

    Parameters
    ----------
    path : ``nsd_stimuli.hdf5``
    size : side of the pictures that come out, resized with Pillow's antialiased Lanczos kernel; that of the file by
        default
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        import h5py

        shapes = open_arrays(path).shapes
        if "imgBrick" not in shapes:
            raise DataError(f"{path} has no dataset 'imgBrick'; it holds {', '.join(shapes) or 'nothing'}.")
        with h5py.File(path, "r") as file:
            shape, dtype = file["imgBrick"].shape, file["imgBrick"].dtype
        if len(shape) != 4 or shape[3] not in (1, 3) or dtype != np.uint8:
            raise DataError(
                f"'imgBrick' in {path} is {shape} of {dtype}; (pictures, height, width, 3) of uint8 is expected."
            )
        self.path, self.size, self.n = path, size, shape[0]
        self.shape = shape if size is None else (shape[0], size, size, shape[3])

    def __getitem__(self, rows: Any) -> np.ndarray:
        import h5py

        index = np.arange(self.n)[rows]
        wanted, back = np.unique(np.atleast_1d(index), return_inverse=True)  # h5py wants them ascending, each once
        try:
            with h5py.File(self.path, "r") as file:
                brick = file["imgBrick"]
                pictures = np.stack([brick[int(i)] for i in wanted]) if wanted.size else np.empty((0, *brick.shape[1:]))
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path} is damaged ({error}). Download it again.") from error
        if self.size is not None and pictures.shape[1:3] != (self.size, self.size):
            pictures = np.stack([_resized(p, self.size) for p in pictures])
        out = pictures[back.ravel()].astype(np.uint8, copy=False)
        return out if np.ndim(index) else out[0]


def _resized(picture: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    plane = picture if picture.shape[2] == 3 else picture[:, :, 0]
    out = np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.LANCZOS))
    return out if out.ndim == 3 else out[..., None]


def pictures(
    root: Path, numbers: np.ndarray, size: int | None
) -> tuple[Rows | None, np.ndarray | None, np.ndarray | None]:
    """Pictures of these NSD ids: from the HDF5 file, else the PNG files of ``shared1000``, else none.

    Parameters
    ----------
    root : folder of the data set
    numbers : (n,) 0-based NSD ids
    size : see `BrickRows`

    Returns
    -------
    images, present, rows as `Stimuli` takes them

    Raises
    ------
    DataError
        A file with fewer pictures than the design uses.
    """
    if (root / BRICK).is_file():
        brick = BrickRows(root / BRICK, size)
        if numbers.max() >= brick.n:
            raise DataError(
                f"'imgBrick' in {root / BRICK} holds {brick.n} pictures, but the design shows number {numbers.max()} "
                "(counted from 0). It is not the public file of 73,000; download it again."
            )
        return brick, None, numbers
    if (root / SHARED_FOLDER).is_dir():
        files = {}
        for path in list_pictures(root / SHARED_FOLDER):
            if found := re.search(r"nsd(\d{5})$", path.stem):
                files[int(found[1]) - 1] = path  # these names count from 1
        paths = [files.get(int(n)) for n in numbers]
        present = np.asarray([p is not None for p in paths])
        if present.any():
            side = size or read_picture(next(p for p in paths if p is not None)).pixels.shape[0]
            return PictureFolder(paths, (len(paths), side, side, 3)), present, None
    return None, None, None


def coco_ids(root: Path) -> dict[int, int]:
    """0-based NSD id to COCO id, from ``nsd_stim_info_merged.csv``; empty where it is absent."""
    if not (root / STIM_INFO).is_file():
        return {}
    table = read_table(root / STIM_INFO, "the table of stimuli")
    if "cocoId" not in table:
        return {}
    return dict(zip(table["nsdId"].astype(int), table["cocoId"].astype(int), strict=True))


def captions(root: Path, numbers: Iterable[int]) -> tuple[tuple[str, ...], ...] | None:
    """Captions of these NSD ids: ``COCO_73k_annots_curated.npy``, or COCO's own ``captions_*.json``; None without.

    Parameters
    ----------
    root : folder of the data set
    numbers : 0-based NSD ids

    Raises
    ------
    DataError
        The array holds pickled objects (the public file holds plain text), or has too few rows.
    """
    numbers = [int(n) for n in numbers]
    for place in CAPTION_PLACES:
        path = root / place / CAPTIONS
        if path.is_file():
            return _from_array(path, numbers)
    files = [p for part in _COCO_PARTS if (p := root / COCO / f"captions_{part}.json").is_file()]
    known = coco_ids(root)
    if not files or not known:
        return None
    texts: dict[int, list[str]] = {known[n]: [] for n in numbers if n in known}
    for path in files:
        for entry in _json(path)["annotations"]:
            if entry["image_id"] in texts:
                texts[entry["image_id"]].append(" ".join(str(entry["caption"]).split()))
    return tuple(tuple(texts.get(known.get(n, -1), ())) for n in numbers)


def _from_array(path: Path, numbers: list[int]) -> tuple[tuple[str, ...], ...]:
    try:
        array = open_arrays(path)["array"]
    except DataError as error:
        if "pickled" not in str(error):
            raise
        raise DataError(
            f"{path} holds pickled Python objects, which can run any code when opened, so it is not opened. The public "
            "file holds plain text: download it again, or save yours with array.astype(str)."
        ) from error
    if array.dtype.kind not in "US" or array.ndim != 2:
        raise DataError(f"{path} is {array.shape} of {array.dtype}; (pictures, captions) of text is expected.")
    if max(numbers) >= len(array):
        raise DataError(f"{path} has captions of {len(array)} pictures, but number {max(numbers)} is shown.")
    rows = np.char.decode(array[numbers], "utf-8") if array.dtype.kind == "S" else array[numbers]
    return tuple(tuple(t for text in row if (t := " ".join(str(text).split()))) for row in rows)


def labels(root: Path, numbers: Iterable[int]) -> tuple[pd.DataFrame, np.ndarray] | None:
    """COCO categories of these NSD ids, from ``instances_*.json`` and ``stuff_*.json``; None where they are absent.

    Parameters
    ----------
    root : folder of the data set, with the annotation files in ``coco/annotations``
    numbers : 0-based NSD ids

    Returns
    -------
    (n, categories) bool, and (n,) the category that covers most of the uncropped picture, "none" without any
    """
    numbers = [int(n) for n in numbers]
    files = [
        p
        for kind in ("instances", "stuff")
        for part in _COCO_PARTS
        if (p := root / COCO / f"{kind}_{part}.json").is_file()
    ]
    known = coco_ids(root)
    if not files or not known:
        return None
    row = {known[n]: i for i, n in enumerate(numbers) if n in known}
    area: dict[str, np.ndarray] = {}
    for path in files:
        content = _json(path)
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        for name in names.values():
            area.setdefault(name, np.zeros(len(numbers)))
        for entry in content["annotations"]:
            if entry["image_id"] in row:
                area[names[entry["category_id"]]][row[entry["image_id"]]] += max(float(entry.get("area", 1)), 1e-9)
    table = pd.DataFrame(area)
    main = np.asarray(table.columns, dtype=object)[table.to_numpy().argmax(axis=1)]
    main[(table.to_numpy() == 0).all(axis=1)] = "none"
    return table > 0, main


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path, "the annotations"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON (line {error.lineno}: {error.msg}); download it again.") from error
    if not isinstance(value, dict) or "annotations" not in value:
        raise DataError(f"{path} has no 'annotations'; COCO's own annotation file is expected.")
    return value
