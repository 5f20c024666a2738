"""Evidence: everything the checks of an evaluation may ask for, gathered from a run and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from phosphene.data.splits import CLUSTER
from phosphene.errors import PhospheneError
from phosphene.flow.decoding_targets import draws_at_random, other_kind, targets_of
from phosphene.flow.redecoding import redecoding_of
from phosphene.flow.sibling_runs import same_recipe, sibling_runs
from phosphene.io import ledger, looks
from phosphene.io.run_folder import SEEN, RunFolder, read_json
from phosphene.metrics.golden import golden_values
from phosphene.metrics.identification import similarity
from phosphene.recipes.base import Recipe
from phosphene.recipes.corpora import GENERATORS, PICTURES, corpora_of
from phosphene.reporting.near_copies import MAX_PAIRS, near_copy_sheet
from phosphene.run import TEST, Run
from phosphene.types import Stimuli, Trials, at_size, digest_of
from phosphene.validity import (
    CycleEvidence,
    Evidence,
    Lineage,
    Samples,
    bottleneck_curve,
    curve_target,
    near_pairs,
    nearest_in_training,
    picture_digests,
)
from phosphene.validity.picture_features import likeness_of

_MOST_VOXELS = 500  # by which a session is read off responses

# Streams of random numbers of the run's seed, one for each use.
_LIKENESS_STREAM = 11
_VOXEL_STREAM = 12
_FINDINGS_STREAM = 13


def evidence(
    opened: Run,
    fitted: Sequence[Recipe],
    index: pd.DataFrame,
    labels: np.ndarray | None,
    scores: pd.DataFrame,
    differences: pd.DataFrame | None,
    *,
    look: ledger.LedgerEntry,
    n_planned: int = 0,
) -> Evidence:
    """What the checks are given.

    Parameters
    ----------
    opened : Run
        a run
    fitted : sequence of Recipe
        the recipe of each fold
    index : DataFrame
        of the decoded pictures
    labels : ndarray or None
        category of each decoded picture
    scores : DataFrame
        as they will be written
    differences : DataFrame or None
        as they will be written
    look : LedgerEntry
        this evaluation, see `look_of`
    n_planned : int, default 0
        other configurations of a sweep that look at this test set

    Returns
    -------
    Evidence
        everything but ``n_features``, which whoever scored the pictures knows
    """
    run = opened.folder
    stimuli = opened.stimuli
    seen = run.pixels(TEST, SEEN)  # (n, h, w, c)
    decoded = scored_pictures(opened, "brain")  # (n, h, w, c)

    return Evidence(
        digests=dict(zip(stimuli.ids, stimuli.pixel_digests(), strict=True)),
        test_labels=labels,
        similarity=similarity(decoded.reshape(len(decoded), -1), seen.reshape(len(seen), -1)),
        test_ids=index["stimulus"].to_numpy(object),
        scores=scores,
        differences=differences,
        **_of_fits(opened, fitted),
        **_of_stimuli(opened),
        **_of_trials(opened),
        **_of_looks(opened, look, n_planned),
        **_of_sibling_runs(opened, look),
        redecoding=redecoding_of(opened, fitted, index),
        samples=_samples(opened, decoded, seen, is_chosen=fitted[0].chooses_sample),
        cycles=_cycles(opened, fitted),
        generators=_generators(fitted),
        corpora=corpora_of(opened.dataset.name, dict(opened.dataset.about)),
        targets=targets_of(opened, fitted, index, labels),
        is_random=draws_at_random(fitted[0]),
        other_kind=other_kind(opened),
        golden=golden_now(),
    )


@lru_cache(maxsize=1)
def golden_now() -> Mapping[str, float]:
    """Once for each process: the metrics stay what they are while it runs."""
    return golden_values()


# -- what was fitted ---------------------------------------------------------------------------------------------------


def _of_fits(opened: Run, fitted: Sequence[Recipe]) -> dict[str, Any]:
    """What every stage of every fold was fitted on, and what was chosen by it."""
    splits = []
    lineages = []
    inner = {}
    monitored = {}
    voxels = []
    sides = _sides(opened)
    asked = opened.config.split
    by_trial = opened.folds[0].unit == "trial" and asked is not None and asked not in opened.dataset.splits

    for fold, recipe in enumerate(fitted):
        train, test = sides[fold]
        splits.append((train.stimulus_ids, test.stimulus_ids))
        unpaired = {stage.name for stage in recipe.stages if stage.learns_unpaired}

        for stage, keys in recipe.stage_lineages_.items():
            name = f"{stage}, fold {fold + 1}"
            lineages.append(Lineage(name, keys, test.keys, sees=_sees(stage not in unpaired)))
            if not by_trial:
                shown = recipe.picture_lineages_.get(stage)
                lineages.append(
                    Lineage(name, shown, [str(stimulus) for stimulus in test.stimulus_ids], sees="pictures")
                )

            # A training that chose its best step chose it by validation stimuli, which must not be test stimuli.
            part = getattr(recipe, f"{stage}_", None)
            if getattr(part, "chosen_", None):
                watched = keys
                if by_trial:
                    watched = keys & frozenset(test.keys)

                monitored[f"a step of {stage} in fold {fold + 1}"] = (fold, _shown_to(opened, watched))

        folds = recipe.inner_folds(train)
        if folds is not None:
            inner[f"fold {fold + 1}"] = _inner_splits(train, folds)

        weights = recipe.voxel_weights()
        if weights is not None and (np.asarray(weights) == 0).any():
            # What stages saw of the test set in setting relax came without its pictures.
            paired: set[str] = set()
            for stage, keys in recipe.stage_lineages_.items():
                if stage not in unpaired:
                    paired.update(keys)

            sees = _sees(bool(paired & set(test.keys)))
            voxels.append(Lineage(f"voxels the recipe uses, fold {fold + 1}", recipe.lineage_, test.keys, sees=sees))

    return {
        "splits": splits,
        "by_trial": by_trial,
        "lineages": lineages,
        "inner_folds": inner or None,
        "monitored": monitored,
        "voxel_choices": _voxels_of_the_data(opened) + voxels,
        "anchors": _anchors(opened, fitted),
        "setting": opened.config.recipe.setting,
    }


def _sees(is_paired: bool) -> Literal["brain", "brain and pictures"]:
    if is_paired:
        return "brain and pictures"

    return "brain"


def _inner_splits(train: Trials, folds: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stimulus ids fitted on and held out, for each fold inside the training side. Folds are (n_trials,) numbers."""
    stimuli = train.stimuli.astype(str)
    return [(stimuli[folds != fold], stimuli[folds == fold]) for fold in np.unique(folds)]


