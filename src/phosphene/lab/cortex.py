"""The anatomy of a simulated visual cortex: a folded sheet per hemisphere, areas on it, and what each point looks at.

Areas are laid out on a flat map as on the human occipital and temporal lobe, schematically: V1 in the middle with V2 and
V3 above and below it in mirror order, hV4 below, LOC and EBA above, OFA, VWFA, FFA and PPA along the ventral side, RSC in
front. Their sizes, places and borders differ by subject.

References
----------
Wandell, Dumoulin and Brewer 2007, "Visual field maps in human cortex" (layout); Dumoulin and Wandell 2008 (population receptive
fields that grow with eccentricity and along the hierarchy); Duncan and Boynton 2003 (cortical magnification).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from phosphene.lab.exact import exact_product

FIELD_DEG = 8.4  # width of a picture in degrees of visual angle, as in the Natural Scenes Dataset
_FARTHEST_DEG = 6.0  # the corner of a picture
_FOVEA_DEG = 0.75  # eccentricity at which cortical magnification has halved
_MARGIN_MM = 3.5  # how far the sheet reaches beyond the areas
_SILENT = (40.0, 54.0, -18.0, 27.0)  # cortex between the areas that answers to nothing
_EARLY_MM = 24.0  # V1 to V3 reach this far from the horizontal meridian, away from the fovea


@dataclass(frozen=True)
class Area:
    """One visual area.

    Attributes
    ----------
    patches : tuple of tuple of (float, float, float, float)
        (u0, u1, v0, v1) rectangles on the flat map, millimetres, u from the occipital pole forwards, v upwards
    size_deg : tuple of (float, float)
        standard deviation of a receptive field at the fovea and its growth per degree of eccentricity
    ncsnr : float
        median ratio of signal to noise (standard deviations, one trial) at 7 T
    prefers : str
        kind of thing a selective area prefers, else empty
    """

    patches: tuple[tuple[float, float, float, float], ...]
    size_deg: tuple[float, float]
    ncsnr: float
    prefers: str = ""


AREAS: dict[str, Area] = {
    "V1": Area(((0, 44, -11, 11),), (0.25, 0.10), 0.58),
    "V2": Area(((0, 44, 11, 18), (0, 44, -18, -11)), (0.35, 0.14), 0.56),
    "V3": Area(((0, 44, 18, 24), (0, 44, -24, -18)), (0.50, 0.22), 0.52),
    "hV4": Area(((0, 26, -36, -24),), (0.80, 0.35), 0.52),
    "LOC": Area(((3, 34, 24, 40),), (1.8, 0.30), 0.46),
    "OFA": Area(((0, 13, -47, -36),), (1.6, 0.30), 0.44, "face"),
    "FFA": Area(((29, 44, -37, -25),), (2.4, 0.30), 0.50, "face"),
    "EBA": Area(((35, 50, 25, 40),), (2.0, 0.30), 0.50, "body"),
    "VWFA": Area(((15, 28, -48, -37),), (2.0, 0.20), 0.42, "word"),
    "PPA": Area(((47, 62, -30, -15),), (3.0, 0.30), 0.46, "house"),
    "RSC": Area(((47, 60, 1, 14),), (3.5, 0.30), 0.44, "house"),
}  # fmt: skip

EARLY = ("V1", "V2", "V3")


class _Warp:
    """A smooth random displacement of the flat map: why no two subjects' borders agree."""

    def __init__(self, rng: np.random.Generator, strength_mm: float):
        # Six waves of about 45 mm, each moving both axes, so that borders bend over centimetres.
        self.waves = rng.normal(0.0, 2 * np.pi / 45.0, (6, 2))
        self.phase = rng.uniform(0.0, 2 * np.pi, (6, 2))
        self.strength = rng.normal(0.0, strength_mm / np.sqrt(3.0), (6, 2))

    def __call__(self, flat: np.ndarray) -> np.ndarray:
        """Where points of the sheet (n, 2) lie on the map whose borders are straight."""
        waves = np.sin(exact_product(flat, self.waves.T)[:, :, None] + self.phase)  # (point, wave, axis)
        u, v = (flat + (waves * self.strength).sum(axis=1)).T

        # V1 to V3 taper towards the fovea, and what lies beside them moves in.
        width = 0.5 + 0.5 * np.clip(u / 30.0, 0.0, 1.0) ** 0.7
        beside = np.abs(v) + _EARLY_MM * (1.0 - width)

        return np.stack([u, np.where(np.abs(v) < _EARLY_MM * width, v / width, np.sign(v) * beside)], axis=1)


