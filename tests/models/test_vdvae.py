"""The Very Deep VAE: its sizes, both ways through it, its pixels' distribution, its public weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.stages import load_part, save_part
from phosphene.models import vdvae as vdvae_weights
from phosphene.models.batch_invariance import group_noise
from phosphene.models.vdvae import (
    Vdvae,
    VdvaeConfig,
    VdvaeDecoder,
    VdvaePart,
    discretised_logistic,
    gaussian_kl,
    mixture_log_likelihood,
    mixture_mean,
    mixture_sample,
)
from phosphene.training import Draws, TrainConfig, train

TINY = {
    "image_size": 8, "latent_channels": 3, "width": 16, "middle": 4, "mixtures": 2, "given": 3,
    "encoder": "8x1,8d2,4x1,4d4,1x1", "decoder": "1x1,4m1,4x1,8m4",
}  # fmt: skip
LENGTHS = [3, 51, 99, 291]

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(seed=0, **changes) -> Vdvae:
    """A network with every weight in play: fresh ones have priors that ignore the latents."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Vdvae(**{**TINY, **changes})
        for weight in network.parameters():
            weight.data += 0.2 * torch.randn(weight.shape)
    return network.eval().requires_grad_(False)


def on_meta(config: VdvaeConfig) -> Vdvae:
    with torch.device("meta"):
        return Vdvae(**config.model_dump(mode="json"))


def pictures(n=5, size=8, seed=0) -> torch.Tensor:
    levels = np.random.default_rng(seed).integers(0, 256, (n, 3, size, size))
    return torch.from_numpy((levels / 127.5 - 1).astype(np.float32))


def noise(seed=0, n=5):
    return lambda k, shape: torch.from_numpy(group_noise(seed, range(n), k, shape))


def vectors(n=5, groups=3, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, LENGTHS[groups - 1])).astype(np.float32)


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_the_paper_preset_has_the_public_networks_weights_and_tensors():
    network = on_meta(VdvaeConfig.paper())
    assert sum(w.numel() for w in network.parameters()) == 125_005_860
    assert sum(w.numel() for w in network.encoder.parameters()) == 26_450_816
    assert len(network.state_dict()) == 2482
    assert len(network.config.encoder_steps) == 65
    assert len(network.config.decoder_steps) == 75


def test_the_papers_first_groups_have_13344_and_91168_values():
    """Through the network itself: the two-stage paper's 13,334 is a misprint."""
    network = on_meta(VdvaeConfig.paper())
    latents = network.encode(torch.zeros(2, 3, 64, 64, device="meta"), groups=31)
    assert sum(z[0].numel() for z in latents[:15]) == 13_344 == network.config.length(15)
    assert sum(z[0].numel() for z in latents) == 91_168 == network.config.length(31)
    assert network.config.length() == 1_451_040
    assert [tuple(z.shape[1:]) for z in latents] == list(network.config.shapes[:31])


def test_the_lab_preset_is_small_and_what_the_zoo_trains():
    from phosphene.lab.zoo.networks import NETWORKS

    lab = VdvaeConfig.lab()
    assert sum(w.numel() for w in on_meta(lab).parameters()) < 0.7e6
    assert len({shape[1] for shape in lab.shapes}) == 5
    assert VdvaeConfig(**NETWORKS["vdvae"].config) == lab


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder": "1x1,4m2,8m4"}, "earlier block at 2"),
        ({"decoder": "1x1,4m1,4x1"}, "end at image_size 8"),
        ({"decoder": "2x1,8m2"}, "a size the encoder never has"),
        ({"decoder": "1x1;8m1"}, "no block"),
        ({"encoder": "8x1,8d3"}, "8 x 8 by then"),
        ({"encoder": "8x1,4x1"}, "block 4 where"),
        ({"given": 5}, "more than the 4 groups"),
        ({"zdim": 16}, "zdim"),
    ],
)
def test_impossible_sizes_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        Vdvae(**{**TINY, **change})


