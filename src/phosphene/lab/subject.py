"""A simulated subject: what every voxel answers to a picture, how a scanner measures it, and how well it can be known.

One trial of voxel v in session s, showing picture i for the r-th time, is::

    beta = gain[s, v] * (fade[r] * signal[i, v] + noise[t, v]) + offset[s, v]

``signal`` is what the voxel answers to the picture, in percent signal change (:meth:`Subject.signal`). ``fade`` is
adaptation: the second showing evokes less than the first. ``noise`` is correlated between voxels, from trial to trial and
slowly within a run; its covariance is known (:class:`NoiseModel`). Part of it is an echo: activity that looks like the answer to
another picture and that no pooling over voxels removes. Gain and offset differ by session.

Gain and offset are constant within a session, so standardising the betas of each session removes them exactly. Then the
share of variance that pictures explain in the mean of their first m showings, each in another run, is known::

    ceiling = fade_mean^2 * signal_variance / (fade_mean^2 * signal_variance + noise_variance / m)

which is ncsnr^2 / (ncsnr^2 + 1 / m) with ncsnr = fade_mean * signal_sd / noise_sd (Allen et al. 2022). The variance of the
signal is over the pictures of the lab at large, unless others are named. Betas that are not standardised by session explain
less: :meth:`Subject.ceiling` gives that too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError, DataError
from phosphene.lab import pathway, scenes
from phosphene.lab.bayes import BayesLinear, fit_bayes_linear
from phosphene.lab.cortex import AREAS, EARLY, FIELD_DEG, grow
from phosphene.lab.exact import exact_product, rounded
from phosphene.lab.response_noise import NoiseModel, smooth_map
from phosphene.lab.scenes import Scene
from phosphene.lab.tuning import object_drive, object_tuning
from phosphene.lab.whole import MOST_VOXELS, whole

__all__ = ["FADE", "BayesLinear", "NoiseModel", "Subject", "fade", "population"]

FADE = (1.0, 0.94, 0.91, 0.89)  # response to the first, second ... showing of a picture, as a share of the first
GAIN_SD = 0.10  # of the logarithm of a session's gain
OFFSET_SD = 0.5  # of a session's offset, in noise standard deviations
ECHO = 0.8  # standard deviation of the echo of other pictures in the noise, as a share of the signal's
_LARGEST_NCSNR = 1.08  # leaves room for noise that is no echo

_POPULATION_SEED = 271828  # the lab at large: a world of scenes that no data set shows
_POPULATION = 1000
_BLOCK = 400
_TILE = 4  # rows and columns of the maps' grid
_UNSEEN = 0.02  # a receptive field with less of its mass inside the picture sees nothing

_SNR = {"nsd": 1.0, "3t": 0.5}
_TR_S = {"nsd": 4 / 3, "3t": 2.0}
TYPICAL_VOXELS = 4000


_Tiles = tuple[int, list[tuple[slice, slice, np.ndarray, np.ndarray]]]


@cache
def population() -> tuple[np.ndarray, tuple[Scene, ...]]:
    """Pictures (1000, 32, 32, 3) and descriptions of the lab at large: what signals are scaled on, shown to nobody."""
    numbers = np.arange(_POPULATION)
    pictures = scenes.render_many(_POPULATION_SEED, numbers)
    pictures.flags.writeable = False
    return pictures, tuple(scenes.describe_many(_POPULATION_SEED, numbers))


@cache
def _population_maps() -> tuple[np.ndarray, ...]:
    """What the visual areas look at in the population's pictures; see :func:`pathway.maps`."""
    return pathway.maps(population()[0])


@cache
def _scales() -> tuple[np.ndarray, ...]:
    """Root mean square of each map over the population, so that a tuning weight means the same for every map."""
    scales = []
    for part in _population_maps():
        scales.append(np.sqrt((part**2).mean(axis=(0, 2, 3)))[:, None, None])  # (n_maps, 1, 1)

    return tuple(scales)


