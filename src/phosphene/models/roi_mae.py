"""The network of the ROI masked autoencoder; :mod:`phosphene.models.roi_mae` says what it is.

Weights carry the names of the authors' code, but for the subject: number `s` of `subjects` owns ``patch_embed.s.*`` and
``channel_mapper.s.*`` (theirs without ``s``; `reference_names` maps all of them). Everything else is the trunk, which
subjects share. Position codes are computed, not stored; ``voxels_s`` holds the voxel numbers of a subject, ROI by ROI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import ModelError, did_you_mean
from phosphene.io.config import Config
from phosphene.models.batches import in_batches
from phosphene.models.transformer import Block, initialise, positions, run_blocks
from phosphene.training.checkpoint import ModulePart
from phosphene.training.losses import row_correlation
from phosphene.training.sampling import Draws

if TYPE_CHECKING:
    from phosphene.types import Trials


_OWN = ("patch_embed.", "channel_mapper.", "decoder_pred.", "voxels_")


class _RoiEmbed(nn.Module):
    """LEA's ROI embedding layer: each ROI through its own convolution and its own projection, one token per filter."""

    def __init__(self, sizes: Sequence[int], n_tokens: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(1, n_tokens, kernel_size=3, padding=1), nn.Linear(n, width)) for n in sizes
        )

    def forward(self, rois: Sequence[Tensor]) -> Tensor:
        """ROIs (n, voxels of the ROI) to (n, n_tokens * ROIs, width)."""
        return torch.cat([layer(x[:, None]) for layer, x in zip(self.layers, rois, strict=True)], dim=1)


class _PatchEmbed(nn.Module):
    """LEA's rival, MinD-Vis' PatchEmbed: runs of neighbouring voxels, one token each; shared by all subjects."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(1, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(n, voxels), a multiple of the patch, to (n, patches, width)."""
        return self.proj(x[:, None]).transpose(1, 2)


