"""The linear map against scikit-learn, himalaya, closed forms and its own promises."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import linear_model
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

from phosphene.align import ReducedRankRidge, Ridge, StreamedRidge, block_reader, estimate, ridge_predict, solvers
from phosphene.errors import ConfigError, DataError, ModelError, PhospheneError, PhospheneWarning

pytestmark = pytest.mark.numeric

# Shapes (rows, features, targets): long, wide, square, one feature, one target, two rows, wide with many targets.
SHAPES = [(60, 7, 4), (12, 80, 3), (30, 30, 2), (25, 1, 3), (25, 9, 1), (2, 5, 3), (20, 50, 200)]
# Results are float32: 24 bits, so 1e-5 of the spread leaves room for sums over the sizes used here.
FLOAT32 = 1e-5


def problem(n, p, t, m=11, seed=0):
    """Correlated features off zero, and targets off zero that partly depend on them."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((p, p)) / np.sqrt(p) + np.eye(p)
    x = rng.standard_normal((n + m, p)) @ mixing + 3
    y = x @ rng.standard_normal((p, t)) / np.sqrt(p) + rng.standard_normal((n + m, t)) + 10
    return x[:n].astype(np.float32), y[:n].astype(np.float32), x[n:].astype(np.float32)


def peer(x, y, new, alpha, fit_intercept=True):
    """scikit-learn in double precision."""
    model = linear_model.Ridge(alpha, fit_intercept=fit_intercept)
    x, y, new = (a.astype(np.float64) for a in (x, y, new))
    return model.fit(x, y).predict(new).reshape(len(new), -1)


def quiet(model, *arrays, **more):
    """Fit without the warning about a penalty at the grid's edge, where that is not what a test is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhospheneWarning)
        return model.fit(*arrays, **more)


def centred_rows_of_equal_length(n, p, seed=0):
    """Kernel matrix of centred features whose rows are all equally long: the corners of a simplex, turned."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((p, n)))[0]
    corners = np.eye(n) - 1 / n
    x = corners @ turn.T  # (n, p)
    return x @ x.T


def gram_of(kind):
    """Kernel matrices at which a power iteration can go wrong: its start orthogonal, or the largest eigenvalue repeated."""
    rng = np.random.default_rng(3)
    if kind == "two rows":
        x = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 4.0]])
        x = x - x.mean(axis=0)
        return x @ x.T
    if kind == "equal lengths":
        return centred_rows_of_equal_length(40, 60)
    if kind == "orthogonal":
        return np.diag(np.r_[np.zeros(30), 5.0, np.ones(9)])
    if kind == "one":
        return np.array([[7.0]])
    x = rng.standard_normal((80, 300)) * np.exp(-np.arange(300) / 40)
    x = x - x.mean(axis=0)
    return x @ x.T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["two rows", "equal lengths", "orthogonal", "one", "ordinary"])
