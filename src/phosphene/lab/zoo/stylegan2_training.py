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
from phosphene.lab.zoo.dual_guided_training import one_caption
from phosphene.lab.zoo.objectives import Objective
from phosphene.lab.zoo.scores import Scores, embed_texts, picture_grid
from phosphene.models.stylegan2 import Discriminator, GanObjective, GanTraining, GeneratorNetwork, adam
from phosphene.training import Draws, TrainConfig
from phosphene.training.losses import row_correlation

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes

__all__ = ["StyleGan2Objective", "clip_latents", "conditions", "frechet", "low_level", "stylegan2"]

_BLOCK = 500


@lru_cache(maxsize=1)
def _teachers(device: str) -> tuple[Any, Any]:
    return load("clip", device=device), load("classifier", device=device)


def clip_latents(x: Tensor) -> Tensor:
    """CLIP latents (n, 64) of unit length of pictures (n, 3, 32, 32), -1 to 1, with gradients."""
    clip, _ = _teachers(str(x.device))
    return nn.functional.normalize(clip.get_image_features(x).pooler_output, dim=-1)


def low_level(x: Tensor) -> Tensor:
    """The classifier's first feature maps at 8 x 8 positions, and its picture at 8 x 8, each of unit length."""
    _, classifier = _teachers(str(x.device))
    parts = []
    for maps in (classifier.features(x)["early"], x):
        small = nn.functional.adaptive_avg_pool2d(maps, 8).flatten(1)
        parts.append(nn.functional.normalize(small, dim=-1))
    return torch.cat(parts, 1)  # (n, (32 + 3) * 64)


@torch.no_grad()
def conditions(scenes: Scenes) -> Tensor:
    """(n, 2, 64) latents of unit length of each scene and of one of its captions, neither vague nor wrong."""
    clip, _ = _teachers("cpu")
    texts = embed_texts(clip, tokenizer(), one_caption(scenes))

    images = []
    for start in range(0, len(scenes), _BLOCK):
        images.append(clip_latents(to_network(scenes.pixels[start : start + _BLOCK])))
    return torch.stack([torch.cat(images), torch.from_numpy(texts)], 1)  # (n, 2, 64)


