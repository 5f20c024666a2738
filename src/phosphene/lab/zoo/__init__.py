"""Small bundled networks for the in-silico lab, of the same classes the published systems use.

>>> from phosphene.lab import zoo
>>> clip = zoo.load("clip")                                       # doctest: +SKIP
>>> clip.get_image_features(zoo.to_network(pixels)).pooler_output   # doctest: +SKIP

Every network takes pictures as :func:`to_network` makes them: (n, 3, 32, 32) float32, -1 to 1. Each has a card,
``weights/NAME.md``, with its data, steps, seed and scores on scenes it was not trained on; ``python -m
phosphene.lab.zoo.train NAME`` makes it again.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import ConfigError, ModelError, NotAvailable, did_you_mean
from phosphene.io.reading import reads
from phosphene.io.run_folder import read_json
from phosphene.io.stages import read_safetensors
from phosphene.models.pixel_range import from_network, to_network

if TYPE_CHECKING:
    from torch import nn
    from transformers import CLIPTokenizer

__all__ = ["WEIGHTS", "card", "fingerprint", "from_network", "load", "names", "record", "to_network", "tokenizer"]

WEIGHTS = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Networks whose weights are bundled, in the order of the alphabet."""
    return sorted(p.stem for p in WEIGHTS.glob("*.json"))


def record(name: str, folder: Path | None = None) -> dict[str, Any]:
    """What is known of a network: configuration, convention, scores, and the hash of its weights.

    Parameters
    ----------
    name : str
        One of :func:`names`, or of the networks trained into `folder`.
    folder : Path, optional
        Of NAME.json; the bundled ones by default.

    Returns
    -------
    dict of {str: Any}
        The contents of NAME.json.

    Raises
    ------
    ConfigError
        For a name that is neither bundled nor trained here.
    NotAvailable
        For a network whose weights were not bundled.
    """
    from phosphene.lab.zoo.networks import NETWORKS

    file = (folder or WEIGHTS) / f"{name}.json"
    if not file.is_file():
        if name in NETWORKS:
            raise NotAvailable(
                f"the network '{name}' has no weights here. Train it: python -m phosphene.lab.zoo.train {name}"
            )

        raise ConfigError(f"the zoo has no network '{name}'. {did_you_mean(name, NETWORKS)}")

    return read_json(file)


def card(name: str) -> str:
    """The model card, as Markdown. Raises like :func:`record`."""
    record(name)  # says what to do where there is none
    return (WEIGHTS / f"{name}.md").read_text(encoding="utf-8")


def fingerprint(name: str) -> str:
    """SHA-256 of a network's weights: what features made with it are filed under."""
    return str(record(name)["sha256"])


@reads("name", ModelError, "Install phosphene again.")
def load(name: str, *, device: str = "cpu", folder: Path | None = None) -> nn.Module:
    """A bundled network, in evaluation mode and frozen.

    Parameters
    ----------
    name : str
        one of :func:`names`
    device : str, default "cpu"
        where to put it
    folder : Path, optional
        of NAME.json and NAME.safetensors; the bundled ones by default

    Returns
    -------
    nn.Module
        the network: transformers' CLIPModel or ViTMAEForPreTraining, diffusers' VQModel or AutoencoderKL, or our own

    Raises
    ------
    ConfigError
        For an unknown name.
    NotAvailable
        For a network whose weights were not bundled.
    ModelError
        For weights that are damaged or do not fit.
    """
    import torch

    from phosphene.lab.zoo.networks import build
    from phosphene.lab.zoo.packing import unpacked
    from phosphene.training.checkpoint import load_module_state

    card_values = record(name, folder)
    file = (folder or WEIGHTS) / f"{name}.safetensors"

    try:
        actual = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}); install phosphene again.") from error

    expected = card_values["sha256"]
    if actual != expected:
        raise ModelError(
            f"{file} is not the file its card describes (SHA-256 {actual[:12]}..., expected {expected[:12]}...). "
            "Install phosphene again."
        )

    with torch.random.fork_rng(devices=[]):  # weights are drawn when a network is built, and then replaced
        network = build(name, card_values["config"])

    load_module_state(network, unpacked(read_safetensors(file)), f"zoo network '{name}'")
    return network.eval().requires_grad_(False).to(device)


@lru_cache(maxsize=4)
def tokenizer(folder: Path | None = None) -> CLIPTokenizer:
    """The tokenizer of the bundled CLIP.

    Parameters
    ----------
    folder : Path, optional
        Of clip.json; the bundled one by default.

    Returns
    -------
    CLIPTokenizer
        To be called as ``tokenizer()(texts, padding=True, truncation=True, return_tensors="pt")``.
    """
    from phosphene.lab.zoo.networks import make_tokenizer

    return make_tokenizer(record("clip", folder)["tokenizer"])
