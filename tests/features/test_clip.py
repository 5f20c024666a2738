"""CLIP features: against transformers itself, through the cache, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

from phosphene.errors import ConfigError, DataError, ModelError, NotAvailable, PhospheneWarning
from phosphene.features import fingerprint
from phosphene.features.clip import ClipFeatures
from phosphene.io.store import RowStore
from phosphene.lab import scenes, zoo
from phosphene.lab.zoo import networks
from phosphene.models import public_clip as clip_files
from phosphene.models.public_clip import Preprocessing
from phosphene.types import Stimuli

SIZE, PATCH, DIM, LENGTH = 24, 8, 6, 12
REFERENCE_DIGEST = "4e946db7682a3bd5"
TEXTS = ["a cat", "a photo of a red umbrella in a sandy desert", "", "snow " * 10_000]


def make_checkpoint(folder):
    """A tiny random CLIP, saved by transformers like a public one: network, tokenizer, preprocessing."""
    import torch
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tower = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
    saved = networks.train_tokenizer(TEXTS[:2], size=256, length=LENGTH)
    marks = {"bos_token_id": 254, "eos_token_id": 255, "pad_token_id": 255}
    config = CLIPConfig(
        projection_dim=DIM,
        vision_config={**tower, "image_size": SIZE, "patch_size": PATCH, "projection_dim": DIM},
        text_config={**tower, **marks, "vocab_size": 256, "max_position_embeddings": LENGTH, "projection_dim": DIM},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    networks.make_tokenizer(saved).save_pretrained(folder)
    edges = {"size": {"shortest_edge": SIZE + 2}, "crop_size": {"height": SIZE, "width": SIZE}}
    CLIPImageProcessorPil(**edges).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def copy(checkpoint, tmp_path):
    """The checkpoint, to be spoiled."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The lab CLIP's architecture with random weights, in the files of the zoo."""
    import torch
    from safetensors.torch import save

    folder = tmp_path_factory.mktemp("zoo")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        data = save({k: v.contiguous() for k, v in networks.build("clip").state_dict().items()})
    (folder / "clip.safetensors").write_bytes(data)
    record = {
        "config": networks.NETWORKS["clip"][1],
        "tokenizer": networks.train_tokenizer(["a cat in the snow"]),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (folder / "clip.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def reference(checkpoint):
    """transformers' own network and processor, without ours in between."""
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPModel.from_pretrained(checkpoint).eval(), CLIPImageProcessorPil.from_pretrained(checkpoint)


def pictures(n=5, height=40, width=31, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def stimuli(n=5):
    captions = tuple((f"a cat {i}", "", "snow")[: 1 + 2 * (i % 2)] for i in range(n))
    return Stimuli([f"s{i}" for i in range(n)], scenes.render_many(0, range(n)), captions)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# -- preprocessing -----------------------------------------------------------------------------------------------------


def test_a_plain_picture_becomes_its_normalised_colour():
    x = Preprocessing()(np.full((1, 300, 500, 3), (10, 128, 250), dtype=np.uint8))
    assert x.shape == (1, 3, 224, 224)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    expected = [(v / 255 - m) / s for v, m, s in zip((10, 128, 250), mean, std, strict=True)]
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), expected, rtol=1e-5)  # float32
    assert np.ptp(x, axis=(2, 3)).max() == 0


def test_halving_a_ramp_bicubically_gives_the_ramp_of_the_pixel_centres():
    ramp = np.broadcast_to((2 * np.arange(64, dtype=np.uint8))[:, None], (64, 64))[None, :, :, None]
    x = Preprocessing(32, 32, (0, 0, 0), (1, 1, 1))(ramp)
    # Any kernel that reproduces straight lines gives the value between rows 2 i and 2 i + 1; the ends see an edge.
    np.testing.assert_allclose(x[0, 0, 2:-2, 5] * 255, 4 * np.arange(32)[2:-2] + 1, atol=1e-4)


def test_the_middle_is_cut_out_and_nearer_to_the_left_where_it_cannot_be_the_middle():
    columns = np.broadcast_to(np.arange(11, dtype=np.uint8)[None, :, None], (8, 11, 3))[None]
    x = Preprocessing(8, 8, (0, 0, 0), (1, 1, 1))(columns)
    np.testing.assert_allclose(x[0, 0, 0] * 255, np.arange(1, 9), rtol=1e-6)


@pytest.mark.parametrize("shape", [(40, 31), (31, 40), (24, 24), (13, 17), (97, 26)])
def test_preprocessing_is_that_of_transformers(checkpoint, reference, shape):
    ours = Preprocessing.of(checkpoint, SIZE)(pictures(2, *shape))
    theirs = np.stack([reference[1](picture)["pixel_values"][0] for picture in pictures(2, *shape)])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # float32 of values up to 2; one grey level is 0.015


@pytest.mark.fault(28)
def test_grey_pictures_are_seen_as_colour_pictures_without_colour():
    grey = pictures(channels=1)
    np.testing.assert_array_equal(Preprocessing()(grey), Preprocessing()(np.repeat(grey, 3, axis=3)))


def test_floats_are_rounded_to_the_nearest_of_256_levels():
    levels = pictures()
    np.testing.assert_array_equal(Preprocessing()((levels / 255).astype(np.float32)), Preprocessing()(levels))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (pictures().astype(np.float32), "must lie in 0-1"),
        (pictures()[0], r"shape \(40, 31, 3\)"),
        (pictures().astype(np.int32), "but are int32"),
        (np.full((1, 4, 4, 3), np.nan, dtype=np.float32), "must lie in 0-1"),
    ],
)
def test_other_pictures_are_refused(wrong, said):
    with pytest.raises(DataError, match=said):
        Preprocessing()(wrong)


