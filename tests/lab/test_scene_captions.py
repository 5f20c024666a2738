"""Captions: good ones are true, wrong ones false, vague ones say nothing that could be wrong."""

import re

import numpy as np
import pytest

from phosphene.lab import scene_captions as captions
from phosphene.lab import scenes
from phosphene.lab.scene_captions import GOOD, VAGUE, WRONG

N = 800
COLOURS = {colour for kind in captions.KINDS.values() for colour in kind.colours}
NOUN = captions._NOUN | {"face": "face"}


@pytest.fixture(scope="module")
def told():
    described = scenes.describe_many(5, np.arange(N))
    return list(zip(described, captions.write(described), captions.truth(described), strict=True))


def is_true(scene, text):
    """Whether main thing, its colour and the place are as described, read from the words alone."""
    text = re.sub(r" that says \w+", "", text)
    main = next(thing for thing in scene.things if thing.kind == scene.main)
    named = re.search(rf"\b{NOUN[main.kind]}\b", text) is not None
    # The main thing is named first, with its colour if any.
    first = re.split(r", with | next to ", text)[0].replace("green meadow", "meadow")
    colours = [word for word in first.split() if word in COLOURS]
    return named and captions.WHERE[scene.place] in text and all(colour == main.colour for colour in colours[:1])


def test_every_scene_has_five_captions_of_several_qualities(told):
    for _, texts, qualities in told:
        assert len(texts) == len(qualities) == 5
        assert all(texts)
        assert len(set(texts)) == 5
        counts = [qualities.count(quality) for quality in (GOOD, VAGUE, WRONG)]
        assert sum(counts) == 5
        assert 2 <= counts[0] <= 3
        assert 1 <= counts[1] <= 2
        assert 1 <= counts[2] <= 2


def test_good_captions_are_true_and_wrong_ones_are_not(told):
    for scene, texts, qualities in told:
        for text, quality in zip(texts, qualities, strict=True):
            if quality == GOOD:
                assert is_true(scene, text), (scene, text)
            if quality == WRONG:
                assert not is_true(scene, text), (scene, text)


def test_vague_captions_name_no_thing(told):
    nouns = {noun for name, noun in NOUN.items() if name not in ("body", "word")} - {"house"}
    for _, texts, qualities in told:
        for text, quality in zip(texts, qualities, strict=True):
            if quality == VAGUE:
                assert not any(re.search(rf"\b{noun}\b", text) for noun in nouns), text


def test_place_in_the_list_tells_nothing_of_quality(told):
    shares = np.mean([[quality == GOOD for quality in qualities] for _, _, qualities in told], axis=0)
    assert np.ptp(shares) < 0.1  # each about 0.5 with standard error 0.018


def test_one_at_a_time_gives_the_same_captions(told):
    assert scenes.captions(5, 17) == told[17][1]
    assert scenes.caption_truth(5, 17) == told[17][2]
