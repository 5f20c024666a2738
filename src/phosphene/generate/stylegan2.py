"""Pictures from an image and a text latent through the conditional StyleGAN2, in one pass (Mind Reader, section 2.3).

>>> painter = StyleGan2.from_public("lafite_coco.pkl")                                            # doctest: +SKIP
>>> painter.paint(image_latents, text_latents, ids, SamplingConfig(), seed=0)                     # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from phosphene import zoo
from phosphene.errors import DataError, ModelError
from phosphene.features.vdvae_config import picture_rng
from phosphene.generate.stylegan2_config import GameConfig, SamplingConfig, StyleGan2Config
from phosphene.generate.stylegan2_network import Discriminator, Generator
from phosphene.train.checkpoint import ModulePart
from phosphene.types import digest_of

if TYPE_CHECKING:
    from phosphene.train import TrainConfig


class StyleGan2(ModulePart):
    """The generator as a fitted part of a run.

    Parameters
    ----------
    module : the generator
    config : fields of :class:`StyleGan2Config`

    Examples
    --------
    >>> part = StyleGan2.of(Generator(**StyleGan2Config.lab().model_dump()))
    >>> latents = np.eye(2, 64, dtype=np.float32)
    >>> part.paint(latents, latents, ["a", "b"], SamplingConfig(samples=3), seed=0).shape
    (2, 3, 32, 32, 3)
    """

    module: Generator

    @classmethod
    def of(cls, generator: Generator) -> Self:
        """The part that holds this network."""
        return cls(generator.eval().requires_grad_(False), generator.config.model_dump(mode="json"))

    @classmethod
    def from_zoo(cls) -> Self:
        """The lab's network. Raises NotAvailable where it is not bundled."""
        return cls.of(zoo.load("stylegan2"))

    @classmethod
    def from_public(cls, path: str | Path) -> Self:
        """Public weights, with two conditions: a network of one condition is given a second one like it.

        Parameters
        ----------
        path : a StyleGAN pickle, nothing in which is run, or a folder written by
            :func:`phosphene.generate.stylegan2_files.convert`

        Raises
        ------
        ModelError
            Missing or damaged files, pickles that want to run anything, or weights that are not StyleGAN2's.
        """
        from phosphene.generate.stylegan2_files import read_folder, read_networks

        return cls.of((read_folder(path) if Path(path).is_dir() else read_networks(path, conditions=2))[0])

    @classmethod
    def build(cls, config: dict[str, Any]) -> Generator:
        """An untrained network of these fields of :class:`StyleGan2Config`."""
        return Generator(**config).eval().requires_grad_(False)

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        return self.module.config.size

    def learn(
        self,
        pixels: np.ndarray,
        image_latents: np.ndarray,
        text_latents: np.ndarray,
        game: GameConfig,
        settings: TrainConfig,
        train: Callable[..., Any],
        *,
        discriminator: Discriminator,
        see: Callable[[Tensor], Tensor] | None = None,
        low_level: Callable[[Tensor], Tensor] | None = None,
        side: int | None = None,
    ) -> None:
        """Train on with pictures and their latents, as a brain decoder gives them; afterwards it holds averaged weights.

        Parameters
        ----------
        pixels : (n, size, size, 3) uint8, or floats of 0-1
        image_latents, text_latents : (n, condition)
        game : weights of the losses
        settings : how; the learning rate and decay rates are those of Adam before they are corrected
        train : called with network, fetch, number of items, `settings`, a digest of the data and the optimiser
        discriminator : the other side, of the same sizes; changed in place
        see, low_level, side : see :class:`phosphene.generate.stylegan2_losses.Game`
        """
        from phosphene.generate.stylegan2_losses import Game, adam

        conditions, x = self._conditions(image_latents, text_latents, len(pixels)), zoo.to_network(pixels)

        def fetch(rows: np.ndarray) -> dict[str, Tensor]:
            return {"x": x[rows], "conditions": conditions[rows]}

        both = Game(self.module, discriminator, game, see, low_level, side).requires_grad_(True)
        train(both, fetch, len(x), settings, data=digest_of(x.numpy(), conditions.numpy()), optimizer=adam)
        self.module.requires_grad_(False).cpu()

    @torch.no_grad()
    def paint(
        self,
        image_latents: np.ndarray,
        text_latents: np.ndarray | None,
        ids: Sequence[Any],
        sampling: SamplingConfig,
        seed: int,
    ) -> np.ndarray:
        """Pictures of latents.

        The noise of picture s of a stimulus is a function of `seed`, its id and s, not of its company, of order, or of the
        number of samples.

        Parameters
        ----------
        image_latents, text_latents : (n, condition), of any length but 0; the second is None for a network of one condition
        ids : n stimulus ids; equal ids get equal noise
        sampling : samples, truncation, and whether noise is added to pixels
        seed : of the noise

        Returns
        -------
        (n, samples, size, size, 3) float32, 0-1

        Raises
        ------
        DataError
            Latents of another shape, not finite or of length 0, or not one per id.
        ModelError
            When the network gives NaN.
        """
        if torch.cuda.is_available():
            self.module.to("cuda")
        network, c = self.module, self.module.config
        conditions = self._conditions(image_latents, text_latents, len(ids))
        out = np.empty((len(ids), sampling.samples, c.size, c.size, 3), dtype=np.float32)
        where = network.first.device
        for row, stimulus in enumerate(ids):
            for k in range(sampling.samples):
                # One at a time: sums of several pictures are rounded differently at each place in a batch.
                z, *pixels = (torch.from_numpy(a[None]).to(where) for a in _noise(seed, stimulus, k, c))
                noise = pixels if sampling.pixel_noise else None
                x = network(conditions[row : row + 1].to(where), z, noise, truncation=sampling.truncation)
                out[row, k] = zoo.from_network(x)[0]
        if not np.isfinite(out).all():
            raise ModelError("StyleGAN2 gives NaN: load its weights again, or train again at a lower learning rate.")
        return out

    def _conditions(self, image: np.ndarray, text: np.ndarray | None, n: int) -> Tensor:
        """(n, conditions, condition) of unit length."""
        c = self.module.config
        given = [np.asarray(a, dtype=np.float32) for a in (image, text) if a is not None]
        for a in given:
            if a.shape != (n, c.condition):
                raise DataError(
                    f"{n} stimuli need latents of shape ({n}, {c.condition}), but some are {a.shape}; use the latents this "
                    "generator was trained on, one row per stimulus."
                )
        if len(given) != c.conditions:
            raise DataError(f"this generator takes {c.conditions} latents per stimulus, but {len(given)} came.")
        length = np.stack([np.linalg.norm(a, axis=1) for a in given])
        if not (np.isfinite(length).all() and (length > 0).all()):
            raise DataError("latents hold NaN or infinite values, or are all 0, which has no direction.")
        return torch.from_numpy(np.stack([a / norm[:, None] for a, norm in zip(given, length, strict=True)], 1))


def _noise(seed: int, stimulus: Any, sample: int, c: StyleGan2Config) -> list[np.ndarray]:
    """z, and the noise of each convolution, of one picture."""
    rng = picture_rng(seed, stimulus, sample)
    shapes = [(c.z,), *((1, side, side) for side in c.noise_sizes)]
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


__all__ = ["GameConfig", "SamplingConfig", "StyleGan2", "StyleGan2Config"]