def test_sizes_in_the_old_notation_are_understood(copy):
    (copy / "preprocessor_config.json").write_text(json.dumps({"size": SIZE + 2, "crop_size": SIZE, "resample": 3}))
    assert Preprocessing.of(copy, SIZE) == Preprocessing(SIZE + 2, SIZE)


@pytest.mark.parametrize(
    "odd", [{"resample": 2}, {"do_center_crop": False}, {"size": {"height": 8, "width": 9}}, {"crop_size": SIZE + 1}]
)
def test_a_preprocessing_that_is_not_ours_is_refused(copy, odd):
    (copy / "preprocessor_config.json").write_text(json.dumps({"size": SIZE, "crop_size": SIZE, **odd}))
    with pytest.raises(ConfigError, match="expected: shorter side"):
        Preprocessing.of(copy, SIZE)


def test_the_lab_sees_pictures_as_the_zoo_does(lab):
    shown = scenes.render_many(0, range(3))
    ours = ClipFeatures(lab_folder=lab)._preprocessing(shown)
    np.testing.assert_allclose(ours, zoo.to_network(shown).numpy(), atol=1e-6)  # float32 of values up to 1


# -- latents -----------------------------------------------------------------------------------------------------------
# All tolerances of 1e-5: the same float32 network on other batches; the latents are of order 1.


@pytest.mark.parametrize("normalise", ["l2", "none"])
def test_pooled_latents_are_those_of_transformers(checkpoint, reference, normalise):
    network, processor = reference
    clip = ClipFeatures(checkpoint, normalise=normalise, batch=2)
    seen = network.get_image_features(processor(list(pictures()), return_tensors="pt")["pixel_values"])
    read = network.get_text_features(**clip._tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt"))
    for ours, theirs in ((clip.images(pictures()), seen), (clip.texts(TEXTS), read)):
        theirs = theirs.pooler_output.detach().numpy()
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, unit(theirs) if normalise == "l2" else theirs, atol=1e-5)


