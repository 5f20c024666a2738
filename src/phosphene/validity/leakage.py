"""L: did anything learn from the test set?

L1 asks whether a fitted step saw test trials or test pictures, by what it recorded; what only shows when the decoder is tried
stands in ``behaviour.py``. L4 to L7 ask whether anything was chosen with the help of the test set: voxels, a model adapted to it,
a configuration, one sample among several. L8 asks whether a score goes round in a circle.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from phosphene.metrics.registry import kind_of
from phosphene.types.identity import few
from phosphene.validity.check import (
    CheckResult,
    Evidence,
    Lineage,
    as_floats,
    failed,
    flagged,
    id_set,
    needed,
    not_applicable,
    passed,
)

ORACLE = "oracle_"
"""Beginning of the names of metrics that may use the truth to choose among samples."""
_MOST_ITEMS = 300  # trials whose samples are compared with the truth
_ONE_LEVEL = 1.5 / 255  # samples are kept as 8 bits, so that the scored picture differs by rounding
_IS_ZERO = 1e-4  # standard deviations: what rounding to float32 leaves of a mean that was taken away
_LUCK = 0.001  # p below which the best sample was picked more often than by luck


def _shared_trials(step: Lineage) -> int:
    """How many trials a step both fitted and is judged on."""
    if step.fitted_on is None:
        return 0
    return len(id_set(step.fitted_on) & id_set(step.evaluated_on))


def _named(counts: dict[str, int], unit: str) -> str:
    """``name (n unit)`` of the first few, for people."""
    return few([f"{name} ({n} {unit})" for name, n in counts.items()])


def fit_lineage(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L1: trials and pictures that entered a fit and are then judged by it.

    Parameters
    ----------
    evidence : Evidence
        with ``lineages``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: trials, or pictures, that the worst step both saw and is judged on
    """
    if not evidence.lineages:
        return not_applicable("No fitted step recorded what it saw.")

    leaks = {}
    pictures = {}
    transductive = {}  # saw the response of a test trial, but not what was shown
    unknown = []
    for step in evidence.lineages:
        shared = _shared_trials(step)
        if step.fitted_on is None:
            unknown.append(step.name)
        elif shared and step.sees == "pictures":
            pictures[step.name] = shared
        elif shared and step.sees == "brain":
            transductive[step.name] = shared
        elif shared:
            leaks[step.name] = shared

    details = {
        "leaks": leaks,
        "pictures": pictures,
        "transductive": transductive,
        "not_recorded": unknown,
        "n_steps": len(evidence.lineages),
    }
    worst = max([*leaks.values(), *pictures.values(), *transductive.values()], default=0)
    if leaks:
        return failed(worst, f"Test trials entered the fit of {_named(leaks, 'trials')}.", **details)

    if pictures:
        return failed(worst, f"Test pictures entered the fit of {_named(pictures, 'pictures')}.", **details)

    if transductive:
        named = _named(transductive, "trials")
        return flagged(worst, f"Transductive: responses of test trials, without pictures, entered {named}.", **details)

    if unknown:
        return flagged(0, f"Nobody recorded what entered {few(unknown)}.", **details)

    n_steps = len({step.name for step in evidence.lineages})
    return passed(0, f"None of {n_steps} fitted steps saw a test trial or a test picture.", **details)


