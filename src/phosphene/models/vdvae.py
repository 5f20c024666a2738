"""A Very Deep VAE: pictures as groups of latents from 1 x 1 to full size, and back. Child 2021, ICLR.

::

    picture -> encoder, fine to coarse -> its activations at each size
    1 x 1 -> 4 x 4 -> ... -> full size, block by block:
        prior      p(z_k | z_1 .. z_{k-1})             from the state alone
        posterior  q(z_k | z_1 .. z_{k-1}, picture)    from the state and the encoder's activations at this size
        state      += a share of the prior + projection of z_k, then a residual block
    state at full size -> mixture of discretised logistics over the 256 values of each pixel

Training takes every z_k from the posterior. Brain decoders predict the first groups, and the prior fills in the rest: the
first stage of Brain-Diffuser (Ozcelik and VanRullen 2023) and of the two-stage decoder (Veronese et al. 2024, section
3.3.1). Names of modules are those of the public code, so that its checkpoints load as they are; pictures are -1 to 1
inside the network.

In this file: the configuration with the layout of the latents, :class:`VdvaeConfig`; the network with its training loss,
:class:`Vdvae`; the distribution of its pixels; latents to pictures in batches, :class:`VdvaeDecoder`; the fitted part of a
run, :class:`VdvaePart`; and its weights, the bundled ones or the public ImageNet-64 ones, converted once. The public file is
``imagenet64-iter-1600000-model-ema.th`` of OpenAI's store ``very-deep-vaes-assets`` (500 MB; the code published with it is
under the MIT licence, the weights state none). It is read without running anything in it:

>>> convert("imagenet64-iter-1600000-model-ema.th", "weights/vdvae64")                 # doctest: +SKIP
>>> pictures = VdvaeDecoder(load_vdvae("weights/vdvae64"))                                   # doctest: +SKIP
>>> pictures.decode(predicted, ids, seed=0)     # (n, 91168) to (n, 64, 64, 3)         # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError, did_you_mean
from phosphene.io import atomic
from phosphene.io.config import Config, validate
from phosphene.io.foreign import must_fit, read_foreign
from phosphene.io.reading import reads
from phosphene.io.run_folder import read_json
from phosphene.io.stages import read_safetensors
from phosphene.models import bundled
from phosphene.models.batch_invariance import full_batches, group_noise, picture_rng
from phosphene.training.checkpoint import ModulePart, load_module_state
from phosphene.training.sampling import Draws
from phosphene.types.identity import digest_of

__all__ = ["Vdvae", "VdvaeConfig", "VdvaeDecoder", "VdvaePart"]


# -- configuration -----------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One block of a stack.

    Attributes
    ----------
    resolution : int
        pixels along a side
    pool : int
        in an encoder, by how much the block's output is averaged down
    mixin : int or None
        in a decoder, the coarser resolution whose state is added first
    """

    resolution: int
    pool: int = 1
    mixin: int | None = None


