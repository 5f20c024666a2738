"""BData files of the Kamitani lab: one HDF5 matrix whose columns are voxels and labels, described by metadata.

::

    dataset               (rows, columns) numbers: voxels beside run, label, stimulus ...
    metadata/key          (n_keys,) names such as VoxelData, ROI_V1, Run, stimulus_id, voxel_x
    metadata/description  (n_keys,) texts
    metadata/value        (n_keys, columns); nan where a key says nothing of a column
    vmap/KEY/NUMBER       name of a value of KEY, such as vmap/Label/1.0 = "bottle"

A key that is 1 (or 0) on voxels marks a set of them; a key that is 1 on one column beside the voxels names that column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.data.arrays import open_arrays
from phosphene.data.findings import Finding
from phosphene.data.reader import ReaderOptions, about
from phosphene.errors import ConfigError, DataError, PhospheneError, did_you_mean
from phosphene.io.hdf5 import hdf5_dataset, open_hdf5
from phosphene.io.reading import reads
from phosphene.types import ROI, Dataset, Rows, Split, Stimuli, Trials

_PARTS = ("dataset", "metadata/key", "metadata/value")
_COORDINATES = {"voxel_x": "x", "voxel_y": "y", "voxel_z": "z", "voxel_i": "i", "voxel_j": "j", "voxel_k": "k"}
VOXELS = "VoxelData"


class BData:
    """An open BData file; voxels are read when asked for.

    Parameters
    ----------
    path : str or Path
        the file

    Raises
    ------
    DataError
        No such file, another layout, or metadata that do not fit the matrix.
    """

    @reads("path")
    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = open_arrays(self.path)
        missing = [part for part in _PARTS if part not in file.shapes]
        if missing:
            raise DataError(
                f"{self.path} has no {' and no '.join(missing)}, so it is no BData file; it holds "
                f"{', '.join(list(file.shapes)[:6])}."
            )

        self.shape = file.shapes["dataset"]
        keys = self._texts("metadata/key")
        values = np.asarray(file["metadata/value"], dtype=np.float64)
        if len(self.shape) != 2 or values.shape != (len(keys), self.shape[-1]):
            hint = ""
            if len(self.shape) == 2 and values.shape[-1] == self.shape[0]:
                hint = " The metadata describe as many columns as there are rows: 'dataset' is transposed."
            raise DataError(
                f"'dataset' in {self.path} is {self.shape} and 'metadata/value' {values.shape}; ({len(keys)} keys, columns) "
                f"is expected.{hint}"
            )

        twice = [k for k in keys if keys.count(k) > 1]
        if twice:
            raise DataError(f"the key '{twice[0]}' stands {keys.count(twice[0])} times in {self.path}; keep one.")

        self.values = dict(zip(keys, values, strict=True))
        self.names: dict[str, dict[float, str]] = {}
        for name in file.shapes:
            if name.startswith("vmap/") and name.count("/") == 2:
                _, key, number = name.split("/")
                self.names.setdefault(key, {})[float(number)] = self._texts(name)[0]

    def _texts(self, name: str) -> list[str]:
        with open_hdf5(self.path) as file:
            return [t.decode() if isinstance(t, bytes) else str(t) for t in np.ravel(hdf5_dataset(file, name)[()])]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of everything the file describes."""
        return tuple(self.values)

    def columns(self, expression: str) -> np.ndarray:
        """Columns that a key marks.

        Parameters
        ----------
        expression : str
            a key, or several joined by ``+`` (union), ``&`` (intersection) or ``-`` (without), left to right

        Returns
        -------
        ndarray of shape (n_columns,), bool

        Raises
        ------
        DataError
            For an unknown key, with the nearest.
        """
        # Minus only between blanks: names of keys hold it too, as in "ROI_hMT-V5". \0 stands for it while splitting.
        mask: np.ndarray | None = None
        operation = "+"

        for part in expression.replace("&", " & ").replace("+", " + ").replace(" - ", " \0 ").split():
            if part in "+&\0":
                operation = part
                continue

            if part not in self.values:
                raise DataError(f"{self.path} has no key '{part}'. {did_you_mean(part, self.keys)}")

            is_marked = self.values[part] == 1  # (n_columns,); NaN and 0 both mean that it is not
            if mask is None:
                mask = is_marked
            elif operation == "+":
                mask = mask | is_marked
            elif operation == "&":
                mask = mask & is_marked
            else:
                mask = mask & ~is_marked

        if mask is None:
            raise DataError(f"a key was expected, but '{expression}' is empty. {did_you_mean('', self.keys)}")
        return mask

    def select(self, expression: str) -> np.ndarray:
        """(rows, columns chosen) of the file's dtype; no columns where none are marked.

        Parameters
        ----------
        expression : str
            see `columns`
        """
        where = np.flatnonzero(self.columns(expression))
        if not where.size:
            return np.empty((self.shape[0], 0))

        try:
            with open_hdf5(self.path) as file:
                block = hdf5_dataset(file, "dataset")[:, where[0] : where[-1] + 1]
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self.path} is damaged ({error}). Download it again.") from error

        return block[:, where - where[0]]

    def column(self, key: str) -> np.ndarray:
        """(rows,) the one column that a key names. Raises DataError where it names none or several.

        Parameters
        ----------
        key : str
            such as "Run"
        """
        block = self.select(key)
        if block.shape[1] != 1:
            raise DataError(f"'{key}' marks {block.shape[1]} columns of {self.path}; one is expected.")
        return block[:, 0]

    def named(self, key: str) -> np.ndarray:
        """(rows,) object: names of a key's values where ``vmap`` has them, else the values as text.

        Parameters
        ----------
        key : str
            such as "Label"; 15 digits of a number are kept, as ids of pictures have 13
        """
        names = self.names.get(key, {})
        return np.asarray([names.get(float(v), f"{v:.15g}") for v in self.column(key)], dtype=object)

    def voxels(self) -> pd.DataFrame:
        """One row per voxel: coordinates, and one column per ROI."""
        columns = np.flatnonzero(self.columns(VOXELS))
        if not columns.size:
            raise DataError(f"'{VOXELS}' marks no column of {self.path}; there are no voxels.")

        out: dict[str, np.ndarray] = {}
        for key, name in _COORDINATES.items():
            if key in self.values:
                out[name] = self.values[key][columns]

        for key, values in self.values.items():
            if key.startswith("ROI_"):
                out[ROI + key.removeprefix("ROI_")] = values[columns] == 1

        return pd.DataFrame(out, index=pd.RangeIndex(columns.size))

    def rows(self) -> Rows:
        """Voxels of every row, read when asked for."""
        return _VoxelRows(self)


