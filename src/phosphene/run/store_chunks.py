"""Chunks of a row store: which rows are computed, hashed and marked together, and which are done. See :mod:`store`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.errors import ModelError
from phosphene.run import atomic
from phosphene.run.folder import read_json
from phosphene.run.store_files import CHUNKS, CLAIMS, ROWS, VERSION


class Chunks:
    """The chunks of one store, by number.

    Parameters
    ----------
    folder : of the store
    record : contents of its store.json
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder, self.key, self.size, self.n = folder, record["key"], record["chunk"], record["n"]

    def __len__(self) -> int:
        return -(-self.n // self.size)

    def rows(self, number: int) -> range:
        """Rows of a chunk; the last may have fewer."""
        return range(number * self.size, min((number + 1) * self.size, self.n))

    def number(self, rows: range) -> int:
        """Which chunk these rows are. Raises ValueError where they are none."""
        number = rows.start // self.size
        if rows != self.rows(number) or not rows:
            raise ValueError(f"rows {rows.start} to {rows.stop} are no chunk of this store; take them from missing().")
        return number

    def claim(self, number: int) -> Path:
        """The file by which a worker keeps others from a chunk."""
        return self.folder / CLAIMS / f"{number:06d}"

    # -- what is done ----------------------------------------------------------------------------------------------

    def _mark(self, number: int) -> Path:
        return self.folder / CHUNKS / f"{number:06d}.json"

    def is_done(self, number: int) -> bool:
        """Whether a chunk is marked."""
        return self._mark(number).is_file()

    def unmark(self, number: int) -> None:
        """Count a chunk as missing again."""
        self._mark(number).unlink(missing_ok=True)

    def done(self) -> list[int]:
        """Numbers of the marked chunks."""
        with atomic.explained(self.folder):
            there = {entry.name for entry in os.scandir(self.folder / CHUNKS)}
        return [c for c in range(len(self)) if self._mark(c).name in there]

    def missing(self) -> list[range]:
        """Rows of the chunks that are not marked."""
        return [self.rows(c) for c in sorted(set(range(len(self))) - set(self.done()))]

    def problem(self, number: int, array: np.ndarray) -> str | None:
        """Why the rows of a chunk are not what was written, for people; None where they are.

        Parameters
        ----------
        array : (n, ...) of all rows
        """
        rows, mark = self.rows(number), self._mark(number)
        if not mark.is_file():
            return "are not computed yet"
        try:
            known = read_json(mark)
        except ModelError:
            return f"have a damaged mark ({mark.name})"
        if known.get("key") != self.key:
            return f"belong to another store, by their mark ({mark.name})"
        if (known.get("first"), known.get("end")) != (rows.start, rows.stop):
            return f"have a mark ({mark.name}) for rows {known.get('first')} to {known.get('end')}"
        actual = _sha256(np.ascontiguousarray(array[rows.start : rows.stop]))
        if actual != known.get("sha256"):
            return f"are damaged: SHA-256 {actual[:12]}..., {str(known.get('sha256'))[:12]}... when written"
        return None

    def write(self, number: int, stored: np.ndarray, offset: int) -> None:
        """Put rows on the disk and mark them done, in this order.

        Parameters
        ----------
        stored : (k, ...) contiguous, as they are stored
        offset : bytes before the first row of the file

        Raises
        ------
        MachineError
            When the disk is full; the chunk then stays missing.
        """
        rows, data = self.rows(number), stored.data.cast("B")
        self.unmark(number)
        start = offset + rows.start * stored[0].nbytes
        with atomic.explained(self.folder / ROWS):
            # Not through a memory map: a full disk would kill the process there instead of raising.
            handle = os.open(self.folder / ROWS, os.O_WRONLY)
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(handle, data[written:], start + written)
                os.fsync(handle)
            finally:
                os.close(handle)
        mark = {"version": VERSION, "key": self.key, "first": rows.start, "end": rows.stop, "sha256": _sha256(stored)}
        atomic.write_text(self._mark(number), json.dumps(mark) + "\n")


def _sha256(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.data.cast("B")).hexdigest()
