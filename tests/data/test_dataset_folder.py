"""The folder format: what is read back is what was written, or an error."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from phosphene.data import open_dataset, read_dataset, write_dataset
from phosphene.data.dataset_folder import INDEX, ScaledRows
from phosphene.errors import ConfigError, DataError
from phosphene.reporting.describe import check
from phosphene.types import Dataset, Split, Stimuli, Trials


def make_dataset() -> Dataset:
    rng = np.random.default_rng(0)
    ids = np.array(["a,b", "NA", '"q"', "line\nbreak", "é", "001"], dtype=object)  # what spreadsheets spoil
    stimuli = Stimuli(
        ids,
        rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
        captions=(("one", "two, with comma"), (), ("naïve",), ('a "quote"',), ("=1+1",), ("x\ny",)),
        labels=pd.DataFrame({"face": [1, 0, 0, 1, 0, 1], "tool, big": [0, 0, 1, 1, 0, 0]}),
        category=np.array(["c1", "c2"] * 3, dtype=object),
        present=np.array([True] * 5 + [False]),
    )
    table = pd.DataFrame(
        {"stimulus": ids[[0, 1, 2, 3, 0, 5, 4]], "trial": [f"t{i}" for i in range(7)], "session": 1, "weight": np.pi}
    )
    voxels = pd.DataFrame(
        {"x": rng.normal(size=9), "noise_ceiling": rng.uniform(size=9).astype("f4"), "roi.V1": np.arange(9) < 4}
    )
    first = Trials(rng.normal(size=(7, 9)).astype("f4"), table, voxels, "ann/1", {"unit": "percent"})
    second = Trials(rng.normal(size=(7, 3)).astype("f4"), table.drop(columns="trial"), subject="bob")
    split = Split("own", ("a,b", "NA"), ("é", "001"), category_disjoint=False, note="mine")
    about = {"title": "A test", "citation": "None et al."}
    return Dataset("small", stimuli, {"ann/1": first, "bob": second}, {"own": split}, about)


@pytest.fixture
def dataset() -> Dataset:
    return make_dataset()


def test_everything_comes_back_as_it_was(dataset, tmp_path):
    back = read_dataset(write_dataset(dataset, tmp_path / "d"))
    assert back.name == dataset.name
    assert back.about == dataset.about
    assert back.stimuli.digest() == dataset.stimuli.digest()
    assert back.stimuli.captions == dataset.stimuli.captions
    assert list(back.stimuli.present) == list(dataset.stimuli.present)
    assert np.array_equal(back.stimuli.pixels(slice(0, 5)), dataset.stimuli.pixels(slice(0, 5)))
    assert list(back.subjects) == ["ann/1", "bob"]
    for name in dataset.subjects:
        old, new = dataset.trials(name), back.trials(name)
        assert new.digest() == old.digest()
        pd.testing.assert_frame_equal(new.table, old.table, check_dtype=False)
        pd.testing.assert_frame_equal(new.voxels, old.voxels)
        assert new.provenance == old.provenance
    assert back.splits == dataset.splits


def test_a_copy_of_a_copy_has_the_same_bytes(dataset, tmp_path):
    write_dataset(dataset, tmp_path / "a")
    write_dataset(read_dataset(tmp_path / "a"), tmp_path / "b")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_betas_and_pictures_are_memory_maps(dataset, tmp_path):
    back = read_dataset(write_dataset(dataset, tmp_path / "d"))
    assert isinstance(back.trials("bob").source, np.memmap)
    assert isinstance(back.stimuli.images, np.memmap)


def test_a_selection_is_written_as_it_is_seen(dataset, tmp_path):
    part = dataset.trials("ann/1").select(roi="V1", stimuli=["a,b", "é"])
    small = Dataset("part", dataset.stimuli.select(["é", "a,b"]), {"s": part})
    back = read_dataset(write_dataset(small, tmp_path / "d"))
    assert np.array_equal(back.trials().betas, part.betas)
    assert np.array_equal(back.stimuli.pixels(), dataset.stimuli.pixels([4, 0]))


@pytest.mark.fault(14)
def test_int16_with_a_scale_keeps_whole_multiples_exactly_and_halves_the_file(dataset, tmp_path):
    numbers = np.random.default_rng(1).integers(-32767, 32768, (7, 40)).astype(np.int16)
    table = dataset.trials("bob").table
    exact = Dataset("i", dataset.stimuli, {"s": Trials(ScaledRows(numbers, 1 / 300), table)})
    for kwargs in ({}, {"int16_scale": 1 / 300}):
        path = write_dataset(exact, tmp_path / f"d{len(kwargs)}", **kwargs)
        assert np.array_equal(np.load(path / "subjects/s/betas.npy"), numbers)
        assert np.array_equal(read_dataset(path).trials().betas, exact.trials().betas)
    np.testing.assert_allclose(exact.trials().betas, numbers / 300, rtol=1e-6)


@pytest.mark.parametrize(
    "rows", [slice(None), slice(3, 70, 2), [60, 1], 5, (slice(2, 9), slice(None, None, 3)), slice(0)]
)
def test_scaled_rows_are_the_product_however_they_are_asked_for(rows):
    numbers = np.random.default_rng(2).integers(-32767, 32768, (75, 9001)).astype(np.int16)  # more than one block
    got = ScaledRows(numbers, 1 / 300)[rows]
    assert got.dtype == np.float32
    assert np.array_equal(got, numbers[rows].astype(np.float32) * np.float32(1 / 300))


def test_betas_that_do_not_fit_int16_are_refused_and_nothing_is_left(dataset, tmp_path):
    with pytest.raises(DataError, match="do not fit int16"):
        write_dataset(dataset, tmp_path / "d", int16_scale=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_exists_is_overwritten_unless_asked(dataset, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    for replace in (False, True):
        with pytest.raises(ConfigError, match="left alone"):
            write_dataset(dataset, tmp_path / "precious", replace=replace)
    write_dataset(dataset, tmp_path / "d")
    with pytest.raises(ConfigError, match="already holds"):
        write_dataset(dataset, tmp_path / "d")
    write_dataset(dataset, tmp_path / "d", replace=True)
    assert (tmp_path / "precious" / "file").read_text() == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "precious"]


@pytest.mark.fault(62)
def test_a_folder_of_a_newer_format_is_refused_with_both_versions(dataset, tmp_path):
    path = write_dataset(dataset, tmp_path / "d")
    index = json.loads((path / INDEX).read_text())
    (path / INDEX).write_text(json.dumps({**index, "format_version": 7}))
    with pytest.raises(DataError, match=r"format version 7.*reads up to 1"):
        read_dataset(path)


@pytest.mark.parametrize("name", ["stimuli.csv", "images.npy", "subjects/bob/betas.npy", "subjects/bob/trials.csv"])
def test_a_missing_or_truncated_file_is_named_when_it_is_opened(dataset, tmp_path, name):
    for damage in ("cut", "gone"):
        path = write_dataset(dataset, tmp_path / damage)
        file = path / name
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:-3])
        else:
            file.unlink()
        with pytest.raises(DataError, match=name):
            read_dataset(path).trials("bob")
        problems = [f for f in check(path) if f.level == "problem"]
        assert any(name in f.detail or name in f.what for f in problems)


@pytest.mark.fault(39)
def test_one_flipped_byte_is_found_by_check(dataset, tmp_path):
    path = write_dataset(dataset, tmp_path / "d")
    assert all(f.level != "problem" for f in check(f"{path}:bob"))
    file = path / "subjects/bob/betas.npy"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    (problem,) = (f for f in check(f"{path}:bob") if f.level == "problem")
    assert problem.what == "subjects/bob/betas.npy"
    assert "SHA-256" in problem.detail


@pytest.mark.fault(66)
def test_a_pickled_array_in_the_folder_is_refused_and_never_runs(dataset, tmp_path):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    path = write_dataset(dataset, tmp_path / "d")
    file = path / "subjects/bob/betas.npy"
    np.save(file, np.array([Payload()], dtype=object), allow_pickle=True)
    index = json.loads((path / INDEX).read_text())
    index["files"]["subjects/bob/betas.npy"]["size"] = file.stat().st_size
    (path / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match="no plain array"):
        read_dataset(path).trials("bob")
    assert not (tmp_path / "ran").exists()


@pytest.mark.fault(113)
def test_an_index_that_points_outside_its_folder_is_refused(dataset, tmp_path):
    path = write_dataset(dataset, tmp_path / "d")
    text = (path / INDEX).read_text().replace("subjects/bob", "../outside")
    (path / INDEX).write_text(text)
    (tmp_path / "outside").mkdir()
    for name in ("betas.npy", "trials.csv"):
        (tmp_path / "outside" / name).write_bytes((path / "subjects/bob" / name).read_bytes())
    with pytest.raises(DataError, match="does not list"):
        read_dataset(path).trials("bob")


def test_a_subject_named_as_a_path_stays_inside_the_folder(dataset, tmp_path):
    evil = Dataset("e", dataset.stimuli, {"../../out": dataset.trials("bob")})
    path = write_dataset(evil, tmp_path / "d")
    assert read_dataset(path).trials("../../out").n_voxels == 3
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    with pytest.raises(DataError, match="cannot be a folder"):
        write_dataset(Dataset("e", dataset.stimuli, {"..": dataset.trials("bob")}), tmp_path / "x")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}', '{"format": "phosphene-dataset"}'])
def test_a_broken_index_is_named(dataset, tmp_path, text):
    path = write_dataset(dataset, tmp_path / "d")
    (path / INDEX).write_text(text)
    with pytest.raises(DataError, match=INDEX if "phosphene" not in text else "version"):
        open_dataset(path)


@pytest.mark.fault(81)
def test_an_error_while_writing_leaves_nothing_under_the_final_name(dataset, tmp_path):
    class Failing:
        shape = (7, 3)

        def __getitem__(self, rows):
            raise DataError("the source went away")

    broken = Dataset("b", dataset.stimuli, {"s": Trials(Failing(), dataset.trials("bob").table)})
    with pytest.raises(DataError, match="went away"):
        write_dataset(broken, tmp_path / "d")
    assert list(tmp_path.iterdir()) == []
