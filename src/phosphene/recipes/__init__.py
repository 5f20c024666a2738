"""Whole systems, one file each. The registry is data; nothing is imported until a recipe is asked for by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from phosphene.errors import ConfigError, NotAvailable, did_you_mean
from phosphene.io.plugins import load_plugin, plugins_of

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
    return [*RECIPES, *(name for name in plugins_of(PLUGINS) if name not in RECIPES)]


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
    NotAvailable
        When the package that adds it is broken, with its name.
    """
    if name in RECIPES:
        module, _, attribute = RECIPES[name].partition(":")
        return getattr(import_module(module), attribute)

    plugins = plugins_of(PLUGINS)
    if name in plugins:
        return load_plugin(plugins[name], "recipe", _recipe_problem)

    raise ConfigError(f"there is no recipe '{name}'. {did_you_mean(name, recipe_names())}")


def broken_recipes() -> list[str]:
    """A sentence for every recipe of another package that cannot be used; all of them are loaded."""
    problems = []
    for name in plugins_of(PLUGINS):
        try:
            if name not in RECIPES:
                recipe(name)
        except NotAvailable as error:
            problems.append(str(error))

    return problems


def _recipe_problem(content: Any) -> str:
    """What is wrong with the recipe of another package; "" for nothing."""
    from phosphene.recipes.base import Recipe, RecipeConfig

    if not isinstance(content, type):
        return f"a class of recipes is expected, but it is a {type(content).__name__}."

    kind = getattr(content, "config_class", None)
    if not (isinstance(kind, type) and issubclass(kind, RecipeConfig)):
        return f"the class {content.__name__} has no config_class that is a RecipeConfig."

    if not issubclass(content, Recipe):
        return f"the class {content.__name__} is no phosphene.recipes.base.Recipe."

    content()  # what raises here would raise in every verb
    content.can_encode()
    return ""
