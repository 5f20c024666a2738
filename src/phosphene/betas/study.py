"""The runs of a study without drift, a block of voxels at a time, and their designs.

The pipeline goes through all voxels three or four times (responses, noise pool, number of components, betas). A study of
forty runs fills more memory than a workstation has, so voxels come in blocks, whose size follows from ``memory_gb`` and which
changes nothing but rounding: every quantity of the model belongs to one voxel, except the noise pool's Gram matrix, a sum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from phosphene.betas import glm
from phosphene.betas.hrf import HrfLibrary
from phosphene.betas.options import BetaOptions
from phosphene.betas.runs import BoldRun
from phosphene.betas.signals import LARGEST, SignalLevels, largest
from phosphene.betas.work import WorkFolder
from phosphene.errors import DataError


@dataclass(frozen=True)
class VoxelGroup:
    """Voxels of a block that share a response, and their series in each run.

    Attributes
    ----------
    shape : int
        number of the response in the library
    voxels : ndarray of shape (n_group,), int
        numbers in the study
    series : list of ndarray
        (n_volumes, n_group) float32 of each run, without drift
    """

    shape: int
    voxels: np.ndarray
    series: list[np.ndarray]


class BlockSeries(NamedTuple):
    """A block of voxels in all runs.

    Attributes
    ----------
    series : list of ndarray
        (n_volumes, n_block) float32 of each run, without drift and in one scale
    mean : ndarray of shape (n_block,), float64
        over all volumes
    is_too_large : ndarray of shape (n_block,), bool
        voxels with a value that no scanner gives; their series and mean are 0
    """

    series: list[np.ndarray]
    mean: np.ndarray
    is_too_large: np.ndarray


class BoldStudy:
    """Runs without drift, a block of voxels at a time, kept where memory allows.

    Parameters
    ----------
    runs : sequence of BoldRun
        of one subject
    library : HrfLibrary
        responses to choose from
    assumed : int
        response of the on-off model, and of all voxels where none is chosen
    options : BetaOptions
        drift, onsets and memory
    work : WorkFolder, optional
        keeps finished blocks
    workers : int, default 1
        blocks done at once
    levels : SignalLevels, optional
        of the runs; by default they are in one scale
    """

    def __init__(
        self,
        runs: Sequence[BoldRun],
        library: HrfLibrary,
        assumed: int,
        options: BetaOptions,
        work: WorkFolder | None = None,
        workers: int = 1,
        levels: SignalLevels | None = None,
    ) -> None:
        self.runs = runs
        self.assumed = assumed
        self.options = options
        self.levels = levels or SignalLevels(True, (1.0,) * len(runs))
        self.n_voxels = runs[0].n_voxels
        self.n_trials = sum(len(run.events) for run in runs)
        self.assumes = options.kind in ("lsa", "lss")
        self.work = work
        self.designs: list[glm.RunDesign] = []
        self._kept: dict[int, list[VoxelGroup]] = {}

        first = 0
        for run in runs:
            rows = slice(first, first + len(run.events))
            first = rows.stop
            self.designs.append(_design(run, library, options, rows))

        # Blocks of voxels that take a quarter of the memory; series are kept where half of it holds them all. Of a voxel,
        # 8 bytes per volume are data and residuals in float32, 40 per trial betas, products and their working copies.
        budget = options.memory_gb * 1e9
        n_volumes = sum(len(run) for run in runs)
        self.step = int(np.clip(budget / 4 / (8 * n_volumes + 40 * self.n_trials), 64, 8192))
        self.keeps = 4 * n_volumes * self.n_voxels < budget / 2
        if self.keeps:
            budget = budget / 2

        # Blocks at once are counted with every copy made of them (volumes in float64, residuals, the drift fitted to them).
        block = self.step * (16 * n_volumes + 40 * self.n_trials)
        self.workers = max(1, min(workers, int(budget / block)))

    def blocks(self) -> Iterator[slice]:
        """Voxels in blocks."""
        for start in range(0, self.n_voxels, self.step):
            yield slice(start, min(start + self.step, self.n_voxels))

    def each(
        self, stage: str, make: Callable[[slice], dict[str, np.ndarray]]
    ) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Results of every block, in order; several at once, and read back where they were kept before.

        Parameters
        ----------
        stage : str
            name they are kept under
        make : callable
            from a block to named arrays

        Yields
        ------
        tuple of (slice, dict of {str: ndarray})
            block, and what `make` returned for it
        """

        def result_of(block: slice) -> dict[str, np.ndarray]:
            if self.work is None:
                return make(block)

            name = f"{stage}-{block.start:08d}"
            result = self.work.load(name)
            if result is None:
                result = make(block)
                self.work.save(name, result)
            return result

        if self.workers == 1:
            for block in self.blocks():
                yield block, result_of(block)
            return

        # One BLAS thread each: more would wait for one another.
        with glm.blas_threads(1), ThreadPoolExecutor(self.workers) as pool:
            waiting: deque = deque()

            # At most workers + 1 results wait, or the first slow block would let all others pile up in memory.
            for block in self.blocks():
                waiting.append((block, pool.submit(result_of, block)))
                if len(waiting) > self.workers:
                    done, result = waiting.popleft()
                    yield done, result.result()

            while waiting:
                done, result = waiting.popleft()
                yield done, result.result()

    def series(self, block: slice) -> BlockSeries:
        """Data without drift of each run, in one scale.

        Parameters
        ----------
        block : slice
            which voxels

        Returns
        -------
        BlockSeries
            series and mean of these voxels

        Raises
        ------
        DataError
            a value that is not finite; the message names run, volume and voxel
        """
        series = []
        total = np.zeros(block.stop - block.start)
        is_too_large = np.zeros(block.stop - block.start, dtype=bool)

        for run, design, scale in zip(self.runs, self.designs, self.levels.scales, strict=True):
            volumes = np.asarray(run.volumes[:, block])  # (n_volumes, n_block)
            if volumes.dtype.kind == "f":
                peak = largest(volumes)  # (n_block,)
                if not np.isfinite(peak).all():
                    _refuse_not_finite(run, volumes, block.start)

                # Their squares would be infinite, and spoil what is summed over voxels.
                too_large = peak > LARGEST
                if too_large.any():
                    volumes = np.where(too_large, 0, volumes)
                    is_too_large |= too_large

            y, mean = glm.residuals(volumes, design.basis)
            if scale != 1:
                y *= np.float32(scale)
                mean = mean * scale

            series.append(y)
            total += mean * len(run)  # runs may differ in length

        mean = total / sum(len(run) for run in self.runs)
        if is_too_large.any():
            mean[is_too_large] = 0
            for y in series:
                y[:, is_too_large] = 0

        return BlockSeries(series, mean, is_too_large)

    def keep(self, block: slice, series: list[np.ndarray], hrf: np.ndarray) -> None:
        """Remember a block by response, if there is room.

        Parameters
        ----------
        block : slice
            which voxels
        series : list of ndarray
            (n_volumes, n_block) float32 of each run, without drift
        hrf : ndarray of shape (n_block,), int
            response of each of these voxels
        """
        if self.keeps:
            self._kept[block.start] = _split(block, series, hrf)

    def groups(self, block: slice, hrf: np.ndarray) -> list[VoxelGroup]:
        """Voxels of a block by response.

        Parameters
        ----------
        block : slice
            which voxels
        hrf : ndarray of shape (n_voxels,), int
            response of each voxel of the study

        Returns
        -------
        list of VoxelGroup
            one per response that occurs in the block, ascending
        """
        if block.start in self._kept:
            return self._kept[block.start]
        return _split(block, self.series(block).series, hrf[block])


