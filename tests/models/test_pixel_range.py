"""Pictures on their way into networks and back: every grey value survives, and nothing out of range passes in silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phosphene.errors import DataError
from phosphene.models.pixel_range import as_eight_bits, from_network, to_network

ALL_GREYS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)


def test_every_grey_value_comes_back_as_it_was():
    assert np.array_equal(as_eight_bits(from_network(to_network(ALL_GREYS))), ALL_GREYS)
    assert np.array_equal(as_eight_bits(ALL_GREYS / 255), ALL_GREYS)


def test_networks_get_minus_one_to_one_with_channels_first():
    x = to_network(ALL_GREYS)
    assert x.shape == (1, 3, 16, 16) and x.dtype == torch.float32 and x.is_contiguous()
    assert (x.min().item(), x.max().item()) == (-1, 1)


def test_what_a_network_draws_out_of_range_is_clipped():
    assert np.array_equal(from_network(torch.tensor([-1.5, 3.0]).reshape(2, 1, 1, 1)).ravel(), [0, 1])


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((1, 2, 2, 3), 1.5), "lie in 0-1, but span 1.5 to 1.5"),
        (np.full((1, 2, 2, 3), -0.1), "lie in 0-1, but span -0.1"),
        (np.full((1, 2, 2, 3), np.nan), "lie in 0-1, but span nan"),
        (np.zeros((2, 2, 3)), r"but have shape \(2, 2, 3\)"),
        (np.zeros((1, 2, 2, 4)), r"but have shape \(1, 2, 2, 4\)"),
    ],
)
def test_pictures_of_another_range_or_shape_are_refused(pixels, message):
    for function in (as_eight_bits, to_network):
        with pytest.raises(DataError, match=message):
            function(pixels)


def test_whole_numbers_that_are_not_bytes_are_refused_as_eight_bits():
    with pytest.raises(DataError, match="uint8 of 0-255 or floats of 0-1, but are int64"):
        as_eight_bits(np.zeros((1, 2, 2, 3), dtype=np.int64))
