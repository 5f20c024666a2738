from .bold import Scanner, scan
from .bold_files import write_bids, write_openfmri
from .brain import Subject
from .lab import Simulation, make

__all__ = [
    "Scanner",
    "Simulation",
    "Subject",
    "make",
    "scan",
    "write_bids",
    "write_openfmri",
]
