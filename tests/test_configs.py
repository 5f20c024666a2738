"""Every file in configs/ says something that can be run, in the layout that configs/README.md describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from phosphene.run.config import flatten, read_yaml
from phosphene.sweep.grid import read_grid

FOLDER = Path(__file__).resolve().parents[1] / "configs"
GRIDS = [file.name for file in sorted(FOLDER.glob("*.yaml")) if "grid" in read_yaml(file)]


@pytest.mark.parametrize("name", GRIDS)
def test_every_point_of_a_grid_is_a_valid_run(name):
    grid = read_grid(FOLDER / name)
    for point in grid.points:
        planned = grid.runs[point.run]
        values = flatten(planned.config.model_dump(mode="json"))
        plain = {k: v for k, v in point.sets.items() if k in values}
        assert all(values[key] == value for key, value in plain.items())


def test_the_lea_ablation_has_the_published_numbers_of_heads_and_every_mode_of_moments():
    wanted = {(k, v) for point in read_grid(FOLDER / "lea_ablation.yaml").points for k, v in point.sets.items()}
    assert {v for k, v in wanted if k == "recipe.brain.roi_heads"} == {8, 16, 24, 32, 64, 96}
    assert {v for k, v in wanted if k == "recipe.align.moments"} == {"train_oof", "none", "test"}
    assert {v for k, v in wanted if k == "recipe.brain.embed"} == {"roi", "patch"}
    assert {v for k, v in wanted if k == "recipe.setting"} == {"strict", "relax"}


def test_every_file_is_listed_in_the_readme():
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert GRIDS
    assert all(f"`{file.name}`" in listed for file in FOLDER.glob("*.yaml"))
