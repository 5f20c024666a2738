"""A disk that fails: every write below one folder is counted, and the k-th one fails as a real one would.

The system's own calls are what fails, below everything of ours: opening a file to write, its writes, flushing to the
disk, making folders, links and renames.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KINDS = ("full", "short", "eio", "read-only", "vanished")


class BadDisk:
    """Counts what is written below `root`; from the `at`-th write on (from 0) the disk is bad.

    Parameters
    ----------
    root : folder
    kind : "full" (ENOSPC from then on), "short" (half of that write arrives, then the disk is full), "eio" (that one
        write fails), "read-only" (EROFS from then on), "vanished" (the folder is gone)
    at : number of the first write that fails; none when None
    """

    def __init__(self, root: Path, kind: str = "full", at: int | None = None) -> None:
        self.root, self.kind, self.at = os.path.realpath(root), kind, at
        self.count = 0

    def covers(self, path: Any) -> bool:
        return not isinstance(path, int) and os.path.realpath(os.fsdecode(path)).startswith(self.root + os.sep)

    def step(self) -> bool:
        """Count one write; whether it should arrive by half. Raises what the system would."""
        number, self.count = self.count, self.count + 1
        if self.at is None or number < self.at or (self.kind == "eio" and number > self.at):
            return False
        if self.kind == "vanished":
            shutil.rmtree(self.root, ignore_errors=True)
            return False  # the system itself says what happens now
        if self.kind == "short" and number == self.at:
            return True
        code = {"full": errno.ENOSPC, "short": errno.ENOSPC, "eio": errno.EIO, "read-only": errno.EROFS}[self.kind]
        raise OSError(code, os.strerror(code))


class _File:
    """A file whose writes are counted."""

    def __init__(self, file: Any, disk: BadDisk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: Any) -> int:
        if self._disk.step():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextmanager
def bad(disk: BadDisk) -> Iterator[BadDisk]:
    """The system's calls through this disk, for as long as the block lasts."""
    kept = {(owner, name): getattr(owner, name) for owner, name in _CALLS}
    handles: dict[int, bool] = {}

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        writes = any(c in mode for c in "wax+") and disk.covers(file)
        if writes:
            disk.step()
        made = kept[builtins, "open"](file, mode, *args, **kwargs)
        return _File(made, disk) if writes else made

    def os_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) and disk.covers(path)
        if writes:
            disk.step()
        handle = kept[os, "open"](path, flags, *args, **kwargs)
        handles[handle] = writes
        return handle

    def pwrite(handle: int, data: Any, offset: int) -> int:
        if handles.get(handle) and disk.step():
            data = bytes(data)[: max(1, len(data) // 2)]  # a short write is no error; the next one may be
        return kept[os, "pwrite"](handle, data, offset)

    def of_path(name: str) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if disk.covers(path):
                disk.step()
            return kept[os, name](path, *args, **kwargs)

        return call

    def of_handle(name: str) -> Callable[..., Any]:
        def call(handle: int, *args: Any) -> Any:
            if handles.get(handle):
                disk.step()
            return kept[os, name](handle, *args)

        return call

    patched = {"open": os_open, "pwrite": pwrite, "ftruncate": of_handle("ftruncate"), "fsync": of_handle("fsync")}
    patched |= {name: of_path(name) for name in ("replace", "rename", "mkdir", "link")}
    builtins.open = io.open = opened
    for name, call in patched.items():
        setattr(os, name, call)
    try:
        yield disk
    finally:
        for (owner, name), call in kept.items():
            setattr(owner, name, call)


_CALLS = [(builtins, "open"), (io, "open")] + [
    (os, n) for n in ("open", "pwrite", "ftruncate", "fsync", "replace", "rename", "mkdir", "link")
]
