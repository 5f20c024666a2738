"""LEA end to end at tiny size, with the lab's real networks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from phosphene import flow
from phosphene.errors import ConfigError
from phosphene.lab import zoo
from phosphene.recipes.lea import Lea
from phosphene.validity.behaviour import subset_invariance
from phosphene.validity.check import Evidence, Redecoding

pytestmark = pytest.mark.skipif(
    not {"clip", "vq", "maskgit"} <= set(zoo.names()), reason="the zoo's weights are not bundled"
)
LAB = {
    "data.name": "insilico",
    "data.options": {"n_train": 100, "n_test": 12, "n_voxels": 120},
    "recipe.brain_training.steps": 20,
    "recipe.sampling.steps": 4,
}


def fitted(folder, **values):
    return flow.fit(flow.configure("lea", [("test", {**LAB, **values})])[0], folder)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("lea") / "run")


@pytest.fixture(scope="module")
def test_trials(opened):
    return opened.sides(0)[1].average_repeats()


def test_samples_differ_and_the_first_is_what_decode_gives(opened, test_trials):
    lea = opened.recipe(0)
    samples = lea.decode_samples(test_trials)
    assert len(samples) == 5
    np.testing.assert_array_equal(samples[0].pixels, lea.decode(test_trials).pixels)
    assert (samples[0].pixels != samples[1].pixels).mean() > 0.1


def test_a_picture_does_not_depend_on_its_company(opened, test_trials):
    lea = opened.recipe(0)
    alone = lea.decode(test_trials.take(np.array([3])))
    np.testing.assert_allclose(alone.pixels[0], lea.decode(test_trials).pixels[3], atol=1e-5)


def test_encoded_responses_are_in_the_units_of_the_betas(opened, test_trials):
    train = opened.sides(0)[0]
    encoded = opened.recipe(0).encode(opened.stimuli.select(test_trials.stimuli))
    assert encoded.betas.shape == test_trials.betas.shape
    mean, spread = train.betas.mean(0), train.betas.std(0)
    assert (np.abs(encoded.betas.mean(0) - mean) < spread).mean() > 0.9


def test_the_cycle_from_picture_to_brain_to_picture_is_defined(opened, test_trials):
    lea = opened.recipe(0)
    stimuli = opened.stimuli.select(test_trials.stimuli)
    assert lea.decode(lea.encode(stimuli)).pixels.shape == (len(stimuli), 32, 32, 3)


def test_texts_live_in_the_space_of_the_latents(opened, test_trials):
    lea = opened.recipe(0)
    texts = lea.text_latents(["a house", "a face"])
    (space,) = texts.arrays
    assert texts[space].shape == (2, lea.latents(test_trials)[space].shape[1])


def test_strict_saw_no_test_response_and_relax_says_which_stage_did(opened, tmp_path):
    test = opened.sides(0)[1].member_keys()
    assert not opened.recipe(0).lineage_ & test
    relaxed = fitted(tmp_path / "relax", **{"recipe.setting": "relax"}).recipe(0)
    assert {name for name, seen in relaxed.stage_lineages_.items() if seen & test} == {"brain"}


def test_test_moments_are_refused_in_the_strict_setting():
    with pytest.raises(ConfigError, match="setting=relax"):
        flow.configure("lea", [("test", {**LAB, "recipe.align.moments": "test"})])


def test_a_start_from_a_checkpoint_of_unknown_history_is_refused_in_the_strict_setting():
    with pytest.raises(ConfigError, match="init_is_clean"):
        flow.configure("lea", [("test", {**LAB, "recipe.init": "fmri_encoder.pth"})])


def test_moments_of_the_test_batch_are_caught_by_the_check_of_subset_invariance(opened, test_trials, tmp_path):
    values = {"recipe.setting": "relax", "recipe.align.moments": "test"}
    relaxed = fitted(tmp_path / "run", **values).recipe(0)

    def answer(recipe: Lea) -> str:
        def predict(betas, rows, **handing):
            return recipe.latents(test_trials.take(np.arange(len(betas))).with_betas(betas))["clip_lab"]

        evidence = Evidence(redecoding=Redecoding(test_trials.betas, predict))
        return subset_invariance(evidence, np.random.default_rng(0)).verdict

    assert answer(opened.recipe(0)) == "pass"
    assert answer(relaxed) in ("flag", "fail")


def test_another_subject_can_share_the_trunk_first(tmp_path):
    two = {**LAB["data.options"], "n_subjects": 2}
    opened = fitted(tmp_path / "run", **{"recipe.pretrain": ["sub-02"], "data.options": two})
    lea = opened.recipe(0)
    assert lea.brain_.module.subjects == [str(opened.trials.subject)]
    seen = {key.split("/")[0] for key in lea.stage_lineages_["brain"]}
    assert len(seen) == 2
    assert {key.split("/")[0] for key in lea.stage_lineages_["align"]} == {str(opened.trials.subject)}


def test_changing_the_generator_spares_the_brain(opened, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(opened.folder.path / "stages", folder / "stages")
    train, _ = opened.sides(0)
    from phosphene.io.stages import StageStore

    store = StageStore(folder / "stages")
    config = opened.config.recipe
    changed = config.model_copy(update={"generator": config.generator.model_copy(update={"flip": False})})
    Lea(changed, seed=0).fit(train, opened.stimuli, store)
    assert store.reused == ["standardise", "brain", "align"]


def test_maskgit_can_be_trained_on_with_the_training_pictures(tmp_path):
    training = {"steps": 3, "batch_size": 8, "warmup": 0}
    lea = fitted(tmp_path / "run", **{"recipe.generator.training": training}).recipe(0)
    before, after = zoo.load("maskgit").state_dict(), lea.generator_.module["maskgit"].state_dict()
    assert any(not np.array_equal(before[k].numpy(), after[k].numpy()) for k in before)


def test_latents_of_pictures_are_kept_where_a_cache_is_named(opened, tmp_path, monkeypatch):
    stimuli = opened.stimuli.select(opened.stimuli.ids[:6])
    plain = opened.recipe(0).true_latents(stimuli)["clip_lab"]
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path))
    kept = opened.recipe(0).true_latents(stimuli)["clip_lab"]
    assert any(tmp_path.iterdir())
    np.testing.assert_allclose(kept, plain, atol=1e-6)  # batches of another size


def test_the_public_networks_are_asked_for_by_name(tmp_path):
    values = {"recipe.generator.source": "public"}
    with pytest.raises(ConfigError, match=r"recipe\.generator\.transformer"):
        fitted(tmp_path / "run", **values)


GOD_SBJ1 = (1004, 801, 476, 588, 431, 249, 157, 760)


def paper():
    return flow.configure("lea", [("test", {"data.name": "insilico", "preset": "paper"})])[0].recipe


def test_the_paper_preset_has_the_published_sizes():
    import torch

    from phosphene.models import RoiMae
    from phosphene.models.maskgit import MaskGit, MaskGitConfig
    from phosphene.models.vq import Vqgan

    config = paper()
    with torch.device("meta"):
        brain, maskgit, tokenizer = RoiMae(config.brain, {"S1": GOD_SBJ1}), MaskGit(), Vqgan()
    count = [sum(w.numel() for w in network.parameters()) for network in (brain, maskgit, tokenizer)]
    assert round(count[0] / 1e6, 1) == 172.3  # the trainable total of the specification
    assert count[1:] == [173_244_393, 54_515_587]
    assert MaskGitConfig() == MaskGitConfig.paper()
    t, s = config.brain_training, config.sampling
    assert (t.steps, t.batch_size, t.lr, t.weight_decay, t.clip_norm, t.warmup) == (100_000, 8, 5e-5, 0.01, 0.1, 8000)
    assert (s.steps, s.samples, s.temperature) == (11, 5, 4.5)
    a = config.align
    assert (a.alpha_fi, a.alpha_if, a.intercept_fi, a.intercept_if) == (500, 500, False, True)


@pytest.mark.slow
def test_one_training_step_of_the_paper_preset_runs_on_a_processor():
    from phosphene.models import RoiMae, subject_batches
    from phosphene.training import train

    config = paper()
    edges = np.cumsum([0, *GOD_SBJ1])
    network = RoiMae.create(config.brain, {"S1": [np.arange(a, b) for a, b in pairwise(edges)]}, 0)
    betas = np.random.default_rng(0).standard_normal((8, edges[-1])).astype(np.float32)
    before = network.pred.weight.detach().clone()
    result = train(
        network, *subject_batches({"S1": betas}), config.brain_training.model_copy(update={"steps": 1}), seed=0
    )
    assert np.isfinite(result.curve[-1]["loss"])
    assert not (network.pred.weight == before).all()


def test_data_without_regions_or_voxel_table_go_through_the_whole_flow(tmp_path):
    from tests.flow.conftest import write_pair_file

    write_pair_file(tmp_path / "pairs.npz", n_train=40, n_test=10, n_voxels=30)
    values = {k: v for k, v in LAB.items() if not k.startswith("data.")}
    fewer = {"recipe.sampling.steps": 2, "recipe.sampling.samples": 2}
    layer = {**values, **fewer, "data.name": str(tmp_path / "pairs.npz"), "split": "kfold:2"}
    opened = flow.fit(flow.configure("lea", [("test", layer)])[0], tmp_path / "run")
    flow.decode(opened, controls=["shuffled"])
    flow.encode(opened)
    flow.evaluate(opened)
    scores = opened.folder.table("scores.csv")
    assert scores.loc[scores["input"] == "brain", "metric"].str.startswith("pearson.").any()


# -- as the authors' code -----------------------------------------------------------------------------------------------


def configured(**values):
    return flow.configure("lea", [("test", {**LAB, **values})])[0].recipe


@pytest.fixture(scope="module")
def legacy(opened):
    """LEA with the normalisation of the authors' code, on betas of some other unit."""
    train, _ = opened.sides(0)
    return Lea(configured(**{"recipe.norm": "legacy"}), seed=0).fit(
        train.with_betas(10 * train.betas + 5), opened.stimuli
    )


