"""Prompts: the sentences that stand for a category when its name is compared with a picture.

A prompt is a template with a noun in it, ``"a photo of a {}"`` filled with ``"hot air balloon"``. The mean over several templates
is steadier than any one. Which templates suit depends on what the text encoder read in its training, and which noun stands for a
category is known to the data set (:attr:`phosphene.types.Dataset.nouns`).

References
----------
Radford et al. 2021 (CLIP), section 3.1.4 (ensembles of prompts) and the 80 templates published with it for ImageNet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["IMAGENET_TEMPLATES", "SINGLE_TEMPLATE", "TEMPLATES", "category_texts", "noun_for", "templates_for"]

TEMPLATES = ("a {}", "a photo of a {}", "there is a {}", "a close view of a {}")
"""Short sentences for a thing, as a text encoder knows them that learned from few captions."""

SINGLE_TEMPLATE = ("a photo of a {}",)
"""The usual one, alone."""


def _imagenet_templates() -> tuple[str, ...]:
    """Frames of Radford et al. 2021, each with both articles; four come with a word of their own."""
    seen_as = (
        "photo", "bad photo", "good photo", "low resolution photo", "cropped photo", "bright photo", "dark photo",
        "close-up photo", "black and white photo", "pixelated photo", "jpeg corrupted photo", "blurry photo", "sculpture",
        "rendering", "rendition", "tattoo", "drawing", "painting", "doodle", "sketch",
    )  # fmt: skip
    qualities = ("hard to see", "clean", "dirty", "cool", "large", "small", "nice", "weird")
    made_of = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")

    frames = [f"a {x} of ARTICLE {{}}." for x in seen_as]
    frames += [f"{x} of ARTICLE {{}}." for x in ("graffiti", "art", "itap")]
    frames += [f"a photo of ARTICLE {x} {{}}." for x in qualities]
    frames += [f"ARTICLE {x} {{}}." for x in made_of]
    frames += ["ARTICLE {} in a video game."]

    templates = []
    for frame in frames:
        for article in ("a", "the"):
            templates.append(frame.replace("ARTICLE", article))

    without_article = ("a photo of many", "a photo of one", "a photo of my", "itap of my")
    templates += [f"{x} {{}}." for x in without_article]

    return tuple(templates)


IMAGENET_TEMPLATES = _imagenet_templates()
"""The 80 sentences that CLIP was published with for ImageNet."""


def templates_for(space: str) -> tuple[str, ...]:
    """Sentences that suit the text encoder of a space of latents.

    Parameters
    ----------
    space : str
        Name of the space, such as ``clip_lab``.

    Returns
    -------
    tuple of str
        Templates with ``{}`` for the noun.

    Examples
    --------
    >>> len(templates_for("clip_vit_h_14_laion2b_s32b_b79k")), len(templates_for("clip_lab"))
    (80, 4)
    """
    if space == "clip_lab":
        return TEMPLATES

    return IMAGENET_TEMPLATES


def noun_for(category: str, nouns: Mapping[str, str] | None = None) -> str:
    """What a category is called in a text.

    Parameters
    ----------
    category : str
        Name of the category, as the data set spells it.
    nouns : mapping of {str: str}, optional
        Category to noun, for categories whose name is not what a text calls them.

    Returns
    -------
    str
        The noun; the name itself, with spaces for underscores, where there is none.

    Examples
    --------
    >>> noun_for("balloon", {"balloon": "hot air balloon"}), noun_for("polar_bear")
    ('hot air balloon', 'polar bear')
    """
    if nouns is not None and category in nouns:
        return nouns[category]

    return category.replace("_", " ")


def category_texts(
    categories: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    nouns: Mapping[str, str] | None = None,
) -> dict[str, list[str]]:
    """Every template filled with the noun of every category.

    Parameters
    ----------
    categories : sequence of str
        Names of categories.
    templates : sequence of str, optional
        Sentences with ``{}`` for the noun.
    nouns : mapping of {str: str}, optional
        See `noun_for`; a data set offers its own as ``Dataset.nouns``.

    Returns
    -------
    dict of {str: list of str}
        Category to its texts, one per template, in the order of `categories`.

    Examples
    --------
    >>> category_texts(["polar_bear"], SINGLE_TEMPLATE)
    {'polar_bear': ['a photo of a polar bear']}
    """
    texts = {}

    for category in categories:
        noun = noun_for(category, nouns)
        texts[category] = [template.format(noun) for template in templates]

    return texts
