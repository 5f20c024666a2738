"""Evidence: everything the checks of an evaluation may ask for, gathered from a run and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.splits import CLUSTER
from phosphene.errors import PhospheneError
from phosphene.flow.decoding_targets import draws_at_random, other_kind, targets_of
from phosphene.flow.sibling_runs import same_recipe, sibling_runs
from phosphene.io import ledger
from phosphene.io.folder import SEEN, RunFolder, read_json
from phosphene.metrics.golden import golden_values
from phosphene.metrics.identification import similarity
from phosphene.recipes.base import Recipe
from phosphene.recipes.corpora import GENERATORS, PICTURES, corpora_of
from phosphene.reporting.near_copies import MAX_PAIRS, near_copy_sheet
from phosphene.run import TEST, Run
from phosphene.types import Trials
from phosphene.validity import (
    CycleEvidence,
    Evidence,
    Lineage,
    Samples,
    bottleneck_curve,
    curve_target,
    near_pairs,
    nearest_in_training,
)
from phosphene.validity.picture_features import likeness_of

_MOST_VOXELS = 500  # by which a session is read off responses


def evidence(
    opened: Run,
    fitted: Sequence[Recipe],
    index: pd.DataFrame,
    labels: np.ndarray | None,
    scores: pd.DataFrame,
    differences: pd.DataFrame | None,
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
    """
    run = opened.folder
    stimuli = opened.stimuli
    seen = run.pixels(TEST, SEEN)
    decoded = run.pixels(TEST, "brain")

    return Evidence(
        digests=dict(zip(stimuli.ids, stimuli.pixel_digests(), strict=True)),
        test_labels=labels,
        similarity=similarity(decoded.reshape(len(decoded), -1), seen.reshape(len(seen), -1)),
        test_ids=index["stimulus"].to_numpy(object),
        scores=scores,
        differences=differences,
        **_of_fits(opened, fitted),
        **_of_decoding(opened, fitted[0]),
        **_of_stimuli(opened),
        **_of_trials(opened),
        **_of_runs_beside(opened),
        samples=_samples(run, decoded, seen),
        cycles=_cycles(opened, fitted),
        generators=_generators(fitted),
        corpora=corpora_of(opened.dataset.name, dict(opened.dataset.about)),
        targets=targets_of(opened, fitted, index, labels),
        is_random=draws_at_random(fitted[0]),
        other_kind=other_kind(opened),
        golden=_golden(),
    )


@lru_cache(maxsize=1)
def _golden() -> Mapping[str, float]:
    """Once for each process: the metrics stay what they are while it runs."""
    return golden_values()


# -- what was fitted ---------------------------------------------------------------------------------------------------


def _of_fits(opened: Run, fitted: Sequence[Recipe]) -> dict[str, Any]:
    splits = []
    lineages = []
    inner = {}
    monitored = {}
    voxels = []
    sides = _sides(opened)

    for fold, recipe in enumerate(fitted):
        train, test = sides[fold]
        splits.append((train.stimulus_ids, test.stimulus_ids))

        unpaired = {stage.name for stage in recipe.stages if stage.learns_unpaired}
        for stage, seen in recipe.stage_lineages_.items():
            if stage in unpaired:
                what = "brain"
            else:
                what = "brain and pictures"

            lineages.append(Lineage(f"{stage}, fold {fold + 1}", seen, test.keys, sees=what))
            if getattr(getattr(recipe, f"{stage}_", None), "chosen_", None):
                monitored[f"a step of {stage} in fold {fold + 1}"] = (fold, _shown_to(opened, seen))

        folds = recipe.inner_folds(train)
        if folds is not None:
            inner[f"fold {fold + 1}"] = [
                (train.stimuli[folds != f].astype(str), train.stimuli[folds == f].astype(str)) for f in np.unique(folds)
            ]

        weights = recipe.voxel_weights()
        if weights is not None and (np.asarray(weights) == 0).any():
            # What stages saw of the test set in setting relax came without its pictures.
            paired = frozenset().union(
                *(seen for stage, seen in recipe.stage_lineages_.items() if stage not in unpaired)
            )

            if paired & set(test.keys):
                sees = "brain and pictures"
            else:
                sees = "brain"

            voxels.append(Lineage(f"voxels the recipe uses, fold {fold + 1}", recipe.lineage_, test.keys, sees=sees))

    return {
        "splits": splits,
        "lineages": lineages,
        "inner_folds": inner or None,
        "monitored": monitored,
        "voxel_choices": _voxels_of_the_data(opened) + voxels,
        "anchors": _anchors(opened, fitted),
        "setting": opened.config.recipe.setting,
    }


