"""How the metrics of pictures, latents and voxels are computed; ``feature_metrics`` has those of network features.

Each takes the evaluation, the full name of the metric and the space, and gives a Score or raises Skip.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from phosphene.metrics.identification import Direction, comparisons, rank_matrix, two_way
from phosphene.metrics.metric import PIXELS, Compute, Evaluation, Score, Skip, bounded, joined
from phosphene.metrics.nway import n_way, n_way_influence, n_way_matrix
from phosphene.metrics.pixel import mse, pixcorr
from phosphene.metrics.ssim import WINDOW, Variant, ssim_2d, ssim_columns, ssim_pairs
from phosphene.metrics.statistics import bootstrap, mean_of_items, mean_of_pairs, permutation_null
from phosphene.metrics.voxelwise import fraction_of_ceiling, pearson_per_voxel

_SSIM_BUDGET = 3e9  # pixels of all SSIM pairs of one null; about ten seconds


def pixel_correlation(e: Evaluation, name: str, _: str) -> Score:
    """Pearson r over the pixels of each picture.

    Parameters
    ----------
    e : Evaluation
        with decoded and true pictures
    name : str
        full name of the metric
    _ : str
        not used: pixels have no other space

    Returns
    -------
    Score
        -1 to 1; a constant picture counts as r = 0
    """
    r = pixcorr(*e.pictures)
    note = e.undefined_note(np.isnan(r), "r = 0")
    return e.score(name, np.nan_to_num(r), np.nan_to_num(e.similarity(PIXELS)), note=note)


def squared_error(e: Evaluation, name: str, _: str) -> Score:
    """Mean squared difference of each picture; lower is better.

    Parameters
    ----------
    e : Evaluation
        with decoded and true pictures
    name : str
        full name of the metric
    _ : str
        not used: pixels have no other space

    Returns
    -------
    Score
        0 to 1, lower is better; a picture that is not finite counts as a random pairing

    Raises
    ------
    Skip
        When no decoded picture is finite.
    """
    error = mse(*e.pictures)
    matrix = -e.similarity(PIXELS, "neg_mse")
    undefined = np.isnan(error)
    if undefined.all():
        raise Skip("no decoded picture is finite")

    # Chance for an error is that of a random pairing; 0 would be a perfect score.
    typical = np.nanmean(matrix)
    note = e.undefined_note(undefined, "a random pairing")
    return e.score(
        name,
        np.where(undefined, typical, error),
        np.where(np.isnan(matrix), typical, matrix),
        better="lower",
        note=note,
    )


def structural_similarity(variant: Variant) -> Compute:
    """SSIM of each picture; the null of many or large pictures is taken in random blocks.

    Parameters
    ----------
    variant : {"2d", "columns"}
        windows over rows and columns, or along each column

    Returns
    -------
    callable
        (evaluation, full name, space) -> Score
    """

    def compute(e: Evaluation, name: str, _: str) -> Score:
        decoded, true = e.pictures
        height, width = decoded.shape[1:3]
        if height < WINDOW or (variant == "2d" and width < WINDOW):
            raise Skip(f"its window has {WINDOW} pixels but the pictures are {height} x {width}")

        if variant == "2d":
            per_row = ssim_2d(decoded, true)
        else:
            per_row = ssim_columns(decoded, true)

        note = e.undefined_note(np.isnan(per_row), "SSIM = 0")
        n_stimuli = len(e.ids)
        block = max(2, int(_SSIM_BUDGET / (len(decoded) * height * width)))
        if block >= n_stimuli:
            matrix = ssim_pairs(decoded, true[e.first], variant)  # (rows, stimuli)
            return e.score(name, np.nan_to_num(per_row), np.nan_to_num(matrix), note=note)

        # A null inside random blocks needs only those pairs, and is as valid: pairings are exchangeable in each block.
        n_blocks = -(-n_stimuli // block)
        groups = e.rng(name + " blocks").permutation(np.arange(n_stimuli) % n_blocks)
        matrix = np.zeros((len(decoded), n_stimuli))
        for group in np.unique(groups):
            rows = np.flatnonzero(groups[e.truth] == group)
            columns = np.flatnonzero(groups == group)
            matrix[np.ix_(rows, columns)] = ssim_pairs(decoded[rows], true[e.first[columns]], variant)

        blocks = f"null permuted inside random blocks of {-(-n_stimuli // n_blocks)} items"
        return e.score(
            name,
            np.nan_to_num(per_row),
            np.nan_to_num(matrix),
            groups=e.inside_exchangeable(groups),
            note=joined(note, blocks),
        )

    return compute


def two_way_identification(e: Evaluation, name: str, space: str) -> Score:
    """Share of distractors that each decoded item is less like than its own truth.

    Parameters
    ----------
    e : Evaluation
        with decoded and true items
    name : str
        full name of the metric
    space : str
        ``pixels``, a space of latents, or ``pictures.NAME`` of an extractor

    Returns
    -------
    Score
        0 to 1, chance 1/2; the interval draws rows and columns together

    Raises
    ------
    Skip
        With a single test item.
    """
    s = e.similarity(space)
    if s.shape[1] < 2:
        raise Skip("a single test item has no distractor")

    wins, counted = comparisons(s, e.truth)
    wins = e.per_stimulus(wins)  # (stimuli, stimuli)
    counted = e.per_stimulus(counted)
    return e.score(
        name,
        two_way(s, e.truth),
        rank_matrix(s),
        chance=0.5,
        statistic=mean_of_pairs(wins, counted),
        note=_undefined(e, s),
    )


def two_way_within_class(e: Evaluation, name: str, space: str) -> Score:
    """The same against distractors of the truth's own class.

    Parameters
    ----------
    e : Evaluation
        with decoded and true items, and class labels
    name : str
        full name of the metric
    space : str
        ``pixels``, a space of latents, or ``pictures.NAME`` of an extractor

    Returns
    -------
    Score
        0 to 1, chance 1/2; the null permutes inside classes

    Raises
    ------
    Skip
        Without labels, or where no class has two test items.
    """
    if e.labels is None:
        raise Skip("the stimuli have no class labels")

    s = e.similarity(space)
    per_row = two_way(s, e.truth, e.labels)
    if np.isnan(per_row).all():
        raise Skip("no class has two test items")

    wins, counted = comparisons(s, e.truth, e.labels)
    wins = e.per_stimulus(wins)  # (stimuli, stimuli)
    counted = e.per_stimulus(counted)
    _, groups = np.unique(e.labels, return_inverse=True)
    return e.score(
        name,
        per_row,
        rank_matrix(s, e.labels),
        chance=0.5,
        statistic=mean_of_pairs(wins, counted),
        groups=e.inside_exchangeable(groups),
        note=_undefined(e, s),
    )


def _undefined(e: Evaluation, s: np.ndarray) -> str:
    """The note that says how many rows have no similarity with their own truth; empty where all have."""
    own = s[np.arange(len(s)), e.truth]  # (rows,)
    return e.undefined_note(np.isnan(own), "chance")


def n_way_identification(n: int, k: int, direction: Direction = "truths") -> Compute:
    """Top-k among n candidates, seen from the decoded items or from the truths.

    Parameters
    ----------
    n : int
        candidates, the truth among them; 0 for all there are
    k : int
        how many best count
    direction : {"truths", "decoded"}, default "truths"
        whether candidates are true or decoded items

    Returns
    -------
    callable
        (evaluation, full name, space) -> Score
    """

    def compute(e: Evaluation, name: str, space: str) -> Score:
        s = e.similarity(space)
        if direction == "decoded" and e.has_repeats:
            raise Skip("a gallery of decoded items needs one decoded item per stimulus")

        size = n or s.shape[1]
        if size > s.shape[1] or size <= k:
            raise Skip(f"it needs {max(size, k + 1)} test stimuli but there are {s.shape[1]}")

        if direction == "truths":
            truth = e.truth
        else:
            truth = None

        if n == 0:
            gallery = f"gallery of {size}"
        else:
            gallery = ""

        score = e.score(
            name,
            n_way(s, size, k, truth, direction),
            n_way_matrix(s, size, k, direction),
            chance=k / size,
            statistic=mean_of_items(n_way_influence(s, size, k, truth, direction)),
            note=joined(_undefined(e, s), gallery),
        )
        return bounded(score, 0, 1)

    return compute


def voxel_correlation(e: Evaluation, name: str, _: str) -> Score:
    """Pearson r over stimuli, mean over voxels.

    Parameters
    ----------
    e : Evaluation
        with predicted and measured responses
    name : str
        full name of the metric
    _ : str
        not used: voxels have no other space

    Returns
    -------
    Score
        -1 to 1, a value for each voxel

    Raises
    ------
    Skip
        With fewer than three stimuli.
    """
    measured = e.responses[1]
    everywhere = np.ones(measured.shape[1], dtype=bool)
    return _encoding(e, name, everywhere.astype(float), everywhere, "")


def share_of_ceiling(e: Evaluation, name: str, _: str) -> Score:
    """The same as a share of what the noise lets a perfect model reach.

    Parameters
    ----------
    e : Evaluation
        with predicted and measured responses, and their noise ceiling
    name : str
        full name of the metric
    _ : str
        not used: voxels have no other space

    Returns
    -------
    Score
        1 for a perfect model, not clipped, however many voxels have no signal: it is taken over voxels that are reliable in
        training, or where that is not known with ceilings that are not clipped at 0 either

    Raises
    ------
    Skip
        Without a noise ceiling above 0, or with fewer than three stimuli.
    """
    assert e.encoded is not None
    if e.encoded.ceiling is None:
        raise Skip("there is no noise ceiling, as no stimulus was repeated")

    variance = np.asarray(e.encoded.ceiling, dtype=np.float64)
    ceiling = np.sqrt(np.maximum(variance, 0))  # of r, not of explained variance
    if not (ceiling > 0).any():
        raise Skip("the noise ceiling is 0 or undefined in every voxel")

    predicted, measured = e.responses
    n_above = fraction_of_ceiling(pearson_per_voxel(predicted, measured), ceiling).n_above_one
    if e.encoded.reliable is not None and (e.encoded.reliable & (ceiling > 0)).any():
        used = e.encoded.reliable & (ceiling > 0)
        note = f"over {int(used.sum())} of {len(used)} voxels that answer alike to repeats in training"
    elif e.encoded.unclipped is not None and np.isfinite(e.encoded.unclipped).any():
        # In voxels without a signal the estimate is as often below 0 as above: with both, their sum is 0.
        used = np.isfinite(e.encoded.unclipped)
        share = np.where(used, e.encoded.unclipped, 0)
        ceiling = np.sign(share) * np.sqrt(np.abs(share))
        note = f"over all {int(used.sum())} voxels, ceilings not clipped at 0"
    else:
        used = ceiling > 0
        note = f"{int((~used).sum())} voxels without a ceiling above 0 left out"

    return _encoding(e, name, ceiling, used, f"{note}; {n_above} voxels above their ceiling")


def _encoding(e: Evaluation, name: str, ceiling: np.ndarray, used: np.ndarray, note: str) -> Score:
    """Mean r over the voxels used, over the mean ceiling of the same: linear in r, so null and interval stay exact."""
    predicted, measured = e.responses
    n = len(measured)
    if n < 3:
        raise Skip(f"a correlation over {n} stimuli says nothing; it needs 3")

    r = pearson_per_voxel(predicted, measured)
    undefined = np.isnan(r[used])
    if undefined.any():
        note = joined(note, f"{int(undefined.sum())} constant voxels counted as r = 0")

    x = _standardised(predicted[:, used], undefined)  # (n_stimuli, n_used)
    y = _standardised(measured[:, used], undefined)
    scale = ceiling[used].sum()
    if scale <= 0:
        raise Skip("the noise ceilings of all voxels together are not above 0")

    value = float(np.nan_to_num(r[used]).sum() / scale)

    rng = e.rng(name)
    interval = bootstrap(_mean_correlation(x, y, scale), n, rng=rng, n_draws=e.n_draws)
    null = permutation_null(x @ y.T / scale * n, rng=rng, n_permutations=e.n_permutations)  # (n_stimuli, n_stimuli)
    return Score(
        metric=name,
        value=value,
        ci_low=interval.low,
        ci_high=interval.high,
        chance=0.0,
        p=null.p,
        n=n,
        per_item=fraction_of_ceiling(np.nan_to_num(r), ceiling).ratio,
        items=np.arange(len(r)),
        note=note,
    )


def _standardised(x: np.ndarray, undefined: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1, all zero where undefined, float32."""
    x = np.where(undefined, 0, x).astype(np.float64)
    x -= x.mean(axis=0)
    length = np.sqrt(np.square(x).sum(axis=0))
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0).astype(np.float32)


def _mean_correlation(x: np.ndarray, y: np.ndarray, scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """Sum over voxels of the weighted Pearson r, over ``scale``, as a function of draw counts.

        r = (sum_s w_s x_s y_s - mean x mean y) / sqrt(var x var y),    w = counts / n

    so that all draws of a block of voxels are five matrix products.
    """

    def statistic(counts: np.ndarray) -> np.ndarray:
        weights = (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)  # (n_draws, n_stimuli)
        total = np.zeros(len(counts))
        for start in range(0, x.shape[1], 512):
            a = x[:, start : start + 512]
            b = y[:, start : start + 512]
            mean_a = weights @ a  # (n_draws, n_block), as all that follow
            mean_b = weights @ b
            covariance = weights @ (a * b) - mean_a * mean_b
            power = (weights @ (a * a) - mean_a**2) * (weights @ (b * b) - mean_b**2)
            r = np.zeros_like(power)
            np.divide(covariance, np.sqrt(np.maximum(power, 0)), out=r, where=power > 1e-14)
            total += r.sum(axis=1, dtype=np.float64)

        return total / scale

    return statistic