def _refuse_not_finite(run: BoldRun, volumes: np.ndarray, first: int) -> None:
    """Name the first value of volumes (n_volumes, n_block) that is not finite."""
    t, v = np.argwhere(~np.isfinite(volumes))[0]
    raise DataError(
        f"volume {t} of {run.name} is {volumes[t, v]} in voxel {first + v}; BOLD must be finite. Leave that voxel out of the "
        "mask, or repair the preprocessing."
    )


def _design(run: BoldRun, library: HrfLibrary, options: BetaOptions, rows: slice) -> glm.RunDesign:
    """Design of a run for every response, drift and confounds projected out."""
    onset = run.events["onset"].to_numpy(dtype=np.float64) + options.onset_shift_s
    duration = run.events["duration"].to_numpy(dtype=np.float64)
    designs = library.designs(onset, duration, len(run), run.tr_s)  # (n_shapes, n_volumes, n_trials)

    degree = options.polynomial_degree
    if degree is None:
        degree = glm.polynomial_degree(run.duration_s)

    confounds = None
    if options.confounds:
        confounds = run.confounds

    # Projecting drift out of both sides leaves the least squares betas of the model that has drift as columns.
    basis = glm.nuisance_basis(len(run), degree, confounds)  # (n_volumes, k)
    return glm.RunDesign.build(designs, basis, rows)


def _split(block: slice, series: list[np.ndarray], hrf: np.ndarray) -> list[VoxelGroup]:
    """Voxels of a block by response."""
    groups = []
    for shape in np.unique(hrf):
        columns = np.flatnonzero(hrf == shape)
        part = series
        if len(columns) < len(hrf):  # else all share it, and nothing is copied
            part = [y[:, columns] for y in series]  # (n_volumes, n_group) each
        groups.append(VoxelGroup(int(shape), block.start + columns, part))

    return groups
