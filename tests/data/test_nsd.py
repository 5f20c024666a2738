"""NSD: a folder of the public layout, and what goes wrong with such folders."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import warnings

import h5py
import nibabel as nib
import numpy as np
import pytest

from phosphene.data import Standardiser, import_dataset, open_dataset, volumes
from phosphene.data.nsd import design_from_mat, find_scale, import_subject, read_design
from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.io.store import RowStore
from phosphene.reporting.describe import check
from tests.data.nsd_layout import AFFINE, GRID, N_PER_SESSION, N_SHARED, SIDE, Layout, make, save


@pytest.fixture
def nsd(tmp_path) -> Layout:
    return make(tmp_path / "nsd")


def opened(nsd: Layout, subject="subj01", **options):
    return open_dataset(f"nsd:{subject}", root=nsd.root, options=options)


def problems(nsd: Layout, **options) -> str:
    return " ".join(str(f) for f in check("nsd", root=nsd.root, options=options) if f.level == "problem")


def in_mask(nsd: Layout, session: int) -> np.ndarray:
    """Betas in the mask's voxels, one loop per axis, the last one fastest."""
    where = [
        (x, y, z) for x in range(GRID[0]) for y in range(GRID[1]) for z in range(GRID[2]) if nsd.mask[x, y, z] == 1
    ]
    return np.array([[nsd.betas[session][t][v] for v in where] for t in range(N_PER_SESSION)])


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.fault(41)
def test_betas_are_the_masked_voxels_in_c_order_divided_by_300(nsd):
    trials = opened(nsd).trials()
    expected = np.concatenate([in_mask(nsd, k) for k in (1, 2, 3)])
    assert trials.betas.shape == expected.shape
    # float32 holds a quotient to 6e-8 of its size
    np.testing.assert_allclose(trials.betas, expected / 300, rtol=2e-7)
    assert trials.betas.dtype == np.float32
    rows = np.array([30, 2, 2, 13])
    np.testing.assert_array_equal(trials.read(rows), trials.betas[rows])


@pytest.mark.parametrize("kind", ["nii.gz", "nii", "chunks along trials", "chunks along space"])
def test_every_kind_of_file_gives_the_same_betas(nsd, kind, monkeypatch):
    expected = opened(nsd).trials().betas
    monkeypatch.setattr(volumes, "_BLOCK_BYTES", 500)  # several blocks a session
    chunks = {"chunks along trials": (N_PER_SESSION, 1, 1, 2), "chunks along space": (1, 4, 6, 5)}.get(kind)
    for k in nsd.betas:
        (nsd.beta_folder() / f"betas_session{k:02d}.hdf5").unlink()
        nsd.write_session(k, *([] if chunks else [kind]), **({"chunks": chunks} if chunks else {}))
    np.testing.assert_array_equal(opened(nsd).trials().betas, expected)


def test_mind_readers_voxel_order_has_x_fastest(nsd):
    one, other = opened(nsd).trials(), opened(nsd, voxel_order="zyx").trials()
    expected = nsd.betas[1].transpose(0, 3, 2, 1)[:, nsd.mask.T == 1] / 300
    np.testing.assert_allclose(other.betas[:N_PER_SESSION], expected, rtol=2e-7)
    ijk = other.voxels[["i", "j", "k"]].to_numpy()
    lookup = {tuple(v): n for n, v in enumerate(one.voxels[["i", "j", "k"]].to_numpy())}
    np.testing.assert_array_equal(one.betas[:, [lookup[tuple(v)] for v in ijk]], other.betas)


def test_coordinates_are_millimetres_of_the_affine(nsd):
    voxels = opened(nsd).trials().voxels
    ijk = np.c_[voxels[["i", "j", "k"]], np.ones(len(voxels))]
    np.testing.assert_allclose(voxels[["x", "y", "z"]], (ijk @ AFFINE.T)[:, :3])


