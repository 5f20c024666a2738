"""The training loop: one for every network of this project, on one process or many.

A network is any module with ``loss(batch, draws) -> (loss, logs)``: the mean loss over the rows of `batch`, and a dict
of scalars to log. It draws noise from `draws` (:class:`phosphene.training.Draws`) only; dropout is seeded for it. Batches
and noise are functions of (seed, step), so a training killed at any moment and started again ends bit for bit like
one that was never stopped. Under ``torchrun`` the same call trains on all processes and gives the same curve.

Where one half of a network plays against the other, it also has ``turns(step) -> names``: each turn of a step is a
``loss(batch, draws, turn)`` with noise of its own, and moves those weights that it gives a gradient.
"""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import ConfigError, ModelError, PhospheneWarning
from phosphene.io import atomic
from phosphene.io.device import device as device_of
from phosphene.io.notes import note
from phosphene.io.progress import Progress
from phosphene.io.stages import versioned
from phosphene.training import machine
from phosphene.training.checkpoint import (
    Checkpoint,
    changed_settings,
    flatten_optimizer,
    last_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from phosphene.training.losses import whole_batch
from phosphene.training.recompute import recomputing
from phosphene.training.sampling import BatchSampler, Draws, seed_of
from phosphene.training.settings import TrainConfig, learning_rate
from phosphene.training.stopping import Stopping

Fetch = Callable[[np.ndarray], Any]
"""Rows, (n,) int64, to the batch that a network's `loss` takes: tensors, or dicts and tuples of them."""


@dataclass
class Trained:
    """What came of a training.

    Attributes
    ----------
    step : int
        optimiser steps done
    finished : bool
        whether these are all
    curve : list of dict of str to float
        one dict per logged step: step, loss (summed over turns), lr, gradient (norm, the largest of all turns), and the
        network's own logs
    resumed_at : int
        the step this call started from
    accumulate : int
        parts a process computed its share of a batch in at the end; more than the configuration's where memory ran out
        on the way
    """

    step: int
    finished: bool
    curve: list[dict[str, float]] = field(default_factory=list)
    resumed_at: int = 0
    accumulate: int = 1


class HasLoss(Protocol):
    """What a network must have to be trained."""

    def loss(self, batch: Any, draws: Draws, *turn: str) -> tuple[Tensor, dict[str, Any]]:
        """The mean loss over the rows of a batch, and scalars to log.

        Parameters
        ----------
        batch : Any
            what the caller's `Fetch` gave, on the device of the training
        draws : Draws
            noise for these rows
        *turn : str
            which turn of the step, for a network with ``turns``; nothing otherwise

        Returns
        -------
        loss : Tensor
            scalar, the mean over the rows and not their sum: parts of a batch are averaged
        logs : dict of str to Any
            numbers, or tensors of one number
        """
        ...


class NetworkLoss(nn.Module):
    """The network's loss as a forward pass, which is what data-parallel wrappers and autocast hook into.

    Parameters
    ----------
    network : nn.Module
        with ``loss(batch, draws)``, see :class:`HasLoss`
    precision : {"float32", "bf16"}
        of the products
    """

    def __init__(self, network: nn.Module, precision: str):
        super().__init__()
        self.network = network
        self.precision = precision

    def forward(self, batch: Any, draws: Draws, *turn: str) -> tuple[Tensor, dict[str, Any]]:
        """The loss of a batch as a float32 scalar, and what the network has to log.

        Parameters
        ----------
        batch : Any
            see `HasLoss.loss`
        draws : Draws
            see `HasLoss.loss`
        *turn : str
            see `HasLoss.loss`

        Returns
        -------
        loss : Tensor
            scalar, float32
        logs : dict of str to Any
            as the network gave them
        """
        autocast = torch.autocast(torch.device(draws.device).type, torch.bfloat16, enabled=self.precision == "bf16")
        with autocast:
            loss, logs = cast("HasLoss", self.network).loss(batch, draws, *turn)
        return loss.float(), logs


def adamw(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices and filters only, not on biases, gains and other vectors.

    Parameters
    ----------
    network : nn.Module
        on the device where it will be trained
    config : TrainConfig
        its lr, adam_betas and weight_decay

    Returns
    -------
    torch.optim.Optimizer
        of the weights that ask for a gradient
    """
    matrices = []
    vectors = []
    for weight in network.parameters():
        if weight.requires_grad and weight.ndim >= 2:
            matrices.append(weight)
        elif weight.requires_grad:
            vectors.append(weight)

    # Decay pulls towards zero: that is a prior for the entries of a product, and a mistake for a gain that should be near one.
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]  # torch takes an empty group, and would save it
    return torch.optim.AdamW(filled, lr=config.lr, betas=config.adam_betas, fused=True)


class Trainer(Protocol):
    """What a stage trains its networks with: :func:`train`, or something in its place that is called in the same way.

    :class:`phosphene.training.rehearsal.Rehearsal` is such a thing: it predicts what a training will need.
    """

    def __call__(
        self,
        network: nn.Module,
        fetch: Fetch,
        n_items: int,
        config: TrainConfig,
        *,
        seed: int,
        folder: Path | None = None,
        data: str = "",
        save_every: int | None = None,
        save_minutes: float = 10.0,
        minutes: float | None = None,
        may_change: Collection[str] = (),
        optimizer: Callable[[nn.Module, TrainConfig], torch.optim.Optimizer] = adamw,
        log_every: int = 50,
        watch: Callable[[dict[str, float]], None] | None = None,
        progress: Progress | None = None,
        device: str | None = None,
    ) -> Trained:
        """Train a network in place; see :func:`train`."""
        ...


@versioned(1)
def train(
    network: nn.Module,
    fetch: Fetch,
    n_items: int,
    config: TrainConfig,
    *,
    seed: int,
    folder: Path | None = None,
    data: str = "",
    save_every: int | None = None,
    save_minutes: float = 10.0,
    minutes: float | None = None,
    may_change: Collection[str] = (),
    optimizer: Callable[[nn.Module, TrainConfig], torch.optim.Optimizer] = adamw,
    log_every: int = 50,
    watch: Callable[[dict[str, float]], None] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> Trained:
    """Train a network in place. With `folder`, go on from its last checkpoint, or start there.

    Where the memory of a device gives out, each batch is computed in more and smaller parts and their gradients are added
    up: the same batches, steps and noise, and a warning. A termination (SIGTERM) or a first Ctrl-C lets the step in hand
    finish, saves, and then ends the process as it would have ended.

    Parameters
    ----------
    network : nn.Module
        module with ``loss(batch, draws) -> (mean loss, logs)``, or with ``turns`` (see above); afterwards it is in
        evaluation mode and holds the averaged weights where ``config.ema`` is set
    fetch : Fetch
        rows (n,) int64 to a batch
    n_items : int
        how many rows there are
    config : TrainConfig
        how, and for how many steps
    seed : int
        of batches, noise and dropout (weights are the caller's to initialise)
    folder : Path, optional
        of checkpoints; nothing is saved when None
    data : str, default ""
        digest of the data; a resume with other data is refused
    save_every : int, optional
        checkpoint after so many steps, or minutes, whichever comes first; and at the end
    save_minutes : float, default 10.0
        see `save_every`
    minutes : float, optional
        stop after so long, with a checkpoint
    may_change : collection of str, default ()
        what may differ from the checkpoint's: keys of `config` such as ``steps``, or ``data``
    optimizer : callable, optional
        makes the optimiser; each of its groups keeps its own learning rate as a peak
    log_every : int, default 50
        steps between entries of the curve
    watch : callable, optional
        called with each entry of the curve
    progress : Progress, optional
        shows how far it is
    device : str, optional
        such as ``"cpu"``; by default that of the environment variable PHOSPHENE_DEVICE, or else the best there is

    Returns
    -------
    Trained
        what came of it, with the curve from the first step on, also of the calls before this one

    Raises
    ------
    ModelError
        A loss or gradient that is not finite (the last good checkpoint stays), a checkpoint of another network,
        configuration or data, a checkpoint without its optimiser.
    ConfigError
        A batch that the processes cannot share evenly; several processes for a network that takes turns.
    MachineError
        Too little memory, on the device even in the smallest parts; a device that is not there or gave out; another of the
        processes that stopped.
    """
    with machine.explained_failure(folder), Stopping() as stopping, recomputing(network, config.recompute):
        loop = _Loop(
            network,
            fetch,
            n_items,
            config,
            seed=seed,
            folder=folder,
            save_every=save_every,
            save_minutes=save_minutes,
            minutes=minutes,
            optimizer=optimizer,
            log_every=log_every,
            watch=watch,
            device=device,
            stopping=stopping,
        )
        loop.resume(data, may_change)

        # The loop ends between two steps when a signal came, with everything saved.
        done = loop.run(progress or Progress(quiet=True))

    # Outside the block, where the handlers are the caller's again.
    stopping.act()
    return done


@dataclass
class _Step:
    """What came of one optimiser step.

    Attributes
    ----------
    loss : float
        mean over the batch, summed over turns
    gradient : float
        norm before it is clipped, the largest of all turns
    logs : dict of str to Any
        of the network
    stop : bool
        whether time is up, or a process was asked to stop
    """

    loss: float = 0.0
    gradient: float = 0.0
    logs: dict[str, Any] = field(default_factory=dict)
    stop: bool = False


class _Loop:
    """One training on one process: first what it holds between steps, then `run`, then the parts of a step in order."""

    def __init__(
        self,
        network: nn.Module,
        fetch: Fetch,
        n_items: int,
        config: TrainConfig,
        *,
        seed: int,
        folder: Path | None,
        save_every: int | None,
        save_minutes: float,
        minutes: float | None,
        optimizer: Callable[[nn.Module, TrainConfig], torch.optim.Optimizer],
        log_every: int,
        watch: Callable[[dict[str, float]], None] | None,
        device: str | None,
        stopping: Stopping,
    ) -> None:
        from accelerate import Accelerator

        self.network = network
        self.fetch = fetch
        self.config = config
        self.seed = seed
        self.folder = folder
        self.save_every = save_every
        self.save_minutes = save_minutes
        self.minutes = minutes
        self.log_every = log_every
        self.watch = watch
        self.stopping = stopping

        self.accelerator = Accelerator(cpu=device_of(device) == "cpu")
        machine.leave_group_at_exit()
        self.device: torch.device = self.accelerator.device
        self.rank = self.accelerator.process_index
        self.world = self.accelerator.num_processes

        self.batches = BatchSampler(n_items, config.batch_size, seed)
        self.parts = self.batches.share(self.rank, self.world, config.accumulate)
        self.turns = turns_of(network)
        if hasattr(network, "turns") and self.world > 1:
            raise ConfigError(
                f"{type(network).__name__} learns in turns, which is for one process, but {self.world} were started."
            )

        # Before the network moves: a refusal here is a sentence, an overflow on the device is a stack of kernels.
        machine.require_room(network, config, self.device)
        network.to(self.device).train()
        self.names = {id(weight): name for name, weight in network.named_parameters()}

        # After the move, which would leave the optimiser with weights of the host. Each group keeps its own peak, so that a
        # caller's optimiser may give some weights a lower rate and the schedule still bends all of them.
        self.optimizer = optimizer(network, config)
        for group in self.optimizer.param_groups:
            group["peak"] = float(group["lr"])

        self.ema: dict[str, Tensor] | None = None
        if config.ema:
            # All of the state, buffers included: the averaged weights are put back as a whole network at the end.
            self.ema = {name: value.detach().clone() for name, value in network.state_dict().items()}

        self.identity: dict[str, Any] = {}
        self.done = Trained(0, False, accumulate=config.accumulate)
        self.model: Any = None
        self.began = 0.0
        self.last_save = 0.0
        self.saved_at = 0

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def resume(self, data: str, may_change: Collection[str]) -> None:
        """Go on from the last checkpoint of the folder, where there is one."""
        self.identity = _identity(self.network, self.config, self.batches.n_items, data, self.seed)
        if self.folder is None:
            return

        self.folder = atomic.checked_path(self.folder)
        if self.accelerator.is_main_process and self.folder.is_dir():
            atomic.sweep(self.folder)  # half a checkpoint of a killed process

        # Nobody reads while the first process still sweeps.
        self.accelerator.wait_for_everyone()
        saved = last_checkpoint(self.folder)
        if saved is None:
            return

        _check_same(saved, self.identity, self.world, may_change, self.folder)
        try:
            self.network.load_state_dict(saved.model)
            if self.ema is not None:
                self.ema = {name: value.to(self.device) for name, value in (saved.ema or {}).items()}
        except RuntimeError as error:
            raise ModelError(f"the checkpoint in {self.folder} is of another network: {error}") from error

        restore_optimizer(self.optimizer, self.names, saved.optimizer)

        # Parts as the last call ended with: what did not fit then does not fit now.
        finished = saved.step >= self.config.steps
        accumulate = max(self.config.accumulate, saved.record.get("accumulate", 1))
        self.done = Trained(saved.step, finished, saved.record["curve"], saved.step, accumulate)
        self.parts = self.batches.share(self.rank, self.world, accumulate)

    def save(self) -> None:
        """Write a checkpoint, on the first process."""
        if self.folder is None or not self.accelerator.is_main_process:
            return

        record = {
            "identity": self.identity,
            "world": self.world,
            "curve": self.done.curve,
            "accumulate": self.done.accumulate,
        }
        # Gradients are not saved: a checkpoint stands between two steps, where there are none.
        state = flatten_optimizer(self.optimizer, self.names)
        save_checkpoint(self.folder, Checkpoint(self.done.step, self.network.state_dict(), state, self.ema, record))

    # -- the algorithm ---------------------------------------------------------------------------------------------

    def run(self, progress: Progress) -> Trained:
        """Every step from where `resume` left off to the last."""
        loss_of = NetworkLoss(self.network, self.config.precision)
        if self.config.compile is not None:
            loss_of.compile(backend=self.config.compile)

        self.model = self.accelerator.prepare_model(loss_of)
        self.began = self.last_save = time.monotonic()
        self.saved_at = self.done.step
        steps = range(self.done.step, self.config.steps)
        for number in progress.each(steps, "training", len(steps), unit="step"):
            # From here on a kill loses this step; the checkpoint before it draws the same batch and noise again.
            rate = self.set_learning_rate(number)
            step = self.take_step(number)
            self.done.step = number + 1  # done, not at: the curve and checkpoints count from 1

            self.average_weights(number)
            self.log(step, rate)
            self.save_if_due()
            # Several processes stop by what they exchanged, all at one step; a signal may reach one of them only.
            if step.stop or (self.world == 1 and self.stopping.signal):
                break
        return self.finish()

    def set_learning_rate(self, number: int) -> float:
        """Give every group of weights its learning rate of this step; the share of the peak that it is."""
        rate = learning_rate(self.config, number)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        return rate

    def take_step(self, number: int) -> _Step:
        """Move the weights, once for every turn of the step."""
        step = _Step()
        for turn_number, turn in enumerate(self.turns(number)):
            own_loss, logs = self.gradients_that_fit(number, turn, turn_number)

            # Without a limit the norm is still wanted, for the curve and the check below.
            clip_norm = self.config.clip_norm or math.inf
            norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip_norm))

            loss, step.stop = self.exchange(own_loss)
            # Before the weights move: NaN would be in all of them, and in the next checkpoint.
            if not (math.isfinite(loss) and math.isfinite(norm)):
                _stop_at_nan(number, loss, norm, self.folder)

            self.optimizer.step()
            step.loss = step.loss + loss
            step.gradient = max(step.gradient, norm)
            step.logs.update(logs)
        return step

    def gradients_that_fit(self, number: int, turn: str | None, turn_number: int) -> tuple[Tensor, dict[str, Any]]:
        """Gradients of one turn of a step, in more and smaller parts where memory runs out."""
        while True:
            # Also after a failed attempt, which leaves the gradients of the parts it got through.
            self.optimizer.zero_grad(set_to_none=True)
            try:
                with whole_batch(self.done.accumulate == self.config.accumulate):
                    return self.gradients(number, turn, turn_number)
            except torch.OutOfMemoryError as error:
                failure = str(error)  # the error itself would hold the memory of the failed attempt

            self.done.accumulate = machine.smaller(
                self.config.batch_size, self.world, self.done.accumulate, number, failure
            )
            self.parts = self.batches.share(self.rank, self.world, self.done.accumulate)

    def gradients(self, number: int, turn: str | None, turn_number: int) -> tuple[Tensor, dict[str, Any]]:
        """Gradients of one turn of a step, added up over its parts in the weights; the mean loss, and the network's logs."""
        from accelerate.utils import send_to_device

        rows = self.batches.rows(number)  # (batch_size,)
        n_parts = len(self.parts)
        arguments = () if turn is None else (turn,)
        total = torch.zeros((), device=self.device)
        logs: dict[str, Any] = {}

        for i, part in enumerate(self.parts):
            draws = Draws(self.seed, number, self.config.batch_size, part, self.device, turn_number)
            with self.seeded(number, part), self.exchanging_after(i == n_parts - 1):
                batch = send_to_device(self.fetch(rows[part]), self.device)
                loss, logs = self.model(batch, draws, *arguments)

                # Each part over the number of parts and then added up: the mean over the batch, since parts are equal.
                (loss / n_parts).backward()

            total += loss.detach() / n_parts
        return total, logs

    @contextmanager
    def seeded(self, number: int, part: slice) -> Iterator[None]:
        """Dropout and anything else inside the network that draws globally is seeded here and nowhere else.

        Parameters
        ----------
        number : int
            of the step
        part : slice
            rows of the batch; its start goes into the seed, so that two parts do not drop the same units

        Yields
        ------
        None
            forward and backward pass are in the block; the caller's own generator is as before afterwards
        """
        if self.device.type == "cuda":
            cuda = [self.device]
        else:
            cuda = []

        with torch.random.fork_rng(cuda):
            torch.manual_seed(seed_of(self.seed, number, part.start, 3))
            yield

    def exchanging_after(self, is_last: bool) -> AbstractContextManager[Any]:
        """Processes add up their gradients after the last part only."""
        if is_last:
            return nullcontext()
        return self.accelerator.no_sync(self.model)

    def exchange(self, own_loss: Tensor) -> tuple[float, bool]:
        """The mean loss over processes, and whether any of them wants to stop or was told to: one exchange a turn."""
        is_out_of_time = self.minutes is not None and time.monotonic() - self.began > 60 * self.minutes
        wants = torch.tensor([float(is_out_of_time), float(self.stopping.signal > 0)], device=own_loss.device)
        message = torch.cat([own_loss[None], wants])  # (3,)
        shared = cast("Tensor", self.accelerator.reduce(message, "mean"))

        # A mean of flags is above zero as soon as one process has raised its own.
        loss, out_of_time, told_to_stop = shared.tolist()

        # A process that got no signal ends as the one that did, and so the starter sees one way of ending.
        if told_to_stop and not self.stopping.signal:
            self.stopping.signal = signal.SIGTERM

        return loss, bool(out_of_time or told_to_stop)

    @torch.no_grad()
    def average_weights(self, number: int) -> None:
        """Move the running average towards the weights; less and less at first, so that it forgets where they began."""
        if self.ema is None or self.config.ema is None:
            return

        # (1 + t) / (10 + t) is 0.1 at first and 0.99 after 890 steps, as in TensorFlow's ExponentialMovingAverage.
        decay = min(self.config.ema, (1 + number) / (10 + number))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)  # a counter has no average

    def log(self, step: _Step, rate: float) -> None:
        """An entry of the curve, every so often and at the end."""
        done = self.done
        if done.step % self.log_every != 0 and done.step != self.config.steps:
            return

        entry = {"step": done.step, "loss": step.loss, "lr": self.config.lr * rate, "gradient": step.gradient}
        for name, value in step.logs.items():
            if isinstance(value, Tensor):
                entry[name] = float(value.detach())
            else:
                entry[name] = float(value)

        done.curve.append(entry)
        if self.watch is not None and self.accelerator.is_main_process:
            self.watch(entry)

    def save_if_due(self) -> None:
        """A checkpoint after so many steps or minutes; the one of the last step is written by `finish`."""
        step = self.done.step
        by_steps = bool(self.save_every) and step % self.save_every == 0
        by_time = time.monotonic() - self.last_save > 60 * self.save_minutes

        if (by_steps or by_time) and step < self.config.steps:
            self.save()

            # Read after saving: a disk slower than save_minutes must not leave training only time to save.
            self.last_save = time.monotonic()
            self.saved_at = step

    def finish(self) -> Trained:
        """Save what is not saved yet, and leave the averaged weights in the network."""
        done = self.done
        done.finished = done.step >= self.config.steps
        if done.accumulate > self.config.accumulate:
            note(
                f"memory ran out: batches of {self.config.batch_size} were computed in {done.accumulate} parts instead "
                f"of {self.config.accumulate}"
            )

        # Saved with the weights as they are trained; only then does their average take their place.
        if done.step > self.saved_at:
            self.save()
        if self.ema is not None:
            self.network.load_state_dict(self.ema)

        self.accelerator.wait_for_everyone()
        self.network.eval()
        return done


def turns_of(network: nn.Module) -> Callable[[int], Collection[str | None]]:
    """The turns of a step by its number: those of the network, or one without a name.

    Parameters
    ----------
    network : nn.Module
        with or without ``turns``

    Returns
    -------
    callable
        from the number of a step to the names of its turns; ``(None,)`` at every step where the network has none
    """
    if hasattr(network, "turns"):
        return cast("Callable[[int], Collection[str | None]]", network.turns)
    return lambda number: (None,)


def _identity(network: nn.Module, config: TrainConfig, n_items: int, data: str, seed: int) -> dict[str, Any]:
    """What must be the same for a training to go on from a checkpoint."""
    identity: dict[str, Any] = {}
    for key, value in config.model_dump(mode="json").items():
        identity[f"config.{key}"] = value

    # Not the names of the weights: the checkpoint names them, and loading says better which one is missing.
    n_weights = sum(weight.numel() for weight in network.parameters())

    identity["data"] = f"{n_items} items {data}".strip()
    identity["seed"] = seed
    identity["network"] = f"{type(network).__name__} of {n_weights} weights"
    return identity


def _check_same(saved: Checkpoint, now: dict[str, Any], world: int, may_change: Collection[str], folder: Path) -> None:
    """Refuse to go on from the checkpoint of another training; warn where the number of processes changed."""
    free = set(may_change)
    for key in may_change:
        free.add(f"config.{key}")

    # A setting that came with a later version was at its default before.
    old = {}
    for key, setting in TrainConfig.model_fields.items():
        if not setting.is_required() and f"config.{key}" in now:
            old[f"config.{key}"] = setting.default

    old.update(saved.record["identity"])
    for key in free:
        old.pop(key, None)

    after = {key: value for key, value in now.items() if key not in free}
    if differs := changed_settings(old, after):
        raise ModelError(
            f"{folder} holds the checkpoint of another training ({'; '.join(differs)}). Going on would mix the two: "
            "use the old values, another folder, or delete this one to start again."
        )

    if saved.record["world"] != world:
        warnings.warn(
            f"the training in {folder} was started on {saved.record['world']} processes and goes on on {world}: the same "
            "batches and noise, but sums are rounded in another order, so it is no longer bit-identical.",
            PhospheneWarning,
            stacklevel=4,
        )


def _stop_at_nan(number: int, loss: float, norm: float, folder: Path | None) -> NoReturn:
    """End a training whose loss or gradient is not finite, and say what is left of it."""
    saved = None
    if folder is not None:
        saved = last_checkpoint(folder)

    if saved is not None:
        kept = f"The last good checkpoint, of step {saved.step} in {folder}, is kept."
    else:
        kept = "Nothing was saved yet."

    raise ModelError(
        f"at step {number + 1} the loss is {loss} and the norm of its gradient {norm}; both must be finite. {kept} "
        "Look for NaN in the data, or lower the learning rate, lengthen the warm-up or clip the gradient."
    )
