"""Nouns of the lab's categories and sentences for its places: what a text calls what a scene shows.

The templates for things are those of :mod:`phosphene.features.prompts`, which serve every data set; nouns and places are the
lab's own, in the words of its captions.
"""

from __future__ import annotations

from collections.abc import Sequence

from phosphene.features.prompts import TEMPLATES, category_texts
from phosphene.lab.scene_captions import WHERE

__all__ = ["NOUNS", "PLACE_TEMPLATES", "place_texts", "thing_texts"]

PLACE_TEMPLATES = ("a view {}", "a photo of something {}", "there is something {}")
"""Sentences for a place, with ``{}`` for where it is: ``in a city``, ``under water``."""

NOUNS = {
    "face": "face of a person",
    "body": "person",
    "word": "sign",
    "balloon": "hot air balloon",
    "boat": "sailing boat",
}
"""Categories whose name is not what a caption calls them."""


def thing_texts(categories: Sequence[str], templates: Sequence[str] = TEMPLATES) -> dict[str, list[str]]:
    """Every template filled with the noun of every category of the lab.

    Parameters
    ----------
    categories : sequence of str
        Kinds of things.
    templates : sequence of str, optional
        Sentences with ``{}`` for the noun.

    Returns
    -------
    dict of {str: list of str}
        Category to its texts, one per template.

    Examples
    --------
    >>> thing_texts(["balloon"], ["a {}"])
    {'balloon': ['a hot air balloon']}
    """
    return category_texts(categories, templates, NOUNS)


def place_texts(places: Sequence[str]) -> dict[str, list[str]]:
    """Every template of places filled with where each place is.

    Parameters
    ----------
    places : sequence of str
        Places, as scenes name them.

    Returns
    -------
    dict of {str: list of str}
        Place to its texts, one per template.
    """
    texts = {}
    for place in places:
        where = WHERE.get(place, place)
        texts[place] = [template.format(where) for template in PLACE_TEMPLATES]
    return texts
