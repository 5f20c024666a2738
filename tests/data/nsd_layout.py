"""A folder with the layout of NSD's public bucket, tiny."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import scipy.io

GRID = (5, 6, 4)
N_IMAGES, N_SHARED, N_PER_SESSION, SIDE = 160, 20, 12, 9
AFFINE = np.array([[1.8, 0, 0, -70], [0, 1.8, 0, -90], [0, 0, 1.8, -50], [0, 0, 0, 1]], dtype=float)


@dataclass
class Layout:
    """Where it is and what is true of it."""

    root: Path
    order: np.ndarray  # masterordering, from 1
    images: np.ndarray  # subjectim, from 1
    mask: np.ndarray  # -1, 0, 1
    betas: dict[int, np.ndarray]  # session to (trial, x, y, z) int16
    brick: np.ndarray

    def beta_folder(self, subject: str = "subj01") -> Path:
        return self.root / f"nsddata_betas/ppdata/{subject}/func1pt8mm/betas_fithrf_GLMdenoise_RR"

    def roi_folder(self, subject: str = "subj01") -> Path:
        return self.root / f"nsddata/ppdata/{subject}/func1pt8mm/roi"

    @property
    def design(self) -> Path:
        return self.root / "nsddata/experiments/nsd/nsd_expdesign.mat"

    @property
    def stim_info(self) -> Path:
        return self.design.with_name("nsd_stim_info_merged.csv")

    @property
    def pictures(self) -> Path:
        return self.root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"

    def nsd_ids(self, subject: int = 1) -> np.ndarray:
        """0-based id of every trial, written out as the papers do."""
        return np.array([self.images[subject - 1, m - 1] - 1 for m in self.order])

    def write_session(self, number: int, kind: str = "hdf5", betas: np.ndarray | None = None, subject="subj01", **how):
        """One session, (trial, x, y, z) as the public file of that kind would hold it."""
        betas = self.betas[number] if betas is None else betas
        folder = self.beta_folder(subject)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"betas_session{number:02d}.{kind}"
        if kind == "hdf5":
            with h5py.File(path, "w") as file:
                file.create_dataset("betas", data=betas.transpose(0, 3, 2, 1), **how)
        else:
            save(path, betas.transpose(1, 2, 3, 0))
        return path

    def write_design(self, **changed: np.ndarray) -> None:
        pattern = np.zeros((40, 3, 6), dtype=np.uint8)
        pattern[:, 0, :5] = pattern[:, 1, :3] = pattern[:, 2, :4] = 1  # runs of 5, 3 and 4 trials
        arrays = {
            "subjectim": self.images,
            "masterordering": self.order[None],
            "sharedix": self.images[0, :N_SHARED][None],
            "stimpattern": pattern,
        }
        self.design.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(self.design, {**arrays, **changed})

    def write_stim_info(self) -> pd.DataFrame:
        """The CSV with the same content, from its own definition: trial numbers by picture."""
        n = len(self.brick)
        table = pd.DataFrame({"cocoId": np.arange(n) * 7 + 100, "cocoSplit": "train2017", "nsdId": np.arange(n)})
        table["shared1000"] = np.isin(table["nsdId"], self.images[0, :N_SHARED] - 1)
        for s in range(1, 9):
            shown = self.nsd_ids(s)
            for r in range(3):
                at = [np.flatnonzero(shown == i) for i in range(n)]
                table[f"subject{s}_rep{r}"] = [int(a[r]) + 1 if len(a) else 0 for a in at]
        table.to_csv(self.stim_info)
        return table


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def make(root: Path, sessions=(1, 2, 3), n_subjects=1) -> Layout:
    rng = np.random.default_rng(1)
    own = N_IMAGES - N_SHARED
    n_pictures = N_SHARED + 8 * own
    ids = rng.permutation(n_pictures) + 1
    shared = ids[:N_SHARED]
    images = np.stack([np.r_[shared, ids[N_SHARED + s * own : N_SHARED + (s + 1) * own]] for s in range(8)])
    order = rng.permutation(np.repeat(np.arange(1, N_IMAGES + 1), 3))
    mask = rng.choice([-1, 0, 1], size=GRID, p=[0.3, 0.4, 0.3]).astype(np.int16)
    betas = {
        k: np.round(rng.normal(0, 450, (N_PER_SESSION, *GRID))).clip(-32000, 32000).astype(np.int16) for k in sessions
    }
    brick = rng.integers(0, 256, (n_pictures, SIDE, SIDE, 3), dtype=np.uint8)
    out = Layout(root, order, images, mask, betas, brick)
    out.write_design()
    for s in range(1, n_subjects + 1):
        name = f"subj{s:02d}"
        for k in sessions:
            out.write_session(k, subject=name)
        save(out.roi_folder(name) / "nsdgeneral.nii.gz", mask)
        for roi, top in (("prf-visualrois", 7), ("floc-faces", 5), ("floc-bodies", 4), ("floc-places", 3)):
            save(out.roi_folder(name) / f"{roi}.nii.gz", rng.integers(-1, top + 1, GRID).astype(np.int16))
        save(out.roi_folder(name) / "floc-words.nii.gz", rng.integers(-1, 6, GRID).astype(np.int16))
        save(out.roi_folder(name) / "streams.nii.gz", rng.integers(-1, 8, GRID).astype(np.int16))
        save(out.beta_folder(name) / "ncsnr.nii.gz", rng.uniform(0, 1, GRID).astype(np.float32))
    out.pictures.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(out.pictures, "w") as file:
        file["imgBrick"] = brick
    return out
