"""Data of your own: betas, a table of trials and a folder of pictures become a folder in phosphene's format."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.arrays import as_numbers, open_arrays, real_matrix, single_array
from phosphene.data.dataset_folder import free_folder, read_dataset, write_dataset
from phosphene.data.pictures import match_pictures, open_pictures
from phosphene.data.reader import ImportingReader
from phosphene.data.registry import locate
from phosphene.errors import DataError, PhospheneWarning, did_you_mean
from phosphene.io.atomic import checked_path
from phosphene.io.csv_table import read_guarded
from phosphene.io.inside import refuse_data_links
from phosphene.io.progress import Progress
from phosphene.io.reading import reads
from phosphene.types import ROI, Dataset, Rows, Split, Stimuli, Trials

LONG_CAPTION = 77
"""Words beyond which a caption cannot fit CLIP's text window of 77 tokens, whatever the words are."""

_NUMBERS = ("x", "y", "z", "noise_ceiling")  # columns of voxels that are numbers; all others are ROIs


def import_dataset(
    spec: str | Path,
    out: str | Path,
    *,
    root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    int16_scale: float | None = None,
    replace: bool = False,
    progress: Callable[[str, float], None] = lambda *_: None,
    say: Progress | None = None,
) -> Dataset:
    """Copy any data set that `open_dataset` reads into a folder that opens without being read.

    A reader with an `import_to` of its own (NSD) is copied by that: what it has read is kept, and the same command goes on
    there after an interrupt.

    Parameters
    ----------
    spec : str or Path
        see `open_dataset`
    out : str or Path
        see `write_dataset`
    root : str or Path, optional
        see `open_dataset`
    options : mapping, optional
        names of options to values, see `open_dataset`
    int16_scale : float, optional
        see `write_dataset`
    replace : bool, default False
        see `write_dataset`
    progress : callable, optional
        see `write_dataset`
    say : Progress, optional
        told about every session read, where reading takes long

    Returns
    -------
    Dataset
        Dataset as read back from `out`
    """
    source = locate(spec, root=root)
    values = source.options(options)

    # An import of its own keeps the numbers as the files hold them, so that it cannot store them in other steps.
    if isinstance(source.reader, ImportingReader) and int16_scale is None:
        return source.reader.import_to(
            source.path, values, source.subject, out, replace=replace, progress=progress, say=say
        )

    free_folder(out, replace=replace)
    dataset = source.reader.load(source.path, values, source.subject)
    return read_dataset(write_dataset(dataset, out, int16_scale=int16_scale, replace=replace, progress=progress))


def import_table(
    *,
    betas: str | Path,
    trials: str | Path,
    out: str | Path,
    images: str | Path | None = None,
    voxels: str | Path | None = None,
    captions: str | Path | None = None,
    subject: str = "S1",
    key: str | None = None,
    size: tuple[int, int] | None = None,
    scale: float = 1.0,
    transposed: bool = False,
    name: str | None = None,
    mask_from: str | None = None,
    replace: bool = False,
    follow_links: bool = False,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> Dataset:
    """Make a data set folder from your own files.

    Parameters
    ----------
    betas : str or Path
        .npy, .npz, .mat, .h5 or .csv, one row a trial, one column a voxel
    trials : str or Path
        CSV with one row per row of `betas`. Column ``stimulus``: the picture's file name, with or without ending, or
        its path below `images`. Optional: ``trial``, ``session``, ``run``, ``repeat``, ``category`` (of the stimulus),
        and ``side`` (train or test), which becomes the split "file"
    out : str or Path
        folder to make
    images : str or Path, optional
        folder of PNG, JPEG, GIF, BMP, TIFF or WebP files, searched with its subfolders; pictures that are missing leave
        holes
    voxels : str or Path, optional
        CSV with one row per voxel: ``x, y, z`` (mm), ``noise_ceiling`` (0 to 1), and one 0/1 column per ROI
    captions : str or Path, optional
        CSV with the columns ``stimulus`` and ``caption`` (several rows a stimulus), or JSON ``{"stimulus": ["caption",
        ...]}``, UTF-8
    subject : str, default "S1"
        name of the person
    key : str, optional
        name of the array in `betas`, where the file holds several
    size : tuple of (int, int), optional
        (height, width) of all pictures; that of the files when they agree, else a square of the smallest side
    scale : float, default 1.0
        betas are multiplied by this
    transposed : bool, default False
        betas are (voxels, trials) in the file
    name : str, optional
        of the data set; that of `out` by default
    mask_from : str, optional
        what the voxels were chosen by, such as ``retinotopy``; check L4 reports it
    replace : bool, default False
        see `write_dataset`
    follow_links : bool, default False
        whether pictures may be read through links that lead out of `images`
    progress : callable, optional
        see `write_dataset`

    Returns
    -------
    Dataset
        Dataset as read back from `out`

    Raises
    ------
    DataError
        Naming the file, the column and the row that is wrong.
    """
    free_folder(out, replace=replace)  # before anything is read: a taken name is the commonest mistake
    if images is not None:
        refuse_data_links(checked_path(images), follow_links)

    file = open_arrays(checked_path(betas))
    description = str(betas)
    if key:
        description += f" ({key})"

    matrix = real_matrix(single_array(file, key), description)
    if transposed:
        matrix = matrix.T  # (n_trials, n_voxels)

    table = _trial_table(checked_path(trials), matrix.shape, checked_path(betas))
    category = _category(table, trials)
    table = table.drop(columns="category", errors="ignore")  # a category belongs to a stimulus, not to a trial
    ids = [str(i) for i in table["stimulus"].drop_duplicates()]
    stimuli = _stimuli(ids, category, images, captions, size)
    source: Rows
    if scale == 1:
        source = matrix
        unit = "as in the file"
    else:
        source = _Scaled(matrix, scale)
        unit = f"file x {scale:g}"

    if voxels is None:
        voxel_table = pd.DataFrame()
    else:
        voxel_table = _voxel_table(checked_path(voxels), matrix.shape[1])

    person = Trials(source, table, voxel_table, subject, {"file": Path(betas).name, "unit": unit})
    about = {"title": f"imported from {Path(betas).name}"}
    if mask_from:
        about["mask_from"] = mask_from

    dataset = Dataset(name or checked_path(out).name, stimuli, {subject: person}, _splits(person, trials), about)

    return read_dataset(write_dataset(dataset, out, replace=replace, progress=progress))


class _Scaled:
    """Rows of a matrix times a factor, computed when asked for."""

    def __init__(self, matrix: np.ndarray, scale: float) -> None:
        self.matrix = matrix
        self.scale = scale
        self.shape = matrix.shape

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self.matrix[rows], dtype=np.float64) * self.scale


