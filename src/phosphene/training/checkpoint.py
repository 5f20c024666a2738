"""Checkpoints of a training, and networks as finished parts of a run. Safetensors and JSON only, never a pickle.

::

    FOLDER/step-00001200/
      model.safetensors        weights and buffers
      ema.safetensors          their running average, where there is one
      optimizer.safetensors    "exp_avg/NAME" and the like, one entry per state and weight
      state.json               step, what was trained on what, the curve so far, SHA-256 of the files above

A checkpoint folder appears whole or not at all; the last two are kept.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from phosphene.errors import ModelError, PhospheneWarning
from phosphene.io import atomic
from phosphene.io.inside import must_stay_inside
from phosphene.io.reading import reads
from phosphene.io.run_folder import read_json
from phosphene.types.identity import few

if TYPE_CHECKING:
    import torch
    from torch import nn

STATE = "state.json"
KEPT = 2  # one to go on from, and one before it in case the disk has damaged the last
_FILES = ("model", "optimizer", "ema")


@dataclass
class Checkpoint:
    """What a training needs to go on as if it had never stopped.

    Attributes
    ----------
    step : int
        optimiser steps done
    model : dict of str to Tensor
        weights and buffers of the network by name
    optimizer : dict of str to Tensor
        see `flatten_optimizer`
    ema : dict of str to Tensor or None
        running average of `model`; None where none is kept
    record : dict of str to Any
        what else the loop wants back: identity, curve, number of processes and of parts
    """

    step: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    ema: dict[str, torch.Tensor] | None
    record: dict[str, Any]


def flatten_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, torch.Tensor]:
    """State of an optimiser as tensors by "key/weight".

    The optimiser itself counts weights by their place, which changes with the order of layers; names do not.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        whose groups hold the weights
    names : mapping of int to str
        ``id(weight)`` to the name it has in the network

    Returns
    -------
    dict of str to Tensor
        such as ``{"exp_avg/layer.weight": ...}``, not copied

    Raises
    ------
    ModelError
        When the optimiser keeps something that is not a tensor.
    """
    import torch

    out: dict[str, torch.Tensor] = {}
    for weight, state in optimizer.state.items():
        for key, value in state.items():
            if not isinstance(value, torch.Tensor):
                raise ModelError(
                    f"{type(optimizer).__name__} keeps '{key}', a {type(value).__name__}, beside each weight; only "
                    "tensors can be saved and resumed. Use an optimiser of torch.optim such as AdamW."
                )

            out[f"{key}/{names[id(weight)]}"] = value
    return out


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], saved: Mapping[str, torch.Tensor]
) -> None:
    """Put a saved state into a fresh optimiser of the same weights.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        made the same way as the one that was saved; changed in place
    names : mapping of int to str
        as for `flatten_optimizer`
    saved : mapping of str to Tensor
        what `flatten_optimizer` gave

    Raises
    ------
    ModelError
        When weights differ from those the state was saved for.
    """
    groups = optimizer.state_dict()["param_groups"]

    # torch numbers the weights through all groups, in the order in which the groups hold them.
    by_index: dict[int, str] = {}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            by_index[len(by_index)] = names[id(weight)]

    state: dict[str, dict[str, Any]] = {}
    for entry, tensor in saved.items():
        # At the first slash: names of weights may hold more of them, keys of a state hold none.
        key, _, name = entry.partition("/")
        state.setdefault(name, {})[key] = tensor

    known = set(by_index.values())
    if unknown := sorted(set(state) - known):
        raise ModelError(
            f"the saved optimiser state is of other weights: {', '.join(unknown[:3])} are not trained here."
        )

    # A weight without state is one that had no gradient yet. The groups stay those of the fresh optimiser: a resume may
    # change the learning rate where its caller allows that.
    by_number = {}
    for index, name in by_index.items():
        if name in state:
            by_number[index] = state[name]
    optimizer.load_state_dict({"param_groups": groups, "state": by_number})


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write one checkpoint whole or not at all and drop all but the last two.

    Parameters
    ----------
    folder : Path
        of all checkpoints of this training
    checkpoint : Checkpoint
        to be written

    Returns
    -------
    Path
        folder of this checkpoint

    Raises
    ------
    ModelError
        When a weight is not finite: a broken state never replaces a good one.
    MachineError
        Disk full, folder gone.
    """
    import torch
    from safetensors.torch import save

    record = {**checkpoint.record, "step": checkpoint.step, "sha256": {}}
    place = folder / f"step-{checkpoint.step:08d}"
    with atomic.folder(place) as temporary:
        for name in _FILES:
            tensors = getattr(checkpoint, name)
            if tensors is None:
                continue

            for key, tensor in tensors.items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise ModelError(
                        f"{name} '{key}' holds NaN or infinite values at step {checkpoint.step}; not saved."
                    )

            # Weights that two layers share are written twice: safetensors refuses memory that is shared.
            copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
            data = save(copies)
            (temporary / f"{name}.safetensors").write_bytes(data)
            record["sha256"][name] = hashlib.sha256(data).hexdigest()

        # Last: it names the hashes of the others.
        (temporary / STATE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    # Only now that the new one stands under its name. A kill before this line leaves three, until
    # the next save.
    for old in checkpoints(folder)[:-KEPT]:
        must_stay_inside(old)
        shutil.rmtree(old, ignore_errors=True)
    return place


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first.

    Parameters
    ----------
    folder : Path
        of all checkpoints of a training; may be absent

    Returns
    -------
    list of Path
        without what a killed process left half written, which has another name
    """
    # Eight digits in the name put them in the order of steps.
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


@reads("place", ModelError)
def load_checkpoint(place: Path) -> Checkpoint:
    """Read one checkpoint.

    Parameters
    ----------
    place : Path
        folder of one checkpoint

    Returns
    -------
    Checkpoint
        with its tensors on the CPU

    Raises
    ------
    ModelError
        Damaged, or without its optimiser state.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    record = read_json(place / STATE)
    parts: dict[str, Any] = {"ema": None}
    for name, digest in record.get("sha256", {}).items():
        file = place / f"{name}.safetensors"
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ModelError(f"{file} cannot be read ({error.strerror}).") from error

        # Before it is parsed: a flipped bit in a weight parses well and trains on.
        if hashlib.sha256(data).hexdigest() != digest:
            raise ModelError(f"{file} is not what was written (its SHA-256 differs).")

        try:
            parts[name] = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ModelError(f"{file} is no valid safetensors file ({error}).") from error

    if absent := [name for name in ("model", "optimizer") if name not in parts]:
        raise ModelError(f"{place} was saved without its {' and '.join(absent)}.")
    return Checkpoint(int(record["step"]), record=record, **parts)


def last_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read; None in an empty folder.

    A damaged one is passed over with a warning in favour of the one before.

    Parameters
    ----------
    folder : Path
        of all checkpoints of a training; may be absent

    Returns
    -------
    Checkpoint or None
        with its tensors on the CPU

    Raises
    ------
    ModelError
        When the newest has lost its optimiser state, or none can be read.
    """
    found = checkpoints(folder)
    for place in reversed(found):
        # Somebody deleted the largest file to save space. Training would go on with moments of zero and look healthy.
        if (place / STATE).is_file() and not (place / "optimizer.safetensors").is_file():
            raise ModelError(
                f"{place} has no optimizer.safetensors: going on without the optimiser's state would be another training "
                f"than the one that was started. Put the file back, or delete {place} to go on from the checkpoint "
                "before it (from the start, where there is none)."
            )

        try:
            return load_checkpoint(place)
        except ModelError as error:
            damage = str(error)  # of the oldest, after the last round
            if place != found[0]:
                warnings.warn(
                    f"the checkpoint {place.name} is damaged and the one before it is used: {damage}",
                    PhospheneWarning,
                    stacklevel=3,
                )

    if found:
        raise ModelError(
            f"none of the {len(found)} checkpoints in {folder} can be read; the oldest: {damage} "
            "Delete the folder to train from the start."
        )

    return None


class ModulePart:
    """A network as a fitted part of a run: its weights as arrays, its configuration as plain values.

    Subclass it, once per network, and say how the network is built::

        class Tiny(ModulePart):
            @classmethod
            def build(cls, config):
                from torch import nn
                return nn.Linear(config["n_in"], config["n_out"])

    Parameters
    ----------
    module : nn.Module
        the network
    config : mapping of str to Any
        plain values that `build` makes the same network from

    Attributes
    ----------
    module : nn.Module
        as given
    config : dict of str to Any
        a copy of what was given
    """

    version: ClassVar[int] = 1

    def __init__(self, module: nn.Module, config: Mapping[str, Any]) -> None:
        self.module = module
        self.config = dict(config)

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.Module:
        """An untrained network of this configuration.

        Parameters
        ----------
        config : dict of str to Any
            as it was given to the part

        Returns
        -------
        nn.Module
            with weights of any value: those saved are put over them
        """
        raise NotImplementedError

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Weights and buffers by name, and the configuration.

        Returns
        -------
        tensors : dict of str to ndarray
            see `module_state`
        meta : dict of str to Any
            what JSON can hold
        """
        return module_state(self.module), {"config": self.config}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same network again, in evaluation mode.

        Parameters
        ----------
        tensors : dict of str to ndarray
            as `state` gave them
        meta : dict of str to Any
            as `state` gave it

        Returns
        -------
        ModulePart
            of the class this is called on

        Raises
        ------
        ModelError
            When a weight is missing, unexpected, or of another shape.
        """
        part = cls(cls.build(meta["config"]), meta["config"])
        load_module_state(part.module, tensors, cls.__name__)
        part.module.eval()
        return part


def module_state(module: nn.Module) -> dict[str, np.ndarray]:
    """Weights and buffers of a network as arrays; bfloat16, which numpy lacks, becomes float32 without loss.

    Parameters
    ----------
    module : nn.Module
        on any device

    Returns
    -------
    dict of str to ndarray
        copies, which a further step of training does not change
    """
    import torch

    state = {}
    for name, tensor in module.state_dict().items():
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        state[name] = tensor.detach().cpu().contiguous().numpy().copy()
    return state


def load_module_state(module: nn.Module, tensors: Mapping[str, np.ndarray], owner: str) -> None:
    """Put arrays into a network, whole or not at all; each takes the precision the network has.

    Parameters
    ----------
    module : nn.Module
        changed in place, on whatever device it is
    tensors : mapping of str to ndarray
        as `module_state` gave them
    owner : str
        whose weights these are, for the message

    Raises
    ------
    ModelError
        Naming what is missing, unexpected or of another shape (both shapes).
    """
    import torch

    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(tensors))
    extra = sorted(set(tensors) - set(wanted))
    if missing or extra:
        lost = few(missing, 3) or "nothing"
        more = few(extra, 3) or "nothing"
        raise ModelError(
            f"the saved weights do not fit {owner}: missing {lost}, unexpected {more}. "
            "They are of another architecture or version; fit again or choose the matching configuration."
        )

    for name, tensor in wanted.items():
        # A scalar may come back from a file as one row of one number.
        if tuple(tensors[name].shape) != tuple(tensor.shape) and (tensor.ndim or tensors[name].size != 1):
            raise ModelError(
                f"'{name}' of the saved weights has shape {tuple(tensors[name].shape)}, but {owner} needs "
                f"{tuple(tensor.shape)}: another size, subject or number of voxels. Use the configuration it was saved "
                "with, or fit again."
            )

    # Only after every shape was compared, so that a refusal leaves the network as it was.
    with torch.no_grad():
        for name, tensor in wanted.items():
            # A copy: torch warns of an array that cannot be written, such as a memory map.
            tensor.copy_(torch.from_numpy(np.array(tensors[name])).reshape(tensor.shape))


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two flat records, as "key: old -> new".

    Parameters
    ----------
    old, new : mapping of str to Any
        values by key; a key that one lacks counts as None there

    Returns
    -------
    list of str
        in the order of the keys

    Examples
    --------
    >>> changed_settings({"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0})
    ['lr: 0.1 -> 0.2']
    """
    differences = []
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            differences.append(f"{key}: {old.get(key)!r} -> {new.get(key)!r}")
    return differences
