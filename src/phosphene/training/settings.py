"""How a network is trained, as plain values."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from phosphene.io.config import Config


class TrainConfig(Config):
    """How one network is trained. All of it is part of the science; where and how often to save is not here."""

    steps: int = Field(ge=1, description="optimiser steps in all")
    batch_size: int = Field(ge=1, description="items per step, over all processes and accumulated parts together")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    warmup: int = Field(default=0, ge=0, description="steps over which the learning rate rises linearly to its peak")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="what the learning rate does after warm-up"
    )
    lr_end: float = Field(default=0.0, ge=0, le=1, description="learning rate at the end, as a share of the peak")
    adam_betas: tuple[float, float] = Field(default=(0.9, 0.999), description="AdamW's decay rates")
    weight_decay: float = Field(
        default=0.01, ge=0, description="AdamW's, on matrices and filters, not on biases and gains"
    )
    clip_norm: float | None = Field(default=None, gt=0, description="largest norm of the gradient")
    accumulate: int = Field(
        default=1, ge=1, description="parts a process computes its share of a batch in, to save memory"
    )
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of the running average of the weights")
    precision: Literal["float32", "bf16"] = Field(
        default="float32", description="of the products; weights stay float32"
    )
    recompute: bool = Field(
        default=False, description="compute each block twice, to save memory; results stay the same"
    )
    compile: str | None = Field(
        default=None,
        description="backend of torch.compile, such as inductor: faster after a slow start, other roundings",
    )


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of a step as a share of its peak: a linear rise, then what the schedule says down to `lr_end`.

    Parameters
    ----------
    config : TrainConfig
        steps, warmup, schedule and lr_end
    step : int
        counted from 0

    Returns
    -------
    float
        0 to 1

    Examples
    --------
    >>> config = TrainConfig(steps=100, batch_size=1, warmup=10)
    >>> [round(learning_rate(config, s), 3) for s in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    # From one share on, not from zero: a first step of rate 0 would move nothing.
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0

    # Reaches 1 only after the last step, so that no step is spent at a rate of zero; never divides by zero either, where
    # warm-up takes all steps.
    done = min(1.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    if config.schedule == "linear":
        left = 1 - done
    else:
        left = 0.5 * (1 + math.cos(math.pi * done))
    return config.lr_end + (1 - config.lr_end) * left
