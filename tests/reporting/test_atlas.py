"""What a person sees of a data set on one plate, and the figures printed beside it."""

from __future__ import annotations

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from phosphene.cli import main
from phosphene.data import open_dataset
from phosphene.data import oracle as yardstick
from phosphene.errors import DataError
from phosphene.reporting import atlas, describe, flatmap
from phosphene.types import Dataset, Stimuli, Trials

SMALL = {"size": "small", "n_train": 40, "n_test": 8, "n_voxels": 200}


@pytest.fixture(scope="module")
def insilico() -> Dataset:
    return open_dataset("insilico", options=SMALL)


def trials(voxels: pd.DataFrame) -> Trials:
    return Trials(np.zeros((2, len(voxels)), "f4"), pd.DataFrame({"stimulus": ["a", "b"]}), voxels, "s")


def dataset(voxels: pd.DataFrame, pictures: bool = False) -> Dataset:
    images = np.zeros((2, 8, 12, 1), np.uint8) if pictures else None
    return Dataset("set", Stimuli(np.array(["a", "b"], dtype=object), images), {"s": trials(voxels)})


def titles(figure: Figure) -> set[str]:
    return {axes.get_title(loc="left") for axes in figure.axes} - {""}


# -- regions -----------------------------------------------------------------------------------------------------------


def test_a_voxel_belongs_to_the_smallest_region_that_holds_it():
    masks = {"roi.cortex": [1, 1, 1, 1, 0], "roi.V1": [0, 1, 1, 0, 0], "roi.V1 fovea": [0, 0, 1, 0, 0]}
    of, names = flatmap.regions(trials(pd.DataFrame(masks).astype(bool)))
    assert [names[i] if i >= 0 else "" for i in of] == ["cortex", "V1", "V1 fovea", "cortex", ""]


def test_only_the_largest_regions_are_named_and_each_has_a_colour_of_its_own():
    n = flatmap.MOST_ROIS + 3
    label = np.repeat(np.arange(n), 1 + np.arange(n) % 7)
    t = trials(pd.DataFrame({f"roi.{i}": label == i for i in range(n)}))
    of, names = flatmap.regions(t)
    sizes = np.bincount(label)
    smallest_shown = min(sizes[int(name)] for name in names)
    assert len(names) == flatmap.MOST_ROIS
    assert all(sizes[i] <= smallest_shown for i in range(n) if str(i) not in names)
    assert (of[label == int(names[0])] == 0).all()
    assert len(set(flatmap.region_colours(t).values())) == flatmap.MOST_ROIS


# -- flat maps ---------------------------------------------------------------------------------------------------------


def pixel(figure: Figure, u: float, v: float) -> np.ndarray:
    image = figure.axes[0].images[0]
    left, right, low, high = image.get_extent()
    array = image.get_array()
    return np.asarray(
        array[int((v - low) / (high - low) * array.shape[0]), int((u - left) / (right - left) * array.shape[1])]
    )


@pytest.fixture
def square() -> pd.DataFrame:
    u, v = np.meshgrid(np.arange(10.0), np.arange(8.0))
    u, v = u.ravel(), v.ravel()
    ceiling = np.where(v > 4, u / 20, 0.0)
    return pd.DataFrame({"u": u, "v": v, "noise_ceiling": ceiling, "roi.left": u < 5, "roi.right": u >= 5})


def test_every_place_of_the_map_has_the_colour_of_the_voxel_there(square):
    t, figure = trials(square), Figure()
    flatmap.surface(figure.add_subplot(), t, "regions")
    colours = flatmap.region_colours(t)
    for u, v in square[["u", "v"]].to_numpy():
        assert np.allclose(pixel(figure, u, v)[:3], to_rgb(colours["left" if u < 5 else "right"]))


def test_voxels_whose_ceiling_is_zero_or_unknown_stay_grey(square):
    square.loc[(square["u"] == 9) & (square["v"] == 7), "noise_ceiling"] = np.nan
    figure = Figure()
    flatmap.surface(figure.add_subplot(), trials(square), "ceiling")
    grey = np.array([np.ptp(pixel(figure, u, v)[:3]) < 1e-6 for u, v in square[["u", "v"]].to_numpy()])
    assert np.array_equal(grey, ~(square["noise_ceiling"].to_numpy() > 0))


def test_beyond_the_sheet_the_map_is_empty(square):
    square["u"] += np.where(square["u"] >= 5, 30.0, 0.0)  # two hemispheres
    figure = Figure()
    flatmap.surface(figure.add_subplot(), trials(square), "regions")
    assert pixel(figure, 20.0, 4.0)[3] == 0
    assert pixel(figure, 4.0, 4.0)[3] == 1


def test_angles_differ_in_hue_and_not_in_lightness():
    lab = pytest.importorskip("skimage.color").rgb2lab(flatmap._hue(np.linspace(-np.pi, np.pi, 73)))
    assert np.ptp(lab[:, 0]) < 4  # of 100: out-of-gamut blues are clipped a little
    assert np.allclose(lab[0], lab[-1])
    assert np.linalg.norm(np.diff(lab[:, 1:], axis=0), axis=1).min() > 1  # no two neighbours alike, at 5 degrees


