"""The sixteen things of the lab's scenes, painted in their own coordinates: height from -1 (top) to 1 (base).

Each painter draws all things of its kind in a batch of pictures at once, back to front. Shapes are signed distances of
:class:`~phosphene.lab.canvas.Frame`, so a thing is the same at every size of the picture, and their numbers are read as the
drawing's own: x to the right, y down. What differs between two things of a kind is in :class:`Appearance` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phosphene.lab.canvas import Frame, clamp, colour, colours, per_picture

F = np.float32  # every number that meets pixels: float64 would round otherwise

# What a caption calls a colour, and the colour. A kind of thing comes in some of these.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 44), "orange": (240, 136, 38), "yellow": (248, 208, 62), "green": (66, 160, 72),
    "blue": (52, 104, 206), "purple": (136, 78, 176), "pink": (240, 134, 172), "brown": (140, 92, 58),
    "white": (244, 242, 236), "black": (44, 42, 50), "grey": (146, 150, 158), "turquoise": (56, 186, 184),
}  # fmt: skip

WORDS = ("SUN", "SEA", "TEA", "CAT", "HEY", "JAZZ", "OPEN", "STOP", "LOVE", "MOON", "TAXI", "FIVE", "ZOO", "YES",
         "NEW", "LUX")  # fmt: skip


@dataclass(frozen=True)
class Appearance:
    """How the things of one kind look, one row per thing.

    Attributes
    ----------
    paint : ndarray of shape (3, n, 1, 1), float32
        0-1, the colour a caption names
    style : ndarray of shape (n, 4), float64
        0-1, four free traits (a face's smile, a clock's time ...)
    word : ndarray of shape (n,), int
        row of :data:`WORDS`
    """

    paint: np.ndarray
    style: np.ndarray
    word: np.ndarray

    def trait(self, number: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """One of the free traits, scaled.

        Parameters
        ----------
        number : int
            0 to 3
        low, high : float
            what the trait's 0 and 1 stand for

        Returns
        -------
        ndarray of shape (n, 1, 1), float32
        """
        return per_picture(low + (high - low) * self.style[:, number])

    def pick(self, number: int, palette: list[tuple[int, int, int]]) -> np.ndarray:
        """One colour of a palette, chosen by a trait.

        Parameters
        ----------
        number : int
            0 to 3, which trait
        palette : list of tuple of (int, int, int)
            RGB, 0-255

        Returns
        -------
        ndarray of shape (3, n, 1, 1), float32
        """
        # A trait of exactly 1 would fall off the end of the palette.
        return colours(palette, np.minimum((self.style[:, number] * len(palette)).astype(int), len(palette) - 1))

    def yes(self, number: int, share: float = 0.5) -> np.ndarray:
        """Whether a thing has a part, as an opacity.

        Parameters
        ----------
        number : int
            0 to 3, which trait
        share : float, default 0.5
            of things that have it

        Returns
        -------
        ndarray of shape (n, 1, 1), float32
            1 for that share of the things and 0 for the others
        """
        return per_picture(self.style[:, number] < share)


DARK = colour(38, 34, 44)
WHITE = colour(252, 250, 244)
_SKIN = [(255, 220, 188), (240, 190, 150), (206, 146, 104), (150, 98, 66), (104, 66, 48)]
_HAIR = [(46, 34, 30), (104, 62, 34), (226, 178, 88), (178, 74, 34), (190, 190, 194)]


def face(f: Frame, look: Appearance) -> None:
    """Head and shoulders, with eyes, brows, nose and mouth; the colour is the shirt's.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 is the skin, 1 the hair, 2 whether it is long, 3 the smile
    """
    skin = f.lit(look.pick(0, _SKIN), 0.18)
    hair = f.lit(look.pick(1, _HAIR), 0.3)
    long = look.yes(2)

    # Back to front: hair, shirt, neck, face, fringe.
    f.shape(f.ellipse(0.0, -0.25, 0.66, 0.72), hair)
    f.shape(f.box(0.0, 0.1, 0.6, 0.5, 0.25), hair, long)
    f.shape(f.ellipse(0.0, 1.0, 0.78, 0.42), f.lit(look.paint))
    f.shape(f.box(0.0, 0.55, 0.17, 0.2, 0.05), skin * F(0.86))
    f.shape(f.ellipse(0.0, -0.12, 0.54, 0.70), skin)
    fringe = np.maximum(f.ellipse(0.0, -0.25, 0.62, 0.68), f.y + F(0.52) - F(0.25) * f.x)
    f.shape(fringe, hair)

    for side in (-1.0, 1.0):
        f.shape(f.ellipse(0.23 * side, -0.17, 0.14, 0.095), WHITE)
        f.shape(f.disc(0.23 * side + 0.02, -0.16, 0.075), DARK)
        f.shape(f.stroke(0.12 * side, -0.34, 0.35 * side, -0.34, 0.028), hair * F(0.7))
        f.shape(f.ellipse(0.33 * side, 0.12, 0.10, 0.07), colour(236, 92, 84), 0.28)

    f.shape(f.stroke(0.0, -0.1, 0.05, 0.08, 0.032), skin * F(0.78))
    smile = look.trait(3, -0.06, 0.2)
    f.shape(f.arc(0.0, 0.24 - smile * F(0.4), smile, 0.24, 0.05), colour(176, 44, 52))


def body(f: Frame, look: Appearance) -> None:
    """A stick person with a pose; the colour is the shirt's.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 is the skin and how high one arm is, 1 the trousers and the hair, 2 the stride, 3 the other arm
    """
    skin = look.pick(0, _SKIN)
    legs = look.pick(1, [(50, 60, 110), (60, 52, 48), (90, 96, 104)])
    stride = look.trait(2, 0.12, 0.36)
    raised = look.trait(3, -0.75, 0.35)
    other = look.trait(0, -0.35, 0.35)

    for side in (-1, 1):
        f.shape(f.stroke(0.07 * side, 0.25, stride * F(side), 0.92, 0.105), legs, edge=DARK, width=0.035)

    for side, lift in ((-1, raised), (1, other)):
        elbow = F(0.36 * side)
        f.shape(f.stroke(0.16 * side, -0.36, elbow, lift * F(0.5) - F(0.1), 0.085), look.paint, edge=DARK, width=0.035)
        f.shape(f.stroke(elbow, lift * F(0.5) - F(0.1), F(0.5 * side), lift, 0.07), skin, edge=DARK, width=0.035)

    f.shape(f.box(0.0, -0.05, 0.2, 0.4, 0.12), f.lit(look.paint), edge=DARK, width=0.04)
    f.shape(f.disc(0.0, -0.72, 0.24), f.lit(skin), edge=DARK, width=0.04)
    cap = np.maximum(f.disc(0.0, -0.74, 0.26), f.y + F(0.76))
    f.shape(cap, look.pick(1, _HAIR))


# Strokes of capital letters on a grid 2 wide and 4 high, y down: (x0, y0, x1, y1).
_STROKES: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "A": ((0, 4, 1, 0), (1, 0, 2, 4), (0, 3, 2, 3)),
    "C": ((2, 0, 0, 0), (0, 0, 0, 4), (0, 4, 2, 4)),
    "E": ((0, 0, 0, 4), (0, 0, 2, 0), (0, 2, 2, 2), (0, 4, 2, 4)),
    "F": ((0, 0, 0, 4), (0, 0, 2, 0), (0, 2, 2, 2)),
    "H": ((0, 0, 0, 4), (2, 0, 2, 4), (0, 2, 2, 2)),
    "I": ((1, 0, 1, 4),),
    "J": ((2, 0, 2, 4), (2, 4, 0, 4), (0, 4, 0, 3)),
    "L": ((0, 0, 0, 4), (0, 4, 2, 4)),
    "M": ((0, 4, 0, 0), (0, 0, 1, 2), (1, 2, 2, 0), (2, 0, 2, 4)),
    "N": ((0, 4, 0, 0), (0, 0, 2, 4), (2, 4, 2, 0)),
    "O": ((0, 0, 2, 0), (2, 0, 2, 4), (2, 4, 0, 4), (0, 4, 0, 0)),
    "P": ((0, 4, 0, 0), (0, 0, 2, 0), (2, 0, 2, 2), (2, 2, 0, 2)),
    "S": ((2, 0, 0, 0), (0, 0, 0, 2), (0, 2, 2, 2), (2, 2, 2, 4), (2, 4, 0, 4)),
    "T": ((0, 0, 2, 0), (1, 0, 1, 4)),
    "U": ((0, 0, 0, 4), (0, 4, 2, 4), (2, 4, 2, 0)),
    "V": ((0, 0, 1, 4), (1, 4, 2, 0)),
    "W": ((0, 0, 0, 4), (0, 4, 1, 2), (1, 2, 2, 4), (2, 4, 2, 0)),
    "X": ((0, 0, 2, 4), (2, 0, 0, 4)),
    "Y": ((0, 0, 1, 2), (2, 0, 1, 2), (1, 2, 1, 4)),
    "Z": ((0, 0, 2, 0), (2, 0, 0, 4), (0, 4, 2, 4)),
}


def _strokes(text: str) -> list[tuple[float, float, float, float]]:
    """The word's lines, centred at 0, letters 2 wide and 1 apart, 4 high."""
    left = -(3 * len(text) - 1) / 2
    lines = []
    for place, letter in enumerate(text):
        for x0, y0, x1, y1 in _STROKES[letter]:
            lines.append((left + 3 * place + x0, y0 - 2.0, left + 3 * place + x1, y1 - 2.0))
    return lines


