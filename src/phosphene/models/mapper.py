"""Mapping models: betas to CLIP embeddings by convolutions, and CLIP embeddings to betas (brain encoding).

Lin, Sprague and Singh 2022 (Mind Reader), sections 2.2 and A.8. ::

    betas (n, voxels), padded -> Conv1d, stride 2 -> 4 residual blocks -> 1x1 to d channels
        -> mix positions (the same mixture for all d) -> mix the mixtures -> embedding (n, d)
    embedding (n, d) -> Conv1d -> 4 residual blocks -> transposed Conv1d, stride 2 -> 2 d positions -> 128 -> voxels

The convolutions see voxels in the order they come in; sizes, losses and their weights are those of the authors' code,
since the paper's text does not give them. One mapper is trained for pictures and one for captions, in two stages: squared
error and cosine first, then with InfoNCE (equation 2).

In this file, from top to bottom: the configurations of both networks and of their training; the mapper and the network
back, layer for layer those of the authors' code; the loss; training, each network at its best step on training stimuli
that it is not trained on; the trained networks as parts of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import DataError, ModelError
from phosphene.io.config import Config, validate
from phosphene.io.stages import versioned
from phosphene.models.batches import in_batches
from phosphene.training.best_step import BestStep, EnoughError
from phosphene.training.checkpoint import ModulePart
from phosphene.training.loop import Trainer, train
from phosphene.training.losses import cosine, info_nce
from phosphene.training.sampling import Draws
from phosphene.training.settings import TrainConfig


class MapperConfig(Config):
    """Sizes of the mapper; the defaults are the authors'."""

    kind: Literal["mapper"] = "mapper"
    padded: int | None = Field(
        default=None,
        ge=1,
        description="positions to pad voxels to; 15,744 for subject 1 of NSD. By default as many as it takes",
    )
    layers: int = Field(default=1, ge=1, description="convolutions at the start, each of which halves the positions")
    channels: int = Field(default=64, ge=1, description="of the convolutions")
    blocks: int = Field(default=4, ge=0, description="residual blocks")
    mixtures: int = Field(
        default=128, ge=1, description="of positions, before they become one; 256 towards ResNet features"
    )
    target_units: Literal["none", "training"] = Field(
        default="none",
        description="'training' learns embeddings in units of the mean and spread of the training ones: a start that needs "
        "hundreds of steps instead of many thousands. Ours",
    )
    linear: Literal["none", "ridge"] = Field(
        default="none",
        description="'ridge' adds a ridge regression, fitted first; the network learns what it leaves over. Ours",
    )

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, narrower and coarser for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "paper":
            return {}

        return {"channels": 8, "blocks": 2, "mixtures": 64, "linear": "ridge"}


class VoxelEncoderConfig(Config):
    """Sizes of the network from embeddings to voxels; the defaults are the authors'."""

    kind: Literal["voxel_encoder"] = "voxel_encoder"
    channels: int = Field(default=64, ge=1, description="of the convolutions")
    blocks: int = Field(default=4, ge=0, description="residual blocks")
    bottleneck: int = Field(default=128, ge=1, description="dimensions that predictions lie in")
    linear: Literal["none", "ridge"] = Field(default="none", description="as for the mapper")

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, narrower for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "paper":
            return {}

        return {"channels": 8, "blocks": 2, "linear": "ridge"}


class Weights(Config):
    """Of the terms of a loss.

    Attributes
    ----------
    mse : float
        of the squared error
    cosine : float
        of one minus the cosine
    contrast : float
        of InfoNCE
    """

    mse: float = Field(ge=0)
    cosine: float = Field(ge=0)
    contrast: float = Field(default=0.0, ge=0)


