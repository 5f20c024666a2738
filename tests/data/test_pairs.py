"""Pair files: MATLAB, NPZ and HDF5, real and damaged."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.io

from phosphene.data import open_dataset
from phosphene.data.digits69 import FILE
from phosphene.data.splits import same_picture_across
from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.reporting.describe import check

N_TRAIN, N_TEST, N_VOXELS, SIDE = 12, 4, 7, 5


def make_arrays() -> dict[str, np.ndarray]:
    """A file of the shape of digits69: every picture different, unrolled column by column."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (N_TRAIN + N_TEST, SIDE, SIDE), dtype=np.uint8)
    columns = pictures.transpose(0, 2, 1).reshape(len(pictures), -1)
    betas = rng.standard_normal((N_TRAIN + N_TEST, N_VOXELS))
    labels = (np.arange(N_TRAIN + N_TEST) % 2 + 1)[:, None].astype(np.uint8)
    return {
        "fmriTrn": betas[:N_TRAIN],
        "fmriTest": betas[N_TRAIN:],
        "stimTrn": columns[:N_TRAIN],
        "stimTest": columns[N_TRAIN:],
        "labelTrn": labels[:N_TRAIN],
        "labelTest": labels[N_TRAIN:],
    }


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return make_arrays()


def save(folder, arrays, kind="mat"):
    """The arrays as a file of each kind, pictures always read column by column."""
    path = folder / f"pairs.{kind.replace('73', '')}"
    if kind == "mat":
        scipy.io.savemat(path, arrays)
    elif kind == "mat73":
        # MATLAB 7.3: a 512-byte text header before the HDF5 part, and every array with its axes reversed.
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array.T).attrs["MATLAB_class"] = np.bytes_("double")
        with open(path, "r+b") as handle:
            handle.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    elif kind == "npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


# -- the real file -----------------------------------------------------------------------------------------------------


def test_digits69_has_the_published_counts_and_labels(shared_data):
    dataset = open_dataset("digits69", root=shared_data)
    train, test = dataset.split("file").apply(dataset.trials())
    assert train.betas.shape == (90, 3092)
    assert test.betas.shape == (10, 3092)
    category = dict(zip(dataset.stimuli.ids, dataset.stimuli.category, strict=True))
    for side, each in ((train, 45), (test, 5)):
        names = [category[s] for s in side.stimuli]
        assert names.count("six") == names.count("nine") == each
    assert dataset.split().unit == "stimulus"
    assert dataset.split().category_disjoint is False


def test_digits69_pictures_stand_upright(shared_data):
    dataset = open_dataset("digits69", root=shared_data)
    rows = scipy.io.loadmat(shared_data / "digits69" / FILE)["stimTrn"]
    upright = np.stack([row.reshape(28, 28).T for row in rows])
    assert np.array_equal(dataset.stimuli.select([f"train-{i:03d}" for i in range(90)]).pixels()[..., 0], upright)
    # On average a six is heavy below and a nine on the right; lying on their sides they would swap.
    six, nine = (dataset.stimuli.floats()[dataset.stimuli.category == c].mean(axis=(0, 3)) for c in ("six", "nine"))
    assert six[14:].sum() > 1.3 * six[:14].sum()
    assert nine[:, 14:].sum() > 1.3 * nine[:, :14].sum()


def test_digits69_shows_no_picture_twice(shared_data):
    dataset = open_dataset("digits69", root=shared_data)
    assert len(dataset.stimuli) == len(set(dataset.stimuli.pixel_digests())) == 100


def test_digits69_is_the_same_by_path_by_name_and_by_its_own_folder(shared_data, monkeypatch):
    by_name = open_dataset("digits69", root=shared_data)
    monkeypatch.setenv("PHOSPHENE_DATA", str(shared_data))
    others = [
        open_dataset("digits69"),
        open_dataset("digits69:S1", root=shared_data / "digits69"),
        open_dataset(shared_data / "digits69" / FILE),
    ]
    for other in others:
        assert other.trials().digest() == by_name.trials().digest()
        assert np.array_equal(other.stimuli.pixels(), by_name.stimuli.pixels())


def test_check_of_digits69_finds_nothing_wrong(shared_data):
    findings = check("digits69", root=shared_data)
    assert {f.level for f in findings} == {"ok"}
    assert {"checksum", "counts"} <= {f.what for f in findings}


