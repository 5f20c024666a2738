"""All-pairs SSIM against a loop over scikit-image.

50 decoded and 50 true grey pictures. The rival calls scikit-image's structural_similarity for each pair with the same
window, in float64 and in float32, on a part of the pairs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.measure import need, timed
from benchmarks.record import Step, growth

TITLE = "all-pairs SSIM, against scikit-image"
N_ROWS_LOOP = 3
SETTINGS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


def pictures(items: int, pixels: int, seed: int) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    smooth = np.stack([gaussian_filter(rng.random((pixels, pixels)), 3) for _ in range(items)])
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def pair(items: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    true = pictures(items, pixels, 0)
    return np.clip(0.5 * true + 0.5 * pictures(items, pixels, 1), 0, 1), true


def loop(decoded: np.ndarray, true: np.ndarray) -> np.ndarray:
    structural_similarity = need("skimage.metrics").structural_similarity
    return np.array([[structural_similarity(x, y, **SETTINGS) for y in true] for x in decoded])


def ours(_: Path, items: int, pixels: int) -> dict:
    from phosphene.metrics.ssim import ssim_pairs

    clock, _ = timed(ssim_pairs, *pair(items, pixels), at_least=0.2)
    return clock.figures(note=f"{1000 * clock.cpu / items**2:.4g} ms a pair")


def rival(items: int, pixels: int, dtype: str) -> dict:
    decoded, true = (side.astype(dtype) for side in pair(items, pixels))
    n_rows = min(N_ROWS_LOOP, items)
    loop(decoded[:1], true[:1])
    clock, _ = timed(loop, decoded[:n_rows], true)
    return clock.figures(part=n_rows / items, note=f"{1000 * clock.cpu / n_rows / items:.4g} ms a pair")


def compare(_: Path, items: int, pixels: int) -> dict:
    from phosphene.metrics.ssim import ssim_pairs

    decoded, true = pair(items, pixels)
    expected = loop(decoded[:1].astype(np.float64), true.astype(np.float64))
    return {"difference": float(np.abs(ssim_pairs(decoded, true)[:1] - expected).max()), "note": "to float64"}


CASES = {
    "ours": ours,
    "scikit-image, float64": lambda _, **s: rival(dtype="float64", **s),
    "scikit-image, float32": lambda _, **s: rival(dtype="float32", **s),
}
STEPS = [
    *growth("pixels", {28: 0, 64: 0, 128: 0, 425: 1}, tuple(CASES), {"items": 50}),
    Step({"items": 50, "pixels": 256}, tuple(CASES), along="pixels", rounds=3, level=0),
]
