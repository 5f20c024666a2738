"""The verbs of the package, in whatever order its folders were imported."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("before", ["pass", "from phosphene.evaluate import METRICS", "import phosphene.flow"])
def test_evaluate_is_a_verb_and_a_folder_whatever_was_imported(before):
    code = (
        f"{before}\nimport phosphene\nphosphene.configure\n"
        "try:\n    phosphene.evaluate()\nexcept TypeError as error:\n    print(error)\n"  # of the verb, not of a module
        "import phosphene.evaluate as folder\nprint('mse' in folder.METRICS)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["evaluate() missing 1 required positional argument: 'opened'", "True"]
