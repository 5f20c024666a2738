"""Zero-shot classification: decoded latents named by text, without a classifier and without examples.

    embedding(category) = mean over templates of the unit latents of its texts, to length 1
    said(i)             = the category with the largest cosine to the decoded latent i

The categories may be ones no training picture showed: then nothing but the space that pictures and texts share tells what
they look like.

References
----------
Radford et al. 2021, section 3.1.4 (ensembles of prompts) and their 80 templates for ImageNet, which stand in for LEA's; Qian
et al. 2024 (LEA), section 4.2, table 1, whose templates are not published. The lab's CLIP, which read other sentences, has
templates of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from phosphene.errors import DataError
from phosphene.features.prompts import IMAGENET_TEMPLATES, SINGLE_TEMPLATE, TEMPLATES, category_texts, templates_for
from phosphene.metrics.identification import count_above, similarity
from phosphene.metrics.ties import first_best

__all__ = [
    "IMAGENET_TEMPLATES",
    "SINGLE_TEMPLATE",
    "TEMPLATES",
    "Candidates",
    "binomial_p",
    "candidates_from",
    "confusion",
    "templates_for",
]


Reader = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Categories that a decoded latent may be given.

    Parameters
    ----------
    names : tuple of str
        k categories, all different
    embeddings : ndarray of shape (k, d)
        in the space of the latents
    trained : frozenset of str, optional
        those of them that occur in the training stimuli; None when that is not known
    centre : ndarray of shape (d,), optional
        mean latent of the training pictures, for `centred`; None where there is no single one
    """

    names: tuple[str, ...]
    embeddings: np.ndarray
    trained: frozenset[str] | None = None
    centre: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(str(n) for n in self.names))
        object.__setattr__(self, "embeddings", np.asarray(self.embeddings, dtype=np.float64))
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.names):
            raise DataError(
                f"{len(self.names)} categories came with text embeddings of shape {self.embeddings.shape}; give one "
                "vector per category."
            )

        if len(set(self.names)) < len(self.names):
            raise DataError("a category stands among the candidates twice; give each once.")

    def among(self, names: Collection[str]) -> Candidates:
        """Only these candidates, in the order they have now.

        Parameters
        ----------
        names : collection of str
            categories to keep

        Returns
        -------
        Candidates
            with the embeddings of these alone

        Raises
        ------
        DataError
            When one of `names` has no embedding.
        """
        chosen = set(map(str, names))
        missing = sorted(chosen - set(self.names))
        if missing:
            raise DataError(f"{len(missing)} categories have no text embedding, first '{missing[0]}'.")

        keep = [i for i, name in enumerate(self.names) if name in chosen]
        return replace(self, names=tuple(self.names[i] for i in keep), embeddings=self.embeddings[keep])

    def centred(self, latents: np.ndarray) -> np.ndarray:
        """Cosine of what a latent has beside the training mean with what a category has beside the others.

            cos(latent - mean training latent, embedding - mean embedding)

        Decoders shrink towards the training mean, and pictures lie elsewhere than texts: without this, the category
        whose text is nearest to the mean is named for nearly everything. Nothing here looks at other test items.

        Parameters
        ----------
        latents : ndarray of shape (n, d)
            decoded or true

        Returns
        -------
        ndarray of shape (n, k)
            -1 to 1; NaN for a latent that is the mean or not finite

        Raises
        ------
        DataError
            Without a `centre`.
        """
        if self.centre is None:
            raise DataError("there is no mean latent of training pictures to take away; give Candidates a centre.")

        embeddings = self.embeddings - self.embeddings.mean(axis=0)  # (k, d)
        return similarity(np.asarray(latents, dtype=np.float64) - self.centre, embeddings, "cosine")

    def similarity(self, latents: np.ndarray) -> np.ndarray:
        """Cosine of latents with each category.

        Parameters
        ----------
        latents : ndarray of shape (n, d)
            decoded or true

        Returns
        -------
        ndarray of shape (n, k)
            -1 to 1; NaN for a latent that is zero or not finite
        """
        return similarity(np.asarray(latents, dtype=np.float64), self.embeddings, "cosine")

    def familiarity(self) -> str:
        """Whether training showed these categories, in words; empty when that is not known."""
        if self.trained is None:
            return ""

        k = len(self.names)
        seen = sum(name in self.trained for name in self.names)
        if seen == 0:
            return f"none of the {k} candidate categories was shown in training"
        if seen == k:
            return f"all {k} candidate categories were shown in training"
        return f"{seen} of the {k} candidate categories were shown in training"


