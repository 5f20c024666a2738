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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import DataError, ModelError
from phosphene.features.captions import Targets
from phosphene.io.config import Config, validate
from phosphene.io.stages import versioned
from phosphene.models.batches import in_batches
from phosphene.training import Draws
from phosphene.training.best_step import BestStep, EnoughError
from phosphene.training.checkpoint import ModulePart
from phosphene.training.loop import Trainer, train
from phosphene.training.losses import cosine, info_nce
from phosphene.training.settings import TrainConfig

if TYPE_CHECKING:
    from torch import nn


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
        if name == "paper":
            return {}

        return {"channels": 8, "blocks": 2, "mixtures": 64, "linear": "ridge"}


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
        if name == "paper":
            return {}

        return {"channels": 8, "blocks": 2, "linear": "ridge"}


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
    module : nn.ModuleList
        the mappers, a ModuleList
    config : mapping of {str: Any}
        as `of` makes it

    Attributes
    ----------
    weights_ : ndarray of shape (n_mappers,)
        their weights, sum one
    chosen_ : list of dict of {str: Any}
        by mapper, what was chosen on the validation stimuli, for people
    """

    module: nn.ModuleList

    @classmethod
    def of(cls, mapper: nn.Module, chosen: dict[str, Any] | None = None) -> Self:
        """The part that holds this :class:`phosphene.models.Mapper`."""
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

        values = validate(MapperConfig, config["network"], "the saved mapper")
        with torch.device("meta"):
            mappers = [Mapper(values, config["n_voxels"], config["n_latents"]) for _ in config["weights"]]

        return torch.nn.ModuleList(mappers).to_empty(device="cpu")

    def predict(self, betas: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Brain to embedding, each row as if it were alone, but for rounding.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised as the mapper was trained on, in the same order
        batch_size : int, default 64
            rows at a time

        Returns
        -------
        ndarray of shape (n, n_latents), float32
            of length one

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
    chosen_ : dict of {str: Any}
        what was chosen on the validation stimuli, for people
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

        values = validate(VoxelEncoderConfig, config["network"], "the saved encoder")
        with torch.device("meta"):
            network = VoxelEncoder(values, config["n_voxels"], config["n_latents"])

        return network.to_empty(device="cpu")

    def encode(self, latents: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Embedding to brain: (n, n_latents) of length one to (n, n_voxels) float32, standardised as in training.

        Raises DataError and ModelError as :meth:`MapperPart.predict`.
        """
        return in_batches(self.module, self.module, latents, batch_size, "latents")


