"""Is a decoded picture one that the decoder was trained on?

A decoder that draws the training picture it finds nearest scores well where training holds pictures like the test pictures, and
draws nothing that it has not seen.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.metrics.identification import similarity
from phosphene.metrics.ties import first_best
from phosphene.validity.likeness import SAME, difference_hashes, thumbnails

COPY = 0.99
"""Correlation of small copies from which on a decoded picture is a training picture, where their hashes agree as well."""

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
