"""MaskGIT: its schedule, sampler, training, tokenizers, and the weights it was published with."""

from __future__ import annotations

import inspect
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.stages import load_part, save_part
from phosphene.models.maskgit import (
    MaskGit,
    MaskGitConfig,
    MaskGitPart,
    MaskGitSampling,
    flat_tree,
    flax_tokenizer,
    flax_transformer,
    hidden_count,
    picture_noise,
    start_from_public,
    torch_tokenizer,
    unknown_counts,
    unmask,
)
from phosphene.models.vq import Tokenizer, Vqgan, VqganConfig
from phosphene.training import Draws, TrainConfig, train
from phosphene.training.checkpoint import load_module_state
from tests.models.conftest import seeded

TINY = {
    "codes": 12, "unused": 3, "grid": 4, "latent": 8, "width": 32, "depth": 2, "heads": 4, "hidden": 64, "smoothing": 0.0,
}  # fmt: skip
TINY_VQ = {"codes": 20, "code_width": 6, "width": 8, "multipliers": [1, 1, 2, 2, 4], "groups": 4}


def tiny(seed=0, **changes) -> MaskGit:
    return seeded(lambda: MaskGit(**{**TINY, **changes}), seed)


def noise(n, steps, n_tokens, seed=0):
    return torch.from_numpy(np.stack([picture_noise(seed, i, 0, steps, n_tokens) for i in range(n)]))


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_the_paper_preset_has_the_published_number_of_weights():
    with torch.device("meta"):
        transformer, tokenizer = MaskGit(**MaskGitConfig.paper().model_dump()), Vqgan()
    assert sum(w.numel() for w in transformer.parameters()) == 173_244_393
    assert sum(w.numel() for w in tokenizer.parameters()) == 54_515_587
    assert len(tokenizer.state_dict()) == 168


def test_the_lab_preset_covers_eight_by_eight_codes_with_about_a_million_and_a_half_weights():
    lab = MaskGitConfig.lab()
    network = MaskGit(**lab.model_dump())
    assert (lab.codes, lab.grid, lab.latent) == (256, 8, 64)
    assert 1.3e6 < sum(w.numel() for w in network.parameters()) < 1.5e6


def test_the_zoo_trains_the_lab_preset():
    from phosphene.lab.zoo.networks import NETWORKS

    assert MaskGitConfig(**NETWORKS["maskgit"].config) == MaskGitConfig.lab()


def test_paper_size_logits_have_one_row_per_code_and_none_for_classes_or_the_mask():
    with torch.device("meta"):
        out = MaskGit()(torch.zeros(2, 256, dtype=torch.long), torch.zeros(2, 1024))
    assert out.shape == (2, 256, 1024)


@pytest.mark.parametrize(("change", "words"), [({"heads": 5}, "multiple of heads"), ({"widht": 3}, "width")])
def test_impossible_sizes_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        MaskGit(**{**TINY, **change})


# -- schedule ----------------------------------------------------------------------------------------------------------


def test_unknown_counts_are_those_of_the_published_sampler():
    assert unknown_counts(256, 11) == [256, 253, 245, 232, 215, 193, 167, 138, 106, 72, 36]


@pytest.mark.parametrize(("n", "steps"), [(64, 11), (256, 8), (1024, 20)])
def test_unknown_counts_follow_the_cosine(n, steps):
    angles = np.linspace(0, np.pi / 2, steps, endpoint=False)
    assert unknown_counts(n, steps) == np.floor(n * np.cos(angles)).astype(int).tolist()


@pytest.mark.parametrize(("n", "steps"), [(4, 11), (1, 3), (9, 1), (2, 2)])
def test_more_steps_than_codes_still_leave_at_least_one_to_draw(n, steps):
    counts = unknown_counts(n, steps)
    assert len(counts) == steps
    assert counts[0] == n
    assert min(counts) >= 1
    assert counts == sorted(counts, reverse=True)


def test_hidden_shares_have_the_mean_of_the_clipped_cosine():
    # E max(cos(pi u / 2), 1/2) = (2 / pi) sin(pi / 3) + 1/2 (1 - 2/3)
    u = (np.arange(20_000) + 0.5) / 20_000
    mean = np.mean([hidden_count(MaskGitConfig(), x) for x in u]) / 256
    expected = 2 / math.pi * math.sin(math.pi / 3) + 1 / 6
    assert abs(mean - expected) < 1 / 256  # rounding down costs less than one code


