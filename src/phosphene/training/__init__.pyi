from .checkpoint import ModulePart
from .loop import Trained, Trainer, train
from .losses import cosine, gathered, info_nce
from .sampling import BatchSampler, Draws
from .settings import TrainConfig, learning_rate

__all__ = [
    "BatchSampler",
    "Draws",
    "ModulePart",
    "TrainConfig",
    "Trained",
    "Trainer",
    "cosine",
    "gathered",
    "info_nce",
    "learning_rate",
    "train",
]
