"""A run, a sweep or a data set from a stranger: no link in it makes phosphene write, delete or read outside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from phosphene import flow
from phosphene.analysis import analysis
from phosphene.data.registry import open_dataset
from phosphene.errors import DataError, ModelError
from phosphene.io import atomic
from phosphene.io.inside import held_inside, must_stay_inside
from phosphene.io.run_folder import RunFolder
from phosphene.reporting.html import report

VERBS: dict[str, Callable[[Path], object]] = {
    "decode": lambda run: flow.decode(flow.open_run(run)),
    "encode": lambda run: flow.encode(flow.open_run(run)),
    "evaluate": lambda run: flow.evaluate(flow.open_run(run)),
    "analyse": lambda run: flow.analyse(flow.open_run(run), analysis("noise")),
    "report": report,
    "lock": lambda run: RunFolder(run).locked("test").__enter__(),
}

LINKS = {
    "evaluation": "victim",
    "evaluation/test": "victim",
    "decoded/test": "victim",
    "decoded/test/brain": "victim",
    "encoded": "victim",
    "analysis": "victim",
    "figures": "victim",
    "training": "victim",
    "stages": "victim",
    "log.jsonl": "victim/precious.txt",
    "ledger.jsonl": "victim/precious.txt",
    ".lock": "victim/precious.txt",
    "scores.csv": "victim/precious.txt",
    "decoded": "nowhere",
    "report.html": "nowhere",
}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    (folder / "test" / "brain").mkdir(parents=True)
    (folder / "precious.txt").write_text("precious\n")
    (folder / "test" / "brain" / "index.csv").write_text("precious\n")
    (folder / f"{atomic.PARTIAL}theirs").write_text("precious\n")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}\n")
    (folder / "config.yaml").write_text("{}\n")
    return folder


def state(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def planted(run: Path, name: str, target: Path | str) -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).symlink_to(target)


@pytest.mark.parametrize("is_relative", [False, True])
@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_goes_through_a_link(
    tmp_path: Path, victim: Path, run: Path, verb: str, name: str, is_relative: bool
) -> None:
    before = state(victim)
    target: Path | str = tmp_path / LINKS[name]
    if is_relative:
        target = os.path.relpath(target, (run / name).parent)

    planted(run, name, target)
    with pytest.raises(ModelError, match="is a link to") as caught:
        VERBS[verb](run)

    assert name in str(caught.value)
    assert state(victim) == before
    assert not (tmp_path / "nowhere").exists()


def test_a_chain_and_a_circle_are_refused(tmp_path: Path, victim: Path, run: Path) -> None:
    planted(run, "a", "b")
    planted(run, "b", victim)
    with pytest.raises(ModelError, match="is a link to"):
        RunFolder.existing(run)

    (run / "b").unlink()
    planted(run, "b", "a")
    with pytest.raises(ModelError, match="is a link to"):
        RunFolder.existing(run)


def test_links_that_appear_while_the_run_is_held(tmp_path: Path, victim: Path, run: Path) -> None:
    before = state(victim)
    folder = RunFolder(run)
    with folder.locked("test"):
        planted(run, "evaluation", victim)
        with pytest.raises(ModelError, match="evaluation"), atomic.folder(folder.evaluation("test")):
            pass

        with pytest.raises(ModelError, match="evaluation"):
            atomic.write_text(run / "evaluation" / "precious.txt", "mine")

        # Swapped between the first write and the renaming.
        with pytest.raises(ModelError, match="decoded"), atomic.folder(run / "decoded" / "test") as place:
            (place / "x").write_text("mine")
            shutil.move(run / "decoded", run / "moved")
            planted(run, "decoded", victim)

        planted(run, "log.jsonl", victim / "precious.txt")
        with pytest.raises(ModelError, match="log"):
            folder.log("written")

    folder.log("written")  # outside the lock it is dropped, as when the disk is full
    assert state(victim) == before


def test_a_log_under_two_names_is_not_written_to(tmp_path: Path, victim: Path, run: Path) -> None:
    os.link(victim / "precious.txt", run / "log.jsonl")
    os.link(victim / "precious.txt", run / "other.lock")
    RunFolder(run).log("written")
    assert (victim / "precious.txt").read_text() == "precious\n"

    os.link(victim / "precious.txt", run / ".lock")
    with pytest.raises(ModelError, match="second name"), RunFolder(run).locked("test"):
        pass

    assert (victim / "precious.txt").read_text() == "precious\n"


def test_a_pipe_in_place_of_the_log_holds_nothing_up(run: Path) -> None:
    os.mkfifo(run / "log.jsonl")
    RunFolder(run).log("written")


def test_the_run_itself_may_be_a_link_and_so_may_one_that_stays(tmp_path: Path, run: Path) -> None:
    (run / "elsewhere").mkdir()
    planted(run, "figures", "elsewhere")
    mine = tmp_path / "mine"
    mine.symlink_to(run)

    with RunFolder(mine).locked("test"):
        atomic.write_text(mine / "figures" / "a.txt", "a")

    assert (run / "elsewhere" / "a.txt").read_text() == "a"


def test_a_run_that_is_held_by_a_link_is_held_by_its_own_name_too(tmp_path: Path, victim: Path, run: Path) -> None:
    mine = tmp_path / "mine"
    mine.symlink_to(run)
    before = state(victim)
    with RunFolder(mine).locked("test"):
        planted(run, "evaluation", victim)
        for place in (mine, run):
            with pytest.raises(ModelError, match="evaluation"):
                atomic.write_text(place / "evaluation" / "precious.txt", "mine")

    assert state(victim) == before


def test_outside_of_a_held_folder_links_are_the_user_s_own(tmp_path: Path, victim: Path, run: Path) -> None:
    planted(tmp_path, "link", victim)
    with held_inside(run):
        must_stay_inside(tmp_path / "link" / "x")
        must_stay_inside(run / ".." / "link" / "x")


def test_sweeping_removes_links_and_not_what_they_lead_to(tmp_path: Path, victim: Path, run: Path) -> None:
    before = state(victim)
    planted(run, f"{atomic.PARTIAL}a", victim)
    atomic.sweep(run)

    assert not (run / f"{atomic.PARTIAL}a").is_symlink()
    assert state(victim) == before


# -- data folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    from phosphene.data.importing import import_table

    (tmp_path / "pictures").mkdir()
    for n in range(3):
        Image.new("L", (8, 8), n * 80).save(tmp_path / "pictures" / f"p{n}.png")

    (tmp_path / "betas.csv").write_text("1,2\n3,4\n5,7\n")
    (tmp_path / "trials.csv").write_text("stimulus\np0\np1\np2\n")
    import_table(
        betas=tmp_path / "betas.csv",
        trials=tmp_path / "trials.csv",
        images=tmp_path / "pictures",
        out=tmp_path / "data",
    )
    return tmp_path / "data"


def test_a_data_folder_is_read_through_a_link_on_request_only(tmp_path: Path, data: Path) -> None:
    file = data / "images.npy"
    shutil.move(file, tmp_path / "elsewhere.npy")
    file.symlink_to(tmp_path / "elsewhere.npy")

    with pytest.raises(DataError, match=r"'images\.npy'.*follow_links=true"):
        open_dataset(data)

    assert len(open_dataset(data, options={"follow_links": True}).stimuli) == 3


def test_links_within_a_data_folder_are_followed(data: Path) -> None:
    (data / ".git" / "annex").mkdir(parents=True)
    shutil.move(data / "images.npy", data / ".git" / "annex" / "1")
    (data / "images.npy").symlink_to(".git/annex/1")
    (data / "absent").symlink_to(".git/annex/2")

    assert len(open_dataset(data).stimuli) == 3


def test_pictures_behind_links_are_imported_on_request_only(tmp_path: Path, data: Path) -> None:
    from phosphene.data.importing import import_table

    shutil.move(tmp_path / "pictures" / "p1.png", tmp_path / "secret.png")
    (tmp_path / "pictures" / "p1.png").symlink_to("../secret.png")
    files = {"betas": tmp_path / "betas.csv", "trials": tmp_path / "trials.csv", "images": tmp_path / "pictures"}

    with pytest.raises(DataError, match=r"'p1\.png'"):
        import_table(**files, out=tmp_path / "out")

    assert not (tmp_path / "out").exists()
    import_table(**files, out=tmp_path / "out", follow_links=True)


def test_an_import_into_a_link_of_one_s_own_fills_what_it_leads_to(tmp_path: Path, data: Path) -> None:
    from phosphene.data.importing import import_dataset

    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    import_dataset(data, tmp_path / "link")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "dataset.json").is_file()
    assert not list(tmp_path.glob(f"{atomic.PARTIAL}*"))


def test_betas_of_a_study_with_a_link_outside(tmp_path: Path, victim: Path) -> None:
    from phosphene.betas import betas_from_folder

    (tmp_path / "study" / "sub-01").mkdir(parents=True)
    (tmp_path / "study" / "sub-01" / "func").symlink_to(victim)
    with pytest.raises(DataError, match="follow-links"):
        betas_from_folder(tmp_path / "study", "01", tmp_path / "out")


def test_a_sweep_from_a_stranger(tmp_path: Path, victim: Path) -> None:
    from phosphene.sweeps.execution import prepare

    (tmp_path / "grid.yaml").write_text(
        "recipe: linear\nbase:\n  data: {name: lab, options: {size: small}}\ngrid:\n  - seed: [1, 2]\n"
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "runs").symlink_to(victim)
    before = state(victim)
    with pytest.raises(ModelError, match="'runs'"):
        prepare(tmp_path / "grid.yaml", tmp_path / "out")

    assert state(victim) == before
