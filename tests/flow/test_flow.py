import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from phosphene import flow
from phosphene.errors import ConfigError, ModelError, SplitError
from phosphene.io.run_folder import RunFolder
from phosphene.io.stages import STAGE
from tests.flow.conftest import write_pair_file

FAST = {"recipe.curve.kind": "none", "recipe.alphas": [1.0, 100.0, 10000.0]}


def config(data, **values):
    return flow.configure("linear", [("test", {"data.name": str(data), **FAST, **values})])[0]


def run_all(data, out, **values):
    opened = flow.fit(config(data, **values), out)
    flow.decode(opened)
    flow.encode(opened)
    flow.evaluate(opened)
    return opened.folder


def test_the_flow_leaves_a_run_that_reads_without_phosphene(pair_file, tmp_path):
    run = run_all(pair_file, tmp_path / "run")
    scores = run.table("scores.csv").set_index(["input", "metric"])
    assert list(run.table("scores.csv").columns) == [
        "split", "input", "metric", "value", "ci_low", "ci_high", "chance", "p", "n", "setting",
    ]  # fmt: skip
    assert scores.loc[("brain", "two_way.pixels"), "value"] > 0.85
    assert scores.loc[("brain", "two_way.pixels"), "p"] <= 0.001
    for control in ("shuffled", "noise", "mean"):
        row = scores.loc[(control, "two_way.pixels")]
        assert abs(row["value"] - 0.5) < 0.25, control  # 12 items: standard error near 0.1
    assert scores.loc[("truth", "two_way.pixels"), "value"] == 1
    assert (run.path / "decoded/test/brain/images/000000.png").is_file()
    assert np.load(run.path / "encoded/test/predicted.npy").shape == (12, 50)
    verdicts = run.table("validity.csv").set_index("id")["verdict"]
    assert (verdicts[["S1", "L1", "L2", "B1"]] == "pass").all()
    assert verdicts["S10"] == "flag"


def test_every_fold_is_scored_out_of_fold(pair_file, tmp_path):
    run = run_all(pair_file, tmp_path / "run", split="kfold:4")
    index = run.table("decoded", "test", "brain", "index.csv")
    assert len(index) == index["stimulus"].nunique() == 72
    assert sorted(index["fold"].unique()) == [0, 1, 2, 3]
    sides = run.table("splits.csv")
    for fold, rows in sides.groupby("fold"):
        assert not set(rows[rows.side == "train"].id) & set(rows[rows.side == "test"].id)
        assert set(index[index.fold == fold].stimulus) == set(rows[rows.side == "test"].id)
    scores = run.table("scores.csv").set_index(["input", "metric"])
    assert scores.loc[("brain", "two_way_within_class.pixels"), "value"] > 0.8
    assert run.table("validity.csv").set_index("id").loc["L1", "verdict"] == "pass"


def test_folds_do_not_push_noise_voxels_far_below_zero(tmp_path):
    """The training mean moves against the mean of what is left out: with it in, a constant prediction pooled over K
    folds correlates at -1/sqrt(K), here -0.41. What remains (about -0.1) is the conservative bias of pooled slopes."""
    rng = np.random.default_rng(99)
    file = write_pair_file(tmp_path / "p.npz", n_voxels=20)
    arrays = dict(np.load(file))
    for key in ("fmriTrn", "fmriTest"):
        arrays[key] = np.hstack([arrays[key], rng.standard_normal((len(arrays[key]), 200))])
    np.savez(file, **arrays)
    run = run_all(file, tmp_path / "run", split="kfold:6")
    r = run.table("evaluation", "test", "voxels.csv")["pearson"].to_numpy()
    assert -0.2 < np.nanmean(r[20:]) < 0.05
    assert np.nanmean(r[:20]) > 0.5


def test_a_finished_stage_is_not_fitted_again(pair_file, tmp_path):
    out = tmp_path / "run"
    flow.fit(config(pair_file), out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob(STAGE)}
    flow.fit(config(pair_file), out)
    assert {p: p.stat().st_mtime_ns for p in out.rglob(STAGE)} == before


@pytest.mark.fault(63)
@pytest.mark.parametrize("change", [{"seed": 1}, {"recipe.decoder.voxels": "all"}, {"split": "kfold:2"}])
def test_a_folder_with_another_run_is_left_alone(pair_file, tmp_path, change):
    out = tmp_path / "run"
    flow.fit(config(pair_file), out)
    before = (out / "config.yaml").read_text()
    with pytest.raises(ConfigError, match="differ.*nothing in it was touched") as told:
        flow.fit(config(pair_file, **change), out)
    assert (out / "config.yaml").read_text() == before
    for key, value in change.items():
        assert f"{key}: " in str(told.value)
        assert f"{value!r} asked for" in str(told.value)


@pytest.mark.fault(74)
def test_changed_data_under_the_same_name_are_noticed(pair_file, tmp_path):
    flow.fit(config(pair_file), tmp_path / "run")
    write_pair_file(pair_file, seed=1)
    with pytest.raises(ConfigError, match="whose data"):
        flow.fit(config(pair_file), tmp_path / "run")


