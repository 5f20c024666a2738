"""What a person is shown of a data set."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phosphene.data import write_dataset
from phosphene.reporting import describe
from phosphene.reporting.contact_sheet import contact_sheet
from phosphene.types import Dataset, Split, Stimuli, Trials


@pytest.fixture
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    stimuli = Stimuli(
        np.array(["a", "b", "c"], dtype=object),
        rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8),
        captions=(("a caption that goes on for some time",), (), ("c",)),
        category=np.array(["x"] * 3, dtype=object),
        present=np.array([True, True, False]),
    )
    table = pd.DataFrame({"stimulus": ["a", "b", "a", "c"]})
    voxels = pd.DataFrame({"roi.V1": [1, 1, 0, 0, 0], "roi.V2": [0, 1, 1, 0, 0]}).astype(bool)
    betas = rng.normal(size=(4, 5)).astype("f4")
    return Dataset("set", stimuli, {"s": Trials(betas, table, voxels, "s")}, {"own": Split("own", ("a",), ("b",))})


def rows(sections, title):
    return next(s.rows for s in sections if s.title == title)


def test_info_counts_what_is_there(dataset):
    info = describe.info(dataset)
    assert rows(info, "stimuli")[:2] == (("number", "3"), ("pictures", "8 x 8 RGB, 1 missing"))
    assert rows(info, "subjects")[0][:6] == ("s", "4", "3", "1 to 2", "1", "5")
    assert rows(info, "ROIs") == (("s", "V1", "2", "1"), ("s", "V2", "2", "1"))
    assert rows(info, "splits")[0][:6] == ("own", "stimulus", "1", "1", "2 + 1", "unknown")


def test_rendered_tables_have_aligned_columns(dataset):
    text = describe.render(describe.info(dataset))
    header, line = next(
        (a, b) for a, b in zip(text.splitlines(), text.splitlines()[1:], strict=False) if "subject  trials" in a
    )
    assert line[header.index("trials")] == "4"
    assert max(map(len, text.splitlines())) <= 130


@pytest.mark.fault(33)
@pytest.mark.fault(27)
@pytest.mark.fault(32)
def test_check_notes_a_single_category_missing_pictures_and_missing_captions(dataset, tmp_path):
    findings = describe.check(write_dataset(dataset, tmp_path / "set"))
    assert {f.what for f in findings if f.level == "note"} >= {"single category", "missing pictures", "captions"}
    text = describe.render_findings(findings)
    assert text.splitlines()[-1].startswith("0 problems, ")


def test_check_of_a_place_that_is_not_there_is_a_finding(tmp_path):
    (finding,) = describe.check(tmp_path / "none.mat")
    assert finding.level == "problem"
    assert "none.mat" in finding.detail


def test_the_list_says_where_each_dataset_was_found(shared_data, tmp_path):
    found = {r["name"]: r for r in describe.list_rows(shared_data)}
    assert found["digits69"]["found"].endswith("digit69_28x28.mat")
    absent = {r["name"]: r for r in describe.list_rows(tmp_path)}
    assert absent["digits69"]["found"] == ""
    assert "digit69_28x28.mat" in absent["digits69"]["problem"]
    assert "digits69" in describe.render(describe.listing(tmp_path))


def test_the_contact_sheet_shows_every_picture_where_it_stands(dataset, tmp_path):
    path = contact_sheet(dataset, tmp_path / "sheet.png", side=16, columns=2)
    sheet = np.asarray(Image.open(path))
    for i, (row, column) in enumerate([(0, 0), (0, 1)]):
        assert row == 0
        part = sheet[10:26, 10 + 26 * column : 26 + 26 * column]
        assert np.array_equal(part[::2, ::2], dataset.stimuli.pixels(slice(i, i + 1))[0])
