"""Evaluate: scores of every input, checks, and what can be said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from phosphene.errors import DataError, ModelError
from phosphene.flow.decoding import KNOWN_CONTROLS
from phosphene.flow.evidence import evidence, look_of, write_findings
from phosphene.io import atomic, ledger
from phosphene.io.folder import SEEN, RunFolder
from phosphene.io.progress import Progress
from phosphene.metrics.category import PictureClassifier
from phosphene.metrics.controls import paired_differences
from phosphene.metrics.golden import changed
from phosphene.metrics.metric import Decoded, Encoded, Scores, extractor_name
from phosphene.metrics.perceptual import TrueFeatures, extract_features, feature_extractors_for, feature_views
from phosphene.metrics.published import matching, published_rows
from phosphene.metrics.registry import kind_of, metric_of, score, score_at_published_size, space_of
from phosphene.metrics.retrieval import retrieval_curve
from phosphene.metrics.voxelwise import (
    fdr,
    fraction_of_ceiling,
    noise_ceiling,
    pearson_p,
    pearson_per_voxel,
    r2_per_voxel,
)
from phosphene.metrics.zero_shot import Candidates, candidates_from, confusion, templates_for
from phosphene.recipes.base import Recipe
from phosphene.reporting.conclusion import conclude
from phosphene.run import TEST, Run
from phosphene.types import Trials
from phosphene.validity import CHECKS, Evidence, run_checks, verdict_record, verdict_table, why_not_comparable

LARGEST_MATRIX = 3000  # stimuli; a similarity matrix beyond that is not kept for the report


def evaluate(opened: Run, *, waivers: Mapping[str, str] | None = None, progress: Progress | None = None) -> RunFolder:
    """Score what was decoded and encoded, run the checks, and write what can be said.

    Writes scores.csv, validity.csv, validity.json and the folder evaluation/. Every input (brain and controls) is scored by every
    metric that applies; what could not be computed is listed with its reason.

    Parameters
    ----------
    opened : Run
        a run
    waivers : mapping of {str: str}, optional
        check id to who goes on in spite of it, and why; printed in the report
    progress : Progress, optional
        where progress is shown

    Raises
    ------
    ModelError
        When nothing was decoded yet.
    """
    progress = progress or Progress(quiet=True)
    run = opened.run
    setting = opened.config.recipe.setting
    seed = opened.config.seed

    if not run.inputs(TEST):
        raise ModelError(f"{run.path} holds no decoded pictures. Run: phosphene decode {run.path}")

    with run.locked("evaluate"):
        fitted = [opened.recipe(fold) for fold in range(len(opened.folds))]
        readers = _Readers(_classifier(opened), _seen(opened), _candidates(opened, fitted[0]))
        scored: dict[str, Scores] = {}

        for name in progress.each(run.inputs(TEST), "scoring", unit="input"):
            if name == "brain":
                encoded = _encoded(opened)
            else:
                encoded = None

            decoded = _decoded(opened, name, readers)
            scored[name] = score(decoded, encoded, seed=seed)
            if opened.dataset.name == "nsd":  # its literature scores pixels at another size
                also = score_at_published_size(decoded, seed=seed)
                scored[name] = Scores(scored[name].scores + also.scores, scored[name].skipped + also.skipped)

        scores = pd.concat([s.table(TEST, name, setting) for name, s in scored.items()], ignore_index=True)
        controls = [name for name in scored if name in KNOWN_CONTROLS and name != "truth"]
        differences = [paired_differences(scored["brain"], scored[name], name, seed=seed) for name in controls]

        with progress.step("running the checks"):
            index = _index(opened)
            if differences:
                paired = pd.concat(differences)
            else:
                paired = None

            found = evidence(opened, fitted, index, _labels(opened, index), scores, paired)
            found = replace(found, n_features={s.extractor.name: s.features.shape[1] for s in readers.seen})
            answers = run_checks(found, waivers=waivers, seed=seed)

        verdicts = verdict_table(answers).assign(
            title=[CHECKS[a.id].title for a in answers], waiver=[a.waived_by for a in answers]
        )

        ledger.append(run.path, look_of(opened))  # before anybody can have seen a score
        _write_details(opened, scored, scores, verdicts, found, readers.texts)
        run.write_table(verdicts, "validity.csv")
        atomic.write_text(
            run.path / "validity.json", json.dumps({"verdicts": verdict_record(answers)}, indent=1) + "\n"
        )
        run.write_table(scores, "scores.csv")
        run.log("evaluated", scores=len(scores))

    return run


# -- what is scored ----------------------------------------------------------------------------------------------------


def _index(opened: Run, source: str = "brain") -> pd.DataFrame:
    return opened.run.table("decoded", TEST, source, "index.csv")


class _Readers(NamedTuple):
    """What reads pictures and latents, made once for all inputs."""

    classifier: _Foldwise | None
    seen: list[TrueFeatures]
    texts: dict[str, Candidates]


def _decoded(opened: Run, source: str, readers: _Readers) -> Decoded:
    index = _index(opened, source)
    pictures = opened.run.pixels(TEST, source)
    return Decoded(
        index["stimulus"].to_numpy(object),
        images=pictures,
        true_images=opened.run.pixels(TEST, SEEN),
        latents=_latents(opened, source),
        labels=_labels(opened, index),
        classifier=readers.classifier,
        feature_views=feature_views(readers.seen, pictures),
        texts=readers.texts,
    )


def _latents(opened: Run, source: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Decoded and true latents by space, of what was decoded from this input."""
    from safetensors.numpy import load_file

    file = opened.run.decoded(TEST, source) / "latents.safetensors"
    if file.is_file():
        arrays = load_file(file)
    else:
        arrays = {}

    return {k: (v, arrays[f"true.{k}"]) for k, v in arrays.items() if f"true.{k}" in arrays}