def test_legacy_standardises_training_betas_by_two_scalars_and_leaves_test_betas_raw(opened, legacy, test_trials):
    entries = 10 * opened.sides(0)[0].betas.astype(float) + 5
    # Betas are float32.
    np.testing.assert_allclose(legacy.standardise_.mean_, entries.mean(), rtol=1e-5)
    np.testing.assert_allclose(legacy.standardise_.scale_, entries.std(), rtol=1e-5)
    raw = legacy.align_.brain_to_image(legacy.brain_.to_latent(test_trials.betas))
    np.testing.assert_array_equal(legacy.latents(test_trials)["clip_lab"], raw)


def test_legacy_predicts_in_the_units_of_the_training_betas_and_reads_its_predictions_so(opened, legacy, test_trials):
    stimuli = opened.stimuli.select(test_trials.stimuli)
    predicted = legacy.encode(stimuli)
    standardised = legacy.brain_.from_latent(legacy.align_.image_to_brain(legacy.true_latents(stimuli)["clip_lab"]))
    entries = 10 * opened.sides(0)[0].betas.astype(float) + 5
    np.testing.assert_allclose(predicted.betas, standardised * entries.std() + entries.mean(), rtol=1e-4, atol=1e-3)
    again = legacy.align_.brain_to_image(legacy.brain_.to_latent(standardised))
    np.testing.assert_allclose(legacy.latents(predicted)["clip_lab"], again, atol=1e-4)  # there and back in float32


