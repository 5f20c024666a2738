"""CAD's second phase against the procedure written out, transformers' own network, published sizes, and a small training."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import validate
from phosphene.io.stages import load_part, save_part
from phosphene.models import (
    CrossModal,
    CrossModalConfig,
    CrossModalPart,
    DcMae,
    DcMaeConfig,
    PatchMae,
    PatchMaeConfig,
    PatchMaePart,
    paired_batches,
)
from phosphene.training import Draws, TrainConfig, train

PICTURE = {
    "image_size": 16, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 40, "decoder_hidden_size": 20, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 28,
}  # fmt: skip


def picture_mae(seed=0, **changes) -> ViTMAEForPreTraining:
    """16 patches of 4 x 4; half of them, 8, visible by default."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ViTMAEForPreTraining(ViTMAEConfig(**(PICTURE | changes))).eval()


def brain_mae(n_voxels=99, seed=0, **changes) -> DcMae:
    return DcMae.create(DcMaeConfig(**(DcMaeConfig.preset("lab") | changes)), {"s1": n_voxels}, seed)


def lab(**changes) -> CrossModalConfig:
    return CrossModalConfig(**(CrossModalConfig.preset("lab") | changes))


def network(seed=0, brain=None, image=None, **changes) -> CrossModal:
    return CrossModal.create(lab(**changes), brain or brain_mae(), image or picture_mae(), seed)


def batch_of(n, seed=0, n_voxels=99) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "betas": {"s1": torch.randn(n, n_voxels, generator=generator)},
        "rows": {"s1": torch.arange(n)},
        "pictures": torch.randn(n, 3, 16, 16, generator=generator),
    }


def count(*modules, trained: bool | None = None) -> int:
    weights = [w for m in modules for w in m.parameters()]
    return sum(w.numel() for w in weights if trained is None or w.requires_grad is trained)


# -- published sizes ---------------------------------------------------------------------------------------------------


def public(**changes) -> CrossModal:
    """All of it at full size, without numbers."""
    with torch.device("meta"):
        brain, image = DcMae(DcMaeConfig(), {"hcp": 4183}), ViTMAEForPreTraining(ViTMAEConfig())
        assert count(image) == 111_907_840
    return CrossModal.create(CrossModalConfig(**changes), brain, image, 0, {"S3": 4643})


def test_the_paper_preset_has_the_published_number_of_parameters():
    net = public(**CrossModalConfig.preset("code"))
    brain = (net.brain, net.brain_in, net.brain_cross, net.brain_out)
    image = (net.image, net.image_cross, net.brain_seen)
    assert count(*brain, trained=True) == count(*brain) == 191_189_008
    assert (count(*image, trained=True), count(*image, trained=False)) == (48_942_336, 85_798_656)
    assert count(net.brain_cross) == count(net.image_cross) == 28_350_720
    assert len(net.brain.decoder_blocks) == len(net.image.decoder.decoder_layers) == 6
    assert (net.brain.n_patches, net.brain.n_visible, net.n_picture_visible) == (291, 72, 98)
    assert net.brain.config.positions_of == 262


def test_the_paper_trains_the_picture_encoder_and_leaves_its_decoder():
    net = public()
    image = (net.image, net.image_cross, net.brain_seen)
    decoder, codes = count(net.image.decoder), 197 * 768
    assert count(*image, trained=False) == decoder + codes
    assert count(net.image.vit, trained=True) == 85_798_656 - codes
    c = validate(CrossModalConfig, CrossModalConfig.preset("paper"), "preset")
    assert (c.brain_weight, c.picture_weight, c.brain_mask, c.picture_mask) == (0.25, 1.5, 0.75, 0.5)
    assert (c.decoder_depth, c.frozen) == (6, "decoder")


# -- what the network computes -----------------------------------------------------------------------------------------


