"""The transformer that fMRI autoencoders of this field share: pre-norm blocks and fixed one-dimensional positions.

Weights carry the names of timm's vision transformer, so that public checkpoints fit without renaming. In this file, from
top to bottom: attention, MLP and the block of both; tokens through blocks; position codes; how weights start.

References
----------
Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1; He et al. 2022, "Masked Autoencoders Are Scalable
Vision Learners", appendix A; Vaswani et al. 2017, "Attention Is All You Need", section 3.5.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from phosphene.training.attention import attend


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values come from one product.

    Parameters
    ----------
    width : int
        of a token
    n_heads : int
        divides `width`
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, first_only: bool = False) -> Tensor:
        """Tokens to tokens.

        Parameters
        ----------
        x : Tensor of shape (n, tokens, width)
            in any order
        first_only : bool, default False
            compute the first token's only, from all

        Returns
        -------
        Tensor
            (n, tokens, width), or (n, 1, width)
        """
        n, n_tokens, width = x.shape
        if first_only:
            weight = self.qkv.weight
            bias = self.qkv.bias
            q = self._heads(F.linear(x[:, :1], weight[:width], bias[:width]))
            keys, values = F.linear(x, weight[width:], bias[width:]).chunk(2, -1)
            k = self._heads(keys)
            v = self._heads(values)
        else:
            qkv = self.qkv(x).view(n, n_tokens, 3, self.n_heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (n, heads, tokens, width / heads) each

        out = attend(q, k, v)  # (n, heads, tokens, width / heads)
        return self.proj(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (n, heads, tokens, width / heads)


class Mlp(nn.Module):
    """Two layers with an exact GELU between.

    Parameters
    ----------
    width : int
        of a token
    hidden : int
        units between
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to what came in.

    Parameters
    ----------
    width : int
        of a token
    n_heads : int
        divides `width`
    mlp_ratio : float
        hidden units of the MLP over `width`
    """

    def __init__(self, width: int, n_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, first_only: bool = False) -> Tensor:
        """Tokens to tokens.

        Parameters
        ----------
        x : Tensor of shape (n, tokens, width)
            in any order
        first_only : bool, default False
            compute the first token's only, from all

        Returns
        -------
        Tensor
            (n, tokens, width), or (n, 1, width)
        """
        attended = self.attn(self.norm1(x), first_only)
        if first_only:
            x = x[:, :1]

        x = x + attended
        return x + self.mlp(self.norm2(x))


def run_blocks(blocks: nn.ModuleList, x: Tensor, *, first_only: bool = False, recompute: bool = False) -> Tensor:
    """Tokens through all blocks.

    Parameters
    ----------
    blocks : nn.ModuleList
        of :class:`Block`
    x : Tensor of shape (n, tokens, width)
        tokens, each with its position code
    first_only : bool, default False
        return only the first token, (n, 1, width): the last block then computes no other
    recompute : bool, default False
        keep only each block's input for the backward pass and compute the rest a second time: far less memory, about a
        third more work

    Returns
    -------
    Tensor
        (n, tokens, width), or (n, 1, width)
    """
    last = len(blocks) - 1
    for i, block in enumerate(blocks):
        only_first = first_only and i == last
        if recompute and torch.is_grad_enabled():
            x = checkpoint(block, x, only_first, use_reentrant=False, preserve_rng_state=False)
        else:
            x = block(x, only_first)

    if first_only:
        return x[:, :1]  # without blocks nothing was cut

    return x


@lru_cache(maxsize=32)
def position_codes(n: int, width: int, device: str = "cpu") -> Tensor:
    """Fixed position codes, those of token 0 to n - 1 behind a row of zeros for the class token.

        code_i = sin(p f_i), ..., cos(p f_i), ...,    f_i = 10000^(-i / (width / 2)),    i from 0 to width / 2 - 1

    Parameters
    ----------
    n : int
        tokens, without the class token
    width : int
        even
    device : str, default "cpu"
        where the codes are wanted; they are computed on the CPU, so that they are the same everywhere

    Returns
    -------
    Tensor of shape (1 + n, width), float32
        -1 to 1; shared by all who ask, so never to be changed in place

    Examples
    --------
    >>> position_codes(2, 4)[:2].tolist()
    [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    """
    half = width // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.float64, device="cpu") * (-math.log(1e4) / (width / 2)))
    angle = torch.arange(n, dtype=torch.float64, device="cpu")[:, None] * frequency  # (n, width / 2)
    codes = torch.cat([angle.sin(), angle.cos()], dim=1)  # (n, width)
    return torch.cat([codes.new_zeros(1, width), codes]).float().to(device)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator, filter_std: float = 0.02) -> None:
    """Weights as masked autoencoders start: Xavier-uniform matrices, Gaussian filters, norms one, biases zero.

    Parameters
    ----------
    network : nn.Module
        every Linear, Conv1d and LayerNorm in it is set
    generator : torch.Generator
        what is drawn from, in the order of the network's modules
    filter_std : float, default 0.02
        standard deviation of the filters of convolutions
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif isinstance(module, nn.Conv1d):
            nn.init.normal_(module.weight, std=filter_std, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        else:
            continue

        if module.bias is not None:
            nn.init.zeros_(module.bias)
