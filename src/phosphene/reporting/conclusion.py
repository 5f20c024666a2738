"""The sentences at the end of a report, made from the tables alone. There is no single green tick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from phosphene.metrics.registry import kind_of, metric_of, space_of
from phosphene.reporting.wording import capital
from phosphene.types.identity import listed
from phosphene.validity import compare
from phosphene.validity.check import UNKNOWN_OUTSIDE, rows_where

CONTROL_NAMES = {
    "category": "the category-only decoder",
    "mean": "the mean response",
    "noise": "matched-noise responses",
    "shuffled": "shuffled trials",
}
_FIRST = ("L12", "S1", "L1", "L11", "L7", "L9", "L10", "L3", "L2")
"""Checks whose failure says what is known besides the brain: others fail because of it, so these are named first."""

_TRIED = ("L2", "L3", "L9")
"""Checks that try whether a picture depends on other test items."""

_WIDE = 0.1  # a fifth of the way from chance to perfect in two-way identification


class _BrainScore(NamedTuple):
    """One score of decoded brain responses; numbers that are not known are NaN."""

    metric: str
    value: float
    ci_low: float
    ci_high: float
    chance: float
    p: float
    n: float


def conclude(
    scores: pd.DataFrame,
    verdicts: pd.DataFrame | None = None,
    differences: pd.DataFrame | None = None,
    samples: pd.DataFrame | None = None,
) -> list[str]:
    """What the numbers allow to be said, one sentence each, failures first.

    Parameters
    ----------
    scores : DataFrame
        rows of ``scores.csv`` of one split
    verdicts : DataFrame, optional
        rows of ``validity.csv``, or None
    differences : DataFrame, optional
        paired differences to controls (``phosphene.metrics.controls``), or None; without them a control counts as
        beaten only when the intervals do not overlap
    samples : DataFrame, optional
        rows of ``evaluation/SPLIT/samples.csv``, where several samples of each trial were scored

    Returns
    -------
    list of str
        In the order of the report: failed checks, chance, classes, controls, encoding, interval, transductive step, and
        what was flagged or not tested.

    Examples
    --------
    >>> row = {"split": "test", "input": "brain", "metric": "two_way.pixels", "value": 0.9, "ci_low": 0.85,
    ...        "ci_high": 0.94, "chance": 0.5, "p": 0.0001, "n": 100, "setting": "strict"}
    >>> conclude(pd.DataFrame([row]))[1]
    'Above chance: two-way identification (pixels) 0.900 [0.850, 0.940], chance 0.500, p = 0.0001, 100 stimuli.'
    """
    brain = _brain_scores(scores)
    sentences = _failures(verdicts) + _known_pictures(verdicts)
    headline = _headline(brain)
    if headline is None:
        return [*sentences, "No score of decoded brain responses: nothing can be said."]

    sentences.append(_chance(headline))
    sentences += _over_samples(headline, samples)
    sentences += _within_class(brain)
    sentences += _controls(scores, differences, brain)
    sentences += _encoding(brain)
    sentences += _width(headline)
    sentences.append(_transductive(scores, verdicts))

    return sentences + _rest(verdicts)


def _brain_scores(scores: pd.DataFrame) -> list[_BrainScore]:
    brain = rows_where(scores, input="brain")
    numbers = brain.reindex(columns=["value", "ci_low", "ci_high", "chance", "p", "n"]).to_numpy(float)  # (n_scores, 6)

    return [_BrainScore(str(metric), *row) for metric, row in zip(brain["metric"], numbers.tolist(), strict=True)]


def _headline(brain: Sequence[_BrainScore]) -> _BrainScore | None:
    """Identification when there is any, since it has a chance level; otherwise a picture score, then encoding."""
    for kind in ("two_way", "pixcorr", "ssim.2d", "mse", "pearson.voxels"):
        for score in brain:
            if kind_of(score.metric) == kind and math.isfinite(score.value):
                return score

    return None


def _score_words(score: _BrainScore) -> str:
    return f"{_title(score.metric)} {score.value:.3f}{_interval(score)}"


def _title(metric: str) -> str:
    title = metric_of(metric).title
    space = space_of(metric)
    if space:
        return f"{title} ({space})"

    return title


def _interval(score: _BrainScore) -> str:
    if not math.isfinite(score.ci_low):
        return " (no interval)"

    return f" [{score.ci_low:.3f}, {score.ci_high:.3f}]"


def _p(p: float) -> str:
    if p >= 0.00005:
        return f"p = {p:.4f}"

    return f"p = {p:.1g}"


def _chance(score: _BrainScore) -> str:
    n = f"{int(score.n)} stimuli"
    if score.n == 1:
        n = "1 stimulus"

    if not math.isfinite(score.p):
        return f"Not tested against chance: {_score_words(score)}, {n}."

    verdict = "Not above chance"
    if score.p < 0.05:
        verdict = "Above chance"

    return f"{verdict}: {_score_words(score)}, chance {score.chance:.3f}, {_p(score.p)}, {n}."


def _over_samples(score: _BrainScore, samples: pd.DataFrame | None) -> list[str]:
    """How the headline spreads over samples, where there are several."""
    if samples is None:
        return []

    for row in rows_where(samples, metric=score.metric).to_dict("records"):
        return [
            f"That is the mean over {int(row['n_samples'])} samples of each trial, with a standard deviation of "
            f"{float(row['sd']):.3f} over samples."
        ]

    return []


def _within_class(brain: Sequence[_BrainScore]) -> list[str]:
    within = [score for score in brain if kind_of(score.metric) == "two_way_within_class"]
    if not within:
        return ["Inside a class: not tested, so the score may come from classes alone."]

    first = within[0]
    facts = f"{first.value:.3f}"
    if math.isfinite(first.p):
        facts = f"{first.value:.3f}{_interval(first)}, {_p(first.p)}"

    if first.p < 0.05:
        return [f"Also tells items of one class apart ({facts})."]

    return [f"Does not tell items of one class apart ({facts}): knowing the class may explain the score."]


def _controls(scores: pd.DataFrame, differences: pd.DataFrame | None, brain: Sequence[_BrainScore]) -> list[str]:
    identification = [score.metric for score in brain if kind_of(score.metric) == "two_way"]
    metrics = ("pixcorr", "ssim.2d", "mse", *identification[:1])
    sentences = []

    for control, name in CONTROL_NAMES.items():
        titles: dict[str, list[str]] = {"above": [], "unclear": [], "below": []}
        tested = []
        for metric in metrics:
            answer = compare(scores, differences, metric, control)
            if answer is not None:
                tested.append(_title(metric))
                titles[answer].append(_title(metric))

        sentences.append(_control_sentence(name, tested, titles))

    return sentences


def _control_sentence(name: str, tested: list[str], titles: dict[str, list[str]]) -> str:
    """In which scores the brain is above a control, not to be told apart from it, and below it."""
    above = titles["above"]
    unclear = titles["unclear"]
    below = titles["below"]

    if not tested:
        return f"Against {name}: not tested."

    if len(above) == len(tested):
        return f"Above {name} in {listed(above)}."

    if not above:
        worse = ""
        if below:
            worse = f", and below it in {listed(below)}"

        return f"Not above {name} in {listed(tested)}{worse}."

    parts = [f"above {name} in {listed(above)}"]
    if unclear:
        parts.append(f"not distinguishable from it in {listed(unclear)}")

    if below:
        parts.append(f"below it in {listed(below)}")

    return f"Partly {', '.join(parts)}."


def _encoding(brain: Sequence[_BrainScore]) -> list[str]:
    sentences = []
    for score in brain:
        kind = kind_of(score.metric)
        if not kind or metric_of(score.metric).family != "Encoding":
            continue

        verdict = "not above"
        if score.p < 0.05:
            verdict = "above"

        sentences.append(f"{capital(_score_words(score))}: {verdict} chance, {_p(score.p)}.")
        if kind == "pearson.fraction_of_ceiling" and score.value > 1:
            sentences.append(
                "A fraction above 1 means that the ceiling is estimated too low or that noise is shared with training."
            )

    return sentences


def _width(score: _BrainScore) -> list[str]:
    width = score.ci_high - score.ci_low
    if math.isfinite(width) and width > _WIDE:
        return [f"The interval is wide ({width:.2f}): {int(score.n)} stimuli leave the value open."]

    return []


def _transductive(scores: pd.DataFrame, verdicts: pd.DataFrame | None) -> str:
    is_relaxed = len(rows_where(scores, input="brain", setting="relax")) > 0
    verdict = ""
    reason = ""
    behaviour: list[str] = []
    if verdicts is not None:
        verdict, reason = _verdict(verdicts, "L1")
        behaviour = [_verdict(verdicts, check)[0] for check in _TRIED]

    if verdict == "flag":
        return reason

    if verdict == UNKNOWN_OUTSIDE:
        return "Transductive step: cannot be known from outside, as nobody here saw what the decoder was handed."

    if verdict == "fail" or "fail" in behaviour:
        return "Transductive step: more than a response enters a decoded picture, as the failed checks say."

    if is_relaxed:
        return "Transductive step: the recipe adapted to test responses (setting relax)."

    if verdict != "pass":
        return "Transductive step: not known, as what the fit saw was not recorded."

    if all(answer == "pass" for answer in behaviour):
        return (
            "Transductive step: none. No stage saw a test trial or picture, and test items decoded again under other names, in "
            "another order and beside noise give what was scored."
        )

    return "Transductive step: none declared."


def _verdict(verdicts: pd.DataFrame, check_id: str) -> tuple[str, str]:
    """Verdict and reason of a check, both empty where it was not run."""
    for row in rows_where(verdicts, id=check_id).to_dict("records"):
        return str(row["verdict"]), str(row["reason"])

    return "", ""


def _failures(verdicts: pd.DataFrame | None) -> list[str]:
    if verdicts is None:
        return ["No validity check was run."]

    sentences = []
    for row in sorted(rows_where(verdicts, verdict="fail").to_dict("records"), key=_rank):
        sentences.append(f"Check {row['id']} failed: {row['reason']}")

    return sentences


def _known_pictures(verdicts: pd.DataFrame | None) -> list[str]:
    """What scores mean where the pictures that test were also trained on, as a split by trial has it."""
    if verdicts is None:
        return []

    verdict, reason = _verdict(verdicts, "S1")
    if verdict == "flag":
        return [reason]

    return []


def _rank(row: dict) -> int:
    """Place of a failed check among the sentences; those of equal rank stay in the order of the table."""
    if row["id"] in _FIRST:
        return _FIRST.index(row["id"])

    return len(_FIRST)


def _rest(verdicts: pd.DataFrame | None) -> list[str]:
    if verdicts is None:
        return []

    sentences = []
    for row in rows_where(verdicts, verdict="flag").to_dict("records"):
        if row["id"] not in ("L1", "S1"):
            sentences.append(f"Check {row['id']} flags: {row['reason']}")

    open_ids = verdicts.loc[verdicts["verdict"].isin(["not tested", "not applicable"]), "id"].tolist()

    if open_ids:
        sentences.append(f"Not tested: {', '.join(open_ids)}.")

    unknown_ids = rows_where(verdicts, verdict=UNKNOWN_OUTSIDE)["id"].tolist()
    if unknown_ids:
        sentences.append(f"Cannot be known from outside: {', '.join(unknown_ids)}.")

    return sentences
