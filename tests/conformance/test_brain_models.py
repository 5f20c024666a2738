"""Every model from betas to latents, and models that are broken in one way each."""

from typing import Any

import numpy as np
import pytest

from phosphene import models as brain
from phosphene.conformance import NonConforming, check_brain_model
from phosphene.errors import DataError, ModelError
from phosphene.io.stages import take

N_VOXELS, N_LATENTS = 40, 7
BETAS = np.random.default_rng(0).standard_normal((6, N_VOXELS)).astype(np.float32)
GROUPS = [np.arange(15), np.arange(15, N_VOXELS)]


def _net(kind: str):
    config = brain.latent_net_config({"kind": kind} | brain.LATENT_NETS[kind].preset("lab"))
    groups = GROUPS if kind == "group_gru" else ()

    def fit(seed: int):
        return brain.LatentNetPart.of(brain.LatentNet.create(config, N_VOXELS, N_LATENTS, seed, groups=groups))

    return fit


def _mapper(seed: int):
    config = brain.MapperConfig(**brain.MapperConfig.preset("lab"))
    return brain.MapperPart.of(brain.Mapper.create(config, N_VOXELS, N_LATENTS, seed))


def _patches(seed: int):
    config = brain.PatchMaeConfig(**brain.PatchMaeConfig.preset("lab"))
    return brain.PatchMaePart.of(brain.PatchMae.create(config, {"someone": N_VOXELS}, seed))


def _rois(seed: int):
    config = brain.RoiMaeConfig(**brain.RoiMaeConfig.preset("lab"))
    return brain.RoiMaePart.of(brain.RoiMae.create(config, {"someone": GROUPS}, seed))


MODELS = {
    **{kind: (_net(kind), "predict") for kind in brain.LATENT_NETS},
    "mapper": (_mapper, "predict"),
    "patch_mae": (_patches, "to_latent"),
    "roi_mae": (_rois, "to_latent"),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_brain_model_keeps_its_promises(name):
    fit, predict = MODELS[name]
    check_brain_model(fit(0), BETAS, predict=predict, fit=fit)


class Map:
    """A linear map from betas to latents."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights

    @classmethod
    def fit(cls, seed: int):
        return cls(np.random.default_rng(seed).standard_normal((N_VOXELS, N_LATENTS)).astype(np.float32))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {"weights": self.weights}, {}

    @classmethod
    def from_state(cls, tensors, meta):
        return cls(*take(tensors, ("weights",), "map"))

    def predict(self, betas):
        if betas.ndim != 2:
            raise DataError(f"betas must be one row a trial, but came with shape {betas.shape}.")
        if betas.shape[1] != len(self.weights):
            raise ModelError(f"betas has {betas.shape[1]} voxels but this map was fitted on {len(self.weights)}.")
        if not np.isfinite(betas).all():
            raise DataError("betas must be finite, but some are NaN; drop or repair such trials.")
        return self._map(betas)

    def _map(self, betas):
        return betas @ self.weights


class Rescaled(Map):
    """By the spread of whatever comes together."""

    def _map(self, betas):
        return super()._map(betas) / betas.std()


class Overwriting(Map):
    """Works in the memory of its input."""

    def _map(self, betas):
        betas -= 1
        return super()._map(betas)


class Rounding(Map):
    """Saves fewer digits than it computes with."""

    def state(self):
        return {"weights": self.weights.astype(np.float16)}, {}


class Lenient(Map):
    """Takes what is not a number for 0."""

    def predict(self, betas):
        return super().predict(np.nan_to_num(betas))


class Silent(Map):
    """Leaves errors to numpy."""

    def predict(self, betas):
        return self._map(betas)


class Lucky(Map):
    """Is another one each time."""

    @classmethod
    def fit(cls, seed):
        return super().fit(np.random.default_rng().integers(1000))


def test_a_sound_model_passes():
    check_brain_model(Map.fit(0), BETAS, fit=Map.fit)


@pytest.mark.parametrize(
    ("broken", "claims"),
    [
        (Rescaled, {"batch dependence"}),
        (Overwriting, {"input", "repeat", "order", "batch dependence", "save"}),
        (Rounding, {"save"}),
        (Lenient, {"NaN"}),
        (Silent, {"voxels", "axes", "NaN"}),
        (Lucky, {"seed"}),
    ],
)
def test_a_brain_model_broken_in_one_way_is_caught_and_the_way_is_named(broken, claims):
    with pytest.raises(NonConforming) as caught:
        check_brain_model(broken.fit(0), BETAS, fit=broken.fit)
    assert set(caught.value.failures) & claims
    assert set(caught.value.failures) <= claims, str(caught.value)
