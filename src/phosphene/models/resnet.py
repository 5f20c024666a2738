"""ResNet-50 (He et al. 2016), with the stride in the middle convolution of a block.

Four stages of 3, 4, 6 and 3 bottlenecks, each at half the size of the one before. Names of weights are torchvision's, so
that public files load as they are; the paper has the stride in a block's first convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResNet50"]

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width inside a block, blocks, stride of the first


class _Bottleneck(nn.Module):
    """Narrowing, 3 x 3 and widening convolution, and a way around them."""

    def __init__(self, n_in: int, width: int, stride: int):
        super().__init__()
        n_out = 4 * width
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = None

        if stride > 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))  # (n, width, height, width)
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))  # (n, 4 x width, height, width)

        if self.downsample is not None:
            x = self.downsample(x)

        return F.relu(y + x)


class ResNet50(nn.Module):
    """Means over the picture of the last block: (n, 3, height, width), normalised, to (n, 2048).

    Parameters
    ----------
    has_classes : bool, default True
        whether the weights hold a classifier; those of SwAV do not

    References
    ----------
    He et al. 2016; Caron et al. 2020 (SwAV).
    """

    heads = ("fc",)

    def __init__(self, has_classes: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        n_in = 64

        for number, (width, n_blocks, stride) in enumerate(_STAGES, start=1):
            blocks = [_Bottleneck(n_in, width, stride)]
            n_in = 4 * width
            for _ in range(n_blocks - 1):
                blocks.append(_Bottleneck(n_in, width, 1))

            self.add_module(f"layer{number}", nn.Sequential(*blocks))

        if has_classes:
            self.fc = nn.Linear(n_in, 1000)
        else:
            self.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, height, width), normalised, to means (n, 2048) of the last block."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)  # (n, 64, height / 4, width / 4)
        for number in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)

        return x.mean(dim=(2, 3))