def test_the_largest_eigenvalue_is_found_whatever_the_matrix(kind, dtype):
    """A start at the diagonal, or at ones, is exactly orthogonal to the answer for centred rows of equal length."""
    matrix = gram_of(kind)
    lower = np.asfortranarray(np.tril(matrix).astype(dtype))
    expected = np.linalg.eigvalsh(matrix)[-1]
    assert solvers.largest_eigenvalue(lower) == pytest.approx(expected, rel=0.03)
    assert solvers.largest_eigenvalue(lower) <= expected * (1 + FLOAT32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_eigenvalue_of_nothing_is_zero(dtype):
    assert solvers.largest_eigenvalue(np.zeros((5, 5), dtype, order="F")) == 0


def test_two_rows_of_features_vary():
    x = np.array([[0.1, 0.7, 0.3], [0.2, 0.1, 0.9]])
    y = np.array([[1.0], [2.0]])
    assert largest_error(Ridge(1e-6).fit(x, y).predict(x), y) < 1e-4


def largest_error(got, expected):
    """Largest difference as a share of the spread of the expected predictions."""
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / expected.std()


@pytest.fixture
def in_single_precision(monkeypatch):
    """Take the arithmetic of large problems on small ones."""
    monkeypatch.setattr(solvers, "SMALL", 0.0)


@pytest.mark.fault(15)
@pytest.mark.fault(16)
@pytest.mark.fault(17)
@pytest.mark.fault(18)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_fixed_penalty_equals_scikit_learn(shape, alpha, fit_intercept):
    x, y, new = problem(*shape)
    expected = peer(x, y, new, alpha, fit_intercept)
    model = Ridge(alpha, fit_intercept=fit_intercept).fit(x, y)
    assert largest_error(model.predict(new), expected) < FLOAT32
    streamed, _ = ridge_predict(x, new, {"y": (y, alpha)}, fit_intercept=fit_intercept)
    assert largest_error(streamed["y"], expected) < FLOAT32


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_and_intercept_equal_scikit_learn(shape):
    x, y, _ = problem(*shape)
    reference = linear_model.Ridge(2.0).fit(x.astype(float), y.astype(float))
    model = Ridge(2.0).fit(x, y)
    weights = np.atleast_2d(reference.coef_)
    assert_allclose(model.coef_, weights.T, atol=1e-5 * np.abs(weights).max())
    assert_allclose(model.weights(slice(1, 2)), model.coef_[:, 1:2], atol=1e-6 * np.abs(weights).max())
    assert_allclose(model.intercept_, reference.intercept_, rtol=1e-4)


@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] > 2])
def test_leave_one_out_is_exactly_refitting(shape, per_target):
    x, y, _ = problem(*shape)
    x, y = x[:12], y[:12]
    alphas = [0.1, 3.0, 100.0]
    model = quiet(Ridge(alphas, per_target=per_target), x, y)
    errors = np.zeros((3, y.shape[1]))
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        for k, alpha in enumerate(alphas):
            errors[k] += (y[i] - peer(x[rest], y[rest], x[i : i + 1], alpha)[0]) ** 2 / len(x)
    expected = errors if per_target else errors.mean(axis=1)
    assert_allclose(model.errors_, expected, rtol=1e-6)  # both double precision; float64 cancellation only
    assert_array_equal(model.alpha_, np.array(alphas)[expected.argmin(axis=0)])


@pytest.mark.parametrize("shape", [(40, 10, 30), (40, 90, 30)])
def test_leave_one_out_agrees_with_ridgecv(shape):
    x, y, new = problem(*shape)
    alphas = np.logspace(-2, 4, 13)
    for per_target in (True, False):
        reference = linear_model.RidgeCV(alphas, alpha_per_target=per_target).fit(x.astype(float), y.astype(float))
        model = quiet(Ridge(alphas, per_target=per_target), x, y)
        assert_allclose(model.alpha_, reference.alpha_)
        assert largest_error(model.predict(new), reference.predict(new.astype(float))) < FLOAT32


@pytest.mark.parametrize("shape", [(40, 10, 30), (40, 90, 30)])
def test_generalised_cross_validation_is_its_formula(shape):
    x, y, _ = problem(*shape)
    alphas = np.array([1.0, 10.0, 100.0])
    model = quiet(Ridge(alphas, choose="gcv", per_target=True), x, y)
    n = len(x)
    centre = np.eye(n) - 1 / n
    xc, yc = centre @ x.astype(float), centre @ y.astype(float)
    for k, alpha in enumerate(alphas):
        hat = xc @ np.linalg.solve(xc.T @ xc + alpha * np.eye(x.shape[1]), xc.T) + 1 / n
        expected = np.square(yc - hat @ yc).mean(axis=0) / (1 - np.trace(hat) / n) ** 2
        assert_allclose(model.errors_[k], expected, rtol=1e-6)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("shape", [(60, 10, 5), (60, 90, 5)])
def test_grouped_folds_agree_with_grid_search(shape, fit_intercept):
    x, y, new = problem(*shape)
    groups = np.random.default_rng(1).permutation(np.repeat(np.arange(20), 3))  # equal folds: both averages coincide
    alphas = np.logspace(-1, 4, 6)
    search = GridSearchCV(
        linear_model.Ridge(fit_intercept=fit_intercept),
        {"alpha": alphas},
        cv=GroupKFold(4),
        scoring="neg_mean_squared_error",
    ).fit(x.astype(float), y.astype(float), groups=groups)
    model = quiet(Ridge(alphas, choose="folds", folds=4, fit_intercept=fit_intercept), x, y, groups=groups)
    assert_allclose(model.errors_, -search.cv_results_["mean_test_score"], rtol=1e-6)
    assert model.alpha_ == search.best_params_["alpha"]
    assert largest_error(model.predict(new), search.predict(new.astype(float))) < FLOAT32