# -- vectors and groups ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
def test_vectors_survive_the_way_through_groups_and_back(groups):
    config, flat = VdvaeConfig(**TINY), vectors(groups=groups)
    parts = config.split(flat)
    assert [p.shape[1:] for p in parts] == list(config.shapes[:groups])
    np.testing.assert_array_equal(config.join(parts), flat)
    assert config.groups_in(flat.shape[1]) == groups


def test_fewer_groups_are_the_first_values_of_more():
    config, z = VdvaeConfig(**TINY), tiny().encode(pictures())
    arrays = [g.numpy() for g in z]
    np.testing.assert_array_equal(config.join(arrays[:2]), config.join(arrays)[:, : LENGTHS[1]])


@pytest.mark.parametrize("length", [0, 2, 50, 52, 292])
def test_vectors_cut_inside_a_group_are_refused(length):
    with pytest.raises(DataError, match=f"vectors of {length} values"):
        VdvaeConfig(**TINY).split(np.zeros((2, length)))


def test_groups_out_of_order_are_refused():
    config = VdvaeConfig(**TINY)
    parts = config.split(vectors())
    for wrong in ([], parts[1:], [parts[0], parts[1][:2], parts[2]]):
        with pytest.raises(DataError, match="first groups"):
            config.join(wrong)


# -- through the network -----------------------------------------------------------------------------------------------


def test_all_latents_given_back_are_the_posteriors_own_pass():
    """No prior and no noise is left: the parts of both passes must be the same sums."""
    network, x = tiny(), pictures()
    latents, _, parameters = network.posterior(x, noise())
    assert torch.equal(network.decode(latents, 5), parameters)


def test_fewer_groups_are_encoded_like_all_of_them():
    network, x = tiny(), pictures()
    every = network.encode(x)
    assert len(every) == 4
    for a, b in zip(network.encode(x, groups=2), every, strict=False):
        assert torch.equal(a, b)


def test_a_latent_is_the_posterior_mean_plus_its_deviation_times_noise():
    """The first group sees no latents, so its mean and deviation can be had from the blocks by hand."""
    network, x = tiny(), pictures()
    c, block = network.config, network.decoder.dec_blocks[0]
    seen = network.encoder(((x + 1) * 127.5 - c.shift) / c.scale)[1]
    mean, log_std = block.enc(torch.cat([network.decoder.bias_xs[0].expand(5, -1, -1, -1), seen], 1)).chunk(2, 1)
    eps = noise()(0, c.shapes[0])
    torch.testing.assert_close(network.encode(x, 1, noise())[0], mean + log_std.exp() * eps)
    torch.testing.assert_close(network.encode(x, 1)[0], mean)


def test_pictures_enter_centred_and_scaled_as_the_public_weights_expect():
    """A convolution that passes red on: black and white come out at the public constants."""
    network = tiny()
    network.encoder.in_conv.weight.zero_()
    network.encoder.in_conv.bias.zero_()
    network.encoder.in_conv.weight[:, 0, 1, 1] = 1
    seen = []
    network.encoder.enc_blocks[0].register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    network.encode(torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 8, 8), 1)
    expected = [(0 - 115.92961967) / 69.37404, (255 - 115.92961967) / 69.37404]
    np.testing.assert_allclose(seen[0][:, 0, 4, 4], expected, rtol=1e-6)  # float32


def test_noise_enters_the_prior_in_proportion_to_temperature():
    network, x = tiny(), pictures()
    z = network.encode(x, 3)
    drawn = []

    def last(latents, temperature):
        handle = network.decoder.dec_blocks[3].z_proj.register_forward_hook(
            lambda m, inputs, out: drawn.append(inputs[0])
        )
        network.decode(latents, 5, noise(), temperature)
        handle.remove()
        return drawn[-1]

    mean, half, full = (last(z, t) for t in (0.0, 0.5, 1.0))
    assert (full - mean).abs().max() > 0.1
    torch.testing.assert_close(half - mean, (full - mean) / 2, atol=1e-5, rtol=1e-4)  # float32, order 1


def test_pictures_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"\(n, 3, 8, 8\)"):
        tiny().encode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(DataError, match="groups 1 to 4"):
        tiny().encode(torch.zeros(1, 3, 8, 8), groups=5)


# -- latents to pictures -----------------------------------------------------------------------------------------------


