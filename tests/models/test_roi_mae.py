"""LEA's ROI masked autoencoder against its published sizes, closed forms, invariants, and small trainings."""

from __future__ import annotations

import math
import sys
import types
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import validate
from phosphene.io.stages import load_part, save_part
from phosphene.models import RoiMae, RoiMaeConfig, RoiMaePart, load_sc_mbm, read_sc_mbm, roi_partition, subject_batches
from phosphene.models.roi_mae import GOD_ROIS
from phosphene.models.transformer import Block, position_codes
from phosphene.training import Draws, TrainConfig, train
from phosphene.types import Trials

# Voxels per ROI as the published configurations list them.
SIZES = {
    "sbj_1": (1004, 801, 476, 588, 431, 249, 157, 760),
    "sbj_2": (757, 727, 603, 416, 372, 124, 576, 829),
    "CSI1": (495, 342, 288, 331, 229),
    "CSI2": (495, 180, 370, 84),
    "CSI3": (607, 392, 273, 194),
    "CSI4": (764, 872, 614, 344, 193),
}


def lab(**changes) -> RoiMaeConfig:
    return RoiMaeConfig(**(RoiMaeConfig.preset("lab") | changes))


def shuffled(sizes, seed=0) -> list[np.ndarray]:
    """Groups of these sizes whose voxels are scattered over the brain."""
    return np.split(np.random.default_rng(seed).permutation(sum(sizes)), np.cumsum(sizes)[:-1])


def network(seed=0, sizes=(9, 6, 4), **changes) -> RoiMae:
    return RoiMae.create(lab(**changes), {"s1": shuffled(sizes)}, seed)


def meta(*subjects: str, **changes) -> RoiMae:
    with torch.device("meta"):
        return RoiMae(RoiMaeConfig(**changes), {name: SIZES[name] for name in subjects})


def count(module) -> int:
    return sum(w.numel() for w in module.parameters())


# -- published sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "millions"),
    [("sbj_1", 172.3), ("sbj_2", 172.2), ("CSI1", 168.0), ("CSI2", 167.2), ("CSI3", 167.7), ("CSI4", 169.7)],
)
def test_the_paper_preset_has_the_published_number_of_parameters(subject, millions):
    assert round(count(meta(subject)) / 1e6, 1) == millions


def test_the_parts_of_the_paper_preset_have_their_published_sizes():
    net = meta("sbj_1")
    assert count(net.blocks) + count(net.norm) == 151_242_752
    assert count(net.decoder_blocks) + count(net.decoder_norm) == 12_624_896
    assert round(count(net.patch_embed) / 1e6, 2) == 4.58
    assert round(count(net.channel_mapper) / 1e6, 2) == 2.29
    assert len(net.reference_names()) == 444  # theirs are 446 with two stored position codes
    assert net.config == validate(RoiMaeConfig, RoiMaeConfig.preset("paper"), "preset")


@pytest.mark.parametrize(("subject", "tokens"), [("sbj_1", 256), ("CSI1", 160), ("CSI2", 128)])
def test_the_paper_preset_has_32_tokens_per_roi_and_gives_back_every_voxel(subject, tokens):
    net, n = meta(subject), sum(SIZES[subject])
    seen = []
    net.blocks[0].register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape)))
    latent = net.to_latent(torch.empty(2, n, device="meta"))
    assert seen == [(2, 1 + tokens, 1024)]
    assert latent.shape == (2, 1024)
    assert net.from_latent(latent).shape == (2, n)


def test_subjects_share_the_trunk_and_nothing_else():
    together, alone = meta("CSI1", "CSI2"), [meta("CSI1"), meta("CSI2")]
    trunk = count(together) - sum(
        len(own) and sum(w.numel() for w in own) for own in map(together.own_parameters, (0, 1))
    )
    assert count(together) == sum(map(count, alone)) - trunk
    assert trunk == count(alone[0]) - sum(w.numel() for w in alone[0].own_parameters(0))


def test_the_trunk_taken_from_the_public_checkpoint_has_its_published_size():
    net = meta("sbj_1")
    starts = ("cls_token", "mask_token", "blocks.", "norm.", "decoder_embed.", "decoder_blocks.", "decoder_norm.")
    values = sum(w.numel() for name, w in net.named_parameters() if name.startswith(starts))
    assert round(values / 1e6, 2) == 164.39


