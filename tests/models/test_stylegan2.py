"""The conditional StyleGAN2: its sizes, its sums, the objective that trains it, and the pickles it was published in."""

from __future__ import annotations

import io
import math
import os
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import linalg

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.stages import load_part, save_part
from phosphene.models import stylegan2 as files
from phosphene.models.stylegan2 import (
    Discriminator,
    GanObjective,
    GanTraining,
    GeneratorNetwork,
    StyleGan2,
    StyleGan2Config,
    StyleGan2Sampling,
    adam,
    contrastive_cost,
    modulated,
    noised,
    position_means,
    with_deviation,
)
from phosphene.models.stylegan2_augment import augmented_batch
from phosphene.training import Draws, TrainConfig, train
from tests.models.conftest import seeded

TINY = {
    "size": 16, "z": 6, "w": 8, "mapping_layers": 2, "condition": 5, "style": 7, "channel_base": 64, "channel_max": 8,
    "condition_gain": 2.0, "condition_pace": 0.5, "group": 2,
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(kind=GeneratorNetwork, seed=0, **changes):
    """A network with every weight in play: fresh ones have noise of strength 0 and no biases."""

    def make():
        network = kind(**{**TINY, **changes})
        for weight in network.parameters():
            weight.data += 0.1 * torch.randn(weight.shape)
        return network

    return seeded(make, seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def units(*shape, seed=0):
    return F.normalize(normal(*shape, seed=seed), dim=-1)


def noise(network, n, seed=0):
    return [normal(n, 1, side, side, seed=seed + side) for side in network.config.noise_sizes]


def small_clip(x):
    """Frozen colours of quarters: a stand-in with gradients, as wide as a condition."""
    flat = F.adaptive_avg_pool2d(x, 2).flatten(1)
    return flat @ normal(12, 5, seed=9)


def objective(seed=0, **rules):
    config = GanTraining(**{"crop": 0.5, "r1_every": 3, "path_every": 2, **rules})
    return GanObjective(tiny(seed=seed), tiny(Discriminator, seed=seed), config, small_clip, small_clip)


def data(n=12):
    x, c = normal(n, 3, 16, 16, seed=3).clamp(-1, 1), units(n, 2, 5, seed=4)
    return lambda rows: {"x": x[rows], "conditions": c[rows]}


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("conditions", "weights", "judge"), [(2, 55_503_266, 29_389_441), (1, 44_997_026, 29_126_785)])
def test_the_paper_preset_has_the_published_networks_weights(conditions, weights, judge):
    with torch.device("meta"):
        config = StyleGan2Config(conditions=conditions).model_dump()
        generator, discriminator = GeneratorNetwork(**config), Discriminator(**config)
        picture = generator(torch.zeros(4, conditions, 512), torch.zeros(4, 512))
        logit, features = discriminator(picture, torch.zeros(4, conditions, 512))
    assert sum(w.numel() for w in generator.parameters()) == weights
    assert sum(w.numel() for w in discriminator.parameters()) == judge
    assert picture.shape == (4, 3, 256, 256)
    assert logit.shape == (4,)
    assert features.shape == (4, conditions, 512)
    assert generator.config.slots == 14


def test_the_lab_preset_is_what_the_zoo_trains_and_fits_three_megabytes():
    from phosphene.lab.zoo.networks import NETWORKS

    lab = StyleGan2Config.lab()
    assert StyleGan2Config(**NETWORKS["stylegan2"].config) == lab
    with torch.device("meta"):
        assert 2 * sum(w.numel() for w in GeneratorNetwork(**lab.model_dump()).parameters()) < 3e6


@pytest.mark.parametrize(
    ("change", "words"), [({"size": 24}, "power of two"), ({"widht": 3}, "widht"), ({"z": 0}, "z")]
)
def test_impossible_sizes_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        GeneratorNetwork(**{**TINY, **change})


# -- sums --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [False, True])
def test_modulation_is_a_grouped_convolution_with_weights_of_its_own_per_picture(up):
    x, weight, style = normal(3, 4, 5, 5), normal(6, 4, 3, 3, seed=1), normal(3, 4, seed=2)
    own = weight[None] * style[:, None, :, None, None]
    own = own / (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    together = x.reshape(1, 12, 5, 5)
    if up:
        expected = F.conv_transpose2d(together, own.transpose(1, 2).flatten(0, 1), stride=2, groups=3)
    else:
        expected = F.conv2d(together, own.flatten(0, 1), padding=1, groups=3)
    found = modulated(x, weight, style, up=up)
    torch.testing.assert_close(found, expected.view_as(found), atol=1e-5, rtol=1e-5)  # float32 sums of 36


def test_filtering_keeps_a_constant_and_doubles_a_ramp():
    smooth = tiny().blocks[1].smooth
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    inside = smooth.double(ramp)[0, 0, 4:-4, 4:-4]
    torch.testing.assert_close(inside, (torch.arange(4, 12) / 2 - 0.25).expand(8, 8))
    torch.testing.assert_close(smooth(torch.ones(1, 2, 8, 8), 0), torch.ones(1, 2, 5, 5))


def test_a_style_takes_the_largest_view_of_conditions_and_w_joined_to_it():
    style = tiny().blocks[1].colours.style
    c, w = units(3, 2, 5), normal(3, 8, seed=1)

    def view(x, layers):
        for layer in layers:
            x = F.leaky_relu(x @ layer.weight.T * 0.5 / math.sqrt(x.shape[1]) + 0.5 * layer.bias, 0.2) * math.sqrt(2)
        return x

    u = torch.stack([view(2.0 * c[:, k], style.views[k]) for k in (0, 1)]).amax(0)
    expected = torch.cat([u, w], 1) @ style.affine.weight.T / math.sqrt(15) + style.affine.bias
    torch.testing.assert_close(style(w, c), expected)


def test_conditions_and_noise_and_w_all_change_the_picture():
    network = tiny().eval()
    c, z, n = units(4, 2, 5), normal(4, 6), noise(tiny(), 4)
    with torch.no_grad():
        y = network(c, z, n)
        changed = [
            network(c.roll(1, 0), z, n), network(c, z.roll(1, 0), n), network(c, z, [k.roll(1, 0) for k in n]),
            network(c.flip(1), z, n),
        ]  # fmt: skip
    assert all((y - other).abs().amax((1, 2, 3)).min() > 1e-3 for other in changed)


def test_truncation_leads_from_w_to_its_mean():
    network = tiny().eval()
    network.mean.copy_(normal(8, seed=7))
    c, z = units(1, 2, 5).expand(4, -1, -1), normal(4, 6)
    with torch.no_grad():
        at_mean = network(c, z, truncation=0.0)
        slots = network.mean.expand(4, network.config.slots, -1)
        torch.testing.assert_close(at_mean, network.synthesise(slots, c))
        assert (at_mean - at_mean[:1]).abs().max() < 1e-5  # float32
        torch.testing.assert_close(network(c, z, truncation=1.0), network(c, z))
        assert (network(c, z) - network(c, z)[:1]).abs().max() > 0.01


@pytest.mark.parametrize("kind", [GeneratorNetwork, Discriminator])
def test_a_second_condition_like_the_first_changes_nothing(kind):
    one, two = tiny(kind, conditions=1), tiny(kind, seed=1)
    state = two.state_dict()
    state.update(one.state_dict())
    two.load_state_dict(state)
    two.duplicate()
    c, other = units(4, 1, 5), normal(4, 6) if kind is GeneratorNetwork else normal(4, 3, 16, 16)
    arguments = (lambda c: (c, other)) if kind is GeneratorNetwork else (lambda c: (other, c))
    a, b = one(*arguments(c)), two(*arguments(c.expand(-1, 2, -1)))
    a, b = (a, b) if kind is GeneratorNetwork else (a[0], b[0])
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)  # halves of two equal products


def test_a_logit_depends_on_its_own_condition_only_unless_asked():
    x, c = normal(4, 3, 16, 16), units(4, 2, 5)
    other = c.clone()
    other[0] = -c[0]
    each, batch = tiny(Discriminator), tiny(Discriminator, logit="batch")
    moved = (each(x, c)[0] - each(x, other)[0]).abs()
    assert moved[0] > 1e-3
    assert (moved[1:] == 0).all()
    assert ((batch(x, c)[0] - batch(x, other)[0]).abs() > 1e-3).all()


def test_the_deviation_channel_is_that_of_numpy_within_groups():
    x = normal(6, 3, 4, 4)
    found = with_deviation(x, 3)[:, 3]
    for first in (0, 1):
        rows = x[first::2].numpy()
        np.testing.assert_allclose(found[first::2], rows.std(0).mean(), rtol=1e-5)  # float32
    with pytest.raises(DataError, match="groups of 4"):
        with_deviation(x, 4)


# -- terms of the objective ----------------------------------------------------------------------------------------------


def test_contrast_is_ln_n_when_nothing_is_told_apart_and_one_sided_as_the_paper_has_it():
    assert float(contrastive_cost(torch.ones(8, 3), torch.ones(8, 3))) == pytest.approx(math.log(8), rel=1e-6)
    a, b = normal(6, 4), normal(6, 4, seed=1)
    s = (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.3).double()
    columns, rows = -s.log_softmax(0).diagonal().mean(), -s.log_softmax(1).diagonal().mean()
    for share in (0.0, 0.3, 1.0):
        expected = float(share * rows + (1 - share) * columns)
        assert float(contrastive_cost(a, b, 0.3, share)) == pytest.approx(expected, rel=1e-5)  # float32


def test_noise_in_conditions_has_the_share_it_is_given():
    c, eps = 3 * units(2000, 64), normal(2000, 64, seed=1)
    cosine = (F.normalize(c, dim=1) * noised(c, eps, 0.1)).sum(1).mean()
    # Noise of 64 values is almost at right angles: 0.9 / sqrt(0.9^2 + 0.1^2).
    assert abs(float(cosine) - 0.9 / math.hypot(0.9, 0.1)) < 1e-3
    torch.testing.assert_close(noised(c, eps, 1.0), F.normalize(eps, dim=1))


def test_position_means_are_of_the_picture_alone_unless_as_released():
    maps = normal(3, 4, 2, 2).abs()
    mean, released = position_means(maps), position_means(maps, "released")
    torch.testing.assert_close(mean.amax(1), torch.ones(3))
    torch.testing.assert_close(position_means(maps[:1]), mean[:1])
    top, middle = maps.amax(1).flatten(1), maps.mean(1).flatten(1)
    torch.testing.assert_close(released, top / top.max() + 2 * middle / middle.max())


def test_each_turn_moves_its_own_side_only():
    both, settings = objective(low_level_weight=10.0), TrainConfig(steps=1, batch_size=4, adam_betas=(0.0, 0.99))
    steps, before = adam(both, settings), None
    assert both.turns(0) == ["generator", "path", "discriminator", "r1"]
    assert both.turns(1) == ["generator", "discriminator"]
    for turn in both.turns(0):
        before = {k: v.clone() for k, v in both.named_parameters()}
        steps.zero_grad()
        both.loss(data()(np.arange(4)), Draws(0, 0, 4), turn)[0].backward()
        steps.step()
        moved = {k.partition(".")[0] for k, v in both.named_parameters() if not torch.equal(v, before[k])}
        assert moved == {"network" if turn in ("generator", "path") else "discriminator"}


def test_r1_is_half_gamma_times_the_squared_slope_by_finite_differences():
    both = objective(r1=2.0)
    both.double()
    batch = {k: v.double() for k, v in data()(np.arange(4)).items()}
    loss = both.loss(batch, Draws(0, 0, 4), "r1")[0].item()
    c = noised(batch["conditions"], Draws(0, 0, 4).normal(2, 5), 0.1)
    x = batch["x"].clone().requires_grad_(True)
    slope = torch.autograd.grad(both.discriminator(x, c)[0].sum(), x)[0]
    step = 1e-4 * slope / slope.norm()
    with torch.no_grad():
        rise = (both.discriminator(x + step, c)[0] - both.discriminator(x - step, c)[0]).sum() / 2e-4
    assert float(rise) == pytest.approx(float(slope.norm()), rel=1e-4)  # second order of the difference
    assert loss == pytest.approx(2.0 / 2 * 3 * float(slope.square().sum()) / 4, rel=1e-9)


def test_the_path_penalty_is_of_lengths_about_their_slow_mean():
    both = objective(path=1.0, mixing=0.0)
    loss, logs = both.loss(data()(np.arange(4)), Draws(0, 0, 4), "path")
    # The mean starts at 0 and moves by a hundredth: penalty = mean (l - mean(l) / 100)^2, so at least (0.99 mean(l))^2.
    mean = logs["path length"].item() / both.config.path_decay
    assert mean > 0
    assert float(both.path_mean) == pytest.approx(logs["path length"].item())
    assert loss.item() / both.config.path_every >= (0.99 * mean) ** 2 * (1 - 1e-5)


def test_terms_without_weight_are_not_computed_and_needed_ones_are_asked_for():
    both = GanObjective(tiny(), tiny(Discriminator), GanTraining(clip_weight=0.0, path=0.0, r1=0.0))
    assert both.turns(0) == ["generator", "discriminator"]
    _, terms = both.loss(data()(np.arange(4)), Draws(0, 0, 4), "generator")
    assert set(terms) == {"generator", "features"}
    with pytest.raises(ConfigError, match="clip"):
        GanObjective(tiny(), tiny(Discriminator), GanTraining())
    every = objective(real_clip_weight=1.0, real_features_weight=1.0, low_level_weight=1.0, pseudo=0.5, z="zero")
    loss, terms = every.loss(data()(np.arange(4)), Draws(0, 0, 4), "generator")
    assert set(terms) == {"generator", "features", "clip", "real clip", "real features", "low level"}
    assert float(loss) == pytest.approx(sum(float(t) for t in terms.values()), rel=1e-6)


def test_optimiser_rates_are_corrected_for_penalty_steps():
    made = adam(
        objective(path_every=4, r1_every=16), TrainConfig(steps=1, batch_size=4, lr=0.0025, adam_betas=(0.0, 0.99))
    )
    one, two = made.param_groups
    assert one["lr"] == pytest.approx(0.002)
    assert two["lr"] == pytest.approx(0.0025 * 16 / 17)
    assert one["betas"] == pytest.approx((0.0, 0.99**0.8))
    assert len(one["params"]) + len(two["params"]) == len(list(objective().parameters()))


# -- augmentation ------------------------------------------------------------------------------------------------------


def test_without_a_chance_pictures_stay_and_with_one_some_change_with_gradients():
    x = normal(12, 3, 16, 16).clamp(-1, 1).requires_grad_(True)
    assert torch.equal(augmented_batch(x, Draws(0, 0, 12), 0.0), x)
    y = augmented_batch(x, Draws(0, 0, 12), 0.1)
    same = (y - x).abs().amax((1, 2, 3)) < 1e-4  # resampled at its own places
    assert 0 < same.sum() < 12
    y.sum().backward()
    assert x.grad.abs().amax((1, 2, 3)).min() > 0


def test_grey_stays_grey_in_any_colour_change():
    grey = torch.full((50, 3, 8, 8), 0.25)
    y = augmented_batch(grey, Draws(1, 0, 50), 1.0)
    assert y.std((0, 2, 3)).min() > 0.05
    assert (y - y.mean(1, keepdim=True)).abs().max() < 1e-5  # float32


def test_the_chance_rises_while_true_pictures_are_told_too_surely():
    both = objective(ada_target=0.6, ada_thousands=0.1, ada_every=2)
    with torch.no_grad():
        both.discriminator.out.bias.fill_(100.0)
    for step in range(4):
        both.loss(data()(np.arange(4)), Draws(0, step, 4), "discriminator")
    assert float(both.chance) == pytest.approx(16 / 100)  # 16 pictures of 100
    with torch.no_grad():
        both.discriminator.out.bias.fill_(-100.0)
    for step in range(6):
        both.loss(data()(np.arange(4)), Draws(0, step, 4), "discriminator")
    assert float(both.chance) == 0.0


# -- training ----------------------------------------------------------------------------------------------------------


def learn(folder, steps, **rules):
    both = objective(ada_target=0.6, ada_thousands=0.1, low_level_weight=1.0, **rules)
    settings = TrainConfig(steps=steps, batch_size=4, lr=2.5e-3, schedule="constant", adam_betas=(0.0, 0.99), ema=0.9)
    done = train(
        both,
        data(),
        12,
        settings,
        seed=5,
        folder=folder,
        optimizer=adam,
        device="cpu",
        log_every=1,
        may_change=("steps",),
    )
    return both, done


@pytest.mark.parametrize("stop", [1, 4])
def test_a_training_stopped_at_any_step_goes_on_as_if_it_had_not(tmp_path, stop):
    whole, once = learn(tmp_path / "whole", 6)
    learn(tmp_path / "parts", stop)
    parts, again = learn(tmp_path / "parts", 6)
    assert again.resumed_at == stop
    assert again.curve == once.curve
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


# -- pictures of latents -----------------------------------------------------------------------------------------------


def fitted():
    return StyleGan2.of(tiny())


def latents(n=5):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, 5)).astype(np.float32) for _ in range(2))


