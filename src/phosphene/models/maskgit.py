"""MaskGIT: a bidirectional transformer that fills in a picture's codes, the surest first, from one latent.

Position 0 carries the latent, projected; the others a code or the mask. That is the whole conditioning: no
cross-attention and no guidance (Qian et al. 2024, "LEA"; Chang et al. 2022, "MaskGIT").
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import Config, validate
from phosphene.io.foreign import must_fit
from phosphene.models import bundled
from phosphene.models.vq import Tokenizer, Vqgan, VqganConfig
from phosphene.training.attention import attend
from phosphene.training.checkpoint import ModulePart
from phosphene.training.sampling import Draws
from phosphene.types import digest_of

if TYPE_CHECKING:
    from phosphene.training import TrainConfig


class MaskGitConfig(Config):
    """A transformer over the codes of a square grid, conditioned on one latent. The defaults are LEA's.

    Examples
    --------
    >>> MaskGitConfig().n_tokens, MaskGitConfig().mask, MaskGitConfig.lab().n_tokens
    (256, 2024, 64)
    """

    codes: int = Field(1024, ge=2, description="entries of the tokenizer's codebook")
    unused: int = Field(1000, ge=0, description="embeddings between codes and mask: the classes of the public network")
    grid: int = Field(16, ge=1, description="codes along each side of a picture")
    latent: int = Field(1024, ge=1, description="values of the latent a picture is drawn from")
    width: int = Field(768, ge=1, description="values per token")
    depth: int = Field(24, ge=1, description="transformer blocks")
    heads: int = Field(16, ge=1, description="attention heads, a divisor of width")
    hidden: int = Field(3072, ge=1, description="width inside a block's perceptron")
    dropout: float = Field(0.01, ge=0, lt=1, description="of embeddings and of each block's two branches, in training")
    eps: float = Field(1e-12, gt=0, description="of layer norms; the public weights were trained with 1e-12")
    gelu: Literal["tanh", "none"] = Field("tanh", description="approximation of GELU; the public weights: tanh")
    min_masked: float = Field(0.5, gt=0, le=1, description="least share of tokens hidden in training")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing in training")

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

    steps: int = Field(11, ge=1, description="passes through the transformer")
    samples: int = Field(5, ge=1, description="pictures per latent")
    temperature: float = Field(
        4.5, ge=0, description="of the noise on confidences at the first step; it falls linearly"
    )


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
        counts.append(max(1, min(counts[-1] - 1, math.floor(n_tokens * math.cos(math.pi * step / (2 * steps))))))

    return counts


class _Block(nn.Module):
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
        x = self.norm1(x + F.dropout(self.out(y), self.dropout, self.training))
        y = self.down(F.gelu(self.up(x), approximate=self.gelu))

        return self.norm2(x + F.dropout(y, self.dropout, self.training))


class MaskGit(nn.Module):
    """The transformer, its training loss and its sampler.

    Parameters
    ----------
    config : Any
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
        self.blocks = nn.ModuleList(_Block(c) for _ in range(c.depth))
        self.head = nn.Linear(c.width, c.width)
        self.head_norm = nn.LayerNorm(c.width, c.eps)
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
        tokens : Tensor of shape (n, n_tokens), int64
            codes, or ``config.mask`` where unknown
        latents : Tensor of shape (n, latent), float
        where : Tensor of shape (n, m), int64, optional
            positions that logits are wanted of; all by default

        Returns
        -------
        Tensor of shape (n, m, codes)
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
        batch : dict of {str: Tensor}
            ``tokens`` (n, n_tokens) or (n, grid, grid) integers below ``codes``; ``latents`` (n, latent) float
        draws : Draws
            noise of this step

        Returns
        -------
        tuple of (Tensor, dict of {str: Any})
            scalar, and ``entropy`` (cross-entropy without smoothing, in nats), ``hit`` (share of hidden codes guessed
            right), ``masked`` (share hidden)
        """
        c = self.config
        tokens = batch["tokens"].flatten(1).long()
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
        latents : ndarray or Tensor of shape (n, latent)
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
        asked = {"steps": steps, "samples": samples, "temperature": temperature}
        validate(MaskGitSampling, asked, "the sampling of MaskGIT")
        if batch_size < 1:
            raise ConfigError(f"batch_size is the number of pictures per pass, at least 1, but is {batch_size}.")

        c = self.config
        where = self.bias.device
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
    logits : callable
        (tokens (n, n_tokens), where (n, m)) to (n, m, codes): logits of the unknown positions `where`
    noise : Tensor of shape (n, T, 2, n_tokens)
        uniform in [0, 1)
    mask : int
        token of an unknown code
    temperature : float, default 4.5
        of the noise on confidences

    Returns
    -------
    Tensor of shape (n, n_tokens), int64

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


PORTED: dict[str, Any] = {"eps": 1e-5, "gelu": "none"}


"""MaskGIT as LEA's authors ported it to PyTorch: other epsilons of layer norms, another GELU."""


