"""A plug-in of another package that is broken is named with that package, and breaks nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phosphene import flow, recipes
from phosphene.cli import app
from phosphene.data import registry
from phosphene.errors import NotAvailable
from phosphene.metrics import all_metrics
from phosphene.models import bundled

MODULES = {
    "sp_ok": "",
    "sp_raises": "raise ValueError('no luck')",
    "sp_exits": "raise SystemExit(3)",
    "sp_imports": "import a_package_that_is_not_there",
    "sp_syntax": "def f(:",
    "sp_bare": "class Thing:\n    pass\nnumber = 3",
    "sp_init": "class Thing:\n    def __init__(self):\n        raise RuntimeError('no')",
}

BROKEN = ["sp_none:x", "sp_ok:x", "sp_raises:x", "sp_exits:x", "sp_imports:x", "sp_syntax:x", "sp_bare:Thing", "sp_bare:number",
          "sp_init:Thing", "!!"]  # fmt: skip

GOOD_RECIPE = """
from phosphene.recipes.linear import Linear
class Mine(Linear):
    pass
Mine.__doc__ = None
"""

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    for name, text in {**MODULES, "sp_good": GOOD_RECIPE}.items():
        (tmp_path / f"{name}.py").write_text(text)

    info = tmp_path / "strange_plug_ins-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-plug-ins\nVersion: 2.5\n")

    def add(group: str, value: str) -> None:
        (info / "entry_points.txt").write_text(f"[{group}]\nstrange = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)

    yield add
    for name in [*MODULES, "sp_good"]:
        sys.modules.pop(name, None)


GROUPS: dict[str, Callable[[], list[str]]] = {
    recipes.PLUGINS: recipes.broken_recipes,
    registry.PLUGINS: registry.broken_readers,
    "phosphene.metrics": __import__("phosphene.metrics.registry", fromlist=["x"]).broken_metrics,
    bundled.PLUGINS: bundled.broken_networks,
}


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("group", GROUPS)
def test_each_is_named_with_its_package(install: Install, group: str, value: str) -> None:
    install(group, value)
    (problem,) = GROUPS[group]()
    assert "'strange' of the package strange-plug-ins 2.5" in problem
    assert value in problem


@pytest.mark.parametrize("value", ["sp_raises:x", "sp_bare:Thing", "sp_exits:x"])
def test_a_broken_recipe_is_shown_and_the_others_as_well(install: Install, value: str) -> None:
    install(recipes.PLUGINS, value)
    shown = flow.show_recipes()
    assert "strange-plug-ins 2.5" in shown
    assert "\nlinear" in f"\n{shown}"

    with pytest.raises(NotAvailable, match="strange-plug-ins 2.5"):
        flow.configure("strange", [])
    assert flow.configure("linear", [("x", {"data.name": "insilico"})])


def test_a_recipe_without_any_docstring_is_shown(install: Install) -> None:
    install(recipes.PLUGINS, "sp_good:Mine")
    assert "strange" in flow.show_recipes()
    assert recipes.broken_recipes() == []


@pytest.mark.parametrize("value", ["sp_raises:x", "sp_bare:number"])
def test_broken_metrics_are_left_out(install: Install, value: str) -> None:
    install("phosphene.metrics", value)
    with pytest.warns(match="strange-plug-ins 2.5"):
        known = all_metrics()
    assert "pixcorr" in known


@pytest.mark.parametrize("value", ["sp_raises:x", "sp_bare:Thing"])
def test_broken_readers_are_listed(install: Install, value: str) -> None:
    install(registry.PLUGINS, value)
    done = CliRunner().invoke(app, ["data", "list"])
    assert done.exit_code == 0
    assert "strange-plug-ins 2.5" in " ".join(done.stdout.split())
    assert "insilico" in done.stdout


@pytest.mark.parametrize("group", GROUPS)
def test_the_doctor_names_them(install: Install, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from phosphene.io import installation as doctor

    install(group, "sp_raises:x")
    monkeypatch.setattr(doctor, "examine", lambda: [])  # the rest of it starts processes, and has its own tests
    done = CliRunner().invoke(app, ["doctor"], standalone_mode=False)
    assert "problem: plug-in" in done.stdout
    assert "strange-plug-ins 2.5" in done.stdout
