"""StyleGAN2 with conditions in its styles, and a discriminator that reads them back; in ordinary operations of torch.

    w = mapping(z),    u = max over conditions k of F_k(c_k),    style = A [u, w]      in every layer

Lin, Sprague and Singh 2022 (Mind Reader), section 2.3, on Karras et al. 2020 (StyleGAN2) and Zhou et al. 2022 (Lafite).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import DataError
from phosphene.generate.stylegan2_config import StyleGan2Config
from phosphene.run.config import validate

_MEAN_PACE = 0.005  # of the running mean of w


def _active(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance of a standard normal about 1."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class _Linear(nn.Module):
    """A linear layer whose weights are of order 1 / pace and scaled as they are used, so that all learn equally fast."""

    def __init__(self, n_in: int, n_out: int, *, active: bool = False, pace: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / pace)
        self.bias = nn.Parameter(torch.full((n_out,), bias))
        self.gain, self.pace, self.active = pace / math.sqrt(n_in), pace, active

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self.gain, self.bias * self.pace)
        return _active(y) if self.active else y


class _Smooth(nn.Module):
    """The filter [1, 3, 3, 1] along both axes: after a doubling of the size, or before a halving."""

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


class _Style(nn.Module):
    """One layer's style (n, channels): the largest of the conditions' two-layer views, value by value, beside w."""

    def __init__(self, c: StyleGan2Config, channels: int):
        super().__init__()
        self.gain, pace = c.condition_gain, c.condition_pace
        self.views = nn.ModuleList(
            nn.Sequential(
                _Linear(c.condition, c.hidden, active=True, pace=pace),
                _Linear(c.hidden, c.style, active=True, pace=pace),
            )
            for _ in range(c.conditions)
        )
        self.affine = _Linear(c.w + (c.style if c.conditions else 0), channels, bias=1.0)

    def forward(self, w: Tensor, conditions: Tensor) -> Tensor:
        seen = [view(self.gain * c) for view, c in zip(self.views, conditions.unbind(1), strict=True)]
        return self.affine(torch.cat([reduce(torch.maximum, seen), w], 1) if seen else w)


def modulated(x: Tensor, weight: Tensor, style: Tensor, *, up: bool = False, demodulate: bool = True) -> Tensor:
    """A convolution whose input channels are scaled by each picture's style.

        y = conv(x, W s) / sqrt(sum of (W s)^2 over inputs and taps + 1e-8)      the division only if `demodulate`

    Inputs and outputs are scaled in place of the weights: the same sums as a grouped convolution with one set of weights
    per picture, and faster.

    Parameters
    ----------
    x : (n, inputs, height, width)
    weight : (outputs, inputs, k, k)
    style : (n, inputs)
    up : leave zeros between values, so that the result is (2 height + 1, 2 width + 1)
    """
    y = x * style[:, :, None, None]
    if up:
        y = F.conv_transpose2d(y, weight.transpose(0, 1), stride=2)
    else:
        y = F.conv2d(y, weight, padding=weight.shape[2] // 2)
    if not demodulate:
        return y
    power = F.linear(style.square(), weight.square().sum((2, 3)))
    return y * (power + 1e-8).rsqrt()[:, :, None, None]


class _Convolution(nn.Module):
    """Modulated convolution, noise, bias and activation; doubles the size where asked."""

    def __init__(self, c: StyleGan2Config, n_in: int, n_out: int, *, up: bool = False):
        super().__init__()
        self.style, self.up = _Style(c, n_in), up
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 3, 3))
        self.strength, self.bias = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(n_out))
        self.smooth = _Smooth()

    def forward(self, x: Tensor, w: Tensor, conditions: Tensor, noise: Tensor | None) -> Tensor:
        y = modulated(x, self.weight, self.style(w, conditions), up=self.up)
        if self.up:
            y = self.smooth(y, 1, gain=4.0)
        if noise is not None:
            y = y + noise * self.strength
        return _active(y + self.bias[:, None, None])


class _Colours(nn.Module):
    """Channels to red, green and blue."""

    def __init__(self, c: StyleGan2Config, n_in: int):
        super().__init__()
        self.style, self.gain = _Style(c, n_in), 1 / math.sqrt(n_in)
        self.weight, self.bias = nn.Parameter(torch.randn(3, n_in, 1, 1)), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor, conditions: Tensor) -> Tensor:
        style = self.style(w, conditions) * self.gain
        return modulated(x, self.weight, style, demodulate=False) + self.bias[:, None, None]


class _Block(nn.Module):
    """The convolutions at one size, and what they add to the picture."""

    def __init__(self, c: StyleGan2Config, size: int):
        super().__init__()
        n = c.channels(size)
        first = [] if size == 4 else [_Convolution(c, c.channels(size // 2), n, up=True)]
        self.convolutions = nn.ModuleList([*first, _Convolution(c, n, n)])
        self.colours, self.smooth = _Colours(c, n), _Smooth()


class Generator(nn.Module):
    """Noise and conditions to pictures.

    Parameters
    ----------
    config : fields of :class:`StyleGan2Config`; Mind Reader's by default. Weights are drawn from torch's global generator

    Attributes
    ----------
    config : sizes
    mean : (w,) running mean of w, where truncation leads

    Raises
    ------
    ConfigError
        For fields that do not exist or do not fit.

    Examples
    --------
    >>> network = Generator(**StyleGan2Config.lab().model_dump())
    >>> network(torch.zeros(2, 2, 64), torch.zeros(2, 64)).shape
    torch.Size([2, 3, 32, 32])
    """

    mean: Tensor

    def __init__(self, **config: Any):
        super().__init__()
        self.config = c = validate(StyleGan2Config, config, "the configuration of StyleGAN2")
        widths = [c.z] + [c.w] * c.mapping_layers
        self.mapping = nn.ModuleList(_Linear(a, b, active=True, pace=0.01) for a, b in pairwise(widths))
        self.register_buffer("mean", torch.zeros(c.w))
        self.first = nn.Parameter(torch.randn(c.channels(4), 4, 4))
        self.blocks = nn.ModuleList(_Block(c, size) for size in c.sizes)

    def forward(
        self, conditions: Tensor, z: Tensor, noise: Sequence[Tensor] | None = None, *, truncation: float = 1.0
    ) -> Tensor:
        """Pictures.

        Parameters
        ----------
        conditions : (n, conditions, condition), each of unit length
        z : (n, z), standard normal
        noise : per convolution (n, 1, side, side), sides as in ``config.noise_sizes``; none is added when None
        truncation : psi: w is drawn towards its mean, 1 not at all

        Returns
        -------
        (n, 3, size, size), about -1 to 1, not clipped
        """
        w = self.map(z)
        if truncation != 1:
            w = self.mean.lerp(w, truncation)
        return self.paint(w[:, None].expand(-1, self.config.slots, -1), conditions, noise)

    def map(self, z: Tensor) -> Tensor:
        """(n, z) to (n, w)."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping:
            x = layer(x)
        return x

    @torch.no_grad()
    def follow(self, w: Tensor) -> None:
        """Move the running mean of w towards these (n, w)."""
        self.mean.lerp_(w.float().mean(0), _MEAN_PACE)

    def paint(self, w: Tensor, conditions: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Pictures of styles.

        Parameters
        ----------
        w : (n, slots, w), one for each convolution and one for the last colours
        conditions, noise : see :meth:`forward`

        Raises
        ------
        DataError
            For conditions of another shape.
        """
        c, n = self.config, len(w)
        if conditions.shape != (n, c.conditions, c.condition):
            raise DataError(
                f"conditions of {n} pictures must be ({n}, {c.conditions}, {c.condition}), but are {tuple(conditions.shape)}."
            )
        x, picture, slot = self.first.expand(n, -1, -1, -1), None, 0
        for block in self.blocks:
            for convolution in block.convolutions:
                x = convolution(x, w[:, slot], conditions, None if noise is None else noise[slot])
                slot += 1
            # Colours share the w of the convolution that follows them.
            colours = block.colours(x, w[:, slot], conditions)
            picture = colours if picture is None else block.smooth.double(picture) + colours
        return picture

    def duplicate(self) -> None:
        """Make every condition's view a copy of the first: how one condition's network becomes the start of two's."""
        for module in self.modules():
            if isinstance(module, _Style):
                for view in list(module.views)[1:]:
                    view.load_state_dict(module.views[0].state_dict())


class _Plain(nn.Module):
    """A convolution scaled as it is used, with filtering and every second value only where the size is halved."""

    def __init__(self, n_in: int, n_out: int, k: int, *, down: bool = False, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, k, k))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self.gain, self.down, self.smooth = 1 / math.sqrt(n_in * k * k), down, _Smooth() if down else None

    def forward(self, x: Tensor) -> Tensor:
        weight, k = self.weight * self.gain, self.weight.shape[2]
        if not self.down:
            y = F.conv2d(x, weight, padding=k // 2)
        elif k == 1:
            y = F.conv2d(self.smooth(x, 1, stride=2), weight)
        else:
            y = F.conv2d(self.smooth(x, 2), weight, stride=2)
        return y if self.bias is None else _active(y + self.bias[:, None, None])


class _Residual(nn.Module):
    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.one, self.two = _Plain(n_in, n_in, 3), _Plain(n_in, n_out, 3, down=True)
        self.skip = _Plain(n_in, n_out, 1, down=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.skip(x) + self.two(self.one(x))) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """True or drawn, and the conditions as read from the picture.

        logit = out(h) + mean over conditions k of <s_k(h), c_k>

    Parameters
    ----------
    config : fields of :class:`StyleGan2Config`; Mind Reader's by default

    Notes
    -----
    The released code sums the products over the whole batch, so that every logit depends on every condition
    (``logit="batch"``), and over the two conditions with weight 1/2 each.
    """

    def __init__(self, **config: Any):
        super().__init__()
        self.config = c = validate(StyleGan2Config, config, "the configuration of StyleGAN2")
        sizes, last = c.sizes[::-1], c.channels(4)
        self.colours = _Plain(3, c.channels(c.size), 1)
        self.blocks = nn.ModuleList(_Residual(c.channels(size), c.channels(size // 2)) for size in sizes[:-1])
        self.convolution = _Plain(last + 1, last, 3)
        self.linear = _Linear(16 * last, last, active=True)
        self.out = _Linear(last, 1)
        self.heads = nn.ModuleList(_Linear(last, c.condition) for _ in range(c.conditions))

    def forward(self, x: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n,), above 0 for true, and features (n, conditions, condition) of pictures (n, 3, size, size).

        Raises
        ------
        DataError
            For pictures that cannot be grouped evenly.
        """
        y = self.colours(x)
        for block in self.blocks:
            y = block(y)
        h = self.linear(self.convolution(with_deviation(y, self.config.group)).flatten(1))
        logit = self.out(h)[:, 0]
        if not len(self.heads):
            return logit, h.new_zeros(len(h), 0, self.config.condition)
        features = torch.stack([head(h) for head in self.heads], 1)
        match = (features * conditions).sum((1, 2)) / len(self.heads)
        return logit + (match if self.config.logit == "each" else match.sum()), features

    def duplicate(self) -> None:
        """Make every condition's head a copy of the first."""
        for head in list(self.heads)[1:]:
            head.load_state_dict(self.heads[0].state_dict())


def with_deviation(x: Tensor, group: int) -> Tensor:
    """One more channel: the mean deviation of values over pictures of a group, which drawn pictures that are all alike lack.

    Groups are of every (n / group)th picture, as in the released networks.
    """
    n, _, h, w = x.shape
    group = min(group, n)
    if n % group:
        raise DataError(f"{n} pictures cannot be judged in groups of {group}; make the batch a multiple of {group}.")
    y = x.view(group, n // group, *x.shape[1:])
    deviation = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, deviation.repeat(group)[:, None, None, None].expand(-1, 1, h, w)], 1)
