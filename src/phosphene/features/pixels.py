"""Principal components of pixels: the plainest latents a picture can have, and the only ones it can be drawn from."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from scipy.linalg import eigh

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.stages import take
from phosphene.types import Stimuli


class PixelPca:
    """Principal components of pictures, fitted on training pictures only.

        z = (x - mean) V,    x = mean + z V'

    Parameters
    ----------
    n_components : int, optional
        how many to keep; all that the training pictures span (at most n - 1) when None
    size : tuple of (int, int), optional
        (height, width) to resize pictures to first; as they are when None

    Attributes
    ----------
    mean_ : array of shape (n_pixels,), float32
        0-1
    components_ : array of shape (n_components, n_pixels), float32
        orthonormal rows
    variance_ : array of shape (n_components,), float32
        variance of each latent over the training pictures
    """

    version: ClassVar[int] = 1

    space = "pixel_pca"

    def __init__(self, n_components: int | None = None, size: tuple[int, int] | None = None) -> None:
        self.n_components = n_components
        self.size = size

    def fit(self, stimuli: Stimuli) -> Self:
        """Fit on distinct training pictures, each counted once.

        Parameters
        ----------
        stimuli : Stimuli
            the pictures

        Raises
        ------
        DataError
            With fewer than two distinct pictures: nothing varies.
        """
        x = self._flat(stimuli)  # (n, n_pixels)
        self.image_shape_ = self._shape(stimuli)
        mean = x.mean(axis=0, dtype=np.float64)
        centred = x - mean.astype(np.float32)
        n, d = centred.shape
        small = min(n, d)

        # The smaller of the two Gram matrices has the same non-zero spectrum and is far cheaper than an SVD.
        precise = centred
        if n * d * small < 2e11:
            precise = centred.astype(np.float64)

        if n <= d:
            gram = (precise @ precise.T).astype(np.float64)
        else:
            gram = (precise.T @ precise).astype(np.float64)

        most = min(self.n_components or small, small)
        values, vectors = eigh(gram, subset_by_index=(small - most, small - 1))
        values = values[::-1]
        vectors = vectors[:, ::-1]

        keep = 0
        if values[0] > 0:
            keep = int((values > values[0] * 1e-9).sum())

        if keep == 0:
            raise DataError(f"the {n} training pictures are all alike; there is nothing to decode.")

        components = vectors[:, :keep].T
        if n <= d:
            components = (vectors[:, :keep] / np.sqrt(values[:keep])).T @ precise  # (keep, n_pixels)

        # Eigenvectors have no sign; fix it so that every machine gives the same latents.
        sign = np.sign(components[np.arange(keep), np.abs(components).argmax(axis=1)])
        self.components_ = (components * sign[:, None]).astype(np.float32)
        self.mean_ = mean.astype(np.float32)
        self.variance_ = (values[:keep] / n).astype(np.float32)

        return self

    def transform(self, stimuli: Stimuli) -> np.ndarray:
        """Latents of pictures, (n_stimuli, n_components) float32.

        Raises
        ------
        ModelError
            Before `fit`.
        """
        self._refuse_unfitted()
        return (self._flat(stimuli) - self.mean_) @ self.components_.T

    def inverse(self, latents: np.ndarray) -> np.ndarray:
        """Pictures of latents, (n, height, width, channels) float32, nominally 0-1 and not clipped.

        Raises
        ------
        ModelError
            Before `fit`.
        """
        self._refuse_unfitted()
        flat = latents @ self.components_ + self.mean_  # (n, n_pixels)
        return flat.reshape(-1, *self.image_shape_)

    def _refuse_unfitted(self) -> None:
        if not hasattr(self, "components_"):
            raise ModelError(
                "these pixel latents are not fitted yet: call fit(stimuli) with the training pictures first."
            )

    def _shape(self, stimuli: Stimuli) -> tuple[int, int, int]:
        """Height, width and channels after resizing."""
        height, width, channels = stimuli.image_shape
        if self.size is not None:
            height, width = self.size

        return (height, width, channels)

    def _flat(self, stimuli: Stimuli) -> np.ndarray:
        """Pictures as rows of pixels, 0-1."""
        shape = self._shape(stimuli)
        if hasattr(self, "image_shape_") and shape != self.image_shape_:
            raise ConfigError(f"pictures of {shape} came to latents fitted on {self.image_shape_}; resize them first.")

        blocks = []
        for start in range(0, len(stimuli), 1024):
            block = stimuli.resized(self.size, slice(start, start + 1024))
            blocks.append(block.reshape(len(block), -1))

        return np.concatenate(blocks)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving. Raises ModelError before `fit`."""
        self._refuse_unfitted()
        tensors = {"mean": self.mean_, "components": self.components_, "variance": self.variance_}
        return tensors, {"n_components": self.n_components, "size": self.size, "image_shape": self.image_shape_}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """Restore latents from what `state` gave."""
        size = None
        if meta["size"] is not None:
            size = (meta["size"][0], meta["size"][1])

        pca = cls(meta["n_components"], size)
        pca.mean_, pca.components_, pca.variance_ = take(tensors, ("mean", "components", "variance"), "PixelPca")
        pca.image_shape_ = tuple(meta["image_shape"])

        return pca