def attend(q, k, v, n_heads):
    q, k, v = (x.unflatten(-1, (n_heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def written_out(block, x, y, n_heads=4):
    """A cross block, step by step."""
    q, k, v = block.attn.qkv(block.norm1(x)).chunk(3, -1)
    a = block.attn.proj(attend(q, k, v, n_heads))
    k, v = block.cross.kv(y).chunk(2, -1)
    x = x + block.cross.proj(attend(block.cross.q(block.norm1(a)), k, v, n_heads))
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


def test_a_cross_block_computes_its_formula():
    net = network()
    x, y = torch.randn(3, 5, 24), torch.randn(3, 9, 24)
    block = net.brain_cross[0]
    assert torch.allclose(block(x, y), written_out(block, x, y), atol=1e-5)  # float32, fused attention
    assert block.norm1.eps == 1e-12


@pytest.mark.parametrize("mask_support", [False, True])
def test_both_branches_follow_the_procedure(mask_support):
    net, batch = network(cross_blocks=2, mask_support=mask_support), batch_of(4)
    brain, vit = net.brain, net.image.vit
    patches, pictures = brain.to_patches(batch["betas"]["s1"]), batch["pictures"]
    draws = Draws(3, 0, 4)
    visible, picture_visible = brain.draw_visible(draws), net.draw_picture_visible(draws)
    voxels, pixels = net.predict(patches, pictures, visible, picture_visible)

    # Pictures through transformers' own layers: noise that keeps what we keep, in our order.
    def look(kept):
        noise = torch.ones(4, 16).scatter(1, kept, torch.arange(kept.shape[1]).float().expand(4, -1) / 100)
        c = copy.deepcopy(vit)
        c.config.mask_ratio = c.embeddings.config.mask_ratio = 1 - kept.shape[1] / 16
        c.layernorm = torch.nn.Identity()
        out = c(pictures, noise=noise)
        return out.last_hidden_state, out.ids_restore

    def normless(kept=None):
        b = copy.deepcopy(brain)
        b.norm = torch.nn.Identity()
        return b.encode(patches, kept)

    own, (seen, restore) = normless(visible), look(picture_visible)
    response = brain.norm(own if mask_support else normless())
    picture = vit.layernorm(seen if mask_support else look(torch.arange(16).expand(4, -1))[0])
    x = net.brain_in(own)
    for block in net.brain_cross:
        x = written_out(block, x, picture)
    tokens = brain.norm(net.brain_out(net.brain_in(own) + x))
    expected = brain.decode(tokens, visible)
    hidden = torch.ones(4, 13).scatter(1, visible, 0).bool()
    assert torch.allclose(voxels.flatten(), expected[hidden].flatten(), atol=1e-5)
    for block in net.image_cross:
        seen = written_out(block, seen, net.brain_seen(response))
    expected = net.image.decoder(vit.layernorm(seen), restore).logits
    hidden = torch.ones(4, 16).scatter(1, picture_visible, 0).bool()
    assert torch.allclose(pixels.flatten(), expected[hidden].flatten(), atol=1e-5)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_without_cross_attention_the_picture_error_is_that_of_transformers(norm_pix_loss):
    image = picture_mae(norm_pix_loss=norm_pix_loss, mask_ratio=0.5)
    net, batch = network(image=image), batch_of(5)
    with torch.no_grad():  # blocks that add nothing
        for block in net.image_cross:
            for last in (block.cross.proj, block.mlp.fc2):
                last.weight.zero_()
                last.bias.zero_()
    _, logs = net.loss(batch, Draws(0, 0, 5))
    draws = Draws(0, 0, 5)
    net.brain.draw_visible(draws)
    with torch.no_grad():
        theirs = image(batch["pictures"], noise=draws.uniform(16)).loss
    assert math.isclose(logs["picture"].item(), theirs.item(), rel_tol=1e-5)


def test_the_loss_weighs_both_errors():
    batch = batch_of(4)
    for weights in ((0.25, 1.5), (1.0, 0.0), (0.0, 2.0)):
        net = network(brain_weight=weights[0], picture_weight=weights[1])
        loss, logs = net.loss(batch, Draws(0, 0, 4))
        assert math.isclose(
            loss.item(), weights[0] * logs["brain"].item() + weights[1] * logs["picture"].item(), rel_tol=1e-6
        )
        assert logs["brain"] > 0 and logs["picture"] > 0


def test_errors_count_hidden_patches_alone():
    net, batch = network(), batch_of(4)
    with torch.no_grad():  # both sides say 0.5 whatever they see
        for last in (net.brain.decoder_pred, net.image.decoder.decoder_pred):
            last.weight.zero_()
            last.bias.fill_(0.5)
    _, logs = net.loss(batch, Draws(0, 0, 4))
    draws = Draws(0, 0, 4)
    visible, picture_visible = net.brain.draw_visible(draws), net.draw_picture_visible(draws)
    assert (visible.shape, picture_visible.shape) == ((4, 3), (4, 8))
    patches = net.brain.to_patches(batch["betas"]["s1"])
    hidden = torch.ones(4, 13).scatter(1, visible, 0).bool()
    assert math.isclose(logs["brain"].item(), (patches[hidden] - 0.5).square().mean().item(), rel_tol=1e-5)
    patches = net.image.patchify(batch["pictures"])
    hidden = torch.ones(4, 16).scatter(1, picture_visible, 0).bool()
    assert math.isclose(logs["picture"].item(), (patches[hidden] - 0.5).square().mean().item(), rel_tol=1e-5)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts_however_it_is_shared():
    net = network(sparsify=0.2)
    batch = batch_of(12)
    whole, _ = net.loss(batch, Draws(0, 0, 12))
    parts = []
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        share = {
            "betas": {"s1": batch["betas"]["s1"][part]},
            "rows": {"s1": torch.arange(4)},
            "pictures": batch["pictures"][part],
        }
        parts.append(net.loss(share, Draws(0, 0, 12, part))[0].item())
    assert math.isclose(whole.item(), sum(parts) / 3, rel_tol=1e-5)  # float32 sums in another order


# -- where gradients flow ----------------------------------------------------------------------------------------------


def reached(net: CrossModal, seed=0) -> set[str]:
    net.zero_grad(set_to_none=True)
    net.loss(batch_of(4, seed), Draws(0, 0, 4))[0].backward()
    return {name for name, w in net.named_parameters() if w.grad is not None and w.grad.abs().max() > 0}


def names(net: CrossModal, *starts: str) -> set[str]:
    return {name for name, _ in net.named_parameters() if name.startswith(starts)}


CODES = {"image.vit.embeddings.position_embeddings"}
ENCODER = ("brain.patch_embed", "brain.cls_token", "brain.blocks", "brain.norm")


@pytest.mark.parametrize("mask_support", [False, True])
@pytest.mark.parametrize(("frozen", "left"), [("decoder", "image.decoder"), ("encoder", "image.vit")])
def test_everything_is_trained_but_what_is_frozen(frozen, left, mask_support):
    net = network(frozen=frozen, mask_support=mask_support)
    still = names(net, left) | CODES
    assert {name for name, w in net.named_parameters() if not w.requires_grad} == still
    assert reached(net) == {name for name, _ in net.named_parameters()} - still


def test_the_picture_error_reaches_the_brain_encoder_through_what_the_picture_looks_at():
    brain = brain_mae(depth=24, width=16, decoder_width=8)
    net = network(brain=brain, brain_weight=0, frozen="encoder")
    found = reached(net)
    assert {name for name in found if name.startswith("brain.")} == names(net, *ENCODER)
    assert len(names(net, *ENCODER)) == 293  # tensors of the published encoder
    assert found == names(net, *ENCODER, "brain_seen", "image_cross", "image.decoder")


def test_the_brain_error_alone_leaves_the_picture_side_to_what_the_brain_looks_at():
    net = network(picture_weight=0)
    found = reached(net)
    assert found == names(net, "brain.", "brain_in", "brain_out", "brain_cross", "image.vit") - CODES
    assert reached(network(picture_weight=0, frozen="encoder")) == found - names(net, "image.vit")


def test_training_moves_only_what_is_trained():
    for frozen, left in (("decoder", "image.decoder"), ("encoder", "image.vit")):
        net = network(frozen=frozen)
        before = {name: w.detach().clone() for name, w in net.named_parameters()}
        data = batch_of(12)
        fetch, n = paired_batches({"s1": data["betas"]["s1"].numpy()}, {"s1": np.arange(12)}, data["pictures"].numpy())
        train(net, fetch, n, TrainConfig(steps=2, batch_size=6, lr=1e-3), seed=0, device="cpu")
        same = {name for name, w in net.named_parameters() if torch.equal(w, before[name])}
        assert same == names(net, left) | CODES


# -- making it ---------------------------------------------------------------------------------------------------------


def test_both_autoencoders_are_taken_over_and_left_alone():
    brain, image = brain_mae(decoder_depth=3), picture_mae(decoder_num_hidden_layers=3)
    image.requires_grad_(False)  # as networks of the zoo come
    kept = [{k: v.clone() for k, v in m.state_dict().items()} for m in (brain, image)]
    state = torch.get_rng_state()
    net = network(brain=brain, image=image, decoder_depth=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(w, kept[0][name]) for name, w in net.brain.state_dict().items())
    assert all(torch.equal(w, kept[1][name]) for name, w in net.image.state_dict().items())
    assert len(net.brain.decoder_blocks) == len(net.image.decoder.decoder_layers) == 2
    reached(net)
    with torch.no_grad():
        for w in net.parameters():
            w.add_(1)
    assert all(torch.equal(v, kept[0][k]) for k, v in brain.state_dict().items())
    assert all(torch.equal(v, kept[1][k]) for k, v in image.state_dict().items())
    assert len(image.decoder.decoder_layers) == image.config.decoder_num_hidden_layers == 3
    assert not any(w.requires_grad for w in image.parameters())


def test_new_parts_are_functions_of_the_seed_and_differ_from_each_other():
    a, b, c = network(1), network(1), network(2)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.brain_in.weight, c.brain_in.weight)
    assert not torch.equal(a.brain_cross[0].attn.qkv.weight, a.image_cross[0].attn.qkv.weight)
    losses = [a.loss(batch_of(4), Draws(0, step, 4))[0].item() for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_the_brain_can_be_tuned_on_another_subject():
    net = CrossModal.create(lab(), brain_mae(), picture_mae(), 0, {"S3": 60}, extra_patch=False)
    assert (net.brain.subjects, net.brain.n_patches, net.brain.config.positions_of) == (["S3"], 8, 13)
    assert type(net.brain) is PatchMae
    assert net.to_tokens(torch.zeros(2, 60)).shape == (2, 8, 64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network(decoder_depth=3), "picture autoencoder's decoder has 2 blocks"),
        (lambda: network(decoder_depth=2), "decoder_depth = 2"),  # the brain's has one
        (lambda: network(picture_mask=0.99), "0.99 of 16 picture patches leaves none"),
        (lambda: network(brain_mask=0.99), "0.99 of 13 patches leaves none"),
        (lambda: network().loss(batch_of(2) | {"pictures": torch.zeros(2, 3, 32, 32)}, Draws(0, 0, 2)), "resize"),
        (lambda: network().loss(batch_of(2) | {"pictures": torch.zeros(3, 3, 16, 16)}, Draws(0, 0, 2)), "2 responses"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ModelError, match=message):
        make()


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"brain_weight": 0, "picture_weight": 0}, "nothing to train on"),
        ({"frozen": "both"}, "frozen"),
        ({"picture_mask": 1.0}, "picture_mask"),
        ({"mask": 0.5}, "no key 'mask'"),
    ],
)
def test_an_impossible_configuration_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(CrossModalConfig, changes, "the configuration")