class _VoxelRows:
    """The voxels of some rows. A block is read and the columns taken from memory: h5py is slow with lists of columns."""

    def __init__(self, file: BData) -> None:
        self.path = file.path
        self.columns = np.flatnonzero(file.columns(VOXELS))
        self.shape = (file.shape[0], len(self.columns))

    def __getitem__(self, rows: Any) -> np.ndarray:
        index = np.arange(self.shape[0])[rows]
        if not np.size(index):
            return np.empty((*np.shape(index), self.shape[1]), dtype=np.float32)

        low = int(np.min(index))
        high = int(np.max(index)) + 1
        first = self.columns[0]
        last = self.columns[-1] + 1

        try:
            with open_hdf5(self.path) as file:
                block = hdf5_dataset(file, "dataset")[low:high, first:last]
        except (OSError, RuntimeError, KeyError) as error:
            raise DataError(f"{self.path} is damaged ({error}). Download it again.") from error

        return block[np.asarray(index) - low][..., self.columns - first]  # (n, n_voxels)


class BDataOptions(ReaderOptions):
    """Which columns say what."""

    stimulus: str | None = Field(
        None, description="key of what was shown; stimulus_id, image_index or Label by default"
    )
    category: str | None = Field(None, description="key of its category; none by default")
    session: str | None = Field("Session", description="key of the session; may be absent from the file")
    run: str | None = Field("Run", description="key of the run; may be absent from the file")
    data_type: str | None = Field("DataType", description="key with 1 for training, 2 for test; may be absent")
    subject: str | None = Field(None, description="name of the person; that of the file by default")
    unit: Literal["stimulus", "trial"] = Field("stimulus", description="unit of the split that data_type makes")


