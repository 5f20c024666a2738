"""From runs of BOLD to Trials, in GLMsingle's steps, each of which goes through all voxels once.

1. on-off model: mean signal of every voxel, and how much "something is shown" explains; with it the response of each voxel
2. noise pool: bright voxels that do not respond, their principal components in each run
3. number of components, by how well betas of one fold of runs agree with those of another
4. betas, shrunk by fractional ridge of a strength that is chosen in the same way

Kinds ``lsa`` and ``lss`` assume one response; ``b`` stops after the first step, ``c`` after the third.

Why in this order: the response of a voxel changes its on-off regressor, and so which voxels count as noise; noise components
change what ridge has left to shrink. Each step takes the choices of the steps before it as given, and none goes back. The
drift is projected out once, before the first step, so components and ridge never see it.

References
----------
Prince et al. 2022 (GLMsingle), methods and figure 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from phosphene.betas import denoise, fracridge, glm
from phosphene.betas.hrf import HrfLibrary
from phosphene.betas.noise_ceiling import ceiling, ncsnr
from phosphene.betas.options import BetaOptions
from phosphene.betas.runs import BoldRun, check_study
from phosphene.betas.signals import LARGEST, LEAST_MEAN, signal_levels, varies
from phosphene.betas.study import BoldStudy, VoxelGroup
from phosphene.betas.work import WorkFolder
from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.types import Trials

ReportProgress = Callable[[str, float], None]
"""Called with what is being done, and the share of it that is done."""


@dataclass(frozen=True, eq=False)
class BetaResult:
    """Betas, and what was chosen on the way.

    Attributes
    ----------
    trials : Trials
        betas (n_trials, n_voxels), percent signal change unless the options say otherwise. The voxel table has
        ``mean_signal``, ``on_off_r2`` and ``r2`` (percent), ``hrf`` (number in the library), ``fraction``,
        ``noise_pool``, and where stimuli repeat ``ncsnr`` and ``noise_ceiling`` (of one trial)
    kind : str
        of the betas, after falling back where the design has no repeats
    threshold : float or None
        on-off R2, percent, from which on a voxel responds; None where not needed
    curve : ndarray of shape (P + 1,)
        cross-validated score with 0 ... P noise components; empty where none were tried
    n_components : int
        how many were used
    components : tuple of ndarray
        (n_volumes, n_components) of each run
    badness : ndarray of shape (n_fractions, n_voxels) or None
        of ridge; None where not validated
    scale_offset : ndarray of shape (2, n_voxels) or None
        of autoscaling, in the units of the file
    """

    trials: Trials
    kind: str
    threshold: float | None = None
    curve: np.ndarray = field(default_factory=lambda: np.zeros(0))
    n_components: int = 0
    components: tuple[np.ndarray, ...] = ()
    badness: np.ndarray | None = None
    scale_offset: np.ndarray | None = None


def single_trial_betas(
    runs: Sequence[BoldRun],
    options: BetaOptions | None = None,
    *,
    library: HrfLibrary | None = None,
    voxels: pd.DataFrame | None = None,
    subject: str = "subject",
    out: np.ndarray | None = None,
    progress: ReportProgress = lambda *_: None,
    work: WorkFolder | None = None,
    workers: int = 1,
) -> BetaResult:
    """One beta per trial and voxel.

    Parameters
    ----------
    runs : sequence of BoldRun
        of one subject, in the order of time; lengths may differ
    options : BetaOptions, optional
        by default :class:`BetaOptions`, type D
    library : HrfLibrary, optional
        responses to choose from; by default the table the options name, or our own twenty
    voxels : DataFrame, optional
        table with a row per voxel, carried along
    subject : str, default "subject"
        name
    out : ndarray, optional
        (n_trials, n_voxels) float32 to be filled, such as a memory map; by default a new array
    progress : callable, optional
        called with (what, share done)
    work : WorkFolder, optional
        folder where finished blocks are kept, and from which they are read back; the betas are the same
    workers : int, default 1
        blocks of voxels done at once, as far as the memory allows; the betas are the same

    Returns
    -------
    BetaResult
        betas, and what was chosen on the way; the same input gives the same betas

    Raises
    ------
    DataError
        runs that do not fit together, events outside their run, data that are not finite, a run that never changes, and
        runs with and runs without their mean where percent are asked for
    ConfigError
        an assumed response that the library lacks, or `out` of another shape

    Warns
    -----
    PhospheneWarning
        a design without repeats (types C and D fall back to B), trials that cannot be told apart, runs that end too
        soon, voxels without signal, signals without a mean, runs in different scales

    Notes
    -----
    Responses, components and fractions are chosen from all runs given. Where some of these are to be held out to the letter,
    give the others alone.
    """
    options = options or BetaOptions()
    check_study(runs, shift_s=options.onset_shift_s)
    if library is None:
        library = HrfLibrary.chosen(options)

    assumed = options.assumed_hrf
    if assumed is None:
        assumed = library.canonical
    if assumed >= len(library):
        raise ConfigError(f"{library.name} has {len(library)} responses, numbered from 0; got assumed_hrf={assumed}.")

    table = _trial_table(runs, options.onset_shift_s)
    repeats = denoise.Repeats.of(table["stimulus"].to_numpy(), _folds(runs), table["session"].to_numpy())
    options = _possible(options, repeats)

    # Of signals without a mean no percentage can be taken.
    levels = signal_levels(runs, percent=options.percent)
    if not levels.has_mean:
        options = options.model_copy(update={"percent": False})

    study = BoldStudy(runs, library, assumed, options, work, workers, levels)
    _warn_of_collinearity(study)

    shape = (study.n_trials, study.n_voxels)
    if out is None:
        out = np.empty(shape, dtype=np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        raise ConfigError(f"out must be float32 of shape {shape}; got {out.dtype} {out.shape}.")

    # 1. on-off model and responses. The on-off model assumes one response for all voxels, so that voxels are compared by the
    # same regressor, whatever response each of them is given.
    mean, on_off, hrf, has_signal = _responses(study, progress)

    # 2. and 3. noise components
    has_components = options.kind in ("c", "d") and options.components != 0
    threshold = None
    pool = None
    parts = None
    curve = np.zeros(0)

    if has_components:
        # Where nothing is asked for, a mixture of two Gaussians says where responding voxels begin in these data.
        threshold = options.threshold
        if threshold is None:
            threshold = denoise.tail_threshold(on_off[has_signal])

        brightness = mean
        if not levels.has_mean:
            brightness = np.ones_like(mean)  # nothing tells what lies in the brain but the mask

        brightness = np.where(has_signal, brightness, 0)
        pool = denoise.noise_pool(on_off, brightness, threshold, (options.bright_percentile, options.bright_share))
        if not pool.any():
            warnings.warn(
                "every bright voxel responds, so there is no noise pool and no noise component. Include voxels outside of "
                f"visual cortex in the mask, or raise threshold (now {threshold:g} % of variance).",
                PhospheneWarning,
                stacklevel=2,
            )

        parts, curve = _components(study, hrf, on_off, pool, threshold, repeats, progress)

    # 4. betas
    fit = _Fit(study, hrf, mean, has_signal, parts, repeats)
    fitted = fit.all_blocks(out, progress)

    # What has one value per voxel goes into the voxel table; tables of fractions and scales stay beside it.
    maps = {"mean_signal": mean, "on_off_r2": on_off, "r2": fitted.pop("r2"), "hrf": hrf}
    badness = fitted.pop("badness", None)
    scale_offset = fitted.pop("scale_offset", None)
    maps |= fitted
    if pool is not None:
        maps["noise_pool"] = pool

    # Noise is what differs between trials of the same picture, so a ceiling needs pictures that were shown again.
    if table["stimulus"].duplicated().any():
        ratios = []
        for block in study.blocks():
            ratios.append(ncsnr(out[:, block], table))
        ratio = np.concatenate(ratios)  # (n_voxels,)
        maps |= {"ncsnr": ratio, "noise_ceiling": ceiling(ratio)}

    if voxels is None:
        voxels = pd.DataFrame(index=pd.RangeIndex(study.n_voxels))
    else:
        voxels = voxels.reset_index(drop=True)

    n_components = 0
    if parts is not None:
        n_components = max(part.shape[1] for part in parts)

    unit = "arbitrary, as in the file"
    if options.percent:
        unit = "percent signal change"

    # Infinity (every voxel is noise) has no place in JSON.
    finite_threshold = None
    if threshold is not None and np.isfinite(threshold):
        finite_threshold = threshold

    provenance = {
        "betas": f"phosphene, kind {options.kind}: settings chosen from all {len(runs)} runs",
        "unit": unit,
        "hrf_library": library.name,
        "hrf_peaks_s": [round(float(peak), 3) for peak in library.peaks_s],
        "assumed_hrf": assumed,
        "n_components": n_components,
        "component_curve": [round(float(score), 6) for score in curve],
        "on_off_threshold": finite_threshold,
        "options": _plain(options),
    }
    if levels.are_scaled:
        provenance["run_scales"] = [round(scale, 6) for scale in levels.scales]

    trials = Trials(out, table, voxels.assign(**maps), subject, provenance)
    return BetaResult(
        trials,
        options.kind,
        threshold,
        curve,
        n_components,
        tuple(parts or ()),
        badness=badness,
        scale_offset=scale_offset,
    )


def _folds(runs: Sequence[BoldRun]) -> np.ndarray:
    """Fold of cross-validation of each trial."""
    folds = []
    for number, run in enumerate(runs):
        fold = run.fold
        if fold is None:
            fold = number  # leave one run out
        folds.append(np.full(len(run.events), fold))

    return np.concatenate(folds)


def _plain(options: BetaOptions) -> dict:
    """Options as plain values, without what does not change results."""
    return options.model_dump(mode="json", exclude={"memory_gb"})


def _possible(options: BetaOptions, repeats: denoise.Repeats) -> BetaOptions:
    """Options that this design allows.

    Where no stimulus is shown in two folds there is nothing to cross-validate with. A number that the caller has fixed needs
    no cross-validation and stays: only what would have to be chosen is given up.
    """
    if repeats.any or options.kind not in ("c", "d"):
        return options

    changes: dict = {}
    if options.components is None and options.max_components > 0:
        changes["components"] = 0

    if options.kind == "d" and len(options.fractions) > 1:
        changes["kind"] = "c"
    if not changes:
        return options

    # Kind C without a component is kind B.
    if changes.get("kind", options.kind) == "c" and not changes.get("components", options.components):
        changes["kind"] = "b"

    options = options.model_copy(update=changes)
    warnings.warn(
        "no stimulus is shown in two runs, so the number of noise components and the strength of ridge cannot be "
        f"cross-validated: betas are of kind {options.kind}, with {options.components or 0} components. Fix components, and a "
        "single fraction, to have them.",
        PhospheneWarning,
        stacklevel=3,
    )

    return options


def _trial_table(runs: Sequence[BoldRun], shift_s: float) -> pd.DataFrame:
    """Events of all runs, one row per trial, with session, run and ``onset_s``."""
    tables = []
    for run in runs:
        events = run.events.rename(columns={"onset": "onset_s", "duration": "duration_s"})
        events = events.assign(session=run.session, run=run.run, onset_s=events["onset_s"] + shift_s)
        tables.append(events)

    table = pd.concat(tables, ignore_index=True)
    table["stimulus"] = table["stimulus"].astype(str)  # 12 and "12" are one picture
    if "trial" in table and table["trial"].duplicated().any():
        table = table.drop(columns="trial")  # numbered within runs
    return table


def _warn_of_collinearity(study: BoldStudy) -> None:
    """Warn of runs whose trials overlap so much that least squares has no single answer."""
    for run, design in zip(study.runs, study.designs, strict=True):
        factor = design.factor(study.assumed)
        if factor.is_deficient:
            warnings.warn(
                f"the {len(factor.gram)} trials of {run.name} ({len(run)} volumes) span only {len(factor.s2)} dimensions: some "
                "responses cannot be told apart, and share their betas evenly. Check the onsets and the time between volumes.",
                PhospheneWarning,
                stacklevel=3,
            )


# -- 1. on-off model and responses -------------------------------------------------------------------------------------


def _responses(study: BoldStudy, progress: ReportProgress) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean signal, on-off R2 (percent), number of the response of every voxel, and whether it has a signal, each (n_voxels,).

    The response of a voxel is the one of the library with which its single trials explain most (GLMsingle's step to type B).
    All trials are used for that: the number of parameters is the same for each response, so none is favoured.
    """
    mean = np.zeros(study.n_voxels)
    spread = np.zeros(study.n_voxels)
    on_off = np.zeros(study.n_voxels)
    hrf = np.full(study.n_voxels, study.assumed)
    constant_run = np.full(study.n_voxels, -1)
    is_too_large = np.zeros(study.n_voxels, dtype=bool)

    def fit_block(block: slice) -> dict[str, np.ndarray]:
        series, level, too_large = study.series(block)  # (n_volumes, n_block) of each run; (n_block,) twice
        shapes = hrf[block]
        if not study.assumes:
            shapes = glm.choose_hrf(study.designs, series)[0]

        study.keep(block, series, shapes)  # later steps go through the same voxels
        spread_of_block, constant = _spreads(series, level)
        return {
            "mean": level,
            "spread": spread_of_block,
            "constant_run": constant,
            "too_large": too_large,
            "on_off": glm.on_off_r2(study.designs, series, study.assumed),
            "hrf": shapes,
        }

    for block, fitted in study.each("look", fit_block):
        mean[block] = fitted["mean"]
        spread[block] = fitted["spread"]
        constant_run[block] = fitted["constant_run"]
        is_too_large[block] = fitted["too_large"]
        on_off[block] = fitted["on_off"]
        hrf[block] = fitted["hrf"]
        progress("responses", block.stop / study.n_voxels)

    # A voxel that lacks a run would be a voxel of other units in that run, so it is given up in all.
    is_constant = (constant_run >= 0) & ~is_too_large
    has_signal = ~is_constant & ~is_too_large
    if study.options.percent:
        has_signal &= mean > LEAST_MEAN * spread

    _warn_of_voxels(study, is_constant, constant_run, is_too_large, has_signal)
    on_off[~has_signal] = 0

    return mean, on_off, hrf, has_signal


