"""What a stage is made of: its digest changes with results, never with words or places."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phosphene import recipes
from phosphene.align import ridge as ridge_module
from phosphene.align.ridge import Ridge
from phosphene.conformance.small_study import tiny_study
from phosphene.errors import ModelError
from phosphene.io.config import resolve_layers
from phosphene.io.stages import StageStore, name_of, version_of, versioned
from phosphene.recipes.base import STANDARDISE, Stage
from phosphene.recipes.brain_diffuser import BrainDiffuser
from phosphene.recipes.linear import Linear
from phosphene.recipes.mind_reader import MindReader
from phosphene.recipes.mixed import Mixed
from phosphene.recipes.regressor import Regressor
from tests.recipes import golden

KEPT = json.loads(golden.FILE.read_text(encoding="utf-8"))
DATA = {"trials": "t", "stimuli": "s", "sorted_stimuli": "p", "unpaired": "u"}
MIXES = [
    {"brain": brain, "map": "ridge", "generator": generator}
    for brain in ("none", "roi_mae", "contrast", "masked")
    for generator in ("maskgit", "stylegan2", "vdvae", "dual_guided", "latent_diffusion")
] + [{"map": name} for name in ("reduced_rank", "gru", "group_gru", "mapper")]


@pytest.fixture(scope="module")
def study():
    return tiny_study()


def configured():
    """Every recipe in every preset, and every component of a mix."""
    for name in recipes.RECIPES:
        cls = recipes.recipe(name)
        for preset in cls.presets:
            yield cls, resolve_layers(cls.config_class, [(preset, cls.preset(preset))])[0]

    for mix in MIXES:
        yield Mixed, resolve_layers(Mixed.config_class, [("lab", Mixed.preset("lab")), ("mix", mix)])[0]


def solvers():
    """Every part and solver that any stage names."""
    named = {}
    for cls, config in configured():
        for stage in cls.stages_of(config):
            for solver in (stage.part, *stage.solvers(config)):
                named[name_of(solver)] = solver

    return [named[name] for name in sorted(named)]


# -- golden outputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", golden.GOLDEN, ids=name_of)
def test_results_change_only_with_the_version_number(solver):
    name = name_of(solver)
    kept = KEPT.get(name)
    how = "write it with: python -m tests.recipes.golden"
    assert kept is not None, f"{name} has no golden output; {how}"
    assert kept["version"] == version_of(solver), (
        f"{name} has version {version_of(solver)}, but its golden output is of {kept['version']}; {how}"
    )
    ours = golden.output(solver)
    assert not golden.differs(ours, kept["output"]), (
        f"{name} gives {ours}, but version {kept['version']} gave {kept['output']}. If that is meant, raise its version, so that "
        f"finished stages are fitted again, and then {how}. If not, results were changed by accident."
    )


@pytest.mark.parametrize("solver", solvers(), ids=name_of)
def test_every_part_and_solver_of_a_stage_has_a_version_and_a_golden_output(solver):
    assert hasattr(solver, "version"), f"{name_of(solver)} has no version: give it one (phosphene.io.stages.versioned)"
    assert version_of(solver) >= 1
    assert name_of(solver) in KEPT


def test_no_golden_output_is_of_something_that_no_stage_names():
    assert set(KEPT) == {name_of(solver) for solver in golden.GOLDEN}
    named = {name_of(solver) for solver in solvers()}
    assert set(KEPT) <= named


def test_another_rule_for_choosing_the_penalty_is_noticed():
    source = Path(ridge_module.__file__).read_text(encoding="utf-8")
    assert "argmin" in source
    mutant = types.ModuleType("phosphene.align.mutant")
    sys.modules[mutant.__name__] = mutant
    try:
        exec(compile(source.replace("argmin", "argmax"), "mutant", "exec"), mutant.__dict__)
        ours = golden.summary(golden.chosen_penalties(mutant.Ridge))
    finally:
        del sys.modules[mutant.__name__]

    assert golden.differs(ours, KEPT[name_of(Ridge)]["output"])


# -- what refits -------------------------------------------------------------------------------------------------------


def reused(recipe, study, folder, **more):
    """Stages that a fit into a folder reads back."""
    store = StageStore(folder / "stages", **more)
    recipe.fit(study.train, study.stimuli, store)
    return set(store.reused)


def test_a_new_version_of_a_solver_refits_the_stages_that_use_it_and_no_other(study, tmp_path, monkeypatch):
    config = resolve_layers(Linear.config_class, [("test", {"pixels.n_components": 8, "curve.n_folds": 2})])[0]
    assert reused(Linear(config), study, tmp_path) == set()
    assert reused(Linear(config), study, tmp_path) == {stage.name for stage in Linear.stages}
    monkeypatch.setattr(Ridge, "version", 2)
    assert reused(Linear(config), study, tmp_path) == {"standardise", "pixels"}


def test_a_new_version_of_a_method_refits_its_stage_and_what_needs_it(study, tmp_path, monkeypatch):
    config = resolve_layers(Linear.config_class, [("test", {"pixels.n_components": 8, "curve.n_folds": 2})])[0]
    reused(Linear(config), study, tmp_path)
    stages = tuple(replace(s, version=2) if s.name == "to_pixels" else s for s in Linear.stages)
    monkeypatch.setattr(Linear, "stages", stages)
    assert reused(Linear(config), study, tmp_path) == {"standardise", "pixels", "to_brain"}


RECIPE = """
from typing import Literal
from phosphene.align.ridge import Ridge
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage
class TalkingConfig(RecipeConfig):
    kind: Literal["talking"] = "talking"
