from .bold import Scanner, scan
from .bold_files import write_bids, write_openfmri
from .lab import Simulation, make
from .subject import Subject

__all__ = [
    "Scanner",
    "Simulation",
    "Subject",
    "make",
    "scan",
    "write_bids",
    "write_openfmri",
]
