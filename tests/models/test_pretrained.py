"""Networks of transformers from a folder: the same from either kind of file, and never in part."""

import numpy as np
import pytest
import torch

from phosphene.errors import ModelError
from phosphene.models import pretrained

KIND = "ViTMAEForPreTraining"


@pytest.fixture
def folder(tmp_path):
    """A tiny autoencoder of pictures as the hub has facebook/vit-mae-base: config.json and a pickle."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    decoder = {f"decoder_{key}": value for key, value in sizes.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ViTMAEForPreTraining(ViTMAEConfig(**sizes, **decoder, image_size=8, patch_size=4))
    network.save_pretrained(tmp_path)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    return tmp_path


def test_both_kinds_of_file_give_the_same_network(folder):
    one = pretrained.load_pretrained(folder, KIND)
    (folder / "model.safetensors").unlink()
    two = pretrained.load_pretrained(folder, KIND)
    assert all(torch.equal(weight, two.state_dict()[name]) for name, weight in one.state_dict().items())
    assert not one.training


def test_an_autoencoder_without_its_decoder_is_refused(folder):
    (folder / "model.safetensors").unlink()
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({k: v for k, v in weights.items() if not k.startswith("decoder.")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"missing \['decoder\."):
        pretrained.load_pretrained(folder, KIND)


def test_weights_that_are_not_finite_are_refused(folder):
    (folder / "model.safetensors").unlink()
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights["vit.layernorm.bias"][0] = np.nan
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"'vit\.layernorm\.bias' .* holds NaN"):
        pretrained.load_pretrained(folder, KIND)


def test_another_architecture_is_refused(folder):
    with pytest.raises(ModelError, match="'vit_mae', but a 'clip'"):
        pretrained.load_pretrained(folder, "CLIPModel")