def test_tokens_are_the_projected_states_over_the_length_of_the_pooled_one(checkpoint, reference):
    """Versatile Diffusion's convention, written out."""
    network, processor = reference
    clip = ClipFeatures(checkpoint, output="tokens", batch=2)
    seen = network.vision_model(processor(list(pictures()), return_tensors="pt")["pixel_values"]).last_hidden_state
    states = network.visual_projection(network.vision_model.post_layernorm(seen)).detach().numpy()
    ours = clip.images(pictures())
    assert ours.shape == (5, 10, DIM) == (5, *clip.shape("images"))
    np.testing.assert_allclose(ours, states / np.linalg.norm(states[:, :1], axis=-1, keepdims=True), atol=1e-5)

    tokens = clip._tokenizer(TEXTS, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    states = network.text_projection(network.text_model(tokens["input_ids"]).last_hidden_state).detach().numpy()
    pooled = network.get_text_features(tokens["input_ids"]).pooler_output.detach().numpy()
    ours = clip.texts(TEXTS)
    assert ours.shape == (4, LENGTH, DIM) == (4, *clip.shape("captions"))
    np.testing.assert_allclose(ours, states / np.linalg.norm(pooled, axis=-1)[:, None, None], atol=1e-5)


def test_the_first_token_of_a_picture_is_its_pooled_latent(checkpoint):
    tokens = ClipFeatures(checkpoint, output="tokens").images(pictures())
    np.testing.assert_allclose(tokens[:, 0], ClipFeatures(checkpoint).images(pictures()), atol=1e-5)


@pytest.mark.fault(32)
def test_a_text_of_ten_thousand_words_is_cut_where_the_network_ends(checkpoint):
    clip = ClipFeatures(checkpoint)
    np.testing.assert_allclose(clip.texts(["snow " * 10_000]), clip.texts(["snow " * 100]), atol=1e-5)


def test_padding_beside_a_long_text_does_not_move_a_short_one(checkpoint):
    clip = ClipFeatures(checkpoint)
    np.testing.assert_allclose(clip.texts(TEXTS)[:1], clip.texts(TEXTS[:1]), atol=1e-5)


@pytest.mark.parametrize("output", ["pooled", "tokens"])
def test_what_texts_are_filed_under_does_not_change_by_reading_some(checkpoint, output):
    clip = ClipFeatures(checkpoint, output=output)
    before = clip.spec("captions")
    clip.texts(TEXTS)
    assert clip.spec("captions") == before


def test_no_pictures_give_no_latents(checkpoint):
    assert ClipFeatures(checkpoint).images(pictures(0)).shape == (0, DIM)


@pytest.mark.skipif("clip" not in zoo.names(), reason="the weights of the lab CLIP are not bundled")
def test_the_lab_clip_knows_which_caption_belongs_to_which_scene():
    clip = ClipFeatures()
    every = [max(c, key=len) for c in scenes.captions_many(scenes.describe_many(99, range(100)))]
    fit = clip.images(scenes.render_many(99, range(100))) @ clip.texts(every).T
    # Chance is 1 in 100; the card says about nine in ten for scenes it was not trained on.
    assert (fit.argmax(axis=1) == np.arange(100)).mean() > 0.5


@pytest.mark.parametrize(
    ("name", "output", "space"),
    [
        ("lab", "pooled", "clip_lab"),
        ("openai/clip-vit-large-patch14", "tokens", "clip_vit_large_patch14_tokens"),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "pooled", "clip_vit_h_14_laion2b_s32b_b79k"),
    ],
)
def test_spaces_have_short_plain_names(name, output, space):
    assert ClipFeatures(name, output=output).space == space


def test_unknown_options_are_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'tokens'"):
        ClipFeatures(output="token")


# -- through the cache -------------------------------------------------------------------------------------------------


