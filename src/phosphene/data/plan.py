"""What to download for a data set, from where, how large it is, under which terms, and what is already there.

The facts stand in ``downloads.yaml`` beside this file, not in code: addresses and sizes as their publishers or the papers
state them. A size that nobody states is unknown, never guessed. Planning touches no network.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd
from pydantic import Field

from phosphene.data.registry import ROOT
from phosphene.data.sections import Section
from phosphene.errors import ConfigError, did_you_mean
from phosphene.io.atomic import PARTIAL, checked_path
from phosphene.io.config import Config, parse_yaml, validate
from phosphene.io.csv_table import csv_text

WEIGHTS = "PHOSPHENE_WEIGHTS"
"""Environment variable naming the folder of public weights."""

Access = Literal["open", "terms", "manual"]
Kind = Literal["any", "gzip", "hdf5", "json", "mat", "nifti", "npy", "safetensors", "text", "torch", "zip"]

_ACCESS = {"open": "open", "terms": "after accepting the terms", "manual": "by hand"}


class PlannedFile(Config):
    """One line of the table: a file, or a family of files with {subject} and {session} to fill in."""

    part: str
    path: str
    url: str = Field("", description="address; base + path of the set by default")
    access: Access
    kind: Kind = "any"
    bytes: int | None = Field(None, gt=0)
    about: int | str | None = Field(None, description="bytes, rounded or uncompressed; or a {fact} of the subject")
    sha256: str = Field("", pattern="^([0-9a-f]{8,64})?$")  # names of weights carry its first 8 digits alone
    listed: str = Field("", description="name of the file in Figshare's list at url, which also has size and MD5")
    unpack: str = Field("", description="folder that the archive becomes")
    optional: bool = Field(False, description="only when its part is asked for")
    note: str = ""


class DownloadSet(Config):
    """One data set of the table."""

    title: str
    folder: str
    licence: str
    terms: str = ""
    base: str = ""
    next: str = ""
    subjects: dict[str, dict[str, int]] = Field(default_factory=dict)
    any_subject: str = Field("", description="pattern of subjects where there are too many to list")
    files: list[PlannedFile]


class Downloads(Config):
    """The whole table."""

    hosts: dict[str, list[str]]
    sets: dict[str, DownloadSet]


@lru_cache(maxsize=1)
def downloads() -> Downloads:
    """The table that is shipped with phosphene."""
    text = (files("phosphene.data") / "downloads.yaml").read_text(encoding="utf-8")
    return validate(Downloads, parse_yaml(text, "downloads.yaml"), "downloads.yaml")


@dataclass(frozen=True)
class Item:
    """One file to get.

    Parameters
    ----------
    part : str
        of the data set, such as "betas"
    path : Path
        where it belongs
    url : str
        its address; for ``access="manual"`` what to open by hand
    access : {"open", "terms", "manual"}
        "open", "terms" (fetched once the terms are accepted), or "manual"
    kind : Kind, default "any"
        what its first bytes must look like
    bytes : int, optional
        exact size, None where none is published
    about : int, optional
        published but rounded, or uncompressed size in bytes
    sha256, md5 : str, default ""
        checksum, or the beginning of it that the published name carries; "" where none is published
    listed : str, default ""
        name in Figshare's list at `url`, from which address, size and MD5 come
    unpack : Path, optional
        folder that the archive becomes; None when it is no archive
    subject : str, default ""
        whose it is; "" for everyone's
    note : str, default ""
        for people
    """

    part: str
    path: Path
    url: str
    access: Access
    kind: Kind = "any"
    bytes: int | None = None
    about: int | None = None
    sha256: str = ""
    md5: str = ""
    listed: str = ""
    unpack: Path | None = None
    subject: str = ""
    note: str = ""

    @property
    def state(self) -> str:
        """One of "there", "not unpacked", "part of it", "not there", or "wrong" and its size. No content is read."""
        # An archive may have been deleted once it was unpacked.
        if self.unpack is not None and self.unpack.is_dir() and any(self.unpack.iterdir()):
            return "there"

        if self.path.is_dir():  # a line of the table may stand for a whole folder, fetched by hand
            if any(self.path.iterdir()):
                return "there"
            return "not there"

        if self.path.is_file():
            size = self.path.stat().st_size
            if not size:
                return "wrong: empty"
            if self.bytes is not None and size != self.bytes:
                return f"wrong: {size} bytes"
            if self.unpack is None:
                return "there"
            return "not unpacked"

        if partial_path(self.path).is_file():
            return "part of it"
        return "not there"


def partial_path(path: Path) -> Path:
    """Where a file stands while it is downloaded; it keeps its place between attempts.

    Parameters
    ----------
    path : Path
        where the file belongs once it is whole
    """
    return path.parent / f"{PARTIAL}{path.name}"


@dataclass(frozen=True)
class Plan:
    """Everything to get for one data set.

    Parameters
    ----------
    name : str
        such as "nsd"
    root : Path
        folder the files belong to
    items : tuple of Item
        the files, in the order to get them
    about : DownloadSet
        the set's entry in the table
    """

    name: str
    root: Path
    items: tuple[Item, ...]
    about: DownloadSet

    @property
    def missing(self) -> tuple[Item, ...]:
        """Files that are not there."""
        return tuple(i for i in self.items if i.state != "there")

    @property
    def next(self) -> str:
        """What to do once the files are there; a command names the folder they are in."""
        step = self.about.next
        if step.startswith("phosphene "):
            return f"{step} --root {shlex.quote(str(self.root))}"
        return step

    def size(self, items: Iterable[Item] | None = None) -> tuple[int, int, int]:
        """Bytes of exactly known size, bytes of about known size, and the number of files of unknown size.

        Parameters
        ----------
        items : iterable of Item, optional
            those to add up; all of the plan by default
        """
        if items is None:
            items = self.items

        exact = about = unknown = 0
        for item in items:
            if item.bytes is not None:
                exact += item.bytes
            elif item.about is not None:
                about += item.about
            else:
                unknown += 1

        return exact, about, unknown


def make(
    name: str,
    *,
    root: str | Path | None = None,
    subjects: Sequence[str] = (),
    parts: Sequence[str] = (),
    sessions: int | None = None,
    table: Downloads | None = None,
) -> Plan:
    """Plan the download of a data set, or of ``"weights"``.

    Parameters
    ----------
    name : str
        of the table, ``NAME`` or ``NAME:SUBJECT``
    root : str or Path, optional
        folder of the data set itself, or one that holds a folder of its name; by default a folder of its name in
        PHOSPHENE_DATA, for weights the one that PHOSPHENE_WEIGHTS names
    subjects : sequence of str, default ()
        whose data; everyone's by default
    parts : sequence of str, default ()
        which parts, such as ``["betas", "rois"]``; all that are not optional by default
    sessions : int, optional
        only the first so many
    table : Downloads, optional
        another table than the shipped one

    Raises
    ------
    ConfigError
        An unknown set, subject or part, or nowhere to put the files.

    Examples
    --------
    >>> [i.path.name for i in make("digits69", root="data").items]
    ['digit69_28x28.mat']
    """
    table = table or downloads()
    name, _, named_subject = name.partition(":")
    if name not in table.sets:
        raise ConfigError(f"nothing is known about downloading '{name}'. {did_you_mean(name, table.sets)}")

    about = table.sets[name]
    subjects = list(subjects)
    if named_subject:
        subjects.append(named_subject)

    _check_subjects(name, about, subjects)
    known = list(dict.fromkeys(entry.part for entry in about.files))
    for part in parts:
        if part not in known:
            raise ConfigError(f"{name} has no part '{part}'. {did_you_mean(part, known)}")
    if sessions is not None and sessions < 1:
        raise ConfigError(f"--sessions must be at least 1, but is {sessions}.")

    folder = _folder(name, about, root)
    items: list[Item] = []
    for entry in about.files:
        if entry.part in parts or (not parts and not entry.optional):
            items += _filled(entry, about, folder, subjects, sessions)

    return Plan(name, folder, tuple(dict.fromkeys(items)), about)  # a file of two parts is fetched once


def _check_subjects(name: str, about: DownloadSet, subjects: Sequence[str]) -> None:
    """Raise ConfigError for a subject that the set does not have."""
    for subject in subjects:
        if about.any_subject and not re.fullmatch(about.any_subject, subject):
            raise ConfigError(f"'{subject}' is no subject of {name}: expected a name such as 100307.")

        if not about.any_subject and subject not in about.subjects:
            if about.subjects:
                hint = did_you_mean(subject, about.subjects)
            else:
                hint = "Its files are those of everyone."
            raise ConfigError(f"{name} has no subject '{subject}' to choose. {hint}")


def _folder(name: str, about: DownloadSet, root: str | Path | None) -> Path:
    """Where the files belong: at `root`, or where the environment variable says."""
    if root is not None:
        folder = checked_path(root)  # as in `locate`: the set's own folder, or the one that holds all sets
        if about.folder and (folder / about.folder).is_dir():
            return folder / about.folder

        return folder

    if name == "weights":
        variable = WEIGHTS
    else:
        variable = ROOT

    if not os.environ.get(variable):
        raise ConfigError(
            f"nothing says where the files of {name} belong. Give --root DIR, or set the environment variable {variable}."
        )

    return checked_path(os.environ[variable]) / about.folder


def _filled(
    entry: PlannedFile, about: DownloadSet, folder: Path, subjects: Sequence[str], sessions: int | None
) -> list[Item]:
    """The files that one line of the table stands for: one, or one for each subject and session."""
    url = entry.url or about.base + entry.path
    fields = set(re.findall(r"{(\w+)}", entry.path + url))
    names = [""]  # nobody's: one file for everyone
    if fields:
        # SUBJECT stands in for people that are too many to list: a plan of one of their files is still worth seeing.
        names = list(subjects) or list(about.subjects) or ["SUBJECT"]

    items = []
    for subject in names:
        facts: Mapping[str, int] = {}
        if fields:
            facts = about.subjects.get(subject, {})

        numbers: Sequence[int] = [0]
        if "session" in fields:
            n_sessions = facts.get("sessions", 1)
            numbers = range(1, min(n_sessions, sessions or n_sessions) + 1)

        for session in numbers:
            values = {**facts, "subject": subject, "session": f"{session:02d}"}
            items.append(_item(entry, folder, url, values))

    return items


def _item(entry: PlannedFile, folder: Path, url: str, values: Mapping[str, int | str]) -> Item:
    """One file, with the fields of its line filled in."""
    n_bytes = entry.about
    if isinstance(n_bytes, str):
        n_bytes = int(n_bytes.format(**values))

    unpack = None
    if entry.unpack:
        unpack = folder / _inside(entry.unpack)

    return Item(
        part=entry.part,
        path=folder / _inside(entry.path.format(**values)),
        url=url.format(**values),
        access=entry.access,
        kind=entry.kind,
        bytes=entry.bytes,
        about=n_bytes,
        sha256=entry.sha256,
        listed=entry.listed,
        unpack=unpack,
        subject=str(values["subject"]),
        note=entry.note.format(**values),
    )


def _inside(path: str) -> str:
    """The path, when it is relative and stays below its folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or not pure.parts:
        raise ConfigError(f"'{path}' in the table of downloads must stay inside the data set's folder.")
    return path


