"""Designs: each keeps the promise of the study it imitates."""

import hashlib

import numpy as np
import pytest

from phosphene.errors import ConfigError
from phosphene.lab import scenes
from phosphene.lab.designs import DESIGNS, UNSEEN_KINDS, cluster, design, schedule


def sides(plan, seed=0):
    described = scenes.describe_many(seed, plan.indices)
    train = [s for s, test in zip(described, plan.is_test, strict=True) if not test]
    return train, [s for s, test in zip(described, plan.is_test, strict=True) if test]


@pytest.mark.parametrize("name", DESIGNS)
def test_no_picture_stands_on_both_sides_or_twice(name):
    plan = design(name, n_train=150, n_test=40)
    assert (~plan.is_test).sum() == 150
    assert plan.is_test.sum() == 40
    pictures = scenes.render_many(0, plan.indices)
    assert len({hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures}) == 190


def test_nsd_shows_test_pictures_three_times_to_all_and_training_pictures_to_one():
    one, other = design("nsd", subject=1), design("nsd", subject=2)
    assert np.array_equal(one.indices[one.is_test], other.indices[other.is_test])
    assert not set(one.indices[~one.is_test]) & set(other.indices)
    assert set(one.shown[one.is_test]) == {3}
    assert set(one.shown[~one.is_test]) == {1}


def test_god_tests_kinds_that_training_never_shows():
    plan = design("god", n_train=300, n_test=40)
    train, test = sides(plan)
    assert plan.category_disjoint
    assert not {label for scene in train for label in scene.labels} & set(UNSEEN_KINDS)
    mains = [scene.main for scene in test]
    assert {mains.count(kind) for kind in UNSEEN_KINDS} == {10}


def test_bold5000_repeats_few_pictures_and_shows_all_to_everybody():
    one, other = (
        design("bold5000", n_train=200, n_test=20, subject=1),
        design("bold5000", n_train=200, n_test=20, subject=2),
    )
    assert np.array_equal(one.indices, other.indices)
    assert (one.shown > 1).mean() == pytest.approx(20 / 220)


@pytest.mark.parametrize("seed", [0, 3])
def test_clusters_are_whole_and_every_part_of_them_is_trained_on(seed):
    train, test = sides(design("clusters", n_train=600, n_test=60, seed=seed), seed)
    assert not {cluster(scene) for scene in train} & {cluster(scene) for scene in test}
    assert {cluster(scene)[0] for scene in train} == set(scenes.PLACES)
    assert {cluster(scene)[1] for scene in train} == set(scenes.FAMILIES.values())


def test_a_schedule_shows_everything_as_often_as_planned_and_repeats_in_other_runs():
    shown = np.repeat([1, 3], [600, 60])
    table = schedule(shown, np.random.default_rng(0), 50, 8)
    assert np.array_equal(np.bincount(table["row"]), shown)
    assert (table.groupby(["session", "run"]).size() <= 50).all()
    assert table.groupby("session")["run"].nunique().max() == 8
    repeated = table[table["row"] >= 600]
    assert (repeated.groupby("row")["repeat"].apply(list).map(lambda r: r == [0, 1, 2])).all()
    # 780 trials: repeats are at least 0.2 / 3 of 780 = 52 trials apart on average; hardly any pair shares a run of 50.
    shared = repeated.duplicated(["row", "session", "run"]).mean()
    assert shared < 0.03


def test_a_design_that_does_not_exist_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'clusters'"):
        design("cluster")
    with pytest.raises(ConfigError, match="n_test must be a whole number from 1 to 200,000; got 0"):
        design("nsd", n_test=0)


@pytest.mark.parametrize(
    ("option", "value"),
    [("n_train", 200_001), ("n_train", 20.5), ("subject", 0), ("subject", 1000), ("seed", -1), ("test_repeats", 0)],
)
def test_numbers_that_would_mix_people_or_sides_are_refused(option, value):
    with pytest.raises(ConfigError, match=f"{option} must be a whole number .*; got {value}"):
        design("nsd", **{option: value})


def test_the_largest_studies_of_all_people_share_no_training_picture():
    kept = {"n_train": 200_000, "n_test": 10}
    ranges = [design("nsd", subject=person, **kept).indices for person in (1, 2, 8)]
    assert len(np.unique(np.concatenate([numbers[:200_000] for numbers in ranges]))) == 600_000
    assert all(numbers[:200_000].min() > 200_000 for numbers in ranges)  # where tests of 200,000 would end


def test_runs_and_sessions_that_hold_nothing_are_refused():
    for name, per in (("trials_per_run", (0, 8)), ("runs_per_session", (50, 0))):
        with pytest.raises(ConfigError, match=f"{name} must be a whole number at least 1; got 0"):
            schedule(np.ones(5, int), np.random.default_rng(0), *per)