def test_samplings_defaults_are_those_of_its_configuration():
    given = inspect.signature(MaskGit.sample).parameters
    assert {k: given[k].default for k in MaskGitSampling.model_fields} == MaskGitSampling().model_dump()


# -- sampler -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "steps"), [(16, 11), (4, 11), (3, 1)])
def test_with_a_source_that_knows_the_picture_sampling_returns_it(grid, steps):
    truth = torch.from_numpy(np.random.default_rng(1).integers(0, 50, (6, grid**2)))

    def oracle(tokens, where):
        return 200.0 * F.one_hot(truth.gather(1, where), 50).float()

    assert torch.equal(unmask(oracle, noise(6, steps, grid**2), mask=50), truth)


def test_a_code_once_kept_is_never_changed_and_counts_follow_the_schedule():
    seen = []
    weights = torch.randn(3, 64, 7, generator=torch.Generator().manual_seed(0))

    def source(tokens, where):
        seen.append(tokens.clone())
        assert (tokens.gather(1, where) == 99).all()
        return weights.gather(1, where[..., None].expand(-1, -1, 7))

    out = unmask(source, noise(3, 11, 64), mask=99)
    assert [int((t == 99).sum(1).unique()) for t in seen] == unknown_counts(64, 11)
    for before, after in zip(seen, [*seen[1:], out], strict=True):
        assert torch.equal(before[before != 99], after[before != 99])
    assert (out < 7).all()


def test_one_step_draws_codes_with_their_probabilities():
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5, -math.inf])
    out = unmask(lambda t, w: logits.expand(*w.shape, 5), noise(40, 1, 500), mask=5)
    counts = torch.bincount(out.flatten(), minlength=5).numpy()
    assert counts[4] == 0
    expected = logits.double().softmax(0).numpy()[:4] * out.numel()
    assert stats.chisquare(counts[:4], expected).pvalue > 1e-3


def test_pictures_of_two_modes_come_out_pure_and_equally_often():
    # Exact conditionals of "all codes 0 or all codes 1". 64 codes in 11 steps keep one code first, which decides.
    def source(tokens, where):
        known = torch.where(tokens == 2, 0, 2 * tokens - 1).sum(1).sign()  # -1, 0 or 1
        logits = 100.0 * torch.stack([-known, known], -1)
        return logits[:, None].expand(-1, where.shape[1], -1)

    out = unmask(source, noise(400, 11, 64), mask=2)
    assert (out == out[:, :1]).all()
    assert stats.binomtest(int(out[:, 0].sum()), 400).pvalue > 1e-3


def test_without_temperature_the_surest_codes_are_kept_first():
    certainty = torch.arange(16.0).expand(1, 16)  # of code 0 over code 1, at position 0 .. 15
    kept = []

    def source(tokens, where):
        kept.append(tokens[0] != 9)
        certain = 10 + certainty.gather(1, where)  # at least 10, so that code 0 is drawn everywhere
        return torch.stack([certain, torch.zeros_like(certain)], -1)

    unmask(source, noise(1, 4, 16), mask=9, temperature=0.0)
    for known in kept:
        n = int(known.sum())
        assert known[16 - n :].all()


def test_noise_on_confidences_is_gumbel():
    # Of two codes equally likely everywhere, the kept position is the one with the largest Gumbel: uniform.
    first = []

    def source(tokens, where):
        first.append((tokens != 2).float())
        return torch.zeros(*where.shape, 2)

    unmask(source, noise(2000, 2, 4), mask=2)
    kept = first[1].sum(0).numpy()
    # floor(4 cos(pi / 4)) = 2 stay unknown, 2 are kept: each position in half of the pictures.
    assert kept.sum() == 4000
    assert stats.chisquare(kept).pvalue > 1e-3