# -- for people --------------------------------------------------------------------------------------------------------


def sections(plan: Plan) -> list[Section]:
    """A plan as something to show: terms, totals by access, every file with its address.

    Parameters
    ----------
    plan : Plan
        from `make`
    """
    exact, about, unknown = plan.size()
    n_present = len(plan.items) - len(plan.missing)
    facts = [
        ("data", plan.about.title),
        ("folder", str(plan.root)),
        ("licence", plan.about.licence),
        ("files", f"{len(plan.items)}, {n_present} of them there"),
        ("total", said_size(exact, about, unknown)),
    ]

    for access, words in _ACCESS.items():
        items = [item for item in plan.items if item.access == access]
        if items:
            parts = ", ".join(dict.fromkeys(item.part for item in items))
            n_files = f"{len(items)} file{'s' if len(items) > 1 else ''} ({parts})"
            facts.append((words, f"{n_files}, {said_size(*plan.size(items))}"))

    planned = {item.part for item in plan.items}
    optional = sorted({entry.part for entry in plan.about.files if entry.optional} - planned)
    if optional:
        facts.append(("not planned", f"{', '.join(optional)}; ask with --part"))

    out = [Section(f"plan for {plan.name}", tuple(facts))]
    if any(i.access == "terms" for i in plan.items):
        step = f"read and accept {plan.about.terms}, then: phosphene data fetch {plan.name} --accept-terms"
        out.append(Section("before fetching", (("terms", step),)))

    base = plan.about.base
    if base:
        out[0] = Section(out[0].title, (*facts, ("address", f"{base} and the file's name below, or as given")))

    for part in dict.fromkeys(item.part for item in plan.items):
        out += _part_sections(plan, part)

    if plan.next:
        out.append(Section("afterwards", (("next", plan.next),)))

    return out


