"""Ridge predictions in ranges of targets: equal to the whole, and whatever is lost is one range."""

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from phosphene.align import RidgeShards, StreamedRidge
from phosphene.errors import ConfigError, DataError, ModelError
from tests.align.test_streamed import cache, peer, problem, stored  # noqa: F401  a fixture


@pytest.fixture
def fitted(cache):  # noqa: F811
    x, y, new = problem(40, 90, (3, 20))
    return StreamedRidge(3.0).fit(x, stored(cache, y)), x, y, new


@pytest.mark.parametrize("n_shards", [1, 7, 60, 1000])
def test_ranges_together_are_the_whole(fitted, tmp_path, n_shards):
    model, x, y, new = fitted
    shards = RidgeShards.prepare(tmp_path / "s", model, new, n_shards)
    assert len(shards) == min(n_shards, 60)
    for number in shards.missing():
        shards(number)
    joined = shards.joined()
    assert joined.shape == (len(new), 60)
    # other summation orders of the same float32 products
    assert_allclose(joined[:], model.predict(new), rtol=1e-5)
    expected = peer(x, y, new, 3.0)
    assert np.abs(joined[:] - expected).max() < 1e-5 * expected.std()  # float32 against float64


def test_joined_columns_are_indexed_like_the_matrix(fitted, tmp_path):
    model, _, _, new = fitted
    shards = RidgeShards.prepare(tmp_path / "s", model, new, 7)
    for number in shards.missing():
        shards(number)
    joined, whole = shards.joined(), shards.joined()[:]
    for index in (3, slice(2, 5), (slice(None), slice(5, 31)), (4, slice(0, 60)), (slice(None), 26), (2, -1),
                  (np.array([5, 1]), slice(17, 19)), (slice(None), slice(9, 9))):  # fmt: skip
        assert_array_equal(joined[index], whole[index])


def test_a_job_is_small_and_needs_nothing_but_its_folder(fitted, tmp_path):
    model, _, _, new = fitted
    shards = RidgeShards.prepare(tmp_path / "s", model, new, 3)
    job = pickle.dumps(shards)
    assert len(job) < 1000
    subprocess.run(
        [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)(1)"],
        input=job,
        check=True,
        timeout=120,
    )
    assert shards.missing() == [0, 2]


def test_a_job_array_makes_every_range(fitted, tmp_path):
    submitit = pytest.importorskip("submitit")
    model, _, _, new = fitted
    shards = RidgeShards.prepare(tmp_path / "s", model, new, 3)
    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=5)
    for job in executor.map_array(shards, shards.missing()):
        job.result()
    assert_allclose(shards.joined()[:], model.predict(new), rtol=1e-5)


def test_a_killed_job_leaves_its_range_to_do_and_no_other(fitted, tmp_path):
    model, _, _, new = fitted
    shards = RidgeShards.prepare(tmp_path / "s", model, new, 3)
    shards(0)
    kept = shards.file(0).stat().st_mtime_ns
    # The process dies when the numbers are written and the name is not.
    code = (
        "import os, pickle, signal, sys; job = pickle.load(sys.stdin.buffer)\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\njob(1)"
    )
    died = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(shards), check=False, timeout=120)
    assert died.returncode == -signal.SIGKILL
    assert shards.missing() == [1, 2]
    with pytest.raises(ModelError, match="2 of 3 ranges .* first 1"):
        shards.joined()
    again = RidgeShards.prepare(tmp_path / "s", model, new, 3)
    for number in range(3):
        again(number)
    assert shards.file(0).stat().st_mtime_ns == kept
    assert_allclose(again.joined()[:], model.predict(new), rtol=1e-5)


def test_what_does_not_belong_together_is_refused(fitted, tmp_path, monkeypatch):
    model, x, _, new = fitted
    shards = RidgeShards.prepare(tmp_path / "s", model, new, 3)
    for changed in ({"X": x, "n_shards": 3}, {"X": new, "n_shards": 4}):
        with pytest.raises(ConfigError, match="another map, for other rows or in other ranges"):
            RidgeShards.prepare(tmp_path / "s", model, **changed)
    with pytest.raises(ConfigError, match="holds something else"):
        RidgeShards.prepare(tmp_path, model, new, 3)
    with pytest.raises(ModelError, match="80 columns but this map was fitted on 90"):
        RidgeShards.prepare(tmp_path / "t", model, new[:, :80], 3)
    with pytest.raises(DataError, match="finite"):
        RidgeShards.prepare(tmp_path / "t", model, np.full_like(new, np.nan), 3)
    with pytest.raises(ConfigError, match="numbered from 0 to 2"):
        shards(3)
    for number in range(3):
        shards(number)
    np.save(shards.file(1), np.zeros((2, 2), np.float32))
    with pytest.raises(ModelError, match=r"000001.npy is not what was written \(its shape is \(2, 2\)\)"):
        shards.joined()
    shards.file(1).write_bytes(b"")
    with pytest.raises(ModelError, match="Delete it and run the job"):
        shards.joined()
    monkeypatch.setenv("PHOSPHENE_CACHE", os.fspath(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="Set it to"):
        RidgeShards.prepare(tmp_path / "t", model, new, 3)
