"""Inception-v3 (Szegedy et al. 2016), in the two forms that scores are made with.

``InceptionV3`` is torchvision's: the pictures come normalised for ImageNet and are put back onto its own scale first, and
pools count the padding. ``FidInception`` is the network of FID, of which only the first layers are needed for the 64
features of LEA; it resizes as TensorFlow 1 did.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FidInception", "InceptionV3", "own_scale", "padded_mean", "resized_as_tensorflow_1"]

# ImageNet's statistics, in which pictures come; the network was trained on (x - 0.5) / 0.5
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


Size = int | tuple[int, int]


class _Convolution(nn.Module):
    """Convolution, norm and ReLU."""

    def __init__(self, n_in: int, n_out: int, side: Size, stride: int = 1, padding: Size = 0):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, side, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def padded_mean(x: Tensor) -> Tensor:
    """Mean over 3 x 3 pixels; what lies outside counts as 0, as in torchvision and unlike in FID's network."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=True)


def _wide(n_in: int, n_out: int, side: int = 7) -> _Convolution:
    """A filter of one row; with :func:`_tall` it spans a square at a fraction of the work (section 3.2)."""
    return _Convolution(n_in, n_out, (1, side), padding=(0, side // 2))


def _tall(n_in: int, n_out: int, side: int = 7) -> _Convolution:
    """A filter of one column."""
    return _Convolution(n_in, n_out, (side, 1), padding=(side // 2, 0))


class _MixedA(nn.Module):
    """Four branches at one size: 1 x 1, 5 x 5, two of 3 x 3, and a pool (figure 5)."""

    def __init__(self, n_in: int, n_pool: int):
        super().__init__()
        self.branch1x1 = _Convolution(n_in, 64, 1)
        self.branch5x5_1 = _Convolution(n_in, 48, 1)
        self.branch5x5_2 = _Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Convolution(n_in, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, padding=1)
        self.branch_pool = _Convolution(n_in, n_pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        parts = [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(padded_mean(x))]
        return torch.cat(parts, dim=1)


class _MixedB(nn.Module):
    """Three branches to half the size."""

    def __init__(self, n_in: int):
        super().__init__()
        self.branch3x3 = _Convolution(n_in, 384, 3, 2)
        self.branch3x3dbl_1 = _Convolution(n_in, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], dim=1)


class _MixedC(nn.Module):
    """Four branches at one size, two of them with filters of one row and one column (figure 6)."""

    def __init__(self, n_in: int, width: int):
        super().__init__()
        self.branch1x1 = _Convolution(n_in, 192, 1)
        self.branch7x7_1 = _Convolution(n_in, width, 1)
        self.branch7x7_2 = _wide(width, width)
        self.branch7x7_3 = _tall(width, 192)
        self.branch7x7dbl_1 = _Convolution(n_in, width, 1)
        self.branch7x7dbl_2 = _tall(width, width)
        self.branch7x7dbl_3 = _wide(width, width)
        self.branch7x7dbl_4 = _tall(width, width)
        self.branch7x7dbl_5 = _wide(width, 192)
        self.branch_pool = _Convolution(n_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(padded_mean(x))], dim=1)


class _MixedD(nn.Module):
    """Three branches to half the size, one with filters of one row and one column."""

    def __init__(self, n_in: int):
        super().__init__()
        self.branch3x3_1 = _Convolution(n_in, 192, 1)
        self.branch3x3_2 = _Convolution(192, 320, 3, 2)
        self.branch7x7x3_1 = _Convolution(n_in, 192, 1)
        self.branch7x7x3_2 = _wide(192, 192)
        self.branch7x7x3_3 = _tall(192, 192)
        self.branch7x7x3_4 = _Convolution(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        long = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), long, F.max_pool2d(x, 3, 2)], dim=1)


class _MixedE(nn.Module):
    """Four branches at one size, two of which part once more (figure 7)."""

    def __init__(self, n_in: int):
        super().__init__()
        self.branch1x1 = _Convolution(n_in, 320, 1)
        self.branch3x3_1 = _Convolution(n_in, 384, 1)
        self.branch3x3_2a = _wide(384, 384, 3)
        self.branch3x3_2b = _tall(384, 384, 3)
        self.branch3x3dbl_1 = _Convolution(n_in, 448, 1)
        self.branch3x3dbl_2 = _Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _wide(384, 384, 3)
        self.branch3x3dbl_3b = _tall(384, 384, 3)
        self.branch_pool = _Convolution(n_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(padded_mean(x))]

        return torch.cat(parts, dim=1)


class _Auxiliary(nn.Module):
    """The second classifier, of use in training only; here for its place in the file."""

    def __init__(self, n_in: int):
        super().__init__()
        self.conv0 = _Convolution(n_in, 128, 1)
        self.conv1 = _Convolution(128, 768, 5)
        self.fc = nn.Linear(768, 1000)


class InceptionV3(nn.Module):
    """Means over the picture of the last layer: (n, 3, height, width), normalised for ImageNet, to (n, 2048).

    References
    ----------
    Szegedy et al. 2016.
    """

    heads = ("AuxLogits", "fc")

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3)
        self.Mixed_5b = _MixedA(192, 32)
        self.Mixed_5c = _MixedA(256, 64)
        self.Mixed_5d = _MixedA(288, 64)
        self.Mixed_6a = _MixedB(288)
        self.Mixed_6b = _MixedC(768, 128)
        self.Mixed_6c = _MixedC(768, 160)
        self.Mixed_6d = _MixedC(768, 160)
        self.Mixed_6e = _MixedC(768, 192)
        self.AuxLogits = _Auxiliary(768)
        self.Mixed_7a = _MixedD(768)
        self.Mixed_7b = _MixedE(1280)
        self.Mixed_7c = _MixedE(2048)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, height, width), normalised for ImageNet, to means (n, 2048) of the last layer."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(own_scale(x))))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))  # (n, 288, 35, 35) of 299 x 299
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # (n, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (n, 2048, 8, 8)

        return x.mean(dim=(2, 3))


