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
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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
    changed,
    flatten_optimizer,
    last_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from phosphene.training.losses import whole_batch
from phosphene.training.recompute import recomputing
from phosphene.training.sampling import BatchSampler, Draws, _key
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
    curve : list of dict of {str: float}
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


class NetworkLoss(nn.Module):
    """The network's loss as a forward pass, which is what data-parallel wrappers and autocast hook into."""

    def __init__(self, network: nn.Module, precision: str):
        super().__init__()
        self.network = network
        self.precision = precision

    def forward(self, batch: Any, draws: Draws, *turn: str) -> tuple[Tensor, dict[str, Any]]:
        """The loss of a batch as a float32 scalar, and what the network has to log."""
        autocast = torch.autocast(torch.device(draws.device).type, torch.bfloat16, enabled=self.precision == "bf16")
        with autocast:
            loss, logs = self.network.loss(batch, draws, *turn)

        return loss.float(), logs


def adamw(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices and filters only, not on biases, gains and other vectors."""
    weights = [w for w in network.parameters() if w.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]

    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.adam_betas, fused=True)


class Trainer(Protocol):
    """What a stage trains its networks with: :func:`train`, or something in its place that is called in the same way.

    :class:`phosphene.training.forecast.Rehearsal` is such a thing: it predicts what a training will need.
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
    with machine.explained(folder), Stopping() as stopping, recomputing(network, config.recompute):
        done = _train(
            network,
            fetch,
            n_items,
            config,
            seed=seed,
            folder=folder,
            data=data,
            save_every=save_every,
            save_minutes=save_minutes,
            minutes=minutes,
            may_change=may_change,
            optimizer=optimizer,
            log_every=log_every,
            watch=watch,
            progress=progress,
            device=device,
            stopping=stopping,
        )

    stopping.act()
    return done


def _train(
    network: nn.Module,
    fetch: Fetch,
    n_items: int,
    config: TrainConfig,
    *,
    seed: int,
    folder: Path | None,
    data: str,
    save_every: int | None,
    save_minutes: float,
    minutes: float | None,
    may_change: Collection[str],
    optimizer: Callable[[nn.Module, TrainConfig], torch.optim.Optimizer],
    log_every: int,
    watch: Callable[[dict[str, float]], None] | None,
    progress: Progress | None,
    device: str | None,
    stopping: Stopping,
) -> Trained:
    from accelerate import Accelerator
    from accelerate.utils import send_to_device

    accelerator = Accelerator(cpu=device_of(device) == "cpu")
    rank = accelerator.process_index
    world = accelerator.num_processes
    batches = BatchSampler(n_items, config.batch_size, seed)
    parts = batches.share(rank, world, config.accumulate)
    turns: Callable[[int], Collection[str | None]] = getattr(network, "turns", lambda step: (None,))

    if hasattr(network, "turns") and world > 1:
        raise ConfigError(
            f"{type(network).__name__} learns in turns, which is for one process, but {world} were started."
        )

    if accelerator.device.type == "cuda":
        cuda = [accelerator.device]
    else:
        cuda = []

    machine.check(network, config, accelerator.device)
    network.to(accelerator.device).train()
    names = {id(w): name for name, w in network.named_parameters()}
    steps = optimizer(network, config)

    for group in steps.param_groups:
        group["peak"] = float(group["lr"])

    if config.ema:
        ema = {k: v.detach().clone() for k, v in network.state_dict().items()}
    else:
        ema = None

    done = Trained(0, False, accumulate=config.accumulate)
    identity = {
        **{f"config.{k}": v for k, v in config.model_dump(mode="json").items()},
        "data": f"{n_items} items {data}".strip(),
        "seed": seed,
        "network": f"{type(network).__name__} of {sum(w.numel() for w in network.parameters())} weights",
    }

    if folder is not None:
        folder = atomic.checked_path(folder)
        if accelerator.is_main_process and folder.is_dir():
            atomic.sweep(folder)

        accelerator.wait_for_everyone()
        if (saved := last_checkpoint(folder)) is not None:
            _check_same(saved, identity, world, may_change, folder)
            try:
                network.load_state_dict(saved.model)
                if ema is not None:
                    ema = {k: v.to(accelerator.device) for k, v in (saved.ema or {}).items()}
            except RuntimeError as error:
                raise ModelError(f"the checkpoint in {folder} is of another network: {error}") from error

            restore_optimizer(steps, names, saved.optimizer)
            done = Trained(saved.step, saved.step >= config.steps, saved.record["curve"], saved.step)
            done.accumulate = max(config.accumulate, saved.record.get("accumulate", 1))
            parts = batches.share(rank, world, done.accumulate)

    def save() -> None:
        if folder is not None and accelerator.is_main_process:
            record = {"identity": identity, "world": world, "curve": done.curve, "accumulate": done.accumulate}
            state = flatten_optimizer(steps, names)
            save_checkpoint(folder, Checkpoint(done.step, network.state_dict(), state, ema, record))

    loss_of = NetworkLoss(network, config.precision)
    if config.compile is not None:
        loss_of.compile(backend=config.compile)

    model = accelerator.prepare_model(loss_of)

    def gradients(step: int, turn: str | None, number: int) -> tuple[Tensor, dict[str, Any]]:
        """Of one turn of a step, left in the weights; the mean loss, and the network's logs."""
        rows = batches.rows(step)
        total = torch.zeros((), device=accelerator.device)
        own = {}

        for i, part in enumerate(parts):
            draws = Draws(seed, step, config.batch_size, part, accelerator.device, number)
            is_last = i == len(parts) - 1

            # Dropout and anything else inside the network that draws globally is seeded here and nowhere else.
            with torch.random.fork_rng(cuda), nullcontext() if is_last else accelerator.no_sync(model):
                torch.manual_seed(_key(seed, step, part.start, 3))
                batch = send_to_device(fetch(rows[part]), accelerator.device)
                loss, own = model(batch, draws, *([] if turn is None else [turn]))
                (loss / len(parts)).backward()

            total += loss.detach() / len(parts)

        return total, own

    began = last_save = time.monotonic()
    saved_at = done.step
    shown = progress or Progress(quiet=True)

    for step in shown.each(range(done.step, config.steps), "training", config.steps - done.step, unit="step"):
        rate = learning_rate(config, step)
        for group in steps.param_groups:
            group["lr"] = group["peak"] * rate

        step_loss = 0.0
        step_norm = 0.0
        logs = {}

        for number, turn in enumerate(turns(step)):
            while True:
                steps.zero_grad(set_to_none=True)
                failed = None

                try:
                    with whole_batch(done.accumulate == config.accumulate):
                        total, own = gradients(step, turn, number)
                except torch.OutOfMemoryError as error:
                    failed = str(error)  # the error itself would hold the memory of the failed attempt

                if failed is None:
                    break

                done.accumulate = machine.smaller(config.batch_size, world, done.accumulate, step, failed)
                parts = batches.share(rank, world, done.accumulate)

            norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm or math.inf))
            out_of_time = minutes is not None and time.monotonic() - began > 60 * minutes

            # One exchange a turn: the mean loss, and whether any process wants to stop or was told to.
            wants = torch.tensor([float(out_of_time), float(stopping.signal > 0)], device=total.device)
            shared = accelerator.reduce(torch.cat([total[None], wants]), "mean").tolist()
            mean_loss = shared[0]
            stop = any(shared[1:])

            if shared[2] and not stopping.signal:
                stopping.signal = signal.SIGTERM

            if not (math.isfinite(mean_loss) and math.isfinite(norm)):
                _stop_at_nan(step, mean_loss, norm, folder)

            steps.step()
            step_loss = step_loss + mean_loss
            step_norm = max(step_norm, norm)
            logs = {**logs, **own}

        done.step = step + 1
        if ema is not None:
            _average(ema, network, min(config.ema, (1 + step) / (10 + step)))

        if done.step % log_every == 0 or done.step == config.steps:
            own = {k: float(v.detach()) if isinstance(v, Tensor) else float(v) for k, v in logs.items()}
            entry = {"step": done.step, "loss": step_loss, "lr": config.lr * rate, "gradient": step_norm, **own}
            done.curve.append(entry)

            if watch is not None and accelerator.is_main_process:
                watch(entry)

        is_due = (save_every and done.step % save_every == 0) or time.monotonic() - last_save > 60 * save_minutes
        if is_due and done.step < config.steps:
            save()
            last_save = time.monotonic()
            saved_at = done.step

        if stop or (world == 1 and stopping.signal):
            break

    done.finished = done.step >= config.steps
    if done.accumulate > config.accumulate:
        note(
            f"memory ran out: batches of {config.batch_size} were computed in {done.accumulate} parts instead of "
            f"{config.accumulate}"
        )

    if done.step > saved_at:
        save()

    if ema is not None:
        network.load_state_dict(ema)

    accelerator.wait_for_everyone()
    network.eval()

    return done


