"""The refining second stage of Brain-Diffuser and of the two-stage decoder: a first picture, noised, taken back by
diffusion under the CLIP tokens of what was seen and of how it would be described.

>>> refiner = DualGuided.from_folder("weights/versatile", *unconditional(clip))       # doctest: +SKIP
>>> refiner.refine(first_stage, vision, text, ids, RefineConfig(), seed=0)            # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from phosphene import zoo
from phosphene.errors import DataError, ModelError
from phosphene.features.vdvae_config import group_noise
from phosphene.generate.dual_guided_config import DualGuidedConfig, RefineConfig
from phosphene.generate.dual_guided_network import POSTERIOR, DualUnet
from phosphene.train.checkpoint import ModulePart

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from phosphene.features.clip import ClipFeatures


class DualGuided(ModulePart):
    """The U-Net beside the autoencoder of its latents, as a fitted part of a run.

    Parameters
    ----------
    module : ``unet`` and ``autoencoder``
    config : ``{"unet": fields of DualGuidedConfig, "autoencoder": fields of diffusers' AutoencoderKL}``
    """

    module: nn.ModuleDict

    @classmethod
    def of(cls, unet: DualUnet, autoencoder: AutoencoderKL) -> Self:
        """From two networks.

        Raises
        ------
        ModelError
            When the autoencoder's latents are not what the U-Net works on.
        """
        if autoencoder.config.latent_channels != unet.config.channels:
            raise ModelError(
                f"the autoencoder's latents have {autoencoder.config.latent_channels} channels, but the U-Net works on "
                f"{unet.config.channels}; take two that were trained together."
            )
        fields = {k: v for k, v in dict(autoencoder.config).items() if not k.startswith("_")}
        config = {"unet": unet.config.model_dump(mode="json"), "autoencoder": json.loads(json.dumps(fields))}
        return cls(_finished(unet, autoencoder), config)

    @classmethod
    def from_zoo(cls) -> Self:
        """The lab's networks. Raises NotAvailable where they are not bundled."""
        return cls.of(zoo.load("dual_guided"), zoo.load("kl"))

    @classmethod
    def from_folder(cls, folder: str | Path, vision: np.ndarray, text: np.ndarray) -> Self:
        """Versatile Diffusion from a folder on this machine; nothing is ever fetched.

        Parameters
        ----------
        folder : with ``image_unet``, ``text_unet``, ``vae`` and ``scheduler``, as diffusers lays them out
        vision : (vision tokens, context), of no picture (see :func:`unconditional`)
        text : (text tokens, context), of no text

        Raises
        ------
        ModelError
            Missing or damaged files, pickles that want to run anything, or sizes and weights that do not fit together.
        """
        from phosphene.generate.dual_guided_files import read_folder

        return cls.of(*read_folder(Path(folder), vision, text))

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.Module:
        """Untrained networks of this configuration."""
        from diffusers import AutoencoderKL

        return _finished(DualUnet(**config["unet"]), AutoencoderKL(**config["autoencoder"]))

    @property
    def unet(self) -> DualUnet:
        """What predicts noise."""
        return self.module["unet"]

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        halvings = len(self.config["autoencoder"]["block_out_channels"]) - 1
        return int(self.config["unet"]["size"]) * 2**halvings

    @torch.no_grad()
    def refine(
        self,
        first_stage: np.ndarray | None,
        vision: np.ndarray,
        text: np.ndarray,
        ids: Sequence[Any],
        sampling: RefineConfig,
        seed: int,
        *,
        batch_size: int = 8,
    ) -> np.ndarray:
        """Pictures that look like the first stage and mean what the conditions say.

        Parameters
        ----------
        first_stage : (n, height, width, 3) floats, 0-1, of any size; without it pictures are drawn from pure noise in all
            steps
        vision : (n, vision tokens, context), CLIP tokens of pictures
        text : (n, text tokens, context), CLIP tokens of texts
        ids : n stimulus ids; the noise of a picture is a function of seed and id, not of its company
        sampling : steps, strength, guidance, share of the text
        seed : of the noise
        batch_size : pictures that go through the networks at once; batches are filled up to it

        Returns
        -------
        (n, size, size, 3) float32, 0-1

        Raises
        ------
        DataError
            Pictures or conditions of another shape or range, not finite, or not one per id.
        ModelError
            When a network gives NaN.
        """
        if torch.cuda.is_available():
            self.module.to("cuda")
        first = None if first_stage is None else self.encode(first_stage, ids, sampling, seed, batch_size=batch_size)
        z = self.unet.sample(
            vision, text, ids, seed=seed, first=first, batch_size=batch_size,
            **sampling.model_dump(exclude={"posterior"}),
        )  # fmt: skip
        return self.decode(z, batch_size=batch_size)

    @torch.no_grad()
    def encode(
        self, pixels: np.ndarray, ids: Sequence[Any], sampling: RefineConfig, seed: int, *, batch_size: int = 8
    ) -> Tensor:
        """Scaled latents of pictures (n, height, width, 3), 0-1: (n, channels, rows, columns). Raises like :meth:`refine`."""
        pixels = np.asarray(pixels)
        if pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) != len(ids) or pixels.dtype.kind != "f":
            raise DataError(
                f"first-stage pictures of {len(ids)} ids must be ({len(ids)}, height, width, 3) floats of 0-1, but are "
                f"{pixels.dtype} of shape {pixels.shape}."
            )
        if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise DataError(
                f"first-stage pictures must lie in 0-1 without NaN, but span {pixels.min():.3g} to {pixels.max():.3g}; "
                "clip them first."
            )
        network, c = self.module["autoencoder"], self.unet.config
        shape, x = (c.channels, c.size, c.size), zoo.to_network(_resized(pixels, self.size))
        latents = [torch.empty((0, *shape))]
        for rows, filled in _batches(len(x), batch_size):
            found = network.encode(x[filled].to(network.device)).latent_dist
            z = found.mean
            if sampling.posterior == "sample":
                noise = group_noise(seed, [ids[i] for i in filled], POSTERIOR, shape)
                z = z + found.std * torch.from_numpy(noise).to(z.device)
            latents.append((z * network.config.scaling_factor)[: len(rows)].cpu())
        return torch.cat(latents)

    @torch.no_grad()
    def decode(self, latents: Tensor, *, batch_size: int = 8) -> np.ndarray:
        """Pictures of scaled latents, (n, size, size, 3) float32, 0-1. Raises ModelError when the network gives NaN."""
        network = self.module["autoencoder"]
        out = [np.empty((0, self.size, self.size, 3), dtype=np.float32)]
        for rows, filled in _batches(len(latents), batch_size):
            x = network.decode((latents[filled] / network.config.scaling_factor).to(network.device)).sample
            out.append(zoo.from_network(x[: len(rows)]))
        pictures = np.concatenate(out)
        if not np.isfinite(pictures).all():
            raise ModelError("the autoencoder gives NaN; load its weights again.")
        return pictures


