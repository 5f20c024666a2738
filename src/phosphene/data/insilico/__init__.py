"""The in-silico lab: pictures with captions, and simulated subjects whose every noise ceiling is known.

``scenes`` paints and describes pictures, ``brain`` answers to them, ``designs`` decides what is shown when, ``make`` runs
a study, ``scan`` puts it into a scanner, and ``write_bids`` or ``write_openfmri`` lay the runs on the disk.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phosphene.data.insilico.bold import Scanner, scan
    from phosphene.data.insilico.bold_files import write_bids, write_openfmri
    from phosphene.data.insilico.brain import Subject
    from phosphene.data.insilico.lab import Simulation, make

__all__ = ["Scanner", "Simulation", "Subject", "make", "scan", "write_bids", "write_openfmri"]

_HOME = {
    "Scanner": "bold",
    "Simulation": "lab",
    "Subject": "brain",
    "make": "lab",
    "scan": "bold",
    "write_bids": "bold_files",
    "write_openfmri": "bold_files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
