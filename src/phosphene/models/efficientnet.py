"""EfficientNet-B1 (Tan and Le 2019) and EfficientNet-Lite0, its relative for small machines: blocks that widen, look at
each channel by itself, and narrow again."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# widening, side of the kernel, stride, channels, blocks of B0 and Lite0
_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
           (6, 3, 1, 320, 1))  # fmt: skip
_B1_BLOCKS = (2, 3, 3, 4, 4, 5, 2)  # those above times 1.1, rounded up


class SqueezeExcite(nn.Module):
    """Every channel times a number from 0 to 1 that follows from the means of all channels (Hu et al. 2018)."""

    def __init__(self, width: int, narrow: int):
        super().__init__()
        self.fc1 = nn.Conv2d(width, narrow, 1)
        self.fc2 = nn.Conv2d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, height, width) to the same shape."""
        return x * self.fc2(F.silu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))).sigmoid()


def _convolution(n_in: int, n_out: int, side: int = 1, stride: int = 1, groups: int = 1, active: bool = True):
    layers = [nn.Conv2d(n_in, n_out, side, stride, side // 2, groups=groups, bias=False), nn.BatchNorm2d(n_out)]
    return nn.Sequential(*layers, *[nn.SiLU()] * active)


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, widening: int, side: int, stride: int):
        super().__init__()
        width = n_in * widening
        self.block = nn.Sequential(
            *[_convolution(n_in, width)] * (widening > 1),
            _convolution(width, width, side, stride, groups=width),
            SqueezeExcite(width, n_in // 4),
            _convolution(width, n_out, active=False),
        )

        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        if self.adds:
            return x + self.block(x)

        return self.block(x)


class EfficientNetB1(nn.Module):
    """Means over the picture of the last layer: (n, 3, height, width), normalised, to (n, 1280).

    References
    ----------
    Tan and Le 2019.
    """

    heads = ("classifier",)

    def __init__(self):
        super().__init__()
        stages = [_convolution(3, 32, 3, 2)]
        n_in = 32

        for (widening, side, stride, n_out, _), blocks in zip(_STAGES, _B1_BLOCKS, strict=True):
            first = _Block(n_in, n_out, widening, side, stride)
            stages.append(nn.Sequential(first, *(_Block(n_out, n_out, widening, side, 1) for _ in range(blocks - 1))))
            n_in = n_out

        self.features = nn.Sequential(*stages, _convolution(n_in, 1280))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.features(x).mean(dim=(2, 3))


# -- Lite0 -------------------------------------------------------------------------------------------------------------


class SameConv2d(nn.Conv2d):
    """A convolution that gives ceil(size / stride) values, an odd pixel of padding at the bottom and right: as TensorFlow."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, channels, ceil(height / stride), ceil(width / stride))."""
        padding: list[int] = []
        for size, side, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + side - size, 0)
            padding = [total // 2, total - total // 2, *padding]  # F.pad begins with the last side

        return super().forward(F.pad(x, padding))


class _LiteBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, widening: int, side: int, stride: int):
        super().__init__()
        width = n_in * widening
        if widening > 1:
            self._expand_conv = SameConv2d(n_in, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, eps=1e-3)

        self._depthwise_conv = SameConv2d(width, width, side, stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self._project_conv = SameConv2d(width, n_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(n_out, eps=1e-3)
        self.widens = widening > 1
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        if self.widens:
            y = F.relu6(self._bn0(self._expand_conv(x)))
        else:
            y = x

        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        if self.adds:
            return x + y

        return y


class EfficientNetLite0(nn.Module):
    """A small classifier of photographs: (n, 3, 224, 224), (x - 127) / 128 of 0-255, to features and classes.

    References
    ----------
    Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite" (75.1 % top-1 on ImageNet).
    """

    heads = ()

    def __init__(self):
        super().__init__()
        blocks = []
        n_in = 32

        for widening, side, stride, n_out, n_blocks in _STAGES:
            for number in range(n_blocks):
                blocks.append(_LiteBlock(n_in, n_out, widening, side, stride if number == 0 else 1))
                n_in = n_out

        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SameConv2d(n_in, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 224, 224) to (n, 1280): means over the picture of the last layer."""
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def probabilities(self, x: Tensor) -> Tensor:
        """The same to (n, 1000)."""
        return self._fc(self(x)).softmax(dim=1)
