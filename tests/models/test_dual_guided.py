"""The dual-guided second stage: guidance, mixing, its sampler, its training, and Versatile Diffusion's folder."""

from __future__ import annotations

import inspect
import json
import math
import shutil
import socket

import numpy as np
import pytest
import torch

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.stages import load_part, save_part
from phosphene.lab import zoo
from phosphene.models.batch_invariance import group_noise
from phosphene.models.dual_guided import (
    FORWARD,
    DualGuided,
    DualGuidedConfig,
    DualUnet,
    RefineConfig,
    steps_done,
    unconditional,
    versatile_diffusion_config,
    versatile_diffusion_digest,
)
from phosphene.training import Draws, TrainConfig, train
from tests.models.conftest import seeded

TINY = {
    "size": 4, "channels": 4, "widths": [8, 16], "attention": [True, False], "blocks": 1, "heads": 2, "groups": 4,
    "context": 6, "vision_tokens": 3, "text_tokens": 5,
}  # fmt: skip
AUTOENCODER = {
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 8], "norm_num_groups": 4, "latent_channels": 4, "sample_size": 8,
}  # fmt: skip
IDS = [f"scene-{i}" for i in range(5)]
FEW = RefineConfig(steps=8)

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(seed=0, **changes) -> DualUnet:
    network = seeded(lambda: DualUnet(**{**TINY, **changes}), seed).eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(seed + 100)
    network.set_unconditional(torch.randn(3, 6, generator=rng), torch.randn(5, 6, generator=rng))
    return network


def part(seed=0) -> DualGuided:
    from diffusers import AutoencoderKL

    return DualGuided.of(tiny(seed), seeded(lambda: AutoencoderKL(**AUTOENCODER), seed).requires_grad_(False))


def conditions(n=5, seed=1):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(n, tokens, 6)).astype(np.float32) for tokens in (3, 5))


def noised(n=3, seed=2):
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 4, 4, 4, generator=rng)
    return z, *(torch.from_numpy(c) for c in conditions(n))


def first_stage(n=5, seed=3, side=8):
    return np.random.default_rng(seed).random((n, side, side, 3)).astype(np.float32)


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_the_paper_preset_has_versatile_diffusions_numbers_of_weights():
    with torch.device("meta"):
        network = DualUnet(**DualGuidedConfig.paper().model_dump())
    counts = {name: w.numel() for name, w in network.named_parameters()}
    text = sum(n for name, n in counts.items() if ".text." in name)
    assert sum(counts.values()) == 1_126_760_324
    assert text == 267_239_360
    assert sum(counts.values()) - text == 859_520_964
    assert len({name.split(".text.")[0] for name in counts if ".text." in name}) == 16


def test_the_lab_preset_is_small_and_is_what_the_zoo_trains():
    from phosphene.lab.zoo.networks import NETWORKS

    lab = DualGuidedConfig.lab()
    assert DualGuidedConfig.model_validate_json(json.dumps(NETWORKS["dual_guided"].config)) == lab
    with torch.device("meta"):
        assert sum(w.numel() for w in DualUnet(**lab.model_dump()).parameters()) < 1_500_000


def test_the_lab_preset_refines_pictures_of_32_pixels_through_the_zoos_autoencoder():
    from phosphene.lab.zoo.networks import build

    refiner = DualGuided.of(DualUnet(**DualGuidedConfig.lab().model_dump()), build("kl"))
    assert refiner.size == 32
    out = refiner.refine(None, np.zeros((1, 17, 64)), np.zeros((1, 40, 64)), ["a"], RefineConfig(steps=1), 0)
    assert out.shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "multiple of heads"),
        ({"size": 5}, "halved"),
        ({"attention": [True]}, "one each"),
        ({"with": 1}, "with"),
    ],
)
def test_impossible_sizes_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        DualUnet(**{**TINY, **change})


def test_samplings_defaults_are_those_of_its_configuration():
    given = inspect.signature(DualUnet.sample).parameters
    asked = RefineConfig().model_dump(exclude={"posterior"})
    assert {k: given[k].default for k in asked} == asked


