"""Nothing is written, and nothing read, through a link that leads out of the folder it stands in.

A run or a data set may come from a stranger. A symbolic link in it, such as ``evaluation -> /home/me/thesis``, would turn a
command that replaces its own results into one that replaces somebody else's files. Folders are therefore looked through before
they are used, and every write, rename and deletion below a folder that is held asks once more, since links can appear later.

The folder itself may be a link: its user named it. A link within it that stays within it is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phosphene.errors import DataError, ModelError, PhospheneError

_held: list[Path] = []
"""Folders whose contents are being written, innermost last."""


@contextmanager
def held_inside(root: Path) -> Iterator[None]:
    """While the block lasts, what is written below a folder must lie within it.

    Parameters
    ----------
    root : Path
        the folder, which may be a link itself

    Raises
    ------
    ModelError
        From `must_stay_inside`, for a path that a link leads elsewhere.
    """
    # Under both of its names, where it is a link: some paths are resolved on the way.
    names = [Path(os.path.abspath(root)), root.resolve()]
    _held.extend(names)
    try:
        yield
    finally:
        for name in names:
            _held.remove(name)


def must_stay_inside(path: str | Path) -> None:
    """Refuse to write, rename or delete where a link leads out of a folder that is held.

    Parameters
    ----------
    path : str or Path
        about to be written, replaced or deleted; it need not exist. Outside every held folder nothing is refused

    Raises
    ------
    ModelError
        Naming the link.
    """
    place = Path(os.path.abspath(path))
    for root in _held:
        if place == root or not place.is_relative_to(root):
            continue

        step = root
        for name in place.relative_to(root).parts:
            step = step / name
            if step.is_symlink() and not _stays(step, root):
                raise ModelError(_sentence(root, step))


def refuse_links(
    root: str | Path,
    kind: type[PhospheneError] = ModelError,
    advice: str = "Remove the link, or put a copy in its place.",
    *,
    absent: bool = False,
) -> None:
    """Refuse a folder in which a link leads outside, to nowhere, or in a circle.

    Parameters
    ----------
    root : str or Path
        looked through with its subfolders, without following links; nothing is refused where it is absent
    kind : type[PhospheneError], optional
        of the error
    advice : str, optional
        what to do about it
    absent : bool, default False
        whether a link may lead to a place within the folder where nothing is, as git-annex leaves it for files that were not
        fetched

    Raises
    ------
    PhospheneError
        Of this kind, naming the link and where it leads.
    """
    root = Path(root)
    for link in links_in(root):
        if not _stays(link, root, absent):
            raise kind(_sentence(root, link, advice))


def links_in(root: Path) -> Iterator[Path]:
    """Every symbolic link below a folder, in no order; none is followed."""
    waiting = [root]
    while waiting:
        place = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError:  # absent, no folder, or not readable: whoever reads it next says so
            continue

        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir(follow_symlinks=False) and entry.name != ".git":  # nothing in there is read by its name
                waiting.append(Path(entry.path))


def plain_file(path: Path) -> None:
    """Refuse to lock or overwrite in place what is no file of its own: a link, a device, or one file under two names.

    Parameters
    ----------
    path : Path
        about to be opened for writing in place; it need not exist

    Raises
    ------
    ModelError
        Saying what stands there.
    """
    try:
        state = path.lstat()
    except OSError:
        return

    if stat.S_ISREG(state.st_mode) and state.st_nlink <= 1:  # 0 while it is being deleted
        return

    if stat.S_ISLNK(state.st_mode):
        what = f"a link to {os.readlink(path)}"
    elif stat.S_ISREG(state.st_mode):
        what = "a second name of another file"
    else:
        what = "no plain file"
    raise ModelError(f"{path} is {what}, so nothing is written to it. Delete it, and run the same command again.")


def append_line(path: Path, line: str) -> None:
    """Add one line to a file of a folder, in one write; never through a link, and never to a file that has a second name.

    Parameters
    ----------
    path : Path
        of the file, made where it is absent
    line : str
        without its end

    Raises
    ------
    OSError
        When it is a link or no plain file, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    must_stay_inside(path)
    handle = os.open(path, flags, 0o666)
    try:
        # Of the open file, which nobody can exchange any more.
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
            raise OSError(f"{path} is no plain file of its own")

        os.write(handle, (line + "\n").encode("utf-8"))
    finally:
        os.close(handle)


def _stays(link: Path, root: Path, absent: bool = False) -> bool:
    """Whether a link leads to something within the folder, which must be there unless it may be `absent`."""
    try:
        target = link.resolve(strict=not absent)
        return target.is_relative_to(root.resolve(strict=True))
    except (OSError, RuntimeError):  # nowhere, in a circle, or where we may not look
        return False


def _sentence(root: Path, link: Path, advice: str = "Remove the link, or put a copy in its place.") -> str:
    try:
        target = os.readlink(link)
    except OSError:
        target = "somewhere"

    name = link.relative_to(root)
    return f"'{name}' in {root} is a link to {target!r}, which is nothing within that folder, and is not followed. {advice}"


def refuse_data_links(root: str | Path, follow: bool) -> None:
    """Refuse a data folder in which a link leads outside, unless its user asked to follow such links.

    Parameters
    ----------
    root : str or Path
        of the data; a file is let through
    follow : bool
        whether the user asked for it

    Raises
    ------
    DataError
        Naming the link, where it leads, and the option.
    """
    if follow:
        return

    refuse_links(
        root,
        DataError,
        "A stranger's folder could so copy any file of this machine into a data set. If the link is yours, allow it: "
        "follow_links=true as an option of the reader (--option follow_links=true), or --follow-links where a command has it.",
        absent=True,
    )
