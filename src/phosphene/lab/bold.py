"""What a scanner records while a simulated subject looks at pictures: BOLD runs of which every part is known.

The signal of voxel v at volume t of run r is::

    volume = baseline[v] * (1 + (shift[r, v] + evoked + drift + physiology + motion + noise) / 100)

where all terms in the inner brackets are percent of the baseline; drift, physiology and motion average to 0 over the run.

===============  ==========================================================================================================
``evoked``       sum over the trials of the run: beta times the voxel's own haemodynamic response (:mod:`hrf_shapes`) since onset
``drift``        a line and slow cosines, weights of each voxel and run of their own, smooth over the cortex by half
``physiology``   heart beat and breathing, whose rates wander; sampled once a volume, so aliased. Four time courses
``motion``       six motion parameters (a random walk with jumps), each with its own map
``noise``        first-order autoregressive in each voxel, independent between voxels
``shift``        another baseline in every run
===============  ==========================================================================================================

The maps of physiology and motion stay the same through a study. The shape of the response is another one in every voxel, smooth
over the cortex, and of another family than the library from which :mod:`phosphene.betas` chooses.
Each run is drawn by a generator of its own, so any one can be made without the others.

Trial-to-trial noise comes from two places: the brain and the scanner. The betas that are convolved keep the share
``trial_noise`` of the deviations of ``simulation.betas`` from what a picture evokes on average; the rest is left to the
scanner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from phosphene.errors import ConfigError, did_you_mean
from phosphene.lab import hrf_shapes
from phosphene.lab.exact import exact_product
from phosphene.lab.lab import Simulation
from phosphene.lab.response_noise import smooth_map
from phosphene.lab.scanner_noise import (
    MOTION,
    MOTION_STEP,
    autoregressive,
    drift,
    pulse,
    random_walk,
    sized,
    slow_basis,
)
from phosphene.lab.subject import fade
from phosphene.lab.whole import whole
from phosphene.types import digest_of, positions


@dataclass(frozen=True)
class Scanner:
    """How a study is scanned. Sizes are standard deviations in percent of a voxel's baseline.

    Attributes
    ----------
    tr_s : float or None
        seconds between volumes; None for what the study imitated had, 4/3 (``nsd``) or 2 (``3t``)
    stimulus_s, gap_s : float
        how long a picture is shown, and the pause that follows; together a slot
    lead_slots, tail_slots : int
        slots without a picture before and after a run's pictures
    blank_share : float
        slots without a picture among a run's pictures, as a share of these; no two in a row
    extra_volumes : int
        each run is longer by 0 to so many volumes, so that runs differ in length
    trial_noise : float
        0-1, share of the deviations from the mean response that is in the brain: 1 takes ``simulation.betas`` as they
        are, 0 lets every showing evoke the same but for adaptation
    noise_sd : float
        noise of its own in a voxel of typical noise; others as their betas'
    ar1 : float
        correlation of that noise from one volume to the next, 0 or more, less than 1
    drift_sd : float
        every voxel's drift in every run, exactly
    drift_period_s : float
        drift is slower than this, 128 s as most high-pass filters assume
    physiology_sd, motion_sd : float
        root mean square over voxels and volumes of every run, exactly
    shift_sd : float
        of the baseline between runs
    baseline : float
        median signal, arbitrary units
    """

    tr_s: float | None = None
    stimulus_s: float = 3.0
    gap_s: float = 1.0
    lead_slots: int = 3
    tail_slots: int = 4
    blank_share: float = 0.08
    extra_volumes: int = 0
    trial_noise: float = 0.5
    noise_sd: float = 0.7
    ar1: float = 0.3
    drift_sd: float = 1.0
    drift_period_s: float = 128.0
    physiology_sd: float = 0.4
    motion_sd: float = 0.4
    shift_sd: float = 1.0
    baseline: float = 1000.0

    def __post_init__(self) -> None:
        above = {"stimulus_s": self.stimulus_s, "drift_period_s": self.drift_period_s, "baseline": self.baseline}
        if self.tr_s is not None:
            above["tr_s"] = self.tr_s

        for name, value in above.items():
            if not value > 0:
                raise ConfigError(f"{name} of a scanner must be more than 0; got {value}.")

        for name, value in asdict(self).items():
            if value is not None and not 0 <= value < np.inf:
                raise ConfigError(f"{name} of a scanner cannot be negative or infinite; got {value}.")

        for name in ("trial_noise", "blank_share"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} is a share between 0 and 1; got {getattr(self, name)}.")

        if self.ar1 >= 1:
            raise ConfigError(f"ar1 must be less than 1, or the noise grows without bound; got {self.ar1}.")

    @classmethod
    def noiseless(cls, **changes: float) -> Scanner:
        """A scanner that adds nothing to what the brain does.

        Parameters
        ----------
        **changes : float
            fields that differ

        Returns
        -------
        Scanner
        """
        quiet: dict[str, Any] = dict.fromkeys(("noise_sd", "drift_sd", "physiology_sd", "motion_sd", "shift_sd"), 0.0)
        return cls(**{**quiet, **changes})

    @property
    def slot_s(self) -> float:
        """Seconds from one onset to the next."""
        return self.stimulus_s + self.gap_s


@dataclass(frozen=True, eq=False)
class ScannerRun:
    """One run, and what it is the sum of.

    Attributes
    ----------
    number : int
        of the run in the whole study, from 1
    session, run : int
        as in the trial table
    tr_s : float
        seconds between volumes, the first of which is taken at time 0
    trials : DataFrame
        table of this run's trials; ``onset_s`` is when the picture truly came on
    volumes : ndarray of shape (n_volumes, n_voxels), float32
        arbitrary units
    evoked, noise : ndarray of shape (n_volumes, n_voxels), float32
        percent
    drift, physiology, motion : tuple of (ndarray, ndarray)
        pairs of time courses (n_volumes, k) and maps (k, n_voxels), float32; their product is percent
    shift : ndarray of shape (n_voxels,), float32
        percent
    motion_parameters : ndarray of shape (n_volumes, 6), float64
        :data:`MOTION`, millimetres and radians since the first volume
    rates_hz : tuple of (float, float)
        mean rate of heart and breath
    """

    number: int
    session: int
    run: int
    tr_s: float
    trials: pd.DataFrame
    volumes: np.ndarray
    evoked: np.ndarray
    noise: np.ndarray
    drift: tuple[np.ndarray, np.ndarray]
    physiology: tuple[np.ndarray, np.ndarray]
    motion: tuple[np.ndarray, np.ndarray]
    shift: np.ndarray
    motion_parameters: np.ndarray
    rates_hz: tuple[float, float]

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def duration_s(self) -> float:
        """Length of the run, seconds."""
        return len(self) * self.tr_s


class Bold:
    """The runs of a study, made one at a time: ``len(bold)``, ``bold[0]``, ``for run in bold``.

    Parameters
    ----------
    simulation : Simulation
        the study
    scanner : Scanner, optional
        how it is scanned
    seed : int, default 0
        of the responses' shapes, the timing and the scanner's noise

    Attributes
    ----------
    tr_s : float
        seconds between volumes
    trials : DataFrame
        the study's trial table with ``category``, ``number`` (of the run in the study, from 1) and ``onset_s``
    n_volumes : ndarray of shape (n_runs,)
        volumes of each run
    betas : ndarray of shape (n_trials, n_voxels), float32
        percent signal change at the peak of the response: what is to be recovered
    hrf : array of shape (n_voxels, 7), float64
        parameters of each voxel's response (:data:`hrf_shapes.PARAMETERS`)
    baseline : array of shape (n_voxels,), float32
        arbitrary units

    Examples
    --------
    >>> from phosphene.lab import make
    >>> bold = Bold(make(n_train=20, n_test=5, n_voxels=100, trials_per_run=20))
    >>> len(bold), bold[0].volumes.shape
    (2, (87, 100))
    """

    def __init__(self, simulation: Simulation, scanner: Scanner | None = None, seed: int = 0):
        self.simulation = simulation
        self.scanner = scanner or Scanner()
        self.seed = whole("seed", seed, 0)
        self.tr_s = float(self.scanner.tr_s or simulation.subject.tr_s)
        self._xyz = simulation.voxels[["x", "y", "z"]].to_numpy(dtype=np.float64)
        study, timing, shapes = self._generator(0).spawn(3)
        self._draw_study(study, shapes)
        self._draw_timing(timing)

    def __repr__(self) -> str:
        return f"Bold({self.simulation.name}, {len(self)} runs of {len(self.hrf)} voxels, tr_s={self.tr_s:.3f})"

    def __len__(self) -> int:
        return len(self.n_volumes)

    def __iter__(self) -> Iterator[ScannerRun]:
        return (self[i] for i in range(len(self)))

    def _generator(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.simulation.subject.seed, number, 0x424F4C44])

    def _draw_study(self, rng: np.random.Generator, shapes: np.random.Generator) -> None:
        """What stays the same from run to run."""
        # Delays are ranks of a smooth map: neighbours answer about as late, and every delay is equally often.
        lateness = smooth_map(self._xyz, rng)
        n = len(lateness)
        rank = np.empty(n, dtype=np.int64)
        rank[np.argsort(lateness, kind="stable")] = np.arange(n)
        self.hrf = self._draw_responses((rank + 0.5) / n, shapes)

        deviation = 0.25 * smooth_map(self._xyz, rng) + 0.08 * rng.normal(size=n)
        self.baseline = (self.scanner.baseline * np.exp(deviation)).astype(np.float32)

        noise_sd = self.simulation.voxels["noise_sd"].to_numpy(dtype=np.float64)
        self._noise_sd = self.scanner.noise_sd * noise_sd / np.median(noise_sd)

        # Vessels pulsate, so few voxels hold most of it; edges of the brain move, so neighbours may change in opposite ways.
        vessels = []
        for _ in range(4):  # cosine and sine of heart and breath
            vessels.append(np.exp(0.7 * rng.normal(size=n)) * smooth_map(self._xyz, rng))

        edges = []
        for _ in MOTION:
            edges.append(smooth_map(self._xyz, rng) + 0.5 * rng.normal(size=n))

        self._physiology_maps = np.array(vessels, dtype=np.float32)  # (4, n_voxels)
        self._motion_maps = np.array(edges, dtype=np.float32)  # (6, n_voxels)

    def _draw_responses(self, delay: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Parameters of every voxel's response, (n_voxels, 7), given how late it is, 0 to 1."""
        shares = [delay]
        for _ in hrf_shapes.SHARES[1:]:
            # Voxels side by side share vessels, but not all of them.
            level = smooth_map(self._xyz, rng) + 0.5 * rng.normal(size=len(delay))
            shares.append(ndtr(level / np.sqrt(1.25)))  # uniform, as the level is about normal with variance 1.25

        return hrf_shapes.parameters(np.stack(shares, axis=1))

    @cached_property
    def betas(self) -> np.ndarray:
        """(n_trials, n_voxels) float32, percent signal change."""
        simulation = self.simulation
        table = simulation.trials
        rows = positions(simulation.ids, table["stimulus"], "stimulus")
        mean = simulation.signal[rows] * fade(table["repeat"].to_numpy())[:, None]  # (n_trials, n_voxels)
        deviation = simulation.betas - mean

        return (mean + np.float32(self.scanner.trial_noise) * deviation).astype(np.float32)

    def _draw_timing(self, rng: np.random.Generator) -> None:
        """When each picture comes on, and how long each run is."""
        scanner = self.scanner
        table = self.simulation.trials.reset_index(drop=True)
        runs = list(zip(table["session"].tolist(), table["run"].tolist(), strict=True))
        changes = [row for row in range(1, len(runs)) if runs[row] != runs[row - 1]]
        edges = [0, *changes, len(runs)]
        onsets = []
        numbers = []
        n_volumes = []
        for number, (start, end) in enumerate(pairwise(edges), 1):
            n = end - start

            # Blanks follow some of the pictures, each at most one, and never the last.
            blanks = min(round(scanner.blank_share * n), n - 1)

            if blanks:
                after = np.sort(rng.choice(n - 1, blanks, replace=False))
            else:
                after = np.zeros(0, dtype=int)

            slots = scanner.lead_slots + np.arange(n) + np.searchsorted(after, np.arange(n))
            length_s = (slots[-1] + 1 + scanner.tail_slots) * scanner.slot_s
            extra = int(rng.integers(0, scanner.extra_volumes + 1))

            n_volumes.append(int(np.ceil(length_s / self.tr_s - 1e-6)) + extra)
            onsets.append(slots * scanner.slot_s)
            numbers.append(np.full(n, number))

        category = self.simulation.category[positions(self.simulation.ids, table["stimulus"], "stimulus")]
        self.trials = table.assign(category=category, number=np.concatenate(numbers), onset_s=np.concatenate(onsets))
        self.n_volumes = np.array(n_volumes)

    def digest(self) -> str:
        """SHA-256 of all volumes, betas and shapes."""
        return digest_of(self.betas, self.hrf, *(digest_of(run.volumes, run.trials) for run in self))

    def __getitem__(self, index: int) -> ScannerRun:
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} runs; got index {index}.")

        number = index % len(self) + 1
        scanner = self.scanner
        n = int(self.n_volumes[number - 1])
        rows = np.flatnonzero(self.trials["number"].to_numpy() == number)
        table = self.trials.iloc[rows].reset_index(drop=True)
        drift_rng, pulse_rng, motion_rng, noise_rng, shift_rng = self._generator(number).spawn(5)

        onsets = table["onset_s"].to_numpy()
        evoked = hrf_shapes.convolve(onsets, self.betas[rows], self.hrf, n, self.tr_s, scanner.stimulus_s)

        rates, waves = pulse(n, self.tr_s, pulse_rng)
        physiology = sized(waves, self._physiology_maps, scanner.physiology_sd)

        # In steps of the walk, so that a millimetre and a radian weigh alike.
        parameters = random_walk(n, motion_rng)
        motion = sized(parameters / MOTION_STEP, self._motion_maps, scanner.motion_sd)

        basis = slow_basis(n, self.tr_s, scanner.drift_period_s)
        weights = drift_rng.normal(size=(basis.shape[1], len(self.hrf)))
        weights += [smooth_map(self._xyz, drift_rng) for _ in weights]
        slow = drift(basis, weights, scanner.drift_sd)

        noise = autoregressive(n, scanner.ar1, self._noise_sd, noise_rng)
        shift = scanner.shift_sd * (smooth_map(self._xyz, shift_rng) + shift_rng.normal()) / np.sqrt(2)

        total = evoked + noise
        for time, space in (slow, physiology, motion):
            total += exact_product(time, space)  # (n_volumes, n_voxels)

        total += shift.astype(np.float32)
        volumes = self.baseline * (1 + total / 100)

        return ScannerRun(
            number=number,
            session=int(table["session"][0]),
            run=int(table["run"][0]),
            tr_s=self.tr_s,
            trials=table,
            volumes=volumes.astype(np.float32),
            evoked=evoked,
            noise=noise,
            drift=slow,
            physiology=physiology,
            motion=motion,
            shift=shift.astype(np.float32),
            motion_parameters=parameters,
            rates_hz=rates,
        )


def scan(simulation: Simulation, scanner: Scanner | None = None, *, seed: int = 0, **changes: float) -> Bold:
    """Scan a simulated study.

    Parameters
    ----------
    simulation : Simulation
        the study
    scanner : Scanner, optional
        how it is scanned; by default :class:`Scanner`
    seed : int, default 0
        of the responses' shapes, the timing and the scanner's noise
    **changes : float
        fields of the scanner to change

    Returns
    -------
    Bold
        its runs are made when asked for. The same arguments give the same runs

    Raises
    ------
    ConfigError
        for a field that does not exist or is out of range

    Examples
    --------
    >>> from phosphene.lab import make
    >>> study = make(n_train=20, n_test=5, n_voxels=100)
    >>> scan(study, tr_s=2.0)[0].tr_s
    2.0
    """
    scanner = scanner or Scanner()
    unknown = [name for name in changes if name not in asdict(scanner)]
    if unknown:
        raise ConfigError(f"A scanner has no field '{unknown[0]}'. {did_you_mean(unknown[0], asdict(scanner))}")
    return Bold(simulation, replace(scanner, **changes), seed)
