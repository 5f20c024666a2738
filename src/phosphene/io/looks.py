"""The memory of looks: which test pictures this person has evaluated before, whatever became of the run.

A ledger in a run's folder goes with the folder. So each look is remembered in two more places: the user's own state folder, and
beside the data. A look is known by its test pictures, by a sketch of their digests, so that another region of the brain, one
trial fewer, another folder or another name make no new test set of the same pictures.

Nothing but digests, names of splits and times is kept. Delete the files to forget.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout

from phosphene.errors import PhospheneError
from phosphene.io import atomic
from phosphene.io.ledger import LedgerEntry, parse_look

STATE_VARIABLE = "PHOSPHENE_STATE"
FILE = "looks.jsonl"
BESIDE_DATA = ".phosphene-looks.jsonl"
SKETCH = 64  # digests kept of a test set: two sketches tell the shared part of two sets to about 1 / sqrt(64)
MOST = 5000  # looks kept in one file; the oldest go first
_SAME = 0.5  # shared part of two sets of pictures from which on they are the same test set
_PATIENCE = 5.0  # seconds to wait for another process


def state_folder() -> Path:
    """Where a person's looks are remembered: the variable PHOSPHENE_STATE, else the user's state folder."""
    folder = os.environ.get(STATE_VARIABLE)
    if folder:
        return Path(folder)

    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "phosphene"


def memories(data: Path | None) -> list[Path]:
    """Files in which looks are remembered.

    Parameters
    ----------
    data : Path or None
        folder or file of the data; None where they lie nowhere, as those of the lab

    Returns
    -------
    list of Path
        which need not exist
    """
    files = [state_folder() / FILE]
    if data is not None and data.exists():
        if data.is_dir():
            files.append(data / BESIDE_DATA)
        else:
            files.append(data.parent / BESIDE_DATA)

    return files


def sketch_of(digests: Iterable[str]) -> str:
    """A set of digests in a few: its smallest ones.

    Parameters
    ----------
    digests : iterable of str
        one per picture

    Returns
    -------
    str
        at most `SKETCH` digests of 12 digits, in order

    References
    ----------
    Broder 1997, "On the resemblance and containment of documents".
    """
    smallest = sorted({digest[:12] for digest in digests})[:SKETCH]
    return " ".join(smallest)


def is_same_set(a: str, b: str) -> bool:
    """Whether two sketches are of sets of which at least half is shared.

    Parameters
    ----------
    a, b : str
        of `sketch_of`

    Returns
    -------
    bool
        False where either is empty

    Examples
    --------
    >>> is_same_set("0a 1b 2c", "0a 1b 2c"), is_same_set("0a 1b 2c", "3d 4e")
    (True, False)
    """
    first = set(a.split())
    second = set(b.split())
    if not first or not second:
        return False

    # The smallest of both together are a fair sample of the union; those in both sketches are in both sets.
    union = sorted(first | second)[:SKETCH]
    shared = [digest for digest in union if digest in first and digest in second]
    return len(shared) >= _SAME * len(union)


def keep_look(look: LedgerEntry, files: Sequence[Path]) -> None:
    """Add a look to each memory that can be written; one that is there already stays as it is.

    Parameters
    ----------
    look : LedgerEntry
        with `shown` and `pictures`
    files : sequence of Path
        of `memories`
    """
    line = json.dumps(asdict(replace(look, time=time.strftime("%Y-%m-%dT%H:%M:%S"))), sort_keys=True)

    for file in files:
        # A folder of data that may not be written is no failure: the other places remember.
        with suppress(OSError, Timeout, PhospheneError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{file}.lock", timeout=_PATIENCE):
                lines = _lines(file)
                if any(known.shown == look.shown for known in map(parse_look, lines) if known is not None):
                    continue

                atomic.write_text(file, "\n".join([*lines, line][-MOST:]) + "\n")


def remembered(pictures: str, files: Sequence[Path]) -> list[LedgerEntry]:
    """Looks at the same test pictures.

    Parameters
    ----------
    pictures : str
        a sketch
    files : sequence of Path
        of `memories`

    Returns
    -------
    list of LedgerEntry
        each once, oldest first
    """
    looks: dict[str, LedgerEntry] = {}
    for file in files:
        for look in map(parse_look, _lines(file)):
            if look is not None and is_same_set(look.pictures, pictures):
                looks.setdefault(look.shown, look)

    return sorted(looks.values(), key=lambda look: look.time)


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []

    return [line for line in text.splitlines() if line.strip()]
