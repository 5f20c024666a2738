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
from phosphene.training import Draws, TrainConfig
from phosphene.training.losses import row_correlation

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes

_BLOCK = 500


@lru_cache(maxsize=1)
def _teachers(device: str) -> tuple[nn.Module, nn.Module]:
    return load("clip", device=device), load("kl", device=device)


@torch.no_grad()
def picture_tokens(x: Tensor) -> Tensor:
    """CLIP tokens (n, 17, 64) of pictures (n, 3, 32, 32), -1 to 1, over the length of the first: Versatile Diffusion's."""
    clip, _ = _teachers(str(x.device))
    with torch.autocast(x.device.type, enabled=False):
        seen = clip.vision_model(pixel_values=x)
        tokens = clip.visual_projection(clip.vision_model.post_layernorm(seen.last_hidden_state))
        return tokens / clip.visual_projection(seen.pooler_output).norm(dim=-1)[:, None, None]


@torch.no_grad()
def text_tokens(texts: list[str], device: str = "cpu") -> Tensor:
    """CLIP tokens (n, 40, 64) of texts, over the length of the pooled vector, padded with the end mark."""
    clip, _ = _teachers(device)
    length = clip.config.text_config.max_position_embeddings
    ids = tokenizer()(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")["input_ids"]
    read = clip.text_model(input_ids=ids.to(device))
    pooled = clip.text_projection(read.pooler_output)

    return clip.text_projection(read.last_hidden_state) / pooled.norm(dim=-1)[:, None, None]


@torch.no_grad()
def latents(x: Tensor) -> Tensor:
    """Mean latents (n, 4, 8, 8) of pictures, scaled to variance 1."""
    _, kl = _teachers(str(x.device))
    return kl.encode(x).latent_dist.mean * kl.config.scaling_factor


def one_caption(scenes: Scenes, seed: int = 0) -> list[str]:
    """A caption of each scene, drawn among those that are neither vague nor wrong."""
    chance = np.random.default_rng(seed).random(scenes.good.shape) * scenes.good
    return [told[k] for told, k in zip(scenes.captions, chance.argmax(1), strict=True)]


class DualGuidedObjective(Objective):
    """Noise in the latents of a scene from its tokens and those of a caption: the network's own loss."""

    config = TrainConfig(
        steps=12000, batch_size=64, lr=1e-3, warmup=200, weight_decay=0.01, adam_betas=(0.9, 0.99), clip_norm=1.0, ema=0.999,
    )  # fmt: skip

    def __init__(self, network: nn.Module):
        super().__init__(network)
        grey = np.full((1, 32, 32, 3), 127, dtype=np.uint8)
        network.set_unconditional(picture_tokens(to_network(grey))[0], text_tokens([""])[0])

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """Latents and tokens of every scene, computed once and kept as float16: 7.8 kB a scene, 468 MB for 60,000."""
        told = one_caption(scenes)
        n = len(scenes)
        out = {
            "latents": torch.empty(n, 4, 8, 8, dtype=torch.float16),
            "vision": torch.empty(n, 17, 64, dtype=torch.float16),
            "text": torch.empty(n, 40, 64, dtype=torch.float16),
        }

        for start in range(0, n, _BLOCK):
            rows = slice(start, start + _BLOCK)
            x = to_network(scenes.pixels[rows])
            out["latents"][rows], out["vision"][rows] = latents(x), picture_tokens(x)
            out["text"][rows] = text_tokens(told[rows])

        return out

    @classmethod
    def teachers(cls) -> str:
        """Which networks it learned from."""
        return " ".join(f"{name} {fingerprint(name)[:16]}" for name in ("clip", "kl"))

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of the noise."""
        return self.network.loss(batch, draws)


@torch.no_grad()
def dual_guided(
    network: nn.Module, scenes: Scenes, count: int = 120, steps: int = 25
) -> tuple[dict[str, float], np.ndarray, dict[str, Any]]:
    """Error of the predicted noise under its own, others' and no conditions; and pictures of true conditions, from pure
    noise and from a blurred scene: is each nearer to its own scene than to others', is it of the scene's category.
    Beside the same of the autoencoder's reconstruction, which no sample can be expected to beat, and of the blurred scene.
    """
    from phosphene.lab.zoo.scores import picture_grid

    lesson = DualGuidedObjective.lessons(scenes)
    z, vision, text = (lesson[k].float() for k in ("latents", "vision", "text"))
    none = network.no_vision.expand_as(vision), network.no_text.expand_as(text)
    scores = {
        "squared error of the noise": _error(network, z, vision, text),
        "squared error, conditions of another scene": _error(network, z, vision.roll(1, 0), text.roll(1, 0)),
        "squared error, no condition": _error(network, z, *none),
    }

    count = min(count, len(scenes))
    x, z, vision, text = (a[:count] for a in (to_network(scenes.pixels[:count]), z, vision, text))
    blurred = nn.functional.interpolate(nn.functional.avg_pool2d(x, 8), scale_factor=8, mode="bilinear")
    asked = {"seed": 0, "steps": steps, "batch_size": 40}
    drawn = {
        "reconstructions": z,
        "from noise": network.sample(vision, text, range(count), **asked),
        "from blurred": network.sample(vision, text, range(count), first=latents(blurred), **asked),
    }

    _, kl = _teachers("cpu")
    shown = {what: kl.decode(z / kl.config.scaling_factor).sample.clamp(-1, 1) for what, z in drawn.items()}
    shown["blurred"] = blurred
    truth = _pooled(x)

    for what, y in shown.items():
        cosine = _pooled(y) @ truth.T
        own = cosine.diagonal()[:, None]
        scores[f"CLIP cosine to the own scene, {what}"] = float(own.mean())
        scores[f"CLIP two-way identification, {what}"] = float((cosine < own).sum() / (count * (count - 1)))
        scores[f"pixel correlation, {what}"] = float(row_correlation(x.flatten(1), y.flatten(1)).mean())

        if "classifier" in names():
            hit = load("classifier").probabilities(y).argmax(1).numpy() == scenes.category[:count]
            scores[f"classifier names the category, {what}"] = float(hit.mean())

    rows = [from_network(y) for y in (x, shown["reconstructions"], shown["from noise"], blurred, shown["from blurred"])]
    return scores, picture_grid(*rows), {}


def _error(network: nn.Module, z: Tensor, vision: Tensor, text: Tensor) -> float:
    """Mean squared error of the noise at evenly spread levels, as many pictures as come."""
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    noise = torch.randn(z.shape, generator=generator)
    t = torch.linspace(0, network.config.noise_levels - 1, len(z)).round().long()
    noised = network.schedule().add_noise(z, noise, t)

    for start in range(0, len(z), _BLOCK):
        rows = slice(start, start + _BLOCK)
        error = network(noised[rows], t[rows], vision[rows], text[rows], 0.4) - noise[rows]
        total += float(error.square().sum())

    return total / z.numel()


def _pooled(x: Tensor) -> Tensor:
    """Pooled CLIP vectors of unit length: the first of the tokens."""
    return torch.cat([picture_tokens(block)[:, 0] for block in x.split(_BLOCK)])
