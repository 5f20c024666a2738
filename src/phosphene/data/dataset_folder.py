"""The folder format: a data set that opens without being read.

::

    FOLDER/
      dataset.json                  what this is: format version, facts, splits, types of the columns, size and
                                    SHA-256 of every other file
      stimuli.csv                   id, present, category, captions (a JSON list), label.NAME (0 or 1)
      images.npy                    (n_stimuli, height, width, 1 or 3) uint8; rows of missing pictures are zero
      subjects/NAME/betas.npy       (n_trials, n_voxels) float32, or int16 with a scale in dataset.json
      subjects/NAME/trials.csv      trial, stimulus, session, run, repeat ...
      subjects/NAME/voxels.csv      x, y, z, noise_ceiling, roi.NAME (0 or 1)

Arrays are memory maps. The folder appears under its name whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
import pandas as pd

from phosphene._version import __version__
from phosphene.data.findings import Finding
from phosphene.data.reader import ReaderOptions
from phosphene.errors import ConfigError, DataError, PhospheneError, did_you_mean
from phosphene.io import atomic
from phosphene.io.csv_table import csv_text, read_guarded
from phosphene.io.reading import open_npy, reads
from phosphene.types import Dataset, Rows, Split, Stimuli, Trials

FORMAT = "phosphene-dataset"
VERSION = 1
"""Version of the folder format that this phosphene writes; older ones are read, newer ones refused."""

INDEX = "dataset.json"
LABEL = "label."
"""Prefix of the columns of stimuli.csv that hold labels."""

_BLOCK = 2**18  # numbers scaled at once: 1 MB of float32, which fits the cache of a core
_BLOCK_BYTES = 2**25  # of betas or pictures in memory at once while a folder is written
_MEND = "Copy the folder again, or import the data once more."


@dataclass(frozen=True)
class ScaledRows:
    """Whole numbers on disk that stand for real ones: ``numbers * scale``.

    Parameters
    ----------
    numbers : Rows of shape (n, m), int16
        usually a memory map
    scale : float
        such as 1/300
    """

    numbers: Rows
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, m)."""
        return tuple(self.numbers.shape)

    def __getitem__(self, rows: Any) -> np.ndarray:
        numbers = self.numbers[rows]
        if numbers.ndim < 2:
            return numbers * np.float32(self.scale)

        out = np.empty(numbers.shape, np.float32)  # (rows, m)
        step = max(1, _BLOCK // (numbers[:1].size or 1))

        # In blocks that stay in the cache: taken whole, every number would go through memory three times.
        for start in range(0, len(out), step):
            block = out[start : start + step]
            block[...] = numbers[start : start + step]
            block *= np.float32(self.scale)

        return out


@reads("path")
def read_dataset(path: str | Path, subject: str | None = None) -> Dataset:
    """Open a folder written by `write_dataset`; nothing but tables is read.

    Parameters
    ----------
    path : str or Path
        the folder
    subject : str, optional
        of this subject only; all by default, each opened when asked for

    Returns
    -------
    Dataset
        Dataset on memory maps

    Raises
    ------
    DataError
        Written by a newer phosphene, incomplete, or a file whose size or shape is not what was written. Contents are
        compared by `FolderReader.check` alone.
    """
    path = Path(path)
    index = _read_index(path)
    if subject is not None and subject not in index["subjects"]:
        raise DataError(f"{path} has no subject '{subject}'. {did_you_mean(subject, index['subjects'])}")
    splits = {}
    for record in index["splits"]:
        splits[record["key"]] = Split(
            record["name"],
            tuple(record["train"]),
            tuple(record["test"]),
            record["unit"],
            record["category_disjoint"],
            record["note"],
        )

    names = list(index["subjects"])
    if subject is not None:
        names = [subject]

    return Dataset(
        index["name"],
        _read_stimuli(path, index),
        _Subjects(path, index, names),
        splits,
        index.get("about", {}),
        index.get("nouns", {}),
    )


class _Subjects(Mapping[str, Trials]):
    """Subjects of a folder, opened when asked for and then kept."""

    def __init__(self, path: Path, index: Mapping[str, Any], names: list[str]) -> None:
        self._path = path
        self._index = index
        self._names = names
        self._open: dict[str, Trials] = {}

    def __getitem__(self, name: str) -> Trials:
        if name not in self._names:
            raise KeyError(name)

        if name not in self._open:
            self._open[name] = _read_subject(self._path, self._index, name)

        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


# -- reading -----------------------------------------------------------------------------------------------------------


def _read_index(path: Path) -> dict[str, Any]:
    """dataset.json, once it is known to be of a format and version that can be read."""
    file = path / INDEX
    if not file.is_file():
        raise DataError(
            f"{path} has no {INDEX}, so it is no data set of phosphene; make one with 'phosphene data import'."
        )

    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}). {_MEND}") from error

    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DataError(f"{file} is not the index of a data set: its 'format' should be '{FORMAT}'. {_MEND}")
    version = index.get("format_version")
    if not isinstance(version, int) or version > VERSION:
        raise DataError(
            f"{path} has format version {version}, written by {index.get('written_by', 'another phosphene')}; this "
            f"phosphene reads up to {VERSION}. Upgrade phosphene, or import the data again with this one."
        )

    missing = {"name", "splits", "stimuli", "subjects", "files"} - set(index)
    if missing:
        raise DataError(f"{file} lacks {', '.join(sorted(missing))}. {_MEND}")
    return index


