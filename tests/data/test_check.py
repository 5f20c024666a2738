"""What `data check` finds without reading everything, and what only --thorough finds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from phosphene.cli.data import app
from phosphene.data import preview as glance
from phosphene.data import write_dataset
from phosphene.data.nsd import NSD
from phosphene.data.plan_check import check_fetched, check_plan
from phosphene.data.registry import open_dataset
from phosphene.errors import DataError
from phosphene.reporting import describe
from phosphene.types import Dataset, Split, Stimuli, Trials
from tests.data.liar import plan as plan_of
from tests.data.nsd_layout import N_PER_SESSION, make

_FIRST = glance._FIRST


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return make(tmp_path_factory.mktemp("check") / "nsd")


def levels(findings, what):
    return [f.level for f in findings if f.what == what]


@pytest.mark.parametrize("kind", ["hdf5", "nii.gz"])
def test_a_glance_at_session_files_is_the_first_trials_of_each(tmp_path, monkeypatch, kind):
    nsd = make(tmp_path / "nsd", sessions=(1, 2, 3))
    if kind == "nii.gz":
        for k in (1, 2, 3):
            nsd.write_session(k, "nii.gz").with_suffix("").with_suffix(".hdf5").unlink()
    trials = NSD().load(nsd.root, NSD.options()).trials()
    assert glance.preview(trials) == (trials, "")  # small: nothing is left out
    monkeypatch.setattr(glance, "BYTES", 0)
    part, words = glance.preview(trials)
    rows = np.concatenate([np.arange(_FIRST) + k * N_PER_SESSION for k in range(3)])
    np.testing.assert_array_equal(part.betas, trials.betas[rows])
    assert list(part.table["trial"]) == list(trials.table["trial"].iloc[rows])
    assert words == f"{len(rows)} of {len(trials)} trials were read, the first {_FIRST} of 3 sessions"


def test_a_glance_at_a_large_matrix_takes_rows_evenly_and_bounded(monkeypatch):
    betas = np.arange(4000, dtype="f4").reshape(400, 10)
    trials = Trials(betas, pd.DataFrame({"stimulus": [f"s{i}" for i in range(400)]}))
    monkeypatch.setattr(glance, "BYTES", 4 * 4 * 10 * 8)  # a quarter of it holds 8 rows
    part, words = glance.preview(trials)
    assert words == "8 of 400 trials were read, evenly taken"
    np.testing.assert_array_equal(part.betas, betas[np.linspace(0, 399, 8).round().astype(int)])


def test_by_default_large_raw_betas_are_sampled_and_thorough_reads_them_all(tmp_path, monkeypatch):
    nsd = make(tmp_path / "nsd", sessions=(1, 2))
    bad = nsd.betas[2].astype("f4") / 300
    bad[N_PER_SESSION - 1] = np.nan  # one trial behind the first ones
    for k in (1, 2):
        nsd.write_session(k, betas=bad if k == 2 else nsd.betas[1].astype("f4") / 300)
    monkeypatch.setattr(glance, "BYTES", 0)
    quick, whole = (describe.check("nsd", root=nsd.root, thorough=t) for t in (False, True))
    assert levels(quick, "trials without values") == []
    assert any("8 of 24 trials were read" in f.detail for f in quick if f.what == "betas read")
    assert levels(whole, "trials without values") == ["problem"]
    assert levels(whole, "betas read") == []


def test_many_pictures_are_compared_only_thoroughly(tmp_path, monkeypatch):
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    stimuli = Stimuli(np.array(["a", "b", "c"], dtype=object), pixels)
    table = pd.DataFrame({"stimulus": ["a", "b", "c"]})
    trials = Trials(np.random.default_rng(0).normal(size=(3, 4)).astype("f4"), table, subject="s")
    dataset = Dataset("set", stimuli, {"s": trials}, {"own": Split("own", ("a", "c"), ("b",))})
    folder = write_dataset(dataset, tmp_path / "set")
    assert "problem" in levels(describe.check(folder), "split own")
    monkeypatch.setattr(describe, "_PICTURE_BYTES", 0)
    quick = describe.check(folder)
    assert levels(quick, "split own") == ["ok"]
    assert levels(quick, "same picture") == ["note"]
    assert "problem" in levels(describe.check(folder, thorough=True), "split own")


def test_counts_stand_beside_the_published_ones_with_roi_sizes(layout, shared_data):
    (section,) = describe.counts(open_dataset("digits69", root=shared_data))
    assert [(row[1], row[2], row[3], row[4]) for row in section.rows] == [
        ("trials", "100", "100", "yes"),
        ("voxels", "3092", "3092", "yes"),
        ("pictures", "100", "100", "yes"),
    ]
    dataset = open_dataset("nsd", root=layout.root)
    (section,) = describe.counts(dataset)
    told = {row[1]: row[2:5] for row in section.rows}
    assert told["voxels"] == (str((layout.mask == 1).sum()), "15724", "no")
    assert told["ROI PPA"] == (str(dataset.trials().roi("PPA").sum()), "not published", "")


def test_counts_say_nothing_of_data_nobody_published(tmp_path):
    trials = Trials(np.ones((2, 2), "f4"), pd.DataFrame({"stimulus": ["a", "b"]}), subject="s")
    assert describe.counts(Dataset("mine", Stimuli(np.array(["a", "b"], dtype=object)), {"s": trials}, {})) == []


def test_missing_files_are_named_only_for_what_was_begun(layout):
    found = check_fetched("nsd", layout.root)
    notes = {f.detail for f in found if f.what == "files not there"}
    assert any("part 'betas', first" in d and "betas_session01.nii.gz" in d for d in notes)
    assert not any("subj02" in d or "captions" in d for d in notes)
    assert check_fetched("my own", layout.root) == []


@pytest.mark.fault(105)
def test_weights_of_another_checksum_or_size_are_problems(tmp_path):
    from phosphene.data import plan

    (tmp_path / "vicreg-resnet50.pth").write_bytes(b"short")
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"not it")
    made = plan.make("weights", root=tmp_path, parts=["vicreg", "scores"])
    found = {f.what: f for f in check_plan(made) if f.level == "problem"}
    assert "94345885 are published" in found["file size"].detail
    assert "published is 7be5be79" in found["checksum"].detail
    done = CliRunner().invoke(app, ["check", "weights", "--root", str(tmp_path)])
    assert done.exit_code == 4
    assert "alexnet-owt-7be5be79.pth" in done.stdout


def test_large_files_are_hashed_only_thoroughly(tmp_path, monkeypatch):
    from phosphene.data import plan, plan_check

    path = tmp_path / "file.bin"
    path.write_bytes(b"content")
    made = plan_of(tmp_path, plan.Item("data", path, "https://a.org/x", "open", sha256="0" * 64))
    monkeypatch.setattr(plan_check, "_SMALL", 3)
    assert [f.level for f in check_plan(made)] == ["note"]
    assert [f.level for f in check_plan(made, thorough=True)] == ["problem"]


def test_the_command_prints_findings_and_counts(shared_data):
    done = CliRunner().invoke(app, ["check", "digits69", "--root", str(shared_data)])
    assert done.exit_code == 0
    assert "0 problems" in done.stdout
    assert "published" in done.stdout.split("counts\n")[-1]


@pytest.mark.fault(102)
def test_a_record_of_downloads_that_cannot_be_read_is_as_good_as_none(tmp_path):
    from phosphene.data.fetch import LEDGER, ledger

    for text in ("{", "[1]", "\xff"):
        (tmp_path / LEDGER).write_text(text, encoding="latin-1")
        assert ledger(tmp_path) == {}


@pytest.mark.parametrize("name", ["bold5000", "miyawaki", "nsd", "god", "mosaic", "hcp", "openfmri", "digits69"])
def test_an_empty_folder_is_a_finding_for_every_reader_and_never_a_raw_error(name, tmp_path):
    from phosphene.data.registry import reader

    one = reader(name)
    try:
        found = one.check(tmp_path, one.options())
    except DataError:
        return  # a sentence as well
    assert any(f.level == "problem" for f in found)
