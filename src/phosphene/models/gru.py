"""Betas to latents by a network: the GRU of the two-stage decoder and its rivals. Veronese et al. 2024, arXiv 2412.13237.

======================  ================================================================================
`GruConfig`             the published network, to the parameter
`GruCnnConfig`          its ablation with convolutions between the two GRUs; sizes are ours, the paper gives none
`GruTransformerConfig`  its ablation with attention between them, likewise
`GroupGruConfig`        what the paper speaks of and did not build: a GRU over a real sequence of brain regions
`MlpConfig`             two plain layers with the same bottleneck
======================  ================================================================================

The published network is table 1 of the paper::

    betas (n, voxels) -> GRU -> layer norm -> dropout -> GRU -> layer norm                             lines 1 to 5
        -> dense -> batch norm -> ReLU, dropout -> dense -> latents (n, n_latents)                     lines 6 to 9

Its GRUs see a sequence of length one. From a hidden state of zero each direction computes

    r = s(W_r x + b_ir + b_hr),    z = s(W_z x + b_iz + b_hz),    h = (1 - z) tanh(W_n x + b_in + r b_hn)

(s the logistic function), so that its recurrent weights (120,000 of 12,400,344) are multiplied by zero and never learn,
and nothing is remembered across regions: it is a gated network of two layers, and its output lies in an affine space
of at most 200 dimensions. ``cell="gated"`` computes just that, without the dead weights. The linear rival with the same
bottleneck is :class:`phosphene.align.ReducedRankRidge`; it and `LatentNetPart` share ``predict(betas)``.

All networks share `LatentNet`; a variant is its ``body``, betas to scaled latents. In this file, from top to bottom: the
configurations; the cells and bodies; the network with its training objective; voxels in groups along the cortex; training
with a choice on held-out training stimuli; the trained network as a part of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError, SplitError, did_you_mean
from phosphene.io.config import Config, validate
from phosphene.io.progress import Progress
from phosphene.io.stages import versioned
from phosphene.models.batches import in_batches
from phosphene.models.roi_mae import roi_partition
from phosphene.training.best_step import BestStep, EnoughError
from phosphene.training.checkpoint import ModulePart
from phosphene.training.loop import Trainer, train
from phosphene.training.sampling import Draws
from phosphene.training.settings import TrainConfig

if TYPE_CHECKING:
    from phosphene.types import Trials


class _NetConfig(Config):
    """What the configurations of all networks share."""

    target_scale: Literal["column", "whole", "none"] = Field(
        default="column",
        description="latents are learnt in units of the spread of each column, or of all together ('whole'), or as they "
        "are; not given by the paper",
    )
    loss: Literal["mse", "mae"] = Field(
        default="mse", description="squared or absolute error; the paper reports both and names no loss"
    )
    dropout: float = Field(default=0.5, ge=0, lt=1, description="table 1, lines 3 and 8")


class _PublishedConfig(_NetConfig):
    hidden: int = Field(default=100, ge=1, description="units per direction; table 1, lines 1 and 4")
    cell: Literal["torch", "gated"] = Field(
        default="torch",
        description="torch's GRU with the dead weights of the published count, or the same function without them "
        "('gated')",
    )

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, narrower and with less dropout for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "paper":
            return {}

        return {"hidden": 32, "dropout": 0.3, "target_scale": "whole"}


class GruConfig(_PublishedConfig):
    """The published network, table 1: two bidirectional GRUs on a sequence of one step, then two dense layers."""

    kind: Literal["gru"] = "gru"


class GruCnnConfig(_PublishedConfig):
    """Convolutions over the first GRU's features; a re-creation, since the paper gives no sizes.

    The second GRU walks over the pooled positions, so that it is recurrent.
    """

    kind: Literal["gru_cnn"] = "gru_cnn"
    channels: tuple[int, int] = Field(default=(16, 32), description="of the two convolutions; not given by the paper")
    kernel: int = Field(default=3, ge=1, description="positions a convolution sees, odd; not given by the paper")
    pool: int = Field(default=2, ge=1, description="positions that are pooled into one; not given by the paper")

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
    heads: int = Field(default=4, ge=1, description="attention heads; not given by the paper")
    feedforward: int = Field(default=800, ge=1, description="hidden units of the block's MLP; not given by the paper")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if 2 * self.hidden % self.heads:
            raise ValueError(f"a width of {2 * self.hidden} cannot be shared by {self.heads} attention heads")

        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, narrower for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        values = super().preset(name)
        if name == "lab":
            values["feedforward"] = 128

        return values


class GroupGruConfig(_NetConfig):
    """One token per group of voxels, and a bidirectional GRU that walks over the groups in cortical order.

    Each group has a projection of its own, as :class:`phosphene.models.RoiMae` has for ROIs. Ours; the dense layers behind
    it are the published ones.
    """

    kind: Literal["group_gru"] = "group_gru"
    width: int = Field(default=200, ge=1, description="of a token")
    hidden: int = Field(default=100, ge=1, description="units per direction")
    readout: Literal["mean", "last"] = Field(
        default="mean", description="states averaged over groups, or the last of each way"
    )

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, narrower for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "paper":
            return {}

        return {"width": 32, "hidden": 32, "dropout": 0.3, "target_scale": "whole"}


class MlpConfig(_NetConfig):
    """Plain dense layers, each with layer norm, GELU and dropout: the published bottleneck without gates."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = Field(default=(200, 200), min_length=1, description="units of each layer")

    @model_validator(mode="after")
    def _has_units(self) -> Self:
        if min(self.hidden) < 1:
            raise ValueError(f"each layer needs at least one unit, but hidden is {self.hidden}")

        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, narrower for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "paper":
            return {}

        return {"hidden": [64, 64], "dropout": 0.3, "target_scale": "whole"}


