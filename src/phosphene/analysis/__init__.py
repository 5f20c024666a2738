"""What a fitted run can be asked beyond its scores. One file is one analysis; the registry names them.

An analysis returns numbers (see ``base.py``). ``phosphene.analyse`` runs one and files its tables, sentences and figures
in the run:

>>> import phosphene
>>> phosphene.analyse(phosphene.open_run("runs/demo"), "reliability").summary       # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from phosphene.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from phosphene.analysis.interface import Analysis

__all__ = ["ANALYSES", "analysis", "analysis_names", "show_analyses"]

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
    """Class of an analysis.

    Parameters
    ----------
    name : str
        one of `ANALYSES`

    Returns
    -------
    type of Analysis
        its class, imported now

    Raises
    ------
    ConfigError
        For an unknown name; the message names the nearest known one.
    """
    if name not in ANALYSES:
        raise ConfigError(f"there is no analysis '{name}'. {did_you_mean(name, ANALYSES)}")

    module, _, attribute = ANALYSES[name].partition(":")
    return getattr(import_module(module), attribute)


def show_analyses() -> str:
    """One line per analysis: its name, what it is about, and the arrows it needs."""
    width = max(map(len, ANALYSES))
    lines = []

    for name in ANALYSES:
        kind = analysis(name)
        lines.append(f"{name:<{width}}  {kind.title} ({', '.join(kind.needs)})")

    return "\n".join(lines)