def _seen(opened: Run) -> list[TrueFeatures]:
    """What each network that knows such pictures sees in the true ones."""
    true = opened.run.pixels(TEST, SEEN)
    return [extract_features(eye, true) for eye in feature_extractors_for(opened.dataset.name)]


def _candidates(opened: Run, recipe: Recipe) -> dict[str, Candidates]:
    """Every category as text, in each space of latents that has a text side and in which folds may be scored together."""
    if opened.stimuli.category is None:
        return {}

    category = opened.stimuli.category
    trained = {c for fold in range(len(opened.folds)) for c in _training_categories(opened, fold)}
    probe = recipe.text_latents(["a"])

    if probe is None:
        spaces = []
    else:
        spaces = [space for space, array in probe.arrays.items() if np.ndim(array) == 2]

    if len(opened.folds) > 1:
        spaces = [space for space in spaces if space in recipe.fixed_spaces]

    one_fold = len(opened.folds) == 1 and bool(spaces)
    if one_fold:
        shown = recipe.true_latents(opened.stimuli.select(opened.sides(0)[0].stimulus_ids))
    else:
        shown = None

    return {
        space: replace(
            candidates_from(
                partial(_text_latents, recipe, space),
                sorted(set(category)),
                templates=templates_for(space),
                nouns=opened.dataset.nouns,
                trained=trained,
            ),
            centre=None if shown is None else shown[space].mean(axis=0, dtype=np.float64),
        )
        for space in spaces
    }


def _text_latents(recipe: Recipe, space: str, texts: Sequence[str]) -> np.ndarray:
    return recipe.text_latents(texts)[space]


def _training_categories(opened: Run, fold: int) -> np.ndarray:
    return opened.stimuli.select(opened.sides(fold)[0].stimulus_ids).category


def _labels(opened: Run, index: pd.DataFrame) -> np.ndarray | None:
    if opened.stimuli.category is None:
        return None

    return opened.stimuli.select(index["stimulus"]).category


class _Foldwise:
    """A classifier per fold, each asked only about the rows of its own fold."""

    def __init__(self, classifiers: list[PictureClassifier], folds: np.ndarray) -> None:
        self.classifiers = classifiers
        self.folds = folds

    def predict(self, pictures: np.ndarray) -> np.ndarray:
        out = np.empty(len(pictures), dtype=object)
        for fold, classifier in enumerate(self.classifiers):
            mine = self.folds == fold
            if mine.any():
                out[mine] = classifier.predict(pictures[mine])

        return out


