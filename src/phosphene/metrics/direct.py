"""Scores of pictures, latents and voxels as they are, for the table of metrics; ``seen.py`` has those of what networks see.

Each takes the evaluation, the full name of the metric and the space, and gives a Score or raises Skip.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from phosphene.metrics.identification import comparisons, rank_matrix, two_way
from phosphene.metrics.metric import PIXELS, Evaluation, Score, Skip
from phosphene.metrics.nway import n_way, n_way_influence, n_way_matrix
from phosphene.metrics.pixel import mse, pixcorr
from phosphene.metrics.seen import bounded
from phosphene.metrics.ssim import WINDOW, ssim_2d, ssim_columns, ssim_pairs
from phosphene.metrics.statistics import bootstrap, mean_of_items, mean_of_pairs, permutation_null
from phosphene.metrics.voxelwise import fraction_of_ceiling, pearson_per_voxel

_SSIM_BUDGET = 3e9  # pixels of all SSIM pairs of one null; about ten seconds


def pixel_correlation(e: Evaluation, name: str, _: str) -> Score:
    """Pearson r over the pixels of each picture."""
    r = pixcorr(e.decoded.images, e.decoded.true_images)
    note = e.undefined_note(np.isnan(r), "r = 0")
    return e.score(name, np.nan_to_num(r), np.nan_to_num(e.similarity(PIXELS)), note=note)


def squared_error(e: Evaluation, name: str, _: str) -> Score:
    """Mean squared difference of each picture; lower is better."""
    error = mse(e.decoded.images, e.decoded.true_images)
    matrix = -e.similarity(PIXELS, "neg_mse")
    undefined = np.isnan(error)
    if undefined.all():
        raise Skip("no decoded picture is finite")

    typical = np.nanmean(matrix)
    note = e.undefined_note(undefined, "a random pairing")

    return e.score(
        name,
        np.where(undefined, typical, error),
        np.where(np.isnan(matrix), typical, matrix),
        better="lower",
        note=note,
    )


def structure(e: Evaluation, name: str, _: str) -> Score:
    """SSIM of each picture, in the variant that the name says; the null of many or large pictures is taken in random blocks."""
    ours = e.decoded.images
    true = e.decoded.true_images
    variant = name.split(".")[1]
    height, width = ours.shape[1:3]

    if height < WINDOW or (variant == "2d" and width < WINDOW):
        raise Skip(f"its window has {WINDOW} pixels but the pictures are {height} x {width}")

    per_row = (ssim_2d if variant == "2d" else ssim_columns)(ours, true)
    note = e.undefined_note(np.isnan(per_row), "SSIM = 0")
    m = len(e.ids)
    block = max(2, int(_SSIM_BUDGET / (len(ours) * height * width)))

    if block >= m:
        return e.score(name, np.nan_to_num(per_row), np.nan_to_num(ssim_pairs(ours, true[e.first], variant)), note=note)

    # A null inside random blocks needs only those pairs, and is as valid: pairings are exchangeable in each block.
    n_blocks = -(-m // block)
    groups = e.rng(name + " blocks").permutation(np.arange(m) % n_blocks)
    matrix = np.zeros((len(ours), m))

    for group in np.unique(groups):
        rows = np.flatnonzero(groups[e.truth] == group)
        columns = np.flatnonzero(groups == group)
        matrix[np.ix_(rows, columns)] = ssim_pairs(ours[rows], true[e.first[columns]], variant)

    if e.exchangeable is not None:
        groups = np.unique([f"{g} {x}" for g, x in zip(groups, e.exchangeable, strict=True)], return_inverse=True)[1]

    note = "; ".join(filter(None, [note, f"null permuted inside random blocks of {-(-m // n_blocks)} items"]))
    return e.score(name, np.nan_to_num(per_row), np.nan_to_num(matrix), groups=groups, note=note)


def two_way_identification(e: Evaluation, name: str, space: str) -> Score:
    """Share of distractors that each decoded item is less like than its own truth."""
    s = e.similarity(space)
    if s.shape[1] < 2:
        raise Skip("a single test item has no distractor")

    wins, counted = (e.per_stimulus(x) for x in comparisons(s, e.truth))
    return e.score(
        name, two_way(s, e.truth), rank_matrix(s), chance=0.5, statistic=mean_of_pairs(wins, counted),
        note=_undefined(e, s),
    )  # fmt: skip


def two_way_within_class(e: Evaluation, name: str, space: str) -> Score:
    """The same against distractors of the truth's own class."""
    if e.labels is None:
        raise Skip("the stimuli have no class labels")

    s = e.similarity(space)
    per_row = two_way(s, e.truth, e.labels)
    if np.isnan(per_row).all():
        raise Skip("no class has two test items")

    wins, counted = (e.per_stimulus(x) for x in comparisons(s, e.truth, e.labels))
    groups = np.unique(e.labels, return_inverse=True)[1]
    if e.exchangeable is not None:
        groups = np.unique([f"{g} {x}" for g, x in zip(groups, e.exchangeable, strict=True)], return_inverse=True)[1]

    return e.score(
        name, per_row, rank_matrix(s, e.labels), chance=0.5, statistic=mean_of_pairs(wins, counted), groups=groups,
        note=_undefined(e, s),
    )  # fmt: skip


