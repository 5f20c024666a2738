"""Nobody has to listen: closed streams, full disks and names that are no text never undo finished work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phosphene.cli.output import GuardedStream
from phosphene.errors import ConfigError
from phosphene.io.atomic import checked_path
from phosphene.run import open_run
from tests.flow.conftest import write_pair_file

LINUX = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


def phosphene(words, **streams):
    return subprocess.run([sys.executable, "-m", "phosphene", *words], check=False, stderr=subprocess.PIPE, **streams)


@LINUX
def test_a_full_disk_behind_the_output_is_a_sentence_after_finished_work(tmp_path):
    file = write_pair_file(tmp_path / "pairs.npz")
    words = ["fit", "linear", "--data", str(file), "--out", str(tmp_path / "run"), "--set", "recipe.curve.kind=none"]
    with open("/dev/full", "w") as full:
        done = phosphene(words, stdout=full)
    told = done.stderr.decode()
    assert done.returncode == 7
    assert "the work is done, but what it printed could not be written" in told
    assert "defect" not in told
    assert open_run(tmp_path / "run").recipe(0)


def test_a_stream_that_is_closed_takes_everything_and_holds_nothing():
    guard = GuardedStream(None)
    assert guard.write("text") == 4
    guard.flush()
    assert guard.error is None


def test_a_reader_that_had_enough_is_remembered_and_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    guard = GuardedStream(stream)
    guard.write("x" * 100_000)
    guard.flush()
    assert isinstance(guard.error, BrokenPipeError)
    guard.write("more")
    stream.close()


def test_a_name_that_is_no_text_is_shown_with_escapes(tmp_path):
    with open(tmp_path / "said.txt", "w", encoding="ascii") as stream:
        GuardedStream(stream).write(os.fsdecode(b"bad\xff") + " é\n")
    assert (tmp_path / "said.txt").read_text().startswith("bad\\")


def test_a_path_longer_than_any_system_takes_is_refused():
    with pytest.raises(ConfigError, match="5024 bytes long; a system takes at most 4095"):
        checked_path("/".join(["d" * 200] * 25))


@LINUX
def test_links_that_lead_to_each_other_are_a_sentence(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    file = write_pair_file(tmp_path / "pairs.npz")
    done = phosphene(["fit", "linear", "--data", str(file), "--out", str(tmp_path / "a" / "run"), "-q"])
    assert done.returncode == 3
    assert b"leads through links that lead to each other" in done.stderr
