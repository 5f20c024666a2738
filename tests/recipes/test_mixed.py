"""Mixes of several papers' parts at tiny size, with the lab's real networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phosphene import flow, recipes
from phosphene.conformance import check_recipe
from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import flatten, read_yaml, resolve_layers
from phosphene.io.stages import StageStore
from phosphene.lab import zoo
from phosphene.recipes.brain_diffuser import BrainDiffuser, BrainDiffuserConfig
from phosphene.recipes.mixed import Mixed, MixedConfig
from phosphene.recipes.parts import Parts
from phosphene.types import Stimuli

NETWORKS = {"clip", "vq", "maskgit", "vdvae", "dual_guided", "kl", "stylegan2"}
pytestmark = pytest.mark.skipif(not set(zoo.names()) >= NETWORKS, reason="the zoo's weights are not bundled")
MIXES = sorted((Path(__file__).resolve().parents[2] / "configs" / "mixes").glob("*.yaml"))
TINY = {
    "roi_mae.brain_training.steps": 3,
    "contrast.brain_training.steps": 3,
    "contrast.brain.patch_size": 8,
    "masked.brain_training.steps": 3,
    "masked.brain.patch_size": 8,
    "training.train.steps": 5,
    "n_folds": 2,
    "maskgit.sampling": {"steps": 2, "samples": 3},
    "dual_guided.sampling.steps": 2,
    "latent_diffusion.tuning.steps": 3,
    "latent_diffusion.sampling": {"steps": 2, "samples": 2},
    "mapper_training.base.steps": 3,
    "mapper_training.finetune.steps": 3,
}


def config(**values):
    return resolve_layers(MixedConfig, [("lab", Mixed.preset("lab")), ("tiny", TINY), ("test", values)])[0]


@pytest.fixture(scope="module")
def study():
    from phosphene.conformance.small_study import tiny_study

    return tiny_study()


@pytest.fixture(scope="module")
def fit(study):
    kept = {}

    def fitted(**values):
        key = str(sorted(values.items()))
        if key not in kept:
            kept[key] = Mixed(config(**values)).fit(study.train, study.stimuli)
        return kept[key]

    return fitted


@pytest.mark.parametrize(
    ("brain", "generator"),
    [
        ("none", "maskgit"), ("roi_mae", "vdvae"), ("contrast", "maskgit"), ("masked", "stylegan2"), ("contrast", "vdvae"),
        ("roi_mae", "dual_guided"),
    ],
)  # fmt: skip
def test_any_brain_model_goes_into_any_generator_and_back(fit, study, brain, generator):
    mixed, stimuli = fit(brain=brain, generator=generator), study.stimuli.select(study.averaged.stimuli)
    decoded, encoded = mixed.decode(study.averaged), mixed.encode(stimuli)
    assert decoded.pixels.shape == (len(study.averaged), 32, 32, 3)
    assert decoded.pixels.std() > 0.02
    assert encoded.betas.shape == study.averaged.betas.shape
    assert encoded.betas.std(axis=0).max() > 0


@pytest.mark.parametrize("name", ["mapper_maskgit", "roi_mae_latent_diffusion"])
def test_a_mix_of_parts_of_two_papers_draws_what_the_responses_say(fit, study, name):
    mix = next(file for file in MIXES if file.stem == name)
    values = {key.removeprefix("recipe."): value for key, value in flatten(read_yaml(mix)).items()}
    mixed = fit(**values)
    decoded = mixed.decode(study.averaged).pixels
    assert decoded.shape == (len(study.averaged), 32, 32, 3)
    assert decoded.min() >= 0 and decoded.max() <= 1
    assert decoded.std() > 0.02

    # The noise of a picture is a function of its stimulus alone, so other pictures come from other responses.
    other = study.averaged.with_betas(study.averaged.betas[::-1].copy())
    assert not np.array_equal(mixed.decode(other).pixels, decoded)


def test_with_no_brain_model_and_ridge_it_is_brain_diffuser_bit_for_bit(fit, study):
    mixed = fit(generator="dual_guided")
    values = {"n_folds": 2, "sampling.steps": 2}
    theirs = resolve_layers(BrainDiffuserConfig, [("lab", BrainDiffuser.preset("lab")), ("test", values)])[0]
    theirs = BrainDiffuser(theirs).fit(study.train, study.stimuli)
    np.testing.assert_array_equal(mixed.decode(study.averaged).pixels, theirs.decode(study.averaged).pixels)
    for space, ours in mixed.latents(study.averaged).arrays.items():
        np.testing.assert_array_equal(ours, theirs.latents(study.averaged)[space])


def test_encoding_through_the_autoencoder_stays_in_what_it_can_make(fit, study):
    mixed, stimuli = fit(brain="roi_mae", generator="vdvae"), study.stimuli.select(study.averaged.stimuli)
    predicted = mixed.to_brain_.predict(mixed.generator.image_latents(stimuli))
    made = mixed.standardise_.inverse(mixed.brain_["brain"].from_latent(predicted))
    assert predicted.shape[1] == mixed.config.roi_mae.brain.latent
    np.testing.assert_array_equal(mixed.encode(stimuli).betas, made)


def test_features_of_training_trials_have_unit_variance(fit, study):
    mixed = fit(brain="contrast", generator="maskgit")
    features = mixed._features(mixed.averaged(study.train)).betas
    varies = features.std(axis=0) > 0
    np.testing.assert_allclose(features.std(axis=0)[varies], 1, atol=1e-3)  # float32


def test_a_gru_walks_over_the_tokens_of_a_patch_autoencoder(fit, study):
    mixed = fit(brain="masked", generator="vdvae", map="group_gru")
    network, brain = mixed.maps_["first"].inner.module, mixed.brain_["brain"].module
    assert network.sizes == (brain.config.width,) * brain.n_patches
    features = np.arange(network.n_voxels).reshape(brain.n_patches, -1)
    np.testing.assert_array_equal(network.voxels.reshape(features.shape), features)  # a token is a step, in their order


def test_the_closest_sample_is_kept_and_no_picture_that_was_seen_takes_part(fit, study):
    first = fit(generator="maskgit")
    close = fit(generator="maskgit", pick="closest")
    samples = close.decode_samples(study.averaged)
    decoded = close.latents(study.averaged)["clip_lab"]
    near = np.stack([(close.generator.embed(s.pixels) * decoded).sum(axis=1) for s in samples])
    assert (np.diff(near, axis=0) <= 1e-6).all()
    np.testing.assert_array_equal(samples[0].pixels, close.decode(study.averaged).pixels)
    drawn = np.sort(np.stack([s.pixels for s in first.decode_samples(study.averaged)]), axis=0)
    np.testing.assert_array_equal(np.sort(np.stack([s.pixels for s in samples]), axis=0), drawn)


def test_without_a_first_stage_diffusion_starts_from_noise_and_needs_no_vdvae(fit, study):
    mixed = fit(generator="dual_guided", start="noise")
    assert list(mixed.generator_) == ["generator"]
    assert list(mixed.latents(study.averaged).arrays) == ["clip_lab"]
    assert mixed.decode_steps(study.averaged) == {}
    assert mixed.decode(study.averaged).pixels.std() > 0.02


def test_another_generator_spares_the_brain_and_another_brain_the_generator(study, tmp_path):
    def stages(**values):
        store = StageStore(
            tmp_path / f"{len(list(tmp_path.iterdir()))}" / "stages", pool=tmp_path.parent / "pool-mixed"
        )
        Mixed(config(**values)).fit(study.train, study.stimuli, store)
        return set(store.reused)

    stages(brain="contrast", generator="maskgit")
    assert stages(brain="contrast", generator="vdvae") == {"standardise", "brain"}
    assert stages(brain="none", generator="maskgit") == {"standardise", "generator"}
    again = stages(brain="contrast", generator="maskgit", pick="closest")
    assert again == {stage.name for stage in Mixed.stages_of(config(brain="contrast"))}


def test_strict_saw_no_test_response_and_relax_says_that_the_brain_model_did(tmp_path):
    values = {"data.name": "insilico", "data.options": {"n_train": 40, "n_test": 8, "n_voxels": 60, "n_subjects": 2}}
    values |= {f"recipe.{k}": v for k, v in TINY.items()} | {"recipe.generator": "vdvae", "recipe.brain": "masked"}
    values["recipe.pretrain"] = ["sub-02"]
    for setting, seen in (("strict", set()), ("relax", {"brain"})):
        opened = flow.fit(
            flow.configure("mixed", [("test", {**values, "recipe.setting": setting})])[0], tmp_path / setting
        )
        mixed, test = opened.recipe(0), opened.sides(0)[1].member_keys()
        assert {name for name, keys in mixed.stage_lineages_.items() if keys & test} == seen
        assert len({key.split("/")[0] for key in mixed.stage_lineages_["brain"]}) == 2
        assert len({key.split("/")[0] for key in mixed.stage_lineages_["maps"]}) == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"brain": "roi_mae", "map": "group_gru"}, "one latent has none"),
        ({"generator": "vdvae", "pick": "closest"}, "samples"),
        ({"generator": "vdvae", "map": "mapper"}, "length one"),
        ({"restandardise": "test"}, "setting=relax"),
    ],
)
def test_what_does_not_fit_together_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        config(**values)


def test_pictures_without_captions_are_refused_where_the_generator_draws_from_them(study):
    bare = Stimuli(study.stimuli.ids, study.stimuli.images)
    with pytest.raises(DataError, match="caption"):
        Mixed(config(generator="stylegan2")).fit(study.train, bare)


@pytest.mark.parametrize(("generator", "words"), [("maskgit", "transformer"), ("vdvae", "VAE"), ("stylegan2", "file")])
def test_the_published_sizes_need_files_and_say_so(study, generator, words):
    values = {"generator": generator, "maskgit.clip.name": "lab", "stylegan2.clip.name": "lab"}
    paper = resolve_layers(MixedConfig, [("paper", Mixed.preset("paper")), ("test", values)])[0]
    with pytest.raises(ConfigError, match=words):
        Mixed(paper).fit(study.train, study.stimuli)


def test_parts_of_an_unknown_class_are_refused():
    with pytest.raises(ModelError, match="unknown"):
        Parts.from_state({}, {"parts": {"brain": {"kind": "Nonsense", "values": {}}}})
    with pytest.raises(ModelError, match="none of them"):
        Parts.from_state({"brain/x": np.zeros(1)}, {"parts": {}})


@pytest.mark.parametrize("file", MIXES, ids=[f.stem for f in MIXES])
def test_every_mix_of_the_bench_is_a_run_in_both_presets(file):
    for preset in ("lab", "paper"):
        made = flow.configure("mixed", [(file.name, read_yaml(file)), ("test", {"preset": preset, "data.name": "x"})])[
            0
        ]
        mixed = recipes.recipe("mixed")(made.recipe)
        assert ("lab" in mixed.generators()) == (preset == "lab")


@pytest.mark.parametrize(
    "file",
    [pytest.param(f, marks=() if f.stem == "ridge_stylegan2" else pytest.mark.slow, id=f.stem) for f in MIXES],
)
def test_every_mix_of_the_bench_keeps_the_promises_of_a_recipe(file, study):
    chosen = {k.removeprefix("recipe."): v for k, v in flatten(read_yaml(file)).items()}
    check_recipe("mixed", values={**TINY, **chosen, "n_folds": 2}, study=study)
