"""Simulated scanner runs: known responses, noise of known size, and files that say what they hold."""

import dataclasses
import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import signal as processing
from scipy import stats

from phosphene.betas import HrfLibrary
from phosphene.errors import ConfigError
from phosphene.lab import Subject, make, scenes
from phosphene.lab.bold import Scanner, scan
from phosphene.lab.bold_files import VoxelGrid, write_bids, write_openfmri
from phosphene.lab.hrf_shapes import PARAMETERS, SHARES, convolve, parameters, peaks, responses
from phosphene.types import digest_of

N_VOXELS = 300
QUIET = Scanner.noiseless()


@pytest.fixture(scope="module")
def study():
    return make(n_train=75, n_test=5, n_voxels=N_VOXELS, trials_per_run=30, runs_per_session=2)


def _percent(bold, run):
    return 100 * (run.volumes.astype(np.float64) / bold.baseline - 1)


def _designs(bold, run, hrf=None):
    """What each trial adds to each volume, in every voxel: (n_voxels, n_volumes, n_trials)."""
    lag = np.round(np.arange(len(run))[:, None] * run.tr_s - run.trials["onset_s"].to_numpy(), 9)
    lags, place = np.unique(lag, return_inverse=True)
    return responses(lags, bold.hrf if hrf is None else hrf)[:, place.reshape(lag.shape)]


def _single_trials(bold, run, values):
    """Least squares with one regressor a trial, each voxel's own response, and a constant."""
    out = np.zeros((len(run.trials), values.shape[1]))
    for voxel, design in enumerate(_designs(bold, run)):
        regressors = np.c_[design, np.ones(len(run))]
        out[:, voxel] = np.linalg.lstsq(regressors, values[:, voxel], rcond=None)[0][:-1]
    return out


def _corners():
    """The 32 most extreme responses of the family, and the one in the middle."""
    shares = np.stack(np.meshgrid(*[[0.0, 1.0]] * len(SHARES)), axis=-1).reshape(-1, len(SHARES))
    return parameters(np.r_[shares, np.full((1, len(SHARES)), 0.5)])


# -- responses -----------------------------------------------------------------------------------------------------------


def _impulse(time, voxel):
    """The formula of the file's docstring, written down with scipy's logistic distribution."""
    rise, rise_width, fall, fall_width, back, back_width, undershoot = voxel

    def step(centre, width):
        at_onset = stats.logistic.cdf(0, centre, width)
        return (stats.logistic.cdf(time, centre, width) - at_onset) / (1 - at_onset)

    return step(rise, rise_width) - (1 + undershoot) * step(fall, fall_width) + undershoot * step(back, back_width)


def test_a_response_is_the_convolution_of_three_logistic_steps_with_the_stimulation():
    step = 0.002
    time = np.arange(0, 50, step)
    box = np.ones(round(3.0 / step))
    voxels = _corners()
    for exact, voxel in zip(responses(time, voxels), voxels, strict=True):
        summed = processing.fftconvolve(_impulse(time, voxel), box)[: len(time)]
        # A Riemann sum is off by half a step, and the steepest response rises by less than half of its height a second.
        assert np.abs(exact - summed / summed.max()).max() < step


@pytest.mark.parametrize("duration_s", [0.5, 3.0, 20.0])
def test_every_response_peaks_at_one_starts_from_zero_and_is_over_at_last(duration_s):
    time = np.arange(-5, 90, 0.01)
    values = responses(time, _corners(), duration_s)
    assert (values[:, time <= 0] == 0).all()
    assert values.max(axis=1) == pytest.approx(np.ones(len(values)), abs=1e-4)  # tops fall between the times looked at
    assert (values[:, time > 60 + duration_s] == 0).all()
    peak_s, _ = peaks(_corners(), duration_s)
    np.testing.assert_allclose(
        np.array([np.interp(t, time, v) for t, v in zip(peak_s, values, strict=True)]), 1, atol=1e-4
    )


