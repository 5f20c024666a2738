"""Every data set x every recipe: what changes from one layout to the next is the name of the data.

Each layout with the quickest recipe, and each recipe with one layout, are quick; all pairs are slow.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from phosphene import flow, recipes
from phosphene.data.registry import FROM_ABOVE, READERS
from phosphene.errors import DataError, PhospheneError
from phosphene.lab import zoo
from tests.data.layouts import ELSEWHERE, LAYOUTS, OWN

# Few steps, few penalties, no output curve; all voxels, as those of some layouts are noise here.
_BRAIN = {"recipe.brain_training.steps": 3, "recipe.brain.patch_size": 2, "recipe.brain_training.batch_size": 4}
_DRAWN = {"recipe.sampling.steps": 2}
FAST: dict[str, dict] = {
    "linear": {
        "recipe.curve.kind": "none",
        "recipe.alphas": [1.0, 100.0],
        "recipe.pixels.n_components": 4,
        "recipe.decoder.voxels": "all",
    },
    "posterior": {
        "recipe.prior.n_pictures": 60,
        "recipe.prior.n_components": 4,
        "recipe.prior.size": [12, 12],
        "recipe.choice.n_folds": 2,
    },
    "regressor": {"recipe.voxels": "all"},
    "lea": {"recipe.brain_training.steps": 3, "recipe.brain_training.batch_size": 4, "recipe.sampling.steps": 2},
    "mind_vis": {**_BRAIN, **_DRAWN, "recipe.tuning.steps": 3, "recipe.tuning.batch_size": 4},
    "cad": {
        **_BRAIN,
        **_DRAWN,
        "recipe.tuning.steps": 3,
        "recipe.tuning.batch_size": 4,
        "recipe.cross_training.steps": 3,
    },
    "mind_reader": {
        "recipe.training.base.steps": 3,
        "recipe.training.finetune.steps": 3,
        "recipe.encoder_training.train.steps": 3,
    },
    "brain_diffuser": _DRAWN,
    "gru_two_stage": {**_DRAWN, "recipe.training.train.steps": 3},
    "mixed": {"recipe.maskgit.sampling": {"steps": 2, "samples": 2}},
}
"""What recipes are told so that a fit takes a second."""

CAPTIONED = {"nsd, captions", "imported"}
"""Layouts with captions; without them, recipes that learn from words refuse."""
FROM_WORDS = {"mind_reader", "brain_diffuser", "gru_two_stage"}

ONCE = {
    "posterior": "digits69",
    "regressor": "bold5000",
    "lea": "nsd",
    "mind_vis": "miyawaki, runs",
    "cad": "god, bdata",
    "mind_reader": "imported",
    "brain_diffuser": "nsd, captions",
    "gru_two_stage": "imported",
    "mixed": "betas of a BIDS study",
}
PAIRS = [*((layout, "linear") for layout in (*LAYOUTS, *OWN)), *((layout, name) for name, layout in ONCE.items())]

pytestmark = [
    pytest.mark.filterwarnings("ignore::phosphene.errors.PhospheneWarning"),
    pytest.mark.skipif(len(zoo.names()) < 10, reason="the zoo's weights are not bundled"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], dict]:
    """What a run is told to read a layout, whose files are made once."""
    kept: dict[str, dict] = {}

    def make(layout: str) -> dict:
        if layout not in kept:
            kept[layout] = (LAYOUTS | OWN)[layout](tmp_path_factory.mktemp("layout"))
        return kept[layout]

    return make


def fit(recipe: str, data: dict, folder: Path) -> flow.Run:
    """One recipe on one data set; only `data` differs from layout to layout."""
    return flow.fit(flow.configure(recipe, [("test", {**FAST[recipe], **data})])[0], folder)


def both_ways(opened: flow.Run) -> None:
    """Decode two test pictures, and encode them where the recipe can."""
    recipe, (_, test) = opened.recipe(0), opened.sides(0)
    some = test.select(stimuli=test.stimulus_ids[:2])
    decoded = recipe.decode(some)
    assert list(decoded.ids) == list(some.stimuli)
    assert decoded.pixels.shape == (len(some), *recipe.image_shape_)
    assert np.isfinite(decoded.pixels).all()
    assert decoded.pixels.min() >= 0
    assert decoded.pixels.max() <= 1
    if recipe.can_encode():
        encoded = recipe.encode(opened.stimuli.select(some.stimulus_ids))
        assert encoded.betas.shape == (len(some.stimulus_ids), some.n_voxels)
        assert np.isfinite(encoded.betas).all()


def test_every_data_set_and_every_recipe_is_tried():
    assert {name.split(",")[0] for name in LAYOUTS} - {"a pair file"} | set(ELSEWHERE) == {*READERS, *FROM_ABOVE}
    assert {recipe for _, recipe in PAIRS} == set(recipes.RECIPES) == set(FAST)


@pytest.mark.parametrize(("layout", "recipe"), PAIRS)
def test_a_recipe_is_fitted_and_works_both_ways_from_a_layout(layout, recipe, made, tmp_path):
    both_ways(fit(recipe, made(layout), tmp_path / "run"))


@pytest.mark.parametrize("recipe", sorted(FROM_WORDS))
def test_without_captions_it_is_said_what_is_missing_and_what_to_do(recipe, made, tmp_path):
    with pytest.raises(DataError, match=r"stimuli have no caption, first '.*'\. Give captions"):
        fit(recipe, made("mosaic"), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "recipe"), [pair for pair in product([*LAYOUTS, *OWN], recipes.RECIPES) if pair not in PAIRS]
)
def test_every_recipe_runs_from_every_layout_or_says_what_is_missing(layout, recipe, made, tmp_path):
    if recipe in FROM_WORDS and layout not in CAPTIONED:
        with pytest.raises(PhospheneError, match="stimuli have no caption, .* Give captions"):
            fit(recipe, made(layout), tmp_path / "run")
        return
    try:
        opened = fit(recipe, made(layout), tmp_path / "run")
    except DataError as error:  # most layouts hold noise, of which this recipe may keep no voxel
        assert recipe == "posterior"
        assert "voxels is predicted from the pictures better than by its mean" in str(error)
        return
    both_ways(opened)