def test_check_of_a_changed_digits69_names_the_checksum(shared_data, tmp_path):
    arrays = {k: v for k, v in scipy.io.loadmat(shared_data / "digits69" / FILE).items() if k[0] != "_"}
    arrays["fmriTrn"] = arrays["fmriTrn"] * 2
    scipy.io.savemat(tmp_path / FILE, arrays)
    levels = {f.what: f.level for f in check("digits69", root=tmp_path)}
    assert levels["checksum"] == "note"
    assert levels["counts"] == "ok"


# -- formats -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault(51)
@pytest.mark.parametrize("kind", ["mat", "mat73", "npz", "h5"])
def test_every_format_gives_the_same_dataset(arrays, tmp_path, kind):
    dataset = open_dataset(save(tmp_path, arrays, kind), options={"pixel_order": "F"})
    assert np.array_equal(dataset.trials().betas[:N_TRAIN], arrays["fmriTrn"].astype(np.float32))
    expected = arrays["stimTrn"].reshape(N_TRAIN, SIDE, SIDE).transpose(0, 2, 1)
    assert np.array_equal(dataset.stimuli.pixels()[:N_TRAIN, ..., 0], expected)
    assert list(dataset.stimuli.category[:2]) == ["1", "2"]


@pytest.mark.fault(51)
@pytest.mark.parametrize(("kind", "by_column"), [("mat", True), ("mat73", True), ("npz", False), ("h5", False)])
def test_matlab_files_unroll_pictures_by_column_and_others_by_row(arrays, tmp_path, kind, by_column):
    picture = open_dataset(save(tmp_path, arrays, kind)).stimuli.pixels()[0, ..., 0]
    row = arrays["stimTrn"][0].reshape(SIDE, SIDE)
    assert np.array_equal(picture, row.T if by_column else row)


def test_colour_pictures_unrolled_by_matlab_come_out_upright(arrays, tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (N_TRAIN, 4, 6, 3), dtype=np.uint8)
    rows = np.stack([p.flatten(order="F") for p in pictures])  # what MATLAB's picture(:) is
    path = save(tmp_path, {"fmriTrn": arrays["fmriTrn"], "stimTrn": rows})
    dataset = open_dataset(path, options={"image_shape": [4, 6, 3]})
    assert np.array_equal(dataset.stimuli.pixels(), pictures)
    assert not dataset.splits


@pytest.mark.parametrize("last", [False, True])
def test_pictures_that_have_axes_already_are_taken_as_they_are(arrays, tmp_path, last):
    pictures = np.random.default_rng(1).integers(0, 256, (N_TRAIN, 4, 6), dtype=np.uint8)
    stacked = np.moveaxis(pictures, 0, -1) if last else pictures
    path = save(tmp_path, {"fmriTrn": arrays["fmriTrn"], "stimTrn": stacked})
    assert np.array_equal(open_dataset(path).stimuli.pixels()[..., 0], pictures)


def test_arrays_may_have_any_name(arrays, tmp_path):
    path = save(tmp_path, {"X": arrays["fmriTrn"], "pics": arrays["stimTrn"], "areas": np.arange(N_VOXELS) % 3})
    options = {"train_betas": "X", "train_images": "pics", "roi": "areas", "roi_names.1": "V1", "roi_names.2": "V2"}
    trials = open_dataset(path, options=options).trials()
    assert trials.rois == ("V1", "V2")
    assert list(np.flatnonzero(trials.roi("V1"))) == [1, 4]
    assert trials.select(roi="V1+V2").n_voxels == 4


@pytest.mark.fault(44)
def test_rois_may_be_numbers_names_cells_or_overlapping_columns(arrays, tmp_path):
    names = np.array(["V1", "V2", "", "V1", "V2", "", "V1"])
    cells = names.astype(object)
    columns = np.zeros((N_VOXELS, 2), np.uint8)
    columns[[0, 3, 6], 0] = columns[[1, 3, 4], 1] = 1
    base = {"fmriTrn": arrays["fmriTrn"], "stimTrn": arrays["stimTrn"]}
    for roi, second in ((names, [1, 4]), (cells, [1, 4]), (columns, [1, 3, 4]), (columns.T, [1, 3, 4])):
        options = {"roi": "area", "roi_names.1": "V1", "roi_names.2": "V2"}
        trials = open_dataset(save(tmp_path, {**base, "area": roi}), options=options).trials()
        assert list(np.flatnonzero(trials.roi("V1"))) == [0, 3, 6]
        assert list(np.flatnonzero(trials.roi("V2"))) == second
    with pytest.raises(DataError, match="7 voxels"):
        open_dataset(save(tmp_path, {**base, "area": names[:5]}), options={"roi": "area"})