def test_responses_are_as_early_late_narrow_and_wide_as_measured_ones():
    """Three seconds of stimulation, as in the Natural Scenes Dataset: peaks about 4 to 8 s after onset."""
    voxels = parameters(np.random.default_rng(0).uniform(size=(2000, len(SHARES))))
    peak_s, _ = peaks(voxels)
    assert 3.5 < peak_s.min() < 4.2
    assert 7.6 < peak_s.max() < 8.5
    time = np.arange(0, 60, 0.05)
    values = responses(time, voxels)
    width = (values > 0.5).sum(axis=1) * 0.05
    assert 2.5 < width.min() < width.max() < 9
    assert np.corrcoef(peak_s, width)[0, 1] > 0.7  # what delays blood disperses it
    undershoot = -values.min(axis=1)
    assert undershoot.max() < 0.4
    assert abs(np.corrcoef(peak_s, undershoot)[0, 1]) < 0.5  # in the library of betas the depth follows from the delay


def test_no_response_is_in_the_library_that_betas_are_fitted_with(study):
    """A truth that the library holds is an inverse crime."""
    time = np.arange(0, 40, 0.1)
    library = HrfLibrary().responses(time, 3.0)
    library /= np.linalg.norm(library, axis=1, keepdims=True)
    truth = responses(time, scan(study).hrf)
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    best = (truth @ library.T).max(axis=1)
    assert best.max() < 0.9995
    assert best.min() > 0.9  # but something near to it is, or no library could serve


def test_parameters_are_drawn_between_0_and_1():
    with pytest.raises(ConfigError, match=r"5 numbers between 0 and 1 \(delay, .* from 0 to 2"):
        parameters(np.full((3, 5), 2.0))
    with pytest.raises(ConfigError, match=r"shape \(3, 4\)"):
        parameters(np.zeros((3, 4)))


@pytest.mark.parametrize("tr_s", [4 / 3, 2.0])
def test_volumes_are_taken_at_the_start_of_each_repetition(study, tr_s):
    bold = scan(study, QUIET, tr_s=tr_s)
    run, voxel = bold[0], 17
    expected = np.zeros(len(run))
    for onset, beta in zip(run.trials["onset_s"], bold.betas[:, voxel], strict=False):
        expected += beta * responses(np.arange(len(run)) * tr_s - onset, bold.hrf[voxel : voxel + 1])[0]
    np.testing.assert_allclose(run.evoked[:, voxel], expected, atol=1e-4)  # float32


def test_stimulation_must_last():
    with pytest.raises(ConfigError, match="more than 0 seconds"):
        responses(np.zeros(3), _corners(), 0.0)


def test_what_is_evoked_is_the_product_of_designs_and_betas_at_any_onset():
    """Onsets between volumes, durations that are no multiple of a step, more voxels than are done at once."""
    rng = np.random.default_rng(0)
    voxels = parameters(rng.uniform(size=(600, len(SHARES))))
    onsets, betas = np.sort(rng.uniform(0, 100, 20)), rng.normal(size=(20, 600))
    found = convolve(onsets, betas, voxels, 80, 1.37, 2.2)
    lag = np.arange(80)[:, None] * 1.37 - onsets
    expected = np.einsum("vti,iv->tv", responses(lag, voxels, 2.2), betas)
    # Kernels are rounded to 1e-6 at lags rounded to 1e-9, sums to float32.
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_study_s_responses_depend_on_its_seed_and_not_on_the_number_of_threads(study):
    pools = pytest.importorskip("threadpoolctl")
    digests = []
    for threads in (1, 2, 4):
        with pools.threadpool_limits(threads):
            bold = scan(study, QUIET, seed=2)
            digests.append(digest_of(bold.hrf, bold[0].evoked))
    assert len(set(digests)) == 1
    assert not np.array_equal(scan(study, seed=3).hrf, bold.hrf)


# -- runs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tr_s", [4 / 3, 2.0])
def test_without_noise_a_glm_with_the_true_responses_returns_the_betas(study, tr_s):
    bold = scan(study, QUIET, tr_s=tr_s)
    assert len(bold) == 3
    found = np.concatenate([_single_trials(bold, run, _percent(bold, run)) for run in bold])
    # float32 volumes round by 6e-8 of 1000 units, 6e-6 percent; single trials four seconds apart amplify that.
    assert np.abs(found - bold.betas).max() < 1e-3


def test_only_the_true_response_explains_everything(study):
    bold = scan(study, QUIET, trial_noise=1.0)
    run = bold[0]
    values = _percent(bold, run)
    library = HrfLibrary().designs(run.trials["onset_s"].to_numpy(), np.full(len(run.trials), 3.0), len(run), run.tr_s)

    def left(design, series):
        regressors = np.c_[design, np.ones(len(run))]
        return ((series - regressors @ np.linalg.lstsq(regressors, series, rcond=None)[0]) ** 2).sum(axis=0)

    own = np.array([left(design, values[:, [v]])[0] for v, design in enumerate(_designs(bold, run))])
    best = np.array([left(design, values) for design in library]).min(axis=0)
    assert (own < 1e-6 * ((values - values.mean(axis=0)) ** 2).sum(axis=0)).all()
    assert (best > 100 * own).all()


