"""CAD's first phase against its equations written out, its published numbers, invariants, and small trainings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist

from phosphene.errors import ConfigError, MachineError, ModelError
from phosphene.io.config import validate
from phosphene.io.stages import load_part, save_part
from phosphene.models import (
    DcMae,
    DcMaeConfig,
    DcMaePart,
    PatchMae,
    PatchMaePart,
    for_subjects,
    load_sc_mbm,
    subject_batches,
)
from phosphene.models.dc_mae import paired_info_nce
from phosphene.training import Draws, TrainConfig, train
from phosphene.training.losses import whole_batch

SAME, CROSS = "same_view", "cross_view"


def lab(**changes) -> DcMaeConfig:
    return DcMaeConfig(**(DcMaeConfig.preset("lab") | changes))


def network(n_voxels=99, seed=0, **changes) -> DcMae:
    """13 patches of 8 by default, 3 of them visible."""
    return DcMae.create(lab(**changes), {"s1": n_voxels}, seed)


def betas(n, n_voxels=99, seed=0) -> torch.Tensor:
    return torch.randn(n, n_voxels, generator=torch.Generator().manual_seed(seed))


def batch_of(x: torch.Tensor, subject="s1") -> dict:
    return {"betas": {subject: x}, "rows": {subject: torch.arange(len(x))}}


def count(module) -> int:
    return sum(w.numel() for w in module.parameters())


# -- the contrast ------------------------------------------------------------------------------------------------------


def written_out(anchors, positives, negatives, tau) -> float:
    """Equations 1 and 2, one exponential at a time."""
    unit = [[row / np.linalg.norm(row) for row in np.asarray(x, float)] for x in (anchors, positives)]
    total = 0.0
    for i, a in enumerate(unit[0]):
        own = math.exp(a @ unit[1][i] / tau)
        others = unit[0] if negatives == SAME else unit[1]
        total -= math.log(own / (own + sum(math.exp(a @ b / tau) for j, b in enumerate(others) if j != i)))
    return total / len(unit[0])


@pytest.mark.parametrize("negatives", [SAME, CROSS])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_the_contrast_is_that_of_the_equations(negatives, tau):
    a, b = betas(7, 20, 1), betas(7, 20, 2)
    assert math.isclose(
        paired_info_nce(a, b, tau, negatives).item(), written_out(a, b, negatives, tau), rel_tol=1e-5
    )  # float32
    assert math.isclose(
        paired_info_nce(a, b, tau, negatives).item(), paired_info_nce(5 * a, b / 3, tau, negatives).item(), rel_tol=1e-5
    )  # only directions count


def test_the_two_kinds_of_negatives_differ_but_for_equal_views():
    a, b = betas(7, 20, 1), betas(7, 20, 2)
    assert abs(paired_info_nce(a, b, 0.1, SAME).item() - paired_info_nce(a, b, 0.1, CROSS).item()) > 0.01
    assert math.isclose(paired_info_nce(a, a, 0.1, SAME).item(), paired_info_nce(a, a, 0.1, CROSS).item(), rel_tol=1e-5)


@pytest.mark.parametrize("negatives", [SAME, CROSS])
def test_the_contrast_is_not_rounded_by_autocast(negatives):
    a, b = betas(7, 20, 1), betas(7, 20, 2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = paired_info_nce(a, b, 0.1, negatives).item()
    assert inside == paired_info_nce(a, b, 0.1, negatives).item()


def test_the_positive_attracts_and_no_row_is_its_own_negative():
    a, b = betas(5, 12, 1).requires_grad_(), betas(5, 12, 2).requires_grad_()
    paired_info_nce(a, b, 0.1, SAME).backward()
    step = paired_info_nce(a.detach(), b.detach() - 0.1 * b.grad, 0.1, SAME)
    assert step < paired_info_nce(a.detach(), b.detach(), 0.1, SAME)
    assert paired_info_nce(torch.eye(4), torch.eye(4), 0.01, SAME) < 1e-6  # a row among its negatives would leave ln 2


# -- the loss of the network -------------------------------------------------------------------------------------------


def views_of(net: DcMae, x: torch.Tensor, draws: Draws):
    """Both views, one pass each, drawn in the documented order."""
    inputs, whole = net.inputs(batch_of(x), draws)
    masks = [net.draw_visible(draws), net.draw_visible(draws)]
    z = [net.decode(net.encode(inputs, m), m) for m in masks]
    return inputs, whole, masks, z


@pytest.mark.parametrize("negatives", [SAME, CROSS])
def test_the_loss_is_the_weighted_sum_of_both_contrasts(negatives):
    x = betas(6)
    net = network(negatives=negatives, self_weight=0.7, cross_weight=0.3)
    loss, logs = net.loss(batch_of(x), Draws(0, 0, 6))
    _, whole, _, (z1, z2) = views_of(net, x, Draws(0, 0, 6))
    rows = [v.detach().flatten(1).numpy() for v in (z1, z2, whole)]
    cross, own = written_out(rows[0], rows[1], negatives, 0.1), written_out(rows[0], rows[2], negatives, 0.1)
    assert math.isclose(logs["cross"].item(), cross, rel_tol=1e-4)  # float32 through a network, batches of other sizes
    assert math.isclose(logs["self"].item(), own, rel_tol=1e-4)
    assert math.isclose(loss.item(), 0.7 * own + 0.3 * cross, rel_tol=1e-4)


def test_reconstruction_adds_the_error_of_what_either_view_hid():
    x = betas(6)
    for loss_on in ("masked", "all"):
        plain, added = (network(loss_on=loss_on, reconstruction=w) for w in (0.0, 0.5))
        before, after = (net.loss(batch_of(x), Draws(0, 0, 6))[0].item() for net in (plain, added))
        _, whole, masks, z = views_of(plain, x, Draws(0, 0, 6))
        errors = []
        for view, visible in zip(z, masks, strict=True):
            squares = (view - whole).square()
            hidden = torch.ones(6, 13).scatter(1, visible, 0).bool()
            errors.append(squares[hidden].mean() if loss_on == "masked" else squares.mean())
        assert math.isclose(after - before, 0.5 * torch.stack(errors).mean().item(), rel_tol=1e-4)


def test_both_views_are_treated_alike():
    class Turned(DcMae):
        left = ()

        def draw_visible(self, draws):
            self.left = self.left or [super().draw_visible(draws), super().draw_visible(draws)]
            return self.left.pop()

    x = betas(6)
    for symmetric in (False, True):
        net = network(symmetric=symmetric)
        turned = Turned(net.config, net.n_voxels)
        turned.load_state_dict(net.state_dict())
        losses = [n.loss(batch_of(x), Draws(0, 0, 6))[0].item() for n in (net, turned)]
        # Equations 1 and 2 have one first view; with the views exchanged in turn it does not matter which.
        assert math.isclose(*losses, rel_tol=1e-5) is symmetric
    _, whole, _, (z1, z2) = views_of(network(), x, Draws(0, 0, 6))
    _, logs = network(symmetric=True).loss(batch_of(x), Draws(0, 0, 6))
    rows = [v.detach().flatten(1).numpy() for v in (z1, z2, whole)]
    own = (written_out(rows[0], rows[2], SAME, 0.1) + written_out(rows[1], rows[2], SAME, 0.1)) / 2
    assert math.isclose(logs["self"].item(), own, rel_tol=1e-4)


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 10), (0.5, 20)])
def test_the_two_masks_keep_their_exact_share_and_are_independent(ratio, kept):
    n, patches = 3000, 40
    net = network(8 * patches, extra_patch=False, mask_ratio=ratio)
    draws = Draws(0, 0, n)
    masks = [torch.zeros(n, patches).scatter(1, net.draw_visible(draws), 1) for _ in range(2)]
    assert all(m.sum(1).eq(kept).all() for m in masks)
    shared = (masks[0] * masks[1]).sum(1)  # hypergeometric where masks are independent
    p = kept / patches
    mean = kept * p
    sd = math.sqrt(mean * (1 - p) * (patches - kept) / (patches - 1))
    assert abs(shared.mean().item() - mean) < 5 * sd / math.sqrt(n)  # five standard errors
    assert abs(shared.std().item() / sd - 1) < 5 / math.sqrt(2 * n)
    both = (masks[0][:, 0] * masks[1][:, 0]).mean().item()
    assert abs(both - p * p) < 5 * math.sqrt(p * p * (1 - p * p) / n)


def test_only_visible_patches_of_a_view_reach_the_encoder():
    net, x = network(), betas(4)
    patches = net.to_patches(x)
    shapes = []
    handle = net.blocks[0].register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    net.loss(batch_of(x), Draws(0, 0, 4))
    handle.remove()
    assert shapes == [(8, 1 + 3, 64)]  # both views at once, class token and three of 13 patches
    visible = net.draw_visible(Draws(0, 0, 4))
    broken = patches.clone()
    broken[torch.ones(4, 13).scatter(1, visible, 0).bool()] = math.nan
    assert torch.equal(net.encode(broken, visible), net.encode(patches, visible))


def test_a_fifth_of_the_voxels_is_really_zeroed_and_the_whole_response_is_the_positive():
    net = network(100, extra_patch=False)
    assert net.config.sparsify == 0.2
    inputs, whole = net.inputs(batch_of(torch.ones(50, 100)), Draws(0, 0, 50))
    assert inputs.flatten(1)[:, :100].eq(0).sum(1).eq(20).all()
    assert whole.eq(1).all()
    none = network(**DcMaeConfig.preset("code"))
    assert all(torch.equal(a, b) for a, b in [none.inputs(batch_of(betas(3)), Draws(0, 0, 3))])


def test_every_weight_gets_a_gradient_from_either_contrast():
    for weights in ({"self_weight": 0}, {"cross_weight": 0}):
        net = network(**weights)
        net.loss(batch_of(betas(4)), Draws(0, 0, 4))[0].backward()
        assert all(w.grad is not None and w.grad.abs().max() > 0 for name, w in net.named_parameters())


def test_subjects_of_a_batch_are_contrasted_in_its_order():
    net = DcMae.create(lab(), {"a": 99, "b": 40}, 0)
    data = {s: betas(4, v, i).numpy() for i, (s, v) in enumerate(net.n_voxels.items())}
    fetch, n = subject_batches(data)
    order = np.array([0, 4, 1, 5, 6, 2, 3, 7])
    loss, _ = net.loss(fetch(order), Draws(0, 0, n))
    _, whole = net.inputs(fetch(order), Draws(0, 0, n))
    rows = [data["a"][r] if r < 4 else data["b"][r - 4] for r in order]
    expected = [
        net.to_patches(torch.from_numpy(x)[None], "a" if r < 4 else "b")[0] for x, r in zip(rows, order, strict=True)
    ]
    assert torch.equal(whole, torch.stack(expected))
    assert torch.isfinite(loss)


def share(rank: int, world: int, port: int, folder: str, negatives: str) -> None:
    """One process' part of a batch of eight, and the mean of all processes' gradients."""
    torch.set_num_threads(1)
    meeting = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=meeting, rank=rank, world_size=world)
    net, part = network(negatives=negatives), slice(8 // world * rank, 8 // world * (rank + 1))
    loss, _ = net.loss(batch_of(betas(8)[part]), Draws(0, 0, 8, part))
    loss.backward()
    for w in net.parameters():
        dist.all_reduce(w.grad)
    if rank == 0:
        torch.save([loss.detach(), *(w.grad / world for w in net.parameters())], f"{folder}/gradients")
    dist.destroy_process_group()


def test_two_processes_contrast_all_rows_of_a_batch(tmp_path):
    # The meeting point lives here and outlives both: a file one of them removes as it leaves can abort the other.
    meeting = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    torch.multiprocessing.spawn(share, (2, meeting.port, str(tmp_path), SAME), nprocs=2)
    loss, *gradients = torch.load(tmp_path / "gradients", weights_only=True)
    net = network()
    whole, _ = net.loss(batch_of(betas(8)), Draws(0, 0, 8))
    whole.backward()
    assert math.isclose(loss.item(), whole.item(), rel_tol=1e-5)
    for found, w in zip(gradients, net.parameters(), strict=True):
        assert torch.allclose(found, w.grad, atol=1e-5 * float(w.grad.abs().max()) + 1e-6)  # float32, other order


def test_without_contrast_it_is_the_network_of_mind_vis():
    net = network(sparsify=0.0)
    plain = PatchMae.create(for_subjects(net, net.n_voxels).config, net.n_voxels, 0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), plain.parameters(), strict=True))
    assert torch.equal(net.to_tokens(betas(2)), plain.to_tokens(betas(2)))


def test_bfloat16_stays_near_float32():
    net = network()
    full = net.loss(batch_of(betas(8)), Draws(0, 0, 8))[0].item()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = net.loss(batch_of(betas(8)), Draws(0, 0, 8))
    assert loss.dtype == torch.float32
    assert math.isclose(loss.item(), full, rel_tol=0.02)  # cosines off by 2^-8, divided by tau


# -- training ----------------------------------------------------------------------------------------------------------


def low_rank(n, n_voxels, seed=0, rank=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, rank)) @ np.random.default_rng(7).normal(size=(rank, n_voxels)) / math.sqrt(rank)
    return (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)


@pytest.mark.parametrize("negatives", [SAME, CROSS])
def test_training_tells_new_responses_apart_and_predicts_what_is_hidden(negatives):
    net = network(mask_ratio=0.5, negatives=negatives)
    new = batch_of(torch.from_numpy(low_rank(32, 99, seed=1)))
    with torch.no_grad():
        before, _ = net.loss(new, Draws(5, 0, 32))
    fetch, n = subject_batches({"s1": low_rank(200, 99)})
    config = TrainConfig(steps=100, batch_size=32, lr=5e-3, warmup=10, clip_norm=0.8, adam_betas=(0.9, 0.95))
    train(net, fetch, n, config, seed=0, device="cpu")
    with torch.no_grad():
        after, logs = net.loss(new, Draws(5, 0, 32))
    assert after < 0.5 * before
    assert logs["correlation"] > 0.1  # six standard errors of none; no squared error was asked for


def test_a_killed_training_ends_bit_identical(tmp_path):
    fetch, n = subject_batches({"s1": low_rank(20, 99)})
    config = TrainConfig(steps=8, batch_size=4, lr=1e-3)
    ends = []
    for folder in (None, tmp_path / "run"):
        if folder is not None:
            train(network(), fetch, n, config, seed=1, folder=folder, save_every=3, minutes=0.0, device="cpu")
        net = network()
        done = train(net, fetch, n, config, seed=1, folder=folder, save_every=3, device="cpu")
        ends.append(net.state_dict())
    assert done.resumed_at > 0
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


# -- configuration, sizes, parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_voxels", "stored"), [(4192, 164_823_568), (4656, 164_868_112)])
def test_the_paper_preset_has_the_published_number_of_parameters(n_voxels, stored):
    with torch.device("meta"):
        net = DcMae(DcMaeConfig(extra_patch=False), {"s": n_voxels})
    assert count(net) + (1 + n_voxels // 16) * (1024 + 512) == stored  # theirs count the position codes
    c = validate(DcMaeConfig, DcMaeConfig.preset("paper"), "preset")
    assert (c.self_weight, c.cross_weight, c.mask_ratio, c.negatives) == (1, 0.5, 0.75, SAME)


def test_voxels_of_the_human_connectome_fill_the_published_patches():
    with torch.device("meta"):
        assert DcMae(DcMaeConfig(), {"hcp": 4183}).n_patches == 262


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negatives": "both"}, "negatives"),
        ({"temperature": 0}, "temperature"),
        ({"self_weight": 0, "cross_weight": 0}, "nothing to train on"),
        ({"cross_weigth": 1}, "Did you mean 'cross_weight'"),
        ({"heads": 7}, "attention heads"),
    ],
)
def test_an_impossible_configuration_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(DcMaeConfig, DcMaeConfig.preset("lab") | changes, "the configuration")


def test_a_part_comes_back_from_disk_bit_by_bit(tmp_path):
    net = DcMae.create(lab(), {"sub-1": 99, "z": 40}, 0)
    part = DcMaePart.of(net)
    save_part(tmp_path / "brain", part, stage="brain", digest="d", seconds=0.0, lineage=[])
    loaded = load_part(tmp_path / "brain", DcMaePart)
    assert isinstance(loaded.module, DcMae)
    assert loaded.module.config == net.config and loaded.module.n_voxels == {"sub-1": 99, "z": 40}
    x = low_rank(7, 40)
    assert np.array_equal(part.to_tokens(x, "z"), loaded.to_tokens(x, "z"))


def test_the_public_model_of_mind_vis_can_be_the_start():
    source, net = PatchMae.create(for_subjects(network(), {"s1": 99}).config, {"s1": 99}, 5), network()
    loaded = load_sc_mbm(net, source.state_dict())
    assert loaded.fresh == ()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), source.parameters(), strict=True))


def test_weights_go_to_other_subjects_with_stretched_positions():
    net = network(decoder_depth=3)
    new = for_subjects(net, {"x": 150}, decoder_depth=2, mask_ratio=0.5)
    assert (new.n_patches, new.config.positions_of, len(new.decoder_blocks)) == (19, 13, 2)
    assert new.config.sparsify == net.config.sparsify
    theirs = dict(net.named_parameters())
    assert all(torch.equal(w, theirs[name]) for name, w in new.named_parameters())
    assert PatchMaePart.of(new).to_tokens(low_rank(2, 150)).shape == (2, 19, 64)
    with torch.no_grad():
        new.norm.weight.zero_()
    assert net.norm.weight.eq(1).all()  # a copy
    second = for_subjects(new, {"y": 60})
    assert (second.n_patches, second.config.positions_of) == (8, 13)  # stretched once, from the first
    same = for_subjects(net, {"s1": 99})
    assert torch.equal(same.to_tokens(betas(2)), net.to_tokens(betas(2)))
    with pytest.raises(ModelError, match="decoder_depth = 4.*decoder_blocks.3"):
        for_subjects(net, {"x": 150}, decoder_depth=4)
    with pytest.raises(ConfigError, match="no key 'depht'"):
        for_subjects(net, {"x": 150}, depht=1)


@pytest.mark.parametrize("negatives", [SAME, CROSS])
def test_a_batch_in_smaller_parts_than_asked_for_is_refused_whatever_the_negatives(negatives):
    a = betas(4)
    with whole_batch(False), pytest.raises(MachineError, match="compares the items of a batch"):
        paired_info_nce(a, a, 0.1, negatives)
