"""Public StyleGAN2 weights, read from their pickles without running anything in them.

A StyleGAN ``.pkl`` is the riskiest kind of checkpoint: beside tensors it carries the Python source of its networks, which
the official loader executes. Here the source is skipped as any other text; a pickle may name nothing but what describes
tensors and plain values, and is refused with the name of anything else.

>>> convert("lafite_coco.pkl", "weights/lafite")                               # doctest: +SKIP
>>> generator, discriminator = read_folder("weights/lafite")                   # doctest: +SKIP

A converted folder holds ``generator.safetensors``, ``discriminator.safetensors`` and ``config.json``.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import ModelError
from phosphene.generate.stylegan2_config import StyleGan2Config
from phosphene.generate.stylegan2_network import Discriminator, Generator
from phosphene.run import atomic
from phosphene.run.config import validate
from phosphene.run.folder import read_json
from phosphene.run.reading import reads
from phosphene.run.stages import read_safetensors
from phosphene.train.checkpoint import load_module_state, module_state

LARGEST = 4 * 2**30
"""Bytes a pickle may have; the published ones have up to 700 million."""

_DEEPEST = 16  # modules inside modules
_IGNORED = ("resample_filter", "noise_const")
_KEPT = ("generator", "discriminator")


# -- pickles -----------------------------------------------------------------------------------------------------------


@reads("file", ModelError)
def read_pickle(file: str | Path) -> dict[str, dict[str, Tensor]]:
    """Tensors by name of every network in a StyleGAN pickle, such as ``G_ema`` and ``D``.

    Raises
    ------
    ModelError
        When the file wants to run anything, is damaged, too large, or holds no networks.
    """
    file = Path(file)
    try:
        if file.stat().st_size > LARGEST:
            raise ModelError(f"{file} has {file.stat().st_size / 1e9:.1f} GB; StyleGAN2's pickles have less than one.")
        with open(file, "rb") as stream:
            content = _Unpickler(stream, file).load()
    except OSError as error:
        raise ModelError(f"the checkpoint {file} cannot be read ({error.strerror or error}).") from error
    except ModelError:
        raise
    except Exception as error:  # a broken or hostile pickle can raise anything
        raise ModelError(f"{file} is no StyleGAN2 pickle, or is damaged ({type(error).__name__}: {error}).") from error
    found = {k: v for k, v in content.items() if isinstance(v, _Shell)} if isinstance(content, dict) else {}
    if not found:
        raise ModelError(f"{file} should hold networks by name, such as G_ema and D, but holds none.")
    return {str(name): _flat(shell, file) for name, shell in found.items()}


class _Shell:
    """An instance of a class that was never imported: its attributes and nothing else."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update((k, v) for k, v in state.items() if isinstance(k, str))


def _allowed() -> dict[str, Any]:
    """Everything a pickle may name. Made anew for each file: a pickle can set attributes of what it was given."""

    def network(meta: Any) -> _Shell:
        shell = _Shell()
        shell.__setstate__(meta["state"])
        return shell

    def storage(data: Any) -> Tensor:
        if type(data) is not bytes:
            raise ValueError("a storage that is not of bytes")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # the file's age, not the reader's concern
            kept = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            if not isinstance(kept, torch.storage.TypedStorage):
                raise ValueError("a storage of an unknown kind")
            return torch.tensor([], dtype=kept.dtype).set_(kept.untyped())

    def tensor(kept: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
        shape, stride = tuple(shape), tuple(stride)
        if not isinstance(kept, Tensor) or len(shape) != len(stride):
            raise ValueError("a tensor without its storage")
        if not all(type(n) is int and n >= 0 for n in (offset, *shape, *stride)):
            raise ValueError("a tensor with a shape that is none")
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) + 1
        if np.prod(shape, dtype=object) > len(kept) or last > len(kept):
            raise ValueError(f"a tensor of shape {shape} in a storage of {len(kept)} values")
        return kept.as_strided(shape, stride, offset).clone()

    def parameter(data: Any, *_: Any) -> Any:
        return data

    def nothing(*_: Any) -> _Shell:
        return _Shell()

    names: dict[str, Any] = {
        "torch_utils.persistence._reconstruct_persistent_obj": network,
        "torch.storage._load_from_bytes": storage,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": parameter,
        "collections.OrderedDict": OrderedDict,
        "dnnlib.util.EasyDict": dict,
        "numpy.dtype": nothing,
    }
    # Scalars of settings: they are read past, since nothing here needs them.
    return names | {f"numpy.{core}.multiarray.scalar": nothing for core in ("core", "_core")}


