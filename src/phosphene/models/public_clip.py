"""A public CLIP: where it lies, what is done to pictures before it sees them, and how it is loaded without surprises.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision". The network is that of
transformers, so this file holds no architecture: `locate_checkpoint` finds a checkpoint, `Preprocessing` reads its
settings, `load_clip` and `load_tokenizer` read it, and `checkpoint_digest` names its contents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phosphene.errors import ConfigError, ModelError, NotAvailable
from phosphene.io.reading import reads
from phosphene.io.run_folder import read_json
from phosphene.models import pretrained
from phosphene.models.pixel_range import as_eight_bits
from phosphene.types.identity import digest_of

if TYPE_CHECKING:
    from torch import nn

PINNED = {
    "openai/clip-vit-base-patch32": "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    "openai/clip-vit-large-patch14": "32bd64288804d66eefd0ccbe215aa642df71cc41",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "1c2b8495b28150b8a4922ee1c8edee224c284c0c",
}
"""Public checkpoints and the revision we mean; others need ``revision``."""

_FILES = [
    "config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json",
    "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
    "special_tokens_map.json",
]  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before a CLIP sees it.

    The shorter side becomes `size` (bicubic, Pillow, 8 bits), the middle `crop` x `crop` is cut out, values are divided
    by 255, and ``(x - mean) / std`` per channel. Where the rest is odd, the crop is nearer to the top and the left.

    Parameters
    ----------
    size, crop : int, default 224
        in pixels
    mean, std : tuple of (float, float, float), optional
        per channel, of values 0-1; OpenAI's by default
    """

    size: int = 224
    crop: int = 224
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    @reads("folder", ModelError)
    def of(cls, folder: Path, image_size: int) -> Preprocessing:
        """As ``preprocessor_config.json`` of a checkpoint says, or CLIP's own.

        Parameters
        ----------
        folder : Path
            of the checkpoint
        image_size : int
            side of the pictures its network takes, in pixels

        Returns
        -------
        Preprocessing

        Raises
        ------
        ConfigError
            When the file asks for something else than resizing, cropping and normalising as above.
        """
        file = folder / "preprocessor_config.json"
        if not file.is_file():
            return cls(image_size, image_size)

        config = read_json(file)
        size = _side(config.get("size", image_size))
        crop = _side(config.get("crop_size", image_size))
        steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
        left_out = [step for step in steps if not config.get(step, True)]
        is_bicubic = config.get("resample", 3) == 3  # Pillow's number

        if size is None or crop is None or left_out or not is_bicubic or crop != image_size or crop > size:
            without = ""
            if left_out:
                without = f", without {', '.join(left_out)}"

            raise ConfigError(
                f"{file} asks for size {config.get('size')}, crop {config.get('crop_size')}, resample "
                f"{config.get('resample')}{without}; expected: shorter side resized bicubically (3), centre crop of "
                f"{image_size}, rescaled and normalised. Use a CLIP checkpoint."
            )

        default = cls()
        mean = tuple(config.get("image_mean", default.mean))
        std = tuple(config.get("image_std", default.std))
        return cls(size, crop, mean, std)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Pictures as the network takes them.

        Parameters
        ----------
        pixels : ndarray of shape (n, height, width, 1 or 3)
            uint8 of 0-255, or floats of 0-1, which are rounded to 8 bits first

        Returns
        -------
        ndarray of shape (n, 3, crop, crop), float32
            standardised by channel

        Raises
        ------
        DataError
            For another shape, another type, or floats outside 0-1.
        """
        from PIL import Image

        pixels = as_eight_bits(np.asarray(pixels))
        height, width = pixels.shape[1:3]

        # Truncated, not rounded, as in transformers: the longer side of a picture decides where its middle is.
        shorter = min(height, width)
        new_height = int(self.size * height / shorter)
        new_width = int(self.size * width / shorter)
        top = (new_height - self.crop) // 2
        left = (new_width - self.crop) // 2

        cropped = np.empty((len(pixels), self.crop, self.crop, 3), dtype=np.uint8)
        for i, picture in enumerate(pixels):
            picture = np.ascontiguousarray(np.broadcast_to(picture, (height, width, 3)))  # grey becomes three channels
            if (new_height, new_width) != (height, width):
                resized = Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BICUBIC)
                picture = np.asarray(resized)

            cropped[i] = picture[top : top + self.crop, left : left + self.crop]

        x = cropped.astype(np.float32) / np.float32(255)
        x = (x - np.asarray(self.mean, dtype=np.float32)) / np.asarray(self.std, dtype=np.float32)

        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))  # (n, 3, crop, crop)

    def spec(self) -> dict[str, Any]:
        """Plain values for the store."""
        return {**asdict(self), "resample": "bicubic", "by": "pillow, 8 bits"}


def _side(value: Any) -> int | None:
    """Pixels of a square side or of the shorter side, from the forms that files have; None for another form."""
    if not isinstance(value, Mapping):
        return int(value)

    if "shortest_edge" in value:
        return int(value["shortest_edge"])

    if value.get("height") == value.get("width"):
        return int(value["height"])

    return None


# -- checkpoints -------------------------------------------------------------------------------------------------------


def locate_checkpoint(name: str, revision: str | None, download: bool) -> Path:
    """The folder of a checkpoint, from a path or a name on the hub.

    Parameters
    ----------
    name : str
        a folder, or ``owner/name`` on the hub
    revision : str or None
        commit on the hub, 40 hexadecimal digits; of ``PINNED`` by default
    download : bool
        whether to fetch what is not on this machine; otherwise nothing touches the network

    Returns
    -------
    Path
        of a folder with the checkpoint's files

    Raises
    ------
    ConfigError
        For a name that is neither, or a revision that may change.
    NotAvailable
        When the checkpoint is not on this machine and was not, or could not be, downloaded.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder

    owner, _, short = name.partition("/")
    if not owner or not short or "/" in short or name[0] in "/.~":
        raise ConfigError(
            f"'{name}' is no CLIP: expected 'lab', a folder that exists, or a name on the hub such as {next(iter(PINNED))}."
        )

    revision = revision or PINNED.get(name)
    if revision is None or len(revision) != 40 or set(revision) - set("0123456789abcdef"):
        raise ConfigError(
            f"'{name}' needs revision=, the commit on the hub (40 hexadecimal digits), but got {revision!r}: files under "
            f"a branch or tag can change. Known without it: {', '.join(PINNED)}."
        )

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    def snapshot(files: list[str]) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=not download))

    try:
        folder = snapshot(_FILES)
        if download and not any(folder.glob("model*.safetensors")):
            folder = snapshot([*_FILES, pretrained.PICKLE])  # large, so only where nothing else is published

        return folder
    except (OSError, HfHubHTTPError, ValueError) as error:
        if download:
            reason = "could not be downloaded"
            how = "Check the network"
        else:
            reason = "is not on this machine, and nothing was downloaded"
            how = f"Fetch it with `hf download {name} --revision {revision}`, or download=True"

        raise NotAvailable(
            f"the CLIP '{name}' at revision {revision[:12]} {reason} ({type(error).__name__}). {how}; or put config.json, "
            f"model.safetensors (or {pretrained.PICKLE}), preprocessor_config.json and the tokenizer's files into a folder "
            "and give its path as the name."
        ) from error


