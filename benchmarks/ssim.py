"""All-pairs SSIM against a loop over scikit-image. Run: python benchmarks/ssim.py

50 decoded and 50 true grey pictures. The rival calls scikit-image's structural_similarity for each pair with the same
window, in float64 and in float32, on a part of the pairs. Both sides run in this process, in turns, on one thread;
figures are medians of CPU milliseconds per pair.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import time
import tracemalloc

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from phosphene.evaluate.ssim import ssim_pairs

N_PICTURES, N_ROWS_LOOP, ROUNDS = 50, 3, 5
SETTINGS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


def pictures(n: int, side: int, rng: np.random.Generator) -> np.ndarray:
    smooth = np.stack([gaussian_filter(rng.random((side, side)), 3) for _ in range(n)])
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def loop(decoded: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.array([[structural_similarity(x, y, **SETTINGS) for y in true] for x in decoded])


def cpu(call, *inputs) -> tuple[float, np.ndarray]:
    start = time.process_time()
    result = call(*inputs)
    return 1000 * (time.process_time() - start), result


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"SSIM of {N_PICTURES} x {N_PICTURES} pictures, CPU ms per pair, median of {ROUNDS} rounds")
    for side in (28, 64, 256, 425):
        true = pictures(N_PICTURES, side, rng)
        decoded = np.clip(0.5 * true + 0.5 * pictures(N_PICTURES, side, rng), 0, 1)
        part, n_loop = decoded[:N_ROWS_LOOP], N_ROWS_LOOP * N_PICTURES
        double, single, ours = [], [], []
        wide = part.astype(np.float64), true.astype(np.float64)
        for _ in range(ROUNDS):
            ms, expected = cpu(loop, *wide)
            double.append(ms / n_loop)
            ms, _ = cpu(loop, part, true)
            single.append(ms / n_loop)
            ms, found = cpu(ssim_pairs, decoded, true)
            ours.append(ms / N_PICTURES**2)
        tracemalloc.start()
        ssim_pairs(decoded, true)
        memory = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        d, s, o = (statistics.median(x) for x in (double, single, ours))
        gap = np.abs(found[:N_ROWS_LOOP] - expected).max()
        print(
            f"  {side:3d} px   scikit-image float64 {d:6.3f}, float32 {s:6.3f}   ours {o:6.4f}   "
            f"ratio {d / o:4.1f} ({s / o:4.1f} to float32)   largest difference {gap:.1e}   {memory:.0f} MB"
        )
    print("  bar at 256 px: ratio 20")


if __name__ == "__main__":
    main()
