"""Metrics of what networks see in the pictures, and of what texts say of the latents. ``registry`` lists them.

Each is (evaluation, full name, space) -> Score, or raises Skip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from phosphene.evaluate.fid import fid_floor, fid_influence, fid_of, kid_influence, kid_of
from phosphene.evaluate.metric import PIXELS, Evaluation, Score, Skip
from phosphene.evaluate.nway import n_way_class
from phosphene.evaluate.statistics import bootstrap, mean_of_items
from phosphene.evaluate.ties import first_best
from phosphene.evaluate.zero_shot import binomial_p, share_in_top


def bounded(score: Score, low: float, high: float) -> Score:
    """Interval ends inside the range of the score: influence values may point beyond it."""
    low, high = (float(np.clip(end, low, high)) for end in (score.ci_low, score.ci_high))
    return replace(score, ci_low=low, ci_high=high)


def n_way_classes(k: int) -> Callable[[Evaluation, str, str], Score]:
    """n-way top-k from the scores of a classifier, against its own answer to the true picture."""

    def compute(e: Evaluation, name: str, space: str) -> Score:
        scores, true = (np.asarray(x) for x in e.class_scores[space])
        n = classes_drawn(scores)
        if n < 2 * k:
            raise Skip(f"it needs {2 * k} classes but the classifier has {n}")
        classes, column = np.unique(true[e.first], return_inverse=True)
        each = np.stack([n_way_class(scores, np.full(len(scores), c), n, k) for c in classes], axis=1)
        return e.score(
            name, n_way_class(scores, true, n, k), each[:, column], chance=k / n,
            note=e.undefined_note(np.isnan(scores).any(axis=1), "chance"),
        )  # fmt: skip

    return compute


def classes_drawn(scores: np.ndarray) -> int:
    """n of an n-way classification: 50, or every class where there are fewer."""
    return min(50, np.shape(scores)[1])


def category(e: Evaluation, name: str, space: str) -> Score:
    """How often the decoded picture is given the true category."""
    if e.labels is None:
        raise Skip("the stimuli have no class labels")
    if space == PIXELS:
        said, note = np.asarray(e.decoded.classifier.predict(e.decoded.images)), ""
        right = (said[:, None] == e.labels[None, :]).astype(float)
    else:
        right, note = _category_seen(e, space)
    return e.score(name, right[np.arange(len(right)), e.truth], right, note=note)


def _category_seen(e: Evaluation, name: str) -> tuple[np.ndarray, str]:
    """Whether an eye gives each decoded picture the category of each stimulus, and how well it does on true ones."""
    seen = e.decoded.views[name]
    classes, labels = np.array(seen.classes, dtype=object), e.labels.astype(str)
    unknown = sorted(set(labels) - set(classes.tolist()))
    if unknown:
        raise Skip(f"the network knows no category '{unknown[0]}'")
    undefined = np.isnan(seen.probabilities).any(axis=1)
    said = classes[first_best(np.nan_to_num(seen.probabilities))]
    right = (said[:, None] == labels[None, :]).astype(float)
    right[undefined] = 1 / len(classes)
    best = np.mean(classes[first_best(np.nan_to_num(seen.true_probabilities[e.first]))] == labels)
    note = f"the network gives {best:.0%} of the true pictures their category"
    return right, "; ".join(filter(None, [e.undefined_note(undefined, "chance"), note]))


def cosine(e: Evaluation, name: str, space: str) -> Score:
    """Cosine between what is seen in a decoded picture and in its truth (LEA's "CLIP distance")."""
    s = e.similarity(space, "cosine")
    own = s[np.arange(len(s)), e.truth]
    note = e.undefined_note(np.isnan(own), "cosine = 0")
    return e.score(name, np.nan_to_num(own), np.nan_to_num(s), note=note)


def distance(e: Evaluation, name: str, space: str) -> Score:
    """1 - Pearson between what is seen in a decoded picture and in its truth."""
    s = e.similarity(space)
    own = s[np.arange(len(s)), e.truth]
    note = e.undefined_note(np.isnan(own), "distance = 1")
    far, matrix = (1 - np.nan_to_num(x).astype(np.float64) for x in (own, s))
    return e.score(name, far, matrix, better="lower", note=note)


def fid(e: Evaluation, name: str, space: str) -> Score:
    """FID of all decoded and all true pictures, its bias said beside it."""
    pairs = _whole_sets(e, space)
    n, d = pairs[0][1].shape
    floor = fid_floor(pairs[0][1], rng=e.rng(name + " floor"))
    note = (
        f"biased upwards with {n} pictures and {d} features: two perfect sets of {n} would be about {floor.low:.3g} to "
        f"{floor.high:.3g} apart; not comparable with another number of pictures or other features; the interval is of the "
        "FID of so many pictures, bias and all"
    )
    value = float(np.mean([fid_of(*pair) for pair in pairs]))
    influence = np.mean([fid_influence(*pair) for pair in pairs], axis=0)
    return bounded(_of_sets(e, name, value, influence, n, note), 0, np.inf)


def kid(e: Evaluation, name: str, space: str) -> Score:
    """Paired KID of the same sets."""
    pairs = _whole_sets(e, space)
    value = float(np.mean([kid_of(*pair, paired=True) for pair in pairs]))
    influence = np.mean([kid_influence(*pair) for pair in pairs], axis=0)
    return _of_sets(e, name, value, influence, len(pairs[0][0]), "unbiased; below 0 means no difference was found")


def _whole_sets(e: Evaluation, space: str) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = e.sets(space)
    if len(e.ids) < 4:
        raise Skip(f"two sets need 4 pictures each to be compared but there are {len(e.ids)}")
    holes = sum(int((~np.isfinite(ours).all(axis=1)).sum()) for ours, _ in pairs)
    if holes:
        raise Skip(f"{holes} decoded pictures are not finite, and a set cannot be compared with holes in it")
    return pairs


def _of_sets(e: Evaluation, name: str, value: float, influence: np.ndarray, n: int, note: str) -> Score:
    """A score of two sets: no values of single items, no chance, no p, as the pairing plays no part."""
    interval = bootstrap(mean_of_items(influence), len(influence), rng=e.rng(name), n_draws=e.n_draws)
    none = float("nan")
    nothing = np.empty(0)
    return Score(name, value, interval.low, interval.high, none, none, n, nothing, nothing, note)


def zero_shot(k: int, everything: bool = False, centred: bool = False) -> Callable[[Evaluation, str, str], Score]:
    """Decoded latents named by text: whether the true category is among the k nearest.

    Parameters
    ----------
    k : how many best count
    everything : every category of the data set is a candidate, not only those of the test stimuli
    centred : latents are taken relative to the mean of the training pictures', categories relative to each other
    """

    def compute(e: Evaluation, name: str, space: str) -> Score:
        if e.labels is None:
            raise Skip("the stimuli have no class labels")
        labels = e.labels.astype(str)
        candidates = e.decoded.texts[space]
        unknown = sorted(set(labels) - set(candidates.names))
        if unknown:
            raise Skip(f"the category '{unknown[0]}' has no text embedding")
        candidates = candidates if everything else candidates.among(labels)
        n_candidates, latents = len(candidates.names), e.pair(space)[0]
        if n_candidates < 2 * k:
            raise Skip(f"it needs {2 * k} candidate categories but there are {n_candidates}")
        if latents.shape[1] != candidates.embeddings.shape[1]:
            raise Skip(f"a latent has {latents.shape[1]} numbers but a text {candidates.embeddings.shape[1]}")
        cosines = candidates.centred(latents) if centred else candidates.similarity(latents)
        column = np.array([candidates.names.index(label) for label in labels])
        each = share_in_top(cosines, k)[:, column]
        counts = np.unique(column, return_counts=True)[1]
        uniform = not everything and np.ptp(counts) == 0
        note = [candidates.familiarity(), e.undefined_note(np.isnan(cosines).any(axis=1), "chance")]
        if not uniform:
            most = counts.max() / len(labels)
            note.append(
                f"chance is the agreement of shuffled pairs; naming the commonest category alone gives {most:.3f}"
            )
        score = e.score(
            name, each[np.arange(len(each)), e.truth], each, chance=k / n_candidates if uniform else None,
            note="; ".join(filter(None, note)),
        )  # fmt: skip
        n_right = score.per_item.sum()
        if uniform and e.exchangeable is None and not e.has_repeats and n_right == int(n_right):
            told = "; ".join(filter(None, [score.note, "p is binomial"]))
            return replace(score, p=binomial_p(n_right, score.n, k / n_candidates), note=told)
        return score

    return compute