def test_a_folder_that_is_no_run_is_not_written_into(pair_file, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"not empty and holds no run \(chapter.txt"):
        flow.fit(config(pair_file), tmp_path / "thesis")
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_an_unfinished_run_says_how_to_go_on(pair_file, tmp_path):
    opened = flow.fit(config(pair_file, split="kfold:2"), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "folds" / "01")
    with pytest.raises(ModelError, match="not fitted to the end"):
        flow.decode(flow.open_run(tmp_path / "run"))
    flow.fit(config(pair_file, split="kfold:2"), opened.folder.path)
    flow.decode(flow.open_run(tmp_path / "run"))


def test_a_run_opens_from_anywhere_and_after_the_data_moved(pair_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow.fit(config("pairs.npz"), "run")
    monkeypatch.chdir("/")
    assert len(flow.open_run(tmp_path / "run").trials) == 72


@pytest.mark.fault(24)
@pytest.mark.fault(25)
def test_a_picture_on_both_sides_of_the_files_own_split_fails_check_s1(tmp_path):
    file = write_pair_file(tmp_path / "p.npz", repeat_across=3)
    run = run_all(file, tmp_path / "run")
    verdict = run.table("validity.csv").set_index("id").loc["S1"]
    assert verdict["verdict"] == "fail"
    assert verdict["value"] == 3
    assert "S1" in (run.evaluation() / "conclusions.txt").read_text().splitlines()[0]
    clean = run_all(file, tmp_path / "clean", split="kfold:3")
    assert clean.table("validity.csv").set_index("id").loc["S1", "verdict"] == "pass"


@pytest.mark.fault(8)
def test_trials_in_the_wrong_order_set_off_the_alignment_alarm(pair_file, tmp_path):
    arrays = dict(np.load(pair_file))
    arrays["fmriTest"] = np.roll(arrays["fmriTest"], 1, axis=0)
    np.savez(pair_file, **arrays)
    run = run_all(pair_file, tmp_path / "run")
    verdict = run.table("validity.csv").set_index("id").loc["B1"]
    assert verdict["verdict"] == "fail"
    assert "misaligned" in verdict["reason"]


def test_a_split_file_with_index_lists_is_followed(pair_file, tmp_path):
    file = tmp_path / "folds.json"
    ids = list(flow.Run(RunFolder(tmp_path / "x"), config(pair_file)).trials.stimulus_ids)
    file.write_text(json.dumps({"folds": [{"test": ids[:20]}, {"test": ids[20:40]}]}))
    run = run_all(pair_file, tmp_path / "run", split=str(file))
    assert list(run.table("decoded", "test", "brain", "index.csv")["stimulus"]) == ids[:40]


@pytest.mark.fault(24)
def test_the_same_id_on_both_sides_of_a_split_file_is_refused(pair_file, tmp_path):
    file = tmp_path / "split.yaml"
    ids = list(flow.Run(RunFolder(tmp_path / "x"), config(pair_file)).trials.stimulus_ids)
    file.write_text(f"train: [{ids[0]}, {ids[1]}]\ntest: [{ids[1]}, {ids[2]}]\n")
    with pytest.raises(SplitError, match=f"both sides, first '{ids[1]}'"):
        flow.fit(config(pair_file, split=str(file)), tmp_path / "run")


@pytest.mark.fault(125)
def test_no_p_is_zero(pair_file, tmp_path):
    p = run_all(pair_file, tmp_path / "run").table("scores.csv")["p"].dropna()
    assert len(p)
    assert p.min() >= 1 / 10_001


@pytest.mark.fault(123)
def test_constant_predictions_count_as_chance_and_are_listed(pair_file, tmp_path):
    run = run_all(pair_file, tmp_path / "run")
    file = run.decoded("test", "mean") / "pixels.npy"
    np.save(file, np.full_like(np.load(file), 0.5))
    (file.parent / "sealed.json").unlink()
    flow.evaluate(flow.open_run(run.path))
    row = run.table("scores.csv").set_index(["input", "metric"]).loc[("mean", "two_way.pixels")]
    assert row["value"] == 0.5
    notes = run.table("evaluation", "test", "notes.csv")
    assert (notes["metric"] == "two_way.pixels").any()


# -- killed at any moment ----------------------------------------------------------------------------------------------


def fit_in_a_process(file, out):
    command = [sys.executable, "-m", "phosphene", "fit", "linear", "--data", str(file), "--split", "kfold:3"]
    return subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def weights(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.safetensors"))}


def kill_and_resume(file, out, moments):
    for moment in moments:
        process = fit_in_a_process(file, out)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = fit_in_a_process(file, out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


@pytest.mark.fault(75)
def test_a_killed_fit_goes_on_and_ends_bit_identical(tmp_path):
    file = write_pair_file(tmp_path / "pairs.npz", n_voxels=400)
    kill_and_resume(file, tmp_path / "whole", [])
    kill_and_resume(file, tmp_path / "killed", np.random.default_rng(0).uniform(0.8, 3.0, 4))
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert len(weights(tmp_path / "whole")) == 15


@pytest.mark.slow
@pytest.mark.fault(75)
def test_forty_kills_at_random_moments_leave_nothing_that_cannot_be_resumed(tmp_path):
    file = write_pair_file(tmp_path / "pairs.npz", n_voxels=2000)
    kill_and_resume(file, tmp_path / "whole", [])
    for seed in range(10):
        out = tmp_path / f"killed{seed}"
        kill_and_resume(file, out, np.random.default_rng(seed).uniform(0.5, 4.0, 4))
        assert weights(out) == weights(tmp_path / "whole")
