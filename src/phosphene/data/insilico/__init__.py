"""The in-silico lab: pictures with captions, and simulated subjects whose every noise ceiling is known.

``scenes`` paints and describes pictures, ``brain`` answers to them, ``designs`` decides what is shown when, and
``make`` runs a study.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phosphene.data.insilico.brain import Subject
    from phosphene.data.insilico.lab import Simulation, make

__all__ = ["Simulation", "Subject", "make"]

_HOME = {"Subject": "brain", "Simulation": "lab", "make": "lab"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
