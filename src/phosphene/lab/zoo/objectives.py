"""What each network of the zoo is trained on: a module holding the network, with the loss the training loop asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.training import Draws, TrainConfig, gathered, info_nce
from phosphene.training.loop import adamw

if TYPE_CHECKING:
    from phosphene.lab.zoo.material import Scenes


class Objective(nn.Module):
    """A network and its loss. `config` is how it is trained unless told otherwise."""

    config: TrainConfig

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """What it learns from beside pictures and labels, a row per scene, made by other networks of the zoo."""
        return {}

    @classmethod
    def teachers(cls) -> str:
        """These other networks, by name and fingerprint."""
        return ""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Mean loss over the batch, and what to log."""
        raise NotImplementedError

    def optimizer(self, network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        """What its weights are moved by."""
        return adamw(network, config)


class ClipObjective(Objective):
    """Picture and one of its five captions, drawn anew each time, against all others of the batch.

    Four times of five the caption is one that is neither vague nor wrong, else any: captions of the web are worse.
    """

    config = TrainConfig(
        steps=4000,
        batch_size=192,
        lr=1.5e-3,
        warmup=150,
        weight_decay=0.05,
        adam_betas=(0.9, 0.98),
        clip_norm=1.0,
        ema=0.995,
    )

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Symmetric InfoNCE at a learned temperature, kept above 1/100 as CLIP does."""
        any_one = (draws.uniform() < 0.2)[:, None]
        chance = draws.uniform(batch["good"].shape[1]) * (batch["good"] | any_one)
        one = chance.argmax(1)
        tokens = batch["tokens"].gather(1, one[:, None, None].expand(-1, 1, batch["tokens"].shape[2]))[:, 0]
        end = self.network.config.text_config.eos_token_id
        seen = (tokens == end).int().cumsum(1) - (tokens == end).int() == 0  # up to and with the first end mark
        out = self.network(input_ids=tokens, attention_mask=seen.long(), pixel_values=batch["x"])
        scale = self.network.logit_scale.exp().clamp(max=100)

        return info_nce(out.image_embeds, out.text_embeds, scale), {"scale": scale}


def _picture_loss(y: Tensor, x: Tensor) -> Tensor:
    """Absolute error of pixels and of their differences to the right and below: edges count for themselves."""
    edges = sum((torch.diff(y, dim=d) - torch.diff(x, dim=d)).abs().mean() for d in (2, 3))
    return (y - x).abs().mean() + 0.5 * edges


class VqObjective(Objective):
    """Reconstruction through 256 codes, with three cures for collapse.

    For the first steps nothing is quantised; then k-means of the latents makes the codes; and for some hundred steps
    more a code that is hardly used is moved onto a latent of the batch.
    """

    config = TrainConfig(
        steps=6000, batch_size=32, lr=1e-3, warmup=100, weight_decay=0.01, clip_norm=1.0, ema=0.995, precision="bf16"
    )
    free_steps = 150
    restart_every = 20
    restart_until = 700

    def __init__(self, network: nn.Module):
        super().__init__(network)
        n = network.config.num_vq_embeddings
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("usage", torch.full((n,), 1.0 / n))

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Pixels and edges, plus the codebook's own loss."""
        x = batch["x"]
        calls = int(self.calls)
        self.calls += 1
        z = self.network.encode(x).latents

        if calls < self.free_steps:
            y = self.network.decode(z, force_not_quantize=True).sample
            # Latents the codes can reach: without this they grow at will before there are any codes.
            return _picture_loss(y.float(), x) + 0.01 * z.float().square().mean(), {"used": 0.0}

        with torch.autocast(x.device.type, enabled=False):
            self._mend(z.detach().float(), draws, calls)
            q, codebook, (_, _, codes) = self.network.quantize(z.float())

        counts = torch.bincount(gathered(codes.flatten()), minlength=len(self.usage)).float()
        self.usage.lerp_(counts / counts.sum(), 0.05)
        y = self.network.decode(q, force_not_quantize=True).sample

        return _picture_loss(y.float(), x) + codebook, {
            "used": float((self.usage * len(self.usage) > 0.03).sum()),
            "codebook": codebook,
        }

    @torch.no_grad()
    def _mend(self, z: Tensor, draws: Draws, calls: int) -> None:
        codes = self.network.quantize.embedding.weight
        if calls == self.free_steps:
            rows = gathered(z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]))
            codes.copy_(kmeans(rows, len(codes), draws.generator))
        elif calls % self.restart_every == 0 and calls < self.restart_until:
            dead = self.usage * len(codes) < 0.03
            if n_dead := int(dead.sum()):
                rows = gathered(z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]))
                # Latents that fit worst are where a code is missing; sampling by squared distance finds them.
                far = torch.cdist(rows, codes).amin(1).square()
                drawn = torch.multinomial(far.cpu() + 1e-12, n_dead, generator=draws.generator)
                codes[dead] = rows[drawn.to(rows.device)]
                self.usage[dead] = 1.0 / len(codes)