class MapperTraining(Config):
    """How a mapper is trained, in two stages, and how its best step is chosen.

    Steps of the defaults are 40 epochs of 23,715 trials. The authors take a fifth off the learning rate every 10 epochs,
    which a line from 1 to 0.41 follows.
    """

    base: TrainConfig = Field(
        default=TrainConfig(steps=29_640, batch_size=32, lr=4e-4, schedule="linear", lr_end=0.41, weight_decay=1e-5),
        description="first stage",
    )
    finetune: TrainConfig = Field(
        default=TrainConfig(steps=7_410, batch_size=128, lr=4e-4, schedule="linear", lr_end=0.41, weight_decay=1e-5),
        description="second stage, from the best weights of the first; its steps are not given by the paper",
    )
    stages: Literal["two", "base", "joint"] = Field(
        default="two", description="both; the first alone; or both losses from the start (the columns of table 3b)"
    )
    base_weights: Weights = Field(
        default=Weights(mse=0.4, cosine=0.6), description="authors' code; lost in the paper's text"
    )
    weights: Weights = Field(default=Weights(mse=0.2, cosine=0.3, contrast=0.5), description="likewise")
    tau: float = Field(default=0.5, gt=0, description="temperature of InfoNCE; authors' code")
    symmetric: bool = Field(default=True, description="embeddings find predictions as well as predictions embeddings")
    validation: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of training stimuli that choose the best step; 0: the last step is taken",
    )
    check_every: int = Field(default=741, ge=1, description="steps between checks on them; an epoch")
    patience: int | None = Field(default=None, ge=1, description="checks without a better one after which a stage ends")

    @model_validator(mode="after")
    def _no_average(self) -> Self:
        if self.validation and (self.base.ema is not None or self.finetune.ema is not None):
            raise ValueError(
                "averages the weights at the end (ema), which leaves no best step to choose: set validation=0"
            )

        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, a minute on a small processor for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "paper":
            return {}

        base = {"steps": 200, "batch_size": 32, "lr": 1e-3, "weight_decay": 1e-4}
        finetune = {"steps": 100, "batch_size": 64, "lr": 4e-4, "weight_decay": 1e-4}
        return {"base": base, "finetune": finetune, "check_every": 20, "patience": 3}


