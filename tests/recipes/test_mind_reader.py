"""Mind Reader at tiny size, with the lab's real CLIP and, where the lab's generator is not bundled, an untrained one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phosphene import lab as insilico
from phosphene.errors import ConfigError, ModelError
from phosphene.features.captions import clamped
from phosphene.features.clip import ClipFeatures
from phosphene.io.config import read_yaml, validate
from phosphene.io.stages import StageStore
from phosphene.lab import zoo
from phosphene.metrics.identification import similarity, two_way
from phosphene.models import MapperPart
from phosphene.recipes.mind_reader import MindReader, MindReaderConfig
from phosphene.types import Stimuli, Trials

pytestmark = pytest.mark.skipif("clip" not in zoo.names(), reason="the zoo's weights are not bundled")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
IMAGE, TEXT = "clip_lab", "clip_lab_text"


class Untrained(MindReader):
    """With a generator of the lab's class and size that has learnt nothing."""

    def fit_generator(self):
        """A generator with random weights."""
        import torch

        from phosphene.models.stylegan2 import GeneratorNetwork, StyleGan2, StyleGan2Config

        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return StyleGan2.of(GeneratorNetwork(**StyleGan2Config.lab().model_dump()))


def config(**changes) -> MindReaderConfig:
    tiny = {"channels": 8, "blocks": 1, "mixtures": 32, "layers": 2, "linear": "ridge"}
    base = {"steps": 30, "batch_size": 32, "lr": 1e-3}
    training = {"base": base, "finetune": {**base, "steps": 10}, "check_every": 10}
    values = MindReader.preset("lab") | {
        "augment": {"copies": 2},
        "mapper": tiny,
        "training": training,
        "encoder": {"channels": 4, "blocks": 1, "linear": "ridge"},
        "encoder_training": {"train": {"steps": 20, "batch_size": 32, "lr": 1e-3}, "check_every": 10},
    }
    return validate(MindReaderConfig, values | changes, "test")


@pytest.fixture(scope="module")
def study():
    """Training trials, test trials with repeats averaged, and stimuli of a small subject."""
    made = insilico.make(n_train=160, n_test=30, n_voxels=120, train_repeats=2, seed=5)
    stimuli = Stimuli(made.ids, made.images, made.captions, category=made.category)
    trials = Trials(made.betas, made.trials, made.voxels, subject="sub-01")
    return trials.select(stimuli=made.split.train), trials.select(stimuli=made.split.test).average_repeats(), stimuli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mind_reader")


@pytest.fixture(scope="module")
def fitted(study, folder):
    train, _, stimuli = study
    return Untrained(config(), seed=0).fit(train, stimuli, StageStore(folder / "stages"))


def refitted(study, folder, **changes) -> tuple[Untrained, set[str]]:
    """With another configuration, and which stages were fitted anew; the stages of `fitted` are left as they are."""
    store = StageStore(folder / "stages")
    before = {p.name: (p / "stage.json").read_bytes() for p in (folder / "stages").iterdir()}
    recipe = Untrained(config(**changes), seed=0)
    recipe.fit(study[0], study[2], store)
    return recipe, set(before) - set(store.reused)


def test_both_embeddings_are_decoded_above_chance_and_have_length_one(fitted, study):
    _, test, stimuli = study
    found, true = fitted.latents(test), fitted.true_latents(stimuli.select(test.stimuli))
    assert set(found.arrays) == set(true.arrays) == {IMAGE, TEXT} == fitted.fixed_spaces
    for space in (IMAGE, TEXT):
        np.testing.assert_allclose(np.linalg.norm(found[space], axis=1), 1, atol=1e-5)  # float32
        # 30 items: the null has a standard deviation near 0.05.
        assert two_way(similarity(found[space], true[space])).mean() > 0.7


def test_each_mapper_is_nearest_to_its_own_kind_of_embedding(fitted, study):
    _, test, stimuli = study
    found, true = fitted.latents(test), fitted.true_latents(stimuli.select(test.stimuli))
    # Pictures and texts lie apart in CLIP's space, and each mapper answers on its own side.
    for own, other in ((IMAGE, TEXT), (TEXT, IMAGE)):
        assert np.vecdot(found[own], true[own]).mean() > np.vecdot(found[own], true[other]).mean()


