"""GOD, Generic Object Decoding: 3T responses of five people to 1,200 training and 50 test pictures of ImageNet.

Two layouts, read as one and the same data set::

    ROOT/Subject1.h5 ... Subject5.h5       the lab's BData files: single trials, DataType 1 training, 2 test, 3 imagery
    ROOT/sbj_1.npz ... sbj_5.npz           as used by MinD-Vis, CAD and LEA: arr_0 ... arr_6 and ten ROI masks
    ROOT/images_256.npz                    train_images, test_images (n, 256, 256, 3) uint8
    ROOT/imagenet_training_label.csv, imagenet_testing_label.csv      first column <wnid>.<image>, one row a picture
    ROOT/imagenet_class_index.json         number to [WordNet id, ..., name]: what zero-shot classification calls a picture
    ROOT/images/**/n01518878_10042.JPEG    instead of images_256.npz: the picture files of ImageNet

The NPZ files hold the values of the BData files with rows in another order. Test trials are single; their 35 showings
of a picture are averaged by ``Trials.average_repeats``, or taken as stored in ``arr_2`` with ``test="average"``.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.data.arrays import ArrayFile, narrow, open_arrays, real_matrix
from phosphene.data.bdata import BData
from phosphene.data.findings import Finding
from phosphene.data.importing import read_text
from phosphene.data.pictures import PictureFolder, list_pictures
from phosphene.data.reader import ReaderOptions, about
from phosphene.errors import DataError, PhospheneError, PhospheneWarning, did_you_mean
from phosphene.types import ROI, Dataset, Split, Stimuli, Trials

ROIS = ("V1", "V2", "V3", "V4", "FFA", "PPA", "LOC", "LVC", "HVC", "VC")
"""Order in which ROIs take their voxels in LEA; the order of keys in the file is not relied on."""

SUBJECTS = tuple(f"sbj_{k}" for k in range(1, 6))

SIZES: dict[str, tuple[int, ...]] = {
    "sbj_1": (1004, 801, 476, 588, 431, 249, 157, 760),
    "sbj_2": (757, 727, 603, 416, 372, 124, 576, 829),
    "sbj_3": (872, 826, 605, 630, 770, 262, 306, 372),
    "sbj_4": (719, 652, 676, 597, 494, 236, 308, 451),
    "sbj_5": (659, 676, 649, 729, 661, 301, 246, 449),
}
"""Voxels that V1, V2, V3, V4, FFA, PPA, LOC and HVC take in this order, each without those taken before; LVC and VC are
left with none. Published with LEA's code."""

COUNTS = {"train": 1200, "test": 1750, "test pictures": 50}  # 150 categories of 8 pictures; 50 pictures shown 35 times
_REPEATS = 35


class GODOptions(ReaderOptions):
    """Which files and which rows."""

    variant: Literal["auto", "npz", "bdata"] = Field(
        "auto", description="npz (sbj_k.npz) where it is there, else bdata"
    )
    test: Literal["single", "average"] = Field("single", description="test rows: 35 showings each, or their mean (npz)")
    roi: str = Field("VC", description="voxels to load, such as VC or V1+V2")
    image_size: int = Field(256, ge=8, description="side of pictures read from single files")
    stimulus_key: str = Field("stimulus_id", description="BData key with <wnid>.<image> of every row")


