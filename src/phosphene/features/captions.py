"""Captions and pictures as targets of a decoder, several of them valid for one stimulus.

Bad captions are screened out, outlying values clamped, and each training step takes one of the valid targets. Lin, Sprague
and Singh 2022 (Mind Reader), sections 2.1 and 2.2.

    q = softmax over the captions of a picture of  scale * cos(picture, caption)          CLIP's own probabilities
    a caption is kept where  q > share * max q,  that is where  cos > best cos - ln(1 / share) / scale

With OpenAI's scale of 100 and half of the best, a caption may be 0.0069 less similar than the best one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from phosphene.errors import ConfigError, DataError, did_you_mean
from phosphene.features.augment import AugmentConfig, augmented
from phosphene.features.clip import ClipFeatures, caption_texts
from phosphene.io.stages import take
from phosphene.types import Stimuli, positions

SHARE = 0.5
"""Of the best caption's probability, above which a caption is kept; Mind Reader, appendix A.1."""
LIMIT = 1.5
"""Where Mind Reader clamps raw values of OpenAI's ViT-B/32, whose standard deviation is 0.46."""

MODES = ("random", "average", "fixed")


def clamped(latents: np.ndarray, limit: float | None = LIMIT) -> np.ndarray:
    """Raw CLIP latents with outlying values clamped, and then divided by their length.

    A few positions of a CLIP latent are always far out, and an error summed over positions sees little else.

    Parameters
    ----------
    latents : ndarray
        (..., d), not normalised
    limit : float or None, optional
        largest absolute value that stays; None clamps nothing

    Returns
    -------
    ndarray
        (..., d) float32 of length one

    Examples
    --------
    >>> clamped(np.array([0.3, -9.0, 0.4, 0.0]), 1.5).round(3)
    array([ 0.19 , -0.949,  0.253,  0.   ], dtype=float32)
    """
    if limit is not None:
        latents = np.clip(latents, -limit, limit)

    return (latents / np.linalg.norm(latents, axis=-1, keepdims=True)).astype(np.float32)


