"""Pair files: one MATLAB, NPZ or HDF5 file that holds responses beside the pictures that were shown.

The names of its arrays are options, so that another file of this shape needs no code. Rows of the response block and
of the picture block belong together. Rows that show the same picture are trials of one stimulus.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.data.arrays import ArrayFile, narrow, open_arrays, real_matrix
from phosphene.data.findings import Finding
from phosphene.data.reader import ReaderOptions, about
from phosphene.errors import ConfigError, DataError, PhospheneError, PhospheneWarning, did_you_mean
from phosphene.types import ROI, Dataset, Split, Stimuli, Trials


class PairOptions(ReaderOptions):
    """Which arrays of the file are what. The defaults are the names of the digits69 file."""

    train_betas: str = Field("fmriTrn", description="responses, (trials, voxels)")
    test_betas: str | None = Field("fmriTest", description="responses of the test rows; may be absent from the file")
    train_images: str | None = Field("stimTrn", description="pictures, (trials, pixels) or with axes; none: null")
    test_images: str | None = Field("stimTest", description="pictures of the test rows")
    train_labels: str | None = Field("labelTrn", description="category of each row; may be absent from the file")
    test_labels: str | None = Field("labelTest", description="category of each test row")
    roi: str | None = Field(None, description="(voxels,) ROI of each voxel, 0 or empty for none, or (voxels, ROIs)")
    image_shape: tuple[int, ...] | None = Field(
        None, description="(height, width) or (height, width, channels) of a picture stored as one row; guessed: square"
    )
    pixel_order: Literal["C", "F"] | None = Field(
        None, description="how a row unrolls the picture: C row by row, F column by column; F for MATLAB, else C"
    )
    pixel_range: Literal["auto", "0-1", "0-255"] = Field("auto", description="black and white in the file")
    label_names: dict[str, str] = Field({}, description="label value to name, such as {'1': 'six'}")
    roi_names: dict[str, str] = Field({}, description="ROI value to name, such as {'1': 'V1'}")
    transposed: bool = Field(False, description="betas are (voxels, trials) in the file")
    scale: float = Field(1.0, gt=0, description="betas are multiplied by this; NSD's int16 betas need 1/300")
    subject: str = Field("S1", description="name of the person")


@dataclass(frozen=True)
class _Block:
    """One side of the file."""

    side: str
    betas: np.ndarray
    images: np.ndarray | None  # as in the file
    labels: np.ndarray | None
    where: str  # names of the arrays, for messages


class PairFile:
    """Reader of any pair file."""

    title: ClassVar[str] = "A file of responses and pictures"
    citation: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    url: ClassVar[str] = ""
    files: ClassVar[str] = "one .mat, .npz or .h5 file"
    options: ClassVar[type[PairOptions]] = PairOptions

    def find(self, root: Path) -> Path:
        """The file itself: a pair file is named by its path."""
        return root

    def subjects(self, path: Path, options: PairOptions) -> tuple[str, ...]:
        """The one subject of the file.

        Parameters
        ----------
        path : Path
            the file
        options : PairOptions
            hold its name: the file does not
        """
        return (options.subject,)

    def load(self, path: Path, options: PairOptions, subject: str | None = None) -> Dataset:
        """Read the file.

        Parameters
        ----------
        path : Path
            the file
        options : PairOptions
            which array is what
        subject : str, optional
            must be the one subject, when given

        Returns
        -------
        Dataset
            Dataset with one subject. Trials are numbered through both blocks, training rows first; the columns ``side``
            and ``row`` of their table say where each stood. A stimulus is named after the first row that shows it, such
            as ``train-003``. With test arrays there is a split ``file``: by stimulus when no picture is on both sides,
            else by trial, which check S1 then fails.

        Raises
        ------
        DataError
            Arrays missing, of the wrong type, or whose rows or voxels do not match.
        """
        path = Path(path)
        if subject not in (None, options.subject):
            raise DataError(f"{path} has no subject '{subject}'. {did_you_mean(subject, [options.subject])}")

        blocks, file = _read_blocks(path, options)
        betas = np.concatenate([b.betas for b in blocks])  # (n_trials, n_voxels), training rows first
        if options.scale != 1:
            betas *= np.float32(options.scale)

        sides = np.repeat([b.side for b in blocks], [len(b.betas) for b in blocks]).astype(object)
        rows = np.concatenate([np.arange(len(b.betas)) for b in blocks])
        names = np.asarray([f"{s}-{r:03d}" for s, r in zip(sides, rows, strict=True)], dtype=object)
        labels = _labels(blocks, options)
        pixels, present = _pictures(blocks, options, file, path)
        first = _first_row_of_same(pixels, present, len(betas))  # (n_trials,)
        _check_labels_agree(labels, first, names, path)
        stimuli = _stimuli(names, pixels, present, labels, np.unique(first))

        table = pd.DataFrame(
            {
                "trial": np.arange(len(betas)),
                "stimulus": names[first],
                "session": 0,
                "run": 0,
                "side": sides,
                "row": rows,
            }
        )

        unit = "as in the file"
        if options.scale != 1:
            unit = f"file x {options.scale:g}"

        voxels = _voxels(file, options, betas.shape[1], path)
        trials = Trials(betas, table, voxels, options.subject, {"file": path.name, "unit": unit})
        if len(blocks) == 1:
            splits = {}
        else:
            splits = {"file": _file_split(trials, stimuli)}

        return Dataset(self.name(path), stimuli, {options.subject: trials}, splits, about(self, file=path.name))

    def name(self, path: Path) -> str:
        """Name of the data set: that of the file.

        Parameters
        ----------
        path : Path
            the file
        """
        return path.stem

    def check(self, path: Path, options: PairOptions) -> list[Finding]:
        """Read the file and say what is in it.

        Parameters
        ----------
        path : Path
            the file
        options : PairOptions
            which array is what
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PhospheneWarning)
                dataset = self.load(path, options)
        except PhospheneError as error:
            return [Finding("problem", "file", str(error))]

        trials = dataset.trials()
        detail = f"{path.name}: {len(trials)} trials, {trials.n_voxels} voxels, subject {trials.subject}."
        findings = [Finding("ok", "file", detail)]

        split = dataset.splits.get("file")
        if split is not None and split.unit == "stimulus":
            findings.append(Finding("ok", "split of the file", split.note))
        elif split is not None:
            findings.append(Finding("problem", "split of the file", split.note, "Use kfold:10."))

        return findings


