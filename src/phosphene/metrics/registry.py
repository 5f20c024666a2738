"""Metrics by name, those of other packages included, and ``compute_scores``, which computes every one that applies.

Another package adds metrics by the entry point ``phosphene.metrics``, each a `Metric` or a list of them; a script adds one
to ``METRICS``. Whoever needs to know what a name in ``scores.csv`` means asks `metric_of` or `kind_of` and never takes the
name apart.
"""

from __future__ import annotations

import fnmatch
import math
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypedDict, Unpack

from phosphene.errors import ConfigError, NotAvailable, PhospheneWarning, did_you_mean
from phosphene.io.plugins import load_plugin, package_of, plugins_of
from phosphene.metrics.catalogue import METRICS
from phosphene.metrics.feature_metrics import classes_drawn
from phosphene.metrics.metric import PIXELS, Decoded, Encoded, Evaluation, Metric, Scores, Skip, Skipped
from phosphene.metrics.resize import CHAIN, RESIZED, SIDE, at_published_size

PLUGINS = "phosphene.metrics"
"""Entry-point group by which another package adds metrics."""

AT_PUBLISHED_SIZE = ("pixcorr", "ssim.2d", "ssim.columns")
"""Metrics that are also taken at the size published for NSD, as ``pixcorr.425`` and so on."""


class DrawSettings(TypedDict, total=False):
    """How a score is drawn: settings that `compute_scores` and `score_at_published_size` share."""

    seed: int
    n_draws: int
    n_permutations: int


def all_metrics() -> dict[str, Metric]:
    """Every metric by the template of its name: phosphene's own, then those of other installed packages.

    Returns
    -------
    dict[str, Metric]
        in the order in which they are computed

    Warns
    -----
    PhospheneWarning
        Of the plug-in of another package that cannot be loaded, is no `Metric`, or takes a name that is taken: its metrics are
        left out, all others are there.
    """
    return {**METRICS, **_plugin_metrics(tuple(sys.path))}


@lru_cache(maxsize=1)
def _plugin_metrics(path: tuple[str, ...]) -> dict[str, Metric]:
    """Metrics of other packages, loaded once for each `path` (that of the interpreter, where packages are found)."""
    found: dict[str, Metric] = {}
    for problem in _find_metrics(found):
        warnings.warn(f"{problem} Its metrics are left out.", PhospheneWarning, stacklevel=3)

    return found


def broken_metrics() -> list[str]:
    """A sentence for every metric plug-in of another package that cannot be used; all of them are loaded."""
    return _find_metrics({})


def _find_metrics(found: dict[str, Metric]) -> list[str]:
    """Fill in the metrics of other packages by name; what is wrong with those that cannot be used."""
    problems = []
    for entry in plugins_of(PLUGINS).values():
        try:
            content = load_plugin(entry, "metric plug-in", _metric_problem)
        except NotAvailable as error:
            problems.append(str(error))
            continue

        for metric in _listed(content):
            if metric.name in METRICS or metric.name in found:
                problems.append(
                    f"the metric plug-in '{entry.name}' of {package_of(entry)} ({entry.value}) adds {metric.name!r}, but there "
                    "is a metric of this name already. Give it another name, or remove one of the packages."
                )
                continue

            found[metric.name] = metric

    return problems


def _listed(content: Metric | Iterable[Metric]) -> list[Metric]:
    if isinstance(content, Metric):
        return [content]
    return list(content)


def _metric_problem(content: Any) -> str:
    """What is wrong with the metrics of another package; "" for nothing."""
    metrics = [content]
    if isinstance(content, list | tuple):
        metrics = list(content)

    for metric in metrics:
        if not isinstance(metric, Metric):
            return f"it should give a Metric or a list of them, but gave a {type(metric).__name__}."
    return ""


def metric_of(name: str) -> Metric:
    """The metric behind a full name.

    Parameters
    ----------
    name : str
        as in ``scores.csv``, such as ``two_way.pixels``

    Returns
    -------
    Metric
        its entry; for a metric of resized pictures (``pixcorr.425``) one that says so

    Raises
    ------
    ConfigError
        For a name that no metric makes.

    Examples
    --------
    >>> metric_of("two_way.clip").chance
    '1/2'
    >>> metric_of("mse").better
    'lower'
    >>> metric_of("pixcorr.425").title
    'PixCorr at 425 pixels'
    """
    metric = find_metric(name)
    if metric is None:
        raise ConfigError(f"there is no metric {name!r}. {did_you_mean(name, all_metrics())}")

    return metric