# -- mixing ------------------------------------------------------------------------------------------------------------


def plain_image_unet(network: DualUnet):
    """diffusers' own U-Net with the weights of the vision side."""
    from diffusers import UNet2DConditionModel

    plain = UNet2DConditionModel(**network.config.unet)
    state = {k.replace(".vision.", "."): v for k, v in network.unet.state_dict().items() if ".text." not in k}
    plain.load_state_dict(state)
    return plain.eval().requires_grad_(False)


def test_without_a_share_for_the_text_it_is_diffusers_image_unet_and_text_does_not_matter():
    network = tiny()
    z, vision, text = noised()
    ours = network(z, torch.tensor([1, 500, 999]), vision, text, 0.0)
    theirs = plain_image_unet(network)(z, torch.tensor([1, 500, 999]), vision).sample
    assert torch.equal(ours, theirs)
    assert torch.equal(ours, network(z, torch.tensor([1, 500, 999]), vision, text * math.nan, 0.0))


def test_with_all_share_for_the_text_vision_does_not_matter_and_text_does():
    network = tiny()
    z, vision, text = noised()
    out = network(z, 7, vision, text, 1.0)
    assert torch.equal(out, network(z, 7, vision * math.nan, text, 1.0))
    assert not torch.allclose(out, network(z, 7, vision, text + 1, 1.0), atol=1e-4)


def test_a_slot_is_diffusers_dual_transformer_with_the_text_weighted_by_its_share():
    from diffusers.models.transformers.dual_transformer_2d import DualTransformer2DModel

    slot = tiny().unet.mid_block.attentions[0]
    h, vision, text = torch.randn(2, 16, 2, 2, generator=torch.Generator().manual_seed(0)), *noised(2)[1:]
    theirs = DualTransformer2DModel(2, 8, in_channels=16, norm_num_groups=4, cross_attention_dim=6).eval()
    theirs.transformers[0].load_state_dict(slot.vision.state_dict())
    theirs.transformers[1].load_state_dict(slot.text.state_dict())
    theirs.condition_lengths, theirs.mix_ratio = [5, 3], 0.4  # the first condition, the text, goes to transformer 1
    with torch.no_grad():
        expected = theirs(h, torch.cat([text, vision], 1), return_dict=False)[0]
    ours = slot(h, encoder_hidden_states=vision, cross_attention_kwargs={"text": text, "share": 0.4})[0]
    assert torch.allclose(ours, expected, atol=1e-5)  # float32: the same sum in another order


def test_a_share_per_picture_is_the_same_as_one_share_at_a_time():
    network = tiny()
    z, vision, text = noised()
    together = network(z, 300, vision, text, torch.tensor([0.0, 0.4, 1.0]))
    alone = [network(z[i : i + 1], 300, vision[i : i + 1], text[i : i + 1], w) for i, w in enumerate((0.0, 0.4, 1.0))]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)  # float32 sums in another order


def test_every_weight_has_a_say_in_the_prediction():
    network = tiny().requires_grad_(True)
    z, vision, text = noised()
    network(z, 300, vision, text, 0.4).square().sum().backward()
    without = [name for name, w in network.named_parameters() if w.grad is None or not w.grad.abs().sum() > 0]
    assert without == []


# -- guidance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5, 7.5])
def test_guidance_goes_from_the_unconditional_prediction_through_the_conditional_one(guidance):
    network = tiny()
    z, vision, text = noised()
    e_c = network(z, 421, vision, text, 0.4)
    e_u = network(z, 421, network.no_vision.expand(3, -1, -1), network.no_text.expand(3, -1, -1), 0.4)
    assert not torch.allclose(e_c, e_u, atol=1e-3)
    out = network.guided(z, 421, vision, text, 0.4, guidance)
    # float32 predictions of order 1, from batches of another size, their difference scaled by up to 7.5
    assert torch.allclose(out, (1 - guidance) * e_u + guidance * e_c, atol=1e-4)


