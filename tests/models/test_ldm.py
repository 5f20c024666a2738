"""Latent diffusion: sizes, its two conditionings, training, PLMS, and the weights it was published with."""

from __future__ import annotations

import json
import math
import re
import sys
import types

import numpy as np
import pytest
import torch
from diffusers import VQModel

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.stages import load_part, save_part
from phosphene.models.ldm import (
    VQ_F4,
    BrainTokens,
    Ldm,
    LdmConfig,
    LdmSampling,
    LdmUnet,
    network_table,
    public_network,
    public_tokenizer,
    random_crops,
    read_public,
    tokenizer_table,
    tuned_config,
    tuned_encoder,
)
from phosphene.training import Draws, TrainConfig, train
from tests.models.conftest import seeded

SMALL = {
    "size": 8, "channels": 3, "widths": [8, 16], "attention": [False, True], "blocks": 1, "heads": 2, "groups": 4,
    "context": 12,
}  # fmt: skip
BRAIN = {**SMALL, "condition": {"kind": "tokens", "count": 9, "width": 10, "mapped": 5}}
LABELS = {**SMALL, "condition": {"kind": "labels", "classes": [4, 3]}, "time": "none"}
SMALL_VQ = {
    "in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2, "block_out_channels": [8, 16], "layers_per_block": 1,
    "latent_channels": 3, "sample_size": 16, "num_vq_embeddings": 20, "vq_embed_dim": 3, "norm_num_groups": 4,
    "scaling_factor": 0.5,
}  # fmt: skip


def network(config=BRAIN, seed=0, **changes) -> LdmUnet:
    return seeded(lambda: LdmUnet(**{**config, **changes}), seed).eval()


def ldm(config=BRAIN) -> Ldm:
    return Ldm.of(network(config), seeded(lambda: VQModel(**SMALL_VQ), 1))


def tokens(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 9, 10)).astype(np.float32)


def count(module, keep=lambda name: True):
    return sum(w.numel() for name, w in module.named_parameters() if keep(name))


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_published_sizes_have_the_published_numbers_of_weights():
    with torch.device("meta"):
        paper, public = (LdmUnet(**c.model_dump(mode="json")) for c in (LdmConfig.paper(), LdmConfig.published()))
        vq = VQModel(**VQ_F4)
    assert count(paper.unet) == count(public.unet) == 400_920_579
    assert count(paper, lambda k: k.startswith(("unet.", "time."))) == 401_317_566
    assert count(paper.condition) == 53_582 + 524_800  # token mapper and dim mapper
    assert count(public.condition) == 1001 * 512
    assert count(vq) == 55_322_782
    assert (len(public.unet.state_dict()), len(vq.state_dict())) == (688, 205)


def test_the_lab_preset_fits_the_zoos_tokenizer_in_about_a_million_and_a_half_weights():
    from phosphene.lab.zoo.networks import NETWORKS

    lab, vq = LdmConfig.lab(), NETWORKS["vq"].config
    with torch.device("meta"):
        assert 1e6 < count(LdmUnet(**lab.model_dump(mode="json"))) < 1.5e6
    assert lab.channels == vq["latent_channels"]
    assert lab.size * 2 ** (len(vq["block_out_channels"]) - 1) == vq["sample_size"] == 32


def test_the_zoo_trains_the_lab_preset_with_the_lab_worlds_classes():
    from phosphene.lab import scenes
    from phosphene.lab.zoo.networks import NETWORKS

    assert LdmConfig.model_validate_json(json.dumps(NETWORKS["ldm"].config)) == LdmConfig.lab()
    assert LdmConfig.lab().condition.classes == (len(scenes.THINGS), len(scenes.PLACES))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"widths": [8, 10]}, "multiple of heads"), ({"attention": [True]}, "one each"), ({"size": 7}, "halved"),
     ({"widht": [3, 4]}, "widths"), ({"condition": {"kind": "tokens", "count": 0}}, "count")],
)  # fmt: skip
def test_impossible_sizes_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        network(**change)


# -- conditionings -----------------------------------------------------------------------------------------------------