def word(f: Frame, look: Appearance) -> None:
    """A painted sign on two posts; the colour is the board's.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        the word written on the board; no trait is used
    """
    f.mirror_off()
    for side in (-1, 1):
        f.shape(f.stroke(0.62 * side, 0.0, 0.62 * side, 0.97, 0.07), colour(110, 78, 54))

    f.shape(f.box(0.0, -0.25, 1.12, 0.62, 0.12), f.lit(look.paint, 0.12), edge=WHITE, width=0.07)
    # Dark letters on a light board and white ones on a dark board, by the brightness that the eye gives each channel.
    bright = look.paint[0] * F(0.3) + look.paint[1] * F(0.59) + look.paint[2] * F(0.11)
    ink = np.where(bright > F(0.58), DARK, WHITE)
    lines = [_strokes(WORDS[row]) for row in look.word]
    width = per_picture([1.9 / (3 * len(WORDS[row]) - 1) for row in look.word])
    width = np.minimum(width, F(0.19))  # short words do not become giants
    distance = np.full_like(f.x, 9.0)

    # The n-th line of every word at once; a word with fewer lines draws its last one again, which changes nothing.
    for number in range(max(len(row) for row in lines)):
        ends = np.array([row[min(number, len(row) - 1)] for row in lines])
        x0, y0, x1, y1 = (per_picture(ends[:, part]) for part in range(4))
        stroke = f.stroke(x0 * width, y0 * F(0.17) - F(0.25), x1 * width, y1 * F(0.17) - F(0.25), 0.075)
        distance = np.minimum(distance, stroke)

    f.shape(distance, ink)


