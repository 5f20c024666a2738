"""The lab's dual-guided U-Net: what it is trained on, and what it is worth.

It learns to take noise from the latents of `kl` under the tokens of `clip`, of the scene itself and of one of its
captions. Both networks are taken from the zoo as they are, so they have to be there first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.lab.zoo import fingerprint, from_network, load, names, to_network, tokenizer
from phosphene.lab.zoo.objectives import Objective
from phosphene.lab.zoo.scores import Scores, picture_grid
from phosphene.training import Draws, TrainConfig
from phosphene.training.losses import row_correlation

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes
    from phosphene.models.dual_guided import DualUnet

__all__ = ["DualGuidedObjective", "dual_guided", "kl_latents", "one_caption", "picture_tokens", "text_tokens"]

_BLOCK = 500


@lru_cache(maxsize=1)
def _teachers(device: str) -> tuple[Any, Any]:
    return load("clip", device=device), load("kl", device=device)


@torch.no_grad()
def picture_tokens(x: Tensor) -> Tensor:
    """CLIP tokens (n, 17, 64) of pictures (n, 3, 32, 32), -1 to 1, over the length of the first: Versatile Diffusion's."""
    clip, _ = _teachers(str(x.device))
    with torch.autocast(x.device.type, enabled=False):
        output = clip.vision_model(pixel_values=x)
        tokens = clip.visual_projection(clip.vision_model.post_layernorm(output.last_hidden_state))  # (n, 17, 64)
        length = clip.visual_projection(output.pooler_output).norm(dim=-1)  # (n,)
        return tokens / length[:, None, None]