LatentNetConfig = Annotated[
    GruConfig | GruCnnConfig | GruTransformerConfig | GroupGruConfig | MlpConfig, Field(discriminator="kind")
]
"""Any of these, told apart by ``kind``; the type of a field of a recipe's configuration."""


LATENT_NETS: dict[str, type[GruConfig | GruCnnConfig | GruTransformerConfig | GroupGruConfig | MlpConfig]] = {
    "gru": GruConfig,
    "gru_cnn": GruCnnConfig,
    "gru_transformer": GruTransformerConfig,
    "group_gru": GroupGruConfig,
    "mlp": MlpConfig,
}
"""Configurations by `kind`."""


def latent_net_config(values: dict[str, Any]) -> LatentNetConfig:
    """A network's configuration from plain values, by its ``kind``.

    Parameters
    ----------
    values : dict[str, Any]
        as ``model_dump`` gives them, with their ``kind``

    Returns
    -------
    GruConfig, GruCnnConfig, GruTransformerConfig, GroupGruConfig or MlpConfig
        validated

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


class LatentTraining(Config):
    """How a network from betas to latents is trained, and how its best step is chosen. The paper gives none of it."""

    train: TrainConfig = Field(
        default=TrainConfig(steps=12_500, batch_size=64, lr=1e-3, weight_decay=1e-2),
        description="100 epochs of nine tenths of NSD's 8,859 pictures; not given by the paper",
    )
    validation: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of the training stimuli that choose the best step; 0: the last step is taken",
    )
    check_every: int = Field(
        default=125, ge=1, description="steps between checks on the validation stimuli; an epoch of NSD"
    )
    patience: int | None = Field(default=10, ge=1, description="checks without a better one after which training ends")

    @model_validator(mode="after")
    def _no_average(self) -> Self:
        if self.validation and self.train.ema is not None:
            raise ValueError(
                "averages the weights at the end (ema), which leaves no best step to choose: set validation=0"
            )

        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, a minute on a small processor for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "paper":
            return {}

        train = {"steps": 1000, "batch_size": 64, "lr": 2e-3, "weight_decay": 0.1}
        return {"train": train, "check_every": 20, "patience": 15}


class GatedCell(nn.Module):
    """What a bidirectional GRU computes on a sequence of one step from a hidden state of zero.

        r = s(W_r x + b_ir + b_hr),    z = s(W_z x + b_iz + b_hz),    h = (1 - z) tanh(W_n x + b_in + r b_hn)

    for each direction. Weights have the names and shapes of :class:`torch.nn.GRU`, without ``weight_hh``, which is
    multiplied by the hidden state and so by zero.

    Parameters
    ----------
    n_in : int
        length of x
    hidden : int
        units per direction
    """

    def __init__(self, n_in: int, hidden: int) -> None:
        super().__init__()
        bound = hidden**-0.5  # as torch starts a GRU
        shapes = {"weight_ih": (3 * hidden, n_in), "bias_ih": (3 * hidden,), "bias_hh": (3 * hidden,)}

        for direction in ("", "_reverse"):
            for name, shape in shapes.items():
                weight = nn.Parameter(torch.empty(shape))
                self.register_parameter(f"{name}_l0{direction}", weight)
                nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) to (n, 2 hidden), forward units first."""
        directions = []
        for direction in ("", "_reverse"):
            weight = self.get_parameter(f"weight_ih_l0{direction}")
            bias = self.get_parameter(f"bias_ih_l0{direction}")
            r, z, n = nn.functional.linear(x, weight, bias).chunk(3, -1)  # (n, hidden) each
            b_r, b_z, b_n = self.get_parameter(f"bias_hh_l0{direction}").chunk(3)

            reset = torch.sigmoid(r + b_r)
            h = (1 - torch.sigmoid(z + b_z)) * torch.tanh(n + reset * b_n)  # z times the old state, zero, is left out
            directions.append(h)

        return torch.cat(directions, -1)


