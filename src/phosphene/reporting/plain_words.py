"""Plain words for what stands in a run: metrics, inputs, verdicts; and what must not be shown (homes, secrets)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.metrics.registry import find_metric

INPUTS = {
    "seen": ("seen", "the picture that was shown"),
    "brain": ("decoded", "decoded from the measured brain responses"),
    "first_stage": ("first stage", "decoded from the same responses, before it is refined"),
    "shuffled": ("shuffled", "decoded from the responses to another test picture"),
    "noise": ("noise", "decoded from random responses with the mean and covariance of the real ones"),
    "mean": ("mean", "decoded from the average training response, the same for every picture"),
    "category": ("category", "what is left when only the category of the picture is decoded"),
    "truth": ("ceiling", "generated from the true latents, without a brain: the best this method could do"),
}
"""Input to (label, what it is)."""

VERDICTS = {
    "fail": ("fail", "✕"),
    "flag": ("flag", "▲"),
    "pass": ("pass", "✓"),
    "not applicable": ("none", "–"),
    "not tested": ("none", "○"),
    "cannot be known from outside": ("none", "?"),
}
"""Verdict to (CSS class, sign), most urgent first."""


@dataclass(frozen=True)
class MetricWords:
    """How to call and read one metric.

    Parameters
    ----------
    name : str
        As in ``scores.csv``.
    title : str
        For a table.
    text : str
        What it measures, in one or two sentences.
    lower_is_better : bool, default False
        True for distances.
    digits : int, default 3
        Decimals worth printing.
    """

    name: str
    title: str
    text: str
    lower_is_better: bool = False
    digits: int = 3


def metric_words(name: str) -> MetricWords:
    """Title and explanation of a metric; an unknown one, of another version, goes by its own name.

    Parameters
    ----------
    name : str
        as in scores.csv

    Returns
    -------
    MetricWords
        from the table of metrics

    Examples
    --------
    >>> metric_words("nway50_top1.pixels").title
    '50-way, top 1 · pixels'
    """
    metric = find_metric(name)
    if metric is None:
        return MetricWords(name, name, "")

    exactly = f"Exactly: {metric.definition}. Chance: {metric.chance}."
    return MetricWords(
        name=name,
        title=metric.filled(metric.heading, name),
        text=f"{metric.filled(metric.reading, name)} {exactly}".strip(),
        lower_is_better=metric.better == "lower",
        digits=metric.digits,
    )


def input_words(name: str) -> tuple[str, str]:
    """Label of an input of the decoder, and what it is; an unknown one goes by its own name.

    Parameters
    ----------
    name : str
        As in ``scores.csv``.

    Returns
    -------
    tuple of (str, str)
        For a table, and for its legend.
    """
    return INPUTS.get(name, (name, ""))


# -- numbers -----------------------------------------------------------------------------------------------------------


def number(value: Any, digits: int = 3) -> str:
    """A number for a table: `digits` decimals, a true minus sign, an en dash for what is not a number.

    Parameters
    ----------
    value : object
        A number, or anything else.
    digits : int, default 3
        Decimals; one fewer from 100 on, and three significant digits from 10,000 on.

    Returns
    -------
    str
        Zero has no sign, however it came about.

    Examples
    --------
    >>> number(0.79123), number(float("nan")), number(-0.0001)
    ('0.791', '–', '0.000')
    """
    try:
        value = float(value)
    except (TypeError, ValueError):
        return "–"

    if math.isnan(value):
        return "–"

    if math.isinf(value):
        if value > 0:
            return "∞"

        return "−∞"

    if abs(value) >= 10_000:
        return f"{value:.3g}".replace("-", "−")

    if abs(value) >= 100:
        digits = max(0, digits - 1)

    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")

    return text.replace("-", "−")


def signed(value: Any, digits: int = 3) -> str:
    """A difference for a table: as `number`, with its sign.

    Parameters
    ----------
    value : object
        A number, or anything else.
    digits : int, default 3
        Decimals, as for `number`.

    Returns
    -------
    str
        What rounds to zero has no sign.

    Examples
    --------
    >>> signed(0.0312), signed(-0.2, 1), signed(0.0)
    ('+0.031', '−0.2', '0.000')
    """
    text = number(value, digits)
    if text != "–" and not text.startswith("−") and float(value) and text.strip("0."):
        return f"+{text}"

    return text


def p_value(value: Any) -> str:
    """A p value as printed; 0 is impossible for a permutation test, so it is called what it is.

    Examples
    --------
    >>> p_value(0.00009999), p_value(0.034), p_value(0.0)
    ('0.0001', '0.034', '0 (invalid)')
    """
    try:
        value = float(value)
    except (TypeError, ValueError):
        return "–"

    if math.isnan(value):
        return "–"
    if value <= 0:
        return "0 (invalid)"

    if value < 0.001:
        if value < 1e-4 * 0.95:  # four decimals would say 0.0001 or 0.0000
            return f"{value:.1g}"

        return f"{value:.4f}"

    if value < 0.1:
        return f"{value:.3f}"

    return f"{value:.2f}"


def whole(value: Any) -> str:
    """A count with thin separators, or an en dash."""
    try:
        return f"{int(float(value)):,}"
    except (TypeError, ValueError, OverflowError):
        return "–"


# -- what is not shown -------------------------------------------------------------------------------------------------

_SECRET_KEY = re.compile(r"token|passw|secret|api[_-]?key|credential|authorization", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|sk-[\w-]{16,}|AKIA[A-Z0-9]{12,})\b"
)
_URL_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_ANY_HOME = re.compile(
    r"(?:/home|/Users|/var/home)/+[^/\s'\":;,)<>]+"
    r"|[A-Za-z]:[\\/]+Users[\\/]+(?:[^\\/:*?\"<>|\n]+(?=[\\/])|[^\\/\s:*?\"<>|]+)"  # such names may hold spaces
)
HIDDEN = "[hidden]"


def redact(text: str) -> str:
    """`text` with home folders as ``~``, and tokens and logins in URLs hidden.

    Examples
    --------
    >>> redact("/home/ada/runs/a and https://ada:pw@host/x")
    '~/runs/a and https://[hidden]@host/x'
    """
    for home in _homes():
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)

    text = _ANY_HOME.sub("~", text)
    return _SECRET_TEXT.sub(HIDDEN, _URL_LOGIN.sub(f"{HIDDEN}@", text))


def is_secret(key: str) -> bool:
    """Whether a configuration key names something that is not shown, such as a token."""
    return bool(_SECRET_KEY.search(key))


def _homes() -> list[str]:
    try:
        home = Path.home()
    except RuntimeError:  # no home for this user
        return []

    # A home may be a link, so both its names are hidden; "/", as in a container without users, would hide every path.
    homes = []
    for name in {str(home), str(home.resolve())}:
        if len(name) > 1:
            homes.append(name)

    return sorted(homes, key=len, reverse=True)  # the longer first, which may hold the shorter
