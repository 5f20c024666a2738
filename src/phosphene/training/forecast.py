"""What a training will need, before it is done: memory by arithmetic, operations by counting, time by a few real steps.

Within :func:`rehearsing`, :func:`phosphene.training.train` trains nothing worth keeping. It walks through the gradients of two
and of four rows, counting operations and the bytes of every tensor as it comes and goes, which gives a line over rows. Tensors
of large networks have shapes there and no numbers, so that this takes seconds and hardly any memory at any size; only for a
loss that cannot do without, gradients are computed in earnest. Where a step of the whole batch is short enough, three of them
are done and timed.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
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
from phosphene.training.losses import whole_batch
from phosphene.training.machine import ADVICE, held
from phosphene.training.recompute import recomputing
from phosphene.training.sampling import BatchSampler, Draws
from phosphene.training.settings import TrainConfig

PATIENCE = 5.0  # seconds; a step that will take longer is not tried
STEPS = 3
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
        """From the bytes alive after each operation with two numbers of rows."""
        few, many = sizes
        small, large = traces
        if few == many or len(small) != len(large):  # not the same operations: all of it is taken to grow with the rows
            return cls(np.zeros(1), np.array([large.max() / many]))

        slope = np.maximum(0.0, (large - small) / (many - few))
        return cls(np.maximum(0.0, large - slope * many), slope)

    def __call__(self, rows: int) -> float:
        """Bytes at the most, for so many rows at a time."""
        return float((self.fixed + self.per_row * rows).max())


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
    held : mapping of {str: int}
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
        """Bytes at the most on the device, with a batch in so many parts."""
        rows = -(-self.batch_size // (accumulate or self.accumulate))
        passing = (self.recomputed if recompute and self.recomputed else self.passing)(rows)
        return int(sum(self.held.values()) - self.held["gradients"] + max(passing, self.held["gradients"]))

    @property
    def checkpoint(self) -> int:
        """Bytes of one checkpoint on disk."""
        return sum(v for k, v in self.held.items() if k != "gradients")

    @property
    def saving(self) -> int:
        """Bytes of the host's memory at the most while a checkpoint is written: two copies of its largest file."""
        return sum(v for k, v in self.held.items() if k != "gradients") + 2 * max(
            self.held["weights"], self.held["moments"]
        )

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
    """What the trainings inside a rehearsal would need; see `rehearsing`.

    Attributes
    ----------
    known : list of Training
        of an earlier rehearsal of the same, which are not looked at again
    recompute : bool
        whether to look at what computing every block twice would save, and at no time
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

    def training(
        self, run: Callable[..., Any], network: nn.Module, fetch: Any, n_items: int, config: TrainConfig, **given: Any
    ) -> Any:
        """Stand in for a training; `run` does real steps."""
        from phosphene.training.loop import Trained

        began = time.perf_counter()
        here = self.peak.hold()
        if not self.trainings:
            self.held = here

        number = len(self.trainings)
        done = Trained(config.steps, True, accumulate=config.accumulate)

        if number < len(self.known):  # an earlier rehearsal of the same
            self.trainings.append(self.known[number])
        else:
            self.trainings.append(_look(run, network, fetch, n_items, config, given, self.recompute))

        if given["watch"] is not None:
            given["watch"]({"step": config.steps, "loss": 0.0, "lr": config.lr, "gradient": 0.0})

        network.eval()
        self.peak.go_on()
        self.seconds += time.perf_counter() - began

        return done


_asked: ContextVar[Rehearsal | None] = ContextVar("rehearsal", default=None)


def asked() -> Rehearsal | None:
    """The rehearsal going on; None in earnest."""
    return _asked.get()


@contextmanager
def rehearsing(rehearsal: Rehearsal) -> Iterator[Rehearsal]:
    """While the block runs, trainings are judged instead of done."""
    token = _asked.set(rehearsal)
    try:
        yield rehearsal
    finally:
        _asked.reset(token)


def _look(
    run: Callable[..., Any], network: nn.Module, fetch: Any, n_items: int, config: TrainConfig, given: Any, twice: bool
) -> Training:
    rows = BatchSampler(n_items, config.batch_size, given["seed"]).rows(0)
    parts = held(network, config)
    memory.check(parts["gradients"], f"The gradients of {type(network).__name__}", ADVICE)
    network.train()
    sizes = tuple(min(n, max(1, config.batch_size // config.accumulate)) for n in (2, 4))

    def gradients(n: int, settings: TrainConfig, mode: Any, shapes: bool) -> None:
        _gradients(network, fetch(rows[:n]), n, settings, given, mode, shapes)

    def counted(shapes: bool) -> float:
        counter = FlopCounterMode(display=False)
        gradients(sizes[-1], config, counter, shapes)
        return counter.get_total_flops() * config.batch_size / sizes[-1]

    def passing(recompute: bool, shapes: bool) -> Passing:
        settings = config.model_copy(update={"recompute": recompute})
        modes = [_Live() for _ in sizes]

        for n, mode in zip(sizes, modes, strict=True):
            gradients(n, settings, mode, shapes)

        return Passing.of(sizes, [np.array(mode.trace, dtype=np.float64) for mode in modes])

    def together(shapes: bool) -> bool:
        try:
            with whole_batch(False):
                gradients(min(sizes), config, nullcontext(), shapes)
        except MachineError:
            return True

        return False

    def seen(shapes: bool) -> tuple[float, Passing, Passing | None, bool]:
        if twice:
            twice_too = passing(True, shapes)
        else:
            twice_too = None

        return counted(shapes), passing(config.recompute, shapes), twice_too, twice and together(shapes)

    try:
        flops, plain, recomputed, compares = seen(shapes=sum(w.numel() for w in network.parameters()) > LARGE)
    except Exception:  # a loss that looks at its numbers, or cuts by them, has to be given some
        flops, plain, recomputed, compares = seen(shapes=False)

    training = Training(
        network=type(network).__name__,
        weights=sum(w.numel() for w in network.parameters() if w.requires_grad),
        steps=config.steps,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        held=parts,
        passing=plain,
        recomputed=recomputed,
        flops=flops,
        seconds=config.steps * flops / rate(),
        timed=False,
        together=compares,
    )

    if not twice and flops / rate() < PATIENCE / STEPS and training.peak() < (memory.available() or 0) / 2:
        seconds = config.steps * _step(run, network, fetch, n_items, config, given)
        if (watch := given["watch"]) is not None:
            start = time.perf_counter()
            watch({"step": STEPS, "loss": 0.0, "lr": config.lr, "gradient": 0.0})
            seconds += (time.perf_counter() - start) * (config.steps // given["log_every"])

        training = replace(training, seconds=seconds, timed=True)

    return training


def _step(
    run: Callable[..., Any], network: nn.Module, fetch: Any, n_items: int, config: TrainConfig, given: Any
) -> float:
    """Seconds of a step: the quicker of the last two of three."""
    from phosphene.training.stopping import Stopping

    stamps: list[float] = []
    short = config.model_copy(update={"steps": STEPS})
    changed = {
        "folder": None, "log_every": 1, "watch": lambda _: stamps.append(time.perf_counter()), "progress": None,
        "minutes": None, "stopping": Stopping(),
    }  # fmt: skip

    with recomputing(network, config.recompute):
        run(network, fetch, n_items, short, **{**given, **changed})

    return float(np.diff(stamps).min())


def _gradients(
    network: nn.Module, batch: Any, n: int, config: TrainConfig, given: Any, mode: Any, shapes: bool
) -> None:
    """All turns of one step over `n` rows, watched by `mode`: one at a time, since they hold on to what others count.

    With `shapes`, the batch and all that is made of it have shapes and no numbers: no time, and no memory.
    """
    from phosphene.training.loop import _Loss

    where = next((w.device for w in network.parameters()), torch.device("cpu"))
    batch = tree_map_only(Tensor, lambda t: t.to(where), batch)
    loss_of = _Loss(network, config.precision)

    with ExitStack() as stack:
        stack.enter_context(recomputing(network, config.recompute))
        stack.enter_context(torch.random.fork_rng([]))
        if shapes:
            fake = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            batch = tree_map_only(Tensor, lambda t: t if _says_which(t) else fake.from_tensor(t), batch)
            stack.enter_context(_Contact())

        for number, turn in enumerate(network.turns(0) if hasattr(network, "turns") else (None,)):
            draws = Draws(given["seed"], 0, n, None, where, number)
            network.zero_grad(set_to_none=True)

            with mode:
                loss_of(batch, draws, *([] if turn is None else [turn]))[0].backward()

    network.zero_grad(set_to_none=True)


def _says_which(t: Tensor) -> bool:
    """Whether these are numbers of rows or steps, by which a loss looks things up."""
    return t.ndim <= 1 and not t.is_floating_point()


class _Contact(TorchDispatchMode):
    """Numbers where no operand is without: masks and noise are drawn in earnest, and looked at, until they meet the batch."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(t, FakeTensor) for t in tree_leaves((args, kwargs))):
            return func(*args, **(kwargs or {}))

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
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}

        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in given | self._seen:
                storage = tensor.untyped_storage()  # lives as long as its memory does, and with it this finalizer
                self._seen.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._drop, key, storage.nbytes()).atexit = False

        self.trace.append(self.now)
        return out

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@functools.lru_cache(maxsize=1)
def rate() -> float:
    """Operations a second of a plain single-precision product on the device that would train."""
    if torch.cuda.is_available():
        where = "cuda"
    else:
        where = "cpu"

    a = torch.ones(2048 if where == "cuda" else 1024, device=where).diag()
    best = np.inf

    for _ in range(5):
        start = time.perf_counter()
        b = a @ a
        float(b[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)

    return 2 * len(a) ** 3 / best
