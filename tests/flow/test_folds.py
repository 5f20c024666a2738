"""Runs in folds: runs left out, single stimuli left out, groups kept together; and the size at which all are scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phosphene import flow
from phosphene.data import splits, write_dataset
from phosphene.errors import ConfigError, SplitError
from phosphene.types import Dataset, Stimuli, Trials

N = 16
RUNS = 3


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Sixteen pictures in three runs of a linear brain, in the folder format."""
    rng = np.random.default_rng(0)
    ids = np.array([f"p{n:02d}" for n in range(N)], dtype=object)
    pictures = (rng.random((N, 4, 4, 1)).repeat(3, axis=1).repeat(3, axis=2) * 255).astype(np.uint8)
    weights = rng.standard_normal((144, 40))
    betas = []
    rows = []
    for run in range(RUNS):
        for i in rng.permutation(N):
            signal = (pictures[i].reshape(-1) / 255 - 0.5) @ weights
            betas.append(signal + 4 * rng.standard_normal(40))
            rows.append((ids[i], "1", str(run + 1), str(len(rows))))

    table = pd.DataFrame(rows, columns=["stimulus", "session", "run", "trial"])
    trials = Trials(np.array(betas, np.float32), table, subject="sub-01")
    category = np.array(["a", "b"] * (N // 2), dtype=object)
    folder = tmp_path_factory.mktemp("study") / "set"
    write_dataset(Dataset("folds", Stimuli(ids, pictures, category=category), {"sub-01": trials}), folder)
    groups = pd.DataFrame({"stimulus": ids, "group": [f"figure {n // 4}" for n in range(N)]})
    groups.to_csv(folder.parent / "groups.csv", index=False)

    return folder


def run_of(study, out, **values):
    layers = [
        ("test", {"data.name": str(study), "recipe.curve.kind": "none", "recipe.pixels.n_components": 8, **values})
    ]
    opened = flow.fit(flow.configure("linear", layers)[0], out)
    flow.decode(opened)
    flow.encode(opened)
    flow.evaluate(opened)

    return opened


def value(opened, source, metric, column="value"):
    table = opened.folder.table("scores.csv").set_index(["input", "metric"])
    return float(table.loc[(source, metric), column])


def verdict(opened, check):
    return opened.folder.table("validity.csv").set_index("id")["verdict"][check]


@pytest.fixture(scope="module")
def by_run(study, tmp_path_factory):
    return run_of(study, tmp_path_factory.mktemp("run") / "r", split=f"kfold:{RUNS},run")


@pytest.fixture(scope="module")
def left_out(study, tmp_path_factory):
    return run_of(study, tmp_path_factory.mktemp("loo") / "r", split=f"kfold:{N}", groups=None)


def test_runs_can_be_left_out(by_run):
    index = by_run.folder.table("decoded", "test", "brain", "index.csv")
    assert len(index) == N * RUNS
    assert sorted(index.groupby("fold").size()) == [N] * RUNS
    assert value(by_run, "brain", "two_way.pixels", "n") == N
    assert value(by_run, "brain", "two_way.pixels") > 0.9
    assert verdict(by_run, "S1") == "flag"
    failed = by_run.folder.table("validity.csv").query("verdict == 'fail'")
    assert not len(failed), list(failed["reason"])
    first = (by_run.folder.evaluation("test") / "conclusions.txt").read_text().splitlines()[0]
    assert "how well known pictures are told apart" in first
    assert not by_run.folder.evaluation("test").joinpath("samples.csv").exists()


def test_encoding_of_a_stimulus_in_several_folds_is_scored_on_its_mean(by_run):
    encoded = by_run.folder.table("encoded", "test", "index.csv")
    assert len(encoded) == N * RUNS
    assert value(by_run, "brain", "pearson.voxels") > 0.5


def test_a_control_of_single_items_left_out_is_not_the_brain(left_out):
    brain = left_out.folder.pixels("test", "brain")
    shuffled = left_out.folder.pixels("test", "shuffled")
    differ = np.abs(brain - shuffled).max(axis=(1, 2, 3)) > 1e-3
    assert differ.sum() > N // 2
    assert value(left_out, "shuffled", "two_way.pixels") < 0.75 < value(left_out, "brain", "two_way.pixels")
    assert verdict(left_out, "L12") == "pass"


def test_chance_of_single_items_left_out_is_below_one_half(left_out):
    chance = value(left_out, "brain", "two_way.pixels", "chance")
    assert chance == pytest.approx(value(left_out, "noise", "two_way.pixels"))
    assert chance < 0.5
    assert value(left_out, "brain", "two_way.pixels", "ci_high") <= 1


def test_groups_stay_together_in_folds_and_inner_folds(study, tmp_path):
    groups = str(study.parent / "groups.csv")
    opened = run_of(study, tmp_path / "r", split="kfold:4,groups", groups=groups)
    for number, fold in enumerate(opened.folds):
        assert len({opened.groups_of(fold.test)[i] for i in range(len(fold.test))}) == 1
        train, _ = opened.sides(number)
        inner = splits.inner_folds(train, 3, np.random.default_rng(0))
        pairs = pd.DataFrame({"group": train.table["group"], "fold": inner}).drop_duplicates()
        assert not pairs["group"].duplicated().any()


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        ("figure", ConfigError, "neither 'category' nor a CSV"),
        ("short.csv", SplitError, "are in no group, first 'p15'"),
        ("twice.csv", SplitError, "'p00' stands in two groups"),
        ("columns.csv", ConfigError, "needs the columns stimulus and group"),
    ],
)
def test_groups_that_cannot_be_read_are_named(study, tmp_path, monkeypatch, groups, error, words):
    monkeypatch.chdir(tmp_path)
    ids = [f"p{n:02d}" for n in range(N)]
    pd.DataFrame({"stimulus": ids[:-1], "group": ids[:-1]}).to_csv("short.csv", index=False)
    pd.DataFrame({"stimulus": [*ids, "p00"], "group": [*ids, "other"]}).to_csv("twice.csv", index=False)
    pd.DataFrame({"picture": ids, "group": ids}).to_csv("columns.csv", index=False)
    layers = [("test", {"data.name": str(study), "groups": groups, "split": "kfold:4"})]
    with pytest.raises(error, match=words):
        flow.fit(flow.configure("linear", layers)[0], tmp_path / "r")


def test_folds_of_groups_need_groups(study):
    opened = flow.Run(None, flow.configure("linear", [("test", {"data.name": str(study)})])[0])
    with pytest.raises(SplitError, match="name them by --groups"):
        splits.resolve(opened.dataset, opened.trials, "kfold:4,groups", seed=0)


def test_fewer_pixels_are_scored_at_the_size_of_the_data(study, tmp_path):
    coarse = run_of(study, tmp_path / "coarse", split="holdout:0.25", **{"recipe.pixels.size": [3, 3]})
    assert coarse.folder.pixels("test", "brain").shape[1:3] == (3, 3)
    assert coarse.folder.pixels("test", "seen").shape[1:3] == (12, 12)
    # Eight components are nearly all that nine pixels have: at their own size the truth would score about 1.
    assert value(coarse, "truth", "pixcorr") < 0.9