def padding(n_voxels: int, layers: int, padded: int | None = None) -> tuple[int, int]:
    """Zeros to the left and right of a row of voxels, so that its length can be halved `layers` times.

    Raises
    ------
    ModelError
        When `padded` is too short, or cannot be halved so often.

    Examples
    --------
    >>> padding(15_724, 1, 15_744), padding(13_039, 1)
    ((10, 10), (0, 1))
    """
    factor = 2**layers
    if padded is None:
        padded = -(-n_voxels // factor) * factor

    if padded < n_voxels or padded % factor:
        raise ModelError(
            f"{n_voxels} voxels cannot be padded to {padded}: it must be at least as many and a multiple of {factor}, as "
            f"{layers} convolution{'s' * (layers > 1)} halve{'s' * (layers == 1)} it. Leave 'padded' open, or give such a "
            "number."
        )

    left = (padded - n_voxels) // 2
    return left, padded - n_voxels - left


class ResidualBlock(nn.Module):
    """Three convolutions beside a direct path, (n, channels, positions) to the same; a ReLU follows the sum or not."""

    def __init__(self, channels: int, relu: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1),
        )

        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, positions) to the same."""
        x = x + self.net(x)
        if self.relu:
            return F.relu(x)

        return x


class Mapper(nn.Module):
    """Betas (n, n_voxels) to embeddings (n, n_latents).

    Parameters
    ----------
    config : MapperConfig
        sizes
    n_voxels, n_latents : int
        lengths of a row that comes in and of one that goes out

    Notes
    -----
    1,156,929 weights at 15,744 positions and 512 latents. The layer that mixes positions is shared by all latents, so
    that a latent can only differ from another in how it weighs the channels at each position.

    References
    ----------
    Lin, Sprague and Singh 2022, NeurIPS, "Mind Reader: Reconstructing complex images from brain activities", section 2.2.
    """

    def __init__(self, config: MapperConfig, n_voxels: int, n_latents: int) -> None:
        super().__init__()
        c = config
        self.config = c
        self.n_voxels = int(n_voxels)
        self.n_latents = int(n_latents)
        self.padding = padding(self.n_voxels, c.layers, c.padded)
        positions = (self.n_voxels + sum(self.padding)) // 2**c.layers
        down = [
            nn.Sequential(nn.Conv1d(c.channels if i else 1, c.channels, 4, stride=2, padding=1), nn.ReLU())
            for i in range(c.layers)
        ]

        blocks = [ResidualBlock(c.channels, relu=True) for _ in range(c.blocks)]
        self.encoder = nn.Sequential(*down, *blocks, nn.Conv1d(c.channels, self.n_latents, 1))

        # The numbers of these layers are those of the public state dicts.
        self.fc = nn.Sequential(nn.ReLU(), nn.Conv1d(positions, c.mixtures, 1), nn.ReLU(), nn.Conv1d(c.mixtures, 1, 1))
        if c.linear == "ridge":
            self.line = nn.Linear(self.n_voxels, self.n_latents)
        else:
            self.line = None

        self.register_buffer("target_mean", torch.zeros(self.n_latents))
        self.register_buffer("target_scale", torch.ones(()))

    @classmethod
    def create(cls, config: MapperConfig, n_voxels: int, n_latents: int, seed: int) -> Self:
        """An untrained mapper, its weights started as torch does; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, n_voxels, n_latents)

    def set_target_units(self, latents: np.ndarray) -> None:
        """Take the units in which embeddings are learnt from training ones (n, n_latents): their mean, and one spread."""
        self.get_buffer("target_mean").copy_(torch.from_numpy(np.asarray(latents.mean(axis=0), dtype=np.float32)))
        self.get_buffer("target_scale").fill_(float(np.sqrt(latents.var(axis=0).mean())))

    def set_line(self, weights: np.ndarray, intercept: np.ndarray) -> None:
        """Start from a linear map, kept as it is: the rest begins by adding nothing.

        Parameters
        ----------
        weights : ndarray of shape (n_voxels, n_latents)
        intercept : ndarray of shape (n_latents,)
        """
        _set_line(self.line, self.fc[-1], weights, intercept - self.get_buffer("target_mean").numpy())

    def forward(self, betas: Tensor) -> Tensor:
        """Betas (n, n_voxels) to embeddings (n, n_latents), of any length.

        Raises
        ------
        ModelError
            For another number of voxels.
        """
        if betas.ndim != 2 or betas.shape[1] != self.n_voxels:
            raise ModelError(
                f"betas must be (trials, {self.n_voxels}) for this mapper, but came as {tuple(betas.shape)}; use the voxels it "
                "was trained on, or fit again."
            )

        x = self.encoder(F.pad(betas, self.padding)[:, None])  # (n, n_latents, positions)
        out = self.fc(x.transpose(1, 2))[:, 0]  # (n, n_latents)
        out = out * self.get_buffer("target_scale") + self.get_buffer("target_mean")

        if self.line is None:
            return out

        return out + self.line(betas)