# -- what the network computes -----------------------------------------------------------------------------------------


def test_a_block_equals_attention_written_out():
    block = Block(12, 3, 2.0).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = block.norm1(x)
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    heads = []
    for h in range(3):
        q, k, v = (y @ weight[12 * i + 4 * h :][:4].T + bias[12 * i + 4 * h :][:4] for i in range(3))
        heads.append(torch.softmax(q @ k.transpose(1, 2) / 2, -1) @ v)  # sqrt of 4 per head
    x1 = x + block.attn.proj(torch.cat(heads, -1))
    expected = x1 + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x1))))
    assert torch.allclose(block(x), expected, atol=1e-12)  # float64, sums of a few terms
    assert torch.allclose(block(x, first_only=True), expected[:, :1], atol=1e-12)


def test_positions_are_sines_then_cosines_with_a_row_of_zeros_first():
    code = position_codes(7, 8)
    assert code[0].eq(0).all()
    expected = [math.sin(5 / 10000 ** (i / 4)) for i in range(4)] + [math.cos(5 / 10000 ** (i / 4)) for i in range(4)]
    assert np.allclose(code[6], expected, atol=1e-6)  # float32


def test_roi_tokens_are_convolution_then_projection_of_that_roi_alone():
    groups = shuffled((9, 6, 4))
    net = RoiMae.create(lab(), {"s1": groups}, 0)
    x = torch.randn(2, 19, generator=torch.Generator().manual_seed(0))
    tokens = net._tokens(net._ordered(x, 0), 0)
    conv, fc = net.patch_embed[0].layers[1]
    roi = F.pad(x[:, groups[1]], (1, 1))
    slid = (
        torch.stack([(roi[:, i : i + 3, None] * conv.weight[:, 0].T).sum(1) for i in range(6)], -1) + conv.bias[:, None]
    )
    assert torch.allclose(tokens[:, 4:8], slid @ fc.weight.T + fc.bias, atol=1e-6)  # float32, sums of a few terms


def test_the_reconstruction_depends_on_the_brain_only_through_its_latent():
    net = network()
    x = torch.randn(3, 19, generator=torch.Generator().manual_seed(0), requires_grad=True)
    latent = net.to_latent(x)
    assert torch.equal(net.from_latent(latent), net(x))
    assert torch.equal(net.from_latent(latent.detach()), net.from_latent(latent.detach().clone()))
    (gradient,) = torch.autograd.grad(net.from_latent(latent.detach() + 0 * latent).sum(), x)
    assert gradient.eq(0).all()


def test_the_order_of_voxels_is_the_callers():
    groups = [np.array([0, 1, 2]), np.array([3, 4])]
    mixed = [np.array([4, 2, 0]), np.array([1, 3])]
    a, b = (RoiMae.create(lab(), {"s": g}, 0) for g in (groups, mixed))
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    moved = torch.empty_like(x)
    moved[:, np.concatenate(mixed)] = x  # voxel i of `a` is voxel mixed[i] of `b`
    assert torch.equal(a.to_latent(x), b.to_latent(moved))
    assert torch.equal(a(x), b(moved)[:, np.concatenate(mixed)])


def test_patches_wrap_around_and_add_a_whole_patch_where_none_is_needed():
    for n, patches in ((19, 3), (24, 4)):  # patches of 8
        net = network(embed="patch", sizes=(n,))
        x = torch.randn(2, n, generator=torch.Generator().manual_seed(0))
        ordered = net._ordered(x, 0)
        around = np.pad(ordered.numpy(), ((0, 0), (0, 8 - n % 8)), mode="wrap")
        tokens = net._tokens(ordered, 0)
        assert tokens.shape == (2, patches, 64)
        weight = net.patch_embed.proj.weight[:, 0]
        expected = torch.from_numpy(around).view(2, patches, 8) @ weight.T + net.patch_embed.proj.bias
        assert torch.allclose(tokens, expected, atol=1e-6)
        assert net(x).shape == (2, n)


