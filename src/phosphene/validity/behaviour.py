"""L, by trying: does the function that was scored give the same when it must, on the test set it was scored on?

The pictures that were scored are compared with what a fresh copy of the fitted recipe gives: for a row alone (L2), beside noise
(L3), under other names, in another order and with the noise of another item (L9), and a thousandth of a standard deviation away
(L10). L11 asks which files were opened meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from scipy.stats import wilcoxon

from phosphene.errors import PhospheneError
from phosphene.types.identity import few, listed
from phosphene.validity.check import (
    CheckResult,
    Evidence,
    Redecoding,
    failed,
    flagged,
    needed,
    not_applicable,
    passed,
)

TOLERANCE = 1e-5  # relative; rounding of float32 products in batches of another size stays near 1e-6
N_ROWS = 16  # test rows that are predicted alone
SMALL = 0.001  # of a standard deviation of each voxel
_RARE = 0.02  # share of rows in which rounding may tip a generator that draws from a codebook
_JUMP = (
    0.05  # of the spread between predictions; honest decoders move by less than .001, those that know the row by .29
)
_LUCK = 0.001
_STREAM = 31  # of random numbers


def subset_invariance(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L2: a prediction must not depend on which other test rows come with it.

    Parameters
    ----------
    evidence : Evidence
        with ``redecoding``
    rng : numpy.random.Generator
        draws the rows that are predicted alone

    Returns
    -------
    CheckResult
        value: largest move of a prediction, relative to the largest prediction
    """
    redecoding = needed(evidence.redecoding)
    n = len(redecoding.betas)
    if n < 2:
        return not_applicable("A single test row has no company to depend on.")

    reference = _first(redecoding.reference())
    rows = np.sort(rng.choice(n, min(N_ROWS, n), replace=False))
    alone = []

    for row in rows:
        one = np.asarray([row])
        try:
            alone.append(redecoding.predict(redecoding.betas[one], one, first=True))
        except PhospheneError as error:
            return failed(float("inf"), f"A row cannot be predicted without others: {error}", row=int(row))

    moves = _moves(np.concatenate(alone), reference[rows], reference)  # (n_rows,)
    worst = float(moves.max())
    details = {"largest_move": worst, "tolerance": TOLERANCE, "n_rows": len(rows), "n_moved": _n_moved(moves)}

    if _is_moved(moves):
        return failed(
            worst,
            f"Predictions depend on other test rows: {_n_moved(moves)} of {len(rows)} differ from what was scored when they are "
            f"predicted alone (by up to {worst:.2g} of their size). That uses their statistics.",
            **details,
        )

    same = (
        f"Each of {len(rows)} predictions is the same alone as in the company it was scored in (within {TOLERANCE:g})."
    )
    return passed(worst, same, **details)


