"""The best step of a training, by a number looked at on the way. It outlives a killed training through its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch.distributed as dist
from torch import nn

from phosphene.io import atomic
from phosphene.io.stages import read_safetensors
from phosphene.training.checkpoint import last_checkpoint, load_module_state, module_state

FILE = "best.safetensors"


class EnoughError(Exception):
    """Raised to end a training that no longer gets better.

    Parameters
    ----------
    step : int
        at which it ended
    """

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = int(step)


class BestStep:
    """The step at which a number is smallest, and the weights the network had there.

    Parameters
    ----------
    network : nn.Module
        being trained
    judge : callable
        gives the number, the smaller the better; called with the network in evaluation mode
    name : str
        of the number, in the curve of the training
    folder : Path, optional
        of checkpoints; the best weights are kept there as well
    patience : int, optional
        looks without a better one after which the training is ended with EnoughError; none: never

    Attributes
    ----------
    step, value : of the best look so far; 0 and infinity before the first

    Examples
    --------
    >>> best = BestStep(network, judge, "validation_mse", folder)                                # doctest: +SKIP
    >>> train(network, fetch, 900, settings, seed=0, log_every=100, watch=best.look)             # doctest: +SKIP
    >>> best.restore()                                                                           # doctest: +SKIP
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        network: nn.Module,
        judge: Callable[[], float],
        name: str,
        folder: Path | None = None,
        patience: int | None = None,
    ) -> None:
        self.network = network
        self.judge = judge
        self.name = name
        self.patience = patience

        if folder is None:
            self.file = None
        else:
            self.file = Path(folder) / FILE

        self.step = 0
        self.value = np.inf
        self._weights: dict[str, np.ndarray] = {}
        self._waited = 0

        if folder is None:
            saved = None
        else:
            saved = last_checkpoint(Path(folder))

        for entry in saved.record["curve"] if saved else []:
            self._count(entry)

        if self.step:
            # Weights of a later step, which will come again, do no harm: it will be the best again.
            self._weights = read_safetensors(self.file)

    def look(self, entry: dict[str, float]) -> None:
        """Judge the network as it is and write the number into the entry; called by the training loop every so often."""
        if not self._is_over():
            was_training = self.network.training
            self.network.eval()
            entry[self.name] = float(self.judge())
            self.network.train(was_training)

            if self._count(entry):
                self._keep()

        # Processes that train together go on together; what follows is not looked at.
        if self._is_over() and not (dist.is_available() and dist.is_initialized()):
            raise EnoughError(entry["step"])

    def restore(self) -> bool:
        """Put the weights of the best step into the network, on the CPU; False where there was no look."""
        self.network.cpu()
        if self.step:
            load_module_state(self.network, self._weights, "the best step")

        return bool(self.step)

    def _count(self, entry: Mapping[str, float]) -> bool:
        """Whether an entry of the curve is the best so far; entries without the number are passed over."""
        if self.name not in entry:
            return False

        if entry[self.name] < self.value:
            self.step, self.value, self._waited = int(entry["step"]), float(entry[self.name]), 0
            return True

        self._waited += 1
        return False

    def _is_over(self) -> bool:
        return self.patience is not None and self._waited >= self.patience

    def _keep(self) -> None:
        self._weights = module_state(self.network)
        if self.file is not None:
            from safetensors.numpy import save

            atomic.write_bytes(self.file, save(self._weights, {"step": str(self.step)}))
