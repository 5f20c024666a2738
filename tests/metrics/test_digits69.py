"""Scores on real decoded digits: the orientation values that come with the data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import loadmat

from phosphene.metrics import Decoded, PictureClassifier, compute_scores


@pytest.fixture(scope="module")
def digits(shared_data):
    path = shared_data / "digits69" / "digit69_28x28.mat"
    if not path.exists():
        pytest.skip("digits69 is not beside this checkout")
    mat = loadmat(path)
    pictures = {
        side: (mat[f"stim{side}"].reshape(-1, 28, 28).transpose(0, 2, 1) / 255).astype(np.float32)[..., None]
        for side in ("Trn", "Test")
    }
    return mat, pictures


def test_controls_of_the_file_split_have_their_known_scores(digits):
    mat, pictures = digits
    train, test = pictures["Trn"], pictures["Test"]
    labels, test_labels = mat["labelTrn"].ravel(), mat["labelTest"].ravel()
    mean = np.repeat(train.mean(axis=0, keepdims=True), 10, axis=0)
    class_mean = np.stack([train[labels == label].mean(axis=0) for label in test_labels])
    of_mean = compute_scores(Decoded(np.arange(10), mean, test), n_draws=100, n_permutations=100)
    of_class = compute_scores(
        Decoded(np.arange(10), class_mean, test, labels=test_labels), n_draws=100, n_permutations=100
    )
    assert of_mean["pixcorr"].value == pytest.approx(0.655, abs=0.001)  # given with three digits
    assert of_class["pixcorr"].value == pytest.approx(0.74, abs=0.005)  # given with two
    assert of_mean["two_way.pixels"].value == pytest.approx(0.5, abs=1e-12)
    assert of_class["two_way_within_class.pixels"].value == pytest.approx(0.5, abs=1e-12)


def test_sixes_and_nines_are_told_apart_by_a_classifier_of_training_pictures(digits):
    mat, pictures = digits
    reader = PictureClassifier().fit(pictures["Trn"], mat["labelTrn"].ravel())
    assert (reader.predict(pictures["Test"]) == mat["labelTest"].ravel()).all()
