"""Features of stimuli by a network that knows such pictures, for the split ``cluster:K`` and for checks S2, S3 and S6."""

from __future__ import annotations

import numpy as np

from phosphene.metrics.perceptual import FeatureExtractor, feature_extractors_for
from phosphene.types import Stimuli
from phosphene.validity.altered_copies import grey_copies
from phosphene.validity.likeness import Likeness, copies, difference_hashes, thumbnails

QUICK = ("clip_lab", "imagenet_lite0")
"""Networks that read a thousand pictures in seconds on a processor, best first."""
MAX_TRAINING = 3000
"""Training pictures that are read, beside those that may be copies of a test picture."""
_BLOCK = 512


def quick_extractor(dataset: str) -> FeatureExtractor | None:
    """The network that pictures of a data set are compared with; None where none is here, and pixels must do."""
    extractors = {extractor.name: extractor for extractor in feature_extractors_for(dataset)}
    return next((extractors[name] for name in QUICK if name in extractors), None)


def features_of(dataset: str, stimuli: Stimuli, rows: np.ndarray | None = None) -> tuple[np.ndarray, str]:
    """Features by which stimuli are told apart, and the name of their space.

    Parameters
    ----------
    dataset : str
        its name, which says who knows such pictures
    stimuli : Stimuli
        n pictures
    rows : ndarray of int, optional
        which are read; all by default

    Returns
    -------
    tuple of (ndarray, str)
        (n, d) float32, NaN where not in `rows`; and the name of the network, or what pixels are taken
    """
    extractor = quick_extractor(dataset)
    if rows is None:
        rows = np.arange(len(stimuli))
    else:
        rows = np.sort(rows)

    features: np.ndarray | None = None
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        pictures = stimuli.pixels(block)

        if extractor is None:
            of_block = thumbnails(pictures)
        else:
            of_block = extractor.features(pictures.astype(np.float32) / np.float32(255))

        if features is None:
            features = np.full((len(stimuli), of_block.shape[1]), np.nan, dtype=np.float32)

        features[block] = of_block

    space = "pixels of small copies"
    if extractor is not None:
        space = extractor.name

    if features is None:
        return np.empty((0, 1), np.float32), space

    if extractor is None:
        centred: np.ndarray = features - features.mean(axis=1, keepdims=True)  # a brighter copy is a copy
        return centred, space

    return features, space


def likeness_of(dataset: str, stimuli: Stimuli, tested: np.ndarray, rng: np.random.Generator) -> Likeness:
    """Hashes of all stimuli; features of those tested, of their possible copies, and of a sample of the others.

    Parameters
    ----------
    dataset : str
        its name, which says who knows such pictures
    stimuli : Stimuli
        training and test
    tested : ndarray of shape (n_stimuli,), bool
        whether a stimulus is a test picture
    rng : numpy.random.Generator
        draws the sample

    Returns
    -------
    Likeness
    """
    blocks = range(0, len(stimuli), _BLOCK)
    hashed = []
    small = []
    for start in blocks:
        pictures = stimuli.pixels(slice(start, start + _BLOCK))
        hashed.append(difference_hashes(pictures))
        small.append(grey_copies(pictures))

    hashes = np.concatenate(hashed)
    grey = np.concatenate(small)
    all_tested = tested.all()  # folds: each picture stands for training in the others

    if all_tested:
        is_read = np.zeros(len(stimuli), bool)
    else:
        is_read = tested.copy()

    is_read[rng.permutation(np.flatnonzero(~is_read))[:MAX_TRAINING]] = True
    if not is_read.all():
        of_test = np.flatnonzero(tested)
        of_training = np.flatnonzero(~tested | all_tested)
        pairs = []
        for a, b, _ in copies(hashes[of_test], hashes[of_training]):
            if of_test[a] != of_training[b]:
                pairs.append((of_test[a], of_training[b]))

        is_read[np.asarray(pairs[:MAX_TRAINING], dtype=np.intp).ravel()] = True

    features, space = features_of(dataset, stimuli, np.flatnonzero(is_read))
    return Likeness(stimuli.ids, hashes, features, space, grey)
