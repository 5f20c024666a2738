"""MinD-Vis' decoder fed with a latent: against the autoencoder it comes from, and on responses whose answer is known."""

import numpy as np
import pytest
import torch

from phosphene.errors import DataError
from phosphene.models import FedDecoder, FedDecoderPart, PatchMae, PatchMaeConfig
from phosphene.training import TrainConfig, train

LATENT, VOXELS = 6, 45  # 45 voxels need 6 patches of 8, the last of them padded


@pytest.fixture
def autoencoder():
    config = PatchMaeConfig(
        patch_size=8, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2, filter_std=0.2
    )
    return PatchMae.create(config, {"sub-01": VOXELS}, seed=0).eval()


def test_it_predicts_what_the_autoencoder_does_from_the_same_first_token_with_everything_hidden(autoencoder):
    fed = FedDecoder.of(autoencoder, autoencoder.config.width, seed=1).eval()
    fed.decoder_embed.load_state_dict(autoencoder.decoder_embed.state_dict())
    tokens = torch.randn(5, autoencoder.config.width, generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(5, 0, dtype=torch.int64)
    with torch.no_grad():
        expected = autoencoder.decode(tokens[:, None], hidden).flatten(1)[:, :VOXELS]
        assert torch.equal(fed(tokens), expected)


def test_the_encoder_is_left_behind_and_the_autoencoder_left_alone(autoencoder):
    before = {k: v.clone() for k, v in autoencoder.state_dict().items()}
    fed = FedDecoder.of(autoencoder, LATENT, seed=1)
    assert {name.split(".")[0] for name in fed.state_dict()} == {
        "decoder_embed", "mask_token", "decoder_blocks", "decoder_norm", "decoder_pred",
    }  # fmt: skip
    with torch.no_grad():
        for weight in fed.parameters():
            weight.add_(1)
    assert all(torch.equal(v, before[k]) for k, v in autoencoder.state_dict().items())


def test_the_new_layer_is_a_function_of_the_seed_and_of_nothing_else(autoencoder):
    state = torch.random.get_rng_state()
    first, second, other = (FedDecoder.of(autoencoder, LATENT, seed=s).decoder_embed.weight for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.fixture
def learned(autoencoder):
    """Trained on responses that are a linear map of latents, plus noise of a tenth of their size."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(LATENT, VOXELS)) / np.sqrt(LATENT)
    latents = rng.normal(size=(400, LATENT)).astype(np.float32)
    betas = (latents @ truth + 0.1 * rng.normal(size=(400, VOXELS))).astype(np.float32)
    fed = FedDecoder.of(autoencoder, LATENT, seed=1)

    def fetch(rows):
        return {"latents": torch.from_numpy(latents[rows]), "betas": torch.from_numpy(betas[rows])}

    train(fed, fetch, 400, TrainConfig(steps=600, batch_size=64, lr=1e-2, warmup=20), seed=0, data="linear")
    return FedDecoderPart.of(fed.cpu()), truth


def test_it_learns_a_map_that_is_known(learned):
    part, truth = learned
    latents = np.random.default_rng(1).normal(size=(200, LATENT)).astype(np.float32)
    predicted, expected = part.from_latent(latents), latents @ truth
    r = [np.corrcoef(predicted[:, v], expected[:, v])[0, 1] for v in range(VOXELS)]
    assert np.median(r) > 0.9
    shuffled = np.corrcoef(predicted[:, 0], np.roll(expected[:, 0], 1))[0, 1]
    assert abs(shuffled) < 0.25  # 3.5 standard errors of 200 pictures


def test_saving_and_loading_changes_nothing(learned):
    part, _ = learned
    latents = np.random.default_rng(2).normal(size=(3, LATENT)).astype(np.float32)
    loaded = FedDecoderPart.from_state(*part.state())
    np.testing.assert_array_equal(loaded.from_latent(latents), part.from_latent(latents))


def test_latents_that_are_not_finite_are_refused(learned):
    with pytest.raises(DataError, match="latents"):
        learned[0].from_latent(np.full((2, LATENT), np.nan, dtype=np.float32))