class _Unpickler(pickle.Unpickler):
    """A pickle reader that knows a short list of names and nothing else."""

    def __init__(self, stream: Any, file: Path) -> None:
        super().__init__(stream, encoding="utf-8")
        self._names, self._file = _allowed(), file

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        full = f"{module}.{name}"
        if re.fullmatch(r"torch\.nn\.modules\.\w+\.[A-Z]\w*", full):
            return type(name, (_Shell,), {})
        if full not in self._names:
            raise ModelError(
                f"{self._file} wants to call '{full}' when it is opened. Networks of StyleGAN2 need tensors and plain values "
                "only, and this could run any command on this machine, so it is not opened."
            )
        return self._names[full]

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("a reference to something outside the file")


def _flat(shell: _Shell, file: Path, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """Parameters and buffers of a network and of all networks in it, by name."""
    if depth > _DEEPEST:
        raise ModelError(f"{file} nests networks more than {_DEEPEST} deep; it is damaged.")
    out: dict[str, Tensor] = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (vars(shell).get(kind) or {}).items():
            if isinstance(value, Tensor):
                out[f"{prefix}{name}"] = value
            elif value is not None:
                raise ModelError(f"'{prefix}{name}' of {file} should be a tensor but is a {type(value).__name__}.")
    for name, inner in (vars(shell).get("_modules") or {}).items():
        if isinstance(inner, _Shell):
            out |= _flat(inner, file, f"{prefix}{name}.", depth + 1)
    return out


# -- names and sizes ---------------------------------------------------------------------------------------------------

_LAYER = {
    "weight": "weight", "bias": "bias", "noise_strength": "strength", "affine": "style.affine", "affine_0": "style.affine",
    "pre_0": "style.views.0.0", "pre_1": "style.views.0.1", "pre_01": "style.views.1.0", "pre_11": "style.views.1.1",
}  # fmt: skip
_LAST = {"conv": "convolution", "fc": "linear", "out": "out", "fts": "heads.0", "fts2": "heads.1"}


def generator_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a public generator under our names; names that are not known stay as they are."""
    out = {}
    for name, value in weights.items():
        if name.endswith(_IGNORED):
            continue
        parts, ours = name.split("."), name
        if found := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
            ours = f"mapping.{found[1]}.{found[2]}"
        elif name == "mapping.w_avg":
            ours = "mean"
        elif name == "synthesis.b4.const":
            ours = "first"
        elif found := re.fullmatch(r"synthesis\.b(\d+)\.(conv[01]|torgb)\.(.+)", name):
            size, layer = int(found[1]), found[2]
            place = "colours" if layer == "torgb" else f"convolutions.{int(layer[-1]) - (size == 4)}"
            rest = [_LAYER.get(parts[3], parts[3]), *parts[4:]]
            ours = ".".join([f"blocks.{size.bit_length() - 3}", place, *rest])
        out[ours] = value
    return out


def discriminator_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a public discriminator under our names."""
    sizes = [int(found[1]) for name in weights if (found := re.match(r"b(\d+)\.", name))]
    largest, out = max(sizes, default=4), {}
    for name, value in weights.items():
        if name.endswith(_IGNORED):
            continue
        ours = name
        if found := re.fullmatch(r"b4\.(\w+)\.(weight|bias)", name):
            ours = f"{_LAST.get(found[1], found[1])}.{found[2]}"
        elif found := re.fullmatch(r"b(\d+)\.(fromrgb|conv0|conv1|skip)\.(weight|bias)", name):
            place = largest.bit_length() - int(found[1]).bit_length()
            layer = {"conv0": f"blocks.{place}.one", "conv1": f"blocks.{place}.two", "skip": f"blocks.{place}.skip"}
            ours = f"{layer.get(found[2], 'colours')}.{found[3]}"
        out[ours] = value
    return out


def config_of(weights: dict[str, Tensor]) -> StyleGan2Config:
    """Sizes of a generator by its weights, under our names.

    Raises
    ------
    ModelError
        When they are not a generator's.
    """
    try:
        blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        layers = sum(bool(re.fullmatch(r"mapping\.\d+\.weight", name)) for name in weights)
        size, channel_max = 2 ** (blocks + 1), weights["first"].shape[0]
        widths = {2 ** (i + 2): weights[f"blocks.{i}.colours.weight"].shape[1] for i in range(blocks)}
        narrow = [side * n for side, n in widths.items() if n < channel_max]
        view = "blocks.0.colours.style.views"
        fields: dict[str, Any] = {"conditions": 0}
        if f"{view}.0.0.weight" in weights:
            conditions = 1 + max(int(n.split(".")[5]) for n in weights if n.startswith(view))
            fields = {
                "conditions": conditions, "condition": weights[f"{view}.0.0.weight"].shape[1],
                "style": weights[f"{view}.0.1.weight"].shape[0],
            }  # fmt: skip
        return validate(
            StyleGan2Config,
            {
                "size": size, "z": weights["mapping.0.weight"].shape[1], "w": weights["mean"].shape[0],
                "mapping_layers": layers, "channel_max": channel_max, "channel_base": min(narrow, default=channel_max * size),
                **fields,
            },
            "the sizes of these weights",
        )  # fmt: skip
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(
            f"these are not the weights of a StyleGAN2 generator ({type(error).__name__}: {error})."
        ) from error


# -- networks ----------------------------------------------------------------------------------------------------------


@reads("file", ModelError)
def read_networks(file: str | Path, *, conditions: int | None = None) -> tuple[Generator, Discriminator | None]:
    """The averaged generator and the discriminator of a public pickle.

    Parameters
    ----------
    file : with ``G_ema``, and ``D`` where training is to go on
    conditions : 2 makes a network of one condition (Lafite) one of two, each a copy of the first; as found when None

    Raises
    ------
    ModelError
        When the file wants to run anything, is damaged, or its weights are not StyleGAN2's.

    References
    ----------
    Lin et al. 2022, section 2.3: where Mind Reader starts from.
    """
    found = read_pickle(file)
    if "G_ema" not in found:
        raise ModelError(f"{file} has no averaged generator 'G_ema', only {', '.join(sorted(found))}.")
    weights = generator_names(found["G_ema"])
    config = config_of(weights)
    wanted = config.model_copy(update={"conditions": config.conditions if conditions is None else conditions})
    if wanted.conditions != config.conditions and config.conditions != 1:
        raise ModelError(f"{file} has {config.conditions} conditions; only one can be made into {conditions}.")
    generator = _filled(Generator, wanted, weights, f"the generator of {file}")
    if "D" not in found:
        return generator, None
    return generator, _filled(Discriminator, wanted, discriminator_names(found["D"]), f"the discriminator of {file}")


def _filled(kind: Any, config: StyleGan2Config, weights: dict[str, Tensor], owner: str) -> Any:
    """A network with these weights; conditions that are missing are copies of the first."""
    network = _empty(kind, config)
    for name in network.state_dict():
        first = re.sub(r"(views|heads)\.[1-9]\d*\.", r"\1.0.", name)
        if config.conditions > 1 and name not in weights and first in weights:
            weights[name] = weights[first]
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"'{name}' of {owner} holds NaN or infinite values; get the file again.")
    load_module_state(network, {k: v.float().numpy() for k, v in weights.items()}, owner)
    return network


