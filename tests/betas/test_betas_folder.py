"""From a folder of runs to a folder of betas: stopped and taken up again, bounded memory, several workers."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from phosphene.betas import BetaOptions, betas_from_folder, split_half
from phosphene.betas.work import WorkFolder, open_work
from phosphene.cli.betas import gigabytes
from phosphene.data import read_dataset
from phosphene.errors import ConfigError, PhospheneWarning
from phosphene.lab import hrf_shapes, make
from phosphene.lab.bold import Scanner
from phosphene.lab.bold_files import write_bids
from phosphene.reporting.betas_page import betas_report
from tests.cli.test_cli import called

SMALL = BetaOptions(memory_gb=1e-3)  # 64 voxels at a time


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of 150 voxels, in files with its pictures."""
    root = tmp_path_factory.mktemp("study") / "bids"
    lab = make("nsd", n_train=40, n_test=20, n_voxels=150, trials_per_run=50)
    write_bids(lab, root, scanner=Scanner(noise_sd=0.3, physiology_sd=0.2, motion_sd=0.2, blank_share=0.3))
    return root


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    """Betas made without a stop."""
    out = tmp_path_factory.mktemp("whole") / "betas"
    betas_from_folder(study, "01", out, SMALL)
    return out


def contents(folder) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".npy", ".csv")
    }


class Killed(BaseException):
    """As SIGKILL would: nothing of ours catches it."""


@pytest.mark.parametrize("after", ["reading", "responses", "noise pool", "noise components", "betas"])
def test_work_that_was_stopped_goes_on_and_ends_with_the_same_bytes(study, whole, tmp_path, after):
    def kill(what, share):
        if what == after:
            raise Killed

    out = tmp_path / "betas"
    with pytest.raises(Killed):
        betas_from_folder(study, "01", out, SMALL, kill)
    assert not out.exists()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "betas.work").glob("*.np[yz]")}
    assert kept
    seen = []
    betas_from_folder(study, "01", out, SMALL, lambda what, share: seen.extend(
        p for p, t in kept.items() if p.exists() and p.stat().st_mtime_ns != t
    ))  # fmt: skip
    assert not seen  # what was finished was not made again
    assert contents(out) == contents(whole)
    assert not (tmp_path / "betas.work").exists()


def test_several_workers_end_with_the_same_bytes(study, whole, tmp_path):
    betas_from_folder(study, "01", tmp_path / "betas", SMALL, workers=3)
    assert contents(tmp_path / "betas") == contents(whole)


