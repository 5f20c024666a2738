"""StyleGAN2 with conditions in its styles, and a discriminator that reads them back; in ordinary operations of torch.

::

    w = mapping(z)                                                  noise to w, 8 layers
    u = max over conditions k of F_k(c_k),    style = A [u, w]      in every layer
    constant 4 x 4 -> modulated convolutions, doubling -> 256 x 256; each size adds to the picture
    picture -> discriminator -> logit, and one vector per condition that should match c_k

Lin, Sprague and Singh 2022 (Mind Reader), section 2.3, on Karras et al. 2020 (StyleGAN2) and Zhou et al. 2022 (Lafite).

>>> pipeline = StyleGan2.from_public("lafite_coco.pkl")                                                 # doctest: +SKIP
>>> pipeline.sample(image_latents, text_latents, ids, StyleGan2Sampling(), seed=0)                      # doctest: +SKIP

In this file: the configuration; the networks, :class:`GeneratorNetwork` and :class:`Discriminator`; their training objective,
:class:`GanObjective`, a network for :func:`phosphene.training.train` each of whose steps has turns, in each of which one
side learns; the fitted part of a run, :class:`StyleGan2`; and the readers of public weights.

A StyleGAN ``.pkl`` is the riskiest kind of checkpoint: next to tensors it carries the Python source of its networks, which
the official loader executes. Here the source is skipped as any other text; a pickle may name nothing but what describes
tensors and plain values, and is refused with the name of anything else.

>>> convert_pickle("lafite_coco.pkl", "weights/lafite")                        # doctest: +SKIP
>>> generator, discriminator = read_converted("weights/lafite")                # doctest: +SKIP

A converted folder holds ``generator.safetensors``, ``discriminator.safetensors`` and ``config.json``.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io import atomic, memory
from phosphene.io.config import Config, validate
from phosphene.io.pickle_check import check_pickle
from phosphene.io.reading import reads
from phosphene.io.run_folder import read_json
from phosphene.io.stages import read_safetensors
from phosphene.models import bundled
from phosphene.models.batch_invariance import picture_rng
from phosphene.models.pixel_range import from_network, to_network
from phosphene.models.stylegan2_augment import augmented_batch
from phosphene.training.checkpoint import ModulePart, load_module_state, module_state
from phosphene.types import digest_of

if TYPE_CHECKING:
    from phosphene.training import Draws, TrainConfig

__all__ = [
    "Discriminator",
    "GanObjective",
    "GanTraining",
    "GeneratorNetwork",
    "StyleGan2",
    "StyleGan2Config",
    "StyleGan2Sampling",
]


# -- configuration -----------------------------------------------------------------------------------------------------


class StyleGan2Config(Config):
    """Generator and discriminator of one size. The defaults are Mind Reader's: 256 px, two CLIP conditions.

    Examples
    --------
    >>> c = StyleGan2Config()
    >>> c.sizes, c.channels(256), c.slots
    ((4, 8, 16, 32, 64, 128, 256), 128, 14)
    """

    size: int = Field(default=256, ge=8, description="side of a picture in pixels, a power of two")
    z: int = Field(default=512, ge=1, description="values of the noise a picture is drawn from")
    w: int = Field(default=512, ge=1, description="values the noise is mapped to")
    mapping_layers: int = Field(default=8, ge=1, description="layers of this mapping")
    condition: int = Field(default=512, ge=1, description="values of each condition")
    conditions: int = Field(
        default=2, ge=0, description="how many conditions: image and text; 0 for a generator of noise alone"
    )
    style: int = Field(default=512, ge=1, description="values the conditions become before they meet w")
    condition_gain: float = Field(
        default=1.0, gt=0, description="what conditions, of unit length, are multiplied by in styles"
    )
    condition_pace: float = Field(
        default=0.01, gt=0, description="how fast the conditions' layers learn, relative to others"
    )
    channel_base: int = Field(default=32768, ge=8, description="channels times pixels along a side, up to channel_max")
    channel_max: int = Field(default=512, ge=1, description="most channels of a layer")
    group: int = Field(default=4, ge=1, description="pictures whose deviation the discriminator sees together")
    logit: Literal["each", "batch"] = Field(
        default="each",
        description="match of features and conditions in a logit: of its own picture, or summed over the batch",
    )

    @model_validator(mode="after")
    def _powers_of_two(self) -> Self:
        if self.size & (self.size - 1):
            raise ValueError(f"size {self.size} must be a power of two")
        if self.channel_base < self.size:
            raise ValueError(f"channel_base {self.channel_base} leaves no channel at {self.size} px")

        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the pictures inside, from 4."""
        return tuple(2**i for i in range(2, self.size.bit_length()))

    def channels(self, size: int) -> int:
        """Channels at a size."""
        return min(self.channel_base // size, self.channel_max)

    @property
    def hidden(self) -> int:
        """Width between the two layers of a condition."""
        return (self.condition + self.style) // 2

    @property
    def noise_sizes(self) -> tuple[int, ...]:
        """Side of the noise that each convolution adds, in order."""
        sides = [4]
        for size in self.sizes[1:]:
            sides += [size, size]  # the doubling convolution and the one after it

        return tuple(sides)

    @property
    def slots(self) -> int:
        """Places that a w goes to: one per convolution, and one for the last colours."""
        return len(self.noise_sizes) + 1

    @classmethod
    def paper(cls) -> Self:
        """Mind Reader: 55,503,266 weights, and 29,389,441 of its discriminator."""
        return cls()

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab: 32 px, two latents of 64 values of the lab's CLIP; 916,083 weights.

        Thousands of steps from nothing, where the paper has millions of pictures from pretrained weights: conditions enter
        with unit variance and learn faster, or they would hardly matter.
        """
        return cls(
            size=32, z=64, w=64, mapping_layers=4, condition=64, style=64, channel_base=1024, channel_max=128,
            condition_gain=8.0, condition_pace=0.3,
        )  # fmt: skip


class GanTraining(Config):
    """Terms of the training of generator and discriminator.

    The defaults are Mind Reader's; weights of its appendix A.2 are those of its released code.
    """

    tau: float = Field(default=0.5, gt=0, description="temperature of every contrast")
    row_share: float = Field(
        default=0.0, ge=0, le=1, description="of a contrast's two directions; 0: a condition finds its picture"
    )
    clip_weight: float = Field(default=10.0, ge=0, description="CLIP of a drawn picture finds its conditions (itc)")
    features_weight: float = Field(
        default=10.0, ge=0, description="the discriminator's features find their conditions (itd)"
    )
    real_clip_weight: float = Field(
        default=0.0, ge=0, description="CLIP of a drawn picture finds that of the true one (iic)"
    )
    real_features_weight: float = Field(
        default=0.0, ge=0, description="the discriminator's features of drawn and true (iid)"
    )
    low_level_weight: float = Field(
        default=0.0, ge=0, description="low-level features of drawn and true (ires); 10 where used"
    )
    crop: float = Field(
        default=0.5, gt=0, le=1, description="least side of the square that CLIP gets, of the picture's; 1: all"
    )
    noise: float = Field(default=0.1, ge=0, le=1, description="share of noise in a condition")
    pseudo: float = Field(
        default=0.0, ge=0, le=1, description="chance that a condition is its picture's CLIP latent, well noised"
    )
    pseudo_noise: float = Field(default=0.75, ge=0, le=1, description="share of noise in such a condition")
    z: Literal["normal", "zero"] = Field(
        default="normal", description="the noise trained with; the released code has zeros"
    )
    mixing: float = Field(default=0.9, ge=0, le=1, description="chance that a picture takes its styles from two noises")
    r1: float = Field(
        default=10.0, ge=0, description="weight of the discriminator's squared gradient at true pictures (gamma)"
    )
    r1_every: int = Field(default=16, ge=1, description="steps between these")
    path: float = Field(default=2.0, ge=0, description="weight of the generator's path length penalty")
    path_every: int = Field(default=4, ge=1, description="steps between these")
    path_decay: float = Field(default=0.01, gt=0, le=1, description="pace of the running mean of path lengths")
    path_shrink: int = Field(default=2, ge=1, description="the penalty sees the batch divided by this")
    ada_target: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="adaptive augmentation keeps the mean sign of true logits here (0.6); 0: no augmentation",
    )
    ada_thousands: float = Field(
        default=500.0, gt=0, description="thousands of pictures in which its chance can rise from 0 to 1"
    )
    ada_every: int = Field(default=4, ge=1, description="steps between its adjustments")


class StyleGan2Sampling(Config):
    """How pictures are drawn."""

    samples: int = Field(default=1, ge=1, description="pictures per stimulus")
    truncation: float = Field(
        default=1.0, ge=0, le=1, description="psi: 1 takes w as drawn, 0 its mean over all noises"
    )
    pixel_noise: bool = Field(default=True, description="whether each convolution adds noise of its own")


# -- what both networks are made of ------------------------------------------------------------------------------------


def _active(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance of a standard normal about 1."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class _ScaledLinear(nn.Module):
    """A linear layer whose weights are of order 1 / pace and scaled as they are used, so that all learn equally fast."""

    def __init__(self, n_in: int, n_out: int, *, active: bool = False, pace: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / pace)
        self.bias = nn.Parameter(torch.full((n_out,), bias))
        self.gain = pace / math.sqrt(n_in)
        self.pace = pace
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self.gain, self.bias * self.pace)  # (n, n_out)
        if self.active:
            return _active(y)

        return y


class _Smooth(nn.Module):
    """The filter [1, 3, 3, 1] along both axes: after a doubling of the size, or before a halving."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", taps[:, None] * taps, persistent=False)

    def forward(self, x: Tensor, pad: int, *, gain: float = 1.0, stride: int = 1) -> Tensor:
        """Each channel filtered, after padding with zeros."""
        n = x.shape[1]
        return F.conv2d(x, (gain * self.kernel).expand(n, 1, 4, 4), padding=pad, stride=stride, groups=n)

    def double(self, x: Tensor) -> Tensor:
        """Twice the size, with zeros between values before filtering."""
        n = x.shape[1]
        return F.conv_transpose2d(x, (4 * self.kernel).expand(n, 1, 4, 4), stride=2, padding=1, groups=n)


