"""Ridge predictions for more targets than one machine should do: ranges of targets as an array of jobs.

The map B of `StreamedRidge` is the same for every target, so it is fitted once; each job then reads its own range of the
targets' columns and writes its own file. Jobs that were killed, or never ran, are the files that are not there.

::

    FOLDER/
      shards.json          format, key (SHA-256 of map, new rows and ranges), ranges of targets
      map/                 the fitted `StreamedRidge`, without targets
      new.npy              (m, p) float32, the rows to predict for
      columns/000003.npy   (m, columns of the range) float32

Examples
--------
One machine::

    shards = RidgeShards.prepare("predictions", model, betas, n_shards=64)
    for number in shards.missing():
        shards(number)
    shards.joined()[:, :768]

A cluster, with submitit, whose executor pickles the job (the name of its folder) and not the data::

    executor = submitit.AutoExecutor(folder="predictions/jobs")
    executor.update_parameters(timeout_min=60, cpus_per_task=4, slurm_array_parallelism=32)
    executor.map_array(shards, shards.missing())
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from phosphene.align.block_reader import spans
from phosphene.align.estimator import new_rows
from phosphene.align.streamed import StreamedRidge
from phosphene.errors import ConfigError, ModelError
from phosphene.io import atomic
from phosphene.io.reading import open_npy
from phosphene.io.run_folder import read_json
from phosphene.io.stages import load_part, save_part
from phosphene.io.store import cache_folder

FORMAT = "phosphene-ridge-shards"
VERSION = 1
INDEX = "shards.json"
MAP = "map"
NEW = "new.npy"
COLUMNS = "columns"


@dataclass(frozen=True)
class RidgeShards:
    """Predictions of a `StreamedRidge`, in ranges of targets. Make it with `prepare`, or of a folder that is there.

    Called with the number of a range, it computes that range unless its file is there.

    Parameters
    ----------
    folder : Path
        where everything lies; all machines must see it, and the feature stores that PHOSPHENE_CACHE names
    """

    folder: Path

    @classmethod
    def prepare(cls, folder: str | Path, model: StreamedRidge, X: ArrayLike, n_shards: int) -> Self:
        """Write down what is to be predicted; the same call on a folder that is there goes on with it.

        Parameters
        ----------
        folder : str or Path
            to make
        model : StreamedRidge
            fitted
        X : array-like of shape (m, p)
            rows to predict for
        n_shards : int
            into how many ranges the targets are divided, at most one a target

        Returns
        -------
        RidgeShards
            ready for jobs

        Raises
        ------
        ConfigError
            The folder holds other predictions, or something else; n_shards is below 1; or the targets are not in the
            folder that PHOSPHENE_CACHE names, where jobs look for them.
        DataError, ModelError
            X is no finite matrix, or has other columns than the model was fitted on.
        """
        folder = atomic.checked_path(folder)
        cache = cache_folder()
        store = model.targets_.store.folder

        if n_shards < 1:
            raise ConfigError(f"n_shards must be 1 or more, but is {n_shards}.")

        if cache is None or store.parent.resolve() != cache.resolve():
            raise ConfigError(
                f"the targets lie in {store}, but PHOSPHENE_CACHE is {cache}: jobs could not find them. Set it to "
                f"{store.parent}."
            )

        rows = new_rows(X, model.n_features_, model.block_bytes).block()  # (m, p)
        n_targets = model.n_targets_
        ranges = []
        for columns in spans(n_targets, -(-n_targets // n_shards)):
            ranges.append([columns.start, columns.stop])

        record = {
            "format": FORMAT,
            "version": VERSION,
            "key": _key(model, rows, ranges),
            "n_rows": len(rows),
            "n_targets": n_targets,
            "ranges": ranges,
        }

        shards = cls(folder.resolve())
        if (folder / INDEX).is_file():
            if shards.record["key"] != record["key"]:
                raise ConfigError(
                    f"{folder} holds predictions of another map, for other rows or in other ranges. Choose another folder, "
                    "or delete this one."
                )

            return shards

        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} exists and holds something else; choose another folder.")

        with atomic.folder(folder) as place:
            (place / COLUMNS).mkdir()
            save_part(place / MAP, model, stage=MAP, digest=record["key"], seconds=0.0, lineage=())
            np.save(place / NEW, rows, allow_pickle=False)
            atomic.write_text(place / INDEX, json.dumps(record) + "\n")

        return shards

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """Contents of shards.json. Raises ModelError where there is none, or of a newer version."""
        record = read_json(self.folder / INDEX)
        if record.get("format") != FORMAT or record.get("version") != VERSION:
            raise ModelError(
                f"{self.folder} is of format {record.get('format')!r}, version {record.get('version')!r}, not {FORMAT} "
                f"{VERSION}; make it again with RidgeShards.prepare."
            )

        return record

    def __len__(self) -> int:
        return len(self.record["ranges"])

    def file(self, number: int) -> Path:
        """Where the predictions of a range lie once they are there."""
        return self.folder / COLUMNS / f"{number:06d}.npy"

    def missing(self) -> list[int]:
        """Numbers of the ranges that are not there yet."""
        return [n for n in range(len(self)) if not self.file(n).is_file()]

    def __call__(self, number: int) -> Path:
        """Compute one range, unless it is there; its file appears whole or not at all.

        Raises
        ------
        ConfigError
            For a number that is no range's.
        ModelError
            When the map or its targets are not there or damaged.
        MachineError
            When the disk is full.
        """
        if not 0 <= number < len(self):
            raise ConfigError(f"there is no range {number}; they are numbered from 0 to {len(self) - 1}.")

        path = self.file(number)
        if path.is_file():
            return path

        model = load_part(self.folder / MAP, StreamedRidge)
        begin, end = self.record["ranges"][number]
        new = np.array(open_npy(self.folder / NEW))
        predicted = model.predict(new, columns=slice(begin, end))
        temporary = atomic.partial_name(path)

        with atomic.explained_write(path):
            try:
                with open(temporary, "wb") as handle:
                    np.save(handle, predicted, allow_pickle=False)
                    handle.flush()
                    os.fsync(handle.fileno())

                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

        return path

    def checkpoint(self, number: int) -> Any:
        """Called by submitit when a job is about to be preempted: the same again."""
        from submitit.helpers import DelayedSubmission  # pyright: ignore[reportMissingImports]  # an extra

        return DelayedSubmission(self, number)

    def joined(self) -> JoinedColumns:
        """All predictions as one matrix that is read when indexed.

        Returns
        -------
        JoinedColumns
            (m, t) float32

        Raises
        ------
        ModelError
            While ranges are missing, or where a file has another shape than its range.
        """
        missing = self.missing()
        if missing:
            raise ModelError(
                f"{len(missing)} of {len(self)} ranges of {self.folder} are not predicted yet, first {missing[0]}. Run the "
                "jobs of missing() again."
            )

        parts = []
        for number, (begin, end) in enumerate(self.record["ranges"]):
            try:
                part = open_npy(self.file(number))
            except (OSError, ValueError) as error:
                raise ModelError(_damaged(self.file(number), str(error))) from error

            if part.shape != (self.record["n_rows"], end - begin):
                raise ModelError(_damaged(self.file(number), f"its shape is {part.shape}"))

            parts.append(part)

        return JoinedColumns(tuple(parts))


@dataclass(frozen=True)
class JoinedColumns:
    """Matrices side by side, read when indexed: ``joined[rows, columns]``, columns a slice or a number.

    Parameters
    ----------
    parts : tuple of ndarray
        (m, columns) each, usually memory maps
    """

    parts: tuple[np.ndarray, ...]

    @cached_property
    def _bounds(self) -> np.ndarray:
        return np.cumsum([0, *(part.shape[1] for part in self.parts)])

    @property
    def shape(self) -> tuple[int, int]:
        """(m, all columns)."""
        return (len(self.parts[0]), int(self._bounds[-1]))

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return self.parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            rows, columns = index
        else:
            rows = index
            columns = slice(None)

        if not isinstance(columns, slice):
            columns = range(self.shape[1])[columns]
            part = int(np.searchsorted(self._bounds, columns, side="right")) - 1
            return np.array(self.parts[part][rows, columns - self._bounds[part]])

        begin, end, step = columns.indices(self.shape[1])
        if step != 1:
            raise IndexError("columns are read in runs: give a slice without a step.")

        taken = []
        for part, low in zip(self.parts, self._bounds[:-1], strict=True):
            high = low + part.shape[1]
            if low < end and high > begin:
                taken.append(part[rows, max(begin, low) - low : min(end, high) - low])

        if not taken:
            return np.array(self.parts[0][rows, :0])

        return np.concatenate(taken, axis=-1)


def _key(model: StreamedRidge, rows: np.ndarray, ranges: list[list[int]]) -> str:
    """SHA-256 of the map, the rows and the ranges."""
    tensors, meta = model.state()
    digest = hashlib.sha256(json.dumps([meta, ranges, list(rows.shape)], sort_keys=True).encode())

    for array in (*tensors.values(), rows):
        digest.update(np.ascontiguousarray(array).data.cast("B"))

    return digest.hexdigest()


def _damaged(path: Path, what: str) -> str:
    return f"{path} is not what was written ({what}). Delete it and run the job of that range again."
