"""Write the runs of a simulated study as the files a scanner's study has, and beside them, in a folder apart, the truth.

:func:`write_bids` writes the Brain Imaging Data Structure, :func:`write_openfmri` the layout OpenfMRI used before it. Both
place the voxels of the cortical sheet into a volume, one voxel a cell, and say in ``voxels`` (an image of numbers, 0 outside
the brain) which row of the voxel table each cell is. The pictures shown lie in ``stimuli``, as events name them.

What the truth folder holds:

=====================  ====================================================================================================
``truth.json``         scanner, seeds, by how much the onsets in the files are late
``trials.tsv``         the trial table; ``onset_s`` is when a picture truly came on; row t belongs to row t of the betas
``voxels.tsv``         the voxel table with ``i``, ``j``, ``k`` (cell of the volume), ``baseline``, ``peak_s`` (when the response
                       to a stimulus is largest) and the response's parameters (:data:`hrf_shapes.PARAMETERS`)
``betas.npy``          (n_trials, n_voxels) float32, percent signal change: what is to be recovered
``hrf.npy``            (n_voxels, n_times) float32, every voxel's response each 0.1 s, for the duration of a stimulus
``run-001.npz`` ...    parts of each run, in percent: ``noise`` (n_volumes, n_voxels); ``drift_time`` (n_volumes, k) and
                       ``drift_space`` (k, n_voxels), and so for ``physiology`` and ``motion``; ``shift`` (n_voxels)
=====================  ====================================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from phosphene._version import __version__
from phosphene.errors import ConfigError
from phosphene.io import atomic
from phosphene.io.csv_table import csv_text
from phosphene.lab.bold import Bold, Scanner, ScannerRun, scan
from phosphene.lab.hrf_shapes import PARAMETERS, peaks, responses
from phosphene.lab.lab import Simulation
from phosphene.lab.scanner_noise import MOTION
from phosphene.types import ROI

TASK = "scenes"
_MARGIN = 1  # empty cells around the brain
_GENERATOR = {"Name": "phosphene", "Version": __version__}
_EVENT_COLUMNS = {
    "onset": {"Description": "When the picture came on, from the start of the first volume.", "Units": "s"},
    "duration": {"Description": "How long it stayed.", "Units": "s"},
    "trial_type": {"Description": "Main category of the picture."},
    "stimulus": {"Description": "Which picture: the same name is the same picture."},
    "stim_file": {"Description": "Its file below the folder stimuli."},
    "trial": {"Description": "Number of the trial in the subject's study, from 0."},
    "repeat": {"Description": "How often this picture was shown before."},
}


@dataclass(frozen=True)
class VoxelGrid:
    """Where each voxel lies in the volume.

    Attributes
    ----------
    cells : ndarray of shape (n_voxels, 3), int
        i, j, k; no two alike
    shape : tuple of (int, int, int)
        of the volume
    affine : ndarray of shape (4, 4), float64
        from cells to millimetres
    """

    cells: np.ndarray
    shape: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def place(cls, xyz: np.ndarray) -> VoxelGrid:
        """Put voxels into a volume of cubic cells, each into the nearest that is free.

        Parameters
        ----------
        xyz : ndarray of shape (n_voxels, 3)
            places on the folded sheet, millimetres
        """
        # Cells as wide as neighbours of the sheet are apart, so that a voxel fills about one.
        distances, _ = KDTree(xyz).query(xyz, k=2)  # each voxel's nearest is itself
        side = round(float(np.median(np.asarray(distances)[:, 1])), 2)
        origin = xyz.min(axis=0)
        exact = (xyz - origin) / side
        cells = np.rint(exact).astype(np.int64)
        taken: set[tuple[int, ...]] = set()
        for row, cell in enumerate(cells):
            if tuple(cell) in taken:
                cell = _nearest_free(exact[row], taken)
                cells[row] = cell
            taken.add(tuple(cell))

        # The corner of the volume is cell (0, 0, 0), and the affine says where that lies.
        low = cells.min(axis=0) - _MARGIN
        affine = np.diag([side, side, side, 1.0])
        affine[:3, 3] = origin + low * side
        n_x, n_y, n_z = (cells.max(axis=0) - low + 1 + _MARGIN).tolist()

        return cls(cells - low, (n_x, n_y, n_z), affine)

    def volume(self, values: np.ndarray) -> np.ndarray:
        """Values of the voxels, (n_voxels,) or (n_volumes, n_voxels), in the volume: (x, y, z) or (x, y, z, n_volumes)."""
        values = np.asarray(values)
        out = np.zeros((*self.shape, *values.shape[:-1]), dtype=values.dtype)
        out[tuple(self.cells.T)] = values.T  # (n_voxels,) or (n_voxels, n_volumes)
        return out


def _nearest_free(exact: np.ndarray, taken: set[tuple[int, ...]]) -> np.ndarray:
    """The free cell nearest to a place, in units of cells."""
    for reach in range(1, 50):
        steps = np.arange(-reach, reach + 1)
        offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        near = np.rint(exact) + offsets  # ((2 reach + 1)^3, 3)
        order = np.argsort(((near - exact) ** 2).sum(axis=1), kind="stable")

        for cell in near[order].astype(np.int64):
            if tuple(cell) not in taken:
                return cell

    raise ConfigError("The voxels lie too densely to be placed into a volume; simulate fewer.")


def write_bids(
    simulation: Simulation,
    folder: str | Path,
    *,
    truth: str | Path | None = None,
    scanner: Scanner | None = None,
    seed: int = 0,
    onset_shift_s: float = 0.0,
    dtype: Literal["int16", "float32"] = "int16",
    subject: str | None = None,
    overwrite: bool = False,
) -> Bold:
    """Write a study as a BIDS folder.

    Parameters
    ----------
    simulation : Simulation
        the study
    folder : str or Path
        where; it appears whole or not at all
    truth : str or Path, optional
        where the truth goes; by default beside it, with ``-truth`` after the name
    scanner : Scanner, optional
        as for :func:`~phosphene.lab.bold.scan`
    seed : int, default 0
        as for :func:`~phosphene.lab.bold.scan`
    onset_shift_s : float, default 0.0
        the events files say so much later than the pictures came on: a fault that a design check must find
    dtype : {"int16", "float32"}, default "int16"
        of the BOLD images. int16 rounds to 1/1000 of a typical voxel's baseline
    subject : str, optional
        label after ``sub-``; by default the person's number
    overwrite : bool, default False
        replace folders that exist

    Returns
    -------
    Bold
        whose runs were written

    Raises
    ------
    ConfigError
        when a folder exists and holds something, or a shifted event falls outside its run
    MachineError
        when the disk is full or cannot be written
    """
    bold = scan(simulation, scanner, seed=seed)
    grid = VoxelGrid.place(_xyz(simulation))
    label = subject or f"{_person(simulation):02d}"

    with _folders(folder, truth, overwrite) as (root, truth_folder):
        write_truth(bold, grid, truth_folder, onset_shift_s=onset_shift_s, dtype=dtype)
        _write_bids_head(simulation, bold, root, label)
        _save_pictures(simulation, root / "stimuli")
        derived = root / "derivatives" / "phosphene" / f"sub-{label}"

        # BIDS has a suffix for each kind of map; what is none of these is a mask of an ROI.
        kinds = {"brain": "desc-brain_mask", "voxels": "desc-voxels_dseg", "ceiling": "stat-noiseceiling_statmap"}
        for name, values in _maps(simulation).items():
            kind = kinds.get(name, f"label-{name}_mask")
            _save_map(grid, values, derived / "anat" / f"sub-{label}_{kind}.nii.gz")

        for run in bold:
            place = f"sub-{label}", f"ses-{run.session:02d}", "func"
            stem = f"sub-{label}_ses-{run.session:02d}_task-{TASK}_run-{run.run:02d}"
            func = root.joinpath(*place)
            confounds = derived.joinpath(*place[1:])
            _save_bold(grid, run, func / f"{stem}_bold.nii.gz", dtype)
            slices = [0.0] * grid.shape[2]  # a simulated volume is taken at one moment
            _json(func / f"{stem}_bold.json", {"TaskName": TASK, "RepetitionTime": run.tr_s, "SliceTiming": slices})
            _table(func / f"{stem}_events.tsv", _events(bold, run, onset_shift_s))
            moved = pd.DataFrame(run.motion_parameters, columns=list(MOTION))
            _table(confounds / f"{stem}_desc-confounds_timeseries.tsv", moved)
            _save_truth(run, truth_folder)

    return bold


def write_openfmri(
    simulation: Simulation,
    folder: str | Path,
    *,
    truth: str | Path | None = None,
    scanner: Scanner | None = None,
    seed: int = 0,
    onset_shift_s: float = 0.0,
    dtype: Literal["int16", "float32"] = "int16",
    overwrite: bool = False,
) -> Bold:
    """Write a study in the layout OpenfMRI used before BIDS.

    It has ``sub001/BOLD/task001_run001/bold.nii.gz``, one text of onsets per condition and run, and keys that name tasks and
    conditions. Conditions are the main categories. Runs are numbered through the study, sessions are not told apart; a
    condition that a run lacks has no file there. ``bold_events.tsv`` also names the pictures, ``bold_moest.txt`` holds three
    rotations (radians), then three translations (millimetres), as motion correction left them. Masks are in
    ``sub001/masks``.

    Parameters
    ----------
    simulation : Simulation
        the study
    folder : str or Path
        where; it appears whole or not at all
    truth : str or Path, optional
        where the truth goes; by default beside it, with ``-truth`` after the name
    scanner : Scanner, optional
        as for :func:`~phosphene.lab.bold.scan`
    seed : int, default 0
        as for :func:`~phosphene.lab.bold.scan`
    onset_shift_s : float, default 0.0
        the events files say so much later than the pictures came on
    dtype : {"int16", "float32"}, default "int16"
        of the BOLD images
    overwrite : bool, default False
        replace folders that exist

    Returns
    -------
    Bold
        whose runs were written

    Raises
    ------
    ConfigError
        when a folder exists and holds something, or a shifted event falls outside its run
    MachineError
        when the disk is full or cannot be written

    See Also
    --------
    write_bids : the layout that came after it.
    """
    bold = scan(simulation, scanner, seed=seed)
    grid = VoxelGrid.place(_xyz(simulation))
    person = f"sub{_person(simulation):03d}"
    conditions = sorted(set(bold.trials["category"]))

    with _folders(folder, truth, overwrite) as (root, truth_folder):
        write_truth(bold, grid, truth_folder, onset_shift_s=onset_shift_s, dtype=dtype)
        model = root / "models" / "model001"
        lines = {
            root / "study_key.txt": ["Simulated visual cortex that looks at scenes"],
            root / "task_key.txt": [f"task001 {TASK}"],
            root / "scan_key.txt": [f"TR {bold.tr_s:.10g}"],
            root / "model_key.txt": ["model001 main categories of the scenes"],
            model / "condition_key.txt": [f"task001 cond{n:03d} {name}" for n, name in enumerate(conditions, 1)],
        }

        for path, text in lines.items():
            _text(path, "".join(f"{line}\n" for line in text))

        _save_pictures(simulation, root / "stimuli")
        for name, values in _maps(simulation).items():
            _save_map(grid, values, root / person / "masks" / f"{name}.nii.gz")

        for run in bold:
            name = f"task001_run{run.number:03d}"
            place = root / person / "BOLD" / name
            _save_bold(grid, run, place / "bold.nii.gz", dtype)
            events = _events(bold, run, onset_shift_s)
            _table(place / "bold_events.tsv", events)

            # Rotations first, as FSL's motion correction writes them; ours have translations first.
            motion = []
            for row in np.roll(run.motion_parameters, 3, axis=1):
                motion.append("  ".join(f"{x:.6g}" for x in row) + "\n")

            _text(place / "bold_moest.txt", "".join(motion))

            # One file of onsets, durations and weights per condition that the run has.
            for number, condition in enumerate(conditions, 1):
                of_condition = events[events["trial_type"] == condition]
                if len(of_condition):
                    rows = []
                    for onset, duration in zip(of_condition["onset"], of_condition["duration"], strict=True):
                        rows.append(f"{onset:.6g}\t{duration:.6g}\t1\n")

                    onsets = root / person / "model" / "model001" / "onsets" / name
                    _text(onsets / f"cond{number:03d}.txt", "".join(rows))

            _save_truth(run, truth_folder)

    return bold


def write_truth(bold: Bold, grid: VoxelGrid, folder: Path, **note: Any) -> None:
    """Write what is true of a study into a folder that exists, but for the parts of single runs.

    Parameters
    ----------
    bold : Bold
        the study and where its voxels lie
    grid : VoxelGrid
        see `bold`
    folder : Path
        to write into
    **note : Any
        for ``truth.json``
    """
    simulation = bold.simulation
    about = {
        "simulation": simulation.name,
        "subject_seed": simulation.subject.seed,
        "snr": simulation.subject.snr,
        "scanner": asdict(bold.scanner),
        "tr_s": bold.tr_s,
        "seed": bold.seed,
        "n_volumes": bold.n_volumes.tolist(),
        "unit": "percent signal change",
        **note,
    }

    _json(folder / "truth.json", about)
    _table(folder / "trials.tsv", bold.trials)
    peak_s, _ = peaks(bold.hrf, bold.scanner.stimulus_s)
    where = pd.DataFrame(grid.cells, columns=["i", "j", "k"]).assign(baseline=bold.baseline, peak_s=peak_s.round(3))
    where = where.join(pd.DataFrame(bold.hrf, columns=list(PARAMETERS)))
    _table(folder / "voxels.tsv", where.join(simulation.voxels.reset_index(drop=True)))
    np.save(folder / "betas.npy", bold.betas, allow_pickle=False)
    time = np.arange(501) / 10
    shapes = responses(time, bold.hrf, bold.scanner.stimulus_s).astype(np.float32)  # (n_voxels, n_times)
    np.save(folder / "hrf.npy", shapes, allow_pickle=False)


def _save_truth(run: ScannerRun, folder: Path) -> None:
    """Write the parts of one run."""
    parts: dict[str, Any] = {"noise": run.noise, "shift": run.shift}
    for name, (time, space) in (("drift", run.drift), ("physiology", run.physiology), ("motion", run.motion)):
        parts[f"{name}_time"] = time
        parts[f"{name}_space"] = space

    np.savez(folder / f"run-{run.number:03d}.npz", **parts)


# -- the pieces ----------------------------------------------------------------------------------------------------------


@contextmanager
def _folders(folder: str | Path, truth: str | Path | None, overwrite: bool) -> Iterator[tuple[Path, Path]]:
    """Two folders to fill, which appear under their names when both are full."""
    folder = atomic.checked_path(folder)
    if truth is None:
        truth = folder.with_name(f"{folder.name}-truth")
    else:
        truth = atomic.checked_path(truth)

    # A reader takes every file below a study for its own.
    if folder.resolve() in (truth.resolve(), *truth.resolve().parents):
        raise ConfigError(f"the truth must lie outside {folder}, where a reader could see it; got {truth}.")

    for path in (folder, truth):
        if not overwrite and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"{path} exists and is not empty. Choose another folder, or say overwrite=True.")

    with atomic.folder(folder) as root, atomic.folder(truth) as truth_root:
        yield root, truth_root


def _write_bids_head(simulation: Simulation, bold: Bold, root: Path, label: str) -> None:
    """Write what BIDS wants at the top of a study, and at the top of its derivative."""
    about = {"Name": f"{simulation.name}: simulated visual cortex", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    derived = {**about, "Name": "masks, noise ceilings, motion", "DatasetType": "derivative"}
    _json(root / "dataset_description.json", {**about, "GeneratedBy": [_GENERATOR]})
    _json(root / "derivatives" / "phosphene" / "dataset_description.json", {**derived, "GeneratedBy": [_GENERATOR]})
    text = f"Simulated by phosphene: {bold!r}. Nothing here was measured on a person.\n\nPictures: folder stimuli.\n"
    _text(root / "README", text)
    _table(root / "participants.tsv", pd.DataFrame({"participant_id": [f"sub-{label}"]}))
    _json(root / f"task-{TASK}_events.json", _EVENT_COLUMNS)


def _xyz(simulation: Simulation) -> np.ndarray:
    """Places of the voxels on the folded sheet, (n_voxels, 3) millimetres."""
    return simulation.voxels[["x", "y", "z"]].to_numpy(dtype=np.float64)


def _person(simulation: Simulation) -> int:
    """Number of the person, as :func:`~phosphene.lab.lab.make` was asked for."""
    return simulation.subject.seed % 1000 or 1


def _maps(simulation: Simulation) -> dict[str, np.ndarray]:
    """Images of one value per voxel: brain, number of the voxel from 1, ceiling (of one trial), and each ROI."""
    voxels = simulation.voxels
    n = len(voxels)
    maps: dict[str, np.ndarray] = {
        "brain": np.ones(n, dtype=np.uint8),
        "voxels": np.arange(1, n + 1, dtype=np.int32),
        "ceiling": voxels["noise_ceiling"].to_numpy(dtype=np.float32),
    }

    for column in voxels:
        if column.startswith(ROI):
            maps[column[len(ROI) :]] = voxels[column].to_numpy(dtype=np.uint8)

    return maps


def _events(bold: Bold, run: ScannerRun, shift_s: float) -> pd.DataFrame:
    """The events file of a run."""
    onset = run.trials["onset_s"].to_numpy(dtype=float) + shift_s
    duration = bold.scanner.stimulus_s
    first = float(onset.min())
    last_end = float(onset.max()) + duration

    if first < 0 or last_end > run.duration_s:
        raise ConfigError(
            f"with onset_shift_s={shift_s} the events of run {run.number} reach from {first:g} to "
            f"{last_end:g} s, but the run from 0 to {run.duration_s:g} s. Shift by less, or give the scanner more "
            "lead_slots or tail_slots."
        )

    table = pd.DataFrame({"onset": onset, "duration": duration, "trial_type": run.trials["category"]})
    table["stimulus"] = run.trials["stimulus"]
    table["stim_file"] = [_picture_file(name) for name in table["stimulus"]]

    return table.assign(**{name: run.trials[name] for name in ("trial", "repeat")})


def _picture_file(stimulus: str) -> str:
    """Name of a picture's file below ``stimuli``."""
    return f"{stimulus}.png"


