"""The in-silico lab: pictures with captions, and simulated subjects whose every noise ceiling is known.

``scenes`` paints and describes pictures, ``brain`` answers to them, ``designs`` decides what is shown when, ``make`` runs
a study, ``scan`` puts it into a scanner, and ``write_bids`` or ``write_openfmri`` lay the runs on the disk.
"""

from __future__ import annotations

from phosphene._lazy import attach

_HOME = {
    "Scanner": "bold",
    "Simulation": "lab",
    "Subject": "brain",
    "make": "lab",
    "scan": "bold",
    "write_bids": "bold_files",
    "write_openfmri": "bold_files",
}

__getattr__, __dir__, __all__ = attach(__name__, _HOME)
