"""Everything that comes with pictures made elsewhere, in one order: truths, samples, controls, training pictures, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.picture_arrays import NamedTensor
from phosphene.data.picture_pairs import (
    PicturePairs,
    PictureSet,
    PictureTreatment,
    check_pictures,
    open_training,
    read_decoded,
    read_seen,
    with_channels,
)
from phosphene.errors import DataError
from phosphene.io import memory
from phosphene.io.run_folder import SEEN, RunFolder
from phosphene.run import TEST, Run
from phosphene.types import Rows
from phosphene.validity import Brought

TRAINING_PREFIX = "training/"
"""Before the names of training pictures, which may be those of test pictures by chance."""

PICTURE_CONTROLS = ("shuffled", "noise")
"""Control inputs of which pictures may come along."""

_MOST_TRAINING = 2000  # training pictures that decoded ones are held against
_TRAINING_STREAM = 32  # of random numbers


@dataclass(frozen=True, eq=False)
class TrainingPictures:
    """Training pictures at the size of those that are tested.

    Attributes
    ----------
    names : ndarray of shape (n,), str
        with `TRAINING_PREFIX`
    rows : Rows
        (n, height, width, channels) uint8
    category : ndarray of shape (n,), str, or None
        where all are labelled
    """

    names: np.ndarray
    rows: Rows
    category: np.ndarray | None

    def some(self, seed: int) -> np.ndarray:
        """Row numbers of those that decoded pictures are held against: all, or as many as that takes seconds."""
        rng = np.random.default_rng([seed, _TRAINING_STREAM])
        return np.sort(rng.permutation(len(self.names))[:_MOST_TRAINING])


@dataclass(frozen=True, eq=False)
class PictureMaterial:
    """Everything that is scored, in one order and of one size.

    Attributes
    ----------
    seen : PictureSet
        the truths
    inputs : dict of str to PictureSet
        ``brain``, and the controls that came along
    category : ndarray of shape (n,), str, or None
        of the seen pictures
    training : TrainingPictures or None
        where they came along
    left_out : tuple of (int, int)
        seen pictures without a decoded one, and decoded ones without a seen one
    """

    seen: PictureSet
    inputs: dict[str, PictureSet]
    category: np.ndarray | None
    training: TrainingPictures | None
    left_out: tuple[int, int]

    @property
    def ids(self) -> np.ndarray:
        """(n,) names of the items."""
        return np.asarray(self.seen.names, dtype=object)

    @property
    def brain(self) -> PictureSet:
        """What was decoded."""
        return self.inputs["brain"]

    @property
    def at_hand(self) -> set[Brought]:
        """What came with the pictures, for the checks."""
        brought: set[Brought] = set()
        if self.training is not None:
            brought.add("training")
        if self.brain.n_samples > 1:
            brought.add("samples")
        if len(self.inputs) > 1:
            brought.add("controls")

        return brought

    def truths(self) -> np.ndarray:
        """(n, height, width, channels) float32, 0-1."""
        return self.seen.floats()[:, 0]

    def first(self, name: str = "brain") -> np.ndarray:
        """(n, height, width, channels) float32, 0-1: the first sample of an input."""
        return self.inputs[name].floats()[:, 0]


def gathered_pictures(
    seen: Any, sources: Mapping[str, Any], train: Any, labels: Any, treatment: PictureTreatment, common: bool
) -> PictureMaterial:
    """All pictures in one order, of one size and with as many channels.

    Parameters
    ----------
    seen : Any
        as `phosphene.score` takes it
    sources : mapping of str to Any
        ``brain``, ``shuffled`` and ``noise`` to where their pictures are, or None
    train, labels : Any
        as `phosphene.score` takes them, or None
    treatment : PictureTreatment
        how they are read
    common : bool
        leave out what has no partner, instead of refusing all

    Returns
    -------
    PictureMaterial
        in the order of the seen pictures

    Raises
    ------
    DataError
        With what is wrong with them, in one sentence.
    """
    of_run = _run_of(seen)
    if of_run is None:
        truths = read_seen(seen, treatment)
    else:
        truths = _seen_of_run(of_run, treatment)

    pairs = _decoded_pairs(sources["brain"], truths, treatment, common)
    left_out = (len(pairs.without), len(pairs.unseen))
    truths = truths.take(pairs.rows)
    inputs = {"brain": pairs.decoded}
    check_pictures(truths, pairs.decoded)

    for name in PICTURE_CONTROLS:
        if sources[name] is None:
            continue

        what = f"the pictures decoded from {name} responses"
        control = read_decoded(sources[name], truths, treatment, what=what, common=False).decoded
        check_pictures(truths, control, f"{name} control")
        inputs[name] = control

    channels = max(pictures.image_shape[2] for pictures in (truths, *inputs.values()))
    truths = with_channels(truths, channels)
    inputs = {name: with_channels(pictures, channels) for name, pictures in inputs.items()}
    _require_memory(truths, inputs["brain"])

    category_of = _labels_by_name(labels, truths)
    if not category_of and of_run is not None:
        category_of = _categories_of_run(of_run)

    category = _category(category_of, truths.names)
    training = None
    if train is not None:
        names, rows = open_training(train, truths.image_shape, treatment)
        training_category = None
        if category is not None and all(name in category_of for name in names):
            training_category = np.asarray([category_of[name] for name in names], dtype=object)

        training = TrainingPictures(
            np.asarray([TRAINING_PREFIX + name for name in names], dtype=object), rows, training_category
        )

    return PictureMaterial(truths, inputs, category, training, left_out)


def _require_memory(truths: PictureSet, decoded: PictureSet) -> None:
    """Refuse what float32 copies of pictures and truths, and what metrics make of both, would not fit into memory."""
    n_bytes = 4 * 4 * int(decoded.pixels.size)
    what = (
        f"The {decoded.n_samples * len(truths)} decoded pictures of {truths.image_shape[0]} x {truths.image_shape[1]}"
    )
    memory.require_memory(n_bytes, what, "Score fewer samples, or bring all to a smaller size with --size.")


def _run_of(source: Any) -> RunFolder | None:
    """The run that a source is, or None."""
    if isinstance(source, Run):
        return source.folder

    if isinstance(source, RunFolder):
        return source

    if isinstance(source, str | Path) and (Path(source) / "manifest.json").is_file():
        return RunFolder.existing(source)

    return None


def _seen_of_run(run: RunFolder, treatment: PictureTreatment) -> PictureSet:
    """Test pictures of a run, under their ids and under the names of their files."""
    index = run.table("decoded", TEST, SEEN, "index.csv")
    names = tuple(index["stimulus"].astype(str))
    tensor = NamedTensor(np.asarray(run.pixels(TEST, SEEN)), names, str(run.path))
    pictures = read_seen(tensor, replace(treatment, layout="NHWC", value_range="0-1"))
    aliases = {str(file).removesuffix(".png"): row for row, file in enumerate(index["file"])}

    return replace(pictures, aliases=aliases)


def _categories_of_run(run: RunFolder) -> dict[str, str]:
    index = run.table("decoded", TEST, SEEN, "index.csv")
    categories = index["category"].astype(str)
    if "" in set(categories):
        return {}

    return dict(zip(index["stimulus"].astype(str), categories, strict=True))


def _decoded_pairs(source: Any, seen: PictureSet, treatment: PictureTreatment, common: bool) -> PicturePairs:
    run = _run_of(source)
    if run is None:
        return read_decoded(source, seen, treatment, common=common)

    # All samples of each picture where a run keeps them, else its pictures.
    names = tuple(run.table("decoded", TEST, "brain", "index.csv")["stimulus"].astype(str))
    samples = run.decoded(TEST, "brain") / "samples.npy"
    if samples.is_file():
        values = np.load(samples, allow_pickle=False)
        treatment = replace(treatment, layout="NHWC", value_range=None)
    else:
        values = np.asarray(run.pixels(TEST, "brain"))
        treatment = replace(treatment, layout="NHWC", value_range="0-1")

    return read_decoded(NamedTensor(values, names, str(run.path)), seen, treatment, common=common)


_NAME_COLUMNS = ("stimulus", "name", "file", "filename", "image", "id")
_LABEL_COLUMNS = ("category", "label", "class")


def _labels_by_name(labels: Any, seen: PictureSet) -> dict[str, str]:
    """Name to category; empty without labels."""
    if labels is None:
        return {}

    if isinstance(labels, str | Path):
        return _labels_of_file(Path(labels))

    if isinstance(labels, Mapping):
        return {str(name): str(label) for name, label in labels.items()}

    values = [str(label) for label in labels]
    if len(values) != len(seen):
        raise DataError(
            f"{len(seen)} pictures came with {len(values)} labels; give one for each, or a mapping by name."
        )

    return dict(zip(seen.names, values, strict=True))


def _labels_of_file(file: Path) -> dict[str, str]:
    """A CSV with a column of names and one of categories; names count with and without endings."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the labels in {file} cannot be read ({error}); give a CSV with columns stimulus and category."
        ) from error

    name_column = next((column for column in _NAME_COLUMNS if column in table), None)
    label_column = next((column for column in _LABEL_COLUMNS if column in table), None)
    if name_column is None or label_column is None:
        raise DataError(
            f"{file} has the columns {', '.join(map(str, table.columns))}, but labels need one of {', '.join(_NAME_COLUMNS)} and "
            f"one of {', '.join(_LABEL_COLUMNS)}."
        )

    category_of: dict[str, str] = {}
    for name, label in zip(table[name_column], table[label_column], strict=True):
        category_of[name] = label
        category_of.setdefault(Path(name).with_suffix("").as_posix(), label)

    return category_of


def _category(category_of: Mapping[str, str], names: Sequence[str]) -> np.ndarray | None:
    """(n,) category of each item, or None without labels. Raises DataError where some have none."""
    if not category_of:
        return None

    missing = [name for name in names if name not in category_of]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} seen pictures have no label, first '{missing[0]}' (labels are of names such as "
            f"'{next(iter(category_of))}'); label all, or none."
        )

    return np.asarray([category_of[name] for name in names], dtype=object)
