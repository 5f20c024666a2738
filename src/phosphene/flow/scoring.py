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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene._version import __version__
from phosphene.data import registry
from phosphene.data.picture_pairs import (
    PictureTreatment,
    StackedPictures,
    as_bytes,
)
from phosphene.errors import ConfigError, DataError, did_you_mean
from phosphene.flow.evidence import golden_now, write_findings
from phosphene.flow.picture_files import write_pictures
from phosphene.flow.picture_material import (
    PICTURE_CONTROLS,
    TRAINING_PREFIX,
    PictureMaterial,
    TrainingPictures,
    gathered_pictures,
)
from phosphene.flow.score_files import (
    differences_from_controls,
    named_verdicts,
    published_beside,
    sample_rows,
    skipped_rows,
    write_score_tables,
    write_sealed_scores,
)
from phosphene.flow.scored_pictures import ScoredPictures
from phosphene.io import atomic, ledger, looks
from phosphene.io.config import FORMAT, flatten, to_yaml
from phosphene.io.progress import Progress
from phosphene.io.run_folder import ELSEWHERE, SEEN, RunFolder
from phosphene.metrics.category import PictureClassifier
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
from phosphene.types import Images, Stimuli, digest_of
from phosphene.validity import (
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

_MOST_CLASSIFIED = 20_000_000  # values of labelled training pictures by which categories are learned
_SMALLEST_PHOTOGRAPH = 64  # pixels of the shorter side, below which nobody says that pictures are photographs

_LIKENESS_STREAM = 31  # of random numbers

PictureRun = str | Path | RunFolder | Run


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
    seen : str or Path or ndarray or Tensor or Images or list or Run
        a folder of pictures, a ``.npy``, ``.npz``, ``.pt`` or ``.safetensors`` file, pictures in memory, or a run of ours, whose
        test pictures are taken
    decoded : str or Path or ndarray or Tensor or Images or list or Run
        the same; several samples of an item are scored all, and their mean is reported
    train : str or Path or ndarray or Tensor or Images or list, optional
        pictures that the decoder was trained on: near copies of test pictures among them, and memorising, are looked for
    labels : mapping of str to str or sequence of str or str or Path, optional
        category of each seen picture (and of training pictures, in a mapping or a CSV): by name, in order, or a CSV with a
        column of names (stimulus, name, file ...) and one of categories (category, label or class)
    shuffled, noise : str or Path or ndarray or Tensor or Images or list, optional
        what the same decoder made of responses in random order, and of noise, under the names of the seen pictures
    out : str or Path, optional
        folder of the run to write; nothing is written by default
    data : str, optional
        NAME or NAME:SUBJECT of the data set that the pictures are of, which says which networks know such pictures and which
        published numbers stand beside
    split : str, optional
        name of the split tested on, as a reader or a paper calls it
    repeats : int, optional
        responses averaged for each picture
    setting : {"strict", "relax"}, optional
        whether the decoder saw test responses
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
        material = gathered_pictures(seen, sources, train, labels, treatment, common)

    look = _look(material, split)
    folder = None
    if out is not None:  # what cannot be written is refused before any work is done
        folder = RunFolder(Path(out))
        _refuse_another(folder, look)

    kind = protocol.data or _kind_of_pictures(material)
    with progress.step("looking at pictures by networks"):
        readers = _features(kind, material)

    scored = {}
    for input_ in progress.each(list(material.inputs), "scoring", unit="input"):
        scored[input_] = _scores_of(material, input_, kind, readers, seed)

    setting_shown = setting or UNKNOWN_SETTING
    tables = [scores.table(TEST, input_, setting_shown) for input_, scores in scored.items()]
    scores = pd.concat(tables, ignore_index=True)

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
        *_published_sentence(published, protocol),
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
            _asked(sources, seen, train, labels),
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


def _asked(sources: Mapping[str, Any], seen: Any, train: Any, labels: Any) -> dict[str, str]:
    """Where pictures came from, as text."""
    named = {"seen": seen, "decoded": sources["brain"], "train": train, "labels": labels}
    for control in PICTURE_CONTROLS:
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


# -- networks ----------------------------------------------------------------------------------------------------------


def _kind_of_pictures(material: PictureMaterial) -> str:
    """What pictures of no named data set are taken for: photographs, where they are coloured and large enough to be."""
    height, width, channels = material.seen.image_shape
    if channels == 3 and min(height, width) >= _SMALLEST_PHOTOGRAPH:
        return PHOTOGRAPHS

    return ""


def _features(kind: str, material: PictureMaterial) -> list[TrueFeatures]:
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


def _scores_of(material: PictureMaterial, name: str, kind: str, readers: Sequence[TrueFeatures], seed: int) -> Scores:
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


def _classifier(material: PictureMaterial) -> PictureClassifier | None:
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


def _all_stimuli(material: PictureMaterial) -> Stimuli:
    """Test pictures, and after them those of training."""
    tested = as_bytes(material.seen.pixels[:, 0])
    training = material.training
    if training is None:
        return Stimuli(material.ids, tested)

    ids = np.concatenate([material.ids, training.names])
    return Stimuli(ids, StackedPictures(tested, training.rows))


def _evidence(
    material: PictureMaterial,
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
        golden=golden_now(),
        is_random=material.brain.n_samples > 1,
        **parts,
    )


def _target(material: PictureMaterial, training: TrainingPictures, seed: int) -> DecodingTarget:
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


def _memorised(material: PictureMaterial, seed: int) -> pd.DataFrame | None:
    training = material.training
    if training is None:
        return None

    rows = training.some(seed)
    names = np.asarray([str(name).removeprefix(TRAINING_PREFIX) for name in training.names[rows]], dtype=object)
    pictures = np.asarray(training.rows[rows])
    return memorised(material.ids, material.first(), material.truths(), names, pictures)


def _look(material: PictureMaterial, split: str | None) -> ledger.LedgerEntry:
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


def _opening(material: PictureMaterial) -> list[str]:
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


def _published_sentence(published: pd.DataFrame, protocol: _Protocol) -> list[str]:
    """On whose word published numbers are called comparable."""
    n = int(published["comparable"].to_numpy(bool).sum())
    if not n:
        return []

    said = {"data": protocol.data, "subject": protocol.subject, "split": protocol.split, "repeats": protocol.repeats}
    words = ", ".join(f"{key} {value}" for key, value in said.items() if value not in (None, ""))
    return [f"{n} published numbers are comparable as far as what was said of these pictures holds: {words}."]


# -- what is written ---------------------------------------------------------------------------------------------------


def _write(
    run: RunFolder,
    found: ScoredPictures,
    material: PictureMaterial,
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
    if not run.path.exists():
        return

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


def _circumstances(
    material: PictureMaterial, protocol: _Protocol, asked: Mapping[str, str], seed: int
) -> dict[str, Any]:
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


def _write_sides(run: RunFolder, material: PictureMaterial) -> None:
    rows = [(0, "test", "stimulus", name) for name in material.ids]
    if material.training is not None:
        rows += [(0, "train", "stimulus", name) for name in material.training.names]

    run.write_table(pd.DataFrame(rows, columns=["fold", "side", "unit", "id"]), "splits.csv")


def _shared_protocol(material: PictureMaterial, protocol: _Protocol) -> dict[str, Any]:
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
