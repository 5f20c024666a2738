"""MinD-Vis' masked autoencoder against its published sizes, the textbook procedure, invariants, and small trainings."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import validate
from phosphene.io.stages import load_part, save_part
from phosphene.models import PatchMae, PatchMaeConfig, PatchMaePart, load_sc_mbm, read_sc_mbm, subject_batches
from phosphene.models.patch_mae import sparsified
from phosphene.models.transformer import position_codes
from phosphene.training import Draws, TrainConfig, train


def lab(**changes) -> PatchMaeConfig:
    return PatchMaeConfig(**(PatchMaeConfig.preset("lab") | changes))


def network(n_voxels=99, seed=0, **changes) -> PatchMae:
    """13 patches of 8 by default, 3 of them visible."""
    return PatchMae.create(lab(**changes), {"s1": n_voxels}, seed)


def betas(n, n_voxels=99, seed=0) -> torch.Tensor:
    return torch.randn(n, n_voxels, generator=torch.Generator().manual_seed(seed))


def batch_of(x: torch.Tensor, subject="s1") -> dict:
    return {"betas": {subject: x}, "rows": {subject: torch.arange(len(x))}}


def count(module) -> int:
    return sum(w.numel() for w in module.parameters())


def meta(n_voxels: int, **changes) -> PatchMae:
    with torch.device("meta"):
        return PatchMae(PatchMaeConfig(**changes), {"s": n_voxels})


# -- published sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_voxels", "stored"), [(4192, 164_823_568), (4656, 164_868_112)])
def test_the_paper_preset_has_the_published_number_of_parameters(n_voxels, stored):
    net = meta(n_voxels, extra_patch=False)
    codes = (1 + n_voxels // 16) * (1024 + 512)  # theirs count the position codes, which are never trained
    assert count(net) + codes == stored
    assert count(net) == 164_419_600
    decoder = count(net.decoder_embed) + count(net.decoder_blocks) + count(net.decoder_norm) + count(net.decoder_pred)
    encoder = count(net) - decoder - 512 + (1 + n_voxels // 16) * 1024
    assert encoder + 1024 == {4192: 151_531_520, 4656: 151_561_216}[n_voxels]  # theirs has a mask token it never uses
    assert PatchMaeConfig() == validate(PatchMaeConfig, PatchMaeConfig.preset("paper"), "preset")


@pytest.mark.parametrize(
    ("n_voxels", "patches"),
    [(4466, 280), (4404, 276), (4643, 291), (4133, 259), (4370, 274), (1685, 106), (1129, 71), (1466, 92), (4192, 263)],
)
def test_subjects_have_the_published_number_of_patches(n_voxels, patches):
    net = meta(n_voxels)
    assert net.n_patches == patches
    assert net.to_tokens(torch.empty(2, n_voxels, device="meta")).shape == (2, patches, 1024)


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"), [(262, 0.75, 65), (262, 0.5, 131), (291, 0.75, 72), (291, 0.5, 145)]
)
def test_masking_keeps_the_published_number_of_patches(patches, ratio, kept):
    assert meta(1000, n_patches=patches, mask_ratio=ratio).n_visible == kept


# -- what the network computes -----------------------------------------------------------------------------------------


def textbook(net: PatchMae, patches: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Every patch predicted the long way: embed all, keep some, put mask tokens in their places, decode in order."""
    n, n_patches, _ = patches.shape
    c = net.config
    tokens = (
        net.patch_embed["proj"](patches.flatten(1)[:, None]).transpose(1, 2) + position_codes(n_patches, c.width)[1:]
    )
    out = []
    for i in range(n):
        x = torch.cat([net.cls_token[0], tokens[i, visible[i]]])[None]
        for block in net.blocks:
            x = block(x)
        x = net.decoder_embed(net.norm(x))[0]
        row = net.mask_token[0].repeat(n_patches, 1)
        row = row.index_copy(0, visible[i], x[1:])
        x = (torch.cat([x[:1], row]) + position_codes(n_patches, c.decoder_width))[None]
        for block in net.decoder_blocks:
            x = block(x)
        out.append(net.decoder_pred(net.decoder_norm(x))[0, 1:])
    return torch.stack(out)