def test_features_are_computed_once_and_read_by_stimulus(checkpoint, tmp_path):
    shown, clip = stimuli(), ClipFeatures(checkpoint)
    direct = clip.transform(shown)
    np.testing.assert_allclose(clip.transform(shown, tmp_path), direct, atol=1e-6)
    again = ClipFeatures(checkpoint).image_store(shown.select(shown.ids[::-1]), tmp_path)
    np.testing.assert_allclose(again.read(["s3", "s0"]), direct[[3, 0]], atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_second_use_computes_the_references_only(checkpoint, tmp_path):
    ClipFeatures(checkpoint).image_store(stimuli(20), tmp_path)
    seen = []

    class Watched(ClipFeatures):
        def images(self, pixels):
            seen.append(len(pixels))
            return super().images(pixels)

    Watched(checkpoint).image_store(stimuli(20), tmp_path)
    assert seen == [8]


@pytest.mark.fault(98)
@pytest.mark.parametrize("change", ["output", "normalise", "dtype", "pixels", "preprocessing", "weights"])
def test_another_extractor_or_other_pictures_get_a_store_of_their_own(copy, tmp_path, change):
    options, shown = {}, stimuli()
    first = ClipFeatures(copy).image_store(shown, tmp_path / "cache")
    if change in ("output", "normalise", "dtype"):
        options = {change: {"output": "tokens", "normalise": "none", "dtype": "float16"}[change]}
    elif change == "pixels":
        shown = Stimuli(shown.ids, scenes.render_many(1, range(5)))
    elif change == "preprocessing":
        (copy / "preprocessor_config.json").unlink()
    else:
        scale_weights(copy, 1.01)
    second = ClipFeatures(copy, **options).image_store(shown, tmp_path / "cache")
    assert second.folder != first.folder
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_same_weights_elsewhere_share_the_store(checkpoint, copy, tmp_path):
    first = ClipFeatures(checkpoint).image_store(stimuli(), tmp_path / "cache")
    assert ClipFeatures(copy).image_store(stimuli(), tmp_path / "cache").folder == first.folder


def test_missing_pictures_are_left_out_and_named_when_asked_for(checkpoint, tmp_path):
    shown = stimuli()
    shown = Stimuli(shown.ids, shown.images, present=np.array([True, True, False, True, True]))
    store = ClipFeatures(checkpoint).image_store(shown, tmp_path)
    assert len(store) == 4
    with pytest.raises(DataError, match="s2"):
        store.read(["s1", "s2"])


@pytest.mark.parametrize("output", ["pooled", "tokens"])
def test_captions_are_averaged_over_those_that_are_not_empty(checkpoint, tmp_path, output):
    clip = ClipFeatures(checkpoint, output=output, batch=3)
    expected = np.stack([clip.texts([c for c in cs if c]).mean(axis=0) for cs in stimuli().captions])
    np.testing.assert_allclose(clip.captions(stimuli()), expected, atol=1e-5)
    np.testing.assert_allclose(clip.captions(stimuli(), tmp_path), expected, atol=1e-5)
    np.testing.assert_allclose(
        clip.caption_store(stimuli(), tmp_path).read(["s1#2"])[0], clip.texts(["snow"])[0], atol=1e-5
    )


@pytest.mark.fault(32)
def test_a_stimulus_without_captions_is_named(checkpoint):
    bare = Stimuli(["a", "b"], captions=(("a cat",), ("", " ")))
    with pytest.raises(DataError, match="1 of 2 stimuli have no caption, first 'b'"):
        ClipFeatures(checkpoint).captions(bare)


def test_the_lab_clip_goes_through_the_same_cache(lab, tmp_path):
    clip = ClipFeatures(lab_folder=lab, output="tokens", dtype="float16")
    rows = clip.image_store(stimuli(), tmp_path).read(["s4"])
    assert rows.shape == (1, 17, 64)
    assert rows.dtype == np.float16
    # Halves keep 11 bits.
    np.testing.assert_allclose(rows, clip.images(stimuli().pixels(slice(4, 5))), rtol=2**-11, atol=1e-6)


# -- fingerprint -------------------------------------------------------------------------------------------------------


def doctored(store, features=None, **versions):
    """Rewrite a fingerprint as another installation would have left it."""
    from safetensors.numpy import load_file, save_file

    file = store.folder / fingerprint.FILE
    features = load_file(file)["features"] if features is None else features
    told = {"versions": json.dumps({**fingerprint.versions(), **versions})}
    save_file({"features": np.ascontiguousarray(features)}, file, metadata=told)


@pytest.mark.fault(79)
def test_features_that_moved_are_not_mixed_and_both_sides_are_named(checkpoint, tmp_path):
    store = ClipFeatures(checkpoint).image_store(stimuli(), tmp_path)
    now = ClipFeatures(checkpoint).images(fingerprint.reference_pictures())
    doctored(store, now + 0.01 * np.roll(now, 1, axis=1), transformers="4.19.2")
    here = fingerprint.versions()["transformers"]
    with pytest.raises(ModelError, match=rf"made with .*transformers 4\.19\.2; here is .*transformers {here}"):
        ClipFeatures(checkpoint).image_store(stimuli(), tmp_path)


@pytest.mark.fault(79)
def test_a_tokenizer_that_moved_is_found_by_the_reference_texts(copy, tmp_path):
    store = ClipFeatures(copy).caption_store(stimuli(), tmp_path / "cache")
    now = ClipFeatures(copy).texts(fingerprint.reference_texts())
    doctored(store, now[::-1])
    with pytest.raises(ModelError, match="smallest cosine"):
        ClipFeatures(copy).caption_store(stimuli(), tmp_path / "cache")


def test_another_version_with_the_same_numbers_is_welcome(checkpoint, tmp_path):
    doctored(ClipFeatures(checkpoint).image_store(stimuli(), tmp_path), transformers="4.19.2")
    assert ClipFeatures(checkpoint).image_store(stimuli(), tmp_path).missing() == []


@pytest.mark.fault(79)
@pytest.mark.parametrize(("error", "accepted"), [(0.9e-3, True), (1.1e-3, False)])
def test_the_fingerprint_allows_a_relative_error_of_a_thousandth(tmp_path, error, accepted):
    """A step along the vector leaves the cosine at 1; the relative error is the step."""
    store = RowStore.open_or_make(tmp_path / "s", {}, ["a"], (2,))
    features = np.random.default_rng(0).normal(size=(8, 50))
    fingerprint.hold(store, features)
    if accepted:
        fingerprint.hold(store, features * (1 + error))
    else:
        with pytest.raises(ModelError, match="largest relative error 0.0011"):
            fingerprint.hold(store, features * (1 + error))


@pytest.mark.fault(97)
@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_rows_whose_fingerprint_is_lost_are_computed_again(checkpoint, tmp_path, damage):
    store = ClipFeatures(checkpoint).image_store(stimuli(), tmp_path)
    expected = store.read(stimuli().ids)
    file = store.folder / fingerprint.FILE
    file.unlink() if damage == "lost" else file.write_bytes(file.read_bytes()[:30])
    store.forget()
    store.fill(lambda ids: np.zeros((len(ids), DIM)))  # rows of an unknown maker
    with pytest.warns(PhospheneWarning, match="computed again"):
        again = ClipFeatures(checkpoint).image_store(stimuli(), tmp_path)
    np.testing.assert_allclose(again.read(stimuli().ids), expected, atol=1e-6)


def test_the_references_are_the_same_bytes_everywhere():
    digest = hashlib.sha256(fingerprint.reference_pictures().tobytes()).hexdigest()
    assert digest.startswith(REFERENCE_DIGEST)
    assert len(set(fingerprint.reference_texts())) == 8


# -- checkpoints -------------------------------------------------------------------------------------------------------


def scale_weights(folder, factor=1.0, drop=(), add=None, name="logit_scale"):
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights[name] = np.asarray(weights[name] * np.float32(factor))
    weights = {k: v for k, v in weights.items() if k not in drop} | (add or {})
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def as_pickle(folder, **more):
    """The checkpoint as the hub has OpenAI's ViT-B/32: a pickle alone, which holds the numbers of positions as well."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    positions = {"text_model.embeddings.position_ids": torch.arange(LENGTH)[None]}
    torch.save({**weights, **positions, **more}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_a_checkpoint_that_is_a_pickle_alone_gives_the_same_latents(checkpoint, copy):
    as_pickle(copy)
    ours, theirs = ClipFeatures(copy), ClipFeatures(checkpoint)
    np.testing.assert_array_equal(ours.images(pictures()), theirs.images(pictures()))
    np.testing.assert_array_equal(ours.texts(TEXTS[:2]), theirs.texts(TEXTS[:2]))
    assert ours.spec()["weights"] != theirs.spec()["weights"]


class Running:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.fault(66)
def test_a_pickle_that_wants_to_run_something_is_refused(copy, capsys):
    as_pickle(copy, hook=Running())
    with pytest.raises(ModelError, match="print"):
        ClipFeatures(copy).images(pictures())
    assert capsys.readouterr().out == ""


@pytest.mark.fault(72)
def test_a_pickle_with_missing_weights_is_refused(copy):
    import torch

    as_pickle(copy)
    weights = torch.load(copy / "pytorch_model.bin", weights_only=True)
    torch.save({k: v for k, v in weights.items() if k != "visual_projection.weight"}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"missing \['visual_projection\.weight'\]"):
        ClipFeatures(copy).images(pictures())


@pytest.mark.fault(66)
def test_pickles_of_another_layout_are_never_opened(copy):
    (copy / "model.safetensors").rename(copy / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only open_clip_pytorch_model\.bin, of another layout"):
        ClipFeatures(copy).images(pictures())


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14"])
def test_the_presets_name_checkpoints_whose_revision_is_known(name, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotAvailable, match=f"hf download {name} --revision {clip_files.PINNED[name]}"):
        ClipFeatures(name).images(pictures())


@pytest.mark.fault(67)
def test_a_truncated_checkpoint_is_refused(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        ClipFeatures(copy).images(pictures())


@pytest.mark.fault(70)
def test_weights_that_are_not_finite_are_refused(copy):
    scale_weights(copy, np.nan)
    with pytest.raises(ModelError, match="'logit_scale' .* holds NaN"):
        ClipFeatures(copy).images(pictures())


@pytest.mark.fault(72)
def test_missing_or_extra_weights_are_refused_and_old_position_numbers_are_not(copy):
    positions = {"text_model.embeddings.position_ids": np.arange(LENGTH)[None]}
    scale_weights(copy, add=positions)
    assert ClipFeatures(copy).images(pictures()).shape == (5, DIM)
    scale_weights(copy, add={"text_model.extra.weight": np.ones(3, dtype=np.float32)})
    with pytest.raises(ModelError, match=r"unexpected \['text_model\.extra\.weight'\]"):
        ClipFeatures(copy).images(pictures())
    scale_weights(copy, drop=("text_model.extra.weight", "visual_projection.weight"))
    with pytest.raises(ModelError, match=r"missing \['visual_projection\.weight'\]"):
        ClipFeatures(copy).images(pictures())


@pytest.mark.fault(71)
def test_a_checkpoint_of_another_architecture_is_refused(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(ModelError, match="'siglip', but a 'clip'"):
        ClipFeatures(copy).images(pictures())


def test_a_checkpoint_without_tokenizer_still_sees(copy):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink(missing_ok=True)
    clip = ClipFeatures(copy)
    assert clip.images(pictures()).shape == (5, DIM)
    with pytest.raises(NotAvailable, match="cannot read texts"):
        clip.texts(["a cat"])


@pytest.mark.fault(80)
@pytest.mark.parametrize("revision", [None, "main", "1c2b849"])
def test_a_revision_that_may_change_is_refused(revision):
    with pytest.raises(ConfigError, match="40 hexadecimal digits"):
        ClipFeatures("nobody/some-clip", revision=revision).images(pictures())


@pytest.mark.fault(108)
def test_a_checkpoint_that_is_not_here_is_not_fetched_unasked(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotAvailable, match="download=True"):
        ClipFeatures("openai/clip-vit-large-patch14").images(pictures())


@pytest.mark.fault(80)
def test_the_pinned_revision_is_used_and_not_the_newest(checkpoint, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    name, newest = "openai/clip-vit-large-patch14", "f" * 40
    pinned = clip_files.PINNED[name]
    home = tmp_path / "models--openai--clip-vit-large-patch14"
    shutil.copytree(checkpoint, home / "snapshots" / pinned)
    shutil.copytree(checkpoint, home / "snapshots" / newest)
    scale_weights(home / "snapshots" / newest, 2, name="visual_projection.weight")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(newest)
    ours = ClipFeatures(name, normalise="none").images(pictures())
    np.testing.assert_array_equal(ours, ClipFeatures(checkpoint, normalise="none").images(pictures()))


def test_a_name_that_is_nothing_lists_what_is():
    with pytest.raises(ConfigError, match="expected 'lab', a folder"):
        ClipFeatures("vit-large").images(pictures())