PORTED_TOKENIZER: dict[str, Any] = {"eps": 1e-5}


"""Its tokenizer likewise."""


class MaskGitPipeline(ModulePart):
    """MaskGIT beside the tokenizer whose codes it draws, as a fitted part of a run.

    Parameters
    ----------
    module : nn.ModuleDict
        ``maskgit`` and ``tokenizer``
    config : mapping of {str: Any}
        ``{"maskgit": fields of MaskGitConfig, "tokenizer": [class, fields]}``
    """

    module: nn.ModuleDict

    @classmethod
    def of(cls, maskgit: MaskGit, tokenizer: nn.Module) -> Self:
        """From two networks: a MaskGit, and diffusers' VQModel or a :class:`Vqgan`."""
        if isinstance(tokenizer, Vqgan):
            kind = "vqgan"
        else:
            kind = "vq"

        if kind == "vqgan":
            fields = tokenizer.config.model_dump(mode="json")
        else:
            fields = _plain(tokenizer.config)

        config = {"maskgit": maskgit.config.model_dump(mode="json"), "tokenizer": [kind, fields]}
        return cls(nn.ModuleDict({"maskgit": maskgit, "tokenizer": tokenizer}).eval(), config)

    @classmethod
    def from_zoo(cls) -> Self:
        """The lab's networks. Raises NotAvailable where they are not bundled."""
        return cls.of(bundled.load("maskgit"), bundled.load("vq"))

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

        Raises
        ------
        ModelError
            Missing or damaged files, or weights that do not fit.
        """
        from phosphene.io.flax_file import read_flax
        from phosphene.io.foreign import read_foreign
        from phosphene.training.checkpoint import load_module_state

        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            maskgit = MaskGit(**(PORTED if ported else {}))
            vqgan = Vqgan(**(PORTED_TOKENIZER if ported else {}))

        start_from_public(maskgit, read_flax(transformer))
        if Path(tokenizer).suffix in (".bin", ".pt", ".pth"):
            weights = torch_tokenizer(read_foreign(tokenizer), vqgan.config)
        else:
            weights = flax_tokenizer(read_flax(tokenizer), vqgan.config)

        load_module_state(vqgan, weights, "the public tokenizer")
        return cls.of(maskgit, vqgan)

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.Module:
        """Untrained networks of this configuration."""
        from diffusers import VQModel

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
        levels = len(fields["multipliers"] if kind == "vqgan" else fields["block_out_channels"])
        return int(self.module["maskgit"].config.grid * 2 ** (levels - 1))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, ready for pictures."""
        return Tokenizer(self.module["tokenizer"])

    def learn(
        self,
        pixels: np.ndarray,
        see: Callable[[np.ndarray], np.ndarray],
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
        pixels : ndarray of shape (n, size, size, 1 or 3), float32
            0-1
        see : callable
            pictures to latents
        settings : TrainConfig
            how
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
        seen = [(see(p), self.tokenizer.encode(p)) for p in _versions(pixels, flip, crops, seed)]
        latents, tokens = (torch.from_numpy(np.concatenate(kind)) for kind in zip(*seen, strict=True))
        maskgit = self.module["maskgit"].requires_grad_(True)

        def fetch(rows: np.ndarray) -> dict[str, torch.Tensor]:
            return {"latents": latents[rows], "tokens": tokens[rows]}

        data = digest_of(latents.numpy(), tokens.numpy())
        train(maskgit, fetch, len(latents), settings, data=data)
        maskgit.requires_grad_(False).cpu()

    def paint(self, latents: np.ndarray, ids: Sequence[str], sampling: MaskGitSampling, seed: int) -> np.ndarray:
        """Pictures of latents.

        Parameters
        ----------
        latents : ndarray of shape (n, latent)
        ids : sequence of str
            n stimulus ids; the noise of a picture is a function of seed, id and sample, not of its company
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

        maskgit: MaskGit = self.module["maskgit"]
        codes = maskgit.sample(latents, ids, seed=seed, batch_size=8, **sampling.model_dump())
        n, samples, grid, _ = codes.shape
        pictures = self.tokenizer.decode(codes.reshape(-1, grid, grid))

        return pictures.reshape(n, samples, *pictures.shape[1:])


def _versions(pixels: np.ndarray, flip: bool, crops: int, seed: int) -> Iterator[np.ndarray]:
    """(n, size, size, 3) pictures as they are and mirrored, then random crops of both, one version at a time."""
    from phosphene.models.ldm import random_crops
    from phosphene.training.sampling import Draws

    if flip:
        both = [pixels, pixels[:, :, ::-1]]
    else:
        both = [pixels]

    for number in range(1 + crops):
        for turn, p in enumerate(both):
            if not number:
                yield np.ascontiguousarray(p)
                continue

            x = torch.from_numpy(np.array(p)).permute(0, 3, 1, 2)
            cut = random_crops(x, Draws(seed, number, len(x), turn=turn), share=1.0).clamp(0, 1)
            yield np.ascontiguousarray(cut.permute(0, 2, 3, 1).numpy())


def _plain(config: Any) -> dict[str, Any]:
    return {k: v for k, v in dict(config).items() if not k.startswith("_")}


Shape = tuple[int, ...]


@dataclass(frozen=True)
class _From:
    """Where one of our tensors comes from: public names with the shapes they must have, and how they become ours."""

    names: tuple[str, ...]
    shape: Shape
    convert: Callable[..., np.ndarray] = lambda *arrays: arrays[0]


def flat_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """A Flax tree as arrays by path, such as ``encoder/Conv_0/kernel``; an outer ``params`` is dropped.

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
    tree : mapping of {str: Any}
        nested or by path, with or without an outer ``params``: 393 arrays at the published size
    config : MaskGitConfig
        sizes of the network they are meant for

    Returns
    -------
    dict of {str: ndarray}
        weights by our names, without ``latent.weight`` and ``latent.bias``: the public network has a class where ours
        has a latent

    Raises
    ------
    ModelError
        Naming arrays that are missing, too many, or of another shape.
    """
    return _convert(flat_tree(tree), _transformer_table(config), "the public MaskGIT transformer")


def start_from_public(network: MaskGit, tree: Mapping[str, Any]) -> None:
    """Put the public transformer into a network, whose projection of the latent alone stays as it is.

    This is how LEA starts its training. Raises like :func:`flax_transformer`.
    """
    from phosphene.training.checkpoint import load_module_state

    own = {k: v.detach().cpu().numpy() for k, v in network.state_dict().items() if k.startswith("latent.")}
    load_module_state(network, {**flax_transformer(tree, network.config), **own}, "MaskGIT")


def flax_tokenizer(tree: Mapping[str, Any], config: VqganConfig) -> dict[str, np.ndarray]:
    """MaskGIT's tokenizer as weights of :class:`Vqgan`.

    Parameters
    ----------
    tree : mapping of {str: Any}
        nested or by path, with or without an outer ``params``: 168 arrays at the published size
    config : VqganConfig
        sizes of the network they are meant for

    Raises
    ------
    ModelError
        Naming arrays that are missing, too many, or of another shape.
    """
    return _convert(flat_tree(tree), _flax_tokenizer_table(config), "the public MaskGIT tokenizer")


def torch_tokenizer(tensors: Mapping[str, Any], config: VqganConfig) -> dict[str, np.ndarray]:
    """The same tokenizer from its PyTorch file, which counts the decoder's sizes from the finest. Raises alike."""
    arrays = {k: np.asarray(v) for k, v in tensors.items()}
    return _convert(arrays, _torch_tokenizer_table(config), "the public PyTorch tokenizer of MaskGIT")


def _convert(arrays: Mapping[str, np.ndarray], table: Mapping[str, _From], what: str) -> dict[str, np.ndarray]:
    must_fit(arrays, {name: source.shape for source in table.values() for name in source.names}, what)
    return {
        ours: np.ascontiguousarray(source.convert(*(arrays[n] for n in source.names)), dtype=np.float32)
        for ours, source in table.items()
    }


def _transformer_table(c: MaskGitConfig) -> dict[str, _From]:
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
        table[f"{ours}.qkv.weight"] = _From(
            tuple(f"{n}/kernel" for n in three),
            (w, h, size),
            lambda *a: np.concatenate([x.reshape(len(x), -1).T for x in a]),
        )

        table[f"{ours}.qkv.bias"] = _From(
            tuple(f"{n}/bias" for n in three), (h, size), lambda *a: np.concatenate([x.ravel() for x in a])
        )

        table[f"{ours}.out.weight"] = _From(
            (f"{attention}/out/kernel",), (h, size, w), lambda a: a.reshape(-1, a.shape[2]).T
        )

        table[f"{ours}.out.bias"] = _From((f"{attention}/out/bias",), (w,))
        norm(f"{ours}.norm1", f"{theirs}/Attention_0/attention_output_ln")
        linear(f"{ours}.up", f"{theirs}/Mlp_0/intermediate_output", w, c.hidden)
        linear(f"{ours}.down", f"{theirs}/Mlp_0/layer_output", c.hidden, w)
        norm(f"{ours}.norm2", f"{theirs}/Mlp_0/layer_output_ln")

    return table


@lru_cache(maxsize=4)
def _tokenizer_shapes(c: VqganConfig) -> dict[str, Shape]:
    import torch

    from phosphene.models.vq import Vqgan

    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in Vqgan(**c.model_dump(mode="json")).state_dict().items()}