@torch.no_grad()
def text_tokens(texts: list[str], device: str = "cpu") -> Tensor:
    """CLIP tokens of texts, over the length of the pooled vector, padded with the end mark.

    Parameters
    ----------
    texts : list of str
        Longer ones are cut.
    device : str, default "cpu"
        Where CLIP runs.

    Returns
    -------
    Tensor of shape (n, 40, 64)
    """
    clip, _ = _teachers(device)
    length = clip.config.text_config.max_position_embeddings
    ids = tokenizer()(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")["input_ids"]
    output = clip.text_model(input_ids=ids.to(device))
    pooled = clip.text_projection(output.pooler_output)  # (n, 64)

    return clip.text_projection(output.last_hidden_state) / pooled.norm(dim=-1)[:, None, None]  # (n, 40, 64)


@torch.no_grad()
def kl_latents(x: Tensor) -> Tensor:
    """Mean latents (n, 4, 8, 8) of pictures, scaled to variance 1."""
    _, kl = _teachers(str(x.device))
    return kl.encode(x).latent_dist.mean * kl.config.scaling_factor


def one_caption(scenes: Scenes, seed: int = 0) -> list[str]:
    """A caption of each scene, drawn among those that are neither vague nor wrong.

    Parameters
    ----------
    scenes : Scenes
        With five captions each.
    seed : int, default 0
        Decides which.
    """
    # The largest of five draws, of which those of bad captions are 0.
    chance = np.random.default_rng(seed).random(scenes.good.shape) * scenes.good  # (n, 5)
    return [captions[k] for captions, k in zip(scenes.captions, chance.argmax(1), strict=True)]


class DualGuidedObjective(Objective):
    """Noise in the latents of a scene from its tokens and those of a caption: the network's own loss.

    Parameters
    ----------
    network : DualUnet
        What is trained; it learns here what an empty text and a grey picture look like.
    """

    network: DualUnet

    config = TrainConfig(
        steps=12000, batch_size=64, lr=1e-3, warmup=200, weight_decay=0.01, adam_betas=(0.9, 0.99), clip_norm=1.0, ema=0.999,
    )  # fmt: skip

    def __init__(self, network: DualUnet):
        super().__init__(network)
        grey = np.full((1, 32, 32, 3), 127, dtype=np.uint8)
        network.set_unconditional(picture_tokens(to_network(grey))[0], text_tokens([""])[0])

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """Latents and tokens of every scene, computed once and kept as float16: 7.8 kB a scene, 468 MB for 60,000."""
        captions = one_caption(scenes)
        n = len(scenes)
        out = {
            "latents": torch.empty(n, 4, 8, 8, dtype=torch.float16),
            "vision": torch.empty(n, 17, 64, dtype=torch.float16),
            "text": torch.empty(n, 40, 64, dtype=torch.float16),
        }

        for start in range(0, n, _BLOCK):
            rows = slice(start, start + _BLOCK)
            x = to_network(scenes.pixels[rows])
            out["latents"][rows] = kl_latents(x)
            out["vision"][rows] = picture_tokens(x)
            out["text"][rows] = text_tokens(captions[rows])

        return out

    @classmethod
    def teachers(cls) -> str:
        """Which networks it learned from."""
        return " ".join(f"{name} {fingerprint(name)[:16]}" for name in ("clip", "kl"))

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of the noise.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``kl_latents`` (n, 4, 8, 8), ``vision`` (n, 17, 64) and ``text`` (n, 40, 64).
        draws : Draws
            Random numbers of this step.
        """
        return self.network.loss(batch, draws)


@torch.no_grad()
def dual_guided(
    network: DualUnet, scenes: Scenes, count: int = 120, steps: int = 25
) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score the predicted noise, and pictures of true conditions.

    The error of the noise is measured under a scene's own, others' and no conditions. Pictures are drawn from pure noise and
    from a blurred scene: each should be nearer to its own scene than to others', and of the scene's category. Beside them
    stand the autoencoder's reconstruction, which no sample can be expected to beat, and the blurred scene itself.

    Parameters
    ----------
    network : DualUnet
        Trained.
    scenes : Scenes
        It was not trained on.
    count : int, default 120
        How many pictures are drawn.
    steps : int, default 25
        Denoising steps.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        Scenes, reconstructions, pictures from noise, blurred scenes, and pictures from these.
    more : dict
        Empty.
    """
    lessons = DualGuidedObjective.lessons(scenes)
    z = lessons["latents"].float()
    vision = lessons["vision"].float()
    text = lessons["text"].float()
    no_vision = network.no_vision.expand_as(vision)
    no_text = network.no_text.expand_as(text)
    scores: Scores = {
        "squared error of the noise": _noise_error(network, z, vision, text),
        "squared error, conditions of another scene": _noise_error(network, z, vision.roll(1, 0), text.roll(1, 0)),
        "squared error, no condition": _noise_error(network, z, no_vision, no_text),
    }

    count = min(count, len(scenes))
    x = to_network(scenes.pixels[:count])
    z = z[:count]
    vision = vision[:count]
    text = text[:count]
    small = nn.functional.avg_pool2d(x, 8)
    blurred = nn.functional.interpolate(small, scale_factor=8, mode="bilinear")

    options: dict[str, Any] = {"seed": 0, "steps": steps, "batch_size": 40}
    drawn = {
        "reconstructions": z,
        "from noise": network.sample(vision, text, range(count), **options),
        "from blurred": network.sample(vision, text, range(count), first=kl_latents(blurred), **options),
    }

    _, kl = _teachers("cpu")
    pictures = {}
    for what, scaled in drawn.items():
        pictures[what] = kl.decode(scaled / kl.config.scaling_factor).sample.clamp(-1, 1)
    pictures["blurred"] = blurred
    truth = _pooled(x)
    n_pairs = count * (count - 1)

    for what, y in pictures.items():
        cosine = _pooled(y) @ truth.T  # (count, count)
        own = cosine.diagonal()[:, None]
        scores[f"CLIP cosine to the own scene, {what}"] = float(own.mean())
        scores[f"CLIP two-way identification, {what}"] = float((cosine < own).sum() / n_pairs)
        scores[f"pixel correlation, {what}"] = float(row_correlation(x.flatten(1), y.flatten(1)).mean())

        if "classifier" in names():
            classifier: Any = load("classifier")
            is_right = classifier.probabilities(y).argmax(1).numpy() == scenes.category[:count]
            scores[f"classifier names the category, {what}"] = float(is_right.mean())

    lines = (x, pictures["reconstructions"], pictures["from noise"], blurred, pictures["from blurred"])
    return scores, picture_grid(*(from_network(y) for y in lines)), {}


def _noise_error(network: DualUnet, z: Tensor, vision: Tensor, text: Tensor) -> float:
    """Mean squared error of the noise at evenly spread levels, as many pictures as come."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(z.shape, generator=generator)
    t = torch.linspace(0, network.config.noise_levels - 1, len(z)).round().long()
    noisy = network.schedule().add_noise(z, noise, t)  # pyright: ignore[reportArgumentType]  any integers do

    total = 0.0
    for start in range(0, len(z), _BLOCK):
        rows = slice(start, start + _BLOCK)
        error = network(noisy[rows], t[rows], vision[rows], text[rows], 0.4) - noise[rows]
        total += float(error.square().sum())

    return total / z.numel()


def _pooled(x: Tensor) -> Tensor:
    """Pooled CLIP vectors of unit length: the first of the tokens."""
    return torch.cat([picture_tokens(block)[:, 0] for block in x.split(_BLOCK)])