def test_a_picture_depends_on_its_latents_seed_id_and_sample_only():
    part, (image, text), ids = fitted(), latents(), list("abcde")
    every = part.sample(image, text, ids, StyleGan2Sampling(samples=3), 7)
    assert every.shape == (5, 3, 16, 16, 3)
    assert every.dtype == np.float32
    assert every.min() >= 0
    assert every.max() <= 1
    back = part.sample(image[::-1], text[::-1], ids[::-1], StyleGan2Sampling(samples=3), 7)[::-1]
    np.testing.assert_array_equal(back, every)
    np.testing.assert_array_equal(
        part.sample(image[2:3], text[2:3], ["c"], StyleGan2Sampling(samples=1), 7)[0, 0], every[2, 0]
    )
    assert not np.array_equal(part.sample(image, text, ids, StyleGan2Sampling(samples=3), 8), every)
    assert len({p.tobytes() for p in every[0]}) == 3
    np.testing.assert_array_equal(part.sample(4 * image, text, ids, StyleGan2Sampling(samples=3), 7), every)


def test_full_truncation_without_pixel_noise_leaves_nothing_to_chance():
    part, (image, text) = fitted(), latents()
    asked = StyleGan2Sampling(samples=2, truncation=0.0, pixel_noise=False)
    one, other = (part.sample(image, text, list("abcde"), asked, seed) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one[:, 0], one[:, 1])