def _voxels_of_the_data(opened: Run) -> list[Lineage]:
    """Choices of voxels made before any recipe: regions, masks, and the screening of NaN."""
    trials = opened.trials
    data = opened.config.data
    lineages = []
    tested: set[str] = set()
    for _, test in _sides(opened):
        tested.update(test.keys)

    is_published = opened.dataset.name.split("-")[0] in PICTURES
    origin = data.mask_from or str(opened.dataset.about.get("mask_from", ""))
    if origin:
        lineages.append(Lineage(f"voxels by {origin}, as was recorded", (), tested))
    elif not is_published:
        lineages.append(Lineage("the voxels of the data set (say where they come from with --mask-from)", None, tested))

    if data.roi:
        # Regions of published data come from localisers, anatomy and retinotopy: scans of their own. Those of other data
        # come from nobody knows where, which is another answer than "from no trial".
        if is_published:
            fitted_on = ()
        else:
            fitted_on = None

        lineages.append(Lineage(f"region {data.roi}", fitted_on, tested))

    region = f"{data.roi or ''} {trials.provenance.get('mask', '')}"
    if "nsdgeneral" in region:
        # Drawn where responses to the whole experiment were reliable, the shared pictures included.
        lineages.append(Lineage("nsdgeneral", trials.member_keys(), tested, sees="brain"))

    if "dropped voxels" in trials.provenance:
        lineages.append(Lineage("leaving out voxels with NaN", trials.member_keys(), tested, sees="brain"))

    return lineages


def _shown_to(opened: Run, keys: frozenset[str]) -> list[str]:
    """Stimulus of each of this person's trials among `keys`."""
    return _stimuli_of(opened.trials, keys)


def _stimuli_of(trials: Trials, keys: frozenset[str]) -> list[str]:
    stimuli = []
    for stimulus, key in zip(trials.stimuli, trials.keys, strict=True):
        if key in keys:
            stimuli.append(str(stimulus))

    return stimuli