def house(f: Frame, look: Appearance) -> None:
    """Walls, roof, door, two windows, chimney; the colour is the roof's.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 is the wall, 1 the door, 2 the light in the windows
    """
    wall = look.pick(0, [(248, 232, 200), (236, 214, 214), (214, 226, 236), (226, 196, 150), (252, 250, 242)])
    f.shape(f.box(0.5, -0.62, 0.11, 0.3), colour(150, 84, 70), edge=DARK, width=0.03)
    f.shape(f.box(0.0, 0.42, 0.8, 0.56), f.lit(wall, 0.16), edge=DARK, width=0.04)
    f.shape(np.maximum(f.box(0.0, 0.42, 0.8, 0.56), F(0.34) - f.x), wall * F(0.84))  # the shaded end of the wall
    roof = f.convex((-1.0, -0.1), (-0.25, -0.96), (0.25, -0.96), (1.0, -0.1))
    f.shape(roof, f.lit(look.paint, 0.35), edge=DARK, width=0.05)
    door = look.pick(1, [(122, 66, 40), (60, 90, 130), (60, 110, 80)])
    f.shape(f.box(0.0, 0.62, 0.17, 0.36, 0.04), door, edge=DARK, width=0.03)
    f.shape(f.disc(0.09, 0.64, 0.035), colour(250, 220, 120))
    pane = look.pick(2, [(180, 222, 246), (255, 224, 130), (150, 190, 220)])

    for x in (-0.5, 0.5):
        window = f.box(x, 0.34, 0.17, 0.18)
        f.shape(window, pane, edge=WHITE, width=0.06)
        bars = np.minimum(np.abs(f.x - F(x)), np.abs(f.y - F(0.34))) - F(0.02)
        f.shape(bars, WHITE, f.cover(window))


