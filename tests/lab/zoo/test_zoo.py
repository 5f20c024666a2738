"""The bundled networks: what loads, what is refused, and that they do what their cards say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from phosphene.errors import ConfigError, DataError, ModelError, NotAvailable
from phosphene.lab import scenes as painter
from phosphene.lab import zoo
from phosphene.lab.zoo import networks
from phosphene.lab.zoo.material import HELD_OUT
from phosphene.lab.zoo.objectives import VqObjective, kmeans

BUNDLED = zoo.names()
SEEN = np.arange(300)


@pytest.fixture(scope="module")
def pictures():
    """300 scenes that no network was trained on, and what they show."""
    return painter.render_many(HELD_OUT, SEEN), painter.describe_many(HELD_OUT, SEEN)


def needs(name):
    return pytest.mark.skipif(name not in BUNDLED, reason=f"the weights of '{name}' are not bundled")


# -- what is bundled ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_network_loads_frozen_and_as_the_class_its_card_names(name):
    network = zoo.load(name)
    about = zoo.record(name)
    assert about["class"].endswith(f":{type(network).__name__}")
    assert not network.training
    assert not any(w.requires_grad for w in network.parameters())
    assert sum(w.numel() for w in network.parameters()) == about["weights"]


@pytest.mark.parametrize("name", BUNDLED)
def test_a_card_names_its_data_steps_seed_scores_and_hash(name):
    about, card = zoo.record(name), zoo.card(name)
    for expected in (
        about["sha256"],
        f"{about['training']['steps']:,}",
        "seed",
        "scenes",
        "Learned from",
        *about["scores"],
    ):
        assert expected in card
    assert zoo.fingerprint(name) == about["sha256"]


def test_all_weights_together_stay_under_twenty_megabytes():
    assert sum(f.stat().st_size for f in zoo.WEIGHTS.glob("*.safetensors")) < 20e6


@pytest.mark.parametrize("name", BUNDLED)
def test_what_is_bundled_can_be_made_again(name):
    assert name in networks.NETWORKS
    entry = networks.NETWORKS[name]
    assert networks.find(entry.objective).config.steps > 0 and callable(networks.find(entry.score))


def test_an_unknown_network_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'clip'"):
        zoo.load("clipp")


def test_a_network_without_weights_says_how_to_train_it(tmp_path):
    with pytest.raises(NotAvailable, match=r"python -m phosphene\.lab\.zoo\.train vq"):
        zoo.load("vq", folder=tmp_path)


@pytest.mark.fault(67)
@needs("classifier")
def test_damaged_weights_are_refused(tmp_path):
    for suffix in ("json", "safetensors"):
        shutil.copy(zoo.WEIGHTS / f"classifier.{suffix}", tmp_path)
    file = tmp_path / "classifier.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="not the file its card describes"):
        zoo.load("classifier", folder=tmp_path)


def test_importing_the_zoo_loads_no_torch():
    code = "import sys; from phosphene.lab import zoo; zoo.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- pictures in and out -----------------------------------------------------------------------------------------------


def test_pictures_survive_the_way_in_and_out():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    x = zoo.to_network(pixels)
    assert x.shape == (2, 3, 5, 7)
    assert x.min() >= -1
    assert x.max() <= 1
    assert np.array_equal((zoo.from_network(x) * 255).round().astype(np.uint8), pixels)
    assert torch.equal(x, zoo.to_network(pixels.astype(np.float32) / np.float32(255)))


@pytest.mark.parametrize("bad", [np.zeros((2, 3, 8, 8)), np.full((1, 8, 8, 3), 128.0), np.full((1, 8, 8, 3), np.nan)])
def test_pictures_of_another_shape_or_range_are_refused(bad):
    with pytest.raises(DataError):
        zoo.to_network(bad)


# -- they do what they are for -----------------------------------------------------------------------------------------


@needs("clip")
def test_clip_names_the_main_category_of_scenes_it_never_saw(pictures):
    from phosphene.lab.zoo.scores import embed_images, embed_texts

    pixels, described = pictures
    clip, tokens, prompts = zoo.load("clip"), zoo.tokenizer(), zoo.record("clip")["prompts"]["category"]
    texts = np.stack([embed_texts(clip, tokens, t).mean(0) for t in prompts.values()])
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    named = np.array(list(prompts))[(embed_images(clip, pixels) @ texts.T).argmax(1)]
    hits = np.mean(named == [s.main for s in described])
    expected = zoo.record("clip")["scores"]["zero-shot category"]
    # 300 pictures give the card's share of hits within four standard errors.
    assert abs(hits - expected) < 4 * np.sqrt(expected * (1 - expected) / 300)
    assert hits > 5 / len(prompts)


@needs("clip")
def test_no_text_is_unknown_to_the_tokenizer_and_long_texts_are_cut():
    tokens = zoo.tokenizer()
    printable = "".join(chr(c) for c in range(33, 127)) + " Zebra-42! naive"
    ids = tokens(printable)["input_ids"]
    inside = ids[1:-1]
    assert tokens.decode(inside).replace(" ", "").startswith(printable[:20].lower())
    assert tokens.eos_token_id not in inside  # what CLIP's class uses for the unknown
    cut = tokens(["house " * 100], truncation=True)["input_ids"][0]
    assert len(cut) == zoo.record("clip")["config"]["text_config"]["max_position_embeddings"]
    assert cut[-1] == tokens.eos_token_id


@needs("vq")
def test_vq_codes_alone_give_the_picture_back(pictures):
    pixels, _ = pictures
    vq = zoo.load("vq")
    with torch.no_grad():
        codes = vq.quantize(vq.encode(zoo.to_network(pixels[:100])).latents)[2][2].view(100, 8, 8)
        back = vq.decode(vq.quantize.get_codebook_entry(codes, (100, 8, 8, 4)), force_not_quantize=True).sample
    error = ((zoo.from_network(back) - pixels[:100] / 255.0) ** 2).mean((1, 2, 3))
    expected = zoo.record("vq")["scores"]["psnr"]
    assert abs((-10 * np.log10(error)).mean() - expected) < 0.7  # pictures differ by 2-3 dB, so a mean of 100 by 0.3
    assert codes.unique().numel() > 150  # of 256


@needs("kl")
def test_kl_latents_times_their_factor_have_unit_spread(pictures):
    pixels, _ = pictures
    kl = zoo.load("kl")
    with torch.no_grad():
        z = kl.encode(zoo.to_network(pixels)).latent_dist.mean
    assert abs(float((z * kl.config.scaling_factor).std()) - 1) < 0.1


@needs("classifier")
def test_classifier_probabilities_add_up_and_name_the_category(pictures):
    pixels, described = pictures
    network = zoo.load("classifier")
    p = network.probabilities(zoo.to_network(pixels)).numpy()
    assert np.allclose(p.sum(1), 1, atol=1e-5)  # a float32 softmax of 16
    hits = np.mean(np.array(network.categories)[p.argmax(1)] == [s.main for s in described])
    expected = zoo.record("classifier")["scores"]["category accuracy"]
    assert abs(hits - expected) < 4 * np.sqrt(expected * (1 - expected) / 300) + 0.01


@needs("mae")
def test_mae_fills_hidden_patches_better_than_their_mean_colour():
    scores = zoo.record("mae")["scores"]
    assert scores["psnr of hidden patches"] > scores["psnr of filling in the mean colour"] + 1


# -- how they are made -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n if n == "classifier" else pytest.param(n, marks=pytest.mark.slow) for n in networks.NETWORKS]
)
def test_every_network_trains_and_writes_a_card(name, tmp_path):
    from phosphene.lab.zoo.train import main

    options = ["--steps", "2", "--scenes", "192", "--held-out", "120", "--threads", str(torch.get_num_threads())]
    main([name, "--out", str(tmp_path), "--cache", str(tmp_path / "cache"), "--device", "cpu", *options])
    about = json.loads((tmp_path / f"{name}.json").read_text())
    assert about["training"]["steps"] == 2
    assert about["bytes"] < 3.5e6
    assert re.search(r"\| (chance|psnr|nats)", (tmp_path / f"{name}.md").read_text())
    assert type(zoo.load(name, folder=tmp_path)).__name__ == about["class"].partition(":")[2]


def test_a_fresh_masked_autoencoder_knows_where_its_patches_are():
    """With codes of zero it cannot do better than one colour for all hidden patches."""
    network = networks.build("mae")
    for codes in (network.vit.embeddings.position_embeddings, network.decoder.decoder_pos_embed):
        patches = codes[0, 1:]
        assert torch.cdist(patches, patches).fill_diagonal_(1).min() > 0.1
        assert (codes[0, 0] == 0).all()  # the class token stands nowhere


def test_kmeans_finds_clusters_that_are_there():
    rng = torch.Generator().manual_seed(0)
    truth = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    rows = (truth[:, None] + 0.1 * torch.randn(4, 50, 2, generator=rng)).reshape(-1, 2)
    found = kmeans(rows, 4, rng)
    assert torch.cdist(truth, found).amin(1).max() < 0.1  # the mean of 50 points with spread 0.1


def test_dead_codes_are_brought_back_to_life():
    objective = VqObjective(networks.build("vq"))
    draws_seed = 0
    from phosphene.training import Draws

    codes = objective.network.quantize.embedding.weight
    z = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        codes[:] = 100.0  # far from every latent
    objective.usage[:200] = 0.0
    objective.usage[200:] = 1 / 56
    objective._mend(z, Draws(draws_seed, 0, 4), calls=objective.free_steps + objective.restart_every * 2 - 10)
    rows = z.permute(0, 2, 3, 1).reshape(-1, 4)
    assert (codes[:200, None] == rows).all(-1).any(1).all()
    assert (codes[200:] == 100).all()


def test_one_byte_a_weight_keeps_every_row_within_half_a_step_of_its_largest():
    import torch

    from phosphene.lab.zoo.packing import packed, unpacked

    rng = np.random.default_rng(0)
    filters = (
        rng.standard_normal((6, 3, 2, 2)).astype(np.float32)
        * np.logspace(-6, 3, 6, dtype=np.float32)[:, None, None, None]
    )
    bias, count = rng.standard_normal(5).astype(np.float32), np.array(7)
    given = {
        "w": torch.from_numpy(filters),
        "empty": torch.zeros(2, 3),
        "b": torch.from_numpy(bias),
        "n": torch.tensor(7),
    }
    kept = packed(given, "int8")
    assert kept["w"].dtype == torch.int8
    back = unpacked({k: v.numpy() for k, v in kept.items()})
    assert set(back) == set(given)
    step = np.abs(filters).max((1, 2, 3), keepdims=True) / 127
    # Half a step, and what float16 rounds off the scale (2^-11, or 6e-8 where it is smallest).
    assert (np.abs(back["w"] - filters) <= 0.51 * step + 127 * 6e-8).all()
    np.testing.assert_array_equal(back["empty"], np.zeros((2, 3)))
    np.testing.assert_allclose(back["b"], bias, rtol=2**-10)
    assert back["n"] == count


@pytest.mark.parametrize("name", ["clip", "vdvae"])
def test_loading_leaves_the_global_random_state_as_it_was(name):
    before = torch.random.get_rng_state()
    zoo.load(name)
    assert torch.equal(torch.random.get_rng_state(), before)
