"""Data of NSD's kind: one import, then a memory map, beside unpacking and masking volumes every time.

A session of 81 x 104 x 83 voxels as int16 ``.nii.gz``: noise of the betas' spread in a brain of a third of them, zeros around
it (the release was not at hand), 15,724 of them in the mask. The rival is what Brain-Diffuser's script does: nibabel's
``get_fdata``, then the mask, then float32. Ours reads the same from what `import_dataset` made once, which is a task of its
own. NSD has 27,750 trials a subject in sessions of 750; here a smaller session is read, and the whole is by proportion: the
rival's of one session, ours of what a second session adds to the first.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from benchmarks.measure import need, timed
from benchmarks.record import Step, growth

TITLE = "data import, against unpacking volumes every time"
GRID, VOXELS, NSD = (81, 104, 83), 15_724, 27_750
N_SHARED, SIDE = 10, 8
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.nii.gz"
MASK = "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz"


def prepare(folder: Path, trials: int, task: str, done: int = 0, **_: int) -> None:
    """A folder with the layout of NSD's bucket, and what ours makes of it where reading is timed."""
    import h5py
    import nibabel
    import scipy.io

    rng, root, n = np.random.default_rng(0), folder / "nsd", done or trials
    n_images = 40 * n // 3
    own = n_images - N_SHARED
    ids = rng.permutation(N_SHARED + 8 * own) + 1
    images = np.stack([np.r_[ids[:N_SHARED], ids[N_SHARED + s * own : N_SHARED + (s + 1) * own]] for s in range(8)])
    order = rng.permutation(np.repeat(np.arange(1, n_images + 1), 3))
    design = root / "nsddata/experiments/nsd/nsd_expdesign.mat"
    pictures = root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    for file in (root / BETAS, root / MASK, design, pictures):
        file.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(design, {"subjectim": images, "masterordering": order[None], "sharedix": ids[None, :N_SHARED]})
    with h5py.File(pictures, "w") as file:
        file["imgBrick"] = np.zeros((len(ids), SIDE, SIDE, 3), np.uint8)
    away = [np.linspace(-1, 1, side) ** 2 for side in GRID]
    brain = np.flatnonzero(away[0][:, None, None] + away[1][:, None] + away[2] < 0.74)  # a third of the box
    mask = np.zeros(np.prod(GRID), np.int16)
    mask[rng.choice(brain, VOXELS, replace=False)] = 1
    nibabel.save(nibabel.Nifti1Image(mask.reshape(GRID), np.diag([1.8, 1.8, 1.8, 1])), root / MASK)
    betas = np.zeros((n, mask.size), np.int16)
    betas[:, brain] = 450 * rng.standard_normal((n, len(brain)), np.float32)
    image = nibabel.Nifti1Image(betas.reshape(n, *GRID).transpose(1, 2, 3, 0), np.diag([1.8, 1.8, 1.8, 1]))
    nibabel.save(image, root / BETAS)
    os.link(root / BETAS, str(root / BETAS).replace("session01", "session02"))
    if task == "read":
        make(folder)


def make(folder: Path, sessions: int = 1) -> None:
    from phosphene.data import import_dataset

    place = folder / "made"
    import_dataset("nsd:subj01", place, root=folder / "nsd", options={"sessions": sessions}, replace=True)


def read(folder: Path) -> np.ndarray:
    from phosphene.data import open_dataset

    return open_dataset(folder / "made").trials("subj01").betas


def unpack(folder: Path) -> np.ndarray:
    nibabel = need("nibabel")
    mask = nibabel.load(folder / "nsd" / MASK).get_fdata() > 0
    return nibabel.load(folder / "nsd" / BETAS).get_fdata()[mask].astype(np.float32).T


def ours(folder: Path, trials: int, task: str, done: int = 0, **_: int) -> dict:
    if task == "read":
        read(folder)  # imports
        return timed(read, folder)[0].figures()
    if done:
        make(folder)  # imports
    clock, _ = timed(make, folder)
    if done:
        two, _ = timed(make, folder, 2)
        clock.cpu += (two.cpu - clock.cpu) * (trials / done - 1)
        clock.wall += (two.wall - clock.wall) * (trials / done - 1)
        return clock.figures(note=f"the first {done} trials, and what {done} more add, by proportion")
    return clock.figures()


def peer(folder: Path, trials: int, done: int = 0, **_: int) -> dict:
    clock, _ = timed(unpack, folder)
    return clock.figures(part=(done or trials) / trials)


def compare(folder: Path, task: str, **_: int) -> dict:
    """Largest difference in percent signal change: NSD's numbers are 300 times that."""
    if task == "import":
        make(folder)
    return {"difference": float(np.abs(read(folder) - unpack(folder) / 300).max()), "note": "to get_fdata"}


CASES = {
    "ours": ours,
    "nibabel get_fdata": peer,
}
STEPS = [
    *growth("trials", {12: 0, 30: 0, 90: 0, 240: 1}, tuple(CASES), task="read", options={"task": "read"}),
    *growth("trials", {12: 1, 30: 1, 90: 1, 240: 1}, tuple(CASES), task="import", options={"task": "import"}),
    Step({"trials": NSD, "voxels": VOXELS}, tuple(CASES), task="import", options={"task": "import", "done": 240}),
]
