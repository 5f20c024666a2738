"""CAD and MinD-Vis end to end at tiny size: the real classes, the zoo's picture networks, a label network drawn at random."""

from __future__ import annotations

import contextlib
import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from phosphene import flow
from phosphene.errors import ConfigError
from phosphene.io.progress import Progress
from phosphene.io.stages import StageStore
from phosphene.lab import zoo
from phosphene.lab.zoo.networks import build
from phosphene.models.brain_ldm import BrainToPicture, HeldOutChoice, Pictures
from phosphene.recipes.cad import Cad
from phosphene.recipes.mind_vis import MindVis
from phosphene.run import Run
from phosphene.training import Draws, TrainConfig, train

pytestmark = pytest.mark.skipif(not {"vq", "mae"} <= set(zoo.names()), reason="the zoo's weights are not bundled")

TRAINING = {"steps": 6, "batch_size": 4, "lr": 1e-2, "warmup": 0}
BRAIN = {
    "patch_size": 20,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "decoder_width": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
}
GOD_SBJ3 = 4643


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Rows of one batch are then summed alike, wherever they stand in it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def label_network(tmp_path_factory):
    """A folder with a random label-to-image network that fits the zoo's tokenizer, in the zoo's layout."""
    from safetensors.torch import save

    config = {
        "size": 8, "channels": 4, "widths": [8, 16], "attention": [False, True], "blocks": 1, "heads": 2, "groups": 4,
        "context": 12, "condition": {"kind": "labels", "classes": [16, 10]}, "time": "none",
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        data = save(build("ldm", config).state_dict())
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "ldm.safetensors").write_bytes(data)
    (folder / "ldm.json").write_text(json.dumps({"config": config, "sha256": hashlib.sha256(data).hexdigest()}))
    return folder


@pytest.fixture(scope="module")
def configured(label_network):
    def configured(recipe="cad", **values):
        tiny = {
            "data.name": "insilico", "data.options": {"n_train": 24, "n_test": 6, "n_voxels": 120, "n_subjects": 2},
            "recipe.brain": BRAIN, "recipe.brain_training": TRAINING,
            "recipe.tuning": {**TRAINING, "sparsify": 0.2, "crops": 0.5},
            "recipe.generator": {"folder": str(label_network), "mapped": 3}, "recipe.sampling": {"steps": 3, "samples": 2},
        }  # fmt: skip
        own = {"cad": ["cross_training"], "mind_vis": ["adapt_training", "encoding"]}
        tiny |= {f"recipe.{name}": TRAINING for name in own[recipe]}
        return flow.configure(recipe, [("tiny", tiny), ("test", values)])[0]

    return configured


@pytest.fixture(scope="module")
def opened(configured):
    return Run(None, configured())


@pytest.fixture(scope="module")
def fit(opened, configured):
    def fit(recipe="cad", store=None, progress=None, kind=None, **values):
        config = configured(recipe, **values)
        made = (kind or {"cad": Cad, "mind_vis": MindVis}[recipe])(config.recipe, seed=0)
        made.progress = progress or made.progress
        asked = Run(None, config)
        return made.fit(opened.sides(0)[0], opened.stimuli, store, asked.unpaired(0))

    return fit


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return tmp_path_factory.mktemp("cad") / "stages"


@pytest.fixture(scope="module")
def cad(fit, stages):
    return fit(store=StageStore(stages))


@pytest.fixture(scope="module")
def test_trials(opened):
    return opened.sides(0)[1].average_repeats()


def same(a, b):
    return {k: torch.equal(v, b[k]) for k, v in a.items()}


# -- the arrow ---------------------------------------------------------------------------------------------------------


def test_samples_differ_and_the_first_is_what_decode_gives(cad, test_trials):
    samples = cad.decode_samples(test_trials)
    assert len(samples) == 2
    # One network pass holds other company in the two; its sums may be rounded in another order.
    np.testing.assert_allclose(samples[0].pixels, cad.decode(test_trials).pixels, atol=1e-4)
    assert (np.abs(samples[0].pixels - samples[1].pixels) > 0.01).mean() > 0.1


def test_a_picture_does_not_depend_on_its_company(cad, test_trials):
    alone = cad.decode(test_trials.take(np.array([3])))
    np.testing.assert_allclose(alone.pixels[0], cad.decode(test_trials).pixels[3], atol=1e-4)


