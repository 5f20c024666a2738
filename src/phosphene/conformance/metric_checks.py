"""`check_metric`: what every entry of the table of metrics must do."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

import numpy as np

from phosphene.conformance.checklist import Checklist, must, near, same
from phosphene.metrics.catalogue import METRICS
from phosphene.metrics.metric import OF_FEATURES, Decoded, Encoded, Evaluation, FeatureView, Metric, Score, Skip
from phosphene.metrics.registry import all_metrics, full_name, metric_of, spaces_of
from phosphene.metrics.zero_shot import Candidates

_CLASSES = 12
_SIZES = (60, 320)  # stimuli; the second for metrics with a larger gallery


def check_metric(
    metric: str | Metric,
    *,
    seconds: float = 120.0,
    megabytes: float = 2000.0,
    waived: Mapping[str, str] | None = None,
) -> None:
    """Check a metric on decoders whose worth is known: the truth itself, the truth half hidden in noise, and noise.

    Parameters
    ----------
    metric : str or Metric
        an entry for the table, or the name of one that is in it, with ``{space}`` where it has one
    seconds, megabytes : float, optional
        processor time and memory that one score may take
    waived : mapping of str to str, optional
        claims known to fail, and why

    Raises
    ------
    NonConforming
        With everything that does not hold.
    """
    if isinstance(metric, str):
        entry = all_metrics().get(metric) or metric_of(metric)
    else:
        entry = metric

    checks = Checklist(f"the metric {entry.name}", waived)
    checks.light("phosphene.metrics.registry" if entry.name in METRICS else entry.compute.__module__)

    with checks.claim("facts", "a name of lower-case words with a dot before the space, and texts that define it"):
        must(re.fullmatch(r"[a-z0-9_{}n]+(\.[a-z0-9_{}]+)?", entry.name), f"the name is {entry.name!r}")
        for fact in ("title", "definition", "chance"):
            must(getattr(entry, fact).strip(), f"{fact} is empty")

        must(entry.better in ("higher", "lower"), f"better is {entry.better!r}")

    half: Score | None = None
    size = 0
    with checks.claim("score", "a finite value with an interval, a p above 0, and one value per item"):
        size = _smallest_size(entry)

        with checks.bounded(seconds, megabytes), checks.untouched_randomness():
            half = _score(entry, _evaluation(size, 0.5))

        _check_score(half, _name(entry, _evaluation(size, 0.5)))

    if half is None or "score" in checks.failures:
        checks.conclude()
        return

    truth = _score(entry, _evaluation(size, 1.0))
    noise = _score(entry, _evaluation(size, 0.0))

    if entry.better == "higher":
        sign = 1
    else:
        sign = -1

    with checks.claim("direction", f"the truth itself to score {entry.better} than noise, and half of it in between"):
        values = f"truth {truth.value:.3g}, half {half.value:.3g}, noise {noise.value:.3g}"
        must(sign * truth.value > sign * noise.value, values)
        must(sign * truth.value >= sign * half.value >= sign * noise.value, values)

    if np.isfinite(noise.p):
        with checks.claim("chance", "noise to be no discovery, and the truth to be one"):
            must(noise.p > 1e-3, f"noise has p = {noise.p:.2g}")
            must(truth.p < 0.05, f"the truth has p = {truth.p:.2g}")

    with checks.claim("repeat", "the same bits when computed twice"):
        second = _score(entry, _evaluation(size, 0.5))
        same(_numbers(second), _numbers(half), "value, interval, p and items")

    with checks.claim("order", "the value not to depend on the order of rows"):
        order = np.random.default_rng(1).permutation(size)
        near(_score(entry, _evaluation(size, 0.5, order)).value, half.value, 1e-6, "the value")

    with checks.claim("input", "decoded and true items to stay as they were"):
        used = _evaluation(size, 0.5)
        fresh = _evaluation(size, 0.5)
        _score(entry, used)

        for ours, theirs in zip(_arrays(used), _arrays(fresh), strict=True):
            same(ours, theirs, "an input")

    with checks.claim("degenerate", "an item that is constant or NaN to be scored or skipped, without a warning"):
        for value in (0.0, np.nan):
            _tolerated(entry, _evaluation(size, 0.5, broken=value))

    with checks.claim("few", "one stimulus alone to be scored without a discovery, or skipped"):
        score = _tolerated(entry, _evaluation(1, 0.5))
        must(score is None or not score.p < 0.05, f"p = {getattr(score, 'p', None)}")

    checks.conclude()


def _smallest_size(metric: Metric) -> int:
    """The first number of stimuli that the metric does not skip. Raises AssertionError when it skips all."""
    reason: str | None = None
    for size in _SIZES:
        reason = _skipped(metric, size)
        if reason is None:
            return size

    raise AssertionError(f"it skips {_SIZES[-1]} stimuli ({reason})")


def _numbers(score: Score) -> list[float]:
    return [score.value, score.ci_low, score.ci_high, score.p, *score.per_item]


def _check_score(score: Score, name: str) -> None:
    must(isinstance(score, Score), f"it gave a {type(score).__name__}")
    must(score.metric == name, f"the score is called {score.metric!r}, not {name!r}")
    must(
        np.isfinite([score.value, score.ci_low, score.ci_high]).all(), f"{score.value}, {score.ci_low}, {score.ci_high}"
    )

    must(score.ci_low <= score.ci_high, f"the interval goes from {score.ci_low} to {score.ci_high}")
    must(np.isnan(score.p) or 0 < score.p <= 1, f"p is {score.p}")
    must(np.isfinite(score.chance) or np.isnan(score.p), f"there is a p but chance is {score.chance}")
    must(score.n > 1, f"n is {score.n}")
    must(len(score.per_item) == len(score.items), f"{len(score.per_item)} values came for {len(score.items)} items")


def _score(metric: Metric, evaluation: Evaluation) -> Score:
    return metric.compute(evaluation, _name(metric, evaluation), _place(metric, evaluation))


def _place(metric: Metric, evaluation: Evaluation) -> str:
    return spaces_of(metric, evaluation)[-1]


def _name(metric: Metric, evaluation: Evaluation) -> str:
    return full_name(metric, _place(metric, evaluation), evaluation)


def _skipped(metric: Metric, n: int) -> str | None:
    """Why the metric skips n stimuli; None when it does not."""
    try:
        _score(metric, _evaluation(n, 0.5))
    except Skip as reason:
        return str(reason)

    return None


def _tolerated(metric: Metric, evaluation: Evaluation) -> Score | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return _score(metric, evaluation)
        except Skip:
            return None


class _Nearest:
    """Reads the class of the most similar of known pictures."""

    def __init__(self, pictures: np.ndarray, labels: np.ndarray) -> None:
        self.pictures = pictures.reshape(len(pictures), -1)
        self.labels = labels

    def predict(self, pictures: np.ndarray) -> np.ndarray:
        flat = np.nan_to_num(pictures.reshape(len(pictures), -1))
        distances = [np.square(self.pictures - picture).sum(axis=1) for picture in flat]
        nearest = np.array([one.argmin() for one in distances])  # (n,)
        return self.labels[nearest]


def _evaluation(n: int, share: float, order: np.ndarray | None = None, broken: float | None = None) -> Evaluation:
    """What a decoder gives that mixes a share of the truth with noise, in everything a metric may look at.

    Parameters
    ----------
    n : int
        stimuli
    share : float
        of the truth
    order : ndarray, optional
        of rows; as they are by default
    broken : float, optional
        put in place of everything of the first item
    """
    rng = np.random.default_rng(7)
    rows = np.arange(n) if order is None else order
    kinds = np.arange(n) % _CLASSES
    classes = tuple(f"class {k}" for k in range(_CLASSES))

    def pair(true: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ours = share * true + (1 - share) * noise
        if broken is not None:
            ours[0] = broken

        return ours[rows], true[rows]

    images, true_images = pair(rng.random((n, 14, 14, 1)), rng.random((n, 14, 14, 1)))
    centres = rng.standard_normal((_CLASSES, 8))
    true = centres[kinds] + 0.1 * rng.standard_normal((n, 8))
    latents = pair(true, rng.standard_normal((n, 8)))

    # Noise of another distribution than the truth, for metrics of whole sets.
    features = pair(rng.standard_normal((n, 20)), 1 + 2 * rng.standard_normal((n, 20)))
    answers = np.eye(_CLASSES)[kinds]
    guesses = rng.random((n, _CLASSES))
    decoded_classes, true_classes = pair(answers, guesses / guesses.sum(axis=1, keepdims=True))

    ids = np.array([f"s{k}" for k in range(n)])[rows]
    labels = np.array(classes, dtype=object)[kinds][rows]
    heads = (*OF_FEATURES, "distance")
    view = FeatureView(*features, decoded_classes, true_classes, classes, heads)
    texts = Candidates((*classes, "unseen"), np.vstack([centres, -centres[:1]]), centre=np.zeros(8))
    decoded = Decoded(
        ids,
        images,
        true_images,
        latents={"space": latents},
        labels=labels,
        class_scores={"network": (decoded_classes, true_classes.argmax(axis=1))},
        classifier=_Nearest(true_images, labels),
        feature_views={"network": view},
        texts={"space": texts},
    )

    predicted, measured = pair(rng.standard_normal((n, 30)), rng.standard_normal((n, 30)))
    encoded = Encoded(decoded.ids, predicted, measured, rng.uniform(0.2, 0.9, 30))

    return Evaluation(decoded, encoded, n_draws=100, n_permutations=1000)


def _arrays(evaluation: Evaluation) -> list[np.ndarray]:
    decoded = evaluation.decoded
    encoded = evaluation.encoded
    assert decoded is not None
    assert encoded is not None
    assert decoded.images is not None
    assert decoded.true_images is not None

    view = decoded.feature_views["network"]
    scores, _ = decoded.class_scores["network"]
    return [
        decoded.images,
        decoded.true_images,
        *decoded.latents["space"],
        scores,
        view.features,
        view.true_features,
        encoded.predicted,
        encoded.measured,
    ]
