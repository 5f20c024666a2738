"""The table of metrics: names, columns, degenerate inputs, repeats, controls."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phosphene.errors import ConfigError, DataError
from phosphene.metrics import (
    COLUMNS,
    METRICS,
    PUBLIC_EXTRACTORS,
    Candidates,
    Decoded,
    Encoded,
    FeatureView,
    compute_scores,
    fid_of,
    kid_of,
    metric_of,
    mse,
    n_way,
    pixcorr,
    ssim_2d,
    two_way,
)
from phosphene.metrics.array_metrics import _SSIM_BUDGET
from phosphene.metrics.controls import paired_differences
from phosphene.metrics.metric import OF_FEATURES
from phosphene.models.backbones import PUBLIC

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
        rng, n, labels=np.array([str(i % 12) for i in range(n)]),
        class_scores={"net": (rng.random((n, 80)), rng.integers(0, 80, n))},
        latents={"clip": (latents + rng.standard_normal((n, 8)), latents)},
        texts={"clip": Candidates(tuple(map(str, range(13))), rng.standard_normal((13, 8)), centre=np.zeros(8))},
        feature_views={"eye": seen(rng, n)},
    )  # fmt: skip


def seen(rng, n, noise=1.0, classes=12):
    """What an eye would see that knows 12 classes and mistakes some."""
    true = rng.standard_normal((n, 20))
    answers = np.eye(classes)[np.arange(n) % classes]
    ours = answers + rng.random((n, classes))
    return FeatureView(
        true + noise * rng.standard_normal(true.shape), true, ours / ours.sum(1, keepdims=True), answers,
        tuple(map(str, range(classes))), (*OF_FEATURES, "distance"),
    )  # fmt: skip


def test_every_entry_of_the_table_is_reached_and_complete(rng):
    class Reader:
        def predict(self, pictures):
            return np.array([str(i % 12) for i in range(len(pictures))])

    base = everything(rng, 320)
    whole = Decoded(**{**vars(base), "classifier": Reader()})
    found = compute_scores(whole, encoded(rng), n_draws=100, n_permutations=50)
    assert found.skipped == []
    reached = {metric_of(s.metric).name for s in found.scores}
    assert reached == set(METRICS)
    for s in found.scores:
        assert np.isfinite([s.value, s.ci_low, s.ci_high]).all(), s.metric
        assert s.ci_low <= s.ci_high
        of_sets = metric_of(s.metric).items == "sets"  # no pairs, so neither chance nor p
        assert np.isnan([s.chance, s.p]).all() if of_sets else np.isfinite(s.chance) and 0 < s.p <= 1, s.metric
        assert s.n > 1
        assert len(s.per_item) == len(s.items)


def test_the_page_on_metrics_has_every_metric_and_every_eye():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in METRICS:
        assert f"`{name.replace('{space}', 'SPACE')}`" in page
    for name in PUBLIC_EXTRACTORS:
        eye = PUBLIC_EXTRACTORS[name]()
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"`{head}`" in row for head in eye.metrics if head != "two_way_within_class")
    for public in PUBLIC.values():
        assert public.file in page or public.package


def test_rows_have_the_columns_of_scores_csv(rng):
    table = compute_scores(decoded(rng), **FAST).table("test", "brain", "relax")
    assert tuple(table.columns) == COLUMNS
    assert set(table["input"]) == {"brain"}
    assert set(table["setting"]) == {"relax"}
    assert {"pixcorr", "mse", "ssim.2d", "ssim.columns", "two_way.pixels"} <= set(table["metric"])
    assert not table["metric"].duplicated().any()


def test_values_are_those_of_the_plain_functions(rng):
    d = decoded(rng, channels=3)
    found = compute_scores(d, **FAST)
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
    found = compute_scores(prior_only, metrics=["pixcorr", "mse", "ssim.2d", "two_way.pixels"], **FAST)
    assert found["pixcorr"].value > 0.9  # a strong prior alone looks good
    for s in found.scores:
        assert s.value == pytest.approx(s.chance, abs=1e-6)  # until it stands beside chance
        assert s.p > 0.5


def test_metrics_draw_from_streams_of_their_own(rng):
    d = decoded(rng, noise=0.9)
    alone = compute_scores(d, metrics=["two_way.pixels"], seed=4, **FAST)["two_way.pixels"]
    together = compute_scores(d, seed=4, **FAST)["two_way.pixels"]
    assert (alone.ci_low, alone.ci_high, alone.p) == (together.ci_low, together.ci_high, together.p)


@pytest.mark.fault(34)
def test_too_few_items_skip_with_a_reason_and_never_score_zero(rng):
    found = compute_scores(decoded(rng, n=12), **FAST)
    reasons = {s.metric: s.reason for s in found.skipped}
    assert reasons["nway50_top1.pixels"] == "it needs 50 test stimuli but there are 12"
    assert "retrieval300.pixels" in reasons
    assert not {s.metric for s in found.scores} & set(reasons)


@pytest.mark.fault(123)
def test_constant_and_missing_predictions_count_as_chance_and_are_listed(rng):
    d = decoded(rng, n=12)
    images = d.images.copy()
    images[2], images[7] = 0.25, np.nan
    found = compute_scores(Decoded(d.ids, images, d.true_images), **FAST)
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
    for s in compute_scores(flat, **FAST).scores:
        if s.metric.startswith(("two_way", "nway", "retrieval")):
            assert s.value == pytest.approx(s.chance)
            assert s.p > 0.5


def test_a_single_item_is_scored_without_interval_and_without_p(rng):
    found = compute_scores(decoded(rng, n=1), **FAST)
    assert np.isnan([found["pixcorr"].ci_low, found["pixcorr"].p]).all()
    assert "two_way.pixels" in {s.metric for s in found.skipped}


def test_class_without_mates_is_left_out_and_said(rng):
    labels = np.array([0] * 6 + [1] * 5 + [2])
    found = compute_scores(decoded(rng, labels=labels), **FAST)["two_way_within_class.pixels"]
    assert found.n == 11
    assert "1 of 12 items have no distractor" in found.note


def test_repeats_of_a_stimulus_are_averaged_and_no_distractors_of_each_other(rng):
    d = decoded(rng, n=12, noise=0.9)
    more = (0.1 * d.true_images + 0.9 * rng.random(d.images.shape)).astype(np.float32)
    both = Decoded(np.tile(np.arange(12), 2), np.concatenate([d.images, more]), np.tile(d.true_images, (2, 1, 1, 1)))
    found = compute_scores(both, **FAST)
    one, two = (compute_scores(Decoded(d.ids, x, d.true_images), **FAST) for x in (d.images, more))
    for name in ("pixcorr", "mse", "two_way.pixels", "nway10_top1.pixels"):
        assert found[name].n == 12
        np.testing.assert_allclose(found[name].per_item, (one[name].per_item + two[name].per_item) / 2)


def test_ids_in_any_order_give_the_same_scores(rng):
    d = decoded(rng, noise=0.9)
    order = rng.permutation(12)
    names = np.array([f"picture {i}" for i in range(12)])
    first = compute_scores(Decoded(names, d.images, d.true_images), **FAST)
    second = compute_scores(Decoded(names[order], d.images[order], d.true_images[order]), **FAST)
    for s in first.scores:
        assert second[s.metric].value == pytest.approx(s.value)
        assert list(second[s.metric].items) == list(names[order])


def test_ssim_null_inside_blocks_agrees_with_the_full_one(rng, monkeypatch):
    d = decoded(rng, n=30, noise=0.97)
    full = compute_scores(d, metrics=["ssim.2d"], n_draws=100, n_permutations=5000)["ssim.2d"]
    monkeypatch.setattr("phosphene.metrics.array_metrics._SSIM_BUDGET", 30 * 15 * 14 * 14)
    blocks = compute_scores(d, metrics=["ssim.2d"], n_draws=100, n_permutations=5000)["ssim.2d"]
    assert _SSIM_BUDGET > 0
    assert "blocks of 15" in blocks.note
    assert blocks.value == full.value
    assert blocks.chance == pytest.approx(full.chance, abs=0.02)
    assert (blocks.p < 0.05) == (full.p < 0.05)


def test_encoding_score_is_the_mean_correlation_with_its_null(rng):
    e = encoded(rng, n=25)
    found = compute_scores(encoded=e, n_draws=300, n_permutations=2000)
    r = [np.corrcoef(e.predicted[:, v], e.measured[:, v])[0, 1] for v in range(30)]
    assert found["pearson.voxels"].value == pytest.approx(np.mean(r))
    np.testing.assert_allclose(found["pearson.voxels"].per_item, r)
    fraction = found["pearson.fraction_of_ceiling"]
    assert fraction.value == pytest.approx(np.sum(r) / np.sqrt(e.ceiling).sum())
    assert found["pearson.voxels"].p < 0.01
    assert found["pearson.voxels"].ci_low < np.mean(r) < found["pearson.voxels"].ci_high
    null = compute_scores(encoded=Encoded(e.ids, e.predicted[rng.permutation(25)], e.measured), **FAST)
    assert null["pearson.voxels"].p > 0.01


@pytest.mark.fault(126)
def test_ceiling_that_is_missing_or_zero_skips_the_fraction(rng):
    for ceiling in (None, np.zeros(30), np.full(30, np.nan)):
        e = encoded(rng)
        found = compute_scores(encoded=Encoded(e.ids, e.predicted, e.measured, ceiling), **FAST)
        assert [s.metric for s in found.skipped] == ["pearson.fraction_of_ceiling"]
    partly = np.r_[0.0, np.nan, np.full(28, 0.5)]
    found = compute_scores(encoded=Encoded(e.ids, e.predicted, e.measured, partly), **FAST)[
        "pearson.fraction_of_ceiling"
    ]
    assert found.note.startswith("2 voxels without a ceiling above 0 left out")


@pytest.mark.fault(123)
def test_constant_voxels_count_as_no_correlation(rng):
    e = encoded(rng)
    predicted = e.predicted.copy()
    predicted[:, :15] = 3.0
    found = compute_scores(encoded=Encoded(e.ids, predicted, e.measured), **FAST)["pearson.voxels"]
    full = compute_scores(encoded=e, **FAST)["pearson.voxels"]
    assert found.value == pytest.approx(full.per_item[15:].sum() / 30)
    assert "15 constant voxels counted as r = 0" in found.note


def test_paired_differences_point_the_way_of_better(rng):
    d = decoded(rng, n=20, noise=0.3)
    worse = Decoded(d.ids, rng.random(d.images.shape, dtype=np.float32), d.true_images)
    table = paired_differences(compute_scores(d, **FAST), compute_scores(worse, **FAST), "noise").set_index("metric")
    assert (table.loc[["pixcorr", "mse", "ssim.2d", "two_way.pixels"], "ci_low"] > 0).all()
    assert (table["control"] == "noise").all()


def test_direction_and_pairing_survive_a_known_shift(rng):
    """Rows are decoded items: shifting the truths by one makes the score fall to chance, whatever the direction."""
    d = decoded(rng, n=40, noise=0.3)
    shifted = Decoded(d.ids, np.roll(d.images, 1, axis=0), d.true_images)
    assert abs(compute_scores(shifted, metrics=["two_way.pixels"], **FAST)["two_way.pixels"].value - 0.5) < 0.2
    s = compute_scores(d, metrics=["two_way.pixels"], **FAST)["two_way.pixels"]
    assert s.value == pytest.approx(
        np.mean(two_way(np.corrcoef(d.images.reshape(40, -1), d.true_images.reshape(40, -1))[:40, 40:]))
    )


def test_unknown_metrics_are_refused_with_a_suggestion(rng):
    with pytest.raises(ConfigError, match="Did you mean 'pixcorr'"):
        compute_scores(decoded(rng), metrics=["pixcor"])
    with pytest.raises(ConfigError, match="no metric"):
        metric_of("ssim.3d")


def test_inputs_that_do_not_pair_are_refused(rng):
    d = decoded(rng)
    with pytest.raises(DataError, match="labels has 3 rows but there are 12 ids"):
        Decoded(d.ids, d.images, d.true_images, labels=np.zeros(3))
    with pytest.raises(DataError, match="only one of them"):
        Decoded(d.ids, d.images)
    with pytest.raises(DataError, match="both stimulus 0 but differ in their true pictures"):
        compute_scores(Decoded(np.zeros(12, int), d.images, d.true_images))
    with pytest.raises(DataError, match="average the repeats"):
        Encoded(np.zeros(4), np.zeros((4, 2)), np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"\(4, 2\).*\(4, 3\)"):
        Encoded(np.arange(4), np.zeros((4, 2)), np.zeros((4, 3)))


def viewed(rng, n=24, noise=1.0, **more):
    d = decoded(rng, n)
    return Decoded(d.ids, d.images, d.true_images, feature_views={"eye": seen(rng, n, noise)}, **more)


def test_what_an_eye_sees_and_latents_of_the_same_name_are_scored_apart(rng):
    d = viewed(rng)
    latents = rng.standard_normal((24, 6))
    both = Decoded(
        d.ids, d.images, d.true_images, {"eye": (rng.standard_normal((24, 6)), latents)}, feature_views=d.feature_views
    )
    found = compute_scores(both, metrics=["two_way.*"], **FAST)
    assert [s.metric for s in found.scores] == ["two_way.pixels", "two_way.eye", "two_way.pictures.eye"]
    assert found["two_way.pictures.eye"].value > 0.7 > found["two_way.eye"].value
    with pytest.raises(DataError, match="taken by the pictures"):
        Decoded(d.ids, latents={"pictures.eye": (latents, latents)})


def test_scores_through_an_eye_are_those_of_the_plain_functions(rng):
    d = viewed(rng)
    v = d.feature_views["eye"]
    found = compute_scores(d, **FAST)
    assert found["fid.pictures.eye"].value == pytest.approx(fid_of(v.features, v.true_features))
    assert found["kid.pictures.eye"].value == pytest.approx(kid_of(v.features, v.true_features, paired=True))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (v.features, v.true_features)]
    cosines = unit[0] @ unit[1].T
    assert found["cosine.pictures.eye"].value == pytest.approx(np.diag(cosines).mean(), rel=1e-5)  # float32 products
    assert found["cosine.pictures.eye"].chance == pytest.approx(cosines.mean(), abs=1e-5)
    assert found["two_way.pictures.eye"].value == pytest.approx(
        np.mean(two_way(np.corrcoef(v.features, v.true_features)[:24, 24:])), abs=1e-9
    )
    truth = v.true_probabilities.argmax(axis=1)
    assert found["nway12_top1_class.eye"].value == pytest.approx(n_way(v.probabilities, 12, 1, truth).mean())
    assert found["nway12_top1_class.eye"].chance == 1 / 12
    assert found["nway12_top5_class.eye"].chance == 5 / 12


def test_an_eye_names_the_true_category_of_decoded_pictures(rng):
    labels = np.array([str(i % 12) for i in range(24)])
    d = viewed(rng, labels=labels)
    found = compute_scores(d, metrics=["category.eye"], **FAST)["category.eye"]
    said = d.feature_views["eye"].probabilities.argmax(axis=1)
    assert found.value == np.mean(said == np.arange(24) % 12)
    assert "gives 100% of the true pictures their category" in found.note
    other = compute_scores(viewed(rng, labels=np.repeat(["0", "x"], 12)), metrics=["category.*"], **FAST)
    assert other.skipped[0].reason == "the network knows no category 'x'"


def test_sets_do_not_know_who_decoded_what(rng):
    """Shuffling the pairs leaves FID as it is, and KID but for the pairs left out; identification falls to chance."""
    d = viewed(rng, noise=0.3)
    v, order = d.feature_views["eye"], rng.permutation(24)
    shuffled = Decoded(
        d.ids, d.images, d.true_images,
        feature_views={"eye": replace(v, features=v.features[order], probabilities=v.probabilities[order])},
    )  # fmt: skip
    ours, theirs = compute_scores(d, **FAST), compute_scores(shuffled, **FAST)
    assert theirs["fid.pictures.eye"].value == pytest.approx(ours["fid.pictures.eye"].value)
    assert theirs["kid.pictures.eye"].value < ours["kid.pictures.eye"].value  # the plain one, which is too low
    assert ours["two_way.pictures.eye"].value > 0.95
    assert theirs["two_way.pictures.eye"].p > 0.01
    assert theirs["cosine.pictures.eye"].p > 0.01
    table = paired_differences(ours, theirs, "shuffled")
    assert not table["metric"].str.startswith(("fid", "kid")).any()


def test_note_of_fid_says_that_it_is_biased_and_by_how_much(rng):
    note = compute_scores(viewed(rng), metrics=["fid.*"], **FAST)["fid.pictures.eye"].note
    assert note.startswith("biased upwards with 24 pictures and 20 features: two perfect sets of 24 would be about ")
    assert "not comparable with another number of pictures or other features" in note


def test_several_samples_per_stimulus_make_several_sets(rng):
    d = viewed(rng)
    v = d.feature_views["eye"]
    more = v.true_features + rng.standard_normal(v.features.shape)
    rows = np.r_[np.arange(24), np.arange(24)]
    both = Decoded(
        d.ids[rows], d.images[rows], d.true_images[rows],
        feature_views={"eye": FeatureView(np.r_[v.features, more], v.true_features[rows])},
    )  # fmt: skip
    found = compute_scores(both, metrics=["fid.*", "kid.*"], **FAST)
    expected = np.mean([fid_of(v.features, v.true_features), fid_of(more, v.true_features)])
    assert found["fid.pictures.eye"].value == pytest.approx(expected)
    assert found["fid.pictures.eye"].n == 24
    uneven = Decoded(
        both.ids[:-1],
        both.images[:-1],
        both.true_images[:-1],
        feature_views={"eye": FeatureView(both.feature_views["eye"].features[:-1], v.true_features[rows][:-1])},
    )
    assert "different numbers of decoded items" in compute_scores(uneven, metrics=["fid.*"], **FAST).skipped[0].reason


@pytest.mark.fault(123)
def test_pictures_that_are_not_finite_leave_no_holes_in_a_set(rng):
    d = viewed(rng)
    v = d.feature_views["eye"]
    features, probabilities = v.features.copy(), v.probabilities.copy()
    features[4], probabilities[4] = np.nan, np.nan
    holed = FeatureView(features, v.true_features, probabilities, v.true_probabilities, v.classes)
    labels = np.array([str(i % 12) for i in range(24)])
    found = compute_scores(Decoded(d.ids, d.images, d.true_images, labels=labels, feature_views={"eye": holed}), **FAST)
    assert {s.metric for s in found.skipped} >= {"fid.pictures.eye", "kid.pictures.eye"}
    assert found["nway12_top1_class.eye"].per_item[4] == pytest.approx(1 / 12)
    assert found["category.eye"].per_item[4] == pytest.approx(1 / 12)
    assert found["two_way.pictures.eye"].per_item[4] == 0.5
    for name in ("nway12_top1_class.eye", "category.eye", "two_way.pictures.eye", "cosine.pictures.eye"):
        assert found[name].n == 24
        assert ": 4" in found[name].note


def test_names_with_numbers_from_the_data_are_found_in_the_table():
    assert metric_of("nway16_top1_class.scenes").name == "nway{n}_top1_class.{space}"
    assert metric_of("two_way.pictures.clip_lab").better == "higher"
    assert metric_of("fid.pictures.clip_lab").better == "lower"
    assert metric_of("zero_shot_all_top1.clip").name == "zero_shot_all_top1.{space}"
    with pytest.raises(ConfigError, match="no metric"):
        metric_of("nwayx_top1_class.scenes")


def test_scores_show_themselves_as_a_line_and_as_a_table(rng):
    found = compute_scores(decoded(rng), **FAST)
    one = found["two_way.pixels"]
    assert repr(one).startswith(
        f"Score(two_way.pixels {one.value:.3f}, [{one.ci_low:.3f}, {one.ci_high:.3f}], chance 0.500"
    )
    assert "two_way.pixels" in repr(found)
    shown = found._repr_html_()
    assert shown.count("<tr>") == len(found.scores) + 1
    assert f"<td>two_way.pixels</td><td>{one.value:.3f}</td>" in shown
    assert "Skipped: " in shown
    with pytest.raises(KeyError, match="no score 'mae' among these: pixcorr, mse"):
        found["mae"]
