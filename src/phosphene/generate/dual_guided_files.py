"""Versatile Diffusion's public weights, read from a folder as diffusers lays them out.

::

    FOLDER/image_unet/config.json   diffusion_pytorch_model.safetensors (or .bin, read without running anything in it)
           text_unet/config.json    ...    only its transformers are read
           vae/config.json          ...
           scheduler/scheduler_config.json

The published repository is ``shi-labs/versatile-diffusion`` (MIT). Nothing here touches the network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import ModelError
from phosphene.generate.dual_guided_config import DualGuidedConfig
from phosphene.generate.dual_guided_network import DualUnet
from phosphene.run.folder import read_json
from phosphene.run.reading import reads
from phosphene.train.checkpoint import load_module_state

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_WEIGHTS = "diffusion_pytorch_model"
_PARTS = ("image_unet", "text_unet", "vae")
_SCHEDULE = ("num_train_timesteps", "beta_schedule", "prediction_type")
_TRANSFORMER = re.compile(r"((?:down_blocks\.\d+|mid_block|up_blocks\.\d+)\.attentions\.\d+)\.(.+)")
# Attention inside autoencoders had other names until 2023.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@reads("folder", ModelError)
def read_folder(folder: Path, vision: np.ndarray, text: np.ndarray) -> tuple[DualUnet, AutoencoderKL]:
    """U-Net and autoencoder of a folder, frozen, in evaluation mode, float32.

    Parameters
    ----------
    folder : see above
    vision, text : unconditional tokens; their numbers are the numbers of tokens

    Raises
    ------
    ModelError
        Missing or damaged files, or sizes and weights that do not fit together.
    """
    from diffusers import AutoencoderKL

    config = read_config(folder, len(vision), len(text))
    fields = _component(folder, "vae", "AutoencoderKL")
    with torch.device("meta"):
        unet, autoencoder = DualUnet(**config.model_dump(mode="json")), AutoencoderKL.from_config(fields)
    for network in (unet, autoencoder):
        network.to_empty(device="cpu").eval().requires_grad_(False)
    both = {"no_vision": unet.no_vision, "no_text": unet.no_text}
    for name, tensor in _weights(folder / "image_unet", lambda _: True).items():
        both[_placed(name, "vision")] = tensor
    for name, tensor in _weights(folder / "text_unet", lambda name: bool(_TRANSFORMER.match(name))).items():
        both[_placed(name, "text")] = tensor
    _fill(unet, both, f"the U-Net of {folder}")
    unet.set_unconditional(vision, text)
    _fill(autoencoder, {_renamed(k): v for k, v in _weights(folder / "vae", lambda _: True).items()}, f"{folder}/vae")
    return unet, autoencoder


def read_config(folder: Path, vision_tokens: int, text_tokens: int) -> DualGuidedConfig:
    """Sizes of the U-Net in a folder.

    Raises
    ------
    ModelError
        When a file is missing, its two U-Nets do not fit each other, or one has what this network has not.
    """
    image = _component(folder, "image_unet", "UNet2DConditionModel")
    other = _component(folder, "text_unet", "UNetFlatConditionModel")
    schedule = read_json(folder / "scheduler" / "scheduler_config.json")
    expected = dict(zip(_SCHEDULE, (1000, "scaled_linear", "epsilon"), strict=True))
    came = {key: schedule.get(key, expected[key]) for key in _SCHEDULE}
    if came != expected:
        raise ModelError(f"{folder}/scheduler should be Versatile Diffusion's, {expected}, but is {came}.")
    try:
        config = DualGuidedConfig(
            # What the converter of the public weights leaves open: they were trained on 512 px.
            size=image.get("sample_size") or 64, channels=image["in_channels"], widths=tuple(image["block_out_channels"]),
            attention=tuple("CrossAttn" in kind for kind in image["down_block_types"]), blocks=image["layers_per_block"],
            heads=image["attention_head_dim"], groups=image.get("norm_num_groups", 32), context=image["cross_attention_dim"],
            vision_tokens=vision_tokens, text_tokens=text_tokens,
            beta_start=schedule["beta_start"], beta_end=schedule["beta_end"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder} does not describe Versatile Diffusion's U-Net: {error}.") from error
    _same_unet(config, image, folder / "image_unet")
    alike = ("block_out_channels", "layers_per_block", "attention_head_dim", "cross_attention_dim", "norm_num_groups")
    if differs := [k for k in alike if k in other and k in image and other[k] != image[k]]:
        told = ", ".join(f"{k} {image[k]} and {other[k]}" for k in differs)
        raise ModelError(f"image_unet and text_unet in {folder} do not fit each other: {told}. They are of two models.")
    return config


@reads("folder", ModelError)
def digest(folder: Path) -> str:
    """SHA-256 of weights and configurations of a folder: what results made with it are filed under."""
    h = hashlib.sha256()
    for part in _PARTS:
        h.update((folder / part / "config.json").read_bytes())
        with open(_file(folder / part), "rb") as handle:
            h.update(hashlib.file_digest(handle, "sha256").digest())
    h.update((folder / "scheduler" / "scheduler_config.json").read_bytes())
    return h.hexdigest()


def _same_unet(config: DualGuidedConfig, image: dict[str, Any], where: Path) -> None:
    """Refuse a U-Net with settings that shapes of weights do not show, such as another activation."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        ours, theirs = (
            {k: _listed(v) for k, v in dict(UNet2DConditionModel.from_config(fields).config).items() if k[0] != "_"}
            for fields in (config.unet, image)
        )
    if differs := sorted(k for k in ours if ours[k] != theirs[k] and k != "sample_size"):
        told = ", ".join(f"{k} is {theirs[k]}, not {ours[k]}" for k in differs[:4])
        raise ModelError(f"{where} is not Versatile Diffusion's U-Net: {told}.")


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _component(folder: Path, part: str, kind: str) -> dict[str, Any]:
    config = read_json(folder / part / "config.json")
    if config.get("_class_name") != kind:
        raise ModelError(
            f"{folder / part} holds a '{config.get('_class_name')}', but a '{kind}' of diffusers was expected; give the "
            "folder of Versatile Diffusion that holds image_unet, text_unet, vae and scheduler."
        )
    return config


def _placed(name: str, condition: str) -> str:
    """Name in our network of a weight of one of the U-Nets: each transformer stands beside the other condition's."""
    found = _TRANSFORMER.match(name)
    return f"unet.{found[1]}.{condition}.{found[2]}" if found else f"unet.{name}"


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
    return name


def _file(folder: Path) -> Path:
    for suffix in (".safetensors", ".bin"):
        if (folder / f"{_WEIGHTS}{suffix}").is_file():
            return folder / f"{_WEIGHTS}{suffix}"
    raise ModelError(
        f"{folder} should hold {_WEIGHTS}.safetensors or .bin, but holds neither. Get the checkpoint again."
    )


def _weights(folder: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    file = _file(folder)
    if file.suffix == ".bin":
        from phosphene.train.foreign import read_foreign

        found = {name: tensor for name, tensor in read_foreign(file).items() if wanted(name)}
    else:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as handle:
                found = {name: handle.get_tensor(name) for name in handle.keys() if wanted(name)}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is no valid safetensors file ({error}). Get the checkpoint again.") from error
    for name, tensor in found.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"'{name}' in {file} holds NaN or infinite values. Get the checkpoint again.")
    return found


def _fill(network: nn.Module, tensors: dict[str, Tensor], owner: str) -> None:
    # numpy has no bfloat16; what else there is stays as it is, so that nothing is in memory twice.
    arrays = {name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in tensors.items()}
    load_module_state(network, arrays, owner)
