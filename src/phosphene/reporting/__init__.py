"""Report: one page that shows what was decoded, how well, and whether to believe it. Reads run folders, nothing else.

- ``report(run)``: one self-contained HTML page, or a comparison of several runs
- ``figures``: the figures of the page, each a function returning a matplotlib Figure
"""

from __future__ import annotations

from typing import Any

__all__ = ["figures", "report"]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "figures":
        return importlib.import_module("phosphene.reporting.figures")
    if name == "report":
        return importlib.import_module("phosphene.reporting.html").report

    raise AttributeError(f"module 'phosphene.reporting' has no attribute '{name}'")
