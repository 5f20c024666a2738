"""Simulated subjects: what is said about them in closed form is what measuring them gives."""

import numpy as np
import pytest
from scipy.stats import rankdata

from phosphene.errors import ConfigError, DataError
from phosphene.lab import Subject, scenes
from phosphene.lab.cortex import AREAS, FIELD_DEG
from phosphene.lab.subject import fade


@pytest.fixture(scope="module")
def large():
    return Subject(2, n_voxels=3000)


def correlations(a, b):
    """Per column."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=0) / np.maximum(np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0)), 1e-30)


def auc(scores, members):
    """Chance that a member scores above another."""
    ranks = rankdata(scores)
    n, m = members.sum(), (~members).sum()
    return (ranks[members].sum() - n * (n + 1) / 2) / (n * m)


@pytest.mark.parametrize("repeats", [1, 3])
def test_ceilings_in_closed_form_are_those_measured(subject, signal, betas, repeats):
    responsive = subject.voxels["ncsnr"].to_numpy() > 0
    closed = subject.ceiling(repeats, signal)[responsive]
    measured = correlations(betas[:repeats].mean(axis=0), signal)[responsive]
    # The correlation with the truth is its ceiling's root, with standard error (1 - r^2) / sqrt(n) over n pictures if noise were
    # independent. It carries over from trial to trial and voxels share it, so the spread of errors is near 1, not equal to it.
    error = (measured - np.sqrt(closed)) / ((1 - closed) / np.sqrt(len(signal)))
    assert abs(measured.mean() - np.sqrt(closed).mean()) < 0.03
    assert 0.8 < error.std() < 1.25
    assert np.corrcoef(measured, np.sqrt(closed))[0, 1] > 0.95


def test_ceilings_estimated_from_repeats_alone_agree(subject, signal, betas):
    # As done for the Natural Scenes Dataset: noise from the scatter of repeats, signal from what is left.
    noise = betas.var(axis=0, ddof=1).mean(axis=0)
    total = betas.reshape(-1, betas.shape[2]).var(axis=0)
    estimated = np.maximum(total - noise, 0) / np.maximum(total, 1e-30)
    closed = subject.ceiling(1, signal)
    responsive = closed > 0
    # Standard error of an intraclass correlation near 0.2 with 480 x 3: 0.03, and the voxels' errors go together.
    assert abs(estimated[responsive].mean() - closed[responsive].mean()) < 0.03
    assert np.corrcoef(estimated, closed)[0, 1] > 0.95


def test_ceilings_without_standardising_count_the_sessions_too(subject, signal):
    # Hundreds of short sessions, for the closed form is the expectation over sessions.
    rng = np.random.default_rng(1)
    rows = rng.integers(len(signal), size=4000)
    session = np.arange(4000) // 10
    betas = subject.measure(signal, session, np.zeros(4000, int), np.zeros(4000, int), rng, rows=rows)
    measured = correlations(betas, signal[rows]) ** 2
    closed = subject.ceiling(1, signal[rows], standardised=False)
    standardised = subject.ceiling(1, signal[rows])
    strong = standardised > 0.1
    assert (closed <= standardised).all()
    assert closed[strong].mean() < 0.9 * standardised[strong].mean()
    # 400 sessions share their offsets between voxels: the standard error of the mean is about 0.01.
    assert abs(measured[strong].mean() - closed[strong].mean()) < 0.02


def test_ceilings_in_the_table_are_those_of_the_lab_at_large(subject, signal):
    table = subject.voxels
    assert np.allclose(table["noise_ceiling"], subject.ceiling(1))
    assert np.allclose(table["noise_ceiling_3"], subject.ceiling(3))
    m3 = fade(np.arange(3)).mean() ** 2 * table["ncsnr"] ** 2
    assert np.allclose(table["noise_ceiling_3"], m3 / (m3 + 1 / 3))
    responsive = table["ncsnr"].to_numpy() > 0
    # 480 pictures against the 1,000 that define it: relative standard error of a standard deviation about 0.03 to 0.06.
    ratio = signal.std(axis=0)[responsive] / table["signal_sd"].to_numpy()[responsive]
    assert abs(np.median(ratio) - 1) < 0.05


def test_repeats_are_as_reliable_as_the_ceiling_says_and_shuffling_destroys_it(subject, signal, betas):
    first, second = betas[0], betas[1]
    # Two showings share the signal and nothing else: the expected correlation is the geometric mean of their shares.
    power = signal.var(axis=0) / subject.voxels["noise_sd"].to_numpy() ** 2
    shares = [power * f**2 / (power * f**2 + 1) for f in (1.0, float(fade(np.array([1]))[0]))]
    expected = np.sqrt(shares[0] * shares[1])
    measured = correlations(first, second)
    assert np.corrcoef(measured, expected)[0, 1] > 0.9
    assert abs(measured.mean() - expected.mean()) < 0.02
    rng = np.random.default_rng(2)
    shuffled = np.array([correlations(first, second[rng.permutation(len(first))]).mean() for _ in range(20)])
    assert abs(shuffled.mean()) < 0.02
    assert measured.mean() > shuffled.mean() + 8 * shuffled.std()


def test_voxels_without_signal_answer_to_nothing(subject, signal, betas):
    silent = subject.voxels["ncsnr"].to_numpy() == 0
    assert 0.1 < silent.mean() < 0.5
    assert (signal[:, silent] == 0).all()
    assert (subject.ceiling(3)[silent] == 0).all()
    none = ~subject.voxels.filter(like="roi.").any(axis=1).to_numpy()
    assert silent[none].all()
    assert np.abs(correlations(betas[0], betas[1])[silent].mean()) < 0.02


def test_signal_to_noise_is_like_that_of_the_scanners():
    seven, three = Subject(5, 1500, "nsd").voxels["ncsnr"], Subject(5, 1500, "3t").voxels["ncsnr"]
    assert 0.3 < seven[seven > 0].median() < 0.5
    assert 0.15 < three[three > 0].median() < 0.25
    assert seven[seven > 0].quantile(0.9) > 2.5 * seven[seven > 0].quantile(0.1)  # a wide distribution


@pytest.mark.parametrize("area", [name for name, item in AREAS.items() if item.prefers])
def test_a_localiser_recovers_each_selective_area(subject, described, betas, area):
    kind = AREAS[area].prefers
    shown = np.array([kind in scene.labels for scene in described])
    blocks = betas.mean(axis=0)
    contrast = blocks[shown].mean(axis=0) - blocks[~shown].mean(axis=0)
    spread = np.sqrt(blocks[shown].var(axis=0) / shown.sum() + blocks[~shown].var(axis=0) / (~shown).sum())
    table = subject.voxels
    members = table[f"roi.{area}"].to_numpy()
    others = table.filter(like="roi.").any(axis=1).to_numpy() & ~members
    for name, item in AREAS.items():  # areas with the same preference are not told apart by this contrast
        if item.prefers == kind and name != area:
            others &= ~table[f"roi.{name}"].to_numpy()
    part = members | others
    assert (contrast / spread)[members].mean() > 2
    assert auc((contrast / spread)[part], members[part]) > 0.85


def bars():
    """Checkerboard bars, 4 orientations x 14 positions, on grey (56, 32, 32, 3), and where they are (56, 32, 32)."""
    at = (np.arange(32) + 0.5) / 32 - 0.5
    x, y = np.meshgrid(at, -at)
    checks = np.where((np.arange(32)[:, None] // 2 + np.arange(32) // 2) % 2, 255, 0).astype(np.uint8)
    places = []
    for angle in np.pi / 4 * np.arange(4):
        along = x * np.cos(angle) + y * np.sin(angle)
        places += [np.abs(along - middle) < 0.06 for middle in np.linspace(-0.5, 0.5, 14)]
    places = np.array(places)
    return np.where(places[..., None], checks[None, :, :, None], np.uint8(128)).repeat(3, axis=3), places


def test_receptive_field_mapping_recovers_the_centres_of_v1(subject):
    pictures, places = bars()
    signal = subject.signal(pictures)
    rng = np.random.default_rng(4)
    n = len(pictures)
    runs = [subject.measure(signal, np.zeros(n, int), np.zeros(n, int), np.zeros(n, int), rng) for _ in range(8)]
    measured = np.mean([run - run.mean(axis=0) for run in runs], axis=0)
    # A model of its own: the overlap of each bar with a Gaussian, best centre and size of a grid by correlation.
    at = ((np.arange(32) + 0.5) / 32 - 0.5) * FIELD_DEG
    grid = np.array(
        [(x, y, s) for x in np.linspace(-4, 4, 17) for y in np.linspace(-4, 4, 17) for s in (0.35, 0.7, 1.2)]
    )
    across = np.exp(-0.5 * ((at[None] - grid[:, :1]) / grid[:, 2:]) ** 2)
    down = np.exp(-0.5 * ((-at[None] - grid[:, 1:2]) / grid[:, 2:]) ** 2)
    model = np.sqrt(np.einsum("bij,mi,mj->bm", places.astype(float), down, across, optimize=True))
    table = subject.voxels
    inside = np.hypot(table["prf_x"], table["prf_y"]) < 3.8
    v1 = np.flatnonzero(table["roi.V1"] & inside & (table["ncsnr"] > 0.3))
    model = (model - model.mean(axis=0)) / model.std(axis=0)
    found = grid[np.argmax(model.T @ measured[:, v1], axis=0)]
    truth = table[["prf_x", "prf_y"]].to_numpy()[v1]
    away = np.hypot(*(found[:, :2] - truth).T)
    assert len(v1) > 30
    assert np.median(away) < 0.5  # degrees; the grid's step is 0.5 and a bar is 1 degree wide
    assert np.corrcoef(found[:, 0], truth[:, 0])[0, 1] > 0.9
    assert np.corrcoef(found[:, 1], truth[:, 1])[0, 1] > 0.9


def test_fields_are_contralateral_and_grow_with_eccentricity_and_along_the_hierarchy(large):
    table = large.voxels
    mapped = table[["roi.V1", "roi.V2", "roi.V3"]].any(axis=1)
    left = table["hemisphere"] == "left"
    assert (table["prf_x"][mapped & left] > 0).mean() > 0.9
    assert (table["prf_x"][mapped & ~left] < 0).mean() > 0.9
    far = np.hypot(table["prf_x"], table["prf_y"])
    sizes = []
    for area in ("V1", "V2", "V3", "hV4"):
        here = table[f"roi.{area}"]
        assert np.corrcoef(far[here], table["prf_size"][here])[0, 1] > 0.6
        sizes.append(table["prf_size"][here & far.between(1.5, 3.0)].mean())
    assert sizes == sorted(sizes)


def test_subjects_differ_in_anatomy_count_and_tuning_and_one_subject_is_always_the_same(described, signal, subject):
    again = Subject(subject.seed, n_voxels=600)
    assert again.voxels.equals(subject.voxels)
    pictures = scenes.render_many(11, np.arange(40))
    assert np.array_equal(again.signal(pictures, described[:40]), subject.signal(pictures, described[:40]))
    other = Subject(subject.seed + 1, n_voxels=600)
    assert len(other.voxels) == 600
    assert not np.allclose(other.voxels[["x", "y", "z"]], subject.voxels[["x", "y", "z"]])
    sizes = [int(Subject(seed).voxels.shape[0]) for seed in (1, 2)]
    assert sizes[0] != sizes[1]
    assert all(3000 < size < 5000 for size in sizes)


def test_every_area_has_voxels_and_they_lie_together(large, subject):
    assert subject.voxels.filter(like="roi.").sum().min() >= 5
    table = large.voxels
    assert table[["x", "y", "z", "u", "v"]].notna().all(axis=None)
    assert (table.filter(like="roi.").sum(axis=1) <= 1).all()
    area = table[[f"roi.{name}" for name in AREAS]].to_numpy()
    for where in (["u", "v"], ["x", "y", "z"]):  # on the flat map and on the folded sheet
        at = table[where].to_numpy()
        away = np.linalg.norm(at[:, None] - at[None], axis=2) + np.where(np.eye(len(at)), np.inf, 0.0)
        assert (area == area[away.argmin(axis=1)]).all(axis=1).mean() > 0.8


def test_few_voxels_leave_small_areas_none_and_answer_all_the_same():
    pictures, told = scenes.render_many(0, np.arange(3)), scenes.describe_many(0, np.arange(3))
    person = Subject(5000, n_voxels=60)  # has no hV4
    assert not person.voxels["roi.hV4"].any()
    answers = person.signal(pictures, told)
    assert np.isfinite(answers).all()
    assert answers.any()


def test_noise_has_the_covariance_it_says_and_forgets_between_runs(subject):
    rng = np.random.default_rng(5)
    sample = np.array([subject.noise.sample(12, rng) for _ in range(1500)])  # (run, trial, voxel)
    some = np.arange(0, 600, 12)
    closed = subject.noise.covariance(some)
    scale = np.sqrt(np.outer(np.diag(closed), np.diag(closed)))
    measured = np.cov(sample[:, 0, some].T)
    # Of 1,500 independent runs' first trials: standard error of a correlation 0.026, of a variance 3.7 %.
    assert np.abs((measured - closed) / scale).max() < 0.14
    assert np.sqrt((((measured - closed) / scale) ** 2).mean()) < 0.035
    assert np.allclose(np.diag(closed), subject.voxels["noise_sd"].to_numpy()[some] ** 2, rtol=1e-4)
    following = correlations(sample[:, 5].astype(float), sample[:, 6].astype(float)).mean()
    far = correlations(sample[:, 5].astype(float), sample[:, 9].astype(float)).mean()
    assert 0.1 < following < 0.4
    assert far < following
    assert abs(correlations(sample[:-1, 11].astype(float), sample[1:, 0].astype(float)).mean()) < 0.01


def test_noise_drifts_within_a_run_as_slowly_as_it_says(subject):
    # Silent voxels: no echo, so 13 % of the variance is waves of half to two cycles a run, and the rest carries over by 0.15.
    silent = (subject.voxels["ncsnr"] == 0).to_numpy()
    rng = np.random.default_rng(1)
    runs = np.array([subject.noise.sample(40, rng)[:, silent] for _ in range(300)]) / subject.noise.sd[silent]
    cycles = np.linspace(0.5, 2.0, 2001)
    for lag in (1, 3, 20):
        expected = 0.87 * 0.15**lag + 0.13 * np.cos(2 * np.pi * cycles * lag / 40).mean()
        # 300 runs of six waves that all voxels share: standard error about 0.13 / sqrt(2 * 6 * 300) = 0.002.
        assert (runs[:, lag:] * runs[:, :-lag]).mean() == pytest.approx(expected, abs=0.01)


def test_repeats_evoke_less_by_exactly_the_fade_and_sessions_differ_in_gain_and_offset(subject, signal):
    some = signal[:30]
    gains, offsets = [], []
    for session in range(300):

        def measured(shown, repeat, session=session):
            rng = np.random.default_rng([9, session])  # the same noise, gain and offset each time
            return subject.measure(shown, np.zeros(30, int), np.zeros(30, int), np.full(30, repeat), rng).astype(float)

        nothing = measured(0 * some, 0)
        answers = subject.voxels["signal_sd"].to_numpy() > 0.2
        first = (measured(some, 0) - nothing)[:, answers]
        gains.append((first * some[:, answers]).sum(axis=0) / (some[:, answers] ** 2).sum(axis=0))
        offsets.append(nothing.mean(axis=0) / subject.noise.sd)
        if session < 5:
            for repeat, share in ((1, 0.94), (2, 0.91), (3, 0.89), (7, 0.89)):
                later = (measured(some, repeat) - nothing)[:, answers]
                np.testing.assert_allclose((later * first).sum() / (first**2).sum(), share, atol=1e-4)  # float32
    logs = np.log(gains)
    # 300 sessions: relative standard error of a standard deviation 4 %; the shared half is one number a session.
    assert logs.std(axis=0).mean() == pytest.approx(0.10, abs=0.012)
    assert logs.mean(axis=1).std() == pytest.approx(0.10 * np.sqrt(0.5), abs=0.012)
    # Offsets of half the noise, and what the mean of 30 trials leaves of the noise itself: at most 0.2 of it.
    assert 0.48 < np.sqrt((np.array(offsets) ** 2).mean()) < np.hypot(0.5, 0.25)


def test_neighbours_share_more_noise_than_voxels_far_apart(subject):
    noise = subject.noise
    c = noise.covariance()
    c = c / np.sqrt(np.outer(np.diag(c), np.diag(c)))
    away = np.linalg.norm(noise.xyz[:, None] - noise.xyz[None], axis=2)
    off = ~np.eye(len(c), dtype=bool)
    assert c[(away < 5) & off].mean() > c[(away > 40)].mean() + 0.1


def test_whitening_is_the_inverse_of_the_covariance(subject):
    values = np.random.default_rng(6).normal(size=(4, 600))
    assert np.allclose(subject.noise.whiten(values), np.linalg.solve(subject.noise.covariance(), values.T).T, rtol=1e-8)


def test_a_picture_of_nothing_known_leaves_the_selective_areas_cold(subject):
    face = next(s for s in scenes.describe_many(0, range(100)) if s.main == "face")
    picture = scenes.render_many(0, [face.index])
    known, unknown = subject.signal(picture, [face]), subject.signal(picture)
    ffa = (subject.voxels["roi.FFA"] & (subject.voxels["ncsnr"] > 0)).to_numpy()
    early = subject.voxels["roi.V1"].to_numpy()
    assert known[0, ffa].mean() > unknown[0, ffa].mean() + 0.5
    assert np.array_equal(known[0, early], unknown[0, early])


def test_wrong_requests_are_refused(subject, signal):
    with pytest.raises(ConfigError, match="snr is one of"):
        Subject(1, 100, "9t")
    for wrong in (10, 50_001, 60.5, "many"):
        with pytest.raises(ConfigError, match="n_voxels must be a whole number from 50 to 50,000"):
            Subject(1, wrong)
    with pytest.raises(ConfigError, match="seed must be a whole number at least 0; got -1"):
        Subject(-1, 100)
    for asked in (subject.ceiling, lambda repeats: subject.bayes_linear(signal, signal[:, :2], repeats)):
        with pytest.raises(ConfigError, match="repeats must be a whole number at least 1; got 0"):
            asked(repeats=0)
    with pytest.raises(DataError, match="uint8"):
        subject.signal(np.zeros((2, 32, 32, 3)))
    with pytest.raises(DataError, match="descriptions"):
        subject.signal(np.zeros((2, 32, 32, 3), dtype=np.uint8), [])
    column = np.array([0, 1, 0])
    with pytest.raises(DataError, match="stand together"):
        subject.measure(signal[:3], column, column, column, np.random.default_rng(0))
    with pytest.raises(DataError, match="3 trials"):
        subject.measure(signal[:3], column[:2], column, column, np.random.default_rng(0))