def test_betas_keep_the_share_of_trial_noise_asked_for(study):
    whole, none, half = (scan(study, trial_noise=x).betas for x in (1.0, 0.0, 0.5))
    np.testing.assert_allclose(whole, study.betas, atol=1e-5)  # float32
    np.testing.assert_allclose(half, (whole + none) / 2, atol=1e-5)
    table = study.trials
    once = table["repeat"].to_numpy() == 0
    rows = pd.Index(study.ids).get_indexer(table["stimulus"][once])
    np.testing.assert_array_equal(none[once], study.signal[rows])


def test_responses_differ_between_all_voxels_and_are_alike_in_neighbours(study):
    bold = scan(study)
    assert len(np.unique(bold.hrf, axis=0)) == N_VOXELS
    xyz = study.voxels[["x", "y", "z"]].to_numpy()
    apart = np.linalg.norm(xyz[:, None] - xyz[None], axis=2)
    nearest = np.argsort(apart, axis=1)[:, 1]
    peak_s, _ = peaks(bold.hrf)
    depth = bold.hrf[:, 6]
    for values, ratio in ((peak_s, 1 / 2), (depth, 0.85)):  # half of what is not delay is a voxel's own
        difference = np.abs(values[:, None] - values[None])
        assert difference[np.arange(N_VOXELS), nearest].mean() < ratio * difference.mean()


def test_a_volume_is_the_sum_of_its_parts(study):
    bold = scan(study, seed=3)
    run = bold[1]
    total = run.evoked + run.noise + run.shift
    for time, space in (run.drift, run.physiology, run.motion):
        total = total + time @ space
    np.testing.assert_allclose(_percent(bold, run), total, atol=2e-4)  # float32 at 1000 units


@pytest.mark.parametrize("tr_s", [4 / 3, 2.0])
def test_slow_and_shared_parts_have_the_sizes_asked_for(study, tr_s):
    sizes = {"drift_sd": 1.7, "physiology_sd": 0.9, "motion_sd": 0.6}
    for run in scan(study, tr_s=tr_s, **sizes):
        drift = run.drift[0] @ run.drift[1]
        np.testing.assert_allclose(drift.std(axis=0), 1.7, rtol=1e-4)
        for part, size in ((run.physiology, 0.9), (run.motion, 0.6)):
            assert np.sqrt(np.mean((part[0] @ part[1]) ** 2)) == pytest.approx(size, rel=1e-4)
        assert np.abs(drift.mean(axis=0)).max() < 1e-4


def test_drift_is_slower_than_its_period(study):
    bold = scan(study, Scanner.noiseless(drift_sd=1.0), trial_noise=0.0)
    run = bold[0]
    drift = _percent(bold, run) - run.evoked
    n = len(run)
    half_cycles = int(2 * run.duration_s / 128)
    phase = np.pi * (np.arange(n) + 0.5) / n
    basis = np.stack([np.ones(n), phase, *(np.cos(k * phase) for k in range(1, half_cycles + 1))], axis=1)
    left = drift - basis @ np.linalg.lstsq(basis, drift, rcond=None)[0]
    assert np.abs(left).max() < 1e-3


@pytest.mark.parametrize("coefficient", [0.0, 0.3, 0.8])
def test_noise_has_the_autocorrelation_and_size_asked_for_and_is_no_neighbours(study, coefficient):
    bold = scan(study, Scanner.noiseless(noise_sd=2.0), ar1=coefficient)
    sd = study.voxels["noise_sd"].to_numpy()
    noise = np.stack([(_percent(bold, run) - run.evoked)[:90] for run in bold]) * np.median(sd) / sd
    n = noise.size
    error = np.sqrt((1 - coefficient**2) / n)  # of a lag-one correlation
    measured = (noise[:, 1:] * noise[:, :-1]).mean() / (noise**2).mean()
    assert measured == pytest.approx(coefficient, abs=5 * error)
    spread = np.sqrt(2 * (1 + coefficient**2) / (1 - coefficient**2) / n)  # relative error of a variance
    assert (noise**2).mean() == pytest.approx(4.0, rel=5 * spread)
    assert (noise[:, 0] ** 2).mean() == pytest.approx(4.0, rel=5 * np.sqrt(2 / noise[:, 0].size))  # stationary at once
    between = np.corrcoef(noise.reshape(-1, N_VOXELS).T)[np.triu_indices(N_VOXELS, 1)]
    assert abs(between.mean()) < 0.01