def test_cells_of_names_in_matlab_73_files_are_read(arrays, tmp_path):
    path = save(tmp_path, {"fmriTrn": arrays["fmriTrn"], "stimTrn": arrays["stimTrn"]}, "mat73")
    with h5py.File(path, "r+") as file:
        cells = file.create_dataset("area", (1, N_VOXELS), dtype=h5py.ref_dtype)
        for i in range(N_VOXELS):
            text = file.create_dataset(f"#refs#/{i}", data=np.array([[ord(c)] for c in f"V{i % 2 + 1}"], np.uint16))
            cells[0, i] = text.ref
        cells.attrs["MATLAB_class"] = np.bytes_("cell")
    trials = open_dataset(path, options={"roi": "area"}).trials()
    assert {r: int(trials.roi(r).sum()) for r in trials.rois} == {"V1": 4, "V2": 3}


def test_arrays_inside_a_matlab_structure_are_named_with_a_dot(arrays, tmp_path):
    path = save(tmp_path, {"data": {"X": arrays["fmriTrn"], "pics": arrays["stimTrn"]}})
    trials = open_dataset(path, options={"train_betas": "data.X", "train_images": "data.pics"}).trials()
    assert np.array_equal(trials.betas, arrays["fmriTrn"].astype(np.float32))
    with pytest.raises(DataError, match="has no field 'Y'"):
        open_dataset(path, options={"train_betas": "data.Y"})


@pytest.mark.fault(38)
def test_a_file_open_for_writing_elsewhere_says_so(arrays, tmp_path):
    path = save(tmp_path, arrays, "h5")
    code = f"import h5py, sys; f = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        with pytest.raises(DataError, match="open for writing in another program"):
            open_dataset(path)
        writer.stdin.close()
    assert len(open_dataset(path).trials()) == N_TRAIN + N_TEST


@pytest.mark.parametrize(("dtype", "top"), [("f8", 1.0), ("f4", 255.0), ("i4", 255), ("u1", 255)])
def test_pixels_of_any_range_become_the_same_bytes(arrays, tmp_path, dtype, top):
    original = arrays["stimTrn"]
    arrays["stimTrn"] = (original / 255 * top).astype(dtype) if dtype[0] == "f" else original.astype(dtype)
    arrays["stimTest"] = (arrays["stimTest"] / 255 * top).astype(dtype)
    got = open_dataset(save(tmp_path, arrays)).stimuli.pixels()[:N_TRAIN, ..., 0]
    assert np.array_equal(got, original.reshape(N_TRAIN, SIDE, SIDE).transpose(0, 2, 1))


def test_pixels_outside_the_stated_range_are_refused(arrays, tmp_path):
    arrays["stimTrn"] = arrays["stimTrn"] / 127.5 - 1
    with pytest.raises(DataError, match="go from -1 to"):
        open_dataset(save(tmp_path, arrays))


def test_scale_multiplies_the_betas(arrays, tmp_path):
    arrays["fmriTrn"], arrays["fmriTest"] = (np.rint(arrays[k] * 300).astype(np.int16) for k in ("fmriTrn", "fmriTest"))
    trials = open_dataset(save(tmp_path, arrays), options={"scale": 1 / 300}).trials()
    np.testing.assert_allclose(trials.betas[:N_TRAIN], arrays["fmriTrn"] / 300, rtol=1e-6)  # float32 has 7 digits


# -- repeats -----------------------------------------------------------------------------------------------------------


def test_rows_of_one_picture_become_repeats_of_one_stimulus(arrays, tmp_path):
    for row in (5, 9):
        arrays["stimTrn"][row], arrays["labelTrn"][row] = arrays["stimTrn"][3], arrays["labelTrn"][3]
    dataset = open_dataset(save(tmp_path, arrays))
    trials = dataset.trials()
    assert list(trials.stimuli[[3, 5, 9]]) == ["train-003"] * 3
    assert list(trials.table["repeat"][[3, 5, 9]]) == [0, 1, 2]
    assert len(dataset.stimuli) == N_TRAIN + N_TEST - 2
    assert dataset.split().unit == "stimulus"
    assert trials.average_repeats().table.set_index("stimulus").loc["train-003", "n_repeats"] == 3