class GOD:
    """Reader of both layouts."""

    title: ClassVar[str] = "Generic Object Decoding: 3T responses of five people to ImageNet pictures"
    citation: ClassVar[str] = (
        "Horikawa, Kamitani (2017), Generic decoding of seen and imagined objects using hierarchical visual features, "
        "Nature Communications 8, 15037."
    )
    licence: ClassVar[str] = "CC BY 4.0 for the responses; pictures on request from the authors (ImageNet terms)"
    url: ClassVar[str] = "https://figshare.com/articles/Generic_Object_Decoding/7387130"
    files: ClassVar[str] = "god/Subject1.h5 ... or god/sbj_1.npz ... with images_256.npz"
    options: ClassVar[type[GODOptions]] = GODOptions

    def find(self, root: Path) -> Path:
        """The folder of the subjects' files, at or below `root`."""
        root = Path(root)
        for place in ("", "god", "GOD", "Kamitani/npz", "god/npz", "npz"):  # Kamitani/npz is where MinD-Vis unpacks to
            folder = root / place
            files = [_file(folder, subject, variant) for subject in SUBJECTS for variant in ("npz", "bdata")]
            if any(file.is_file() for file in files):
                return folder

        if root.is_dir():
            names = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
        else:
            names = []

        raise DataError(
            f"GOD was looked for as sbj_1.npz or Subject1.h5 in {root} and its folders god, Kamitani/npz and npz; {root} "
            f"holds {', '.join(names[:8]) or 'nothing'}. Put the files there, or give their folder with --root."
        )

    def subjects(self, path: Path, options: GODOptions) -> tuple[str, ...]:
        """Those with a file of the variant that is read.

        Parameters
        ----------
        path : Path
            from `find`
        options : GODOptions
            its ``variant`` says which files
        """
        variant = self._variant(path, options)
        return tuple(s for s in SUBJECTS if _file(path, s, variant).is_file())

    def _variant(self, path: Path, options: GODOptions) -> str:
        """The layout to read: the one asked for, else NPZ before BData."""
        variants = []
        for variant in ("npz", "bdata"):
            if any(_file(path, subject, variant).is_file() for subject in SUBJECTS):
                variants.append(variant)

        if not variants:
            raise DataError(f"{path} has neither sbj_1.npz nor Subject1.h5, nor those of another person.")

        if options.variant != "auto" and options.variant not in variants:
            name = _file(path, "sbj_1", options.variant).name
            raise DataError(f"{path} has no {name}; choose variant={variants[0]}.")

        if options.variant == "auto":
            return variants[0]

        return options.variant

    def load(self, path: Path, options: GODOptions, subject: str | None = None) -> Dataset:
        """Read one subject or all.

        Parameters
        ----------
        path : Path
            from `find`
        options : GODOptions
            which files, rows and voxels
        subject : str, optional
            ``sbj_1`` to ``sbj_5``; all that are there by default

        Returns
        -------
        Dataset
            Stimulus ids are ImageNet's, such as ``n01518878_10042``, where the label files (NPZ) or the BData files
            tell them, else ``train-0000`` and ``test-00``. ``category`` is the name in imagenet_class_index.json, or
            the WordNet id where that has none. The split ``god`` trains on 150 categories and tests on 50 others.
            Pictures that are not there leave holes.

        Raises
        ------
        DataError
            Files that are missing, transposed, of unequal length, or that contradict each other.
        """
        path = Path(path)
        variant = self._variant(path, options)
        known = self.subjects(path, options)
        if subject is not None and subject not in known:
            raise DataError(f"{path} has no subject '{subject}'. {did_you_mean(subject, known)}")

        if subject:
            names = [subject]
        else:
            names = list(known)

        if variant == "npz":
            ids = _npz_ids(path)
        else:
            ids = None

        people = {}
        for name in names:
            file = _file(path, name, variant)
            if ids is not None:
                people[name] = _from_npz(file, name, ids, options)
            else:
                people[name] = _from_bdata(file, name, options)

        train = _ids_on_side(people, "train")
        test = _ids_on_side(people, "test")
        stimuli = _stimuli(path, train + test, ids, options)
        disjoint = None
        if stimuli.category is not None:
            category = dict(zip(stimuli.ids, stimuli.category, strict=True))
            disjoint = not ({category[i] for i in train} & {category[i] for i in test})

        note = "150 categories train, 50 others test; each test picture was shown 35 times."
        split = Split("god", tuple(train), tuple(test), category_disjoint=disjoint, note=note)
        return Dataset("god", stimuli, people, {"god": split}, about(self, variant=variant))

    def check(self, path: Path, options: GODOptions) -> list[Finding]:
        """Rows, ROI sizes and test means against what is published.

        Parameters
        ----------
        path : Path
            from `find`
        options : GODOptions
            which files, rows and voxels
        """
        path = Path(path)
        out = []

        try:
            names = self.subjects(path, options)
            variant = self._variant(path, options)
        except PhospheneError as error:
            return [Finding("problem", "files", str(error))]

        for name in names:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", PhospheneWarning)
                    dataset = self.load(path, options, name)
            except PhospheneError as error:
                out.append(Finding("problem", name, str(error)))
                continue

            out += _check_counts(dataset, name, options)
            if variant == "npz":
                out.append(_check_means(_file(path, name, variant), name))

        if len(names) < len(SUBJECTS):
            out.append(Finding("note", "subjects", f"{', '.join(set(SUBJECTS) - set(names))} are not there."))

        return out


