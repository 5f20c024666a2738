"""What the documentation says can be typed, followed and imported."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

from phosphene.analysis import analysis_names
from phosphene.cli import app
from phosphene.cli.common import command_layer, layers_of
from phosphene.recipes import recipe_names

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "configs" / "README.md",
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("recipes/*.md")),
]
NAMES = [str(p.relative_to(ROOT)) for p in PAGES]
PLACEHOLDER = re.compile(r"^[A-Z][A-Z0-9_]*$")
ADDED = {"neighbours"}  # the example plug-in's recipe, of docs/extending.md

sys.path.insert(0, str(DOCS / "_ext"))


def blocks(page, *languages):
    """Contents of the page's fenced blocks of these languages; "" is a block that names none."""
    fenced = re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in fenced if language.strip() in languages]


def commands(text):
    """Every ``phosphene`` command of a shell script, as lists of words."""
    out = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        words.whitespace_split = True
        command = []
        for word in [*words, ";"]:
            if set(word) <= set(";&|"):
                if command and Path(command[0]).name == "phosphene":
                    out.append(command[1:])
                command = []
            elif word != "do":
                command.append(word)
    return out


def scripts(page):
    """Blocks of shell commands, and those of configs/README.md, which name no language."""
    return [*blocks(page, "sh", "bash"), *(t for t in blocks(page, "") if t.startswith("phosphene "))]


ALL = [(n, c) for n, p in zip(NAMES, PAGES, strict=True) for t in scripts(p) for c in commands(t)]


def parsed(words):
    """The command's name and its parameters, by the command line's own parser, which runs nothing."""
    command, name = typer.main.get_command(app), "phosphene"
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"there is no command '{name}'"
        command = command.commands[name]
    return name, command.make_context(name, list(words)).params


def test_the_pages_hold_commands():
    assert len(ALL) > 100
    assert {name for name, _ in ALL} >= {"README.md", "docs/quickstart.md", "docs/own_betas.md", "configs/README.md"}


@pytest.mark.parametrize(
    ("page", "words"), ALL, ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_every_command_can_be_given(page, words):
    if words in (["--help"], ["--debug", "COMMAND"]):
        return
    name, given = parsed(words)
    known = {*recipe_names(), *ADDED}
    if name == "fit":
        assert PLACEHOLDER.match(given["recipe"]) or given["recipe"] in known
    if name == "demo":
        assert given["recipe"] in {*known, "all"}
    if name == "analyse":
        assert PLACEHOLDER.match(given["name"]) or given["name"] in analysis_names()
    if name == "sweep" and given["file"].parts[0] == "configs":
        assert (ROOT / given["file"]).is_file()


@pytest.mark.parametrize("words", [c for _, c in ALL if c[0] == "fit" and c[1] in recipe_names()], ids=" ".join)
def test_every_setting_of_a_fit_exists(words):
    from phosphene import flow

    _, given = parsed(words)
    command = command_layer(given["data"], None, given["split"], given["preset"], given["seed"], given["option"])
    config, _ = flow.configure(given["recipe"], layers_of(command, None, given["set_"]))
    assert config.recipe.kind == given["recipe"]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_inside_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target) and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_python_block_is_python(page):
    for text in blocks(page, "python"):
        compile(text, str(page), "exec")


def test_every_page_is_on_the_site():
    listed = set()
    for page in DOCS.glob("**/index.md"):
        for block in blocks(page, "{toctree}"):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / e).resolve() for e in entries}
    pages = {p.with_suffix("").resolve() for p in PAGES if DOCS in p.parents}
    assert pages - listed == {(DOCS / "index").resolve()}
    assert listed <= pages


def test_every_recipe_has_a_page_with_what_was_claimed_and_found():
    for name in recipe_names():
        page = DOCS / "recipes" / f"{name}.md"
        assert page.is_file(), name
        assert "we found" in page.read_text()


def test_every_mark_has_its_maker():
    from generated import MAKERS, MARK

    marks = [m for page in PAGES for m in MARK.findall(page.read_text())]
    assert sorted(set(marks)) == sorted(MAKERS)


def test_pages_of_commands_and_cards_come_from_the_code():
    from generated import MAKERS

    from phosphene.lab import zoo

    text = MAKERS["cli"]()
    for command in ("phosphene fit", "phosphene betas", "phosphene data import", "phosphene sweep"):
        assert f"# {command}\n" in text
        assert f"Usage: {command} " in text
    cards = MAKERS["model_cards"]()
    assert all(zoo.card(name).splitlines()[-1] in cards for name in zoo.names())


def test_every_name_of_the_api_is_described():
    from api_names import public_names
    from docstring_markdown import described

    stations = public_names()
    assert len(stations["phosphene"]) > 5
    for station, names in stations.items():
        assert names, station
        for name in names:
            if name.kind != "data":
                assert name.value.__doc__, name.path
                assert described(name.path, name.value).count("```") % 2 == 0, name.path


def test_docstrings_become_markdown():
    from docstring_markdown import markdown

    text = "Mean.\n\n    x / n\n\nParameters\n----------\nx : ndarray of shape (n,)\n    *volts*,\n    not NaN\n\nRaises\n------\nDataError\n    Never."  # noqa: E501
    assert markdown(text) == (
        "Mean.\n\n```text\nx / n\n```\n\n**Parameters**\n\n- `x` (ndarray of shape (n,)): \\*volts\\*, not NaN\n\n**Raises**\n\n- DataError: Never."  # noqa: E501
    )