def test_in_setting_relax_legacy_shows_the_autoencoder_raw_test_betas(opened):
    train, test = opened.sides(0)
    lea = Lea(configured(**{"recipe.norm": "legacy", "recipe.setting": "relax"}), seed=0)
    lea.standardise_ = lea.fit_standardise(train)
    lea.unpaired, batches = (test.average_repeats(),), []
    lea.train = lambda network, fetch, n, settings, **more: batches.append(fetch(np.arange(n)))
    lea.fit_brain(train)
    (batch,) = batches
    rows = batch["betas"][str(train.subject)].numpy()
    n = len(train.stimulus_ids)
    np.testing.assert_array_equal(rows[n:], test.average_repeats().betas)
    assert abs(rows[:n].mean()) < 1e-5


def test_legacy_and_statistics_of_each_session_are_refused_together():
    with pytest.raises(ConfigError, match="leave out per_session"):
        configured(**{"recipe.norm": "legacy", "recipe.per_session": True})


def of_preset(name):
    return flow.configure("lea", [("test", {"data.name": "insilico", "preset": name})])[0].recipe


def test_the_preset_bold_has_the_steps_and_rate_of_that_configuration_and_nothing_else_of_its_own():
    bold, paper = of_preset("bold"), of_preset("paper")
    assert (bold.brain_training.steps, bold.brain_training.lr) == (120_000, 5e-6)
    same = {"steps": paper.brain_training.steps, "lr": paper.brain_training.lr}
    assert bold.model_copy(update={"brain_training": bold.brain_training.model_copy(update=same)}) == paper


def test_the_preset_lea_code_does_what_the_default_does_not():
    code, paper = of_preset("lea-code"), of_preset("paper")
    assert (code.setting, code.norm, code.align.moments, code.generator.ported) == ("relax", "legacy", "test", True)
    assert (paper.setting, paper.norm, paper.align.moments, paper.generator.ported) == (
        "strict", "voxel", "train_oof", False,
    )  # fmt: skip
    assert code.brain_training == paper.brain_training


def test_presets_that_train_maskgit_crop_and_the_labs_trains_nothing():
    assert all(of_preset(name).generator.crops > 0 for name in Lea.presets if name != "lab")
    assert of_preset("lab").generator.training is None


def test_crops_of_the_training_pictures_make_more_of_them(opened):
    train, _ = opened.sides(0)
    config = configured(
        **{"recipe.generator.training": {"steps": 1, "batch_size": 2, "warmup": 0}, "recipe.generator.crops": 2}
    )
    lea, items = Lea(config, seed=0), []
    lea.train = lambda network, fetch, n, settings, **more: items.append(fetch(np.arange(n)))
    lea.fit_generator(opened.stimuli.select(train.stimulus_ids))
    (learned,) = items
    assert len(learned["latents"]) == len(train.stimulus_ids) * 2 * 3
    assert len(np.unique(learned["latents"].numpy().round(4), axis=0)) > 0.95 * len(learned["latents"])


def test_how_predictions_were_moved_and_betas_standardised_stands_beside_the_scores(opened, tmp_path):
    import shutil

    shutil.copytree(opened.folder.path, tmp_path / "run")
    run = flow.open_run(tmp_path / "run")
    flow.decode(run, controls=["shuffled"])
    flow.evaluate(run)
    assert "setting strict; moments train_oof" in flow.summary(run.folder.path)
    own = {"recipe.setting": "relax", "recipe.align.moments_if": "test", "recipe.norm": "legacy"}
    found = Lea(configured(**own)).conditions()
    assert [found[k].split()[0] for k in ("moments", "moments_if", "norm")] == ["train_oof", "test", "legacy"]