def _file(path: Path, subject: str, variant: str) -> Path:
    """Where the responses of one subject stand in a layout."""
    if variant == "npz":
        return Path(path) / f"{subject}.npz"

    return Path(path) / f"Subject{subject[-1]}.h5"


def _ids_on_side(people: Mapping[str, Trials], side: str) -> list[str]:
    """Ids of the pictures on one side, in the order in which they are first met."""
    ids: dict[str, None] = {}
    for trials in people.values():
        is_on_side = (trials.table["side"] == side).to_numpy()
        ids |= dict.fromkeys(trials.stimuli[is_on_side])

    return list(ids)


# -- NPZ ---------------------------------------------------------------------------------------------------------------


def _npz_ids(path: Path) -> dict[str, np.ndarray | None]:
    """Ids of the rows of train_images and test_images, from the label files; None where one is absent."""
    out: dict[str, np.ndarray | None] = {}
    for side, name in (("train", "imagenet_training_label.csv"), ("test", "imagenet_testing_label.csv")):
        if (path / name).is_file():
            out[side] = _label_ids(path / name)
        else:
            out[side] = None

    if (out["train"] is None) != (out["test"] is None):
        raise DataError(
            f"{path} has only one of imagenet_training_label.csv and imagenet_testing_label.csv; fetch both."
        )

    return out


def _label_ids(path: Path) -> np.ndarray:
    """(n_pictures,) ids from the first column, also where it was written as a number, without n and zeros."""
    ids = []
    rows = {}
    for number, line in enumerate(read_text(path, "the table of labels").splitlines()):
        cell = re.split(r"[,\t]", line)[0].strip().strip('"')
        if not cell:
            continue
        match = re.fullmatch(r"n?(\d{6,8})[._](\d+)", cell)
        if match is None:
            if number == 0:  # a header
                continue
            raise DataError(
                f"line {number + 1} of {path} begins with '{cell}', not with <wnid>.<image>, as 1518878.010042."
            )

        name = _name(int(match[1]), int(match[2]))
        if name in rows:
            raise DataError(
                f"{name} stands in lines {rows[name] + 1} and {number + 1} of {path}; pictures must differ."
            )

        rows[name] = number
        ids.append(name)

    return np.asarray(ids, dtype=object)


def _name(wnid: int, image: int) -> str:
    """ImageNet's name of a picture, to which files and both layouts are brought."""
    return f"n{wnid:08d}_{image}"


def _from_npz(path: Path, subject: str, ids: Mapping[str, np.ndarray | None], options: GODOptions) -> Trials:
    """Trials of one subject from ``arr_0`` to ``arr_6`` and the ROI masks, training rows first."""
    file = open_arrays(path)
    missing = [roi for roi in ROIS if roi not in file]
    if missing:
        raise DataError(f"{path} lacks the ROI mask{'s' * (len(missing) > 1)} {', '.join(missing)}. Fetch it again.")

    # The arrays have no names: responses in 0 (training), 1 (single test trials) and 2 (their means), the pictures of
    # their rows in 3 and 4, and two values of each voxel in 5 and 6.
    is_average = options.test == "average"
    if is_average:
        test_key = "arr_2"
    else:
        test_key = "arr_1"

    train = _matrix(file, "arr_0")  # (n_train, n_voxels)
    test = _matrix(file, test_key)
    voxels, columns = _voxels({roi: np.ravel(file[roi]) for roi in ROIS}, train.shape[1], options.roi, path)
    for name, key in (("noise_ceiling", "arr_5"), ("snr", "arr_6")):
        if key in file and file.shapes[key] == (train.shape[1],):
            voxels[name] = np.asarray(file[key], dtype=np.float64)[columns]

    if test.shape[1] != train.shape[1]:
        raise DataError(f"arr_0 in {path} has {train.shape[1]} voxels but the test rows have {test.shape[1]}.")
    index = {"train": _index(file, "arr_3", len(train), ids["train"])}
    if is_average:
        index["test"] = np.arange(len(test))  # one row a picture, in the order of the pictures
    else:
        index["test"] = _index(file, "arr_4", len(test), ids["test"])

    stimuli = [_ids_of(side, index[side], ids) for side in ("train", "test")]
    table = pd.DataFrame(
        {
            "stimulus": np.concatenate(stimuli),
            "trial": np.arange(len(train) + len(test)),
            "side": np.repeat(np.asarray(["train", "test"], dtype=object), [len(train), len(test)]),
        }
    )

    if is_average:
        table["n_repeats"] = np.repeat([1, _REPEATS], [len(train), len(test)])

    blocks = [narrow(matrix[:, columns], str(path)) for matrix in (train, test)]
    betas = np.concatenate(blocks)  # (n_trials, n_columns)
    return Trials(betas, table, voxels, subject, {"file": path.name, "unit": "as in the file", "roi": options.roi})