def _empty(kind: Any, config: StyleGan2Config) -> Any:
    with torch.random.fork_rng([]):
        network: nn.Module = kind(**config.model_dump(mode="json"))
    return network.eval().requires_grad_(False)


def convert(file: str | Path, folder: str | Path, *, conditions: int | None = None) -> Path:
    """A public pickle as safetensors and JSON, once and for all; see :func:`read_networks`."""
    from safetensors.numpy import save

    networks = dict(zip(_KEPT, read_networks(file, conditions=conditions), strict=True))
    about = {"config": networks["generator"].config.model_dump(mode="json")}
    with open(file, "rb") as handle:
        about["source_sha256"] = hashlib.file_digest(handle, "sha256").hexdigest()
    with atomic.folder(atomic.checked_path(folder)) as temporary:
        for name, network in networks.items():
            if network is not None:
                (temporary / f"{name}.safetensors").write_bytes(save(module_state(network)))
        (temporary / "config.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Path(folder)


@reads("folder", ModelError)
def read_folder(folder: str | Path) -> tuple[Generator, Discriminator | None]:
    """Networks of a folder written by :func:`convert`. Raises ModelError for missing or damaged files."""
    folder = Path(folder)
    config = validate(StyleGan2Config, read_json(folder / "config.json")["config"], f"{folder}/config.json")
    out = []
    for name, kind in zip(_KEPT, (Generator, Discriminator), strict=True):
        file = folder / f"{name}.safetensors"
        if name == "discriminator" and not file.is_file():
            return out[0], None
        network = _empty(kind, config)
        load_module_state(network, read_safetensors(file), str(file))
        out.append(network)
    return out[0], out[1]
