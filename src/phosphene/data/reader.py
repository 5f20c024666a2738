"""What a reader of a data set is: facts, options, and four things it can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import Field

from phosphene.data.findings import Finding
from phosphene.errors import DataError
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.types import Dataset


class ReaderOptions(Config):
    """Options of one reader: frozen, unknown keys refused."""

    follow_links: bool = Field(default=False, description="read files that links in the data folder have outside it")


@runtime_checkable
class Reader(Protocol):
    """One data set (or one file format) and how to read it. A class of these is named in ``registry.READERS``.

    Attributes
    ----------
    title, citation, licence, url : str
        facts for people and for the report
    files : str
        what to look for in the data set's folder, for people; empty for data that need no file
    options : type[ReaderOptions]
        class of the options `load` takes
    """

    title: ClassVar[str]
    citation: ClassVar[str]
    licence: ClassVar[str]
    url: ClassVar[str]
    files: ClassVar[str]
    options: ClassVar[Any]  # no narrower: each reader names its own class

    def find(self, root: Path) -> Path:
        """Where the data stand below `root`. Raises DataError naming what is missing."""
        ...

    def subjects(self, path: Path, options: Any) -> tuple[str, ...]:
        """Names of the subjects at `path`, without reading betas.

        Parameters
        ----------
        path : Path
            as `find` gave it
        options : ReaderOptions
            of the reader's own class

        Returns
        -------
        tuple of str
            in the order of the data set
        """
        ...

    def load(self, path: Path, options: Any, subject: str | None = None) -> Dataset:
        """The data set at `path`, of one subject or all.

        Parameters
        ----------
        path : Path
            as `find` gave it
        options : ReaderOptions
            of the reader's own class
        subject : str, optional
            one person; all by default

        Returns
        -------
        Dataset
            betas are read when they are asked for

        Raises
        ------
        DataError
            For files that are missing, damaged or of another layout.
        """
        ...

    def check(self, path: Path, options: Any) -> list[Finding]:
        """Compare what is there with what should be. Never raises for wrong data: says so in a finding.

        Parameters
        ----------
        path : Path
            as `find` gave it
        options : ReaderOptions
            of the reader's own class

        Returns
        -------
        list of Finding
            problems with a next step, notes, and what is as it should be
        """
        ...


@runtime_checkable
class ImportingReader(Reader, Protocol):
    """A reader that copies a subject into a folder of ours by itself, because its files are too large to be opened first."""

    def import_to(
        self,
        path: Path,
        options: Any,
        subject: str | None,
        out: str | Path,
        *,
        replace: bool = False,
        progress: Callable[[str, float], None] = ...,
        say: Progress | None = None,
    ) -> Dataset:
        """The data set read back from the folder `out`."""
        ...


def about(reader: Reader, **more: str) -> Mapping[str, str]:
    """The facts of a reader, as a Dataset keeps them.

    Parameters
    ----------
    reader : Reader
        of the data set
    **more : str
        further facts, such as the version that was read; empty ones are left out
    """
    facts = {"title": reader.title, "citation": reader.citation, "licence": reader.licence, "url": reader.url, **more}
    return {name: fact for name, fact in facts.items() if fact}


def find_file(root: Path, candidates: tuple[str, ...], title: str) -> Path:
    """The first of `candidates` (relative to `root`) that exists; `root` itself when it is such a file.

    Parameters
    ----------
    root : Path
        a folder, or the file itself
    candidates : tuple of str
        where the file may stand, the likeliest first
    title : str
        name of the data set, for the message

    Raises
    ------
    DataError
        When none does, with every place looked at and what stands there instead.
    """
    if root.is_file():
        return root

    for candidate in candidates:
        if (root / candidate).exists():
            return root / candidate

    contents = "which does not exist"
    if root.is_dir():
        names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
        contents = f"which holds {', '.join(names[:8]) or 'nothing'}{' ...' if len(names) > 8 else ''}"

    raise DataError(
        f"{title} was looked for as {' or '.join(candidates)} in {root}, {contents}. Put the file there, or give the "
        "folder that holds it with --root."
    )
