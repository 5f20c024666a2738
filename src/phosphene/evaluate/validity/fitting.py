"""L: did anything learn from the test set?"""

from __future__ import annotations

import numpy as np

from phosphene.errors import PhospheneError
from phosphene.evaluate.validity.base import Answer, Evidence, id_set
from phosphene.types.identity import few

TOLERANCE = 1e-5  # relative; rounding of float32 products in batches of another size stays near 1e-6
N_ROWS = 16
N_PERTURBED = 12


def fit_lineage(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """L1: trials that entered a fit and are then judged by it."""
    if not evidence.lineages:
        return "not applicable", float("nan"), "No fitted step recorded what it saw."
    leaks, transductive, worst = [], [], 0
    for step in evidence.lineages:
        shared = len(id_set(step.fitted_on) & id_set(step.evaluated_on))
        if shared:
            worst = max(worst, shared)
            (transductive if step.sees == "brain" else leaks).append(f"{step.name} ({shared} trials)")
    if leaks:
        return "fail", worst, f"Test trials entered the fit of {few(leaks)}."
    if transductive:
        return (
            "flag",
            worst,
            f"Transductive: responses of test trials, without pictures, entered {few(transductive)}.",
        )
    return "pass", 0, f"None of {len(evidence.lineages)} fitted steps saw a test trial."


def subset_invariance(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """L2: a prediction must not depend on which other test rows come with it."""
    betas = evidence.test_betas
    n = len(betas)
    if n < 2:
        return "not applicable", float("nan"), "A single test row has no company to depend on."
    together = _rows(evidence.predict(betas))
    order = rng.permutation(n)
    shuffled = _rows(evidence.predict(betas[order]))
    worst, how = _gap(shuffled, together[order], together), "when rows are shuffled"
    for i in rng.choice(n, min(N_ROWS, n), replace=False):
        try:
            alone = _gap(_rows(evidence.predict(betas[i : i + 1])), together[i : i + 1], together)
        except PhospheneError as error:
            return "fail", float("inf"), f"A row cannot be predicted without others: {error}"
        if not alone <= worst:
            worst, how = alone, f"when row {i} is predicted alone"
    if not worst <= TOLERANCE:
        return "fail", worst, (
            f"Predictions move by {worst:.2g} of their size {how}: statistics of other test rows are in use, such as "
            "test-set standardisation or batch statistics."
        )  # fmt: skip
    return "pass", worst, f"Each prediction is the same alone, in company and in any order (within {TOLERANCE:g})."


def perturbation(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """L3: a prediction must not move when the test rows beside it turn into noise.

    Half of a few rows keep their values while the others become noise, of their own size and of ten times that; then the
    other half. Unlike L2 the number of rows stays, so that predictors that need a full batch are caught as well.
    """
    betas = np.asarray(evidence.test_betas)
    if len(betas) < 2:
        return "not applicable", float("nan"), "A single test row has no company to depend on."
    rows = np.sort(rng.choice(len(betas), min(N_PERTURBED, len(betas)), replace=False))
    betas = betas[rows]
    reference = _rows(evidence.predict(betas))
    first = np.arange(len(betas)) % 2 == 0
    spread, worst = float(np.std(betas)) or 1.0, 0.0
    for kept, size in ((first, 1.0), (~first, 10.0)):
        moved = betas.copy()
        moved[~kept] = size * spread * rng.standard_normal((int((~kept).sum()), betas.shape[1]))
        gap = _gap(_rows(evidence.predict(moved))[kept], reference[kept], reference)
        worst = gap if not gap <= worst else worst
    if not worst <= TOLERANCE:
        return "fail", worst, (
            f"Predictions move by {worst:.2g} of their size when other test rows turn into noise: they are used."
        )  # fmt: skip
    return "pass", worst, f"Noise in other test rows moves no prediction (within {TOLERANCE:g})."


def _rows(predictions: np.ndarray) -> np.ndarray:
    predictions = np.asarray(predictions, dtype=np.float64)
    return predictions.reshape(len(predictions), -1)


def _gap(ours: np.ndarray, reference: np.ndarray, everything: np.ndarray) -> float:
    """Largest difference relative to the largest prediction; inf when shapes or missing values differ."""
    if ours.shape != reference.shape or not np.array_equal(np.isfinite(ours), np.isfinite(reference)):
        return float("inf")
    finite = np.isfinite(ours)
    size = np.abs(everything[np.isfinite(everything)]).max(initial=0)
    gap = np.abs(ours[finite] - reference[finite]).max(initial=0)
    return float(gap / size) if size > 0 else float(gap)