def test_at_zero_temperature_nothing_is_drawn():
    decoder, ids = VdvaeDecoder(tiny()), list("abcde")
    one, other = (decoder.decode(vectors(), ids, seed=s, temperature=0) for s in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (5, 8, 8, 3)
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert one.max() <= 1
    assert np.ptp(one, axis=0).max() > 0.01


@pytest.mark.parametrize("pixels", ["sample", "mean"])
def test_a_picture_depends_on_its_latents_seed_and_id_only(pixels):
    decoder, ids, z = VdvaeDecoder(tiny(), batch_size=4), list("abcde"), vectors()
    every = decoder.decode(z, ids, seed=3, pixels=pixels)
    back = decoder.decode(z[::-1], ids[::-1], seed=3, pixels=pixels)[::-1]
    np.testing.assert_array_equal(back, every)
    np.testing.assert_array_equal(decoder.decode(z[2:3], ["c"], seed=3, pixels=pixels)[0], every[2])
    assert not np.array_equal(decoder.decode(z, ids, seed=4, pixels=pixels), every)
    assert not np.array_equal(decoder.decode(z, list("vwxyz"), seed=3, pixels=pixels), every)


def test_the_same_noise_is_used_however_many_groups_are_given():
    """The third group as the prior draws it, given by hand: the fourth must then get the noise it had before."""
    network = tiny()
    decoder, ids, z = VdvaeDecoder(network), list(range(5)), vectors(groups=2)
    drawn = []
    handle = network.decoder.dec_blocks[2].z_proj.register_forward_hook(lambda m, inputs, out: drawn.append(inputs[0]))
    expected = decoder.decode(z, ids, seed=0)
    handle.remove()
    third = drawn[0][:5].numpy()
    given = decoder.decode([*decoder.config.split(z), third], ids, seed=0)
    np.testing.assert_array_equal(given, expected)


def test_only_as_many_groups_are_taken_as_asked_for():
    decoder, ids, z = VdvaeDecoder(tiny()), list("abcde"), vectors(groups=4)
    taken = decoder.decode(z, ids, seed=0, given=2)
    np.testing.assert_array_equal(taken, decoder.decode(z[:, : LENGTHS[1]], ids, seed=0))
    assert not np.array_equal(taken, decoder.decode(z, ids, seed=0))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"latents": np.zeros((2, 52), dtype=np.float32)}, DataError, "vectors of 52"),
        ({"latents": vectors(3)}, DataError, "3 rows"),
        ({"latents": np.array([[0, 0, 0], [0, np.nan, 0]])}, DataError, "first 'b'"),
        ({"given": 4}, DataError, "but 3 came"),
        ({"given": 0}, DataError, "but 3 came"),
        ({"temperature": -0.1}, ConfigError, "temperature"),
        ({"temperature": np.inf}, ConfigError, "temperature"),
        ({"pixels": "means"}, ConfigError, "Did you mean 'mean'"),
    ],
)
def test_what_cannot_be_decoded_is_refused(change, error, words):
    with pytest.raises(error, match=words):
        VdvaeDecoder(tiny()).decode(**{"latents": vectors(2), "ids": ["a", "b"], "seed": 0, **change})


@pytest.mark.fault(70)
def test_a_broken_network_is_named_and_draws_nothing():
    network = tiny()
    network.decoder.gain.fill_(np.nan)
    with pytest.raises(ModelError, match="NaN"):
        VdvaeDecoder(network).decode(vectors(2), ["a", "b"], seed=0)


def test_a_part_of_a_run_comes_back_as_it_was(tmp_path):
    network = tiny()
    save_part(tmp_path / "part", VdvaePart.of(network), stage="s", digest="d", seconds=0.0, lineage=())
    again = load_part(tmp_path / "part", VdvaePart).module
    assert again.config == network.config
    assert torch.equal(again.picture(again.encode(pictures())), network.picture(network.encode(pictures())))


