"""Betas to latents by a network: the GRU of the two-stage decoder and its rivals. Veronese et al. 2024, arXiv 2412.13237.

======================  ================================================================================
`GruConfig`             the published network, to the parameter
`GruCnnConfig`          its ablation with convolutions between the two GRUs; sizes are ours, the paper gives none
`GruTransformerConfig`  its ablation with attention between them, likewise
`GroupGruConfig`        what the paper speaks of and did not build: a GRU over a real sequence of brain regions
`MlpConfig`             two plain layers with the same bottleneck
======================  ================================================================================

The published GRU sees a sequence of length one. From a hidden state of zero each direction of it computes

    r = s(W_r x + b_ir + b_hr),    z = s(W_z x + b_iz + b_hz),    h = (1 - z) tanh(W_n x + b_in + r b_hn)

(s the logistic function), so that its recurrent weights (120,000 of 12,400,344) are multiplied by zero and never learn,
and nothing is remembered across regions: it is a gated network of two layers, and its output lies in an affine space
of at most 200 dimensions. ``cell="gated"`` computes just that, without the dead weights. The linear rival with the same
bottleneck is :class:`phosphene.align.ReducedRankRidge`; it and `LatentNetPart` share ``predict(betas)``.

The networks are in ``gru_network.py``, training with a choice on held-out training stimuli in ``gru_fit.py``; here is
what needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.brain.batches import in_batches
from phosphene.brain.roi_mae import roi_partition
from phosphene.errors import ConfigError, did_you_mean
from phosphene.run.config import Config, validate
from phosphene.train.checkpoint import ModulePart
from phosphene.train.settings import TrainConfig

if TYPE_CHECKING:
    from phosphene.brain.gru_network import LatentNet
    from phosphene.types import Trials

_SCALE = Field(
    "column",
    description="latents are learnt in units of the spread of each column, or of all together ('whole'), or as they are; "
    "not given by the paper",
)
_LOSS = Field("mse", description="squared or absolute error; the paper reports both and names no loss")
_DROPOUT = Field(0.5, ge=0, lt=1, description="table 1, lines 3 and 8")
_HIDDEN = Field(100, ge=1, description="units per direction; table 1, lines 1 and 4")
_CELL = Field(
    "torch",
    description="torch's GRU with the dead weights of the published count, or the same function without them ('gated')",
)

Scale = Literal["column", "whole", "none"]
Loss = Literal["mse", "mae"]
Cell = Literal["torch", "gated"]


class _NetConfig(Config):
    """What all networks can be told."""

    target_scale: Scale = _SCALE
    loss: Loss = _LOSS
    dropout: float = _DROPOUT


class _PublishedConfig(_NetConfig):
    hidden: int = _HIDDEN
    cell: Cell = _CELL

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, narrower and with less dropout for ``lab``."""
        return {} if name == "paper" else {"hidden": 32, "dropout": 0.3, "target_scale": "whole"}


class GruConfig(_PublishedConfig):
    """The published network, table 1: two bidirectional GRUs on a sequence of one step, then two dense layers."""

    kind: Literal["gru"] = "gru"


class GruCnnConfig(_PublishedConfig):
    """Convolutions over the first GRU's features; a re-creation, since the paper gives no sizes.

    The second GRU walks over the pooled positions, so that it is recurrent.
    """

    kind: Literal["gru_cnn"] = "gru_cnn"
    channels: tuple[int, int] = Field((16, 32), description="of the two convolutions; not given by the paper")
    kernel: int = Field(3, ge=1, description="positions a convolution sees, odd; not given by the paper")
    pool: int = Field(2, ge=1, description="positions that are pooled into one; not given by the paper")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kernel % 2 == 0 or min(self.channels) < 1 or self.pool > 2 * self.hidden:
            raise ValueError("needs an odd kernel, positive channels and a pool no wider than the features")
        return self


