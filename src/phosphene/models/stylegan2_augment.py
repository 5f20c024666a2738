"""Random changes of pictures that both networks of a GAN see, so that a discriminator cannot learn few pictures by heart.

Moves, sizes and colours of adaptive discriminator augmentation ("bgc"; Karras et al. 2020, ADA, appendix B), each done
with the same chance to each picture on its own. Pictures are resampled once, bilinearly, in place of the wavelet filter.
:class:`phosphene.models.stylegan2.GanObjective` raises and lowers the chance.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.training import Draws

__all__ = ["augmented_batch"]


def augmented_batch(x: Tensor, draws: Draws, chance: float) -> Tensor:
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
        not clipped
    """
    n = len(x)
    u = draws.uniform(20)[:n]  # ten for whether, ten for how much
    normal = draws.normal(8)[:n]

    if chance <= 0:
        return x

    happens = u[:, :10] < chance  # (n, 10)
    u = u[:, 10:]

    place = _placed(u, normal, happens)  # (n, 3, 3)
    grid = F.affine_grid(place[:, :2], [n, 3, *x.shape[2:]], align_corners=False)
    y = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    colour = _coloured(u, normal, happens)  # (n, 4, 4)
    flat = colour[:, :3, :3] @ y.flatten(2) + colour[:, :3, 3:]  # (n, 3, pixels)

    return flat.view_as(y)


# -- moves and sizes ---------------------------------------------------------------------------------------------------


def _matrix(*entries: Tensor) -> Tensor:
    """Nine values for each picture as (n, 3, 3)."""
    return torch.stack(entries, 1).view(-1, 3, 3)


def _stretched(a: Tensor, b: Tensor) -> Tensor:
    zero = torch.zeros_like(a)
    one = torch.ones_like(a)
    return _matrix(a, zero, zero, zero, b, zero, zero, zero, one)


def _turned(angle: Tensor) -> Tensor:
    zero = torch.zeros_like(angle)
    one = torch.ones_like(angle)
    c = angle.cos()
    s = angle.sin()
    return _matrix(c, -s, zero, s, c, zero, zero, zero, one)


def _moved(a: Tensor, b: Tensor) -> Tensor:
    zero = torch.zeros_like(a)
    one = torch.ones_like(a)
    return _matrix(one, zero, a, zero, one, b, zero, zero, one)


def _placed(u: Tensor, normal: Tensor, happens: Tensor) -> Tensor:
    """Where each place of the new picture is in the old, in units of half a side: (n, 3, 3)."""
    zero = torch.zeros_like(u[:, 0])
    one = torch.ones_like(zero)

    def when(k: int, value: Tensor, otherwise: Tensor) -> Tensor:
        return torch.where(happens[:, k], value, otherwise)

    # Pixels are only permuted: mirror, quarter turns, whole moves of up to an eighth of the side.
    mirrored = when(0, torch.where(u[:, 0] < 0.5, -one, one), one)
    quarter = when(1, (4 * u[:, 1]).floor() * (math.pi / 2), zero)
    shift_x = when(2, 2 * (2 * u[:, 2] - 1) * 0.125, zero)
    shift_y = when(2, 2 * (2 * u[:, 3] - 1) * 0.125, zero)

    # Pixels are resampled: size, a turn before and after the aspect, any move.
    size = when(3, torch.exp2(0.2 * normal[:, 0]), one)
    before = when(4, (2 * u[:, 4] - 1) * math.pi, zero)
    after = when(4, (2 * u[:, 5] - 1) * math.pi, zero)
    aspect = when(5, torch.exp2(0.2 * normal[:, 1]), one)
    slide_x = when(6, 2 * 0.125 * normal[:, 2], zero)
    slide_y = when(6, 2 * 0.125 * normal[:, 3], zero)

    return (
        _stretched(mirrored, one) @ _turned(quarter) @ _moved(shift_x, shift_y) @ _stretched(size, size)
        @ _turned(before) @ _stretched(aspect, 1 / aspect) @ _turned(after) @ _moved(slide_x, slide_y)
    )  # fmt: skip


# -- colours -----------------------------------------------------------------------------------------------------------


def _coloured(u: Tensor, normal: Tensor, happens: Tensor) -> Tensor:
    """New colours of old ones, as affine maps of red, green and blue: (n, 4, 4)."""
    n = len(u)
    device = u.device
    identity = torch.eye(4, device=device)
    unchanged = identity.expand(n, 4, 4)
    colours = torch.tensor([1.0, 1.0, 1.0, 0.0], device=device)

    grey = colours / math.sqrt(3)
    along_grey = torch.outer(grey, grey)  # (4, 4)

    brighter = unchanged.clone()
    brighter[:, :3, 3] = 0.2 * normal[:, 4, None]

    contrast = torch.diag_embed(torch.exp2(0.5 * normal[:, 5, None]) * colours)  # (n, 4, 4)
    contrast[:, 3, 3] = 1

    flipped = unchanged - 2 * along_grey * (u[:, 6] < 0.5)[:, None, None]  # light becomes dark, hues stay

    # A turn of colours about grey (Rodrigues).
    angle = ((2 * u[:, 7] - 1) * math.pi)[:, None, None]
    across = torch.zeros(4, 4, device=device)
    across[0, 1] = -1.0
    across[0, 2] = 1.0
    across[1, 2] = -1.0
    across = (across - across.T) / math.sqrt(3)
    space = torch.diag(colours)
    hue = angle.cos() * space + angle.sin() * across + (1 - angle.cos()) * along_grey + (identity - space)

    saturated = along_grey + (identity - along_grey) * torch.exp2(normal[:, 6])[:, None, None]
    saturated[:, 3, 3] = 1

    # Brightness first, then contrast, flip, hue and saturation: the last factor acts first.
    changes = ((9, saturated), (9, hue), (8, flipped), (7, contrast), (7, brighter))
    out = unchanged

    for k, matrices in changes:
        out = out @ torch.where(happens[:, k, None, None], matrices, unchanged)

    return out