def screened(similarity: np.ndarray, starts: np.ndarray, scale: float, share: float = SHARE) -> np.ndarray:
    """Which captions are kept.

    Parameters
    ----------
    similarity : ndarray of shape (n_captions,)
        cosine of each caption with its picture, those of one picture side by side
    starts : ndarray of shape (n_stimuli,)
        where each picture's begin; every picture has at least one
    scale : float
        CLIP's inverse temperature
    share : float, optional
        of the best caption's probability that a caption must exceed, below 1; 0 keeps all

    Returns
    -------
    ndarray of shape (n_captions,), bool
        each picture keeps at least its best

    Raises
    ------
    ConfigError
        For a share outside 0 to 1.

    Examples
    --------
    >>> screened(np.array([0.30, 0.295, 0.2, 0.1]), np.array([0, 3]), 100.0)
    array([ True,  True, False,  True])
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the share of the best caption's probability must be from 0 to below 1, but is {share}.")

    if share == 0:
        return np.ones(len(similarity), dtype=bool)

    similarity = np.asarray(similarity, dtype=np.float64)
    counts = np.diff(starts, append=len(similarity))
    best = np.repeat(np.maximum.reduceat(similarity, starts), counts)  # (n_captions,)

    return similarity > best + math.log(share) / scale


def pick(counts: np.ndarray, items: np.ndarray, *key: int) -> np.ndarray:
    """One of the valid targets of each item, all equally likely: a function of the key and the item.

    Parameters
    ----------
    counts : ndarray of shape (n,)
        how many valid targets each has
    items : ndarray of shape (n,)
        numbers of the items, from 0; the same item is answered the same
    *key : int
        such as the seed and the step

    Returns
    -------
    ndarray of shape (n,), int64
        from 0 to counts - 1

    Examples
    --------
    >>> bool((pick(np.full(3, 5), np.array([7, 2, 7]), 0, 1)[[0, 2]] == pick(np.array([5]), np.array([7]), 0, 1)).all())
    True
    """
    uniform = np.random.default_rng(key).random(int(np.max(items)) + 1)[items]
    return (uniform * counts).astype(np.int64)


@dataclass(frozen=True)
class Targets:
    """Valid targets of every stimulus, unit length.

    Attributes
    ----------
    values : ndarray of shape (n_targets, d), float32
        those of one stimulus side by side
    starts : ndarray of shape (n_stimuli,), int64
        where each stimulus's begin
    clean : ndarray of shape (n_stimuli, d), float32
        one certain target of each, to judge by: the picture as it is, or the mean of its valid captions
    """

    values: np.ndarray
    starts: np.ndarray
    clean: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """(n_stimuli,) valid targets of each."""
        return np.diff(self.starts, append=len(self.values))

    def at(self, items: np.ndarray, *key: int) -> np.ndarray:
        """(n, d): one target for each item, as `pick` chooses."""
        rows = self.starts[items] + pick(self.counts[items], items, *key)
        return self.values[rows]


class Screening:
    """Which captions of which stimuli are kept, as a fitted part of a run.

    Parameters
    ----------
    ids : ndarray of shape (n_stimuli,)
        whose captions
    counts : ndarray of shape (n_stimuli,)
        how many captions each has, empty ones left out
    similarity : ndarray of shape (n_captions,), float32
        cosine with the picture, stimulus by stimulus
    kept : ndarray of shape (n_captions,), bool
        which are kept
    """

    version: ClassVar[int] = 1

    def __init__(self, ids: np.ndarray, counts: np.ndarray, similarity: np.ndarray, kept: np.ndarray) -> None:
        self.ids = np.asarray(ids, dtype=object)
        self.counts = np.asarray(counts, dtype=np.int64)
        self.similarity = np.asarray(similarity, dtype=np.float32)
        self.kept = np.asarray(kept, dtype=bool)

    def __repr__(self) -> str:
        return f"Screening({int(self.kept.sum())} of {len(self.kept)} captions of {len(self.ids)} stimuli)"

    @property
    def starts(self) -> np.ndarray:
        """(n_stimuli,) int64, where each stimulus's captions begin."""
        return np.cumsum(self.counts) - self.counts

    @classmethod
    def fit(cls, clip: ClipFeatures, stimuli: Stimuli, share: float = SHARE, cache: Path | None = None) -> Self:
        """Screen captions.

        Parameters
        ----------
        clip : ClipFeatures
            pooled features of pictures and captions
        stimuli : Stimuli
            with pictures and captions
        share : float, optional
            of the best caption's probability that a caption must exceed; 0 keeps all
        cache : Path, optional
            folder of stores

        Raises
        ------
        DataError
            When a stimulus has no caption.
        """
        rows = _rows(stimuli)
        counts = np.bincount(rows, minlength=len(stimuli))
        pictures = _unit(clip.transform(stimuli, cache))
        texts = _unit(caption_latents(clip, stimuli, cache))
        similarity = np.vecdot(pictures[rows], texts)
        kept = screened(similarity, np.cumsum(counts) - counts, clip.logit_scale, share)

        return cls(stimuli.ids, counts, similarity, kept)

    def of(self, stimuli: Stimuli) -> Self:
        """The same for some of the stimuli, in their order."""
        at = positions(self.ids, stimuli.ids, "stimulus")
        parts = [np.empty(0, dtype=np.int64)]
        for start, count in zip(self.starts[at], self.counts[at], strict=True):
            parts.append(np.arange(start, start + count))

        rows = np.concatenate(parts)
        return type(self)(self.ids[at], self.counts[at], self.similarity[rows], self.kept[rows])

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        tensors = {"counts": self.counts, "similarity": self.similarity, "kept": self.kept}
        return tensors, {"ids": list(self.ids)}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """Restore a screening from what `state` gave."""
        ids = np.array(meta["ids"], dtype=object)
        return cls(ids, *take(tensors, ("counts", "similarity", "kept"), "screening"))