def test_own_last_convolutions_are_one_per_roi():
    shared, own = network(), network(shared_out_conv=False)
    assert count(own) - count(shared) == 2 * (4 * 3 + 1)
    x = torch.randn(2, 19, generator=torch.Generator().manual_seed(0))
    own.decoder_pred[0][2].bias.data.fill_(5.0)
    moved = (own(x) - network(shared_out_conv=False)(x)).detach().numpy()
    third = shuffled((9, 6, 4))[2]
    assert np.allclose(moved[:, third], 5.0, atol=1e-5)
    assert np.allclose(np.delete(moved, third, axis=1), 0.0, atol=1e-6)


def test_recomputing_gives_the_same_loss_and_gradients():
    batch = {
        "betas": {"s1": torch.randn(4, 19, generator=torch.Generator().manual_seed(0))},
        "rows": {"s1": torch.arange(4)},
    }
    gradients = []
    for recompute in (False, True):
        net = RoiMae.create(lab(), {"s1": shuffled((9, 6, 4))}, 0, recompute=recompute)
        net.loss(batch, Draws(0, 0, 4))[0].backward()
        gradients.append([w.grad for w in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bfloat16_stays_near_float32_and_every_weight_gets_a_gradient():
    net = network()
    batch = {
        "betas": {"s1": torch.randn(4, 19, generator=torch.Generator().manual_seed(0))},
        "rows": {"s1": torch.arange(4)},
    }
    full = net.loss(batch, Draws(0, 0, 4))[0].item()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = net.loss(batch, Draws(0, 0, 4))
    loss.backward()
    assert loss.dtype == torch.float32
    assert math.isclose(loss.item(), full, rel_tol=2**-7)  # one step of bfloat16
    assert all(w.grad is not None and torch.isfinite(w.grad).all() for w in net.parameters())


def test_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    a, b, c = network(seed=1), network(seed=1), network(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.cls_token, c.cls_token)
    w = RoiMae.create(lab(width=256, heads=4), {"s": [np.arange(10)]}, 0).blocks[0].attn.proj.weight
    assert math.isclose(
        w.abs().max().item(), math.sqrt(6 / 512), rel_tol=1e-3
    )  # Xavier's bound, nearly met by 65536 draws


# -- noise of the input ------------------------------------------------------------------------------------------------


def test_exactly_a_quarter_of_the_voxels_is_dropped_in_every_row_and_evenly():
    net = network(sizes=(30, 11))
    noise = net._noise(Draws(3, 0, 2000))
    dropped = net._augment(torch.ones(2000, 41), noise).eq(0)
    assert dropped.sum(1).eq(10).all()  # int(0.25 * 41)
    # A voxel is dropped in a share 10 / 41 of 2000 rows; five standard errors of a proportion.
    p = 10 / 41
    assert (dropped.float().mean(0) - p).abs().max() < 5 * math.sqrt(p * (1 - p) / 2000)


def test_noise_is_added_to_a_quarter_of_the_rows():
    net = network(augment="noise", noise_std=0.5)
    noisy = net._augment(torch.ones(4000, 19), net._noise(Draws(3, 0, 4000))) - 1
    rows = noisy.abs().sum(1) > 0
    assert abs(rows.float().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    assert abs(noisy[rows].std() - 0.5) < 5 * 0.5 / math.sqrt(2 * rows.sum() * 19)


def test_the_target_is_the_clean_input_and_the_latent_is_never_augmented():
    net = network(augment="noise", noise_probability=1.0, noise_std=100.0)
    x = torch.randn(4, 19, generator=torch.Generator().manual_seed(0))
    loss, logs = net.loss({"betas": {"s1": x}, "rows": {"s1": torch.arange(4)}}, Draws(0, 0, 4))
    assert loss < 10  # a noisy target would cost 10 000
    assert -1 <= logs["correlation"] <= 1
    assert torch.equal(net.train().to_latent(x), net.eval().to_latent(x))


@pytest.mark.parametrize("augment", ["drop", "noise", "none"])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts_however_it_is_shared(augment):
    subjects = {"a": shuffled((9, 6, 4)), "b": shuffled((5, 5, 5)), "c": shuffled((12,))}  # two lengths of sequence
    net = RoiMae.create(lab(augment=augment), subjects, 0)
    rng = np.random.default_rng(0)
    fetch, n = subject_batches({s: rng.normal(size=(4, sum(map(len, g)))).astype("f4") for s, g in subjects.items()})
    rows = rng.permutation(n)
    whole, _ = net.loss(fetch(rows), Draws(0, 0, n))
    parts = [net.loss(fetch(rows[p]), Draws(0, 0, n, p))[0] for p in (slice(0, 4), slice(4, 8), slice(8, 12))]
    assert math.isclose(whole.item(), sum(p.item() for p in parts) / 3, rel_tol=1e-5)  # float32 sums in another order
    if augment == "none":
        alone = [(net(x, s) - x).square().mean().item() for s, x in fetch(np.arange(n))["betas"].items()]
        assert math.isclose(whole.item(), np.mean(alone), rel_tol=1e-5)


def test_absent_subjects_get_a_gradient_of_zero():
    net = RoiMae.create(lab(), {"a": shuffled((5,)), "b": shuffled((7,))}, 0)
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    net.loss({"betas": {"a": x}, "rows": {"a": torch.arange(2)}}, Draws(0, 0, 2))[0].backward()
    assert all(w.grad.eq(0).all() for w in net.own_parameters(1))
    assert all(w.grad is not None for w in net.parameters())


# -- training ----------------------------------------------------------------------------------------------------------


def low_rank(n, n_voxels, seed=0, rank=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, n_voxels)) / math.sqrt(rank)
    return (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)


@pytest.mark.parametrize("embed", ["roi", "patch"])
def test_training_reconstructs_new_trials_of_several_subjects_better_than_the_mean(embed):
    sizes = {"a": (9, 6, 5), "b": (12, 12)}
    data = {s: low_rank(260, sum(n), seed=i) for i, (s, n) in enumerate(sizes.items())}
    net = RoiMae.create(lab(embed=embed, drop=0.1), {s: shuffled(n) for s, n in sizes.items()}, 0)
    fetch, n = subject_batches({s: x[:200] for s, x in data.items()})
    config = TrainConfig(steps=150, batch_size=32, lr=3e-3, warmup=10, clip_norm=1.0)
    curve = train(net, fetch, n, config, seed=0, log_every=1, device="cpu").curve
    losses = [entry["loss"] for entry in curve]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])
    part = RoiMaePart.of(net)
    for s, x in data.items():
        new = x[200:]
        error = np.square(part.from_latent(part.to_latent(new, s), s) - new).mean()
        assert error < 0.7 * np.square(new - x[:200].mean(0)).mean(), s


