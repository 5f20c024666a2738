import os
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from phosphene.betas import BetaOptions, BoldRun, HrfLibrary, single_trial_betas
from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.lab import hrf_shapes, make
from phosphene.lab.bold import Scanner, scan


def as_runs(bold, **changes) -> list[BoldRun]:
    runs = []
    for run in bold:
        events = run.trials.rename(columns={"onset_s": "onset"}).assign(duration=bold.scanner.stimulus_s)
        events = events[["onset", "duration", "stimulus", "trial"]]
        runs.append(BoldRun(run.volumes, run.tr_s, events, run.session, run.run, **changes))
    return runs


def against_truth(result, bold, voxels) -> float:
    """Median over voxels of the correlation of betas with truth."""
    ours, truth = result.trials.betas[:, voxels], bold.betas[:, voxels]
    ours, truth = ours - ours.mean(axis=0), truth - truth.mean(axis=0)
    return float(np.median((ours * truth).sum(axis=0) / np.sqrt((ours**2).sum(axis=0) * (truth**2).sum(axis=0))))


@pytest.fixture(scope="module")
def study():
    return make("nsd", n_train=50, n_test=50, n_voxels=300, trials_per_run=50, seed=1)


@pytest.fixture(scope="module")
def responsive(study):
    return study.voxels["noise_ceiling"].to_numpy() > 0.05


@pytest.fixture(scope="module")
def quiet(study):
    return scan(study, Scanner.noiseless(extra_volumes=7))


@pytest.fixture(scope="module")
def noisy(study):
    return scan(study, physiology_sd=2.0, motion_sd=2.0, noise_sd=0.5)


@pytest.fixture(scope="module")
def fitted(noisy):
    runs = as_runs(noisy)
    return {kind: single_trial_betas(runs, BetaOptions(kind=kind)) for kind in ("lsa", "lss", "b", "c", "d")}


# -- against the truth -------------------------------------------------------------------------------------------------


def test_without_noise_the_truth_comes_back_in_percent(quiet, responsive):
    """Given a table of the voxels' own responses, of a family that our library is not from."""
    voxels = np.flatnonzero(responsive)[::4]
    table = hrf_shapes.responses(np.arange(0, 50, 0.1), quiet.hrf[voxels], 0.1).T  # (n_times, n_voxels)
    runs = [replace(run, volumes=np.ascontiguousarray(run.volumes[:, voxels])) for run in as_runs(quiet)]
    result = single_trial_betas(runs, BetaOptions(kind="b"), library=HrfLibrary("the voxels' own", table))
    np.testing.assert_array_equal(result.trials.voxels["hrf"], np.arange(len(voxels)))
    # Percent are of the mean of all volumes, which responses raise above the baseline.
    mean_signal = result.trials.voxels["mean_signal"].to_numpy()
    ours = result.trials.betas * (mean_signal / quiet.baseline[voxels])
    np.testing.assert_allclose(ours, quiet.betas[:, voxels], atol=0.01)  # a table is convolved in steps of 0.1 s
    assert np.corrcoef(mean_signal, quiet.baseline[voxels])[0, 1] > 0.999


def test_without_noise_our_library_comes_near_responses_that_it_does_not_hold(quiet, responsive):
    runs = as_runs(quiet)
    chosen = single_trial_betas(runs, BetaOptions(kind="b"))
    assumed = single_trial_betas(runs, BetaOptions(kind="lsa"))
    assert against_truth(chosen, quiet, responsive) > 0.98
    assert against_truth(chosen, quiet, responsive) < 0.999  # that would be an inverse crime
    assert against_truth(assumed, quiet, responsive) < 0.95


def test_responses_are_found_for_most_voxels_at_the_scanner_s_own_noise(study, responsive):
    bold = scan(study)
    found = single_trial_betas(as_runs(bold), BetaOptions(kind="b")).trials.voxels["hrf"].to_numpy()
    time = np.arange(0, 20, 0.01)
    library_peaks_s = time[HrfLibrary().responses(time, bold.scanner.stimulus_s).argmax(axis=1)]
    peaks_s, _ = hrf_shapes.peaks(bold.hrf, bold.scanner.stimulus_s)
    near = np.abs(library_peaks_s[found] - peaks_s)[responsive] < 0.75
    assert near.mean() > 0.8  # neighbours in the library differ by .2 s
    control = np.random.default_rng(0).permutation(found)
    assert np.mean(np.abs(library_peaks_s[control] - peaks_s)[responsive] < 0.75) < 0.5


