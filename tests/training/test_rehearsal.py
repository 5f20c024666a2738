"""What a training will need, against closed forms and against what then happens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from phosphene.io.memory import Peak
from phosphene.training import TrainConfig, train
from phosphene.training import rehearsal as rehearsing
from phosphene.training.losses import info_nce
from phosphene.training.rehearsal import Rehearsal, _Live
from tests.training.test_loop import weights
from tests.training.toy import CONFIG, items, toy


class Layers(nn.Module):
    """Two linear maps without bias around a ReLU, so that everything can be counted by hand."""

    def __init__(self, n_in: int = 50, hidden: int = 200, n_out: int = 10):
        super().__init__()
        self.sizes = n_in, hidden, n_out
        self.first, self.second = nn.Linear(n_in, hidden, bias=False), nn.Linear(hidden, n_out, bias=False)

    def loss(self, batch, draws):
        return self.second(self.first(batch).relu()).square().mean(), {}


@pytest.fixture(autouse=True, params=[0, 10**9], ids=["shapes", "numbers"])
def judged_by(request, monkeypatch):
    """What holds of trainings judged by shapes alone holds of those that are computed."""
    monkeypatch.setattr(rehearsing, "LARGE", request.param)


def rehearsal(network, data, recompute=False, **changes):
    config = TrainConfig(**{"steps": 20, "batch_size": 16, **changes})
    with Peak() as peak:
        trainer = Rehearsal(peak, recompute=recompute)
        done = trainer(network, lambda rows: data[torch.from_numpy(rows)], len(data), config, seed=0, device="cpu")
    return trainer.trainings[0], done


def test_memory_counted_on_four_rows_is_that_of_forty():
    data = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    one, _ = rehearsal(Layers(), data)
    network = Layers()
    with _Live() as live:
        network.loss(data, None)[0].backward()
    assert one.passing(40) == max(live.trace)


def test_operations_are_those_of_the_matrix_products():
    one, done = rehearsal(Layers(), torch.randn(40, 50, generator=torch.Generator().manual_seed(0)))
    # Forward, and backward to weights and, in the second layer, to its input: the data need no gradient.
    assert one.flops == 2 * 16 * (2 * 50 * 200 + 3 * 200 * 10)
    assert (done.step, done.finished) == (20, True)


def test_memory_is_that_of_weights_and_of_the_tensors_alive_at_once():
    one, _ = rehearsal(Layers(), torch.randn(40, 50, generator=torch.Generator().manual_seed(0)), ema=0.9)
    trained = 4 * (50 * 200 + 200 * 10)
    assert dict(one.held) == {
        "weights": trained, "gradients": trained, "moments": 2 * trained, "average": trained,
    }  # fmt: skip
    # A row in the middle of the backward pass: its activations before and after the ReLU, their gradient, and 10 or 200 more.
    per_row = one.passing(100_001) - one.passing(100_000)
    assert 2 * 4 * 200 <= per_row <= 4 * (4 * 200 + 2 * 10)
    assert one.passing(1) >= trained  # with few rows, the gradients at the end are the most
    assert one.peak() == pytest.approx(4 * trained + one.passing(16), abs=1)
    assert one.peak(accumulate=4) == pytest.approx(4 * trained + max(trained, one.passing(4)), abs=1)


def test_computing_blocks_twice_is_predicted_to_save_the_activations_of_deep_networks():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(8, 400), nn.GELU(), nn.Linear(400, 8)) for _ in range(10)
            )

        def loss(self, batch, draws):
            for block in self.blocks:
                batch = batch + block(batch)
            return batch.square().mean(), {}

    one, _ = rehearsal(Deep(), torch.ones(20, 8), recompute=True)
    plain, twice = (p(20_001) - p(20_000) for p in (one.passing, one.recomputed))
    assert twice < plain / 4  # one block of ten is alive at a time
    assert one.peak(recompute=True) < one.peak()


def test_a_loss_that_looks_at_its_numbers_is_counted_on_numbers():
    class Looking(Layers):
        def loss(self, batch, draws):
            scale = 2.0 if batch.sum().item() > 0 else 1.0
            return scale * super().loss(batch, draws)[0], {}

    one, _ = rehearsal(Looking(), torch.ones(40, 50))
    two, _ = rehearsal(Layers(), torch.ones(40, 50))
    assert one.flops == two.flops
    assert one.passing(40) == pytest.approx(two.passing(40), abs=100)  # a few numbers for the scale


def test_a_large_training_is_judged_without_its_numbers(monkeypatch):
    monkeypatch.setattr(rehearsing, "LARGE", 0)

    class Huge(nn.Module):
        """A row makes 400 GB, which no machine that runs this test has."""

        def __init__(self):
            super().__init__()
            self.line = nn.Linear(1, 100_000, bias=False)

        def loss(self, batch, draws):
            many = self.line(batch)[:, :, None].expand(-1, -1, 1_000_000) * 2.0
            return many.mean(), {}

    one, _ = rehearsal(Huge(), torch.ones(40, 1))
    assert one.passing(2) > 2 * 4e11


def test_masks_may_be_drawn_and_looked_at():
    class Masking(Layers):
        def loss(self, batch, draws):
            keep = draws.uniform(1)[:, 0] < 2.0
            for i in keep.nonzero().flatten().tolist():
                assert i < len(batch)
            return super().loss(batch * keep[:, None], draws)

    one, _ = rehearsal(Masking(), torch.ones(40, 50))
    two, _ = rehearsal(Layers(), torch.ones(40, 50))
    assert one.flops == two.flops


def test_a_loss_that_compares_the_items_of_a_batch_is_known_as_one():
    class Comparing(Layers):
        def loss(self, batch, draws):
            out = self.second(self.first(batch))
            return info_nce(out, out, 1.0), {}

    assert rehearsal(Comparing(), torch.ones(40, 50), recompute=True)[0].together
    assert not rehearsal(Layers(), torch.ones(40, 50), recompute=True)[0].together


def test_a_rehearsal_leaves_nothing_behind_that_a_training_in_earnest_would_see(tmp_path):
    data = items()

    def in_earnest():
        network = toy()
        config = TrainConfig(**CONFIG)
        train(network, lambda rows: data[torch.from_numpy(rows)], len(data), config, seed=7, device="cpu")
        return weights(network)

    expected, state = in_earnest(), torch.get_rng_state()
    one, _ = rehearsal(toy(), data)
    assert one.timed
    assert one.seconds > 0
    assert torch.equal(state, torch.get_rng_state())
    again = in_earnest()
    assert all(np.array_equal(again[k], expected[k]) for k in expected)