def tree(f: Frame, look: Appearance) -> None:
    """A round tree or a spruce; the colour is the crown's.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 decides between spruce (two in five) and round tree
    """
    f.shape(f.box(0.0, 0.6, 0.12, 0.4, 0.03), f.lit(colour(116, 78, 50), 0.4))
    spruce = look.yes(0, 0.4)

    # Both trees are painted, one of them with opacity 0: a batch has no branches.
    for cx, cy, radius in ((-0.32, -0.02, 0.42), (0.34, 0.0, 0.42), (0.0, -0.5, 0.48), (0.0, -0.1, 0.45)):
        f.shape(f.disc(cx, cy, radius), f.lit(look.paint, 0.5), F(1) - spruce)

    for cx, cy in ((-0.2, -0.55), (0.22, -0.2), (-0.34, -0.08)):
        f.shape(f.disc(cx, cy, 0.13), clamp(look.paint * F(1.25) + F(0.04)), (F(1) - spruce) * F(0.7))

    for top, base, half in ((-0.25, 0.55, 0.72), (-0.62, 0.15, 0.58), (-1.0, -0.3, 0.42)):
        tier = f.convex((0.0, top), (half, base), (-half, base))
        f.shape(tier, f.lit(look.paint, 0.5) * F(1.1 - 0.15 * base), spruce)
        f.shape(np.maximum(tier, np.abs(f.y - F(base - 0.04)) - F(0.05)), look.paint * F(0.6), spruce)


def ball(f: Frame, look: Appearance) -> None:
    """A shaded beach ball: white and coloured sectors, or one band.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 decides between sectors (three in five) and a band
    """
    round_ = f.disc(0.0, 0.0, 0.96)
    f.shape(round_, look.paint, edge=DARK, width=0.05)
    sectors = np.minimum(np.abs(f.x * F(1.0) + f.y * F(0.4)) - F(0.2), F(0.62) - np.abs(f.x * F(0.94) + f.y * F(0.34)))
    f.shape(np.maximum(round_, sectors), WHITE, look.yes(0, 0.6))
    f.shape(np.maximum(round_, np.abs(f.y + f.x * F(0.3)) - F(0.26)), WHITE, F(1) - look.yes(0, 0.6))
    # Light from the upper left: a shadow below on the right, a glint above on the left.
    shade = clamp((f.x * F(0.55) + f.y * F(0.75)) * F(0.9))
    f.shape(round_, DARK, shade * F(0.55))
    glint = clamp(F(1) - f.disc(-0.36, -0.42, 0.0) / F(0.5))
    f.shape(round_, WHITE, glint * glint * F(0.85))


def fish(f: Frame, look: Appearance) -> None:
    """Seen from the side, with tail, fins, stripes and an eye.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 decides whether it has stripes (three in five)
    """
    fin = look.paint * F(0.68)
    # A forked tail is not convex: the union (least distance) of its two halves.
    upper = f.convex((-0.6, -0.05), (-1.15, 0.0), (-1.35, -0.62))
    lower = f.convex((-0.6, 0.05), (-1.35, 0.62), (-1.15, 0.0))
    tail = np.minimum(lower, upper)
    f.shape(tail, fin, edge=DARK, width=0.05)
    f.shape(f.convex((0.35, -0.45), (-0.45, -0.95), (-0.5, -0.35)), fin, edge=DARK, width=0.05)
    f.shape(f.convex((0.1, 0.45), (-0.4, 0.45), (-0.45, 0.9)), fin, edge=DARK, width=0.05)
    trunk = f.ellipse(0.1, 0.0, 1.02, 0.62)
    f.shape(trunk, f.lit(look.paint, 0.45), edge=DARK, width=0.06)
    f.shape(np.maximum(trunk, F(0.2) - f.y), clamp(look.paint * F(0.5) + F(0.5)), 0.5)

    for x in (-0.42, -0.02):
        f.shape(np.maximum(trunk, np.abs(f.x - F(x) + f.y * f.y * F(0.3)) - F(0.09)), WHITE, look.yes(0, 0.6) * F(0.9))

    f.shape(np.maximum(np.abs(f.x - F(0.5) + f.y * f.y * F(0.5)) - F(0.035), np.abs(f.y) - F(0.36)), fin)
    f.shape(f.disc(0.74, -0.14, 0.17), WHITE, edge=DARK, width=0.03)
    f.shape(f.disc(0.78, -0.14, 0.09), DARK)