def test_the_ceiling_is_what_the_tokenizer_leaves_of_the_pictures(cad, opened, test_trials):
    stimuli, vq = opened.stimuli.select(test_trials.stimuli), zoo.load("vq")
    with torch.no_grad():
        expected = zoo.from_network(vq(zoo.to_network(stimuli.resized((32, 32)))).sample)
    # Pictures pass 8 bits on the way; a code may change where two are equally near.
    assert np.median(np.abs(cad.ceiling(stimuli).pixels - expected)) < 1e-3
    assert list(cad.ceiling(stimuli).ids) == list(test_trials.stimuli)


def test_a_saved_recipe_decodes_the_same(cad, test_trials, tmp_path):
    cad.save(tmp_path)
    np.testing.assert_array_equal(Cad.load(tmp_path).decode(test_trials).pixels, cad.decode(test_trials).pixels)


# -- what each phase changes -------------------------------------------------------------------------------------------


def test_each_phase_goes_on_from_the_encoder_of_the_one_before(cad):
    encoders = [part.state_dict() for part in (cad.brain_.module, cad.cross_.module, cad.tuned_.module.brain)]
    for before, after in pairwise(encoders):
        assert not same(before, after)["blocks.0.attn.qkv.weight"]
        # Six steps of at most some lr each: it is the same matrix, moved a little.
        gap = (before["blocks.0.attn.qkv.weight"] - after["blocks.0.attn.qkv.weight"]).abs().max()
        assert gap < 6 * 3 * TRAINING["lr"]


def test_of_the_unet_only_what_looks_at_the_context_is_tuned(cad):
    before, after = cad.generator_.network.unet.state_dict(), cad.tuned_.network.unet.state_dict()
    changed = {k for k, equal in same(before, after).items() if not equal}
    assert changed
    assert all("transformer_blocks" in k and (".attn2." in k or ".norm2." in k) for k in changed)


def test_the_error_of_the_noise_reaches_the_encoder_and_not_the_decoder(cad, opened):
    both = BrainToPicture(cad.tuned_.module.brain, cad.tuned_.network, cad.generator_)
    betas = torch.randn(3, 120, generator=torch.Generator().manual_seed(0))
    pictures = torch.from_numpy(Pictures.of(opened.stimuli, 32)[np.arange(3)])
    batch = {"betas": {"sub-01": betas}, "rows": {"sub-01": torch.arange(3)}, "pictures": pictures}
    batch["betas"], batch["rows"] = ({both.brain.subjects[0]: v["sub-01"]} for v in (batch["betas"], batch["rows"]))
    both.loss(batch, Draws(0, 0, 3))[0].backward()
    assert both.brain.patch_embed["proj"].weight.grad.abs().sum() > 0
    assert all(w.grad is None for k, w in both.brain.named_parameters() if "decoder" in k or "token" in k)
    both.zero_grad()


def test_voxels_are_zeroed_and_pictures_cut_in_training_alone(cad, opened):
    brain = cad.tuned_.module.brain
    assert brain.config.sparsify == 0.2
    betas = torch.randn(8, 120, generator=torch.Generator().manual_seed(0))
    pictures = torch.from_numpy(Pictures.of(opened.stimuli, 32)[np.arange(8)])
    name = brain.subjects[0]
    batch = {"betas": {name: betas}, "rows": {name: torch.arange(8)}, "pictures": pictures}

    def loss(crops, training):
        both = BrainToPicture(brain, cad.tuned_.network, cad.generator_, crops).train(training)
        with torch.no_grad():
            value = both.loss(batch, Draws(0, 0, 8))[0].item()
        both.eval()
        return value

    assert loss(0.0, False) == loss(1.0, False)
    assert len({loss(0.0, False), loss(0.0, True), loss(1.0, True)}) == 3


def test_pictures_are_what_the_zoo_takes_whatever_their_channels():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_allclose(Pictures(np.arange(3), pixels)[np.arange(3)], zoo.to_network(pixels).numpy(), atol=1e-6)
    grey = Pictures(np.arange(3), pixels[..., :1], (0.1, 0.2, 0.3), (1.0, 1.0, 2.0))[np.array([2])]
    assert grey.shape == (1, 3, 4, 4)
    np.testing.assert_allclose(grey[0, 2], (pixels[2, ..., 0] / 255 - 0.3) / 2, atol=1e-6)