def _part_sections(plan: Plan, part: str) -> list[Section]:
    """The files of one part as a table, and what there is to know about them."""
    base = plan.about.base
    columns = ("file", "size", "SHA-256", "state", "address")
    rows = []
    notes = {}
    follows_base = bool(base)
    for item in plan.items:
        if item.part != part:
            continue

        name = item.path.relative_to(plan.root).as_posix()
        rows.append((name, _size(item), item.sha256[:12] or "not published", item.state, item.url))
        follows_base = follows_base and item.url == base + name
        if item.note:
            notes[item.path.name, item.note] = None

    if follows_base:  # the addresses follow from the names, as the first section says
        columns = columns[:-1]
        rows = [row[:-1] for row in rows]

    out = [Section(part, tuple(rows), columns)]
    if len({note for _, note in notes}) == 1:
        (note,) = {note for _, note in notes}
        out.append(Section(f"about {part}", (("note", note),)))
    elif notes:
        out.append(Section(f"about {part}", tuple(notes)))

    return out


def table(plan: Plan) -> str:
    """A plan as CSV: part, subject, path, address, bytes, about_bytes, sha256, access, state. Empty: not published.

    Parameters
    ----------
    plan : Plan
        from `make`
    """
    rows = []
    for i in plan.items:
        path = i.path.relative_to(plan.root).as_posix()
        rows.append([i.part, i.subject, path, i.url, i.bytes, i.about, i.sha256, i.access, i.state])

    names = ["part", "subject", "path", "address", "bytes", "about_bytes", "sha256", "access", "state"]
    return csv_text(pd.DataFrame(rows, columns=names, dtype=object))