def test_shared_noise_is_of_low_rank(study):
    bold = scan(study, Scanner.noiseless(physiology_sd=1.0, motion_sd=1.0))
    run = bold[0]
    values = np.linalg.svd(_percent(bold, run) - run.evoked, compute_uv=False)
    assert values[9] > 1e-2 * values[0]  # four of physiology and six of motion
    assert values[10] < 1e-4 * values[0]


@pytest.mark.parametrize("tr_s", [4 / 3, 2.0])
def test_heart_and_breath_appear_at_their_aliases(study, tr_s):
    bold = scan(study, Scanner.noiseless(physiology_sd=1.0, tail_slots=200), tr_s=tr_s)
    run = bold[0]
    for rate, part in zip(run.rates_hz, (slice(0, 2), slice(2, 4)), strict=True):
        seen = run.physiology[0][:, part] @ run.physiology[1][part]
        frequency, power = processing.periodogram(seen, fs=1 / tr_s, axis=0)
        spectrum = power.sum(axis=1)
        alias = abs(rate - round(rate * tr_s) / tr_s)
        centre = (frequency * spectrum).sum() / spectrum.sum()
        # The rate wanders by 2 %, 0.02 Hz for the heart, which moves the alias by as much; some power folds at the ends.
        assert centre == pytest.approx(alias, abs=0.03)


def test_the_motion_file_explains_all_motion_in_the_signal(study):
    bold = scan(study, Scanner.noiseless(motion_sd=1.0))
    run = bold[0]
    moved = _percent(bold, run) - run.evoked
    regressors = np.c_[run.motion_parameters, np.ones(len(run))]
    left = moved - regressors @ np.linalg.lstsq(regressors, moved, rcond=None)[0]
    assert np.abs(left).max() < 1e-3
    assert (run.motion_parameters[0] == 0).all()


def test_each_run_has_a_baseline_of_its_own(study):
    bold = scan(study, Scanner.noiseless(shift_sd=2.0))
    shifts = [np.mean(_percent(bold, run) - run.evoked, axis=0) for run in bold]
    for run, shift in zip(bold, shifts, strict=True):
        np.testing.assert_allclose(shift, run.shift, atol=1e-3)
    assert np.corrcoef(shifts[0], shifts[1])[0, 1] < 0.9


def test_pictures_come_every_four_seconds_but_for_blanks(study):
    bold = scan(study, blank_share=0.2)
    for run in bold:
        onsets = run.trials["onset_s"].to_numpy()
        gaps = np.diff(onsets)
        assert onsets[0] == 12.0
        assert set(gaps) == {4.0, 8.0}
        assert (gaps == 8.0).sum() == round(0.2 * len(onsets))
        assert run.duration_s - onsets[-1] >= 20.0 - 1e-9


def test_runs_differ_in_length_when_asked(study):
    same, varied = scan(study), scan(study, extra_volumes=30)
    assert same.n_volumes[0] == same.n_volumes[1]
    assert len(set(varied.n_volumes)) > 1
    assert (varied.n_volumes >= same.n_volumes).all()
    assert [len(run) for run in varied] == varied.n_volumes.tolist()


def test_the_same_arguments_give_the_same_runs_and_others_do_not(study):
    assert scan(study, seed=5).digest() == scan(study, seed=5).digest()
    assert scan(study, seed=5).digest() != scan(study, seed=6).digest()
    alone = scan(study, seed=5)[2]  # made without the runs before it
    assert np.array_equal(alone.volumes, list(scan(study, seed=5))[2].volumes)


