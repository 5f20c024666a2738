"""Several decoders on the same stimuli: who is better than whom, by how much, and which places that leaves open.

Every metric that has a value for each picture is compared stimulus by stimulus. Two intervals that overlap say little
about a difference; the interval of the paired difference does. All pairs of decoders within one metric are one family
for Holm's correction. A place is as certain as the corrected tests behind it: a decoder can be no better than one place
below all that are surely above it, and no worse than one above all that are surely below,

    places open = 1 + (surely better) ... n - (surely worse)

so that decoders nobody can tell apart share their places, however far apart their means happen to be.

References
----------
Holm 1979; Mogstad, Romano, Shaikh and Wilhelm 2024, "Inference for ranks with applications to mobility across
neighbourhoods and academic achievement across countries" (places from corrected pairwise tests).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from phosphene.errors import DataError
from phosphene.metrics.registry import find_metric
from phosphene.metrics.statistics import holm, paired_difference
from phosphene.metrics.ties import midranks

PAIR_COLUMNS = ("metric", "first", "second", "value", "ci_low", "ci_high", "p", "p_holm", "n")
RANK_COLUMNS = ("metric", "run", "value", "rank", "rank_low", "rank_high", "n")
LEVEL = 0.05  # of the corrected tests that decide which places are open


@dataclass(frozen=True)
class Comparison:
    """What a paired comparison found.

    Attributes
    ----------
    pairs : DataFrame
        one row per metric and pair of runs: ``metric, first, second, value, ci_low, ci_high, p, p_holm, n``. ``value``
        is first minus second, turned so that positive is better for the first whatever the metric's direction; interval
        BCa bootstrap over stimuli, p two-sided from sign flips, ``p_holm`` over the pairs of a metric
    ranks : DataFrame
        one row per metric and run: ``metric, run, value, rank, rank_low, rank_high, n``. ``rank`` 1 is the best mean,
        halves where means tie; ``rank_low`` to ``rank_high`` are the places open to it, together right in at least 95 %
        of cases
    """

    pairs: pd.DataFrame
    ranks: pd.DataFrame

    def pair(self, metric: str, first: str, second: str) -> dict[str, float] | None:
        """The row of two runs as first minus second, in whichever order it was computed.

        Parameters
        ----------
        metric : str
            full name
        first, second : str
            names of runs

        Returns
        -------
        dict[str, float] or None
            ``value, ci_low, ci_high, p, p_holm, n``; None when they were not compared
        """
        table = self.pairs.take(np.flatnonzero(self.pairs["metric"] == metric))

        for ours, theirs, sign in ((first, second, 1), (second, first, -1)):
            rows = np.flatnonzero((table["first"] == ours) & (table["second"] == theirs))
            if not len(rows):
                continue

            row = table.iloc[rows[0]]
            low, high = sorted((sign * row["ci_low"], sign * row["ci_high"]))  # turning the sign swaps the ends
            return {
                "value": sign * row["value"],
                "ci_low": low,
                "ci_high": high,
                "p": row["p"],
                "p_holm": row["p_holm"],
                "n": row["n"],
            }

        return None

    def place(self, metric: str, run: str) -> dict[str, float] | None:
        """The row of ``ranks`` of a run.

        Parameters
        ----------
        metric : str
            full name
        run : str
            name of a run

        Returns
        -------
        dict[str, float] or None
            ``metric, run, value, rank, rank_low, rank_high, n``; None where it was not compared
        """
        row = self.ranks[(self.ranks["metric"] == metric) & (self.ranks["run"] == run)]
        if row.empty:
            return None
        return row.iloc[0].to_dict()


def compare_items(
    items: Mapping[str, pd.DataFrame], *, seed: int = 0, n_draws: int = 2000, n_flips: int = 10_000
) -> Comparison:
    """Paired comparison of runs over the stimuli that all of them scored.

    Parameters
    ----------
    items : Mapping[str, DataFrame]
        name of a run to its scores of single stimuli: columns ``metric, stimulus, value``, one row per both
    seed : int, default 0
        of bootstrap and sign flips; each pair has its own stream, so that adding a metric changes no other
    n_draws, n_flips : int, optional
        bootstrap draws and random sign flips

    Returns
    -------
    Comparison
        of every metric that at least two runs have for at least two common stimuli. Metrics of sets of pictures (FID) and of
        voxels have no value per stimulus and are left out.

    Raises
    ------
    DataError
        When a stimulus stands twice in one metric of a run: then nothing says which belongs to which.

    Examples
    --------
    >>> def run(*values):
    ...     return pd.DataFrame({"metric": "pixcorr", "stimulus": ["a", "b", "c"], "value": values})
    >>> found = compare_items({"new": run(0.9, 0.8, 0.7), "old": run(0.5, 0.5, 0.5)})
    >>> round(found.pair("pixcorr", "new", "old")["value"], 3)
    0.3
    """
    # Metric to run to scores, metrics in the order in which the runs name them first.
    scored_by_metric: dict[str, dict[str, pd.Series]] = {}
    for name, table in items.items():
        for metric, scores in _by_stimulus(name, table).items():
            scored_by_metric.setdefault(metric, {})[name] = scores

    pairs = []
    ranks = []
    for metric, scored in scored_by_metric.items():
        entry = find_metric(metric)
        if entry is None or len(scored) < 2:  # a metric of another version: its direction is not known
            continue

        common = pd.concat(scored, axis=1, join="inner").dropna().sort_index()  # (n_stimuli, n_runs)
        if len(common) < 2:
            continue

        better = {name: entry.sign * common[name].to_numpy(float) for name in scored}  # larger is better
        rows = []
        for first, second in combinations(scored, 2):
            a, b = sorted((first, second))  # the same draws whichever run is named first
            rng = np.random.default_rng([seed, zlib.crc32(f"{metric} {a} {b}".encode())])
            difference = paired_difference(better[a], better[b], rng=rng, n_draws=n_draws, n_flips=n_flips)
            value = difference.value
            low = difference.low
            high = difference.high

            if a != first:
                value = -value
                low = -difference.high  # turning the sign swaps the ends
                high = -difference.low

            rows.append((metric, first, second, value, low, high, difference.p, np.nan, difference.n))

        table = pd.DataFrame(rows, columns=list(PAIR_COLUMNS))
        table["p_holm"] = holm(table["p"].to_numpy())  # over the pairs of this metric
        pairs.append(table)
        ranks.append(_ranks(metric, common, table, entry.sign))

    return Comparison(_joined(pairs, PAIR_COLUMNS), _joined(ranks, RANK_COLUMNS))


def _by_stimulus(name: str, table: pd.DataFrame) -> dict[str, pd.Series]:
    """Metric to its scores of a run, indexed by stimulus; a DataError that names the run for a repeated stimulus."""
    scores = {}
    for metric, group in table.groupby("metric", sort=False):
        is_repeat = group["stimulus"].duplicated()
        if is_repeat.any():
            twice = group.loc[is_repeat, "stimulus"].iloc[0]
            raise DataError(
                f"{name} has two values of {metric} for stimulus {twice}, so its stimuli cannot be paired with those of "
                "another run. Evaluate it again: phosphene evaluate averages the rows of one stimulus."
            )

        scores[str(metric)] = group.set_index("stimulus")["value"].astype(float)

    return scores


def _ranks(metric: str, common: pd.DataFrame, pairs: pd.DataFrame, sign: int) -> pd.DataFrame:
    """Rows of ``Comparison.ranks`` of a metric, from scores (n_stimuli, n_runs) and the corrected tests of its pairs."""
    runs = list(common.columns)
    means = common.mean(axis=0).to_numpy()  # (n_runs,)
    sure = pairs[pairs["p_holm"] < LEVEL]
    winners = np.where(sure["value"] > 0, sure["first"], sure["second"])
    losers = np.where(sure["value"] > 0, sure["second"], sure["first"])

    rank_low = []
    rank_high = []
    for run in runs:
        n_surely_better = int((losers == run).sum())
        n_surely_worse = int((winners == run).sum())
        rank_low.append(1 + n_surely_better)
        rank_high.append(len(runs) - n_surely_worse)

    return pd.DataFrame(
        {
            "metric": metric,
            "run": runs,
            "value": means,
            "rank": midranks(-sign * means),
            "rank_low": rank_low,
            "rank_high": rank_high,
            "n": len(common),
        }
    )


def _joined(parts: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    """One table, which has its columns even when there is nothing to join."""
    if parts:
        return pd.concat(parts, ignore_index=True)
    return pd.DataFrame(columns=list(columns))
