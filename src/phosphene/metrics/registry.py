"""Every metric by name. ``score`` walks this table; a new metric is one function and one entry.

The name says variant and feature space: ``ssim.2d``, ``nway50_top1.pixels``. Spaces of decoded latents go by their own
name, ``two_way.clip_lab``; what a network sees in the decoded pictures goes by ``pictures.`` and the network's name,
``two_way.pictures.clip_lab``. The two differ, and the second is what publications call "CLIP two-way". A score made from
the class probabilities of a network is named after the network alone: ``category.scenes``, ``nway16_top1_class.scenes``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from phosphene.errors import ConfigError, did_you_mean
from phosphene.metrics.direct import (
    n_way_identification,
    pixel_correlation,
    share_of_ceiling,
    squared_error,
    structure,
    two_way_identification,
    two_way_within_class,
    voxel_correlation,
)
from phosphene.metrics.metric import PIXELS, Decoded, Encoded, Evaluation, Score, Scores, Skip, Skipped
from phosphene.metrics.resize import CHAIN, RESIZED, SIDE, at_published_size
from phosphene.metrics.seen import category, classes_drawn, cosine, distance, fid, kid, n_way_classes, zero_shot
from phosphene.metrics.ssim import SIGMA


@dataclass(frozen=True)
class Metric:
    """One entry of the table.

    Attributes
    ----------
    name : str
        name, with ``{space}`` where a feature space or classifier goes, and ``{n}`` where a number follows from the
        data
    over : {"images", "space", "seen", "everywhere", "classes", "category", "texts", "voxels"}
        what it is computed over: ``images``, ``space`` (pixels and each space of latents), ``seen`` (the features of
        the pictures in each eye that is meant for the metric), ``everywhere`` (both), ``classes`` (each classifier's
        scores), ``category`` (whatever reads categories off pictures), ``texts`` (spaces of latents with text
        embeddings) or ``voxels``
    title : str
        for people
    definition : str
        the variant, exactly
    better : {"higher", "lower"}
        direction
    chance : str
        what chance is, in words
    compute : callable
        (evaluation, full name, space) -> Score, or raises Skip
    """

    name: str
    over: Literal["images", "space", "seen", "everywhere", "classes", "category", "texts", "voxels"]
    title: str
    definition: str
    better: Literal["higher", "lower"]
    chance: str
    compute: Callable[[Evaluation, str, str], Score]


_PAIRING = "mean over all pairings of the same pictures"
_SSIM = (
    f"grey, Gaussian window sigma {SIGMA} of 11 taps, data range 1, population covariance, centres inside the picture"
)
_DIRECTION = "Pearson r over features; truths ranked for each decoded item; ties one half"

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "pixcorr", "images", "PixCorr",
            "Pearson r over pixels and channels of each picture, plain mean over pictures", "higher", _PAIRING,
            pixel_correlation,
        ),
        Metric("mse", "images", "MSE", "mean squared difference, pixels from 0 to 1", "lower", _PAIRING, squared_error),
        Metric("ssim.2d", "images", "SSIM", f"{_SSIM}; windows over rows and columns", "higher", _PAIRING, structure),
        Metric(
            "ssim.columns", "images", "SSIM, column-wise legacy",
            f"{_SSIM}; one-dimensional windows along each column, as older scripts compute by accident", "higher",
            _PAIRING, structure,
        ),
        Metric("two_way.{space}", "everywhere", "two-way identification", _DIRECTION, "higher", "1/2", two_way_identification),
        Metric(
            "two_way_within_class.{space}", "everywhere", "two-way identification inside a class",
            f"{_DIRECTION}; distractors of the truth's own class only", "higher", "1/2", two_way_within_class,
        ),
        *(
            Metric(
                f"nway{n}_top{k}.{{space}}", "space", f"{n}-way top-{k} identification",
                f"{_DIRECTION}; exact mean over all draws of distractors", "higher", f"{k}/{n}", n_way_identification(n, k),
            )
            for n, k in ((10, 1), (50, 1), (50, 5))
        ),
        *(
            Metric(
                f"retrieval{n or '_all'}{suffix}.{{space}}", "space",
                f"{side} retrieval, top-1 among {n or 'all'}",
                f"{_DIRECTION.replace('truths ranked for each decoded item', ranked)}; exact mean over all galleries",
                "higher", f"1/{n or 'N'}", n_way_identification(n, 1, direction),
            )
            for suffix, side, direction, ranked in (
                ("", "forward", "truths", "truths ranked for each decoded item"),
                ("_backward", "backward", "decoded", "decoded items ranked for each truth"),
            )
            for n in (300, 0)
        ),
        Metric(
            "cosine.{space}", "seen", "cosine similarity",
            "cosine between the features of a decoded picture and of its truth, not centred", "higher", _PAIRING, cosine,
        ),
        Metric(
            "distance.{space}", "seen", "correlation distance",
            "1 - Pearson r over the features of a decoded picture and of its truth, plain mean over pictures", "lower",
            _PAIRING, distance,
        ),
        *(
            Metric(
                f"nway{{n}}_top{k}_class.{{space}}", "classes", f"n-way top-{k} classification",
                "exact mean over all draws of the classifier's other classes, n of 50 or of all where there are fewer; "
                "truth is its own answer to the true picture; ties one half", "higher", f"{k}/n", n_way_classes(k),
            )
            for k in (1, 5)
        ),
        Metric(
            "category.{space}", "category", "category accuracy",
            "true category read off the decoded picture, for pixels by a classifier fitted on training pictures, otherwise "
            "by the frozen network named", "higher", "expected agreement of shuffled labels", category,
        ),
        Metric(
            "fid.{space}", "seen", "FID",
            "squared Frechet distance of Gaussians fitted to the features of all decoded and all true pictures, "
            "covariances with n - 1; biased upwards for few pictures", "lower", "none: pairs play no part", fid,
        ),
        Metric(
            "kid.{space}", "seen", "KID",
            "unbiased squared MMD with kernel (x.y/d + 1)^3, exact over all pairs but those of a picture with itself or its "
            "truth", "lower", "none: pairs play no part; 0 for sets of one distribution", kid,
        ),
        *(
            Metric(
                f"zero_shot_top{k}.{{space}}", "texts", f"zero-shot classification, top-{k}",
                "cosine of decoded latents with text embeddings of the categories among the test stimuli", "higher",
                f"{k}/categories where all are equally frequent, otherwise the agreement of shuffled pairs", zero_shot(k),
            )
            for k in (1, 5)
        ),
        Metric(
            "zero_shot_centred_top1.{space}", "texts", "zero-shot classification, centred",
            "the same with latents relative to the mean of the training pictures' and categories relative to each other",
            "higher", "1/categories where all are equally frequent, otherwise the agreement of shuffled pairs",
            zero_shot(1, centred=True),
        ),
        Metric(
            "zero_shot_all_top1.{space}", "texts", "zero-shot classification among all categories",
            "cosine of decoded latents with text embeddings of every category of the data set, tested or not", "higher",
            "the agreement of shuffled pairs", zero_shot(1, everything=True),
        ),
        Metric(
            "pearson.voxels", "voxels", "encoding accuracy", "Pearson r over stimuli, mean over voxels", "higher", "0",
            voxel_correlation,
        ),
        Metric(
            "pearson.fraction_of_ceiling", "voxels", "encoding accuracy as a fraction of the ceiling",
            "sum of r over sum of sqrt(noise ceiling), voxels with a ceiling above 0; not clipped at 1", "higher", "0",
            share_of_ceiling,
        ),
    )
}  # fmt: skip


AT_PUBLISHED_SIZE = ("pixcorr", "ssim.2d", "ssim.columns")
"""Metrics that are also taken at the size published for NSD, as ``pixcorr.425`` and so on."""


def metric_of(name: str) -> Metric:
    """The table entry of a full metric name.

    Examples
    --------
    >>> metric_of("two_way.clip").chance
    '1/2'
    >>> metric_of("mse").better
    'lower'
    >>> metric_of("pixcorr.425").title
    'PixCorr at 425 pixels'
    """
    if name in METRICS:
        return METRICS[name]

    if name.endswith(RESIZED) and name.removesuffix(RESIZED) in AT_PUBLISHED_SIZE:
        metric = METRICS[name.removesuffix(RESIZED)]
        size = f"{metric.definition}; both pictures brought to {SIDE} pixels first ({CHAIN.partition(', ')[2]}, 8 bits)"
        return replace(metric, name=name, title=f"{metric.title} at {SIDE} pixels", definition=size)

    for template, metric in METRICS.items():
        if re.fullmatch(_expression(template), name):
            return metric

    raise ConfigError(f"there is no metric {name!r}. {did_you_mean(name, METRICS)}")


def _expression(template: str) -> str:
    """A template of a name as a regular expression."""
    return re.escape(template).replace(r"\{n\}", r"\d+").replace(r"\{space\}", ".+")


def score(
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
    >>> score(Decoded(np.arange(6), true, true), metrics=["two_way.pixels"])["two_way.pixels"].value
    1.0
    """
    evaluation = Evaluation(decoded, encoded, seed=seed, n_draws=n_draws, n_permutations=n_permutations)
    if metrics is None:
        wanted = None
    else:
        wanted = list(metrics)

    for name in wanted or ():
        if not any(_could_match(name, template) for template in METRICS):
            metric_of(name)

    scores = []
    skipped = []

    for metric in METRICS.values():
        for space in spaces_of(metric, evaluation):
            name = full_name(metric, space, evaluation)
            if wanted is not None and not any(fnmatch.fnmatch(name, pattern) for pattern in wanted):
                continue

            try:
                scores.append(metric.compute(evaluation, name, space))
            except Skip as reason:
                skipped.append(Skipped(name, str(reason)))

    return Scores(scores, skipped)