# -- divergence and pixels ---------------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_torch_and_zero_for_equals():
    m, s, pm, ps = torch.randn(4, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, p = torch.distributions.Normal(m, s.exp()), torch.distributions.Normal(pm, ps.exp())
    torch.testing.assert_close(gaussian_kl(m, s, pm, ps), torch.distributions.kl_divergence(q, p))
    assert gaussian_kl(m, s, m, s).abs().max() < 1e-14  # a few roundings of float64


LEVELS = torch.from_numpy(np.arange(256) / 127.5 - 1)


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.1, 1.0, 2.0])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 4.0])
def test_the_probabilities_of_all_256_levels_sum_to_one(mean, log_scale):
    log_p = discretised_logistic(LEVELS, torch.tensor(mean).double(), torch.tensor(log_scale).double())
    assert abs(float(log_p.exp().sum()) - 1) < 1e-12  # 256 roundings of float64


def test_a_level_is_worth_what_scipy_says():
    mean, scale = 0.2, 0.05
    ours = discretised_logistic(LEVELS, torch.tensor(mean).double(), torch.tensor(math.log(scale)).double()).exp()
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 127.5 - 1, [np.inf]])
    np.testing.assert_allclose(ours, np.diff(stats.logistic.cdf(edges, mean, scale)), rtol=1e-6, atol=1e-15)


def test_an_improbable_level_has_a_finite_probability_and_gradient():
    mean = torch.tensor(-1.0, requires_grad=True)
    log_p = discretised_logistic(torch.tensor(0.9), mean, torch.tensor(-7.0))
    log_p.backward()
    # Far in the tail, d/dmean of log p is one over the scale.
    np.testing.assert_allclose(mean.grad, math.exp(7), rtol=1e-4)
    assert torch.isfinite(log_p)


def test_a_scale_beyond_float32_leaves_tails_and_gradients_finite():
    log_scale = torch.tensor(120.0, requires_grad=True)
    log_p = discretised_logistic(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(0.0), log_scale)
    log_p.sum().backward()
    assert torch.isfinite(log_p).all()
    assert torch.isfinite(log_scale.grad)
    np.testing.assert_allclose(log_p[[0, 2]].detach().exp(), 0.5)


