"""The ten places of the lab's scenes: what stands behind the things. Each painter fills whole pictures at once.

All share one signature and one picture of the world: a horizon, light of one of three kinds, and nearness that grows downwards
from the horizon. Names in ``chance`` are the scene's own: a draw keeps its value whatever else a painter comes to draw.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from phosphene.lab.canvas import Canvas, clamp, colour, colours, ease, length, noise, per_picture
from phosphene.lab.chance import Chance, lattice

F = np.float32  # every number that meets pixels: float64 would round otherwise

LIGHTS = ("day", "dusk", "haze")

_SKY_TOP = [(64, 132, 214), (88, 74, 150), (128, 150, 172)]
_SKY_LOW = [(190, 224, 246), (252, 176, 112), (214, 220, 222)]
_SUN = [(255, 246, 190), (255, 216, 140), (244, 240, 226)]


def _sky(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray, clouds: float = 0.5) -> None:
    """Graded sky with a sun and its glow, and clouds."""
    down = ease(canvas.y / horizon)
    canvas.rgb[:] = colours(_SKY_TOP, light) + down * (colours(_SKY_LOW, light) - colours(_SKY_TOP, light))

    # The sun may be hidden behind what is painted later.
    sun_x = per_picture(chance.uniform("sun.x", 0.08, 0.92))
    sun_y = horizon * per_picture(chance.uniform("sun.y", 0.15, 0.75))
    away = length(canvas.x - sun_x, canvas.y - sun_y)
    glow = clamp(F(1) - away / F(0.32))
    canvas.blend(glow * glow * F(0.55), colours(_SUN, light))
    canvas.shape(away - per_picture(chance.uniform("sun.size", 0.035, 0.065)), colours(_SUN, light))

    # Clouds are the upper part of stretched noise, thinner towards the horizon.
    shift = per_picture(chance.uniform("clouds"))
    cover = ease((noise(canvas.x * F(0.35) + shift, canvas.y * F(0.9) + shift * F(3)) - F(0.56)) / F(0.16))
    shade = colours([(255, 255, 255), (246, 196, 184), (236, 238, 240)], light)
    canvas.blend(cover * F(clouds) * clamp((horizon - canvas.y) / F(0.12)), shade)


def _ground(canvas: Canvas, top: np.ndarray, far: np.ndarray, near: np.ndarray) -> None:
    """Fill below the line `top` (n, 1, size or 1), from the colour `far` at it to `near` at the lower edge."""
    depth = clamp((canvas.y - top) / np.maximum(F(1) - top, F(0.05)))
    canvas.shape(top - canvas.y, far + depth * (near - far))


def _ridge(
    canvas: Canvas, chance: Chance, name: str, base: np.ndarray | np.float32, height: float, width: float
) -> np.ndarray:
    """A rolling line: y as a function of x, (n, 1, size)."""
    shift = per_picture(chance.uniform(name))
    return base - F(height) * (noise(canvas.x * F(width) + shift, shift * F(7)) - F(0.5)) * F(2)


def _peak(canvas: Canvas, x: np.ndarray, y: np.ndarray, slope: np.ndarray, rough: np.ndarray) -> np.ndarray:
    """Signed distance to a mountain with its top at (x, y)."""
    fall = y + np.abs(canvas.x - x) * slope + rough
    return (fall - canvas.y) / np.sqrt(F(1) + slope * slope)


def sky(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """High up: sky all the way, above a sea of cloud.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws the sun and the banks of cloud
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; not above 0.9, so that the picture is sky
    """
    far = np.maximum(horizon, F(0.9))
    _sky(canvas, chance, light, far, clouds=0.9)

    for layer, (top, opacity) in enumerate([(0.80, 0.65), (0.88, 0.85), (0.95, 1.0)]):
        line = _ridge(canvas, chance, f"cloud.{layer}", F(top), 0.12, 0.5)
        soft = ease((canvas.y - line) / F(0.06)) * F(opacity)
        white = colours([(250, 252, 255), (250, 206, 190), (238, 240, 242)], light)
        canvas.blend(soft, white * F(0.86 + 0.07 * layer))


def sea(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """Open water under the sky, with the sun's track on the waves.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws the sun and the waves
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; where the water begins
    """
    _sky(canvas, chance, light, horizon)
    _ground(
        canvas,
        horizon,
        colours([(96, 176, 206), (206, 138, 122), (150, 176, 184)], light),
        colours([(10, 76, 132), (52, 44, 100), (52, 92, 112)], light),
    )

    # Waves grow towards the viewer, so the noise is stretched by nearness; crests are light and troughs dark.
    below = clamp((canvas.y - horizon) * F(400))
    shift = per_picture(chance.uniform("waves"))
    nearness = F(0.25) + (canvas.y - horizon) * F(1.5)
    wave = noise(canvas.x * F(0.5) / np.maximum(nearness, F(0.2)) + shift, canvas.y * F(2.4) + shift * F(5)) - F(0.5)
    canvas.blend(
        below * clamp(wave * F(2.2)) * F(0.8), colours([(214, 240, 246), (255, 206, 170), (216, 226, 230)], light)
    )

    canvas.blend(below * clamp(-wave * F(1.8)) * F(0.5), colours([(6, 50, 100), (34, 28, 80), (36, 70, 92)], light))

    # The same draw as in the sky: the track lies under the sun, and widens towards the viewer.
    sun_x = per_picture(chance.uniform("sun.x", 0.08, 0.92))
    track = clamp(F(1) - np.abs(canvas.x - sun_x) / (F(0.05) + (canvas.y - horizon) * F(0.3)))
    canvas.blend(below * track * clamp(wave * F(4) + F(0.35)) * F(0.7), colours(_SUN, light))


def meadow(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """Green hills under the sky, flowers in the grass.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws hills, grass, flowers and the sky
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; where the hills begin
    """
    _sky(canvas, chance, light, horizon)
    hills = _ridge(canvas, chance, "hills", horizon, 0.14, 0.3)
    _ground(
        canvas,
        hills,
        colours([(112, 168, 128), (120, 104, 104), (140, 164, 146)], light),
        colours([(96, 156, 84), (92, 96, 70), (112, 140, 104)], light),
    )

    top = _ridge(canvas, chance, "meadow", horizon + F(0.08), 0.05, 0.25)
    far = colours([(150, 200, 82), (150, 138, 66), (146, 172, 104)], light)
    _ground(canvas, top, far, colours([(54, 128, 44), (66, 78, 40), (76, 112, 62)], light))
    below = clamp((canvas.y - top) * F(200))
    shift = per_picture(chance.uniform("grass"))
    blades = noise(canvas.x * F(1.6) + shift, canvas.y * F(0.7) + shift * F(3)) - F(0.5)
    canvas.blend(below * clamp(blades) * F(0.7), colours([(196, 226, 104), (206, 174, 84), (180, 200, 130)], light))
    canvas.blend(below * clamp(-blades) * F(0.8), colour(30, 84, 30))

    # One flower at most in each cell of a grid that narrows towards the horizon.
    nearness = F(0.5) + (canvas.y - top)
    u = (canvas.x - F(0.5)) / nearness * F(9)
    v = canvas.y * F(16)
    row = np.floor(v)
    column = np.floor(u)
    seed = (chance.integer("flowers", 1 << 20)).reshape(-1, 1, 1)
    spot = length(u - column - F(0.5), v - row - F(0.5)) - F(0.22)
    grows = lattice(column, row, seed, salt=1) < F(0.3)
    tone = colours(
        [(255, 236, 120), (250, 250, 250), (240, 130, 160), (190, 150, 240)], chance.integer("flower.colour", 4)
    )

    canvas.blend(below * grows * clamp(F(0.5) - spot / (canvas.pixel * F(12))), tone)


def desert(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """Dunes with a bright and a shaded side.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws where the dunes stand, ripples and the sky
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; the foot of the farthest dune
    """
    _sky(canvas, chance, light, horizon, clouds=0.25)
    haze = clamp(F(1) - np.abs(canvas.y - horizon) / F(0.25)) * F(0.6)
    canvas.blend(haze, colours([(248, 226, 180), (250, 170, 110), (226, 214, 190)], light))
    bright = [(238, 200, 130), (226, 148, 92), (212, 194, 156)]
    dark = [(196, 142, 78), (140, 80, 66), (160, 138, 106)]

    for layer, drop in enumerate((0.0, 0.13, 0.3)):
        x = per_picture(chance.uniform(f"dune.{layer}.x", 0.1, 0.9))
        y = horizon + F(drop)
        away = canvas.x - x
        line = y + np.where(away < 0, away * F(-0.28), away * F(0.34)) * (F(1) - F(0.35) * np.abs(away))
        line = line - F(0.05) + F(0.02) * (noise(canvas.x * F(0.4), x) - F(0.5))
        _ground(canvas, line, colours(bright, light), colours(bright, light) * F(0.9))

        # The side away from the sun, from the crest to where the dune runs out.
        crest = x + (canvas.y - y) * F(0.6) + F(0.05) * (noise(canvas.y * F(0.6), x) - F(0.5))
        shade = (
            clamp((canvas.x - crest) / F(0.03))
            * clamp((canvas.y - line) / canvas.pixel)
            * clamp(F(1.2) - away * F(1.2))
        )

        canvas.blend(shade * F(0.75), colours(dark, light))

    shift = per_picture(chance.uniform("ripples"))
    ripple = noise(canvas.x * F(0.3) + shift, canvas.y * F(2.2) + shift) - F(0.5)
    canvas.blend(clamp((canvas.y - horizon) / F(0.1)) * clamp(ripple) * F(0.6), colours(dark, light))


def snow(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """White fields before a dark wood, flakes falling.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws wood, drifts, flakes and the sky
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; the foot of the wood
    """
    _sky(canvas, chance, light, horizon, clouds=0.8)
    canvas.blend(F(0.35), colour(206, 216, 230))

    # A row of spruces: triangles one cell wide, each of its own height.
    shift = per_picture(chance.uniform("wood"))
    step = canvas.x * F(17) + shift * F(31)
    cell = np.floor(step)
    tall = F(0.07) + F(0.10) * lattice(cell, np.floor(shift * F(9999)))
    spruce = horizon + F(0.03) - tall * (F(1) - F(1.7) * np.abs(step - cell - F(0.5)))
    canvas.shape(spruce - canvas.y, colours([(64, 98, 104), (70, 66, 92), (96, 112, 120)], light))

    for layer, drop in enumerate((0.03, 0.16, 0.32)):
        line = _ridge(canvas, chance, f"drift.{layer}", horizon + F(drop), 0.06, 0.3)
        near = colours([(196, 212, 234), (206, 178, 190), (198, 204, 212)], light)
        _ground(canvas, line, colours([(250, 252, 255), (255, 226, 214), (238, 240, 244)], light), near)

    # Far flakes and near ones, somewhere in the cells of two grids.
    seed = chance.integer("flakes", 1 << 20).reshape(-1, 1, 1)
    for layer, (cells, radius) in enumerate([(7, 0.10), (11, 0.12)]):
        u = canvas.x * F(cells)
        v = canvas.y * F(cells)
        column = np.floor(u)
        row = np.floor(v)
        jx = lattice(column, row, seed, salt=2 + layer)
        jy = lattice(column, row, seed, salt=12 + layer)
        falls = lattice(column, row, seed, salt=22 + layer) < F(0.6)
        spot = length(u - column - F(0.25) - F(0.5) * jx, v - row - F(0.25) - F(0.5) * jy) - F(radius)
        canvas.blend(falls * clamp(F(0.5) - spot / (canvas.pixel * F(cells))) * F(0.9), colour(255, 255, 255))


def city(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """Night: moon and stars over lit towers, and a street.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws stars, moon and each tower
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; a fifth of the picture above the street
    """
    top = colours([(10, 12, 40), (28, 12, 46), (12, 24, 40)], light)
    canvas.rgb[:] = top + ease(canvas.y / (horizon + F(0.25))) * (
        colours([(58, 58, 116), (122, 58, 96), (48, 78, 104)], light) - top
    )

    seed = chance.integer("stars", 1 << 20).reshape(-1, 1, 1)
    u = canvas.x * F(13)
    v = canvas.y * F(13)
    column = np.floor(u)
    row = np.floor(v)
    spot = length(u - column - F(0.5), v - row - F(0.5)) - F(0.10)
    shines = lattice(column, row, seed, salt=3) < F(0.28)
    canvas.blend(shines * clamp(F(0.5) - spot / (canvas.pixel * F(13))), colour(255, 250, 220))

    # The moon is a disc without another disc.
    x = per_picture(chance.uniform("moon.x", 0.1, 0.9))
    y = per_picture(chance.uniform("moon.y", 0.1, 0.24))
    away = length(canvas.x - x, canvas.y - y)
    glow = clamp(F(1) - away / F(0.25))
    canvas.blend(glow * glow * F(0.4), colour(226, 226, 255))
    moon = np.maximum(away - F(0.065), F(0.06) - length(canvas.x - x - F(0.03), canvas.y - y + F(0.012)))
    canvas.shape(moon, colour(252, 246, 214))
    street = horizon + F(0.2)

    for tower in range(7):
        width = per_picture(chance.uniform(f"tower.{tower}.w", 0.055, 0.10))
        middle = per_picture(tower / 6 + chance.uniform(f"tower.{tower}.x", -0.05, 0.05))
        roof = street - per_picture(chance.uniform(f"tower.{tower}.h", 0.2, 0.55))
        wall = np.maximum(np.abs(canvas.x - middle) - width, roof - canvas.y)
        tone = colours([(30, 30, 58), (44, 34, 62), (24, 36, 56), (52, 40, 54)], chance.integer(f"tower.{tower}.c", 4))
        canvas.shape(wall, tone)

        # Half of the windows are lit; none is cut by the wall's edge.
        u = (canvas.x - middle + width) / F(0.04)
        v = (canvas.y - roof) / F(0.055)
        column = np.floor(u)
        row = np.floor(v)
        pane = np.maximum(np.abs(u - column - F(0.5)) - F(0.30), np.abs(v - row - F(0.55)) - F(0.30)) * F(0.045)
        shines = (lattice(column, row, seed, salt=40 + tower) < F(0.5)) * clamp(
            F(0.5) - (wall + F(0.012)) / canvas.pixel
        )

        warm = colours([(255, 214, 110), (255, 190, 96), (190, 220, 255)], chance.integer(f"tower.{tower}.lamp", 3))
        canvas.blend(shines * clamp(F(0.5) - pane / canvas.pixel), warm)

    _ground(canvas, street, colour(60, 58, 78), colour(30, 30, 44))
    shine = noise(canvas.x * F(0.6), canvas.y * F(0.1) + x) - F(0.45)
    canvas.blend(clamp((canvas.y - street) * F(200)) * clamp(shine * F(1.6)) * F(0.6), colour(236, 176, 96))
    dash = canvas.x * F(5) + x
    line = np.maximum(
        np.abs(canvas.y - street - F(0.17)) - F(0.013), (np.abs(dash - np.floor(dash) - F(0.5)) - F(0.25)) * F(0.2)
    )

    canvas.shape(line, colour(236, 226, 190))


def room(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """A brick wall with a wooden floor, lit by a lamp from one side.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws wall, bricks, lamp and floor
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; a little above the skirting board
    """
    skirting = horizon + F(0.18)
    wall = chance.integer("wall", 4)
    brick = colours([(176, 84, 62), (150, 100, 76), (196, 178, 160), (118, 96, 104)], wall)
    mortar = colours([(214, 196, 178), (206, 190, 170), (166, 150, 136), (170, 156, 158)], wall)

    # Every second row of bricks is moved by half a brick.
    seed = chance.integer("bricks", 1 << 20).reshape(-1, 1, 1)
    v = canvas.y * F(8) + per_picture(chance.uniform("courses"))
    row = np.floor(v)
    u = canvas.x * F(4) + F(0.5) * (row - F(2) * np.floor(row * F(0.5))) + per_picture(chance.uniform("joints"))
    column = np.floor(u)
    tone = F(0.82) + F(0.34) * lattice(column, row, seed, salt=4)
    joint = np.minimum((F(0.5) - np.abs(u - column - F(0.5))) / F(4), (F(0.5) - np.abs(v - row - F(0.5))) / F(8)) - F(
        0.008
    )

    canvas.rgb[:] = mortar
    canvas.shape(-joint, brick * tone)
    x = per_picture(chance.uniform("lamp.x", 0.0, 1.0))
    near = clamp(F(1) - length(canvas.x - x, canvas.y - F(0.1)) / F(0.9))
    canvas.rgb *= F(0.55) + F(0.6) * near
    canvas.blend(near * near * F(0.25), colour(255, 226, 160))
    floor = colours([(168, 112, 66), (132, 86, 56), (192, 148, 98)], chance.integer("floor", 3))
    _ground(canvas, skirting, floor * F(0.8), floor * F(1.1))

    # Planks run towards the viewer, so their seams spread out from the middle.
    plank = (canvas.x - F(0.5)) / (F(0.45) + canvas.y - skirting) * F(4)
    line = np.abs(plank - np.floor(plank) - F(0.5))
    below = clamp((canvas.y - skirting) * F(200))
    canvas.blend(below * clamp((line - F(0.44)) * F(12)) * F(0.6), floor * F(0.45))
    grain = noise(plank * F(0.4), canvas.y * F(0.3)) - F(0.5)
    canvas.blend(below * np.abs(grain) * F(0.8), floor * F(0.55))
    canvas.shape(np.abs(canvas.y - skirting) - F(0.02), colour(240, 232, 218))


def forest(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """Trunks before a green depth, light falling through.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws each trunk, leaves and litter
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; a fifth of the picture above the ground
    """
    ground = horizon + F(0.2)
    top = colours([(34, 88, 52), (96, 72, 44), (70, 98, 88)], light)
    low = colours([(176, 214, 126), (246, 190, 100), (190, 208, 190)], light)
    canvas.rgb[:] = top + ease(canvas.y / ground) * (low - top)
    shift = per_picture(chance.uniform("leaves"))
    far = colours([(104, 158, 96), (176, 128, 78), (140, 164, 146)], light)
    near = colours([(58, 46, 36), (52, 34, 30), (66, 64, 62)], light)

    # From far, thin and pale trunks to near, thick and dark ones.
    for layer, (count, width) in enumerate([(7, 0.012), (5, 0.022), (4, 0.038)]):
        tone = far + F(layer / 2) * (near - far)
        for trunk in range(count):
            x = per_picture((trunk + chance.uniform(f"trunk.{layer}.{trunk}")) / count)
            lean = per_picture(chance.uniform(f"lean.{layer}.{trunk}", -0.05, 0.05))
            bark = np.abs(canvas.x - x - lean * (canvas.y - ground)) - F(width) * (F(0.8) + F(0.5) * canvas.y)
            canvas.shape(np.maximum(bark, canvas.y - ground - F(0.02 + 0.05 * layer)), tone)

    leaves = noise(canvas.x * F(0.8) + shift, canvas.y * F(0.8) + shift * F(3))
    crown = ease((leaves + F(0.34) - canvas.y * F(1.9)) / F(0.22))
    canvas.blend(crown * F(0.95), colours([(30, 92, 40), (150, 84, 30), (58, 92, 76)], light) * (F(0.5) + leaves))
    line = _ridge(canvas, chance, "floor", ground, 0.04, 0.4)
    _ground(
        canvas,
        line,
        colours([(106, 132, 62), (132, 92, 48), (112, 124, 98)], light),
        colours([(44, 64, 30), (66, 42, 28), (58, 70, 54)], light),
    )

    litter = noise(canvas.x * F(1.3) + shift, canvas.y * F(2.2)) - F(0.52)
    canvas.blend(clamp((canvas.y - line) * F(100)) * clamp(litter * F(3)) * F(0.6), low)
    beam = noise((canvas.x + canvas.y * F(0.45)) * F(0.5) + shift, shift) - F(0.55)
    canvas.blend(clamp(beam * F(4)) * clamp(F(1) - canvas.y) * F(0.35), colour(255, 250, 206))


def mountains(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """Snow-capped peaks behind a lake.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws rock, each peak, shore and the sky
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; a little above the shore of the lake
    """
    _sky(canvas, chance, light, horizon, clouds=0.5)
    shift = per_picture(chance.uniform("rock"))
    rock = [(92, 104, 132), (108, 76, 106), (122, 134, 146)]
    snowcap = colours([(250, 252, 255), (255, 214, 196), (238, 240, 244)], light)
    rough = (noise(canvas.x * F(1.1) + shift, canvas.y * F(0.6) + shift) - F(0.5)) * F(0.10)

    for layer, (low, high) in enumerate([(0.02, 0.14), (0.12, 0.26), (0.16, 0.3)]):
        x = per_picture((layer * 2 % 3) / 3 + chance.uniform(f"peak.{layer}.x", 0.0, 0.34))
        y = per_picture(chance.uniform(f"peak.{layer}.y", low, high))
        slope = per_picture(chance.uniform(f"peak.{layer}.slope", 0.75, 1.3))
        side = _peak(canvas, x, y, slope, rough)
        stone = colours(rock, light) * F(1.12 - 0.14 * layer)
        canvas.shape(side, np.where(canvas.x + rough > x, stone * F(0.72), stone))

        # Snow reaches as far down as the rock is rough.
        cap = canvas.y - y - F(0.13) - rough * F(1.6)
        canvas.shape(np.maximum(side, cap), np.where(canvas.x + rough > x, snowcap * F(0.82), snowcap))

    shore = horizon + F(0.06)
    wood = _ridge(canvas, chance, "shore", shore, 0.04, 0.9)
    canvas.shape(wood - canvas.y, colours([(40, 84, 66), (64, 50, 62), (78, 104, 96)], light))
    _ground(
        canvas,
        shore + F(0.02),
        colours([(120, 178, 204), (220, 152, 132), (168, 186, 194)], light),
        colours([(26, 84, 122), (84, 58, 98), (84, 108, 122)], light),
    )

    wave = noise(canvas.x * F(0.4) + shift, canvas.y * F(2.0)) - F(0.5)
    canvas.blend(clamp((canvas.y - shore - F(0.02)) * F(60)) * clamp(wave * F(1.6)), snowcap)


def underwater(canvas: Canvas, chance: Chance, light: np.ndarray, horizon: np.ndarray) -> None:
    """Blue depth with shafts of light, bubbles, weed and a sandy floor.

    Parameters
    ----------
    canvas : Canvas
        painted all over
    chance : Chance
        draws shafts of light, sea bed, each weed and bubble
    light : ndarray of shape (n,), int
        rows of :data:`LIGHTS`
    horizon : ndarray of shape (n, 1, 1), float32
        height from the top, 0-1; a third of the picture above the sea bed
    """
    top = colours([(94, 206, 226), (74, 164, 186), (110, 186, 170)], light)
    canvas.rgb[:] = top + ease(canvas.y * F(1.15)) * (colours([(6, 50, 112), (10, 36, 90), (14, 66, 84)], light) - top)
    shift = per_picture(chance.uniform("shafts"))
    shaft = noise((canvas.x - canvas.y * F(0.4)) * F(0.55) + shift, shift) - F(0.5)
    canvas.blend(clamp(shaft * F(3)) * clamp(F(0.9) - canvas.y) * F(0.45), colour(220, 250, 246))
    bed = _ridge(canvas, chance, "bed", np.maximum(horizon, F(0.5)) + F(0.34), 0.05, 0.3)
    _ground(canvas, bed, colour(150, 166, 140), colour(206, 190, 140))

    for weed in range(4):
        x = per_picture(chance.uniform(f"weed.{weed}.x"))
        tall = per_picture(chance.uniform(f"weed.{weed}.h", 0.12, 0.34))
        sway = F(0.05) * (noise(canvas.y * F(0.9) + x, x * F(5)) - F(0.5)) * F(2)
        stem = np.maximum(np.abs(canvas.x - x - sway) - F(0.014), bed - tall - canvas.y)
        green = colours([(40, 138, 84), (96, 130, 50), (150, 60, 90)], chance.integer(f"weed.{weed}.c", 3))
        canvas.shape(np.maximum(stem, canvas.y - bed - F(0.04)), green)

    for bubble in range(7):
        x = per_picture(chance.uniform(f"bubble.{bubble}.x"))
        y = per_picture(chance.uniform(f"bubble.{bubble}.y", 0.05, 0.75))
        radius = per_picture(chance.uniform(f"bubble.{bubble}.r", 0.01, 0.028))
        away = length(canvas.x - x, canvas.y - y)
        canvas.shape(away - radius, colour(216, 246, 252), 0.55)
        to_glint = length(canvas.x - x + radius * F(0.3), canvas.y - y + radius * F(0.3))
        canvas.shape(to_glint - radius * F(0.35), colour(255, 255, 255), 0.9)


PAINTERS: dict[str, Callable[[Canvas, Chance, np.ndarray, np.ndarray], None]] = {
    painter.__name__: painter for painter in (sky, sea, meadow, desert, snow, city, room, forest, mountains, underwater)
}