def car(f: Frame, look: Appearance) -> None:
    """Seen from the side.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        the colour alone; no trait is used
    """
    cabin = f.convex((-0.85, 0.0), (-0.5, -0.78), (0.42, -0.78), (0.86, 0.0))
    f.shape(cabin, f.lit(look.paint, 0.3), edge=DARK, width=0.06)
    hull = f.box(0.0, 0.26, 1.5, 0.38, 0.2)
    f.shape(hull, f.lit(look.paint, 0.35), edge=DARK, width=0.06)
    pane = colour(190, 226, 244)
    f.shape(f.convex((-0.62, -0.06), (-0.4, -0.62), (-0.06, -0.62), (-0.06, -0.06)), pane)
    f.shape(f.convex((0.06, -0.06), (0.06, -0.62), (0.35, -0.62), (0.62, -0.06)), pane)
    f.shape(f.box(0.0, 0.24, 1.44, 0.035), look.paint * F(0.65))
    f.shape(f.ellipse(1.38, 0.16, 0.11, 0.12), colour(255, 244, 170))
    f.shape(f.ellipse(-1.4, 0.16, 0.08, 0.12), colour(220, 50, 40))

    for x in (-0.84, 0.86):
        f.shape(f.disc(x, 0.62, 0.37), DARK)
        f.shape(f.disc(x, 0.62, 0.18), colour(206, 210, 216))


def cup(f: Frame, look: Appearance) -> None:
    """A mug with a handle, steaming; the colour is the glaze's.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 decides whether it has a white band, 1 what is in it
    """
    ring = np.abs(f.ellipse(0.72, 0.28, 0.38, 0.42)) - F(0.10)
    f.shape(ring, look.paint * F(0.82), edge=DARK, width=0.05)
    side = f.convex((-0.72, -0.25), (0.72, -0.25), (0.55, 0.97), (-0.55, 0.97))
    f.shape(side, f.lit(look.paint, 0.1) * (F(1.0) - F(0.25) * f.x), edge=DARK, width=0.05)
    f.shape(np.maximum(side, np.abs(f.y - F(0.42)) - F(0.13)), WHITE, look.yes(0, 0.5) * F(0.9))
    f.shape(f.ellipse(0.0, -0.25, 0.72, 0.2), clamp(look.paint * F(1.1) + F(0.06)), edge=DARK, width=0.05)
    f.shape(f.ellipse(0.0, -0.23, 0.6, 0.135), look.pick(1, [(92, 54, 32), (176, 110, 50), (126, 40, 36)]))

    for x in (-0.25, 0.2):
        wave = np.abs(f.y + F(0.72)) * F(0.5) - F(0.15)
        puff = np.maximum(np.abs(f.x - F(x) - wave * F(0.7)) - F(0.07), np.abs(f.y + F(0.72)) - F(0.27))
        f.shape(puff, WHITE, 0.6)


def bird(f: Frame, look: Appearance) -> None:
    """Seen from the side with a lifted wing.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 is how high the wing is lifted
    """
    dark = look.paint * F(0.66)
    f.shape(f.convex((-0.55, 0.0), (-1.3, 0.42), (-1.25, -0.08)), dark, edge=DARK, width=0.05)

    for x in (0.0, 0.22):
        f.shape(f.stroke(x, 0.5, x - 0.03, 0.95, 0.045), colour(206, 130, 40))

    f.shape(f.convex((0.92, -0.58), (1.42, -0.38), (0.9, -0.26)), colour(250, 176, 40), edge=DARK, width=0.04)
    trunk = np.minimum(f.ellipse(0.0, 0.12, 0.82, 0.5), f.disc(0.62, -0.42, 0.38))
    f.shape(trunk, f.lit(look.paint, 0.4), edge=DARK, width=0.06)
    f.shape(f.ellipse(0.32, 0.26, 0.42, 0.3), WHITE, 0.55)
    f.shape(f.disc(0.72, -0.48, 0.12), WHITE)
    f.shape(f.disc(0.75, -0.48, 0.075), DARK)
    up = look.trait(0, -1.05, -0.1)
    wing = f.convex((0.25, 0.12), (-0.62, 0.16), (F(-0.72), up), (F(-0.1), up * F(0.6)))
    f.shape(wing, dark, edge=DARK, width=0.05)


