"""The verbs as a notebook uses them: a recipe by its name, a run by its folder."""

from __future__ import annotations

import numpy as np
import pytest

import phosphene
from phosphene.errors import ConfigError, ModelError
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