def test_it_predicts_what_the_textbook_procedure_predicts():
    net, x = network(decoder_depth=2), betas(4)
    patches, visible = net.to_patches(x), net.draw_visible(Draws(0, 0, 4))
    expected = textbook(net, patches, visible)
    found = net.decode(net.encode(patches, visible), visible)
    assert torch.allclose(found, expected, atol=1e-5)  # float32, sums in another order
    hidden = net.hidden(visible)
    only = net.decode(net.encode(patches, visible), visible, hidden_only=True)
    assert torch.allclose(only, torch.stack([e[h] for e, h in zip(expected, hidden, strict=True)]), atol=1e-5)
    errors = (expected - patches).square().mean(-1)
    masked = torch.ones(4, 13).scatter(1, visible, 0)
    loss, _ = net.loss(batch_of(x), Draws(0, 0, 4))
    assert math.isclose(loss.item(), ((errors * masked).sum() / masked.sum()).item(), rel_tol=1e-5)
    whole, _ = network(decoder_depth=2, loss_on="all").loss(batch_of(x), Draws(0, 0, 4))
    assert math.isclose(whole.item(), errors.mean().item(), rel_tol=1e-5)


def test_hidden_patches_never_reach_the_encoder():
    net, x = network(), betas(3)
    patches, visible = net.to_patches(x), net.draw_visible(Draws(0, 0, 3))
    broken = torch.full_like(patches, math.nan).scatter(
        1, visible[..., None].expand(-1, -1, 8), patches.gather(1, visible[..., None].expand(-1, -1, 8))
    )
    assert torch.equal(net.encode(broken, visible), net.encode(patches, visible))
    assert torch.equal(
        net.decode(net.encode(broken, visible), visible), net.decode(net.encode(patches, visible), visible)
    )


def test_the_loss_counts_hidden_patches_alone():
    x = betas(5)
    for loss_on in ("masked", "all"):
        net = network(loss_on=loss_on)
        with torch.no_grad():  # a network that says 0.5 whatever it sees
            net.decoder_pred.weight.zero_()
            net.decoder_pred.bias.fill_(0.5)
        patches, visible = net.to_patches(x), net.draw_visible(Draws(0, 0, 5))
        is_hidden = torch.ones(5, 13, dtype=torch.bool).scatter(1, visible, False)
        errors = (patches - 0.5).square()
        expected = errors[is_hidden].mean() if loss_on == "masked" else errors.mean()
        assert torch.isclose(net.loss(batch_of(x), Draws(0, 0, 5))[0], expected, rtol=1e-5)


def test_visible_patches_may_come_in_any_order_and_number():
    net, patches = network(), network().to_patches(betas(2))
    visible = torch.tensor([[7, 2, 11, 0, 5], [1, 12, 3, 4, 9]])
    assert net.hidden(visible).tolist() == [[1, 3, 4, 6, 8, 9, 10, 12], [0, 2, 5, 6, 7, 8, 10, 11]]
    tokens = net.encode(patches, visible)
    ascending, order = visible.sort(1)
    second = net.encode(patches, ascending)
    assert torch.allclose(second[:, 1:], tokens[:, 1:].gather(1, order[..., None].expand(-1, -1, 64)), atol=1e-5)
    assert torch.allclose(net.decode(tokens, visible), net.decode(second, ascending), atol=1e-5)


def test_two_maskings_of_one_batch_are_random_and_independent():
    net, draws = network(), Draws(1, 0, 4000)
    first, second = net.draw_visible(draws), net.draw_visible(draws)
    assert first.shape == (4000, 3)
    assert (first.diff(dim=1) > 0).all()
    p = 3 / 13
    for visible in (first, second):  # five standard errors of a proportion
        shares = torch.bincount(visible.flatten(), minlength=13) / 4000
        assert (shares - p).abs().max() < 5 * math.sqrt(p * (1 - p) / 4000)
    common = (first[:, :, None] == second[:, None]).any(2).float().mean()  # independent: hypergeometric, mean 3/13
    assert abs(common - p) < 5 * math.sqrt(p * (1 - p) / 12000)


