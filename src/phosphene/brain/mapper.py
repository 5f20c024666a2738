"""Mapping models: betas to CLIP embeddings by convolutions, and CLIP embeddings to betas (brain encoding).

Lin, Sprague and Singh 2022 (Mind Reader), sections 2.2 and A.8. ::

    betas (n, voxels), padded -> Conv1d, stride 2 -> 4 residual blocks -> 1x1 to d channels
        -> mix positions (the same mixture for all d) -> mix the mixtures -> embedding (n, d)
    embedding (n, d) -> Conv1d -> 4 residual blocks -> transposed Conv1d, stride 2 -> 2 d positions -> 128 -> voxels

The convolutions see voxels in the order they come in; sizes, losses and their weights are those of the authors' code,
since the paper's text does not give them. One mapper is trained for pictures and one for captions.

The networks are in ``mapper_network.py``, training in ``mapper_fit.py``; here is what needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.brain.batches import in_batches
from phosphene.errors import ModelError
from phosphene.run.config import Config, validate
from phosphene.train.checkpoint import ModulePart
from phosphene.train.settings import TrainConfig

if TYPE_CHECKING:
    from torch import nn

    from phosphene.brain.mapper_network import VoxelEncoder


class MapperConfig(Config):
    """Sizes of the mapper; the defaults are the authors'."""

    kind: Literal["mapper"] = "mapper"
    padded: int | None = Field(
        None,
        ge=1,
        description="positions to pad voxels to; 15,744 for subject 1 of NSD. By default as many as it takes",
    )
    layers: int = Field(1, ge=1, description="convolutions at the start, each of which halves the positions")
    channels: int = Field(64, ge=1, description="of the convolutions")
    blocks: int = Field(4, ge=0, description="residual blocks")
    mixtures: int = Field(128, ge=1, description="of positions, before they become one; 256 towards ResNet features")
    target_units: Literal["none", "training"] = Field(
        "none",
        description="'training' learns embeddings in units of the mean and spread of the training ones: a start that needs "
        "hundreds of steps instead of many thousands. Ours",
    )
    linear: Literal["none", "ridge"] = Field(
        "none",
        description="'ridge' adds a ridge regression, fitted first; the network learns what it leaves over. Ours",
    )

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, narrower and coarser for ``lab``."""
        return {} if name == "paper" else {"channels": 8, "blocks": 2, "mixtures": 64, "linear": "ridge"}


class VoxelEncoderConfig(Config):
    """Sizes of the network from embeddings to voxels; the defaults are the authors'."""

    kind: Literal["voxel_encoder"] = "voxel_encoder"
    channels: int = Field(64, ge=1, description="of the convolutions")
    blocks: int = Field(4, ge=0, description="residual blocks")
    bottleneck: int = Field(128, ge=1, description="dimensions that predictions lie in")
    linear: Literal["none", "ridge"] = Field("none", description="as for the mapper")

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, narrower for ``lab``."""
        return {} if name == "paper" else {"channels": 8, "blocks": 2, "linear": "ridge"}


class Weights(Config):
    """Of the terms of a loss: squared error, one minus the cosine, InfoNCE."""

    mse: float = Field(ge=0)
    cosine: float = Field(ge=0)
    contrast: float = Field(0.0, ge=0)


class MapperTraining(Config):
    """How a mapper is trained, in two stages, and how its best step is chosen.

    Steps of the defaults are 40 epochs of 23,715 trials. The authors take a fifth off the learning rate every 10 epochs,
    which a line from 1 to 0.41 follows.
    """

    base: TrainConfig = Field(
        TrainConfig(steps=29_640, batch_size=32, lr=4e-4, schedule="linear", lr_end=0.41, weight_decay=1e-5),
        description="first stage",
    )
    finetune: TrainConfig = Field(
        TrainConfig(steps=7_410, batch_size=128, lr=4e-4, schedule="linear", lr_end=0.41, weight_decay=1e-5),
        description="second stage, from the best weights of the first; its steps are not given by the paper",
    )
    stages: Literal["two", "base", "joint"] = Field(
        "two", description="both; the first alone; or both losses from the start (the columns of table 3b)"
    )
    base_weights: Weights = Field(Weights(mse=0.4, cosine=0.6), description="authors' code; lost in the paper's text")
    weights: Weights = Field(Weights(mse=0.2, cosine=0.3, contrast=0.5), description="likewise")
    tau: float = Field(0.5, gt=0, description="temperature of InfoNCE; authors' code")
    symmetric: bool = Field(True, description="embeddings find predictions as well as predictions embeddings")
    validation: float = Field(
        0.1, ge=0, lt=1, description="share of training stimuli that choose the best step; 0: the last step is taken"
    )
    check_every: int = Field(741, ge=1, description="steps between looks at them; an epoch")
    patience: int | None = Field(None, ge=1, description="looks without a better one after which a stage ends")

    @model_validator(mode="after")
    def _no_average(self) -> Self:
        if self.validation and (self.base.ema is not None or self.finetune.ema is not None):
            raise ValueError(
                "averages the weights at the end (ema), which leaves no best step to choose: set validation=0"
            )
        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, a minute on a small processor for ``lab``."""
        if name == "paper":
            return {}
        base = {"steps": 200, "batch_size": 32, "lr": 1e-3, "weight_decay": 1e-4}
        return {
            "base": base, "finetune": {**base, "steps": 100, "batch_size": 64, "lr": 4e-4}, "check_every": 20, "patience": 3,
        }  # fmt: skip


