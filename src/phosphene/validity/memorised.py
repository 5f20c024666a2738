"""Is a decoded picture one that the decoder was trained on?

A decoder that draws the training picture it finds nearest scores well where training holds pictures like the test pictures, and
draws nothing that it has not seen. Every decoder draws something of its training set; how much of it the responses explain is
measured on a plain ridge beside it (check B10).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.metrics.identification import similarity
from phosphene.metrics.ties import first_best
from phosphene.validity.check import CheckResult, Evidence, flagged, needed, not_applicable, passed
from phosphene.validity.decoding_target import PICTURES, DecodingTarget
from phosphene.validity.likeness import SAME, difference_hashes, thumbnails

COPY = 0.99
"""Correlation of small copies from which on a decoded picture is a training picture, where their hashes agree as well."""

_FEWEST = 10  # test pictures
_MORE = 0.25  # share beyond that of a plain ridge, above which a decoder is said to memorise
_PENALTIES = np.logspace(-2, 5, 15)

MEMORISED_COLUMNS = ("stimulus", "truth", "training", "nearest", "is_nearer", "is_copy")


def memorised(
    stimuli: np.ndarray, decoded: np.ndarray, true: np.ndarray, names: np.ndarray, train: np.ndarray
) -> pd.DataFrame:
    """Each decoded picture beside its truth and beside the training picture that it is most like.

    Likeness is Pearson r over small copies of 16 x 16 pixels.

    Parameters
    ----------
    stimuli : ndarray of shape (n,)
        ids of the decoded pictures
    decoded, true : ndarray of shape (n, height, width, channels)
        uint8 or 0-1 floats
    names : ndarray of shape (m,)
        of the training pictures
    train : ndarray of shape (m, height, width, channels)
        uint8 or 0-1 floats

    Returns
    -------
    DataFrame
        stimulus; truth, its likeness to the truth; training, the largest to a training picture, and nearest, which one;
        is_nearer, whether that is larger; is_copy, whether it is that picture but for compression
    """
    small = thumbnails(decoded)  # (n, 16 * 16 * channels)
    to_truth = np.diagonal(similarity(small, thumbnails(true)))  # (n,)
    to_training = similarity(small, thumbnails(train))  # (n, m)
    which = first_best(np.nan_to_num(to_training, nan=-2.0))  # (n,)
    largest = to_training[np.arange(len(small)), which]

    bits = np.bitwise_count(difference_hashes(decoded) ^ difference_hashes(train)[which])
    rows = {
        "stimulus": stimuli,
        "truth": to_truth,
        "training": largest,
        "nearest": np.asarray(names)[which],
        "is_nearer": largest > to_truth,
        "is_copy": (largest > COPY) & (bits <= SAME),
    }
    return pd.DataFrame(rows, columns=list(MEMORISED_COLUMNS))


def share_nearer_to_training(predicted: np.ndarray, true: np.ndarray, train: np.ndarray) -> float:
    """Share of decoded pictures that are more like a training picture than like their own truth.

    Parameters
    ----------
    predicted, true : ndarray of shape (n_test, d)
        decoded pictures, and those seen
    train : ndarray of shape (n_train, d)
        training pictures

    Returns
    -------
    float
        0 to 1, by correlation; NaN where no picture varies
    """
    own = np.diagonal(similarity(predicted, true))  # (n_test,)
    nearest = similarity(predicted, train).max(axis=1)  # (n_test,)
    known = np.isfinite(own) & np.isfinite(nearest)
    if not known.any():
        return float("nan")

    return float(np.mean(nearest[known] > own[known] + 1e-6))


def memorising(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """B10: decoded pictures that are nearer to a training picture than to what was seen, beside the same for a plain ridge.

    Parameters
    ----------
    evidence : Evidence
        with ``targets``, of which the small copies of pictures are used
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: share of decoded pictures nearer to a training picture, 0 to 1
    """
    target = None
    for one in needed(evidence.targets):
        if one.space == PICTURES:
            target = one

    if target is None or len(target.true) < _FEWEST or target.betas is None or target.test_betas is None:
        return not_applicable(f"Fewer than {_FEWEST} test pictures with responses are at hand.")

    share = share_nearer_to_training(target.predicted, target.true, target.train)
    if np.isnan(share):
        return not_applicable("No decoded picture varies.")

    of_ridge = share_nearer_to_training(_ridge(target), target.true, target.train)
    facts = f"{100 * share:.0f} % of decoded pictures are nearer to a training picture than to what was seen"
    beside = f"a plain ridge to small pictures: {100 * of_ridge:.0f} %"
    details = {"share": share, "share_of_ridge": of_ridge, "n_training": target.n_train}
    if share > of_ridge + _MORE:
        return flagged(
            share,
            f"{facts} ({beside}): the decoder draws pictures it has memorised. Look at the nearest training pictures before "
            "believing a detail.",
            **details,
        )

    return passed(share, f"{facts} ({beside}).", **details)


def _ridge(target: DecodingTarget) -> np.ndarray:
    """(n_test, d) small pictures that a plain ridge predicts from the responses, its penalty by generalised cross-validation."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(alphas=_PENALTIES))
    return model.fit(target.betas, target.train).predict(target.test_betas)
