"""B8: is the result more than naming the cluster, or the category, that a picture belongs to?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from phosphene.data.clusters import directions, number_of_clusters, spherical_kmeans
from phosphene.evaluate.identification import rank_matrix, similarity
from phosphene.evaluate.statistics import paired_difference, permutation_null
from phosphene.evaluate.ties import first_best
from phosphene.evaluate.validity.base import Answer, Evidence
from phosphene.evaluate.validity.targets import PICTURES, Target
from phosphene.types.identity import few

FEWEST = 20  # test items, and training items
_REGIONS = 8  # where pictures form no clusters of their own
_ALPHA = 0.05


class Naming(NamedTuple):
    """What naming the group of each test item is worth, in two-way identification among all test items.

    Attributes
    ----------
    groups : what they are, for people
    ours : of the predictions
    member_of_true, member_of_named : of a random training item of the truth's group, and of the group that the prediction
        is nearest to; the mean over all its items
    centre_of_named : of the mean training item of that group
    above : whether ours is above `member_of_named`, by an interval and a test over items
    within : identification among truths of one group, chance 1/2, and its p
    n_groups, n_named : number of groups; how many were ever named
    """

    groups: str
    ours: float
    member_of_true: float
    member_of_named: float
    centre_of_named: float
    above: bool
    within: float
    p_within: float
    n_groups: int
    n_named: int


def naming(target: Target, rng: np.random.Generator) -> list[Naming]:
    """Against clusters of the features and, where there are any, against categories."""
    train, true, ours = target.centred()
    finite = np.isfinite(ours).all(axis=1)
    found = [_naming(*_clusters(train, true, rng), train, true, ours, finite, rng)]
    if target.labels is not None and target.test_labels is not None:
        labels = np.asarray(target.labels, dtype=str), np.asarray(target.test_labels, dtype=str)
        names, both = np.unique(np.concatenate(labels), return_inverse=True)
        members, wanted = both[: len(train)], both[len(train) :]
        # A category that training lacks has no item to draw, and one item each leaves nothing to tell apart.
        if 1 < len(names) < len(train) // 2 and np.isin(wanted, members).all():
            found.append(_naming("categories", members, wanted, train, true, ours, finite, rng))
    return found


def _clusters(train: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray, np.ndarray]:
    points = directions(np.concatenate([train, true]))
    k, name = number_of_clusters(points, rng), "clusters"
    if k == 1:
        k, name = min(_REGIONS, len(points) // 5), "regions, as there are no clusters,"
    members = spherical_kmeans(points, k, rng).members
    # Test items of a cluster without training items go to the nearest that has some.
    members = np.unique(members, return_inverse=True)[1]
    inside, wanted = members[: len(train)], members[len(train) :]
    lost = ~np.isin(wanted, inside)
    if lost.any():
        centres, names = _centres(train, inside)
        wanted = wanted.copy()
        wanted[lost] = names[first_best(np.nan_to_num(similarity(true[lost], centres)))]
    return name, inside, wanted


def _centres(train: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = np.unique(members)
    return np.stack([train[members == g].mean(axis=0) for g in names]), names


def _naming(
    groups: str,
    members: np.ndarray,
    wanted: np.ndarray,
    train: np.ndarray,
    true: np.ndarray,
    ours: np.ndarray,
    finite: np.ndarray,
    rng: np.random.Generator,
) -> Naming:
    centres, names = _centres(train, members)
    near = np.nan_to_num(similarity(ours, centres))
    near[~finite] = 0
    said = first_best(near)
    meant = np.searchsorted(names, wanted)
    s = similarity(ours, true)
    items = np.arange(len(true))
    each = rank_matrix(similarity(train, true))  # what a training item would score for each truth
    member = np.stack([each[members == g].mean(axis=0) for g in names])
    centre = rank_matrix(similarity(centres, true))
    own = rank_matrix(s)[items, items]
    named = member[said, items]
    gap = paired_difference(own, named, rng=rng, n_draws=1000, n_flips=5000)
    inside = rank_matrix(s, labels=wanted)
    diagonal = inside[items, items]
    known = np.isfinite(diagonal)
    null = permutation_null(inside, rng=rng, n_permutations=5000, groups=wanted)
    return Naming(
        groups,
        float(own.mean()),
        float(member[meant, items].mean()),
        float(named.mean()),
        float(centre[said, items].mean()),
        bool(gap.low > 0 and gap.p < _ALPHA),
        float(diagonal[known].mean()) if known.any() else float("nan"),
        float(null.p),
        len(names),
        len(np.unique(said)),
    )


def _distinct(rows: np.ndarray) -> int:
    """How many rows differ by more than rounding."""
    size = max(float(np.nanmax(np.abs(rows), initial=0)), 1e-300)
    return len(np.unique(np.round(rows / size, 4), axis=0))


def category_only(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """B8: predictions against training items of the same cluster, and inside clusters."""
    targets = [t for t in evidence.targets if t.space != PICTURES] or list(evidence.targets)
    target = targets[0] if targets else None
    if target is None or min(len(target.true), len(target.train)) < FEWEST:
        return "not applicable", float("nan"), f"Fewer than {FEWEST} test or training items to put into clusters."
    found, worries, said = naming(target, rng), [], []
    for n in found:
        said.append(
            f"{n.n_groups} {n.groups}: ours {n.ours:.3f}, a training item of the true one {n.member_of_true:.3f}, of the "
            f"one decoded {n.member_of_named:.3f}, its mean {n.centre_of_named:.3f}, inside {n.within:.3f} "
            f"(p = {n.p_within:.2g}, chance 0.5)"
        )
        kind = n.groups.split(",")[0]
        if not n.above:
            worries.append(f"not above drawing any training item of the one of the {kind} that it names")
        # The mean of a group is nearer to all its members than one of them is, so a decoder that draws it is above such a
        # draw; but it tells none of them apart.
        if not n.p_within < _ALPHA:
            worries.append(f"not able to tell items inside {kind} apart")
    # Names that are wrong at times follow the look of the picture, so they tell some items of a group apart by luck; but
    # then there are no more drawings than names.
    drawn, most = _distinct(target.predicted), max(n.n_groups for n in found)
    if drawn <= most and 2 * drawn <= len(target.true):
        worries.append(f"made of only {drawn} different items for {len(target.true)}")
    facts = f"Two-way identification in {target.space}; {'; '.join(said)}"
    value = min(n.ours - n.member_of_named for n in found)
    if worries:
        return "flag", value, f"{facts}. It is {few(worries)}: classification may explain the result."
    return "pass", value, f"{facts}."
