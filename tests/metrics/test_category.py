"""The category baseline: what knowing the class is worth."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.errors import DataError
from phosphene.metrics import CategoryOnlyDecoder, Decoded, PictureClassifier, class_mean_pictures, compute_scores

pytestmark = pytest.mark.numeric


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def two_classes(rng, n=60):
    labels = np.where(np.arange(n) % 2, "nine", "six")
    pictures = 0.3 * rng.random((n, 12, 12, 1))
    pictures[labels == "six", :6] += 0.5
    pictures[labels == "nine", 6:] += 0.5
    betas = rng.standard_normal((n, 40)) + 1.5 * (labels == "six")[:, None] * np.linspace(-1, 1, 40)
    return betas, labels, pictures


def test_classifier_reads_the_class_of_new_pictures(rng):
    _, labels, pictures = two_classes(rng)
    reader = PictureClassifier().fit(pictures[:40], labels[:40])
    np.testing.assert_array_equal(reader.predict(pictures[40:]), labels[40:])


def test_classifier_reads_pictures_one_by_one_as_in_company(rng):
    _, labels, pictures = two_classes(rng)
    reader = PictureClassifier().fit(pictures[:40], labels[:40])
    together = reader.predict(pictures[40:])
    np.testing.assert_array_equal([reader.predict(p[None])[0] for p in pictures[40:]], together)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_of_classes_that_nothing_tells_apart_the_first_is_named(rng, n_classes):
    """Every class holds the same pictures, so that only rounding could tell which is the nearest."""
    pictures = np.tile(rng.random((15, 6, 6, 1)), (n_classes, 1, 1, 1))
    labels = np.repeat([f"class {k}" for k in range(n_classes)], 15)
    reader = PictureClassifier(8).fit(pictures, labels)
    assert set(reader.predict(rng.random((50, 6, 6, 1)))) == {"class 0"}


def test_class_means_are_the_means_of_training_pictures(rng):
    _, labels, pictures = two_classes(rng)
    means = class_mean_pictures(pictures, labels)
    np.testing.assert_allclose(means["six"], pictures[labels == "six"].mean(axis=0))


def test_category_only_decoder_identifies_classes_but_nothing_inside_them(rng):
    betas, labels, pictures = two_classes(rng, 120)
    baseline = CategoryOnlyDecoder().fit(betas[:60], labels[:60], pictures[:60])
    drawn = baseline.decode(betas[60:])
    assert len(np.unique(drawn.reshape(60, -1), axis=0)) == 2
    found = compute_scores(
        Decoded(np.arange(60), drawn, pictures[60:], labels=labels[60:],
                classifier=PictureClassifier().fit(pictures[:60], labels[:60])), n_draws=200, n_permutations=500,
    )  # fmt: skip
    assert found["category.pixels"].value > 0.85
    assert found["category.pixels"].chance == pytest.approx(0.5, abs=0.05)
    assert found["two_way.pixels"].value > 0.65
    assert abs(found["two_way_within_class.pixels"].value - 0.5) < 0.1
    assert found["two_way_within_class.pixels"].p > 0.01


def test_a_single_class_is_refused(rng):
    with pytest.raises(DataError, match="two classes"):
        PictureClassifier().fit(np.zeros((5, 4, 4, 1)), np.zeros(5))
    with pytest.raises(DataError, match="labels of shape"):
        PictureClassifier().fit(np.zeros((5, 4, 4, 1)), np.zeros(4))