# -- the generator -----------------------------------------------------------------------------------------------------


_MEAN_PACE = 0.005  # of the running mean of w


class _Style(nn.Module):
    """One layer's style (n, channels): the largest of the conditions' two-layer views, value by value, joined to w.

    Mind Reader, section 2.3: each layer has views of its own.
    """

    def __init__(self, c: StyleGan2Config, channels: int):
        super().__init__()
        self.gain = c.condition_gain
        pace = c.condition_pace
        width = c.w
        self.views = nn.ModuleList()

        for _ in range(c.conditions):
            first = _ScaledLinear(c.condition, c.hidden, active=True, pace=pace)
            second = _ScaledLinear(c.hidden, c.style, active=True, pace=pace)
            self.views.append(nn.Sequential(first, second))

        if c.conditions:
            width += c.style

        self.affine = _ScaledLinear(width, channels, bias=1.0)

    def forward(self, w: Tensor, conditions: Tensor) -> Tensor:
        if not len(self.views):
            return self.affine(w)

        viewed = []
        for view, condition in zip(self.views, conditions.unbind(1), strict=True):
            viewed.append(view(self.gain * condition))  # (n, style)

        u = reduce(torch.maximum, viewed)
        return self.affine(torch.cat([u, w], 1))  # (n, channels)


def modulated(x: Tensor, weight: Tensor, style: Tensor, *, up: bool = False, demodulate: bool = True) -> Tensor:
    """A convolution whose input channels are scaled by each picture's style.

        y = conv(x, W s) / sqrt(sum of (W s)^2 over inputs and taps + 1e-8)      the division only if `demodulate`

    Inputs and outputs are scaled in place of the weights: the same sums as a grouped convolution with one set of weights
    per picture, and faster.

    Parameters
    ----------
    x : Tensor of shape (n, inputs, height, width)
        activations
    weight : Tensor of shape (outputs, inputs, k, k)
        W, shared by all pictures
    style : Tensor of shape (n, inputs)
        s
    up : bool, default False
        leave zeros between values, so that the result is (2 height + 1, 2 width + 1)
    demodulate : bool, default True
        whether to bring outputs back to unit variance

    Returns
    -------
    Tensor of shape (n, outputs, height, width)
        of twice the size and one more with `up`

    References
    ----------
    Karras et al. 2020, eqs. 1 and 3.
    """
    y = x * style[:, :, None, None]
    if up:
        y = F.conv_transpose2d(y, weight.transpose(0, 1), stride=2)  # (n, outputs, 2 height + 1, 2 width + 1)
    else:
        y = F.conv2d(y, weight, padding=weight.shape[2] // 2)  # (n, outputs, height, width)

    if not demodulate:
        return y

    power = F.linear(style.square(), weight.square().sum((2, 3)))  # (n, outputs)
    return y * (power + 1e-8).rsqrt()[:, :, None, None]


class _StyledConvolution(nn.Module):
    """Modulated convolution, noise, bias and activation; doubles the size where asked."""

    def __init__(self, c: StyleGan2Config, n_in: int, n_out: int, *, up: bool = False):
        super().__init__()
        self.style = _Style(c, n_in)
        self.up = up
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 3, 3))
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.smooth = _Smooth()

    def forward(self, x: Tensor, w: Tensor, conditions: Tensor, noise: Tensor | None) -> Tensor:
        y = modulated(x, self.weight, self.style(w, conditions), up=self.up)
        if self.up:
            y = self.smooth(y, 1, gain=4.0)

        if noise is not None:
            y = y + noise * self.strength

        return _active(y + self.bias[:, None, None])


class _ToColours(nn.Module):
    """Channels to red, green and blue."""

    def __init__(self, c: StyleGan2Config, n_in: int):
        super().__init__()
        self.style = _Style(c, n_in)
        self.gain = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.randn(3, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor, conditions: Tensor) -> Tensor:
        style = self.style(w, conditions) * self.gain
        return modulated(x, self.weight, style, demodulate=False) + self.bias[:, None, None]


