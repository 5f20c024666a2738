"""The lab's latent diffusion: what it is trained on, and what it is worth.

It learns to take noise from the latents of `vq`, told what a scene mainly shows and where: scenes first, as its published
namesake learned ImageNet, brains later. `vq` is taken from the zoo as it is, so it has to be there first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.lab.zoo import fingerprint, from_network, load, names, to_network
from phosphene.lab.zoo.objectives import Objective
from phosphene.training import Draws, TrainConfig

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes


_BLOCK = 500


@lru_cache(maxsize=1)
def _teacher(device: str) -> nn.Module:
    return load("vq", device=device)


@torch.no_grad()
def latents(x: Tensor) -> Tensor:
    """Latents (n, 4, 8, 8) of pictures (n, 3, 32, 32), -1 to 1, before they are quantised, scaled to variance 1."""
    vq = _teacher(str(x.device))
    with torch.autocast(x.device.type, enabled=False):
        return vq.encode(x).latents * vq.config.scaling_factor


@torch.no_grad()
def pictures(z: Tensor) -> Tensor:
    """Pictures (n, 3, 32, 32), -1 to 1, of scaled latents, which are quantised first."""
    vq = _teacher(str(z.device))
    return torch.cat([vq.decode(b / vq.config.scaling_factor).sample.clamp(-1, 1) for b in z.split(_BLOCK)])


class LdmObjective(Objective):
    """Noise in the latents of a scene from its main category and place: the network's own loss."""

    config = TrainConfig(
        steps=12000, batch_size=64, lr=1e-3, warmup=200, weight_decay=0.01, adam_betas=(0.9, 0.99), clip_norm=1.0, ema=0.999,
    )  # fmt: skip

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """Latents of every scene, computed once: 1 kB a scene."""
        blocks = [latents(to_network(scenes.pixels[i : i + _BLOCK])) for i in range(0, len(scenes), _BLOCK)]
        return {"latents": torch.cat(blocks)}

    @classmethod
    def teachers(cls) -> str:
        """Which network it learned from."""
        return f"vq {fingerprint('vq')[:16]}"

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of the noise."""
        labels = torch.stack([batch["category"], batch["place"]], 1)
        return self.network.loss({"latents": batch["latents"], "labels": labels}, draws)


@torch.no_grad()
def ldm(
    network: nn.Module, scenes: Scenes, count: int = 240, steps: int = 25
) -> tuple[dict[str, float], np.ndarray, dict[str, Any]]:
    """Error of the predicted noise under a scene's own and others' labels; and pictures drawn from labels: are they of the
    category and in the place that was asked for. Beside the same of the tokenizer's reconstruction, and how much pictures
    of the same labels differ beside scenes of the same labels.
    """
    from phosphene.lab.zoo.scores import picture_grid

    z = LdmObjective.lessons(scenes)["latents"]
    labels = torch.from_numpy(np.stack([scenes.category, scenes.place], 1))
    other = np.random.default_rng(0).permutation(len(labels))
    scores = {
        "squared error of the noise": _error(network, z, labels),
        "squared error, labels of another scene": _error(network, z, labels[other]),
    }

    count = min(count, len(scenes))
    asked = labels[:count]
    drawn = network.sample(asked, range(count), seed=0, steps=steps, samples=2, batch_size=40)
    truth = to_network(scenes.pixels[:count])
    rebuilt = pictures(z[:count])
    sampled = pictures(drawn[:, 0])
    again = pictures(drawn[:, 1])

    if "classifier" in names():
        classifier = load("classifier")
        for what, x in (("samples", sampled), ("reconstructions", rebuilt)):
            guess = classifier(x)
            for i, head in enumerate(("category", "place")):
                hit = guess[head].argmax(1) == asked[:, i]
                scores[f"classifier names the {head}, {what}"] = float(hit.float().mean())
                scores[f"chance, {head}"] = 1 / guess[head].shape[1]

    scores["distance of two samples of the same labels"] = float((sampled - again).square().mean().sqrt()) / 2
    if pairs := _same_labels(scenes):
        scores["distance of two scenes of the same labels"] = float(np.sqrt(np.mean(pairs)))

    scores["deviation of latents, scenes"] = float(z.std())
    scores["deviation of latents, samples"] = float(drawn.std())

    return scores, picture_grid(*(from_network(x) for x in (truth, rebuilt, sampled, again))), {}


def _error(network: nn.Module, z: Tensor, labels: Tensor) -> float:
    """Mean squared error of the noise at evenly spread times, as many as scenes come."""
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    time = torch.linspace(0, network.config.noise_levels - 1, len(z)).round().long()
    signal = network.signal[time][:, None, None, None]
    noisy = signal.sqrt() * z + (1 - signal).sqrt() * noise
    total = 0.0

    for i in range(0, len(z), _BLOCK):
        rows = slice(i, i + _BLOCK)
        total += float((network(noisy[rows], time[rows], labels[rows]) - noise[rows]).square().sum())

    return total / z.numel()


def _same_labels(scenes: Scenes) -> list[float]:
    """Mean squared differences of pixels, 0-1, of scenes and the next one with the same labels."""
    last: dict[tuple[int, int], int] = {}
    errors = []

    for i, key in enumerate(zip(scenes.category.tolist(), scenes.place.tolist(), strict=True)):
        if key in last:
            a, b = (scenes.pixels[k].astype(np.float64) / 255 for k in (last[key], i))
            errors.append(((a - b) ** 2).mean())

        last[key] = i

    return errors
