"""The ridge of limited rank against the formula on augmented data, classical reduced-rank regression, and brute force."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.linear_model import LinearRegression
from sklearn.linear_model import Ridge as PeerRidge
from sklearn.model_selection import GroupKFold

from phosphene.align import ReducedRankConfig, ReducedRankRidge, Ridge
from phosphene.errors import ConfigError, DataError, ModelError, PhospheneWarning
from phosphene.io.config import validate
from phosphene.io.stages import load_part, save_part

# Rows, features, targets: long, wide, square, more targets than anything else, one target.
SHAPES = [(60, 9, 6), (14, 50, 5), (20, 20, 4), (12, 30, 80), (25, 9, 1)]
# Results are float32: 24 bits, so 1e-5 of the spread leaves room for sums over the sizes used here.
FLOAT32 = 1e-5


def problem(n, p, t, m=9, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + m, p)) @ (rng.standard_normal((p, p)) / np.sqrt(p) + np.eye(p)) + 3
    y = x @ rng.standard_normal((p, t)) / np.sqrt(p) + rng.standard_normal((n + m, t)) + 10
    return x[:n], y[:n], x[n:]


def augmented(x, y, new, alpha, rank):
    """Least squares on rows augmented by sqrt(alpha) I, its fitted values cut to their first principal directions."""
    xc, yc = x - x.mean(0), y - y.mean(0)
    p, t = x.shape[1], y.shape[1]
    tall = np.vstack([xc, np.sqrt(alpha) * np.eye(p)])
    weights = np.linalg.lstsq(tall, np.vstack([yc, np.zeros((p, t))]), rcond=None)[0]
    v = np.linalg.svd(tall @ weights, full_matrices=False)[2][:rank].T
    return (new - x.mean(0)) @ weights @ v @ v.T + y.mean(0)


def largest_error(got, expected):
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / expected.std()


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("alpha", [1e-2, 5.0, 300.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_the_formula_on_augmented_data(shape, alpha, rank):
    x, y, new = problem(*shape)
    model = ReducedRankRidge(rank, alpha).fit(x, y)
    assert largest_error(model.predict(new), augmented(x, y, new, alpha, rank)) < FLOAT32
    assert model.rank_ == min(rank, shape[2])


@pytest.mark.parametrize("shape", SHAPES)
def test_with_rank_to_spare_it_is_ridge(shape):
    x, y, new = problem(*shape)
    expected = PeerRidge(2.0).fit(x, y).predict(new).reshape(len(new), -1)
    assert largest_error(ReducedRankRidge(200, 2.0).fit(x, y).predict(new), expected) < FLOAT32


def test_without_a_penalty_it_is_classical_reduced_rank_regression():
    x, y, new = problem(60, 9, 6)
    ols = LinearRegression().fit(x, y)
    fitted = ols.predict(x) - y.mean(0)
    v = np.linalg.eigh(fitted.T @ fitted)[1][:, -2:]
    expected = (ols.predict(new) - y.mean(0)) @ v @ v.T + y.mean(0)
    assert largest_error(ReducedRankRidge(2, 1e-8).fit(x, y).predict(new), expected) < FLOAT32


def test_no_map_of_that_rank_found_by_alternating_least_squares_is_better():
    x, y, _ = problem(30, 6, 5)
    xc, yc, alpha, rank = x - x.mean(0), y - y.mean(0), 3.0, 2

    def objective(w):
        return np.square(yc - xc @ w).sum() + alpha * np.square(w).sum()

    model = ReducedRankRidge(rank, alpha).fit(x, y)
    ours = objective(model.left_.astype(float) @ model.right_)
    for seed in range(5):
        b = np.linalg.qr(np.random.default_rng(seed).standard_normal((5, rank)))[0]
        for _ in range(300):  # the left factor given the right one, and the best orthonormal right one given the left
            a = np.linalg.solve(xc.T @ xc + alpha * np.eye(6), xc.T @ yc @ b)
            u, _, vt = np.linalg.svd(yc.T @ xc @ a, full_matrices=False)
            b = u @ vt
        assert objective(a @ b.T) >= ours * (1 - 1e-6)  # float32 factors
        assert objective(a @ b.T) == pytest.approx(ours, rel=1e-3)  # the search does get there


def test_rank_and_penalty_are_those_of_brute_force_over_grouped_folds():
    for shape in [(40, 6, 5), (24, 40, 7)]:
        x, y, _ = problem(*shape)
        groups = np.repeat(np.arange(len(x) // 2), 2)
        ranks, alphas = [1, 2, 4], [0.1, 10.0, 1000.0]
        expected = np.zeros((3, 3))
        for train, test in GroupKFold(4).split(x, groups=groups):
            for i, alpha in enumerate(alphas):
                for j, rank in enumerate(ranks):
                    guess = augmented(x[train], y[train], x[test], alpha, rank)
                    expected[i, j] += np.square(guess - y[test]).sum() / y.size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PhospheneWarning)
            model = ReducedRankRidge(ranks, alphas, folds=4).fit(x, y, groups)
        np.testing.assert_allclose(model.errors_, expected, rtol=1e-8)  # double precision, sums of a few hundred terms
        i, j = np.unravel_index(expected.argmin(), (3, 3))
        assert (model.alpha_, model.rank_) == (alphas[i], ranks[j])


def test_a_low_rank_truth_is_found_and_the_limit_helps():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 60))
    truth = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 40)) / 8
    y = x @ truth + rng.standard_normal((80, 40))
    new = rng.standard_normal((500, 60))
    alphas = np.logspace(-3, 4, 15)
    model = ReducedRankRidge([1, 2, 3, 5, 10, 40], alphas).fit(x, y, np.arange(80))
    assert model.rank_ == 3
    full = Ridge(alphas).fit(x, y)
    wrong = [np.square(m.predict(new) - new @ truth).sum() for m in (model, full)]
    assert wrong[0] < wrong[1]


def test_blocks_change_nothing():
    x, y, new = problem(20, 400, 900)
    whole, cut = ReducedRankRidge(7, 5.0).fit(x, y), ReducedRankRidge(7, 5.0, block_bytes=1 << 16).fit(x, y)
    assert largest_error(cut.predict(new), whole.predict(new)) < FLOAT32


def test_the_order_of_rows_voxels_and_targets_does_not_matter():
    x, y, new = problem(14, 50, 5)
    rng = np.random.default_rng(1)
    rows, voxels, targets = rng.permutation(14), rng.permutation(50), rng.permutation(5)
    expected = ReducedRankRidge(2, 3.0).fit(x, y).predict(new)
    model = ReducedRankRidge(2, 3.0).fit(x[rows][:, voxels], y[rows][:, targets])
    assert largest_error(model.predict(new[:, voxels]), expected[:, targets]) < FLOAT32


def test_directions_are_orthonormal_and_data_of_lower_rank_give_a_lower_rank():
    x, y, _ = problem(60, 9, 6)
    model = ReducedRankRidge(4, 1.0).fit(x, y)
    np.testing.assert_allclose(model.right_ @ model.right_.T, np.eye(4), atol=1e-6)  # float32
    assert ReducedRankRidge(4, 1.0).fit(x, np.repeat(y[:, :2], 3, axis=1)).rank_ == 2
    assert ReducedRankRidge(20, 1.0).fit(np.repeat(x[:, :2], 4, axis=1), y).rank_ == 2


def test_it_is_a_part_of_a_run(tmp_path):
    x, y, new = problem(14, 50, 5)
    model = ReducedRankRidge(2, 3.0).fit(x, y)
    save_part(tmp_path / "part", model, stage="s", digest="d", seconds=0.0, lineage=())
    again = load_part(tmp_path / "part", ReducedRankRidge)
    assert_array_equal(again.predict(new), model.predict(new))
    assert (again.rank_, again.alpha_, repr(again)) == (2, 3.0, repr(model))
    tensors, meta = model.state()
    with pytest.raises(ModelError, match="do not fit"):
        ReducedRankRidge.from_state(tensors | {"left": tensors["left"][:, :1]}, meta)


def test_a_configuration_makes_the_map():
    config = validate(ReducedRankConfig, {"kind": "reduced_rank", "rank": [3], "alphas": [2.0]}, "the configuration")
    x, y, new = problem(14, 50, 5)
    assert_array_equal(config.make().fit(x, y).predict(new), ReducedRankRidge(3, 2.0).fit(x, y).predict(new))
    assert ReducedRankConfig().rank == (200,)
    assert validate(ReducedRankConfig, ReducedRankConfig.preset("lab"), "lab").make().ranks_[-1] == 80


@pytest.mark.parametrize("rank", [0, -1, 2.5, True, [], [3, 0]])
def test_an_impossible_rank_is_refused(rank):
    with pytest.raises(ConfigError, match="rank"):
        ReducedRankRidge(rank)


def test_what_cannot_be_fitted_is_named():
    x, y, new = problem(14, 50, 5)
    with pytest.raises(ConfigError, match="groups"):
        ReducedRankRidge([1, 2]).fit(x, y)
    with pytest.raises(DataError, match="14 rows"):
        ReducedRankRidge(2).fit(x, y[:5])
    with pytest.raises(DataError, match="does not vary"):
        ReducedRankRidge(2).fit(x, np.ones_like(y))
    with pytest.raises(ModelError, match="not fitted"):
        ReducedRankRidge(2).predict(x)
    with pytest.raises(ModelError, match="49 columns"):
        ReducedRankRidge(2).fit(x, y).predict(new[:, 1:])
    y[3, 2] = np.nan
    with pytest.raises(DataError, match="row 3, column 2"):
        ReducedRankRidge(2).fit(x, y)
