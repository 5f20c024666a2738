"""The neural example of docs/extending.md is whole, short, and asks for no more than the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from phosphene.conformance import check_recipe
from phosphene.recipes.base import Recipe
from tests.conformance.small import small_study

DOCS = Path(__file__).parents[2] / "docs"
PLUGIN = DOCS / "examples" / "plugin"
sys.path.append(str(PLUGIN))

from phosphene_bottleneck import Bottleneck  # noqa: E402

TABLE = re.findall(r"^\| \d+ \| (.+?) \|", (DOCS / "extending.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_network_keeps_the_promises_of_a_recipe():
    check_recipe(Bottleneck, study=small_study(), values={"n_components": 10, "training.steps": 20}, refit=False)


def test_the_example_is_under_two_hundred_lines_and_fifteen_concepts():
    source = (PLUGIN / "phosphene_bottleneck.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 200
    assert len(TABLE) <= 15
    for name in re.findall(r"`(?:self\.)?(\w+)", " ".join(TABLE)):
        assert name in source or name in ("fit_NAME", "NAME_")


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"self\.(\w+)", (PLUGIN / "phosphene_bottleneck.py").read_text())))
)
def test_what_the_example_takes_from_the_base_class_stands_in_the_table(name):
    is_own = name.startswith("_") or name in vars(Bottleneck) or name.endswith("_")
    if hasattr(Recipe, name) and not is_own:
        assert name in " ".join(TABLE)