@torch.no_grad()
def _average(ema: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    for name, now in network.state_dict().items():
        if now.is_floating_point():
            ema[name].lerp_(now, 1 - decay)
        else:
            ema[name].copy_(now)


def _check_same(saved: Checkpoint, now: dict[str, Any], world: int, may_change: Collection[str], folder: Path) -> None:
    allowed = {*(f"config.{key}" for key in may_change), *may_change}
    # A setting that came with a later version was at its default before.
    fields = TrainConfig.model_fields
    known = {f"config.{key}": field.default for key, field in fields.items() if not field.is_required()}
    old = {**{key: known[key] for key in now if key in known}, **saved.record["identity"]}
    kept = {k: v for k, v in old.items() if k not in allowed}

    if differs := changed(kept, {k: v for k, v in now.items() if k not in allowed}):
        raise ModelError(
            f"{folder} holds the checkpoint of another training ({'; '.join(differs)}). Going on would mix the two: "
            "use the old values, another folder, or delete this one to start again."
        )

    if saved.record["world"] != world:
        warnings.warn(
            f"the training in {folder} was started on {saved.record['world']} processes and goes on on {world}: the same "
            "batches and noise, but sums are rounded in another order, so it is no longer bit-identical.",
            PhospheneWarning,
            stacklevel=3,
        )


def _stop_at_nan(step: int, loss: float, norm: float, folder: Path | None) -> None:
    if folder is not None:
        kept = last_checkpoint(folder)
    else:
        kept = None

    if kept:
        where = f"The last good checkpoint, of step {kept.step} in {folder}, is kept."
    else:
        where = "Nothing was saved yet."

    raise ModelError(
        f"at step {step + 1} the loss is {loss} and the norm of its gradient {norm}; both must be finite. {where} "
        "Look for NaN in the data, or lower the learning rate, lengthen the warm-up or clip the gradient."
    )