# -- tables ------------------------------------------------------------------------------------------------------------


@reads("path")
def read_table(path: str | Path, what: str) -> pd.DataFrame:
    """A CSV (or TSV) of texts, with errors that name the line.

    Parameters
    ----------
    path : str or Path
        the file, UTF-8
    what : str
        such as "the table of trials"

    Raises
    ------
    DataError
        Missing, empty, not UTF-8, or lines of unequal length.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{what} {path} is {'a folder' if path.is_dir() else 'not there'}; give a CSV file.")
    text = read_text(path, what)
    if path.suffix.lower() == ".tsv":
        separator = "\t"
    else:
        separator = ","

    try:
        # All as text: a stimulus called "007" or "NA" is a name. Without index_col=False, pandas takes the first field
        # for an index where lines end in a comma, and every column is shifted.
        table = pd.read_csv(
            io.StringIO(text), dtype=str, keep_default_na=False, sep=separator, index_col=False, skipinitialspace=True
        )
        table = read_guarded(table)  # it may be one that phosphene wrote
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise DataError(f"{what} {path} is no readable table: {str(error).strip()}. Save it as CSV again.") from error

    if not len(table):
        raise DataError(f"{what} {path} has a header but no rows.")

    table.columns = [str(c).strip() for c in table.columns]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise DataError(f"{what} {path} has the column '{twice[0]}' twice; keep one.")
    return table


def read_text(path: Path, what: str) -> str:
    """Text of a UTF-8 file.

    Parameters
    ----------
    path : Path
        the file, with or without the mark that spreadsheets put at its beginning
    what : str
        such as "the table of trials", for the message

    Raises
    ------
    DataError
        Empty, or not UTF-8, with the line of the first byte that is not.
    """
    data = path.read_bytes()
    if not data.strip():
        raise DataError(f"{what} {path} is empty.")

    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{what} {path} is not UTF-8: line {line} holds the byte 0x{data[error.start]:02x}. Save it as UTF-8 (in a "
            "spreadsheet: 'CSV UTF-8')."
        ) from error


def _trial_table(path: Path, shape: tuple[int, ...], betas: Path) -> pd.DataFrame:
    """The table of trials, with as many rows as there are betas."""
    table = read_table(path, "the table of trials")
    if "stimulus" not in table:
        if len(table.columns) == 1:
            for separator in ";\t|":  # spreadsheets write semicolons where the comma is the decimal mark
                if separator in table.columns[0]:
                    raise DataError(
                        f"the columns of {path} are separated by {separator!r}, but commas were expected. Save it with "
                        "commas, or with tabs under a name that ends in .tsv."
                    )

        raise DataError(
            f"the table of trials {path} needs a column 'stimulus'. {did_you_mean('stimulus', table.columns)} "
            "Rename the column that says which picture was shown."
        )

    blank = np.flatnonzero(table["stimulus"].str.strip() == "")
    if blank.size:
        raise DataError(f"line {blank[0] + 2} of {path} has no stimulus; write what was shown, or take the trial out.")

    # Dropping rows until both fit would pair betas with pictures that were not shown, and every score would be chance.
    if len(table) != shape[0]:
        if shape[0] > len(table):
            longer = "betas"
        else:
            longer = "the table"

        hint = ""
        if len(table) == shape[1]:
            hint = (
                " The table is as long as betas is wide: the matrix is (voxels, trials); give --transposed (in Python "
                "transposed=True)."
            )
        elif "run" in table:
            counts = table.groupby("run", sort=False).size()
            hint = f" Rows per run in the table: {', '.join(f'{r}: {n}' for r, n in counts.items())}."

        raise DataError(
            f"{betas} has {shape[0]} rows but {path} has {len(table)}: {longer} has "
            f"{abs(shape[0] - len(table))} too many.{hint} Rows are never dropped to make them fit."
        )

    table["stimulus"] = table["stimulus"].str.strip()
    for column in ("session", "run", "repeat"):
        if column in table:
            table[column] = _whole_numbers(table[column], column, path)

    return table


def _whole_numbers(values: Any, column: str, path: Path) -> np.ndarray:
    number = as_numbers(values)
    is_bad = number.isna() | (number % 1 != 0)
    bad = np.flatnonzero(is_bad)
    if bad.size:
        raise DataError(
            f"'{column}' in line {bad[0] + 2} of {path} should be a whole number, but is '{values[bad[0]]}'."
        )

    return number.to_numpy(dtype=np.int64)


def _category(table: pd.DataFrame, path: str | Path) -> dict[str, str] | None:
    if "category" not in table:
        return None
    category: dict[str, str] = {}
    for stimulus, name in zip(table["stimulus"], table["category"], strict=True):
        first = category.setdefault(stimulus, name)
        if first != name:
            raise DataError(
                f"stimulus '{stimulus}' has several categories in {path}: {first}, {name}. Write the same one in every row."
            )

    return category


def _splits(trials: Trials, path: str | Path) -> dict[str, Split]:
    """The split "file": by stimulus where the sides share no picture, else by trial, which the checks then refuse."""
    if "side" not in trials.table:
        return {}

    side = trials.table["side"].astype(str).str.strip().str.lower()
    unknown = np.flatnonzero(~side.isin(["train", "test", ""]))
    if unknown.size:
        row = unknown[0]
        raise DataError(
            f"'side' in line {row + 2} of {path} must be train or test, but is '{trials.table['side'].iloc[row]}'."
        )

    train = pd.unique(trials.stimuli[(side == "train").to_numpy()])
    test = pd.unique(trials.stimuli[(side == "test").to_numpy()])
    n_both = len(set(train) & set(test))
    if not n_both:
        return {"file": Split("file", tuple(train), tuple(test), note="from the column 'side'")}

    ids = trials.table["trial"].astype(str)
    note = f"from the column 'side'; {n_both} pictures are on both sides."

    return {"file": Split("file", tuple(ids[side == "train"]), tuple(ids[side == "test"]), "trial", note=note)}


def _voxel_table(path: Path, n_voxels: int) -> pd.DataFrame:
    """Coordinates and noise ceiling as numbers, every other column as an ROI."""
    table = read_table(path, "the table of voxels")
    if len(table) != n_voxels:
        raise DataError(
            f"{path} has {len(table)} rows, but betas has {n_voxels} voxels; write one row per column of betas, in order."
        )

    out = {}
    for column in table.columns:
        number = as_numbers(table[column])
        is_bad = number.isna() & ~table[column].str.lower().isin(["nan", ""])
        bad = np.flatnonzero(is_bad)
        if bad.size:
            raise DataError(
                f"'{column}' in line {bad[0] + 2} of {path} should be a number, but is '{table[column][bad[0]]}'. "
                "ROIs are columns of 0 and 1."
            )

        if column in _NUMBERS:
            out[column] = number.to_numpy(float)
            continue

        unknown = np.flatnonzero(~number.isin([0, 1]))
        if unknown.size:
            raise DataError(
                f"column '{column}' of {path} is taken as an ROI and must hold 0 and 1, but line {unknown[0] + 2} has "
                f"'{table[column][unknown[0]]}'. Known numeric columns: {', '.join(_NUMBERS)}."
            )

        if not column.startswith(ROI):
            column = ROI + column

        out[column] = number.to_numpy() == 1  # (n_voxels,)

    return pd.DataFrame(out)


# -- stimuli -----------------------------------------------------------------------------------------------------------


def _stimuli(
    ids: list[str],
    category: Mapping[str, str] | None,
    images: str | Path | None,
    captions: str | Path | None,
    size: tuple[int, int] | None,
) -> Stimuli:
    """What was shown: pictures where a folder is named, captions where a file is, categories where the table has them."""
    pictures = present = None
    if images is not None:
        pictures, present, notes = open_pictures(match_pictures(checked_path(images), ids), ids, size)
        missing = np.asarray(ids, dtype=object)[~present]
        if missing.size:
            warnings.warn(
                f"{len(missing)} of {len(ids)} stimuli have no picture in {images}, first '{missing[0]}'; their trials "
                "are kept but cannot train or test pictures.",
                PhospheneWarning,
                stacklevel=4,
            )
        else:
            present = None  # all are there

        if notes:
            n_files = len(ids) - len(missing)
            first = next(iter(notes))
            warnings.warn(
                f"{len(notes)} of {n_files} picture files are unusual, first '{first}': {'; '.join(notes[first])}.",
                PhospheneWarning,
                stacklevel=4,
            )

    texts = None
    if captions is not None:
        texts = read_captions(checked_path(captions), ids)

    names = None
    if category is not None:
        names = np.asarray([category[i] for i in ids], dtype=object)

    return Stimuli(np.asarray(ids, dtype=object), pictures, texts, category=names, present=present)


@reads("path")
def read_captions(path: Path, ids: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Captions of each stimulus.

    Parameters
    ----------
    path : Path
        CSV with the columns ``stimulus`` and ``caption``, or JSON ``{"stimulus": ["caption", ...]}``, UTF-8
    ids : iterable of str
        stimuli, in the order of the result; captions of others are left out

    Returns
    -------
    tuple of tuple of str
        per stimulus 0 to k texts; empty captions are left out, long ones kept whole

    Raises
    ------
    DataError
        Not UTF-8 (with the line), no such columns, or no caption for any stimulus.
    """
    ids = list(ids)
    if path.suffix.lower() == ".json":
        pairs = _json_captions(path)
    else:
        table = read_table(path, "the captions")
        lacking = {"stimulus", "caption"} - set(table.columns)
        if lacking:
            raise DataError(
                f"the captions {path} need the columns 'stimulus' and 'caption'; '{min(lacking)}' is missing. It has "
                f"{', '.join(table.columns)}."
            )

        pairs = list(zip(table["stimulus"], table["caption"], strict=True))

    out: dict[str, list[str]] = {i: [] for i in ids}
    for name, caption in pairs:
        caption = " ".join(caption.split())  # some of COCO's captions end in a line break or hold two spaces
        if caption and name.strip() in out:
            out[name.strip()].append(caption)

    without = [i for i in ids if not out[i]]
    if len(without) == len(ids):
        example = ""
        if pairs:
            example = pairs[0][0]

        raise DataError(
            f"{path} has no caption for any of the {len(ids)} stimuli: they look like '{ids[0]}', those in the file like "
            f"'{example}'. Use the same names as in the table of trials."
        )

    if without:
        _warn(f"{len(without)} of {len(ids)} stimuli have no caption in {path}, first '{without[0]}'.")

    long = []
    for i in ids:
        for caption in out[i]:
            n_words = len(caption.split())
            if n_words > LONG_CAPTION:
                long.append((i, n_words))

    if long:
        _warn(
            f"{len(long)} captions in {path} are longer than {LONG_CAPTION} words, first that of '{long[0][0]}' with "
            f"{long[0][1]} words; text encoders will read the beginning only."
        )

    return tuple(tuple(out[i]) for i in ids)


def _warn(message: str) -> None:
    warnings.warn(message, PhospheneWarning, stacklevel=5)


def _json_captions(path: Path) -> list[tuple[str, str]]:
    """(stimulus, caption) pairs, as the rows of a table would be."""
    try:
        value = json.loads(read_text(path, "the captions"))
    except json.JSONDecodeError as error:
        raise DataError(f"the captions {path} are no JSON: line {error.lineno}: {error.msg}.") from error

    if not isinstance(value, dict):
        raise DataError(
            f'the captions {path} must be {{"stimulus": ["caption", ...]}}, but are a {type(value).__name__}.'
        )

    pairs = []
    for name, texts in value.items():
        if isinstance(texts, str):
            texts = [texts]
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise DataError(f"the captions of '{name}' in {path} must be a list of texts.")
        pairs += [(name, text) for text in texts]

    return pairs
