"""Public names of a folder, each imported from its file when it is first used: importing phosphene stays fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """A folder that is called as a verb, too."""

    home: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The function of the folder's name, wherever it is defined."""
        return getattr(import_module(self.home), self.__name__.rpartition(".")[2])(*arguments, **options)


def as_verb(package: str, home: str) -> None:
    """Let a folder be called: ``phosphene.report(run)`` and ``phosphene.reporting.figures`` are one name.

    Parameters
    ----------
    package : str
        its ``__name__``
    home : str
        the module that defines the function of the same name
    """
    folder = sys.modules[package]
    folder.__class__ = _Verb
    folder.home = home


def attach(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package sets as its ``__getattr__``, ``__dir__`` and ``__all__``.

    Parameters
    ----------
    package : str
        its ``__name__``
    homes : mapping of {str: str}
        public name -> the module below the package that defines it
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")

        return getattr(import_module(f"{package}.{homes[name]}"), name)

    names = sorted(homes)
    return __getattr__, lambda: list(names), names