class EncoderTraining(Config):
    """How the network from embeddings to voxels is trained. The paper gives none of it; this is what the mapper has."""

    train: TrainConfig = Field(
        TrainConfig(steps=29_640, batch_size=32, lr=4e-4, schedule="linear", lr_end=0.41, weight_decay=1e-5)
    )
    weights: Weights = Field(Weights(mse=0.4, cosine=0.6), description="the cosine is over the voxels of one response")
    validation: float = Field(0.1, ge=0, lt=1, description="as for the mapper")
    check_every: int = Field(741, ge=1, description="as for the mapper")
    patience: int | None = Field(None, ge=1, description="as for the mapper")

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, seconds on a small processor for ``lab``."""
        if name == "paper":
            return {}
        train = {"steps": 200, "batch_size": 32, "lr": 1e-3, "weight_decay": 1e-4}
        return {"train": train, "check_every": 20, "patience": 3}


class MapperPart(ModulePart):
    """One trained mapper or several, as a part of a run.

    Several are summed with weights after each prediction has been brought to length one. By cosine this ranks
    embeddings for a response exactly as the weighted sum of the mappers' similarity matrices does.

    Parameters
    ----------
    module : the mappers, a ModuleList
    config : as `of` makes it

    Attributes
    ----------
    weights_ : (n_mappers,) their weights, sum one
    chosen_ : by mapper, what was chosen on the validation stimuli, for people
    """

    module: nn.ModuleList

    @classmethod
    def of(cls, mapper: nn.Module, chosen: dict[str, Any] | None = None) -> Self:
        """The part that holds this :class:`phosphene.brain.Mapper`."""
        import torch

        sizes = {"n_voxels": mapper.n_voxels, "n_latents": mapper.n_latents}
        config = {"network": mapper.config.model_dump(mode="json"), **sizes, "weights": [1.0], "chosen": [chosen or {}]}
        return cls(torch.nn.ModuleList([mapper]), config)

    @classmethod
    def together(cls, parts: Sequence[Self], weights: np.ndarray) -> Self:
        """Several parts as one.

        Raises
        ------
        ModelError
            For mappers of different sizes, and weights that are negative, all zero, or of another number.
        """
        import torch

        weights = np.asarray(weights, dtype=np.float64)
        if len(weights) != sum(len(p.module) for p in parts) or not (weights >= 0).all() or not weights.sum() > 0:
            raise ModelError(f"{len(parts)} mappers need as many weights from 0, not all 0, but came with {weights}.")
        sizes = {(p.config["n_voxels"], p.config["n_latents"], str(p.config["network"])) for p in parts}
        if len(sizes) > 1:
            raise ModelError(f"only mappers of the same sizes can work together, but these have {sorted(sizes)}.")
        config = {
            **parts[0].config,
            "weights": (weights / weights.sum()).tolist(),
            "chosen": [c for p in parts for c in p.config["chosen"]],
        }
        return cls(torch.nn.ModuleList([m for p in parts for m in p.module]), config)

    @property
    def weights_(self) -> np.ndarray:
        """See the class."""
        return np.array(self.config["weights"])

    @property
    def chosen_(self) -> list[dict[str, Any]]:
        """See the class."""
        return self.config["chosen"]

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.ModuleList:
        """Mappers of this configuration without values yet."""
        import torch

        from phosphene.brain.mapper_network import Mapper

        values = validate(MapperConfig, config["network"], "the saved mapper")
        with torch.device("meta"):
            mappers = [Mapper(values, config["n_voxels"], config["n_latents"]) for _ in config["weights"]]
        return torch.nn.ModuleList(mappers).to_empty(device="cpu")

    def predict(self, betas: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Brain to embedding, each row as if it were alone, but for rounding.

        Parameters
        ----------
        betas : (n, n_voxels), standardised as the mapper was trained on, in the same order
        batch_size : rows at a time

        Returns
        -------
        (n, n_latents) float32 of length one

        Raises
        ------
        DataError
            Without rows, or with values that are not finite.
        ModelError
            With another number of voxels.
        """

        def both(rows: Any) -> Any:
            import torch

            each = [
                w * torch.nn.functional.normalize(m(rows), dim=-1)
                for w, m in zip(self.weights_, self.module, strict=True)
            ]
            return torch.nn.functional.normalize(sum(each), dim=-1)

        return in_batches(both, self.module, betas, batch_size, "betas")


class VoxelEncoderPart(ModulePart):
    """A trained network from embeddings to voxels, as a part of a run.

    Attributes
    ----------
    chosen_ : what was chosen on the validation stimuli, for people
    """

    module: VoxelEncoder

    @classmethod
    def of(cls, network: VoxelEncoder, chosen: dict[str, Any] | None = None) -> Self:
        """The part that holds this network."""
        sizes = {"n_voxels": network.n_voxels, "n_latents": network.n_latents}
        return cls(network, {"network": network.config.model_dump(mode="json"), **sizes, "chosen": chosen or {}})

    @property
    def chosen_(self) -> dict[str, Any]:
        """See the class."""
        return self.config["chosen"]

    @classmethod
    def build(cls, config: dict[str, Any]) -> VoxelEncoder:
        """A network of this configuration without values yet."""
        import torch

        from phosphene.brain.mapper_network import VoxelEncoder

        values = validate(VoxelEncoderConfig, config["network"], "the saved encoder")
        with torch.device("meta"):
            network = VoxelEncoder(values, config["n_voxels"], config["n_latents"])
        return network.to_empty(device="cpu")

    def encode(self, latents: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Embedding to brain: (n, n_latents) of length one to (n, n_voxels) float32, standardised as in training.

        Raises DataError and ModelError as :meth:`MapperPart.predict`.
        """
        return in_batches(self.module, self.module, latents, batch_size, "latents")
