"""Every feature space, and feature spaces that are broken in one way each."""

import numpy as np
import pytest

from phosphene.conformance import NonConforming, check_feature
from phosphene.features.clip import ClipFeatures
from phosphene.features.pixels import PixelPca
from phosphene.features.vdvae_latents import VdvaeFeatures
from phosphene.lab import zoo
from tests.conformance.small import small_study

FEATURES = {
    "pixels": (lambda: PixelPca(4), ()),
    "CLIP": (ClipFeatures, ("clip",)),
    "CLIP tokens": (lambda: ClipFeatures(output="tokens", normalise="none"), ("clip",)),
    "VDVAE": (VdvaeFeatures, ("vdvae",)),
    "VDVAE samples": (lambda: VdvaeFeatures(target="sample"), ("vdvae",)),
}
WAIVED = {"pixels": {"none": "PixelPca.transform of no pictures raises ValueError"}}


@pytest.fixture(scope="module")
def study():
    return small_study()


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_space_keeps_its_promises(name, study):
    make, networks = FEATURES[name]
    if absent := set(networks) - set(zoo.names()):
        pytest.skip(f"the zoo's {', '.join(sorted(absent))} is not bundled")
    check_feature(make(), study=study, waived=WAIVED.get(name))


class Means:
    """Mean of each channel: a feature space as small as one can be."""

    space = "means"

    def shape(self):
        return (3,)

    def transform(self, stimuli):
        return stimuli.floats().mean(axis=(1, 2)).astype(np.float32)


class Centred(Means):
    """Less the mean of whatever pictures come together."""

    def transform(self, stimuli):
        means = super().transform(stimuli)
        return means - means.mean(axis=0) if len(means) else means


class Misshapen(Means):
    """Announces another shape than it has."""

    def shape(self):
        return (4,)


class Named(Means):
    """Has a name that no column can carry."""

    space = "Channel means!"


class Wide(Means):
    """In double precision."""

    def transform(self, stimuli):
        return super().transform(stimuli).astype(np.float64)


class Blank(Means):
    """Undefined for one picture."""

    def transform(self, stimuli):
        means = super().transform(stimuli)
        means[:1] = np.nan
        return means


class Lookalike(Means):
    """Sees nothing."""

    def transform(self, stimuli):
        return 0 * super().transform(stimuli)


class Drifting(Means):
    """Remembers how often it was asked."""

    asked = 0

    def transform(self, stimuli):
        self.asked += 1
        return super().transform(stimuli) + np.float32(1e-3 * self.asked)


def test_a_sound_feature_space_passes(study):
    check_feature(Means(), study=study)


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (Centred, "batch dependence"),
        (Misshapen, "latents"),
        (Named, "space"),
        (Wide, "latents"),
        (Blank, "latents"),
        (Lookalike, "latents"),
        (Drifting, "repeat"),
    ],
)
def test_a_feature_space_broken_in_one_way_is_caught_and_the_way_is_named(broken, claim, study):
    with pytest.raises(NonConforming) as caught:
        check_feature(broken(), study=study)
    assert claim in caught.value.failures


def test_one_that_is_fitted_may_not_look_at_test_pictures(study):
    class Peeking(PixelPca):
        """Takes the mean of all pictures there are."""

        def fit(self, stimuli):
            assert len(np.asarray(stimuli.images.source[:]))
            return super().fit(stimuli)

    with pytest.raises(NonConforming) as caught:
        check_feature(Peeking(4), study=study)
    assert "test side" in caught.value.failures["fit"]
