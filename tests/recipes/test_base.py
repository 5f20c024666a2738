"""The recipe of the docstring of phosphene.recipes.base, as a stranger would write it."""

import sys
from typing import Literal

import numpy as np
import pytest
from pydantic import Field

from phosphene import flow, recipes
from phosphene.align.ridge import Ridge
from phosphene.conformance.small_study import tiny_study
from phosphene.errors import ConfigError
from phosphene.recipes.base import STANDARDISE, Recipe, RecipeConfig, Stage
from phosphene.reporting import report
from phosphene.types import Images


class ToyConfig(RecipeConfig):
    kind: Literal["toy"] = "toy"
    alpha: float = Field(default=500.0, gt=0, description="L2 strength")


class Toy(Recipe[ToyConfig]):
    stages = (STANDARDISE, Stage("to_image", Ridge, settings=("alpha",), uses=(Ridge,)))

    def fit_to_image(self, trials, stimuli):
        averaged = self.averaged(trials)
        pictures = stimuli.select(averaged.stimuli).floats()
        return Ridge(self.config.alpha).fit(averaged.betas, pictures.reshape(len(averaged), -1))

    def decode(self, trials):
        self.check_trials(trials)
        pixels = self.to_image_.predict(self.standardised(trials).betas)
        return Images(trials.stimuli, pixels.reshape(-1, *self.image_shape_))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "toy", f"{__name__}:Toy")
    assert sys.modules[__name__].Toy is recipes.recipe("toy")


def test_thirty_lines_make_a_recipe_with_scores_controls_and_a_report(toy, tmp_path):
    options = {"n_train": 120, "n_test": 24, "n_voxels": 150}
    config, origins = flow.configure("toy", [("test", {"data.name": "insilico", "data.options": options})])
    assert origins["recipe.alpha"] == "default"
    opened = flow.fit(config, tmp_path / "run")
    flow.decode(opened)
    flow.evaluate(opened)
    scores = opened.folder.table("scores.csv").set_index(["input", "metric"])["value"]
    assert scores["brain", "two_way.pixels"] > 0.6
    assert np.isnan(scores.get(("brain", "pearson.voxels"), np.nan))
    assert "toy" in report(opened.folder).read_text()
    with pytest.raises(ConfigError, match="decodes only"):
        flow.encode(opened)


def test_a_recipe_says_in_one_line_on_whom_it_was_fitted_and_which_stages_are():
    study = tiny_study()
    recipe = Toy()
    assert repr(recipe) == "Toy(kind='toy', fitted=[])"
    recipe.fit(study.train, study.stimuli)
    train = study.train
    whom = f"subject={train.subject!r}, n_voxels={train.n_voxels}"
    assert repr(recipe) == f"Toy(kind='toy', {whom}, fitted=[standardise, to_image])"


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        recipes.recipe("linaer")
