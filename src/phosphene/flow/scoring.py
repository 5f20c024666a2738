"""The verb `score`: pictures that were made elsewhere, under the whole protocol.

Pictures are all there is: no recipe, no trials, no voxels. What they can tell is computed and checked as for any run; what they
cannot tell is said to be unknown. The result is a table, and, where it is asked for, a run folder that `phosphene report` shows
and compares.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene._version import __version__
from phosphene.data import registry
from phosphene.data.picture_arrays import NamedTensor
from phosphene.data.picture_pairs import (
    PicturePairs,
    PictureSet,
    PictureTreatment,
    StackedPictures,
    as_bytes,
    check_pictures,
    open_training,
    read_decoded,
    read_seen,
    with_channels,
)
from phosphene.errors import ConfigError, DataError, did_you_mean
from phosphene.flow.evidence import write_findings
from phosphene.flow.picture_files import write_pictures
from phosphene.flow.score_files import (
    differences_from_controls,
    named_verdicts,
    published_beside,
    sample_rows,
    skipped_rows,
    write_score_tables,
    write_sealed_scores,
)
from phosphene.flow.show import score_lines
from phosphene.io import atomic, ledger, looks, memory
from phosphene.io.config import FORMAT, flatten, to_yaml
from phosphene.io.progress import Progress
from phosphene.io.run_folder import ELSEWHERE, SEEN, RunFolder
from phosphene.metrics.category import PictureClassifier
from phosphene.metrics.golden import golden_values
from phosphene.metrics.identification import similarity
from phosphene.metrics.metric import Decoded, Scores, Skipped
from phosphene.metrics.perceptual import (
    FEATURE_EXTRACTORS,
    PHOTOGRAPHS,
    TrueFeatures,
    extract_features,
    feature_extractors_for,
    feature_views,
)
from phosphene.metrics.registry import AT_PUBLISHED_SIZE, compute_scores, score_at_published_size
from phosphene.metrics.resize import RESIZED, SIDE
from phosphene.reporting.conclusion import conclude
from phosphene.run import TEST, Run
from phosphene.types import Images, Rows, Stimuli, digest_of
from phosphene.validity import (
    Brought,
    DecodingTarget,
    Evidence,
    Samples,
    Verdict,
    picture_digests,
    run_checks,
    thumbnails,
)
from phosphene.validity.decoding_target import PICTURES
from phosphene.validity.memorised import memorised
from phosphene.validity.picture_features import likeness_of

MADE_ELSEWHERE = "pictures made elsewhere"
"""What stands in the place of a recipe's name."""

UNKNOWN_SETTING = "unknown"

_CONTROLS = ("shuffled", "noise")
_TRAINING = "training/"  # before the names of training pictures, which may be those of test pictures by chance
_MOST_TRAINING = 2000  # training pictures that decoded ones are held against
_MOST_CLASSIFIED = 20_000_000  # values of labelled training pictures by which categories are learned
_SMALLEST_PHOTOGRAPH = 64  # pixels of the shorter side, below which nobody says that pictures are photographs

# Streams of random numbers, one for each use.
_LIKENESS_STREAM = 31
_TRAINING_STREAM = 32

PictureRun = str | Path | RunFolder | Run


