"""The lab's Very Deep VAE: what it is trained on, and what it is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from phosphene.lab.zoo import from_network, to_network
from phosphene.lab.zoo.objectives import Objective
from phosphene.lab.zoo.scores import Scores, block_slices, picture_grid, picture_scores
from phosphene.training import Draws, TrainConfig

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes
    from phosphene.models.vdvae import Vdvae

__all__ = ["VdvaeObjective", "vdvae"]


class VdvaeObjective(Objective):
    """Pictures in as few bits as possible: the network's own loss.

    Parameters
    ----------
    network : Vdvae
        What is trained.
    """

    network: Vdvae

    config = TrainConfig(
        steps=6000, batch_size=32, lr=2e-3, warmup=100, weight_decay=0.01, adam_betas=(0.9, 0.95), clip_norm=1.0, ema=0.995,
        precision="bf16",
    )  # fmt: skip

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Negative evidence bound, in bits per value of a picture.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``x`` (n, 3, 32, 32), -1 to 1.
        draws : Draws
            Random numbers of this step.
        """
        return self.network.loss({"x": batch["x"]}, draws)


@torch.no_grad()
def vdvae(network: Vdvae, scenes: Scenes) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score bits per value, and pictures from the posterior's means.

    These are of all groups, and of the first with the prior's means for the rest.

    Parameters
    ----------
    network : Vdvae
        Trained.
    scenes : Scenes
        It was not trained on.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        Scenes, and both kinds of pictures.
    more : dict
        Empty.
    """
    generator = torch.Generator().manual_seed(0)
    given = network.config.given
    bits = []
    decoded: dict[str, list[np.ndarray]] = {"all groups": [], f"first {given} groups": []}

    for rows in block_slices(scenes):
        x = to_network(scenes.pixels[rows])

        def noise(group: int, shape: tuple[int, ...], n: int = len(x)) -> Tensor:
            return torch.randn(n, *shape, generator=generator)

        pixel_bits, latent_bits = network.elbo(x, noise)  # (n,) and (n, groups)
        bits.append(torch.cat([pixel_bits[:, None], latent_bits], 1))

        z = network.encode(x)
        for what, groups in zip(decoded, (z, z[:given]), strict=True):
            decoded[what].append(from_network(network.picture(groups)))

    mean_bits = torch.cat(bits).mean(0)  # (1 + groups,)
    truth = np.asarray(scenes.pixels, dtype=np.float32) / 255
    by_groups = {what: np.concatenate(blocks) for what, blocks in decoded.items()}
    scores: Scores = {
        "bits per value": float(mean_bits.sum()),
        "of these for pixels": float(mean_bits[0]),
        f"of these for the first {given} groups": float(mean_bits[1 : 1 + given].sum()),
    }

    mean = np.broadcast_to(truth.mean(0), truth.shape)
    for what, y in (*by_groups.items(), ("mean scene", mean)):
        for name, value in picture_scores(truth, y).items():
            scores[f"{name}, {what}"] = value
    return scores, picture_grid(truth, *by_groups.values()), {}