def score_at_published_size(decoded: Decoded, **settings: int) -> Scores:
    """PixCorr and SSIM of pictures brought to the 425 pixels that the literature on NSD scores them at.

    Parameters
    ----------
    decoded : Decoded
        with pictures; of nothing else in it a score is made
    settings : int
        `seed`, `n_draws`, `n_permutations` as `score` takes them

    Returns
    -------
    Scores
        named ``pixcorr.425`` and so on; none where the pictures are not larger than that on both sides
    """
    if decoded.images is None or min(decoded.images.shape[1:3]) <= SIDE:
        return Scores([], [])

    ours = at_published_size(decoded.images)
    true = at_published_size(decoded.true_images)
    small = Decoded(decoded.ids, ours, true, exchangeable=decoded.exchangeable)
    found = score(small, metrics=AT_PUBLISHED_SIZE, **settings)

    return Scores(
        [replace(s, metric=s.metric + RESIZED) for s in found.scores],
        [replace(s, metric=s.metric + RESIZED) for s in found.skipped],
    )


def full_name(metric: Metric, space: str, e: Evaluation) -> str:
    """The name of a metric in one space, as scores.csv has it."""
    name = metric.name.replace("{space}", space)
    if "{n}" in name:
        return name.replace("{n}", str(classes_drawn(e.class_scores[space][0])))

    return name