class StyleGan2Objective(Objective):
    """Scenes from both latents, against a discriminator that is not kept.

    Parameters
    ----------
    network : GeneratorNetwork
        What is trained and kept.
    """

    config = TrainConfig(
        steps=8000, batch_size=16, lr=2.5e-3, warmup=0, schedule="constant", weight_decay=0.0, adam_betas=(0.0, 0.99), ema=0.998,
    )  # fmt: skip

    def __init__(self, network: GeneratorNetwork):
        nn.Module.__init__(self)  # the adversaries hold the network: held here as well, it would be saved twice

        training = GanTraining(r1=0.05, low_level_weight=10.0, crop=0.75)
        discriminator = Discriminator(**network.config.model_dump(mode="json"))
        self.adversaries = GanObjective(network, discriminator, training, clip_latents, low_level)

    @property
    def network(self) -> GeneratorNetwork:
        """The generator."""
        return self.adversaries.network

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """Both latents of every scene, computed once: 512 bytes a scene."""
        return {"conditions": conditions(scenes)}

    @classmethod
    def teachers(cls) -> str:
        """Which networks it learned from."""
        return " ".join(f"{name} {fingerprint(name)[:16]}" for name in ("clip", "classifier"))

    def turns(self, step: int) -> list[str]:
        """What is learned in a step, in order."""
        return self.adversaries.turns(step)

    def loss(self, batch: dict[str, Tensor], draws: Draws, turn: str) -> tuple[Tensor, dict[str, Any]]:
        """Loss of one turn: of the generator, of the discriminator, or a penalty on one of them.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``x`` (n, 3, 32, 32), -1 to 1, and ``conditions`` of what `lessons` gives.
        draws : Draws
            Random numbers of this step.
        turn : str
            One of what `turns` says for the step.
        """
        return self.adversaries.loss(batch, draws, turn)

    def optimizer(self, network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        """Adam for each side.

        Parameters
        ----------
        network : nn.Module
            The generator; the discriminator comes with the objective.
        config : TrainConfig
            Learning rate and the like.
        """
        return adam(self.adversaries, config)


@torch.no_grad()
def stylegan2(network: GeneratorNetwork, scenes: Scenes, count: int = 500) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score pictures drawn from each scene's latents, beside the same scores of the scenes themselves.

    Is a picture nearer to its own latents than to others', is it of the scene's category and in its place, how far are drawn
    pictures from true ones as a distribution, and how much do two pictures of the same latents differ.

    Parameters
    ----------
    network : GeneratorNetwork
        Trained.
    scenes : Scenes
        It was not trained on.
    count : int, default 500
        How many are compared with each other.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        Scenes, and two pictures of each.
    more : dict
        Empty.
    """
    latents = conditions(scenes)
    truth = to_network(scenes.pixels)
    drawn = _draw(network, latents, seed=0)
    redrawn = _draw(network, latents, seed=1)

    n = len(scenes)
    count = min(count, n)
    compared = (("samples", drawn), ("scenes", truth))
    scores: Scores = {}
    for what, x in compared:
        embedded = torch.cat([clip_latents(block) for block in x[:count].split(_BLOCK)])

        for column, kind in enumerate(("image", "text")):
            cosine = embedded @ latents[:count, column].T  # (count, count)
            own = cosine.diagonal()[:, None]
            n_pairs = count * (count - 1)
            scores[f"CLIP cosine to the own {kind} latent, {what}"] = float(own.mean())
            scores[f"CLIP two-way identification by the {kind} latent, {what}"] = float((cosine < own).sum() / n_pairs)

    scores["chance, two-way identification"] = 0.5
    scores["chance, category"] = 1 / len(scenes.categories)
    scores["chance, place"] = 1 / len(scenes.places)

    _, classifier = _teachers("cpu")
    features = {}
    for what, x in compared:
        outputs = [classifier(block) for block in x.split(_BLOCK)]
        last = [classifier.features(block)["last"] for block in x.split(_BLOCK)]
        features[what] = torch.cat(last).double().numpy()

        for head, labels in (("category", scenes.category), ("place", scenes.place)):
            named = torch.cat([output[head] for output in outputs]).argmax(1).numpy()
            scores[f"classifier names the {head}, {what}"] = float((named == labels).mean())

    # Two halves of the scenes say how large the distance is between samples of one distribution.
    half = n // 2
    first_half = features["scenes"][:half]
    second_half = features["scenes"][half:]
    scores["FID by the classifier's features, samples"] = frechet(features["samples"], features["scenes"])
    scores["FID by the classifier's features, half of the scenes and the other"] = frechet(first_half, second_half)

    for what, samples in (("the own", drawn), ("another", drawn.roll(1, 0))):
        correlation = row_correlation(samples.flatten(1), truth.flatten(1))
        scores[f"pixel correlation with {what} scene, samples"] = float(correlation.mean())
    scores["distance of two samples of the same latents"] = float((drawn - redrawn).square().mean().sqrt()) / 2
    rows = [from_network(x) for x in (truth, drawn, redrawn)]

    return scores, picture_grid(*rows), {}


def _draw(network: GeneratorNetwork, latents: Tensor, seed: int) -> Tensor:
    """One picture of each pair of latents, -1 to 1."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for block in latents.split(250):
        z = torch.randn(len(block), network.config.z, generator=generator)
        noise = []
        for side in network.config.noise_sizes:
            noise.append(torch.randn(len(block), 1, side, side, generator=generator))

        pictures.append(network(block, z, noise).clamp(-1, 1))

    return torch.cat(pictures)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of two samples of features, as if both were normal.

        |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)),    A, B covariances

    Parameters
    ----------
    a, b : ndarray of shape (n, d)
        Features; the two may differ in n.

    Returns
    -------
    float
        0 for equal means and covariances.
    """
    a_cov = np.cov(a, rowvar=False)  # (d, d)
    b_cov = np.cov(b, rowvar=False)

    # tr (A B)^(1/2) is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(a_cov)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T  # (d, d)
    cross = np.sqrt(np.linalg.eigvalsh(root @ b_cov @ root).clip(min=0)).sum()

    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(means + np.trace(a_cov) + np.trace(b_cov) - 2 * cross)
