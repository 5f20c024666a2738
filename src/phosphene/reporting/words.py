"""Plain words for what stands in a run: metrics, inputs, verdicts; and what must not be shown (homes, secrets)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.errors import ConfigError

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
}
"""Verdict to (CSS class, sign), most urgent first."""


@dataclass(frozen=True)
class MetricWords:
    """How to call and read one metric.

    Parameters
    ----------
    name : str
        as in scores.csv
    title : str
        for a table
    text : str
        what it measures, in one or two sentences
    lower_is_better : bool, default False
        true for distances
    """

    name: str
    title: str
    text: str
    lower_is_better: bool = False

    @property
    def digits(self) -> int:
        """Decimals worth printing."""
        if self.name.startswith("mse"):
            return 4

        return 3


_METRICS: tuple[tuple[str, str, str], ...] = (
    (
        r"pixcorr",
        "Pixel correlation",
        "How alike the decoded and the seen picture are, pixel by pixel, whatever their brightness and contrast. r is "
        "computed per picture and averaged plainly over pictures; a picture without variance counts as r = 0.",
    ),
    (r"mse", "Mean squared error", "How far the pixels are off; pixels run from 0 to 1."),
    (
        r"ssim\.2d",
        "SSIM",
        "Structural similarity (Wang et al. 2004): local brightness, contrast and pattern. The window and the data range "
        "matter: conventions in use differ by more than 0.2 on the same pictures, so compare only equal ones.",
    ),
    (
        r"ssim\.columns",
        "SSIM, column-wise",
        "What scripts computed that passed a grey picture as multichannel. Kept only to compare with publications that "
        "used it.",
    ),
    (
        r"two_way_within_class\.(?P<space>.+)",
        "Two-way, inside a class · {space}",
        "As two-way, but the distractor has the category of the truth: who knows only the category scores chance.",
    ),
    (
        r"two_way\.(?P<space>.+)",
        "Two-way · {space}",
        "How often a decoded picture resembles the seen one more than another test picture, over all pairs.",
    ),
    (
        r"cosine\.(?P<space>.+)",
        "Cosine · {space}",
        "How alike a network finds the decoded and the seen picture. Called CLIP distance in some papers, though higher is "
        "better. Pictures of one kind are alike to any network, so only what stands above chance counts.",
    ),
    (
        r"zero_shot_top(?P<k>\d+)\.(?P<space>.+)",
        "Zero-shot, top {k} · {space}",
        "How often the true category is among the {k} whose name, as text, is nearest to what was decoded. Candidates are the "
        "categories of the test pictures.",
    ),
    (
        r"zero_shot_centred_top(?P<k>\d+)\.(?P<space>.+)",
        "Zero-shot, centred, top {k} · {space}",
        "The same after taking away what all training pictures share, and what all candidate names share: decoders shrink "
        "towards the training mean, which would otherwise be named for everything.",
    ),
    (
        r"zero_shot_all_top(?P<k>\d+)\.(?P<space>.+)",
        "Zero-shot among all, top {k} · {space}",
        "The same with every category of the data set as a candidate, also those that were never tested.",
    ),
    (
        r"nway(?P<n>\d+)_top(?P<k>\d+)\.(?P<space>.+)",
        "{n}-way, top {k} · {space}",
        "How likely the seen picture stands, by similarity, among the top {k} of {n}.",
    ),
    (
        r"nway(?P<n>\d+)_top(?P<k>\d+)_class\.(?P<space>.+)",
        "{n}-way class, top {k} · {space}",
        "How likely a classifier ranks the class it gives the seen picture among the {k} best of {n} for the decoded one. "
        "Its own answer is taken for the truth, right or wrong.",
    ),
    (
        r"retrieval(?P<n>\d+|_all)\.(?P<space>.+)",
        "Retrieval among {n} · {space}",
        "How likely the seen picture is the most similar one in a gallery of {n} seen pictures.",
    ),
    (
        r"retrieval(?P<n>\d+|_all)_backward\.(?P<space>.+)",
        "Backward retrieval among {n} · {space}",
        "How likely the decoded picture is the most similar one to the seen in a gallery of {n} decoded pictures.",
    ),
    (
        r"category\.(?P<space>.+)",
        "Category · {space}",
        "How often a classifier reads the right category off the decoded picture.",
    ),
    (
        r"pearson\.voxels",
        "Encoding, r per voxel",
        "How well the predicted responses of a voxel follow the measured ones over test pictures.",
    ),
    (
        r"pearson\.fraction_of_ceiling",
        "Encoding, share of ceiling",
        "The same over what a perfect model could reach given the noise. Values above 1 are shown, not clipped.",
    ),
    (
        r"distance\.(?P<space>.+)",
        "Distance · {space}",
        "1 - r between network features of the decoded and seen picture.",
    ),
    (
        r"fid\.(?P<space>.+)",
        "FID · {space}",
        "How far the decoded pictures as a set are from the seen ones as a set; who decoded what plays no part. Of few "
        "pictures it is mostly bias: even two perfect sets are far apart (how far stands in the note). Compare it only with "
        "the same number of pictures, the same network and the same data.",
    ),
    (
        r"kid\.(?P<space>.+)",
        "KID · {space}",
        "Distance between the set of decoded and the set of seen pictures, as FID, but without its bias: 0 is expected "
        "where both are of one kind.",
    ),
)
_LOWER_IS_BETTER = r"(mse|mae|rmse|distance|lpips|fid|kid)\b"


def metric_words(name: str) -> MetricWords:
    """Title and explanation of a metric; an unknown one goes by its own name.

    Examples
    --------
    >>> metric_words("nway50_top1.pixels").title
    '50-way, top 1 · pixels'
    """
    lower, exact = _exactly(name)
    for pattern, title, text in _METRICS:
        found = re.fullmatch(pattern, name)
        if found:
            for key, value in found.groupdict().items():
                value = value.lstrip("_")
                value = re.sub(r"^pictures\.(.+)", r"\1 on pictures", value)
                title = title.replace(f"{{{key}}}", value)
                text = text.replace(f"{{{key}}}", value)

            return MetricWords(name, title, f"{text} {exact}".strip(), lower)

    return MetricWords(name, name, exact, lower)


def _exactly(name: str) -> tuple[bool, str]:
    """Whether lower is better, and the definition and chance level, from the table of metrics."""
    from phosphene.metrics.registry import metric_of

    try:
        entry = metric_of(name)
    except ConfigError:  # a run may hold metrics of another version
        return re.match(_LOWER_IS_BETTER, name) is not None, ""

    return entry.better == "lower", f"Exactly: {entry.definition}. Chance: {entry.chance}."


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
        if value > 0:
            return "∞"

        return "−∞"

    if abs(value) >= 10_000:
        return f"{value:.3g}".replace("-", "−")

    text = f"{value:.{max(0, digits - 1) if abs(value) >= 100 else digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")

    return text.replace("-", "−")


def signed(value: Any, digits: int = 3) -> str:
    """A difference for a table: as `number`, with its sign.

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
        if value < 1e-4 * 0.95:
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

    found = {str(home), str(home.resolve())}
    return sorted((h for h in found if len(h) > 1), key=len, reverse=True)