def _flax_tokenizer_table(c: VqganConfig) -> dict[str, _From]:
    n_levels = len(c.multipliers)
    modules = {"encoder.conv_in": "Conv_0", "encoder.conv_out": "Conv_1", "encoder.norm_out": "GroupNorm_0"}
    modules |= {"decoder.conv_in": "Conv_0", "decoder.conv_out": f"Conv_{n_levels}", "decoder.norm_out": "GroupNorm_0"}
    modules |= {f"decoder.up.{i}.upsample.conv": f"Conv_{i + 1}" for i in range(n_levels - 1)}

    # The encoder runs its middle last, the decoder first.
    down = [f"encoder.down.{i}.block.{j}" for i in range(n_levels) for j in range(c.blocks)]
    up = [f"decoder.up.{i}.block.{j}" for i in range(n_levels) for j in range(c.blocks)]
    middle = {side: [f"{side}.mid.{j}" for j in range(c.blocks)] for side in ("encoder", "decoder")}
    inside = {"norm1": "GroupNorm_0", "norm2": "GroupNorm_1", "conv1": "Conv_0", "conv2": "Conv_1"}
    inside |= {"nin_shortcut": "Conv_2"}

    for blocks in ([*down, *middle["encoder"]], [*middle["decoder"], *up]):
        modules |= {f"{b}.{o}": f"ResBlock_{k}/{t}" for k, b in enumerate(blocks) for o, t in inside.items()}

    table = {"quantizer.embedding.weight": _From(("quantizer/codebook",), (c.codes, c.code_width))}
    for name, shape in _tokenizer_shapes(c).items():
        module, _, kind = name.rpartition(".")
        if module not in modules:
            continue

        place = f"{module.split('.')[0]}/{modules[module]}"
        if len(shape) == 4:  # kernels are (height, width, in, out) there, (out, in, height, width) here
            o, i, height, width = shape
            table[name] = _From((f"{place}/kernel",), (height, width, i, o), lambda a: a.transpose(3, 2, 0, 1))
        else:
            table[name] = _From((f"{place}/{'scale' if kind == 'weight' else kind}",), shape)

    return table


def _torch_tokenizer_table(c: VqganConfig) -> dict[str, _From]:
    last = len(c.multipliers) - 1
    table = {}

    for name, shape in _tokenizer_shapes(c).items():
        theirs = name.replace("quantizer.", "quantize.").replace("upsample.conv", "upsample_conv")
        if theirs.startswith("decoder.up."):
            level, _, rest = theirs.removeprefix("decoder.up.").partition(".")
            theirs = f"decoder.up.{last - int(level)}.{rest}"

        table[name] = _From((theirs,), shape)

    return table