def test_the_same_command_on_finished_betas_does_nothing_and_another_is_refused(study, whole):
    before = (whole / "dataset.json").stat().st_mtime_ns
    again = betas_from_folder(study, "01", whole, SMALL)
    assert again.result is None
    assert (whole / "dataset.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="--replace"):
        betas_from_folder(study, "01", whole, SMALL.model_copy(update={"kind": "b"}))


@pytest.mark.fault(98)
def test_work_begun_with_other_settings_is_begun_anew_and_said(tmp_path):
    with open_work(tmp_path / "w", "one") as work:
        work.save("part", {"x": np.ones(3)})
    with open_work(tmp_path / "w", "one") as work:
        assert work.load("part")["x"].sum() == 3
    with pytest.warns(PhospheneWarning, match="begun anew"), open_work(tmp_path / "w", "two") as work:
        assert work.load("part") is None


@pytest.mark.fault(99)
def test_a_damaged_part_is_made_again(tmp_path):
    work = WorkFolder(tmp_path)
    work.save("part", {"x": np.ones(3)})
    path = tmp_path / "part.npz"
    path.write_bytes(path.read_bytes()[:40])
    assert work.load("part") is None
    assert not path.exists()


def test_a_folder_that_holds_other_things_is_not_worked_in(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"mine.txt"), open_work(tmp_path, "k"):
        pass
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.fault(90)
def test_two_processes_do_not_work_on_the_same_betas(tmp_path):
    with (
        open_work(tmp_path / "w", "k"),
        pytest.raises(ConfigError, match="being written"),
        open_work(tmp_path / "w", "k"),
    ):
        pass


# -- late onsets, from files to files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    root = tmp_path_factory.mktemp("late") / "bids"
    lab = make("nsd", n_train=20, n_test=20, n_voxels=80, trials_per_run=40)
    write_bids(lab, root, scanner=Scanner(gap_s=3.0, blank_share=0.3), onset_shift_s=5.0)
    return root


def test_late_onsets_are_warned_of_and_moved_only_on_request(late, tmp_path):
    options = BetaOptions(kind="b")
    with pytest.warns(PhospheneWarning, match=r"moved by -\d.* they explain .* too late"):
        filed = betas_from_folder(late, "01", tmp_path / "filed", options)
    with pytest.warns(PhospheneWarning, match=r"were moved by -\d.* as asked"):
        mended = betas_from_folder(late, "01", tmp_path / "mended", options, shift="auto")
    by_hand = betas_from_folder(late, "01", tmp_path / "hand", options.model_copy(update={"onset_shift_s": -5.0}))
    truth = pd.read_csv(late.with_name("bids-truth") / "trials.tsv", sep="\t")["onset_s"].to_numpy()
    np.testing.assert_allclose(filed.trials.table["onset_s"], truth + 5, atol=1e-4)
    np.testing.assert_allclose(by_hand.trials.table["onset_s"], truth, atol=1e-4)
    assert np.abs(mended.trials.table["onset_s"] - truth).max() < 1.6
    assert filed.trials.provenance["design_check"][0][0] == "problem"
    assert mended.trials.provenance["design_check"][0][0] == "note"
    with pytest.raises(ConfigError, match="not both"):
        betas_from_folder(late, "01", tmp_path / "x", BetaOptions(onset_shift_s=1.0), shift="auto")
    for name, words in (("filed", "Read this before using the betas"), ("mended", "The onsets were moved by −")):
        page = betas_report(tmp_path / name).read_text()
        assert words in page


# -- reliability -------------------------------------------------------------------------------------------------------


def test_split_halves_of_noise_are_as_reliable_as_chance_and_of_signal_more():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"stimulus": np.tile([f"s{i}" for i in range(25)], 4), "session": 1, "run": np.repeat([1, 2, 3, 4], 25)}
    )
    noise = rng.normal(size=(100, 400))
    found = split_half(noise, table, rng)
    assert found.share == pytest.approx(0.05, abs=0.035)  # 3 binomial standard errors
    assert abs(found.r.mean()) < 0.05
    signal = noise + np.tile(rng.normal(size=(25, 400)), (4, 1))
    r = split_half(signal, table, rng).r
    assert r.mean() == pytest.approx(1 / (1 + 1 / 2), abs=0.03)  # variance 1 of signal, 1/2 of noise left in each half
    shifted = split_half(signal + np.repeat(rng.normal(size=(4, 400)), 25, axis=0) * 10, table, rng)
    np.testing.assert_allclose(shifted.r, r, atol=1e-9)  # what is common to a run plays no part
    in_blocks = split_half(signal, table, np.random.default_rng(1), blocks=lambda: [slice(0, 150), slice(150, 400)])
    np.testing.assert_allclose(in_blocks.r, r, atol=1e-12)


def test_too_few_repeats_give_no_reliability():
    table = pd.DataFrame({"stimulus": list("abcdea"), "run": 1})
    assert split_half(np.zeros((6, 2)), table, np.random.default_rng(0)) is None


# -- the command and its page ------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """Three responses of another family in a file, every half second, late ones first."""
    shares = np.full((3, len(hrf_shapes.SHARES)), 0.5)
    shares[:, 0] = [0.9, 0.5, 0.1]
    path = tmp_path / "responses.npy"
    np.save(path, hrf_shapes.responses(np.arange(0, 40, 0.5), hrf_shapes.parameters(shares), 0.1).T)
    return path


