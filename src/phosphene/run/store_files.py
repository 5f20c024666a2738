"""The files of a row store: how they are made, and how a lost index is written again. See :mod:`store`."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.errors import ConfigError, DataError, MachineError, ModelError, PhospheneWarning
from phosphene.run import atomic
from phosphene.run.folder import read_json
from phosphene.types.identity import digest_of

FORMAT = "phosphene-rows"
VERSION = 1
"""Version of the store's format that this phosphene writes; older ones are read, newer ones refused."""

INDEX, IDS, ROWS, CHUNKS, CLAIMS = "store.json", "ids.json", "rows.npy", "chunks", "claims"


def key_of(spec: Mapping[str, Any], ids: Iterable[str], shape: Sequence[int], dtype: str) -> str:
    """Full SHA-256 of what a store holds, independent of the order of the ids."""
    text = json.dumps(spec, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return digest_of(FORMAT, text, sorted(str(i) for i in ids), [int(s) for s in shape], str(dtype))


def blank_rows(file: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Header and length of an array file; bytes that are there stay. Doing it twice changes nothing."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.pwrite(handle, header.getvalue(), 0)
        os.ftruncate(handle, len(header.getvalue()) + math.prod(shape) * dtype.itemsize)
        os.fsync(handle)
    finally:
        os.close(handle)


def make(folder: Path, record: Mapping[str, Any], ids: np.ndarray) -> None:
    """A blank store. Of several processes that make one, the first to rename wins and the others use his."""
    shape, dtype = (record["n"], *record["shape"]), np.dtype(record["dtype"]).newbyteorder("<")
    size = math.prod(shape) * dtype.itemsize
    temporary = atomic.partial_name(folder)
    with atomic.explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if size > free:
            raise MachineError(
                f"{shape} rows of {record['dtype']} take {size / 1e9:.1f} GB, but {folder.parent} has "
                f"{free / 1e9:.1f} GB free. Free some space, choose another folder, or store float16."
            )
        try:
            (temporary / CHUNKS).mkdir(parents=True)
            (temporary / CLAIMS).mkdir()
            blank_rows(temporary / ROWS, shape, dtype)
            atomic.write_text(temporary / IDS, json.dumps(list(ids), ensure_ascii=False) + "\n")
            atomic.write_text(temporary / INDEX, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
            try:
                os.rename(temporary, folder)
            except OSError:
                if not (folder / INDEX).is_file():  # else another process made it in this moment
                    raise
            atomic.fsync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def restore_index(folder: Path, record: dict[str, Any]) -> None:
    """Write store.json again where it is gone and everything else is there; the hashes of the rows stay in force."""
    try:
        held = json.loads((folder / IDS).read_text(encoding="utf-8"))
        marks = sorted(p for p in (folder / CHUNKS).iterdir() if p.suffix == ".json" and not p.name.startswith("."))
    except (OSError, ValueError) as error:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:5])
        raise ConfigError(
            f"{folder} should hold a store or nothing, but holds {found}. Choose another folder."
        ) from error
    chunk = record["chunk"]
    for mark in marks:
        try:
            known = read_json(mark)
        except ModelError:
            continue  # a damaged mark counts as missing later
        refuse_newer(mark, known)
        if known.get("key") != record["key"]:
            raise ModelError(
                f"{folder} lost its {INDEX}, and its rows were made from something else than what is asked for "
                f"(key {str(known.get('key'))[:12]}..., not {record['key'][:12]}...). Choose another folder."
            )
        if known["end"] != record["n"]:
            chunk = known["end"] - known["first"]
    if digest_of(sorted(map(str, held))) != record["ids_sha256"]:
        raise ModelError(f"{folder} lost its {INDEX}, and its ids are not those asked for. Choose another folder.")
    warnings.warn(
        f"{folder / INDEX} was gone and is written again; {len(marks)} finished chunks are kept and checked.",
        PhospheneWarning,
        stacklevel=3,
    )
    atomic.write_text(folder / INDEX, json.dumps({**record, "chunk": chunk}, indent=1, ensure_ascii=False) + "\n")


def storable(array: Any, ids: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Rows as they are stored, contiguous.

    Parameters
    ----------
    array : (k, *shape)
    ids : (k,) of the rows
    shape, dtype : of one row, and of the store

    Raises
    ------
    DataError
        For another shape, NaN or infinite values (float16 ends at 65,504), or what int16 cannot hold exactly.
    """
    given, expected = np.asarray(array), (len(ids), *shape)
    if given.shape != expected:
        raise DataError(f"the rows from '{ids[0]}' to '{ids[-1]}' must be {expected}, but are {given.shape}.")
    with np.errstate(over="ignore", invalid="ignore"):
        stored = np.ascontiguousarray(given, dtype=dtype)
    if dtype.kind == "i" and not np.array_equal(stored, given):  # also for NaN
        at = int(np.argwhere((stored != given).reshape(len(ids), -1).any(axis=1))[0, 0])
        raise DataError(
            f"the row of '{ids[at]}' holds fractions, NaN or numbers beyond 32,767 and is not stored as int16; store float32."
        )
    if not np.isfinite(stored).all():
        at = int(np.argwhere(~np.isfinite(stored).reshape(len(ids), -1).all(axis=1))[0, 0])
        hint = " float16 ends at 65,504; store float32." if np.isfinite(given).all() else ""
        raise DataError(f"the row of '{ids[at]}' holds NaN or infinite values and is not stored.{hint}")
    return stored


def refuse_newer(file: Path, record: Mapping[str, Any]) -> None:
    """Raise ModelError for a file of a newer format."""
    version = record.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ModelError(
            f"{file} is of version {version}, but this phosphene reads and writes up to {VERSION}; it was made by a "
            "newer one. Upgrade phosphene, or choose another folder; this one is left as it is."
        )


def plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as JSON would give it back. Raises ConfigError for anything that JSON has no word for."""
    try:
        return json.loads(json.dumps(spec, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"what rows are must be said in plain values (JSON), but: {error}.") from error


def difference(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What differs between two stores, for people."""
    old = {**held.get("spec", {}), **{k: held.get(k) for k in ("shape", "dtype", "n", "ids_sha256")}}
    new = {**asked["spec"], **{k: asked[k] for k in ("shape", "dtype", "n", "ids_sha256")}}
    parts = [
        f"{k} is {old.get(k)!r} there, {new.get(k)!r} here" for k in sorted({*old, *new}) if old.get(k) != new.get(k)
    ]
    return "; ".join(parts[:4]) or f"key {held['key'][:12]}... there, {asked['key'][:12]}... here"
