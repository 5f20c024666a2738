"""Evaluate: scores of every input, checks, and what can be said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from phosphene import recipes
from phosphene.data import registry
from phosphene.errors import DataError, ModelError
from phosphene.flow.evidence import evidence, look_of, memories_of, write_findings
from phosphene.flow.score_files import (
    differences_from_controls,
    named_verdicts,
    published_beside,
    sample_rows,
    write_score_tables,
    write_sealed_scores,
)
from phosphene.io import atomic, ledger, looks, memory
from phosphene.io.progress import Progress
from phosphene.io.reading import open_npy
from phosphene.io.run_folder import SEEN, RunFolder
from phosphene.io.seals import require_unbroken
from phosphene.metrics.category import PictureClassifier
from phosphene.metrics.metric import Decoded, Encoded, Scores
from phosphene.metrics.perceptual import TrueFeatures, extract_features, feature_extractors_for, feature_views
from phosphene.metrics.published import PICTURES_OF
from phosphene.metrics.registry import chance_out_of_fold, compute_scores, score_at_published_size
from phosphene.metrics.resize import SIDE
from phosphene.metrics.voxelwise import (
    fdr,
    fraction_of_ceiling,
    noise_ceiling,
    pearson_p,
    pearson_per_voxel,
    r2_per_voxel,
    voxels_with_signal,
)
from phosphene.metrics.zero_shot import Candidates, candidates_from, confusion, templates_for
from phosphene.recipes.base import Recipe
from phosphene.reporting.conclusion import conclude
from phosphene.run import TEST, Run, RunLike, as_run
from phosphene.types import Trials, at_size, digest_of
from phosphene.validity import Evidence, picture_digests, run_checks

_FEWEST_REPEATED = 10  # training stimuli by whose repeats voxels are called reliable
_MOST_REPEATED = 500
_RELIABLE_STREAM = 15  # of random numbers of the run's seed


def evaluate(
    opened: RunLike,
    *,
    waivers: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    sweep: str = "",
    n_planned: int = 0,
) -> RunFolder:
    """Score what was decoded and encoded, run the checks, and write what can be said.

    Writes scores.csv, validity.csv, validity.json and the folder evaluation/. Every input (brain and controls) is scored by every
    metric that applies; what could not be computed is listed with its reason.

    Parameters
    ----------
    opened : Run or RunFolder or str or Path
        a run of which something was decoded, or its folder
    waivers : mapping of str to str, optional
        check id to who goes on in spite of it, and why; printed in the report
    progress : Progress, optional
        where progress is shown
    sweep : str, default ""
        digest of the sweep that the run is part of
    n_planned : int, default 0
        other configurations that this sweep evaluates on the same test set, whichever comes first

    Returns
    -------
    RunFolder
        the run's folder, the tables in it

    Raises
    ------
    ModelError
        When nothing was decoded yet.
    """
    opened = as_run(opened)
    progress = progress or Progress(quiet=True)
    run = opened.folder
    setting = opened.config.recipe.setting
    seed = opened.config.seed

    if not run.inputs(TEST):
        raise ModelError(f"{run.path} holds no decoded pictures. Run: phosphene decode {run.path}")

    identity = opened.verify()
    for name in (SEEN, *run.inputs(TEST)):
        require_unbroken(run.decoded(TEST, name), f"phosphene decode {run.path}")

    require_unbroken(run.encoded(TEST), f"phosphene encode {run.path}")

    with run.locked("evaluate"):
        fitted = [opened.recipe(fold) for fold in range(len(opened.folds))]
        readers = _Readers(_classifier(opened), _true_features(opened), _candidates(opened, fitted[0]))
        scored = _score_inputs(opened, readers, progress)
        scores = pd.concat([s.table(TEST, name, setting) for name, s in scored.items()], ignore_index=True)

        with progress.step("running the checks"):
            index = _index(opened)
            differences = _differences_from_controls(opened, scored)
            look = look_of(opened, identity, sweep)
            gathered = evidence(
                opened, fitted, index, _labels(opened, index), scores, differences, look=look, n_planned=n_planned
            )
            n_features = {true.extractor.name: true.features.shape[1] for true in readers.true_features}
            gathered = replace(gathered, n_features=n_features)
            answers = run_checks(gathered, waivers=waivers, seed=seed)

        verdicts = named_verdicts(answers)
        looks.keep_look(look, memories_of(opened))
        ledger.append(run.path, look)  # before anybody can have seen a score
        _write_details(opened, scored, scores, verdicts, gathered, readers.texts)
        write_sealed_scores(run, scores, verdicts, answers)
        run.log("evaluated", scores=len(scores))

    return run


def _score_inputs(opened: Run, readers: _Readers, progress: Progress) -> dict[str, Scores]:
    """Scores of what each input was decoded to; responses were predicted from pictures, so they belong to the brain's."""
    seed = opened.config.seed
    scored: dict[str, Scores] = {}

    for name in progress.each(opened.folder.inputs(TEST), "scoring", unit="input"):
        if name == "brain":
            encoded = _encoded(opened)
        else:
            encoded = None

        decoded = _decoded(opened, name, readers, opened.scored_size)
        scored[name] = compute_scores(decoded, encoded, seed=seed)

        size = opened.folder.pixels(TEST, name).shape[1:3]
        if opened.dataset.name == "nsd" and min(size) > SIDE:  # its literature scores pixels at another size
            resized = score_at_published_size(_decoded(opened, name, _NO_READERS, size), seed=seed)
            scored[name] = Scores(scored[name].scores + resized.scores, scored[name].skipped + resized.skipped)

    if len(opened.folds) > 1:
        return chance_out_of_fold(scored)

    return scored


