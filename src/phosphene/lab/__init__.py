"""The in-silico lab: pictures with captions, and simulated subjects whose every noise ceiling is known.

``scenes`` draws and describes pictures, ``brain`` answers to them, ``designs`` decides what is shown when, ``make`` simulates a
study, ``scan`` puts it into a scanner, and ``write_bids`` or ``write_openfmri`` lay the runs on the disk.
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
