"""Between two responses a linear reader passes evenly, and who does not read goes nowhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import spearmanr

from phosphene.analysis.interpolate import forward_share, largest_step, monotonicity, pairs_of
from phosphene.errors import DataError
from phosphene.flow import analyse
from phosphene.reporting import drawing, report
from phosphene.types import Trials
from tests.analysis.conftest import fitted
from tests.flow.conftest import write_pair_file


def values(opened):
    return opened.folder.table("analysis", "interpolate", "table.csv").set_index(["input", "measure"])["value"]


def test_pixels_read_from_voxels_pass_step_by_step_and_the_report_carries_the_animation(tmp_path):
    file = write_pair_file(tmp_path / "pairs.npz", n_train=40, n_test=24, n_voxels=144, size=12)
    opened = fitted("mirror", tmp_path / "run", {"data.name": str(file)})
    answer = analyse(opened, "interpolate", {"n": 8, "steps": 9})
    assert answer.summary.startswith("Between two responses the picture passes from one to the other")
    found = values(opened)
    assert found["brain", "monotonic"] == pytest.approx(1, abs=0.01)
    assert found["brain", "forward"] == pytest.approx(1, abs=0.02)
    assert found["brain", "largest_step"] < 0.4
    assert found["wrong", "monotonic"] < 0.9
    gif = opened.folder.path / "analysis" / "interpolate" / "moving.gif"
    with Image.open(gif) as image:
        assert image.n_frames > 9
        assert image.info["loop"] == 2  # shown three times, and then it stands still
    page = report(opened.folder).read_text()
    assert "data:image/gif;base64," in page
    assert "The same ways in motion" in page
    gif.write_bytes(b"GIF89a")
    assert "data:image/gif" not in report(opened.folder).read_text()


def test_the_ends_are_what_is_decoded_from_the_two_responses(tmp_path):
    opened = fitted("linear", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz"))})
    analyse(opened, "interpolate", {"n": 3, "steps": 5})
    steps = opened.folder.table("analysis", "interpolate", "steps.csv")
    assert steps.groupby("pair")["t"].agg(list).map(lambda t: t == [0, 0.25, 0.5, 0.75, 1]).all()
    np.testing.assert_allclose(steps[steps["t"] == 0]["to_start"], 1, atol=1e-5)
    np.testing.assert_allclose(steps[steps["t"] == 1]["to_end"], 1, atol=1e-5)
    assert len(set(steps["start"]) | set(steps["end"])) == 6


def test_a_decoder_that_jumps_about_does_not_pass(tmp_path):
    opened = fitted("dice", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz", n_test=60))})
    answer = analyse(opened, "interpolate", {"n": 20, "steps": 9})
    # Ends are nearest to themselves by construction, which makes some monotonicity; steps between lead nowhere.
    assert values(opened)["brain", "monotonic"] < 0.6
    assert values(opened)["brain", "forward"] < 0.75
    assert "20 pairs" in answer.summary


def test_monotonicity_is_spearmans_and_a_jump_is_the_whole_way():
    rng = np.random.default_rng(0)
    t, x = np.linspace(0, 1, 12), rng.normal(size=12)
    assert monotonicity(t, x) == pytest.approx(spearmanr(t, x).statistic, abs=1e-9)
    assert monotonicity(t, np.zeros(12)) == 0
    assert forward_share(np.array([0.0, 1, 1, 0])) == pytest.approx(0.5)
    assert largest_step(np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])) == 1
    assert np.isnan(largest_step(np.ones((4, 2))))


def test_pairs_share_nobody_and_prefer_two_categories_of_one_session():
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in range(12)], "session": np.arange(12) % 3})
    trials, category = Trials(np.zeros((12, 2), "f4"), table), np.array(list("aabb") * 3)
    pairs = pairs_of(trials, category, 9, np.random.default_rng(0))
    assert sorted(i for pair in pairs for i in pair) == list(range(12))
    assert pairs_of(trials, category, 2, np.random.default_rng(0)) == pairs[:2]
    first = pairs[0]
    assert category[first[0]] != category[first[1]]
    assert first[0] % 3 == first[1] % 3
    with pytest.raises(DataError, match="two pairs"):
        pairs_of(trials.take(np.arange(3)), None, 2, np.random.default_rng(0))


def test_a_gif_holds_its_frames_in_order(tmp_path):
    frames = np.stack([np.full((4, 5, 3), v, np.uint8) for v in (0, 120, 255)])
    (tmp_path / "a.gif").write_bytes(drawing.gif(frames, 50, 1))
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 3
        assert "loop" not in image.info
        for i, value in enumerate((0, 120, 255)):
            image.seek(i)
            assert np.asarray(image.convert("RGB")).mean() == pytest.approx(value, abs=2)
            assert image.info["duration"] == 50