def test_true_latents_are_clip_s_clamped_and_texts_lie_in_both_spaces(fitted, study):
    _, test, stimuli = study
    shown = stimuli.select(test.stimuli[:3])
    clip = ClipFeatures("lab", normalise="none")
    np.testing.assert_allclose(fitted.true_latents(shown)[IMAGE], clamped(clip.images(shown.pixels()), 6.0), atol=1e-5)
    texts = fitted.text_latents(["a house", "a face"])
    expected = clamped(clip.texts(["a house", "a face"]), 6.0)
    for space in (IMAGE, TEXT):
        np.testing.assert_allclose(texts[space], expected, atol=1e-5)


def test_pictures_have_their_size_and_range_and_samples_differ(fitted, study):
    _, test, stimuli = study
    few = test.take(np.arange(4))
    pictures = fitted.decode(few)
    assert pictures.pixels.shape == (4, *fitted.image_shape_) == (4, 32, 32, 3)
    assert list(pictures.ids) == list(few.stimuli)
    assert pictures.pixels.min() >= 0
    assert pictures.pixels.max() <= 1
    several = Untrained(config(sampling={"samples": 2}), seed=0)
    several.__dict__.update({k: v for k, v in vars(fitted).items() if k.endswith("_")})
    first, second = several.decode_samples(few)
    np.testing.assert_allclose(first.pixels, pictures.pixels, atol=1e-5)  # float32, other batches
    assert np.abs(first.pixels - second.pixels).max() > 1e-3
    assert fitted.ceiling(stimuli.select(few.stimuli)).pixels.shape == pictures.pixels.shape


def test_a_picture_does_not_depend_on_its_company(fitted, study):
    test = study[1]
    alone = fitted.decode(test.take(np.array([3])))
    np.testing.assert_allclose(alone.pixels[0], fitted.decode(test.take(np.arange(5))).pixels[3], atol=1e-4)


@pytest.mark.skipif("stylegan2" not in zoo.names(), reason="the lab's StyleGAN2 is not bundled yet")
def test_the_lab_s_generator_draws_what_clip_recognises(fitted, study):
    _, test, stimuli = study
    real = MindReader(config(), seed=0)
    real.__dict__.update({k: v for k, v in vars(fitted).items() if k != "config"})
    real.generator_ = real.fit_generator()
    clip = ClipFeatures("lab")
    shown = stimuli.select(test.stimuli)
    seen = clip.images(real.ceiling(shown).clipped())
    assert two_way(similarity(seen, clip.images(shown.pixels()))).mean() > 0.7


def test_encoded_responses_are_in_the_units_of_the_betas_and_follow_the_picture(fitted, study):
    train, test, stimuli = study
    encoded = fitted.encode(stimuli.select(test.stimuli))
    assert encoded.betas.shape == test.betas.shape
    assert (np.abs(encoded.betas.mean(0) - train.betas.mean(0)) < train.betas.std(0)).mean() > 0.9
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(encoded.betas.T, test.betas.T, strict=True)]
    assert np.mean(r) > 0.05  # 30 pictures, 120 voxels of which many are mostly noise; shuffled pictures give 0
    cycle = fitted.latents(encoded)[IMAGE]
    assert two_way(similarity(cycle, fitted.true_latents(stimuli.select(test.stimuli))[IMAGE])).mean() > 0.6


def test_it_saw_the_training_trials_and_no_other(fitted, study):
    assert fitted.lineage_ == study[0].member_keys()
    assert not fitted.lineage_ & study[1].member_keys()


def test_all_stages_judge_by_the_same_held_out_stimuli(fitted, study):
    train, _, stimuli = study
    own = stimuli.select(train.stimulus_ids)
    _, items, held_out = fitted._rows(train, own)
    assert len(np.unique(items[held_out])) == 16
    assert not set(items[held_out]) & set(np.delete(items, held_out))
    np.testing.assert_array_equal(fitted._rows(train, own)[2], held_out)


