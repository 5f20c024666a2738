"""A study of raw BOLD as a data set, by both layouts."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phosphene.betas import BetaOptions, betas_from_folder
from phosphene.data import import_dataset, open_dataset
from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.lab import make
from phosphene.lab.bold import Scanner
from phosphene.lab.bold_files import write_bids, write_openfmri
from phosphene.reporting.describe import check

QUICK = {"kind": "lss"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    study = make("nsd", n_train=12, n_test=8, n_voxels=60, trials_per_run=16, runs_per_session=2)
    root = tmp_path_factory.mktemp("written")
    for name, write in (("bids", write_bids), ("old", write_openfmri)):
        write(study, root / name, scanner=Scanner(extra_volumes=5), dtype="float32")
    return root


@pytest.fixture(params=["bids", "old"])
def study(request, written, tmp_path):
    shutil.copytree(written / request.param, tmp_path / request.param)
    return tmp_path / request.param


def events(study):
    return sorted(study.rglob("*events.tsv"))


def paint(study) -> dict[str, np.ndarray]:
    """Other pictures, in a subfolder, for every stimulus that the events name."""
    shutil.rmtree(study / "stimuli")
    rng = np.random.default_rng(1)
    shown = sorted({s for path in events(study) for s in pd.read_csv(path, sep="\t")["stimulus"]})
    (study / "stimuli" / "set1").mkdir(parents=True)
    out = {s: rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for s in shown}
    for name, picture in out.items():
        Image.fromarray(picture).save(study / "stimuli" / "set1" / f"{name}.png")
    return out


def test_pictures_that_the_lab_wrote_come_with_the_betas(study, tmp_path):
    dataset = open_dataset("openfmri", root=study, options=QUICK)
    (subject,) = dataset
    made = betas_from_folder(study, subject, tmp_path / "betas", BetaOptions(kind="lss"))
    for stimuli in (dataset.stimuli, open_dataset(tmp_path / "betas").stimuli):
        assert len(stimuli.available()) == len(made.trials.stimulus_ids)
        name = stimuli.ids[3]
        painted = np.asarray(Image.open(study / "stimuli" / f"{name}.png"))
        np.testing.assert_array_equal(stimuli.select([name]).pixels()[0], painted)


def test_without_a_folder_of_pictures_there_are_none(study):
    shutil.rmtree(study / "stimuli")
    assert open_dataset("openfmri", root=study, options=QUICK).stimuli.images is None


def test_betas_are_those_of_the_betas_command(study, tmp_path):
    dataset = open_dataset("openfmri", root=study, options=QUICK)
    (subject,) = dataset
    expected = betas_from_folder(study, subject, tmp_path / "betas", BetaOptions(kind="lss")).trials
    np.testing.assert_allclose(dataset.trials().betas, expected.betas, atol=1e-5)  # float32 on disk
    assert list(dataset.trials().stimuli) == list(expected.stimuli)


def test_pictures_named_by_the_events_are_matched_and_holes_left(study):
    pictures = paint(study)
    gone = sorted(pictures)[3]
    (study / "stimuli" / "set1" / f"{gone}.png").unlink()
    with pytest.warns(PhospheneWarning, match=f"1 of {len(pictures)} pictures are missing .* '{gone}'"):
        dataset = open_dataset("openfmri", root=study, options=QUICK)
    assert list(dataset.stimuli.ids[~dataset.stimuli.present]) == [gone]
    there = dataset.stimuli.available()
    for name, pixels in zip(there.ids, there.pixels(), strict=True):
        np.testing.assert_array_equal(pixels, pictures[name])


def test_betas_once_made_are_found_again_until_a_file_or_an_option_changes(study, tmp_path):
    options = {**QUICK, "store": str(tmp_path / "kept")}
    first = open_dataset("openfmri", root=study, options=options).trials().betas
    (place,) = (tmp_path / "kept").iterdir()
    before = (place / "dataset.json").stat().st_mtime_ns
    again = open_dataset("openfmri", root=study, options=options)
    np.testing.assert_array_equal(again.trials().betas, first)
    assert (place / "dataset.json").stat().st_mtime_ns == before
    open_dataset("openfmri", root=study, options={**options, "polynomial_degree": 1})
    assert len(list((tmp_path / "kept").iterdir())) == 2
    path = events(study)[0]
    path.write_text(path.read_text() + "\n")
    open_dataset("openfmri", root=study, options=options)
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_a_copy_holds_the_betas(study, tmp_path):
    (subject,) = open_dataset("openfmri", root=study, options=QUICK)
    dataset = import_dataset(f"openfmri:{subject.lstrip('sub-')}", tmp_path / "out", root=study, options=QUICK)
    assert list(dataset) == [subject]
    assert len(dataset.trials()) == sum(len(pd.read_csv(p, sep="\t")) for p in events(study))


def test_check_reads_every_run_and_its_onsets(study):
    said = [str(f) for f in check("openfmri", root=study, options=QUICK)]
    assert any("runs" in s and "events" in s for s in said)
    events(study)[0].unlink()
    for path in study.rglob("onsets/*/cond*.txt"):
        path.unlink()
    assert any(f.level == "problem" for f in check("openfmri", root=study, options=QUICK))


@pytest.mark.fault(47)
def test_an_event_after_the_end_of_its_run_is_named(study):
    path = events(study)[0]
    table = pd.read_csv(path, sep="\t")
    table.loc[len(table) - 1, "onset"] = 99999.0
    table.to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError, match="starts at 99999 s, but the run"):
        open_dataset("openfmri", root=study, options=QUICK)


def test_unknown_people_options_and_folders_are_named(study, tmp_path):
    with pytest.raises(DataError, match="no subject 'sub-99'"):
        open_dataset("openfmri:sub-99", root=study)
    with pytest.raises(ConfigError, match="fractoins"):
        open_dataset("openfmri", root=study, options={"fractoins": [1.0]})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is no study"):
        open_dataset("openfmri", root=tmp_path / "empty")
