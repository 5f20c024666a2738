"""Where a decoded response is compared with categories and captions: the recipe's latents, or its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from phosphene.errors import DataError, NotAvailable
from phosphene.features.prompts import TEMPLATES, category_texts
from phosphene.metrics.identification import similarity
from phosphene.metrics.perceptual import feature_extractors_for
from phosphene.metrics.zero_shot import Candidates, candidates_from
from phosphene.recipes.base import Recipe
from phosphene.run import Run
from phosphene.types import Stimuli, Trials

EmbedTrials = Callable[[Trials], np.ndarray]
EmbedStimuli = Callable[[Stimuli], np.ndarray]
EmbedTexts = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class SpaceKind:
    """What responses are read in.

    Attributes
    ----------
    of : {"latents", "pixels", "clip"}
        decoded latents, decoded pixels, or what the lab's CLIP sees in decoded pictures
    latents : str
        name of the latents; empty otherwise
    """

    of: Literal["latents", "pixels", "clip"]
    latents: str = ""


@dataclass(frozen=True, eq=False)
class Space:
    """Embeddings of responses, and what gives them a meaning.

    Attributes
    ----------
    kind : SpaceKind
        what it is
    embed : callable
        Trials to (n, d)
    see : callable
        Stimuli to (n, d), the true embeddings
    centre : ndarray of shape (d,)
        mean over the training pictures
    read : callable or None
        texts to (n, d), where there are texts
    candidates : Candidates or None
        categories, where there are any
    """

    kind: SpaceKind
    embed: EmbedTrials
    see: EmbedStimuli
    centre: np.ndarray
    read: EmbedTexts | None = None
    candidates: Candidates | None = None

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Centred cosine with each category; what is not defined counts as 0.

        Parameters
        ----------
        embeddings : ndarray of shape (n, d)
            in this space, which must have categories

        Returns
        -------
        ndarray of shape (n, k)
            -1 to 1
        """
        assert self.candidates is not None
        return np.nan_to_num(self.candidates.centred(embeddings)).astype(np.float64)

    def read_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) embeddings of texts. Raises NotAvailable where the space has none."""
        if self.read is None:
            raise NotAvailable(
                f"the space of {self.kind.latents or self.kind.of} has no text side to read captions with."
            )

        return self.read(texts)


def answer_space(opened: Run, recipe: Recipe, train: Trials, extra: Sequence[str] = ()) -> Space:
    """The best there is: latents that have a text side; else latents (or pixels), categories being mean training pictures.

    Parameters
    ----------
    opened : Run
        the run
    recipe : Recipe
        of a fold
    train : Trials
        training trials of the fold
    extra : sequence of str, default ()
        categories to add to those of the data set, where texts can name them

    Returns
    -------
    Space
        with categories where there are two or more
    """
    pictures = opened.stimuli.select(train.stimulus_ids)
    known: list[str] = []
    if pictures.category is not None:
        known = sorted(set(pictures.category) - {""})

    space = _with_texts(recipe, pictures)
    if space is not None and space.read is not None:
        names = list(known)
        for name in extra:
            if name not in known:
                names.append(name)

        if len(names) < 2:
            return space

        candidates = candidates_from(space.read, names, nouns=opened.dataset.nouns, trained=known)
        return replace(space, candidates=replace(candidates, centre=space.centre))

    space = _of_latents(recipe, pictures)
    if len(known) < 2:
        return space

    # Without texts, a category is the mean of the training pictures that show it.
    true = space.see(pictures)  # (n, d)
    means = []
    for name in known:
        means.append(true[pictures.category == name].mean(axis=0, dtype=np.float64))

    return replace(space, candidates=Candidates(tuple(known), np.stack(means), frozenset(known), space.centre))


def reading_space(opened: Run, recipe: Recipe, train: Trials) -> Space:
    """A space that texts share: the recipe's own, or what the lab's CLIP sees in its pictures.

    Parameters
    ----------
    opened : Run
        the run
    recipe : Recipe
        of a fold
    train : Trials
        training trials of the fold

    Returns
    -------
    Space
        with a text side

    Raises
    ------
    NotAvailable
        Where neither is there.
    """
    pictures = opened.stimuli.select(train.stimulus_ids)
    space = _with_texts(recipe, pictures)
    if space is not None:
        return space

    clip = None
    for extractor in feature_extractors_for(opened.dataset.name):
        if extractor.name == "clip_lab":
            clip = extractor
            break

    if clip is None:
        raise NotAvailable(
            f"the latents of '{recipe.config.kind}' have no text side, and no network here knows both the pictures of "
            f"{opened.dataset.name} and texts. Ask a recipe that decodes to CLIP, such as regressor."
        )

    from phosphene.features.clip import ClipFeatures

    size = recipe.image_shape_[:2]
    return _centred(
        SpaceKind("clip"),
        lambda trials: clip.features(recipe.decode(trials).clipped()),
        lambda stimuli: clip.features(stimuli.resized(size)),
        pictures,
        ClipFeatures().texts,
    )


def _with_texts(recipe: Recipe, pictures: Stimuli) -> Space | None:
    """The first latents, a vector each, that texts share; None where there are none."""
    probe = recipe.text_latents(["a"])
    if probe is None:
        return None

    # One vector a text; latents with a row per token have no single direction to compare.
    vectors = [name for name, array in probe.arrays.items() if np.ndim(array) == 2]
    if not vectors:
        return None

    name = vectors[0]

    def texts_to_latents(texts: Sequence[str]) -> np.ndarray:
        latents = recipe.text_latents(list(texts))
        assert latents is not None
        return np.asarray(latents[name])

    return _centred(
        SpaceKind("latents", name),
        lambda trials: np.asarray(recipe.latents(trials)[name]),
        lambda stimuli: np.asarray(recipe.true_latents(stimuli)[name]),
        pictures,
        texts_to_latents,
    )


def _of_latents(recipe: Recipe, pictures: Stimuli) -> Space:
    name = next(iter(recipe.true_latents(pictures.select(pictures.ids[:1])).arrays), None)
    if name is None:
        size = recipe.image_shape_[:2]
        return _centred(
            SpaceKind("pixels"),
            lambda trials: _flat(recipe.decode(trials).clipped()),
            lambda stimuli: _flat(stimuli.resized(size)),
            pictures,
        )

    return _centred(
        SpaceKind("latents", name),
        lambda trials: _flat(recipe.latents(trials)[name]),
        lambda stimuli: _flat(recipe.true_latents(stimuli)[name]),
        pictures,
    )


def _centred(
    kind: SpaceKind, embed: EmbedTrials, see: EmbedStimuli, pictures: Stimuli, read: EmbedTexts | None = None
) -> Space:
    centre = np.asarray(see(pictures)).mean(axis=0, dtype=np.float64)  # (d,)
    return Space(kind, embed, see, centre, read)


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=np.float32).reshape(len(x), -1)


# -- captions ----------------------------------------------------------------------------------------------------------


class Pool(NamedTuple):
    """Captions to choose among.

    Attributes
    ----------
    texts : ndarray of shape (m,)
        captions
    categories : ndarray of shape (m,)
        of the training picture that each describes, ``""`` if none
    embeddings : ndarray of shape (m, d)
        of length 1, less their mean
    middle : ndarray of shape (d,)
        that mean
    """

    texts: np.ndarray
    categories: np.ndarray
    embeddings: np.ndarray
    middle: np.ndarray

    def cosines(self, embeddings: np.ndarray, centre: np.ndarray | float) -> np.ndarray:
        """Cosines of embeddings relative to the mean picture with captions relative to the mean caption.

        Pictures and texts lie apart, and a decoder that shrinks stays near the mean; hence the means.

        Parameters
        ----------
        embeddings : ndarray of shape (n, d)
            of decoded responses or of pictures
        centre : ndarray of shape (d,) or float
            mean picture

        Returns
        -------
        ndarray of shape (n, m)
            -1 to 1; 0 where not defined
        """
        relative = np.asarray(embeddings, np.float64) - centre
        return np.nan_to_num(similarity(relative, self.embeddings, "cosine"))

    def place(self, embeddings: np.ndarray) -> np.ndarray:
        """(n, d) embeddings of other texts, of length 1 and less the mean of the pool, as the pool's own are."""
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
        the run
    train : Trials
        training trials of a fold
    space : Space
        with texts
    file : str, optional
        text file in UTF-8
    without : sequence of str, default ()
        texts to leave out
    most : int, optional
        at most so many, drawn by `rng`
    rng : numpy.random.Generator
        of the choice among too many

    Returns
    -------
    Pool
        two captions or more

    Raises
    ------
    DataError
        When fewer than two texts are left, or the file cannot be read.
    """
    if file is not None:
        category_of = _lines(file)
    else:
        category_of = _captions(opened.stimuli.select(train.stimulus_ids), opened.dataset.nouns)

    for text in without:
        category_of.pop(text, None)

    if len(category_of) < 2:
        if category_of:
            count = "is one"
        else:
            count = "are none"

        raise DataError(
            f"a pool of two captions or more is needed, but there {count}. Give a text file with "
            "one caption a line: --set pool=FILE."
        )

    texts = np.array(list(category_of), dtype=object)
    if most is not None and len(texts) > most:
        texts = texts[np.sort(rng.permutation(len(texts))[:most])]

    unit = _unit(space.read_texts(list(texts)))  # (m, d)
    middle = unit.mean(axis=0)
    categories = np.array([category_of[text] for text in texts], dtype=object)

    return Pool(texts, categories, unit - middle, middle)


def _captions(pictures: Stimuli, nouns: Mapping[str, str]) -> dict[str, str]:
    """Captions of pictures, and sentences that name their categories, each with the category it was first met with."""
    category_of: dict[str, str] = {}
    categories = pictures.category
    if categories is None:
        categories = [""] * len(pictures)

    captions = pictures.captions or [()] * len(pictures)
    for texts, category in zip(captions, categories, strict=True):
        for text in texts:
            category_of.setdefault(text, str(category))

    for category, texts in category_texts(sorted(set(categories) - {""}), TEMPLATES, nouns).items():
        for text in texts:
            category_of.setdefault(text, category)

    return category_of


def _lines(file: str) -> dict[str, str]:
    """Captions of a file, without categories."""
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the captions in {file} cannot be read as UTF-8 text: {error}.") from error

    # A dictionary, not a set: it keeps the order of the file, on which the choice among too many rests.
    category_of = {}
    for line in text.splitlines():
        if line.strip():
            category_of[" ".join(line.split())] = ""

    return category_of


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