def test_tokens_and_latent_see_everything():
    net, x = network(), betas(3)
    with_class = net.to_tokens(x, class_token=True)
    assert net.to_tokens(x).shape == (3, 13, 64)
    assert torch.allclose(net.to_latent(x), with_class[:, 0], atol=1e-5)
    assert not torch.allclose(net.to_tokens(x), with_class[:, 1:], atol=1e-3)  # the class token takes part there
    plain = net.patch_embed["proj"](net.to_patches(x).flatten(1)[:, None]).transpose(1, 2) + position_codes(13, 64)[1:]
    for block in net.blocks:
        plain = block(plain)
    assert torch.allclose(net.to_tokens(x), net.norm(plain), atol=1e-5)


def test_reconstructions_have_the_shape_of_the_betas():
    net, x = network(), betas(3)
    assert net.reconstruct(x).shape == (3, 99)
    visible = net.draw_visible(Draws(0, 0, 3))
    expected = textbook(net, net.to_patches(x), visible).flatten(1)[:, :99]
    assert torch.allclose(net.reconstruct(x, visible=visible), expected, atol=1e-5)


@pytest.mark.parametrize("n", [99, 104, 5])
def test_padding_wraps_and_adds_a_whole_patch_where_none_is_needed(n):
    x = betas(2, n)
    expected = np.pad(x.numpy(), ((0, 0), (0, 8 - n % 8)), mode="wrap")
    assert np.array_equal(network(n, mask_ratio=0.0, loss_on="all").to_patches(x).flatten(1), expected)


def test_padding_may_be_zeros_and_no_more_than_needed():
    x = betas(2)
    padded = network(padding="zero").to_patches(x).flatten(1)
    assert padded[:, 99:].eq(0).all() and torch.equal(padded[:, :99], x)
    assert torch.equal(network(104, extra_patch=False).to_patches(betas(2, 104)).flatten(1), betas(2, 104))


def test_shorter_subjects_are_wrapped_twice_to_the_longest_as_published():
    net = PatchMae.create(lab(), {"a": 99, "b": 37}, 0)
    x = betas(2, 37).numpy()
    own = np.pad(x, ((0, 0), (0, 8 - 37 % 8)), mode="wrap")
    expected = np.pad(own, ((0, 0), (0, 104 - own.shape[1])), mode="wrap")
    assert np.array_equal(net.to_patches(torch.from_numpy(x), "b").flatten(1), expected)


def test_position_codes_are_stretched_to_the_nearest_of_another_length():
    net = network(positions_of=20)
    theirs = position_codes(20, 64)
    stretched = F.interpolate(theirs[1:].T[None], size=13)[0].T
    assert torch.equal(net._codes(64, torch.device("cpu")), torch.cat([theirs[:1], stretched]))
    assert torch.equal(network()._codes(64, torch.device("cpu")), position_codes(13, 64))


# -- noise of the input ------------------------------------------------------------------------------------------------


def test_sparsifying_zeroes_exactly_its_share_evenly_and_spares_the_targets():
    out = sparsified(torch.ones(2000, 41), 0.2, Draws(3, 0, 2000).uniform(50))
    assert out.eq(0).sum(1).eq(8).all()  # int(0.2 * 41)
    p = 8 / 41
    assert (out.eq(0).float().mean(0) - p).abs().max() < 5 * math.sqrt(p * (1 - p) / 2000)  # five standard errors
    net = network(sparsify=0.2)
    inputs, targets = net.inputs(batch_of(torch.ones(4, 99)), Draws(0, 0, 4))
    assert targets.eq(1).all()
    assert inputs.flatten(1)[:, :99].eq(0).sum(1).eq(19).all()
    assert torch.equal(inputs.flatten(1)[:, 99:], inputs.flatten(1)[:, :5])  # gone in the wrapped copy as well


