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
from phosphene.data.findings import Finding, Level
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

COUNTS = {"train": 1200, "test": 1750, "test pictures": 50}
_PER_CATEGORY = 8
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
        for place in ("", "god", "GOD", "Kamitani/npz", "god/npz", "npz"):
            folder = root / place
            if any((folder / f).is_file() for k in range(1, 6) for f in (f"sbj_{k}.npz", f"Subject{k}.h5")):
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
        """Those with a file of the variant that is read."""
        variant = self._variant(path, options)
        return tuple(s for s in SUBJECTS if _file(path, s, variant).is_file())

    def _variant(self, path: Path, options: GODOptions) -> str:
        there = [v for v in ("npz", "bdata") if any(_file(path, s, v).is_file() for s in SUBJECTS)]
        if not there:
            raise DataError(f"{path} has neither sbj_1.npz nor Subject1.h5, nor those of another person.")
        if options.variant != "auto" and options.variant not in there:
            raise DataError(f"{path} has no {_file(path, 'sbj_1', options.variant).name}; choose variant={there[0]}.")
        if options.variant == "auto":
            return there[0]
        return options.variant

    def load(self, path: Path, options: GODOptions, subject: str | None = None) -> Dataset:
        """Read one subject or all.

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

        sides = {
            side: list(
                dict.fromkeys(i for t in people.values() for i in t.stimuli[(t.table["side"] == side).to_numpy()])
            )
            for side in ("train", "test")
        }

        stimuli = _stimuli(path, sides["train"] + sides["test"], ids, options)
        disjoint = None
        if stimuli.category is not None:
            of = dict(zip(stimuli.ids, stimuli.category, strict=True))
            disjoint = not ({of[i] for i in sides["train"]} & {of[i] for i in sides["test"]})

        note = "150 categories train, 50 others test; each test picture was shown 35 times."
        split = Split("god", tuple(sides["train"]), tuple(sides["test"]), category_disjoint=disjoint, note=note)
        return Dataset("god", stimuli, people, {"god": split}, about(self, variant=variant))

    def check(self, path: Path, options: GODOptions) -> list[Finding]:
        """Rows, ROI sizes and test means against what is published."""
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
    return Path(path) / (f"{subject}.npz" if variant == "npz" else f"Subject{subject[-1]}.h5")


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
    return f"n{wnid:08d}_{image}"


def _from_npz(path: Path, subject: str, ids: Mapping[str, np.ndarray | None], options: GODOptions) -> Trials:
    file = open_arrays(path)
    lacking = [r for r in ROIS if r not in file]
    if lacking:
        raise DataError(f"{path} lacks the ROI mask{'s' * (len(lacking) > 1)} {', '.join(lacking)}. Fetch it again.")

    average = options.test == "average"
    train = _matrix(file, "arr_0")
    test = _matrix(file, "arr_2" if average else "arr_1")
    voxels, at = _voxels({r: np.ravel(file[r]) for r in ROIS}, train.shape[1], options.roi, path)

    for key, extra in (("noise_ceiling", "arr_5"), ("snr", "arr_6")):
        if extra in file and file.shapes[extra] == (train.shape[1],):
            voxels[key] = np.asarray(file[extra], dtype=np.float64)[at]

    if test.shape[1] != train.shape[1]:
        raise DataError(f"arr_0 in {path} has {train.shape[1]} voxels but the test rows have {test.shape[1]}.")
    index = {"train": _index(file, "arr_3", len(train), ids["train"])}
    if average:
        index["test"] = np.arange(len(test))
    else:
        index["test"] = _index(file, "arr_4", len(test), ids["test"])

    shown = [_ids_of(side, index[side], ids) for side in ("train", "test")]
    table = pd.DataFrame(
        {
            "stimulus": np.concatenate(shown),
            "trial": np.arange(len(train) + len(test)),
            "side": np.repeat(np.asarray(["train", "test"], dtype=object), [len(train), len(test)]),
        }
    )

    if average:
        table["n_repeats"] = np.repeat([1, _REPEATS], [len(train), len(test)])

    betas = np.concatenate([narrow(m[:, at], str(path)) for m in (train, test)])
    return Trials(betas, table, voxels, subject, {"file": path.name, "unit": "as in the file", "roi": options.roi})


def _matrix(file: ArrayFile, key: str) -> np.ndarray:
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
    return np.asarray([f"train-{i:04d}" if side == "train" else f"test-{i:02d}" for i in index], dtype=object)


def _voxels(masks: Mapping[str, np.ndarray], n: int, roi: str, path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of the voxels in `roi`, ROIs in LEA's order, and which columns they are; in the file's order."""
    for name, mask in masks.items():
        if mask.shape != (n,):
            raise DataError(f"the ROI mask {name} in {path} has shape {mask.shape}, but there are {n} voxels.")

    table = pd.DataFrame({ROI + name: masks[name].astype(bool) for name in masks})
    probe = Trials(np.zeros((1, n), "u1"), pd.DataFrame({"stimulus": [""]}), table, path.stem)
    at = np.flatnonzero(probe.roi(roi))
    if not at.size:
        raise DataError(f"no voxel of {path} is in '{roi}'; choose another roi of {', '.join(masks)}.")
    table = table.iloc[at].reset_index(drop=True)
    return table.assign(column=at), at


# -- BData -------------------------------------------------------------------------------------------------------------


