"""What each network of the zoo is trained on: a module holding the network, with the loss the training loop asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.training import Draws, TrainConfig, gathered, info_nce
from phosphene.training.loop import adamw

if TYPE_CHECKING:
    from phosphene.lab.zoo.classifier import SceneClassifier
    from phosphene.lab.zoo.material import Scenes

__all__ = [
    "ClassifierObjective",
    "ClipObjective",
    "KlObjective",
    "MaeObjective",
    "Objective",
    "VqObjective",
    "kmeans",
]

_HARDLY_USED = 0.03
"""Usage of a code, as a share of what each would have if all were used alike, below which it counts as dead."""


class Objective(nn.Module):
    """A network and its loss.

    Parameters
    ----------
    network : nn.Module
        What is trained.

    Attributes
    ----------
    config : TrainConfig
        How it is trained by default.
    network : nn.Module
        What is trained; each objective names the class it is for.
    """

    config: TrainConfig
    network: Any  # transformers and diffusers type their outputs as unions, on which no attribute is known

    @classmethod
    def lessons(cls, scenes: Scenes) -> dict[str, Tensor]:
        """What it learns from beside pictures and labels, made by other networks of the zoo.

        Parameters
        ----------
        scenes : Scenes
            To train on.

        Returns
        -------
        dict of {str: Tensor}
            A row for each scene; empty for a network that learns from the scenes alone.
        """
        return {}

    @classmethod
    def teachers(cls) -> str:
        """These other networks, by name and fingerprint; empty where there are none."""
        return ""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Mean loss over the batch.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``x`` (n, 3, 32, 32), -1 to 1, and rows of what `lessons` and the scenes give.
        draws : Draws
            Random numbers of this step.

        Returns
        -------
        loss : Tensor
            A number.
        log : dict of {str: Any}
            What to note in the curve.
        """
        raise NotImplementedError

    def optimizer(self, network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        """What its weights are moved by: AdamW, where an objective does not say otherwise.

        Parameters
        ----------
        network : nn.Module
            What is trained.
        config : TrainConfig
            Learning rate, weight decay and the like.
        """
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
        """Symmetric InfoNCE at a learned temperature, kept above 1/100 as CLIP does.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``x`` (n, 3, 32, 32), ``tokens`` (n, 5, length) and ``good`` (n, 5), of five captions each.
        draws : Draws
            Random numbers of this step.
        """
        # One caption for each picture: the largest draw among those that may be chosen.
        takes_any = (draws.uniform() < 0.2)[:, None]
        chance = draws.uniform(batch["good"].shape[1]) * (batch["good"] | takes_any)  # (n, 5)
        chosen = chance.argmax(1)[:, None, None].expand(-1, 1, batch["tokens"].shape[2])
        tokens = batch["tokens"].gather(1, chosen)[:, 0]  # (n, length)

        # A text is read up to and with its first end mark.
        is_end = (tokens == self.network.config.text_config.eos_token_id).int()
        is_read = is_end.cumsum(1) - is_end == 0
        output = self.network(input_ids=tokens, attention_mask=is_read.long(), pixel_values=batch["x"])
        scale = self.network.logit_scale.exp().clamp(max=100)

        return info_nce(output.image_embeds, output.text_embeds, scale), {"scale": scale}


def _picture_loss(y: Tensor, x: Tensor) -> Tensor:
    """Absolute error of pixels and of their differences to the right and below: edges count for themselves."""
    down = (torch.diff(y, dim=2) - torch.diff(x, dim=2)).abs().mean()
    right = (torch.diff(y, dim=3) - torch.diff(x, dim=3)).abs().mean()
    return (y - x).abs().mean() + 0.5 * (down + right)


class VqObjective(Objective):
    """Reconstruction through 256 codes, with three cures for collapse.

    For the first steps nothing is quantised; then k-means of the latents makes the codes; and for some hundred steps
    more a code that is hardly used is moved onto a latent of the batch.

    Parameters
    ----------
    network : VQModel
        Of diffusers.

    Attributes
    ----------
    calls : Tensor
        Steps so far; kept with the weights, so that a training that was stopped goes on in the same phase.
    usage : Tensor of shape (n_codes,)
        Running share of latents that fall to each code.
    """

    config = TrainConfig(
        steps=6000, batch_size=32, lr=1e-3, warmup=100, weight_decay=0.01, clip_norm=1.0, ema=0.995, precision="bf16"
    )
    calls: Tensor
    usage: Tensor
    free_steps = 150
    restart_every = 20
    restart_until = 700

    def __init__(self, network: Any):
        super().__init__(network)
        n = network.config.num_vq_embeddings
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("usage", torch.full((n,), 1.0 / n))

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Pixels and edges, plus the codebook's own loss.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``x`` (n, 3, 32, 32), -1 to 1.
        draws : Draws
            Random numbers of this step.
        """
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
            quantised, codebook_loss, (_, _, codes) = self.network.quantize(z.float())

        counts = torch.bincount(gathered(codes.flatten()), minlength=len(self.usage)).float()
        self.usage.lerp_(counts / counts.sum(), 0.05)
        y = self.network.decode(quantised, force_not_quantize=True).sample
        n_used = (self.usage * len(self.usage) > _HARDLY_USED).sum()

        return _picture_loss(y.float(), x) + codebook_loss, {"used": float(n_used), "codebook": codebook_loss}

    @torch.no_grad()
    def _mend(self, z: Tensor, draws: Draws, calls: int) -> None:
        """Make the codes when their time has come, and later move those that are hardly used."""
        codes = self.network.quantize.embedding.weight  # (n_codes, d)
        if calls == self.free_steps:
            codes.copy_(kmeans(_rows(z), len(codes), draws.generator))
            return

        if calls % self.restart_every != 0 or calls >= self.restart_until:
            return

        is_dead = self.usage * len(codes) < _HARDLY_USED
        n_dead = int(is_dead.sum())

        if n_dead:
            rows = _rows(z)
            # Latents that fit worst are where a code is missing; sampling by squared distance finds them.
            misfit = torch.cdist(rows, codes).amin(1).square()
            drawn = torch.multinomial(misfit.cpu() + 1e-12, n_dead, generator=draws.generator)
            codes[is_dead] = rows[drawn.to(rows.device)]
            self.usage[is_dead] = 1.0 / len(codes)


def _rows(z: Tensor) -> Tensor:
    """Latents (n, d, h, w) of all processes as rows (n * h * w, d)."""
    return gathered(z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]))


def kmeans(rows: Tensor, k: int, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """Centres of clusters: seeds drawn by squared distance (k-means++), then Lloyd's iterations.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
        Points.
    k : int
        Clusters.
    generator : torch.Generator
        Draws the seeds, on the CPU.
    iterations : int, default 20
        Of Lloyd's algorithm.

    Returns
    -------
    Tensor of shape (k, d)
        A centre that nothing is nearest to stays where it was.
    """
    centres = rows[torch.randint(len(rows), (1,), generator=generator)]
    nearest = torch.cdist(rows, centres).square()[:, 0]  # (n,)

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
        """Pixels and edges, plus the divergence of the latent from a standard normal.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``x`` (n, 3, 32, 32), -1 to 1.
        draws : Draws
            Random numbers of this step.
        """
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
        """Squared error of hidden patches, the network's own loss; which are hidden is drawn.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``x`` (n, 3, 32, 32), -1 to 1.
        draws : Draws
            Random numbers of this step.
        """
        noise = draws.uniform(self.network.vit.embeddings.patch_embeddings.num_patches)
        return self.network(batch["x"], noise=noise).loss, {}


class ClassifierObjective(Objective):
    """Main category, place, and every label."""

    network: SceneClassifier

    config = TrainConfig(steps=3000, batch_size=96, lr=2e-3, warmup=100, weight_decay=0.05, clip_norm=1.0, ema=0.99)

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Cross-entropy of category and place, binary cross-entropy of labels summed over a few at a time.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``x`` (n, 3, 32, 32), ``category`` and ``place`` (n,), ``labels`` (n, 26).
        draws : Draws
            Random numbers of this step.
        """
        logits = self.network(_shifted(batch["x"], draws))
        category = F.cross_entropy(logits["category"].float(), batch["category"])
        place = F.cross_entropy(logits["place"].float(), batch["place"])
        labels = F.binary_cross_entropy_with_logits(logits["labels"].float(), batch["labels"])
        hit = (logits["category"].argmax(1) == batch["category"]).float().mean()

        # Labels are a mean over 26, most of them absent: alone they would hardly count.
        loss = category + 0.3 * place + 5 * labels
        return loss, {"category": category, "place": place, "labels": labels, "hit": hit}


def _shifted(x: Tensor, draws: Draws, by: int = 2) -> Tensor:
    """Each picture moved by up to `by` pixels, its edge repeated: small shifts do not change what is shown."""
    n, _, height, width = x.shape
    padded = F.pad(x, (by, by, by, by), mode="replicate")
    top, left = draws.integers(2 * by + 1, 2).unbind(1)
    rows = top[:, None] + torch.arange(height, device=x.device)  # (n, height)
    columns = left[:, None] + torch.arange(width, device=x.device)  # (n, width)
    which = torch.arange(n, device=x.device)[:, None, None]
    moved = padded[which, :, rows[:, :, None], columns[:, None, :]]  # (n, height, width, 3)

    return moved.permute(0, 3, 1, 2)