# -- batches, training, parts ------------------------------------------------------------------------------------------


def test_responses_stay_with_their_pictures():
    rng = np.random.default_rng(0)
    pictures = np.arange(7, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 4, 4), np.float32)
    shown = {"a": np.array([6, 0, 0, 3]), "b": np.array([1, 6])}
    betas = {name: rng.normal(size=(len(s), 5)).astype("f4") + 10 * s[:, None] for name, s in shown.items()}
    fetch, n = paired_batches(betas, shown, pictures)
    assert n == 6
    batch = fetch(np.array([5, 0, 2, 4, 1]))
    assert batch["pictures"][:, 0, 0, 0].tolist() == [6, 6, 0, 1, 0]
    for name, places in batch["rows"].items():
        near = (batch["betas"][name].mean(1) / 10).round()
        assert torch.equal(near, batch["pictures"][places, 0, 0, 0])


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"b": np.arange(3)}, "subjects s1.*of b"),
        ({"s1": np.arange(2)}, r"each of the 3 trials.*\(2,\)"),
        ({"s1": np.array([0, 1, 5])}, "name pictures 0 to 5.*rows 0 to 4"),
        ({"s1": np.array([0.0, 1, 2])}, "float64"),
    ],
)
def test_pictures_that_do_not_match_are_refused(shown, message):
    with pytest.raises(DataError, match=message):
        paired_batches({"s1": np.zeros((3, 9), np.float32)}, shown, np.zeros((5, 3, 4, 4), np.float32))


