"""Attention as every transformer of ours computes it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention, (n, heads, tokens, width of a head) each; on a CPU never in bfloat16.

    Parameters
    ----------
    q : Tensor of shape (n, heads, n_queries, width)
        queries
    k, v : Tensor of shape (n, heads, n_keys, width)
        keys and values

    Returns
    -------
    Tensor of shape (n, heads, n_queries, width)
        in the dtype of `q`
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # The backward pass of bfloat16 attention takes several times that of float32 on a CPU.
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v)  # (n, heads, n_queries, width)
