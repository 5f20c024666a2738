"""Bottleneck: a small network from betas to components of pixels, and a ridge back. A neural plug-in in one file.

Paper: none; it is the example of docs/extending.md.

    decode   betas -> standardised voxels -> network with a narrow middle -> components of pixels -> picture
    encode   picture -> components of pixels -> ridge -> standardised voxels -> betas
"""

from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from phosphene.align.decoders import fit_encoding
from phosphene.align.ridge import Ridge
from phosphene.features.pixels import PixelPca
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage
from phosphene.training import TrainConfig, train
from phosphene.training.checkpoint import ModulePart
from phosphene.types import Images, Latents, Stimuli, Trials, digest_of


class BottleneckConfig(RecipeConfig):
    """Configuration of `Bottleneck`."""

    kind: Literal["bottleneck"] = "bottleneck"
    n_components: int = Field(default=200, ge=1, description="principal components of pixels")
    width: int = Field(default=64, ge=1, description="units in the middle of the network")
    noise: float = Field(default=0.5, ge=0, description="standard deviation of noise added to voxels in training")
    training: TrainConfig = TrainConfig(steps=5000, batch_size=64, lr=1e-3)


class BottleneckNet(nn.Module):
    """Voxels (n, n_voxels) to latents (n, n_latents) through a narrow middle.

    Parameters
    ----------
    n_voxels : int
        inputs
    width : int
        units in the middle
    n_latents : int
        outputs
    noise : float
        standard deviation of noise added to voxels in training
    """

    def __init__(self, n_voxels: int, width: int, n_latents: int, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.down = nn.Linear(n_voxels, width)
        self.up = nn.Linear(width, n_latents)

    def forward(self, voxels: Tensor) -> Tensor:
        """Voxels to latents."""
        return self.up(torch.tanh(self.down(voxels)))  # (n, n_latents)

    def loss(self, batch: dict[str, Tensor], draws: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error, with noise that is a function of seed and step, so that a killed training ends the same."""
        voxels = batch["voxels"] + self.noise * draws.normal(batch["voxels"].shape[1])
        error = (self(voxels) - batch["latents"]).square().mean()
        return error, {}


class BottleneckPart(ModulePart):
    """The network as a fitted part of a run: `state` and `from_state` come from `ModulePart`."""

    @classmethod
    def of(cls, network: BottleneckNet) -> Self:
        """A trained network, with what is needed to build another of its sizes."""
        sizes = {
            "n_voxels": network.down.in_features,
            "width": network.down.out_features,
            "n_latents": network.up.out_features,
            "noise": network.noise,
        }
        return cls(network.cpu().eval(), sizes)

    @classmethod
    def build(cls, config: dict[str, Any]) -> BottleneckNet:
        """A network of these sizes without values yet."""
        return BottleneckNet(**config)

    @torch.no_grad()
    def predict(self, voxels: np.ndarray) -> np.ndarray:
        """(n, n_voxels) standardised voxels to (n, n_latents)."""
        return self.module(torch.from_numpy(voxels)).numpy()


class Bottleneck(Recipe[BottleneckConfig]):
    """A network with a narrow middle from voxels to components of pixels, and ridge from components to voxels."""

    stages = (
        STANDARDISE,
        Stage("pixels", PixelPca, needs=(), settings=("n_components",)),
        Stage(
            "network", BottleneckPart, needs=("standardise", "pixels"), settings=("width", "noise", "training"),
            uses=(train,),
        ),
        Stage("to_brain", Ridge, needs=("standardise", "pixels"), settings=(), uses=(fit_encoding,)),
    )  # fmt: skip
    presets = {
        "lab": {"n_components": 30, "width": 32, "training": {"steps": 300, "batch_size": 32, "lr": 3e-3}},
        "paper": {},
    }

    def fit_pixels(self, trials: Trials, stimuli: Stimuli) -> PixelPca:
        """Principal components of the training pictures."""
        return PixelPca(self.config.n_components).fit(stimuli)

    def fit_network(self, trials: Trials, stimuli: Stimuli) -> BottleneckPart:
        """The network, trained on repeats averaged."""
        voxels, latents = self._pairs(trials, stimuli)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = BottleneckNet(voxels.shape[1], self.config.width, latents.shape[1], self.config.noise)

        def fetch(rows: np.ndarray) -> dict[str, Tensor]:
            return {"voxels": torch.from_numpy(voxels[rows]), "latents": torch.from_numpy(latents[rows])}

        self.train(network, fetch, len(voxels), self.config.training, data=digest_of(voxels, latents))
        return BottleneckPart.of(network)

    def fit_to_brain(self, trials: Trials, stimuli: Stimuli) -> Ridge:
        """Components to standardised voxels, a penalty per voxel."""
        voxels, latents = self._pairs(trials, stimuli)
        return fit_encoding(latents, voxels)

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`, 0-1."""
        return Images(trials.stimuli, self.pixels_.inverse(self._decoded(trials)))

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        voxels = self.to_brain_.predict(self.pixels_.transform(stimuli))
        return self.predicted_trials(stimuli, self.standardise_.inverse(voxels))

    def latents(self, trials: Trials) -> Latents:
        """Decoded components, one row per trial."""
        return Latents(trials.stimuli, {PixelPca.space: self._decoded(trials)})

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """Components of the pictures themselves."""
        return Latents(stimuli.ids, {PixelPca.space: self.pixels_.transform(stimuli)})

    def _decoded(self, trials: Trials) -> np.ndarray:
        self.check_trials(trials)
        return self.network_.predict(self.standardised(trials).betas)

    def _pairs(self, trials: Trials, stimuli: Stimuli) -> tuple[np.ndarray, np.ndarray]:
        """Standardised voxels and components of what was shown, a row per stimulus."""
        averaged = self.averaged(trials)
        return averaged.betas, self.pixels_.transform(stimuli.select(averaged.stimuli))
