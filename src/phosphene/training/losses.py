"""Losses that several networks share. They work on one process and, through :func:`gathered`, on many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from phosphene.errors import DataError, MachineError

# Told by the loop, read by the loss: a parameter would have to pass through every network between the two.
_whole: ContextVar[bool] = ContextVar("whole_batch", default=True)


@contextmanager
def whole_batch(whole: bool) -> Iterator[None]:
    """Say whether losses see as many rows at a time as they were meant to; losses that compare rows refuse fewer.

    Parameters
    ----------
    whole : bool
        False where memory ran out and a batch is computed in more parts than its configuration says

    Yields
    ------
    None
        losses are computed in the block
    """
    token = _whole.set(whole)
    try:
        yield
    finally:
        _whole.reset(token)


def must_be_whole() -> None:
    """Refuse to go on, for a loss that compares the items of a batch, where it sees fewer of them than it was meant to.

    Raises
    ------
    MachineError
        When memory ran out and the batch is computed in smaller parts. A mean over rows is the same in parts; a comparison
        with fewer rows is easier, and the network would learn something else without anybody noticing.
    """
    if not _whole.get():
        raise MachineError(
            "memory ran out, and this loss compares the items of a batch with each other, so that computing it in smaller "
            "parts would change it. Lower the memory with recompute=true or precision=bf16, or choose a smaller batch_size "
            "or a larger accumulate yourself: that changes what is learned."
        )


class _Gathered(torch.autograd.Function):
    """Rows of every process; backward, each process takes the sum over processes of what its own rows received."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)

        # all_gather takes no gradient of its own, hence this class around it.
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)  # (n_processes * n, ...)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # The sum is taken in place, and autograd may still need the tensor it handed in.
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]  # (n, ...)


def gathered(x: Tensor) -> Tensor:
    """Rows of all processes, in rank order, with gradients flowing back to each; `x` itself on one process.

    A loss computed from gathered rows on every process, then averaged over processes as data-parallel training does,
    has the gradient of the same loss on one process.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        rows of this process; every process must bring the same number, since all_gather asks for equal shapes

    Returns
    -------
    Tensor of shape (n * n_processes, ...)
        rows of the first process first
    """
    # Most trainings run on one process, where a copy of the rows would only cost memory.
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    return _Gathered.apply(x.contiguous())


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """One minus the cosine of the angle between rows, averaged: 0 (same direction) to 2.

    Parameters
    ----------
    a, b : Tensor of shape (n, d)
        compared row by row, of any length above 0

    Returns
    -------
    Tensor
        scalar

    Examples
    --------
    >>> cosine(torch.eye(2), torch.eye(2)).item()
    0.0
    """
    return (1 - F.cosine_similarity(a, b, dim=-1)).mean()  # (n,) to a scalar


def info_nce(a: Tensor, b: Tensor, scale: Tensor | float, *, symmetric: bool = True) -> Tensor:
    """InfoNCE: row i of `a` should find row i of `b` among all rows, and the other way round.

        s_ij = scale * cos(a_i, b_j),    loss = mean of -log softmax_j(s)_ii  (and of its transpose)

    Parameters
    ----------
    a, b : Tensor of shape (n, d)
        not necessarily normalised; rows of all processes take part
    scale : Tensor or float
        inverse temperature 1 / tau, above 0
    symmetric : bool, default True
        average both directions; `a` to `b` only when False

    Returns
    -------
    Tensor
        scalar; ln(n) when nothing is told apart

    Raises
    ------
    DataError
        When the two differ in shape.
    MachineError
        When memory ran out and the rows are fewer than they were meant to be: it would be another loss.

    References
    ----------
    van den Oord et al. 2018, eq. 4; Radford et al. 2021, figure 3.

    Examples
    --------
    >>> round(info_nce(torch.ones(8, 3), torch.ones(8, 3), 10.0).item(), 4)  # ln 8
    2.0794
    """
    if a.shape != b.shape:
        raise DataError(f"pairs are contrasted row by row, but {tuple(a.shape)} met {tuple(b.shape)}.")

    must_be_whole()

    # Lengths in float32 also under bf16, which keeps three digits of them.
    a = gathered(F.normalize(a.float(), dim=-1))  # (n_processes * n, d)
    b = gathered(F.normalize(b.float(), dim=-1))
    logits = scale * a @ b.T  # (n_processes * n, n_processes * n), row i is a_i with every b
    target = torch.arange(len(a), device=a.device)  # the pair of row i stands on the diagonal
    loss = F.cross_entropy(logits, target)
    if symmetric:
        return (loss + F.cross_entropy(logits.T, target)) / 2
    return loss


def row_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson correlation of each row of `x` with that of `y`: two (n, d) to (n,); 0 where either is constant.

    Parameters
    ----------
    x, y : Tensor of shape (n, d)
        any scale and offset, which the correlation takes out

    Returns
    -------
    Tensor of shape (n,)
        -1 to 1
    """
    x = x - x.mean(1, keepdim=True)
    y = y - y.mean(1, keepdim=True)

    # The bound keeps a constant row at 0 / 1e-12 = 0, where 0 / 0 would make the whole loss NaN.
    return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1)).clamp_min(1e-12)