def test_only_what_the_voxel_table_knows_is_drawn(square):
    assert flatmap.map_kinds(square) == ("regions", "ceiling")
    assert flatmap.map_kinds(square.assign(prf_x=0.0, prf_y=1.0)) == ("regions", "ceiling", "eccentricity", "angle")
    assert flatmap.map_kinds(square.drop(columns="u")) == ()
    assert flatmap.map_kinds(square.assign(noise_ceiling=np.nan)) == ("regions",)
    unknown = pd.DataFrame({"u": [np.nan], "v": [np.nan], "roi.V1": [True]})
    assert flatmap.map_kinds(unknown) == ()


# -- the plate ---------------------------------------------------------------------------------------------------------


def test_the_plate_of_the_lab_shows_pictures_maps_and_ceilings(insilico):
    figure = atlas.atlas(insilico)
    assert titles(figure) == {*flatmap.TITLES.values(), "Noise ceilings (voxels)"}
    shown = [
        axes.images[0].get_array()
        for axes in figure.axes
        if axes.images and axes.images[0].get_array().shape == (32, 32, 3)
    ]
    assert len(shown) == 20
    known = {picture.tobytes() for picture in insilico.stimuli.pixels()}
    assert all(np.asarray(picture).tobytes() in known for picture in shown)


def test_missing_parts_are_left_out(square):
    assert titles(atlas.atlas(dataset(square[["noise_ceiling"]]))) == {"Noise ceilings (voxels)"}
    assert titles(atlas.atlas(dataset(pd.DataFrame(index=range(3)), pictures=True))) == set()
    only = dataset(square.drop(columns="noise_ceiling"))
    assert titles(atlas.atlas(only)) == {flatmap.TITLES["regions"]}


def test_one_voxel_on_the_map_is_enough():
    assert titles(atlas.atlas(dataset(pd.DataFrame({"u": [1.0], "v": [2.0], "roi.V1": [True]})))) == {"Regions"}


def test_with_nothing_to_draw_the_error_says_what_is_missing():
    with pytest.raises(DataError, match=r"set has nothing to draw.*u and v.*noise_ceiling"):
        atlas.atlas(dataset(pd.DataFrame({"x": [1.0]})))


def test_the_file_is_the_same_every_time_and_nothing_of_matplotlib_is_changed(square, tmp_path):
    before = dict(mpl.rcParams)
    files = [atlas.write_atlas(dataset(square, pictures=True), tmp_path / f"{i}.png", dpi=60) for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert dict(mpl.rcParams) == before
    assert Image.open(files[0]).size[0] == 12 * 60


def test_matplotlib_is_imported_to_draw_only_and_pyplot_never():
    code = """
import sys
import numpy as np, pandas as pd
from phosphene.reporting import atlas
from phosphene.types import Dataset, Stimuli, Trials
assert "matplotlib" not in sys.modules
t = Trials(np.zeros((1, 2)), pd.DataFrame({"stimulus": ["a"]}), pd.DataFrame({"noise_ceiling": [0.1, 0.2]}))
atlas.as_png(atlas.atlas(Dataset("d", Stimuli(np.array(["a"], dtype=object)), {"s": t})), 20)
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# -- beside it in words ------------------------------------------------------------------------------------------------


def test_the_table_of_ceilings_gives_quantiles_of_each_region(insilico):
    section = next(s for s in describe.info(insilico, measured=False) if s.title.startswith("noise ceilings"))
    voxels = insilico.trials().voxels
    row = next(r for r in section.rows if r[1] == "V1")
    for column, at in (("noise_ceiling", 3), ("noise_ceiling_3", 5)):
        low, middle, high = np.percentile(voxels.loc[voxels["roi.V1"], column], [10, 50, 90])
        assert row[at : at + 2] == (f"{middle:.2f}", f"{low:.2f} to {high:.2f}")
    assert sum(int(r[2]) for r in section.rows) == len(voxels)  # the lab's regions are disjoint, and 'none' is the rest


def test_the_best_linear_decoder_is_bracketed_and_repeats_help():
    (section,) = yardstick.best_linear("insilico", options=SMALL)
    lower, upper = (np.array([float(row[i]) for row in section.rows]) for i in (2, 3))
    assert [row[1] for row in section.rows] == ["1", "3"]
    assert (lower < upper).all()
    assert upper[1] > upper[0]
    assert lower[1] > lower[0]


def test_data_that_are_not_simulated_have_no_known_best_decoder(shared_data):
    assert yardstick.best_linear("digits69", root=shared_data) == []


def test_the_command_prints_ceilings_and_writes_the_plate(tmp_path, capsys):
    options = [part for key, value in SMALL.items() for part in ("--option", f"{key}={value}")]
    file = tmp_path / "plate.png"
    with pytest.raises(SystemExit) as end:
        main(["data", "info", "insilico", *options, "--figure", str(file)])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "noise ceilings" in out
    assert "best linear decoder" in out
    assert Image.open(file).format == "PNG"
