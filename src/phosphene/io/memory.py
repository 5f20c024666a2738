"""How much memory is there, and how much a piece of work took. Read from the kernel; nothing to install."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from phosphene.errors import MachineError


def available() -> int | None:
    """Bytes that can still be taken without swapping, also inside a container; None where the system does not say.

    Returns
    -------
    int or None
        the lesser of what the machine and what the container has left
    """
    # A container sees the memory of the whole machine in /proc, and is killed at a limit of its own: the lesser counts.
    bounds = []
    with suppress(OSError, ValueError, IndexError):
        bounds.append(_of_machine())
    with suppress(OSError, ValueError):
        bounds.append(_of_container())

    # Not Linux. Free pages only, without those that the system would give back: too little rather than too much.
    if not bounds:
        with suppress(OSError, ValueError, AttributeError):
            bounds.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))

    return min(bounds, default=None)


def _of_machine() -> int:
    """Bytes that the kernel reckons could be taken without swapping; free ones and caches it would give up."""
    text = Path("/proc/meminfo").read_text()
    return int(text.split("MemAvailable:")[1].split()[0]) * 1024  # the file is in kB


def _of_container() -> int:
    """Bytes left under the limit of a control group. Raises ValueError where there is no limit."""
    group = Path("/sys/fs/cgroup")
    limit = int((group / "memory.max").read_text())  # "max" where there is none
    used = int((group / "memory.current").read_text())
    reclaimable = 0  # files that were read and are only kept in case they are read again

    with suppress(OSError, ValueError, IndexError):
        reclaimable = int((group / "memory.stat").read_text().split("inactive_file ")[1].split()[0])

    # The three files are read one after the other, while others take and give memory; so never below zero.
    return max(0, limit - used + reclaimable)


def require_memory(needed: int, what: str, advice: str) -> None:
    """Refuse work that this machine's memory cannot hold, before it starts.

    Parameters
    ----------
    needed : int
        bytes, by arithmetic
    what : str
        that need them, as the subject of a sentence
    advice : str
        what to lower

    Raises
    ------
    MachineError
        When more is needed than is available. Where the system does not say how much is, nothing is refused.
    """
    free = available()
    if free is None or needed <= free:
        return

    # "The voxels need", "a network needs".
    if what.endswith("s"):
        need = "need"
    else:
        need = "needs"

    raise MachineError(
        f"{what} {need} {size(needed)} of memory by arithmetic, but {size(free)} are available on this machine. {advice}"
    )


def size(n: float) -> str:
    """Bytes as a person would say them.

    Parameters
    ----------
    n : float
        bytes

    Returns
    -------
    str
        with a unit of powers of a thousand, as disks have them

    Examples
    --------
    >>> size(312), size(45_600_000), size(12.34e9)
    ('312 B', '46 MB', '12.3 GB')
    """
    if n >= 1e9:
        return f"{n / 1e9:.1f} GB"
    if n >= 1e6:
        return f"{n / 1e6:.0f} MB"
    if n >= 1e3:
        return f"{n / 1e3:.0f} kB"
    return f"{n:.0f} B"


def resident() -> int:
    """Bytes of memory this process holds now; 0 where the system does not say.

    Returns
    -------
    int
        of physical memory, with pages of files that are mapped and were touched
    """
    with suppress(OSError, ValueError, IndexError):
        n_pages = int(Path("/proc/self/statm").read_text().split()[1])  # the second number; the first is address space
        return n_pages * os.sysconf("SC_PAGE_SIZE")
    return 0


class Peak:
    """The most memory this process takes while the block runs, beyond what it held before.

    Attributes
    ----------
    bytes : int or None
        the figure, after the block; None where the system cannot tell (the record was set before and cannot be reset)
    """

    def __init__(self) -> None:
        self.bytes: int | None = None

    def __enter__(self) -> Self:
        # The kernel keeps one record, the highest figure since the process began. Where it cannot be reset, a block that
        # stays below the record leaves no trace, and nothing is claimed about it.
        _trim()
        self._known = _reset()
        self._before = resident()
        self._most = 0
        self._record = _highest()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold()
        if self._known or _highest() > self._record:
            self.bytes = self._most
        else:
            self.bytes = None

    def hold(self) -> int:
        """Stop counting; bytes held now beyond what was held at the start. Go on with `go_on`.

        Returns
        -------
        int
            bytes held at this moment, beyond those at the start, 0 or more
        """
        if self._known or _highest() > self._record:
            self._most = max(self._most, _highest() - self._before)

        self._held = resident()
        return max(0, self._held - self._before)

    def go_on(self) -> None:
        """Count again, as if what was taken since `hold` and not given back were not there."""
        # What came since `hold` and stayed is moved under the floor from which is counted.
        self._before += resident() - self._held
        self._known = _reset()
        self._record = _highest()


def _trim() -> None:
    """Give back what is free but kept, which would hide what the next piece of work takes; where the C library can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset() -> bool:
    """Let the kernel forget the highest figure so far; whether it can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): 5 resets the peak of resident memory
        return True
    return False


def _highest() -> int:
    """Most bytes of physical memory this process held since the start, or since `_reset`."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

    import resource  # absent on Windows, which has no /proc either

    # Bytes on a Mac, kilobytes elsewhere; getrusage was never agreed on.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
        return most
    return most * 1024
