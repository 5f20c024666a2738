"""Each check must catch what it is for, and stay quiet otherwise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phosphene.errors import ConfigError
from phosphene.metrics import Decoded, compute_scores, similarity
from phosphene.metrics.controls import paired_differences
from phosphene.reporting.conclusion import conclude
from phosphene.validity import CHECKS, Evidence, Lineage, Redecoding, picture_digests, run_checks, verdict_table

FAST = {"n_draws": 300, "n_permutations": 1000}


@pytest.fixture
def rng():
    return np.random.default_rng(9)


def verdict(check_id, **evidence):
    return run_checks(Evidence(**evidence), only=[check_id])[0]


def test_without_evidence_every_check_says_so_and_none_passes():
    verdicts = run_checks(Evidence())
    assert [v.id for v in verdicts] == list(CHECKS)
    assert {v.verdict for v in verdicts} <= {"not applicable", "not tested"}
    assert all(v.reason for v in verdicts)
    table = verdict_table(verdicts)
    assert list(table.columns) == ["id", "verdict", "value", "reason"]


@pytest.mark.fault(24)
def test_s1_catches_a_shared_id():
    found = verdict("S1", splits=[(["a", "b"], ["c"]), (["a", "c"], ["c", "d"])])
    assert found.verdict == "fail"
    assert "(c)" in found.reason


@pytest.mark.fault(25)
def test_s1_catches_one_picture_under_two_ids(rng):
    pictures = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    pictures[4] = pictures[1]
    digests = dict(zip("abcde", picture_digests(pictures), strict=True))
    found = verdict("S1", splits=[("abc", "de")], digests=digests)
    assert found.verdict == "fail"
    assert found.value == 1
    assert "b = e" in found.reason
    assert verdict("S1", splits=[("acd", "b")], digests=digests).verdict == "pass"


def test_s1_says_when_pixels_were_not_compared():
    assert verdict("S1", splits=[("ab", "c")]).verdict == "flag"


def test_digests_tell_pictures_apart_and_ignore_their_number_type(rng):
    pictures = rng.integers(0, 256, (3, 6, 4, 1), dtype=np.uint8)
    same = picture_digests(pictures)
    assert same == picture_digests(pictures / 255) == picture_digests((pictures / 255).astype(np.float32)[..., 0])
    assert len(set(same)) == 3
    assert same != picture_digests(pictures.reshape(3, 4, 6, 1))  # the same bytes in another shape


def test_s5_catches_repeats_on_both_sides_of_an_inner_fold():
    trials = np.array([1, 1, 2, 2, 3, 3])
    plain = [(np.delete(trials, [0, 1, 2]), trials[:3])]
    grouped = [(trials[2:], trials[:2])]
    assert verdict("S5", inner_folds={"ridge": plain}).verdict == "fail"
    assert verdict("S5", inner_folds={"ridge": grouped}).verdict == "pass"
    assert verdict("S5", inner_folds={}).verdict == "not applicable"


@pytest.mark.parametrize(("n", "expected"), [(0, "fail"), (1, "fail"), (10, "flag"), (60, "pass")])
@pytest.mark.fault(22)
def test_s10_judges_the_size_of_the_test_set(n, expected):
    assert verdict("S10", splits=[(range(100, 200), range(n))]).verdict == expected


def test_s10_flags_a_single_class():
    found = verdict("S10", splits=[([], range(60))], test_labels=np.zeros(60))
    assert found.verdict == "flag"
    assert "one class" in found.reason


def test_l1_tells_leakage_from_a_transductive_step():
    clean = Lineage("standardise", range(10), range(10, 20))
    brain = Lineage("whiten", range(20), range(10, 20), sees="brain")
    both = Lineage("ridge", range(11), range(10, 20))
    assert verdict("L1", lineages=[clean]).verdict == "pass"
    relaxed = verdict("L1", lineages=[clean, brain])
    assert relaxed.verdict == "flag"
    assert relaxed.reason.startswith("Transductive")
    leak = verdict("L1", lineages=[clean, brain, both])
    assert leak.verdict == "fail"
    assert "ridge (1 trials)" in leak.reason


def test_l2_catches_statistics_of_other_test_rows(rng):
    betas, weights = rng.standard_normal((30, 12)).astype(np.float32), rng.standard_normal((12, 5)).astype(np.float32)

    def honest(x, rows, **handing):
        return x @ weights

    def standardised(x, rows, **handing):
        return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6) @ weights

    def ordered(x, rows, **handing):
        return x @ weights + 0.01 * np.arange(len(x))[:, None]

    assert verdict("L2", redecoding=Redecoding(betas, honest)).verdict == "pass"
    assert verdict("L2", redecoding=Redecoding(betas, standardised)).verdict == "fail"
    assert verdict("L2", redecoding=Redecoding(betas, ordered)).verdict == "fail"
    assert verdict("L2", redecoding=Redecoding(betas[:1], honest)).verdict == "not applicable"


def paired_similarity(rng, n=60, noise=1.0):
    true = rng.standard_normal((n, 40))
    return similarity(true + noise * rng.standard_normal((n, 40)), true)


@pytest.mark.fault(8)
def test_b1_catches_shifted_and_sorted_trials(rng):
    s = paired_similarity(rng)
    ids = rng.permutation(60)
    assert verdict("B1", similarity=s, test_ids=ids).verdict == "pass"
    shifted = verdict("B1", similarity=np.roll(s, 3, axis=0), test_ids=ids)
    assert shifted.verdict == "fail"
    assert "shifted by -3" in shifted.reason
    order = np.argsort(ids)
    assert "sorted by id" in verdict("B1", similarity=s[order], test_ids=ids).reason
    own = rng.permutation(60)
    found = verdict("B1", similarity=s[own], orders={"file order": own})
    assert found.verdict == "fail"
    assert "file order" in found.reason


def test_b1_stops_when_nothing_was_decoded(rng):
    found = verdict("B1", similarity=similarity(rng.standard_normal((60, 10)), rng.standard_normal((60, 10))))
    assert found.verdict == "fail"
    assert "nothing was decoded" in found.reason


def test_b1_does_not_cry_misaligned_over_sorted_classes(rng):
    """Neighbours of a class do nearly as well as the truth for a decoder that knows the class only."""
    classes = np.repeat([0, 1], 30)
    wrong = 0
    for _ in range(20):
        pictures = rng.standard_normal((60, 10)) + 3 * (2 * classes[:, None] - 1) * np.linspace(-1, 1, 10)
        guess = 3 * (2 * classes[:, None] - 1) * np.linspace(-1, 1, 10) + 0.2 * rng.standard_normal((60, 10))
        wrong += verdict("B1", similarity=similarity(guess, pictures)).verdict == "fail"
    assert wrong == 0


def test_b1_rarely_alarms_on_aligned_weak_decoding(rng):
    failed = sum("with" in v.reason and v.verdict == "fail" for v in (
        verdict("B1", similarity=paired_similarity(rng, n=20, noise=3.0)) for _ in range(60)))  # fmt: skip
    assert failed <= 3


def tables(rng, noise):
    n = 40
    true = rng.random((n, 12, 12, 1), dtype=np.float32)
    ours = (1 - noise) * true + noise * rng.random(true.shape, dtype=np.float32)
    inputs = {
        "brain": ours, "shuffled": np.roll(ours, 7, axis=0), "noise": rng.random(true.shape, dtype=np.float32),
        "mean": np.repeat(true.mean(axis=0, keepdims=True), n, axis=0),
    }  # fmt: skip
    scores = {name: compute_scores(Decoded(np.arange(n), x, true), **FAST) for name, x in inputs.items()}
    table = pd.concat([s.table("test", name) for name, s in scores.items()], ignore_index=True)
    differences = pd.concat(
        [paired_differences(scores["brain"], s, name) for name, s in scores.items() if name != "brain"]
    )
    return table, differences


def test_b3_passes_real_decoding_and_fails_a_decoder_that_knows_nothing(rng):
    table, differences = tables(rng, 0.4)
    for given in (None, differences):
        assert verdict("B3", scores=table, differences=given).verdict == "pass"
    nothing, differences = tables(rng, 1.0)
    assert verdict("B3", scores=nothing, differences=differences).verdict == "fail"
    partly = verdict("B3", scores=table[table["input"] != "noise"])
    assert partly.verdict == "flag"
    assert "Not run: noise" in partly.reason
    assert verdict("B3", scores=table[table["input"] == "brain"]).verdict == "not applicable"


def test_waivers_keep_the_verdict_and_print_the_name():
    evidence = Evidence(splits=[("ab", "b")])
    found = run_checks(evidence, only=["S1"], waivers={"S1": "J. Doe, pilot data"})
    assert found[0].verdict == "fail"
    assert not found[0].is_blocking
    assert verdict_table(found)["reason"][0].startswith("Waived by J. Doe, pilot data.")
    with pytest.raises(ConfigError, match="Did you mean 'S1'"):
        run_checks(evidence, waivers={"s1": "me"})
    with pytest.raises(ConfigError, match="needs a name"):
        run_checks(evidence, waivers={"S1": " "})
    with pytest.raises(ConfigError, match="no check"):
        run_checks(evidence, only=["S99"])


def row(metric, value, low, high, chance=0.5, p=0.0001, input="brain", setting="strict", n=100):
    return {"split": "test", "input": input, "metric": metric, "value": value, "ci_low": low, "ci_high": high,
            "chance": chance, "p": p, "n": n, "setting": setting}  # fmt: skip


def test_conclusion_claims_nothing_when_intervals_overlap():
    scores = pd.DataFrame([
        row("two_way.pixels", 0.90, 0.85, 0.94), row("pixcorr", 0.74, 0.70, 0.78, 0.6),
        row("two_way.pixels", 0.86, 0.80, 0.91, input="category"), row("pixcorr", 0.73, 0.70, 0.76, 0.6, input="category"),
        row("two_way_within_class.pixels", 0.52, 0.45, 0.59, p=0.31),
    ])  # fmt: skip
    said = " ".join(conclude(scores))
    assert "Not above the category-only decoder in PixCorr and two-way identification (pixels)." in said
    assert "Does not tell items of one class apart" in said
    assert "Against the mean response: not tested." in said
    assert "No validity check was run." in said
    assert "not known" in said


def test_conclusion_names_what_is_above_and_what_is_not():
    scores = pd.DataFrame([
        row("two_way.pixels", 0.90, 0.85, 0.94), row("mse", 0.04, 0.03, 0.05, 0.06),
        row("two_way.pixels", 0.50, 0.45, 0.55, input="mean"), row("mse", 0.055, 0.045, 0.06, 0.06, input="mean"),
    ])  # fmt: skip
    said = conclude(scores)
    expected = "Partly above the mean response in two-way identification (pixels), not distinguishable from it in MSE."
    assert expected in said


def test_conclusion_reports_chance_transduction_failures_and_gaps():
    scores = pd.DataFrame([row("two_way.clip", 0.52, 0.40, 0.64, p=0.4, setting="relax", n=12)])
    verdicts = verdict_table(run_checks(Evidence(
        splits=[("ab", "b")], lineages=[Lineage("whiten", [1, 2], [2, 3], sees="brain")])))  # fmt: skip
    said = conclude(scores, verdicts)
    assert said[0].startswith("Check S1 failed")
    assert any(s.startswith("Not above chance: two-way identification (clip) 0.520 [0.400, 0.640]") for s in said)
    assert any("interval is wide (0.24)" in s for s in said)
    assert any(s.startswith("Transductive: responses of test trials") for s in said)
    assert said[-1].startswith("Not tested: S2,")
    assert not any("Above chance" in s for s in said)


def test_conclusion_without_scores_says_that_nothing_can_be_said():
    empty = pd.DataFrame([row("pixcorr", 0.5, 0.4, 0.6, input="mean")])
    assert conclude(empty)[-1].startswith("No score of decoded brain responses")