def _differences_from_controls(opened: Run, scored: Mapping[str, Scores]) -> pd.DataFrame | None:
    """Paired differences of the brain from each control; None without any."""
    stimuli = list(dict.fromkeys(_index(opened)["stimulus"]))
    labels = opened.groups_of(stimuli)
    groups = None
    if labels is not None:
        groups = dict(zip(stimuli, labels, strict=True))

    return differences_from_controls(scored, opened.config.seed, groups=groups, n_folds=len(opened.folds))


# -- what is scored ----------------------------------------------------------------------------------------------------


def _index(opened: Run, source: str = "brain") -> pd.DataFrame:
    return opened.folder.table("decoded", TEST, source, "index.csv")


class _Readers(NamedTuple):
    """What reads pictures and latents, made once for all inputs.

    Attributes
    ----------
    classifier : _Foldwise or None
        reads the category off a picture; None without categories
    true_features : list of TrueFeatures
        of the true pictures, one entry per network
    texts : dict of str to Candidates
        space of latents -> the categories as text in it
    """

    classifier: _Foldwise | None
    true_features: list[TrueFeatures]
    texts: dict[str, Candidates]


_NO_READERS = _Readers(None, [], {})


def _decoded(opened: Run, source: str, readers: _Readers, size: tuple[int, int]) -> Decoded:
    """What one input was decoded to, beside the truth, pictures at a size of (height, width)."""
    index = _index(opened, source)
    ids = index["stimulus"].to_numpy(object)
    folds = None
    if len(opened.folds) > 1:
        folds = index["fold"].to_numpy()

    one = Decoded(
        ids,
        images=at_size(opened.folder.pixels(TEST, source), size),
        true_images=_true_pictures(opened, ids, size),
        latents=_latents(opened, source),
        labels=_labels(opened, index),
        classifier=readers.classifier,
        texts=readers.texts,
        groups=opened.groups_of(ids),
        folds=folds,
    )

    true_features = readers.true_features
    samples = _all_samples(opened, source)
    if samples is not None:
        one = _with_samples(one, samples, size)
        true_features = [_repeated(true, samples.shape[1]) for true in true_features]

    assert one.images is not None  # an input is pictures
    return replace(one, feature_views=feature_views(true_features, one.images))


