"""What a fitted run can be asked beyond its scores. One file is one analysis; the registry names them.

>>> from phosphene.analyse import analyse                            # doctest: +SKIP
>>> analyse(flow.open_run("runs/demo"), "reliability").summary       # doctest: +SKIP

To add an analysis, write a subclass of ``Analysis`` (see ``base.py``) and name it in ``ANALYSES``. The command, the
files in the run, resuming and the section of the report come with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from phosphene.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from phosphene.analysis.base import Analysis

__all__ = ["ANALYSES", "analyse", "analysis", "analysis_names", "show_analyses"]

ANALYSES: dict[str, str] = {
    "reliability": "phosphene.analysis.reliability:Reliability",
    "cycle": "phosphene.analysis.cycle:Cycle",
    "stimulate": "phosphene.analysis.stimulate:Stimulate",
    "words": "phosphene.analysis.words:Words",
    "interpolate": "phosphene.analysis.interpolate:Interpolate",
    "noise": "phosphene.analysis.noise:Noise",
    "categories": "phosphene.analysis.categories:Categories",
    "robustness": "phosphene.analysis.robustness:Robustness",
}
"""Name of an analysis, as in ``phosphene analyse RUN NAME``, and where its class lives."""


def analysis_names() -> list[str]:
    """Names of every analysis, without importing any."""
    return list(ANALYSES)


def analysis(name: str) -> type[Analysis]:
    """The class of an analysis. Raises ConfigError for an unknown name, with the nearest known one."""
    if name not in ANALYSES:
        raise ConfigError(f"there is no analysis '{name}'. {did_you_mean(name, ANALYSES)}")

    module, _, attribute = ANALYSES[name].partition(":")
    return getattr(import_module(module), attribute)


def show_analyses() -> str:
    """One line per analysis: its name, what it is about, and the arrows it needs."""
    kinds = {name: analysis(name) for name in ANALYSES}
    wide = max(map(len, kinds))
    return "\n".join(f"{name:<{wide}}  {kind.title} ({', '.join(kind.needs)})" for name, kind in kinds.items())


def __getattr__(name: str) -> Any:
    if name == "analyse":
        return import_module("phosphene.analysis.base").analyse

    raise AttributeError(f"module 'phosphene.analysis' has no attribute '{name}'")
