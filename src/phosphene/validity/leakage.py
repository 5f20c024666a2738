"""L: did anything learn from the test set?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from phosphene.errors import PhospheneError
from phosphene.types.identity import few
from phosphene.validity.base import Answer, Evidence, as_floats, id_set

TOLERANCE = 1e-5  # relative; rounding of float32 products in batches of another size stays near 1e-6


N_ROWS = 16


N_PERTURBED = 12


def fit_lineage(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """L1: trials that entered a fit and are then judged by it."""
    if not evidence.lineages:
        return "not applicable", float("nan"), "No fitted step recorded what it saw."

    leaks = []
    transductive = []
    worst = 0

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
    worst = _gap(shuffled, together[order], together)
    how = "when rows are shuffled"

    for i in rng.choice(n, min(N_ROWS, n), replace=False):
        try:
            alone = _gap(_rows(evidence.predict(betas[i : i + 1])), together[i : i + 1], together)
        except PhospheneError as error:
            return "fail", float("inf"), f"A row cannot be predicted without others: {error}"

        if not alone <= worst:
            worst = alone
            how = f"when row {i} is predicted alone"

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
    spread = float(np.std(betas)) or 1.0
    worst = 0.0

    for kept, size in ((first, 1.0), (~first, 10.0)):
        moved = betas.copy()
        moved[~kept] = size * spread * rng.standard_normal((int((~kept).sum()), betas.shape[1]))
        gap = _gap(_rows(evidence.predict(moved))[kept], reference[kept], reference)
        if not gap <= worst:
            worst = gap

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

    if size > 0:
        return float(gap / size)

    return float(gap)


ORACLE = "oracle_"


"""Beginning of the names of metrics that may look at the truth to choose among samples."""


_MOST_ITEMS = 300


def voxel_selection(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """L4: which trials entered the choice of voxels."""
    if not evidence.voxel_choices:
        return "pass", 0, "No voxel was chosen: every one of the data set is used."

    leaks = []
    blind = []
    unknown = []
    worst = 0

    for step in evidence.voxel_choices:
        if step.fitted_on is None:
            unknown.append(step.name)
            continue

        shared = len(id_set(step.fitted_on) & id_set(step.evaluated_on))
        if shared:
            worst = max(worst, shared)
            (blind if step.sees == "brain" else leaks).append(f"{step.name} ({shared} trials)")

    if leaks:
        return "fail", worst, f"Voxels were chosen with the help of test trials and their pictures: {few(leaks)}."

    if blind:
        parts = [f"responses of test trials entered the choice of voxels: {few(blind)}"]
    else:
        parts = []

    if unknown:
        parts += [f"nobody recorded which trials entered {few(unknown)}"]
    else:
        parts += []

    if parts:
        said = "; ".join(parts)
        return "flag", worst, f"{said[0].upper()}{said[1:]}."

    named = few([step.name for step in evidence.voxel_choices])
    return "pass", 0, f"No test trial entered the choice of voxels ({named})."


def adaptation_to_test(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """L5: a model that saw test responses must say so, and be shown beside one that did not."""
    adapted = []
    n = 0

    for step in evidence.lineages or ():
        shared = len(id_set(step.fitted_on) & id_set(step.evaluated_on))
        if shared and step.sees == "brain":
            adapted.append(step.name)
            n = max(n, shared)

    declared = evidence.setting == "relax"
    if adapted and not declared:
        return "fail", n, f"{few(adapted)} saw {n} test responses, but the setting says strict. Call it relax."
    if not declared:
        return "pass", 0, "Setting strict: no fitted step saw a test response."

    if adapted:
        saw = f"{few(adapted)} saw {n} test responses"
    else:
        saw = "the recipe may use test responses"

    return "flag", n, f"Transductive: {saw}, as setting relax allows. {_both(evidence)}"


def _both(evidence: Evidence) -> str:
    strict = evidence.strict_scores
    if strict is None:
        return "Run it with setting=strict as well, beside this run, so that both scores can be shown."
    if evidence.scores is None:
        return ""

    for metric in _two_ways(evidence.scores):
        ours, theirs = (_value(t, metric) for t in (evidence.scores, strict))
        if np.isfinite([ours, theirs]).all():
            return f"{metric}: {ours:.3f} relaxed, {theirs:.3f} strict."

    return "The strict run shares no score with this one."


def _two_ways(scores: pd.DataFrame) -> list[str]:
    brain = scores.loc[scores["input"] == "brain", "metric"]
    return sorted(brain, key=lambda m: (not m.startswith("two_way."), m))


def _value(scores: pd.DataFrame, metric: str) -> float:
    rows = scores[(scores["input"] == "brain") & (scores["metric"] == metric)]
    if len(rows):
        return float(rows.iloc[0]["value"])

    return float("nan")


def tuning_on_test(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """L6: choices made by test stimuli, and how often the test set was evaluated before this result."""
    tested = [id_set(map(str, test)) for _, test in evidence.splits]
    watched = {name: id_set(map(str, ids)) & tested[fold] for name, (fold, ids) in evidence.monitored.items()}
    watched = {name: ids for name, ids in watched.items() if ids}
    if watched:
        n = len(set().union(*watched.values()))
        return "fail", n, (
            f"{few(sorted(watched))} was chosen by {n} test stimuli. Watch stimuli that are held out of training instead."
        )  # fmt: skip

    looks = evidence.ledger.looks
    own = len(looks)
    others = evidence.looks_beside
    elsewhere = sum(look.config != evidence.config for look in looks)
    total = own + others
    said = f"The test set was evaluated {total} {'time' if total == 1 else 'times'} before this result"

    if total:
        said += f": {own} in this run, {others} by other configurations in runs beside it"

    if not evidence.ledger.is_whole:
        return "flag", total, f"{said}. Lines of this run's ledger were changed or taken out, so it may have been more."

    if others or elsewhere:
        return (
            "flag",
            total,
            f"{said}. If this configuration was kept because of such scores, it is tuned on the test set.",
        )

    return "pass", total, f"{said}{', each time with this configuration' if total else ''}."


def best_of_n(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """L7: is the sample that is scored the one nearest the truth, more often than by luck?"""
    drawn = evidence.samples.drawn
    scored = evidence.samples.scored
    true = evidence.samples.true
    count = drawn.shape[1]

    if count < 2:
        return "pass", 1, "One picture is drawn for each trial, so none can be picked."

    rows = np.sort(rng.permutation(len(drawn))[:_MOST_ITEMS])
    n = len(rows)
    from_mean = 0.0
    gaps = np.empty((n, count))
    errors = np.empty((n, count))

    for i, row in enumerate(rows):
        own = as_floats(drawn[row]).reshape(count, -1)
        kept = as_floats(scored[row]).reshape(1, -1)
        gaps[i] = np.abs(own - kept).max(axis=1)
        errors[i] = np.square(own - as_floats(true[row]).reshape(1, -1)).mean(axis=1)
        from_mean = max(from_mean, float(np.abs(own.mean(axis=0) - kept).max()))

    # 8 bits: the samples are kept rounded.
    is_one = gaps.min(axis=1) <= 1.5 / 255
    distinct = np.ptp(errors, axis=1) > 0
    which = gaps.argmin(axis=1)
    usable = is_one & distinct

    if usable.sum() < max(1, n // 2):
        if from_mean <= 2 / 255:
            return "pass", count, f"The scored picture is the mean of {count} samples; none was picked."

        return "flag", count, f"Of {count} samples the scored picture is none, and how it was made is not known."

    if len(np.unique(which[usable])) == 1:
        return (
            "pass",
            count,
            f"Of {count} samples, always number {which[usable][0] + 1} is scored; the truth picks none.",
        )

    best = int((errors[usable].argmin(axis=1) == which[usable]).sum())
    total = int(usable.sum())
    p = binomtest(best, total, 1 / count, alternative="greater").pvalue
    if p < 0.001:
        return "fail", count, (
            f"The scored picture is the one of {count} samples that is nearest the truth in {best} of {total} trials "
            f"({total / count:.0f} by luck): picked with the help of the truth. Only metrics named {ORACLE}... may do so."
        )  # fmt: skip

    return "pass", count, f"Of {count} samples, the one scored is no nearer the truth than by luck ({best} of {total})."


def circular_cycle(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """L8: scores of what was encoded and decoded in turn need two models that share no stimulus, or a mark."""
    if not evidence.cycles:
        return "not applicable", float("nan"), "No picture was scored that went from encoder to decoder."

    hidden = []
    marked = []
    worst = 0

    for cycle in evidence.cycles:
        shared = len(id_set(map(str, cycle.encoder_stimuli)) & id_set(map(str, cycle.decoder_stimuli)))
        if shared:
            worst = max(worst, shared)
            (marked if cycle.is_marked else hidden).append(f"{cycle.name} ({shared} stimuli)")

    if hidden:
        return "fail", worst, (
            f"Circular: encoder and decoder were fitted on the same stimuli in {few(hidden)}. A predicted response then "
            "carries the model's own picture, not the brain's; fit them on disjoint stimuli, or mark the score circular."
        )  # fmt: skip

    if marked:
        return (
            "flag",
            worst,
            f"Circular, and its page says so: {few(marked)}. It shows that two maps are inverse, no more.",
        )

    return "pass", 0, f"Encoder and decoder share no stimulus in {few([c.name for c in evidence.cycles])}."
