"""A decoder is handed responses and nothing else; what it knows besides is impossible, or leads the conclusion."""

from __future__ import annotations

import json
import uuid

import numpy as np
import pandas as pd
import pytest

from phosphene import flow, recipes
from phosphene.errors import DataError, ModelError
from phosphene.flow.blind import BlindRecipe, Handing
from phosphene.models.batch_invariance import picture_rng
from phosphene.types import HandedRows, Images, NoiseKey, Stimuli, Trials

from . import cheats
from .conftest import write_pair_file
from .side_door import KNOWN

N_TEST = 24


@pytest.fixture
def study(request, tmp_path, monkeypatch):
    """A pair file, everything a cheat may know of it, and a way to run one on it; the seed may be a parameter."""
    seed = getattr(request, "param", 0)
    file = write_pair_file(tmp_path / "pairs.npz", n_train=60, n_test=N_TEST, n_voxels=40, seed=seed)
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
    """The first that says how: before it comes only that a control is above chance, where that is so."""
    lines = (opened.folder.evaluation("test") / "conclusions.txt").read_text().splitlines()
    if lines[0].startswith("Check L12 failed: The decoder knows more than the brain told it"):
        return lines[1]

    return lines[0]


def verdicts(opened):
    return opened.folder.table("validity.csv").set_index("id")["verdict"]


# -- impossible ----------------------------------------------------------------------------------------------------------


def test_names_lead_nowhere(study):
    with pytest.raises(ModelError, match="looked up the name of a test item"):
        flow.decode(study(cheats.ByName), controls=())


def test_the_table_holds_no_column_that_was_not_declared(study):
    with pytest.raises(KeyError, match="members"):
        flow.decode(study(cheats.ByTable), controls=())


def test_a_decoder_that_waits_for_a_known_name_gets_none(study):
    flow.decode(study.plain, controls=())
    opened = study(cheats.ByNameOrBrain)
    flow.decode(opened, controls=())
    ours, plain = (run.folder.pixels("test", "brain") for run in (opened, study.plain))
    assert np.array_equal(ours, plain)


@pytest.mark.parametrize(("way", "error"), [("ids", DataError), ("trials", AttributeError), ("all", LookupError)])
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
    (cheats.BestOfEight, "L7", "picked with the help of the truth"),
    (cheats.ByRow, "L10", "recognises test rows"),
    (cheats.ByFile, "L11", "opens the data while it decodes: pairs.npz"),
    (cheats.ByNoiseKey, "L9", "noise key tells"),
]


@pytest.mark.parametrize(("cls", "check", "words"), CAUGHT, ids=[cls.__name__ for cls, _, _ in CAUGHT])
def test_a_cheat_is_named_in_the_first_sentence(study, cls, check, words):
    sentence = first_sentence(study.judged(cls))
    assert sentence.startswith(f"Check {check} failed: ")
    assert words in sentence


@pytest.mark.slow
@pytest.mark.parametrize("study", [1, 2, 3, 4], indirect=True)
@pytest.mark.parametrize(("cls", "check", "words"), CAUGHT, ids=[cls.__name__ for cls, _, _ in CAUGHT])
def test_a_cheat_is_named_in_the_first_sentence_of_other_studies(study, cls, check, words):
    sentence = first_sentence(study.judged(cls))
    assert sentence.startswith(f"Check {check} failed: ")
    assert words in sentence


@pytest.mark.slow
@pytest.mark.parametrize("study", [1, 2, 3, 4], indirect=True)
def test_honest_runs_of_other_studies_fail_nothing_of_this(study):
    for opened in (study.judged(cheats.Sampler), study.judged(cheats.Honest)):
        assert "fail" not in set(verdicts(opened)[["L1", "L2", "L3", "L7", "L9", "L10", "L11", "L12"]])


def test_a_control_above_chance_leads_the_conclusion(study):
    opened = study(cheats.ByNoiseKey)
    flow.decode(opened, controls=("shuffled", "noise", "mean"))
    flow.evaluate(opened)
    lines = (opened.folder.evaluation("test") / "conclusions.txt").read_text().splitlines()
    assert lines[0].startswith("Check L12 failed: The decoder knows more than the brain told it")
    assert "shuffled responses score above chance" in lines[0]


@pytest.mark.parametrize("cls", [cheats.BatchInMemory, cheats.BatchInObject])
def test_statistics_that_are_kept_are_those_of_noise_or_are_caught(study, cls):
    found = verdicts(study.judged(cls))
    assert "fail" in set(found[["L2", "L3", "L9"]])


# -- honest --------------------------------------------------------------------------------------------------------------


def test_an_honest_run_fails_nothing_and_says_what_was_tried(study):
    flow.decode(study.plain)
    flow.evaluate(study.plain)
    found = verdicts(study.plain)
    assert set(found[["L1", "L2", "L3", "L9", "L10", "L11", "L12"]]) == {"pass"}
    assert (
        "Transductive step: none. No stage saw"
        in (study.plain.folder.evaluation("test") / "conclusions.txt").read_text()
    )
    record = json.loads((study.plain.folder.decoded("test", "brain") / "decoding.json").read_text())
    assert record["read"] == record["written"] == record["columns"] == []


