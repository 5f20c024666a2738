"""The fit command under torchrun: every network is trained on all processes, the first one writes, and the run is one."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from phosphene import flow
from phosphene.lab import zoo

pytestmark = pytest.mark.skipif(
    not {"vq", "mae", "ldm"} <= set(zoo.names()), reason="the zoo's weights are not bundled"
)

STEPS = "{steps: 6, batch_size: 8, lr: 1e-3, warmup: 0}"
VALUES = [
    "data.options={n_train: 24, n_test: 6, n_voxels: 120}",
    "recipe.brain={patch_size: 20, width: 16, depth: 1, heads: 2, decoder_width: 8, decoder_depth: 1, decoder_heads: 2}",
    *(f"recipe.{stage}_training={STEPS}" for stage in ("brain", "cross")),
    f"recipe.tuning={STEPS}",
]


def fit(out, *launcher):
    command = [sys.executable, *launcher, "-m", "phosphene", "fit", "cad", "--data", "insilico", "--out", str(out)]
    command += [word for value in VALUES for word in ("--set", value)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def loss(run, stage):
    """Of the trained autoencoder on its own training responses, under fixed noise."""
    import torch

    from phosphene.models.roi_mae import subject_batches
    from phosphene.training import Draws

    opened = flow.open_run(run)
    recipe, (train, _) = opened.recipe(0), opened.sides(0)
    betas = recipe.standardise_.transform(train).average_repeats().betas
    fetch, n = subject_batches({str(train.subject): betas})
    with torch.no_grad():
        return float(getattr(recipe, f"{stage}_").module.loss(fetch(np.arange(n)), Draws(0, 0, n))[0])


@pytest.mark.slow
def test_all_phases_of_cad_are_the_same_on_two_processes_as_on_one(tmp_path):
    fit(tmp_path / "one")
    fit(tmp_path / "two", "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    # Sums of halves differ by rounding, and Adam divides by the gradient's size: single weights with a gradient near zero
    # move by up to the learning rate, the loss does not.
    for stage in ("brain", "cross"):
        assert loss(tmp_path / "one", stage) == pytest.approx(loss(tmp_path / "two", stage), rel=2e-3)
    for name, one in load_file(tmp_path / "one" / "stages" / "tuned" / "weights.safetensors").items():
        two = load_file(tmp_path / "two" / "stages" / "tuned" / "weights.safetensors")[name]
        assert np.abs(one - two).max() <= 2 * 6 * 1e-3, name  # both ways, six steps of at most the learning rate
    run = flow.open_run(tmp_path / "two").folder
    assert run.manifest["state"] == "fitted"
    assert not list(run.path.glob(".lock*"))
    events = (run.path / "log.jsonl").read_text()
    assert events.count('"stage": "brain"') == 1
