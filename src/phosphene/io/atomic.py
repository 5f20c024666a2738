"""Files and folders that appear under their final name whole, or not at all.

Everything is written beside its place under a name starting with ``.partial-``, flushed to the disk, and renamed.
A killed process leaves at most such a leftover, which nothing ever reads.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phosphene.errors import ConfigError, MachineError, PhospheneWarning
from phosphene.io.boot import boot_identity, is_alive
from phosphene.io.inside import must_stay_inside

PARTIAL = ".partial-"
_WORTH_SAYING = 1_000_000  # bytes
_LONGEST_PATH = 4095  # bytes, PATH_MAX of Linux without its end
_FEW_FILES = 16  # up to so many are flushed one by one
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def explained_write(path: str | Path) -> Iterator[None]:
    """Turn the operating system's write errors into a MachineError that says what to do.

    Parameters
    ----------
    path : str or Path
        what is written, for the message; it need not exist

    Yields
    ------
    None
        it is written in the block

    Raises
    ------
    MachineError
        Disk full, quota reached, file system read-only, folder gone or not writable.
    ConfigError
        Links that lead to each other, a path that is too long, a file where a folder is needed.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, MachineError):
            raise  # an OSError as well, of a block within this one, which has said it already

        # By number, since the text is in the language of the machine.
        place = Path(path)
        if error.errno in _DISK_FULL:
            free = _free_bytes(place)
            raise MachineError(
                f"the disk (or quota) is full while writing {place}; {free / 1e9:.1f} GB are free there. "
                "What was finished before is safe. Free some space and run the same command again."
            ) from error

        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise MachineError(f"{place} cannot be written ({error.strerror}). Choose another --out folder.") from error

        if error.errno == errno.ELOOP:
            raise ConfigError(f"{place} leads through links that lead to each other. Choose another folder.") from error

        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"the path {str(place)[:80]}... is too long for this file system. Shorten it.") from error

        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise ConfigError(
                f"{place} cannot be made: a file stands where a folder is needed, or the other way round ({error.strerror}). "
                "Choose another --out folder."
            ) from error

        if error.errno in (errno.ENOENT, errno.ESTALE, errno.EIO):
            raise MachineError(
                f"the folder of {place} vanished or failed while writing ({error.strerror}). What was finished "
                "before is safe; check the disk and run the same command again."
            ) from error

        raise


def _free_bytes(path: Path) -> int:
    """Free bytes where a path that may not exist would lie: asked of the nearest folder above it that does."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def checked_path(text: str | Path) -> Path:
    """A usable path from what a person typed: ``~`` expanded, otherwise taken literally.

    Parameters
    ----------
    text : str or Path
        as it was typed

    Returns
    -------
    Path
        which need not exist

    Raises
    ------
    ConfigError
        For an empty path, control characters (a trailing newline pasted with it), or a name over 255 bytes.
    """
    raw = str(text)
    if not raw.strip():
        raise ConfigError("a path was expected, but it is empty.")

    # A file system takes them, and then nobody can type the name of the folder.
    if any(ord(c) < 32 for c in raw):
        raise ConfigError(
            f"the path {raw!r} holds a line break or another control character; it was probably pasted along. "
            f"Use {''.join(c for c in raw if ord(c) >= 32).strip()!r}."
        )

    if len(os.fsencode(raw)) > _LONGEST_PATH:
        raise ConfigError(
            f"the path '{raw[:40]}...' is {len(os.fsencode(raw))} bytes long; a system takes at most {_LONGEST_PATH}. Shorten it."
        )

    path = Path(raw).expanduser()
    # In bytes: a letter with an accent takes two, and one of Chinese three.
    for part in path.parts:
        if len(os.fsencode(part)) > 255:
            raise ConfigError(
                f"'{part[:40]}...' is {len(os.fsencode(part))} bytes long; a file system takes at most 255. Shorten it."
            )

    return path


def partial_name(path: Path) -> Path:
    """A fresh temporary name beside `path`.

    Parameters
    ----------
    path : Path
        the final name

    Returns
    -------
    Path
        in the same folder: a rename is one step within one file system only
    """
    # 100 letters leave room for the rest under 255 bytes, in most scripts. Process and machine say who left it; the random part
    # keeps threads of one process apart.
    machine = boot_identity()[:8]
    return path.parent / f"{PARTIAL}{path.name[:100]}-{os.getpid()}-{machine}-{uuid.uuid4().hex[:8]}"


def remove_leftovers_of(path: Path) -> None:
    """Remove what processes of this machine that were killed have left of one file or folder, and say so where it is large.

    Parameters
    ----------
    path : Path
        the final name

    Warns
    -----
    PhospheneWarning
        With the name and the size of each leftover above a megabyte.
    """
    machine = boot_identity()[:8]
    for leftover in path.parent.glob(f"{PARTIAL}{glob.escape(path.name[:100])}-*-{machine}-*"):
        pid = leftover.name.rsplit(f"-{machine}-", 1)[0].rsplit("-", 1)[1]
        if not pid.isdecimal() or is_alive(int(pid)):
            continue

        files = [file for file in leftover.rglob("*") if file.is_file() and not file.is_symlink()]
        if leftover.is_dir():
            n_bytes = sum(file.stat().st_size for file in files)
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            n_bytes = leftover.stat().st_size
            leftover.unlink(missing_ok=True)

        if n_bytes > _WORTH_SAYING:
            warnings.warn(
                f"removed {leftover} ({n_bytes / 1e6:,.0f} MB), which a command that was killed had left.",
                PhospheneWarning,
                stacklevel=3,
            )


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut.

    Parameters
    ----------
    folder : Path
        the names in it are flushed, not the contents of its files
    """
    with suppress(OSError):  # some network file systems cannot sync folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _flush_below(folder: Path) -> None:
    """Make the contents of all files below `folder`, and the names in the folders below it, survive a power cut."""
    files = []
    folders = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue

        if path.is_file():
            files.append(path)
        elif path.is_dir():
            folders.append(path)

    # One flush of the file system takes about as long as that of a few files, and a folder may hold ten thousand pictures.
    if len(files) > _FEW_FILES and _flush_file_system(folder):
        return

    for file in files:
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())

    for path in folders:
        fsync_folder(path)


