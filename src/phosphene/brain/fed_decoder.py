"""MinD-Vis' transformer decoder fed with a picture's latent: how MinD-Vis stands in LEA's table of encoding.

::

    latent -> class token beside mask tokens -> decoder of the masked autoencoder -> patches -> betas

Qian et al. 2024 (LEA), table 2, say no more than that CLIP features are fed to the transformer decoder of MinD-Vis. Here the
decoder comes from the first phase, a new layer takes the latent, and both are trained on pairs by the squared error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from phosphene.brain.batches import in_batches
from phosphene.brain.patch_mae import PatchMaeConfig
from phosphene.train.checkpoint import ModulePart

if TYPE_CHECKING:
    from phosphene.brain.fed_decoder_network import FedDecoder


class FedDecoderPart(ModulePart):
    """A trained :class:`phosphene.brain.FedDecoder` as a part of a run, working on arrays.

    Parameters
    ----------
    module : a :class:`phosphene.brain.FedDecoder`
    config : as `of` makes it
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

        from phosphene.brain.fed_decoder_network import FedDecoder
        from phosphene.run.config import validate

        values = validate(PatchMaeConfig, config["network"], "the saved decoder")
        with torch.device("meta"):
            network = FedDecoder(values, {name: int(n) for name, n in config["subjects"]}, int(config["latent"]))
        return network.to_empty(device="cpu")

    def from_latent(self, latents: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Latents (n, latent) to betas (n, n_voxels) float32."""
        return in_batches(self.module, self.module, latents, batch_size, "latents")
