"""Procedural colour scenes: a place, one to three things, captions and labels, as a pure function of (seed, index).

The pixels come from exactly rounded arithmetic only (see :mod:`canvas`) and the draws from an integer hash
(see :mod:`chance`): scene 17 of seed 3 is the same picture, byte for byte, on every machine and with every version of numpy.

Examples
--------
>>> picture = render(seed=0, index=3)
>>> picture.shape, str(picture.dtype)
((32, 32, 3), 'uint8')
>>> describe(0, 3).labels
('tree', 'fish', 'mountains')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from phosphene.errors import DataError
from phosphene.lab import scene_captions as _captions
from phosphene.lab.canvas import Canvas, Frame, clamp, colour, colours, length, per_picture
from phosphene.lab.chance import Chance
from phosphene.lab.description import FAMILIES, PLACES, THINGS, Scene, Thing
from phosphene.lab.places import LIGHTS, PAINTERS
from phosphene.lab.things import COLOURS, KINDS, WORDS, Appearance

__all__ = [
    "FAMILIES",
    "PLACES",
    "THINGS",
    "Scene",
    "Thing",
    "caption_truth",
    "captions",
    "captions_many",
    "describe",
    "describe_many",
    "labels",
    "render",
    "render_many",
]

_MOST = 3  # things in a scene, at most
_BLOCK = 64  # pictures painted together: few enough to stay in the processor's cache
_TRAITS = 4
_HEIGHTS = ((0.50, 0.78), (0.26, 0.40), (0.22, 0.32))  # of the main, second and third thing, least and most
_COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class _Layout:
    """Composition of many scenes; of what is (3, n), row 0 is the main thing. A scene of one thing has rows that are not used.

    Attributes
    ----------
    chance : Chance
        further draws, for painters
    place, light, count : ndarray of shape (n,), int
        rows of :data:`PLACES` and :data:`LIGHTS`, and the number of things
    horizon : ndarray of shape (n,)
        from the top, 0-1
    kind, tone, word : ndarray of shape (3, n), int
        rows of :data:`THINGS`, of the colours and of :data:`WORDS`
    x, y, half : ndarray of shape (3, n)
        centre and half the height, picture width = 1
    flip : ndarray of shape (3, n)
        1 or -1, facing right or left
    tilt : ndarray of shape (3, n)
        tangent of half the angle by which a thing leans
    style : ndarray of shape (3, n, 4)
        free traits, 0-1
    depth : ndarray of shape (3, n), int
        0 for the nearest
    """

    chance: Chance
    place: np.ndarray
    light: np.ndarray
    horizon: np.ndarray
    count: np.ndarray
    kind: np.ndarray
    tone: np.ndarray
    x: np.ndarray
    y: np.ndarray
    half: np.ndarray
    flip: np.ndarray
    tilt: np.ndarray
    style: np.ndarray
    word: np.ndarray
    depth: np.ndarray


def _place_weights() -> np.ndarray:
    """How often a kind of thing is in each place, (16, 10): five times as often where it belongs."""
    weights = np.full((len(KINDS), len(PLACES)), 1.0)
    for row, kind in enumerate(KINDS.values()):
        for place in kind.places:
            weights[row, PLACES.index(place)] = 5.0
    return weights


_HOME = _place_weights()
_SCALE = np.array([kind.scale for kind in KINDS.values()])
_ASPECT = np.array([kind.aspect for kind in KINDS.values()])
_FLIES = np.array([kind.flies for kind in KINDS.values()])
_TONES = [np.array([_COLOUR_NAMES.index(name) for name in kind.colours]) for kind in KINDS.values()]
_TONE_COUNT = np.array([len(tones) for tones in _TONES])

# Kinds come in different numbers of colours; rows are filled up, and what is filled is never drawn.
_TONE_TABLE = np.array([np.pad(tones, (0, _TONE_COUNT.max() - len(tones))) for tones in _TONES])
_FLOATING_PLACES = [PLACES.index("sky"), PLACES.index("underwater")]


def _compose(seed: int, indices: Sequence[int] | np.ndarray) -> _Layout:
    """Decide what stands where. Only exactly rounded arithmetic on the hash's draws."""
    indices = np.asarray(indices)
    if indices.ndim != 1 or (indices.size and (indices.dtype.kind not in "iu" or indices.min() < 0)):
        raise DataError(
            f"scenes are numbered by integers at least 0, in one row; got {indices.dtype} of shape "
            f"{indices.shape}: {np.array2string(indices, threshold=6)}."
        )

    chance = Chance(seed, indices)
    n = len(chance)
    main = chance.integer("main", len(THINGS))
    place = chance.weighted("place", _HOME[main])
    count = 1 + chance.weighted("count", np.array([0.42, 0.36, 0.22]))
    horizon = chance.uniform("horizon", 0.42, 0.58)
    floats = np.isin(place, _FLOATING_PLACES)

    tone = np.zeros((_MOST, n), dtype=np.int64)
    word = np.zeros((_MOST, n), dtype=np.int64)
    x = np.zeros((_MOST, n))
    y = np.zeros((_MOST, n))
    half = np.zeros((_MOST, n))
    flip = np.zeros((_MOST, n))
    tilt = np.zeros((_MOST, n))
    style = np.zeros((_MOST, n, _TRAITS))
    side = np.where(chance.happens("side", 0.5), 1.0, -1.0)

    # Three different kinds: the second is drawn among the others, the third among those that are left.
    kind = np.zeros((_MOST, n), dtype=np.int64)
    kind[0] = main
    kind[1] = (main + 1 + chance.integer("kind.1", len(THINGS) - 1)) % len(THINGS)
    kind[2] = chance.integer("kind.2", len(THINGS) - 2)
    low = np.minimum(kind[0], kind[1])
    high = np.maximum(kind[0], kind[1])
    kind[2] += kind[2] >= low  # skip the two kinds that are taken
    kind[2] += kind[2] >= high
    front = chance.happens("front", 0.25)  # the second thing stands before the main one

    for row in range(_MOST):
        k = kind[row]
        shortest, tallest = _HEIGHTS[row]
        tall = chance.uniform(f"size.{row}", shortest, tallest)

        if row == 0:
            tall = tall * np.where(count == 3, 0.85, 1.0)

        # Wide things are lower, or they would not fit between the edges.
        half[row] = np.minimum(0.5 * tall * _SCALE[k], 0.46 / np.maximum(_ASPECT[k], 0.8))

        if row == 0:
            # The main thing leaves room for the others at its side.
            aside = np.array([0.0, 0.12, 0.04])[count - 1]
            x[row] = 0.5 - side * aside + chance.uniform("x.0", -0.10, 0.10)
            stands = chance.uniform("base.0", 0.88, 0.96) - half[row]
            hangs = chance.uniform("air.0", 0.36, 0.56)
        else:
            # The second thing stands on one side, the third on the other, each further back the higher it stands.
            if row == 1:
                x[row] = 0.5 + side * chance.uniform("x.1", 0.33, 0.45)
            else:
                x[row] = 0.5 + -side * chance.uniform("x.2", 0.33 + 0.07, 0.45)

            base = horizon + 0.5 * (0.92 - horizon) * chance.uniform(f"base.{row}", 0.4, 1.1)
            base = np.where((row == 1) & front, chance.uniform("base.front", 0.94, 0.99), np.maximum(base, 0.66))
            stands = base - half[row]
            hangs = chance.uniform(f"air.{row}", 0.14, 0.34)

        # The main thing stays within the picture; the others may be cut by its edge.
        reach = 1.0 * half[row] * _ASPECT[k]
        if row > 0:
            reach = 0.8 * half[row] * _ASPECT[k]
        x[row] = np.clip(x[row], reach, 1.0 - reach)
        drifts = chance.uniform(f"drift.{row}", -0.14, 0.0)
        y[row] = np.where(_FLIES[k], hangs, stands + np.where(floats, drifts, 0.0))
        flip[row] = np.where(chance.happens(f"flip.{row}", 0.5), 1.0, -1.0)
        tilt[row] = chance.uniform(f"tilt.{row}", -0.03, 0.03) * np.where(_FLIES[k] | floats, 3.0, 1.0)
        tone[row] = _TONE_TABLE[k, chance.integer(f"colour.{row}", _TONE_COUNT[k])]
        word[row] = chance.integer(f"word.{row}", len(WORDS))
        for trait in range(_TRAITS):
            style[row, :, trait] = chance.uniform(f"style.{row}.{trait}")

    # Depth: the main thing is nearest, unless the second one stands in front.
    depth = np.array([np.where(front & (count > 1), 1, 0), np.where(front, 0, 1), np.full(n, 2)])
    return _Layout(
        chance,
        place,
        chance.weighted("light", np.array([0.5, 0.28, 0.22])),
        horizon,
        count,
        kind,
        tone,
        x,
        y,
        half,
        flip,
        tilt,
        style,
        word,
        depth,
    )


