"""The pictures that other rooms keep as files are those that the lab draws."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.features import fingerprint
from phosphene.lab import references
from phosphene.metrics import golden


@pytest.mark.numeric
def test_the_lab_still_draws_the_references_of_fingerprints():
    drawn = references.fingerprint_inputs()
    kept = fingerprint.reference_pictures()

    assert kept.dtype == np.uint8
    assert kept.shape == (8, 64, 64, 3)
    np.testing.assert_array_equal(drawn["pictures"], kept)
    assert drawn["texts"].tolist() == fingerprint.reference_texts()


@pytest.mark.numeric
def test_the_lab_still_draws_the_scenes_of_the_golden_values():
    kept = golden.golden_scenes()

    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(references.golden_inputs()["pictures"], kept)


def test_what_is_written_is_what_the_package_holds(tmp_path):
    for folder in ("features", "metrics"):
        (tmp_path / folder).mkdir()

    fresh, scenes = references.write_references(tmp_path)

    with np.load(fresh) as file:
        np.testing.assert_array_equal(file["pictures"], fingerprint.reference_pictures())
        assert file["texts"].tolist() == fingerprint.reference_texts()

    with np.load(scenes) as file:
        np.testing.assert_array_equal(file["pictures"], golden.golden_scenes())