def test_responses_of_a_table_are_chosen_from_and_the_page_says_how_they_are_numbered(study, table, tmp_path, capsys):
    out = tmp_path / "betas"
    command = ("betas", study, "--subject", "01", "--out", out, "--type", "B", "--hrf", table, "--hrf-step", 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pages may warn of glyphs
        status, _, errors = called(capsys, *command)
    assert status == 0, errors
    trials = read_dataset(out).trials("sub-01")
    assert set(trials.voxels["hrf"]) == {0, 1, 2}
    assert trials.provenance["hrf_library"] == "responses.npy"
    assert np.diff(trials.provenance["hrf_peaks_s"]).max() < 0
    page = (out / "report.html").read_text()
    assert "a column of the table" in page
    assert "0 earliest" not in page


def test_another_table_at_the_same_path_is_not_taken_for_the_same(study, table, tmp_path):
    options = BetaOptions(kind="b", hrf_table=str(table), hrf_step_s=0.5)
    betas_from_folder(study, "01", tmp_path / "betas", options)
    assert betas_from_folder(study, "01", tmp_path / "betas", options).result is None  # nothing to do
    np.save(table, np.load(table)[:, ::-1])
    with pytest.raises(ConfigError, match="--replace"):
        betas_from_folder(study, "01", tmp_path / "betas", options)


def test_a_table_that_cannot_be_used_stops_the_command_before_anything_is_read(study, tmp_path, capsys):
    np.save(tmp_path / "wide.npy", np.ones((20, 501)))
    command = ("betas", study, "--subject", "01", "--out", tmp_path / "betas", "--hrf", tmp_path / "wide.npy")
    status, _, errors = called(capsys, *command)
    assert status != 0
    assert "Is it transposed?" in errors
    assert not list(tmp_path.glob("betas*"))
    status, _, errors = called(capsys, *command[:-2], "--hrf-step", 0.5)
    assert status != 0
    assert "no table" in errors


@pytest.mark.slow
def test_betas_of_a_bids_folder_decode_with_the_linear_recipe(study, tmp_path, capsys):
    out, run = tmp_path / "betas", tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pages may warn of glyphs
        command = ("betas", study, "--subject", "01", "--out", out, "--memory", "300MB", "--workers", 2)
        status, said, errors = called(capsys, *command)
    assert status == 0, errors
    assert f"report: {out / 'report.html'}" in said
    assert called(capsys, "data", "check", out)[0] == 0
    dataset = read_dataset(out)
    assert dataset.stimuli.images is not None
    assert dataset.trials("sub-01").rois
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "The onsets agree with the data." in page
    assert page.count("<figure") >= 8
    for command in (
        ("fit", "linear", "--data", out, "--split", "kfold:5", "--out", run),
        ("decode", run),
        ("evaluate", run),
    ):
        status, _, errors = called(capsys, *command, "--quiet")
        assert status == 0, errors
    table = pd.read_csv(run / "scores.csv")
    brain = table[(table["input"] == "brain") & (table["metric"] == "two_way.pixels")].iloc[0]
    shuffled = table[(table["input"] == "shuffled") & (table["metric"] == "two_way.pixels")].iloc[0]
    assert brain["chance"] == 0.5
    assert brain["ci_low"] > 0.5
    assert brain["value"] > shuffled["value"]


def test_names_from_files_cannot_write_into_the_page(whole, tmp_path):
    index = json.loads((whole / "dataset.json").read_text())
    index["subjects"]["sub-01"]["provenance"]["source"] = "<script>alert(1)</script>"
    import shutil

    copy = shutil.copytree(whole, tmp_path / "copy")
    (copy / "dataset.json").write_text(json.dumps(index))
    assert "<script" not in betas_report(copy).read_text()


def test_options_of_the_command_are_checked(study, tmp_path, capsys):
    where = ("betas", study, "--subject", "01", "--out", tmp_path / "o")
    for option, value, words in (
        ("--type", "E", "no kind of betas"), ("--shift", "soon", "auto, none, or seconds"), ("--memory", "much", "such as 2GB"),
        ("--set", "max_component=5", "max_components"),
    ):  # fmt: skip
        status, _, errors = called(capsys, *where, option, value)
        assert status == 3, errors
        assert words in errors
    assert gigabytes("500 MB") == 0.5