class VoxelEncoder(nn.Module):
    """Embeddings (n, n_latents) to betas (n, n_voxels).

    Parameters
    ----------
    config : VoxelEncoderConfig
        sizes
    n_voxels, n_latents : int
        lengths of a row that goes out and of one that comes in

    Notes
    -----
    2,291,693 weights for 512 latents and 15,724 voxels. Between the last two layers there is nothing, so that
    predictions lie in an affine space of ``bottleneck`` dimensions.

    References
    ----------
    Lin, Sprague and Singh 2022, section A.8 ("brain encoding") and the authors' code.
    """

    def __init__(self, config: VoxelEncoderConfig, n_voxels: int, n_latents: int) -> None:
        super().__init__()
        c = config
        self.config = c
        self.n_voxels = int(n_voxels)
        self.n_latents = int(n_latents)
        self.decoder = nn.Sequential(
            nn.Conv1d(1, c.channels, 1),
            *(ResidualBlock(c.channels, relu=False) for _ in range(c.blocks)),
            nn.ConvTranspose1d(c.channels, c.channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(c.channels, 1, 1),
        )

        self.fc = nn.Sequential(nn.Linear(2 * self.n_latents, c.bottleneck), nn.Linear(c.bottleneck, self.n_voxels))
        if c.linear == "ridge":
            self.line = nn.Linear(self.n_latents, self.n_voxels)
        else:
            self.line = None

    @classmethod
    def create(cls, config: VoxelEncoderConfig, n_voxels: int, n_latents: int, seed: int) -> Self:
        """An untrained network, its weights started as torch does; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, n_voxels, n_latents)

    def set_line(self, weights: np.ndarray, intercept: np.ndarray) -> None:
        """As :meth:`Mapper.set_line`, with weights (n_latents, n_voxels) and intercept (n_voxels,)."""
        _set_line(self.line, self.fc[-1], weights, intercept)

    def forward(self, latents: Tensor) -> Tensor:
        """Embeddings (n, n_latents) to betas (n, n_voxels).

        Raises
        ------
        ModelError
            For another number of latents.
        """
        if latents.ndim != 2 or latents.shape[1] != self.n_latents:
            raise ModelError(
                f"latents must be (items, {self.n_latents}) for this encoder, but came as {tuple(latents.shape)}; use the "
                "embedding it was trained on, or fit again."
            )

        out = self.fc(self.decoder(latents[:, None])[:, 0])
        if self.line is None:
            return out

        return out + self.line(latents)


def _set_line(line: nn.Linear, last: nn.Module, weights: np.ndarray, intercept: np.ndarray) -> None:
    """Put a map into a layer that is not trained, and nothing into the last layer beside it."""
    with torch.no_grad():
        line.weight.copy_(torch.from_numpy(np.asarray(weights, dtype=np.float32).T))
        line.bias.copy_(torch.from_numpy(np.asarray(intercept, dtype=np.float32)))
        last.weight.zero_()
        last.bias.zero_()

    line.requires_grad_(False)


_BLOCK = 128  # rows of validation that are told apart from each other, the batch of the paper's second stage


def mapper_loss(
    predicted: Tensor, true: Tensor, weights: Weights, tau: float = 0.5, symmetric: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a mapper (equation 2 of the paper), and its terms.

        a1 mean (p - h)^2 + a2 (1 - mean cos(p, h)) + a3 InfoNCE(p, h; tau)

    Parameters
    ----------
    predicted, true : Tensor of shape (n, d)
        `true` of length one
    weights : Weights
        a1, a2, a3
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


@versioned(1)
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
    trainer: Trainer = train,
    **more: Any,
) -> MapperPart:
    """Train a mapper in its stages; in each, the step with the smallest validation loss is kept.

    Parameters
    ----------
    config : MapperConfig
        sizes
    betas : ndarray of shape (n, n_voxels)
        standardised, array or memory map, a row per trial
    items : ndarray of shape (n,)
        number of each row's stimulus in `targets`
    targets : Targets
        of the training stimuli; each step takes one of those of its stimulus
    training : MapperTraining
        how
    seed : int
        of weights, batches and of which target is taken
    held_out : ndarray, optional
        rows to judge by, which should hold all rows of their stimuli (see
        :func:`phosphene.models.gru.validation_rows`); none: the last step is taken
    ridge : tuple of (ndarray, ndarray), optional
        weights (n_voxels, n_latents) and intercept (n_latents,) for ``config.linear="ridge"``
    folder : Path, optional
        of checkpoints; a training that was killed goes on from the last one and ends the same
    trainer : Trainer, default train
        does the training, or only predicts what it will need
    more : Any
        as for :func:`phosphene.training.train`

    Returns
    -------
    MapperPart
        with ``chosen_`` = one dict, by stage ``{"step", "validation_loss", "stopped_at"}``

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
            trainer=trainer,
            **more,
        )

    return MapperPart.of(mapper, chosen)