@pytest.mark.filterwarnings("ignore:Solving:UserWarning")  # himalaya's advice on which of its forms is faster
def test_per_target_folds_agree_with_himalaya():
    himalaya = pytest.importorskip("himalaya.ridge")
    kernel = pytest.importorskip("himalaya.kernel_ridge")
    from himalaya.scoring import l2_neg_loss

    alphas, groups = np.logspace(-1, 4, 6), np.repeat(np.arange(20), 3)
    folds = list(GroupKFold(4).split(groups, groups=groups))
    settings = {"score_func": l2_neg_loss}
    for shape in [(60, 10, 30), (60, 90, 30)]:
        x, y, new = problem(*shape)
        # himalaya does not centre inside folds; without an intercept the two problems are the same.
        x, y, new = x - 3, y - 10, new - 3
        model = quiet(Ridge(alphas, choose="folds", folds=4, per_target=True, fit_intercept=False), x, y, groups=groups)
        for rival in (
            himalaya.RidgeCV(alphas, cv=folds, fit_intercept=False, solver_params=settings),
            kernel.KernelRidgeCV(alphas, cv=folds, solver_params=settings),
        ):
            rival.fit(x.astype(float), y.astype(float))
            assert_allclose(model.alpha_, rival.best_alphas_)
            assert largest_error(model.predict(new), rival.predict(new.astype(float))) < FLOAT32


def test_a_group_never_straddles_a_fold():
    """With a row repeated in its group, folds must not choose the tiny penalty that leaving out rows would."""
    x, y, _ = problem(30, 60, 4)
    rng = np.random.default_rng(3)
    y = rng.standard_normal(y.shape)  # nothing to learn: only memory of the repeat makes a small penalty look good
    x2, y2, groups = np.repeat(x, 2, axis=0), np.repeat(y, 2, axis=0), np.repeat(np.arange(30), 2)
    alphas = [1e-2, 1e3]
    assert quiet(Ridge(alphas), x2, y2).alpha_ == 1e-2
    assert quiet(Ridge(alphas, choose="folds"), x2, y2, groups=groups).alpha_ == 1e3
    with pytest.warns(PhospheneWarning, match="share 30 groups"), pytest.warns(PhospheneWarning, match="smallest"):
        Ridge([1e-4, 1e-2, 1e3]).fit(x2, y2, groups=groups)


def test_sketch_is_unbiased_for_the_error_over_all_targets():
    x, y, _ = problem(30, 50, 40)
    alphas = np.logspace(0, 3, 4)
    exact = quiet(Ridge(alphas), x, y).errors_
    sketched = [quiet(Ridge(alphas, sketch=32, seed=s), x, y).errors_ for s in range(60)]
    # relative sd of one sketch is at most sqrt(2 / 32) = 0.25 (fewer if targets differ); of the mean of 60, 0.032
    assert_allclose(np.mean(sketched, axis=0), exact, rtol=0.1)
    again = quiet(Ridge(alphas, sketch=32, seed=5, block_bytes=1 << 16), x, y).errors_
    assert_allclose(again, sketched[5], rtol=1e-6)  # same seed, other blocks
    assert_allclose(quiet(Ridge(alphas, sketch=40), x, y).errors_, exact, rtol=1e-9)  # enough columns: no sketch


def test_sketch_serves_no_single_target():
    with pytest.raises(ConfigError, match="per_target=False"):
        Ridge([1.0, 2.0], sketch=8, per_target=True)


@pytest.mark.usefixtures("in_single_precision")
@pytest.mark.parametrize("choosing", [False, True])
@pytest.mark.parametrize("shape", [(400, 900, 0), (900, 300, 0)])
def test_single_precision_stays_within_1e_4_of_the_spread_in_every_family(shape, choosing):
    n, p, _ = shape
    widths = {"vision": (300, 60.0), "text": (200, 900.0), "vdvae": (500, 250.0), "again": (70, 60.0)}
    x, y, new = problem(n, p, sum(w for w, _ in widths.values()), m=50)
    x, new = (x - x.mean(0)) / x.std(0), (new - x.mean(0)) / x.std(0)
    families, at = {}, 0
    for name, (width, alpha) in widths.items():
        families[name] = (y[:, at : at + width], alpha if not choosing else [alpha / 3, alpha, alpha * 1e3])
        at += width
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhospheneWarning)
        predictions, alphas = ridge_predict(x, new, families, block_bytes=1 << 18)
    for name, (part, _) in families.items():
        expected = peer(x, part, new, alphas[name])
        assert largest_error(predictions[name], expected) < 1e-4, name
        model = Ridge(alphas[name]).fit(x, part)
        assert model.precision_ == "float32"
        assert largest_error(model.predict(new), expected) < 1e-4, name


