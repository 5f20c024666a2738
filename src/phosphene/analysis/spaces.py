"""Where a decoded response is compared with categories and captions: the recipe's latents, or its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from phosphene.errors import DataError, NotAvailable
from phosphene.features.prompts import TEMPLATES, category_texts
from phosphene.metrics.identification import similarity
from phosphene.metrics.perceptual import feature_extractors_for
from phosphene.metrics.zero_shot import Candidates, candidates_from
from phosphene.recipes.base import Recipe
from phosphene.run import Run
from phosphene.types import Stimuli, Trials

Embed = Callable[[Trials], np.ndarray]
Read = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Space:
    """Embeddings of responses, and what gives them a meaning.

    Attributes
    ----------
    words : str
        what it is, in a sentence
    embed : Embed
        Trials to (n, d)
    see : callable
        Stimuli to (n, d), the true embeddings
    centre : ndarray of shape (d,)
        mean over the training pictures
    read : Read or None
        texts to (n, d), where there are texts
    candidates : Candidates or None
        categories, where there are any
    """

    words: str
    embed: Embed
    see: Callable[[Stimuli], np.ndarray]
    centre: np.ndarray
    read: Read | None = None
    candidates: Candidates | None = None

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(n, k) centred cosine with each category; not defined counts as 0."""
        return np.nan_to_num(self.candidates.centred(embeddings)).astype(np.float64)


def space_of(opened: Run, recipe: Recipe, train: Trials, extra: Sequence[str] = ()) -> Space:
    """The best there is: latents that have a text side; else latents (or pixels), categories being mean training pictures.

    Parameters
    ----------
    opened : Run
        the run, the recipe of a fold, its training trials
    recipe : Recipe
        see `opened`
    train : Trials
        see `opened`
    extra : sequence of str, default ()
        categories to add to those of the data set, where texts can name them
    """
    shown = opened.stimuli.select(train.stimulus_ids)
    if shown.category is None:
        known = []
    else:
        known = sorted(set(shown.category) - {""})

    space = _with_texts(recipe, shown)
    if space is not None:
        names = [*known, *(e for e in extra if e not in known)]
        if len(names) < 2:
            return space

        candidates = candidates_from(space.read, names, nouns=opened.dataset.nouns, trained=known)
        return replace(space, candidates=replace(candidates, centre=space.centre))

    space = _of_latents(recipe, shown)
    if len(known) < 2:
        return space

    true = space.see(shown)
    means = np.stack([true[shown.category == c].mean(axis=0, dtype=np.float64) for c in known])

    return replace(space, candidates=Candidates(tuple(known), means, frozenset(known), space.centre))


def reading_space(opened: Run, recipe: Recipe, train: Trials) -> Space:
    """A space that texts share: the recipe's own, or what the lab's CLIP sees in its pictures.

    Raises
    ------
    NotAvailable
        Where neither is there.
    """
    shown = opened.stimuli.select(train.stimulus_ids)
    space = _with_texts(recipe, shown)
    if space is not None:
        return space

    eye = next((e for e in feature_extractors_for(opened.dataset.name) if e.name == "clip_lab"), None)
    if eye is None:
        raise NotAvailable(
            f"the latents of '{recipe.config.kind}' have no text side, and no network here knows both the pictures of "
            f"{opened.dataset.name} and texts. Ask a recipe that decodes to CLIP, such as regressor."
        )

    from phosphene.features.clip import ClipFeatures

    size = recipe.image_shape_[:2]
    return _centred(
        "what the lab's CLIP sees in decoded pictures",
        lambda trials: eye.features(recipe.decode(trials).clipped()),
        lambda stimuli: eye.features(stimuli.resized(size)),
        shown,
        ClipFeatures().texts,
    )


def _with_texts(recipe: Recipe, shown: Stimuli) -> Space | None:
    probe = recipe.text_latents(["a"])
    name = next((k for k, v in ({} if probe is None else probe.arrays).items() if np.ndim(v) == 2), None)
    if name is None:
        return None

    return _centred(
        f"the decoded latents ({name})",
        lambda trials: np.asarray(recipe.latents(trials)[name]),
        lambda stimuli: np.asarray(recipe.true_latents(stimuli)[name]),
        shown,
        lambda texts: np.asarray(recipe.text_latents(list(texts))[name]),
    )


