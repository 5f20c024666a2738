"""The in-silico lab behind the same door as real data."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.data import open_dataset, read_dataset, splits, write_dataset
from phosphene.errors import ConfigError, DataError
from phosphene.lab.reader import InSilicoOptions, simulation
from phosphene.reporting.describe import check

TINY = {"n_train": 20, "n_test": 6, "n_voxels": 60}


def test_the_dataset_is_the_simulation_and_needs_no_root(monkeypatch):
    monkeypatch.delenv("PHOSPHENE_DATA", raising=False)
    dataset = open_dataset("insilico", options=TINY)
    truth = simulation(InSilicoOptions(**TINY))
    trials = dataset.trials()
    assert np.array_equal(trials.betas, truth.betas)
    assert np.array_equal(dataset.stimuli.pixels(), truth.images)
    assert np.array_equal(trials.noise_ceiling, truth.voxels["noise_ceiling"])
    train, test = splits.resolve(dataset, trials, None, 0)[0].apply(trials)
    assert (len(train.stimulus_ids), len(test.stimulus_ids)) == (20, 6)
    assert len(test) == 6 * 3


def test_people_share_test_pictures_and_differ_in_everything_else():
    both = open_dataset("insilico", options={**TINY, "n_subjects": 2})
    one, two = (both.trials(s) for s in ("sub-01", "sub-02"))
    assert len(both.stimuli) == 20 + 20 + 6
    (split,) = splits.resolve(both, two, None, 0)
    assert set(split.apply(one)[1].stimuli) == set(split.apply(two)[1].stimuli)
    assert not set(split.apply(one)[0].stimuli) & set(split.apply(two)[0].stimuli)
    alone = open_dataset("insilico:sub-02", options=TINY)
    assert alone.trials().digest() == two.digest()
    with pytest.raises(DataError, match="no subject 'sub-99'"):
        open_dataset("insilico:sub-99", options=TINY)


def test_it_survives_the_folder_format_with_everything_known_of_its_voxels(tmp_path):
    dataset = open_dataset("insilico", options=TINY)
    back = read_dataset(write_dataset(dataset, tmp_path / "d"))
    assert back.trials().digest() == dataset.trials().digest()
    assert back.stimuli.digest() == dataset.stimuli.digest()
    assert back.trials().rois == dataset.trials().rois
    assert not [f for f in check(tmp_path / "d") if f.level == "problem"]


def test_unknown_and_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'n_train'"):
        open_dataset("insilico", options={"ntrain": 3})
    with pytest.raises(ConfigError, match="n_voxels"):
        open_dataset("insilico", options={"n_voxels": 3})
    with pytest.raises(ConfigError, match="say pixels=48"):
        open_dataset("insilico", options={"size": 48})
    for option, value in (("n_voxels", 50_001), ("n_train", 200_001), ("pixels", 0), ("seed", -1), ("n_subjects", 9)):
        with pytest.raises(ConfigError, match=option):
            open_dataset("insilico", options={option: value})
