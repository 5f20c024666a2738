from .dataset_folder import read_dataset, write_dataset
from .findings import Finding
from .importing import import_dataset, import_table
from .pictures import PictureFolder, read_picture
from .quality import Screen, check_trials, ready
from .reader import Reader, ReaderOptions
from .registry import READERS, Source, locate, open_dataset
from .splits import inner_folds
from .standardise import Standardiser

__all__ = [
    "READERS",
    "Finding",
    "PictureFolder",
    "Reader",
    "ReaderOptions",
    "Screen",
    "Source",
    "Standardiser",
    "check_trials",
    "import_dataset",
    "import_table",
    "inner_folds",
    "locate",
    "open_dataset",
    "read_dataset",
    "read_picture",
    "ready",
    "write_dataset",
]
