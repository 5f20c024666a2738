"""A round trip that closes perfectly and still says nothing about the brain."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from phosphene.errors import ConfigError, DataError
from phosphene.flow import analyse
from tests.analysis.conftest import fitted
from tests.flow.conftest import write_pair_file

N_TEST = 60


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Pixels written into voxels and read back: 144 voxels for 144 pixels."""
    folder = tmp_path_factory.mktemp("mirror")
    file = write_pair_file(folder / "pairs.npz", n_train=60, n_test=N_TEST, n_voxels=144, size=12)
    return fitted("mirror", folder / "run", {"data.name": str(file)})


def values(opened):
    return opened.folder.table("analysis", "cycle", "table.csv").set_index(["input", "measure"])["value"]


def test_writing_pixels_into_voxels_closes_the_cycle_perfectly_and_is_called_what_it_is(mirror):
    answer = analyse(mirror, "cycle")
    found = values(mirror)
    assert found["cycle", "two_way.pixels"] == 1
    assert found["cycle", "pixcorr"] == pytest.approx(1, abs=1e-5)  # float32 through a factor of 100 and back
    assert found["cycle", "ssim.2d"] == pytest.approx(1, abs=1e-5)
    # Its predictions are no responses: correlations of 144 unrelated voxels over 60 pictures average to about
    # 1 / sqrt(60 * 144) = 0.01 when independent, and to some 0.13 when, as here, a few causes drive them all.
    assert abs(found["cycle", "response_r"]) < 0.3
    assert answer.summary.startswith("The cycle says nothing about the brain")
    record = json.loads((mirror.folder.path / "analysis" / "cycle" / "analysis.json").read_text())
    assert record["facts"]["is_circular"] is True
    assert f"r = {found['cycle', 'response_r']:.3f}" in answer.summary


def test_shuffled_pairing_and_wrong_pictures_are_at_chance(mirror):
    analyse(mirror, "cycle")
    found = values(mirror)
    # A mean over 60 items, each uniform on 0-1 under chance: standard error 0.29 / sqrt(60) = 0.037. The two classes
    # of the pictures cluster the ranks, hence a wide allowance of four of these.
    for control in ("shuffled", "wrong"):
        assert found[control, "two_way.pixels"] == pytest.approx(0.5, abs=0.15)
    assert found["mean", "two_way.pixels"] == pytest.approx(0.5, abs=1e-6)  # ties
    assert found["wrong", "pixcorr"] < 0.8


def test_real_noise_takes_from_a_cycle_what_the_brain_never_had(mirror):
    analyse(mirror, "cycle")
    found = values(mirror)
    # The pixels are not in the measured responses, and with noise of that size they do not come back either.
    assert found["noisy", "pixcorr"] < 0.9
    assert found["noisy", "pixcorr"] < found["cycle", "pixcorr"]


def test_an_encoder_that_knows_the_brain_keeps_its_cycle_at_real_noise(linear):
    answer = analyse(linear, "cycle")
    found = values(linear)
    assert found["cycle", "two_way.pixels"] > found["noisy", "two_way.pixels"] > 0.7
    assert found["brain", "two_way.pixels"] > 0.7
    assert found["cycle", "response_r"] > 0.05
    assert "measured responses to the same pictures give" in answer.summary
    # The same number as an independent computation on the arrays themselves.
    recipe, test = linear.recipe(0), linear.sides(0)[1].average_repeats()
    predicted = recipe.encode(linear.stimuli.select(test.stimuli)).betas
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, test.betas.T, strict=True) if a.std() > 0]
    assert found["cycle", "response_r"] == pytest.approx(np.mean(r), abs=1e-4)


def write_pictures(folder, pixels):
    folder.mkdir()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(folder / f"{i:03d}.png")
    return folder


def test_novel_pictures_come_from_a_folder_and_have_no_measured_side(mirror, tmp_path):
    pixels = np.random.default_rng(5).integers(0, 256, (7, 12, 12, 1), dtype=np.uint8)
    folder = write_pictures(tmp_path / "novel", pixels)
    answer = analyse(mirror, "cycle", {"images": str(folder)})
    assert "7 pictures of the folder given" in answer.summary
    found = values(mirror)
    assert found["cycle", "two_way.pixels"] == 1
    assert "brain" not in found.index.get_level_values("input")


def test_pictures_that_trained_the_recipe_are_refused(mirror, tmp_path):
    trained = mirror.stimuli.select(mirror.sides(0)[0].stimulus_ids[:4]).pixels()
    novel = np.random.default_rng(5).integers(0, 256, (3, 12, 12, 1), dtype=np.uint8)
    folder = write_pictures(tmp_path / "mixed", np.concatenate([novel, trained]))
    with pytest.raises(DataError, match=r"4 of 7 pictures .* trained this recipe, first '003\.png'"):
        analyse(mirror, "cycle", {"images": str(folder)})


def test_a_cycle_in_which_pictures_hang_on_their_company_is_called_so(mirror, tmp_path):
    assert "not inductive" not in analyse(mirror, "cycle").summary
    file = write_pair_file(tmp_path / "pairs.npz", n_train=30, n_test=15, n_voxels=144, size=12)
    opened = fitted("herd", tmp_path / "run", {"data.name": str(file)})
    assert (
        "'herd' is not inductive: what comes back of a picture depends on which others"
        in analyse(opened, "cycle").summary
    )


def test_every_fold_goes_round_with_its_own_recipe(tmp_path):
    file = write_pair_file(tmp_path / "pairs.npz", n_train=30, n_test=15, n_voxels=64)
    opened = fitted("mirror", tmp_path / "run", {"data.name": str(file), "split": "kfold:3"})
    assert (
        "45 test pictures, none of them paired in training; recipe of all 3 folds" in analyse(opened, "cycle").summary
    )
    assert values(opened)["cycle", "two_way.pixels"] == 1


def test_a_recipe_that_only_decodes_is_refused_with_the_reason(tmp_path):
    opened = fitted("deaf", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz"))})
    with pytest.raises(
        ConfigError, match="'cycle' needs a recipe that can decode and encode, but 'deaf' cannot encode"
    ):
        analyse(opened, "cycle")
    assert not (opened.folder.path / "analysis").exists()