def _read_blocks(path: Path, options: PairOptions) -> tuple[list[_Block], ArrayFile]:
    """The training block, the test block where there is one, and the file they are of."""
    file = open_arrays(path)
    blocks = [_read_block(file, options, "train")]
    if options.test_betas is not None and options.test_betas in file:
        blocks.append(_read_block(file, options, "test"))
        n_train, n_test = (block.betas.shape[1] for block in blocks)
        if n_train != n_test:
            raise DataError(
                f"'{options.train_betas}' in {path} has {n_train} voxels but '{options.test_betas}' has {n_test}; both "
                "must come from one mask. Export both again with the same mask."
            )
    elif options.test_betas is not None and not _is_default(options, "test_betas"):
        raise DataError(f"{path} has no array '{options.test_betas}'. {did_you_mean(options.test_betas, file.shapes)}")

    return blocks, file


def _read_block(file: ArrayFile, options: PairOptions, side: str) -> _Block:
    """One side, whose responses, pictures and labels have equally many rows."""
    key = getattr(options, f"{side}_betas")
    raw = real_matrix(file[key], f"'{key}' in {file.path}")
    if options.transposed:
        raw = raw.T

    betas = narrow(raw, f"'{key}' in {file.path}")  # (n, n_voxels)
    n = len(betas)
    images = _optional(file, options, f"{side}_images", required=True)
    labels = _optional(file, options, f"{side}_labels", required=False)

    if labels is not None:
        labels = labels.ravel()  # MATLAB has no vectors: labels are (n, 1) or (1, n)

    for name, array in ((f"{side}_images", images), (f"{side}_labels", labels)):
        if array is None:
            continue

        n_rows = _n_pictures(array, n)
        if n_rows != n:
            other = getattr(options, name)
            hint = "Find the row that has no partner; rows are never dropped to make them fit."
            if n_rows == betas.shape[1]:
                hint = "They match the voxels instead: the array may be (voxels, trials); then set transposed=true."

            raise DataError(
                f"'{key}' in {file.path} has {n} rows but '{other}' has {n_rows} (shape {array.shape}). {hint}"
            )

    return _Block(side, betas, images, labels, f"'{key}'")