class EncoderTraining(Config):
    """How the network from embeddings to voxels is trained. The paper gives none of it; this is what the mapper has."""

    train: TrainConfig = Field(
        default=TrainConfig(steps=29_640, batch_size=32, lr=4e-4, schedule="linear", lr_end=0.41, weight_decay=1e-5),
        description="as the first stage of the mapper",
    )
    weights: Weights = Field(
        default=Weights(mse=0.4, cosine=0.6), description="the cosine is over the voxels of one response"
    )
    validation: float = Field(default=0.1, ge=0, lt=1, description="as for the mapper")
    check_every: int = Field(default=741, ge=1, description="as for the mapper")
    patience: int | None = Field(default=None, ge=1, description="as for the mapper")

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, seconds on a small processor for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "paper":
            return {}

        train = {"steps": 200, "batch_size": 32, "lr": 1e-3, "weight_decay": 1e-4}
        return {"train": train, "check_every": 20, "patience": 3}


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
        n_positions = (self.n_voxels + sum(self.padding)) // 2**c.layers

        layers: list[nn.Module] = []
        channels = 1
        for _ in range(c.layers):
            halving = nn.Conv1d(channels, c.channels, 4, stride=2, padding=1)  # (n, channels, positions / 2)
            layers.append(nn.Sequential(halving, nn.ReLU()))
            channels = c.channels

        for _ in range(c.blocks):
            layers.append(ResidualBlock(c.channels, relu=True))

        self.encoder = nn.Sequential(*layers, nn.Conv1d(c.channels, self.n_latents, 1))  # (n, n_latents, positions)

        # Positions stand where channels usually do: each mixture weighs them the same way for all latents. The numbers of
        # these layers are those of the public state dicts.
        self.fc = nn.Sequential(
            nn.ReLU(), nn.Conv1d(n_positions, c.mixtures, 1), nn.ReLU(), nn.Conv1d(c.mixtures, 1, 1)
        )
        if c.linear == "ridge":
            self.line = nn.Linear(self.n_voxels, self.n_latents)
        else:
            self.line = None

        self.register_buffer("target_mean", torch.zeros(self.n_latents))
        self.register_buffer("target_scale", torch.ones(()))

    @classmethod
    def create(cls, config: MapperConfig, n_voxels: int, n_latents: int, seed: int) -> Self:
        """An untrained mapper, its weights started as torch does.

        Parameters
        ----------
        config : MapperConfig
            sizes
        n_voxels, n_latents : int
            lengths of a row that comes in and of one that goes out
        seed : int
            of the weights; torch's global generator is left as it was
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, n_voxels, n_latents)

    def set_target_units(self, latents: np.ndarray) -> None:
        """Take the units in which embeddings are learnt from training ones: their mean, and one standard deviation.

        Parameters
        ----------
        latents : ndarray of shape (n, n_latents)
            of the training rows
        """
        mean = np.asarray(latents.mean(axis=0), dtype=np.float32)
        std = np.sqrt(latents.var(axis=0).mean())
        self.get_buffer("target_mean").copy_(torch.from_numpy(mean))
        self.get_buffer("target_scale").fill_(float(std))

    def set_line(self, weights: np.ndarray, intercept: np.ndarray) -> None:
        """Start from a linear map, kept as it is: the rest begins by adding nothing.

        Parameters
        ----------
        weights : ndarray of shape (n_voxels, n_latents)
            of a ridge regression from standardised betas
        intercept : ndarray of shape (n_latents,)
            of the same
        """
        mean = self.get_buffer("target_mean").numpy()  # is added to what comes out
        _set_line(self.line, self.fc[-1], weights, intercept - mean)

    def forward(self, betas: Tensor) -> Tensor:
        """Betas to embeddings.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            standardised as in training

        Returns
        -------
        Tensor of shape (n, n_latents)
            of any length

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
            nn.Conv1d(1, c.channels, 1),  # (n, channels, n_latents)
            *(ResidualBlock(c.channels, relu=False) for _ in range(c.blocks)),
            nn.ConvTranspose1d(c.channels, c.channels, 4, stride=2, padding=1),  # (n, channels, 2 n_latents)
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
        """An untrained network, its weights started as torch does.

        Parameters
        ----------
        config : VoxelEncoderConfig
            sizes
        n_voxels, n_latents : int
            lengths of a row that goes out and of one that comes in
        seed : int
            of the weights; torch's global generator is left as it was
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, n_voxels, n_latents)

    def set_line(self, weights: np.ndarray, intercept: np.ndarray) -> None:
        """Start from a linear map, as :meth:`Mapper.set_line`.

        Parameters
        ----------
        weights : ndarray of shape (n_latents, n_voxels)
            of a ridge regression from embeddings
        intercept : ndarray of shape (n_voxels,)
            of the same
        """
        _set_line(self.line, self.fc[-1], weights, intercept)

    def forward(self, latents: Tensor) -> Tensor:
        """Embeddings to betas.

        Parameters
        ----------
        latents : Tensor of shape (n, n_latents)
            of length one

        Returns
        -------
        Tensor of shape (n, n_voxels)
            standardised as in training

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

        x = self.decoder(latents[:, None])[:, 0]  # (n, 2 n_latents)
        out = self.fc(x)  # (n, n_voxels)
        if self.line is None:
            return out

        return out + self.line(latents)


class ResidualBlock(nn.Module):
    """Three convolutions whose result is added to what came in; a ReLU follows the sum or not.

    Parameters
    ----------
    channels : int
        that come in and go out
    relu : bool
        whether a ReLU follows the sum, as in the mapper; none does in the network back
    """

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