def test_nothing_is_zeroed_unless_asked_nor_when_not_training():
    inputs, targets = network().inputs(batch_of(betas(4)), Draws(0, 0, 4))
    assert torch.equal(inputs, targets)
    assert torch.equal(network(sparsify=0.5).train().to_tokens(betas(2)), network().to_tokens(betas(2)))


@pytest.mark.parametrize("changes", [{}, {"sparsify": 0.2}, {"loss_on": "all"}])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts_however_it_is_shared(changes):
    net = PatchMae.create(lab(**changes), {"a": 99, "b": 40}, 0)
    rng = np.random.default_rng(0)
    fetch, n = subject_batches({s: rng.normal(size=(6, v)).astype("f4") for s, v in net.n_voxels.items()})
    rows = rng.permutation(n)
    whole, logs = net.loss(fetch(rows), Draws(0, 0, n))
    parts = [net.loss(fetch(rows[p]), Draws(0, 0, n, p)) for p in (slice(0, 4), slice(4, 8), slice(8, 12))]
    assert math.isclose(
        whole.item(), sum(p[0].item() for p in parts) / 3, rel_tol=1e-5
    )  # float32 sums in another order
    assert math.isclose(logs["correlation"].item(), sum(p[1]["correlation"].item() for p in parts) / 3, abs_tol=1e-5)


# -- training ----------------------------------------------------------------------------------------------------------


def low_rank(n, n_voxels, seed=0, rank=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, n_voxels)) / math.sqrt(rank)
    return (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)


def test_training_predicts_hidden_voxels_of_new_trials_better_than_the_mean():
    data = low_rank(260, 99)
    net = network(mask_ratio=0.5)
    fetch, n = subject_batches({"s1": data[:200]})
    config = TrainConfig(steps=200, batch_size=32, lr=3e-3, warmup=10, clip_norm=0.8, adam_betas=(0.9, 0.95))
    train(net, fetch, n, config, seed=0, device="cpu")
    guess, is_hidden = PatchMaePart.of(net).reconstruct(data[200:], rng=np.random.default_rng(0))
    error = np.square(guess - data[200:])[is_hidden].mean()
    assert error < 0.7 * np.square(data[200:] - data[:200].mean(0))[is_hidden].mean()


def test_a_killed_training_ends_bit_identical(tmp_path):
    fetch, n = subject_batches({"s1": low_rank(20, 99)})
    config = TrainConfig(steps=8, batch_size=4, lr=1e-3)
    ends = []
    for folder in (None, tmp_path / "run"):
        if folder is not None:
            first = network(sparsify=0.2)
            train(first, fetch, n, config, seed=1, folder=folder, save_every=3, minutes=0.0, device="cpu")
        net = network(sparsify=0.2)
        done = train(net, fetch, n, config, seed=1, folder=folder, save_every=3, device="cpu")
        ends.append(net.state_dict())
    assert done.resumed_at > 0
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


def test_masks_and_weights_are_functions_of_their_seeds():
    before = torch.get_rng_state()
    a, b, c = network(seed=1), network(seed=1), network(seed=2)
    draws = [Draws(seed, step, 4) for seed, step in ((0, 0), (0, 0), (1, 0), (0, 1))]
    visible = [a.draw_visible(d) for d in draws]
    losses = [a.loss(batch_of(betas(4)), Draws(0, step, 4))[0].item() for step in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.cls_token, c.cls_token)
    assert torch.equal(visible[0], visible[1])
    assert not torch.equal(visible[0], visible[2]) and not torch.equal(visible[0], visible[3])
    assert losses[0] == losses[1] != losses[2]


