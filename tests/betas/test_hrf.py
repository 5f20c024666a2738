import numpy as np
import pytest
from scipy import signal as processing
from scipy import stats

from phosphene.betas import BetaOptions, HrfLibrary
from phosphene.betas.hrf import N_SHAPES, gamma_parameters
from phosphene.errors import ConfigError, DataError
from phosphene.lab import hrf_shapes

TIME_S = np.arange(501) / 10


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Responses of another family in the layout of the table that GLMsingle ships: 501 rows of 0.1 s, 20 columns, tabs."""
    shares = np.full((20, len(hrf_shapes.SHARES)), 0.5)
    shares[:, 0] = np.linspace(0, 1, 20)
    voxels = hrf_shapes.parameters(shares)
    path = tmp_path_factory.mktemp("hrf") / "getcanonicalhrflibrary.tsv"
    # GLMsingle's responses to an impulse last 0.1 s, and one maximum divides them all.
    table = hrf_shapes.responses(TIME_S, voxels, 0.1).T * np.linspace(1, 0.4, 20)
    np.savetxt(path, table, delimiter="\t", fmt="%.8g")
    return path, voxels


# -- our own twenty ------------------------------------------------------------------------------------------------------


def test_a_response_is_the_convolution_of_two_gammas_with_the_stimulation():
    step = 0.002
    time = np.arange(0, 40, step)
    box = np.ones(round(3.0 / step))
    exact = HrfLibrary().responses(time, 3.0)
    for shape, (a, b, a2, b2, weight) in enumerate(gamma_parameters()):
        impulse = stats.gamma.pdf(time, a, scale=b) - weight * stats.gamma.pdf(time, a2, scale=b2)
        summed = processing.fftconvolve(impulse, box)[: len(time)]
        # A Riemann sum is off by half a step, and the steepest response rises by less than half of its height a second.
        assert np.abs(exact[shape] - summed / summed.max()).max() < step


@pytest.mark.parametrize("duration_s", [0.5, 3.0, 20.0])
def test_every_response_peaks_at_one_and_starts_from_zero(duration_s):
    time = np.arange(-5, 60, 0.01)
    values = HrfLibrary().responses(time, duration_s)
    assert (values[:, time <= 0] == 0).all()
    assert values.max(axis=1) == pytest.approx(np.ones(N_SHAPES), abs=1e-4)  # tops fall between the times looked at


def test_the_library_runs_from_early_and_narrow_to_late_and_wide():
    time = np.arange(0, 60, 0.01)
    values = HrfLibrary().responses(time, 3.0)
    peak = time[values.argmax(axis=1)]
    width = (values > 0.5).sum(axis=1) * 0.01
    undershoot = -values.min(axis=1)
    assert (np.diff(peak) > 0).all()
    assert (np.diff(width) > 0).all()
    assert (np.diff(undershoot) < 0).all()
    assert peak[0] == pytest.approx(4, abs=0.1)
    assert peak[-1] == pytest.approx(8, abs=0.1)
    alike = np.corrcoef(values)
    assert np.diag(alike, 1).max() < 0.999  # neighbours can be told apart
    assert alike[0, -1] < 0.2


def test_the_rule_says_when_and_how_wide_each_response_is():
    """Mode and standard deviation of a gamma density, from scipy's, against the sentence in the file."""
    mode = 2.2 + 4.2 * np.arange(20) / 19
    a, b, a2, b2, weight = gamma_parameters().T
    np.testing.assert_allclose(HrfLibrary().peaks_s, mode)
    np.testing.assert_allclose(stats.gamma.std(a, scale=b), 0.2 + 0.45 * mode)
    np.testing.assert_allclose((a2 - 1) * b2, 3 * mode)
    np.testing.assert_allclose(stats.gamma.std(a2, scale=b2), 1.6 * (0.2 + 0.45 * mode))
    np.testing.assert_allclose(weight, np.linspace(0.30, 0.05, 20))


def test_the_canonical_response_is_the_usual_one():
    hrf = pytest.importorskip("nilearn.glm.first_level.hemodynamic_models")
    usual = hrf.spm_hrf(1.0, oversampling=50, time_length=32.0)
    time = np.arange(len(usual)) / 50
    library = HrfLibrary()
    assert library.canonical == np.abs(library.peaks_s - 5).argmin()
    a, b, a2, b2, weight = gamma_parameters()[library.canonical]
    ours = stats.gamma.pdf(time, a, scale=b) - weight * stats.gamma.pdf(time, a2, scale=b2)
    # The same first gamma to a few percent; the usual undershoot is a little wider.
    assert np.corrcoef(ours, usual)[0, 1] > 0.99


def test_every_trial_has_its_own_duration():
    library = HrfLibrary()
    both = library.designs(np.array([2.0, 20.0]), np.array([1.0, 6.0]), 50, 1.0)
    for column, duration in ((0, 1.0), (1, 6.0)):
        alone = library.designs(np.array([2.0, 20.0]), np.full(2, duration), 50, 1.0)
        np.testing.assert_array_equal(both[..., column], alone[..., column])


def test_designs_are_the_responses_at_any_onset():
    onset = np.array([0.0, 3.21, 9.0, 15.55])
    library = HrfLibrary()
    ours = library.designs(onset, np.full(4, 3.0), 60, 4 / 3)
    lag = np.arange(60)[:, None] * (4 / 3) - onset
    # A design leaves out what is left of a response after 50 s.
    assert np.abs(ours - library.responses(lag, 3.0)).max() < 1e-4


# -- tables --------------------------------------------------------------------------------------------------------------


