"""Responses and areas are read in words, at chance where there is nothing to read."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.analysis.spaces import Pool
from phosphene.analysis.words import beaten_share, caption_cosines
from phosphene.errors import DataError, NotAvailable
from phosphene.flow import analyse
from tests.analysis.conftest import fitted
from tests.flow.conftest import write_pair_file

QUICK = {"repeats": 40, "n_raised": 8}


def test_true_captions_rank_high_and_face_areas_read_like_faces(seer):
    summary = analyse(seer, "words", QUICK).summary
    assert summary.startswith("Decoded responses read above chance")
    found = seer.folder.table("analysis", "words", "table.csv").set_index(["input", "measure"])["value"]
    assert found["truth", "beaten"] > found["brain", "beaten"] > 0.65
    # 40 pictures, captions of one picture and pictures of one category alike: a standard error of about 0.05.
    assert found["shuffled", "beaten"] == pytest.approx(0.5, abs=0.15)
    assert found["brain", "top5"] > found["brain", "top1"] > 1 / 40
    areas = seer.folder.table("analysis", "words", "areas.csv")
    best = areas[areas["rank"] <= 5].groupby("target")["category"].agg(list)
    assert best["faces"].count("face") >= 4
    assert best["places"].count("house") >= 3
    p_own = areas.drop_duplicates("target").set_index("target")["p_own"]
    assert p_own["faces"] < 0.05
    assert p_own["places"] < 0.05
    assert np.isnan(p_own["early"])


def test_a_pool_of_ones_own_is_read_from_a_file_without_test_captions(seer, tmp_path):
    own = seer.stimuli.select(seer.sides(0)[1].stimulus_ids).captions[0][0]
    file = tmp_path / "pool.txt"
    file.write_text(f"a cat\n\n  a   red boat \n{own}\na cat\n", encoding="utf-8")
    assert "with 2 captions of the file given" in analyse(seer, "words", {"pool": str(file), "rois": []}).summary
    nearest = seer.folder.table("analysis", "words", "nearest.csv")
    assert set(nearest["caption"]) == {"a cat", "a red boat"}
    with pytest.raises(DataError, match="cannot be read"):
        analyse(seer, "words", {"pool": str(tmp_path / "none.txt")})
    file.write_text("one\n")
    with pytest.raises(DataError, match="two captions or more"):
        analyse(seer, "words", {"pool": str(file)})


def test_a_recipe_without_texts_is_read_by_its_pictures_where_a_network_knows_them(linear, tmp_path, networks):
    summary = analyse(linear, "words", {"n": 12, "rois": []}).summary
    assert "what the lab's CLIP sees in decoded pictures" in summary
    opened = fitted("linear", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz"))})
    with pytest.raises(NotAvailable, match="no text side"):
        analyse(opened, "words")


def test_beaten_share_is_that_of_counting():
    rng = np.random.default_rng(0)
    pool, captions = rng.integers(0, 9, (5, 30)) / 4, rng.integers(0, 9, (5, 4)) / 4
    counted = (pool[:, None] < captions[:, :, None]).mean(-1) + (pool[:, None] == captions[:, :, None]).mean(-1) / 2
    np.testing.assert_allclose(beaten_share(pool, captions), counted, atol=1e-12)


def test_the_caption_an_area_stands_for_is_found_and_random_directions_have_none():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(50, 32))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    pool = Pool(np.arange(50).astype(str).astype(object), np.full(50, ""), unit, np.zeros(32))
    common = 5 * rng.normal(size=32)  # what any voxels drive counts for nothing
    null = common + rng.normal(size=(99, 32))
    cosines, random = caption_cosines(common + 20 * unit[7], null, pool)
    assert cosines.argmax() == 7
    assert (random.max(axis=1) < cosines.max()).all()
    assert random.shape == (99, 50)
    # Without a direction of its own a set is one of the random ones: its best beats half of theirs, on average over 40
    # with a standard error of 0.29 / sqrt(40) = 0.046.
    beats = [
        np.mean(random.max(axis=1) < caption_cosines(common + rng.normal(size=32), null, pool)[0].max())
        for _ in range(40)
    ]
    assert np.mean(beats) == pytest.approx(0.5, abs=0.2)
