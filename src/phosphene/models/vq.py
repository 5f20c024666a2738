"""Pictures as codes on a grid, and back.

::

    picture (n, 256, 256, 3) -> encoder -> (n, 256, 16, 16) -> nearest entry of the codebook -> codes (n, 16, 16)
    codes -> entries of the codebook -> decoder -> picture

In this file: :class:`VqganConfig` and :class:`Vqgan`, the network that MaskGIT was published with (Chang et al. 2022; LEA,
section 3.3 and appendix A.1), and :class:`Tokenizer`, which takes pictures through it, or through diffusers' VQModel, in
batches. Converters of its public weights are in :mod:`phosphene.models.maskgit`, with those of the transformer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from phosphene.errors import DataError
from phosphene.io.config import Config, validate
from phosphene.models.batch_invariance import full_batches

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel

__all__ = ["Tokenizer", "Vqgan", "VqganConfig"]


# -- configuration -----------------------------------------------------------------------------------------------------


class VqganConfig(Config):
    """Sizes of the tokenizer; the defaults are the published ones."""

    codes: int = Field(default=1024, ge=2, description="entries of the codebook")
    code_width: int = Field(default=256, ge=1, description="values per code")
    width: int = Field(default=128, ge=1, description="channels at full size")
    multipliers: tuple[int, ...] = Field(
        default=(1, 1, 2, 2, 4), min_length=1, description="channels per halving, of width"
    )
    blocks: int = Field(default=2, ge=1, description="residual blocks per size, and in the middle")
    groups: int = Field(default=32, ge=1, description="of group norms")
    eps: float = Field(default=1e-6, gt=0, description="of group norms; the public weights were trained with 1e-6")

    @property
    def factor(self) -> int:
        """Pixels along each side that one code stands for."""
        return 2 ** (len(self.multipliers) - 1)


# -- the network -------------------------------------------------------------------------------------------------------


class _ResBlock(nn.Module):
    """Norm, SiLU and convolution twice, and a way around them."""

    def __init__(self, c: VqganConfig, n_in: int, n_out: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(c.groups, n_in, c.eps)
        self.norm2 = nn.GroupNorm(c.groups, n_out, c.eps)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)

        if n_in != n_out:
            self.nin_shortcut = nn.Conv2d(n_out, n_out, 1, bias=False)
        else:
            self.nin_shortcut = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))  # (n, n_out, height, width)
        y = self.conv2(F.silu(self.norm2(y)))

        if self.nin_shortcut is None:
            return y + x

        # Where channels change, the public network adds a projection of the block's output, not of its input.
        return y + self.nin_shortcut(y)


class _Level(nn.Module):
    """Residual blocks of one size; in the decoder all but the last are followed by a doubling."""

    def __init__(self, c: VqganConfig, n_in: int, n_out: int, doubles: bool = False):
        super().__init__()
        later = (_ResBlock(c, n_out, n_out) for _ in range(c.blocks - 1))
        self.block = nn.ModuleList([_ResBlock(c, n_in, n_out), *later])

        if doubles:
            self.upsample = nn.ModuleDict({"conv": nn.Conv2d(n_out, n_out, 3, padding=1)})
        else:
            self.upsample = None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)

        if self.upsample is None:
            return x

        return self.upsample["conv"](F.interpolate(x, scale_factor=2, mode="nearest"))


class _VqEncoder(nn.Module):
    """Levels of halving size, then the middle."""

    def __init__(self, c: VqganConfig):
        super().__init__()
        widths = [c.width * m for m in c.multipliers]
        self.conv_in = nn.Conv2d(3, c.width, 3, padding=1, bias=False)
        self.down = nn.ModuleList(_Level(c, a, b) for a, b in zip([c.width, *widths], widths, strict=False))
        self.mid = nn.ModuleList(_ResBlock(c, widths[-1], widths[-1]) for _ in range(c.blocks))
        self.norm_out = nn.GroupNorm(c.groups, widths[-1], c.eps)
        self.conv_out = nn.Conv2d(widths[-1], c.code_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, height, width), 0-1, to latents (n, code_width, height / factor, width / factor)."""
        x = self.down[0](self.conv_in(x))
        for level in self.down[1:]:
            x = level(F.avg_pool2d(x, 2))

        for block in self.mid:
            x = block(x)

        return self.conv_out(F.silu(self.norm_out(x)))