class Talking(Recipe[TalkingConfig]):
    stages = (STANDARDISE, Stage("line", Ridge))
    def fit_line(self, trials, stimuli):
        averaged = self.averaged(trials)
        return Ridge(1.0).fit(averaged.betas, stimuli.select(averaged.stimuli).floats().reshape(len(averaged), -1))
"""


def test_a_comment_refits_nothing(study, tmp_path):
    for words in ("", "# said at length\n"):
        file = tmp_path / "talking.py"
        file.write_text(RECIPE.replace("class Talking(", f"{words}class Talking("))
        spec = importlib.util.spec_from_file_location("talking", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        back = reused(module.Talking(), study, tmp_path)

    assert back == {"standardise", "line"}
    assert "getsource" not in inspect.getsource(sys.modules[Stage.__module__])


def digest(recipe, name):
    (stage,) = (stage for stage in recipe.stages if stage.name == name)
    return recipe.stage_digest(stage, DATA, {})


def test_other_bytes_in_the_folder_of_versatile_diffusion_refit_the_generator(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "versatile"
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"one" * 100)

    def of(place):
        values = {"generator": {"source": "folder", "folder": str(place)}, "tokens.name": "lab", "first.network": "lab"}
        config = resolve_layers(BrainDiffuser.config_class, [("lab", BrainDiffuser.preset("lab")), ("test", values)])[0]
        return BrainDiffuser(config)

    before = digest(of(folder), "generator")
    first = digest(of(folder), "vision")
    weights.write_bytes(b"two" * 100)
    assert digest(of(folder), "generator") != before
    assert digest(of(folder), "vision") == first
    weights.write_bytes(b"one" * 100)
    assert digest(of(folder), "generator") == before
    moved = folder.rename(tmp_path / "elsewhere")
    assert digest(of(moved), "generator") == before


def test_other_bytes_at_the_path_of_network_pkl_refit_the_generator(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "network.pkl"

    def made(data):
        file.write_bytes(data)
        values = {"generator": {"source": "public", "file": str(file)}}
        return MindReader(
            resolve_layers(MindReader.config_class, [("lab", MindReader.preset("lab")), ("test", values)])[0]
        )

    one = made(b"weights")
    before = {name: digest(one, name) for name in ("generator", "image_mapper")}
    two = made(b"WEIGHTS")
    assert digest(two, "generator") != before["generator"]
    assert digest(two, "image_mapper") == before["image_mapper"]


@pytest.mark.parametrize(
    "training", [None, {"steps": 1, "batch_size": 2, "warmup": 0}], ids=["as it comes", "trained on"]
)
def test_a_generator_fitted_once_serves_everyone_who_saw_the_same_pictures(study, tmp_path, training):
    values = {"generator.training": training, "sampling.steps": 2}
    config = resolve_layers(Regressor.config_class, [("lab", Regressor.preset("lab")), ("test", values)])[0]
    pool = tmp_path / "pool"
    backwards = study.train.take(np.arange(len(study.train))[::-1])
    other = replace(study, train=replace(backwards.with_betas(-backwards.betas), subject="someone else"))
    assert reused(Regressor(config), study, tmp_path / "a", pool=pool) == set()
    recipe = Regressor(config)
    assert reused(recipe, other, tmp_path / "b", pool=pool) == {"generator"}
    assert recipe.stage_lineages_["generator"] == frozenset()
    assert recipe.lineage_ == other.train.member_keys()


# -- what a stage says -------------------------------------------------------------------------------------------------


def test_a_field_that_the_configuration_does_not_have_is_refused():
    stage = replace(STANDARDISE, settings=("per_sesion",))
    with pytest.raises(ModelError, match="'per_sesion', which is no field"):
        stage.values(Linear.config_class())


@pytest.mark.parametrize("number", [0, "2", True, 1.5])
def test_a_version_is_a_whole_number_from_one(number):
    @versioned(number)
    def solver():
        pass

    with pytest.raises(ModelError, match="whole number"):
        version_of(solver)
