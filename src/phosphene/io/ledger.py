"""A ledger of every look at a test set: lines are added, never changed, and each vouches for the one before.

Somebody who tries ten configurations and keeps the one with the best test score has tuned on the test set, and nothing
in the tenth run shows it. So each evaluation leaves a line in its run folder, before its scores are written.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phosphene.io import atomic

FILE = "ledger.jsonl"

# What the first line has for a line before it.
_START = "start"


@dataclass(frozen=True)
class LedgerEntry:
    """One evaluation of a test set.

    Attributes
    ----------
    data, split, config : str
        digests of what was evaluated: data, which ids test, and the configuration
    split_name : str
        for people
    time : str
        when
    before : str
        SHA-256 of the line before, ``start`` in the first
    shown : str
        digest of what was looked at, of decoded pictures and predicted responses: the same seen twice is one look
    pictures : str
        sketch of the test pictures, see `phosphene.io.looks`
    sweep : str
        digest of the sweep that the run is part of; empty for a run of its own
    """

    data: str
    split: str
    config: str
    split_name: str = "test"
    time: str = ""
    before: str = _START
    shown: str = ""
    pictures: str = ""
    sweep: str = ""


@dataclass(frozen=True)
class Ledger:
    """Looks in the order they were taken, and whether every line still vouches for the one before.

    Attributes
    ----------
    looks : tuple of LedgerEntry
        oldest first
    is_whole : bool
        False where a line was changed, moved or taken out. Lines taken off the end, and a ledger written anew from its
        beginning, cannot be seen: this is a reminder for honest people, and no seal
    """

    looks: tuple[LedgerEntry, ...] = ()
    is_whole: bool = True


def append(folder: Path, look: LedgerEntry) -> None:
    """Add one line to the ledger of a run. Nothing that stands there is touched.

    What was looked at before is no new look: an evaluation that was stopped and is done again leaves one line.

    Parameters
    ----------
    folder : Path
        of the run
    look : LedgerEntry
        the evaluation; its `time` and `before` are filled in here

    Raises
    ------
    MachineError
        When the ledger cannot be read or written; scores are not written then either.
    """
    lines = _lines(folder)
    if look.shown and any(known.shown == look.shown for known in map(parse_look, lines) if known is not None):
        return

    if lines:
        before = _sha(lines[-1])
    else:
        before = _START

    record = {**asdict(look), "time": time.strftime("%Y-%m-%dT%H:%M:%S"), "before": before}
    file = folder / FILE

    # Bytes and not lines: what stands there stays as it is, also where it is damaged.
    with atomic.explained_write(file):
        if file.is_file():
            there = file.read_bytes()
        else:
            there = b""

    # The whole file anew, in one moment: half a line, left by a full disk, would look like a line that was changed.
    line = json.dumps(record, sort_keys=True) + "\n"
    atomic.write_bytes(file, there + line.encode("utf-8"))


def read(folder: Path) -> Ledger:
    """The ledger of a run; empty where there is none, not whole where lines were changed or taken out.

    Parameters
    ----------
    folder : Path
        of the run

    Returns
    -------
    Ledger
        with every line that can be read
    """
    looks = []
    before = _START
    is_whole = True
    for line in _lines(folder):
        look = parse_look(line)
        # Against the line as it stands in the file, not as it is understood: a blank added to it counts as a change.
        is_whole &= look is not None and look.before == before
        before = _sha(line)
        if look is not None:
            looks.append(look)

    return Ledger(tuple(looks), is_whole)


def _lines(folder: Path) -> list[str]:
    """Lines of the ledger that are not blank; none where there is no ledger."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def parse_look(line: str) -> LedgerEntry | None:
    """The entry of a line.

    Parameters
    ----------
    line : str
        JSON

    Returns
    -------
    LedgerEntry or None
        None where the line was damaged; keys of a later version are passed over, those an earlier one lacked are empty
    """
    try:
        record: dict[str, Any] = json.loads(line)
        required = {key: str(record[key]) for key in ("data", "split", "config", "split_name", "time", "before")}
        added = {key: str(record.get(key, "")) for key in ("shown", "pictures", "sweep")}
        return LedgerEntry(**required, **added)
    except (ValueError, KeyError, TypeError):
        return None


def _sha(line: str) -> str:
    """What the next line says of this one."""
    return hashlib.sha256(line.encode("utf-8")).hexdigest()