class RoiMae(nn.Module):
    """LEA's autoencoder of fMRI for one or several subjects. Make one with `create`.

    Parameters
    ----------
    config : RoiMaeConfig
        sizes and variants
    sizes : mapping of {str: sequence of int}
        voxels of each ROI, by subject. Without `create` the voxels are taken to stand ROI by ROI.
    recompute : bool, default False
        save memory in training by computing each block twice; results stay the same

    References
    ----------
    Qian et al. 2024, "LEA: Learning Latent Embedding Alignment Model for fMRI Decoding and Encoding", section 3.2; where
    the authors' code differs, the code: the class token passes one more projection before it is the latent, and one
    last convolution serves all ROIs.
    """

    def __init__(self, config: RoiMaeConfig, sizes: Mapping[str, Sequence[int]], *, recompute: bool = False) -> None:
        super().__init__()
        self.config = config
        self.recompute = recompute
        self.sizes = {name: tuple(int(n) for n in own) for name, own in sizes.items()}
        self.subjects = list(self.sizes)
        self.n_voxels = {name: sum(own) for name, own in self.sizes.items()}
        c = config
        is_roi = config.embed == "roi"

        if is_roi:
            self.patch_embed: nn.Module = nn.ModuleList(
                _RoiEmbed(own, c.roi_heads, c.width) for own in self.sizes.values()
            )
        else:
            self.patch_embed = _PatchEmbed(c.patch_size, c.width)

        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width)
        self.pred = nn.Linear(c.width, c.latent)

        self.decoder_embed = nn.Linear(c.latent, c.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.decoder_width))
        self.decoder_blocks = nn.ModuleList(
            Block(c.decoder_width, c.decoder_heads, c.mlp_ratio) for _ in range(c.decoder_depth)
        )

        self.decoder_norm = nn.LayerNorm(c.decoder_width)
        if is_roi:
            self.channel_mapper = nn.ModuleList(
                nn.ModuleList(nn.Sequential(nn.Linear(c.decoder_width, n)) for n in own) for own in self.sizes.values()
            )

            self.decoder_pred: nn.Module
            if c.shared_out_conv:
                self.decoder_pred = self._out_conv()
            else:
                self.decoder_pred = nn.ModuleList(
                    nn.ModuleList(self._out_conv() for _ in own) for own in self.sizes.values()
                )
        else:
            self.decoder_pred = nn.Linear(c.decoder_width, c.patch_size)

        for s, name in enumerate(self.subjects):
            self.register_buffer(f"voxels_{s}", torch.arange(self.n_voxels[name]))

    def _out_conv(self) -> nn.Conv1d:
        return nn.Conv1d(self.config.roi_heads, 1, kernel_size=3, padding=1)

    @classmethod
    def create(
        cls,
        config: RoiMaeConfig,
        groups: Mapping[str, Sequence[np.ndarray]],
        seed: int,
        *,
        recompute: bool = False,
    ) -> Self:
        """An untrained network.

        Parameters
        ----------
        config : RoiMaeConfig
            sizes and variants
        groups : mapping of {str: sequence of ndarray}
            by subject, the voxel numbers of each ROI, together every voxel once (see
            :func:`phosphene.models.roi_partition`)
        seed : int
            of the weights; torch's global generator is left alone
        recompute : bool, default False
            save memory in training by computing each block twice

        Raises
        ------
        ModelError
            When the groups of a subject overlap or leave voxels out.
        """
        _check_groups(groups)
        sizes = {name: [len(g) for g in own] for name, own in groups.items()}

        with torch.device("meta"):  # built without drawing; the values follow
            network = cls(config, sizes, recompute=recompute)

        network.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        initialise(network, generator, config.filter_std)

        with torch.no_grad():
            for token in (network.cls_token, network.mask_token):
                nn.init.normal_(token, std=0.02, generator=generator)

            for s, own in enumerate(groups.values()):
                network.get_buffer(f"voxels_{s}").copy_(torch.from_numpy(np.concatenate(own).astype(np.int64)))

        return network

    # -- the two halves --------------------------------------------------------------------------------------------

    def to_latent(self, betas: Tensor, subject: str | None = None) -> Tensor:
        """Brain to latent.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            of one subject, in its own voxel order
        subject : str, optional
            may be left out where there is only one

        Returns
        -------
        Tensor of shape (n, latent)

        Raises
        ------
        ModelError
            For an unknown subject or another number of voxels.
        """
        s = self._number(subject)
        return self._encode(self._tokens(self._ordered(betas, s), s))

    def from_latent(self, latents: Tensor, subject: str | None = None) -> Tensor:
        """Latent to brain: (n, latent) to (n, n_voxels), in the subject's own voxel order.

        Raises
        ------
        ModelError
            For an unknown subject or latents of another length.
        """
        s = self._number(subject)
        if latents.ndim != 2 or latents.shape[1] != self.config.latent:
            raise ModelError(
                f"latents must be (rows, {self.config.latent}) for this autoencoder but came as {tuple(latents.shape)}."
            )

        out = self._voxels(self._decode(latents, self._n_tokens(s)), s)
        return out[:, torch.argsort(self.get_buffer(f"voxels_{s}"))]

    def forward(self, betas: Tensor, subject: str | None = None) -> Tensor:
        """Betas (n, n_voxels) through the latent and back."""
        return self.from_latent(self.to_latent(betas, subject), subject)

    # -- training --------------------------------------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of reconstructing clean betas from augmented ones, over all voxels, then over rows.

        Parameters
        ----------
        batch : mapping of {str: Any}
            ``{"betas": {subject: (k, n_voxels)}, "rows": {subject: (k,) places in the batch}}``, as
            :func:`phosphene.models.subject_batches` makes it
        draws : Draws
            noise of this batch; an item gets the same however the batch is shared out

        Returns
        -------
        tuple of (Tensor, dict of {str: Tensor})
            loss, and ``{"correlation": mean over rows of Pearson's r between betas and reconstruction}``
        """
        noise = self._noise(draws)
        clean = {
            s: self._ordered(batch["betas"][name], s) for s, name in enumerate(self.subjects) if name in batch["betas"]
        }

        rows = {s: batch["rows"][self.subjects[s]] for s in clean}
        tokens = {s: self._tokens(self._augment(x, [n[rows[s]] for n in noise]), s) for s, x in clean.items()}
        total = self._untouched(clean)
        r = torch.zeros((), device=draws.device)
        count = 0

        for together in _by_length(tokens):  # subjects with equally many tokens share one pass through the trunk
            latents = self._encode(torch.cat([tokens[s] for s in together]))
            decoded = self._decode(latents, tokens[together[0]].shape[1]).split([len(tokens[s]) for s in together])

            for s, part in zip(together, decoded, strict=True):
                x = clean[s].float()
                y = self._voxels(part, s).float()
                total = total + (y - x).square().mean(1).sum()

                with torch.no_grad():
                    r += row_correlation(x, y).sum()

                count += len(x)

        return total / count, {"correlation": r / count}

    def _noise(self, draws: Draws) -> list[Tensor]:
        n = max(self.n_voxels.values())
        if self.config.augment == "drop" and self.config.drop:
            return [draws.uniform(n)]
        if self.config.augment == "noise":
            return [draws.uniform(), draws.normal(n)]

        return []

    def _augment(self, x: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Betas as the encoder sees them in training; `noise` holds as many rows as `x`, and at least as many columns."""
        c = self.config
        n = x.shape[1]
        if c.augment == "drop" and noise:
            dropped = noise[0][:, :n].topk(int(c.drop * n), largest=False).indices
            return x.scatter(1, dropped, 0.0)

        if c.augment == "noise":
            chosen, normal = noise
            return x + c.noise_std * (chosen < c.noise_probability)[:, None] * normal[:, :n]

        return x

    def _untouched(self, present: Mapping[int, Tensor]) -> Tensor:
        """Zero, with a gradient of zero for the layers of absent subjects: data-parallel training wants one for all."""
        zero = self.cls_token.sum() * 0.0
        for s in range(len(self.subjects)):
            if s not in present:
                for weight in self.own_parameters(s):
                    zero = zero + weight.reshape(-1)[0] * 0.0

        return zero

    # -- pieces ----------------------------------------------------------------------------------------------------

    def _number(self, subject: str | None) -> int:
        if subject is None and len(self.subjects) == 1:
            return 0

        if subject not in self.sizes:
            raise ModelError(
                f"this autoencoder has no layers for subject {subject}. {did_you_mean(str(subject), self.subjects)}"
            )

        return self.subjects.index(subject)

    def _n_tokens(self, s: int) -> int:
        c = self.config
        name = self.subjects[s]
        if c.embed == "roi":
            return c.roi_heads * len(self.sizes[name])

        # The authors' padding adds a whole patch where none is needed.
        return self.n_voxels[name] // c.patch_size + 1

    def _ordered(self, betas: Tensor, s: int) -> Tensor:
        """Betas of subject `s`, ROI by ROI."""
        n = self.n_voxels[self.subjects[s]]
        if betas.ndim != 2 or betas.shape[1] != n:
            raise ModelError(
                f"betas must be (trials, {n}) for subject {self.subjects[s]} of this autoencoder, but came as "
                f"{tuple(betas.shape)}; use the voxels it was trained on, or fit again."
            )

        return betas[:, self.get_buffer(f"voxels_{s}")]

    def _tokens(self, x: Tensor, s: int) -> Tensor:
        if self.config.embed == "roi":
            return self.patch_embed[s](x.split(self.sizes[self.subjects[s]], dim=1))

        around = torch.arange(self._n_tokens(s) * self.config.patch_size, device=x.device) % x.shape[1]
        return self.patch_embed(x[:, around])

    def _encode(self, tokens: Tensor) -> Tensor:
        code = positions(tokens.shape[1], self.config.width, str(tokens.device))
        first = (self.cls_token + code[0]).expand(len(tokens), -1, -1)
        x = torch.cat([first, tokens + code[1:]], dim=1)
        x = run_blocks(self.blocks, x, first_only=True, recompute=self.recompute)

        return self.pred(self.norm(x[:, 0]))  # (n, latent)

    def _decode(self, latents: Tensor, n_tokens: int) -> Tensor:
        code = positions(n_tokens, self.config.decoder_width, str(latents.device))
        first = self.decoder_embed(latents)[:, None]
        x = torch.cat([first + code[0], (self.mask_token + code[1:]).expand(len(latents), -1, -1)], dim=1)
        x = run_blocks(self.decoder_blocks, x, recompute=self.recompute)

        return self.decoder_norm(x[:, 1:])  # (n, tokens, decoder_width)

    def _voxels(self, tokens: Tensor, s: int) -> Tensor:
        """Decoder tokens to voxels, ROI by ROI."""
        sizes = self.sizes[self.subjects[s]]
        if self.config.embed == "patch":
            return self.decoder_pred(tokens).flatten(1)[:, : sum(sizes)]

        if self.config.shared_out_conv:
            convs = [self.decoder_pred] * len(sizes)
        else:
            convs = self.decoder_pred[s]

        pieces = tokens.chunk(len(sizes), dim=1)
        rois = [conv(fc(t))[:, 0] for conv, fc, t in zip(convs, self.channel_mapper[s], pieces, strict=True)]

        return torch.cat(rois, dim=1)

    # -- subjects and the trunk ------------------------------------------------------------------------------------

    def own_parameters(self, s: int) -> list[nn.Parameter]:
        """Parameters that belong to subject number `s` alone."""
        return [w for name, w in self.named_parameters() if self._owner(name) == s]

    def _owner(self, name: str) -> int | None:
        """Number of the subject that a weight or buffer belongs to; None for the trunk."""
        if name.startswith("voxels_"):
            return int(name.removeprefix("voxels_"))

        if name.startswith(_OWN):
            number = name.split(".")[1]
        else:
            number = ""

        if number.isdigit():
            return int(number)

        return None

    def with_subjects(self, groups: Mapping[str, Sequence[np.ndarray]], seed: int) -> RoiMae:
        """A new network for other subjects with a copy of this trunk, such as one subject to fine-tune.

        A subject that is in both and has the same groups keeps its layers; others start anew from `seed`.

        Parameters
        ----------
        groups : mapping of {str: sequence of ndarray}
            by subject, the voxel numbers of each ROI
        seed : int
            of the new layers
        """
        new = type(self).create(self.config, groups, seed, recompute=self.recompute)
        state = new.state_dict()
        old = self.state_dict()
        known = {}

        for i, name in enumerate(new.subjects):
            if name in self.sizes:
                s = self.subjects.index(name)
                if torch.equal(state[f"voxels_{i}"], old[f"voxels_{s}"].cpu()) and new.sizes[name] == self.sizes[name]:
                    known[i] = s

        for name, value in state.items():
            i = new._owner(name)
            if i is None:
                value.copy_(old[name])
            elif i in known and not name.startswith("voxels_"):
                head, _, rest = name.split(".", 2)
                value.copy_(old[f"{head}.{known[i]}.{rest}"])

        return new

    def reference_names(self, subject: str | None = None) -> dict[str, str]:
        """Names of this network's weights to those of the authors' code, for one subject.

        Weights of other subjects, and those of variants the authors' code lacks, are left out.
        """
        s = self._number(subject)
        out = {}

        for name, _ in self.named_parameters():
            owner = self._owner(name)
            if owner is None:
                out[name] = name
            elif owner == s and not name.startswith("decoder_pred."):
                head, _, rest = name.split(".", 2)
                out[name] = f"{head}.{rest}"

        return out


def _by_length(tokens: Mapping[int, Tensor]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for s, x in tokens.items():
        groups.setdefault(x.shape[1], []).append(s)

    return list(groups.values())


def _check_groups(groups: Mapping[str, Sequence[np.ndarray]]) -> None:
    if not groups:
        raise ModelError("an autoencoder needs the ROI groups of at least one subject, but none came.")

    for subject, own in groups.items():
        if len(own):
            together = np.sort(np.concatenate([np.asarray(g) for g in own]))
        else:
            together = np.empty(0)

        empty = any(len(g) == 0 for g in own)
        if not len(together) or empty or not np.array_equal(together, np.arange(len(together))):
            raise ModelError(
                f"the ROI groups of {subject} must hold each voxel exactly once and none may be empty, but "
                f"{len(together)} entries name {len(np.unique(together))} voxels. Make them with roi_partition."
            )


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
    trials : Trials
        whose voxels have ROI memberships; without any, all voxels are one group, ``all``
    rois : sequence of str, optional
        order in which they take; the order of ``trials.rois`` by default (`GOD_ROIS` is LEA's)

    Returns
    -------
    dict of {str: ndarray}
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
    """What :func:`phosphene.training.train` needs to train one network on several subjects' rows.

    Parameters
    ----------
    betas : mapping of {str: ndarray}
        by subject, each (n_trials, n_voxels of that subject), arrays or memory maps

    Returns
    -------
    fetch : callable
        rows of all subjects counted through, (n,) int64, to ``{"betas": {subject: (k, n_voxels)}, "rows": {subject:
        (k,) int64, places in the batch}}``; a subject without rows is left out
    n_items : int
        rows in all
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
    module : RoiMae
        a :class:`phosphene.models.RoiMae`
    config : mapping of {str: Any}
        as `of` makes it
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

        from phosphene.io.config import validate

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
