"""What makes a drawn picture the same whichever others are asked for."""

from __future__ import annotations

import numpy as np

from phosphene.models.batch_invariance import full_batches, group_noise, picture_rng


def test_noise_of_a_picture_depends_on_seed_id_and_part_alone():
    alone = group_noise(3, ["b"], 1, (4, 2))
    among = group_noise(3, ["a", "b", "c"], 1, (4, 2))
    np.testing.assert_array_equal(alone[0], among[1])
    assert alone.dtype == np.float32
    for seed, stimulus, part in ((4, "b", 1), (3, "B", 1), (3, "b", 2)):
        assert (group_noise(seed, [stimulus], part, (4, 2)) != alone).all()


def test_the_stream_of_a_picture_is_the_one_that_published_runs_drew_from():
    # Another value would change every picture that was ever drawn with a seed.
    assert picture_rng(0, "dog", 2).integers(0, 1000, 5).tolist() == [22, 254, 520, 481, 84]


def test_batches_are_full_and_cover_each_row_once():
    for n, size in ((0, 4), (1, 4), (4, 4), (5, 4), (9, 2)):
        covered = []
        for part, filled in full_batches(n, size):
            rows = list(range(part.start, part.stop))
            assert len(filled) == size
            assert filled[: len(rows)] == rows
            assert set(filled[len(rows) :]) <= {rows[-1]}
            covered += rows

        assert covered == list(range(n))