def test_the_number_of_a_run_counts_from_the_end_too_but_not_beyond(study):
    bold = scan(study)
    assert bold[-1].number == 3
    assert (bold[-1].session, bold[-1].run) == (2, 1)
    with pytest.raises(IndexError, match="3 runs"):
        bold[3]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tr_s", 0.0, "tr_s .* more than 0"),
        ("noise_sd", -1.0, "noise_sd .* negative"),
        ("drift_sd", float("nan"), "drift_sd .* negative"),
        ("noise_sd", float("inf"), "noise_sd .* infinite"),
        ("trial_noise", 1.5, "share between 0 and 1"),
        ("ar1", 1.0, "less than 1"),
    ],
)
def test_a_scanner_refuses_what_cannot_be(study, field, value, said):
    with pytest.raises(ConfigError, match=said):
        scan(study, **{field: value})


def test_a_field_that_does_not_exist_is_named_with_the_nearest(study):
    with pytest.raises(ConfigError, match="Did you mean 'noise_sd'"):
        scan(study, noise_ds=1.0)


# -- a localiser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def localiser(study):
    """Scenes with one of four main categories, 40 of each, shown in four runs."""
    kinds = ("face", "house", "word", "body")
    described = scenes.describe_many(7, np.arange(1500))
    chosen = [s.index for kind in kinds for s in [d for d in described if d.main == kind][:40]]
    person = Subject(12, n_voxels=600)
    signal = person.signal(scenes.render_many(7, chosen), [described[i] for i in chosen])
    rng = np.random.default_rng(0)
    order = rng.permutation(len(chosen))
    ids = np.array([f"scene-7-{i:06d}" for i in chosen], dtype=object)
    run = np.arange(len(chosen)) // 40 + 1
    table = pd.DataFrame(
        {"trial": np.arange(len(chosen)), "stimulus": ids[order], "session": 1, "run": run, "repeat": 0}
    )
    betas = person.measure(signal, np.ones(len(chosen), int), run, np.zeros(len(chosen), int), rng, rows=order)
    return dataclasses.replace(
        study, subject=person, ids=ids, signal=signal, trials=table, betas=betas, voxels=person.voxels,
        category=np.repeat(np.array(kinds, dtype=object), 40),
    )  # fmt: skip


@pytest.mark.parametrize("tr_s", [4 / 3, 2.0])
@pytest.mark.parametrize(
    ("kind", "areas"),
    [("face", ("FFA", "OFA")), ("house", ("PPA", "RSC")), ("body", ("EBA",)), ("word", ("VWFA",))],
)
def test_a_localiser_contrast_finds_the_areas_that_prefer_a_category(localiser, tr_s, kind, areas):
    glm = pytest.importorskip("nilearn.glm.first_level")
    others = [name for name in ("face", "house", "word", "body") if name != kind]
    effects, variances = [], []
    for run in scan(localiser, tr_s=tr_s):
        events = pd.DataFrame({"onset": run.trials["onset_s"], "duration": 3.0, "trial_type": run.trials["category"]})
        moved = {"add_regs": run.motion_parameters, "add_reg_names": list("abcdef")}
        times = np.arange(len(run)) * tr_s
        design = glm.make_first_level_design_matrix(times, events, drift_model="cosine", high_pass=1 / 128, **moved)
        x = design.to_numpy()
        weight = np.array([(name == kind) - (name in others) / 3 for name in design.columns])
        fitted = np.linalg.lstsq(x, run.volumes, rcond=None)[0]
        rest = ((run.volumes - x @ fitted) ** 2).sum(axis=0) / (len(x) - x.shape[1])
        effects.append(weight @ fitted)
        variances.append(rest * (weight @ np.linalg.pinv(x.T @ x) @ weight))
    t = np.sum(effects, axis=0) / np.sqrt(np.sum(variances, axis=0))
    inside = localiser.voxels[[f"roi.{name}" for name in areas]].any(axis=1).to_numpy()
    silent = (localiser.voxels["ncsnr"] == 0).to_numpy()
    share = stats.mannwhitneyu(t[inside], t[~inside]).statistic / (inside.sum() * (~inside).sum())
    assert share > 0.8  # probability that a voxel inside beats one outside; measured 0.83 to 0.97
    assert np.median(t[inside]) > 2
    assert abs(np.median(t[silent])) < 1


# -- files ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bids(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("files") / "bids"
    return write_bids(study, root, scanner=Scanner(extra_volumes=20), seed=2), root