def test_a_session_is_read_only_when_one_of_its_trials_is(nsd):
    trials = opened(nsd).trials()
    (nsd.beta_folder() / "betas_session02.hdf5").write_bytes(b"gone")
    np.testing.assert_allclose(trials.select(session=1).betas, in_mask(nsd, 1) / 300, rtol=2e-7)
    with pytest.raises(DataError, match="betas_session02"):
        _ = trials.select(session=2).betas


def test_the_trial_table_follows_the_design_counted_from_one(nsd):
    table = opened(nsd).trials().table
    ids = nsd.nsd_ids()[: 3 * N_PER_SESSION]
    assert list(table["stimulus"]) == [f"nsd{i:05d}" for i in ids]
    assert list(table["session"]) == [1] * 12 + [2] * 12 + [3] * 12
    assert list(table["run"][:12]) == [1] * 5 + [2] * 3 + [3] * 4
    assert list(table["is_shared"]) == [i + 1 in nsd.images[0, :N_SHARED] for i in ids]
    assert list(table["repeat"]) == [list(ids[:t]).count(i) for t, i in enumerate(ids)]


def test_repeats_count_the_whole_experiment_even_when_sessions_are_left_out(nsd):
    whole, part = opened(nsd).trials().table, opened(nsd, sessions=[3]).trials().table
    assert list(part["repeat"]) == list(whole["repeat"][24:])
    assert list(part["trial"]) == list(range(24, 36))


def test_the_csv_gives_the_same_trials_as_the_matlab_file(nsd):
    from_mat = opened(nsd).trials().table
    nsd.write_stim_info()
    nsd.design.unlink()
    from_csv = opened(nsd).trials().table
    columns = ["stimulus", "session", "repeat", "is_shared", "trial"]
    assert from_csv[columns].equals(from_mat[columns])


def test_noise_ceilings_follow_from_ncsnr(nsd):
    voxels = opened(nsd).trials().voxels
    ratio = np.asarray(nib.load(nsd.beta_folder() / "ncsnr.nii.gz").dataobj)[nsd.mask == 1].astype(float)
    # variance of signal s^2 over noise 1: s^2 / (s^2 + 1 / n)
    np.testing.assert_allclose(voxels["noise_ceiling"], ratio**2 / (ratio**2 + 1), rtol=1e-6)
    np.testing.assert_allclose(voxels["noise_ceiling_3"], 3 * ratio**2 / (3 * ratio**2 + 1), rtol=1e-6)


def test_rois_are_the_labels_by_name_and_halves_of_v1_are_joined(nsd):
    trials = opened(nsd).trials()
    labels = np.asarray(nib.load(nsd.roi_folder() / "prf-visualrois.nii.gz").dataobj)[nsd.mask == 1]
    assert list(trials.roi("V2d")) == list(labels == 4)
    assert list(trials.roi("V1")) == list((labels == 1) | (labels == 2))
    places = np.asarray(nib.load(nsd.roi_folder() / "floc-places.nii.gz").dataobj)[nsd.mask == 1]
    assert list(trials.roi("PPA")) == list(places == 2)
    assert {"hV4", "OFA", "EBA", "RSC", "VWFA-1", "streams-ventral"} <= set(trials.rois)


def test_the_shared_pictures_of_the_first_37_sessions_are_the_test_set(tmp_path):
    nsd = make(tmp_path / "nsd", sessions=range(1, 41))
    dataset = opened(nsd)
    ids, shared = nsd.nsd_ids(), set(nsd.images[0, :N_SHARED] - 1)
    early = ids[: 37 * N_PER_SESSION]
    split = dataset.split()
    assert split.name == "nsd-982"
    assert set(split.test) == {f"nsd{i:05d}" for i in early if i in shared}
    assert set(split.train) == {f"nsd{i:05d}" for i in ids if i not in shared}
    assert set(dataset.split("nsd-1000").test) == {f"nsd{i:05d}" for i in shared}
    assert "nsd-1000" not in opened(nsd, sessions=37).splits


