"""B2: do repeats of a stimulus agree more than trials whose labels were dealt at random?"""

from __future__ import annotations

import numpy as np

from phosphene.evaluate.validity.base import Answer, Evidence

_MOST_TRIALS = 1500
_PERMUTATIONS = 1000
_FEWEST = 5  # stimuli shown more than once
_ALPHA = 0.01


def repeat_correlation(betas: np.ndarray, stimuli: np.ndarray, sessions: np.ndarray, rng: np.random.Generator):
    """Mean over voxels of the correlation between repeats of a stimulus, and how often random labels do as well.

    Voxels are standardised in each session, and labels are dealt anew inside sessions, so that a session's own level is
    no agreement.

    Parameters
    ----------
    betas : (n_trials, n_voxels)
    stimuli, sessions : (n_trials,)
    rng : deals labels

    Returns
    -------
    (correlation, p, 99th percentile of dealt labels, number of stimuli with repeats); NaN without repeats
    """
    stimuli, sessions = (np.unique(np.asarray(x, dtype=str), return_inverse=True)[1] for x in (stimuli, sessions))
    n_repeated = int((np.bincount(stimuli) > 1).sum())
    if not n_repeated:
        return float("nan"), float("nan"), float("nan"), 0
    if np.bincount(sessions).min() < _FEWEST:
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
    said, wrong, agree, values = [], {}, [], []
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
        if p < _ALPHA:
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
    if len(repeated) < _FEWEST:
        return np.empty(0, dtype=np.intp)
    chosen = rng.permutation(repeated)
    keep = chosen[: max(_FEWEST, int(np.searchsorted(np.cumsum(counts[chosen]), _MOST_TRIALS)))]
    return rows[np.isin(which, keep)]
