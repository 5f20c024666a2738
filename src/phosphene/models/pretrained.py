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
from phosphene.io.folder import read_json
from phosphene.io.foreign import read_foreign
from phosphene.io.reading import reads

if TYPE_CHECKING:
    from torch import nn

PICKLE = "pytorch_model.bin"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a checkpoint, or else its ``pytorch_model.bin``. Raises ModelError when there is neither."""
    files = sorted({*folder.glob("model.safetensors"), *folder.glob("model-*.safetensors")})
    if not files and (folder / PICKLE).is_file():
        return [folder / PICKLE]

    if not files:
        others = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl"})
        if others:
            found = f"only {', '.join(others)}, of another layout"
        else:
            found = "no weights"

        raise ModelError(
            f"{folder} should hold model.safetensors or {PICKLE} as transformers writes them, but holds {found}. Get or "
            "convert the checkpoint again."
        )

    return files


@reads("folder", ModelError)
def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """config.json of a checkpoint. Raises ModelError when it is missing or its ``model_type`` is not `kind`."""
    config = read_json(folder / "config.json")
    if config.get("model_type") != kind:
        raise ModelError(
            f"{folder} holds a '{config.get('model_type')}', but a '{kind}' of transformers was expected. Checkpoints of "
            "other libraries must be converted first."
        )

    return config


@reads("folder", ModelError)
def load(folder: Path, architecture: str) -> nn.Module:
    """A network in float32, in evaluation mode.

    Parameters
    ----------
    folder : Path
        see above
    architecture : str
        name of its class in transformers, such as "CLIPModel"

    Raises
    ------
    ModelError
        When weights are damaged, missing, too many, of another shape, or not finite, or the file wants to run anything;
        nothing is filled in silently.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    kind = getattr(transformers, architecture)
    read_config(folder, kind.config_class.model_type)
    given: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}

    if (file := weight_files(folder)[0]).name == PICKLE:
        config = kind.config_class.from_pretrained(folder, local_files_only=True)
        given = {"config": config, "state_dict": read_foreign(file)}

    try:
        with _quiet():
            network, told = kind.from_pretrained(
                None if "state_dict" in given else folder, dtype=torch.float32, output_loading_info=True, **given
            )
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"the {architecture} in {folder} cannot be loaded ({error}). Get the checkpoint again."
        ) from error

    missing = sorted(told["missing_keys"])
    mismatched = sorted(map(str, told["mismatched_keys"]))

    # Old checkpoints carry the positions 0, 1, 2 ... as if they were weights.
    extra = sorted(key for key in told["unexpected_keys"] if not key.endswith("position_ids"))
    if missing or extra or mismatched:
        raise ModelError(
            f"the weights in {folder} do not fit its config.json: missing {missing[:3] or 'nothing'}, unexpected "
            f"{extra[:3] or 'nothing'}, of another shape {mismatched[:3] or 'nothing'}. Get the checkpoint again."
        )

    for name, weight in network.named_parameters():
        if not torch.isfinite(weight).all():
            raise ModelError(f"'{name}' in {folder} holds NaN or infinite values. Get the checkpoint again.")

    return network.eval()


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