def test_the_chronological_split_tests_what_was_seen_last(nsd):
    split = opened(nsd).split("nsd-chronological")
    order = list(dict.fromkeys(f"nsd{i:05d}" for i in nsd.nsd_ids()[: 3 * N_PER_SESSION]))
    n = int(0.85 * len(order))
    assert (list(split.train), list(split.test)) == (order[:n], order[n:])


def test_two_people_share_the_test_pictures(tmp_path):
    nsd = make(tmp_path / "nsd", n_subjects=2)
    dataset = open_dataset("nsd", root=nsd.root)
    assert list(dataset) == ["subj01", "subj02"]
    train, test = zip(*(dataset.split().apply(dataset.trials(s)) for s in dataset), strict=True)
    assert set(test[0].stimulus_ids) == set(test[1].stimulus_ids)
    assert not set(train[0].stimulus_ids) & set(train[1].stimulus_ids)
    assert "nsd-chronological" not in dataset.splits


# -- stimuli -----------------------------------------------------------------------------------------------------------


def test_pictures_are_rows_of_the_brick_by_id_in_any_order(nsd):
    stimuli = opened(nsd).stimuli
    some = [stimuli.ids[5], stimuli.ids[0], stimuli.ids[3]]
    numbers = [int(i[3:]) for i in some]
    np.testing.assert_array_equal(stimuli.select(some).pixels(), nsd.brick[numbers])
    assert stimuli.image_shape == (SIDE, SIDE, 3)


def test_pictures_can_come_out_smaller(nsd):
    stimuli = opened(nsd, image_size=8).stimuli
    assert stimuli.pixels(slice(0, 3)).shape == (3, 8, 8, 3)


@pytest.mark.fault(26)
def test_a_brick_with_too_few_pictures_is_refused(nsd):
    with h5py.File(nsd.pictures, "w") as file:
        file["imgBrick"] = nsd.brick[:50]
    with pytest.raises(DataError, match="holds 50 pictures, but the design shows number"):
        opened(nsd)


@pytest.mark.fault(27)
def test_pictures_missing_from_disk_leave_holes_aligned_by_id(nsd, tmp_path):
    from PIL import Image

    ids = list(opened(nsd).stimuli.ids)
    nsd.pictures.unlink()
    folder = nsd.pictures.parent / "shared1000"
    folder.mkdir()
    kept = sorted(nsd.images[0, :N_SHARED])[::2]
    for rank, number in enumerate(kept, start=1):  # public names count from 1
        Image.fromarray(nsd.brick[number - 1]).save(folder / f"shared{rank:04d}_nsd{number:05d}.png")
    with pytest.warns(PhospheneWarning, match="are missing"):
        stimuli = opened(nsd).stimuli
    assert list(stimuli.ids) == ids
    assert [int(i[3:]) + 1 in kept for i in stimuli.ids] == list(stimuli.present)
    there = stimuli.available()
    np.testing.assert_array_equal(there.pixels(), nsd.brick[[int(i[3:]) for i in there.ids]])


@pytest.mark.fault(27)
def test_without_pictures_the_responses_still_open(nsd):
    nsd.pictures.unlink()
    dataset = opened(nsd)
    assert dataset.stimuli.images is None
    assert any(f.what == "pictures" and f.level == "note" for f in check("nsd", root=nsd.root))


def test_captions_of_the_curated_array_follow_the_ids(nsd):
    texts = np.array([[f"picture {i}", "", f"  again   {i} "] for i in range(len(nsd.brick))])
    np.save(nsd.root / "COCO_73k_annots_curated.npy", texts)
    stimuli = opened(nsd).stimuli
    assert [c[0] for c in stimuli.captions] == [f"picture {int(i[3:])}" for i in stimuli.ids]
    assert stimuli.captions[0] == (f"picture {int(stimuli.ids[0][3:])}", f"again {int(stimuli.ids[0][3:])}")


