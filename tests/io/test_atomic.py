import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from phosphene.errors import ConfigError, MachineError, PhospheneWarning
from phosphene.io import atomic


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(atomic.PARTIAL)]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), atomic.folder(tmp_path / "new") as partial:
        (partial / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic.folder(tmp_path / "new") as partial:
        (partial / "whole").write_text("x")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new" / "whole").read_text() == "x"


def test_replacing_a_folder_keeps_the_old_one_until_the_new_one_is_whole(tmp_path):
    for content in ("old", "new"):
        with atomic.folder(tmp_path / "f") as partial:
            (partial / "x").write_text(content)
            if content == "new":
                assert (tmp_path / "f" / "x").read_text() == "old"
    assert (tmp_path / "f" / "x").read_text() == "new"
    assert leftovers(tmp_path) == []


@pytest.mark.fault(75)
def test_a_process_killed_while_writing_leaves_no_final_name(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom phosphene.io import atomic\n"
        "with atomic.folder(Path(sys.argv[1]) / 'f') as p:\n"
        "    (p / 'x').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "f").exists()
    assert len(leftovers(tmp_path)) == 1
    atomic.sweep(tmp_path)
    assert leftovers(tmp_path) == []


@contextmanager
def tiny_disk():
    """A real limit of the operating system on file size: writing past it fails as on a full disk.

    No fixture, since the test runner may itself be writing to a file between a test and its teardown.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.fault(81)
def test_a_full_disk_is_one_clear_error_and_leaves_the_old_file(tmp_path):
    atomic.write_text(tmp_path / "scores.csv", "old")
    with pytest.raises(MachineError, match=r"full while writing.*scores.csv"), tiny_disk():
        atomic.write_bytes(tmp_path / "scores.csv", bytes(5000))
    assert (tmp_path / "scores.csv").read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.fault(81)
def test_a_full_disk_while_filling_a_folder_leaves_nothing(tmp_path):
    with pytest.raises(MachineError, match="full"), tiny_disk(), atomic.folder(tmp_path / "f") as partial:
        (partial / "x").write_bytes(bytes(5000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(61)
@pytest.mark.parametrize("text", ["runs/a\n", "", "  ", "a\tb", "x" * 256, "é" * 128])
def test_unusable_paths_are_refused_before_anything_is_done(text):
    with pytest.raises(ConfigError):
        atomic.checked_path(text)


@pytest.mark.fault(61)
def test_home_spaces_and_other_alphabets_are_fine(tmp_path):
    assert atomic.checked_path("~/x") == atomic.Path(os.path.expanduser("~/x"))
    odd = tmp_path / "mes données 脳"
    atomic.write_text(odd / "x.txt", "ok")
    assert (atomic.checked_path(odd) / "x.txt").read_text() == "ok"


def test_what_a_killed_process_left_is_named_and_removed_by_the_next(tmp_path):
    child = os.fork()
    if child == 0:
        with atomic.folder(tmp_path / "imported") as folder:
            (folder / "betas.npy").write_bytes(bytes(3_000_000))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1

    with (
        pytest.warns(PhospheneWarning, match=r"removed .*partial-imported.* \(3 MB\), which a command that was killed"),
        atomic.folder(tmp_path / "imported") as folder,
    ):
        (folder / "betas.npy").write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["imported"]


def test_what_a_living_process_or_another_machine_writes_is_left_alone(tmp_path):
    machine = atomic.boot_identity()[:8]
    ours = tmp_path / f".partial-imported-{os.getppid()}-{machine}-00000000"
    theirs = tmp_path / ".partial-imported-4194303-ffffffff-00000000"
    ours.mkdir()
    theirs.mkdir()
    with atomic.folder(tmp_path / "imported") as folder:
        (folder / "x").write_text("x")
    assert ours.is_dir()
    assert theirs.is_dir()


def test_many_files_are_flushed_at_once(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(handle))
    with atomic.folder(tmp_path / "pictures") as folder:
        for n in range(200):
            (folder / f"{n}.png").write_bytes(b"picture")
    assert len(flushed) < 10 or not sys.platform.startswith("linux")
