"""Train mappers and the network back, each at its best step on training stimuli that it is not trained on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.brain.batches import in_batches
from phosphene.brain.mapper import (
    EncoderTraining,
    MapperConfig,
    MapperPart,
    MapperTraining,
    VoxelEncoderConfig,
    VoxelEncoderPart,
    Weights,
)
from phosphene.brain.mapper_network import Mapper, VoxelEncoder
from phosphene.errors import DataError
from phosphene.features.captions import Targets
from phosphene.train import Draws
from phosphene.train.best_step import BestStep, EnoughError
from phosphene.train.loop import train
from phosphene.train.losses import cosine, info_nce
from phosphene.train.settings import TrainConfig

_BLOCK = 128  # rows of validation that are told apart from each other, the batch of the paper's second stage


def mapper_loss(
    predicted: Tensor, true: Tensor, weights: Weights, tau: float = 0.5, symmetric: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a mapper (equation 2 of the paper), and its terms.

        a1 mean (p - h)^2 + a2 (1 - mean cos(p, h)) + a3 InfoNCE(p, h; tau)

    Parameters
    ----------
    predicted, true : (n, d); `true` of length one
    weights : a1, a2, a3
    tau, symmetric : of InfoNCE

    Examples
    --------
    >>> p, h = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> mapper_loss(p, h, Weights(mse=0.4, cosine=0.6))[0].item()  # 0.4 (4 + 1) / 2 + 0.6 (1 - 0)
    1.600000023841858
    """
    terms = {"mse": (predicted - true).square().mean(), "cosine": cosine(predicted, true)}
    loss = weights.mse * terms["mse"] + weights.cosine * terms["cosine"]
    if weights.contrast:
        terms["contrast"] = info_nce(predicted, true, 1 / tau, symmetric=symmetric)
        loss = loss + weights.contrast * terms["contrast"]
    return loss, {k: v.detach() for k, v in terms.items()}


def fit_mapper(
    config: MapperConfig,
    betas: np.ndarray,
    items: np.ndarray,
    targets: Targets,
    training: MapperTraining,
    *,
    seed: int,
    held_out: np.ndarray | None = None,
    ridge: tuple[np.ndarray, np.ndarray] | None = None,
    folder: Path | None = None,
    **more: Any,
) -> MapperPart:
    """Train a mapper in its stages; in each, the step with the smallest validation loss is kept.

    Parameters
    ----------
    config : sizes
    betas : (n, n_voxels) standardised, array or memory map, a row per trial
    items : (n,) number of each row's stimulus in `targets`
    targets : of the training stimuli; each step takes one of those of its stimulus
    training : how
    seed : of weights, batches and of which target is taken
    held_out : rows to judge by, which should hold all rows of their stimuli (see
        :func:`phosphene.brain.gru_fit.validation_rows`); none: the last step is taken
    ridge : weights (n_voxels, n_latents) and intercept (n_latents,) for ``config.linear="ridge"``
    folder : of checkpoints; a training that was killed goes on from the last one and ends the same
    more : as for :func:`phosphene.train.train`

    Returns
    -------
    MapperPart, with ``chosen_`` = one dict, by stage ``{"step", "validation_loss", "stopped_at"}``

    Raises
    ------
    DataError
        Numbers of rows that differ, items that have no target, or no ridge where one is asked for.
    """
    items = np.asarray(items, dtype=np.int64)
    if len(betas) != len(items) or (len(items) and items.max() >= len(targets.clean)):
        raise DataError(
            f"each row of betas needs the number of one of {len(targets.clean)} stimuli, but {len(betas)} rows came with "
            f"{len(items)} numbers up to {items.max(initial=0)}."
        )
    _check_ridge(config, ridge)
    mapper = Mapper.create(config, betas.shape[1], targets.clean.shape[1], seed)
    rows, _ = _sides(len(items), held_out)
    if config.target_units == "training":
        mapper.set_target_units(targets.clean[items[rows]])
    if ridge is not None:
        mapper.set_line(*ridge)
    t = training
    plan = {
        "two": [("base", t.base, t.base_weights), ("finetune", t.finetune, t.weights)],
        "base": [("base", t.base, t.base_weights)],
        "joint": [("joint", t.base, t.weights)],
    }[t.stages]
    chosen: dict[str, Any] = {}
    for number, (name, settings, weights) in enumerate(plan):
        trainee = _MapperTrainee(mapper, targets, weights, t.tau, t.symmetric)
        chosen[name] = _train(
            trainee,
            lambda rows: {"betas": _tensor(betas[rows]), "items": torch.from_numpy(items[rows])},
            (betas, targets.clean[items]),
            _sides(len(items), held_out),
            settings,
            (t.check_every, t.patience),
            seed=seed + number,
            folder=None if folder is None else Path(folder) / name,
            **more,
        )
    return MapperPart.of(mapper, chosen)