def _true_pictures(opened: Run, ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, height, width, c) float32 pictures that were seen, 0-1, in the order of `ids`, which may come again."""
    filed = opened.folder.pixels(TEST, SEEN)
    if filed.shape[1:3] == tuple(size):
        return filed

    unique = list(dict.fromkeys(ids))
    rows = pd.Index(unique).get_indexer(ids)
    return opened.stimuli.select(unique).resized(size)[rows]


def _all_samples(opened: Run, source: str) -> np.ndarray | None:
    """(n, samples, h, w, c) uint8 pictures of the brain that are scored; None where one picture of each trial is.

    One is scored where one was drawn, and where the recipe chose it itself.
    """
    file = opened.folder.decoded(TEST, source) / "samples.npy"
    recipe = recipes.recipe(opened.config.recipe.kind)(opened.config.recipe)
    if source != "brain" or not file.is_file() or recipe.chooses_sample:
        return None

    samples = np.load(file, mmap_mode="r", allow_pickle=False)
    n_bytes = 4 * 4 * int(samples.size)  # float32, with as much again for truths and for what metrics make of both
    what = f"The {samples.shape[1]} samples of {len(samples)} pictures"
    memory.require_memory(n_bytes, what, f"Score fewer: phosphene decode {opened.folder.path} --samples 1")

    return samples


def _with_samples(one: Decoded, samples: np.ndarray, size: tuple[int, int]) -> Decoded:
    """All samples of every trial as rows: the first of all trials, as it is kept in full, then the second of all ..."""
    count = samples.shape[1]
    assert one.images is not None  # samples are pictures
    assert one.true_images is not None
    others = [at_size(np.asarray(samples[:, s], dtype=np.float32) / np.float32(255), size) for s in range(1, count)]
    labels = None
    if one.labels is not None:
        labels = np.tile(one.labels, count)

    latents = {}
    for space, (decoded, true) in one.latents.items():
        latents[space] = (np.concatenate([decoded] * count), np.concatenate([true] * count))

    classifier = one.classifier
    if classifier is not None:
        classifier = _Foldwise(classifier.classifiers, np.tile(classifier.folds, count))

    groups = None
    if one.groups is not None:
        groups = np.tile(one.groups, count)

    folds = None
    if one.folds is not None:
        folds = np.tile(one.folds, count)

    return replace(
        one,
        ids=np.tile(one.ids, count),
        images=np.concatenate([one.images, *others]),
        true_images=np.concatenate([one.true_images] * count),
        latents=latents,
        labels=labels,
        classifier=classifier,
        groups=groups,
        folds=folds,
    )


def _repeated(true: TrueFeatures, count: int) -> TrueFeatures:
    """Features of the true pictures, once for each sample."""
    features = np.concatenate([true.features] * count)
    probabilities = np.concatenate([true.probabilities] * count)
    return TrueFeatures(true.extractor, features, probabilities)


def _latents(opened: Run, source: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Decoded and true latents by space, of what was decoded from this input."""
    from safetensors.numpy import load_file

    file = opened.folder.decoded(TEST, source) / "latents.safetensors"
    if not file.is_file():
        return {}

    arrays = load_file(file)
    pairs = {}
    for space, decoded in arrays.items():
        true = arrays.get(f"true.{space}")
        if true is not None:
            pairs[space] = (decoded, true)

    return pairs


def _true_features(opened: Run) -> list[TrueFeatures]:
    """Features of the true pictures from each network that knows such pictures."""
    true = opened.folder.pixels(TEST, SEEN)
    return [extract_features(extractor, true) for extractor in feature_extractors_for(opened.dataset.name)]