def _training(opened: Run, fold: int) -> tuple[Trials, np.ndarray, np.ndarray]:
    """Training responses (repeats averaged) of a fold, the pictures at the size that is decoded, their categories."""
    train = opened.sides(fold)[0].average_repeats()
    shown = opened.stimuli.select(train.stimuli)
    return train, shown.resized(opened.run.pixels(TEST, SEEN).shape[1:3]), shown.category


def _classifier(opened: Run) -> _Foldwise | None:
    if opened.stimuli.category is None:
        return None

    fitted = []
    for fold in range(len(opened.folds)):
        _, pictures, category = _training(opened, fold)
        try:
            fitted.append(PictureClassifier().fit(pictures, category))
        except DataError:  # a single class, or too few pictures: there is nothing to classify
            return None

    return _Foldwise(fitted, _index(opened)["fold"].to_numpy())


def _encoded(opened: Run) -> Encoded | None:
    folder = opened.run.encoded(TEST)
    if not (folder / "predicted.npy").is_file():
        return None

    index = opened.run.table("encoded", TEST, "index.csv")
    return Encoded(
        index["stimulus"].to_numpy(object),
        np.load(folder / "predicted.npy", allow_pickle=False),
        np.load(folder / "measured.npy", allow_pickle=False),
        _ceiling(opened)[0],
    )


def _ceiling(opened: Run) -> tuple[np.ndarray | None, str]:
    """Noise ceiling of the averaged test responses, and how it is known."""
    tests = [opened.sides(fold)[1] for fold in range(len(opened.folds))]
    repeats = float(np.mean([len(t) / len(t.stimulus_ids) for t in tests]))
    single = opened.trials.noise_ceiling
    if single is not None:
        with np.errstate(divide="ignore"):
            return 1 / (
                1 + (1 / np.clip(single, 0, 1) - 1) / repeats
            ), "known for single trials, carried to the average"

    if repeats < 2:
        return None, "unknown: no test picture was shown twice"

    betas = np.concatenate([t.betas for t in tests])
    shown = np.concatenate([t.stimuli for t in tests]).astype(str)

    return noise_ceiling(
        betas, shown, n_averaged=round(repeats)
    ).variance, "estimated from the repeats of the test pictures"


# -- what is written ---------------------------------------------------------------------------------------------------


def _write_details(
    opened: Run,
    scored: Mapping[str, Scores],
    scores: pd.DataFrame,
    verdicts: pd.DataFrame,
    found: Evidence,
    texts: Mapping[str, Candidates],
) -> None:
    run = opened.run
    items = [
        pd.DataFrame({"input": name, "metric": s.metric, "stimulus": s.items, "value": s.per_item})
        for name, all_of in scored.items()
        for s in all_of.scores
        if metric_of(s.metric).items == "stimuli"
    ]

    skipped = [(name, s.metric, s.reason) for name, all_of in scored.items() for s in all_of.skipped]
    notes = [(name, s.metric, s.note) for name, all_of in scored.items() for s in all_of.scores if s.note]
    curve = [
        ("pixels", direction, r.size, 1, r.accuracy, r.chance)
        for direction in ("forward", "backward")
        for r in retrieval_curve(found.similarity, direction=direction)
    ]

    with atomic.folder(run.evaluation(TEST)) as folder:
        tables = RunFolder(folder)
        tables.write_table(pd.concat(items, ignore_index=True), "per_item.csv")
        tables.write_table(pd.DataFrame(skipped, columns=["input", "metric", "reason"]), "skipped.csv")
        tables.write_table(pd.DataFrame(notes, columns=["input", "metric", "note"]), "notes.csv")
        columns = ["space", "direction", "gallery", "top", "value", "chance"]
        tables.write_table(pd.DataFrame(curve, columns=columns), "retrieval.csv")

        if found.differences is not None:
            tables.write_table(found.differences, "differences.csv")

        write_findings(opened, found, tables)
        if len(found.similarity) <= LARGEST_MATRIX:
            np.save(folder / "similarity.pixels.npy", found.similarity.astype(np.float32), allow_pickle=False)

        named = _zero_shot_tables(opened, texts)
        if named is not None:
            tables.write_table(named, "zero_shot.csv")

        voxels = _voxels(opened)
        if voxels is not None:
            tables.write_table(voxels, "voxels.csv")

        tables.write_table(_published(opened, scores, found), "published.csv")
        sentences = conclude(scores, verdicts, found.differences)
        atomic.write_text(folder / "conclusions.txt", "".join(f"{s}\n" for s in sentences))