class TorchCell(nn.GRU):
    """The same as the paper builds it: torch's GRU on a sequence of one step, with recurrent weights that do nothing.

    Parameters
    ----------
    n_in : int
        length of x
    hidden : int
        units per direction
    """

    def __init__(self, n_in: int, hidden: int) -> None:
        super().__init__(n_in, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] # one step, one state
        """(n, n_in) to (n, 2 hidden), forward units first."""
        states, _ = super().forward(x[:, None])  # (n, 1, 2 hidden)
        return states[:, 0]


def _cell(kind: Literal["torch", "gated"], n_in: int, hidden: int) -> nn.Module:
    if kind == "gated":
        return GatedCell(n_in, hidden)

    return TorchCell(n_in, hidden)


class _Head(nn.Sequential):
    """Lines 6 to 9 of table 1: (n, n_in) to (n, n_latents)."""

    def __init__(self, n_in: int, width: int, n_latents: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(n_in, width),  # line 6
            nn.BatchNorm1d(width),  # line 7
            nn.ReLU(),
            nn.Dropout(dropout),  # line 8, with the ReLU
            nn.Linear(width, n_latents),  # line 9
        )


class _GruBody(nn.Module):
    """Table 1, with what an ablation puts between the two GRUs."""

    def __init__(self, config: _PublishedConfig, n_voxels: int, n_latents: int) -> None:
        super().__init__()
        width = 2 * config.hidden
        self.gru1 = _cell(config.cell, n_voxels, config.hidden)  # line 1
        self.norm1 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self._add_second(config, width)  # line 4
        self.norm2 = nn.LayerNorm(width)
        self.head = _Head(width, width, n_latents, config.dropout)

    def _add_second(self, config: Any, width: int) -> None:
        self.gru2 = _cell(config.cell, width, config.hidden)

    def _second(self, x: Tensor) -> Tensor:
        return self.gru2(x)

    def forward(self, betas: Tensor) -> Tensor:
        x = self.dropout(self.norm1(self.gru1(betas)))  # (n, 2 hidden)
        return self.head(self.norm2(self._second(x)))  # (n, n_latents)


class _GruCnnBody(_GruBody):
    """The features are a line of positions that convolutions slide along; the second GRU reads what they make of it."""

    def _add_second(self, config: GruCnnConfig, width: int) -> None:
        first, second = config.channels
        self.conv = nn.Sequential(
            nn.Conv1d(1, first, config.kernel, padding="same"),
            nn.ReLU(),
            nn.Conv1d(first, second, config.kernel, padding="same"),
            nn.ReLU(),
            nn.MaxPool1d(config.pool),
        )
        self.gru2 = nn.GRU(second, config.hidden, batch_first=True, bidirectional=True)

    def _second(self, x: Tensor) -> Tensor:
        steps = self.conv(x[:, None]).transpose(1, 2)  # (n, positions, channels)
        return _last_states(self.gru2, steps)


