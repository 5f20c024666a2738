from ._version import __version__
from .data.registry import open_dataset
from .flow import ScoredPictures, analyse, decode, encode, encode_pictures, evaluate, fit, score
from .recipes import recipe, recipe_names
from .reporting.html import report
from .run import Run, configure, open_run
from .types import Dataset, Images, Latents, Split, Stimuli, Trials

__all__ = [
    "Dataset",
    "Images",
    "Latents",
    "Run",
    "ScoredPictures",
    "Split",
    "Stimuli",
    "Trials",
    "__version__",
    "analyse",
    "configure",
    "decode",
    "encode",
    "encode_pictures",
    "evaluate",
    "fit",
    "open_dataset",
    "open_run",
    "recipe",
    "recipe_names",
    "report",
    "score",
]
