"""EfficientNet-B1 (Tan and Le 2019), and EfficientNet-Lite0, its relative for small machines.

Both are stages of blocks that widen, convolve each channel by itself, and narrow again (Sandler et al. 2018). B1 weighs
channels by what is in all of them (squeeze and excitation) and activates with SiLU; Lite0 leaves that out and clips at 6.
Names of weights are torchvision's and those of the package efficientnet-lite0-pytorch, so that public files load as they
are.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EfficientNetB1", "EfficientNetLite0", "SqueezeExcite"]

# widening, side of the kernel, stride, channels, blocks of B0 and Lite0
_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
           (6, 3, 1, 320, 1))  # fmt: skip
_B1_BLOCKS = (2, 3, 3, 4, 4, 5, 2)  # those above times 1.1, rounded up


class SqueezeExcite(nn.Module):
    """Every channel times a number from 0 to 1 that follows from the means of all channels (Hu et al. 2018).

    Parameters
    ----------
    width : int
        channels
    narrow : int
        values between the two layers that make the numbers
    """

    def __init__(self, width: int, narrow: int):
        super().__init__()
        self.fc1 = nn.Conv2d(width, narrow, 1)
        self.fc2 = nn.Conv2d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Activations (n, width, rows, columns) to the same shape."""
        means = x.mean(dim=(2, 3), keepdim=True)  # (n, width, 1, 1)
        return x * self.fc2(F.silu(self.fc1(means))).sigmoid()


def _convolution(
    n_in: int, n_out: int, side: int = 1, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Convolution, norm and, where active, SiLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(n_in, n_out, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(n_out),
    ]
    if active:
        layers.append(nn.SiLU())

    return nn.Sequential(*layers)


class _InvertedBottleneck(nn.Module):
    """Widening, one filter for each channel, squeeze and excitation, narrowing; added to the input where shapes agree."""

    def __init__(self, n_in: int, n_out: int, widening: int, side: int, stride: int):
        super().__init__()
        width = n_in * widening
        layers = []

        # Made in any case: left out, it would shift the draws of all fresh weights after it.
        expansion = _convolution(n_in, width)
        if widening > 1:
            layers.append(expansion)

        layers.append(_convolution(width, width, side, stride, groups=width))
        layers.append(SqueezeExcite(width, n_in // 4))
        layers.append(_convolution(width, n_out, active=False))

        self.block = nn.Sequential(*layers)
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
            stage = []
            for number in range(blocks):
                if number:
                    stride = 1  # only the first block of a stage halves the size

                stage.append(_InvertedBottleneck(n_in, n_out, widening, side, stride))
                n_in = n_out

            stages.append(nn.Sequential(*stage))

        self.features = nn.Sequential(*stages, _convolution(n_in, 1280))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, height, width), normalised, to means (n, 1280) of the last layer."""
        return self.features(x).mean(dim=(2, 3))


# -- Lite0 -------------------------------------------------------------------------------------------------------------


class SameConv2d(nn.Conv2d):
    """A convolution as TensorFlow's "same": ceil(size / stride) values, an odd pixel of padding at the bottom and right."""

    def forward(self, x: Tensor) -> Tensor:
        """Activations (n, channels, rows, columns) to (n, channels, ceil(rows / stride), ceil(columns / stride))."""
        padding: list[int] = []
        for size, side, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + side - size, 0)
            padding = [total // 2, total - total // 2, *padding]  # F.pad begins with the last side

        return super().forward(F.pad(x, padding))


class _LiteBlock(nn.Module):
    """Widening, one filter for each channel, narrowing; added to the input where shapes agree."""

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
                if number:
                    stride = 1  # only the first block of a stage halves the size

                blocks.append(_LiteBlock(n_in, n_out, widening, side, stride))
                n_in = n_out

        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SameConv2d(n_in, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, 224, 224) to means (n, 1280) of the last layer."""
        x = F.relu6(self._bn0(self._conv_stem(x)))  # (n, 32, 112, 112)
        x = self._blocks(x)  # (n, 320, 7, 7)
        x = F.relu6(self._bn1(self._conv_head(x)))  # (n, 1280, 7, 7)

        return x.mean(dim=(2, 3))

    def probabilities(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, 224, 224) to probabilities (n, 1000) of the classes of ImageNet."""
        return self._fc(self(x)).softmax(dim=1)