def test_tokens_are_mixed_into_fewer_then_widened_and_pooled_as_matrix_products_say():
    net, x = network(), torch.from_numpy(tokens(3))
    context, time = net.context(x)
    w = {k: v.numpy().astype(np.float64) for k, v in net.state_dict().items() if not k.startswith("unet.")}

    def mapped(x, part):
        for i in (0, 1):
            x = w[f"{part}.tokens.{i}.weight"][:, :, 0] @ x + w[f"{part}.tokens.{i}.bias"][:, None]
        return x @ w[f"{part}.values.weight"].T + w[f"{part}.values.bias"]

    expected = mapped(x.numpy().astype(np.float64), "condition")
    assert expected.shape == (3, 5, 12)
    # float32 sums of some ten terms of order 1
    assert np.allclose(context.detach(), expected, atol=1e-5)
    assert np.allclose(time.detach(), mapped(expected, "time")[:, 0], atol=1e-5)
    assert time.shape == (3, 32)


def test_tokens_pass_unmixed_where_no_number_is_asked_for_and_their_mean_is_pooled():
    config = {**BRAIN, "condition": {"kind": "tokens", "count": 9, "width": 10, "mapped": None}, "time": "mean"}
    net, x = network(config), torch.from_numpy(tokens(2))
    context, time = net.context(x)
    assert torch.allclose(context, net.condition.values(x))
    assert torch.allclose(time, net.time.values(context.mean(1)), atol=1e-6)
    assert not any("tokens.0" in name for name, _ in net.named_parameters())


def test_labels_are_one_token_each():
    net = network(LABELS)
    context, time = net.context(torch.tensor([[3, 0], [1, 2]]))
    assert time is None
    assert torch.equal(context[1, 0], net.condition.embeddings[0].weight[1])
    assert torch.equal(context[1, 1], net.condition.embeddings[1].weight[2])


def test_both_conditionings_reach_the_prediction_each_on_its_own():
    net, z, t = network(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 900])
    context, time = net.context(torch.from_numpy(tokens(2)))
    base = net.denoise(z, t, (context, time))
    assert not torch.allclose(base, net.denoise(z, t, (context.flip(0), time)), atol=1e-4)
    assert not torch.allclose(base, net.denoise(z, t, (context, time.flip(0))), atol=1e-4)


def test_a_second_conditioning_that_starts_at_zero_leaves_the_pretrained_prediction_as_it_was():
    first = network(LABELS)
    z, t, x = torch.zeros(2, 3, 8, 8), torch.tensor([5, 900]), torch.from_numpy(tokens(2))
    drawn, zero = (first.with_tokens(9, 10, seed=3, mapped=5, zero_time=zero) for zero in (False, True))
    for name, weight in first.unet.state_dict().items():
        assert torch.equal(weight, zero.unet.state_dict()[name])
    for net, is_same in ((drawn, False), (zero, True)):
        net.eval()
        context, _ = net.context(x)
        alone = first.denoise(z, t, (context, None))
        assert torch.allclose(net(z, t, x), alone, atol=1e-6) == is_same


