"""GOD: folders of both public layouts, with the same content, and what goes wrong with such folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phosphene.data import open_dataset
from phosphene.data.god import ROIS, SIZES
from phosphene.errors import DataError, PhospheneWarning
from phosphene.reporting.describe import check
from tests.data.test_bdata import write

N_TRAIN, N_PICTURES, N_REPEATS, N_VOXELS, SIDE = 12, 4, 3, 30, 256


@dataclass
class Layout:
    """Where it is and what is true of it."""

    root: Path
    arrays: dict[str, np.ndarray]  # of sbj_1.npz
    pictures: dict[str, np.ndarray]
    ids: dict[str, list[str]]  # by row of the pictures

    def save(self, **changed) -> None:
        arrays = {**self.arrays, **changed}
        np.savez(self.root / "sbj_1.npz", **{k: v for k, v in arrays.items() if v is not None})

    def save_pictures(self, **changed) -> None:
        np.savez(self.root / "images_256.npz", **{**self.pictures, **changed})


def masks(rng) -> dict[str, np.ndarray]:
    """Masks that overlap as GOD's do: LVC covers V1 to V4, HVC the rest, VC both; three voxels in none."""
    area = rng.permutation(np.r_[np.repeat(np.arange(8), [5, 4, 3, 3, 3, 3, 3, 3]), [9, 9, 9]])
    out = {r: area == k for k, r in enumerate(ROIS[:7])}
    out["V2"] = out["V2"] | (np.cumsum(out["V1"]) == 1) & out["V1"]  # one voxel of V1 is in V2 too
    out["LVC"] = area < 4
    out["HVC"] = (area >= 4) & (area < 8)
    out["VC"] = area < 8
    return out


def label(name: str) -> str:
    wnid, image = name[1:].split("_")
    return f"{int(wnid)}.{int(image):06d}"


def make_god(tmp_path) -> Layout:
    rng = np.random.default_rng(4)
    root = tmp_path / "god"
    root.mkdir()
    ids = {
        "train": [f"n{1518878 + k // 4:08d}_{10042 + 7 * k}" for k in range(N_TRAIN)],
        "test": [f"n{1443537 + k:08d}_{22563 + k}" for k in range(N_PICTURES)],
    }
    test_index = np.repeat(rng.permutation(N_PICTURES), N_REPEATS)
    single = rng.normal(size=(len(test_index), N_VOXELS))
    arrays = {
        **dict(reversed(masks(rng).items())),  # the order in the file is not relied on
        "arr_0": rng.normal(size=(N_TRAIN, N_VOXELS)),
        "arr_1": single,
        "arr_2": np.stack([single[test_index == i].mean(0) for i in range(N_PICTURES)]),
        "arr_3": rng.permutation(N_TRAIN),
        "arr_4": test_index,
        "arr_5": rng.uniform(size=N_VOXELS),
        "arr_6": rng.uniform(size=N_VOXELS),
    }
    pictures = {
        "train_images": rng.integers(0, 256, (N_TRAIN, SIDE, SIDE, 3), dtype=np.uint8),
        "test_images": rng.integers(0, 256, (N_PICTURES, SIDE, SIDE, 3), dtype=np.uint8),
    }
    layout = Layout(root, arrays, pictures, ids)
    layout.save()
    layout.save_pictures()
    for side, name in (("train", "imagenet_training_label.csv"), ("test", "imagenet_testing_label.csv")):
        (root / name).write_text("".join(f"{label(i)},something\n" for i in ids[side]))
    return layout


@pytest.fixture
def god(tmp_path) -> Layout:
    return make_god(tmp_path)