def parameters(m=2, n=1, side=1, seed=0):
    drawn = torch.randn(n, 10 * m, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn[:, m:].view(n, 3, 3, m, side, side)[:, :, 1] -= 2  # scales of about a tenth
    return drawn


def test_green_and_blue_sum_out_to_the_mixture_of_red():
    """All 65,536 pairs of green and blue at one red, against scipy's logistic for red alone."""
    p, red = parameters(), 100
    green, blue = torch.meshgrid(LEVELS, LEVELS, indexing="ij")
    x = torch.stack([torch.full_like(green, float(LEVELS[red])), green, blue])[None]  # (1, 3, 256, 256)
    total = float(mixture_log_likelihood(p.expand(1, 20, 256, 256), x).exp().sum())
    weights = p[0, :2, 0, 0].softmax(0).numpy()
    mean, log_scale = p[0, 2:4, 0, 0].numpy(), p[0, 4:6, 0, 0].numpy()
    lower, upper = (red - 0.5) / 127.5 - 1, (red + 0.5) / 127.5 - 1
    scale = np.exp(log_scale)
    expected = (weights * (stats.logistic.cdf(upper, mean, scale) - stats.logistic.cdf(lower, mean, scale))).sum()
    assert total == pytest.approx(expected, rel=1e-9)  # 65,536 roundings of float64


def test_samples_have_the_likelihoods_own_mean_and_distribution():
    """Narrow components well inside the range, so that clipping plays no part."""
    n = 20_000
    p = parameters().expand(n, -1, -1, -1).clone()
    rest = p[:, 2:].view(n, 3, 3, 2, 1, 1)
    rest[:, :, 0] *= 0.1
    rest[:, :, 1] = -4
    u = torch.rand(n, 5, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = mixture_sample(p, u)[:, :, 0, 0].numpy()
    mean = mixture_mean(p)[0, :, 0, 0].numpy()
    error = drawn.std(0) / math.sqrt(n)
    assert (np.abs(drawn.mean(0) - mean) < 4 * error).all()

    weights, means = p[0, :2, 0, 0].softmax(0).numpy(), p[0, 2:4, 0, 0].numpy()
    scale = math.exp(-4)

    def cdf(x):
        return sum(w * stats.logistic.cdf(x, m, scale) for w, m in zip(weights, means, strict=True))

    assert stats.kstest(drawn[:, 0], cdf).pvalue > 1e-3


def test_scales_never_fall_below_the_floor():
    p = parameters()
    p.view(-1)[4:6] = -50
    floor = p.clone()
    floor.view(-1)[4:6] = -7
    x = LEVELS[[3, 90, 200]].view(1, 3, 1, 1)
    assert torch.equal(mixture_log_likelihood(p, x), mixture_log_likelihood(floor, x))


# -- training ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_bound_written_out():
    """By torch's own divergence, from a pass through the blocks that this test makes itself."""
    network, x = tiny().double(), pictures(4).double()
    c, draws = network.config, Draws(0, 0, 4)
    seen = network.encoder(((x + 1) * 127.5 - c.shift) / c.scale)
    nats = []

    def latent(k, layer, state, mean, log_std):
        q_mean, q_log_std = layer.enc(torch.cat([state, seen[state.shape[2]]], 1)).chunk(2, 1)
        q, p = (torch.distributions.Normal(m, s.exp()) for m, s in ((q_mean, q_log_std), (mean, log_std)))
        nats.append(torch.distributions.kl_divergence(q, p).sum())
        return q.mean + q.stddev * draws.normal(*c.shapes[k])

    nats.append(-mixture_log_likelihood(network.decoder(4, latent), x).sum())
    loss, logs = network.loss({"x": x}, Draws(0, 0, 4))
    assert float(loss) == pytest.approx(float(sum(nats)) / (x.numel() * math.log(2)), rel=1e-5)  # divided in float32
    assert float(logs["pixels"] + logs["latents"]) == pytest.approx(float(loss))
    assert logs["latents"] > 0.1


def test_training_spends_fewer_bits_and_gives_recognisable_pictures():
    """Four plain pictures: each must come back from its first groups nearer to itself than to the others."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Vdvae(**{**TINY, "mixtures": 1})
    colours = 0.6 * torch.tensor([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]], dtype=torch.float32)
    x = colours[:, :, None, None].expand(-1, -1, 8, 8).contiguous()
    with torch.no_grad():
        before = float(network.loss({"x": x}, Draws(0, 0, 4))[0])
    config = TrainConfig(steps=100, batch_size=4, lr=2e-2, warmup=5, clip_norm=10.0)
    train(network, lambda rows: {"x": x[rows]}, 4, config, seed=0)
    with torch.no_grad():
        after = float(network.loss({"x": x}, Draws(0, 0, 4))[0])
        z = network.config.join([z.numpy() for z in network.encode(x, 3)])
    assert after < before - 2
    decoded = VdvaeDecoder(network).decode(z, range(4), seed=0, temperature=0).mean((1, 2)) * 2 - 1
    assert np.linalg.norm(decoded[:, None] - colours.numpy()[None], axis=2).argmin(1).tolist() == [0, 1, 2, 3]


def test_noise_of_a_picture_is_its_own_however_a_batch_is_shared():
    network, x = tiny(), pictures(4)
    whole = network.loss({"x": x}, Draws(5, 7, 4))[0]
    halves = [network.loss({"x": x[s]}, Draws(5, 7, 4, s))[0] for s in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_the_zoos_scores_tell_all_groups_the_first_and_none_apart():
    from phosphene.lab import scenes
    from phosphene.lab.zoo import vdvae_training as vdvae

    class Held:
        pixels = scenes.render_many(0, range(48), 8)

        def __len__(self):
            return 48

    scores, grid, _ = vdvae.vdvae(tiny(), Held())
    assert grid.shape == (9 * 8 * 3, 16 * 8 * 3, 3)
    assert grid.dtype == np.uint8
    parts = scores["of these for pixels"] + scores["of these for the first 3 groups"]
    assert 0 < parts < scores["bits per value"]
    assert scores["psnr, all groups"] != scores["psnr, first 3 groups"]
    error = ((Held.pixels / 255 - (Held.pixels / 255).mean(0)) ** 2).mean((1, 2, 3))
    assert scores["psnr, mean scene"] == pytest.approx(float((-10 * np.log10(error)).mean()), rel=1e-5)  # float32


# -- public weights ----------------------------------------------------------------------------------------------------


def public_names() -> dict[str, tuple[int, ...]]:
    """Every tensor of the public ImageNet-64 checkpoint, written out from its layout and not from our network."""
    out = {"encoder.in_conv.weight": (512, 3, 3, 3), "encoder.in_conv.bias": (512,)}

    def block(name, n_in, n_out, size):
        shapes = {"c1": (128, n_in, 1, 1), "c2": (128, 128, size, size), "c3": (128, 128, size, size)}
        shapes["c4"] = (n_out, 128, 1, 1)
        for conv, shape in shapes.items():
            out[f"{name}.{conv}.weight"], out[f"{name}.{conv}.bias"] = shape, shape[:1]

    for i in range(65):
        block(f"encoder.enc_blocks.{i}", 512, 512, 1 if i >= 60 else 3)
    for i, r in enumerate((1, 4, 8, 16, 32, 64)):
        out[f"decoder.bias_xs.{i}"] = (1, 512, r, r)
    for name in ("gain", "bias"):
        out[f"decoder.{name}"] = (1, 512, 1, 1)
    out |= {"decoder.out_net.out_conv.weight": (100, 512, 1, 1), "decoder.out_net.out_conv.bias": (100,)}
    for i in range(75):
        name, size = f"decoder.dec_blocks.{i}", 1 if i < 2 else 3
        block(f"{name}.enc", 1024, 32, size)
        block(f"{name}.prior", 512, 544, size)
        block(f"{name}.resnet", 512, 512, size)
        out |= {f"{name}.z_proj.weight": (512, 16, 1, 1), f"{name}.z_proj.bias": (512,)}
    return out


@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_tensor_of_the_public_checkpoint_has_its_place(prefix):
    names = public_names()
    there = {prefix + name: torch.empty(shape, device="meta") for name, shape in names.items()}
    ours = vdvae_weights.public_weights(there, VdvaeConfig.paper())
    assert {name: tuple(t.shape) for name, t in ours.items()} == names


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.pop("decoder.gain"), r"missing decoder\.gain"),
        (lambda t: t.update(step=torch.zeros(1)), "unexpected step"),
        (lambda t: t.update({"decoder.gain": torch.ones(1, 15, 1, 1)}), r"\(1, 15, 1, 1\), but \(1, 16, 1, 1\)"),
        (lambda t: t["decoder.gain"].fill_(np.inf), "NaN or infinite"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(spoil, words):
    tensors = {name: t.clone() for name, t in tiny().state_dict().items()}
    spoil(tensors)
    with pytest.raises(ModelError, match=words):
        vdvae_weights.public_weights(tensors, VdvaeConfig(**TINY))


def test_a_converted_checkpoint_is_the_same_network(tmp_path):
    network = tiny()
    torch.save({f"module.{k}": v.double() for k, v in network.state_dict().items()}, tmp_path / "model.th")
    folder = vdvae_weights.convert(tmp_path / "model.th", tmp_path / "vdvae", VdvaeConfig(**TINY))
    again = vdvae_weights.load_vdvae(folder)
    assert not any(w.requires_grad for w in again.parameters())
    assert torch.equal(again.picture(again.encode(pictures())), network.picture(network.encode(pictures())))
    with pytest.raises(ConfigError, match="there already"):
        vdvae_weights.convert(tmp_path / "model.th", folder, VdvaeConfig(**TINY))


@pytest.mark.fault(66)
def test_a_checkpoint_that_wants_to_run_something_is_not_opened(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"decoder.gain": Hostile()}, tmp_path / "model.th")
    with pytest.raises(ModelError, match="print"):
        vdvae_weights.convert(tmp_path / "model.th", tmp_path / "vdvae")
    assert not (tmp_path / "vdvae").exists()


def test_a_folder_that_holds_no_network_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected 'lab', or a folder"):
        vdvae_weights.load_vdvae(tmp_path)
