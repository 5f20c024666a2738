"""What the checks are given by a run: evidence for every check of stimuli and leakage, the ledger, runs beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from phosphene import flow
from phosphene.errors import SplitError
from phosphene.flow.evidence import _holds_out_clusters
from phosphene.io import ledger
from phosphene.io.run_folder import RunFolder
from phosphene.recipes import RECIPES, recipe
from phosphene.recipes.corpora import GENERATORS, PICTURES

from .conftest import write_pair_file


def evaluated(file, out, controls=("shuffled",), **values):
    config = flow.configure("linear", [("test", {"data.name": str(file), "recipe.curve.kind": "none", **values})])[0]
    opened = flow.fit(config, out)
    flow.decode(opened, controls=controls)
    flow.evaluate(opened)
    return opened


def verdicts(run: RunFolder):
    return run.table("validity.csv").set_index("id")


def verdict_details(run: RunFolder, check):
    record = json.loads((run.path / "validity.json").read_text())
    return next(v["details"] for v in record["verdicts"] if v["id"] == check)


def test_a_run_answers_every_check_of_stimuli_and_leakage_and_keeps_a_ledger(pair_file, tmp_path):
    opened = evaluated(pair_file, tmp_path / "a")
    found = verdicts(opened.folder)
    ours = found[[i[0] in "SL" for i in found.index]]
    assert not (ours["verdict"] == "not tested").any()
    # No cluster split, one session, one person, no cycle: these cannot be asked, all others can.
    assert set(ours.index[ours["verdict"] == "not applicable"]) <= {"S4", "S5", "S6", "S7", "L8"}
    assert set(found.loc[["L1", "L2", "L3", "L5", "L6", "L7", "S1", "S8", "S9"], "verdict"]) == {"pass"}
    assert found.loc["L4", "verdict"] == "flag"  # nobody has said where the voxels of this file come from
    assert "--mask-from" in found.loc["L4", "reason"]
    nearest = opened.folder.table("evaluation", "test", "nearest.csv")
    assert len(nearest) == 12
    assert len(ledger.read(opened.folder.path).looks) == 1
    record = json.loads((opened.folder.path / "validity.json").read_text())["verdicts"]
    assert [v["id"] for v in record] == list(found.index)
    assert [v["verdict"] for v in record] == list(found["verdict"])
    assert verdict_details(opened.folder, "L1")["leaks"] == {}
    assert verdict_details(opened.folder, "S10") == {"n": 12, "n_classes": 2}
    flow.evaluate(opened)
    again = verdicts(opened.folder).loc["L6"]
    assert (again["verdict"], again["value"]) == ("pass", 0)  # what was shown before is no new look
    assert len(ledger.read(opened.folder.path).looks) == 1
    # A second configuration is judged by the same test set.
    other = evaluated(pair_file, tmp_path / "b", **{"recipe.pixels.n_components": 5})
    tuned = verdicts(other.folder).loc["L6"]
    assert (tuned["verdict"], tuned["value"]) == ("flag", 1)
    assert "1 by other configurations" in tuned["reason"]


def test_clusters_are_held_out_whole_and_the_drop_is_told(pair_file, tmp_path):
    evaluated(pair_file, tmp_path / "usual", split="kfold:2")
    opened = evaluated(pair_file, tmp_path / "clusters", split="cluster:2")
    tested = [set(s.test) for s in opened.folds]
    assert len(tested) == 2
    assert not tested[0] & tested[1]
    assert len(tested[0] | tested[1]) == 72
    row = verdicts(opened.folder).loc["S4"]
    assert row["verdict"] in ("pass", "flag")
    assert "with the usual split, a drop of" in row["reason"]
    details = verdict_details(opened.folder, "S4")
    assert details["held_out"] == "clusters of pictures"
    assert details["two_way_with_usual_split"] is not None
    assert opened.folder.manifest["split"]["held_out"] == "clusters"
    again = flow.open_run(opened.folder.path) if hasattr(flow, "open_run") else opened
    assert [s.digest for s in again.folds] == [s.digest for s in opened.folds]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"held_out": "clusters", "name": "anything"}, True),
        ({"held_out": "stimuli", "name": "cluster:3"}, False),  # a split may be called what it likes
        ({"name": "cluster:3"}, True),  # manifests of earlier versions have the argument alone
        ({"name": "kfold:3"}, False),
        ({}, False),
    ],
)
def test_what_a_split_holds_out_is_read_from_its_field(split, expected):
    assert _holds_out_clusters(split) is expected


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        ('{"facts": {"is_circular": true}}', "flag"),
        ('{"title": "of an earlier version"}', "flag"),
        ('{"facts": {}}', "fail"),
        ("damaged", "fail"),
    ],
)
def test_a_cycle_is_marked_by_the_record_of_its_analysis_and_not_by_a_sentence(pair_file, tmp_path, record, verdict):
    opened = evaluated(pair_file, tmp_path / "run")
    folder = opened.folder.path / "analysis" / "cycle"
    folder.mkdir(parents=True)
    (folder / "summary.txt").write_text("The cycle says nothing about the brain.\n")
    (folder / "analysis.json").write_text(record)
    flow.evaluate(opened)
    assert verdicts(opened.folder).loc["L8", "verdict"] == verdict


def test_more_clusters_than_pictures_are_refused(pair_file, tmp_path):
    config = flow.configure("linear", [("test", {"data.name": str(pair_file), "split": "cluster:40"})])[0]
    with pytest.raises(SplitError, match="between 2 and 36"):
        flow.fit(config, tmp_path / "run")


@pytest.mark.parametrize("others", [(), (3, 11)])  # one picture can have several copies
def test_changed_copies_of_a_training_picture_are_found_and_drawn(tmp_path, others):
    file = write_pair_file(tmp_path / "pairs.npz", size=16)
    arrays = dict(np.load(file))
    arrays["stimTest"][0] = np.clip(arrays["stimTrn"][7].astype(int) + 6, 0, 255)
    for shift, other in enumerate(others, start=1):
        arrays["stimTrn"][other] = np.clip(arrays["stimTrn"][7].astype(int) - 2 * shift, 0, 255)
    np.savez(file, **arrays)
    opened = evaluated(file, tmp_path / "run")
    found = verdicts(opened.folder).loc["S2"]
    assert (found["verdict"], found["value"]) == ("flag", 1)
    assert (opened.folder.evaluation("test") / "near_duplicates.png").is_file()


def test_every_recipe_names_generators_that_are_known():
    for name in RECIPES:
        cls = recipe(name)
        preset = cls.config_class.model_validate({"kind": name, **cls.preset("lab")})
        lab = cls(preset).generators()
        assert set(lab) <= {"lab"}
        for given in cls(cls.config_class()).generators():
            assert given in GENERATORS
    assert all(PICTURES.values())
