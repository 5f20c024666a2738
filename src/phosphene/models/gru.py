"""The networks of :mod:`phosphene.models.gru`. All share `LatentNet`; a variant is its ``body``, betas to scaled latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    Each group has a projection of its own, as :class:`phosphene.models.RoiMae` has for ROIs. Ours; the dense layers behind
    it are the published ones.
    """

    kind: Literal["group_gru"] = "group_gru"
    width: int = Field(200, ge=1, description="of a token")
    hidden: int = Field(100, ge=1, description="units per direction")
    readout: Literal["mean", "last"] = Field("mean", description="states averaged over groups, or the last of each way")

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, narrower for ``lab``."""
        if name == "paper":
            return {}

        return {"width": 32, "hidden": 32, "dropout": 0.3, "target_scale": "whole"}


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
        if name == "paper":
            return {}

        return {"hidden": [64, 64], "dropout": 0.3, "target_scale": "whole"}


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
    module : LatentNet
        a :class:`phosphene.models.LatentNet`
    config : mapping of {str: Any}
        as `of` makes it

    Attributes
    ----------
    chosen_ : dict of {str: Any}
        what was chosen on the validation stimuli, for people; empty where nothing was
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

        with torch.device("meta"):
            network = LatentNet(
                latent_net_config(config["network"]), config["n_voxels"], config["n_latents"], config["groups"]
            )

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
        bound = hidden**-0.5

        for way in ("", "_reverse"):
            for name, shape in (
                ("weight_ih", (3 * hidden, n_in)),
                ("bias_ih", (3 * hidden,)),
                ("bias_hh", (3 * hidden,)),
            ):
                weight = nn.Parameter(torch.empty(shape))
                self.register_parameter(f"{name}_l0{way}", weight)
                nn.init.uniform_(weight, -bound, bound)  # as torch starts a GRU

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) to (n, 2 hidden), forward units first."""
        ways = []
        for way in ("", "_reverse"):
            own = nn.functional.linear(x, getattr(self, f"weight_ih_l0{way}"), getattr(self, f"bias_ih_l0{way}"))
            r, z, n = own.chunk(3, -1)
            b_r, b_z, b_n = getattr(self, f"bias_hh_l0{way}").chunk(3)
            ways.append((1 - torch.sigmoid(z + b_z)) * torch.tanh(n + torch.sigmoid(r + b_r) * b_n))

        return torch.cat(ways, -1)


