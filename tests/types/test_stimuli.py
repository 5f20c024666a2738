from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from phosphene.errors import DataError, SplitError
from phosphene.types import Dataset, Images, Latents, SelectedRows, Split, Stimuli, Trials


def pictures(n=4, size=6, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def test_selection_keeps_pictures_captions_labels_and_categories_together():
    images = pictures()
    stimuli = Stimuli(
        list("abcd"),
        images,
        captions=tuple((c,) for c in "abcd"),
        labels=pd.DataFrame({"x": [1, 0, 0, 1]}),
        category=list("pqrs"),
    )
    chosen = stimuli.select(["d", "b"]).select(["b", "d"])
    np.testing.assert_array_equal(chosen.pixels(), images[[1, 3]])
    assert chosen.captions == (("b",), ("d",))
    assert list(chosen.category) == ["q", "s"]
    assert list(chosen.labels["x"]) == [False, True]


@pytest.mark.parametrize("from_disk", [False, True])
def test_the_images_of_a_selection_are_those_selected(from_disk, tmp_path):
    images = pictures()
    np.save(tmp_path / "images.npy", images)
    stored = np.load(tmp_path / "images.npy", mmap_mode="r") if from_disk else images
    chosen = Stimuli(list("abcd"), stored).select(["d", "a", "b"]).select(["b", "d"])
    assert chosen.images.shape == (2, 6, 6, 3)
    np.testing.assert_array_equal(np.asarray(chosen.images), images[[1, 3]])
    np.testing.assert_array_equal(chosen.images[1], images[3])
    np.testing.assert_array_equal(chosen.images[:, :2, 1], images[[1, 3], :2, 1])
    np.testing.assert_array_equal(Stimuli(chosen.ids, chosen.images).pixels(), chosen.pixels())
    assert isinstance(chosen.images, SelectedRows) == from_disk


def test_a_selection_from_a_disk_is_not_read_before_it_is_indexed():
    class Disk:
        shape = (4, 6, 6, 3)
        asked: ClassVar = []

        def __getitem__(self, rows):
            self.asked.append(rows)
            return pictures()[rows]

    chosen = Stimuli(list("abcd"), Disk()).select(["a", "c"]).available()
    assert not Disk.asked
    np.testing.assert_array_equal(chosen.pixels(slice(1, 2)), pictures()[2:3])
    assert Disk.asked == [slice(2, 3)]


@pytest.mark.fault(26)
def test_an_absent_stimulus_is_named():
    with pytest.raises(DataError, match=r"1 of 2 stimulus ids.*: z"):
        Stimuli(list("abcd"), pictures()).select(["a", "z"])


@pytest.mark.fault(27)
def test_a_missing_picture_is_named_and_can_be_left_out():
    stimuli = Stimuli(list("abcd"), pictures(), present=np.array([True, False, True, True]))
    with pytest.raises(DataError, match="first 'b'"):
        stimuli.pixels()
    assert list(stimuli.available().ids) == ["a", "c", "d"]
    assert stimuli.pixel_digests()[1] == ""


def test_equal_pictures_have_equal_digests_and_others_do_not():
    images = pictures()
    images[2] = images[0]
    digests = Stimuli(list("abcd"), images).pixel_digests()
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_resizing_by_a_whole_factor_is_the_block_mean():
    images = pictures(size=8)
    small = Stimuli(list("abcd"), images).resized((4, 4))
    expected = (images / 255.0).reshape(4, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(small, expected, atol=1e-6)  # float32 sums of four values


def test_pictures_survive_the_trip_through_uint8():
    images = pictures()
    np.testing.assert_array_equal(Images(list("abcd"), images).as_uint8(), images)


def test_latents_must_match_their_ids():
    with pytest.raises(DataError, match="latents 'clip' has 3 rows for 2 ids"):
        Latents(["a", "b"], {"clip": np.zeros((3, 2))})


@pytest.mark.fault(24)
def test_the_same_id_on_both_sides_is_refused():
    with pytest.raises(SplitError, match=r"1 stimulus ids.*first 'b'"):
        Split("mine", ("a", "b"), ("b", "c"))


@pytest.mark.fault(22)
@pytest.mark.fault(23)
@pytest.mark.parametrize(("train", "test", "side"), [((), ("a",), "training"), (("a",), (), "test")])
def test_an_empty_side_is_refused(train, test, side):
    with pytest.raises(SplitError, match=f"the {side} set of split 'mine' is empty"):
        Split("mine", train, test)


def test_the_digest_of_a_split_ignores_order_but_not_sides():
    a = Split("x", ("a", "b"), ("c",))
    assert a.digest == Split("y", ("b", "a"), ("c",)).digest
    assert a.digest != Split("x", ("c",), ("a", "b")).digest


def test_a_split_of_other_data_says_so():
    trials = Trials(np.zeros((2, 1), np.float32), pd.DataFrame({"stimulus": ["a", "b"]}), subject="s1")
    with pytest.raises(SplitError, match="s1 has no trial in the test set"):
        Split("x", ("a",), ("q",)).apply(trials)


def test_an_unknown_subject_or_split_suggests_the_known():
    trials = Trials(np.zeros((2, 1), np.float32), pd.DataFrame({"stimulus": ["a", "b"]}), subject="s1")
    data = Dataset("d", Stimuli(["a", "b"]), {"subj01": trials}, {"file": Split("file", ("a",), ("b",))})
    with pytest.raises(DataError, match="Did you mean 'subj01'"):
        data.trials("sub01")
    with pytest.raises(SplitError, match="Did you mean 'file'"):
        data.split("fil")