def _file(path: Path, index: Mapping[str, Any], name: str) -> Path:
    """A file of the folder, after comparing its size with what was written."""
    file = path / name
    record = index["files"].get(name)

    # The index comes with the folder, from whoever made it: a name must not lead out of it.
    if record is None or ".." in Path(name).parts or Path(name).is_absolute():
        raise DataError(f"{path / INDEX} does not list {name}. {_MEND}")
    if not file.is_file():
        raise DataError(f"{file} is missing. {_MEND}")
    size = file.stat().st_size
    if size != record["size"]:
        raise DataError(
            f"{file} has {size} bytes, but {record['size']} were written; it is truncated or changed. {_MEND}"
        )

    return file


def _read_array(path: Path, index: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    file = _file(path, index, name)
    try:
        array = open_npy(file)
    except (ValueError, OSError) as error:
        raise DataError(f"{file} is no plain array ({error}). {_MEND}") from error

    if array.shape != shape:
        raise DataError(f"{file} has shape {array.shape}, but {INDEX} says {shape}. {_MEND}")
    return array


def _read_csv(path: Path, index: Mapping[str, Any], name: str, columns: Mapping[str, str], n: int) -> pd.DataFrame:
    """A table of `n` rows, each column with the type that was written."""
    file = _file(path, index, name)
    try:
        # All as text: pandas would guess the types, and make a number of a stimulus called "007".
        table = read_guarded(pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{file} is no readable table ({error}). {_MEND}") from error

    if list(table.columns) != list(columns) or len(table) != n:
        raise DataError(
            f"{file} has {len(table)} rows and the columns {', '.join(table.columns)}; {n} rows and "
            f"{', '.join(columns)} were written. {_MEND}"
        )

    out = {}
    for column, kind in columns.items():
        values = table[column].to_numpy(dtype=object)
        try:
            if kind == "str":
                out[column] = values
            elif kind == "b1":
                out[column] = values.astype(np.int64).astype(bool)  # the text "0" itself would be True
            else:
                out[column] = np.asarray(values, dtype=str).astype(np.dtype(kind))
        except ValueError as error:
            raise DataError(
                f"column '{column}' of {file} holds something that is no {kind}: {error}. {_MEND}"
            ) from error

    return pd.DataFrame(out, index=pd.RangeIndex(n))


def _read_stimuli(path: Path, index: Mapping[str, Any]) -> Stimuli:
    record = index["stimuli"]
    n = record["n"]
    table = _read_csv(path, index, "stimuli.csv", record["columns"], n)
    images = None

    if "image_shape" in record:
        images = _read_array(path, index, "images.npy", (n, *record["image_shape"]))

    captions = None
    if "captions" in table:
        captions = tuple(tuple(json.loads(c)) for c in table["captions"])

    labels = None
    labelled = [column for column in table.columns if column.startswith(LABEL)]
    if labelled:
        names = [column.removeprefix(LABEL) for column in labelled]
        labels = table.loc[:, labelled].set_axis(names, axis="columns")  # (n_stimuli, n_labels)

    category = None
    if "category" in table:
        category = table["category"].to_numpy(dtype=object)

    present = None
    if "present" in table:
        present = table["present"].to_numpy()

    return Stimuli(table["id"].to_numpy(dtype=object), images, captions, labels, category, present)


@reads("path")
def _read_subject(path: Path, index: Mapping[str, Any], name: str) -> Trials:
    record = index["subjects"][name]
    place = record["folder"]
    n = record["n_trials"]
    n_voxels = record["n_voxels"]
    numbers = _read_array(path, index, f"{place}/betas.npy", (n, n_voxels))

    source: Rows
    if "scale" in record:
        source = ScaledRows(numbers, record["scale"])
    else:
        source = numbers

    table = _read_csv(path, index, f"{place}/trials.csv", record["trials_columns"], n)
    voxels = pd.DataFrame()
    if "voxels_columns" in record:
        voxels = _read_csv(path, index, f"{place}/voxels.csv", record["voxels_columns"], n_voxels)

    return Trials(source, table, voxels, name, record.get("provenance", {}))


class FolderReader:
    """Reader of a folder written by ``phosphene data import``."""

    title: ClassVar[str] = "A folder in phosphene's own format"
    citation: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    url: ClassVar[str] = ""
    files: ClassVar[str] = "a folder with dataset.json"
    options: ClassVar[type[ReaderOptions]] = ReaderOptions

    def find(self, root: Path) -> Path:
        """The folder itself: it is named by its path."""
        return root

    def subjects(self, path: Path, options: ReaderOptions) -> tuple[str, ...]:
        """Names of the subjects, from dataset.json.

        Parameters
        ----------
        path : Path
            the folder
        options : ReaderOptions
            has no choices
        """
        return tuple(_read_index(Path(path))["subjects"])

    def load(self, path: Path, options: ReaderOptions, subject: str | None = None) -> Dataset:
        """Open the folder; see `read_dataset`.

        Parameters
        ----------
        path : Path
            the folder
        options : ReaderOptions
            has no choices
        subject : str, optional
            only this one; all by default
        """
        return read_dataset(path, subject)

    def check(self, path: Path, options: ReaderOptions) -> list[Finding]:
        """Read every file once and compare its SHA-256 with what was written.

        Parameters
        ----------
        path : Path
            the folder
        options : ReaderOptions
            has no choices

        Returns
        -------
        list of Finding
            a problem for every file that differs, or one entry that says that all are as written
        """
        path = Path(path)
        try:
            index = _read_index(path)
        except PhospheneError as error:
            return [Finding("problem", INDEX, str(error))]

        out = []
        for name, record in index["files"].items():
            try:
                with open(_file(path, index, name), "rb") as handle:
                    digest = hashlib.file_digest(handle, "sha256").hexdigest()
            except (PhospheneError, OSError) as error:
                out.append(Finding("problem", name, str(error)))
                continue

            if digest != record["sha256"]:
                detail = (
                    f"its bytes are not those written (SHA-256 {digest[:12]}..., recorded {record['sha256'][:12]}...)."
                )
                out.append(Finding("problem", name, detail, _MEND))

        if not out:
            out.append(Finding("ok", "files", f"all {len(index['files'])} files have the bytes that were written."))

        return out


# -- writing -----------------------------------------------------------------------------------------------------------


def free_folder(path: str | Path, *, replace: bool = False) -> Path:
    """The folder that a data set may be written to, asked before any work is done for it.

    Parameters
    ----------
    path : str or Path
        the folder to make
    replace : bool, default False
        whether a data set that has this name already may be replaced

    Returns
    -------
    Path
        the absolute path

    Raises
    ------
    ConfigError
        The path holds something else, or a data set that must not be replaced.
    """
    path = atomic.checked_path(path)
    if path.is_symlink():
        path = path.resolve()  # the user's own link: what it leads to is meant, and it stays a link

    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        if not (path / INDEX).is_file():
            raise ConfigError(
                f"{path} exists and is no data set of phosphene, so it is left alone; choose another --out."
            )
        if not replace:
            raise ConfigError(
                f"{path} already holds a data set. Choose another --out, or replace it with --replace (in Python replace=True)."
            )

    return path


def write_dataset(
    dataset: Dataset,
    path: str | Path,
    *,
    int16_scale: float | None = None,
    replace: bool = False,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> Path:
    """Write a data set as a folder, betas and pictures streamed in blocks.

    Parameters
    ----------
    dataset : Dataset
        of any source
    path : str or Path
        the folder to make
    int16_scale : float, optional
        store betas as whole multiples of this, at half the size; refused where they do not fit
    replace : bool, default False
        whether an older data set of that name may be replaced; anything else never is
    progress : callable, optional
        called with (file, share done)

    Returns
    -------
    Path
        Path of the folder

    Raises
    ------
    ConfigError
        Something stands there already.
    DataError
        Betas that do not fit int16, or names that cannot be folders.
    MachineError
        The disk is full or cannot be written; nothing is left behind.
    """
    path = free_folder(path, replace=replace)
    names = {subject: quote(subject, safe=" ") for subject in dataset.subjects}  # "a/b" is one folder, not two
    for name in names.values():
        if not name.strip(". ") or len(name) > 200:
            raise DataError(f"the subject name '{name}' cannot be a folder; rename the subject.")

    with atomic.folder(path) as folder:
        out = _Writer(folder, progress)
        index: dict[str, Any] = {
            "format": FORMAT,
            "format_version": VERSION,
            "written_by": f"phosphene {__version__}",
            "name": dataset.name,
            "about": dict(dataset.about),
            "splits": [_split_record(s, n) for n, s in dataset.splits.items()],
            "stimuli": _write_stimuli(out, dataset.stimuli),
            "subjects": {},
        }

        if dataset.nouns:
            index["nouns"] = dict(dataset.nouns)

        for subject, name in names.items():
            index["subjects"][subject] = _write_subject(out, dataset.subjects[subject], f"subjects/{name}", int16_scale)

        index["files"] = out.files
        text = json.dumps(index, indent=1, ensure_ascii=False, default=_plain)
        (folder / INDEX).write_text(text + "\n", encoding="utf-8")

    return path


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def _split_record(split: Split, name: str) -> dict[str, Any]:
    return {
        "key": name,
        "name": split.name,
        "unit": split.unit,
        "category_disjoint": split.category_disjoint,
        "note": split.note,
        "digest": split.digest,
        "train": list(split.train),
        "test": list(split.test),
    }


class _Writer:
    """Writes files below a folder and remembers size and SHA-256 of each."""

    def __init__(self, folder: Path, progress: Callable[[str, float], None]) -> None:
        self.folder = folder
        self.progress = progress
        self.files: dict[str, dict[str, Any]] = {}

    def text(self, name: str, text: str) -> None:
        self._write(name, iter([text.encode("utf-8")]))

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterator[np.ndarray]) -> None:
        def pieces() -> Iterator[bytes | memoryview]:
            # The header by hand: np.save would want the whole array, where only a block is ever in memory.
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            )

            yield header.getvalue()
            done = 0
            for block in blocks:
                yield np.ascontiguousarray(block, dtype=dtype).data.cast("B")
                done += len(block)
                self.progress(name, done / max(1, shape[0]))

        self._write(name, pieces())

    def _write(self, name: str, pieces: Iterator[bytes | memoryview]) -> None:
        path = self.folder / name
        digest = hashlib.sha256()
        size = 0
        path.parent.mkdir(parents=True, exist_ok=True)

        with open(path, "wb") as handle:
            for piece in pieces:
                handle.write(piece)
                digest.update(piece)
                size += len(piece)

        self.files[name] = {"size": size, "sha256": digest.hexdigest()}


def _write_stimuli(out: _Writer, stimuli: Stimuli) -> dict[str, Any]:
    table = pd.DataFrame({"id": stimuli.ids})
    if stimuli.present is not None:
        table["present"] = stimuli.present

    if stimuli.category is not None:
        table["category"] = stimuli.category

    if stimuli.captions is not None:
        table["captions"] = [json.dumps(list(c), ensure_ascii=False) for c in stimuli.captions]

    if stimuli.labels is not None:
        for name in stimuli.labels.columns:
            table[f"{LABEL}{name}"] = stimuli.labels[name].to_numpy()

    text, columns = _to_csv(table)
    out.text("stimuli.csv", text)
    record: dict[str, Any] = {"n": len(stimuli), "columns": columns}
    if stimuli.images is not None:
        shape = (len(stimuli), *stimuli.image_shape)  # (n_stimuli, height, width, channels)
        step = max(1, _BLOCK_BYTES // max(1, int(np.prod(shape[1:]))))
        starts = range(0, len(stimuli), step)
        out.array("images.npy", shape, np.dtype("u1"), (_pixels(stimuli, slice(s, s + step)) for s in starts))
        record["image_shape"] = list(stimuli.image_shape)

    return record


def _pixels(stimuli: Stimuli, rows: slice) -> np.ndarray:
    """Pictures with zeros where one is missing."""
    if stimuli.present is None:
        present = np.ones(len(stimuli), bool)[rows]
    else:
        present = stimuli.present[rows]

    block = np.zeros((len(present), *stimuli.image_shape), dtype=np.uint8)
    if present.any():
        block[present] = stimuli.pixels(np.arange(len(stimuli))[rows][present])

    return block


def _write_subject(out: _Writer, trials: Trials, place: str, scale: float | None) -> dict[str, Any]:
    # What was whole numbers on disk stays so: the same values at half the size.
    if scale is None and isinstance(trials.source, ScaledRows):
        scale = trials.source.scale

    if scale is None:
        dtype = np.dtype("<f4")
    else:
        dtype = np.dtype("<i2")

    shape = (len(trials), trials.n_voxels)
    step = max(1, _BLOCK_BYTES // max(1, 4 * shape[1]))  # 4 bytes a number: blocks are float32 until they are rounded

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, shape[0], step):
            block = trials.read(slice(start, start + step))
            if scale is None:
                yield block
                continue

            whole = np.rint(block / np.float32(scale))
            if not (np.abs(whole) <= 32767).all():  # NaN included
                raise DataError(
                    f"betas of {trials.subject} go up to {np.nanmax(np.abs(block)):g} or hold NaN, and do not fit "
                    f"int16 in steps of {scale:g}. Choose a larger step, or store them as float32."
                )

            yield whole.astype(np.int16)

    out.array(f"{place}/betas.npy", shape, dtype, blocks())
    record: dict[str, Any] = {"folder": place, "n_trials": shape[0], "n_voxels": shape[1]}
    if scale is not None:
        record["scale"] = scale

    for name, table in (("trials", trials.table), ("voxels", trials.voxels)):
        if table.shape[1]:
            text, record[f"{name}_columns"] = _to_csv(table)
            out.text(f"{place}/{name}.csv", text)

    record["provenance"] = dict(trials.provenance)
    return record


def _to_csv(table: pd.DataFrame) -> tuple[str, dict[str, str]]:
    """CSV text, and the type of every column: a CSV alone does not say whether 1 is a number or a name."""
    columns = {}
    out = {}

    for name in table.columns:
        values = table[name].to_numpy()
        if values.dtype.kind not in "biuf":
            values = np.asarray([str(v) for v in values], dtype=object)
            columns[str(name)] = "str"
        else:
            # Without the byte order, which means nothing in a text and differs between machines.
            columns[str(name)] = values.dtype.newbyteorder("<").str.lstrip("|<")
            if values.dtype == bool:
                values = values.astype(np.uint8)

        out[str(name)] = values

    return csv_text(pd.DataFrame(out), na_rep="nan"), columns