class Subject:
    """A simulated person.

    Parameters
    ----------
    seed : int
        who, at least 0; anatomy, tuning and noise follow from it
    n_voxels : int, optional
        voxels of visual cortex, 50 to 50,000; by default about 4,000, differing by subject. With fewer than 200 the
        smallest areas may have none
    snr : str, default "nsd"
        ``nsd`` (7 T, many sessions: median single-trial ncsnr of the responsive voxels near 0.4) or ``3t`` (half of
        that)

    Attributes
    ----------
    voxels : DataFrame
        one row per voxel: ``hemisphere``, ``x``, ``y``, ``z`` (mm), ``u``, ``v`` (mm, flat map), ``fold``; one boolean column
        ``roi.NAME`` per area; ``prf_x``, ``prf_y``, ``prf_size`` (degrees); ``preferred`` (kind of thing, or empty);
        ``signal_sd``, ``noise_sd`` (percent signal change); ``ncsnr``, ``noise_ceiling`` (0-1, one trial) and
        ``noise_ceiling_3`` (mean of three)
    noise : NoiseModel
        of one trial
    tr_s : float
        seconds between volumes of the study imitated

    Examples
    --------
    >>> subject = Subject(1, n_voxels=200)
    >>> pictures = scenes.render_many(0, range(4))
    >>> subject.signal(pictures, scenes.describe_many(0, range(4))).shape
    (4, 200)
    """

    def __init__(self, seed: int, n_voxels: int | None = None, snr: str = "nsd"):
        if snr not in _SNR:
            raise ConfigError(f"snr is one of {', '.join(_SNR)}; got {snr!r}.")

        if n_voxels is not None:
            n_voxels = whole(
                "n_voxels", n_voxels, 50, MOST_VOXELS, "With 200 every area has some; None is about 4,000."
            )

        seed = whole("seed", seed, 0)
        rng = np.random.default_rng([seed, 0x50484F53])
        if n_voxels is None:
            n_voxels = int(TYPICAL_VOXELS * rng.uniform(0.85, 1.15))

        self.seed = seed
        self.snr = snr
        self.tr_s = _TR_S[snr]
        anatomy, tuning, quality = rng.spawn(3)
        table = grow(anatomy, n_voxels)
        self._area = table.pop("area").to_numpy(dtype=str)

        for name in AREAS:
            table[f"roi.{name}"] = self._area == name

        self._build_tuning(table, tuning)
        self._scale(table, quality)
        self.voxels = table

    def __repr__(self) -> str:
        return f"Subject(seed={self.seed}, n_voxels={len(self.voxels)}, snr={self.snr!r})"

    # What a voxel answers -------------------------------------------------------------------------------------------------

    def _build_tuning(self, table: pd.DataFrame, rng: np.random.Generator) -> None:
        """Receptive-field weights over the maps' grid, and what each voxel likes."""
        n = len(table)
        self._early = np.flatnonzero(np.isin(self._area, EARLY))
        self._v4 = np.flatnonzero(self._area == "hV4")
        self._high = np.flatnonzero(~np.isin(self._area, [*EARLY, "hV4", "none"]))

        # Receptive fields: Gaussians on the grid, of which a part may lie beyond the picture.
        centres = ((np.arange(pathway.GRID) + 0.5) / pathway.GRID - 0.5) * FIELD_DEG
        x = table["prf_x"].to_numpy()[:, None]
        y = table["prf_y"].to_numpy()[:, None]
        size = table["prf_size"].to_numpy()[:, None]
        across = np.exp(-0.5 * ((centres[None, :] - x) / size) ** 2)
        down = np.exp(-0.5 * ((-centres[None, :] - y) / size) ** 2)  # row 0 is the top: y falls with the row
        mass = 2 * np.pi * size[:, 0] ** 2 / (FIELD_DEG / pathway.GRID) ** 2
        self._field = (down[:, :, None] * across[:, None, :]).reshape(n, -1)  # (n_voxels, grid * grid)
        self._coverage = np.clip(self._field.sum(axis=1) / mass, 0.0, 1.0)
        self._field = (self._field / np.maximum(self._field.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)

        # Orientation and frequency: preferred ones, and some response to all others.
        turn = np.pi * np.arange(pathway.ORIENTATIONS) / pathway.ORIENTATIONS
        likes = rng.uniform(0.0, np.pi, (n, 1))
        oriented = np.exp(1.5 * (np.cos(2 * (turn - likes)) - 1.0))
        octave = np.log2(np.array(pathway.CYCLES))
        coarse = np.clip(2.6 - 0.8 * np.log2(np.maximum(size / 0.5, 0.5)), 1.0, 3.0) + rng.normal(0.0, 0.4, (n, 1))
        tuned = np.exp(-0.5 * ((octave - coarse) / 0.8) ** 2)
        energy = (tuned[:, :, None] * oriented[:, None, :]).reshape(n, -1)  # (n_voxels, frequencies * orientations)
        self._energy = (energy / energy.sum(axis=1, keepdims=True)).astype(np.float32)

        # Surface brightness and colour beside contrast energy, in early areas.
        surface = rng.normal(0.0, 1.0, (n, pathway.N_SURFACE)) * np.array([0.9, 0.9, 0.5, 0.5])
        surface[:, :2] += np.where(rng.uniform(size=(n, 1)) < 0.5, [0.7, -0.4], [-0.4, 0.7])
        self._surface = (0.15 * surface).astype(np.float32)

        # hV4: a preferred hue, brightness, and convex or concave contours.
        turns = 2 * np.pi * np.arange(pathway.HUES) / pathway.HUES
        hue = np.exp(2.0 * (np.cos(turns - rng.uniform(0.0, 2 * np.pi, (n, 1))) - 1.0))
        shape = np.concatenate([1.4 * hue, rng.gamma(1.0, 0.25, (n, 2)), rng.gamma(1.0, 0.45, (n, 2))], axis=1)
        self._shape = shape.astype(np.float32)
        self._objects, table["preferred"] = object_tuning(self._area, rng)

    def _pool(self, maps: Sequence[np.ndarray], described: Sequence[Scene] | None) -> np.ndarray:
        """Responses before scaling, (n, n_voxels) float32, to what :func:`pathway.maps` makes of pictures."""
        energy_scale, surface_scale, shape_scale = _scales()
        energy = maps[0] / energy_scale
        surface = maps[1] / surface_scale
        shape = maps[2] / shape_scale
        n = len(energy)
        raw = np.zeros((n, len(self._field)), dtype=np.float32)

        # V1 to V3: contrast energy, and brightness and colour of surfaces.
        contrast = np.sqrt(np.maximum(self._weighted(energy, "energy"), 0.0))  # responses saturate
        raw[:, self._early] = contrast + self._weighted(surface, "surface")

        # hV4: hues, brightness and curvature.
        raw[:, self._v4] = np.sqrt(np.maximum(self._weighted(shape, "shape"), 0.0))

        # Higher areas: what is recognised, and a little of all contrast in the receptive field.
        coarse = energy.mean(axis=1).reshape(n, -1)  # (n, grid * grid)
        rough = exact_product(coarse, self._field[self._high].T).astype(np.float32)  # (n, high-level voxels)
        drive = object_drive(self._objects, self._high, described, n, self._field_at)
        raw[:, self._high] = 0.15 * rough + drive

        return raw

    def _weighted(self, part: np.ndarray, kind: str) -> np.ndarray:
        """Maps (n, maps, grid, grid) summed by each voxel's weights: (n, voxels) float32."""
        n_voxels, tiles = self._weights(kind)
        maps = rounded(part.reshape(len(part), part[0].size), axis=1).reshape(part.shape)

        total = np.zeros((n_voxels, len(part)))  # voxels first: whole rows are added quickly
        for rows, columns, voxels, weights in tiles:
            tile = maps[:, :, rows, columns].reshape(len(part), weights.shape[1])
            total[voxels] += weights @ tile.T  # (voxels of the tile, n)
        return total.T.astype(np.float32)

    def _weights(self, kind: str) -> _Tiles:
        """Tuning times receptive field, rounded for exact products, by tiles of the grid.

        Most receptive fields are small, so half of the products of a tile and a voxel are 0 and left out. Sums are exact, and
        leaving out zeros or adding tile by tile changes no bit.
        """
        if kind not in self._weight_cache:
            if kind == "shape":
                voxels = self._v4
            else:
                voxels = self._early

            tuning = {"energy": self._energy, "surface": self._surface, "shape": self._shape}[kind][voxels]
            field = self._field[voxels]
            both = tuning[:, :, None] * field[:, None, :]

            # Few voxels may leave an area none, and then -1 could be any size.
            flat = both.reshape(len(voxels), both.shape[1] * both.shape[2])
            for start in range(0, len(flat), _BLOCK):
                block = slice(start, start + _BLOCK)
                flat[block] = rounded(flat[block], axis=1)
            on_grid = flat.reshape(*tuning.shape, pathway.GRID, pathway.GRID)
            self._weight_cache[kind] = len(voxels), _tiles(on_grid)

        return self._weight_cache[kind]

    @cached_property
    def _weight_cache(self) -> dict[str, _Tiles]:
        return {}

    def _field_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How strongly the high-level voxels see points of the picture (x, y in 0-1): (points, voxels) float32."""
        table = self._prf[self._high]
        dx = (x[:, None] - 0.5) * FIELD_DEG - table[:, 0]
        dy = (0.5 - y[:, None]) * FIELD_DEG - table[:, 1]
        return np.exp(-0.5 * (dx**2 + dy**2) / table[:, 2] ** 2, dtype=np.float32)

    def _scale(self, table: pd.DataFrame, rng: np.random.Generator) -> None:
        """Fix each voxel's response size and noise, and with them its ceiling."""
        n = len(table)
        self._prf = table[["prf_x", "prf_y", "prf_size"]].to_numpy(dtype=np.float32)

        # Responses to the lab at large, before they have a size.
        _, scenes_at_large = population()
        responses = []
        for start in range(0, _POPULATION, _BLOCK):
            block = slice(start, start + _BLOCK)
            maps_of_block = [part[block] for part in _population_maps()]
            responses.append(self._pool(maps_of_block, scenes_at_large[block]))
        raw = np.concatenate(responses)  # (1000, n_voxels)
        mean = raw.mean(axis=0, dtype=np.float64)
        sd = raw.std(axis=0, dtype=np.float64)

        # A voxel of no area, that sees nothing of the picture, or that nothing moves, is silent.
        typical = {name: area.ncsnr for name, area in AREAS.items()}
        median = np.array([typical.get(name, 0.0) for name in self._area])
        silent = (median == 0) | (self._coverage < _UNSEEN) | (sd < 1e-6)

        xyz = table[["x", "y", "z"]].to_numpy()
        local = smooth_map(xyz, rng)  # veins and coil distance: quality varies smoothly, too
        ncsnr = _SNR[self.snr] * median * np.sqrt(self._coverage) * np.exp(rng.normal(0.0, 0.42, n) + 0.25 * local)
        ncsnr = ncsnr / (1.0 + (ncsnr / _LARGEST_NCSNR) ** 4) ** 0.25
        ncsnr[silent] = 0.0

        noise_sd = rng.lognormal(np.log(1.1), 0.3, n)
        signal_sd = ncsnr * noise_sd
        self.noise = NoiseModel.draw(xyz, noise_sd, raw[:400] * ~silent, (ECHO * ncsnr) ** 2, rng)

        # What brings a raw response to its size, around a baseline of its own.
        self._gain = np.where(silent, 0.0, signal_sd / np.maximum(sd, 1e-12)).astype(np.float32)
        self._base = np.where(silent, 0.0, signal_sd * rng.normal(1.2, 0.4, n) - self._gain * mean).astype(np.float32)
        self._mean = np.where(silent, 0.0, self._base + self._gain * mean)

        table["signal_sd"] = signal_sd
        table["noise_sd"] = noise_sd
        table["ncsnr"] = ncsnr
        table.loc[silent, "preferred"] = ""
        table["noise_ceiling"] = _ceiling(ncsnr**2, 1)
        table["noise_ceiling_3"] = _ceiling(ncsnr**2, 3)

    def signal(self, images: np.ndarray, described: Sequence[Scene] | None = None) -> np.ndarray:
        """Noiseless responses.

        Parameters
        ----------
        images : ndarray of shape (n, size, size, 3), uint8
            RGB
        described : sequence of Scene, optional
            what the pictures show, n scenes; None for textures, bars and the like, in which nothing is recognised. The
            high-level areas answer to what is described, the early ones and hV4 to the pixels

        Returns
        -------
        ndarray of shape (n, n_voxels), float32
            percent signal change

        Raises
        ------
        DataError
            with pictures that are not uint8 RGB squares, or another number of descriptions than pictures
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
            raise DataError(
                f"images are (n, size, size, 3) uint8, RGB 0-255; got {images.dtype} of shape {images.shape}."
            )

        if described is not None and len(described) != len(images):
            raise DataError(
                f"{len(images)} images came with {len(described)} descriptions; give one per image, in the same order."
            )

        out = np.empty((len(images), len(self.voxels)), dtype=np.float32)
        for start in range(0, len(images), _BLOCK):
            block = slice(start, start + _BLOCK)
            block_scenes = None
            if described is not None:
                block_scenes = described[block]
            raw = self._pool(pathway.maps(images[block]), block_scenes)  # (n_block, n_voxels)
            out[block] = self._base + self._gain * raw

        return out

    # What the scanner measures --------------------------------------------------------------------------------------------

    def measure(
        self,
        signal: np.ndarray,
        session: np.ndarray,
        run: np.ndarray,
        repeat: np.ndarray,
        rng: np.random.Generator,
        *,
        rows: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Single-trial betas, in the order the trials were run.

        Parameters
        ----------
        signal : ndarray of shape (n_stimuli, n_voxels)
            percent signal change, of :meth:`signal`
        session, run, repeat : ndarray of shape (n_trials,)
            integers; runs are numbered within their session; repeat 0 is a picture's first showing. Trials of one run
            stand together
        rng : numpy.random.Generator
            draws the noise
        rows : ndarray of shape (n_trials,), optional
            row of `signal` each trial shows; by default trial t shows row t
        out : ndarray of shape (n_trials, n_voxels), float32, optional
            array or memory map to write into

        Returns
        -------
        ndarray of shape (n_trials, n_voxels), float32
            percent signal change

        Raises
        ------
        DataError
            when the columns differ in length or a run's trials do not stand together
        """
        session = np.asarray(session)
        run = np.asarray(run)
        repeat = np.asarray(repeat)
        if rows is None:
            rows = np.arange(len(signal))
        else:
            rows = np.asarray(rows)

        n = len(rows)
        n_voxels = len(self.voxels)
        if not len(session) == len(run) == len(repeat) == n or signal.shape[1] != n_voxels:
            raise DataError(
                f"{n} trials of {n_voxels} voxels were expected; got {len(session)} sessions, {len(run)} runs, {len(repeat)} "
                f"repeats and signals of {signal.shape[1]} voxels."
            )

        if out is None:
            out = np.empty((n, n_voxels), dtype=np.float32)

        if n == 0:
            return out

        changes = np.flatnonzero((np.diff(session) != 0) | (np.diff(run) != 0)) + 1
        starts = np.r_[0, changes]
        ends = np.r_[changes, n]
        runs = list(zip(session[starts].tolist(), run[starts].tolist(), strict=True))

        if len(set(runs)) != len(runs):
            raise DataError(
                f"The trials of a run must stand together, but {len(runs)} groups of trials belong to {len(set(runs))} runs; "
                "sort the trials by session and run."
            )

        sessions: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for start, end in zip(starts, ends, strict=True):
            number = int(session[start])
            if number not in sessions:
                sessions[number] = self._draw_session(rng)
            gain, offset = sessions[number]
            faded = signal[rows[start:end]] * fade(repeat[start:end])[:, None]
            out[start:end] = gain * (faded + self.noise.sample(end - start, rng)) + offset

        return out

    def _draw_session(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Gain and offset of one session, each (n_voxels,) float32. The gain's logarithm is half shared, half the voxel's own."""
        n = len(self.voxels)
        gain = np.exp(GAIN_SD * np.sqrt(0.5) * (rng.normal() + rng.normal(size=n)))
        offset = OFFSET_SD * self.noise.sd * smooth_map(self.noise.xyz, rng)
        return gain.astype(np.float32), offset.astype(np.float32)

    # What can be known ----------------------------------------------------------------------------------------------------

    def ceiling(self, repeats: int = 1, signal: np.ndarray | None = None, *, standardised: bool = True) -> np.ndarray:
        """Share of the variance that the pictures explain, exactly.

        Parameters
        ----------
        repeats : int, default 1
            how many first showings of each picture are averaged, each in another run
        signal : ndarray of shape (n_stimuli, n_voxels), optional
            noiseless responses to the pictures in question; by default the lab at large
        standardised : bool, default True
            betas are centred (and may be scaled) within each session. False: they are not, each showing falls into
            another session, and the sessions' gain and offset add to the noise; the expectation over sessions

        Returns
        -------
        ndarray of shape (n_voxels,), float64
            0-1; its square root is the largest correlation a perfect model can reach

        References
        ----------
        Allen et al. 2022, methods, "noise ceiling"; Lage-Castellanos et al. 2019.
        """
        repeats = whole("repeats", repeats, 1)
        if signal is None:
            variance = self.voxels["signal_sd"].to_numpy() ** 2
            mean = self._mean
        else:
            variance = signal.var(axis=0, dtype=np.float64)
            mean = signal.mean(axis=0, dtype=np.float64)

        fades = fade(np.arange(repeats)).astype(np.float64)
        noise = self.noise.sd.astype(np.float64) ** 2

        if standardised:
            explained = fades.mean() ** 2 * variance
            rest = noise / repeats
        else:
            # E[gain], E[gain^2]
            first = np.exp(GAIN_SD**2 / 2)
            second = np.exp(2 * GAIN_SD**2)
            explained = (first * fades.mean()) ** 2 * variance
            scatter = (second - first**2) * (fades**2).mean() * (variance + mean**2)
            rest = (scatter + second * noise + OFFSET_SD**2 * noise) / repeats

        return explained / np.maximum(explained + rest, 1e-30)

    def bayes_linear(self, signal: np.ndarray, targets: np.ndarray, repeats: int = 1) -> BayesLinear:
        """The best linear decoder, which knows the true signals and the true noise.

        Parameters
        ----------
        signal : ndarray of shape (n_stimuli, n_voxels)
            noiseless responses to the pictures it learns from; the more the better
        targets : ndarray of shape (n_stimuli, n_targets)
            what to decode: pixels, latents ...
        repeats : int, default 1
            how many first showings a decoded response averages

        Returns
        -------
        BayesLinear
            with its expected accuracy

        Notes
        -----
        Minimum mean square error among linear decoders of session-standardised betas, given that the pictures in question are
        distributed like those it learns from. With finitely many of these, its expected score on them is at least, and on other
        pictures at most, that of the best linear decoder there is.
        """
        repeats = whole("repeats", repeats, 1)
        fades = float(fade(np.arange(repeats)).mean())
        return fit_bayes_linear(signal, targets, self.noise, fades, repeats)


def fade(repeat: np.ndarray) -> np.ndarray:
    """Adaptation: response to showing number `repeat` (from 0) as a share of the first, float32; constant after the fourth."""
    repeat = np.asarray(repeat)
    if repeat.size and repeat.min() < 0:
        raise DataError(f"repeats count from 0; got {repeat.min()}.")
    return np.array(FADE, dtype=np.float32)[np.minimum(repeat, len(FADE) - 1)]


def _tiles(weights: np.ndarray) -> list[tuple[slice, slice, np.ndarray, np.ndarray]]:
    """Weights (n_voxels, maps, grid, grid) by tiles of the grid.

    Each has rows and columns of the grid, the voxels that see something there, and their weights (m, maps * tile) float64.
    """
    tiles = []
    for row in range(0, pathway.GRID, _TILE):
        for column in range(0, pathway.GRID, _TILE):
            rows = slice(row, row + _TILE)
            columns = slice(column, column + _TILE)
            part = weights[:, :, rows, columns]
            voxels = np.flatnonzero(part.any(axis=(1, 2, 3)))
            flat = part[voxels].reshape(len(voxels), part.shape[1] * _TILE**2)
            tiles.append((rows, columns, voxels, flat.astype(np.float64)))

    return tiles


def _ceiling(power: np.ndarray, repeats: int) -> np.ndarray:
    """Share of variance that a picture explains, given ncsnr^2 of one first showing, of the mean of so many showings."""
    power = power * float(fade(np.arange(repeats)).mean()) ** 2
    return power / (power + 1.0 / repeats)