def test_guidance_of_one_is_the_conditional_prediction_exactly():
    network = tiny()
    z, vision, text = noised()
    assert torch.equal(network.guided(z, 421, vision, text, 0.4, 1.0), network(z, 421, vision, text, 0.4))


# -- sampler -----------------------------------------------------------------------------------------------------------


def test_noise_levels_and_coefficients_are_brain_diffusers():
    scheduler = tiny().schedule()
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == list(range(981, 0, -20))
    assert RefineConfig().done == 37
    for level, signal, noise in ((741, 0.24567, 0.96935), (721, 0.26554, 0.96410)):  # as measured in the public code
        a = scheduler.alphas_cumprod[level].item()
        assert (round(a**0.5, 5), round((1 - a) ** 0.5, 5)) == (signal, noise)


@pytest.mark.parametrize(("steps", "strength", "expected"), [(50, 0.75, 37), (100, 0.29, 29), (7, 1.0, 7), (9, 0.0, 0)])
def test_steps_done_are_the_strength_rounded_down(steps, strength, expected):
    assert steps_done(steps, strength) == expected


@pytest.mark.parametrize("start", ["published", "aligned"])
@pytest.mark.parametrize("strength", [0.5, 0.75, 1.0])
def test_sampling_is_the_closed_form_of_ddim(start, strength):
    network, steps, ids = tiny(), 10, IDS[:2]
    vision, text = (torch.from_numpy(c) for c in conditions(2))
    first = torch.from_numpy(group_noise(9, ids, 5, (4, 4, 4)))
    ours = network.sample(
        vision, text, ids, seed=6, first=first, steps=steps, strength=strength, start=start, batch_size=2
    )
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha = np.cumprod(1 - betas)
    tau = np.arange(0, 1000, 1000 // steps) + 1
    k = int(strength * steps)
    z = group_noise(6, ids, FORWARD, (4, 4, 4)).astype(np.float64)
    if k < steps:
        a = alpha[tau[k if start == "published" else k - 1]]
        z = math.sqrt(a) * first.numpy() + math.sqrt(1 - a) * z
    for i in reversed(range(k)):
        a, before = alpha[tau[i]], alpha[tau[i - 1]] if i else alpha[0]
        e = network.guided(torch.from_numpy(z).float(), int(tau[i]), vision, text, 0.4, 7.5).double().numpy()
        z = math.sqrt(before) * (z - math.sqrt(1 - a) * e) / math.sqrt(a) + math.sqrt(1 - before) * e
    # float32 through ten passes of the network, where the closed form keeps float64
    assert np.allclose(ours.numpy(), z, atol=2e-3 * np.abs(z).max())
    assert np.abs(z).max() > 1


def test_a_network_that_knows_the_noise_gives_the_first_stage_back():
    class Knows(DualUnet):
        def forward(self, z, t, vision, text, share):
            a = self.schedule().alphas_cumprod[t]
            return (z - a**0.5 * self.truth[: len(z)]) / (1 - a) ** 0.5

    network = seeded(lambda: Knows(**TINY)).eval()
    network.truth = torch.from_numpy(group_noise(1, IDS[:2], 3, (4, 4, 4)))
    for strength in (0.3, 0.75, 1.0):
        out = network.sample(
            *conditions(2), IDS[:2], seed=0, first=network.truth, strength=strength, guidance=1.0, batch_size=2
        )
        # The last step ends at alpha_0 = 0.99915, not at 1: a little of the noise is left, in both libraries.
        a = network.schedule().alphas_cumprod[0].item()
        left = (out - a**0.5 * network.truth) / (1 - a) ** 0.5
        noise = torch.from_numpy(group_noise(0, IDS[:2], FORWARD, (4, 4, 4)))
        if strength < 1:  # published start: the noise level it is told of is one below the one it has
            assert torch.allclose(out, network.truth, atol=0.2)
        else:
            assert out.sub(network.truth).abs().max() < 0.2
        assert np.corrcoef(left.flatten(), noise.flatten())[0, 1] > 0.99


# -- refining ----------------------------------------------------------------------------------------------------------


def test_strength_zero_returns_the_autoencoders_reconstruction():
    refiner, x = part(), first_stage()
    out = refiner.refine(x, *conditions(), IDS, RefineConfig(steps=8, strength=0.0, posterior="mean"), 0)
    network = refiner.module["autoencoder"]
    with torch.no_grad():
        z = network.encode(2 * torch.from_numpy(x).permute(0, 3, 1, 2) - 1).latent_dist.mean
        expected = ((network.decode(z).sample + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.allclose(out, expected, atol=1e-5)  # scaled and back in float32, batches of another size


def test_strength_one_ignores_the_first_stage_and_less_does_not():
    refiner = part()
    with_one, with_other, without = (
        refiner.refine(x, *conditions(), IDS, FEW.model_copy(update={"strength": 1.0}), 0)
        for x in (first_stage(seed=3), first_stage(seed=4), None)
    )
    assert np.array_equal(with_one, with_other)
    assert np.array_equal(with_one, without)
    assert not np.array_equal(
        refiner.refine(first_stage(seed=3), *conditions(), IDS, FEW, 0),
        refiner.refine(first_stage(seed=4), *conditions(), IDS, FEW, 0),
    )


def test_refined_pictures_are_0_to_1_and_follow_both_conditions():
    refiner, (vision, text) = part(), conditions()
    out = refiner.refine(first_stage(), vision, text, IDS, FEW, 0)
    assert out.shape == (5, 8, 8, 3)
    assert out.dtype == np.float32
    assert 0 <= out.min() < out.max() <= 1
    assert not np.array_equal(out, refiner.refine(first_stage(), vision + 1, text, IDS, FEW, 0))
    assert not np.array_equal(out, refiner.refine(first_stage(), vision, text + 1, IDS, FEW, 0))


def test_a_picture_depends_on_seed_and_id_and_not_on_its_company():
    refiner, (vision, text), x = part(), conditions(), first_stage()
    everything = refiner.refine(x, vision, text, IDS, FEW, 4, batch_size=3)
    order = [4, 0, 3]
    some = refiner.refine(x[order], vision[order], text[order], [IDS[i] for i in order], FEW, 4, batch_size=3)
    # The last rows of a matrix product may be summed in another order than the others: float32, colours of 0-1.
    assert np.allclose(some, everything[order], atol=1e-5)
    alone = refiner.refine(x[2:3], vision[2:3], text[2:3], IDS[2:3], FEW, 4, batch_size=3)
    assert np.allclose(alone, everything[2:3], atol=1e-5)
    other_size = refiner.refine(x, vision, text, IDS, FEW, 4, batch_size=5)
    assert np.allclose(other_size, everything, atol=1e-5)
    assert np.array_equal(everything, refiner.refine(x, vision, text, IDS, FEW, 4, batch_size=3))
    assert not np.array_equal(everything, refiner.refine(x, vision, text, IDS, FEW, 5, batch_size=3))
    same = [np.repeat(a[:1], 2, 0) for a in (x, vision, text)]
    two = refiner.refine(*same, ["a", "b"], FEW, 4)
    assert not np.array_equal(two[0], two[1])


def test_refining_touches_no_global_noise_and_leaves_the_mode():
    refiner = part()
    refiner.unet.train()
    state = torch.get_rng_state()
    refiner.refine(first_stage(1), *conditions(1), ["a"], FEW, 0)
    assert torch.equal(state, torch.get_rng_state())
    assert refiner.unet.training


def test_the_first_stage_may_have_another_size():
    refiner = part()
    flat = np.full((1, 5, 7, 3), 0.25, dtype=np.float32)
    small, right = (
        refiner.refine(x, *conditions(1), ["a"], FEW, 0) for x in (flat, np.full((1, 8, 8, 3), 0.25, dtype=np.float32))
    )
    assert np.allclose(small, right, atol=1e-5)  # bicubic weights sum to 1 up to float32
    sharp = np.zeros((1, 2, 2, 3), dtype=np.float32)
    sharp[0, 0] = 1  # bicubic overshoots here, and must be clipped
    assert np.isfinite(refiner.refine(sharp, *conditions(1), ["a"], FEW, 0)).all()


def test_a_sampled_latent_of_the_first_stage_has_the_encoders_spread():
    refiner = part()
    x = np.repeat(first_stage(1), 300, 0)
    ids = list(range(300))
    mean = refiner.encode(x, ids, RefineConfig(posterior="mean"), 0, batch_size=100)
    drawn = refiner.encode(x, ids, RefineConfig(), 0, batch_size=100)
    with torch.no_grad():
        found = refiner.module["autoencoder"].encode(zoo.to_network(x[:1])).latent_dist
    z = (drawn - mean) / (0.18215 * found.std)  # diffusers' scaling factor where none is given
    assert torch.allclose(mean[:1], 0.18215 * found.mean, atol=1e-5)
    assert abs(float(z.mean())) < 0.03 and abs(float(z.std()) - 1) < 0.03  # 19,200 numbers: 4 standard errors


def test_no_picture_is_no_error():
    assert part().refine(first_stage(0), *conditions(0), [], FEW, 0).shape == (0, 8, 8, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"vision": np.zeros((2, 4, 6))},
        {"text": np.zeros((1, 5, 6))},
        {"text": np.full((2, 5, 6), np.nan)},
        {"first_stage": np.zeros((2, 8, 8))},
        {"first_stage": np.zeros((3, 8, 8, 3))},
        {"first_stage": np.full((2, 8, 8, 3), 1.5)},
        {"first_stage": np.full((2, 8, 8, 3), np.nan)},
        {"first_stage": np.zeros((2, 8, 8, 3), dtype=np.uint8)},
    ],
)
def test_conditions_and_pictures_that_do_not_fit_are_refused(change):
    vision, text = conditions(2)
    given = {"first_stage": first_stage(2), "vision": vision, "text": text, **change}
    with pytest.raises(DataError):
        part().refine(**given, ids=["a", "b"], sampling=FEW, seed=0)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"strength": 1.5}, {"text_share": -0.1}, {"start": "x"}, {"batch_size": 0}]
)
def test_impossible_samplings_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        tiny().sample(*conditions(1), ["a"], seed=0, **bad)


