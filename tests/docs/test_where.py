"""Every file, name and setting that docs/where.md gives exists. Files are read as text: no network library is loaded."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from phosphene.analysis import analysis_names
from phosphene.io.config import Config
from phosphene.metrics import METRICS
from phosphene.recipes import recipe, recipe_names
from tests.docs.test_pages import parsed

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "phosphene"
PAGE = (ROOT / "docs" / "where.md").read_text()
SECTIONS = re.findall(r"^## [^\n]*`(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
ROWS = [
    (name, *(cell.strip() for cell in line.strip("|").split("|")))
    for name, text in SECTIONS
    for line in text.splitlines()
    if line.startswith("| ") and not line.startswith("| idea")
]
CODE = re.compile(r"`([^`]+)`")


@cache
def names_in(file):
    """What a file defines at its top, and what its classes hold, as CLASS.NAME."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        own = defined(node)
        names |= own
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner}" for item in node.body for inner in defined(item)}
    return names


def defined(node):
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {t.id for t in targets if isinstance(t, ast.Name)}


def models_of(annotation):
    """Configurations that a field may hold, through unions and annotations."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Config) else []
    return [model for part in get_args(annotation) for model in models_of(part)]


def is_setting(keys, models):
    found = [m.model_fields[keys[0]] for m in models if keys[0] in m.model_fields]
    if not found:
        return False
    inside = [model for field in found for model in models_of(field.annotation)]
    return not keys[1:] or is_setting(keys[1:], inside)


def check_places(text):
    file = None
    for word in CODE.findall(text):
        if "/" in word or word.endswith(".py"):
            file = SOURCE / word
            assert file.is_file(), word
        else:
            assert file is not None, f"{word} stands before any file"
            assert word in names_in(file), f"{file.relative_to(SOURCE)} has no {word}"


def test_the_page_has_every_recipe_and_every_analysis():
    assert len(ROWS) > 60
    assert {name for name, _ in SECTIONS} <= set(recipe_names())
    for name in recipe_names():
        assert f"`recipes/{name}.py`" in PAGE, name
    for name in analysis_names():
        assert f"`phosphene analyse RUN {name}`" in PAGE, name


def test_every_network_of_a_paper_stands_on_the_page():
    files = [
        file
        for file in (SOURCE / "models").glob("*.py")
        if re.search(r"^Paper:|et al\. 20\d\d", file.read_text(), re.M)
    ]
    assert len(files) >= 12
    for file in files:
        assert f"`models/{file.name}`" in PAGE, file.name


def test_every_system_is_where_its_section_says():
    for _, text in SECTIONS:
        prose = text.partition("\n|")[0]
        check_places(re.sub(r"\[[^\]]*\]\([^)]*\)", "", prose))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][:50])
def test_every_idea_is_where_the_page_says(row):
    _, _, places, _ = row
    assert CODE.search(places), "no place"
    check_places(places)
    files = {word for word in CODE.findall(places) if "/" in word}
    assert len(files) <= 2, f"an idea in {len(files)} files"


@pytest.mark.parametrize("row", [r for r in ROWS if r[3]], ids=lambda row: row[1][:50])
def test_everything_that_switches_an_idea_exists(row):
    name, _, _, switches = row
    for word in CODE.findall(switches):
        if word.startswith("phosphene "):
            parsed(word.split()[1:])
        elif word.startswith("configs/"):
            assert (ROOT / word).is_file(), word
        elif word.startswith("recipe."):
            setting, _, _ = word.partition("=")
            assert is_setting(setting.split(".")[1:], [recipe(name).config_class]), word
        elif word[0].isupper():
            files = [f for kind in ("models", "betas") for f in (SOURCE / kind).glob("*.py")]
            assert any(word in names_in(f) for f in files), word
        else:
            wanted = re.compile(re.sub(r"\d+", r"(\\d+|{n})", re.escape(word)) + r"(\.|$)")
            assert any(wanted.match(entry.name) for entry in METRICS.values()), word


HOUSE = (ROOT / "docs" / "architecture.md").read_text()
WALKS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in HOUSE.splitlines()
    if line.startswith("| ") and line.count("|") == 4 and not line.startswith("| room")
]


@pytest.mark.parametrize("row", WALKS, ids=lambda row: row[1][:50])
def test_the_walk_through_the_house_goes_where_it_says(row):
    room, _, places = row
    check_places(places)
    files = [word for word in CODE.findall(places) if "/" in word or word.endswith(".py")]
    assert files
    assert {file.partition("/")[0].removesuffix(".py") for file in files} == {room}


def test_the_house_is_drawn_with_every_room():
    drawing = HOUSE.partition("```text")[2].partition("```")[0]
    rooms = {p.name for p in SOURCE.iterdir() if (p / "__init__.py").is_file()}
    for room in rooms:
        assert re.search(rf"\b{room}\b", drawing), room
