"""The runs of a study without drift, a block of voxels at a time, and their designs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from phosphene.betas import glm
from phosphene.betas.hrf import HrfLibrary
from phosphene.betas.options import BetaOptions
from phosphene.betas.runs import BoldRun
from phosphene.betas.work import Work
from phosphene.errors import DataError


@dataclass(frozen=True)
class RunGroup:
    """Voxels of a block that share a response, and their series in each run."""

    shape: int
    voxels: np.ndarray
    series: list[np.ndarray]


class BoldStudy:
    """Runs without drift, a block of voxels at a time, kept where memory allows."""

    def __init__(
        self,
        runs: Sequence[BoldRun],
        library: HrfLibrary,
        assumed: int,
        options: BetaOptions,
        work: Work | None = None,
        workers: int = 1,
    ) -> None:
        self.runs = runs
        self.assumed = assumed
        self.options = options
        self.n_voxels = runs[0].n_voxels
        self.n_trials = sum(len(r.events) for r in runs)
        self.assumes = options.kind in ("lsa", "lss")
        self.designs: list[glm.RunDesign] = []
        start = 0

        for run in runs:
            onset = run.events["onset"].to_numpy(dtype=np.float64) + options.onset_shift_s
            designs = library.designs(onset, run.events["duration"].to_numpy(dtype=np.float64), len(run), run.tr_s)
            degree = options.polynomial_degree
            if degree is None:
                degree = glm.polynomial_degree(run.duration_s)

            if options.confounds:
                confounds = run.confounds
            else:
                confounds = None

            basis = glm.nuisance_basis(len(run), degree, confounds)
            rows = slice(start, start := start + len(run.events))
            self.designs.append(glm.RunDesign.build(designs, basis, rows))

        budget = options.memory_gb * 1e9
        n_volumes = sum(len(run) for run in runs)
        self.step = int(np.clip(budget / 4 / (8 * n_volumes + 40 * self.n_trials), 64, 8192))
        self.keeps = 4 * n_volumes * self.n_voxels < budget / 2
        self._kept: dict[int, list[RunGroup]] = {}
        self.work = work
        block = self.step * (16 * n_volumes + 40 * self.n_trials)
        self.workers = max(1, min(workers, int(budget / (2 if self.keeps else 1) / block)))

    def blocks(self) -> Iterator[slice]:
        """Voxels in blocks."""
        for start in range(0, self.n_voxels, self.step):
            yield slice(start, min(start + self.step, self.n_voxels))

    def each(
        self, stage: str, make: Callable[[slice], dict[str, np.ndarray]]
    ) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """What `make` finds in every block, in order; several at once, and read back where it was found before."""

        def found(block: slice) -> dict[str, np.ndarray]:
            name = f"{stage}-{block.start:08d}"
            if self.work is not None:
                known = self.work.load(name)
            else:
                known = None

            if known is None:
                known = make(block)
                if self.work is not None:
                    self.work.save(name, known)

            return known

        if self.workers == 1:
            yield from ((block, found(block)) for block in self.blocks())
            return

        # One BLAS thread each: more would wait for one another.
        with glm.blas_threads(1), ThreadPoolExecutor(self.workers) as pool:
            waiting: deque = deque()
            for block in self.blocks():
                waiting.append((block, pool.submit(found, block)))
                if len(waiting) > self.workers:
                    done, result = waiting.popleft()
                    yield done, result.result()

            while waiting:
                done, result = waiting.popleft()
                yield done, result.result()

    def series(self, block: slice) -> tuple[list[np.ndarray], np.ndarray]:
        """Data without drift of each run, and the mean over all volumes."""
        out = []
        total = np.zeros(block.stop - block.start)

        for run, design in zip(self.runs, self.designs, strict=True):
            volumes = np.asarray(run.volumes[:, block])
            if volumes.dtype.kind == "f" and not np.isfinite(volumes).all():
                t, v = np.argwhere(~np.isfinite(volumes))[0]
                raise DataError(
                    f"volume {t} of {run.name} is {volumes[t, v]} in voxel {block.start + v}; BOLD must be finite. Leave that "
                    "voxel out of the mask, or repair the preprocessing."
                )

            y, mean = glm.residuals(volumes, design.basis)
            out.append(y)
            total += mean * len(run)

        return out, total / sum(len(run) for run in self.runs)

    def keep(self, block: slice, series: list[np.ndarray], hrf: np.ndarray) -> None:
        """Remember a block by response, if there is room."""
        if self.keeps:
            self._kept[block.start] = self._split(block, series, hrf)

    def groups(self, block: slice, hrf: np.ndarray) -> list[RunGroup]:
        """Voxels of a block by response."""
        if block.start in self._kept:
            return self._kept[block.start]

        return self._split(block, self.series(block)[0], hrf[block])

    @staticmethod
    def _split(block: slice, series: list[np.ndarray], hrf: np.ndarray) -> list[RunGroup]:
        out = []
        for shape in np.unique(hrf):
            here = np.flatnonzero(hrf == shape)
            whole = len(here) == len(hrf)
            out.append(RunGroup(int(shape), block.start + here, series if whole else [y[:, here] for y in series]))

        return out
