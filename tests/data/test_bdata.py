"""BData files: the real sample, and wrong ones."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from phosphene.data import open_dataset
from phosphene.data.bdata import BData
from phosphene.errors import DataError
from phosphene.reporting.describe import check


def write(path, dataset, keys, values, vmap=None):
    """A file of the layout of the Kamitani lab's bdpy."""
    with h5py.File(path, "w") as file:
        file["dataset"] = dataset
        file["metadata/key"] = np.array(keys, dtype=h5py.string_dtype())
        file["metadata/description"] = np.array(["1 = " + k for k in keys], dtype=h5py.string_dtype())
        file["metadata/value"] = values
        for key, names in (vmap or {}).items():
            for number, name in names.items():
                file[f"vmap/{key}/{float(number)}"] = name
    return path


@pytest.fixture
def sample(shared_data):
    path = shared_data / "bdata_sample" / "haxby_slice_betas.h5"
    if not path.is_file():
        pytest.skip("bdata_sample is not in the folder of small real data")
    return path


@pytest.fixture
def small(tmp_path):
    """Three voxels with a label column between them, which real files need not have at the end."""
    nan = np.nan
    dataset = np.array([[1.0, 2, 7, 3], [4, 5, 8, 6]])
    keys = ["VoxelData", "ROI_A", "ROI_B", "Label", "voxel_x"]
    values = [[1, 1, nan, 1], [1, 1, nan, 0], [0, 1, nan, 1], [nan, nan, 1, nan], [10, 20, nan, 30]]
    return write(tmp_path / "small.h5", dataset, keys, np.array(values), {"Label": {7: "cat"}})


def test_the_real_sample_has_its_documented_shape(sample):
    trials = open_dataset(sample).trials()
    assert (len(trials), trials.n_voxels) == (96, 530)
    assert {r: int(trials.roi(r).sum()) for r in trials.rois} == {"lowI": 253, "highI": 277}
    assert int(trials.roi("lowI+highI").sum()) == 530
    assert not trials.roi("lowI & highI").any()
    assert list(np.unique(trials.table["run"])) == list(range(1, 13))
    counts = trials.table.groupby("stimulus").size()
    assert dict(counts) == dict.fromkeys(
        ("bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"), 12
    )


def test_the_real_sample_reads_as_plain_h5py_does(sample):
    file = BData(sample)
    with h5py.File(sample) as raw:
        dataset = raw["dataset"][()]
    np.testing.assert_array_equal(file.select("VoxelData"), dataset[:, :530])
    np.testing.assert_array_equal(file.column("Label"), dataset[:, 532])
    np.testing.assert_array_equal(file.column("Run"), dataset[:, 530])
    rows = np.array([90, 3, 3])
    np.testing.assert_array_equal(open_dataset(sample).trials().read(rows), dataset[rows, :530].astype(np.float32))


def test_the_real_sample_holds_categories_that_decode(sample):
    # README of the data: nearest category mean, leave one run out, z-scored in each run: 0.698; chance 0.125.
    trials = open_dataset(sample).trials()
    run, label, x = trials.table["run"].to_numpy(), trials.stimuli, trials.betas.astype(float)
    for r in np.unique(run):
        x[run == r] = (x[run == r] - x[run == r].mean(0)) / x[run == r].std(0)
    hits = 0
    for r in np.unique(run):
        names = np.unique(label)
        means = np.stack([x[(run != r) & (label == n)].mean(0) for n in names])
        similar = np.corrcoef(x[run == r], means)[: (run == r).sum(), (run == r).sum() :]
        hits += int((names[similar.argmax(1)] == label[run == r]).sum())
    assert hits / len(label) > 0.6


def test_expressions_join_meet_and_subtract(small):
    file = BData(small)
    assert file.select("ROI_A + ROI_B").tolist() == [[1, 2, 3], [4, 5, 6]]
    assert file.select("ROI_A & ROI_B").tolist() == [[2], [5]]
    assert file.select("ROI_A - ROI_B").tolist() == [[1], [4]]
    assert file.select("ROI_A & ROI_B - ROI_B").shape == (2, 0)
    assert list(file.named("Label")) == ["cat", "8"]
    assert list(file.voxels()["x"]) == [10, 20, 30]
    assert open_dataset(small).trials().betas.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.fault(42)
def test_an_unknown_key_suggests_the_nearest(small):
    with pytest.raises(DataError, match="no key 'ROI_C'. Did you mean 'ROI_B'"):
        BData(small).select("ROI_C")
    with pytest.raises(DataError, match="marks 2 columns"):
        BData(small).column("ROI_A")


@pytest.mark.fault(21)
def test_a_transposed_matrix_is_recognised(tmp_path):
    path = write(tmp_path / "t.h5", np.zeros((2, 4)), ["VoxelData"], np.ones((1, 4)))
    assert BData(path).shape == (2, 4)
    path = write(tmp_path / "t.h5", np.zeros((4, 2)), ["VoxelData"], np.ones((1, 4)))
    with pytest.raises(DataError, match="'dataset' is transposed"):
        BData(path)


@pytest.mark.fault(9)
def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = write(tmp_path / "t.h5", np.zeros((2, 2)), ["VoxelData", "VoxelData"], np.ones((2, 2)))
    with pytest.raises(DataError, match="stands 2 times"):
        BData(path)


@pytest.mark.fault(37)
def test_a_truncated_file_is_named(sample, tmp_path):
    path = tmp_path / "cut.h5"
    path.write_bytes(sample.read_bytes()[:200_000])
    with pytest.raises(DataError, match=r"cut\.h5 is damaged or truncated"):
        open_dataset(path)
    assert [f.level for f in check(path)] == ["problem"]
