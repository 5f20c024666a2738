"""What kind of numbers runs hold: each case gave betas of other units without a word."""

import re
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from phosphene.betas import BetaOptions, BoldRun, single_trial_betas
from phosphene.betas.signals import signal_levels
from phosphene.errors import DataError, PhospheneWarning
from tests.betas.small_bids import STRENGTH, TR_S, series, trials

N_VOXELS = 48
ANSWERS = slice(0, 24)


def bold(change=lambda volumes, number: volumes, n_runs=3):
    """Runs (n_volumes, 48) of which the first half of the voxels answers, changed run by run."""
    runs = []
    for number in range(n_runs):
        events = trials(number + 1)
        volumes = series(events, seed=number).reshape(N_VOXELS, -1).T.copy()
        table = pd.DataFrame(events, columns=["onset", "duration", "stimulus"])
        runs.append(BoldRun(change(volumes, number), TR_S, table, run=number + 1))

    return runs


def fit(runs, kind="lsa", **options):
    """Betas, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = single_trial_betas(runs, BetaOptions(kind=kind, **options))

    return result, [str(one.message) for one in caught]


def truth(result, voxels=ANSWERS):
    betas = np.asarray(result.trials.betas)[:, voxels].mean(axis=1)
    planted = [STRENGTH[stimulus] for stimulus in result.trials.table["stimulus"]]
    return float(np.corrcoef(betas, planted)[0, 1])


def demeaned(volumes):
    return volumes - volumes.mean(axis=0)


def in_run_2(change):
    """A change of the second run alone."""
    return lambda volumes, number: change(volumes) if number == 1 else volumes


@pytest.fixture(scope="module")
def plain():
    return fit(bold())


def test_ordinary_runs_are_left_as_they_are(plain):
    result, told = plain
    assert not told
    assert truth(result) > 0.99
    assert "run_scales" not in result.trials.provenance
    levels = signal_levels(bold(), percent=True)
    assert levels.has_mean
    assert levels.scales == (1.0, 1.0, 1.0)


def test_air_in_a_loose_mask_has_a_mean():
    """Magnitudes of noise have a mean 1.91 times their spread: percentages of it are poor, and are percentages."""
    rng = np.random.default_rng(0)

    def change(volumes, _):
        air = rng.rayleigh(5, size=(len(volumes), 9 * N_VOXELS))  # a tenth is brain
        return np.concatenate([volumes, air], axis=1)

    result, told = fit(bold(change))
    assert not told
    assert result.trials.provenance["unit"] == "percent signal change"


@pytest.mark.parametrize("pattern", ["bold_1slice.nii.gz", "bold_25mm.nii.gz"])
def test_real_runs_with_the_air_around_the_head_are_left_as_they_are(shared_data, pattern):
    paths = sorted((shared_data / "haxby2001_slice/haxby2001/sub001/BOLD").glob(f"*/{pattern}"))
    events = pd.DataFrame({"onset": [10.0, 40.0], "duration": 2.0, "stimulus": ["a", "b"]})
    runs = []
    for number, path in enumerate(paths):
        values = np.asarray(nib.load(path).dataobj)
        runs.append(BoldRun(values.reshape(-1, values.shape[3]).T, 2.5, events, run=number + 1))

    assert len(runs) == 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        levels = signal_levels(runs, percent=True)

    assert levels.has_mean
    assert not levels.are_scaled


# -- the mean ----------------------------------------------------------------------------------------------------------


OFFSETS = np.random.default_rng(3).uniform(-300, 300, size=N_VOXELS)


@pytest.mark.parametrize("kind", ["lsa", "d"])
@pytest.mark.parametrize(
    "change",
    [
        demeaned,
        lambda volumes: demeaned(volumes) / volumes.std(axis=0),
        lambda volumes: volumes - volumes[0],
        lambda volumes: volumes - np.median(volumes, axis=0),
        lambda volumes: 100 * (volumes / volumes.mean(axis=0) - 1),
        lambda volumes: volumes - volumes.mean(),
        lambda volumes: volumes - 1000 + OFFSETS,
        lambda volumes: np.round(demeaned(volumes)).astype(np.int16),
    ],
    ids=["mean", "z", "first volume", "median", "percent", "mean of the image", "about 0", "integers"],
)
def test_without_a_mean_betas_are_in_the_units_of_the_file(change, kind):
    result, told = fit(bold(lambda volumes, _: change(volumes)), kind)
    assert any("no percentage of it can be taken" in one for one in told)
    assert result.trials.provenance["unit"] == "arbitrary, as in the file"
    assert truth(result) > 0.95
    assert np.abs(result.trials.betas).max() < 100


def test_a_mean_of_100_is_one(plain):
    result, told = fit(bold(lambda volumes, _: 100 * volumes / volumes.mean(axis=0)))
    assert not told
    np.testing.assert_allclose(result.trials.betas, plain[0].trials.betas, atol=0.03)


@pytest.mark.parametrize(
    "change", [demeaned, lambda volumes: demeaned(volumes) / volumes.std(axis=0)], ids=["mean", "z"]
)
def test_a_run_that_alone_lost_its_mean_is_named(change):
    runs = bold(in_run_2(change))
    with pytest.raises(
        DataError, match=r"session 1 run 2 is without a mean .* 2 runs, such as session 1 run 1, are with it"
    ):
        single_trial_betas(runs, BetaOptions(kind="lsa"))


def test_who_asks_for_the_units_of_the_file_gets_them_for_a_run_without_its_mean():
    result, told = fit(bold(in_run_2(demeaned)), percent=False)
    assert not told
    assert truth(result) > 0.99


def test_voxels_without_a_mean_among_others_get_0_and_are_counted(plain):
    """Percent of a mean of 1e-13 were 1e12."""
    lost = [0, 5, 30]

    def change(volumes, _):
        volumes[:, lost] = demeaned(volumes[:, lost]) + 0.01
        return volumes

    result, told = fit(bold(change))
    assert [one.split(";")[0] for one in told] == [
        "3 of 48 voxels have no mean that stands out from their noise, so that no percentage of it can be taken"
    ]
    assert (result.trials.betas[:, lost] == 0).all()
    others = np.setdiff1d(np.arange(N_VOXELS), lost)
    np.testing.assert_allclose(result.trials.betas[:, others], plain[0].trials.betas[:, others], atol=1e-4)


# -- the scale ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "kind"), [(0.01, "lsa"), (2.0, "lsa"), (1000.0, "lsa"), (10.0, "d")])
def test_runs_in_other_scales_are_brought_to_one(factor, kind):
    plain = fit(bold(), kind)[0].trials.betas
    result, told = fit(bold(in_run_2(lambda volumes: volumes * factor)), kind)
    assert len([one for one in told if "so runs were scaled differently" in one]) == 1
    assert "run_scales" in result.trials.provenance
    assert truth(result) > 0.99
    np.testing.assert_allclose(result.trials.betas, plain, atol=0.05)


def test_a_session_that_is_a_little_brighter_is_no_other_scale():
    result, told = fit(bold(in_run_2(lambda volumes: volumes * 1.3)))
    assert not told
    assert "run_scales" not in result.trials.provenance


def test_scaled_runs_in_the_units_of_the_file_are_named():
    _, told = fit(bold(in_run_2(lambda volumes: volumes * 10)), percent=False)
    assert len(told) == 1
    found = re.match(r"session 1 run 2 varies ([0-9.]+) times as much as session 1 run [13]: if", told[0])
    assert float(found[1]) == pytest.approx(10, rel=0.1)  # noise is drawn anew in each run


def test_runs_without_a_mean_that_were_standardised_differently_are_named():
    def change(volumes, number):
        volumes = demeaned(volumes)
        if number == 1:
            volumes /= volumes.std(axis=0) * 10

        return volumes

    _, told = fit(bold(change))
    assert any("as much as session 1 run 2: if their series were scaled or standardised" in one for one in told)


# -- voxels and runs without a signal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 700])
def test_a_voxel_that_lacks_a_run_gets_0_in_all_and_is_counted(plain, value):
    """Zeros in one run, as fMRIPrep leaves outside of the field of view, made the percents of all other runs too large."""

    def change(volumes):
        volumes[:, 2:4] = value
        return volumes

    result, told = fit(bold(in_run_2(change)))
    assert len(told) == 1
    assert "2 of 48 voxels are the same in all volumes of a run (such as session 1 run 2)" in told[0]
    assert (result.trials.betas[:, 2:4] == 0).all()
    assert (result.trials.voxels["on_off_r2"][2:4] == 0).all()
    np.testing.assert_array_equal(result.trials.betas[:, 4:], plain[0].trials.betas[:, 4:])


@pytest.mark.parametrize("value", [0, 5.1])
def test_a_run_that_never_changes_is_refused(value):
    runs = bold(in_run_2(lambda volumes: np.full_like(volumes, value)))
    with pytest.raises(DataError, match="no voxel of session 1 run 2 changes from volume to volume"):
        single_trial_betas(runs, BetaOptions(kind="lsa"))


@pytest.mark.fault(2)
@pytest.mark.parametrize(("spike", "kind"), [(1e30, "lsa"), (-3e38, "lsa"), (1e30, "d")])
def test_a_spike_spoils_its_voxel_alone(spike, kind):
    plain = fit(bold(), kind)[0].trials.betas

    def change(volumes):
        volumes[5, 40] = spike
        return volumes.astype(np.float32)

    result, told = fit(bold(in_run_2(change)), kind)
    assert any("1 of 48 voxels hold values beyond 1e+15" in one for one in told)
    assert not any("overflow" in one or "invalid" in one for one in told)
    assert (result.trials.betas[:, 40] == 0).all()
    assert np.isfinite(result.trials.betas).all()
    np.testing.assert_allclose(result.trials.betas[:, :40], plain[:, :40], atol=0.05)  # its voxel left the noise pool


def test_no_voxel_that_has_every_run_is_refused():
    def change(volumes, number):
        half = slice(0, 24) if number == 0 else slice(24, 48)
        volumes[:, half] = 0
        return volumes

    with pytest.raises(DataError, match="none of the 48 voxels has a signal in every run"):
        single_trial_betas(bold(change, n_runs=2), BetaOptions(kind="lsa"))


@pytest.mark.fault(1)
def test_what_is_not_finite_is_still_named_by_its_place():
    def change(volumes):
        volumes[7, 3] = np.nan
        return volumes

    with pytest.raises(DataError, match="volume 7 of session 1 run 2 is nan in voxel 3"):
        single_trial_betas(bold(in_run_2(change)), BetaOptions(kind="lsa"))


def test_a_warning_stands_where_the_user_called():
    with pytest.warns(PhospheneWarning, match="no percentage") as caught:
        single_trial_betas(bold(lambda volumes, _: demeaned(volumes)), BetaOptions(kind="lsa"))

    assert caught[0].filename == __file__
