"""Scans at rest as responses to pretrain on: windows of frames, averaged, of many subjects who saw nothing.

CAD's first phase and MinD-Vis train on the Human Connectome Project's, one file per subject::

    FOLDER/100307/HCP_visual_voxel.npz     V1, V2, V3, V4: each (1200 frames, voxels of that area)
    FOLDER/100307/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii
                                           or the project's own files, with a parcellation (phosphene.data.hcp)

A subject's 1,200 frames become 120 responses (Sun et al. 2023, section 4.1; window and scaling from the authors' code).
Each subject is read once, and alone; what comes out lies in a store on disk that is read row by row, 2.2 GB for all
1,113 subjects. So memory stays that of one subject, however many there are::

    windows = resting_windows(folder, cache)
    fetch, n = subject_batches({"hcp": windows})
    train(DcMae.create(DcMaeConfig(), {"hcp": windows.shape[1]}, seed), fetch, n, ...)
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from phosphene.data.arrays import ArrayFile, open_arrays
from phosphene.data.hcp import Scan, open_scans
from phosphene.errors import DataError
from phosphene.io.progress import Progress
from phosphene.io.store import StoredRows, cached
from phosphene.types import digest_of

AREAS = ("V1", "V2", "V3", "V4")
FRAMES = 10
"""A window, 7.2 s of the Human Connectome Project's 0.72 s a frame."""
PATCH = 16  # voxels of a patch in the authors' code


