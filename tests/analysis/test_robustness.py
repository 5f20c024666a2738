"""Voxels are lost as asked, scores end at chance, and the share that can be lost is where the curve says."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.analysis.robustness import Curve, Robustness, RobustnessOptions, crossing, mask
from phosphene.errors import ConfigError
from phosphene.flow import analyse
from phosphene.metrics.identification import similarity, two_way
from phosphene.metrics.statistics import mean_of_items
from tests.analysis.conftest import fitted
from tests.analysis.test_categories import unlabelled

FEW = {"fractions": [0, 0.5, 0.9, 1], "pictures": [0, 1], "draws": 3, "n_pictures": 20}


@pytest.fixture(scope="module")
def asked(linear):
    return linear, analyse(linear, "robustness", FEW).summary


def curve(opened):
    return opened.folder.table("analysis", "robustness", "curve.csv").set_index(["input", "measure", "lost"])["value"]


def table(opened):
    return opened.folder.table("analysis", "robustness", "table.csv").set_index(["input", "measure"])["value"]


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_the_share_that_can_be_lost_is_where_a_straight_line_falls_by_a_tenth():
    shares = np.linspace(0, 1, 6)
    line = 1 - 0.5 * shares  # from 1 to chance
    assert crossing(shares, line[None], 0.5)[0] == pytest.approx(0.1, abs=1e-12)
    rng = np.random.default_rng(0)
    falling = 0.5 + np.sort(rng.random((20, 6)), axis=1)[:, ::-1]
    level = 0.5 + 0.9 * (falling[:, 0] - 0.5)
    expected = [np.interp(-y, -row, shares) for y, row in zip(level, falling, strict=True)]
    np.testing.assert_allclose(crossing(shares, falling, 0.5), expected, atol=1e-12)


def test_a_curve_that_never_falls_can_lose_all_and_one_at_chance_has_nothing_to_lose():
    shares = np.array([0, 0.5, 1])
    found = crossing(shares, np.array([[0.8, 0.8, 0.79], [0.5, 0.5, 0.5], [0.4, 0.6, 0.5]]), 0.5)
    assert found[0] == 1
    assert np.isnan(found[1:]).all()


def test_the_interval_of_the_share_draws_stimuli_not_points():
    items = [np.full(10, 0.9), np.repeat([0.9, 0.5], 5), np.full(10, 0.5)]
    c = Curve([0, 0.5, 1], [mean_of_items(x) for x in items], 0.5, 10)
    counts = np.stack([np.ones(10), np.repeat([2.0, 0], 5), np.repeat([0, 2.0], 5)])
    # The level is 0.86: on the line to the mean at one half, on the line after it, and on the line to chance.
    np.testing.assert_allclose(c.lost()(counts), [0.1, 0.55, 0.05], atol=1e-12)


def test_masked_voxels_are_at_their_mean_the_others_as_they_were():
    rng = np.random.default_rng(0)
    betas, mean, order = rng.random((5, 40)), rng.random(40), rng.permutation(40)
    before = betas.copy()
    for share in (0, 0.25, 0.3, 1):
        found = mask(betas, mean, order, share)
        gone = order[: round(share * 40)]
        kept = np.setdiff1d(np.arange(40), gone)
        np.testing.assert_array_equal(found[:, gone], np.broadcast_to(mean[gone], (5, len(gone))))
        np.testing.assert_array_equal(found[:, kept], before[:, kept])
    np.testing.assert_array_equal(betas, before)


def test_informative_voxels_go_first_and_useless_ones_last():
    weights = np.array([0.0, 3, 0, 1, 2, 0])
    orders = list(Robustness(RobustnessOptions(draws=2))._orders(6, weights))
    assert [name for name, *_ in orders] == ["random", "random", "informed"]
    assert orders[2][2][:3].tolist() == [1, 4, 3]
    assert all(sorted(o.tolist()) == list(range(6)) for *_, o in orders)


# -- a run -------------------------------------------------------------------------------------------------------------


def test_with_every_voxel_there_the_score_is_the_runs_own_and_with_none_it_is_chance(asked):
    opened, summary = asked
    found = curve(opened)
    recipe, test = opened.recipe(0), opened.sides(0)[1].average_repeats()
    true = recipe.true_latents(opened.stimuli.select(test.stimuli))["pixel_pca"]
    own = two_way(similarity(recipe.latents(test)["pixel_pca"], true)).mean()
    for order in ("random", "informed"):
        assert found[order, "two_way.pixel_pca", 0] == pytest.approx(own, abs=1e-6)
        # A constant input ranks the truths the same way for everyone, whose own ranks average to one half exactly.
        assert found[order, "two_way.pixel_pca", 1] == pytest.approx(0.5, abs=1e-6)
        for reader in ("brain", "mapped.pixel_pca"):
            assert found[order, f"auc.{reader}", 1] == pytest.approx(0.5, abs=1e-9)
        assert found[order, "picture.two_way.pixels", 1] == pytest.approx(0.5, abs=1e-6)
    assert "Control, every voxel lost:" in summary


def test_losing_the_most_informative_half_costs_more_than_losing_a_random_half(asked):
    found = curve(asked[0])
    for measure in ("two_way.pixel_pca", "auc.brain"):
        assert found["informed", measure, 0.5] < found["random", measure, 0.5]
    lost = table(asked[0])
    assert 0 <= lost["informed", "lost.two_way.pixel_pca"] < lost["random", "lost.two_way.pixel_pca"] <= 1


def test_the_verdict_names_the_share(asked):
    opened, summary = asked
    share = table(opened)["random", "lost.two_way.pixel_pca"]
    assert f"voxels, {100 * share:.0f} % [" in summary.splitlines()[0]
    assert (opened.folder.path / "analysis/robustness/pictures.png").is_file()


def test_pictures_need_not_be_decoded_and_labels_need_not_be_there(tmp_path):
    opened = fitted("linear", tmp_path / "run", {"data.name": str(unlabelled(tmp_path))})
    analyse(opened, "robustness", {**FEW, "pictures": []})
    measures = {m for _, m, _ in curve(opened).index}
    assert measures == {"two_way.pixel_pca"}
    assert not (opened.folder.path / "analysis/robustness/pictures.png").exists()


def test_shares_must_rise_from_none_to_all_and_a_fold_must_be_there(linear):
    for wrong in ((0.1, 1), (0, 0.5), (0, 0.5, 0.5, 1), (0, 0.7, 0.5, 1)):
        with pytest.raises(ValueError, match="rise from 0 to 1"):
            RobustnessOptions(fractions=wrong)
    with pytest.raises(ConfigError, match="no fold 1"):
        analyse(linear, "robustness", {"fold": 1})
