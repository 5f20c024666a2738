"""A latent diffusion tuned to fixed tokens: features of a brain model that itself stays as it is.

    features -> tokens -> two conditionings -> U-Net -> noise in a latent

:mod:`phosphene.models.brain_ldm` tunes the brain's encoder as well, as MinD-Vis and CAD do; here any features will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.models.brain_ldm import Pictures
from phosphene.models.ldm import Ldm, LdmUnet, random_crops
from phosphene.training.checkpoint import ModulePart
from phosphene.training.sampling import Draws


def token_batches(
    tokens: np.ndarray, pictures: Pictures, stimuli: np.ndarray
) -> Callable[[np.ndarray], dict[str, Tensor]]:
    """Batches of tokens with the pictures they belong to.

    Parameters
    ----------
    tokens : ndarray of shape (n, n_tokens, width), float32
        of each row
    pictures : Pictures
        of the stimuli, from -1 to 1
    stimuli : ndarray of shape (n,)
        stimulus of each row

    Returns
    -------
    callable
        from numbers of rows to ``{"tokens", "pictures"}``
    """
    rows_of = pictures.rows_of(stimuli)

    def fetch(rows: np.ndarray) -> dict[str, Tensor]:
        batch = pictures[rows_of[rows]]  # (n, 3, side, side)
        return {"tokens": torch.from_numpy(tokens[rows]), "pictures": torch.from_numpy(batch)}

    return fetch


class TokensToPicture(nn.Module):
    """A latent diffusion in training, conditioned on fixed tokens.

    Parameters
    ----------
    network : LdmUnet
        draws from that many tokens; which of its weights are trained is left as it is
    ldm : Ldm
        makes latents of pictures; no part of this module
    crops : float, default 0.0
        share of training pictures that are cut smaller and stretched back
    """

    def __init__(self, network: LdmUnet, ldm: Ldm, crops: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.crops = crops
        self._ldm = ldm

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of the noise in the latents of pictures, under the tokens that belong to them.

        Parameters
        ----------
        batch : mapping of {str: Any}
            as `token_batches` makes it
        draws : Draws
            noise of this batch
        """
        tokens = batch["tokens"]
        pictures = batch["pictures"]
        if self.training and self.crops:
            pictures = random_crops(pictures, draws, share=self.crops)

        self._ldm.tokenizer.to(tokens.device)  # no part of this module, so nothing else moves it
        latents = self._ldm.encode(pictures).to(tokens.device)
        return self.network.loss({"latents": latents, "tokens": tokens}, draws)


class TunedLdm(ModulePart):
    """A U-Net tuned to tokens of one shape, as a fitted part of a run; the tokenizer of pictures is the generator's.

    Parameters
    ----------
    module : LdmUnet
        the tuned network
    config : mapping of {str: Any}
        as `of` makes it
    """

    module: LdmUnet

    @classmethod
    def of(cls, network: LdmUnet, shape: tuple[int, int]) -> Self:
        """From the network and the (tokens, width) that it draws from."""
        config = {"network": network.config.model_dump(mode="json"), "shape": list(shape)}
        return cls(network.cpu().eval(), config)

    @classmethod
    def build(cls, config: dict[str, Any]) -> LdmUnet:
        """A network of this configuration without values yet."""
        return LdmUnet(**config["network"])

    @property
    def network(self) -> LdmUnet:
        """What predicts noise from tokens."""
        return self.module

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens, width) of what it draws from."""
        n_tokens, width = self.config["shape"]
        return n_tokens, width
