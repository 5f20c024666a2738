"""Bad numbers: found, named, dropped or imputed, and never passed on."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from phosphene.data import Screen, check_trials, ready
from phosphene.errors import ConfigError, DataError
from phosphene.types import Trials


@pytest.fixture
def betas():
    return np.random.default_rng(0).standard_normal((30, 8)).astype("f4")


def trials(betas):
    return Trials(np.asarray(betas), pd.DataFrame({"stimulus": [f"p{i}" for i in range(len(betas))]}), subject="s")


def levels(findings):
    return {f.what: f.level for f in findings}


def test_good_betas_pass_unchanged_as_the_same_view(betas):
    t = trials(betas)
    assert ready(t) is t
    assert set(levels(check_trials(t)).values()) == {"ok"}


@pytest.mark.fault(1)
def test_nan_voxels_are_listed_then_dropped_or_imputed_and_recorded(betas):
    betas[4, 2] = betas[9, 5] = np.nan
    t = trials(betas)
    with pytest.raises(DataError, match=r"2 of 8 voxels have NaN: 2, 5; the first is voxel 2 in trial '4' \(row 4\)"):
        ready(t)
    dropped = ready(t, "drop")
    assert np.array_equal(dropped.betas, np.delete(betas, [2, 5], axis=1))
    assert dropped.provenance["dropped voxels"] == "2, 5"
    filled = ready(t, "impute")
    assert filled.betas[4, 2] == pytest.approx(np.nanmean(betas[:, 2]), rel=1e-5)
    assert np.array_equal(np.isnan(betas), filled.betas != np.where(np.isnan(betas), 0, betas))
    assert filled.provenance["imputed"].startswith("2 values")
    assert levels(check_trials(t))["NaN"] == "problem"


@pytest.mark.fault(1)
def test_imputing_a_test_trial_uses_the_training_mean_alone(betas):
    test = betas[20:].copy() + 100
    test[3, 1] = np.nan
    filled = ready(trials(test[:, :]), "impute", train=trials(betas[:20] + 100))
    assert filled.betas[3, 1] == pytest.approx(betas[:20, 1].mean() + 100, rel=1e-6)


@pytest.mark.fault(2)
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30, -3e20, 1e6])
def test_infinite_values_and_spikes_are_found(betas, value):
    betas[11, 3] = value
    t = trials(betas)
    with pytest.raises(DataError, match=r"voxel 3 in trial '11'"):
        ready(t)
    assert ready(t, "drop").n_voxels == 7
    found = levels(check_trials(t))
    assert found["infinite values" if np.isinf(value) else "spikes"] == "problem"


@pytest.mark.fault(2)
def test_large_but_plausible_values_are_no_spikes(betas):
    betas[11, 3] = 60  # sixty standard deviations: odd, but real scanners do it
    assert len(ready(trials(betas))) == 30


@pytest.mark.fault(3)
def test_a_trial_without_values_is_named_then_left_out(betas):
    betas[7] = np.nan
    t = trials(betas)
    with pytest.raises(DataError, match=r"1 trials have no finite value, first '7' \(row 7\)"):
        ready(t)
    out = ready(t, "drop")
    assert (len(out), out.n_voxels) == (29, 8)
    assert out.provenance["dropped trials"] == "7"
    assert 7 not in set(out.table["trial"])


@pytest.mark.fault(1)
def test_dropping_that_would_leave_nothing_is_refused(betas):
    betas[np.arange(8), np.arange(8)] = np.nan
    with pytest.raises(DataError, match="leaves nothing"):
        ready(trials(betas), "drop")


@pytest.mark.fault(4)
@pytest.mark.fault(5)
def test_constant_voxels_are_noted_and_those_constant_in_training_apart(betas):
    betas[:, 1] = 3.0
    betas[:20, 6] = 2.0
    notes = {f.what: f.detail for f in check_trials(trials(betas), train=trials(betas[:20]))}
    assert "1 of 8 voxels of s never change: 1." in notes["constant voxels"]
    assert "1 voxels of s change in the test trials only: 6." in notes["constant in training"]


@pytest.mark.fault(6)
def test_all_constant_voxels_are_a_problem(betas):
    t = trials(np.full((30, 8), 0.5))
    assert levels(check_trials(t))["constant voxels"] == "problem"
    with pytest.raises(DataError, match="none of the 8 usable voxels"):
        ready(t)


@pytest.mark.fault(14)
def test_betas_scaled_by_300_are_told_by_their_range_and_percent_are_not(betas):
    percent = betas * 1.5
    assert "scale" not in levels(check_trials(trials(percent)))
    note = next(f for f in check_trials(trials(np.rint(percent * 300).astype(np.int16))) if f.what == "scale")
    assert "NSD's int16" in note.detail
    assert "1/300" in note.next_step


def test_raw_intensities_are_told_from_betas(betas):
    note = next(f for f in check_trials(trials(betas * 20 + 1000)) if f.what == "scale")
    assert "raw scanner intensities" in note.detail


@pytest.mark.fault(19)
@pytest.mark.fault(20)
@pytest.mark.parametrize(("dtype", "words"), [(complex, "complex"), (object, "Python objects")])
def test_complex_numbers_and_objects_are_refused(betas, dtype, words):
    t = trials(betas.astype(dtype))
    with pytest.raises(DataError, match=words):
        ready(t)
    assert check_trials(t)[0].level == "problem"


@pytest.mark.fault(21)
def test_square_betas_are_noted_because_a_transpose_cannot_be_told(betas):
    assert "square betas" in levels(check_trials(trials(betas[:8])))


@pytest.mark.fault(21)
def test_a_table_as_long_as_the_betas_are_wide_hints_at_the_transpose(betas):
    with pytest.raises(DataError, match="transposed"):
        Trials(betas.T, pd.DataFrame({"stimulus": range(30)}))


@pytest.mark.fault(7)
def test_a_table_one_row_short_says_which_side_has_too_many(betas):
    with pytest.raises(DataError, match="30 rows but the trial table has 29: betas has 1 too many"):
        Trials(betas, pd.DataFrame({"stimulus": range(29)}))


@pytest.mark.fault(9)
def test_duplicate_trial_ids_are_refused_with_id_and_row(betas):
    table = pd.DataFrame({"stimulus": range(30), "trial": [*range(29), 4]})
    with pytest.raises(DataError, match=r"first '4' in row 29"):
        Trials(betas, table, subject="s")


@pytest.mark.fault(42)
def test_a_wrong_roi_name_suggests_the_nearest_and_lists_all(betas):
    voxels = pd.DataFrame({"roi.V1": [True] * 4 + [False] * 4, "roi.V2": [False] * 4 + [True] * 4})
    t = Trials(betas, pd.DataFrame({"stimulus": range(30)}), voxels)
    with pytest.raises(DataError, match=r"no ROI 'v1'. Did you mean 'V1'\? Known: V1, V2"):
        t.select(roi="v1")


@pytest.mark.fault(43)
def test_an_empty_intersection_of_rois_is_refused_with_their_sizes(betas):
    voxels = pd.DataFrame({"roi.V1": [True] * 4 + [False] * 4, "roi.V2": [False] * 4 + [True] * 4})
    t = Trials(betas, pd.DataFrame({"stimulus": range(30)}), voxels)
    with pytest.raises(DataError, match=r"'V1&V2' among 8.*V1 4, V2 4"):
        t.select(roi="V1&V2")


def test_a_screen_fitted_on_training_trials_applies_to_others_and_survives_saving(betas):
    train = betas.copy()
    train[0, 0] = np.nan
    screen = Screen("drop").fit(trials(train))
    tensors, meta = screen.state()
    again = Screen.from_state(tensors, json.loads(json.dumps(meta)))
    assert np.array_equal(again.apply(trials(betas)).betas, betas[:, 1:])
    bad = betas.copy()
    bad[2, 4] = np.nan
    with pytest.raises(DataError, match="NaN"):
        again.apply(trials(bad))
    with pytest.raises(DataError, match=r"have 7 voxels .* fitted on 8"):
        again.apply(trials(betas[:, 1:]))


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'drop'"):
        Screen("drp")