def test_an_honest_sampler_fails_nothing(study):
    opened = study.judged(cheats.Sampler)
    found = verdicts(opened)
    assert set(found[["L1", "L2", "L3", "L7", "L9", "L10", "L11", "L12"]]) == {"pass"}
    everything = opened.folder.table("scores.csv").set_index(["input", "metric"])["value"]
    spread = opened.folder.table("evaluation", "test", "samples.csv").set_index("metric")
    samples = np.load(opened.folder.decoded("test", "brain") / "samples.npy") / 255
    true = opened.folder.pixels("test", "seen")
    errors = np.square(samples - true[:, None]).mean(axis=(2, 3, 4))  # (n, samples)
    assert everything["brain", "mse"] == pytest.approx(errors.mean(), rel=1e-3)
    assert spread.loc["mse", "sd"] == pytest.approx(errors.mean(axis=0).std(ddof=1), rel=0.05)
    assert spread.loc["mse", "oracle_best_of_n"] == pytest.approx(errors.min(axis=1).mean(), rel=1e-3)
    assert spread.loc["two_way.pixels", "n_samples"] == 3
    assert "mean over 3 samples" in (opened.folder.evaluation("test") / "conclusions.txt").read_text()


def test_the_best_of_eight_gains_nothing_and_is_seen_in_their_order(study):
    opened = study.judged(cheats.BestOfEight)
    assert verdicts(opened)["L7"] == "fail"
    spread = opened.folder.table("evaluation", "test", "samples.csv").set_index("metric").loc["mse"]
    value = opened.folder.table("scores.csv").set_index(["input", "metric"]).loc[("brain", "mse"), "value"]
    assert value == pytest.approx(spread["mean"])
    assert spread["oracle_best_of_n"] < 0.95 * value


def test_one_sample_is_scored_on_request(study):
    opened = study.judged(cheats.Sampler, samples=1)
    assert not (opened.folder.decoded("test", "brain") / "samples.npy").is_file()
    three = study(cheats.Sampler)
    flow.decode(three, controls=())
    assert np.array_equal(three.folder.pixels("test", "brain"), opened.folder.pixels("test", "brain"))
    assert verdicts(opened)["L9"] == "pass"


def test_noise_keys_give_the_noise_of_the_stimulus_and_not_its_name():
    key = NoiseKey.of("dog")
    assert picture_rng(3, key, 1).random() == picture_rng(3, "dog", 1).random()
    assert "dog" not in f"{key!r}{key}"


def test_what_is_handed_over_is_the_same_data():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (9, 4, 4, 3)).astype(np.uint8)
    stimuli = Stimuli(np.arange(9), pictures, captions=tuple((f"text {i}",) for i in range(9)))
    some = stimuli.select(["3", "4", "5", "8"])
    assert some.handed().digest() == some.digest()
    assert isinstance(some.handed().images, HandedRows)
    table = {"stimulus": list("abcdefghi")}
    trials = Trials(rng.standard_normal((9, 7)).astype("f4"), pd.DataFrame(table)).take(np.arange(2, 6))
    trials = trials.take_voxels(np.array([0, 4, 5]))
    assert trials.handed().digest() == trials.digest()
    assert trials.handed().betas.base is None


class _Echo:
    """A recipe that gives back what it was given."""

    def __init__(self):
        self.trial_columns = ("session",)
        self.given = None

    def decode(self, trials):
        self.given = trials
        return Images(trials.stimuli, np.repeat(trials.betas[:, :1], 4, axis=1).reshape(-1, 2, 2, 1))


def test_rows_come_back_in_their_order_whatever_order_they_were_handed_over_in():
    betas = np.arange(30, dtype=np.float32).reshape(10, 3)
    table = pd.DataFrame(
        {"stimulus": [f"s{i}" for i in range(10)], "session": np.arange(10) // 5, "onset": np.arange(10)}
    )
    trials = Trials(betas, table)
    names = []
    for handing in (Handing(), Handing(1, 0), Handing(0, 1)):
        echo = _Echo()
        images = BlindRecipe(echo, [0, 0], handing=handing).decode(trials)
        assert list(images.ids) == list(trials.stimuli)
        assert np.array_equal(images.pixels[:, 0, 0, 0], betas[:, 0])
        assert set(echo.given.table) == {"stimulus", "noise", "session", "trial", "run", "repeat"}
        assert not (echo.given.betas == betas).all()
        rows = (echo.given.betas[:, 0] / 3).astype(int)
        assert list(echo.given.table["session"]) == list(rows // 5)
        assert [str(key) for key in echo.given.noise_keys] == [str(NoiseKey.of(f"s{row}")) for row in rows]
        names.append(list(echo.given.stimuli))

    assert not set(names[0]) & set(names[1])
    assert set(names[0]) == set(names[2])
    assert names[0] != names[2]