@pytest.mark.fault(70)
def test_networks_that_give_nan_draw_nothing():
    for broken in ("unet", "autoencoder"):
        refiner = part()
        network = refiner.module[broken]
        (network.unet.conv_out if broken == "unet" else network.decoder.conv_out).bias.fill_(math.nan)
        with pytest.raises(ModelError, match="NaN"):
            refiner.refine(first_stage(1), *conditions(1), ["a"], FEW, 0)


def test_a_part_comes_back_from_a_stage_folder_with_the_same_pictures(tmp_path):
    refiner = part(seed=5)
    save_part(tmp_path / "s", refiner, stage="s", digest="d", seconds=0.0, lineage=[])
    again = load_part(tmp_path / "s", DualGuided)
    before, after = (p.refine(first_stage(2), *conditions(2), ["a", "b"], FEW, 1) for p in (refiner, again))
    assert np.array_equal(before, after)
    assert torch.equal(again.unet.no_text, refiner.unet.no_text)


# -- training ----------------------------------------------------------------------------------------------------------


def batch(n=6, seed=4):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"latents": (4, 4, 4), "vision": (3, 6), "text": (5, 6)}
    return {k: torch.randn(n, *shape, generator=rng).half() for k, shape in shapes.items()}


@pytest.mark.parametrize("mixing", ["either", "uniform"])
def test_the_loss_is_the_squared_error_of_the_noise_under_dropped_and_mixed_conditions(mixing):
    network, b = tiny(mixing=mixing, drop_vision=0.4, drop_text=0.4), batch()
    loss, _ = network.loss(b, Draws(0, 3, 6))
    draws = Draws(0, 3, 6)
    t, noise = draws.integers(1000), draws.normal(4, 4, 4)
    dropped = draws.uniform() < 0.4, draws.uniform() < 0.4
    share = draws.uniform()
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha = torch.from_numpy(np.cumprod(1 - betas))[t].float()[:, None, None, None]
    z = alpha.sqrt() * b["latents"].float() + (1 - alpha).sqrt() * noise
    errors = []
    for i in range(6):
        vision = network.no_vision if dropped[0][i] else b["vision"][i].float()
        text = network.no_text if dropped[1][i] else b["text"][i].float()
        w = float(share[i]) if mixing == "uniform" else float(share[i] < 0.5)
        errors.append((network(z[i : i + 1], t[i : i + 1], vision[None], text[None], w) - noise[i]).square().mean())
    assert 0 < sum(map(int, dropped[0])) + sum(map(int, dropped[1])) < 12
    assert math.isclose(loss.item(), float(torch.stack(errors).mean()), rel_tol=1e-5)  # float32 sums


