"""The measuring script, on trees small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import house

STORY = '''"""A file."""

# Why the constant is two.
TWO = 2  # a reason


class Ridge:
    """A class.

    Parameters
    ----------
    alpha : float
        Penalty above 0.
    folds : how many folds
    """

    def fit(self, x, y):
        """Fit.

        Parameters
        ----------
        x : ndarray of shape (n, p)
            Rows.
        y : ndarray of shape (n, t)
            Targets.
        """
        a, b = x, y

        total = sum(row for row in a)
        return total if b else None

    def predict(self, x, y):
        """Predict."""
        import json

        raise ValueError(f"x has {len(x)} rows")


def _helper(a, b):
    """Private functions are not asked for a section."""
    raise ValueError("no value here")
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "toy"
    (root / "one").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "__init__.py").write_text('"""A package."""\n')
    (root / "one" / "__init__.py").write_text("from toy.one.story import Ridge\n")
    (root / "one" / "story.py").write_text(STORY)
    (root / "story.py").write_text(
        "from .one.story import _helper\n\n\nclass Ridge:\n    pass\n\n\ndef fit():\n    pass\n"
    )
    (root / "loop.py").write_text("def fit():\n    from toy import forecast\n\n    return forecast\n")
    (root / "forecast.py").write_text("from toy.loop import fit\n")
    (root / "tests" / "test_story.py").write_text("class Ridge:\n    pass\n")
    return root


def test_every_row_is_what_counting_by_hand_gives(tree: Path):
    sources = house.read_sources(tree / "one" / "story.py")
    figures = house.measure(sources)

    # 12 code lines: TWO, class, three def, five statements in the methods but for the import, import, raise, raise.
    code = 1 + 1 + 3 + (3 + 2) + 1
    in_functions = 3 + 2 + 1
    filled = sum(bool(line.strip()) for line in STORY.splitlines())

    assert figures["comments"] == round(100 * 2 / code, 1)
    assert figures["blank_lines"] == round(100 * 2 / in_functions, 1)
    assert figures["tuple_assignments"] == round(1000 / filled, 1)
    assert figures["comprehensions"] == round(1000 / filled, 1)
    assert figures["conditional_expressions"] == round(1000 / filled, 1)
    assert figures["parameters_sections"] == 50.0
    assert figures["docstring_share"] == round(100 * (1 + 8 + 9 + 1 + 1) / len(STORY.splitlines()), 1)
    assert figures["raises_with_value"] == 50.0
    assert figures["typed_parameters"] == 75.0
    assert figures["imports_in_functions"] == 1


def test_names_used_twice_are_found_and_tests_left_out(tree: Path):
    sources = house.read_sources(tree)
    repeated = house.find_repeated_names(sources)

    assert list(repeated["class_names_twice"]) == ["Ridge"]
    assert len(repeated["class_names_twice"]["Ridge"]) == 2
    assert list(repeated["file_stems_twice"]) == ["story"]
    assert list(repeated["function_names_twice"]) == ["fit"]


def test_a_private_name_of_another_file_is_found_through_a_relative_import(tree: Path):
    places = house.find_private_imports(house.read_sources(tree))

    assert places == [f"{tree / 'story.py'}:1 toy.one.story._helper"]


def test_a_circle_is_found_through_an_import_inside_a_function(tree: Path):
    assert house.find_circles(house.read_sources(tree)) == [["toy.forecast", "toy.loop"]]


def test_two_circles_that_share_a_file_are_one_group(tmp_path: Path):
    root = tmp_path / "toy"
    root.mkdir()
    (root / "a.py").write_text("import toy.b\nimport toy.c\n")
    (root / "b.py").write_text("import toy.a\n")
    (root / "c.py").write_text("import toy.a\nimport toy.d\n")
    (root / "d.py").write_text("")

    assert house.find_circles(house.read_sources(root)) == [["toy.a", "toy.b", "toy.c"]]


def test_rooms_are_folders_and_files_just_below_the_root(tree: Path):
    rooms = house.measure_rooms(house.read_sources(tree))

    assert rooms["one"] == (2, 1 + len(STORY.splitlines()))
    assert set(rooms) == {"__init__", "one", "story", "loop", "forecast"}


@pytest.mark.parametrize(
    "text",
    [
        "int",
        "str or None, optional",
        "ndarray of shape (n_trials, n_voxels), default None",
        "ndarray, shape (n,)",
        "ndarray of shape (n, h, w, 3), uint8",
        "ndarray of shape (n,), float64, optional",
        "{'loo', 'gcv'}, default 'loo'",
        "list of str",
        "dict of str to float",
        "dict[str, list[int]]",
        "Literal['a', 'b']",
        "numpy.random.Generator",
        "~phosphene.types.Trials",
        ":class:`pathlib.Path`",
        "Callable[[int], str] | None",
        "iterable of paths",
        "positive float, optional",
    ],
)
def test_a_type_is_a_type(text: str):
    assert house.names_type(text)


@pytest.mark.parametrize(
    "text",
    [
        "penalty above 0 in the units of scikit-learn",
        "how many folds",
        "its ``__name__``",
        "(n_stimuli, n_repeats, n_voxels), percent signal change",
        "choose one penalty for each target instead of one for all",
        "of InfoNCE",
        "the floats of a row",
    ],
)
def test_a_description_is_no_type(text: str):
    assert not house.names_type(text)


def test_entries_are_read_in_their_sections_only():
    docstring = "Sum.\n\nParameters\n----------\nx : int\n    Note: a colon.\n\nNotes\n-----\nbut : not here\n"

    assert list(house.parameter_types(docstring)) == ["int"]


def test_the_table_has_a_column_for_each_project_and_the_json_the_same_figures(tree: Path, capsys):
    assert house.main([str(tree)]) == 0
    table = capsys.readouterr().out
    assert house.main([str(tree), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)[str(tree)]

    columns = {line.count("|") for line in table.split("\n\n")[0].splitlines()}
    assert columns == {len(house.PROJECTS) + 4}
    assert f"| class names used twice or more | {result['figures']['class_names_twice']} |" in table
    assert set(result["figures"]) == set(house.ROWS)


def test_a_path_that_is_not_there_is_named(tmp_path: Path, capsys):
    assert house.main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_every_anchor_belongs_to_a_row():
    assert set(house.ANCHORS) <= set(house.ROWS)
    assert set(house.EARLIER_ANCHORS) <= set(house.ANCHORS)
    assert set(house.BEFORE) == set(house.ROWS)


def test_a_figure_above_its_limit_fails_and_says_where(tree: Path, capsys):
    assert house.main([str(tree), "--limit", "class_names_twice=1", "--limit", "import_circles=1"]) == 0
    capsys.readouterr()

    assert house.main([str(tree), "--limit", "class_names_twice=0", "--limit", "import_circles=1"]) == 1
    out = capsys.readouterr().out

    assert "class names used twice or more: 1, at most 0 are allowed" in out
    assert "story.py:4" in out
    assert "circles" not in out


@pytest.mark.parametrize("limit", ["class_names=0", "class_names_twice", "class_names_twice=few"])
def test_a_limit_that_cannot_be_read_is_refused(limit: str, capsys):
    with pytest.raises(SystemExit, match="2"):
        house.main(["--limit", limit])
    assert "class_names_twice" in capsys.readouterr().err
