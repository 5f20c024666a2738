"""Several runs on the same pictures: paired differences, Holm, places, what is refused, what page and terminal say."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from phosphene.errors import DataError, ModelError, SplitError
from phosphene.metrics.comparison import compare_items
from phosphene.metrics.statistics import holm
from phosphene.reporting import report
from phosphene.reporting.contents import Contents
from phosphene.reporting.run_comparison import against, sentences, text_table
from tests.reporting.test_html import EVIL, assert_inert, read


def items(values, metric="pixcorr", stimuli=None):
    ids = [f"s{i}" for i in range(len(values))] if stimuli is None else stimuli
    return pd.DataFrame({"metric": metric, "stimulus": ids, "value": values})


def several(means, n, rng, spread=1.0):
    """Runs whose scores share what makes a stimulus easy."""
    ease = rng.standard_normal(n) * 3
    return {f"run{i}": items(m + ease + spread * rng.standard_normal(n)) for i, m in enumerate(means)}


# -- statistics --------------------------------------------------------------------------------------------------------


def test_holm_is_the_closure_of_bonferroni():
    rng = np.random.default_rng(0)
    for n in (1, 2, 4, 5):
        p = rng.uniform(0, 0.3, n)
        groups = list(chain.from_iterable(combinations(range(n), k) for k in range(1, n + 1)))
        # A hypothesis is rejected when every group of hypotheses that holds it is, each by Bonferroni.
        closed = [max(min(1, len(g) * p[list(g)].min()) for g in groups if i in g) for i in range(n)]
        np.testing.assert_allclose(holm(p), closed, rtol=1e-12)
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.03])), [0.02, np.nan, 0.03])


def test_difference_interval_and_p_agree_with_the_paired_t_test_where_that_is_exact():
    runs = several([0.3, 0.0], 80, np.random.default_rng(1))
    row = compare_items(runs).pair("pixcorr", "run0", "run1")
    a, b = (runs[k]["value"].to_numpy() for k in ("run0", "run1"))
    exact = stats.ttest_rel(a, b)
    interval = exact.confidence_interval(0.95)
    np.testing.assert_allclose(row["value"], (a - b).mean())
    # Bootstrap of 2,000 draws: bounds within a tenth of the width of the interval.
    width = interval.high - interval.low
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], [interval.low, interval.high], atol=0.1 * width)
    # Sign flips: p is a share of 10,000, whose standard error is below 0.005.
    np.testing.assert_allclose(row["p"], exact.pvalue, atol=0.015)


def test_a_pair_read_the_other_way_round_changes_its_sign_and_nothing_else():
    found = compare_items(several([0.4, 0.0], 30, np.random.default_rng(2)))
    one, other = found.pair("pixcorr", "run0", "run1"), found.pair("pixcorr", "run1", "run0")
    assert one["value"] == -other["value"]
    assert (one["ci_low"], one["ci_high"]) == (-other["ci_high"], -other["ci_low"])
    assert one["p"] == other["p"]


def test_the_order_of_runs_and_of_their_stimuli_changes_the_sign_and_nothing_else():
    runs = several([0.3, 0.0], 30, np.random.default_rng(2))
    forward = compare_items(runs).pair("pixcorr", "run0", "run1")
    turned = {name: runs[name].iloc[::-1] for name in ("run1", "run0")}
    backward = compare_items(turned).pair("pixcorr", "run1", "run0")
    assert backward["value"] == pytest.approx(-forward["value"], rel=1e-12)
    assert backward["ci_low"] == pytest.approx(-forward["ci_high"], rel=1e-12)
    assert backward["ci_high"] == pytest.approx(-forward["ci_low"], rel=1e-12)
    assert backward["p"] == forward["p"]


def test_a_lower_error_counts_as_better_and_stimuli_are_paired_by_name():
    runs = {
        "small": items([0.1, 0.2, 0.3], "mse", ["a", "b", "c"]),
        "large": items([0.5, 0.4, 0.3], "mse", ["c", "b", "a"]),
    }
    found = compare_items(runs)
    np.testing.assert_allclose(found.pair("mse", "small", "large")["value"], 0.2)
    assert found.place("mse", "small")["rank"] == 1


def test_only_stimuli_that_all_runs_scored_count():
    runs = {"a": items([1.0, 2, 3, np.nan]), "b": items([0.0, 1, 2, 9, 9]), "c": items([5.0, 5, 5, 5])}
    found = compare_items(runs)
    assert set(found.pairs["n"]) == {3}
    np.testing.assert_allclose(found.pair("pixcorr", "a", "b")["value"], 1.0)


def test_a_stimulus_that_stands_twice_is_refused():
    with pytest.raises(DataError, match="two values of pixcorr for stimulus s"):
        compare_items({"a": items([1.0, 2], stimuli=["s", "s"]), "b": items([1.0, 2])})


def test_metrics_of_other_versions_and_of_one_run_alone_are_left_out():
    runs = {
        "a": items([1.0, 2, 3], "not.a.metric"),
        "b": items([1.0, 2, 3], "not.a.metric"),
        "c": items([1.0, 2], "mse"),
    }
    found = compare_items(runs)
    assert found.pairs.empty
    assert found.ranks.empty


def test_runs_that_nobody_can_tell_apart_share_all_places_and_others_do_not():
    apart = compare_items(several([5.0, 0.0, 0.0, -5.0], 60, np.random.default_rng(3), spread=0.5))
    places = {
        r: (apart.place("pixcorr", r)["rank_low"], apart.place("pixcorr", r)["rank_high"]) for r in ("run0", "run3")
    }
    assert places == {"run0": (1, 1), "run3": (4, 4)}
    same = compare_items({name: items(np.arange(9.0)) for name in "abc"})
    assert set(same.ranks["rank"]) == {2}
    assert set(zip(same.ranks["rank_low"], same.ranks["rank_high"], strict=True)) == {(1, 3)}


def test_open_places_hold_the_true_ones_together_as_often_as_they_say():
    rng, means, missed, n_worlds = np.random.default_rng(4), np.array([0.6, 0.3, 0.3, 0.0]), 0, 60
    best, worst = (means[:, None] < means).sum(axis=1) + 1, (means[:, None] <= means).sum(axis=1)
    for _ in range(n_worlds):
        ranks = compare_items(several(means, 25, rng), n_draws=100, n_flips=300).ranks
        missed += bool(((ranks["rank_low"] > worst) | (ranks["rank_high"] < best)).any())
    # 5 % at most are expected; more than this would then come once in two hundred tries.
    assert missed <= stats.binom.ppf(0.995, n_worlds, 0.05)


# -- page and terminal -------------------------------------------------------------------------------------------------


@pytest.fixture
def plain_run(make_run, tmp_path):
    """Makes runs without what figures are drawn from: pages of them take a tenth of the time."""

    def make(name, **options):
        made = make_run(tmp_path / name, **options)
        for part in ("voxels.csv", "similarity.pixels.npy", "retrieval.csv"):
            (made.run.evaluation() / part).unlink()
        scores = made.run.table("scores.csv")
        made.run.write_table(scores[scores["metric"].isin(["pixcorr", "mse", "ssim.2d"])], "scores.csv")
        return made.run

    return make


@pytest.fixture
def two(made, plain_run):
    return made.run, plain_run("noisy", noise=3.0, seed=1)


def test_the_page_of_two_runs_prints_the_paired_difference(two, tmp_path):
    page = read(report(two, out=tmp_path / "page.html"))
    tables = [r.table("evaluation", "test", "per_item.csv") for r in two]
    ours, theirs = (
        t[(t["input"] == "brain") & (t["metric"] == "pixcorr")].set_index("stimulus")["value"] for t in tables
    )
    assert f"▲ +{(ours - theirs).mean():.3f}" in page.text
    assert "linear-S1 is better than noisy" in page.text
    assert "positive one is better for linear-S1" in page.text
    assert_inert(page)


def test_the_page_of_three_runs_has_a_matrix_from_best_to_worst_and_open_places(two, plain_run, tmp_path):
    page = read(report([*two, plain_run("twin", seed=2)], out=tmp_path / "page.html"))
    assert "Which differences are real?" in page.text
    assert "place 3" in page.text
    heads = page.raw[page.raw.index('<table class="scores matrix">') :]
    assert heads.index("noisy") > max(heads.index("linear-S1"), heads.index("twin"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in page.all("a")} <= {f"#{i}" for i in ids}


def test_published_rows_are_grey_where_the_protocol_of_a_run_differs(two, tmp_path):
    _, relaxed = two
    table = relaxed.table("evaluation", "test", "published.csv")
    table["comparable"], table["difference"] = False, "setting strict there, relax here"
    relaxed.write_table(table, "evaluation", "test", "published.csv")
    page = read(report(two, out=tmp_path / "page.html"))
    rows = page.raw[page.raw.index("Beside published numbers") :].split("<tr class=")[1:3]
    assert rows[0].startswith('""') and "Peer A" in rows[0]  # as one run was tested
    assert rows[0].count("n greyed") == 1
    assert "partly: noisy: setting strict there, relax here" in rows[0]
    assert rows[1].startswith('"greyed"') and "Peer B" in rows[1]


@pytest.mark.fault(115)
def test_a_name_of_a_folder_cannot_become_script(made, plain_run, tmp_path):
    other = plain_run(EVIL.replace("/", "_"), noise=3.0, seed=1)
    page = read(report([made.run, other], out=tmp_path / "page.html"))
    assert_inert(page)
    assert "onerror" in page.text


def test_the_terminal_gets_the_numbers_of_the_page(two):
    runs = against(two[0].path, [two[1].path])
    text = text_table(runs)
    found = compare_items({c.name: c.per_item[c.per_item["input"] == "brain"] for c in runs})
    x = found.pair("pixcorr", "linear-S1", "noisy")
    assert f"{x['value']:+.3f}" in text
    assert sentences(found)[0] in text


def test_another_split_and_a_run_without_scores_are_refused_before_any_work(two):
    (two[1].evaluation() / "per_item.csv").unlink()
    with pytest.raises(ModelError, match="was not scored"):
        against(two[0].path, [two[1].path])
    two[0].write_manifest(split_digest="e" * 64)
    with pytest.raises(SplitError, match="training sets differ"):
        report(two)


def test_runs_that_differ_in_nothing_cannot_be_told_apart(made):
    contents = Contents(made.run)
    table = contents.per_item[contents.per_item["input"] == "brain"]
    found = compare_items({"one": table, "two": table})
    assert set(found.pairs["p"]) == {1.0}
    assert "cannot be told apart" in sentences(found)[0]