class GruTransformerConfig(_PublishedConfig):
    """Self-attention with residuals between the GRUs; a re-creation, since the paper gives no sizes.

    There is one token, so queries and keys never learn: attention is a linear map here.
    """

    kind: Literal["gru_transformer"] = "gru_transformer"
    heads: int = Field(4, ge=1, description="attention heads; not given by the paper")
    feedforward: int = Field(800, ge=1, description="hidden units of the block's MLP; not given by the paper")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if 2 * self.hidden % self.heads:
            raise ValueError(f"a width of {2 * self.hidden} cannot be shared by {self.heads} attention heads")
        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, narrower for ``lab``."""
        return super().preset(name) | ({} if name == "paper" else {"feedforward": 128})


class GroupGruConfig(_NetConfig):
    """One token per group of voxels, and a bidirectional GRU that walks over the groups in cortical order.

    Each group has a projection of its own, as :class:`phosphene.brain.RoiMae` has for ROIs. Ours; the dense layers behind
    it are the published ones.
    """

    kind: Literal["group_gru"] = "group_gru"
    width: int = Field(200, ge=1, description="of a token")
    hidden: int = Field(100, ge=1, description="units per direction")
    readout: Literal["mean", "last"] = Field("mean", description="states averaged over groups, or the last of each way")

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, narrower for ``lab``."""
        return {} if name == "paper" else {"width": 32, "hidden": 32, "dropout": 0.3, "target_scale": "whole"}


class MlpConfig(_NetConfig):
    """Plain dense layers, each with layer norm, GELU and dropout: the published bottleneck without gates."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = Field((200, 200), min_length=1, description="units of each layer")

    @model_validator(mode="after")
    def _has_units(self) -> Self:
        if min(self.hidden) < 1:
            raise ValueError(f"each layer needs at least one unit, but hidden is {self.hidden}")
        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, narrower for ``lab``."""
        return {} if name == "paper" else {"hidden": [64, 64], "dropout": 0.3, "target_scale": "whole"}


LatentNetConfig = Annotated[
    GruConfig | GruCnnConfig | GruTransformerConfig | GroupGruConfig | MlpConfig, Field(discriminator="kind")
]
"""Any of these, told apart by ``kind``; the type of a field of a recipe's configuration."""

LATENT_NETS: dict[str, type[_NetConfig]] = {
    c.model_fields["kind"].default: c
    for c in (GruConfig, GruCnnConfig, GruTransformerConfig, GroupGruConfig, MlpConfig)
}
"""Configurations by `kind`."""