def candidates_from(
    read: Reader,
    categories: Sequence[str],
    *,
    templates: Sequence[str] = TEMPLATES,
    nouns: Mapping[str, str] | None = None,
    trained: Collection[str] | None = None,
) -> Candidates:
    """Candidates whose embeddings a text encoder makes.

        embedding = unit(mean over templates of unit(latent of the text))

    Each text weighs the same however long its latent is, as in Radford et al. 2021, section 3.1.4.

    Parameters
    ----------
    read : Reader
        n texts to (n, d) latents, such as ``ClipFeatures.texts``
    categories : sequence of str
        names
    templates : sequence of str, optional
        sentences with ``{}`` for the noun: four short ones by default, ``IMAGENET_TEMPLATES`` for public networks,
        ``SINGLE_TEMPLATE`` for one alone; ``templates_for`` chooses by the space
    nouns : Mapping[str, str], optional
        what categories are called in a text where that is not their name, as ``Dataset.nouns`` has it
    trained : collection of str, optional
        categories of the training stimuli

    Returns
    -------
    Candidates
        without a `centre`

    Raises
    ------
    DataError
        When a text has no latent of finite length above 0.
    """
    texts = category_texts(categories, templates, nouns)
    flat = list(chain.from_iterable(texts.values()))
    latents = np.asarray(read(flat), dtype=np.float64)
    if latents.ndim != 2 or len(latents) != len(flat):
        raise DataError(
            f"{len(flat)} texts came back as latents of shape {latents.shape}; one vector per text is needed."
        )

    unit = latents / _length(latents)  # (k * n_templates, d)
    means = unit.reshape(len(texts), len(templates), -1).mean(axis=1)  # (k, d)
    shown = None
    if trained is not None:
        shown = frozenset(map(str, trained))

    return Candidates(tuple(texts), means / _length(means), shown)


def _length(x: np.ndarray) -> np.ndarray:
    """(n, 1) length of each row; a DataError where one has no direction."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise DataError("the latent of a text is zero or not finite, so it has no direction to compare with.")

    return length


def share_in_top(similarity: np.ndarray, k: int) -> np.ndarray:
    """What each row scores were each column its truth, for permutation nulls.

        score = clip((k - #{above}) / (#{tied} + 1), 0, 1)

    as the truth takes any of the places of its tie with equal probability.

    Parameters
    ----------
    similarity : ndarray of shape (n, n_candidates)
        latents in rows, categories in columns
    k : int
        how many best count as right

    Returns
    -------
    ndarray of shape (n, n_candidates)
        1 inside the k best, 0 outside, shares for ties
    """
    n_candidates = similarity.shape[1]
    score = np.empty(similarity.shape)
    for column in range(n_candidates):
        above, ties, _ = count_above(similarity, np.full(len(similarity), column))
        score[:, column] = np.clip((k - above) / (ties + 1), 0, 1)

    return score


def binomial_p(n_right: int, n: int, chance: float) -> float:
    """Probability of at least so many right among n, each right by `chance`; exact, one-sided.

        p = sum_{i >= n_right} C(n, i) chance^i (1 - chance)^(n - i)

    Parameters
    ----------
    n_right : int
        items that are right
    n : int
        all items
    chance : float
        probability of being right without any knowledge, 0 to 1

    Returns
    -------
    float
        0 to 1

    Examples
    --------
    >>> round(binomial_p(9, 50, 0.02), 6)
    1e-06
    """
    return float(binomtest(int(n_right), int(n), chance, alternative="greater").pvalue)


def confusion(candidates: Candidates, latents: np.ndarray, true: Sequence[str]) -> pd.DataFrame:
    """How often each category was called what.

    Parameters
    ----------
    candidates : Candidates
        to choose among
    latents : ndarray of shape (n, d)
        decoded
    true : sequence of str
        (n,) categories

    Returns
    -------
    DataFrame
        ``true, said, n``, pairs that occur only; ``said`` is empty for latents without a direction
    """
    cosines = candidates.similarity(latents)
    names = np.array([*candidates.names, ""], dtype=object)
    finite = np.asarray(~np.isnan(cosines).any(axis=1))
    said = names[np.where(finite, first_best(np.where(finite[:, None], cosines, 0)), len(names) - 1)]
    table = pd.DataFrame({"true": [str(t) for t in true], "said": said})

    counts = table.assign(n=1).groupby(["true", "said"], sort=True, as_index=False)["n"].count()
    return pd.DataFrame(counts)