def test_new_conditionings_are_a_function_of_the_seed_alone():
    first, x = network(LABELS), torch.from_numpy(tokens(1))
    state = torch.get_rng_state()
    a, b, c = (first.with_tokens(9, 10, seed=s, mapped=5).context(x)[0] for s in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


@pytest.mark.parametrize("bad", [(2, 9, 11), (2, 8, 10), (2, 10)])
def test_tokens_of_another_encoder_are_refused(bad):
    with pytest.raises(DataError, match="9, 10"):
        network().context(torch.zeros(bad))


# -- what is tuned -----------------------------------------------------------------------------------------------------


def test_tuning_to_a_brain_opens_the_published_weights_and_not_the_residual_blocks_norms():
    with torch.device("meta"):
        paper = LdmUnet(**LdmConfig.paper().model_dump(mode="json"))
    open_ = set(paper.tune("cross_attention"))
    assert open_ == {name for name, w in paper.named_parameters() if w.requires_grad}
    attn2 = count(paper, lambda k: k in open_ and ".attn2." in k)
    norm2 = count(paper, lambda k: k in open_ and ".norm2." in k)
    assert (attn2, norm2, count(paper.time)) == (26_675_520, 21_120, 396_987)
    assert count(paper, lambda k: k in open_ and not k.startswith("condition.")) == 27_093_627
    assert set(paper.tune("frozen")) == {k for k, _ in paper.named_parameters() if not k.startswith("unet.")}
    assert len(paper.tune("all")) == len(list(paper.parameters()))


@pytest.mark.parametrize("what", ["cross_attention", "frozen"])
def test_training_changes_what_is_tuned_and_nothing_else_and_reaches_the_encoder_before_it(what):
    net = network()
    names = net.tune(what)
    before = {k: v.clone() for k, v in net.state_dict().items()}

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.ldm = torch.nn.Linear(10, 10), net

        def loss(self, batch, draws):
            return self.ldm.loss({**batch, "tokens": self.encoder(batch["tokens"])}, draws)

    both = seeded(Both)
    start = both.encoder.weight.detach().clone()
    x, z = torch.from_numpy(tokens(4)), torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(steps=2, batch_size=4, lr=1e-3)
    train(both, lambda rows: {"tokens": x[rows], "latents": z[rows]}, 4, config, seed=0, device="cpu")
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == set(names)
    assert not torch.equal(both.encoder.weight, start)


# -- training ----------------------------------------------------------------------------------------------------------


def test_the_noising_process_is_the_published_one():
    signal = network().signal.double()
    assert len(signal) == 1000
    assert math.isclose(float(signal[0]), 1 - 0.0015, rel_tol=1e-6)
    assert math.isclose(float(signal[-1]), 1.423e-4, rel_tol=1e-3)  # abar_1000 of the paper's note, four digits
    assert np.allclose(signal, network().schedule().alphas_cumprod, rtol=1e-4)  # products of 1000 float32 numbers


def test_the_loss_is_the_squared_error_of_the_noise_at_the_drawn_time():
    net, x = network(), torch.from_numpy(tokens(8))
    z = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    loss, logs = net.loss({"latents": z, "tokens": x}, Draws(0, 3, 8))
    draws = Draws(0, 3, 8)
    t, noise = draws.integers(1000), draws.normal(3, 8, 8)
    noisy = net.schedule().add_noise(z, noise, t)
    error = (net(noisy, t, x) - noise).square().mean((1, 2, 3)).detach()
    assert math.isclose(loss.item(), float(error.mean()), rel_tol=1e-5)
    early = net.signal[t] > 0.5
    assert 0 < early.sum() < 8
    assert math.isclose(float(logs["early"]), float(error[early].mean()), rel_tol=1e-5)
    assert math.isclose(float(logs["late"]), float(error[~early].mean()), rel_tol=1e-5)


def test_parts_of_a_batch_have_the_loss_of_the_whole():
    net = network()
    batch = {"tokens": torch.from_numpy(tokens(6)), "latents": torch.ones(6, 3, 8, 8)}
    whole, _ = net.loss(batch, Draws(1, 1, 6))
    parts = [net.loss({k: v[p] for k, v in batch.items()}, Draws(1, 1, 6, p))[0] for p in (slice(0, 3), slice(3, 6))]
    assert math.isclose(whole.item(), sum(parts).item() / 2, rel_tol=1e-5)  # float32 sums


def test_training_learns_which_latent_belongs_to_which_label():
    labels = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    z = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    net = network(LABELS, size=4, widths=[16], attention=[True])

    def fetch(rows):
        return {"latents": z[rows % 4], "labels": labels[rows % 4]}

    config = TrainConfig(steps=150, batch_size=32, lr=4e-3, warmup=10, clip_norm=1.0)
    curve = train(net, fetch, 32, config, seed=0, log_every=10, device="cpu").curve
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    # Where half of the variance is noise, only the label tells which of the four latents lies below it.
    t = torch.full((4,), int((net.signal > 0.5).sum()))
    noise = torch.randn(50, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    signal = net.signal[t][:, None, None, None]
    noisy, times = signal.sqrt() * z + (1 - signal).sqrt() * noise, t.repeat(50)
    with torch.no_grad():
        own, other = (
            (net(noisy.flatten(0, 1), times, which.repeat(50, 1)) - noise.flatten(0, 1)).square().mean().item()
            for which in (labels, labels.flip(0))
        )
    assert own < 0.7 * other


def test_crops_are_windows_of_the_picture_stretched_to_its_size():
    n, size = 200, 20
    ramp = torch.arange(float(size))
    x = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)]).expand(
        n, -1, -1, -1
    )
    out = random_crops(x, Draws(0, 0, n))
    is_cut = (out != x).flatten(1).any(1)
    assert 0.35 < is_cut.float().mean() < 0.65  # a fair coin, four deviations of 0.035
    # A window of 16 of 20 pixels: a ramp stays one inside, with slope 16 / 20, and starts at one of five places.
    inner = out[is_cut][:, :, 2:-2, 2:-2]
    for channel, axis in ((0, 2), (1, 1)):
        slope = inner[:, channel].diff(dim=axis)
        assert torch.allclose(slope, torch.full_like(slope, 0.8), atol=1e-4)
        assert out[is_cut][:, channel].amin((1, 2)).round().unique().tolist() == [0, 1, 2, 3, 4]
    whole = random_crops(x[:4], Draws(0, 0, 4), share=0.0)
    assert torch.equal(whole, x[:4])


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_plms_calls_the_network_once_more_than_it_has_steps_in_the_published_order():
    net, seen = network(), []
    net.denoise = lambda z, time, context: seen.append(int(time[0])) or torch.zeros_like(z)
    net.sample(tokens(1), ["a"], seed=0, samples=1, batch_size=1)
    assert len(seen) == 251
    assert seen[:4] == [997, 993, 993, 989]
    assert seen[-2:] == [5, 1]


