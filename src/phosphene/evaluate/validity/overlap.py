"""S3 and S4: how near in meaning training is to the test pictures, and what is left when it is not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.data.clusters import directions, number_of_clusters, spherical_kmeans
from phosphene.evaluate.identification import rank_matrix, two_way
from phosphene.evaluate.statistics import permutation_null
from phosphene.evaluate.validity.base import Answer, Evidence
from phosphene.evaluate.validity.likeness import nearest

FEWEST = 10  # test and training pictures, below which a distribution says nothing
_ALPHA = 0.01
_PERMUTATIONS = 10_000
_MOST = 4000  # pictures that are clustered, those of the test set first


def semantic_overlap(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S3: cosine to the nearest training picture, clusters shared with training, and whether the score follows either."""
    table, within = nearest_in_training(evidence), _within_training(evidence, rng)
    cluster, k = _clusters(evidence, rng)
    table["cluster_in_training"] = _in_training(evidence, cluster, table["stimulus"])
    n_train = min((len(evidence.likeness.rows(train, seen=True)) for train, _ in evidence.splits), default=0)
    if len(table) < FEWEST or n_train < FEWEST:
        few = f"{len(table)} test and {n_train} training pictures"
        return "not applicable", float("nan"), f"{few} are too few to compare their neighbours."
    share = float(table["cluster_in_training"].mean())
    space = evidence.likeness.space
    parts = [
        f"By {space}, the cosine to the nearest training picture has median {table['cosine'].median():.2f} "
        f"(between training pictures {np.median(within):.2f})"
    ]
    if k > 1:
        parts.append(f"{100 * share:.0f} % of test pictures are in clusters that training has too ({k} clusters)")
    else:
        parts.append("the pictures form no clusters")
    leans, said = _slope(evidence, table, rng)
    parts += [said] if said else []
    reason = f"{'; '.join(parts)}."
    if leans:
        return "flag", share, f"{reason} The score is better where training is nearer."
    if k > 1 and share > 0.5:
        return "flag", share, f"{reason} Naming the cluster may explain a score: compare --split cluster:{k}."
    return "pass", share if k > 1 else 0, reason


def nearest_in_training(evidence: Evidence) -> pd.DataFrame:
    """The nearest training picture of each test picture: stimulus, nearest, cosine."""
    likeness, rows = evidence.likeness, []
    for train, test in _folds(evidence):
        best, which = nearest(likeness.units[test], likeness.units[train])
        rows += [
            (str(likeness.ids[t]), str(likeness.ids[train[w]]), float(b))
            for t, w, b in zip(test, which, best, strict=True)
        ]
    return pd.DataFrame(rows, columns=["stimulus", "nearest", "cosine"])