def test_parts_of_a_batch_have_the_loss_of_the_whole():
    network, b = tiny(), batch()
    whole, _ = network.loss(b, Draws(1, 1, 6))
    parts = [network.loss({k: v[p] for k, v in b.items()}, Draws(1, 1, 6, p))[0] for p in (slice(0, 3), slice(3, 6))]
    assert math.isclose(whole.item(), sum(parts).item() / 2, rel_tol=1e-5)  # float32 sums


def test_conditions_are_dropped_as_often_as_asked_and_independently():
    n = 4000
    network = tiny(drop_vision=0.3, drop_text=0.1)
    seen = []
    network.forward = lambda z, t, vision, text, share: seen.append((vision, text, share)) or torch.zeros_like(z)
    network.loss({k: v.expand(n, *v.shape[1:]) for k, v in batch(1).items()}, Draws(0, 0, n))
    vision, text, share = seen[0]
    a, b = (vision == network.no_vision).all(2).all(1), (text == network.no_text).all(2).all(1)
    # 4 standard errors of a share of 4000
    for what, p in ((a, 0.3), (b, 0.1), (a & b, 0.03), (share, 0.5)):
        assert abs(float(what.float().mean()) - p) < 4 * math.sqrt(p * (1 - p) / n)
    assert set(share.tolist()) == {0.0, 1.0}


