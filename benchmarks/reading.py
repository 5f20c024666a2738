"""All betas of one subject of NSD into memory: 27,750 x 15,724 int16 on disk to float32, after one import.

Cold is after the system was asked to forget the file; warm when it is still in memory. The rival maps the same file with
numpy, converts, and scales.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from benchmarks.measure import timed
from benchmarks.record import growth

TITLE = "betas into memory, against plain numpy"
TRIALS, VOXELS, SCALE = 27_750, 15_724, 1 / 300


def prepare(folder: Path, trials: int, voxels: int) -> None:
    from phosphene.data import write_dataset
    from phosphene.data.dataset_folder import ScaledRows
    from phosphene.types import Dataset, Stimuli, Trials

    numbers = np.random.default_rng(0).integers(-2000, 2000, (trials, voxels), dtype=np.int16)
    ids = [f"picture{i}" for i in range(trials)]
    table = pd.DataFrame({"trial": np.arange(trials), "stimulus": ids})
    subject = Trials(ScaledRows(numbers, SCALE), table, pd.DataFrame(index=range(voxels)), "S1", {})
    write_dataset(Dataset("betas", Stimuli(np.array(ids, dtype=object)), {"S1": subject}), folder / "data")
    os.sync()


def file(folder: Path) -> Path:
    return folder / "data" / "subjects" / "S1" / "betas.npy"


def ours(folder: Path) -> np.ndarray:
    from phosphene.data import open_dataset

    return open_dataset(folder / "data").trials("S1").betas


def plain(folder: Path) -> np.ndarray:
    betas = np.load(file(folder), mmap_mode="r").astype(np.float32)
    betas *= np.float32(SCALE)
    return betas


def opened(folder: Path) -> int:
    from phosphene.data import open_dataset

    return len(open_dataset(folder / "data").trials("S1"))


def measured(call, folder: Path, cold: bool = False) -> dict:
    opened(folder)  # imports
    if cold:
        handle = os.open(file(folder), os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    else:
        file(folder).read_bytes()
    clock, _ = timed(call, folder)
    return clock.figures()


def compare(folder: Path, **_: int) -> dict:
    return {"difference": float(np.abs(ours(folder) - plain(folder)).max()), "note": "to plain numpy"}


CASES = {
    "ours": lambda folder, **_: measured(ours, folder),
    "ours, cold": lambda folder, **_: measured(ours, folder, cold=True),
    "ours, only opened": lambda folder, **_: measured(opened, folder),
    "numpy": lambda folder, **_: measured(plain, folder),
    "numpy, cold": lambda folder, **_: measured(plain, folder, cold=True),
}
SIZES = {"voxels": VOXELS}
STEPS = [
    *growth("trials", {1750: 0, 7000: 0, TRIALS: 0}, tuple(CASES), SIZES),
    *growth("trials", {TRIALS: 1}, tuple(CASES), SIZES, rounds=3),
]