def _matrix(file: ArrayFile, key: str) -> np.ndarray:
    """(rows, n_voxels) responses, as wide as the masks say."""
    matrix = real_matrix(file[key], f"'{key}' in {file.path}")
    n_voxels = file.shapes["VC"][0]
    if matrix.shape[1] != n_voxels:
        if matrix.shape[0] == n_voxels:
            hint = " It is transposed (voxels, trials)."
        else:
            hint = ""
        raise DataError(
            f"'{key}' in {file.path} has shape {matrix.shape}, but the ROI masks have {n_voxels} voxels.{hint}"
        )

    return matrix


def _index(file: ArrayFile, key: str, n: int, ids: np.ndarray | None) -> np.ndarray:
    """(n,) which picture each row of responses belongs to, counted from 0."""
    index = np.ravel(file[key])
    if len(index) != n:
        raise DataError(f"'{key}' in {file.path} has {len(index)} entries for {n} rows of responses; they must match.")
    index = index.astype(np.int64)
    if ids is not None and (index.min() < 0 or index.max() >= len(ids)):
        raise DataError(
            f"'{key}' in {file.path} goes from {index.min()} to {index.max()}, but {len(ids)} pictures are named."
        )

    return index


def _ids_of(side: str, index: np.ndarray, ids: Mapping[str, np.ndarray | None]) -> np.ndarray:
    known = ids[side]
    if known is not None:
        return known[index]
    width = {"train": 4, "test": 2}[side]
    return np.asarray([f"{side}-{i:0{width}d}" for i in index], dtype=object)


