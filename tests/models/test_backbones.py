"""Public networks: their layout, their unusual pieces in closed form, and files that are refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from phosphene.errors import ConfigError, ModelError, NotAvailable
from phosphene.metrics.public_extractors import IMAGENET, normalised
from phosphene.models import backbones
from phosphene.models.alexnet import AlexNet
from phosphene.models.backbones import PUBLIC, load_backbone
from phosphene.models.efficientnet import EfficientNetB1, EfficientNetLite0, SameConv2d, SqueezeExcite
from phosphene.models.inception import FidInception, InceptionV3, own_scale, padded_mean, resized_as_tensorflow_1
from phosphene.models.resnet import ResNet50


def on_meta(build):
    with torch.device("meta"):
        return build()


def random_state(build, seed=0):
    """Weights of the network's layout, small enough for finite activations; variances positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, like in on_meta(build).state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = torch.rand(like.shape, generator=generator) + 0.5
        else:
            state[name] = torch.randn(like.shape, generator=generator) / max(1, like[0].numel()) ** 0.5
    return state


def written(folder, public, state):
    """The state as a file, and the entry with the hash that such a file has."""
    file = folder / public.file
    torch.save(state, file)
    return replace(public, sha256=hashlib.sha256(file.read_bytes()).hexdigest()[:8]) if public.sha256 else public


# -- layout ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "n_parameters", "n_entries"),
    [
        (AlexNet, 61_100_840, 16),
        (InceptionV3, 27_161_264, 580),
        (EfficientNetB1, 7_794_184, 508),
        (ResNet50, 25_557_032, 320),
        (EfficientNetLite0, 4_652_008, 296),
    ],
)
def test_networks_have_as_many_parameters_as_the_public_ones(build, n_parameters, n_entries):
    network = on_meta(build)
    assert sum(p.numel() for p in network.parameters()) == n_parameters
    assert len(network.state_dict()) == n_entries


def test_inception_without_the_second_classifier_has_its_23_8_million_parameters():
    network = on_meta(InceptionV3)
    assert sum(p.numel() for n, p in network.named_parameters() if not n.startswith("AuxLogits.")) == 23_834_568


ALEXNET = {
    "features.0": (64, 3, 11, 11), "features.3": (192, 64, 5, 5), "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3), "features.10": (256, 256, 3, 3), "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096), "classifier.6": (1000, 4096),
}  # fmt: skip


def test_alexnet_has_the_public_names_and_shapes():
    wanted = {f"{k}.weight": v for k, v in ALEXNET.items()} | {f"{k}.bias": v[:1] for k, v in ALEXNET.items()}
    assert {k: tuple(v.shape) for k, v in on_meta(AlexNet).state_dict().items()} == wanted


def norm(name, width):
    parts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,)) | {"num_batches_tracked": ()}
    return {f"{name}.{part}": shape for part, shape in parts.items()}


def test_resnet_has_the_public_names_and_shapes():
    wanted = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64), "fc.weight": (1000, 2048), "fc.bias": (1000,)}
    n_in = 64
    for layer, (width, n) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for block in range(n):
            at = f"layer{layer}.{block}"
            wanted |= {f"{at}.conv1.weight": (width, n_in, 1, 1), **norm(f"{at}.bn1", width)}
            wanted |= {f"{at}.conv2.weight": (width, width, 3, 3), **norm(f"{at}.bn2", width)}
            wanted |= {f"{at}.conv3.weight": (4 * width, width, 1, 1), **norm(f"{at}.bn3", 4 * width)}
            if block == 0:
                wanted |= {
                    f"{at}.downsample.0.weight": (4 * width, n_in, 1, 1),
                    **norm(f"{at}.downsample.1", 4 * width),
                }
            n_in = 4 * width
    assert {k: tuple(v.shape) for k, v in on_meta(ResNet50).state_dict().items()} == wanted


