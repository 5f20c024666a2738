"""What is stimulated: named areas, levels of the hierarchy, any ROI; how; and random voxels to compare with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from phosphene.errors import ConfigError, DataError, PhospheneError, did_you_mean
from phosphene.io.npz_file import read_npz
from phosphene.types import Trials

Mode = Literal["raise", "set", "silence", "scale"]
AMOUNTS: dict[Mode, float] = {"raise": 2.0, "set": 10.0, "silence": 0.0, "scale": 2.0}
"""How much by default: standard deviations added or set, or a factor. The paper sets voxels to 10."""
_BINS = (8, 4, 2)  # of noise ceilings, tried in this order
_BLOCK_VALUES = 16_000_000  # values in memory at a time, 64 MB of float32


@dataclass(frozen=True)
class Preset:
    """A set of voxels known by what it does, wherever its ROIs have these names.

    Attributes
    ----------
    name, words : str
        short, and as it stands in a sentence
    rois : tuple of tuple of str
        several ways in which data sets name its parts; the first way of which any part is there is taken
    categories : tuple of str
        what it prefers, in the names that data sets use; empty for a level of the hierarchy
    """

    name: str
    words: str
    rois: tuple[tuple[str, ...], ...]
    categories: tuple[str, ...] = ()


_FACES = ("FFA", "OFA", "mTL-faces", "aTL-faces", "floc-faces")
_BODIES = ("EBA", "FBA", "mTL-bodies", "floc-bodies")
_WORDS = ("VWFA", "OWFA", "mfs-words", "mTL-words", "floc-words")
_PLACES = ("PPA", "OPA", "RSC", "floc-places")

PRESETS: tuple[Preset, ...] = (
    Preset("faces", "face areas", (_FACES,), ("face",)),
    Preset("bodies", "body areas", (_BODIES,), ("body", "person")),
    Preset("words", "word areas", (_WORDS,), ("word", "text")),
    Preset("places", "place areas", (_PLACES,), ("house", "place", "scene")),
    Preset("early", "early areas", (("streams-early",), ("V1", "V2", "V3", "EarlyVis"), ("LVC",))),
    Preset(
        "intermediate", "intermediate areas",
        (("streams-midventral", "streams-midlateral", "streams-midparietal"), ("hV4", "V4", "LOC", "LO")),
    ),
    Preset(
        "late", "late areas",
        (
            ("streams-ventral", "streams-lateral", "streams-parietal"),
            (*_FACES, *_BODIES, *_WORDS, *_PLACES),
            ("HVC",),
        ),
    ),
)  # fmt: skip
"""Areas found by a localiser, and levels: NSD's names, the lab's, and those of BOLD5000 and GOD."""


def stem(roi: str) -> str:
    """The name of an ROI without its hemisphere and number: ``FFA-1``, ``lh.FFA`` and ``LHFFA`` are all ``ffa``.

    Examples
    --------
    >>> stem("FFA-2"), stem("LHPPA"), stem("rh.V1v"), stem("streams-early")
    ('ffa', 'ppa', 'v1', 'streams-early')
    """
    name = re.sub(r"^(?:(?:lh|rh|l|r)[._-]|(?:LH|RH)(?=[A-Z]))", "", roi, flags=0 if roi[:2].isupper() else re.I)
    name = re.sub(r"-\d+$", "", name).lower()
    return re.sub(r"^(v[123])[vd]$", r"\1", name)


@dataclass(frozen=True)
class StimulationTarget:
    """Voxels of one subject to stimulate.

    Attributes
    ----------
    name, words : str
        short, and as it stands in a sentence
    rois : tuple of str
        the ROIs it consists of
    voxels : ndarray of shape (k,)
        positions
    categories : tuple of str
        what it ought to bring forth, in order of preference of names
    is_level : bool
        whether it is a level of the hierarchy
    """

    name: str
    words: str
    rois: tuple[str, ...]
    voxels: np.ndarray
    categories: tuple[str, ...] = ()
    is_level: bool = False


def targets(trials: Trials, names: Sequence[str] | None, file: str | None = None) -> list[StimulationTarget]:
    """The targets asked for; by default every preset the subject has ROIs for, or every set of a file.

    Parameters
    ----------
    trials : Trials
        whose voxels
    names : sequence of str or None
        presets, ROI expressions such as ``FFA+OFA``, or names in the file
    file : str, optional
        ``.npz`` of voxel sets, each a mask (n_voxels,) or positions

    Returns
    -------
    list of StimulationTarget

    Raises
    ------
    ConfigError
        For a preset the subject has no ROI of, or no target at all.
    DataError
        For an ROI that does not exist, or has no voxel.
    """
    presets = {preset.name: preset for preset in PRESETS}
    if file is None:
        sets = {}
    else:
        sets = _read_sets(file, trials)

    asked = list(sets or presets)
    if names is not None:
        asked = list(dict.fromkeys(names))

    chosen = []
    for name in asked:
        if name in sets:
            chosen.append(StimulationTarget(name, name, (), sets[name]))
        elif name in presets:
            target = _of_preset(trials, presets[name])
            if target is not None:
                chosen.append(target)
            elif names is not None:
                ways = " or ".join(map(", ".join, presets[name].rois))
                raise ConfigError(
                    f"{trials.subject} has no ROI of '{name}', which is known as {ways}. "
                    f"{did_you_mean(name, trials.rois)}"
                )
        else:
            chosen.append(_of_expression(trials, name))

    if not chosen:
        raise ConfigError(
            f"{trials.subject} has no ROI that is known by name, so there is nothing to stimulate. Name some with "
            f"--set rois=[A,B]; its ROIs: {', '.join(trials.rois) or 'none'}."
        )

    return chosen


def _of_expression(trials: Trials, name: str) -> StimulationTarget:
    """The voxels of an ROI expression; it keeps the categories of the one localiser that all its ROIs are of."""
    voxels = np.flatnonzero(trials.roi(name))
    trials.take_voxels(voxels, name)  # says so when it is empty
    rois = tuple(roi for roi in re.split(r"[+&\s]+", name) if roi)
    kinds = set()
    for preset in PRESETS:
        if preset.categories and _stems(rois) <= _stems(preset.rois[0]):
            kinds.add(preset.categories)

    categories: tuple[str, ...] = ()
    if len(kinds) == 1:
        categories = kinds.pop()

    return StimulationTarget(name, name, rois, voxels, categories)


def _read_sets(file: str, trials: Trials) -> dict[str, np.ndarray]:
    """Positions by name."""
    try:
        by_name = read_npz(Path(file).expanduser())
    except PhospheneError:
        raise
    except (OSError, ValueError, AttributeError, BadZipFile) as error:
        raise DataError(f"voxel sets were expected in {file} as .npz, but it cannot be read: {error}.") from error

    n = trials.n_voxels
    positions = {}

    for name, array in by_name.items():
        is_mask = array.dtype == bool and array.shape == (n,)
        if is_mask:
            is_valid = bool(array.any())
        else:
            is_list = array.ndim == 1 and array.dtype.kind in "iu" and array.size > 0
            is_valid = is_list and bool(np.all((array >= 0) & (array < n)))

        if not is_valid:
            raise DataError(
                f"the voxel set '{name}' in {file} has shape {array.shape} of {array.dtype}; a mask of {n} booleans with one "
                f"voxel or more, or positions below {n}, is needed for {trials.subject}."
            )

        if is_mask:
            positions[name] = np.flatnonzero(array)
        else:
            positions[name] = np.unique(array).astype(np.int64)

    return positions


def _of_preset(trials: Trials, preset: Preset) -> StimulationTarget | None:
    for way in preset.rois:
        rois = tuple(r for r in trials.rois if stem(r) in _stems(way))
        if rois:
            voxels = np.flatnonzero(trials.roi("+".join(rois)))
        else:
            voxels = np.empty(0, int)

        if voxels.size:
            return StimulationTarget(preset.name, preset.words, rois, voxels, preset.categories, not preset.categories)

    return None


def _stems(rois: Sequence[str]) -> set[str]:
    return {stem(r) for r in rois}


# -- random voxels -----------------------------------------------------------------------------------------------------


class StandIns:
    """Random voxel sets of the size of a target and with its distribution of noise ceilings, where these are known.

    Parameters
    ----------
    voxels : ndarray of shape (k,)
        positions of the target
    ceiling : ndarray of shape (n_voxels,) or None
        0-1, or None; NaN counts as 0
    n_voxels : int
        of the subject

    Attributes
    ----------
    outside : bool
        whether the sets leave out the target itself
    is_matched : bool
        whether ceilings were matched

    Notes
    -----
    Sets that all but exhaust the voxels there are resemble each other and make every target look special. So each bin of
    ceilings must hold twice the voxels drawn from it: outside the target, in fewer and fewer bins; else among all voxels,
    the target's own included; else among all voxels without matching.
    """

    def __init__(self, voxels: np.ndarray, ceiling: np.ndarray | None, n_voxels: int) -> None:
        everywhere = np.arange(n_voxels)
        rest = np.setdiff1d(everywhere, voxels)

        if ceiling is None:
            value = np.zeros(n_voxels)
        else:
            value = np.nan_to_num(np.asarray(ceiling, dtype=float))

        n_bins_tried = _BINS
        if ceiling is None:
            n_bins_tried = (1,)

        # The strictest way first: elsewhere, in many bins. The last one always has room for a set.
        ways = [*product((rest, everywhere), n_bins_tried), (everywhere, 1)]
        for pool, n_bins in ways:
            edges = np.unique(np.quantile(value[voxels], np.arange(1, n_bins) / n_bins))
            bins = np.searchsorted(edges, value, side="right")  # (n_voxels,)

            # Beyond what the target itself has, the lowest and the highest bin would be without a bound.
            near = (value >= value[voxels].min()) & (value <= value[voxels].max()) | (n_bins == 1)
            self._pools = []
            for b in range(n_bins):
                self._pools.append(pool[(bins[pool] == b) & near[pool]])

            self._sizes = np.bincount(bins[voxels], minlength=n_bins)
            self.outside = pool is rest
            self.is_matched = n_bins > 1

            if all(len(p) >= 2 * size for p, size in zip(self._pools, self._sizes, strict=True)):
                break

    def draw(self, n: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Draw random sets.

        Parameters
        ----------
        n : int
            how many
        rng : numpy.random.Generator
            of the draw

        Returns
        -------
        list of ndarray of shape (k,)
            positions, each set without a voxel twice
        """
        sets = []
        for _ in range(n):
            parts = []
            for pool, size in zip(self._pools, self._sizes, strict=True):
                parts.append(rng.permutation(pool)[:size])

            sets.append(np.concatenate(parts))

        return sets