def paired(n, seed):
    """Smooth pictures from three numbers each, and responses to these numbers."""
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(n, 3))
    fixed = np.random.default_rng(11)
    y, x = np.mgrid[0:16, 0:16] / 16
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in fixed.uniform(-1, 1, (9, 3))]
    pictures = np.einsum("nf,fchw->nchw", f, np.reshape(waves, (3, 3, 16, 16)))
    betas = f @ fixed.normal(size=(3, 99)) / math.sqrt(3) + 0.1 * rng.normal(size=(n, 99))
    return betas.astype("f4"), pictures.astype("f4")


def test_training_lowers_both_errors_on_new_pairs_and_each_side_helps_the_other():
    net = network(
        brain=brain_mae(width=32, decoder_width=16), frozen="encoder"
    )  # a decoder not trained before is no use
    betas, pictures = paired(300, 0)
    fetch, n = paired_batches({"s1": betas}, {"s1": np.arange(300)}, pictures)
    new, shown = (torch.from_numpy(x) for x in paired(64, 1))
    batch = {"betas": {"s1": new}, "rows": {"s1": torch.arange(64)}, "pictures": shown}
    with torch.no_grad():
        before = net.loss(batch, Draws(9, 0, 64))[1]
    train(net, fetch, n, TrainConfig(steps=120, batch_size=16, lr=5e-3, warmup=10, clip_norm=0.8), seed=0, device="cpu")
    with torch.no_grad():
        after = net.loss(batch, Draws(9, 0, 64))[1]
        wrong = net.loss(batch | {"pictures": shown.flip(0)}, Draws(9, 0, 64))[1]
    assert after["brain"] < 0.7 * before["brain"] and after["picture"] < 0.8 * before["picture"]
    assert wrong["picture"] > 1.05 * after["picture"]  # the response of another picture misleads
    assert wrong["brain"] > after["brain"]  # and the picture of another response


