"""Miyawaki 2008: black and white patterns of 10 x 10 squares, early visual cortex of one person.

Two forms, chosen by what is there::

    ROOT/func/data_random_run01.nii.gz ... run20, data_figure_run01.nii.gz ... run12      as nilearn's fetcher leaves it
    ROOT/label/data_random_run01_label.csv ...      one line a volume: 100 numbers, 0 or 1, and -1 at rest
    ROOT/mask/mask.nii.gz, LHV1d.nii.gz, RHV1d.nii.gz ... LHlag0to1.nii.gz ...

    ROOT/miyawaki_structured_28x28.mat              figures only, as used by Du et al.: 107 and 12 rows, 967 voxels

In the first form a trial is a block of volumes with one pattern: the mean of its volumes, two volumes (4 s) late, after
taking out a line from every voxel of a run. Random patterns train and figures test, as in the paper. The second form is a
pair file, see ``pairs.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.data.findings import Finding
from phosphene.data.importing import read_text
from phosphene.data.pairs import PairFile, PairOptions
from phosphene.data.reader import about
from phosphene.data.volumes import open_nifti, open_session, read_labels
from phosphene.errors import DataError, PhospheneError, did_you_mean
from phosphene.types import ROI, Dataset, Split, Stimuli, Trials

FILE = "miyawaki_structured_28x28.mat"
COUNTS = {"mat": (107, 12, 967), "runs": (20, 12)}
SIDE = 10
_RUN = re.compile(r"data_(random|figure)_run(\d+)\.nii(?:\.gz)?")
_UNIONS = {"V1": ("V1d", "V1v"), "V2": ("V2d", "V2v")}
_SIDES = {"random": "train", "figure": "test"}
_DIGITS = {"random": 4, "figure": 3}  # of the number in an id; a run of random patterns shows 22 new ones


class MiyawakiOptions(PairOptions):
    """Options of both forms; those of pair files are for the MATLAB file."""

    variant: Literal["auto", "runs", "mat"] = Field(
        "auto", description="runs (func, label, mask) where they are, else mat"
    )
    lag_volumes: int = Field(2, ge=0, description="volumes (2 s) by which responses come after pictures; runs")
    image_shape: tuple[int, ...] | None = Field((28, 28), description="height and width of a picture; mat")


class Miyawaki(PairFile):
    """Reader of both forms."""

    title: ClassVar[str] = "Miyawaki 2008: patterns of 10 x 10 squares, early visual cortex of one person"
    citation: ClassVar[str] = (
        "Miyawaki et al. (2008), Visual image reconstruction from human brain activity using a combination of multiscale "
        "local image decoders, Neuron 60(5), 915-929."
    )
    licence: ClassVar[str] = "none stated with the files; for your own tests, not for redistribution"
    url: ClassVar[str] = "https://www.nitrc.org/frs/?group_id=1070"
    files: ClassVar[str] = f"miyawaki2008/func, label and mask; or miyawaki/{FILE}"
    options: ClassVar[type[PairOptions]] = MiyawakiOptions

    def find(self, root: Path) -> Path:
        """The folder of either form, at or below `root`."""
        root = Path(root)
        for place in (root, root / "miyawaki2008", root / "miyawaki"):
            if (place / "func").is_dir() or (place / FILE).is_file():
                return place

        if root.is_dir():
            names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
        else:
            names = []

        raise DataError(
            f"Miyawaki 2008 was looked for as func/ and as {FILE} in {root}, its miyawaki2008 and its miyawaki; {root} holds "
            f"{', '.join(names[:8]) or 'nothing'}. Give the folder that holds either with --root."
        )

    def name(self, path: Path) -> str:
        """miyawaki, whatever the file is called.

        Parameters
        ----------
        path : Path
            from `find`
        """
        return "miyawaki"

    def _variant(self, path: Path, options: Any) -> str:
        """The form to read: the one asked for, else the runs before the MATLAB file."""
        places = {"runs": path / "func", "mat": path / FILE}
        present = [variant for variant, place in places.items() if place.exists()]
        if not present:
            raise DataError(f"{path} has neither func nor {FILE}. Give the folder that holds either with --root.")

        if options.variant == "auto":
            return present[0]

        if options.variant not in present:
            raise DataError(f"{path} has no {places[options.variant].name}; it has {', '.join(present)}.")

        return options.variant

    def load(self, path: Path, options: Any, subject: str | None = None) -> Dataset:
        """Read either form.

        Parameters
        ----------
        path : Path
            from `find`
        options : MiyawakiOptions
            which form; lag of the responses, or which array is what
        subject : str, optional
            must be the one subject, when given

        Returns
        -------
        Dataset
            Dataset of one subject, S1. From runs: stimuli are the distinct patterns, ``random-0000`` ... and
            ``figure-000`` ..., pictures of 10 x 10 pixels; the split ``miyawaki`` trains on random patterns and tests
            figures. From the MATLAB file: see `PairFile.load`.

        Raises
        ------
        DataError
            Labels and volumes of unequal number, a volume on another grid, or labels other than -1, 0 and 1.
        """
        path = Path(path)
        if self._variant(path, options) == "mat":
            return super().load(path / FILE, options, subject)
        if subject not in (None, options.subject):
            raise DataError(f"{path} has no subject '{subject}'. {did_you_mean(subject, [options.subject])}")
        return _from_runs(self, path, options)

    def check(self, path: Path, options: Any) -> list[Finding]:
        """Counts against the published ones.

        Parameters
        ----------
        path : Path
            from `find`
        options : MiyawakiOptions
            which form
        """
        try:
            variant = self._variant(Path(path), options)
            dataset = self.load(path, options)
        except PhospheneError as error:
            return [Finding("problem", "files", str(error))]

        trials = dataset.trials()
        side = dataset.trials().table["side"]
        if variant == "mat":
            n_train = int(np.count_nonzero(side == "train"))
            n_test = int(np.count_nonzero(side == "test"))
            counts = (n_train, n_test, trials.n_voxels)
            named = "rows and voxels"
        else:
            runs = trials.table.groupby("side")["run"].nunique()
            counts = (int(runs.get("train") or 0), int(runs.get("test") or 0))
            named = "random and figure runs"

        # A note and no problem: people leave runs out on purpose.
        expected = COUNTS[variant]
        detail = f"{', '.join(map(str, counts))} {named}"
        if counts == expected:
            return [Finding("ok", "counts", f"{detail}; as published.")]

        return [Finding("note", "counts", f"{detail}; published: {', '.join(map(str, expected))}.")]


def _from_runs(reader: Miyawaki, path: Path, options: MiyawakiOptions) -> Dataset:
    like = open_nifti(_image(path / "mask", "mask"), 3)
    ijk = np.argwhere(read_labels(_image(path / "mask", "mask")) > 0)
    if not len(ijk):
        raise DataError(f"the mask below {path / 'mask'} is nowhere above 0, so no voxel is left.")

    files = []
    for file in (path / "func").iterdir():
        match = _RUN.fullmatch(file.name)
        if match:
            files.append((match[1] == "figure", int(match[2]), match[1], file))

    if not files:
        raise DataError(f"{path / 'func'} holds no data_random_runNN.nii.gz or data_figure_runNN.nii.gz; fetch them.")

    betas = []
    rows = []
    patterns: dict[str, np.ndarray] = {}  # stimulus id to its 100 squares
    names: dict[tuple[str, bytes], str] = {}
    n_patterns = {"random": 0, "figure": 0}
    for _, number, kind, file in sorted(files):  # random runs first
        labels = _labels(path / "label" / f"data_{kind}_run{number:02d}_label.csv")
        session = open_session(file, like.shape)
        if not np.allclose(open_nifti(file, 4).affine, like.affine, atol=1e-3):
            raise DataError(f"{file} lies elsewhere than the mask: their affines differ. Resample one to the other.")
        if session.n_trials != len(labels):
            raise DataError(
                f"{file} has {session.n_trials} volumes, but its labels have {len(labels)} lines; rows are never dropped to "
                "make them fit. Fetch both again."
            )

        volumes = _without_line(session.read(ijk))
        for start, stop in _blocks(labels):
            # The response of the blood comes about 4 s after the picture: the last volumes of a block are in the next one.
            late = slice(start + options.lag_volumes, stop + options.lag_volumes)
            if late.start >= len(volumes):
                raise DataError(
                    f"the block of volumes {start} to {stop - 1} of {file.name} ends the run, so nothing is left of its "
                    f"response after {options.lag_volumes} volumes; choose a smaller lag_volumes."
                )

            betas.append(volumes[late].mean(axis=0))  # (n_voxels,)
            pattern = labels[start].astype(np.uint8)
            key = (kind, pattern.tobytes())
            if key not in names:
                names[key] = f"{kind}-{n_patterns[kind]:0{_DIGITS[kind]}d}"
                patterns[names[key]] = pattern
                n_patterns[kind] += 1

            rows.append((names[key], _SIDES[kind], number, start, stop - start))

    table = pd.DataFrame(rows, columns=["stimulus", "side", "run", "first_volume", "n_volumes"])
    table["session"] = np.where(table["side"] == "train", 1, 2)  # random and figure runs were measured apart

    # The squares of a pattern stand column by column, as MATLAB wrote them.
    squares = np.stack([pattern.reshape(SIDE, SIDE).T for pattern in patterns.values()])
    pixels = squares[..., None] * np.uint8(255)  # (n_stimuli, 10, 10, 1)
    category = [name.split("-")[0] for name in patterns]
    xyz = ijk @ like.affine[:3, :3].T + like.affine[:3, 3]  # (n_voxels, 3), mm
    voxels = pd.DataFrame(np.asarray(ijk), columns=list("ijk"))
    voxels[["x", "y", "z"]] = xyz
    voxels = voxels.assign(**_rois(path / "mask", like, ijk))
    notes = {"unit": "as in the file, a line taken out of every run", "lag": f"{options.lag_volumes} volumes"}
    trials = Trials(np.stack(betas).astype(np.float32), table, voxels, options.subject, notes)
    splits = {}
    train = tuple(dict.fromkeys(table["stimulus"][table["side"] == "train"]))
    test = tuple(dict.fromkeys(table["stimulus"][table["side"] == "test"]))
    if train and test:
        note = "random patterns train, figures test, as in the paper."
        splits["miyawaki"] = Split("miyawaki", train, test, note=note)

    stimuli = Stimuli(np.asarray(list(patterns), dtype=object), pixels, category=np.asarray(category, dtype=object))
    return Dataset("miyawaki", stimuli, {options.subject: trials}, splits, about(reader, variant="runs"))


def _image(folder: Path, name: str) -> Path:
    return next((p for e in (".nii.gz", ".nii") if (p := folder / f"{name}{e}").is_file()), folder / f"{name}.nii.gz")


def _labels(path: Path) -> np.ndarray:
    """(n_volumes, 100) int8: 0 or 1, and rows of -1 at rest."""
    if not path.is_file():
        raise DataError(f"{path} is not there, so nothing says what was shown; fetch it.")
    rows = []
    for number, line in enumerate(read_text(path, "the labels").splitlines(), start=1):
        cells = [c.strip() for c in line.split(",") if c.strip()]
        try:
            row = np.asarray([float(c) for c in cells])
        except ValueError as error:
            raise DataError(f"line {number} of {path} should hold numbers, but: {error}.") from error

        rest = bool(len(row)) and bool((row == -1).all())
        if len(row) != SIDE**2 or not (rest or np.isin(row, (0, 1)).all()):
            examples = ", ".join(f"{v:g}" for v in np.unique(row)[:4])
            raise DataError(
                f"line {number} of {path} has {len(row)} values ({examples}); {SIDE**2} of 0 or 1 are expected, or -1 throughout "
                "at rest."
            )

        rows.append(row.astype(np.int8))

    return np.stack(rows)


def _blocks(labels: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last volume of every block of equal patterns, rest left out."""
    edges = np.flatnonzero((np.diff(labels, axis=0) != 0).any(axis=1)) + 1
    bounds = zip([0, *edges.tolist()], [*edges.tolist(), len(labels)], strict=True)
    return [(a, b) for a, b in bounds if labels[a, 0] >= 0]


