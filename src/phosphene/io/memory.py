"""How much memory is there, and how much a piece of work took. Read from the kernel; nothing to install."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from phosphene.errors import MachineError, PhospheneError


def available(root: Path = Path("/")) -> int | None:
    """Bytes that can still be taken without swapping, under every limit there is; None where the system does not say.

    Parameters
    ----------
    root : Path, optional
        where ``proc`` and the control groups are found

    Returns
    -------
    int or None
        the least of what the machine, each control group this process is in (those of a container, or of a job of SLURM
        and its steps), and the process's own limits have left
    """
    least = min(_bounds(root), default=None)
    if least is None:
        return None
    return least[0]


def _bounds(root: Path) -> list[tuple[int, str]]:
    """Bytes that are left, and under which limit."""
    # A container or a job sees the memory of the whole machine in /proc, and is killed at a limit of its own: the least counts.
    bounds = []
    with suppress(OSError, ValueError, IndexError):
        bounds.append((_of_machine(root), "on this machine"))

    bounds += _of_groups(root)
    bounds += _of_process(root)

    # Not Linux. Free pages only, without those that the system would give back: too little rather than too much.
    if not bounds:
        with suppress(OSError, ValueError, AttributeError):
            bounds.append((os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "on this machine"))

    return bounds


def _of_machine(root: Path) -> int:
    """Bytes that the kernel reckons could be taken without swapping; free ones and caches it would give up."""
    text = (root / "proc/meminfo").read_text()
    return int(text.split("MemAvailable:")[1].split()[0]) * 1024  # the file is in kB


def _of_process(root: Path) -> list[tuple[int, str]]:
    """Bytes left under the limits of this process, as ``ulimit`` and batch systems set them."""
    try:
        import resource  # absent on Windows

        status = (root / "proc/self/status").read_text()
    except (ImportError, OSError):
        return []

    bounds = []
    for limit, taken, option in ((resource.RLIMIT_AS, "VmSize:", "-v"), (resource.RLIMIT_DATA, "VmData:", "-d")):
        most, _ = resource.getrlimit(limit)
        if most == resource.RLIM_INFINITY:
            continue

        with suppress(ValueError, IndexError):
            used = int(status.split(taken)[1].split()[0]) * 1024  # the file is in kB
            bounds.append((max(0, most - used), f"under this process's limit (ulimit {option})"))

    return bounds


# Of the two versions: files of the limits, of what is taken, and of what was read and could be given up again.
_GROUP_FILES = {
    "cgroup2": (("memory.max", "memory.high"), "memory.current", "inactive_file "),
    "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file "),
}


def _of_groups(root: Path) -> list[tuple[int, str]]:
    """Bytes left under the limit of every control group this process is in, from its own up to the outermost to be seen."""
    bounds = []
    for kind, top, group in _groups(root):
        limits, usage, reclaimable_key = _GROUP_FILES[kind]
        for place in (group, *group.parents):
            for name in limits:
                with suppress(OSError, ValueError):
                    limit = int((place / name).read_text())  # "max" where there is none
                    used = int((place / usage).read_text())
                    reclaimable = _reclaimable(place, reclaimable_key)

                    # The files are read one after the other, while others take and give memory; so never below zero.
                    left = max(0, limit - used + reclaimable)
                    bounds.append((left, f"under the limit of this job or container ({place / name})"))

            if place == top:
                break

    return bounds


def _reclaimable(place: Path, key: str) -> int:
    """Bytes of files that were read and are only kept in case they are read again."""
    with suppress(OSError, ValueError, IndexError):
        for line in (place / "memory.stat").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1])
    return 0


def _groups(root: Path) -> list[tuple[str, Path, Path]]:
    """Version of the control groups that count memory, where they are mounted, and the folder of this process's own."""
    try:
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []

    own = {}
    for line in lines:
        number, controllers, name = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            own["cgroup2"] = name
        elif "memory" in controllers.split(","):
            own["cgroup"] = name

    groups = []
    for mount in mounts:
        front, _, back = mount.partition(" - ")
        fields = front.split()
        if len(fields) < 5 or not back:
            continue

        kind, *_, options = back.split()
        if kind not in own or (kind == "cgroup" and "memory" not in options.split(",")):
            continue

        # What is mounted may be a part of the tree, as in a container; what the process is in is named from the whole.
        top = root / fields[4].replace("\\040", " ").lstrip("/")
        base = fields[3].rstrip("/")
        name = own[kind]
        if name == base or name.startswith(f"{base}/"):
            name = name[len(base) :]

        group = top / name.strip("/")
        if ".." in group.parts or not group.is_dir():
            group = top

        groups.append((kind, top, group))

    return groups


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
    least = min(_bounds(Path("/")), default=None)
    if least is None or needed <= least[0]:
        return

    free, where = least

    # "The voxels need", "a network needs".
    if what.endswith("s"):
        need = "need"
    else:
        need = "needs"

    raise MachineError(
        f"{what} {need} {size(needed)} of memory by arithmetic, but {size(free)} are available {where}. {advice}"
    )


def is_exhausted(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, however a library says it; also where it is the cause of another.

    Parameters
    ----------
    error : BaseException or None
        what was raised

    Returns
    -------
    bool
        False for errors of phosphene, which have said what they are

    Examples
    --------
    >>> is_exhausted(MemoryError()), is_exhausted(OSError(12, "Cannot allocate memory")), is_exhausted(OSError(2, "none"))
    (True, True, False)
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, PhospheneError):
            return False
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True

        text = str(error).lower()
        if isinstance(error, RuntimeError | OSError) and any(words in text for words in _EXHAUSTED):
            return True
        error = error.__cause__ or error.__context__

    return False


_EXHAUSTED = ("allocate memory", "not enough memory", "out of memory", "unable to allocate", "memory allocation failed")
"""What libraries write that have no error of their own for it: torch, HDF5."""


def exhausted(what: str, error: BaseException) -> MachineError:
    """The error for memory that ran out.

    Parameters
    ----------
    what : str
        what was done, for the sentence, such as "reading betas.npy"
    error : BaseException
        as it was raised

    Returns
    -------
    MachineError
        to be raised
    """
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    least = min(_bounds(Path("/")), default=None)
    left = ""
    if least is not None:
        left = f" {size(least[0])} are available now {least[1]}."

    return MachineError(
        f"memory ran out while {what} ({reason}).{left} No file is damaged by that, unless it should need far less: close other "
        "programs, ask for more memory, or choose fewer voxels, trials or smaller pictures, and run the same command again."
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
