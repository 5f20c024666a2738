"""What the high-level areas like: kinds of things, their looks, and places.

These areas answer to what is described, not to pixels: a voxel has weights for the sixteen kinds of things, for the free traits
and the words that things of a kind differ in, and for the ten places. Some of a weight is common to an area, as measured for
faces, bodies, words and scenes; the rest is drawn per voxel, so that voxels of an area can be told apart and decoded from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from phosphene.lab.cortex import AREAS
from phosphene.lab.description import FAMILIES, PLACES, THINGS, Scene, Thing
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

    # A little of everything in every voxel: no area is silent to what it does not prefer.
    kinds = 0.10 * rng.normal(size=(len(THINGS), n))
    looks = 0.15 * rng.normal(size=(len(THINGS), 4, n))
    words = 0.1 * rng.normal(size=(len(WORDS), n))
    places = 0.12 * rng.normal(size=(len(PLACES), n))
    local = np.full(n, 0.4)

    # LOC tells kinds apart, those of one family less: 0.6 and 0.8 are the legs of a triangle of hypotenuse 1, so that the sum of
    # a family's and a kind's own draw has unit variance.
    names = list(dict.fromkeys(FAMILIES.values()))
    family = rng.normal(size=(len(names), n))  # (n_families, n_voxels)
    family_rows = [names.index(FAMILIES[thing]) for thing in THINGS]
    identity = 0.6 * family[family_rows] + 0.8 * rng.normal(size=(len(THINGS), n))  # (n_kinds, n_voxels)
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

        # Letters drive the visual word form area; place areas answer to layout, wherever in the picture it is.
        if name == "VWFA":
            words[:, voxels] *= 4.0

        if name in ("PPA", "RSC"):
            places[:, voxels] *= {"PPA": 2.5, "RSC": 3.0}[name]
            openness = np.array([_SPACE[place] for place in PLACES])
            places[:, voxels] += openness[:, None] * 0.5
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

    place_rows = [PLACES.index(scene.place) for scene in described]
    drive += tuning.places[:, voxels][place_rows]  # (count, m)
    local = tuning.local[voxels]

    # Things by kind, each with the number of its picture.
    of_kind: dict[str, list[tuple[int, Thing]]] = {kind: [] for kind in THINGS}
    for row, scene in enumerate(described):
        for thing in scene.things:
            of_kind[thing.kind].append((row, thing))

    for number, kind in enumerate(THINGS):
        if not of_kind[kind]:
            continue

        rows = []  # each at most once: a scene's things differ in kind
        amounts = []
        positions = []
        styles = []
        word_rows = []
        for row, thing in of_kind[kind]:
            # The main thing holds attention; answers grow with the square root of size.
            attention = 0.7
            if kind == described[row].main:
                attention = 1.0

            rows.append(row)
            amounts.append(np.sqrt(thing.size / 0.6) * attention)
            positions.append((thing.x, thing.y))
            styles.append(thing.style)
            if kind == "word":
                word_rows.append(WORDS.index(thing.text))

        amount = np.array(amounts, dtype=np.float32)  # (n_things,)
        seen = field_at(*np.array(positions, dtype=np.float32).T)  # (n_things, m)
        style = np.array(styles, dtype=np.float32) - np.float32(0.5)  # (n_things, 4), mean 0 over things
        change = exact_product(style, tuning.looks[number][:, voxels])  # (n_things, m)
        answer = tuning.kinds[number, voxels] + change.astype(np.float32)
        if kind == "word":
            answer = answer + tuning.words[:, voxels][word_rows]

        # A share `local` of the answer depends on whether the thing lies in the voxel's receptive field.
        drive[rows] += amount[:, None] * (1.0 - local + local * seen) * answer

    return drive
