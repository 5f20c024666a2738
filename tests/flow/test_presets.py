"""Presets of every recipe, found by name."""

from __future__ import annotations

import pytest

from phosphene import flow, recipes
from phosphene.errors import ConfigError

EVERY = [(name, preset) for name in recipes.RECIPES for preset in recipes.recipe(name).presets]


@pytest.mark.parametrize(("recipe", "preset"), EVERY, ids=lambda x: x)
def test_every_preset_of_every_recipe_is_a_configuration(recipe, preset):
    config, origins = flow.configure(recipe, [("test", {"data.name": "insilico", "preset": preset})])
    assert (config.preset, origins["preset"]) == (preset, "test")


@pytest.mark.parametrize("recipe", ["lea", "linear"])
def test_an_unknown_preset_is_refused_with_those_of_the_recipe(recipe):
    with pytest.raises(ConfigError, match=f"the recipe {recipe} has no preset 'lea-cod'") as told:
        flow.configure(recipe, [("test", {"data.name": "insilico", "preset": "lea-cod"})])
    assert ", ".join(recipes.recipe(recipe).presets) in str(told.value)


def test_what_is_there_names_presets():
    lines = {line.split()[0]: line for line in flow.show_recipes().splitlines()}
    assert "bold, lea-code" in lines["lea"]
    assert "lea-code" not in lines["linear"]
    shown = {line.split()[0]: line for line in flow.show_config("lea", []).splitlines()}
    assert shown["preset"].endswith("lab, paper, bold, lea-code")
