import numpy as np
import pytest

from phosphene.betas import HrfLibrary
from phosphene.errors import ConfigError, DataError
from phosphene.lab import hrf_shapes


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Our library in the layout of the published one: 501 rows of 0.1 s, 20 columns, impulse responses."""
    path = tmp_path_factory.mktemp("hrf") / "library.tsv"
    np.savetxt(path, hrf_shapes.responses(np.arange(501) / 10, 0.1).T, delimiter="\t")
    return path


def test_designs_are_those_of_the_closed_form_at_any_onset():
    onset = np.array([0.0, 3.21, 9.0, 15.55])
    ours = HrfLibrary().designs(onset, np.full(4, 3.0), 60, 4 / 3)
    assert (
        np.abs(ours - hrf_shapes.designs(onset, 60, 4 / 3, 3.0)).max() < 1e-4
    )  # what is left of a response after 50 s


def test_every_trial_has_its_own_duration():
    library = HrfLibrary()
    both = library.designs(np.array([2.0, 20.0]), np.array([1.0, 6.0]), 50, 1.0)
    for column, duration in ((0, 1.0), (1, 6.0)):
        alone = library.designs(np.array([2.0, 20.0]), np.full(2, duration), 50, 1.0)
        np.testing.assert_array_equal(both[..., column], alone[..., column])


def test_a_table_in_the_published_layout_gives_the_responses_it_was_made_from(table):
    library = HrfLibrary.read(table)
    lag = np.array([-1.0, 0.0, 1.3, 4.05, 6.2, 12.0, 30.0])
    # Convolving boxes of 0.1 s delays nothing but is known only every 0.1 s; between, and at the ends, it differs a little.
    np.testing.assert_allclose(library.responses(lag, 3.0), hrf_shapes.responses(lag, 3.0), atol=0.01)
    assert len(library) == 20
    assert abs(library.canonical - hrf_shapes.CANONICAL) <= 1


def test_every_response_of_a_table_peaks_at_one(table):
    """GLMsingle divides a whole library by one maximum, and makes each peak 1 only later."""
    time = np.arange(0, 30, 0.1)
    np.testing.assert_allclose(HrfLibrary.read(table).responses(time, 3.0).max(axis=1), 1, atol=1e-12)


def test_a_table_is_over_at_its_end_and_before_onset(table):
    late = HrfLibrary.read(table).responses(np.array([-0.1, 60.0]), 3.0)
    assert (late == 0).all()


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "text.tsv").write_text("not numbers\n")
    with pytest.raises(DataError, match="table of numbers"):
        HrfLibrary.read(tmp_path / "text.tsv")
    np.savetxt(tmp_path / "wide.tsv", np.ones((20, 501)))
    with pytest.raises(DataError, match="transposed"):
        HrfLibrary.read(tmp_path / "wide.tsv")
    with pytest.raises(ConfigError, match="duration_s=-1"):
        HrfLibrary().responses(np.zeros(1), -1.0)
