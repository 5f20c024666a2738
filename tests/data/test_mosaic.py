"""MOSAIC: one HDF5 file a person on the cortical surface, and what goes wrong with such files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from PIL import Image

from phosphene.data import import_dataset, open_dataset
from phosphene.errors import DataError, PhospheneWarning
from phosphene.reporting.describe import check
from tests.data.surface_layout import column, cortex, members, write_mosaic, write_parcels

SPACE = cortex("LH") + cortex("RH")
SHOWN = [(f"p{i}.png", "train", 0) for i in range(6)] + [(f"q{i}.jpg", "test", r) for i in range(2) for r in range(3)]


@pytest.fixture
def mosaic(tmp_path):
    rng = np.random.default_rng(2)
    root = tmp_path / "mosaic"
    trials = {key: rng.normal(size=len(SPACE) + 4) for key in SHOWN}
    ceiling = rng.uniform(0, 100, len(SPACE) + 4)
    write_mosaic(root / "sub-01_NSD.hdf5", trials, ceiling)
    write_parcels(root / "mmp.dlabel.nii")
    (root / "stimuli").mkdir()
    for name in {n for n, _, _ in SHOWN}:
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(root / "stimuli" / name)
    return root, trials, ceiling


def at(areas=("V1", "V2", "V3", "V4")) -> list[int]:
    return [column(SPACE, s, v) for a in areas for s, v in members(a)]


def test_trials_are_the_areas_of_their_vector_by_name(mosaic):
    root, vectors, ceiling = mosaic
    dataset = open_dataset("mosaic:sub-01_NSD", root=root.parent)
    trials = dataset.trials()
    assert sorted(trials.table["stimulus"] + trials.table["repeat"].astype(str)) == sorted(
        f"{n.split('.')[0]}{r}" for n, _, r in SHOWN
    )
    endings = {n.split(".")[0]: n for n, _, _ in SHOWN}
    for row, t in trials.table.iterrows():
        expected = vectors[endings[t["stimulus"]], t["phase"], t["repeat"]][at()]
        np.testing.assert_array_equal(trials.read(np.array([row]))[0], expected.astype(np.float32))
    np.testing.assert_allclose(trials.noise_ceiling, ceiling[at()] / 100)
    np.testing.assert_array_equal(trials.betas[[3, 1]], trials.read(np.array([3, 1])))


def test_the_files_own_phases_are_the_split_and_pictures_are_matched_by_name(mosaic):
    root, *_ = mosaic
    dataset = open_dataset("mosaic", root=root)
    train, test = dataset.split("mosaic").apply(dataset.trials())
    assert (len(train), len(test), len(test.stimulus_ids)) == (6, 6, 2)
    picture = np.asarray(Image.open(root / "stimuli" / "p3.png"))
    np.testing.assert_array_equal(dataset.stimuli.select(["p3"]).pixels()[0], picture)


@pytest.mark.fault(27)
def test_missing_pictures_leave_holes_aligned_by_name(mosaic):
    root, *_ = mosaic
    (root / "stimuli" / "p2.png").unlink()
    with pytest.warns(PhospheneWarning, match="1 of 8 pictures are missing .* 'p2'"):
        stimuli = open_dataset("mosaic", root=root).stimuli
    assert [i for i, there in zip(stimuli.ids, stimuli.present, strict=True) if not there] == ["p2"]
    picture = np.asarray(Image.open(root / "stimuli" / "p5.png"))
    np.testing.assert_array_equal(stimuli.select(["p5"]).pixels()[0], picture)


def test_a_name_with_a_checksum_and_a_copy_to_a_folder(mosaic, tmp_path):
    root, *_ = mosaic
    expected = open_dataset("mosaic", root=root).trials().betas
    (root / "hdf5_files" / "single_subject").mkdir(parents=True)
    (root / "sub-01_NSD.hdf5").rename(root / "hdf5_files/single_subject/sub-01_NSD_crc32-0a1b2c3d.hdf5")
    dataset = import_dataset("mosaic:sub-01_NSD", tmp_path / "out", root=root)
    np.testing.assert_array_equal(dataset.trials().betas, expected)
    assert not [f for f in check("mosaic", root=root) if f.level == "problem"]


# -- wrong files -------------------------------------------------------------------------------------------------------


@pytest.mark.fault(52)
def test_a_vector_that_the_parcellation_does_not_describe_is_refused(mosaic):
    root, *_ = mosaic
    write_parcels(root / "mmp.dlabel.nii", 60)
    with pytest.raises(DataError, match="have 80 grayordinates, which mmp.dlabel.nii"):
        open_dataset("mosaic", root=root)
    full = {key: np.zeros(91282) for key in SHOWN[:1]}
    write_mosaic(root / "sub-01_NSD.hdf5", full)
    with pytest.raises(DataError, match="fsLR-91k has .*29696"):
        open_dataset("mosaic", root=root)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.pop("betas"), "has no group 'betas'"),
        (lambda f: f["betas"].create_dataset("sub-01_NSD_stimulus-p9", data=np.zeros(80)), "should be named"),
        (lambda f: f["betas"].create_dataset("s_stimulus-p9_phase-train_rep-0", data=np.zeros(79)), "equal length.*79"),
        (
            lambda f: f["betas"].create_dataset("s_stimulus-p1_phase-test_rep-0", data=np.zeros(80)),
            "'p1' .* both phases",
        ),
    ],
)
def test_a_file_of_another_layout_is_refused(mosaic, change, words):
    root, *_ = mosaic
    with h5py.File(root / "sub-01_NSD.hdf5", "r+") as file:
        change(file)
    with pytest.raises(DataError, match=words):
        open_dataset("mosaic", root=root)
    assert any(f.level == "problem" for f in check("mosaic", root=root))


@pytest.mark.fault(37)
def test_a_truncated_file_is_refused(mosaic):
    root, *_ = mosaic
    path = root / "sub-01_NSD.hdf5"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="damaged or truncated"):
        open_dataset("mosaic", root=root)


def test_unknown_people_and_folders_are_named(mosaic, tmp_path):
    root, *_ = mosaic
    with pytest.raises(DataError, match="of 'sub-02_NSD'. Did you mean 'sub-01_NSD'"):
        open_dataset("mosaic:sub-02_NSD", root=root)
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="looked for as sub-01_NSD.hdf5"):
        open_dataset("mosaic", root=tmp_path / "x")
