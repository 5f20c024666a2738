"""A decoder is handed responses and nothing else; what it knows besides is impossible, or leads the conclusion."""

from __future__ import annotations

import json
import uuid

import numpy as np
import pytest

from phosphene import flow, recipes
from phosphene.errors import DataError, ModelError

from . import cheats
from .conftest import write_pair_file
from .side_door import KNOWN

N_TEST = 24


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A pair file, everything a cheat may know of it, and a way to run one on it."""
    file = write_pair_file(tmp_path / "pairs.npz", n_train=60, n_test=N_TEST, n_voxels=40)
    layers = [("test", {"data.name": str(file), "recipe.curve.kind": "none", "recipe.pixels.n_components": 10})]
    plain = flow.fit(flow.configure("linear", layers)[0], tmp_path / "linear")
    _, test = plain.sides(0)
    test = test.average_repeats()
    pictures = plain.stimuli.select(test.stimuli).floats()
    KNOWN.update(
        pictures=dict(zip(test.stimuli, pictures, strict=True)),
        test=pictures,
        test_ids=list(test.stimuli),
        trials=plain.trials,
        rows={betas.tobytes(): picture for betas, picture in zip(test.betas, pictures, strict=True)},
        file=file,
        token=uuid.uuid4().hex,
    )

    def fitted(cls):
        monkeypatch.setitem(recipes.RECIPES, "cheat", f"{cls.__module__}:{cls.__name__}")
        return flow.fit(flow.configure("cheat", layers)[0], tmp_path / cls.__name__)

    def judged(cls, **options):
        opened = fitted(cls)
        flow.decode(opened, controls=("noise",), **options)
        flow.evaluate(opened)
        return opened

    fitted.judged = judged
    fitted.plain = plain
    yield fitted
    KNOWN.clear()


def first_sentence(opened):
    return (opened.folder.evaluation("test") / "conclusions.txt").read_text().splitlines()[0]


def verdicts(opened):
    return opened.folder.table("validity.csv").set_index("id")["verdict"]


# -- impossible ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [cheats.ByName, cheats.BestOfEight], ids=lambda cls: cls.__name__)
def test_names_lead_nowhere(study, cls):
    if cls is cheats.ByName:
        with pytest.raises(ModelError, match="looked up the name of a test item"):
            flow.decode(study(cls), controls=())


def test_the_table_holds_no_column_that_was_not_declared(study):
    with pytest.raises(KeyError, match="members"):
        flow.decode(study(cheats.ByTable), controls=())


def test_a_decoder_that_waits_for_a_known_name_gets_none(study):
    flow.decode(study.plain, controls=())
    opened = study(cheats.ByNameOrBrain)
    flow.decode(opened, controls=())
    ours, plain = (run.folder.pixels("test", "brain") for run in (opened, study.plain))
    assert np.array_equal(ours, plain)


@pytest.mark.parametrize(
    ("way", "error"),
    [("ids", DataError), ("source", AttributeError), ("trials", AttributeError), ("base", LookupError)],
)
def test_fit_cannot_reach_a_test_picture(study, monkeypatch, way, error):
    monkeypatch.setattr(cheats.TestPictures, "way", way)
    with pytest.raises(error):
        study(cheats.TestPictures)


# -- caught --------------------------------------------------------------------------------------------------------------

CAUGHT = [
    (cheats.ByOrder, "L9", "by their order"),
    (cheats.HalfByOrder, "L9", "by their order"),
    (cheats.BatchWhereMany, "L3", "Statistics of the test batch are used"),
    (cheats.BatchInFile, "L11", "writes files while it decodes"),
    (cheats.BestOfEight, "L9", "noise key tells"),
    (cheats.ByRow, "L10", "recognises test rows"),
    (cheats.ByFile, "L11", "opens the data while it decodes: pairs.npz"),
    (cheats.ByNoiseKey, "L9", "uses noise keys"),
]


@pytest.mark.parametrize(("cls", "check", "words"), CAUGHT, ids=[cls.__name__ for cls, _, _ in CAUGHT])
def test_a_cheat_is_named_in_the_first_sentence(study, cls, check, words):
    sentence = first_sentence(study.judged(cls))
    assert sentence.startswith(f"Check {check} failed: ")
    assert words in sentence


@pytest.mark.parametrize("cls", [cheats.BatchInMemory, cheats.BatchInObject])
def test_statistics_that_are_kept_are_those_of_noise_or_are_caught(study, cls):
    found = verdicts(study.judged(cls))
    assert "fail" in set(found[["L2", "L3", "L9"]])


# -- honest --------------------------------------------------------------------------------------------------------------


def test_an_honest_run_fails_nothing_and_says_what_was_tried(study):
    flow.decode(study.plain)
    flow.evaluate(study.plain)
    found = verdicts(study.plain)
    assert set(found[["L1", "L2", "L3", "L9", "L10", "L11"]]) == {"pass"}
    assert (
        "Transductive step: none. No stage saw"
        in (study.plain.folder.evaluation("test") / "conclusions.txt").read_text()
    )
    record = json.loads((study.plain.folder.decoded("test", "brain") / "decoding.json").read_text())
    assert record["read"] == record["written"] == record["columns"] == []


def test_an_honest_sampler_fails_nothing(study):
    opened = study.judged(cheats.Sampler)
    found = verdicts(opened)
    assert set(found[["L1", "L2", "L3", "L7", "L9", "L10", "L11"]]) == {"pass"}