@pytest.mark.parametrize(
    ("image", "text", "words"),
    [
        (np.ones((2, 4)), np.ones((2, 5)), r"\(2, 5\)"),
        (np.ones((3, 5)), np.ones((3, 5)), r"\(2, 5\)"),
        (np.ones((2, 5)), None, "2 latents per stimulus"),
        (np.ones((2, 5)), np.zeros((2, 5)), "no direction"),
        (np.full((2, 5), np.nan), np.ones((2, 5)), "NaN"),
    ],
)
def test_what_cannot_be_painted_is_refused(image, text, words):
    with pytest.raises(DataError, match=words):
        fitted().sample(image, text, ["a", "b"], StyleGan2Sampling(), 0)


@pytest.mark.fault(70)
def test_a_broken_network_is_named():
    part, (image, text) = fitted(), latents()
    part.module.first.fill_(np.nan)
    with pytest.raises(ModelError, match="NaN"):
        part.sample(image, text, list("abcde"), StyleGan2Sampling(), 0)


def test_a_part_of_a_run_comes_back_as_it_was(tmp_path):
    part, (image, text) = fitted(), latents()
    save_part(tmp_path / "part", part, stage="s", digest="d", seconds=0.0, lineage=())
    again = load_part(tmp_path / "part", StyleGan2)
    asked = (image, text, list("abcde"), StyleGan2Sampling(truncation=0.7), 0)
    np.testing.assert_array_equal(again.sample(*asked), part.sample(*asked))