def test_bids_headers_say_the_right_tr_shape_and_units(bids):
    bold, root = bids
    files = sorted(root.glob("sub-01/ses-*/func/*_bold.nii.gz"))
    assert len(files) == len(bold) == 3
    grid = VoxelGrid.place(bold.simulation.voxels[["x", "y", "z"]].to_numpy())
    for file, run in zip(files, bold, strict=True):
        image = nib.load(file)
        assert image.shape == (*grid.shape, len(run))
        assert image.header.get_zooms()[3] == np.float32(4 / 3)
        assert image.header.get_xyzt_units() == ("mm", "sec")
        assert image.get_data_dtype() == np.int16
        about = json.loads(file.with_name(file.name.replace(".nii.gz", ".json")).read_text())
        assert about["RepetitionTime"] == 4 / 3
        assert about["SliceTiming"] == [0.0] * grid.shape[2]
        data = np.asarray(image.dataobj)
        inside = data[tuple(grid.cells.T)].T
        assert np.abs(inside - run.volumes).max() <= 0.5 + 1e-3  # rounded to whole units
        assert np.count_nonzero(data.any(axis=3)) == N_VOXELS  # nothing outside the brain


def test_bids_files_agree_with_each_other(bids):
    bold, root = bids
    assert json.loads((root / "dataset_description.json").read_text())["BIDSVersion"]
    name = re.compile(r"sub-01_ses-(\d\d)_task-scenes_run-(\d\d)_(bold\.nii\.gz|bold\.json|events\.tsv)")
    found = [name.fullmatch(f.name) for f in sorted((root / "sub-01").rglob("*")) if f.is_file()]
    assert all(found)
    assert len(found) == 9
    seen = []
    for run in bold:
        func = f"ses-{run.session:02d}/func/sub-01_ses-{run.session:02d}_task-scenes_run-{run.run:02d}"
        events = pd.read_csv(root / "sub-01" / f"{func}_events.tsv", sep="\t")
        assert list(events.columns[:3]) == ["onset", "duration", "trial_type"]
        assert events["onset"].min() >= 0
        assert (events["onset"] + events["duration"]).max() < run.duration_s
        assert set(events.columns) == set(json.loads((root / "task-scenes_events.json").read_text()))
        seen += list(events["stimulus"])
        confounds = root / "derivatives/phosphene/sub-01" / f"{func}_desc-confounds_timeseries.tsv"
        moved = pd.read_csv(confounds, sep="\t")
        np.testing.assert_allclose(moved.to_numpy(), run.motion_parameters)
        assert list(moved.columns) == ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    assert seen == list(bold.simulation.trials["stimulus"])


def test_the_pictures_shown_are_files_that_the_events_name(bids):
    from PIL import Image

    bold, root = bids
    files = {path.name for path in (root / "stimuli").iterdir()}
    named = set()
    for path in root.glob("sub-01/ses-*/func/*_events.tsv"):
        events = pd.read_csv(path, sep="\t")
        assert list(events["stim_file"]) == [f"{name}.png" for name in events["stimulus"]]
        named |= set(events["stim_file"])
    assert named == files
    for name, pixels in zip(bold.simulation.ids, bold.simulation.images, strict=True):
        assert np.array_equal(np.asarray(Image.open(root / "stimuli" / f"{name}.png")), pixels)


def test_masks_and_ceilings_are_those_of_the_voxel_table(bids):
    bold, root = bids
    maps = root / "derivatives/phosphene/sub-01/anat"
    image = nib.load(maps / "sub-01_desc-voxels_dseg.nii.gz")
    numbers = np.asarray(image.dataobj)
    cells = np.argwhere(numbers)
    rows = numbers[tuple(cells.T)] - 1
    assert sorted(rows) == list(range(N_VOXELS))
    table = bold.simulation.voxels
    for roi in ("V1", "FFA", "RSC"):
        mask = np.asarray(nib.load(maps / f"sub-01_label-{roi}_mask.nii.gz").dataobj)
        assert np.array_equal(mask[tuple(cells.T)].astype(bool), table[f"roi.{roi}"].to_numpy()[rows])
        assert mask.sum() == table[f"roi.{roi}"].sum()
    ceiling = np.asarray(nib.load(maps / "sub-01_stat-noiseceiling_statmap.nii.gz").dataobj)[tuple(cells.T)]
    np.testing.assert_allclose(ceiling, table["noise_ceiling"].to_numpy()[rows], rtol=1e-6)
    where = nib.affines.apply_affine(image.affine, cells)
    away = np.linalg.norm(where - table[["x", "y", "z"]].to_numpy()[rows], axis=1)
    assert np.median(away) < image.header.get_zooms()[0]  # a cell's width


