"""The sentences at the end of a report, made from the tables alone. There is no single green tick."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.metrics.registry import kind_of, metric_of, space_of
from phosphene.reporting.wording import capital
from phosphene.types.identity import listed
from phosphene.validity import compare

CONTROL_NAMES = {
    "category": "the category-only decoder",
    "mean": "the mean response",
    "noise": "matched-noise responses",
    "shuffled": "shuffled trials",
}
_WIDE = 0.1  # a fifth of the way from chance to perfect in two-way identification


def conclude(
    scores: pd.DataFrame, verdicts: pd.DataFrame | None = None, differences: pd.DataFrame | None = None
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

    Returns
    -------
    list of str

    Examples
    --------
    >>> row = {"split": "test", "input": "brain", "metric": "two_way.pixels", "value": 0.9, "ci_low": 0.85,
    ...        "ci_high": 0.94, "chance": 0.5, "p": 0.0001, "n": 100, "setting": "strict"}
    >>> conclude(pd.DataFrame([row]))[1]
    'Above chance: two-way identification (pixels) 0.900 [0.850, 0.940], chance 0.500, p = 0.0001, 100 stimuli.'
    """
    brain = scores[scores["input"] == "brain"]
    sentences = _failures(verdicts)
    headline = _headline(brain)
    if headline is None:
        return [*sentences, "No score of decoded brain responses: nothing can be said."]

    sentences.append(_chance(headline))
    sentences += _within_class(brain)
    sentences += _controls(scores, differences, brain)
    sentences += _encoding(brain)
    sentences += _width(headline)
    sentences.append(_transductive(brain, verdicts))

    return sentences + _rest(verdicts)


def _headline(brain: pd.DataFrame) -> pd.Series | None:
    """Identification when there is any, since it has a chance level; otherwise a picture score, then encoding."""
    kinds = brain["metric"].map(kind_of)
    for kind in ("two_way", "pixcorr", "ssim.2d", "mse", "pearson.voxels"):
        rows = brain[(kinds == kind) & np.isfinite(brain["value"])]
        if len(rows):
            return rows.iloc[0]

    return None


def _score_words(row: pd.Series) -> str:
    return f"{_title(row['metric'])} {row['value']:.3f}{_interval(row)}"


def _title(metric: str) -> str:
    title = metric_of(metric).title
    space = space_of(metric)
    if space:
        return f"{title} ({space})"

    return title


def _interval(row: pd.Series) -> str:
    if not np.isfinite(row["ci_low"]):
        return " (no interval)"

    return f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def _p(p: float) -> str:
    if p >= 0.00005:
        return f"p = {p:.4f}"

    return f"p = {p:.1g}"


def _chance(row: pd.Series) -> str:
    n = f"{int(row['n'])} stimuli"
    if row["n"] == 1:
        n = "1 stimulus"

    if not np.isfinite(row["p"]):
        return f"Not tested against chance: {_score_words(row)}, {n}."

    verdict = "Not above chance"
    if row["p"] < 0.05:
        verdict = "Above chance"

    return f"{verdict}: {_score_words(row)}, chance {row['chance']:.3f}, {_p(row['p'])}, {n}."


def _within_class(brain: pd.DataFrame) -> list[str]:
    rows = brain[brain["metric"].map(kind_of) == "two_way_within_class"]
    if not len(rows):
        return ["Inside a class: not tested, so the score may come from classes alone."]

    row = rows.iloc[0]
    if np.isfinite(row["p"]):
        facts = f"{row['value']:.3f}{_interval(row)}, {_p(row['p'])}"
    else:
        facts = f"{row['value']:.3f}"

    if row["p"] < 0.05:
        return [f"Also tells items of one class apart ({facts})."]

    return [f"Does not tell items of one class apart ({facts}): knowing the class may explain the score."]


def _controls(scores: pd.DataFrame, differences: pd.DataFrame | None, brain: pd.DataFrame) -> list[str]:
    identification = [metric for metric in brain["metric"] if kind_of(metric) == "two_way"]
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


def _encoding(brain: pd.DataFrame) -> list[str]:
    sentences = []
    for _, row in brain.iterrows():
        kind = kind_of(row["metric"])
        if not kind or metric_of(row["metric"]).family != "Encoding":
            continue

        verdict = "not above"
        if row["p"] < 0.05:
            verdict = "above"

        sentences.append(f"{capital(_score_words(row))}: {verdict} chance, {_p(row['p'])}.")
        if kind == "pearson.fraction_of_ceiling" and row["value"] > 1:
            sentences.append(
                "A fraction above 1 means that the ceiling is estimated too low or that noise is shared with training."
            )

    return sentences


def _width(row: pd.Series) -> list[str]:
    width = row["ci_high"] - row["ci_low"]
    if np.isfinite(width) and width > _WIDE:
        return [f"The interval is wide ({width:.2f}): {int(row['n'])} stimuli leave the value open."]

    return []


def _transductive(brain: pd.DataFrame, verdicts: pd.DataFrame | None) -> str:
    relaxed = (brain["setting"] == "relax").any()
    row = None
    if verdicts is not None:
        row = _verdict(verdicts, "L1")

    if row is not None and row["verdict"] in ("flag", "fail"):
        return row["reason"]

    if relaxed:
        return "Transductive step: the recipe adapted to test responses (setting relax)."

    if row is None or row["verdict"] != "pass":
        return "Transductive step: not known, as what the fit saw was not recorded."

    return "Transductive step: none."


def _verdict(verdicts: pd.DataFrame, check_id: str) -> pd.Series | None:
    rows = verdicts[verdicts["id"] == check_id]
    if len(rows):
        return rows.iloc[0]

    return None


def _failures(verdicts: pd.DataFrame | None) -> list[str]:
    if verdicts is None:
        return ["No validity check was run."]

    failed = verdicts[(verdicts["verdict"] == "fail") & (verdicts["id"] != "L1")]
    return [f"Check {row['id']} failed: {row['reason']}" for _, row in failed.iterrows()]


def _rest(verdicts: pd.DataFrame | None) -> list[str]:
    if verdicts is None:
        return []

    sentences = []
    flagged = verdicts[(verdicts["verdict"] == "flag") & (verdicts["id"] != "L1")]
    sentences += [f"Check {row['id']} flags: {row['reason']}" for _, row in flagged.iterrows()]
    open_ids = verdicts.loc[verdicts["verdict"].isin(["not tested", "not applicable"]), "id"].tolist()

    if open_ids:
        sentences.append(f"Not tested: {', '.join(open_ids)}.")

    return sentences
