"""The networks of :mod:`phosphene.brain.mapper`, layer for layer those of the authors' code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import ModelError

if TYPE_CHECKING:
    from phosphene.brain.mapper import MapperConfig, VoxelEncoderConfig


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
        return F.relu(x) if self.relu else x


class Mapper(nn.Module):
    """Betas (n, n_voxels) to embeddings (n, n_latents).

    Parameters
    ----------
    config : sizes
    n_voxels, n_latents : lengths of a row that comes in and of one that goes out

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
        self.config, self.n_voxels, self.n_latents = c, int(n_voxels), int(n_latents)
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
        self.line = nn.Linear(self.n_voxels, self.n_latents) if c.linear == "ridge" else None
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
        weights : (n_voxels, n_latents)
        intercept : (n_latents,)
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
        return out if self.line is None else out + self.line(betas)


class VoxelEncoder(nn.Module):
    """Embeddings (n, n_latents) to betas (n, n_voxels).

    Parameters
    ----------
    config : sizes
    n_voxels, n_latents : lengths of a row that goes out and of one that comes in

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
        self.config, self.n_voxels, self.n_latents = c, int(n_voxels), int(n_latents)
        self.decoder = nn.Sequential(
            nn.Conv1d(1, c.channels, 1),
            *(ResidualBlock(c.channels, relu=False) for _ in range(c.blocks)),
            nn.ConvTranspose1d(c.channels, c.channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(c.channels, 1, 1),
        )
        self.fc = nn.Sequential(nn.Linear(2 * self.n_latents, c.bottleneck), nn.Linear(c.bottleneck, self.n_voxels))
        self.line = nn.Linear(self.n_latents, self.n_voxels) if c.linear == "ridge" else None

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
        return out if self.line is None else out + self.line(latents)


def _set_line(line: nn.Linear, last: nn.Module, weights: np.ndarray, intercept: np.ndarray) -> None:
    """Put a map into a layer that is not trained, and nothing into the last layer beside it."""
    with torch.no_grad():
        line.weight.copy_(torch.from_numpy(np.asarray(weights, dtype=np.float32).T))
        line.bias.copy_(torch.from_numpy(np.asarray(intercept, dtype=np.float32)))
        last.weight.zero_()
        last.bias.zero_()
    line.requires_grad_(False)
