"""The lab's Very Deep VAE: what it is trained on, and what it is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.lab.zoo import from_network, to_network
from phosphene.lab.zoo.objectives import Objective
from phosphene.training import Draws, TrainConfig

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes


class VdvaeObjective(Objective):
    """Pictures in as few bits as possible: the network's own loss."""

    config = TrainConfig(
        steps=6000, batch_size=32, lr=2e-3, warmup=100, weight_decay=0.01, adam_betas=(0.9, 0.95), clip_norm=1.0, ema=0.995,
        precision="bf16",
    )  # fmt: skip

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Negative evidence bound, in bits per value of a picture."""
        return self.network.loss({"x": batch["x"]}, draws)


@torch.no_grad()
def vdvae(network: nn.Module, scenes: Scenes) -> tuple[dict[str, float], np.ndarray, dict[str, Any]]:
    """Bits per value, and pictures from the posterior's means: of all groups, and of the first with the prior's for the rest."""
    from phosphene.lab.zoo.scores import block_slices, picture_grid, pictures

    generator = torch.Generator().manual_seed(0)
    first = network.config.given
    cost = []
    decoded = {"all groups": [], f"first {network.config.given} groups": []}

    for rows in block_slices(scenes):
        x = to_network(scenes.pixels[rows])

        def noise(k: int, shape: tuple[int, ...], n: int = len(x)) -> Tensor:
            return torch.randn(n, *shape, generator=generator)

        pixels, latents = network.elbo(x, noise)
        cost.append(torch.cat([pixels[:, None], latents], 1))
        z = network.encode(x)

        for what, given in zip(decoded, (z, z[:first]), strict=True):
            decoded[what].append(from_network(network.picture(given)))

    bits = torch.cat(cost).mean(0)
    truth = np.asarray(scenes.pixels, dtype=np.float32) / 255
    shown = {what: np.concatenate(blocks) for what, blocks in decoded.items()}
    scores = {
        "bits per value": float(bits.sum()),
        "of these for pixels": float(bits[0]),
        f"of these for the first {first} groups": float(bits[1 : 1 + first].sum()),
    }

    for what, y in shown.items():
        scores |= {f"{name}, {what}": value for name, value in pictures(truth, y).items()}

    mean = np.broadcast_to(truth.mean(0), truth.shape)
    scores |= {f"{name}, mean scene": value for name, value in pictures(truth, mean).items()}

    return scores, picture_grid(truth, *shown.values()), {}
