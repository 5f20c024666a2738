"""Exact n-way top-k against drawing distractors, as the published scripts do. Run: python benchmarks/nway.py

The rivals are our own writing of the published procedure: for every picture, 1,000 times choose 49 of the other 999
classes at random and look whether the true class is among the best k of the 50. ``as published`` judges each draw with
tensors and torchmetrics, as those scripts do; ``bare numpy`` is the same loop at its leanest. All sides run in this
process, in turns, on one thread; figures are medians of CPU seconds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
import tracemalloc

import numpy as np
import torch
from torchmetrics.functional import accuracy

from phosphene.evaluate.nway import n_way_class

N_CLASSES, N, K, N_DRAWS = 1000, 50, 1, 1000
N_PICTURES, N_PICTURES_LOOP, ROUNDS = 1000, 4, 5


def as_published(scores: np.ndarray, true_class: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    result = []
    for row, true in zip(torch.from_numpy(scores), true_class.tolist(), strict=True):
        others = [c for c in range(N_CLASSES) if c != true]
        target, hits = torch.tensor([0]), []
        for _ in range(N_DRAWS):
            drawn = torch.from_numpy(rng.choice(others, N - 1, replace=False))
            candidates = torch.cat([row[true][None], row[drawn]])[None]
            hits.append(accuracy(candidates, target, task="multiclass", num_classes=N, top_k=K).item())
        result.append(np.mean(hits))
    return np.array(result)


def bare_numpy(scores: np.ndarray, true_class: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    result = []
    for row, true in zip(scores, true_class, strict=True):
        others = np.delete(row, true)
        hits = sum((rng.choice(others, N - 1, replace=False) >= row[true]).sum() < K for _ in range(N_DRAWS))
        result.append(hits / N_DRAWS)
    return np.array(result)


def cpu(call, *inputs) -> tuple[float, np.ndarray]:
    start = time.process_time()
    result = call(*inputs)
    return time.process_time() - start, result


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((N_PICTURES, N_CLASSES)).astype(np.float32)
    true_class = rng.integers(0, N_CLASSES, N_PICTURES)
    scores[np.arange(N_PICTURES), true_class] += 2
    few = scores[:N_PICTURES_LOOP], true_class[:N_PICTURES_LOOP]
    n_way_class(scores, true_class, N, K)  # makes the table of probabilities, as every later call finds it
    times: dict[str, list[float]] = {"as published": [], "bare numpy": [], "exact": []}
    errors = []
    for _ in range(ROUNDS):
        for name, loop in (("as published", as_published), ("bare numpy", bare_numpy)):
            seconds, drawn = cpu(loop, *few, rng)
            times[name].append(seconds / N_PICTURES_LOOP)
            seconds, exact = cpu(n_way_class, scores, true_class, N, K)
            times["exact"].append(seconds / N_PICTURES)
            errors.append(np.square(drawn - exact[:N_PICTURES_LOOP]))
    tracemalloc.start()
    n_way_class(scores, true_class, N, K)
    memory = tracemalloc.get_traced_memory()[1] / 1e6
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{N}-way top-{K} of {N_CLASSES} classes, CPU seconds per picture, median of {ROUNDS} rounds")
    for name in ("as published", "bare numpy"):
        print(f"  {N_DRAWS} draws, {name:<13} {median[name]:.4g}   ratio {median[name] / median['exact']:,.0f}")
    print(f"  exact                     {median['exact']:.4g}   extra memory {memory:.1f} MB for {N_PICTURES} pictures")
    print(
        f"  error of the draws: {100 * np.sqrt(np.mean(errors)):.2f} points rms per picture; of the exact value: none"
    )
    print("  bar: ratio 10,000 to the loop as published")


if __name__ == "__main__":
    main()
