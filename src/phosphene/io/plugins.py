"""Plug-ins of other packages: each is loaded by itself, and one that is broken breaks nothing but itself."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from phosphene.errors import NotAvailable


def plugins_of(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name, without importing any; of two with one name the first that is found.

    Parameters
    ----------
    group : str
        such as ``phosphene.recipes``

    Returns
    -------
    dict of str to EntryPoint
        by the alphabet
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, entry)
    return dict(sorted(found.items()))


def load_plugin(entry: EntryPoint, kind: str, check: Callable[[Any], str] = lambda _: "") -> Any:
    """What an entry point names, once it is known to be of use.

    Parameters
    ----------
    entry : EntryPoint
        of another package
    kind : str
        what it adds, such as "recipe", for the message
    check : callable, optional
        given what was loaded; says what is wrong with it, "" for nothing

    Returns
    -------
    object
        what was loaded

    Raises
    ------
    NotAvailable
        Naming the plug-in, its package and what is wrong.
    """
    try:
        content = entry.load()
        problem = check(content)
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise NotAvailable(
            f"the {kind} '{entry.name}' of {package_of(entry)} ({entry.value}) cannot be loaded: {reason}. "
            "Repair or update that package, or remove it; nothing else needs it."
        ) from error

    if problem:
        raise NotAvailable(
            f"the {kind} '{entry.name}' of {package_of(entry)} ({entry.value}) cannot be used: {problem}. Repair or update that "
            "package, or remove it; nothing else needs it."
        )

    return content


def package_of(entry: EntryPoint) -> str:
    """The installed package an entry point comes with, and its version.

    Parameters
    ----------
    entry : EntryPoint
        as the system of packages gives it

    Returns
    -------
    str
        such as "the package absolute-metrics 1.0"
    """
    if entry.dist is None:
        return "an unknown package"
    return f"the package {entry.dist.name} {entry.dist.version}"