def find_metric(name: str) -> Metric | None:
    """The metric behind a full name, or None: a file may hold scores of another version of phosphene.

    Parameters
    ----------
    name : str
        as in ``scores.csv``

    Returns
    -------
    Metric or None
        as `metric_of`

    Examples
    --------
    >>> find_metric("brightness") is None
    True
    """
    for base in AT_PUBLISHED_SIZE:
        if name == base + RESIZED:
            return _resized(METRICS[base])

    metric = _find(name, METRICS)
    if metric is None:  # other packages are loaded only where none of our own fits
        metric = _find(name, _plugin_metrics(tuple(sys.path)))

    return metric


def _find(name: str, metrics: Mapping[str, Metric]) -> Metric | None:
    if name in metrics:
        return metrics[name]

    for metric in metrics.values():
        if metric.parts(name) is not None:
            return metric

    return None


def _resized(metric: Metric) -> Metric:
    """The same metric of pictures brought to the published size first."""
    steps = CHAIN.partition(", ")[2]
    return replace(
        metric,
        name=metric.name + RESIZED,
        title=f"{metric.title} at {SIDE} pixels",
        heading=f"{metric.heading} at {SIDE} pixels",
        definition=f"{metric.definition}; both pictures brought to {SIDE} pixels first ({steps}, 8 bits)",
        protocol={**metric.protocol, "resize_chain": CHAIN},
    )


def kind_of(name: str) -> str:
    """What is measured, whatever the feature space: ``two_way`` for ``two_way.pixels``; empty for an unknown metric.

    Parameters
    ----------
    name : str
        as in ``scores.csv``

    Returns
    -------
    str
        `Metric.kind`

    Examples
    --------
    >>> kind_of("two_way.pictures.clip_lab"), kind_of("ssim.2d"), kind_of("pixcorr.425"), kind_of("brightness")
    ('two_way', 'ssim.2d', 'pixcorr', '')
    """
    metric = find_metric(name)
    if metric is None:
        return ""
    return metric.kind


def space_of(name: str) -> str:
    """The feature space or classifier in a full name; empty where the metric has none, or is unknown.

    Parameters
    ----------
    name : str
        as in ``scores.csv``

    Returns
    -------
    str
        such as ``pixels`` or ``pictures.clip_lab``

    Examples
    --------
    >>> space_of("two_way.pictures.clip_lab"), space_of("ssim.2d")
    ('pictures.clip_lab', '')
    """
    metric = find_metric(name)
    if metric is None:
        return ""

    parts = metric.parts(name) or {}
    return parts.get("space", "")


def compute_scores(
    decoded: Decoded | None = None,
    encoded: Encoded | None = None,
    *,
    metrics: Iterable[str] | None = None,
    seed: int = 0,
    n_draws: int = 2000,
    n_permutations: int = 10_000,
) -> Scores:
    """Every metric that applies, with interval, chance, p and sample size.

    Parameters
    ----------
    decoded : Decoded, optional
        decoded pictures and latents with their truths, or None
    encoded : Encoded, optional
        predicted responses with the measured ones, or None
    metrics : iterable of str, optional
        full names or patterns such as ``two_way.*``; default all that apply
    seed : int, default 0
        of bootstraps and permutations; each metric has its own stream
    n_draws, n_permutations : int, optional
        bootstrap draws and permutations

    Returns
    -------
    Scores
        ``.scores``, ``.skipped`` with reasons, and ``.table(split, input, setting)``

    Raises
    ------
    ConfigError
        For a name or pattern that matches no metric of the table.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> true = rng.random((6, 12, 12, 1))
    >>> compute_scores(Decoded(np.arange(6), true, true), metrics=["two_way.pixels"])["two_way.pixels"].value
    1.0
    """
    evaluation = Evaluation(decoded, encoded, seed=seed, n_draws=n_draws, n_permutations=n_permutations)
    known = all_metrics()
    if metrics is None:
        patterns = ["*"]
    else:
        patterns = list(metrics)

    for pattern in patterns:
        if not any(metric.could_match(pattern) for metric in known.values()):
            metric_of(pattern)  # raises, and names the nearest

    scores = []
    skipped = []
    for metric in known.values():
        for space in spaces_of(metric, evaluation):
            name = full_name(metric, space, evaluation)
            if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                continue

            try:
                scores.append(metric.compute(evaluation, name, space))
            except Skip as reason:
                skipped.append(Skipped(name, str(reason)))

    return Scores(scores, skipped)