@dataclass(frozen=True, eq=False)
class ScoredPictures:
    """What `score` found; printed as a table.

    Attributes
    ----------
    scores : DataFrame
        rows as in scores.csv: split, input, metric, value, ci_low, ci_high, chance, p, n, setting
    verdicts : DataFrame
        rows as in validity.csv: id, verdict, value, reason, title, waiver
    conclusions : tuple of str
        what can be said, one sentence each
    skipped : DataFrame
        input, metric, reason of what could not be computed
    published : DataFrame
        published numbers, and why they may not be compared
    memorised : DataFrame or None
        each decoded picture beside its truth and the training picture most like it; None without training pictures
    folder : RunFolder or None
        the run written, which `phosphene.report` shows
    """

    scores: pd.DataFrame
    verdicts: pd.DataFrame
    conclusions: tuple[str, ...]
    skipped: pd.DataFrame
    published: pd.DataFrame
    memorised: pd.DataFrame | None = None
    folder: RunFolder | None = None

    def __getitem__(self, metric: str) -> float:
        """Value of a metric of the decoded pictures, by its full name such as ``two_way.pixels``."""
        brain = self.scores.loc[self.scores["input"] == "brain"]
        rows = brain.loc[brain["metric"] == metric, "value"]
        if rows.empty:
            raise KeyError(f"there is no score {metric!r}. {did_you_mean(metric, brain['metric'])}")

        return float(rows.iloc[0])

    def __repr__(self) -> str:
        counts = [f"{n} {verdict}" for verdict, n in self.verdicts["verdict"].value_counts().items()]
        return "\n".join([*score_lines(self.scores), "", f"checks: {', '.join(counts)}", "", *self.conclusions])

    def _repr_html_(self) -> str:
        """Scores, verdicts and conclusions, for a notebook."""
        columns = ["metric", "value", "ci_low", "ci_high", "chance", "p", "n"]
        brain = self.scores.loc[self.scores["input"] == "brain", columns]
        verdicts = self.verdicts[["id", "title", "verdict", "reason"]]
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.conclusions)
        scores = brain.to_html(index=False, float_format=lambda value: f"{value:.3f}", na_rep="–", border=0)
        details = f"<details><summary>checks</summary>{verdicts.to_html(index=False, border=0)}</details>"

        return f"{scores}<ul>{sentences}</ul>{details}"


@dataclass(frozen=True)
class _Protocol:
    """What was said of the pictures by whoever hands them in, and how they are read."""

    data: str
    subject: str | None
    split: str | None
    repeats: int | None
    setting: str | None
    treatment: PictureTreatment

    @property
    def unsaid(self) -> list[str]:
        """Fields of a published protocol that nobody has said."""
        said = {
            "split": self.split,
            "repeats_averaged": self.repeats,
            "subjects": self.subject,
            "setting": self.setting,
        }
        return [field for field, value in said.items() if value is None]


@dataclass(frozen=True, eq=False)
class _Training:
    """Training pictures at the size of those that are tested."""

    names: np.ndarray
    rows: Rows
    category: np.ndarray | None

    def some(self, seed: int) -> np.ndarray:
        """Row numbers of those that decoded pictures are held against: all, or as many as that takes seconds."""
        rng = np.random.default_rng([seed, _TRAINING_STREAM])
        return np.sort(rng.permutation(len(self.names))[:_MOST_TRAINING])


@dataclass(frozen=True, eq=False)
class _Material:
    """Everything that is scored, in one order and of one size."""

    seen: PictureSet
    inputs: dict[str, PictureSet]
    category: np.ndarray | None
    training: _Training | None
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


