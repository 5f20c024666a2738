"""Pictures from brain tokens through latent diffusion: tokens -> latent -> picture (MinD-Vis; CAD, phase 3).

>>> public = Ldm.from_public("model.ckpt")                  # label to picture, as published          # doctest: +SKIP
>>> ldm = public.with_tokens(count=291, width=1024, seed=0)  # the same, from a response's tokens     # doctest: +SKIP
>>> ldm.network.tune("cross_attention")                     # what a training then changes            # doctest: +SKIP
>>> ldm.sample(tokens, ids, LdmSampling(), seed=0)          # (n, 5, 256, 256, 3)                     # doctest: +SKIP

The network and its training loss are in ``ldm_network.py``. In phase 3 the brain encoder before it learns from the same
loss, so the module that holds both is the recipe's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene import zoo
from phosphene.errors import DataError, ModelError
from phosphene.generate.ldm_config import VQ_F4, BrainTokens, Labels, LdmConfig, LdmSampling
from phosphene.generate.ldm_network import LdmUnet
from phosphene.train.checkpoint import ModulePart, load_module_state

if TYPE_CHECKING:
    from diffusers import VQModel

    from phosphene.train.sampling import Draws


class Ldm(ModulePart):
    """The U-Net with its conditionings beside the tokenizer of its latents, as a fitted part of a run.

    Parameters
    ----------
    module : ``network`` and ``tokenizer``
    config : ``{"network": fields of LdmConfig, "tokenizer": fields of diffusers' VQModel}``

    Notes
    -----
    Latents are the tokenizer's before they are quantised, times its ``scaling_factor`` (1 as published, one over their
    standard deviation in the zoo). They are quantised when they are decoded, as published.
    """

    module: nn.ModuleDict

    @classmethod
    def of(cls, network: LdmUnet, tokenizer: VQModel) -> Self:
        """From two networks.

        Raises
        ------
        ModelError
            When the tokenizer's latents are not what the U-Net works on.
        """
        if tokenizer.config.latent_channels != network.config.channels:
            raise ModelError(
                f"the tokenizer's latents have {tokenizer.config.latent_channels} channels, but the U-Net works on "
                f"{network.config.channels}; take two that were trained together."
            )
        fields = {k: v for k, v in dict(tokenizer.config).items() if not k.startswith("_")}
        config = {"network": network.config.model_dump(mode="json"), "tokenizer": json.loads(json.dumps(fields))}
        return cls(nn.ModuleDict({"network": network, "tokenizer": tokenizer}).eval(), config)

    @classmethod
    def from_zoo(cls) -> Self:
        """The lab's networks, from labels. Raises NotAvailable where they are not bundled."""
        return cls.of(zoo.load("ldm"), zoo.load("vq"))

    @classmethod
    def from_public(cls, file: str | Path, *, inert: Collection[str] = ()) -> Self:
        """CompVis' ``cin256-v2``, which draws from one of 1001 labels and which MinD-Vis and CAD start from.

        Parameters
        ----------
        file : its ``model.ckpt``, 1.8 GB
        inert : further classes of settings the file may name, such as ``"config.Settings"``; they are never imported

        Raises
        ------
        ModelError
            Missing or damaged files, files that want to run anything, or weights that do not fit.
        """
        from phosphene.generate.ldm_weights import read_public

        return cls._from_tensors(read_public(file, inert=inert), LdmConfig.published())

    @classmethod
    def from_tuned(cls, file: str | Path, *, inert: Collection[str] = ()) -> tuple[Self, dict[str, Tensor]]:
        """A checkpoint that MinD-Vis tuned to a brain, such as its public ``finetuned.pth``.

        Parameters
        ----------
        file : with ``model_state_dict``
        inert : as for :meth:`from_public`

        Returns
        -------
        the generator, and the weights of the brain encoder before it, by the names of SC-MBM

        Raises
        ------
        ModelError
            As :meth:`from_public`.
        """
        from phosphene.generate.ldm_weights import read_public, tuned_config, tuned_encoder

        tensors = read_public(file, "model_state_dict", inert=inert)
        return cls._from_tensors(tensors, tuned_config(tensors, LdmConfig.paper())), tuned_encoder(tensors)

    @classmethod
    def _from_tensors(
        cls, tensors: dict[str, Tensor], config: LdmConfig, tokenizer: dict[str, Any] | None = None
    ) -> Self:
        from phosphene.generate.ldm_weights import public_network, public_tokenizer

        fields = tokenizer or VQ_F4
        weights = public_network(tensors, config), public_tokenizer(tensors, fields)
        sizes = {"network": config.model_dump(mode="json"), "tokenizer": dict(fields)}
        part = cls(cls.build(sizes), sizes)
        for module, found, what in zip(part.module.values(), weights, ("the U-Net", "the tokenizer"), strict=True):
            load_module_state(module, found, f"{what} of latent diffusion")
        return part

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.ModuleDict:
        """Untrained networks of this configuration."""
        from diffusers import VQModel

        parts = {"network": LdmUnet(**config["network"]), "tokenizer": VQModel(**config["tokenizer"])}
        return nn.ModuleDict(parts).eval()

    def with_tokens(self, count: int, width: int, *, seed: int, **changes: Any) -> Ldm:
        """The same generator drawing from brain tokens, its conditionings drawn anew (:meth:`LdmUnet.with_tokens`)."""
        return Ldm.of(self.network.with_tokens(count, width, seed=seed, **changes), self.tokenizer)

    @property
    def network(self) -> LdmUnet:
        """What predicts noise."""
        return self.module["network"]

    @property
    def tokenizer(self) -> VQModel:
        """What makes latents of pictures, and pictures of latents."""
        return self.module["tokenizer"]

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        return int(self.config["network"]["size"]) * 2 ** (len(self.config["tokenizer"]["block_out_channels"]) - 1)

    @torch.no_grad()
    def encode(self, pixels: np.ndarray | Tensor, *, batch_size: int = 20) -> Tensor:
        """Latents to train on.

        Parameters
        ----------
        pixels : (n, size, size, 3), uint8 of 0-255 or floats of 0-1; or a tensor (n, 3, size, size), -1 to 1
        batch_size : pictures that go through the network at once

        Returns
        -------
        (n, channels, rows, columns) float32 on the CPU

        Raises
        ------
        DataError
            Pictures of another size or range.
        """
        x = pixels if isinstance(pixels, Tensor) else zoo.to_network(pixels)
        if x.shape[1:] != (3, self.size, self.size):
            raise DataError(
                f"pictures must be {self.size} x {self.size} with three channels, but have shape {tuple(pixels.shape)}; "
                "resize them first."
            )
        vq, scale = self.tokenizer, self.tokenizer.config.scaling_factor
        return torch.cat([(vq.encode(b.to(vq.device)).latents * scale).cpu() for b in x.float().split(batch_size)])

    @torch.no_grad()
    def decode(self, latents: Tensor, *, batch_size: int = 20) -> np.ndarray:
        """Pictures of latents (n, channels, rows, columns), quantised first: (n, size, size, 3) float32, 0-1.

        Raises
        ------
        ModelError
            When the network gives NaN.
        """
        vq, scale = self.tokenizer, self.tokenizer.config.scaling_factor
        out = [np.empty((0, self.size, self.size, 3), dtype=np.float32)]
        for start in range(0, len(latents), batch_size):
            # Filled up as in `LdmUnet.sample`.
            z = latents[start : start + batch_size]
            filled = torch.cat([z, z[-1:].expand(batch_size - len(z), -1, -1, -1)])
            out.append(zoo.from_network(vq.decode((filled / scale).to(vq.device)).sample[: len(z)]))
        pictures = np.concatenate(out)
        if not np.isfinite(pictures).all():
            raise ModelError("the tokenizer gives NaN; load its weights again.")
        return pictures

    def sample(
        self,
        condition: np.ndarray | Tensor,
        ids: Sequence[Any],
        sampling: LdmSampling,
        seed: int,
        *,
        batch_size: int = 20,
    ) -> np.ndarray:
        """Pictures drawn from brain tokens, or from labels.

        Parameters
        ----------
        condition : (n, count, width) floats, brain tokens; or (n, kinds) integers, labels
        ids : n stimulus ids; the noise of a picture is a function of seed, id and sample, not of its company
        sampling : steps and samples
        seed : of the noise
        batch_size : pictures that go through the networks at once; batches are filled up to it

        Returns
        -------
        (n, samples, size, size, 3) float32, 0-1

        Raises
        ------
        DataError
            A condition of another shape, not finite, out of the known labels, or not one per id.
        ModelError
            When a network gives NaN.

        Notes
        -----
        The authors cut pictures down to 8 bits (``floor(255 x)``) before they score them; these are left as they are.
        """
        if torch.cuda.is_available():
            self.module.to("cuda")
        z = self.network.sample(condition, ids, seed=seed, batch_size=batch_size, **sampling.model_dump())
        pictures = self.decode(z.flatten(0, 1), batch_size=batch_size)
        return pictures.reshape(*z.shape[:2], *pictures.shape[1:])


def random_crops(x: Tensor, draws: Draws, *, share: float = 0.5, cut: float = 0.2) -> Tensor:
    """Some pictures cut smaller at random and stretched back: how MinD-Vis and CAD vary what they train on.

    Parameters
    ----------
    x : (n, 3, size, size) pictures of this part of a batch
    draws : noise of this step
    share : of pictures that are cut
    cut : share of the side that is cut off: 256 - floor(0.2 x 256) = 205 pixels are left of 256

    Returns
    -------
    (n, 3, size, size), pixels between others interpolated bilinearly
    """
    size, out = x.shape[-1], x.clone()
    side = size - int(cut * size)
    u = draws.uniform(3).cpu()
    for i in (u[:, 0] < share).nonzero().flatten().tolist():
        top, left = (u[i, 1:] * (size - side + 1)).long().tolist()
        part = x[i : i + 1, :, top : top + side, left : left + side]
        out[i] = F.interpolate(part, size=(size, size), mode="bilinear", align_corners=False)[0]
    return out


__all__ = ["BrainTokens", "Labels", "Ldm", "LdmConfig", "LdmSampling", "LdmUnet", "random_crops"]
