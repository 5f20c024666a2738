"""A decoder that draws training pictures is told from one that draws what the brain says."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.validity import DecodingTarget, Evidence, run_checks
from phosphene.validity.memorised import share_nearer_to_training


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    pictures = rng.random((140, 64))
    weights = rng.standard_normal((64, 80))
    betas = pictures @ weights + 1.5 * rng.standard_normal((140, 80))
    return pictures, betas


def verdict(world, decode):
    pictures, betas = world
    train, test = slice(0, 100), slice(100, 140)
    predicted = decode(pictures[train], betas[train], betas[test])
    target = DecodingTarget(
        "pixels", pictures[train], pictures[test], predicted, betas=betas[train], test_betas=betas[test]
    )
    return run_checks(Evidence(targets=[target]), only=["B10"])[0]


def by_retrieval(pictures, betas, new):
    z = (betas - betas.mean(axis=0)) / betas.std(axis=0)
    nearest = ((new - betas.mean(axis=0)) / betas.std(axis=0)) @ z.T
    return pictures[nearest.argmax(axis=1)]


def by_ridge(pictures, betas, new):
    x = betas - betas.mean(axis=0)
    weights = np.linalg.solve(x.T @ x + 50 * np.eye(x.shape[1]), x.T @ (pictures - pictures.mean(axis=0)))
    return (new - betas.mean(axis=0)) @ weights + pictures.mean(axis=0)


def test_looking_up_training_pictures_is_memorising(world):
    found = verdict(world, by_retrieval)
    assert found.verdict == "flag"
    assert found.value == 1
    assert "the decoder draws pictures it has memorised" in found.reason


def test_an_honest_decoder_is_not(world):
    found = verdict(world, by_ridge)
    assert found.verdict == "pass"
    assert found.value < 0.3


def test_shares_of_the_two_ends(world):
    pictures, _ = world
    assert share_nearer_to_training(pictures[100:], pictures[100:], pictures[:100]) == 0
    assert share_nearer_to_training(pictures[:40], pictures[100:], pictures[:100]) == 1
    assert np.isnan(share_nearer_to_training(np.ones((4, 64)), pictures[:4], pictures[4:9]))
