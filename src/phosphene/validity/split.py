"""S: is the test set a test set?

S1 and S5 ask whether a stimulus stands on both sides, S2 whether near copies do, S3 how near in meaning training is to the test
pictures, S4 what is left when whole clusters are held out, S6 whether the session alone tells which picture it was. S7, S8 and
S9 ask where responses, generators and trials come from, S10 whether there are enough test pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.clusters import directions, number_of_clusters, spherical_kmeans
from phosphene.errors import DataError
from phosphene.metrics.identification import rank_matrix, similarity, two_way
from phosphene.metrics.statistics import permutation_null
from phosphene.types.identity import few, listed
from phosphene.validity.altered_copies import altered_copies
from phosphene.validity.check import (
    CheckResult,
    Evidence,
    failed,
    flagged,
    id_set,
    needed,
    not_applicable,
    passed,
    rows_where,
)
from phosphene.validity.likeness import SAME, Likeness, copies, nearest

ENOUGH = 50  # test stimuli, below which intervals are wide: a share of 0.8 has a standard error of 0.06
PERCENTILE = 99.9  # of the cosines between training pictures and their nearest neighbours in training
_MOST_COPIES = 4000  # training pictures that the percentile is taken over
FEWEST = 10  # test and training pictures, below which a distribution says nothing
_OVERLAP_ALPHA = 0.01
_PERMUTATIONS = 10_000
_MOST_NEAR = 4000  # pictures that are clustered, those of the test set first
_CONFOUND_ALPHA = 0.005  # for each of two levels, one percent together
_STRETCH = 8  # trials that count as one time
_HOLD_OUT = {
    "session": "Hold out whole sessions",
    "run": "Hold out whole runs",
    "time": "Hold out whole runs, or shuffle the order of stimuli,",
}
_MOST_TRIALS = 2000
_PROJECTIONS = 60
_SURE_COSINE = 0.97  # of features, above which a pair counts whatever its hashes are
_FEWEST = 5  # test stimuli
_MOST_DROPPED = 0.1  # share of all trials
CRAWLS = ("web crawl", "LAION", "COYO", "Conceptual Captions")
"""Beginnings of the names of corpora gathered from the web: they may hold any picture that is public."""


def picture_digests(pictures: np.ndarray) -> list[str]:
    """SHA-256 of each picture's pixels, the same for 0-255 integers and 0-1 floats of one picture.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width) or (n, height, width, channels)
        uint8 or 0-1 floats

    Returns
    -------
    list of str
        n hexadecimal digests of shape and pixels rounded to 8 bits

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


