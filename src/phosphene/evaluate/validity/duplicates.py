"""S2: near copies of test pictures in training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from phosphene.evaluate.identification import two_way
from phosphene.evaluate.validity.base import Answer, Evidence
from phosphene.evaluate.validity.likeness import SAME, Likeness, copies, nearest
from phosphene.types.identity import few

PERCENTILE = 99.9  # of the cosines between training pictures and their nearest neighbours in training
_MOST = 4000  # training pictures that the percentile is taken over


def near_duplicates(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S2: test pictures of which training has a near copy; what the score is without them."""
    pairs = near_pairs(evidence, rng)
    n_test = len(set().union(*({str(i) for i in test} for _, test in evidence.splits)))
    space = evidence.likeness.space
    if not len(pairs):
        return "pass", 0, f"None of {n_test} test pictures has a near copy in training (by hash and by {space})."
    hit = set(pairs["test"])
    named = [f"{a} ~ {b}" for a, b in zip(pairs["test"], pairs["train"], strict=True)]
    return "flag", len(hit), (
        f"{len(hit)} of {n_test} test pictures have a near copy in training, by hash and by {space} "
        f"({few(named)}).{_with_and_without(evidence, hit)}"
    )  # fmt: skip


def near_pairs(evidence: Evidence, rng: np.random.Generator) -> pd.DataFrame:
    """Pairs of a test and a training picture that are near copies: test, train, bits (that differ), cosine.

    Both must hold: hashes differ in four bits or fewer, and the cosine is above the 99.9th percentile of what training
    pictures have to their nearest neighbour in training (pairs with such hashes left out, so that copies inside training
    do not raise the bar). A hash alone takes nearly empty pictures for copies, a network alone those of one kind.
    """
    likeness, rows = evidence.likeness, []
    for train, test in evidence.splits:
        train, test = _rows_of(likeness, train), _rows_of(likeness, test)
        found = copies(likeness.hashes[test], likeness.hashes[train])
        found = [(a, b, bits) for a, b, bits in found if likeness.ids[test[a]] != likeness.ids[train[b]]]
        if not found:
            continue
        bar = _bar(likeness, train, rng)
        for a, b, bits in found:
            cosine = float(likeness.units[test[a]] @ likeness.units[train[b]])
            if cosine > bar:
                rows.append((str(likeness.ids[test[a]]), str(likeness.ids[train[b]]), bits, cosine))
    table = pd.DataFrame(rows, columns=["test", "train", "bits", "cosine"]).drop_duplicates(["test", "train"])
    return table.sort_values(["cosine", "test"], ascending=[False, True], ignore_index=True)


def _rows_of(likeness: Likeness, ids: Iterable) -> np.ndarray:
    return likeness.rows(dict.fromkeys(map(str, ids)), seen=True)


def _bar(likeness: Likeness, train: np.ndarray, rng: np.random.Generator) -> float:
    if len(train) > _MOST:
        train = train[rng.choice(len(train), _MOST, replace=False)]
    hashes = likeness.hashes[train]

    def apart(rows: np.ndarray) -> np.ndarray:
        return np.bitwise_count(hashes[rows, None] ^ hashes[None, :]) > SAME

    best, which = nearest(likeness.units[train], likeness.units[train], apart)
    known = best[which >= 0]
    return float(np.percentile(known, PERCENTILE)) if len(known) else 0.99


def _with_and_without(evidence: Evidence, hit: set[str]) -> str:
    if evidence.similarity is None or evidence.test_ids is None:
        return ""
    per_item = two_way(evidence.similarity)
    without = np.asarray([str(i) not in hit for i in evidence.test_ids])
    if not without.any():
        return " No test picture is left without them."
    kept = two_way(evidence.similarity[np.ix_(without, without)])
    return f" Two-way identification: {np.nanmean(per_item):.3f} with them, {np.nanmean(kept):.3f} without."