def _from_bdata(path: Path, subject: str, options: GODOptions) -> Trials:
    if options.test == "average":
        raise DataError(f"{path} holds single trials only; leave test=single and average with average_repeats().")

    file = BData(path)
    lacking = [f"ROI_{r}" for r in ROIS if f"ROI_{r}" not in file.keys]
    if lacking:
        raise DataError(f"{path} lacks the key{'s' * (len(lacking) > 1)} {', '.join(lacking)}. Fetch it again.")

    kind = np.rint(file.column("DataType")).astype(np.int64)
    all_voxels = file.voxels()
    masks = {r: all_voxels[ROI + r].to_numpy() for r in ROIS}
    voxels, at = _voxels(masks, len(all_voxels), options.roi, path)

    for axis in [c for c in "xyzijk" if c in all_voxels]:
        voxels[axis] = all_voxels[axis].to_numpy()[at]

    keep = np.flatnonzero(np.isin(kind, (1, 2)))  # imagery shows no picture
    if not keep.size:
        raise DataError(f"DataType in {path} is never 1 (training) or 2 (test); it holds {sorted(set(kind))[:5]}.")
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
    part = whole.take(keep).take_voxels(at)

    return Trials(part.source, pd.DataFrame(table), voxels, subject, provenance, part.rows, part.columns)


# -- pictures ----------------------------------------------------------------------------------------------------------


def _stimuli(path: Path, ids: list[str], known: Mapping[str, np.ndarray | None] | None, options: GODOptions) -> Stimuli:
    """Pictures by id, from images_256.npz (rows as in the label files) or from single files; holes where there is none."""
    names = np.asarray(ids, dtype=object)
    category = None
    if all(re.fullmatch(r"n\d{8}_\d+", i) for i in ids):
        named = _class_names(path)
        category = np.asarray([named.get(w, w) for w in (i.split("_")[0] for i in ids)], dtype=object)

    known = _npz_ids(path) if known is None else known
    images: Any = None
    rows = None
    present = np.zeros(len(ids), bool)

    if (path / "images_256.npz").is_file() and (known["train"] is not None or category is None):
        pixels, row = _packed(path / "images_256.npz", known)
        at = np.asarray([row.get(i, -1) for i in ids])
        present = at >= 0
        images = pixels
        rows = np.maximum(at, 0)
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

    return Stimuli(names, images, category=category, present=None if present.all() else present, rows=rows)


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

    times = Counter(names.values())
    return {w: name if times[name] == 1 else f"{name} ({w})" for w, name in names.items()}


def _packed(path: Path, known: Mapping[str, np.ndarray | None]) -> tuple[np.ndarray, dict[str, int]]:
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
        row |= {name: len(row) + i for i, name in enumerate(names)}
        blocks.append(block)

    return np.concatenate(blocks), row


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_counts(dataset: Dataset, name: str, options: GODOptions) -> list[Finding]:
    trials = dataset.trials(name)
    side = trials.table["side"]
    n_test = len(set(trials.stimuli[(side == "test").to_numpy()]))
    n_trials = (int(np.count_nonzero(side == "train")), int(np.count_nonzero(side == "test")))
    counts = (*n_trials, n_test)
    expected = (COUNTS["train"], COUNTS["test"] if options.test == "single" else COUNTS["test pictures"], 50)

    level: Level
    if counts == expected:
        level = "ok"
    else:
        level = "problem"

    if level == "ok":
        said = "as published"
    else:
        said = f"published: {', '.join(map(str, expected))}"

    detail = f"{counts[0]} training rows, {counts[1]} test rows of {counts[2]} pictures; {said}."
    out = [Finding(level, f"{name} rows", detail, "" if level == "ok" else "Fetch the file again.")]
    if options.roi == "VC":
        free = np.ones(trials.n_voxels, bool)
        sizes = {}
        for roi in ROIS:
            mine = trials.roi(roi) & free
            free &= ~mine
            sizes[roi] = int(mine.sum())

        taken = tuple(n for n in sizes.values() if n)
        if taken == SIZES[name]:
            level = "ok"
        else:
            level = "problem"

        if level == "ok":
            said = "as published"
        else:
            said = f"published: {', '.join(map(str, SIZES[name]))}"

        listed = ", ".join(f"{r} {n}" for r, n in sizes.items() if n)
        detail = f"{trials.n_voxels} voxels in VC, taken in order: {listed}; {said}."
        out.append(Finding(level, f"{name} voxels", detail, "" if level == "ok" else "Fetch the file again."))

    if dataset.split("god").category_disjoint is False:
        detail = "training and test share categories, which GOD's do not."
        out.append(Finding("problem", f"{name} categories", detail, "Check the label files."))

    return out


def _check_means(path: Path, name: str) -> Finding:
    """arr_2 must be the mean of the rows of arr_1 that show the same picture."""
    file = open_arrays(path)
    single, mean, index = (np.asarray(file[k], dtype=np.float64) for k in ("arr_1", "arr_2", "arr_4"))
    index = index.ravel().astype(np.int64)
    ours = np.stack([single[index == i].mean(axis=0) for i in range(len(mean)) if (index == i).any()])

    if ours.shape == mean.shape and np.allclose(ours, mean, rtol=1e-3, atol=1e-3 * max(1e-12, float(mean.std()))):
        return Finding("ok", f"{name} test means", "arr_2 is the mean of the repeats in arr_1.")

    if ours.shape != mean.shape:
        worst = ""
    else:
        worst = f" (picture {int(np.abs(ours - mean).max(axis=1).argmax())} differs most)"

    detail = f"arr_2 is not the mean of the rows of arr_1 that arr_4 names{worst}."
    return Finding("problem", f"{name} test means", detail, "arr_4 may belong to another order; fetch the file again.")
