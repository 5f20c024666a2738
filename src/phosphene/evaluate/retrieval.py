"""Retrieval of the right item from a gallery of N, for every N at once and exactly.

``forward``: a decoded item looks for its picture among N true ones. ``backward``: a picture looks for its decoded item
among N decoded ones. Both are n-way top-k identification, so a score without its gallery size means nothing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from phosphene.evaluate.identification import oriented
from phosphene.evaluate.nway import n_way

GALLERIES = (2, 10, 50, 100, 300)


class Retrieval(NamedTuple):
    """Top-k accuracy at one gallery size: the mean, its chance level k / size, and the value of every item."""

    size: int
    accuracy: float
    chance: float
    per_item: np.ndarray


def retrieval_curve(
    similarity: np.ndarray,
    sizes: tuple[int, ...] = GALLERIES,
    k: int = 1,
    direction: Literal["forward", "backward"] = "forward",
    truth: np.ndarray | None = None,
) -> list[Retrieval]:
    """Expected top-k accuracy over gallery sizes, up to all items.

    Parameters
    ----------
    similarity : (n, m), row = decoded, column = true
    sizes : galleries to try; those above the number of items are left out, and the whole gallery is always last
    k : how many best count as found
    direction : ``forward`` or ``backward``
    truth : (n,) column of each row, forward only

    Returns
    -------
    list of Retrieval, in growing size; empty with fewer than k + 1 items

    References
    ----------
    Lin et al. 2022; Scotti et al. 2023 (MindEye) report N = 300.

    Examples
    --------
    >>> [(r.size, r.accuracy, r.chance) for r in retrieval_curve(np.eye(12))]
    [(2, 1.0, 0.5), (10, 1.0, 0.1), (12, 1.0, 0.08333333333333333)]
    """
    side = {"forward": "truths", "backward": "decoded"}.get(direction, direction)
    n_items = oriented(similarity, truth, side)[0].shape[1]
    usable = sorted({size for size in sizes if k < size <= n_items} | ({n_items} if n_items > k else set()))
    curve = []
    for size in usable:
        per_item = n_way(similarity, size, k, truth, side)
        curve.append(Retrieval(size, float(per_item.mean()) if len(per_item) else float("nan"), k / size, per_item))
    return curve
