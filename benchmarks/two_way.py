"""Two-way identification against numpy.corrcoef of stacked rows.

982 pairs at the sizes of CLIP, AlexNet layer 5 and AlexNet layer 2. The rival stacks both sides, lets numpy.corrcoef
compute all four blocks in float64, and counts, as the published scripts do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.measure import timed
from benchmarks.record import Step, growth

TITLE = "two-way identification, against numpy.corrcoef"
CLIP, ALEXNET_5, ALEXNET_2, N_PAIRS = 768, 43_264, 139_968, 982


def pairs(items: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true = np.maximum(rng.standard_normal((items, features), dtype=np.float32), 0)  # a ReLU layer
    decoded = np.maximum(rng.standard_normal((items, features), dtype=np.float32) + 0.02 * true, 0)
    return decoded, true


def stacked(decoded: np.ndarray, true: np.ndarray) -> np.ndarray:
    r = np.corrcoef(decoded, true)[: len(decoded), len(decoded) :]
    own = np.diagonal(r)[:, None]
    return (r < own).sum(axis=1) / (len(r) - 1)


def exact(decoded: np.ndarray, true: np.ndarray) -> np.ndarray:
    from phosphene.metrics.identification import similarity, two_way

    return two_way(similarity(decoded, true))


def corrcoef(folder: Path, items: int, features: int) -> dict:
    clock, score = timed(stacked, *pairs(items, features))
    np.save(folder / "corrcoef.npy", score)
    return clock.figures(note=f"score {score.mean():.6f}")


def ours(folder: Path, items: int, features: int) -> dict:
    given = pairs(items, features)
    exact(*given)
    clock, score = timed(exact, *given)
    np.save(folder / "ours.npy", score)
    return clock.figures(note=f"score {score.mean():.6f}")


def compare(folder: Path, **_: int) -> dict:
    if not (folder / "corrcoef.npy").is_file():
        return {}
    mine, theirs = (np.load(folder / f"{name}.npy") for name in ("ours", "corrcoef"))
    return {"difference": abs(float(mine.mean() - theirs.mean())), "note": "of the scores"}


CASES = {"ours": ours, "numpy.corrcoef": corrcoef}
STEPS = [
    *growth("items", {250: 0, 500: 0, 1000: 0, 2000: 1}, tuple(CASES), {"features": 10_000}),
    *growth("features", {CLIP: 0, ALEXNET_5: 0, ALEXNET_2: 1}, tuple(CASES), {"items": N_PAIRS}),
    Step({"items": N_PAIRS, "features": ALEXNET_2}, tuple(CASES), rounds=3, level=2),
]