def test_a_part_trains_on_and_is_frozen_afterwards():
    part, (image, text) = fitted(), latents(8)
    before = part.module.first.clone()
    pixels = np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)

    def short(network, fetch, n, settings, *, data, optimizer):
        train(network, fetch, n, settings, seed=0, data=data, optimizer=optimizer, device="cpu")

    settings = TrainConfig(steps=2, batch_size=4, adam_betas=(0.0, 0.99), ema=0.5)
    part.learn(pixels, image, text, GanTraining(), settings, short, discriminator=tiny(Discriminator), clip=small_clip)
    assert not torch.equal(part.module.first, before)
    assert not any(w.requires_grad for w in part.module.parameters())


def test_the_distance_of_two_crowds_is_that_of_scipy():
    from phosphene.lab.zoo.stylegan2_training import frechet

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 4)), rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)) + 1
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * linalg.sqrtm(ca @ cb).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)


# -- public pickles ----------------------------------------------------------------------------------------------------


class Persistent:
    """Pickles as the published networks do: source code, class name and state behind one function."""

    def __init__(self, **state):
        self.__dict__.update(state)

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "Net", "state": self.__dict__}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


SOURCE = "raise SystemExit('the source in a pickle was run')"


@pytest.fixture
def foreign(monkeypatch):
    """Modules of these names, so that pickles can name what is in them; the reader must never import them."""

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the official loader was called")

    class EasyDict(dict):
        pass

    for module, member in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        made = types.ModuleType(module)
        member.__module__, member.__qualname__ = module, member.__name__
        setattr(made, member.__name__, member)
        monkeypatch.setitem(sys.modules, module.partition(".")[0], types.ModuleType(module.partition(".")[0]))
        monkeypatch.setitem(sys.modules, module, made)
    return EasyDict


