"""S6: does the session, or the run, already tell which picture it was?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.evaluate.identification import rank_matrix, similarity
from phosphene.evaluate.statistics import permutation_null
from phosphene.evaluate.validity.base import Answer, Evidence

_ALPHA = 0.005  # for each of two levels
_MOST_TRIALS, _PROJECTIONS = 2000, 60
_FEWEST = 5  # test stimuli


def session_confound(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S6: targets predicted from the session mean alone, and from the run's; the session read off the responses.

    The baseline looks at no response: for each test stimulus it takes the mean features of what was shown in training in
    the same session (run). It can only be right when sessions differ in what was shown.
    """
    table = evidence.trials
    levels = {"session": table["session"].to_numpy(), "run": table.groupby(["session", "run"]).ngroup().to_numpy()}
    found = {}
    for level, groups in levels.items():
        if len(np.unique(groups)) < 2 or (level == "run" and len(np.unique(groups)) == table["session"].nunique()):
            continue
        answer = _baseline(evidence, groups, rng)
        if answer is not None:
            found[level] = answer
    if not found:
        return "not applicable", float("nan"), "No test trial shares one of several sessions or runs with training."
    said = [f"{level} mean alone: two-way {value:.3f} (p = {p:.2g})" for level, (value, p) in found.items()]
    reads = _readable(evidence, levels["session"], rng)
    tail = f" {reads}" if reads else ""
    value = max(value for value, _ in found.values())
    wins = [level for level, (_, p) in found.items() if p < _ALPHA]
    if wins:
        return "flag", value, (
            f"The {' and the '.join(wins)} of a trial already tells what was shown ({'; '.join(said)}; chance 0.5), so a "
            f"decoder may read the {wins[0]} instead of the picture. Hold out whole {wins[0]}s to see.{tail}"
        )  # fmt: skip
    return "pass", value, f"Pictures cannot be told from {' or '.join(found)} ({'; '.join(said)}; chance 0.5).{tail}"


def _baseline(evidence: Evidence, groups: np.ndarray, rng: np.random.Generator) -> tuple[float, float] | None:
    """Two-way identification by group means, inside each fold, and its p; None where no group is on both sides."""
    likeness, shown = evidence.likeness, evidence.trials["stimulus"].astype(str).to_numpy()
    row_of = dict(zip(map(str, likeness.ids), range(len(likeness.ids)), strict=True))
    at = np.asarray([row_of.get(s, -1) for s in shown])
    known = (at >= 0) & np.isfinite(likeness.units[at]).all(axis=1)
    predicted, true, folds, shares = [], [], [], False
    for fold, (train, test) in enumerate(evidence.sides):
        train, test = train[known[train]], test[known[test]]
        if not len(train) or not len(test):
            continue
        overall = likeness.units[at[train]].mean(axis=0)
        means = {g: likeness.units[at[train[groups[train] == g]]].mean(axis=0) for g in np.unique(groups[train])}
        shares |= bool(set(groups[test]) & set(means))
        for stimulus, rows in pd.Series(test).groupby(shown[test], sort=False):
            # Relative to the whole training set, so that the mean that is left in every group says nothing.
            predicted.append(np.mean([means.get(groups[r], overall) - overall for r in rows], axis=0))
            true.append(likeness.units[row_of[stimulus]] - overall)
            folds.append(fold)
    if not shares or len(true) < _FEWEST:
        return None
    folds = np.asarray(folds)
    ranks = rank_matrix(similarity(np.asarray(predicted), np.asarray(true), "cosine"), labels=folds)
    null = permutation_null(ranks, rng=rng, groups=folds)
    return float(np.nanmean(np.diagonal(ranks))), null.p


def _readable(evidence: Evidence, sessions: np.ndarray, rng: np.random.Generator) -> str:
    """How well a linear classifier names the session of a response, for people; half of the trials train it."""
    if evidence.responses is None:
        return ""
    names, counts = np.unique(sessions, return_counts=True)
    rows = np.flatnonzero(np.isin(sessions, names[counts >= 6]))
    if len(np.unique(sessions[rows])) < 2:
        return ""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rows = rows if len(rows) <= _MOST_TRIALS else np.sort(rng.choice(rows, _MOST_TRIALS, replace=False))
    x = np.asarray(evidence.responses[rows], dtype=np.float32)
    finite = np.isfinite(x).all(axis=0)
    x = x[:, finite]
    if not x.shape[1]:
        return ""
    if x.shape[1] > _PROJECTIONS:
        x = x @ rng.standard_normal((x.shape[1], _PROJECTIONS), dtype=np.float32)
    # Half of each session fits. A session of which the sample holds too few is left out.
    y, order = sessions[rows], rng.permutation(len(rows))
    parts = [order[y[order] == name] for name in np.unique(y)]
    parts = [part for part in parts if len(part) >= 4]
    if len(parts) < 2:
        return ""
    fit, test = (
        np.concatenate(half) for half in zip(*((p[: len(p) // 2], p[len(p) // 2 :]) for p in parts), strict=True)
    )
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x[fit], y[fit])
    right, most = float(np.mean(model.predict(x[test]) == y[test])), float(np.mean(y[test] == _mode(y[fit])))
    return f"The session of a response is named right in {100 * right:.0f} % ({100 * most:.0f} % by guessing)."


def _mode(values: np.ndarray):
    names, counts = np.unique(values, return_counts=True)
    return names[counts.argmax()]
