"""Which scenes a subject sees, how often, in which order, and which of them test: designs after four well-known studies.

==========  ===============================================================================================
``nsd``     pictures of the test set are shared by all subjects and shown three times; every subject trains on its own
            (Allen et al. 2022)
``god``     test pictures show kinds of things of which training shows none, and are shown often (Horikawa and Kamitani 2017)
``bold5000``  all subjects see the same pictures once; the few shown four times test (Chang et al. 2019)
``clusters``  whole clusters (a place with a family of things) test: every place and family is trained on, the pairs are not
==========  ===============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError, did_you_mean
from phosphene.lab.chance import lattice
from phosphene.lab.description import FAMILIES, PLACES
from phosphene.lab.scenes import Scene, describe_many
from phosphene.lab.whole import MOST_PEOPLE, MOST_PICTURES, whole
from phosphene.types import Split

UNSEEN_KINDS = ("cat", "boat", "clock", "flower")
"""Test categories of the ``god`` design: an animal, a vehicle, a tool, a plant."""

_TEST_CLUSTERS = 0.25  # share of the clusters that test
_SEARCH = 512
_MOST_SHOWINGS = 1000


@dataclass(frozen=True)
class LabDesign:
    """What a subject sees.

    Attributes
    ----------
    name : str
        of the design
    indices : ndarray of shape (n_stimuli,), int64
        numbers of the scenes: training first, then test
    is_test : ndarray of shape (n_stimuli,), bool
    shown : ndarray of shape (n_stimuli,), int64
        how often each is shown
    snr : str
        the kind of scanner such a study had (see :class:`~phosphene.lab.subject.Subject`)
    category_disjoint : bool
        no test category is in training
    note : str
        for people
    """

    name: str
    indices: np.ndarray
    is_test: np.ndarray
    shown: np.ndarray
    snr: str
    category_disjoint: bool
    note: str

    def split(self, ids: np.ndarray) -> Split:
        """The design's split, given the stimulus ids (n_stimuli,)."""
        return Split(
            self.name,
            tuple(ids[~self.is_test]),
            tuple(ids[self.is_test]),
            category_disjoint=self.category_disjoint,
            note=self.note,
        )


def _search(seed: int, start: int, count: int, accept: Callable[[Scene], bool]) -> np.ndarray:
    """The first `count` scene numbers from `start` on whose scene is accepted."""
    accepted: list[int] = []
    while len(accepted) < count:
        block = np.arange(start, start + _SEARCH)
        for scene in describe_many(seed, block):
            if accept(scene):
                accepted.append(scene.index)

        start += _SEARCH

    return np.array(accepted[:count], dtype=np.int64)


def _design(
    name: str,
    train: np.ndarray,
    test: np.ndarray,
    *,
    train_repeats: int,
    test_repeats: int,
    snr: str,
    category_disjoint: bool = False,
    note: str,
) -> LabDesign:
    """A design of these scenes, training first."""
    is_test = np.repeat([False, True], [len(train), len(test)])

    return LabDesign(
        name=name,
        indices=np.concatenate([train, test]).astype(np.int64),
        is_test=is_test,
        shown=np.where(is_test, test_repeats, train_repeats).astype(np.int64),
        snr=snr,
        category_disjoint=category_disjoint,
        note=note,
    )


def nsd(
    n_train: int = 600,
    n_test: int = 60,
    *,
    seed: int = 0,
    subject: int = 1,
    train_repeats: int = 1,
    test_repeats: int = 3,
) -> LabDesign:
    """Image-disjoint: test pictures shared by all subjects, each shown three times; training pictures of one's own.

    Parameters
    ----------
    n_train, n_test : int
        pictures
    seed : int, default 0
        which world of scenes
    subject : int, default 1
        has training pictures of its own
    train_repeats, test_repeats : int
        how often a picture is shown

    Returns
    -------
    LabDesign
        as the Natural Scenes Dataset has it
    """
    return _design(
        "nsd",
        1_000_000 * int(subject) + np.arange(n_train),
        np.arange(n_test),
        train_repeats=train_repeats,
        test_repeats=test_repeats,
        snr="nsd",
        note="Test pictures are shared by all subjects; training pictures are the subject's own.",
    )


