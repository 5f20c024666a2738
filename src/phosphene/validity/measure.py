"""M: how the numbers were made.

M6 asks how much samples of one trial differ, M10 whether metrics still are what they were, M11 whether FID is of few pictures.

References
----------
Heusel et al. 2017 and Chong and Forsyth 2020 (FID and its bias).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.metrics.golden import changed_metrics
from phosphene.metrics.identification import similarity, two_way
from phosphene.metrics.metric import extractor_name
from phosphene.metrics.registry import kind_of, space_of
from phosphene.types.identity import few
from phosphene.validity.check import (
    NOTHING,
    CheckResult,
    Evidence,
    as_floats,
    failed,
    flagged,
    needed,
    not_applicable,
    passed,
    rows_where,
)

ENOUGH_SAMPLES = 3  # of a trial: two give a variance, but a poor one
FID_PICTURES = 2048
FID_FEATURES = 2048
"""The sets and the features that published FIDs are made of: fewer of either give another number."""
_MOST_ITEMS = 300  # trials whose samples are compared; a share of variance needs no more
_PERMUTATIONS = 500
_NUMBERS = 200  # per sample, in which means are compared
_ALPHA = 0.01


def generator_noise(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """M6: variance between samples of one trial next to that between trials, and the score of each sample.

    Parameters
    ----------
    evidence : Evidence
        with ``samples``
    rng : numpy.random.Generator
        draws items, mixtures of pixels and permutations

    Returns
    -------
    CheckResult
        value: share of the variance of pictures that is between samples of a trial, 0 to 1
    """
    samples = needed(evidence.samples)
    n, count = samples.drawn.shape[:2]
    if count == 1 and not evidence.is_random:
        return not_applicable("Nothing is drawn at random: a trial always gives the same picture.")

    if count == 1:
        return flagged(
            NOTHING,
            f"One sample is drawn for each trial, so nobody can tell luck from skill: draw {ENOUGH_SAMPLES} or more "
            "(--set recipe.sampling.samples=3).",
            n_samples=1,
        )

    rows = np.sort(rng.permutation(n)[:_MOST_ITEMS])
    drawn = np.stack([as_floats(samples.drawn[row]).reshape(count, -1) for row in rows])  # (items, samples, pixels)
    true = as_floats(samples.true[rows]).reshape(len(rows), -1)  # (items, pixels)
    within = float(drawn.var(axis=1, ddof=1).mean())
    between = 0.0

    if len(drawn) > 1:
        # The mean of a few samples still varies by within / count, which is no difference between trials.
        between = max(0.0, float(drawn.mean(axis=1).var(axis=0, ddof=1).mean()) - within / count)

    share = 0.0
    if within + between > 0:
        share = within / (within + between)

    p = _follows(drawn, rng)
    two = []
    for s in range(count):
        scores = two_way(similarity(drawn[:, s], true))  # (items,)
        two.append(float(np.nanmean(scores)))

    details = {"n_samples": count, "share_within": share, "p": p, "two_way_of_samples": two}
    text = (
        f"{100 * share:.0f} % of the variance of pictures is between {count} samples of one trial, the rest between trials; "
        f"two-way identification by pixels is {np.mean(two):.3f} on average over samples ({min(two):.3f} to {max(two):.3f})"
    )

    if within == 0:
        same = "All samples of a trial are the same, though they should be drawn anew."
        return flagged(share, f"{text}. {same}", **details)

    if not p < _ALPHA:
        return failed(
            share,
            f"{text}. Samples of one trial are no more alike than samples of different trials (p = {p:.2g}): the generator "
            "does not follow the brain.",
            **details,
        )

    if count < ENOUGH_SAMPLES:
        return flagged(share, f"{text}. Draw {ENOUGH_SAMPLES} samples or more.", **details)

    if share > 0.5:
        differ = "Samples differ more than trials do: read the mean over samples, not one picture."
        return flagged(share, f"{text}. {differ}", **details)

    return passed(share, f"{text}.", **details)


def _follows(drawn: np.ndarray, rng: np.random.Generator) -> float:
    """How often samples dealt to trials at random have means as far apart as the true ones."""
    n, count, width = drawn.shape
    if n < 3:
        return 1.0

    if width > _NUMBERS:  # random mixtures keep distances
        mix = rng.standard_normal((width, _NUMBERS), dtype=np.float32) / np.float32(np.sqrt(_NUMBERS))
        drawn = drawn @ mix  # (items, samples, _NUMBERS)

    flat = (drawn - drawn.mean(axis=(0, 1))).reshape(n * count, -1)  # (items * samples, width)

    def distance_of_means(order: np.ndarray) -> float:
        sums = flat[order].reshape(n, count, -1).sum(axis=1)  # (items, width)
        return float(np.square(sums).sum())

    # The total variance is the same however samples are dealt, so that between trials says all.
    true = distance_of_means(np.arange(n * count))
    dealt = np.empty(_PERMUTATIONS)
    for i in range(_PERMUTATIONS):
        dealt[i] = distance_of_means(rng.permutation(n * count))

    n_as_far = (dealt >= true * (1 - 1e-9)).sum()  # sums of the same numbers in another order are equal
    return float((1 + n_as_far) / (_PERMUTATIONS + 1))


def metric_identity(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """M10: metrics that no longer give their golden values.

    Parameters
    ----------
    evidence : Evidence
        with ``golden``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: metrics that no longer give their golden value
    """
    golden = needed(evidence.golden)
    moved = changed_metrics(golden)
    by_metric = {}
    named = []
    for metric, (kept, now) in moved.items():
        by_metric[metric] = {"golden": kept, "now": now}
        named.append(f"{metric} {kept:.6g} kept, {now:.6g} now")

    details = {"changed": by_metric}
    if moved:
        return failed(
            len(moved),
            f"{len(moved)} of {len(golden)} metrics no longer give their golden values ({few(named)}; "
            f"{_versions()}). Their scores cannot stand beside published or older ones.",
            **details,
        )

    return passed(0, f"All {len(golden)} metrics give their golden values on 64 pictures ({_versions()}).", **details)


def _versions() -> str:
    """The libraries whose change moves a metric most often."""
    import scipy
    import sklearn

    return f"numpy {np.__version__}, scipy {scipy.__version__}, scikit-learn {sklearn.__version__}"


def fid_of_few(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """M11: FID of too few pictures, or of other features than those of published ones.

    Parameters
    ----------
    evidence : Evidence
        with ``scores`` and ``n_features``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: pictures of the smallest FID
    """
    brain = _brain_scores(evidence)
    n_pictures = {}
    for name, n in zip(brain["metric"], brain["n"], strict=True):
        if kind_of(name) == "fid":
            n_pictures[name] = float(n)

    if not n_pictures:
        return not_applicable("No FID was computed.")

    reasons = {}
    for name, n in n_pictures.items():
        reason = why_not_comparable(n, evidence.n_features.get(extractor_name(space_of(name))))
        if reason:
            reasons[name] = reason

    smallest = min(n_pictures.values())
    if not reasons:
        enough = f"FID of {smallest:.0f} pictures or more, with {FID_FEATURES} features."
        return passed(smallest, enough, n_pictures=n_pictures)

    named = few([f"{name} ({reason})" for name, reason in reasons.items()])
    text = f"Not comparable with a published FID: {named}. {_instead(brain)}"
    return flagged(smallest, text, n_pictures=n_pictures, not_comparable=reasons)


def why_not_comparable(n: float, n_features: int | None) -> str:
    """Why an FID of so many pictures and features is another number than published ones; empty when it is not.

    Parameters
    ----------
    n : float
        pictures in each set
    n_features : int or None
        of the network; None where not known

    Returns
    -------
    str
        what there is too little of

    Examples
    --------
    >>> why_not_comparable(50, 64)
    '50 pictures, 64 features'
    """
    parts = []
    if n < FID_PICTURES:
        parts.append(f"{n:.0f} pictures")
    if n_features is not None and n_features < FID_FEATURES:
        parts.append(f"{n_features} features")

    return ", ".join(parts)


def _brain_scores(evidence: Evidence) -> pd.DataFrame:
    return rows_where(needed(evidence.scores), input="brain")


def _instead(brain: pd.DataFrame) -> str:
    """The advice to read KID, with its values where it was computed."""
    advice = "Read KID instead, which few pictures do not bias"
    values = []
    for row in brain.to_dict("records"):
        if kind_of(row["metric"]) == "kid":
            values.append(f"{row['metric']} {row['value']:.3g} [{row['ci_low']:.3g}, {row['ci_high']:.3g}]")

    if not values:
        return f"{advice}."
    return f"{advice}: {few(values)}."