def test_plms_with_the_true_noise_of_a_normal_distribution_ends_near_it():
    # For z ~ N(m, s^2) the noise that is expected in z_t is known; PLMS then follows the exact flow from N(0, 1).
    net, mean, deviation = network(), 1.5, 0.3

    def exact(z, time, context):
        signal = net.signal[time][:, None, None, None]
        return (1 - signal).sqrt() * (z - signal.sqrt() * mean) / (signal * deviation**2 + 1 - signal)

    net.denoise = exact
    z = net.sample(tokens(4), list("abcd"), seed=0, steps=100, samples=8, batch_size=32)
    n = z.numel()
    assert n == 6144
    # Four deviations of a mean of n, and 2 % for stopping at the first noise level and for finite steps.
    assert abs(float(z.mean()) - mean) < 4 * deviation / n**0.5 + 0.02 * mean
    assert abs(float(z.std()) / deviation - 1) < 4 / (2 * n) ** 0.5 + 0.02


@pytest.mark.usefixtures("one_thread")
def test_a_picture_depends_on_seed_id_and_sample_only():
    part, x, ids = ldm(), tokens(5), [f"scene-{i}" for i in range(5)]
    sampling = LdmSampling(steps=4, samples=3)
    all_of_them = part.sample(x, ids, sampling, 4, batch_size=4)
    assert all_of_them.shape == (5, 3, 16, 16, 3)
    assert all_of_them.dtype == np.float32
    assert 0 <= all_of_them.min() <= all_of_them.max() <= 1
    order = [4, 0, 3]
    assert np.array_equal(part.sample(x[order], [ids[i] for i in order], sampling, 4, batch_size=4), all_of_them[order])
    one = part.sample(x[:1], ids[:1], LdmSampling(steps=4, samples=1), 4, batch_size=4)
    assert np.array_equal(one, all_of_them[:1, :1])
    # Other sizes of batches round sums in another order: latents agree to rounding.
    z = [part.network.sample(x, ids, seed=4, steps=4, samples=2, batch_size=b) for b in (4, 10)]
    assert torch.allclose(*z, atol=1e-4)
    assert not torch.allclose(z[0], part.network.sample(x, ids, seed=5, steps=4, samples=2, batch_size=4), atol=1e-2)


def test_sampling_touches_no_global_noise_and_leaves_the_mode():
    net = network().train()
    state = torch.get_rng_state()
    net.sample(tokens(1), ["a"], seed=0, steps=2, samples=1, batch_size=1)
    assert torch.equal(state, torch.get_rng_state())
    assert net.training


def test_no_stimuli_give_no_pictures():
    assert ldm().sample(tokens(0), [], LdmSampling(steps=2), 0).shape == (0, 5, 16, 16, 3)


@pytest.mark.parametrize("bad", [np.zeros((2, 9, 11)), np.zeros((3, 9, 10)), np.full((2, 9, 10), np.nan)])
def test_conditions_of_another_shape_or_with_nan_are_refused(bad):
    with pytest.raises(DataError):
        network().sample(bad, ["a", "b"], seed=0)


@pytest.mark.parametrize("bad", [[[0, 3]], [[-1, 0]], [[0.0, 0.0]], [[0]]])
def test_labels_of_no_class_are_refused(bad):
    with pytest.raises(DataError, match="labels"):
        network(LABELS).sample(np.array(bad), ["a"], seed=0)


@pytest.mark.parametrize("bad", [{"steps": 1}, {"steps": 501}, {"samples": 0}, {"batch_size": 0}])
def test_impossible_samplings_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        network().sample(tokens(1), ["a"], seed=0, **bad)