def test_phases_can_be_left_out(fit, cad):
    plain = fit(**{"recipe.attend": False, "recipe.brain_training": None})
    assert all(same(plain.brain_.module.state_dict(), plain.cross_.module.state_dict()).values())
    assert not same(plain.brain_.module.state_dict(), cad.brain_.module.state_dict())["blocks.0.attn.qkv.weight"]


# -- what is seen ------------------------------------------------------------------------------------------------------


def test_another_subject_takes_part_in_the_first_phase_only(fit):
    cad = fit(**{"recipe.pretrain": ["sub-02"]})
    subjects = {stage: len({key.split("/")[0] for key in seen}) for stage, seen in cad.stage_lineages_.items()}
    # The generator is taken as it comes: it saw nobody.
    assert subjects == {"standardise": 1, "generator": 0, "brain": 2, "cross": 1, "tuned": 1}
    assert cad.brain_.module.subjects == [cad.subject_]


def test_the_own_responses_can_be_kept_out_of_the_first_phase(fit):
    cad = fit(**{"recipe.pretrain": ["sub-02"], "recipe.own": False, "recipe.attend": False})
    assert cad.brain_.module.n_voxels == {cad.subject_: 120}
    with pytest.raises(ConfigError, match=r"recipe\.own is false"):
        fit(**{"recipe.own": False})


def test_strict_sees_no_test_response_and_relax_says_which_stage_did(opened, cad, fit):
    test = opened.sides(0)[1].member_keys()
    assert not cad.lineage_ & test
    relaxed = fit("mind_vis", **{"recipe.setting": "relax"})
    assert {stage for stage, seen in relaxed.stage_lineages_.items() if seen & test} == {"brain"}
    strict = fit("mind_vis")
    assert not same(strict.brain_.module.state_dict(), relaxed.brain_.module.state_dict())["norm.weight"]


def test_a_start_from_a_checkpoint_of_unknown_history_is_refused_in_the_strict_setting(configured):
    for recipe in ("cad", "mind_vis"):
        with pytest.raises(ConfigError, match="init_is_clean"):
            configured(recipe, **{"recipe.init": "fmri_encoder.pth"})