def test_efficientnet_b1_has_the_public_names_and_shapes():
    def unit(name, shape):
        return {f"{name}.0.weight": shape, **norm(f"{name}.1", shape[0])}

    stages = [(16, 3, 2), (24, 3, 3), (40, 5, 3), (80, 3, 4), (112, 5, 4), (192, 5, 5), (320, 3, 2)]
    wanted, n_in = unit("features.0", (32, 3, 3, 3)), 32
    for stage, (n_out, side, n) in enumerate(stages, start=1):
        for block in range(n):
            at, wide, k = f"features.{stage}.{block}.block", n_in * (1 if stage == 1 else 6), 0
            if stage > 1:
                wanted |= unit(f"{at}.0", (wide, n_in, 1, 1))
                k = 1
            wanted |= unit(f"{at}.{k}", (wide, 1, side, side))
            wanted |= {f"{at}.{k + 1}.fc1.weight": (n_in // 4, wide, 1, 1), f"{at}.{k + 1}.fc1.bias": (n_in // 4,)}
            wanted |= {f"{at}.{k + 1}.fc2.weight": (wide, n_in // 4, 1, 1), f"{at}.{k + 1}.fc2.bias": (wide,)}
            wanted |= unit(f"{at}.{k + 2}", (n_out, wide, 1, 1))
            n_in = n_out
    wanted |= unit("features.8", (1280, 320, 1, 1)) | {
        "classifier.1.weight": (1000, 1280),
        "classifier.1.bias": (1000,),
    }
    assert {k: tuple(v.shape) for k, v in on_meta(EfficientNetB1).state_dict().items()} == wanted


def test_inception_has_the_public_names_and_shapes():
    """Convolutions of the layout of 2015, by hand; every one has a norm of its width."""
    convolutions = {
        "Conv2d_1a_3x3": (32, 3, 3, 3), "Conv2d_2a_3x3": (32, 32, 3, 3), "Conv2d_2b_3x3": (64, 32, 3, 3),
        "Conv2d_3b_1x1": (80, 64, 1, 1), "Conv2d_4a_3x3": (192, 80, 3, 3),
        "Mixed_6a.branch3x3": (384, 288, 3, 3), "Mixed_6a.branch3x3dbl_1": (64, 288, 1, 1),
        "Mixed_6a.branch3x3dbl_2": (96, 64, 3, 3), "Mixed_6a.branch3x3dbl_3": (96, 96, 3, 3),
        "AuxLogits.conv0": (128, 768, 1, 1), "AuxLogits.conv1": (768, 128, 5, 5),
        "Mixed_7a.branch3x3_1": (192, 768, 1, 1), "Mixed_7a.branch3x3_2": (320, 192, 3, 3),
        "Mixed_7a.branch7x7x3_1": (192, 768, 1, 1), "Mixed_7a.branch7x7x3_2": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_3": (192, 192, 7, 1), "Mixed_7a.branch7x7x3_4": (192, 192, 3, 3),
    }  # fmt: skip
    for at, n_in, n_pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        shapes = {
            "1x1": (64, n_in, 1, 1), "5x5_1": (48, n_in, 1, 1), "5x5_2": (64, 48, 5, 5), "3x3dbl_1": (64, n_in, 1, 1),
            "3x3dbl_2": (96, 64, 3, 3), "3x3dbl_3": (96, 96, 3, 3), "_pool": (n_pool, n_in, 1, 1),
        }  # fmt: skip
        convolutions |= {f"Mixed_{at}.branch{k}": v for k, v in shapes.items()}
    for at, w in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        shapes = {
            "1x1": (192, 768, 1, 1), "7x7_1": (w, 768, 1, 1), "7x7_2": (w, w, 1, 7), "7x7_3": (192, w, 7, 1),
            "7x7dbl_1": (w, 768, 1, 1), "7x7dbl_2": (w, w, 7, 1), "7x7dbl_3": (w, w, 1, 7), "7x7dbl_4": (w, w, 7, 1),
            "7x7dbl_5": (192, w, 1, 7), "_pool": (192, 768, 1, 1),
        }  # fmt: skip
        convolutions |= {f"Mixed_{at}.branch{k}": v for k, v in shapes.items()}
    for at, n_in in (("7b", 1280), ("7c", 2048)):
        shapes = {
            "1x1": (320, n_in, 1, 1), "3x3_1": (384, n_in, 1, 1), "3x3_2a": (384, 384, 1, 3), "3x3_2b": (384, 384, 3, 1),
            "3x3dbl_1": (448, n_in, 1, 1), "3x3dbl_2": (384, 448, 3, 3), "3x3dbl_3a": (384, 384, 1, 3),
            "3x3dbl_3b": (384, 384, 3, 1), "_pool": (192, n_in, 1, 1),
        }  # fmt: skip
        convolutions |= {f"Mixed_{at}.branch{k}": v for k, v in shapes.items()}
    wanted = {
        "fc.weight": (1000, 2048),
        "fc.bias": (1000,),
        "AuxLogits.fc.weight": (1000, 768),
        "AuxLogits.fc.bias": (1000,),
    }
    for name, shape in convolutions.items():
        wanted |= {f"{name}.conv.weight": shape, **norm(f"{name}.bn", shape[0])}
    assert {k: tuple(v.shape) for k, v in on_meta(InceptionV3).state_dict().items()} == wanted


# -- shapes and pieces -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "width"),
    [
        (lambda: AlexNet(4), 192 * 27 * 27),
        (lambda: AlexNet(11), 256 * 13 * 13),
        (InceptionV3, 2048),
        (EfficientNetB1, 1280),
        (ResNet50, 2048),
        (EfficientNetLite0, 1280),
        (FidInception, 64),
    ],
)
def test_features_have_the_published_length(build, width):
    network = on_meta(build).eval()
    with torch.device("meta"):
        assert network(torch.empty(2, 3, 224, 224)).shape == (2, width)


def test_alexnet_features_are_rectified_convolutions_before_pooling():
    network = AlexNet(11).eval()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found = network(x).view(1, 256, 13, 13)
        by_hand = torch.relu(network.features[10](network.features[:10](x)))
    torch.testing.assert_close(found, by_hand, rtol=0, atol=0)
    assert found.min() == 0


def test_inception_puts_pictures_back_onto_its_own_scale():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    wanted = (pixels / 255 - 0.5) / 0.5
    found = own_scale(normalised(pixels, *IMAGENET)).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-6)  # a few roundings of float32


def test_inception_pools_count_the_padding_as_zero():
    pooled = padded_mean(torch.ones(1, 1, 4, 4))[0, 0] * 9
    torch.testing.assert_close(pooled[0], torch.tensor([4.0, 6, 6, 4]))
    torch.testing.assert_close(pooled[1], torch.tensor([6.0, 9, 9, 6]))


def test_squeeze_and_excitation_is_its_formula():
    rng = np.random.default_rng(1)
    block = SqueezeExcite(6, 2)
    x = torch.from_numpy(rng.standard_normal((3, 6, 4, 5), dtype=np.float32))
    w1, b1, w2, b2 = (p.detach().numpy().astype(float).squeeze() for p in block.parameters())
    hidden = x.numpy().mean(axis=(2, 3)) @ w1.T + b1
    hidden = hidden / (1 + np.exp(-hidden))  # SiLU
    gate = 1 / (1 + np.exp(-(hidden @ w2.T + b2)))
    np.testing.assert_allclose(block(x).detach(), x.numpy() * gate[:, :, None, None], atol=1e-6)


@pytest.mark.parametrize("build", [EfficientNetB1, EfficientNetLite0])
def test_middle_convolutions_look_at_each_channel_by_itself(build):
    deep = [m for m in build().modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size[0] > 1][
        1:
    ]  # but the first
    assert len(deep) == {EfficientNetB1: 23, EfficientNetLite0: 16}[build]
    layer = deep[0]
    x = torch.randn(1, layer.in_channels, 9, 9, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 5] += 1
    moved = (layer(changed) - layer(x)).abs().amax(dim=(0, 2, 3)) > 1e-4
    assert moved.nonzero().flatten().tolist() == [5]


def test_lite0_pads_at_the_bottom_and_right_first():
    layer = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(layer.weight)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    # Sums over rows and columns 0-2, then 2-3 and one row of padding.
    wanted = torch.tensor(
        [[0 + 1 + 2 + 4 + 5 + 6 + 8 + 9 + 10, 2 + 3 + 6 + 7 + 10 + 11], [8 + 9 + 10 + 12 + 13 + 14, 52 - 2]]
    )
    torch.testing.assert_close(layer(x)[0, 0], wanted.float())
    assert layer(torch.zeros(1, 1, 5, 7)).shape == (1, 1, 3, 4)


def test_resizing_as_tensorflow_1_is_between_corners():
    x = torch.tensor([[10.0, 20.0]]).view(1, 1, 1, 2)
    torch.testing.assert_close(resized_as_tensorflow_1(x, 4)[0, 0, 2], torch.tensor([10.0, 15, 20, 20]))
    ramp = torch.arange(10.0).view(1, 1, 10, 1).expand(1, 1, 10, 10)
    torch.testing.assert_close(
        resized_as_tensorflow_1(ramp, 5)[0, 0, :, 0], torch.tensor([0.0, 2, 4, 6, 8])
    )  # no smoothing
    torch.testing.assert_close(resized_as_tensorflow_1(ramp, 10), ramp)


def test_features_of_fid_in_closed_form():
    """Convolutions that pass on the middle pixel of the first channel: what is left is three norms and the scale."""
    network = FidInception().eval()
    for layer in (network.Conv2d_1a_3x3, network.Conv2d_2a_3x3, network.Conv2d_2b_3x3):
        torch.nn.init.zeros_(layer.conv.weight)
        layer.conv.weight.data[0, 0, 1, 1] = 1
    x = torch.full((2, 3, 40, 30), 192.0)
    x[1] = 64  # below the middle: rectified away
    with torch.inference_mode():
        found = network(x)
    wanted = torch.zeros(2, 64)
    wanted[0, 0] = 0.5 / 1.001**1.5
    torch.testing.assert_close(found, wanted)


# -- files -------------------------------------------------------------------------------------------------------------

BUILDS = {
    "alexnet": AlexNet,
    "inception": InceptionV3,
    "efficientnet_b1": EfficientNetB1,
    "swav": lambda: ResNet50(has_classes=False),
    "inception64": FidInception,
    "imagenet_lite0": EfficientNetLite0,
}
LARGE = ("alexnet", "inception", "swav")  # 90 to 240 MB of random weights


def test_every_public_file_has_a_network():
    assert set(BUILDS) == set(PUBLIC)
    for name, public in PUBLIC.items():
        assert public.sha256 in public.file
        assert public.licence, name
    assert "CC BY-NC" in PUBLIC["swav"].licence


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in BUILDS])
def test_a_file_of_the_public_layout_is_loaded_and_its_heads_are_dropped(tmp_path, name):
    state = random_state(BUILDS[name])
    saved = dict(state)
    if name == "swav":
        saved |= {"projection_head.0.weight": torch.zeros(2), "prototypes.weight": torch.zeros(3)}
        saved = {f"module.{k}": v for k, v in saved.items()}
    if name == "inception64":
        saved |= {"Mixed_5b.branch1x1.conv.weight": torch.zeros(2), "fc.weight": torch.zeros(1008, 3)}
    if name == "inception":  # written before counts were kept
        saved = {k: v for k, v in saved.items() if not k.endswith("num_batches_tracked")}
    network = load_backbone(BUILDS[name], written(tmp_path, PUBLIC[name], saved), tmp_path)
    kept = network.state_dict()
    assert not [k for k in kept if k.startswith(tuple(f"{h}." for h in network.heads))]
    for k, v in kept.items():
        torch.testing.assert_close(
            v, torch.tensor(0) if name == "inception" and v.ndim == 0 else state[k], rtol=0, atol=0
        )
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    with torch.inference_mode():
        assert torch.isfinite(network(torch.zeros(1, 3, 224, 224))).all()