@pytest.mark.fault(24)
def test_a_picture_on_both_sides_makes_the_file_split_one_by_trial_that_check_names(arrays, tmp_path):
    arrays["stimTest"][2], arrays["labelTest"][2] = arrays["stimTrn"][4], arrays["labelTrn"][4]
    path = save(tmp_path, arrays)
    dataset = open_dataset(path)
    split = dataset.split("file")
    assert split.unit == "trial"
    train, test = split.apply(dataset.trials())
    assert (len(train), len(test)) == (N_TRAIN, N_TEST)
    assert same_picture_across(split, dataset.trials(), dataset.stimuli) == [("train-004", "train-004")]
    problems = [f for f in check(path) if f.level == "problem"]
    assert any("train-004" in f.detail for f in problems)


def test_one_picture_with_two_labels_is_refused_with_both_rows(arrays, tmp_path):
    arrays["stimTrn"][5] = arrays["stimTrn"][4]
    with pytest.raises(DataError, match=r"train-005 says '2', row train-004 says '1'"):
        open_dataset(save(tmp_path, arrays))


@pytest.mark.fault(27)
def test_a_picture_of_nan_is_missing_and_the_others_stay(arrays, tmp_path):
    arrays["stimTrn"] = arrays["stimTrn"].astype(float)
    arrays["stimTrn"][2] = np.nan
    with pytest.warns(PhospheneWarning, match=r"1 of 16 pictures .* row 2"):
        stimuli = open_dataset(save(tmp_path, arrays)).stimuli
    assert list(np.flatnonzero(~stimuli.present)) == [2]
    assert len(stimuli.available()) == N_TRAIN + N_TEST - 1
    with pytest.raises(DataError, match="train-002"):
        stimuli.pixels()


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(7)
def test_betas_and_pictures_of_different_length_are_refused_with_both_counts(arrays, tmp_path):
    arrays["stimTrn"] = arrays["stimTrn"][:-1]
    with pytest.raises(DataError, match=r"'fmriTrn'.* 12 rows but 'stimTrn' has 11"):
        open_dataset(save(tmp_path, arrays))


@pytest.mark.fault(11)
def test_another_voxel_count_on_the_test_side_is_refused_with_both_counts(arrays, tmp_path):
    arrays["fmriTest"] = arrays["fmriTest"][:, :-1]
    with pytest.raises(DataError, match=r"'fmriTrn'.* 7 voxels but 'fmriTest' has 6"):
        open_dataset(save(tmp_path, arrays))


@pytest.mark.fault(21)
def test_transposed_betas_are_recognised_and_the_option_mends_them(arrays, tmp_path):
    arrays["fmriTrn"], arrays["fmriTest"] = arrays["fmriTrn"].T, arrays["fmriTest"].T
    path = save(tmp_path, arrays)
    with pytest.raises(DataError, match="transposed=true"):
        open_dataset(path)
    assert open_dataset(path, options={"transposed": True}).trials().n_voxels == N_VOXELS


