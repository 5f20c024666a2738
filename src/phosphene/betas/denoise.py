"""GLMdenoise: nuisance components from voxels that do not respond, and how many of them to use.

Components are the first principal components, run by run, of the noise pool: bright voxels in which the on-off model
explains little. Their number is chosen by how well betas of a stimulus in one fold of runs agree with those in another:

    badness_p = sum over trials i and trials j of the same stimulus in another fold of (z_p[j] - z_0[i])^2,

z the betas in units of the mean and standard deviation that betas without components (level 0) have in their session. Trials
to be predicted are always those of level 0.

Components are orthonormal and orthogonal to drift, so a further one changes betas by one outer product:

    w = (X'X)^-1 a,   g = (c'y - a'b) / (1 - a'w),   b <- b - w g,   (X'X)^-1 <- (X'X)^-1 + w w' / (1 - a'w),   a = X'c.

All levels together are then ``b_p = b_0 - W_p G_p``, and their badness is a quadratic form in the few rows of G: no level's
betas are ever formed.

References
----------
Kay et al. 2013 (GLMdenoise); Prince et al. 2022, methods. The pool is defined by the on-off model within the sample, as the
published program does, not by cross-validation, as the paper's summary says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import expit

from phosphene.betas.glm import Factor, RunDesign

_MIXTURE_VALUES = 100_000  # more voxels move the threshold by less than it is sure
_MIXTURE_STEPS = 2000  # expectation maximisation is slow where the two Gaussians overlap
_MIXTURE_STILL = 1e-7  # change of a parameter below which the fit has converged
_EXPLAINED = 1e-8  # share of a component that trials leave; below, they explain it wholly


def tail_threshold(values: np.ndarray) -> float:
    """Where the upper of two Gaussians fitted to the values takes over.

    The fit (expectation maximisation) starts from the lower and the upper values, cut at three quantiles; the likeliest of
    the three ends is used. Nothing is drawn.

    Parameters
    ----------
    values : ndarray of shape (n,), float
        what is not finite is ignored, and of more than 100,000 every k-th is used

    Returns
    -------
    float
        the largest value at which both are equally likely; infinity when there is nothing to tell apart
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    x = x[:: max(1, len(x) // _MIXTURE_VALUES)]  # every k-th, because a random choice would need a seed

    std = 0.0
    if len(x):
        std = x.std()

    if not std > 0:
        return float("inf")

    fits = [_mixture((x - x.mean()) / std, cut) for cut in (0.5, 0.75, 0.9)]
    weight, mean, variance, _ = max(fits, key=lambda fit: fit[-1])
    if mean[0] > mean[1]:  # expectation maximisation may end with the two exchanged
        weight = weight[::-1]
        mean = mean[::-1]
        variance = variance[::-1]

    # Two Gaussians of unequal variance are equally likely at two values, or at none; the upper one parts the tails.
    roots = np.roots(_log_odds(weight, mean, variance))
    roots = np.sort(roots[np.isreal(roots)].real) * std + x.mean()
    roots = roots[roots <= max(x.max(), mean[1] * std + x.mean())]
    if len(roots):
        return float(roots[-1])
    return float("inf")


def _log_odds(weight: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> tuple[float, float, float]:
    """Of belonging to the second Gaussian: coefficients of a parabola, highest power first."""
    log = np.log(weight) - 0.5 * np.log(variance) - 0.5 * mean**2 / variance
    return -0.5 * np.diff(1 / variance)[0], np.diff(mean / variance)[0], np.diff(log)[0]


def _mixture(x: np.ndarray, cut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Weights, means and variances of two Gaussians, and the mean log likelihood but for a constant; x has variance 1.

    Parameters
    ----------
    x : ndarray of shape (n,)
        standardised values
    cut : float
        quantile above which values belong to the second Gaussian at the start
    """
    share = (x > np.quantile(x, cut)).astype(np.float64)
    before = np.full(6, np.inf)
    for _ in range(_MIXTURE_STEPS):
        upper = np.clip(share.mean(), 1e-6, 1 - 1e-6)
        weight = np.array([1 - upper, upper])
        first = share @ x / len(x)
        second = share @ (x * x) / len(x)
        mean = np.array([x.mean() - first, first]) / weight
        square = np.array([(x * x).mean() - second, second]) / weight
        variance = np.maximum(square - mean**2, 1e-6)
        current = np.concatenate([weight, mean, variance])

        if np.abs(current - before).max() < _MIXTURE_STILL:
            break

        before = current
        a, b, c = _log_odds(weight, mean, variance)
        share = expit((a * x + b) * x + c)

    density = -0.5 * (x[:, None] - mean) ** 2 / variance - 0.5 * np.log(variance) + np.log(weight)
    return weight, mean, variance, float(np.logaddexp(*density.T).mean())


def noise_pool(on_off_r2: np.ndarray, mean: np.ndarray, threshold: float, bright: tuple[float, float]) -> np.ndarray:
    """Bright voxels that do not respond, (n_voxels,) bool.

    Dark voxels lie outside of the brain or in the skull; their noise is the scanner's, and not what disturbs the others.

    Parameters
    ----------
    on_off_r2 : ndarray of shape (n_voxels,)
        percent
    mean : ndarray of shape (n_voxels,)
        mean signal
    threshold : float
        percent below which a voxel does not respond
    bright : tuple of (float, float)
        (percentile, share): brighter than this share of that percentile of the mean signal
    """
    percentile, share = bright
    is_bright = mean > share * np.percentile(mean, percentile)
    return is_bright & (on_off_r2 < threshold)


def pool_gram(series: np.ndarray) -> np.ndarray:
    """Gram matrix of voxels' series, each of unit length, so that no vessel is the first component by itself.

    Parameters
    ----------
    series : ndarray of shape (n_volumes, n_voxels)
        without drift

    Returns
    -------
    ndarray of shape (n_volumes, n_volumes), float64
    """
    length = np.sqrt(np.einsum("tv,tv->v", series, series))
    unit = series[:, length > 0] / length[length > 0]
    return (unit @ unit.T).astype(np.float64)  # (n_volumes, n_volumes)


def components(gram: np.ndarray, count: int) -> np.ndarray:
    """The first principal components of a noise pool.

    Parameters
    ----------
    gram : ndarray of shape (n_volumes, n_volumes), float64
        from :func:`pool_gram`, summed over blocks of voxels
    count : int
        at most so many

    Returns
    -------
    ndarray of shape (n_volumes, at most `count`), float64
        orthonormal columns, by decreasing variance, the largest entry of each positive
    """
    values, vectors = np.linalg.eigh(gram)
    keep = np.flatnonzero(values > 1e-6 * max(values[-1], 1e-300))[::-1][:count]
    chosen = vectors[:, keep]  # (n_volumes, count)

    # Eigenvectors have no sign of their own, and libraries of linear algebra differ in the one they return.
    largest = chosen[np.abs(chosen).argmax(axis=0), np.arange(len(keep))]
    return chosen * np.sign(largest)


@dataclass(frozen=True, eq=False)
class Repeats:
    """Which trials show the same stimulus in different folds.

    Attributes
    ----------
    pairs : sparse.csr_array
        (n_trials, n_trials) sparse, 1 where row and column do
    counts : ndarray of shape (n_trials,)
        partners of each trial
    session : ndarray of shape (n_trials,), int
        0 ... n_sessions - 1
    """

    pairs: sparse.csr_array
    counts: np.ndarray
    session: np.ndarray

    @classmethod
    def of(cls, stimuli: Sequence[str] | np.ndarray, folds: np.ndarray, sessions: np.ndarray) -> Repeats:
        """From what was shown when.

        Parameters
        ----------
        stimuli : sequence of str
            stimulus of each trial
        folds : ndarray of shape (n_trials,), int
            fold of cross-validation of each trial
        sessions : ndarray of shape (n_trials,)
            session of each trial
        """
        n = len(stimuli)

        def same(keys: np.ndarray) -> sparse.csr_array:
            codes = np.unique(keys, return_inverse=True)[1]
            member = sparse.csr_array((np.ones(n, np.float32), (np.arange(n), codes)))
            return member @ member.T  # (n_trials, n_trials)

        stimulus = np.unique(np.asarray(stimuli, dtype=str), return_inverse=True)[1]
        n_folds = int(np.max(folds, initial=0)) + 1

        # Same stimulus, but not in the same fold: trials of one run share its noise, and would vote for keeping it.
        pairs = same(stimulus) - same(stimulus * n_folds + np.asarray(folds))
        pairs.eliminate_zeros()

        counts = np.asarray(pairs.sum(axis=1)).ravel()
        session = np.unique(sessions, return_inverse=True)[1]

        return cls(sparse.csr_array(pairs), counts, session)

    @property
    def any(self) -> bool:
        """Whether there is anything to cross-validate with."""
        return bool((self.counts > 0).any())


@dataclass(frozen=True, eq=False)
class DenoiseTarget:
    """What levels are scored against: badness = constant + sum over trials of ``(sqrt(n) (b - mean) / sd - aim)^2``.

    Attributes
    ----------
    mean, inverse_sd : ndarray of shape (n_sessions, n_voxels), float32
        of betas of level 0; inverse 0 for a voxel without spread
    aim : ndarray of shape (n_trials, n_voxels), float32
        ``sqrt(n)`` times the mean of the partners' standardised betas of level 0
    constant : ndarray of shape (n_voxels,), float64
        what no level can change
    root : ndarray of shape (n_trials,), float32
        ``sqrt(n)``, n the number of partners
    """

    mean: np.ndarray
    inverse_sd: np.ndarray
    aim: np.ndarray
    constant: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, betas: np.ndarray, repeats: Repeats) -> DenoiseTarget:
        """From betas of level 0.

        The double sum over pairs of trials is completed to a square of each trial: the sum over n partners of
        ``(z - z_j)^2`` is ``(sqrt(n) z - sum z_j / sqrt(n))^2`` and a rest in which z does not occur.

        Parameters
        ----------
        betas : ndarray of shape (n_trials, n_voxels), float32
            without components
        repeats : Repeats
            trials to be predicted from one another
        """
        n_sessions = int(repeats.session.max()) + 1
        mean = np.zeros((n_sessions, betas.shape[1]), dtype=np.float32)
        inverse_sd = np.zeros_like(mean)
        z = np.empty_like(betas)

        for session in range(n_sessions):
            trials = repeats.session == session
            mean[session] = betas[trials].mean(axis=0)
            z[trials] = betas[trials] - mean[session]

            variance = np.einsum("nv,nv->v", z[trials], z[trials]) / max(int(trials.sum()) - 1, 1)
            rounding = np.abs(mean[session]) * 1e-6  # a voxel that varies less does not vary
            inverse_sd[session] = np.divide(
                1, np.sqrt(variance), out=np.zeros_like(variance), where=variance > rounding**2
            )
            z[trials] *= inverse_sd[session]

        n = repeats.counts.astype(np.float32)
        root = np.sqrt(n)
        aim = repeats.pairs @ z  # (n_trials, n_voxels)
        aim *= np.divide(1, root, out=np.zeros_like(root), where=root > 0)[:, None]
        constant = (n @ (z * z)).astype(np.float64) - np.einsum("nv,nv->v", aim, aim)

        return cls(mean, inverse_sd, aim, constant, root)

    def badness(self, betas: np.ndarray, repeats: Repeats) -> np.ndarray:
        """Badness of betas of some level.

        Parameters
        ----------
        betas : ndarray of shape (n_trials, n_voxels)
            of that level
        repeats : Repeats
            as the target was made with

        Returns
        -------
        ndarray of shape (n_voxels,), float64
        """
        session = repeats.session
        error = self.root[:, None] * (betas - self.mean[session]) * self.inverse_sd[session] - self.aim
        return self.constant + np.einsum("nv,nv->v", error, error)


@dataclass(frozen=True, eq=False)
class _Downdates:
    """How each component changes betas of one run: ``b_p = b_0 - w[:, :p] g[:p]``."""

    w: np.ndarray  # (n_trials, P)
    g: np.ndarray  # (P, n_voxels)


def downdates(factor: Factor, x: np.ndarray, parts: np.ndarray, betas: np.ndarray, along: np.ndarray) -> _Downdates:
    """How each further component changes betas.

    Parameters
    ----------
    factor : Factor
        of the design
    x : ndarray of shape (n_volumes, n_trials)
        the design
    parts : ndarray of shape (n_volumes, P)
        components
    betas : ndarray of shape (n_trials, n_voxels)
        without components
    along : ndarray of shape (P, n_voxels)
        ``parts' y``
    """
    inverse = factor.inverse.copy()  # the cached one belongs to the design
    a = x.T @ parts  # (n_trials, P)
    w = np.zeros_like(a)
    remainder = np.ones(parts.shape[1])

    for p in range(parts.shape[1]):
        step = inverse @ a[:, p]
        remainder[p] = 1 - a[:, p] @ step
        if remainder[p] < _EXPLAINED:  # it can take nothing from the trials
            remainder[p] = np.inf
            continue

        w[:, p] = step
        inverse += np.outer(step, step) / remainder[p]

    # c'y - a'b of every component with betas of level 0; components taken before change b, and so the later ones.
    g = (along - a.T.astype(np.float32) @ betas).astype(np.float32)  # (P, n_voxels)
    shared = (a.T @ w).astype(np.float32)  # (P, P)

    for p in range(len(g)):
        g[p] = (g[p] + shared[p, :p] @ g[:p]) / np.float32(remainder[p])
    return _Downdates(w.astype(np.float32), g)


def component_badness(
    designs: Sequence[RunDesign],
    shape: int,
    series: Sequence[np.ndarray],
    parts: Sequence[np.ndarray],
    repeats: Repeats,
) -> np.ndarray:
    """Badness with 0, 1 ... P components, of voxels that share a response: (P + 1, n_voxels) float64.

    Parameters
    ----------
    designs : sequence of RunDesign
        of each run
    shape : int
        which response
    series : sequence of ndarray
        (n_volumes, n_voxels) of each run, without drift
    parts : sequence of ndarray
        (n_volumes, P) of each run, components
    repeats : Repeats
        trials to be predicted from one another
    """
    betas = []
    steps = []
    for design, y, part in zip(designs, series, parts, strict=True):
        factor = design.factor(shape)
        x = design.designs[shape]
        b = factor.inverse.astype(np.float32) @ (x.T.astype(np.float32) @ y)  # (n_trials, n_voxels)
        along = part.T.astype(np.float32) @ y  # (P, n_voxels)
        betas.append(b)
        steps.append(downdates(factor, x, part, b, along))

    flat = np.concatenate(betas)
    target = DenoiseTarget.of(flat, repeats)
    n_levels = 1 + min(part.shape[1] for part in parts)
    out = np.zeros((n_levels, flat.shape[1]))
    out += target.constant

    # Runs add up: a component of one run changes betas of that run alone.
    for design, step in zip(designs, steps, strict=True):
        rows = design.rows
        session = repeats.session[rows][0]
        root = target.root[rows]
        inverse = target.inverse_sd[session]
        error = root[:, None] * ((flat[rows] - target.mean[session]) * inverse) - target.aim[rows]
        w = root[:, None] * step.w
        square = w.T @ w  # (P, P)
        cross = w.T @ error  # (P, n_voxels)
        g = step.g * inverse
        out += np.einsum("nv,nv->v", error, error)
        change = np.zeros(flat.shape[1])
        for p in range(len(out) - 1):
            # |e - w_1 g_1 - ... - w_p g_p|^2, one term more each time
            change += g[p] * (square[p, p] * g[p] - 2 * (cross[p] - square[p, :p] @ g[:p]))
            out[p + 1] += change

    return out


def choose_count(curve: np.ndarray, stop: float = 1.05) -> int:
    """How many components: the first whose gain times `stop` reaches the largest gain.

    Parameters
    ----------
    curve : ndarray of shape (P + 1,)
        score with 0 ... P components, the larger the better
    stop : float, default 1.05
        1 takes the best; 1.05 spares components that add less than about 5 %

    Returns
    -------
    int
        0 to P

    Examples
    --------
    >>> choose_count(np.array([0.0, 5.0, 9.8, 10.0, 9.0]))
    2
    """
    gain = np.asarray(curve, dtype=np.float64) - curve[0]
    best = -np.inf
    chosen = 0
    for p, value in enumerate(gain):
        if value > best:
            best = value
            chosen = p
            if best * stop >= gain.max():
                break

    return chosen


def trend(badness: Iterable[np.ndarray], on_off_r2: np.ndarray, threshold: float) -> np.ndarray:
    """Minus the median badness over voxels that respond, or over the 100 that respond most if none does: (P + 1,).

    Parameters
    ----------
    badness : iterable of ndarray
        (P + 1, n_voxels) blocks that make up all voxels
    on_off_r2 : ndarray of shape (n_voxels,)
        percent
    threshold : float
        percent above which a voxel responds
    """
    table = np.concatenate(list(badness), axis=1)  # (P + 1, n_voxels)
    chosen = np.flatnonzero(on_off_r2 > threshold)
    if len(chosen) == 0:
        chosen = np.argsort(-on_off_r2, kind="stable")[:100]
    return -np.median(table[:, chosen], axis=1)
