"""The feature store: rows of CLIP tokens written, read whole, and read in random batches.

A picture is 257 x 768 numbers in float16. Ours writes with a SHA-256 for every chunk, can be restarted and filled by
several workers, and compares every chunk with its hash when a process first reads from it; a plain numpy memory map and
h5py (one picture a chunk) do none of that. Files are in memory after they were written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from benchmarks.measure import need, timed
from benchmarks.record import growth

TITLE = "the feature store, against a plain memory map and h5py"
SHAPE, BATCH, DTYPE = (257, 768), 64, np.float16


def names(items: int) -> list[str]:
    return [f"picture{i:06d}" for i in range(items)]


def features(ids: np.ndarray) -> np.ndarray:
    """What a network would return at once: the cost of making it is beside the point."""
    return block()[: len(ids)]


@cache
def block() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((128, *SHAPE), dtype=np.float32).astype(DTYPE)


def write_ours(folder: Path, items: int) -> None:
    """One chunk after the other, hashed."""
    from phosphene.io.store import cached

    cached(folder / "ours", {"what": "tokens"}, names(items), features, shape=SHAPE, dtype="float16")


def write_numpy(folder: Path, items: int) -> None:
    folder.mkdir(exist_ok=True)
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", DTYPE, (items, *SHAPE))
    for start in range(0, items, BATCH):
        rows[start : start + BATCH] = block()[: min(BATCH, items - start)]
    rows.flush()


def write_h5py(folder: Path, items: int) -> None:
    folder.mkdir(exist_ok=True)
    with need("h5py").File(folder / "rows.h5", "w") as file:
        rows = file.create_dataset("rows", (items, *SHAPE), DTYPE, chunks=(1, *SHAPE))
        for start in range(0, items, BATCH):
            rows[start : start + BATCH] = block()[: min(BATCH, items - start)]


def read_ours(folder: Path, items: int, batches: list[np.ndarray]) -> None:
    from phosphene.io.store import RowStore

    (place,) = (folder / "ours").iterdir()
    rows = RowStore.open(place).select(names(items))
    for at in batches:
        rows[at]


def read_numpy(folder: Path, items: int, batches: list[np.ndarray]) -> None:
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    for at in batches:
        np.array(rows[at])


def read_h5py(folder: Path, items: int, batches: list[np.ndarray]) -> None:
    with need("h5py").File(folder / "rows.h5") as file:
        rows = file["rows"]
        for at in batches:
            np.stack([rows[i] for i in at])  # far faster than a list of rows


def measured(write: Callable, read: Callable) -> Callable:
    def case(folder: Path, items: int, task: str) -> dict:
        if task == "write":
            block()
            write(folder / "first", 1)  # imports
            clock, _ = timed(write, folder, items)
        else:
            order = np.arange(items) if task == "read" else np.random.default_rng(0).permutation(items)
            batches = [order[start : start + BATCH] for start in range(0, items, BATCH)]
            read(folder, 1, [])  # imports
            clock, _ = timed(read, folder, items, batches)
        return clock.figures(note=f"{clock.cpu / (items * np.prod(SHAPE) * 2e-9):.3g} CPU s a GB")

    return case


def prepare(folder: Path, items: int, task: str) -> None:
    if task != "write":
        for write in (write_ours, write_numpy, write_h5py):
            write(folder, items)


CASES = {
    "ours": measured(write_ours, read_ours),
    "numpy memory map": measured(write_numpy, read_numpy),
    "h5py": measured(write_h5py, read_h5py),
}
STEPS = [
    step
    for task in ("write", "read", "read in random order")
    for step in growth("items", {64: 0, 256: 0, 1024: 0}, tuple(CASES), task=task, options={"task": task})
]