def _paint(layout: _Layout, rows: slice | np.ndarray, size: int) -> np.ndarray:
    """Paint the scenes at `rows` of a layout: (len, size, size, 3) uint8."""
    place = layout.place[rows]
    light = layout.light[rows]
    count = layout.count[rows]
    canvas = Canvas(len(place), size)

    # Places first, all pictures of one place together.
    for number in np.unique(place):
        chosen = np.flatnonzero(place == number)
        part = Canvas(len(chosen), size)
        chance = layout.chance.take(rows).take(chosen)
        PAINTERS[PLACES[number]](part, chance, light[chosen], per_picture(layout.horizon[rows][chosen]))
        canvas.rgb[:, chosen] = part.rgb

    grounded = ~np.isin(place, _FLOATING_PLACES)
    tones = np.array(list(COLOURS.values()))

    # Things from the farthest to the nearest; those of one kind and one depth together.
    for depth in reversed(range(_MOST)):
        for slot in range(_MOST):
            here = (layout.depth[slot, rows] == depth) & (slot < count)
            kinds = layout.kind[slot, rows]

            for number in np.unique(kinds[here]):
                chosen = np.flatnonzero(here & (kinds == number))
                x = layout.x[slot, rows][chosen]
                y = layout.y[slot, rows][chosen]
                half = layout.half[slot, rows][chosen]
                flip = layout.flip[slot, rows][chosen]
                tilt = layout.tilt[slot, rows][chosen]
                tone = layout.tone[slot, rows][chosen]
                word = layout.word[slot, rows][chosen]

                rgb = np.ascontiguousarray(canvas.rgb[:, chosen])
                if not _FLIES[number]:
                    _shadow(canvas, rgb, x, y, half, half * _ASPECT[number], grounded[chosen])

                frame = Frame(canvas, rgb, x, y, half, flip, tilt)
                appearance = Appearance(colours(tones, tone), layout.style[slot, rows][chosen], word)
                KINDS[THINGS[number]].paint(frame, appearance)
                canvas.rgb[:, chosen] = frame.rgb

    # Pictures differ in exposure, as photographs do, so that brightness alone does not name a place.
    dim = np.where(light == 1, 0.94, 1.0) * layout.chance.take(rows).uniform("exposure", 0.88, 1.08)
    canvas.rgb *= per_picture(dim)

    return canvas.pixels()


