"""Every data set behind one door: a name or a path becomes a Dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from phosphene.data.reader import Reader, ReaderOptions
from phosphene.errors import ConfigError, DataError, NotAvailable, did_you_mean
from phosphene.io.atomic import checked_path
from phosphene.io.config import resolve_layers
from phosphene.io.hdf5 import open_hdf5
from phosphene.io.inside import refuse_data_links
from phosphene.io.plugins import load_plugin, plugins_of
from phosphene.io.reading import reading
from phosphene.types import Dataset

READERS: dict[str, str] = {
    "bold5000": "phosphene.data.bold5000:BOLD5000",
    "digits69": "phosphene.data.digits69:Digits69",
    "god": "phosphene.data.god:GOD",
    "hcp": "phosphene.data.hcp:HCP",
    "miyawaki": "phosphene.data.miyawaki:Miyawaki",
    "mosaic": "phosphene.data.mosaic:Mosaic",
    "nsd": "phosphene.data.nsd:NSD",
}
"""Data sets by name, as ``module:class``; imported only when named. Rooms above and other packages add theirs as entry points
of `PLUGINS`."""

FORMATS: dict[str, str] = {
    "bdata": "phosphene.data.bdata:BDataFile",
    "folder": "phosphene.data.dataset_folder:FolderReader",
    "pairs": "phosphene.data.pairs:PairFile",
}
"""Formats that are recognised by a path instead of a name."""

PLUGINS = "phosphene.readers"
"""Entry-point group in which rooms above and other packages name their readers; one is imported only when asked for by name."""

FROM_ABOVE = ("insilico", "openfmri")
"""Data sets that come with phosphene but are read by a room above this one: simulating needs the lab, raw BOLD needs a GLM.
They are entry points of phosphene's own metadata."""

ROOT = "PHOSPHENE_DATA"
"""Environment variable naming the folder that holds one folder per data set."""

_PAIR_SUFFIXES = (".mat", ".npz", ".h5", ".hdf5")


@dataclass(frozen=True)
class Source:
    """What a person meant: which reader, which data, which subject.

    Attributes
    ----------
    name : str
        of the data set, or of the file or folder
    reader : Reader
        what reads it
    path : Path
        where it lies
    subject : str or None
        one person; None where none was named
    """

    name: str
    reader: Reader
    path: Path
    subject: str | None = None

    def options(self, values: Mapping[str, Any] | ReaderOptions | None = None) -> ReaderOptions:
        """The reader's options, by which the files may be read.

        Parameters
        ----------
        values : mapping of {str: Any} or ReaderOptions, optional
            what was asked for

        Returns
        -------
        ReaderOptions
            of the reader's own class

        Raises
        ------
        ConfigError
            For unknown ones, with the nearest known.
        DataError
            When a link in the data folder leads outside, and following such links was not asked for.
        """
        if isinstance(values, ReaderOptions):
            options = values
        else:
            options = resolve_layers(self.reader.options, [(f"options of {self.name}", dict(values or {}))])[0]

        if not self.is_made:
            refuse_data_links(self.path, getattr(options, "follow_links", False))

        return options

    @property
    def is_made(self) -> bool:
        """Whether the data are made by the reader and lie nowhere: `path` is then no place of theirs."""
        return not self.reader.files


def known() -> tuple[str, ...]:
    """Names of all data sets, without importing any: phosphene's own by the alphabet, then those of other packages."""
    own = sorted((*READERS, *FROM_ABOVE))
    others = [name for name in plugins_of(PLUGINS) if name not in own]

    return (*own, *others)


def reader(name: str) -> Reader:
    """The reader of a data set or format, imported now.

    Raises
    ------
    ConfigError
        For an unknown name, with the nearest known one.
    NotAvailable
        When a plug-in cannot be loaded, or phosphene's own metadata do not name a reader that comes with it.
    """
    target = {**READERS, **FORMATS}.get(name)
    if target is None:
        plugins = plugins_of(PLUGINS)
        if name not in plugins and name in FROM_ABOVE:
            raise NotAvailable(
                f"the reader '{name}' comes with phosphene, but the metadata of the installed package do not name it (entry "
                f"points of the group {PLUGINS}): phosphene is not installed, or was before its sources changed. Install it "
                "again: pip install --force-reinstall phosphene, or pip install -e . in a copy of the sources."
            )

        if name not in plugins:
            raise ConfigError(f"there is no data set '{name}'. {did_you_mean(name, known())}")

        return load_plugin(plugins[name], "reader", _reader_problem)()

    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)()


def broken_readers() -> list[str]:
    """A sentence for every reader of a room above or of another package that cannot be used; all of them are loaded."""
    problems = []
    for name in plugins_of(PLUGINS):
        try:
            reader(name)
        except NotAvailable as error:
            problems.append(str(error))

    return problems


def _reader_problem(content: Any) -> str:
    """What is wrong with the reader of another package; "" for nothing."""
    if not callable(content):
        return f"a class of readers is expected, but it is a {type(content).__name__}."

    made: Any = content()
    expected = ("title", "citation", "licence", "url", "files", "options", "find", "subjects", "load", "check")
    missing = [name for name in expected if not hasattr(made, name)]
    if missing:
        return f"a {type(made).__name__} has no {', '.join(missing)}."

    if not (isinstance(made.options, type) and issubclass(made.options, ReaderOptions)):
        return f"the options of {type(made).__name__} are no ReaderOptions."
    return ""


