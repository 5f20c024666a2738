"""What a training needs of the machine, and what to say when it gives out."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from phosphene.errors import MachineError, PhospheneError, PhospheneWarning
from phosphene.io import memory
from phosphene.training.settings import TrainConfig

ADVICE = (
    "Lower it with a smaller network (its width, its depth), with more parts per batch (accumulate), with recompute=true, "
    "with precision=bf16, or without a running average (ema=null); `phosphene fit ... --dry-run` predicts each of these."
)


def held(network: nn.Module, config: TrainConfig) -> dict[str, int]:
    """Bytes that a training holds from its first step to its last, by what they are for.

    Parameters
    ----------
    network : nn.Module
        to be trained
    config : TrainConfig
        how

    Returns
    -------
    dict of str to int
        weights (and buffers), gradients, moments (AdamW's two), average (where there is one)
    """
    weights = [w for w in network.parameters() if w.requires_grad]
    trained = sum(w.numel() * w.element_size() for w in weights)
    whole = sum(w.numel() * w.element_size() for w in (*network.parameters(), *network.buffers()))

    # The average covers buffers as well, moments only what is trained; AdamW keeps the mean and the square of a gradient.
    if config.ema:
        average = whole
    else:
        average = 0
    return {"weights": whole, "gradients": trained, "moments": 2 * trained, "average": average}


def require_room(network: nn.Module, config: TrainConfig, device: torch.device) -> None:
    """Refuse a training whose weights and what belongs to them cannot be held, before its first step.

    Parameters
    ----------
    network : nn.Module
        to be trained
    config : TrainConfig
        how
    device : torch.device
        where

    Raises
    ------
    MachineError
        Naming what is needed and what is there.
    """
    parts = held(network, config)
    needed = sum(parts.values())
    what = f"The weights of {type(network).__name__} with their " + ", ".join(k for k in parts if k != "weights")

    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + parts["weights"]  # which may lie on the device already
        if needed > free:
            raise MachineError(
                f"{what} need {memory.size(needed)} by arithmetic, but {memory.size(free)} are free on {device}. {ADVICE}"
            )
    else:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # which all do the same
        memory.require_memory(
            (needed - parts["weights"]) * processes, what, ADVICE
        )  # the weights are in memory already


def smaller(batch_size: int, world: int, accumulate: int, step: int, error: str) -> int:
    """Into how many parts to cut a process's share of a batch, after memory ran out with `accumulate` of them.

    Parameters
    ----------
    batch_size : int
        items of a step, over all processes
    world : int
        processes
    accumulate : int
        parts that were too large
    step : int
        of the training, counted from 0
    error : str
        what the device said

    Raises
    ------
    MachineError
        Where a part is a single item already, or several processes would have to agree.
    """
    first = " ".join(error.split())[:200]
    share = batch_size // world
    if world > 1:
        # The others wait in an exchange that this process will not reach; only the starter can change all of them.
        raise MachineError(
            f"memory ran out at step {step + 1} ({first}) on one of {world} processes, which cannot change the parts of a "
            f"batch on their own. Set accumulate={2 * accumulate} (now {accumulate}). {ADVICE}"
        )

    # At least twice as many, and equal ones: their mean is the mean of the batch.
    more = next((n for n in range(2 * accumulate, share + 1) if share % n == 0), None)
    if more is None:
        raise MachineError(
            f"memory ran out at step {step + 1} ({first}) with {share // accumulate} of the {batch_size} items of a batch at "
            f"a time, and the batch cannot be cut any smaller. {ADVICE}"
        )

    # Blocks of the old size, kept for use again, would leave no room in one piece for those of the new.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

    warnings.warn(
        f"memory ran out at step {step + 1} with {share // accumulate} items at a time; the step is done again with "
        f"{share // more}, and their gradients are added up: the same batches of {batch_size} and the same noise, only "
        f"slower. Set accumulate={more} to start so. ({first})",
        PhospheneWarning,
        stacklevel=6,
    )

    return more


def leave_group_at_exit() -> None:
    """Take this process out of its group before Python ends: one left open aborts, at times, when others end first."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        atexit.unregister(_leave_group)  # several trainings share one group
        atexit.register(_leave_group)


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def explained_failure(folder: Path | None) -> Iterator[None]:
    """Turn failures of device, memory and other processes into MachineError.

    Parameters
    ----------
    folder : Path or None
        of checkpoints; None where nothing is saved

    Yields
    ------
    None
        the training is the block
    """
    kept = ""
    if folder is not None:
        kept = " The last checkpoint is kept; the same command goes on from it."

    try:
        yield
    except PhospheneError:
        raise  # says it better already
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise MachineError(
            f"memory ran out in training: {' '.join(str(error).split())[:300]}. {ADVICE}{kept}"
        ) from error
    except RuntimeError as error:
        # Many failures of torch are plain RuntimeErrors, which only their text tells apart.
        text = " ".join(str(error).split())
        if "allocate memory" in text or "not enough memory" in text:
            raise MachineError(f"memory ran out in training: {text[:300]}. {ADVICE}{kept}") from error
        if isinstance(error, torch.AcceleratorError) or text.startswith(("CUDA error", "NCCL error")):
            raise MachineError(f"the device gave out in training: {text[:300]}.{kept}") from error

        if _is_of_another(error, text):
            raise MachineError(
                f"another of the {os.environ.get('WORLD_SIZE', 'several')} processes stopped, so process "
                f"{os.environ.get('RANK', '?')} stops as well; the reason stands in the output of the one that stopped "
                f"first.{kept} ({text[:120]})"
            ) from error

        raise


def _is_of_another(error: RuntimeError, text: str) -> bool:
    """Whether this failure is an exchange that broke off because another process went away."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return False
    return isinstance(error, torch.distributed.DistError) or "peer" in text.lower() or "gloo" in text