# -- how ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """What is done to voxels, with moments of the training responses.

    Attributes
    ----------
    mean, spread : ndarray of shape (n_voxels,)
        of single training trials
    mode : {"raise", "set", "silence", "scale"}
        ``raise`` adds, ``set`` puts at, ``silence`` puts at the mean, ``scale`` multiplies the distance from it
    amount : float
        standard deviations, or the factor
    pattern : ndarray of shape (n_voxels,) or None
        direction of each voxel; 1 everywhere by default. Scaled to a root mean square of 1 over the voxels stimulated,
        so that a pattern moves them as far as 1 everywhere does
    """

    mean: np.ndarray
    spread: np.ndarray
    mode: Mode
    amount: float
    pattern: np.ndarray | None = None

    def __call__(self, betas: np.ndarray, voxels: np.ndarray) -> np.ndarray:
        """Change some voxels of responses and no other.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            responses; copied
        voxels : ndarray of shape (k,)
            positions

        Returns
        -------
        ndarray of shape (n, n_voxels), float32
        """
        changed = np.array(betas, dtype=np.float32)
        mean = self.mean[voxels]  # (k,)
        before = changed[:, voxels]  # (n, k)

        if self.mode == "raise":
            changed[:, voxels] = before + self._step(voxels)
        elif self.mode == "set":
            changed[:, voxels] = mean + self._step(voxels)
        elif self.mode == "silence":
            changed[:, voxels] = mean
        else:
            changed[:, voxels] = mean + self.amount * (before - mean)

        return changed

    def _step(self, voxels: np.ndarray) -> np.ndarray:
        """(k,) how far each voxel is moved: `amount` standard deviations, as a root mean square over the voxels."""
        direction = np.ones(len(voxels))
        if self.pattern is not None:
            direction = self.pattern[voxels]

        size = 0.0
        if len(direction):
            size = np.sqrt(np.square(direction).mean())

        scaled: np.ndarray | float = 0.0
        if size > 0:
            scaled = direction / size

        return self.amount * self.spread[voxels] * scaled


def moments(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every voxel over single trials, each (n_voxels,) float64, read in blocks."""
    n = len(trials)
    step = max(1, _BLOCK_VALUES // max(1, trials.n_voxels))
    blocks = [slice(i, i + step) for i in range(0, n, step)]
    mean = sum(trials.read(block).sum(axis=0, dtype=np.float64) for block in blocks) / n  # (n_voxels,)
    square = sum(np.square(trials.read(block) - mean).sum(axis=0) for block in blocks) / n

    return np.asarray(mean), np.sqrt(square)


def category_contrast(train: Trials, category: np.ndarray, chosen: str, spread: np.ndarray) -> np.ndarray:
    """Mean response to a category minus the mean over the other categories' means, in standard deviations.

    Parameters
    ----------
    train : Trials
        training trials, repeats averaged
    category : ndarray of shape (n_trials,)
        what each shows
    chosen : str
        the category
    spread : ndarray of shape (n_voxels,)
        of single trials

    Returns
    -------
    ndarray of shape (n_voxels,)
        0 where a voxel never changes
    """
    means = {}
    for name in sorted(set(category)):
        rows = np.flatnonzero(category == name)
        means[name] = train.read(rows).mean(axis=0, dtype=np.float64)  # (n_voxels,)

    # The mean of means: a category with many pictures weighs no more than one with few.
    means_of_others = [mean for name, mean in means.items() if name != chosen]
    others = np.mean(means_of_others, axis=0)  # (n_voxels,)
    return np.divide(means[chosen] - others, spread, out=np.zeros_like(spread), where=spread > 0)


def standing_in(trials: Trials, rows: np.ndarray, betas: np.ndarray, **provenance: Any) -> Trials:
    """Other responses under the stimulus and session of these rows, of which one may occur several times.

    Parameters
    ----------
    trials : Trials
        whose stimuli, sessions and voxels
    rows : ndarray of shape (n,), int
        the row that each response stands in for
    betas : ndarray of shape (n, n_voxels), float32
        the responses
    **provenance : Any
        what was done to them, added to the provenance of the trials

    Returns
    -------
    Trials
        n of them, trials numbered from 0
    """
    # What these responses were averaged from is not theirs any more, and no two rows may share a trial.
    table = trials.table.iloc[rows].drop(columns=["members", "n_repeats"], errors="ignore").reset_index(drop=True)
    table["trial"] = np.arange(len(table))
    note = {**trials.provenance, **provenance}
    return replace(trials, source=betas, table=table, rows=None, columns=None, provenance=note)


def stimulated(trials: Trials, sets: Sequence[np.ndarray], edit: Edit) -> Iterator[tuple[slice, Trials]]:
    """Every voxel set stimulated in all trials, several sets at a time: which sets, and their trials one after another.

    Parameters
    ----------
    trials : Trials
        untouched responses, n of them
    sets : sequence of ndarray
        positions of voxels, a set each
    edit : Edit
        what is done to them

    Yields
    ------
    tuple of (slice, Trials)
        which sets; and n trials for each, set by set
    """
    betas = trials.betas
    n = len(trials)
    step = max(1, _BLOCK_VALUES // max(1, betas.size))

    for start in range(0, len(sets), step):
        part = slice(start, min(start + step, len(sets)))
        edited = [edit(betas, voxels) for voxels in sets[part]]
        rows = np.concatenate(edited)  # (n_sets * n, n_voxels)
        yield part, standing_in(trials, np.tile(np.arange(n), len(sets[part])), rows, stimulated=edit.mode)
