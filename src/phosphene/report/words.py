"""Plain words for what stands in a run: metrics, inputs, verdicts; and what must not be shown (homes, secrets)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INPUTS = {
    "seen": ("seen", "the picture that was shown"),
    "brain": ("decoded", "decoded from the measured brain responses"),
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
}
"""Verdict to (CSS class, sign), most urgent first."""


@dataclass(frozen=True)
class MetricWords:
    """How to call and read one metric.

    Parameters
    ----------
    name : as in scores.csv
    title : for a table
    text : what it measures, in one or two sentences
    lower_is_better : true for distances
    """

    name: str
    title: str
    text: str
    lower_is_better: bool = False

    @property
    def digits(self) -> int:
        """Decimals worth printing."""
        return 4 if self.name.startswith("mse") else 3


_R = "r is computed per picture and averaged plainly over pictures; a picture without variance counts as r = 0."
_SSIM = (
    "Gaussian window of 11 taps (sigma 1.5), data range 1, grey pictures, and only windows that lie wholly inside the "
    "picture. Other windows and ranges in use shift SSIM by more than 0.2 on the same pictures."
)
_SPACE = "Pictures are compared in the space '{space}'."
_METRICS: tuple[tuple[str, str, str, bool], ...] = (
    (r"pixcorr", "Pixel correlation", "Pearson r between the pixels of the decoded and the seen picture. " + _R, False),
    (r"mse", "Mean squared error", "Mean squared difference of pixel values, which run from 0 to 1.", True),
    (r"ssim\.2d", "SSIM", "Structural similarity (Wang et al. 2004). " + _SSIM, False),
    (
        r"ssim\.columns",
        "SSIM, column-wise",
        "Structural similarity along each image column alone: what scripts computed that passed a grey picture as "
        "multichannel. Kept only to compare with publications that used it. " + _SSIM,
        False,
    ),
    (
        r"two_way_(?:within|inside)[^.]*\.(?P<space>.+)|two_way\.(?P<inner>.+)\.(?:within|inside)[^.]*",
        "Two-way, inside a class · {space}",
        "Two-way identification where the distractor has the same category as the truth: knowing the category alone "
        "scores chance. " + _SPACE,
        False,
    ),
    (
        r"two_way\.(?P<space>.+)",
        "Two-way · {space}",
        "How often a decoded picture resembles the seen one more than another test picture, over all pairs; ties count "
        "one half. " + _SPACE,
        False,
    ),
    (
        r"nway(?P<n>\d+)_top(?P<k>\d+)\.(?P<space>.+)",
        "{n}-way, top {k} · {space}",
        "Probability that the seen picture is among the {k} most similar of {n}, exact over every draw of distractors. "
        + _SPACE,
        False,
    ),
    (
        r"retrieval(?P<n>\d+|_?all)\.(?P<space>.+)",
        "Retrieval among {n} · {space}",
        "Probability that the seen picture is the most similar in a gallery of {n}, exact over every gallery. " + _SPACE,
        False,
    ),
    (
        r"pearson\.voxels",
        "Encoding, r per voxel",
        "Pearson r between predicted and measured responses over test pictures, per voxel, averaged over voxels.",
        False,
    ),
    (
        r"pearson\.fraction_of_ceiling",
        "Encoding, share of ceiling",
        "Explained variance of a voxel over its noise ceiling, the share a perfect model could explain. Values above "
        "1 are shown, not clipped.",
        False,
    ),
    (r"pearson\.(?P<space>.+)", "Encoding, r · {space}", "Pearson r of predicted and measured responses.", False),
    (
        r"fid\.(?P<space>.+)",
        "FID · {space}",
        "Distance between the distributions of decoded and seen pictures, not between pairs; biased for few pictures.",
        True,
    ),
    (r"kid\.(?P<space>.+)", "KID · {space}", "Kernel distance between the decoded and the seen set of pictures.", True),
    (
        r"(?P<space>eff|swav)(?:\..*)?",
        "Distance · {space}",
        "1 - r between network features of the decoded and the seen picture.",
        True,
    ),
)


def metric_words(name: str) -> MetricWords:
    """Title and explanation of a metric; an unknown one goes by its own name.

    Examples
    --------
    >>> metric_words("nway50_top1.pixels").title
    '50-way, top 1 · pixels'
    """
    for pattern, title, text, lower in _METRICS:
        found = re.fullmatch(pattern, name)
        if found:
            parts = {k: v for k, v in found.groupdict().items() if v is not None}
            parts.setdefault("space", parts.get("inner", ""))
            for key, value in parts.items():
                title, text = title.replace(f"{{{key}}}", value), text.replace(f"{{{key}}}", value)
            return MetricWords(name, title, text, lower)
    return MetricWords(name, name, "", bool(re.match(r"mse|mae|rmse|distance|lpips", name)))


def input_words(name: str) -> tuple[str, str]:
    """(label, what it is) of an input of the decoder."""
    return INPUTS.get(name, (name, ""))


# -- numbers -----------------------------------------------------------------------------------------------------------


def number(value: Any, digits: int = 3) -> str:
    """A number for a table: `digits` decimals, a true minus sign, an en dash for what is not a number.

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
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 10_000:
        return f"{value:.3g}".replace("-", "−")
    text = f"{value:.{max(0, digits - 1) if abs(value) >= 100 else digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


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
        return f"{value:.1g}" if value < 1e-4 * 0.95 else f"{value:.4f}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


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
_ANY_HOME = re.compile(r"(?:/home|/Users|/var/home|[A-Za-z]:[\\/]+Users)[\\/]+[^\\/\s'\":;,)<>]+")
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
    found = {str(home), str(home.resolve())}
    return sorted((h for h in found if len(h) > 1), key=len, reverse=True)
