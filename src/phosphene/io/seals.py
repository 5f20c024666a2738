"""Seals: what the files of a folder held when the verb that made them was done.

A verb that builds on another's files asks whether they are still those: a decoded picture that was exchanged by hand, or a
score that was edited, is named and not scored or printed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from phosphene.errors import ModelError
from phosphene.io import atomic

SEAL = "sealed.json"
_BLOCK = 1 << 20  # bytes read at a time


def seal_folder(folder: Path) -> None:
    """Write down the SHA-256 of each file that lies in a folder, not of those in folders below it.

    Parameters
    ----------
    folder : Path
        finished but for its seal
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SEAL)
    seal_texts(folder, {file.name: _sha256(file) for file in files})


def seal_texts(folder: Path, digests: Mapping[str, str]) -> None:
    """Write a seal of files whose digests are known already.

    Parameters
    ----------
    folder : Path
        that holds them, or will
    digests : mapping of str to str
        name of a file to the SHA-256 of its bytes
    """
    atomic.write_text(folder / SEAL, json.dumps(dict(digests), indent=1) + "\n")


def broken_seals(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """Which files of a folder are not what they were when it was sealed.

    Parameters
    ----------
    folder : Path
        a folder that may be sealed
    names : iterable of str, optional
        the files asked about; all that were sealed by default

    Returns
    -------
    list of str
        names of files that changed or are gone; empty where nothing is sealed, as by earlier versions
    """
    try:
        digests = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return [SEAL]

    if not isinstance(digests, dict):
        return [SEAL]

    if names is None:
        asked = list(digests)
    else:
        asked = [name for name in names if name in digests]

    return [name for name in asked if not (folder / name).is_file() or _sha256(folder / name) != digests[name]]


def require_unbroken(folder: Path, again: str) -> None:
    """Raise ModelError where a file of a sealed folder has changed.

    Parameters
    ----------
    folder : Path
        a folder that may be sealed
    again : str
        the command that makes it anew

    Raises
    ------
    ModelError
        With the names of the files, and `again`.
    """
    broken = broken_seals(folder)
    if broken:
        raise ModelError(
            f"{', '.join(broken)} in {folder} changed after it was written, so what is made of it would not be this run's. "
            f"Make it anew: {again}"
        )


def _sha256(file: Path) -> str:
    h = hashlib.sha256()
    with open(file, "rb") as handle:
        while block := handle.read(_BLOCK):
            h.update(block)

    return h.hexdigest()