def _patches(rng: np.random.Generator, right: bool) -> list[tuple[str, np.ndarray]]:
    """This hemisphere's areas: name and rectangle, moved and scaled a little.

    Maps that share borders (V1 to hV4) stay where they are, and only the warp bends them; areas that stand alone are moved and
    differ in size by about a tenth.
    """
    patches = []
    for name, area in AREAS.items():
        stands_alone = bool(area.prefers) or name == "LOC"
        if stands_alone:
            shift = rng.normal(0.0, 1.2, 2)
        else:
            shift = np.zeros(2)

        grow = rng.lognormal(0.0, 0.10)
        if name == "VWFA" and right:
            grow *= 0.5  # reading lives on the left

        if name == "FFA" and not right:
            grow *= 0.9  # and faces more on the right

        for u0, u1, v0, v1 in area.patches:
            box = np.array([u0, u1, v0, v1], dtype=float)
            if stands_alone:
                middle = np.array([(u0 + u1) / 2, (v0 + v1) / 2]) + shift
                half = np.array([u1 - u0, v1 - v0]) / 2 * np.sqrt(grow)  # `grow` is of the surface
                box = np.array([middle[0] - half[0], middle[0] + half[0], middle[1] - half[1], middle[1] + half[1]])

            patches.append((name, box))

    return patches


