"""B: is it the brain?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

from phosphene.data.clusters import directions, number_of_clusters, spherical_kmeans
from phosphene.metrics.identification import rank_matrix, similarity, two_way
from phosphene.metrics.registry import find_metric
from phosphene.metrics.statistics import paired_difference, permutation_null
from phosphene.metrics.ties import first_best
from phosphene.types.identity import few
from phosphene.validity.base import Answer, Evidence
from phosphene.validity.targets import PICTURES, DecodingTarget

MAX_OFFSET = 10


CONTROLS = ("shuffled", "noise", "mean")


HEADLINES = ("pixcorr", "mse", "ssim.2d", "two_way")  # metric families that controls are compared in


def alignment_alarm(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B1: does the true order beat shifted and wrongly sorted ones, and chance?"""
    ranks = rank_matrix(evidence.similarity)
    n = len(ranks)
    if n < 5:
        return "not applicable", float("nan"), f"{n} test items have too few orders for a test at one percent."

    null = permutation_null(ranks, rng=rng)
    true = float(np.diagonal(ranks).mean())

    # Without the part that an item owes to being easy on its own, a shift that leaves out the hard ones wins nothing.
    centred = ranks - ranks.mean(axis=1, keepdims=True) - ranks.mean(axis=0) + 2 * ranks.mean()
    others = {}
    reach = min(MAX_OFFSET, n // 2)

    for offset in (o for o in range(-reach, reach + 1) if o):
        others[f"truths shifted by {offset:+d}"] = np.diagonal(centred, offset)

    for name, order in _wrong_orders(evidence, n).items():
        others[name] = centred[np.arange(n), order]

    # A shift pairs fewer items and there are many orders to be lucky in, so each must clear its own bar. Neighbours of
    # one class do as well as the truth when a decoder knows the class alone: that is no misalignment, so a rival must
    # also be better than the true order by more than luck.
    spread = {name: (null.percentile_99 - null.mean) / ndtri(0.99) * np.sqrt(n / len(x)) for name, x in others.items()}
    above = {name: float(x.mean() - np.diagonal(centred).mean()) for name, x in others.items()}
    strict = ndtri(1 - 0.01 / len(others))
    bar = {name: null.mean + strict * spread[name] for name in others}
    rivals = [name for name in others if above[name] > 0 and true + above[name] > bar[name]]
    name = max(rivals, key=above.get, default=None)

    if name is not None and above[name] > np.sqrt(2) * strict * spread[name]:
        return (
            "fail",
            true,
            f"Trials look misaligned: two-way identification is {true:.3f} as paired but {true + above[name]:.3f} with "
            f"{name}.",
        )

    if not true > null.percentile_99:
        return (
            "fail",
            true,
            f"Trials look misaligned, or nothing was decoded: two-way identification of {true:.3f} is not above the "
            f"99th percentile of random pairings ({null.percentile_99:.3f}), and no other order is clearly better.",
        )

    if name is not None:
        return "flag", true, f"The order {name} does as well ({true + above[name]:.3f}) as the true one ({true:.3f})."

    return (
        "pass",
        true,
        f"The true order scores {true:.3f}, above {null.percentile_99:.3f} (99th percentile of random pairings) and "
        f"above the {len(others)} other orders tried.",
    )


def _wrong_orders(evidence: Evidence, n: int) -> dict[str, np.ndarray]:
    orders = {name: np.asarray(order) for name, order in evidence.orders.items()}
    if evidence.test_ids is not None:
        ids = np.asarray(evidence.test_ids)
        orders["truths sorted by id"] = np.argsort(ids, kind="stable")
        orders["decoded items sorted by id"] = np.argsort(np.argsort(ids, kind="stable"))
        orders["truths sorted by id as text"] = np.argsort(ids.astype(str), kind="stable")

    orders["truths in reverse"] = np.arange(n)[::-1]
    return {name: order for name, order in orders.items() if not np.array_equal(order, np.arange(n))}


def against_controls(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B3: is the real response better than shuffled, matched-noise and mean responses through the same pipeline?"""
    scores = evidence.scores
    present = [control for control in CONTROLS if (scores["input"] == control).any()]
    if not present:
        return "not applicable", float("nan"), "No control input was scored."

    clear = []
    unclear = []
    beaten = []

    for metric in sorted(set(scores.loc[scores["input"] == "brain", "metric"])):
        if not any(metric == head or metric.startswith(head + ".") for head in HEADLINES):
            continue

        for control in present:
            answer = compare(scores, evidence.differences, metric, control)
            if answer is not None:
                {"above": clear, "unclear": unclear, "below": beaten}[answer].append(f"{metric} against {control}")

    n = len(clear) + len(unclear) + len(beaten)
    if n == 0:
        return "not applicable", float("nan"), "Brain and control share no headline metric."

    missing = [control for control in CONTROLS if control not in present]
    if missing:
        tail = f" Not run: {', '.join(missing)}."
    else:
        tail = ""

    share = len(clear) / n
    if not clear:
        return "fail", share, f"Not clearly above a control in any of {n} comparisons.{tail}"

    if beaten or unclear:
        if beaten:
            parts = [f"below the control in {', '.join(beaten)}"]
        else:
            parts = []

        if unclear:
            parts += [f"not clearly above it in {', '.join(unclear)}"]
        else:
            parts += []

        return (
            "flag",
            share,
            f"Clearly above its controls in {len(clear)} of {n} comparisons; {'; '.join(parts)}.{tail}",
        )

    return ("flag" if missing else "pass"), share, f"Clearly above {', '.join(present)} in all {n} comparisons.{tail}"


def compare(scores: pd.DataFrame, differences: pd.DataFrame | None, metric: str, control: str) -> str | None:
    """Where the brain stands against a control: ``above``, ``unclear``, ``below``, or None without both numbers.

    A paired difference decides when there is one: interval beyond 0 and p below 0.05, since with few stimuli either
    alone is too easily had. Otherwise the two intervals must not overlap.
    """
    if differences is not None:
        row = differences[(differences["metric"] == metric) & (differences["control"] == control)]
        if len(row) and np.isfinite(row.iloc[0]["ci_low"]):
            low, high, p = row.iloc[0][["ci_low", "ci_high", "p"]]
            if p >= 0.05 or low <= 0 <= high:
                return "unclear"

            if low > 0:
                return "above"

            return "below"

    ours, theirs = (scores[(scores["metric"] == metric) & (scores["input"] == name)] for name in ("brain", control))
    if not len(ours) or not len(theirs):
        return None

    ours = ours.iloc[0]
    theirs = theirs.iloc[0]

    entry = find_metric(metric)
    if entry is None:
        return None

    if entry.better == "lower":
        above = ours["ci_high"] < theirs["ci_low"]
        below = ours["ci_low"] > theirs["ci_high"]
    else:
        above = ours["ci_low"] > theirs["ci_high"]
        below = ours["ci_high"] < theirs["ci_low"]

    if above:
        return "above"

    if below:
        return "below"

    return "unclear"


_MOST_TRIALS = 1500


_PERMUTATIONS = 1000


_FEWEST_REPEATED = 5  # stimuli shown more than once


_REPEATS_ALPHA = 0.01


def repeat_correlation(betas: np.ndarray, stimuli: np.ndarray, sessions: np.ndarray, rng: np.random.Generator):
    """Mean over voxels of the correlation between repeats of a stimulus, and how often random labels do as well.

    Voxels are standardised in each session, and labels are dealt anew inside sessions, so that a session's own level is
    no agreement.

    Parameters
    ----------
    betas : ndarray of shape (n_trials, n_voxels)
    stimuli, sessions : ndarray of shape (n_trials,)
    rng : numpy.random.Generator
        deals labels

    Returns
    -------
    (correlation, p, 99th percentile of dealt labels, number of stimuli with repeats); NaN without repeats
    """
    stimuli, sessions = (np.unique(np.asarray(x, dtype=str), return_inverse=True)[1] for x in (stimuli, sessions))
    n_repeated = int((np.bincount(stimuli) > 1).sum())
    if not n_repeated:
        return float("nan"), float("nan"), float("nan"), 0

    if np.bincount(sessions).min() < _FEWEST_REPEATED:
        sessions = np.zeros_like(sessions)

    z = np.asarray(betas, dtype=np.float64)
    z = z[:, np.isfinite(z).all(axis=0)]
    z = z.copy()

    for session in np.unique(sessions):
        mine = sessions == session
        z[mine] -= z[mine].mean(axis=0)
        z[mine] /= np.maximum(z[mine].std(axis=0), 1e-12)

    alike = z @ z.T / max(1, z.shape[1])
    same = stimuli[:, None] == stimuli[None, :]
    first, second = np.nonzero(np.triu(same, 1))
    found = float(alike[first, second].mean())
    dealt = np.empty(_PERMUTATIONS)
    members = [np.flatnonzero(sessions == s) for s in np.unique(sessions)]

    for i in range(_PERMUTATIONS):
        order = np.arange(len(z))
        for m in members:
            order[m] = rng.permutation(m)

        dealt[i] = alike[order[first], order[second]].mean()

    p = float((1 + (dealt >= found - 1e-12).sum()) / (_PERMUTATIONS + 1))
    return found, p, float(np.quantile(dealt, 0.99)), n_repeated


def repeat_reliability(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B2: in training and in test trials apart, as labels may be wrong in one of them."""
    table = evidence.trials
    shown = table["stimulus"].astype(str).to_numpy()
    rows = {"training": np.concatenate([a for a, _ in evidence.sides[:1]] or [np.arange(0)])}
    rows["test"] = np.unique(np.concatenate([b for _, b in evidence.sides] or [np.arange(0)]).astype(np.intp))
    said = []
    wrong = {}
    agree = []
    values = []

    for side, mine in rows.items():
        mine = np.sort(_whole_stimuli(shown, mine.astype(np.intp), rng))
        if not len(mine):
            continue

        sessions = table["session"].to_numpy()[mine]
        found, p, bar, n = repeat_correlation(evidence.responses[mine], shown[mine], sessions, rng)
        values.append(found)
        said.append(
            f"{side}: r = {found:.3f} over {n} pictures, {bar:.3f} for the best percent of dealt labels (p = {p:.2g})"
        )

        if p < _REPEATS_ALPHA:
            agree.append(found)
        else:
            # Rows of a session add up to nothing, so labels dealt at random agree a little less than not at all.
            wrong[side] = bar + 1 / (len(mine) - 1)

    if not said:
        return "not applicable", float("nan"), "No picture was shown often enough to compare its repeats."

    facts = f"Mean correlation of repeats over voxels, {'; '.join(said)}"
    named = " and ".join(wrong)

    # A bar at the 99th percentile of dealt labels is 2.3 of their spreads above their middle. Repeats as good as those of
    # the other side would clear it nearly always only if they are as far above it again.
    if wrong and agree and max(agree) < 2 * max(wrong.values()):
        return "flag", min(values), f"{facts}. Too few repeats in {named} trials to show that labels are right there."
    if wrong:
        return "fail", min(values), f"{facts}. In {named} trials, labels are wrong or responses are noise."

    return "pass", min(values), f"{facts}."


def _whole_stimuli(shown: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of stimuli shown more than once, at most 1,500 of them, all repeats of a stimulus together."""
    _, which, counts = np.unique(shown[rows], return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts > 1)
    if len(repeated) < _FEWEST_REPEATED:
        return np.empty(0, dtype=np.intp)

    chosen = rng.permutation(repeated)
    keep = chosen[: max(_FEWEST_REPEATED, int(np.searchsorted(np.cumsum(counts[chosen]), _MOST_TRIALS)))]

    return rows[np.isin(which, keep)]


STEPS = (1, 2, 5, 10, 20, 50, 100, 200)


"""Dimensions of brain signal tried, before all of them."""


FEW = 2


"""Dimensions that are too few to say what was seen; a judgement."""


_PENALTIES = np.logspace(-4, 4, 17)  # of the mean eigenvalue


_MOST_TARGETS = 512


_FEWEST_POINTS = 10


_REACH_ALPHA = 0.05


# -- B4: ceiling of the method -----------------------------------------------------------------------------------------
def ceiling_of_method(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B4: scores of the true features through the same generator, from the control ``truth``."""
    scores = evidence.scores
    truth = scores[scores["input"] == "truth"]
    if not len(truth):
        return "not applicable", float("nan"), "The true features were not drawn: no input 'truth' was decoded."

    metrics = [m for m in truth["metric"] if m.startswith("two_way.") and _row(scores, "brain", m) is not None]
    metrics.sort(key=lambda m: (not m.startswith("two_way.pictures."), m))  # what is seen in pictures comes first
    if not metrics:
        return "not applicable", float("nan"), "Brain and true features share no identification score."

    tops = [_row(scores, "truth", m) for m in metrics]
    ours = _row(scores, "brain", metrics[0])
    room = tops[0]["value"] - 0.5

    if room > 0:
        value = float((ours["value"] - 0.5) / room)
    else:
        value = float("nan")

    said = f"True features through the generator reach {_list(metrics, tops)}"
    if all(np.isfinite(t["p"]) and t["p"] >= _REACH_ALPHA for t in tops):
        return "fail", value, f"{said}: it does not draw what it is told, so its pictures say nothing of a brain."

    beyond = [m for m in (*metrics, "ssim.2d", "pixcorr") if compare(scores, None, m, "truth") == "above"]
    if beyond:
        return "flag", value, (
            f"{said}. The brain is above that in {few(beyond)}: the score rewards something else than the true features, "
            "such as blur."
        )  # fmt: skip

    return "pass", value, f"{said}; the brain reaches {100 * value:.0f} % of that above chance ({metrics[0]})."


def _row(scores: pd.DataFrame, name: str, metric: str) -> pd.Series | None:
    rows = scores[(scores["input"] == name) & (scores["metric"] == metric) & np.isfinite(scores["value"])]
    if len(rows):
        return rows.iloc[0]

    return None


def _list(metrics: list[str], rows: list[pd.Series]) -> str:
    return ", ".join(f"{m} {r['value']:.3f}" for m, r in list(zip(metrics, rows, strict=True))[:3])


# -- B5: bottleneck curve ----------------------------------------------------------------------------------------------
def bottleneck_curve(target: DecodingTarget) -> pd.DataFrame:
    """Two-way identification by a cheap decoder that sees the brain through r principal components.

    Components of the training responses (voxels standardised); ridge from the first r of them to the features; one penalty
    for each r by generalised cross-validation. On principal components ridge is a factor for each, so all r cost one
    eigendecomposition. More than 512 features are mixed at random into 512, which keeps similarities.

    Parameters
    ----------
    target : DecodingTarget
        with betas of both sides

    Returns
    -------
    DataFrame
        table with columns dimensions, two_way; the last row uses all of them
    """
    # Whatever the check, one curve: it is also written beside the verdict.
    rng = np.random.default_rng(0)
    x, new = (np.asarray(b, dtype=np.float64) for b in (target.betas, target.test_betas))
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

    if len(x) <= x.shape[1]:
        values, u = np.linalg.eigh(x @ x.T)
    else:
        values, v = np.linalg.eigh(x.T @ x)

    order = np.argsort(-values)
    order = order[values[order] > 1e-9 * values.max()]
    values = values[order]
    size = np.sqrt(values)

    if len(x) <= x.shape[1]:
        u = u[:, order]
        seen = new @ (x.T @ u) / size
    else:
        u = x @ v[:, order] / size
        seen = new @ v[:, order]

    along = u.T @ y  # (k, d)
    power = np.square(along).sum(axis=1)
    total = float(np.square(y).sum())
    n = len(x)
    rows = []

    for r in [*(s for s in STEPS if s < len(values)), len(values)]:
        kept = [values[:r] / (values[:r] + a * values.mean()) for a in _PENALTIES]
        errors = [(total - (power[:r] * (1 - (1 - f) ** 2)).sum()) / max(n - 1 - f.sum(), 1e-9) ** 2 for f in kept]
        f = kept[int(np.argmin(errors))]
        predicted = (seen[:, :r] * (f / size[:r])) @ along[:r]
        rows.append((r, float(np.mean(two_way(similarity(predicted, true))))))

    table = pd.DataFrame(rows, columns=["dimensions", "two_way"])
    table.attrs["p"] = permutation_null(rank_matrix(similarity(predicted, true)), rng=rng, n_permutations=2000).p

    return table


def curve_target(evidence: Evidence) -> DecodingTarget | None:
    """The space the curve is drawn in: the first of latents, pixels where there are none."""
    having = [t for t in evidence.targets or () if t.betas is not None and t.test_betas is not None]
    having = [t for t in having if min(len(t.true), len(t.train)) >= _FEWEST_POINTS]
    return next((t for t in having if t.space != PICTURES), having[0] if having else None)


def bottleneck(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B5: how many dimensions of brain signal give 90 % of the score."""
    target = curve_target(evidence)
    if target is None:
        return "not applicable", float("nan"), f"Fewer than {_FEWEST_POINTS} test or training items with responses."

    table = bottleneck_curve(target)
    dimensions = table["dimensions"].to_numpy()
    value = table["two_way"].to_numpy()
    head = f"A plain ridge from principal components of the responses to {target.space} (not the recipe itself)"

    if not table.attrs["p"] < _REACH_ALPHA:
        return "not applicable", float("nan"), (
            f"{head} identifies {value[-1]:.3f} with all {dimensions[-1]}, not above chance (p = {table.attrs['p']:.2g})."
        )  # fmt: skip

    enough = int(dimensions[np.flatnonzero(value - 0.5 >= 0.9 * (value[-1] - 0.5))[0]])
    curve = ", ".join(f"{d}: {v:.3f}" for d, v in zip(dimensions, value, strict=True))
    said = f"{head} reaches 90 % of its two-way identification above chance with {enough} dimensions ({curve})"

    if enough <= FEW < dimensions[-1]:
        return "flag", enough, f"{said}. So few say little of what was seen: the test set is told apart by very little."

    return "pass", enough, f"{said}."


# -- B9: out of distribution -------------------------------------------------------------------------------------------
def out_of_distribution(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B9: identification on stimuli of another kind than those of training."""
    if not evidence.other_kind:
        if evidence.held_out:
            half = f" Whole {evidence.held_out} were held out, which is a step towards it."
        else:
            half = ""

        return "not tested", float("nan"), f"Test stimuli are of the same kind as those of training.{half}"

    if evidence.similarity is None:
        return "not tested", float("nan"), f"Test stimuli are {evidence.other_kind}, but nothing was decoded."

    ranks = rank_matrix(evidence.similarity)
    null = permutation_null(ranks, rng=rng)
    value = float(np.diagonal(ranks).mean())
    said = f"On {evidence.other_kind}, two-way identification is {value:.3f} (chance 0.5, p = {null.p:.2g})"

    if null.p < _REACH_ALPHA:
        return "pass", value, f"{said}: it holds on stimuli of another kind."

    return "flag", value, f"{said}: nothing is left on stimuli of another kind."


FEWEST_ROWS = 8  # test items


MOST_OUTSIDE = 0.5  # share of the targets' variance that no linear map can reach; a judgement


LEAST_DIMENSIONS = 0.25  # of those the truths use; a judgement


LINE = 1.1  # effective dimensions of what lies along one direction; pictures themselves may have no more than four


LEAST_VARIANCE = 0.01


MOST_ALIKE = 0.9  # mean cosine between predictions


_NEIGHBOURS = 10


# -- B6: of the data ---------------------------------------------------------------------------------------------------
def irreducible_shares(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Share of each test item that no linear map from anywhere to these training targets can predict.

    A linear map predicts combinations of training targets and nothing else. With H the training features, centred and
    scaled, the best prediction of h is its projection on their span, H' (H H')^+ H h; the share is squared residual over
    squared norm.

    Parameters
    ----------
    train : ndarray of shape (n, d)
    test : ndarray of shape (m, d)

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
    scale = np.where(varies, scale, scale[varies].mean() if varies.any() else 1.0)
    train = (train - mean) / scale
    test = (test - mean) / scale

    if train.shape[0] <= train.shape[1]:
        values, vectors = np.linalg.eigh(train @ train.T)
        along = test @ train.T @ vectors
    else:
        values, vectors = np.linalg.eigh(train.T @ train)
        along = test @ vectors * np.sqrt(np.maximum(values, 0))

    kept = values > 1e-10 * max(values[-1], 1e-300)
    reached = np.square(along[:, kept] / np.sqrt(values[kept])).sum(axis=1)
    power = np.square(test).sum(axis=1)
    share = 1 - np.divide(reached, power, out=np.ones_like(power), where=power > 0)

    return np.clip(share, 0, 1)


def collapse_of_data(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B6: share of the test features outside the span of the training features. No brain takes part."""
    if not evidence.targets:
        return "not applicable", float("nan"), "No space of features to look at."

    worst = 0.0
    said = []
    lost = []

    for target in evidence.targets:
        share = float(irreducible_shares(target.train, target.true).mean())
        n = target.n_train
        d = target.train.shape[1]

        if target.is_sampled and share > 0:
            most = " at most"
        else:
            most = ""

        said.append(f"{target.space}: {100 * share:.1f} %{most} ({n} training items, {d} dimensions)")
        worst = max(worst, share)
        if share > MOST_OUTSIDE and not (target.is_sampled and n >= d):
            lost.append(target.space)

    facts = f"Of what tells test items apart, a linear map can reach nothing of this share: {'; '.join(said)}."
    if lost:
        return "flag", worst, (
            f"{facts} More than half of {few(lost)} is out of reach before any brain comes in: use more training items, "
            "or features of fewer dimensions."
        )  # fmt: skip

    return "pass", worst, facts


# -- B7: of predictions ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Spread:
    """How predictions are spread beside the truths they are for.

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

    Examples
    --------
    >>> float(round(participation_ratio(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6))
    2.0
    """
    x = np.asarray(rows, dtype=np.float64)
    x = x - x.mean(axis=0)

    if x.shape[0] <= x.shape[1]:
        gram = x @ x.T
    else:
        gram = x.T @ x

    power = np.square(gram).sum()
    if power > 0:
        return float(np.trace(gram) ** 2 / power)

    return 0.0


def spread_of(target: DecodingTarget) -> Spread:
    """Measure predictions against truths. Rows that are not finite are left out of both."""
    train, true, ours = target.centred()
    finite = np.isfinite(ours).all(axis=1)
    true = true[finite]
    ours = ours[finite]
    n = len(ours)
    lengths = np.linalg.norm(ours, axis=1, keepdims=True)
    units = ours / np.maximum(lengths, 1e-12 * max(1.0, float(np.abs(true).max(initial=0))))
    alike = (np.square(units.sum(axis=0)).sum() - np.square(units).sum()) / max(1, n * (n - 1))
    near = np.nan_to_num(similarity(ours, true), nan=-2.0)
    k = min(_NEIGHBOURS, n // 3)
    counts = np.bincount(np.argsort(-near, axis=1, kind="stable")[:, :k].ravel(), minlength=n).astype(float)
    off = counts - counts.mean()

    return Spread(
        participation_ratio(ours),
        participation_ratio(true),
        float(ours.var(axis=0).sum() / max(true.var(axis=0).sum(), 1e-300)),
        float(alike),
        _distinct_rows(ours, train),
        _distinct_rows(true, train),
        float((off**3).mean() / max(np.square(off).mean(), 1e-12) ** 1.5),
    )


def _distinct_rows(rows: np.ndarray, train: np.ndarray) -> int:
    return len(np.unique(first_best(np.nan_to_num(similarity(rows, train), nan=-2.0))))


def collapse_of_predictions(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B7: effective dimensions, variance and variety of predictions beside those of the truths."""
    usable = [t for t in evidence.targets if np.isfinite(t.predicted).all(axis=1).sum() >= FEWEST_ROWS]
    if not usable:
        return "not applicable", float("nan"), f"Fewer than {FEWEST_ROWS} test items were decoded."

    said = []
    collapsed = []
    worst = np.inf

    for target in usable:
        s = spread_of(target)
        share = s.dimensions / max(s.true_dimensions, 1e-12)
        worst = min(worst, share)
        said.append(
            f"{target.space}: effective dimension {s.dimensions:.1f} of {s.true_dimensions:.1f}, variance "
            f"{100 * s.variance:.0f} % of the truth's, mean cosine {s.alike:.2f}, {s.nearest} distinct nearest training items "
            f"(truths: {s.true_nearest}), hubness {s.hubness:.1f}"
        )

        is_line = s.dimensions < LINE and s.true_dimensions > 2
        if share < LEAST_DIMENSIONS or is_line or s.variance < LEAST_VARIANCE or s.alike > MOST_ALIKE:
            collapsed.append(target.space)

    if collapsed:
        said.append(f"predictions have collapsed in {few(collapsed)}")

    return "flag" if collapsed else "pass", worst, f"{'; '.join(said)}."


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
        identification among truths of one group, chance 1/2, and its p
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
    """Against clusters of the features and, where there are any, against categories."""
    train, true, ours = target.centred()
    finite = np.isfinite(ours).all(axis=1)
    found = [_naming(*_clusters(train, true, rng), train, true, ours, finite, rng)]

    if target.labels is not None and target.test_labels is not None:
        labels = np.asarray(target.labels, dtype=str), np.asarray(target.test_labels, dtype=str)
        names, both = np.unique(np.concatenate(labels), return_inverse=True)
        members = both[: len(train)]
        wanted = both[len(train) :]

        # A category that training lacks has no item to draw, and one item each leaves nothing to tell apart.
        if 1 < len(names) < len(train) // 2 and np.isin(wanted, members).all():
            found.append(_naming("categories", members, wanted, train, true, ours, finite, rng))

    return found


def _clusters(train: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray, np.ndarray]:
    points = directions(np.concatenate([train, true]))
    k = number_of_clusters(points, rng)
    name = "clusters"

    if k == 1:
        k = min(_REGIONS, len(points) // 5)
        name = "regions, as there are no clusters,"

    members = spherical_kmeans(points, k, rng).members
    # Test items of a cluster without training items go to the nearest that has some.
    members = np.unique(members, return_inverse=True)[1]
    inside = members[: len(train)]
    wanted = members[len(train) :]
    lost = ~np.isin(wanted, inside)

    if lost.any():
        centres, names = _centres(train, inside)
        wanted = wanted.copy()
        wanted[lost] = names[first_best(np.nan_to_num(similarity(true[lost], centres)))]

    return name, inside, wanted


def _centres(train: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = np.unique(members)
    return np.stack([train[members == g].mean(axis=0) for g in names]), names


def _naming(
    groups: str,
    members: np.ndarray,
    wanted: np.ndarray,
    train: np.ndarray,
    true: np.ndarray,
    ours: np.ndarray,
    finite: np.ndarray,
    rng: np.random.Generator,
) -> Naming:
    centres, names = _centres(train, members)
    near = np.nan_to_num(similarity(ours, centres))
    near[~finite] = 0
    said = first_best(near)
    meant = np.searchsorted(names, wanted)
    s = similarity(ours, true)
    items = np.arange(len(true))
    each = rank_matrix(similarity(train, true))  # what a training item would score for each truth
    member = np.stack([each[members == g].mean(axis=0) for g in names])
    centre = rank_matrix(similarity(centres, true))
    own = rank_matrix(s)[items, items]
    named = member[said, items]
    gap = paired_difference(own, named, rng=rng, n_draws=1000, n_flips=5000)
    inside = rank_matrix(s, labels=wanted)
    diagonal = inside[items, items]
    known = np.isfinite(diagonal)
    null = permutation_null(inside, rng=rng, n_permutations=5000, groups=wanted)

    return Naming(
        groups,
        float(own.mean()),
        float(member[meant, items].mean()),
        float(named.mean()),
        float(centre[said, items].mean()),
        bool(gap.low > 0 and gap.p < _CLUSTER_ALPHA),
        float(diagonal[known].mean()) if known.any() else float("nan"),
        float(null.p),
        len(names),
        len(np.unique(said)),
    )


def _distinct(rows: np.ndarray) -> int:
    """How many rows differ by more than rounding."""
    size = max(float(np.nanmax(np.abs(rows), initial=0)), 1e-300)
    return len(np.unique(np.round(rows / size, 4), axis=0))


def category_only(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B8: predictions against training items of the same cluster, and inside clusters."""
    targets = [t for t in evidence.targets if t.space != PICTURES] or list(evidence.targets)
    if targets:
        target = targets[0]
    else:
        target = None

    if target is None or min(len(target.true), len(target.train)) < FEWEST_IN_CLUSTER:
        return (
            "not applicable",
            float("nan"),
            f"Fewer than {FEWEST_IN_CLUSTER} test or training items to put into clusters.",
        )

    found = naming(target, rng)
    worries = []
    said = []

    for n in found:
        said.append(
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
    drawn = _distinct(target.predicted)
    most = max(n.n_groups for n in found)
    if drawn <= most and 2 * drawn <= len(target.true):
        worries.append(f"made of only {drawn} different items for {len(target.true)}")

    facts = f"Two-way identification in {target.space}; {'; '.join(said)}"
    value = min(n.ours - n.member_of_named for n in found)
    if worries:
        return "flag", value, f"{facts}. It is {few(worries)}: classification may explain the result."

    return "pass", value, f"{facts}."
