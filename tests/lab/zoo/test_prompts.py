"""Texts that stand for the lab's categories."""

from __future__ import annotations

import doctest

import pytest

from phosphene.lab import zoo
from phosphene.lab.captions import WHERE
from phosphene.lab.description import PLACES, THINGS
from phosphene.lab.zoo import prompts


def test_examples_in_docstrings_hold():
    assert doctest.testmod(prompts).failed == 0


def test_every_category_and_place_of_the_lab_has_texts_of_its_own():
    texts = prompts.category_texts(THINGS)
    assert list(texts) == list(THINGS)
    every = [text for several in texts.values() for text in several]
    assert len(set(every)) == len(THINGS) * len(prompts.TEMPLATES)
    assert set(prompts.NOUNS) <= set(THINGS)
    assert set(prompts.place_texts(PLACES)) == set(WHERE)


def test_one_template_can_stand_alone():
    assert prompts.category_texts(["boat"], prompts.SINGLE_TEMPLATE) == {"boat": ["a photo of a sailing boat"]}


def test_texts_are_those_the_card_of_the_lab_clip_was_scored_with():
    if "clip" not in zoo.names():
        pytest.skip("the lab's CLIP has no weights here")
    assert zoo.record("clip")["prompts"]["category"] == prompts.category_texts(THINGS)
