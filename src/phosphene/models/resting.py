"""Scans at rest as responses to pretrain on: windows of frames, averaged, of many subjects who saw nothing.

CAD's first phase and MinD-Vis train on the Human Connectome Project's, one file per subject::

    FOLDER/100307/HCP_visual_voxel.npz     V1, V2, V3, V4: each (1200 frames, voxels of that area)
    FOLDER/100307/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii
                                           or the project's own files, with a parcellation beside (phosphene.data.hcp)

A subject's 1,200 frames become 120 responses (Sun et al. 2023, section 4.1; window and scaling from the authors' code).
Each subject is read once, and alone; what comes out lies in a store on disk that is read row by row, 2.2 GB for all
1,113 subjects. So memory stays that of one subject, however many there are::

    windows = resting_windows(folder, cache)
    fetch, n = subject_batches({"hcp": windows})
    train(DcMae.create(DcMaeConfig(), {"hcp": windows.shape[1]}, seed), fetch, n, ...)
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phosphene.data.arrays import ArrayFile, open_arrays
from phosphene.data.hcp import Scan, open_scans
from phosphene.errors import DataError
from phosphene.io.progress import Progress
from phosphene.io.store import StoredRows, cached
from phosphene.models.patch_mae import PatchMaeConfig
from phosphene.types import digest_of

AREAS = ("V1", "V2", "V3", "V4")
FRAMES = 10
"""A window, 7.2 s of the Human Connectome Project's 0.72 s a frame."""