def boat(f: Frame, look: Appearance) -> None:
    """A sailing boat; the colour is the hull's.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 is the sails' colour
    """
    f.shape(f.box(0.0, -0.2, 0.045, 0.78), colour(120, 86, 60))
    sail = look.pick(0, [(252, 250, 240), (252, 236, 206), (250, 214, 206), (214, 234, 250)])
    f.shape(f.convex((0.1, -0.95), (0.86, 0.36), (0.1, 0.36)), f.lit(sail, 0.15), edge=DARK, width=0.04)
    f.shape(f.convex((-0.1, -0.75), (-0.1, 0.36), (-0.66, 0.36)), f.lit(sail * F(0.9), 0.15), edge=DARK, width=0.04)
    hull = f.convex((-1.0, 0.5), (1.12, 0.5), (0.74, 0.98), (-0.74, 0.98))
    f.shape(hull, f.lit(look.paint, 0.2), edge=DARK, width=0.05)
    f.shape(np.maximum(hull, np.abs(f.y - F(0.62)) - F(0.06)), WHITE, 0.9)
    f.shape(f.convex((0.0, -1.0), (0.34, -0.92), (0.0, -0.82)), colour(226, 60, 50))


def flower(f: Frame, look: Appearance) -> None:
    """Stem, leaves and six petals; the colour is the petals'.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 is the colour of the heart
    """
    green = colour(58, 138, 60)
    f.shape(f.stroke(0.0, -0.2, 0.0, 0.98, 0.06), green * F(0.85))
    f.shape(f.ellipse(0.27, 0.55, 0.3, 0.12), f.lit(green))
    f.shape(f.ellipse(-0.27, 0.72, 0.3, 0.12), f.lit(green))
    petals = [(0.0, -0.42), (0.364, -0.21), (0.364, 0.21), (0.0, 0.42), (-0.364, 0.21), (-0.364, -0.21)]

    for cx, cy in petals:
        f.shape(f.disc(cx * 1.05, cy * 1.05 - 0.34, 0.25), look.paint, edge=look.paint * F(0.5), width=0.05)

    for cx, cy in petals:
        f.shape(f.disc(cx * 0.85, cy * 0.85 - 0.34, 0.17), clamp(look.paint * F(1.12) + F(0.05)))
    heart = look.pick(0, [(250, 210, 70), (120, 74, 40), (252, 244, 200)])
    f.shape(f.disc(0.0, -0.34, 0.24), f.lit(heart, 0.3), edge=look.paint * F(0.45), width=0.04)


def clock(f: Frame, look: Appearance) -> None:
    """A round clock on two feet; the colour is the case's.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        traits 0 and 1 are the directions of the two hands
    """
    for side in (-1, 1):
        f.shape(f.stroke(0.4 * side, 0.7, 0.62 * side, 0.96, 0.09), DARK)
        f.shape(f.disc(0.52 * side, -0.74, 0.24), look.paint * F(0.8), edge=DARK, width=0.04)

    f.shape(f.disc(0.0, 0.0, 0.9), f.lit(look.paint, 0.4), edge=DARK, width=0.05)
    f.shape(f.disc(0.0, 0.0, 0.68), WHITE)

    for x, y in ((0.0, -0.55), (0.55, 0.0), (0.0, 0.55), (-0.55, 0.0)):
        f.shape(f.disc(x, y, 0.07), DARK)

    # Hands at tangents of half their angle, so that no sine is needed; the traits decide the time.
    for trait, reach, pen in ((0, 0.36, 0.075), (1, 0.5, 0.055)):
        half = look.trait(trait, -2.5, 2.5)
        norm = F(1) + half * half
        f.shape(f.stroke(0.0, 0.0, F(reach) * (half + half) / norm, F(reach) * (half * half - F(1)) / norm, pen), DARK)

    f.shape(f.disc(0.0, 0.0, 0.07), colour(210, 60, 50))


