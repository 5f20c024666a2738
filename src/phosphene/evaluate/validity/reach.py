"""B4, B5 and B9: what the method could reach, by how much of the brain, and on what kind of pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.evaluate.identification import rank_matrix, similarity, two_way
from phosphene.evaluate.statistics import permutation_null
from phosphene.evaluate.validity.base import Answer, Evidence
from phosphene.evaluate.validity.brain import compare
from phosphene.evaluate.validity.targets import PICTURES, Target
from phosphene.types.identity import few

STEPS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Dimensions of brain signal tried, before all of them."""
FEW = 2
"""Dimensions that are too few to say what was seen; a judgement."""
_PENALTIES = np.logspace(-4, 4, 17)  # of the mean eigenvalue
_MOST_TARGETS = 512
_FEWEST = 10
_ALPHA = 0.05


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
    value = float((ours["value"] - 0.5) / room) if room > 0 else float("nan")
    said = f"True features through the generator reach {_list(metrics, tops)}"
    if all(np.isfinite(t["p"]) and t["p"] >= _ALPHA for t in tops):
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
    return rows.iloc[0] if len(rows) else None


def _list(metrics: list[str], rows: list[pd.Series]) -> str:
    return ", ".join(f"{m} {r['value']:.3f}" for m, r in list(zip(metrics, rows, strict=True))[:3])


# -- B5: bottleneck curve ----------------------------------------------------------------------------------------------


def bottleneck_curve(target: Target) -> pd.DataFrame:
    """Two-way identification by a cheap decoder that sees the brain through r principal components.

    Components of the training responses (voxels standardised); ridge from the first r of them to the features; one penalty
    for each r by generalised cross-validation. On principal components ridge is a factor for each, so all r cost one
    eigendecomposition. More than 512 features are mixed at random into 512, which keeps similarities.

    Parameters
    ----------
    target : with betas of both sides

    Returns
    -------
    table with columns dimensions, two_way; the last row uses all of them
    """
    # Whatever the check, one curve: it is also written beside the verdict.
    rng = np.random.default_rng(0)
    x, new = (np.asarray(b, dtype=np.float64) for b in (target.betas, target.test_betas))
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = np.inf
    x, new = (x - mean) / scale, (new - mean) / scale
    y, true, _ = target.centred()
    if y.shape[1] > _MOST_TARGETS:
        mix = rng.standard_normal((y.shape[1], _MOST_TARGETS), dtype=np.float32) / np.float32(np.sqrt(_MOST_TARGETS))
        y, true = y @ mix, true @ mix
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
    power, total, n = np.square(along).sum(axis=1), float(np.square(y).sum()), len(x)
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


def curve_target(evidence: Evidence) -> Target | None:
    """The space the curve is drawn in: the first of latents, pixels where there are none."""
    having = [t for t in evidence.targets or () if t.betas is not None and t.test_betas is not None]
    having = [t for t in having if min(len(t.true), len(t.train)) >= _FEWEST]
    return next((t for t in having if t.space != PICTURES), having[0] if having else None)


def bottleneck(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B5: how many dimensions of brain signal give 90 % of the score."""
    target = curve_target(evidence)
    if target is None:
        return "not applicable", float("nan"), f"Fewer than {_FEWEST} test or training items with responses."
    table = bottleneck_curve(target)
    dimensions, value = table["dimensions"].to_numpy(), table["two_way"].to_numpy()
    head = f"A plain ridge from principal components of the responses to {target.space} (not the recipe itself)"
    if not table.attrs["p"] < _ALPHA:
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
        half = f" Whole {evidence.held_out} were held out, which is a step towards it." if evidence.held_out else ""
        return "not tested", float("nan"), f"Test stimuli are of the same kind as those of training.{half}"
    if evidence.similarity is None:
        return "not tested", float("nan"), f"Test stimuli are {evidence.other_kind}, but nothing was decoded."
    ranks = rank_matrix(evidence.similarity)
    null = permutation_null(ranks, rng=rng)
    value = float(np.diagonal(ranks).mean())
    said = f"On {evidence.other_kind}, two-way identification is {value:.3f} (chance 0.5, p = {null.p:.2g})"
    if null.p < _ALPHA:
        return "pass", value, f"{said}: it holds on stimuli of another kind."
    return "flag", value, f"{said}: nothing is left on stimuli of another kind."
