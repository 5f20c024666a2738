"""MaskGIT: a bidirectional transformer that fills in a picture's codes, the surest first, from one latent.

Position 0 carries the latent, projected; the others a code or the mask. That is the whole conditioning: no
cross-attention and no guidance (Qian et al. 2024, "LEA"; Chang et al. 2022, "MaskGIT").
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.generate.maskgit_config import MaskGitConfig, SamplingConfig, unknown_counts
from phosphene.run.config import validate
from phosphene.train.attention import attend
from phosphene.train.checkpoint import ModulePart
from phosphene.train.sampling import Draws


class _Block(nn.Module):
    """Attention and perceptron, each added to its input and normalised afterwards."""

    def __init__(self, c: MaskGitConfig):
        super().__init__()
        self.heads, self.dropout, self.gelu = c.heads, c.dropout, c.gelu
        self.qkv, self.out = nn.Linear(c.width, 3 * c.width), nn.Linear(c.width, c.width)
        self.norm1, self.norm2 = nn.LayerNorm(c.width, c.eps), nn.LayerNorm(c.width, c.eps)
        self.up, self.down = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (n, heads, length, d)
        y = attend(q, k, v).transpose(1, 2).reshape(n, length, width)
        x = self.norm1(x + F.dropout(self.out(y), self.dropout, self.training))
        y = self.down(F.gelu(self.up(x), approximate=self.gelu))
        return self.norm2(x + F.dropout(y, self.dropout, self.training))


class MaskGit(nn.Module):
    """The transformer, its training loss and its sampler.

    Parameters
    ----------
    config : fields of :class:`MaskGitConfig`; LEA's by default. Weights are drawn from torch's global generator

    Raises
    ------
    ConfigError
        For fields that do not exist or do not fit.

    Notes
    -----
    The public network also drops attention weights in training; here they are kept, so that attention stays fused.

    Examples
    --------
    >>> network = MaskGit(**MaskGitConfig.lab().model_dump()).eval()
    >>> sum(w.numel() for w in network.parameters())
    1454721
    >>> network.sample(np.zeros((2, 64)), ["a", "b"], seed=0).shape  # five pictures of 8 x 8 codes each
    (2, 5, 8, 8)
    """

    def __init__(self, **config: Any):
        super().__init__()
        self.config = c = validate(MaskGitConfig, config, "the configuration of MaskGIT")
        self.tokens = nn.Embedding(c.mask + 1, c.width)
        self.positions = nn.Parameter(torch.empty(1 + c.n_tokens, c.width))
        self.latent = nn.Linear(c.latent, c.width)
        self.norm = nn.LayerNorm(c.width, c.eps)
        self.blocks = nn.ModuleList(_Block(c) for _ in range(c.depth))
        self.head, self.head_norm = nn.Linear(c.width, c.width), nn.LayerNorm(c.width, c.eps)
        self.bias = nn.Parameter(torch.zeros(c.mask + 1))
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, tokens: Tensor, latents: Tensor, where: Tensor | None = None) -> Tensor:
        """Logits of the codes.

        Parameters
        ----------
        tokens : (n, n_tokens) int64, codes, or ``config.mask`` where unknown
        latents : (n, latent) float
        where : (n, m) int64, positions that logits are wanted of; all by default

        Returns
        -------
        (n, m, codes)
        """
        x = torch.cat([self.latent(latents)[:, None], self.tokens(tokens)], 1) + self.positions
        x = F.dropout(self.norm(x), self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        x = x[:, 1:]
        if where is not None:
            x = x.gather(1, where[..., None].expand(-1, -1, x.shape[2]))
        x = self.head_norm(F.gelu(self.head(x), approximate=self.config.gelu))
        n = self.config.codes
        return F.linear(x, self.tokens.weight[:n], self.bias[:n])

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Cross-entropy of hidden codes, with label smoothing.

        A share r = max(cos(pi u / 2), min_masked), u uniform and one for the whole batch, of each picture's codes is
        hidden, at positions drawn for each picture.

        Parameters
        ----------
        batch : ``tokens`` (n, n_tokens) or (n, grid, grid) integers below ``codes``; ``latents`` (n, latent) float
        draws : noise of this step

        Returns
        -------
        scalar, and ``entropy`` (cross-entropy without smoothing, in nats), ``hit`` (share of hidden codes guessed
        right), ``masked`` (share hidden)
        """
        c, tokens = self.config, batch["tokens"].flatten(1).long()
        n_hidden = hidden_count(c, float(torch.rand((), generator=draws.generator)))
        where = draws.uniform(c.n_tokens).argsort(1)[:, :n_hidden]
        logits = self(tokens.scatter(1, where, c.mask), batch["latents"], where).float().flatten(0, 1)
        truth = tokens.gather(1, where).flatten()
        loss = F.cross_entropy(logits, truth, label_smoothing=c.smoothing)
        with torch.no_grad():
            logs = {
                "entropy": F.cross_entropy(logits, truth),
                "hit": (logits.argmax(1) == truth).float().mean(),
                "masked": n_hidden / c.n_tokens,
            }
        return loss, logs

    @torch.no_grad()
    def sample(
        self,
        latents: np.ndarray | Tensor,
        ids: Sequence[Any],
        *,
        seed: int,
        steps: int = 11,
        samples: int = 5,
        temperature: float = 4.5,
        batch_size: int = 20,
    ) -> np.ndarray:
        """Codes of pictures drawn from latents.

        Picture s of a stimulus is a function of the weights, its latent, `seed`, its id and s, not of which other stimuli
        are asked for, of their order, or of the number of samples. Only the rounding of the network's sums can depend
        on the place in a batch (never on one CPU thread, at a fixed `batch_size`).

        Parameters
        ----------
        latents : (n, latent)
        ids : n stimulus ids, unique or not; equal ids get equal noise
        seed : of all noise
        steps : passes through the network per picture
        samples : pictures per latent
        temperature : of the noise on confidences, at least 0 (:func:`unmask`)
        batch_size : pictures that go through the network at once; batches are filled up to it

        Returns
        -------
        (n, samples, grid, grid) int64, codes 0 .. codes - 1

        Raises
        ------
        DataError
            Latents of another width, not finite, or not one per id.
        ConfigError
            Steps, samples, temperature or batch size out of range.
        ModelError
            When the network itself gives NaN.
        """
        asked = {"steps": steps, "samples": samples, "temperature": temperature}
        validate(SamplingConfig, asked, "the sampling of MaskGIT")
        if batch_size < 1:
            raise ConfigError(f"batch_size is the number of pictures per pass, at least 1, but is {batch_size}.")
        c, where = self.config, self.bias.device
        x = torch.as_tensor(latents).to(where, torch.float32)
        if x.ndim != 2 or x.shape[1] != c.latent or len(x) != len(ids):
            raise DataError(
                f"{len(ids)} stimuli need latents of shape ({len(ids)}, {c.latent}), but they have {tuple(x.shape)}; use "
                "the latents this generator was trained on, one row per stimulus."
            )
        if not bool(torch.isfinite(x).all()):
            rows = (~torch.isfinite(x)).any(1).nonzero().flatten().tolist()
            raise DataError(
                f"latents of {len(rows)} stimuli hold NaN or infinite values, first that of '{ids[rows[0]]}'."
            )
        was_training = self.training
        self.eval()
        pairs = [(row, s) for row in range(len(x)) for s in range(samples)]
        out = np.empty((len(pairs), c.n_tokens), dtype=np.int64)
        for start in range(0, len(pairs), batch_size):
            part = pairs[start : start + batch_size]
            # A full batch every time: matrix products of another size would be summed in another order.
            filled = part + [part[-1]] * (batch_size - len(part))
            noise = np.stack([picture_noise(seed, ids[row], s, steps, c.n_tokens) for row, s in filled])
            condition = x[[row for row, _ in filled]]
            tokens = unmask(
                lambda tokens, at, z=condition: self(tokens, z, at),
                torch.from_numpy(noise).to(where),
                mask=c.mask,
                temperature=temperature,
            )
            out[start : start + len(part)] = tokens[: len(part)].cpu().numpy()
        self.train(was_training)
        return out.reshape(len(x), samples, c.grid, c.grid)


