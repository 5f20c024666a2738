"""Whole systems, one file each. The registry is data; nothing is imported until a recipe is asked for by name."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from phosphene.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from phosphene.recipes.base import Recipe

RECIPES: dict[str, str] = {
    "linear": "phosphene.recipes.linear:Linear",
    "posterior": "phosphene.recipes.posterior:Posterior",
    "regressor": "phosphene.recipes.regressor:Regressor",
    "lea": "phosphene.recipes.lea:Lea",
    "mind_vis": "phosphene.recipes.mind_vis:MindVis",
    "cad": "phosphene.recipes.cad:Cad",
    "mind_reader": "phosphene.recipes.mind_reader:MindReader",
    "brain_diffuser": "phosphene.recipes.brain_diffuser:BrainDiffuser",
    "gru_two_stage": "phosphene.recipes.gru_two_stage:GruTwoStage",
    "mixed": "phosphene.recipes.mixed:Mixed",
}
"""Name of a recipe, as in ``phosphene fit NAME``, and where its class lives."""

PLUGINS = "phosphene.recipes"
"""Entry-point group by which another package adds recipes; one is loaded only when it is named."""


def recipe_names() -> list[str]:
    """Names of every recipe, those of other installed packages included, without importing any."""
    return [*RECIPES, *sorted({e.name for e in entry_points(group=PLUGINS)} - set(RECIPES))]


def recipe(name: str) -> type[Recipe]:
    """The class of a recipe.

    Parameters
    ----------
    name : str
        one of :func:`recipe_names`

    Returns
    -------
    type of Recipe
        imported now

    Raises
    ------
    ConfigError
        For an unknown name, with the nearest known one.
    """
    if name in RECIPES:
        module, _, attribute = RECIPES[name].partition(":")
        return getattr(import_module(module), attribute)

    for entry in entry_points(group=PLUGINS):
        if entry.name == name:
            return entry.load()

    raise ConfigError(f"there is no recipe '{name}'. {did_you_mean(name, recipe_names())}")
