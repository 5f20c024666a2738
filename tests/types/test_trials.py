import numpy as np
import pandas as pd
import pytest

from phosphene.errors import DataError
from phosphene.types import Trials


def make(n_trials=12, n_voxels=5, **kwargs):
    betas = np.arange(n_trials * n_voxels, dtype=np.float32).reshape(n_trials, n_voxels)
    table = pd.DataFrame(
        {
            "stimulus": [f"s{i % 4}" for i in range(n_trials)],
            "session": np.arange(n_trials) // 6,
            "trial": np.arange(100, 100 + n_trials),
        }
    )
    voxels = pd.DataFrame({"roi.V1": [True, True, False, False, False], "roi.V2": [False, True, True, False, False]})
    return Trials(betas, table, voxels, subject="s01", **kwargs)


def test_selecting_shares_memory_with_the_source():
    trials = make()
    assert np.shares_memory(trials.betas, trials.source)
    assert np.shares_memory(trials.select(session=1).betas, trials.source)


def test_a_memory_map_is_not_read_by_selection(tmp_path):
    class Spy(np.ndarray):
        reads = 0

        def __getitem__(self, item):
            Spy.reads += 1
            return super().__getitem__(item)

    source = np.zeros((12, 5), np.float32).view(Spy)
    trials = Trials(source, make().table, make().voxels, "s01")
    chosen = trials.select(roi="V1", session=0, stimuli=["s1"]).take_voxels(np.array([True, False]))
    assert Spy.reads == 0
    assert chosen.betas.shape == (2, 1)
    assert Spy.reads > 0


def test_selections_compose():
    trials = make()
    a = trials.select(session=1).select(stimuli=["s2"]).select(roi="V2")
    b = trials.select(session=1, stimuli=["s2"], roi="V2")
    np.testing.assert_array_equal(a.betas, b.betas)
    np.testing.assert_array_equal(a.betas, trials.betas[np.ix_([6, 10], [1, 2])])
    assert list(a.table["trial"]) == [106, 110]


def test_repeats_are_numbered_in_order_of_presentation():
    assert list(make().select(stimuli=["s1"]).table["repeat"]) == [0, 1, 2]


def test_average_repeats_is_the_mean_over_trials_of_a_stimulus():
    trials = make()
    averaged = trials.average_repeats()
    expected = pd.DataFrame(trials.betas).groupby(trials.stimuli, sort=False).mean().to_numpy()
    np.testing.assert_allclose(averaged.betas, expected, rtol=1e-6)
    assert list(averaged.table["n_repeats"]) == [3, 3, 3, 3]
    assert averaged.member_keys() == frozenset(trials.keys)


def test_average_repeats_keeps_the_members_of_a_selection():
    part = make().select(session=1)
    assert part.average_repeats().member_keys() == frozenset(part.keys)


def test_roi_expressions_join_and_intersect():
    trials = make()
    np.testing.assert_array_equal(trials.roi("V1+V2"), [True, True, True, False, False])
    np.testing.assert_array_equal(trials.roi("V1 & V2"), [False, True, False, False, False])


def test_digest_ignores_memory_layout_and_byte_order_but_not_values():
    trials = make()
    same = trials.with_betas(np.asfortranarray(trials.betas.astype(">f4")))
    other = trials.with_betas(trials.betas + np.float32(1e-3))
    assert trials.digest() == same.digest() != other.digest()


@pytest.mark.fault(42)
def test_a_wrong_roi_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(DataError, match=r"no ROI 'v1'.*Did you mean 'V1'.*V1, V2"):
        make().select(roi="v1")


@pytest.mark.fault(43)
def test_an_empty_roi_says_how_large_the_others_are():
    with pytest.raises(DataError, match=r"no voxel of s01 is left.*V1 2, V2 2"):
        make().take_voxels(np.zeros(5, bool), "V1 & V4")


@pytest.mark.fault(7)
@pytest.mark.parametrize(("n_betas", "side"), [(13, "betas has 1 too many"), (11, "the table has 1 too many")])
def test_one_trial_too_many_names_the_side(n_betas, side):
    with pytest.raises(DataError, match=side):
        Trials(np.zeros((n_betas, 5), np.float32), make().table, subject="s01")


@pytest.mark.fault(9)
def test_duplicate_trial_ids_are_refused_with_the_row():
    table = make().table.assign(trial=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 3])
    with pytest.raises(DataError, match=r"first '3' in row 11"):
        Trials(np.zeros((12, 5), np.float32), table)


@pytest.mark.fault(21)
def test_a_transposed_matrix_is_named_as_such():
    with pytest.raises(DataError, match="transposed"):
        Trials(np.zeros((5, 12), np.float32), make().table)


@pytest.mark.fault(15)
def test_one_trial_and_one_voxel_work():
    one = Trials(np.ones((1, 1), np.float32), pd.DataFrame({"stimulus": ["a"]}))
    assert one.average_repeats().betas.shape == (1, 1)
