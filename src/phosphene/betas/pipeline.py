"""From runs of BOLD to Trials, in GLMsingle's steps: on-off model, response of each voxel, noise components, fractional ridge."""

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
from phosphene.betas.study import BoldStudy
from phosphene.betas.work import Work
from phosphene.errors import ConfigError, PhospheneWarning
from phosphene.types import Trials

Told = Callable[[str, float], None]


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
    progress: Told = lambda *_: None,
    work: Work | None = None,
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
    progress : Told, optional
        called with (what, share done)
    work : Work, optional
        folder where finished blocks are kept, and from which they are read back; the betas are the same
    workers : int, default 1
        blocks of voxels done at once, as far as the memory allows; the betas are the same

    Returns
    -------
    BetaResult
        The same input gives the same betas

    Raises
    ------
    DataError
        runs that do not fit together, events outside their run, data that are not finite
    ConfigError
        an assumed response that the library lacks, or `out` of another shape

    Warns
    -----
    PhospheneWarning
        a design without repeats (types C and D fall back to B), trials that cannot be told apart, runs that end too
        soon, voxels without signal

    Notes
    -----
    Responses, components and fractions are chosen from all runs given. Where some of these are to be held out to the letter,
    give the others alone.
    """
    options = options or BetaOptions()
    check_study(runs, shift_s=options.onset_shift_s)
    if library is None:
        library = HrfLibrary.chosen(options)

    if options.assumed_hrf is None:
        assumed = library.canonical
    else:
        assumed = options.assumed_hrf

    if assumed >= len(library):
        raise ConfigError(f"{library.name} has {len(library)} responses, numbered from 0; got assumed_hrf={assumed}.")

    table = _trial_table(runs, options.onset_shift_s)
    folds = np.concatenate([np.full(len(r.events), k if r.fold is None else r.fold) for k, r in enumerate(runs)])
    repeats = denoise.Repeats.of(table["stimulus"], folds, table["session"].to_numpy())
    options = _possible(options, repeats)
    study = BoldStudy(runs, library, assumed, options, work, workers)
    _warn_of_collinearity(study)

    if out is None:
        out = np.empty((study.n_trials, study.n_voxels), dtype=np.float32)
    elif out.shape != (study.n_trials, study.n_voxels) or out.dtype != np.float32:
        raise ConfigError(
            f"out must be float32 of shape {(study.n_trials, study.n_voxels)}; got {out.dtype} {out.shape}."
        )

    mean, on_off, hrf = _look(study, progress)
    responds = options.kind in ("c", "d") and (options.components is None or options.components > 0)
    threshold = parts = pool = None
    curve = np.zeros(0)

    if responds:
        if options.threshold is None:
            threshold = denoise.tail_threshold(on_off)
        else:
            threshold = options.threshold

        pool = denoise.noise_pool(on_off, mean, threshold, (options.bright_percentile, options.bright_share))
        if not pool.any():
            warnings.warn(
                "every bright voxel responds, so there is no noise pool and no noise component. Include voxels outside of "
                f"visual cortex in the mask, or raise threshold (now {threshold:g} % of variance).",
                PhospheneWarning,
                stacklevel=2,
            )

        parts, curve = _components(study, hrf, on_off, pool, threshold, repeats, progress)

    maps = _final(study, hrf, mean, parts, repeats, out, progress)

    maps = {"mean_signal": mean, "on_off_r2": on_off, "r2": maps.pop("r2"), "hrf": hrf, **maps}
    if pool is not None:
        maps["noise_pool"] = pool

    kept = {k: maps.pop(k) for k in ("badness", "scale_offset") if k in maps}
    if table["stimulus"].duplicated().any():
        ratio = np.concatenate([ncsnr(out[:, block], table) for block in study.blocks()])
        maps |= {"ncsnr": ratio, "noise_ceiling": ceiling(ratio)}

    if voxels is None:
        voxels = pd.DataFrame(index=pd.RangeIndex(study.n_voxels))
    else:
        voxels = voxels.reset_index(drop=True)

    if parts is None:
        n_components = 0
    else:
        n_components = max(p.shape[1] for p in parts)

    provenance = {
        "betas": f"phosphene, kind {options.kind}: settings chosen from all {len(runs)} runs",
        "unit": "percent signal change" if options.percent else "arbitrary, as in the file",
        "hrf_library": library.name,
        "hrf_peaks_s": [round(float(peak), 3) for peak in library.peaks_s],
        "assumed_hrf": assumed,
        "n_components": n_components,
        "component_curve": [round(float(c), 6) for c in curve],
        "on_off_threshold": threshold if threshold is not None and np.isfinite(threshold) else None,
        "options": _plain(options),
    }

    trials = Trials(out, table, voxels.assign(**maps), subject, provenance)
    return BetaResult(trials, options.kind, threshold, curve, n_components, tuple(parts or ()), **kept)


def _plain(options: BetaOptions) -> dict:
    """Options as plain values, without what does not change results."""
    return options.model_dump(mode="json", exclude={"memory_gb"})


def _possible(options: BetaOptions, repeats: denoise.Repeats) -> BetaOptions:
    """Options that this design allows."""
    if repeats.any or options.kind not in ("c", "d"):
        return options

    changes: dict = {}
    if options.components is None and options.max_components > 0:
        changes["components"] = 0

    if options.kind == "d" and len(options.fractions) > 1:
        changes["kind"] = "c"

    if not changes:
        return options

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
    tables = []
    for run in runs:
        events = run.events.rename(columns={"onset": "onset_s", "duration": "duration_s"})
        events = events.assign(session=run.session, run=run.run, onset_s=events["onset_s"] + shift_s)
        tables.append(events)

    table = pd.concat(tables, ignore_index=True)
    table["stimulus"] = table["stimulus"].astype(str)
    if "trial" in table and table["trial"].duplicated().any():
        table = table.drop(columns="trial")  # numbered within runs

    return table


def _warn_of_collinearity(study: BoldStudy) -> None:
    for run, design in zip(study.runs, study.designs, strict=True):
        factor = design.factor(study.assumed)
        if factor.is_deficient:
            warnings.warn(
                f"the {len(factor.gram)} trials of {run.name} ({len(run)} volumes) span only {len(factor.s2)} dimensions: some "
                "responses cannot be told apart, and share their betas evenly. Check the onsets and the time between volumes.",
                PhospheneWarning,
                stacklevel=3,
            )


def _look(study: BoldStudy, progress: Told) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean signal, on-off R2, and response of every voxel."""
    mean = np.zeros(study.n_voxels)
    on_off = np.zeros(study.n_voxels)
    hrf = np.full(study.n_voxels, study.assumed)

    def look(block: slice) -> dict[str, np.ndarray]:
        series, level = study.series(block)
        if study.assumes:
            shape = hrf[block]
        else:
            shape = glm.choose_hrf(study.designs, series)[0]

        study.keep(block, series, shape)
        return {"mean": level, "on_off": glm.on_off_r2(study.designs, series, study.assumed), "hrf": shape}

    for block, found in study.each("look", look):
        mean[block], on_off[block], hrf[block] = found["mean"], found["on_off"], found["hrf"]
        progress("responses", block.stop / study.n_voxels)

    silent = int((mean <= 0).sum())
    if silent and study.options.percent:
        warnings.warn(
            f"{silent} of {study.n_voxels} voxels have a mean signal of 0 or less, of which no percentage can be taken; their "
            "betas are 0. Use a tighter mask, or data from which the mean was not removed.",
            PhospheneWarning,
            stacklevel=3,
        )

    return mean, on_off, hrf


