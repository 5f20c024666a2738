"""A scheduler's SIGTERM and a person's Ctrl-C during `phosphene fit`: a checkpoint, the right status, and going on from there."""

from __future__ import annotations

import signal
import warnings
from typing import Literal

import numpy as np
import pytest
from safetensors.numpy import load_file

from phosphene import recipes
from phosphene.cli import main
from phosphene.recipes.base import Recipe, RecipeConfig, Stage
from tests.flow.conftest import LayerPart, write_pair_file

TOLD: list[int] = []  # signals still to come, each in the middle of a step


class ToldConfig(RecipeConfig):
    """Configuration of `Told`."""

    kind: Literal["told_test"] = "told_test"


class Told(Recipe[ToldConfig]):
    """Trains a layer, and is told to stop in its fifth step."""

    config_class = ToldConfig
    stages = (Stage("net", LayerPart),)

    def fit_net(self, trials, stimuli):
        """Train."""
        import torch

        from phosphene.training import TrainConfig

        class Net(torch.nn.Module):
            calls = 0

            def __init__(self, part):
                super().__init__()
                self.part = part

            def loss(self, batch, draws):
                Net.calls += 1
                if Net.calls == 5 and TOLD:
                    signal.raise_signal(TOLD.pop())
                return (self.part(batch) - draws.normal(4)).square().mean(), {}

        with torch.random.fork_rng():
            torch.manual_seed(0)
            part = LayerPart.fresh(trials.n_voxels)
        x = torch.from_numpy(np.array(trials.betas, dtype=np.float32))
        self.train(
            Net(part.module), lambda r: x[r], len(x), TrainConfig(steps=12, batch_size=8), data="x", device="cpu"
        )
        return part


@pytest.mark.fault(87)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_fit_told_to_stop_saves_ends_with_its_status_and_goes_on_bit_identical(
    tmp_path, monkeypatch, heeded, number, status, capsys
):
    monkeypatch.setitem(recipes.RECIPES, "told_test", f"{__name__}:Told")
    file = write_pair_file(tmp_path / "pairs.npz")

    def fit(out):
        with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            main(["fit", "told_test", "--data", str(file), "--out", str(out), "--quiet"])
        return end.value.code

    assert fit(tmp_path / "whole") == 0
    TOLD.append(number)
    assert fit(tmp_path / "told") == status
    (training,) = (tmp_path / "told" / "training").iterdir()
    assert [p.name for p in training.glob("step-*")] == ["step-00000005"]
    assert not (tmp_path / "told" / ".lock").exists()
    assert fit(tmp_path / "told") == 0
    one, two = (load_file(tmp_path / r / "stages" / "net" / "weights.safetensors") for r in ("whole", "told"))
    assert all(np.array_equal(one[k], two[k]) for k in one)


@pytest.mark.fault(85)
def test_a_device_that_is_not_there_ends_the_command_before_it_begins(tmp_path, capsys):
    file, before = write_pair_file(tmp_path / "pairs.npz"), signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            main(["fit", "linear", "--data", str(file), "--out", str(tmp_path / "run"), "--device", "cuda:99"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == 7
    assert "'cuda:99' was asked for" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