def test_a_file_under_another_name_is_found_by_its_hash(tmp_path):
    public = written(tmp_path, PUBLIC["inception64"], random_state(FidInception))
    (tmp_path / public.file).rename(tmp_path / f"pt_inception-2015-12-05-{public.sha256}.pth")
    assert public.find(tmp_path).name.startswith("pt_inception")
    assert load_backbone(FidInception, public, tmp_path).heads == ()


def test_the_wrong_hash_is_refused_with_both_hashes(tmp_path):
    torch.save(random_state(FidInception), tmp_path / PUBLIC["inception64"].file)
    with pytest.raises(
        ModelError, match="begins with 6726825d, but it begins with [0-9a-f]{8}: it is damaged or another"
    ):
        load_backbone(FidInception, PUBLIC["inception64"], tmp_path)


def test_a_missing_file_says_where_to_get_it_and_under_what_licence(tmp_path, monkeypatch):
    monkeypatch.delenv("PHOSPHENE_WEIGHTS", raising=False)
    for folder in (None, tmp_path):
        with pytest.raises(
            NotAvailable, match=r"(?s)nothing is downloaded.*deepcluster.*CC BY-NC 4.0.*PHOSPHENE_WEIGHTS"
        ):
            PUBLIC["swav"].read(folder)


def test_a_folder_that_does_not_exist_is_an_error_and_not_silence(monkeypatch, tmp_path):
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"PHOSPHENE_WEIGHTS should name a folder .*nowhere' is none"):
        PUBLIC["alexnet"].find()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("Conv2d_2a_3x3.bn.bias"), r"missing Conv2d_2a_3x3.bn.bias,"),
        (lambda s: s.update(more=torch.zeros(1)), "unexpected more,"),
        (
            lambda s: s.update({"Conv2d_2a_3x3.bn.bias": torch.zeros(9)}),
            r"another shape Conv2d_2a_3x3.bn.bias \(9,\) for \(32,\)",
        ),
        (lambda s: s["Conv2d_2a_3x3.bn.bias"].fill_(torch.nan), r"not finite Conv2d_2a_3x3.bn.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    state = random_state(FidInception)
    change(state)
    with pytest.raises(ModelError, match=message):
        load_backbone(FidInception, written(tmp_path, PUBLIC["inception64"], state), tmp_path)


def test_a_file_that_wants_to_run_something_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, ("x",))

    public = written(tmp_path, PUBLIC["inception64"], {"a": Evil()})
    with pytest.raises(ModelError, match="could run any command"):
        load_backbone(FidInception, public, tmp_path)


def test_public_names_are_there():
    for name in backbones.__all__:
        assert getattr(backbones, name) is not None
