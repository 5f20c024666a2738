"""Splits: complete, disjoint, reproducible, and refused when they cannot be told apart."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from phosphene.data import inner_folds, splits, write_dataset
from phosphene.errors import ConfigError, PhospheneWarning, SplitError
from phosphene.reporting.describe import check
from phosphene.types import Dataset, Split, Stimuli, Trials

IDS = [f"p{i:02d}" for i in range(20)]


def make_trials() -> Trials:
    """Twenty stimuli shown three times each, in a shuffled order, over two sessions of three runs."""
    rng = np.random.default_rng(0)
    shown = rng.permutation(np.repeat(IDS, 3))
    table = pd.DataFrame({"stimulus": shown, "session": np.arange(60) // 30, "run": np.arange(60) // 10 % 3})
    return Trials(rng.standard_normal((60, 4)).astype("f4"), table, subject="s")


@pytest.fixture
def trials() -> Trials:
    return make_trials()


def make_dataset(trials) -> Dataset:
    category = np.array(["animal"] * 11 + ["tool"] * 6 + ["food"] * 3, dtype=object)
    images = np.random.default_rng(1).integers(0, 256, (20, 3, 3, 1), dtype=np.uint8)
    stimuli = Stimuli(np.array(IDS, dtype=object), images, category=category)
    named = Split("own", tuple(IDS[:15]), tuple(IDS[15:]))
    return Dataset("set", stimuli, {"s": trials}, {"own": named})


@pytest.fixture
def dataset(trials) -> Dataset:
    return make_dataset(trials)


@pytest.mark.parametrize("spec", ["kfold:2", "kfold:7", "kfold:20", "kfold:5,stratified", "kfold:3,category"])
def test_every_stimulus_is_tested_once_and_never_trained_on_in_that_fold(dataset, trials, spec):
    folds = splits.resolve(dataset, trials, spec, 0)
    assert sorted(i for f in folds for i in f.test) == IDS
    for fold in folds:
        assert sorted(fold.train + fold.test) == IDS
        train, test = fold.apply(trials)
        assert len(train) + len(test) == len(trials)
        assert not set(train.stimuli) & set(test.stimuli)


def test_folds_differ_by_at_most_one_stimulus(dataset, trials):
    for spec in ("kfold:7", "kfold:7,stratified"):
        sizes = [len(f.test) for f in splits.resolve(dataset, trials, spec, 3)]
        assert max(sizes) - min(sizes) <= 1


def test_stratified_folds_keep_the_shares_of_the_categories(dataset, trials):
    category = dict(zip(IDS, dataset.stimuli.category, strict=True))
    folds = splits.resolve(dataset, trials, "kfold:3,stratified", 0)
    for name in ("animal", "tool", "food"):
        counts = [sum(category[i] == name for i in f.test) for f in folds]
        assert max(counts) - min(counts) <= 1


def test_folds_by_category_are_category_disjoint_and_others_are_not(dataset, trials):
    assert all(f.category_disjoint for f in splits.resolve(dataset, trials, "kfold:3,category", 0))
    assert not any(f.category_disjoint for f in splits.resolve(dataset, trials, "kfold:2", 0))
    without = replace(dataset, stimuli=replace(dataset.stimuli, category=None))
    assert splits.resolve(without, trials, "kfold:2", 0)[0].category_disjoint is None


def test_folds_depend_on_the_seed_and_on_no_row_order(dataset, trials):
    def fold(seed, t=trials):
        return splits.digest(splits.resolve(dataset, t, "kfold:5", seed))

    assert fold(0) == fold(0)
    assert fold(0) != fold(1)
    assert fold(0) == fold(0, trials.take(np.arange(60)[::-1]))


def test_folds_by_run_keep_runs_whole(dataset, trials):
    folds = splits.resolve(dataset, trials, "kfold:6,run", 0)
    assert all(f.unit == "trial" for f in folds)
    runs = trials.table.set_index(trials.table["trial"].astype(str))
    for fold in folds:
        assert runs.loc[list(fold.test), ["session", "run"]].drop_duplicates().shape[0] == 1
    assert len(splits.resolve(dataset, trials, "kfold:2,session", 0)) == 2


@pytest.mark.parametrize(
    ("spec", "n"), [("holdout:0.1", 2), ("holdout:0.25", 5), ("holdout:0.3,stratified", 3 + 2 + 1)]
)
def test_holdout_tests_the_share_asked_for(dataset, trials, spec, n):
    (split,) = splits.resolve(dataset, trials, spec, 0)
    assert len(split.test) == n
    assert sorted(split.train + split.test) == IDS


def test_a_name_gives_the_data_sets_own_split_and_none_the_first(dataset, trials):
    assert splits.resolve(dataset, trials, "own", 0) == [dataset.splits["own"]]
    assert splits.resolve(dataset, trials, None, 0) == [dataset.splits["own"]]
    with pytest.raises(SplitError, match="Did you mean 'own'"):
        splits.resolve(dataset, trials, "won", 0)


@pytest.mark.parametrize("spec", ["kfold:x", "kfold:", "holdout:2", "holdout:0", "kfold:3,fold", "shared:7"])
def test_a_text_that_means_nothing_is_refused(dataset, trials, spec):
    with pytest.raises(ConfigError):
        splits.resolve(dataset, trials, spec, 0)


@pytest.mark.parametrize("spec", ["kfold:1", "kfold:0", "kfold:-3", "kfold:21", "kfold:4,category", "kfold:7,run"])
def test_an_impossible_number_of_folds_is_refused_with_what_is_possible(dataset, trials, spec):
    with pytest.raises(SplitError, match="are possible"):
        splits.resolve(dataset, trials, spec, 0)


@pytest.mark.fault(22)
def test_a_share_too_small_leaves_nothing_to_test(dataset, trials):
    with pytest.raises(SplitError, match="leaves 0 of 20"):
        splits.resolve(dataset, trials, "holdout:0.01", 0)


@pytest.mark.fault(23)
def test_a_share_too_large_leaves_nothing_to_train(dataset, trials):
    with pytest.raises(SplitError, match="leaves 20 of 20"):
        splits.resolve(dataset, trials, "holdout:0.99", 0)


@pytest.mark.fault(33)
def test_one_category_cannot_be_split_by_category_but_by_stimulus(dataset, trials):
    one = replace(dataset, stimuli=replace(dataset.stimuli, category=np.array(["x"] * 20, dtype=object)))
    with pytest.raises(SplitError, match="1 categories"):
        splits.resolve(one, trials, "kfold:2,category", 0)
    assert len(splits.resolve(one, trials, "kfold:2,stratified", 0)) == 2


# -- files -------------------------------------------------------------------------------------------------------------


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_the_same_folds_can_be_written_as_yaml_json_and_csv(dataset, trials, tmp_path):
    folds = splits.resolve(dataset, trials, "kfold:4", 0)
    lists = {"folds": [{"test": list(f.test)} for f in folds]}
    table = "stimulus,fold\n" + "".join(f"{i},{k}\n" for k, f in enumerate(folds) for i in f.test)
    yaml = "folds:\n" + "".join(f"  - test: [{', '.join(f.test)}]\n" for f in folds)
    for name, content in (("a.json", lists), ("a.csv", table), ("a.yaml", yaml)):
        got = splits.resolve(dataset, trials, write(tmp_path / name, content), 0)
        assert splits.digest(got) == splits.digest(folds)
        assert got[1].name == f"{name}/2"


def test_a_file_may_name_trials(dataset, trials, tmp_path):
    lists = {"train": list(range(40)), "test": list(range(40, 60))}  # whole numbers that are no stimulus ids
    (split,) = splits.resolve(dataset, trials, write(tmp_path / "s.json", lists), 0)
    assert split.unit == "trial"
    assert [len(t) for t in split.apply(trials)] == [40, 20]
    table = "trial,side\n" + "".join(f"{i},{'test' if i >= 40 else 'train'}\n" for i in range(60))
    (same,) = splits.resolve(dataset, trials, write(tmp_path / "s.csv", table), 0)
    assert same.digest == split.digest


@pytest.mark.fault(22)
@pytest.mark.fault(23)
@pytest.mark.parametrize("side", ["train", "test"])
def test_an_empty_side_in_a_file_is_refused(dataset, trials, tmp_path, side):
    lists = {"train": IDS[:10], "test": IDS[10:], side: []}
    with pytest.raises(
        SplitError, match=f"the {'training' if side == 'train' else 'test'} set of split 's.json' is empty"
    ):
        splits.resolve(dataset, trials, write(tmp_path / "s.json", lists), 0)


@pytest.mark.fault(24)
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_an_id_on_both_sides_is_refused_by_name(dataset, trials, tmp_path, kind):
    content = {"train": IDS[:11], "test": IDS[10:]}
    if kind == "csv":
        content = "stimulus,side\n" + "".join(f"{i},{s}\n" for s, ids in content.items() for i in ids)
    with pytest.raises(SplitError, match=r"p10.*both sides|both sides, first 'p10'"):
        splits.resolve(dataset, trials, write(tmp_path / f"s.{kind}", content), 0)


@pytest.mark.fault(25)
def test_one_picture_under_two_ids_across_a_split_is_found(dataset, trials, tmp_path):
    images = dataset.stimuli.images.copy()
    images[17] = images[2]
    same = replace(dataset, stimuli=replace(dataset.stimuli, images=images))
    assert splits.same_pictures(same.stimuli) == [("p02", "p17")]
    assert splits.same_picture_across(same.splits["own"], trials, same.stimuli) == [("p02", "p17")]
    assert splits.same_picture_across(dataset.splits["own"], trials, dataset.stimuli) == []
    findings = check(write_dataset(same, tmp_path / "set"))
    assert {f.what for f in findings if f.level == "problem"} == {"split own", "same picture"}


@pytest.mark.fault(26)
def test_ids_that_are_not_in_the_store_are_named(dataset, trials, tmp_path):
    lists = {"train": IDS[:10], "test": [*IDS[10:], "p99"]}
    with pytest.raises(SplitError, match=r"1 of 11 test ids .*'p99'.*p00"):
        splits.resolve(dataset, trials, write(tmp_path / "s.json", lists), 0)


@pytest.mark.fault(26)
def test_trials_of_stimuli_outside_the_store_are_refused(dataset, trials):
    small = replace(dataset, stimuli=dataset.stimuli.select(IDS[:18]), splits={})
    with pytest.raises(SplitError, match="first 'p18'"):
        splits.resolve(small, trials, "kfold:2", 0)


def test_a_subject_that_saw_part_of_a_split_file_is_warned_about(dataset, trials, tmp_path):
    some = trials.select(stimuli=IDS[:17])
    file = write(tmp_path / "s.json", {"train": IDS[:15], "test": IDS[15:]})
    with pytest.warns(PhospheneWarning, match="2 of the 5 test ids"):
        splits.resolve(dataset, some, file, 0)
    assert splits.resolve(dataset, some, "own", 0) == [dataset.splits["own"]]
    with pytest.raises(SplitError, match="no trial in the test set"):
        splits.resolve(dataset, trials.select(stimuli=IDS[:15]), "own", 0)


@pytest.mark.fault(56)
def test_a_key_that_stands_twice_is_refused(dataset, trials, tmp_path):
    for name, text in (("s.json", '{"test": ["p01"], "test": ["p02"]}'), ("s.yaml", "test: [p01]\ntest: [p02]\n")):
        with pytest.raises(ConfigError, match="twice"):
            splits.resolve(dataset, trials, write(tmp_path / name, text), 0)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("s.json", "{broken", "line 1"),
        ("s.json", "[1, 2]", "holds list"),
        ("s.yaml", "tset: [p01]", "Did you mean 'test'"),
        ("s.json", '{"folds": []}', "must be a list of entries"),
        ("s.json", '{"train": ["p01"]}', "needs a list 'test'"),
        ("s.json", '{"test": "p01"}', "must be a list"),
        ("s.csv", "a,b\n1,2\n", "needs one column"),
        ("s.csv", "stimulus,side\np01,left\n", "'left'"),
        ("s.csv", "stimulus,side\np01,train\n,test\n", "line 3"),
        ("none.csv", None, "is not there"),
    ],
)
def test_a_broken_split_file_says_what_is_wrong_with_it(dataset, trials, tmp_path, name, text, words):
    path = str(tmp_path / name) if text is None else write(tmp_path / name, text)
    with pytest.raises(ConfigError, match=words):
        splits.resolve(dataset, trials, path, 0)


# -- inner folds -------------------------------------------------------------------------------------------------------


def test_inner_folds_keep_all_repeats_together_and_are_even(trials):
    fold = inner_folds(trials, 6, np.random.default_rng(0))
    by_stimulus = pd.Series(fold).groupby(trials.stimuli).nunique()
    assert (by_stimulus == 1).all()
    assert sorted(np.unique(fold)) == list(range(6))
    sizes = np.bincount(pd.Series(fold).groupby(trials.stimuli).first())
    assert sizes.max() - sizes.min() <= 1


def test_inner_folds_need_two_stimuli_and_use_fewer_folds_where_there_are_fewer(trials):
    three = trials.select(stimuli=IDS[:3])
    assert set(inner_folds(three, 10, np.random.default_rng(0))) == {0, 1, 2}
    with pytest.raises(SplitError, match="1 stimuli"):
        inner_folds(trials.select(stimuli=IDS[:1]), 5, np.random.default_rng(0))
