"""B: is it the brain?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtri

from phosphene.evaluate.identification import rank_matrix
from phosphene.evaluate.registry import metric_of
from phosphene.evaluate.statistics import permutation_null
from phosphene.evaluate.validity.base import Answer, Evidence

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
    clear, unclear, beaten = [], [], []
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
    tail = f" Not run: {', '.join(missing)}." if missing else ""
    share = len(clear) / n
    if not clear:
        return "fail", share, f"Not clearly above a control in any of {n} comparisons.{tail}"
    if beaten or unclear:
        parts = [f"below the control in {', '.join(beaten)}"] if beaten else []
        parts += [f"not clearly above it in {', '.join(unclear)}"] if unclear else []
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
            return "unclear" if p >= 0.05 or low <= 0 <= high else "above" if low > 0 else "below"
    ours, theirs = (scores[(scores["metric"] == metric) & (scores["input"] == name)] for name in ("brain", control))
    if not len(ours) or not len(theirs):
        return None
    ours, theirs = ours.iloc[0], theirs.iloc[0]
    if metric_of(metric).better == "lower":
        above, below = ours["ci_high"] < theirs["ci_low"], ours["ci_low"] > theirs["ci_high"]
    else:
        above, below = ours["ci_low"] > theirs["ci_high"], ours["ci_high"] < theirs["ci_low"]
    return "above" if above else "below" if below else "unclear"