class _SynthesisBlock(nn.Module):
    """The convolutions at one size, and what they add to the picture."""

    def __init__(self, c: StyleGan2Config, size: int):
        super().__init__()
        n = c.channels(size)
        self.convolutions = nn.ModuleList()

        if size > 4:  # the first block starts from the constant and doubles nothing
            self.convolutions.append(_StyledConvolution(c, c.channels(size // 2), n, up=True))

        self.convolutions.append(_StyledConvolution(c, n, n))
        self.colours = _ToColours(c, n)
        self.smooth = _Smooth()


class GeneratorNetwork(nn.Module):
    """Noise and conditions to pictures (Mind Reader, eq. 3).

    Parameters
    ----------
    **config : Any
        fields of :class:`StyleGan2Config`; Mind Reader's by default. Weights are drawn from torch's global generator

    Attributes
    ----------
    config : StyleGan2Config
        sizes
    mean : Tensor of shape (w,)
        running mean of w, where truncation leads

    Raises
    ------
    ConfigError
        For fields that do not exist or do not fit.

    Examples
    --------
    >>> network = GeneratorNetwork(**StyleGan2Config.lab().model_dump())
    >>> network(torch.zeros(2, 2, 64), torch.zeros(2, 64)).shape
    torch.Size([2, 3, 32, 32])
    """

    mean: Tensor

    def __init__(self, **config: Any):
        super().__init__()
        self.config = c = validate(StyleGan2Config, config, "the configuration of StyleGAN2")
        widths = [c.z] + [c.w] * c.mapping_layers
        self.mapping = nn.ModuleList(_ScaledLinear(a, b, active=True, pace=0.01) for a, b in pairwise(widths))
        self.register_buffer("mean", torch.zeros(c.w))
        self.first = nn.Parameter(torch.randn(c.channels(4), 4, 4))
        self.blocks = nn.ModuleList(_SynthesisBlock(c, size) for size in c.sizes)

    def forward(
        self, conditions: Tensor, z: Tensor, noise: Sequence[Tensor] | None = None, *, truncation: float = 1.0
    ) -> Tensor:
        """Pictures.

        Parameters
        ----------
        conditions : Tensor of shape (n, conditions, condition)
            each of unit length
        z : Tensor of shape (n, z)
            standard normal
        noise : sequence of Tensor, optional
            per convolution (n, 1, side, side), sides as in ``config.noise_sizes``; none is added when None
        truncation : float, default 1.0
            psi: w is drawn towards its mean, 1 not at all

        Returns
        -------
        Tensor of shape (n, 3, size, size)
            about -1 to 1, not clipped
        """
        w = self.map(z)  # (n, w)
        if truncation != 1:
            w = self.mean.lerp(w, truncation)

        styles = w[:, None].expand(-1, self.config.slots, -1)  # (n, slots, w)
        return self.synthesise(styles, conditions, noise)

    def map(self, z: Tensor) -> Tensor:
        """The mapping network: noise (n, z) to (n, w)."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping:
            x = layer(x)

        return x

    @torch.no_grad()
    def track_mean(self, w: Tensor) -> None:
        """Move the running mean of w, where truncation leads, towards these (n, w)."""
        self.mean.lerp_(w.float().mean(0), _MEAN_PACE)

    def synthesise(self, w: Tensor, conditions: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """The synthesis network: pictures of one w for each layer.

        Parameters
        ----------
        w : Tensor of shape (n, slots, w)
            one for each convolution and one for the last colours
        conditions : Tensor of shape (n, conditions, condition)
            see :meth:`forward`
        noise : sequence of Tensor, optional
            see :meth:`forward`

        Returns
        -------
        Tensor of shape (n, 3, size, size)
            about -1 to 1, not clipped

        Raises
        ------
        DataError
            For conditions of another shape.
        """
        c = self.config
        n = len(w)
        if conditions.shape != (n, c.conditions, c.condition):
            raise DataError(
                f"conditions of {n} pictures must be ({n}, {c.conditions}, {c.condition}), but are {tuple(conditions.shape)}."
            )

        if noise is None:
            noises: Sequence[Tensor | None] = [None] * len(c.noise_sizes)
        else:
            noises = noise

        x = self.first.expand(n, -1, -1, -1)  # (n, channels, 4, 4)
        picture = None
        slot = 0

        for block in cast(Sequence[_SynthesisBlock], self.blocks):
            for convolution in block.convolutions:
                x = convolution(x, w[:, slot], conditions, noises[slot])
                slot += 1

            # Colours share the w of the convolution that follows them.
            colours = block.colours(x, w[:, slot], conditions)
            if picture is None:
                picture = colours
            else:
                picture = block.smooth.double(picture) + colours

        assert picture is not None  # a generator has at least two blocks
        return picture

    def duplicate(self) -> None:
        """Make every condition's view a copy of the first: how one condition's network becomes the start of two's."""
        for module in self.modules():
            if isinstance(module, _Style):
                first, *others = module.views
                for view in others:
                    view.load_state_dict(first.state_dict())


# -- the discriminator -------------------------------------------------------------------------------------------------


class _ScaledConvolution(nn.Module):
    """A convolution scaled as it is used, with filtering and every second value only where the size is halved."""

    def __init__(self, n_in: int, n_out: int, k: int, *, down: bool = False, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, k, k))

        if bias:
            self.bias = nn.Parameter(torch.zeros(n_out))
        else:
            self.bias = None

        self.gain = 1 / math.sqrt(n_in * k * k)

        if down:
            self.smooth = _Smooth()
        else:
            self.smooth = None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        k = self.weight.shape[2]

        if self.smooth is None:
            y = F.conv2d(x, weight, padding=k // 2)
        elif k == 1:
            y = F.conv2d(self.smooth(x, 1, stride=2), weight)
        else:
            y = F.conv2d(self.smooth(x, 2), weight, stride=2)

        if self.bias is None:
            return y

        return _active(y + self.bias[:, None, None])


class _HalvingBlock(nn.Module):
    """Two convolutions and a way around them, to half the size."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.one = _ScaledConvolution(n_in, n_in, 3)
        self.two = _ScaledConvolution(n_in, n_out, 3, down=True)
        self.skip = _ScaledConvolution(n_in, n_out, 1, down=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.skip(x) + self.two(self.one(x))) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """True or drawn, and the conditions as read from the picture.

        logit = out(h) + mean over conditions k of <s_k(h), c_k>

    Parameters
    ----------
    **config : Any
        fields of :class:`StyleGan2Config`; Mind Reader's by default

    Notes
    -----
    The released code sums the products over the whole batch, so that every logit depends on every condition
    (``logit="batch"``), and over the two conditions with weight 1/2 each.
    """

    def __init__(self, **config: Any):
        super().__init__()
        self.config = c = validate(StyleGan2Config, config, "the configuration of StyleGAN2")
        sizes = c.sizes[::-1]
        last = c.channels(4)
        self.colours = _ScaledConvolution(3, c.channels(c.size), 1)
        self.blocks = nn.ModuleList(_HalvingBlock(c.channels(size), c.channels(size // 2)) for size in sizes[:-1])
        self.convolution = _ScaledConvolution(last + 1, last, 3)
        self.linear = _ScaledLinear(16 * last, last, active=True)
        self.out = _ScaledLinear(last, 1)
        self.heads = nn.ModuleList(_ScaledLinear(last, c.condition) for _ in range(c.conditions))

    def forward(self, x: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Whether pictures are true, and the conditions as read from them.

        Parameters
        ----------
        x : Tensor of shape (n, 3, size, size)
            pictures, -1 to 1
        conditions : Tensor of shape (n, conditions, condition)
            what they should show

        Returns
        -------
        tuple[Tensor, Tensor]
            logits (n,), above 0 for true, and features (n, conditions, condition)

        Raises
        ------
        DataError
            For pictures that cannot be grouped evenly.
        """
        y = self.colours(x)
        for block in self.blocks:
            y = block(y)

        y = self.convolution(with_deviation(y, self.config.group))  # (n, channels, 4, 4)
        h = self.linear(y.flatten(1))  # (n, channels)
        logit = self.out(h)[:, 0]  # (n,)
        if not len(self.heads):
            return logit, h.new_zeros(len(h), 0, self.config.condition)

        features = torch.stack([head(h) for head in self.heads], 1)  # (n, conditions, condition)
        match = (features * conditions).sum((1, 2)) / len(self.heads)  # (n,)
        if self.config.logit == "batch":
            match = match.sum()

        return logit + match, features

    def duplicate(self) -> None:
        """Make every condition's head a copy of the first."""
        if not len(self.heads):
            return

        first, *others = self.heads
        for head in others:
            head.load_state_dict(first.state_dict())


def with_deviation(x: Tensor, group: int) -> Tensor:
    """One more channel: the mean deviation of values over pictures of a group, which drawn pictures that are all alike lack.

    Parameters
    ----------
    x : Tensor of shape (n, channels, height, width)
        activations
    group : int
        pictures in a group, at most: every (n / group)th, as in the released networks

    Returns
    -------
    Tensor of shape (n, channels + 1, height, width)

    Raises
    ------
    DataError
        For pictures that cannot be grouped evenly.
    """
    n, _, h, w = x.shape
    group = min(group, n)
    if n % group:
        raise DataError(f"{n} pictures cannot be judged in groups of {group}; make the batch a multiple of {group}.")

    y = x.view(group, n // group, *x.shape[1:])
    deviation = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))  # (n / group,)
    channel = deviation.repeat(group)[:, None, None, None].expand(-1, 1, h, w)  # (n, 1, height, width)

    return torch.cat([x, channel], 1)


# -- the training objective --------------------------------------------------------------------------------------------


# Pictures (n, 3, side, side), -1 to 1, to features (n, d), with gradients flowing back.
PictureFeatures = Callable[[Tensor], Tensor]


def contrastive_cost(a: Tensor, b: Tensor, tau: float = 0.5, row_share: float = 0.0) -> Tensor:
    """How badly rows of `b` find their own row of `a` among all, and the other way round.

        S_ij = cos(a_i, b_j) / tau
        C = - mean_i [ r log softmax_j(S)_ii + (1 - r) log softmax_i(S)_ii ]

    Parameters
    ----------
    a : Tensor of shape (n, d)
        what rows of `b` should find
    b : Tensor of shape (n, d)
        of any length but 0
    tau : float, default 0.5
        temperature, above 0
    row_share : float, default 0.0
        r

    Returns
    -------
    Tensor
        scalar; ln(n) when all rows are alike

    References
    ----------
    Lin et al. 2022, eq. 1; r = 0 and tau = 0.5 in the released code, which takes the logarithm of tau times the softmax:
    another constant, the same gradient.
    """
    s = F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).T / tau  # (n, n)
    diagonal = torch.arange(len(s), device=s.device)

    loss = s.new_zeros(())
    if row_share:
        loss = row_share * F.cross_entropy(s, diagonal)
    if row_share < 1:
        loss = loss + (1 - row_share) * F.cross_entropy(s.T, diagonal)

    return loss


def noised(c: Tensor, noise: Tensor, share: float) -> Tensor:
    """Unit vectors drawn towards noise: norm((1 - share) norm(c) + share norm(noise)).

    Parameters
    ----------
    c : Tensor of shape (..., d)
        of any length
    noise : Tensor of shape (..., d)
        standard normal
    share : float
        of the noise, 0-1

    Returns
    -------
    Tensor of shape (..., d)
        of unit length
    """
    return F.normalize((1 - share) * F.normalize(c, dim=-1) + share * F.normalize(noise, dim=-1), dim=-1)


def position_means(maps: Tensor, kind: str = "mean") -> Tensor:
    """One value per position from feature maps: what Mind Reader's ResNet term compares (section 2.3).

    Parameters
    ----------
    maps : Tensor of shape (n, channels, h, w)
        features at each position
    kind : str, default "mean"
        "mean" over channels, over its largest value in the picture; or "released", as Mind Reader's code has it:
        largest and mean over channels, over the largest of each in the whole batch, the mean twice

    Returns
    -------
    Tensor of shape (n, h w)
    """
    mean = maps.mean(1).flatten(1)  # (n, h w)
    if kind == "mean":
        return mean / mean.abs().amax(1, keepdim=True).clamp(min=1e-12)

    largest = maps.amax(1).flatten(1)
    return largest / largest.max() + 2 * mean / mean.max()


class GanObjective(nn.Module):
    """Both networks and all terms of their losses (Mind Reader, eqs. 4 and 5).

    Parameters
    ----------
    network : GeneratorNetwork
        the generator, the one that is kept in the end
    discriminator : Discriminator
        of the same sizes
    config : GanTraining
        weights of the terms
    clip : PictureFeatures, optional
        CLIP's latents of pictures, at the size CLIP takes; needed where the weight of one of its terms is not 0
    low_level : PictureFeatures, optional
        low-level features; needed where their weight is not 0
    side : int, optional
        of the pictures `clip` takes; the generator's by default

    Raises
    ------
    ConfigError
        Where a term has a weight, but what it needs is missing.

    Notes
    -----
    The turns of a step are those of StyleGAN2's released training: generator, its path length every 4th step,
    discriminator, R1 every 16th. Each is a step of Adam of its own; penalties are multiplied by their interval.
    """

    path_mean: Tensor
    chance: Tensor
    signs: Tensor

    def __init__(
        self,
        network: GeneratorNetwork,
        discriminator: Discriminator,
        config: GanTraining,
        clip: PictureFeatures | None = None,
        low_level: PictureFeatures | None = None,
        side: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.discriminator = discriminator
        self.config = config
        self._side = side or network.config.size
        clip_weight = config.clip_weight + config.real_clip_weight + config.pseudo
        self._clip = _needed(clip, "clip", clip_weight)
        self._low_level = _needed(low_level, "low_level", config.low_level_weight)

        self.register_buffer("path_mean", torch.zeros(()))
        self.register_buffer("chance", torch.zeros(()))  # of each augmentation
        self.register_buffer("signs", torch.zeros(2))  # sum and count of signs of true logits since the last adjustment

    def turns(self, step: int) -> list[str]:
        """What is learned in a step, in order."""
        config = self.config
        turns = ["generator"]
        if config.path and step % config.path_every == 0:
            turns.append("path")

        turns.append("discriminator")
        if config.r1 and step % config.r1_every == 0:
            turns.append("r1")

        return turns

    def loss(self, batch: dict[str, Tensor], draws: Draws, turn: str) -> tuple[Tensor, dict[str, Any]]:
        """The loss of one turn; only the weights that learn in it get gradients.

        Parameters
        ----------
        batch : dict[str, Tensor]
            ``x`` (n, 3, size, size), -1 to 1, and ``conditions`` (n, conditions, condition)
        draws : Draws
            noise of this turn
        turn : str
            "generator", "path", "discriminator" or "r1"

        Returns
        -------
        tuple[Tensor, dict[str, Any]]
            scalar, and the values of its terms
        """
        self.network.requires_grad_(turn in ("generator", "path"))
        self.discriminator.requires_grad_(turn in ("discriminator", "r1"))
        conditions = self._conditions(batch, draws)
        return getattr(self, f"_{turn}")(batch["x"], conditions, draws)

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _generator(self, x: Tensor, c: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Eq. 5: be taken for true, and match the conditions under the discriminator and under CLIP."""
        config = self.config
        drawn = self._draw(c, draws)[0]  # (n, 3, size, size)
        logit, features = self.discriminator(self._augment(drawn, draws), c)

        adversarial = F.softplus(-logit).mean()
        terms = {"generator": adversarial, "features": config.features_weight * self._matches(features, c)}

        if config.clip_weight or config.real_clip_weight:
            latents = self._clip(self._view(drawn, draws))  # (n, condition)
            each = latents[:, None].expand(-1, c.shape[1], -1)  # (n, conditions, condition)
            terms["clip"] = config.clip_weight * self._matches(each, c)

            if config.real_clip_weight:
                terms["real clip"] = config.real_clip_weight * self._contrast(latents, self._latents(x))

        if config.real_features_weight:
            with torch.no_grad():
                real = self.discriminator(x, c)[1]

            terms["real features"] = config.real_features_weight * self._matches(real, features)

        if config.low_level_weight:
            with torch.no_grad():
                real = self._low_level(x)

            terms["low level"] = config.low_level_weight * self._contrast(real, self._low_level(drawn))

        return sum(terms.values(), start=adversarial.new_zeros(())), terms

    def _path(self, x: Tensor, c: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Keep steps in w of one length in pictures (Karras et al. 2020, eq. 4)."""
        config = self.config
        n = max(1, len(c) // config.path_shrink)
        picture, w = self._draw(c, draws, n)

        y = draws.normal(*picture.shape[1:])[:n] / math.sqrt(picture.shape[2] * picture.shape[3])
        (slope,) = torch.autograd.grad((picture * y).sum(), w, create_graph=True)  # (n, slots, w)
        length = slope.square().sum(2).mean(1).sqrt()  # (n,)

        mean = self.path_mean.lerp(length.mean(), config.path_decay)
        self.path_mean.copy_(mean.detach())
        penalty = (length - mean).square().mean()

        return config.path * config.path_every * penalty, {"path length": mean}

    def _discriminator(self, x: Tensor, c: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Eq. 4: tell true from drawn, and read the conditions of true pictures."""
        with torch.no_grad():
            drawn = self._draw(c, draws)[0]

        fake, _ = self.discriminator(self._augment(drawn, draws), c)
        real, features = self.discriminator(self._augment(x, draws), c)
        self._adjust(real.detach())

        adversarial = F.softplus(fake).mean() + F.softplus(-real).mean()
        matches = self._matches(features, c)
        logs = {
            "discriminator": adversarial, "real features": matches, "true logit": real.mean(), "drawn logit": fake.mean(),
        }  # fmt: skip

        return adversarial + self.config.features_weight * matches, logs

    def _r1(self, x: Tensor, c: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """The squared slope of the discriminator at true pictures (Karras et al. 2020, appendix B)."""
        # At what the discriminator gets: sampling pictures anew, as augmentation does, has no second derivative.
        x = self._augment(x, draws).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(self.discriminator(x, c)[0].sum(), x, create_graph=True)
        penalty = slope.square().sum((1, 2, 3)).mean()

        # Weights the slope does not depend on, such as the last bias, would have no gradient at all.
        return self.config.r1 / 2 * self.config.r1_every * penalty, {"r1": penalty}

    # -- what they share -----------------------------------------------------------------------------------------------

    def _conditions(self, batch: dict[str, Tensor], draws: Draws) -> Tensor:
        """Conditions with noise, some exchanged for their pictures' own latents with more of it."""
        c = batch["conditions"]  # (n, conditions, condition)
        config = self.config
        out = noised(c, draws.normal(*c.shape[1:]), config.noise)

        if config.pseudo:
            latents = self._latents(batch["x"])[:, None].expand_as(c)
            pseudo = noised(latents, draws.normal(*c.shape[1:]), config.pseudo_noise)
            is_pseudo = draws.uniform() < config.pseudo  # (n,)
            out = torch.where(is_pseudo[:, None, None], pseudo, out)

        return out

    def _draw(self, c: Tensor, draws: Draws, n: int | None = None) -> tuple[Tensor, Tensor]:
        """Pictures of the first `n` conditions, and the w they are of, one for each layer."""
        network = self.network
        slots = network.config.slots
        n = n or len(c)
        z = draws.normal(2, network.config.z)[:n]  # (n, 2, z)

        first = z[:, 0]
        if self.config.z == "zero":
            first = torch.zeros_like(first)

        w = network.map(first)
        network.track_mean(w)

        # Style mixing: layers from a random one on take the w of a second noise (Karras et al. 2019, section 3.1).
        cut = int(torch.randint(1, slots, (), generator=draws.generator))
        is_mixed = float(torch.rand((), generator=draws.generator)) < self.config.mixing
        w = w[:, None].expand(-1, slots, -1)  # (n, slots, w)

        if is_mixed:
            second = network.map(z[:, 1])[:, None].expand(-1, slots - cut, -1)
            w = torch.cat([w[:, :cut], second], 1)

        noise = [draws.normal(1, side, side)[:n] for side in network.config.noise_sizes]
        return network.synthesise(w, c[:n], noise), w

    def _contrast(self, a: Tensor, b: Tensor) -> Tensor:
        return contrastive_cost(a, b, self.config.tau, self.config.row_share)

    def _matches(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean contrast over conditions of (n, conditions, d)."""
        n_conditions = a.shape[1]
        total = a.new_zeros(())
        if not n_conditions:
            return total

        for k in range(n_conditions):
            total = total + self._contrast(a[:, k], b[:, k])

        return total / n_conditions

    def _view(self, x: Tensor, draws: Draws) -> Tensor:
        """One random square of all pictures, at the size CLIP takes."""
        size = x.shape[2]
        side = size
        least = int(self.config.crop * size)

        if least < size:
            side = int(torch.randint(least, size, (), generator=draws.generator))
            top, left = torch.randint(size - side + 1, (2,), generator=draws.generator).tolist()
            x = x[:, :, top : top + side, left : left + side]

        return self._resized(x)

    def _resized(self, x: Tensor) -> Tensor:
        """Pictures at the size CLIP takes."""
        if x.shape[2] == self._side:
            return x

        return F.interpolate(x, (self._side, self._side), mode="bicubic", align_corners=False)

    @torch.no_grad()
    def _latents(self, x: Tensor) -> Tensor:
        """CLIP's latents of whole pictures."""
        return self._clip(self._resized(x))

    def _augment(self, x: Tensor, draws: Draws) -> Tensor:
        if self.config.ada_target:
            return augmented_batch(x, draws, float(self.chance))

        return x

    @torch.no_grad()
    def _adjust(self, real: Tensor) -> None:
        """Augment more where true pictures are recognised too surely, less where not (Karras et al. 2020, ADA, section 3.1)."""
        config = self.config
        if not config.ada_target:
            return

        self.signs += torch.stack([real.sign().sum(), torch.full_like(real[0], len(real))])
        if self.signs[1] < config.ada_every * len(real):
            return

        step = float(self.signs[1]) / (1000 * config.ada_thousands)
        self.chance += step * torch.sign(self.signs[0] / self.signs[1] - config.ada_target)
        self.chance.clamp_(0, 1)
        self.signs.zero_()


def _needed(features: PictureFeatures | None, name: str, weight: float) -> PictureFeatures:
    """Features that terms of a weight need."""
    if features is not None:
        return features

    if weight:
        raise ConfigError(
            f"a term of the training has the weight {weight} but '{name}' is missing; pass {name}=..., or set the weight to 0."
        )

    def never(x: Tensor) -> Tensor:
        raise AssertionError(f"'{name}' is not needed by any term")

    return never


def adam(objective: GanObjective, settings: TrainConfig) -> torch.optim.Optimizer:
    """Adam for both sides, each with rate and decay corrected for its extra penalty steps: lr r, beta^r, r = k / (k + 1).

    One object, two optimisers: a turn leaves the other side without gradients, and what has none is not moved.

    Parameters
    ----------
    objective : GanObjective
        both networks, and every how many steps each is penalised
    settings : TrainConfig
        with the rate and the decays before they are corrected

    Returns
    -------
    torch.optim.Optimizer
        one group for the generator, one for the discriminator

    References
    ----------
    Karras et al. 2020, appendix B, "lazy regularization".
    """
    config = objective.config
    sides = (
        (objective.network, config.path, config.path_every),
        (objective.discriminator, config.r1, config.r1_every),
    )
    groups = []

    for network, penalty, every in sides:
        if penalty:
            share = every / (every + 1)
        else:
            share = 1.0

        betas = tuple(beta**share for beta in settings.adam_betas)
        groups.append({"params": list(network.parameters()), "lr": settings.lr * share, "betas": betas})

    return torch.optim.Adam(groups, lr=settings.lr, betas=settings.adam_betas, eps=1e-8)


# -- the fitted part ---------------------------------------------------------------------------------------------------


class StyleGan2(ModulePart):
    """The generator as a fitted part of a run.

    Parameters
    ----------
    module : GeneratorNetwork
        the generator
    config : mapping[str, Any]
        fields of :class:`StyleGan2Config`

    Examples
    --------
    >>> part = StyleGan2.of(GeneratorNetwork(**StyleGan2Config.lab().model_dump()))
    >>> latents = np.eye(2, 64, dtype=np.float32)
    >>> part.sample(latents, latents, ["a", "b"], StyleGan2Sampling(samples=3), seed=0).shape
    (2, 3, 32, 32, 3)
    """

    module: GeneratorNetwork

    @classmethod
    def of(cls, generator: GeneratorNetwork) -> Self:
        """The part that holds a network.

        Parameters
        ----------
        generator : GeneratorNetwork
            put into evaluation mode and frozen

        Returns
        -------
        StyleGan2
            with its configuration
        """
        return cls(generator.eval().requires_grad_(False), generator.config.model_dump(mode="json"))

    @classmethod
    def bundled(cls) -> Self:
        """The bundled network. Raises NotAvailable where it is not installed."""
        return cls.of(cast(GeneratorNetwork, bundled.load("stylegan2")))

    @classmethod
    def from_public(cls, path: str | Path) -> Self:
        """Public weights, with two conditions: a network of one condition is given a second one like it.

        Parameters
        ----------
        path : str or Path
            a StyleGAN pickle, nothing in which is run, or a folder written by :func:`convert_pickle`

        Returns
        -------
        StyleGan2
            of the averaged generator

        Raises
        ------
        ModelError
            Missing or damaged files, pickles that want to run anything, or weights that are not StyleGAN2's.
        """
        if Path(path).is_dir():
            generator, _ = read_converted(path)
        else:
            generator, _ = read_networks(path, conditions=2)

        return cls.of(generator)

    @classmethod
    def build(cls, config: dict[str, Any]) -> GeneratorNetwork:
        """An untrained network.

        Parameters
        ----------
        config : dict[str, Any]
            fields of :class:`StyleGan2Config`

        Returns
        -------
        GeneratorNetwork
            frozen, in evaluation mode
        """
        return GeneratorNetwork(**config).eval().requires_grad_(False)

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        return self.module.config.size

    def learn(
        self,
        pixels: np.ndarray,
        image_latents: np.ndarray,
        text_latents: np.ndarray,
        config: GanTraining,
        settings: TrainConfig,
        train: Callable[..., Any],
        *,
        discriminator: Discriminator,
        clip: PictureFeatures | None = None,
        low_level: PictureFeatures | None = None,
        side: int | None = None,
    ) -> None:
        """Train on with pictures and their latents, as a brain decoder gives them; afterwards it holds averaged weights.

        Parameters
        ----------
        pixels : ndarray of shape (n, size, size, 3)
            uint8 of 0-255, or floats of 0-1
        image_latents : ndarray of shape (n, condition)
            of any length but 0
        text_latents : ndarray of shape (n, condition)
            of any length but 0
        config : GanTraining
            weights of the losses
        settings : TrainConfig
            how; the learning rate and decay rates are those of Adam before they are corrected
        train : callable
            called with network, fetch, number of items, `settings`, a digest of the data and the optimiser
        discriminator : Discriminator
            the other side, of the same sizes; changed in place
        clip : PictureFeatures, optional
            see :class:`GanObjective`
        low_level : PictureFeatures, optional
            see :class:`GanObjective`
        side : int, optional
            see :class:`GanObjective`
        """
        conditions = self._conditions(image_latents, text_latents, len(pixels))
        x = to_network(pixels)

        def fetch(rows: np.ndarray) -> dict[str, Tensor]:
            return {"x": x[rows], "conditions": conditions[rows]}

        objective = GanObjective(self.module, discriminator, config, clip, low_level, side).requires_grad_(True)
        data = digest_of(x.numpy(), conditions.numpy())
        train(objective, fetch, len(x), settings, data=data, optimizer=adam)
        self.module.requires_grad_(False).cpu()

    @torch.no_grad()
    def sample(
        self,
        image_latents: np.ndarray,
        text_latents: np.ndarray | None,
        ids: Sequence[Any],
        sampling: StyleGan2Sampling,
        seed: int,
    ) -> np.ndarray:
        """Pictures drawn from latents.

        The noise of picture s of a stimulus is a function of `seed`, its id and s, not of the other stimuli, of order, or
        of the number of samples.

        Parameters
        ----------
        image_latents : ndarray of shape (n, condition)
            of any length but 0
        text_latents : ndarray of shape (n, condition) or None
            of any length but 0; None for a network of one condition
        ids : sequence
            n stimulus ids; equal ids get equal noise
        sampling : StyleGan2Sampling
            samples, truncation, and whether noise is added to pixels
        seed : int
            of the noise

        Returns
        -------
        ndarray of shape (n, samples, size, size, 3), float32
            0-1

        Raises
        ------
        DataError
            Latents of another shape, not finite or of length 0, or not one per id.
        ModelError
            When the network gives NaN.
        """
        if torch.cuda.is_available():
            self.module.to("cuda")

        network = self.module
        c = self.module.config
        conditions = self._conditions(image_latents, text_latents, len(ids))
        pictures = np.empty((len(ids), sampling.samples, c.size, c.size, 3), dtype=np.float32)
        device = network.first.device

        for row, stimulus in enumerate(ids):
            condition = conditions[row : row + 1].to(device)  # (1, conditions, condition)

            for k in range(sampling.samples):
                # One at a time: sums of several pictures are rounded differently at each place in a batch.
                z, *pixels = (torch.from_numpy(a[None]).to(device) for a in _noise(seed, stimulus, k, c))
                if sampling.pixel_noise:
                    noise = pixels
                else:
                    noise = None

                x = network(condition, z, noise, truncation=sampling.truncation)  # (1, 3, size, size)
                pictures[row, k] = from_network(x)[0]

        if not np.isfinite(pictures).all():
            raise ModelError("StyleGAN2 gives NaN: load its weights again, or train again at a lower learning rate.")

        return pictures

    def _conditions(self, image: np.ndarray, text: np.ndarray | None, n: int) -> Tensor:
        """(n, conditions, condition) of unit length."""
        c = self.module.config
        latents = [np.asarray(a, dtype=np.float32) for a in (image, text) if a is not None]

        for a in latents:
            if a.shape != (n, c.condition):
                raise DataError(
                    f"{n} stimuli need latents of shape ({n}, {c.condition}), but some are {a.shape}; use the latents this "
                    "generator was trained on, one row per stimulus."
                )

        if len(latents) != c.conditions:
            raise DataError(f"this generator takes {c.conditions} latents per stimulus, but {len(latents)} came.")

        lengths = np.stack([np.linalg.norm(a, axis=1) for a in latents])  # (conditions, n)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise DataError("latents hold NaN or infinite values, or are all 0, which has no direction.")

        units = [a / length[:, None] for a, length in zip(latents, lengths, strict=True)]
        return torch.from_numpy(np.stack(units, 1))


def _noise(seed: int, stimulus: Any, sample: int, c: StyleGan2Config) -> list[np.ndarray]:
    """z, and the noise of each convolution, of one picture."""
    rng = picture_rng(seed, stimulus, sample)
    shapes = [(c.z,), *((1, side, side) for side in c.noise_sizes)]
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


# -- public weights ----------------------------------------------------------------------------------------------------


# Endings of constants that a public network stores, and names of the two networks in a converted folder.
_IGNORED = ("resample_filter", "noise_const")
_KEPT = ("generator", "discriminator")


@reads("file", ModelError)
def read_networks(file: str | Path, *, conditions: int | None = None) -> tuple[GeneratorNetwork, Discriminator | None]:
    """The averaged generator and the discriminator of a public pickle.

    Parameters
    ----------
    file : str or Path
        with ``G_ema``, and ``D`` where training is to go on
    conditions : int, optional
        2 makes a network of one condition (Lafite) one of two, each a copy of the first; as in the file when None

    Returns
    -------
    tuple[GeneratorNetwork, Discriminator or None]
        frozen, in evaluation mode

    Raises
    ------
    ModelError
        When the file wants to run anything, is damaged, or its weights are not StyleGAN2's.

    References
    ----------
    Lin et al. 2022, section 2.3: where Mind Reader starts from.
    """
    networks = read_pickle(file)
    if "G_ema" not in networks:
        raise ModelError(f"{file} has no averaged generator 'G_ema', only {', '.join(sorted(networks))}.")

    weights = generator_names(networks["G_ema"])
    config = config_of(weights)

    if conditions is not None and conditions != config.conditions:
        if config.conditions != 1:
            raise ModelError(f"{file} has {config.conditions} conditions; only one can be made into {conditions}.")

        config = config.model_copy(update={"conditions": conditions})

    generator = _filled(GeneratorNetwork, config, weights, f"the generator of {file}")
    if "D" not in networks:
        return generator, None

    weights = discriminator_names(networks["D"])
    return generator, _filled(Discriminator, config, weights, f"the discriminator of {file}")


Network = TypeVar("Network", GeneratorNetwork, Discriminator)


def _filled(kind: type[Network], config: StyleGan2Config, weights: dict[str, Tensor], owner: str) -> Network:
    """A network with these weights; conditions that are missing are copies of the first."""
    network = _empty(kind, config)
    for name in network.state_dict():
        first = re.sub(r"(views|heads)\.[1-9]\d*\.", r"\1.0.", name)
        if config.conditions > 1 and name not in weights and first in weights:
            weights[name] = weights[first]

    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"'{name}' of {owner} holds NaN or infinite values; get the file again.")

    load_module_state(network, {k: v.float().numpy() for k, v in weights.items()}, owner)
    return network


def _empty(kind: type[Network], config: StyleGan2Config) -> Network:
    """A frozen network whose weights are still to come; torch's global generator is left as it is."""
    with torch.random.fork_rng([]):
        network = kind(**config.model_dump(mode="json"))

    return network.eval().requires_grad_(False)


def convert_pickle(file: str | Path, folder: str | Path, *, conditions: int | None = None) -> Path:
    """A public pickle as safetensors and JSON, once and for all.

    Parameters
    ----------
    file : str or Path
        as :func:`read_networks` takes it
    folder : str or Path
        to make
    conditions : int, optional
        as :func:`read_networks` takes it

    Returns
    -------
    Path
        the folder

    Raises
    ------
    ModelError
        As :func:`read_networks`.
    """
    from safetensors.numpy import save

    generator, discriminator = read_networks(file, conditions=conditions)
    with open(file, "rb") as handle:
        source = hashlib.file_digest(handle, "sha256").hexdigest()

    about = {"config": generator.config.model_dump(mode="json"), "source_sha256": source}

    with atomic.folder(atomic.checked_path(folder)) as temporary:
        for name, network in zip(_KEPT, (generator, discriminator), strict=True):
            if network is not None:
                (temporary / f"{name}.safetensors").write_bytes(save(module_state(network)))

        (temporary / "config.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    return Path(folder)


@reads("folder", ModelError)
def read_converted(folder: str | Path) -> tuple[GeneratorNetwork, Discriminator | None]:
    """Networks of a folder written by :func:`convert_pickle`. Raises ModelError for missing or damaged files."""
    folder = Path(folder)
    config = validate(StyleGan2Config, read_json(folder / "config.json")["config"], f"{folder}/config.json")
    generator_file, discriminator_file = (folder / f"{name}.safetensors" for name in _KEPT)

    generator = _empty(GeneratorNetwork, config)
    load_module_state(generator, read_safetensors(generator_file), str(generator_file))
    if not discriminator_file.is_file():
        return generator, None

    discriminator = _empty(Discriminator, config)
    load_module_state(discriminator, read_safetensors(discriminator_file), str(discriminator_file))

    return generator, discriminator


# -- their pickles -----------------------------------------------------------------------------------------------------


LARGEST = 4 * 2**30  # bytes a pickle may have; the published ones have up to 700 million

_DEEPEST = 16  # modules inside modules


@reads("file", ModelError)
def read_pickle(file: str | Path) -> dict[str, dict[str, Tensor]]:
    """Tensors by name of every network in a StyleGAN pickle, such as ``G_ema`` and ``D``.

    Raises
    ------
    ModelError
        When the file wants to run anything, is damaged, too large, or holds no networks.
    """
    file = Path(file)
    try:
        if file.stat().st_size > LARGEST:
            raise ModelError(f"{file} has {file.stat().st_size / 1e9:.1f} GB; StyleGAN2's pickles have less than one.")

        with open(file, "rb") as stream:
            check_pickle(stream, file.stat().st_size)
            content = _StyleGanUnpickler(stream, file).load()
    except OSError as error:
        raise ModelError(f"the checkpoint {file} cannot be read ({error.strerror or error}).") from error
    except ModelError:
        raise
    except Exception as error:  # a broken or hostile pickle can raise anything
        if memory.is_exhausted(error):
            raise

        raise ModelError(f"{file} is no StyleGAN2 pickle, or is damaged ({type(error).__name__}: {error}).") from error

    networks = {}
    if isinstance(content, dict):
        for name, value in content.items():
            if isinstance(value, _Shell):
                networks[str(name)] = _flat(value, file)

    if not networks:
        raise ModelError(f"{file} should hold networks by name, such as G_ema and D, but holds none.")

    return networks


class _Shell:
    """An instance of a class that was never imported: its attributes and nothing else."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            return

        for name, value in state.items():
            if isinstance(name, str):
                self.__dict__[name] = value


def _allowed() -> dict[str, Any]:
    """Everything a pickle may name. Made anew for each file: a pickle can set attributes of what it was given."""

    def network(meta: Any) -> _Shell:
        shell = _Shell()
        shell.__setstate__(meta["state"])
        return shell

    def storage(data: Any) -> Tensor:
        if type(data) is not bytes:
            raise ValueError("a storage that is not of bytes")

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # the file's age, not the reader's concern
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            if not isinstance(loaded, torch.storage.TypedStorage):
                raise ValueError("a storage of an unknown kind")

            return torch.tensor([], dtype=loaded.dtype).set_(loaded.untyped())  # pyright: ignore[reportArgumentType]  torch's stub lacks it

    def tensor(values: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
        shape = tuple(shape)
        stride = tuple(stride)
        if not isinstance(values, Tensor) or len(shape) != len(stride):
            raise ValueError("a tensor without its storage")
        if not all(type(n) is int and n >= 0 for n in (offset, *shape, *stride)):
            raise ValueError("a tensor with a shape that is none")

        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) + 1
        if np.prod(shape, dtype=object) > len(values) or last > len(values):
            raise ValueError(f"a tensor of shape {shape} in a storage of {len(values)} values")

        return values.as_strided(shape, stride, offset).clone()

    def parameter(data: Any, *_: Any) -> Any:
        return data

    def nothing(*_: Any) -> _Shell:
        return _Shell()

    names: dict[str, Any] = {
        "torch_utils.persistence._reconstruct_persistent_obj": network,
        "torch.storage._load_from_bytes": storage,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": parameter,
        "collections.OrderedDict": OrderedDict,
        "dnnlib.util.EasyDict": dict,
        "numpy.dtype": nothing,
    }

    # Scalars of settings: they are read past, since nothing here needs them.
    return names | {f"numpy.{core}.multiarray.scalar": nothing for core in ("core", "_core")}


class _StyleGanUnpickler(pickle.Unpickler):
    """A pickle reader that knows a short list of names and nothing else."""

    def __init__(self, stream: Any, file: Path) -> None:
        super().__init__(stream, encoding="utf-8")
        self._names = _allowed()
        self._file = file

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        full = f"{module}.{name}"
        if re.fullmatch(r"torch\.nn\.modules\.\w+\.[A-Z]\w*", full):
            return type(name, (_Shell,), {})

        if full not in self._names:
            raise ModelError(
                f"{self._file} wants to call '{full}' when it is opened. Networks of StyleGAN2 need tensors and plain values "
                "only, and this could run any command on this machine, so it is not opened."
            )

        return self._names[full]

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("a reference to something outside the file")


def _flat(shell: _Shell, file: Path, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """Parameters and buffers of a network and of all networks in it, by name."""
    if depth > _DEEPEST:
        raise ModelError(f"{file} nests networks more than {_DEEPEST} deep; it is damaged.")

    out: dict[str, Tensor] = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (vars(shell).get(kind) or {}).items():
            if isinstance(value, Tensor):
                out[f"{prefix}{name}"] = value
            elif value is not None:
                raise ModelError(f"'{prefix}{name}' of {file} should be a tensor but is a {type(value).__name__}.")

    for name, inner in (vars(shell).get("_modules") or {}).items():
        if isinstance(inner, _Shell):
            out |= _flat(inner, file, f"{prefix}{name}.", depth + 1)

    return out


# -- their names and sizes ---------------------------------------------------------------------------------------------


# Our names of the layers of a public generator block, and of the last layers of a public discriminator.
_LAYER = {
    "weight": "weight", "bias": "bias", "noise_strength": "strength", "affine": "style.affine", "affine_0": "style.affine",
    "pre_0": "style.views.0.0", "pre_1": "style.views.0.1", "pre_01": "style.views.1.0", "pre_11": "style.views.1.1",
}  # fmt: skip

_LAST = {"conv": "convolution", "fc": "linear", "out": "out", "fts": "heads.0", "fts2": "heads.1"}


def generator_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a public generator under our names; names that are not known stay as they are."""
    out = {}
    for name, value in weights.items():
        if name.endswith(_IGNORED):
            continue

        parts = name.split(".")
        ours = name

        if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
            ours = f"mapping.{match[1]}.{match[2]}"
        elif name == "mapping.w_avg":
            ours = "mean"
        elif name == "synthesis.b4.const":
            ours = "first"
        elif match := re.fullmatch(r"synthesis\.b(\d+)\.(conv[01]|torgb)\.(.+)", name):
            size = int(match[1])
            layer = match[2]

            if layer == "torgb":
                place = "colours"
            else:
                first = int(size == 4)  # the smallest block has conv1 only
                place = f"convolutions.{int(layer[-1]) - first}"

            rest = [_LAYER.get(parts[3], parts[3]), *parts[4:]]
            ours = ".".join([f"blocks.{size.bit_length() - 3}", place, *rest])

        out[ours] = value

    return out


def discriminator_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a public discriminator under our names; names that are not known stay as they are."""
    largest = 4
    for name in weights:
        if match := re.match(r"b(\d+)\.", name):
            largest = max(largest, int(match[1]))

    out = {}

    for name, value in weights.items():
        if name.endswith(_IGNORED):
            continue

        ours = name
        if match := re.fullmatch(r"b4\.(\w+)\.(weight|bias)", name):
            ours = f"{_LAST.get(match[1], match[1])}.{match[2]}"
        elif match := re.fullmatch(r"b(\d+)\.(fromrgb|conv0|conv1|skip)\.(weight|bias)", name):
            place = largest.bit_length() - int(match[1]).bit_length()  # our blocks are counted from the finest
            layer = {"conv0": f"blocks.{place}.one", "conv1": f"blocks.{place}.two", "skip": f"blocks.{place}.skip"}
            ours = f"{layer.get(match[2], 'colours')}.{match[3]}"

        out[ours] = value

    return out


def config_of(weights: dict[str, Tensor]) -> StyleGan2Config:
    """Sizes of a generator by its weights, under our names.

    Raises
    ------
    ModelError
        When they are not a generator's.
    """
    try:
        blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        layers = sum(bool(re.fullmatch(r"mapping\.\d+\.weight", name)) for name in weights)
        size = 2 ** (blocks + 1)
        channel_max = weights["first"].shape[0]
        widths = {2 ** (i + 2): weights[f"blocks.{i}.colours.weight"].shape[1] for i in range(blocks)}
        narrow = [side * n for side, n in widths.items() if n < channel_max]
        view = "blocks.0.colours.style.views"
        fields: dict[str, Any] = {"conditions": 0}

        if f"{view}.0.0.weight" in weights:
            conditions = 1 + max(int(n.split(".")[5]) for n in weights if n.startswith(view))
            fields = {
                "conditions": conditions, "condition": weights[f"{view}.0.0.weight"].shape[1],
                "style": weights[f"{view}.0.1.weight"].shape[0],
            }  # fmt: skip

        return validate(
            StyleGan2Config,
            {
                "size": size, "z": weights["mapping.0.weight"].shape[1], "w": weights["mean"].shape[0],
                "mapping_layers": layers, "channel_max": channel_max, "channel_base": min(narrow, default=channel_max * size),
                **fields,
            },
            "the sizes of these weights",
        )  # fmt: skip
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(
            f"these are not the weights of a StyleGAN2 generator ({type(error).__name__}: {error})."
        ) from error
