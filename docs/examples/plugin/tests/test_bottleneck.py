"""The promises every recipe makes, and that the network learns."""

import numpy as np
from phosphene_bottleneck import Bottleneck

from phosphene.conformance import check_recipe
from phosphene.conformance.small_study import tiny_study


def test_bottleneck_keeps_the_promises_of_a_recipe():
    check_recipe(Bottleneck)


def test_decoded_components_follow_those_of_the_pictures():
    study = tiny_study()
    fitted = Bottleneck(Bottleneck.config_class(**Bottleneck.preset("lab"))).fit(study.train, study.stimuli)
    decoded = fitted.latents(study.averaged)["pixel_pca"]
    true = fitted.true_latents(study.stimuli.select(study.averaged.stimuli))["pixel_pca"]
    own = np.corrcoef(decoded.ravel(), true.ravel())[0, 1]
    others = np.corrcoef(decoded.ravel(), np.roll(true, 1, axis=0).ravel())[0, 1]
    assert own > others + 0.1
