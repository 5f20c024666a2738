"""Runs are neither lost nor changed by whatever stops a command; the whole harness is `python -m benchmarks faults`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import faults

ROOT = Path(faults.__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")),
    reason="the harness needs Linux and a C compiler",
)


def harness(*words):
    command = [sys.executable, "-m", "benchmarks", "faults", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_fit_killed_here_and_there_is_neither_lost_nor_changed():
    done = harness("fit", "--kinds", "kill", "--every", "23")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs lost: 0; results that differ: 0" in done.stdout


@pytest.mark.slow
def test_every_verb_survives_every_fault_at_every_operation():
    done = harness()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_times_are_no_difference_and_anything_else_is(tmp_path):
    for name, seconds, value in (("a", 1.0, 2), ("b", 3.0, 2), ("c", 1.0, 3)):
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"seconds": seconds, "stages": [{"value": value, "time": name}]})
        )
    same = [faults.digest(tmp_path / f"{name}.json", tmp_path) for name in "abc"]
    assert same[0] == same[1]
    assert same[0] != same[2]
