"""Scores of what networks see and texts say, through the whole flow."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import pytest

from phosphene import flow, recipes
from phosphene.align import Ridge
from phosphene.features.clip import ClipFeatures
from phosphene.flow.show import summary
from phosphene.lab import zoo
from phosphene.recipes.base import Recipe, RecipeConfig, Stage
from phosphene.types import Images, Latents

pytestmark = pytest.mark.skipif(
    not {"clip", "classifier"} <= set(zoo.names()), reason="the lab's networks have no weights here"
)
SPACE = "clip_lab"


class NearestConfig(RecipeConfig):
    kind: Literal["nearest"] = "nearest"


class Nearest(Recipe[NearestConfig]):
    """Ridge from voxels to the lab's CLIP, drawn as the mean training picture: all that matters is in the latents."""

    config_class = NearestConfig
    stages = (Stage("to_clip", Ridge), Stage("picture", Ridge))
    fixed_spaces = frozenset({SPACE})

    def fit_to_clip(self, trials, stimuli):
        trials = trials.average_repeats()
        shown = ClipFeatures("lab").images(stimuli.select(trials.stimuli).pixels())
        return Ridge(3000.0).fit(trials.betas, shown)

    def fit_picture(self, trials, stimuli):
        trials = trials.average_repeats()
        flat = stimuli.select(trials.stimuli).floats().reshape(len(trials), -1)
        return Ridge(3e4).fit(trials.betas, flat)

    def decode(self, trials):
        pictures = self.picture_.predict(trials.betas).reshape(len(trials), *self.image_shape_)
        return Images(trials.stimuli, pictures)

    def latents(self, trials):
        return Latents(trials.stimuli, {SPACE: self.to_clip_.predict(trials.betas)})

    def true_latents(self, stimuli):
        return Latents(stimuli.ids, {SPACE: ClipFeatures("lab").images(stimuli.pixels())})

    def text_latents(self, texts):
        return Latents(list(texts), {SPACE: ClipFeatures("lab").texts(list(texts))})


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "nearest", f"{__name__}:Nearest")

    def run(design, n_train=150, n_test=40, **values):
        options = {"design": design, "n_train": n_train, "n_test": n_test, "n_voxels": 250}
        config = flow.configure("nearest", [("test", {"data.name": "insilico", "data.options": options, **values})])[0]
        opened = flow.fit(config, tmp_path / design)
        flow.decode(opened, controls=("shuffled",))
        flow.evaluate(opened)
        return opened.folder

    return run


def test_a_run_is_scored_by_eyes_and_by_texts(run_of):
    run = run_of("god")
    scores = run.table("scores.csv").set_index(["input", "metric"])
    for name in ("two_way", "two_way_within_class", "cosine", "fid", "kid"):
        for eye in ("clip_lab", "scenes"):
            for source in ("brain", "shuffled"):
                assert np.isfinite(scores.loc[(source, f"{name}.pictures.{eye}"), "value"])
    assert scores.loc[("brain", "nway16_top1_class.scenes"), "chance"] == 1 / 16
    assert 0 <= scores.loc[("brain", "category.scenes"), "value"] <= 1
    # Latents and pictures have names of their own, and the latents are better: the pictures are all but the mean.
    assert scores.loc[("brain", f"two_way.{SPACE}"), "p"] < 0.01
    zero_shot = scores.loc[("brain", f"zero_shot_top1.{SPACE}")]
    assert zero_shot["n"] == 40
    assert 0.2 < zero_shot["chance"] < 0.35  # of four test categories
    assert scores.loc[("shuffled", f"zero_shot_top1.{SPACE}"), "p"] > 0.001
    assert scores.loc[("brain", f"zero_shot_all_top1.{SPACE}"), "value"] <= zero_shot["value"]
    notes = run.table("evaluation", "test", "notes.csv").set_index(["input", "metric"])["note"]
    assert "none of the 4 candidate categories was shown in training" in notes[("brain", f"zero_shot_top1.{SPACE}")]
    assert "biased upwards" in notes[("brain", "fid.pictures.scenes")]
    table = run.table("evaluation", "test", "zero_shot.csv")
    assert table["n"].sum() == 40
    right = table.loc[table["true"] == table["said"], "n"].sum()
    assert right / 40 == pytest.approx(zero_shot["value"])
    items = run.table("evaluation", "test", "per_item.csv")
    assert not items["metric"].str.startswith(("fid", "kid")).any()
    shown = summary(run.path)
    for name in ("two_way.pictures.clip_lab", "fid.pictures.scenes", f"zero_shot_top1.{SPACE}", "category.scenes"):
        assert name in shown


def test_folds_are_named_by_text_in_fixed_spaces_only(run_of, monkeypatch):
    run = run_of("nsd", 40, 10, split="kfold:2")
    assert f"zero_shot_top1.{SPACE}" in set(run.table("scores.csv")["metric"])
    monkeypatch.setattr(Nearest, "fixed_spaces", frozenset())
    from phosphene.run import open_run

    opened = open_run(run.path)
    flow.evaluate(opened)  # the latents are still on the disk, but may not be scored together
    assert not opened.folder.table("scores.csv")["metric"].str.startswith("zero_shot").any()


def test_a_data_set_without_eyes_and_texts_is_scored_as_ever(pair_file, tmp_path):
    values = {"data.name": str(pair_file), "recipe.curve.kind": "none"}
    opened = flow.fit(flow.configure("linear", [("test", values)])[0], tmp_path / "run")
    flow.decode(opened, controls=("shuffled",))
    flow.evaluate(opened)
    scores: pd.DataFrame = opened.folder.table("scores.csv")
    assert not scores["metric"].str.contains(r"pictures\.|zero_shot|scenes").any()
    assert not (opened.folder.evaluation("test") / "zero_shot.csv").exists()
