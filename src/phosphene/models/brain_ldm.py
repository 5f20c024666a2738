"""The brain encoder and the latent diffusion it conditions, as one network that is tuned and kept together.

    betas -> patches -> encoder, no class token -> tokens -> two conditionings -> U-Net -> noise in a latent

Chen et al. 2023 (MinD-Vis), section 3.2, and Sun et al. 2023 (CAD), section 3.3. In this file, from top to bottom: the
pictures it learns from; the network with its training objective; the trained network as a part of a run; the choice of a
step by training stimuli that are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import ModelError
from phosphene.models.cross_modal import paired_batches
from phosphene.models.ldm import Ldm, LdmUnet, random_crops
from phosphene.models.patch_mae import PatchMae, PatchMaePart
from phosphene.training.best_step import BestStep
from phosphene.training.checkpoint import ModulePart
from phosphene.training.sampling import Draws
from phosphene.types import Stimuli, Trials, digest_of


class Pictures:
    """Pictures kept as 8 bits, given as networks take them when rows are asked for: (n, 3, side, side) float32.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        stimulus of each picture
    pixels : ndarray of shape (n, side, side, 1 or 3)
        uint8, 0-255
    mean, spread : tuple of float, default (0.5, 0.5, 0.5)
        of each channel, of pixels from 0 to 1, to subtract and to divide by; -1 to 1 by default

    Attributes
    ----------
    digest : str
        of ids, pixels and units
    """

    def __init__(
        self,
        ids: np.ndarray,
        pixels: np.ndarray,
        mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        spread: tuple[float, ...] = (0.5, 0.5, 0.5),
    ) -> None:
        self.ids = np.asarray(ids).astype(str)
        self.pixels = pixels
        self.mean = np.array(mean, dtype=np.float32)[:, None, None]  # (3, 1, 1)
        self.spread = np.array(spread, dtype=np.float32)[:, None, None]  # (3, 1, 1)
        self.digest = digest_of(self.ids, pixels, mean, spread)

    @classmethod
    def of(cls, stimuli: Stimuli, side: int, **units: tuple[float, ...]) -> Self:
        """Pictures of stimuli, resized.

        Parameters
        ----------
        stimuli : Stimuli
            with pictures
        side : int
            of what the network takes, in pixels
        **units : tuple of float
            ``mean`` and ``spread``, as for the class
        """
        resized = stimuli.resized((side, side)).clip(0, 1)
        return cls(stimuli.ids, np.rint(255 * resized).astype(np.uint8), **units)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        chosen = self.pixels[rows].astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
        return (chosen - self.mean) / self.spread  # a grey picture becomes three equal channels

    def rows_of(self, stimuli: np.ndarray) -> np.ndarray:
        """Which picture belongs to each stimulus: ids (n,) to row numbers (n,), int64."""
        row_of = {name: row for row, name in enumerate(self.ids)}
        return np.array([row_of[str(stimulus)] for stimulus in stimuli], dtype=np.int64)


def paired(subject: str, trials: Trials, pictures: Pictures) -> tuple[Callable[[np.ndarray], dict[str, Any]], int]:
    """Standardised trials with the pictures shown, as :func:`phosphene.models.paired_batches` makes batches of them.

    Parameters
    ----------
    subject : str
        whose trials
    trials : Trials
        standardised
    pictures : Pictures
        of all their stimuli

    Returns
    -------
    fetch : callable
        row numbers to a batch
    n_items : int
        trials
    """
    return paired_batches({subject: trials.betas}, {subject: pictures.rows_of(trials.stimuli)}, pictures)


class BrainToPicture(nn.Module):
    """What phase 3 trains: a brain encoder whose tokens a latent diffusion draws from.

    Parameters
    ----------
    brain : PatchMae
        autoencoder of one subject; its encoder is trained, its decoder and class token have no part in this
    network : LdmUnet
        draws from that many tokens; which of its weights are trained is left as it is
    ldm : Ldm, optional
        makes latents of pictures; no part of this module
    crops : float, default 0.0
        share of training pictures that are cut smaller and stretched back
    """

    def __init__(self, brain: PatchMae, network: LdmUnet, ldm: Ldm | None = None, crops: float = 0.0) -> None:
        super().__init__()
        self.brain = brain
        self.network = network
        self.crops = crops
        self._ldm = ldm
        brain.requires_grad_(False)

        for part in (brain.patch_embed, brain.blocks, brain.norm):
            part.requires_grad_(True)

    def to_tokens(self, betas: Tensor, subject: str | None = None) -> Tensor:
        """Brain to tokens, without a class token.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            of one subject, in its own voxel order
        subject : str, optional
            may be left out where there is only one

        Returns
        -------
        Tensor of shape (n, patches, width)
            nothing hidden
        """
        return self.brain.to_tokens(betas, subject)

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of the noise in the latents of pictures, from the responses they belong to.

        In training, voxels are zeroed as ``brain.config.sparsify`` says and pictures are cut; otherwise both stay whole.

        Parameters
        ----------
        batch : Mapping[str, Any]
            as :func:`paired` makes it, pictures from -1 to 1
        draws : Draws
            noise of this batch

        Returns
        -------
        tuple of (Tensor, dict[str, Any])
            as the loss of the network gives them

        Raises
        ------
        ModelError
            Where the module was made without the `ldm` that makes latents of pictures.
        """
        if self._ldm is None:
            raise ModelError("this network came without an ldm, which makes latents of pictures; give one to train it.")

        sparse, whole = self.brain.inputs(batch, draws)  # drawn in any case: draws come in a fixed order
        if self.training:
            patches = sparse
        else:
            patches = whole

        tokens = self.brain.encode(patches, class_token=False)  # (n, n_patches, width)

        pictures = batch["pictures"]
        if self.training and self.crops:
            pictures = random_crops(pictures, draws, share=self.crops)

        # No part of this module, so nothing else moves it. diffusers wraps `to` in a way that loses its signature.
        self._ldm.tokenizer.to(tokens.device)  # pyright: ignore[reportArgumentType]
        latents = self._ldm.encode(pictures).to(tokens.device)

        return self.network.loss({"latents": latents, "tokens": tokens}, draws)


