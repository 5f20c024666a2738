"""Generators of the lab that need other networks of the zoo to be trained: what they learn from, and what they are worth.

MaskGIT learns to draw the VQ codes of a scene from its CLIP latent. Both networks are taken from the zoo as they are,
so `vq` and `clip` have to be there first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.lab.zoo import fingerprint, load, names, to_network
from phosphene.lab.zoo.objectives import Objective
from phosphene.training import Draws, TrainConfig

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes


@lru_cache(maxsize=1)
def _teachers(device: str) -> tuple[nn.Module, nn.Module]:
    return load("clip", device=device), load("vq", device=device)


@torch.no_grad()
def latents_and_codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP latents of unit length (n, 64) and VQ codes (n, 64) int64 of pictures (n, 3, 32, 32), -1 to 1."""
    clip, vq = _teachers(str(x.device))
    with torch.autocast(x.device.type, enabled=False):
        latents = nn.functional.normalize(clip.get_image_features(x).pooler_output, dim=-1)
        codes = vq.quantize(vq.encode(x).latents)[2][2]

    return latents, codes.view(len(x), -1)


class MaskGitObjective(Objective):
    """VQ codes of a scene from its CLIP latent: the network's own loss."""

    config = TrainConfig(
        steps=8000, batch_size=64, lr=1e-3, warmup=300, weight_decay=0.05, adam_betas=(0.9, 0.95), clip_norm=1.0, ema=0.995,
        precision="bf16",
    )  # fmt: skip

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """CLIP latents and codes of every scene, computed once."""
        pairs = [latents_and_codes(to_network(scenes.pixels[i : i + 500])) for i in range(0, len(scenes), 500)]
        latents, codes = (torch.cat(column) for column in zip(*pairs, strict=True))
        return {"latents": latents, "tokens": codes.to(torch.int16)}

    @classmethod
    def teachers(cls) -> str:
        """Which networks it learned from."""
        return " ".join(f"{name} {fingerprint(name)[:16]}" for name in ("clip", "vq"))

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Cross-entropy of hidden codes."""
        return self.network.loss(batch, draws)


@torch.no_grad()
def maskgit(network: nn.Module, scenes: Scenes, count: int = 240) -> tuple[dict[str, float], np.ndarray, dict]:
    """Cross-entropy of codes, and one picture per latent: is it nearer to its own latent than to others', is it of the
    scene's category. Each beside the same of the tokenizer's reconstruction, which no sample can be expected to beat.
    """
    from phosphene.lab.zoo.scores import picture_grid

    _, vq = _teachers("cpu")
    count = min(count, len(scenes))
    blocks = [to_network(scenes.pixels[i : i + 250]) for i in range(0, len(scenes), 250)]
    pairs = [latents_and_codes(x) for x in blocks]
    latents, codes = (torch.cat(column) for column in zip(*pairs, strict=True))
    share = torch.bincount(codes.flatten(), minlength=network.config.codes).double() / codes.numel()
    scores = {"nats per code, all hidden": _entropy(network, codes, latents, 1.0)}
    scores["nats per code, all hidden, latent of another scene"] = _entropy(network, codes, latents.roll(1, 0), 1.0)
    scores["nats per code, half hidden"] = _entropy(network, codes, latents, 0.5)
    scores["nats per code, from their frequencies alone"] = float(-(share * share.clamp(min=1e-12).log()).sum())

    drawn = network.sample(latents[:count], range(count), seed=0, samples=1)[:, 0]
    truth = torch.cat(blocks)[:count]
    sampled, rebuilt = (_pictures(vq, torch.as_tensor(c).reshape(count, -1)) for c in (drawn, codes[:count]))

    for what, x in (("samples", sampled), ("reconstructions", rebuilt)):
        cosine = latents_and_codes(x)[0] @ latents[:count].T
        own = cosine.diagonal()[:, None]
        others = count * (count - 1)
        scores[f"CLIP cosine to the own latent, {what}"] = float(own.mean())
        scores[f"CLIP two-way identification, {what}"] = float((cosine < own).sum() / others)

        if "classifier" in names():
            hit = load("classifier").probabilities(x).argmax(1).numpy() == scenes.category[:count]
            scores[f"classifier names the category, {what}"] = float(hit.mean())

    scores["CLIP cosine of other scenes' latents"] = float(
        ((latents[:count] @ latents[:count].T).sum() - count) / (count * (count - 1))
    )

    scores["codes used by samples"] = float(len(np.unique(drawn)))
    shown = [(x.permute(0, 2, 3, 1).numpy() + 1) / 2 for x in (truth, rebuilt, sampled)]

    return scores, picture_grid(*shown), {}


def _entropy(network: nn.Module, codes: Tensor, latents: Tensor, share: float) -> float:
    n = codes.shape[1]
    where = torch.rand(codes.shape, generator=torch.Generator().manual_seed(0)).argsort(1)[:, : round(share * n)]
    hidden = codes.scatter(1, where, network.config.mask)
    total = 0.0

    for i in range(0, len(codes), 250):
        rows = slice(i, i + 250)
        logits = network(hidden[rows], latents[rows], where[rows])
        total += float(
            nn.functional.cross_entropy(
                logits.flatten(0, 1), codes[rows].gather(1, where[rows]).flatten(), reduction="sum"
            )
        )

    return total / where.numel()


def _pictures(vq: nn.Module, codes: Tensor) -> Tensor:
    side = int(codes.shape[1] ** 0.5)
    width = vq.config.vq_embed_dim
    out = []

    for c in codes.split(250):
        z = vq.quantize.get_codebook_entry(c.flatten(), (len(c), side, side, width))
        out.append(vq.decode(z, force_not_quantize=True).sample.clamp(-1, 1))

    return torch.cat(out)
