"""Words for the lab's categories and places, and the sentences they stand in when a text names a picture."""

from __future__ import annotations

from collections.abc import Sequence

from phosphene.lab.captions import WHERE

TEMPLATES = ("a {}", "a photo of a {}", "there is a {}", "a close view of a {}")
"""Sentences for a thing; the mean over them is steadier than any one."""

SINGLE_TEMPLATE = ("a photo of a {}",)
"""The usual one, alone."""

PLACE_TEMPLATES = ("a view {}", "a photo of something {}", "there is something {}")

NOUNS = {
    "face": "face of a person",
    "body": "person",
    "word": "sign",
    "balloon": "hot air balloon",
    "boat": "sailing boat",
}
"""Categories whose name is not what a caption calls them."""


def noun(category: str) -> str:
    """What a category is called in a text.

    Examples
    --------
    >>> noun("balloon"), noun("goldfish"), noun("polar_bear")
    ('hot air balloon', 'goldfish', 'polar bear')
    """
    return NOUNS.get(category, category.replace("_", " "))


def category_texts(categories: Sequence[str], templates: Sequence[str] = TEMPLATES) -> dict[str, list[str]]:
    """Every template filled with every category's noun: category to its texts."""
    return {name: [t.format(noun(name)) for t in templates] for name in categories}


def place_texts(places: Sequence[str]) -> dict[str, list[str]]:
    """The same for places."""
    return {name: [t.format(WHERE.get(name, name)) for t in PLACE_TEMPLATES] for name in places}