def caption_targets(
    clip: ClipFeatures,
    stimuli: Stimuli,
    screening: Screening,
    limit: float | None = LIMIT,
    mode: Literal["random", "average", "fixed"] = "random",
    cache: Path | None = None,
) -> Targets:
    """Targets from the captions that are kept.

    Parameters
    ----------
    clip : ClipFeatures
        pooled features that are not normalised
    stimuli : Stimuli
        with captions
    screening : Screening
        of these stimuli
    limit : float or None, optional
        as `clamped` takes it
    mode : {"random", "average", "fixed"}, default "random"
        which are valid: every kept caption, the mean of them alone (taken before clamping), or the best of them alone
    cache : Path, optional
        folder of stores

    Raises
    ------
    ConfigError
        For an unknown mode, or features that are normalised.
    """
    _check_raw(clip)
    if mode not in MODES:
        raise ConfigError(f"captions cannot be taken as '{mode}'. {did_you_mean(mode, MODES)}")

    screening = screening.of(stimuli)
    raw = caption_latents(clip, stimuli, cache)  # (n_captions, d)
    owner = np.repeat(np.arange(len(stimuli)), screening.counts)
    kept_owner = owner[screening.kept]

    # The certain target of each stimulus: the mean of its valid captions, taken before clamping.
    total = np.zeros((len(stimuli), raw.shape[1]), dtype=np.float64)
    np.add.at(total, kept_owner, raw[screening.kept])
    n_kept = np.bincount(kept_owner, minlength=len(stimuli))
    clean = clamped(total / n_kept[:, None], limit)

    if mode == "average":
        return Targets(clean, np.arange(len(clean)), clean)

    if mode == "fixed":
        best = []
        for start, count in zip(screening.starts, screening.counts, strict=True):
            best.append(start + np.argmax(screening.similarity[start : start + count]))

        return Targets(clamped(raw[np.array(best)], limit), np.arange(len(best)), clean)

    return Targets(clamped(raw[screening.kept], limit), np.cumsum(n_kept) - n_kept, clean)


def image_targets(
    clip: ClipFeatures,
    stimuli: Stimuli,
    augmentation: AugmentConfig | None,
    seed: int,
    limit: float | None = LIMIT,
    cache: Path | None = None,
) -> Targets:
    """Targets from pictures: altered copies of each, or each as it is.

    Parameters
    ----------
    clip : ClipFeatures
        pooled features that are not normalised
    stimuli : Stimuli
        with pictures
    augmentation : AugmentConfig or None
        how copies are altered; None: pictures as they are
    seed : int
        of the copies
    limit : float or None, optional
        as `clamped` takes it
    cache : Path, optional
        folder of stores, for pictures as they are

    Raises
    ------
    ConfigError
        For features that are normalised.
    """
    _check_raw(clip)
    clean = clamped(clip.transform(stimuli, cache), limit)
    if augmentation is None:
        return Targets(clean, np.arange(len(clean)), clean)

    values = np.empty((len(stimuli), augmentation.copies, clean.shape[1]), dtype=np.float32)
    for start in range(0, len(stimuli), clip.batch):
        rows = slice(start, start + clip.batch)
        pixels = stimuli.pixels(rows)
        ids = list(stimuli.ids[rows])

        for copy in range(augmentation.copies):
            altered = augmented(pixels, augmentation, seed, ids, copy)
            values[rows, copy] = clamped(clip.images(altered), limit)

    starts = np.arange(len(stimuli)) * augmentation.copies
    return Targets(values.reshape(-1, clean.shape[1]), starts, clean)


def caption_latents(clip: ClipFeatures, stimuli: Stimuli, cache: Path | None = None) -> np.ndarray:
    """(n_captions, d): latents of every caption that is not empty, stimulus by stimulus.

    Parameters
    ----------
    clip : ClipFeatures
        makes them
    stimuli : Stimuli
        with captions
    cache : Path, optional
        folder of stores

    Raises
    ------
    DataError
        When a stimulus has no caption.
    """
    _rows(stimuli)
    texts = caption_texts(stimuli)
    if cache is None:
        return clip.texts(list(texts.values()))

    ids = [f"{stimuli.ids[row]}#{k}" for row, k in texts]
    return np.asarray(clip.caption_store(stimuli, cache).read(ids), dtype=np.float32)


def _rows(stimuli: Stimuli) -> np.ndarray:
    """(n_captions,) which stimulus each caption belongs to."""
    rows = np.array([row for row, _ in caption_texts(stimuli)], dtype=np.int64)
    has_none = np.bincount(rows, minlength=len(stimuli)) == 0
    if has_none.any():
        raise DataError(
            f"{int(has_none.sum())} of {len(stimuli)} stimuli have no caption, first '{stimuli.ids[has_none.argmax()]}'. "
            "Give captions, or leave these stimuli out."
        )

    return rows


def _unit(latents: np.ndarray) -> np.ndarray:
    """Latents of length one."""
    return latents / np.linalg.norm(latents, axis=-1, keepdims=True)


def _check_raw(clip: ClipFeatures) -> None:
    """Refuse features that are normalised already, or are no single vector."""
    if clip.normalise != "none" or clip.output != "pooled":
        raise ConfigError(
            f"values are clamped before they are normalised, so CLIP features must come pooled and as they are, but these are "
            f"{clip!r}; make them with normalise='none'."
        )