def split_spec(spec: str | Path) -> tuple[str, str | None]:
    """Data set name or path, and the subject behind its colon if there is one.

    Examples
    --------
    >>> split_spec("nsd:subj01")
    ('nsd', 'subj01')
    """
    if not isinstance(spec, Path):
        text = str(spec).strip()
    else:
        text = str(spec)

    if ":" not in text or checked_path(text).exists():
        return text, None

    head, _, subject = text.rpartition(":")
    if not head or not subject:
        raise ConfigError(f"'{text}' should be NAME:SUBJECT or PATH:SUBJECT, but one of the two is empty.")

    return head, subject


def locate(spec: str | Path, *, root: str | Path | None = None) -> Source:
    """Find what a data set argument means, without reading it.

    Parameters
    ----------
    spec : str or Path
        ``NAME``, ``NAME:SUBJECT``, ``PATH`` or ``PATH:SUBJECT``. A path is a folder written by ``phosphene data
        import``, or a .mat, .npz, .h5 or .hdf5 file of responses and pictures. A name is a data set of `READERS`, or of
        an imported folder of that name below `root`.
    root : str or Path, optional
        folder that holds one folder per data set, or the data set's own; by default the environment variable
        PHOSPHENE_DATA

    Returns
    -------
    Source
        which reader, which files, which person

    Raises
    ------
    ConfigError
        An unknown name, or no root where one is needed.
    DataError
        The data are not where they should be, or the path is of no known format.
    """
    name, subject = split_spec(spec)
    if name in known():
        return _by_name(name, subject, root)

    path = checked_path(name)
    if path.exists():
        return _by_path(path, subject)

    folder = _root(root)
    if folder is not None and not _looks_like_path(name) and (folder / name / "dataset.json").is_file():
        return Source(name, reader("folder"), folder / name, subject)

    if _looks_like_path(name):
        raise DataError(f"{path} is not there. Give an existing file or folder, or one of: {', '.join(known())}.")

    raise ConfigError(
        f"there is no data set '{name}'. {did_you_mean(name, known())} A path to a .mat, .npz or .h5 file or to a "
        "folder written by 'phosphene data import' works too."
    )


def open_dataset(
    spec: str | Path,
    *,
    root: str | Path | None = None,
    options: Mapping[str, Any] | ReaderOptions | None = None,
) -> Dataset:
    """Read a data set by name or path.

    Parameters
    ----------
    spec : str or Path
        see `locate`
    root : str or Path, optional
        see `locate`
    options : mapping of {str: Any} or ReaderOptions, optional
        of its reader, such as ``{"image_shape": [10, 10]}`` for a pair file

    Returns
    -------
    Dataset
        betas and pictures may be memory maps. With ``NAME:SUBJECT`` only that subject.

    Raises
    ------
    ConfigError, DataError
        With what was looked for, where, and what to do.
    """
    source = locate(spec, root=root)
    values = source.options(options)

    with reading(source.path):
        return source.reader.load(source.path, values, source.subject)


def _looks_like_path(text: str) -> bool:
    return any(c in text for c in ("/", os.sep)) or text.startswith(("~", ".")) or Path(text).suffix in _PAIR_SUFFIXES


def _is_bdata(path: Path) -> bool:
    """Whether an HDF5 file describes its columns as the Kamitani lab does."""
    if path.suffix.lower() not in (".h5", ".hdf5"):
        return False

    try:
        with open_hdf5(path) as file:
            return "dataset" in file and "metadata/key" in file
    except (OSError, RuntimeError, KeyError):  # the reader of pair files says what is wrong with it
        return False


def _root(root: str | Path | None) -> Path | None:
    if root is not None:
        return checked_path(root)
    if os.environ.get(ROOT):
        return checked_path(os.environ[ROOT])

    return None


def _by_path(path: Path, subject: str | None) -> Source:
    if path.is_dir():
        if (path / "dataset.json").is_file():
            return Source(path.name, reader("folder"), path, subject)

        names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
        raise DataError(
            f"{path} is no data set of phosphene: it has no dataset.json (it holds {', '.join(names[:6]) or 'nothing'}"
            f"{' ...' if len(names) > 6 else ''}). For the folder of a known data set give its name and this folder: "
            f"--data NAME --root {path}, where NAME is one of {', '.join(known())}. For data of your own run "
            "'phosphene data import' first."
        )

    if path.suffix.lower() in _PAIR_SUFFIXES:
        return Source(path.name, reader("bdata" if _is_bdata(path) else "pairs"), path, subject)

    raise DataError(
        f"{path} has the ending '{path.suffix}', but a data file ends in {', '.join(_PAIR_SUFFIXES)}. "
        "For betas in .npy or .csv with a table of trials use 'phosphene data import --betas ... --trials ...'."
    )


def _by_name(name: str, subject: str | None, root: str | Path | None) -> Source:
    found = reader(name)
    if not found.files:
        return Source(name, found, Path(), subject)

    folder = _root(root)
    if folder is None:
        raise ConfigError(
            f"'{name}' needs files on this machine, and nothing says where they are. Give --root DIR, or set {ROOT} to "
            f"the folder that holds {found.files}."
        )

    if not folder.exists():
        if root is not None:
            source = "--root"
        else:
            source = f"the environment variable {ROOT}"

        raise DataError(f"{source} names {folder}, which is not there; it should hold {found.files}.")

    return Source(name, found, found.find(folder), subject)
