"""Figures: what is drawn is what was given, and nothing global is left behind."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from phosphene.errors import DataError
from phosphene.reporting import figures


def axes_of(figure) -> Axes:
    return figure.axes[0]


def test_mosaic_puts_every_picture_in_its_place_and_leaves_gaps_open():
    rng = np.random.default_rng(0)
    rows = [rng.random((3, 4, 5, 1)), rng.random((3, 4, 5, 3))]
    canvas = figures.mosaic(rows, gap=2)
    assert canvas.shape == (4 * 2 + 2, 5 * 3 + 2 * 2, 4)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            cell = canvas[r * 6 : r * 6 + 4, c * 7 : c * 7 + 5]
            expected = np.broadcast_to(np.round(picture * 255).astype(np.uint8), (4, 5, 3))
            np.testing.assert_array_equal(cell[..., :3], expected)
            assert (cell[..., 3] == 255).all()
    assert canvas[..., 3].sum() == 255 * 6 * 4 * 5


def test_pictures_out_of_range_or_undefined_are_clipped_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = figures.as_uint8(np.array([-1.0, 0.5, 2.0, np.nan, np.inf]).reshape(1, 1, 5, 1))
    assert shown[0, 0, :, 0].tolist() == [0, 128, 255, 0, 255]


def test_pictures_of_another_shape_are_an_error_that_shows_it():
    with pytest.raises(DataError, match=r"\(1, 2, 2, 4\)"):
        figures.as_uint8(np.zeros((1, 2, 2, 4)))
    with pytest.raises(DataError, match="one size"):
        figures.mosaic([np.zeros((1, 2, 2, 1)), np.zeros((1, 3, 3, 1))])


def test_plate_shows_seen_above_decoded_above_controls():
    levels = {"seen": 0.9, "decoded": 0.6, "noise": 0.3}
    n, side = 6, 8
    pictures = {name: np.full((n, side, side, 1), level) for name, level in levels.items()}
    figure = figures.picture_rows(
        pictures["seen"], pictures["decoded"], {"noise": pictures["noise"]}, captions=list("abcdef")
    )
    assert figure.get_size_inches()[0] == 10
    assert [t.get_text() for t in axes_of(figure).texts] == [*levels, *"abcdef"]
    image = np.asarray(Image.open(io.BytesIO(figures.png(figure, dpi=100))).convert("L")).astype(int)
    heights = {}
    for name, level in levels.items():
        mask = np.abs(image - round(level * 255)) <= 1
        assert mask.sum() > 0.1 * image.size, name  # three rows of pictures fill most of the figure
        heights[name] = np.flatnonzero(mask.mean(axis=1) > 0.5).mean()
    assert heights["seen"] < heights["decoded"] < heights["noise"]


def test_plate_without_seen_pictures_still_shows_the_decoded_ones():
    figure = figures.picture_rows(None, np.zeros((2, 28, 28, 3)))
    assert [t.get_text() for t in axes_of(figure).texts] == ["decoded"]


def test_similarity_sorts_by_group_and_keeps_the_diagonal():
    groups = ["b", "a", "b", "a"]
    matrix = np.arange(16.0).reshape(4, 4)
    drawn = axes_of(figures.similarity_figure(matrix, groups)).images[0].get_array()
    order = [1, 3, 0, 2]
    np.testing.assert_array_equal(drawn, matrix[np.ix_(order, order)])


def test_a_large_similarity_matrix_is_thinned_and_says_so():
    axes = axes_of(figures.similarity_figure(np.eye(1000, dtype=np.float32)))
    assert axes.images[0].get_array().shape == (400, 400)
    assert np.trace(axes.images[0].get_array()) == 400  # still the right pairs
    assert axes.get_xlabel() == "picture seen (every 2.5th of 1000)"


def test_chance_of_retrieval_is_top_over_gallery():
    table = pd.DataFrame(
        {"space": "p", "direction": "forward", "gallery": [2, 10, 50], "top": 1, "value": [0.9, 0.7, 0.4]}
    )
    lines = {line.get_label(): line for line in axes_of(figures.retrieval(table)).lines}
    gallery, chance = lines["chance"].get_data()
    np.testing.assert_allclose(chance, 1 / gallery)
    np.testing.assert_array_equal(lines["p, brain → picture"].get_ydata(), table["value"])


def test_histogram_counts_every_defined_voxel_and_names_the_undefined():
    r = np.r_[np.linspace(-0.9, 0.99, 500), np.nan, np.nan]
    axes = axes_of(figures.voxel_histogram(r))
    assert sum(patch.get_height() for patch in axes.patches) == 500
    assert axes.get_title(loc="left") == "502 voxels, 2 undefined"


@pytest.mark.fault(126)
def test_voxels_without_a_ceiling_are_counted_not_drawn_as_a_ceiling():
    r, ceiling = np.linspace(0, 0.9, 100), np.r_[np.zeros(30), np.full(60, 0.7), np.full(10, np.nan)]
    axes = axes_of(figures.voxel_histogram(r, ceiling))
    labels = axes.get_legend_handles_labels()[1]
    assert "ceiling (30 voxels with none)" in labels
    outline = axes.patches[0].get_xy()
    assert outline[:, 1].max() == 60


@pytest.mark.fault(123)
@pytest.mark.fault(126)
def test_nothing_but_nan_draws_without_a_warning():
    nothing = np.full(20, np.nan)
    rois = pd.DataFrame(
        {"roi": ["V1"], "n": [20], "value": [np.nan], "low": [np.nan], "high": [np.nan], "ceiling": [np.nan]}
    )
    scores = pd.DataFrame({"input": ["brain"], "metric": ["two_way.x"], "value": [np.nan]})
    scores = scores.assign(ci_low=np.nan, ci_high=np.nan, chance=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            figures.similarity_figure(np.full((3, 3), np.nan)),
            figures.voxel_histogram(nothing, nothing),
            figures.against_ceiling(nothing, nothing),
            figures.flat_map(nothing, nothing, nothing),
            figures.roi_bars(rois, "r"),
            figures.identification(scores, {"two_way.x": "x"}),
        ):
            assert figures.png(figure, dpi=50).startswith(b"\x89PNG")
            assert "</svg>" in figures.svg(figure)


@pytest.mark.fault(115)
def test_names_that_look_like_formulas_or_markup_are_drawn_as_they_are():
    names = ["$\\frac{", "<script>x</script>", "視覚野", "V1 & V2"]
    table = pd.DataFrame({"roi": names, "n": 5, "value": 0.3, "low": 0.2, "high": 0.4, "ceiling": 0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = figures.svg(figures.roi_bars(table, "r"))
    assert "<script" not in text
    assert "&lt;script&gt;x&lt;/script&gt;" in text
    assert "$\\frac{" in text
    assert "視覚野" in text


def test_svg_follows_the_reader_s_scheme_and_fonts():
    text = figures.svg(figures.voxel_histogram(np.linspace(0, 1, 50)))
    body = text.split("</style>", 1)[1]
    for name, (light, dark) in figures.PALETTE.items():
        assert f"--{name}:{light}" in text
        assert f"--{name}:{dark}" in text
        assert f": {light}" not in body
    assert "prefers-color-scheme:dark" in text
    assert "DejaVu" not in body


def test_same_figure_gives_the_same_svg():
    r = np.random.default_rng(0).random(100)
    assert figures.svg(figures.against_ceiling(r, r)) == figures.svg(figures.against_ceiling(r, r))


def test_style_of_the_session_is_left_alone():
    before = dict(mpl.rcParams)
    figures.png(figures.voxel_histogram(np.linspace(0, 1, 50)), dpi=50)
    assert dict(mpl.rcParams) == before


def test_importing_the_report_loads_no_matplotlib_and_figures_no_pyplot():
    code = (
        "import sys, phosphene.reporting, phosphene.reporting.html; assert 'matplotlib' not in sys.modules;"
        "from phosphene.reporting import figures; import numpy as np; figures.voxel_histogram(np.zeros(3));"
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