def make_lab(god) -> Layout:
    """The same rows in the lab's own format, in another order, with imagery trials between them."""
    a, rng = god.arrays, np.random.default_rng(8)
    train = [god.ids["train"][i] for i in a["arr_3"]]
    test = [god.ids["test"][i] for i in a["arr_4"]]
    betas = np.concatenate([a["arr_0"], a["arr_1"], rng.normal(size=(5, N_VOXELS))])
    kind = np.repeat([1, 2, 3], [N_TRAIN, len(test), 5]).astype(float)
    shown = np.array([float(label(i)) for i in [*train, *test, *test[:5]]])
    extra = np.c_[kind, shown, np.arange(len(kind)) // 6 + 1]
    order = rng.permutation(len(kind))
    god.shuffled = order
    keys = ["VoxelData", *(f"ROI_{r}" for r in ROIS), "voxel_x", "DataType", "stimulus_id", "Run"]
    values = np.full((len(keys), N_VOXELS + 3), np.nan)
    values[0, :N_VOXELS] = 1
    for k, roi in enumerate(ROIS, start=1):
        values[k, :N_VOXELS] = a[roi]
    values[11, :N_VOXELS] = np.arange(N_VOXELS) * 3.0
    for k in range(3):
        values[12 + k, N_VOXELS + k] = 1
    write(god.root / "Subject1.h5", np.c_[betas, extra][order], keys, values)
    (god.root / "sbj_1.npz").unlink()
    return god


@pytest.fixture
def lab(god) -> Layout:
    return make_lab(god)


def opened(god: Layout, **options):
    return open_dataset("god:sbj_1", root=god.root, options=options)


def in_vc(god: Layout) -> np.ndarray:
    return np.flatnonzero(god.arrays["VC"])


# -- what is read ------------------------------------------------------------------------------------------------------


def test_npz_rows_name_their_picture_by_its_index(god):
    trials = opened(god).trials()
    a = god.arrays
    assert list(trials.stimuli[:N_TRAIN]) == [god.ids["train"][i] for i in a["arr_3"]]
    assert list(trials.stimuli[N_TRAIN:]) == [god.ids["test"][i] for i in a["arr_4"]]
    expected = np.concatenate([a["arr_0"], a["arr_1"]])[:, in_vc(god)].astype(np.float32)
    np.testing.assert_array_equal(trials.betas, expected)
    np.testing.assert_array_equal(trials.noise_ceiling, a["arr_5"][in_vc(god)])


def test_both_layouts_give_the_same_data_set(god, request):
    from_npz = opened(god)
    request.getfixturevalue("lab")
    from_lab = opened(god)
    assert from_lab.about["variant"] == "bdata"
    one, two = (d.trials().average_repeats() for d in (from_npz, from_lab))
    ids = sorted(one.stimulus_ids)
    assert ids == sorted(two.stimulus_ids)
    for row in (0, 5, N_TRAIN + 1):
        a, b = (t.select(stimuli=[ids[row % len(ids)]]).betas for t in (one, two))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # sums of three in float32 in another order
    assert set(from_npz.split().test) == set(from_lab.split().test) == set(god.ids["test"])
    np.testing.assert_array_equal(
        from_npz.stimuli.select(ids).pixels(slice(0, 3)), from_lab.stimuli.select(ids).pixels(slice(0, 3))
    )
    assert list(two.voxels["x"]) == list(in_vc(god) * 3.0)


def test_imagery_trials_are_left_out_and_runs_are_kept(lab):
    trials = opened(lab).trials()
    assert len(trials) == N_TRAIN + N_PICTURES * N_REPEATS
    kept = [i for i in lab.shuffled if i < len(trials)]
    assert list(trials.table["run"]) == [i // 6 + 1 for i in kept]
    whole = np.concatenate([lab.arrays["arr_0"], lab.arrays["arr_1"]])
    np.testing.assert_array_equal(trials.betas, whole[kept][:, in_vc(lab)].astype(np.float32))


def test_averaging_repeats_gives_the_stored_means(god):
    dataset = opened(god)
    test = dataset.split().apply(dataset.trials())[1].average_repeats()
    assert (test.table["n_repeats"] == N_REPEATS).all()
    expected = god.arrays["arr_2"][[god.ids["test"].index(i) for i in test.stimuli]][:, in_vc(god)]
    np.testing.assert_allclose(test.betas, expected, atol=1e-6)  # float32
    stored = opened(god, test="average").trials()
    rows = stored.select(stimuli=god.ids["test"])
    assert list(rows.stimuli) == god.ids["test"]
    np.testing.assert_array_equal(rows.betas, god.arrays["arr_2"][:, in_vc(god)].astype(np.float32))


def test_rois_come_in_leas_order_whatever_the_file_says(god):
    from phosphene.models.roi_mae import roi_partition

    trials = opened(god).trials()
    assert trials.rois == ROIS
    groups = roi_partition(trials)
    assert list(groups) == ["V1", "V2", "V3", "V4", "FFA", "PPA", "LOC", "HVC"]  # LVC and VC are left with nothing
    assert [len(g) for g in groups.values()] == [5, 4, 3, 3, 3, 3, 3, 3]
    assert trials.n_voxels == 27


def test_published_roi_sizes_add_up_to_vc():
    assert {s: sum(n) for s, n in SIZES.items()} == {
        "sbj_1": 4466, "sbj_2": 4404, "sbj_3": 4643, "sbj_4": 4133, "sbj_5": 4370,
    }  # fmt: skip


def test_the_split_is_disjoint_in_categories(god):
    split = opened(god).split("god")
    assert split.category_disjoint
    assert split.test == tuple(dict.fromkeys(god.ids["test"][i] for i in god.arrays["arr_4"]))
    assert {i.split("_")[0] for i in split.train}.isdisjoint(i.split("_")[0] for i in split.test)


def test_pictures_are_matched_by_id_not_by_row(god):
    stimuli = opened(god).stimuli
    for side in ("train", "test"):
        for row in (0, 3):
            name = god.ids[side][row]
            np.testing.assert_array_equal(stimuli.select([name]).pixels()[0], god.pictures[f"{side}_images"][row])
    assert set(stimuli.category) == {i.split("_")[0] for s in god.ids.values() for i in s}


@pytest.mark.fault(27)
def test_single_picture_files_leave_holes_where_one_is_missing(lab):
    (lab.root / "images_256.npz").unlink()
    for side in ("train", "test"):
        (lab.root / "images" / side).mkdir(parents=True)
        for i, picture in zip(lab.ids[side], lab.pictures[f"{side}_images"], strict=True):
            Image.fromarray(picture).save(lab.root / "images" / side / f"{i}.png")
    gone = lab.ids["train"][4]
    (lab.root / "images" / "train" / f"{gone}.png").unlink()
    with pytest.warns(PhospheneWarning, match=f"1 of 16 GOD pictures are missing, first '{gone}'"):
        stimuli = opened(lab).stimuli
    assert list(stimuli.ids[~stimuli.present]) == [gone]
    one = lab.ids["test"][2]
    np.testing.assert_array_equal(stimuli.select([one]).pixels()[0], lab.pictures["test_images"][2])


def test_without_label_files_rows_are_named_by_number(god):
    (god.root / "imagenet_testing_label.csv").unlink()
    with pytest.raises(DataError, match="only one of"):
        opened(god)
    (god.root / "imagenet_training_label.csv").unlink()
    dataset = opened(god)
    assert dataset.trials().stimuli[0] == f"train-{god.arrays['arr_3'][0]:04d}"
    assert dataset.split().category_disjoint is None
    np.testing.assert_array_equal(dataset.stimuli.select(["test-02"]).pixels()[0], god.pictures["test_images"][2])


# -- wrong folders -----------------------------------------------------------------------------------------------------


@pytest.mark.fault(26)
def test_a_category_has_the_name_that_the_index_of_classes_gives_it(god):
    wnids = sorted({i.split("_")[0] for side in god.ids.values() for i in side})
    assert list(opened(god).stimuli.category[:1]) == [opened(god).stimuli.ids[0].split("_")[0]]  # no index, no name
    rows = {"0": [wnids[0], "n0", "gold_fish"], "1": [wnids[1], "crane"], "2": [wnids[2], "crane"]}
    (god.root / "imagenet_class_index.json").write_text(json.dumps(rows), encoding="utf-8")
    stimuli = opened(god).stimuli
    named = {i.split("_")[0]: c for i, c in zip(stimuli.ids, stimuli.category, strict=True)}
    assert named[wnids[0]] == "gold fish"
    assert (named[wnids[1]], named[wnids[2]]) == (f"crane ({wnids[1]})", f"crane ({wnids[2]})")
    assert all(named[w] == w for w in wnids[3:])


@pytest.mark.parametrize("content", ["[]", "{", '{"0": []}', '{"0": 3}'])
def test_an_index_of_classes_that_is_something_else_is_named(god, content):
    (god.root / "imagenet_class_index.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="imagenet_class_index"):
        _ = opened(god).stimuli.category


def test_pictures_that_do_not_match_the_label_file_are_refused(god):
    god.save_pictures(train_images=god.pictures["train_images"][:-1])
    with pytest.raises(DataError, match="holds 11 pictures, but 12 are named"):
        opened(god)


@pytest.mark.fault(25)
def test_a_label_that_stands_twice_would_shift_the_others_and_is_refused(god):
    rows = [label(i) for i in god.ids["train"]]
    (god.root / "imagenet_training_label.csv").write_text("\n".join([rows[0], *rows[:-1]]))
    with pytest.raises(DataError, match="stands in lines 1 and 2"):
        opened(god)
    (god.root / "imagenet_training_label.csv").write_text("\n".join([rows[0], "dog", *rows[1:]]))
    with pytest.raises(DataError, match="line 2 of .* begins with 'dog'"):
        opened(god)


@pytest.mark.fault(21)
@pytest.mark.parametrize("key", ["arr_0", "arr_1"])
def test_transposed_responses_are_recognised(god, key):
    god.save(**{key: god.arrays[key].T})
    with pytest.raises(DataError, match=f"'{key}' .*It is transposed"):
        opened(god)


@pytest.mark.fault(7)
def test_an_index_of_another_length_or_range_is_refused(god):
    god.save(arr_3=god.arrays["arr_3"][:-1])
    with pytest.raises(DataError, match="'arr_3' .* has 11 entries for 12 rows"):
        opened(god)
    god.save(arr_3=god.arrays["arr_3"] + 1)  # counted from 1
    with pytest.raises(DataError, match="goes from 1 to 12, but 12 pictures are named"):
        opened(god)


def test_missing_roi_masks_are_named(god, request):
    god.save(LOC=None)
    with pytest.raises(DataError, match="lacks the ROI mask LOC"):
        opened(god)
    assert any("lacks the ROI mask LOC" in str(f) for f in check("god", root=god.root))


@pytest.mark.fault(43)
def test_an_empty_choice_of_voxels_is_refused(god):
    with pytest.raises(DataError, match="no voxel of .* is in 'V3 & PPA'"):
        opened(god, roi="V3 & PPA")
    with pytest.raises(DataError, match="no ROI 'V5'"):
        opened(god, roi="V5")
    assert opened(god, roi="V1+V2").trials().n_voxels == 9


@pytest.mark.fault(66)
def test_pickled_arrays_are_refused(god):
    god.save(arr_0=np.array([[1, None]], dtype=object))
    with pytest.raises(DataError, match="'arr_0'.*pickled"):
        opened(god)


def test_stimulus_ids_in_single_precision_are_refused(lab):
    import h5py

    with h5py.File(lab.root / "Subject1.h5", "r+") as file:
        dataset = file["dataset"][()].astype(np.float32)
        del file["dataset"]
        file["dataset"] = dataset
    with pytest.raises(DataError, match="float32, too coarse"):
        opened(lab)


def test_check_finds_wrong_means_and_wrong_counts(god):
    said = [str(f) for f in check("god", root=god.root)]
    assert any("ok: sbj_1 test means" in s for s in said)
    assert any("12 training rows, 12 test rows of 4 pictures; published: 1200, 1750, 50" in s for s in said)
    assert any("27 voxels in VC" in s and "published: 1004, 801" in s for s in said)
    wrong = god.arrays["arr_2"].copy()
    wrong[[0, 1]] = wrong[[1, 0]]
    god.save(arr_2=wrong)
    assert any("problem: sbj_1 test means" in str(f) for f in check("god", root=god.root))


def test_a_folder_without_god_says_what_was_looked_for(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"sbj_1\.npz or Subject1\.h5 .* holds other"):
        open_dataset("god", root=tmp_path)


def test_a_folder_of_the_published_size_passes_the_check(tmp_path):
    """Person 4: rows, pictures and ROI sizes as published, values that cost no space."""
    from phosphene.data.god import GOD

    sizes, at, order = SIZES["sbj_4"], 0, np.zeros(sum(SIZES["sbj_4"]), dtype=np.int64)
    for k, n in enumerate(sizes):
        order[at : at + n] = k
        at += n
    arrays: dict[str, np.ndarray] = {r: order == k for k, r in enumerate(ROIS[:7])}
    arrays |= {"LVC": order < 4, "HVC": order >= 4, "VC": order >= 0}
    n_test = np.repeat(np.arange(50), 35)
    arrays["arr_0"] = np.zeros((1200, len(order)), np.float16)
    arrays["arr_1"] = np.repeat(n_test[:, None].astype(np.float16), len(order), axis=1)
    arrays["arr_2"] = np.repeat(np.arange(50, dtype=np.float16)[:, None], len(order), axis=1)
    arrays |= {"arr_3": np.arange(1200), "arr_4": n_test}
    np.savez_compressed(tmp_path / "sbj_4.npz", **arrays)
    for side, n, first in (("training", 1200, 1000000), ("testing", 50, 2000000)):
        rows = [f"{first + k // 8 if side == 'training' else first + k}.{k:06d}" for k in range(n)]
        (tmp_path / f"imagenet_{side}_label.csv").write_text("\n".join(rows))
    findings = GOD().check(tmp_path, GOD.options())
    assert not [str(f) for f in findings if f.level == "problem"]
    assert any("V1 719, V2 652" in f.detail and "as published" in f.detail for f in findings)
    assert any("1200 training rows, 1750 test rows of 50 pictures; as published" in f.detail for f in findings)
