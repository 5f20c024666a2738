"""Our scores against those of a control, item by item on the same stimuli."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import pandas as pd

from phosphene.metrics.metric import Scores
from phosphene.metrics.registry import metric_of
from phosphene.metrics.statistics import paired_difference

DIFFERENCE_COLUMNS = ("metric", "control", "value", "ci_low", "ci_high", "p", "n")


def paired_differences(
    ours: Scores,
    theirs: Scores,
    control: str,
    *,
    seed: int = 0,
    n_draws: int = 2000,
    groups: Mapping[str, str] | None = None,
    n_folds: int = 1,
) -> pd.DataFrame:
    """Mean difference to a control in every metric of single items that both have, paired over stimuli.

    Two intervals that overlap say little about a difference; the interval of the difference does.

    Parameters
    ----------
    ours, theirs : Scores
        scores of the brain and of the control on the same stimuli
    control : str
        name of the control, such as ``mean`` or ``category``
    seed, n_draws : int, optional
        of the bootstrap
    groups : Mapping of str to str, optional
        group of each stimulus, where stimuli depend on each other
    n_folds : int, default 1
        folds that the stimuli were tested in

    Returns
    -------
    DataFrame
        columns ``metric, control, value, ci_low, ci_high, p, n``; ``value`` is ours minus the control's, turned so that
        positive is better for us whatever the metric's direction
    """
    rows = []
    known = {score.metric: score for score in theirs.scores}

    for score in ours.scores:
        metric = metric_of(score.metric)
        other = known.get(score.metric)
        if other is None or metric.items != "stimuli" or not np.array_equal(score.items, other.items):
            continue

        rng = np.random.default_rng([seed, zlib.crc32(f"{score.metric} {control}".encode())])
        ours_better = metric.sign * score.per_item
        theirs_better = metric.sign * other.per_item
        of_items = None
        if groups is not None:
            of_items = np.array([groups[str(item)] for item in score.items])

        difference = paired_difference(
            ours_better, theirs_better, rng=rng, n_draws=n_draws, groups=of_items, n_folds=n_folds
        )
        rows.append((score.metric, control, *difference))

    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))