def _of_latents(recipe: Recipe, shown: Stimuli) -> Space:
    name = next(iter(recipe.true_latents(shown.select(shown.ids[:1])).arrays), None)
    if name is None:
        size = recipe.image_shape_[:2]
        return _centred(
            "the decoded pixels", lambda trials: _flat(recipe.decode(trials).clipped()),
            lambda stimuli: _flat(stimuli.resized(size)), shown,
        )  # fmt: skip

    return _centred(
        f"the decoded latents ({name})", lambda trials: _flat(recipe.latents(trials)[name]),
        lambda stimuli: _flat(recipe.true_latents(stimuli)[name]), shown,
    )  # fmt: skip


def _centred(
    words: str, embed: Embed, see: Callable[[Stimuli], np.ndarray], shown: Stimuli, read: Read | None = None
) -> Space:
    return Space(words, embed, see, np.asarray(see(shown)).mean(axis=0, dtype=np.float64), read)


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=np.float32).reshape(len(x), -1)


# -- captions ----------------------------------------------------------------------------------------------------------


class Pool(NamedTuple):
    """Captions to choose among: texts, the category of the training picture each describes ('' if none), and embeddings
    (n, d) of length 1, relative to their mean `middle`."""

    texts: np.ndarray
    categories: np.ndarray
    embeddings: np.ndarray
    middle: np.ndarray

    def cosines(self, embeddings: np.ndarray, centre: np.ndarray | float) -> np.ndarray:
        """(n, m) of embeddings relative to the mean picture with captions relative to the mean caption: pictures and texts
        lie apart, and a decoder that shrinks stays near the mean."""
        return np.nan_to_num(similarity(np.asarray(embeddings, np.float64) - centre, self.embeddings, "cosine"))

    def place(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings of other texts, as those of the pool are."""
        return _unit(embeddings) - self.middle


def pool_of(
    opened: Run,
    train: Trials,
    space: Space,
    *,
    file: str | None = None,
    without: Sequence[str] = (),
    most: int | None = None,
    rng: np.random.Generator,
) -> Pool:
    """Captions of a file, one a line; by default those of the training pictures, and sentences that name categories.

    Parameters
    ----------
    opened : Run
        the run, training trials, and a space with texts
    train : Trials
        see `opened`
    space : Space
        see `opened`
    file : str, optional
        text file in UTF-8
    without : sequence of str, default ()
        texts to leave out
    most : int, optional
        at most so many, drawn by `rng`

    Raises
    ------
    DataError
        When fewer than two texts are left, or the file cannot be read.
    """
    shown = opened.stimuli.select(train.stimulus_ids)
    if file is not None:
        found = _lines(file)
    else:
        found = _captions(shown, opened.dataset.nouns)

    for text in without:
        found.pop(text, None)

    if len(found) < 2:
        raise DataError(
            f"a pool of two captions or more is needed, but there {'is one' if found else 'are none'}. Give a text file with "
            "one caption a line: --set pool=FILE."
        )

    texts = np.array(list(found), dtype=object)
    if most is not None and len(texts) > most:
        texts = texts[np.sort(rng.permutation(len(texts))[:most])]

    unit = _unit(space.read(list(texts)))
    middle = unit.mean(axis=0)

    return Pool(texts, np.array([found[t] for t in texts], dtype=object), unit - middle, middle)


def _captions(shown: Stimuli, nouns: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if shown.category is None:
        category = [""] * len(shown)
    else:
        category = shown.category

    for texts, kind in zip(shown.captions or [()] * len(shown), category, strict=True):
        for text in texts:
            found.setdefault(text, str(kind))

    for kind, texts in category_texts(sorted(set(category) - {""}), TEMPLATES, nouns).items():
        for text in texts:
            found.setdefault(text, kind)

    return found


def _lines(file: str) -> dict[str, str]:
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the captions in {file} cannot be read as UTF-8 text: {error}.") from error

    return {" ".join(line.split()): "" for line in text.splitlines() if line.strip()}


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
