"""Very Deep VAE latents: pictures as vectors from coarse to fine, targets of Brain-Diffuser and the two-stage decoder.

>>> vdvae = VdvaeFeatures("weights/vdvae64", groups=31)       # 91,168 values      # doctest: +SKIP
>>> store = vdvae.image_store(dataset.stimuli, cache)         # computed once      # doctest: +SKIP
>>> store.read(trials.stimulus_ids)                           # (n, 91168)         # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from phosphene.errors import ConfigError, DataError, did_you_mean
from phosphene.features import fingerprint
from phosphene.features.clip import content_digest, full_precision
from phosphene.io.progress import Progress
from phosphene.io.store import RowStore, cached
from phosphene.models.batch_invariance import group_noise
from phosphene.models.pixel_range import as_eight_bits
from phosphene.types import Stimuli

if TYPE_CHECKING:
    import torch

    from phosphene.models.vdvae import Vdvae, VdvaeConfig

LAB = "lab"
_VERSION = 1  # of what this file computes; part of every key
_TARGETS = ("mean", "sample")


class VdvaeFeatures:
    """The first groups of a picture's latents under a frozen Very Deep VAE, as one vector.

    Parameters
    ----------
    name : str or Path, optional
        "lab" for the bundled one, or a folder that :func:`phosphene.models.vdvae.convert` made
    groups : int, optional
        how many first groups; as many as the network's configuration says by default (15 of ImageNet-64's 75)
    target : {"mean", "sample"}, default "mean"
        "mean" follows the posterior's means from group to group; "sample" draws from the posterior, as the published
        decoders do without a seed
    seed : int, default 0
        of samples; a picture's noise is a function of seed and stimulus id
    batch : int, default 32
        pictures put through the network together
    device : str, default "cpu"
        where to compute
    dtype : {"float16", "float32"}, default "float32"
        how latents are stored
    lab_folder : Path, optional
        of the lab's weights; the bundled ones by default

    Raises
    ------
    ConfigError
        For an unknown option.

    Notes
    -----
    Pictures are resized as in the published decoders: bilinear, Pillow, 8 bits, to a square, whatever their shape.
    Latents come in the network's own units; recipes standardise them. The network is loaded when first needed.

    References
    ----------
    Child 2021; Ozcelik and VanRullen 2023 (Brain-Diffuser); Veronese et al. 2024, section 3.3.1.
    """

    def __init__(
        self,
        name: str | Path = LAB,
        *,
        groups: int | None = None,
        target: Literal["mean", "sample"] = "mean",
        seed: int = 0,
        batch: int = 32,
        device: str = "cpu",
        dtype: Literal["float16", "float32"] = "float32",
        lab_folder: Path | None = None,
    ) -> None:
        if target not in _TARGETS:
            raise ConfigError(f"target of VDVAE features cannot be '{target}'. {did_you_mean(target, _TARGETS)}")

        for option, value in (("batch", batch), ("groups", groups)):
            if value is not None and value < 1:
                raise ConfigError(f"{option} must be at least 1, but is {value}.")

        self.name = str(name)
        self._groups = groups
        self.target = target
        self.seed = seed
        self.batch = batch
        self.device = device
        self.dtype: Literal["float16", "float32"] = dtype
        self.lab_folder = lab_folder

    def __repr__(self) -> str:
        return f"VdvaeFeatures({self.name!r}, groups={self._groups}, target={self.target!r})"

    @property
    def space(self) -> str:
        """Short name of these latents, such as ``vdvae_lab`` or ``vdvae_vdvae64_31``."""
        short = re.sub(r"[^a-z0-9]+", "_", Path(self.name).name.lower()).strip("_")
        if self._groups:
            return f"vdvae_{short}_{self._groups}"

        return f"vdvae_{short}"

    @cached_property
    def config(self) -> VdvaeConfig:
        """Sizes of the network, and the layout of its latents."""
        from phosphene.models import vdvae as vdvae_weights  # loads torch

        return vdvae_weights.read_vdvae_config(self.name, self.lab_folder)

    @property
    def groups(self) -> int:
        """How many first groups a vector holds."""
        return self._groups or self.config.given

    def shape(self) -> tuple[int]:
        """Shape of the latents of one picture."""
        return (self.config.length(self.groups),)

    def images(self, pixels: np.ndarray, ids: Sequence[Any] | np.ndarray | None = None) -> np.ndarray:
        """Latents of pictures.

        Parameters
        ----------
        pixels : ndarray of shape (n, height, width, 1 or 3)
            uint8 of 0-255, or floats of 0-1, which are rounded to 8 bits
        ids : sequence, optional
            n stimulus ids, which noise is drawn by where target is "sample"; 0, 1, 2 ... by default

        Returns
        -------
        ndarray of shape (n, d), float32
            groups coarse to fine, each flattened channels, rows, columns

        Raises
        ------
        DataError
            For pictures of another shape, type or range, or another number of ids.
        """
        if ids is None:
            ids = range(len(pixels))

        ids = list(ids)
        if len(ids) != len(pixels):
            raise DataError(f"{len(pixels)} pictures came with {len(ids)} ids; give one id a picture.")

        parts = [np.empty((0, *self.shape()), dtype=np.float32)]
        for start in range(0, len(pixels), self.batch):
            rows = slice(start, start + self.batch)
            parts.append(self._encode(pixels[rows], ids[rows]))

        return np.concatenate(parts)

    def _encode(self, pixels: np.ndarray, ids: list[Any]) -> np.ndarray:
        import torch

        x = torch.from_numpy(self._prepared(pixels)).to(self.device)

        def noise(group: int, shape: tuple[int, ...]) -> torch.Tensor:
            return torch.from_numpy(group_noise(self.seed, ids, group, shape)).to(self.device)

        drawn = None
        if self.target == "sample":
            drawn = noise

        with torch.inference_mode(), full_precision():
            latents = self._network.encode(x, self.groups, drawn)

        return self.config.join([z.float().cpu().numpy() for z in latents])

    def _prepared(self, pixels: np.ndarray) -> np.ndarray:
        """(n, 3, size, size) float32, -1 to 1."""
        size = self.config.image_size
        pixels = as_eight_bits(np.asarray(pixels))
        out = np.empty((len(pixels), size, size, 3), dtype=np.uint8)

        for i, picture in enumerate(pixels):
            picture = np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))
            out[i] = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))

        scaled = out.astype(np.float32) / np.float32(127.5) - 1
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))  # (n, 3, size, size)

    # -- through the store -----------------------------------------------------------------------------------------

    def transform(self, stimuli: Stimuli, cache: str | Path | None = None) -> np.ndarray:
        """Latents of pictures, (n_stimuli, d) float32; read from `cache` where it is given.

        A cache holds the stimuli it was made for together: make it for all of a data set (:meth:`image_store`) and
        read those you need, rather than one for each selection.
        """
        if cache is not None:
            return self.image_store(stimuli, cache).read(stimuli.ids).astype(np.float32, copy=False)

        parts = [np.empty((0, *self.shape()), dtype=np.float32)]
        for start in range(0, len(stimuli), self.batch):
            rows = slice(start, start + self.batch)
            parts.append(self.images(stimuli.pixels(rows), stimuli.ids[rows]))

        return np.concatenate(parts)

    def image_store(self, stimuli: Stimuli, cache: str | Path, progress: Progress | None = None) -> RowStore:
        """Latents of pictures on disk, by stimulus id; only what is missing is computed, by any number of processes.

        Parameters
        ----------
        stimuli : Stimuli
            all pictures of a data set; missing ones are left out
        cache : str or Path
            folder of stores
        progress : Progress, optional
            says how far it is

        Raises
        ------
        ModelError
            When the cache was made by other library versions that give other numbers (see ``features.fingerprint``).
        """
        stimuli = stimuli.available()
        return cached(
            cache,
            {**self.spec(), "content": content_digest(stimuli)},
            stimuli.ids,
            lambda ids: self.images(stimuli.select(ids).pixels(), ids),
            shape=self.shape(),
            dtype=self.dtype,
            unit=f"VDVAE {self.name}, {self.groups} groups, {self.target}",
            batch=self.batch,
            progress=progress,
            check=lambda store: fingerprint.hold(store, self.images(fingerprint.reference_pictures())),
        )

    def spec(self) -> dict[str, Any]:
        """What latents are filed under: weights, preprocessing, groups, target. No names and no paths."""
        made_by: dict[str, Any] = {"extractor": "vdvae", "version": _VERSION, **self._digest}
        made_by["preprocessing"] = {"size": self.config.image_size, "resample": "bilinear", "by": "pillow, 8 bits"}

        made_by["groups"] = self.groups
        made_by["target"] = self.target
        if self.target == "sample":
            made_by["seed"] = self.seed

        return made_by

    @cached_property
    def _network(self) -> Vdvae:
        from phosphene.models import vdvae as vdvae_weights  # loads torch

        return vdvae_weights.load_vdvae(self.name, self.device, self.lab_folder)

    @cached_property
    def _digest(self) -> dict[str, str]:
        from phosphene.models import vdvae as vdvae_weights  # loads torch

        return vdvae_weights.weights_digest(self.name, self.lab_folder)
