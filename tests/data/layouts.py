"""Every data set as its makers lay it out, tiny: a folder of files, and what a run is told to read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io
from PIL import Image

from phosphene.betas import BetaOptions, betas_from_folder
from phosphene.data.importing import import_table
from phosphene.data.miyawaki import FILE
from phosphene.lab import Scanner, make, write_bids
from tests.data import miyawaki_layout, nsd_layout
from tests.data.surface_layout import make_mosaic
from tests.data.test_bold5000 import make_bold
from tests.data.test_god import make_god, make_lab
from tests.data.test_pairs import make_arrays


def _nsd(folder: Path) -> dict:
    return {"data.name": "nsd", "data.subject": "subj01", "data.root": str(nsd_layout.make(folder / "nsd").root)}


def _captioned(folder: Path) -> dict:
    nsd = nsd_layout.make(folder / "nsd")
    texts = np.array([[f"a red house number {i}", "a house by day"] for i in range(len(nsd.brick))])
    np.save(nsd.root / "COCO_73k_annots_curated.npy", texts)
    return {"data.name": "nsd", "data.subject": "subj01", "data.root": str(nsd.root)}


def _god(folder: Path) -> dict:
    return {"data.name": "god", "data.root": str(make_god(folder).root)}


def _god_bdata(folder: Path) -> dict:
    return {"data.name": "god", "data.root": str(make_lab(make_god(folder)).root)}


def _bold5000(folder: Path) -> dict:
    return {"data.name": "bold5000", "data.subject": "CSI2", "data.root": str(make_bold(folder).root)}


def _pair_arrays() -> dict[str, np.ndarray]:
    """With as many voxels as every recipe needs."""
    rng, arrays = np.random.default_rng(1), make_arrays()
    return arrays | {k: rng.standard_normal((len(arrays[k]), 24)) for k in ("fmriTrn", "fmriTest")}


def _pairs(arrays: dict, path: Path) -> None:
    path.parent.mkdir(parents=True)
    scipy.io.savemat(path, arrays)


def _digits69(folder: Path) -> dict:
    from phosphene.data import digits69

    arrays = _pair_arrays()
    rng = np.random.default_rng(0)
    arrays |= {k: rng.integers(0, 256, (len(arrays[k]), 784), dtype=np.uint8) for k in ("stimTrn", "stimTest")}
    _pairs(arrays, folder / "digits69" / digits69.FILE)
    return {"data.name": "digits69", "data.root": str(folder)}


def _pair_file(folder: Path) -> dict:
    _pairs(_pair_arrays(), folder / "own" / "pairs.mat")
    return {"data.name": str(folder / "own" / "pairs.mat")}


def _miyawaki(folder: Path) -> dict:
    return {"data.name": "miyawaki", "data.root": str(miyawaki_layout.make(folder / "miyawaki2008").root)}


def _miyawaki_mat(folder: Path) -> dict:
    arrays = _pair_arrays()
    rng = np.random.default_rng(0)
    arrays |= {k: rng.uniform(size=(len(arrays[k]), 784)) for k in ("stimTrn", "stimTest")}
    _pairs(arrays, folder / "miyawaki" / FILE)
    return {"data.name": "miyawaki", "data.root": str(folder)}


def _mosaic(folder: Path) -> dict:
    make_mosaic(folder / "mosaic", n_train=12, n_test=3)
    return {"data.name": "mosaic", "data.root": str(folder)}


def _openfmri(folder: Path) -> dict:
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
    return {**values, "split": "kfold:6"}


def _imported(folder: Path) -> dict:
    """A lab's own betas, pictures and captions, imported."""
    rng, ids = np.random.default_rng(0), [f"p{k:02d}" for k in range(16)]
    pictures = rng.integers(0, 256, (len(ids), 8, 8, 3), dtype=np.uint8)
    shown = [*ids, *ids[12:]]
    (folder / "pictures").mkdir()
    for name, picture in zip(ids, pictures, strict=True):
        Image.fromarray(picture).save(folder / "pictures" / f"{name}.png")
    side = ["train"] * 12 + ["test"] * 8
    pd.DataFrame({"stimulus": shown, "side": side, "session": 1}).to_csv(folder / "trials.csv", index=False)
    captions = pd.DataFrame({"stimulus": np.repeat(ids, 2), "caption": ["a red house", "a house by day"] * len(ids)})
    captions.to_csv(folder / "captions.csv", index=False)
    pd.DataFrame({"V1": np.arange(20) < 8, "FFA": np.arange(20) >= 8}).astype(int).to_csv(folder / "v.csv", index=False)
    np.save(folder / "betas.npy", rng.normal(size=(len(shown), 20)).astype(np.float32))
    import_table(
        betas=folder / "betas.npy", trials=folder / "trials.csv", voxels=folder / "v.csv", images=folder / "pictures",
        captions=folder / "captions.csv", out=folder / "imported",
    )  # fmt: skip
    return {"data.name": str(folder / "imported")}


def _betas(folder: Path) -> dict:
    """Betas made of a BIDS study of the lab, with its pictures."""
    study = make("nsd", n_train=16, n_test=8, n_voxels=60, trials_per_run=20, runs_per_session=2)
    bold = write_bids(study, folder / "bids", scanner=Scanner(extra_volumes=5), dtype="float32")
    betas_from_folder(folder / "bids", "01", folder / "betas", BetaOptions(kind="lss"))
    assert len(bold) > 1
    return {"data.name": str(folder / "betas"), "split": "kfold:3"}


LAYOUTS: dict[str, Callable[[Path], dict]] = {
    "nsd": _nsd,
    "nsd, captions": _captioned,
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
"""Of each reader: makes the files in a folder, and gives the values of a run."""

OWN: dict[str, Callable[[Path], dict]] = {"imported": _imported, "betas of a BIDS study": _betas}
"""Folders in our own format, by the ways there are to one."""

ELSEWHERE = {
    "insilico": "tests/flow fits every recipe on it",
    "hcp": "shows no pictures: for pretraining, see test_hcp",
}
