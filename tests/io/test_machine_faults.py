"""Faults of machines: clocks that jump, threads in other numbers, temporary folders that are none, power cuts."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import phosphene
from phosphene.align import Ridge
from phosphene.data import read_dataset, write_dataset
from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.features.pixels import PixelPca
from phosphene.io import atomic
from phosphene.io.claims import claimed
from phosphene.io.installation import examine
from phosphene.io.run_folder import LOCK, RunFolder
from phosphene.io.stages import StageStore
from phosphene.io.store import RowStore
from phosphene.recipes.linear import CurveConfig, Linear, LinearConfig, RidgeConfig
from phosphene.reporting.describe import check
from phosphene.types import Stimuli, Trials
from tests.data.test_dataset_folder import make_dataset

SOURCE = Path(phosphene.__file__).parent


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(88)
def test_no_duration_is_measured_with_the_clock_on_the_wall():
    found = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = getattr(node.func.value, "id", getattr(node.func.value, "attr", ""))
                if (owner, node.func.attr) == ("time", "time"):
                    found.append(f"{file.name}:{node.lineno}")
    assert not found


@pytest.mark.fault(88)
@pytest.mark.parametrize("years", [-50, 50])
def test_claims_and_locks_ask_whether_their_holder_lives_and_not_how_old_they_are(years, tmp_path):
    jump = years * 365 * 86400 + 1_800_000_000
    with claimed(tmp_path / "claim") as mine:
        assert mine
        os.utime(tmp_path / "claim", (jump, jump))
        with claimed(tmp_path / "claim") as second:
            assert not second
    run = RunFolder(tmp_path / "run")
    with run.locked("fit"):
        os.utime(run.path / LOCK, (jump, jump))
        with pytest.raises(ConfigError, match="is being written"), RunFolder(run.path).locked("decode"):
            pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    holder = json.dumps({"pid": dead.pid, "host": socket.gethostname(), "started": "1"})
    for file, take in ((tmp_path / "claim", claimed), (run.path / LOCK, lambda _: run.locked("fit"))):
        file.write_text(holder)
        os.utime(file, (jump, jump))
        with take(file) as mine:
            assert mine is not False


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault(93)
def test_other_numbers_of_threads_change_results_by_rounding_only():
    """Sums in float32 are added up in another order: relative errors of 1e-7 times the root of the 600 terms, times the
    condition of the regularised Gram matrix, below 10 here; 1e-4 of the largest value is stated and holds easily."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 900)).astype("f4"), rng.normal(size=(600, 300)).astype("f4")
    pictures = Stimuli([f"s{i}" for i in range(200)], rng.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8))
    found = []
    for n in (1, 2, 4):
        with threadpool_limits(n, user_api="blas"):
            assert {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"} == {n}
            predicted = Ridge(100.0).fit(x, y).predict(x)
            latents = PixelPca(20).fit(pictures)
        found.append((predicted, latents.transform(pictures)))
    for predicted, latents in found[1:]:
        np.testing.assert_allclose(predicted, found[0][0], atol=1e-4 * np.abs(found[0][0]).max())
        np.testing.assert_allclose(latents, found[0][1], atol=1e-4 * np.abs(found[0][1]).max())


# -- temporary folders -------------------------------------------------------------------------------------------------


@pytest.mark.fault(94)
def test_nothing_we_write_goes_through_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        tempfile.mkstemp()
    write_dataset(make_dataset(), tmp_path / "set")
    assert read_dataset(tmp_path / "set").subjects
    assert not [f for f in check(tmp_path / "set") if f.level == "problem" and "temporary" in f.detail]
    RowStore.open_or_make(tmp_path / "s", {}, ["a"], (2,)).fill(lambda ids: np.ones((len(ids), 2)))
    pictures = Stimuli(["a", "b"], np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1))
    StageStore(tmp_path / "stages").get("pca", PixelPca, "d", [], lambda: PixelPca(1).fit(pictures))
    RunFolder(tmp_path).write_manifest(state="fitted")


@pytest.mark.fault(94)
@pytest.mark.parametrize("what", ["absent", "a file"])
def test_the_doctor_names_a_temporary_folder_that_is_none(what, tmp_path, monkeypatch):
    place = tmp_path / "tmp"
    if what == "a file":
        place.write_text("")
    monkeypatch.setenv("TMPDIR", str(place))
    (remark,) = [r for r in examine([tmp_path]) if r.what == "temporary"]
    assert remark.level == "problem" and str(place) in remark.detail and "TMPDIR" in remark.mend


# -- power cuts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """The order of flushes and renames, as they really happen."""
    seen: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def path_of(handle: int) -> str:
        return os.readlink(f"/proc/self/fd/{handle}")

    def flushed(handle: int) -> None:
        seen.append(("fsync", path_of(handle)))
        fsync(handle)

    def moved(call):
        def move(source, target):
            seen.append(("rename", f"{source} -> {target}"))
            call(source, target)

        return move

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", moved(replace))
    monkeypatch.setattr(os, "rename", moved(rename))
    return seen


@pytest.mark.fault(76)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs names of open files")
@pytest.mark.parametrize("what", ["file", "folder", "store"])
def test_a_rename_is_flushed_to_the_disk_after_what_it_names(what, calls, tmp_path):
    target = tmp_path / "x"
    if what == "file":
        atomic.write_bytes(target, b"1")
    elif what == "folder":
        with atomic.folder(target) as place:
            (place / "below").mkdir()
            (place / "below" / "a").write_text("1")
    else:
        RowStore.open_or_make(target, {}, ["a"], (2,))
    (at,) = [i for i, (kind, names) in enumerate(calls) if kind == "rename" and names.endswith(f"-> {target}")]
    source = calls[at][1].partition(" -> ")[0]
    assert ("fsync", str(tmp_path)) in calls[at + 1 :]
    before = {name for kind, name in calls[:at] if kind == "fsync"}
    if what == "file":
        assert source in before
    elif what == "folder":
        assert {f"{source}/below/a", f"{source}/below", source} <= before
    else:
        assert f"{source}/rows.npy" in before and any("store.json" in name for name in before)


# -- people ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(10)
def test_features_of_one_persons_pictures_are_not_taken_for_anothers(tmp_path):
    store = RowStore.open_or_make(tmp_path / "s", {}, ["ann1", "ann2"], (2,)).fill(lambda ids: np.ones((len(ids), 2)))
    with pytest.raises(DataError, match="ben1"):
        store.read(["ann1", "ben1"])
    with pytest.raises(ModelError, match="something else"):
        RowStore.open_or_make(tmp_path / "s", {}, ["ben1", "ben2"], (2,))


@pytest.mark.fault(10)
def test_a_model_of_one_persons_voxels_refuses_anothers_even_where_their_number_agrees():
    rng = np.random.default_rng(0)
    pictures = Stimuli([f"s{i}" for i in range(12)], rng.integers(0, 256, (12, 4, 4, 1), dtype=np.uint8))
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in range(12)]})
    ann, ben = (Trials(rng.normal(size=(12, 5)).astype("f4"), table, subject=name) for name in ("ann", "ben"))
    fitted = Linear(LinearConfig(decoder=RidgeConfig(voxels="all"), curve=CurveConfig(kind="none"))).fit(ann, pictures)
    with pytest.raises(ModelError, match=r"ben.*ann"):
        fitted.decode(ben)