def test_training_learns_which_picture_belongs_to_which_condition():
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, 4, 1, 1, generator=rng).expand(2, 4, 2, 2)
    tokens = {"vision": torch.randn(2, 3, 6, generator=rng), "text": torch.randn(2, 5, 6, generator=rng)}
    sizes = {**TINY, "size": 2, "widths": [32], "attention": [True], "mixing": "uniform"}
    network = seeded(lambda: DualUnet(**sizes))

    def fetch(rows):
        at = torch.from_numpy(rows)
        return {"latents": pictures[at], **{k: v[at] for k, v in tokens.items()}}

    config = TrainConfig(steps=80, batch_size=16, lr=5e-3, warmup=10, clip_norm=1.0)
    curve = train(network, fetch, 2, config, seed=0, log_every=10, device="cpu").curve
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    for shift in (0, 1):
        given = {k: v.roll(shift, 0) for k, v in tokens.items()}
        drawn = network.sample(**given, ids=["a", "b"], seed=0, steps=10, guidance=4.0, batch_size=2)
        distance = (drawn[:, None] - pictures[None]).square().mean((2, 3, 4))
        assert distance.argmin(1).tolist() == [shift, 1 - shift]


# -- Versatile Diffusion's folder --------------------------------------------------------------------------------------


UNET = {
    "sample_size": 4, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 8, 16, 16], "layers_per_block": 2,
    "attention_head_dim": 2, "cross_attention_dim": 6, "norm_num_groups": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip


