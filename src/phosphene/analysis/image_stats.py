"""How decoded pictures look: to the lab's networks where they know such pictures, otherwise to the training pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from phosphene.errors import DataError
from phosphene.features.pixels import PixelPca
from phosphene.metrics.category import PictureClassifier
from phosphene.metrics.perceptual import FeatureExtractor, feature_extractors_for
from phosphene.types import Images, Stimuli

_SIDE = 32
_MOST_TRAINING = 4000
_N_COMPONENTS = 50


@dataclass(frozen=True, eq=False)
class ImageStats:
    """What is seen in some pictures, one row each.

    Attributes
    ----------
    features : ndarray of shape (n, d)
        of length 1
    confidence : ndarray of shape (n,)
        0-1; see `ImageStatsReader.confidence_words`
    entropy : ndarray of shape (n,)
        bits, NaN without class probabilities
    labels : ndarray of shape (n,) or None
        category read off each picture, None where there are none
    nearest : ndarray of shape (n,)
        cosine to the most similar training picture
    contrast : ndarray of shape (n,)
        standard deviation over the pixels, 0-1
    sharpness : ndarray of shape (n,)
        mean absolute difference of neighbouring pixels, 0-1
    """

    features: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    labels: np.ndarray | None
    nearest: np.ndarray
    contrast: np.ndarray
    sharpness: np.ndarray


class ImageStatsReader:
    """Eyes for the pictures of one fold. Everything fitted here is fitted on training pictures.

    Parameters
    ----------
    dataset : str
        its name; the lab's networks know the lab's pictures only
    training : Stimuli
        stimuli of the training side
    """

    def __init__(self, dataset: str, training: Stimuli) -> None:
        eyes: dict[str, FeatureExtractor] = {e.name: e for e in feature_extractors_for(dataset)}
        self.clip = eyes.get("clip_lab")
        self.classifier = eyes.get("scenes")
        step = -(-len(training) // _MOST_TRAINING)
        kept = training.select(training.ids[::step])
        self.n_training = len(kept)
        self.is_thinned = step > 1
        size = min(_SIDE, training.image_shape[0]), min(_SIDE, training.image_shape[1])

        if self.clip:
            self._pca = None
        else:
            self._pca = PixelPca(_N_COMPONENTS, size).fit(kept)

        pictures = kept.resized(size)
        if self.classifier:
            self._reader = None
        else:
            self._reader = _reader(pictures, kept.category)

        self._size = size
        self.training_ = self.features(pictures)

        if self.clip:
            self._training_components = None
        else:
            self._training_components = self._components(pictures)

    @property
    def by_networks(self) -> bool:
        """Whether the lab's networks look; otherwise pixels do."""
        return self.clip is not None and self.classifier is not None

    @property
    def space(self) -> str:
        """Where cosines are taken, in words."""
        if self.clip:
            return "the lab's CLIP"

        return f"the first {len(self._pca.variance_)} principal components of pixels"

    @property
    def confidence_words(self) -> str:
        """What confidence is here."""
        if self.classifier:
            return "the classifier's largest probability"

        return "likeness to the nearest training picture, which sinks with blur and strangeness"

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """(n, h, w, c), 0-1, to (n, d) of length 1."""
        if self.clip:
            found = self.clip.features(pixels)
        else:
            found = self._components(pixels)

        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)

    def look(self, pixels: np.ndarray) -> ImageStats:
        """Look at pictures (n, h, w, c), 0-1."""
        features = self.features(pixels)
        nearest = (features @ self.training_.T).max(axis=1)
        entropy = np.full(len(pixels), np.nan)
        labels = None

        if self.classifier:
            p = self.classifier.probabilities(pixels).astype(np.float64)
            confidence = p.max(axis=1)
            entropy = -(p * np.log2(np.maximum(p, 1e-300))).sum(axis=1)
            labels = np.asarray(self.classifier.classes, dtype=object)[p.argmax(axis=1)]
        else:
            if self._pca:
                confidence = self._likeness(pixels)
            else:
                confidence = nearest

            if self._reader is None:
                labels = None
            else:
                labels = self._reader.predict(self._small(pixels))

        steps = [np.abs(np.diff(pixels, axis=a)).mean(axis=(1, 2, 3)) for a in (1, 2)]
        return ImageStats(
            features, confidence, entropy, labels, nearest, pixels.std(axis=(1, 2, 3)), (steps[0] + steps[1]) / 2
        )

    def _likeness(self, pixels: np.ndarray) -> np.ndarray:
        """2 z't / (z'z + t't) with the most alike training picture t: 1 for a copy, little for a faint or wild picture,
        which a cosine would let pass."""
        z = self._components(pixels)
        t = self._training_components
        size = np.square(z).sum(axis=1)[:, None] + np.square(t).sum(axis=1)
        return np.divide(2 * z @ t.T, size, out=np.zeros_like(size), where=size > 0).max(axis=1)

    def _small(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[1:3] == self._size:
            return pixels

        ids = np.arange(len(pixels)).astype(str)
        return Stimuli(ids, Images(ids, pixels).as_uint8()).resized(self._size)

    def _components(self, pixels: np.ndarray) -> np.ndarray:
        flat = self._small(pixels).reshape(len(pixels), -1)
        return (flat - self._pca.mean_) @ self._pca.components_.T


def _reader(pictures: np.ndarray, category: np.ndarray | None) -> Any:
    if category is None:
        return None

    try:
        return PictureClassifier().fit(pictures, category)
    except DataError:  # a single class, or too few pictures
        return None


def effective_number(labels: np.ndarray) -> float:
    """exp(entropy) of the labels: how many categories, equally frequent, would be as diverse.

    Examples
    --------
    >>> effective_number(np.array(["a", "a", "b", "b"])), effective_number(np.array(["a", "a"]))
    (2.0, 1.0)
    """
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return round(float(np.exp(-(share * np.log(share)).sum())), 12)
