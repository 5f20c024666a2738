"""Exact n-way top-k against drawing distractors, as the published scripts do.

The rivals are our own writing of the published procedure: for every picture, 1,000 times choose 49 of the other 999
classes at random and look whether the true class is among the best k of the 50. ``as published`` judges each draw with
tensors and torchmetrics, as those scripts do; ``bare numpy`` is the same loop at its leanest. Rivals judge a few
pictures; their error, against the exact value, is the chance that ours has none of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks.measure import need, timed
from benchmarks.record import Step, growth

TITLE = "n-way top-k, exact against drawn"
N_CLASSES, N, K, N_DRAWS, N_LOOP = 1000, 50, 1, 1000, 4


def scores(items: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    found, true_class = rng.standard_normal((items, N_CLASSES)).astype(np.float32), rng.integers(0, N_CLASSES, items)
    found[np.arange(items), true_class] += 2
    return found, true_class


def as_published(found: np.ndarray, true_class: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    torch, accuracy = need("torch"), need("torchmetrics.functional").accuracy
    result = []
    for row, true in zip(torch.from_numpy(found), true_class.tolist(), strict=True):
        others = [c for c in range(N_CLASSES) if c != true]
        target, hits = torch.tensor([0]), []
        for _ in range(N_DRAWS):
            drawn = torch.from_numpy(rng.choice(others, N - 1, replace=False))
            candidates = torch.cat([row[true][None], row[drawn]])[None]
            hits.append(accuracy(candidates, target, task="multiclass", num_classes=N, top_k=K).item())
        result.append(np.mean(hits))
    return np.array(result)


def bare_numpy(found: np.ndarray, true_class: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    result = []
    for row, true in zip(found, true_class, strict=True):
        others = np.delete(row, true)
        hits = sum((rng.choice(others, N - 1, replace=False) >= row[true]).sum() < K for _ in range(N_DRAWS))
        result.append(hits / N_DRAWS)
    return np.array(result)


def ours(_: Path, items: int) -> dict:
    from phosphene.metrics.nway import n_way_class

    clock, _ = timed(n_way_class, *scores(items), N, K, at_least=0.3)
    return clock.figures()


def drawn(rival: Callable, items: int) -> dict:
    from phosphene.metrics.nway import n_way_class

    found, true_class = (part[:N_LOOP] for part in scores(items))
    rival(found[:1], true_class[:1], np.random.default_rng(0))  # imports
    clock, result = timed(rival, found, true_class, np.random.default_rng(0))
    error = 100 * np.sqrt(np.mean(np.square(result - n_way_class(found, true_class, N, K))))
    return clock.figures(part=len(found) / items, note=f"{error:.2f} points of error, rms per picture")


def compare(_: Path, items: int) -> dict:
    """Whether asking twice, the second time in another order, gives the same."""
    from phosphene.metrics.nway import n_way_class

    found, true_class = scores(items)
    first, again = n_way_class(found, true_class, N, K), n_way_class(found[::-1], true_class[::-1], N, K)[::-1]
    return {"difference": float(np.abs(first - again).max()), "note": "between two evaluations"}


CASES = {
    "ours": ours,
    "as published": lambda _, items: drawn(as_published, items),
    "bare numpy": lambda _, items: drawn(bare_numpy, items),
}
STEPS = [
    *growth("items", {100: 0, 10_000: 0}, tuple(CASES)),
    Step({"items": 1000}, tuple(CASES), along="items", rounds=3, level=0),
]
