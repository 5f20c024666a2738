"""A few damaged files of every reader, the same at each run; `python -m tests.fuzz` reads as many as there is time for."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.errors import DataError
from tests.fuzz import engine
from tests.fuzz.targets import TARGETS, Target

# Readers that are quick to set up; the slow test takes all.
QUICK = (
    "arrays",
    "nifti",
    "splits",
    "hrf",
    "hrf.npy",
    "folder",
    "store",
    "stage",
    "flax",
    "foreign",
    "pairs.npz",
    "bdata",
)


def fuzzed(names, cases, tmp_path, seed=0):
    result = engine.Result()
    for name in names:
        engine.run(TARGETS[name], tmp_path, seed, range(cases), result)
    return result


@pytest.mark.fault(36)
@pytest.mark.fault(37)
@pytest.mark.fault(66)
def test_damaged_files_are_refused_in_one_paragraph_or_read(tmp_path):
    result = fuzzed(QUICK, 6, tmp_path)
    assert not result.findings, [f"{f.target}:{f.case[0]}:{f.case[1]} {f.key}" for f in result.findings.values()]
    assert all(c.reads == 6 and c.accepted >= 1 for c in result.counts.values())
    assert sum(c.refused for c in result.counts.values()) > 20


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_damaged_files_of_every_reader(tmp_path):
    result = fuzzed(TARGETS, 100, tmp_path, seed=3)
    assert not result.findings, [f"{f.target}:{f.case[0]}:{f.case[1]} {f.key}" for f in result.findings.values()]


def test_the_same_case_is_the_same_damage(tmp_path):
    folder = engine.prepared(TARGETS["splits"], tmp_path)
    once, again = (engine.damage(TARGETS["splits"], folder, 5, 7) for _ in range(2))
    assert once == again and once[1] != once[0].read_bytes()
    assert engine.damage(TARGETS["splits"], folder, 5, 8) != once


def _raise(error):
    raise error


def _crash():
    import ctypes

    ctypes.string_at(0)


def _hang():
    while True:
        pass


def _write_canary(_):
    import os

    os.system("true")


@pytest.mark.parametrize(
    ("read", "key"),
    [
        (lambda _: _raise(KeyError("x")), "KeyError"),
        (lambda _: _raise(SystemExit(3)), "SystemExit"),
        (lambda _: _raise(DataError("")), "no paragraph"),
        (lambda _: np.ones(2**31), "MemoryError"),
        (lambda _: _crash(), "SIGSEGV"),
        (_write_canary, "a payload was run"),
    ],
    ids=["another error", "an exit", "an empty message", "memory", "a crash", "a command"],
)
def test_a_reader_that_does_anything_else_is_found(read, key, tmp_path):
    target = Target("bad", lambda folder: (folder / "a.txt").write_text("1,2"), read)
    result = engine.Result()
    engine.run(target, tmp_path, 0, range(2), result)
    assert result.counts["bad"].findings == 2
    assert all(key in found.key for found in result.findings.values())


@pytest.mark.slow
def test_a_reader_that_never_ends_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CPU_S", 1)
    target = Target("endless", lambda folder: (folder / "a.txt").write_text("1"), lambda _: _hang())
    result = engine.Result()
    engine.run(target, tmp_path, 0, range(1), result)
    assert [f.key for f in result.findings.values()] == ["more than 1 s"]
