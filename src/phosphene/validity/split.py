"""S: is the test set a test set?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from phosphene.data.clusters import directions, number_of_clusters, spherical_kmeans
from phosphene.errors import DataError
from phosphene.metrics.identification import rank_matrix, similarity, two_way
from phosphene.metrics.statistics import permutation_null
from phosphene.types.identity import few
from phosphene.validity.base import Answer, Evidence, id_set
from phosphene.validity.likeness import SAME, Likeness, copies, nearest


def picture_digests(pictures: np.ndarray) -> list[str]:
    """SHA-256 of each picture's pixels, the same for 0-255 integers and 0-1 floats of one picture.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width) or (n, height, width, channels)
        uint8 or 0-1 floats

    Returns
    -------
    list of str
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
    by_id = set()
    by_pixels = []
    digests = evidence.digests or {}

    for train, test in evidence.splits:
        train = id_set(train)
        test = id_set(test)
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
    leaks = {}
    n_folds = 0

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


PERCENTILE = 99.9  # of the cosines between training pictures and their nearest neighbours in training


_MOST_COPIES = 4000  # training pictures that the percentile is taken over


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
    likeness = evidence.likeness
    rows = []

    for train, test in evidence.splits:
        train = _rows_of(likeness, train)
        test = _rows_of(likeness, test)
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
    if len(train) > _MOST_COPIES:
        train = train[rng.choice(len(train), _MOST_COPIES, replace=False)]

    hashes = likeness.hashes[train]

    def apart(rows: np.ndarray) -> np.ndarray:
        return np.bitwise_count(hashes[rows, None] ^ hashes[None, :]) > SAME

    best, which = nearest(likeness.units[train], likeness.units[train], apart)
    known = best[which >= 0]
    if len(known):
        return float(np.percentile(known, PERCENTILE))

    return 0.99


def _with_and_without(evidence: Evidence, hit: set[str]) -> str:
    if evidence.similarity is None or evidence.test_ids is None:
        return ""

    per_item = two_way(evidence.similarity)
    without = np.asarray([str(i) not in hit for i in evidence.test_ids])
    if not without.any():
        return " No test picture is left without them."

    kept = two_way(evidence.similarity[np.ix_(without, without)])
    return f" Two-way identification: {np.nanmean(per_item):.3f} with them, {np.nanmean(kept):.3f} without."


FEWEST = 10  # test and training pictures, below which a distribution says nothing


_OVERLAP_ALPHA = 0.01


_PERMUTATIONS = 10_000


_MOST_NEAR = 4000  # pictures that are clustered, those of the test set first


