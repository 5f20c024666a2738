"""Unpacking archives of strangers: nothing outside the folder, nothing but files and folders, nothing out of proportion."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from phosphene.errors import DataError, MachineError
from phosphene.io import atomic

_BLOCK = 2**20


@dataclass(frozen=True)
class Limits:
    """What an archive may become.

    Parameters
    ----------
    members : int, default 200000
        most entries
    ratio : float, default 100.0
        most bytes for each byte of the archive, over all; arrays of zeros reach about 1000
    ratio_above : int, optional
        bytes below which any ratio is fine
    """

    members: int = 200_000
    ratio: float = 100.0
    ratio_above: int = 64 * 2**20


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> Path:
    """Unpack a .zip or a (compressed) .tar into a folder that appears whole or not at all.

    Parameters
    ----------
    archive : Path
        the file
    folder : Path
        to make; a folder of its name in the archive becomes it, otherwise it takes all there is
    limits : Limits, optional
        see `Limits`

    Returns
    -------
    Path
        `folder`

    Raises
    ------
    DataError
        The archive is damaged, or holds absolute names, names with ``..``, links, devices, encrypted files, one name
        twice, too many entries, or more data than an honest archive of its size. Nothing is left behind.
    MachineError
        No room, or the folder cannot be written.
    """
    limits = limits or Limits()
    try:
        with atomic.folder(folder) as place:
            whole = place / f"{atomic.PARTIAL}unpacked"
            whole.mkdir()
            _extract(archive, whole, limits)
            _settle(whole, place, folder.name)
    except (DataError, MachineError):
        raise
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError) as error:
        raise DataError(f"{archive} is damaged or no archive ({error}). Delete it and fetch it again.") from error

    return folder


def _extract(archive: Path, place: Path, limits: Limits) -> None:
    room = shutil.disk_usage(place).free
    most = max(limits.ratio_above, limits.ratio * archive.stat().st_size)
    seen: set[str] = set()
    total = 0

    for name, size, is_folder, opened in _members(archive):
        target = place / _checked(name, archive)
        key = os.path.normcase(str(target)).casefold()
        if key in seen and not is_folder:
            raise DataError(f"{archive} holds '{name}' twice, so it is not clear which counts; it was not unpacked.")

        seen.add(key)
        total += size
        if len(seen) > limits.members:
            raise DataError(f"{archive} holds more than {limits.members} entries; it was not unpacked.")
        if total > most:
            raise DataError(
                f"{archive} of {archive.stat().st_size} bytes would become more than {int(most)} bytes: an archive bomb? It "
                "was not unpacked; look into it by hand if you trust it."
            )
        if total > room:
            raise MachineError(f"{archive} needs more than the {room / 1e9:.1f} GB that are free at {place.parent}.")

        if is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue

        target.parent.mkdir(parents=True, exist_ok=True)
        with opened() as source, open(target, "xb") as out:
            written = 0
            while block := source.read(_BLOCK):
                written += len(block)
                if written > size:
                    raise DataError(f"'{name}' in {archive} is larger than it claims; it was not unpacked.")
                out.write(block)

            if written < size:
                raise DataError(f"'{name}' in {archive} is cut off; delete the archive and fetch it again.")


def _members(archive: Path) -> Iterator[tuple[str, int, bool, Callable[[], IO[bytes]]]]:
    """Name, size, whether a folder, and how to open each entry; litter of macOS left out."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"'{info.filename}' in {archive} is a link or device; it was not unpacked.")
                if info.flag_bits & 1:
                    raise DataError(f"'{info.filename}' in {archive} is encrypted; unpack it by hand.")

                # orig_filename: zipfile itself already cuts names at a NUL and turns separators.
                if not _is_litter(info.filename):
                    yield info.orig_filename, info.file_size, info.is_dir(), partial(opened.open, info)

        return

    with tarfile.open(archive, "r:*") as opened:  # not "r|*", which does not compare the checksum of gzip
        for member in opened:
            if not (member.isfile() or member.isdir()) or member.issparse():
                raise DataError(f"'{member.name}' in {archive} is a link or device; it was not unpacked.")
            if not _is_litter(member.name):
                yield member.name, member.size, member.isdir(), partial(_content, opened, member)

        while opened.fileobj.read(_BLOCK):  # its checksum stands behind the padding
            if opened.fileobj.tell() > opened.offset + 8 * _BLOCK:
                raise DataError(f"{archive} goes on behind its last entry; it was not unpacked.")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None  # files only are opened
    return content


def _is_litter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or (bool(parts) and (parts[-1] == ".DS_Store" or parts[-1].startswith("._")))


def _checked(name: str, archive: Path) -> PurePosixPath:
    """The name as a path that stays inside, or DataError."""
    pure = PurePosixPath(name)
    bad = (
        pure.is_absolute()
        or ".." in pure.parts
        or "\\" in name
        or re.match(r"[A-Za-z]:", name)
        or any(ord(c) < 32 for c in name)
        or any(len(os.fsencode(p)) > 255 for p in pure.parts)
    )

    if bad:
        raise DataError(
            f"{archive} holds the name {name!r}, which would lie outside the folder or is no plain name. It was not "
            "unpacked: such an archive is damaged or meant to do harm."
        )

    return pure


def _settle(whole: Path, place: Path, name: str) -> None:
    """The folder called `name` (or one inside another of that name) becomes the place; without one, everything does."""
    found = sorted((p for p in whole.rglob(name) if p.is_dir()), key=lambda p: len(p.parts))
    if found:
        source = found[0]
    else:
        source = whole

    while (inner := source / name).is_dir() and len(list(source.iterdir())) == 1:
        source = inner

    for entry in list(source.iterdir()):
        os.replace(entry, place / entry.name)

    shutil.rmtree(whole)
