"""What a training will need, before it is done: memory by arithmetic, operations by counting, time by a few real steps.

A :class:`Rehearsal` is called in place of :func:`phosphene.training.train`, and trains nothing worth keeping. It computes the
gradients of two and of four rows, counting operations and the bytes of every tensor as it comes and goes, which gives a line
over rows. Tensors of large networks have shapes there and no numbers, so that this takes seconds and hardly any memory at any
size; only for a loss that needs numbers, gradients are really computed. Where a step of the whole batch is short enough, three
of them are done and timed.
"""

from __future__ import annotations

import functools
import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from phosphene.errors import MachineError
from phosphene.io import memory
from phosphene.training.loop import Fetch, NetworkLoss, Trained, train, turns_of
from phosphene.training.losses import whole_batch
from phosphene.training.machine import ADVICE, held
from phosphene.training.recompute import recomputing
from phosphene.training.sampling import BatchSampler, Draws
from phosphene.training.settings import TrainConfig

PATIENCE = 5.0  # seconds; steps that together will take longer are not timed
STEPS = 3  # the first pays for what is done once, and the quicker of the others is taken
LARGE = 5_000_000  # weights; smaller networks are computed sooner than their shapes are


@dataclass(frozen=True)
class Passing:
    """Memory that forward and backward pass need beyond the weights, gradients among it.

    After each operation the tensors alive hold ``fixed + per_row * rows`` bytes. Which operation is the worst depends on the
    rows: with few, the last, when all gradients are there; with many, the middle, when all activations are.

    Attributes
    ----------
    fixed, per_row : ndarray of shape (n_operations,)
        bytes
    """

    fixed: np.ndarray
    per_row: np.ndarray

    @classmethod
    def of(cls, sizes: Sequence[int], traces: Sequence[np.ndarray]) -> Self:
        """From the bytes alive after each operation with two numbers of rows.

        Parameters
        ----------
        sizes : sequence of int
            fewer rows and more rows
        traces : sequence of ndarray
            (n_operations,) bytes for each

        Returns
        -------
        Passing
            the line through both sizes, one for each operation
        """
        few, many = sizes
        small, large = traces
        # Where the two are other operations, nothing can be paired off.
        if few == many or len(small) != len(large):
            # All of it is taken to grow with the rows, which errs towards too much.
            return cls(np.zeros(1), np.array([large.max() / many]))  # (1,) each

        # Never below zero: a line that falls would promise memory back for large batches.
        per_row = np.maximum(0.0, (large - small) / (many - few))  # (n_operations,)
        fixed = np.maximum(0.0, large - per_row * many)
        return cls(fixed, per_row)

    def __call__(self, rows: int) -> float:
        """Bytes at the most, for so many rows at a time.

        Parameters
        ----------
        rows : int
            items of one part of a batch

        Returns
        -------
        float
            of the worst moment, which is another one for few rows than for many
        """
        return float((self.fixed + self.per_row * rows).max())  # over (n_operations,)


@dataclass(frozen=True)
class Training:
    """What one training of a stage will need.

    Attributes
    ----------
    network : str
        name of its class
    weights : int
        how many numbers are trained
    steps, batch_size, accumulate : int
        of its configuration
    held : mapping of str to int
        bytes for weights, gradients, moments and average
    passing : Passing
        bytes of forward and backward pass, as configured, and with every block computed twice (None where nobody asked)
    recomputed : Passing or None
        see `passing`
    flops : float
        operations of a step over the whole batch
    seconds : float
        for all steps
    timed : bool
        whether `seconds` comes from real steps, or from operations over the rate of a plain product
    together : bool
        whether the loss compares the items of a batch with each other, so that smaller parts would change it
    """

    network: str
    weights: int
    steps: int
    batch_size: int
    accumulate: int
    held: Mapping[str, int]
    passing: Passing
    recomputed: Passing | None
    flops: float
    seconds: float
    timed: bool
    together: bool = False

    def peak(self, accumulate: int | None = None, recompute: bool = False) -> int:
        """Bytes at the most on the device, with a batch in so many parts.

        Parameters
        ----------
        accumulate : int, optional
            parts; those of the configuration by default
        recompute : bool, default False
            whether every block is computed twice

        Returns
        -------
        int
            bytes
        """
        # A part that does not divide evenly is as large as the largest.
        rows = math.ceil(self.batch_size / (accumulate or self.accumulate))
        if recompute and self.recomputed is not None:
            passing = self.recomputed(rows)
        else:
            passing = self.passing(rows)

        # A pass holds the gradients as well, at its end: counted once, and at least as large as they are.
        gradients = self.held["gradients"]
        return int(sum(self.held.values()) - gradients + max(passing, gradients))

    @property
    def checkpoint(self) -> int:
        """Bytes of one checkpoint on disk."""
        return sum(self.held.values()) - self.held["gradients"]

    @property
    def saving(self) -> int:
        """Bytes of the host's memory at the most while a checkpoint is written: two copies of its largest file."""
        return self.checkpoint + 2 * max(self.held["weights"], self.held["moments"])

    @property
    def how(self) -> str:
        """How all this is known, in words."""
        if self.timed:
            timed = f"{STEPS - 1} steps timed"
        else:
            timed = "time at least: operations over the rate of a plain product"
        return f"{self.weights / 1e6:.3g} M weights, {self.flops:.2g} operations a step, {timed}"


