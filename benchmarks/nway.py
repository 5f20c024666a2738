"""Exact n-way top-k against drawing distractors, as the published scripts do. Run: python benchmarks/nway.py

The rival is our own writing of the published procedure: for every picture, 1,000 times choose 49 of the other 999 classes
at random and look whether the true class is among the best k of the 50. Both sides run in this process, in turns, on one
thread; figures are medians of CPU seconds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import time
import tracemalloc

import numpy as np

from phosphene.evaluate.nway import n_way_class

N_CLASSES, N, K, N_DRAWS = 1000, 50, 1, 1000
N_PICTURES, N_PICTURES_LOOP, ROUNDS = 1000, 10, 5


def loop_of_draws(scores: np.ndarray, true_class: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    accuracy = []
    for row, true in zip(scores, true_class, strict=True):
        others = np.delete(np.arange(N_CLASSES), true)
        hits = 0
        for _ in range(N_DRAWS):
            chosen = rng.choice(others, N - 1, replace=False)
            candidates = np.concatenate([row[[true]], row[chosen]])
            hits += 0 in np.argsort(candidates)[-K:]
        accuracy.append(hits / N_DRAWS)
    return np.array(accuracy)


def cpu(call):
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def main() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((N_PICTURES, N_CLASSES)).astype(np.float32)
    true_class = rng.integers(0, N_CLASSES, N_PICTURES)
    scores[np.arange(N_PICTURES), true_class] += 2
    few = scores[:N_PICTURES_LOOP], true_class[:N_PICTURES_LOOP]
    n_way_class(scores, true_class, N, K)  # fills the table of probabilities once, as any later call finds it
    ours, theirs, gaps = [], [], []
    for _ in range(ROUNDS):
        seconds, drawn = cpu(lambda: loop_of_draws(*few, rng))
        theirs.append(seconds / N_PICTURES_LOOP)
        seconds, exact = cpu(lambda: n_way_class(scores, true_class, N, K))
        ours.append(seconds / N_PICTURES)
        gaps.append(np.square(drawn - exact[:N_PICTURES_LOOP]))
    tracemalloc.start()
    n_way_class(scores, true_class, N, K)
    memory = tracemalloc.get_traced_memory()[1] / 1e6
    loop, exact_s = statistics.median(theirs), statistics.median(ours)
    print(f"{N}-way top-{K} of {N_CLASSES} classes, CPU seconds per picture, median of {ROUNDS} rounds")
    print(f"  {N_DRAWS} random draws   {loop:.4g}")
    print(f"  exact               {exact_s:.4g}   extra memory {memory:.1f} MB for {N_PICTURES} pictures")
    print(f"  ratio               {loop / exact_s:,.0f}   (bar 10,000)")
    print(f"  Monte-Carlo error of the draws: {100 * np.sqrt(np.mean(gaps)):.2f} points rms per picture; exact: none")


if __name__ == "__main__":
    main()