def test_recomputing_gives_the_same_loss_and_gradients():
    gradients = []
    for recompute in (False, True):
        net = PatchMae.create(lab(), {"s1": 99}, 0, recompute=recompute)
        net.loss(batch_of(betas(4)), Draws(0, 0, 4))[0].backward()
        gradients.append([w.grad for w in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bfloat16_stays_near_float32_and_every_weight_gets_a_gradient():
    net = network()
    full = net.loss(batch_of(betas(4)), Draws(0, 0, 4))[0].item()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = net.loss(batch_of(betas(4)), Draws(0, 0, 4))
    loss.backward()
    assert loss.dtype == torch.float32
    assert math.isclose(loss.item(), full, rel_tol=2**-7)  # one step of bfloat16
    assert all(w.grad is not None and torch.isfinite(w.grad).all() for w in net.parameters())


# -- parts, and the public checkpoint ----------------------------------------------------------------------------------


def test_a_part_comes_back_from_disk_bit_by_bit(tmp_path):
    net = PatchMae.create(lab(sparsify=0.2, n_patches=14), {"sub-1": 99, "z": 40}, 0)
    part = PatchMaePart.of(net)
    save_part(tmp_path / "brain", part, stage="brain", digest="d", seconds=0.0, lineage=[])
    loaded = load_part(tmp_path / "brain", PatchMaePart)
    x = low_rank(7, 40)
    assert loaded.module.config == net.config and loaded.module.n_voxels == {"sub-1": 99, "z": 40}
    assert part.to_tokens(x, "z", batch_size=3).shape == (7, 14, 64)
    assert part.to_tokens(x, "z", class_token=True).shape == (7, 15, 64)
    assert np.array_equal(part.to_tokens(x, "z"), loaded.to_tokens(x, "z"))
    assert np.array_equal(part.to_latent(x, "z"), loaded.to_latent(x, "z"))
    assert part.to_latent(x, "z").shape == (7, 64)
    first = part.reconstruct(x, "z", np.random.default_rng(0), batch_size=3)
    second = loaded.reconstruct(x, "z", np.random.default_rng(0), batch_size=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_part_reconstructs_batch_by_batch_from_the_patches_it_says_are_visible():
    part, x = PatchMaePart.of(network()), betas(5).numpy()
    guess, is_hidden = part.reconstruct(x, rng=np.random.default_rng(0), batch_size=2)
    assert guess.shape == is_hidden.shape == (5, 99)
    visible = np.stack([np.unique(np.flatnonzero(~row) // 8) for row in is_hidden])  # patch 12 holds three voxels
    assert visible.shape == (5, 3)
    expected = part.module.reconstruct(torch.from_numpy(x), visible=torch.from_numpy(visible)).detach()
    assert np.allclose(guess, expected, atol=1e-5)  # float32; batches of other sizes
    whole, none = part.reconstruct(x)
    assert not none.any()
    assert np.allclose(whole, part.module.reconstruct(torch.from_numpy(x)).detach(), atol=1e-5)


def published_layout(net: PatchMae, n_patches=13, seed=9) -> dict[str, torch.Tensor]:
    """Random weights under every name of the public checkpoint, with its fixed position codes."""
    generator, c = torch.Generator().manual_seed(seed), net.config
    out = {name: torch.randn(w.shape, generator=generator) / 8 for name, w in net.named_parameters()}
    out["pos_embed"] = position_codes(n_patches, c.width)[None].clone()
    out["decoder_pos_embed"] = position_codes(n_patches, c.decoder_width)[None].clone()
    return out


def test_the_public_checkpoint_has_all_names_of_the_network():
    names = {name for name, _ in network(depth=1).named_parameters()}
    block = {
        f"{part}.{kind}"
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }
    ends = {
        f"{p}.{kind}" for p in ("norm", "decoder_embed", "decoder_norm", "decoder_pred") for kind in ("weight", "bias")
    }
    ends |= {"cls_token", "mask_token", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    blocks = {f"{name}.0.{rest}" for name in ("blocks", "decoder_blocks") for rest in block}
    assert names == ends | blocks


def test_the_public_checkpoint_loads_whole(tmp_path):
    net = network()
    weights = published_layout(net, n_patches=20)
    weights["nature_img_mask_token"] = torch.zeros(1, 1, 32)
    module = types.ModuleType("config")
    exec("class Config_MBM_fMRI:\n    pass\n", module.__dict__)
    sys.modules["config"] = module
    try:
        what = {"model": weights, "optimizer": {"state": {}}, "epoch": 1, "config": module.Config_MBM_fMRI()}
        torch.save(what, tmp_path / "fmri_encoder.pth")
    finally:
        del sys.modules["config"]
    loaded = load_sc_mbm(net, read_sc_mbm(tmp_path / "fmri_encoder.pth"))
    assert all(torch.equal(w, weights[name]) for name, w in net.named_parameters())
    assert set(loaded.taken) == {name for name, _ in net.named_parameters()}
    assert set(loaded.skipped) == {"pos_embed", "decoder_pos_embed", "nature_img_mask_token"}
    assert loaded.fresh == ()
    assert loaded.n_patches == 20
    assert loaded.n_values == count(net)


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("patch_embed.proj.bias"), r"missing patch_embed\.proj\.bias \(1\)"),
        (lambda w: w.update({"pred.weight": torch.ones(64, 64)}), r"unexpected pred\.weight \(1\)"),
        (lambda w: w.update({"decoder_pred.weight": torch.ones(16, 32)}), r"\(16, 32\).*\(8, 32\)"),
        (lambda w: w["norm.weight"].fill_(math.nan), "NaN"),
        (lambda w: w["pos_embed"].add_(0.01), "pos_embed.*trained.*first stage"),
        (lambda w: w.update({"pos_embed": torch.zeros(14, 64)}), r"\(14, 64\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(change, message):
    net, before = network(), network().state_dict()
    weights = published_layout(net)
    change(weights)
    with pytest.raises(ModelError, match=message):
        load_sc_mbm(net, weights)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda net: net.to_tokens(torch.zeros(2, 98)), r"\(trials, 99\).*\(2, 98\)"),
        (lambda net: net.to_latent(torch.zeros(99)), r"\(trials, 99\).*\(99,\)"),
        (lambda net: net.to_latent(torch.zeros(2, 99), "s2"), "does not know subject s2.*Known: s1"),
    ],
)
def test_betas_of_another_size_or_subject_are_refused(ask, message):
    with pytest.raises(ModelError, match=message):
        ask(network())


@pytest.mark.parametrize("call", ["to_tokens", "to_latent", "reconstruct"])
def test_no_rows_are_refused(call):
    with pytest.raises(DataError, match="no rows"):
        getattr(PatchMaePart.of(network()), call)(np.zeros((0, 99), np.float32))


@pytest.mark.parametrize(
    ("changes", "n_voxels", "message"),
    [
        ({"n_patches": 12}, {"a": 40, "b": 99}, "99 voxels of subject b need 13 patches of 8.*n_patches is 12"),
        ({}, {"a": 20}, "0.75 of 3 patches leaves none"),
        ({}, {}, "at least one subject"),
    ],
)
def test_voxels_that_do_not_fit_are_refused(changes, n_voxels, message):
    with pytest.raises(ModelError, match=message):
        PatchMae.create(lab(**changes), n_voxels, 0)


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("heads", 7, "attention heads"),
        ("mask_ratio", 1.0, "mask_ratio"),
        ("mask_ratio", 0, "loss_on"),
        ("sparsify", -0.1, "sparsify"),
        ("padding", "reflect", "padding"),
        ("roi_heads", 4, "roi_heads"),
    ],
)
def test_an_impossible_configuration_is_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        validate(PatchMaeConfig, PatchMaeConfig.preset("lab") | {key: value}, "the configuration")


@pytest.mark.fault(1)
@pytest.mark.fault(2)
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e39])
def test_responses_that_are_no_numbers_are_named_by_row_and_column(value):
    part, x = PatchMaePart.of(network()), np.zeros((5, 99))
    x[3, 7] = value
    with np.errstate(over="ignore"):
        for use in (part.to_latent, part.to_tokens, part.reconstruct):
            with pytest.raises(DataError, match="row 3, column 7"):
                use(x, batch_size=2)
