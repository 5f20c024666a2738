"""Noise on the first stage tells a second stage that copies from one that does not look, and both from the real ones."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from scipy.stats import norm

from phosphene import flow, recipes
from phosphene.align.ridge import Ridge
from phosphene.analysis.noise import LATENT, NONE, PURE, Noise, NoiseOptions
from phosphene.errors import ConfigError
from phosphene.flow import analyse
from phosphene.lab import zoo
from phosphene.models import vdvae as vdvae_weights
from phosphene.models.dual_guided import DualGuided, DualUnet
from phosphene.models.vdvae import Vdvae, VdvaeConfig
from phosphene.recipes.base import Recipe, RecipeConfig, Stage
from phosphene.recipes.brain_diffuser import BrainDiffuser, BrainDiffuserConfig
from phosphene.types import Images
from tests.analysis.conftest import fitted
from tests.flow.conftest import write_pair_file


class EchoConfig(RecipeConfig):
    kind: Literal["echo"] = "echo"
    copies: float = 1.0


class Echo(Recipe[EchoConfig]):
    """Echo: ridge to pixels, then a second stage that copies a known share of what it is given. Paper: none."""

    config_class = EchoConfig
    stages = (Stage("pictures", Ridge),)

    def fit_pictures(self, trials, stimuli):
        return Ridge(100.0).fit(trials.betas, stimuli.select(trials.stimuli).floats().reshape(len(trials), -1))

    def first_pictures(self, trials):
        flat = self.pictures_.predict(trials.betas).clip(0, 1)
        return np.repeat(flat.reshape(len(trials), *self.image_shape_), 3, axis=-1)

    def refine(self, first_pictures, trials):
        first = np.full((len(trials), 12, 12, 3), 0.5) if first_pictures is None else first_pictures
        mixed = self.config.copies * first + (1 - self.config.copies) * self.first_pictures(trials)
        return Images(trials.stimuli, mixed.mean(axis=-1, keepdims=True).astype(np.float32))

    def decode(self, trials):
        return self.refine(self.first_pictures(trials), trials)


class TinyConfig(BrainDiffuserConfig):
    kind: Literal["tiny_two_stage"] = "tiny_two_stage"


SIZES = VdvaeConfig(
    image_size=16, latent_channels=3, width=16, middle=4, mixtures=2, given=2, encoder="16x1,16d4,4x1,4d4,1x1",
    decoder="1x1,4m1,16m4",
)  # fmt: skip


class Tiny(BrainDiffuser):
    """Tiny: Brain-Diffuser with untrained networks of few weights. Paper: none."""

    config_class = TinyConfig
    vdvae: ClassVar[str] = ""

    def fit_generator(self):
        from diffusers import AutoencoderKL

        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet = DualUnet(
                size=16, channels=4, widths=(8, 8), attention=(False, True), blocks=1, heads=2, groups=4, context=64,
                vision_tokens=17, text_tokens=40,
            )  # fmt: skip
            autoencoder = AutoencoderKL(
                down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
                block_out_channels=[8, 8], norm_num_groups=4, latent_channels=4, sample_size=32,
            )  # fmt: skip
        return DualGuided.of(unet, autoencoder)


@pytest.fixture(scope="module", autouse=True)
def known():
    toys = {"echo": f"{__name__}:Echo", "tiny_two_stage": f"{__name__}:Tiny"}
    recipes.RECIPES.update(toys)
    yield
    for name in toys:
        del recipes.RECIPES[name]


def echo(tmp_path_factory, copies):
    folder = tmp_path_factory.mktemp("echo")
    file = write_pair_file(folder / "pairs.npz", n_train=60, n_test=40, size=12)
    opened = fitted("echo", folder / "run", {"data.name": str(file), "recipe.copies": copies})
    return opened, analyse(opened, "noise").summary


@pytest.fixture(scope="module")
def copying(tmp_path_factory):
    return echo(tmp_path_factory, 1.0)


@pytest.fixture(scope="module")
def ignoring(tmp_path_factory):
    return echo(tmp_path_factory, 0.0)


def table(opened, name="table", key=("input", "measure"), value="value"):
    return opened.folder.table("analysis", "noise", f"{name}.csv").set_index(list(key))[value]


def shares(opened):
    return table(opened, "shares", ("without", "measure"), "share")


def test_a_second_stage_that_ignores_the_first_loses_nothing_to_any_noise(ignoring):
    opened, summary = ignoring
    differences = table(opened, "differences", value="difference")
    assert len(differences) == 7 * 4  # five amplitudes, pure and latent; PixCorr, two SSIMs, two-way by pixels
    assert (differences == 0).all()
    assert (shares(opened).dropna() == 0).all()
    assert "nothing measurable of" in summary.splitlines()[0]
    assert "No amplitude of additive noise makes a score worse" in summary


def test_a_second_stage_that_copies_owes_everything_to_the_first(copying):
    opened, summary = copying
    found, share = table(opened), shares(opened)
    assert found[NONE, "two_way.pixels"] > 0.9
    assert share[LATENT, "two_way.pixels"] == pytest.approx(1, abs=1e-9)  # a constant picture: ties, exactly chance
    assert found[LATENT, "pixcorr"] == 0
    # 40 uniform ranks under chance have a standard error of 0.29 / sqrt(40) = 0.046; four of these.
    assert found[PURE, "two_way.pixels"] == pytest.approx(0.5, abs=0.19)
    assert summary.startswith("Of what is above chance, the first stage carries over half of")
    assert "makes a score worse: PixCorr from" in summary
    r = [found[arm, "pixcorr"] for arm in (NONE, "noise_8", "noise_16", "noise_32", "noise_64", "noise_256", PURE)]
    assert r == sorted(r, reverse=True)


def test_what_is_given_is_scored_as_what_is_copied(copying):
    found, given = table(copying[0]), table(copying[0], "second_stage_input")
    assert (LATENT, "pixcorr") not in given.index  # nothing is given
    for key, value in given.items():
        assert found[key] == pytest.approx(value, abs=5e-3)  # a mean of three channels, rounded to 8 bits once more


def test_halfway_between_the_two_half_the_distance_is_measured(tmp_path_factory, copying):
    half, _ = echo(tmp_path_factory, 0.5)
    for measure in ("pixcorr", "two_way.pixels"):
        assert 0 <= shares(half)[PURE, measure] < shares(copying[0])[PURE, measure]


# -- the noise ---------------------------------------------------------------------------------------------------------


def test_noise_is_of_the_picture_and_rises_with_the_amplitude_only():
    first = np.full((3, 24, 24, 3), 127, dtype=np.uint8)
    options = NoiseOptions(amplitudes=(2, 4))
    arms = Noise(options, seed=1).arms(first, ["a", "b", "c"])
    assert list(arms) == [NONE, "noise_2", "noise_4", PURE, LATENT]
    assert arms[LATENT] is None
    np.testing.assert_array_equal(arms[NONE], first)
    two, four = (arms[k].astype(float) - 127 for k in ("noise_2", "noise_4"))
    assert np.abs(four - 2 * two).max() <= 1.5  # twice the same noise, each rounded
    alone = Noise(options, seed=1).arms(first[:1], ["b"])
    np.testing.assert_array_equal(alone["noise_4"][0], arms["noise_4"][1])
    assert (Noise(options, seed=2).arms(first, ["a", "b", "c"])["noise_4"] != arms["noise_4"]).mean() > 0.5


def test_noise_is_clipped_as_a_normal_variable_is_and_never_wraps():
    first = np.full((4, 64, 64, 3), 127, dtype=np.uint8)
    arms = Noise(NoiseOptions(amplitudes=(64,)), seed=0).arms(first, list("abcd"))
    n = first.size
    # Share outside 0-255 of 127.5 + 256 z, rounded: binomial, five standard errors.
    expected = 2 * norm.cdf(-127.0 / 256)
    outside = np.isin(arms[PURE], (0, 255)).mean()
    assert outside == pytest.approx(expected, abs=5 * np.sqrt(0.25 / n))
    assert arms["noise_64"].mean() == pytest.approx(127, abs=5 * 64 / np.sqrt(n))
    # Pure noise knows nothing of the picture.
    other = Noise(NoiseOptions(amplitudes=(64,)), seed=0).arms(255 - first, list("abcd"))
    np.testing.assert_array_equal(other[PURE], arms[PURE])


def test_amplitudes_must_rise():
    with pytest.raises(ValueError, match="should rise"):
        NoiseOptions(amplitudes=(16, 8))


def test_a_recipe_of_one_stage_is_refused_with_the_reason(linear):
    with pytest.raises(ConfigError, match="but 'linear' cannot refine"):
        analyse(linear, "noise")
    assert not (linear.folder.path / "analysis" / "noise").exists()


def test_it_is_filed_with_figures_and_is_the_same_for_the_same_seed(copying):
    opened, _ = copying
    folder = opened.folder.path / "analysis" / "noise"
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {"pictures.png", "amplitude.svg", "differences.csv", "shares.csv", "second_stage_input.csv"} <= set(first)
    analyse(opened, "noise")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first
    assert json.loads(first["analysis.json"])["inputs"]["noise_256"] == "noise 256"


# -- the real second stage ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Brain-Diffuser on the lab's smallest subject, with untrained networks."""
    if "clip" not in zoo.names():
        pytest.skip("the lab's CLIP is not bundled here")
    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(Vdvae(**SIZES.model_dump(mode="json")).state_dict(), folder / "vdvae.th")
    values = {
        "data.name": "insilico", "data.options": {"n_train": 60, "n_test": 6, "n_voxels": 60},
        "recipe.first.network": str(vdvae_weights.convert(folder / "vdvae.th", folder / "vdvae", SIZES)),
        "recipe.tokens.name": "lab", "recipe.generator.source": "zoo", "recipe.sampling.steps": 3,
        "recipe.restandardise": "none",
    }  # fmt: skip
    return fitted("tiny_two_stage", folder / "run", values)


