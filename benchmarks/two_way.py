"""Two-way identification against numpy.corrcoef of stacked rows. Run: python benchmarks/two_way.py

982 pairs at the sizes of CLIP, AlexNet layer 5 and AlexNet layer 2. The rival stacks both sides, lets numpy.corrcoef
compute all four blocks in float64, and counts, as the published scripts do. Both sides run in this process, in turns, on
one thread; figures are medians of CPU seconds. Extra memory is the peak that numpy allocates beyond the two inputs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import time
import tracemalloc

import numpy as np

from phosphene.evaluate.identification import similarity, two_way

N_PAIRS, ROUNDS = 982, 3
SIZES = {"CLIP, 768": 768, "AlexNet 5, 43,264": 43_264, "AlexNet 2, 139,968": 139_968}


def stacked(decoded: np.ndarray, true: np.ndarray) -> np.ndarray:
    r = np.corrcoef(decoded, true)[: len(decoded), len(decoded) :]
    own = np.diagonal(r)[:, None]
    return (r < own).sum(axis=1) / (len(r) - 1)


def ours(decoded: np.ndarray, true: np.ndarray) -> np.ndarray:
    return two_way(similarity(decoded, true))


def cpu(call, *inputs) -> tuple[float, np.ndarray]:
    start = time.process_time()
    result = call(*inputs)
    return time.process_time() - start, result


def peak_mb(call, *inputs) -> float:
    tracemalloc.start()
    call(*inputs)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"two-way identification, {N_PAIRS} pairs, CPU seconds, median of {ROUNDS} rounds")
    for name, width in SIZES.items():
        true = np.maximum(rng.standard_normal((N_PAIRS, width), dtype=np.float32), 0)  # a ReLU layer
        decoded = np.maximum(rng.standard_normal((N_PAIRS, width), dtype=np.float32) + 0.02 * true, 0)
        ours(decoded, true)
        rival, mine = [], []
        for _ in range(ROUNDS):
            seconds, expected = cpu(stacked, decoded, true)
            rival.append(seconds)
            seconds, found = cpu(ours, decoded, true)
            mine.append(seconds)
        memory, rival_memory = peak_mb(ours, decoded, true), peak_mb(stacked, decoded, true)
        a, b = statistics.median(rival), statistics.median(mine)
        print(
            f"  {name:<20} corrcoef {a:7.3f} s {rival_memory:6.0f} MB   ours {b:6.3f} s {memory:4.0f} MB   "
            f"ratio {a / b:4.1f}   score {expected.mean():.6f} / {found.mean():.6f}"
        )
    print("  bar at AlexNet 2: ratio 4.5, under 100 MB")


if __name__ == "__main__":
    main()
