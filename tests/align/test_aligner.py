"""Ridge both ways and the moments of its predictions, against scikit-learn and closed forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from phosphene.align.aligner import AlignConfig, Aligner
from phosphene.align.moments import Moments
from phosphene.errors import DataError

pytestmark = pytest.mark.numeric


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    brain = rng.standard_normal((120, 8)).astype(np.float32)
    image = (brain @ rng.standard_normal((8, 5)) + 0.5 * rng.standard_normal((120, 5)) + 1).astype(np.float32)
    return brain, image


def fitted(pairs, **config):
    return Aligner(AlignConfig(**config)).fit(*pairs, np.random.default_rng(1))


def test_without_moments_both_ways_are_scikit_learns_ridge_with_the_codes_intercepts(pairs):
    brain, image = pairs
    aligner = fitted(pairs, moments="none")
    forth = SklearnRidge(500.0, fit_intercept=False).fit(brain, image)
    back = SklearnRidge(500.0, fit_intercept=True).fit(image, brain)
    # Float32 results of double-precision solutions.
    np.testing.assert_allclose(aligner.brain_to_image(brain), forth.predict(brain), atol=1e-5)
    np.testing.assert_allclose(aligner.image_to_brain(image), back.predict(image), atol=1e-5)


def test_moments_of_left_out_predictions_are_those_of_the_truth_once_mapped(pairs):
    rng = np.random.default_rng(3)
    predicted, true = rng.standard_normal((50, 3)) * 0.1 + 7, rng.standard_normal((50, 3)) * [1, 2, 3] + 4
    mapped = Moments().fit(predicted, true)(predicted)
    np.testing.assert_allclose(mapped.mean(0), true.mean(0), atol=1e-5)
    np.testing.assert_allclose(mapped.std(0, ddof=1), true.std(0, ddof=1), rtol=1e-5)


def test_matching_what_matches_already_changes_nothing():
    true = np.random.default_rng(4).standard_normal((40, 3))
    np.testing.assert_allclose(Moments().fit(true, true)(true), true, atol=1e-6)


def test_a_row_does_not_depend_on_its_company_unless_moments_come_from_the_test_rows(pairs):
    brain, _ = pairs
    inductive, transductive = fitted(pairs), fitted(pairs, moments="test")
    together = inductive.brain_to_image(brain)
    # A matrix kernel sums one row in another order than many: float32, a few features.
    np.testing.assert_allclose(inductive.brain_to_image(brain[:1])[0], together[0], atol=1e-6 * together.std())
    assert not np.allclose(transductive.brain_to_image(brain[:9])[0], transductive.brain_to_image(brain)[0])


def test_moments_of_a_single_test_row_are_refused(pairs):
    with pytest.raises(DataError, match="train_oof"):
        fitted(pairs, moments="test").brain_to_image(pairs[0][:1])


def test_moments_from_the_test_rows_cancel_any_intercept_as_the_spec_says(pairs):
    brain, _ = pairs
    without, with_ = (fitted((brain - brain.mean(0), pairs[1]), moments="test", intercept_fi=i) for i in (False, True))
    # Centred inputs: the two differ by a constant per dimension, which matching removes.
    np.testing.assert_allclose(without.brain_to_image(brain), with_.brain_to_image(brain), atol=1e-3)


def test_noise_keeps_its_size_when_moments_come_from_training_rows(pairs):
    """Far-away responses give far-away latents; standardising the batch by itself would make them look natural."""
    _, image = pairs
    noise = 30 * np.random.default_rng(5).standard_normal((60, 8)).astype(np.float32)
    natural = image.std(0).mean()
    assert fitted(pairs).brain_to_image(noise).std(0).mean() > 5 * natural
    assert fitted(pairs, moments="test").brain_to_image(noise).std(0).mean() == pytest.approx(natural, rel=0.01)


def test_a_penalty_left_open_is_chosen_on_training_pairs(pairs):
    chosen = fitted(pairs, alpha_fi=None, intercept_fi=True).to_image_.alpha_
    assert 0 < float(chosen) < 500  # eight informative inputs and little noise ask for little shrinkage


def test_saving_and_loading_changes_nothing(pairs):
    aligner = fitted(pairs)
    tensors, meta = aligner.state()
    again = Aligner.from_state(tensors, json.loads(json.dumps(meta)))
    np.testing.assert_array_equal(again.brain_to_image(pairs[0]), aligner.brain_to_image(pairs[0]))
    np.testing.assert_array_equal(again.image_to_brain(pairs[1]), aligner.image_to_brain(pairs[1]))


def test_too_few_pairs_are_refused():
    with pytest.raises(DataError, match="at least 10"):
        fitted((np.zeros((6, 2)), np.zeros((6, 2))))
