"""One recipe, every data set: what changes from one layout to the next is the name of the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image

from phosphene import flow
from phosphene.data.miyawaki import FILE
from phosphene.data.registry import READERS
from tests.data import miyawaki_layout, nsd_layout
from tests.data.surface_layout import AREA_OF, cortex, write_mosaic, write_parcels
from tests.data.test_bold5000 import bold  # noqa: F401  a fixture
from tests.data.test_god import god, lab  # noqa: F401  fixtures
from tests.data.test_pairs import arrays as pair_arrays  # noqa: F401  a fixture

# Quick: few penalties, no output curve; all voxels, as those of some layouts are noise here.
FAST = {
    "recipe.curve.kind": "none",
    "recipe.alphas": [1.0, 100.0],
    "recipe.pixels.n_components": 4,
    "recipe.decoder.voxels": "all",
}


def _nsd(folder: Path, request) -> dict:
    return {"data.name": "nsd", "data.subject": "subj01", "data.root": str(nsd_layout.make(folder / "nsd").root)}


def _god(folder: Path, request) -> dict:
    return {"data.name": "god", "data.root": str(request.getfixturevalue("god").root)}


def _god_bdata(folder: Path, request) -> dict:
    return {"data.name": "god", "data.root": str(request.getfixturevalue("lab").root)}


def _bold5000(folder: Path, request) -> dict:
    return {"data.name": "bold5000", "data.subject": "CSI2", "data.root": str(request.getfixturevalue("bold").root)}


def _pairs(arrays: dict, path: Path) -> None:
    path.parent.mkdir(parents=True)
    scipy.io.savemat(path, arrays)


def _digits69(folder: Path, request) -> dict:
    from phosphene.data import digits69

    arrays = dict(request.getfixturevalue("pair_arrays"))
    rng = np.random.default_rng(0)
    arrays |= {k: rng.integers(0, 256, (len(arrays[k]), 784), dtype=np.uint8) for k in ("stimTrn", "stimTest")}
    _pairs(arrays, folder / "digits69" / digits69.FILE)
    return {"data.name": "digits69", "data.root": str(folder)}


def _pair_file(folder: Path, request) -> dict:
    _pairs(request.getfixturevalue("pair_arrays"), folder / "own" / "pairs.mat")
    return {"data.name": str(folder / "own" / "pairs.mat")}


def _miyawaki(folder: Path, request) -> dict:
    return {"data.name": "miyawaki", "data.root": str(miyawaki_layout.make(folder / "miyawaki2008").root)}


def _miyawaki_mat(folder: Path, request) -> dict:
    arrays = dict(request.getfixturevalue("pair_arrays"))
    rng = np.random.default_rng(0)
    arrays |= {k: rng.uniform(size=(len(arrays[k]), 784)) for k in ("stimTrn", "stimTest")}
    _pairs(arrays, folder / "miyawaki" / FILE)
    return {"data.name": "miyawaki", "data.root": str(folder)}


def _mosaic(folder: Path, request) -> dict:
    rng, n = np.random.default_rng(0), len(cortex("LH") + cortex("RH"))
    shown = [(f"p{i}.png", "train", 0) for i in range(9)] + [
        (f"q{i}.png", "test", r) for i in range(3) for r in range(2)
    ]
    write_mosaic(folder / "mosaic" / "sub-01_GOD.hdf5", {key: rng.normal(size=n) for key in shown})
    write_parcels(folder / "mosaic" / "mmp.dlabel.nii")
    (folder / "mosaic" / "stimuli").mkdir()
    for name in {name for name, *_ in shown}:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "mosaic" / "stimuli" / name)
    return {"data.name": "mosaic", "data.root": str(folder)}


def _openfmri(folder: Path, request) -> dict:
    import nibabel as nib

    rng, n, grid = np.random.default_rng(0), 80, (3, 3, 2)
    func = folder / "study" / "sub-01" / "func"
    func.mkdir(parents=True)
    mask = folder / "study" / "derivatives" / "own" / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz"
    mask.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.ones(grid, np.uint8), np.eye(4)), mask)
    (folder / "study" / "stimuli").mkdir()
    for k in range(12):
        picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        picture.save(folder / "study" / "stimuli" / f"p{k:02d}.png")
    for run in (1, 2):
        series = rng.normal(100, 1, (*grid, n)).astype(np.float32)
        image = nib.Nifti1Image(series, np.eye(4))
        image.header.set_zooms((1, 1, 1, 2.0))
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, func / f"sub-01_task-see_run-{run:02d}_bold.nii.gz")
        shown = [f"p{k:02d}.png" for k in rng.permutation(12)]
        events = pd.DataFrame({"onset": 6.0 + 11 * np.arange(12), "duration": 2.0, "stim_file": shown})
        events.to_csv(func / f"sub-01_task-see_run-{run:02d}_events.tsv", sep="\t", index=False)
    values = {"data.name": "openfmri", "data.root": str(folder / "study"), "data.options": {"kind": "lss"}}
    return {**values, "split": "kfold:3"}


LAYOUTS: dict[str, Callable] = {
    "nsd": _nsd,
    "god, npz": _god,
    "god, bdata": _god_bdata,
    "bold5000": _bold5000,
    "digits69": _digits69,
    "a pair file": _pair_file,
    "miyawaki, runs": _miyawaki,
    "miyawaki, mat": _miyawaki_mat,
    "mosaic": _mosaic,
    "openfmri": _openfmri,
}
ELSEWHERE = {
    "insilico": "tests/flow fits every recipe on it",
    "hcp": "shows no pictures: for pretraining, see test_hcp",
}


def test_every_registered_data_set_is_tried_here_or_elsewhere():
    assert {name.split(",")[0] for name in LAYOUTS} - {"a pair file"} | set(ELSEWHERE) == set(READERS)
    assert AREA_OF  # the surface layouts hold areas


@pytest.mark.filterwarnings("ignore::phosphene.errors.PhospheneWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_linear_recipe_is_fitted_and_decodes_from_every_layout(layout, tmp_path, request):
    values = LAYOUTS[layout](tmp_path / "data", request)
    config = flow.configure("linear", [("test", {**FAST, **values})])[0]
    opened = flow.fit(config, tmp_path / "run")
    _, test = opened.sides(0)
    some = test.select(stimuli=test.stimulus_ids[:2])
    decoded = opened.recipe(0).decode(some)
    assert list(decoded.ids) == list(some.stimuli)
    assert np.isfinite(decoded.pixels).all() and decoded.pixels.shape[0] == len(some)
    assert decoded.pixels.min() >= 0 and decoded.pixels.max() <= 1