class _GruTransformerBody(_GruBody):
    """One post-norm encoder block on the single token."""

    def _add_second(self, config: GruTransformerConfig, width: int) -> None:
        self.block = nn.TransformerEncoderLayer(
            width, config.heads, config.feedforward, config.dropout, batch_first=True, norm_first=False
        )
        self.gru2 = _cell(config.cell, width, config.hidden)

    def _second(self, x: Tensor) -> Tensor:
        tokens = self.block(x[:, None])  # (n, 1, 2 hidden)
        return self.gru2(tokens[:, 0])


class _GroupGruBody(nn.Module):
    """A token per group of voxels, a GRU over the tokens."""

    def __init__(self, config: GroupGruConfig, sizes: Sequence[int], n_latents: int) -> None:
        super().__init__()
        c = config
        self.sizes = tuple(sizes)
        self.readout = c.readout
        self.embed = nn.ModuleList(nn.Linear(n, c.width) for n in sizes)
        self.norm1 = nn.LayerNorm(c.width)
        self.dropout = nn.Dropout(c.dropout)
        self.gru = nn.GRU(c.width, c.hidden, batch_first=True, bidirectional=True)
        self.norm2 = nn.LayerNorm(2 * c.hidden)
        self.head = _Head(2 * c.hidden, 2 * c.hidden, n_latents, c.dropout)

    def forward(self, betas: Tensor) -> Tensor:
        """Betas (n, n_voxels), group by group."""
        embedded = []
        for layer, voxels in zip(self.embed, betas.split(self.sizes, dim=1), strict=True):
            embedded.append(layer(voxels))  # (n, width)

        tokens = torch.stack(embedded, 1)  # (n, groups, width)
        tokens = self.dropout(self.norm1(tokens))

        if self.readout == "mean":
            states = self.gru(tokens)[0].mean(1)  # (n, 2 hidden)
        else:
            states = _last_states(self.gru, tokens)

        return self.head(self.norm2(states))


class _MlpBody(nn.Sequential):
    """Dense layers, each with layer norm, GELU and dropout, and one that gives the latents."""

    def __init__(self, config: MlpConfig, n_voxels: int, n_latents: int) -> None:
        layers: list[nn.Module] = []
        n_in = n_voxels
        for n_out in config.hidden:
            layers += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.GELU(), nn.Dropout(config.dropout)]
            n_in = n_out

        super().__init__(*layers, nn.Linear(n_in, n_latents))


def _body(config: LatentNetConfig, n_voxels: int, n_latents: int, groups: Sequence[int]) -> nn.Module:
    match config:
        case GroupGruConfig():
            return _GroupGruBody(config, groups, n_latents)
        case GruCnnConfig():
            return _GruCnnBody(config, n_voxels, n_latents)
        case GruTransformerConfig():
            return _GruTransformerBody(config, n_voxels, n_latents)
        case GruConfig():
            return _GruBody(config, n_voxels, n_latents)
        case MlpConfig():
            return _MlpBody(config, n_voxels, n_latents)


def _last_states(gru: nn.GRU, x: Tensor) -> Tensor:
    """The state of each direction after its whole walk: (n, steps, n_in) to (n, 2 hidden)."""
    last = gru(x)[1]  # (2, n, hidden)
    return last.transpose(0, 1).flatten(1)