def said_size(exact: int, about: int, unknown: int) -> str:
    """Sizes in words, as `Plan.size` counts them.

    Parameters
    ----------
    exact : int
        bytes of files whose size is published
    about : int
        bytes of files whose size is published but rounded
    unknown : int
        number of files whose size is not published

    Examples
    --------
    >>> said_size(2_390_173, 0, 0), said_size(0, 39_556_687_500, 2)
    ('2.4 MB', 'about 39.6 GB and 2 files whose size is not published')
    """
    words = []
    if exact or about:
        words.append(f"{'about ' if about else ''}{human(exact + about)}")

    if unknown:
        words.append(f"{unknown} file{'s' if unknown > 1 else ''} whose size is not published")

    return " and ".join(words) or "nothing"


def human(n: int) -> str:
    """Bytes as a person would say them.

    Parameters
    ----------
    n : int
        bytes

    Examples
    --------
    >>> human(999), human(2_390_173), human(39_556_687_500)
    ('999 bytes', '2.4 MB', '39.6 GB')
    """
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= limit:
            return f"{n / limit:.1f} {unit}"

    return f"{n} bytes"


def _size(item: Item) -> str:
    if item.bytes is not None:
        return human(item.bytes)
    if item.about is None:
        return "not published"
    return f"about {human(item.about)}"


def with_listing(item: Item, url: str, size: int | None, md5: str) -> Item:
    """The item with what Figshare's list says of it.

    Parameters
    ----------
    item : Item
        with the name to look for in ``listed``
    url : str
        address of the file itself
    size : int or None
        bytes in the list; a size in the table of downloads counts more
    md5 : str
        checksum in the list
    """
    if item.bytes is not None:
        size = item.bytes

    return replace(item, url=url, bytes=size, md5=md5, listed="")
