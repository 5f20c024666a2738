"""Pictures, turned, sheared, scaled and moved a little: a sample of what else could have been seen.

A few dozen training pictures span few shapes; slightly warped, they are a far larger sample of the same kind of picture.
Nothing is added but the training pictures themselves.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field
from scipy.linalg import eigh
from scipy.ndimage import affine_transform

from phosphene.errors import DataError
from phosphene.io import memory
from phosphene.io.config import Config
from phosphene.io.stages import take
from phosphene.types import Stimuli


class WarpConfig(Config):
    """Standard deviations of the warps, all normal; about what handwriting varies by."""

    turn: float = Field(default=0.17, ge=0, le=1, description="radians")
    scale: float = Field(default=0.085, ge=0, le=0.5, description="logarithm of the factor, along each axis alone")
    shear: float = Field(default=0.11, ge=0, le=1, description="pixels across per pixel along")
    shift: float = Field(default=0.03, ge=0, le=0.5, description="of the picture's side")


def warp(picture: np.ndarray, config: WarpConfig, rng: np.random.Generator) -> np.ndarray:
    """One picture under a random affine map about its middle; what comes in from outside repeats the edge.

    Parameters
    ----------
    picture : ndarray of shape (height, width, channels), float
        0-1
    config : WarpConfig
        how much
    rng : numpy.random.Generator
        draws the map

    Returns
    -------
    ndarray of shape (height, width, channels), float32
        0-1
    """
    middle = (np.array(picture.shape[:2]) - 1) / 2
    angle = rng.normal(0, config.turn)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag(np.exp(rng.normal(0, config.scale, 2)))
    stretch[0, 1] = rng.normal(0, config.shear)
    matrix = turn @ stretch
    offset = middle - matrix @ middle + rng.normal(0, config.shift, 2) * picture.shape[:2]

    channels = []
    for channel in np.moveaxis(picture, 2, 0):
        warped = affine_transform(channel, matrix, tuple(offset), order=1, mode="nearest")  # pyright: ignore[reportArgumentType]  # scipy's stub lacks one offset per axis
        channels.append(warped)

    return np.clip(np.stack(channels, axis=2), 0, 1).astype(np.float32)


class WarpedPictures:
    """Training pictures and warped copies of them, with their principal components.

    Parameters
    ----------
    n_pictures : int, default 5400
        about how many in all; every training picture is there once whatever the number
    n_components : int, default 40
        of pixels; at most as many as the pictures span
    size : tuple of (int, int), optional
        (height, width) to resize pictures to first
    config : WarpConfig, optional
        how much the copies are warped

    Attributes
    ----------
    pictures_ : array of shape (n, n_pixels), uint8
        the training pictures first
    mean_ : array of shape (n_pixels,), float32
        0-1
    components_ : array of shape (n_components, n_pixels), float32
        orthonormal rows
    """

    version: ClassVar[int] = 1

    space = "warped_pca"

    def __init__(
        self,
        n_pictures: int = 5400,
        n_components: int = 40,
        size: tuple[int, int] | None = None,
        config: WarpConfig | None = None,
    ) -> None:
        self.n_pictures = n_pictures
        self.n_components = n_components
        self.size = size
        self.config = config or WarpConfig()

    def fit(self, stimuli: Stimuli, rng: np.random.Generator) -> Self:
        """Draw the copies of distinct training pictures, and find the components of all.

        Parameters
        ----------
        stimuli : Stimuli
            training pictures, each once
        rng : numpy.random.Generator
            draws the warps

        Raises
        ------
        DataError
            When all training pictures are alike.
        MachineError
            When they do not fit into memory.
        """
        pictures = stimuli.resized(self.size)
        self.image_shape_ = pictures.shape[1:]
        if len(pictures) < 2 or pictures.std(axis=0).max() == 0:
            raise DataError(f"the {len(pictures)} training pictures are all alike; there is nothing to decode.")

        copies = max(0, round(self.n_pictures / len(pictures)) - 1)
        n = len(pictures) * (copies + 1)
        n_pixels = int(np.prod(self.image_shape_))
        memory.require_memory(
            9 * n * n_pixels,  # whole numbers, and fractions before and after their mean is taken off
            f"{n} pictures and warped copies of {self.image_shape_[0]} x {self.image_shape_[1]} pixels",
            "Make them smaller (recipe.prior.size, such as [64, 64]) or fewer (recipe.prior.n_pictures).",
        )

        self.pictures_ = np.empty((n, n_pixels), dtype=np.uint8)
        rows = iter(self.pictures_)
        for picture in pictures:
            next(rows)[:] = np.rint(255 * picture).ravel()

        for _ in range(copies):
            for picture in pictures:
                next(rows)[:] = np.rint(255 * warp(picture, self.config, rng)).ravel()

        x = self.floats()  # (n, n_pixels)
        self.mean_ = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.components_ = _components(x - self.mean_, self.n_components)

        return self

    def floats(self) -> np.ndarray:
        """All pictures, (n, n_pixels) float32, 0-1."""
        return self.pictures_.astype(np.float32) / 255

    def latents(self) -> np.ndarray:
        """Components of all pictures, (n, n_components) float32."""
        return (self.floats() - self.mean_) @ self.components_.T

    def transform(self, stimuli: Stimuli) -> np.ndarray:
        """Components of other pictures, (n_stimuli, n_components) float32."""
        pictures = stimuli.resized(self.size).reshape(len(stimuli), -1)  # (n_stimuli, n_pixels)
        return (pictures - self.mean_) @ self.components_.T

    def inverse(self, latents: np.ndarray) -> np.ndarray:
        """Pictures of components, (n, height, width, channels) float32, not clipped."""
        return (latents @ self.components_ + self.mean_).reshape(-1, *self.image_shape_)

    def mixed(self, weights: np.ndarray, moved: np.ndarray, pictures: np.ndarray | None = None) -> np.ndarray:
        """Weighted means of the pictures, moved along the components.

        Parameters
        ----------
        weights : ndarray of shape (n_out, n)
            of each picture, rows sum to 1
        moved : ndarray of shape (n_out, n_components)
            along each component
        pictures : ndarray, optional
            what `floats` gives, where many calls follow each other

        Returns
        -------
        ndarray of shape (n_out, height, width, channels), float32
            0-1
        """
        if pictures is None:
            pictures = self.floats()

        flat = weights.astype(np.float32) @ pictures + moved.astype(np.float32) @ self.components_
        return np.clip(flat, 0, 1).reshape(-1, *self.image_shape_)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        tensors = {"pictures": self.pictures_, "mean": self.mean_, "components": self.components_}
        meta = {"n_pictures": self.n_pictures, "size": self.size, "image_shape": list(self.image_shape_)}
        return tensors, {**meta, "warp": self.config.model_dump(mode="json")}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """Restore pictures and components from what `state` gave."""
        pictures, mean, components = take(tensors, ("pictures", "mean", "components"), "WarpedPictures")
        size = None
        if meta["size"] is not None:
            size = (meta["size"][0], meta["size"][1])

        part = cls(meta["n_pictures"], len(components), size, WarpConfig(**meta["warp"]))
        part.pictures_ = pictures
        part.mean_ = mean
        part.components_ = components
        part.image_shape_ = tuple(meta["image_shape"])

        return part


def _components(centred: np.ndarray, n_components: int) -> np.ndarray:
    """First principal axes of centred rows, signs fixed, as far as anything varies."""
    n, d = centred.shape
    is_dual = n < d
    most = min(n_components, n, d)

    # The smaller of the two Gram matrices has the same non-zero spectrum.
    if is_dual:
        gram = (centred @ centred.T).astype(np.float64)
    else:
        gram = (centred.T @ centred).astype(np.float64)

    values, vectors = eigh(gram, subset_by_index=(len(gram) - most, len(gram) - 1))  # ascending
    varies = values[::-1] > 1e-6 * values[-1]
    vectors = vectors[:, ::-1][:, varies]

    axes = vectors
    if is_dual:
        axes = centred.T @ vectors  # (d, k)

    axes = axes.T.astype(np.float64)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)

    # Eigenvectors have no sign of their own.
    sign = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    return np.ascontiguousarray(axes * sign[:, None], dtype=np.float32)