@dataclass
class Rehearsal:
    """A trainer that trains nothing, and says what each training it was asked for would need.

    Attributes
    ----------
    peak : Peak
        of the stage being rehearsed; set aside while a training is judged, whose memory is predicted and not measured
    known : list of Training
        of an earlier rehearsal of the same stage, which are not judged a second time
    recompute : bool
        whether to find out what computing every block twice would save; the time is not measured then
    trainings : list of Training
        in the order they came
    seconds : float
        spent on finding out
    held : int
        bytes that were held when the first began, beyond those at the start of `peak`
    """

    peak: memory.Peak
    known: list[Training] = field(default_factory=list)
    recompute: bool = False
    trainings: list[Training] = field(default_factory=list)
    seconds: float = 0.0
    held: int = 0

    def __call__(
        self,
        network: nn.Module,
        fetch: Fetch,
        n_items: int,
        config: TrainConfig,
        *,
        seed: int,
        watch: Callable[[dict[str, float]], None] | None = None,
        log_every: int = 50,
        **options: Any,
    ) -> Trained:
        """Judge a training instead of doing it.

        Parameters
        ----------
        network : nn.Module
            as for :func:`phosphene.training.train`; its weights stay as they are where its steps are not timed
        fetch : Fetch
            as for :func:`phosphene.training.train`
        n_items : int
            as for :func:`phosphene.training.train`
        config : TrainConfig
            as for :func:`phosphene.training.train`
        seed : int
            as for :func:`phosphene.training.train`
        watch : callable, optional
            called once with an entry as at the end of a training, so that what comes after it finds one
        log_every : int, default 50
            steps between calls of `watch`, whose time is counted
        options : Any
            of :func:`phosphene.training.train`, for the steps that are timed; nothing is saved or shown

        Returns
        -------
        Trained
            as if all steps had been done
        """
        # What the rehearsal itself takes must not count as memory of the stage.
        began = time.perf_counter()
        held_now = self.peak.hold()
        if not self.trainings:
            self.held = held_now

        number = len(self.trainings)
        if number < len(self.known):
            training = self.known[number]
        else:
            training = self._judged(network, fetch, n_items, config, seed, watch, log_every, options)

        self.trainings.append(training)
        if watch is not None:  # a stage may ask BestStep for a step that was judged
            watch({"step": config.steps, "loss": 0.0, "lr": config.lr, "gradient": 0.0})

        network.eval()
        self.peak.go_on()
        self.seconds += time.perf_counter() - began
        return Trained(config.steps, True, accumulate=config.accumulate)

    def _judged(
        self,
        network: nn.Module,
        fetch: Fetch,
        n_items: int,
        config: TrainConfig,
        seed: int,
        watch: Callable[[dict[str, float]], None] | None,
        log_every: int,
        options: dict[str, Any],
    ) -> Training:
        """What one training will need, counted on a few rows; where that is quick, with the time of real steps."""
        rows = BatchSampler(n_items, config.batch_size, seed).rows(0)
        parts = held(network, config)
        memory.require_memory(parts["gradients"], f"The gradients of {type(network).__name__}", ADVICE)
        network.train()

        steps = _FewRows(network, fetch, rows, config, seed)
        counts = steps.counted(self.recompute)
        training = Training(
            network=type(network).__name__,
            weights=sum(w.numel() for w in network.parameters() if w.requires_grad),
            steps=config.steps,
            batch_size=config.batch_size,
            accumulate=config.accumulate,
            held=parts,
            passing=counts.passing,
            recomputed=counts.recomputed,
            flops=counts.flops,
            seconds=config.steps * counts.flops / rate(),
            timed=False,
            together=counts.together,
        )

        # Real steps are taken where they end soon and fit with room to spare: the arithmetic may be off by a part, and a
        # rehearsal that runs out of memory would be the very thing it is there to prevent.
        is_short = counts.flops / rate() < PATIENCE / STEPS
        if self.recompute or not is_short or training.peak() >= (memory.available() or 0) / 2:
            return training

        seconds = config.steps * _seconds_of_a_step(network, fetch, n_items, config, seed, options)
        if watch is not None:
            start = time.perf_counter()
            watch({"step": STEPS, "loss": 0.0, "lr": config.lr, "gradient": 0.0})
            seconds += (time.perf_counter() - start) * (config.steps // log_every)
        return replace(training, seconds=seconds, timed=True)


def _seconds_of_a_step(
    network: nn.Module, fetch: Fetch, n_items: int, config: TrainConfig, seed: int, options: dict[str, Any]
) -> float:
    """The quicker of the last two of three real steps; the first pays for what is done once."""
    stamps: list[float] = []
    short = config.model_copy(update={"steps": STEPS})
    # Without a folder: a rehearsal must leave no checkpoint that the real training would go on from.
    quiet = {**options, "folder": None, "minutes": None, "progress": None}

    def note_time(entry: dict[str, float]) -> None:
        stamps.append(time.perf_counter())  # one a step

    train(network, fetch, n_items, short, seed=seed, log_every=1, watch=note_time, **quiet)
    return float(np.diff(stamps).min())  # (STEPS - 1,) to a scalar


@dataclass(frozen=True)
class _Counts:
    """What the gradients of a few rows say of a step; see `Training`."""

    flops: float
    passing: Passing
    recomputed: Passing | None
    together: bool


class _FewRows:
    """Gradients of a few rows of a batch, computed while something counts."""

    def __init__(self, network: nn.Module, fetch: Fetch, rows: np.ndarray, config: TrainConfig, seed: int) -> None:
        self.network = network
        self.fetch = fetch
        self.rows = rows
        self.config = config
        self.seed = seed

        part = max(1, config.batch_size // config.accumulate)
        # Two points make a line. Not one row: batch normalisation refuses it, and products of one row take other kernels.
        self.sizes = (min(2, part), min(4, part))

    def counted(self, recompute: bool) -> _Counts:
        """By shapes alone where the network is large and its loss allows it, otherwise by numbers."""
        is_large = sum(w.numel() for w in self.network.parameters()) > LARGE
        try:
            return self._counted(recompute, shapes=is_large)
        except Exception:  # a loss that reads its numbers, or cuts by them, needs some
            return self._counted(recompute, shapes=False)

    def _counted(self, recompute: bool, shapes: bool) -> _Counts:
        if recompute:
            recomputed = self._passing(True, shapes)
        else:
            recomputed = None

        flops = self._flops(shapes)
        passing = self._passing(self.config.recompute, shapes)
        together = recompute and self._compares_rows(shapes)
        return _Counts(flops, passing, recomputed, together)

    def _flops(self, shapes: bool) -> float:
        """Operations of a step over the whole batch."""
        size = self.sizes[-1]
        counter = FlopCounterMode(display=False)
        self._gradients(size, self.config, counter, shapes)

        # Operations grow with the rows, but for comparisons between rows, which are a small share of a step.
        return counter.get_total_flops() * self.config.batch_size / size

    def _passing(self, recompute: bool, shapes: bool) -> Passing:
        """Bytes of forward and backward pass by rows, with every block computed twice or once."""
        config = self.config.model_copy(update={"recompute": recompute})
        traces = []
        for size in self.sizes:
            live = _Live()
            self._gradients(size, config, live, shapes)
            traces.append(np.array(live.trace, dtype=np.float64))  # (n_operations,)
        return Passing.of(self.sizes, traces)

    def _compares_rows(self, shapes: bool) -> bool:
        """Whether the loss refuses to be computed in smaller parts."""
        try:
            # By asking it: a loss that compares rows calls must_be_whole, which raises here.
            with whole_batch(False):
                self._gradients(min(self.sizes), self.config, nullcontext(), shapes)
        except MachineError:
            return True
        return False

    def _gradients(self, size: int, config: TrainConfig, mode: AbstractContextManager[Any], shapes: bool) -> None:
        """All turns of one step over `size` rows, watched by `mode`: one at a time, as each keeps memory that others count.

        With `shapes`, the batch and all that is made of it have shapes and no numbers: no time, and no memory.
        """
        network = self.network
        device = next((w.device for w in network.parameters()), torch.device("cpu"))
        batch = tree_map_only(Tensor, lambda t: t.to(device), self.fetch(self.rows[:size]))
        loss_of = NetworkLoss(network, config.precision)

        with ExitStack() as stack:
            stack.enter_context(recomputing(network, config.recompute))
            stack.enter_context(torch.random.fork_rng([]))  # weights drawn after the rehearsal stay as they were
            if shapes:
                fake = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
                # Indices stay real: a loss may look up a row, or a step of its schedule, by their numbers.
                batch = tree_map_only(Tensor, lambda t: t if _is_an_index(t) else fake.from_tensor(t), batch)
                stack.enter_context(_Contact())

            for number, turn in enumerate(turns_of(network)(0)):
                draws = Draws(self.seed, 0, size, None, device, number)
                arguments = () if turn is None else (turn,)
                network.zero_grad(set_to_none=True)  # gradients of the turn before count as memory otherwise
                with mode:
                    loss, _ = loss_of(batch, draws, *arguments)
                    loss.backward()

        network.zero_grad(set_to_none=True)


def _is_an_index(t: Tensor) -> bool:
    """Whether these are numbers of rows or steps, by which a loss looks things up."""
    return t.ndim <= 1 and not t.is_floating_point()


class _Contact(TorchDispatchMode):
    """Numbers where no operand is without: masks and noise are really drawn, and may be read, until they meet the batch."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(t, FakeTensor) for t in tree_leaves((args, kwargs))):
            return func(*args, **(kwargs or {}))

        # No fake operand: computed for good, which the fake mode around this would not do.
        with unset_fake_temporarily():
            return func(*args, **(kwargs or {}))


class _Live(TorchDispatchMode):
    """Bytes of the tensors that operations made and that are still there, after each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.trace: list[int] = []
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))

        # A view, or a result in place, shares the storage of an operand and takes no memory of its own.
        inputs = set()
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                inputs.add(leaf.untyped_storage()._cdata)

        for leaf in tree_leaves(out):
            if not isinstance(leaf, Tensor):
                continue

            storage = leaf.untyped_storage()  # lives as long as its memory does, and with it this finalizer
            key = storage._cdata
            if key not in inputs and key not in self._seen:
                self._seen.add(key)
                self.now += storage.nbytes()

                # Not at exit, when the order in which things go is nobody's.
                weakref.finalize(storage, self._drop, key, storage.nbytes()).atexit = False

        self.trace.append(self.now)
        return out

    def _drop(self, key: int, size: int) -> None:
        # The key is an address, and the next tensor may be given the same one.
        self._seen.discard(key)
        self.now -= size


@functools.lru_cache(maxsize=1)
def rate() -> float:
    """Operations a second of a plain single-precision product on the device that would train.

    Returns
    -------
    float
        multiplications and additions counted as one each, as `FlopCounterMode` counts them
    """
    if torch.cuda.is_available():
        device = "cuda"
        side = 2048  # large enough to fill a device, small enough for a hundredth of a second
    else:
        device = "cpu"
        side = 1024

    a = torch.ones(side, device=device).diag()  # (side, side); the identity stays finite however often it is multiplied
    best = np.inf
    for _ in range(5):  # the quickest: the others waited for somebody else
        start = time.perf_counter()
        b = a @ a  # (side, side)
        float(b[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)

    return 2 * side**3 / best