class Payload:
    def __reduce__(self):
        return os.mkdir, (os.environ["PAYLOAD"],)


@pytest.mark.fault(66)
def test_captions_of_pickled_objects_are_refused_and_never_run(nsd, tmp_path, monkeypatch):
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "ran"))
    np.save(nsd.root / "COCO_73k_annots_curated.npy", np.array([[Payload()]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"pickled.*astype\(str\)"):
        opened(nsd)
    assert not (tmp_path / "ran").exists()


def test_coco_annotations_are_matched_by_coco_id(nsd):
    table = nsd.write_stim_info()
    first, second = opened(nsd).stimuli.ids[:2]
    coco = table.set_index("nsdId")["cocoId"]
    folder = nsd.root / "coco/annotations"
    folder.mkdir(parents=True)
    one, two = (int(coco[int(i[3:])]) for i in (first, second))
    said = {"annotations": [{"image_id": two, "caption": "a dog"}, {"image_id": 3, "caption": "unknown"}]}
    (folder / "captions_train2017.json").write_text(json.dumps(said))
    boxes = [(one, 1, 10), (one, 2, 30), (one, 1, 5), (two, 1, 1)]
    marked = {
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "sofa"}],
        "annotations": [{"image_id": i, "category_id": c, "area": a} for i, c, a in boxes],
    }
    (folder / "instances_train2017.json").write_text(json.dumps(marked))
    stimuli = opened(nsd).stimuli
    assert stimuli.captions[:3] == ((), ("a dog",), ())
    assert stimuli.labels.iloc[:3].to_numpy().tolist() == [[True, True], [True, False], [False, False]]
    assert list(stimuli.category[:3]) == ["sofa", "dog", "none"]


# -- once for all ------------------------------------------------------------------------------------------------------


def test_an_imported_subject_is_the_same_and_keeps_its_whole_numbers(nsd, tmp_path):
    expected = opened(nsd)
    dataset = import_subject(nsd.root, "subj01", tmp_path / "out")
    stored = np.load(tmp_path / "out/subjects/subj01/betas.npy", mmap_mode="r")
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored[:N_PER_SESSION], in_mask(nsd, 1))
    assert dataset.trials().digest() == expected.trials().digest()
    assert dataset.stimuli.digest() == expected.stimuli.digest()
    assert dataset.splits == expected.splits
    assert not (tmp_path / "out.sessions").exists()
    with pytest.raises(ConfigError, match="exists"):
        import_subject(nsd.root, "subj01", tmp_path / "out")


@pytest.mark.fault(36)
def test_an_interrupted_import_goes_on_with_the_session_it_stopped_at(nsd, tmp_path):
    expected = opened(nsd).trials().betas
    (nsd.beta_folder() / "betas_session03.hdf5").unlink()
    third = nsd.write_session(3, "nii.gz")
    good = third.read_bytes()
    third.write_bytes(good[:1000] + bytes(200) + good[1200:])  # its length and its end are right
    with pytest.raises(DataError, match="betas_session03"):
        import_subject(nsd.root, "subj01", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    third.write_bytes(good)
    for k in (1, 2):  # read before, so never again; the scale alone is found anew, and whole numbers have one
        nsd.write_session(k, betas=nsd.betas[k] * 0)
    again = import_subject(nsd.root, "subj01", tmp_path / "out")
    np.testing.assert_array_equal(again.trials().betas, expected)


_KILLED = """
import os, signal, sys
from phosphene.data import import_dataset, volumes
read, done = volumes.SessionRows.session, []
def session(self, number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, number)
volumes.SessionRows.session = session
import_dataset("nsd:subj01", sys.argv[2], root=sys.argv[1])
"""


@pytest.mark.fault(75)
def test_an_import_killed_at_the_third_session_is_ended_by_the_same_command(nsd, tmp_path):
    expected = opened(nsd)
    betas = expected.trials().betas
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(nsd.root), str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    for k in (1, 2):  # kept before, so never read again
        nsd.write_session(k, betas=nsd.betas[k] * 0)
    dataset = import_dataset("nsd:subj01", out, root=nsd.root)
    np.testing.assert_array_equal(dataset.trials().betas, betas)
    assert dataset.stimuli.digest() == expected.stimuli.digest()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("out")] == ["out"]


