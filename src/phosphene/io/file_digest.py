"""Digests of weight files by their contents, read once: a cache says what a file held when it last looked as it does now.

A file is known again by path, size, time of its last change and inode. The cache is a small JSON file; where it cannot be
written, contents are read each time and nothing else changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from phosphene.errors import PhospheneError
from phosphene.io import atomic
from phosphene.types import digest_of

CACHE_VARIABLE = "PHOSPHENE_CACHE"
FILE = "file_digests.json"
MOST = 4096  # entries kept; the oldest go first
_BLOCK = 1 << 20  # bytes read at a time
_SETTLED_NS = (
    2_000_000_000  # a file changed later than this may change again within one tick of its file system's clock
)
_PATIENCE = 10.0  # seconds to wait for another process that writes the cache


def digest_of_path(path: str | Path, cache: Path | None = None) -> str:
    """SHA-256 of a file's bytes, or of all files of a folder by their names and bytes.

    Parameters
    ----------
    path : str or Path
        a file or a folder; links are followed
    cache : Path, optional
        file of known digests; by default ``file_digests.json`` in the folder of the environment variable PHOSPHENE_CACHE, or
        in the user's cache folder

    Returns
    -------
    str
        64 hexadecimal digits; ``"missing"`` where there is nothing, so that whoever reads the file says what is wrong
    """
    path = Path(path).expanduser()
    cache = cache or cache_file()

    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
    elif path.is_file():
        files = [path]
    else:
        return "missing"

    digests = _digests(files, cache)
    if path.is_file():
        return digests[path]

    return digest_of({file.relative_to(path).as_posix(): digests[file] for file in files})


def cache_file() -> Path:
    """Where digests are remembered."""
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(folder) / FILE

    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "phosphene" / FILE


def _digests(files: list[Path], cache: Path) -> dict[Path, str]:
    known = _read(cache)
    fresh: dict[str, list] = {}
    out: dict[Path, str] = {}
    now = _clock_of_files(cache.parent)

    for file in files:
        place = str(file.resolve())
        before = _stamp(file)
        entry = known.get(place)

        if entry is not None and entry[:-1] == before:
            out[file] = entry[-1]
            continue

        out[file] = _sha256(file)
        is_settled = now is not None and abs(now - before[1]) > _SETTLED_NS
        if is_settled and _stamp(file) == before:
            fresh[place] = [*before, out[file]]

    if fresh:
        _remember(cache, fresh)

    return out


def _clock_of_files(folder: Path) -> int | None:
    """Time, in nanoseconds, that a file written now is given; None where none can be written.

    The machine's own clock may be set, and that of a file server may be another.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            return os.stat(probe.name).st_mtime_ns
    except OSError:
        return None


def _stamp(file: Path) -> list[int]:
    """Size in bytes, time of the last change in nanoseconds, inode."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _sha256(file: Path) -> str:
    h = hashlib.sha256()
    with open(file, "rb") as handle:
        while block := handle.read(_BLOCK):
            h.update(block)

    return h.hexdigest()


def _read(cache: Path) -> dict[str, list]:
    """What is remembered; nothing where the cache is not there, damaged or of another form."""
    try:
        values = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}

    if not isinstance(values, dict):
        return {}

    return {place: entry for place, entry in values.items() if isinstance(entry, list) and len(entry) == 4}


def _remember(cache: Path, fresh: dict[str, list]) -> None:
    """Add entries to those that other processes have written meanwhile; a cache that cannot be written is no loss."""
    with suppress(OSError, Timeout, PhospheneError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock", timeout=_PATIENCE):
            entries = _read(cache)
            for place in fresh:
                entries.pop(place, None)

            entries |= fresh
            newest = dict(list(entries.items())[-MOST:])
            atomic.write_text(cache, json.dumps(newest, indent=0) + "\n")
