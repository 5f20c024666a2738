"""What is stimulated: named areas, levels of the hierarchy, any ROI; how; and random voxels to compare with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phosphene.errors import ConfigError, DataError, did_you_mean
from phosphene.types import Trials

Mode = Literal["raise", "set", "silence", "scale"]
AMOUNTS: dict[Mode, float] = {"raise": 2.0, "set": 10.0, "silence": 0.0, "scale": 2.0}
"""How much by default: standard deviations added or set, or a factor. The paper sets voxels to 10."""
_BINS = (8, 4, 2)
_BLOCK_VALUES = 16_000_000


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

    Raises
    ------
    ConfigError
        For a preset the subject has no ROI of, or no target at all.
    DataError
        For an ROI that does not exist, or has no voxel.
    """
    presets = {p.name: p for p in PRESETS}
    if file is None:
        sets = {}
    else:
        sets = _read_sets(file, trials)

    found = []
    for name in (sets or presets) if names is None else dict.fromkeys(names):
        if name in sets:
            found.append(StimulationTarget(name, name, (), sets[name]))
        elif name in presets:
            target = _of_preset(trials, presets[name])
            if target is not None:
                found.append(target)
            elif names is not None:
                ways = " or ".join(", ".join(way) for way in presets[name].rois)
                raise ConfigError(
                    f"{trials.subject} has no ROI of '{name}', which is known as {ways}. "
                    f"{did_you_mean(name, trials.rois)}"
                )
        else:
            voxels = np.flatnonzero(trials.roi(name))
            trials.take_voxels(voxels, name)  # says so when it is empty
            parts = tuple(p for p in re.split(r"[+&\s]+", name) if p)
            kinds = {p.categories for p in PRESETS[:4] if {stem(x) for x in parts} <= _stems(p.rois[0])}
            found.append(StimulationTarget(name, name, parts, voxels, kinds.pop() if len(kinds) == 1 else ()))

    if not found:
        raise ConfigError(
            f"{trials.subject} has no ROI that is known by name, so there is nothing to stimulate. Name some with "
            f"--set rois=[A,B]; its ROIs: {', '.join(trials.rois) or 'none'}."
        )

    return found


def _read_sets(file: str, trials: Trials) -> dict[str, np.ndarray]:
    """Positions by name."""
    try:
        with np.load(Path(file).expanduser(), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"voxel sets were expected in {file} as .npz, but it cannot be read: {error}.") from error

    n = trials.n_voxels
    out = {}

    for name, array in found.items():
        is_mask = array.dtype == bool and array.shape == (n,)
        fits = is_mask or (array.ndim == 1 and array.dtype.kind in "iu" and np.all((array >= 0) & (array < n)))
        if not fits or not (array.any() if is_mask else array.size):
            raise DataError(
                f"the voxel set '{name}' in {file} has shape {array.shape} of {array.dtype}; a mask of {n} booleans with one "
                f"voxel or more, or positions below {n}, is needed for {trials.subject}."
            )

        if is_mask:
            out[name] = np.flatnonzero(array)
        else:
            out[name] = np.unique(array).astype(np.int64)

    return out


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
    outside : whether the sets leave out the target itself
    is_matched : whether ceilings were matched

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

        ways = [(pool, n) for pool in (rest, everywhere) for n in ((1,) if ceiling is None else _BINS)]
        for pool, n in [*ways, (everywhere, 1)]:
            edges = np.unique(np.quantile(value[voxels], np.arange(1, n) / n))
            bins = np.searchsorted(edges, value, side="right")

            # Beyond what the target itself has, the lowest and the highest bin would be without a bound.
            near = (value >= value[voxels].min()) & (value <= value[voxels].max()) | (n == 1)
            self._pools = [pool[(bins[pool] == b) & near[pool]] for b in range(n)]
            self._sizes = np.bincount(bins[voxels], minlength=n)
            if all(len(p) >= 2 * k for p, k in zip(self._pools, self._sizes, strict=True)):
                break

        self.outside = pool is rest
        self.is_matched = n > 1

    def draw(self, n: int, rng: np.random.Generator) -> list[np.ndarray]:
        """`n` sets of positions, each without a voxel twice."""
        return [
            np.concatenate([rng.permutation(p)[:k] for p, k in zip(self._pools, self._sizes, strict=True)])
            for _ in range(n)
        ]


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
        """A copy of (n, n_voxels) in which `voxels` are changed and no other."""
        out = np.array(betas, dtype=np.float32)
        mean = self.mean[voxels]

        if self.pattern is None:
            way = np.ones(len(voxels))
        else:
            way = self.pattern[voxels]

        if len(way):
            size = np.sqrt(np.square(way).mean())
        else:
            size = 0.0

        step = self.amount * self.spread[voxels] * (way / size if size > 0 else 0.0)
        here = out[:, voxels]
        out[:, voxels] = {
            "raise": lambda: here + step,
            "set": lambda: np.broadcast_to(mean + step, here.shape),
            "silence": lambda: np.broadcast_to(mean, here.shape),
            "scale": lambda: mean + self.amount * (here - mean),
        }[self.mode]()

        return out


def moments(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every voxel over single trials, each (n_voxels,) float64, read in blocks."""
    n = len(trials)
    step = max(1, _BLOCK_VALUES // max(1, trials.n_voxels))
    blocks = [slice(i, i + step) for i in range(0, n, step)]
    mean = sum(trials.read(b).sum(axis=0, dtype=np.float64) for b in blocks) / n
    square = sum(np.square(trials.read(b) - mean).sum(axis=0) for b in blocks) / n

    return np.asarray(mean), np.sqrt(square)


def contrast(train: Trials, category: np.ndarray, chosen: str, spread: np.ndarray) -> np.ndarray:
    """(n_voxels,) mean response to a category minus the mean over the other categories' means, in standard deviations.

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
    """
    means = {c: train.read(np.flatnonzero(category == c)).mean(axis=0, dtype=np.float64) for c in sorted(set(category))}
    others = np.mean([m for c, m in means.items() if c != chosen], axis=0)
    return np.divide(means[chosen] - others, spread, out=np.zeros_like(spread), where=spread > 0)


def standing_in(trials: Trials, rows: np.ndarray, betas: np.ndarray, **provenance: Any) -> Trials:
    """Other responses under the stimulus and session of these rows, of which one may occur several times."""
    table = trials.table.iloc[rows].drop(columns=["members", "n_repeats"], errors="ignore").reset_index(drop=True)
    table["trial"] = np.arange(len(table))
    note = {**trials.provenance, **provenance}
    return replace(trials, source=betas, table=table, rows=None, columns=None, provenance=note)


def stimulated(trials: Trials, sets: Sequence[np.ndarray], edit: Edit) -> Iterator[tuple[slice, Trials]]:
    """Every voxel set stimulated in all trials, several sets at a time: which sets, and their trials one after another."""
    betas = trials.betas
    n = len(trials)
    step = max(1, _BLOCK_VALUES // max(1, betas.size))

    for start in range(0, len(sets), step):
        part = slice(start, min(start + step, len(sets)))
        rows = np.concatenate([edit(betas, voxels) for voxels in sets[part]])
        yield part, standing_in(trials, np.tile(np.arange(n), len(sets[part])), rows, stimulated=edit.mode)