@versioned(1)
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
    trainer: Trainer = train,
    **more: Any,
) -> VoxelEncoderPart:
    """Train the network from embeddings to voxels.

    Parameters
    ----------
    config : VoxelEncoderConfig
        sizes
    latents : ndarray of shape (n, n_latents)
        of length one, a row per trial
    betas : ndarray of shape (n, n_voxels)
        standardised
    training : EncoderTraining
        how
    ridge : tuple of (ndarray, ndarray), optional
        weights (n_latents, n_voxels) and intercept (n_voxels,) for ``config.linear="ridge"``
    seed : int
        as `fit_mapper` takes them
    held_out : ndarray, optional
        as `fit_mapper` takes them
    folder : Path, optional
        as `fit_mapper` takes them
    trainer : Trainer, default train
        as `fit_mapper` takes them
    more : Any
        as `fit_mapper` takes them

    Returns
    -------
    VoxelEncoderPart
        with ``chosen_`` = ``{"step", "validation_loss", "stopped_at"}``

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
        trainer=trainer,
        **more,
    )

    return VoxelEncoderPart.of(network, chosen)


# -- training ----------------------------------------------------------------------------------------------------------
class _MapperTrainee(nn.Module):
    """A mapper with what it learns towards."""

    def __init__(self, network: Mapper, targets: Targets, weights: Weights, tau: float, symmetric: bool) -> None:
        super().__init__()
        self.network = network
        self.targets = targets
        self.weights = weights
        self.tau = tau
        self.symmetric = symmetric

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        key = int(torch.randint(2**62, (1,), generator=draws.generator))  # a function of seed and step
        true = torch.from_numpy(self.targets.at(batch["items"].cpu().numpy(), key))
        return self.judge(self.network(batch["betas"]), true.to(batch["betas"].device))

    def judge(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return mapper_loss(predicted, true, self.weights, self.tau, self.symmetric)


class _EncoderTrainee(nn.Module):
    def __init__(self, network: VoxelEncoder, weights: Weights) -> None:
        super().__init__()
        self.network = network
        self.weights = weights

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
    trainer: Trainer,
    **more: Any,
) -> dict[str, Any]:
    """Train in place, and leave the network at its best step; what was chosen."""
    rows, held_out = sides
    every, patience = looks
    judge = partial(_judged, trainee, pairs, held_out)

    if len(held_out):
        best = BestStep(trainee, judge, "validation_loss", folder, patience)
    else:
        best = None

    options = {"log_every": every, "watch": best and best.look, "optimizer": _adam, **more}
    try:
        stopped_at = trainer(
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
    return torch.optim.Adam(
        weights, lr=config.lr, betas=config.adam_betas, weight_decay=config.weight_decay, fused=True
    )


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
        if ridge is None:
            came = "without"
        else:
            came = "with"

        raise DataError(
            f"a network with linear='{config.linear}' came {came} a ridge; one goes with linear='ridge' only."
        )


def _sides(n: int, held_out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and rows to judge by."""
    if held_out is None:
        held_out = np.empty(0, dtype=np.int64)
    else:
        held_out = np.asarray(held_out, dtype=np.int64)

    return np.setdiff1d(np.arange(n), held_out), held_out


def _tensor(rows: Any) -> Tensor:
    return torch.from_numpy(np.array(rows, dtype=np.float32))
