"""Two-stage decoders whose ridges read their targets from the feature store: the same pictures as with coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene import flow
from phosphene.align.ridge import Ridge
from phosphene.align.streamed import StreamedRidge
from phosphene.errors import DataError, ModelError
from phosphene.features.clip import ClipFeatures
from phosphene.io.store import StoredRows
from phosphene.lab import scenes, zoo
from phosphene.recipes import brain_diffuser as two_stage
from phosphene.recipes.brain_diffuser import BrainDiffuser
from phosphene.types import Stimuli

pytestmark = pytest.mark.skipif(
    not {"clip", "kl", "vdvae", "dual_guided"} <= set(zoo.names()), reason="the zoo's weights are not bundled"
)
LAB = {
    "data.name": "insilico",
    "data.options": {"n_train": 60, "n_test": 45, "n_voxels": 80},
    "recipe.sampling.steps": 3,
    "recipe.n_folds": 3,
    # Penalties are given: where they are chosen, a sketch of the targets judges them in one of the two ways.
    "recipe.alpha_first": 1000.0,
    "recipe.tokens.alpha_vision": 1000.0,
    "recipe.tokens.alpha_text": 2000.0,
}
STREAMED = {"recipe.stream_above": 0}
TEST = {"recipe.restandardise": "test", "recipe.setting": "relax"}
RIDGES = ("first", "vision", "text")


def fitted(folder, **values):
    return flow.fit(flow.configure("brain_diffuser", [("test", {**LAB, **values})])[0], folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHOSPHENE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=["train_oof", "test"])
def both(cache, request, tmp_path_factory):
    """The recipe with coefficients, the one without, and test trials."""
    folder, values = tmp_path_factory.mktemp("two_stage"), TEST if request.param == "test" else {}
    plain, streamed = fitted(folder / "plain", **values), fitted(folder / "streamed", **values, **STREAMED)
    return plain.recipe(0), streamed.recipe(0), streamed.sides(0)[1].average_repeats(), folder


def test_the_same_latents_come_without_coefficients(both):
    plain, streamed, trials, _ = both
    for name in RIDGES:
        assert isinstance(getattr(plain, f"{name}_").inner, Ridge)
        assert isinstance(getattr(streamed, f"{name}_").inner, StreamedRidge)
    one, other = plain.latents(trials), streamed.latents(trials)
    assert list(one.arrays) == list(other.arrays)
    for space in one.arrays:
        # float32 predictions, of features computed in batches of other sizes
        np.testing.assert_allclose(other[space], one[space], atol=1e-4 * one[space].std())
    x = plain.standardise_.transform(trials).betas
    text = plain.text_.predict(x)
    np.testing.assert_allclose(streamed.text_.predict(x), text, atol=1e-4 * text.std())


def test_moments_are_those_of_left_out_predictions(both):
    plain, streamed, *_ = both
    for name in RIDGES:
        one, other = (getattr(recipe, f"{name}_").moments for recipe in (plain, streamed))
        assert one.mode == other.mode
        for value in ("predicted_mean_", "predicted_std_", "true_mean_", "true_std_"):
            expected = getattr(one, value)
            np.testing.assert_allclose(getattr(other, value), expected, atol=1e-4 * one.true_std_.mean())


def test_pictures_do_not_depend_on_how_many_are_decoded_at_a_time(both, monkeypatch):
    _, streamed, trials, _ = both
    whole = streamed.decode(trials).pixels
    monkeypatch.setattr(two_stage, "DECODED_BYTES", 1)
    assert len(list(streamed.two_stage.blocks(len(trials), ("first",)))) == 2
    np.testing.assert_allclose(streamed.decode(trials).pixels, whole, atol=1e-4)  # float32 sums in another order


def test_nothing_kept_grows_with_the_targets(both):
    *_, folder = both
    size = {
        kind: (next((folder / kind).rglob("stages/text")) / "weights.safetensors").stat().st_size
        for kind in ("plain", "streamed")
    }
    moments = 4 * 8 * 40 * 64
    assert size["streamed"] - moments < 60 * 80 * 4 + 4096
    assert size["plain"] - moments > 60 * 40 * 64 * 4


def test_a_run_without_its_cache_says_what_to_do(both, tmp_path, monkeypatch):
    *_, folder = both
    fold = next((folder / "streamed").rglob("recipe.json")).parent
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not in the cache.*PHOSPHENE_CACHE"):
        BrainDiffuser.load(fold)


def test_targets_stay_in_the_store_only_where_there_is_one_and_they_are_many(cache, tmp_path, monkeypatch):
    config = BrainDiffuser.config_class(**{**BrainDiffuser.preset("lab"), "stream_above": 3 * 17 * 64})
    recipe = BrainDiffuser(config)
    shown = Stimuli([f"s{i}" for i in range(4)], scenes.render_many(0, range(4)))

    def targets(n):
        return recipe.two_stage.target("vision", shown.select(shown.ids[:n]), recipe, streams=True)

    assert isinstance(targets(4), StoredRows)
    assert targets(4).shape == (4, 17, 64)
    assert isinstance(targets(3), np.ndarray)
    assert targets(3).shape == (3, 17 * 64)
    monkeypatch.delenv("PHOSPHENE_CACHE")
    np.testing.assert_allclose(targets(4)[:3], targets(3), atol=1e-5)  # float32, other batches


def test_stored_means_of_captions_are_the_means_of_captions(tmp_path):
    shown = Stimuli(["a", "b", "c"], captions=(("a cat",), ("a tree", "", "snow"), ("a house", "a face")))
    clip = ClipFeatures(output="tokens", batch=2)
    expected = np.stack([clip.texts([c for c in cs if c]).mean(axis=0) for cs in shown.captions])
    store = clip.caption_mean_store(shown, tmp_path)
    np.testing.assert_allclose(store.read(["c", "a", "b"]), expected[[2, 0, 1]], atol=1e-5)  # float32, other batches
    assert len(list(tmp_path.iterdir())) == 1  # captions by themselves are not kept
    clip.caption_store(shown, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    other = Stimuli(shown.ids, captions=(*shown.captions[:2], ("a house", "snow")))
    assert clip.caption_mean_store(other, tmp_path).folder != store.folder
    with pytest.raises(DataError, match="1 of 2 stimuli have no caption, first 'b'"):
        clip.caption_mean_store(Stimuli(["a", "b"], captions=(("a cat",), (" ",))), tmp_path)