@pytest.mark.usefixtures("in_single_precision")
@pytest.mark.parametrize("alpha", [1e-4, [1e-4, 1e-3]])
@pytest.mark.parametrize("shape", [(200, 400, 20), (400, 200, 20)])
def test_penalty_too_small_for_single_precision_is_solved_in_double(shape, alpha):
    x, y, new = problem(*shape)
    model = quiet(Ridge(alpha), x, y)
    assert model.precision_ == "float64"
    expected = peer(x, y, new, model.alpha_)
    assert largest_error(model.predict(new), expected) < 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhospheneWarning)
        streamed, _ = ridge_predict(x, new, {"y": (y, alpha)})
    assert largest_error(streamed["y"], expected) < 1e-4


def test_targets_far_from_zero_lose_nothing():
    """Means 10,000 times the spread: products of raw float32 values would err by about 1e-3 of the spread."""
    x, y, new = problem(80, 120, 6)
    far = y.astype(float) - y.mean(0) + 1e4
    expected = peer(x, far, new, 50.0)
    spread = (expected - expected.mean(0)).std()
    for got in (Ridge(50.0).fit(x, far).predict(new), ridge_predict(x, new, {"y": (far, 50.0)})[0]["y"]):
        # the nearest float32 to 1e4 is up to 5e-4 away; twice that for the addition of the mean
        assert np.abs(got - expected).max() < 1.1e-3
        assert spread > 0.3


@pytest.mark.fault(18)
@pytest.mark.parametrize("shape", [(50, 400, 90), (300, 40, 90)])
def test_memory_maps_in_small_blocks_give_what_arrays_give(tmp_path, shape):
    x, y, new = problem(*shape)
    for name, array in {"x": x, "y": y, "new": new}.items():
        np.save(tmp_path / f"{name}.npy", array)
    maps = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("x", "y", "new")}
    expected = peer(x, y, new, 20.0)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=expected.shape)
    model = Ridge(20.0, block_bytes=1 << 16).fit(maps["x"], maps["y"])
    assert model.predict(maps["new"], out=out) is out
    assert largest_error(np.load(tmp_path / "out.npy"), expected) < FLOAT32
    out[:] = 0
    ridge_predict(maps["x"], maps["new"], {"y": (maps["y"], 20.0)}, out={"y": out}, block_bytes=1 << 16)
    assert largest_error(np.load(tmp_path / "out.npy"), expected) < FLOAT32
    restored = Ridge.from_state(*model.state())
    assert_array_equal(restored.predict(new), model.predict(new))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("dtype", ["<f4", ">i2", "<f8"])
def test_blocks_of_a_map_are_its_values(tmp_path, mode, dtype):
    values = np.random.default_rng(0).integers(-99, 99, (700, 900)).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    whole = np.load(tmp_path / "a.npy", mmap_mode=mode)
    for part, expected in [(whole, values), (whole[3:, 5:], values[3:, 5:]), (whole[::2, 7:90], values[::2, 7:90])]:
        rows = block_reader.BlockReader(part, "a")
        assert (rows._file is None) == (mode == "c" or not Path("/proc/self/maps").exists())
        assert_array_equal(rows.block(), expected)
        assert_array_equal(
            rows.block(slice(4, 60), slice(3, 31), minus=np.arange(28)), expected[4:60, 3:31] - np.arange(28)
        )
        assert_array_equal(rows.block([0, 1, 5, 40], slice(2, 3)), expected[[0, 1, 5, 40], 2:3])
    for odd in (whole.T, whole[::-1], whole[:, ::3]):
        assert_array_equal(block_reader.BlockReader(odd, "a").block(), np.array(odd))
    if mode != "r":
        whole[5, 5] = 77
        assert block_reader.BlockReader(whole, "a").block()[5, 5] == 77


