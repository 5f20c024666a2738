"""What decoded pictures look like: to the lab's networks where they know such pictures, otherwise to the training pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phosphene.errors import DataError
from phosphene.features.pixels import PixelPca
from phosphene.metrics.category import PictureClassifier
from phosphene.metrics.perceptual import FeatureExtractor, feature_extractors_for
from phosphene.types import Images, Stimuli

_SIDE = 32  # pixels a side, for the components and for the picture classifier: enough for layout and colour
_MAX_TRAINING = 4000  # pictures; each picture that is measured is compared with every one of them
_N_COMPONENTS = 50


@dataclass(frozen=True)
class ImageStatsSource:
    """What pictures are measured with.

    Attributes
    ----------
    has_clip : bool
        whether features are those of the lab's CLIP, otherwise principal components of pixels
    has_classifier : bool
        whether confidence is the probability of the lab's classifier, otherwise likeness to a training picture
    n_components : int
        principal components in use; 0 with CLIP
    n_training : int
        training pictures to which pictures are compared
    is_thinned : bool
        whether these are an evenly spaced part of all
    """

    has_clip: bool
    has_classifier: bool
    n_components: int
    n_training: int
    is_thinned: bool


@dataclass(frozen=True, eq=False)
class ImageStats:
    """Measures of some pictures, one row each.

    Attributes
    ----------
    features : ndarray of shape (n, d)
        of length 1
    confidence : ndarray of shape (n,)
        0-1: the largest class probability, or likeness to the nearest training picture (see `ImageStatsSource`)
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
    """Measures the pictures of one fold. Everything fitted here is fitted on training pictures.

    Parameters
    ----------
    dataset : str
        its name; the lab's networks know the lab's pictures only
    training : Stimuli
        stimuli of the training side
    """

    def __init__(self, dataset: str, training: Stimuli) -> None:
        extractors: dict[str, FeatureExtractor] = {}
        for extractor in feature_extractors_for(dataset):
            extractors[extractor.name] = extractor

        self.clip = extractors.get("clip_lab")
        self.classifier = extractors.get("scenes")

        step = -(-len(training) // _MAX_TRAINING)  # rounded up
        compared = training.select(training.ids[::step])
        height, width = training.image_shape[:2]
        self._size = (min(_SIDE, height), min(_SIDE, width))
        pictures = compared.resized(self._size)  # (n_training, h, w, c)

        self._pca: PixelPca | None = None
        self._training_components: np.ndarray | None = None
        if self.clip is None:
            self._pca = PixelPca(_N_COMPONENTS, self._size).fit(compared)
            self._training_components = self._components(pictures)

        self._picture_classifier: PictureClassifier | None = None
        if self.classifier is None:
            self._picture_classifier = _picture_classifier(pictures, compared.category)

        self.training_ = self.features(pictures)
        self.source = ImageStatsSource(
            has_clip=self.clip is not None,
            has_classifier=self.classifier is not None,
            n_components=0 if self._pca is None else len(self._pca.variance_),
            n_training=len(compared),
            is_thinned=step > 1,
        )

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Directions of pictures in the space of comparison.

        Parameters
        ----------
        pixels : ndarray of shape (n, h, w, c)
            0-1

        Returns
        -------
        ndarray of shape (n, d)
            of length 1
        """
        if self.clip is not None:
            rows = self.clip.features(pixels)
        else:
            rows = self._components(pixels)

        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.maximum(length, np.finfo(np.float32).tiny)

    def measure(self, pixels: np.ndarray) -> ImageStats:
        """Measure pictures.

        Parameters
        ----------
        pixels : ndarray of shape (n, h, w, c)
            0-1

        Returns
        -------
        ImageStats
        """
        features = self.features(pixels)
        nearest = (features @ self.training_.T).max(axis=1)  # (n,)
        entropy = np.full(len(pixels), np.nan)
        labels = None

        if self.classifier is not None:
            p = self.classifier.probabilities(pixels).astype(np.float64)  # (n, n_classes)
            confidence = p.max(axis=1)
            entropy = -(p * np.log2(np.maximum(p, 1e-300))).sum(axis=1)  # 0 log 0 is 0
            labels = np.asarray(self.classifier.classes, dtype=object)[p.argmax(axis=1)]
        else:
            confidence = nearest if self._pca is None else self._likeness(pixels)

            if self._picture_classifier is not None:
                labels = self._picture_classifier.predict(self._small(pixels))

        along_height = np.abs(np.diff(pixels, axis=1)).mean(axis=(1, 2, 3))
        along_width = np.abs(np.diff(pixels, axis=2)).mean(axis=(1, 2, 3))

        return ImageStats(
            features=features,
            confidence=confidence,
            entropy=entropy,
            labels=labels,
            nearest=nearest,
            contrast=pixels.std(axis=(1, 2, 3)),
            sharpness=(along_height + along_width) / 2,
        )

    def _likeness(self, pixels: np.ndarray) -> np.ndarray:
        """2 z't / (z'z + t't) with the most alike training picture t: 1 for a copy, little for a faint or wild picture,
        which a cosine would let pass."""
        assert self._training_components is not None
        z = self._components(pixels)  # (n, n_components)
        t = self._training_components  # (n_training, n_components)
        size = np.square(z).sum(axis=1)[:, None] + np.square(t).sum(axis=1)  # (n, n_training)
        likeness = np.divide(2 * z @ t.T, size, out=np.zeros_like(size), where=size > 0)  # (n, n_training)
        return likeness.max(axis=1)

    def _small(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[1:3] == self._size:
            return pixels

        ids = np.arange(len(pixels)).astype(str)
        return Stimuli(ids, Images(ids, pixels).as_uint8()).resized(self._size)

    def _components(self, pixels: np.ndarray) -> np.ndarray:
        assert self._pca is not None
        flat = self._small(pixels).reshape(len(pixels), -1)  # (n, n_pixels)
        return (flat - self._pca.mean_) @ self._pca.components_.T  # (n, n_components)


def _picture_classifier(pictures: np.ndarray, category: np.ndarray | None) -> PictureClassifier | None:
    if category is None:
        return None

    try:
        return PictureClassifier().fit(pictures, category)
    except DataError:  # a single class, or too few pictures
        return None


def effective_number(labels: np.ndarray) -> float:
    """exp(entropy) of the labels: how many categories, equally frequent, would be as diverse.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        category of each picture

    Returns
    -------
    float
        1 or more

    Examples
    --------
    >>> effective_number(np.array(["a", "a", "b", "b"])), effective_number(np.array(["a", "a"]))
    (2.0, 1.0)
    """
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return round(float(np.exp(-(share * np.log(share)).sum())), 12)
