"""The decoder of the patch-embedded masked autoencoder, fed with a latent; :mod:`phosphene.models.fed_decoder` says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.models.batches import in_batches
from phosphene.models.patch_mae import PatchMae, PatchMaeConfig
from phosphene.training.checkpoint import ModulePart
from phosphene.training.losses import row_correlation
from phosphene.training.sampling import Draws

if TYPE_CHECKING:
    from phosphene.models.patch_mae import PatchMaeConfig


class FedDecoder(PatchMae):
    """A latent in the place of the class token, every patch hidden: the decoder predicts them all. Make one with `of`.

    Parameters
    ----------
    config : PatchMaeConfig
        of the autoencoder the decoder is taken from
    n_voxels : mapping of {str: int}
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
        """The decoder of a trained autoencoder, a copy; only the layer that takes the latent is new, drawn from `seed`."""
        with torch.device("meta"):
            network = cls(autoencoder.config, autoencoder.n_voxels, latent)

        network.to_empty(device="cpu")
        own = {name: w for name, w in autoencoder.state_dict().items() if name in network.state_dict()}
        weight = network.decoder_embed.weight
        nn.init.xavier_uniform_(weight, generator=torch.Generator().manual_seed(seed))
        first = {"decoder_embed.weight": weight.detach(), "decoder_embed.bias": torch.zeros(len(weight))}
        network.load_state_dict(own | first)

        return network

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (n, latent) to betas (n, n_voxels)."""
        nothing_visible = torch.zeros(len(latents), 0, dtype=torch.int64, device=latents.device)
        return self.decode(latents[:, None], nothing_visible).flatten(1)[:, : self.n_voxels[self.subjects[0]]]

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of predicted betas, over voxels and rows.

        Parameters
        ----------
        batch : mapping of {str: Any}
            ``latents`` (n, latent) and ``betas`` (n, n_voxels)
        draws : Draws
            nothing is drawn

        Returns
        -------
        tuple of (Tensor, dict of {str: Tensor})
            loss, and ``{"correlation": mean over rows of Pearson's r between betas and prediction}``
        """
        predicted = self(batch["latents"]).float()
        betas = batch["betas"]

        with torch.no_grad():
            r = row_correlation(betas, predicted).mean()

        return F.mse_loss(predicted, betas), {"correlation": r}


class FedDecoderPart(ModulePart):
    """A trained :class:`phosphene.models.FedDecoder` as a part of a run, working on arrays.

    Parameters
    ----------
    module : FedDecoder
        a :class:`phosphene.models.FedDecoder`
    config : mapping of {str: Any}
        as `of` makes it
    """

    module: FedDecoder

    @classmethod
    def of(cls, network: FedDecoder) -> Self:
        """The part that holds this network."""
        config = {
            "network": network.config.model_dump(mode="json"),
            "subjects": [[name, n] for name, n in network.n_voxels.items()],
            "latent": network.decoder_embed.in_features,
        }

        return cls(network, config)

    @classmethod
    def build(cls, config: dict[str, Any]) -> FedDecoder:
        """A network of this configuration without values yet."""
        import torch

        from phosphene.io.config import validate

        values = validate(PatchMaeConfig, config["network"], "the saved decoder")
        with torch.device("meta"):
            network = FedDecoder(values, {name: int(n) for name, n in config["subjects"]}, int(config["latent"]))

        return network.to_empty(device="cpu")

    def from_latent(self, latents: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Latents (n, latent) to betas (n, n_voxels) float32."""
        return in_batches(self.module, self.module, latents, batch_size, "latents")