def kmeans(rows: Tensor, k: int, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """(k, d) centres of (n, d) rows: seeds drawn by squared distance, then Lloyd's iterations."""
    centres = rows[torch.randint(len(rows), (1,), generator=generator)]
    nearest = torch.cdist(rows, centres).square()[:, 0]

    while len(centres) < k:
        new = rows[torch.multinomial(nearest.cpu() + 1e-12, 1, generator=generator)]
        centres = torch.cat([centres, new])
        nearest = torch.minimum(nearest, torch.cdist(rows, new).square()[:, 0])

    for _ in range(iterations):
        owner = torch.cdist(rows, centres).argmin(1)
        counts = torch.bincount(owner, minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, owner, rows)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)

    return centres


class KlObjective(Objective):
    """Reconstruction through a latent kept near a standard normal."""

    config = TrainConfig(
        steps=6000, batch_size=32, lr=1e-3, warmup=100, weight_decay=0.01, clip_norm=1.0, ema=0.995, precision="bf16"
    )
    weight = 1e-4  # of the divergence per latent value, enough to keep latents of order 1

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Pixels and edges, plus the divergence of the latent from a standard normal."""
        x = batch["x"]
        latent = self.network.encode(x).latent_dist
        z = latent.mean + latent.std * draws.normal(*latent.mean.shape[1:])
        y = self.network.decode(z).sample
        divergence = latent.kl().float().mean() / latent.mean[0].numel()

        return _picture_loss(y.float(), x) + self.weight * divergence, {"divergence": divergence}


class MaeObjective(Objective):
    """Hidden patches from the visible quarter of them."""

    config = TrainConfig(
        steps=6000,
        batch_size=64,
        lr=1e-3,
        warmup=150,
        weight_decay=0.05,
        adam_betas=(0.9, 0.95),
        clip_norm=1.0,
        ema=0.995,
    )

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of hidden patches, the network's own loss; which are hidden is drawn."""
        noise = draws.uniform(self.network.vit.embeddings.patch_embeddings.num_patches)
        return self.network(batch["x"], noise=noise).loss, {}


class ClassifierObjective(Objective):
    """Main category, place, and every label."""

    config = TrainConfig(steps=3000, batch_size=96, lr=2e-3, warmup=100, weight_decay=0.05, clip_norm=1.0, ema=0.99)

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Cross-entropy of category and place, binary cross-entropy of labels summed over a few at a time."""
        out = self.network(_shifted(batch["x"], draws))
        category = F.cross_entropy(out["category"].float(), batch["category"])
        place = F.cross_entropy(out["place"].float(), batch["place"])
        labels = F.binary_cross_entropy_with_logits(out["labels"].float(), batch["labels"])
        hit = (out["category"].argmax(1) == batch["category"]).float().mean()

        return category + 0.3 * place + 5 * labels, {"category": category, "place": place, "labels": labels, "hit": hit}


def _shifted(x: Tensor, draws: Draws, by: int = 2) -> Tensor:
    """Each picture moved by up to `by` pixels, its edge repeated: small shifts do not change what is shown."""
    n, _, height, width = x.shape
    padded = F.pad(x, (by, by, by, by), mode="replicate")
    top, left = draws.integers(2 * by + 1, 2).unbind(1)
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = left[:, None] + torch.arange(width, device=x.device)

    return padded[torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )
