"""Your own betas, table and pictures become a data set, or a message that names the line."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image

from phosphene.data import import_dataset, import_table, splits
from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.reporting.describe import check

N, N_VOXELS = 8, 5
SHOWN = ["cat", "dog", "cat", "car", "cup", "dog", "car", "cup"]


def make_own(tmp_path):
    """Betas, a table and four pictures, as a lab has them."""
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(N, N_VOXELS)).astype("f4")
    np.save(tmp_path / "betas.npy", betas)
    table = pd.DataFrame({"stimulus": SHOWN, "session": 1, "run": np.arange(N) // 4, "category": "x"})
    table.to_csv(tmp_path / "trials.csv", index=False)
    (tmp_path / "pictures").mkdir()
    for name in ("cat", "dog", "car", "cup"):
        Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).save(tmp_path / "pictures" / f"{name}.png")
    return {
        "betas": tmp_path / "betas.npy",
        "trials": tmp_path / "trials.csv",
        "images": tmp_path / "pictures",
        "out": tmp_path / "set",
    }


@pytest.fixture
def own(tmp_path):
    return make_own(tmp_path)


def edit(own, **columns):
    table = pd.read_csv(own["trials"]).assign(**columns)
    table.to_csv(own["trials"], index=False)


def test_the_dataset_holds_what_the_files_hold(own):
    dataset = import_table(**own, subject="ann")
    trials = dataset.trials("ann")
    assert np.array_equal(trials.betas, np.load(own["betas"]))
    assert list(trials.stimuli) == SHOWN
    assert list(trials.table["repeat"]) == [0, 0, 1, 0, 0, 1, 1, 1]
    for name in dataset.stimuli.ids:
        expected = np.asarray(Image.open(own["images"] / f"{name}.png"))
        assert np.array_equal(dataset.stimuli.select([name]).pixels()[0], expected)
    assert not [f for f in check(own["out"]) if f.level == "problem"]


@pytest.mark.parametrize("kind", ["csv", "csv with names", "mat", "npz", "h5"])
def test_betas_may_come_in_any_format(own, tmp_path, kind):
    betas = np.load(own["betas"])
    path = tmp_path / f"betas.{kind[:3].strip()}"
    if kind.startswith("csv"):
        pd.DataFrame(betas, columns=[f"v{i}" for i in range(N_VOXELS)]).to_csv(
            path, index=False, header="names" in kind
        )
    elif kind == "mat":
        scipy.io.savemat(path, {"betas": betas, "note": "text"})
    elif kind == "npz":
        np.savez(path, betas=betas)
    else:
        with h5py.File(path, "w") as file:
            file["group/betas"] = betas
            file["mask"] = np.ones((2, 2, 2))
    dataset = import_table(**{**own, "betas": path, **({"key": "betas"} if kind == "mat" else {})})
    # CSV keeps nine digits, more than float32 has.
    np.testing.assert_allclose(dataset.trials().betas, betas, rtol=1e-6)


def test_several_matrices_in_one_file_ask_for_a_name(own, tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones((N, 2)), b=np.ones((N, 3)))
    with pytest.raises(DataError, match=r"holds 2 arrays of two axes, .* a \(8, 2\), b \(8, 3\)"):
        import_table(**{**own, "betas": tmp_path / "two.npz"})


def test_voxels_captions_sides_and_scale_are_taken_along(own, tmp_path):
    pd.DataFrame({"x": [0.5] * 5, "noise_ceiling": [0.1] * 5, "V1": [1, 1, 0, 0, 0], "roi.V2": [0, 0, 1, 1, 1]}).to_csv(
        tmp_path / "v.csv", index=False
    )
    captions = {"cat": ["a cat", "it sits"], "dog": ["a dog"], "car": "a red car", "cup": ["tea"]}
    (tmp_path / "c.json").write_text(json.dumps(captions))
    edit(own, side=["train", "test", "train", "train", "train", "test", "train", "train"])
    dataset = import_table(**own, voxels=tmp_path / "v.csv", captions=tmp_path / "c.json", scale=0.5)
    trials = dataset.trials()
    assert trials.rois == ("V1", "V2")
    assert np.array_equal(trials.betas, np.load(own["betas"]) / 2)
    assert dataset.stimuli.captions == (("a cat", "it sits"), ("a dog",), ("a red car",), ("tea",))
    assert dataset.split("file").test == ("dog",)
    assert splits.resolve(dataset, trials, "kfold:4", 0)


@pytest.mark.fault(7)
def test_betas_and_table_that_differ_by_one_say_which_side_and_the_runs(own):
    np.save(own["betas"], np.ones((N + 1, N_VOXELS)))
    with pytest.raises(DataError, match=r"9 rows but .*trials\.csv has 8: betas has 1 too many.*0: 4, 1: 4"):
        import_table(**own)
    assert not own["out"].exists()


@pytest.mark.fault(21)
def test_transposed_betas_are_recognised(own):
    np.save(own["betas"], np.load(own["betas"]).T)
    with pytest.raises(DataError, match="--transposed"):
        import_table(**own)
    assert import_table(**own, transposed=True).trials().n_voxels == N_VOXELS


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_with_other_separators_is_named_as_such(own, separator):
    own["trials"].write_text(own["trials"].read_text().replace(",", separator))
    with pytest.raises(DataError, match="separated by"):
        import_table(**own)


def test_betas_of_three_axes_are_asked_for_as_a_matrix(own):
    np.save(own["betas"], np.load(own["betas"])[:, :, None])
    with pytest.raises(DataError, match=r"Save betas as one array \(trials, voxels\)"):
        import_table(**own)


@pytest.mark.fault(9)
def test_duplicate_trial_ids_are_refused(own):
    edit(own, trial=[1, 2, 3, 3, 4, 5, 6, 7])
    with pytest.raises(DataError, match=r"first '3' in row 3"):
        import_table(**own)


@pytest.mark.fault(27)
def test_missing_pictures_leave_holes_aligned_by_name(own):
    (own["images"] / "dog.png").unlink()
    with pytest.warns(PhospheneWarning, match="1 of 4 stimuli have no picture .* 'dog'"):
        dataset = import_table(**own)
    assert list(dataset.stimuli.present) == [True, False, True, True]
    expected = np.asarray(Image.open(own["images"] / "cup.png"))
    assert np.array_equal(dataset.stimuli.select(["cup"]).pixels()[0], expected)


@pytest.mark.fault(29)
def test_a_truncated_picture_stops_the_import_with_its_name(own):
    data = (own["images"] / "cup.png").read_bytes()
    (own["images"] / "cup.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cup\.png is truncated"):
        import_table(**own)
    assert not own["out"].exists()


@pytest.mark.fault(32)
def test_captions_missing_empty_and_very_long_are_told(own, tmp_path):
    long = " ".join(["word"] * 10_000)
    (tmp_path / "c.csv").write_text(f"stimulus,caption\ncat,{long}\ndog,  \ncar,a car\nunicorn,none\n")
    with pytest.warns(PhospheneWarning) as caught:
        dataset = import_table(**own, captions=tmp_path / "c.csv")
    told = " ".join(str(w.message) for w in caught)
    assert "2 of 4 stimuli have no caption" in told
    assert "10000 words" in told
    assert dataset.stimuli.captions == ((long,), (), ("a car",), ())
    assert {"captions"} <= {f.what for f in check(own["out"]) if f.level == "note"}


@pytest.mark.fault(32)
def test_captions_that_are_not_utf8_name_the_line(own, tmp_path):
    (tmp_path / "c.csv").write_bytes("stimulus,caption\ncat,fine\ndog,na\u00efve\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"c\.csv is not UTF-8: line 3 holds the byte 0xef"):
        import_table(**own, captions=tmp_path / "c.csv")


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.csv", "", "is empty"),
        ("c.csv", "stimulus,text\ncat,x\n", "'caption' is missing"),
        ("c.csv", "stimulus,caption\nlion,x\n", "no caption for any"),
        ("c.json", "[]", "but are a list"),
        ("c.json", '{"cat": 3}', "'cat'"),
        ("c.json", "{", "line 1"),
    ],
)
def test_unusable_captions_are_refused(own, tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        import_table(**own, captions=tmp_path / name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"session": ["1"] * 7 + ["first"]}, r"'session' in line 9 .* 'first'"),
        ({"stimulus": ["cat"] * 7 + [" "]}, "line 9 .* no stimulus"),
        ({"category": ["x", "x", "y"] + ["x"] * 5}, "'cat' has several categories"),
        ({"side": ["train"] * 7 + ["left"]}, "'side' in line 9"),
    ],
)
def test_a_wrong_cell_of_the_table_is_named(own, change, words):
    edit(own, **change)
    with pytest.raises(DataError, match=words):
        import_table(**own)


def test_a_table_without_stimuli_is_refused_with_its_columns(own):
    own["trials"].write_text("stimuli,run\n" + "cat,1\n" * N)
    with pytest.raises(DataError, match=r"needs a column 'stimulus'\. Did you mean 'stimuli'"):
        import_table(**own)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("V1\n1\n0\n", "has 2 rows, but betas has 5 voxels"),
        ("V1\n1\n0\n2\n0\n0\n", "line 4 has '2'"),
        ("V1\n1\n0\nno\n0\n0\n", "line 4 .* 'no'"),
    ],
)
def test_a_wrong_voxel_table_is_refused(own, tmp_path, text, words):
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        import_table(**own, voxels=tmp_path / "v.csv")


def test_a_cell_of_betas_that_is_no_number_is_named(own, tmp_path):
    (tmp_path / "b.csv").write_text("1,2\n" * 4 + "1,oops\n" + "1,2\n" * 3)
    with pytest.raises(DataError, match=r"row 4 .*'oops'"):
        import_table(**{**own, "betas": tmp_path / "b.csv"})


@pytest.mark.fault(66)
def test_pickled_betas_are_refused(own, tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickle"):
        import_table(**{**own, "betas": tmp_path / "o.npy"})


def test_a_dataset_by_name_is_imported_whole(shared_data, tmp_path):
    dataset = import_dataset("digits69", tmp_path / "set", root=shared_data)
    assert dataset.trials().betas.shape == (100, 3092)
    assert dataset.split("file").unit == "stimulus"


def test_a_folder_that_is_taken_is_refused_before_anything_is_read(own):
    import_table(**own)
    own["images"].rename(own["images"].with_name("elsewhere"))  # would be an error of its own, were it looked for
    with pytest.raises(ConfigError, match="already holds a data set"):
        import_table(**own)
