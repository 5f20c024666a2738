"""Batches, noise, losses, and networks as parts of a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from phosphene.errors import DataError, ModelError
from phosphene.io.stages import Part, load_part, save_part
from phosphene.training import BatchSampler, Draws, ModulePart, TrainConfig, cosine, info_nce, learning_rate


def test_each_item_comes_once_an_epoch_and_orders_differ():
    batches = BatchSampler(20, 5, seed=1)
    first, second = (np.concatenate([batches.rows(s) for s in range(4 * e, 4 * e + 4)]) for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(20))
    assert not np.array_equal(first, second)


def test_a_batch_larger_than_the_data_holds_every_item_equally_often():
    assert np.array_equal(np.bincount(BatchSampler(4, 12, seed=0).rows(3)), [3, 3, 3, 3])


def test_rows_do_not_depend_on_what_was_asked_before():
    asked = BatchSampler(50, 8, seed=3)
    for step in (9, 2, 30):
        asked.rows(step)
    assert np.array_equal(asked.rows(17), BatchSampler(50, 8, seed=3).rows(17))


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (2, 3), (4, 2), (1, 12)])
def test_shares_of_all_processes_make_up_the_batch(world, accumulate):
    batches = BatchSampler(100, 24, seed=0)
    shares = [p for rank in range(world) for p in batches.share(rank, world, accumulate)]
    assert np.array_equal(np.concatenate([np.arange(24)[p] for p in shares]), np.arange(24))


def test_no_items_are_refused():
    with pytest.raises(DataError, match="0 items"):
        BatchSampler(0, 2, seed=0)


def test_noise_of_an_item_is_the_same_however_the_batch_is_shared():
    def drawn(part):
        draws = Draws(1, 2, 6, part)
        return [draws.normal(3), draws.uniform(), draws.integers(9, 2)]

    whole = drawn(None)
    for a, b, c in zip(whole, drawn(slice(0, 4)), drawn(slice(4, 6)), strict=True):
        assert torch.equal(a, torch.cat([b, c]))
    assert not torch.equal(whole[0], Draws(1, 3, 6).normal(3))
    assert not torch.equal(whole[0], Draws(2, 2, 6).normal(3))


def test_the_cosine_schedule_is_torchs_own():
    config = TrainConfig(steps=50, batch_size=1, lr=0.3)
    steps = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.lr)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(steps, config.steps)
    for step in range(50):
        assert math.isclose(config.lr * learning_rate(config, step), theirs.get_last_lr()[0], abs_tol=1e-9)
        steps.step()
        theirs.step()


def test_infonce_equals_the_sum_written_out():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 5))
    na, nb = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    s = 4.0 * na @ nb.T
    rows = -np.mean([s[i, i] - np.log(np.exp(s[i]).sum()) for i in range(7)])
    columns = -np.mean([s[i, i] - np.log(np.exp(s[:, i]).sum()) for i in range(7)])
    ours = [info_nce(torch.tensor(a), torch.tensor(b), 4.0, symmetric=m).item() for m in (False, True)]
    assert np.allclose(ours, [rows, (rows + columns) / 2], rtol=1e-5)  # ours is in float32


def test_infonce_refuses_pairs_of_different_shape():
    with pytest.raises(DataError, match=r"\(3, 2\) met \(4, 2\)"):
        info_nce(torch.zeros(3, 2), torch.zeros(4, 2), 1.0)


def test_opposite_rows_have_cosine_loss_two():
    assert math.isclose(cosine(torch.eye(3), -torch.eye(3)).item(), 2.0)


class Tiny(ModulePart):
    @classmethod
    def build(cls, config):
        return nn.Sequential(nn.Linear(config["n_in"], 4), nn.BatchNorm1d(4))


def tiny(n_in=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny(Tiny.build({"n_in": n_in}), {"n_in": n_in})


def test_a_network_comes_back_from_a_stage_folder_bit_by_bit(tmp_path):
    part = tiny()
    part.module(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))  # moves the batch norm's buffers
    assert isinstance(part, Part)
    save_part(tmp_path / "s", part, stage="s", digest="d", seconds=0.0, lineage=[])
    again = load_part(tmp_path / "s", Tiny)
    assert all(torch.equal(v, again.module.state_dict()[k]) for k, v in part.module.state_dict().items())
    assert not again.module.training


@pytest.mark.fault(71)
def test_weights_of_another_size_are_refused_with_both_shapes():
    tensors, _ = tiny(5).state()
    with pytest.raises(ModelError, match=r"\(4, 5\), but Tiny needs \(4, 3\)"):
        Tiny.from_state(tensors, {"config": {"n_in": 3}})


@pytest.mark.fault(72)
def test_missing_and_extra_weights_are_refused_by_name():
    tensors, meta = tiny().state()
    tensors["other"] = tensors.pop("0.bias")
    with pytest.raises(ModelError, match=r"missing 0\.bias, unexpected other"):
        Tiny.from_state(tensors, meta)


def test_bfloat16_weights_survive_without_loss():
    part = tiny()
    part.module.to(torch.bfloat16)
    again = Tiny.from_state(*part.state())
    assert torch.equal(again.module[0].weight.bfloat16(), part.module[0].weight)
