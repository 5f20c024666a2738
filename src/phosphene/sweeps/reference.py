"""How far a run gets of what can be reached: the best linear decoder of pixels, which the simulated lab knows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from phosphene.metrics.statistics import Interval, Statistic, bootstrap
from phosphene.reporting.sweep_results import BestLinear
from phosphene.run import RunConfig

LEARNED = 600
"""Training pictures at most that the best linear decoder is computed from: a second of work."""
_DRAWS = 500


def best_linear_of(config: RunConfig) -> BestLinear | None:
    """The best linear decoder of the pixels of a run's test pictures; None for other data, another split, or some ROIs only."""
    data = config.data
    if data.name != "insilico" or data.roi is not None or config.split not in (None, data.options.get("design", "nsd")):
        return None

    return _computed(data.subject or "sub-01", tuple(sorted(data.options.items())))


@cache
def _computed(subject: str, options: tuple[tuple[str, object], ...]) -> BestLinear:
    from phosphene.lab.reader import InSilicoOptions, simulation

    made = simulation(InSilicoOptions(**_plain(dict(options))), subject)
    test = made.design.is_test
    learned = np.flatnonzero(~made.design.is_test)[:LEARNED]
    pixels = made.images.reshape(len(made.images), -1) / 255
    showings = int(made.design.shown[test].max())
    best = made.subject.bayes_linear(made.signal[learned], pixels[learned], showings)
    here = best.expected(made.signal[test], pixels[test])

    return BestLinear(float(here.correlation.mean()), float(best.learned.correlation.mean()), showings, len(learned))


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    return {str(k): v for k, v in options.items()}


def pixel_correlation(decoded: np.ndarray, seen: np.ndarray) -> Interval:
    """Correlation of each pixel over pictures, mean over pixels, with its bootstrap interval over pictures.

    What is the same for every picture counts nothing here, other than in PixCorr: a decoder that only knows how pictures look
    in general has 0. A pixel without variance counts as 0.

    Parameters
    ----------
    decoded, seen : ndarray of shape (n, h, w, channels)

    Returns
    -------
    Interval
    """
    flat = [np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (decoded, seen)]
    return bootstrap(_mean_correlation(*flat), len(seen), rng=np.random.default_rng(0), n_draws=_DRAWS)


def _mean_correlation(x: np.ndarray, y: np.ndarray) -> Statistic:
    x = x - x.mean(axis=0)
    y = y - y.mean(axis=0)
    products = (x, y, x * y, x * x, y * y)

    def statistic(counts: np.ndarray) -> np.ndarray:
        share = counts / counts.sum(axis=1, keepdims=True)
        mx, my, xy, xx, yy = (share @ p for p in products)
        vx = xx - mx**2
        vy = yy - my**2
        varies = (vx > 1e-12) & (vy > 1e-12)
        r = np.divide(xy - mx * my, np.sqrt(np.where(varies, vx * vy, 1)), out=np.zeros_like(xy), where=varies)

        return r.mean(axis=1)

    return statistic