def make_versatile(folder):
    """A folder as diffusers writes Versatile Diffusion, tiny: (folder, image U-Net, text U-Net, autoencoder)."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import UNetFlatConditionModel

    flat = {
        **UNET, "sample_size": None, "in_channels": 7, "out_channels": 7, "mid_block_type": "UNetMidBlockFlatCrossAttn",
        "down_block_types": ["CrossAttnDownBlockFlat"] * 3 + ["DownBlockFlat"],
        "up_block_types": ["UpBlockFlat"] + ["CrossAttnUpBlockFlat"] * 3,
    }  # fmt: skip
    made = [
        seeded(lambda: UNet2DConditionModel(**{**UNET, "sample_size": 8}), 1),
        seeded(lambda: UNetFlatConditionModel(**flat), 2),
        seeded(lambda: AutoencoderKL(**AUTOENCODER), 3),
    ]
    for name, network in zip(("image_unet", "text_unet", "vae"), made, strict=True):
        network.eval().requires_grad_(False).save_pretrained(folder / name)
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    return folder, *made


@pytest.fixture(scope="module")
def versatile(tmp_path_factory):
    return make_versatile(tmp_path_factory.mktemp("versatile"))


NOTHING = np.full((3, 6), 0.5, dtype=np.float32), np.full((5, 6), -0.5, dtype=np.float32)


def test_a_folder_of_versatile_diffusion_has_its_image_unet_and_its_text_transformers(versatile):
    folder, image, text_unet, autoencoder = versatile
    refiner = DualGuided.from_folder(folder, *NOTHING)
    assert refiner.size == 16
    rng = torch.Generator().manual_seed(0)
    z, vision, text = (torch.randn(2, *s, generator=rng) for s in ((4, 8, 8), (3, 6), (5, 6)))
    assert torch.equal(refiner.unet(z, 500, vision, text, 0.0), image(z, 500, vision).sample)
    for place in ("down_blocks.2.attentions.1", "mid_block.attentions.0", "up_blocks.3.attentions.2"):
        ours, theirs = refiner.unet.unet.get_submodule(place).text, text_unet.get_submodule(place)
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    state = refiner.module["autoencoder"].state_dict()
    assert all(torch.equal(state[k], v) for k, v in autoencoder.state_dict().items())
    assert np.array_equal(refiner.unet.no_vision, NOTHING[0])
    assert np.array_equal(refiner.unet.no_text, NOTHING[1])


def test_pickled_weights_with_attentions_old_names_give_the_same_networks(versatile, tmp_path):
    from safetensors.torch import load_file

    folder = versatile[0]
    copy = shutil.copytree(folder, tmp_path / "old")
    for name in ("image_unet", "vae"):
        file = copy / name / "diffusion_pytorch_model.safetensors"
        tensors = load_file(file)
        if name == "vae":
            for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
                tensors = {k.replace(new, old): v for k, v in tensors.items()}
            assert any("proj_attn" in k for k in tensors)
        torch.save(tensors, file.with_suffix(".bin"))
        file.unlink()
    new, old = (DualGuided.from_folder(f, *NOTHING).module.state_dict() for f in (folder, copy))
    assert all(torch.equal(old[k], v) for k, v in new.items())
    assert versatile_diffusion_digest(folder) != versatile_diffusion_digest(copy)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("image_unet", {"_class_name": "UNet3DConditionModel"}, "UNet2DConditionModel"),
        ("image_unet", {"attention_head_dim": 4}, "do not fit each other"),
        ("image_unet", {"act_fn": "gelu"}, "act_fn"),
        ("text_unet", {"cross_attention_dim": 8}, "do not fit each other"),
        ("image_unet", {"block_out_channels": [8, 8, 16, 32]}, "shape|fit"),
        ("vae", {"block_out_channels": [8, 16]}, "shape|fit"),
    ],
)
def test_folders_whose_sizes_do_not_fit_are_refused(versatile, tmp_path, part, change, words):
    copy = shutil.copytree(versatile[0], tmp_path / "other")
    file = copy / part / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=words):
        DualGuided.from_folder(copy, *NOTHING)


def test_a_folder_with_another_noising_process_is_refused(versatile, tmp_path):
    copy = shutil.copytree(versatile[0], tmp_path / "other")
    file = copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "v_prediction"}))
    with pytest.raises(ModelError, match="v_prediction"):
        DualGuided.from_folder(copy, *NOTHING)


def test_a_folder_that_leaves_the_size_open_is_of_pictures_of_512_pixels(versatile, tmp_path):
    copy = shutil.copytree(versatile[0], tmp_path / "open")
    file = copy / "image_unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sample_size": None}))
    assert (versatile_diffusion_config(versatile[0], 3, 5).size, versatile_diffusion_config(copy, 3, 5).size) == (8, 64)


@pytest.mark.parametrize("broken", ["missing", "nan", "cut", "gone"])
def test_weights_that_are_missing_damaged_or_nan_are_refused(versatile, tmp_path, broken):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(versatile[0], tmp_path / "other")
    file = copy / "text_unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    key = next(k for k in tensors if "attentions" in k)
    if broken == "missing":
        del tensors[key]
        save_file(tensors, file)
    elif broken == "nan":
        tensors[key][:] = math.nan
        save_file(tensors, file)
    elif broken == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()
    with pytest.raises(ModelError):
        DualGuided.from_folder(copy, *NOTHING)


def test_a_folder_is_loaded_and_used_without_any_connection(versatile, monkeypatch):
    def refuse(*_):
        raise AssertionError("something wants to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    refiner = DualGuided.from_folder(versatile[0], *NOTHING)
    vision, text = conditions(1)
    assert refiner.refine(first_stage(1), vision, text, ["a"], FEW, 0).shape == (1, 16, 16, 3)
    with pytest.raises(ModelError):
        DualGuided.from_folder(versatile[0] / "shi-labs" / "versatile-diffusion", *NOTHING)


# -- the lab -----------------------------------------------------------------------------------------------------------


needs_clip = pytest.mark.skipif("clip" not in zoo.names(), reason="the lab's CLIP is not bundled")
needs_kl = pytest.mark.skipif(not {"clip", "kl"} <= set(zoo.names()), reason="the lab's CLIP and KL are not bundled")


@needs_clip
def test_unconditional_tokens_are_those_of_a_grey_picture_and_an_empty_text():
    from phosphene.features.clip import ClipFeatures

    clip = ClipFeatures(output="tokens")
    vision, text = unconditional(clip)
    assert vision.shape == clip.shape("images") and text.shape == clip.shape("captions")
    grey = np.full((1, 32, 32, 3), 127 / 255, dtype=np.float32)
    assert np.allclose(vision, clip.images(grey)[0], atol=1e-4)  # resized from 224 px: colours within a rounding
    with pytest.raises(DataError, match="tokens"):
        unconditional(ClipFeatures())


@needs_kl
def test_the_zoo_learns_from_the_tokens_that_features_give():
    from phosphene.features.clip import ClipFeatures
    from phosphene.lab.zoo.dual_guided_training import picture_tokens, text_tokens

    clip = ClipFeatures(output="tokens")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    texts = ["a dog in the snow", "", "two boats"]
    assert np.allclose(picture_tokens(zoo.to_network(pixels)), clip.images(pixels), atol=1e-4)  # float32, fused or not
    assert np.allclose(text_tokens(texts), clip.texts(texts), atol=1e-4)


@needs_kl
def test_lessons_of_sixty_thousand_scenes_fit_into_600_megabytes(tmp_path):
    from phosphene.lab.zoo import material
    from phosphene.lab.zoo.dual_guided_training import DualGuidedObjective, one_caption

    scenes = material.scenes(material.TRAIN, 12, tmp_path)
    lessons = DualGuidedObjective.lessons(scenes)
    shapes = {k: tuple(v.shape) for k, v in lessons.items()}
    assert shapes == {"latents": (12, 4, 8, 8), "vision": (12, 17, 64), "text": (12, 40, 64)}
    assert sum(v.nbytes for v in lessons.values()) / 12 * 60_000 < 600e6
    for told, captions, good in zip(one_caption(scenes), scenes.captions, scenes.good, strict=True):
        assert told in [c for c, g in zip(captions, good, strict=True) if g]
