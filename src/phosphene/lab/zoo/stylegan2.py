"""The lab's conditional StyleGAN2: what it is trained on, and what it is worth.

It learns to draw a scene from two latents of `clip`, of the scene itself and of one of its captions. `clip` and
`classifier`, whose first features keep colours and layout, are taken from the zoo as they are and have to be there first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.lab.zoo import fingerprint, from_network, load, to_network, tokenizer
from phosphene.lab.zoo.objectives import Objective
from phosphene.training import Draws, TrainConfig
from phosphene.training.losses import row_correlation

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes

_BLOCK = 500


@lru_cache(maxsize=1)
def _teachers(device: str) -> tuple[nn.Module, nn.Module]:
    return load("clip", device=device), load("classifier", device=device)


def see(x: Tensor) -> Tensor:
    """CLIP latents (n, 64) of unit length of pictures (n, 3, 32, 32), -1 to 1, with gradients."""
    clip, _ = _teachers(str(x.device))
    return nn.functional.normalize(clip.get_image_features(x).pooler_output, dim=-1)


def low_level(x: Tensor) -> Tensor:
    """The classifier's first feature maps at 8 x 8 positions, and its picture at 8 x 8, each of unit length."""
    _, classifier = _teachers(str(x.device))
    parts = (classifier.features(x)["early"], x)
    small = [nn.functional.adaptive_avg_pool2d(part, 8).flatten(1) for part in parts]
    return torch.cat([nn.functional.normalize(part, dim=-1) for part in small], 1)


@torch.no_grad()
def conditions(scenes: Scenes) -> Tensor:
    """(n, 2, 64) latents of unit length of each scene and of one of its captions, neither vague nor wrong."""
    from phosphene.lab.zoo.dual_guided import one_caption
    from phosphene.lab.zoo.scores import embed_texts

    clip, _ = _teachers("cpu")
    texts = embed_texts(clip, tokenizer(), one_caption(scenes))
    images = [see(to_network(scenes.pixels[i : i + _BLOCK])) for i in range(0, len(scenes), _BLOCK)]

    return torch.stack([torch.cat(images), torch.from_numpy(texts)], 1)


class StyleGan2Objective(Objective):
    """Scenes from both latents, against a discriminator that is not kept."""

    config = TrainConfig(
        steps=8000, batch_size=16, lr=2.5e-3, warmup=0, schedule="constant", weight_decay=0.0, adam_betas=(0.0, 0.99), ema=0.998,
    )  # fmt: skip

    def __init__(self, network: nn.Module):
        from phosphene.lab.zoo.networks import find

        nn.Module.__init__(self)  # the game holds the network
        where = "phosphene.models.stylegan2"
        rules = find(f"{where}:GanTraining")(r1=0.05, low_level_weight=10.0, crop=0.75)
        discriminator = find(f"{where}:Discriminator")(**network.config.model_dump(mode="json"))
        self.game = find(f"{where}:GanObjective")(network, discriminator, rules, see, low_level)

    @property
    def network(self) -> nn.Module:
        """The generator."""
        return self.game.network

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """Both latents of every scene, computed once: 512 bytes a scene."""
        return {"conditions": conditions(scenes)}

    @classmethod
    def teachers(cls) -> str:
        """Which networks it learned from."""
        return " ".join(f"{name} {fingerprint(name)[:16]}" for name in ("clip", "classifier"))

    def turns(self, step: int) -> list[str]:
        """What is learned in a step."""
        return self.game.turns(step)

    def loss(self, batch: dict[str, Tensor], draws: Draws, turn: str) -> tuple[Tensor, dict[str, Any]]:
        """The game's own loss."""
        return self.game.loss(batch, draws, turn)

    def optimizer(self, network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        """Adam for each side."""
        from phosphene.lab.zoo.networks import find

        return find("phosphene.models.stylegan2:adam")(self.game, config)


@torch.no_grad()
def stylegan2(
    network: nn.Module, scenes: Scenes, count: int = 500
) -> tuple[dict[str, float], np.ndarray, dict[str, Any]]:
    """One picture of each scene's latents: is it nearer to them than to others', is it of the scene's category and in its
    place; and how far drawn pictures are from true ones as a crowd. Beside the same of the scenes themselves; and how much
    two pictures of the same latents differ.
    """
    from phosphene.lab.zoo.scores import picture_grid

    c = conditions(scenes)
    n = len(scenes)
    truth = to_network(scenes.pixels)
    drawn, again = (_drawn(network, c, seed) for seed in (0, 1))
    count = min(count, n)
    scores: dict[str, float] = {}

    for what, x in (("samples", drawn), ("scenes", truth)):
        seen = torch.cat([see(block) for block in x[:count].split(_BLOCK)])
        for k, kind in enumerate(("image", "text")):
            cosine = seen @ c[:count, k].T
            own = cosine.diagonal()[:, None]
            scores[f"CLIP cosine to the own {kind} latent, {what}"] = float(own.mean())
            scores[f"CLIP two-way identification by the {kind} latent, {what}"] = float(
                (cosine < own).sum() / (count * (count - 1))
            )

    _, classifier = _teachers("cpu")
    scores["chance, two-way identification"] = 0.5
    scores["chance, category"], scores["chance, place"] = 1 / len(scenes.categories), 1 / len(scenes.places)
    features = {}

    for what, x in (("samples", drawn), ("scenes", truth)):
        read = [classifier(block) for block in x.split(_BLOCK)]
        features[what] = torch.cat([classifier.features(block)["last"] for block in x.split(_BLOCK)]).double().numpy()

        for head, labels in (("category", scenes.category), ("place", scenes.place)):
            named = torch.cat([r[head] for r in read]).argmax(1).numpy()
            scores[f"classifier names the {head}, {what}"] = float((named == labels).mean())

    scores["FID by the classifier's features, samples"] = frechet(features["samples"], features["scenes"])
    half = n // 2
    scores["FID by the classifier's features, half of the scenes and the other"] = frechet(
        features["scenes"][:half], features["scenes"][half:]
    )

    for what, other in (("the own", drawn), ("another", drawn.roll(1, 0))):
        r = row_correlation(other.flatten(1), truth.flatten(1))
        scores[f"pixel correlation with {what} scene, samples"] = float(r.mean())

    scores["distance of two samples of the same latents"] = float((drawn - again).square().mean().sqrt()) / 2
    return scores, picture_grid(*(from_network(x) for x in (truth, drawn, again))), {}


def _drawn(network: nn.Module, c: Tensor, seed: int) -> Tensor:
    """One picture of each pair of latents, -1 to 1."""
    generator = torch.Generator().manual_seed(seed)
    out = []

    for block in c.split(250):
        z = torch.randn(len(block), network.config.z, generator=generator)
        noise = [torch.randn(len(block), 1, side, side, generator=generator) for side in network.config.noise_sizes]
        out.append(network(block, z, noise).clamp(-1, 1))

    return torch.cat(out)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of two crowds of features (n, d), as if both were normal.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)),    A, B covariances
    """
    a_cov = np.cov(a, rowvar=False)
    b_cov = np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(a_cov)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b_cov @ root).clip(min=0)).sum()

    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(a_cov) + np.trace(b_cov) - 2 * cross)
