"""Of several processes exactly one holds a claim, whatever was left behind, and on whatever machine."""

import json
import multiprocessing
import os
import time

import pytest

from phosphene.io import claims
from phosphene.io.boot import boot_identity
from phosphene.io.claims import claimed, holder


def elsewhere(claim, *, age=0.0, **record):
    """What a holder on another machine has left, touched so many seconds ago."""
    claim.write_text(json.dumps({"pid": 1, "host": "node7", "boot": "another", "token": "t", **record}))
    touched = time.time() - age
    os.utime(claim, (touched, touched))


def contend(folder, ready, n_rounds):
    """Take a claim again and again; a file made exclusively tells of any second holder."""
    ready.wait()
    for _ in range(n_rounds):
        with claimed(folder / "claim") as mine:
            if not mine:
                continue
            try:
                handle = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                (folder / "twice").write_text("two processes held it at once")
                return
            os.close(handle)
            os.unlink(folder / "inside")


@pytest.mark.parametrize("left", ["nothing", "an empty file", "a dead holder's", "half a record"])
def test_six_processes_never_hold_it_at_once(tmp_path, left):
    claim = tmp_path / "claim"
    if left == "an empty file":
        claim.write_text("")
    elif left == "a dead holder's":
        claim.write_text(json.dumps({"pid": 2**22 - 1, "host": "x", "boot": boot_identity(), "token": "t"}))
    elif left == "half a record":
        claim.write_text('{"pid": 12')

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    processes = [context.Process(target=contend, args=(tmp_path, ready, 60)) for _ in range(6)]
    for process in processes:
        process.start()
    ready.set()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert not (tmp_path / "twice").exists()
    assert not claim.exists()


def test_a_claim_of_another_machine_stands_while_it_is_touched_and_not_for_ever(tmp_path):
    claim = tmp_path / "claim"
    elsewhere(claim)
    with claimed(claim) as mine:
        assert not mine
    assert holder(claim)["host"] == "node7"

    elsewhere(claim, age=claims.LEASE + 1)
    with claimed(claim, "fit") as mine:
        assert mine
        assert holder(claim)["purpose"] == "fit"
    assert not claim.exists()


def test_another_machine_of_the_same_name_is_another(tmp_path):
    import socket

    elsewhere(tmp_path / "claim", host=socket.gethostname(), pid=os.getpid())
    with claimed(tmp_path / "claim") as mine:
        assert not mine


def test_a_job_that_the_scheduler_started_anew_takes_back_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "417")
    elsewhere(tmp_path / "claim", job="417")
    with claimed(tmp_path / "claim") as mine:
        assert mine
    elsewhere(tmp_path / "claim", job="418")
    with claimed(tmp_path / "claim") as mine:
        assert not mine


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.05)
    with claimed(tmp_path / "claim") as mine:
        assert mine
        os.utime(tmp_path / "claim", (1, 1))
        time.sleep(0.5)
        assert (tmp_path / "claim").stat().st_mtime > 1


def test_a_clock_that_is_wrong_here_changes_nothing(tmp_path, monkeypatch):
    elsewhere(tmp_path / "claim")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with claimed(tmp_path / "claim") as mine:
        assert not mine


def test_a_claim_that_somebody_else_took_over_is_not_removed(tmp_path):
    claim = tmp_path / "claim"
    with claimed(claim) as mine:
        assert mine
        claim.unlink()
        elsewhere(claim)
    assert holder(claim)["host"] == "node7"