def _sample(boxes: np.ndarray, warp: _Warp, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Points of a jittered hexagonal grid on the part of the sheet that holds the areas: (n, 2), millimetres."""
    u = np.arange(-8.0, 72.0, spacing)
    v = np.arange(-58.0, 50.0, spacing * np.sqrt(3) / 2)
    flat = np.stack(np.meshgrid(u, v), axis=-1)
    flat[1::2, :, 0] += spacing / 2
    flat = flat.reshape(-1, 2)
    flat = flat + rng.uniform(-0.2, 0.2, flat.shape) * spacing

    # Distance to the nearest box, on the map where boxes are straight; 0 inside.
    straight = warp(flat)
    below = boxes[:, ::2] - straight[:, None, :]
    above = straight[:, None, :] - boxes[:, 1::2]
    outside = np.maximum(below, above)  # (point, box, axis)
    away = np.sqrt((np.maximum(outside, 0.0) ** 2).sum(axis=2)).min(axis=1)  # (point,)
    return flat[away <= _MARGIN_MM]


def _fold(flat: np.ndarray, right: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bend the sheet round the brain and fold it into gyri and sulci: x, y, z in millimetres, and the height of the fold."""
    u, v = flat.T

    # Gyri 21 mm apart, whose crests meander; crests lie further out than sulci.
    phase = rng.uniform(0.0, 2 * np.pi, 2)
    fold = np.sin(2 * np.pi * (u / 21.0 + 0.35 * np.sin(v / 14.0 + phase[0])) + phase[1])
    radius = 34.0 + 4.5 * fold
    angle = v / 36.0
    x = (4.0 + radius * np.cos(angle)) * (1 if right else -1)

    return np.stack([x, -96.0 + 0.9 * u + 2.0 * fold, radius * np.sin(angle)], axis=1), fold


def _fields(area: np.ndarray, straight: np.ndarray, right: bool, rng: np.random.Generator) -> pd.DataFrame:
    """Population receptive fields: centre (degrees, x to the right and y up) and standard deviation.

    Parameters
    ----------
    area : ndarray of shape (n_points,)
        name of the area of each point
    straight : ndarray of shape (n_points, 2)
        places on the map whose borders are straight, millimetres
    right : bool
        hemisphere; it sees the other half of the field
    rng : numpy.random.Generator
        decides what the layout does not
    """
    n = len(area)
    u, v = straight.T

    # Eccentricity grows exponentially from the occipital pole forwards: cortical magnification falls with it.
    eccentricity = np.full(n, np.nan)
    angle = np.full(n, np.nan)
    mapped = np.isin(area, [*EARLY, "hV4"])
    share = np.clip(u / np.where(area == "hV4", 26.0, 44.0), 0.0, 1.0)
    eccentricity[mapped] = (_FOVEA_DEG * (np.exp(share * np.log1p(_FARTHEST_DEG / _FOVEA_DEG)) - 1.0))[mapped]

    # Angle from the horizontal meridian, up positive. It turns around at each border, which is how maps are told apart.
    quarter = np.pi / 2
    up = -np.sign(v)  # the lower bank shows the upper field
    distance = np.abs(v)
    angle = np.where(area == "V1", -v / 11.0 * quarter, angle)
    angle = np.where(area == "V2", up * quarter * (18.0 - distance) / 7.0, angle)
    angle = np.where(area == "V3", up * quarter * (distance - 18.0) / 6.0, angle)
    angle = np.where(area == "hV4", quarter * (v + 30.0) / 6.0, angle)

    # Areas without a map: fields anywhere, those of faces and words near the fovea.
    loose = ~mapped
    foveal = np.isin(area, ["FFA", "OFA", "VWFA"])
    eccentricity[loose] = (rng.gamma(2.0, 1.0, n) * np.where(foveal, 0.4, 0.9))[loose]
    angle[loose] = rng.uniform(-quarter, quarter, n)[loose]
    angle = np.clip(angle, -quarter, quarter)

    # Fields grow linearly with eccentricity; a subject's areas differ from the table by up to 15 %.
    slope = {}
    for name, item in AREAS.items():
        slope[name] = np.array(item.size_deg) * rng.uniform(0.85, 1.15)
    slope["none"] = np.array([1.0, 0.2])
    growth = np.array([slope[name] for name in area])  # (n_points, 2)
    size = (growth[:, 0] + growth[:, 1] * eccentricity) * rng.lognormal(0.0, 0.12, n)
    scatter = rng.normal(0.0, 0.25, (n, 2)) * size[:, None] * np.where(loose, 2.0, 1.0)[:, None]

    if right:
        contralateral = -1.0
    else:
        contralateral = 1.0

    return pd.DataFrame({
        "prf_x": contralateral * eccentricity * np.cos(angle) + scatter[:, 0],
        "prf_y": eccentricity * np.sin(angle) + scatter[:, 1],
        "prf_size": size,
    })  # fmt: skip


def _hemisphere(warp, patches, flat, right, rng) -> pd.DataFrame:
    """Table of a hemisphere's points: places, areas and receptive fields."""
    straight = warp(flat)
    area = np.full(len(flat), "none", dtype=object)
    for name, (u0, u1, v0, v1) in patches:
        du = (2 * straight[:, 0] - u0 - u1) / (u1 - u0)
        dv = (2 * straight[:, 1] - v0 - v1) / (v1 - v0)

        # Maps have straight borders, other areas are rounded patches: superellipses of high and low power.
        if name in (*EARLY, "hV4"):
            power = 40
        else:
            power = 4

        # Where two overlap, the one listed first keeps the point.
        inside = np.abs(du) ** power + np.abs(dv) ** power < 1.0
        area[inside & (area == "none")] = name

    xyz, fold = _fold(flat, right, rng)
    if right:
        offset = 8.0
    else:
        offset = -8.0

    table = pd.DataFrame({
        "hemisphere": "right" if right else "left", "x": xyz[:, 0], "y": xyz[:, 1], "z": xyz[:, 2],
        "u": (flat[:, 0] + abs(offset)) * np.sign(offset), "v": flat[:, 1], "fold": fold, "area": area,
    })  # fmt: skip

    return table.join(_fields(area, straight, right, rng))


def grow(rng: np.random.Generator, n_voxels: int) -> pd.DataFrame:
    """The voxels of one subject.

    Parameters
    ----------
    rng : numpy.random.Generator
        decides the subject's anatomy
    n_voxels : int
        how many

    Returns
    -------
    DataFrame
        table with one row per voxel: hemisphere; x, y, z on the folded sheet (mm); u, v on the flat map (mm, left
        hemisphere at negative u); fold (-1 sulcus to 1 gyrus); area (``none`` where nothing responds); prf_x, prf_y,
        prf_size (degrees)
    """
    warps = [_Warp(rng, 2.0), _Warp(rng, 2.0)]
    patches = [_patches(rng, False), _patches(rng, True)]
    boxes = []
    for part in patches:
        rectangles = [box for _, box in part]
        boxes.append(np.array([*rectangles, _SILENT]))  # (n_boxes, 4)
    state = int(rng.integers(1 << 32))

    def sheets(spacing: float) -> list[np.ndarray]:
        jitter = np.random.default_rng(state)  # the same jitter at every spacing tried
        return [_sample(box, warp, spacing, jitter) for box, warp in zip(boxes, warps, strict=True)]

    # From too wide a grid (some 5,200 square millimetres a hemisphere) to the first with enough points; the rest is dropped.
    spacing = np.sqrt(2 * 5200.0 / n_voxels) * 1.25
    while sum(map(len, sheets(spacing))) < n_voxels:
        spacing *= 0.985
    flat = sheets(spacing)
    hemispheres = []
    for right in (0, 1):
        hemispheres.append(_hemisphere(warps[right], patches[right], flat[right], bool(right), rng))
    table = pd.concat(hemispheres, ignore_index=True)
    kept = np.sort(rng.permutation(len(table))[:n_voxels])

    return table.iloc[kept].reset_index(drop=True)
