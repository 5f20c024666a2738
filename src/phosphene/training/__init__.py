"""Training: one loop for every network, its batches, its checkpoints and its losses.

>>> from phosphene.training import TrainConfig
>>> TrainConfig(steps=100, batch_size=8).schedule
'cosine'

Names that need torch are imported when they are first used.
"""

from __future__ import annotations

from phosphene._lazy import attach

_WHERE = {
    "BatchSampler": "sampling",
    "Draws": "sampling",
    "ModulePart": "checkpoint",
    "TrainConfig": "settings",
    "Trained": "loop",
    "Trainer": "loop",
    "cosine": "losses",
    "gathered": "losses",
    "info_nce": "losses",
    "learning_rate": "settings",
    "train": "loop",
}

__getattr__, __dir__, __all__ = attach(__name__, _WHERE)
