"""MaskGIT: pictures from one latent, by a transformer that fills in their codes, the surest first.

::

    latent (n, 1024) -> Linear -> position 0   |
    codes (n, 256), unknown ones masked        -> transformer, 24 blocks -> logits (n, 256, 1024)
    11 passes: draw every unknown code, keep the surest, mask the rest    -> codes (n, 16, 16)
    codes -> the tokenizer's decoder                                      -> pictures (n, 256, 256, 3)

Position 0 carries the latent, projected; the others a code or the mask. That is the whole conditioning: no
cross-attention and no guidance (Qian et al. 2024, "LEA", section 3.3; Chang et al. 2022, "MaskGIT", section 3).

In this file: the configuration; the network with its training loss and its sampler, :class:`MaskGit`; the fitted parts of
a run, :class:`MaskGitPart` and, with the tokenizer of :mod:`phosphene.models.vq`, :class:`MaskGitPipeline`; and the
converters of public weights. A converter takes all tensors of a public file and refuses missing ones, extra ones, and
ones of another shape; nothing is loaded in part. :func:`phosphene.io.flax_file.read_flax` reads the Flax files.

=====================  =============================================================  =========================
converter              public file                                                    for
=====================  =============================================================  =========================
`flax_transformer`     ``maskgit_imagenet256_checkpoint`` of MaskGIT (Flax)           :class:`MaskGit`
`flax_tokenizer`       ``tokenizer_imagenet256_checkpoint`` of MaskGIT (Flax)         `phosphene.models.vq.Vqgan`
`torch_tokenizer`      ``maskgit-vqgan-imagenet-f16-256.bin`` of TiTok (PyTorch)      the same tokenizer
=====================  =============================================================  =========================
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import Config, validate
from phosphene.io.flax_file import read_flax
from phosphene.io.foreign import must_fit, read_foreign
from phosphene.models import bundled
from phosphene.models.batch_invariance import full_batches, picture_rng
from phosphene.models.ldm import random_crops
from phosphene.models.vq import Tokenizer, Vqgan, VqganConfig
from phosphene.training.attention import attend
from phosphene.training.checkpoint import ModulePart, load_module_state
from phosphene.training.sampling import Draws
from phosphene.types import digest_of

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel

    from phosphene.training import TrainConfig

__all__ = ["MaskGit", "MaskGitConfig", "MaskGitPart", "MaskGitPipeline", "MaskGitSampling"]


# -- configuration -----------------------------------------------------------------------------------------------------


class MaskGitConfig(Config):
    """A transformer over the codes of a square grid, conditioned on one latent. The defaults are LEA's.

    Examples
    --------
    >>> MaskGitConfig().n_tokens, MaskGitConfig().mask, MaskGitConfig.lab().n_tokens
    (256, 2024, 64)
    """

    codes: int = Field(default=1024, ge=2, description="entries of the tokenizer's codebook")
    unused: int = Field(
        default=1000, ge=0, description="embeddings between codes and mask: the classes of the public network"
    )
    grid: int = Field(default=16, ge=1, description="codes along each side of a picture")
    latent: int = Field(default=1024, ge=1, description="values of the latent a picture is drawn from")
    width: int = Field(default=768, ge=1, description="values per token")
    depth: int = Field(default=24, ge=1, description="transformer blocks")
    heads: int = Field(default=16, ge=1, description="attention heads, a divisor of width")
    hidden: int = Field(default=3072, ge=1, description="width inside a block's perceptron")
    dropout: float = Field(
        default=0.01, ge=0, lt=1, description="of embeddings and of each block's two branches, in training"
    )
    eps: float = Field(default=1e-12, gt=0, description="of layer norms; the public weights were trained with 1e-12")
    gelu: Literal["tanh", "none"] = Field(default="tanh", description="approximation of GELU; the public weights: tanh")
    min_masked: float = Field(default=0.5, gt=0, le=1, description="least share of tokens hidden in training")
    smoothing: float = Field(default=0.1, ge=0, lt=1, description="label smoothing in training")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")

        return self

    @property
    def n_tokens(self) -> int:
        """Codes per picture."""
        return self.grid**2

    @property
    def mask(self) -> int:
        """The token that stands for an unknown code."""
        return self.codes + self.unused

    @classmethod
    def paper(cls) -> Self:
        """LEA: 16 x 16 codes of 1024, 1024 values of CLIP ViT-H/14; 173,244,393 weights."""
        return cls()

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab: 8 x 8 codes of 256, 64 values of the lab's CLIP; 1,454,721 weights."""
        return cls(codes=256, unused=0, grid=8, latent=64, width=128, depth=7, heads=4, hidden=512)


