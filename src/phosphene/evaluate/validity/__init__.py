"""Checks that run by default, each with a verdict; a failure can be passed over only by a waiver that is printed.

``CHECKS`` lists them all, those not written yet included, so that a report can say what was not tested. To write one,
give its entry a ``run`` and name the evidence it needs. S: split and stimuli. L: leakage. B: is it the brain? M: how it
is scored. M1-M5, M7-M9 are not here because every score is made that way (exact expectations, ties, chance, nulls,
intervals, gallery sizes, ceilings, false discovery rate).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import numpy as np

from phosphene.errors import ConfigError, did_you_mean
from phosphene.evaluate.validity.base import (
    VERDICT_COLUMNS,
    Check,
    Evidence,
    Lineage,
    Verdict,
    run_check,
    verdict_table,
    waive,
)
from phosphene.evaluate.validity.brain import against_controls, alignment_alarm, compare
from phosphene.evaluate.validity.fitting import fit_lineage, subset_invariance
from phosphene.evaluate.validity.split import (
    picture_digests,
    repeats_across_inner_folds,
    same_stimulus_on_both_sides,
    size_of_test_set,
)

__all__ = [
    "CHECKS",
    "VERDICT_COLUMNS",
    "Check",
    "Evidence",
    "Lineage",
    "Verdict",
    "compare",
    "picture_digests",
    "run_checks",
    "verdict_table",
]

_ALL = (
    Check("S1", "Same stimulus on both sides", "Is a test picture, by id or by pixels, in training?", ("splits",),
          same_stimulus_on_both_sides),
    Check("S2", "Near duplicates", "Does a test picture have a near copy in training?"),
    Check("S3", "Semantic overlap", "How near in meaning is training to each test picture, and does it matter?"),
    Check("S4", "Cluster-disjoint split", "What is left when whole clusters of pictures are held out?"),
    Check("S5", "Repeats across inner folds", "Do repeats of a stimulus stand on both sides of an inner fold?",
          ("inner_folds",), repeats_across_inner_folds),
    Check("S6", "Session and run confound", "Can the session alone predict the targets?"),
    Check("S7", "Shared pictures as anchors", "Did pictures used to align subjects come from the test set?"),
    Check("S8", "Generator trained on the test pictures", "Has the generator probably seen the test pictures?"),
    Check("S9", "Dropped and special trials", "Which trials were left out, and why?"),
    Check("S10", "Size of the test set", "Are there enough test stimuli, of more than one class?", ("splits",),
          size_of_test_set),
    Check("L1", "Fit lineage", "Did a fitted step see trials it is judged on?", ("lineages",), fit_lineage),
    Check("L2", "Subset invariance", "Does a prediction depend on the other test rows?", ("predict", "test_betas"),
          subset_invariance),
    Check("L3", "Perturbation", "Does a prediction move when the other test rows turn into noise?"),
    Check("L4", "Voxel selection", "Were voxels chosen with the help of test trials?"),
    Check("L5", "Test-time adaptation", "Was a model trained on test responses?"),
    Check("L6", "Tuning on test", "How often was the test set evaluated before?"),
    Check("L7", "Best of n", "Was a sample picked with the help of the truth?"),
    Check("L8", "Circular cycle", "Do encoder and decoder of a cycle share training stimuli?"),
    Check("B1", "Alignment alarm", "Does the true order of trials beat shifted and wrongly sorted ones?",
          ("similarity",), alignment_alarm),
    Check("B2", "Repeat reliability", "Do repeats of a stimulus agree more than shuffled ones?"),
    Check("B3", "Control inputs", "Is the brain better than shuffled, matched-noise and mean responses?", ("scores",),
          against_controls),
    Check("B4", "Ceiling of the method", "What would the true features reach through the same generator?"),
    Check("B5", "Bottleneck curve", "How many dimensions of brain signal give 90 % of the score?"),
    Check("B6", "Output-dimension collapse of the data", "How much of a test feature lies outside the training span?"),
    Check("B7", "Output-dimension collapse of predictions", "How many dimensions do the predictions use?"),
    Check("B8", "Category-only decoder by cluster", "Is the result more than naming the cluster?"),
    Check("B9", "Out of distribution", "Does it hold on stimuli of another kind?"),
    Check("M6", "Generator noise", "How much do samples of one trial differ?"),
    Check("M10", "Metric identity", "Do the metrics still give their golden values?"),
    Check("M11", "FID on small sets", "Is FID computed on too few pictures?"),
)  # fmt: skip

CHECKS: dict[str, Check] = {check.id: check for check in _ALL}


def run_checks(
    evidence: Evidence,
    *,
    only: Iterable[str] | None = None,
    waivers: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Verdict]:
    """Run every check on the evidence at hand.

    Parameters
    ----------
    evidence : what there is; checks that miss something answer "not applicable" and say what
    only : ids to run; default all, those not written yet answer "not tested"
    waivers : check id -> who waives it and why
    seed : of the checks that draw rows or permutations; each has its own stream

    Returns
    -------
    list of Verdict, in the order of ``CHECKS``

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
    chosen = list(CHECKS) if only is None else list(only)
    for check_id in chosen:
        if check_id not in CHECKS:
            raise ConfigError(f"there is no check {check_id!r}. {did_you_mean(check_id, CHECKS)}")
    verdicts = [
        run_check(check, evidence, np.random.default_rng([seed, zlib.crc32(check.id.encode())]))
        for check in CHECKS.values()
        if check.id in chosen
    ]
    return waive(verdicts, waivers or {}, CHECKS)