class BDataFile:
    """Reader of any BData file: responses and what was shown, without pictures."""

    title: ClassVar[str] = "A BData file of the Kamitani lab"
    citation: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    url: ClassVar[str] = "https://github.com/KamitaniLab/bdpy"
    files: ClassVar[str] = "one .h5 file with dataset, metadata and vmap"
    options: ClassVar[type[BDataOptions]] = BDataOptions

    def find(self, root: Path) -> Path:
        """The file itself: it is named by its path."""
        return root

    def subjects(self, path: Path, options: BDataOptions) -> tuple[str, ...]:
        """The one subject of the file.

        Parameters
        ----------
        path : Path
            the file
        options : BDataOptions
            may hold its name, which the file does not
        """
        return (options.subject or Path(path).stem,)

    def load(self, path: Path, options: BDataOptions, subject: str | None = None) -> Dataset:
        """Read what was shown; voxels are read when asked for.

        Parameters
        ----------
        path : Path
            the file
        options : BDataOptions
            which key is what
        subject : str, optional
            must be the one subject, when given

        Raises
        ------
        DataError
            See `BData`; also keys that are not in the file.
        """
        (name,) = self.subjects(path, options)
        if subject not in (None, name):
            raise DataError(f"{path} has no subject '{subject}'. {did_you_mean(subject, [name])}")

        file = BData(path)
        key = options.stimulus or next((k for k in ("stimulus_id", "image_index", "Label") if k in file.keys), None)
        if key is None:
            raise ConfigError(f"say with stimulus=KEY what was shown; {path} has the keys {', '.join(file.keys)}.")

        stimuli = file.named(key)  # (n_trials,)
        table = {"trial": np.arange(file.shape[0]), "stimulus": stimuli}
        for column, column_key in (("session", options.session), ("run", options.run)):
            if column_key is not None and column_key in file.keys:
                table[column] = np.rint(file.column(column_key)).astype(np.int64)

        trials = Trials(file.rows(), pd.DataFrame(table), file.voxels(), name, {"file": Path(path).name})
        ids = trials.stimulus_ids
        category = None
        if options.category is not None:
            category_of = dict(zip(stimuli, file.named(options.category), strict=True))
            category = np.asarray([category_of[i] for i in ids], dtype=object)

        splits = {}
        if options.data_type is not None and options.data_type in file.keys:
            kind = file.column(options.data_type)
            if options.unit == "stimulus":
                items = stimuli
            else:
                items = trials.table["trial"].astype(str).to_numpy()

            train = tuple(pd.unique(items[kind == 1]))
            test = tuple(pd.unique(items[kind == 2]))
            if train and test:
                splits["file"] = Split("file", train, test, options.unit, note=f"from {options.data_type}")

        return Dataset(Path(path).stem, Stimuli(ids, category=category), {name: trials}, splits, about(self))

    def check(self, path: Path, options: BDataOptions) -> list[Finding]:
        """Read the metadata and say what is in the file.

        Parameters
        ----------
        path : Path
            the file
        options : BDataOptions
            which key is what
        """
        try:
            file = BData(path)
            trials = self.load(path, options).trials()
        except PhospheneError as error:
            return [Finding("problem", "file", str(error))]

        detail = f"{Path(path).name}: {len(trials)} rows, {trials.n_voxels} voxels, keys {', '.join(file.keys)}."
        return [Finding("ok", "file", detail)]