# -- sampling with the network -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_a_picture_depends_on_seed_id_and_sample_only():
    network = tiny()
    latents, ids = np.random.default_rng(0).normal(size=(7, 8)), [f"scene-{i}" for i in range(7)]
    all_of_them = network.sample(latents, ids, seed=4)
    assert all_of_them.shape == (7, 5, 4, 4)
    assert all_of_them.dtype == np.int64
    assert np.array_equal(all_of_them, network.sample(latents, ids, seed=4))
    order = [5, 0, 3]
    some = network.sample(latents[order], [ids[i] for i in order], seed=4)
    assert np.array_equal(some, all_of_them[order])
    two = network.sample(latents[:1], ids[:1], seed=4, samples=2)
    assert np.array_equal(two, all_of_them[:1, :2])
    assert not np.array_equal(all_of_them, network.sample(latents, ids, seed=5))
    assert len(np.unique(all_of_them.reshape(35, -1), axis=0)) == 35


def test_sampling_touches_no_global_noise_and_leaves_the_mode():
    network = tiny().train()
    state = torch.get_rng_state()
    network.sample(np.zeros((1, 8)), ["a"], seed=0)
    assert torch.equal(state, torch.get_rng_state())
    assert network.training


def test_pictures_of_a_batch_do_not_see_each_other():
    network = tiny().eval()
    rng = torch.Generator().manual_seed(0)
    tokens, latents = torch.randint(16, (5, 16), generator=rng), torch.randn(5, 8, generator=rng)
    together = network(tokens, latents)
    alone = torch.cat([network(tokens[i : i + 1], latents[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-5)  # float32 sums of 64 terms in another order
    where = torch.tensor([[3, 0], [1, 2], [15, 4], [7, 8], [9, 0]])
    assert torch.allclose(network(tokens, latents, where), together[torch.arange(5)[:, None], where], atol=1e-5)


@pytest.mark.parametrize("bad", [np.zeros((2, 9)), np.zeros((3, 8)), np.zeros(8), np.full((2, 8), np.nan)])
def test_latents_of_another_space_or_with_nan_are_refused(bad):
    with pytest.raises(DataError):
        tiny().sample(bad, ["a", "b"], seed=0)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"samples": 0}, {"temperature": -1.0}, {"batch_size": 0}])
def test_impossible_samplings_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        tiny().sample(np.zeros((1, 8)), ["a"], seed=0, **bad)


@pytest.mark.fault(70)
def test_a_network_that_gives_nan_draws_nothing():
    network = tiny()
    with torch.no_grad():
        network.head.weight[0, 0] = math.nan
    with pytest.raises(ModelError, match="NaN"):
        network.sample(np.zeros((1, 8)), ["a"], seed=0)


# -- training ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_hidden_codes_only():
    network = tiny(smoothing=0.1, dropout=0.0)
    rng = torch.Generator().manual_seed(2)
    tokens, latents = torch.randint(12, (6, 16), generator=rng), torch.randn(6, 8, generator=rng)
    loss, logs = network.loss({"tokens": tokens.view(6, 4, 4), "latents": latents}, Draws(0, 3, 6))
    draws = Draws(0, 3, 6)
    n = hidden_count(network.config, float(torch.rand((), generator=draws.generator)))
    hidden = torch.zeros(6, 16, dtype=torch.bool).scatter(1, draws.uniform(16).argsort(1)[:, :n], True)
    log_p = network(tokens.masked_fill(hidden, network.config.mask), latents).log_softmax(-1)
    nll = -log_p.gather(2, tokens[..., None])[..., 0]
    assert math.isclose(float(logs["entropy"]), nll[hidden].mean().item(), rel_tol=1e-5)
    assert math.isclose(loss.item(), (0.9 * nll - 0.1 * log_p.mean(-1))[hidden].mean().item(), rel_tol=1e-5)
    assert logs["masked"] == n / 16 >= 0.5


def test_parts_of_a_batch_have_the_loss_of_the_whole():
    network = tiny(dropout=0.0)
    rng = torch.Generator().manual_seed(2)
    batch = {"tokens": torch.randint(12, (6, 16), generator=rng), "latents": torch.randn(6, 8, generator=rng)}
    whole, _ = network.loss(batch, Draws(1, 1, 6))
    parts = [
        network.loss({k: v[p] for k, v in batch.items()}, Draws(1, 1, 6, p))[0] for p in (slice(0, 3), slice(3, 6))
    ]
    assert math.isclose(whole.item(), sum(parts).item() / 2, rel_tol=1e-5)  # float32 sums


