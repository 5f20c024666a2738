"""The best step of a training, by a number computed every so often. It outlives a killed training through its folder."""

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
        calls of `look` without a better number after which the training is ended with EnoughError; none: never

    Attributes
    ----------
    step : int
        the best so far; 0 before the first call of `look`
    value : float
        its number; infinity before the first call of `look`

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

        self.file: Path | None = None
        # Step 0 stands for "not judged yet": the first call comes after at least one step.
        self.step = 0
        self.value = np.inf
        self._weights: dict[str, np.ndarray] = {}
        self._waited = 0

        if folder is not None:
            self.file = Path(folder) / FILE
            self._resume(self.file)

    def _resume(self, file: Path) -> None:
        """Count what a killed training had logged up to its last checkpoint, and read the best weights."""
        saved = last_checkpoint(file.parent)
        if saved is None:
            return

        # Counted anew from the curve and not stored: entries after the checkpoint are lost with it, and so must be their
        # count, or patience would run out earlier than in a training that was never killed.
        for entry in saved.record["curve"]:
            self._count(entry)

        if self.step:
            # The file may hold weights of a later step. That step will come again, and be the best again.
            self._weights = read_safetensors(file)

    def look(self, entry: dict[str, float]) -> None:
        """Judge the network as it is and write the number into the entry; called by the training loop every so often.

        Parameters
        ----------
        entry : dict of str to float
            of the curve, with its "step"; the number is added under the name it has

        Raises
        ------
        EnoughError
            When `patience` calls brought nothing better, on one process.
        """
        if not self._is_over():
            # Dropout off while it is judged, and whatever mode it was in afterwards: the loop does not set it again.
            was_training = self.network.training
            self.network.eval()
            entry[self.name] = float(self.judge())
            self.network.train(was_training)

            if self._count(entry):
                self._keep()

        # Processes that train together go on together; what follows is not looked at.
        if self._is_over() and not (dist.is_available() and dist.is_initialized()):
            raise EnoughError(int(entry["step"]))

    def restore(self) -> bool:
        """Put the weights of the best step into the network, on the CPU; False where there was no look.

        Returns
        -------
        bool
            whether the network is now as it was at its best; False leaves the weights of the last step
        """
        # The weights are arrays on the host, and a caller goes on to save or to decode from there.
        self.network.cpu()
        if self.step:
            load_module_state(self.network, self._weights, "the best step")
        return bool(self.step)

    def _count(self, entry: Mapping[str, float]) -> bool:
        """Whether an entry of the curve is the best so far; entries without the number are passed over."""
        if self.name not in entry:
            return False

        # A number equal to the best is no better: a network that stands still runs out of patience. So does NaN.
        if entry[self.name] < self.value:
            self.step = int(entry["step"])
            self.value = float(entry[self.name])
            self._waited = 0
            return True

        self._waited += 1
        return False

    def _is_over(self) -> bool:
        return self.patience is not None and self._waited >= self.patience

    def _keep(self) -> None:
        """Keep the weights of this step in memory, and on disk for a training that is killed later."""
        self._weights = module_state(self.network)
        if self.file is not None:
            from safetensors.numpy import save

            # Whole or not at all: a kill while it is written leaves the weights of the step that was best before.
            atomic.write_bytes(self.file, save(self._weights, {"step": str(self.step)}))
