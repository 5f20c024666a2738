"""A stimulated area brings forth what it stands for, exactly its voxels are changed, and random voxels do nothing of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from phosphene.analysis.effects import Effect, category_table, dimension_p
from phosphene.analysis.region_targets import (
    AMOUNTS,
    Edit,
    StandIns,
    StimulationTarget,
    category_contrast,
    moments,
    standing_in,
    stimulated,
    targets,
)
from phosphene.analysis.stimulate import StimulateOptions
from phosphene.errors import ConfigError, DataError
from phosphene.flow import analyse
from phosphene.types import Trials
from tests.analysis.conftest import fitted

AREAS = {"faces": "face", "bodies": "body", "words": "word", "places": "house"}


def values(opened):
    return opened.folder.table("analysis", "stimulate", "table.csv").set_index(["input", "measure"])["value"]


# -- known answers -----------------------------------------------------------------------------------------------------


def test_every_selective_area_brings_forth_its_own_category_and_no_other_one_more(seer):
    answer = analyse(seer, "stimulate", {"repeats": 60, "n": 20, "pictures": 2, "captions": 300})
    assert answer.summary.startswith("Every area brings forth its own category")
    found = values(seer)
    table = seer.folder.table("analysis", "stimulate", "categories.csv")
    for area, own in AREAS.items():
        assert found[area, "own_p"] == pytest.approx(1 / 61)  # no random set of 60 comes near
        assert found[area, "own_rise"] > 0.1
        assert found[area, "named_after"] > found[area, "named_random"]
        of_area = table[table["target"] == area].set_index("category")
        assert of_area["excess"].idxmax() == own
        assert of_area["z"].idxmax() == own
        assert of_area.loc[own, "p_fdr"] < 0.05
    # A linear decoder makes the same of the same step, whatever the response.
    assert found["faces", "consistency"] == pytest.approx(1, abs=1e-3)
    for file in ("rise.png", "pictures.png", "categories.png", "dimensions.csv", "captions.csv"):
        assert (seer.folder.path / "analysis" / "stimulate" / file).is_file()


def test_early_areas_do_not_bring_forth_faces(seer):
    analyse(seer, "stimulate", {"rois": ["V1", "V2+V3"], "repeats": 60, "n": 10, "pictures": 0, "captions": 0})
    table = seer.folder.table("analysis", "stimulate", "categories.csv").set_index(["target", "category"])
    for area in ("V1", "V2+V3"):
        assert table.loc[(area, "face"), "p_rise"] > 0.05
    assert "own_rise" not in set(seer.folder.table("analysis", "stimulate", "table.csv")["measure"])


def test_a_decoder_that_ignores_the_brain_brings_forth_nothing(tmp_path):
    data = {"data.name": "insilico", "data.options": {"n_train": 120, "n_test": 30, "n_voxels": 300}}
    opened = fitted("deaf", tmp_path / "run", data)
    answer = analyse(opened, "stimulate", {"repeats": 40, "pictures": 0})
    assert answer.summary.startswith("No area brings forth its own category")
    assert "Read in the decoded pixels" in answer.summary  # it has no latents
    assert (
        opened.folder.table("analysis", "stimulate", "table.csv").query("measure == 'dimensions'")["value"] < 0.05
    ).all()


def test_a_recipe_without_texts_is_read_by_the_mean_pictures_of_categories(linear, tmp_path):
    np.savez(tmp_path / "sets.npz", mine=np.array([3, 1, 2]), other=np.arange(400) < 5)
    answer = analyse(linear, "stimulate", {"sets": str(tmp_path / "sets.npz"), "repeats": 20, "n": 5, "pictures": 1})
    assert "pixel_pca" in answer.summary
    assert values(linear)["mine", "voxels"] == 3
    assert values(linear)["other", "voxels"] == 5


def test_an_unknown_area_or_set_is_named(linear, tmp_path):
    with pytest.raises(DataError, match="no ROI 'FFB'. Did you mean 'FFA'"):
        analyse(linear, "stimulate", {"rois": ["FFB"]})
    np.savez(tmp_path / "sets.npz", far=np.array([400]))
    with pytest.raises(DataError, match="positions below 400"):
        analyse(linear, "stimulate", {"sets": str(tmp_path / "sets.npz")})
    with pytest.raises(ValueError, match="takes no amount"):
        StimulateOptions(mode="silence", amount=3)


# -- which voxels ------------------------------------------------------------------------------------------------------


def people(*rois: str) -> Trials:
    voxels = pd.DataFrame({f"roi.{r}": np.arange(40) // 4 == i for i, r in enumerate(rois)})
    return Trials(np.zeros((2, 40), "f4"), pd.DataFrame({"stimulus": ["a", "b"]}), voxels)


@pytest.mark.parametrize(
    ("rois", "expected"),
    [
        (("V1", "V4", "FFA", "OFA", "PPA"), {"faces": 2, "places": 1, "early": 1, "intermediate": 1, "late": 3}),
        (("V1v", "FFA-1", "FFA-2", "mTL-faces", "VWFA-2", "streams-early", "streams-ventral"),
         {"faces": 3, "words": 1, "early": 1, "late": 1}),
        (("LHEarlyVis", "RHPPA", "LHLOC"), {"places": 1, "early": 1, "intermediate": 1, "late": 1}),
        (("LVC", "HVC"), {"early": 1, "late": 1}),
    ],
)  # fmt: skip
def test_areas_are_found_under_the_names_of_every_data_set(rois, expected):
    found = {t.name: len(t.voxels) // 4 for t in targets(people(*rois), None)}
    assert found == expected


def test_a_named_roi_keeps_the_category_of_its_kind_and_a_missing_preset_is_refused():
    trials = people("FFA-1", "OFA", "V1")
    assert targets(trials, ["FFA-1+OFA"])[0].categories == ("face",)
    assert targets(trials, ["V1"])[0].categories == ()
    with pytest.raises(ConfigError, match="no ROI of 'bodies', which is known as EBA"):
        targets(trials, ["bodies"])
    with pytest.raises(ConfigError, match="no ROI that is known by name"):
        targets(people("A", "B"), None)


def test_random_sets_are_of_equal_size_elsewhere_and_alike_in_noise_ceiling():
    rng = np.random.default_rng(0)
    ceiling = rng.beta(1, 4, 2000)
    voxels = np.argsort(-ceiling)[:400:4]  # an area of good voxels, as areas are
    matched = StandIns(voxels, ceiling, 2000)
    assert matched.outside
    drawn = matched.draw(50, rng)
    for one in drawn:
        assert len(set(one)) == len(voxels)
        assert not set(one) & set(voxels)
    # Within bins of an eighth ceilings are free, hence no equality; unmatched sets are far off.
    assert ks_2samp(ceiling[np.concatenate(drawn)], ceiling[voxels]).statistic < 0.1
    assert ks_2samp(ceiling, ceiling[voxels]).statistic > 0.7


def test_a_target_too_large_to_stand_in_for_is_drawn_from_everywhere_at_its_size():
    matched = StandIns(np.arange(70), np.r_[np.full(70, 0.9), np.full(30, 0.1)], 100)
    assert not matched.outside
    assert {len(set(s)) for s in matched.draw(5, np.random.default_rng(0))} == {70}


# -- how ---------------------------------------------------------------------------------------------------------------


def test_an_edit_changes_these_voxels_by_exactly_that_and_no_other():
    rng = np.random.default_rng(0)
    betas, mean, spread = rng.normal(3, 2, (6, 9)).astype("f4"), rng.normal(size=9), rng.uniform(1, 2, 9)
    voxels = np.array([1, 4, 7])
    expected = {
        "raise": betas[:, voxels] + 1.5 * spread[voxels],
        "set": np.tile(mean[voxels] + 1.5 * spread[voxels], (6, 1)),
        "silence": np.tile(mean[voxels], (6, 1)),
        "scale": mean[voxels] + 1.5 * (betas[:, voxels] - mean[voxels]),
    }
    assert set(expected) == set(AMOUNTS)
    rest = np.setdiff1d(np.arange(9), voxels)
    for mode, there in expected.items():
        out = Edit(mean, spread, mode, 1.5)(betas, voxels)
        np.testing.assert_allclose(out[:, voxels], there, rtol=1e-6)  # float32
        np.testing.assert_array_equal(out[:, rest], betas[:, rest])
    pattern = rng.normal(size=9)
    step = (Edit(mean, spread, "raise", 2.0, pattern)(betas, voxels) - betas)[:, voxels] / spread[voxels]
    np.testing.assert_allclose(np.sqrt(np.square(step).mean(axis=1)), 2, rtol=1e-5)
    assert (np.sign(step[0]) == np.sign(pattern[voxels])).all()


def test_moments_and_contrast_are_those_of_numpy():
    rng = np.random.default_rng(1)
    betas = rng.normal(50, 3, (30, 4)).astype("f4")
    trials = Trials(betas, pd.DataFrame({"stimulus": [f"s{i}" for i in range(30)]}))
    mean, spread = moments(trials)
    np.testing.assert_allclose(mean, betas.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(spread, betas.std(axis=0), rtol=1e-5)
    category = np.array(list("abc") * 10)
    means = {c: betas[category == c].mean(axis=0) for c in "abc"}
    found = category_contrast(trials, category, "b", spread)
    np.testing.assert_allclose(found, (means["b"] - (means["a"] + means["c"]) / 2) / spread, rtol=1e-3, atol=1e-5)


def test_several_sets_come_one_after_another_under_the_stimuli_of_the_trials():
    trials = people("A", "B")
    edit = Edit(np.zeros(40), np.ones(40), "raise", 1.0)
    ((part, found),) = stimulated(trials, [np.array([0]), np.array([5, 6])], edit)
    assert part == slice(0, 2)
    assert list(found.stimuli) == ["a", "b", "a", "b"]
    np.testing.assert_array_equal(found.betas.nonzero()[0], [0, 1, 2, 2, 3, 3])
    assert len(set(standing_in(trials, np.array([0, 0]), trials.betas).table["trial"])) == 2


# -- tests of dimensions -----------------------------------------------------------------------------------------------


def test_dimensions_that_move_are_found_and_the_others_are_left():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 10, 300)
    null = scale * rng.normal(size=(100, 300))
    shift = scale * rng.normal(size=300)
    assert (dimension_p(shift, null) > 0.05).mean() > 0.98
    shift[:30] += 7 * scale[:30]
    p = dimension_p(shift, null)
    assert (p[:30] < 0.05).mean() > 0.9
    assert (p[30:] < 0.05).mean() < 0.03
    still = np.zeros((100, 300))
    np.testing.assert_array_equal(dimension_p(np.zeros(300), still), 1)


def test_a_table_of_categories_refuses_an_effect_in_a_space_without_any():
    area = StimulationTarget("V1", "V1", (), np.array([0, 1]))
    edit = Edit(np.zeros(8), np.ones(8), "raise", 1.0)
    effect = Effect(
        target=area,
        edit=edit,
        matched=StandIns(area.voxels, None, 8),
        own=None,
        shift=np.zeros(3),
        null_shift=np.zeros((20, 3)),
        p_dimensions=np.ones(3),
        p_shift=1.0,
        consistency=float("nan"),
        scores=None,
        embeddings=np.zeros((2, 3)),
    )
    with pytest.raises(DataError, match="'V1' was stimulated in a space without categories"):
        category_table([effect], ["face", "house"])
