"""The best step of a training, on a network that is set by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from phosphene.training import TrainConfig, train
from phosphene.training.best_step import BestStep, EnoughError


def walk(values, best, network):
    """Looks at steps 1, 2 ... with the network's weight set to each value in turn."""
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            network.weight.fill_(value)
        best.look({"step": step})


def line():
    return nn.Linear(1, 1, bias=False)


def test_the_smallest_number_wins_and_the_first_of_equals():
    network = line()
    best = BestStep(network, lambda: abs(network.weight.item() - 2), "error")
    walk([5, 3, 1, 4], best, network)
    assert (best.step, best.value) == (2, 1.0)
    assert best.restore()
    assert network.weight.item() == 3


def test_a_number_that_is_not_one_is_never_the_best():
    network = line()
    best = BestStep(network, lambda: np.nan, "error")
    walk([1, 2], best, network)
    assert not best.restore()
    assert network.weight.item() == 2


def test_patience_ends_a_training_and_says_at_which_step():
    network = line()
    best = BestStep(network, lambda: abs(network.weight.item()), "error", patience=2)
    with pytest.raises(EnoughError) as enough:
        walk([3, 1, 2, 2, 0], best, network)
    assert enough.value.step == 4
    assert best.step == 2


def test_judging_is_in_evaluation_mode_and_leaves_the_mode_as_it_was():
    network, modes = line().train(), []
    best = BestStep(network, lambda: float(modes.append(network.training) or 1), "error")
    best.look({"step": 1})
    assert modes == [False]
    assert network.training


class Falls(nn.Module):
    """One weight that a training moves down, past the best place for it."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.ones(()))

    def loss(self, batch, draws):
        return self.x.square(), {}


def test_it_is_found_again_in_the_folder_of_a_training(tmp_path):
    def watched(network):
        return BestStep(network, lambda: abs(network.x.item() - 0.5), "error", tmp_path)

    network = Falls()
    best = watched(network)
    settings = TrainConfig(steps=12, batch_size=1, lr=0.1, schedule="constant", weight_decay=0)
    train(
        network, lambda rows: torch.ones(1), 1, settings, seed=0, folder=tmp_path, log_every=1, watch=best.look, device="cpu"
    )  # fmt: skip
    again = watched(Falls())
    assert 1 < best.step < 12
    assert (again.step, again.value) == (best.step, best.value)
    again.restore()
    assert abs(again.network.x.item() - 0.5) == pytest.approx(best.value)