def padding(n_voxels: int, layers: int, padded: int | None = None) -> tuple[int, int]:
    """Zeros to the left and right of a row of voxels, so that its length can be halved `layers` times.

    Parameters
    ----------
    n_voxels : int
        length of a row
    layers : int
        how often it is halved
    padded : int, optional
        length to pad to; the shortest that can be halved so often when None

    Returns
    -------
    tuple of (int, int)
        left and right; the right one is longer by one where the difference is odd

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
        length = int(-(-n_voxels // factor) * factor)  # rounded up
    else:
        length = padded

    if length < n_voxels or length % factor:
        raise ModelError(
            f"{n_voxels} voxels cannot be padded to {length}: it must be at least as many and a multiple of {factor}, as "
            f"{layers} convolution{'s' * (layers > 1)} halve{'s' * (layers == 1)} it. Leave 'padded' open, or give such a "
            "number."
        )

    left = (length - n_voxels) // 2
    return left, length - n_voxels - left


def _set_line(line: nn.Linear | None, last: nn.Module, weights: np.ndarray, intercept: np.ndarray) -> None:
    """Put a map into a layer that is not trained, and zeros into the last layer of the network that is added to it."""
    if line is None:
        raise ModelError("this network has linear='none', so there is no layer for a linear map; use linear='ridge'.")

    with torch.no_grad():
        line.weight.copy_(torch.from_numpy(np.asarray(weights, dtype=np.float32).T))
        line.bias.copy_(torch.from_numpy(np.asarray(intercept, dtype=np.float32)))
        last.get_parameter("weight").zero_()
        last.get_parameter("bias").zero_()

    line.requires_grad_(False)


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
    tau : float, default 0.5
        temperature of InfoNCE
    symmetric : bool, default True
        whether embeddings find predictions as well as predictions embeddings

    Returns
    -------
    tuple of (Tensor, dict[str, Tensor])
        loss, and its terms without their weights, detached; InfoNCE only where it has a weight

    Examples
    --------
    >>> p, h = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> mapper_loss(p, h, Weights(mse=0.4, cosine=0.6))[0].item()  # 0.4 (4 + 1) / 2 + 0.6 (1 - 0)
    1.600000023841858
    """
    terms = {"mse": (predicted - true).square().mean(), "cosine": cosine(predicted, true)}
    loss = weights.mse * terms["mse"] + weights.cosine * terms["cosine"]

    if weights.contrast:  # rows are compared with each other only where that counts: it needs a whole batch
        terms["contrast"] = info_nce(predicted, true, 1 / tau, symmetric=symmetric)
        loss = loss + weights.contrast * terms["contrast"]

    return loss, {name: term.detach() for name, term in terms.items()}


class MapperTargets(Protocol):
    """What a mapper learns towards: valid embeddings of every stimulus, as :class:`phosphene.features.captions.Targets`."""

    @property
    def clean(self) -> np.ndarray:
        """One certain embedding of each stimulus, to judge by: (n_stimuli, d) float32 of length one."""
        ...

    def at(self, items: np.ndarray, *key: int) -> np.ndarray:
        """One valid embedding of each stimulus, a function of the key.

        Parameters
        ----------
        items : ndarray of shape (n,)
            numbers of stimuli
        *key : int
            such as the seed and the step

        Returns
        -------
        ndarray of shape (n, d)
            float32, of length one
        """
        ...


