"""Which files are opened while something runs: by an audit hook of Python, which no code of a plug-in gets round by chance."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".pth")
_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr")

_listeners: list[OpenedFiles] = []
_lock = threading.Lock()
_is_installed = False


@dataclass
class OpenedFiles:
    """Files that were opened, those of Python, its packages and the system left out.

    Attributes
    ----------
    read : set of str
        absolute paths
    written : set of str
        absolute paths of those opened for writing
    """

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)


@contextmanager
def recorded(files: OpenedFiles) -> Iterator[OpenedFiles]:
    """Files opened inside, by any thread of this process, are added to `files`.

    What compiled code opens by itself (HDF5, safetensors) is not seen.

    Parameters
    ----------
    files : OpenedFiles
        added to

    Yields
    ------
    OpenedFiles
        the same
    """
    _install()
    with _lock:
        _listeners.append(files)

    try:
        yield files
    finally:
        with _lock:
            _listeners.remove(files)


def _install() -> None:
    """Once for each process: an audit hook stays for good, so it has to be idle where nobody listens."""
    global _is_installed
    with _lock:
        if not _is_installed:
            sys.addaudithook(_hear)
            _is_installed = True


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if event != "open" or not _listeners:
        return

    path, mode, flags = args
    if not isinstance(path, (str, bytes)):  # a descriptor, which was a path when it was opened
        return

    name = os.path.realpath(os.fsdecode(path))
    if _is_of_python(name):
        return

    is_write = bool(isinstance(flags, int) and flags & _WRITES) or bool(mode and set(str(mode)) & set("wax+"))
    for files in list(_listeners):
        if is_write:
            files.written.add(name)
        else:
            files.read.add(name)


def _is_of_python(name: str) -> bool:
    if name.endswith(_CODE):
        return True

    places = (*_SYSTEM, *_PYTHON)
    return any(name == place or name.startswith(place.rstrip(os.sep) + os.sep) for place in places)


_PYTHON = tuple(
    os.path.realpath(place)
    for place in (sys.prefix, sys.base_prefix, Path(__file__).parents[1])
    if str(place) != os.sep
)