class MaskGitSampling(Config):
    """How pictures are drawn. The defaults are LEA's."""

    steps: int = Field(default=11, ge=1, description="passes through the transformer")
    samples: int = Field(default=5, ge=1, description="pictures per latent")
    temperature: float = Field(
        default=4.5, ge=0, description="of the noise on confidences at the first step; it falls linearly"
    )


# MaskGIT and its tokenizer as LEA's authors ported them to PyTorch: other epsilons of norms, another GELU.
PORTED: dict[str, Any] = {"eps": 1e-5, "gelu": "none"}
PORTED_TOKENIZER: dict[str, Any] = {"eps": 1e-5}


# -- the network -------------------------------------------------------------------------------------------------------


class _PostNormBlock(nn.Module):
    """Attention and perceptron, each added to its input and normalised afterwards."""

    def __init__(self, c: MaskGitConfig):
        super().__init__()
        self.heads = c.heads
        self.dropout = c.dropout
        self.gelu = c.gelu
        self.qkv = nn.Linear(c.width, 3 * c.width)
        self.out = nn.Linear(c.width, c.width)
        self.norm1 = nn.LayerNorm(c.width, c.eps)
        self.norm2 = nn.LayerNorm(c.width, c.eps)
        self.up = nn.Linear(c.width, c.hidden)
        self.down = nn.Linear(c.hidden, c.width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (n, heads, length, d)
        y = attend(q, k, v).transpose(1, 2).reshape(n, length, width)
        x = self.norm1(x + F.dropout(self.out(y), self.dropout, self.training))  # (n, length, width)

        y = self.down(F.gelu(self.up(x), approximate=self.gelu))  # (n, length, width)

        return self.norm2(x + F.dropout(y, self.dropout, self.training))


class MaskGit(nn.Module):
    """The transformer, its training loss and its sampler.

    Parameters
    ----------
    **config : Any
        fields of :class:`MaskGitConfig`; LEA's by default. Weights are drawn from torch's global generator

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
        self.blocks = nn.ModuleList(_PostNormBlock(c) for _ in range(c.depth))
        self.head = nn.Linear(c.width, c.width)
        self.head_norm = nn.LayerNorm(c.width, c.eps)
        self.bias = nn.Parameter(torch.zeros(c.mask + 1))

        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, tokens: Tensor, latents: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits of the codes.

        Parameters
        ----------
        tokens : Tensor of shape (n, n_tokens)
            int64, codes, or ``config.mask`` where unknown
        latents : Tensor of shape (n, latent), float
            what the pictures show
        positions : Tensor of shape (n, m), optional
            int64, of the codes that logits are computed for; all by default

        Returns
        -------
        Tensor of shape (n, m, codes)
            before the softmax
        """
        c = self.config
        x = torch.cat([self.latent(latents)[:, None], self.tokens(tokens)], 1)  # (n, 1 + n_tokens, width)
        x = F.dropout(self.norm(x + self.positions), c.dropout, self.training)

        for block in self.blocks:
            x = block(x)

        x = x[:, 1:]  # position 0 is the latent's, not a code's
        if positions is not None:
            x = x.gather(1, positions[..., None].expand(-1, -1, x.shape[2]))  # (n, m, width)

        x = self.head_norm(F.gelu(self.head(x), approximate=c.gelu))

        # The embeddings serve as the last layer, too; classes and mask are never drawn.
        return F.linear(x, self.tokens.weight[: c.codes], self.bias[: c.codes])  # (n, m, codes)

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Cross-entropy of hidden codes, with label smoothing (Chang et al. 2022, eq. 1).

        A share r = max(cos(pi u / 2), min_masked), u uniform and one for the whole batch, of each picture's codes is
        hidden, at positions drawn for each picture.

        Parameters
        ----------
        batch : dict[str, Tensor]
            ``tokens`` (n, n_tokens) or (n, grid, grid) integers below ``codes``; ``latents`` (n, latent) float
        draws : Draws
            noise of this step

        Returns
        -------
        tuple[Tensor, dict[str, Any]]
            scalar, and ``entropy`` (cross-entropy without smoothing, in nats), ``hit`` (share of hidden codes guessed
            right), ``masked`` (share hidden)
        """
        c = self.config
        tokens = batch["tokens"].flatten(1).long()  # (n, n_tokens)
        u = float(torch.rand((), generator=draws.generator))
        n_hidden = hidden_count(c, u)
        hidden = draws.uniform(c.n_tokens).argsort(1)[:, :n_hidden]  # (n, n_hidden) positions

        masked = tokens.scatter(1, hidden, c.mask)
        logits = self(masked, batch["latents"], hidden).float().flatten(0, 1)  # (n x n_hidden, codes)
        truth = tokens.gather(1, hidden).flatten()  # (n x n_hidden,)
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
        latents : ndarray or Tensor of shape (n, latent)
            what the pictures show
        ids : sequence
            n stimulus ids, unique or not; equal ids get equal noise
        seed : int
            of all noise
        steps : int, default 11
            passes through the network per picture
        samples : int, default 5
            pictures per latent
        temperature : float, default 4.5
            of the noise on confidences, at least 0 (:func:`unmask`)
        batch_size : int, default 20
            pictures that go through the network at once; batches are filled up to it

        Returns
        -------
        ndarray of shape (n, samples, grid, grid), int64
            codes 0 .. codes - 1

        Raises
        ------
        DataError
            Latents of another width, not finite, or not one per id.
        ConfigError
            Steps, samples, temperature or batch size out of range.
        ModelError
            When the network itself gives NaN.
        """
        options = {"steps": steps, "samples": samples, "temperature": temperature}
        validate(MaskGitSampling, options, "the sampling of MaskGIT")
        if batch_size < 1:
            raise ConfigError(f"batch_size is the number of pictures per pass, at least 1, but is {batch_size}.")

        c = self.config
        device = self.bias.device
        x = torch.as_tensor(latents).to(device, torch.float32)  # (n, latent)
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

        codes = np.empty((len(x) * samples, c.n_tokens), dtype=np.int64)
        was_training = self.training
        self.eval()

        for part, filled in full_batches(len(codes), batch_size):
            # Picture number i is sample i % samples of latent i // samples.
            rows = [i // samples for i in filled]
            noise = []
            for i, row in zip(filled, rows, strict=True):
                noise.append(picture_noise(seed, ids[row], i % samples, steps, c.n_tokens))

            def logits(tokens: Tensor, positions: Tensor, condition: Tensor = x[rows]) -> Tensor:
                return self(tokens, condition, positions)

            u = torch.from_numpy(np.stack(noise)).to(device)  # (batch_size, steps, 2, n_tokens)
            tokens = unmask(logits, u, mask=c.mask, temperature=temperature)
            codes[part] = tokens[: part.stop - part.start].cpu().numpy()

        self.train(was_training)
        return codes.reshape(len(x), samples, c.grid, c.grid)


def hidden_count(config: MaskGitConfig, u: float) -> int:
    """Codes hidden in a training batch: floor(N max(cos(pi u / 2), min_masked)), at least one.

    Parameters
    ----------
    config : MaskGitConfig
        with N and min_masked
    u : float
        what the batch drew, 0-1

    Returns
    -------
    int
        of the N codes of each picture

    Examples
    --------
    >>> [hidden_count(MaskGitConfig(), u) for u in (0.0, 0.5, 0.9)]
    [256, 181, 128]
    """
    share = max(math.cos(math.pi * u / 2), config.min_masked)
    return max(1, math.floor(config.n_tokens * share))


# -- the sampler -------------------------------------------------------------------------------------------------------


def unknown_counts(n_tokens: int, steps: int) -> list[int]:
    """How many codes are still unknown as each step begins: the cosine schedule.

        u_0 = N,    u_t = floor(N cos(pi t / 2T)), but at least 1 and less than u_(t-1) where that allows

    Parameters
    ----------
    n_tokens : int
        N, codes per picture
    steps : int
        T; after the last step nothing is unknown

    Returns
    -------
    list of int
        `steps` counts

    References
    ----------
    Chang et al. 2022, section 3.2; Qian et al. 2024 (LEA).

    Examples
    --------
    >>> unknown_counts(256, 11)
    [256, 253, 245, 232, 215, 193, 167, 138, 106, 72, 36]
    """
    counts = [n_tokens]
    for step in range(1, steps):
        scheduled = math.floor(n_tokens * math.cos(math.pi * step / (2 * steps)))
        counts.append(max(1, min(counts[-1] - 1, scheduled)))

    return counts


def unmask(logits: Callable[[Tensor, Tensor], Tensor], noise: Tensor, *, mask: int, temperature: float = 4.5) -> Tensor:
    """Draw all codes of pictures in a few steps; each step keeps the surest guesses and never revises them.

    At step t of T every unknown code s is drawn from its softmax p; those with the least

        log p(s) + temperature (1 - (t + 1) / T) g,    g ~ Gumbel(0, 1)

    become unknown again, as many as :func:`unknown_counts` says. The last step keeps all.

    Parameters
    ----------
    logits : callable
        (tokens (n, n_tokens), positions (n, m)) to (n, m, codes): logits of the codes at these positions
    noise : Tensor of shape (n, T, 2, n_tokens)
        uniform in [0, 1)
    mask : int
        token of an unknown code
    temperature : float, default 4.5
        of the noise on confidences

    Returns
    -------
    Tensor of shape (n, n_tokens), int64
        no mask is left

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

        u = noise[:, step, 0].gather(1, unknown)  # (n, m)
        drawn = _draw(log_p, u)  # (n, m)
        tokens = tokens.scatter(1, unknown, drawn)

        if step + 1 == steps:
            break

        v = noise[:, step, 1].gather(1, unknown)
        gumbel = -torch.log(-torch.log(v))
        confidence = log_p.gather(2, drawn[..., None])[..., 0] + temperature * (1 - (step + 1) / steps) * gumbel

        # The least sure become unknown again; in order of place, so that logits keep theirs.
        least = confidence.argsort(dim=1, stable=True)[:, : counts[step + 1]]
        unknown = unknown.gather(1, least).sort(1).values
        tokens = tokens.scatter(1, unknown, mask)

    return tokens


def _draw(log_p: Tensor, u: Tensor) -> Tensor:
    """One code per position by inverting the distribution function: (n, m, codes), (n, m) to (n, m)."""
    cdf = log_p.exp().cumsum(-1)  # (n, m, codes)

    # The first code whose sum passes u: one of probability 0 never does. u < 1 keeps the last sum out of reach.
    target = (u[..., None] * cdf[..., -1:]).clamp(max=cdf[..., -1:] * (1 - 2**-52))
    return torch.searchsorted(cdf, target, right=True)[..., 0]


def picture_noise(seed: int, stimulus: Any, sample: int, steps: int, n_tokens: int) -> np.ndarray:
    """Noise of one picture, a function of its arguments.

    Parameters
    ----------
    seed : int
        of all noise
    stimulus : Any
        id of the picture
    sample : int
        which of its samples, from 0
    steps : int
        passes through the network
    n_tokens : int
        codes per picture

    Returns
    -------
    ndarray of shape (steps, 2, n_tokens), float64
        uniform in [0, 1); row 0 of a step draws codes, row 1 perturbs confidences
    """
    return picture_rng(seed, stimulus, sample).random((steps, 2, n_tokens))


# -- the fitted parts --------------------------------------------------------------------------------------------------


class MaskGitPart(ModulePart):
    """MaskGIT as a fitted part of a run.

    Parameters
    ----------
    module : MaskGit
        the network
    config : mapping[str, Any]
        fields of :class:`MaskGitConfig`
    """

    module: MaskGit

    @classmethod
    def build(cls, config: dict[str, Any]) -> MaskGit:
        """An untrained network.

        Parameters
        ----------
        config : dict[str, Any]
            fields of :class:`MaskGitConfig`

        Returns
        -------
        MaskGit
            weights are drawn from torch's global generator
        """
        return MaskGit(**config)


class MaskGitPipeline(ModulePart):
    """MaskGIT and the tokenizer whose codes it draws, as a fitted part of a run.

    Parameters
    ----------
    module : nn.ModuleDict
        ``maskgit`` and ``tokenizer``
    config : mapping[str, Any]
        ``{"maskgit": fields of MaskGitConfig, "tokenizer": [class, fields]}``
    """

    module: nn.ModuleDict

    @classmethod
    def of(cls, maskgit: MaskGit, tokenizer: VQModel | Vqgan) -> Self:
        """The part that holds two networks.

        Parameters
        ----------
        maskgit : MaskGit
            what draws codes
        tokenizer : VQModel or Vqgan
            what makes pictures of codes

        Returns
        -------
        MaskGitPipeline
            both in evaluation mode
        """
        if isinstance(tokenizer, Vqgan):
            kind = "vqgan"
            fields = tokenizer.config.model_dump(mode="json")
        else:
            kind = "vq"
            fields = _plain(tokenizer.config)

        config = {"maskgit": maskgit.config.model_dump(mode="json"), "tokenizer": [kind, fields]}
        return cls(nn.ModuleDict({"maskgit": maskgit, "tokenizer": tokenizer}).eval(), config)

    @classmethod
    def bundled(cls) -> Self:
        """The bundled networks. Raises NotAvailable where they are not installed."""
        maskgit = cast(MaskGit, bundled.load("maskgit"))
        tokenizer = cast("VQModel", bundled.load("vq"))

        return cls.of(maskgit, tokenizer)

    @classmethod
    def from_public(cls, transformer: str | Path, tokenizer: str | Path, seed: int, *, ported: bool = False) -> Self:
        """The public ImageNet-256 networks; the layer that takes the latent is drawn anew and has to be trained.

        Parameters
        ----------
        transformer : str or Path
            Flax checkpoint ``maskgit_imagenet256_checkpoint``
        tokenizer : str or Path
            Flax checkpoint ``tokenizer_imagenet256_checkpoint``, or the same network as PyTorch's
            ``maskgit-vqgan-imagenet-f16-256.bin``
        seed : int
            of what is drawn
        ported : bool, default False
            epsilons and GELU of LEA's PyTorch port, not those the public weights were trained with

        Returns
        -------
        MaskGitPipeline
            ready to be trained on

        Raises
        ------
        ModelError
            Missing or damaged files, or weights that do not fit.
        """
        if ported:
            changes = PORTED
            tokenizer_changes = PORTED_TOKENIZER
        else:
            changes = {}
            tokenizer_changes = {}

        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            maskgit = MaskGit(**changes)
            vqgan = Vqgan(**tokenizer_changes)

        start_from_public(maskgit, read_flax(transformer))
        if Path(tokenizer).suffix in (".bin", ".pt", ".pth"):
            weights = torch_tokenizer(read_foreign(tokenizer), vqgan.config)
        else:
            weights = flax_tokenizer(read_flax(tokenizer), vqgan.config)

        load_module_state(vqgan, weights, "the public tokenizer")
        return cls.of(maskgit, vqgan)

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.Module:
        """Untrained networks of this configuration.

        Parameters
        ----------
        config : dict[str, Any]
            as for the class

        Returns
        -------
        nn.ModuleDict
            in evaluation mode
        """
        from diffusers.models.autoencoders.vq_model import VQModel

        kind, fields = config["tokenizer"]
        if kind == "vqgan":
            tokenizer = Vqgan(**fields)
        else:
            tokenizer = VQModel(**fields)

        return nn.ModuleDict({"maskgit": MaskGit(**config["maskgit"]), "tokenizer": tokenizer}).eval()

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        kind, fields = self.config["tokenizer"]
        if kind == "vqgan":
            levels = len(fields["multipliers"])
        else:
            levels = len(fields["block_out_channels"])

        return self.maskgit.config.grid * 2 ** (levels - 1)

    @property
    def maskgit(self) -> MaskGit:
        """What draws codes."""
        return cast(MaskGit, self.module["maskgit"])  # a ModuleDict forgets the classes of its modules

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, ready for pictures."""
        return Tokenizer(cast("VQModel | Vqgan", self.module["tokenizer"]))

    def learn(
        self,
        pixels: np.ndarray,
        to_latents: Callable[[np.ndarray], np.ndarray],
        settings: TrainConfig,
        train: Callable[..., Any],
        *,
        flip: bool,
        crops: int = 0,
        seed: int = 0,
    ) -> None:
        """Train MaskGIT on with pictures; the tokenizer stays.

        Parameters
        ----------
        pixels : ndarray of shape (n, size, size, 1 or 3)
            float32, 0-1
        to_latents : callable
            pictures (k, size, size, 3) to latents (k, latent)
        settings : TrainConfig
            how long, how fast
        train : callable
            called with network, fetch, number of items, `settings` and a digest of the data
        flip : bool
            whether to learn from mirrored pictures as well
        crops : int, default 0
            random crops of each picture, and of its mirror, to learn from as well, stretched back to full size; every
            one has the latent and the codes of what it shows
        seed : int, default 0
            of where they are cut
        """
        pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
        all_latents = []
        all_tokens = []

        for version in _versions(pixels, flip, crops, seed):
            all_latents.append(to_latents(version))
            all_tokens.append(self.tokenizer.encode(version))

        latents = torch.from_numpy(np.concatenate(all_latents))  # (versions x n, latent)
        tokens = torch.from_numpy(np.concatenate(all_tokens))  # (versions x n, grid, grid)
        maskgit = self.maskgit.requires_grad_(True)

        def fetch(rows: np.ndarray) -> dict[str, Tensor]:
            return {"latents": latents[rows], "tokens": tokens[rows]}

        data = digest_of(latents.numpy(), tokens.numpy())
        train(maskgit, fetch, len(latents), settings, data=data)
        maskgit.requires_grad_(False).cpu()

    def sample(self, latents: np.ndarray, ids: Sequence[str], sampling: MaskGitSampling, seed: int) -> np.ndarray:
        """Pictures drawn from latents.

        Parameters
        ----------
        latents : ndarray of shape (n, latent)
            what the pictures show
        ids : sequence of str
            n stimulus ids; the noise of a picture is a function of seed, id and sample, not of the other pictures
        sampling : MaskGitSampling
            steps, samples and temperature
        seed : int
            of the noise

        Returns
        -------
        ndarray of shape (n, samples, size, size, 3), float32
            0-1
        """
        if torch.cuda.is_available():
            self.module.to("cuda")

        codes = self.maskgit.sample(latents, ids, seed=seed, batch_size=8, **sampling.model_dump())
        n, samples, grid, _ = codes.shape
        pictures = self.tokenizer.decode(codes.reshape(-1, grid, grid))  # (n x samples, size, size, 3)

        return pictures.reshape(n, samples, *pictures.shape[1:])


def _versions(pixels: np.ndarray, flip: bool, crops: int, seed: int) -> Iterator[np.ndarray]:
    """(n, size, size, 3) pictures as they are and mirrored, then random crops of both, one version at a time."""
    sides = [pixels]
    if flip:
        sides.append(pixels[:, :, ::-1])

    for pictures in sides:
        yield np.ascontiguousarray(pictures)

    for number in range(1, 1 + crops):
        for turn, pictures in enumerate(sides):
            x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)  # (n, 3, size, size)
            draws = Draws(seed, number, len(x), turn=turn)
            cut = random_crops(x, draws, share=1.0).clamp(0, 1)
            yield np.ascontiguousarray(cut.permute(0, 2, 3, 1).numpy())


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a network of diffusers without its notes to itself."""
    return {k: v for k, v in dict(config).items() if not k.startswith("_")}


# -- public weights ----------------------------------------------------------------------------------------------------


Shape = tuple[int, ...]


@dataclass(frozen=True)
class _From:
    """Where one of our tensors comes from: public names with the shapes they must have, and how they become ours."""

    names: tuple[str, ...]
    shape: Shape
    convert: Callable[..., np.ndarray] = lambda *arrays: arrays[0]


def flat_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """A Flax tree as arrays by path, such as ``encoder/Conv_0/kernel``; an outer ``params`` is dropped.

    Parameters
    ----------
    tree : mapping[str, Any]
        nested, or by path
    prefix : str, default ""
        of the paths

    Returns
    -------
    dict[str, ndarray]
        by path

    Examples
    --------
    >>> list(flat_tree({"params": {"a": {"b": np.zeros(2)}, "c": np.ones(1)}}))
    ['a/b', 'c']
    """
    out: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out.update(flat_tree(value, f"{path}/"))
        else:
            out[path] = np.asarray(value)

    if prefix:
        return out

    return {k.removeprefix("params/"): v for k, v in out.items()}


def flax_transformer(tree: Mapping[str, Any], config: MaskGitConfig) -> dict[str, np.ndarray]:
    """MaskGIT's class-conditional transformer as weights of :class:`MaskGit`, all but the projection of the latent.

    Parameters
    ----------
    tree : mapping[str, Any]
        nested or by path, with or without an outer ``params``: 393 arrays at the published size
    config : MaskGitConfig
        sizes of the network they are meant for

    Returns
    -------
    dict[str, ndarray]
        weights by our names, without ``latent.weight`` and ``latent.bias``: the public network has a class where ours
        has a latent

    Raises
    ------
    ModelError
        Naming arrays that are missing, too many, or of another shape.
    """
    return _convert(flat_tree(tree), _transformer_table(config), "the public MaskGIT transformer")


def start_from_public(network: MaskGit, tree: Mapping[str, Any]) -> None:
    """Put the public transformer into a network, as LEA starts its training; the projection of the latent stays.

    Parameters
    ----------
    network : MaskGit
        changed in place
    tree : mapping[str, Any]
        as :func:`flax_transformer` takes it

    Raises
    ------
    ModelError
        As :func:`flax_transformer`.
    """
    weights = flax_transformer(tree, network.config)
    for name, tensor in network.state_dict().items():
        if name.startswith("latent."):
            weights[name] = tensor.detach().cpu().numpy()

    load_module_state(network, weights, "MaskGIT")


def flax_tokenizer(tree: Mapping[str, Any], config: VqganConfig) -> dict[str, np.ndarray]:
    """MaskGIT's tokenizer as weights of :class:`Vqgan`.

    Parameters
    ----------
    tree : mapping[str, Any]
        nested or by path, with or without an outer ``params``: 168 arrays at the published size
    config : VqganConfig
        sizes of the network they are meant for

    Returns
    -------
    dict[str, ndarray]
        weights by our names

    Raises
    ------
    ModelError
        Naming arrays that are missing, too many, or of another shape.
    """
    return _convert(flat_tree(tree), _flax_tokenizer_table(config), "the public MaskGIT tokenizer")


def torch_tokenizer(tensors: Mapping[str, Any], config: VqganConfig) -> dict[str, np.ndarray]:
    """The same tokenizer from its PyTorch file, which counts the decoder's sizes from the finest.

    Parameters
    ----------
    tensors : mapping[str, Any]
        of the whole file
    config : VqganConfig
        sizes of the network they are meant for

    Returns
    -------
    dict[str, ndarray]
        weights by our names

    Raises
    ------
    ModelError
        As :func:`flax_tokenizer`.
    """
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    return _convert(arrays, _torch_tokenizer_table(config), "the public PyTorch tokenizer of MaskGIT")


def _convert(arrays: Mapping[str, np.ndarray], table: Mapping[str, _From], what: str) -> dict[str, np.ndarray]:
    expected = {}
    for source in table.values():
        expected.update(dict.fromkeys(source.names, source.shape))

    must_fit(arrays, expected, what)

    weights = {}
    for ours, source in table.items():
        public = [arrays[name] for name in source.names]
        weights[ours] = np.ascontiguousarray(source.convert(*public), dtype=np.float32)

    return weights


def _transformer_table(c: MaskGitConfig) -> dict[str, _From]:
    """Where each weight of :class:`MaskGit` comes from."""
    w = c.width
    h = c.heads
    size = c.width // c.heads
    table = {
        "tokens.weight": _From(("Embed_0/word_embeddings/embedding",), (c.mask + 1, w)),
        "positions": _From(("Embed_0/position_embeddings/embedding",), (1 + c.n_tokens, w)),
        "bias": _From(("MlmLayer_0/mlm_bias/bias",), (c.mask + 1,)),
    }

    def norm(ours: str, theirs: str) -> None:
        table[f"{ours}.weight"] = _From((f"{theirs}/scale",), (w,))
        table[f"{ours}.bias"] = _From((f"{theirs}/bias",), (w,))

    def linear(ours: str, theirs: str, n_in: int, n_out: int) -> None:
        table[f"{ours}.weight"] = _From((f"{theirs}/kernel",), (n_in, n_out), np.transpose)
        table[f"{ours}.bias"] = _From((f"{theirs}/bias",), (n_out,))

    norm("norm", "Embed_0/embeddings_ln")
    linear("head", "MlmLayer_0/mlm_dense", w, w)
    norm("head_norm", "MlmLayer_0/mlm_ln")

    for i in range(c.depth):
        ours = f"blocks.{i}"
        theirs = f"TransformerLayer_{i}"
        attention = f"{theirs}/Attention_0/self_attention"
        three = [f"{attention}/{name}" for name in ("query", "key", "value")]

        # Heads are the middle axis of the public kernels; ours are (out, in) with query, key, value stacked.
        kernels = tuple(f"{name}/kernel" for name in three)
        biases = tuple(f"{name}/bias" for name in three)
        table[f"{ours}.qkv.weight"] = _From(kernels, (w, h, size), _stacked_kernels)
        table[f"{ours}.qkv.bias"] = _From(biases, (h, size), _stacked_biases)

        table[f"{ours}.out.weight"] = _From((f"{attention}/out/kernel",), (h, size, w), _joined_heads)
        table[f"{ours}.out.bias"] = _From((f"{attention}/out/bias",), (w,))
        norm(f"{ours}.norm1", f"{theirs}/Attention_0/attention_output_ln")
        linear(f"{ours}.up", f"{theirs}/Mlp_0/intermediate_output", w, c.hidden)
        linear(f"{ours}.down", f"{theirs}/Mlp_0/layer_output", c.hidden, w)
        norm(f"{ours}.norm2", f"{theirs}/Mlp_0/layer_output_ln")

    return table


def _stacked_kernels(*kernels: np.ndarray) -> np.ndarray:
    """Kernels (width, heads, d) of query, key and value as one matrix (3 width, width)."""
    return np.concatenate([kernel.reshape(len(kernel), -1).T for kernel in kernels])


def _stacked_biases(*biases: np.ndarray) -> np.ndarray:
    """Biases (heads, d) of query, key and value as one vector (3 width,)."""
    return np.concatenate([bias.ravel() for bias in biases])


def _joined_heads(kernel: np.ndarray) -> np.ndarray:
    """A kernel (heads, d, width) as a matrix (width, width)."""
    return kernel.reshape(-1, kernel.shape[2]).T


def _out_in_first(kernel: np.ndarray) -> np.ndarray:
    """A kernel (height, width, in, out) as (out, in, height, width)."""
    return kernel.transpose(3, 2, 0, 1)


@lru_cache(maxsize=4)
def _tokenizer_shapes(config: str) -> dict[str, Shape]:
    with torch.device("meta"):
        weights = Vqgan(**json.loads(config)).state_dict()

    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _flax_tokenizer_table(c: VqganConfig) -> dict[str, _From]:
    """Where each weight of :class:`Vqgan` comes from, in the Flax file."""
    n_levels = len(c.multipliers)
    modules = {
        "encoder.conv_in": "Conv_0", "encoder.conv_out": "Conv_1", "encoder.norm_out": "GroupNorm_0",
        "decoder.conv_in": "Conv_0", "decoder.conv_out": f"Conv_{n_levels}", "decoder.norm_out": "GroupNorm_0",
    }  # fmt: skip
    for i in range(n_levels - 1):
        modules[f"decoder.up.{i}.upsample.conv"] = f"Conv_{i + 1}"

    down = []
    up = []
    for i in range(n_levels):
        for j in range(c.blocks):
            down.append(f"encoder.down.{i}.block.{j}")
            up.append(f"decoder.up.{i}.block.{j}")

    inside = {
        "norm1": "GroupNorm_0", "norm2": "GroupNorm_1", "conv1": "Conv_0", "conv2": "Conv_1", "nin_shortcut": "Conv_2",
    }  # fmt: skip

    # Flax counts residual blocks in the order they run: the encoder runs its middle last, the decoder first.
    encoder = [*down, *(f"encoder.mid.{j}" for j in range(c.blocks))]
    decoder = [*(f"decoder.mid.{j}" for j in range(c.blocks)), *up]
    for blocks in (encoder, decoder):
        for number, block in enumerate(blocks):
            for ours, theirs in inside.items():
                modules[f"{block}.{ours}"] = f"ResBlock_{number}/{theirs}"

    table = {"quantizer.embedding.weight": _From(("quantizer/codebook",), (c.codes, c.code_width))}
    for name, shape in _tokenizer_shapes(c.model_dump_json()).items():
        module, _, kind = name.rpartition(".")
        if module not in modules:
            continue

        place = f"{module.split('.')[0]}/{modules[module]}"
        if len(shape) == 4:
            n_out, n_in, height, width = shape
            table[name] = _From((f"{place}/kernel",), (height, width, n_in, n_out), _out_in_first)
        elif kind == "weight":
            table[name] = _From((f"{place}/scale",), shape)
        else:
            table[name] = _From((f"{place}/{kind}",), shape)

    return table


def _torch_tokenizer_table(c: VqganConfig) -> dict[str, _From]:
    """Where each weight of :class:`Vqgan` comes from, in the PyTorch file."""
    last = len(c.multipliers) - 1
    table = {}

    for name, shape in _tokenizer_shapes(c.model_dump_json()).items():
        theirs = name.replace("quantizer.", "quantize.").replace("upsample.conv", "upsample_conv")
        if theirs.startswith("decoder.up."):
            level, _, rest = theirs.removeprefix("decoder.up.").partition(".")
            theirs = f"decoder.up.{last - int(level)}.{rest}"

        table[name] = _From((theirs,), shape)

    return table