def god(
    n_train: int = 600,
    n_test: int = 48,
    *,
    seed: int = 0,
    subject: int = 1,
    train_repeats: int = 1,
    test_repeats: int = 8,
) -> LabDesign:
    """Category-disjoint: no training picture holds any of the kinds of things that the test pictures show.

    Parameters
    ----------
    n_train, n_test : int
        pictures
    seed : int, default 0
        which world of scenes
    subject : int, default 1
        not used: all subjects see the same pictures
    train_repeats, test_repeats : int
        how often a picture is shown

    Returns
    -------
    LabDesign
        as the Generic Object Decoding data set has it
    """
    train = _search(seed, 1_000_000, n_train, lambda scene: not set(scene.labels) & set(UNSEEN_KINDS))

    n_each = -(-n_test // len(UNSEEN_KINDS))
    of_kinds = []
    for kind in UNSEEN_KINDS:
        of_kinds.append(_search(seed, 0, n_each, lambda scene, kind=kind: scene.main == kind))
    test = np.stack(of_kinds, axis=1).ravel()[:n_test]  # the kinds in turn
    return _design(
        "god",
        train,
        test,
        train_repeats=train_repeats,
        test_repeats=test_repeats,
        snr="3t",
        category_disjoint=True,
        note=f"Test categories unseen in training: {', '.join(UNSEEN_KINDS)}.",
    )


def bold5000(
    n_train: int = 600,
    n_test: int = 60,
    *,
    seed: int = 0,
    subject: int = 1,
    train_repeats: int = 1,
    test_repeats: int = 4,
) -> LabDesign:
    """Few repeats: all subjects see the same pictures once; those shown four times test.

    Parameters
    ----------
    n_train, n_test : int
        pictures
    seed : int, default 0
        which world of scenes
    subject : int, default 1
        not used: all subjects see the same pictures
    train_repeats, test_repeats : int
        how often a picture is shown

    Returns
    -------
    LabDesign
        as BOLD5000 has it
    """
    numbers = 2_000_000 + np.arange(n_train + n_test)

    # Which pictures test is hashed, not drawn: the same for every subject.
    order = np.argsort(lattice(numbers, salt=int(seed) & 0xFFFF), kind="stable")
    repeated = np.zeros(len(numbers), dtype=bool)
    repeated[order[:n_test]] = True

    return _design(
        "bold5000",
        numbers[~repeated],
        numbers[repeated],
        train_repeats=train_repeats,
        test_repeats=test_repeats,
        snr="3t",
        note="All subjects see the same pictures; those shown more than once test.",
    )


def cluster(scene: Scene) -> tuple[str, str]:
    """The cluster a scene belongs to: its place and the family of its main thing."""
    return scene.place, FAMILIES[scene.main]


def clusters(
    n_train: int = 600,
    n_test: int = 60,
    *,
    seed: int = 0,
    subject: int = 1,
    train_repeats: int = 1,
    test_repeats: int = 3,
) -> LabDesign:
    """Cluster-disjoint: a quarter of all pairs of place and family test, and no training picture is of such a pair.

    Parameters
    ----------
    n_train, n_test : int
        pictures
    seed : int, default 0
        which world of scenes
    subject : int, default 1
        has training pictures of its own
    train_repeats, test_repeats : int
        how often a picture is shown

    Returns
    -------
    LabDesign
        in which no test picture has a near neighbour in training
    """
    families = sorted(set(FAMILIES.values()))

    # A Latin pattern with a hashed shift holds out some pairs of every place and of every family, and never all.
    shift = int(lattice(np.array([int(seed) & 0xFFFF]), salt=99)[0] * len(families))
    every = round(1 / _TEST_CLUSTERS)
    held_out = set()
    for i, place in enumerate(PLACES):
        for j, family in enumerate(families):
            if (i + j + shift) % every == 0:
                held_out.add((place, family))

    start = 1_000_000 * int(subject) + 500_000
    train = _search(seed, start, n_train, lambda scene: cluster(scene) not in held_out)
    test = _search(seed, 0, n_test, lambda scene: cluster(scene) in held_out)

    return _design(
        "clusters",
        train,
        test,
        train_repeats=train_repeats,
        test_repeats=test_repeats,
        snr="nsd",
        note="Test pictures come from clusters (place with family of the main thing) that training holds none of.",
    )


DESIGNS: dict[str, Callable[..., LabDesign]] = {"nsd": nsd, "god": god, "bold5000": bold5000, "clusters": clusters}


def design(name: str, **options: int) -> LabDesign:
    """A design by its name.

    Parameters
    ----------
    name : str
        one of :data:`DESIGNS`
    **options : int
        n_train, n_test (1 to 200,000 each, so that no two people and no two sides share a scene by accident), seed (at
        least 0), subject (1 to 999), train_repeats, test_repeats (1 to 1,000)

    Raises
    ------
    ConfigError
        for a design that does not exist, or an option that is not whole or out of range
    """
    if name not in DESIGNS:
        raise ConfigError(f"There is no design '{name}'. {did_you_mean(str(name), DESIGNS)}")

    most = {"n_train": MOST_PICTURES, "n_test": MOST_PICTURES, "seed": None, "subject": MOST_PEOPLE}
    least = {"seed": 0}

    checked = {}
    for key, value in options.items():
        checked[key] = whole(key, value, least.get(key, 1), most.get(key, _MOST_SHOWINGS))
    return DESIGNS[name](**checked)


def schedule(
    shown: np.ndarray, rng: np.random.Generator, trials_per_run: int = 50, runs_per_session: int = 10
) -> pd.DataFrame:
    """The order of the trials: showings of one picture spread over the study, all else shuffled.

    Parameters
    ----------
    shown : ndarray of shape (n_stimuli,)
        how often each stimulus is shown
    rng : numpy.random.Generator
        shuffles
    trials_per_run, runs_per_session : int, optional
        how the trials are divided; the last run may be shorter

    Returns
    -------
    DataFrame
        table with a row per trial, in time: trial, row (of the stimulus), session, run (within the session, both from
        1), repeat (from 0)

    Raises
    ------
    ConfigError
        when a run would hold no trial or a session no run
    """
    trials_per_run = whole("trials_per_run", trials_per_run, 1)
    runs_per_session = whole("runs_per_session", runs_per_session, 1)
    rows = np.repeat(np.arange(len(shown)), shown)

    if len(shown):
        repeat = np.concatenate([np.arange(count) for count in shown])
    else:
        repeat = np.zeros(0, dtype=np.int64)

    # Showing r of R falls into the r-th R-th of the study, away from its ends, so that two showings rarely share a run.
    when = (repeat + rng.uniform(0.1, 0.9, len(rows))) / np.asarray(shown)[rows]
    order = np.argsort(when, kind="stable")
    run = np.arange(len(rows)) // trials_per_run

    return pd.DataFrame(
        {
            "trial": np.arange(len(rows)),
            "row": rows[order],
            "session": run // runs_per_session + 1,
            "run": run % runs_per_session + 1,
            "repeat": repeat[order],
        }
    )
