"""Checks L3-L8: each must catch a planted fault, and stay quiet where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phosphene.io import ledger
from phosphene.validity import CHECKS, CycleEvidence, Evidence, Lineage, Redecoding, Samples, run_checks


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def verdict(check_id, **evidence):
    return run_checks(Evidence(**evidence), only=[check_id])[0]


def test_every_check_of_stimuli_and_leakage_is_written_and_says_what_it_costs():
    for check in CHECKS.values():
        if check.id[0] in "SL":
            assert check.run is not None
            assert check.cost


def test_l3_catches_predictions_that_lean_on_other_rows(rng):
    betas, weights = rng.standard_normal((30, 12)).astype(np.float32), rng.standard_normal((12, 5)).astype(np.float32)

    def honest(x, rows, **handing):
        return x @ weights

    def standardised(x, rows, **handing):
        return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6) @ weights

    def corrected_for_hubs(x, rows, **handing):
        scores = x @ x.T
        return (scores - scores.mean(axis=0)) @ np.ones((len(x), 2), np.float32)

    assert verdict("L3", redecoding=Redecoding(betas, honest)).verdict == "pass"
    for leaning in (standardised, corrected_for_hubs):
        assert verdict("L3", redecoding=Redecoding(betas, leaning)).verdict == "fail"
    assert verdict("L3", redecoding=Redecoding(betas[:1], honest)).verdict == "not applicable"


def test_l4_tells_clean_blind_and_leaking_choices_of_voxels():
    clean = Lineage("reliable voxels", range(50), range(50, 60))
    map_of_all = Lineage("ncsnr map", range(60), range(50, 60), sees="brain")
    leak = Lineage("voxels that decode best", range(60), range(50, 60))
    unknown = Lineage("mask.nii", None, range(50, 60))
    assert verdict("L4", voxel_choices=[]).verdict == "pass"
    assert verdict("L4", voxel_choices=[clean]).verdict == "pass"
    blind = verdict("L4", voxel_choices=[clean, map_of_all])
    assert (blind.verdict, blind.value) == ("flag", 10)
    assert "ncsnr map" in blind.reason
    assert "mask.nii" in verdict("L4", voxel_choices=[unknown]).reason
    assert verdict("L4", voxel_choices=[map_of_all, leak]).verdict == "fail"


@pytest.mark.parametrize("how", ["all rows", "training rows", "sessions", "not at all"])
def test_l5_sees_voxels_that_were_standardised_over_test_rows(rng, how):
    betas = (3 + 2 * rng.standard_normal((80, 40))).astype(np.float32)
    train = np.arange(60)
    test = np.arange(60, 80)
    if how == "all rows":
        betas = (betas - betas.mean(axis=0)) / betas.std(axis=0)
    elif how == "training rows":
        betas = (betas - betas[train].mean(axis=0)) / betas[train].std(axis=0)
    elif how == "sessions":
        parts = np.split(betas, 4)
        betas = np.concatenate([(part - part.mean(axis=0)) / part.std(axis=0) for part in parts])

    found = verdict("L5", setting="strict", lineages=[], responses=betas, sides=[(train, test)])
    expected = "pass"
    if how in ("all rows", "sessions"):
        expected = "flag"

    # Sessions that lie on one side each have mean 0 there as well: nothing of the test rows is in the training rows.
    if how == "sessions":
        expected = "pass"

    assert found.verdict == expected


def test_l5_fails_undeclared_adaptation_and_shows_both_scores_when_declared():
    step = Lineage("brain", range(20), range(10, 20), sees="brain")
    clean = Lineage("brain", range(10), range(10, 20), sees="brain")
    assert verdict("L5", setting="strict", lineages=[clean]).verdict == "pass"
    assert verdict("L5", setting="strict", lineages=[step]).verdict == "fail"
    alone = verdict("L5", setting="relax", lineages=[step])
    assert alone.verdict == "flag"
    assert "setting=strict as well" in alone.reason

    def scores(value):
        return pd.DataFrame([{"input": "brain", "metric": "two_way.clip", "value": value}])

    both = verdict("L5", setting="relax", lineages=[step], scores=scores(0.8), strict_scores=scores(0.7))
    assert "0.800 relaxed, 0.700 strict" in both.reason


def a_look(config="a"):
    return ledger.LedgerEntry("data", "split", config)


def test_the_ledger_only_grows_and_notices_lines_taken_out(tmp_path):
    assert ledger.read(tmp_path) == ledger.Ledger()
    for config in "aab":
        ledger.append(tmp_path, a_look(config))
    whole = ledger.read(tmp_path)
    assert whole.is_whole
    assert [x.config for x in whole.looks] == ["a", "a", "b"]
    file = tmp_path / ledger.FILE
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[2])
    assert not ledger.read(tmp_path).is_whole
    file.write_text("".join(lines).replace('"config": "a"', '"config": "c"', 1))
    assert not ledger.read(tmp_path).is_whole
    file.write_text("".join(lines[1:]))
    assert not ledger.read(tmp_path).is_whole


def test_l6_counts_looks_and_flags_other_configurations(tmp_path):
    splits = [(range(10), range(10, 20))]
    first = verdict("L6", ledger=ledger.read(tmp_path), splits=splits, config="a")
    assert (first.verdict, first.value) == ("pass", 0)
    assert "0 times before" in first.reason
    ledger.append(tmp_path, a_look())
    again = verdict("L6", ledger=ledger.read(tmp_path), splits=splits, config="a")
    assert (again.verdict, again.value) == ("pass", 1)
    tuned = verdict("L6", ledger=ledger.read(tmp_path), looks_beside=7, splits=splits, config="a")
    assert (tuned.verdict, tuned.value) == ("flag", 8)
    assert verdict("L6", ledger=ledger.read(tmp_path), splits=splits, config="b").verdict == "flag"


def test_l6_fails_a_choice_watched_on_test_stimuli():
    given = {"ledger": ledger.Ledger(), "splits": [(range(10), range(10, 20))]}
    assert verdict("L6", **given, monitored={"early stopping": (0, range(8, 10))}).verdict == "pass"
    found = verdict("L6", **given, monitored={"early stopping": (0, range(8, 12))})
    assert (found.verdict, found.value) == ("fail", 2)
    # Another fold trains on what this one tests, and may watch it.
    folds = [(range(10), range(10, 20)), (range(10, 20), range(10))]
    watched = {"early stopping": (1, range(12, 15))}
    assert verdict("L6", ledger=ledger.Ledger(), splits=folds, monitored=watched).verdict == "pass"


def samples(rng, pick, n=60, count=5):
    true = rng.random((n, 6, 6, 1), dtype=np.float32)
    drawn = np.rint(255 * rng.random((n, count, 6, 6, 1))).astype(np.uint8)
    error = np.square(drawn / 255 - true[:, None]).mean(axis=(2, 3, 4))
    chosen = pick(error, rng)
    scored = drawn[np.arange(n), chosen].astype(np.float32) / 255
    return Samples(drawn, scored, true)


def test_l7_catches_the_best_of_n_and_only_that(rng):
    best = verdict("L7", samples=samples(rng, lambda error, _: error.argmin(axis=1)))
    assert best.verdict == "fail"
    assert "oracle_" in best.reason
    first = verdict("L7", samples=samples(rng, lambda error, _: np.zeros(len(error), int)))
    assert first.verdict == "pass"
    assert "always number 1" in first.reason
    lots = verdict("L7", samples=samples(rng, lambda error, r: r.integers(0, 5, len(error))))
    assert lots.verdict == "pass"


def test_l7_knows_means_single_pictures_and_says_what_it_does_not_know(rng):
    given = samples(rng, lambda error, _: error.argmin(axis=1))
    mean = (given.drawn / 255).mean(axis=1)
    assert verdict("L7", samples=Samples(given.drawn, mean, given.true)).verdict == "pass"
    assert verdict("L7", samples=Samples(given.drawn, 1 - given.scored, given.true)).verdict == "flag"
    assert verdict("L7", samples=Samples(given.drawn[:, :1], given.scored, given.true)).verdict == "pass"


def test_l8_catches_a_circle_unless_it_is_marked_or_broken():
    def judged(encoder, decoder, is_marked=False):
        return verdict("L8", cycles=[CycleEvidence("cycle", encoder, decoder, is_marked)])

    assert judged(range(10), range(10, 20)).verdict == "pass"
    circle = judged(range(10), range(5, 15))
    assert (circle.verdict, circle.value) == ("fail", 5)
    assert judged(range(10), range(5, 15), is_marked=True).verdict == "flag"
    assert verdict("L8", cycles=[]).verdict == "not applicable"


def test_a_waiver_of_a_new_check_is_printed():
    found = run_checks(
        Evidence(cycles=[CycleEvidence("cycle", [1], [1])]), only=["L8"], waivers={"L8": "A. Smith, a demonstration"}
    )[0]
    assert found.verdict == "fail"
    assert not found.is_blocking
    assert found.waived_by == "A. Smith, a demonstration"
