"""Data: what was shown and what was measured, from files to Trials and Stimuli.

``open_dataset`` reads any data set by name or path; ``splits.resolve`` says what trains and what tests;
``Standardiser`` and ``Screen`` prepare betas from training trials alone; ``write_dataset`` and ``import_table`` make
the folder format that opens without being read.
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
