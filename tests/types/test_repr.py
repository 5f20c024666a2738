"""What a person sees who types a name and presses return: counts and sizes, never every id."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phosphene.types import Dataset, Images, Latents, Split, Stimuli, Trials

N = 5000
IDS = [f"coco-{i:05d}" for i in range(N)]


def trials(subject="s01", n_rois=2):
    voxels = pd.DataFrame({f"roi.R{k}": np.ones(7, dtype=bool) for k in range(n_rois)})
    table = pd.DataFrame({"stimulus": [i for i in IDS for _ in range(2)]})
    return Trials(np.zeros((2 * N, 7), np.float32), table, voxels, subject=subject)


def stimuli(**more):
    return Stimuli(IDS, np.zeros((N, 8, 6, 3), np.uint8), **more)


def split(name="own"):
    return Split(name, tuple(IDS[:4000]), tuple(IDS[4000:]))


def test_a_data_set_shows_its_parts_one_a_line():
    lines = repr(Dataset("study", stimuli(), {"s01": trials(), "s02": trials("s02")}, {"own": split()})).split("\n")
    assert lines == [
        "Dataset(study",
        "  Stimuli(5000 of 8x6x3)",
        "  Trials(s01: 10000 trials of 5000 stimuli, 7 voxels, ROIs R0, R1)",
        "  Trials(s02: 10000 trials of 5000 stimuli, 7 voxels, ROIs R0, R1)",
        "  Split(own by stimulus: 4000 to train, 1000 to test))",
    ]


def test_many_subjects_and_splits_are_counted():
    people = {f"s{k}": trials(f"s{k}") for k in range(9)}
    shown = repr(Dataset("study", stimuli(), people, {f"kfold:10/{k}": split(f"kfold:10/{k}") for k in range(10)}))
    assert shown.count("Trials(") == 4 and "... 5 more subjects" in shown
    assert shown.count("Split(") == 4 and "... 6 more splits" in shown


def test_subjects_that_are_opened_when_asked_for_stay_closed():
    class Closed(Mapping):
        def __getitem__(self, name):
            raise AssertionError("opened")

        def __iter__(self):
            return iter(["s01", "s02"])

        def __len__(self):
            return 2

    assert "\n  subjects s01, s02" in repr(Dataset("study", stimuli(), Closed()))


def test_stimuli_say_what_is_known_of_them():
    labels = pd.DataFrame(np.zeros((N, 3), dtype=bool), columns=["cat", "dog", "cup"])
    known = stimuli(captions=(("a",),) * N, labels=labels, category=["a", "b"] * (N // 2), present=np.arange(N) > 1)
    assert repr(known) == "Stimuli(5000 of 8x6x3, 2 missing, captions, 3 labels, 2 categories)"
    assert repr(Stimuli(IDS)) == "Stimuli(5000 of no pictures)"


def test_decoded_things_show_their_sizes():
    samples = Images(np.repeat(IDS[:4], 3), np.zeros((12, 8, 6, 1), np.float32))
    assert repr(samples) == "Images(12 of 4 stimuli, 8x6x1)"
    assert repr(Images(IDS[:4], samples.pixels[:4])) == "Images(4, 8x6x1)"
    latents = Latents(IDS[:4], {"clip": np.zeros((4, 64)), "vq": np.zeros((4, 8, 8))})
    assert repr(latents) == "Latents(4 in clip 64, vq 8x8)"


def test_a_split_by_trial_and_one_that_keeps_categories_apart_say_so():
    shown = repr(Split("x", ("1",), ("2", "3"), unit="trial", category_disjoint=True))
    assert shown == "Split(x by trial: 1 to train, 2 to test, categories apart)"


@pytest.mark.parametrize("thing", [trials(n_rois=60), stimuli(), split(), Dataset("d", stimuli(), {"s": trials()})])
def test_no_repr_grows_with_ids_or_rois(thing):
    assert len(repr(thing)) < 300
    assert IDS[10] not in repr(thing)


def test_a_notebook_shows_at_most_twelve_pictures_as_they_are():
    pixels = np.random.default_rng(0).random((20, 96, 48, 3), dtype=np.float32)
    html = Images(["<b>", *IDS[:19]], pixels)._repr_html_()
    encoded = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(encoded) == 12
    assert "&lt;b&gt;" in html and "<b>" not in html
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[0]))))
    np.testing.assert_array_equal(first, np.round(pixels[0] * 255).astype(np.uint8))


def test_a_notebook_shows_the_first_trials_and_reads_no_betas():
    class Unread:
        shape = (2 * N, 7)

        def __getitem__(self, rows):
            raise AssertionError("read")

    html = Trials(Unread(), trials().table, trials().voxels, "s<1")._repr_html_()
    assert "10000 trials of 5000 stimuli" in html and "s&lt;1" in html
    assert html.count("<tr") == 1 + 5 and IDS[0] in html
