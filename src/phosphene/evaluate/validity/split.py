"""S: is the test set a test set?"""

from __future__ import annotations

import hashlib

import numpy as np

from phosphene.errors import DataError
from phosphene.evaluate.validity.base import Answer, Evidence, id_set
from phosphene.types.identity import few


def picture_digests(pictures: np.ndarray) -> list[str]:
    """SHA-256 of each picture's pixels, the same for 0-255 integers and 0-1 floats of one picture.

    Parameters
    ----------
    pictures : (n, height, width) or (n, height, width, channels), uint8 or 0-1 floats

    Returns
    -------
    list of n hexadecimal digests of shape and pixels rounded to 8 bits

    Examples
    --------
    >>> grey = np.full((1, 2, 2, 1), 51, np.uint8)
    >>> picture_digests(grey) == picture_digests(grey / 255)
    True
    """
    pictures = np.asarray(pictures)
    if pictures.ndim not in (3, 4) or pictures.dtype.kind not in "uf":
        raise DataError(f"pictures should be (n, height, width, channels), uint8 or 0-1 floats, not {pictures.shape}.")
    if pictures.dtype != np.uint8:
        pictures = np.rint(np.clip(np.nan_to_num(pictures), 0, 1) * 255).astype(np.uint8)
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    head = repr(pictures.shape[1:]).encode()
    return [hashlib.sha256(head + picture.tobytes()).hexdigest() for picture in pictures]


def same_stimulus_on_both_sides(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S1: shared ids, and shared pixels under different ids."""
    by_id, by_pixels, digests = set(), [], evidence.digests or {}
    for train, test in evidence.splits:
        train, test = id_set(train), id_set(test)
        by_id |= train & test
        first = {}
        for key in sorted(train, key=str):
            first.setdefault(digests.get(key, ("unknown", key)), key)
        by_pixels += [(first[digests[key]], key) for key in sorted(test - train, key=str) if digests.get(key) in first]
    by_pixels = sorted(set(by_pixels), key=str)
    found = len(by_id) + len(by_pixels)
    if found:
        parts = []
        if by_id:
            parts.append(f"{len(by_id)} stimuli stand in training and test ({few(sorted(by_id, key=str))})")
        if by_pixels:
            pairs = [f"{a} = {b}" for a, b in by_pixels]
            parts.append(f"{len(by_pixels)} test pictures are training pictures under another id ({few(pairs)})")
        return "fail", found, "; ".join(parts) + "."
    unseen = {key for train, test in evidence.splits for key in id_set(train) | id_set(test)} - set(digests)
    if unseen:
        return "flag", 0, f"No id is shared, but the pixels of {len(unseen)} stimuli were not at hand to compare."
    return "pass", 0, "No stimulus, by id or by pixels, is in training and test."


def repeats_across_inner_folds(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S5: inner folds must keep the repeats of a stimulus together."""
    leaks, n_folds = {}, 0
    for name, folds in evidence.inner_folds.items():
        for fitted, held_out in folds:
            n_folds += 1
            shared = id_set(fitted) & id_set(held_out)
            if shared:
                leaks.setdefault(name, set()).update(shared)
    if n_folds == 0:
        return "not applicable", float("nan"), "Nothing was chosen by inner folds."
    if leaks:
        name = next(iter(leaks))
        shared = sorted(leaks[name], key=str)
        total = len(set().union(*leaks.values()))
        return "fail", total, (
            f"Inner folds of {', '.join(leaks)} hold repeats of a stimulus on both sides ({few(shared)}); "
            "group them by stimulus."
        )  # fmt: skip
    return "pass", 0, f"In {n_folds} inner folds no stimulus is on both sides."


def size_of_test_set(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S10: an empty, tiny or single-class test set."""
    n = len(set().union(*(id_set(test) for _, test in evidence.splits)))
    if n < 2:
        return "fail", n, f"{n} test {'stimulus' if n == 1 else 'stimuli'}: nothing can be told apart; 2 are the least."
    parts = []
    if n < 50:
        parts.append(f"only {n} test stimuli, so intervals are wide")
    if evidence.test_labels is not None and len(np.unique(np.asarray(evidence.test_labels))) == 1:
        parts.append("all test stimuli are of one class")
    if parts:
        return "flag", n, "; ".join(parts).capitalize() + "."
    return "pass", n, f"{n} test stimuli."
