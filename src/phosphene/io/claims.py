"""Claims: of several processes that could do one piece of work, exactly one does.

A claim is a file that only one process can create. It names its holder, so that the claim of a process that died is
taken over. No file locking of the system is needed, which network file systems often lack.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from phosphene.io import atomic
from phosphene.io.folder import is_alive, read_lock, start_of


def holder(claim: Path) -> dict[str, Any]:
    """Who holds a claim: pid, host, started; empty when nobody does."""
    if claim.exists():
        return read_lock(claim)

    return {}


@contextmanager
def claimed(claim: Path) -> Iterator[bool]:
    """Whether this process got the claim, for as long as the block lasts.

    The claim of a dead process of this machine is taken over; one of another machine cannot be asked and is respected.

    Raises
    ------
    MachineError
        When the folder cannot be written.
    """
    mine = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": start_of(os.getpid()),
        "token": uuid.uuid4().hex,
    }

    if not _take(claim, mine):
        yield False
        return

    try:
        yield True
    finally:
        if holder(claim).get("token") == mine["token"]:
            claim.unlink(missing_ok=True)


def _take(claim: Path, mine: Mapping[str, Any]) -> bool:
    for _ in range(2):
        with atomic.explained(claim):
            try:
                _appear(claim, json.dumps(mine))
            except FileExistsError:
                found = read_lock(claim)
                if is_alive(found):
                    return False

                # Taken away by renaming: of two processes that find it dead, one succeeds. A fresh claim caught by
                # mistake goes back to its place.
                grave = atomic.partial_name(claim)
                with suppress(FileNotFoundError):
                    os.rename(claim, grave)
                    if read_lock(grave) != found:
                        with suppress(OSError):
                            os.link(grave, claim)

                    grave.unlink(missing_ok=True)

                continue

        return True

    return False


def _appear(claim: Path, text: str) -> None:
    """Make a claim that is complete when it can first be seen: an empty one would look like that of a dead process.

    Raises FileExistsError when it is there. File systems without hard links get it written after it was made.
    """
    whole = atomic.partial_name(claim)
    try:
        whole.write_text(text, encoding="utf-8")
        os.link(whole, claim)
    except FileExistsError:
        raise
    except OSError:
        with os.fdopen(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w") as file:
            file.write(text)
    finally:
        whole.unlink(missing_ok=True)
