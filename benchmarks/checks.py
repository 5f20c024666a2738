"""What the validity checks cost for 1,000 test items, without the generator. No peer.

A simulated study of 1,000 test pictures, the linear recipe, and every check by itself: CPU seconds on one thread, those of
gathering the evidence (hashes, what the lab's CLIP sees, latents of training pictures) before them. L2 and L3 decode 132
pictures; with a generator these cost what it costs.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from benchmarks.measure import Clock
from benchmarks.record import growth

TITLE = "validity checks of test items, one by one"


def ours(folder: Path, items: int, trials: int, voxels: int) -> dict:
    """`items` pictures tested, `trials` trained on."""
    import pandas as pd

    from phosphene import flow
    from phosphene.metrics.controls import paired_differences
    from phosphene.metrics.metric import Decoded
    from phosphene.metrics.registry import compute_scores
    from phosphene.validity import CHECKS, run_checks

    gather = importlib.import_module("phosphene.flow.evidence")
    options = {"n_train": trials, "n_test": items, "n_voxels": voxels}
    values = {"data.name": "insilico", "data.options": options, "recipe.curve.kind": "none"}
    opened = flow.fit(flow.configure("linear", [("benchmark", values)])[0], folder / "run")
    flow.decode(opened, controls=("shuffled", "truth"))
    true, made = opened.folder.pixels("test", "seen"), {}
    for name in ("brain", "shuffled", "truth"):
        index = opened.folder.table("decoded", "test", name, "index.csv")
        shown = Decoded(index["stimulus"].to_numpy(object), opened.folder.pixels("test", name), true)
        made[name] = compute_scores(shown, metrics=["pixcorr", "two_way.pixels"])
    table = pd.concat([s.table("test", n, "strict") for n, s in made.items()])
    labels = opened.stimuli.select(index["stimulus"]).category
    differences = paired_differences(made["brain"], made["shuffled"], "shuffled")
    gather.evidence(opened, [opened.recipe(0)], index, labels, table, differences)  # imports, once
    opened = flow.open_run(folder / "run")
    whole = Clock()
    with whole:
        found = gather.evidence(opened, [opened.recipe(0)], index, labels, table, differences)
    spent = {"evidence": whole.cpu}
    for check in CHECKS:
        before = whole.cpu
        with whole:
            (answer,) = run_checks(found, only=[check])
        spent[f"{check} ({answer.verdict})"] = whole.cpu - before
    dearest = sorted(spent.items(), key=lambda item: -item[1])
    return whole.figures(note=", ".join(f"{name} {seconds:.2f}" for name, seconds in dearest))


CASES = {"ours": ours}
STEPS = growth("items", {250: 2, 500: 2, 1000: 1}, ("ours",), {"trials": 2000, "voxels": 1000})
