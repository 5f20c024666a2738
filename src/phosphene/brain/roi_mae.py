"""LEA's ROI masked autoencoder: betas to one latent vector and back. Qian et al. 2024, TMLR, section 3.2.

::

    betas (n, voxels) -> 32 tokens per ROI -> 24 blocks of width 1024 -> class token -> latent (n, 1024)
    latent -> class token beside mask tokens -> 8 blocks of width 512 -> per ROI back to voxels -> betas (n, voxels)

The ends are the paper's ROI embedding (ROIEmbed) and ROI project layers. Its "global feature extraction" is the
bottleneck between: the [CLS] token, made a latent, is all the decoder sees. Nothing is masked but voxels of the input
(`drop`), despite the name; this follows the authors' code where it and the paper differ. The network itself is in
``roi_mae_network.py``; here is what needs no torch: its configuration, its voxel groups, and the trained network as a part
of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.brain.batches import in_batches
from phosphene.run.config import Config
from phosphene.train.checkpoint import ModulePart

if TYPE_CHECKING:
    from phosphene.brain.roi_mae_network import RoiMae
    from phosphene.types import Trials

GOD_ROIS = ("V1", "V2", "V3", "V4", "FFA", "PPA", "LOC", "LVC", "HVC", "VC")
"""Order in which LEA shares out the voxels of the Generic Object Decoding data."""


class RoiMaeConfig(Config):
    """Sizes and variants of the ROI masked autoencoder; the defaults are the paper's."""

    kind: Literal["roi_mae"] = "roi_mae"
    embed: Literal["roi", "patch"] = Field(
        "roi",
        description="tokens from whole ROIs, or from runs of neighbouring voxels (the ablation of tables 5 and 6)",
    )
    roi_heads: int = Field(32, ge=1, description="tokens per ROI; table 5 tries 8 to 96")
    patch_size: int = Field(16, ge=1, description="voxels per token where embed is 'patch'")
    shared_out_conv: bool = Field(True, description="one last convolution for all ROIs, as in the authors' code")
    width: int = Field(1024, ge=2, multiple_of=2, description="of encoder tokens")
    depth: int = Field(24, ge=1, description="encoder blocks")
    heads: int = Field(16, ge=1, description="attention heads of the encoder")
    latent: int = Field(1024, ge=1, description="length of the latent")
    decoder_width: int = Field(512, ge=2, multiple_of=2, description="of decoder tokens")
    decoder_depth: int = Field(8, ge=1, description="decoder blocks")
    decoder_heads: int = Field(16, ge=1, description="attention heads of the decoder")
    mlp_ratio: float = Field(1.0, gt=0, description="hidden units of an MLP over the width; 1 in the authors' code")
    filter_std: float = Field(
        0.02, gt=0, description="of the convolutions at the start; the authors' 0.02 needs many steps to leave the mean"
    )
    augment: Literal["drop", "noise", "none"] = Field(
        "drop", description="of the input in training: zeroed voxels (authors' code) or Gaussian noise (paper)"
    )
    drop: float = Field(0.25, ge=0, lt=1, description="share of voxels zeroed in every row; authors' configuration")
    noise_probability: float = Field(0.25, ge=0, le=1, description="share of rows that get noise; appendix A")
    noise_std: float = Field(0.1, ge=0, description="of that noise, in units of the betas; not given by the paper")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        for width, heads in ((self.width, self.heads), (self.decoder_width, self.decoder_heads)):
            if width % heads:
                raise ValueError(f"a width of {width} cannot be shared by {heads} attention heads")
        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, tiny sizes and a quick start for ``lab``."""
        if name == "paper":
            return {}
        return {
            "roi_heads": 4, "patch_size": 8, "width": 64, "depth": 2, "heads": 4, "latent": 64,
            "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4, "filter_std": 0.2,
        }  # fmt: skip


def roi_partition(trials: Trials, rois: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """ROIs that may overlap, made into groups that hold every voxel exactly once.

    Each ROI in turn takes those of its voxels that none before it took; one that is left with nothing is passed over.
    Voxels in no ROI form a last group, ``rest``.

    Parameters
    ----------
    trials : whose voxels have ROI memberships; without any, all voxels are one group, ``all``
    rois : order in which they take; the order of ``trials.rois`` by default (`GOD_ROIS` is LEA's)

    Returns
    -------
    dict of ROI name to voxel numbers, (n,) int64 ascending

    Raises
    ------
    DataError
        For an unknown ROI name.
    """
    names = list(trials.rois if rois is None else rois)
    if not names:
        return {"all": np.arange(trials.n_voxels)}
    free = np.ones(trials.n_voxels, dtype=bool)
    groups: dict[str, np.ndarray] = {}
    for name in names:
        mine = np.asarray(trials.roi(name), dtype=bool) & free
        if mine.any():
            groups[name] = np.flatnonzero(mine)
            free &= ~mine
    if free.any():
        groups["rest"] = np.flatnonzero(free)
    return groups


def subject_batches(betas: Mapping[str, np.ndarray]) -> tuple[Callable[[np.ndarray], dict[str, Any]], int]:
    """What :func:`phosphene.train.train` needs to train one network on several subjects' rows.

    Parameters
    ----------
    betas : by subject, each (n_trials, n_voxels of that subject), arrays or memory maps

    Returns
    -------
    fetch : rows of all subjects counted through, (n,) int64, to ``{"betas": {subject: (k, n_voxels)}, "rows": {subject:
        (k,) int64, places in the batch}}``; a subject without rows is left out
    n_items : rows in all
    """
    names = list(betas)
    ends = np.cumsum([len(betas[name]) for name in names])

    def fetch(rows: np.ndarray) -> dict[str, Any]:
        import torch

        rows = np.asarray(rows)
        owner = np.searchsorted(ends, rows, side="right")
        batch: dict[str, Any] = {"betas": {}, "rows": {}}
        for i in np.unique(owner):
            places = np.flatnonzero(owner == i)
            name = names[i]
            start = ends[i] - len(betas[name])
            values = np.array(betas[name][rows[places] - start], dtype=np.float32)
            batch["betas"][name], batch["rows"][name] = torch.from_numpy(values), torch.from_numpy(places)
        return batch

    return fetch, int(ends[-1]) if names else 0


class RoiMaePart(ModulePart):
    """A trained ROI masked autoencoder as a part of a run, working on arrays.

    Parameters
    ----------
    module : a :class:`phosphene.brain.RoiMae`
    config : as `of` makes it
    """

    module: RoiMae

    @classmethod
    def of(cls, network: RoiMae) -> Self:
        """The part that holds this network."""
        subjects = [[name, list(sizes)] for name, sizes in network.sizes.items()]
        return cls(network, {"network": network.config.model_dump(mode="json"), "subjects": subjects})

    @classmethod
    def build(cls, config: dict[str, Any]) -> RoiMae:
        """A network of this configuration without values yet."""
        import torch

        from phosphene.brain.roi_mae_network import RoiMae
        from phosphene.run.config import validate

        values = validate(RoiMaeConfig, config["network"], "the saved autoencoder")
        with torch.device("meta"):
            network = RoiMae(values, {name: tuple(sizes) for name, sizes in config["subjects"]})
        return network.to_empty(device="cpu")

    def to_latent(self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Brain to latent: (n, n_voxels) to (n, latent) float32, without augmentation."""
        half = partial(self.module.to_latent, subject=subject)
        return in_batches(half, self.module, betas, batch_size, "betas")

    def from_latent(self, latents: np.ndarray, subject: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Latent to brain: (n, latent) to (n, n_voxels) float32, in the units and voxel order it was trained on."""
        half = partial(self.module.from_latent, subject=subject)
        return in_batches(half, self.module, latents, batch_size, "latents")