def test_a_killed_training_ends_bit_identical(tmp_path):
    data = {"a": low_rank(20, 19), "b": low_rank(20, 12)}
    groups = {"a": shuffled((9, 6, 4)), "b": shuffled((12,))}
    fetch, n = subject_batches(data)
    config = TrainConfig(steps=8, batch_size=4, lr=1e-3, ema=0.9)
    ends = []
    for folder in (None, tmp_path / "run"):
        if folder is not None:
            train(
                RoiMae.create(lab(), groups, 0),
                fetch,
                n,
                config,
                seed=1,
                folder=folder,
                save_every=3,
                minutes=0.0,
                device="cpu",
            )
        net = RoiMae.create(lab(), groups, 0)
        done = train(net, fetch, n, config, seed=1, folder=folder, save_every=3, device="cpu")
        ends.append(net.state_dict())
    assert done.resumed_at > 0
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


# -- parts, subjects, checkpoints --------------------------------------------------------------------------------------


def test_a_part_comes_back_from_disk_bit_by_bit(tmp_path):
    net = RoiMae.create(lab(), {"sub-1.v2": shuffled((9, 6)), "z": shuffled((4,))}, 0)
    part = RoiMaePart.of(net)
    save_part(tmp_path / "brain", part, stage="brain", digest="d", seconds=0.0, lineage=[])
    loaded = load_part(tmp_path / "brain", RoiMaePart)
    x = low_rank(7, 15)
    latents = part.to_latent(x, "sub-1.v2", batch_size=3)
    assert latents.shape == (7, 64)
    assert latents.dtype == np.float32
    assert np.array_equal(latents, loaded.to_latent(x, "sub-1.v2", batch_size=3))
    assert np.array_equal(part.from_latent(latents, "sub-1.v2"), loaded.from_latent(latents, "sub-1.v2"))
    assert loaded.module.subjects == ["sub-1.v2", "z"]