def _without_line(volumes: np.ndarray) -> np.ndarray:
    """(n_volumes, n_voxels) float32 less its least-squares line over time."""
    out = volumes.astype(np.float32)
    out -= out.mean(axis=0)
    t = np.arange(len(out), dtype=np.float32) - (len(out) - 1) / 2  # centred, so that slope and mean are independent
    if len(out) > 1:
        out -= t[:, None] * (t @ out / (t @ t))

    return out


def _rois(folder: Path, like: Any, ijk: np.ndarray) -> dict[str, np.ndarray]:
    """ROIs of both hemispheres, and V1 and V2 as unions of their halves."""
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("[LR]H*.nii*")):
        name = path.name.split(".nii")[0]
        files.setdefault(name[2:], {})[name[:2]] = path

    out = {}
    for roi, sides in files.items():
        if len(sides) == 1:
            side = next(iter(sides))
            raise DataError(f"{folder} has {sides[side].name} but not the other hemisphere of {roi}; fetch it.")
        values = np.maximum(*(read_labels(p, like) for p in sides.values()))
        out[ROI + roi] = values[tuple(ijk.T)] > 0

    for union, parts in _UNIONS.items():
        if all(ROI + p in out for p in parts):
            out[ROI + union] = out[ROI + parts[0]] | out[ROI + parts[1]]

    return out