def test_two_people_are_imported_together(tmp_path):
    nsd = make(tmp_path / "nsd", sessions=(1, 2), n_subjects=2)
    expected = open_dataset("nsd", root=nsd.root)
    dataset = import_dataset("nsd", tmp_path / "out", root=nsd.root)
    assert list(dataset) == ["subj01", "subj02"]
    assert all(dataset.trials(s).digest() == expected.trials(s).digest() for s in dataset)
    assert np.load(tmp_path / "out/subjects/subj02/betas.npy", mmap_mode="r").dtype == np.int16


def test_a_store_keeps_sessions_for_the_next_time(nsd, tmp_path):
    expected = opened(nsd).trials().betas
    store = str(tmp_path / "kept")
    np.testing.assert_array_equal(opened(nsd, store=store).trials().betas, expected)
    for k in nsd.betas:
        nsd.write_session(k, betas=nsd.betas[k] * 0)
    np.testing.assert_array_equal(opened(nsd, store=store).trials().betas, expected)
    # another mask is another store
    assert not opened(nsd, store=store, mask="streams").trials().betas.any()


# -- wrong folders -----------------------------------------------------------------------------------------------------


def test_a_missing_session_is_named_with_what_to_do(nsd):
    (nsd.beta_folder() / "betas_session02.hdf5").unlink()
    with pytest.raises(DataError, match=r"lacks session 2 .*found 1, 3.*sessions=\[1, 3\]"):
        opened(nsd)
    assert "lacks session 2" in problems(nsd)
    assert len(opened(nsd, sessions=[1, 3]).trials()) == 2 * N_PER_SESSION
    with pytest.raises(DataError, match="lacks session 2, 4"):
        opened(nsd, sessions=4)


@pytest.mark.fault(54)
def test_litter_beside_the_sessions_is_no_session(nsd):
    for name in (".DS_Store", "._betas_session04.hdf5", "betas_session05.hdf5.lock", "meanbeta_session06.nii.gz"):
        (nsd.beta_folder() / name).write_bytes(b"x")
    assert len(opened(nsd).trials()) == 3 * N_PER_SESSION


@pytest.mark.fault(21)
def test_transposed_betas_are_recognised(nsd):
    path = nsd.beta_folder() / "betas_session01.hdf5"
    with h5py.File(path, "w") as file:
        file["betas"] = nsd.betas[1]  # (trial, x, y, z)
    with pytest.raises(DataError, match=r"\(trials, 4, 6, 5\) is expected.*transposed"):
        opened(nsd)
    path.unlink()
    save(nsd.beta_folder() / "betas_session01.nii.gz", nsd.betas[1])
    with pytest.raises(DataError, match="transposed"):
        opened(nsd)


@pytest.mark.fault(7)
def test_a_session_that_lacks_a_trial_is_refused(nsd):
    nsd.write_session(2, betas=nsd.betas[2][:-1])
    with pytest.raises(DataError, match="holds 11 trials, but session 2 has 12"):
        opened(nsd)


@pytest.mark.fault(14)
def test_betas_in_percent_are_not_divided_again(nsd):
    expected = opened(nsd).trials().betas
    for k in nsd.betas:
        nsd.write_session(k, betas=nsd.betas[k].astype(np.float32) / np.float32(300))
    np.testing.assert_allclose(opened(nsd).trials().betas, expected, rtol=2e-7)
    for k in nsd.betas:  # times 300, but stored as float
        nsd.write_session(k, betas=nsd.betas[k].astype(np.float64))
    np.testing.assert_allclose(opened(nsd).trials().betas, expected, rtol=2e-7)


