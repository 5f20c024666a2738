"""The networks of :mod:`phosphene.brain.gru`. All share `LatentNet`; a variant is its ``body``, betas to scaled latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import ModelError
from phosphene.train.sampling import Draws

if TYPE_CHECKING:
    from phosphene.brain.gru import (
        GroupGruConfig,
        GruCnnConfig,
        GruConfig,
        GruTransformerConfig,
        MlpConfig,
        _NetConfig,
    )


class GatedCell(nn.Module):
    """What a bidirectional GRU computes on a sequence of one step from a hidden state of zero.

        r = s(W_r x + b_ir + b_hr),    z = s(W_z x + b_iz + b_hz),    h = (1 - z) tanh(W_n x + b_in + r b_hn)

    for each direction. Weights have the names and shapes of :class:`torch.nn.GRU`, without ``weight_hh``, which is
    multiplied by the hidden state and so by zero.

    Parameters
    ----------
    n_in : length of x
    hidden : units per direction
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
        c, width = config, 2 * config.hidden
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
        c, self.sizes = config, tuple(sizes)
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
        states = self.gru(tokens)[0].mean(1) if self.readout == "mean" else _last_states(self.gru, tokens)
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
    config : which network, and its sizes
    n_voxels, n_latents : lengths of a row that comes in and of one that goes out
    groups : voxels of each group, in order; for `GroupGruConfig` only

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
        self.config, self.n_voxels, self.n_latents = config, int(n_voxels), int(n_latents)
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
        config : which network, and its sizes
        n_voxels, n_latents : lengths of a row that comes in and of one that goes out
        seed : of the weights; torch's global generator is left as it was
        groups : voxel numbers of each group in the order of the walk, together every voxel once (see
            :func:`phosphene.brain.voxel_runs`); for ``kind="group_gru"``, and only for it

        Raises
        ------
        ModelError
            Groups that overlap, leave voxels out, or come to a network that has none.
        """
        is_grouped = config.kind == "group_gru"
        if is_grouped != bool(len(groups)):
            what = "needs groups of voxels, but none came" if is_grouped else "has no groups of voxels, but some came"
            raise ModelError(
                f"a network of kind '{config.kind}' {what}. Make them with voxel_runs for 'group_gru' only."
            )
        order = np.concatenate([np.asarray(g, dtype=np.int64) for g in groups]) if is_grouped else np.empty(0, np.int64)
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
        mean, variance : (n_latents,) of the training rows; a column that never changes gets a scale of one
        """
        kind = self.config.target_scale
        if kind == "none":
            return
        variance = np.full(self.n_latents, np.mean(variance)) if kind == "whole" else np.asarray(variance)
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
        batch : ``{"betas": (n, n_voxels), "latents": (n, n_latents)}``
        draws : unused; dropout is seeded by the training loop

        Returns
        -------
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
        loss = error.square().mean() if self.config.loss == "mse" else error.abs().mean()
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
        wanted, own = new.state_dict(), self.state_dict()
        new.load_state_dict({name: own[name] for name in wanted})
        return new.train(self.training)