def nested(tensors):
    """Modules inside modules from dotted names."""
    groups, own = {}, {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        (groups.setdefault(head, {}) if rest else own)[rest or head] = tensor
    buffers = ("w_avg", "noise_const", "resample_filter")
    return Persistent(
        training=False,
        _parameters=OrderedDict((k, torch.nn.Parameter(v)) for k, v in own.items() if k not in buffers),
        _buffers=OrderedDict((k, v) for k, v in own.items() if k in buffers),
        _modules=OrderedDict((k, nested(v)) for k, v in groups.items()),
    )


def published(network):
    """Weights of one of our networks under the published names, and the buffers they come with."""
    out = {}
    for name, tensor in network.state_dict().items():
        p = name.split(".")
        if isinstance(network, GeneratorNetwork):
            if p[0] == "mapping":
                new = f"mapping.fc{p[1]}.{p[2]}"
            elif p[0] in ("mean", "first"):
                new = {"mean": "mapping.w_avg", "first": "synthesis.b4.const"}[p[0]]
            else:
                size = 4 * 2 ** int(p[1])
                layer, rest = ("torgb", p[3:]) if p[2] == "colours" else (f"conv{int(p[3]) + (size == 4)}", p[4:])
                if rest[:2] == ["style", "affine"]:
                    rest = ["affine_0", rest[2]]
                elif rest[0] == "style":
                    rest = [f"pre_{rest[3]}{'1' if rest[2] == '1' else ''}", rest[4]]
                new = ".".join([f"synthesis.b{size}", layer, *rest]).replace("strength", "noise_strength")
        else:
            last = {"convolution": "conv", "linear": "fc", "out": "out"}
            if p[0] == "blocks":
                size = network.config.size // 2 ** int(p[1])
                new = f"b{size}.{ {'one': 'conv0', 'two': 'conv1', 'skip': 'skip'}[p[2]] }.{p[3]}"
            elif p[0] == "colours":
                new = f"b{network.config.size}.fromrgb.{p[1]}"
            elif p[0] == "heads":
                new = f"b4.fts{'2' if p[1] == '1' else ''}.{p[2]}"
            else:
                new = f"b4.{last[p[0]]}.{p[1]}"
        out[new] = tensor
    extra = {"synthesis.b8.conv0.noise_const": torch.ones(8, 8), "synthesis.b8.conv0.resample_filter": torch.ones(4, 4)}
    return out | (extra if isinstance(network, GeneratorNetwork) else {"b8.conv1.resample_filter": torch.ones(4, 4)})


PUBLIC = {"condition_gain": 1.0, "condition_pace": 0.01, "group": 4}


def write(folder, easy, conditions=2, **also):
    g, d = (tiny(kind, conditions=conditions, **PUBLIC) for kind in (GeneratorNetwork, Discriminator))
    content = {
        "G": None, "D": nested(published(d)), "G_ema": nested(published(g)),
        "training_set_kwargs": easy(resolution=16, mean=np.float64(0.5), kind=np.dtype("f4")), "augment_pipe": None, **also,
    }  # fmt: skip
    (folder / "network.pkl").write_bytes(pickle.dumps(content, protocol=4))
    return folder / "network.pkl", g, d


def test_networks_of_a_public_pickle_come_back_bit_for_bit_and_nothing_in_it_is_run(tmp_path, foreign):
    file, g, d = write(tmp_path, foreign)
    found, judge = files.read_networks(file)
    assert found.config == g.config
    for a, b in ((found, g), (judge, d)):
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_a_converted_folder_holds_the_same_networks_and_where_they_are_from(tmp_path, foreign):
    file, g, d = write(tmp_path, foreign)
    files.convert_pickle(file, tmp_path / "converted")
    found, judge = files.read_converted(tmp_path / "converted")
    assert all(torch.equal(v, g.state_dict()[k]) for k, v in found.state_dict().items())
    assert all(torch.equal(v, d.state_dict()[k]) for k, v in judge.state_dict().items())
    (image, text), ids = latents(2), ["a", "b"]
    parts = [StyleGan2.from_public(path) for path in (file, tmp_path / "converted")]
    a, b = (part.sample(image, text, ids, StyleGan2Sampling(), 0) for part in parts)
    np.testing.assert_array_equal(a, b)


def test_one_condition_becomes_two_of_the_same(tmp_path, foreign):
    file, g, d = write(tmp_path, foreign, conditions=1)
    two, judge = files.read_networks(file, conditions=2)
    c, z, x = units(4, 1, 5), normal(4, 6), normal(4, 3, 16, 16)
    torch.testing.assert_close(two(c.expand(-1, 2, -1), z), g(c, z), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(judge(x, c.expand(-1, 2, -1))[0], d(x, c)[0], atol=1e-6, rtol=1e-6)


class Call:
    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("where", ["top", "state", "storage"])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [(os.system, ("touch {}",)), (eval, ("open('{}', 'w')",)), (exec, ("open('{}', 'w')",)), (open, ("{}", "w"))],
)
def test_a_payload_is_refused_and_never_runs(tmp_path, foreign, where, function, arguments):
    mark = tmp_path / "ran"
    call = Call(function, *(a.format(mark) for a in arguments))
    if where == "storage":
        buffer = io.BytesIO()
        pickle.dump(call, buffer, protocol=2)
        call = Call(torch.storage._load_from_bytes, buffer.getvalue())
    content = {"G_ema": call} if where == "top" else {"G_ema": Persistent(_parameters={"weight": call})}
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError):
        files.read_pickle(tmp_path / "bad.pkl")
    assert not mark.exists()


