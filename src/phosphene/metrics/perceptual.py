"""Eyes: frozen networks that look at decoded and true pictures, so that they are compared by what they show.

>>> eyes = feature_extractors_for("insilico-nsd")                                # doctest: +SKIP
>>> seen = [look(eye, true) for eye in eyes]      # once               # doctest: +SKIP
>>> score(Decoded(ids, decoded, true, views=views(seen, decoded)))     # doctest: +SKIP

A score through an eye is only as good as the eye, and flatters a recipe that was trained towards the same network: read
it beside one of another network, and beside the controls.

The lab's drawn scenes are seen by the lab's own networks, photographs by public ones (``photographs``), each where its
weights are found. To add an eye, write a class with what :class:`FeatureExtractor` lists and name it in ``FEATURE_EXTRACTORS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from phosphene.metrics.metric import OF_FEATURES, View
from phosphene.metrics.photographs import PHOTOGRAPHS
from phosphene.metrics.pixel import as_pictures

if TYPE_CHECKING:
    from torch import nn

_SIDE = 32  # pixels, of every network of the zoo
_BATCH = 500


class FeatureExtractor(Protocol):
    """A frozen network that looks at pictures.

    Attributes
    ----------
    name : str
        short, for names of metrics
    classes : tuple of str
        what it tells apart, in the order of ``probabilities``; empty where it does not classify
    metrics : tuple of str
        heads of the names of metrics that its features serve, such as ``two_way``
    is_here : bool
        whether its weights are on this machine
    """

    name: str
    metrics: tuple[str, ...]

    @property
    def is_here(self) -> bool:
        """Whether it can look."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or none."""
        ...

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """(n, height, width, 1 or 3), 0-1, to (n, d) float32; rows of NaN for pictures that are not finite."""
        ...

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """The same to (n, n_classes) float32."""
        ...


class LabClip:
    """The bundled CLIP: directions in the space that pictures and captions share."""

    name = "clip_lab"
    metrics = OF_FEATURES
    classes: tuple[str, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether the lab's CLIP has weights."""
        return _in_zoo("clip")

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """See :class:`FeatureExtractor`; vectors of length sqrt(d), so that one number is of order 1, as KID's kernel expects."""
        unit = _finite_rows(self._clip.images, _as_seen(pixels))
        return unit * np.float32(np.sqrt(unit.shape[1]))

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """None: it classifies only with texts."""
        return np.empty((len(pixels), 0), dtype=np.float32)

    @cached_property
    def _clip(self):
        from phosphene.features.clip import ClipFeatures

        return ClipFeatures("lab", batch=_BATCH)


class SceneExtractor:
    """The bundled scene classifier: the activations of its last layer, and a category."""

    name = "scenes"
    metrics = OF_FEATURES

    @property
    def is_here(self) -> bool:
        """Whether the lab's classifier has weights."""
        return _in_zoo("classifier")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The lab's categories."""
        return tuple(self._network.categories)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """See :class:`FeatureExtractor`; 128 activations."""
        return self._run(lambda x: self._network.features(x)["last"], pixels)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """See :class:`FeatureExtractor`."""
        return self._run(self._network.probabilities, pixels)

    def _run(self, what: Callable, pixels: np.ndarray) -> np.ndarray:
        import torch

        from phosphene.models.pixel_range import to_network

        def compute(pictures: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                blocks = [pictures[i : i + _BATCH] for i in range(0, len(pictures), _BATCH)]
                return np.concatenate([what(to_network(block)).numpy() for block in blocks])

        return _finite_rows(compute, _as_seen(pixels))

    @cached_property
    def _network(self) -> nn.Module:
        from phosphene.models import bundled

        return bundled.load("classifier")


def _in_zoo(network: str) -> bool:
    from phosphene.models import bundled

    return network in bundled.names()


FEATURE_EXTRACTORS: Mapping[str, Sequence[Callable[[], FeatureExtractor]]] = {
    "insilico": (LabClip, SceneExtractor),
    **dict.fromkeys(("nsd", "bold5000", "god", "hcp"), tuple(PHOTOGRAPHS.values())),
}
"""First part of a data set's name to what makes its eyes."""


def feature_extractors_for(dataset: str) -> list[FeatureExtractor]:
    """The eyes that know the kind of pictures a data set has, and whose weights are here.

    Parameters
    ----------
    dataset : str
        its name, such as ``insilico-nsd``

    Returns
    -------
    list of FeatureExtractor
        list, empty where no network knows such pictures: the lab's have only ever seen drawn scenes
    """
    return [eye for eye in (make() for make in FEATURE_EXTRACTORS.get(dataset.split("-")[0], ())) if eye.is_here]


@dataclass(frozen=True, eq=False)
class Seen:
    """What an eye sees in the true pictures: computed once, whatever is decoded.

    Attributes
    ----------
    eye : FeatureExtractor
        who looked
    features : ndarray of shape (n, d)
    probabilities : ndarray of shape (n, n_classes)
    """

    eye: FeatureExtractor
    features: np.ndarray
    probabilities: np.ndarray


def look(eye: FeatureExtractor, true_pictures: np.ndarray) -> Seen:
    """Show the true pictures, (n, height, width, 1 or 3), 0-1, to an eye."""
    return Seen(eye, eye.features(true_pictures), eye.probabilities(true_pictures))


def view(seen: Seen, decoded_pictures: np.ndarray) -> View:
    """Show the decoded pictures, in the order of the true ones, to the eye that saw those."""
    eye = seen.eye
    return View(
        eye.features(decoded_pictures),
        seen.features,
        eye.probabilities(decoded_pictures),
        seen.probabilities,
        eye.classes,
        eye.metrics,
    )


def views(seen: Sequence[Seen], decoded_pictures: np.ndarray) -> dict[str, View]:
    """The same for several eyes, by name: what ``Decoded(views=...)`` takes."""
    return {s.eye.name: view(s, decoded_pictures) for s in seen}


def _as_seen(pixels: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """Pictures as (n, side, side, 3) float32, 0-1: areas averaged (or repeated, where smaller), grey to three channels."""
    from PIL import Image

    pixels = np.clip(as_pictures(pixels), 0, 1).astype(np.float32)  # NaN stays
    if pixels.shape[1:3] != (side, side):
        out = np.empty((len(pixels), side, side, pixels.shape[3]), dtype=np.float32)
        for picture, small in zip(pixels, out, strict=True):
            for c in range(pixels.shape[3]):
                plane = Image.fromarray(np.ascontiguousarray(picture[:, :, c]))
                small[:, :, c] = np.asarray(plane.resize((side, side), Image.Resampling.BOX))

        pixels = out.clip(0, 1)

    if pixels.shape[3] == 1:
        return np.repeat(pixels, 3, axis=3)

    return pixels


def _finite_rows(compute: Callable[[np.ndarray], np.ndarray], pictures: np.ndarray) -> np.ndarray:
    """Rows of NaN for pictures that are not finite, the network's answer for the others."""
    finite = np.isfinite(pictures).all(axis=(1, 2, 3))
    if finite.all() and len(pictures):
        return np.asarray(compute(pictures), dtype=np.float32)

    # One grey picture says how many numbers there are when none is finite.
    grey = np.full((1, *pictures.shape[1:]), 0.5, dtype=np.float32)
    answers = np.asarray(compute(np.concatenate([grey, pictures[finite]])), dtype=np.float32)
    out = np.full((len(pictures), answers.shape[1]), np.nan, dtype=np.float32)
    out[finite] = answers[1:]

    return out
