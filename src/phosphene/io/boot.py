"""What tells this machine, since it was started, from every other."""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def boot_identity() -> str:
    """A text that no other machine has, whatever they are called, and that this one loses when it is started anew.

    Returns
    -------
    str
        of letters, digits and hyphens; the same for all containers of one machine, which share its processes' locks
    """
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    return f"{socket.gethostname()}-{uuid.getnode():x}"  # not Linux


def is_alive(pid: int) -> bool:
    """Whether a process of this machine with that number exists.

    Parameters
    ----------
    pid : int
        its number

    Returns
    -------
    bool
        True too where it belongs to somebody else
    """
    if pid <= 0:
        return False

    if os.name == "nt":  # where signal 0 would end the process
        return True

    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True

    return True