def test_training_learns_which_picture_belongs_to_which_latent():
    rng = np.random.default_rng(3)
    latents = np.eye(8, dtype=np.float32)
    pictures = rng.integers(0, 12, (8, 4, 4))
    network = tiny()
    x, y = torch.from_numpy(latents), torch.from_numpy(pictures)

    def fetch(rows):
        at = torch.from_numpy(rows)
        return {"tokens": y[at], "latents": x[at]}

    config = TrainConfig(steps=200, batch_size=16, lr=8e-3, warmup=10, clip_norm=1.0)
    curve = train(network, fetch, 8, config, seed=0, log_every=10, device="cpu").curve
    assert curve[0]["loss"] > 0.6 * math.log(12)
    assert curve[-1]["loss"] < 0.1 * curve[0]["loss"]
    drawn = network.sample(latents, list("abcdefgh"), seed=0)
    hits = (drawn == pictures[:, None]).mean()
    assert hits > 0.98
    shuffled = network.sample(np.roll(latents, 1, axis=0), list("abcdefgh"), seed=0)
    assert (shuffled == pictures[:, None]).mean() < 0.3  # 1/12 by chance for unrelated pictures


def test_a_trained_network_comes_back_from_a_stage_folder_with_the_same_samples(tmp_path):
    part = MaskGitPart(tiny(seed=5), TINY)
    save_part(tmp_path / "s", part, stage="s", digest="d", seconds=0.0, lineage=[])
    again = load_part(tmp_path / "s", MaskGitPart)
    latents = np.random.default_rng(0).normal(size=(2, 8))
    assert np.array_equal(
        part.module.sample(latents, ["a", "b"], seed=1), again.module.sample(latents, ["a", "b"], seed=1)
    )
    assert json.loads(json.dumps(again.config)) == TINY


# -- tokenizers --------------------------------------------------------------------------------------------------------


def lab_vq():
    from phosphene.lab.zoo.networks import build

    return seeded(lambda: build("vq"))


