"""LEA end to end at tiny size, with the lab's real networks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from phosphene import flow, zoo
from phosphene.errors import ConfigError
from phosphene.evaluate.validity.base import Evidence
from phosphene.evaluate.validity.fitting import subset_invariance
from phosphene.recipes.lea import Lea

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


def test_moments_of_the_test_batch_are_caught_by_the_check_of_company(opened, test_trials, tmp_path):
    values = {"recipe.setting": "relax", "recipe.align.moments": "test"}
    relaxed = fitted(tmp_path / "run", **values).recipe(0)

    def answer(recipe: Lea) -> str:
        predict = lambda betas: recipe.latents(test_trials.take(np.arange(len(betas))).with_betas(betas))["clip_lab"]  # noqa: E731
        evidence = Evidence(predict=predict, test_betas=test_trials.betas)
        return subset_invariance(evidence, np.random.default_rng(0))[0]

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
    shutil.copytree(opened.run.path / "stages", folder / "stages")
    train, _ = opened.sides(0)
    from phosphene.run.stages import StageStore

    store = StageStore(folder / "stages")
    config = opened.config.recipe
    changed = config.model_copy(update={"images": config.images.model_copy(update={"flip": False})})
    Lea(changed, seed=0).fit(train, opened.stimuli, store)
    assert store.reused == ["standardise", "brain", "align"]


def test_maskgit_can_be_trained_on_with_the_training_pictures(tmp_path):
    training = {"steps": 3, "batch_size": 8, "warmup": 0}
    lea = fitted(tmp_path / "run", **{"recipe.images.training": training}).recipe(0)
    before, after = zoo.load("maskgit").state_dict(), lea.images_.module["maskgit"].state_dict()
    assert any(not np.array_equal(before[k].numpy(), after[k].numpy()) for k in before)


def test_latents_of_pictures_are_kept_where_a_cache_is_named(opened, tmp_path, monkeypatch):
    stimuli = opened.stimuli.select(opened.stimuli.ids[:6])
    plain = opened.recipe(0).true_latents(stimuli)["clip_lab"]
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path))
    kept = opened.recipe(0).true_latents(stimuli)["clip_lab"]
    assert any(tmp_path.iterdir())
    np.testing.assert_allclose(kept, plain, atol=1e-6)  # batches of another size


def test_the_public_networks_are_asked_for_by_name(tmp_path):
    values = {"recipe.images.source": "public"}
    with pytest.raises(ConfigError, match=r"recipe\.images\.transformer"):
        fitted(tmp_path / "run", **values)


GOD_SBJ1 = (1004, 801, 476, 588, 431, 249, 157, 760)


def paper():
    return flow.configure("lea", [("test", {"data.name": "insilico", "preset": "paper"})])[0].recipe


def test_the_paper_preset_has_the_published_sizes():
    import torch

    from phosphene.brain import RoiMae
    from phosphene.generate.maskgit import MaskGit
    from phosphene.generate.maskgit_config import MaskGitConfig
    from phosphene.generate.vq import Vqgan

    config = paper()
    with torch.device("meta"):
        brain, maskgit, tokenizer = RoiMae(config.brain, {"S1": GOD_SBJ1}), MaskGit(), Vqgan()
    count = [sum(w.numel() for w in network.parameters()) for network in (brain, maskgit, tokenizer)]
    assert round(count[0] / 1e6, 1) == 172.3  # the trainable total of the specification
    assert count[1:] == [173_244_393, 54_515_587]
    assert MaskGitConfig() == MaskGitConfig.paper()
    t, s = config.brain_training, config.sampling
    assert (t.steps, t.batch_size, t.lr, t.weight_decay, t.clip, t.warmup) == (100_000, 8, 5e-5, 0.01, 0.1, 8000)
    assert (s.steps, s.samples, s.temperature) == (11, 5, 4.5)
    a = config.align
    assert (a.alpha_fi, a.alpha_if, a.intercept_fi, a.intercept_if) == (500, 500, False, True)


@pytest.mark.slow
def test_one_training_step_of_the_paper_preset_runs_on_a_processor():
    from phosphene.brain import RoiMae, subject_batches
    from phosphene.train import train

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
    layer = {**values, "data.name": str(tmp_path / "pairs.npz"), "split": "kfold:2"}
    opened = flow.fit(flow.configure("lea", [("test", layer)])[0], tmp_path / "run")
    flow.decode(opened, controls=["shuffled"])
    flow.encode(opened)
    flow.evaluate(opened)
    scores = opened.run.table("scores.csv")
    assert scores.loc[scores["input"] == "brain", "metric"].str.startswith("pearson.").any()