def semantic_overlap(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S3: cosine to the nearest training picture, clusters shared with training, and whether the score follows either."""
    table = nearest_in_training(evidence)
    within = _within_training(evidence, rng)
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
    if said:
        parts += [said]
    else:
        parts += []

    reason = f"{'; '.join(parts)}."
    if leans:
        return "flag", share, f"{reason} The score is better where training is nearer."
    if k > 1 and share > 0.5:
        return "flag", share, f"{reason} Naming the cluster may explain a score: compare --split cluster:{k}."

    return "pass", share if k > 1 else 0, reason


def nearest_in_training(evidence: Evidence) -> pd.DataFrame:
    """The nearest training picture of each test picture: stimulus, nearest, cosine."""
    likeness = evidence.likeness
    rows = []

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
        if len(train) <= _MOST_NEAR:
            own = train
        else:
            own = train[rng.choice(len(train), _MOST_NEAR, replace=False)]

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

    if len(points) > _MOST_NEAR:
        centres = spherical_kmeans(points[rng.choice(len(points), _MOST_NEAR, replace=False)], k, rng).centres
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
    score = score[known]
    nearness = nearness[known]

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

    return slope > 0 and p < _OVERLAP_ALPHA, said


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


_CONFOUND_ALPHA = 0.005  # for each of two levels


_MOST_TRIALS = 2000
_PROJECTIONS = 60


_FEWEST = 5  # test stimuli


def session_confound(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S6: targets predicted from the session mean alone, and from the run's; the session read off the responses.

    The baseline looks at no response: for each test stimulus it takes the mean features of what was shown in training in
    the same session (run). It can only be right when sessions differ in what was shown.
    """
    table = evidence.trials
    levels = {"session": table["session"].to_numpy(), "run": table.groupby(["session", "run"]).ngroup().to_numpy()}
    found = {}

    for level, groups in levels.items():
        if len(np.unique(groups)) < 2 or (level == "run" and len(np.unique(groups)) == table["session"].nunique()):
            continue

        answer = _baseline(evidence, groups, rng)
        if answer is not None:
            found[level] = answer

    if not found:
        return "not applicable", float("nan"), "No test trial shares one of several sessions or runs with training."

    said = [f"{level} mean alone: two-way {value:.3f} (p = {p:.2g})" for level, (value, p) in found.items()]
    reads = _readable(evidence, levels["session"], rng)

    if reads:
        tail = f" {reads}"
    else:
        tail = ""

    value = max(value for value, _ in found.values())
    wins = [level for level, (_, p) in found.items() if p < _CONFOUND_ALPHA]
    if wins:
        return "flag", value, (
            f"The {' and the '.join(wins)} of a trial already tells what was shown ({'; '.join(said)}; chance 0.5), so a "
            f"decoder may read the {wins[0]} instead of the picture. Hold out whole {wins[0]}s to see.{tail}"
        )  # fmt: skip

    return "pass", value, f"Pictures cannot be told from {' or '.join(found)} ({'; '.join(said)}; chance 0.5).{tail}"


def _baseline(evidence: Evidence, groups: np.ndarray, rng: np.random.Generator) -> tuple[float, float] | None:
    """Two-way identification by group means, inside each fold, and its p; None where no group is on both sides."""
    likeness = evidence.likeness
    shown = evidence.trials["stimulus"].astype(str).to_numpy()
    row_of = dict(zip(map(str, likeness.ids), range(len(likeness.ids)), strict=True))
    at = np.asarray([row_of.get(s, -1) for s in shown])
    known = (at >= 0) & np.isfinite(likeness.units[at]).all(axis=1)
    predicted = []
    true = []
    folds = []
    shares = False

    for fold, (train, test) in enumerate(evidence.sides):
        train = train[known[train]]
        test = test[known[test]]
        if not len(train) or not len(test):
            continue

        overall = likeness.units[at[train]].mean(axis=0)
        means = {g: likeness.units[at[train[groups[train] == g]]].mean(axis=0) for g in np.unique(groups[train])}
        shares |= bool(set(groups[test]) & set(means))

        for stimulus, rows in pd.Series(test).groupby(shown[test], sort=False):
            # Relative to the whole training set, so that the mean that is left in every group says nothing.
            predicted.append(np.mean([means.get(groups[r], overall) - overall for r in rows], axis=0))
            true.append(likeness.units[row_of[stimulus]] - overall)
            folds.append(fold)

    if not shares or len(true) < _FEWEST:
        return None

    folds = np.asarray(folds)
    ranks = rank_matrix(similarity(np.asarray(predicted), np.asarray(true), "cosine"), labels=folds)
    null = permutation_null(ranks, rng=rng, groups=folds)

    return float(np.nanmean(np.diagonal(ranks))), null.p


def _readable(evidence: Evidence, sessions: np.ndarray, rng: np.random.Generator) -> str:
    """How well a linear classifier names the session of a response, for people; half of the trials train it."""
    if evidence.responses is None:
        return ""

    names, counts = np.unique(sessions, return_counts=True)
    rows = np.flatnonzero(np.isin(sessions, names[counts >= 6]))
    if len(np.unique(sessions[rows])) < 2:
        return ""

    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if not (len(rows) <= _MOST_TRIALS):
        rows = np.sort(rng.choice(rows, _MOST_TRIALS, replace=False))

    x = np.asarray(evidence.responses[rows], dtype=np.float32)
    finite = np.isfinite(x).all(axis=0)
    x = x[:, finite]
    if not x.shape[1]:
        return ""

    if x.shape[1] > _PROJECTIONS:
        x = x @ rng.standard_normal((x.shape[1], _PROJECTIONS), dtype=np.float32)

    # Half of each session fits. A session of which the sample holds too few is left out.
    y = sessions[rows]
    order = rng.permutation(len(rows))
    parts = [order[y[order] == name] for name in np.unique(y)]
    parts = [part for part in parts if len(part) >= 4]

    if len(parts) < 2:
        return ""

    fit, test = (
        np.concatenate(half) for half in zip(*((p[: len(p) // 2], p[len(p) // 2 :]) for p in parts), strict=True)
    )

    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x[fit], y[fit])
    right = float(np.mean(model.predict(x[test]) == y[test]))
    most = float(np.mean(y[test] == _mode(y[fit])))

    return f"The session of a response is named right in {100 * right:.0f} % ({100 * most:.0f} % by guessing)."


def _mode(values: np.ndarray):
    names, counts = np.unique(values, return_counts=True)
    return names[counts.argmax()]


CRAWLS = ("web crawl", "LAION", "COYO", "Conceptual Captions")


"""Beginnings of the names of corpora gathered from the web: they may hold any picture that is public."""


def shared_anchors(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S7: stimuli by which people were aligned must not be tested."""
    if not evidence.anchors:
        return "not applicable", float("nan"), "Nothing was aligned across people."

    tested = set().union(*(id_set(map(str, test)) for _, test in evidence.splits))
    shared = {name: sorted(id_set(map(str, ids)) & tested) for name, ids in evidence.anchors.items()}
    shared = {name: ids for name, ids in shared.items() if ids}
    if shared:
        total = len(set().union(*shared.values()))
        parts = [f"{name}: {few(ids)}" for name, ids in shared.items()]
        return "fail", total, (
            f"{total} test stimuli served to align people ({'; '.join(parts)}). Align by training stimuli only: the pictures "
            "that all people saw are often the usual test set."
        )  # fmt: skip

    return "pass", 0, f"None of the stimuli that tie people together ({', '.join(evidence.anchors)}) is tested."


def generator_saw_the_pictures(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S8: was a pretrained generator trained on the collection the test pictures come from?"""
    if not evidence.generators:
        return "pass", 0, "No generator that was trained elsewhere takes part."

    if evidence.corpora is None:
        named = ", ".join(evidence.generators)
        return "not applicable", float("nan"), (
            f"Nothing says where the pictures of this data set come from, so that nobody can tell whether {named} saw them."
        )  # fmt: skip

    ours = {c.lower() for c in evidence.corpora}
    probably = []
    maybe = []
    unknown = []

    for name, corpora in evidence.generators.items():
        if corpora is None:
            unknown.append(name)
        elif both := [c for c in corpora if c.lower() in ours]:
            probably.append(f"{name} ({', '.join(both)})")
        elif crawls := [c for c in corpora if c.startswith(CRAWLS)]:
            maybe.append(f"{name} ({', '.join(crawls)})")

    parts = []
    if probably:
        parts.append(f"probably seen the test pictures, or others of their collection: {', '.join(probably)}")

    if maybe:
        parts.append(f"trained on pictures from the web and may have seen them: {', '.join(maybe)}")

    if unknown:
        parts.append(f"not known what it was trained on: {', '.join(unknown)}")

    if parts:
        said = "; ".join(parts)
        return "flag", len(probably) + len(maybe) + len(unknown), f"Generators: {said}. Faithful detail may be memory."

    trained = "; ".join(f"{name}: {', '.join(c)}" for name, c in evidence.generators.items())
    return "pass", 0, f"No generator was trained on {', '.join(evidence.corpora)} ({trained})."


def dropped_trials(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S9: which trials were left out and why; one-back repeats and first trials of runs."""
    dropped = {why: int(n) for why, n in evidence.left_out.items() if n}
    n_dropped = sum(dropped.values())

    if evidence.trials is None:
        kept = 0
    else:
        kept = len(evidence.trials)

    parts = [f"{n} {why}" for why, n in dropped.items()]
    if dropped:
        said = f"Left out {n_dropped} of {kept + n_dropped} trials: {', '.join(parts)}"
    else:
        said = f"All {kept} trials used"

    said += _special(evidence)
    unexplained = dropped.get("", 0) + dropped.get("for no known reason", 0)
    share = n_dropped / max(1, kept + n_dropped)
    in_test = _one_backs_in_test(evidence)
    worries = []

    if unexplained:
        worries.append(f"{unexplained} trials were left out without a reason")

    if share > 0.1:
        worries.append(f"{100 * share:.0f} % of all trials are missing, which may not be a fair sample")

    if in_test:
        worries.append(f"{in_test} one-back repeats are among the test trials: a task, and an adapted response")

    if worries:
        return "flag", n_dropped, f"{said}. {'; '.join(worries).capitalize()}."

    return "pass", n_dropped, f"{said}."


def _special(evidence: Evidence) -> str:
    back = _one_backs(evidence)
    if back is None:
        return ""

    runs = evidence.trials.groupby(["session", "run"], sort=False).ngroups
    return f"; among those used are {int(back.sum())} one-back repeats and {runs} first trials of a run"


def _one_backs(evidence: Evidence) -> np.ndarray | None:
    """(n_trials,) bool; None where the order of trials in time is not known."""
    table = evidence.trials
    if table is None or table.groupby(["session", "run"]).ngroups < 2:
        return None

    same = [table[c].to_numpy()[1:] == table[c].to_numpy()[:-1] for c in ("stimulus", "session", "run")]
    back = np.concatenate([[False], np.logical_and.reduce(same)])

    # sorted by stimulus, not by time
    if back.mean() > 0.25:
        return None

    return back


def _one_backs_in_test(evidence: Evidence) -> int:
    back = _one_backs(evidence)
    if back is None or not evidence.sides:
        return 0

    return int(back[np.unique(np.concatenate([test for _, test in evidence.sides]))].sum())
