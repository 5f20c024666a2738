"""Checks B4 to B9, M6 and M10 get their evidence from a run, and a changed metric stands beside no published figure."""

from __future__ import annotations

import importlib

import numpy as np
import pandas as pd

from phosphene import flow
from phosphene.flow.decoding_targets import targets_of
from phosphene.metrics.golden import golden_reference
from phosphene.validity import Evidence
from tests.flow.conftest import write_pair_file


def test_a_run_answers_every_check_of_brain_and_score(tmp_path):
    file = write_pair_file(tmp_path / "p.npz", n_train=80, n_test=30)
    values = {"data.name": str(file), "recipe.curve.kind": "none", "recipe.alphas": [1.0, 100.0, 10000.0]}
    opened = flow.fit(flow.configure("linear", [("test", values)])[0], tmp_path / "run")
    flow.decode(opened)
    flow.evaluate(opened)
    table = opened.folder.table("validity.csv").set_index("id")
    verdicts = table["verdict"]
    assert (verdicts[["B4", "B5", "B6", "B7", "M10"]] == "pass").all(), table["reason"].to_dict()
    assert (verdicts[["B2", "M6", "M11"]] == "not applicable").all()  # one showing each, nothing drawn, no FID
    assert verdicts["B9"] == "not tested"
    assert verdicts["B8"] in ("pass", "flag")
    curve = opened.folder.table("evaluation", "test", "bottleneck.csv")
    assert list(curve.columns) == ["dimensions", "two_way", "space"]
    assert curve["two_way"].iloc[-1] > 0.8
    index = opened.folder.table("decoded", "test", "brain", "index.csv")
    latent, pictures = targets_of(opened, [opened.recipe(0)], index, None)
    assert (latent.space, pictures.space) == ("pixel_pca", "pixels")
    assert len(latent.train) == len(pictures.train) == len(latent.betas) == 80
    # The cheap copy of the training side is the recipe's own, and the test side what was scored.
    own = opened.recipe(0).true_latents(opened.stimuli.select(opened.sides(0)[0].stimuli))["pixel_pca"]
    np.testing.assert_allclose(latent.train, own, rtol=1e-5, atol=1e-5)
    assert pictures.true.shape == (30, 256)


def test_a_changed_metric_and_an_fid_of_few_stand_beside_no_published_figure():
    module = importlib.import_module("phosphene.flow.score_files")
    kept = golden_reference()
    brain = pd.DataFrame({"metric": ["fid.pictures.inception64", "two_way.pictures.clip_vit_l14"], "n": [50, 50]})
    same, moved = Evidence(golden=kept), Evidence(golden={**kept, "two_way.golden": 0.5})
    assert module._why_another_quantity("two_way.pictures.clip_vit_l14", brain, same) == []
    assert "golden value" in module._why_another_quantity("two_way.pictures.clip_vit_l14", brain, moved)[0]
    assert module._why_another_quantity("pixcorr", brain, moved) == []
    assert "50 pictures" in module._why_another_quantity("fid.pictures.inception64", brain, same)[0]