def unconditional(clip: ClipFeatures) -> tuple[np.ndarray, np.ndarray]:
    """What stands for no condition: tokens of a mid-grey picture and of the empty text.

    Parameters
    ----------
    clip : what makes the conditions, with ``output="tokens"``

    Returns
    -------
    (vision tokens, context), (text tokens, context), float32

    Notes
    -----
    The grey is passed as 8 bits, 127. As floats, newer versions of transformers scale it twice, and a black picture takes
    its place in the public pipelines.
    """
    if clip.output != "tokens":
        raise DataError(f'conditions are tokens, but {clip!r} gives one vector each; make it with output="tokens".')
    grey = np.full((1, 224, 224, 3), 127, dtype=np.uint8)
    return clip.images(grey)[0], clip.texts([""])[0]


def _finished(unet: DualUnet, autoencoder: AutoencoderKL) -> nn.ModuleDict:
    """Both frozen: torch multiplies in another order, with other roundings, where weights want a gradient."""
    return nn.ModuleDict({"unet": unet, "autoencoder": autoencoder}).eval().requires_grad_(False)


def _batches(n: int, size: int) -> list[tuple[list[int], list[int]]]:
    """Rows of each batch, and the same filled up to `size`: sums of another size would be rounded in another order."""
    parts = [list(range(i, min(i + size, n))) for i in range(0, n, size)]
    return [(rows, rows + [rows[-1]] * (size - len(rows))) for rows in parts]


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """Bicubic as in Brain-Diffuser, in float32 where that rounds to 8 bits; clipped to 0-1."""
    if pixels.shape[1:3] == (side, side):
        return pixels
    from PIL import Image

    out = np.empty((len(pixels), side, side, 3), dtype=np.float32)
    for i, picture in enumerate(pixels.astype(np.float32)):
        for c in range(3):
            plane = Image.fromarray(np.ascontiguousarray(picture[:, :, c]))
            out[i, :, :, c] = np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC))
    return out.clip(0, 1)


__all__ = ["DualGuided", "DualGuidedConfig", "RefineConfig", "unconditional"]
