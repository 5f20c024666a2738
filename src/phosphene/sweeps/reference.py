"""How far a run gets of what can be reached: the best linear decoder of pixels, where a data set knows it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from phosphene.data.oracle import BestLinear, OracleReader
from phosphene.data.registry import Source, known, reader
from phosphene.metrics.statistics import Interval, Statistic, bootstrap
from phosphene.run import RunConfig

__all__ = ["BestLinear", "best_linear_of", "correlation_over_pictures"]

_DRAWS = 500


def best_linear_of(config: RunConfig) -> BestLinear | None:
    """The best linear decoder of the pixels of a run's test pictures.

    Parameters
    ----------
    config : RunConfig
        of the run

    Returns
    -------
    BestLinear or None
        None for data whose truth is not known, another split, or some ROIs only
    """
    data = config.data
    if data.roi is not None or data.name not in known():
        return None

    # Asked before anything is computed from the options: those of other readers may not even be hashable.
    if not isinstance(reader(data.name), OracleReader):
        return None

    return _computed(data.name, data.subject, config.split, tuple(sorted(data.options.items())))


@cache
def _computed(
    name: str, subject: str | None, split: str | None, options: tuple[tuple[str, object], ...]
) -> BestLinear | None:
    offered = reader(name)
    assert isinstance(offered, OracleReader)

    source = Source(name, offered, Path(), subject)
    values = source.options(_plain(dict(options)))
    if subject is None:
        subject = offered.subjects(source.path, values)[0]

    return offered.oracle(source.path, values, subject, split=split)


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    return {str(k): v for k, v in options.items()}


def correlation_over_pictures(decoded: np.ndarray, seen: np.ndarray) -> Interval:
    """Correlation of each pixel over pictures, mean over pixels, with its bootstrap interval over pictures.

    What is the same for every picture counts nothing here, other than in PixCorr: a decoder that only knows how pictures look
    in general has 0. A pixel without variance counts as 0.

    Parameters
    ----------
    decoded, seen : ndarray of shape (n, h, w, channels)
        pictures in the same order

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