def voxel_selection(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L4: which trials entered the choice of voxels.

    Parameters
    ----------
    evidence : Evidence
        with ``voxel_choices``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: test trials that entered the worst choice
    """
    choices = needed(evidence.voxel_choices)
    if not choices:
        return passed(0, "No voxel was chosen: every one of the data set is used.")

    leaks = {}
    blind = {}
    unknown = []
    for step in choices:
        shared = _shared_trials(step)
        if step.fitted_on is None:
            unknown.append(step.name)
        elif shared and step.sees == "brain":
            blind[step.name] = shared
        elif shared:
            leaks[step.name] = shared

    details = {"leaks": leaks, "without_pictures": blind, "not_recorded": unknown}
    worst = max([*leaks.values(), *blind.values()], default=0)
    if leaks:
        named = _named(leaks, "trials")
        return failed(worst, f"Voxels were chosen with the help of test trials and their pictures: {named}.", **details)

    parts = []
    if blind:
        parts.append(f"responses of test trials entered the choice of voxels: {_named(blind, 'trials')}")
    if unknown:
        parts.append(f"nobody recorded which trials entered {few(unknown)}")

    if parts:
        text = "; ".join(parts)
        return flagged(worst, f"{text[0].upper()}{text[1:]}.", **details)

    named = few([step.name for step in choices])
    return passed(0, f"No test trial entered the choice of voxels ({named}).", **details)


def adaptation_to_test(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L5: a model that saw test responses must say so, and be shown with one that did not.

    Parameters
    ----------
    evidence : Evidence
        with ``setting`` and ``lineages``; ``scores`` and ``strict_scores`` to show both
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: test responses that a fitted step saw
    """
    adapted = {}
    for step in evidence.lineages or ():
        shared = _shared_trials(step)
        if shared and step.sees == "brain":
            adapted[step.name] = shared

    n = max(adapted.values(), default=0)
    steps = few(list(adapted))
    is_declared = evidence.setting == "relax"
    details = {"adapted": adapted, "setting": evidence.setting}

    if adapted and not is_declared:
        undeclared = f"{steps} saw {n} test responses, but the setting says strict. Call it relax."
        return failed(n, undeclared, **details)
    if not is_declared:
        together = _centred_with_test(evidence)
        if together:
            return flagged(0, f"Setting strict: no fitted step saw a test response, but {together}", **details)

        return passed(0, "Setting strict: no fitted step saw a test response.", **details)

    if adapted:
        saw = f"{steps} saw {n} test responses"
    else:
        saw = "the recipe may use test responses"

    text, scores = _both_settings(evidence)
    return flagged(n, f"Transductive: {saw}, as setting relax allows. {text}", **details, **scores)


def _centred_with_test(evidence: Evidence) -> str:
    """Whether voxels have mean 0 over training and test rows together and not over training alone, in words; "" if not."""
    if evidence.responses is None or evidence.sides is None or len(evidence.sides) != 1:
        return ""

    train, test = evidence.sides[0]
    if len(train) < 2 or len(test) < 2:
        return ""

    of_training = np.asarray(evidence.responses)[train].astype(np.float64)
    of_test = np.asarray(evidence.responses)[test].astype(np.float64)
    both = np.concatenate([of_training, of_test])
    sd = both.std(axis=0)
    varies = sd > 0
    if not varies.any():
        return ""

    together = float(np.median(np.abs(both.mean(axis=0)[varies]) / sd[varies]))
    alone = float(np.median(np.abs(of_training.mean(axis=0)[varies]) / sd[varies]))

    # Means of so many rows differ from 0 by chance; twenty times nearer to it than the training rows are is no chance.
    if together > _IS_ZERO or together > alone / 20:
        return ""

    return (
        f"voxels have mean 0 over training and test rows together ({together:.1e} sd; {alone:.1e} over training alone): they "
        "were centred or standardised with the test rows, all at once or session by session. Leave that to the recipe, which "
        "uses training rows alone."
    )


def _both_settings(evidence: Evidence) -> tuple[str, dict[str, float | str]]:
    """The score of the relaxed run and of a strict one, as a sentence and as data."""
    strict = evidence.strict_scores
    if strict is None:
        return "Run it with setting=strict as well, in the same folder, so that both scores can be shown.", {}
    if evidence.scores is None:
        return "", {}

    for metric in _two_way_first(evidence.scores):
        relaxed_value = _value(evidence.scores, metric)
        strict_value = _value(strict, metric)
        if np.isfinite(relaxed_value) and np.isfinite(strict_value):
            text = f"{metric}: {relaxed_value:.3f} relaxed, {strict_value:.3f} strict."
            return text, {"metric": metric, "relaxed": relaxed_value, "strict": strict_value}

    return "The strict run shares no score with this one.", {}


def _two_way_first(scores: pd.DataFrame) -> list[str]:
    """Metrics of the brain, identification before all others, then by name."""
    brain = scores.loc[scores["input"] == "brain", "metric"]
    return sorted(brain, key=lambda name: (kind_of(name) != "two_way", name))


def _value(scores: pd.DataFrame, metric: str) -> float:
    """The score of the brain, NaN where it has none."""
    rows = scores[(scores["input"] == "brain") & (scores["metric"] == metric)]
    if len(rows):
        return float(rows.iloc[0]["value"])
    return float("nan")


def tuning_on_test(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L6: choices made by test stimuli, and how often the test set was evaluated before this result.

    Parameters
    ----------
    evidence : Evidence
        with ``ledger``, ``looks_beside`` and ``config``; ``monitored`` and ``splits`` for choices made while training
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: earlier evaluations of the test set, or test stimuli that a choice was made by
    """
    tested = [id_set(map(str, test)) for _, test in evidence.splits or ()]  # by fold
    chosen_by_test: dict[str, set] = {}

    for name, (fold, ids) in evidence.monitored.items():
        shared = id_set(map(str, ids)) & tested[fold]
        if shared:
            chosen_by_test[name] = shared

    if chosen_by_test:
        n = len(set().union(*chosen_by_test.values()))
        return failed(
            n,
            f"{few(sorted(chosen_by_test))} was chosen by {n} test stimuli. Watch stimuli that are held out of training "
            "instead.",
            chosen_by_test=chosen_by_test,
        )

    ledger = needed(evidence.ledger)
    here = len(ledger.looks)
    in_siblings = evidence.looks_beside
    planned = evidence.looks_planned
    by_other_configurations = sum(entry.config != evidence.config for entry in ledger.looks)
    total = here + in_siblings
    text = f"The test set was evaluated {total} {'time' if total == 1 else 'times'} before this result"
    details = {
        "in_this_run": here,
        "in_other_runs": in_siblings,
        "planned_in_sweep": planned,
        "by_other_configurations": by_other_configurations,
        "ledger_is_whole": ledger.is_whole,
    }

    if total:
        text += f": {here} in this run, {in_siblings} by other configurations in other runs"

    if planned:
        text += f"; the sweep of this run evaluates {planned} other configurations on it"
        total += planned

    if not ledger.is_whole:
        broken = "Lines of this run's ledger were changed or taken out, so it may have been more."
        return flagged(total, f"{text}. {broken}", **details)

    if in_siblings or planned or by_other_configurations:
        tuned = "If this configuration was kept because of such scores, it is tuned on the test set."
        return flagged(total, f"{text}. {tuned}", **details)

    if total:
        text += ", each time with this configuration"

    return passed(total, f"{text}.", **details)


def best_of_n(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L7: is the sample that is scored the one nearest the truth, more often than by luck?

    Parameters
    ----------
    evidence : Evidence
        with ``samples``
    rng : numpy.random.Generator
        draws the items that are compared, where there are many

    Returns
    -------
    CheckResult
        value: samples drawn for each trial
    """
    samples = needed(evidence.samples)
    count = samples.drawn.shape[1]
    if count < 2:
        return passed(1, "One picture is drawn for each trial, so none can be picked.", n_samples=count)

    rows = np.sort(rng.permutation(len(samples.drawn))[:_MOST_ITEMS])
    n = len(rows)
    gaps = np.empty((n, count))  # of each sample to the scored picture
    errors = np.empty((n, count))  # of each sample to the truth
    from_mean = 0.0

    for i, row in enumerate(rows):
        drawn = as_floats(samples.drawn[row]).reshape(count, -1)  # (n_samples, n_pixels)
        scored = as_floats(samples.scored[row]).reshape(1, -1)
        true = as_floats(samples.true[row]).reshape(1, -1)
        gaps[i] = np.abs(drawn - scored).max(axis=1)
        errors[i] = np.square(drawn - true).mean(axis=1)
        from_mean = max(from_mean, float(np.abs(drawn.mean(axis=0) - scored).max()))

    is_a_sample = gaps.min(axis=1) <= _ONE_LEVEL  # (n,)
    differ = np.ptp(errors, axis=1) > 0  # (n,): samples that are all alike have no best
    which = gaps.argmin(axis=1)  # (n,): the sample that is scored
    usable = is_a_sample & differ
    if usable.sum() < max(1, n // 2):
        if from_mean <= 2 / 255:  # the mean of pictures of 8 bits, rounded to 8 bits itself
            mean = f"The scored picture is the mean of {count} samples; none was picked."
            return passed(count, mean, n_samples=count, scored="mean")

        unknown = f"Of {count} samples the scored picture is none, and how it was made is not known."
        return flagged(count, unknown, n_samples=count, scored="unknown")

    # Were the samples drawn without a look at the truth, the best would be this one once in `count` trials, also where it is
    # always the first: a recipe may have put them in order.
    best = int((errors[usable].argmin(axis=1) == which[usable]).sum())
    total = int(usable.sum())
    p = float(binomtest(best, total, 1 / count, alternative="greater").pvalue)
    details = {"n_samples": count, "n_best": best, "n_trials": total, "p": p}

    if p < _LUCK and samples.is_chosen:
        return flagged(
            count,
            f"The recipe scores a sample of its own choice among {count}: the nearest to the truth in {best} of {total} trials "
            f"({total / count:.0f} by luck). Compare it with other recipes that choose, not with means over samples.",
            **details,
        )

    if p < _LUCK:
        return failed(
            count,
            f"The scored picture is the one of {count} samples that is nearest the truth in {best} of {total} trials "
            f"({total / count:.0f} by luck): picked with the help of the truth. Only metrics named {ORACLE}... may do so.",
            **details,
        )

    if len(np.unique(which[usable])) == 1:
        number = int(which[usable][0]) + 1
        always = (
            f"Of {count} samples, always number {number} is shown, nearest to the truth in {best} of {total} trials as by luck; "
            "the truth picks none."
        )
        return passed(count, always, scored=f"number {number}", **details)

    no_nearer = f"Of {count} samples, the one scored is no nearer the truth than by luck ({best} of {total})."
    return passed(count, no_nearer, **details)


def circular_cycle(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L8: scores of what was encoded and decoded in turn need two models that share no stimulus, or a mark.

    Parameters
    ----------
    evidence : Evidence
        with ``cycles``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: stimuli that encoder and decoder of the worst cycle share
    """
    cycles = needed(evidence.cycles)
    if not cycles:
        return not_applicable("No picture was scored that went from encoder to decoder.")

    hidden = {}
    marked = {}
    for cycle in cycles:
        shared = len(id_set(map(str, cycle.encoder_stimuli)) & id_set(map(str, cycle.decoder_stimuli)))
        if shared and cycle.is_marked:
            marked[cycle.name] = shared
        elif shared:
            hidden[cycle.name] = shared

    details = {"not_marked": hidden, "marked": marked}
    worst = max([*hidden.values(), *marked.values()], default=0)
    if hidden:
        return failed(
            worst,
            f"Circular: encoder and decoder were fitted on the same stimuli in {_named(hidden, 'stimuli')}. A predicted "
            "response then carries the model's own picture, not the brain's; fit them on disjoint stimuli, or mark the score "
            "circular.",
            **details,
        )

    if marked:
        named = _named(marked, "stimuli")
        circular = f"Circular, and its page says so: {named}. It shows that two maps are inverse, no more."
        return flagged(worst, circular, **details)

    disjoint = f"Encoder and decoder share no stimulus in {few([cycle.name for cycle in cycles])}."
    return passed(0, disjoint, **details)