def _could_match(pattern: str, template: str) -> bool:
    """Whether a name or pattern such as ``two_way.*`` fits some name made from a template."""
    head, dot, _ = pattern.partition(".")
    if dot and "{space}" in template:
        pattern = f"{head}.x"

    if "{n}" in template:
        heads = ("16", "50")
    else:
        heads = ("",)

    names = [template.replace("{space}", "x").replace("{n}", n) for n in heads]
    return any(fnmatch.fnmatch(name, pattern) for name in names) or bool(re.fullmatch(_expression(template), pattern))


def spaces_of(metric: Metric, e: Evaluation) -> list[str]:
    """The spaces a metric is computed in: one empty name for metrics without a space."""
    decoded = e.decoded
    if metric.over == "voxels":
        return [""] * (e.encoded is not None)
    if decoded is None:
        return []
    if metric.over == "space":
        return e.spaces
    if metric.over in ("seen", "everywhere"):
        return e.spaces * (metric.over == "everywhere") + e.picture_spaces(metric.name.partition(".")[0])
    if metric.over == "classes":
        return list(e.class_scores)

    if metric.over == "category":
        eyes = [name for name, seen in decoded.views.items() if seen.classifies]
        return [PIXELS] * (decoded.classifier is not None and decoded.images is not None) + eyes

    if metric.over == "texts":
        return [s for s in decoded.texts if s in decoded.latents and _says_something(metric, s, e)]

    return [""] * (decoded.images is not None)


def _says_something(metric: Metric, space: str, e: Evaluation) -> bool:
    """False for "all categories" where the test stimuli show all of them, which would be the same number twice, and for
    "centred" where folds have several training means."""
    texts = e.decoded.texts[space]
    if e.labels is None:
        shown = ()
    else:
        shown = set(e.labels.astype(str))

    if metric.name.startswith("zero_shot_centred"):
        return texts.centre is not None

    return not metric.name.startswith("zero_shot_all") or len(shown) < len(texts.names)