@pytest.mark.fault(71)
def test_weights_of_another_subject_are_refused_with_both_shapes():
    tensors, _ = RoiMaePart.of(network()).state()
    _, meta_ = RoiMaePart.of(network(sizes=(9, 7, 4))).state()
    with pytest.raises(ModelError, match=r"\(6,\).*\(7,\)|\(19,\).*\(20,\)|64, 6.*64, 7|6, 32.*7, 32"):
        RoiMaePart.from_state(tensors, meta_)


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda net: net.to_latent(torch.zeros(2, 18)), r"\(trials, 19\).*\(2, 18\)"),
        (lambda net: net.from_latent(torch.zeros(2, 19)), r"\(rows, 64\).*\(2, 19\)"),
        (lambda net: net.to_latent(torch.zeros(2, 19), "s2"), "no layers for subject s2.*Known: s1"),
    ],
)
def test_betas_of_another_size_or_subject_are_refused(ask, message):
    with pytest.raises(ModelError, match=message):
        ask(network())


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        RoiMaePart.of(network()).to_latent(np.zeros((0, 19), np.float32))


def test_a_copied_trunk_serves_a_new_subject_and_keeps_a_known_one():
    a, b, c = shuffled((9, 6)), shuffled((4, 4, 4)), shuffled((5,))
    old = RoiMae.create(lab(), {"a": a, "b": b}, 0)
    new = old.with_subjects({"c": c, "b": b}, seed=1)
    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(new(x, "b"), old(x, "b"))
    assert torch.equal(new.blocks[1].mlp.fc1.weight, old.blocks[1].mlp.fc1.weight)
    fresh = RoiMae.create(lab(), {"c": c, "b": b}, 1)
    assert all(torch.equal(*w) for w in zip(new.own_parameters(0), fresh.own_parameters(0), strict=True))
    with torch.no_grad():
        new.norm.weight.zero_()
    assert old.norm.weight.eq(1).all()


def sc_mbm_weights(net: RoiMae, n_patches=30) -> dict[str, torch.Tensor]:
    """Weights in the layout of the public checkpoint, with the trunk's sizes of `net`."""
    generator = torch.Generator().manual_seed(9)
    c = net.config
    shapes = {
        k: w.shape
        for k, w in net.named_parameters()
        if not k.startswith(("patch_", "pred.", "channel_", "decoder_pred"))
    }
    shapes |= {"patch_embed.proj.weight": (c.width, 1, c.patch_size), "patch_embed.proj.bias": (c.width,)}
    shapes |= {"decoder_pred.weight": (c.patch_size, c.decoder_width), "decoder_pred.bias": (c.patch_size,)}
    shapes |= {"pos_embed": (1, 1 + n_patches, c.width), "decoder_pos_embed": (1, 1 + n_patches, c.decoder_width)}
    return {k: torch.randn(s, generator=generator) for k, s in shapes.items()}


@pytest.mark.parametrize(("embed", "keeps"), [("roi", ("patch_embed.", "decoder_pred.")), ("patch", ())])
def test_the_public_checkpoint_fills_the_trunk_and_leaves_the_rest(tmp_path, embed, keeps):
    net, before = network(embed=embed), network(embed=embed).state_dict()
    weights = sc_mbm_weights(net)
    module = types.ModuleType("config")
    exec("class Config_MBM_fMRI:\n    pass\n", module.__dict__)
    sys.modules["config"] = module
    try:
        settings = module.Config_MBM_fMRI()
        settings.patch_size = 8
        what = {"model": {f"module.{k}": w for k, w in weights.items()}, "epoch": 1, "config": settings}
        torch.save(what, tmp_path / "fmri_encoder.pth")
    finally:
        del sys.modules["config"]
    loaded = load_sc_mbm(net, read_sc_mbm(tmp_path / "fmri_encoder.pth"))
    state = net.state_dict()
    for name in loaded.taken:
        assert torch.equal(state[name], weights[name]), name
    for name in loaded.fresh:
        assert torch.equal(state[name], before[name]), name
        assert name.startswith((*keeps, "pred.", "channel_mapper."))
    assert set(loaded.taken) | set(loaded.fresh) == {name for name, _ in net.named_parameters()}
    assert set(loaded.taken) | set(loaded.skipped) == set(weights)
    assert loaded.n_values == sum(weights[name].numel() for name in loaded.taken)


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("blocks.1.mlp.fc2.bias"), r"missing blocks\.1\.mlp\.fc2\.bias \(1\)"),
        (lambda w: w.update({"blocks.2.norm1.bias": torch.ones(64)}), r"unexpected blocks\.2\.norm1\.bias \(1\)"),
        (lambda w: w.update({"norm.weight": torch.ones(65)}), r"\(65,\).*\(64,\)"),
        (lambda w: w["norm.weight"].fill_(math.nan), "NaN"),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(change, message):
    net, before = network(), network().state_dict()
    weights = sc_mbm_weights(net)
    change(weights)
    with pytest.raises(ModelError, match=message):
        load_sc_mbm(net, weights)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_names_map_onto_those_of_the_authors_code():
    net = RoiMae.create(lab(), {"a": shuffled((9, 6)), "b": shuffled((4, 4, 4))}, 0)
    names = net.reference_names("b")
    assert names["patch_embed.1.layers.2.0.weight"] == "patch_embed.layers.2.0.weight"
    assert names["channel_mapper.1.0.0.bias"] == "channel_mapper.0.0.bias"
    assert names["decoder_pred.weight"] == "decoder_pred.weight"
    assert not any(name.startswith(("patch_embed.0.", "channel_mapper.0.")) for name in names)


