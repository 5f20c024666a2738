"""Every generator, with the zoo's weights, and generators that are broken in one way each."""

import zlib

import numpy as np
import pytest

from phosphene.conformance import NonConforming, check_generator
from phosphene.errors import DataError
from phosphene.lab import zoo

N = 4


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, *shape)).astype(np.float32)


def _maskgit():
    from phosphene.models.maskgit import MaskGitPipeline, MaskGitSampling

    latents = _normal(64)
    latents /= np.linalg.norm(latents, axis=1, keepdims=True)
    sampling = MaskGitSampling(steps=3, samples=1)
    return MaskGitPipeline.bundled(), latents, lambda g: lambda x, ids, seed: g.sample(x, ids, sampling, seed)


def _vdvae():
    from phosphene.features.vdvae_latents import VdvaeFeatures
    from phosphene.models import vdvae as vdvae_weights
    from phosphene.models.vdvae import VdvaeDecoder

    latents = VdvaeFeatures().images(np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8))
    return VdvaeDecoder(vdvae_weights.load_vdvae("lab", "cpu")), latents, lambda g: None


def _dual_guided():
    from phosphene.models.dual_guided import DualGuided, RefineConfig

    generator, sampling = DualGuided.bundled(), RefineConfig(steps=2)
    c = generator.config["unet"]
    conditions = _normal(c["vision_tokens"], c["context"]), _normal(c["text_tokens"], c["context"])

    def draw(g):
        return lambda vision, text, ids, seed: g.refine(None, vision, text, ids, sampling, seed)

    return generator, conditions, draw


def _ldm():
    from phosphene.models.ldm import Ldm, LdmSampling

    generator, sampling = Ldm.bundled().with_tokens(3, 16, seed=0), LdmSampling(steps=2, samples=1)
    return generator, _normal(3, 16), lambda g: lambda x, ids, seed: g.sample(x, ids, sampling, seed)


def _stylegan2():
    from phosphene.models.stylegan2 import StyleGan2, StyleGan2Sampling

    generator, sampling = StyleGan2.bundled(), StyleGan2Sampling()
    width = generator.module.config.condition
    return (
        generator,
        (_normal(width), _normal(width)[::-1]),
        lambda g: lambda image, text, ids, seed: g.sample(image, text, ids, sampling, seed),
    )


GENERATORS = {
    "maskgit": (_maskgit, {"maskgit", "vq"}),
    "vdvae": (_vdvae, {"vdvae"}),
    "dual_guided": (_dual_guided, {"dual_guided", "kl"}),
    "ldm": (_ldm, {"ldm", "vq"}),
    "stylegan2": (_stylegan2, {"stylegan2"}),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_keeps_its_promises(name):
    make, networks = GENERATORS[name]
    if absent := networks - set(zoo.names()):
        pytest.skip(f"the zoo's {', '.join(sorted(absent))} is not bundled")
    generator, latents, draw = make()
    check_generator(generator, latents, draw=draw(generator))


class Patches:
    """A picture of one colour per latent, with noise of its own for each id."""

    def decode(self, latents, ids, *, seed):
        if latents.ndim != 2 or latents.shape[1] != 3:
            raise DataError(f"latents must be three colours per picture, but have shape {latents.shape}.")
        if len(latents) != len(ids):
            raise DataError(f"{len(latents)} rows of latents came with {len(ids)} ids; give one row an id.")
        if not np.isfinite(latents).all():
            raise DataError("latents must be finite, but some are NaN; decode them again.")
        noise = np.stack([self.noise(seed, i) for i in ids])
        return self.develop(latents, np.clip(0.5 + 0.1 * latents[:, None, None] + noise, 0, 1).astype(np.float32))

    def noise(self, seed, name):
        return 0.05 * np.random.default_rng([seed, zlib.crc32(str(name).encode())]).standard_normal((4, 4, 3))

    def develop(self, latents, pictures):
        return pictures


class Overexposed(Patches):
    """Leaves the range of pixels."""

    def develop(self, latents, pictures):
        return 3 * pictures


class Frozen(Patches):
    """Draws the same whatever the seed."""

    def noise(self, seed, name):
        return super().noise(0, name)


class Sequential(Patches):
    """Takes noise from one stream, in the order of asking."""

    def decode(self, latents, ids, *, seed):
        self.rng = np.random.default_rng(seed)
        return super().decode(latents, ids, seed=seed)

    def noise(self, seed, name):
        return 0.05 * self.rng.standard_normal((4, 4, 3))


class Careless(Patches):
    """Draws from the global generator."""

    def noise(self, seed, name):
        return 0.05 * np.random.standard_normal((4, 4, 3))  # noqa: NPY002  it is the fault


class Unasking(Patches):
    """Takes what is not a number for 0."""

    def decode(self, latents, ids, *, seed):
        return super().decode(np.nan_to_num(latents), ids, seed=seed)


class Blind(Patches):
    """Draws the same whatever the latent."""

    def decode(self, latents, ids, *, seed):
        return np.broadcast_to(super().decode(latents, ids, seed=seed)[:1], (len(ids), 4, 4, 3))


def test_a_sound_generator_passes():
    check_generator(Patches(), _normal(3))


@pytest.mark.parametrize(
    ("broken", "claims"),
    [
        (Overexposed, {"pictures"}),
        (Frozen, {"seed"}),
        (Sequential, {"order", "batch dependence", "id"}),
        (Careless, {"global seed", "repeat", "order", "batch dependence", "id"}),
        (Unasking, {"NaN"}),
        (Blind, {"pictures", "order", "batch dependence"}),
    ],
)
def test_a_generator_broken_in_one_way_is_caught_and_the_way_is_named(broken, claims):
    with pytest.raises(NonConforming) as caught:
        check_generator(broken(), _normal(3))
    assert set(caught.value.failures) & claims
    assert set(caught.value.failures) <= claims, str(caught.value)
