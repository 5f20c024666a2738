"""Weights of the Very Deep VAE: the lab's, or the public ImageNet-64 ones, converted once.

The public file is ``imagenet64-iter-1600000-model-ema.th`` of OpenAI's store ``very-deep-vaes-assets`` (500 MB; the code
beside it is under the MIT licence, the weights state none). It is read without running anything in it::

    convert("imagenet64-iter-1600000-model-ema.th", "weights/vdvae64")
    VdvaeFeatures("weights/vdvae64")
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from phosphene.errors import ConfigError, ModelError
from phosphene.features.vdvae_config import VdvaeConfig
from phosphene.run import atomic
from phosphene.run.config import validate
from phosphene.run.folder import read_json
from phosphene.run.reading import reads
from phosphene.run.stages import read_safetensors
from phosphene.train.foreign import must_fit, read_foreign
from phosphene.types.identity import digest_of

if TYPE_CHECKING:
    import torch

    from phosphene.features.vdvae_network import Vdvae

LAB = "lab"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


@reads("file", ModelError)
def convert(file: str | Path, folder: str | Path, config: VdvaeConfig | None = None) -> Path:
    """A checkpoint of the public code as a folder of config.json and model.safetensors.

    Parameters
    ----------
    file : weights by name, as the public code saves them; the file of averaged weights (``ema``) is the one to use
    folder : to make; must not be there
    config : sizes it was trained with; ImageNet-64's by default

    Returns
    -------
    the folder

    Raises
    ------
    ModelError
        When the file wants to run anything, or its tensors are not exactly those of this network.
    ConfigError
        When the folder is there already.
    """
    from safetensors.torch import save

    config = config or VdvaeConfig.paper()
    folder = atomic.checked_path(folder)
    if folder.exists():
        raise ConfigError(f"{folder} is there already; give a folder that is not, or delete it.")
    tensors = public_weights(read_foreign(file), config)
    with atomic.folder(folder) as temporary:
        (temporary / _WEIGHTS).write_bytes(save(tensors))
        (temporary / _CONFIG).write_text(json.dumps(config.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    return folder


def public_weights(tensors: dict[str, torch.Tensor], config: VdvaeConfig) -> dict[str, torch.Tensor]:
    """Tensors of a public checkpoint as weights of :class:`Vdvae`, float32.

    Names are the same on both sides, but for ``module.`` before each in files saved from several processes.

    Raises
    ------
    ModelError
        Naming tensors that are missing, too many, of another shape, or not finite.
    """
    import torch

    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    with torch.device("meta"):
        wanted = {name: tuple(t.shape) for name, t in _network(config).state_dict().items()}
    must_fit(tensors, wanted, "a Very Deep VAE")
    return {name: tensors[name].float().contiguous() for name in wanted}


@reads("name", ModelError)
def load(name: str | Path = LAB, device: str = "cpu", lab_folder: Path | None = None) -> Vdvae:
    """A trained network, frozen, in evaluation mode.

    Parameters
    ----------
    name : "lab" for the one of the zoo, or a folder that :func:`convert` made
    device : where to put it
    lab_folder : of the lab's weights; the bundled ones by default

    Raises
    ------
    ConfigError
        For a name that is neither.
    NotAvailable
        When the lab's weights are not bundled.
    ModelError
        For weights that are damaged or do not fit.
    """
    if str(name) == LAB:
        from phosphene import zoo

        return zoo.load("vdvae", device=device, folder=lab_folder)  # type: ignore[return-value]
    import torch

    from phosphene.train.checkpoint import load_module_state

    folder = _folder(name)
    with torch.device("meta"):
        network = _network(read_config(folder))
    network = network.to_empty(device="cpu")
    load_module_state(network, read_safetensors(folder / _WEIGHTS), f"the Very Deep VAE in {folder}")
    return network.eval().requires_grad_(False).to(device)


def read_config(name: str | Path = LAB, lab_folder: Path | None = None) -> VdvaeConfig:
    """Sizes of a trained network. Raises like :func:`load`."""
    if str(name) == LAB:
        from phosphene import zoo

        return validate(VdvaeConfig, zoo.record("vdvae", lab_folder)["config"], "the zoo's network 'vdvae'")
    file = _folder(name) / _CONFIG
    return validate(VdvaeConfig, read_json(file), str(file))


@reads("name", ModelError)
def digest(name: str | Path = LAB, lab_folder: Path | None = None) -> dict[str, str]:
    """SHA-256 of weights and of sizes: what latents are filed under. Raises like :func:`load`."""
    if str(name) == LAB:
        from phosphene import zoo

        weights = str(zoo.record("vdvae", lab_folder)["sha256"])
    else:
        file = _folder(name) / _WEIGHTS
        try:
            with open(file, "rb") as handle:
                weights = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{file} cannot be read ({error.strerror}).") from error
    config = read_config(name, lab_folder).model_dump(mode="json")
    return {"weights": weights, "config": digest_of(json.dumps(config, sort_keys=True))}


def _folder(name: str | Path) -> Path:
    folder = Path(name).expanduser()
    if not (folder / _CONFIG).is_file():
        raise ConfigError(
            f"'{name}' is no Very Deep VAE: expected 'lab', or a folder with {_CONFIG} and {_WEIGHTS}, which "
            "phosphene.features.vdvae_weights.convert makes of a public checkpoint."
        )
    return folder


def _network(config: VdvaeConfig) -> Vdvae:
    from phosphene.features.vdvae_network import Vdvae

    return Vdvae(**config.model_dump(mode="json"))