class VdvaeConfig(Config):
    """Sizes of a Very Deep VAE. The defaults are those of the public ImageNet-64 weights.

    Blocks are written as in the paper's public code, coarse to fine or fine to coarse: ``8x7`` is seven blocks at
    8 x 8; ``8d2`` one block there whose output is averaged down by 2; ``8m4`` one that first adds what 4 x 4 has become.

    Examples
    --------
    >>> config = VdvaeConfig.paper()
    >>> len(config.encoder_steps), len(config.decoder_steps), config.length(15), config.length(31)
    (65, 75, 13344, 91168)
    >>> config.names[14], config.shapes[14]
    ('15 of 75, 16 x 16', (16, 16, 16))
    """

    image_size: int = Field(default=64, ge=1, description="pixels along each side of a picture")
    latent_channels: int = Field(default=16, ge=1, description="values per place of every group of latents")
    width: int = Field(default=512, ge=1, description="channels everywhere")
    middle: int = Field(default=128, ge=1, description="channels inside a block, a quarter of width in the paper")
    mixtures: int = Field(default=10, ge=1, description="logistic distributions that are mixed into each pixel's")
    encoder: str = Field(
        default="64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5", description="blocks from fine to coarse"
    )
    decoder: str = Field(
        default="1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
        description="blocks from coarse to fine; each has one group of latents",
    )
    given: int = Field(
        default=15, ge=1, description="first groups that brain decoders predict; the two-stage decoder also: 31"
    )
    shift: float = Field(default=115.92961967, description="subtracted from 0-255 on the way in; mean of ImageNet-64")
    scale: float = Field(default=69.37404, gt=0, description="what that is divided by")

    @model_validator(mode="after")
    def _blocks_fit(self) -> Self:
        side = self.image_size
        sides = {side}

        for step in self.encoder_steps:
            if step.mixin is not None or step.resolution != side or side % step.pool:
                raise ValueError(f"encoder has a block {step.resolution} where pictures are {side} x {side} by then")

            side //= step.pool
            sides.add(side)

        begun: set[int] = set()
        for step in self.decoder_steps:
            if step.pool > 1 or step.resolution not in sides:
                raise ValueError(f"decoder has a block at {step.resolution}, a size the encoder never has")
            if step.mixin is not None and (step.mixin not in begun or step.resolution % step.mixin):
                raise ValueError(f"decoder block {step.resolution}m{step.mixin} needs an earlier block at {step.mixin}")

            begun.add(step.resolution)

        if self.decoder_steps[-1].resolution != self.image_size:
            raise ValueError(f"decoder must end at image_size {self.image_size}")
        if self.given > len(self.decoder_steps):
            raise ValueError(f"given {self.given} is more than the {len(self.decoder_steps)} groups of the decoder")

        return self

    @classmethod
    def paper(cls) -> Self:
        """ImageNet-64: 75 groups, 1,451,040 latents, 125,005,860 weights (Child 2021, table 1 and public code)."""
        return cls()

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab's 32 x 32 pictures: 8 groups, 6,788 latents, 644 in the first 5; 316,994 weights."""
        return cls(
            image_size=32, latent_channels=4, width=64, middle=16, mixtures=5, given=5,
            encoder="32x1,32d2,16x2,16d2,8x2,8d2,4x1,4d4,1x1", decoder="1x1,4m1,4x1,8m4,8x1,16m8,16x1,32m16",
        )  # fmt: skip

    # -- blocks ----------------------------------------------------------------------------------------------------

    @cached_property
    def encoder_steps(self) -> tuple[Step, ...]:
        """Blocks of the encoder, in order."""
        return _steps(self.encoder)

    @cached_property
    def decoder_steps(self) -> tuple[Step, ...]:
        """Blocks of the decoder, in order: one per group of latents."""
        return _steps(self.decoder)

    @property
    def resolutions(self) -> list[int]:
        """Sizes the decoder works at, ascending."""
        return sorted({step.resolution for step in self.decoder_steps})

    # -- latents ---------------------------------------------------------------------------------------------------

    @cached_property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) of each group of latents."""
        return tuple((self.latent_channels, s.resolution, s.resolution) for s in self.decoder_steps)

    @property
    def names(self) -> list[str]:
        """What each group is called in messages and tables."""
        n = len(self.decoder_steps)
        return [f"{k} of {n}, {s.resolution} x {s.resolution}" for k, s in enumerate(self.decoder_steps, 1)]

    def length(self, groups: int | None = None) -> int:
        """Number of values in the first groups.

        Parameters
        ----------
        groups : int, optional
            how many first groups; all by default

        Returns
        -------
        int
            of all of them together

        Raises
        ------
        DataError
            For a number of groups that there is not.
        """
        n = len(self.shapes)
        if groups is not None and not 1 <= groups <= n:
            raise DataError(f"this network has groups 1 to {n}, but {groups} were asked for.")

        return sum(math.prod(shape) for shape in self.shapes[:groups])

    def groups_in(self, length: int) -> int:
        """How many first groups have this many values together.

        Parameters
        ----------
        length : int
            values

        Returns
        -------
        int
            1 or more

        Raises
        ------
        DataError
            When no number of groups has.
        """
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        last = int(np.searchsorted(ends, length))

        if last == len(ends) or ends[last] != length:
            neighbours = range(max(0, last - 1), min(len(ends), last + 2))
            near = ", ".join(f"{k + 1} groups: {ends[k]}" for k in neighbours)
            raise DataError(
                f"vectors of {length} values are not the first groups of these latents ({near}). They are of another "
                "network, or cut in the middle of a group."
            )

        return last + 1

    def split(self, vectors: np.ndarray) -> list[np.ndarray]:
        """Vectors as groups.

        Parameters
        ----------
        vectors : ndarray of shape (n, d)
            the first groups one after the other, each flattened channels, rows, columns

        Returns
        -------
        list of ndarray
            one (n, channels, height, width) per group, views

        Raises
        ------
        DataError
            When d is not the length of the first groups, or vectors are no matrix.
        """
        if vectors.ndim != 2:
            raise DataError(f"latents as vectors must be (n, d), but have shape {tuple(vectors.shape)}.")

        shapes = self.shapes[: self.groups_in(vectors.shape[1])]
        ends = np.cumsum([0] + [math.prod(shape) for shape in shapes])

        groups = []
        for (start, stop), shape in zip(pairwise(ends), shapes, strict=True):
            groups.append(vectors[:, start:stop].reshape(len(vectors), *shape))

        return groups

    def join(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        """Groups as vectors: what :meth:`split` takes apart.

        Parameters
        ----------
        groups : sequence of ndarray
            one (n, channels, height, width) per group, from the first

        Returns
        -------
        ndarray of shape (n, d)
            the groups one after the other

        Raises
        ------
        DataError
            When a group has another shape.
        """
        if len(groups):
            n = len(groups[0])
        else:
            n = 0

        expected = [(n, *shape) for shape in self.shapes[: len(groups)]]
        came = [tuple(group.shape) for group in groups]
        if not groups or came != expected:
            raise DataError(
                f"the first groups of latents must have shapes {expected or '(n, channels, height, width)'}, but {came} came; "
                "pass groups in their order, from 1 x 1."
            )

        return np.concatenate([group.reshape(n, -1) for group in groups], axis=1)  # (n, d)


def _steps(text: str) -> tuple[Step, ...]:
    """Blocks of a text such as "64x11,64d2,32x20"."""
    steps: list[Step] = []
    for word in text.split(","):
        match = re.fullmatch(r"([1-9]\d*)(?:([xdm])([1-9]\d*))?", word.strip())
        if not match:
            raise ValueError(f"'{word}' is no block; write RxN, RdK, RmS or R, as in 8x7, 8d2, 8m4")

        resolution = int(match[1])
        kind = match[2]
        number = int(match[3] or 1)

        if kind == "m":
            steps.append(Step(resolution, mixin=number))
        elif kind == "d":
            steps.append(Step(resolution, pool=number))
        else:
            steps += [Step(resolution)] * number

    return tuple(steps)


# -- the network -------------------------------------------------------------------------------------------------------


# From a group, counted from 0, and its (channels, height, width) to standard normal noise (n, channels, height, width).
Noise = Callable[[int, tuple[int, ...]], Tensor]


class _NarrowBlock(nn.Module):
    """Four convolutions through a narrow middle; 3 x 3 in between where a picture has more than 2 x 2 pixels."""

    def __init__(self, n_in: int, middle: int, n_out: int, resolution: int):
        super().__init__()
        if resolution > 2:
            size = 3
        else:
            size = 1

        # In this order weights are drawn.
        self.c1 = nn.Conv2d(n_in, middle, 1)
        self.c4 = nn.Conv2d(middle, n_out, 1)
        self.c2 = nn.Conv2d(middle, middle, size, padding=size // 2)
        self.c3 = nn.Conv2d(middle, middle, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.c1, self.c2, self.c3, self.c4):
            x = conv(F.gelu(x))

        return x


class _BottomUp(nn.Module):
    """Residual blocks from fine to coarse."""

    def __init__(self, c: VdvaeConfig):
        super().__init__()
        self.steps = c.encoder_steps
        n = len(c.encoder_steps)
        self.in_conv = nn.Conv2d(3, c.width, 3, padding=1)

        blocks = [_NarrowBlock(c.width, c.middle, c.width, step.resolution) for step in self.steps]
        for block in blocks:
            block.c4.weight.data *= n**-0.5  # so that n residual blocks together add about as much as one

        self.enc_blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Activations at each size, by that size: (n, width, size, size)."""
        x = self.in_conv(x)
        activations = {x.shape[2]: x}

        for step, block in zip(self.steps, self.enc_blocks, strict=True):
            x = x + block(x)
            if step.pool > 1:
                x = F.avg_pool2d(x, step.pool)

            activations[x.shape[2]] = x  # the last of each size stays

        return activations