def own_scale(x: Tensor) -> Tensor:
    """Pictures normalised for ImageNet, (n, 3, height, width), as (pixels - 0.5) / 0.5."""
    mean = x.new_tensor(_MEAN).view(3, 1, 1)
    std = x.new_tensor(_STD).view(3, 1, 1)

    return x * (std / 0.5) + (mean - 0.5) / 0.5


# -- FID ---------------------------------------------------------------------------------------------------------------


class FidInception(nn.Module):
    """The 64 features of FID's network after its first max-pool, averaged over the picture.

    (n, 3, height, width) of whole numbers 0-255 to (n, 64). With so few features FID is less biased for few pictures than
    with 2048, and only tells coarse texture and colour; the two must never be compared.

    References
    ----------
    Heusel et al. 2017; used by Qian et al. 2024 (LEA).
    """

    heads = ()

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, height, width) of whole numbers 0-255 to (n, 64)."""
        x = (resized_as_tensorflow_1(x, 299) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        return F.max_pool2d(x, 3, 2).mean(dim=(2, 3))


def resized_as_tensorflow_1(x: Tensor, side: int) -> Tensor:
    """Bilinear between the corners of pixels, not their centres, and without smoothing first.

    Row i of the result is taken at row ``i * height / side``, the last rows repeat the edge.

    Parameters
    ----------
    x : Tensor of shape (n, channels, height, width)
        pictures
    side : int
        rows and columns of the result

    Returns
    -------
    Tensor of shape (n, channels, side, side)
        in the range of `x`
    """
    for axis in (2, 3):
        size = x.shape[axis]
        position = torch.arange(side, dtype=x.dtype, device=x.device) * (size / side)
        low = position.floor().long().clamp(max=size - 1)
        share = (position - low).view(-1, *[1] * (3 - axis))  # along this axis
        lower = x.index_select(axis, low)
        upper = x.index_select(axis, (low + 1).clamp(max=size - 1))
        x = lower + (upper - lower) * share

    return x