def same_stimulus_on_both_sides(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S1: shared ids, and shared pixels under different ids.

    Parameters
    ----------
    evidence : Evidence
        with ``splits``, and ``digests`` for the comparison of pixels
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: stimuli that stand on both sides, by id or by pixels
    """
    splits = needed(evidence.splits)
    digests = evidence.digests or {}
    by_id = set()
    by_pixels = set()
    everything = set()

    for train_ids, test_ids in splits:
        train = id_set(train_ids)
        test = id_set(test_ids)
        everything |= train | test
        by_id |= train & test

        in_training = {}  # digest to the first training id that has it
        for key in sorted(train, key=str):
            in_training.setdefault(digests.get(key, ("unknown", key)), key)

        for key in test - train:
            if digests.get(key) in in_training:
                by_pixels.add((in_training[digests[key]], key))

    pairs = sorted(by_pixels, key=str)
    details = {"by_id": by_id, "by_pixels": pairs}
    if evidence.by_trial and by_id and not pairs:
        return flagged(
            len(by_id),
            f"The split is by trial: {len(by_id)} stimuli train and test, by other responses. Scores tell how well known "
            "pictures are told apart, not how well a new picture is decoded.",
            **details,
        )
    parts = []
    if by_id:
        parts.append(f"{len(by_id)} stimuli stand in training and test ({few(sorted(by_id, key=str))})")

    if pairs:
        named = few([f"{a} = {b}" for a, b in pairs])
        parts.append(f"{len(pairs)} test pictures are training pictures under another id ({named})")

    if parts:
        return failed(len(by_id) + len(pairs), "; ".join(parts) + ".", **details)

    unseen = everything - set(digests)
    if unseen:
        not_compared = f"No id is shared, but the pixels of {len(unseen)} stimuli were not at hand to compare."
        return flagged(0, not_compared, n_not_compared=len(unseen))

    return passed(0, "No stimulus, by id or by pixels, is in training and test.", **details)


def repeats_across_inner_folds(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S5: inner folds must keep the repeats of a stimulus together.

    Parameters
    ----------
    evidence : Evidence
        with ``inner_folds``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: stimuli on both sides of an inner fold
    """
    leaks: dict[str, set] = {}
    n_folds = 0

    for name, folds in needed(evidence.inner_folds).items():
        for fitted, held_out in folds:
            n_folds += 1
            shared = id_set(fitted) & id_set(held_out)
            if shared:
                leaks.setdefault(name, set()).update(shared)

    if n_folds == 0:
        return not_applicable("Nothing was chosen by inner folds.")

    if leaks:
        first = next(iter(leaks.values()))
        total = len(set().union(*leaks.values()))
        return failed(
            total,
            f"Inner folds of {', '.join(leaks)} hold repeats of a stimulus on both sides ({few(sorted(first, key=str))}); "
            "group them by stimulus.",
            on_both_sides=leaks,
        )

    return passed(0, f"In {n_folds} inner folds no stimulus is on both sides.", n_folds=n_folds)


def size_of_test_set(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S10: an empty, tiny or single-class test set.

    Parameters
    ----------
    evidence : Evidence
        with ``splits``, and ``test_labels`` where there are classes
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: distinct test stimuli
    """
    tested = set()
    for _, test in needed(evidence.splits):
        tested |= id_set(test)

    n = len(tested)
    if n < 2:
        unit = "stimulus" if n == 1 else "stimuli"
        return failed(n, f"{n} test {unit}: nothing can be told apart; 2 are the least.", n=n)

    n_classes = None
    if evidence.test_labels is not None:
        n_classes = len(np.unique(np.asarray(evidence.test_labels)))

    parts = []
    if n < ENOUGH:
        parts.append(f"only {n} test stimuli, so intervals are wide")
    if n_classes == 1:
        parts.append("all test stimuli are of one class")

    if parts:
        return flagged(n, "; ".join(parts).capitalize() + ".", n=n, n_classes=n_classes)
    return passed(n, f"{n} test stimuli.", n=n, n_classes=n_classes)


def near_duplicates(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S2: test pictures of which training has a near copy; what the score is without them.

    Parameters
    ----------
    evidence : Evidence
        with ``splits`` and ``likeness``; ``similarity`` and ``test_ids`` for the score without the copies
    rng : numpy.random.Generator
        draws the training pictures that set the bar, where there are many

    Returns
    -------
    CheckResult
        value: test pictures with a near copy in training
    """
    pairs = near_pairs(evidence, rng)
    n_test = len(_tested(evidence))
    space = needed(evidence.likeness).space
    if not len(pairs):
        return passed(
            0,
            f"None of {n_test} test pictures has a near copy in training (by hash, {space}, and turned, cut or recoloured).",
        )

    copied = set(pairs["test"])
    named = few((pairs["test"] + " ~ " + pairs["train"]).tolist())
    text, two_way_scores = _with_and_without(evidence, copied)
    return flagged(
        len(copied),
        f"{len(copied)} of {n_test} test pictures have a near copy in training, by {_signals(pairs, space)} ({named}).{text}",
        pairs=pairs,
        n_test=n_test,
        **two_way_scores,
    )


_SIGNALS = {"hash": "hash", "grey": "grey values of turned or cut pictures", "edges": "edges of turned or cut pictures"}


def _signals(pairs: pd.DataFrame, space: str) -> str:
    """By what near copies were found, in words."""
    return listed([_SIGNALS.get(by, space) for by in dict.fromkeys(pairs["by"])])


def near_pairs(evidence: Evidence, rng: np.random.Generator) -> pd.DataFrame:
    """Pairs of a test and a training picture that are near copies: test, train, bits (of the hash that differ), cosine, by.

    Any of three signals is enough. *Hash*: four bits or fewer differ, and the cosine is above the 99.9th percentile of what
    training pictures have to their nearest neighbour in training (pairs with such hashes left out, so that copies inside
    training do not raise the bar; a hash alone takes nearly empty pictures for copies). *Features*: the cosine is above that bar
    and above .97. *Grey* or *edges*: the pictures agree after a turn, a reflection or a cut of one of them
    (`phosphene.validity.altered_copies`).

    Parameters
    ----------
    evidence : Evidence
        with splits and likeness
    rng : numpy.random.Generator
        draws the training pictures that the percentile is taken over, where there are many

    Returns
    -------
    DataFrame
        one row per pair, the most similar first
    """
    likeness = needed(evidence.likeness)
    rows = []

    for train_ids, test_ids in needed(evidence.splits):
        train = _rows_of(likeness, train_ids)
        test = _rows_of(likeness, test_ids)
        if not len(train) or not len(test):
            continue

        bar = _bar(likeness, train, rng)
        found: dict[tuple[int, int], str] = {}
        for a, b, _ in copies(likeness.hashes[test], likeness.hashes[train]):
            if likeness.units[test[a]] @ likeness.units[train[b]] > bar:
                found[int(test[a]), int(train[b])] = "hash"

        cosines, which = nearest(likeness.units[test], likeness.units[train])
        for a in np.flatnonzero(cosines > max(bar, _SURE_COSINE)):
            found.setdefault((int(test[a]), int(train[which[a]])), "features")

        if likeness.grey is not None:
            every = likeness.rows(dict.fromkeys(map(str, train_ids)))  # those without features too
            for copy in altered_copies(likeness.grey[test], likeness.grey[every], rng):
                found.setdefault((int(test[copy.row]), int(every[copy.other])), copy.how)

        for (a, b), by in found.items():
            if likeness.ids[a] == likeness.ids[b]:
                continue

            bits = int(np.bitwise_count(likeness.hashes[a] ^ likeness.hashes[b]))
            cosine = float(likeness.units[a] @ likeness.units[b])
            rows.append((str(likeness.ids[a]), str(likeness.ids[b]), bits, cosine, by))

    table = pd.DataFrame(rows, columns=["test", "train", "bits", "cosine", "by"]).drop_duplicates(["test", "train"])
    return table.sort_values(["cosine", "test"], ascending=[False, True], ignore_index=True)


def _tested(evidence: Evidence) -> set[str]:
    """Test stimuli of all folds, as text."""
    tested: set[str] = set()
    for _, test in needed(evidence.splits):
        tested.update(id_set(map(str, test)))

    return tested


def _rows_of(likeness: Likeness, ids: Iterable) -> np.ndarray:
    """Rows of these stimuli whose features are known, each once."""
    return likeness.rows(dict.fromkeys(map(str, ids)), seen=True)


def _bar(likeness: Likeness, train: np.ndarray, rng: np.random.Generator) -> float:
    """The cosine that a pair must exceed to be near copies: the 99.9th percentile of nearest neighbours in training."""
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


def _with_and_without(evidence: Evidence, copied: set[str]) -> tuple[str, dict[str, float]]:
    """Two-way identification with and without the pictures copied, as a sentence and as data."""
    if evidence.similarity is None or evidence.test_ids is None:
        return "", {}

    kept = ~np.isin(np.asarray(evidence.test_ids).astype(str), list(copied))  # (n,)
    if not kept.any():
        return " No test picture is left without them.", {}

    whole = float(np.nanmean(two_way(evidence.similarity)))
    rest = float(np.nanmean(two_way(evidence.similarity[np.ix_(kept, kept)])))
    text = f" Two-way identification: {whole:.3f} with them, {rest:.3f} without."
    return text, {"two_way": whole, "two_way_without": rest}


def semantic_overlap(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S3: cosine to the nearest training picture, clusters shared with training, and whether the score follows either.

    Parameters
    ----------
    evidence : Evidence
        with ``splits`` and ``likeness``; ``similarity`` and ``test_ids`` for the score by nearness
    rng : numpy.random.Generator
        draws training pictures, first centres of clusters and permutations

    Returns
    -------
    CheckResult
        value: share of test pictures in clusters that training has too, 0 to 1
    """
    likeness = needed(evidence.likeness)
    table = nearest_in_training(evidence)
    within = _within_training(evidence, rng)
    cluster, k = _clusters(evidence, rng)
    is_shared = _in_training(evidence, cluster, table["stimulus"].tolist())
    sizes = []
    for train, _ in needed(evidence.splits):
        sizes.append(len(likeness.rows(train, seen=True)))

    n_train = min(sizes, default=0)  # of the smallest fold
    if len(table) < FEWEST or n_train < FEWEST:
        counts = f"{len(table)} test and {n_train} training pictures"
        return not_applicable(f"{counts} are too few to compare their neighbours.")

    share = float(is_shared.mean())
    median = float(np.median(table["cosine"].to_numpy(float)))
    parts = [
        f"By {likeness.space}, the cosine to the nearest training picture has median {median:.2f} "
        f"(between training pictures {np.median(within):.2f})"
    ]

    if k > 1:
        parts.append(f"{100 * share:.0f} % of test pictures are in clusters that training has too ({k} clusters)")
    else:
        parts.append("the pictures form no clusters")

    leans, text, slope = _slope(evidence, table, rng)
    if text:
        parts.append(text)

    reason = f"{'; '.join(parts)}."
    details = {
        "space": likeness.space,
        "median_cosine": median,
        "median_cosine_in_training": float(np.median(within)),
        "n_clusters": k,
        "share_in_training_clusters": share,
        **slope,
    }

    if leans:
        return flagged(share, f"{reason} The score is better where training is nearer.", **details)
    if k > 1 and share > 0.5:
        compare = f"Naming the cluster may explain a score: compare --split cluster:{k}."
        return flagged(share, f"{reason} {compare}", **details)

    if k > 1:
        return passed(share, reason, **details)
    return passed(0, reason, **details)


def nearest_in_training(evidence: Evidence) -> pd.DataFrame:
    """The nearest training picture of each test picture: stimulus, nearest, cosine.

    Parameters
    ----------
    evidence : Evidence
        with splits and likeness

    Returns
    -------
    DataFrame
        one row per test picture whose features are known
    """
    likeness = needed(evidence.likeness)
    rows = []

    for train, test in _folds(evidence):
        best, which = nearest(likeness.units[test], likeness.units[train])
        for t, w, cosine in zip(test, which, best, strict=True):
            rows.append((str(likeness.ids[t]), str(likeness.ids[train[w]]), float(cosine)))

    return pd.DataFrame(rows, columns=["stimulus", "nearest", "cosine"])


def _folds(evidence: Evidence) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of training and test pictures whose features are known, by fold."""
    likeness = needed(evidence.likeness)
    folds = []
    for train_ids, test_ids in needed(evidence.splits):
        train = _rows_of(likeness, train_ids)
        test = _rows_of(likeness, test_ids)
        if len(train) and len(test):
            folds.append((train, test))

    return folds


def _within_training(evidence: Evidence, rng: np.random.Generator) -> np.ndarray:
    """Cosine of training pictures to their nearest neighbour in training; of the first fold, as others are much the same."""
    folds = _folds(evidence)
    if not folds:
        return np.empty(0, dtype=np.float32)

    train, _ = folds[0]
    if len(train) > _MOST_NEAR:
        train = train[rng.choice(len(train), _MOST_NEAR, replace=False)]

    others = np.arange(len(train))
    units = needed(evidence.likeness).units[train]
    cosine, _ = nearest(units, units, lambda rows: rows[:, None] != others[None, :])
    return cosine[np.isfinite(cosine)]


def _in_training(evidence: Evidence, cluster: np.ndarray, stimuli: list[str]) -> np.ndarray:
    """Whether training has pictures in the cluster of each test picture."""
    ids = needed(evidence.likeness).ids
    shared = {}
    for train, test in _folds(evidence):
        is_shared = np.isin(cluster[test], np.unique(cluster[train]))
        shared |= dict(zip(map(str, ids[test]), is_shared.tolist(), strict=True))

    return np.asarray([shared[stimulus] for stimulus in stimuli], dtype=bool)


def _clusters(evidence: Evidence, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """(n,) cluster of every stimulus of the likeness, and how many there are. Training and test together."""
    likeness = needed(evidence.likeness)
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


def _slope(evidence: Evidence, table: pd.DataFrame, rng: np.random.Generator) -> tuple[bool, str, dict[str, Any]]:
    """Whether the score rises with nearness, the terciles for people, and the numbers."""
    if evidence.similarity is None or evidence.test_ids is None:
        return False, "", {}

    by_stimulus: dict[str, float] = {}
    for stimulus, value in zip(evidence.test_ids, two_way(evidence.similarity), strict=True):
        by_stimulus.setdefault(str(stimulus), float(value))

    score = np.asarray([by_stimulus.get(stimulus, np.nan) for stimulus in table["stimulus"]], dtype=float)
    nearness = table["cosine"].to_numpy(float)
    known = np.isfinite(score) & np.isfinite(nearness)
    score = score[known]
    nearness = nearness[known]
    if len(score) < FEWEST or np.ptp(nearness) < 1e-9 or np.ptp(score) < 1e-9:
        return False, "", {}

    # The slope of a regression, tested by dealing nearness to items at random: only x . score changes then.
    x = nearness - nearness.mean()  # (n_known,)
    slope = float(x @ score / (x @ x))
    shuffled = np.empty(_PERMUTATIONS)
    for i in range(_PERMUTATIONS):
        shuffled[i] = x[rng.permutation(len(x))] @ score

    p = float((1 + np.sum(shuffled >= x @ score - 1e-12)) / (_PERMUTATIONS + 1))
    terciles = []
    for third in np.array_split(np.argsort(nearness, kind="stable"), 3):
        terciles.append(float(score[third].mean()))

    thirds = ", ".join(f"{value:.3f}" for value in terciles)
    gain = slope * float(nearness.std())  # as pictures may be near by millionths, a slope per unit may be any number
    text = (
        f"two-way identification is {thirds} from the farthest third to the nearest ({gain:+.3f} per standard deviation of "
        f"nearness, p = {p:.2g})"
    )
    return slope > 0 and p < _OVERLAP_ALPHA, text, {"gain": gain, "p_slope": p, "two_way_by_third": terciles}


def cluster_disjoint(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S4: what is left of identification when whole groups of pictures were held out.

    Parameters
    ----------
    evidence : Evidence
        with ``splits``, ``held_out``, ``similarity`` and ``test_ids``
    rng : numpy.random.Generator
        draws pairings inside folds

    Returns
    -------
    CheckResult
        value: two-way identification inside folds, chance 0.5
    """
    if not evidence.held_out:
        return not_applicable(
            "Single pictures were held out, so training may hold others of their kind. Ask for --split cluster:K to hold "
            "out whole clusters."
        )

    if evidence.similarity is None or evidence.test_ids is None:
        return not_applicable(f"Whole {evidence.held_out} were held out, but nothing was decoded.")

    # Among the pictures of one fold alone: a decoder that never saw a cluster avoids it, which would count as wrong
    # against every picture of another.
    splits = needed(evidence.splits)
    fold_of = {}
    for number, (_, test) in enumerate(splits):
        fold_of |= dict.fromkeys(map(str, test), number)

    folds = np.asarray([fold_of.get(str(i), -1) for i in evidence.test_ids])
    ranks = rank_matrix(evidence.similarity, labels=folds)
    per_item = np.diagonal(ranks)
    if not np.isfinite(per_item).any():
        return not_applicable("No fold tests two pictures, so nothing can be told apart in it.")

    null = permutation_null(ranks, rng=rng, groups=folds)
    value = float(np.nanmean(per_item))
    drop, usual = _drop(evidence, value)
    text = (
        f"With whole {evidence.held_out} held out ({len(splits)} folds), two-way identification inside a fold is "
        f"{value:.3f} (chance 0.5, p = {null.p:.2g}){drop}"
    )
    details = {"held_out": evidence.held_out, "two_way": value, "p": null.p, "two_way_with_usual_split": usual}

    if null.p >= 0.05:
        nothing = "Nothing is left that training on other kinds of pictures gave."
        return flagged(value, f"{text}. {nothing}", **details)

    return passed(value, f"{text}.", **details)


def _drop(evidence: Evidence, value: float) -> tuple[str, float | None]:
    """How much is lost by holding out whole groups, as a sentence, and the score under the usual split."""
    usual = evidence.usual_scores
    if usual is None:
        return "; a run of the same recipe with the usual split in the same folder would say how much is lost", None

    rows = rows_where(usual, input="brain", metric="two_way.pixels")
    if not len(rows):
        return "", None

    before = float(rows["value"].iloc[0])
    return f"; it is {before:.3f} with the usual split, a drop of {before - value:.3f}", before


def session_confound(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S6: targets predicted from the session mean alone, from the run's, and from time; the session read off the responses.

    The baseline uses no response: for each test stimulus it takes the mean features of what was shown in training in
    the same session (run, stretch of eight trials). It can only be right when sessions differ in what was shown, or when like
    stimuli follow each other. Time is tried where no run is declared as well, since responses drift.

    Parameters
    ----------
    evidence : Evidence
        with ``trials``, ``sides`` and ``likeness``; ``responses`` to read the session off them
    rng : numpy.random.Generator
        draws pairings inside folds, trials and projections

    Returns
    -------
    CheckResult
        value: two-way identification by the best of these baselines, chance 0.5
    """
    table = needed(evidence.trials)
    levels = {
        "session": table["session"].to_numpy(),
        "run": table.groupby(["session", "run"]).ngroup().to_numpy(),
        "time": np.arange(len(table)) // _STRETCH,
    }
    n_sessions = table["session"].nunique()
    baselines: dict[str, tuple[float, float]] = {}  # level to two-way identification and its p

    for level, groups in levels.items():
        n_groups = len(np.unique(groups))
        is_session_again = level == "run" and n_groups == n_sessions
        if n_groups < 2 or is_session_again:
            continue

        answer = _baseline(evidence, groups, rng)
        if answer is not None:
            baselines[level] = answer

    if not baselines:
        return not_applicable(
            "No fold has several test trials that share one of several sessions, runs or stretches of time with training."
        )

    parts = []
    details: dict[str, Any] = {}
    telling = []  # levels that say what was shown
    for level, (value, p) in baselines.items():
        parts.append(f"{level} mean alone: two-way {value:.3f} (p = {p:.2g})")
        details[level] = {"two_way": value, "p": p}
        if p < _CONFOUND_ALPHA:
            telling.append(level)

    facts = f"{'; '.join(parts)}; chance 0.5"
    tail = _readable(evidence, levels["session"], rng)
    if tail:
        tail = f" {tail}"

    value = max(value for value, _ in baselines.values())
    if telling:
        return flagged(
            value,
            f"The {' and the '.join(telling)} of a trial already tells what was shown ({facts}), so a decoder may read the "
            f"{telling[0]} instead of the picture. {_HOLD_OUT[telling[0]]} to see.{tail}",
            **details,
            telling=telling,
        )

    text = f"No {' or '.join(baselines)} tells what was shown ({facts}).{tail}"
    return passed(value, text, **details, telling=telling)


def _baseline(evidence: Evidence, groups: np.ndarray, rng: np.random.Generator) -> tuple[float, float] | None:
    """Two-way identification by group means, inside each fold, and its p; None where no group is on both sides."""
    likeness = needed(evidence.likeness)
    stimuli = needed(evidence.trials)["stimulus"].astype(str).to_numpy()
    row_of = dict(zip(map(str, likeness.ids), range(len(likeness.ids)), strict=True))
    at = np.asarray([row_of.get(stimulus, -1) for stimulus in stimuli])  # row of the likeness of each trial
    known = (at >= 0) & np.isfinite(likeness.units[at]).all(axis=1)
    predicted = []
    true = []
    folds = []
    is_shared = False

    for fold, (train, test) in enumerate(needed(evidence.sides)):
        train = train[known[train]]
        test = test[known[test]]
        if not len(train) or not len(test):
            continue

        overall = likeness.units[at[train]].mean(axis=0)  # (d,)
        means = {}
        for group in np.unique(groups[train]):
            means[group] = likeness.units[at[train[groups[train] == group]]].mean(axis=0)

        is_shared |= bool(set(groups[test]) & set(means))
        for stimulus, trials in pd.Series(test).groupby(stimuli[test], sort=False):
            # Relative to the whole training set, so that the mean that is left in every group says nothing.
            guesses = []
            for trial in trials:
                guesses.append(means.get(groups[trial], overall) - overall)

            predicted.append(np.mean(guesses, axis=0))  # (d,)
            true.append(likeness.units[row_of[str(stimulus)]] - overall)
            folds.append(fold)

    if not is_shared or len(true) < _FEWEST:
        return None

    labels = np.asarray(folds)
    ranks = rank_matrix(similarity(np.asarray(predicted), np.asarray(true), "cosine"), labels=labels)
    if np.isnan(np.diagonal(ranks)).all():  # folds of single stimuli: none has another of its fold beside it
        return None

    null = permutation_null(ranks, rng=rng, groups=labels)
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

    if len(rows) > _MOST_TRIALS:
        rows = np.sort(rng.choice(rows, _MOST_TRIALS, replace=False))

    x = np.asarray(evidence.responses[rows], dtype=np.float32)  # (n_rows, n_voxels)
    finite = np.isfinite(x).all(axis=0)
    x = x[:, finite]
    if not x.shape[1]:
        return ""

    # Sixty random mixtures hold what sessions differ by all over the brain, and spare the classifier a large covariance.
    if x.shape[1] > _PROJECTIONS:
        x = x @ rng.standard_normal((x.shape[1], _PROJECTIONS), dtype=np.float32)  # (n_rows, _PROJECTIONS)

    # Half of each session fits. A session of which the sample holds too few is left out.
    y = sessions[rows]
    order = rng.permutation(len(rows))
    fit_parts = []
    test_parts = []

    for name in np.unique(y):
        part = order[y[order] == name]
        half = len(part) // 2
        if len(part) >= 4:
            fit_parts.append(part[:half])
            test_parts.append(part[half:])

    if len(fit_parts) < 2:
        return ""

    fit = np.concatenate(fit_parts)
    test = np.concatenate(test_parts)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x[fit], y[fit])
    right = float(np.mean(model.predict(x[test]) == y[test]))
    most = float(np.mean(y[test] == _mode(y[fit])))
    return f"The session of a response is named right in {100 * right:.0f} % ({100 * most:.0f} % by guessing)."


def _mode(values: np.ndarray):
    """The value that comes most often, the first in order among several."""
    names, counts = np.unique(values, return_counts=True)
    return names[counts.argmax()]


def shared_anchors(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S7: stimuli by which people were aligned must not be tested.

    Parameters
    ----------
    evidence : Evidence
        with ``splits`` and ``anchors``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: test stimuli that served to align people
    """
    anchors = needed(evidence.anchors)
    if not anchors:
        return not_applicable("Nothing was aligned across people.")

    tested = _tested(evidence)
    shared = {}
    for name, ids in anchors.items():
        both = sorted(id_set(map(str, ids)) & tested)
        if both:
            shared[name] = both

    if shared:
        total = len(set().union(*shared.values()))
        parts = [f"{name}: {few(ids)}" for name, ids in shared.items()]
        return failed(
            total,
            f"{total} test stimuli served to align people ({'; '.join(parts)}). Align by training stimuli only: the pictures "
            "that all people saw are often the usual test set.",
            tested=shared,
        )

    return passed(0, f"None of the stimuli that tie people together ({', '.join(anchors)}) is tested.")


def generator_saw_the_pictures(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S8: was a pretrained generator trained on the collection the test pictures come from?

    Parameters
    ----------
    evidence : Evidence
        with ``generators`` and ``corpora``
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: generators that may have seen the test pictures
    """
    generators = needed(evidence.generators)
    if not generators:
        return passed(0, "No generator that was trained elsewhere takes part.")

    if evidence.corpora is None:
        named = ", ".join(generators)
        return not_applicable(
            f"Nothing says where the pictures of this data set come from, so that nobody can tell whether {named} saw them."
        )

    collections = {corpus.lower() for corpus in evidence.corpora}
    probably: dict[str, list[str]] = {}
    maybe: dict[str, list[str]] = {}
    unknown = []

    for name, corpora in generators.items():
        if corpora is None:
            unknown.append(name)
            continue

        same = []
        crawls = []
        for corpus in corpora:
            if corpus.lower() in collections:
                same.append(corpus)
            if corpus.startswith(CRAWLS):
                crawls.append(corpus)

        if same:
            probably[name] = same
        elif crawls:
            maybe[name] = crawls

    parts = []
    if probably:
        parts.append(f"probably seen the test pictures, or others of their collection: {_with_corpora(probably)}")
    if maybe:
        parts.append(f"trained on pictures from the web and may have seen them: {_with_corpora(maybe)}")
    if unknown:
        parts.append(f"not known what it was trained on: {', '.join(unknown)}")

    details = {"probably": probably, "maybe": maybe, "unknown": unknown}
    if parts:
        n = len(probably) + len(maybe) + len(unknown)
        return flagged(n, f"Generators: {'; '.join(parts)}. Faithful detail may be memory.", **details)

    trained = []
    for name, corpora in generators.items():
        trained.append(f"{name}: {', '.join(corpora or ())}")

    return passed(0, f"No generator was trained on {', '.join(evidence.corpora)} ({'; '.join(trained)}).", **details)


def _with_corpora(generators: dict[str, list[str]]) -> str:
    """``name (corpus, corpus), name (corpus)``, for people."""
    return ", ".join(f"{name} ({', '.join(corpora)})" for name, corpora in generators.items())


def dropped_trials(evidence: Evidence, rng: np.random.Generator) -> CheckResult:
    """S9: which trials were left out and why; one-back repeats and first trials of runs.

    Parameters
    ----------
    evidence : Evidence
        with ``left_out``; ``trials`` and ``sides`` to find one-back repeats
    rng : numpy.random.Generator
        not used: nothing is drawn

    Returns
    -------
    CheckResult
        value: trials left out
    """
    dropped = {why: int(n) for why, n in needed(evidence.left_out).items() if n}
    n_dropped = sum(dropped.values())
    n_used = 0
    if evidence.trials is not None:
        n_used = len(evidence.trials)

    if dropped:
        parts = [f"{n} {why}" for why, n in dropped.items()]
        text = f"Left out {n_dropped} of {n_used + n_dropped} trials: {', '.join(parts)}"
    else:
        text = f"All {n_used} trials used"

    text += _special(evidence)
    unexplained = dropped.get("", 0) + dropped.get("for no known reason", 0)
    share = n_dropped / max(1, n_used + n_dropped)
    in_test = _one_backs_in_test(evidence)
    worries = []

    if unexplained:
        worries.append(f"{unexplained} trials were left out without a reason")
    if share > _MOST_DROPPED:
        worries.append(f"{100 * share:.0f} % of all trials are missing, which may not be a fair sample")
    if in_test:
        worries.append(f"{in_test} one-back repeats are among the test trials: a task, and an adapted response")

    details = {"dropped": dropped, "n_used": n_used, "one_backs_in_test": in_test}
    if worries:
        return flagged(n_dropped, f"{text}. {'; '.join(worries).capitalize()}.", **details)
    return passed(n_dropped, f"{text}.", **details)


def _special(evidence: Evidence) -> str:
    """How many of the trials used are one-back repeats or open a run, for people."""
    back = _one_backs(evidence)
    if back is None:
        return ""

    runs = needed(evidence.trials).groupby(["session", "run"], sort=False).ngroups
    return f"; among those used are {int(back.sum())} one-back repeats and {runs} first trials of a run"


def _one_backs(evidence: Evidence) -> np.ndarray | None:
    """(n_trials,) bool; None where the order of trials in time is not known."""
    table = evidence.trials
    if table is None or table.groupby(["session", "run"]).ngroups < 2:
        return None

    is_same = np.ones(len(table) - 1, dtype=bool)  # as the trial before it
    for column in ("stimulus", "session", "run"):
        values = table[column].to_numpy()
        is_same &= values[1:] == values[:-1]

    back = np.concatenate([[False], is_same])  # (n_trials,)

    # So many repeats in a row mean that the table is sorted by stimulus, not by time.
    if back.mean() > 0.25:
        return None
    return back


def _one_backs_in_test(evidence: Evidence) -> int:
    """How many trials of the test sets repeat the one before; 0 where the order in time is not known."""
    back = _one_backs(evidence)
    if back is None or not evidence.sides:
        return 0
    tested = np.unique(np.concatenate([test for _, test in evidence.sides]))
    return int(back[tested].sum())
