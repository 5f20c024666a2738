"""The verbs as a notebook uses them: a recipe by its name, a run by its folder."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import phosphene
from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.run_folder import RunFolder
from phosphene.run import configure


def test_a_recipe_by_name_is_the_same_run_as_its_configuration(pair_file, tmp_path):
    values = {"recipe.curve.kind": "none", "seed": 3}
    named = phosphene.fit("linear", tmp_path / "named", data=str(pair_file), values=values)
    config, _ = configure("linear", [("mine", {"data.name": str(pair_file), **values})])
    whole = phosphene.fit(config, tmp_path / "whole")
    assert named.folder.manifest["config_digest"] == whole.folder.manifest["config_digest"]
    origins = named.folder.table("origins.csv").set_index("key")["origin"]
    assert origins["seed"] == "arguments"
    assert origins["preset"] == "default"

    # A run, its folder as text, a path, and what a verb returned: all the same to the next verb.
    folder = phosphene.decode(str(tmp_path / "named"), controls=("shuffled",))
    phosphene.decode(whole, controls=("shuffled",))
    assert np.array_equal(folder.pixels("test", "brain"), whole.folder.pixels("test", "brain"))
    phosphene.encode(tmp_path / "named")
    assert len(phosphene.evaluate(folder).table("scores.csv"))
    assert phosphene.report(folder).is_file()


def test_pictures_of_ones_own_get_the_responses_that_test_pictures_get(pair_file, tmp_path):
    run = phosphene.fit("linear", tmp_path / "run", data=str(pair_file), values={"recipe.curve.kind": "none"})
    folder = phosphene.encode(run).encoded("test")
    tested = RunFolder(folder).table("index.csv")["stimulus"]
    shown = run.stimuli.select(tested)
    for name, picture in zip(tested, shown.pixels(), strict=True):
        (tmp_path / "mine").mkdir(exist_ok=True)
        Image.fromarray(picture[:, :, 0]).save(tmp_path / "mine" / f"{name}.png")

    place = phosphene.encode_pictures(run, tmp_path / "mine")
    assert place == tmp_path / "run" / "predicted" / "mine"
    order = [list(tested).index(name) for name in RunFolder(place).table("index.csv")["stimulus"]]
    predicted = np.load(place / "predicted.npy")
    np.testing.assert_allclose(predicted, np.load(folder / "predicted.npy")[order], rtol=1e-4, atol=1e-5)
    larger = phosphene.encode_pictures(run, np.repeat(np.repeat(shown.pixels(), 2, axis=1), 2, axis=2), name="larger")
    assert np.load(larger / "predicted.npy").shape == predicted.shape
    with pytest.raises(DataError, match="are grey"):
        phosphene.encode_pictures(run, np.repeat(shown.pixels(), 3, axis=3))
    with pytest.raises(ConfigError, match="cannot be the name"):
        phosphene.encode_pictures(run, shown.pixels(), name="../out")


def test_what_is_missing_or_said_twice_is_refused(pair_file, tmp_path):
    with pytest.raises(ConfigError, match="needs data: give data='insilico'"):
        phosphene.fit("linear", tmp_path / "run")
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        phosphene.fit("lineer", tmp_path / "run", data="insilico")
    config, _ = configure("linear", [("mine", {"data.name": str(pair_file)})])
    with pytest.raises(ConfigError, match="a whole configuration was given"):
        phosphene.fit(config, tmp_path / "run", data="insilico")
    for verb in (phosphene.decode, phosphene.encode, phosphene.evaluate):
        with pytest.raises(ModelError, match="is not a run"):
            verb(tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()