def _anchors(opened: Run, fitted: Sequence[Recipe]) -> dict[str, list[str]] | None:
    """Stimuli whose responses of other people entered a fit, by person; None where nobody else took part."""
    keys = frozenset().union(*(recipe.lineage_ for recipe in fitted))
    others = {key.rsplit("/", 1)[0] for key in keys} - {opened.trials.subject}  # a key is SUBJECT/TRIAL

    anchors = {}
    for name in sorted(others):
        if name in opened.dataset.subjects:
            anchors[f"responses of {name}"] = _stimuli_of(opened.dataset.trials(name), keys)

    return anchors or None


def _generators(fitted: Sequence[Recipe]) -> dict[str, Sequence[str] | None]:
    """Corpora that each pretrained generator was trained on; None where nobody knows."""
    corpora = {}
    for recipe in fitted:
        for name in recipe.generators():
            corpora[name] = GENERATORS.get(name)

    return corpora


# -- what was decoded --------------------------------------------------------------------------------------------------


def scored_pictures(opened: Run, source: str) -> np.ndarray:
    """Pictures of one input at the size at which all runs of the data set are scored.

    Parameters
    ----------
    opened : Run
        a run
    source : str
        an input, such as ``brain``

    Returns
    -------
    ndarray of shape (n, height, width, channels), float32
        0-1
    """
    return at_size(opened.folder.pixels(TEST, source), opened.folder.pixels(TEST, SEEN).shape[1:3])


def _samples(opened: Run, decoded: np.ndarray, seen: np.ndarray, *, is_chosen: bool) -> Samples:
    file = opened.folder.decoded(TEST, "brain") / "samples.npy"
    if not file.is_file():
        return Samples(decoded[:, None], decoded, seen, is_chosen)

    samples = np.load(file, mmap_mode="r", allow_pickle=False)  # (n, n_samples, h, w, c) as decoded
    if samples.shape[2:4] != seen.shape[1:3]:
        decoded = opened.folder.pixels(TEST, "brain")
        seen = at_size(np.asarray(seen), samples.shape[2:4])

    return Samples(samples, decoded, seen, is_chosen)


def _cycles(opened: Run, fitted: Sequence[Recipe]) -> list[CycleEvidence] | None:
    """The analysis of the cycle, where it was made, and whether its readers are told that it goes in a circle."""
    file = opened.folder.path / "analysis" / "cycle" / "analysis.json"
    if not file.is_file():
        return None

    try:
        record = read_json(file)
    except PhospheneError:  # a damaged record tells nobody anything
        record = {"facts": {}}

    # Earlier versions kept no facts, but this analysis has always opened with the sentence that it is circular.
    facts = record.get("facts", {"is_circular": True})
    is_marked = bool(facts.get("is_circular"))
    cycles = []

    for fold, recipe in enumerate(fitted):
        stimuli = _shown_to(opened, recipe.lineage_)
        cycles.append(CycleEvidence(f"analysis cycle, fold {fold + 1}", stimuli, stimuli, is_marked))

    return cycles


# -- stimuli and trials ------------------------------------------------------------------------------------------------


def _of_stimuli(opened: Run) -> dict[str, Any]:
    """How alike the pictures of both sides are."""
    ids: dict[Any, None] = {}  # a set in the order of first sight
    tested: set[str] = set()

    for train, test in _sides(opened):
        ids.update(dict.fromkeys(train.stimulus_ids))
        ids.update(dict.fromkeys(test.stimulus_ids))
        tested.update(str(stimulus) for stimulus in test.stimulus_ids)

    stimuli = opened.stimuli.select(list(ids))
    is_tested = np.asarray([str(stimulus) in tested for stimulus in stimuli.ids])
    rng = np.random.default_rng([opened.config.seed, _LIKENESS_STREAM])

    return {"likeness": likeness_of(opened.dataset.name, stimuli, is_tested, rng)}


def _sides(opened: Run) -> list[tuple[Trials, Trials]]:
    """Which trials train and test, by fold: as `Run.sides`, but nothing is imputed, so no response is read."""
    ids = opened.stimuli.ids.astype(str)  # of pictures that are there
    sides = []

    for split in opened.folds:
        train, test = split.apply(opened.trials)
        train = train.take(np.isin(train.stimuli.astype(str), ids))
        test = test.take(np.isin(test.stimuli.astype(str), ids))
        sides.append((train, test))

    return sides