class _TopDownLayer(nn.Module):
    """Prior, posterior and state of one group of latents."""

    def __init__(self, c: VdvaeConfig, resolution: int):
        super().__init__()
        z = c.latent_channels
        width = c.width
        n = len(c.decoder_steps)
        self.enc = _NarrowBlock(2 * width, c.middle, 2 * z, resolution)
        self.prior = _NarrowBlock(width, c.middle, 2 * z + width, resolution)
        self.z_proj = nn.Conv2d(z, width, 1)
        self.resnet = _NarrowBlock(width, c.middle, width, resolution)

        # At first the prior is a standard normal, and n layers together add about as much as one.
        nn.init.zeros_(self.prior.c4.weight)
        self.z_proj.weight.data *= n**-0.5
        self.resnet.c4.weight.data *= n**-0.5


class _TopDown(nn.Module):
    """Layers from coarse to fine, each with one group of latents, and a state at each size."""

    def __init__(self, c: VdvaeConfig):
        super().__init__()
        self.config = c
        width = c.width
        self.dec_blocks = nn.ModuleList(_TopDownLayer(c, s.resolution) for s in c.decoder_steps)
        self.bias_xs = nn.ParameterList(nn.Parameter(torch.zeros(1, width, r, r)) for r in c.resolutions)
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.out_net = nn.ModuleDict({"out_conv": nn.Conv2d(width, 10 * c.mixtures, 1)})

    def forward(self, n: int, latent: Callable[..., Tensor], stop: int | None = None) -> Tensor | None:
        """Parameters of the pixels' distributions.

        Parameters
        ----------
        n : int
            pictures
        latent : callable
            (k, layer, state, mean, log_std) to z_k, with mean and log_std those of the prior: all that tells training,
            encoding and decoding apart
        stop : int, optional
            go through that many blocks only; nothing comes out then

        Returns
        -------
        Tensor of shape (n, 10 mixtures, size, size) or None
        """
        c = self.config
        parts = (c.latent_channels, c.latent_channels, c.width)
        states = {b.shape[2]: b.expand(n, -1, -1, -1) for b in self.bias_xs}

        layers = cast(Sequence[_TopDownLayer], self.dec_blocks[:stop])
        for k, (layer, step) in enumerate(zip(layers, c.decoder_steps, strict=False)):
            x = states[step.resolution]
            if step.mixin is not None:
                x = x + F.interpolate(states[step.mixin], scale_factor=step.resolution // step.mixin)

            mean, log_std, more = layer.prior(x).split(parts, 1)  # twice (n, latent_channels, r, r), (n, width, r, r)
            z = latent(k, layer, x, mean, log_std)
            x = x + more + layer.z_proj(z)
            states[step.resolution] = x + layer.resnet(x)  # (n, width, r, r)

        if stop is not None:
            return None

        return self.out_net["out_conv"](states[c.image_size] * self.gain + self.bias)


class Vdvae(nn.Module):
    """The network, its training loss, and both ways through it.

    Parameters
    ----------
    **config : Any
        fields of :class:`VdvaeConfig`; the public ImageNet-64 network's by default. Weights are drawn from torch's
        global generator

    Raises
    ------
    ConfigError
        For fields that do not exist or do not fit.

    References
    ----------
    Child 2021, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images"; its public code.

    Examples
    --------
    >>> network = Vdvae(**VdvaeConfig.lab().model_dump())
    >>> x = torch.zeros(2, 3, 32, 32)
    >>> [tuple(z.shape) for z in network.encode(x, groups=3)]
    [(2, 4, 1, 1), (2, 4, 4, 4), (2, 4, 4, 4)]
    >>> network.picture(network.encode(x)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(self, **config: Any):
        super().__init__()
        self.config = validate(VdvaeConfig, config, "the configuration of the Very Deep VAE")
        self.encoder = _BottomUp(self.config)
        self.decoder = _TopDown(self.config)

        for name, weight in self.named_parameters():
            if name.endswith(".bias") and weight.ndim == 1:
                nn.init.zeros_(weight)

    def posterior(self, x: Tensor, noise: Noise | None, stop: int | None = None) -> tuple[list, list, Tensor | None]:
        """Pictures through encoder and decoder.

        Parameters
        ----------
        x : Tensor of shape (n, 3, size, size)
            -1 to 1
        noise : Noise or None
            of the posterior's samples; its means are taken, from coarse to fine, when None
        stop : int, optional
            blocks of the decoder to go through; all by default

        Returns
        -------
        tuple[list, list, Tensor or None]
            latents, one (n, channels, height, width) per group; divergences of posterior from prior in nats, of the
            same shapes; and parameters of the pixels' distributions, None with `stop`

        Raises
        ------
        DataError
            For pictures of another shape.
        """
        c = self.config
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, c.image_size, c.image_size):
            raise DataError(
                f"this network takes pictures of (n, 3, {c.image_size}, {c.image_size}), but got {tuple(x.shape)}; resize "
                "them first."
            )

        activations = self.encoder(((x + 1) * 127.5 - c.shift) / c.scale)
        latents: list[Tensor] = []
        divergences: list[Tensor] = []

        def latent(k: int, layer: _TopDownLayer, state: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
            both = torch.cat([state, activations[state.shape[2]]], 1)  # (n, 2 width, r, r)
            q_mean, q_log_std = layer.enc(both).chunk(2, 1)
            if noise is None:
                z = q_mean
            else:
                z = q_mean + q_log_std.exp() * noise(k, c.shapes[k])

            latents.append(z)
            divergences.append(gaussian_kl(q_mean.float(), q_log_std.float(), mean.float(), log_std.float()))

            return z

        return latents, divergences, self.decoder(len(x), latent, stop)

    def encode(self, x: Tensor, groups: int | None = None, noise: Noise | None = None) -> list[Tensor]:
        """Latents of pictures, coarse to fine.

        Parameters
        ----------
        x : Tensor of shape (n, 3, size, size)
            -1 to 1
        groups : int, optional
            how many first groups are wanted; finer ones are then not computed. All by default
        noise : Noise, optional
            for a sample of the posterior, as the published decoders take; its means when None

        Returns
        -------
        list of Tensor
            one (n, channels, height, width) per group
        """
        self.config.length(groups)
        return self.posterior(x, noise, groups or len(self.config.shapes))[0]

    def decode(self, latents: Sequence[Tensor], n: int, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        """Parameters of the pixels' distributions from the first groups of latents.

        Later groups are drawn from the prior, each given those before it: mean + temperature * standard deviation * noise.

        Parameters
        ----------
        latents : sequence of Tensor
            the first groups, one (n, channels, height, width) each
        n : int
            pictures
        noise : Noise, optional
            of the later groups; the prior's means are taken when None
        temperature : float, default 1.0
            of the later groups

        Returns
        -------
        Tensor of shape (n, 10 mixtures, size, size)
            as :func:`mixture_mean` and :func:`mixture_sample` take them
        """

        def latent(k: int, layer: _TopDownLayer, state: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
            if k < len(latents):
                return latents[k]
            if noise is None or temperature == 0:
                return mean

            return mean + temperature * log_std.exp() * noise(k, self.config.shapes[k])

        parameters = self.decoder(n, latent)
        assert parameters is not None  # all blocks were gone through

        return parameters

    def picture(self, latents: Sequence[Tensor]) -> Tensor:
        """Expected pictures of at least one group of latents, nothing drawn: (n, 3, size, size), -1 to 1."""
        return mixture_mean(self.decode(latents, len(latents[0])).float())

    def elbo(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Both parts of the evidence bound, in bits per value of a picture (Child 2021, eq. 1).

        Their sum over groups and pixels bounds the cost of a picture from above.

        Parameters
        ----------
        x : Tensor of shape (n, 3, size, size)
            -1 to 1, on the 256 levels of 8 bits
        noise : Noise
            of the posterior's samples

        Returns
        -------
        tuple[Tensor, Tensor]
            of the pixels (n,), and of each group of latents (n, groups)
        """
        _, divergences, parameters = self.posterior(x, noise)
        assert parameters is not None  # all blocks were gone through

        bits = 1 / (math.log(2) * x[0].numel())  # of one nat
        pixels = -mixture_log_likelihood(parameters.float(), x).sum((1, 2)) * bits  # (n,)
        groups = torch.stack([d.sum((1, 2, 3)) for d in divergences], 1) * bits  # (n, groups)

        return pixels, groups

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Negative evidence bound, in bits per value of a picture.

        Parameters
        ----------
        batch : dict[str, Tensor]
            ``x`` (n, 3, size, size), -1 to 1, on the 256 levels of 8 bits
        draws : Draws
            noise of this step

        Returns
        -------
        tuple[Tensor, dict[str, Any]]
            scalar, and its two parts: ``pixels`` and ``latents``
        """
        pixels, latents = self.elbo(batch["x"], lambda k, shape: draws.normal(*shape))
        pixels = pixels.mean()
        latents = latents.sum(1).mean()
        return pixels + latents, {"pixels": pixels, "latents": latents}


def gaussian_kl(mean: Tensor, log_std: Tensor, prior_mean: Tensor, prior_log_std: Tensor) -> Tensor:
    """KL divergence of one normal distribution from another, in nats, element by element.

        ln(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2

    Parameters
    ----------
    mean : Tensor
        m_q
    log_std : Tensor
        ln s_q, of the same shape
    prior_mean : Tensor
        m_p, of the same shape
    prior_log_std : Tensor
        ln s_p, of the same shape

    Returns
    -------
    Tensor
        of the same shape, at least 0
    """
    ratio = (2 * (log_std - prior_log_std)).exp()  # s_q^2 / s_p^2
    distance = ((mean - prior_mean) * (-prior_log_std).exp()).square()
    quadratic = ratio + distance

    return prior_log_std - log_std + 0.5 * quadratic - 0.5


# -- pixels: a mixture of discretised logistics ------------------------------------------------------------------------


def _mixture(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(n, 10 m, h, w) to log weights (n, m, h, w), and means, log scales and coefficients (n, 3, m, h, w)."""
    n, channels, h, w = parameters.shape
    m = channels // 10  # one weight, and for each of three colours a mean, a scale and a coefficient
    rest = parameters[:, m:].reshape(n, 3, 3, m, h, w)  # colour, kind, mixture
    return parameters[:, :m].log_softmax(1), rest[:, :, 0], rest[:, :, 1].clamp(min=-7), rest[:, :, 2].tanh()


def _means_after(means: Tensor, coefficients: Tensor, red: Tensor, green: Tensor) -> Tensor:
    """Means of a pixel's three colours (n, 3, m, h, w): that of green depends on red, that of blue on both."""
    m_green = means[:, 1] + coefficients[:, 0] * red
    m_blue = means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green
    return torch.stack([means[:, 0], m_green, m_blue], 1)


def discretised_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of one of 256 levels, -1 to 1, under a logistic distribution; the outer two take the tails.

        s(b + d) - s(b) = s(b + d) s(-b) (1 - exp(-d)),    s the sigmoid, d the width of a level in scales

    The product, unlike the difference, loses no digits where a level is improbable.

    Parameters
    ----------
    x : Tensor
        levels, -1 to 1
    mean : Tensor
        of the distribution, of a shape that broadcasts with `x`
    log_scale : Tensor
        of the distribution, of the same shape

    Returns
    -------
    Tensor
        nats
    """
    inverse = (-log_scale).exp()
    upper = (x - mean + 1 / 255) * inverse
    lower = (x - mean - 1 / 255) * inverse
    below = F.logsigmoid(upper)
    above = F.logsigmoid(-lower)
    width = (2 / 255 * inverse).clamp(min=1e-30)  # pictures of black and white alone drive scales beyond float32
    inside = below + above + torch.log(-torch.expm1(-width))

    at_most_white = torch.where(x > 0.999, above, inside)
    return torch.where(x < -0.999, below, at_most_white)


def mixture_log_likelihood(parameters: Tensor, x: Tensor) -> Tensor:
    """Log probability of each pixel's three colours, in nats.

    Parameters
    ----------
    parameters : Tensor of shape (n, 10 m, h, w)
        of the pixels' distributions
    x : Tensor of shape (n, 3, h, w)
        -1 to 1, on the 256 levels of 8 bits

    Returns
    -------
    Tensor of shape (n, h, w)

    References
    ----------
    Salimans et al. 2017, "PixelCNN++", section 2.1.
    """
    log_weights, means, log_scales, coefficients = _mixture(parameters)
    x = x[:, :, None]  # (n, 3, 1, h, w)
    means = _means_after(means, coefficients, x[:, 0], x[:, 1])
    colours = discretised_logistic(x, means, log_scales)  # (n, 3, m, h, w)

    return (colours.sum(1) + log_weights).logsumexp(1)  # (n, h, w)


def mixture_mean(parameters: Tensor) -> Tensor:
    """Expected pixels (n, 3, h, w) without regard to the ends of the range, then clipped to -1 to 1."""
    log_weights, means, _, coefficients = _mixture(parameters)
    red = means[:, 0]
    green = means[:, 1] + coefficients[:, 0] * red
    means = _means_after(means, coefficients, red, green)

    return (means * log_weights.exp()[:, None]).sum(2).clamp(-1, 1)


def mixture_sample(parameters: Tensor, u: Tensor) -> Tensor:
    """Pixels drawn as the published decoders draw them, not rounded to levels.

    Parameters
    ----------
    parameters : Tensor of shape (n, 10 m, h, w)
        of the pixels' distributions
    u : Tensor of shape (n, m + 3, h, w)
        uniform in [0, 1): m values choose one of the mixture, three draw the colours

    Returns
    -------
    Tensor of shape (n, 3, h, w)
        -1 to 1
    """
    log_weights, means, log_scales, coefficients = _mixture(parameters)
    m = log_weights.shape[1]
    u = 1e-5 + (1 - 2e-5) * u  # the tails that the public code leaves out

    # One of the mixture, by the largest of its log weights after Gumbel noise.
    gumbel = -torch.log(-torch.log(u[:, :m]))
    component = (log_weights + gumbel).argmax(1)  # (n, h, w)
    index = component[:, None, None].expand(-1, 3, -1, -1, -1)
    means = means.gather(2, index)[:, :, 0]  # (n, 3, h, w)
    log_scales = log_scales.gather(2, index)[:, :, 0]
    coefficients = coefficients.gather(2, index)[:, :, 0]

    x = means + log_scales.exp() * torch.logit(u[:, m:])
    red = x[:, 0].clamp(-1, 1)
    green = (x[:, 1] + coefficients[:, 0] * red).clamp(-1, 1)
    blue = (x[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green).clamp(-1, 1)

    return torch.stack([red, green, blue], 1)


# -- latents to pictures -----------------------------------------------------------------------------------------------


_PIXELS = ("sample", "mean")


class VdvaeDecoder:
    """Latents to pictures through a frozen network, in batches.

    Parameters
    ----------
    network : Vdvae
        put into evaluation mode
    batch_size : int, default 20
        pictures that go through it at once

    Attributes
    ----------
    config : VdvaeConfig
        sizes of the network, and the layout of its latents

    Examples
    --------
    >>> decoder = VdvaeDecoder(Vdvae(**VdvaeConfig.lab().model_dump()))
    >>> decoder.decode(np.zeros((2, 644), dtype=np.float32), ["a", "b"], seed=0).shape  # the first 5 of 8 groups
    (2, 32, 32, 3)
    """

    def __init__(self, network: Vdvae, *, batch_size: int = 20) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is the number of pictures per pass, at least 1, but is {batch_size}.")

        self.network = network.eval()
        self.batch_size = batch_size
        self.config = network.config

    @torch.no_grad()
    def decode(
        self,
        latents: np.ndarray | Sequence[np.ndarray],
        ids: Sequence[Any],
        *,
        seed: int,
        given: int | None = None,
        temperature: float = 1.0,
        pixels: Literal["sample", "mean"] = "sample",
    ) -> np.ndarray:
        """Pictures of latents.

        The noise of a picture is a function of `seed` and its id, group by group, not of which other pictures are asked
        for, of their order, or of how many groups are predicted. Only the rounding of the network's sums can depend on the
        place in a batch (never on one CPU thread, at a fixed `batch_size`).

        Parameters
        ----------
        latents : ndarray or sequence of ndarray
            (n, d), the first groups one after the other (see :meth:`VdvaeConfig.split`), or a list of groups (n,
            channels, height, width)
        ids : sequence
            n stimulus ids, unique or not; equal ids get equal noise
        seed : int
            of all noise
        given : int, optional
            take only this many first groups of those that came; all by default
        temperature : float, default 1.0
            of the later groups: prior mean + temperature x prior deviation x noise. At 0 nothing at all is drawn, and
            pixels are means
        pixels : {"sample", "mean"}, default "sample"
            "sample" draws them from the network's mixture of logistics as the published decoders do; "mean" is less
            grainy

        Returns
        -------
        ndarray of shape (n, size, size, 3), float32
            0-1

        Raises
        ------
        DataError
            Latents of another length, not finite, fewer groups than `given`, or not one per id.
        ConfigError
            Options out of range.
        ModelError
            When the network itself gives NaN.

        Notes
        -----
        The published decoders predict 15 or 31 groups of ImageNet-64's 75, temperature 1, pixels sampled, without a
        seed; and cut pixels down to 8 bits where these are left as they are.
        """
        if pixels not in _PIXELS:
            raise ConfigError(f"pixels cannot be '{pixels}'. {did_you_mean(pixels, _PIXELS)}")
        if not (temperature >= 0 and np.isfinite(temperature)):
            raise ConfigError(f"temperature must be a number of at least 0, but is {temperature}.")

        groups = self._groups(latents, ids, given)
        size = self.config.image_size
        out = np.empty((len(ids), size, size, 3), dtype=np.float32)

        for part, filled in full_batches(len(ids), self.batch_size):
            batch = [group[filled] for group in groups]
            x = self._draw(batch, [ids[i] for i in filled], seed, temperature, pixels)  # (batch_size, 3, size, size)
            drawn = x[: part.stop - part.start].cpu().numpy()
            out[part] = (drawn.transpose(0, 2, 3, 1) + 1) / 2

        if not np.isfinite(out).all():
            raise ModelError(
                "the Very Deep VAE gives NaN: load its weights again, or check that latents are in its units."
            )

        return out

    def _draw(self, groups: list[np.ndarray], ids: list[Any], seed: int, temperature: float, pixels: str) -> Tensor:
        """Pictures (n, 3, size, size), -1 to 1, of one batch."""
        device = self.network.decoder.gain.device

        def noise(group: int, shape: tuple[int, ...]) -> Tensor:
            return torch.from_numpy(group_noise(seed, ids, group, shape)).to(device)

        first = [torch.from_numpy(np.ascontiguousarray(group)).to(device) for group in groups]
        parameters = self.network.decode(first, len(ids), noise, temperature).float()
        if pixels == "mean" or temperature == 0:
            return mixture_mean(parameters)

        c = self.config
        shape = (c.mixtures + 3, c.image_size, c.image_size)
        part = len(c.shapes)  # the parts before are the groups
        u = []
        for stimulus in ids:
            u.append(picture_rng(seed, stimulus, part).random(shape, dtype=np.float32))

        return mixture_sample(parameters, torch.from_numpy(np.stack(u)).to(device))

    def _groups(
        self, latents: np.ndarray | Sequence[np.ndarray], ids: Sequence[Any], given: int | None
    ) -> list[np.ndarray]:
        """Latents as checked groups."""
        c = self.config
        if isinstance(latents, np.ndarray):
            vectors = latents
        else:
            vectors = c.join([np.asarray(g) for g in latents])

        groups = c.split(vectors)
        if len(vectors) != len(ids):
            raise DataError(f"{len(vectors)} rows of latents came with {len(ids)} ids; give one row an id.")

        if given is not None and not 1 <= given <= len(groups):
            raise DataError(
                f"{given} groups should be taken as given, but {len(groups)} came; give 1 to {len(groups)}."
            )

        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            raise DataError(
                f"latents of {int(bad.sum())} stimuli hold NaN or infinite values, first '{ids[int(bad.argmax())]}'."
            )

        return [np.asarray(g, dtype=np.float32) for g in groups[:given]]


class VdvaePart(ModulePart):
    """The network as a fitted part of a run, so that a run needs no folder outside itself.

    Parameters
    ----------
    module : Vdvae
        the network
    config : mapping[str, Any]
        fields of :class:`VdvaeConfig`
    """

    module: Vdvae

    @classmethod
    def of(cls, network: Vdvae) -> VdvaePart:
        """The part that holds a network.

        Parameters
        ----------
        network : Vdvae
            as it is

        Returns
        -------
        VdvaePart
            with its configuration
        """
        return cls(network, network.config.model_dump(mode="json"))

    @classmethod
    def build(cls, config: dict[str, Any]) -> Vdvae:
        """An untrained network.

        Parameters
        ----------
        config : dict[str, Any]
            fields of :class:`VdvaeConfig`

        Returns
        -------
        Vdvae
            weights are drawn from torch's global generator
        """
        return Vdvae(**config)


# -- weights -----------------------------------------------------------------------------------------------------------


LAB = "lab"

_CONFIG = "config.json"

_WEIGHTS = "model.safetensors"


@reads("file", ModelError)
def convert(file: str | Path, folder: str | Path, config: VdvaeConfig | None = None) -> Path:
    """A checkpoint of the public code as a folder of config.json and model.safetensors.

    Parameters
    ----------
    file : str or Path
        weights by name, as the public code saves them; the file of averaged weights (``ema``) is the one to use
    folder : str or Path
        to make; must not be there
    config : VdvaeConfig, optional
        sizes it was trained with; ImageNet-64's by default

    Returns
    -------
    Path
        the folder

    Raises
    ------
    ModelError
        When the file wants to run anything, or its tensors are not exactly those of this network.
    ConfigError
        When the folder is there already.
    """
    from safetensors.torch import save

    config = config or VdvaeConfig.paper()
    folder = atomic.checked_path(folder)
    if folder.exists():
        raise ConfigError(f"{folder} is there already; give a folder that is not, or delete it.")

    tensors = public_weights(read_foreign(file), config)
    with atomic.folder(folder) as temporary:
        (temporary / _WEIGHTS).write_bytes(save(tensors))
        (temporary / _CONFIG).write_text(json.dumps(config.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")

    return folder


def public_weights(tensors: dict[str, Tensor], config: VdvaeConfig) -> dict[str, Tensor]:
    """Tensors of a public checkpoint as weights of :class:`Vdvae`, float32.

    Names are the same on both sides, but for ``module.`` before each in files saved from several processes.

    Parameters
    ----------
    tensors : dict[str, Tensor]
        of the whole file
    config : VdvaeConfig
        sizes they were trained with

    Returns
    -------
    dict[str, Tensor]
        by name

    Raises
    ------
    ModelError
        Naming tensors that are missing, too many, of another shape, or not finite.
    """
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    with torch.device("meta"):
        empty = _network(config).state_dict()

    must_fit(tensors, {name: tuple(tensor.shape) for name, tensor in empty.items()}, "a Very Deep VAE")
    return {name: tensors[name].float().contiguous() for name in empty}


@reads("name", ModelError)
def load_vdvae(name: str | Path = LAB, device: str = "cpu", lab_folder: Path | None = None) -> Vdvae:
    """A trained network, frozen, in evaluation mode.

    Parameters
    ----------
    name : str or Path, optional
        "lab" for the bundled one, or a folder that :func:`convert` made
    device : str, default "cpu"
        where to put it
    lab_folder : Path, optional
        of the lab's weights; the bundled ones by default

    Returns
    -------
    Vdvae
        ready to use

    Raises
    ------
    ConfigError
        For a name that is neither.
    NotAvailable
        When the lab's weights are not bundled.
    ModelError
        For weights that are damaged or do not fit.
    """
    if str(name) == LAB:
        return cast(Vdvae, bundled.load("vdvae", device=device, folder=lab_folder))

    folder = _folder(name)
    with torch.device("meta"):
        network = _network(read_vdvae_config(folder))

    network = network.to_empty(device="cpu")
    load_module_state(network, read_safetensors(folder / _WEIGHTS), f"the Very Deep VAE in {folder}")

    return network.eval().requires_grad_(False).to(device)


def read_vdvae_config(name: str | Path = LAB, lab_folder: Path | None = None) -> VdvaeConfig:
    """Sizes of a trained network.

    Parameters
    ----------
    name : str or Path, optional
        as for :func:`load_vdvae`
    lab_folder : Path, optional
        as for :func:`load_vdvae`

    Returns
    -------
    VdvaeConfig
        as it was trained with

    Raises
    ------
    ConfigError, NotAvailable, ModelError
        As :func:`load_vdvae`.
    """
    if str(name) == LAB:
        return validate(VdvaeConfig, bundled.record("vdvae", lab_folder)["config"], "the bundled network 'vdvae'")

    file = _folder(name) / _CONFIG
    return validate(VdvaeConfig, read_json(file), str(file))


@reads("name", ModelError)
def weights_digest(name: str | Path = LAB, lab_folder: Path | None = None) -> dict[str, str]:
    """SHA-256 of weights and of sizes: what latents are filed under.

    Parameters
    ----------
    name : str or Path, optional
        as for :func:`load_vdvae`
    lab_folder : Path, optional
        as for :func:`load_vdvae`

    Returns
    -------
    dict[str, str]
        ``weights`` and ``config``

    Raises
    ------
    ConfigError, NotAvailable, ModelError
        As :func:`load_vdvae`.
    """
    if str(name) == LAB:
        weights = str(bundled.record("vdvae", lab_folder)["sha256"])
    else:
        file = _folder(name) / _WEIGHTS
        try:
            with open(file, "rb") as handle:
                weights = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{file} cannot be read ({error.strerror}).") from error

    config = read_vdvae_config(name, lab_folder).model_dump(mode="json")
    return {"weights": weights, "config": digest_of(json.dumps(config, sort_keys=True))}


def _folder(name: str | Path) -> Path:
    folder = Path(name).expanduser()
    if not (folder / _CONFIG).is_file():
        raise ConfigError(
            f"'{name}' is no Very Deep VAE: expected 'lab', or a folder with {_CONFIG} and {_WEIGHTS}, which "
            "phosphene.models.vdvae.convert makes of a public checkpoint."
        )

    return folder


def _network(config: VdvaeConfig) -> Vdvae:
    return Vdvae(**config.model_dump(mode="json"))
