"""VDVAE latents of pictures: what they are, through the cache, and what is refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from phosphene.errors import ConfigError, DataError, ModelError, NotAvailable
from phosphene.features import fingerprint
from phosphene.features.vdvae_latents import VdvaeFeatures
from phosphene.lab import scenes
from phosphene.models import vdvae as vdvae_weights
from phosphene.models.vdvae import Vdvae, VdvaeConfig
from phosphene.types import Stimuli

TINY = VdvaeConfig(
    image_size=16, latent_channels=3, width=16, middle=4, mixtures=2, given=2, encoder="16x1,16d4,4x1,4d4,1x1",
    decoder="1x1,4m1,16m4",
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


def network(seed=0) -> Vdvae:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Vdvae(**TINY.model_dump(mode="json")).eval().requires_grad_(False)


def converted(folder, seed=0):
    torch.save(network(seed).state_dict(), folder / f"{seed}.th")
    return vdvae_weights.convert(folder / f"{seed}.th", folder / f"vdvae-{seed}", TINY)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("vdvae"))


def stimuli(n=5, seed=0, size=16):
    return Stimuli([f"s{i}" for i in range(n)], scenes.render_many(seed, range(n), size))


def as_input(pixels):
    return torch.from_numpy((pixels / 127.5 - 1).astype(np.float32).transpose(0, 3, 1, 2).copy())


def test_latents_are_the_networks_own_first_groups(checkpoint):
    shown = stimuli()
    vdvae = VdvaeFeatures(checkpoint, batch=2)
    ours = vdvae.images(shown.pixels())
    z = network().encode(as_input(shown.pixels()))
    expected = np.concatenate([g.reshape(5, -1).numpy() for g in z[:2]], axis=1)
    assert ours.shape == (5, 51) == (5, *vdvae.shape())
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5)  # float32 sums of order 1 in other batches
    more = VdvaeFeatures(checkpoint, groups=3).images(shown.pixels())
    np.testing.assert_allclose(more[:, :51], ours, atol=1e-5)
    assert more.shape == (5, TINY.length())


def test_all_groups_give_the_networks_reconstruction(checkpoint):
    shown, net = stimuli(), network()
    vectors = VdvaeFeatures(checkpoint, groups=3).images(shown.pixels())
    rebuilt = net.picture([torch.from_numpy(g.copy()) for g in TINY.split(vectors)])
    torch.testing.assert_close(rebuilt, net.picture(net.encode(as_input(shown.pixels()))), atol=1e-5, rtol=1e-5)


def test_a_plain_picture_of_any_size_is_the_same_picture(checkpoint):
    vdvae = VdvaeFeatures(checkpoint)
    colour = np.array([10, 128, 250], dtype=np.uint8)
    small, large = (vdvae.images(np.broadcast_to(colour, (1, *size, 3))) for size in ((16, 16), (425, 300)))
    np.testing.assert_allclose(small, large, atol=1e-6)


def test_larger_pictures_are_resized_by_pillow_bilinearly(checkpoint):
    from PIL import Image

    vdvae, large = VdvaeFeatures(checkpoint), scenes.render_many(0, range(2), 40)
    resized = np.stack([np.asarray(Image.fromarray(p).resize((16, 16), Image.Resampling.BILINEAR)) for p in large])
    np.testing.assert_array_equal(vdvae.images(large), vdvae.images(resized))


@pytest.mark.fault(28)
def test_grey_pictures_are_seen_as_colour_pictures_without_colour(checkpoint):
    vdvae, grey = VdvaeFeatures(checkpoint), stimuli().pixels()[..., :1]
    np.testing.assert_array_equal(vdvae.images(grey), vdvae.images(np.repeat(grey, 3, axis=3)))


def test_samples_scatter_around_the_mean_by_seed_and_stimulus(checkpoint):
    shown = stimuli()
    drawn = VdvaeFeatures(checkpoint, groups=1, target="sample", seed=1, batch=2)
    z = drawn.transform(shown)
    np.testing.assert_allclose(drawn.transform(shown.select(["s4", "s1"])), z[[4, 1]], atol=1e-6)
    other = VdvaeFeatures(checkpoint, groups=1, target="sample", seed=2).transform(shown)
    assert np.abs(z - other).min() > 0
    # One picture under 500 ids: the first group is normal around the posterior's mean.
    many = drawn.images(np.repeat(shown.pixels()[:1], 500, axis=0), range(500))
    mean = VdvaeFeatures(checkpoint, groups=1).images(shown.pixels()[:1])[0]
    assert (np.abs(many.mean(axis=0) - mean) < 4 * many.std(axis=0) / np.sqrt(500)).all()


def test_latents_are_computed_once_and_read_by_stimulus(checkpoint, tmp_path):
    shown, vdvae = stimuli(), VdvaeFeatures(checkpoint)
    direct = vdvae.transform(shown)
    np.testing.assert_allclose(vdvae.transform(shown, tmp_path), direct, atol=1e-6)
    seen = []

    class Watched(VdvaeFeatures):
        def images(self, pixels, ids=None):
            seen.append(len(pixels))
            return super().images(pixels, ids)

    again = Watched(checkpoint).image_store(shown.select(shown.ids[::-1]), tmp_path)
    np.testing.assert_allclose(again.read(["s3", "s0"]), direct[[3, 0]], atol=1e-6)
    assert seen == [8]  # the references only


@pytest.mark.fault(98)
@pytest.mark.parametrize("change", ["groups", "target", "seed", "dtype", "pixels", "weights"])
def test_another_extractor_or_other_pictures_get_a_store_of_their_own(checkpoint, tmp_path, change):
    first = VdvaeFeatures(checkpoint, target="sample" if change == "seed" else "mean")
    options = {"groups": {"groups": 1}, "target": {"target": "sample"}, "dtype": {"dtype": "float16"}}.get(change, {})
    if change == "seed":
        options = {"target": "sample", "seed": 1}
    folder = converted(tmp_path, seed=1) if change == "weights" else checkpoint
    shown = stimuli(seed=1) if change == "pixels" else stimuli()
    one = first.image_store(stimuli(), tmp_path / "cache")
    two = VdvaeFeatures(folder, **options).image_store(shown, tmp_path / "cache")
    assert one.folder != two.folder


@pytest.mark.fault(79)
def test_latents_that_moved_are_not_mixed(checkpoint, tmp_path):
    from safetensors.numpy import load_file, save_file

    store = VdvaeFeatures(checkpoint).image_store(stimuli(), tmp_path)
    file = store.folder / fingerprint.FILE
    moved = load_file(file)["features"] * np.float32(1.01)
    save_file({"features": moved}, file, metadata={"versions": json.dumps(fingerprint.versions())})
    with pytest.raises(ModelError, match="largest relative error 0.0099"):
        VdvaeFeatures(checkpoint).image_store(stimuli(), tmp_path)


def test_missing_pictures_are_left_out_of_the_store(checkpoint, tmp_path):
    shown = stimuli()
    shown = Stimuli(shown.ids, shown.images, present=np.array([True, True, False, True, True]))
    store = VdvaeFeatures(checkpoint).image_store(shown, tmp_path)
    with pytest.raises(DataError, match="s2"):
        store.read(["s1", "s2"])


def test_the_lab_network_comes_from_the_zoo(tmp_path):
    from safetensors.torch import save

    from phosphene.lab.zoo import networks
    from phosphene.lab.zoo.networks import NETWORKS

    if "vdvae" not in networks.NETWORKS:
        pytest.skip("the zoo does not list 'vdvae'")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        data = save(networks.build("vdvae").state_dict())
    (tmp_path / "vdvae.safetensors").write_bytes(data)
    record = {"config": NETWORKS["vdvae"].config, "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / "vdvae.json").write_text(json.dumps(record))
    vdvae = VdvaeFeatures(lab_folder=tmp_path)
    assert vdvae.space == "vdvae_lab"
    assert vdvae.images(stimuli(2, size=32).pixels()).shape == (2, 644)
    assert vdvae.spec()["weights"] == record["sha256"]


def test_without_bundled_weights_the_way_to_make_them_is_named(tmp_path):
    with pytest.raises((NotAvailable, ConfigError), match="vdvae"):
        VdvaeFeatures(lab_folder=tmp_path).images(stimuli().pixels())


@pytest.mark.parametrize("name", ["labb", "no/such/folder"])
def test_a_name_that_is_nothing_says_what_is(name):
    with pytest.raises(ConfigError, match="expected 'lab', or a folder"):
        VdvaeFeatures(name).shape()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"target": "means"}, "Did you mean 'mean'"), ({"batch": 0}, "batch must be"), ({"groups": 0}, "groups must be")],
)
def test_unknown_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        VdvaeFeatures(**options)


def test_what_is_no_picture_is_refused(checkpoint):
    vdvae, shown = VdvaeFeatures(checkpoint), stimuli().pixels()
    for wrong, words in ((shown.astype(np.float32), "0-1"), (shown[0], "shape"), (shown.astype(int), "int64")):
        with pytest.raises(DataError, match=words):
            vdvae.images(wrong)
    with pytest.raises(DataError, match="5 pictures came with 1 ids"):
        vdvae.images(shown, ["a"])
    with pytest.raises(DataError, match="groups 1 to 3"):
        VdvaeFeatures(checkpoint, groups=4).images(shown)


def test_spaces_have_short_plain_names():
    assert VdvaeFeatures("weights/VDVAE-64", groups=31).space == "vdvae_vdvae_64_31"