def test_files_alone_give_the_betas_back(study, tmp_path):
    write_bids(study, tmp_path / "b", scanner=QUIET, dtype="float32", truth=tmp_path / "known")
    truth = np.load(tmp_path / "known/betas.npy")
    voxels = pd.read_csv(tmp_path / "known/voxels.tsv", sep="\t")
    trials = pd.read_csv(tmp_path / "known/trials.tsv", sep="\t")
    assert json.loads((tmp_path / "known/truth.json").read_text())["tr_s"] == 4 / 3
    for file in sorted((tmp_path / "b").glob("sub-01/ses-*/func/*_bold.nii.gz")):
        events = pd.read_csv(str(file).replace("_bold.nii.gz", "_events.tsv"), sep="\t")
        data = np.asarray(nib.load(file).dataobj)[tuple(voxels[["i", "j", "k"]].to_numpy().T)].T
        percent = 100 * (data / voxels["baseline"].to_numpy() - 1)
        rows = pd.Index(trials["trial"]).get_indexer(events["trial"])
        lag = np.arange(len(data))[:, None] * (4 / 3) - events["onset"].to_numpy()
        design = responses(np.round(lag, 9), voxels[list(PARAMETERS)].to_numpy())  # (n_voxels, n_volumes, n_trials)
        for voxel in range(0, N_VOXELS, 7):
            regressors = np.c_[design[voxel], np.ones(len(data))]
            found = np.linalg.lstsq(regressors, percent[:, voxel], rcond=None)[0][:-1]
            np.testing.assert_allclose(found, truth[rows, voxel], atol=1e-3)  # float32, amplified


def test_the_truth_holds_every_part_of_a_run(bids):
    bold, root = bids
    known = root.with_name("bids-truth")
    assert not any("truth" in str(path.relative_to(root)) for path in root.rglob("*"))
    for run in bold:
        with np.load(known / f"run-{run.number:03d}.npz", allow_pickle=False) as parts:
            assert np.array_equal(parts["noise"], run.noise)
            assert np.array_equal(parts["drift_time"], run.drift[0])
            assert np.array_equal(parts["motion_space"], run.motion[1])
    np.testing.assert_array_equal(np.load(known / "hrf.npy"), responses(np.arange(501) / 10, bold.hrf).astype("f4"))
    table = pd.read_csv(known / "voxels.tsv", sep="\t")
    np.testing.assert_allclose(table[list(PARAMETERS)], bold.hrf)
    np.testing.assert_allclose(table["peak_s"], peaks(bold.hrf)[0], atol=1e-3)


@pytest.mark.parametrize("write", [write_bids, write_openfmri])
def test_writing_twice_gives_the_same_bytes(study, tmp_path, write):
    for name in ("a", "b"):
        write(study, tmp_path / name, truth=tmp_path / f"{name}-known", seed=1)
    for first in (f for top in ("a", "a-known") for f in (tmp_path / top).rglob("*") if f.is_file()):
        second = tmp_path / str(first.relative_to(tmp_path)).replace("a", "b", 1)
        assert first.read_bytes() == second.read_bytes(), first.name