def _of_trials(opened: Run) -> dict[str, Any]:
    """The trials that take part, which of them train and test, and their responses in some of the voxels."""
    trials = opened.trials
    row_of = {key: row for row, key in enumerate(trials.keys)}
    sides = []

    for train, test in _sides(opened):
        train_rows = np.asarray([row_of[key] for key in train.keys], dtype=np.intp)
        test_rows = np.asarray([row_of[key] for key in test.keys], dtype=np.intp)
        sides.append((train_rows, test_rows))

    used = np.unique(np.concatenate([rows for pair in sides for rows in pair]))
    place = np.full(len(trials), -1)  # of a trial among those used
    place[used] = np.arange(len(used))
    some = trials.take(used)

    # A session shows in any few hundred voxels, so the others are never read.
    if some.n_voxels > _MOST_VOXELS:
        rng = np.random.default_rng([opened.config.seed, _VOXEL_STREAM])
        voxels = rng.permutation(some.n_voxels)[:_MOST_VOXELS]
        sample = some.take_voxels(np.sort(voxels), "a sample")
    else:
        sample = some

    return {
        "trials": some.table[["stimulus", "session", "run"]],
        "sides": [(place[train], place[test]) for train, test in sides],
        "responses": sample.betas,
        "left_out": _left_out(opened, used),
    }


def _left_out(opened: Run, used: np.ndarray) -> dict[str, int]:
    """Number of trials that take no part, by reason."""
    recorded = opened.dataset.trials(opened.config.data.subject)
    usable = opened.trials
    has_picture = np.isin(usable.stimuli.astype(str), opened.stimuli.ids.astype(str))  # (n_trials,)
    is_unused = np.ones(len(usable), bool)
    is_unused[used] = False

    return {
        "for values that are not finite": len(recorded) - len(usable),
        "whose picture is missing": int((~has_picture).sum()),
        "on neither side of the split": int((is_unused & has_picture).sum()),
    }


# -- other runs --------------------------------------------------------------------------------------------------------


def look_of(opened: Run, identity: Mapping[str, str], sweep: str = "") -> ledger.LedgerEntry:
    """This evaluation, as the ledger keeps it.

    Parameters
    ----------
    opened : Run
        a run of which something was decoded
    identity : mapping of str to str
        what was opened, of `Run.verify`
    sweep : str, default ""
        digest of the sweep that the run is part of

    Returns
    -------
    LedgerEntry
        digests of data, split, configuration and of what is shown, and the name of the split
    """
    folder = opened.folder
    outputs = [np.asarray(folder.pixels(TEST, "brain"))]
    predicted = folder.encoded(TEST) / "predicted.npy"
    if predicted.is_file():
        outputs.append(np.load(predicted, allow_pickle=False))

    seen = folder.pixels(TEST, SEEN)
    return ledger.LedgerEntry(
        identity["data_digest"],
        identity["split_digest"],
        identity["config_digest"],
        str(opened.config.split or opened.folds[0].name),
        shown=digest_of(identity["test_digest"], *outputs),
        pictures=looks.sketch_of(picture_digests(seen)),
        sweep=sweep,
    )


def memories_of(opened: Run) -> list[Path]:
    """Files in which looks at this run's test set are remembered: the user's, and one beside the data.

    Parameters
    ----------
    opened : Run
        a run

    Returns
    -------
    list of Path
        which need not exist
    """
    data = opened.config.data
    place = None
    if data.root is not None:
        place = Path(data.root)
    elif Path(data.name).is_absolute():
        place = Path(data.name)

    return looks.memories(place)


def _holds_out_clusters(split: Mapping[str, Any]) -> bool:
    """Whether a split, as a manifest records it, holds out whole clusters."""
    if "held_out" in split:
        return split["held_out"] == "clusters"

    # Manifests of earlier versions: the argument that made the split is all there is.
    return str(split.get("name", "")).startswith(CLUSTER)