def score(
    seen: Any,
    decoded: Any,
    *,
    train: Any = None,
    labels: Mapping[str, str] | Sequence[str] | str | Path | None = None,
    shuffled: Any = None,
    noise: Any = None,
    out: str | Path | None = None,
    data: str | None = None,
    split: str | None = None,
    repeats: int | None = None,
    setting: str | None = None,
    size: int | tuple[int, int] | None = None,
    layout: str | None = None,
    value_range: str | None = None,
    common: bool = False,
    seed: int = 0,
    waivers: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> ScoredPictures:
    """Score pictures that were made elsewhere against those that were seen, with intervals, chance, nulls and checks.

    Parameters
    ----------
    seen : str, Path, ndarray, Tensor, Images, list of pictures, or Run
        a folder of pictures, a ``.npy``, ``.npz``, ``.pt`` or ``.safetensors`` file, pictures in memory, or a run of ours, whose
        test pictures are taken
    decoded : str, Path, ndarray, Tensor, Images, list of pictures, or Run
        the same; several samples of an item are scored all, and their mean is reported
    train : str, Path, ndarray, Tensor, Images or list of pictures, optional
        pictures that the decoder was trained on: near copies of test pictures among them, and memorising, are looked for
    labels : mapping of str to str, sequence of str, str or Path, optional
        category of each seen picture (and of training pictures, in a mapping or a CSV): by name, in order, or a CSV with a
        column of names (stimulus, name, file ...) and one of categories (category, label or class)
    shuffled, noise : str, Path, ndarray, Tensor, Images or list of pictures, optional
        what the same decoder made of responses in random order, and of noise, under the names of the seen pictures
    out : str or Path, optional
        folder of the run to write; nothing is written by default
    data : str, optional
        NAME or NAME:SUBJECT of the data set that the pictures are of, which says which networks know such pictures and which
        published numbers stand beside
    split, repeats, setting : optional
        what else a published protocol states: name of the split, responses averaged for each picture, ``strict`` or ``relax``
    size : int or tuple of (int, int), optional
        side, or (height, width), that all pictures are brought to; they must agree by default
    layout : {"NHWC", "NCHW"}, optional
        of tensors, where their shapes do not say it
    value_range : {"0-1", "0-255", "-1-1"}, optional
        of tensors; 0 and 255 of 8-bit integers and 0 and 1 of floats by default
    common : bool, default False
        score what pairs and leave out the rest, which is counted, instead of refusing it
    seed : int, default 0
        of bootstraps, permutations and checks
    waivers : mapping of str to str, optional
        check id to who goes on in spite of it, and why
    progress : Progress, optional
        where progress is shown

    Returns
    -------
    ScoredPictures
        a table that prints

    Raises
    ------
    DataError
        Where names do not pair, sizes differ, values are of another range, pictures are constant, or there is only one.
    ConfigError
        For an unknown data set, or a folder `out` that holds something else.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> seen = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    >>> table = score(seen, seen // 2)
    >>> table["two_way.pixels"]
    1.0
    """
    progress = progress or Progress(quiet=True)
    name, subject = _declared(data)
    _check_said(repeats, setting)
    treatment = PictureTreatment(_size_of(size), layout, value_range)
    protocol = _Protocol(name, subject, split, repeats, setting, treatment)
    sources = {"brain": decoded, "shuffled": shuffled, "noise": noise}

    with progress.step("reading pictures"):
        material = _gathered(seen, sources, train, labels, treatment, common)

    kind = protocol.data or _kind_of_pictures(material)
    with progress.step("looking at pictures by networks"):
        readers = _features(kind, material)

    scored = {}
    for input_ in progress.each(list(material.inputs), "scoring", unit="input"):
        scored[input_] = _scores_of(material, input_, kind, readers, seed)

    setting_shown = setting or UNKNOWN_SETTING
    tables = [scores.table(TEST, input_, setting_shown) for input_, scores in scored.items()]
    scores = pd.concat(tables, ignore_index=True)

    folder = None
    if out is not None:
        folder = RunFolder(Path(out))

    look = _look(material, split)
    with progress.step("running the checks"):
        stimuli = _all_stimuli(material)
        differences = differences_from_controls(scored, seed)
        gathered = _evidence(material, stimuli, kind, scores, differences, look, folder, seed)
        n_features = {true.extractor.name: true.features.shape[1] for true in readers}
        gathered = replace(gathered, n_features=n_features)
        answers = run_checks(gathered, waivers=waivers, seed=seed, at_hand=material.at_hand)
        remembered = _memorised(material, seed)

    verdicts = named_verdicts(answers)
    published = published_beside(
        protocol.data,
        split or TEST,
        scores,
        gathered,
        test_images=len(material.ids),
        repeats_averaged=repeats,
        subjects=subject,
        setting=setting,
        unsaid=protocol.unsaid,
    )
    sentences = [
        *_opening(material),
        *conclude(scores, verdicts, differences, sample_rows(scored["brain"])),
        _memorising_sentence(remembered),
    ]
    found = ScoredPictures(scores, verdicts, tuple(sentences), skipped_rows(scored), published, remembered, folder)

    looks.keep_look(look, looks.memories(None))
    if folder is not None:
        _write(
            folder,
            found,
            material,
            stimuli,
            scored,
            gathered,
            answers,
            protocol,
            look,
            seed,
            _asked(sources, seen, train),
        )

    return found


# -- what was asked ----------------------------------------------------------------------------------------------------


def _declared(data: str | None) -> tuple[str, str | None]:
    """Name of the data set and the person, empty and None where nothing was said. Raises ConfigError for an unknown name."""
    if data is None:
        return "", None

    name, subject = registry.split_spec(data)
    known = (*registry.known(), *FEATURE_EXTRACTORS)
    if name not in known and name.split("-")[0] not in known:
        raise ConfigError(
            f"there is no data set '{name}' that pictures could be of. {did_you_mean(name, dict.fromkeys(known))} Leave --data "
            "out for pictures of another one."
        )

    return name, subject


def _check_said(repeats: int | None, setting: str | None) -> None:
    if repeats is not None and repeats < 1:
        raise ConfigError(f"at least 1 response is behind a decoded picture, but repeats={repeats} was given.")

    if setting is not None and setting not in ("strict", "relax"):
        raise ConfigError(f"there is no setting '{setting}'. {did_you_mean(setting, ('strict', 'relax'))}")


def _size_of(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None

    if isinstance(size, int):
        size = (size, size)

    height, width = size
    if min(height, width) < 8:
        raise ConfigError(f"pictures of {height} x {width} are too small to be scored; give a size of 8 or more.")

    return int(height), int(width)


def _asked(sources: Mapping[str, Any], seen: Any, train: Any) -> dict[str, str]:
    """Where pictures came from, as text."""
    named = {"seen": seen, "decoded": sources["brain"], "train": train}
    for control in _CONTROLS:
        named[control] = sources[control]

    asked = {}
    for key, source in named.items():
        if source is None:
            continue

        if isinstance(source, Run):
            asked[key] = str(source.folder.path)
        elif isinstance(source, RunFolder):
            asked[key] = str(source.path)
        elif isinstance(source, str | Path):
            asked[key] = str(source)
        else:
            asked[key] = f"a {type(source).__name__} in memory"

    return asked


# -- what is scored ----------------------------------------------------------------------------------------------------


def _gathered(
    seen: Any, sources: Mapping[str, Any], train: Any, labels: Any, treatment: PictureTreatment, common: bool
) -> _Material:
    """All pictures in one order, of one size and with as many channels."""
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

    for name in _CONTROLS:
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

        training = _Training(np.asarray([_TRAINING + name for name in names], dtype=object), rows, training_category)

    return _Material(truths, inputs, category, training, left_out)


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


# -- networks ----------------------------------------------------------------------------------------------------------


def _kind_of_pictures(material: _Material) -> str:
    """What pictures of no named data set are taken for: photographs, where they are coloured and large enough to be."""
    height, width, channels = material.seen.image_shape
    if channels == 3 and min(height, width) >= _SMALLEST_PHOTOGRAPH:
        return PHOTOGRAPHS

    return ""


def _features(kind: str, material: _Material) -> list[TrueFeatures]:
    """Features of the seen pictures by each network that knows such pictures and is here."""
    truths = material.truths()
    return [extract_features(extractor, truths) for extractor in feature_extractors_for(kind)]


def _absent_networks(kind: str) -> list[Skipped]:
    """Scores that networks would give whose weights are not on this machine, and why nobody gives any."""
    makers = FEATURE_EXTRACTORS.get(kind.split("-")[0], ())
    if not makers:
        reason = "no network is known to see such pictures; name the data set they are of with --data"
        return [Skipped("two_way.pictures.NETWORK", reason)]

    skipped = []
    for make in makers:
        extractor = make()
        if extractor.is_here:
            continue

        for metric in extractor.metrics:
            reason = f"the weights of {extractor.name} are not on this machine (PHOSPHENE_WEIGHTS names their folder)"
            skipped.append(Skipped(f"{metric}.pictures.{extractor.name}", reason))

    return skipped


# -- scores ------------------------------------------------------------------------------------------------------------


def _scores_of(material: _Material, name: str, kind: str, readers: Sequence[TrueFeatures], seed: int) -> Scores:
    pictures = material.inputs[name]
    count = pictures.n_samples
    images = np.concatenate(
        [pictures.floats()[:, sample] for sample in range(count)]
    )  # the first of all, then the second ...
    category = None
    if material.category is not None:
        category = np.tile(material.category, count)

    repeated = []
    for true in readers:
        features = np.concatenate([true.features] * count)
        probabilities = np.concatenate([true.probabilities] * count)
        repeated.append(TrueFeatures(true.extractor, features, probabilities))

    decoded = Decoded(
        np.tile(material.ids, count),
        images=images,
        true_images=np.concatenate([material.truths()] * count),
        labels=category,
        classifier=_classifier(material),
        feature_views=feature_views(repeated, images),
    )
    found = compute_scores(decoded, seed=seed)
    scores = list(found.scores)
    skipped = [*found.skipped, *_absent_networks(kind)]

    # The literature on NSD scores pixels at 425 a side, which pictures may have been brought to already.
    if kind == "nsd" and min(images.shape[1:3]) > SIDE:
        resized = score_at_published_size(decoded, seed=seed)
        scores += resized.scores
        skipped += resized.skipped
    elif kind == "nsd" and images.shape[1:3] == (SIDE, SIDE):
        scores += [replace(s, metric=s.metric + RESIZED) for s in scores if s.metric in AT_PUBLISHED_SIZE]

    return Scores(scores, skipped)


def _classifier(material: _Material) -> PictureClassifier | None:
    """Of categories, by labelled training pictures; None where there are none, or where learning from them takes too long."""
    training = material.training
    if training is None or training.category is None or training.rows.shape[0] < 3:
        return None

    if int(np.prod(training.rows.shape)) > _MOST_CLASSIFIED:
        return None

    pictures = np.asarray(training.rows[:], dtype=np.float32) / np.float32(255)
    try:
        return PictureClassifier().fit(pictures, training.category)
    except DataError:  # a single class: there is nothing to classify
        return None


# -- evidence ----------------------------------------------------------------------------------------------------------


def _all_stimuli(material: _Material) -> Stimuli:
    """Test pictures, and after them those of training."""
    tested = as_bytes(material.seen.pixels[:, 0])
    training = material.training
    if training is None:
        return Stimuli(material.ids, tested)

    ids = np.concatenate([material.ids, training.names])
    return Stimuli(ids, StackedPictures(tested, training.rows))


def _evidence(
    material: _Material,
    stimuli: Stimuli,
    kind: str,
    scores: pd.DataFrame,
    differences: pd.DataFrame | None,
    look: ledger.LedgerEntry,
    folder: RunFolder | None,
    seed: int,
) -> Evidence:
    """What pictures say; everything else stays None."""
    truths = material.truths()
    first = material.first()
    n = len(material.ids)
    training = material.training
    training_ids: Sequence[str] = ()
    parts: dict[str, Any] = {}

    if training is not None:
        training_ids = list(training.names)
        is_tested = np.arange(len(stimuli)) < n
        rng = np.random.default_rng([seed, _LIKENESS_STREAM])
        parts["likeness"] = likeness_of(kind, stimuli, is_tested, rng)
        parts["digests"] = dict(zip(stimuli.ids, stimuli.pixel_digests(), strict=True))
        parts["targets"] = [_target(material, training, seed)]

    if material.brain.n_samples > 1:
        parts["samples"] = Samples(material.brain.pixels, first, truths)

    own = ledger.Ledger()
    if folder is not None:
        own = ledger.read(folder.path)

    earlier = tuple(entry for entry in own.looks if entry.shown != look.shown)
    known = {entry.shown for entry in own.looks}
    elsewhere = 0
    for other in looks.remembered(look.pictures, looks.memories(None)):
        if other.config != look.config and other.shown not in known:
            elsewhere += 1

    return Evidence(
        splits=[(training_ids, list(material.ids))],
        test_labels=material.category,
        similarity=similarity(first.reshape(n, -1), truths.reshape(n, -1)),
        test_ids=material.ids,
        scores=scores,
        differences=differences,
        ledger=replace(own, looks=earlier),
        looks_beside=elsewhere,
        config=look.config,
        golden=golden_values(),
        is_random=material.brain.n_samples > 1,
        **parts,
    )


def _target(material: _Material, training: _Training, seed: int) -> DecodingTarget:
    """Small copies of training, seen and decoded pictures."""
    rows = training.some(seed)
    labels = None
    if training.category is not None:
        labels = training.category[rows]

    return DecodingTarget(
        PICTURES,
        thumbnails(np.asarray(training.rows[rows])),
        thumbnails(material.truths()),
        thumbnails(material.first()),
        n_training=len(training.names),
        labels=labels,
        test_labels=material.category,
    )


def _memorised(material: _Material, seed: int) -> pd.DataFrame | None:
    training = material.training
    if training is None:
        return None

    rows = training.some(seed)
    names = np.asarray([str(name).removeprefix(_TRAINING) for name in training.names[rows]], dtype=object)
    pictures = np.asarray(training.rows[rows])
    return memorised(material.ids, material.first(), material.truths(), names, pictures)


def _look(material: _Material, split: str | None) -> ledger.LedgerEntry:
    """This scoring, as ledgers keep it: a decoder is known by its pictures, as nothing else is known of it."""
    truths = material.truths()
    pictures = [as_bytes(pictures.pixels) for pictures in material.inputs.values()]
    decoded = digest_of(*pictures)
    return ledger.LedgerEntry(
        digest_of(material.ids, as_bytes(truths)),
        digest_of(sorted(map(str, material.ids))),
        decoded,
        split or TEST,
        shown=digest_of(decoded, as_bytes(truths)),
        pictures=looks.sketch_of(picture_digests(truths)),
    )


# -- words -------------------------------------------------------------------------------------------------------------


def _opening(material: _Material) -> list[str]:
    """What was scored, and what was left out."""
    n = len(material.ids)
    count = material.brain.n_samples
    if count > 1:
        what = f"{count} samples of each of {n} seen pictures are"
    else:
        what = f"one picture of each of {n} seen pictures is"

    sentences = [f"Made elsewhere: {what} all that is known here; neither decoder nor brain was seen."]
    without, unseen = material.left_out
    if without or unseen:
        sentences.append(
            f"Left out on request: {without} seen pictures without a decoded one and {unseen} decoded ones without a seen one, "
            "so scores are of a part of the test set that somebody chose."
        )

    return sentences


def _memorising_sentence(table: pd.DataFrame | None) -> str:
    if table is None:
        return "Memorising: cannot be known, as no training pictures came with these."

    n = len(table)
    nearer = int(table["is_nearer"].to_numpy(bool).sum())
    copied = int(table["is_copy"].to_numpy(bool).sum())
    text = f"Memorising: {nearer} of {n} decoded pictures are more like a training picture than like what was seen"
    if copied:
        return f"{text}; {copied} of them are a training picture, so the decoder finds pictures rather than draws them."

    return f"{text}, and none is a copy of one."


# -- what is written ---------------------------------------------------------------------------------------------------


def _write(
    run: RunFolder,
    found: ScoredPictures,
    material: _Material,
    stimuli: Stimuli,
    scored: Mapping[str, Scores],
    gathered: Evidence,
    answers: Sequence[Verdict],
    protocol: _Protocol,
    look: ledger.LedgerEntry,
    seed: int,
    asked: Mapping[str, str],
) -> None:
    """Write a run folder; scores come last, as in any evaluation."""
    with run.locked("score"):
        _refuse_another(run, look)
        identity = {"data_digest": look.data, "test_digest": look.data, "config_digest": look.config}
        run.write_manifest(
            origin=ELSEWHERE,
            recipe=MADE_ELSEWHERE,
            **identity,
            **_circumstances(material, protocol, asked, seed),
            state="scoring",
        )
        _write_config(run, protocol, asked, seed)
        _write_sides(run, material)

        folds = np.zeros(len(material.ids), dtype=int)
        write_pictures(run, SEEN, Images(material.ids, material.truths()), folds=folds, category=material.category)
        for name, pictures in material.inputs.items():
            samples = None
            if pictures.n_samples > 1 and name == "brain":
                samples = as_bytes(pictures.pixels)

            images = Images(material.ids, material.first(name))
            write_pictures(run, name, images, folds=folds, category=material.category, samples=samples)

        ledger.append(run.path, look)
        with atomic.folder(run.evaluation(TEST)) as folder:
            write_score_tables(folder, scored, gathered, found.published, found.conclusions)
            tables = RunFolder(folder)
            shared = json.dumps(_shared_protocol(material, protocol), indent=1) + "\n"
            atomic.write_text(folder / "protocol.json", shared)
            if found.memorised is not None:
                write_findings(stimuli, seed, gathered, tables)
                tables.write_table(found.memorised, "memorised.csv")

        write_sealed_scores(run, found.scores, found.verdicts, answers)
        run.write_manifest(state="scored", finished=time.strftime("%Y-%m-%dT%H:%M:%S"))
        run.log("scored", scores=len(found.scores))


def _refuse_another(run: RunFolder, look: ledger.LedgerEntry) -> None:
    """Raise ConfigError for a folder that holds anything else than a scoring of these pictures."""
    if not (run.path / "manifest.json").is_file():
        others = sorted(path.name for path in run.path.iterdir() if not path.name.startswith("."))
        if others:
            raise ConfigError(
                f"{run.path} is not empty and holds no run ({', '.join(others[:3])} ...); choose another --out."
            )

        return

    before = run.manifest
    same = before.get("origin") == ELSEWHERE and before.get("config_digest") == look.config
    if not same or before.get("data_digest") != look.data:
        raise ConfigError(
            f"{run.path} holds {before.get('recipe', 'another run')} with other pictures; choose another --out, or delete that "
            "folder. Nothing in it was touched."
        )


def _circumstances(material: _Material, protocol: _Protocol, asked: Mapping[str, str], seed: int) -> dict[str, Any]:
    said = {
        field: value for field, value in asdict(protocol).items() if field != "treatment" and value not in (None, "")
    }
    notes = {name: list(pictures.notes) for name, pictures in {SEEN: material.seen, **material.inputs}.items()}
    return {
        "data": {
            "name": protocol.data or Path(asked["seen"]).name,
            "subject": protocol.subject or "",
            "n_stimuli": len(material.ids),
        },
        "split": {"name": protocol.split or TEST, "folds": 1, "unit": "stimulus", "note": ""},
        "declared": said,
        "reading": {name: parts for name, parts in notes.items() if parts},
        "left_out": {"seen": material.left_out[0], "decoded": material.left_out[1]},
        "seed": seed,
        "setting": protocol.setting or UNKNOWN_SETTING,
        "conditions": {"what was said of the pictures": ", ".join(f"{k} {v}" for k, v in said.items()) or "nothing"},
        "versions": {"phosphene": __version__, "python": platform.python_version(), "numpy": np.__version__},
        "machine": platform.machine(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def _write_config(run: RunFolder, protocol: _Protocol, asked: Mapping[str, str], seed: int) -> None:
    said = asdict(protocol)
    values = {"format": FORMAT, "score": {**asked, **said.pop("treatment"), **said}, "seed": seed}
    kept = values["score"]
    if kept["size"] is not None:
        kept["size"] = list(kept["size"])

    atomic.write_text(run.path / "config.yaml", to_yaml(values))
    rows = []
    for key, value in flatten(values).items():
        origin = "given"
        if value in (None, "", 0, FORMAT):
            origin = "default"

        rows.append({"key": key, "value": str(value), "origin": origin})

    run.write_table(pd.DataFrame(rows), "origins.csv")


def _write_sides(run: RunFolder, material: _Material) -> None:
    rows = [(0, "test", "stimulus", name) for name in material.ids]
    if material.training is not None:
        rows += [(0, "train", "stimulus", name) for name in material.training.names]

    run.write_table(pd.DataFrame(rows, columns=["fold", "side", "unit", "id"]), "splits.csv")


def _shared_protocol(material: _Material, protocol: _Protocol) -> dict[str, Any]:
    """What another run must share so that its scores can stand beside these."""
    truths = material.truths()
    return {
        "data": protocol.data,
        "pictures": digest_of(sorted(set(picture_digests(truths)))),
        "size": list(truths.shape[1:3]),
        "decoded_size": list(truths.shape[1:3]),
        "responses_averaged": protocol.repeats,
        "folds": 1,
        "setting": protocol.setting or UNKNOWN_SETTING,
    }