def _optional(file: ArrayFile, options: PairOptions, field: str, *, required: bool) -> np.ndarray | None:
    """An array that may be absent: because its option is null, or because it is not required and nobody named it."""
    key = getattr(options, field)
    if key is None:
        return None
    if key not in file and not required and _is_default(options, field):
        return None
    array = file[key]
    if array.dtype.kind == "O" and field.endswith("images"):
        raise DataError(
            f"'{key}' in {file.path} is a cell array, one entry a picture. Stack the pictures into one numeric array "
            "(trials, height, width, channels) and save it again."
        )

    if array.dtype.kind == "O":
        array = np.asarray([str(np.ravel(cell)[0]) for cell in array.ravel()], dtype=object)

    return array


def _is_default(options: PairOptions, field: str) -> bool:
    """Whether nobody named this array, so that it may be absent."""
    return getattr(options, field) == type(options).model_fields[field].default


def _n_pictures(array: np.ndarray, n: int) -> int:
    """Number of rows; MATLAB stacks pictures along the last axis."""
    if array.ndim > 2 and len(array) != n and array.shape[-1] == n:
        return array.shape[-1]
    return len(array)


# -- pictures ----------------------------------------------------------------------------------------------------------


def _pictures(
    blocks: list[_Block], options: PairOptions, file: ArrayFile, path: Path
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(n, h, w, c) uint8 and (n,) which of them are there, or (None, None)."""
    images = [block.images for block in blocks if block.images is not None]
    if len(images) < len(blocks):
        return None, None

    # The same picture unrolled the other way is its mirror image on the diagonal, which looks like a bad reconstruction.
    order = options.pixel_order
    if order is None and file.is_column_major:
        order = "F"
    elif order is None:
        order = "C"

    stacked = []
    for block, array in zip(blocks, images, strict=True):
        description = f"'{getattr(options, block.side + '_images')}' in {path}"
        stacked.append(_with_axes(array, len(block.betas), options.image_shape, order, description))

    shapes = {pictures.shape[1:] for pictures in stacked}
    if len(shapes) > 1:
        raise DataError(
            f"the training pictures in {path} are {stacked[0].shape[1:]} but the test pictures {stacked[1].shape[1:]}; "
            "bring them to one size."
        )

    # A picture that is NaN all over is marked as missing; one that is NaN here and there is damaged.
    raw = np.concatenate(stacked)  # (n, h, w, c)
    present = np.ones(len(raw), bool)
    if raw.dtype.kind == "f":
        present = np.asarray(np.isfinite(raw).all(axis=(1, 2, 3)))
        is_damaged = ~present & ~np.isnan(raw).all(axis=(1, 2, 3))
        if is_damaged.any():
            raise DataError(
                f"the picture of row {int(np.flatnonzero(is_damaged)[0])} (training rows first) in {path} has some NaN or "
                "infinite pixels. Mend it, or set the whole row to NaN to mark the picture as missing."
            )

        if not present.all():
            warnings.warn(
                f"{int((~present).sum())} of {len(present)} pictures in {path} are missing (NaN), first in row "
                f"{int(np.flatnonzero(~present)[0])}; their trials cannot train or test pictures.",
                PhospheneWarning,
                stacklevel=4,
            )

    if not present.any():
        raise DataError(f"every picture in {path} is missing (NaN).")
    return _to_uint8(raw, present, options.pixel_range, path), present


def _with_axes(array: np.ndarray, n: int, shape: tuple[int, ...] | None, order: str, what: str) -> np.ndarray:
    """(n, h, w, c) from rows, or from arrays that have the axes already."""
    if array.dtype.kind not in "iufb":
        raise DataError(f"{what} holds {array.dtype} values where pixel values were expected.")

    if array.ndim > 2:
        if len(array) != n:
            array = np.moveaxis(array, -1, 0)

        if array.ndim == 3:
            array = array[..., None]

        if array.ndim != 4 or array.shape[3] not in (1, 3):
            raise DataError(
                f"{what} has shape {array.shape}; (trials, height, width) or (trials, height, width, 1 or 3) is "
                "expected."
            )

        return array

    width = array.shape[1]
    if shape is None:
        shape = _guess_shape(width, what)
    else:
        shape = tuple(shape)

    if len(shape) == 2:
        shape = (*shape, 1)

    if len(shape) != 3 or shape[2] not in (1, 3) or math.prod(shape) != width:
        raise ConfigError(
            f"image_shape {shape} does not fit {what}: it has {math.prod(shape)} values, each row has {width}. Give "
            "(height, width) or (height, width, 3)."
        )
    if order == "C":
        return array.reshape(n, *shape)
    return array.reshape(n, *shape[::-1]).transpose(0, 3, 2, 1)  # (n, h, w, c)


def _guess_shape(width: int, what: str) -> tuple[int, int, int]:
    """A square of one channel or of three; no number of values is both."""
    for channels in (1, 3):
        side = math.isqrt(width // channels)
        if side * side * channels == width:
            return side, side, channels

    raise DataError(f"rows of {what} have {width} values, no square picture of 1 or 3 channels; set image_shape.")


def _to_uint8(raw: np.ndarray, present: np.ndarray, pixel_range: str, path: Path) -> np.ndarray:
    low = float(np.min(raw[present]))
    high = float(np.max(raw[present]))
    if pixel_range == "auto":
        # uint8 files are 0-255 whatever they use of it; other integers and floats say it by their largest value.
        if raw.dtype == np.uint8 and high > 1:
            pixel_range = "0-255"
        elif high <= 1:
            pixel_range = "0-1"
        else:
            pixel_range = "0-255"

    if pixel_range == "0-1":
        top = 1.0
    else:
        top = 255.0

    if low < -1e-3 * top or high > 1.001 * top:
        raise DataError(
            f"pixels in {path} go from {low:g} to {high:g}, outside {pixel_range}. Undo the normalisation before saving, "
            "or set pixel_range."
        )
    if raw.dtype == np.uint8 and pixel_range == "0-255":
        return np.ascontiguousarray(raw)
    scaled = np.nan_to_num(raw.astype(np.float32)) * np.float32(255 / top)
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def _stimuli(
    names: np.ndarray,
    pixels: np.ndarray | None,
    present: np.ndarray | None,
    labels: np.ndarray | None,
    rows: np.ndarray,
) -> Stimuli:
    """The stimuli that these rows show, one row each."""
    images = category = None
    if pixels is not None:
        images = pixels[rows]

    if labels is not None:
        category = labels[rows]

    if present is None or present.all():
        present = None
    else:
        present = present[rows]

    return Stimuli(names[rows], images=images, category=category, present=present)


def _first_row_of_same(pixels: np.ndarray | None, present: np.ndarray | None, n: int) -> np.ndarray:
    """(n,) for each row the first row with exactly the same picture; itself where the picture is missing."""
    if pixels is None:
        return np.arange(n)

    first: dict[bytes, int] = {}
    rows = np.arange(n)
    for row, picture in enumerate(pixels):
        if present is None or present[row]:
            rows[row] = first.setdefault(picture.tobytes(), row)

    return rows


# -- labels, ROIs, split -----------------------------------------------------------------------------------------------


def _labels(blocks: list[_Block], options: PairOptions) -> np.ndarray | None:
    """(n_trials,) name of the category of each row; None where neither side has labels."""
    labels = [block.labels for block in blocks if block.labels is not None]
    if not labels:
        return None
    if len(labels) < len(blocks):
        raise DataError(
            f"only one side has labels: train_labels='{options.train_labels}', test_labels='{options.test_labels}'. "
            "Name both, or set both to null."
        )

    values = np.concatenate(labels)
    return np.asarray([_name(v, options.label_names) for v in values], dtype=object)


def _name(value: Any, names: Mapping[str, str]) -> str:
    if isinstance(value, (int, float, np.number)):
        text = f"{value:g}"  # MATLAB saves whole numbers as doubles: 1.0 is the label "1"
    else:
        text = str(value).strip()

    return names.get(text, text)


def _check_labels_agree(labels: np.ndarray | None, first: np.ndarray, names: np.ndarray, path: Path) -> None:
    """Raise DataError where rows that show the same picture have different labels."""
    if labels is None:
        return
    differ = np.flatnonzero(labels != labels[first])
    if differ.size:
        i = int(differ[0])
        raise DataError(
            f"the same picture has two labels in {path}: row {names[i]} says '{labels[i]}', row {names[first[i]]} says "
            f"'{labels[first[i]]}'. Mend the labels, or leave them out with train_labels=null test_labels=null."
        )


def _voxels(file: ArrayFile, options: PairOptions, n_voxels: int, path: Path) -> pd.DataFrame:
    """One column of True and False for each ROI; ROIs may overlap only where the file has a column for each."""
    if options.roi is None:
        return pd.DataFrame(index=pd.RangeIndex(n_voxels))
    array = file[options.roi]
    if array.dtype.kind == "O":
        array = np.asarray([str(np.ravel(c)[0]) if np.size(c) else "" for c in array.ravel()], dtype=object)

    if array.ndim == 2 and min(array.shape) > 1:
        if array.shape[0] != n_voxels:
            members = array.T
        else:
            members = array
        columns = {str(j + 1): members[:, j].astype(bool) for j in range(members.shape[1])}
    else:
        flat = array.ravel()
        texts = np.asarray([_name(v, {}) for v in flat], dtype=object)
        columns = {t: texts == t for t in pd.unique(texts) if t not in ("0", "", "nan")}

    if len(next(iter(columns.values()), np.empty(n_voxels))) != n_voxels:
        raise DataError(
            f"'{options.roi}' in {path} has shape {array.shape} but there are {n_voxels} voxels; it needs one "
            "entry each."
        )

    masks = {}
    for value, mask in columns.items():
        name = value
        if value in options.roi_names:
            name = options.roi_names[value]
        elif value.isdigit():
            name = f"roi{value}"

        masks[ROI + name] = mask

    return pd.DataFrame(masks)


def _file_split(trials: Trials, stimuli: Stimuli) -> Split:
    """The file's own split: by stimulus where that is possible, else by trial, for the checks to see."""
    side = trials.table["side"].to_numpy()
    is_train = side == "train"
    is_test = side == "test"
    train = pd.unique(trials.stimuli[is_train])
    test = pd.unique(trials.stimuli[is_test])
    both = sorted(set(train) & set(test))
    disjoint = None
    if stimuli.category is not None:
        category = dict(zip(stimuli.ids, stimuli.category, strict=True))
        disjoint = not ({category[i] for i in train} & {category[i] for i in test})

    if not both:
        note = f"{is_train.sum()} training and {is_test.sum()} test rows; no picture is on both sides."
        return Split("file", tuple(train), tuple(test), "stimulus", disjoint, note)

    ids = trials.table["trial"].to_numpy()
    note = (
        f"{len(both)} pictures are on both sides of the file's own split, first '{both[0]}': what is scored on them was "
        "seen in training."
    )

    return Split("file", tuple(ids[is_train]), tuple(ids[is_test]), "trial", disjoint, note)