class TorchCell(nn.GRU):
    """The same as the paper builds it: torch's GRU on a sequence of one step, with recurrent weights that do nothing."""

    def __init__(self, n_in: int, hidden: int) -> None:
        super().__init__(n_in, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) to (n, 2 hidden), forward units first."""
        return super().forward(x[:, None])[0][:, 0]


_CELLS = {"torch": TorchCell, "gated": GatedCell}


class _Head(nn.Sequential):
    """Lines 6 to 9 of table 1: (n, n_in) to (n, n_latents)."""

    def __init__(self, n_in: int, width: int, n_latents: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(n_in, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, n_latents),
        )


class _GruBody(nn.Module):
    """Table 1, with what an ablation puts between the two GRUs."""

    def __init__(self, config: GruConfig | GruCnnConfig | GruTransformerConfig, n_voxels: int, n_latents: int) -> None:
        super().__init__()
        c = config
        width = 2 * config.hidden
        self.gru1 = _CELLS[c.cell](n_voxels, c.hidden)
        self.norm1 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(c.dropout)
        self._between(config, width)
        self.norm2 = nn.LayerNorm(width)
        self.head = _Head(width, width, n_latents, c.dropout)

    def _between(self, config: Any, width: int) -> None:
        self.gru2 = _CELLS[config.cell](width, config.hidden)

    def _second(self, x: Tensor) -> Tensor:
        return self.gru2(x)

    def forward(self, betas: Tensor) -> Tensor:
        x = self.dropout(self.norm1(self.gru1(betas)))  # (n, 2 hidden)
        return self.head(self.norm2(self._second(x)))


class _GruCnnBody(_GruBody):
    """The features are a line of positions that convolutions slide along; the second GRU reads what they make of it."""

    def _between(self, config: GruCnnConfig, width: int) -> None:
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
        x = self.conv(x[:, None]).transpose(1, 2)  # (n, positions, channels)
        return _last_states(self.gru2, x)


class _GruTransformerBody(_GruBody):
    """One post-norm encoder block on the single token."""

    def _between(self, config: GruTransformerConfig, width: int) -> None:
        self.block = nn.TransformerEncoderLayer(
            width, config.heads, config.feedforward, config.dropout, batch_first=True, norm_first=False
        )

        self.gru2 = _CELLS[config.cell](width, config.hidden)

    def _second(self, x: Tensor) -> Tensor:
        return self.gru2(self.block(x[:, None])[:, 0])


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
        pieces = betas.split(self.sizes, dim=1)
        tokens = torch.stack([layer(x) for layer, x in zip(self.embed, pieces, strict=True)], 1)  # (n, groups, width)
        tokens = self.dropout(self.norm1(tokens))

        if self.readout == "mean":
            states = self.gru(tokens)[0].mean(1)
        else:
            states = _last_states(self.gru, tokens)

        return self.head(self.norm2(states))


class _MlpBody(nn.Sequential):
    def __init__(self, config: MlpConfig, n_voxels: int, n_latents: int) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in zip((n_voxels, *config.hidden), config.hidden, strict=False):
            layers += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.GELU(), nn.Dropout(config.dropout)]

        super().__init__(*layers, nn.Linear(config.hidden[-1], n_latents))


_BODIES = {"gru": _GruBody, "gru_cnn": _GruCnnBody, "gru_transformer": _GruTransformerBody, "mlp": _MlpBody}


"""By ``config.kind``; ``group_gru``, which needs the sizes of its groups, stands apart."""


def _last_states(gru: nn.GRU, x: Tensor) -> Tensor:
    """The state of each direction after its whole walk: (n, steps, n_in) to (n, 2 hidden)."""
    return gru(x)[1].transpose(0, 1).flatten(1)


class LatentNet(nn.Module):
    """A network from betas to latents. Make one with `create`.

    Parameters
    ----------
    config : _NetConfig
        which network, and its sizes
    n_voxels, n_latents : int
        lengths of a row that comes in and of one that goes out
    groups : sequence of int, default ()
        voxels of each group, in order; for `GroupGruConfig` only

    Attributes
    ----------
    voxels : buffer (n_voxels,), voxel numbers group by group
    target_mean, target_scale : buffers (n_latents,), units in which latents are learnt

    Notes
    -----
    Batch norm takes its statistics from the part of a batch that one process computes, so that a training shared by
    several processes, or accumulated, is not bit for bit the one on the whole batch.

    References
    ----------
    Veronese, Moglia, Mainardi and Cerveri 2024, "Optimized two-stage AI-based neural decoding for enhanced visual stimulus
    reconstruction from fMRI data", arXiv 2412.13237, table 1 and the text on its ablations.
    """

    def __init__(self, config: _NetConfig, n_voxels: int, n_latents: int, groups: Sequence[int] = ()) -> None:
        super().__init__()
        self.config = config
        self.n_voxels = int(n_voxels)
        self.n_latents = int(n_latents)
        self.sizes = tuple(int(n) for n in groups)

        if config.kind == "group_gru":
            self.body: nn.Module = _GroupGruBody(config, self.sizes, n_latents)
        else:
            self.body = _BODIES[config.kind](config, n_voxels, n_latents)

        self.register_buffer("voxels", torch.arange(self.n_voxels if self.sizes else 0))
        self.register_buffer("target_mean", torch.zeros(n_latents))
        self.register_buffer("target_scale", torch.ones(n_latents))

    @classmethod
    def create(
        cls,
        config: _NetConfig,
        n_voxels: int,
        n_latents: int,
        seed: int,
        *,
        groups: Sequence[np.ndarray] = (),
    ) -> Self:
        """An untrained network, its weights started as torch does.

        Parameters
        ----------
        config : _NetConfig
            which network, and its sizes
        n_voxels, n_latents : int
            lengths of a row that comes in and of one that goes out
        seed : int
            of the weights; torch's global generator is left as it was
        groups : sequence of ndarray, default ()
            voxel numbers of each group in the order of the walk, together every voxel once (see
            :func:`phosphene.models.voxel_runs`); for ``kind="group_gru"``, and only for it

        Raises
        ------
        ModelError
            Groups that overlap, leave voxels out, or come to a network that has none.
        """
        is_grouped = config.kind == "group_gru"
        if is_grouped != bool(len(groups)):
            if is_grouped:
                what = "needs groups of voxels, but none came"
            else:
                what = "has no groups of voxels, but some came"

            raise ModelError(
                f"a network of kind '{config.kind}' {what}. Make them with voxel_runs for 'group_gru' only."
            )

        if is_grouped:
            order = np.concatenate([np.asarray(g, dtype=np.int64) for g in groups])
        else:
            order = np.empty(0, np.int64)

        if is_grouped and (not np.array_equal(np.sort(order), np.arange(n_voxels)) or min(map(len, groups)) == 0):
            raise ModelError(
                f"groups must hold each of {n_voxels} voxels exactly once and none may be empty, but {len(order)} entries "
                f"in {len(groups)} groups name {len(np.unique(order))} voxels. Make them with voxel_runs."
            )

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = cls(config, n_voxels, n_latents, [len(g) for g in groups])

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
        """Betas (n, n_voxels) to latents (n, n_latents) float32 in their own units.

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
        batch : mapping of {str: Tensor}
            ``{"betas": (n, n_voxels), "latents": (n, n_latents)}``
        draws : Draws
            unused; dropout is seeded by the training loop

        Returns
        -------
        tuple of (Tensor, dict of {str: Tensor})
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

        scale = self.get_buffer("target_scale")
        error = self._scaled(batch["betas"]) - (batch["latents"] - self.get_buffer("target_mean")) / scale

        if self.config.loss == "mse":
            loss = error.square().mean()
        else:
            loss = error.abs().mean()

        return loss, {"mse": (error.detach() * scale).square().mean()}

    def _scaled(self, betas: Tensor) -> Tensor:
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

        Raises
        ------
        ModelError
            For a network without such weights.
        """
        if getattr(self.config, "cell", None) != "torch":
            raise ModelError(f"a network of kind '{self.config.kind}' here has no cell='torch' that could be replaced.")

        config = self.config.model_copy(update={"cell": "gated"})
        new = type(self)(config, self.n_voxels, self.n_latents)
        wanted = new.state_dict()
        own = self.state_dict()
        new.load_state_dict({name: own[name] for name in wanted})

        return new.train(self.training)


@versioned(1)
def fit_latent_net(
    config: _NetConfig,
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

    The validation stimuli are drawn from the stimuli given here, which should be training stimuli and nothing else, and
    all rows of a stimulus are on one side. The units of the latents come from the other side too.

    Parameters
    ----------
    config : _NetConfig
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
    more : Any
        as for :func:`phosphene.training.train`

    Returns
    -------
    LatentNetPart
        with ``chosen_`` = ``{"step", "validation_mse", "mean_mse", "n_validation", "stopped_at"}``: the best step, its
        mean squared error in the latents' own units beside that of always answering the training mean, how many stimuli
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

    rows, held_out = validation_rows(stimuli, training.validation, np.random.default_rng([seed, 0]))
    network = LatentNet.create(config, betas.shape[1], latents.shape[1], seed, groups=groups)
    mean, variance = _moments(latents, rows)
    network.set_target_scale(mean, variance)

    def fetch(items: np.ndarray) -> dict[str, torch.Tensor]:
        picked = rows[items]
        both = {"betas": betas[picked], "latents": latents[picked]}
        return {k: torch.from_numpy(np.array(v, dtype=np.float32)) for k, v in both.items()}

    def judge() -> float:
        part = LatentNetPart.of(network)
        return _error(latents, held_out, lambda block: part.predict(betas[block], len(block)))

    if len(held_out):
        best = BestStep(network, judge, "validation_mse", folder, training.patience)
    else:
        best = None

    try:
        stopped_at = trainer(
            network,
            fetch,
            len(rows),
            training.train,
            seed=seed,
            folder=folder,
            log_every=training.check_every,
            watch=best and best.look,
            device=device,
            progress=progress,
            **more,
        ).step
    except EnoughError as enough:
        stopped_at = enough.step

    network.to("cpu").eval()
    if best is None or not best.restore():
        return LatentNetPart.of(network, {"step": stopped_at})

    chosen = {
        "step": best.step,
        "validation_mse": best.value,
        "mean_mse": _error(latents, held_out, lambda block: np.broadcast_to(mean, (len(block), len(mean)))),
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
    rows, held_out : ndarray
        int64, ascending

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
    """Mean and variance of each column over some rows, float64, read in blocks."""
    blocks = [rows[i : i + size] for i in range(0, len(rows), size)]
    mean = sum(np.asarray(latents[b], dtype=np.float64).sum(axis=0) for b in blocks) / len(rows)
    return mean, sum(np.square(latents[b] - mean).sum(axis=0) for b in blocks) / len(rows)


def _error(latents: np.ndarray, rows: np.ndarray, predict: Any, size: int = 256) -> float:
    """Mean squared error over rows and columns of what `predict` says of some row numbers."""
    blocks = [rows[i : i + size] for i in range(0, len(rows), size)]
    total = sum(np.square(predict(b) - np.asarray(latents[b], dtype=np.float64)).sum() for b in blocks)
    return float(total / (len(rows) * latents.shape[1]))
