"""Training: one loop for every network, its batches, its checkpoints and its losses.

>>> from phosphene.train import TrainConfig
>>> TrainConfig(steps=100, batch_size=8).schedule
'cosine'

Names that need torch are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "BatchSampler": "sampling",
    "Draws": "sampling",
    "ModulePart": "checkpoint",
    "TrainConfig": "settings",
    "Trained": "loop",
    "cosine": "losses",
    "gathered": "losses",
    "info_nce": "losses",
    "learning_rate": "settings",
    "train": "loop",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
