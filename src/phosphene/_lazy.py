"""Public names of a folder, each imported from its file when it is first used: importing phosphene stays fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def attach(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package sets as its ``__getattr__``, ``__dir__`` and ``__all__``.

    Parameters
    ----------
    package : its ``__name__``
    homes : public name -> the module below the package that defines it
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    names = sorted(homes)
    return __getattr__, lambda: list(names), names
