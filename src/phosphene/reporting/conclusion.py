"""The sentences at the end of a report, made from the tables alone. There is no single green tick."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.metrics.registry import kind_of, metric_of, space_of
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


def _say(row: pd.Series) -> str:
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
    n = f"{int(row['n'])} {'stimulus' if row['n'] == 1 else 'stimuli'}"
    if not np.isfinite(row["p"]):
        return f"Not tested against chance: {_say(row)}, {n}."

    facts = f"{_say(row)}, chance {row['chance']:.3f}, {_p(row['p'])}, {n}"
    return f"{'Above chance' if row['p'] < 0.05 else 'Not above chance'}: {facts}."


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
    sentences = []
    wanted = ("pixcorr", "ssim.2d", "mse", *[m for m in brain["metric"] if kind_of(m) == "two_way"][:1])

    for control, name in CONTROL_NAMES.items():
        answers = {metric: compare(scores, differences, metric, control) for metric in wanted}
        known = {metric: answer for metric, answer in answers.items() if answer is not None}
        by_answer = {a: [_title(m) for m in known if known[m] == a] for a in ("above", "unclear", "below")}

        if not known:
            sentences.append(f"Against {name}: not tested.")
        elif len(by_answer["above"]) == len(known):
            sentences.append(f"Above {name} in {listed(by_answer['above'])}.")
        elif not by_answer["above"]:
            if by_answer["below"]:
                worse = f", and below it in {listed(by_answer['below'])}"
            else:
                worse = ""

            sentences.append(f"Not above {name} in {listed([_title(m) for m in known])}{worse}.")
        else:
            parts = [f"above {name} in {listed(by_answer['above'])}"]
            if by_answer["unclear"]:
                parts += [f"not distinguishable from it in {listed(by_answer['unclear'])}"]
            else:
                parts += []

            if by_answer["below"]:
                parts += [f"below it in {listed(by_answer['below'])}"]
            else:
                parts += []

            sentences.append(f"Partly {', '.join(parts)}.")

    return sentences


def _encoding(brain: pd.DataFrame) -> list[str]:
    sentences = []
    for _, row in brain.iterrows():
        kind = kind_of(row["metric"])
        if not kind or metric_of(row["metric"]).family != "Encoding":
            continue

        if row["p"] < 0.05:
            verdict = "above"
        else:
            verdict = "not above"

        sentences.append(f"{_say(row)[0].upper()}{_say(row)[1:]}: {verdict} chance, {_p(row['p'])}.")
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
    if verdicts is None:
        row = None
    else:
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
