"""Ridge towards a feature store: against scikit-learn, against `Ridge`, and what becomes of it when the store moves."""

import json
import shutil
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import linear_model

from phosphene.align import Ridge, StreamedRidge, solvers
from phosphene.align.moments import Moments
from phosphene.errors import DataError, ModelError, PhospheneWarning
from phosphene.io.stages import StageStore, load_part, save_part
from phosphene.io.store import cached

# Results are float32: 24 bits, so 1e-5 of the spread leaves room for sums over the sizes used here.
FLOAT32 = 1e-5
SHAPES = [(40, 90, (3, 20)), (90, 40, (60,)), (30, 30, (2,)), (25, 1, (3,))]


def problem(n, p, shape, m=11, seed=0):
    """Correlated features off zero, and targets off zero that partly depend on them."""
    rng, t = np.random.default_rng(seed), int(np.prod(shape))
    mixing = rng.standard_normal((p, p)) / np.sqrt(p) + np.eye(p)
    x = rng.standard_normal((n + m, p)) @ mixing + 3
    y = x @ rng.standard_normal((p, t)) / np.sqrt(p) + rng.standard_normal((n + m, t)) + 10
    return x[:n].astype(np.float32), y[:n].astype(np.float32).reshape(n, *shape), x[n:].astype(np.float32)


def stored(cache, y, *, first=0, dtype="float32"):
    """A store that holds the targets y in another order, among rows of others; and the rows that belong to y."""
    ids = [f"s{i}" for i in range(len(y) + 7)]
    rows = {i: y[k] if k < len(y) else np.full(y.shape[1:], 999.0) for k, i in enumerate(ids)}
    shuffled = np.random.default_rng(first).permutation(ids)
    store = cached(
        cache, {"extractor": "test", "content": float(y.sum())}, shuffled, lambda ids: np.stack([rows[i] for i in ids]),
        shape=y.shape[1:], dtype=dtype, chunk=32,
    )  # fmt: skip
    return store.select(ids[: len(y)])


def peer(x, y, new, alpha, fit_intercept=True):
    """scikit-learn in double precision."""
    x, y, new = (a.astype(np.float64) for a in (x, y.reshape(len(y), -1), new))
    return linear_model.Ridge(alpha, fit_intercept=fit_intercept).fit(x, y).predict(new).reshape(len(new), -1)