def test_scans_at_rest_teach_the_first_phase(fit, cad, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("100307", "100408"):
        np.savez(
            tmp_path / f"{name}.npz", **{a: rng.normal(size=(40, 30)).astype("f4") for a in ("V1", "V2", "V3", "V4")}
        )
    values = {"recipe.resting": str(tmp_path), "recipe.own": False, "recipe.attend": False}
    monkeypatch.delenv("PHOSPHENE_CACHE", raising=False)
    with pytest.raises(ConfigError, match="PHOSPHENE_CACHE"):
        fit(**values)
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    rested = fit(**values)
    assert not same(rested.brain_.module.state_dict(), cad.brain_.module.state_dict())["norm.weight"]
    assert rested.decode(cad.predicted_trials(cad_stimuli(cad), np.zeros((1, 120), "f4"))).pixels.shape == (
        1,
        32,
        32,
        3,
    )


def cad_stimuli(cad):
    from phosphene.types import Stimuli

    return Stimuli(np.array(["a"], dtype=object), np.zeros((1, 32, 32, 3), np.uint8))


def test_the_step_is_chosen_by_training_stimuli_that_are_left_out(fit, opened, stages):
    chosen = fit(store=StageStore(), **{"recipe.validation": 0.25, "recipe.check_every": 2})
    train = opened.sides(0)[0]
    folds = chosen.inner_folds(train)
    by_stimulus = [set(train.stimuli[folds == f]) for f in (0, 1)]
    assert len(by_stimulus[0]) == 6
    assert not by_stimulus[0] & by_stimulus[1]
    for part in (chosen.cross_, chosen.tuned_):
        assert part.config["chosen"]["step"] in (2, 4, 6)
        assert part.config["chosen"]["n_held_out"] == (folds == 0).sum()


class Sinks(nn.Module):
    """A number that is pulled to 1; left-out items would have it at one half."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1))

    def loss(self, batch, draws):
        return (self.x - batch).square().mean(), {}


def test_the_best_step_is_taken_and_not_the_last(tmp_path):
    net = Sinks()
    settings = TrainConfig(steps=20, batch_size=1, lr=0.1, schedule="constant", weight_decay=0)
    choice = HeldOutChoice(net, lambda rows: torch.full((len(rows),), 0.5), 3, 2, 0, tmp_path)
    train(
        net,
        lambda rows: torch.ones(1),
        1,
        settings,
        seed=0,
        folder=tmp_path,
        log_every=1,
        watch=choice.look,
        device="cpu",
    )
    assert abs(float(net.x.detach()) - 1) < 0.4
    # AdamW moves by about lr a step at first, so that 0.5 is passed at step 5.
    assert choice.take()["step"] == 5
    assert abs(float(net.x.detach()) - 0.5) < 0.05
    again = HeldOutChoice(net, lambda rows: torch.full((len(rows),), 0.5), 3, 2, 0, tmp_path)
    assert (again.step, again.value) == (choice.step, choice.value)


# -- stages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        ({"recipe.sampling.steps": 4}, ["standardise", "generator", "brain", "cross", "tuned"]),
        ({"recipe.tuning.sparsify": 0.0}, ["standardise", "generator", "brain", "cross"]),
        ({"recipe.generator.mapped": 2}, ["standardise", "generator", "brain", "cross"]),
        ({"recipe.cross.brain_weight": 1.0}, ["standardise", "generator", "brain"]),
        ({"recipe.brain.mask_ratio": 0.5}, ["standardise", "generator"]),
    ],
)
def test_a_late_change_spares_the_early_stages(cad, stages, fit, tmp_path, change, reused):
    import shutil

    class StopError(Exception):
        pass

    class Stops(Progress):
        def each(self, items, what, total=None, unit=""):
            raise StopError

    shutil.copytree(stages, tmp_path / "stages")
    store = StageStore(tmp_path / "stages")
    with contextlib.suppress(StopError):
        fit(store=store, progress=Stops(quiet=True), **change)
    assert store.reused == reused


class KilledError(Exception):
    pass


class Kills(Progress):
    """Stops the n-th training of a fit after five steps."""

    def __init__(self, nth):
        super().__init__(quiet=True)
        self.left = nth

    def each(self, items, what, total=None, unit=""):
        self.left -= 1
        for done, item in enumerate(super().each(items, what, total)):
            if not self.left and done == 5:
                raise KilledError
            yield item


class OftenSaved(Cad):
    def train(self, *args, **more):
        return super().train(*args, save_every=2, **more)


@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_a_fit_killed_in_every_phase_ends_bit_identical(fit, tmp_path, validation):
    values = {"recipe.validation": validation, "recipe.check_every": 2}

    def run(folder, progress=None):
        return fit(store=StageStore(folder / "stages"), progress=progress, kind=OftenSaved, **values)

    whole = run(tmp_path / "whole")
    killed = tmp_path / "killed"
    # The first training of the second and third call is the one that was killed before, gone on with.
    for nth, phase in ((1, "brain"), (2, "cross"), (2, "tuned")):
        with pytest.raises(KilledError):
            run(killed, Kills(nth))
        assert [p.parent.name for p in killed.glob("training/*/*/step-00000004")] == [phase]
    again = run(killed)
    for stage in (stage.name for stage in Cad.stages):
        a, b = (getattr(recipe, f"{stage}_").state()[0] for recipe in (whole, again))
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[k], b[k]) for k in a), stage
    assert not list(killed.glob("training/*"))


# -- the paper ---------------------------------------------------------------------------------------------------------


def paper(recipe):
    return flow.configure(recipe, [("test", {"data.name": "insilico", "preset": "paper"})])[0].recipe


def test_the_paper_preset_has_the_published_settings():
    c = paper("cad")
    t = c.brain_training
    assert (t.lr, t.batch_size, t.weight_decay, t.clip_norm, t.adam_betas) == (2.5e-4, 250, 0.05, 0.8, (0.9, 0.95))
    n = 1113 * 120  # windows of HCP
    assert round(t.steps * 250 / n, 1) == 140.0
    assert round(t.warmup * 250 / n) == 20
    t = c.cross_training
    assert (t.lr, t.batch_size, t.steps * 16 / 1200, t.warmup * 16 / 1200, t.weight_decay) == (5.3e-5, 16, 60, 2, 0.05)
    assert (c.cross.brain_weight, c.cross.picture_weight, c.cross.brain_mask, c.cross.picture_mask) == (
        0.25,
        1.5,
        0.75,
        0.5,
    )
    assert c.cross.decoder_depth == 6
    t = c.tuning
    assert (t.lr, t.batch_size, t.steps * 5 / 1200, t.clip_norm, t.weight_decay, t.sparsify) == (
        5.3e-5,
        5,
        500,
        0.5,
        0.01,
        0.2,
    )
    assert (t.schedule, t.adam_betas, t.tune) == ("constant", (0.9, 0.999), "cross_attention")
    assert (c.sampling.steps, c.sampling.samples) == (250, 5)
    m = paper("mind_vis")
    assert (m.brain_training.batch_size, m.brain_training.lr, m.brain.mask_ratio, m.brain.kind) == (
        100,
        2.5e-4,
        0.75,
        "patch_mae",
    )
    assert round(m.adapt_training.steps * 16 / 1800) == 15
    assert m.tuning == c.tuning


def test_the_paper_preset_tunes_the_published_number_of_weights():
    from phosphene.models import PatchMae
    from phosphene.models.ldm import LdmConfig, LdmUnet

    with torch.device("meta"):
        brain = PatchMae(paper("mind_vis").brain, {"sbj_3": GOD_SBJ3})
        network = LdmUnet(**LdmConfig.paper().model_dump(mode="json"))
    assert (brain.n_patches, network.config.condition.count) == (291, 291)
    network.tune("cross_attention")
    both = BrainToPicture(brain, network)
    open_weights = {k: w.numel() for k, w in both.named_parameters() if w.requires_grad}
    mapper = 53_582 + 524_800
    assert sum(n for k, n in open_weights.items() if k.startswith("network.")) == 27_093_627 + mapper
    # 24 blocks, patch embedding and norm, written out: width d = 1024, as wide MLPs.
    d = 1024
    assert (
        sum(n for k, n in open_weights.items() if k.startswith("brain.")) == 24 * (6 * d * d + 10 * d) + 17 * d + 2 * d
    )


def test_the_public_networks_are_asked_for_by_name(fit):
    with pytest.raises(ConfigError, match=r"recipe\.generator\.file"):
        fit(**{"recipe.generator.source": "public"})
    with pytest.raises(ConfigError, match=r"recipe\.picture\.folder"):
        fit(**{"recipe.picture.source": "public", "recipe.brain_training": None})


# -- the other arrow, of MinD-Vis alone ----------------------------------------------------------------------------------


def test_mind_vis_predicts_responses_in_their_own_units_from_pictures_alone(fit, opened, test_trials, tmp_path):
    mind_vis = fit("mind_vis")
    seen = opened.stimuli.select(test_trials.stimuli)
    predicted = mind_vis.encode(seen).betas
    assert predicted.shape == test_trials.betas.shape
    train = opened.sides(0)[0].average_repeats().betas
    # Not yet learned in a few steps: predictions lie near the mean response, not near 0 nor in standard deviations.
    assert np.abs(predicted - train.mean(0)).mean() < np.abs(train - train.mean(0)).mean()
    assert np.ptp(predicted, axis=0).max() > 0  # and differ between pictures
    mind_vis.save(tmp_path)
    np.testing.assert_array_equal(MindVis.load(tmp_path).encode(seen).betas, predicted)


def test_mind_vis_without_encoding_has_no_such_stage_asks_for_no_clip_and_says_so(fit, opened, test_trials, tmp_path):
    decoder = fit("mind_vis", **{"recipe.encoding": None, "recipe.clip": {"name": "nowhere/no-such-clip"}})
    assert not decoder.can_encode(decoder.config)
    decoder.save(tmp_path)
    assert not (tmp_path / "stages" / "encoding").exists()
    again = MindVis.load(tmp_path)
    np.testing.assert_array_equal(again.decode(test_trials).pixels, decoder.decode(test_trials).pixels)
    with pytest.raises(ConfigError, match=r"recipe\.encoding is null"):
        again.encode(opened.stimuli.select(test_trials.stimuli))
