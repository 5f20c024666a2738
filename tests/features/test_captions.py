"""Screening, clamping, the choice of a target and altered pictures: against closed forms, other code and the lab's truth."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from phosphene.errors import ConfigError, DataError
from phosphene.features import augment as alter
from phosphene.features.augment import AugmentConfig, augment, augmented
from phosphene.features.captions import (
    Screening,
    Targets,
    caption_latents,
    caption_targets,
    clamped,
    image_targets,
    pick,
    screened,
)
from phosphene.features.clip import ClipFeatures
from phosphene.io.stages import load_part, save_part
from phosphene.lab import scene_captions as written
from phosphene.lab import scenes, zoo
from phosphene.types import Stimuli

needs_clip = pytest.mark.skipif("clip" not in zoo.names(), reason="the zoo's weights are not bundled")
N = 60


@pytest.fixture(scope="module")
def described():
    """Scenes with captions, and which captions are good."""
    shown = scenes.describe_many(31, range(N))
    captions = tuple(scenes.captions_many(shown))
    stimuli = Stimuli([f"s{i}" for i in range(N)], scenes.render_many(31, range(N)), captions)
    return stimuli, np.array(written.truth(shown))


@pytest.fixture(scope="module")
def clip():
    return ClipFeatures("lab", normalise="none", batch=64)


@pytest.fixture(scope="module")
def screening(clip, described):
    return Screening.fit(clip, described[0])


# -- screening ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_what_is_kept_has_more_than_the_share_of_the_best_probability(share):
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 200)
    starts = np.cumsum(counts) - counts
    cosine = rng.uniform(0.1, 0.35, counts.sum())
    kept = screened(cosine, starts, 100.0, share)
    for start, n in zip(starts, counts, strict=True):
        q = np.exp(100 * cosine[start : start + n])
        q /= q.sum()
        np.testing.assert_array_equal(kept[start : start + n], q > share * q.max())


def test_half_of_the_best_at_openai_s_scale_is_0_00693_less_similar():
    best = 0.3
    cosine = np.array([best, best - 0.00692, best - 0.00694])
    np.testing.assert_array_equal(screened(cosine, np.array([0]), 100.0), [True, True, False])


def test_every_picture_keeps_its_best_caption_and_a_share_of_0_keeps_all():
    cosine = np.random.default_rng(0).uniform(-1, 1, 40)
    starts = np.arange(0, 40, 4)
    kept = screened(cosine, starts, 1e4, 0.99)
    np.testing.assert_array_equal(np.flatnonzero(kept), starts + cosine.reshape(10, 4).argmax(axis=1))
    assert screened(cosine, starts, 1e4, 0).all()
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=str(share)):
            screened(cosine, starts, 1.0, share)


@needs_clip
def test_screening_drops_nearly_all_vague_and_wrong_captions_of_the_lab(screening, described):
    quality = described[1].ravel()
    dropped = ~screening.kept
    # On 3,000 scenes 99.7 % of the vague and of the wrong ones are dropped, and 39 % of the good ones.
    for bad in ("vague", "wrong"):
        assert dropped[quality == bad].mean() > 0.95
    assert dropped[quality == "good"].mean() < 0.6
    assert (quality[screening.kept] == "good").mean() > 0.95


@needs_clip
def test_a_lower_share_keeps_more_good_captions_and_more_bad_ones(clip, described, screening):
    mild = Screening.fit(clip, described[0], share=0.1)
    assert (mild.kept | ~screening.kept).all()
    good = described[1].ravel() == "good"
    assert mild.kept[good].mean() > screening.kept[good].mean() + 0.1


@needs_clip
def test_similarities_are_those_of_clip_and_the_scale_is_the_network_s(clip, described, screening):
    stimuli = described[0]
    unit = ClipFeatures("lab", batch=64)
    own = np.sum(unit.images(stimuli.pixels(slice(7, 8))) * unit.texts(list(stimuli.captions[7])), axis=1)
    np.testing.assert_allclose(screening.of(stimuli.select(["s7"])).similarity, own, atol=1e-5)  # float32
    assert clip.logit_scale == pytest.approx(float(zoo.load("clip").logit_scale.exp()))


@needs_clip
def test_a_saved_screening_is_the_same_and_can_be_asked_for_some(screening, described, tmp_path):
    save_part(tmp_path / "part", screening, stage="screen", digest="d", seconds=0.0, lineage=())
    back = load_part(tmp_path / "part", Screening)
    np.testing.assert_array_equal(back.kept, screening.kept)
    some = described[0].select(["s5", "s2"])
    np.testing.assert_array_equal(back.of(some).kept, screening.kept.reshape(N, 5)[[5, 2]].ravel())
    assert f"of {5 * N} captions of {N}" in repr(back)


@needs_clip
def test_empty_captions_do_not_count_and_stimuli_without_any_are_named(clip):
    pixels = scenes.render_many(0, range(2))
    gaps = Stimuli(["a", "b"], pixels, (("", "a cat", " "), ("a dog", "a house")))
    assert list(Screening.fit(clip, gaps).counts) == [1, 2]
    with pytest.raises(DataError, match="1 of 2 stimuli have no caption, first 'b'"):
        Screening.fit(clip, Stimuli(["a", "b"], pixels, (("a cat",), ("",))))


@needs_clip
def test_captions_come_the_same_through_a_cache(clip, described, tmp_path):
    some = described[0].select(["s3", "s9"])
    np.testing.assert_allclose(caption_latents(clip, some, tmp_path), caption_latents(clip, some), atol=1e-5)


# -- clamping ----------------------------------------------------------------------------------------------------------


def test_clamped_latents_have_length_one_and_no_outliers():
    raw = np.random.default_rng(0).standard_normal((50, 32))
    raw[:, 5] = -9.9
    out = clamped(raw, 1.5)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)  # float32
    by_hand = np.minimum(np.maximum(raw, -1.5), 1.5)
    np.testing.assert_allclose(out, by_hand / np.sqrt((by_hand**2).sum(axis=1))[:, None], atol=1e-6)
    np.testing.assert_allclose(clamped(raw, None), raw / np.linalg.norm(raw, axis=1)[:, None], atol=1e-6)
    # One fixed position made up most of every raw latent.
    assert (clamped(raw, None)[:, 5] ** 2).mean() > 0.6 > 0.2 > (out[:, 5] ** 2).mean()


# -- one of several targets --------------------------------------------------------------------------------------------


def test_the_choice_is_a_function_of_key_and_item_and_of_nothing_else():
    counts, items = np.array([3, 1, 5, 4]), np.array([8, 0, 3, 5])
    chosen = pick(counts, items, 0, 7)
    for i in range(4):
        assert pick(counts[[i]], items[[i]], 0, 7)[0] == chosen[i]
    many = np.arange(1000)
    a, b = (pick(np.full(1000, 4), many, 0, step) for step in (1, 2))
    assert 0.6 < (a != b).mean() < 0.9  # 3/4 for independent choices among four
    np.testing.assert_array_equal(a, pick(np.full(1000, 4), many, 0, 1))


def test_every_valid_target_is_chosen_equally_often():
    seen = np.stack([pick(np.full(40, 5), np.arange(40), 3, step) for step in range(500)])
    share = np.stack([(seen == k).mean() for k in range(5)])
    np.testing.assert_allclose(share, 0.2, atol=0.015)  # 20,000 draws: standard deviation 0.003
    assert pick(np.ones(10, int), np.arange(10), 0).max() == 0


def test_targets_hand_out_only_what_belongs_to_the_item():
    values = np.arange(6, dtype=np.float32)[:, None]
    targets = Targets(values, np.array([0, 1, 4]), values[[0, 1, 4]])
    np.testing.assert_array_equal(targets.counts, [1, 3, 2])
    seen = np.concatenate([targets.at(np.array([2, 1, 0]), 0, step) for step in range(60)], axis=1)
    assert [sorted(set(row)) for row in seen] == [[4, 5], [1, 2, 3], [0]]


@needs_clip
def test_caption_targets_are_the_kept_captions_clamped(clip, described, screening):
    stimuli = described[0]
    raw = clip.texts([t for texts in stimuli.captions for t in texts])
    targets = caption_targets(clip, stimuli, screening, 3.0)
    np.testing.assert_allclose(targets.values, clamped(raw[screening.kept], 3.0), atol=1e-5)
    np.testing.assert_array_equal(targets.counts, screening.kept.reshape(N, 5).sum(axis=1))
    mean = [raw.reshape(N, 5, -1)[i][screening.kept.reshape(N, 5)[i]].mean(axis=0) for i in range(N)]
    np.testing.assert_allclose(targets.clean, clamped(np.array(mean), 3.0), atol=1e-5)
    average = caption_targets(clip, stimuli, screening, 3.0, "average")
    np.testing.assert_array_equal(average.values, targets.clean)
    fixed = caption_targets(clip, stimuli, screening, 3.0, "fixed")
    best = screening.similarity.reshape(N, 5).argmax(axis=1)
    np.testing.assert_allclose(fixed.values, clamped(raw.reshape(N, 5, -1)[np.arange(N), best], 3.0), atol=1e-5)


@needs_clip
def test_image_targets_are_altered_and_the_one_to_judge_by_is_not(clip, described):
    some = described[0].select(["s0", "s1", "s2"])
    plain = image_targets(clip, some, None, 0, 3.0)
    np.testing.assert_allclose(plain.values, clamped(clip.images(some.pixels()), 3.0), atol=1e-5)
    config = AugmentConfig(copies=3)
    targets = image_targets(clip, some, config, 0, 3.0)
    assert targets.values.shape == (9, 64)
    np.testing.assert_allclose(targets.clean, plain.clean, atol=1e-5)
    second = augmented(some.pixels(), config, 0, list(some.ids), 1)
    np.testing.assert_allclose(targets.values[1::3], clamped(clip.images(second), 3.0), atol=1e-5)
    assert np.abs(targets.values[0::3] - targets.values[1::3]).max() > 0.05


@needs_clip
def test_features_that_are_normalised_already_are_refused(described, screening):
    for clip in (ClipFeatures("lab"), ClipFeatures("lab", normalise="none", output="tokens")):
        with pytest.raises(ConfigError, match="normalise='none'"):
            image_targets(clip, described[0], None, 0)
    with pytest.raises(ConfigError, match="average"):
        caption_targets(ClipFeatures("lab", normalise="none"), described[0], screening, mode="averge")


# -- altered pictures --------------------------------------------------------------------------------------------------

NOTHING = AugmentConfig(crop=(1.0, 1.0), aspect=1.0, flip=0.0, jitter=0.0, grey=0.0, blur=0.0, mask=0.0)


def picture(seed=0, height=24, width=24):
    return np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)


def only(**values):
    return AugmentConfig.model_validate(NOTHING.model_dump() | values)


def test_nothing_asked_for_is_nothing_done():
    np.testing.assert_allclose(augment(picture(), NOTHING, np.random.default_rng(0)), picture(), atol=1e-6)


def test_an_altered_picture_does_not_depend_on_its_company():
    pixels = scenes.render_many(0, range(4))
    names = ["a", "b", "c", "d"]
    together = augmented(pixels, AugmentConfig(), 5, names, 2)
    np.testing.assert_array_equal(augmented(pixels[[2]], AugmentConfig(), 5, ["c"], 2)[0], together[2])
    assert together.dtype == np.float32
    assert together.min() >= 0
    assert together.max() <= 1
    others = [(6, names, 2), (5, names, 1), (5, ["e", "f", "g", "h"], 2)]
    for seed, ids, copy in others:
        assert np.abs(augmented(pixels, AugmentConfig(), seed, ids, copy) - together).max(axis=(1, 2, 3)).min() > 0.05


def test_a_flip_is_a_mirror_and_grey_is_grey():
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(augment(picture(), only(flip=1.0), rng), picture()[:, ::-1], atol=1e-6)
    grey = augment(picture(), only(grey=1.0), rng)
    np.testing.assert_allclose(grey[..., 1], picture() @ np.array([0.2989, 0.587, 0.114]), atol=1e-6)
    assert np.ptp(grey, axis=2).max() == 0


@pytest.mark.parametrize("turn", [0.07, -0.1, 0.5])
def test_turning_the_hue_is_what_colorsys_does(turn):
    shown = picture(3, 8, 8)
    shown[0, 0] = 0.5
    shown[0, 1] = [1, 1, 0]
    hsv = [[colorsys.rgb_to_hsv(*map(float, p)) for p in row] for row in shown]
    expected = [[colorsys.hsv_to_rgb((h + turn) % 1, s, v) for h, s, v in row] for row in hsv]
    np.testing.assert_allclose(alter.turned(shown, turn), expected, atol=1e-6)  # float32


def test_blur_is_a_gaussian_and_keeps_the_mean_of_a_point():
    point = np.zeros((21, 21, 3), dtype=np.float32)
    point[10, 10] = 1
    out = alter.blurred(point, 9, 1.5)
    assert out.sum() == pytest.approx(3, rel=1e-5)
    assert out[10, 12, 0] / out[10, 10, 0] == pytest.approx(np.exp(-0.5 * (2 / 1.5) ** 2), rel=1e-4)
    np.testing.assert_allclose(out, out.transpose(1, 0, 2), atol=1e-7)


def test_the_mask_is_a_black_square_of_its_share_that_may_hang_over_the_edge():
    white = np.ones((40, 40, 3), dtype=np.float32)
    inside = alter.masked(white, 0.3, 0.5, 0.5)
    assert (inside == 0).all(axis=2).sum() == 12 * 12
    assert (alter.masked(white, 0.3, 0.0, 1.0) == 0).all(axis=2).sum() == 6 * 6
    areas = [(augment(white, only(mask=0.3), np.random.default_rng(i)) == 0).all(axis=2).mean() for i in range(200)]
    # A side of 0.3 whose middle is uniform loses E = 0.3 - 0.3^2 / 4 of each axis on average, so 0.0770 of the area.
    assert np.mean(areas) == pytest.approx((0.3 - 0.3**2 / 4) ** 2, abs=0.006)  # 200 draws, and whole pixels


def test_crops_have_the_share_of_the_area_and_the_aspect_that_was_asked_for():
    rng = np.random.default_rng(0)
    boxes = np.array([alter.crop_box((256, 256), (0.8, 1.0), 4 / 3, rng) for _ in range(500)])
    top, left, h, w = boxes.T
    assert (top + h <= 256).all()
    assert (left + w <= 256).all()
    assert (h * w / 256**2).min() > 0.79  # whole pixels
    assert (w / h).min() > 0.74
    assert (w / h).max() < 1.35
    assert len(np.unique(boxes, axis=0)) > 400
    assert alter.crop_box((10, 40), (1.0, 1.0), 4 / 3, rng) == (0, 13, 10, 13)  # none fits: the middle


def test_a_crop_of_a_ramp_is_the_ramp_of_its_part():
    ramp = np.broadcast_to(np.linspace(0, 1, 40, dtype=np.float32)[None, :, None], (40, 40, 3))
    out = alter.resized_crop(ramp, (4, 10, 20, 20))
    assert out.shape == (40, 40, 3)
    expected = (10 + (np.arange(40) + 0.5) / 2 - 0.5) / 39
    np.testing.assert_allclose(out[20, 1:-1, 0], expected[1:-1], atol=1e-5)  # a line stays a line but at the edges


def test_jitter_changes_colours_within_its_limits_and_grey_stays_grey():
    plain = np.full((6, 6, 3), 0.5, dtype=np.float32)
    seen = np.array([augment(plain, only(jitter=1.0), np.random.default_rng(i)).mean() for i in range(100)])
    # Only brightness moves a plain grey: contrast, saturation and hue have nothing to act on.
    assert seen.min() >= 0.3 - 1e-6
    assert seen.max() <= 0.7 + 1e-6
    assert np.ptp(seen) > 0.3
    out = augment(picture(), only(jitter=1.0), np.random.default_rng(0))
    assert np.abs(out - picture()).mean() > 0.02


def test_only_colour_pictures_are_altered():
    with pytest.raises(DataError, match=r"\(8, 8, 1\)"):
        augment(np.zeros((8, 8, 1)), NOTHING, np.random.default_rng(0))
    grey = augmented(np.full((1, 8, 8, 1), 128, dtype=np.uint8), NOTHING, 0, ["a"], 0)
    np.testing.assert_allclose(grey, 128 / 255, atol=1e-6)