def _voxels(masks: Mapping[str, np.ndarray], n: int, roi: str, path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of the voxels in `roi`, ROIs in LEA's order, and which columns they are; in the file's order."""
    for name, mask in masks.items():
        if mask.shape != (n,):
            raise DataError(f"the ROI mask {name} in {path} has shape {mask.shape}, but there are {n} voxels.")

    table = pd.DataFrame({ROI + name: masks[name].astype(bool) for name in masks})
    probe = Trials(np.zeros((1, n), "u1"), pd.DataFrame({"stimulus": [""]}), table, path.stem)  # knows "V1+V2"
    columns = np.flatnonzero(probe.roi(roi))
    if not columns.size:
        raise DataError(f"no voxel of {path} is in '{roi}'; choose another roi of {', '.join(masks)}.")

    table = table.iloc[columns].reset_index(drop=True)
    return table.assign(column=columns), columns


# -- BData -------------------------------------------------------------------------------------------------------------


def _from_bdata(path: Path, subject: str, options: GODOptions) -> Trials:
    if options.test == "average":
        raise DataError(f"{path} holds single trials only; leave test=single and average with average_repeats().")

    file = BData(path)
    missing = [f"ROI_{roi}" for roi in ROIS if f"ROI_{roi}" not in file.keys]
    if missing:
        raise DataError(f"{path} lacks the key{'s' * (len(missing) > 1)} {', '.join(missing)}. Fetch it again.")

    kind = np.rint(file.column("DataType")).astype(np.int64)
    all_voxels = file.voxels()
    masks = {roi: all_voxels[ROI + roi].to_numpy() for roi in ROIS}
    voxels, columns = _voxels(masks, len(all_voxels), options.roi, path)
    for axis in "xyzijk":
        if axis in all_voxels:
            voxels[axis] = all_voxels[axis].to_numpy()[columns]

    keep = np.flatnonzero(np.isin(kind, (1, 2)))  # imagery shows no picture
    if not keep.size:
        raise DataError(f"DataType in {path} is never 1 (training) or 2 (test); it holds {sorted(set(kind))[:5]}.")
    # The id is a number, 1518878.010042 for n01518878_10042: thirteen digits, of which float32 keeps seven.
    values = file.column(options.stimulus_key)
    if values.dtype.itemsize < 8:
        raise DataError(
            f"{options.stimulus_key} in {path} is {values.dtype}, too coarse for <wnid>.<image>: pictures of one category "
            "become the same. Export the file in float64."
        )

    table: dict[str, Any] = {
        "stimulus": [_name(int(v), round(v % 1 * 1e6)) for v in values[keep]],
        "trial": keep,
        "side": np.where(kind[keep] == 1, "train", "test").astype(object),
    }

    for column in ("session", "run"):
        if column.capitalize() in file.keys:
            table[column] = np.rint(file.column(column.capitalize())[keep]).astype(np.int64)

    n = file.shape[0]
    provenance = {"file": path.name, "unit": "as in the file", "roi": options.roi}
    whole = Trials(file.rows(), pd.DataFrame({"stimulus": np.full(n, "")}), all_voxels, subject)
    part = whole.take(keep).take_voxels(columns)  # nothing is read: rows and columns are noted down

    return Trials(part.source, pd.DataFrame(table), voxels, subject, provenance, part.rows, part.columns)


# -- pictures ----------------------------------------------------------------------------------------------------------


def _stimuli(path: Path, ids: list[str], known: Mapping[str, np.ndarray | None] | None, options: GODOptions) -> Stimuli:
    """Pictures by id, from images_256.npz (rows as in the label files) or from single files; holes where there is none."""
    names = np.asarray(ids, dtype=object)
    category = None
    if all(re.fullmatch(r"n\d{8}_\d+", i) for i in ids):
        class_names = _class_names(path)
        wnids = [i.split("_")[0] for i in ids]
        category = np.asarray([class_names.get(wnid, wnid) for wnid in wnids], dtype=object)

    if known is None:
        known = _npz_ids(path)

    images: Any = None
    rows = None
    present = np.zeros(len(ids), bool)

    # Rows of images_256.npz have no names: ids of ImageNet find theirs only where the label files say which row is which.
    if (path / "images_256.npz").is_file() and (known["train"] is not None or category is None):
        pixels, row_of = _packed(path / "images_256.npz", known)
        packed_rows = np.asarray([row_of.get(i, -1) for i in ids])
        present = packed_rows >= 0
        images = pixels
        rows = np.maximum(packed_rows, 0)
    elif (path / "images").is_dir() and category is not None:
        files = {p.stem: p for p in list_pictures(path / "images")}
        paths = [files.get(i) for i in ids]
        present = np.asarray([p is not None for p in paths])
        images = PictureFolder(paths, (len(ids), options.image_size, options.image_size, 3))

    if not present.any():
        return Stimuli(names, category=category)

    if not present.all():
        warnings.warn(
            f"{int((~present).sum())} of {len(ids)} GOD pictures are missing, first '{names[~present][0]}'; their trials "
            "are kept but cannot train or test pictures.",
            PhospheneWarning,
            stacklevel=3,
        )

        return Stimuli(names, images, category=category, present=present, rows=rows)

    return Stimuli(names, images, category=category, rows=rows)


def _class_names(path: Path) -> dict[str, str]:
    """WordNet id to what a picture of it shows; ids that share a name keep theirs beside it."""
    file = path / "imagenet_class_index.json"
    if not file.is_file():
        return {}

    try:
        names = {str(row[0]): str(row[-1]).replace("_", " ") for row in json.loads(read_text(file, "names")).values()}
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise DataError(
            f"{file} should map numbers to [WordNet id, ..., name], but does not ({error}). Fetch it again, or take it away."
        ) from error

    # Two ids of ImageNet are called "crane" and two "maillot": under one name, two categories would pass for one.
    n_uses = Counter(names.values())
    for wnid, name in names.items():
        if n_uses[name] > 1:
            names[wnid] = f"{name} ({wnid})"

    return names


def _packed(path: Path, known: Mapping[str, np.ndarray | None]) -> tuple[np.ndarray, dict[str, int]]:
    """(n, 256, 256, channels) training pictures, then test pictures, and the row of each id."""
    file = open_arrays(path)
    blocks = []
    row = {}

    for side in ("train", "test"):
        block = file[f"{side}_images"]
        if block.ndim != 4 or block.shape[3] not in (1, 3) or block.dtype != np.uint8:
            raise DataError(
                f"'{side}_images' in {path} is {block.shape} of {block.dtype}; (n, 256, 256, 3) uint8 is expected."
            )

        names = known[side]
        if names is not None and len(names) != len(block):
            raise DataError(
                f"'{side}_images' in {path} holds {len(block)} pictures, but {len(names)} are named in the label file. Rows "
                "would be shifted; fetch both again."
            )

        names = _ids_of(side, np.arange(len(block)), known)
        for name in names:
            row[name] = len(row)

        blocks.append(block)

    return np.concatenate(blocks), row


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_counts(dataset: Dataset, name: str, options: GODOptions) -> list[Finding]:
    """Rows, voxels and categories of one subject, compared with what is published."""
    trials = dataset.trials(name)
    side = trials.table["side"]
    n_train = int(np.count_nonzero(side == "train"))
    n_test = int(np.count_nonzero(side == "test"))
    n_pictures = len(set(trials.stimuli[(side == "test").to_numpy()]))
    n_expected = COUNTS["test"]
    if options.test == "average":
        n_expected = COUNTS["test pictures"]

    counts = (n_train, n_test, n_pictures)
    rows = f"{n_train} training rows, {n_test} test rows of {n_pictures} pictures"
    expected = (COUNTS["train"], n_expected, COUNTS["test pictures"])
    out = [_compared(f"{name} rows", rows, counts, expected)]

    # Sizes are published for the whole visual cortex alone.
    if options.roi == "VC":
        free = np.ones(trials.n_voxels, bool)
        sizes = {}
        for roi in ROIS:
            is_taken = trials.roi(roi) & free
            free &= ~is_taken
            if is_taken.any():
                sizes[roi] = int(is_taken.sum())

        listed = ", ".join(f"{roi} {n}" for roi, n in sizes.items())
        voxels = f"{trials.n_voxels} voxels in VC, taken in order: {listed}"
        out.append(_compared(f"{name} voxels", voxels, tuple(sizes.values()), SIZES[name]))

    if dataset.split("god").category_disjoint is False:
        detail = "training and test share categories, which GOD's do not."
        out.append(Finding("problem", f"{name} categories", detail, "Check the label files."))

    return out


def _compared(name: str, detail: str, counts: tuple[int, ...], published: tuple[int, ...]) -> Finding:
    """Counts that are as published, or the published ones and what to do."""
    if counts == published:
        return Finding("ok", name, f"{detail}; as published.")

    return Finding("problem", name, f"{detail}; published: {', '.join(map(str, published))}.", "Fetch the file again.")


def _check_means(path: Path, name: str) -> Finding:
    """arr_2 must be the mean of the rows of arr_1 that show the same picture."""
    file = open_arrays(path)
    single, mean, index = (np.asarray(file[k], dtype=np.float64) for k in ("arr_1", "arr_2", "arr_4"))
    index = index.ravel().astype(np.int64)
    ours = np.stack([single[index == i].mean(axis=0) for i in range(len(mean)) if (index == i).any()])

    # Means may have been taken in another precision: a thousandth of the typical value may differ, not the order.

    if ours.shape == mean.shape and np.allclose(ours, mean, rtol=1e-3, atol=1e-3 * max(1e-12, float(mean.std()))):
        return Finding("ok", f"{name} test means", "arr_2 is the mean of the repeats in arr_1.")

    if ours.shape != mean.shape:
        worst = ""
    else:
        worst = f" (picture {int(np.abs(ours - mean).max(axis=1).argmax())} differs most)"

    detail = f"arr_2 is not the mean of the rows of arr_1 that arr_4 names{worst}."
    return Finding("problem", f"{name} test means", detail, "arr_4 may belong to another order; fetch the file again.")