@pytest.mark.fault(14)
def test_percent_rounded_to_whole_numbers_is_refused(nsd, tmp_path):
    with pytest.raises(DataError, match="divided by 300 and rounded"):
        find_scale(np.array([1, -2, 0, 1], dtype=np.int16), tmp_path)


def test_sessions_of_two_kinds_of_numbers_are_refused(nsd):
    nsd.write_session(3, betas=nsd.betas[3].astype(np.float32))
    with pytest.raises(DataError, match=r"session 1 .* int16 but session 3 is float32"):
        opened(nsd)


@pytest.mark.fault(35)
@pytest.mark.parametrize("kind", ["nii", pytest.param("nii.gz", marks=pytest.mark.fault(36))])
def test_a_truncated_nifti_is_found_before_anything_is_read(nsd, kind):
    (nsd.beta_folder() / "betas_session01.hdf5").unlink()
    path = nsd.write_session(1, kind)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="truncated"):
        opened(nsd)


@pytest.mark.fault(36)
def test_a_gzip_of_several_members_is_not_taken_for_a_truncated_one(nsd):
    expected = opened(nsd).trials().betas
    (nsd.beta_folder() / "betas_session01.hdf5").unlink()
    raw = gzip.decompress(nsd.write_session(1, "nii.gz").read_bytes())
    half = len(raw) // 2
    parts = gzip.compress(raw[:half]) + gzip.compress(raw[half:])
    (nsd.beta_folder() / "betas_session01.nii.gz").write_bytes(parts)
    np.testing.assert_array_equal(opened(nsd).trials().betas, expected)


@pytest.mark.fault(37)
def test_a_truncated_or_replaced_hdf5_file_is_named(nsd):
    path = nsd.beta_folder() / "betas_session01.hdf5"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"betas_session01\.hdf5 is damaged or truncated"):
        opened(nsd)
    path.write_text("<!DOCTYPE html><html>please log in</html>")
    with pytest.raises(DataError, match="web page"):
        opened(nsd)
    with h5py.File(path, "w") as file:
        file["other"] = 1
    with pytest.raises(DataError, match="no dataset 'betas'; it holds other"):
        opened(nsd)


@pytest.mark.fault(39)
def test_a_flipped_byte_in_a_gzip_is_found(nsd):
    (nsd.beta_folder() / "betas_session01.hdf5").unlink()
    path = nsd.write_session(1, "nii.gz", betas=nsd.betas[1])
    raw = bytearray(gzip.decompress(path.read_bytes()))
    packed = bytearray(gzip.compress(bytes(raw), compresslevel=0))  # stored, so that one byte changes one number
    packed[len(packed) // 2] ^= 64
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"betas_session01\.nii\.gz is damaged \(CRC check failed"):
        _ = opened(nsd).trials().betas


@pytest.mark.fault(40)
def test_a_mask_of_another_grid_or_place_is_refused(nsd):
    path = nsd.roi_folder() / "floc-faces.nii.gz"
    save(path, np.ones(GRID[::-1], np.int16))
    with pytest.raises(DataError, match=r"floc-faces.*\(4, 6, 5\).*transposed"):
        opened(nsd)
    moved = AFFINE.copy()
    moved[0, 3] += 5
    save(path, np.ones(GRID, np.int16), moved)
    with pytest.raises(DataError, match=r"lies elsewhere.*\(0, 3\) of the affine is -65"):
        opened(nsd)


@pytest.mark.fault(42)
def test_an_unknown_mask_suggests_the_nearest(nsd):
    with pytest.raises(DataError, match=r"no nsdgenral\.nii\.gz\. Did you mean 'nsdgeneral'"):
        opened(nsd, mask="nsdgenral")
    with pytest.raises(DataError, match=r"no kastner2015"):
        opened(nsd, rois=["kastner2015"])


