"""Mapper and voxel encoder against their published sizes, closed forms, invariants, and small trainings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from phosphene.align import Ridge
from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.features.captions import Targets
from phosphene.io.config import validate
from phosphene.io.stages import load_part, save_part
from phosphene.models import (
    EncoderTraining,
    Mapper,
    MapperConfig,
    MapperPart,
    MapperTraining,
    VoxelEncoder,
    VoxelEncoderConfig,
    VoxelEncoderPart,
    fit_mapper,
    fit_voxel_encoder,
    padding,
)
from phosphene.models.gru import validation_rows
from phosphene.models.mapper import Weights, mapper_loss

N_VOXELS, N_LATENTS = 30, 6
TINY = MapperConfig(channels=8, blocks=1, mixtures=16)


def count(module) -> int:
    return sum(w.numel() for w in module.parameters())


def meta(kind, config, n_voxels=15_724, n_latents=512):
    with torch.device("meta"):
        return kind(config, n_voxels, n_latents)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def shapes(module, x) -> list[tuple[int, ...]]:
    seen = []
    for part in module:
        x = part(x)
        seen.append(tuple(x.shape[1:]))
    return seen


# -- published sizes ---------------------------------------------------------------------------------------------------


def test_the_published_mapper_has_its_number_of_parameters():
    mapper = meta(Mapper, MapperConfig(padded=15_744))
    assert count(mapper) == 1_156_929
    parts = [mapper.encoder[0], *mapper.encoder[1:5], mapper.encoder[5], mapper.fc[1], mapper.fc[3]]
    assert [count(p) for p in parts] == [320, 28_864, 28_864, 28_864, 28_864, 33_280, 1_007_744, 129]


def test_its_layers_have_the_published_shapes_and_names():
    mapper = meta(Mapper, MapperConfig(padded=15_744))
    betas = torch.empty(2, 15_724, device="meta")
    padded = torch.nn.functional.pad(betas, mapper.padding)[:, None]
    assert padded.shape == (2, 1, 15_744)
    assert shapes(mapper.encoder, padded) == [(64, 7872)] * 5 + [(512, 7872)]
    assert shapes(mapper.fc, torch.empty(2, 7872, 512, device="meta"))[1::2] == [(128, 512), (1, 512)]
    assert mapper(betas).shape == (2, 512)
    names = {name.rsplit(".", 1)[0] for name, _ in mapper.named_parameters()}
    blocks = {f"encoder.{i}.net.{j}" for i in range(1, 5) for j in (0, 2, 4)}
    assert names == {"encoder.0.0", "encoder.5", "fc.1", "fc.3"} | blocks


def test_the_resnet_variant_halves_twice_and_mixes_256():
    mapper = meta(Mapper, MapperConfig(padded=15_744, layers=2, mixtures=256), n_latents=2048)
    assert mapper.fc[1].weight.shape == (256, 3936, 1)
    assert mapper(torch.empty(1, 15_724, device="meta")).shape == (1, 2048)


def test_the_published_encoder_has_its_shapes_and_number_of_parameters():
    encoder = meta(VoxelEncoder, VoxelEncoderConfig())
    assert (count(encoder.decoder), count(encoder.fc)) == (132_097, 2_159_596)
    seen = shapes(encoder.decoder, torch.empty(2, 1, 512, device="meta"))
    assert seen == [(64, 512)] * 5 + [(64, 1024)] * 2 + [(1, 1024)]
    assert encoder(torch.empty(2, 512, device="meta")).shape == (2, 15_724)


def test_voxels_are_padded_to_what_can_be_halved():
    assert padding(15_724, 1, 15_744) == (10, 10)
    assert padding(13_039, 1) == (0, 1)
    assert padding(8, 3) == (0, 0)
    assert sum(padding(13_041, 4)) == 13_056 - 13_041
    for n, layers, padded in ((30, 1, 28), (30, 2, 34)):
        with pytest.raises(ModelError, match=f"{n} voxels cannot be padded to {padded}"):
            padding(n, layers, padded)


# -- what the networks compute -----------------------------------------------------------------------------------------


def test_all_latents_share_one_mixture_of_positions():
    """A latent depends on the last hidden layer through two numbers a channel and place at most: written out."""
    mapper = Mapper.create(TINY, N_VOXELS, N_LATENTS, 0).eval()
    x = torch.randn(4, N_VOXELS, generator=torch.Generator().manual_seed(0))
    h = mapper.encoder[:-1](x[:, None])  # (4, 8, 15), 30 voxels need no padding
    last, mix, end = mapper.encoder[-1], mapper.fc[1], mapper.fc[3]
    per_place = torch.einsum("dc,ncp->ndp", last.weight[..., 0], h) + last.bias[:, None]
    mixed = torch.einsum("kp,ndp->ndk", mix.weight[..., 0], per_place.relu()) + mix.bias
    by_hand = mixed.relu() @ end.weight[0, :, 0] + end.bias
    assert torch.allclose(mapper(x), by_hand, atol=1e-5)  # float32


def test_a_block_adds_to_what_comes_in_and_the_encoder_s_does_not_clip():
    for kind, config, has_relu in (
        (Mapper, TINY, True),
        (VoxelEncoder, VoxelEncoderConfig(channels=8, blocks=1), False),
    ):
        network = kind.create(config, N_VOXELS, N_LATENTS, 0)
        block = network.encoder[1] if has_relu else network.decoder[1]
        x = torch.randn(2, 8, 10, generator=torch.Generator().manual_seed(1))
        expected = x + block.net(x)
        assert (expected < 0).any()
        assert torch.equal(block(x), expected.relu() if has_relu else expected)


def test_predicted_betas_lie_in_as_many_dimensions_as_the_bottleneck():
    encoder = VoxelEncoder.create(VoxelEncoderConfig(channels=8, blocks=1, bottleneck=3), N_VOXELS, N_LATENTS, 0)
    out = VoxelEncoderPart.of(encoder).encode(np.random.default_rng(0).standard_normal((50, N_LATENTS)))
    values = np.linalg.svd(out - out.mean(axis=0), compute_uv=False)
    assert values[3] < 1e-5 * values[0] < values[2]  # float32


def test_a_row_is_decoded_as_if_it_were_alone_and_has_length_one():
    part = MapperPart.of(Mapper.create(TINY, N_VOXELS + 1, N_LATENTS, 0))  # one voxel of padding
    x = np.random.default_rng(0).standard_normal((9, N_VOXELS + 1)).astype(np.float32)
    whole = part.predict(x)
    np.testing.assert_allclose(part.predict(x, batch_size=2), whole, atol=1e-5)  # float32, other blocks
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    assert whole.dtype == np.float32


def test_the_same_seed_gives_the_same_network_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    for kind, config in ((Mapper, TINY), (VoxelEncoder, VoxelEncoderConfig())):
        a, b, c = (kind.create(config, N_VOXELS, N_LATENTS, seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert any(not torch.equal(a[k], c[k]) for k in a)
    assert torch.equal(torch.random.get_rng_state(), before)


# -- losses ------------------------------------------------------------------------------------------------------------


def test_the_loss_is_its_formula():
    rng = np.random.default_rng(0)
    p, h = rng.standard_normal((7, N_LATENTS)), unit(rng.standard_normal((7, N_LATENTS)))
    s = unit(p) @ h.T / 0.5
    row = s - np.log(np.exp(s).sum(axis=1, keepdims=True))
    column = s - np.log(np.exp(s).sum(axis=0, keepdims=True))
    mse, cos = np.square(p - h).mean(), 1 - np.diag(unit(p) @ h.T).mean()
    both, one = (-0.5 * np.diag(row + column).mean(), -np.diag(row).mean())
    for symmetric, contrast in ((True, both), (False, one)):
        weights = Weights(mse=0.2, cosine=0.3, contrast=0.5)
        loss, terms = mapper_loss(torch.from_numpy(p), torch.from_numpy(h), weights, 0.5, symmetric)
        assert loss.item() == pytest.approx(0.2 * mse + 0.3 * cos + 0.5 * contrast, rel=1e-5)  # InfoNCE is float32
        assert float(terms["contrast"]) == pytest.approx(contrast, rel=1e-5)


def test_nothing_told_apart_costs_ln_128_and_perfect_ones_cost_2_9():
    weights = Weights(mse=0.0, cosine=0.0, contrast=1.0)
    same = torch.ones(128, 4)
    assert mapper_loss(same, same, weights)[0].item() == pytest.approx(math.log(128), rel=1e-5)
    apart = torch.eye(128)
    assert mapper_loss(apart, apart, weights)[0].item() == pytest.approx(2.901, abs=5e-4)  # three digits are known


# -- learning ----------------------------------------------------------------------------------------------------------


def problem(n=240, n_new=100, trials=2):
    """Noisy betas of unit vectors, two trials each, with two valid targets around every vector."""
    rng = np.random.default_rng(0)
    true = unit(rng.standard_normal((n + n_new, N_LATENTS)))
    mixing = 1.5 * rng.standard_normal((N_LATENTS, N_VOXELS))
    items = np.repeat(np.arange(n), trials)
    betas = true[items] @ mixing + 0.5 * rng.standard_normal((len(items), N_VOXELS))
    new = true[n:] @ mixing + 0.5 * rng.standard_normal((n_new, N_VOXELS))
    near = unit(true[:n, None] + 0.1 * rng.standard_normal((n, 2, N_LATENTS)))
    targets = Targets(near.reshape(-1, N_LATENTS).astype("f4"), 2 * np.arange(n), true[:n].astype("f4"))
    return betas.astype("f4"), items, targets, new.astype("f4"), true[n:]


def training(steps=250, **changes) -> MapperTraining:
    base = {"steps": steps, "batch_size": 32, "lr": 5e-3}
    finetune = {"steps": max(1, steps // 2), "batch_size": 32, "lr": 2e-3}
    return validate(MapperTraining, {"base": base, "finetune": finetune, "check_every": 25} | changes, "test")


def fit(settings=None, seed=0, **more) -> MapperPart:
    betas, items, targets, _, _ = problem()
    config = more.pop("config", TINY)
    held_out = validation_rows(items.astype(str), 0.15, np.random.default_rng(0))[1]
    given = {"seed": seed, "held_out": held_out, "device": "cpu"} | more
    return fit_mapper(config, betas, items, targets, settings or training(), **given)


def cosine_on_new(part) -> float:
    *_, new, true = problem()
    return float(np.vecdot(part.predict(new), true).mean())


@pytest.fixture(scope="module")
def two_stages():
    return fit()


def test_a_mapper_learns_a_linear_problem(two_stages):
    # Directions that say nothing average 0. A few hundred steps of a small network stay well below what a line finds.
    assert cosine_on_new(two_stages) > 0.7
    (chosen,) = two_stages.chosen_
    assert set(chosen) == {"base", "finetune"}
    assert chosen["base"]["step"] % 25 == 0


def test_stages_are_as_asked_for_and_differ(two_stages):
    base, joint = fit(training(stages="base")), fit(training(stages="joint"))
    assert set(base.chosen_[0]) == {"base"}
    assert set(joint.chosen_[0]) == {"joint"}
    assert min(cosine_on_new(base), cosine_on_new(joint)) > 0.65
    predictions = [p.predict(problem()[3]) for p in (two_stages, base, joint)]
    assert np.abs(predictions[0] - predictions[1]).max() > 1e-3
    assert np.abs(predictions[1] - predictions[2]).max() > 1e-3
    # The first of two stages is the whole of one: same seed, same steps.
    assert two_stages.chosen_[0]["base"] == base.chosen_[0]["base"]


def test_what_is_reported_is_the_loss_of_the_held_out_rows():
    betas, items, targets, _, _ = problem()
    held_out = validation_rows(items.astype(str), 0.15, np.random.default_rng(0))[1]
    part = fit(training(50, stages="base"))
    raw = part.module[0](torch.from_numpy(betas[held_out])).detach()
    loss = mapper_loss(raw, torch.from_numpy(targets.clean[items[held_out]]), Weights(mse=0.4, cosine=0.6))[0]
    assert part.chosen_[0]["base"]["validation_loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_validation_rows_never_reach_the_gradient():
    betas, items, targets, _, _ = problem()
    held_out = np.arange(40)
    changed = betas.copy()
    changed[held_out] *= 3
    settings = training(25, stages="base")  # one look, at the end
    parts = [
        fit_mapper(TINY, b, items, targets, settings, seed=0, held_out=held_out, device="cpu") for b in (betas, changed)
    ]
    a, b = (p.state()[0] for p in parts)
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert parts[0].chosen_ != parts[1].chosen_


def test_training_ends_when_it_gets_no_better():
    rng = np.random.default_rng(0)
    betas = rng.standard_normal((60, N_VOXELS)).astype("f4")
    noise = unit(rng.standard_normal((60, N_LATENTS))).astype("f4")  # nothing to learn: it can only overfit
    targets = Targets(noise, np.arange(60), noise)
    settings = training(1000, stages="base", check_every=5, patience=3)
    part = fit_mapper(TINY, betas, np.arange(60), targets, settings, seed=0, held_out=np.arange(20), device="cpu")
    chosen = part.chosen_[0]["base"]
    assert chosen["stopped_at"] == chosen["step"] + 15 < 1000
    last = fit_mapper(TINY, betas, np.arange(60), targets, training(10, stages="base"), seed=0, device="cpu")
    assert last.chosen_ == [{"base": {"step": 10}}]


class KilledError(Exception):
    pass


class Rows:
    """Betas that can be read so many times, and then no longer."""

    def __init__(self, betas, reads):
        self.betas, self.reads, self.shape = betas, reads, betas.shape

    def __len__(self):
        return len(self.betas)

    def __getitem__(self, rows):
        self.reads -= 1
        if self.reads < 0:
            raise KilledError
        return self.betas[rows]


@pytest.mark.parametrize("reads", [30, 75])
def test_a_training_that_was_killed_in_either_stage_ends_like_one_that_was_not(tmp_path, reads):
    betas, items, targets, _, _ = problem()

    def run(folder, betas):
        settings = training(50, check_every=10)
        more = {"held_out": np.arange(40), "folder": folder, "device": "cpu", "save_every": 12}
        return fit_mapper(TINY, betas, items, targets, settings, seed=0, **more)

    whole = run(tmp_path / "whole", betas)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", Rows(betas, reads))
    second = run(tmp_path / "killed", betas)
    assert second.chosen_ == whole.chosen_
    a, b = second.state()[0], whole.state()[0]
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_a_ridge_beside_it_is_where_it_starts_and_is_left_as_it_is():
    betas, items, targets, new, true = problem()
    ridge = Ridge(10.0).fit(betas, targets.clean[items])
    config = TINY.model_copy(update={"linear": "ridge"})
    more = {"config": config, "ridge": (ridge.coef_, ridge.intercept_)}
    start = fit(training(1, stages="base", base={"steps": 1, "batch_size": 32, "lr": 1e-9}), **more)
    np.testing.assert_allclose(start.predict(new), unit(ridge.predict(new)), atol=1e-4)  # float32
    part = fit(training(50), **more)
    np.testing.assert_allclose(part.module[0].line.weight.numpy().T, ridge.coef_, atol=1e-6)
    assert cosine_on_new(part) > np.vecdot(unit(ridge.predict(new)), true).mean() - 0.01
    with pytest.raises(DataError, match="came without a ridge"):
        fit(config=config)
    with pytest.raises(DataError, match="came with a ridge"):
        fit(ridge=more["ridge"])


def test_the_encoder_learns_a_linear_problem_and_back():
    betas, items, targets, _, true = problem()
    training = EncoderTraining.model_validate(
        {"train": {"steps": 300, "batch_size": 32, "lr": 3e-3}, "check_every": 50}, strict=False
    )
    config = VoxelEncoderConfig(channels=8, blocks=1, bottleneck=16)
    given = {"seed": 0, "held_out": np.arange(40), "device": "cpu"}
    part = fit_voxel_encoder(config, targets.clean[items], betas, training, **given)
    line = np.linalg.lstsq(targets.clean[items], betas, rcond=None)[0]
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(part.encode(true).T, (true @ line).T, strict=True)]
    assert np.mean(r) > 0.9
    assert part.chosen_["validation_loss"] < 0.5 * np.square(betas).mean()


# -- as parts of a run -------------------------------------------------------------------------------------------------


def test_saved_networks_answer_the_same(tmp_path, two_stages):
    x = problem()[3]
    encoder = VoxelEncoderPart.of(VoxelEncoder.create(VoxelEncoderConfig(), N_VOXELS, N_LATENTS, 0), {"step": 2})
    for name, part in (("mapper", two_stages), ("encoder", encoder)):
        save_part(tmp_path / name, part, stage=name, digest="d", seconds=0.0, lineage=())
    mapper = load_part(tmp_path / "mapper", MapperPart)
    np.testing.assert_array_equal(mapper.predict(x), two_stages.predict(x))
    assert mapper.chosen_ == two_stages.chosen_
    back = load_part(tmp_path / "encoder", VoxelEncoderPart)
    np.testing.assert_array_equal(back.encode(x[:, :N_LATENTS]), encoder.encode(x[:, :N_LATENTS]))
    assert back.chosen_ == {"step": 2}


def test_several_together_rank_pictures_as_the_sum_of_their_similarities(tmp_path):
    parts = [MapperPart.of(Mapper.create(TINY, N_VOXELS, N_LATENTS, seed), {"step": seed}) for seed in range(3)]
    both = MapperPart.together(parts, np.array([2.0, 0.0, 6.0]))
    np.testing.assert_allclose(both.weights_, [0.25, 0, 0.75])
    assert both.chosen_ == [{"step": 0}, {"step": 1}, {"step": 2}]
    _, _, targets, x, _ = problem()
    gallery = targets.clean
    summed = sum(w * p.predict(x) @ gallery.T for w, p in zip(both.weights_, parts, strict=True))
    ours = both.predict(x) @ gallery.T
    lengths = np.linalg.norm(sum(w * p.predict(x) for w, p in zip(both.weights_, parts, strict=True)), axis=1)
    np.testing.assert_allclose(ours * lengths[:, None], summed, atol=1e-5)  # float32; one factor for each row
    save_part(tmp_path / "part", both, stage="mapper", digest="d", seconds=0.0, lineage=())
    np.testing.assert_array_equal(load_part(tmp_path / "part", MapperPart).predict(x), both.predict(x))
    for weights in ([1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ModelError, match="weights"):
            MapperPart.together(parts, np.array(weights))
    other = MapperPart.of(Mapper.create(TINY, N_VOXELS, N_LATENTS + 1, 0))
    with pytest.raises(ModelError, match="same sizes"):
        MapperPart.together([parts[0], other], np.ones(2))


def test_what_cannot_be_decoded_is_named():
    part = MapperPart.of(Mapper.create(TINY, N_VOXELS, N_LATENTS, 0))
    with pytest.raises(ModelError, match=r"\(trials, 30\).*\(2, 29\)"):
        part.predict(np.zeros((2, 29), "f4"))
    with pytest.raises(DataError, match="shape"):
        part.predict(np.zeros((0, 30), "f4"))
    bad = np.zeros((3, 30), "f4")
    bad[2, 4] = np.nan
    with pytest.raises(DataError, match="row 2, column 4"):
        part.predict(bad, batch_size=2)
    encoder = VoxelEncoderPart.of(VoxelEncoder.create(VoxelEncoderConfig(), N_VOXELS, N_LATENTS, 0))
    with pytest.raises(ModelError, match=r"\(items, 6\).*\(2, 7\)"):
        encoder.encode(np.zeros((2, 7), "f4"))
    betas, items, targets, _, _ = problem()
    with pytest.raises(DataError, match="240 stimuli"):
        fit_mapper(TINY, betas, items + 1, targets, training(), seed=0)
    with pytest.raises(DataError, match="3 and 4 rows"):
        fit_voxel_encoder(VoxelEncoderConfig(), betas[:3], betas[:4], EncoderTraining(), seed=0)


def test_presets_are_valid_and_an_average_of_weights_excludes_a_best_step():
    for kind in (MapperConfig, VoxelEncoderConfig, MapperTraining, EncoderTraining):
        for preset in ("paper", "lab"):
            validate(kind, kind.preset(preset), "preset")
    with pytest.raises(ConfigError, match="validation=0"):
        validate(MapperTraining, {"base": {"steps": 5, "batch_size": 4, "ema": 0.9}}, "the configuration")


@pytest.mark.parametrize("kind", ["mapper", "voxel_encoder"])
def test_a_linear_map_is_refused_by_a_network_without_a_layer_for_it(kind):
    if kind == "mapper":
        network = Mapper.create(MapperConfig(channels=2, blocks=0, mixtures=3), 24, 5, seed=0)
        shape = (24, 5)
    else:
        network = VoxelEncoder.create(VoxelEncoderConfig(channels=2, blocks=0, bottleneck=3), 24, 5, seed=0)
        shape = (5, 24)

    with pytest.raises(ModelError, match="linear='none'.*use linear='ridge'"):
        network.set_line(np.zeros(shape), np.zeros(shape[1]))