@reads("folder", ModelError)
def checkpoint_digest(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights and of the configuration: what features are filed under."""
    of_weights = hashlib.sha256()
    for file in pretrained.weight_files(folder):
        with open(file, "rb") as handle:
            of_weights.update(hashlib.file_digest(handle, "sha256").digest())

    of_config = digest_of(json.dumps(read_clip_config(folder), sort_keys=True))
    return {"weights": of_weights.hexdigest(), "config": of_config}


def load_clip(folder: Path) -> nn.Module:
    """The network of a checkpoint: transformers' CLIPModel in float32, frozen, in evaluation mode.

    Parameters
    ----------
    folder : Path
        of the checkpoint

    Returns
    -------
    nn.Module
        a CLIPModel

    Raises
    ------
    ModelError
        As :func:`phosphene.models.pretrained.load_pretrained`.
    """
    return pretrained.load_pretrained(folder, "CLIPModel").requires_grad_(False)


def read_clip_config(folder: Path) -> dict[str, Any]:
    """The configuration of a CLIP, its ``config.json``.

    Parameters
    ----------
    folder : Path
        of the checkpoint

    Returns
    -------
    dict[str, Any]
        as the file has it

    Raises
    ------
    ModelError
        When the file is missing or of another architecture.
    """
    return pretrained.read_config(folder, "clip")


@reads("folder", ModelError)
def load_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer of a checkpoint.

    Parameters
    ----------
    folder : Path
        of the checkpoint

    Returns
    -------
    CLIPTokenizer
        of transformers

    Raises
    ------
    NotAvailable
        When its files are not in the folder.
    """
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise NotAvailable(f"{folder} has no tokenizer.json (or vocab.json and merges.txt), so it cannot read texts.")

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