def _spreads(series: Sequence[np.ndarray], mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation over all runs, and the first run in which a voxel does not vary (-1: none), each (n_voxels,).

    Parameters
    ----------
    series : sequence of ndarray
        (n_volumes, n_voxels) of each run, without drift
    mean : ndarray of shape (n_voxels,)
        over all volumes
    """
    total = np.zeros(len(mean))
    constant_run = np.full(len(mean), -1)
    for number, one in enumerate(series):
        power = np.einsum("tv,tv->v", one, one, dtype=np.float64)
        total += power
        is_constant = ~varies(np.sqrt(power / len(one)), mean)
        constant_run[is_constant & (constant_run < 0)] = number

    return np.sqrt(total / sum(len(one) for one in series)), constant_run


def _warn_of_voxels(
    study: BoldStudy,
    is_constant: np.ndarray,
    constant_run: np.ndarray,
    is_too_large: np.ndarray,
    has_signal: np.ndarray,
) -> None:
    """Count voxels (n_voxels,) that get no betas, by reason; refused where none is left."""
    if not has_signal.any():
        raise DataError(
            f"none of the {study.n_voxels} voxels has a signal in every run, so there is nothing to fit. Look at the images "
            "and the mask."
        )

    texts = []
    if is_constant.any():
        name = study.runs[int(constant_run[is_constant].min())].name
        texts.append(
            f"{int(is_constant.sum())} of {study.n_voxels} voxels are the same in all volumes of a run (such as {name}), as "
            "outside of the field of view"
        )

    if is_too_large.any():
        texts.append(
            f"{int(is_too_large.sum())} of {study.n_voxels} voxels hold values beyond {LARGEST:g}, which no scanner gives"
        )

    n_without_mean = int((~has_signal & ~is_constant & ~is_too_large).sum())
    if n_without_mean:
        texts.append(
            f"{n_without_mean} of {study.n_voxels} voxels have no mean that stands out from their noise, so that no percentage "
            "of it can be taken"
        )

    for text in texts:
        warnings.warn(
            f"{text}; their betas are 0. Use a tighter mask to leave them out.", PhospheneWarning, stacklevel=4
        )


# -- 2. and 3. noise components ----------------------------------------------------------------------------------------


def _components(
    study: BoldStudy,
    hrf: np.ndarray,
    on_off: np.ndarray,
    pool: np.ndarray,
    threshold: float,
    repeats: denoise.Repeats,
    progress: ReportProgress,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Noise components of each run, as many as are to be used, and the curve by which they were counted.

    One number for all voxels and runs, as in GLMdenoise: a number per voxel would be fitted to the noise of that voxel.
    """
    options = study.options
    most = options.components
    if most is None:
        most = options.max_components

    parts = []
    for gram in _pool_grams(study, hrf, pool, progress):
        parts.append(denoise.components(gram, most))  # (n_volumes, at most `most`)

    # A short run, or a small pool, has fewer; the curve ends where the first run has no more.
    most = min(part.shape[1] for part in parts)
    parts = [part[:, :most] for part in parts]  # (n_volumes, most)
    if options.components is not None:
        return parts, np.zeros(0)  # a fixed number needs no curve

    # How well betas with 0, 1 ... components agree across folds.
    badness = np.zeros((most + 1, study.n_voxels))

    def score_block(block: slice) -> dict[str, np.ndarray]:
        scores = np.zeros((most + 1, block.stop - block.start))
        for group in study.groups(block, hrf):
            columns = group.voxels - block.start
            scores[:, columns] = denoise.component_badness(study.designs, group.shape, group.series, parts, repeats)
        return {"badness": scores}

    for block, scored in study.each("components", score_block):
        badness[:, block] = scored["badness"]
        progress("noise components", block.stop / study.n_voxels)
    curve = denoise.trend([badness], on_off, threshold)
    count = denoise.choose_count(curve, options.stop)

    return [part[:, :count] for part in parts], curve


def _pool_grams(study: BoldStudy, hrf: np.ndarray, pool: np.ndarray, progress: ReportProgress) -> list[np.ndarray]:
    """Gram matrix (n_volumes, n_volumes) of the noise pool's series in each run.

    Its eigenvectors are the principal components over time, and it is a sum over voxels: the pool is never held whole.
    """
    grams = [np.zeros((len(run), len(run))) for run in study.runs]

    def add_block(block: slice) -> dict[str, np.ndarray]:
        block_grams = [np.zeros_like(gram) for gram in grams]
        for group in study.groups(block, hrf):
            quiet = pool[group.voxels]
            for gram, y in zip(block_grams, group.series, strict=True):
                gram += denoise.pool_gram(y[:, quiet])

        named = {}
        for number, gram in enumerate(block_grams):
            named[f"run{number}"] = gram

        return named

    # Added up in the order of blocks, whoever finished first: floating-point sums depend on their order.
    for block, added in study.each("pool", add_block):
        for number, gram in enumerate(grams):
            gram += added[f"run{number}"]

        progress("noise pool", block.stop / study.n_voxels)

    return grams


# -- 4. betas ----------------------------------------------------------------------------------------------------------


class _Fit:
    """Betas of a study for given responses and components.

    Parameters
    ----------
    study : BoldStudy
        runs and designs
    hrf : ndarray of shape (n_voxels,)
        response of each voxel
    mean : ndarray of shape (n_voxels,)
        mean signal
    has_signal : ndarray of shape (n_voxels,), bool
        whether a voxel gets betas; else they are 0
    parts : list of ndarray or None
        noise components (n_volumes, n_components) of each run
    repeats : Repeats
        for the strength of ridge
    """

    def __init__(
        self,
        study: BoldStudy,
        hrf: np.ndarray,
        mean: np.ndarray,
        has_signal: np.ndarray,
        parts: list[np.ndarray] | None,
        repeats: denoise.Repeats,
    ) -> None:
        self.study = study
        self.hrf = hrf
        self.mean = mean
        self.has_signal = has_signal
        self.parts = parts
        self.repeats = repeats
        self.fractions = np.sort(np.array(study.options.fractions))[
            ::-1
        ]  # of equally good ones, the least shrinkage wins
        self.is_ridge = study.options.kind == "d"
        self._factors: dict[tuple[int, int], tuple[glm.Factor, np.ndarray | None]] = {}

    def all_blocks(self, out: np.ndarray, progress: ReportProgress) -> dict[str, np.ndarray]:
        """Fit all voxels.

        Parameters
        ----------
        out : ndarray of shape (n_trials, n_voxels), float32
            filled with betas
        progress : callable
            called with (what, share done)

        Returns
        -------
        dict of {str: ndarray}
            maps of what was fitted; voxels are the last axis
        """
        parts: dict[str, list[np.ndarray]] = {}
        for block, fitted in self.study.each("betas", self._block):
            out[:, block] = fitted.pop("betas")
            for name, values in fitted.items():
                parts.setdefault(name, []).append(values)

            progress("betas", block.stop / self.study.n_voxels)

        maps = {}
        for name, values in parts.items():
            maps[name] = np.concatenate(values, axis=-1)  # (..., n_voxels)
        return maps

    def _block(self, block: slice) -> dict[str, np.ndarray]:
        """Betas of a block, (n_trials, n_block), under "betas", and maps of what was fitted."""
        n = block.stop - block.start
        betas = np.empty((self.study.n_trials, n), dtype=np.float32)
        maps: dict[str, np.ndarray] = {"r2": np.zeros(n)}

        if self.is_ridge:
            maps["fraction"] = np.full(n, self.fractions[0])
            maps["scale_offset"] = np.stack([np.ones(n), np.zeros(n)])
            if len(self.fractions) > 1:
                maps["badness"] = np.zeros((len(self.fractions), n))

        for group in self.study.groups(block, self.hrf):
            columns = group.voxels - block.start
            betas[:, columns] = self._group(group, columns, maps)

        # Percent of the mean, so that voxels near the coil are not worth more.
        has_signal = self.has_signal[block]
        if self.study.options.percent:
            level = self.mean[block]
            betas *= np.divide(100, level, out=np.zeros_like(level), where=has_signal).astype(np.float32)

        betas[:, ~has_signal] = 0
        maps["r2"][~has_signal] = 0
        return {"betas": betas, **maps}

    def _group(self, group: VoxelGroup, columns: np.ndarray, maps: dict[str, np.ndarray]) -> np.ndarray:
        """Betas (n_trials, n_voxels) of voxels that share a response; what was fitted goes into `columns` of the maps."""
        designs = self.study.designs
        raw = []
        for design, y in zip(designs, group.series, strict=True):
            raw.append(design.products(group.shape, y))  # (n_trials, n_group)
        factors, products = self._denoised(group, raw)

        fitted = []
        for design, factor, xy in zip(designs, factors, products, strict=True):
            if self.study.options.kind == "lss":
                fitted.append(glm.least_squares_separate(design, group.shape, xy))
            else:
                fitted.append(factor.inverse.astype(np.float32) @ xy)  # (n_trials, n_voxels)

        final = fitted
        if self.is_ridge:
            final = self._ridge(columns, factors, products, maps)

        # Against the data as they were before components, so that R2 of kinds B, C and D can be compared.
        total = glm.total_power(group.series)
        maps["r2"][columns] = glm.explained_r2(designs, group.shape, final, raw, total)

        # Ridge shrinks the size of betas with their noise; GLMsingle scales each voxel back to its unshrunk betas.
        betas = np.concatenate(final)  # (n_trials, n_group)
        if self.is_ridge and self.study.options.autoscale:
            scale, offset = fracridge.autoscale(betas, np.concatenate(fitted))
            betas = betas * scale.astype(np.float32) + offset.astype(np.float32)
            maps["scale_offset"][0, columns] = scale
            maps["scale_offset"][1, columns] = offset

        return betas

    def _denoised(self, group: VoxelGroup, raw: list[np.ndarray]) -> tuple[list[glm.Factor], list[np.ndarray]]:
        """Factors of each run's design and ``X'y``, components projected out of both."""
        factors = []
        products = []
        for run, (xy, y) in enumerate(zip(raw, group.series, strict=True)):
            factor, shared = self._factor(run, group.shape)
            if self.parts is not None and shared is not None:
                along = self.parts[run].T.astype(np.float32) @ y  # (n_components, n_voxels)
                xy = xy - shared.astype(np.float32) @ along  # X'(I - CC')y, without forming it
            factors.append(factor)
            products.append(xy)

        return factors, products

    def _factor(self, run: int, shape: int) -> tuple[glm.Factor, np.ndarray | None]:
        """The factor of a run's design without components, made once, and ``X'C`` (n_trials, n_components)."""
        if (run, shape) not in self._factors:
            design = self.study.designs[run]
            factor = design.factor(shape)
            shared = None

            if self.parts is not None and self.parts[run].shape[1]:
                shared = design.designs[shape].T @ self.parts[run]  # (n_trials, n_components)
                factor = glm.Factor.of(factor.gram - shared @ shared.T)  # X'(I - CC')X: C is orthonormal

            self._factors[run, shape] = (factor, shared)

        return self._factors[run, shape]

    def _ridge(
        self,
        columns: np.ndarray,
        factors: list[glm.Factor],
        products: list[np.ndarray],
        maps: dict[str, np.ndarray],
    ) -> list[np.ndarray]:
        """Betas of each run at each voxel's best fraction; what was chosen goes into `columns` of the maps."""
        along = []
        for factor, xy in zip(factors, products, strict=True):
            along.append(fracridge.coefficients(factor, xy))  # (rank, n_group)

        # The design of all runs is block-diagonal, so its singular values are those of the runs together, and one penalty
        # per voxel shrinks all runs to the same fraction.
        s2 = np.concatenate([factor.s2 for factor in factors])
        alphas = fracridge.strengths(s2, np.concatenate(along), self.fractions)  # (n_fractions, n_voxels)
        best = np.zeros(len(columns), dtype=int)

        if len(self.fractions) > 1:
            rows = [design.rows for design in self.study.designs]
            badness = fracridge.fraction_badness(factors, along, alphas, rows, self.repeats)
            best = badness.argmin(axis=0)
            maps["badness"][:, columns] = badness

        maps["fraction"][columns] = self.fractions[best]
        alpha = alphas[best, np.arange(len(best))]  # (n_group,)

        betas = []
        for factor, c in zip(factors, along, strict=True):
            betas.append(fracridge.shrunk(factor, c, alpha))  # (n_trials, n_group)

        return betas
