"""BOLD5000: a folder of the layout of release 2, and what goes wrong with such folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phosphene.data import open_dataset
from phosphene.data.bold5000 import SIZES, STRICT_VOXELS, VOXELS
from phosphene.errors import DataError, PhospheneWarning
from phosphene.reporting.describe import check

BETAS = "BOLD5000_GLMsingle_ROI_betas/py"
STIMULI = "BOLD5000_Stimuli"
# Voxels of each file; CSI2 has the release's own names, CSI1 the regular ones.
FILES = {
    "CSI1": {"LHEarlyVis": 3, "RHEarlyVis": 2, "LHLOC": 4, "RHLOC": 2, "LHOPA": 1, "RHOPA": 2, "LHPPA": 2, "RHPPA": 3,
             "LHRSC": 1, "RHRSC": 2},
    "CSI2": {"LHEarlyVis": 2, "RHEarlyVis": 3, "LHLO": 5, "RHLO": 4, "LHOPA": 2, "RHOPA": 1, "LHPPA": 1, "RHPPA": 1,
             "LHRSC": 2, "RHRRSC": 1},
}  # fmt: skip


@dataclass
class Layout:
    """Where it is and what is true of it."""

    root: Path
    shown: dict[str, list[tuple[int, int, str]]]  # subject to (session, run, name as in the list)
    betas: dict[str, dict[str, np.ndarray]]
    repeated: list[str]

    def file(self, subject: str, roi: str) -> Path:
        return self.root / BETAS / f"{subject}_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{roi}.npy"

    @property
    def list_file(self) -> Path:
        return self.root / STIMULI / "Scene_Stimuli/repeated_stimuli_113_list.txt"

    def session(self, subject: str, number: int) -> Path:
        return self.root / STIMULI / "Stimuli_Presentation_Lists" / subject / f"{subject}_sess{number:02d}"


def write_lists(layout: Layout) -> None:
    for subject, rows in layout.shown.items():
        for session, run, name in rows:
            folder = layout.session(subject, session)
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / f"CSI_sess{session:02d}_run{run:02d}.txt", "a") as file:
                file.write(f"{name}\n")


def make_bold(tmp_path) -> Layout:
    rng = np.random.default_rng(3)
    root = tmp_path / "BOLD5000"
    repeated = ["COCO_train2014_000000000036.jpg", "n01440764_7716.JPEG", "airport1.jpg"]
    once = [f"COCO_train2014_{i:012d}.jpg" for i in range(100, 108)] + [f"n01443537_{i}.JPEG" for i in range(6)]
    once += [f"castle{i}.jpg" for i in range(8)]
    shown, betas = {}, {}
    for subject in ("CSI1", "CSI2"):
        # CSI2 stops early, so that the third repeated picture never comes.
        names = [*once, *repeated, *repeated] if subject == "CSI1" else [*once[:10], *repeated[:2], repeated[0]]
        rows, seen = [], set()
        for t, at in enumerate(rng.permutation(len(names))):
            name = names[at]
            rows.append((t // 8 + 1, t % 8 // 4 + 1, f"rep_{name}" if name in seen else name))
            seen.add(name)
        shown[subject] = rows
        betas[subject] = {r: rng.normal(size=(len(rows), n)) for r, n in FILES[subject].items()}
    layout = Layout(root, shown, betas, repeated)
    (root / BETAS).mkdir(parents=True)
    for subject, parts in betas.items():
        for roi, values in parts.items():
            np.save(layout.file(subject, roi), values)
    write_lists(layout)
    pictures = root / STIMULI / "Scene_Stimuli/Presented_Stimuli"
    for name in [*once, *repeated]:
        place = "COCO" if name.startswith("COCO") else "ImageNet" if name.startswith("n0") else "Scene"
        (pictures / place).mkdir(parents=True, exist_ok=True)
        grey = sum(name.encode()) % 256
        Image.new("RGB", (12, 12), (grey, grey, grey)).save(pictures / place / name)
    layout.list_file.write_text("\n".join(repeated) + "\n")
    return layout


@pytest.fixture
def bold(tmp_path) -> Layout:
    return make_bold(tmp_path)


def opened(bold: Layout, subject="CSI1", **options):
    return open_dataset(f"bold5000:{subject}", root=bold.root, options=options)


def names(bold: Layout, subject: str) -> list[str]:
    return [n.removeprefix("rep_") for _, _, n in bold.shown[subject]]


# -- what is read ------------------------------------------------------------------------------------------------------


def test_rows_follow_the_lists_and_columns_the_rois_left_before_right(bold):
    trials = opened(bold).trials()
    assert list(trials.stimuli) == names(bold, "CSI1")
    order = [s + r for r in ("EarlyVis", "LOC", "OPA", "PPA", "RSC") for s in ("LH", "RH")]
    expected = np.concatenate([bold.betas["CSI1"][r] for r in order], axis=1)
    np.testing.assert_array_equal(trials.betas, expected.astype(np.float32))
    assert trials.rois == ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
    assert list(trials.table["session"]) == [s for s, _, _ in bold.shown["CSI1"]]
    assert list(trials.table["run"]) == [r for _, r, _ in bold.shown["CSI1"]]
    np.testing.assert_array_equal(trials.read(np.array([7, 1])), trials.betas[[7, 1]])
    left = (trials.voxels["hemisphere"] == "LH").to_numpy()
    np.testing.assert_array_equal(
        trials.betas[:, trials.roi("LOC") & left], bold.betas["CSI1"]["LHLOC"].astype(np.float32)
    )


def test_the_names_that_lose_loc_are_aliases_and_strict_names_lose_it(bold):
    ours, theirs = opened(bold, "CSI2").trials(), opened(bold, "CSI2", strict_names=True).trials()
    assert int(ours.roi("LOC").sum()) == 9
    assert theirs.rois == ("EarlyVis", "OPA", "PPA", "RSC")
    assert ours.n_voxels - theirs.n_voxels == 9
    # RHRRSC contains RSC, so the published loaders keep it
    assert int(theirs.roi("RSC").sum()) == int(ours.roi("RSC").sum()) == 3
    np.testing.assert_array_equal(ours.betas[:, ~ours.roi("LOC")], theirs.betas)


def test_published_sizes_add_up_to_the_published_totals():
    for subject, sizes in SIZES.items():
        assert sum(sizes.values()) == STRICT_VOXELS[subject]
    assert VOXELS["CSI2"] - STRICT_VOXELS["CSI2"] == 1141
    assert VOXELS["CSI3"] - STRICT_VOXELS["CSI3"] == 1638


def test_the_split_tests_the_repeated_pictures_that_were_shown(bold):
    dataset = opened(bold)
    train, test = dataset.split("bold5000-113").apply(dataset.trials())
    assert set(test.stimulus_ids) == set(bold.repeated)
    assert len(test) == 2 * len(bold.repeated)
    assert not set(train.stimulus_ids) & set(bold.repeated)
    few = opened(bold, "CSI2").split()
    assert set(few.test) == set(bold.repeated[:2])
    assert "2 of 3" in few.note


def test_pictures_are_matched_by_name(bold):
    stimuli = opened(bold).stimuli
    assert stimuli.image_shape == (12, 12, 3)
    grey = {i: sum(i.encode()) % 256 for i in stimuli.ids}
    for i, picture in zip(stimuli.ids, stimuli.pixels(), strict=True):
        assert abs(int(picture.mean()) - grey[i]) <= 2  # JPEG
    assert set(stimuli.category) == {"COCO", "ImageNet", "Scene"}


@pytest.mark.fault(27)
def test_missing_pictures_leave_holes(bold):
    gone = bold.root / STIMULI / "Scene_Stimuli/Presented_Stimuli/Scene/castle3.jpg"
    gone.unlink()
    with pytest.warns(PhospheneWarning, match=r"1 of 25 pictures are missing .*'castle3\.jpg'"):
        stimuli = opened(bold).stimuli
    assert [i for i, there in zip(stimuli.ids, stimuli.present, strict=True) if not there] == ["castle3.jpg"]
    with pytest.raises(DataError, match="castle3"):
        stimuli.select(["castle3.jpg"]).pixels()
    there = stimuli.available()  # the others keep their own pictures
    grey = [sum(i.encode()) % 256 for i in there.ids]
    np.testing.assert_allclose(there.pixels().mean(axis=(1, 2, 3)), grey, atol=2)  # JPEG


def test_several_people_share_one_set_of_stimuli(bold):
    dataset = open_dataset("bold5000", root=bold.root.parent)
    assert list(dataset) == ["CSI1", "CSI2"]
    assert set(dataset.stimuli.ids) == set(names(bold, "CSI1")) | set(names(bold, "CSI2"))


# -- wrong folders -----------------------------------------------------------------------------------------------------


@pytest.mark.fault(7)
def test_a_row_too_many_is_named_with_the_counts_by_session(bold):
    path = bold.file("CSI1", "LHOPA")
    np.save(path, np.load(path)[:-1])
    with pytest.raises(
        DataError, match=r"LHOPA\.npy has 27 rows .* have 28 trials.*by session: 1: 8, 2: 8, 3: 8, 4: 4"
    ):
        opened(bold)


@pytest.mark.fault(21)
def test_a_transposed_file_is_recognised(bold):
    path = bold.file("CSI1", "LHLOC")
    np.save(path, np.load(path).T)
    with pytest.raises(DataError, match="It is transposed"):
        opened(bold)


def test_a_missing_session_folder_is_named(bold):
    import shutil

    shutil.rmtree(bold.session("CSI1", 2))
    with pytest.raises(DataError, match=r"session 2 of CSI1 is missing .*sessions=\[\.\.\.\]"):
        opened(bold)


def test_lists_of_sessions_that_were_never_measured_can_be_left_out(bold):
    extra = bold.session("CSI2", 3)
    extra.mkdir()
    (extra / "CSI_sess03_run01.txt").write_text("castle0.jpg\ncastle1.jpg\n")
    with pytest.raises(DataError, match="13 rows .* have 15 trials.*say sessions="):
        opened(bold, "CSI2")
    assert len(opened(bold, "CSI2", sessions=2).trials()) == 13


@pytest.mark.fault(53)
def test_a_missing_hemisphere_is_named(bold):
    bold.file("CSI2", "RHLO").unlink()
    with pytest.raises(DataError, match="LHLO.npy but no RHLOC"):
        opened(bold, "CSI2")


@pytest.mark.fault(42)
def test_an_unknown_or_missing_roi_suggests_the_nearest(bold):
    with pytest.raises(DataError, match="no files of the ROI EarlyVi .*Did you mean 'EarlyVis'"):
        opened(bold, rois=["EarlyVi"])
    for side in ("LH", "RH"):
        bold.file("CSI1", f"{side}PPA").unlink()
    with pytest.raises(DataError, match="no files of the ROI PPA"):
        opened(bold)
    assert "PPA" not in opened(bold, rois=["LOC", "EarlyVis"]).trials().rois


def test_both_names_of_one_roi_are_refused(bold):
    np.save(bold.file("CSI2", "LHLOC"), bold.betas["CSI2"]["LHLO"])
    with pytest.raises(DataError, match="are both the LH LOC of CSI2"):
        opened(bold, "CSI2")


@pytest.mark.fault(9)
def test_a_repeated_picture_listed_twice_is_refused(bold):
    bold.list_file.write_text("\n".join([*bold.repeated, bold.repeated[0]]))
    with pytest.raises(DataError, match="stands twice"):
        opened(bold)


@pytest.mark.fault(22)
def test_a_list_of_other_pictures_would_leave_the_test_set_empty(bold):
    bold.list_file.write_text("a.jpg\nb.jpg\n")
    with pytest.raises(DataError, match=r"none of the 2 pictures .* look like 'a\.jpg'"):
        opened(bold)


@pytest.mark.fault(66)
def test_pickled_betas_are_never_opened(bold):
    np.save(bold.file("CSI1", "LHLOC"), np.array([[1, None]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickled"):
        opened(bold)


@pytest.mark.fault(54)
def test_litter_is_no_session_and_no_run(bold):
    (bold.session("CSI1", 1).parent / ".DS_Store").write_bytes(b"x")
    (bold.session("CSI1", 1).parent / "CSI1_stimulus.csv").write_text("x")
    (bold.session("CSI1", 1) / "._CSI_sess01_run01.txt").write_bytes(b"\xff\xfe")
    (bold.session("CSI1", 1) / "CSI_sess01_run01.mat").write_bytes(b"x")
    assert list(opened(bold).trials().stimuli) == names(bold, "CSI1")


def test_a_folder_without_betas_or_lists_says_what_is_missing(bold, tmp_path):
    import shutil

    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="ROI betas"):
        open_dataset("bold5000", root=tmp_path / "x")
    bold.list_file.unlink()
    with pytest.raises(DataError, match="113_list.txt is not there"):
        opened(bold)
    shutil.rmtree(bold.root / STIMULI / "Stimuli_Presentation_Lists" / "CSI1")
    assert any(
        "nothing says what CSI1 saw" in str(f) or "113_list" in str(f) for f in check("bold5000", root=bold.root)
    )


def test_check_compares_with_the_published_counts(bold):
    said = [str(f) for f in check("bold5000", root=bold.root)]
    assert any(s.startswith("problem: CSI1 trials: 28 in 4 sessions; 5254 are published") for s in said)
    assert any(s.startswith("problem: CSI2 voxels: 22: EarlyVis 5, LOC 9") and "2270 are published" in s for s in said)
    assert any("1 of 3 repeated pictures were never shown" in s for s in said)
    assert any("names 3 pictures; 113 are published" in s for s in said)


def test_a_folder_of_the_published_size_passes_the_check(tmp_path):
    """CSI2 with the release's names: 5,254 trials, 113 repeated pictures, LOC where the published code loses it."""
    from phosphene.data.bold5000 import BOLD5000

    repeated = [f"scene{i}.jpg" for i in range(113)]
    shown = [f"COCO_{i}.jpg" for i in range(4803)] + repeated * 4
    shown = shown[:5254]  # the last is shown three times
    layout = Layout(tmp_path, {"CSI2": [(t // 351 + 1, 1, n) for t, n in enumerate(shown)]}, {}, repeated)
    (tmp_path / BETAS).mkdir(parents=True)
    (tmp_path / STIMULI / "Scene_Stimuli").mkdir(parents=True)
    layout.list_file.write_text("\n".join(repeated))
    for session in range(1, 16):
        layout.session("CSI2", session).mkdir(parents=True)
        names = [n for s, _, n in layout.shown["CSI2"] if s == session]
        (layout.session("CSI2", session) / "CSI_sess01_run01.txt").write_text("\n".join(names))
    sizes = {"LHEarlyVis": 254, "RHEarlyVis": 241, "LHLO": 600, "RHLO": 541, "LHOPA": 100, "RHOPA": 80, "LHPPA": 170,
             "RHPPA": 200, "LHRSC": 50, "RHRRSC": 34}  # fmt: skip
    for roi, n in sizes.items():
        np.save(layout.file("CSI2", roi), np.zeros((5254, n), np.float16))
    for strict, n in ((False, 2270), (True, 1129)):
        findings = BOLD5000().check(tmp_path, BOLD5000.options(strict_names=strict))
        assert not [str(f) for f in findings if f.level == "problem"]
        assert any(f.detail.startswith(f"{n}: EarlyVis 495") and "as published" in f.detail for f in findings)
        assert any(f.detail.startswith("5254 in 15 sessions; as published") for f in findings)