def wrapped_length(n_voxels: int) -> int:
    """Length to which the authors wrap a row: patches of 16 voxels, one more than fit, even where they fit exactly.

    Examples
    --------
    >>> wrapped_length(4466), wrapped_length(4480)
    (4480, 4496)
    """
    return (n_voxels // PATCH + 1) * PATCH


def window_means(frames: np.ndarray, per_window: int = FRAMES, padded: int | None = None) -> np.ndarray:
    """One subject's frames as responses: means of windows, scaled as a whole to mean 0 and standard deviation 1.

    Parameters
    ----------
    frames : ndarray of shape (n_frames, n_voxels)
        in any unit, which the scaling takes away
    per_window : int, optional
        frames a window; of ``n_frames // per_window`` windows, the first are one frame longer where it does not come
        out even
    padded : int, optional
        length to which rows will be wrapped; the authors scale after wrapping, where the first voxels count twice

    Returns
    -------
    ndarray of shape (n_windows, n_voxels), float32
        in standard deviations

    Raises
    ------
    DataError
        With fewer frames than a window has, NaN or infinite values, or the same value everywhere.

    Examples
    --------
    >>> window_means(np.array([[0.0, 2.0], [2.0, 4.0], [1.0, 3.0], [1.0, 3.0]]), 2).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    n_windows = len(frames) // per_window
    if not n_windows:
        raise DataError(f"{len(frames)} frames came, fewer than the {per_window} of one window.")

    windows = np.array_split(frames, n_windows)
    means = np.stack([window.mean(axis=0, dtype=np.float64) for window in windows])  # (n_windows, n_voxels)

    if padded is None:
        scaled_over = means
    else:
        scaled_over = np.pad(means, ((0, 0), (0, padded - means.shape[1])), mode="wrap")  # (n_windows, padded)

    mean = scaled_over.mean()
    std = scaled_over.std()
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
        raise DataError(
            f"frames must be finite and differ, but their means have mean {mean:.3g} and standard deviation {std:.3g}."
        )

    return ((means - mean) / std).astype(np.float32)


def resting_windows(
    folder: str | Path,
    cache: str | Path,
    *,
    padded_length: Callable[[int], int | None] = wrapped_length,
    areas: Sequence[str] = AREAS,
    per_window: int = FRAMES,
    file: str = "HCP_visual_voxel.npz",
    parcels: str | None = None,
    progress: Progress | None = None,
) -> StoredRows:
    """Responses of all subjects of a folder, one after another, read from disk when indexed.

    What is computed once is found by everyone with the same files and settings; a computation that is interrupted goes
    on at the subject it had come to, and several processes share it.

    Parameters
    ----------
    folder : str or Path
        with one folder a subject that holds `file`, or one ``SUBJECT.npz`` a subject; or scans as
        :class:`phosphene.data.hcp.HCP` reads them, of the run of its file or of `file` where that is a
        ``.dtseries.nii``
    cache : str or Path
        where the responses are stored
    padded_length : callable, default wrapped_length
        from the voxels of a row to the length it will be wrapped to before it reaches the network, or None where it is
        not wrapped (see `window_means`); :meth:`phosphene.models.PatchMaeConfig.wrapped_length` of a network
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
        ``store.ids`` name subject and window of each row ("100307/007")

    Raises
    ------
    DataError
        Without subjects, or when one lacks an area, has other voxels than the others, or cannot be read.
    """
    scans = _open_subjects(Path(folder), file, areas, parcels)
    sizes = {subject: _size(subject, scan, areas) for subject, scan in scans.items()}
    first = next(iter(sizes))
    n_frames, n_voxels = sizes[first]
    _check_alike(sizes, areas, per_window)

    total = sum(n_voxels)
    padded = padded_length(total)

    ids: list[str] = []
    for subject, (frames, _) in sizes.items():
        ids += [f"{subject}/{window:03d}" for window in range(frames // per_window)]

    def compute(missing: np.ndarray) -> np.ndarray:
        """Rows of the ids that are not in the store yet; a subject's file is read once for all of its windows."""
        responses = np.empty((len(missing), total), dtype=np.float32)
        subjects, numbers = zip(*(str(i).rsplit("/", 1) for i in missing), strict=True)

        for subject in dict.fromkeys(subjects):
            rows = [row for row, owner in enumerate(subjects) if owner == subject]
            windows = [int(numbers[row]) for row in rows]
            frames = np.concatenate([np.asarray(scans[subject][area]) for area in areas], axis=1)  # (n_frames, total)

            try:
                responses[rows] = window_means(frames, per_window, padded)[windows]
            except DataError as error:
                raise DataError(f"subject {subject} ({scans[subject].path}): {error}") from error

        return responses

    spec = {
        "what": "means of windows of frames, scaled by subject",
        "areas": list(areas),
        "per_window": per_window,
        "padded": padded,
        "files": digest_of([f"{subject} {_content(scan)}" for subject, scan in scans.items()]),
    }

    one_subject = n_frames // per_window
    store = cached(
        cache, spec, ids, compute, shape=(total,), chunk=one_subject, unit="standard deviations", progress=progress
    )

    return store.select(ids)


def _open_subjects(folder: Path, file: str, areas: Sequence[str], parcels: str | None) -> dict[str, ArrayFile | Scan]:
    if file.endswith(".dtseries.nii"):
        return dict(open_scans(folder, areas, file, parcels))

    paths = {path.parent.name: path for path in sorted(folder.glob(f"*/{file}"))}
    if not paths:
        paths = {path.stem: path for path in sorted(folder.glob("*.npz"))}

    if paths:
        return {subject: open_arrays(path) for subject, path in paths.items()}

    if next(folder.rglob("*.dtseries.nii"), None) is not None:
        return dict(open_scans(folder, areas, parcels=parcels))

    raise DataError(f"{folder} holds no subject: neither SUBJECT/{file} nor SUBJECT.npz was found in it.")


def _size(subject: str, scan: ArrayFile | Scan, areas: Sequence[str]) -> tuple[int, tuple[int, ...]]:
    """Frames of a subject, and voxels of each area."""
    if scan.kind not in ("npz", "cifti"):
        raise DataError(f"{scan.path} of subject {subject} is a {scan.kind} file; save it with numpy.savez.")

    if absent := [area for area in areas if area not in scan]:
        raise DataError(
            f"subject {subject} has no {', '.join(absent)} in {scan.path}, which holds {', '.join(scan.shapes)}; each area "
            "is an array (frames, voxels)."
        )

    shapes = [scan.shapes[area] for area in areas]
    if any(len(shape) != 2 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        listed = ", ".join(f"{area} {shape}" for area, shape in zip(areas, shapes, strict=True))
        raise DataError(
            f"the areas of subject {subject} must be (frames, voxels) with the same number of frames, but in {scan.path} "
            f"they are {listed}."
        )

    return shapes[0][0], tuple(shape[1] for shape in shapes)


def _check_alike(sizes: dict[str, tuple[int, tuple[int, ...]]], areas: Sequence[str], per_window: int) -> None:
    first = next(iter(sizes))
    n_voxels = sizes[first][1]

    for subject, (frames, voxels) in sizes.items():
        if voxels != n_voxels:
            raise DataError(
                f"subject {subject} has {sum(voxels)} voxels ({_listed(areas, voxels)}), but subject {first} has "
                f"{sum(n_voxels)} ({_listed(areas, n_voxels)}); all must be sampled alike. Make the file of {subject} again."
            )

        if frames < per_window:
            raise DataError(f"subject {subject} has {frames} frames, fewer than the {per_window} of one window.")


def _content(scan: ArrayFile | Scan) -> str:
    """What tells a file from another: the check sums that are in it, or samples, so that not all of it is read."""
    if isinstance(scan, Scan):
        return scan.fingerprint()

    with zipfile.ZipFile(scan.path) as archive:
        return " ".join(f"{m.filename} {m.file_size} {m.CRC:08x}" for m in archive.infolist())


def _listed(areas: Sequence[str], voxels: Sequence[int]) -> str:
    return ", ".join(f"{area} {n}" for area, n in zip(areas, voxels, strict=True))
