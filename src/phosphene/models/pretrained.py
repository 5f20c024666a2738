"""Networks of transformers from a folder of the hub's layout, whole or not at all.

::

    FOLDER/config.json
           model.safetensors, or model-*.safetensors with their index; or pytorch_model.bin, where nothing else is published

A ``pytorch_model.bin`` is a pickle: it is read without running anything in it (:mod:`phosphene.io.foreign`). Nothing
here touches the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import ModelError
from phosphene.io.foreign import read_foreign
from phosphene.io.reading import reads
from phosphene.io.run_folder import read_json

if TYPE_CHECKING:
    from torch import nn

PICKLE = "pytorch_model.bin"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a checkpoint, or else its ``pytorch_model.bin``.

    Parameters
    ----------
    folder : Path
        of the hub's layout

    Returns
    -------
    list of Path
        sorted by name, at least one

    Raises
    ------
    ModelError
        When there is neither.
    """
    files = sorted({*folder.glob("model.safetensors"), *folder.glob("model-*.safetensors")})
    if files:
        return files

    if (folder / PICKLE).is_file():
        return [folder / PICKLE]

    others = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".pkl"})
    if others:
        holds = f"only {', '.join(others)}, of another layout"
    else:
        holds = "no weights"

    raise ModelError(
        f"{folder} should hold model.safetensors or {PICKLE} as transformers writes them, but holds {holds}. Get or "
        "convert the checkpoint again."
    )


@reads("folder", ModelError)
def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """The configuration of a checkpoint, its ``config.json``.

    Parameters
    ----------
    folder : Path
        of the hub's layout
    kind : str
        the ``model_type`` it must have, such as "clip"

    Returns
    -------
    dict[str, Any]
        as the file has it

    Raises
    ------
    ModelError
        When the file is missing or its ``model_type`` is not `kind`.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != kind:
        raise ModelError(
            f"{folder} holds a '{config.get('model_type')}', but a '{kind}' of transformers was expected. Checkpoints of "
            "other libraries must be converted first."
        )

    return config


@reads("folder", ModelError)
def load_pretrained(folder: Path, architecture: str) -> nn.Module:
    """A network in float32, in evaluation mode.

    Parameters
    ----------
    folder : Path
        of the hub's layout, as at the top of this page
    architecture : str
        name of its class in transformers, such as "CLIPModel"

    Returns
    -------
    nn.Module
        of that class

    Raises
    ------
    ModelError
        When weights are damaged, missing, too many, of another shape, or not finite, or the file wants to run anything;
        nothing is filled in silently.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    network_class = getattr(transformers, architecture)
    read_config(folder, network_class.config_class.model_type)

    source: Path | None = folder
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    file = weight_files(folder)[0]
    if file.name == PICKLE:  # read here, without running anything in it; transformers gets plain tensors
        source = None
        config = network_class.config_class.from_pretrained(folder, local_files_only=True)
        options = {"config": config, "state_dict": read_foreign(file)}

    try:
        with _quiet():
            network, keys = network_class.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True, **options
            )
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"the {architecture} in {folder} cannot be loaded ({error}). Get the checkpoint again."
        ) from error

    _check_keys(folder, keys)

    for name, weight in network.named_parameters():
        if not torch.isfinite(weight).all():
            raise ModelError(f"'{name}' in {folder} holds NaN or infinite values. Get the checkpoint again.")

    return network.eval()


def _check_keys(folder: Path, keys: dict[str, Any]) -> None:
    missing = sorted(keys["missing_keys"])
    mismatched = sorted(map(str, keys["mismatched_keys"]))

    # Old checkpoints carry the positions 0, 1, 2 ... as if they were weights.
    extra = sorted(key for key in keys["unexpected_keys"] if not key.endswith("position_ids"))

    if missing or extra or mismatched:
        raise ModelError(
            f"the weights in {folder} do not fit its config.json: missing {missing[:3] or 'nothing'}, unexpected "
            f"{extra[:3] or 'nothing'}, of another shape {mismatched[:3] or 'nothing'}. Get the checkpoint again."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and its table of keys; what matters in it is raised."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    level = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()

    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