class LatentTraining(Config):
    """How a network from betas to latents is trained, and how its best step is chosen. The paper gives none of it."""

    train: TrainConfig = Field(
        TrainConfig(steps=12_500, batch_size=64, lr=1e-3, weight_decay=1e-2),
        description="100 epochs of nine tenths of NSD's 8,859 pictures; not given by the paper",
    )
    validation: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the training stimuli that choose the best step; 0: the last step is taken",
    )
    check_every: int = Field(125, ge=1, description="steps between looks at the validation stimuli; an epoch of NSD")
    patience: int | None = Field(10, ge=1, description="looks without a better one after which training ends")

    @model_validator(mode="after")
    def _no_average(self) -> Self:
        if self.validation and self.train.ema is not None:
            raise ValueError(
                "averages the weights at the end (ema), which leaves no best step to choose: set validation=0"
            )
        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, a minute on a small processor for ``lab``."""
        if name == "paper":
            return {}
        train = {"steps": 1000, "batch_size": 64, "lr": 2e-3, "weight_decay": 0.1}
        return {"train": train, "check_every": 20, "patience": 15}


def voxel_runs(trials: Trials, size: int | None = None, rois: Sequence[str] | None = None) -> list[np.ndarray]:
    """Voxels in groups that follow each other over the cortex, for `GroupGruConfig`.

    ROIs come in their order, each voxel in one of them as :func:`phosphene.brain.roi_partition` shares them out. Where
    voxels have coordinates, those of a ROI are ordered along its longest axis.

    Parameters
    ----------
    trials : whose voxels
    size : a ROI with more voxels is cut into runs of about equal length, at most this; whole ROIs when None
    rois : order of the ROIs; that of ``trials.rois`` by default

    Returns
    -------
    list of voxel numbers, (n,) int64, together every voxel once

    Raises
    ------
    ConfigError
        For a size below 1.
    DataError
        For an unknown ROI.
    """
    if size is not None and size < 1:
        raise ConfigError(f"size must be the number of voxels in a run, at least 1, but is {size}.")
    has_places = {"x", "y", "z"} <= set(trials.voxels.columns)
    runs: list[np.ndarray] = []
    for voxels in roi_partition(trials, rois).values():
        if has_places:
            places = trials.voxels.loc[:, ["x", "y", "z"]].to_numpy(dtype=np.float64)[voxels]
            if np.isfinite(places).all():
                voxels = voxels[np.argsort(_along_longest_axis(places), kind="stable")]
        runs += np.array_split(voxels, 1 if size is None else -(-len(voxels) // size))
    return runs


def _along_longest_axis(places: np.ndarray) -> np.ndarray:
    """Coordinate (n,) along the first principal axis of (n, 3) places, its largest component positive."""
    centred = places - places.mean(axis=0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    return centred @ (axis * np.sign(axis[np.abs(axis).argmax()]))


class LatentNetPart(ModulePart):
    """A trained network from betas to latents as a part of a run, working on arrays.

    Parameters
    ----------
    module : a :class:`phosphene.brain.LatentNet`
    config : as `of` makes it

    Attributes
    ----------
    chosen_ : what was chosen on the validation stimuli, for people; empty where nothing was
    """

    module: LatentNet

    @classmethod
    def of(cls, network: LatentNet, chosen: dict[str, Any] | None = None) -> Self:
        """The part that holds this network."""
        sizes = {"n_voxels": network.n_voxels, "n_latents": network.n_latents, "groups": list(network.sizes)}
        return cls(network, {"network": network.config.model_dump(mode="json"), **sizes, "chosen": chosen or {}})

    @property
    def chosen_(self) -> dict[str, Any]:
        """See the class."""
        return self.config.get("chosen", {})

    @classmethod
    def build(cls, config: dict[str, Any]) -> LatentNet:
        """A network of this configuration without values yet."""
        import torch

        from phosphene.brain.gru_network import LatentNet

        with torch.device("meta"):
            network = LatentNet(
                latent_net_config(config["network"]), config["n_voxels"], config["n_latents"], config["groups"]
            )
        return network.to_empty(device="cpu")

    def predict(self, betas: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Brain to latent, each row as if it were alone, but for rounding.

        Parameters
        ----------
        betas : (n, n_voxels), array or memory map, standardised as the network was trained on
        batch_size : rows at a time

        Returns
        -------
        (n, n_latents) float32, in the units of the training latents

        Raises
        ------
        DataError
            Without rows, or with values that are not finite.
        ModelError
            With another number of voxels.
        """
        return in_batches(self.module, self.module, betas, batch_size, "betas")


def latent_net_config(values: dict[str, Any]) -> _NetConfig:
    """A network's configuration from plain values, by its ``kind``.

    Raises
    ------
    ConfigError
        For an unknown kind, and for what that kind refuses.

    Examples
    --------
    >>> latent_net_config({"kind": "mlp", "hidden": [8]}).hidden
    (8,)
    """
    kind = values.get("kind")
    if kind not in LATENT_NETS:
        raise ConfigError(f"there is no network of kind '{kind}'. {did_you_mean(str(kind), list(LATENT_NETS))}")
    return validate(LATENT_NETS[kind], values, f"the configuration of '{kind}'")