# -- voxel groups and configuration ------------------------------------------------------------------------------------


def god_like() -> Trials:
    """Overlapping masks that leave the published group sizes of subject 1, in a scattered voxel order."""
    n = sum(SIZES["sbj_1"])
    own = dict(zip(("V1", "V2", "V3", "V4", "FFA", "PPA", "LOC", "HVC"), shuffled(SIZES["sbj_1"]), strict=True))
    masks = {name: np.isin(np.arange(n), columns) for name, columns in own.items()}
    masks["V2"] |= np.isin(np.arange(n), own["V1"][:30])  # borders are in both
    masks["LVC"] = masks["V1"] | masks["V2"] | masks["V3"] | masks["V4"]
    masks["HVC"] |= masks["FFA"] | masks["PPA"] | masks["LOC"]
    masks["VC"] = np.ones(n, bool)
    voxels = pd.DataFrame({f"roi.{name}": masks[name] for name in sorted(masks)})
    return Trials(np.zeros((1, n), np.float32), pd.DataFrame({"stimulus": ["x"]}), voxels)


def test_the_partition_gives_the_published_group_sizes():
    groups = roi_partition(god_like(), GOD_ROIS)
    assert tuple(len(g) for g in groups.values()) == SIZES["sbj_1"]
    assert "LVC" not in groups and "VC" not in groups


@pytest.mark.parametrize("rois", [None, ("V2", "PPA"), ("VC", "V1")])
def test_the_partition_is_disjoint_and_exhaustive(rois):
    trials = god_like()
    groups = roi_partition(trials, rois)
    assert np.array_equal(np.sort(np.concatenate(list(groups.values()))), np.arange(trials.n_voxels))
    assert ("rest" in groups) == (rois == ("V2", "PPA"))


def test_trials_without_rois_are_one_group():
    trials = replace(god_like(), voxels=pd.DataFrame(index=range(sum(SIZES["sbj_1"]))))
    assert list(roi_partition(trials)) == ["all"]


def test_an_unknown_roi_is_named():
    with pytest.raises(DataError, match="V9"):
        roi_partition(god_like(), ("V1", "V9"))


@pytest.mark.parametrize("groups", [{}, {"s": []}, {"s": [[0, 1], [1, 2]]}, {"s": [[0], [2]]}, {"s": [[0, 1], []]}])
def test_groups_that_overlap_or_leave_voxels_out_are_refused(groups):
    with pytest.raises(ModelError, match="group"):
        RoiMae.create(lab(), {s: [np.array(g, dtype=int) for g in own] for s, own in groups.items()}, 0)


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    ("key", "value"), [("heads", 7), ("drop", 1.0), ("depth", 0), ("width", 63), ("mask_ratio", 0.75)]
)
def test_an_impossible_configuration_is_refused(key, value):
    with pytest.raises(ConfigError, match="attention heads" if key == "heads" else key):
        validate(RoiMaeConfig, RoiMaeConfig.preset("lab") | {key: value}, "the configuration")
