"""Two linear ways from voxels to latents: regress the latents on the voxels, or invert a model of the voxels.

Both weigh voxels by what an encoding model (latents to voxels) predicts of them in held-out training responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from phosphene.align.ridge import Ridge
from phosphene.errors import DataError
from phosphene.run.stages import take

ALPHAS = tuple(float(a) for a in np.logspace(-1, 6, 29))
"""Grid of ridge penalties, for inputs of unit variance."""


class LinearDecoder:
    """An affine map from voxels to latents.

        z = (x - mean_) weights_ + offset_

    Attributes
    ----------
    weights_ : (n_voxels, n_latents) float32; rows of voxels that are not used are zero
    mean_ : (n_voxels,) float32
    offset_ : (n_latents,) float32
    voxel_weights_ : (n_voxels,) float32, how much a voxel was trusted, 0 for unused
    chosen_ : what was chosen inside the training trials, for people
    """

    def __init__(
        self,
        weights: np.ndarray,
        mean: np.ndarray,
        offset: np.ndarray,
        voxel_weights: np.ndarray,
        chosen: dict[str, Any],
    ) -> None:
        self.weights_ = weights.astype(np.float32)
        self.mean_ = mean.astype(np.float32)
        self.offset_ = offset.astype(np.float32)
        self.voxel_weights_ = voxel_weights.astype(np.float32)
        self.chosen_ = chosen

    def predict(self, betas: np.ndarray) -> np.ndarray:
        """Latents, (n, n_latents) float32, of standardised betas (n, n_voxels)."""
        return (betas - self.mean_) @ self.weights_ + self.offset_

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        tensors = {
            "weights": self.weights_,
            "mean": self.mean_,
            "offset": self.offset_,
            "voxel_weights": self.voxel_weights_,
        }
        return tensors, self.chosen_

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same decoder again."""
        return cls(*take(tensors, ("weights", "mean", "offset", "voxel_weights"), "LinearDecoder"), chosen=meta)


def reliable_voxels(r2: np.ndarray) -> np.ndarray:
    """Mask of voxels whose held-out responses the encoding model predicts (R2 > 0).

    Parameters
    ----------
    r2 : (n_voxels,) held-out share of variance explained

    Returns
    -------
    (n_voxels,) bool

    Raises
    ------
    DataError
        When no voxel is predicted better than by its mean.
    """
    mask = np.nan_to_num(r2, nan=-1.0) > 0
    if not mask.any():
        raise DataError(
            f"none of {len(r2)} voxels is predicted from the pictures better than by its mean (largest held-out R2 "
            f"{np.nanmax(r2) if np.isfinite(r2).any() else float('nan'):.3f}). Trials and stimuli may be misaligned, or the "
            "data too few or too noisy; check the trial order, or set recipe.decoder.voxels=all."
        )
    return mask


def ridge_decoder(
    betas: np.ndarray,
    latents: np.ndarray,
    voxel_weights: np.ndarray,
    *,
    alphas: Sequence[float] = ALPHAS,
    groups: np.ndarray | None = None,
) -> LinearDecoder:
    """Regress latents on weighted voxels, with the penalty chosen by exact leave-one-out (or by grouped folds).

    Parameters
    ----------
    betas : (n, n_voxels) float32, standardised
    latents : (n, n_latents) float32
    voxel_weights : (n_voxels,) non-negative; a voxel is multiplied by its weight, so 0 leaves it out
    alphas : penalties to choose among, one for all latents
    groups : (n,) stimulus of each row, where rows repeat stimuli; whole stimuli are then held out together

    Returns
    -------
    LinearDecoder
    """
    used = voxel_weights > 0
    # Scaling by the mean square keeps the meaning of alpha: as if all used voxels had unit variance.
    scale = voxel_weights[used] / np.sqrt(np.mean(voxel_weights[used] ** 2))
    ridge = _ridge(alphas, groups, per_target=False)
    ridge.fit(betas[:, used] * scale, latents, groups=groups)
    weights = np.zeros((betas.shape[1], latents.shape[1]), dtype=np.float32)
    weights[used] = ridge.coef() * scale[:, None]
    mean = np.zeros(betas.shape[1], dtype=np.float32)
    return LinearDecoder(weights, mean, ridge.intercept(), voxel_weights, {"alpha": float(np.ravel(ridge.alpha_)[0])})