@pytest.mark.fault(43)
def test_an_empty_mask_is_refused(nsd):
    save(nsd.roi_folder() / "nsdgeneral.nii.gz", np.minimum(nsd.mask, 0))
    with pytest.raises(DataError, match="no voxel of subj01 is above 0"):
        opened(nsd)


@pytest.mark.fault(45)
def test_betas_in_place_of_a_mask_are_refused(nsd):
    save(nsd.roi_folder() / "nsdgeneral.nii.gz", nsd.betas[1].transpose(1, 2, 3, 0))
    with pytest.raises(DataError, match="3 axes are expected"):
        opened(nsd)


@pytest.mark.fault(53)
def test_one_hemisphere_alone_is_refused_and_two_are_joined(nsd):
    whole = opened(nsd).trials()
    path = nsd.roi_folder() / "floc-bodies.nii.gz"
    labels = np.asarray(nib.load(path).dataobj)
    path.unlink()
    left, right = labels.copy(), labels.copy()
    left[2:], right[:2] = -1, -1
    save(nsd.roi_folder() / "lh.floc-bodies.nii.gz", left)
    with pytest.raises(DataError, match="not the other hemisphere"):
        opened(nsd)
    save(nsd.roi_folder() / "rh.floc-bodies.nii.gz", right)
    assert list(opened(nsd).trials().roi("EBA")) == list(whole.roi("EBA"))


@pytest.mark.filterwarnings("ignore:subj01 has no")
def test_missing_label_files_are_told_and_left_out(nsd):
    for name in ("streams", "floc-words"):
        (nsd.roi_folder() / f"{name}.nii.gz").unlink()
    with pytest.warns(PhospheneWarning, match=r"no floc-words\.nii\.gz"):
        trials = opened(nsd).trials()
    assert not any(r.startswith("streams") for r in trials.rois)
    assert any("floc-words, streams" in f.detail for f in check("nsd", root=nsd.root))


@pytest.mark.fault(9)
def test_a_design_with_a_picture_twice_is_refused(nsd):
    images = nsd.images.copy()
    images[3, 30] = images[3, 31]
    nsd.write_design(subjectim=images)
    with pytest.raises(DataError, match="stands twice for subj04"):
        opened(nsd)


@pytest.mark.fault(21)
def test_designs_that_are_transposed_from_zero_or_incomplete_are_refused(nsd):
    for changed, message in (
        ({"subjectim": nsd.images.T}, "It is transposed"),
        ({"subjectim": nsd.images - 1}, "counts from 1"),
        ({"masterordering": nsd.order - 1}, "counts from 1"),
        ({"masterordering": nsd.order[:-40]}, "each is shown three times"),
        ({"sharedix": np.arange(1, 41)}, "differ between subjects"),
    ):
        nsd.write_design(**changed)
        with pytest.raises(DataError, match=message):
            read_design(nsd.root)


def test_a_csv_that_gives_two_pictures_to_one_trial_is_refused(nsd):
    table = nsd.write_stim_info()
    at = table.index[table["subject1_rep0"] == 5][0]
    other = table.index[table["subject1_rep0"] > 5][0]
    table.loc[other, "subject1_rep0"] = 5
    assert at != other
    table.to_csv(nsd.stim_info)
    assert "trial 5 twice" in problems(nsd)
    nsd.design.unlink()
    with pytest.raises(DataError, match="trial 5 twice"):
        opened(nsd)


def test_files_of_the_design_that_contradict_each_other_are_a_problem(nsd):
    nsd.write_stim_info()
    assert not problems(nsd)
    rng = np.random.default_rng(5)
    nsd.write_design(masterordering=rng.permutation(nsd.order))
    assert "show subj01 different pictures" in problems(nsd)


def test_a_folder_without_nsd_says_what_was_looked_for(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="holds other"):
        open_dataset("nsd", root=tmp_path)
    (tmp_path / "nsddata").mkdir()
    with pytest.raises(DataError, match="betas b3"):
        open_dataset("nsd", root=tmp_path)