TOKENIZERS = {"diffusers": lab_vq, "published": lambda: seeded(lambda: Vqgan(**TINY_VQ))}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_encoding_and_decoding_agree_with_the_networks_own_way(kind):
    network = TOKENIZERS[kind]()
    tokenizer = Tokenizer(network, batch_size=2)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    tokens = tokenizer.encode(pixels)
    decoded = tokenizer.decode(tokens)
    assert decoded.shape == (3, 32, 32, 3)
    assert decoded.dtype == np.float32
    assert 0 <= decoded.min() <= decoded.max() <= 1
    x = torch.from_numpy(pixels / np.float32(255)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        if kind == "diffusers":
            codes = network.quantize(network.encode(2 * x - 1).latents)[2][2].view(3, 8, 8)
            back = (network(2 * x - 1).sample + 1) / 2
        else:
            z = network.encoder(x)
            far = (z[:, None] - network.quantizer.embedding.weight[None, :, :, None, None]).square().sum(2)
            codes = far.argmin(1)
            back = network.decoder(network.quantizer.embedding(codes).permute(0, 3, 1, 2))
    assert np.array_equal(tokens, codes.numpy())
    expected = back.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.allclose(decoded, expected, atol=1e-5)  # batches of two and of three round differently


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_bytes_and_floats_of_a_picture_have_the_same_codes(kind):
    tokenizer = Tokenizer(TOKENIZERS[kind]())
    pixels = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert np.array_equal(tokenizer.encode(pixels), tokenizer.encode(pixels / np.float32(255)))


def test_pictures_out_of_range_and_codes_that_do_not_exist_are_refused():
    tokenizer = Tokenizer(TOKENIZERS["published"]())
    for bad in (np.full((1, 32, 32, 3), 2.0), np.full((1, 32, 32, 3), np.nan), np.zeros((32, 32, 3))):
        with pytest.raises(DataError):
            tokenizer.encode(bad)
    for bad in (np.full((1, 2, 2), 20), np.full((1, 2, 2), -1), np.zeros((1, 2, 2)), np.zeros((2, 2), int)):
        with pytest.raises(DataError):
            tokenizer.decode(bad)


# -- public weights ----------------------------------------------------------------------------------------------------


def flax_transformer_tree(c: MaskGitConfig, seed=0):
    """Every array of the public transformer, written down from its description, with random values."""
    rng = np.random.default_rng(seed)
    w, size = c.width, c.width // c.heads

    def draw(*shape):
        return rng.normal(scale=0.3, size=shape).astype(np.float32)

    def norm():
        return {"scale": 1 + draw(w), "bias": draw(w)}

    def dense(*shape):
        return {"kernel": draw(*shape), "bias": draw(shape[-1])}

    def heads():
        return {"kernel": draw(w, c.heads, size), "bias": draw(c.heads, size)}

    tree = {
        "Embed_0": {
            "word_embeddings": {"embedding": draw(c.codes + c.unused + 1, w)},
            "position_embeddings": {"embedding": draw(1 + c.grid**2, w)},
            "embeddings_ln": norm(),
        },
        "MlmLayer_0": {
            "mlm_dense": dense(w, w),
            "mlm_ln": norm(),
            "mlm_bias": {"bias": draw(c.codes + c.unused + 1)},
        },
    }
    for i in range(c.depth):
        attention = {"query": heads(), "key": heads(), "value": heads(), "out": dense(c.heads, size, w)}
        tree[f"TransformerLayer_{i}"] = {
            "Attention_0": {"self_attention": attention, "attention_output_ln": norm()},
            "Mlp_0": {
                "intermediate_output": dense(w, c.hidden),
                "layer_output": dense(c.hidden, w),
                "layer_output_ln": norm(),
            },
        }
    return {"params": tree}


def flax_forward(tree, c: MaskGitConfig, embedded):
    """The public forward pass in float64 numpy, from the public names; `embedded` replaces token embeddings."""

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * p["scale"] + p["bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    p = tree["params"]
    x = norm(embedded + p["Embed_0"]["position_embeddings"]["embedding"], p["Embed_0"]["embeddings_ln"])
    for i in range(c.depth):
        layer = p[f"TransformerLayer_{i}"]
        a = layer["Attention_0"]["self_attention"]
        q, k, v = (
            np.einsum("nlw,whd->nhld", x, a[m]["kernel"]) + a[m]["bias"][:, None] for m in ("query", "key", "value")
        )
        s = np.einsum("nhld,nhmd->nhlm", q, k) / math.sqrt(q.shape[-1])
        s = np.exp(s - s.max(-1, keepdims=True))
        y = np.einsum("nhlm,nhmd->nhld", s / s.sum(-1, keepdims=True), v)
        y = np.einsum("nhld,hdw->nlw", y, a["out"]["kernel"]) + a["out"]["bias"]
        x = norm(x + y, layer["Attention_0"]["attention_output_ln"])
        y = dense(gelu(dense(x, layer["Mlp_0"]["intermediate_output"])), layer["Mlp_0"]["layer_output"])
        x = norm(x + y, layer["Mlp_0"]["layer_output_ln"])
    x = norm(gelu(dense(x, p["MlmLayer_0"]["mlm_dense"])), p["MlmLayer_0"]["mlm_ln"])
    return x @ p["Embed_0"]["word_embeddings"]["embedding"].T + p["MlmLayer_0"]["mlm_bias"]["bias"]


def test_the_public_transformer_computes_the_same_logits_under_our_names():
    network = tiny().eval()
    c = network.config
    tree = flax_transformer_tree(c)
    latent_before = network.latent.weight.clone()
    start_from_public(network, tree)
    assert torch.equal(network.latent.weight, latent_before)
    rng = np.random.default_rng(0)
    tokens, latents = rng.integers(0, c.mask + 1, (3, 16)), rng.normal(size=(3, 8)).astype(np.float32)
    with torch.no_grad():
        ours = network(torch.from_numpy(tokens), torch.from_numpy(latents)).numpy()
        first = network.latent(torch.from_numpy(latents)).numpy()
    words = tree["params"]["Embed_0"]["word_embeddings"]["embedding"]
    theirs = flax_forward(tree, c, np.concatenate([first[:, None], words[tokens]], 1).astype(np.float64))
    # float32 against float64 through two blocks, logits of order 3
    assert np.allclose(ours, theirs[:, 1:, : c.codes], atol=5e-5)


def test_the_public_transformer_has_393_arrays_and_every_one_is_used():
    c = MaskGitConfig(codes=5, unused=2, grid=2, latent=3, width=8, depth=24, heads=2, hidden=12)
    tree = flax_transformer_tree(c)
    flat = flat_tree(tree)
    assert len(flat) == 393
    converted = flax_transformer(tree, c)
    assert sum(a.size for a in converted.values()) == sum(a.size for a in flat.values())
    values = [np.sort(np.concatenate([a.ravel() for a in d.values()])) for d in (flat, converted)]
    assert np.array_equal(*values)
    assert {*converted, "latent.weight", "latent.bias"} == set(MaskGit(**c.model_dump()).state_dict())


def _refuses(convert, arrays, config, keys):
    for key in keys:
        without = {k: v for k, v in arrays.items() if k != key}
        with pytest.raises(ModelError, match="missing " + key.replace(".", r"\.")):
            convert(without, config)
        # The same number of values in another order of axes must not slip through a reshape.
        turned = arrays[key][None] if arrays[key].ndim == 1 else np.swapaxes(arrays[key], 0, -1)
        if turned.shape != arrays[key].shape:
            with pytest.raises(ModelError, match="has shape"):
                convert({**arrays, key: turned}, config)
    with pytest.raises(ModelError, match="unexpected optimizer/mu"):
        convert({**arrays, "optimizer/mu": np.zeros(3)}, config)
    broken = {**arrays, keys[0]: np.full_like(arrays[keys[0]], np.nan)}
    with pytest.raises(ModelError, match="NaN"):
        convert(broken, config)


@pytest.mark.fault(70)
@pytest.mark.fault(71)
@pytest.mark.fault(72)
def test_every_missing_extra_or_turned_array_of_the_public_transformer_is_refused():
    c = MaskGitConfig(**TINY)
    flat = flat_tree(flax_transformer_tree(c))
    _refuses(flax_transformer, flat, c, list(flat))


def flax_tokenizer_tree(c: VqganConfig, seed=0):
    """Every array of the public tokenizer, from its description: numbered by order of use within each side."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(scale=0.2, size=shape).astype(np.float32)

    def conv(size, n_in, n_out, bias=True):
        return {"kernel": draw(size, size, n_in, n_out), **({"bias": draw(n_out)} if bias else {})}

    def norm(n):
        return {"scale": 1 + draw(n), "bias": draw(n)}

    def block(n_in, n_out):
        out = {"GroupNorm_0": norm(n_in), "Conv_0": conv(3, n_in, n_out, False), "GroupNorm_1": norm(n_out)}
        out["Conv_1"] = conv(3, n_out, n_out, False)
        return out if n_in == n_out else {**out, "Conv_2": conv(1, n_out, n_out, False)}

    down = [c.width * m for m in c.multipliers]
    top = down[-1]
    encoder, decoder = {"Conv_0": conv(3, 3, c.width, False)}, {"Conv_0": conv(3, c.code_width, top)}
    ins = [c.width, *down]
    sizes = [(ins[i] if j == 0 else w, w) for i, w in enumerate(down) for j in range(c.blocks)]
    encoder |= {f"ResBlock_{k}": block(*s) for k, s in enumerate([*sizes, *[(top, top)] * c.blocks])}
    encoder |= {"GroupNorm_0": norm(top), "Conv_1": conv(1, top, c.code_width)}
    up = down[::-1]
    ins = [top, *up]
    sizes = [(ins[i] if j == 0 else w, w) for i, w in enumerate(up) for j in range(c.blocks)]
    decoder |= {f"ResBlock_{k}": block(*s) for k, s in enumerate([*[(top, top)] * c.blocks, *sizes])}
    decoder |= {f"Conv_{i + 1}": conv(3, w, w) for i, w in enumerate(up[:-1])}
    decoder |= {"GroupNorm_0": norm(up[-1]), f"Conv_{len(up)}": conv(3, up[-1], 3)}
    return {"params": {"encoder": encoder, "decoder": decoder, "quantizer": {"codebook": draw(c.codes, c.code_width)}}}


class _FlaxTokenizer:
    """The public tokenizer's passes in torch functions, walking through the public names in their order."""

    def __init__(self, tree, c: VqganConfig):
        self.p, self.c = tree["params"], c

    def conv(self, x, p):
        kernel = torch.from_numpy(p["kernel"]).permute(3, 2, 0, 1)
        bias = torch.from_numpy(p["bias"]) if "bias" in p else None
        return F.conv2d(x, kernel, bias, padding="same")

    def norm(self, x, p):
        n, channels, h, w = x.shape
        g = x.reshape(n, self.c.groups, -1)
        g = (g - g.mean(2, keepdim=True)) / (g.var(2, unbiased=False, keepdim=True) + 1e-6).sqrt()
        scale, bias = (torch.from_numpy(p[k])[None, :, None, None] for k in ("scale", "bias"))
        return g.reshape(n, channels, h, w) * scale + bias

    def block(self, x, p):
        h = self.norm(x, p["GroupNorm_0"])
        h = self.conv(h * h.sigmoid(), p["Conv_0"])
        h = self.norm(h, p["GroupNorm_1"])
        h = self.conv(h * h.sigmoid(), p["Conv_1"])
        return h + (self.conv(h, p["Conv_2"]) if "Conv_2" in p else x)

    def encode(self, x):
        p, k = self.p["encoder"], 0
        x = self.conv(x, p["Conv_0"])
        for level in range(len(self.c.multipliers)):
            for _ in range(self.c.blocks):
                x, k = self.block(x, p[f"ResBlock_{k}"]), k + 1
            if level < len(self.c.multipliers) - 1:
                x = (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
        for _ in range(self.c.blocks):
            x, k = self.block(x, p[f"ResBlock_{k}"]), k + 1
        x = self.norm(x, p["GroupNorm_0"])
        return self.conv(x * x.sigmoid(), p["Conv_1"])

    def decode(self, z):
        p, k = self.p["decoder"], 0
        x = self.conv(z, p["Conv_0"])
        for _ in range(self.c.blocks):
            x, k = self.block(x, p[f"ResBlock_{k}"]), k + 1
        levels = len(self.c.multipliers)
        for level in range(levels):
            for _ in range(self.c.blocks):
                x, k = self.block(x, p[f"ResBlock_{k}"]), k + 1
            if level < levels - 1:
                x = self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), p[f"Conv_{level + 1}"])
        x = self.norm(x, p["GroupNorm_0"])
        return self.conv(x * x.sigmoid(), p[f"Conv_{levels}"])


def test_the_public_tokenizer_computes_the_same_under_our_names():
    network = TOKENIZERS["published"]()
    c = network.config
    tree = flax_tokenizer_tree(c)
    flat = flat_tree(tree)
    assert len(flat) == 168
    converted = flax_tokenizer(tree, c)
    assert sum(a.size for a in converted.values()) == sum(a.size for a in flat.values())
    load_module_state(network, converted, "Vqgan")
    reference = _FlaxTokenizer(tree, c)
    rng = torch.Generator().manual_seed(0)
    x, z = torch.rand(2, 3, 32, 32, generator=rng), torch.randn(2, 6, 2, 2, generator=rng)
    with torch.no_grad():
        for ours, theirs in ((network.encoder(x), reference.encode(x)), (network.decoder(z), reference.decode(z))):
            assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))  # float32 through 12 blocks


