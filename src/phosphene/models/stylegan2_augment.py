"""Random changes of pictures that both sides of the game see, so that a discriminator cannot learn few pictures by heart.

Moves, sizes and colours of adaptive discriminator augmentation ("bgc"; Karras et al. 2020, ADA, appendix B), each done
with the same chance to each picture on its own. Pictures are resampled once, bilinearly, in place of the wavelet filter.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.training import Draws


def augmented(x: Tensor, draws: Draws, chance: float) -> Tensor:
    """Changed pictures, with gradients.

    Parameters
    ----------
    x : Tensor of shape (n, 3, side, side)
        -1 to 1
    draws : Draws
        noise of a step
    chance : float
        of each change, 0-1; at 0 pictures come back as they are, but as much is drawn

    Returns
    -------
    Tensor of shape (n, 3, side, side)
    """
    n = len(x)
    u = draws.uniform(20)[: len(x)]
    normal = draws.normal(8)[: len(x)]

    if chance <= 0:
        return x

    happens = u[:, :10] < chance
    place = _placed(u[:, 10:], normal, happens)
    grid = F.affine_grid(place[:, :2], [n, 3, *x.shape[2:]], align_corners=False)
    y = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    colour = _coloured(u[:, 10:], normal, happens)
    flat = colour[:, :3, :3] @ y.flatten(2) + colour[:, :3, 3:]

    return flat.view_as(y)


def _placed(u: Tensor, normal: Tensor, happens: Tensor) -> Tensor:
    """(n, 3, 3): where each place of the new picture is in the old, in units of half a side."""
    zero = torch.zeros_like(u[:, 0])
    one = torch.ones_like(zero)

    def when(k: int, value: Tensor, otherwise: Tensor) -> Tensor:
        return torch.where(happens[:, k], value, otherwise)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, 1).view(-1, 3, 3)

    def stretched(a: Tensor, b: Tensor) -> Tensor:
        return matrix(a, zero, zero, zero, b, zero, zero, zero, one)

    def turned(angle: Tensor) -> Tensor:
        c = angle.cos()
        s = angle.sin()
        return matrix(c, -s, zero, s, c, zero, zero, zero, one)

    def moved(a: Tensor, b: Tensor) -> Tensor:
        return matrix(one, zero, a, zero, one, b, zero, zero, one)

    mirrored = when(0, torch.where(u[:, 0] < 0.5, -one, one), one)
    quarter = when(1, (4 * u[:, 1]).floor() * (math.pi / 2), zero)
    shift = [when(2, 2 * (2 * u[:, k] - 1) * 0.125, zero) for k in (2, 3)]
    size = when(3, torch.exp2(0.2 * normal[:, 0]), one)
    before, after = (when(4, (2 * u[:, k] - 1) * math.pi, zero) for k in (4, 5))
    aspect = when(5, torch.exp2(0.2 * normal[:, 1]), one)
    slide = [when(6, 2 * 0.125 * normal[:, k], zero) for k in (2, 3)]

    return (
        stretched(mirrored, one) @ turned(quarter) @ moved(*shift) @ stretched(size, size)
        @ turned(before) @ stretched(aspect, 1 / aspect) @ turned(after) @ moved(*slide)
    )  # fmt: skip


def _coloured(u: Tensor, normal: Tensor, happens: Tensor) -> Tensor:
    """(n, 4, 4): new colours of old ones."""
    n = len(u)
    eye = torch.eye(4, device=u.device)
    grey = torch.tensor([1.0, 1.0, 1.0, 0.0], device=u.device) / math.sqrt(3)
    along = torch.outer(grey, grey)
    everywhere = eye.expand(n, 4, 4)

    def when(k: int, matrices: Tensor) -> Tensor:
        return torch.where(happens[:, k, None, None], matrices, everywhere)

    brighter = everywhere.clone()
    brighter[:, :3, 3] = 0.2 * normal[:, 4, None]
    contrast = torch.diag_embed(torch.exp2(0.5 * normal[:, 5, None]) * torch.tensor([1.0, 1, 1, 0], device=u.device))
    contrast[:, 3, 3] = 1
    flipped = everywhere - 2 * along * (u[:, 6] < 0.5)[:, None, None]
    angle = ((2 * u[:, 7] - 1) * math.pi)[:, None, None]

    # A turn of colours about grey (Rodrigues).
    across = torch.zeros(4, 4, device=u.device)
    across[0, 1] = -1.0
    across[0, 2] = 1.0
    across[1, 2] = -1.0
    across = (across - across.T) / math.sqrt(3)
    space = torch.diag(torch.tensor([1.0, 1, 1, 0], device=u.device))
    hue = angle.cos() * space + angle.sin() * across + (1 - angle.cos()) * along + (eye - space)
    saturated = along + (eye - along) * torch.exp2(normal[:, 6])[:, None, None]
    saturated[:, 3, 3] = 1

    # Brightness, contrast, flip, hue and saturation, in this order.
    steps = ((9, saturated), (9, hue), (8, flipped), (7, contrast), (7, brighter))
    out = everywhere

    for k, matrices in steps:
        out = out @ when(k, matrices)

    return out