def _save_pictures(simulation: Simulation, folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for name, pixels in zip(simulation.ids, simulation.images, strict=True):
        Image.fromarray(pixels).save(folder / _picture_file(name))


def _save_map(grid: VoxelGrid, values: np.ndarray, path: Path) -> None:
    _save_image(grid, grid.volume(values), path)


def _save_bold(grid: VoxelGrid, run: ScannerRun, path: Path, dtype: str) -> None:
    if dtype not in ("int16", "float32"):
        raise ConfigError(f"dtype of the images is int16 or float32; got {dtype!r}.")
    values = run.volumes
    if dtype == "int16":
        limits = np.iinfo(np.int16)
        if values.max() > limits.max or values.min() < limits.min:
            raise ConfigError(
                f"the signal of run {run.number} reaches {abs(values).max():.0f}, but int16 holds {limits.max}. Lower the "
                "scanner's baseline, or say dtype='float32'."
            )

        values = np.rint(values).astype(np.int16)

    _save_image(grid, grid.volume(values), path, run.tr_s)


def _save_image(grid: VoxelGrid, data: np.ndarray, path: Path, tr_s: float | None = None) -> None:
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, grid.affine, dtype=data.dtype)
    image.set_qform(grid.affine, code="scanner")
    image.set_sform(grid.affine, code="scanner")
    image.header.set_xyzt_units("mm", "sec")

    if tr_s is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr_s))

    nib.save(image, path)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _json(path: Path, content: dict[str, Any]) -> None:
    _text(path, json.dumps(content, indent=2) + "\n")


def _table(path: Path, table: pd.DataFrame) -> None:
    _text(path, csv_text(table, sep="\t", na_rep="n/a"))