def test_decoding_is_refining_the_first_pictures(tiny):
    recipe, test = tiny.recipe(0), tiny.sides(0)[1].average_repeats()
    first = recipe.first_pictures(test)
    np.testing.assert_array_equal(recipe.refine(first, test).pixels, recipe.decode(test).pixels)
    np.testing.assert_array_equal(recipe.first_stage(test).pixels, first)
    other = recipe.refine(1 - first, test).pixels
    # Far above rounding; how much a network with random weights passes on is a matter of chance.
    assert np.abs(other - recipe.decode(test).pixels).max() > 1e-4
    # Without a first picture nothing of it is left, and each picture's noise is its own.
    drawn = recipe.refine(None, test).pixels
    np.testing.assert_allclose(recipe.refine(None, test.take(np.array([2]))).pixels[0], drawn[2], atol=1e-4)


def test_the_analysis_runs_on_a_two_stage_recipe_of_the_lab(tiny):
    answer = analyse(tiny, "noise", {"amplitudes": [8, 256], "n": 5})
    assert "5 test pictures of 1 fold" in answer.summary
    found = tiny.folder.table("analysis", "noise", "table.csv")
    assert set(found["input"]) == {NONE, "noise_8", "noise_256", PURE, LATENT}
    assert len(set(found["measure"])) == 8  # as many as are published, under their own names
    assert not any("alexnet" in m or m.endswith(".clip") for m in found["measure"])


@pytest.mark.skipif(not {"vdvae", "dual_guided", "kl", "clip"} <= set(zoo.names()), reason="not bundled here")
@pytest.mark.slow
def test_pure_noise_takes_pixel_correlation_from_the_labs_two_stage_decoder(tmp_path):
    data = {"data.name": "insilico", "data.options": {"n_train": 200, "n_test": 24, "n_voxels": 200}}
    values = {**data, "recipe.sampling.steps": 8}
    config, _ = flow.configure("brain_diffuser", [("test", values)])
    opened = flow.fit(config, tmp_path / "run")
    analyse(opened, "noise", {"amplitudes": [16]})
    given = table(opened, "second_stage_input")
    assert given[NONE, "pixcorr"] > 0.2 > given[PURE, "pixcorr"]
