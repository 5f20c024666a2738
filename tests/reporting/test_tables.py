"""Score tables: families, and which controls rival the brain."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from phosphene.metrics.registry import METRICS
from phosphene.reporting.tables import IDENTIFICATION, family, score_table


def contents(metric, brain, shuffled):
    """What a page knows of one metric, with (low, value, high) of the brain and of shuffled pairs."""
    rows = [
        {"input": name, "metric": metric, "value": value, "ci_low": low, "ci_high": high, "chance": float("nan"),
         "p": float("nan"), "n": 9, "setting": "strict", "split": "test"}
        for name, (low, value, high) in (("brain", brain), ("shuffled", shuffled))
    ]  # fmt: skip
    empty = pd.DataFrame(columns=["note", "metric"])
    return SimpleNamespace(
        scores=pd.DataFrame(rows), inputs=["brain", "shuffled"], differences=pd.DataFrame(), score_notes=empty
    )


@pytest.mark.parametrize("metric", ["fid.pictures.scenes", "kid.pictures.scenes"])
def test_a_set_in_another_order_does_not_rival_the_brain(metric):
    table = score_table(contents(metric, (1, 2, 3), (1, 2, 3)))
    assert table["flat"][0]["controls"]["shuffled"]["rivals"] is False
    assert not table["rivals"]


@pytest.mark.parametrize("metric", ["cosine.pictures.scenes", "distance.pictures.swav", "two_way.pixels"])
def test_pairs_in_another_order_that_score_alike_do(metric):
    assert score_table(contents(metric, (0.1, 0.2, 0.3), (0.1, 0.2, 0.3)))["rivals"]


def test_scores_of_how_alike_pictures_are_stand_together():
    for name in ("pixcorr", "mse", "ssim.2d", "cosine.pictures.scenes", "distance.pictures.swav", "fid.pictures.x"):
        assert family(name) == "Pictures"
    assert family("pearson.voxels") == "Encoding"
    assert family("two_way.pictures.alexnet2") == family("nway50_top1_class.scenes") == IDENTIFICATION


def test_every_metric_has_a_family_that_is_shown():
    for name in METRICS:
        full = name.replace("{space}", "pictures.x").replace("{n}", "50")
        table = score_table(contents(full, (0.1, 0.2, 0.3), (0.0, 0.1, 0.2)))
        assert [group for group, _ in table["groups"]] == [family(full)]
