"""LEA's ROI masked autoencoder: betas to one latent vector and back. Qian et al. 2024, TMLR, section 3.2.

::

    betas (n, voxels) -> 32 tokens per ROI -> 24 blocks of width 1024 -> class token -> latent (n, 1024)
    latent -> class token, with mask tokens -> 8 blocks of width 512 -> per ROI back to voxels -> betas (n, voxels)

The ends are the paper's ROI embedding (ROIEmbed) and ROI project layers. Its "global feature extraction" is the
bottleneck between: the [CLS] token, made a latent, is all the decoder sees. Nothing is masked but voxels of the input
(`drop`), despite the name; this follows the authors' code where it and the paper differ.

Weights carry the names of the authors' code, but for the subject: number `s` of `subjects` owns ``patch_embed.s.*`` and
``channel_mapper.s.*`` (theirs without ``s``; `reference_names` maps all of them). Everything else is the trunk, which
subjects share. Position codes are computed, not stored; ``voxels_s`` holds the voxel numbers of a subject, ROI by ROI.

In this file, from top to bottom: the configuration; ROIs as groups that share out the voxels, and batches of several
subjects; the network with its training objective; the trained network as a part of a run.
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
from phosphene.io.config import Config, validate
from phosphene.models.batches import in_batches
from phosphene.models.transformer import Block, initialise, position_codes, run_blocks
from phosphene.training.checkpoint import ModulePart
from phosphene.training.losses import row_correlation
from phosphene.training.sampling import Draws

if TYPE_CHECKING:
    from phosphene.types import Trials


class RoiMaeConfig(Config):
    """Sizes and variants of the ROI masked autoencoder; the defaults are the paper's."""

    kind: Literal["roi_mae"] = "roi_mae"
    embed: Literal["roi", "patch"] = Field(
        default="roi",
        description="tokens from whole ROIs, or from runs of neighbouring voxels (the ablation of tables 5 and 6)",
    )
    roi_heads: int = Field(default=32, ge=1, description="tokens per ROI; table 5 tries 8 to 96")
    patch_size: int = Field(default=16, ge=1, description="voxels per token where embed is 'patch'")
    shared_out_conv: bool = Field(
        default=True, description="one last convolution for all ROIs, as in the authors' code"
    )
    width: int = Field(default=1024, ge=2, multiple_of=2, description="of encoder tokens")
    depth: int = Field(default=24, ge=1, description="encoder blocks")
    heads: int = Field(default=16, ge=1, description="attention heads of the encoder")
    latent: int = Field(default=1024, ge=1, description="length of the latent")
    decoder_width: int = Field(default=512, ge=2, multiple_of=2, description="of decoder tokens")
    decoder_depth: int = Field(default=8, ge=1, description="decoder blocks")
    decoder_heads: int = Field(default=16, ge=1, description="attention heads of the decoder")
    mlp_ratio: float = Field(
        default=1.0, gt=0, description="hidden units of an MLP over the width; 1 in the authors' code"
    )
    filter_std: float = Field(
        default=0.02,
        gt=0,
        description="of the convolutions at the start; the authors' 0.02 needs many steps to leave the mean",
    )
    augment: Literal["drop", "noise", "none"] = Field(
        default="drop", description="of the input in training: zeroed voxels (authors' code) or Gaussian noise (paper)"
    )
    drop: float = Field(
        default=0.25, ge=0, lt=1, description="share of voxels zeroed in every row; authors' configuration"
    )
    noise_probability: float = Field(default=0.25, ge=0, le=1, description="share of rows that get noise; appendix A")
    noise_std: float = Field(
        default=0.1, ge=0, description="of that noise, in units of the betas; not given by the paper"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        for width, heads in ((self.width, self.heads), (self.decoder_width, self.decoder_heads)):
            if width % heads:
                raise ValueError(f"a width of {width} cannot be shared by {heads} attention heads")

        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab"}
            none for ``paper``, tiny sizes and a quick start for ``lab``

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "paper":
            return {}

        return {
            "roi_heads": 4, "patch_size": 8, "width": 64, "depth": 2, "heads": 4, "latent": 64,
            "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4, "filter_std": 0.2,
        }  # fmt: skip


GOD_ROIS = ("V1", "V2", "V3", "V4", "FFA", "PPA", "LOC", "LVC", "HVC", "VC")
"""Order in which LEA shares out the voxels of the Generic Object Decoding data."""


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
    dict[str, ndarray]
        by ROI, its voxel numbers, (n,) int64 ascending

    Raises
    ------
    DataError
        For an unknown ROI name.
    """
    if rois is None:
        names = list(trials.rois)
    else:
        names = list(rois)

    if not names:
        return {"all": np.arange(trials.n_voxels)}

    is_free = np.ones(trials.n_voxels, dtype=bool)
    groups: dict[str, np.ndarray] = {}

    for name in names:
        taken = np.asarray(trials.roi(name), dtype=bool) & is_free
        if taken.any():
            groups[name] = np.flatnonzero(taken)
            is_free &= ~taken

    if is_free.any():
        groups["rest"] = np.flatnonzero(is_free)

    return groups


def subject_batches(betas: Mapping[str, np.ndarray]) -> tuple[Callable[[np.ndarray], dict[str, Any]], int]:
    """What :func:`phosphene.training.train` needs to train one network on several subjects' rows.

    Parameters
    ----------
    betas : Mapping[str, ndarray]
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
        rows = np.asarray(rows)
        owner = np.searchsorted(ends, rows, side="right")  # (n,) number of each row's subject
        batch: dict[str, Any] = {"betas": {}, "rows": {}}

        for s in np.unique(owner):
            name = names[s]
            places = np.flatnonzero(owner == s)
            start = ends[s] - len(betas[name])
            values = np.array(betas[name][rows[places] - start], dtype=np.float32)  # (k, n_voxels)

            batch["betas"][name] = torch.from_numpy(values)
            batch["rows"][name] = torch.from_numpy(places)

        return batch

    if not names:
        return fetch, 0

    return fetch, int(ends[-1])


class RoiMae(nn.Module):
    """LEA's autoencoder of fMRI for one or several subjects. Make one with `create`.

    Parameters
    ----------
    config : RoiMaeConfig
        sizes and variants
    sizes : Mapping[str, Sequence[int]]
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
        self.sizes = {name: tuple(int(n) for n in roi_sizes) for name, roi_sizes in sizes.items()}
        self.subjects = list(self.sizes)
        self.n_voxels = {name: sum(roi_sizes) for name, roi_sizes in self.sizes.items()}

        # The order in which layers are made is that of the names in checkpoints, and of the draws of `create`.
        c = config
        self._add_embedding()

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
        self._add_projection()

        for s, name in enumerate(self.subjects):
            self.register_buffer(f"voxels_{s}", torch.arange(self.n_voxels[name]))

    def _add_embedding(self) -> None:
        """Betas to tokens: per subject and ROI, or one layer for all."""
        c = self.config
        if c.embed == "patch":
            self.patch_embed: nn.Module = _PatchEmbed(c.patch_size, c.width)
            return

        layers = [_RoiEmbed(roi_sizes, c.roi_heads, c.width) for roi_sizes in self.sizes.values()]
        self.patch_embed = nn.ModuleList(layers)

    def _add_projection(self) -> None:
        """Tokens to betas: per subject and ROI a product and a convolution, or one layer for all."""
        c = self.config
        if c.embed == "patch":
            self.decoder_pred: nn.Module = nn.Linear(c.decoder_width, c.patch_size)
            return

        self.channel_mapper = nn.ModuleList()
        for roi_sizes in self.sizes.values():
            layers = [nn.Sequential(nn.Linear(c.decoder_width, n)) for n in roi_sizes]
            self.channel_mapper.append(nn.ModuleList(layers))

        if c.shared_out_conv:
            self.decoder_pred = self._out_conv()
            return

        self.decoder_pred = nn.ModuleList()
        for roi_sizes in self.sizes.values():
            self.decoder_pred.append(nn.ModuleList(self._out_conv() for _ in roi_sizes))

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
        groups : Mapping[str, Sequence[ndarray]]
            by subject, the voxel numbers of each ROI, together every voxel once (see
            :func:`phosphene.models.roi_partition`)
        seed : int
            of the weights; torch's global generator is left alone
        recompute : bool, default False
            save memory in training by computing each block twice

        Returns
        -------
        RoiMae
            on the CPU

        Raises
        ------
        ModelError
            When the groups of a subject overlap or leave voxels out.
        """
        _check_groups(groups)
        sizes: dict[str, list[int]] = {}
        for name, rois in groups.items():
            sizes[name] = [len(roi) for roi in rois]

        with torch.device("meta"):  # built without drawing; the values follow
            network = cls(config, sizes, recompute=recompute)

        network.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        initialise(network, generator, config.filter_std)

        with torch.no_grad():
            for token in (network.cls_token, network.mask_token):
                nn.init.normal_(token, std=0.02, generator=generator)

            for s, rois in enumerate(groups.values()):
                order = np.concatenate(rois).astype(np.int64)
                network.get_buffer(f"voxels_{s}").copy_(torch.from_numpy(order))

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
            all that `from_latent` needs of a response

        Raises
        ------
        ModelError
            For an unknown subject or another number of voxels.
        """
        s = self._number(subject)
        return self._encode(self._tokens(self._ordered(betas, s), s))

    def from_latent(self, latents: Tensor, subject: str | None = None) -> Tensor:
        """Latent to brain.

        Parameters
        ----------
        latents : Tensor of shape (n, latent)
            as `to_latent` gives them
        subject : str, optional
            whose voxels; may be left out where there is only one

        Returns
        -------
        Tensor of shape (n, n_voxels)
            in the subject's own voxel order

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

        by_roi = self._voxels(self._decode(latents, self._n_tokens(s)), s)  # (n, n_voxels), ROI by ROI
        place = torch.argsort(self.get_buffer(f"voxels_{s}"))
        return by_roi[:, place]

    def forward(self, betas: Tensor, subject: str | None = None) -> Tensor:
        """Betas through the latent and back.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            of one subject, in its own voxel order
        subject : str, optional
            may be left out where there is only one

        Returns
        -------
        Tensor of shape (n, n_voxels)
            in the same order
        """
        return self.from_latent(self.to_latent(betas, subject), subject)

    # -- training --------------------------------------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of reconstructing clean betas from augmented ones, over all voxels, then over rows.

        Parameters
        ----------
        batch : Mapping[str, Any]
            ``{"betas": {subject: (k, n_voxels)}, "rows": {subject: (k,) places in the batch}}``, as
            :func:`phosphene.models.subject_batches` makes it
        draws : Draws
            noise of this batch; an item gets the same however the batch is shared out

        Returns
        -------
        tuple of (Tensor, dict[str, Tensor])
            loss, and ``{"correlation": mean over rows of Pearson's r between betas and reconstruction}``
        """
        noise = self._noise(draws)
        clean: dict[int, Tensor] = {}
        tokens: dict[int, Tensor] = {}

        for s, name in enumerate(self.subjects):
            if name in batch["betas"]:
                rows = batch["rows"][name]
                clean[s] = self._ordered(batch["betas"][name], s)  # (k, n_voxels)
                augmented = self._augment(clean[s], [x[rows] for x in noise])
                tokens[s] = self._tokens(augmented, s)  # (k, tokens, width)

        total = self._untouched(clean)
        correlation = torch.zeros((), device=draws.device)
        count = 0

        # Subjects with equally many tokens share one pass through the trunk.
        for group in _by_length(tokens):
            latents = self._encode(torch.cat([tokens[s] for s in group]))  # (rows of the group, latent)
            n_tokens = tokens[group[0]].shape[1]
            decoded = self._decode(latents, n_tokens).split([len(tokens[s]) for s in group])

            for s, decoded_tokens in zip(group, decoded, strict=True):
                target = clean[s].float()
                predicted = self._voxels(decoded_tokens, s).float()  # (k, n_voxels)
                total = total + (predicted - target).square().mean(1).sum()

                with torch.no_grad():
                    correlation += row_correlation(target, predicted).sum()

                count += len(target)

        return total / count, {"correlation": correlation / count}

    def _noise(self, draws: Draws) -> list[Tensor]:
        """Draws for the whole batch, as wide as the longest subject: a row's noise does not depend on its subject."""
        longest = max(self.n_voxels.values())
        if self.config.augment == "drop" and self.config.drop:
            return [draws.uniform(longest)]

        if self.config.augment == "noise":
            return [draws.uniform(), draws.normal(longest)]

        return []

    def _augment(self, x: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Betas as the encoder sees them in training; `noise` holds as many rows as `x`, and at least as many columns."""
        c = self.config
        n_voxels = x.shape[1]
        if c.augment == "drop" and noise:
            dropped = noise[0][:, :n_voxels].topk(int(c.drop * n_voxels), largest=False).indices  # (k, dropped)
            return x.scatter(1, dropped, 0.0)

        if c.augment == "noise":
            uniform, normal = noise
            is_noisy = uniform < c.noise_probability  # (k,)
            return x + c.noise_std * is_noisy[:, None] * normal[:, :n_voxels]

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
        """Betas of subject `s`, ROI by ROI, to (n, tokens, width)."""
        if self.config.embed == "roi":
            embed = self.patch_embed.get_submodule(str(s))
            return embed(x.split(self.sizes[self.subjects[s]], dim=1))

        # Padded with a row's own first voxels, as the authors pad.
        wrapped = torch.arange(self._n_tokens(s) * self.config.patch_size, device=x.device) % x.shape[1]
        return self.patch_embed(x[:, wrapped])

    def _encode(self, tokens: Tensor) -> Tensor:
        code = position_codes(tokens.shape[1], self.config.width, str(tokens.device))  # (1 + tokens, width)
        class_token = (self.cls_token + code[0]).expand(len(tokens), -1, -1)
        x = torch.cat([class_token, tokens + code[1:]], dim=1)
        x = run_blocks(self.blocks, x, first_only=True, recompute=self.recompute)  # (n, 1, width)

        return self.pred(self.norm(x[:, 0]))  # (n, latent)

    def _decode(self, latents: Tensor, n_tokens: int) -> Tensor:
        code = position_codes(n_tokens, self.config.decoder_width, str(latents.device))  # (1 + tokens, decoder_width)
        class_token = self.decoder_embed(latents)[:, None] + code[0]
        mask_tokens = (self.mask_token + code[1:]).expand(len(latents), -1, -1)
        x = torch.cat([class_token, mask_tokens], dim=1)
        x = run_blocks(self.decoder_blocks, x, recompute=self.recompute)

        return self.decoder_norm(x[:, 1:])  # (n, tokens, decoder_width)

    def _voxels(self, tokens: Tensor, s: int) -> Tensor:
        """Decoder tokens to voxels, ROI by ROI: (n, tokens, decoder_width) to (n, n_voxels)."""
        sizes = self.sizes[self.subjects[s]]
        if self.config.embed == "patch":
            return self.decoder_pred(tokens).flatten(1)[:, : sum(sizes)]

        rois = []
        for number, roi_tokens in enumerate(tokens.chunk(len(sizes), dim=1)):
            mapper = self.channel_mapper.get_submodule(f"{s}.{number}")
            if self.config.shared_out_conv:
                conv = self.decoder_pred
            else:
                conv = self.decoder_pred.get_submodule(f"{s}.{number}")

            channels = mapper(roi_tokens)  # (n, roi_heads, voxels of the ROI)
            rois.append(conv(channels)[:, 0])

        return torch.cat(rois, dim=1)

    # -- subjects and the trunk ------------------------------------------------------------------------------------

    def own_parameters(self, s: int) -> list[nn.Parameter]:
        """Parameters that belong to subject number `s` alone."""
        return [weight for name, weight in self.named_parameters() if self._owner(name) == s]

    def _owner(self, name: str) -> int | None:
        """Number of the subject that a weight or buffer belongs to; None for the trunk."""
        if name.startswith("voxels_"):
            return int(name.removeprefix("voxels_"))

        if not name.startswith(_BY_SUBJECT):
            return None

        number = name.split(".")[1]
        if number.isdigit():
            return int(number)

        return None  # of a layer that all subjects share, such as patch_embed.proj

    def with_subjects(self, groups: Mapping[str, Sequence[np.ndarray]], seed: int) -> RoiMae:
        """A new network for other subjects with a copy of this trunk, such as one subject to fine-tune.

        A subject that is in both and has the same groups keeps its layers; others start anew from `seed`.

        Parameters
        ----------
        groups : Mapping[str, Sequence[ndarray]]
            by subject, the voxel numbers of each ROI
        seed : int
            of the new layers

        Returns
        -------
        RoiMae
            on the CPU; this one is left alone

        Raises
        ------
        ModelError
            When the groups of a subject overlap or leave voxels out.
        """
        new = type(self).create(self.config, groups, seed, recompute=self.recompute)
        new_state = new.state_dict()
        old_state = self.state_dict()
        old_number: dict[int, int] = {}  # of subjects whose layers are kept, by their number in the new network

        for i, name in enumerate(new.subjects):
            if name in self.sizes and new.sizes[name] == self.sizes[name]:
                s = self.subjects.index(name)
                if torch.equal(new_state[f"voxels_{i}"], old_state[f"voxels_{s}"].cpu()):
                    old_number[i] = s

        for name, value in new_state.items():
            owner = new._owner(name)
            if owner is None:
                value.copy_(old_state[name])
            elif owner in old_number and not name.startswith("voxels_"):
                layer, _, rest = name.split(".", 2)
                value.copy_(old_state[f"{layer}.{old_number[owner]}.{rest}"])

        return new

    def reference_names(self, subject: str | None = None) -> dict[str, str]:
        """Names of this network's weights to those of the authors' code, for one subject.

        Weights of other subjects, and those of variants the authors' code lacks, are left out.

        Parameters
        ----------
        subject : str, optional
            may be left out where there is only one

        Returns
        -------
        dict[str, str]
            their name by ours

        Raises
        ------
        ModelError
            For an unknown subject.
        """
        s = self._number(subject)
        theirs = {}

        for name, _ in self.named_parameters():
            owner = self._owner(name)
            if owner is None:
                theirs[name] = name
            elif owner == s and not name.startswith("decoder_pred."):  # the authors have one last convolution only
                layer, _, rest = name.split(".", 2)
                theirs[name] = f"{layer}.{rest}"

        return theirs


class _RoiEmbed(nn.Module):
    """LEA's ROI embedding layer: each ROI through its own convolution and its own projection, one token per filter."""

    def __init__(self, sizes: Sequence[int], n_tokens: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for n_voxels in sizes:
            filters = nn.Conv1d(1, n_tokens, kernel_size=3, padding=1)
            self.layers.append(nn.Sequential(filters, nn.Linear(n_voxels, width)))

    def forward(self, rois: Sequence[Tensor]) -> Tensor:
        """ROIs (n, voxels of the ROI) to (n, n_tokens * ROIs, width)."""
        tokens = []
        for layer, x in zip(self.layers, rois, strict=True):
            tokens.append(layer(x[:, None]))  # (n, n_tokens, width)

        return torch.cat(tokens, dim=1)


class _PatchEmbed(nn.Module):
    """LEA's rival, MinD-Vis' PatchEmbed: runs of neighbouring voxels, one token each; shared by all subjects."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(1, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(n, voxels), a multiple of the patch, to (n, patches, width)."""
        channels = self.proj(x[:, None])  # (n, width, patches)
        return channels.transpose(1, 2)


_BY_SUBJECT = ("patch_embed.", "channel_mapper.", "decoder_pred.")  # layers whose second name is a subject's number


def _by_length(tokens: Mapping[int, Tensor]) -> list[list[int]]:
    """Subjects with equally many tokens together, in the order in which they come."""
    groups: dict[int, list[int]] = {}
    for s, x in tokens.items():
        groups.setdefault(x.shape[1], []).append(s)

    return list(groups.values())


def _check_groups(groups: Mapping[str, Sequence[np.ndarray]]) -> None:
    if not groups:
        raise ModelError("an autoencoder needs the ROI groups of at least one subject, but none came.")

    for subject, rois in groups.items():
        if len(rois):
            voxels = np.sort(np.concatenate([np.asarray(roi) for roi in rois]))
        else:
            voxels = np.empty(0)

        has_empty = any(len(roi) == 0 for roi in rois)
        if not len(voxels) or has_empty or not np.array_equal(voxels, np.arange(len(voxels))):
            raise ModelError(
                f"the ROI groups of {subject} must hold each voxel exactly once and none may be empty, but "
                f"{len(voxels)} entries name {len(np.unique(voxels))} voxels. Make them with roi_partition."
            )


class RoiMaePart(ModulePart):
    """A trained ROI masked autoencoder as a part of a run, working on arrays.

    Parameters
    ----------
    module : RoiMae
        a :class:`phosphene.models.RoiMae`
    config : Mapping[str, Any]
        as `of` makes it
    """

    module: RoiMae

    @classmethod
    def of(cls, network: RoiMae) -> Self:
        """The part that holds this network.

        Parameters
        ----------
        network : RoiMae
            trained

        Returns
        -------
        RoiMaePart
            whose weights are those of the network, not copies
        """
        subjects = [[name, list(sizes)] for name, sizes in network.sizes.items()]
        return cls(network, {"network": network.config.model_dump(mode="json"), "subjects": subjects})

    @classmethod
    def build(cls, config: dict[str, Any]) -> RoiMae:
        """A network of this configuration without values yet.

        Parameters
        ----------
        config : dict[str, Any]
            as `of` makes it

        Returns
        -------
        RoiMae
            on the CPU; the memory of the weights is not filled
        """
        values = validate(RoiMaeConfig, config["network"], "the saved autoencoder")
        sizes = {name: tuple(roi_sizes) for name, roi_sizes in config["subjects"]}
        with torch.device("meta"):
            network = RoiMae(values, sizes)

        return network.to_empty(device="cpu")

    def to_latent(self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Brain to latent, without augmentation.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised as in training, array or memory map
        subject : str, optional
            may be left out where there is only one
        batch_size : int, default 64
            rows at a time

        Returns
        -------
        ndarray of shape (n, latent), float32
            each row as if it were alone, but for rounding
        """
        half = partial(self.module.to_latent, subject=subject)
        return in_batches(half, self.module, betas, batch_size, "betas")

    def from_latent(self, latents: np.ndarray, subject: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Latent to brain.

        Parameters
        ----------
        latents : ndarray of shape (n, latent)
            as `to_latent` gives them
        subject : str, optional
            whose voxels; may be left out where there is only one
        batch_size : int, default 64
            rows at a time

        Returns
        -------
        ndarray of shape (n, n_voxels), float32
            in the units and voxel order the network was trained on
        """
        half = partial(self.module.from_latent, subject=subject)
        return in_batches(half, self.module, latents, batch_size, "latents")
