"""What must hold between the sizes of a U-Net that looks at a condition."""

from __future__ import annotations

from typing import Protocol


class _Sizes(Protocol):
    size: int
    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    heads: int
    groups: int


def check_sizes(c: _Sizes) -> None:
    """Raise ValueError, for a validator of a configuration, where sizes do not go together."""
    if len(c.attention) != len(c.widths):
        raise ValueError(f"attention has {len(c.attention)} values for {len(c.widths)} widths; give one each")
    if c.size % 2 ** (len(c.widths) - 1):
        raise ValueError(f"size {c.size} cannot be halved {len(c.widths) - 1} times")

    for width in c.widths:
        if width % c.heads or width % c.groups:
            raise ValueError(f"width {width} must be a multiple of heads {c.heads} and of groups {c.groups}")
