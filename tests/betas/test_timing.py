"""Are late and early onsets found, and are right ones left alone? Every study is one whose onsets are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from phosphene.betas import BoldRun, design_check, onset_shift, read_runs
from phosphene.lab import make
from phosphene.lab.bold import scan
from tests.betas.test_pipeline import as_runs

SEEDS = range(6)


@pytest.fixture(scope="module")
def studies():
    labs = [make("nsd", n_train=20, n_test=20, n_voxels=60, trials_per_run=40, seed=s) for s in SEEDS]
    return [as_runs(scan(lab, seed=s, gap_s=3.0, blank_share=0.3)) for s, lab in zip(SEEDS, labs, strict=True)]


def moved(runs, by_s):
    return [replace(r, events=r.events.assign(onset=r.events["onset"] + by_s)) for r in runs]


def silent(rng) -> list[BoldRun]:
    """Two runs in which nothing responds: autoregressive noise, and walks that all voxels share."""
    runs = []
    for number in (1, 2):
        noise = rng.normal(size=(90, 30))
        for t in range(1, 90):
            noise[t] += 0.4 * noise[t - 1]
        shared = np.cumsum(rng.normal(size=(90, 2)), axis=0) @ rng.normal(size=(2, 30)) * 0.3
        onset = np.arange(20) * 8.0 + 6 + rng.integers(0, 3, 20)
        events = pd.DataFrame({"onset": onset, "duration": 2.0, "stimulus": [f"s{i}" for i in range(20)]})
        runs.append(BoldRun((500 + noise + shared).astype("f4"), 2.0, events, 1, number))
    return runs


def test_right_onsets_are_never_called_late_where_voxels_respond(studies):
    for runs in studies:
        shift = onset_shift(runs, step_s=0.5)
        assert not shift.is_suspect, str(shift)
        assert "no sign" in str(shift)


def test_false_alarms_are_rare_where_nothing_responds():
    rng = np.random.default_rng(1)
    alarms = sum(onset_shift(silent(rng), step_s=1.0).is_suspect for _ in range(40))
    assert alarms <= 6  # 15 %: 6 of 100 were counted with another seed


@pytest.mark.parametrize("late_s", [-3.0, 3.0, 5.0])
def test_planted_shifts_are_found_with_their_size(studies, late_s):
    for runs in studies:
        shift = onset_shift(moved(runs, late_s), step_s=0.5)
        assert shift.is_suspect, str(shift)
        # The lab's responses peak up to a second before the assumed one, as people's do.
        assert -late_s - 1.5 <= shift.best_s <= -late_s + 0.5
        assert shift.r2_moved > 1.25 * shift.r2_as_filed
        assert ("late" if late_s > 0 else "early") in str(shift)


def test_labels_play_no_part(studies):
    shuffled = [replace(r, events=r.events.assign(stimulus="x")) for r in studies[0]]
    np.testing.assert_array_equal(onset_shift(shuffled).r2, onset_shift(studies[0]).r2)


def test_a_shift_beyond_those_tried_is_said_to_be_at_the_edge(studies):
    shift = onset_shift(moved(studies[0], 5.0), largest_s=3.0, step_s=0.5)
    assert shift.at_the_edge
    if shift.is_suspect:
        assert "or further" in str(shift)


def test_haxby_s_files_are_late_by_six_to_seven_seconds(shared_data):
    runs = read_runs(shared_data / "haxby2001_slice" / "haxby2001", "001", pattern="bold_1slice.nii.gz").runs
    shift = onset_shift(runs)
    assert shift.is_suspect
    assert shift.best_s == pytest.approx(-6.25, abs=1.0)  # blocks of 22.5 s: a broad peak
    assert shift.error_s < 0.5
    assert shift.r2_moved > 4 * shift.r2_as_filed
    check = design_check(runs, moved_s=-6.25, shift=shift)
    assert [f.level for f in check.findings] == ["note", "ok", "ok", "ok", "ok"]
    assert design_check(runs, shift=shift).findings[0].level == "problem"
    worse = design_check(runs, moved_s=3.0, shift=shift).findings[0]
    assert worse.level == "problem"
    assert "but moved by -7" in worse.detail


# -- the rest of the design --------------------------------------------------------------------------------------------


def one_run(onset, n=60, stimuli=None, number=1, **changes) -> BoldRun:
    rng = np.random.default_rng(number)
    names = [f"s{i}" for i in range(len(onset))] if stimuli is None else stimuli
    events = pd.DataFrame({"onset": onset, "duration": 2.0, "stimulus": names})
    return BoldRun(100 + rng.normal(size=(n, 5)).astype("f4"), 1.0, events, 1, number, **changes)


def levels(runs) -> dict[str, str]:
    return {f.what: f.level for f in design_check(runs).findings}


def test_inflation_is_one_for_trials_far_apart_and_grows_as_they_near():
    apart = design_check([one_run(np.arange(5) * 50.0 + 5, n=260)]).table["inflation"][0]
    near = design_check([one_run(np.arange(12) * 4.0 + 5)]).table["inflation"][0]
    nearer = design_check([one_run(np.arange(24) * 2.0 + 5)]).table["inflation"][0]
    assert apart == pytest.approx(1.0, abs=0.35)  # drift takes its part
    assert apart < near < nearer


@pytest.mark.fault(49)
def test_a_design_without_repeats_is_a_problem_and_one_with_is_none():
    onset = np.arange(6) * 8.0 + 4
    assert levels([one_run(onset), one_run(onset, number=2, stimuli=list("abcdef"))])["repeats"] == "problem"
    both = design_check([one_run(onset), one_run(onset, number=2)])
    assert {f.what: f.level for f in both.findings}["repeats"] == "ok"
    assert both.repeats == {2: 6}
    assert both.across_runs == 6


@pytest.mark.fault(50)
def test_trials_that_cannot_be_told_apart_are_a_problem():
    assert levels([one_run(5 + 0.02 * np.arange(12))])["collinearity"] == "problem"


@pytest.mark.fault(47)
def test_a_run_that_was_cut_off_is_noted():
    onset = np.arange(6) * 8.0 + 4
    found = levels([one_run(onset, n=200), one_run(onset, n=60, number=2), one_run([4.0, 55.0], n=60, number=3)])
    assert found["run lengths"] == "note"
    assert found["ends of runs"] == "note"
