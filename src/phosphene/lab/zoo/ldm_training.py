"""The lab's latent diffusion: what it is trained on, and what it is worth.

It learns to take noise from the latents of `vq`, under labels that say what a scene mainly shows and where: scenes first, as its
published namesake learned ImageNet, brains later. `vq` is taken from the zoo as it is, so it has to be there first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from phosphene.lab.zoo import fingerprint, from_network, load, names, to_network
from phosphene.lab.zoo.objectives import Objective
from phosphene.lab.zoo.scores import Scores, picture_grid
from phosphene.training import Draws, TrainConfig

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes
    from phosphene.models.ldm import LdmUnet

__all__ = ["LdmObjective", "ldm", "pictures_of_latents", "vq_latents"]

_BLOCK = 500


@lru_cache(maxsize=1)
def _teacher(device: str) -> Any:
    return load("vq", device=device)


@torch.no_grad()
def vq_latents(x: Tensor) -> Tensor:
    """Latents (n, 4, 8, 8) of pictures (n, 3, 32, 32), -1 to 1, before they are quantised, scaled to variance 1."""
    vq = _teacher(str(x.device))
    with torch.autocast(x.device.type, enabled=False):
        return vq.encode(x).latents * vq.config.scaling_factor


@torch.no_grad()
def pictures_of_latents(z: Tensor) -> Tensor:
    """Pictures (n, 3, 32, 32), -1 to 1, of scaled latents, which are quantised first."""
    vq = _teacher(str(z.device))
    decoded = []
    for block in z.split(_BLOCK):
        decoded.append(vq.decode(block / vq.config.scaling_factor).sample.clamp(-1, 1))
    return torch.cat(decoded)


class LdmObjective(Objective):
    """Noise in the latents of a scene from its main category and place: the network's own loss.

    Parameters
    ----------
    network : LdmUnet
        What is trained.
    """

    network: LdmUnet

    config = TrainConfig(
        steps=12000, batch_size=64, lr=1e-3, warmup=200, weight_decay=0.01, adam_betas=(0.9, 0.99), clip_norm=1.0, ema=0.999,
    )  # fmt: skip

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """Latents of every scene, computed once: 1 kB a scene."""
        blocks = []
        for start in range(0, len(scenes), _BLOCK):
            blocks.append(vq_latents(to_network(scenes.pixels[start : start + _BLOCK])))
        return {"latents": torch.cat(blocks)}

    @classmethod
    def teachers(cls) -> str:
        """Which network it learned from."""
        return f"vq {fingerprint('vq')[:16]}"

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of the noise.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``vq_latents``, and ``category`` and ``place`` (n,).
        draws : Draws
            Random numbers of this step.
        """
        labels = torch.stack([batch["category"], batch["place"]], 1)  # (n, 2)
        return self.network.loss({"latents": batch["latents"], "labels": labels}, draws)


@torch.no_grad()
def ldm(
    network: LdmUnet, scenes: Scenes, count: int = 240, steps: int = 25
) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score the predicted noise, and pictures drawn from labels.

    The error of the noise stands beside that under the labels of another scene. Pictures should be of the category and in the
    place asked for, beside the tokenizer's reconstructions, which no sample can be expected to beat; and pictures of the same
    labels should differ as much as scenes of the same labels do.

    Parameters
    ----------
    network : LdmUnet
        Trained.
    scenes : Scenes
        It was not trained on.
    count : int, default 240
        How many pictures are drawn, twice each.
    steps : int, default 25
        Denoising steps.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        Scenes, their reconstructions, and two pictures of each one's labels.
    more : dict
        Empty.
    """
    z = LdmObjective.lessons(scenes)["latents"]
    labels = torch.from_numpy(np.stack([scenes.category, scenes.place], 1))  # (n, 2)
    other = np.random.default_rng(0).permutation(len(labels))
    scores: Scores = {
        "squared error of the noise": _noise_error(network, z, labels),
        "squared error, labels of another scene": _noise_error(network, z, labels[other]),
    }

    count = min(count, len(scenes))
    asked = labels[:count]
    drawn = network.sample(asked, range(count), seed=0, steps=steps, samples=2, batch_size=40)  # (count, 2, 4, 8, 8)
    truth = to_network(scenes.pixels[:count])
    rebuilt = pictures_of_latents(z[:count])
    sampled = pictures_of_latents(drawn[:, 0])
    resampled = pictures_of_latents(drawn[:, 1])

    if "classifier" in names():
        classifier: Any = load("classifier")

        for what, x in (("samples", sampled), ("reconstructions", rebuilt)):
            logits = classifier(x)

            for column, head in enumerate(("category", "place")):
                is_right = logits[head].argmax(1) == asked[:, column]
                scores[f"classifier names the {head}, {what}"] = float(is_right.float().mean())
                scores[f"chance, {head}"] = 1 / logits[head].shape[1]

    scores["distance of two samples of the same labels"] = float((sampled - resampled).square().mean().sqrt()) / 2
    differences = _same_label_differences(scenes)
    if differences:
        scores["distance of two scenes of the same labels"] = float(np.sqrt(np.mean(differences)))

    scores["deviation of latents, scenes"] = float(z.std())
    scores["deviation of latents, samples"] = float(drawn.std())
    rows = [from_network(x) for x in (truth, rebuilt, sampled, resampled)]

    return scores, picture_grid(*rows), {}


def _noise_error(network: LdmUnet, z: Tensor, labels: Tensor) -> float:
    """Mean squared error of the noise at evenly spread times, as many as scenes come."""
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    time = torch.linspace(0, network.config.noise_levels - 1, len(z)).round().long()
    signal = network.get_buffer("signal")[time][:, None, None, None]
    noisy = signal.sqrt() * z + (1 - signal).sqrt() * noise

    total = 0.0
    for start in range(0, len(z), _BLOCK):
        rows = slice(start, start + _BLOCK)
        predicted = network(noisy[rows], time[rows], labels[rows])
        total += float((predicted - noise[rows]).square().sum())

    return total / z.numel()


def _same_label_differences(scenes: Scenes) -> list[float]:
    """Mean squared differences of pixels, 0-1, of scenes and the next one with the same labels."""
    last: dict[tuple[int, int], int] = {}
    errors = []
    for row, key in enumerate(zip(scenes.category.tolist(), scenes.place.tolist(), strict=True)):
        if key in last:
            before = scenes.pixels[last[key]].astype(np.float64) / 255
            now = scenes.pixels[row].astype(np.float64) / 255
            errors.append(((before - now) ** 2).mean())

        last[key] = row

    return errors
