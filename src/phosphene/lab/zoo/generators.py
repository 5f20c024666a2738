"""The lab's MaskGIT: what it is trained on, and what it is worth.

It learns to draw the VQ codes of a scene from its CLIP latent. Both networks are taken from the zoo as they are, so `vq` and
`clip` have to be there first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.lab.zoo import fingerprint, load, names, to_network
from phosphene.lab.zoo.objectives import Objective
from phosphene.lab.zoo.scores import Scores, block_slices, picture_grid
from phosphene.training import Draws, TrainConfig

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes
    from phosphene.models.maskgit import MaskGit

__all__ = ["MaskGitObjective", "latents_and_codes", "maskgit"]

_BLOCK = 250


@lru_cache(maxsize=1)
def _teachers(device: str) -> tuple[Any, Any]:
    return load("clip", device=device), load("vq", device=device)


@torch.no_grad()
def latents_and_codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP latents of unit length (n, 64) and VQ codes (n, 64) int64 of pictures (n, 3, 32, 32), -1 to 1."""
    clip, vq = _teachers(str(x.device))
    with torch.autocast(x.device.type, enabled=False):
        latents = nn.functional.normalize(clip.get_image_features(x).pooler_output, dim=-1)
        _, _, (_, _, codes) = vq.quantize(vq.encode(x).latents)

    return latents, codes.view(len(x), -1)


def _of_blocks(blocks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Latents and codes of all pictures, given in blocks."""
    latents = []
    codes = []
    for x in blocks:
        block_latents, block_codes = latents_and_codes(x)
        latents.append(block_latents)
        codes.append(block_codes)

    return torch.cat(latents), torch.cat(codes)


class MaskGitObjective(Objective):
    """VQ codes of a scene from its CLIP latent: the network's own loss.

    Parameters
    ----------
    network : MaskGit
        What is trained.
    """

    network: MaskGit

    config = TrainConfig(
        steps=8000, batch_size=64, lr=1e-3, warmup=300, weight_decay=0.05, adam_betas=(0.9, 0.95), clip_norm=1.0, ema=0.995,
        precision="bf16",
    )  # fmt: skip

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """CLIP latents and codes of every scene, computed once."""
        blocks = [to_network(scenes.pixels[start : start + 500]) for start in range(0, len(scenes), 500)]
        latents, codes = _of_blocks(blocks)
        return {"latents": latents, "tokens": codes.to(torch.int16)}

    @classmethod
    def teachers(cls) -> str:
        """Which networks it learned from."""
        return " ".join(f"{name} {fingerprint(name)[:16]}" for name in ("clip", "vq"))

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Cross-entropy of hidden codes.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``latents`` and ``tokens`` of what `lessons` gives.
        draws : Draws
            Random numbers of this step.
        """
        return self.network.loss(batch, draws)


@torch.no_grad()
def maskgit(network: MaskGit, scenes: Scenes, count: int = 240) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score the prediction of hidden codes, and one picture per latent.

    A picture should be nearer to its own latent than to others', and of the scene's category. Each score stands beside that of
    the tokenizer's reconstruction, which no sample can be expected to beat.

    Parameters
    ----------
    network : MaskGit
        Trained.
    scenes : Scenes
        It was not trained on.
    count : int, default 240
        How many pictures are drawn.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        Scenes, their reconstructions, and the pictures drawn.
    more : dict
        Empty.
    """
    _, vq = _teachers("cpu")
    blocks = [to_network(scenes.pixels[rows]) for rows in block_slices(scenes)]
    latents, codes = _of_blocks(blocks)

    scores: Scores = {"nats per code, all hidden": _entropy(network, codes, latents, 1.0)}
    scores["nats per code, all hidden, latent of another scene"] = _entropy(network, codes, latents.roll(1, 0), 1.0)
    scores["nats per code, half hidden"] = _entropy(network, codes, latents, 0.5)
    frequency = torch.bincount(codes.flatten(), minlength=network.config.codes).double() / codes.numel()
    scores["nats per code, from their frequencies alone"] = float(-(frequency * frequency.clamp(min=1e-12).log()).sum())

    count = min(count, len(scenes))
    n_pairs = count * (count - 1)
    own_latents = latents[:count]
    drawn = network.sample(own_latents, range(count), seed=0, samples=1)[:, 0]
    truth = torch.cat(blocks)[:count]
    sampled = _pictures(vq, torch.as_tensor(drawn).reshape(count, -1))
    rebuilt = _pictures(vq, codes[:count].reshape(count, -1))

    for what, x in (("samples", sampled), ("reconstructions", rebuilt)):
        cosine = latents_and_codes(x)[0] @ own_latents.T  # (count, count)
        own = cosine.diagonal()[:, None]
        scores[f"CLIP cosine to the own latent, {what}"] = float(own.mean())
        scores[f"CLIP two-way identification, {what}"] = float((cosine < own).sum() / n_pairs)

        if "classifier" in names():
            classifier: Any = load("classifier")
            is_right = classifier.probabilities(x).argmax(1).numpy() == scenes.category[:count]
            scores[f"classifier names the category, {what}"] = float(is_right.mean())

    similarity = own_latents @ own_latents.T  # (count, count), with ones on the diagonal
    scores["CLIP cosine of other scenes' latents"] = float((similarity.sum() - count) / n_pairs)
    scores["codes used by samples"] = float(len(np.unique(drawn)))
    rows = [(x.permute(0, 2, 3, 1).numpy() + 1) / 2 for x in (truth, rebuilt, sampled)]

    return scores, picture_grid(*rows), {}


def _entropy(network: MaskGit, codes: Tensor, latents: Tensor, share: float) -> float:
    """Mean cross-entropy, in nats, of a share of the codes of each picture, hidden at random."""
    n_codes = codes.shape[1]
    order = torch.rand(codes.shape, generator=torch.Generator().manual_seed(0)).argsort(1)
    where = order[:, : round(share * n_codes)]  # (n, n_hidden)
    hidden = codes.scatter(1, where, network.config.mask)

    total = 0.0
    for start in range(0, len(codes), _BLOCK):
        rows = slice(start, start + _BLOCK)
        logits = network(hidden[rows], latents[rows], where[rows])  # (n, n_hidden, codes)
        true = codes[rows].gather(1, where[rows])
        total += float(nn.functional.cross_entropy(logits.flatten(0, 1), true.flatten(), reduction="sum"))

    return total / where.numel()


def _pictures(vq: Any, codes: Tensor) -> Tensor:
    """Pictures (n, 3, 32, 32), -1 to 1, of codes (n, 64)."""
    side = int(codes.shape[1] ** 0.5)
    width = vq.config.vq_embed_dim

    pictures = []
    for block in codes.split(_BLOCK):
        z = vq.quantize.get_codebook_entry(block.flatten(), (len(block), side, side, width))
        pictures.append(vq.decode(z, force_not_quantize=True).sample.clamp(-1, 1))
    return torch.cat(pictures)
