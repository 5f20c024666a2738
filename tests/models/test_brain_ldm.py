"""The brain encoder and the latent diffusion it conditions: what they say without what they need."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phosphene.errors import ModelError
from phosphene.models import PatchMae, PatchMaeConfig, subject_batches
from phosphene.models.brain_ldm import BrainToPicture, Pictures
from phosphene.models.ldm import LdmConfig, LdmUnet
from phosphene.training import Draws


def test_training_without_a_tokenizer_of_pictures_says_what_is_missing():
    with torch.device("meta"):
        network = LdmUnet(**LdmConfig.lab().model_dump(mode="json"))

    both = BrainToPicture(PatchMae.create(PatchMaeConfig(**PatchMaeConfig.preset("lab")), {"s1": 30}, seed=0), network)
    fetch, n = subject_batches({"s1": np.zeros((2, 30), np.float32)})
    with pytest.raises(ModelError, match="without an ldm"):
        both.loss(fetch(np.arange(n)), Draws(0, 0, n))


def test_pictures_are_found_by_the_stimulus_and_grey_ones_have_three_channels():
    pixels = np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1)
    pictures = Pictures(np.array(["black", "white"]), pixels)
    rows = pictures.rows_of(np.array(["white", "black", "white"], dtype=object))
    assert rows.tolist() == [1, 0, 1]
    assert np.array_equal(pictures[rows], np.array([1, -1, 1], np.float32).reshape(3, 1, 1, 1).repeat(3, axis=1))