def test_each_type_is_nearer_to_the_truth_than_the_one_before_where_voxels_share_noise(fitted, noisy, responsive):
    r = {kind: against_truth(result, noisy, responsive) for kind, result in fitted.items()}
    assert r["lsa"] < r["b"] < r["c"] <= r["d"]
    assert r["b"] > r["lss"]
    assert r["c"] > r["b"] + 0.05
    assert 1 <= fitted["c"].n_components <= 10


def test_noise_ceiling_of_betas_tells_responding_voxels(fitted, study):
    measured = fitted["d"].trials.noise_ceiling
    truth = study.voxels["noise_ceiling"].to_numpy()
    assert np.corrcoef(measured, truth)[0, 1] > 0.4
    assert ((measured >= 0) & (measured <= 1)).all()


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_maps_and_choices_stand_in_the_tables(fitted):
    result = fitted["d"]
    voxels, trials = result.trials.voxels, result.trials
    assert {"mean_signal", "on_off_r2", "r2", "hrf", "fraction", "noise_pool", "ncsnr", "noise_ceiling"} <= set(voxels)
    assert voxels["hrf"].between(0, 19).all()  # numbered from 0, as said
    assert set(voxels["fraction"].round(2)) <= {round(0.05 * k, 2) for k in range(1, 21)}
    assert trials.provenance["n_components"] == result.n_components == result.components[0].shape[1]
    assert len(result.curve) == 11
    assert trials.provenance["unit"] == "percent signal change"
    assert {"session", "run", "onset_s", "trial", "repeat"} <= set(trials.table)
    assert np.isfinite(trials.betas).all()


def test_ridge_explains_less_than_least_squares_with_the_same_components(fitted):
    assert (fitted["d"].trials.voxels["r2"] <= fitted["b"].trials.voxels["r2"] + 1e-3).all()


def test_autoscaled_betas_are_a_line_of_shrunk_ones(noisy):
    runs = as_runs(noisy)
    fixed = {"kind": "d", "components": 2, "percent": False}
    scaled = single_trial_betas(runs, BetaOptions(**fixed))
    plain = single_trial_betas(runs, BetaOptions(**fixed, autoscale=False))
    scale, offset = scaled.scale_offset
    assert (scale >= 1 - 1e-3).all()  # what ridge took away is given back
    np.testing.assert_allclose(scaled.trials.betas, plain.trials.betas * scale + offset, rtol=1e-4, atol=1e-3)


def test_the_same_input_gives_the_same_bytes_and_blocks_change_little(noisy, fitted):
    runs = as_runs(noisy)
    again = single_trial_betas(runs, BetaOptions())
    np.testing.assert_array_equal(again.trials.betas, fitted["d"].trials.betas)
    blocks = single_trial_betas(runs, BetaOptions(memory_gb=1e-3))  # 64 voxels at a time, nothing kept between passes
    assert blocks.n_components == again.n_components
    np.testing.assert_array_equal(blocks.trials.voxels["hrf"], again.trials.voxels["hrf"])
    np.testing.assert_allclose(blocks.trials.betas, again.trials.betas, atol=2e-3)  # float32 sums in another order
    assert blocks.trials.digest() != ""


def test_betas_can_be_written_into_a_memory_map(noisy, fitted, tmp_path):
    runs = as_runs(noisy)
    room = np.memmap(tmp_path / "b", np.float32, "w+", shape=fitted["d"].trials.betas.shape)
    single_trial_betas(runs, BetaOptions(), out=room)
    np.testing.assert_array_equal(np.asarray(room), fitted["d"].trials.betas)
    with pytest.raises(ConfigError, match="out must be float32"):
        single_trial_betas(runs, BetaOptions(), out=np.zeros((2, 2), np.float32))