def _candidates(opened: Run, recipe: Recipe) -> dict[str, Candidates]:
    """Every category as text, in each space of latents that has a text side and in which folds may be scored together."""
    category = opened.stimuli.category
    if category is None:
        return {}

    spaces = _text_spaces(opened, recipe)
    trained: set[str] = set()
    for fold in range(len(opened.folds)):
        trained.update(_training_categories(opened, fold))

    # Several folds have several training means, so there is no single one to take away.
    if spaces and len(opened.folds) == 1:
        train, _ = opened.sides(0)
        centres = recipe.true_latents(opened.stimuli.select(train.stimulus_ids))
    else:
        centres = None

    candidates = {}
    for space in spaces:
        texts = candidates_from(
            partial(_text_latents, recipe, space),
            sorted(set(category)),
            templates=templates_for(space),
            trained=trained,
            nouns=opened.dataset.nouns,
        )

        if centres is None:
            candidates[space] = texts
        else:
            centre = centres[space].mean(axis=0, dtype=np.float64)  # (d,)
            candidates[space] = replace(texts, centre=centre)

    return candidates


def _text_spaces(opened: Run, recipe: Recipe) -> list[str]:
    """Spaces of one vector per text; with several folds only those that are the same space in every fold."""
    probe = recipe.text_latents(["a"])
    if probe is None:
        return []

    spaces = [space for space, array in probe.arrays.items() if np.ndim(array) == 2]
    if len(opened.folds) > 1:
        spaces = [space for space in spaces if space in recipe.fixed_spaces]

    return spaces


def _text_latents(recipe: Recipe, space: str, texts: Sequence[str]) -> np.ndarray:
    latents = recipe.text_latents(texts)
    assert latents is not None  # `_text_spaces` found this space by asking for a text

    return latents[space]


def _training_categories(opened: Run, fold: int) -> np.ndarray:
    train, _ = opened.sides(fold)
    category = opened.stimuli.select(train.stimulus_ids).category
    assert category is not None  # asked only where stimuli have categories

    return category


def _labels(opened: Run, index: pd.DataFrame) -> np.ndarray | None:
    return opened.stimuli.category_of(index["stimulus"])


class _Foldwise:
    """A classifier per fold, each asked only about the rows of its own fold."""

    def __init__(self, classifiers: list[PictureClassifier], folds: np.ndarray) -> None:
        self.classifiers = classifiers
        self.folds = folds

    def predict(self, pictures: np.ndarray) -> np.ndarray:
        out = np.empty(len(pictures), dtype=object)
        for fold, classifier in enumerate(self.classifiers):
            in_fold = self.folds == fold  # (n,)
            if in_fold.any():
                out[in_fold] = classifier.predict(pictures[in_fold])

        return out


def _classifier(opened: Run) -> _Foldwise | None:
    """Fitted on the training pictures of each fold, at the size that is scored."""
    if opened.stimuli.category is None:
        return None

    size = opened.folder.pixels(TEST, SEEN).shape[1:3]
    fitted = []

    for fold in range(len(opened.folds)):
        train, _ = opened.sides(fold)
        shown = opened.stimuli.select(train.average_repeats().stimuli)
        assert shown.category is not None  # as all stimuli have one

        try:
            fitted.append(PictureClassifier().fit(shown.resized(size), shown.category))
        except DataError:  # a single class, or too few pictures: there is nothing to classify
            return None

    return _Foldwise(fitted, _index(opened)["fold"].to_numpy())


