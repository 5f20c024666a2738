"""Checks B2, B4 to B9, M6, M10 and M11: each must catch a planted fault, and stay quiet where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from phosphene.errors import DataError
from phosphene.metrics import METRICS, similarity
from phosphene.metrics.golden import changed_metrics, golden_reference, golden_values
from phosphene.validity import (
    DecodingTarget,
    Evidence,
    Samples,
    bottleneck_curve,
    irreducible_shares,
    participation_ratio,
    repeat_correlation,
    run_checks,
    why_not_comparable,
)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def verdict(check_id, **evidence):
    return run_checks(Evidence(**evidence), only=[check_id])[0]


# -- B2: repeats -------------------------------------------------------------------------------------------------------


def trials(rng, *, noise=2.0, n=40, repeats=3, voxels=60):
    """Each picture has a response of its own; its showings are spread over four sessions, each with a level of its own."""
    shown = np.tile(np.arange(n), repeats)
    session = rng.integers(0, 4, len(shown))
    betas = rng.standard_normal((n, voxels))[shown] + noise * rng.standard_normal((len(shown), voxels))
    betas += 3 * rng.standard_normal((4, voxels))[session]
    table = pd.DataFrame({"stimulus": shown.astype(str), "session": session, "run": 0})
    test = shown >= n // 2
    return {"trials": table, "responses": betas, "sides": [(np.flatnonzero(~test), np.flatnonzero(test))]}


def test_b2_passes_weak_but_real_repeats_and_catches_dealt_labels(rng):
    given = trials(rng)
    assert verdict("B2", **given).verdict == "pass"
    rows = given["sides"][0][1]
    table = given["trials"].copy()
    table.loc[rows, "stimulus"] = rng.permutation(table.loc[rows, "stimulus"].to_numpy())
    found = verdict("B2", **{**given, "trials": table})
    assert found.verdict == "fail"
    assert "In test trials, labels are wrong" in found.reason
    once = given["trials"].assign(stimulus=[str(i) for i in range(len(table))])
    assert verdict("B2", **{**given, "trials": once}).verdict == "not applicable"


@pytest.mark.parametrize(("n_train", "expected"), [(60, "fail"), (6, "flag")])
def test_b2_fails_wrong_training_labels_only_where_right_ones_would_have_shown(rng, n_train, expected):
    test = np.repeat(np.arange(60), 3)
    train = 100 + rng.permutation(np.repeat(np.arange(n_train), 2))
    signal = rng.standard_normal((60, 60))
    betas = np.concatenate([rng.standard_normal((len(train), 60)), signal[test]]) + 2.5 * rng.standard_normal(
        (len(train) + len(test), 60)
    )
    table = pd.DataFrame({"stimulus": [*train, *test], "session": 1, "run": 1})
    rows = np.arange(len(table))
    found = verdict("B2", trials=table, sides=[(rows[: len(train)], rows[len(train) :])], responses=betas)
    assert found.verdict == expected, found.reason
    assert "training trials" in found.reason


def test_b2_takes_no_session_level_for_agreement(rng):
    """Pure noise, all repeats of a picture in one session, sessions far apart: a plain correlation would be 0.9."""
    shown = np.repeat(np.arange(40), 3)
    session = shown // 10
    betas = 3 * rng.standard_normal((4, 50))[session] + rng.standard_normal((120, 50))
    assert np.mean([np.corrcoef(betas[shown == s])[0, 1] for s in range(40)]) > 0.8
    found, p, _, n = repeat_correlation(betas, shown, session, rng)
    assert n == 40
    assert abs(found) < 0.05
    assert p > 0.02


def test_b2_correlation_is_the_share_of_signal_variance(rng):
    shown = np.tile(np.arange(200), 3)
    betas = rng.standard_normal((200, 300))[shown] + 2 * rng.standard_normal((600, 300))
    found, p, bar, _ = repeat_correlation(betas, shown, np.zeros(600), rng)
    assert found == pytest.approx(1 / (1 + 4), abs=0.01)  # 600 pairs of 300 voxels: standard error near 0.003
    assert bar < 0.02
    assert p < 0.01


# -- B4: ceiling -------------------------------------------------------------------------------------------------------


def scores(**inputs):
    rows = [
        {"split": "test", "input": name, "metric": metric, "value": v, "ci_low": v - 0.05, "ci_high": v + 0.05,
         "chance": 0.5, "p": 0.0001 if v > 0.6 else 0.4, "n": 60, "setting": "strict"}
        for name, values in inputs.items() for metric, v in values.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_b4_measures_the_brain_against_the_true_features():
    brain = {"two_way.pixels": 0.7, "two_way.pictures.clip_lab": 0.75}
    good = verdict("B4", scores=scores(brain=brain, truth={"two_way.pixels": 0.9, "two_way.pictures.clip_lab": 1.0}))
    assert good.verdict == "pass"
    assert good.value == pytest.approx(0.5)
    deaf = verdict("B4", scores=scores(brain=brain, truth={"two_way.pixels": 0.5, "two_way.pictures.clip_lab": 0.52}))
    assert deaf.verdict == "fail"
    assert "does not draw what it is told" in deaf.reason
    above = {"two_way.pixels": 0.6, "two_way.pictures.clip_lab": 0.9}
    beyond = verdict("B4", scores=scores(brain={**brain, "two_way.pixels": 0.9}, truth=above))
    assert beyond.verdict == "flag"
    assert "above that in two_way.pixels" in beyond.reason
    assert verdict("B4", scores=scores(brain=brain)).verdict == "not applicable"


def test_b4_fails_a_generator_that_cannot_draw_the_pictures():
    brain = {"two_way.pixels": 0.91, "pixcorr": 0.6}
    found = verdict("B4", scores=scores(brain=brain, truth={"two_way.pixels": 0.8, "pixcorr": 0.34}))
    assert found.verdict == "fail"
    assert "unsuited to these pictures" in found.reason
    assert "137 %" in found.reason
    fine = verdict(
        "B4",
        scores=scores(brain={"two_way.pixels": 0.75, "pixcorr": 0.3}, truth={"two_way.pixels": 0.8, "pixcorr": 0.34}),
    )
    assert fine.verdict != "fail"


# -- targets -----------------------------------------------------------------------------------------------------------


def brain_and_target(rng, *, n_train=200, n_test=60, k=12, d=40, voxels=80, noise=1.0, dimensions=None):
    """Features of k independent causes, in four kinds; responses are linear in the first `dimensions` causes."""
    n = n_train + n_test
    kind = np.arange(n) % 4
    causes = rng.standard_normal((n, k)) + 2.5 * rng.standard_normal((4, k))[kind]
    features = causes @ rng.standard_normal((k, d))
    seen = causes[:, : dimensions or k]
    betas = seen @ rng.standard_normal((seen.shape[1], voxels)) + noise * rng.standard_normal((n, voxels))
    a, b = slice(n_train), slice(n_train, n)
    weights = np.linalg.lstsq(betas[a], features[a] - features[a].mean(0), rcond=None)[0]
    predicted = betas[b] @ weights + features[a].mean(0)
    labels = np.array([f"kind {c}" for c in kind])
    return DecodingTarget(
        "latent", features[a], features[b], predicted, labels=labels[a], test_labels=labels[b],
        betas=betas[a], test_betas=betas[b],
    )  # fmt: skip


def test_a_target_refuses_sides_that_do_not_match():
    with pytest.raises(DataError, match="as many decoded as true"):
        DecodingTarget("x", np.zeros((4, 2)), np.zeros((3, 2)), np.zeros((2, 2)))
    with pytest.raises(DataError, match="one width"):
        DecodingTarget("x", np.zeros((4, 2)), np.zeros((3, 5)), np.zeros((3, 5)))


def test_b5_finds_the_number_of_dimensions_that_a_brain_carries(rng):
    rich = verdict("B5", targets=[brain_and_target(rng)])
    assert rich.verdict == "pass"
    assert rich.value in (5, 10, 20)  # twelve causes, four kinds of which two or three say much
    poor = verdict("B5", targets=[brain_and_target(rng, dimensions=1, noise=0.2)])
    assert poor.verdict == "flag"
    assert poor.value == 1
    assert "not the recipe itself" in poor.reason
    mute = replace(
        brain_and_target(rng), betas=rng.standard_normal((200, 80)), test_betas=rng.standard_normal((60, 80))
    )
    assert verdict("B5", targets=[mute]).verdict == "not applicable"
    assert verdict("B5", targets=[replace(mute, betas=None)]).verdict == "not applicable"


def test_b5_with_all_dimensions_is_the_ridge_of_scikit_learn(rng):
    from sklearn.linear_model import Ridge

    target = brain_and_target(rng, n_train=90, voxels=30)
    table = bottleneck_curve(target)
    mean, scale = target.betas.mean(axis=0), target.betas.std(axis=0)
    x, new = (target.betas - mean) / scale, (target.test_betas - mean) / scale
    y, true, _ = target.centred()
    # Its penalty is chosen among 17; one of these must give the same score.
    penalties = np.logspace(-4, 4, 17) * np.linalg.eigvalsh(x.T @ x).mean()
    fits = [Ridge(alpha=a, fit_intercept=False).fit(x, y).predict(new) for a in penalties]
    from phosphene.metrics import two_way

    expected = [two_way(similarity(f, true)).mean() for f in fits]
    assert min(abs(table["two_way"].iloc[-1] - e) for e in expected) < 1e-9
    assert table["dimensions"].tolist() == [1, 2, 5, 10, 20, 30]


def test_b6_shares_are_least_squares_residuals(rng):
    for n, d in ((12, 30), (60, 20)):
        train, test = rng.standard_normal((n, d)), rng.standard_normal((9, d))
        x = (train - train.mean(axis=0)) / train.std(axis=0)
        h = (test - train.mean(axis=0)) / train.std(axis=0)
        best = np.linalg.lstsq(x.T, h.T, rcond=None)[0]
        expected = np.square(h.T - x.T @ best).sum(axis=0) / np.square(h).sum(axis=1)
        assert irreducible_shares(train, test) == pytest.approx(expected, abs=1e-8)
    assert irreducible_shares(np.zeros((5, 3)), np.ones((1, 3))).tolist() == [1.0]


def test_b6_catches_targets_out_of_reach(rng):
    good = brain_and_target(rng)
    assert verdict("B6", targets=[good]).verdict == "pass"
    wide = DecodingTarget("wide", *(rng.standard_normal((n, 500)) for n in (20, 30, 30)))
    found = verdict("B6", targets=[good, wide])
    assert found.verdict == "flag"
    assert found.value == pytest.approx(1 - 19 / 500, abs=0.02)  # independent features: rank over dimensions
    assert "wide: 96" in found.reason
    # A sample of many training items is no ground to say so: all of them may reach everything.
    assert verdict("B6", targets=[replace(wide, n_training=5000)]).verdict == "pass"


def test_b7_catches_predictions_without_variety(rng):
    good = brain_and_target(rng)
    n, mean = len(good.true), good.train.mean(axis=0)
    assert verdict("B7", targets=[good]).verdict == "pass"
    line = mean + rng.standard_normal((n, 1)) * good.train.std(axis=0)
    same = np.tile(good.train[3], (n, 1)) + 0.01 * rng.standard_normal(good.true.shape)
    faint = mean + 1e-3 * rng.standard_normal(good.true.shape)  # all dimensions, but nothing in them
    for planted in (line, same, faint, np.tile(mean, (n, 1))):
        found = verdict("B7", targets=[good, replace(good, space="bad", predicted=planted)])
        assert found.verdict == "flag"
        assert "collapsed in bad" in found.reason
    holes = np.full_like(good.predicted, np.nan)
    assert verdict("B7", targets=[replace(good, predicted=holes)]).verdict == "not applicable"


def test_participation_ratio_counts_equal_directions(rng):
    x = np.linalg.qr(rng.standard_normal((50, 6)) - 0)[0]
    x = np.concatenate([x, -x])  # centred, six orthogonal directions of one length
    assert participation_ratio(x) == pytest.approx(6)
    assert participation_ratio(np.ones((4, 3))) == 0


def test_b8_catches_a_decoder_that_only_knows_the_category(rng):
    good = brain_and_target(rng)
    passed = verdict("B8", targets=[good])
    assert passed.verdict == "pass", passed.reason
    means = {c: good.train[good.labels == c].mean(axis=0) for c in set(good.labels)}
    of_class = np.stack([means[c] for c in good.test_labels])
    found = verdict("B8", targets=[replace(good, predicted=of_class)])
    assert found.verdict == "flag"
    assert "not able to tell items inside" in found.reason
    drawn = np.stack([good.train[rng.choice(np.flatnonzero(good.labels == c))] for c in good.test_labels])
    found = verdict("B8", targets=[replace(good, predicted=drawn)])
    assert found.verdict == "flag"
    assert "not above drawing any training item" in found.reason
    # Named by what is nearest: wrong names follow the look of an item, so some of a category are told apart.
    kinds = np.stack(list(means.values()))
    named = kinds[similarity(good.predicted, kinds).argmax(axis=1)]
    found = verdict("B8", targets=[replace(good, predicted=named)])
    assert found.verdict == "flag"
    assert f"only {len(np.unique(named, axis=0))} different items for 60" in found.reason
    assert verdict("B8", targets=[brain_and_target(rng, n_test=10)]).verdict == "not applicable"


def test_b9_says_not_tested_unless_test_stimuli_are_of_another_kind(rng):
    true = rng.standard_normal((40, 30))
    sees = similarity(true + rng.standard_normal(true.shape), true)
    same = verdict("B9", other_kind="", similarity=sees)
    assert same.verdict == "not tested"
    assert "not part of this version" not in same.reason
    assert "clusters of pictures" in verdict("B9", other_kind="", held_out="clusters of pictures").reason
    assert verdict("B9", other_kind="synthetic stimuli", similarity=sees).verdict == "pass"
    blind = similarity(rng.standard_normal(true.shape), true)
    assert verdict("B9", other_kind="synthetic stimuli", similarity=blind).verdict == "flag"


# -- M: how it is scored -----------------------------------------------------------------------------------------------


def samples(rng, *, own=0.3, n=40, count=3):
    """Pictures drawn for a trial share `1 - own` of their variance, which is what the brain says of the truth."""
    true = rng.random((n, 12, 12, 3), dtype=np.float32)
    drawn = np.sqrt(1 - own) * true[:, None] + np.sqrt(own) * rng.random((n, count, 12, 12, 3), dtype=np.float32)
    return Samples(drawn, drawn[:, 0], true)


def test_m6_tells_noise_between_samples_from_a_generator_that_ignores_the_brain(rng):
    found = verdict("M6", samples=samples(rng), is_random=True)
    assert found.verdict == "pass"
    assert found.value == pytest.approx(0.3, abs=0.02)  # 40 x 432 independent pixels
    assert verdict("M6", samples=samples(rng, own=0.8), is_random=True).verdict == "flag"
    deaf = verdict("M6", samples=samples(rng, own=1.0), is_random=True)
    assert deaf.verdict == "fail"
    assert "does not follow the brain" in deaf.reason
    two = verdict("M6", samples=samples(rng, count=2), is_random=True)
    assert (two.verdict, "3 samples or more" in two.reason) == ("flag", True)
    one = samples(rng, count=1)
    assert verdict("M6", samples=one, is_random=True).verdict == "flag"
    assert verdict("M6", samples=one, is_random=False).verdict == "not applicable"


@pytest.mark.numeric
def test_m10_passes_as_installed_and_names_a_metric_that_was_changed(monkeypatch):
    now = golden_values()
    assert verdict("M10", golden=now).verdict == "pass"
    metric = METRICS["ssim.2d"]

    def squared(e, name, space):
        found = metric.compute(e, name, space)
        return replace(found, value=found.value**2)

    monkeypatch.setitem(METRICS, "ssim.2d", replace(metric, compute=squared))
    found = verdict("M10", golden=golden_values())
    assert (found.verdict, found.value) == ("fail", 1)
    assert "ssim.2d" in found.reason
    assert list(changed_metrics({k: v for k, v in now.items() if k != "mse"})) == ["mse"]


def test_every_metric_has_a_golden_value_that_is_at_no_end():
    from phosphene.metrics import metric_of

    kept = golden_reference()
    # A gallery of 300 needs 300 pictures; it is the same function as that of all.
    expected = {m.name for m in METRICS.values() if not m.name.startswith("retrieval300")}
    assert {metric_of(name).name for name in kept} == expected
    assert not [name for name, value in kept.items() if value in (0.0, 1.0, 0.5)]


def test_m11_labels_fid_of_few_pictures_and_offers_kid():
    table = scores(brain={"fid.pictures.inception64": 3.0, "kid.pictures.inception64": 0.1})
    found = verdict("M11", scores=table, n_features={"inception64": 64})
    assert found.verdict == "flag"
    assert "60 pictures, 64 features" in found.reason
    assert "kid.pictures.inception64 0.1 [0.05, 0.15]" in found.reason
    many = table.assign(n=5000)
    assert verdict("M11", scores=many, n_features={"inception64": 64}).verdict == "flag"
    assert verdict("M11", scores=many, n_features={"inception64": 2048}).verdict == "pass"
    assert verdict("M11", scores=scores(brain={"mse": 0.1})).verdict == "not applicable"
    assert why_not_comparable(2048, 2048) == why_not_comparable(3000, None) == ""