@pytest.mark.fault(12)
@pytest.mark.fault(13)
@pytest.mark.parametrize("dtype", ["<f2", ">f8", ">f4", "<i2", ">i4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_betas_of_any_number_type_and_layout_are_read(arrays, tmp_path, dtype, order):
    whole = np.random.default_rng(2).integers(0, 100, (N_TRAIN, N_VOXELS))
    arrays = {"fmriTrn": np.asarray(whole.astype(dtype), order=order), "stimTrn": arrays["stimTrn"]}
    betas = open_dataset(save(tmp_path, arrays, "npz")).trials().betas
    assert betas.dtype == np.dtype("=f4")
    assert np.array_equal(betas, whole)


@pytest.mark.fault(12)
def test_float16_betas_do_not_overflow_when_repeats_are_averaged(arrays, tmp_path):
    arrays = {"fmriTrn": np.full((N_TRAIN, N_VOXELS), 60000, np.float16), "stimTrn": arrays["stimTrn"][[0] * N_TRAIN]}
    averaged = open_dataset(save(tmp_path, arrays, "npz")).trials().average_repeats()
    assert np.array_equal(averaged.betas, np.full((1, N_VOXELS), np.float32(np.float16(60000))))


@pytest.mark.fault(20)
def test_complex_betas_are_refused(arrays, tmp_path):
    arrays["fmriTrn"] = arrays["fmriTrn"] + 1j
    with pytest.raises(DataError, match=r"'fmriTrn' in .*complex"):
        open_dataset(save(tmp_path, arrays))


@pytest.mark.fault(19)
def test_a_cell_array_instead_of_a_matrix_is_refused(arrays, tmp_path):
    cells = np.empty((N_TRAIN, N_VOXELS), dtype=object)
    cells[:] = "x"
    arrays["fmriTrn"] = cells
    with pytest.raises(DataError, match=r"'fmriTrn' in .* holds Python objects"):
        open_dataset(save(tmp_path, arrays))


@pytest.mark.fault(66)
@pytest.mark.fault(19)
def test_a_pickled_array_is_refused_and_its_payload_never_runs(arrays, tmp_path):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    for kind in ("npz", "npy", "mat"):
        path = tmp_path / f"evil.{kind}"
        if kind == "npz":
            np.savez(path, **{**arrays, "fmriTrn": np.array([Payload()], dtype=object)})
        elif kind == "npy":
            path = path.with_suffix(".mat")  # an .npy under another name is told by its content
            with open(path, "wb") as handle:
                np.save(handle, np.array([Payload()], dtype=object), allow_pickle=True)
        else:
            import pickle

            path.write_bytes(pickle.dumps(Payload()))
        with pytest.raises(DataError, match="pickle"):
            open_dataset(path)
        assert not (tmp_path / "ran").exists()


@pytest.mark.fault(37)
@pytest.mark.parametrize("kind", ["mat", "mat73", "npz", "h5"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_an_error_that_names_it(arrays, tmp_path, kind, share):
    path = save(tmp_path, arrays, kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match="pairs"):
        open_dataset(path)


def test_an_empty_file_and_a_web_page_are_told_apart(tmp_path):
    path = tmp_path / "pairs.mat"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        open_dataset(path)
    path.write_text("<!DOCTYPE html><html>Please log in</html>")
    with pytest.raises(DataError, match="web page"):
        open_dataset(path)
    path.write_text("hello")
    with pytest.raises(DataError, match=r"pairs\.mat"):
        open_dataset(path)


def test_a_missing_array_is_named_with_those_that_are_there(arrays, tmp_path):
    del arrays["stimTest"]
    with pytest.raises(DataError, match=r"no array 'stimTest'. Did you mean 'stimTrn'"):
        open_dataset(save(tmp_path, arrays))


def test_an_unknown_option_is_refused_with_the_nearest(arrays, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'image_shape'"):
        open_dataset(save(tmp_path, arrays), options={"image_shap": [5, 5]})


def test_a_picture_shape_that_does_not_fit_is_refused(arrays, tmp_path):
    with pytest.raises(ConfigError, match="30 values, each row has 25"):
        open_dataset(save(tmp_path, arrays), options={"image_shape": [5, 6]})


def test_a_file_without_pictures_gives_one_stimulus_per_row(arrays, tmp_path):
    path = save(tmp_path, {k: arrays[k] for k in ("fmriTrn", "fmriTest", "labelTrn", "labelTest")})
    dataset = open_dataset(path, options={"train_images": None, "test_images": None})
    assert dataset.stimuli.images is None
    assert len(dataset.stimuli) == N_TRAIN + N_TEST


@pytest.mark.fault(15)
@pytest.mark.fault(16)
def test_one_trial_and_one_voxel_can_be_read(arrays, tmp_path):
    path = save(tmp_path, {"fmriTrn": np.array([[1.5]]), "stimTrn": arrays["stimTrn"][:1]})
    assert open_dataset(path).trials().betas.shape == (1, 1)


def test_texts_of_any_length_in_hdf5_are_read_as_texts(tmp_path):
    """References and texts are both objects to numpy; only the first may be followed."""
    import h5py

    from phosphene.data import arrays

    with h5py.File(tmp_path / "names.h5", "w") as file:
        file["names"] = np.array(["house", "a longer name"], dtype=h5py.string_dtype())
    opened = arrays.open_arrays(tmp_path / "names.h5")
    assert list(opened["names"]) == ["house", "a longer name"]
