"""Brain-Diffuser and the two-stage GRU decoder end to end at tiny size, with the lab's real networks."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from phosphene import flow, recipes
from phosphene.errors import ConfigError
from phosphene.io.stages import StageStore
from phosphene.lab import zoo
from phosphene.validity.behaviour import subset_invariance
from phosphene.validity.check import Evidence, Redecoding

pytestmark = pytest.mark.skipif(
    not {"clip", "kl", "vdvae", "dual_guided"} <= set(zoo.names()), reason="the zoo's weights are not bundled"
)
LAB = {
    "data.name": "insilico",
    "data.options": {"n_train": 100, "n_test": 12, "n_voxels": 120},
    "recipe.sampling.steps": 6,
}
QUICK = {"recipe.training.train.steps": 40}


def fitted(kind, folder, **values):
    return flow.fit(flow.configure(kind, [("test", {**LAB, **values})])[0], folder)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return fitted("brain_diffuser", tmp_path_factory.mktemp("two_stage") / "run")


@pytest.fixture(scope="module")
def test_trials(opened):
    return opened.sides(0)[1].average_repeats()


def test_the_first_stage_is_scored_beside_the_refined_one(opened, test_trials):
    recipe = opened.recipe(0)
    steps = recipe.decode_steps(test_trials)
    assert list(steps) == ["first_stage"]
    assert steps["first_stage"].pixels.shape == (len(test_trials), 32, 32, 3)
    assert np.abs(steps["first_stage"].pixels - recipe.decode(test_trials).pixels).mean() > 0.01


def test_a_picture_does_not_depend_on_its_company_or_place(opened, test_trials):
    recipe = opened.recipe(0)
    together = recipe.decode(test_trials).pixels
    backwards = recipe.decode(test_trials.take(np.arange(len(test_trials))[::-1])).pixels[::-1]
    alone = recipe.decode(test_trials.take(np.array([3]))).pixels[0]
    np.testing.assert_allclose(alone, together[3], atol=1e-4)  # float32 sums in another order, over the steps
    np.testing.assert_allclose(backwards, together, atol=1e-4)


def test_strength_zero_leaves_the_first_stage_to_the_autoencoder(opened, test_trials):
    recipe = opened.recipe(0)
    kept = type(recipe)(
        recipe.config.model_copy(
            update={"sampling": recipe.config.sampling.model_copy(update={"strength": 0.0, "posterior": "mean"})}
        ),
        seed=recipe.seed,
    )
    kept.__dict__.update({k: v for k, v in recipe.__dict__.items() if k not in ("config", "seed")})
    first = recipe.first_stage(test_trials).pixels
    through = kept.decode(test_trials).pixels
    assert np.corrcoef(first.ravel(), through.ravel())[0, 1] > 0.9


def test_latents_are_those_of_the_first_groups_and_of_clip(opened, test_trials):
    recipe = opened.recipe(0)
    stimuli = opened.stimuli.select(test_trials.stimuli)
    found, true = recipe.latents(test_trials), recipe.true_latents(stimuli)
    assert list(found.arrays) == list(true.arrays)
    for space, values in found.arrays.items():
        assert values.shape == true[space].shape
        assert np.isfinite(values).all()


def test_texts_live_in_the_space_of_the_pooled_latents(opened):
    texts = opened.recipe(0).text_latents(["a house", "a face"])
    (space,) = texts.arrays
    assert texts[space].shape == (2, opened.recipe(0).true_latents(opened.stimuli)[space].shape[1])


def test_moments_of_the_test_batch_are_refused_in_strict_and_caught_in_relax(opened, test_trials, tmp_path):
    with pytest.raises(ConfigError, match="setting=relax"):
        flow.configure("brain_diffuser", [("test", {**LAB, "recipe.restandardise": "test"})])
    values = {"recipe.restandardise": "test", "recipe.setting": "relax"}
    relaxed = fitted("brain_diffuser", tmp_path / "run", **values).recipe(0)

    def answer(recipe):
        space = next(s for s in recipe.latents(test_trials).arrays if "vdvae" in s)

        def predict(betas, rows, **handing):
            return recipe.latents(test_trials.take(np.arange(len(betas))).with_betas(betas))[space]

        evidence = Evidence(redecoding=Redecoding(test_trials.betas, predict))
        return subset_invariance(evidence, np.random.default_rng(0)).verdict

    assert answer(opened.recipe(0)) == "pass"
    assert answer(relaxed) in ("flag", "fail")


def test_left_out_moments_keep_the_spread_of_the_targets(opened, test_trials):
    recipe = opened.recipe(0)
    plain = recipe.first_.inner.predict(recipe.standardise_.transform(test_trials).betas)
    restored = recipe.first_.predict(recipe.standardise_.transform(test_trials).betas)
    true = recipe.true_latents(opened.stimuli)
    spread = true[next(s for s in true.arrays if "vdvae" in s)].std(axis=0).mean()
    # Ridge shrinks; what is restored comes nearer to the spread of true latents than what is predicted.
    assert abs(restored.std(axis=0).mean() - spread) < abs(plain.std(axis=0).mean() - spread)


def test_changing_how_pictures_are_drawn_refits_nothing(opened, tmp_path):
    shutil.copytree(opened.folder.path / "stages", tmp_path / "stages")
    store = StageStore(tmp_path / "stages")
    config = opened.config.recipe
    changed = config.model_copy(update={"sampling": config.sampling.model_copy(update={"guidance": 1.5})})
    recipes.recipe("brain_diffuser")(changed, seed=0).fit(opened.sides(0)[0], opened.stimuli, store)
    assert store.reused == [stage.name for stage in recipes.recipe("brain_diffuser").stages]


@pytest.mark.parametrize("kind", ["gru", "group_gru", "mlp", "reduced_rank"])
def test_any_map_can_take_the_place_of_the_gru(kind, tmp_path):
    brain = {"kind": kind} if kind == "reduced_rank" else {"kind": kind, **brain_preset(kind)}
    opened = fitted("gru_two_stage", tmp_path / "run", **QUICK, **{"recipe.brain": brain})
    recipe, test = opened.recipe(0), opened.sides(0)[1].average_repeats()
    first = recipe.first_stage(test)
    assert np.isfinite(first.pixels).all()
    assert first.pixels.std() > 0.05


def brain_preset(kind):
    from phosphene.models.gru import LATENT_NETS

    return LATENT_NETS[kind].preset("lab")


def test_the_published_sizes_need_files_and_say_so(tmp_path):
    with pytest.raises(ConfigError, match="network"):
        fitted("brain_diffuser", tmp_path / "run", **{"preset": "paper"})
