"""The Very Deep VAE's sizes and the layout of its latents, as plain values that load without torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.errors import DataError
from phosphene.run.config import Config


class Step(NamedTuple):
    """One block of a stack, at one resolution (pixels along a side).

    `pool` : in an encoder, by how much the block's output is averaged down
    `mixin` : in a decoder, the coarser resolution whose state is added first
    """

    resolution: int
    pool: int = 1
    mixin: int | None = None


class VdvaeConfig(Config):
    """Sizes of a Very Deep VAE. The defaults are those of the public ImageNet-64 weights.

    Blocks are written as in the paper's public code, coarse to fine or fine to coarse: ``8x7`` is seven blocks at
    8 x 8; ``8d2`` one block there whose output is averaged down by 2; ``8m4`` one that first adds what 4 x 4 has become.

    Examples
    --------
    >>> config = VdvaeConfig.paper()
    >>> len(config.encoder_steps), len(config.decoder_steps), config.length(15), config.length(31)
    (65, 75, 13344, 91168)
    >>> config.names[14], config.shapes[14]
    ('15 of 75, 16 x 16', (16, 16, 16))
    """

    image_size: int = Field(64, ge=1, description="pixels along each side of a picture")
    latent_channels: int = Field(16, ge=1, description="values per place of every group of latents")
    width: int = Field(512, ge=1, description="channels everywhere")
    middle: int = Field(128, ge=1, description="channels inside a block, a quarter of width in the paper")
    mixtures: int = Field(10, ge=1, description="logistic distributions that are mixed into each pixel's")
    encoder: str = Field(
        "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5", description="blocks from fine to coarse"
    )
    decoder: str = Field(
        "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
        description="blocks from coarse to fine; each has one group of latents",
    )
    given: int = Field(15, ge=1, description="first groups that brain decoders predict; the two-stage decoder also: 31")
    shift: float = Field(115.92961967, description="subtracted from 0-255 on the way in; mean of ImageNet-64")
    scale: float = Field(69.37404, gt=0, description="what that is divided by")

    @model_validator(mode="after")
    def _blocks_fit(self) -> Self:
        side, seen = self.image_size, {self.image_size}
        for step in self.encoder_steps:
            if step.mixin is not None or step.resolution != side or side % step.pool:
                raise ValueError(f"encoder has a block {step.resolution} where pictures are {side} x {side} by then")
            side //= step.pool
            seen.add(side)
        begun: set[int] = set()
        for step in self.decoder_steps:
            if step.pool > 1 or step.resolution not in seen:
                raise ValueError(f"decoder has a block at {step.resolution}, a size the encoder never has")
            if step.mixin is not None and (step.mixin not in begun or step.resolution % step.mixin):
                raise ValueError(f"decoder block {step.resolution}m{step.mixin} needs an earlier block at {step.mixin}")
            begun.add(step.resolution)
        if self.decoder_steps[-1].resolution != self.image_size:
            raise ValueError(f"decoder must end at image_size {self.image_size}")
        if self.given > len(self.decoder_steps):
            raise ValueError(f"given {self.given} is more than the {len(self.decoder_steps)} groups of the decoder")
        return self

    @classmethod
    def paper(cls) -> Self:
        """ImageNet-64: 75 groups, 1,451,040 latents, 125,005,860 weights (Child 2021, table 1 and public code)."""
        return cls()

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab's 32 x 32 pictures: 8 groups, 6,788 latents, 644 in the first 5; 316,994 weights."""
        return cls(
            image_size=32, latent_channels=4, width=64, middle=16, mixtures=5, given=5,
            encoder="32x1,32d2,16x2,16d2,8x2,8d2,4x1,4d4,1x1", decoder="1x1,4m1,4x1,8m4,8x1,16m8,16x1,32m16",
        )  # fmt: skip

    # -- blocks ----------------------------------------------------------------------------------------------------

    @cached_property
    def encoder_steps(self) -> tuple[Step, ...]:
        """Blocks of the encoder, in order."""
        return _steps(self.encoder)

    @cached_property
    def decoder_steps(self) -> tuple[Step, ...]:
        """Blocks of the decoder, in order: one per group of latents."""
        return _steps(self.decoder)

    @property
    def resolutions(self) -> list[int]:
        """Sizes the decoder works at, ascending."""
        return sorted({step.resolution for step in self.decoder_steps})

    # -- latents ---------------------------------------------------------------------------------------------------

    @cached_property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) of each group of latents."""
        return tuple((self.latent_channels, s.resolution, s.resolution) for s in self.decoder_steps)

    @property
    def names(self) -> list[str]:
        """What each group is called in messages and tables."""
        n = len(self.decoder_steps)
        return [f"{k} of {n}, {s.resolution} x {s.resolution}" for k, s in enumerate(self.decoder_steps, 1)]

    def length(self, groups: int | None = None) -> int:
        """Values in the first groups; in all by default.

        Raises
        ------
        DataError
            For a number of groups that there is not.
        """
        n = len(self.shapes)
        if groups is not None and not 1 <= groups <= n:
            raise DataError(f"this network has groups 1 to {n}, but {groups} were asked for.")
        return sum(c * h * w for c, h, w in self.shapes[:groups])

    def groups_in(self, length: int) -> int:
        """How many first groups have this many values together.

        Raises
        ------
        DataError
            When no number of groups has.
        """
        ends = np.cumsum([c * h * w for c, h, w in self.shapes])
        at = int(np.searchsorted(ends, length))
        if at == len(ends) or ends[at] != length:
            near = ", ".join(f"{k + 1} groups: {ends[k]}" for k in range(max(0, at - 1), min(len(ends), at + 2)))
            raise DataError(
                f"vectors of {length} values are not the first groups of these latents ({near}). They are of another "
                "network, or cut in the middle of a group."
            )
        return at + 1

    def split(self, vectors: np.ndarray) -> list[np.ndarray]:
        """Vectors as groups.

        Parameters
        ----------
        vectors : (n, d), the first groups one after the other, each flattened channels, rows, columns

        Returns
        -------
        one (n, channels, height, width) per group, views

        Raises
        ------
        DataError
            When d is not the length of the first groups, or vectors are no matrix.
        """
        if vectors.ndim != 2:
            raise DataError(f"latents as vectors must be (n, d), but have shape {tuple(vectors.shape)}.")
        shapes = self.shapes[: self.groups_in(vectors.shape[1])]
        ends = np.cumsum([0] + [c * h * w for c, h, w in shapes])
        parts = zip(pairwise(ends), shapes, strict=True)
        return [vectors[:, a:b].reshape(len(vectors), *shape) for (a, b), shape in parts]

    def join(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        """Groups as vectors: what :meth:`split` takes apart, (n, d).

        Raises
        ------
        DataError
            When a group has another shape.
        """
        n = len(groups[0]) if len(groups) else 0
        wanted, came = [(n, *shape) for shape in self.shapes[: len(groups)]], [tuple(g.shape) for g in groups]
        if not groups or came != wanted:
            raise DataError(
                f"the first groups of latents must have shapes {wanted or '(n, channels, height, width)'}, but {came} came; "
                "pass groups in their order, from 1 x 1."
            )
        return np.concatenate([g.reshape(n, -1) for g in groups], axis=1)


def _steps(text: str) -> tuple[Step, ...]:
    out: list[Step] = []
    for word in text.split(","):
        found = re.fullmatch(r"([1-9]\d*)(?:([xdm])([1-9]\d*))?", word.strip())
        if not found:
            raise ValueError(f"'{word}' is no block; write RxN, RdK, RmS or R, as in 8x7, 8d2, 8m4")
        resolution, kind, number = int(found[1]), found[2], int(found[3] or 1)
        if kind == "m":
            out.append(Step(resolution, mixin=number))
        else:
            out += [Step(resolution, pool=number)] if kind == "d" else [Step(resolution)] * number
    return tuple(out)


def picture_rng(seed: int, stimulus: Any, part: int) -> np.random.Generator:
    """Where the noise of one part of one picture comes from: a function of its arguments and nothing else.

    Parameters
    ----------
    seed : of all noise
    stimulus : id of the picture
    part : group of latents, from 0; the number of groups for pixels
    """
    words = np.frombuffer(hashlib.sha256(str(stimulus).encode()).digest(), dtype="<u4")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, part, *words.tolist()])))


def group_noise(seed: int, ids: Sequence[Any], group: int, shape: Sequence[int]) -> np.ndarray:
    """Standard normal noise of one group of latents: (len(ids), *shape) float32, each row by :func:`picture_rng`."""
    return np.stack([picture_rng(seed, i, group).standard_normal(tuple(shape), dtype=np.float32) for i in ids])