def _voxels_of_the_data(opened: Run) -> list[Lineage]:
    """Choices of voxels made before any recipe: regions, masks, and the screening of NaN."""
    trials = opened.trials
    data = opened.config.data
    tested = frozenset().union(*(test.keys for _, test in _sides(opened)))

    # Regions of published data come from localisers, anatomy and retinotopy: scans of their own.
    is_published = opened.dataset.name.split("-")[0] in PICTURES
    out = []
    if data.roi:
        out.append(Lineage(f"region {data.roi}", () if is_published else None, tested))

    region = f"{data.roi or ''} {trials.provenance.get('mask', '')}"
    if "nsdgeneral" in region:
        # Drawn where responses to the whole experiment were reliable, the shared pictures included.
        out.append(Lineage("nsdgeneral", trials.member_keys(), tested, sees="brain"))

    if "dropped voxels" in trials.provenance:
        out.append(Lineage("leaving out voxels with NaN", trials.member_keys(), tested, sees="brain"))

    return out


def _shown_to(opened: Run, keys: frozenset[str]) -> list[str]:
    trials = opened.trials
    return [str(s) for s, key in zip(trials.stimuli, trials.keys, strict=True) if key in keys]


def _anchors(opened: Run, fitted: Sequence[Recipe]) -> dict[str, list[str]] | None:
    """Stimuli whose responses of other people entered a fit, by person; None where nobody else took part."""
    keys = frozenset().union(*(r.lineage_ for r in fitted))
    names = {k.rsplit("/", 1)[0] for k in keys} - {opened.trials.subject}
    if not names:
        return None

    out = {}
    for name in sorted(names):
        if name in opened.dataset.subjects:
            other = opened.dataset.trials(name)
            out[f"responses of {name}"] = [str(s) for s, k in zip(other.stimuli, other.keys, strict=True) if k in keys]

    return out or None


def _generators(fitted: Sequence[Recipe]) -> dict[str, Sequence[str] | None]:
    return {name: GENERATORS.get(name) for recipe in fitted for name in recipe.generators()}


# -- what was decoded --------------------------------------------------------------------------------------------------


def _of_decoding(opened: Run, first: Recipe) -> dict[str, Any]:
    test = opened.sides(0)[1].average_repeats()

    def predict(betas: np.ndarray) -> np.ndarray:
        # Rows change places in this check, so all are given the session of the first, and its name: a generator's noise
        # is a function of the name.
        table = pd.DataFrame({"stimulus": [str(test.stimuli[0])] * len(betas), "session": test.table["session"][0]})
        return first.decode(Trials(betas, table, test.voxels, test.subject)).pixels

    return {"predict": predict, "test_betas": test.betas[:40]}


def _samples(run: RunFolder, decoded: np.ndarray, seen: np.ndarray) -> Samples:
    file = run.decoded(TEST, "brain") / "samples.npy"
    if file.is_file():
        drawn = np.load(file, mmap_mode="r", allow_pickle=False)
    else:
        drawn = decoded[:, None]

    return Samples(drawn, decoded, seen)


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
    sides = _sides(opened)
    tested = {str(i) for _, test in sides for i in test.stimulus_ids}
    stimuli = opened.stimuli.select(list(dict.fromkeys(i for pair in sides for t in pair for i in t.stimulus_ids)))
    is_tested = np.asarray([str(i) in tested for i in stimuli.ids])
    rng = np.random.default_rng([opened.config.seed, 11])

    return {"likeness": likeness_of(opened.dataset.name, stimuli, is_tested, rng)}


def _sides(opened: Run) -> list[tuple[Trials, Trials]]:
    """Which trials train and test, by fold: as `Run.sides`, but nothing is imputed, so no response is read."""
    there = opened.stimuli.ids.astype(str)
    pairs = (split.apply(opened.trials) for split in opened.folds)
    return [tuple(t.take(np.isin(t.stimuli.astype(str), there)) for t in pair) for pair in pairs]


