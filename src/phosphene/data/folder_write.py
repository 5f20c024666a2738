"""Writing a data set as a folder: streamed, hashed while it is written, whole or not at all. Layout: ``folder.py``."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from phosphene._version import __version__
from phosphene.data.folder import FORMAT, INDEX, LABEL, VERSION, ScaledRows
from phosphene.errors import ConfigError, DataError
from phosphene.run import atomic
from phosphene.types import Dataset, Split, Stimuli, Trials

_BLOCK_BYTES = 2**25


def free_folder(path: str | Path, *, replace: bool = False) -> Path:
    """The folder that a data set may be written to, asked before any work is done for it.

    Parameters
    ----------
    path : which
    replace : whether a data set that lies there may go

    Raises
    ------
    ConfigError
        Something else stands there, or a data set that may not go.
    """
    path = atomic.checked_path(path)
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
    dataset : of any source
    path : the folder to make
    int16_scale : store betas as whole multiples of this, at half the size; refused where they do not fit
    replace : whether an older data set of that name may be replaced; anything else never is
    progress : called with (file, share done)

    Returns
    -------
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
    names = {s: quote(s, safe=" ") for s in dataset.subjects}
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
        for subject, name in names.items():
            index["subjects"][subject] = _write_subject(out, dataset.subjects[subject], f"subjects/{name}", int16_scale)
        index["files"] = out.files
        text = json.dumps(index, indent=1, ensure_ascii=False, default=_plain)
        (folder / INDEX).write_text(text + "\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


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
        self.folder, self.progress = folder, progress
        self.files: dict[str, dict[str, Any]] = {}

    def text(self, name: str, text: str) -> None:
        self._write(name, iter([text.encode("utf-8")]))

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterator[np.ndarray]) -> None:
        def pieces() -> Iterator[bytes]:
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

    def _write(self, name: str, pieces: Iterator[Any]) -> None:
        path, digest, size = self.folder / name, hashlib.sha256(), 0
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
    for name in () if stimuli.labels is None else stimuli.labels.columns:
        table[f"{LABEL}{name}"] = stimuli.labels[name].to_numpy()
    text, columns = _to_csv(table)
    out.text("stimuli.csv", text)
    record: dict[str, Any] = {"n": len(stimuli), "columns": columns}
    if stimuli.images is not None:
        shape = (len(stimuli), *stimuli.image_shape)
        step = max(1, _BLOCK_BYTES // max(1, int(np.prod(shape[1:]))))
        starts = range(0, len(stimuli), step)
        out.array("images.npy", shape, np.dtype("u1"), (_pixels(stimuli, slice(s, s + step)) for s in starts))
        record["image_shape"] = list(stimuli.image_shape)
    return record


def _pixels(stimuli: Stimuli, rows: slice) -> np.ndarray:
    """Pictures with zeros where one is missing."""
    there = np.ones(len(stimuli), bool)[rows] if stimuli.present is None else stimuli.present[rows]
    block = np.zeros((len(there), *stimuli.image_shape), dtype=np.uint8)
    if there.any():
        block[there] = stimuli.pixels(np.arange(len(stimuli))[rows][there])
    return block


def _write_subject(out: _Writer, trials: Trials, place: str, scale: float | None) -> dict[str, Any]:
    if scale is None and isinstance(trials.source, ScaledRows):
        scale = trials.source.scale
    shape = (len(trials), trials.n_voxels)
    step = max(1, _BLOCK_BYTES // max(1, 4 * shape[1]))

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
                    "int16 in "
                    f"steps of {scale:g}. Choose a larger step, or store them as float32."
                )
            yield whole.astype(np.int16)

    out.array(f"{place}/betas.npy", shape, np.dtype("<f4" if scale is None else "<i2"), blocks())
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
    columns, out = {}, {}
    for name in table.columns:
        values = table[name].to_numpy()
        if values.dtype.kind not in "biuf":
            values = np.asarray([str(v) for v in values], dtype=object)
            columns[str(name)] = "str"
        else:
            columns[str(name)] = values.dtype.newbyteorder("<").str.lstrip("|<")
            values = values.astype(np.uint8) if values.dtype == bool else values
        out[str(name)] = values
    text = pd.DataFrame(out).to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL, na_rep="nan")
    return text, columns