class BrainLdm(ModulePart):
    """A tuned brain encoder with the U-Net it conditions, as a fitted part of a run; the tokenizer is the generator's.

    Parameters
    ----------
    module : BrainToPicture
        both networks
    config : Mapping[str, Any]
        as `of` makes it
    """

    module: BrainToPicture

    @classmethod
    def of(cls, brain: PatchMae, network: LdmUnet, chosen: Mapping[str, float] | None = None) -> Self:
        """From both networks, and the step that was chosen.

        Parameters
        ----------
        brain : PatchMae
            tuned; moved to the CPU
        network : LdmUnet
            tuned with it; moved to the CPU
        chosen : Mapping[str, float], optional
            as :meth:`HeldOutChoice.take` gives it

        Returns
        -------
        BrainLdm
            whose weights are those of the network, not copies
        """
        config = {
            "brain": PatchMaePart.of(brain).config,
            "network": network.config.model_dump(mode="json"),
            "chosen": dict(chosen or {}),
        }
        return cls(BrainToPicture(brain.cpu(), network.cpu()).eval(), config)

    @classmethod
    def build(cls, config: dict[str, Any]) -> BrainToPicture:
        """Networks of this configuration without values yet.

        Parameters
        ----------
        config : dict[str, Any]
            as `of` makes it

        Returns
        -------
        BrainToPicture
            on the CPU; in evaluation mode
        """
        brain = PatchMaePart.build(config["brain"])
        return BrainToPicture(brain, LdmUnet(**config["network"])).eval()

    @property
    def network(self) -> LdmUnet:
        """What predicts noise from tokens."""
        return self.module.network

    def to_tokens(self, betas: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Brain to tokens, nothing hidden.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised as in training
        batch_size : int, default 64
            rows at a time

        Returns
        -------
        ndarray of shape (n, patches, width), float32
            each row as if it were alone, but for rounding
        """
        return PatchMaePart.of(self.module.brain).to_tokens(betas, batch_size=batch_size)


class HeldOutChoice(BestStep):
    """The step of a training at which the loss over left-out items is smallest.

    Parameters
    ----------
    network : nn.Module
        being trained
    fetch : callable
        the left-out items, as :func:`phosphene.training.train` takes items
    n_items : int
        how many there are
    batch_size : int
        items that are judged at once
    seed : int
        of the noise they are judged under, which is the same at every step
    folder : Path or None
        of checkpoints; the best weights are kept there as well

    Examples
    --------
    >>> choice = HeldOutChoice(network, fetch, 100, 20, seed=0, folder=None)                     # doctest: +SKIP
    >>> train(network, others, 900, settings, seed=0, log_every=100, watch=choice.look)          # doctest: +SKIP
    >>> choice.take()["step"]                                                                    # doctest: +SKIP
    300
    """

    def __init__(
        self,
        network: nn.Module,
        fetch: Callable[[np.ndarray], Any],
        n_items: int,
        batch_size: int,
        seed: int,
        folder: Path | None,
    ) -> None:
        self.fetch = fetch
        self.n_items = n_items
        self.batch_size = batch_size
        self.seed = seed
        super().__init__(network, self._loss, "held_out_loss", folder)

    @torch.no_grad()
    def _loss(self) -> float:
        """Mean loss over the left-out items."""
        device = next(self.network.parameters()).device
        network: Any = self.network  # has a loss, as every network that is trained
        total = 0.0

        for start in range(0, self.n_items, self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, self.n_items))
            batch = _on(device, self.fetch(rows))
            loss, _ = network.loss(batch, Draws(self.seed, start, len(rows), device=device))
            total += float(loss) * len(rows)

        return total / self.n_items

    def take(self) -> dict[str, float]:
        """Put the weights of the best step into the network, on the CPU, and say which step it was."""
        self.restore()
        return {"step": self.step, "held_out_loss": self.value, "n_held_out": self.n_items}


def _on(device: torch.device, batch: Any) -> Any:
    from accelerate.utils import send_to_device

    return send_to_device(batch, device)
