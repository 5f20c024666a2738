"""The verbs of the package, in whatever order its folders were imported."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("verb", ["analyse", "evaluate", "report"])
@pytest.mark.parametrize(
    "before", ["", "import phosphene.{verb}", "from phosphene.evaluate import METRICS", "import phosphene.flow"]
)
def test_a_folder_is_a_verb_too_whatever_was_imported(verb, before):
    code = (
        f"{before.format(verb=verb)}\nimport phosphene\nphosphene.configure\n"
        f"try:\n    phosphene.{verb}()\nexcept TypeError as error:\n    print(error)\n"  # of the verb, not of a module
        f"import phosphene.{verb} as folder\nassert folder is phosphene.{verb}\nfrom phosphene import {verb}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{verb}() missing ")


def test_what_fit_gives_is_what_every_verb_takes(tmp_path):
    import phosphene

    values = {"data.name": "insilico", "data.options": {"size": "small"}, "recipe.curve.kind": "none"}
    run = phosphene.fit(phosphene.configure("linear", [("test", values)])[0], tmp_path / "run")
    phosphene.decode(run, controls=["shuffled"])
    phosphene.encode(run)
    phosphene.evaluate(run)
    page = phosphene.report(run)
    assert page == tmp_path / "run" / "report.html"
    assert phosphene.report([run, phosphene.open_run(tmp_path / "run")], out=tmp_path / "both.html").is_file()