@pytest.mark.parametrize("fate", ["replaced", "deleted"])
def test_a_map_stays_itself_when_its_file_is_replaced_or_deleted(tmp_path, fate):
    values = np.random.default_rng(0).standard_normal((70, 90)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    rows = block_reader.BlockReader(np.load(tmp_path / "a.npy", mmap_mode="r"), "a")
    (tmp_path / "a.npy").unlink()
    if fate == "replaced":
        np.save(tmp_path / "a.npy", values + 1)
    assert_array_equal(rows.block(), values)
    assert_array_equal(block_reader.BlockReader(rows.array, "a").block(), values)


def test_coefficients_can_live_in_a_file(tmp_path):
    x, y, new = problem(20, 50, 200)
    shape = Ridge.coefficients_shape(20, 50, 200)
    out = np.lib.format.open_memmap(tmp_path / "w.npy", mode="w+", dtype=np.float32, shape=shape)
    model = Ridge(5.0, block_bytes=1 << 16).fit(x, y, out=out)
    assert out.any()
    assert_array_equal(model.predict(new), Ridge(5.0, block_bytes=1 << 16).fit(x, y).predict(new))
    with pytest.raises(ConfigError, match="shape"):
        Ridge(5.0).fit(x, y, out=np.empty((1, 1), np.float32))


def test_hdf5_data_sets_are_read_where_they_are(tmp_path):
    import h5py

    x, y, new = problem(30, 40, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = x, y
        got, _ = ridge_predict(file["x"], new, {"y": (file["y"], 3.0)}, rows=np.r_[5:30, 0:5])
        assert largest_error(Ridge(3.0).fit(file["x"], file["y"]).predict(new), peer(x, y, new, 3.0)) < FLOAT32
    assert largest_error(got["y"], peer(x, y[np.r_[5:30, 0:5]], new, 3.0)) < FLOAT32


@pytest.mark.parametrize("shape", [(40, 90, 300), (90, 40, 300)])
@pytest.mark.parametrize("alpha", [7.0, [1.0, 7.0, 50.0]])
def test_repeats_share_rows_of_the_store(shape, alpha):
    x, store, new = problem(*shape)
    rows = np.random.default_rng(0).integers(5, 25, shape[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhospheneWarning)
        got, chosen = ridge_predict(x, new, {"y": (store, alpha)}, rows=rows, sketch_size=400)
        model = Ridge(alpha).fit(x, store[rows])
    assert chosen["y"] == model.alpha_
    assert largest_error(got["y"], peer(x, store[rows], new, chosen["y"])) < FLOAT32


def test_rows_that_are_not_used_may_hold_anything():
    x, y, new = problem(30, 40, 8)
    store = np.vstack([np.full((3, 8), np.nan, np.float32), y, np.full((2, 8), np.inf, np.float32)])
    got, _ = ridge_predict(x, new, {"y": (store, [1.0, 3.0, 1e5])}, rows=np.arange(3, 33))
    assert np.isfinite(got["y"]).all()
    store[10, 5] = np.nan
    with pytest.raises(DataError, match=r"family 'y'.*row 10, column 5 is nan"):
        ridge_predict(x, new, {"y": (store, 1.0)}, rows=np.arange(3, 33))


@pytest.mark.parametrize("shape", [(30, 40, 8), (40, 12, 8)])
def test_each_row_is_predicted_as_if_alone(shape):
    x, y, new = problem(*shape, m=40)
    model = Ridge(3.0).fit(x, y)
    together = model.predict(new)
    for i in range(len(new)):
        # other summation orders of the same float32 products
        assert_allclose(model.predict(new[i : i + 1])[0], together[i], rtol=1e-5, atol=1e-5 * together.std())


@pytest.mark.parametrize("alpha", [3.0, [0.1, 3.0, 100.0]])
@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_saved_map_predicts_the_same_bits(shape, per_target, alpha):
    x, y, new = problem(*shape)
    model = quiet(Ridge(alpha, per_target=per_target), x, y)
    tensors, meta = model.state()
    copies = {name: np.array(tensor, copy=True) for name, tensor in tensors.items()}
    restored = Ridge.from_state(copies, meta)
    assert_array_equal(restored.predict(new), model.predict(new))
    assert_array_equal(restored.alpha_, model.alpha_)
    assert_array_equal(restored.coef_, model.coef_)
    n, p, t = shape
    size = sum(a.size for name, a in tensors.items() if name in ("coefficients", "x_centred"))
    assert size == min(p * t, n * (p + t))


def test_state_is_plain_enough_for_json_and_safetensors(tmp_path):
    import json

    from safetensors.numpy import load_file, save_file

    x, y, new = problem(20, 50, 200)
    model = Ridge(3.0).fit(x, y)
    tensors, meta = model.state()
    save_file(tensors, tmp_path / "map.safetensors")
    restored = Ridge.from_state(load_file(tmp_path / "map.safetensors"), json.loads(json.dumps(meta)))
    assert_array_equal(restored.predict(new), model.predict(new))


@pytest.mark.fault(71)
@pytest.mark.fault(72)
@pytest.mark.fault(70)
def test_damaged_state_is_refused():
    x, y, _ = problem(20, 50, 200)
    tensors, meta = Ridge(3.0).fit(x, y).state()
    with pytest.raises(ModelError, match="x_centred"):
        Ridge.from_state({k: v for k, v in tensors.items() if k != "x_centred"}, meta)
    with pytest.raises(ModelError, match="has shape"):
        Ridge.from_state(tensors | {"coefficients": tensors["coefficients"][:, :-1]}, meta)
    with pytest.raises(ModelError, match="not finite"):
        Ridge.from_state(tensors | {"x_mean": tensors["x_mean"] * np.nan}, meta)
    with pytest.raises(ModelError, match="version 2"):
        Ridge.from_state(tensors, meta | {"version": 2})


def test_later_changes_to_the_training_arrays_do_not_reach_the_model():
    x, y, new = problem(20, 50, 200)
    model = Ridge(3.0).fit(x, y)
    before = model.predict(new)
    x[:], y[:] = 0, 0
    assert_array_equal(model.predict(new), before)


@pytest.mark.parametrize("shape", [(40, 90, 5), (90, 40, 5)])
def test_constant_columns_change_nothing(shape):
    x, y, new = problem(*shape)
    expected = peer(x, y, new, 10.0)
    constant = np.array([[0.0, 0.1, 1e6]], np.float32)
    x2, new2 = (np.hstack([a, np.repeat(constant, len(a), axis=0)]) for a in (x, new))
    new2[:, -3:] += 5  # varies in the test rows only
    for alpha in (10.0, [0.01, 10.0, 1000.0]):
        model = quiet(Ridge(alpha), x2, y)
        expected = peer(x, y, new, model.alpha_)
        assert largest_error(model.predict(new2), expected) < FLOAT32


def test_constant_target_is_predicted_as_its_value():
    x, y, new = problem(40, 90, 3)
    y[:, 1] = 7
    for alpha in (2.0, [0.1, 2.0, 50.0]):
        assert_allclose(quiet(Ridge(alpha, per_target=True), x, y).predict(new)[:, 1], 7, rtol=1e-6)


@pytest.mark.fault(6)
@pytest.mark.fault(15)
def test_features_that_do_not_vary_are_refused():
    with pytest.raises(DataError, match="constant"):
        Ridge(1.0).fit(np.full((9, 4), 0.1), np.arange(9.0)[:, None])
    with pytest.raises(DataError, match="single row"):
        Ridge(1.0).fit(np.ones((1, 4)), np.ones((1, 2)))
    with pytest.raises(DataError, match="single row"):
        ridge_predict(np.ones((1, 4)), np.ones((1, 4)), {"y": (np.ones((1, 2)), 1.0)})


@pytest.mark.fault(1)
@pytest.mark.fault(2)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("shape", [(40, 90, 60), (90, 40, 60)])
def test_values_that_are_not_numbers_are_named(shape, value):
    x, y, new = problem(*shape)
    x_bad, y_bad, new_bad = x.copy(), y.copy(), new.copy()
    x_bad[7, 5] = x_bad[9, 2] = y_bad[3, 41] = new_bad[2, 8] = value
    where = re.escape(f"{value:g}")
    small = {"block_bytes": 1 << 16}
    with pytest.raises(DataError, match=f"X must.*row 7, column 5 is {where}"):
        Ridge(1.0, **small).fit(x_bad, y)
    with pytest.raises(DataError, match=f"Y must.*row 3, column 41 is {where}"):
        Ridge([1.0, 2.0], **small).fit(x, y_bad)
    with pytest.raises(DataError, match=r"X must.*row 2, column 8"):
        Ridge(1.0).fit(x, y).predict(new_bad)
    for alpha in (1.0, [1.0, 2.0]):
        with pytest.raises(DataError, match=r"family 'clip' must.*row 3, column 41"):
            ridge_predict(x, new, {"clip": (y_bad, alpha)}, sketch_size=8, **small)


@pytest.mark.fault(3)
def test_an_empty_trial_is_named():
    x, y, _ = problem(40, 90, 6)
    x[12] = np.nan
    with pytest.raises(DataError, match="row 12, column 0 is nan"):
        Ridge(1.0).fit(x, y)


@pytest.mark.fault(12)
@pytest.mark.fault(13)
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<i8", "<f2", ">f4", ">f8", "<f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_real_number_format_and_order_gives_the_same_map(dtype, order):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2 if dtype == "?" else 200, (40, 60))
    y = rng.integers(0, 2 if dtype == "?" else 200, (40, 7))
    new = rng.integers(0, 2 if dtype == "?" else 200, (5, 60))
    expected = peer(x, y, new, 500.0)
    x2, y2, new2 = (np.asarray(a, dtype=dtype, order=order) for a in (x, y, new))
    model = Ridge(500.0).fit(x2, y2)
    assert largest_error(model.predict(new2), expected) < FLOAT32
    assert model.predict(new2).dtype == np.float32
    assert largest_error(ridge_predict(x2, new2, {"y": (y2, 500.0)})[0]["y"], expected) < FLOAT32


@pytest.mark.fault(12)
@pytest.mark.usefixtures("in_single_precision")
def test_half_precision_does_not_overflow_in_sums():
    rng = np.random.default_rng(0)
    x, y = rng.normal(900, 300, (200, 30)).astype(np.float16), rng.normal(900, 300, (200, 3)).astype(np.float16)
    assert largest_error(Ridge(1e6).fit(x, y).predict(x), peer(x, y, x, 1e6)) < FLOAT32


@pytest.mark.fault(19)
@pytest.mark.fault(20)
@pytest.mark.parametrize("which", ["X", "Y"])
def test_objects_text_and_complex_numbers_are_refused(which):
    x, y, _ = problem(10, 4, 3)
    odd = {"X": x, "Y": y}[which].astype(object)
    odd[3, 2] = None
    for wrong, message in [(odd, r"row 3, column 2 is None of type NoneType"), (odd.astype(str), "dtype <U")]:
        with pytest.raises(DataError, match=rf"^{which} must hold real numbers but .*{message}"):
            Ridge(1.0).fit(*((wrong, y) if which == "X" else (x, wrong)))
    with pytest.raises(DataError, match=rf"^{which} must hold real numbers but is complex"):
        Ridge(1.0).fit(*((x * 1j, y) if which == "X" else (x, y * 1j)))


@pytest.mark.fault(21)
@pytest.mark.fault(23)
@pytest.mark.fault(11)
def test_shapes_that_do_not_fit_are_named():
    x, y, new = problem(10, 4, 3)
    with pytest.raises(DataError, match="X has 4 rows and Y has 10"):
        Ridge(1.0).fit(x.T, y)
    with pytest.raises(DataError, match=r"X is empty: shape \(0, 4\)"):
        Ridge(1.0).fit(x[:0], y[:0])
    with pytest.raises(DataError, match=r"shape \(10,\)"):
        Ridge(1.0).fit(x[:, 0], y)
    with pytest.raises(ModelError, match="X has 3 columns but this map was fitted on 4"):
        Ridge(1.0).fit(x, y).predict(new[:, :3])
    with pytest.raises(DataError, match="family 'y' has 9 rows but X has 10"):
        ridge_predict(x, new, {"y": (y[:9], 1.0)})
    with pytest.raises(DataError, match="rows goes up to 10"):
        ridge_predict(x, new, {"y": (y, 1.0)}, rows=np.arange(1, 11))
    with pytest.raises(DataError, match="groups must name"):
        Ridge([1.0, 2.0], choose="folds").fit(x, y, groups=[1, 2])
    with pytest.raises(DataError, match="fewer folds"):
        Ridge([1.0, 2.0], choose="folds").fit(x, y, groups=np.arange(10) // 5)


def test_lists_and_frames_are_taken_and_ragged_or_sparse_ones_refused():
    import pandas
    import scipy.sparse

    x, y, new = problem(10, 4, 3)
    expected = Ridge(1.0).fit(x, y).predict(new)
    for convert in (np.ndarray.tolist, pandas.DataFrame):
        assert_array_equal(Ridge(1.0).fit(convert(x), convert(y)).predict(convert(new)), expected)
    for wrong in ([[1.0, 2.0], [3.0]], scipy.sparse.eye(10)):
        with pytest.raises(DataError, match="X must be a matrix"):
            Ridge(1.0).fit(wrong, y)


def test_one_dimensional_targets_give_one_dimensional_predictions():
    x, y, new = problem(30, 4, 1)
    model = Ridge(1.0).fit(x, y[:, 0])
    assert model.predict(new).shape == (len(new),)
    assert_array_equal(model.predict(new), Ridge(1.0).fit(x, y).predict(new)[:, 0])


@pytest.mark.fault(59)
@pytest.mark.parametrize("alpha", [0, -1.0, np.nan, np.inf, 1e300, "1", None, True, [], [1.0, 0.0], [[1.0]]])
def test_impossible_penalties_are_refused(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        Ridge(alpha)


@pytest.mark.fault(59)
def test_penalty_that_leaves_nothing_is_refused():
    x, y, new = problem(30, 4, 2)
    with pytest.raises(ConfigError, match="training mean"):
        Ridge(1e20).fit(x, y)
    with pytest.raises(ConfigError, match="training mean"):
        ridge_predict(x, new, {"y": (y, 1e20)})
    with pytest.raises(ConfigError, match="too small"):
        Ridge(1e-25).fit(np.hstack([x, x]), y)


@pytest.mark.fault(59)
def test_penalty_at_the_edge_of_the_grid_warns():
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((40, 60)), rng.standard_normal((40, 20))
    with pytest.warns(PhospheneWarning, match="the chosen penalty, is the largest on offer"):
        Ridge([0.1, 1.0]).fit(x, noise)
    with (
        pytest.warns(PhospheneWarning, match=r"for \d+% of the targets, is the largest"),
        pytest.warns(PhospheneWarning, match=r"for \d+% of the targets, is the smallest"),
    ):
        Ridge([0.1, 1.0], per_target=True).fit(x, noise)
    with pytest.warns(PhospheneWarning, match="family 'clip', is the largest"):
        ridge_predict(x, x, {"clip": (noise, [0.1, 1.0])})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Ridge([1e-3, 40.0, 1e6]).fit(x, x[:, :1] + noise / 2)


def test_settings_that_mean_nothing_are_refused():
    for settings in ({"choose": "lo"}, {"folds": 1}, {"folds": 2.5}, {"sketch": 0}, {"block_bytes": 10}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            Ridge(1.0, **settings)
    x, y, new = problem(10, 4, 3)
    with pytest.raises(ConfigError, match="groups"):
        Ridge([1.0, 2.0], choose="folds").fit(x, y)
    with pytest.raises(ConfigError, match="families is empty"):
        ridge_predict(x, new, {})
    with pytest.raises(PhospheneError, match="not fitted"):
        Ridge(1.0).predict(x)


def test_estimate_counts_the_operations_of_the_published_problem():
    """Operations worked out by hand for 8859 x 15,724 to 347,680 targets: kernel, three Cholesky, solves, products."""
    full = estimate(8859, 15_724, 347_680, 982, penalties=3, flops_per_second=2e11)
    assert full.flops == pytest.approx(8.7e12, rel=0.05)
    assert full.seconds == pytest.approx(8.7e12 / 2e11 + 6.8, rel=0.1)
    assert full.peak_bytes < 1.2e9
    weights = estimate(8859, 15_724, 347_680, 982, stream=False, flops_per_second=2e11)
    assert weights.flops > 5 * full.flops
    assert "347,680 targets" in full.text


def test_estimate_bounds_the_memory_really_allocated():
    import tracemalloc

    x, y, new = problem(700, 1500, 3000, m=60)
    tracemalloc.start()
    ridge_predict(x, new, {"a": (y, 3e4), "b": (y, 9e4)}, block_bytes=1 << 21)
    peak = tracemalloc.get_traced_memory()[1] - 2 * 60 * 3000 * 4  # the predictions themselves are not counted
    tracemalloc.stop()
    told = estimate(700, 1500, 6000, 60, penalties=2, block_bytes=1 << 21).peak_bytes
    assert 0.25 * told < peak < told  # the estimate allows for pages of a map, which arrays in memory do not need


@pytest.mark.parametrize(
    "map_",
    [
        Ridge([1.0, 10.0], choose="gcv", per_target=True),
        ReducedRankRidge([1, 2], 3.0, folds=4),
        StreamedRidge(2.0, fit_intercept=False, seed=5),
    ],
    ids=lambda map_: type(map_).__name__,
)
def test_scikit_learn_can_clone_every_estimator(map_):
    copy = clone(map_)
    assert copy is not map_
    assert copy.get_params() == map_.get_params()
    assert_array_equal(copy.alphas_, map_.alphas_)


def test_changed_parameters_are_checked_and_used():
    x, y, _ = problem(30, 4, 2)
    changed = Ridge(1.0).set_params(alpha=7.0)
    assert_array_equal(changed.fit(x, y).predict(x), Ridge(7.0).fit(x, y).predict(x))

    with pytest.raises(ConfigError, match="no parameter 'alhpa'"):
        Ridge().set_params(alhpa=1.0)

    with pytest.raises(ConfigError, match="above 0"):
        Ridge().set_params(alpha=-1.0)