class _VqDecoder(nn.Module):
    """The middle, then levels of doubling size."""

    def __init__(self, c: VqganConfig):
        super().__init__()
        widths = [c.width * m for m in reversed(c.multipliers)]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(c.code_width, widths[0], 3, padding=1)
        self.mid = nn.ModuleList(_ResBlock(c, widths[0], widths[0]) for _ in range(c.blocks))
        pairs = zip([widths[0], *widths], widths, strict=False)
        self.up = nn.ModuleList(_Level(c, a, b, doubles=i < last) for i, (a, b) in enumerate(pairs))
        self.norm_out = nn.GroupNorm(c.groups, widths[-1], c.eps)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Latents to pictures, nominally 0-1, not clipped."""
        x = self.conv_in(z)
        for part in (*self.mid, *self.up):
            x = part(x)

        return self.conv_out(F.silu(self.norm_out(x)))


class Vqgan(nn.Module):
    """The convolutional tokenizer of MaskGIT: 256 x 256 pictures as 16 x 16 codes of 1024.

    No attention, average pooling on the way down, nearest neighbours on the way up. Pictures are 0-1 on both ends.

    Parameters
    ----------
    **config : Any
        fields of :class:`VqganConfig`; the published sizes by default (54,515,587 weights). Weights are drawn from
        torch's global generator

    Raises
    ------
    ConfigError
        For fields that do not exist or do not fit.

    References
    ----------
    Chang et al. 2022, "MaskGIT"; its public code.
    """

    def __init__(self, **config: Any):
        super().__init__()
        self.config = c = validate(VqganConfig, config, "the configuration of the tokenizer")
        self.encoder = _VqEncoder(c)
        self.decoder = _VqDecoder(c)
        self.quantizer = nn.ModuleDict({"embedding": nn.Embedding(c.codes, c.code_width)})


# -- pictures through it -----------------------------------------------------------------------------------------------


class Tokenizer:
    """Pictures to codes and back through a frozen network, in batches.

    Parameters
    ----------
    network : VQModel or Vqgan
        diffusers' VQModel, whose pictures are of -1 to 1, or :class:`Vqgan`, whose pictures are of 0 to 1; it is put
        into evaluation mode
    batch_size : int, default 10
        pictures that go through it at once

    Attributes
    ----------
    codes : int
        entries of the codebook

    Examples
    --------
    >>> tokenizer = Tokenizer(Vqgan(codes=32, code_width=4, width=8, multipliers=[1, 2], groups=4))
    >>> tokens = tokenizer.encode(np.zeros((3, 16, 16, 3), dtype=np.uint8))
    >>> tokens.shape, tokenizer.decode(tokens).shape
    ((3, 8, 8), (3, 16, 16, 3))
    """

    def __init__(self, network: VQModel | Vqgan, *, batch_size: int = 10) -> None:
        self.network = network.eval()
        self.batch_size = batch_size

        if isinstance(network, Vqgan):
            self._embedding = cast(nn.Embedding, network.quantizer["embedding"])
        else:
            self._embedding = network.quantize.embedding

        self.codes = len(self._embedding.weight)

    @torch.no_grad()
    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Codes of pictures.

        Parameters
        ----------
        pixels : ndarray of shape (n, height, width, 3)
            uint8 of 0-255 or floats of 0-1; sides a multiple of the network's factor

        Returns
        -------
        ndarray of shape (n, rows, columns), int64
            0 .. codes - 1

        Raises
        ------
        DataError
            For another shape, or floats outside 0-1.
        """
        pixels = np.asarray(pixels)
        if pixels.ndim != 4 or pixels.shape[3] != 3 or not len(pixels):
            raise DataError(f"pictures must be (n, height, width, 3) with n above 0, but have shape {pixels.shape}.")

        if pixels.dtype != np.uint8 and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise DataError(
                f"pictures as floats must lie in 0-1, but span {pixels.min():.3g} to {pixels.max():.3g}; clip them, or pass "
                "uint8 of 0-255."
            )

        blocks = []
        for start in range(0, len(pixels), self.batch_size):
            blocks.append(self._encode(pixels[start : start + self.batch_size]))

        return np.concatenate(blocks)

    @torch.no_grad()
    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Pictures of codes.

        Parameters
        ----------
        tokens : ndarray of shape (n, rows, columns)
            integers, 0 .. codes - 1

        Returns
        -------
        ndarray of shape (n, height, width, 3), float32
            0-1

        Raises
        ------
        DataError
            For another shape, or values that are no code, such as the mask.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 3 or tokens.dtype.kind not in "iu" or not len(tokens):
            raise DataError(
                f"codes must be integers (n, rows, columns) with n above 0, but are {tokens.dtype} of shape {tokens.shape}."
            )

        if tokens.min() < 0 or tokens.max() >= self.codes:
            raise DataError(
                f"codes of this tokenizer are 0 .. {self.codes - 1}, but span {tokens.min()} .. {tokens.max()}; they are "
                "of another tokenizer, or some are still masked."
            )

        blocks = []
        for part, filled in full_batches(len(tokens), self.batch_size):
            pictures = self._decode(tokens[filled])
            blocks.append(pictures[: part.stop - part.start])

        return np.concatenate(blocks)

    def _encode(self, pixels: np.ndarray) -> np.ndarray:
        codebook = self._embedding.weight
        if pixels.dtype == np.uint8:
            unit = pixels.astype(np.float32) / np.float32(255)
        else:
            unit = pixels.astype(np.float32)

        x = torch.from_numpy(np.ascontiguousarray(unit.transpose(0, 3, 1, 2))).to(codebook.device)  # (n, 3, h, w)
        if isinstance(self.network, Vqgan):
            z = self.network.encoder(x)
        else:
            z = self.network.encode(2 * x - 1).latents

        n, width, rows, columns = z.shape
        z = z.permute(0, 2, 3, 1).reshape(-1, width)  # (n x rows x columns, width)

        return torch.cdist(z, codebook).argmin(1).view(n, rows, columns).cpu().numpy()

    def _decode(self, tokens: np.ndarray) -> np.ndarray:
        codebook = self._embedding.weight  # (codes, width)
        codes = torch.from_numpy(tokens.astype(np.int64)).to(codebook.device)
        z = codebook[codes].permute(0, 3, 1, 2)  # (n, width, rows, columns)

        if isinstance(self.network, Vqgan):
            x = self.network.decoder(z)
        else:
            x = (self.network.decode(z, force_not_quantize=True, return_dict=False)[0] + 1) / 2

        return x.clamp(0, 1).float().cpu().numpy().transpose(0, 2, 3, 1)
