from . import figures as figures
from .html import report

__all__ = [
    "figures",
    "report",
]
