"""The vocabulary: what was measured (Trials), what was shown (Stimuli), what was decoded (Images, Latents).

Everything here is immutable. Selecting trials, voxels or stimuli returns a new view that shares the arrays of the
old one; betas are read only when asked for, so a subject of NSD's size can be selected from without being loaded.
"""

from phosphene.types.dataset import Dataset, Split
from phosphene.types.identity import HandedRows, NoiseKey, Rows, SelectedRows, digest_of, positions
from phosphene.types.stimuli import Images, Latents, Stimuli, at_size
from phosphene.types.trials import ROI, Trials

__all__ = [
    "ROI",
    "Dataset",
    "HandedRows",
    "Images",
    "Latents",
    "NoiseKey",
    "Rows",
    "SelectedRows",
    "Split",
    "Stimuli",
    "Trials",
    "at_size",
    "digest_of",
    "positions",
]