def test_nothing_is_written_to_the_working_folder(noisy, tmp_path, monkeypatch):
    """GLMsingle without an output folder makes one here, after deleting what had its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "GLMestimatesingletrialoutputs").mkdir()
    single_trial_betas(as_runs(noisy)[:2], BetaOptions(kind="b"))
    assert os.listdir(tmp_path) == ["GLMestimatesingletrialoutputs"]


# -- designs -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault(49)
def test_without_repeats_betas_fall_back_to_a_chosen_response_and_say_so(noisy):
    runs = [
        replace(r, events=r.events.assign(stimulus=[f"{r.name}-{i}" for i in range(len(r.events))]))
        for r in as_runs(noisy)
    ]
    with pytest.warns(PhospheneWarning, match="no stimulus is shown in two runs"):
        result = single_trial_betas(runs, BetaOptions())
    assert result.kind == "b"
    assert "noise_ceiling" not in result.trials.voxels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fixed = single_trial_betas(runs, BetaOptions(components=3, fractions=(0.5,)))
    assert fixed.kind == "d"
    assert fixed.n_components == 3
    with pytest.warns(PhospheneWarning, match="kind c, with 3 components"):
        assert single_trial_betas(runs, BetaOptions(components=3)).n_components == 3
    with pytest.warns(PhospheneWarning, match="kind d, with 0 components"):
        assert single_trial_betas(runs, BetaOptions(fractions=(0.5,))).kind == "d"
    assert (fixed.trials.voxels["fraction"] == 0.5).all()


def test_no_components_are_tried_where_none_may_be_used(noisy):
    result = single_trial_betas(as_runs(noisy), BetaOptions(max_components=0))
    assert (result.kind, result.n_components, len(result.curve)) == ("d", 0, 1)


def test_a_study_without_unresponsive_voxels_says_so(noisy):
    with pytest.warns(PhospheneWarning, match="no noise pool"):
        result = single_trial_betas(as_runs(noisy), BetaOptions(kind="c", threshold=0.0))
    assert result.n_components == 0
    np.testing.assert_array_equal(
        result.trials.betas, single_trial_betas(as_runs(noisy), BetaOptions(kind="b")).trials.betas
    )


def test_folds_can_hold_several_runs(noisy, fitted):
    """GLMsingle's documented list of lists fails."""
    runs = [replace(r, fold=i // 2) for i, r in enumerate(as_runs(noisy))]
    result = single_trial_betas(runs, BetaOptions())
    assert result.kind == "d"
    assert not np.array_equal(result.curve, fitted["d"].curve)


def test_an_assumed_response_of_ours_is_the_canonical_one(noisy):
    runs = as_runs(noisy)[:2]
    by_default = single_trial_betas(runs, BetaOptions(kind="lsa")).trials
    named = single_trial_betas(runs, BetaOptions(kind="lsa", assumed_hrf=HrfLibrary().canonical)).trials
    other = single_trial_betas(runs, BetaOptions(kind="lsa", assumed_hrf=0)).trials
    np.testing.assert_array_equal(by_default.betas, named.betas)
    assert not np.allclose(by_default.betas, other.betas)
    with pytest.raises(ConfigError, match="20 responses"):
        single_trial_betas(runs, BetaOptions(kind="lsa", assumed_hrf=20))


def test_onsets_that_are_late_can_be_moved_back(noisy):
    runs = as_runs(noisy)[:2]
    late = [replace(r, events=r.events.assign(onset=r.events["onset"] + 2.5)) for r in runs]
    moved = single_trial_betas(late, BetaOptions(kind="lsa", onset_shift_s=-2.5)).trials
    np.testing.assert_allclose(moved.betas, single_trial_betas(runs, BetaOptions(kind="lsa")).trials.betas, atol=1e-4)
    np.testing.assert_allclose(moved.table["onset_s"], np.concatenate([r.events["onset"] for r in runs]))


def test_confounds_are_projected_out(study, responsive):
    moving = scan(study, motion_sd=8.0, physiology_sd=0.2, noise_sd=0.3)
    runs = [replace(r, confounds=b.motion_parameters) for r, b in zip(as_runs(moving), moving, strict=True)]
    without = single_trial_betas(runs, BetaOptions(kind="b"))
    result = single_trial_betas(runs, BetaOptions(kind="b", confounds=True))
    assert against_truth(result, moving, responsive) > against_truth(without, moving, responsive) + 0.05


def test_a_run_with_one_trial_is_no_obstacle(noisy):
    runs = as_runs(noisy)[:2]
    runs[1] = replace(runs[1], events=runs[1].events.iloc[:1])
    assert len(single_trial_betas(runs, BetaOptions(kind="lss")).trials) == len(runs[0].events) + 1


# -- what is refused ---------------------------------------------------------------------------------------------------


def plain_run(**changes) -> BoldRun:
    rng = np.random.default_rng(0)
    events = pd.DataFrame({"onset": [2.0, 12.0, 22.0], "duration": 2.0, "stimulus": ["a", "b", "c"]})
    fields = {"volumes": 100 + rng.normal(size=(40, 5)).astype("f4"), "tr_s": 1.0, "events": events, **changes}
    return BoldRun(**fields)


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    ("tr_s", "message"), [(1333.0, "milliseconds"), (0.0, "in seconds"), (float("nan"), "in seconds")]
)
def test_a_time_between_volumes_that_cannot_be_is_refused(tr_s, message):
    with pytest.raises(DataError, match=message):
        plain_run(tr_s=tr_s)


@pytest.mark.fault(47)
def test_an_event_after_the_end_of_its_run_is_refused():
    events = pd.DataFrame({"onset": [2.0, 41.0], "duration": 2.0, "stimulus": ["a", "b"]})
    with pytest.raises(DataError, match=r"event 1 .* starts at 41 s, but the run of 40 volumes ends at 40 s"):
        plain_run(events=events)


@pytest.mark.fault(48)
def test_two_events_at_once_are_refused():
    events = pd.DataFrame({"onset": [2.0, 2.0], "duration": 2.0, "stimulus": ["a", "b"]})
    with pytest.raises(DataError, match=r"\('a'\) and 1 \('b'\) .* both start at 2 s"):
        plain_run(events=events)


@pytest.mark.fault(50)
def test_trials_closer_than_volumes_can_tell_are_named():
    events = pd.DataFrame({"onset": 2 + 0.02 * np.arange(12), "duration": 2.0, "stimulus": "a"})
    with pytest.warns(PhospheneWarning, match=r"the 12 trials of .* span only"):
        single_trial_betas([plain_run(events=events)], BetaOptions(kind="lsa"))


def test_a_run_that_ends_soon_after_its_last_onset_is_named():
    events = pd.DataFrame({"onset": [2.0, 36.0], "duration": 2.0, "stimulus": ["a", "b"]})
    with pytest.warns(PhospheneWarning, match="end less than 8 s after the last onset"):
        single_trial_betas([plain_run(events=events)], BetaOptions(kind="lsa"))


def test_data_that_are_not_finite_are_refused_with_their_place():
    volumes = np.ones((40, 5), np.float32)
    volumes[7, 3] = np.nan
    with pytest.raises(DataError, match=r"volume 7 .* nan in voxel 3"):
        single_trial_betas([plain_run(volumes=volumes)], BetaOptions(kind="lsa"))


def test_voxels_without_signal_get_zero_and_are_counted():
    volumes = plain_run().volumes.copy()
    volumes[:, 2] = 0
    with pytest.warns(PhospheneWarning, match="1 of 5 voxels"):
        result = single_trial_betas([plain_run(volumes=volumes)], BetaOptions(kind="lsa"))
    assert (result.trials.betas[:, 2] == 0).all()
    assert result.trials.voxels["r2"][2] == 0


def test_runs_that_do_not_fit_together_are_refused():
    with pytest.raises(DataError, match="5 voxels, but .* has 4"):
        single_trial_betas([plain_run(), plain_run(run=2, volumes=np.ones((40, 4)))])
    with pytest.raises(DataError, match="came twice"):
        single_trial_betas([plain_run(), plain_run()])
    with pytest.raises(DataError, match="at least one run"):
        single_trial_betas([])
    with pytest.raises(DataError, match="one row per volume"):
        plain_run(confounds=np.zeros((39, 6)))


def test_options_out_of_range_are_refused():
    for wrong in ({"kind": "e"}, {"fractions": (0.5, 0.5)}, {"fractions": (0.0,)}, {"stop": 0.9}, {"component": 3}):
        with pytest.raises(ValueError, match=r".+"):
            BetaOptions(**wrong)
