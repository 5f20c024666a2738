"""Every file in configs/ says something that can be run, in the layout that configs/README.md describes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from phosphene.flow.opened import configure
from phosphene.recipes import recipe_names
from phosphene.run.config import flatten, read_yaml

FOLDER = Path(__file__).resolve().parents[1] / "configs"
GRIDS = [file.name for file in sorted(FOLDER.glob("*.yaml")) if "grid" in read_yaml(file)]


def points(content: dict) -> list[dict]:
    """What each run of a grid sets over its base."""
    axes = []
    for axis in content["grid"]:
        lengths = {len(values) for values in axis.values()}
        assert len(lengths) == 1, axis
        axes.append([dict(zip(axis, values, strict=True)) for values in zip(*axis.values(), strict=True)])
    if content.get("crossed", False):
        keys = [key for axis in content["grid"] for key in axis]
        assert len(keys) == len(set(keys))
        return [{key: value for point in chosen for key, value in point.items()} for chosen in product(*axes)]
    return [{}, *(point for axis in axes for point in axis)]


@pytest.mark.parametrize("name", GRIDS)
def test_every_point_of_a_grid_is_a_valid_run(name):
    content = read_yaml(FOLDER / name)
    assert set(content) <= {"recipe", "base", "grid", "crossed"}
    assert content["recipe"] in recipe_names()
    for point in points(content):
        config, origins = configure(content["recipe"], [("base", content["base"]), ("point", point)])
        values = flatten(config.model_dump(mode="json"))
        assert all(values[key] == value and origins[key] == "point" for key, value in point.items())


def test_the_lea_ablation_has_the_published_numbers_of_heads_and_every_mode_of_moments():
    content = read_yaml(FOLDER / "lea_ablation.yaml")
    wanted = {(k, v) for point in points(content) for k, v in point.items()}
    assert {v for k, v in wanted if k == "recipe.brain.roi_heads"} == {8, 16, 24, 32, 64, 96}
    assert {v for k, v in wanted if k == "recipe.align.moments"} == {"train_oof", "none", "test"}
    assert {v for k, v in wanted if k == "recipe.brain.embed"} == {"roi", "patch"}
    assert {v for k, v in wanted if k == "recipe.setting"} == {"strict", "relax"}


def test_every_file_is_listed_in_the_readme():
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert GRIDS
    assert all(f"`{file.name}`" in listed for file in FOLDER.glob("*.yaml"))
