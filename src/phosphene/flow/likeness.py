"""What stimuli look like to whoever knows such pictures, for the split ``cluster:K`` and for checks S2, S3 and S6."""

from __future__ import annotations

import numpy as np

from phosphene.metrics.perceptual import FeatureExtractor, feature_extractors_for
from phosphene.types import Stimuli
from phosphene.validity.likeness import Likeness, copies, difference_hashes, thumbnails

QUICK = ("clip_lab", "imagenet_lite0")
"""Eyes that look at a thousand pictures in seconds on a processor, best first."""
MOST = 3000
"""Training pictures shown to an eye, beside those that may be copies of a test picture."""
_BLOCK = 512


def quick_eye(dataset: str) -> FeatureExtractor | None:
    """The eye that pictures of a data set are compared with; None where none is here, and pixels must do."""
    here = {eye.name: eye for eye in feature_extractors_for(dataset)}
    return next((here[name] for name in QUICK if name in here), None)


def features_of(dataset: str, stimuli: Stimuli, rows: np.ndarray | None = None) -> tuple[np.ndarray, str]:
    """(n, d) float32 features of stimuli, NaN where not in `rows`, and the name of their space."""
    eye = quick_eye(dataset)
    if rows is None:
        rows = np.arange(len(stimuli))
    else:
        rows = np.sort(rows)

    out: np.ndarray | None = None
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        pictures = stimuli.pixels(block)

        if eye is None:
            found = thumbnails(pictures)
        else:
            found = eye.features(pictures.astype(np.float32) / np.float32(255))

        if out is None:
            out = np.full((len(stimuli), found.shape[1]), np.nan, dtype=np.float32)

        out[block] = found

    if eye is None and out is not None:
        out -= out.mean(axis=1, keepdims=True)  # a brighter copy is a copy

    if eye is None:
        space = "pixels of small copies"
    else:
        space = eye.name

    return np.empty((0, 1), np.float32) if out is None else out, space


def likeness_of(dataset: str, stimuli: Stimuli, tested: np.ndarray, rng: np.random.Generator) -> Likeness:
    """Hashes of all stimuli; features of those tested, of their possible copies, and of a sample of the others.

    Parameters
    ----------
    dataset : str
        its name, which says who knows such pictures
    stimuli : Stimuli
        training and test
    tested : ndarray of shape (n_stimuli,), bool
    rng : numpy.random.Generator
        draws the sample
    """
    blocks = range(0, len(stimuli), _BLOCK)
    hashes = np.concatenate([difference_hashes(stimuli.pixels(slice(i, i + _BLOCK))) for i in blocks])
    everyone = tested.all()  # folds: each picture stands for training in the others

    if everyone:
        shown = np.zeros(len(stimuli), bool)
    else:
        shown = tested.copy()

    shown[rng.permutation(np.flatnonzero(~shown))[:MOST]] = True
    if not shown.all():
        few = np.flatnonzero(tested)
        others = np.flatnonzero(~tested | everyone)
        pairs = [(few[a], others[b]) for a, b, _ in copies(hashes[few], hashes[others]) if few[a] != others[b]]
        shown[np.asarray(pairs[:MOST], dtype=np.intp).ravel()] = True

    features, space = features_of(dataset, stimuli, np.flatnonzero(shown))
    return Likeness(stimuli.ids, hashes, features, space)
