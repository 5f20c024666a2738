"""Data: what was shown and what was measured, from files to Trials and Stimuli.

``open_dataset`` reads any data set by name or path; ``splits.resolve`` says what trains and what tests;
``Standardiser`` and ``Screen`` prepare betas from training trials alone; ``write_dataset`` and ``import_table`` make
the folder format that opens without being read.
"""

from __future__ import annotations

from phosphene._lazy import attach

_PUBLIC = {
    "READERS": "registry",
    "Finding": "findings",
    "PictureFolder": "pictures",
    "Reader": "reader",
    "ReaderOptions": "reader",
    "Screen": "quality",
    "Source": "registry",
    "Standardiser": "standardise",
    "check_trials": "quality",
    "import_dataset": "importing",
    "import_table": "importing",
    "inner_folds": "splits",
    "locate": "registry",
    "open_dataset": "registry",
    "read_dataset": "folder",
    "read_picture": "pictures",
    "ready": "quality",
    "write_dataset": "folder",
}

__getattr__, __dir__, __all__ = attach(__name__, _PUBLIC)
