"""What the validity checks cost for 1,000 test items, without the generator. Run: python benchmarks/checks.py

A simulated study of 1,000 test pictures, the linear recipe, and every check by itself: CPU seconds on one thread, those of
gathering the evidence (hashes, what the lab's CLIP sees, latents of training pictures) before them. L2 and L3 decode 132
pictures; with a generator these cost what it costs.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib
import tempfile
import time
from pathlib import Path

from phosphene import flow
from phosphene.evaluate.controls import paired_differences
from phosphene.evaluate.metric import Decoded
from phosphene.evaluate.registry import score
from phosphene.evaluate.validity import CHECKS, run_checks

BAR = 60


def main(n_test: int, n_train: int, n_voxels: int) -> None:
    gather = importlib.import_module("phosphene.flow.evidence")
    options = {"n_train": n_train, "n_test": n_test, "n_voxels": n_voxels}
    values = {"data.name": "insilico", "data.options": options, "recipe.curve.kind": "none"}
    with tempfile.TemporaryDirectory() as place:
        opened = flow.fit(flow.configure("linear", [("benchmark", values)])[0], Path(place) / "run")
        flow.decode(opened, controls=("shuffled", "truth"))
        true, made = opened.run.pixels("test", "seen"), {}
        for name in ("brain", "shuffled", "truth"):
            index = opened.run.table("decoded", "test", name, "index.csv")
            shown = Decoded(index["stimulus"].to_numpy(object), opened.run.pixels("test", name), true)
            made[name] = score(shown, metrics=["pixcorr", "two_way.pixels"])
        table = importlib.import_module("pandas").concat([s.table("test", n, "strict") for n, s in made.items()])
        labels = opened.stimuli.select(index["stimulus"]).category
        differences = paired_differences(made["brain"], made["shuffled"], "shuffled")
        gather.evidence(opened, [opened.recipe(0)], index, labels, table, differences)  # imports, once
        opened = flow.open_run(Path(place) / "run")
        start = time.process_time()
        found = gather.evidence(opened, [opened.recipe(0)], index, labels, table, differences)
        spent = {"evidence": time.process_time() - start}
        for check in CHECKS:
            start = time.process_time()
            (answer,) = run_checks(found, only=[check])
            spent[f"{check} ({answer.verdict})"] = time.process_time() - start
    print(f"{n_test} test and {n_train} training pictures, {n_voxels} voxels: CPU seconds on one thread")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {name:<22} {seconds:7.2f}")
    print(f"  {'all':<22} {sum(spent.values()):7.2f}   bar {BAR}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--voxels", type=int, default=1000)
    given = parser.parse_args()
    main(given.test, given.train, given.voxels)
