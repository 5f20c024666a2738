"""Betas to brain latents, and back. One file per network; ``to_latent`` / ``from_latent`` are its two halves.

==================  ================================================================================
`RoiMaeConfig`      LEA's ROI masked autoencoder: sizes and variants, ``paper`` and ``lab`` presets
`RoiMaePart`        the trained network as a part of a run
`RoiMae`            the network itself (needs torch)
`roi_partition`     ROIs that may overlap to groups that share out all voxels
`subject_batches`   several subjects' betas as batches for one training
`read_sc_mbm`       the public SC-MBM checkpoint, read safely; `load_sc_mbm` puts its trunk into a `RoiMae`
==================  ================================================================================
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "RoiMae": "roi_mae_network",
    "RoiMaeConfig": "roi_mae",
    "RoiMaePart": "roi_mae",
    "load_sc_mbm": "sc_mbm",
    "read_sc_mbm": "sc_mbm",
    "roi_partition": "roi_mae",
    "subject_batches": "roi_mae",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
