"""Claims: of several processes that could do one piece of work, exactly one does.

A claim is a file that one process holds locked, and in which it says who it is. The lock is the system's own (flock, by way
of filelock), which drops it when the holder ends, however it ends: what a killed process leaves behind holds up nobody on its
machine, and neither clocks nor process numbers have to be believed.

Not every network file system passes locks on to other machines (NFS under Linux does; Lustre does when mounted with
``flock``). So a claim is a lease as well: while it is held, a thread touches the file every `BEAT` seconds, and one that
another machine left and that nobody touched for `LEASE` seconds is taken over. Machines are told apart by the identity of
their boot and not by name, and the age of a claim is measured on the clock of the file system, so that neither equal names
nor clocks that disagree matter. What no lease can know: a holder that is suspended for longer than its lease and then wakes up
goes on, beside the one that took over.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from phosphene.io import atomic
from phosphene.io.boot import boot_identity
from phosphene.io.inside import must_stay_inside, plain_file

BEAT = 20.0
"""Seconds between two signs of life of a holder."""

LEASE = 180.0
"""Seconds without a sign of life after which a holder on another machine counts as gone: nine beats."""


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

    token = uuid.uuid4().hex
    lock = FileLock(claim)
    try:
        with atomic.explained_write(claim):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                # Where filelock fell back to a file whose existence is the lock, a lost holder's lies there for good.
                if type(lock) is FileLock or not _has_expired(claim):
                    raise

                claim.unlink(missing_ok=True)
                lock.acquire(blocking=False)

            # The lock is ours, but the file names another machine, whose lock may not reach this one.
            if _is_elsewhere(holder(claim)) and not _has_expired(claim):
                raise Timeout(str(claim))

            record = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "boot": boot_identity(),
                "token": token,
                "purpose": purpose,
            }
            if _job():
                record["job"] = _job()

            claim.write_text(json.dumps(record), encoding="utf-8")
    except Timeout:
        lock.release()
        yield False
        return
    except BaseException:
        lock.release()
        raise

    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(claim, token, ended), daemon=True)
    beating.start()

    try:
        yield True
    finally:
        ended.set()
        beating.join()

        # While it is held: who opened the file in this moment finds that it has no name, and tries anew. One that somebody
        # else holds by now, because this process was suspended for longer than its lease, is not ours to remove.
        if holder(claim).get("token") == token:
            with suppress(OSError):
                claim.unlink(missing_ok=True)

        lock.release()


def _beat(claim: Path, token: str, ended: threading.Event) -> None:
    """Touch a claim until the work has ended."""
    while not ended.wait(BEAT):
        with suppress(OSError):
            if holder(claim).get("token") == token:
                os.utime(claim)


def _is_elsewhere(record: dict[str, Any]) -> bool:
    """Whether a claim was left by another machine, where this one cannot see if its holder lives."""
    # The scheduler has started this very job anew, so what it left elsewhere has ended.
    if _job() and record.get("job") == _job():
        return False

    if "boot" in record:
        return record["boot"] != boot_identity()

    return record.get("host", socket.gethostname()) != socket.gethostname()  # of an earlier version


def _job() -> str:
    """Number of this job at the scheduler, one for each element of an array; empty outside of one."""
    return os.environ.get("SLURM_JOB_ID", "")


def _has_expired(claim: Path) -> bool:
    """Whether nobody has touched a claim for longer than a lease, on the clock of its file system."""
    try:
        touched = claim.stat().st_mtime
        with tempfile.NamedTemporaryFile(dir=claim.parent, prefix=f"{atomic.PARTIAL}clock-") as probe:
            now = os.stat(probe.name).st_mtime
    except OSError:
        return False

    return now - touched > LEASE


def holder(claim: Path) -> dict[str, Any]:
    """Who holds a claim: pid, host, boot, token and purpose; empty when nobody does or that cannot be read.

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
