"""What every registered recipe must do. A new one is tested the moment it is named in the registry."""

import json
import sys

import numpy as np
import pytest

from phosphene import flow, recipes, zoo
from phosphene.report import report
from phosphene.run.stages import Part

LAB = {"data.name": "insilico", "data.options": {"n_train": 120, "n_test": 24, "n_voxels": 150}}

QUICK = {
    "mind_vis": {"recipe.brain_training.steps": 100, "recipe.sampling.steps": 10},
    "cad": {"recipe.brain_training.steps": 60, "recipe.cross_training.steps": 40, "recipe.sampling.steps": 10},
}
"""What a recipe that trains for minutes in the lab is told here."""

WEIGHTS = {"mind_vis": {"ldm", "vq"}, "cad": {"ldm", "vq", "mae"}}
"""Networks of the zoo that a recipe cannot do without and that may not be bundled yet."""


@pytest.fixture(scope="module", params=recipes.recipe_names())
def run(request, tmp_path_factory):
    if absent := WEIGHTS.get(request.param, set()) - set(zoo.names()):
        pytest.skip(f"the zoo's {', '.join(sorted(absent))} is not bundled")
    config, _ = flow.configure(request.param, [("test", {**LAB, **QUICK.get(request.param, {})})])
    opened = flow.fit(config, tmp_path_factory.mktemp(request.param) / "run")
    flow.decode(opened)
    if opened.recipe(0).can_encode():
        flow.encode(opened)
    flow.evaluate(opened)
    return opened


def test_its_file_says_what_it_is_and_which_paper(run):
    doc = sys.modules[type(run.recipe(0)).__module__].__doc__
    assert ": " in doc.splitlines()[0]
    assert "Paper" in doc


def test_every_stage_is_a_part_with_a_method_and_a_docstring(run):
    cls = type(run.recipe(0))
    for name, kind in cls.stages.items():
        assert issubclass(kind, Part)
        assert getattr(cls, f"fit_{name}").__doc__


def test_pictures_have_the_announced_shape_and_range(run):
    test = run.sides(0)[1].average_repeats()
    images = run.recipe(0).decode(test)
    assert images.pixels.shape == (len(test), *run.recipe(0).image_shape_)
    assert list(images.ids) == list(test.stimuli)
    assert np.isfinite(images.pixels).all()


def test_saving_and_loading_changes_no_bit(run, tmp_path):
    recipe, test = run.recipe(0), run.sides(0)[1].average_repeats()
    recipe.save(tmp_path)
    back = type(recipe).load(tmp_path)
    np.testing.assert_array_equal(back.decode(test).pixels, recipe.decode(test).pixels)
    assert json.loads((tmp_path / "recipe.json").read_text())["kind"] == recipe.config.kind


def test_it_saw_the_training_trials_and_no_other(run):
    train, test = run.sides(0)
    assert run.recipe(0).lineage_ == train.member_keys()
    assert not run.recipe(0).lineage_ & test.member_keys()


def test_the_brain_is_above_chance_and_the_controls_are_not(run):
    scores = run.run.table("scores.csv")
    # Pictures, and the latents they were made from: a generator may hide at 120 training pictures what latents show.
    two_way = scores[scores["metric"].str.match(r"two_way\.")].set_index(["input", "metric"])
    assert two_way.loc["brain", "p"].min() < 0.01
    for control in ("shuffled", "noise", "mean"):
        for metric, row in two_way.loc[control].iterrows():
            # 24 correlated items: the null has a standard deviation near 0.06.
            assert abs(row["value"] - 0.5) < 0.25, (control, metric)
            assert row["p"] > 0.001, (control, metric)


def test_no_check_fails(run):
    verdicts = run.run.table("validity.csv")
    assert not (verdicts["verdict"] == "fail").any(), verdicts[verdicts["verdict"] == "fail"].to_string()


def test_the_report_is_written(run):
    assert report(run.run).stat().st_size > 10_000


def test_presets_are_valid_and_refer_to_known_values(run):
    for preset in ("lab", "paper"):
        flow.configure(run.config.recipe.kind, [("test", {**LAB, "preset": preset})])