def perturbation(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L3: a prediction must not move when other test rows turn into noise.

    One half of the test set keeps its values while the other becomes noise, of its own size and of ten times that; then the
    other half. The number of rows stays, so that predictors that need a full batch, or turn on statistics in large ones only,
    are caught as well; each half is decoded by a fresh copy of the recipe.

    Parameters
    ----------
    evidence : Evidence
        with ``redecoding``
    rng : numpy.random.Generator
        not used: the noise is always the same

    Returns
    -------
    CheckResult
        value: largest move of a prediction, relative to the largest prediction
    """
    redecoding = needed(evidence.redecoding)
    n = len(redecoding.betas)
    if n < 2:
        return not_applicable("A single test row has no company to depend on.")

    try:
        moves = _beside_noise(redecoding, 1)
        if _is_moved(moves):  # by the noise, or by names or order, which changed as well
            moves = _beside_noise(redecoding, 0)

    except PhospheneError as error:
        return failed(float("inf"), f"The test set cannot be decoded beside noise: {error}")

    worst = float(moves.max())
    details = {"largest_move": worst, "tolerance": TOLERANCE, "n_rows": n, "n_moved": _n_moved(moves)}

    if _is_moved(moves):
        return failed(
            worst,
            f"Statistics of the test batch are used: {_n_moved(moves)} of {n} predictions move, by up to {worst:.2g} of their "
            f"size, when other test rows turn into noise.",
            **details,
        )

    text = f"Noise in the other half of {redecoding.tried} moves no prediction{_but(moves)} (within {TOLERANCE:g})."
    return passed(worst, text, **details)


def _beside_noise(redecoding: Redecoding, handing: int) -> np.ndarray:
    """(n,) how far each prediction moves when the other half of the rows turns into noise, handed over as `handing` says."""
    name = f"beside noise {handing}"
    if name in redecoding.known:
        return redecoding.known[name]

    betas = np.asarray(redecoding.betas)
    reference = redecoding.reference()
    rows = np.arange(len(betas))
    rng = np.random.default_rng([len(betas), _STREAM])
    even = rows % 2 == 0
    std = float(np.std(betas)) or 1.0
    moves = np.zeros(len(betas))

    # Noise of the usual size moves means; noise of ten times that also what withstands single outliers.
    for unchanged, size in ((even, 1.0), (~even, 10.0)):
        noisy = betas.copy()
        noisy[~unchanged] = size * std * rng.standard_normal((int((~unchanged).sum()), betas.shape[1]))
        predicted = redecoding.predict(noisy, rows, names=handing, order=handing)
        slack = _slack(redecoding)
        moves[unchanged] = _moves(predicted[unchanged], reference[unchanged], reference, slack)

    redecoding.known[name] = moves
    return moves


def names_and_order(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L9: a prediction must not depend on how a row is called, where it stands, or which noise key it has.

    Decoded again under other names and in another order, the pictures must be those that were scored. With the noise of other
    items they must be as near the truth.

    Parameters
    ----------
    evidence : Evidence
        with ``redecoding``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: largest move of a prediction, relative to the largest prediction
    """
    redecoding = needed(evidence.redecoding)
    n = len(redecoding.betas)
    rows = np.arange(n)
    reference = redecoding.reference()

    def moves_when(names: int, order: int) -> np.ndarray:
        predicted = redecoding.predict(redecoding.betas, rows, names=names, order=order)
        return _moves(predicted, reference, reference, _slack(redecoding))  # (n,)

    try:
        # Beside noise all names were other ones as well, and so was the order: where nothing moved, neither matters.
        if n > 1:
            moves = _beside_noise(redecoding, 1)
        else:
            moves = moves_when(1, 1)

        if _is_moved(moves):
            moves = moves_when(1, 1)

        if _is_moved(moves):
            return _what_moved(moves, moves_when(0, 0), moves_when(1, 0))

    except PhospheneError as error:
        return failed(float("inf"), f"What was scored cannot be decoded again: {error}")

    if redecoding.columns:
        declared = f" Besides responses the recipe is given {listed(list(redecoding.columns))}, as it declares."
    else:
        declared = ""

    worst = float(moves.max(initial=0))
    details = {"largest_move": worst, "n_moved": _n_moved(moves), "n_rows": n, "columns": list(redecoding.columns)}
    by_key = _by_noise_key(redecoding, reference, details)
    if by_key is not None:
        return by_key

    return passed(
        worst,
        f"Under other names, in another order and with the noise of other items, {redecoding.tried} are decoded to what was "
        f"scored{_but(moves)}.{declared}",
        **details,
    )


def _what_moved(moves: np.ndarray, again: np.ndarray, renamed: np.ndarray) -> CheckResult:
    """Which of repetition, names and order changes predictions, where something does."""
    worst = float(moves.max())
    counted = f"{_n_moved(moves)} of {len(moves)} predictions differ from what was scored"
    details = {"largest_move": worst, "n_moved": _n_moved(moves), "n_rows": len(moves)}

    if _is_moved(again):
        return failed(
            worst,
            f"The decoder does not give the same twice: {counted} when a fresh copy decodes the same rows. It depends on "
            "something besides responses and fitted stages, such as what an earlier call left behind.",
            cause="state",
            **details,
        )

    if _is_moved(renamed):
        return failed(
            worst,
            f"The decoder knows test items by name: {counted} under other names. Draw noise by trials.noise_keys and nothing by "
            "trials.stimuli.",
            cause="names",
            **details,
        )

    return failed(
        worst,
        f"The decoder knows test items by their order: {counted} when the rows come in another order.",
        cause="order",
        **details,
    )


def _by_noise_key(redecoding: Redecoding, reference: np.ndarray, details: dict[str, object]) -> CheckResult | None:
    """A failure where the noise key tells what was shown; None where it does not."""
    n = len(redecoding.betas)
    others = _other_items(redecoding)
    if (others == np.arange(n)).all():
        return None

    predicted = redecoding.predict(redecoding.betas, np.arange(n), names=2, order=2, keys=others)
    moves = _moves(predicted, reference, reference, _slack(redecoding))
    if not _is_moved(moves):
        return None

    worst = float(moves.max())
    details = {**details, "largest_move": worst, "n_moved": _n_moved(moves), "cause": "noise keys"}
    if redecoding.true is None:
        return None

    # The first sample is looked at alone as well: it is the one that a recipe would put to the front.
    p = min(
        _p_nearer(reference, predicted, redecoding.true),
        _p_nearer(_first(reference), _first(predicted), redecoding.true),
    )
    if p < _LUCK / 2:
        return failed(
            worst,
            "The noise key tells the decoder what was shown: with the keys of other items predictions are farther from the "
            f"truth (p = {p:.1g}).",
            **details,
        )

    return None


def _p_nearer(ours: np.ndarray, theirs: np.ndarray, true: np.ndarray) -> float:
    """Whether ours are nearer to the truth: p of a signed-rank test over items, 1 where fewer than ten differ."""
    gains = _errors(theirs, true) - _errors(ours, true)  # (n,)
    gains = gains[gains != 0]
    if len(gains) < 10:
        return 1.0

    _, p = wilcoxon(gains, alternative="greater")
    return float(p)  # pyright: ignore[reportArgumentType]  a number of NumPy


def _other_items(redecoding: Redecoding) -> np.ndarray:
    """(n,) another item of the same call for each."""
    n = len(redecoding.betas)
    groups = redecoding.groups
    if groups is None:
        groups = np.zeros(n, dtype=int)

    others = np.arange(n)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        others[members] = np.roll(members, 1)

    return others


def recognition(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L10: predictions must not jump when responses move by a thousandth of a standard deviation.

    Parameters
    ----------
    evidence : Evidence
        with ``redecoding``
    rng : numpy.random.Generator
        draws the moves

    Returns
    -------
    CheckResult
        value: how far half of the predictions move at least, in units of the spread between predictions
    """
    redecoding = needed(evidence.redecoding)
    betas = np.asarray(redecoding.betas)
    n = len(betas)
    if n < 2:
        return not_applicable("A single test row has no spread to be compared with.")

    step = SMALL * betas.std(axis=0, dtype=np.float64)  # (n_voxels,)
    moved = (betas + step * rng.standard_normal(betas.shape)).astype(betas.dtype)
    reference = _rows(_first(redecoding.reference()))
    try:
        predicted = _rows(redecoding.predict(moved, np.arange(n), first=True))
    except PhospheneError as error:
        return failed(float("inf"), f"Responses moved by {SMALL:g} standard deviations cannot be decoded: {error}")

    spread = float(np.sqrt(np.nanmean(np.square(reference - np.nanmean(reference, axis=0)))))
    if not spread > 0:
        return not_applicable("All predictions are the same, so none can jump.")

    jumps = np.sqrt(np.nanmean(np.square(predicted - reference), axis=1)) / spread  # (n,)
    value = float(np.median(jumps))
    n_jumped = int((jumps > _JUMP).sum())
    details = {"median_move": value, "n_jumped": n_jumped, "n_rows": n, "step": SMALL}

    if value > _JUMP or n_jumped > n / 2:
        return failed(
            value,
            f"The decoder recognises test rows: {n_jumped} of {n} predictions jump (half of them by {value:.2g} of the spread "
            f"between predictions or more) when responses move by {SMALL:g} standard deviations.",
            **details,
        )

    return passed(
        value,
        f"Predictions of {redecoding.tried} move by {value:.1g} of their spread when responses move by {SMALL:g} standard "
        "deviations.",
        **details,
    )


def opened_data(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """L11: no file of the data, and none that keeps anything, may be opened while decoding.

    Parameters
    ----------
    evidence : Evidence
        with ``redecoding``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: files of the data set that were opened, and files that were written
    """
    redecoding = needed(evidence.redecoding)
    if redecoding.opened is None:
        return not_applicable("Nobody took note of the files that were opened while decoding.")

    read, written = redecoding.opened()
    of_data = [file for file in (*read, *written) if _lies_in(file, redecoding.data_files)]
    others = sorted(set(read) - set(of_data))
    details = {"data": sorted(set(of_data)), "written": sorted(written), "others": others}

    if of_data:
        named = few([os.path.basename(file) for file in sorted(set(of_data))], 3)
        return failed(
            len(set(of_data)),
            f"The decoder opens the data while it decodes: {named}. It may look up what was shown.",
            **details,
        )

    if written:
        named = few([os.path.basename(file) for file in sorted(written)], 3)
        return failed(
            len(written),
            f"The decoder writes files while it decodes ({named}), so that later pictures may depend on earlier test rows.",
            **details,
        )

    if others:
        named = few([os.path.basename(file) for file in others], 3)
        return flagged(
            0,
            f"While decoding, files were read that are neither data nor code: {named}. Read weights when fitting.",
            **details,
        )

    return passed(0, "No file was opened while the test set was decoded.", **details)


def _lies_in(file: str, places: Sequence[str]) -> bool:
    return any(file == place or file.startswith(place.rstrip(os.sep) + os.sep) for place in places)


# -- how far predictions moved -----------------------------------------------------------------------------------------


def _rows(predictions: np.ndarray) -> np.ndarray:
    """(n, n_values) float64: latents or pictures, each in a row."""
    predictions = np.asarray(predictions, dtype=np.float64)
    return predictions.reshape(len(predictions), -1)


def _errors(predictions: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(n,) mean squared error of each prediction; `true` is broadcast over samples."""
    return np.square(_rows(np.asarray(predictions, dtype=np.float64) - true)).mean(axis=1)


def _first(predictions: np.ndarray) -> np.ndarray:
    """(n, 1, ...) first samples of (n, samples, ...); rows of numbers stay as they are."""
    if np.ndim(predictions) > 2:
        return predictions[:, :1]

    return predictions


def _slack(redecoding: Redecoding) -> np.ndarray:
    return np.asarray(redecoding.slack, dtype=np.float64)


def _moves(ours: np.ndarray, scored: np.ndarray, everything: np.ndarray, slack: np.ndarray | float = 0.0) -> np.ndarray:
    """(n,) largest difference of each row relative to the largest prediction; inf where shapes or missing values differ."""
    if np.shape(ours) != np.shape(scored):
        return np.full(len(scored), np.inf)

    gaps = np.abs(np.asarray(ours, dtype=np.float64) - np.asarray(scored, dtype=np.float64))
    gaps = np.maximum(gaps - slack, 0)
    gaps = np.where(np.isnan(ours) & np.isnan(scored), 0, gaps)
    gaps = _rows(np.where(np.isnan(gaps), np.inf, gaps))

    # Relative to the largest of all predictions: a row near zero may move by a rounding of the others' size.
    everything = np.asarray(everything)
    size = float(np.abs(everything[np.isfinite(everything)]).max(initial=0))
    if size > 0:
        gaps = gaps / size

    return gaps.max(axis=1)


def _n_moved(moves: np.ndarray) -> int:
    return int((~(moves <= TOLERANCE)).sum())


def _is_moved(moves: np.ndarray) -> bool:
    """Whether more rows moved than rounding can tip over."""
    return _n_moved(moves) > _RARE * len(moves)


def _but(moves: np.ndarray) -> str:
    n = _n_moved(moves)
    if n:
        return f" but {n}, which a rounding tipped over"

    return ""