def hidden_count(config: MaskGitConfig, u: float) -> int:
    """Codes hidden in a training batch that drew `u`, 0-1: floor(N max(cos(pi u / 2), min_masked)), at least one.

    Examples
    --------
    >>> [hidden_count(MaskGitConfig(), u) for u in (0.0, 0.5, 0.9)]
    [256, 181, 128]
    """
    return max(1, math.floor(config.n_tokens * max(math.cos(math.pi * u / 2), config.min_masked)))


def picture_noise(seed: int, stimulus: Any, sample: int, steps: int, n_tokens: int) -> np.ndarray:
    """Noise of one picture, a function of its arguments: (steps, 2, n_tokens) float64, uniform in [0, 1).

    Row 0 of a step draws codes, row 1 perturbs confidences.
    """
    words = np.frombuffer(hashlib.sha256(str(stimulus).encode()).digest(), dtype="<u4")
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, sample, *words.tolist()])))
    return rng.random((steps, 2, n_tokens))


def unmask(logits: Callable[[Tensor, Tensor], Tensor], noise: Tensor, *, mask: int, temperature: float = 4.5) -> Tensor:
    """Draw all codes of pictures in a few steps; each step keeps the surest guesses and never revises them.

    At step t of T every unknown code s is drawn from its softmax p; those with the least

        log p(s) + temperature (1 - (t + 1) / T) g,    g ~ Gumbel(0, 1)

    become unknown again, as many as :func:`unknown_counts` says. The last step keeps all.

    Parameters
    ----------
    logits : (tokens (n, n_tokens), where (n, m)) to (n, m, codes): logits of the unknown positions `where`
    noise : (n, T, 2, n_tokens), uniform in [0, 1)
    mask : token of an unknown code
    temperature : of the noise on confidences

    Returns
    -------
    (n, n_tokens) int64

    Raises
    ------
    ModelError
        When logits are NaN.

    References
    ----------
    Chang et al. 2022, section 3.2; LEA's settings: T = 11, temperature 4.5.
    """
    n, steps, _, n_tokens = noise.shape
    counts = unknown_counts(n_tokens, steps)
    tokens = torch.full((n, n_tokens), mask, device=noise.device)
    unknown = torch.arange(n_tokens, device=noise.device).expand(n, -1)
    for step in range(steps):
        log_p = logits(tokens, unknown).double().log_softmax(-1)  # (n, m, codes)
        if bool(log_p.isnan().any()):
            raise ModelError(
                f"at step {step + 1} of {steps} logits are NaN: the network is broken. Load its weights again, or train again "
                "at a lower learning rate."
            )
        u, v = (noise[:, step, kind].gather(1, unknown) for kind in (0, 1))
        drawn = _draw(log_p, u)
        tokens = tokens.scatter(1, unknown, drawn)
        if step + 1 == steps:
            break
        gumbel = -torch.log(-torch.log(v))
        sure = log_p.gather(2, drawn[..., None])[..., 0] + temperature * (1 - (step + 1) / steps) * gumbel
        least = sure.argsort(dim=1, stable=True)[:, : counts[step + 1]]
        unknown = unknown.gather(1, least).sort(1).values
        tokens = tokens.scatter(1, unknown, mask)
    return tokens


def _draw(log_p: Tensor, u: Tensor) -> Tensor:
    """One code per position by inverting the distribution function: (n, m, codes), (n, m) to (n, m)."""
    cdf = log_p.exp().cumsum(-1)
    # The first code whose sum passes u: one of probability 0 never does. u < 1 keeps the last sum out of reach.
    target = (u[..., None] * cdf[..., -1:]).clamp(max=cdf[..., -1:] * (1 - 2**-52))
    return torch.searchsorted(cdf, target, right=True)[..., 0]


class MaskGitPart(ModulePart):
    """MaskGIT as a fitted part of a run."""

    module: MaskGit

    @classmethod
    def build(cls, config: dict[str, Any]) -> MaskGit:
        """An untrained network of these fields of :class:`MaskGitConfig`."""
        return MaskGit(**config)
