"""Miyawaki 2008 as nilearn's fetcher leaves it, tiny: every volume's voxels are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

GRID, AFFINE, LAG = (5, 4, 3), np.diag([3.0, 3.0, 3.0, 1.0]), 2
BLOCK, REST = 3, 2


@dataclass
class Layout:
    """Where it is and what is true of it."""

    root: Path
    mask: np.ndarray
    rois: dict[str, np.ndarray]
    shown: dict[tuple[str, int], list[np.ndarray]]  # (kind, run) to its patterns, each (10, 10) upright
    response: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)  # (n_patterns, n_voxels) of each run

    def image(self, kind: str, run: int) -> Path:
        return self.root / "func" / f"data_{kind}_run{run:02d}.nii.gz"

    def labels(self, kind: str, run: int) -> Path:
        return self.root / "label" / f"data_{kind}_run{run:02d}_label.csv"

    def save(self, path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values, affine), path)

    def lines(self, kind: str, run: int) -> list[str]:
        """One line a volume; squares are unrolled column by column."""
        out = []
        for picture in self.shown[kind, run]:
            out += ["-1" + ",-1" * 99] * REST + [",".join(str(int(v)) for v in picture.T.ravel())] * BLOCK
        return out + ["-1" + ",-1" * 99] * (LAG + 1)

    def write_run(self, kind: str, run: int) -> None:
        lines = self.lines(kind, run)
        self.labels(kind, run).parent.mkdir(parents=True, exist_ok=True)
        self.labels(kind, run).write_text("\n".join(lines) + "\n")
        # A block adds its pattern's response, two volumes late.
        series = np.zeros((len(lines), int((self.mask > 0).sum())))
        at = REST
        for response in self.response[kind, run]:
            series[at + LAG : at + LAG + BLOCK] += response
            at += BLOCK + REST
        volume = np.full((*GRID, len(lines)), 700.0, dtype=np.float32)
        volume[self.mask > 0] = 500 + series.T
        self.save(self.image(kind, run), volume)


def make(root: Path, n_random: int = 3, n_figure: int = 2, blocks: int = 6) -> Layout:
    rng = np.random.default_rng(3)
    mask = (rng.uniform(size=GRID) < 0.6).astype(np.int16)
    figures = [rng.integers(0, 2, (10, 10)) for _ in range(3)]
    runs = [("random", r) for r in range(1, n_random + 1)] + [("figure", r) for r in range(1, n_figure + 1)]
    shown = {
        (k, r): [rng.integers(0, 2, (10, 10)) for _ in range(blocks)]
        if k == "random"
        else [figures[i % 3] for i in range(4)]
        for k, r in runs
    }
    area = rng.integers(0, 4, GRID)
    rois = {n: area == i for i, n in enumerate(("V1d", "V1v", "V2d", "V2v"))}
    layout = Layout(root, mask, rois, shown)
    weights = rng.normal(size=(100, int(mask.sum())))
    for key, pictures in shown.items():
        layout.response[key] = (np.stack(pictures).reshape(len(pictures), 100) - 0.5) @ weights
        layout.write_run(*key)
    layout.save(root / "mask" / "mask.nii.gz", mask)
    half = np.zeros(GRID, bool)
    half[: GRID[0] // 2] = True
    for name, where in rois.items():
        layout.save(root / "mask" / f"LH{name}.nii.gz", (where & half).astype(np.int16))
        layout.save(root / "mask" / f"RH{name}.nii.gz", (where & ~half).astype(np.int16))
    return layout