def umbrella(f: Frame, look: Appearance) -> None:
    """Open, with coloured panels and a hooked handle.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 decides whether every second panel is pale (two in three)
    """
    f.shape(f.stroke(0.0, -0.9, 0.0, 0.8, 0.05), DARK)
    hook = np.maximum(np.abs(f.disc(0.16, 0.8, 0.16)) - F(0.05), F(0.8) - f.y)
    f.shape(hook, DARK)
    dome = np.maximum(f.ellipse(0.0, -0.02, 1.12, 0.86), f.y + F(0.02))

    for x in (-0.84, -0.28, 0.28, 0.84):
        dome = np.maximum(dome, -f.ellipse(x, 0.03, 0.29, 0.15))

    f.shape(dome, f.lit(look.paint, 0.4), edge=DARK, width=0.05)
    # Panels narrow towards the tip, as meridians of the dome do.
    rise = np.sqrt(np.maximum(F(1) - (f.y + F(0.02)) * (f.y + F(0.02)) / F(0.74), F(0)))
    panel = np.minimum(np.abs(f.x) - F(0.3) * rise, F(0.86) * rise - np.abs(f.x))
    f.shape(np.maximum(dome, panel), clamp(look.paint * F(0.3) + F(0.68)), look.yes(0, 0.65))
    f.shape(f.stroke(0.0, -0.86, 0.0, -0.96, 0.045), DARK)


def cat(f: Frame, look: Appearance) -> None:
    """Sitting, from the front.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 1 is the eyes' colour
    """
    dark = look.paint * F(0.6)
    outline = clamp(F(0.2) * (F(1) - look.paint))
    f.shape(f.stroke(0.38, 0.82, 0.86, 0.6, 0.1), dark, edge=outline, width=0.05)
    f.shape(f.stroke(0.86, 0.6, 0.8, 0.1, 0.09), dark, edge=outline, width=0.05)
    f.shape(f.ellipse(0.0, 0.5, 0.52, 0.52), f.lit(look.paint, 0.4), edge=outline, width=0.05)
    f.shape(f.ellipse(0.0, 0.52, 0.26, 0.34), clamp(look.paint * F(0.4) + F(0.56)), 0.9)

    for side in (-1, 1):
        f.shape(f.ellipse(0.2 * side, 0.92, 0.19, 0.1), f.lit(look.paint), edge=outline, width=0.04)
        tip = (0.48 * side, -1.0)
        inner = (0.08 * side, -0.58)
        outer = (0.55 * side, -0.4)

        # Corners go round clockwise on either side, or the ear would be inside out.
        if side > 0:
            corners = (tip, outer, inner)
        else:
            corners = (tip, inner, outer)

        f.shape(f.convex(*corners), look.paint, edge=outline, width=0.05)
        f.shape(f.convex(*corners) + F(0.08), colour(240, 160, 160))

    f.shape(f.ellipse(0.0, -0.3, 0.6, 0.46), f.lit(look.paint, 0.25), edge=outline, width=0.05)
    for side in (-1, 1):
        f.shape(
            f.ellipse(0.25 * side, -0.34, 0.145, 0.15),
            look.pick(1, [(150, 216, 90), (250, 206, 70), (120, 196, 236)]),
            edge=outline,
            width=0.03,
        )

        f.shape(f.ellipse(0.25 * side, -0.34, 0.055, 0.13), DARK)
        for slope in (-0.05, 0.05):
            f.shape(f.stroke(0.2 * side, -0.1, 0.72 * side, -0.1 + slope * 2, 0.016), WHITE, 0.8)

    f.shape(f.ellipse(0.0, -0.14, 0.2, 0.13), clamp(look.paint * F(0.4) + F(0.56)))
    f.shape(f.convex((-0.08, -0.2), (0.08, -0.2), (0.0, -0.1)), colour(230, 110, 120))


