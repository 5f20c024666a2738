"""Texts that stand for the lab's categories."""

from __future__ import annotations

import doctest

import pytest

from phosphene.data import open_dataset, read_dataset, write_dataset
from phosphene.features.prompts import SINGLE_TEMPLATE, TEMPLATES, category_texts
from phosphene.lab import scene_prompts as prompts
from phosphene.lab import zoo
from phosphene.lab.description import PLACES, THINGS
from phosphene.lab.scene_captions import WHERE


def test_examples_in_docstrings_hold():
    assert doctest.testmod(prompts).failed == 0


def test_every_category_and_place_of_the_lab_has_texts_of_its_own():
    texts = prompts.thing_texts(THINGS)
    assert list(texts) == list(THINGS)
    every = [text for several in texts.values() for text in several]
    assert len(set(every)) == len(THINGS) * len(TEMPLATES)
    assert set(prompts.NOUNS) <= set(THINGS)
    assert set(prompts.place_texts(PLACES)) == set(WHERE)


def test_one_template_can_stand_alone():
    assert prompts.thing_texts(["boat"], SINGLE_TEMPLATE) == {"boat": ["a photo of a sailing boat"]}


def test_texts_are_those_the_card_of_the_lab_clip_was_scored_with():
    if "clip" not in zoo.names():
        pytest.skip("the lab's CLIP has no weights here")
    assert zoo.record("clip")["prompts"]["category"] == prompts.thing_texts(THINGS)


def test_the_lab_offers_its_nouns_with_its_data_and_a_written_folder_keeps_them(tmp_path):
    dataset = open_dataset("insilico", options={"n_train": 6, "n_test": 3, "n_voxels": 50})
    assert dataset.nouns == prompts.NOUNS
    assert category_texts(THINGS, nouns=dataset.nouns) == prompts.thing_texts(THINGS)

    write_dataset(dataset, tmp_path / "lab")
    assert read_dataset(tmp_path / "lab").nouns == prompts.NOUNS
