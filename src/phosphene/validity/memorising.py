"""B10: does a decoder draw what it was trained on instead of what was seen?

A decoder that looks up the training picture whose response is most alike draws sharp pictures that are seldom those seen. Every
decoder draws something of its training set; how much of it the responses explain is measured on a plain ridge beside it.
"""

from __future__ import annotations

import numpy as np

from phosphene.metrics.identification import similarity
from phosphene.validity.check import CheckResult, Evidence, flagged, needed, not_applicable, passed
from phosphene.validity.decoding_target import PICTURES, DecodingTarget

_FEWEST = 10  # test pictures
_MORE = 0.25  # share beyond that of a plain ridge, above which a decoder is said to memorise
_PENALTIES = np.logspace(-2, 5, 15)


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
