"""Checks that run by default, each with a verdict; a failure can be passed over only by a waiver that is printed.

``CHECKS`` lists them all. To write one, add an entry with a ``run``, name the evidence it needs, and say what it costs; an
entry without ``run`` answers "not tested", so that a report can say so. S: split and stimuli. L: leakage. B: is it the
brain? M: how it is scored. M1-M5, M7-M9 are not here because every score is made that way (exact expectations, ties,
chance, nulls, intervals, gallery sizes, ceilings, false discovery rate).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from phosphene.errors import ConfigError, did_you_mean
from phosphene.validity.behaviour import (
    names_and_order,
    opened_data,
    perturbation,
    recognition,
    subset_invariance,
)
from phosphene.validity.brain import (
    Naming,
    PredictionVariety,
    against_controls,
    alignment_alarm,
    bottleneck,
    bottleneck_curve,
    category_only,
    ceiling_of_method,
    collapse_of_data,
    collapse_of_predictions,
    compare,
    controls_at_chance,
    curve_target,
    irreducible_shares,
    naming,
    out_of_distribution,
    participation_ratio,
    repeat_correlation,
    repeat_reliability,
    variety_of,
)
from phosphene.validity.check import (
    UNKNOWN_OUTSIDE,
    VERDICT_COLUMNS,
    Check,
    CheckResult,
    CycleEvidence,
    Evidence,
    Lineage,
    Predict,
    Redecoding,
    Samples,
    Verdict,
    run_check,
    verdict_record,
    verdict_table,
    waive,
)
from phosphene.validity.decoding_target import DecodingTarget
from phosphene.validity.leakage import (
    adaptation_to_test,
    best_of_n,
    circular_cycle,
    fit_lineage,
    tuning_on_test,
    voxel_selection,
)
from phosphene.validity.likeness import Likeness, difference_hashes, thumbnails
from phosphene.validity.measure import fid_of_few, generator_noise, metric_identity, why_not_comparable
from phosphene.validity.memorised import memorising
from phosphene.validity.outside import Brought, as_seen_outside, missing_outside
from phosphene.validity.split import (
    cluster_disjoint,
    dropped_trials,
    generator_saw_the_pictures,
    near_duplicates,
    near_pairs,
    nearest_in_training,
    picture_digests,
    repeats_across_inner_folds,
    same_stimulus_on_both_sides,
    semantic_overlap,
    session_confound,
    shared_anchors,
    size_of_test_set,
)

__all__ = [
    "CHECKS",
    "UNKNOWN_OUTSIDE",
    "VERDICT_COLUMNS",
    "Brought",
    "Check",
    "CheckResult",
    "CycleEvidence",
    "DecodingTarget",
    "Evidence",
    "Likeness",
    "Lineage",
    "Naming",
    "Predict",
    "PredictionVariety",
    "Redecoding",
    "Samples",
    "Verdict",
    "bottleneck_curve",
    "compare",
    "curve_target",
    "difference_hashes",
    "irreducible_shares",
    "naming",
    "near_pairs",
    "nearest_in_training",
    "participation_ratio",
    "picture_digests",
    "repeat_correlation",
    "run_checks",
    "thumbnails",
    "variety_of",
    "verdict_record",
    "verdict_table",
    "why_not_comparable",
]

_ALL = (
    Check("S1", "Same stimulus on both sides", "Is a test picture, by id or by pixels, in training?", ("splits",),
          same_stimulus_on_both_sides, "instant"),
    Check("S2", "Near duplicates", "Does a test picture have a near copy in training?", ("splits", "likeness"),
          near_duplicates, "a second; looking at the pictures comes before, up to a minute"),
    Check("S3", "Semantic overlap", "How near in meaning is training to each test picture, and does it matter?",
          ("splits", "likeness"), semantic_overlap, "ten seconds"),
    Check("S4", "Cluster-disjoint split", "What is left when whole clusters of pictures are held out?", ("splits",),
          cluster_disjoint, "a second; the split itself a fit for each fold"),
    Check("S5", "Repeats across inner folds", "Do repeats of a stimulus stand on both sides of an inner fold?",
          ("inner_folds",), repeats_across_inner_folds, "instant"),
    Check("S6", "Session and run confound", "Can the session alone predict the targets?",
          ("trials", "sides", "likeness"), session_confound, "seconds"),
    Check("S7", "Shared pictures as anchors", "Did pictures used to align subjects come from the test set?",
          ("splits", "anchors"), shared_anchors, "instant"),
    Check("S8", "Generator trained on the test pictures", "Has the generator probably seen the test pictures?",
          ("generators",), generator_saw_the_pictures, "instant"),
    Check("S9", "Dropped and special trials", "Which trials were left out, and why?", ("left_out",),
          dropped_trials, "instant"),
    Check("S10", "Size of the test set", "Are there enough test stimuli, of more than one class?", ("splits",),
          size_of_test_set, "instant"),
    Check("L1", "Fit lineage", "Did a fitted step see trials it is judged on?", ("lineages",), fit_lineage, "instant"),
    Check("L2", "Subset invariance", "Does a prediction depend on the other test rows?", ("redecoding",),
          subset_invariance, "16 pictures decoded, each alone"),
    Check("L3", "Perturbation", "Does a prediction move when the other test rows turn into noise?",
          ("redecoding",), perturbation, "every test picture decoded twice, or a sample where that is slow"),
    Check("L4", "Voxel selection", "Were voxels chosen with the help of test trials?", ("voxel_choices",),
          voxel_selection, "instant"),
    Check("L5", "Test-time adaptation", "Was a model trained on test responses?", ("setting", "lineages"),
          adaptation_to_test, "instant"),
    Check("L6", "Tuning on test", "How often was the test set evaluated before?", ("ledger",), tuning_on_test, "instant"),
    Check("L7", "Best of n", "Was a sample picked with the help of the truth?", ("samples",), best_of_n, "seconds"),
    Check("L8", "Circular cycle", "Do encoder and decoder of a cycle share training stimuli?", ("cycles",),
          circular_cycle, "instant"),
    Check("L9", "Names and order", "Does a prediction depend on the name or place of a test row?", ("redecoding",),
          names_and_order, "every test picture decoded twice, or a sample where that is slow"),
    Check("L10", "Recognition of rows", "Does a prediction jump when a response moves by a thousandth?", ("redecoding",),
          recognition, "every test picture decoded once, or a sample where that is slow"),
    Check("L11", "Opened files", "Are data opened while the test set is decoded?", ("redecoding",), opened_data,
          "instant, after the others"),
    Check("L12", "Controls at chance", "Do responses that say nothing of the pictures score at chance?", ("scores",),
          controls_at_chance, "instant; each control decodes every test picture once"),
    Check("B1", "Alignment alarm", "Does the true order of trials beat shifted and wrongly sorted ones?",
          ("similarity",), alignment_alarm, "seconds"),
    Check("B2", "Repeat reliability", "Do repeats of a stimulus agree more than shuffled ones?",
          ("trials", "sides", "responses"), repeat_reliability, "ten seconds"),
    Check("B3", "Control inputs", "Is the brain better than shuffled, matched-noise and mean responses?", ("scores",),
          against_controls, "each control decodes every test picture once"),
    Check("B4", "Ceiling of the method", "What would the true features reach through the same generator?",
          ("scores",), ceiling_of_method, "instant; the true features are drawn by decode"),
    Check("B5", "Bottleneck curve", "How many dimensions of brain signal give 90 % of the score?", ("targets",),
          bottleneck, "seconds: a plain ridge is fitted, not the recipe"),
    Check("B6", "Output-dimension collapse of the data", "How much of a test feature lies outside the training span?",
          ("targets",), collapse_of_data, "seconds"),
    Check("B7", "Output-dimension collapse of predictions", "How many dimensions do the predictions use?",
          ("targets",), collapse_of_predictions, "seconds"),
    Check("B8", "Category-only decoder by cluster", "Is the result more than naming the cluster?", ("targets",),
          category_only, "ten seconds"),
    Check("B9", "Out of distribution", "Does it hold on stimuli of another kind?", ("other_kind",),
          out_of_distribution, "instant"),
    Check("B10", "Memorising", "Are decoded pictures nearer to training pictures than to what was seen?", ("targets",),
          memorising, "seconds"),
    Check("M6", "Generator noise", "How much do samples of one trial differ?", ("samples",), generator_noise,
          "seconds"),
    Check("M10", "Metric identity", "Do the metrics still give their golden values?", ("golden",), metric_identity,
          "a second"),
    Check("M11", "FID on small sets", "Is FID computed on too few pictures?", ("scores",), fid_of_few, "instant"),
)  # fmt: skip

CHECKS: dict[str, Check] = {check.id: check for check in _ALL}


def run_checks(
    evidence: Evidence,
    *,
    only: Iterable[str] | None = None,
    waivers: Mapping[str, str] | None = None,
    seed: int = 0,
    at_hand: Collection[Brought] | None = None,
) -> list[Verdict]:
    """Run every check on the evidence at hand.

    Parameters
    ----------
    evidence : Evidence
        what there is; checks that miss something answer "not applicable" and say what
    only : iterable of str, optional
        ids to run; default all, those not written yet answer "not tested"
    waivers : Mapping[str, str], optional
        check id -> who waives it and why
    seed : int, default 0
        of the checks that draw rows or permutations; each has its own stream
    at_hand : collection of {"training", "samples", "controls"}, optional
        that the pictures were made elsewhere, and what came with them: checks that need more answer "cannot be known from
        outside"; by default they are those of a recipe of ours

    Returns
    -------
    list of Verdict
        in the order of ``CHECKS``

    Raises
    ------
    ConfigError
        For an unknown id in ``only`` or ``waivers``, or a waiver without a name.

    Examples
    --------
    >>> verdict = run_checks(Evidence(splits=[([1, 2], [2, 3])]), only=["S1"])[0]
    >>> verdict.verdict, verdict.value
    ('fail', 1.0)
    """
    if only is None:
        chosen = list(CHECKS)
    else:
        chosen = list(only)

    for check_id in chosen:
        if check_id not in CHECKS:
            raise ConfigError(f"there is no check {check_id!r}. {did_you_mean(check_id, CHECKS)}")

    verdicts = []
    for check in CHECKS.values():
        if check.id not in chosen:
            continue

        # A stream for each check, so that running one alone, or adding one, changes no other verdict.
        rng = np.random.default_rng([seed, zlib.crc32(check.id.encode())])
        if at_hand is None:
            verdicts.append(run_check(check, evidence, rng))
        else:
            verdicts.append(_from_outside(check, evidence, rng, at_hand))

    return waive(verdicts, waivers or {}, CHECKS)


def _from_outside(check: Check, evidence: Evidence, rng: np.random.Generator, at_hand: Collection[Brought]) -> Verdict:
    """The verdict of one check on pictures that were made elsewhere."""
    missing = missing_outside(check, at_hand)
    if missing is not None:
        return Verdict(check.id, missing.verdict, missing.value, missing.reason, details=missing.details)

    return as_seen_outside(check, run_check(check, evidence, rng))