@pytest.mark.fault(70)
def test_a_network_that_gives_nan_draws_nothing():
    net = network()
    with torch.no_grad():
        net.unet.conv_out.weight[0, 0] = math.nan
    with pytest.raises(ModelError, match="NaN"):
        net.sample(tokens(1), ["a"], seed=0, steps=2, samples=1, batch_size=1)


# -- the part of a run -------------------------------------------------------------------------------------------------


def test_latents_are_scaled_and_quantised_only_when_they_are_decoded():
    part = ldm()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    z = part.encode(pixels, batch_size=2)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        raw = part.tokenizer.encode(x).latents
        picture = part.tokenizer(x).sample  # quantises
    assert torch.allclose(z, 0.5 * raw, atol=1e-5)
    decoded = part.decode(z, batch_size=2)
    assert np.allclose(decoded, ((picture + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1), atol=1e-5)
    with pytest.raises(DataError, match="16 x 16"):
        part.encode(np.zeros((1, 8, 8, 3)))


def test_networks_that_do_not_belong_together_are_refused():
    with pytest.raises(ModelError, match="4"):
        Ldm.of(network(channels=4), VQModel(**SMALL_VQ))


@pytest.mark.parametrize("config", [BRAIN, LABELS])
def test_it_comes_back_from_a_stage_folder_with_the_same_pictures(tmp_path, config):
    part = ldm(config)
    save_part(tmp_path / "s", part, stage="s", digest="d", seconds=0.0, lineage=[])
    again = load_part(tmp_path / "s", Ldm)
    x = tokens(2) if config is BRAIN else np.array([[0, 1], [3, 2]])
    sampling = LdmSampling(steps=3, samples=2)
    assert np.array_equal(part.sample(x, ["a", "b"], sampling, 1), again.sample(x, ["a", "b"], sampling, 1))
    assert again.size == 16


# -- public weights ----------------------------------------------------------------------------------------------------


def public_shapes(c: LdmConfig, vq, labels=1001):
    """Every tensor of the public checkpoint with its shape, walked through in the order its network is made."""
    out = {}

    def both(name, *shape):
        out[f"{name}.weight"], out[f"{name}.bias"] = shape, shape[:1]

    def norm(name, n):
        both(name, n)

    def residual(name, n_in, n_out, embedding):
        norm(f"{name}.in_layers.0", n_in)
        both(f"{name}.in_layers.2", n_out, n_in, 3, 3)
        both(f"{name}.emb_layers.1", n_out, embedding)
        norm(f"{name}.out_layers.0", n_out)
        both(f"{name}.out_layers.3", n_out, n_out, 3, 3)
        if n_in != n_out:
            both(f"{name}.skip_connection", n_out, n_in, 1, 1)

    def transformer(name, n):
        norm(f"{name}.norm", n)
        both(f"{name}.proj_in", n, n, 1, 1)
        block = f"{name}.transformer_blocks.0"
        for which, width in (("attn1", n), ("attn2", c.context)):
            out[f"{block}.{which}.to_q.weight"] = (n, n)
            out[f"{block}.{which}.to_k.weight"] = out[f"{block}.{which}.to_v.weight"] = (n, width)
            both(f"{block}.{which}.to_out.0", n, n)
        both(f"{block}.ff.net.0.proj", 8 * n, n)
        both(f"{block}.ff.net.2", n, 4 * n)
        for i in (1, 2, 3):
            norm(f"{block}.norm{i}", n)
        both(f"{name}.proj_out", n, n, 1, 1)

    unet, first, embedding = "model.diffusion_model", c.widths[0], 4 * c.widths[0]
    both(f"{unet}.time_embed.0", embedding, first)
    both(f"{unet}.time_embed.2", embedding, embedding)
    both(f"{unet}.input_blocks.0.0", first, c.channels, 3, 3)
    i, at, skips = 1, first, [first]
    for level, width in enumerate(c.widths):
        for _ in range(c.blocks):
            residual(f"{unet}.input_blocks.{i}.0", at, width, embedding)
            if c.attention[level]:
                transformer(f"{unet}.input_blocks.{i}.1", width)
            i, at = i + 1, width
            skips.append(at)
        if level < len(c.widths) - 1:
            both(f"{unet}.input_blocks.{i}.0.op", at, at, 3, 3)
            i += 1
            skips.append(at)
    residual(f"{unet}.middle_block.0", at, at, embedding)
    transformer(f"{unet}.middle_block.1", at)
    residual(f"{unet}.middle_block.2", at, at, embedding)
    i = 0
    for level in reversed(range(len(c.widths))):
        for j in range(c.blocks + 1):
            residual(f"{unet}.output_blocks.{i}.0", at + skips.pop(), c.widths[level], embedding)
            at, child = c.widths[level], 1
            if c.attention[level]:
                transformer(f"{unet}.output_blocks.{i}.1", at)
                child = 2
            if level and j == c.blocks:
                both(f"{unet}.output_blocks.{i}.{child}.conv", at, at, 3, 3)
            i += 1
    norm(f"{unet}.out.0", first)
    both(f"{unet}.out.2", c.channels, first, 3, 3)

    def block(name, n_in, n_out):
        norm(f"{name}.norm1", n_in)
        both(f"{name}.conv1", n_out, n_in, 3, 3)
        norm(f"{name}.norm2", n_out)
        both(f"{name}.conv2", n_out, n_out, 3, 3)
        if n_in != n_out:
            both(f"{name}.nin_shortcut", n_out, n_in, 1, 1)

    def middle(name, n):
        block(f"{name}.block_1", n, n)
        norm(f"{name}.attn_1.norm", n)
        for part in ("q", "k", "v", "proj_out"):
            both(f"{name}.attn_1.{part}", n, n, 1, 1)
        block(f"{name}.block_2", n, n)

    widths, z = vq["block_out_channels"], vq["latent_channels"]
    side = "first_stage_model.encoder"
    both(f"{side}.conv_in", widths[0], 3, 3, 3)
    at = widths[0]
    for level, width in enumerate(widths):
        for j in range(vq["layers_per_block"]):
            block(f"{side}.down.{level}.block.{j}", at, width)
            at = width
        if level < len(widths) - 1:
            both(f"{side}.down.{level}.downsample.conv", at, at, 3, 3)
    middle(f"{side}.mid", at)
    norm(f"{side}.norm_out", at)
    both(f"{side}.conv_out", z, at, 3, 3)
    side = "first_stage_model.decoder"
    both(f"{side}.conv_in", at, z, 3, 3)
    middle(f"{side}.mid", at)
    for level in reversed(range(len(widths))):
        for j in range(vq["layers_per_block"] + 1):
            block(f"{side}.up.{level}.block.{j}", at, widths[level])
            at = widths[level]
        if level:
            both(f"{side}.up.{level}.upsample.conv", at, at, 3, 3)
    norm(f"{side}.norm_out", at)
    both(f"{side}.conv_out", 3, at, 3, 3)
    out["first_stage_model.quantize.embedding.weight"] = (vq["num_vq_embeddings"], vq["vq_embed_dim"])
    both("first_stage_model.quant_conv", vq["vq_embed_dim"], z, 1, 1)
    both("first_stage_model.post_quant_conv", z, vq["vq_embed_dim"], 1, 1)
    out["cond_stage_model.embedding.weight"] = (labels, c.context)
    return out


TINY = LdmConfig.model_validate_json(
    json.dumps({**SMALL, "widths": [8, 8, 16], "attention": [False, True, True], "blocks": 2, "time": "none",
           "condition": {"kind": "labels", "classes": [7]}})
)  # fmt: skip


def public_file(c=TINY, vq=SMALL_VQ, labels=7, seed=0):
    rng = torch.Generator().manual_seed(seed)
    out = {k: 0.1 * torch.randn(shape, generator=rng) for k, shape in public_shapes(c, vq, labels).items()}
    betas = np.linspace(np.sqrt(0.0015), np.sqrt(0.0195), 1000) ** 2
    out["betas"] = torch.from_numpy(betas).float()
    return {**out, "alphas_cumprod": torch.from_numpy(np.cumprod(1 - betas)).float()}


def tuned_file(is_pooled=False, seed=0):
    """The same tuned to a brain of 9 tokens of 10 values."""
    rng, out = torch.Generator().manual_seed(seed), public_file()
    del out["cond_stage_model.embedding.weight"]
    conv = {"channel_mapper.0": (4, 9, 1), "channel_mapper.1": (77, 4, 1)}
    shapes = {f"cond_stage_model.{k}": s for k, s in (({} if is_pooled else conv) | {"dim_mapper": (12, 10)}).items()}
    time = {"": (32, 12)} if is_pooled else {".0": (38, 77, 1), ".1": (1, 38, 1), ".2": (32, 12)}
    shapes |= {f"model.diffusion_model.time_embed_condtion{k}": s for k, s in time.items()}
    for name, shape in shapes.items():
        out[f"{name}.weight"] = torch.randn(shape, generator=rng)
        out[f"{name}.bias"] = torch.randn(shape[:1], generator=rng)
    return {**out, "cond_stage_model.mae.cls_token": torch.ones(1, 1, 10)}


def test_every_tensor_of_the_full_size_public_file_has_its_place_with_its_shape():
    public = public_shapes(LdmConfig.published(), VQ_F4)
    tables = {**network_table(LdmConfig.published()), **tokenizer_table(VQ_F4)}
    assert len(public) == 688 + 205 + 1
    assert sum(math.prod(s) for s in public.values()) == 456_755_873  # and the file's bytes over four, to 0.02 %
    assert {p.name: p.shape for p in tables.values()} == public
    assert len(tables) == len(public)
    squeezed = {p.name for p in tables.values() if p.shape != p.ours}
    assert squeezed == {
        f"first_stage_model.{side}.mid.attn_1.{part}.weight"
        for side in ("encoder", "decoder")
        for part in ("q", "k", "v", "proj_out")
    }


def test_the_tuned_files_two_conditionings_have_their_place_at_full_size():
    public = {p.name: p.shape for p in network_table(LdmConfig.paper()).values()}
    assert public["cond_stage_model.channel_mapper.0.weight"] == (145, 291, 1)
    assert public["cond_stage_model.channel_mapper.1.weight"] == (77, 145, 1)
    assert public["cond_stage_model.dim_mapper.weight"] == (512, 1024)
    condition = "model.diffusion_model.time_embed_condtion"
    shapes = [public[f"{condition}.{i}.weight"] for i in range(3)]
    assert shapes == [(38, 77, 1), (1, 38, 1), (768, 512)]
    assert sum(k.startswith("model.diffusion_model.") for k in public) == 688 + 6


def test_the_public_file_is_read_safely_and_loaded_whole(tmp_path):
    tensors = public_file()
    torch.save({"state_dict": tensors, "epoch": 3, "global_step": 10}, tmp_path / "model.ckpt")
    part = Ldm._from_tensors(read_public(tmp_path / "model.ckpt"), TINY, SMALL_VQ)
    for module, table in ((part.network, network_table(TINY)), (part.tokenizer, tokenizer_table(SMALL_VQ))):
        state = module.state_dict()
        assert set(state) == set(table)
        for name, weight in state.items():
            assert torch.equal(weight.flatten(), tensors[table[name].name].flatten()), name
    assert part.sample(np.array([[6]]), ["a"], LdmSampling(steps=2, samples=1), 0).shape == (1, 1, 16, 16, 3)


class _Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_wants_to_run_something_is_refused(tmp_path, capsys):
    torch.save({"state_dict": public_file(), "hook": _Evil()}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match="print"):
        Ldm.from_public(tmp_path / "model.ckpt")
    assert capsys.readouterr().out == ""


def test_settings_beside_the_weights_are_passed_over_where_they_are_named(tmp_path, monkeypatch):
    module = types.ModuleType("their_settings")
    exec("class Settings:\n    pass\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "their_settings", module)
    torch.save({"state_dict": {}, "settings": module.Settings()}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match=r"their_settings\.Settings"):
        Ldm.from_public(tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match="missing"):  # read, and found to hold no weights
        Ldm.from_public(tmp_path / "model.ckpt", inert=["their_settings.Settings"])


def test_a_file_of_another_size_is_refused_before_anything_is_loaded(tmp_path):
    torch.save({"state_dict": public_file()}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match="689 tensors"):
        Ldm.from_public(tmp_path / "model.ckpt")


@pytest.mark.parametrize("is_pooled", [False, True])
def test_a_tuned_file_gives_the_generator_and_the_encoder_before_it(is_pooled):
    tensors = tuned_file(is_pooled)
    config = tuned_config(tensors, TINY)
    expected = BrainTokens(count=1, width=10, mapped=None) if is_pooled else BrainTokens(count=9, width=10, mapped=77)
    assert (config.condition, config.time) == (expected, "mean" if is_pooled else "convolutions")
    part = Ldm._from_tensors(tensors, config, SMALL_VQ)
    x = torch.from_numpy(tokens(2))[:, : expected.count]
    w = {k.removeprefix("cond_stage_model."): v for k, v in tensors.items()}
    time = "model.diffusion_model.time_embed_condtion"
    c = x
    if not is_pooled:
        for i in (0, 1):
            c = torch.nn.functional.conv1d(c, w[f"channel_mapper.{i}.weight"], w[f"channel_mapper.{i}.bias"])
    c = c @ w["dim_mapper.weight"].T + w["dim_mapper.bias"]
    v, last = c, time
    if not is_pooled:
        last = f"{time}.2"
        for i in (0, 1):
            v = torch.nn.functional.conv1d(v, w[f"{time}.{i}.weight"], w[f"{time}.{i}.bias"])
    v = (v @ w[f"{last}.weight"].T + w[f"{last}.bias"])[:, 0]
    with torch.no_grad():
        for ours, theirs in zip(part.network.context(x), (c, v), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-3)  # float32 sums of up to 77 terms of order 10
    assert list(tuned_encoder(tensors)) == ["cls_token"]
    with pytest.raises(ModelError, match="dim_mapper"):
        tuned_config(public_file(), TINY)


@pytest.mark.fault(70)
@pytest.mark.fault(71)
@pytest.mark.fault(72)
def test_every_missing_extra_turned_or_broken_tensor_of_the_public_file_is_refused():
    tensors = public_file()

    def convert(changed, name="model."):
        is_tokenizer = name.startswith("first_stage_model.")
        return public_tokenizer(changed, SMALL_VQ) if is_tokenizer else public_network(changed, TINY)

    needed = [k for k in tensors if k not in ("betas", "alphas_cumprod")]
    for name in needed:
        with pytest.raises(ModelError, match=f"missing {re.escape(name)}"):
            convert({k: v for k, v in tensors.items() if k != name}, name)
        turned = tensors[name].transpose(0, -1) if tensors[name].ndim > 1 else tensors[name][None]
        if turned.shape != tensors[name].shape:
            with pytest.raises(ModelError, match="has shape"):
                convert({**tensors, name: turned}, name)
    for name in needed[::40]:
        with pytest.raises(ModelError, match="NaN"):
            convert({**tensors, name: tensors[name] / 0}, name)
    for extra in ("model.diffusion_model.label_emb.weight", "first_stage_model.loss.logvar", "model_ema.decay"):
        with pytest.raises(ModelError, match=re.escape(extra)):
            convert({**tensors, extra: torch.zeros(1)}, extra)
    with pytest.raises(ModelError, match="noise levels"):
        convert({**tensors, "betas": tensors["betas"] * 1.01})


# -- the zoo -----------------------------------------------------------------------------------------------------------


def test_the_zoo_scores_and_shows_what_it_trained():
    from phosphene.lab import scenes as painter
    from phosphene.lab import zoo
    from phosphene.lab.zoo.ldm_training import LdmObjective, ldm, pictures_of_latents, vq_latents
    from phosphene.lab.zoo.material import Scenes
    from phosphene.lab.zoo.networks import NETWORKS

    if "vq" not in zoo.names():
        pytest.skip("the weights of 'vq' are not bundled")
    pixels, told = painter.render_many(3, np.arange(60), 32), painter.describe_many(3, np.arange(60))
    category = np.array([painter.THINGS.index(s.main) for s in told])
    place = np.array([painter.PLACES.index(s.place) for s in told])
    empty = np.zeros((60, 0), dtype=bool)
    scenes = Scenes(pixels, [], empty, painter.THINGS, painter.PLACES, (), category, place, empty, "")
    net = seeded(lambda: LdmUnet(**NETWORKS["ldm"].config))
    lessons = LdmObjective.lessons(scenes)
    assert lessons["latents"].shape == (60, 4, 8, 8)
    assert 0.7 < float(lessons["latents"].std()) < 1.4  # scaled to variance 1 on other scenes
    batch = {"category": torch.from_numpy(category), "place": torch.from_numpy(place), **lessons}
    loss, _ = LdmObjective(net).loss(batch, Draws(0, 0, 60))
    assert 0.5 < loss.item() < 2  # untrained: about the variance of the noise
    part = Ldm.of(net, zoo.load("vq"))
    x = zoo.to_network(pixels)
    assert torch.allclose(part.encode(pixels), vq_latents(x), atol=1e-5)
    assert np.allclose(part.decode(vq_latents(x)), zoo.from_network(pictures_of_latents(vq_latents(x))), atol=1e-4)
    scores, grid, found = ldm(net, scenes, count=48, steps=2)
    assert found == {}
    assert all(math.isfinite(v) for v in scores.values())
    assert grid.dtype == np.uint8