def _of_looks(opened: Run, look: ledger.LedgerEntry, n_planned: int) -> dict[str, Any]:
    """Earlier looks at the test set: in this run, in runs beside it, and those that are remembered elsewhere.

    The same outputs seen twice are one look. In a sweep the looks of its other runs are counted by its plan, so that the
    answer is the same in whichever order the runs are made.
    """
    own = ledger.read(opened.folder.path)
    earlier = tuple(entry for entry in own.looks if not _is_same_look(entry, look))
    known = {entry.shown for entry in earlier if entry.shown}
    elsewhere: dict[str, ledger.LedgerEntry] = {}

    for sibling in sibling_runs(opened.folder):
        for other in sibling.ledger.looks:
            if other.split == look.split and other.data == look.data and other.config != look.config:
                elsewhere[other.shown or f"{sibling.folder.path} {other.time} {other.before}"] = other

    for other in looks.remembered(look.pictures, memories_of(opened)):
        if other.config != look.config or other.data != look.data:
            elsewhere.setdefault(other.shown, other)

    n_elsewhere = 0
    for shown, other in elsewhere.items():
        is_in_plan = bool(look.sweep) and other.sweep == look.sweep
        if shown not in known and not _is_same_look(other, look) and not is_in_plan:
            n_elsewhere += 1

    return {
        "ledger": replace(own, looks=earlier),
        "looks_beside": n_elsewhere,
        "looks_planned": n_planned,
        "config": look.config,
    }


def _is_same_look(a: ledger.LedgerEntry, b: ledger.LedgerEntry) -> bool:
    return bool(a.shown) and a.shown == b.shown


def _of_sibling_runs(opened: Run, look: ledger.LedgerEntry) -> dict[str, Any]:
    """Scores that the same recipe has under other splits and in the other setting, in runs beside this one."""
    recipe = opened.config.recipe.model_dump(mode="json")

    if all(split.held_out == "clusters" for split in opened.folds):
        held_out = "clusters of pictures"
    elif all(split.category_disjoint for split in opened.folds):
        held_out = "categories"
    else:
        held_out = ""

    usual = None
    strict = None

    for sibling in sibling_runs(opened.folder):
        # The same recipe where test stimuli have near relatives in training: how much of the score they explain.
        split = sibling.manifest.get("split") or {}
        if held_out and usual is None and same_recipe(recipe, sibling.recipe):
            holds_out_groups = _holds_out_clusters(split) or split.get("category_disjoint")
            if not holds_out_groups:
                usual = sibling.scores

        # The same recipe without a look at test responses: what the relaxed setting is worth.
        if (
            opened.config.recipe.setting == "relax"
            and strict is None
            and sibling.recipe.get("setting") == "strict"
            and sibling.manifest.get("split_digest") == look.split
            and same_recipe(recipe, sibling.recipe, but=("setting",))
        ):
            strict = sibling.scores

    return {
        "held_out": held_out,
        "usual_scores": usual,
        "strict_scores": strict,
    }


# -- what is written beside the verdicts -------------------------------------------------------------------------------


def write_findings(stimuli: Stimuli, seed: int, gathered: Evidence, tables: RunFolder) -> None:
    """Write what checks S2, S3 and B5 found, item by item.

    - near_duplicates.csv and .png: pairs that S2 found
    - nearest.csv: test picture, nearest in training, cosine
    - bottleneck.csv: dimensions, two_way

    Parameters
    ----------
    stimuli : Stimuli
        training and test, with their pictures
    seed : int
        of the run
    gathered : Evidence
        of its evaluation
    tables : RunFolder
        the folder written to
    """
    rng = np.random.default_rng([seed, _FINDINGS_STREAM])
    pairs = near_pairs(gathered, rng)
    tables.write_table(pairs, "near_duplicates.csv")
    tables.write_table(nearest_in_training(gathered), "nearest.csv")

    target = curve_target(gathered)
    if target is not None:
        tables.write_table(bottleneck_curve(target).assign(space=target.space), "bottleneck.csv")

    if len(pairs):
        test = _thumbnail_pictures(stimuli, list(pairs["test"]))
        train = _thumbnail_pictures(stimuli, list(pairs["train"]))
        near_copy_sheet(test, train).save(tables.path / "near_duplicates.png")


def _thumbnail_pictures(stimuli: Stimuli, ids: Sequence[str]) -> np.ndarray:
    """(n, h, w, c) uint8 pictures of the pairs that are drawn. A picture can be in several pairs, but stimuli are unique."""
    drawn = ids[:MAX_PAIRS]
    unique = list(dict.fromkeys(drawn))
    rows = [unique.index(stimulus) for stimulus in drawn]
    return stimuli.select(unique).pixels()[rows]
