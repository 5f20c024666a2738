"""B: is it the brain?

B1 asks whether trials and pictures are in the same order, B2 whether repeats of a picture agree, B3 whether responses beat inputs
that hold no signal. B4, B5 and B9 ask what the method could reach, by how much of the brain, and on what kind of pictures. B6 and
B7 ask whether the targets can be reached from the training set, and how many of their dimensions the predictions use. B8 asks
whether the result is more than naming the cluster, or the category, that a picture belongs to.

References
----------
Otsuka et al. 2025, "Overcoming output dimension collapse" (B6).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

from phosphene.data.clusters import directions, number_of_clusters, spherical_kmeans
from phosphene.metrics.identification import rank_matrix, similarity, two_way
from phosphene.metrics.metric import PICTURES as PICTURE_FEATURES
from phosphene.metrics.registry import find_metric, kind_of, space_of
from phosphene.metrics.statistics import paired_difference, permutation_null
from phosphene.metrics.ties import first_best
from phosphene.types.identity import few
from phosphene.validity.check import (
    NOTHING,
    CheckResult,
    Evidence,
    failed,
    flagged,
    needed,
    not_applicable,
    not_tested,
    passed,
    rows_where,
)
from phosphene.validity.decoding_target import PICTURES, DecodingTarget

# -- B1: are trials and pictures in the same order? ---------------------------------------------------------------------

MAX_OFFSET = 10  # trials by which the truths are shifted; a lost first trial or a dummy scan shifts by one or a few


def alignment_alarm(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B1: does the true order beat shifted and wrongly sorted ones, and chance?

    Parameters
    ----------
    evidence : Evidence
        with ``similarity``; ``test_ids`` and ``orders`` for wrong orders to try
    rng : numpy.random.Generator
        draws random pairings

    Returns
    -------
    CheckResult
        value: two-way identification in the order as paired, chance 0.5
    """
    ranks = rank_matrix(needed(evidence.similarity))  # (decoded, true)
    n = len(ranks)
    if n < 5:
        return not_applicable(f"{n} test items have too few orders for a test at one percent.")

    null = permutation_null(ranks, rng=rng)
    true = float(np.diagonal(ranks).mean())

    # Without the part that an item owes to being easy on its own, a shift that leaves out the hard ones wins nothing.
    centred = ranks - ranks.mean(axis=1, keepdims=True) - ranks.mean(axis=0) + 2 * ranks.mean()
    orders = {}
    reach = min(MAX_OFFSET, n // 2)
    for offset in range(-reach, reach + 1):
        if offset:
            orders[f"truths shifted by {offset:+d}"] = np.diagonal(centred, offset)

    for name, order in _wrong_orders(evidence, n).items():
        orders[name] = centred[np.arange(n), order]

    # A shift pairs fewer items and there are many orders to be lucky in, so each must clear its own bar. Neighbours of
    # one class do as well as the truth when a decoder knows the class alone: that is no misalignment, so a rival must
    # also be better than the true order by more than luck.
    null_std = (null.percentile_99 - null.mean) / ndtri(0.99)
    strict = ndtri(1 - 0.01 / len(orders))  # one percent over all orders together
    rival = None
    gain = 0.0  # of the rival over the true order
    rival_std = 0.0

    for name, values in orders.items():
        std = null_std * np.sqrt(n / len(values))
        above = float(values.mean() - np.diagonal(centred).mean())
        bar = null.mean + strict * std
        if above > gain and true + above > bar:
            rival = name
            gain = above
            rival_std = std

    details = {
        "two_way": true,
        "percentile_99_of_random": null.percentile_99,
        "n_orders": len(orders),
        "best_other_order": rival,
        "two_way_of_other_order": true + gain,
    }

    if rival is not None and gain > np.sqrt(2) * strict * rival_std:
        return failed(
            true,
            f"Trials look misaligned: two-way identification is {true:.3f} as paired but {true + gain:.3f} with {rival}.",
            **details,
        )

    if not true > null.percentile_99:
        return failed(
            true,
            f"Trials look misaligned, or nothing was decoded: two-way identification of {true:.3f} is not above the "
            f"99th percentile of random pairings ({null.percentile_99:.3f}), and no other order is clearly better.",
            **details,
        )

    if rival is not None:
        as_well = f"The order {rival} does as well ({true + gain:.3f}) as the true one ({true:.3f})."
        return flagged(true, as_well, **details)

    return passed(
        true,
        f"The true order scores {true:.3f}, above {null.percentile_99:.3f} (99th percentile of random pairings) and "
        f"above the {len(orders)} other orders tried.",
        **details,
    )


def _wrong_orders(evidence: Evidence, n: int) -> dict[str, np.ndarray]:
    """Name to (n,) order of the truths that a mistake could have produced; the order as paired is none."""
    orders = {name: np.asarray(order) for name, order in evidence.orders.items()}
    if evidence.test_ids is not None:
        ids = np.asarray(evidence.test_ids)
        orders["truths sorted by id"] = np.argsort(ids, kind="stable")
        orders["decoded items sorted by id"] = np.argsort(np.argsort(ids, kind="stable"))
        orders["truths sorted by id as text"] = np.argsort(ids.astype(str), kind="stable")

    orders["truths in reverse"] = np.arange(n)[::-1]

    # Ids may be sorted already, also as text.
    as_paired = np.arange(n)
    return {name: order for name, order in orders.items() if not np.array_equal(order, as_paired)}


# -- B3: inputs without signal -----------------------------------------------------------------------------------------

CONTROLS = ("shuffled", "noise", "mean")
HEADLINES = ("pixcorr", "mse", "ssim.2d", "two_way")
"""Kinds of metrics that controls are compared in."""
Standing = Literal["above", "unclear", "below"]


_RESPONSE_WORDS = {"shuffled": "shuffled responses", "noise": "matched-noise responses", "mean": "the mean response"}
_KNOWS = 0.001  # p of a control below which a decoder knows what it was not told


def against_controls(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B3: is the real response better than shuffled, matched-noise and mean responses through the same pipeline?

    Parameters
    ----------
    evidence : Evidence
        with ``scores``, and ``differences`` where they were paired
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: share of comparisons in which the brain is clearly above, 0 to 1
    """
    scores = needed(evidence.scores)
    scored_inputs = set(scores["input"])
    present = []
    missing = []
    for control in CONTROLS:
        if control in scored_inputs:
            present.append(control)
        else:
            missing.append(control)

    if not present:
        return not_applicable("No control input was scored.")

    by_standing: dict[Standing, list[str]] = {"above": [], "unclear": [], "below": []}
    metrics = sorted(set(scores.loc[scores["input"] == "brain", "metric"]))
    for metric in metrics:
        if kind_of(metric) not in HEADLINES:
            continue

        for control in present:
            standing = compare(scores, evidence.differences, metric, control)
            if standing is not None:
                by_standing[standing].append(f"{metric} against {control}")

    above = by_standing["above"]
    unclear = by_standing["unclear"]
    below = by_standing["below"]
    n = len(above) + len(unclear) + len(below)
    details = {**by_standing, "missing": missing}
    if n == 0:
        return not_applicable("Brain and control share no headline metric.", **details)

    tail = ""
    if missing:
        tail = f" Not run: {', '.join(missing)}."

    share = len(above) / n
    if not above:
        return failed(share, f"Not clearly above a control in any of {n} comparisons.{tail}", **details)

    if below or unclear:
        parts = []
        if below:
            parts.append(f"below the control in {', '.join(below)}")
        if unclear:
            parts.append(f"not clearly above it in {', '.join(unclear)}")

        text = f"Clearly above its controls in {len(above)} of {n} comparisons; {'; '.join(parts)}.{tail}"
        return flagged(share, text, **details)

    text = f"Clearly above {', '.join(present)} in all {n} comparisons.{tail}"
    if missing:
        return flagged(share, text, **details)
    return passed(share, text, **details)


def controls_at_chance(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L12: responses that say nothing of the pictures must decode to pictures at chance.

    Parameters
    ----------
    evidence : Evidence
        with ``scores``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: the smallest p of a control in a headline metric
    """
    scores = needed(evidence.scores)
    tested = []
    for row in scores.to_dict("records"):
        is_control = row["input"] in CONTROLS and kind_of(str(row["metric"])) in HEADLINES
        if is_control and np.isfinite(row["p"]):
            tested.append(row)

    if not tested:
        return not_applicable("No control input was tested against chance.")

    tested = sorted(tested, key=lambda row: row["p"])
    above = [row for row in tested if row["p"] < _KNOWS]
    smallest = float(tested[0]["p"])
    if not above:
        inputs = few(list(dict.fromkeys(str(row["input"]) for row in tested)))
        return passed(smallest, f"Responses that say nothing of the pictures score at chance ({inputs}).", p=smallest)

    named: dict[str, str] = {}
    for row in above:
        named.setdefault(str(row["input"]), f"{row['metric']} {row['value']:.3f}, chance {row['chance']:.3f}")

    parts = [f"{_RESPONSE_WORDS[name]} score above chance ({words}, p < {_KNOWS})" for name, words in named.items()]
    return failed(
        smallest,
        f"The decoder knows more than the brain told it: {'; '.join(parts)}.",
        above=[{key: row[key] for key in ("input", "metric", "value", "chance", "p")} for row in above],
    )


def compare(scores: pd.DataFrame, differences: pd.DataFrame | None, metric: str, control: str) -> Standing | None:
    """Where the brain stands against a control.

    A paired difference decides when there is one: interval beyond 0 and p below 0.05, since with few stimuli either
    alone is too easily had. Otherwise the two intervals must not overlap.

    Parameters
    ----------
    scores : DataFrame
        rows of ``scores.csv``
    differences : DataFrame or None
        rows of ``differences.csv`` (see ``phosphene.metrics.controls``)
    metric : str
        full name
    control : str
        such as ``shuffled``

    Returns
    -------
    {"above", "unclear", "below"} or None
        None without both numbers, and for a metric whose direction is not known
    """
    if differences is not None:
        rows = rows_where(differences, metric=metric, control=control)
        if len(rows) and np.isfinite(rows["ci_low"].iloc[0]):
            low = float(rows["ci_low"].iloc[0])
            high = float(rows["ci_high"].iloc[0])
            if rows["p"].iloc[0] >= 0.05 or low <= 0 <= high:
                return "unclear"
            if low > 0:
                return "above"
            return "below"

    entry = find_metric(metric)
    ours = rows_where(scores, metric=metric, input="brain")
    theirs = rows_where(scores, metric=metric, input=control)
    if entry is None or not len(ours) or not len(theirs):
        return None

    # The lower bound of one side against the upper bound of the other.
    our_low, our_high = _interval(ours, entry.sign)
    their_low, their_high = _interval(theirs, entry.sign)
    if our_low > their_high:
        return "above"
    if our_high < their_low:
        return "below"
    return "unclear"


def _interval(rows: pd.DataFrame, sign: int) -> list[float]:
    """Low and high end of the interval in the first row, turned so that more is better."""
    return sorted([sign * rows["ci_low"].iloc[0], sign * rows["ci_high"].iloc[0]])


# -- B2: do repeats of a picture agree? --------------------------------------------------------------------------------

_MOST_TRIALS = 1500
_PERMUTATIONS = 1000
_FEWEST_REPEATED = 5  # stimuli shown more than once
_REPEATS_ALPHA = 0.01


class RepeatAgreement(NamedTuple):
    """How much repeats of a picture agree, and how much randomly dealt labels do.

    Attributes
    ----------
    correlation : float
        mean over voxels of the correlation between repeats; NaN without repeats
    p : float
        how often dealt labels agree as much, never 0; NaN without repeats
    percentile_99 : float
        of the agreement of dealt labels
    n_repeated : int
        pictures shown more than once
    """

    correlation: float
    p: float
    percentile_99: float
    n_repeated: int


def repeat_correlation(
    betas: np.ndarray, stimuli: np.ndarray, sessions: np.ndarray, rng: np.random.Generator
) -> RepeatAgreement:
    """Mean over voxels of the correlation between repeats of a stimulus, and how often random labels do as well.

    Voxels are standardised in each session, and labels are dealt anew inside sessions, so that a session's own level is
    no agreement.

    Parameters
    ----------
    betas : ndarray of shape (n_trials, n_voxels)
        responses; voxels with NaN are left out
    stimuli, sessions : ndarray of shape (n_trials,)
        labels of each trial
    rng : numpy.random.Generator
        deals labels

    Returns
    -------
    RepeatAgreement
        NaN without repeats
    """
    _, stimuli = np.unique(np.asarray(stimuli, dtype=str), return_inverse=True)
    _, sessions = np.unique(np.asarray(sessions, dtype=str), return_inverse=True)
    n_repeated = int((np.bincount(stimuli) > 1).sum())
    if not n_repeated:
        return RepeatAgreement(NOTHING, NOTHING, NOTHING, 0)

    if np.bincount(sessions).min() < _FEWEST_REPEATED:  # too few trials to standardise by
        sessions = np.zeros_like(sessions)

    z = np.asarray(betas, dtype=np.float64)
    z = z[:, np.isfinite(z).all(axis=0)].copy()  # (n_trials, n_finite_voxels)
    trials_of_session = []
    for session in np.unique(sessions):
        trials = np.flatnonzero(sessions == session)
        z[trials] -= z[trials].mean(axis=0)
        z[trials] /= np.maximum(z[trials].std(axis=0), 1e-12)
        trials_of_session.append(trials)

    # With standardised voxels the mean over voxels of their products is that of their correlations.
    alike = z @ z.T / max(1, z.shape[1])  # (n_trials, n_trials)
    is_repeat = stimuli[:, None] == stimuli[None, :]  # (n_trials, n_trials)
    first, second = np.nonzero(np.triu(is_repeat, 1))  # every pair of repeats once
    correlation = float(alike[first, second].mean())

    # Dealing labels anew is the same as pairing other trials: `alike` need not be computed again.
    dealt = np.empty(_PERMUTATIONS)
    for i in range(_PERMUTATIONS):
        order = np.arange(len(z))
        for trials in trials_of_session:
            order[trials] = rng.permutation(trials)

        dealt[i] = alike[order[first], order[second]].mean()

    p = float((1 + (dealt >= correlation - 1e-12).sum()) / (_PERMUTATIONS + 1))
    return RepeatAgreement(correlation, p, float(np.quantile(dealt, 0.99)), n_repeated)


def repeat_reliability(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B2: in training and in test trials apart, as labels may be wrong in one of them.

    Parameters
    ----------
    evidence : Evidence
        with ``trials``, ``sides`` and ``responses``
    rng : numpy.random.Generator
        draws stimuli, where there are many, and deals labels

    Returns
    -------
    CheckResult
        value: the lower of the two correlations
    """
    table = needed(evidence.trials)
    responses = needed(evidence.responses)
    sides = needed(evidence.sides)
    stimuli = table["stimulus"].astype(str).to_numpy()
    training = np.arange(0)
    tested = np.arange(0)
    if sides:
        training, _ = sides[0]  # of the first fold: those of the others are mostly the same trials
        tested = np.unique(np.concatenate([test for _, test in sides]))

    agreements: dict[str, RepeatAgreement] = {}
    unclear = {}  # side to the bar it does not clear
    for side, rows in (("training", training), ("test", tested)):
        trials = np.sort(_whole_stimuli(stimuli, np.asarray(rows).astype(np.intp), rng))
        if not len(trials):
            continue

        sessions = table["session"].to_numpy()[trials]
        agreement = repeat_correlation(responses[trials], stimuli[trials], sessions, rng)
        agreements[side] = agreement
        if not agreement.p < _REPEATS_ALPHA:
            # Rows of a session add up to nothing, so labels dealt at random agree a little less than not at all.
            unclear[side] = agreement.percentile_99 + 1 / (len(trials) - 1)

    if not agreements:
        return not_applicable("No picture was shown often enough to compare its repeats.")

    parts = []
    for side, (r, p, bar, n) in agreements.items():
        parts.append(
            f"{side}: r = {r:.3f} over {n} pictures, {bar:.3f} for the best percent of dealt labels (p = {p:.2g})"
        )

    facts = f"Mean correlation of repeats over voxels, {'; '.join(parts)}"
    details = {}
    correlations = []
    agreeing = []  # correlations of the sides that clear their bar

    for side, agreement in agreements.items():
        details[side] = agreement._asdict()
        correlations.append(agreement.correlation)
        if side not in unclear:
            agreeing.append(agreement.correlation)

    lowest = min(correlations)
    named = " and ".join(unclear)

    # A bar at the 99th percentile of dealt labels is 2.3 of their deviations above their middle. Repeats as good as those
    # of the other side would clear it nearly always only if they are as far above it again.
    if unclear and agreeing and max(agreeing) < 2 * max(unclear.values()):
        too_few = f"Too few repeats in {named} trials to show that labels are right there."
        return flagged(lowest, f"{facts}. {too_few}", **details)
    if unclear:
        return failed(lowest, f"{facts}. In {named} trials, labels are wrong or responses are noise.", **details)
    return passed(lowest, f"{facts}.", **details)


def _whole_stimuli(stimuli: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of stimuli shown more than once, at most 1,500 of them, all repeats of a stimulus together."""
    _, which, counts = np.unique(stimuli[rows], return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts > 1)
    if len(repeated) < _FEWEST_REPEATED:
        return np.empty(0, dtype=np.intp)

    # As many stimuli of a random order as hold 1,500 trials, but never fewer than five.
    chosen = rng.permutation(repeated)
    n_fitting = int(np.searchsorted(np.cumsum(counts[chosen]), _MOST_TRIALS))
    keep = chosen[: max(_FEWEST_REPEATED, n_fitting)]
    return rows[np.isin(which, keep)]


# -- B4: ceiling of the method -----------------------------------------------------------------------------------------

_REACH_ALPHA = 0.05
_MOST_NAMED = 3


def ceiling_of_method(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B4: scores of the true features through the same generator, from the control ``truth``.

    Parameters
    ----------
    evidence : Evidence
        with ``scores`` that have rows of the input ``truth``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: share of the ceiling above chance that the brain reaches
    """
    scores = needed(evidence.scores)
    if not len(rows_where(scores, input="truth")):
        return not_applicable("The true features were not drawn: no input 'truth' was decoded.")

    finite = scores.take(np.flatnonzero(np.isfinite(scores["value"].to_numpy(float))))
    truth = rows_where(finite, input="truth").drop_duplicates("metric").set_index("metric")
    brain = rows_where(finite, input="brain").drop_duplicates("metric").set_index("metric")
    tops = dict(zip(map(str, truth.index), truth["value"].to_numpy(float).tolist(), strict=True))
    p_values = dict(zip(map(str, truth.index), truth["p"].to_numpy(float).tolist(), strict=True))
    ours = dict(zip(map(str, brain.index), brain["value"].to_numpy(float).tolist(), strict=True))

    # What networks see in pictures comes first: it is what the generator is there for.
    metrics = []
    for metric in tops:
        if kind_of(metric) == "two_way" and metric in ours:
            metrics.append(metric)

    metrics.sort(key=lambda metric: (not space_of(metric).startswith(PICTURE_FEATURES), metric))
    if not metrics:
        return not_applicable("Brain and true features share no identification score.")

    room = tops[metrics[0]] - 0.5  # above chance
    value = NOTHING
    if room > 0:
        value = (ours[metrics[0]] - 0.5) / room

    ceilings = {metric: tops[metric] for metric in metrics}
    named = [f"{metric} {ceiling:.3f}" for metric, ceiling in ceilings.items()][:_MOST_NAMED]
    text = f"True features through the generator reach {', '.join(named)}"
    details = {"ceiling": ceilings, "share_reached": value}

    p_of_ceilings = np.array([p_values[metric] for metric in metrics])
    if (p_of_ceilings >= _REACH_ALPHA).all():  # a NaN, which is no test, makes this False
        unfaithful = "it does not draw what it is told, so its pictures say nothing of a brain."
        return failed(value, f"{text}: {unfaithful}", **details)

    beyond = []
    for metric in (*metrics, "ssim.2d", "pixcorr"):
        if compare(scores, None, metric, "truth") == "above":
            beyond.append(metric)

    if beyond:
        return flagged(
            value,
            f"{text}. The brain is above that in {few(beyond)}: the score rewards something else than the true features, "
            "such as blur.",
            **details,
            beyond=beyond,
        )

    return passed(
        value, f"{text}; the brain reaches {100 * value:.0f} % of that above chance ({metrics[0]}).", **details
    )


# -- B5: bottleneck curve ----------------------------------------------------------------------------------------------

STEPS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Dimensions of brain signal tried, before all of them."""
FEW = 2
"""Dimensions that are too few to say what was seen; a judgement."""
_PENALTIES = np.logspace(-4, 4, 17)  # of the mean eigenvalue
_MOST_TARGETS = 512
_FEWEST_POINTS = 10


def bottleneck_curve(target: DecodingTarget) -> pd.DataFrame:
    """Two-way identification by a cheap decoder that sees the brain through r principal components.

    Components of the training responses (voxels standardised); ridge from the first r of them to the features; one penalty
    for each r by generalised cross-validation. On principal components ridge is a factor for each, so all r cost one
    eigendecomposition. More than 512 features are mixed at random into 512, which keeps similarities. With eigenvalues v_i
    and left singular vectors u_i of the responses x,

        f_i = v_i / (v_i + penalty mean(v))
        predicted = sum_{i <= r} (test . component_i) / sqrt(v_i) f_i u_i' y
        GCV(penalty) = |y - fitted|^2 / (n - 1 - sum f_i)^2

    Parameters
    ----------
    target : DecodingTarget
        with betas of both sides

    Returns
    -------
    DataFrame
        table with columns dimensions, two_way; the last row uses all of them
    """
    rng = np.random.default_rng(0)  # whatever the check, one curve: it is also written next to the verdict
    x = np.asarray(needed(target.betas), dtype=np.float64)  # (n_train, n_voxels)
    new = np.asarray(needed(target.test_betas), dtype=np.float64)  # (n_test, n_voxels)
    mean = x.mean(axis=0)
    scale = x.std(axis=0)
    scale[scale == 0] = np.inf
    x = (x - mean) / scale
    new = (new - mean) / scale
    y, true, _ = target.centred()

    if y.shape[1] > _MOST_TARGETS:
        mix = rng.standard_normal((y.shape[1], _MOST_TARGETS), dtype=np.float32) / np.float32(np.sqrt(_MOST_TARGETS))
        y = y @ mix
        true = true @ mix

    # Left singular vectors u of x, and the components of the test responses, from whichever Gram matrix is smaller.
    is_wide = len(x) <= x.shape[1]
    if is_wide:
        values, vectors = np.linalg.eigh(x @ x.T)  # (n_train, n_train)
    else:
        values, vectors = np.linalg.eigh(x.T @ x)  # (n_voxels, n_voxels)

    order = np.argsort(-values)
    order = order[values[order] > 1e-9 * values.max()]
    values = values[order]
    size = np.sqrt(values)

    if is_wide:
        u = vectors[:, order]
        components = new @ (x.T @ u) / size  # (n_test, k)
    else:
        u = x @ vectors[:, order] / size
        components = new @ vectors[:, order]

    along = u.T @ y  # (k, d)
    power = np.square(along).sum(axis=1)  # (k,): what each component explains of the features without a penalty
    total = float(np.square(y).sum())
    n = len(x)
    steps = [step for step in STEPS if step < len(values)]
    rows = []
    predicted = np.zeros_like(true)

    for r in [*steps, len(values)]:
        errors = []
        shrinkages = []
        for penalty in _PENALTIES:
            f = values[:r] / (values[:r] + penalty * values.mean())  # (r,)
            residual = total - (power[:r] * (1 - (1 - f) ** 2)).sum()
            errors.append(residual / max(n - 1 - f.sum(), 1e-9) ** 2)  # generalised cross-validation
            shrinkages.append(f)

        f = shrinkages[int(np.argmin(errors))]
        predicted = (components[:, :r] * (f / size[:r])) @ along[:r]  # (n_test, d)
        rows.append((r, float(np.mean(two_way(similarity(predicted, true))))))

    table = pd.DataFrame(rows, columns=["dimensions", "two_way"])
    table.attrs["p"] = permutation_null(rank_matrix(similarity(predicted, true)), rng=rng, n_permutations=2000).p
    return table


def curve_target(evidence: Evidence) -> DecodingTarget | None:
    """The space the curve is drawn in: the first of latents, pixels where there are none.

    Parameters
    ----------
    evidence : Evidence
        with targets

    Returns
    -------
    DecodingTarget or None
        None where too few items have responses
    """
    usable = []
    for target in evidence.targets or ():
        has_responses = target.betas is not None and target.test_betas is not None
        if has_responses and min(len(target.true), len(target.train)) >= _FEWEST_POINTS:
            usable.append(target)

    usable.sort(key=lambda target: target.space == PICTURES)  # stable: latents first
    if usable:
        return usable[0]
    return None


def bottleneck(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B5: how many dimensions of brain signal give 90 % of the score.

    Parameters
    ----------
    evidence : Evidence
        with ``targets`` that have betas
    rng : numpy.random.Generator
        not used: the curve has a stream of its own

    Returns
    -------
    CheckResult
        value: dimensions that give 90 % of the score above chance
    """
    target = curve_target(evidence)
    if target is None:
        return not_applicable(f"Fewer than {_FEWEST_POINTS} test or training items with responses.")

    table = bottleneck_curve(target)
    dimensions = table["dimensions"].to_numpy()
    value = table["two_way"].to_numpy()
    p = table.attrs["p"]
    details = {"space": target.space, "curve": table, "p": p}
    head = f"A plain ridge from principal components of the responses to {target.space} (not the recipe itself)"

    if not p < _REACH_ALPHA:
        chance = f"identifies {value[-1]:.3f} with all {dimensions[-1]}, not above chance (p = {p:.2g})"
        return not_applicable(f"{head} {chance}.", **details)

    reaches = value - 0.5 >= 0.9 * (value[-1] - 0.5)  # (n_steps,); the last always does
    enough = int(dimensions[np.flatnonzero(reaches)[0]])
    curve = ", ".join(f"{d}: {v:.3f}" for d, v in zip(dimensions, value, strict=True))
    text = f"{head} reaches 90 % of its two-way identification above chance with {enough} dimensions ({curve})"

    if enough <= FEW < dimensions[-1]:
        little = "So few say little of what was seen: the test set is told apart by very little."
        return flagged(enough, f"{text}. {little}", **details)

    return passed(enough, f"{text}.", **details)


# -- B9: out of distribution -------------------------------------------------------------------------------------------


def out_of_distribution(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B9: identification on stimuli of another kind than those of training.

    Parameters
    ----------
    evidence : Evidence
        with ``other_kind`` and ``similarity``
    rng : numpy.random.Generator
        draws random pairings

    Returns
    -------
    CheckResult
        value: two-way identification, chance 0.5
    """
    if not evidence.other_kind:
        text = "Test stimuli are of the same kind as those of training."
        if evidence.held_out:
            text += f" Whole {evidence.held_out} were held out, which is a step towards it."

        return not_tested(text)

    if evidence.similarity is None:
        return not_tested(f"Test stimuli are {evidence.other_kind}, but nothing was decoded.")

    ranks = rank_matrix(evidence.similarity)
    null = permutation_null(ranks, rng=rng)
    value = float(np.diagonal(ranks).mean())
    text = f"On {evidence.other_kind}, two-way identification is {value:.3f} (chance 0.5, p = {null.p:.2g})"
    details = {"two_way": value, "p": null.p, "kind": evidence.other_kind}

    if null.p < _REACH_ALPHA:
        return passed(value, f"{text}: it holds on stimuli of another kind.", **details)
    return flagged(value, f"{text}: nothing is left on stimuli of another kind.", **details)


# -- B6: collapse of the data ------------------------------------------------------------------------------------------

MOST_OUTSIDE = 0.5  # share of the targets' variance that no linear map can reach; a judgement


def irreducible_shares(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Share of each test item that no linear map from anywhere to these training targets can predict.

    A linear map predicts combinations of training targets and nothing else. With H the training features, centred and
    scaled, the best prediction of h is its projection on their span, H' (H H')^+ H h; the share is squared residual over
    squared norm.

    Parameters
    ----------
    train : ndarray of shape (n, d)
        features of training items
    test : ndarray of shape (m, d)
        features of test items

    Returns
    -------
    ndarray of shape (m,)
        from 0 to 1

    References
    ----------
    Otsuka et al. 2025, "Overcoming output dimension collapse".

    Examples
    --------
    >>> train = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    >>> irreducible_shares(train, np.array([[2.0, 1, 0], [0, 0, 1]])).round(6)
    array([0., 1.])
    """
    train = np.asarray(train, dtype=np.float64)
    test = np.asarray(test, dtype=np.float64)
    mean = train.mean(axis=0)
    scale = train.std(axis=0)
    varies = scale > 1e-6 * scale.max(initial=0)

    # What is constant in training has no scale of its own; it is out of reach all the same.
    if varies.any():
        typical = scale[varies].mean()
    else:
        typical = 1.0

    scale = np.where(varies, scale, typical)
    train = (train - mean) / scale
    test = (test - mean) / scale
    # Whichever Gram matrix is smaller; `along` is what a test item has along each direction, times sqrt(eigenvalue).
    if train.shape[0] <= train.shape[1]:
        values, vectors = np.linalg.eigh(train @ train.T)  # (n,), (n, n)
        along = test @ train.T @ vectors  # (m, n)
    else:
        values, vectors = np.linalg.eigh(train.T @ train)  # (d,), (d, d)
        along = test @ vectors * np.sqrt(np.maximum(values, 0))  # (m, d)

    kept = values > 1e-10 * max(values[-1], 1e-300)  # what is below is rounding, the pseudo-inverse leaves it out
    reached = np.square(along[:, kept] / np.sqrt(values[kept])).sum(axis=1)  # (m,)
    power = np.square(test).sum(axis=1)  # (m,)
    share = 1 - np.divide(reached, power, out=np.ones_like(power), where=power > 0)
    return np.clip(share, 0, 1)


def collapse_of_data(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B6: share of the test features outside the span of the training features. No brain takes part.

    Parameters
    ----------
    evidence : Evidence
        with ``targets``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: largest mean share out of reach over the spaces, 0 to 1
    """
    targets = needed(evidence.targets)
    if not targets:
        return not_applicable("No space of features to look at.")

    shares = {}
    parts = []
    lost = []
    for target in targets:
        share = float(irreducible_shares(target.train, target.true).mean())
        n = target.n_train
        d = target.train.shape[1]
        shares[target.space] = share

        bound = ""
        if target.is_sampled and share > 0:  # more training items can only reach more
            bound = " at most"

        parts.append(f"{target.space}: {100 * share:.1f} %{bound} ({n} training items, {d} dimensions)")
        if share > MOST_OUTSIDE and not (target.is_sampled and n >= d):
            lost.append(target.space)

    worst = max(shares.values())
    facts = f"Of what tells test items apart, a linear map can reach nothing of this share: {'; '.join(parts)}."
    if lost:
        return flagged(
            worst,
            f"{facts} More than half of {few(lost)} is out of reach before any brain comes in: use more training items, "
            "or features of fewer dimensions.",
            out_of_reach=shares,
        )

    return passed(worst, facts, out_of_reach=shares)


# -- B7: collapse of predictions ---------------------------------------------------------------------------------------

FEWEST_ROWS = 8  # test items
LEAST_DIMENSIONS = 0.25  # of those the truths use; a judgement
LINE = 1.1  # effective dimensions of what lies along one direction; pictures themselves may have no more than four
LEAST_VARIANCE = 0.01
MOST_ALIKE = 0.9  # mean cosine between predictions
_NEIGHBOURS = 10


@dataclass(frozen=True)
class PredictionVariety:
    """How much predictions differ from each other, next to the truths they are for.

    Attributes
    ----------
    dimensions, true_dimensions : float
        effective ones, see `participation_ratio`
    variance : float
        of the predictions over that of the truths
    alike : float
        mean cosine between two predictions, relative to the training mean
    nearest, true_nearest : int
        number of distinct training items that are nearest to a prediction, and to a truth
    hubness : float
        skewness of how often a truth is among the ten nearest to a prediction
    """

    dimensions: float
    true_dimensions: float
    variance: float
    alike: float
    nearest: int
    true_nearest: int
    hubness: float


def participation_ratio(rows: np.ndarray) -> float:
    """Effective number of dimensions, (sum of eigenvalues)^2 / sum of their squares, of the covariance of the rows.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        items

    Returns
    -------
    float
        from 1 to min(n - 1, d); 0 where rows do not vary

    Examples
    --------
    >>> float(round(participation_ratio(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6))
    2.0
    """
    x = np.asarray(rows, dtype=np.float64)
    x = x - x.mean(axis=0)

    # Both have the same eigenvalues that are not 0, and neither needs to be decomposed: their sum is the trace, that of
    # their squares the sum of all squared entries.
    if x.shape[0] <= x.shape[1]:
        gram = x @ x.T  # (n, n)
    else:
        gram = x.T @ x  # (d, d)
    power = np.square(gram).sum()
    if power > 0:
        return float(np.trace(gram) ** 2 / power)
    return 0.0


def variety_of(target: DecodingTarget) -> PredictionVariety:
    """Measure predictions against truths. Rows that are not finite are left out of both.

    Parameters
    ----------
    target : DecodingTarget
        with at least two predictions that are finite

    Returns
    -------
    PredictionVariety
        relative to the training mean
    """
    train, true, ours = target.centred()
    finite = np.isfinite(ours).all(axis=1)
    true = true[finite]
    ours = ours[finite]
    n = len(ours)

    # Mean cosine over pairs, by the length of the sum of unit vectors.
    lengths = np.linalg.norm(ours, axis=1, keepdims=True)
    units = ours / np.maximum(lengths, 1e-12 * max(1.0, float(np.abs(true).max(initial=0))))
    alike = (np.square(units.sum(axis=0)).sum() - np.square(units).sum()) / max(1, n * (n - 1))

    near = np.nan_to_num(similarity(ours, true), nan=-2.0)  # (predictions, truths)
    k = min(_NEIGHBOURS, n // 3)
    neighbours = np.argsort(-near, axis=1, kind="stable")[:, :k]  # (predictions, k)
    counts = np.bincount(neighbours.ravel(), minlength=n).astype(float)  # (truths,)
    off = counts - counts.mean()
    hubness = (off**3).mean() / max(np.square(off).mean(), 1e-12) ** 1.5

    return PredictionVariety(
        dimensions=participation_ratio(ours),
        true_dimensions=participation_ratio(true),
        variance=float(ours.var(axis=0).sum() / max(true.var(axis=0).sum(), 1e-300)),
        alike=float(alike),
        nearest=_distinct_rows(ours, train),
        true_nearest=_distinct_rows(true, train),
        hubness=float(hubness),
    )


def _distinct_rows(rows: np.ndarray, train: np.ndarray) -> int:
    """How many different training items are the nearest to some row."""
    near = np.nan_to_num(similarity(rows, train), nan=-2.0)  # (rows, n_train); what is not defined is nearest to none
    return len(np.unique(first_best(near)))


def collapse_of_predictions(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B7: effective dimensions, variance and variety of predictions, next to those of the truths.

    Parameters
    ----------
    evidence : Evidence
        with ``targets``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: smallest effective dimension over the spaces, as a share of the truth's
    """
    usable = []
    for target in needed(evidence.targets):
        if np.isfinite(target.predicted).all(axis=1).sum() >= FEWEST_ROWS:
            usable.append(target)

    if not usable:
        return not_applicable(f"Fewer than {FEWEST_ROWS} test items were decoded.")

    parts = []
    collapsed = []
    details = {}
    worst = np.inf

    for target in usable:
        v = variety_of(target)
        details[target.space] = asdict(v)
        share = v.dimensions / max(v.true_dimensions, 1e-12)
        worst = min(worst, share)
        parts.append(
            f"{target.space}: effective dimension {v.dimensions:.1f} of {v.true_dimensions:.1f}, variance "
            f"{100 * v.variance:.0f} % of the truth's, mean cosine {v.alike:.2f}, {v.nearest} distinct nearest training items "
            f"(truths: {v.true_nearest}), hubness {v.hubness:.1f}"
        )

        is_line = v.dimensions < LINE and v.true_dimensions > 2
        if share < LEAST_DIMENSIONS or is_line or v.variance < LEAST_VARIANCE or v.alike > MOST_ALIKE:
            collapsed.append(target.space)

    if collapsed:
        parts.append(f"predictions have collapsed in {few(collapsed)}")
        return flagged(worst, f"{'; '.join(parts)}.", variety=details, collapsed=collapsed)

    return passed(worst, f"{'; '.join(parts)}.", variety=details, collapsed=collapsed)


# -- B8: more than a cluster? ------------------------------------------------------------------------------------------

FEWEST_IN_CLUSTER = 20  # test items, and training items
_REGIONS = 8  # where pictures form no clusters of their own
_CLUSTER_ALPHA = 0.05


class Naming(NamedTuple):
    """What naming the group of each test item is worth, in two-way identification among all test items.

    Attributes
    ----------
    groups : str
        what they are, for people
    ours : float
        of the predictions
    member_of_true, member_of_named : float
        of a random training item of the truth's group, and of the group that the prediction is nearest to; the mean
        over all its items
    centre_of_named : float
        of the mean training item of that group
    above : bool
        whether ours is above `member_of_named`, by an interval and a test over items
    within : float
        identification among truths of one group, chance 1/2
    p_within : float
        its p, by pairings inside groups
    n_groups, n_named : int
        number of groups; how many were ever named
    """

    groups: str
    ours: float
    member_of_true: float
    member_of_named: float
    centre_of_named: float
    above: bool
    within: float
    p_within: float
    n_groups: int
    n_named: int


def naming(target: DecodingTarget, rng: np.random.Generator) -> list[Naming]:
    """Against clusters of the features and, where there are any, against categories.

    Parameters
    ----------
    target : DecodingTarget
        of one space
    rng : numpy.random.Generator
        of clusters, bootstrap and permutations

    Returns
    -------
    list of Naming
        clusters first
    """
    train, true, _ = target.centred()
    name, members, true_members = _clusters(train, true, rng)
    found = [_naming(name, members, true_members, target, rng)]

    if target.labels is not None and target.test_labels is not None:
        labels = np.concatenate([np.asarray(target.labels, dtype=str), np.asarray(target.test_labels, dtype=str)])
        names, both = np.unique(labels, return_inverse=True)
        members = both[: len(train)]
        true_members = both[len(train) :]

        # A category that training lacks has no item to draw, and one item each leaves nothing to tell apart.
        if 1 < len(names) < len(train) // 2 and np.isin(true_members, members).all():
            found.append(_naming("categories", members, true_members, target, rng))

    return found


def _clusters(train: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray, np.ndarray]:
    """What the groups are called, the group of each training item, and that of each test item."""
    points = directions(np.concatenate([train, true]))
    k = number_of_clusters(points, rng)
    name = "clusters"

    if k == 1:
        k = min(_REGIONS, len(points) // 5)
        name = "regions, as there are no clusters,"

    members = spherical_kmeans(points, k, rng).members
    _, members = np.unique(members, return_inverse=True)  # empty clusters have no number
    inside = members[: len(train)]
    true_members = members[len(train) :]

    # Test items of a cluster without training items go to the nearest that has some.
    lost = ~np.isin(true_members, inside)
    if lost.any():
        centres, names = _centres(train, inside)
        true_members = true_members.copy()
        true_members[lost] = names[first_best(np.nan_to_num(similarity(true[lost], centres)))]

    return name, inside, true_members


def _centres(train: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n_groups, d) mean training item of each group, and the (n_groups,) groups."""
    names = np.unique(members)
    centres = [train[members == group].mean(axis=0) for group in names]
    return np.stack(centres), names


def _naming(
    groups: str, members: np.ndarray, true_members: np.ndarray, target: DecodingTarget, rng: np.random.Generator
) -> Naming:
    """Compare predictions with training items of the group they name, in one way of grouping."""
    train, true, ours = target.centred()
    finite = np.isfinite(ours).all(axis=1)
    items = np.arange(len(true))
    centres, names = _centres(train, members)

    near = np.nan_to_num(similarity(ours, centres))  # (n_test, n_groups)
    near[~finite] = 0
    named = first_best(near)  # (n_test,): group that each prediction is nearest to
    meant = np.searchsorted(names, true_members)  # (n_test,): the truth's group

    by_item = rank_matrix(similarity(train, true))  # (n_train, n_test): what a training item would score for each truth
    by_member = np.empty((len(names), len(true)))
    for g, group in enumerate(names):
        by_member[g] = by_item[members == group].mean(axis=0)

    by_centre = rank_matrix(similarity(centres, true))  # (n_groups, n_test)

    s = similarity(ours, true)  # (n_test, n_test)
    own = rank_matrix(s)[items, items]
    member_of_named = by_member[named, items]
    gap = paired_difference(own, member_of_named, rng=rng, n_draws=1000, n_flips=5000)

    inside = rank_matrix(s, labels=true_members)
    diagonal = inside[items, items]
    known = np.isfinite(diagonal)
    null = permutation_null(inside, rng=rng, n_permutations=5000, groups=true_members)

    if known.any():
        within = float(diagonal[known].mean())
    else:
        within = NOTHING

    return Naming(
        groups=groups,
        ours=float(own.mean()),
        member_of_true=float(by_member[meant, items].mean()),
        member_of_named=float(member_of_named.mean()),
        centre_of_named=float(by_centre[named, items].mean()),
        above=bool(gap.low > 0 and gap.p < _CLUSTER_ALPHA),
        within=within,
        p_within=float(null.p),
        n_groups=len(names),
        n_named=len(np.unique(named)),
    )


def _distinct(rows: np.ndarray) -> int:
    """How many rows differ by more than rounding."""
    size = max(float(np.nanmax(np.abs(rows), initial=0)), 1e-300)
    return len(np.unique(np.round(rows / size, 4), axis=0))


def category_only(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B8: predictions against training items of the same cluster, and inside clusters.

    Parameters
    ----------
    evidence : Evidence
        with ``targets``, and their labels where there are categories
    rng : numpy.random.Generator
        draws clusters, bootstrap and permutations

    Returns
    -------
    CheckResult
        value: two-way identification less that of drawing an item of the group named, the smallest
    """
    targets = sorted(needed(evidence.targets), key=lambda target: target.space == PICTURES)  # latents first
    if not targets or min(len(targets[0].true), len(targets[0].train)) < FEWEST_IN_CLUSTER:
        return not_applicable(f"Fewer than {FEWEST_IN_CLUSTER} test or training items to put into clusters.")

    target = targets[0]
    namings = naming(target, rng)
    worries = []
    parts = []
    gains = []  # over drawing an item of the group named

    for n in namings:
        gains.append(n.ours - n.member_of_named)
        parts.append(
            f"{n.n_groups} {n.groups}: ours {n.ours:.3f}, a training item of the true one {n.member_of_true:.3f}, of the "
            f"one decoded {n.member_of_named:.3f}, its mean {n.centre_of_named:.3f}, inside {n.within:.3f} "
            f"(p = {n.p_within:.2g}, chance 0.5)"
        )

        kind = n.groups.split(",")[0]
        if not n.above:
            worries.append(f"not above drawing any training item of the one of the {kind} that it names")

        # The mean of a group is nearer to all its members than one of them is, so a decoder that draws it is above such a
        # draw; but it tells none of them apart.
        if not n.p_within < _CLUSTER_ALPHA:
            worries.append(f"not able to tell items inside {kind} apart")

    # Names that are wrong at times follow the look of the picture, so they tell some items of a group apart by luck; but
    # then there are no more drawings than names.
    n_distinct = _distinct(target.predicted)
    most = max(n.n_groups for n in namings)
    if n_distinct <= most and 2 * n_distinct <= len(target.true):
        worries.append(f"made of only {n_distinct} different items for {len(target.true)}")

    facts = f"Two-way identification in {target.space}; {'; '.join(parts)}"
    value = min(gains)
    details = {"space": target.space, "naming": [n._asdict() for n in namings], "n_distinct": n_distinct}
    if worries:
        classes = f"It is {few(worries)}: classification may explain the result."
        return flagged(value, f"{facts}. {classes}", **details)

    return passed(value, f"{facts}.", **details)