def balloon(f: Frame, look: Appearance) -> None:
    """A striped hot-air balloon with its basket.

    Parameters
    ----------
    f : Frame
        where it is painted
    look : Appearance
        trait 0 is the stripes' colour
    """
    for side in (-1, 1):
        f.shape(f.stroke(0.5 * side, 0.12, 0.15 * side, 0.7, 0.025), DARK)

    f.shape(f.box(0.0, 0.82, 0.2, 0.16, 0.04), f.lit(colour(160, 108, 60)), edge=DARK, width=0.04)
    bag = np.minimum(f.disc(0.0, -0.3, 0.7), f.convex((-0.62, 0.05), (0.62, 0.05), (0.24, 0.52), (-0.24, 0.52)))
    f.shape(bag, f.lit(look.paint, 0.4), edge=DARK, width=0.05)
    # Stripes follow the bag's round outline.
    share = np.sqrt(np.maximum(F(1) - (f.y + F(0.3)) * (f.y + F(0.3)) / F(0.98), F(0.02)))
    stripe = np.minimum(np.abs(f.x) - F(0.17) * share, F(0.46) * share - np.abs(f.x))
    pale = look.pick(0, [(252, 248, 236), (252, 214, 90), (120, 200, 226)])
    f.shape(np.maximum(bag, stripe), f.lit(pale, 0.4), edge=None)
    glint = clamp(F(1) - f.ellipse(-0.28, -0.55, 0.18, 0.25) / F(0.3))
    f.shape(bag, WHITE, glint * F(0.3))


@dataclass(frozen=True)
class Kind:
    """What is true of every thing of one kind.

    Attributes
    ----------
    paint : callable
        paints it
    family : str
        coarser category
    colours : tuple of str
        names of the colours it comes in
    aspect : float
        half its width over half its height
    places : tuple of str
        where it is at home; scenes put it there more often
    flies : bool
        it hangs in the air (or water) and stands on nothing
    scale : float
        its usual height relative to other things
    """

    paint: Callable[[Frame, Appearance], None]
    family: str
    colours: tuple[str, ...]
    aspect: float
    places: tuple[str, ...]
    flies: bool = False
    scale: float = 1.0


_ANY = "red orange yellow green blue purple pink turquoise"


def _kind(paint, family: str, aspect: float, scale: float, tones: str, places: str, flies: bool = False) -> Kind:
    """A kind whose colours and places are written in one string each, so that the table below has a line per kind."""
    return Kind(paint, family, tuple(tones.split()), aspect, tuple(places.split()), flies, scale)


KINDS: dict[str, Kind] = {
    "face": _kind(face, "person", 0.78, 1.1, _ANY + " white black", "room city meadow"),
    "body": _kind(body, "person", 0.6, 1.1, _ANY + " white", "snow city desert"),
    "word": _kind(word, "text", 1.2, 0.85, "red blue green yellow white black", "city room desert"),
    "house": _kind(house, "building", 1.0, 1.05, "red orange brown blue purple grey", "meadow snow mountains"),
    "tree": _kind(tree, "plant", 0.8, 1.15, "green orange yellow pink", "meadow snow mountains"),
    "ball": _kind(ball, "toy", 1.0, 0.75, _ANY, "meadow room sea"),
    "fish": _kind(fish, "animal", 1.3, 0.65, _ANY, "underwater sea", flies=True),
    "car": _kind(car, "vehicle", 1.5, 0.62, "red orange yellow green blue white grey", "city desert"),
    "cup": _kind(cup, "tool", 0.95, 0.8, _ANY + " white", "room"),
    "bird": _kind(bird, "animal", 1.2, 0.65, "red blue yellow brown grey turquoise", "sky forest sea", flies=True),
    "boat": _kind(boat, "vehicle", 1.05, 0.95, "red blue brown white green", "sea mountains"),
    "flower": _kind(flower, "plant", 0.68, 0.9, "red pink purple yellow white blue", "meadow forest room"),
    "clock": _kind(clock, "tool", 0.92, 0.8, "red blue brown green grey orange", "room city"),
    "umbrella": _kind(umbrella, "tool", 1.1, 0.9, _ANY, "city forest"),
    "cat": _kind(cat, "animal", 0.9, 0.85, "black orange grey white brown", "room forest"),
    "balloon": _kind(
        balloon, "toy", 0.72, 1.0, "red orange green blue purple pink", "sky mountains desert", flies=True
    ),
}
