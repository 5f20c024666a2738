"""Files on the cortical surface as HCP and MOSAIC distribute them, tiny."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis, SeriesAxis
from PIL import Image

N_VERTICES = 40
WALL = (3, 17)
"""Vertices of the medial wall, in no file."""

AREA_OF = {v: f"V{1 + v % 5}" for v in range(N_VERTICES) if v not in WALL and v < 30}
"""Parcel of each vertex, the same in both hemispheres; V5 is one that nobody asks for, 30 and more are in none."""

SIDES = {"LH": "CIFTI_STRUCTURE_CORTEX_LEFT", "RH": "CIFTI_STRUCTURE_CORTEX_RIGHT"}


def cortex(side: str, n_vertices: int = N_VERTICES, order: np.ndarray | None = None) -> BrainModelAxis:
    """The vertices of a hemisphere outside the medial wall, in the file's order."""
    vertices = np.setdiff1d(np.arange(n_vertices), WALL)
    vertices = vertices if order is None else vertices[order]
    return BrainModelAxis.from_surface(vertices, n_vertices, name=SIDES[side])


def below(n: int = 4) -> BrainModelAxis:
    """Grayordinates below the cortex."""
    return BrainModelAxis(
        "CIFTI_STRUCTURE_THALAMUS_LEFT",
        voxel=np.c_[np.arange(n), np.zeros((n, 2), int)],
        affine=np.eye(4),
        volume_shape=(9, 9, 9),
    )


def write_parcels(path: Path, n_vertices: int = N_VERTICES, sides=("LH", "RH")) -> Path:
    """A parcellation with HCP-MMP's kind of names: L_V1_ROI and R_V1_ROI are labels of their own."""
    names = [f"{s}_V{k}_ROI" for s in "RL" for k in range(1, 6)]  # the right hemisphere comes first, as there
    table = {0: ("???", (0, 0, 0, 0)), **{i: (n, (1, 1, 1, 1)) for i, n in enumerate(names, start=1)}}
    axes = [cortex(s, n_vertices) for s in sides]
    rows = []
    for side, axis in zip(sides, axes, strict=True):
        rows += [0 if v not in AREA_OF else names.index(f"{side[0]}_{AREA_OF[v]}_ROI") + 1 for v in axis.vertex]
    space = axes[0] if len(axes) == 1 else axes[0] + axes[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Cifti2Image(np.asarray([rows], dtype=np.float32), (LabelAxis(["mmp"], [table]), space)), path)
    return path


def write_scan(path: Path, frames: np.ndarray, space: BrainModelAxis, step_s: float = 0.72) -> Path:
    """A dense time series, (n_frames, n_grayordinates)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Cifti2Image(frames.astype(np.float32), (SeriesAxis(0, step_s, len(frames)), space)), path)
    return path


def column(space: BrainModelAxis, side: str, vertex: int) -> int:
    """Where a vertex stands in a file."""
    return int(np.flatnonzero((space.name == SIDES[side]) & (space.vertex == vertex))[0])


def members(area: str) -> list[tuple[str, int]]:
    """Hemisphere and vertex of every member of a parcel: left first, by vertex."""
    return [(side, v) for side in ("LH", "RH") for v, a in sorted(AREA_OF.items()) if a == area]


def write_mosaic(path: Path, trials: dict[tuple[str, str, int], np.ndarray], ceiling: np.ndarray | None = None) -> Path:
    """One person's file: (stimulus with ending, phase, repetition) to a vector of grayordinates."""
    person = path.name.split(".")[0].split("_crc32")[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["dataset_name"] = "NaturalScenesDataset"
        group = file.create_group("betas", track_order=True)
        for (name, phase, rep), vector in trials.items():
            stem = name.rsplit(".", 1)[0]
            one = group.create_dataset(f"{person}_stimulus-{stem}_phase-{phase}_rep-{rep}", data=vector)
            one.attrs["phase"], one.attrs["repetition"] = phase, rep
            one.attrs["presented_stimulus_filename"] = name
            one.attrs["nan_indices"] = np.flatnonzero(np.isnan(vector))
        if ceiling is not None:
            file.create_group("noiseceilings")[f"{person}_phase-test_n-1_noiseceiling"] = ceiling
    return path


def make_mosaic(folder: Path, n_train: int, n_test: int, *, with_ceiling: bool = False) -> Path:
    """The data set's folder: noise of one person, each test picture twice; parcels; and every picture, of noise too."""
    rng, n = np.random.default_rng(0), len(cortex("LH") + cortex("RH"))
    train, test = [f"p{i}.png" for i in range(n_train)], [f"q{i}.png" for i in range(n_test)]
    shown = [(name, "train", 0) for name in train] + [(name, "test", r) for name in test for r in range(2)]
    betas = {key: rng.normal(size=n) for key in shown}
    write_mosaic(folder / "sub-01_GOD.hdf5", betas, rng.uniform(size=n) if with_ceiling else None)
    write_parcels(folder / "mmp.dlabel.nii")
    (folder / "stimuli").mkdir()
    for name in (*train, *test):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "stimuli" / name)
    return folder