def _components(
    study: BoldStudy,
    hrf: np.ndarray,
    on_off: np.ndarray,
    pool: np.ndarray,
    threshold: float,
    repeats: denoise.Repeats,
    progress: Told,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Noise components of each run, as many as are to be used, and the curve by which they were counted."""
    options = study.options
    if options.components is None:
        tried = options.max_components
    else:
        tried = options.components

    grams = [np.zeros((len(run), len(run))) for run in study.runs]

    def look(block: slice) -> dict[str, np.ndarray]:
        own = [np.zeros_like(gram) for gram in grams]
        for group in study.groups(block, hrf):
            quiet = pool[group.voxels]
            for gram, y in zip(own, group.series, strict=True):
                gram += denoise.pool_gram(y[:, quiet])

        return {f"run{r}": gram for r, gram in enumerate(own)}

    for block, found in study.each("pool", look):
        for r, gram in enumerate(grams):
            gram += found[f"run{r}"]

        progress("noise pool", block.stop / study.n_voxels)

    parts = [denoise.components(gram, tried) for gram in grams]
    tried = min(p.shape[1] for p in parts)
    parts = [p[:, :tried] for p in parts]

    if options.components is not None:
        return parts, np.zeros(0)

    badness = np.zeros((tried + 1, study.n_voxels))

    def score(block: slice) -> dict[str, np.ndarray]:
        own = np.zeros((tried + 1, block.stop - block.start))
        for g in study.groups(block, hrf):
            own[:, g.voxels - block.start] = denoise.component_badness(study.designs, g.shape, g.series, parts, repeats)

        return {"badness": own}

    for block, found in study.each("components", score):
        badness[:, block] = found["badness"]
        progress("noise components", block.stop / study.n_voxels)

    curve = denoise.trend([badness], on_off, threshold)
    count = denoise.choose_count(curve, options.stop)

    return [p[:, :count] for p in parts], curve


class _Denoised:
    """Factors of designs from which components are projected out, made once each."""

    def __init__(self, study: BoldStudy, parts: list[np.ndarray] | None) -> None:
        self.study = study
        self.parts = parts
        self._made: dict[tuple[int, int], tuple[glm.Factor, np.ndarray | None]] = {}

    def __call__(self, run: int, shape: int) -> tuple[glm.Factor, np.ndarray | None]:
        """The factor, and ``X'C`` (n_trials, n_components)."""
        if (run, shape) not in self._made:
            design = self.study.designs[run]
            factor = design.factor(shape)
            shared = None

            if self.parts is not None and self.parts[run].shape[1]:
                shared = design.designs[shape].T @ self.parts[run]
                factor = glm.Factor.of(factor.gram - shared @ shared.T)

            self._made[run, shape] = factor, shared

        return self._made[run, shape]


def _final(
    study: BoldStudy,
    hrf: np.ndarray,
    mean: np.ndarray,
    parts: list[np.ndarray] | None,
    repeats: denoise.Repeats,
    out: np.ndarray,
    progress: Told,
) -> dict[str, np.ndarray]:
    """Fill `out`; maps of what was fitted."""
    options = study.options
    fractions = np.sort(np.array(options.fractions))[::-1]
    ridge = options.kind == "d"
    denoised = _Denoised(study, parts)
    rows = [d.rows for d in study.designs]

    def fit(block: slice) -> dict[str, np.ndarray]:
        n = block.stop - block.start
        betas = np.empty((study.n_trials, n), dtype=np.float32)
        maps = {"r2": np.zeros(n)}

        if ridge:
            maps |= {"fraction": np.full(n, fractions[0]), "scale_offset": np.stack([np.ones(n), np.zeros(n)])}
            if len(fractions) > 1:
                maps["badness"] = np.zeros((len(fractions), n))

        for group in study.groups(block, hrf):
            here = group.voxels - block.start
            raw = [d.products(group.shape, y) for d, y in zip(study.designs, group.series, strict=True)]
            factors = []
            products = []

            for r, (xy, y) in enumerate(zip(raw, group.series, strict=True)):
                factor, shared = denoised(r, group.shape)
                if shared is not None:
                    xy = xy - shared.astype(np.float32) @ (parts[r].T.astype(np.float32) @ y)

                factors.append(factor)
                products.append(xy)

            if options.kind == "lss":
                fitted = [
                    glm.least_squares_separate(d, group.shape, xy)
                    for d, xy in zip(study.designs, products, strict=True)
                ]
            else:
                fitted = [f.inverse.astype(np.float32) @ xy for f, xy in zip(factors, products, strict=True)]

            final = fitted
            if ridge:
                final = _ridge(here, factors, products, fractions, rows, repeats, maps)

            maps["r2"][here] = glm.explained_r2(study.designs, group.shape, final, raw, glm.total_power(group.series))
            flat = np.concatenate(final)
            if ridge and options.autoscale:
                scale, offset = fracridge.autoscale(flat, np.concatenate(fitted))
                flat = flat * scale.astype(np.float32) + offset.astype(np.float32)
                maps["scale_offset"][:, here] = scale, offset

            betas[:, here] = flat

        if options.percent:
            level = mean[block]
            betas *= np.divide(100, level, out=np.zeros_like(level), where=level > 0).astype(np.float32)

        return {"betas": betas, **maps}

    maps: dict[str, list[np.ndarray]] = {}
    for block, found in study.each("betas", fit):
        out[:, block] = found.pop("betas")
        for name, values in found.items():
            maps.setdefault(name, []).append(values)

        progress("betas", block.stop / study.n_voxels)

    return {name: np.concatenate(values, axis=-1) for name, values in maps.items()}


def _ridge(
    here: np.ndarray,
    factors: list[glm.Factor],
    products: list[np.ndarray],
    fractions: np.ndarray,
    rows: list[slice],
    repeats: denoise.Repeats,
    maps: dict[str, np.ndarray],
) -> list[np.ndarray]:
    """Betas of each run at each voxel's best fraction; what was chosen goes into the maps at `here`."""
    c = [fracridge.coefficients(f, xy) for f, xy in zip(factors, products, strict=True)]
    alphas = fracridge.strengths(np.concatenate([f.s2 for f in factors]), np.concatenate(c), fractions)
    best = np.zeros(len(here), dtype=int)

    if len(fractions) > 1:
        badness = fracridge.fraction_badness(factors, c, alphas, rows, repeats)
        best = badness.argmin(axis=0)
        maps["badness"][:, here] = badness

    maps["fraction"][here] = fractions[best]
    alpha = alphas[best, np.arange(len(best))]

    return [fracridge.shrunk(f, x, alpha) for f, x in zip(factors, c, strict=True)]
