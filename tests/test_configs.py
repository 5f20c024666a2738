"""Every file in configs/ says something that can be run, in the layout that configs/README.md describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from phosphene.io.config import flatten, read_yaml
from phosphene.sweeps.grid import read_grid

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


def _varied(name):
    grid = read_grid(FOLDER / name)
    configs = [grid.runs[point.run].config.recipe for point in grid.points]
    return {
        "heads": {c.brain.roi_heads for c in configs},
        "embed": {c.brain.embed for c in configs},
        "moments": {c.align.moments for c in configs},
        "setting": {c.setting for c in configs},
    }


def test_the_lea_ablation_tries_heads_patches_both_settings_and_every_mode_of_moments():
    varied = _varied("lea_ablation.yaml")
    assert len(varied["heads"]) >= 3
    assert varied["moments"] == {"train_oof", "none", "test"}
    assert varied["embed"] == {"roi", "patch"}
    assert varied["setting"] == {"strict", "relax"}


def test_the_published_numbers_of_heads_are_those_of_the_papers_tables():
    varied = _varied("lea_heads.yaml")
    assert varied["heads"] == {8, 16, 24, 32, 64, 96}
    assert varied["embed"] == {"roi", "patch"}
    assert varied["setting"] == {"relax"}


def test_every_file_is_listed_in_the_readme():
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert GRIDS
    assert all(f"`{file.name}`" in listed for file in FOLDER.glob("*.yaml"))