def _encoded(opened: Run) -> Encoded | None:
    folder = opened.folder.encoded(TEST)
    if not (folder / "predicted.npy").is_file():
        return None

    stimuli = opened.folder.table("encoded", TEST, "index.csv")["stimulus"].to_numpy(object)
    predicted = np.array(open_npy(folder / "predicted.npy"))
    measured = np.array(open_npy(folder / "measured.npy"))
    ids = np.asarray(pd.unique(stimuli), dtype=object)

    # Where runs are left out, a stimulus is tested once in each: what it is scored on is the mean.
    if len(ids) < len(stimuli):
        rows = pd.Index(ids).get_indexer(stimuli)
        predicted = _mean_of_rows(predicted, rows)
        measured = _mean_of_rows(measured, rows)

    clipped, unclipped, _ = _ceiling(opened)
    return Encoded(ids, predicted, measured, clipped, unclipped, _reliable(opened))


def _reliable(opened: Run) -> np.ndarray | None:
    """(n_voxels,) bool, voxels that answer alike to repeats in training; None without repeats, and in folds.

    In folds what trains one decoder tests another, so that no choice is free of the test set.
    """
    if len(opened.folds) > 1:
        return None

    train, _ = opened.sides(0)
    names, counts = np.unique(train.stimuli.astype(str), return_counts=True)
    repeated = names[counts > 1]
    if len(repeated) < _FEWEST_REPEATED:
        return None

    rng = np.random.default_rng([opened.config.seed, _RELIABLE_STREAM])
    chosen = rng.permutation(repeated)[:_MOST_REPEATED]
    some = train.take(np.flatnonzero(np.isin(train.stimuli.astype(str), chosen)))
    return voxels_with_signal(np.asarray(some.betas), some.stimuli)


