"""Very Deep VAE latents to pictures: the first groups as a brain decoder predicts them, the rest from the prior.

The network itself is :class:`phosphene.features.vdvae_network.Vdvae`: the same one makes the target latents, so it
stands below, where both can reach it. First stage of Brain-Diffuser (Ozcelik and VanRullen 2023) and of the two-stage
decoder of Veronese et al. 2024.

>>> from phosphene.features import vdvae_weights
>>> pictures = VdvaeDecoder(vdvae_weights.load("weights/vdvae64"))                     # doctest: +SKIP
>>> pictures.decode(predicted, ids, seed=0)     # (n, 91168) to (n, 64, 64, 3)         # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import ConfigError, DataError, ModelError, did_you_mean
from phosphene.features.vdvae_config import VdvaeConfig, group_noise, picture_rng
from phosphene.features.vdvae_network import Vdvae, mixture_mean, mixture_sample
from phosphene.train.checkpoint import ModulePart

_PIXELS = ("sample", "mean")


class VdvaeDecoder:
    """Latents to pictures through a frozen network, in batches.

    Parameters
    ----------
    network : put into evaluation mode
    batch_size : pictures that go through it at once

    Attributes
    ----------
    config : sizes of the network, and the layout of its latents

    Examples
    --------
    >>> decoder = VdvaeDecoder(Vdvae(**VdvaeConfig.lab().model_dump()))
    >>> decoder.decode(np.zeros((2, 644), dtype=np.float32), ["a", "b"], seed=0).shape  # the first 5 of 8 groups
    (2, 32, 32, 3)
    """

    def __init__(self, network: Vdvae, *, batch_size: int = 20) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is the number of pictures per pass, at least 1, but is {batch_size}.")
        self.network, self.batch_size, self.config = network.eval(), batch_size, network.config

    @torch.no_grad()
    def decode(
        self,
        latents: np.ndarray | Sequence[np.ndarray],
        ids: Sequence[Any],
        *,
        seed: int,
        given: int | None = None,
        temperature: float = 1.0,
        pixels: Literal["sample", "mean"] = "sample",
    ) -> np.ndarray:
        """Pictures of latents.

        The noise of a picture is a function of `seed` and its id, group by group, not of which other pictures are asked
        for, of their order, or of how many groups are given. Only the rounding of the network's sums can depend on the
        place in a batch (never on one CPU thread, at a fixed `batch_size`).

        Parameters
        ----------
        latents : (n, d), the first groups one after the other (see :meth:`VdvaeConfig.split`), or a list of groups
            (n, channels, height, width)
        ids : n stimulus ids, unique or not; equal ids get equal noise
        seed : of all noise
        given : take only this many first groups of those that came; all by default
        temperature : of groups that are not given: prior mean + temperature x prior deviation x noise. At 0 nothing at
            all is drawn, and pixels are means
        pixels : "sample" draws them from the network's mixture of logistics as the published decoders do; "mean" is less
            grainy

        Returns
        -------
        (n, size, size, 3) float32, 0-1

        Raises
        ------
        DataError
            Latents of another length, not finite, fewer groups than `given`, or not one per id.
        ConfigError
            Options out of range.
        ModelError
            When the network itself gives NaN.

        Notes
        -----
        The published decoders predict 15 or 31 groups of ImageNet-64's 75, temperature 1, pixels sampled, without a
        seed; and cut pixels down to 8 bits where these are left as they are.
        """
        if pixels not in _PIXELS:
            raise ConfigError(f"pixels cannot be '{pixels}'. {did_you_mean(pixels, _PIXELS)}")
        if not (temperature >= 0 and np.isfinite(temperature)):
            raise ConfigError(f"temperature must be a number of at least 0, but is {temperature}.")
        groups = self._groups(latents, ids, given)
        size = self.config.image_size
        out = np.empty((len(ids), size, size, 3), dtype=np.float32)
        for start in range(0, len(ids), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(ids)))
            # A full batch every time: matrix products of another size would be summed in another order.
            filled = np.append(rows, [rows[-1]] * (self.batch_size - len(rows))).astype(int)
            x = self._draw([g[filled] for g in groups], [ids[i] for i in filled], seed, temperature, pixels)
            out[rows] = (x[: len(rows)].cpu().numpy().transpose(0, 2, 3, 1) + 1) / 2
        if not np.isfinite(out).all():
            raise ModelError(
                "the Very Deep VAE gives NaN: load its weights again, or check that latents are in its units."
            )
        return out

    def _draw(self, groups: list[np.ndarray], ids: list[Any], seed: int, temperature: float, pixels: str) -> Tensor:
        where = self.network.decoder.gain.device

        def noise(group: int, shape: tuple[int, ...]) -> Tensor:
            return torch.from_numpy(group_noise(seed, ids, group, shape)).to(where)

        given = [torch.from_numpy(np.ascontiguousarray(g)).to(where) for g in groups]
        parameters = self.network.decode(given, len(ids), noise, temperature).float()
        if pixels == "mean" or temperature == 0:
            return mixture_mean(parameters)
        c = self.config
        shape, last = (c.mixtures + 3, c.image_size, c.image_size), len(c.shapes)
        u = np.stack([picture_rng(seed, i, last).random(shape, dtype=np.float32) for i in ids])
        return mixture_sample(parameters, torch.from_numpy(u).to(where))

    def _groups(
        self, latents: np.ndarray | Sequence[np.ndarray], ids: Sequence[Any], given: int | None
    ) -> list[np.ndarray]:
        c = self.config
        vectors = latents if isinstance(latents, np.ndarray) else c.join([np.asarray(g) for g in latents])
        groups = c.split(vectors)
        if len(vectors) != len(ids):
            raise DataError(f"{len(vectors)} rows of latents came with {len(ids)} ids; give one row an id.")
        if given is not None and not 1 <= given <= len(groups):
            raise DataError(
                f"{given} groups should be taken as given, but {len(groups)} came; give 1 to {len(groups)}."
            )
        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            raise DataError(
                f"latents of {int(bad.sum())} stimuli hold NaN or infinite values, first '{ids[bad.argmax()]}'."
            )
        return [np.asarray(g, dtype=np.float32) for g in groups[:given]]


class VdvaePart(ModulePart):
    """The network as a part of a run, so that a run needs no folder outside itself."""

    module: Vdvae

    @classmethod
    def of(cls, network: Vdvae) -> VdvaePart:
        """The part that holds this network."""
        return cls(network, network.config.model_dump(mode="json"))

    @classmethod
    def build(cls, config: dict[str, Any]) -> Vdvae:
        """An untrained network of these fields of :class:`VdvaeConfig`."""
        return Vdvae(**config)


__all__ = ["VdvaeConfig", "VdvaeDecoder", "VdvaePart"]