def test_an_unknown_subject_suggests_one_that_is_there(nsd):
    with pytest.raises(DataError, match="Did you mean 'subj01'"):
        opened(nsd, subject="sub01")


# -- published counts --------------------------------------------------------------------------------------------------


def test_a_small_copy_is_told_from_the_public_data_and_not_compared_with_it(nsd):
    findings = check("nsd", root=nsd.root)
    assert not [f for f in findings if f.level == "problem"]
    assert any(f.what == "design" and "Published counts do not apply" in f.next_step for f in findings)


def test_a_public_design_is_held_to_the_published_counts(tmp_path):
    rng = np.random.default_rng(0)
    nsd = make(tmp_path / "nsd", sessions=(1,))
    own = np.arange(1001, 73001).reshape(8, 9000)
    nsd.images = np.concatenate([np.tile(np.arange(1, 1001), (8, 1)), own], axis=1)
    nsd.order = rng.permutation(np.repeat(np.arange(1, 10001), 3))
    nsd.write_design(sharedix=np.arange(1, 1001)[None])
    nsd.write_session(1, betas=np.round(rng.normal(0, 400, (750, *GRID))).astype(np.int16))
    nsd.pictures.unlink()
    design = design_from_mat(nsd.design)
    assert design.is_public
    assert (np.bincount(design.runs[0])[1:] == [63, 62] * 6).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        findings = check("nsd", root=nsd.root)
    said = [str(f) for f in findings]
    n = int((nsd.mask == 1).sum())
    assert f"problem: subj01 voxels: {n} in nsdgeneral; 15724 are published. Fetch the mask again." in said
    assert any("1 of the 40 measured sessions" in s for s in said)
    assert any(s.startswith("ok: design") and "as published" in s for s in said)


# -- at scale ----------------------------------------------------------------------------------------------------------


def test_sessions_once_read_are_kept_as_the_files_hold_them(nsd, tmp_path):
    before = opened(nsd, store=str(tmp_path / "kept")).trials().betas
    (folder,) = (tmp_path / "kept").iterdir()
    store = RowStore.open(folder)
    assert store.dtype == np.int16
    np.testing.assert_array_equal(store.read(store.ids), np.concatenate([in_mask(nsd, k) for k in (1, 2, 3)]))
    np.testing.assert_array_equal(before, opened(nsd).trials().betas)


def test_eight_people_are_imported_standardised_and_drawn_from_as_one(tmp_path, monkeypatch):
    from phosphene.models.roi_mae import subject_batches

    monkeypatch.setattr("phosphene.data.standardise._EAGER_BYTES", 0)  # views, as for people of NSD's size
    dataset = import_dataset("nsd", tmp_path / "all", root=make(tmp_path / "nsd", n_subjects=8).root)
    people = {s: dataset.trials(s) for s in dataset.subjects}
    assert len(people) == 8
    assert {np.load(f, mmap_mode="r").dtype for f in (tmp_path / "all").rglob("betas.npy")} == {np.dtype(np.int16)}
    rows = {s: Standardiser().fit(t).transform(t).source for s, t in people.items()}
    assert not any(isinstance(r, np.ndarray) for r in rows.values())
    fetch, n = subject_batches(rows)
    assert n == sum(map(len, people.values())) == 8 * 3 * N_PER_SESSION
    each = n // 8
    batch = fetch(np.array([0, 5, each + 7, n - 1]))
    drawn = {"subj01": [0, 5], "subj02": [7], "subj08": [each - 1]}
    assert {s: len(b) for s, b in batch["betas"].items()} == {s: len(d) for s, d in drawn.items()}
    for subject, places in drawn.items():
        betas = people[subject].betas.astype(np.float64)
        expected = ((betas - betas.mean(axis=0)) / betas.std(axis=0))[places]
        # float32 results of double arithmetic
        np.testing.assert_allclose(batch["betas"][subject].numpy(), expected, atol=1e-5)