def fit_voxel_encoder(
    config: VoxelEncoderConfig,
    latents: np.ndarray,
    betas: np.ndarray,
    training: EncoderTraining,
    *,
    seed: int,
    held_out: np.ndarray | None = None,
    ridge: tuple[np.ndarray, np.ndarray] | None = None,
    folder: Path | None = None,
    **more: Any,
) -> VoxelEncoderPart:
    """Train the network from embeddings to voxels.

    Parameters
    ----------
    config : sizes
    latents : (n, n_latents) of length one, a row per trial
    betas : (n, n_voxels) standardised
    training : how
    ridge : weights (n_latents, n_voxels) and intercept (n_voxels,) for ``config.linear="ridge"``
    seed, held_out, folder, more : as `fit_mapper` takes them

    Returns
    -------
    VoxelEncoderPart, with ``chosen_`` = ``{"step", "validation_loss", "stopped_at"}``

    Raises
    ------
    DataError
        Numbers of rows that differ.
    """
    if len(latents) != len(betas):
        raise DataError(f"latents and betas must be of the same trials, but have {len(latents)} and {len(betas)} rows.")
    _check_ridge(config, ridge)
    network = VoxelEncoder.create(config, betas.shape[1], latents.shape[1], seed)
    if ridge is not None:
        network.set_line(*ridge)
    chosen = _train(
        _EncoderTrainee(network, training.weights),
        lambda rows: {"latents": _tensor(latents[rows]), "betas": _tensor(betas[rows])},
        (latents, betas),
        _sides(len(betas), held_out),
        training.train,
        (training.check_every, training.patience),
        seed=seed,
        folder=folder,
        **more,
    )
    return VoxelEncoderPart.of(network, chosen)


# -- training ----------------------------------------------------------------------------------------------------------


class _MapperTrainee(nn.Module):
    """A mapper with what it learns towards."""

    def __init__(self, network: Mapper, targets: Targets, weights: Weights, tau: float, symmetric: bool) -> None:
        super().__init__()
        self.network, self.targets, self.weights, self.tau, self.symmetric = network, targets, weights, tau, symmetric

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        key = int(torch.randint(2**62, (1,), generator=draws.generator))  # a function of seed and step
        true = torch.from_numpy(self.targets.at(batch["items"].cpu().numpy(), key))
        return self.judge(self.network(batch["betas"]), true.to(batch["betas"].device))

    def judge(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return mapper_loss(predicted, true, self.weights, self.tau, self.symmetric)


class _EncoderTrainee(nn.Module):
    def __init__(self, network: VoxelEncoder, weights: Weights) -> None:
        super().__init__()
        self.network, self.weights = network, weights

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        return self.judge(self.network(batch["latents"]), batch["betas"])

    def judge(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return mapper_loss(predicted, true, self.weights)


def _train(
    trainee: Any,
    fetch: Any,
    pairs: tuple[Any, Any],
    sides: tuple[np.ndarray, np.ndarray],
    settings: TrainConfig,
    looks: tuple[int, int | None],
    *,
    seed: int,
    folder: Path | None,
    **more: Any,
) -> dict[str, Any]:
    """Train in place, and leave the network at its best step; what was chosen."""
    rows, held_out = sides
    every, patience = looks
    judge = partial(_judged, trainee, pairs, held_out)
    best = BestStep(trainee, judge, "validation_loss", folder, patience) if len(held_out) else None
    options = {"log_every": every, "watch": best and best.look, "optimizer": _adam, **more}
    try:
        stopped_at = train(
            trainee, lambda i: fetch(rows[i]), len(rows), settings, seed=seed, folder=folder, **options
        ).step
    except EnoughError as enough:
        stopped_at = enough.step
    trainee.to("cpu").eval()
    if best is None or not best.restore():
        return {"step": stopped_at}
    return {"step": best.step, "validation_loss": best.value, "stopped_at": stopped_at}


def _adam(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam whose weight decay is part of the gradient, as the authors have it."""
    weights = [w for w in network.parameters() if w.requires_grad]
    return torch.optim.Adam(weights, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def _judged(trainee: Any, pairs: tuple[Any, Any], held_out: np.ndarray) -> float:
    """Mean loss over the validation rows, in their order and in equal blocks of about the paper's batch."""
    x, y = pairs
    total = 0.0
    for rows in np.array_split(held_out, -(-len(held_out) // _BLOCK)):
        predicted = in_batches(trainee.network, trainee.network, x[rows], len(rows), "validation rows")
        total += len(rows) * float(trainee.judge(_tensor(predicted), _tensor(y[rows]))[0])
    return total / len(held_out)


def _check_ridge(config: MapperConfig | VoxelEncoderConfig, ridge: tuple[np.ndarray, np.ndarray] | None) -> None:
    if (config.linear == "ridge") != (ridge is not None):
        came = "without" if ridge is None else "with"
        raise DataError(
            f"a network with linear='{config.linear}' came {came} a ridge; one goes with linear='ridge' only."
        )


def _sides(n: int, held_out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and rows to judge by."""
    held_out = np.empty(0, dtype=np.int64) if held_out is None else np.asarray(held_out, dtype=np.int64)
    return np.setdiff1d(np.arange(n), held_out), held_out


def _tensor(rows: Any) -> Tensor:
    return torch.from_numpy(np.array(rows, dtype=np.float32))
