"""Feature extractors: frozen networks by whose features decoded and true pictures are compared.

>>> extractors = feature_extractors_for("insilico-nsd")                              # doctest: +SKIP
>>> true_features = [extract_features(x, true) for x in extractors]     # once       # doctest: +SKIP
>>> views = feature_views(true_features, decoded)                                    # doctest: +SKIP
>>> compute_scores(Decoded(ids, decoded, true, feature_views=views))                          # doctest: +SKIP

A score by a network's features is only as good as the network, and flatters a recipe that was trained towards the same
one: read it together with the score of another network, and with the controls.

Drawn scenes go to the lab's own networks, photographs to public ones (``public_extractors``), each where its weights are
found. To add one, write a class with what :class:`FeatureExtractor` lists and name it in ``FEATURE_EXTRACTORS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from phosphene.metrics.metric import OF_FEATURES, FeatureView
from phosphene.metrics.pixel import as_pictures
from phosphene.metrics.public_extractors import PUBLIC_EXTRACTORS

PHOTOGRAPHS = "photographs"
"""Name by which pictures of no known data set are given to the networks of photographs."""
_SIDE = 32  # pixels, of every network of the zoo
_BATCH = 500


class FeatureExtractor(Protocol):
    """A frozen network that turns pictures into features.

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

    @property
    def name(self) -> str:
        """Short, for names of metrics."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Kinds of metrics that its features serve."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether its weights are on this machine."""
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


class LabClipExtractor:
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
        unit = _finite_rows(self._clip.images, _network_input(pixels))
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

    @property
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

        return _finite_rows(compute, _network_input(pixels))

    @cached_property
    def _network(self) -> Any:
        from phosphene.models import bundled

        return bundled.load("classifier")


def _in_zoo(network: str) -> bool:
    from phosphene.models import bundled

    return network in bundled.names()


FEATURE_EXTRACTORS: Mapping[str, Sequence[Callable[[], FeatureExtractor]]] = {
    "insilico": (LabClipExtractor, SceneExtractor),
    **dict.fromkeys(("nsd", "bold5000", "god", "hcp", PHOTOGRAPHS), tuple(PUBLIC_EXTRACTORS.values())),
}
"""First part of a data set's name to what makes its feature extractors."""


def feature_extractors_for(dataset: str) -> list[FeatureExtractor]:
    """The feature extractors that know the kind of pictures a data set has, and whose weights are here.

    Parameters
    ----------
    dataset : str
        its name, such as ``insilico-nsd``

    Returns
    -------
    list of FeatureExtractor
        empty where no network knows such pictures: the lab's were trained on drawn scenes alone
    """
    kind = dataset.split("-")[0]
    extractors = [make() for make in FEATURE_EXTRACTORS.get(kind, ())]
    return [extractor for extractor in extractors if extractor.is_here]


@dataclass(frozen=True, eq=False)
class TrueFeatures:
    """Features of the true pictures by one extractor: computed once, whatever is decoded.

    Attributes
    ----------
    extractor : FeatureExtractor
        the network
    features : ndarray of shape (n, d)
        one row per true picture
    probabilities : ndarray of shape (n, n_classes)
        what it takes each true picture for; no columns where it does not classify
    """

    extractor: FeatureExtractor
    features: np.ndarray
    probabilities: np.ndarray


def extract_features(extractor: FeatureExtractor, true_pictures: np.ndarray) -> TrueFeatures:
    """Features of the true pictures.

    Parameters
    ----------
    extractor : FeatureExtractor
        a network
    true_pictures : ndarray of shape (n, height, width, 1 or 3)
        0 to 1

    Returns
    -------
    TrueFeatures
        to compare decoded pictures with
    """
    return TrueFeatures(extractor, extractor.features(true_pictures), extractor.probabilities(true_pictures))


def feature_view(true: TrueFeatures, decoded_pictures: np.ndarray) -> FeatureView:
    """Features of decoded pictures together with those of the true ones.

    Parameters
    ----------
    true : TrueFeatures
        of the true pictures
    decoded_pictures : ndarray of shape (n, height, width, 1 or 3)
        0 to 1, in the same order

    Returns
    -------
    FeatureView
        both sides
    """
    extractor = true.extractor
    return FeatureView(
        features=extractor.features(decoded_pictures),
        true_features=true.features,
        probabilities=extractor.probabilities(decoded_pictures),
        true_probabilities=true.probabilities,
        classes=extractor.classes,
        metrics=extractor.metrics,
    )


def feature_views(true: Sequence[TrueFeatures], decoded_pictures: np.ndarray) -> dict[str, FeatureView]:
    """Views of several extractors by name: what ``Decoded(feature_views=...)`` takes.

    Parameters
    ----------
    true : sequence of TrueFeatures
        of the true pictures, one per extractor
    decoded_pictures : ndarray of shape (n, height, width, 1 or 3)
        0 to 1, in the same order

    Returns
    -------
    dict[str, FeatureView]
        name of the extractor -> both sides
    """
    return {t.extractor.name: feature_view(t, decoded_pictures) for t in true}


def _network_input(pixels: np.ndarray, side: int = _SIDE) -> np.ndarray:
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
