"""HCP: scans at rest in CIFTI, and what goes wrong with such files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from phosphene.data import import_dataset, open_dataset
from phosphene.data.hcp import FILE, SIZES
from phosphene.data.resting import resting_windows, window_means
from phosphene.errors import DataError
from phosphene.reporting.describe import check
from tests.data.surface_layout import below, column, cortex, members, write_parcels, write_scan

FRAMES, RUN = 43, "rfMRI_REST1_LR"


@dataclass
class Layout:
    """Where it is and what is true of it."""

    root: Path
    frames: dict[str, np.ndarray]
    space: object

    def file(self, subject: str) -> Path:
        return self.root / subject / "MNINonLinear" / "Results" / RUN / FILE

    def areas(self, subject: str, names=("V1", "V2", "V3", "V4")) -> list[np.ndarray]:
        """Standardised frames of each area, one vertex after another."""
        out = []
        for area in names:
            x = np.stack([self.frames[subject][:, column(self.space, s, v)] for s, v in members(area)], axis=1)
            x = x.astype(np.float32).astype(np.float64)
            out.append((x - x.mean(0)) / x.std(0))
        return out


def make_hcp(tmp_path) -> Layout:
    rng = np.random.default_rng(0)
    space = cortex("LH") + cortex("RH") + below()
    root = tmp_path / "hcp"
    layout = Layout(root, {s: rng.normal(1000, 50, (FRAMES, len(space))) for s in ("100307", "100408")}, space)
    for subject, frames in layout.frames.items():
        write_scan(layout.file(subject), frames, space)
    write_parcels(root / "Q1-Q6_HCP-MMP1.32k_fs_LR.dlabel.nii")
    return layout


@pytest.fixture
def hcp(tmp_path) -> Layout:
    return make_hcp(tmp_path)


def windows(frames: list[np.ndarray], per_window=10) -> np.ndarray:
    return np.stack([w.mean(0) for w in np.array_split(np.concatenate(frames, 1), FRAMES // per_window)])


def test_windows_are_means_of_standardised_frames_area_by_area(hcp):
    dataset = open_dataset("hcp", root=hcp.root)
    assert list(dataset) == ["100307", "100408"]
    for subject in dataset:
        trials = dataset.trials(subject)
        # float32 against float64
        np.testing.assert_allclose(trials.betas, windows(hcp.areas(subject)), atol=1e-5)
    assert trials.rois == ("V1", "V2", "V3", "V4")
    assert [int(trials.roi(a).sum()) for a in trials.rois] == [len(members(a)) for a in trials.rois]
    expected = [sv for a in trials.rois for sv in members(a)]
    assert list(zip(trials.voxels["hemisphere"], trials.voxels["vertex"], strict=True)) == expected
    assert set(trials.stimuli) == {"rest"} and dataset.stimuli.images is None
    assert "0.72 s" in trials.provenance["windows"]


def test_frames_may_stay_as_in_the_file_in_other_windows_and_areas(hcp):
    trials = open_dataset(
        "hcp:100408", root=hcp.root, options={"normalise": False, "frames": 7, "areas": ["V3"]}
    ).trials()
    raw = np.stack([hcp.frames["100408"][:, column(hcp.space, s, v)] for s, v in members("V3")], axis=1)
    expected = np.stack([w.mean(0) for w in np.array_split(raw, FRAMES // 7)])
    np.testing.assert_allclose(trials.betas, expected, rtol=1e-6)


def test_a_file_in_another_order_gives_the_same_responses(hcp):
    expected = open_dataset("hcp:100307", root=hcp.root).trials()
    betas = expected.betas
    rng = np.random.default_rng(5)
    shuffled = below() + cortex("RH", order=rng.permutation(38)) + cortex("LH", order=rng.permutation(38))
    frames = np.zeros((FRAMES, len(shuffled)))
    for side in ("LH", "RH"):
        for v in cortex(side).vertex:
            frames[:, column(shuffled, side, v)] = hcp.frames["100307"][:, column(hcp.space, side, v)]
    write_scan(hcp.file("100307"), frames, shuffled)
    found = open_dataset("hcp:100307", root=hcp.root).trials()
    np.testing.assert_array_equal(found.betas, betas)
    assert found.voxels.equals(expected.voxels)


def test_a_file_beside_the_persons_name_is_found_too(hcp):
    hcp.file("100307").rename(hcp.root / "100307" / FILE)
    assert list(open_dataset("hcp", root=hcp.root.parent)) == ["100307", "100408"]


def test_pretraining_streams_the_same_windows_of_all_people(hcp, tmp_path):
    # Imported here: the network's file loads torch, and readers are checked to open without it, in this file too.
    from phosphene.models import PatchMaeConfig

    lab = PatchMaeConfig(patch_size=8)
    rows = resting_windows(hcp.root, tmp_path / "cache", padded_length=lab.wrapped_length)
    assert rows.store.ids[[0, 4]].tolist() == ["100307/000", "100408/000"]
    n = rows.shape[1]
    expected = np.concatenate(
        [window_means(np.concatenate(hcp.areas(s), 1), 10, lab.patches_of(n) * 8) for s in hcp.frames]
    )
    np.testing.assert_allclose(rows[:], expected, atol=1e-4)  # float32 sums, scaled by a spread of about 1/3
    # another scan under the same name is another store
    write_scan(hcp.file("100307"), hcp.frames["100408"], hcp.space)
    other = resting_windows(hcp.root, tmp_path / "cache", padded_length=lab.wrapped_length)
    np.testing.assert_allclose(other[:4], rows[4:], atol=1e-6)
    assert not np.allclose(other[:4], rows[:4], atol=0.1)


def test_a_copy_opens_without_the_originals(hcp, tmp_path):
    expected = open_dataset("hcp:100307", root=hcp.root).trials().betas
    dataset = import_dataset("hcp:100307", tmp_path / "out", root=hcp.root)
    np.testing.assert_array_equal(dataset.trials().betas, expected)


def test_only_the_columns_asked_for_are_read_from_disk(hcp):
    """What lies outside the areas may be anything: NaN there does not matter."""
    frames = hcp.frames["100307"].copy()
    frames[:, [column(hcp.space, "LH", 4), -1]] = np.nan  # V5, and below the cortex
    write_scan(hcp.file("100307"), frames, hcp.space)
    assert np.isfinite(open_dataset("hcp:100307", root=hcp.root).trials().betas).all()
    frames[3, column(hcp.space, "RH", 0)] = np.nan
    write_scan(hcp.file("100307"), frames, hcp.space)
    with pytest.raises(DataError, match="1 grayordinates of V1 .* hold NaN"):
        _ = open_dataset("hcp:100307", root=hcp.root).trials().betas


def test_a_grayordinate_that_never_changes_becomes_zero(hcp):
    hcp.frames["100307"][:, column(hcp.space, "LH", 0)] = 7
    write_scan(hcp.file("100307"), hcp.frames["100307"], hcp.space)
    betas = open_dataset("hcp:100307", root=hcp.root).trials().betas
    assert not betas[:, 0].any() and betas[:, 1].any()


# -- wrong files -------------------------------------------------------------------------------------------------------


@pytest.mark.fault(52)
def test_another_surface_resolution_is_refused_with_both_counts(hcp):
    space = cortex("LH", 50) + cortex("RH", 50)
    write_scan(hcp.file("100307"), np.ones((FRAMES, len(space))), space)
    with pytest.raises(DataError, match=r"surface of 50 vertices \(LH\).*on one of 40.*32k_fs_LR"):
        open_dataset("hcp:100307", root=hcp.root).trials()
    said = [str(f) for f in check("hcp", root=hcp.root) if f.level == "problem"]
    assert any("surface of 50 vertices" in s for s in said)


@pytest.mark.fault(53)
def test_a_missing_hemisphere_is_named(hcp):
    write_scan(hcp.file("100307"), np.ones((FRAMES, 38)), cortex("LH"))
    with pytest.raises(DataError, match="has no cortex of RH.*both hemispheres"):
        open_dataset("hcp:100307", root=hcp.root).trials()


@pytest.mark.fault(35)
def test_a_truncated_scan_is_refused_when_opened(hcp):
    data = hcp.file("100307").read_bytes()
    hcp.file("100307").write_bytes(data[:-100])
    with pytest.raises(DataError, match="truncated: its header promises"):
        open_dataset("hcp:100307", root=hcp.root).trials()


@pytest.mark.fault(42)
def test_an_unknown_area_suggests_the_nearest(hcp):
    with pytest.raises(DataError, match=r"no parcel 'V6'\. Known: V1, V2"):
        open_dataset("hcp:100307", root=hcp.root, options={"areas": ["V6"]}).trials()


def test_a_missing_or_second_parcellation_is_asked_for(hcp):
    first = next(hcp.root.glob("*.dlabel.nii"))
    write_parcels(hcp.root / "other.dlabel.nii")
    with pytest.raises(DataError, match=r"it holds Q1.*other\.dlabel\.nii.*parcels=FILE"):
        open_dataset("hcp", root=hcp.root)
    assert open_dataset("hcp:100307", root=hcp.root, options={"parcels": first.name}).trials().n_voxels
    for path in hcp.root.glob("*.dlabel.nii"):
        path.unlink()
    with pytest.raises(DataError, match="it holds none"):
        open_dataset("hcp", root=hcp.root)


def test_other_kinds_of_files_are_told_apart(hcp):
    parcels = next(hcp.root.glob("*.dlabel.nii"))
    scan = hcp.file("100307")
    scan.write_bytes(parcels.read_bytes())
    with pytest.raises(DataError, match="LabelAxis by BrainModelAxis; a dense time series"):
        open_dataset("hcp:100307", root=hcp.root).trials()
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)), scan)
    with pytest.raises(DataError, match="no CIFTI-2 file"):
        open_dataset("hcp:100307", root=hcp.root).trials()
    scan.write_text("<html>log in</html>")
    with pytest.raises(DataError, match="a CIFTI file is expected"):
        open_dataset("hcp:100307", root=hcp.root).trials()
    write_scan(parcels, np.ones((2, 76)), cortex("LH") + cortex("RH"))
    with pytest.raises(DataError, match="holds no labels but SeriesAxis"):
        open_dataset("hcp", root=hcp.root)


def test_another_run_or_person_is_named_with_what_is_there(hcp):
    with pytest.raises(DataError, match=f"no person .* has rfMRI_REST2.*{FILE}"):
        open_dataset("hcp", root=hcp.root, options={"file": "rfMRI_REST2_LR_Atlas.dtseries.nii"})
    with pytest.raises(DataError, match="of '100309'. Did you mean '100307'"):
        open_dataset("hcp:100309", root=hcp.root)
    with pytest.raises(DataError, match="fewer than the 99 of one window"):
        open_dataset("hcp:100307", root=hcp.root, options={"frames": 99}).trials()


def test_a_folder_without_scans_says_what_was_looked_for(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"MNINonLinear.* holds other"):
        open_dataset("hcp", root=tmp_path)


def test_published_sizes_add_up_to_the_published_total():
    assert sum(SIZES.values()) == 4183  # the padded length of the published networks is 4192
