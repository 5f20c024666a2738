"""Sizes that the U-Nets of :mod:`phosphene.models.ldm` and :mod:`phosphene.models.dual_guided` have in common.

Both are diffusers' UNet2DConditionModel: residual blocks at halving sizes, some followed by a transformer that attends to
a condition.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["check_sizes", "diffusers_fields"]


class _Sizes(Protocol):
    """Fields that both configurations have; see :class:`phosphene.models.ldm.LdmConfig`."""

    @property
    def size(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def attention(self) -> tuple[bool, ...]: ...
    @property
    def blocks(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def context(self) -> int: ...


def check_sizes(c: _Sizes) -> None:
    """Raise ValueError, for a validator of a configuration, where sizes do not go together."""
    if len(c.attention) != len(c.widths):
        raise ValueError(f"attention has {len(c.attention)} values for {len(c.widths)} widths; give one each")

    halvings = len(c.widths) - 1
    if c.size % 2**halvings:
        raise ValueError(f"size {c.size} cannot be halved {halvings} times")

    for width in c.widths:
        if width % c.heads or width % c.groups:
            raise ValueError(f"width {width} must be a multiple of heads {c.heads} and of groups {c.groups}")


def diffusers_fields(c: _Sizes) -> dict[str, Any]:
    """The same sizes as fields of diffusers' UNet2DConditionModel."""
    down = []
    up = []
    for attends in c.attention:
        if attends:
            down.append("CrossAttnDownBlock2D")
            up.append("CrossAttnUpBlock2D")
        else:
            down.append("DownBlock2D")
            up.append("UpBlock2D")

    return {
        "sample_size": c.size,
        "in_channels": c.channels,
        "out_channels": c.channels,
        "down_block_types": down,
        "up_block_types": up[::-1],
        "block_out_channels": list(c.widths),
        "layers_per_block": c.blocks,
        "attention_head_dim": c.heads,  # in this class the number of heads, whatever its name says
        "cross_attention_dim": c.context,
        "norm_num_groups": c.groups,
    }
