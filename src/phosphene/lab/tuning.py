"""What the high-level areas like: kinds of things, their looks, and places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from phosphene.lab.cortex import AREAS
from phosphene.lab.description import FAMILIES, PLACES, THINGS, Scene
from phosphene.lab.exact import exact_product
from phosphene.lab.things import WORDS

# How much each selective area answers to a kind of thing, apart from a little of everything.
_LIKES: dict[str, dict[str, float]] = {
    "OFA": {"face": 1.0, "cat": 0.3, "bird": 0.15},
    "FFA": {"face": 1.0, "body": 0.25, "cat": 0.35, "bird": 0.2},
    "EBA": {"body": 1.0, "face": 0.3, "cat": 0.3, "bird": 0.15},
    "VWFA": {"word": 1.0, "clock": 0.25, "face": 0.15},
    "PPA": {"house": 1.0, "car": 0.2, "boat": 0.2, "tree": 0.2, "face": -0.1},
    "RSC": {"house": 1.2, "tree": 0.2},
}
# Layout and landmarks: how open or built a place is, for the place areas.
_SPACE = {"sky": -0.4, "sea": -0.2, "meadow": 0.0, "desert": -0.1, "snow": 0.0, "city": 0.6, "room": 0.5, "forest": 0.2,
          "mountains": 0.3, "underwater": -0.4}  # fmt: skip


@dataclass(frozen=True)
class ObjectTuning:
    """Weights of all voxels, zero outside the high-level areas.

    Attributes
    ----------
    kinds : ndarray of shape (16, n_voxels)
        answer to a thing of each kind
    looks : ndarray of shape (16, 4, n_voxels)
        change of it with the thing's free traits
    words : ndarray of shape (words, n_voxels)
        change of it with the word written
    places : ndarray of shape (10, n_voxels)
        answer to each place
    local : ndarray of shape (n_voxels,)
        0-1, how much the answer depends on where the thing is
    """

    kinds: np.ndarray
    looks: np.ndarray
    words: np.ndarray
    places: np.ndarray
    local: np.ndarray


def object_tuning(area: np.ndarray, rng: np.random.Generator) -> tuple[ObjectTuning, np.ndarray]:
    """Draw a subject's tuning.

    Parameters
    ----------
    area : ndarray of shape (n_voxels,)
        names of areas
    rng : numpy.random.Generator
        decides it

    Returns
    -------
    tuple of (ObjectTuning, ndarray)
        the tuning, and the kind of thing each voxel answers to most (n_voxels,), empty outside the high-level areas
    """
    n = len(area)
    kinds = 0.10 * rng.normal(size=(len(THINGS), n))
    looks = 0.15 * rng.normal(size=(len(THINGS), 4, n))
    words = 0.1 * rng.normal(size=(len(WORDS), n))
    places = 0.12 * rng.normal(size=(len(PLACES), n))
    local = np.full(n, 0.4)
    names = list(dict.fromkeys(FAMILIES.values()))
    family = rng.normal(size=(len(names), n))
    in_family = family[[names.index(FAMILIES[thing]) for thing in THINGS]]
    identity = 0.6 * in_family + 0.8 * rng.normal(size=(len(THINGS), n))
    loc = area == "LOC"
    kinds[:, loc] = identity[:, loc]
    looks[:, :, loc] *= 3.0
    local[loc] = 0.6

    for name, likes in _LIKES.items():
        voxels = np.flatnonzero(area == name)
        strength = rng.lognormal(0.0, 0.2, len(voxels))

        for thing, weight in likes.items():
            row = THINGS.index(thing)
            kinds[row, voxels] += weight * strength
            looks[row][:, voxels] *= 1.0 + 3.0 * weight

        if name == "VWFA":
            words[:, voxels] *= 4.0

        if name in ("PPA", "RSC"):
            places[:, voxels] *= {"PPA": 2.5, "RSC": 3.0}[name]
            places[:, voxels] += np.array([_SPACE[place] for place in PLACES])[:, None] * 0.5
            local[voxels] = 0.25

        if name == "OFA":
            local[voxels] = 0.7

    high = np.isin(area, ["LOC", *_LIKES])
    preferred = np.array(THINGS, dtype=object)[kinds.argmax(axis=0)]
    preferred[~high] = ""

    for name, item in AREAS.items():
        if item.prefers:
            preferred[area == name] = item.prefers

    def in_high_areas(weights: np.ndarray) -> np.ndarray:
        return np.where(high, weights, 0.0).astype(np.float32)

    tuning = ObjectTuning(
        kinds=in_high_areas(kinds),
        looks=in_high_areas(looks),
        words=in_high_areas(words),
        places=in_high_areas(places),
        local=local.astype(np.float32),
    )

    return tuning, preferred


def object_drive(
    tuning: ObjectTuning,
    voxels: np.ndarray,
    described: Sequence[Scene] | None,
    count: int,
    field_at: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """What is recognised drives the high-level voxels.

    Parameters
    ----------
    tuning : ObjectTuning
        weights
    voxels : ndarray of shape (m,)
        the voxels in question
    described : sequence of Scene or None
        `count` scenes, or None if there is nothing to recognise
    count : int
        pictures
    field_at : callable
        receptive fields at points (x, y), (points, m)

    Returns
    -------
    ndarray of shape (count, m), float32
    """
    drive = np.zeros((count, len(voxels)), dtype=np.float32)
    if described is None or not len(voxels):
        return drive

    drive += tuning.places[:, voxels][[PLACES.index(scene.place) for scene in described]]
    things = [(row, thing, thing.kind == scene.main) for row, scene in enumerate(described) for thing in scene.things]
    local = tuning.local[voxels]

    for number, kind in enumerate(THINGS):
        chosen = [item for item in things if item[1].kind == kind]
        if not chosen:
            continue

        rows = np.array([row for row, _, _ in chosen])  # each at most once: a scene's things differ in kind
        # The main thing holds attention; answers grow with the square root of size.
        amount = np.array(
            [np.sqrt(thing.size / 0.6) * (1.0 if main else 0.7) for _, thing, main in chosen], dtype=np.float32
        )

        seen = field_at(*np.array([(thing.x, thing.y) for _, thing, _ in chosen], dtype=np.float32).T)
        style = np.array([thing.style for _, thing, _ in chosen], dtype=np.float32) - np.float32(0.5)
        change = exact_product(style, tuning.looks[number][:, voxels])  # (things, m)
        answer = tuning.kinds[number, voxels] + change.astype(np.float32)

        if kind == "word":
            answer = answer + tuning.words[:, voxels][[WORDS.index(thing.text) for _, thing, _ in chosen]]

        drive[rows] += amount[:, None] * (1.0 - local + local * seen) * answer

    return drive