def score_at_published_size(decoded: Decoded, **draws: Unpack[DrawSettings]) -> Scores:
    """PixCorr and SSIM of pictures brought to the 425 pixels that the literature on NSD scores them at.

    Parameters
    ----------
    decoded : Decoded
        with pictures; of nothing else in it a score is made
    **draws : int
        `seed`, `n_draws`, `n_permutations` as `compute_scores` takes them

    Returns
    -------
    Scores
        named ``pixcorr.425`` and so on; none where the pictures are not larger than that on both sides
    """
    images = decoded.images
    true_images = decoded.true_images
    if images is None or true_images is None or min(images.shape[1:3]) <= SIDE:
        return Scores([], [])

    small = Decoded(
        decoded.ids,
        at_published_size(images),
        at_published_size(true_images),
        exchangeable=decoded.exchangeable,
    )
    found = compute_scores(small, metrics=AT_PUBLISHED_SIZE, **draws)

    scores = [replace(s, metric=s.metric + RESIZED) for s in found.scores]
    skipped = [replace(s, metric=s.metric + RESIZED) for s in found.skipped]
    return Scores(scores, skipped)


def bounds_of(name: str) -> tuple[float, float]:
    """The least and the most that a metric can be.

    Parameters
    ----------
    name : str
        full name

    Returns
    -------
    tuple of float
        infinite where there is no bound, and for metrics that nobody knows

    Examples
    --------
    >>> bounds_of("two_way.pixels"), bounds_of("mse")
    ((0.0, 1.0), (0.0, inf))
    """
    metric = find_metric(name)
    if metric is None:
        return -math.inf, math.inf

    return metric.bounds


def chance_out_of_fold(scored: Mapping[str, Scores]) -> dict[str, Scores]:
    """Scores of several inputs of one run in folds, with chance as it is out of fold.

    A decoder that knows nothing draws what its training pictures have in common. To it the truth is a picture that was held
    out, and most distractors are pictures it was trained on, so that two-way identification falls below .5. What it falls to
    is measured on matched noise that went through the same folds.

    Parameters
    ----------
    scored : Mapping of str to Scores
        by input; without ``noise`` chance stays as it is

    Returns
    -------
    dict of str to Scores
        the same scores, but for `chance`
    """
    noise: dict[str, float] = {}
    if "noise" in scored:
        for score in scored["noise"].scores:
            # Of classes chance is how many there are, which a few pictures of noise tell worse.
            if math.isfinite(score.in_folds) and metric_of(score.metric).over in (
                "images",
                "space",
                "seen",
                "everywhere",
            ):
                noise[score.metric] = score.in_folds

    adjusted = {}
    for name, scores in scored.items():
        changed = []
        for score in scores.scores:
            chance = noise.get(score.metric, score.chance)
            changed.append(replace(score, chance=chance))

        adjusted[name] = Scores(changed, scores.skipped)

    return adjusted


def full_name(metric: Metric, space: str, e: Evaluation) -> str:
    """The name of a metric in one space, as scores.csv has it.

    Parameters
    ----------
    metric : Metric
        its entry
    space : str
        one of `spaces_of`
    e : Evaluation
        says how many classes a classifier draws among

    Returns
    -------
    str
        the template filled in
    """
    name = metric.name.replace("{space}", space)
    if "{n}" in name:
        class_scores, _ = e.class_scores[space]
        return name.replace("{n}", str(classes_drawn(class_scores)))

    return name


def spaces_of(metric: Metric, e: Evaluation) -> list[str]:
    """The spaces a metric is computed in: one empty name for metrics without a space.

    Parameters
    ----------
    metric : Metric
        its entry
    e : Evaluation
        what is scored

    Returns
    -------
    list of str
        none where the metric does not apply
    """
    decoded = e.decoded
    if metric.over == "voxels":
        return [""] * (e.encoded is not None)
    if decoded is None:
        return []

    spaces: list[str] = []
    if metric.over == "images":
        spaces = [""] * (decoded.images is not None)
    elif metric.over == "space":
        spaces = e.spaces
    elif metric.over == "seen":
        spaces = e.picture_spaces(metric.kind)
    elif metric.over == "everywhere":
        spaces = e.spaces + e.picture_spaces(metric.kind)
    elif metric.over == "classes":
        spaces = list(e.class_scores)
    elif metric.over == "category":
        if decoded.classifier is not None and decoded.images is not None:
            spaces.append(PIXELS)

        spaces += [name for name, view in decoded.feature_views.items() if view.classifies]
    elif metric.over == "texts":
        spaces = [space for space in decoded.texts if space in decoded.latents]

    return [space for space in spaces if metric.applies(e, space)]
