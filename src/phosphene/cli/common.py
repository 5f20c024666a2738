"""Options that several commands take, and what becomes of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from phosphene.io.progress import Progress

Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of the data set (default: a folder of its name in PHOSPHENE_DATA)."),
]
DataOptions = Annotated[
    list[str] | None, typer.Option("--option", help="Option of the reader, KEY=VALUE; may be given several times.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def layers_of(command: dict[str, Any], config: Path | None, assignments: list[str] | None) -> list[tuple[str, Any]]:
    """Layers of a configuration, the later over the earlier: a file, the command's own options, --set.

    Parameters
    ----------
    command : dict of str to Any
        the command's own options, as `command_layer` gives them
    config : Path or None
        file of values
    assignments : list of str or None
        KEY=VALUE of each --set

    Returns
    -------
    list of tuple of (str, Any)
        (origin, values)
    """
    from phosphene.io.atomic import checked_path
    from phosphene.io.config import parse_assignments, read_yaml

    layers: list[tuple[str, Any]] = []
    if config is not None:
        layers.append((str(config), read_yaml(checked_path(config))))

    layers.append(("command line", command))
    layers.append(("--set", parse_assignments(assignments or [])))

    return layers


def command_layer(
    data: str | None,
    root: Path | None,
    split: str | None,
    preset: str | None,
    seed: int | None,
    option: list[str] | None,
) -> dict[str, Any]:
    """The command's own options as values of the configuration; what was not said is left to the layers below.

    Parameters
    ----------
    data : str or None
        NAME or NAME:SUBJECT
    root : Path or None
        folder of the data set
    split, preset : str or None
        names
    seed : int or None
        of everything drawn at random
    option : list of str or None
        KEY=VALUE of the reader

    Returns
    -------
    dict of str to Any
        values by dotted key
    """
    from phosphene.data.registry import split_spec

    if data is None:
        name = None
        subject = None
    else:
        name, subject = split_spec(data)

    options = {
        "data.name": name,
        "data.subject": subject,
        "data.root": text(root),
        "split": split,
        "preset": preset,
        "seed": seed,
    }

    values: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if option:
        values["data.options"] = options_of(option)

    return values


def options_of(option: list[str] | None) -> dict[str, Any]:
    """KEY=VALUE given several times, as a mapping."""
    from phosphene.io.config import parse_assignments

    return parse_assignments(option or [])


def shell(path: Path | str) -> str:
    """A path as a shell reads it back, quoted where it holds spaces or the like.

    Examples
    --------
    >>> print(shell("runs/my lab"), shell("runs/größe"))
    'runs/my lab' runs/größe
    """
    plain = str(path)
    if re.fullmatch(r"[\w@%+=:,./-]+", plain):
        return plain

    return shlex.quote(plain)


def text(path: Path | None) -> str | None:
    """A path as text; None stays None."""
    if path is None:
        return None

    return str(path)


def progress_to(quiet: bool) -> Progress:
    """Where progress goes: the terminal, or nowhere."""
    from phosphene.io.progress import Progress

    return Progress(quiet=quiet)