class LatentNet(nn.Module):
    """A network from betas to latents. Make one with `create`.

    Parameters
    ----------
    config : LatentNetConfig
        which network, and its sizes
    n_voxels, n_latents : int
        lengths of a row that comes in and of one that goes out
    groups : sequence of int, default ()
        voxels of each group, in order; for `GroupGruConfig` only

    Attributes
    ----------
    voxels : Tensor of shape (n_voxels,)
        int64, a buffer: voxel numbers group by group; of no length without groups
    target_mean, target_scale : Tensor of shape (n_latents,)
        buffers: the units in which latents are learnt

    Notes
    -----
    Batch norm takes its statistics from the part of a batch that one process computes, so that a training shared by
    several processes, or accumulated, is not bit for bit the one on the whole batch.

    References
    ----------
    Veronese, Moglia, Mainardi and Cerveri 2024, "Optimized two-stage AI-based neural decoding for enhanced visual stimulus
    reconstruction from fMRI data", arXiv 2412.13237, table 1 and the text on its ablations.
    """

    def __init__(self, config: LatentNetConfig, n_voxels: int, n_latents: int, groups: Sequence[int] = ()) -> None:
        super().__init__()
        self.config = config
        self.n_voxels = int(n_voxels)
        self.n_latents = int(n_latents)
        self.sizes = tuple(int(n) for n in groups)
        self.body = _body(config, n_voxels, n_latents, self.sizes)

        if self.sizes:
            n_ordered = self.n_voxels
        else:
            n_ordered = 0

        self.register_buffer("voxels", torch.arange(n_ordered))
        self.register_buffer("target_mean", torch.zeros(n_latents))
        self.register_buffer("target_scale", torch.ones(n_latents))

    @classmethod
    def create(
        cls,
        config: LatentNetConfig,
        n_voxels: int,
        n_latents: int,
        seed: int,
        *,
        groups: Sequence[np.ndarray] = (),
    ) -> Self:
        """An untrained network, its weights started as torch does.

        Parameters
        ----------
        config : LatentNetConfig
            which network, and its sizes
        n_voxels, n_latents : int
            lengths of a row that comes in and of one that goes out
        seed : int
            of the weights; torch's global generator is left as it was
        groups : sequence of ndarray, default ()
            voxel numbers of each group in the order of the walk, together every voxel once (see
            :func:`phosphene.models.voxel_runs`); for ``kind="group_gru"``, and only for it

        Returns
        -------
        LatentNet
            on the CPU

        Raises
        ------
        ModelError
            Groups that overlap, leave voxels out, or come to a network that has none.
        """
        order = _walk(config.kind, n_voxels, groups)
        sizes = [len(group) for group in groups]

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = cls(config, n_voxels, n_latents, sizes)

        network.get_buffer("voxels").copy_(torch.from_numpy(order))
        return network

    def set_target_scale(self, mean: np.ndarray, variance: np.ndarray) -> None:
        """Take the units in which latents are learnt from their training statistics, as ``config.target_scale`` says.

        Parameters
        ----------
        mean, variance : ndarray of shape (n_latents,)
            of the training rows; a column that never changes gets a scale of one
        """
        kind = self.config.target_scale
        if kind == "none":
            return

        if kind == "whole":
            variance = np.full(self.n_latents, np.mean(variance))
        else:
            variance = np.asarray(variance)

        scale = np.sqrt(np.where(variance > 0, variance, 1.0))
        self.get_buffer("target_mean").copy_(torch.from_numpy(np.asarray(mean, dtype=np.float32)))
        self.get_buffer("target_scale").copy_(torch.from_numpy(scale.astype(np.float32)))

    def forward(self, betas: Tensor) -> Tensor:
        """Betas to latents.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            standardised as in training

        Returns
        -------
        Tensor of shape (n, n_latents)
            float32, in the units of the training latents

        Raises
        ------
        ModelError
            For another number of voxels.
        """
        return self._scaled(betas) * self.get_buffer("target_scale") + self.get_buffer("target_mean")

    def loss(self, batch: Mapping[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Error of the latents in the units they are learnt in, over all columns and rows.

        Parameters
        ----------
        batch : Mapping[str, Tensor]
            ``{"betas": (n, n_voxels), "latents": (n, n_latents)}``
        draws : Draws
            unused; dropout is seeded by the training loop

        Returns
        -------
        tuple of (Tensor, dict[str, Tensor])
            loss, and ``{"mse": in the latents' own units}``

        Raises
        ------
        ModelError
            For a batch of one row, which batch norm cannot be trained on, or other sizes.
        """
        if len(batch["betas"]) < 2:
            raise ModelError(
                "batch norm needs at least two rows at a time to train on, but one came: raise batch_size."
            )

        mean = self.get_buffer("target_mean")
        scale = self.get_buffer("target_scale")
        predicted = self._scaled(batch["betas"])
        true = (batch["latents"] - mean) / scale
        error = predicted - true  # (n, n_latents)

        if self.config.loss == "mse":
            loss = error.square().mean()
        else:
            loss = error.abs().mean()

        return loss, {"mse": (error.detach() * scale).square().mean()}

    def _scaled(self, betas: Tensor) -> Tensor:
        """Betas (n, n_voxels) to latents (n, n_latents) in the units they are learnt in."""
        if betas.ndim != 2 or betas.shape[1] != self.n_voxels:
            raise ModelError(
                f"betas must be (trials, {self.n_voxels}) for this network, but came as {tuple(betas.shape)}; use the voxels "
                "it was trained on, or fit again."
            )

        if self.sizes:
            betas = betas[:, self.get_buffer("voxels")]

        return self.body(betas).float()

    def gated(self) -> LatentNet:
        """The same function without recurrent weights that never act: smaller, and made of plain products.

        Returns
        -------
        LatentNet
            in the mode, training or evaluation, of this one

        Raises
        ------
        ModelError
            For a network without such weights.
        """
        if not isinstance(self.config, _PublishedConfig) or self.config.cell != "torch":
            raise ModelError(f"a network of kind '{self.config.kind}' here has no cell='torch' that could be replaced.")

        config = self.config.model_copy(update={"cell": "gated"})
        new = type(self)(config, self.n_voxels, self.n_latents)

        state = self.state_dict()
        new.load_state_dict({name: state[name] for name in new.state_dict()})

        return new.train(self.training)


def _walk(kind: str, n_voxels: int, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Voxel numbers group by group, int64; none for a network without groups."""
    if kind != "group_gru":
        if len(groups):
            raise ModelError(
                f"a network of kind '{kind}' has no groups of voxels, but some came. Make them with voxel_runs for "
                "'group_gru' only."
            )

        return np.empty(0, np.int64)

    if not len(groups):
        raise ModelError(
            f"a network of kind '{kind}' needs groups of voxels, but none came. Make them with voxel_runs for 'group_gru' "
            "only."
        )

    order = np.concatenate([np.asarray(group, dtype=np.int64) for group in groups])
    has_empty = min(map(len, groups)) == 0
    if has_empty or not np.array_equal(np.sort(order), np.arange(n_voxels)):
        raise ModelError(
            f"groups must hold each of {n_voxels} voxels exactly once and none may be empty, but {len(order)} entries "
            f"in {len(groups)} groups name {len(np.unique(order))} voxels. Make them with voxel_runs."
        )

    return order


@versioned(1)
def voxel_runs(trials: Trials, size: int | None = None, rois: Sequence[str] | None = None) -> list[np.ndarray]:
    """Voxels in groups that follow each other over the cortex, for `GroupGruConfig`.

    ROIs come in their order, each voxel in one of them as :func:`phosphene.models.roi_partition` shares them out. Where
    voxels have coordinates, those of a ROI are ordered along its longest axis.

    Parameters
    ----------
    trials : Trials
        whose voxels
    size : int, optional
        a ROI with more voxels is cut into runs of about equal length, at most this; whole ROIs when None
    rois : sequence of str, optional
        order of the ROIs; that of ``trials.rois`` by default

    Returns
    -------
    list of ndarray
        voxel numbers of each group, (n,) int64, together every voxel once

    Raises
    ------
    ConfigError
        For a size below 1.
    DataError
        For an unknown ROI.
    """
    if size is not None and size < 1:
        raise ConfigError(f"size must be the number of voxels in a run, at least 1, but is {size}.")

    has_coordinates = {"x", "y", "z"} <= set(trials.voxels.columns)
    runs: list[np.ndarray] = []

    for voxels in roi_partition(trials, rois).values():
        if has_coordinates:
            coordinates = trials.voxels.loc[:, ["x", "y", "z"]].to_numpy(dtype=np.float64)[voxels]  # (n, 3)
            if np.isfinite(coordinates).all():
                voxels = voxels[np.argsort(_along_longest_axis(coordinates), kind="stable")]

        if size is None:
            n_runs = 1
        else:
            n_runs = -(-len(voxels) // size)  # rounded up

        runs += np.array_split(voxels, n_runs)

    return runs


def _along_longest_axis(coordinates: np.ndarray) -> np.ndarray:
    """Coordinate (n,) along the first principal axis of (n, 3) places, its largest component positive."""
    centred = coordinates - coordinates.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # (3, 3), the longest last
    axis = axes[:, -1]
    return centred @ (axis * np.sign(axis[np.abs(axis).argmax()]))  # an eigenvector's sign is arbitrary


@versioned(1)
def fit_latent_net(
    config: LatentNetConfig,
    betas: np.ndarray,
    latents: np.ndarray,
    stimuli: Sequence[str] | np.ndarray,
    training: LatentTraining,
    *,
    seed: int,
    groups: Sequence[np.ndarray] = (),
    folder: Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    trainer: Trainer = train,
    **more: Any,
) -> LatentNetPart:
    """Train a network; the step whose validation error is smallest is kept.

    The validation stimuli are drawn from the stimuli that came, which should be training stimuli and nothing else, and
    all rows of a stimulus are on one side. The units of the latents come from the other side too.

    Parameters
    ----------
    config : LatentNetConfig
        which network
    betas : ndarray of shape (n, n_voxels)
        standardised, array or memory map
    latents : ndarray of shape (n, n_latents)
        array or memory map
    stimuli : sequence of str or ndarray
        (n,) stimulus of each row
    training : LatentTraining
        how
    seed : int
        of weights, batches, dropout and the validation split
    groups : sequence of ndarray, default ()
        voxel numbers of each group, for ``kind="group_gru"``
    folder : Path, optional
        of checkpoints; a training that was killed goes on from the last one and ends the same
    device : str, optional
        as for :func:`phosphene.training.train`
    progress : Progress, optional
        as for :func:`phosphene.training.train`
    trainer : Trainer, default train
        does the training, or only predicts what it will need
    **more : Any
        as for :func:`phosphene.training.train`

    Returns
    -------
    LatentNetPart
        with ``chosen_`` = ``{"step", "validation_mse", "mean_mse", "n_validation", "stopped_at"}``: the best step, its
        mean squared error in the latents' own units and that of always answering the training mean, how many stimuli
        judged, and where training ended. Without validation, and on processes other than the first: the last step, and
        ``{"step"}``.

    Raises
    ------
    DataError
        Numbers of rows that differ.
    SplitError
        Too few stimuli to hold any out.
    """
    stimuli = np.asarray(stimuli).astype(str)
    if not len(betas) == len(latents) == len(stimuli):
        raise DataError(
            f"betas, latents and stimuli must have a row for the same trials, but have {len(betas)}, {len(latents)} and "
            f"{len(stimuli)} rows."
        )

    # A generator of its own, so that the split does not depend on what else is drawn from the seed.
    rows, held_out = validation_rows(stimuli, training.validation, np.random.default_rng([seed, 0]))
    network = LatentNet.create(config, betas.shape[1], latents.shape[1], seed, groups=groups)
    mean, variance = _moments(latents, rows)
    network.set_target_scale(mean, variance)

    def fetch(items: np.ndarray) -> dict[str, Tensor]:
        chosen = rows[items]
        return {
            "betas": torch.from_numpy(np.array(betas[chosen], dtype=np.float32)),
            "latents": torch.from_numpy(np.array(latents[chosen], dtype=np.float32)),
        }

    def validation_mse() -> float:
        part = LatentNetPart.of(network)
        return _mse(latents, held_out, lambda block: part.predict(betas[block], len(block)))

    if len(held_out):
        best = BestStep(network, validation_mse, "validation_mse", folder, training.patience)
        watch = best.look
    else:
        best = None
        watch = None

    try:
        stopped_at = trainer(
            network,
            fetch,
            len(rows),
            training.train,
            seed=seed,
            folder=folder,
            log_every=training.check_every,
            watch=watch,
            device=device,
            progress=progress,
            **more,
        ).step
    except EnoughError as enough:
        stopped_at = enough.step

    network.to("cpu").eval()  # parts hold networks that way
    if best is None or not best.restore():
        return LatentNetPart.of(network, {"step": stopped_at})

    mean_mse = _mse(latents, held_out, lambda block: np.broadcast_to(mean, (len(block), len(mean))))
    chosen = {
        "step": best.step,
        "validation_mse": best.value,
        "mean_mse": mean_mse,
        "n_validation": len(np.unique(stimuli[held_out])),
        "stopped_at": stopped_at,
    }

    return LatentNetPart.of(network, chosen)


@versioned(1)
def validation_rows(stimuli: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to judge by, no stimulus on both sides.

    Parameters
    ----------
    stimuli : ndarray of shape (n,)
        stimulus of each row
    share : float
        of the stimuli to judge by; at least one stimulus where it is not 0
    rng : numpy.random.Generator
        draws them

    Returns
    -------
    tuple of (ndarray, ndarray)
        rows to train on and rows to judge by, int64, ascending

    Raises
    ------
    SplitError
        When fewer than two stimuli would be left to train on.

    Examples
    --------
    >>> rows, held_out = validation_rows(np.array(["a", "b", "a", "c"]), 0.3, np.random.default_rng(0))
    >>> len(rows) + len(held_out)
    4
    """
    ids = np.unique(stimuli)
    if share:
        n_out = max(1, round(share * len(ids)))
    else:
        n_out = 0

    if len(ids) - n_out < 2:
        raise SplitError(
            f"{len(ids)} training stimuli cannot give {n_out} to choose the best step by and keep two to train on; give "
            "more stimuli, or set validation=0 and take the last step."
        )

    is_out = np.isin(stimuli, rng.permutation(ids)[:n_out])
    return np.flatnonzero(~is_out), np.flatnonzero(is_out)


def _moments(latents: np.ndarray, rows: np.ndarray, size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each column over some rows, float64, read in blocks: latents may lie on disk."""
    starts = range(0, len(rows), size)

    total = np.zeros(latents.shape[1])
    for start in starts:
        block = rows[start : start + size]
        total = total + np.asarray(latents[block], dtype=np.float64).sum(axis=0)

    mean = total / len(rows)

    squares = np.zeros(latents.shape[1])
    for start in starts:
        block = rows[start : start + size]
        squares = squares + np.square(latents[block] - mean).sum(axis=0)

    return mean, squares / len(rows)


def _mse(latents: np.ndarray, rows: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], size: int = 256) -> float:
    """Mean squared error over rows and columns, where `predict` gives the latents of some row numbers."""
    total = 0.0
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        total += np.square(predict(block) - np.asarray(latents[block], dtype=np.float64)).sum()

    return float(total / (len(rows) * latents.shape[1]))


class LatentNetPart(ModulePart):
    """A trained network from betas to latents as a part of a run, working on arrays.

    Parameters
    ----------
    module : LatentNet
        a :class:`phosphene.models.LatentNet`
    config : Mapping[str, Any]
        as `of` makes it

    Attributes
    ----------
    chosen_ : dict[str, Any]
        what was chosen on the validation stimuli, for people; empty where nothing was
    """

    module: LatentNet

    @classmethod
    def of(cls, network: LatentNet, chosen: dict[str, Any] | None = None) -> Self:
        """The part that holds this network.

        Parameters
        ----------
        network : LatentNet
            trained
        chosen : dict[str, Any], optional
            what was chosen on the validation stimuli

        Returns
        -------
        LatentNetPart
            whose weights are those of the network, not copies
        """
        config = {
            "network": network.config.model_dump(mode="json"),
            "n_voxels": network.n_voxels,
            "n_latents": network.n_latents,
            "groups": list(network.sizes),
            "chosen": chosen or {},
        }
        return cls(network, config)

    @property
    def chosen_(self) -> dict[str, Any]:
        """What was chosen on the validation stimuli; empty where nothing was."""
        return self.config.get("chosen", {})

    @classmethod
    def build(cls, config: dict[str, Any]) -> LatentNet:
        """A network of this configuration without values yet.

        Parameters
        ----------
        config : dict[str, Any]
            as `of` makes it

        Returns
        -------
        LatentNet
            on the CPU; the memory of the weights is not filled
        """
        values = latent_net_config(config["network"])
        with torch.device("meta"):
            network = LatentNet(values, config["n_voxels"], config["n_latents"], config["groups"])

        return network.to_empty(device="cpu")

    def predict(self, betas: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Brain to latent, each row as if it were alone, but for rounding.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            array or memory map, standardised as the network was trained on
        batch_size : int, default 256
            rows at a time

        Returns
        -------
        ndarray of shape (n, n_latents), float32
            in the units of the training latents

        Raises
        ------
        DataError
            Without rows, or with values that are not finite.
        ModelError
            With another number of voxels.
        """
        return in_batches(self.module, self.module, betas, batch_size, "betas")
