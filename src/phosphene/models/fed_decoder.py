"""MinD-Vis' transformer decoder fed with a picture's latent: how MinD-Vis stands in LEA's table of encoding.

::

    latent -> class token, with mask tokens -> decoder of the masked autoencoder -> patches -> betas

Qian et al. 2024 (LEA), table 2, say no more than that CLIP features are fed to the transformer decoder of MinD-Vis. Here
the decoder comes from the first phase (:mod:`phosphene.models.patch_mae`), a new layer takes the latent, and both are
trained on pairs by the squared error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.io.config import validate
from phosphene.models.batches import in_batches
from phosphene.models.patch_mae import PatchMae, PatchMaeConfig
from phosphene.training.checkpoint import ModulePart
from phosphene.training.losses import row_correlation
from phosphene.training.sampling import Draws


class FedDecoder(PatchMae):
    """A latent in the place of the class token, every patch hidden: the decoder predicts them all. Make one with `of`.

    Parameters
    ----------
    config : PatchMaeConfig
        of the autoencoder the decoder is taken from
    n_voxels : Mapping[str, int]
        of one subject
    latent : int
        length of what it is fed with
    """

    def __init__(self, config: PatchMaeConfig, n_voxels: Mapping[str, int], latent: int) -> None:
        super().__init__(config, n_voxels)
        del self.patch_embed, self.cls_token, self.blocks, self.norm  # the encoder has no part in it
        self.decoder_embed = nn.Linear(latent, config.decoder_width)

    @classmethod
    def of(cls, autoencoder: PatchMae, latent: int, seed: int) -> Self:
        """The decoder of a trained autoencoder, a copy; only the layer that takes the latent is new.

        Parameters
        ----------
        autoencoder : PatchMae
            of the first phase, of one subject; left alone
        latent : int
            length of what the decoder is fed with
        seed : int
            of the new layer; torch's global generator is left alone

        Returns
        -------
        FedDecoder
            on the CPU
        """
        with torch.device("meta"):
            network = cls(autoencoder.config, autoencoder.n_voxels, latent)

        network.to_empty(device="cpu")
        names = set(network.state_dict())
        state = {name: value for name, value in autoencoder.state_dict().items() if name in names}

        weight = network.decoder_embed.weight
        nn.init.xavier_uniform_(weight, generator=torch.Generator().manual_seed(seed))
        state["decoder_embed.weight"] = weight.detach()
        state["decoder_embed.bias"] = torch.zeros(len(weight))
        network.load_state_dict(state)

        return network

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (n, latent) to betas (n, n_voxels)."""
        none_visible = torch.zeros(len(latents), 0, dtype=torch.int64, device=latents.device)
        patches = self.decode(latents[:, None], none_visible)  # (n, n_patches, patch_size)
        return patches.flatten(1)[:, : self.n_voxels[self.subjects[0]]]

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of predicted betas, over voxels and rows.

        Parameters
        ----------
        batch : Mapping[str, Any]
            ``latents`` (n, latent) and ``betas`` (n, n_voxels)
        draws : Draws
            nothing is drawn

        Returns
        -------
        tuple of (Tensor, dict[str, Tensor])
            loss, and ``{"correlation": mean over rows of Pearson's r between betas and prediction}``
        """
        predicted = self(batch["latents"]).float()
        betas = batch["betas"]

        with torch.no_grad():
            correlation = row_correlation(betas, predicted).mean()

        return F.mse_loss(predicted, betas), {"correlation": correlation}


class FedDecoderPart(ModulePart):
    """A trained :class:`phosphene.models.FedDecoder` as a part of a run, working on arrays.

    Parameters
    ----------
    module : FedDecoder
        a :class:`phosphene.models.FedDecoder`
    config : Mapping[str, Any]
        as `of` makes it
    """

    module: FedDecoder

    @classmethod
    def of(cls, network: FedDecoder) -> Self:
        """The part that holds this network.

        Parameters
        ----------
        network : FedDecoder
            trained

        Returns
        -------
        FedDecoderPart
            whose weights are those of the network, not copies
        """
        config = {
            "network": network.config.model_dump(mode="json"),
            "subjects": [[name, n] for name, n in network.n_voxels.items()],
            "latent": network.decoder_embed.in_features,
        }

        return cls(network, config)

    @classmethod
    def build(cls, config: dict[str, Any]) -> FedDecoder:
        """A network of this configuration without values yet.

        Parameters
        ----------
        config : dict[str, Any]
            as `of` makes it

        Returns
        -------
        FedDecoder
            on the CPU; the memory of the weights is not filled
        """
        values = validate(PatchMaeConfig, config["network"], "the saved decoder")
        n_voxels = {name: int(n) for name, n in config["subjects"]}
        with torch.device("meta"):
            network = FedDecoder(values, n_voxels, int(config["latent"]))

        return network.to_empty(device="cpu")

    def from_latent(self, latents: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Latents to brain.

        Parameters
        ----------
        latents : ndarray of shape (n, latent)
            as the decoder was trained on, array or memory map
        batch_size : int, default 64
            rows at a time

        Returns
        -------
        ndarray of shape (n, n_voxels), float32
            standardised as in training
        """
        return in_batches(self.module, self.module, latents, batch_size, "latents")
