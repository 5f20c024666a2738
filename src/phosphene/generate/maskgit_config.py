"""MaskGIT's and its tokenizer's sizes, as plain values that load without torch."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from phosphene.run.config import Config


class MaskGitConfig(Config):
    """A transformer over the codes of a square grid, conditioned on one latent. The defaults are LEA's.

    Examples
    --------
    >>> MaskGitConfig().n_tokens, MaskGitConfig().mask, MaskGitConfig.lab().n_tokens
    (256, 2024, 64)
    """

    codes: int = Field(1024, ge=2, description="entries of the tokenizer's codebook")
    unused: int = Field(1000, ge=0, description="embeddings between codes and mask: the classes of the public network")
    grid: int = Field(16, ge=1, description="codes along each side of a picture")
    latent: int = Field(1024, ge=1, description="values of the latent a picture is drawn from")
    width: int = Field(768, ge=1, description="values per token")
    depth: int = Field(24, ge=1, description="transformer blocks")
    heads: int = Field(16, ge=1, description="attention heads, a divisor of width")
    hidden: int = Field(3072, ge=1, description="width inside a block's perceptron")
    dropout: float = Field(0.01, ge=0, lt=1, description="of embeddings and of each block's two branches, in training")
    eps: float = Field(1e-12, gt=0, description="of layer norms; the public weights were trained with 1e-12")
    gelu: Literal["tanh", "none"] = Field("tanh", description="approximation of GELU; the public weights: tanh")
    min_masked: float = Field(0.5, gt=0, le=1, description="least share of tokens hidden in training")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing in training")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self

    @property
    def n_tokens(self) -> int:
        """Codes per picture."""
        return self.grid**2

    @property
    def mask(self) -> int:
        """The token that stands for an unknown code."""
        return self.codes + self.unused

    @classmethod
    def paper(cls) -> Self:
        """LEA: 16 x 16 codes of 1024, 1024 values of CLIP ViT-H/14; 173,244,393 weights."""
        return cls()

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab: 8 x 8 codes of 256, 64 values of the lab's CLIP; 1,454,721 weights."""
        return cls(codes=256, unused=0, grid=8, latent=64, width=128, depth=7, heads=4, hidden=512)


class SamplingConfig(Config):
    """How pictures are drawn. The defaults are LEA's."""

    steps: int = Field(11, ge=1, description="passes through the transformer")
    samples: int = Field(5, ge=1, description="pictures per latent")
    temperature: float = Field(
        4.5, ge=0, description="of the noise on confidences at the first step; it falls linearly"
    )


class VqganConfig(Config):
    """The published tokenizer's sizes."""

    codes: int = Field(1024, ge=2, description="entries of the codebook")
    code_width: int = Field(256, ge=1, description="values per code")
    width: int = Field(128, ge=1, description="channels at full size")
    multipliers: tuple[int, ...] = Field((1, 1, 2, 2, 4), min_length=1, description="channels per halving, of width")
    blocks: int = Field(2, ge=1, description="residual blocks per size, and in the middle")
    groups: int = Field(32, ge=1, description="of group norms")
    eps: float = Field(1e-6, gt=0, description="of group norms; the public weights were trained with 1e-6")

    @property
    def factor(self) -> int:
        """Pixels along each side that one code stands for."""
        return 2 ** (len(self.multipliers) - 1)


def unknown_counts(n_tokens: int, steps: int) -> list[int]:
    """How many codes are still unknown as each step begins: the cosine schedule.

        u_0 = N,    u_t = floor(N cos(pi t / 2T)), but at least 1 and less than u_(t-1) where that allows

    Parameters
    ----------
    n_tokens : N, codes per picture
    steps : T; after the last step nothing is unknown

    Returns
    -------
    `steps` counts

    References
    ----------
    Chang et al. 2022, section 3.2; Qian et al. 2024 (LEA).

    Examples
    --------
    >>> unknown_counts(256, 11)
    [256, 253, 245, 232, 215, 193, 167, 138, 106, 72, 36]
    """
    counts = [n_tokens]
    for step in range(1, steps):
        counts.append(max(1, min(counts[-1] - 1, math.floor(n_tokens * math.cos(math.pi * step / (2 * steps))))))
    return counts
