"""ResNet-50 (He et al. 2016), with the stride in the middle convolution of a block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class _Bottleneck(nn.Module):
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
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


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

        for number, (width, blocks, stride) in enumerate([(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)], start=1):
            layer = nn.Sequential(
                _Bottleneck(n_in, width, stride), *(_Bottleneck(4 * width, width, 1) for _ in range(blocks - 1))
            )

            self.add_module(f"layer{number}", layer)
            n_in = 4 * width

        if has_classes:
            self.fc = nn.Linear(n_in, 1000)
        else:
            self.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))
