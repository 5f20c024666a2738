"""What a scene shows, in words and numbers: the truth that pictures, captions, labels and voxels are made from."""

from __future__ import annotations

from dataclasses import dataclass

from phosphene.lab.places import PAINTERS
from phosphene.lab.things import KINDS

PLACES: tuple[str, ...] = tuple(PAINTERS)
THINGS: tuple[str, ...] = tuple(KINDS)
FAMILIES: dict[str, str] = {name: kind.family for name, kind in KINDS.items()}


@dataclass(frozen=True)
class Thing:
    """One thing in a scene.

    Attributes
    ----------
    kind : str
        one of :data:`THINGS`
    colour : str
        the name a caption gives its colour
    x, y : float
        centre of its box, 0-1, x to the right and y down
    size : float
        height of its box as a share of the picture
    depth : int
        0 for the nearest thing, then 1, 2
    style : tuple of (float, float, float, float)
        four free traits, 0-1 (a face's skin, hair and smile, a clock's time ...)
    text : str
        the written word of a ``word``, else empty
    """

    kind: str
    colour: str
    x: float
    y: float
    size: float
    depth: int
    style: tuple[float, float, float, float]
    text: str


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes
    ----------
    seed, index : int
        the scene's name
    place : str
        one of :data:`PLACES`
    light : str
        ``day``, ``dusk`` or ``haze``
    things : tuple of Thing
        nearest first
    main : str
        kind of the main thing, the largest and most central
    """

    seed: int
    index: int
    place: str
    light: str
    things: tuple[Thing, ...]
    main: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Everything in the picture: kinds of things, main thing first, then the place."""
        kinds = [self.main, *(thing.kind for thing in self.things if thing.kind != self.main)]
        return (*kinds, self.place)
