"""After a fit, every verb makes sure that it works on what was fitted."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from phosphene import flow
from phosphene.errors import ModelError, PhospheneWarning, SplitError
from phosphene.io import looks
from phosphene.io.ledger import read as read_ledger
from tests.flow.conftest import write_pair_file
from tests.flow.test_flow import config, run_all

VERBS = {
    "decode": flow.decode,
    "encode": flow.encode,
    "evaluate": flow.evaluate,
    "analyse": lambda opened: flow.analyse(opened, "reliability"),
}


def rewrite(file, change):
    arrays = dict(np.load(file))
    change(arrays)
    np.savez(file, **arrays)


def easier_test_rows(arrays):
    arrays["fmriTest"] = arrays["fmriTest"] + np.float64(0.1) * arrays["fmriTest"].mean(axis=0)


def one_test_value(arrays):
    arrays["fmriTest"][3, 7] += 1e-3


def one_training_value(arrays):
    arrays["fmriTrn"][3, 7] += 1e-3


def another_picture(arrays):
    arrays["stimTest"][0] = arrays["stimTrn"][0]


def swapped_labels(arrays):
    arrays["labelTest"] = arrays["labelTest"][::-1]


def fewer_test_rows(arrays):
    for key in ("fmriTest", "stimTest", "labelTest"):
        arrays[key] = arrays[key][:8]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of every verb, its data and its split beside it, to be copied and changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_pair_file(folder / "pairs.npz")
    opened = flow.fit(config(folder / "pairs.npz"), folder / "probe")
    ids = sorted(opened.trials.stimulus_ids)
    split = {"train": ids[:50], "test": ids[50:]}
    (folder / "split.json").write_text(json.dumps(split))
    run_all(folder / "pairs.npz", folder / "run", split=str(folder / "split.json"))
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    """The same in a folder of its own; the configuration of the run leads there."""
    target = tmp_path / "copy"
    shutil.copytree(finished, target)
    file = target / "run" / "config.yaml"
    values = yaml.safe_load(file.read_text())
    values["data"]["name"] = str(target / "pairs.npz")
    values["split"] = str(target / "split.json")
    file.write_text(yaml.safe_dump(values))
    return target


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_and_its_data_may_move_together(copy, verb):
    VERBS[verb](flow.open_run(copy / "run"))


@pytest.mark.parametrize(
    ("verb", "change"),
    [
        *((verb, easier_test_rows) for verb in VERBS),
        ("evaluate", one_test_value),
        ("decode", one_training_value),
        ("encode", another_picture),
        ("evaluate", swapped_labels),
        ("evaluate", fewer_test_rows),
    ],
)
def test_data_that_changed_after_the_fit_are_refused(copy, verb, change):
    rewrite(copy / "pairs.npz", change)
    scores = (copy / "run" / "scores.csv").read_bytes()
    with pytest.raises((ModelError, SplitError), match=r"the data changed since|are not among") as caught:
        VERBS[verb](flow.open_run(copy / "run"))
    assert "pairs.npz" in str(caught.value) or "split" in str(caught.value)
    assert (copy / "run" / "scores.csv").read_bytes() == scores


@pytest.mark.parametrize(
    ("verb", "kind"),
    [("decode", "fewer items"), ("evaluate", "fewer items"), ("evaluate", "sides swapped"), ("analyse", "one moved")],
)
def test_a_split_that_changed_after_the_fit_is_refused(copy, verb, kind):
    file = copy / "split.json"
    sides = json.loads(file.read_text())
    if kind == "fewer items":
        sides["test"] = sides["test"][:8]
    elif kind == "sides swapped":
        sides = {"train": sides["test"], "test": sides["train"]}
    else:
        sides["test"].append(sides["train"].pop())
    file.write_text(json.dumps(sides))
    with pytest.raises(ModelError, match=r"the split changed since .*split.json: \d+ ids left their side"):
        VERBS[verb](flow.open_run(copy / "run"))


@pytest.mark.parametrize(
    ("verb", "key", "value"),
    [
        ("decode", "recipe.alphas", [5.0]),
        ("evaluate", "seed", 3),
        ("encode", "data.nan", "impute"),
        ("analyse", "recipe.pixels.n_components", 3),
    ],
)
def test_a_configuration_that_was_edited_after_the_fit_is_refused_by_name(copy, verb, key, value):
    file = copy / "run" / "config.yaml"
    values = yaml.safe_load(file.read_text())
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[last] = value
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ModelError, match=rf"its configuration changed since \({key}: .* when fitted, .* now"):
        VERBS[verb](flow.open_run(copy / "run"))


def test_a_recipe_whose_own_file_was_edited_is_refused(copy):
    file = copy / "run" / "recipe.json"
    record = json.loads(file.read_text())
    record["config"]["alphas"] = [7.0]
    file.write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"recipe.json changed since"):
        flow.decode(flow.open_run(copy / "run"))


@pytest.mark.parametrize("source", ["brain", "shuffled", "seen"])
def test_decoded_pictures_that_were_exchanged_are_not_scored(copy, source):
    folder = copy / "run" / "decoded" / "test"
    seen = np.load(folder / "seen" / "pixels.npy")
    np.save(folder / source / "pixels.npy", seen[::-1])
    with pytest.raises(ModelError, match=r"pixels.npy in .* changed after it was written.*phosphene decode"):
        flow.evaluate(flow.open_run(copy / "run"))


def test_predicted_responses_that_were_exchanged_are_not_scored(copy):
    folder = copy / "run" / "encoded" / "test"
    shutil.copy(folder / "measured.npy", folder / "predicted.npy")
    with pytest.raises(ModelError, match=r"predicted.npy in .*phosphene encode"):
        flow.evaluate(flow.open_run(copy / "run"))


def test_scores_that_were_edited_are_named_on_the_page(copy):
    from phosphene.reporting import report

    file = copy / "run" / "scores.csv"
    file.write_text(file.read_text().replace("0.", "0.9", 3))
    page = report(str(copy / "run")).read_text()
    assert "scores.csv was changed after" in page


def test_a_stage_whose_meaning_changed_is_refused_with_the_way_out(copy, monkeypatch):
    file = copy / "run" / "recipe.json"
    record = json.loads(file.read_text())
    stage = next(iter(record["versions"]))
    name = next(iter(record["versions"][stage]))
    record["versions"][stage][name] += 1
    file.write_text(json.dumps(record))
    with pytest.raises(ModelError, match=rf"stage '{stage}' of .* was fitted by version 2 of {name}.*another folder"):
        flow.decode(flow.open_run(copy / "run"))


def test_a_run_without_digests_says_that_nobody_can_tell(copy):
    file = copy / "run" / "manifest.json"
    record = {key: value for key, value in json.loads(file.read_text()).items() if not key.endswith("_digest")}
    file.write_text(json.dumps(record))
    with pytest.warns(PhospheneWarning, match="keeps no digests"):
        flow.evaluate(flow.open_run(copy / "run"))


# -- looks -------------------------------------------------------------------------------------------------------------


def look_value(run):
    row = run.table("validity.csv").set_index("id").loc["L6"]
    return row["verdict"], row["value"]


def test_an_evaluation_that_is_done_again_is_one_look(copy):
    opened = flow.open_run(copy / "run")
    for _ in range(3):
        flow.evaluate(opened)
    assert len(read_ledger(opened.folder.path).looks) == 1
    assert look_value(opened.folder) == ("pass", 0)


def test_an_evaluation_stopped_after_its_look_resumes_it(copy, monkeypatch):
    opened = flow.open_run(copy / "run")
    (copy / "run" / "ledger.jsonl").unlink()
    monkeypatch.setattr("phosphene.flow.evaluation._write_details", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        flow.evaluate(opened)
    monkeypatch.undo()
    flow.evaluate(opened)
    assert len(read_ledger(opened.folder.path).looks) == 1
    assert look_value(opened.folder) == ("pass", 0)


@pytest.mark.parametrize(
    "how",
    [
        "another region",
        "a deleted ledger",
        pytest.param("one trial fewer", marks=pytest.mark.slow),
        pytest.param("another folder", marks=pytest.mark.slow),
    ],
)
def test_the_same_test_pictures_are_remembered_whatever_became_of_the_run(tmp_path, how):
    file = write_pair_file(tmp_path / "pairs.npz")
    run_all(file, tmp_path / "first")
    again = tmp_path / "elsewhere" / "second"
    if how == "a deleted ledger":
        shutil.rmtree(tmp_path / "first")
    elif how == "one trial fewer":
        rewrite(file, lambda a: a.update({key: a[key][:59] for key in ("fmriTrn", "stimTrn", "labelTrn")}))
    elif how == "another region":
        rewrite(file, lambda a: a.update(fmriTrn=a["fmriTrn"][:, :40], fmriTest=a["fmriTest"][:, :40]))
    else:
        (tmp_path / "moved").mkdir()
        file = file.rename(tmp_path / "moved" / "data.npz")
    run = run_all(file, again, **{"recipe.pixels.n_components": 5})
    assert look_value(run) == ("flag", 1)


def test_other_pictures_are_another_test_set(tmp_path):
    run_all(write_pair_file(tmp_path / "one.npz"), tmp_path / "first")
    run = run_all(write_pair_file(tmp_path / "two.npz", seed=1), tmp_path / "x" / "second")
    assert look_value(run) == ("pass", 0)


def test_a_memory_that_cannot_be_written_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(looks.STATE_VARIABLE, str(tmp_path / "file" / "below"))
    run = run_all(write_pair_file(tmp_path / "one.npz"), tmp_path / "first")
    assert look_value(run) == ("pass", 0)


def test_half_of_the_pictures_are_the_same_test_set_and_a_tenth_is_not():
    digests = [f"{n:012x}" for n in np.random.default_rng(0).permutation(2**40 - 1 - np.arange(400))]
    whole = looks.sketch_of(digests[:300])
    assert looks.is_same_set(whole, looks.sketch_of(digests[:240]))
    assert not looks.is_same_set(whole, looks.sketch_of(digests[270:400]))


# -- ids are texts -----------------------------------------------------------------------------------------------------


_NAMES = ["nan", "007", "=1+1"]
_MORE_NAMES = ["NA", "null", "None", "10e1", "1518878.000010", "-1", "inf", "True"]


@pytest.mark.parametrize("name", [*_NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in _MORE_NAMES)])
def test_a_stimulus_may_be_called_anything(tmp_path, name):
    from phosphene.data import open_dataset, write_dataset
    from phosphene.types import Dataset, Stimuli, Trials

    rng = np.random.default_rng(0)
    ids = np.array([name, *(f"picture-{n}" for n in range(39))], dtype=object)
    pictures = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    betas = pictures.reshape(40, -1).astype(np.float32) @ rng.standard_normal((64, 30)).astype(np.float32)
    trials = Trials(betas, pd.DataFrame({"stimulus": ids}), subject="sub-01")
    category = np.array(["nan", "face"] * 20, dtype=object)
    write_dataset(Dataset("named", Stimuli(ids, pictures, category=category), {"sub-01": trials}), tmp_path / "named")

    assert name in open_dataset(str(tmp_path / "named")).stimuli.ids
    split = {"test": [name, *(f"picture-{n}" for n in range(11))]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    run = run_all(tmp_path / "named", tmp_path / "run", split=str(tmp_path / "split.json"))
    for table in (("decoded", "test", "brain", "index.csv"), ("encoded", "test", "index.csv")):
        assert name in set(run.table(*table)["stimulus"]), table
    assert name in set(run.table("evaluation", "test", "per_item.csv")["stimulus"])
    assert set(run.table("decoded", "test", "brain", "index.csv")["category"]) == {"nan", "face"}
    assert name in set(run.table("splits.csv")["id"])