def _of_trials(opened: Run) -> dict[str, Any]:
    trials = opened.trials
    row = {key: n for n, key in enumerate(trials.keys)}
    sides = [tuple(np.asarray([row[k] for k in t.keys], dtype=np.intp) for t in pair) for pair in _sides(opened)]
    used = np.unique(np.concatenate([rows for pair in sides for rows in pair]))
    place = np.full(len(trials), -1)
    place[used] = np.arange(len(used))
    some = trials.take(used)

    if some.n_voxels > _MOST_VOXELS:
        chosen = np.random.default_rng([opened.config.seed, 12]).permutation(some.n_voxels)[:_MOST_VOXELS]
        few = some.take_voxels(np.sort(chosen), "a sample")
    else:
        few = some

    return {
        "trials": some.table[["stimulus", "session", "run"]],
        "sides": [(place[train], place[test]) for train, test in sides],
        "responses": few.betas,
        "left_out": _left_out(opened, used),
    }


def _left_out(opened: Run, used: np.ndarray) -> dict[str, int]:
    every = opened.dataset.trials(opened.config.data.subject)
    usable = opened.trials
    there = np.isin(usable.stimuli.astype(str), opened.stimuli.ids.astype(str))
    rest = np.ones(len(usable), bool)
    rest[used] = False

    return {
        "for values that are not finite": len(every) - len(usable),
        "whose picture is missing": int((~there).sum()),
        "on neither side of the split": int((rest & there).sum()),
    }


# -- other runs --------------------------------------------------------------------------------------------------------


def look_of(opened: Run) -> ledger.LedgerEntry:
    """This evaluation, as the ledger keeps it."""
    manifest = opened.folder.manifest
    values = [str(manifest.get(k, "")) for k in ("data_digest", "split_digest", "config_digest")]
    return ledger.LedgerEntry(values[0], values[1], values[2], str(opened.config.split or opened.folds[0].name))


def _holds_out_clusters(split: Mapping[str, Any]) -> bool:
    """Whether a split, as a manifest records it, holds out whole clusters."""
    if "held_out" in split:
        return split["held_out"] == "clusters"

    # Manifests of earlier versions: the argument that made the split is all there is.
    return str(split.get("name", "")).startswith(CLUSTER)


def _of_runs_beside(opened: Run) -> dict[str, Any]:
    mine = look_of(opened)
    ours = opened.config.recipe.model_dump(mode="json")
    held_out = ""

    if all(s.held_out == "clusters" for s in opened.folds):
        held_out = "clusters of pictures"
    elif all(s.category_disjoint for s in opened.folds):
        held_out = "categories"

    looks = 0
    usual = None
    strict = None

    for other in sibling_runs(opened.folder):
        looks += sum(
            x.split == mine.split and x.data == mine.data and x.config != mine.config for x in other.ledger.looks
        )

        split = other.manifest.get("split") or {}
        if held_out and usual is None and same_recipe(ours, other.recipe):
            holds_out_groups = _holds_out_clusters(split) or split.get("category_disjoint")
            if not holds_out_groups:
                usual = other.scores

        if (
            opened.config.recipe.setting == "relax"
            and strict is None
            and other.recipe.get("setting") == "strict"
            and other.manifest.get("split_digest") == mine.split
            and same_recipe(ours, other.recipe, but=("setting",))
        ):
            strict = other.scores

    return {
        "ledger": ledger.read(opened.folder.path),
        "looks_beside": looks,
        "config": mine.config,
        "held_out": held_out,
        "usual_scores": usual,
        "strict_scores": strict,
    }


# -- what is written beside the verdicts -------------------------------------------------------------------------------


def write_findings(opened: Run, found: Evidence, tables: RunFolder) -> None:
    """near_duplicates.csv and .png (pairs that S2 found), nearest.csv (test picture, nearest in training, cosine),
    bottleneck.csv (dimensions, two_way) of B5."""
    rng = np.random.default_rng([opened.config.seed, 13])
    pairs = near_pairs(found, rng)
    tables.write_table(pairs, "near_duplicates.csv")
    tables.write_table(nearest_in_training(found), "nearest.csv")
    target = curve_target(found)

    if target is not None:
        tables.write_table(bottleneck_curve(target).assign(space=target.space), "bottleneck.csv")

    if len(pairs):
        test = _thumbnail_pictures(opened, pairs["test"])
        train = _thumbnail_pictures(opened, pairs["train"])
        near_copy_sheet(test, train).save(tables.path / "near_duplicates.png")


def _thumbnail_pictures(opened: Run, ids: Sequence[str]) -> np.ndarray:
    """(n, h, w, c) uint8 pictures of the pairs that are drawn. A picture can be in several pairs, but stimuli are unique."""
    drawn = list(ids)[:MAX_PAIRS]
    unique = list(dict.fromkeys(drawn))
    rows = [unique.index(stimulus) for stimulus in drawn]
    return opened.stimuli.select(unique).pixels()[rows]
