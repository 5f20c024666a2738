"""Train a network from betas to latents, its best step chosen on training stimuli that it is not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phosphene.brain.gru import LatentNetPart, LatentTraining, _NetConfig
from phosphene.brain.gru_network import LatentNet
from phosphene.errors import DataError, SplitError
from phosphene.run.progress import Progress
from phosphene.train.best_step import BestStep, EnoughError
from phosphene.train.loop import train


def fit_latent_net(
    config: _NetConfig,
    betas: np.ndarray,
    latents: np.ndarray,
    stimuli: Sequence[str] | np.ndarray,
    training: LatentTraining,
    *,
    seed: int,
    groups: Sequence[np.ndarray] = (),
    folder: Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    **more: Any,
) -> LatentNetPart:
    """Train a network; the step whose validation error is smallest is kept.

    The validation stimuli are drawn from the stimuli given here, which should be training stimuli and nothing else, and
    all rows of a stimulus are on one side. The units of the latents come from the other side too.

    Parameters
    ----------
    config : which network
    betas : (n, n_voxels) standardised, array or memory map
    latents : (n, n_latents), array or memory map
    stimuli : (n,) stimulus of each row
    training : how
    seed : of weights, batches, dropout and the validation split
    groups : voxel numbers of each group, for ``kind="group_gru"``
    folder : of checkpoints; a training that was killed goes on from the last one and ends the same
    device, progress, more : as for :func:`phosphene.train.train`

    Returns
    -------
    LatentNetPart, with ``chosen_`` = ``{"step", "validation_mse", "mean_mse", "n_validation", "stopped_at"}``: the best
    step, its mean squared error in the latents' own units beside that of always answering the training mean, how many
    stimuli judged, and where training ended. Without validation, and on processes other than the first: the last step, and
    ``{"step"}``.

    Raises
    ------
    DataError
        Numbers of rows that differ.
    SplitError
        Too few stimuli to hold any out.
    """
    stimuli = np.asarray(stimuli).astype(str)
    if not len(betas) == len(latents) == len(stimuli):
        raise DataError(
            f"betas, latents and stimuli must have a row for the same trials, but have {len(betas)}, {len(latents)} and "
            f"{len(stimuli)} rows."
        )
    rows, held_out = validation_rows(stimuli, training.validation, np.random.default_rng([seed, 0]))
    network = LatentNet.create(config, betas.shape[1], latents.shape[1], seed, groups=groups)
    mean, variance = _moments(latents, rows)
    network.set_target_scale(mean, variance)

    def fetch(items: np.ndarray) -> dict[str, torch.Tensor]:
        picked = rows[items]
        both = {"betas": betas[picked], "latents": latents[picked]}
        return {k: torch.from_numpy(np.array(v, dtype=np.float32)) for k, v in both.items()}

    def judge() -> float:
        part = LatentNetPart.of(network)
        return _error(latents, held_out, lambda block: part.predict(betas[block], len(block)))

    best = BestStep(network, judge, "validation_mse", folder, training.patience) if len(held_out) else None
    try:
        stopped_at = train(
            network,
            fetch,
            len(rows),
            training.train,
            seed=seed,
            folder=folder,
            log_every=training.check_every,
            watch=best and best.look,
            device=device,
            progress=progress,
            **more,
        ).step
    except EnoughError as enough:
        stopped_at = enough.step
    network.to("cpu").eval()
    if best is None or not best.restore():
        return LatentNetPart.of(network, {"step": stopped_at})
    chosen = {
        "step": best.step,
        "validation_mse": best.value,
        "mean_mse": _error(latents, held_out, lambda block: np.broadcast_to(mean, (len(block), len(mean)))),
        "n_validation": len(np.unique(stimuli[held_out])),
        "stopped_at": stopped_at,
    }
    return LatentNetPart.of(network, chosen)


def validation_rows(stimuli: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to judge by, no stimulus on both sides.

    Parameters
    ----------
    stimuli : (n,) stimulus of each row
    share : of the stimuli to judge by; at least one stimulus where it is not 0
    rng : draws them

    Returns
    -------
    rows, held_out : int64, ascending

    Raises
    ------
    SplitError
        When fewer than two stimuli would be left to train on.

    Examples
    --------
    >>> rows, held_out = validation_rows(np.array(["a", "b", "a", "c"]), 0.3, np.random.default_rng(0))
    >>> len(rows) + len(held_out)
    4
    """
    ids = np.unique(stimuli)
    n_out = max(1, round(share * len(ids))) if share else 0
    if len(ids) - n_out < 2:
        raise SplitError(
            f"{len(ids)} training stimuli cannot give {n_out} to choose the best step by and keep two to train on; give "
            "more stimuli, or set validation=0 and take the last step."
        )
    is_out = np.isin(stimuli, rng.permutation(ids)[:n_out])
    return np.flatnonzero(~is_out), np.flatnonzero(is_out)


def _moments(latents: np.ndarray, rows: np.ndarray, size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each column over some rows, float64, read in blocks."""
    blocks = [rows[i : i + size] for i in range(0, len(rows), size)]
    mean = sum(np.asarray(latents[b], dtype=np.float64).sum(axis=0) for b in blocks) / len(rows)
    return mean, sum(np.square(latents[b] - mean).sum(axis=0) for b in blocks) / len(rows)


def _error(latents: np.ndarray, rows: np.ndarray, predict: Any, size: int = 256) -> float:
    """Mean squared error over rows and columns of what `predict` says of some row numbers."""
    blocks = [rows[i : i + size] for i in range(0, len(rows), size)]
    total = sum(np.square(predict(b) - np.asarray(latents[b], dtype=np.float64)).sum() for b in blocks)
    return float(total / (len(rows) * latents.shape[1]))