@versioned(1)
def fit_mapper(
    config: MapperConfig,
    betas: np.ndarray,
    items: np.ndarray,
    targets: MapperTargets,
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
    targets : MapperTargets
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
    **more : Any
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
    rows, judged = _training_and_judged(len(items), held_out)

    if config.target_units == "training":
        mapper.set_target_units(targets.clean[items[rows]])

    if ridge is not None:
        mapper.set_line(*ridge)

    def fetch(chosen: np.ndarray) -> dict[str, Tensor]:
        return {"betas": _tensor(betas[chosen]), "items": torch.from_numpy(items[chosen])}

    # The columns of table 3b: both stages, the first alone, or both losses from the start.
    base = ("base", training.base, training.base_weights)
    finetune = ("finetune", training.finetune, training.weights)
    joint = ("joint", training.base, training.weights)
    plans = {"two": [base, finetune], "base": [base], "joint": [joint]}

    chosen: dict[str, Any] = {}
    for number, (stage, settings, weights) in enumerate(plans[training.stages]):
        stage_folder = None
        if folder is not None:
            stage_folder = Path(folder) / stage

        chosen[stage] = _train_to_best(
            _MapperTrainee(mapper, targets, weights, training.tau, training.symmetric),
            fetch,
            (betas, targets.clean[items]),
            (rows, judged),
            settings,
            training,
            seed=seed + number,
            folder=stage_folder,
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
    seed : int
        of weights and batches
    held_out : ndarray, optional
        rows to judge by, as `fit_mapper` takes them
    ridge : tuple of (ndarray, ndarray), optional
        weights (n_latents, n_voxels) and intercept (n_voxels,) for ``config.linear="ridge"``
    folder : Path, optional
        of checkpoints, as `fit_mapper` takes it
    trainer : Trainer, default train
        does the training, or only predicts what it will need
    **more : Any
        as for :func:`phosphene.training.train`

    Returns
    -------
    VoxelEncoderPart
        with ``chosen_`` = ``{"step", "validation_loss", "stopped_at"}``

    Raises
    ------
    DataError
        Numbers of rows that differ, or no ridge where one is asked for.
    """
    if len(latents) != len(betas):
        raise DataError(f"latents and betas must be of the same trials, but have {len(latents)} and {len(betas)} rows.")

    _check_ridge(config, ridge)
    network = VoxelEncoder.create(config, betas.shape[1], latents.shape[1], seed)
    if ridge is not None:
        network.set_line(*ridge)

    def fetch(chosen: np.ndarray) -> dict[str, Tensor]:
        return {"latents": _tensor(latents[chosen]), "betas": _tensor(betas[chosen])}

    chosen = _train_to_best(
        _EncoderTrainee(network, training.weights),
        fetch,
        (latents, betas),
        _training_and_judged(len(betas), held_out),
        training.train,
        training,
        seed=seed,
        folder=folder,
        trainer=trainer,
        **more,
    )

    return VoxelEncoderPart.of(network, chosen)


class _MapperTrainee(nn.Module):
    """A mapper with what it learns towards."""

    def __init__(self, network: Mapper, targets: MapperTargets, weights: Weights, tau: float, symmetric: bool) -> None:
        super().__init__()
        self.network = network
        self.targets = targets
        self.weights = weights
        self.tau = tau
        self.symmetric = symmetric

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        key = int(torch.randint(2**62, (1,), generator=draws.generator))  # a function of seed and step
        true = torch.from_numpy(self.targets.at(batch["items"].cpu().numpy(), key))  # (n, n_latents)
        return self.compare(self.network(batch["betas"]), true.to(batch["betas"].device))

    def compare(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return mapper_loss(predicted, true, self.weights, self.tau, self.symmetric)


class _EncoderTrainee(nn.Module):
    """A voxel encoder with the weights of its loss."""

    def __init__(self, network: VoxelEncoder, weights: Weights) -> None:
        super().__init__()
        self.network = network
        self.weights = weights

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        return self.compare(self.network(batch["latents"]), batch["betas"])

    def compare(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return mapper_loss(predicted, true, self.weights)


def _train_to_best(
    trainee: _MapperTrainee | _EncoderTrainee,
    fetch: Callable[[np.ndarray], dict[str, Tensor]],
    pairs: tuple[np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
    settings: TrainConfig,
    training: MapperTraining | EncoderTraining,
    *,
    seed: int,
    folder: Path | None,
    trainer: Trainer,
    **more: Any,
) -> dict[str, Any]:
    """Train in place, and leave the network at its best step; what was chosen.

    `pairs` are inputs and what should come out, (n, ...) each; `rows` those to train on and those to judge by.
    """
    training_rows, judged = rows

    def validation_loss() -> float:
        return _mean_loss(trainee, pairs, judged)

    if len(judged):
        best = BestStep(trainee, validation_loss, "validation_loss", folder, training.patience)
        watch = best.look
    else:
        best = None
        watch = None

    options = {"log_every": training.check_every, "watch": watch, "optimizer": _adam, **more}
    try:
        stopped_at = trainer(
            trainee,
            lambda items: fetch(training_rows[items]),
            len(training_rows),
            settings,
            seed=seed,
            folder=folder,
            **options,
        ).step
    except EnoughError as enough:
        stopped_at = enough.step

    trainee.to("cpu").eval()  # parts hold networks that way
    if best is None or not best.restore():
        return {"step": stopped_at}

    return {"step": best.step, "validation_loss": best.value, "stopped_at": stopped_at}


def _adam(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam whose weight decay is part of the gradient, as the authors have it."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return torch.optim.Adam(
        weights, lr=config.lr, betas=config.adam_betas, weight_decay=config.weight_decay, fused=True
    )


_BLOCK = 128  # rows of validation that are told apart from each other, the batch of the paper's second stage


def _mean_loss(
    trainee: _MapperTrainee | _EncoderTrainee, pairs: tuple[np.ndarray, np.ndarray], judged: np.ndarray
) -> float:
    """Mean loss over the validation rows, in their order and in equal blocks of about the paper's batch."""
    inputs, outputs = pairs
    n_blocks = -(-len(judged) // _BLOCK)  # rounded up
    total = 0.0

    for rows in np.array_split(judged, n_blocks):
        predicted = in_batches(trainee.network, trainee.network, inputs[rows], len(rows), "validation rows")
        loss, _ = trainee.compare(_tensor(predicted), _tensor(outputs[rows]))
        total += len(rows) * float(loss)

    return total / len(judged)


def _check_ridge(config: MapperConfig | VoxelEncoderConfig, ridge: tuple[np.ndarray, np.ndarray] | None) -> None:
    if config.linear == "ridge" and ridge is None:
        raise DataError("a network with linear='ridge' came without a ridge; one goes with linear='ridge' only.")

    if config.linear != "ridge" and ridge is not None:
        raise DataError(
            f"a network with linear='{config.linear}' came with a ridge; one goes with linear='ridge' only."
        )


def _training_and_judged(n: int, held_out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and rows to judge by."""
    if held_out is None:
        judged = np.empty(0, dtype=np.int64)
    else:
        judged = np.asarray(held_out, dtype=np.int64)

    return np.setdiff1d(np.arange(n), judged), judged


def _tensor(rows: Any) -> Tensor:
    return torch.from_numpy(np.array(rows, dtype=np.float32))


class MapperPart(ModulePart):
    """One trained mapper or several, as a part of a run.

    Several are summed with weights after each prediction has been brought to length one. By cosine this ranks
    embeddings for a response exactly as the weighted sum of the mappers' similarity matrices does.

    Parameters
    ----------
    module : nn.ModuleList
        the mappers
    config : Mapping[str, Any]
        as `of` makes it

    Attributes
    ----------
    weights_ : ndarray of shape (n_mappers,)
        their weights, sum one
    chosen_ : list[dict[str, Any]]
        by mapper, what was chosen on the validation stimuli, for people
    """

    module: nn.ModuleList

    @classmethod
    def of(cls, mapper: Mapper, chosen: dict[str, Any] | None = None) -> Self:
        """The part that holds this mapper.

        Parameters
        ----------
        mapper : Mapper
            trained
        chosen : dict[str, Any], optional
            what was chosen on the validation stimuli, by stage

        Returns
        -------
        MapperPart
            whose weights are those of the network, not copies
        """
        config = {
            "network": mapper.config.model_dump(mode="json"),
            "n_voxels": mapper.n_voxels,
            "n_latents": mapper.n_latents,
            "weights": [1.0],
            "chosen": [chosen or {}],
        }
        return cls(nn.ModuleList([mapper]), config)

    @classmethod
    def together(cls, parts: Sequence[Self], weights: np.ndarray) -> Self:
        """Several parts as one.

        Parameters
        ----------
        parts : sequence of MapperPart
            of the same sizes
        weights : ndarray of shape (n_mappers,)
            from 0, not all 0; they are divided by their sum

        Returns
        -------
        MapperPart
            holds the mappers of all parts, which are not copied

        Raises
        ------
        ModelError
            For mappers of different sizes, and weights that are negative, all zero, or of another number.
        """
        mappers: list[nn.Module] = []
        chosen: list[dict[str, Any]] = []
        for part in parts:
            mappers += list(part.module)
            chosen += part.config["chosen"]

        weights = np.asarray(weights, dtype=np.float64)
        if len(weights) != len(mappers) or not (weights >= 0).all() or not weights.sum() > 0:
            raise ModelError(f"{len(parts)} mappers need as many weights from 0, not all 0, but came with {weights}.")

        sizes = {(part.config["n_voxels"], part.config["n_latents"], str(part.config["network"])) for part in parts}
        if len(sizes) > 1:
            raise ModelError(f"only mappers of the same sizes can work together, but these have {sorted(sizes)}.")

        config = {**parts[0].config, "weights": (weights / weights.sum()).tolist(), "chosen": chosen}
        return cls(nn.ModuleList(mappers), config)

    @property
    def weights_(self) -> np.ndarray:
        """Weights of the mappers, (n_mappers,), sum one."""
        return np.array(self.config["weights"])

    @property
    def chosen_(self) -> list[dict[str, Any]]:
        """By mapper, what was chosen on the validation stimuli."""
        return self.config["chosen"]

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.ModuleList:
        """Mappers of this configuration without values yet.

        Parameters
        ----------
        config : dict[str, Any]
            as `of` makes it

        Returns
        -------
        nn.ModuleList
            on the CPU; the memory of the weights is not filled
        """
        values = validate(MapperConfig, config["network"], "the saved mapper")
        with torch.device("meta"):
            mappers = [Mapper(values, config["n_voxels"], config["n_latents"]) for _ in config["weights"]]

        return nn.ModuleList(mappers).to_empty(device="cpu")

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

        def weighted(rows: Tensor) -> Tensor:
            total: Any = 0
            for weight, mapper in zip(self.weights_, self.module, strict=True):
                total = total + weight * F.normalize(mapper(rows), dim=-1)  # (k, n_latents)

            return F.normalize(total, dim=-1)

        return in_batches(weighted, self.module, betas, batch_size, "betas")


class VoxelEncoderPart(ModulePart):
    """A trained network from embeddings to voxels, as a part of a run.

    Parameters
    ----------
    module : VoxelEncoder
        a :class:`phosphene.models.VoxelEncoder`
    config : Mapping[str, Any]
        as `of` makes it

    Attributes
    ----------
    chosen_ : dict[str, Any]
        what was chosen on the validation stimuli, for people
    """

    module: VoxelEncoder

    @classmethod
    def of(cls, network: VoxelEncoder, chosen: dict[str, Any] | None = None) -> Self:
        """The part that holds this network.

        Parameters
        ----------
        network : VoxelEncoder
            trained
        chosen : dict[str, Any], optional
            what was chosen on the validation stimuli

        Returns
        -------
        VoxelEncoderPart
            whose weights are those of the network, not copies
        """
        config = {
            "network": network.config.model_dump(mode="json"),
            "n_voxels": network.n_voxels,
            "n_latents": network.n_latents,
            "chosen": chosen or {},
        }
        return cls(network, config)

    @property
    def chosen_(self) -> dict[str, Any]:
        """What was chosen on the validation stimuli."""
        return self.config["chosen"]

    @classmethod
    def build(cls, config: dict[str, Any]) -> VoxelEncoder:
        """A network of this configuration without values yet.

        Parameters
        ----------
        config : dict[str, Any]
            as `of` makes it

        Returns
        -------
        VoxelEncoder
            on the CPU; the memory of the weights is not filled
        """
        values = validate(VoxelEncoderConfig, config["network"], "the saved encoder")
        with torch.device("meta"):
            network = VoxelEncoder(values, config["n_voxels"], config["n_latents"])

        return network.to_empty(device="cpu")

    def encode(self, latents: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Embedding to brain.

        Parameters
        ----------
        latents : ndarray of shape (n, n_latents)
            of length one
        batch_size : int, default 64
            rows at a time

        Returns
        -------
        ndarray of shape (n, n_voxels), float32
            standardised as in training

        Raises
        ------
        DataError
            Without rows, or with values that are not finite.
        ModelError
            With another number of latents.
        """
        return in_batches(self.module, self.module, latents, batch_size, "latents")