def quiet(model, *arrays):
    """Fit without the warning about a penalty at the grid's edge, where that is not what a test is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhospheneWarning)
        return model.fit(*arrays)


def largest_error(got, expected):
    """Largest difference as a share of the spread of the expected predictions."""
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / expected.std()


@pytest.fixture
def in_single_precision(monkeypatch):
    """Take the arithmetic of large problems on small ones."""
    monkeypatch.setattr(solvers, "SMALL", 0.0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.5, 30.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_predictions_equal_scikit_learn(cache, shape, alpha, fit_intercept):
    x, y, new = problem(*shape)
    model = StreamedRidge(alpha, fit_intercept=fit_intercept, block_bytes=1 << 16).fit(x, stored(cache, y))
    assert largest_error(model.predict(new), peer(x, y, new, alpha, fit_intercept)) < FLOAT32


@pytest.mark.parametrize("shape", SHAPES)
def test_penalty_is_chosen_as_ridge_chooses_it(cache, shape):
    """The sketch holds all targets here, so that both judge by the same errors."""
    x, y, new = problem(*shape)
    alphas = [0.1, 3.0, 30.0, 1e3]
    model, flat = quiet(StreamedRidge(alphas), x, stored(cache, y)), quiet(Ridge(alphas), x, y.reshape(len(y), -1))
    assert model.alpha_ == flat.alpha_
    assert largest_error(model.predict(new), flat.predict(new)) < FLOAT32


def test_penalty_chosen_on_a_sketch_is_as_good_as_the_best(cache):
    """256 combinations of 900 targets: by the exact errors of all targets, within 2 % of the least."""
    x, y, _ = problem(60, 40, (900,))
    alphas = list(np.logspace(-1, 4, 21))
    exact = Ridge(alphas).fit(x, y)
    found = StreamedRidge(alphas).fit(x, stored(cache, y)).alpha_
    assert exact.errors_[exact.alphas_ == found] <= 1.02 * exact.errors_.min()


@pytest.mark.usefixtures("in_single_precision")
@pytest.mark.parametrize("shape", [(200, 500, (90,)), (500, 200, (90,))])
@pytest.mark.parametrize("share", [1e-6, 1e-3, 0.003, 0.03, 1.0])
@pytest.mark.parametrize("choosing", [False, True])
def test_single_precision_stays_within_the_stated_tolerance(cache, shape, share, choosing):
    """Penalties from a millionth of the largest eigenvalue; double precision takes over where it must."""
    x, y, new = problem(*shape, m=40)
    alpha = share * float(np.linalg.norm(x - x.mean(0), 2) ** 2)
    model = quiet(StreamedRidge([alpha, alpha * 1.01] if choosing else alpha), x, stored(cache, y))
    assert model.precision_ == ("float64" if share < 0.002 else "float32")
    assert largest_error(model.predict(new), peer(x, y, new, model.alpha_)) < 1e-4


def test_targets_far_from_zero_lose_nothing(cache):
    """Means 10,000 times the spread: products of raw float32 values would err by about 1e-3 of the spread."""
    x, y, new = problem(80, 120, (6,))
    far = (y.astype(float) - y.mean(0) + 1e4).astype(np.float32)
    # the nearest float32 to 1e4 is up to 5e-4 away; twice that for the addition of the mean
    assert np.abs(StreamedRidge(50.0).fit(x, stored(cache, far)).predict(new) - peer(x, far, new, 50.0)).max() < 1.1e-3


def test_stimuli_may_repeat(cache):
    x, y, new = problem(40, 90, (12,))
    which = np.random.default_rng(0).integers(5, 25, 40)
    rows = stored(cache, y)
    model = StreamedRidge(3.0).fit(x, rows.store.select(rows.ids[which]))
    assert largest_error(model.predict(new), peer(x, y[which], new, 3.0)) < FLOAT32
    assert model.state()[0]["map"].shape == (90, len(np.unique(which)))


def test_half_precision_targets_are_read_as_they_are_stored(cache):
    x, y, new = problem(40, 90, (12,))
    model = StreamedRidge(3.0).fit(x, stored(cache, y, dtype="float16"))
    assert largest_error(model.predict(new), peer(x, y.astype(np.float16), new, 3.0)) < FLOAT32


def test_some_columns_are_those_of_all(cache):
    x, y, new = problem(40, 90, (3, 20))
    model = StreamedRidge(3.0, block_bytes=1 << 13).fit(x, stored(cache, y))
    whole = model.predict(new)
    # other summation orders of the same float32 products
    assert_allclose(model.predict(new, columns=slice(17, 41)), whole[:, 17:41], rtol=1e-6)
    blocks = [at for at, _ in model.blocks(new)]
    assert len(blocks) > 1
    assert [at.stop for at in blocks[:-1]] == [at.start for at in blocks[1:]]


@pytest.mark.parametrize("shape", [(30, 40, (8,)), (40, 12, (8,))])
def test_each_row_is_predicted_as_if_alone(cache, shape):
    x, y, new = problem(*shape, m=40)
    model = StreamedRidge(3.0).fit(x, stored(cache, y))
    together = model.predict(new)
    for i in range(len(new)):
        # other summation orders of the same float32 products
        assert_allclose(model.predict(new[i : i + 1])[0], together[i], rtol=1e-5, atol=1e-5 * together.std())


def test_predictions_are_written_where_they_are_asked_for(cache, tmp_path):
    x, y, new = problem(40, 90, (3, 20))
    model = StreamedRidge(3.0, block_bytes=1 << 16).fit(x, stored(cache, y))
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=(len(new), 60))
    assert model.predict(new, out=out) is out
    assert_array_equal(np.load(tmp_path / "out.npy"), model.predict(new))


@pytest.mark.parametrize("shape", [(40, 90, (5, 7)), (90, 40, (35,))])
def test_left_out_predictions_are_those_of_maps_fitted_without_the_fold(cache, shape):
    x, y, _ = problem(*shape)
    rows, flat = stored(cache, y), y.reshape(len(y), -1)
    fold = np.random.default_rng(0).integers(0, 4, len(x))
    blocks = [(p.copy(), t) for p, t in StreamedRidge(3.0, block_bytes=1 << 14).fit(x, rows).left_out(x, rows, fold)]
    assert len(blocks) > 1
    predicted, true = (np.hstack(parts) for parts in zip(*blocks, strict=True))
    assert_array_equal(true, flat)
    for f in range(4):
        expected = peer(x[fold != f], flat[fold != f], x[fold == f], 3.0)
        assert largest_error(predicted[fold == f], expected) < FLOAT32


def test_moments_of_blocks_are_the_moments_of_all():
    rng = np.random.default_rng(0)
    predicted, true = rng.standard_normal((2, 30, 50)) + 3
    whole = Moments().fit(predicted, true)
    parts = Moments().fit_blocks((predicted[:, c], true[:, c]) for c in (slice(0, 7), slice(7, 50)))
    assert_array_equal(whole(predicted), parts(predicted))
    assert_array_equal(whole(predicted)[:, 5:20], parts(predicted[:, 5:20], slice(5, 20)))


def test_what_is_saved_is_small_and_names_no_folder(cache, tmp_path):
    x, y, _ = problem(40, 30, (100, 100))
    save_part(
        tmp_path / "part", StreamedRidge(3.0).fit(x, stored(cache, y)), stage="a", digest="", seconds=0, lineage=()
    )
    assert str(tmp_path) not in (tmp_path / "part" / "stage.json").read_text()
    size = sum(f.stat().st_size for f in (tmp_path / "part").iterdir())
    assert size < 40 * 30 * 4 + 8192 < y.nbytes / 100  # the map, and a few kilobytes of names


def test_a_saved_map_predicts_the_same_bits(cache, tmp_path):
    x, y, new = problem(40, 90, (3, 20))
    model = quiet(StreamedRidge([1.0, 3.0, 10.0]), x, stored(cache, y))
    save_part(tmp_path / "part", model, stage="a", digest="", seconds=0, lineage=())
    assert_array_equal(load_part(tmp_path / "part", StreamedRidge).predict(new), model.predict(new))


def test_the_cache_may_move_and_be_made_again_in_another_order(cache, tmp_path, monkeypatch):
    x, y, new = problem(40, 90, (3, 20))
    model = StreamedRidge(3.0).fit(x, stored(cache, y))
    tensors, meta = model.state()
    expected, meta = model.predict(new), json.loads(json.dumps(meta))
    shutil.move(cache, tmp_path / "elsewhere")
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "elsewhere"))
    assert_array_equal(StreamedRidge.from_state(tensors, meta).predict(new), expected)
    again = stored(tmp_path / "again", y, first=1)
    assert list(again.store.ids) != list(model.targets_.store.ids)
    moved = StreamedRidge.from_state(tensors, meta, tmp_path / "again")
    assert largest_error(moved.predict(new), expected) < FLOAT32  # sums in another order


def test_a_store_that_is_gone_is_named_with_what_to_do(cache, monkeypatch):
    x, y, _ = problem(40, 90, (12,))
    state = StreamedRidge(3.0).fit(x, stored(cache, y)).state()
    shutil.rmtree(cache)
    with pytest.raises(ModelError, match=r"PHOSPHENE_CACHE.*fit again"):
        StreamedRidge.from_state(*state)
    monkeypatch.delenv("PHOSPHENE_CACHE")
    with pytest.raises(ModelError, match="no cache is named"):
        StreamedRidge.from_state(*state)


def test_a_resumed_fit_makes_the_store_again_where_it_is_gone(cache, tmp_path):
    x, y, new = problem(40, 90, (12,))
    calls = []

    def fit():
        calls.append(1)
        return StreamedRidge(3.0).fit(x, stored(cache, y))

    def resumed():
        return StageStore(tmp_path / "stages").get("vision", StreamedRidge, "digest", (), fit)

    expected = resumed().predict(new)
    assert_array_equal(resumed().predict(new), expected)
    assert len(calls) == 1
    shutil.rmtree(cache)
    with pytest.warns(PhospheneWarning, match="fitted again.*PHOSPHENE_CACHE"):
        assert_array_equal(resumed().predict(new), expected)
    assert len(calls) == 2


def test_damaged_targets_are_refused(cache):
    x, y, new = problem(40, 90, (12,))
    rows = stored(cache, y)
    tensors, meta = StreamedRidge(3.0).fit(x, rows).state()
    with open(rows.store.folder / "rows.npy", "r+b") as file:
        file.seek(-4 * 12 * 20, 2)
        file.write(b"\x00\x00\x80\x3f")
    with pytest.raises(ModelError, match="damaged"):
        StreamedRidge.from_state(tensors, meta).predict(new)


def test_what_does_not_fit_together_is_refused(cache):
    x, y, new = problem(40, 90, (12,))
    rows = stored(cache, y)
    with pytest.raises(DataError, match="39 rows but came with 40"):
        StreamedRidge(3.0).fit(x[1:], rows)
    with pytest.raises(ModelError, match="not fitted"):
        StreamedRidge(3.0).predict(new)
    model = StreamedRidge(3.0).fit(x, rows)
    with pytest.raises(ModelError, match="89 columns"):
        model.predict(new[:, 1:])
    new[2, 8] = np.nan
    with pytest.raises(DataError, match="row 2, column 8"):
        model.predict(new)
    tensors, meta = model.state()
    with pytest.raises(ModelError, match="version 2"):
        StreamedRidge.from_state(tensors, {**meta, "version": 2})
    with pytest.raises(ModelError, match="shape"):
        StreamedRidge.from_state({**tensors, "map": tensors["map"][:, 1:]}, meta)
