"""Eyes: what networks see in pictures of any size, once for the true ones, and nothing in what is not there."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.lab import zoo
from phosphene.metrics import Decoded, compute_scores
from phosphene.metrics.perceptual import (
    LabClipExtractor,
    SceneExtractor,
    extract_features,
    feature_extractors_for,
    feature_view,
    feature_views,
)

FAST = {"n_draws": 200, "n_permutations": 500}
needs_weights = pytest.mark.skipif(
    not {"clip", "classifier"} <= set(zoo.names()), reason="the lab's networks have no weights here"
)


@pytest.fixture(scope="module")
def scenes():
    """(120 pictures, 32 x 32 x 3, 0-1, of a world no network was trained on; their categories)"""
    from phosphene.lab import scenes

    numbers = np.arange(120)
    labels = np.array([s.main for s in scenes.describe_many(91, numbers)], dtype=object)
    return scenes.render_many(91, numbers, 32).astype(np.float32) / 255, labels


@pytest.fixture(scope="module")
def eyes():
    return feature_extractors_for("insilico-nsd")


def test_the_lab_sees_no_photographs_and_nothing_sees_digits():
    assert not {type(eye) for eye in feature_extractors_for("nsd")} & {LabClipExtractor, SceneExtractor}
    assert feature_extractors_for("digits69") == []


def test_only_networks_that_are_here_become_eyes(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    assert feature_extractors_for("insilico-god") == []


@needs_weights
def test_eyes_of_the_lab_are_clip_and_the_scene_classifier(eyes):
    assert [eye.name for eye in eyes] == ["clip_lab", "scenes"]
    assert eyes[0].classes == ()
    assert len(eyes[1].classes) == 16


@needs_weights
def test_features_are_those_of_the_networks_themselves(scenes):
    import torch

    pixels = scenes[0][:7]
    network, x = zoo.load("classifier"), zoo.to_network(pixels)
    with torch.inference_mode():
        np.testing.assert_allclose(SceneExtractor().features(pixels), network.features(x)["last"].numpy(), atol=1e-5)
        np.testing.assert_allclose(SceneExtractor().probabilities(pixels), network.probabilities(x).numpy(), atol=1e-5)
        clip = zoo.load("clip").get_image_features(zoo.to_network(pixels)).pooler_output.numpy()
    seen = LabClipExtractor().features(pixels)
    np.testing.assert_allclose(np.square(seen).mean(axis=1), 1, rtol=1e-5)  # a number of order 1
    cosine = (seen * clip).sum(1) / np.linalg.norm(seen, axis=1) / np.linalg.norm(clip, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-4)


@needs_weights
@pytest.mark.parametrize("make", [LabClipExtractor, SceneExtractor])
def test_other_sizes_and_grey_are_seen_as_their_plain_counterparts(make, scenes):
    eye, small = make(), scenes[0][:5]
    large = small.repeat(3, axis=1).repeat(3, axis=2)  # the area mean of 3 x 3 equal pixels is the pixel
    np.testing.assert_allclose(eye.features(large), eye.features(small), atol=1e-4)
    grey = small.mean(axis=3, keepdims=True)
    np.testing.assert_allclose(eye.features(grey), eye.features(grey.repeat(3, axis=3)), atol=1e-5)


@needs_weights
@pytest.mark.parametrize("make", [LabClipExtractor, SceneExtractor])
def test_pictures_that_are_not_finite_are_not_seen_and_change_no_other(make, scenes):
    eye, pixels = make(), scenes[0][:6].copy()
    whole = eye.features(pixels)
    pixels[2, 4, 4, 0], pixels[5] = np.nan, np.inf
    pixels[5] = np.nan
    found = eye.features(pixels)
    assert np.isnan(found[[2, 5]]).all()
    np.testing.assert_allclose(found[[0, 1, 3, 4]], whole[[0, 1, 3, 4]], atol=1e-5)
    nothing = eye.features(np.full((3, 32, 32, 3), np.nan))
    assert nothing.shape == whole[:3].shape
    assert np.isnan(nothing).all()


@needs_weights
def test_the_scene_eye_names_scenes_far_above_chance(scenes):
    pixels, labels = scenes
    eye = SceneExtractor()
    probabilities = eye.probabilities(pixels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (np.array(eye.classes)[probabilities.argmax(axis=1)] == labels).mean() > 0.5  # chance is 1/16


@needs_weights
def test_true_pictures_are_looked_at_once(eyes, scenes):
    class Counting(SceneExtractor):
        calls = 0

        def features(self, pixels):
            type(self).calls += 1
            return super().features(pixels)

    seen = extract_features(Counting(), scenes[0][:4])
    for _ in range(3):
        assert feature_view(seen, scenes[0][:4]).true_features is seen.features
    assert Counting.calls == 4  # once for the true ones, once for each decoded set


@needs_weights
def test_perfect_pictures_score_best_and_noise_and_shuffled_pairs_at_chance(eyes, scenes):
    true, labels = scenes
    rng = np.random.default_rng(2)
    seen = [extract_features(eye, true) for eye in eyes]
    inputs = {
        "perfect": true,
        "shuffled": true[rng.permutation(len(true))],
        "noise": rng.random(true.shape, dtype=np.float32),
        "mean": np.repeat(true.mean(axis=0, keepdims=True), len(true), axis=0),
    }
    wanted = ["*.pictures.*", "*.scenes"]
    found = {
        name: compute_scores(
            Decoded(np.arange(120), x, true, labels=labels, feature_views=feature_views(seen, x)),
            metrics=wanted,
            **FAST,
        )
        for name, x in inputs.items()
    }
    assert found["perfect"].skipped == []
    names = {s.metric for s in found["perfect"].scores}
    assert {"nway16_top1_class.scenes", "nway16_top5_class.scenes", "category.scenes"} <= names
    assert len(names) == 2 * 5 + 3
    for eye in ("clip_lab", "scenes"):
        assert found["perfect"][f"two_way.pictures.{eye}"].value == 1
        assert found["perfect"][f"cosine.pictures.{eye}"].value == pytest.approx(1, abs=1e-5)
        assert found["perfect"][f"fid.pictures.{eye}"].value == pytest.approx(0, abs=1e-3)  # float32 features
        assert abs(found["perfect"][f"kid.pictures.{eye}"].value) < 1e-3
        for control in ("shuffled", "noise", "mean"):
            row = found[control][f"two_way.pictures.{eye}"]
            assert row.value == pytest.approx(0.5, abs=0.12), (control, eye)  # 120 items: standard error near 0.03
            assert row.p > 0.001
            assert found[control][f"cosine.pictures.{eye}"].p > 0.001
        # A set of true pictures in any order is perfect as a set; noise and the mean picture are far from it.
        assert found["shuffled"][f"fid.pictures.{eye}"].value == pytest.approx(0, abs=1e-3)
        assert found["noise"][f"fid.pictures.{eye}"].ci_low > 1
        assert found["mean"][f"kid.pictures.{eye}"].ci_low > 0
    assert found["perfect"]["nway16_top1_class.scenes"].value == 1  # its own answer is taken for the truth
    assert found["perfect"]["category.scenes"].value > 0.5
    for control in ("shuffled", "noise", "mean"):
        assert found[control]["nway16_top1_class.scenes"].value < 0.3
        assert found[control]["category.scenes"].p > 0.001