def test_a_refusal_names_what_the_file_wanted(tmp_path):
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"G_ema": Call(os.system, "true")}))
    with pytest.raises(ModelError, match=r"posix\.system|nt\.system"):
        files.read_pickle(tmp_path / "bad.pkl")


def test_a_pickle_cut_short_is_refused_at_every_length(tmp_path, foreign):
    file, *_ = write(tmp_path, foreign)
    whole = file.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25).astype(int):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            files.read_pickle(file)


def test_weights_that_do_not_fit_are_named(tmp_path, foreign):
    g = tiny(**PUBLIC)
    weights = published(g)
    del weights["synthesis.b8.conv0.bias"]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G_ema": nested(weights)}))
    with pytest.raises(ModelError, match=r"blocks\.1\.convolutions\.0\.bias"):
        files.read_networks(tmp_path / "a.pkl")
    weights = published(g) | {"synthesis.b8.conv0.bias": torch.full((8,), math.nan)}
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"G_ema": nested(weights)}))
    with pytest.raises(ModelError, match="NaN"):
        files.read_networks(tmp_path / "b.pkl")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"G_ema": nested({"mapping.fc0.weight": torch.ones(2, 2)})}))
    with pytest.raises(ModelError, match="not the weights"):
        files.read_networks(tmp_path / "c.pkl")
    (tmp_path / "d.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ModelError, match="holds none"):
        files.read_pickle(tmp_path / "d.pkl")