def _mean_of_rows(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n_ids, n_voxels) float32: mean over those of (n, n_voxels) that have the same number in `rows`."""
    sums = np.zeros((rows.max() + 1, values.shape[1]))
    np.add.at(sums, rows, values)

    return (sums / np.bincount(rows)[:, None]).astype(np.float32)


def _ceiling(opened: Run) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """Noise ceiling of the averaged test responses, the same not clipped at 0, and how it is known."""
    tests = [opened.sides(fold)[1] for fold in range(len(opened.folds))]
    repeats = float(np.mean([len(t) / len(t.stimulus_ids) for t in tests]))
    single = opened.trials.noise_ceiling

    if single is not None:
        # Signal variance over all variance; averaging n responses divides the noise by n (Spearman-Brown).
        with np.errstate(divide="ignore"):
            noise_to_signal = 1 / np.clip(single, 0, 1) - 1  # (n_voxels,)
            averaged = 1 / (1 + noise_to_signal / repeats)

        return averaged, None, "known for single trials, carried to the average"

    if repeats < 2:
        return None, None, "unknown: no test picture was shown twice"

    betas = np.concatenate([t.betas for t in tests])  # (n_trials, n_voxels)
    stimuli = np.concatenate([t.stimuli for t in tests]).astype(str)
    estimated = noise_ceiling(betas, stimuli, n_averaged=round(repeats))

    return estimated.variance, estimated.unclipped, "estimated from the repeats of the test pictures"


# -- what is written ---------------------------------------------------------------------------------------------------


def _write_details(
    opened: Run,
    scored: Mapping[str, Scores],
    scores: pd.DataFrame,
    verdicts: pd.DataFrame,
    gathered: Evidence,
    texts: Mapping[str, Candidates],
) -> None:
    """Write the folder evaluation/, which appears whole or not at all."""
    published = published_beside(
        opened.dataset.name,
        _split_name(opened),
        scores,
        gathered,
        other_data=_why_other_data(opened),
        test_images=len(_index(opened)),
        repeats_averaged=_repeats_averaged(opened.sides(0)[1]),
        subjects=str(opened.trials.subject),
        setting=opened.config.recipe.setting,
    )
    sentences = conclude(scores, verdicts, gathered.differences, sample_rows(scored["brain"]))

    with atomic.folder(opened.folder.evaluation(TEST)) as folder:
        write_score_tables(folder, scored, gathered, published, sentences)
        tables = RunFolder(folder)
        write_findings(opened.stimuli, opened.config.seed, gathered, tables)
        answers = _zero_shot_table(opened, texts)
        if answers is not None:
            tables.write_table(answers, "zero_shot.csv")

        voxels = _voxels(opened)
        if voxels is not None:
            tables.write_table(voxels, "voxels.csv")

        protocol = json.dumps(_protocol(opened), indent=1) + "\n"
        (folder / "protocol.json").write_text(protocol, encoding="utf-8")


def _zero_shot_table(opened: Run, texts: Mapping[str, Candidates]) -> pd.DataFrame | None:
    """How often each category was called what, in each space with texts: space, true, said, n; None without any."""
    labels = _labels(opened, _index(opened))
    if labels is None:
        return None

    tables = []
    for space, (decoded, _) in _latents(opened, "brain").items():
        if space in texts:
            table = confusion(texts[space].among(list(labels)), decoded, list(labels))
            tables.append(table.assign(space=space)[["space", "true", "said", "n"]])

    if tables:
        return pd.concat(tables, ignore_index=True)

    return None


def _voxels(opened: Run) -> pd.DataFrame | None:
    """The voxel table with encoding accuracy beside it, or None when nothing was encoded."""
    encoded = _encoded(opened)
    if encoded is None:
        return None

    table = opened.folder.table("encoded", TEST, "voxels.csv")
    if len(table) != encoded.measured.shape[1]:
        table = pd.DataFrame(index=range(encoded.measured.shape[1]))

    r = pearson_per_voxel(encoded.predicted, encoded.measured)  # (n_voxels,)
    table["pearson"] = r
    table["r2"] = r2_per_voxel(encoded.predicted, encoded.measured)
    table["q_fdr"] = fdr(pearson_p(r, len(encoded.ids)))

    if encoded.ceiling is not None:
        table["ceiling"] = encoded.ceiling
        # The ceiling is a share of variance, and r a correlation: its root is the largest r there can be.
        table["fraction_of_ceiling"] = fraction_of_ceiling(r, np.sqrt(encoded.ceiling)).ratio

    return table


def _split_name(opened: Run) -> str:
    """The split as people call it: of a file its name, and not where it lies on this machine."""
    name = opened.config.split or opened.folds[0].name
    if Path(name).is_absolute():
        return Path(name).name

    return name


def _why_other_data(opened: Run) -> str:
    """Why data of a published name may be others than those published; "" for no reason."""
    dataset = opened.dataset
    known = PICTURES_OF.get(dataset.name)
    if known is not None:
        if digest_of(sorted(picture_digests(dataset.stimuli.available().pixels()))) == known:
            return ""

        return f"other pictures than those of {dataset.name}"

    if dataset.name in registry.known() and dataset.about.get("url") == registry.reader(dataset.name).url:
        return ""

    return f"the data are called {dataset.name} but were not read from its published files"


def _protocol(opened: Run) -> dict[str, object]:
    """What two runs must share so that their scores can stand side by side."""
    seen = opened.folder.pixels(TEST, SEEN)  # (n, h, w, c)
    return {
        "data": opened.dataset.name,
        "pictures": digest_of(sorted(set(picture_digests(seen)))),
        "size": list(seen.shape[1:3]),
        "decoded_size": list(opened.folder.pixels(TEST, "brain").shape[1:3]),
        "responses_averaged": _repeats_averaged(opened.sides(0)[1]),
        "split": digest_of([split.digest for split in opened.folds]),
        "folds": len(opened.folds),
        "setting": opened.config.recipe.setting,
    }


def _repeats_averaged(test: Trials) -> int | str:
    """How many responses to a test picture are averaged; ``all`` where pictures differ in that."""
    if "n_repeats" in test.table:
        n_responses = int(test.table["n_repeats"].to_numpy().sum())
    else:
        n_responses = len(test)

    repeats = n_responses / len(test.stimulus_ids)
    if repeats == int(repeats):
        return int(repeats)

    return "all"