def _folds(evidence: Evidence) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of training and test pictures whose features are known, by fold."""
    likeness = evidence.likeness
    rows = [tuple(likeness.rows(dict.fromkeys(map(str, ids)), seen=True) for ids in pair) for pair in evidence.splits]
    return [(train, test) for train, test in rows if len(train) and len(test)]


def _within_training(evidence: Evidence, rng: np.random.Generator) -> np.ndarray:
    """Cosine of training pictures to their nearest neighbour in training; of the first fold, as others are much the same."""
    units = evidence.likeness.units
    for train, _ in _folds(evidence):
        own = train if len(train) <= _MOST else train[rng.choice(len(train), _MOST, replace=False)]
        others = np.arange(len(own))
        found = nearest(units[own], units[own], lambda rows, n=others: rows[:, None] != n[None, :])[0]
        return found[np.isfinite(found)]
    return np.empty(0, dtype=np.float32)


def _in_training(evidence: Evidence, cluster: np.ndarray, stimuli: pd.Series) -> np.ndarray:
    """Whether training has pictures in the cluster of each test picture."""
    found = {}
    for train, test in _folds(evidence):
        seen = np.isin(cluster[test], np.unique(cluster[train]))
        found |= {str(evidence.likeness.ids[t]): bool(s) for t, s in zip(test, seen, strict=True)}
    return np.asarray([found[s] for s in stimuli], dtype=bool)


def _clusters(evidence: Evidence, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """(n,) cluster of every stimulus of the likeness, and how many there are. Training and test together."""
    likeness = evidence.likeness
    known = np.flatnonzero(np.isfinite(likeness.units).all(axis=1))
    members = np.full(len(likeness.ids), -1)
    if len(known) < 3:
        members[known] = 0
        return members, 1
    points = directions(likeness.units[known])
    k = number_of_clusters(points, rng)
    if len(points) > _MOST:
        centres = spherical_kmeans(points[rng.choice(len(points), _MOST, replace=False)], k, rng).centres
        members[known] = (points @ centres.T).argmax(axis=1)
    else:
        members[known] = spherical_kmeans(points, k, rng).members
    return members, k


def _slope(evidence: Evidence, table: pd.DataFrame, rng: np.random.Generator) -> tuple[bool, str]:
    """Whether the score rises with nearness, and the terciles for people."""
    if evidence.similarity is None or evidence.test_ids is None:
        return False, ""
    score = pd.Series(two_way(evidence.similarity), index=[str(i) for i in evidence.test_ids])
    score = score[~score.index.duplicated()].reindex(table["stimulus"]).to_numpy(float)
    nearness = table["cosine"].to_numpy(float)
    known = np.isfinite(score) & np.isfinite(nearness)
    score, nearness = score[known], nearness[known]
    if len(score) < FEWEST or np.ptp(nearness) < 1e-9 or np.ptp(score) < 1e-9:
        return False, ""
    x = nearness - nearness.mean()
    slope = float(x @ score / (x @ x))
    drawn = np.array([x[rng.permutation(len(x))] @ score for _ in range(_PERMUTATIONS)])
    p = (1 + np.sum(drawn >= x @ score - 1e-12)) / (_PERMUTATIONS + 1)
    third = np.array_split(np.argsort(nearness, kind="stable"), 3)
    terciles = ", ".join(f"{score[part].mean():.3f}" for part in third)
    said = (
        f"two-way identification is {terciles} from the farthest third to the nearest (slope {slope:+.2f}, p = {p:.2g})"
    )
    return slope > 0 and p < _ALPHA, said


def cluster_disjoint(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S4: what is left of identification when whole groups of pictures were held out."""
    if not evidence.held_out:
        return "not applicable", float("nan"), (
            "Single pictures were held out, so training may hold others of their kind. Ask for --split cluster:K to hold "
            "out whole clusters."
        )  # fmt: skip
    if evidence.similarity is None or evidence.test_ids is None:
        return "not applicable", float("nan"), f"Whole {evidence.held_out} were held out, but nothing was decoded."
    # Among the pictures of one fold alone: a decoder that never saw a cluster avoids it, which would count as wrong
    # against every picture of another.
    fold = {str(i): n for n, (_, test) in enumerate(evidence.splits) for i in test}
    folds = np.asarray([fold.get(str(i), -1) for i in evidence.test_ids])
    ranks = rank_matrix(evidence.similarity, labels=folds)
    per_item = np.diagonal(ranks)
    if not np.isfinite(per_item).any():
        return "not applicable", float("nan"), "No fold tests two pictures, so nothing can be told apart in it."
    null = permutation_null(ranks, rng=rng, groups=folds)
    value = float(np.nanmean(per_item))
    head = (
        f"With whole {evidence.held_out} held out ({len(evidence.splits)} folds), two-way identification inside a fold is "
        f"{value:.3f} (chance 0.5, p = {null.p:.2g}){_drop(evidence, value)}"
    )
    if null.p >= 0.05:
        return "flag", value, f"{head}. Nothing is left that training on other kinds of pictures gave."
    return "pass", value, f"{head}."


def _drop(evidence: Evidence, value: float) -> str:
    usual = evidence.usual_scores
    if usual is None:
        return "; a run of the same recipe with the usual split beside this one would say how much is lost"
    rows = usual[(usual["input"] == "brain") & (usual["metric"] == "two_way.pixels")]
    if not len(rows):
        return ""
    before = float(rows.iloc[0]["value"])
    return f"; it is {before:.3f} with the usual split, a drop of {before - value:.3f}"