def _zero_shot_tables(opened: Run, texts: Mapping[str, Candidates]) -> pd.DataFrame | None:
    """How often each category was called what, in each space with texts: space, true, said, n; None without any."""
    labels = _labels(opened, _index(opened))
    found = []

    for space, (decoded, _) in _latents(opened, "brain").items():
        if space in texts:
            table = confusion(texts[space].among(labels), decoded, labels)
            found.append(table.assign(space=space)[["space", "true", "said", "n"]])

    if found:
        return pd.concat(found, ignore_index=True)

    return None


def _voxels(opened: Run) -> pd.DataFrame | None:
    """The voxel table with encoding accuracy beside it, or None when nothing was encoded."""
    encoded = _encoded(opened)
    if encoded is None:
        return None

    table = opened.run.table("encoded", TEST, "voxels.csv")
    if len(table) != encoded.measured.shape[1]:
        table = pd.DataFrame(index=range(encoded.measured.shape[1]))

    r = pearson_per_voxel(encoded.predicted, encoded.measured)
    table["pearson"] = r
    table["r2"] = r2_per_voxel(encoded.predicted, encoded.measured)
    table["q_fdr"] = fdr(pearson_p(r, len(encoded.ids)))

    if encoded.ceiling is not None:
        table["ceiling"] = encoded.ceiling
        table["fraction_of_ceiling"] = fraction_of_ceiling(r, np.sqrt(encoded.ceiling)).ratio

    return table


def _published(opened: Run, scores: pd.DataFrame, found: Evidence) -> pd.DataFrame:
    columns = ["method", "compared_with", "value", "comparable", "difference", "source", "table", "note"]
    if opened.dataset.name not in set(published_rows()["dataset"]):
        return pd.DataFrame(columns=columns).rename(columns={"compared_with": "metric"})

    split = opened.config.split or opened.folds[0].name
    brain = scores[scores["input"] == "brain"]
    test = opened.sides(0)[1]

    if "n_repeats" in test.table:
        shown = test.table["n_repeats"].sum()
    else:
        shown = len(test)

    repeats = shown / len(test.stimulus_ids)
    matched = matching(
        opened.dataset.name,
        split,
        metrics=list(brain["metric"]),
        test_images=len(_index(opened)),
        repeats_averaged=int(repeats) if repeats == int(repeats) else "all",
        subjects=str(opened.trials.subject),
        setting=opened.config.recipe.setting,
    )

    matched["difference"] = [
        "; ".join(filter(None, [was, *_other_metric(metric, brain, found)]))
        for was, metric in zip(matched["difference"], matched["compared_with"], strict=True)
    ]

    matched["comparable"] = matched["difference"] == ""
    return matched[columns].rename(columns={"compared_with": "metric"})


def _other_metric(metric: str, brain: pd.DataFrame, found: Evidence) -> list[str]:
    """Why a score of this name is another quantity than the published one: checks M10 and M11."""
    reasons = [
        f"{name} no longer gives its golden value (check M10)"
        for name in (changed(found.golden) if found.golden is not None else {})
        if kind_of(name) == kind_of(metric)
    ][:1]

    if kind_of(metric) == "fid":
        n = brain.loc[brain["metric"] == metric, "n"]
        if len(n):
            why = why_not_comparable(float(n.iloc[0]), found.n_features.get(extractor_name(space_of(metric))))
        else:
            why = ""

        if why:
            reasons += [f"an FID of few is mostly bias ({why}; check M11)"]
        else:
            reasons += []

    return reasons