def _flush_file_system(folder: Path) -> bool:
    """Flush the whole file system that holds a folder; False where the system cannot (only Linux can)."""
    if not sys.platform.startswith("linux"):
        return False

    handle = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle) == 0:
            return True

        error = ctypes.get_errno()
    except AttributeError:  # a C library without syncfs
        return False
    finally:
        os.close(handle)

    # What could not be written to the disk must not be called safe; that the call is not there is no such thing.
    if error in (errno.EIO, *_DISK_FULL):
        raise OSError(error, os.strerror(error), str(folder))

    return False


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write one file whole or not at all. Parents are created.

    Parameters
    ----------
    path : str or Path
        of the file; one of that name is replaced
    data : bytes
        all of its contents

    Raises
    ------
    MachineError
        When the disk is full or the folder cannot be written.
    """
    path = Path(path)
    must_stay_inside(path)
    temporary = partial_name(path)

    with explained_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Flushed before it is renamed. The other way round, a power cut may leave the name on the disk and no contents.
            with open(temporary, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())

            # Again: a link may have been put there while it was written.
            must_stay_inside(path)

            # A kill before this line leaves the old file and a leftover; after it, the new file.
            os.replace(temporary, path)
        finally:
            # Gone after a rename; here for when writing failed, whose own error must not be hidden by another.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

        fsync_folder(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write one UTF-8 file whole or not at all.

    Parameters
    ----------
    path : str or Path
        of the file; one of that name is replaced
    text : str
        all of its contents; line ends stay as they are

    Raises
    ------
    MachineError
        When the disk is full or the folder cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which takes its final name only when the block ends without an error.

    An existing folder of that name is replaced in the same moment.

    Parameters
    ----------
    path : str or Path
        the final name

    Yields
    ------
    Path
        Path of the temporary folder to write into

    Raises
    ------
    MachineError
        When the disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    must_stay_inside(path)
    temporary = partial_name(path)

    with explained_write(path):
        remove_leftovers_of(path)
        try:
            temporary.mkdir(parents=True)
            yield temporary

            # The block wrote as it liked, so everything in the folder is flushed here.
            _flush_below(temporary)
            fsync_folder(temporary)  # names in it, before its own name
            must_stay_inside(path)
            if path.exists() or path.is_symlink():
                if not _exchange(temporary, path):
                    # In two steps: a kill between them leaves no folder of that name, but the old one whole, under a name
                    # that sweep removes. Nothing better can be had without an exchange.
                    old = partial_name(path)
                    os.replace(path, old)

                    try:
                        os.replace(temporary, path)
                    except OSError:
                        os.replace(old, path)  # as it was
                        raise

                    _remove(old)
            else:
                os.replace(temporary, path)

            fsync_folder(path.parent)
        finally:
            # After an exchange this is the old folder, under the temporary name.
            _remove(temporary)


def _remove(path: Path) -> None:
    """Remove a folder, or a link to one and not what it leads to."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Let two folders change names in one moment; False where the system or the file system cannot (only Linux can)."""
    if not sys.platform.startswith("linux"):
        return False

    # AT_FDCWD and RENAME_EXCHANGE of linux/fs.h
    at_here = -100
    exchange = 2

    with suppress(OSError, AttributeError):  # a C library without renameat2
        names = (ctypes.c_char_p(os.fsencode(a)), ctypes.c_char_p(os.fsencode(b)))
        call = ctypes.CDLL(None, use_errno=True).renameat2
        return call(at_here, names[0], at_here, names[1], ctypes.c_uint(exchange)) == 0
    return False


def sweep(parent: Path) -> None:
    """Remove what killed processes left in `parent` and below. Call only while holding that folder's lock.

    Parameters
    ----------
    parent : Path
        a folder that this process alone writes to: what another is writing at this moment has the same kind of name
    """
    # Listed first: a folder that goes takes with it what the walk would still have visited.
    for leftover in list(parent.rglob(f"{PARTIAL}*")):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
