"""Miyawaki 2008 in both forms, and what goes wrong with such folders."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
import scipy.signal

from phosphene.data import open_dataset
from phosphene.data.miyawaki import FILE
from phosphene.errors import DataError
from phosphene.reporting.describe import check
from tests.data.miyawaki_layout import BLOCK, GRID, LAG, REST, Layout, make


@pytest.fixture
def folder(tmp_path) -> Layout:
    return make(tmp_path / "miyawaki2008")


def opened(folder: Layout, **options):
    return open_dataset("miyawaki", root=folder.root.parent, options=options)


def test_a_trial_is_the_mean_of_a_block_two_volumes_late_without_a_line(folder):
    trials = opened(folder).trials()
    series = []
    for kind, run in folder.shown:
        n = len(folder.lines(kind, run))
        x = np.zeros((n, int(folder.mask.sum())))
        for i, r in enumerate(folder.response[kind, run]):
            at = REST + i * (BLOCK + REST) + LAG
            x[at : at + BLOCK] = r
        x = scipy.signal.detrend(500 + x, axis=0)
        series += [x[REST + i * (BLOCK + REST) + LAG :][:BLOCK].mean(0) for i in range(len(folder.shown[kind, run]))]
    np.testing.assert_allclose(trials.betas, series, atol=2e-3)  # float32 of numbers near 500


def test_pictures_stand_upright_and_each_row_names_its_own(folder):
    dataset = opened(folder)
    trials = dataset.trials()
    shown = [p for pictures in folder.shown.values() for p in pictures]
    upright = dict(zip(dataset.stimuli.ids, dataset.stimuli.pixels()[..., 0], strict=True))
    np.testing.assert_array_equal([upright[i] for i in trials.stimuli], np.stack(shown) * 255)
    assert list(trials.table["run"]) == [r for (_, r), pictures in folder.shown.items() for _ in pictures]


def test_random_patterns_train_and_figures_shown_again_test(folder):
    dataset = opened(folder)
    train, test = dataset.split("miyawaki").apply(dataset.trials())
    assert len(train) == 3 * 6 and len(test) == 2 * 4
    assert len(test.stimulus_ids) == 3 and set(test.average_repeats().table["n_repeats"]) == {2, 4}
    assert set(dataset.stimuli.category) == {"random", "figure"}


def test_rois_are_joined_over_hemispheres_and_halves(folder):
    trials = opened(folder).trials()
    inside = folder.mask > 0
    np.testing.assert_array_equal(trials.roi("V1d"), folder.rois["V1d"][inside])
    np.testing.assert_array_equal(trials.roi("V1"), (folder.rois["V1d"] | folder.rois["V1v"])[inside])
    np.testing.assert_array_equal(trials.voxels[["i", "j", "k"]], np.argwhere(inside))


def test_the_matlab_file_opens_with_its_counts(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.uniform(size=(9, 28, 28))
    arrays = {"fmriTrn": rng.normal(size=(7, 5)), "fmriTest": rng.normal(size=(2, 5))}
    flat = pictures.transpose(0, 2, 1).reshape(9, -1)  # column by column, as MATLAB
    arrays |= {"stimTrn": flat[:7], "stimTest": flat[7:]}
    arrays |= {"labelTrn": np.arange(7)[:, None] % 4 + 2, "labelTest": np.array([[2], [3]])}
    (tmp_path / "miyawaki").mkdir()
    scipy.io.savemat(tmp_path / "miyawaki" / FILE, arrays)
    dataset = open_dataset("miyawaki:S1", root=tmp_path)
    assert dataset.name == "miyawaki"
    np.testing.assert_allclose(dataset.stimuli.pixels()[..., 0], pictures * 255, atol=0.51)  # rounded to whole numbers
    assert [len(t) for t in dataset.split("file").apply(dataset.trials())] == [7, 2]
    said = [str(f) for f in check("miyawaki", root=tmp_path)]
    assert any("7, 2, 5 rows and voxels; published: 107, 12, 967" in s for s in said)
    with pytest.raises(DataError, match="has no func"):
        open_dataset("miyawaki", root=tmp_path, options={"variant": "runs"})


# -- wrong folders -----------------------------------------------------------------------------------------------------


@pytest.mark.fault(47)
@pytest.mark.fault(7)
def test_labels_one_line_short_of_the_volumes_name_both_counts(folder):
    path = folder.labels("random", 2)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(
        DataError, match=rf"random_run02.* has {len(lines)} volumes, but its labels have {len(lines) - 1} lines"
    ):
        opened(folder)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1" + ",0" * 98, "99 values"),
        ("-1" + ",0" * 99, r"100 values \(-1, 0\)"),
        ("2" + ",0" * 99, r"\(0, 2\)"),
        ("x", "numbers"),
    ],
)
def test_a_label_that_is_no_pattern_is_named_with_its_line(folder, line, words):
    path = folder.labels("figure", 1)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], line, *lines[5:]]))
    with pytest.raises(DataError, match=f"line 5 of .*figure_run01_label.*{words}"):
        opened(folder)


@pytest.mark.fault(40)
def test_a_run_on_another_grid_or_elsewhere_is_refused(folder):
    n = len(folder.lines("random", 1))
    folder.save(folder.image("random", 1), np.zeros((*GRID[::-1], n), np.float32))
    with pytest.raises(DataError, match="transposed"):
        opened(folder)
    folder.save(folder.image("random", 1), np.zeros((*GRID, n), np.float32), np.diag([2.0, 3, 3, 1]))
    with pytest.raises(DataError, match="affines differ"):
        opened(folder)


@pytest.mark.fault(36)
def test_a_truncated_run_is_refused(folder):
    data = folder.image("random", 1).read_bytes()
    folder.image("random", 1).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"random_run01.*(truncated|damaged)"):
        opened(folder)


@pytest.mark.fault(53)
def test_a_missing_hemisphere_is_named(folder):
    (folder.root / "mask" / "RHV2d.nii.gz").unlink()
    with pytest.raises(DataError, match=r"has LHV2d\.nii\.gz but not the other hemisphere of V2d"):
        opened(folder)


@pytest.mark.fault(43)
def test_an_empty_mask_is_refused(folder):
    folder.save(folder.root / "mask" / "mask.nii.gz", np.zeros(GRID, np.int16))
    with pytest.raises(DataError, match="nowhere above 0"):
        opened(folder)


def test_missing_files_are_named(folder):
    folder.labels("random", 3).unlink()
    with pytest.raises(DataError, match="random_run03_label.csv is not there"):
        opened(folder)
    (folder.root / "mask" / "mask.nii.gz").unlink()
    with pytest.raises(DataError, match=r"mask\.nii\.gz is not there"):
        opened(folder)
    with pytest.raises(DataError, match="was looked for as func/"):
        open_dataset("miyawaki", root=folder.root / "mask")


def test_a_block_at_the_end_of_a_run_without_a_response_is_refused(folder):
    with pytest.raises(DataError, match="nothing is left of its response after 9 volumes"):
        opened(folder, lag_volumes=9)


@pytest.mark.fault(54)
def test_litter_is_no_run(folder):
    for name in (".DS_Store", "._data_random_run09.nii.gz", "data_random_run09.nii.gz.part"):
        (folder.root / "func" / name).write_bytes(b"x")
    assert len(opened(folder).trials()) == 26
    assert any("3, 2 random and figure runs; published: 20, 12" in str(f) for f in check("miyawaki", root=folder.root))
