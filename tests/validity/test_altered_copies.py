"""Near copies that were turned, cut, recoloured or blurred are found; other pictures are not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from phosphene.data import open_dataset
from phosphene.validity.altered_copies import altered_copies, grey_copies

N_TRAIN = 240
N_TEST = 40


@pytest.fixture(scope="module")
def scenes():
    options = {"n_train": N_TRAIN, "n_test": N_TEST, "n_voxels": 50}
    return open_dataset("insilico", options=options).stimuli.pixels()


@pytest.fixture(scope="module")
def digits(shared_data):
    return open_dataset("digits69", root=shared_data).stimuli.pixels()


def _cut(picture, share, corner=None):
    height, width = picture.shape[:2]
    h = height * share
    w = width * share
    top, left = ((height - h) / 2, (width - w) / 2) if corner is None else (0, 0)
    box = (left, top, left + w, top + h)
    return np.asarray(Image.fromarray(picture.squeeze()).resize((width, height), Image.Resampling.BICUBIC, box=box))


def _noisy(picture, sd):
    return picture.astype(float) + np.random.default_rng(0).normal(0, sd, picture.shape)


def _blurred(picture, radius):
    return np.asarray(Image.fromarray(picture.squeeze()).filter(ImageFilter.GaussianBlur(radius)))


ALTERED = {
    "same": lambda p: p,
    "mirrored": lambda p: p[:, ::-1],
    "upside down": lambda p: p[::-1],
    "quarter turn": lambda p: np.rot90(p),
    "mirrored quarter turn": lambda p: np.rot90(p)[:, ::-1],
    "cut to 95 %": lambda p: _cut(p, 0.95),
    "cut to 90 %": lambda p: _cut(p, 0.9),
    "cut to 80 %": lambda p: _cut(p, 0.8),
    "corner of 80 %": lambda p: _cut(p, 0.8, "corner"),
    "mirrored and cut to 85 %": lambda p: _cut(p[:, ::-1], 0.85),
    "grey": lambda p: np.repeat(p.mean(axis=2, keepdims=True), p.shape[2], axis=2),
    "channels changed": lambda p: p[..., ::-1],
    "inverted": lambda p: 255 - p.astype(int),
    "darker": lambda p: 0.5 * p,
    "less contrast": lambda p: 0.4 * p + 70,
    "noise of 15 levels": lambda p: _noisy(p, 15),
    "slightly blurred": lambda p: _blurred(p, 0.7),
}


def altered(pictures, how):
    made = []
    for picture in pictures:
        one = np.clip(np.round(ALTERED[how](picture)), 0, 255).astype(np.uint8)
        made.append(one.reshape(*one.shape[:2], -1))

    return np.stack(made)


def found(test, train):
    return altered_copies(grey_copies(test), grey_copies(train), np.random.default_rng(0))


@pytest.mark.parametrize("how", ALTERED)
def test_altered_scenes_are_found(scenes, how):
    train = scenes[:N_TRAIN]
    n = 20
    pairs = found(altered(train[:n], how), train)
    right = {pair.row for pair in pairs if pair.row == pair.other}
    assert len(right) >= 0.9 * n


@pytest.mark.slow
@pytest.mark.parametrize("how", ALTERED)
def test_altered_digits_are_found(digits, how):
    train = digits[:90]
    pairs = found(altered(train[:20], how), train)
    right = {pair.row for pair in pairs if pair.row == pair.other}
    assert len(right) >= 0.9 * 20


def test_other_scenes_and_digits_are_no_copies(scenes, digits):
    assert not found(scenes[N_TRAIN:], scenes[:N_TRAIN])
    assert not found(digits[90:], digits[:90])


def test_copies_inside_training_do_not_hide_those_of_test_pictures(scenes):
    train = np.concatenate([scenes[:120], altered(scenes[:30], "mirrored")])
    pairs = found(altered(scenes[60:80], "cut to 90 %"), train)
    assert len({pair.row for pair in pairs if pair.other == 60 + pair.row}) >= 17


def test_empty_pictures_are_no_copies():
    rng = np.random.default_rng(0)
    empty = (128 + 0.5 * rng.random((20, 16, 16, 1))).astype(np.uint8)
    assert not found(empty[:5], empty[5:])
    assert not found(empty[:0], empty)
