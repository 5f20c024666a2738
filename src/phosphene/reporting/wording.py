"""Small pieces of sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phosphene.analysis.image_stats import ImageStatsSource
from phosphene.analysis.spaces import SpaceKind


def percent(share: float) -> str:
    """A share of 0 to 1.

    Examples
    --------
    >>> percent(0.071)
    '7 %'
    """
    return f"{100 * share:.0f} %"


def capital(text: str) -> str:
    """The same, with a capital first letter."""
    return text[:1].upper() + text[1:]


def space_words(source: ImageStatsSource) -> str:
    """Where cosines between pictures are taken."""
    if source.has_clip:
        return "the lab's CLIP"

    return f"the first {source.n_components} principal components of pixels"


def confidence_words(source: ImageStatsSource) -> str:
    """What the confidence of a picture is."""
    if source.has_classifier:
        return "the classifier's largest probability"

    return "likeness to the nearest training picture, which sinks with blur and strangeness"


def with_interval(row: pd.Series) -> str:
    """A value with its bounds, where it has any.

    Parameters
    ----------
    row : Series
        value, ci_low and ci_high; NaN bounds where there is no interval

    Returns
    -------
    str

    Examples
    --------
    >>> with_interval(pd.Series({"value": 0.71, "ci_low": 0.6, "ci_high": 0.8}))
    '0.710 [0.600, 0.800]'
    """
    if np.isfinite(row["ci_low"]):
        return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"

    return f"{row['value']:.3f}"


def embedding_words(kind: SpaceKind) -> str:
    """What responses are read in.

    Parameters
    ----------
    kind : SpaceKind
        of the space

    Returns
    -------
    str

    Examples
    --------
    >>> embedding_words(SpaceKind("latents", "clip_lab"))
    'the decoded latents (clip_lab)'
    """
    if kind.of == "clip":
        return "what the lab's CLIP sees in decoded pictures"

    if kind.of == "pixels":
        return "the decoded pixels"

    return f"the decoded latents ({kind.latents})"