def test_a_table_in_the_published_layout_gives_the_responses_it_was_made_from(published):
    path, voxels = published
    library = HrfLibrary.read(path)
    lag = np.array([-1.0, 0.0, 1.3, 4.05, 6.2, 12.0, 30.0])
    # Convolving boxes of 0.1 s delays nothing but is known only every 0.1 s; between, and at the ends, it differs a little.
    np.testing.assert_allclose(library.responses(lag, 3.0), hrf_shapes.responses(lag, voxels, 3.0), atol=0.01)
    assert len(library) == 20
    impulse_peaks_s, _ = hrf_shapes.peaks(voxels, 0.1)
    np.testing.assert_allclose(library.peaks_s, impulse_peaks_s, atol=0.051)  # of rows 0.1 s apart
    assert library.canonical == np.abs(library.peaks_s - 5).argmin()


def test_every_response_of_a_table_peaks_at_one(published):
    """GLMsingle divides a whole library by one maximum, and makes each peak 1 only later."""
    time = np.arange(0, 30, 0.1)
    np.testing.assert_allclose(HrfLibrary.read(published[0]).responses(time, 3.0).max(axis=1), 1, atol=1e-12)


def test_a_table_is_over_at_its_end_and_before_onset(published):
    late = HrfLibrary.read(published[0]).responses(np.array([-0.1, 60.0]), 3.0)
    assert (late == 0).all()


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".txt"])
def test_the_same_table_is_read_from_arrays_and_texts(published, tmp_path, suffix):
    table = np.loadtxt(published[0])
    path = tmp_path / f"mine{suffix}"
    if suffix == ".npy":
        np.save(path, table)
    else:
        np.savetxt(path, table, delimiter="," if suffix == ".csv" else " ", fmt="%.17g")
    library = HrfLibrary.read(path)
    np.testing.assert_array_equal(library.table, table)
    assert library.digest == HrfLibrary.read(published[0]).digest != HrfLibrary().digest


@pytest.mark.parametrize(("step_s", "tolerance"), [(0.05, 1e-3), (0.5, 0.02), (1.0, 0.05)])
def test_a_table_may_be_sampled_in_other_steps(published, tmp_path, step_s, tolerance):
    """The tolerance is what interpolation between samples so far apart costs the steepest response."""
    _, voxels = published
    time = np.arange(0, 50, step_s)
    np.save(tmp_path / "mine.npy", hrf_shapes.responses(time, voxels, 0.1).T)
    library = HrfLibrary.read(tmp_path / "mine.npy", step_s)
    every = HrfLibrary.read(published[0])
    lag = np.arange(0, 40, 0.7)
    np.testing.assert_allclose(library.responses(lag, 3.0), every.responses(lag, 3.0), atol=tolerance)
    assert library.digest != HrfLibrary("as if a little faster", library.table, step_s * 0.9).digest


def test_the_options_name_the_table_and_its_steps(published, tmp_path):
    assert HrfLibrary.chosen(BetaOptions()).table is None
    np.save(tmp_path / "slow.npy", np.loadtxt(published[0])[::5])
    library = HrfLibrary.chosen(BetaOptions(hrf_table=str(tmp_path / "slow.npy"), hrf_step_s=0.5))
    assert (library.name, library.step_s, len(library)) == ("slow.npy", 0.5, 20)
    with pytest.raises(ValueError, match=r"hrf_step_s=0\.5 and no table"):
        BetaOptions(hrf_step_s=0.5)


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "text.tsv").write_text("not numbers\n")
    with pytest.raises(DataError, match="table of numbers"):
        HrfLibrary.read(tmp_path / "text.tsv")
    np.savetxt(tmp_path / "wide.tsv", np.ones((20, 501)))
    with pytest.raises(DataError, match="transposed"):
        HrfLibrary.read(tmp_path / "wide.tsv")
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    with pytest.raises(DataError, match="not one of real numbers"):
        HrfLibrary.read(tmp_path / "words.npy")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01")
    with pytest.raises(DataError, match=r"cut\.npy should be a table of numbers"):
        HrfLibrary.read(tmp_path / "cut.npy")
    with pytest.raises(ConfigError, match="duration_s=-1"):
        HrfLibrary().responses(np.zeros(1), -1.0)


def _spoilt(table: np.ndarray, how: str) -> np.ndarray:
    table = table.copy()
    if how == "flat":
        table[:, 3] = 0
    elif how == "hole":
        table[40, 7] = np.nan
    elif how == "times":
        table[:, 0] = TIME_S
    elif how == "reversed":
        table = table[:, :1] + 1.0
    elif how == "one row of numbers":
        table = table[:, 0]
    elif how == "short":
        table = table[:30]
    return table


@pytest.mark.parametrize(
    ("how", "step_s", "message"),
    [
        ("flat", 0.1, "column 3 has none"),
        ("hole", 0.1, "row 40 of column 7 is nan"),
        ("times", 0.1, "column 0 peaks at 50 s of 50 s.*column of times"),
        ("reversed", 0.1, "column 0 begins at 50% of its peak"),
        ("one row of numbers", 0.1, r"array of shape \(501,\)"),
        ("short", 0.1, "its 30 rows last 3 s"),
        ("as it is", 0.01, "peaks at 0.* Is the step right"),
        ("as it is", 1.0, "column 0 peaks at .* Is the step right"),
    ],
)
def test_a_table_that_cannot_be_one_of_responses_is_refused_with_the_place(published, how, step_s, message):
    table = _spoilt(np.loadtxt(published[0]), how)
    with pytest.raises(DataError, match=message):
        HrfLibrary("mine.npy", table, step_s)


@pytest.mark.parametrize("step_s", [0.0, -0.1, 3.0, float("nan")])
def test_steps_that_cannot_be_are_refused(published, step_s):
    with pytest.raises(ConfigError, match="at most 2 s apart"):
        HrfLibrary.read(published[0], step_s)
