"""Small networks that come with an installed package: the in-silico lab brings its own.

A package names a module in the entry-point group ``phosphene.networks``; the module has the functions below. So recipes
can ask for the lab's networks, and nothing in this room knows the lab.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import NotAvailable
from phosphene.io.plugins import load_plugin, plugins_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import CLIPTokenizer

PLUGINS = "phosphene.networks"
LAB = "lab"


@cache
def _provider() -> Any:
    """The module that offers the networks. Raises NotAvailable where none is installed."""
    plugins = plugins_of(PLUGINS)
    if LAB in plugins:
        return load_plugin(plugins[LAB], "module of networks", _networks_problem)

    raise NotAvailable(
        f"no installed package offers the networks '{LAB}' (entry points of the group {PLUGINS}). They come with phosphene: "
        "install it again (pip install --force-reinstall phosphene)."
    )


def broken_networks() -> list[str]:
    """A sentence for every module of networks that cannot be used; all of them are loaded."""
    problems = []
    for entry in plugins_of(PLUGINS).values():
        try:
            load_plugin(entry, "module of networks", _networks_problem)
        except NotAvailable as error:
            problems.append(str(error))

    return problems


def _networks_problem(content: Any) -> str:
    """What is wrong with a module of networks; "" for nothing."""
    missing = [name for name in ("names", "record", "load", "tokenizer") if not callable(getattr(content, name, None))]
    if missing:
        return f"it has no function {' and no '.join(missing)}."
    return ""


def names() -> list[str]:
    """Names of the networks that can be loaded."""
    return _provider().names()


def record(name: str, folder: Path | None = None) -> dict[str, Any]:
    """What is known of a network: configuration, convention, scores, and the hash of its weights.

    Parameters
    ----------
    name : str
        one of :func:`names`
    folder : Path, optional
        of NAME.json and NAME.safetensors; the bundled ones by default

    Returns
    -------
    dict[str, Any]
        as NAME.json has it

    Raises
    ------
    ConfigError
        For an unknown name.
    NotAvailable
        For a network whose weights are not on this machine.
    """
    return _provider().record(name, folder)


def fingerprint(name: str) -> str:
    """SHA-256 of a network's weights: what features made with it are filed under."""
    return str(record(name)["sha256"])


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
        CLIPModel or ViTMAEForPreTraining of transformers, VQModel or AutoencoderKL of diffusers, or our own

    Raises
    ------
    ConfigError
        For an unknown name.
    NotAvailable
        For a network whose weights are not on this machine.
    ModelError
        For weights that are damaged or do not fit.
    """
    return _provider().load(name, device=device, folder=folder)


def tokenizer(folder: Path | None = None) -> CLIPTokenizer:
    """The tokenizer of the bundled CLIP.

    Parameters
    ----------
    folder : Path, optional
        of its files; the bundled ones by default

    Returns
    -------
    CLIPTokenizer
        of transformers
    """
    return _provider().tokenizer(folder)
