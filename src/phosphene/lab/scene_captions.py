"""Five captions for every scene, of different quality: exact, plain, vague and partly wrong ones.

People who caption pictures are sometimes vague and sometimes wrong, and systems that train on captions screen them. Here it is
known which captions are which, so that a screening can be scored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phosphene.lab.chance import Chance
from phosphene.lab.description import FAMILIES, PLACES, THINGS, Scene, Thing
from phosphene.lab.things import KINDS, WORDS

GOOD = "good"
VAGUE = "vague"
WRONG = "wrong"

_NOUN = {name: name for name in THINGS} | {
    "body": "person",
    "word": "sign",
    "balloon": "hot air balloon",
    "boat": "sailing boat",
}

WHERE = {
    "sky": "high above the clouds", "sea": "at sea", "meadow": "in a green meadow", "desert": "in a sandy desert",
    "snow": "in the snow", "city": "in a city at night", "room": "in a room with a brick wall", "forest": "in a forest",
    "mountains": "by a lake in the mountains", "underwater": "under water",
}  # fmt: skip
"""Places as captions call them."""

_LIGHT = {"day": "", "dusk": " at sunset", "haze": " on a hazy day"}
_INDOORS = ("room", "city", "underwater")  # where the light of the sky is not seen, or is that of night
_VAGUE_WHOLE = ("a picture of something", "a nice picture", "this is an image", "some things in a place",
                "a colourful scene", "something in the middle of the picture")  # fmt: skip
_VAGUE_FAMILY = {"person": "somebody", "text": "something written", "building": "a building", "plant": "a plant",
                 "toy": "a toy", "animal": "an animal", "vehicle": "a vehicle", "tool": "an object"}  # fmt: skip
_VAGUE_PLACE = {"sky": "outdoors", "sea": "outdoors", "meadow": "outdoors", "desert": "outdoors", "snow": "outdoors",
                "city": "in a town", "room": "indoors", "forest": "outdoors", "mountains": "outdoors",
                "underwater": "somewhere"}  # fmt: skip


def _article(words: str) -> str:
    """The words with ``a`` or ``an`` before them."""
    if words[0] in "aeiou":
        return f"an {words}"
    return f"a {words}"


def _named(thing: Thing, colour: str | None = None, kind: str | None = None, text: str | None = None) -> str:
    """``a red car``, ``a person in a red shirt``, ``a red sign that says stop``; any part may be named wrongly.

    Parameters
    ----------
    thing : Thing
        what is in the picture
    colour, kind, text : str, optional
        what it is called instead; by default the truth
    """
    colour = colour or thing.colour
    kind = kind or thing.kind
    text = text or thing.text

    if kind == "face":
        return f"the face of a person in {_article(colour)} shirt"
    if kind == "body":
        return f"a person in {_article(colour)} shirt"
    if kind == "word":
        if text:
            return f"{_article(colour)} sign that says {text.lower()}"
        return f"{_article(colour)} sign"
    if kind == "house":
        return f"a house with {_article(colour)} roof"
    return _article(f"{colour} {_NOUN[kind]}")


def _side(thing: Thing) -> str:
    """Where in the picture a thing is."""
    if thing.x < 0.42:
        return "on the left"
    if thing.x > 0.58:
        return "on the right"
    return "in the middle"


def _write(scene: Scene, quality: str, style: int, pick: tuple[int, int, int]) -> str:
    """One caption.

    Parameters
    ----------
    scene : Scene
        what it is of
    quality : str
        :data:`GOOD`, :data:`VAGUE` or :data:`WRONG`
    style : int
        0 to 2, its form
    pick : tuple of (int, int, int)
        choose the words that are free, or wrong
    """
    main = next(thing for thing in scene.things if thing.kind == scene.main)
    if quality == GOOD:
        return _write_good(scene, main, style)
    if quality == VAGUE:
        return _write_vague(scene, main, style, pick)
    return _write_wrong(scene, main, style, pick)


def _write_good(scene: Scene, main: Thing, style: int) -> str:
    """All things with colours and sides (style 0), the main thing with its colour (1), or kinds alone (2)."""
    others = [thing for thing in scene.things if thing is not main]
    where = WHERE[scene.place]
    if style == 0:
        if scene.place not in _INDOORS:
            where += _LIGHT[scene.light]
        text = f"{_named(main)} {where}"
        if others:
            places = [f"{_named(thing)} {_side(thing)}" for thing in others]
            text += ", with " + " and ".join(places)
        return text

    if style == 1:
        return f"a photo of {_named(main)} {where}"

    # More than 0.62 of the picture's height: only a main thing is as large.
    lead = "there is"
    if main.size > 0.62:
        lead = "a close view of"

    ending = ""
    if others:
        ending = f" next to {_article(_NOUN[others[0].kind])}"
    return f"{lead} {_article(_NOUN[main.kind])} {where}{ending}"


def _write_vague(scene: Scene, main: Thing, style: int, pick: tuple[int, int, int]) -> str:
    """True, but of many pictures: of any (style 0), of a family of things (1), or half of what is seen (2)."""
    if style == 0:
        return _VAGUE_WHOLE[pick[0] % len(_VAGUE_WHOLE)]
    if style == 1:
        return f"{_VAGUE_FAMILY[FAMILIES[main.kind]]} {_VAGUE_PLACE[scene.place]}"
    if pick[0] % 2:
        return f"a view {WHERE[scene.place]}"
    return f"{_VAGUE_FAMILY[FAMILIES[main.kind]]} and more"


def _write_wrong(scene: Scene, main: Thing, style: int, pick: tuple[int, int, int]) -> str:
    """One thing wrong and the rest true: another colour (style 0), place (1) or kind (2)."""
    if style == 0:
        colours = [name for name in KINDS[main.kind].colours if name != main.colour]
        return f"{_named(main, colour=colours[pick[0] % len(colours)])} {WHERE[scene.place]}"

    if style == 1:
        places = [name for name in PLACES if name != scene.place]
        return f"{_named(main)} {WHERE[places[pick[1] % len(places)]]}"

    # Another kind of thing; calling a face a person would not be wrong.
    same = main.kind
    if FAMILIES[main.kind] == "person":
        same = "person"

    kinds = []
    for name in THINGS:
        if name not in scene.labels and FAMILIES[name] != same:
            kinds.append(name)
    wrong = kinds[pick[2] % len(kinds)]

    return f"{_named(main, kind=wrong, text=WORDS[pick[1] % len(WORDS)])} {WHERE[scene.place]}"


def _plan(scenes: Sequence[Scene]) -> list[list[tuple[str, int, tuple[int, int, int]]]]:
    """Per scene: quality, style and free draws of its five captions, in the order they are given."""
    plans: list = [None] * len(scenes)
    for seed in {scene.seed for scene in scenes}:
        rows = []
        indices = []
        for row, scene in enumerate(scenes):
            if scene.seed == seed:
                rows.append(row)
                indices.append(scene.index)

        # All draws of this world's scenes at once, each by its name.
        chance = Chance(seed, indices)
        bits = [chance.bits(f"caption.order.{k}") for k in range(5)]
        order = np.argsort(np.stack(bits, axis=1), axis=1, kind="stable")  # (n, 5)
        styles = []
        words = []
        for k in range(3):
            styles.append(chance.integer(f"caption.style.{k}", 3))
            words.append(chance.integer(f"caption.pick.{k}", 1 << 16))
        draws = np.stack(styles, axis=1)  # (n, 3)
        picks = np.stack(words, axis=1)  # (n, 3)
        mood = chance.integer("caption.mood", 4)

        for at, row in enumerate(rows):
            vague, wrong, last = draws[at].tolist()
            fifth = [(GOOD, 2), (VAGUE, last), (WRONG, last), (GOOD, 2)][mood[at]]

            # The fifth must not repeat one of the others word for word.
            if fifth in ((VAGUE, vague), (WRONG, wrong)):
                fifth = (fifth[0], (last + 1) % 3)
            plan = [(GOOD, 0), (GOOD, 1), (VAGUE, vague), (WRONG, wrong), fifth]
            pick = tuple(picks[at].tolist())
            plans[row] = [(*plan[k], pick) for k in order[at]]

    return plans


def write(scenes: Sequence[Scene]) -> list[tuple[str, ...]]:
    """Five captions for each scene.

    Parameters
    ----------
    scenes : sequence of Scene
        of any seeds, in any order

    Returns
    -------
    list of tuple of str
        lower case, no full stop, in an order that gives nothing away
    """
    texts = []
    for scene, plan in zip(scenes, _plan(scenes), strict=True):
        captions = []
        for quality, style, pick in plan:
            captions.append(_write(scene, quality, style, pick))

        texts.append(tuple(captions))

    return texts


def truth(scenes: Sequence[Scene]) -> list[tuple[str, ...]]:
    """The quality of each scene's five captions.

    Parameters
    ----------
    scenes : sequence of Scene
        as given to :func:`write`

    Returns
    -------
    list of tuple of str
        two or three are ``good``, the others ``vague`` or ``wrong``
    """
    qualities = []
    for plan in _plan(scenes):
        qualities.append(tuple(quality for quality, _, _ in plan))
    return qualities
