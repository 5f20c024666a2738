"""The table of metrics: names, columns, degenerate inputs, repeats, controls."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from phosphene.errors import ConfigError, DataError
from phosphene.evaluate import COLUMNS, METRICS, Decoded, Encoded, metric_of, mse, pixcorr, score, ssim_2d, two_way
from phosphene.evaluate.controls import paired_differences
from phosphene.evaluate.registry import _SSIM_BUDGET

FAST = {"n_draws": 200, "n_permutations": 500}


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def decoded(rng, n=12, noise=0.5, side=14, channels=1, **more):
    true = rng.random((n, side, side, channels), dtype=np.float32)
    ours = (1 - noise) * true + noise * rng.random(true.shape, dtype=np.float32)
    return Decoded(np.arange(n), ours, true, **more)


def encoded(rng, n=20, voxels=30, ceiling=True):
    measured = rng.standard_normal((n, voxels))
    predicted = measured + rng.standard_normal((n, voxels))
    return Encoded(np.arange(n), predicted, measured, rng.uniform(0.2, 0.9, voxels) if ceiling else None)


def everything(rng, n=60):
    latents = rng.standard_normal((n, 8))
    return decoded(
        rng, n, labels=np.arange(n) % 3, latents={"clip": (latents + rng.standard_normal((n, 8)), latents)},
        class_scores={"net": (rng.random((n, 80)), rng.integers(0, 80, n))},
    )  # fmt: skip


def test_every_entry_of_the_table_is_reached_and_complete(rng):
    class Reader:
        def predict(self, pictures):
            return np.arange(len(pictures)) % 3

    base = everything(rng, 320)
    whole = Decoded(**{**vars(base), "classifier": Reader()})
    found = score(whole, encoded(rng), n_draws=100, n_permutations=50)
    assert found.skipped == []
    reached = {metric_of(s.metric).name for s in found.scores}
    assert reached == set(METRICS)
    for s in found.scores:
        assert np.isfinite([s.value, s.ci_low, s.ci_high, s.chance, s.p]).all(), s.metric
        assert s.ci_low <= s.ci_high
        assert 0 < s.p <= 1
        assert s.n > 1
        assert len(s.per_item) == len(s.items)


def test_rows_have_the_columns_of_scores_csv(rng):
    table = score(decoded(rng), **FAST).table("test", "brain", "relax")
    assert tuple(table.columns) == COLUMNS
    assert set(table["input"]) == {"brain"}
    assert set(table["setting"]) == {"relax"}
    assert {"pixcorr", "mse", "ssim.2d", "ssim.columns", "two_way.pixels"} <= set(table["metric"])
    assert not table["metric"].duplicated().any()


def test_values_are_those_of_the_plain_functions(rng):
    d = decoded(rng, channels=3)
    found = score(d, **FAST)
    assert found["pixcorr"].value == pytest.approx(pixcorr(d.images, d.true_images).mean())
    assert found["mse"].value == pytest.approx(mse(d.images, d.true_images).mean())
    assert found["ssim.2d"].value == pytest.approx(ssim_2d(d.images, d.true_images).mean())
    assert found["two_way.pixels"].value == pytest.approx(1.0)
    assert found["retrieval_all.pixels"].chance == pytest.approx(1 / 12)
    for s in found.scores:
        assert s.value == pytest.approx(np.nanmean(s.per_item))
        assert s.ci_low - 1e-9 <= s.value <= s.ci_high + 1e-9


def test_chance_of_picture_scores_is_what_wrong_pairs_reach(rng):
    true = np.clip(0.5 + 0.2 * rng.standard_normal((1, 14, 14, 1)) + 0.02 * rng.standard_normal((30, 14, 14, 1)), 0, 1)
    prior_only = Decoded(np.arange(30), np.repeat(true.mean(axis=0, keepdims=True), 30, axis=0), true)
    found = score(prior_only, metrics=["pixcorr", "mse", "ssim.2d", "two_way.pixels"], **FAST)
    assert found["pixcorr"].value > 0.9  # a strong prior alone looks good
    for s in found.scores:
        assert s.value == pytest.approx(s.chance, abs=1e-6)  # until it stands beside chance
        assert s.p > 0.5


def test_metrics_draw_from_streams_of_their_own(rng):
    d = decoded(rng, noise=0.9)
    alone = score(d, metrics=["two_way.pixels"], seed=4, **FAST)["two_way.pixels"]
    together = score(d, seed=4, **FAST)["two_way.pixels"]
    assert (alone.ci_low, alone.ci_high, alone.p) == (together.ci_low, together.ci_high, together.p)


@pytest.mark.fault(34)
def test_too_few_items_skip_with_a_reason_and_never_score_zero(rng):
    found = score(decoded(rng, n=12), **FAST)
    reasons = {s.metric: s.reason for s in found.skipped}
    assert reasons["nway50_top1.pixels"] == "it needs 50 test stimuli but there are 12"
    assert "retrieval300.pixels" in reasons
    assert not {s.metric for s in found.scores} & set(reasons)


@pytest.mark.fault(123)
def test_constant_and_missing_predictions_count_as_chance_and_are_listed(rng):
    d = decoded(rng, n=12)
    images = d.images.copy()
    images[2], images[7] = 0.25, np.nan
    found = score(Decoded(d.ids, images, d.true_images), **FAST)
    for name in ("pixcorr", "mse", "two_way.pixels", "nway10_top1.pixels"):
        assert found[name].n == 12  # nothing is dropped
        assert np.isfinite(found[name].value)
    assert "2, 7" in found["two_way.pixels"].note
    assert "2 constant or non-finite items counted as r = 0: 2, 7" in found["pixcorr"].note
    np.testing.assert_array_equal(found["two_way.pixels"].per_item[[2, 7]], 0.5)
    np.testing.assert_allclose(found["nway10_top1.pixels"].per_item[[2, 7]], 0.1)


@pytest.mark.fault(123)
def test_wholly_constant_predictions_score_chance_everywhere(rng):
    d = everything(rng)
    flat = Decoded(
        d.ids, np.full_like(d.images, 0.5), d.true_images, {"clip": (np.zeros((60, 8)), d.latents["clip"][1])}, d.labels
    )
    for s in score(flat, **FAST).scores:
        if s.metric.startswith(("two_way", "nway", "retrieval")):
            assert s.value == pytest.approx(s.chance)
            assert s.p > 0.5


def test_a_single_item_is_scored_without_interval_and_without_p(rng):
    found = score(decoded(rng, n=1), **FAST)
    assert np.isnan([found["pixcorr"].ci_low, found["pixcorr"].p]).all()
    assert "two_way.pixels" in {s.metric for s in found.skipped}


def test_class_without_mates_is_left_out_and_said(rng):
    labels = np.array([0] * 6 + [1] * 5 + [2])
    found = score(decoded(rng, labels=labels), **FAST)["two_way_within_class.pixels"]
    assert found.n == 11
    assert "1 of 12 items have no distractor" in found.note


def test_repeats_of_a_stimulus_are_averaged_and_no_distractors_of_each_other(rng):
    d = decoded(rng, n=12, noise=0.9)
    more = (0.1 * d.true_images + 0.9 * rng.random(d.images.shape)).astype(np.float32)
    both = Decoded(np.tile(np.arange(12), 2), np.concatenate([d.images, more]), np.tile(d.true_images, (2, 1, 1, 1)))
    found = score(both, **FAST)
    one, two = (score(Decoded(d.ids, x, d.true_images), **FAST) for x in (d.images, more))
    for name in ("pixcorr", "mse", "two_way.pixels", "nway10_top1.pixels"):
        assert found[name].n == 12
        np.testing.assert_allclose(found[name].per_item, (one[name].per_item + two[name].per_item) / 2)


def test_ids_in_any_order_give_the_same_scores(rng):
    d = decoded(rng, noise=0.9)
    order = rng.permutation(12)
    names = np.array([f"picture {i}" for i in range(12)])
    first = score(Decoded(names, d.images, d.true_images), **FAST)
    second = score(Decoded(names[order], d.images[order], d.true_images[order]), **FAST)
    for s in first.scores:
        assert second[s.metric].value == pytest.approx(s.value)
        assert list(second[s.metric].items) == list(names[order])


def test_ssim_null_inside_blocks_agrees_with_the_full_one(rng, monkeypatch):
    d = decoded(rng, n=30, noise=0.97)
    full = score(d, metrics=["ssim.2d"], n_draws=100, n_permutations=5000)["ssim.2d"]
    monkeypatch.setattr("phosphene.evaluate.registry._SSIM_BUDGET", 30 * 15 * 14 * 14)
    blocks = score(d, metrics=["ssim.2d"], n_draws=100, n_permutations=5000)["ssim.2d"]
    assert _SSIM_BUDGET > 0
    assert "blocks of 15" in blocks.note
    assert blocks.value == full.value
    assert blocks.chance == pytest.approx(full.chance, abs=0.02)
    assert (blocks.p < 0.05) == (full.p < 0.05)


def test_encoding_score_is_the_mean_correlation_with_its_null(rng):
    e = encoded(rng, n=25)
    found = score(encoded=e, n_draws=300, n_permutations=2000)
    r = [np.corrcoef(e.predicted[:, v], e.measured[:, v])[0, 1] for v in range(30)]
    assert found["pearson.voxels"].value == pytest.approx(np.mean(r))
    np.testing.assert_allclose(found["pearson.voxels"].per_item, r)
    fraction = found["pearson.fraction_of_ceiling"]
    assert fraction.value == pytest.approx(np.sum(r) / np.sqrt(e.ceiling).sum())
    assert found["pearson.voxels"].p < 0.01
    assert found["pearson.voxels"].ci_low < np.mean(r) < found["pearson.voxels"].ci_high
    null = score(encoded=Encoded(e.ids, e.predicted[rng.permutation(25)], e.measured), **FAST)
    assert null["pearson.voxels"].p > 0.01


@pytest.mark.fault(126)
def test_ceiling_that_is_missing_or_zero_skips_the_fraction(rng):
    for ceiling in (None, np.zeros(30), np.full(30, np.nan)):
        e = encoded(rng)
        found = score(encoded=Encoded(e.ids, e.predicted, e.measured, ceiling), **FAST)
        assert [s.metric for s in found.skipped] == ["pearson.fraction_of_ceiling"]
    partly = np.r_[0.0, np.nan, np.full(28, 0.5)]
    found = score(encoded=Encoded(e.ids, e.predicted, e.measured, partly), **FAST)["pearson.fraction_of_ceiling"]
    assert found.note.startswith("2 voxels without a ceiling above 0 left out")


@pytest.mark.fault(123)
def test_constant_voxels_count_as_no_correlation(rng):
    e = encoded(rng)
    predicted = e.predicted.copy()
    predicted[:, :15] = 3.0
    found = score(encoded=Encoded(e.ids, predicted, e.measured), **FAST)["pearson.voxels"]
    full = score(encoded=e, **FAST)["pearson.voxels"]
    assert found.value == pytest.approx(full.per_item[15:].sum() / 30)
    assert "15 constant voxels counted as r = 0" in found.note


def test_paired_differences_point_the_way_of_better(rng):
    d = decoded(rng, n=20, noise=0.3)
    worse = Decoded(d.ids, rng.random(d.images.shape, dtype=np.float32), d.true_images)
    table = paired_differences(score(d, **FAST), score(worse, **FAST), "noise").set_index("metric")
    assert (table.loc[["pixcorr", "mse", "ssim.2d", "two_way.pixels"], "ci_low"] > 0).all()
    assert (table["control"] == "noise").all()


def test_direction_and_pairing_survive_a_known_shift(rng):
    """Rows are decoded items: shifting the truths by one makes the score fall to chance, whatever the direction."""
    d = decoded(rng, n=40, noise=0.3)
    shifted = Decoded(d.ids, np.roll(d.images, 1, axis=0), d.true_images)
    assert abs(score(shifted, metrics=["two_way.pixels"], **FAST)["two_way.pixels"].value - 0.5) < 0.2
    s = score(d, metrics=["two_way.pixels"], **FAST)["two_way.pixels"]
    assert s.value == pytest.approx(
        np.mean(two_way(np.corrcoef(d.images.reshape(40, -1), d.true_images.reshape(40, -1))[:40, 40:]))
    )


def test_unknown_metrics_are_refused_with_a_suggestion(rng):
    with pytest.raises(ConfigError, match="Did you mean 'pixcorr'"):
        score(decoded(rng), metrics=["pixcor"])
    with pytest.raises(ConfigError, match="no metric"):
        metric_of("ssim.3d")


def test_inputs_that_do_not_pair_are_refused(rng):
    d = decoded(rng)
    with pytest.raises(DataError, match="labels has 3 rows but there are 12 ids"):
        Decoded(d.ids, d.images, d.true_images, labels=np.zeros(3))
    with pytest.raises(DataError, match="only one of them"):
        Decoded(d.ids, d.images)
    with pytest.raises(DataError, match="both stimulus 0 but differ in their true pictures"):
        score(Decoded(np.zeros(12, int), d.images, d.true_images))
    with pytest.raises(DataError, match="average the repeats"):
        Encoded(np.zeros(4), np.zeros((4, 2)), np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"\(4, 2\).*\(4, 3\)"):
        Encoded(np.arange(4), np.zeros((4, 2)), np.zeros((4, 3)))