def _undefined(e: Evaluation, s: np.ndarray) -> str:
    return e.undefined_note(np.isnan(s[np.arange(len(s)), e.truth]), "chance")


def n_way_identification(n: int, k: int, direction: str = "truths") -> Callable[[Evaluation, str, str], Score]:
    """Top-k among n candidates, 0 for all of them, seen from the decoded items or from the truths."""

    def compute(e: Evaluation, name: str, space: str) -> Score:
        s = e.similarity(space)
        if direction == "decoded" and e.has_repeats:
            raise Skip("a gallery of decoded items needs one decoded item per stimulus")

        if n == 0:
            size = s.shape[1]
        else:
            size = n

        if size > s.shape[1] or size <= k:
            raise Skip(f"it needs {max(size, k + 1)} test stimuli but there are {s.shape[1]}")

        if direction == "truths":
            truth = e.truth
        else:
            truth = None

        statistic = mean_of_items(n_way_influence(s, size, k, truth, direction))
        score = e.score(
            name, n_way(s, size, k, truth, direction), n_way_matrix(s, size, k, direction), chance=k / size,
            statistic=statistic, note="; ".join(filter(None, [_undefined(e, s), f"gallery of {size}" * (n == 0)])),
        )  # fmt: skip

        return bounded(score, 0, 1)

    return compute


def voxel_correlation(e: Evaluation, name: str, _: str) -> Score:
    """Pearson r over stimuli, mean over voxels."""
    return _encoding(e, name, np.ones(np.shape(e.encoded.measured)[1]), "")


def share_of_ceiling(e: Evaluation, name: str, _: str) -> Score:
    """The same as a share of what the noise lets a perfect model reach."""
    if e.encoded.ceiling is None:
        raise Skip("there is no noise ceiling, as no stimulus was repeated")

    ceiling = np.sqrt(np.maximum(np.asarray(e.encoded.ceiling, dtype=np.float64), 0))
    fraction = fraction_of_ceiling(pearson_per_voxel(e.encoded.predicted, e.encoded.measured), ceiling)
    if not (ceiling > 0).any():
        raise Skip("the noise ceiling is 0 or undefined in every voxel")

    no_ceiling = int((~(ceiling > 0)).sum())
    note = f"{no_ceiling} voxels without a ceiling above 0 left out, {fraction.n_above_one} voxels above their ceiling"

    return _encoding(e, name, ceiling, note)


def _encoding(e: Evaluation, name: str, ceiling: np.ndarray, note: str) -> Score:
    """Mean r over voxels, over the mean ceiling of the same voxels: linear in r, so null and interval stay exact."""
    n = len(e.encoded.ids)
    if n < 3:
        raise Skip(f"a correlation over {n} stimuli says nothing; it needs 3")

    r = pearson_per_voxel(e.encoded.predicted, e.encoded.measured)
    used = ceiling > 0
    x, y = (np.asarray(z)[:, used] for z in (e.encoded.predicted, e.encoded.measured))
    undefined = int(np.isnan(r[used]).sum())

    if undefined:
        note = "; ".join(filter(None, [note, f"{undefined} constant voxels counted as r = 0"]))

    x, y = (_standardised(z, np.isnan(r[used])) for z in (x, y))
    scale = ceiling[used].sum()
    value = float(np.nan_to_num(r[used]).sum() / scale)
    rng = e.rng(name)
    interval = bootstrap(_mean_correlation(x, y, scale), n, rng=rng, n_draws=e.n_draws)
    null = permutation_null(x @ y.T / scale * n, rng=rng, n_permutations=e.n_permutations)
    per_voxel = fraction_of_ceiling(np.nan_to_num(r), ceiling).ratio
    voxels = np.arange(len(r))

    return Score(name, value, interval.low, interval.high, 0.0, null.p, n, per_voxel, voxels, note)


def _standardised(x: np.ndarray, undefined: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1, all zero where undefined, float32."""
    x = np.where(undefined, 0, x).astype(np.float64)
    x -= x.mean(axis=0)
    length = np.sqrt(np.square(x).sum(axis=0))
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0).astype(np.float32)


def _mean_correlation(x: np.ndarray, y: np.ndarray, scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """Sum over voxels of the weighted Pearson r, over ``scale``, as a function of draw counts."""

    def statistic(counts: np.ndarray) -> np.ndarray:
        weights = (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
        total = np.zeros(len(counts))

        for start in range(0, x.shape[1], 512):
            a = x[:, start : start + 512]
            b = y[:, start : start + 512]
            mean_a = weights @ a
            mean_b = weights @ b
            covariance = weights @ (a * b) - mean_a * mean_b
            power = (weights @ (a * a) - mean_a**2) * (weights @ (b * b) - mean_b**2)
            r = np.zeros_like(power)
            np.divide(covariance, np.sqrt(np.maximum(power, 0)), out=r, where=power > 1e-14)
            total += r.sum(axis=1, dtype=np.float64)

        return total / scale

    return statistic
