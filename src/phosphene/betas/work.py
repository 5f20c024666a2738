"""Finished parts on disk, so that work that was stopped goes on where it was and ends with the same bytes.

A part has its whole content or is not there: it is written under another name and renamed. All parts of a folder answer one
question, whose digest lies in ``key.json``; the same call finds them again, and any other call throws them away.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from phosphene.errors import ConfigError, PhospheneWarning
from phosphene.io import atomic
from phosphene.io.inside import must_stay_inside
from phosphene.io.npz_file import read_npz
from phosphene.io.reading import open_npy
from phosphene.io.run_folder import LOCK, RunFolder

_KEY = "key.json"


class WorkFolder:
    """A folder of finished parts that all belong to one question; see :func:`open_work`.

    Parameters
    ----------
    folder : Path
        held by this process
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of one part, whole or not at all.

        Parameters
        ----------
        name : str
            of the part
        arrays : mapping
            its arrays by name
        """
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]  # no array is named allow_pickle
        atomic.write_bytes(self.folder / f"{name}.npz", buffer.getvalue())

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Arrays of a part; None when it is not there, or cannot be read and so is made again."""
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            return None

        try:
            return read_npz(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # A disk that filled up or a machine that lost power; what was in it can be computed again.
            path.unlink(missing_ok=True)
            return None

    def array(self, name: str) -> np.ndarray | None:
        """A large array as a memory map; None when it is not there or not whole."""
        path = self.folder / f"{name}.npy"
        try:
            return open_npy(path)
        except (OSError, ValueError):
            return None

    def keep_array(self, name: str, values: np.ndarray) -> np.ndarray:
        """Write a large array and open it as a memory map.

        Parameters
        ----------
        name : str
            of the part
        values : ndarray
            any shape; written in C order, so that the last axis lies together

        Returns
        -------
        ndarray
            the same values on disk, read only
        """
        path = self.folder / f"{name}.npy"
        must_stay_inside(path)
        part = atomic.partial_name(path)

        with atomic.explained_write(path):
            try:
                with open(part, "wb") as handle:
                    np.save(handle, np.ascontiguousarray(values), allow_pickle=False)
                    handle.flush()
                    os.fsync(handle.fileno())  # or the new name may reach the disk before the values do

                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)

        return open_npy(path)

    def remove(self) -> None:
        """Throw everything away: it is finished."""
        must_stay_inside(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def open_work(folder: str | Path, key: str) -> Iterator[WorkFolder]:
    """Hold a folder of unfinished work, begun by an earlier process or now.

    Parameters
    ----------
    folder : str or Path
        to hold; left there when the block ends with an error
    key : str
        digest of everything the parts depend on; parts of another key are thrown away, and a warning says so

    Raises
    ------
    ConfigError
        another process works there, or the folder holds something else
    """
    folder = Path(folder)
    with RunFolder(folder).locked("betas"):
        earlier = _key(folder)
        others = [path for path in folder.iterdir() if path.name != LOCK]
        if earlier is None and others:
            raise ConfigError(f"{folder} is needed for unfinished work, but holds {others[0].name}; move that away.")

        if earlier not in (None, key):
            warnings.warn(
                f"{folder} was begun with other files or settings; it is begun anew.", PhospheneWarning, stacklevel=4
            )

            for path in others:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

        atomic.write_text(folder / _KEY, json.dumps({"key": key}))
        yield WorkFolder(folder)


def _key(folder: Path) -> str | None:
    """Key that a folder was begun with; None where there is none to be read."""
    try:
        return str(json.loads((folder / _KEY).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def work_key(parts: Mapping[str, object]) -> str:
    """SHA-256 of what the work depends on.

    Parameters
    ----------
    parts : mapping
        by name; what JSON does not know is written as text
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