def test_a_part_comes_back_from_disk_bit_by_bit(tmp_path):
    net = CrossModal.create(lab(frozen="encoder"), brain_mae(), picture_mae(), 0, {"S3": 60})
    part = CrossModalPart.of(net)
    save_part(tmp_path / "cross", part, stage="cross", digest="d", seconds=0.0, lineage=[])
    loaded = load_part(tmp_path / "cross", CrossModalPart)
    assert loaded.module.config == net.config and loaded.module.brain.config == net.brain.config
    x = np.random.default_rng(0).normal(size=(5, 60)).astype("f4")
    assert part.to_tokens(x).shape == (5, 8, 64) and part.to_tokens(x, class_token=True).shape == (5, 9, 64)
    assert np.array_equal(part.to_tokens(x), loaded.to_tokens(x))
    assert np.array_equal(part.to_latent(x), loaded.to_latent(x))
    batch = batch_of(3, n_voxels=60)
    batch = batch | {"betas": {"S3": batch["betas"]["s1"]}, "rows": {"S3": batch["rows"]["s1"]}}
    assert torch.equal(net.eval().loss(batch, Draws(0, 0, 3))[0], loaded.module.loss(batch, Draws(0, 0, 3))[0])

    save_part(tmp_path / "brain", part.brain, stage="brain", digest="d", seconds=0.0, lineage=[])
    alone = load_part(tmp_path / "brain", PatchMaePart)
    assert np.array_equal(alone.to_tokens(x), part.to_tokens(x))
    assert torch.equal(net.to_tokens(torch.from_numpy(x)), torch.from_numpy(alone.to_tokens(x)))


def test_afterwards_the_brain_needs_no_picture():
    net = network()
    x = torch.zeros(2, 99)
    assert torch.equal(net.to_tokens(x), net.brain.to_tokens(x))
    assert torch.equal(net.to_latent(x), net.brain.to_latent(x))
    assert PatchMaeConfig(**net.brain.config.model_dump()) == net.brain.config
