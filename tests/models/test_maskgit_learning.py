"""What MaskGIT is trained on: every version of a picture with its own latent and its own codes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from phosphene.models.maskgit import PORTED, PORTED_TOKENIZER, MaskGit, MaskGitPipeline
from phosphene.models.vq import Vqgan
from phosphene.training import TrainConfig
from tests.models.conftest import seeded

SIZE = 20


def ramps(n=6):
    """Pictures whose channels rise to the right, downwards, and by picture."""
    ramp = np.arange(SIZE, dtype=np.float32) / SIZE
    channels = [np.broadcast_to(x, (n, SIZE, SIZE)) for x in (ramp, ramp[:, None], np.arange(n)[:, None, None] / n)]
    return np.stack(channels, axis=-1).astype(np.float32)


def learned(pixels, **options):
    """What MaskGIT learns from, pictures (as their own latents) and codes; and the pipeline that learned."""
    maskgit = seeded(lambda: MaskGit(codes=16, unused=0, grid=10, latent=4, width=8, depth=1, heads=1, hidden=8))
    pipeline = MaskGitPipeline.of(
        maskgit, seeded(lambda: Vqgan(codes=16, code_width=4, width=8, multipliers=[1, 2], groups=4))
    )
    batch = {}

    def train(network, fetch, n, settings, *, data):
        batch.update(fetch(np.arange(n)))

    pipeline.learn(
        pixels, lambda p: p.reshape(len(p), -1), TrainConfig(steps=1, batch_size=4, lr=0.1), train, **options
    )
    return batch["latents"].numpy().reshape(-1, SIZE, SIZE, 3), batch["tokens"].numpy(), pipeline


def test_every_crop_has_the_latent_and_the_codes_of_what_it_shows():
    pictures, tokens, pipeline = learned(ramps(), flip=True, crops=3)
    assert len(pictures) == len(tokens) == 6 * 2 * (1 + 3)
    assert len(np.unique(tokens)) > 1
    np.testing.assert_array_equal(tokens, pipeline.tokenizer.encode(pictures))


def test_crops_come_after_whole_pictures_and_their_mirrors():
    whole, _, _ = learned(ramps(), flip=True)
    np.testing.assert_array_equal(whole, np.concatenate([ramps(), ramps()[:, :, ::-1]]))
    pictures, _, _ = learned(ramps(), flip=True, crops=2)
    np.testing.assert_array_equal(pictures[:12], whole)
    # A window of 16 of 20 pixels, stretched back: ramps stay ramps inside, of slope 16 / 20, mirrored ones falling.
    cut = pictures[12:].reshape(2, 2, 6, SIZE, SIZE, 3)[..., 2:-2, 2:-2, :]
    np.testing.assert_allclose(np.diff(cut[:, 0, ..., 0], axis=-1), 0.8 / SIZE, atol=1e-6)
    np.testing.assert_allclose(np.diff(cut[:, 1, ..., 0], axis=-1), -0.8 / SIZE, atol=1e-6)
    np.testing.assert_allclose(np.diff(cut[..., 1], axis=-2), 0.8 / SIZE, atol=1e-6)
    assert len(np.unique(cut[:, :, :, 0, 0, 1])) == 5  # 24 crops start at each of the five rows there are
    np.testing.assert_allclose(cut[..., 2], np.broadcast_to(np.arange(6)[:, None, None] / 6, cut.shape[:-1]), atol=1e-6)


def test_where_crops_are_cut_is_a_function_of_the_seed():
    first, again, other = (learned(ramps(), flip=False, crops=2, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first[6:] != other[6:]).any()
    assert (first[6:12] != first[12:]).any()


def test_crops_of_white_pictures_stay_in_range():
    pictures, _, _ = learned(np.ones((8, SIZE, SIZE, 1), dtype=np.float32), flip=False, crops=3)
    assert pictures.max() == 1


def test_the_ported_networks_differ_in_epsilons_and_gelu_alone():
    with torch.device("meta"):
        pairs = [(MaskGit(), MaskGit(**PORTED)), (Vqgan(), Vqgan(**PORTED_TOKENIZER))]
    for ours, ported in pairs:
        assert {k: w.shape for k, w in ours.state_dict().items()} == {
            k: w.shape for k, w in ported.state_dict().items()
        }
        eps = {m.eps for m in ported.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)}
        assert eps == {nn.LayerNorm(1).eps}  # what PyTorch has where nothing is said
    assert (pairs[0][0].config.gelu, pairs[0][1].config.gelu) == ("tanh", "none")