def test_a_saved_recipe_decodes_and_encodes_the_same(fitted, study, tmp_path):
    _, test, stimuli = study
    fitted.save(tmp_path)
    back = Untrained.load(tmp_path)
    for space in (IMAGE, TEXT):
        np.testing.assert_array_equal(back.latents(test)[space], fitted.latents(test)[space])
    few = test.take(np.arange(2))
    np.testing.assert_array_equal(back.decode(few).pixels, fitted.decode(few).pixels)
    some = stimuli.select(test.stimuli[:2])
    np.testing.assert_array_equal(back.encode(some).betas, fitted.encode(some).betas)
    assert repr(back.screen_) == repr(fitted.screen_)


def test_two_mappers_are_weighted_and_a_change_of_captions_spares_the_pictures(fitted, study, folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "run")
    short = config().model_dump(mode="json")["training"] | {"stages": "base"}
    short["base"]["steps"] = 20
    recipe, anew = refitted(study, tmp_path / "run", screening=0.0, captions="average")
    assert anew == {"screen", "text_mapper"}
    assert recipe.screen_.kept.all()
    recipe, anew = refitted(study, tmp_path / "run", augment=None, clamp=None, ensemble=2, training=short)
    assert anew == {"screen", "image_mapper", "text_mapper", "encoder"}
    assert isinstance(recipe.image_mapper_, MapperPart)
    for part in (recipe.image_mapper_, recipe.text_mapper_):
        assert len(part.weights_) == len(part.module) == 2
        assert part.weights_.sum() == pytest.approx(1)
        assert [set(c) for c in part.chosen_] == [{"base"}, {"base"}]
    a, b = (m.encoder[0][0].weight for m in recipe.image_mapper_.module)
    assert not np.array_equal(a.detach().numpy(), b.detach().numpy())


def test_stimuli_without_captions_are_decoded_but_have_no_true_text(fitted, study):
    _, test, stimuli = study
    shown = stimuli.select(test.stimuli)
    silent = Stimuli(shown.ids, shown.pixels())
    assert set(fitted.true_latents(silent).arrays) == {IMAGE}
    assert fitted.ceiling(silent) is None
    assert set(fitted.latents(test).arrays) == {IMAGE, TEXT}


def test_impossible_configurations_and_missing_weights_are_named(fitted, study):
    with pytest.raises(ConfigError, match=r"training\.validation above 0"):
        config(ensemble=2, training={"validation": 0})
    with pytest.raises(ConfigError, match=r"recipe\.generator\.file=FILE"):
        MindReader(config(generator={"source": "public"})).fit_generator()
    with pytest.raises(ModelError, match="120"):
        fitted.latents(study[1].take_voxels(np.arange(120) < 60))


@pytest.mark.parametrize("preset", ["lab", "paper"])
def test_presets_are_valid_and_paper_is_the_published_one(preset):
    values = validate(MindReaderConfig, MindReader.preset(preset), "preset")
    if preset == "paper":
        assert (values.mapper.channels, values.mapper.mixtures, values.training.tau) == (64, 128, 0.5)
        assert (values.training.base.batch_size, values.training.finetune.batch_size) == (32, 128)
        assert (values.screening, values.clamp, values.clip.name) == (0.5, 1.5, "openai/clip-vit-base-patch32")


def test_every_point_of_the_ablation_is_a_valid_configuration():
    grid = [a for f in ("ablation", "ensemble") for a in read_yaml(CONFIGS / f"mind_reader_{f}.yaml")["grid"]]
    asked = set()
    for axis in grid:
        for values in zip(*axis.values(), strict=True):
            changed = MindReader.preset("lab")
            for key, value in zip(axis, values, strict=True):
                *path, last = key.removeprefix("recipe.").split(".")
                place = changed
                for name in path:
                    place[name] = dict(place.get(name, {}))
                    place = place[name]
                place[last] = value
                asked.add(key)
            validate(MindReaderConfig, changed, "point")
    assert {f"recipe.{k}" for k in ("screening", "clamp", "augment", "training.stages", "ensemble")} <= asked
