"""Whatever write fails, and however: what was there is still readable, nothing half-written has a final name, and the
error says which file and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from phosphene.errors import MachineError
from phosphene.features.pixels import PixelPca
from phosphene.io import atomic, ledger
from phosphene.io.atomic import PARTIAL, write_text
from phosphene.io.run_folder import RunFolder
from phosphene.io.stages import StageStore
from phosphene.io.store import RowStore
from phosphene.training.checkpoint import Checkpoint, last_checkpoint, save_checkpoint
from tests.io.disk import KINDS, BadDisk, bad

IDS = ["a", "b", "c", "d"]


def rows(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda ids: np.full((len(ids), 3), value, dtype="f4")


def part(value: float) -> PixelPca:
    pca = PixelPca(1)
    pca.mean_, pca.components_, pca.variance_ = (np.full(s, value, "f4") for s in ((4,), (1, 4), (1,)))
    pca.image_shape_ = (2, 2, 1)
    return pca


def checkpoint(step: int) -> Checkpoint:
    weights = {"w": torch.full((3, 2), float(step))}
    return Checkpoint(step, weights, {"exp_avg/w": torch.ones(3, 2)}, None, {"curve": [1.0]})


@dataclass(frozen=True)
class Work:
    """Something written over something older: what was there, what is done, and what must hold afterwards.

    Parameters
    ----------
    before, during : take the folder; `during` is what the disk fails under
    after : reads everything again; raises when something cannot be read, and says whether the new is there
    """

    before: Callable[[Path], Any]
    during: Callable[[Path], Any]
    after: Callable[[Path], bool]


def _features_before(folder: Path) -> None:
    store = RowStore.open_or_make(folder / "s", {"what": "x"}, IDS, (3,), chunk=2)
    store.write(store.missing()[0], rows(1.0)(np.array(["a", "b"])))


def _features_during(folder: Path) -> None:
    RowStore.open_or_make(folder / "s", {"what": "x"}, IDS, (3,), chunk=2).fill(rows(2.0))


def _features_after(folder: Path) -> bool:
    store = RowStore.open(folder / "s")
    assert store.read(["b", "a"]).tolist() == [[1.0] * 3] * 2
    if not store.missing():
        assert store.read(["c", "d"]).tolist() == [[2.0] * 3] * 2
    return not store.missing()


def _checkpoint_after(folder: Path) -> bool:
    found = last_checkpoint(folder / "training")
    assert found is not None and torch.equal(found.model["w"], torch.full((3, 2), float(found.step)))
    assert found.step in (1, 2)
    return found.step == 2


def _stage(value: float, digest: str) -> Callable[[Path], Any]:
    return lambda folder: StageStore(folder / "stages").get("pca", PixelPca, digest, ["s/1"], lambda: part(value))


def _stage_after(folder: Path) -> bool:
    record = json.loads((folder / "stages" / "pca" / "stage.json").read_text())
    kept = StageStore(folder / "stages").get("pca", PixelPca, record["digest"], [], lambda: pytest.fail("it was lost"))
    assert kept.mean_[0] == {"old": 1.0, "new": 2.0}[record["digest"]]
    return record["digest"] == "new"


def _report(value: str) -> Callable[[Path], Any]:
    def work(folder: Path) -> None:
        run = RunFolder(folder / "run")
        run.write_manifest(state=value)
        run.write_table(pd.DataFrame({"metric": ["pixcorr"], "value": [value]}), "scores.csv")
        write_text(run.path / "report.html", f"<html>{value}</html>")

    return work


def _report_after(folder: Path) -> bool:
    run = RunFolder(folder / "run")
    found = {run.manifest["state"], run.table("scores.csv")["value"][0]}
    found.add((run.path / "report.html").read_text()[6:-7])
    assert found <= {"old", "new"}
    return found == {"new"}


def _look(folder: Path) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    ledger.append(folder, ledger.LedgerEntry("d", "s", "c"))


def _ledger_after(folder: Path) -> bool:
    found = ledger.read(folder)
    assert found.is_whole and found.looks
    return len(found.looks) >= 2


WORKS = {
    "features": Work(_features_before, _features_during, _features_after),
    "checkpoint": Work(
        lambda f: save_checkpoint(f / "training", checkpoint(1)),
        lambda f: save_checkpoint(f / "training", checkpoint(2)),
        _checkpoint_after,
    ),
    "stage": Work(_stage(1.0, "old"), _stage(2.0, "new"), _stage_after),
    "report": Work(_report("old"), _report("new"), _report_after),
    "ledger": Work(_look, _look, _ledger_after),
}


def writes(work: Work, folder: Path) -> int:
    """How many writes the work takes."""
    work.before(folder)
    with bad(BadDisk(folder)) as disk:
        work.during(folder)
    assert work.after(folder)
    return disk.count


@pytest.mark.fault(81)
@pytest.mark.fault(82)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WORKS)
def test_whichever_write_fails_the_old_stays_or_the_new_is_whole(name, kind, tmp_path):
    work = WORKS[name]
    n = writes(work, tmp_path / "count")
    assert n >= 1
    told = 0
    for k in range(n):
        folder = tmp_path / str(k)
        work.before(folder)
        try:
            with bad(BadDisk(folder, kind, k)):
                work.during(folder)
        except MachineError as error:  # and nothing else
            told += 1
            assert str(folder) in str(error)
            assert any(word in str(error) for word in ("Free some space", "Choose another", "check the disk"))
            if kind != "vanished":
                work.after(folder)
                assert not [
                    p for p in folder.rglob("*") if p.suffix in (".json", ".csv", ".html") and not p.stat().st_size
                ]
        else:
            # What failed was not needed (an earlier folder, a flush of names): then the new is there as a whole.
            assert kind == "vanished" or work.after(folder)
        if folder.is_dir() and kind != "vanished":
            left = [p.name for p in folder.rglob(f"{PARTIAL}*")]
            assert len(left) <= 1, left
            with bad(BadDisk(folder)):
                work.during(folder)  # the same again, on a disk in order
            assert work.after(folder)
        shutil.rmtree(folder, ignore_errors=True)
    assert told


@pytest.mark.fault(81)
@pytest.mark.parametrize("kind", ["full", "short", "eio", "read-only"])
def test_a_log_that_cannot_be_written_stops_nothing_and_loses_no_older_line(kind, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.log("first")
    with bad(BadDisk(tmp_path, kind, 0)):
        run.log("second")
    run.log("third")
    lines = (run.path / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["event"] == "first"
    assert json.loads(lines[-1])["event"] == "third"


@pytest.mark.fault(75)
@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_that_cannot_take_its_name_leaves_the_old_one_there(can_exchange, tmp_path, monkeypatch):
    if not can_exchange:  # as on a system that cannot let two folders change names
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    _stage(1.0, "old")(tmp_path)
    with bad(BadDisk(tmp_path)) as disk:
        _stage(1.0, "newer")(tmp_path)
    for k in range(disk.count):
        try:
            with bad(BadDisk(tmp_path, "eio", k)):
                _stage(2.0, "new")(tmp_path)
        except MachineError:
            assert json.loads((tmp_path / "stages" / "pca" / "stage.json").read_text())["digest"] == "newer"
