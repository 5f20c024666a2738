"""How the metrics of network features are computed, and those of texts that name the latents; ``catalogue`` lists them.

Each takes the evaluation, the full name of the metric and the space, and gives a Score or raises Skip.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phosphene.metrics.fid import fid_floor, fid_influence, fid_of, kid_influence, kid_of
from phosphene.metrics.metric import PIXELS, Compute, Evaluation, FeatureView, Score, Skip, bounded, joined
from phosphene.metrics.nway import n_way_class
from phosphene.metrics.statistics import bootstrap, mean_of_items
from phosphene.metrics.ties import first_best
from phosphene.metrics.zero_shot import Candidates, binomial_p, share_in_top

_MOST_CLASSES = 50  # candidates of an n-way classification, as published with ImageNet's 1000
_FEWEST_IN_A_SET = 4  # pictures: with fewer, halves of the set have no covariance

# -- classes -----------------------------------------------------------------------------------------------------------


def n_way_classes(k: int) -> Compute:
    """n-way top-k from the scores of a classifier, against its own answer to the true picture.

    Parameters
    ----------
    k : int
        how many best count

    Returns
    -------
    callable
        (evaluation, full name, space) -> Score
    """

    def compute(e: Evaluation, name: str, space: str) -> Score:
        class_scores, true_class = e.class_scores[space]
        class_scores = np.asarray(class_scores)  # (rows, n_classes)
        true_class = np.asarray(true_class)
        n = classes_drawn(class_scores)
        if n < 2 * k:
            raise Skip(f"it needs {2 * k} classes but the classifier has {n}")

        # A row scores the same for every stimulus of a class, so each class is computed once.
        classes, column = np.unique(true_class[e.first], return_inverse=True)
        of_class = []
        for c in classes:
            truth = np.full(len(class_scores), c)
            of_class.append(n_way_class(class_scores, truth, n, k))  # (rows,)

        matrix = np.stack(of_class, axis=1)[:, column]  # (rows, stimuli)
        return e.score(
            name,
            n_way_class(class_scores, true_class, n, k),
            matrix,
            chance=k / n,
            note=e.undefined_note(np.asarray(np.isnan(class_scores).any(axis=1)), "chance"),
        )

    return compute


def classes_drawn(class_scores: np.ndarray) -> int:
    """n of an n-way classification: 50, or every class where there are fewer.

    Parameters
    ----------
    class_scores : ndarray of shape (n, n_classes)
        of a classifier

    Returns
    -------
    int
        candidates, the truth among them
    """
    return min(_MOST_CLASSES, np.shape(class_scores)[1])


def category(e: Evaluation, name: str, space: str) -> Score:
    """How often the decoded picture is given the true category.

    Parameters
    ----------
    e : Evaluation
        with decoded pictures and class labels
    name : str
        full name of the metric
    space : str
        ``pixels`` for the classifier fitted on training pictures, or ``pictures.NAME``

    Returns
    -------
    Score
        0 to 1, a share of pictures

    Raises
    ------
    Skip
        Without labels, or for a network that does not know a category.
    """
    if e.labels is None:
        raise Skip("the stimuli have no class labels")

    if space == PIXELS:
        assert e.decoded is not None
        answers = np.asarray(e.decoded.classifier.predict(e.decoded.images))
        right = (answers[:, None] == e.labels[None, :]).astype(float)  # (rows, stimuli)
        note = ""
    else:
        right, note = _category_by_network(e, e.view(space), e.labels.astype(str))

    return e.score(name, right[np.arange(len(right)), e.truth], right, note=note)


def _category_by_network(e: Evaluation, view: FeatureView, labels: np.ndarray) -> tuple[np.ndarray, str]:
    """Whether a network gives each decoded picture the category of each stimulus, and how well it does on true ones."""
    assert view.probabilities is not None
    assert view.true_probabilities is not None
    classes = np.array(view.classes, dtype=object)
    unknown = sorted(set(labels) - set(classes.tolist()))
    if unknown:
        raise Skip(f"the network knows no category '{unknown[0]}'")

    undefined = np.asarray(np.isnan(view.probabilities).any(axis=1))
    answers = classes[first_best(np.nan_to_num(view.probabilities))]
    right = (answers[:, None] == labels[None, :]).astype(float)  # (rows, stimuli)
    right[undefined] = 1 / len(classes)

    true_answers = classes[first_best(np.nan_to_num(view.true_probabilities[e.first]))]
    best = np.mean(true_answers == labels)
    note = f"the network gives {best:.0%} of the true pictures their category"
    return right, joined(e.undefined_note(undefined, "chance"), note)


# -- features of single pictures ---------------------------------------------------------------------------------------


def cosine(e: Evaluation, name: str, space: str) -> Score:
    """Cosine between the features of a decoded picture and of its truth (LEA's "CLIP distance").

    Parameters
    ----------
    e : Evaluation
        with decoded and true items
    name : str
        full name of the metric
    space : str
        ``pixels``, a space of latents, or ``pictures.NAME`` of an extractor

    Returns
    -------
    Score
        -1 to 1; an item without a direction counts as 0
    """
    s = e.similarity(space, "cosine")  # (rows, stimuli)
    paired = s[np.arange(len(s)), e.truth]
    note = e.undefined_note(np.isnan(paired), "cosine = 0")
    return e.score(name, np.nan_to_num(paired), np.nan_to_num(s), note=note)


def distance(e: Evaluation, name: str, space: str) -> Score:
    """1 - Pearson between the features of a decoded picture and of its truth.

    Parameters
    ----------
    e : Evaluation
        with decoded and true items
    name : str
        full name of the metric
    space : str
        ``pixels``, a space of latents, or ``pictures.NAME`` of an extractor

    Returns
    -------
    Score
        0 to 2, lower is better; an item without a correlation counts as 1
    """
    s = e.similarity(space)  # (rows, stimuli)
    paired = s[np.arange(len(s)), e.truth]
    note = e.undefined_note(np.isnan(paired), "distance = 1")
    per_row = 1 - np.nan_to_num(paired).astype(np.float64)
    matrix = 1 - np.nan_to_num(s).astype(np.float64)

    return e.score(name, per_row, matrix, better="lower", note=note)


# -- features of sets --------------------------------------------------------------------------------------------------


def fid(e: Evaluation, name: str, space: str) -> Score:
    """FID of all decoded and all true pictures, its bias in the note.

    Parameters
    ----------
    e : Evaluation
        with features of decoded and true pictures
    name : str
        full name of the metric
    space : str
        ``pictures.NAME`` of an extractor

    Returns
    -------
    Score
        0 or more, lower is better; without chance and p, as the pairing plays no part

    Raises
    ------
    Skip
        With few pictures, features that are not finite, or different numbers of samples.
    """
    pairs = _whole_sets(e, space)
    n, d = pairs[0][1].shape
    floor = fid_floor(pairs[0][1], rng=e.rng(name + " floor"))
    note = (
        f"biased upwards with {n} pictures and {d} features: two perfect sets of {n} would be about {floor.low:.3g} to "
        f"{floor.high:.3g} apart; not comparable with another number of pictures or other features; the interval is of the "
        "FID of so many pictures, bias and all"
    )

    # With several samples of a trial, the mean over sets of one sample each: all in one set would repeat the truth.
    value = float(np.mean([fid_of(*pair) for pair in pairs]))
    influence = np.mean([fid_influence(*pair) for pair in pairs], axis=0)
    return bounded(_of_sets(e, name, value, influence, n, note), 0, np.inf)


def kid(e: Evaluation, name: str, space: str) -> Score:
    """Paired KID of the same sets.

    Parameters
    ----------
    e : Evaluation
        with features of decoded and true pictures
    name : str
        full name of the metric
    space : str
        ``pictures.NAME`` of an extractor

    Returns
    -------
    Score
        0 for equal sets, lower is better; without chance and p, as the pairing plays no part

    Raises
    ------
    Skip
        With few pictures, features that are not finite, or different numbers of samples.
    """
    pairs = _whole_sets(e, space)
    value = float(np.mean([kid_of(*pair, paired=True) for pair in pairs]))
    influence = np.mean([kid_influence(*pair) for pair in pairs], axis=0)
    return _of_sets(e, name, value, influence, len(pairs[0][0]), "unbiased; below 0 means no difference was found")


def _whole_sets(e: Evaluation, space: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(stimuli, d) decoded and true features of each set of samples; Skip for few pictures, or ones with holes."""
    pairs = e.sets(space)
    if len(e.ids) < _FEWEST_IN_A_SET:
        raise Skip(f"two sets need {_FEWEST_IN_A_SET} pictures each to be compared but there are {len(e.ids)}")

    holes = sum(int((~np.isfinite(ours).all(axis=1)).sum()) for ours, _ in pairs)
    if holes:
        raise Skip(f"{holes} decoded pictures are not finite, and a set cannot be compared with holes in it")

    return pairs


def _of_sets(e: Evaluation, name: str, value: float, influence: np.ndarray, n: int, note: str) -> Score:
    """A score of two sets: no values of single items, no chance, no p, as the pairing plays no part."""
    interval = bootstrap(mean_of_items(influence), len(influence), rng=e.rng(name), n_draws=e.n_draws)
    return Score(
        metric=name,
        value=value,
        ci_low=interval.low,
        ci_high=interval.high,
        chance=float("nan"),
        p=float("nan"),
        n=n,
        per_item=np.empty(0),
        items=np.empty(0),
        note=note,
    )


# -- texts -------------------------------------------------------------------------------------------------------------


def has_training_mean(e: Evaluation, space: str) -> bool:
    """Whether latents can be taken relative to the mean of the training pictures: folds have several means.

    Parameters
    ----------
    e : Evaluation
        with candidates for the space
    space : str
        of latents that texts share

    Returns
    -------
    bool
        True where the candidates have a centre
    """
    return _candidates(e, space).centre is not None


def has_untested_categories(e: Evaluation, space: str) -> bool:
    """Whether there are more categories than those of the test stimuli; if not, "among all" is the same number twice.

    Parameters
    ----------
    e : Evaluation
        with candidates for the space
    space : str
        of latents that texts share

    Returns
    -------
    bool
        True also without labels
    """
    if e.labels is None:
        tested = set()
    else:
        tested = set(e.labels.astype(str))

    return len(tested) < len(_candidates(e, space).names)


def _candidates(e: Evaluation, space: str) -> Candidates:
    """Categories that a latent of the space can be named."""
    assert e.decoded is not None
    return e.decoded.texts[space]


def zero_shot(k: int, everything: bool = False, centred: bool = False) -> Compute:
    """Decoded latents named by text: whether the true category is among the k nearest.

    Parameters
    ----------
    k : int
        how many best count
    everything : bool, default False
        every category of the data set is a candidate, not only those of the test stimuli
    centred : bool, default False
        latents are taken relative to the mean of the training pictures', categories relative to each other

    Returns
    -------
    callable
        (evaluation, full name, space) -> Score
    """

    def compute(e: Evaluation, name: str, space: str) -> Score:
        if e.labels is None:
            raise Skip("the stimuli have no class labels")

        labels = e.labels.astype(str)
        candidates = _candidates(e, space)
        unknown = sorted(set(labels) - set(candidates.names))
        if unknown:
            raise Skip(f"the category '{unknown[0]}' has no text embedding")

        if not everything:
            candidates = candidates.among(labels)

        n_candidates = len(candidates.names)
        latents, _ = e.pair(space)
        if n_candidates < 2 * k:
            raise Skip(f"it needs {2 * k} candidate categories but there are {n_candidates}")
        if latents.shape[1] != candidates.embeddings.shape[1]:
            raise Skip(f"a latent has {latents.shape[1]} numbers but a text {candidates.embeddings.shape[1]}")

        if centred:
            cosines = candidates.centred(latents)  # (rows, n_candidates)
        else:
            cosines = candidates.similarity(latents)

        column = np.array([candidates.names.index(label) for label in labels])
        matrix = share_in_top(cosines, k)[:, column]  # (rows, stimuli)
        per_row = matrix[np.arange(len(matrix)), e.truth]

        # Only where every candidate is equally often the truth is chance k / n for any decoder.
        counts = np.unique(column, return_counts=True)[1]
        is_uniform = not everything and np.ptp(counts) == 0
        notes = [candidates.familiarity(), e.undefined_note(np.asarray(np.isnan(cosines).any(axis=1)), "chance")]
        if is_uniform:
            chance = k / n_candidates
        else:
            chance = None
            most = counts.max() / len(labels)
            notes.append(
                f"chance is the agreement of shuffled pairs; naming the commonest category alone gives {most:.3f}"
            )

        score = e.score(name, per_row, matrix, chance=chance, note=joined(*notes))
        n_right = score.per_item.sum()
        is_binomial = is_uniform and e.exchangeable is None and not e.has_repeats and n_right == int(n_right)
        if not is_binomial:
            return score

        p = binomial_p(n_right, score.n, k / n_candidates)
        return replace(score, p=p, note=joined(score.note, "p is binomial"))

    return compute
