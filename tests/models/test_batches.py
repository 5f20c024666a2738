"""Rows go through a network some at a time, and come out as if they had gone together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phosphene.errors import DataError
from phosphene.models.batches import in_batches

ROWS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Dropout(0.5))


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_the_batch_size_changes_nothing_and_dropout_rests(network, batch_size):
    expected = ROWS @ network[0].weight.detach().numpy().T + network[0].bias.detach().numpy()
    out = in_batches(network, network, ROWS, batch_size, "betas")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-6)  # sums of five products in float32


@pytest.mark.parametrize("mode", [True, False])
def test_the_network_is_left_in_the_mode_it_was_in_also_after_an_error(network, mode):
    network.train(mode)
    in_batches(network, network, ROWS, 3, "betas")
    assert network.training is mode
    with pytest.raises(DataError):
        in_batches(network, network, np.full((2, 5), np.nan), 3, "betas")
    assert network.training is mode


def test_tokens_keep_their_shape(network):
    out = in_batches(lambda x: x.reshape(-1, 5, 1), network, ROWS, 3, "betas")
    np.testing.assert_array_equal(out, ROWS[:, :, None])


def test_what_is_not_finite_is_named_by_row_and_column_across_blocks(network):
    broken = ROWS.copy()
    broken[5, 2] = np.inf
    with pytest.raises(DataError, match=r"latents must be finite, but row 5, column 2 \(from 0\) is inf"):
        in_batches(network, network, broken, 2, "latents")


@pytest.mark.parametrize(("rows", "said"), [(ROWS[0], r"one row an item.*\(5,\)"), (ROWS[:0], "no rows")])
def test_rows_that_are_none_are_refused(network, rows, said):
    with pytest.raises(DataError, match=said):
        in_batches(network, network, rows, 2, "betas")