def window_means(frames: np.ndarray, per_window: int = FRAMES, padded: int | None = None) -> np.ndarray:
    """One subject's frames as responses: means of windows, scaled as a whole to mean 0 and standard deviation 1.

    Parameters
    ----------
    frames : ndarray of shape (n_frames, n_voxels)
    per_window : int, optional
        frames a window; of ``n_frames // per_window`` windows, the first are one frame longer where it does not come
        out even
    padded : int, optional
        length to which rows will be wrapped; the authors scale after wrapping, where the first voxels count twice

    Returns
    -------
    ndarray of shape (n_windows, n_voxels), float32

    Raises
    ------
    DataError
        With fewer frames than a window has, NaN or infinite values, or the same value everywhere.

    Examples
    --------
    >>> window_means(np.array([[0.0, 2.0], [2.0, 4.0], [1.0, 3.0], [1.0, 3.0]]), 2).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    n = len(frames) // per_window
    if not n:
        raise DataError(f"{len(frames)} frames came, fewer than the {per_window} of one window.")

    means = np.stack([part.mean(axis=0, dtype=np.float64) for part in np.array_split(frames, n)])
    if padded is None:
        counted = means
    else:
        counted = np.pad(means, ((0, 0), (0, padded - means.shape[1])), mode="wrap")

    centre = counted.mean()
    spread = counted.std()
    if not (np.isfinite(centre) and np.isfinite(spread) and spread > 0):
        raise DataError(
            f"frames must be finite and differ, but their means have mean {centre:.3g} and standard deviation {spread:.3g}."
        )

    return ((means - centre) / spread).astype(np.float32)


def resting_windows(
    folder: str | Path,
    cache: str | Path,
    *,
    network: PatchMaeConfig | None = None,
    areas: Sequence[str] = AREAS,
    per_window: int = FRAMES,
    file: str = "HCP_visual_voxel.npz",
    parcels: str | None = None,
    progress: Progress | None = None,
) -> StoredRows:
    """Responses of all subjects of a folder, one after another, read from disk when indexed.

    What is computed once is found again by everyone with the same files and settings; a computation that is interrupted
    goes on at the subject it had come to, and several processes share it.

    Parameters
    ----------
    folder : str or Path
        with one folder a subject that holds `file`, or one ``SUBJECT.npz`` a subject; or scans as
        :class:`phosphene.data.hcp.HCP` reads them, of the run of its file or of `file` where that is a
        ``.dtseries.nii``
    cache : str or Path
        where the responses are stored
    network : PatchMaeConfig, optional
        whose padding rows will get (`window_means`); the paper's when None
    areas : sequence of str, optional
        names of the arrays, in the order their voxels take
    per_window : int, optional
        frames a response is the mean of
    file : str, default "HCP_visual_voxel.npz"
        name of a subject's file
    parcels : str, optional
        for CIFTI files, the parcellation that has the areas; the only ``.dlabel.nii`` of the folder by default
    progress : Progress, optional
        shows how far it is

    Returns
    -------
    StoredRows
        (n_subjects * n_windows, n_voxels) float32; goes into :func:`phosphene.models.subject_batches`, and its
        ``store.ids`` say whose which row is ("100307/007")

    Raises
    ------
    DataError
        Without subjects, or when one lacks an area, has other voxels than the others, or cannot be read.
    """
    network = network or PatchMaeConfig()
    opened = _scans(Path(folder), file, areas, parcels)
    sizes = {name: _size(name, arrays, areas) for name, arrays in opened.items()}
    first = next(iter(sizes))
    n_voxels = sizes[first][1]

    for name, (frames, voxels) in sizes.items():
        if voxels != n_voxels:
            raise DataError(
                f"subject {name} has {sum(voxels)} voxels ({_listed(areas, voxels)}), but subject {first} has {sum(n_voxels)} "
                f"({_listed(areas, n_voxels)}); all must be sampled alike. Make the file of {name} again."
            )

        if frames < per_window:
            raise DataError(f"subject {name} has {frames} frames, fewer than the {per_window} of one window.")

    total = sum(n_voxels)
    if network.padding == "wrap":
        padded = network.patches_of(total) * network.patch_size
    else:
        padded = None

    ids = [f"{name}/{i:03d}" for name, (frames, _) in sizes.items() for i in range(frames // per_window)]

    def compute(wanted: np.ndarray) -> np.ndarray:
        out = np.empty((len(wanted), total), dtype=np.float32)
        owners, numbers = zip(*(str(i).rsplit("/", 1) for i in wanted), strict=True)

        for name in dict.fromkeys(owners):
            mine = [k for k, owner in enumerate(owners) if owner == name]
            frames = np.concatenate([np.asarray(opened[name][area]) for area in areas], axis=1)

            try:
                out[mine] = window_means(frames, per_window, padded)[[int(numbers[k]) for k in mine]]
            except DataError as error:
                raise DataError(f"subject {name} ({opened[name].path}): {error}") from error

        return out

    spec = {
        "what": "means of windows of frames, scaled by subject",
        "areas": list(areas),
        "per_window": per_window,
        "padded": padded,
        "files": digest_of([f"{name} {_content(scan)}" for name, scan in opened.items()]),
    }

    chunk = sizes[first][0] // per_window  # a subject
    store = cached(
        cache, spec, ids, compute, shape=(total,), chunk=chunk, unit="standard deviations", progress=progress
    )

    return store.select(ids)


def _scans(folder: Path, file: str, areas: Sequence[str], parcels: str | None) -> dict[str, ArrayFile | Scan]:
    if file.endswith(".dtseries.nii"):
        return dict(open_scans(folder, areas, file, parcels))

    found = {path.parent.name: path for path in sorted(folder.glob(f"*/{file}"))}
    found = found or {path.stem: path for path in sorted(folder.glob("*.npz"))}
    if found:
        return {name: open_arrays(path) for name, path in found.items()}
    if next(folder.rglob("*.dtseries.nii"), None) is not None:
        return dict(open_scans(folder, areas, parcels=parcels))

    raise DataError(f"{folder} holds no subject: neither SUBJECT/{file} nor SUBJECT.npz was found in it.")


def _size(name: str, arrays: ArrayFile | Scan, areas: Sequence[str]) -> tuple[int, tuple[int, ...]]:
    if arrays.kind not in ("npz", "cifti"):
        raise DataError(f"{arrays.path} of subject {name} is a {arrays.kind} file; save it with numpy.savez.")

    if absent := [area for area in areas if area not in arrays]:
        raise DataError(
            f"subject {name} has no {', '.join(absent)} in {arrays.path}, which holds {', '.join(arrays.shapes)}; each area "
            "is an array (frames, voxels)."
        )

    shapes = [arrays.shapes[area] for area in areas]
    if any(len(s) != 2 for s in shapes) or len({s[0] for s in shapes}) != 1:
        raise DataError(
            f"the areas of subject {name} must be (frames, voxels) with the same number of frames, but in {arrays.path} "
            f"they are {', '.join(f'{area} {shape}' for area, shape in zip(areas, shapes, strict=True))}."
        )

    return shapes[0][0], tuple(s[1] for s in shapes)


def _content(scan: ArrayFile | Scan) -> str:
    """What a file holds, told by the check sums that are in it, or by samples, without reading it all."""
    if isinstance(scan, Scan):
        return scan.fingerprint()

    with zipfile.ZipFile(scan.path) as archive:
        return " ".join(f"{m.filename} {m.file_size} {m.CRC:08x}" for m in archive.infolist())


def _listed(areas: Sequence[str], voxels: Sequence[int]) -> str:
    return ", ".join(f"{area} {n}" for area, n in zip(areas, voxels, strict=True))
