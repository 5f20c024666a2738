import numpy as np
import pytest

from phosphene.errors import DataError, MachineError
from phosphene.features.warps import WarpConfig, WarpedPictures, warp
from phosphene.types import Stimuli

STILL = WarpConfig(turn=0, scale=0, shear=0, shift=0)


def blobs(n=12, size=16, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    centres, widths = rng.uniform(5, 10, (n, 2)), rng.uniform(1.5, 3, n)
    pictures = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 2 / w**2) for (a, b), w in zip(centres, widths, strict=True)]
    return Stimuli([f"b{i}" for i in range(n)], np.rint(255 * np.array(pictures)).astype(np.uint8)[..., None])


def test_a_warp_of_no_size_changes_nothing():
    picture = blobs().floats()[0]
    np.testing.assert_allclose(warp(picture, STILL, np.random.default_rng(0)), picture, atol=1e-6)


def test_a_shift_moves_the_middle_of_mass_by_as_much_as_was_drawn():
    config = STILL.model_copy(update={"shift": 0.1})
    y, x = np.mgrid[:33, :33]
    picture = np.exp(-((y - 16.0) ** 2 + (x - 16.0) ** 2) / 8)[..., None]
    for seed in range(5):
        out = warp(picture, config, np.random.default_rng(seed))[..., 0]
        found = np.array([(out * y).sum(), (out * x).sum()]) / out.sum()
        rng = np.random.default_rng(seed)
        rng.normal(0, 0), rng.normal(0, 0, 2), rng.normal(0, 0)  # turn, scale and shear are drawn first
        np.testing.assert_allclose(16 - found, rng.normal(0, 0.1, 2) * 33, atol=0.05)  # linear interpolation


def test_every_training_picture_is_there_once_and_the_copies_belong_to_the_seed():
    stimuli = blobs()
    a, b = (WarpedPictures(60, 5).fit(stimuli, np.random.default_rng(1)) for _ in range(2))
    assert len(a.pictures_) == 60
    np.testing.assert_array_equal(a.pictures_[:12], stimuli.images[:].reshape(12, -1))
    np.testing.assert_array_equal(a.pictures_, b.pictures_)
    assert not np.array_equal(a.pictures_, WarpedPictures(60, 5).fit(stimuli, np.random.default_rng(2)).pictures_)


def test_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    part = WarpedPictures(60, 5).fit(blobs(), np.random.default_rng(0))
    reference = PCA(5, svd_solver="full").fit(part.floats())
    overlap = np.abs((part.components_ * reference.components_).sum(axis=1))
    np.testing.assert_allclose(overlap, 1, atol=1e-4)  # float32 sums


def test_pictures_that_are_all_alike_are_refused():
    same = Stimuli(["a", "b"], np.full((2, 12, 12, 1), 7, np.uint8))
    with pytest.raises(DataError, match="all alike"):
        WarpedPictures(10, 2).fit(same, np.random.default_rng(0))


def test_more_than_memory_holds_is_refused_before_it_is_drawn():
    with pytest.raises(MachineError, match=r"16 x 16 pixels need .*recipe\.prior\.size"):
        WarpedPictures(10**11, 2).fit(blobs(), np.random.default_rng(0))
