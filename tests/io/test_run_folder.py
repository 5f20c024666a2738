import json
import os
import socket
import subprocess
import sys

import pandas as pd
import pytest

from phosphene.errors import ConfigError, ModelError
from phosphene.io.run_folder import LOCK, RunFolder


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path):
    with pytest.raises(ModelError, match="phosphene fit"):
        RunFolder.existing(tmp_path / "nowhere")


@pytest.mark.fault(63)
def test_two_living_writers_of_one_run_are_kept_apart(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom phosphene.io.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked('fit lea'):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {other.pid}.*fit lea"), RunFolder(tmp_path).locked("fit cad"):
            pass
    finally:
        other.communicate("")
    with RunFolder(tmp_path).locked("fit cad"):
        assert (tmp_path / LOCK).is_file()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.fault(91)
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    holder = {"pid": dead.pid, "host": socket.gethostname(), "purpose": "fit", "started": ""}
    (tmp_path / LOCK).write_text(json.dumps(holder))
    with RunFolder(tmp_path).locked("fit"):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.fault(91)
def test_a_run_whose_writer_was_killed_is_free_at_once(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom phosphene.io.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked('fit lea'):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    other.kill()
    other.wait()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == other.pid
    with RunFolder(tmp_path).locked("fit cad"):
        assert json.loads((tmp_path / LOCK).read_text())["purpose"] == "fit cad"
    assert not (tmp_path / LOCK).exists()


@pytest.mark.fault(91)
def test_a_reused_process_number_is_not_mistaken_for_the_holder(tmp_path):
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "purpose": "fit", "started": "1"}
    (tmp_path / LOCK).write_text(json.dumps(holder))
    with RunFolder(tmp_path).locked("fit"):
        pass


def test_what_a_killed_process_left_anywhere_in_the_run_is_swept(tmp_path):
    (tmp_path / "folds" / "00" / "stages" / ".partial-to_brain-1-a").mkdir(parents=True)
    with RunFolder(tmp_path).locked("fit"):
        assert list((tmp_path / "folds" / "00" / "stages").iterdir()) == []


@pytest.mark.fault(116)
def test_formulas_in_texts_are_defused_in_tables(tmp_path):
    run = RunFolder(tmp_path)
    run.write_table(pd.DataFrame({"category": ["=1+1", "face"], "value": [-1.0, 2.0]}), "x.csv")
    assert "'=1+1" in (tmp_path / "x.csv").read_text()
    table = run.table("x.csv")
    assert list(table["category"]) == ["=1+1", "face"]  # read back as it was
    assert list(table["value"]) == [-1.0, 2.0]


def test_a_damaged_manifest_names_the_file(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match=r"manifest.json cannot be read"):
        _ = RunFolder(tmp_path).manifest
