"""What a fit will need, said before, and held against what it took."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import pytest

from phosphene import flow, recipes
from phosphene.errors import MachineError
from phosphene.flow.forecast import _carried_on, forecast, settings_for, show_memory, text_of
from phosphene.io import memory
from phosphene.io.run_folder import RunFolder
from phosphene.recipes.base import Recipe, RecipeConfig, Stage
from phosphene.run import Run
from phosphene.training.checkpoint import ModulePart
from tests.flow.conftest import LayerPart, write_pair_file


def opened(kind, file, out, **values):
    layers = [("test", {"data.name": str(file), **values})]
    return Run(RunFolder(out), flow.configure(kind, layers)[0])


def test_every_stage_is_predicted_with_how_it_is_known_and_nothing_is_written(tmp_path):
    file = write_pair_file(tmp_path / "pairs.npz", n_train=200)
    found = forecast(opened("linear", file, tmp_path / "run"))
    assert [f.stage for f in found] == ["standardise", "pixels", "to_brain", "to_pixels", "curve"]
    assert all(f.seconds >= 0 and f.peak_bytes >= 0 and f.disk_bytes > 0 for f in found)
    assert all("of 200 stimuli" in f.how for f in found)
    assert not (tmp_path / "run").exists()
    assert "all stages" in text_of(found)


def test_what_was_predicted_stands_beside_what_it_took(tmp_path):
    file = write_pair_file(tmp_path / "pairs.npz", n_train=200)
    run = flow.fit(opened("linear", file, tmp_path).config, tmp_path / "run", predict=True).folder
    table = run.table("forecast.csv").set_index("stage")
    stages = tmp_path / "run" / "stages"
    assert table["seconds"].notna().all()
    assert (table["disk_bytes"] > 0).all()
    # Arrays of standardising do not depend on how many stimuli there are; the files hold a record as well.
    predicted, real = table.loc["standardise", ["predicted_disk_bytes", "disk_bytes"]]
    assert predicted <= real
    assert {p.name for p in stages.iterdir()} == set(table.index)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_what_follows_a_power_of_the_stimuli_is_carried_on_exactly(power):
    ns = [50, 100]
    assert _carried_on(ns, [3.0 * n**power for n in ns], 700, 0.1, 3) == pytest.approx(3.0 * 700**power)


def test_what_takes_next_to_no_time_grows_in_proportion():
    assert _carried_on([50, 100], [1e-5, 1e-3], 200, 0.02, 3) == pytest.approx(2e-3)


# -- a recipe of somebody else -----------------------------------------------------------------------------------------


class DeepConfig(RecipeConfig):
    """Configuration of `Deep`."""

    kind: Literal["deep_test"] = "deep_test"


class Later(ModulePart):
    """Never made."""


class Deep(Recipe[DeepConfig]):
    """A plug-in that trains through `self.train`, and whose first stage needs a file that is not here."""

    config_class = DeepConfig
    stages = (Stage("later", Later), Stage("net", LayerPart), Stage("last", Later))
    needs: ClassVar = {"later": (), "net": (), "last": ("later",)}

    def fit_net(self, trials, stimuli):
        """Train, with all of the responses at hand."""
        import torch

        from phosphene.training import TrainConfig

        class Net(torch.nn.Module):
            def __init__(self, part):
                super().__init__()
                self.part = part

            def loss(self, batch, draws):
                return self.part(batch).square().mean(), {}

        part = LayerPart.fresh(trials.n_voxels)
        x = torch.from_numpy(np.array(trials.betas, dtype=np.float32))
        self.train(Net(part.module), lambda r: x[r], len(x), TrainConfig(steps=1000, batch_size=8), data="x")
        return part

    def fit_later(self, trials, stimuli):
        """Not here."""
        raise MachineError("the file of the weights is not here")

    def fit_last(self, trials, stimuli):
        """Stands on what is not here."""
        return self.later_


def test_a_plug_in_that_trains_is_predicted_for_free_and_what_fails_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "deep_test", f"{__name__}:Deep")
    it = opened("deep_test", write_pair_file(tmp_path / "pairs.npz", n_voxels=50), tmp_path / "run")
    later, net, last = forecast(it)
    (training,) = net.trainings
    assert training.weights == 4 * 51
    assert training.flops == 8 * 2 * 2 * 50 * 4  # forward, and backward to the weights
    assert net.seconds >= training.seconds > 0
    assert net.disk_bytes >= 2 * training.checkpoint
    assert (later.seconds, later.peak_bytes, later.disk_bytes) == (None, None, None)
    assert later.how == "unknown: the file of the weights is not here"
    assert last.how == "unknown: needs later, which is unknown"
    assert "and 2 unknown" in text_of([net, later, last])
    assert settings_for(training, 12).startswith("1 part (")
    assert settings_for(training, 1e-9) == "does not fit"
    small = training.peak(2) / 0.9e9 + 1e-9
    assert settings_for(training, small).startswith("2 parts")
    assert settings_for(replace(training, together=True), small) == "does not fit"
    assert "| net | Net | 8 |" in show_memory(it)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "values", "trained"),
    [
        ("mind_reader", {}, {"image_mapper": 2, "text_mapper": 2, "encoder": 1}),
        ("mixed", {"recipe.map": "gru"}, {"maps": 6}),
    ],
)
def test_what_trains_inside_a_fit_function_is_judged_and_not_done(tmp_path, kind, values, trained):
    stages = forecast(opened(kind, "insilico", tmp_path / "run", **values), patience=0.0)
    assert {f.stage: len(f.trainings) for f in stages if f.trainings} == trained


@pytest.mark.fault(84)
def test_responses_that_memory_cannot_hold_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    config = opened("linear", write_pair_file(tmp_path / "pairs.npz"), tmp_path).config
    # A machine that small is not to be had.
    monkeypatch.setattr(memory, "_of_machine", lambda root: 27_000)
    with pytest.raises(MachineError, match=r"72 trials of 50 voxels need 29 kB .*27 kB are available.*data\.roi"):
        flow.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