@pytest.mark.fault(70)
@pytest.mark.fault(71)
@pytest.mark.fault(72)
def test_every_missing_extra_or_turned_array_of_the_public_tokenizer_is_refused():
    c = VqganConfig(**{**TINY_VQ, "multipliers": (1, 2), "blocks": 1})
    flat = flat_tree(flax_tokenizer_tree(c))
    _refuses(flax_tokenizer, flat, c, list(flat))


def as_public_torch(state, n_levels):
    """Our tokenizer under the names of the public PyTorch file: finest size first, other names for two modules."""
    out = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[:2] == ["decoder", "up"]:
            parts[2] = str(n_levels - 1 - int(parts[2]))
            if parts[3] == "upsample":
                parts[3:5] = ["upsample_conv"]
        if parts[0] == "quantizer":
            parts[0] = "quantize"
        out[".".join(parts)] = value.numpy()
    return out


def test_the_pytorch_file_of_the_tokenizer_goes_there_and_back():
    network, other = TOKENIZERS["published"](), seeded(lambda: Vqgan(**TINY_VQ), seed=9)
    public = as_public_torch(network.state_dict(), 5)
    assert len(public) == 168
    assert public["decoder.up.4.block.0.conv1.weight"].shape == (32, 32, 3, 3)  # the coarsest, last
    load_module_state(other, torch_tokenizer(public, other.config), "Vqgan")
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in network.state_dict().items())
    _refuses(torch_tokenizer, public, other.config, list(public)[::8])
