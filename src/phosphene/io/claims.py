"""Claims: of several processes that could do one piece of work, exactly one does.

A claim is a file that one process holds locked, and in which it says who it is. The lock is the system's own (flock, by way
of filelock), which drops it when the holder ends, however it ends: what a killed process leaves behind holds up nobody on its
machine, and neither clocks nor process numbers have to be believed.

Not every network file system passes locks on to other machines (NFS under Linux does; Lustre does when mounted with
``flock``), so a claim that names another machine is respected whether it is locked or not. One that a lost machine left must
be deleted by hand, and the message of whoever meets it says so. Where there is no flock at all, filelock warns and falls back
to a file whose existence is the claim.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from phosphene.io import atomic
from phosphene.io.inside import must_stay_inside, plain_file


@contextmanager
def claimed(claim: Path, purpose: str = "") -> Iterator[bool]:
    """Whether this process got the claim, for as long as the block lasts; never waits.

    Parameters
    ----------
    claim : Path
        a file that belongs to this purpose alone, in a folder that exists; gone after the block
    purpose : str, default ""
        what for, for the message of a process that finds it taken

    Yields
    ------
    bool
        whether the work is this process's to do

    Raises
    ------
    MachineError
        When the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    # A lock is written in place, and a link or a second name would lead that to another file.
    must_stay_inside(claim)
    plain_file(claim)

    lock = FileLock(claim)
    is_native = True
    try:
        with atomic.explained_write(claim):
            lock.acquire(blocking=False)
            is_native = type(lock) is FileLock  # filelock changes the class where it falls back
            # The lock is ours, but the file names another machine, whose lock may not reach this one: its claim stands.
            if is_native and holder(claim).get("host", socket.gethostname()) != socket.gethostname():
                raise Timeout(str(claim))
            if is_native:
                record = {"pid": os.getpid(), "host": socket.gethostname(), "purpose": purpose}
                claim.write_text(json.dumps(record), encoding="utf-8")
    except Timeout:
        lock.release()
        yield False
        return
    except BaseException:
        lock.release()
        raise

    try:
        yield True
    finally:
        if is_native:  # while it is held: who opened the file in this moment finds that it has no name, and tries anew
            claim.unlink(missing_ok=True)

        lock.release()


def holder(claim: Path) -> dict[str, Any]:
    """Who holds a claim: pid, host and purpose; empty when nobody does or that cannot be read.

    Parameters
    ----------
    claim : Path
        which may be absent, or be taken or dropped at this moment

    Returns
    -------
    dict of str to Any
        for a message and not to decide by: the lock decides
    """
    # Without the lock, as whoever asks did not get it. What is read may be half written, hence no trust in it.
    text = ""
    with suppress(OSError):
        text = claim.read_text(encoding="utf-8")

    with suppress(ValueError):
        return dict(json.loads(text))

    pid, _, rest = text.partition("\n")  # where filelock fell back, it wrote the file
    if pid.isdecimal():
        return {"pid": int(pid), "host": rest.partition("\n")[0]}
    return {}
