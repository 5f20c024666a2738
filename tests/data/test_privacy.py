"""What could tell who a person is is named before anything is shared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phosphene.data import write_dataset
from phosphene.data.privacy import check_privacy, telling_anatomy, telling_names
from phosphene.errors import PhospheneWarning
from phosphene.io.run_folder import RunFolder
from phosphene.reporting.contents import Contents
from phosphene.reporting.describe import check
from tests.data.test_dataset_folder import make_dataset


@pytest.mark.fault(120)
def test_codes_of_the_public_data_sets_are_no_names():
    codes = [
        "sub-01",
        "sub01",
        "subj05",
        "S1",
        "CSI2",
        "100307",
        "s",
        "P3",
        "insilico",
        "sbj_1",
        "Subject1",
        "kit-7",
        "ann",
    ]
    assert telling_names(codes) == []


@pytest.mark.fault(120)
@pytest.mark.parametrize(
    "name", ["Ada Lovelace", "ada.lovelace@lab.org", "al_1984-05-03", "Lovelace, Ada".replace(",", "")]
)
def test_a_name_a_date_or_an_address_is_more_than_a_code(name, tmp_path):
    dataset = make_dataset()
    dataset = replace(dataset, subjects={name: dataset.trials("bob")})
    found = check_privacy(dataset)
    assert any(f.what == "privacy" and repr(name) in f.detail for f in found)
    run = RunFolder(tmp_path)
    run.write_manifest(recipe="linear", data={"name": "own", "subject": name})
    with pytest.warns(PhospheneWarning, match="looks like more than a code"):
        assert Contents(run).identity["subject"] == name


@pytest.mark.fault(120)
def test_columns_that_identify_are_named_and_others_are_not(tmp_path):
    dataset = make_dataset()
    assert check_privacy(dataset) == []
    trials = dataset.trials("bob")
    dataset = replace(dataset, subjects={"s1": replace(trials, table=trials.table.assign(date_of_birth="1984-05-03"))})
    write_dataset(dataset, tmp_path / "set")
    (found,) = [f for f in check(tmp_path / "set") if f.what == "privacy"]
    assert "date_of_birth" in found.detail and found.level == "note"


@pytest.mark.fault(120)
def test_anatomy_with_a_face_is_named_until_something_says_it_was_defaced(tmp_path):
    anatomy = tmp_path / "sub-01" / "anat"
    anatomy.mkdir(parents=True)
    (anatomy / "sub-01_T1w.nii.gz").write_bytes(b"x")
    (anatomy / "sub-01_T1w.json").write_text("{}")
    assert [p.name for p in telling_anatomy(tmp_path)] == ["sub-01_T1w.nii.gz"]
    assert "deface" in check_privacy(make_dataset(), tmp_path)[-1].next_step.lower()
    (anatomy / "sub-01_defacemask.nii.gz").write_bytes(b"x")
    assert telling_anatomy(tmp_path) == []
