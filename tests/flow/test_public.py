"""The public names: verbs that are functions, with their signatures, for Python and for type checkers alike."""

import ast
import doctest
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import phosphene

SOURCE = Path(phosphene.__file__).parent
STUBS = sorted(SOURCE.rglob("__init__.pyi"))
VERBS = ["analyse", "configure", "decode", "encode", "evaluate", "fit", "open_run", "recipe", "report", "score"]
USERS = """
from typing_extensions import assert_type

import phosphene
from phosphene import Dataset, Run
from phosphene.align import Ridge
from phosphene.training import Trained, train

config, origins = phosphene.configure("linear", [("mine", {"data.name": "insilico"})])
assert_type(origins, dict[str, str])
run: Run = phosphene.fit(config, "runs/mine")
assert_type(run, Run)
assert_type(phosphene.open_run("runs/mine"), Run)
assert_type(phosphene.open_dataset("insilico"), Dataset)
assert_type(phosphene.recipe_names(), list[str])
phosphene.decode(run, controls=["shuffled"])
phosphene.report([run, run], out="both.html")
Ridge(alpha=1.0)
phosphene.fit(3)  # pyright should refuse this
phosphene.fitt  # and this
"""


@pytest.mark.parametrize("stub", STUBS, ids=lambda p: ".".join(p.relative_to(SOURCE.parent).parent.parts))
def test_a_stub_lists_what_the_package_has_and_where_it_is_defined(stub):
    room = ".".join(stub.relative_to(SOURCE.parent).parent.parts)
    module = importlib.import_module(room)
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    (listed,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    imported = [a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names]

    assert sorted(listed) == sorted(imported) == sorted(module.__all__)
    assert set(listed) <= set(dir(module))
    for name in listed:
        assert getattr(module, name) is not None


def test_a_verb_is_a_function_with_its_signature_and_docstring_whatever_was_imported():
    code = "import phosphene.flow, phosphene.reporting.figures, phosphene.analysis, phosphene.metrics, phosphene, inspect, json\n"
    code += f"verbs = {VERBS}\n"
    code += "print(json.dumps({v: [str(inspect.signature(getattr(phosphene, v))), inspect.getdoc(getattr(phosphene, v))"
    code += " and type(getattr(phosphene, v)).__name__] for v in verbs}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert {kind for _, kind in seen.values()} == {"function"}
    assert list(inspect.signature(phosphene.fit).parameters)[:2] == ["config", "out"]
    assert seen["fit"][0] == str(inspect.signature(phosphene.fit))


def test_completion_lists_the_verbs_before_any_is_imported():
    code = "import phosphene, sys; print(*dir(phosphene)); assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(VERBS) <= set(done.stdout.split())


@pytest.mark.slow
def test_a_type_checker_knows_what_the_verbs_give_and_take(tmp_path):
    (tmp_path / "script.py").write_text(USERS)
    settings = {"include": ["script.py"], "extraPaths": [str(SOURCE.parent)], "typeCheckingMode": "basic"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = json.loads(done.stdout)["generalDiagnostics"]
    errors = {c["range"]["start"]["line"] + 1: c["message"] for c in complaints if c["severity"] == "error"}
    lines = USERS.splitlines()
    assert [lines[number - 1].split("  #")[0] for number in sorted(errors)] == ["phosphene.fit(3)", "phosphene.fitt"], (
        errors
    )


@pytest.mark.slow
def test_the_example_of_the_package_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest(phosphene.__doc__, {}, "phosphene", None, 0)
    assert len(example.examples) >= 6
    assert doctest.DocTestRunner().run(example).failed == 0
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()


def test_what_fit_gives_is_what_every_verb_takes(tmp_path):
    values = {"data.name": "insilico", "data.options": {"size": "small"}, "recipe.curve.kind": "none"}
    run = phosphene.fit(phosphene.configure("linear", [("test", values)])[0], tmp_path / "run")
    assert repr(run) == f"Run({tmp_path / 'run'}: linear on insilico, preset lab, seed 0; fitted)"
    phosphene.decode(run, controls=["shuffled"])
    phosphene.encode(run)
    phosphene.evaluate(run)
    page = phosphene.report(run)
    assert repr(run).endswith("; fitted, decoded, encoded, evaluated)")
    assert page == tmp_path / "run" / "report.html"
    assert phosphene.report([run, phosphene.open_run(tmp_path / "run")], out=tmp_path / "both.html").is_file()