@pytest.fixture(scope="module")
def openfmri(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("files") / "old"
    return write_openfmri(study, root, scanner=Scanner(tr_s=2.0)), root


def test_openfmri_follows_the_layout_of_the_haxby_folder(openfmri, shared_data):
    root, real = openfmri[1], shared_data / "haxby2001_slice" / "haxby2001"

    def places(folder):
        """Texts and tables, every number replaced by 0."""
        kept = (p.relative_to(folder) for p in folder.rglob("*.*") if p.suffix in (".txt", ".tsv"))
        return {re.sub(r"\d+", "0", str(p)) for p in kept}

    assert places(real) - places(root) == {"models/model0/task_contrasts.txt"}
    assert places(root) <= places(real)
    first = "sub001/BOLD/task001_run001"
    assert np.loadtxt(real / first / "bold_moest.txt").shape[1] == np.loadtxt(root / first / "bold_moest.txt").shape[1]
    theirs, ours = (pd.read_csv(f / first / "bold_events.tsv", sep="\t").columns for f in (real, root))
    assert list(ours[: len(theirs)]) == list(theirs)


def test_openfmri_files_agree_with_each_other(openfmri):
    bold, root = openfmri
    names = dict(line.split()[1:] for line in (root / "models/model001/condition_key.txt").read_text().splitlines())
    assert float((root / "scan_key.txt").read_text().split()[1]) == 2.0
    for run in bold:
        place = root / f"sub001/BOLD/task001_run{run.number:03d}"
        events = pd.read_csv(place / "bold_events.tsv", sep="\t")
        onsets = root / f"sub001/model/model001/onsets/task001_run{run.number:03d}"
        rows = []
        for file in sorted(onsets.glob("cond*.txt")):
            rows += [(on, length, names[file.stem]) for on, length, _ in np.loadtxt(file, ndmin=2)]
        assert sorted(rows) == sorted(events[["onset", "duration", "trial_type"]].itertuples(index=False, name=None))
        image = nib.load(place / "bold.nii.gz")
        assert image.shape[3] == len(run)
        assert image.header.get_zooms()[3] == 2.0
        moved = np.loadtxt(place / "bold_moest.txt")  # rotations first
        np.testing.assert_allclose(moved[:, :3], run.motion_parameters[:, 3:], rtol=1e-4, atol=1e-12)
        np.testing.assert_allclose(moved[:, 3:], run.motion_parameters[:, :3], rtol=1e-4, atol=1e-12)


def test_late_onsets_are_in_the_files_and_a_category_blind_regressor_sees_them(study, tmp_path):
    bold = write_bids(study, tmp_path / "late", scanner=Scanner(tr_s=2.0, blank_share=0.3), onset_shift_s=6.25)
    assert json.loads((tmp_path / "late-truth/truth.json").read_text())["onset_shift_s"] == 6.25
    shifts = np.arange(-10.0, 10.1, 1.25)
    explained = np.zeros(len(shifts))
    library = HrfLibrary()
    for run in bold:
        stem = f"sub-01/ses-{run.session:02d}/func/sub-01_ses-{run.session:02d}_task-scenes_run-{run.run:02d}"
        filed = pd.read_csv(tmp_path / "late" / f"{stem}_events.tsv", sep="\t")["onset"].to_numpy()
        np.testing.assert_allclose(filed - run.trials["onset_s"], 6.25)
        slow = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(run)), 3)
        slow = np.linalg.qr(slow)[0]
        values = run.volumes - slow @ (slow.T @ run.volumes)
        for i, shift in enumerate(shifts):
            on = library.designs(filed + shift, 3.0, len(run), 2.0)[library.canonical].sum(axis=1)
            on -= slow @ (slow.T @ on)
            explained[i] += ((on @ values) ** 2 / (on @ on) / (values**2).sum(axis=0)).mean()
    # The voxels' own peaks differ from the canonical one by seconds, so the best shift may lie one step beside the true one.
    assert abs(shifts[explained.argmax()] + 6.25) <= 1.25
    assert explained.max() > 1.5 * explained[shifts == 0][0]


def test_events_shifted_out_of_their_run_are_refused_and_nothing_is_left(study, tmp_path):
    with pytest.raises(ConfigError, match="reach from .* Shift by less"):
        write_bids(study, tmp_path / "x", onset_shift_s=30.0)
    with pytest.raises(ConfigError, match="reach from -"):
        write_openfmri(study, tmp_path / "x", onset_shift_s=-15.0)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_hold_something_are_not_overwritten_unless_asked(study, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("ten years")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        write_bids(study, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "ten years"
    write_bids(study, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "dataset_description.json").is_file()


def test_the_truth_may_not_lie_inside_the_folder(study, tmp_path):
    with pytest.raises(ConfigError, match="outside"):
        write_bids(study, tmp_path / "x", truth=tmp_path / "x" / "truth")


def test_a_signal_too_large_for_int16_is_refused(study, tmp_path):
    with pytest.raises(ConfigError, match="int16 holds 32767"):
        write_bids(study, tmp_path / "x", scanner=Scanner(baseline=40_000.0))


def test_no_two_voxels_share_a_cell():
    rng = np.random.default_rng(0)
    crowded = rng.normal(size=(200, 3)) * 0.5 + rng.integers(0, 4, (200, 1))  # closer than the cells in places
    grid = VoxelGrid.place(crowded)
    assert len({tuple(cell) for cell in grid.cells}) == 200
    assert (grid.cells >= 1).all()
    assert (grid.cells < np.array(grid.shape) - 1).all()
    values = rng.normal(size=(3, 200))
    assert np.array_equal(grid.volume(values)[tuple(grid.cells.T)], values.T)
