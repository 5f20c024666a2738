"""A small residual network that names what a scene shows: the lab's stand-in for ImageNet and Inception networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SceneClassifier"]


class _ResidualBlock(nn.Module):
    """Two convolutions, each after its normalisation (He et al. 2016, full pre-activation), and a way past both."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, n_in)
        self.norm2 = nn.GroupNorm(8, n_out)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)

        if stride > 1 or n_in != n_out:
            self.skip = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
        else:
            self.skip = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class SceneClassifier(nn.Module):
    """Main category, place, and all labels of a scene.

    Parameters
    ----------
    categories, places, labels : list of str
        names, in the order of the outputs
    widths : list of int, default [32, 64, 128]
        channels at 16, 8 and 4 pixels
    n_features : int, default 128
        width of the last layer, whose activations serve FID and two-way identification
    """

    def __init__(
        self,
        categories: list[str],
        places: list[str],
        labels: list[str],
        widths: list[int] = [32, 64, 128],  # noqa: B006  read only
        n_features: int = 128,
    ):
        super().__init__()
        self.categories = list(categories)
        self.places = list(places)
        self.labels = list(labels)
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False)

        self.blocks = nn.ModuleList()
        n_in = widths[0]
        for number, n_out in enumerate(widths):
            stride = 1
            if number > 0:
                stride = 2
            self.blocks.append(nn.Sequential(_ResidualBlock(n_in, n_out, stride), _ResidualBlock(n_out, n_out, 1)))
            n_in = n_out

        self.norm = nn.GroupNorm(8, widths[-1])
        self.last = nn.Linear(widths[-1], n_features)
        self.heads = nn.ModuleDict(
            {
                "category": nn.Linear(n_features, len(self.categories)),
                "place": nn.Linear(n_features, len(self.places)),
                "labels": nn.Linear(n_features, len(self.labels)),
            }
        )

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Activations of pictures, from those of the first block to those of the last layer.

        Parameters
        ----------
        x : Tensor of shape (n, 3, 32, 32)
            -1 to 1.

        Returns
        -------
        dict of {str: Tensor}
            ``early`` (n, 32, 16, 16), ``mid`` (n, 64, 8, 8), ``late`` (n, 128, 4, 4) and ``last`` (n, n_features).
        """
        y = self.stem(x)
        out = {}
        for name, block in zip(("early", "mid", "late"), self.blocks, strict=True):
            y = block(y)
            out[name] = y
        pooled = F.silu(self.norm(y)).mean((2, 3))  # (n, 128)
        out["last"] = F.silu(self.last(pooled))

        return out

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits by head: ``category`` and ``place`` for a softmax, ``labels`` for a sigmoid each."""
        last = self.features(x)["last"]
        return {name: head(last) for name, head in self.heads.items()}

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Probabilities (n, n_categories) of the main category, from which n-way accuracy is computed."""
        return self(x)["category"].softmax(-1)
