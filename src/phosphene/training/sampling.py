"""Which items make up a batch, and the noise that goes with them: functions of (seed, step), never of what ran before.

A process asks for its share of a step's batch. Batches and noise are drawn for the whole step and then shared out, so
that one process, several, or one that accumulates several parts see the same items with the same noise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from phosphene.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch


def seed_of(*numbers: int) -> int:
    """One 63-bit seed from several integers.

    Parameters
    ----------
    *numbers : int
        0 or above; the order counts, and so does how many there are

    Returns
    -------
    int
        0 to 2 ** 63 - 1

    Examples
    --------
    >>> seed_of(1, 2) == seed_of(1, 2), seed_of(1, 2) == seed_of(2, 1)
    (True, False)
    """
    # Hashed, not added: seed 0 at step 1 and seed 1 at step 0 must have nothing in common. 63 bits, since torch takes an
    # int64 and a negative seed would be another one.
    return int(np.random.SeedSequence([int(n) for n in numbers]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=4)  # a batch meets two epochs at most as a rule; validation may take turns with training
def _order(n_items: int, seed: int, epoch: int) -> np.ndarray:
    """(n_items,) int64, the order of one epoch."""
    order = np.random.Generator(np.random.Philox(seed_of(seed, epoch, 1))).permutation(n_items)
    order.flags.writeable = False  # every caller gets this same array
    return order


class BatchSampler:
    """Every item once per epoch in a new order; a batch may span the end of one epoch and the start of the next.

    Parameters
    ----------
    n_items : int
        how many items there are
    batch_size : int
        items per step; may exceed `n_items`
    seed : int
        of all orders

    Raises
    ------
    DataError
        Without items.

    Examples
    --------
    >>> batches = BatchSampler(5, 3, seed=0)
    >>> sorted(np.concatenate([batches.rows(s) for s in range(5)]).tolist()) == sorted(list(range(5)) * 3)
    True
    """

    def __init__(self, n_items: int, batch_size: int, seed: int) -> None:
        if n_items < 1:
            raise DataError("there is nothing to train on: 0 items came. Check the split and the selection.")

        self.n_items = int(n_items)
        self.batch_size = int(batch_size)
        self.seed = int(seed)

    def rows(self, step: int) -> np.ndarray:
        """The items of a step.

        Parameters
        ----------
        step : int
            counted from 0

        Returns
        -------
        ndarray of shape (batch_size,), int64
            places among the items, counted from 0
        """
        # All epochs laid end to end make one long row of items, and a step is a window on it: nothing has to be remembered
        # between steps, and a resumed training takes up exactly where it was.
        at = np.arange(step * self.batch_size, (step + 1) * self.batch_size)  # (batch_size,)
        epochs = at // self.n_items
        places = at % self.n_items
        out = np.empty(self.batch_size, dtype=np.int64)

        for epoch in np.unique(epochs):
            mask = epochs == epoch
            out[mask] = _order(self.n_items, self.seed, int(epoch))[places[mask]]
        return out

    def share(self, rank: int, world: int, accumulate: int = 1) -> list[slice]:
        """The parts of a batch that one process computes, as slices of ``rows(step)``.

        Parameters
        ----------
        rank : int
            which process, from 0
        world : int
            how many processes
        accumulate : int, default 1
            parts of each process

        Returns
        -------
        list of slice
            `accumulate` of them, of equal length

        Raises
        ------
        ConfigError
            When the batch cannot be divided evenly.
        """
        # Unequal parts would each be averaged over their own rows, and the mean of means is not the mean of the batch.
        parts = world * accumulate
        if self.batch_size % parts:
            raise ConfigError(
                f"a batch of {self.batch_size} cannot be shared evenly by {world} processes x {accumulate} accumulated "
                f"parts; make batch_size a multiple of {parts}."
            )

        # The parts of one process lie next to each other, so that its rows can be read in one go.
        size = self.batch_size // parts
        slices = []
        for part in range(rank * accumulate, (rank + 1) * accumulate):
            slices.append(slice(part * size, (part + 1) * size))
        return slices


class Draws:
    """Noise for one part of one step's batch, the same however the batch is shared out.

    Each method draws for the whole batch and gives the rows of this part; a loss that draws the same things in the
    same order gets the same noise for the same item on one process or many.

    Parameters
    ----------
    seed, step : int
        what the noise is a function of
    total : int
        items in the step's batch
    part : slice, optional
        rows of the batch that belong to this part; all when None
    device : torch.device or str, default "cpu"
        where the numbers are put; they are always drawn on the CPU, so that every device gets the same
    turn : int, default 0
        of several in a step, each with noise of its own
    """

    def __init__(
        self,
        seed: int,
        step: int,
        total: int,
        part: slice | None = None,
        device: torch.device | str = "cpu",
        turn: int = 0,
    ) -> None:
        import torch

        self.total = total
        self.part = part or slice(0, total)
        self.device = device

        # Turn 0 adds nothing to the seed, so that networks without turns keep the noise they had before there were any.
        own_turn = (turn,) if turn else ()
        self.generator = torch.Generator().manual_seed(seed_of(seed, step, 2, *own_turn))
        """For what the whole batch shares; never use it for something drawn per item."""

    def __len__(self) -> int:
        return self.part.stop - self.part.start

    def normal(self, *shape: int) -> torch.Tensor:
        """Noise of a standard normal distribution.

        Parameters
        ----------
        *shape : int
            of one item

        Returns
        -------
        Tensor of shape (n_part, *shape), float32
            mean 0 and variance 1
        """
        import torch

        # Drawn for the whole batch and then cut: a part that drew for itself would depend on how many parts there are.
        return torch.randn(self.total, *shape, generator=self.generator)[self.part].to(self.device)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Noise of a uniform distribution.

        Parameters
        ----------
        *shape : int
            of one item

        Returns
        -------
        Tensor of shape (n_part, *shape), float32
            0 to below 1
        """
        import torch

        return torch.rand(self.total, *shape, generator=self.generator)[self.part].to(self.device)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Whole numbers, each as likely as the others, such as the steps of a diffusion.

        Parameters
        ----------
        high : int
            one more than the largest
        *shape : int
            of one item

        Returns
        -------
        Tensor of shape (n_part, *shape), int64
            0 to high - 1
        """
        import torch

        return torch.randint(high, (self.total, *shape), generator=self.generator)[self.part].to(self.device)
