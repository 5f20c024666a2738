"""The check of strings that name modules, on a toy house with faults put into it."""

from __future__ import annotations

from pathlib import Path

import pytest

import strings

PYPROJECT = """
[tool.importlinter]
root_package = "toy"

[[tool.importlinter.contracts]]
name = "No circles"
type = "acyclic_siblings"
ancestors = ["toy"]

[[tool.importlinter.contracts]]
name = "Layers"
type = "layers"
containers = ["toy"]
layers = ["cli", "flow : sweeps", "recipes", "models | align", "data", "errors"]
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    package = tmp_path / "src" / "toy"

    for room in ("cli", "flow", "sweeps", "recipes", "models", "align", "data"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text("")

    (package / "__init__.py").write_text('HOMES = {"fit": "toy.flow"}\n')
    (package / "errors.py").write_text("class DataError(Exception):\n    pass\n")
    (package / "recipes" / "linear.py").write_text("class Linear:\n    pass\n")
    (package / "align" / "ridge.py").write_text("from toy.errors import DataError\n\n\nclass Ridge:\n    pass\n")
    return tmp_path


def check(toy: Path, capsys) -> tuple[int, str]:
    status = strings.main(["--pyproject", str(toy / "pyproject.toml")])
    return status, capsys.readouterr().out


def test_strings_that_point_down_or_into_their_own_room_pass(toy: Path, capsys):
    registry = (
        'RECIPES = {"linear": "toy.recipes.linear:Linear"}\nSOLVER = "toy.align.ridge:Ridge"\nROOM = "toy.data"\n'
    )
    (toy / "src" / "toy" / "recipes" / "__init__.py").write_text(registry)

    status, out = check(toy, capsys)

    assert status == 0, out


@pytest.mark.parametrize("string", ["toy.recipes.linear:Linear", "toy.recipes.linear", "toy.recipes"])
def test_a_string_that_points_up_fails_with_file_and_line(toy: Path, capsys, string: str):
    path = toy / "src" / "toy" / "align" / "registry.py"
    path.write_text(f'"""Solvers."""\n\nSOLVERS = {{\n    "linear": "{string}",\n}}\n')

    status, out = check(toy, capsys)

    assert status == 1
    assert f"{path}:4: '{string}' points up: align is below recipes" in out


def test_a_string_that_points_to_an_independent_sibling_fails(toy: Path, capsys):
    (toy / "src" / "toy" / "models" / "registry.py").write_text('SOLVER = "toy.align.ridge:Ridge"\n')

    status, out = check(toy, capsys)

    assert status == 1
    assert "points to a sibling: models and align" in out


def test_siblings_joined_by_a_colon_may_name_each_other(toy: Path, capsys):
    (toy / "src" / "toy" / "flow" / "registry.py").write_text('PAGES = "toy.sweeps"\n')

    assert check(toy, capsys)[0] == 0


def test_a_data_file_is_held_to_the_layers_too(toy: Path, capsys):
    path = toy / "src" / "toy" / "data" / "card.json"
    path.write_text('{\n  "class": "toy.recipes.linear:Linear"\n}\n')

    status, out = check(toy, capsys)

    assert status == 1
    assert f"{path}:2:" in out


def test_a_name_that_does_not_exist_fails(toy: Path, capsys):
    registry = 'A = "toy.align.rigde:Ridge"\nB = "toy.align.ridge:Rigde"\nC = "toy.align.ridge:DataError"\n'
    (toy / "src" / "toy" / "recipes" / "registry.py").write_text(registry)

    status, out = check(toy, capsys)

    assert status == 1
    assert "registry.py:1: 'toy.align.rigde:Ridge' names the module toy.align.rigde, which does not exist" in out
    assert "registry.py:2: 'toy.align.ridge:Rigde' names Rigde, which toy.align.ridge does not define" in out
    assert "registry.py:3" not in out


def test_a_room_in_no_layer_fails(toy: Path, capsys):
    (toy / "src" / "toy" / "lab").mkdir()
    (toy / "src" / "toy" / "lab" / "__init__.py").write_text('READER = "toy.data"\n')

    status, out = check(toy, capsys)

    assert status == 1
    assert "lab stands in no layer" in out


def test_docstrings_and_names_of_entry_point_groups_are_not_held(toy: Path, capsys):
    text = '"""toy.recipes"""\n\nGROUP = "toy.plugins"\n"""toy.recipes"""\n'
    (toy / "src" / "toy" / "align" / "words.py").write_text(text)

    assert check(toy, capsys)[0] == 0


def test_without_a_contract_of_layers_the_error_says_so(tmp_path: Path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[tool.importlinter]\nroot_package = "toy"\ncontracts = []\n')

    with pytest.raises(ValueError, match="no import-linter contract of type layers"):
        strings.read_layers(path)


def test_the_layers_of_the_project_name_rooms_that_exist():
    layers = strings.read_layers(strings.ROOT / "pyproject.toml")

    for room in layers.height:
        assert strings.find_module(strings.ROOT / "src", f"phosphene.{room}"), room
