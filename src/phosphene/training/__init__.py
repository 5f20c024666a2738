"""Training: one loop for every network, its batches, its checkpoints and its losses.

>>> from phosphene.training import TrainConfig
>>> TrainConfig(steps=100, batch_size=8).schedule
'cosine'

Names that need torch are imported when they are first used.
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
