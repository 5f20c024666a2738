"""What pretrained generators were trained on, and where the pictures of data sets come from.

A generator that was trained on the test pictures can draw what no response holds. Recipes name their generators
(``Recipe.generators``), data sets are looked up by name; check S8 compares. Own data say where their pictures come from
in their description, ``about: {corpora: [COCO]}``.
"""

from __future__ import annotations

from typing import Any

GENERATORS: dict[str, tuple[str, ...] | None] = {
    "lab": ("in-silico scenes of the zoo's own worlds",),
    "maskgit-imagenet": ("ImageNet",),
    "ldm-cin256": ("ImageNet",),
    "vdvae-imagenet64": ("ImageNet",),
    "versatile-diffusion": ("LAION",),
    "stylegan2-text": None,
}
"""Generator to corpora; None where the file given by a user says nothing about it."""

PICTURES: dict[str, tuple[str, ...]] = {
    "nsd": ("COCO",),
    "bold5000": ("COCO", "ImageNet", "SUN"),
    "god": ("ImageNet",),
    "hcp": ("films",),
    "digits69": ("handwritten digits",),
    "miyawaki": ("contrast patterns",),
    "mosaic": ("COCO", "ImageNet", "SUN", "THINGS"),
    "insilico": ("in-silico scenes of the lab's worlds",),
}
"""First part of a data set's name to the collections its pictures come from."""


def corpora_of(dataset: str, about: dict[str, Any] | None = None) -> tuple[str, ...] | None:
    """Where the pictures of a data set come from, None where nothing says so.

    Parameters
    ----------
    dataset : str
        its name, such as ``insilico-nsd``
    about : dict of {str: Any}, optional
        its description; ``corpora`` there wins

    Examples
    --------
    >>> corpora_of("god"), corpora_of("mine"), corpora_of("mine", {"corpora": "COCO"})
    (('ImageNet',), None, ('COCO',))
    """
    described = (about or {}).get("corpora")
    if isinstance(described, str) and described:
        return (described,)
    if described:
        return tuple(map(str, described))

    return PICTURES.get(dataset.split("-")[0])