def _shadow(canvas: Canvas, rgb, x, y, half, half_width, grounded) -> None:
    """A soft dark patch under whatever stands on the ground."""
    away = length(
        (canvas.x - per_picture(x + 0.12 * half)) / per_picture(1.15 * half_width),
        (canvas.y - per_picture(y + 0.97 * half)) / per_picture(0.26 * half),
    )

    dark = clamp((np.float32(1.15) - away) / np.float32(0.55)) * np.float32(0.42) * per_picture(grounded)
    rgb += dark * (colour(20, 22, 40) - rgb)


def render_many(seed: int, indices: Sequence[int] | np.ndarray, size: int = 32) -> np.ndarray:
    """Paint scenes.

    Parameters
    ----------
    seed : int
        which world
    indices : sequence of int or ndarray
        (n,) numbers of the scenes, at least 0
    size : int, default 32
        pixels along a side, 8 to 1024; the same scene at any size

    Returns
    -------
    ndarray of shape (n, size, size, 3), uint8
        RGB, 0-255

    Raises
    ------
    DataError
        with indices that are not whole numbers, or a size out of range
    """
    size = checked_size(size)
    layout = _compose(seed, indices)
    pictures = np.empty((len(layout.place), size, size, 3), dtype=np.uint8)
    block = max(1, _BLOCK * 32 * 32 // size**2)

    # Scenes of one place together paint in fewer, fuller strokes; the order changes no pixel.
    order = np.lexsort((layout.kind[0], layout.place))
    for start in range(0, len(order), block):
        rows = order[start : start + block]
        pictures[rows] = _paint(layout, rows, size)
    return pictures


def checked_size(size: int) -> int:
    """The side of a picture, if it is one that scenes can be painted at; DataError otherwise."""
    if not isinstance(size, int | np.integer) or not 8 <= size <= 1024:
        raise DataError(f"size is the side of a picture in whole pixels, 8 to 1024; got {size!r}.")
    return int(size)


def render(seed: int, index: int, size: int = 32) -> np.ndarray:
    """Paint one scene.

    Parameters
    ----------
    seed : int
        which world
    index : int
        number of the scene, at least 0
    size : int, default 32
        pixels along a side, 8 to 1024; the same scene at any size

    Returns
    -------
    ndarray of shape (size, size, 3), uint8
        RGB, 0-255

    See Also
    --------
    render_many : many scenes at once.
    """
    return render_many(seed, [index], size)[0]


def describe_many(seed: int, indices: Sequence[int] | np.ndarray) -> list[Scene]:
    """What scenes show, without painting them.

    Parameters
    ----------
    seed : int
        which world
    indices : sequence of int or ndarray
        (n,) numbers of the scenes, at least 0

    Returns
    -------
    list of Scene
        one per index
    """
    layout = _compose(seed, indices)
    scenes = []
    for i, index in enumerate(np.asarray(indices)):
        things = []
        for row in range(layout.count[i]):
            kind = THINGS[layout.kind[row, i]]
            text = ""
            if kind == "word":
                text = WORDS[layout.word[row, i]]

            things.append(
                Thing(
                    kind=kind,
                    colour=_COLOUR_NAMES[layout.tone[row, i]],
                    x=float(layout.x[row, i]),
                    y=float(layout.y[row, i]),
                    size=float(2 * layout.half[row, i]),
                    depth=int(layout.depth[row, i]),
                    style=tuple(layout.style[row, i].tolist()),
                    text=text,
                )
            )

        scenes.append(
            Scene(
                int(seed),
                int(index),
                PLACES[layout.place[i]],
                LIGHTS[layout.light[i]],
                tuple(sorted(things, key=lambda thing: thing.depth)),
                THINGS[layout.kind[0, i]],
            )
        )

    return scenes


def describe(seed: int, index: int) -> Scene:
    """What one scene shows: place, light, things and main category.

    Parameters
    ----------
    seed : int
        which world
    index : int
        number of the scene, at least 0

    Returns
    -------
    Scene
        the truth that picture, captions and labels are made from
    """
    return describe_many(seed, [index])[0]


def labels(scenes: Sequence[Scene]) -> pd.DataFrame:
    """Multi-label categories.

    Parameters
    ----------
    scenes : sequence of Scene
        n scenes

    Returns
    -------
    DataFrame
        (n, 26) boolean table, one column per kind of thing, then one per place; one row per scene
    """
    names = (*THINGS, *PLACES)
    rows = []
    for scene in scenes:
        rows.append([name in scene.labels for name in names])
    return pd.DataFrame(rows, columns=names, dtype=bool)


def captions_many(scenes: Sequence[Scene]) -> list[tuple[str, ...]]:
    """Five captions for each scene: lower case, no full stop, in an order that gives nothing away."""
    return _captions.write(scenes)


def captions(seed: int, index: int) -> tuple[str, ...]:
    """The five captions of one scene; :func:`caption_truth` says which are to be trusted.

    Parameters
    ----------
    seed : int
        which world
    index : int
        number of the scene, at least 0

    Returns
    -------
    tuple of str
        lower case, no full stop

    Examples
    --------
    >>> describe(0, 4).place, caption_truth(0, 4)[1]
    ('city', 'wrong')
    >>> captions(0, 4)[1]
    'a person in a pink shirt under water'
    """
    return captions_many([describe(seed, index)])[0]


def caption_truth(seed: int, index: int) -> tuple[str, ...]:
    """Which of one scene's captions are good, vague or wrong.

    Parameters
    ----------
    seed : int
        which world
    index : int
        number of the scene, at least 0

    Returns
    -------
    tuple of str
        ``good`` (two or three), ``vague`` or ``wrong`` (one or two of each), in the order of :func:`captions`
    """
    return _captions.truth([describe(seed, index)])[0]
