import numpy as np
import pytest
from sklearn.decomposition import PCA

from phosphene.errors import ConfigError, DataError
from phosphene.features.pixels import PixelPca
from phosphene.types import Stimuli


def stimuli(n=30, size=6, channels=3, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    return Stimuli([str(i) for i in range(n)], images)


@pytest.mark.parametrize("n", [30, 300], ids=["fewer pictures than pixels", "more pictures than pixels"])
def test_components_are_those_of_scikit_learn(n):
    shown = stimuli(n)
    ours = PixelPca(5).fit(shown)
    theirs = PCA(5, svd_solver="full").fit(shown.floats().reshape(n, -1).astype(np.float64))
    np.testing.assert_allclose(ours.variance_, theirs.explained_variance_ * (n - 1) / n, rtol=1e-4)
    # Equal up to sign; float32 Gram matrices move directions by about 1e-4.
    np.testing.assert_allclose(np.abs((ours.components_ * theirs.components_).sum(1)), 1, atol=1e-3)


def test_all_components_give_the_training_pictures_back():
    shown = stimuli(10)
    pca = PixelPca().fit(shown)
    assert len(pca.components_) == 9
    np.testing.assert_allclose(pca.inverse(pca.transform(shown)), shown.floats(), atol=1e-4)


def test_resizing_is_part_of_the_latents():
    pca = PixelPca(3, (3, 3)).fit(stimuli())
    assert pca.inverse(pca.transform(stimuli(4))).shape == (4, 3, 3, 3)


def test_pictures_of_another_shape_are_refused():
    pca = PixelPca(3).fit(stimuli())
    with pytest.raises(ConfigError, match=r"\(8, 8, 3\) came to latents fitted on \(6, 6, 3\)"):
        pca.transform(stimuli(size=8))


def test_pictures_that_are_all_alike_are_refused():
    alike = Stimuli(["a", "b"], np.zeros((2, 4, 4, 1), np.uint8))
    with pytest.raises(DataError, match="all alike"):
        PixelPca().fit(alike)


@pytest.mark.parametrize("use", ["transform", "inverse", "state"])
def test_latents_that_were_never_fitted_say_so(use):
    from phosphene.errors import ModelError

    argument = {
        "transform": (Stimuli(["a"], np.zeros((1, 2, 2, 1), np.uint8)),),
        "inverse": (np.zeros((1, 2)),),
        "state": (),
    }
    with pytest.raises(ModelError, match="not fitted yet"):
        getattr(PixelPca(), use)(*argument[use])
