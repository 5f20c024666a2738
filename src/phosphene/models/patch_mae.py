"""SC-MBM, the masked autoencoder of MinD-Vis: betas in runs of neighbouring voxels, most of them hidden and predicted.

Chen et al. 2023, CVPR, "Seeing beyond the brain", section 3.1. ::

    betas (n, voxels) -> patches of 16 voxels -> a quarter of them -> 24 blocks of width 1024 -> tokens
    tokens, with mask tokens -> 8 blocks of width 512 -> the hidden patches

Trained, it is a space of brain responses: one token per patch (`to_tokens`, what MinD-Vis conditions its pictures on) or
the class token (`to_latent`). No weight depends on the number of voxels, so subjects share all of them, and so does a
public checkpoint (:mod:`phosphene.models.sc_mbm`).

Only visible patches are embedded and encoded. The decoder takes tokens in any order, each with the code of its place, so
visible ones stand first and hidden ones after them, and nothing is shuffled back; where only hidden patches are asked
for, only they pass the last layer. Weights carry the names of the authors' code; position codes are computed.

Where the paper and the authors' code differ, the defaults follow the code, which made the published numbers:

- Padding to whole patches repeats the first voxels (the paper pads with zeros), and adds a whole patch where none is
  needed. A repeated voxel may be visible in one place and hidden in the other.
- The paper zeroes 20 % of the voxels as augmentation. The code draws ``int(0.2 * 1)`` places along an axis of length one,
  which is none. `sparsify` does what the paper says; the targets stay whole.

In this file, from top to bottom: the configuration; the network, its two halves and its training objective; the trained
network as a part of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import DataError, ModelError, did_you_mean
from phosphene.io.config import Config, validate
from phosphene.models.batches import in_batches
from phosphene.models.transformer import Block, initialise, position_codes, run_blocks
from phosphene.training.checkpoint import ModulePart
from phosphene.training.losses import row_correlation
from phosphene.training.sampling import Draws


class PatchMaeConfig(Config):
    """Sizes and variants of the patch-embedded masked autoencoder; the defaults are those of the authors' code."""

    kind: Literal["patch_mae"] = "patch_mae"
    patch_size: int = Field(default=16, ge=1, description="neighbouring voxels per token")
    n_patches: int | None = Field(
        default=None, ge=1, description="of every input; shorter ones are padded on. The longest subject's when null"
    )
    padding: Literal["wrap", "zero"] = Field(
        default="wrap", description="with a row's own first voxels (code) or zeros (paper)"
    )
    extra_patch: bool = Field(
        default=True, description="pad by a whole patch where the voxels fill theirs exactly, as the code"
    )
    positions_of: int | None = Field(
        default=None, ge=1, description="patches whose position codes are stretched over these; its own codes when null"
    )
    width: int = Field(default=1024, ge=2, multiple_of=2, description="of encoder tokens")
    depth: int = Field(default=24, ge=1, description="encoder blocks")
    heads: int = Field(default=16, ge=1, description="attention heads of the encoder")
    decoder_width: int = Field(default=512, ge=2, multiple_of=2, description="of decoder tokens")
    decoder_depth: int = Field(default=8, ge=1, description="decoder blocks")
    decoder_heads: int = Field(default=16, ge=1, description="attention heads of the decoder")
    mlp_ratio: float = Field(
        default=1.0, gt=0, description="hidden units of an MLP over the width; 1 in the authors' code"
    )
    filter_std: float = Field(default=0.02, gt=0, description="of the patch filters at the start; authors' code")
    mask_ratio: float = Field(default=0.75, ge=0, lt=1, description="share of patches hidden in training; section 4.2")
    loss_on: Literal["masked", "all"] = Field(default="masked", description="patches whose error is trained on")
    sparsify: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of voxels zeroed in training; 0.2 in the paper, none in the authors' code",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for width, heads in ((self.width, self.heads), (self.decoder_width, self.decoder_heads)):
            if width % heads:
                raise ValueError(f"a width of {width} cannot be shared by {heads} attention heads")

        if self.loss_on == "masked" and not self.mask_ratio:
            raise ValueError("with a mask_ratio of 0 nothing is masked to be trained on; set loss_on to 'all'")

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
            "patch_size": 8, "width": 64, "depth": 2, "heads": 4,
            "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4, "filter_std": 0.2,
        }  # fmt: skip

    def patches_of(self, n_voxels: int) -> int:
        """Patches that hold so many voxels, padding included.

        Parameters
        ----------
        n_voxels : int
            of a row

        Returns
        -------
        int
            one more than it takes where ``extra_patch`` is set and the voxels fill theirs exactly

        Examples
        --------
        >>> [PatchMaeConfig().patches_of(n) for n in (4466, 4480)]
        [280, 281]
        >>> PatchMaeConfig(extra_patch=False).patches_of(4480)
        280
        """
        if self.extra_patch:
            return n_voxels // self.patch_size + 1

        return -(-n_voxels // self.patch_size)  # rounded up

    def wrapped_length(self, n_voxels: int) -> int | None:
        """Length of a row that is padded with its own first voxels.

        Parameters
        ----------
        n_voxels : int
            of a row

        Returns
        -------
        int or None
            None where rows are padded with zeros

        Examples
        --------
        >>> PatchMaeConfig().wrapped_length(4466)
        4480
        """
        if self.padding == "zero":
            return None

        return self.patches_of(n_voxels) * self.patch_size


class PatchMae(nn.Module):
    """The masked autoencoder of MinD-Vis, for any number of subjects. Make one with `create`.

    Parameters
    ----------
    config : PatchMaeConfig
        sizes and variants
    n_voxels : Mapping[str, int]
        by subject; decides nothing but how a row is padded
    recompute : bool, default False
        save memory in training by computing each block twice; results stay the same

    Attributes
    ----------
    n_patches : int
        of every padded row
    n_visible : int
        patches that training leaves visible

    Raises
    ------
    ModelError
        When a subject's voxels need more patches than ``config.n_patches``, or masking would leave no patch.

    References
    ----------
    Chen et al. 2023, "Seeing Beyond the Brain: Conditional Diffusion Model with Sparse Masked Modeling for Vision
    Decoding", section 3.1; He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners".
    """

    def __init__(self, config: PatchMaeConfig, n_voxels: Mapping[str, int], *, recompute: bool = False) -> None:
        super().__init__()
        self.config = config
        self.recompute = recompute
        self.n_voxels = {name: int(n) for name, n in n_voxels.items()}
        self.subjects = list(self.n_voxels)
        self.n_patches, self.n_visible = _sizes(config, self.n_voxels)
        c = config

        self.patch_embed = nn.ModuleDict({"proj": nn.Conv1d(1, c.width, kernel_size=c.patch_size, stride=c.patch_size)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width)

        self.decoder_embed = nn.Linear(c.width, c.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.decoder_width))
        self.decoder_blocks = nn.ModuleList(
            Block(c.decoder_width, c.decoder_heads, c.mlp_ratio) for _ in range(c.decoder_depth)
        )

        self.decoder_norm = nn.LayerNorm(c.decoder_width)
        self.decoder_pred = nn.Linear(c.decoder_width, c.patch_size)

    @classmethod
    def create(cls, config: PatchMaeConfig, n_voxels: Mapping[str, int], seed: int, *, recompute: bool = False) -> Self:
        """An untrained network.

        Parameters
        ----------
        config : PatchMaeConfig
            sizes and variants
        n_voxels : Mapping[str, int]
            by subject
        seed : int
            of the weights; torch's global generator is left alone
        recompute : bool, default False
            save memory in training by computing each block twice

        Returns
        -------
        PatchMae
            on the CPU

        Raises
        ------
        ModelError
            When the voxels do not fit the configuration, as for the class.
        """
        with torch.device("meta"):  # built without drawing; the values follow
            network = cls(config, n_voxels, recompute=recompute)

        network.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        initialise(network, generator, config.filter_std)

        with torch.no_grad():
            for token in (network.cls_token, network.mask_token):
                nn.init.normal_(token, std=0.02, generator=generator)

        return network

    # -- what others use -------------------------------------------------------------------------------------------

    def to_tokens(self, betas: Tensor, subject: str | None = None, *, class_token: bool = False) -> Tensor:
        """Brain to one token per patch, nothing hidden: what MinD-Vis conditions its pictures on.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            of one subject
        subject : str, optional
            may be left out where there is only one
        class_token : bool, default False
            whether it takes part and comes first; it does in training, but not in MinD-Vis' second stage

        Returns
        -------
        Tensor
            (n, patches, width), or (n, 1 + patches, width)
        """
        return self.encode(self.to_patches(betas, subject), class_token=class_token)

    def to_latent(self, betas: Tensor, subject: str | None = None) -> Tensor:
        """Brain to latent: the class token, nothing hidden.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            of one subject
        subject : str, optional
            may be left out where there is only one

        Returns
        -------
        Tensor of shape (n, width)
            after the last norm
        """
        x = self.embed(self.to_patches(betas, subject))
        x = run_blocks(self.blocks, x, first_only=True, recompute=self.recompute)  # (n, 1, width)
        return self.norm(x[:, 0])

    def reconstruct(self, betas: Tensor, subject: str | None = None, visible: Tensor | None = None) -> Tensor:
        """Betas predicted from their visible patches.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            of one subject
        subject : str, optional
            may be left out where there is only one
        visible : Tensor of shape (n, k), optional
            int64, ascending, patches to predict from; all when None

        Returns
        -------
        Tensor of shape (n, n_voxels)
            hidden patches and visible ones, in the units of `betas`
        """
        tokens = self.encode(self.to_patches(betas, subject), visible)
        patches = self.decode(tokens, visible)  # (n, n_patches, patch_size)
        return patches.flatten(1)[:, : betas.shape[1]]

    # -- the two halves, on patches --------------------------------------------------------------------------------

    def to_patches(self, betas: Tensor, subject: str | None = None) -> Tensor:
        """Betas of one subject, padded and cut into patches.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            of one subject
        subject : str, optional
            may be left out where there is only one

        Returns
        -------
        Tensor of shape (n, n_patches, patch_size)
            neighbouring voxels together

        Raises
        ------
        ModelError
            For an unknown subject or another number of voxels.
        """
        name = self._name(subject)
        c = self.config
        n_voxels = self.n_voxels[name]
        total = self.n_patches * c.patch_size

        if betas.ndim != 2 or betas.shape[1] != n_voxels:
            raise ModelError(
                f"betas must be (trials, {n_voxels}) for subject {name} of this autoencoder, but came as "
                f"{tuple(betas.shape)}; use the voxels it was trained on, or fit again."
            )

        if c.padding == "zero":
            padded = F.pad(betas, (0, total - n_voxels))
        else:
            # Wrapped to the subject's own whole patches, and that again to the longest subject, as the authors do.
            whole_patches = c.patches_of(n_voxels) * c.patch_size
            voxels = torch.arange(total, device=betas.device) % whole_patches % n_voxels
            padded = betas[:, voxels]

        return padded.unflatten(1, (self.n_patches, c.patch_size))

    def draw_visible(self, draws: Draws) -> Tensor:
        """Patches to leave visible, evenly at random in each row.

        Called twice with the same `draws`, it gives two independent maskings.

        Parameters
        ----------
        draws : Draws
            noise of this batch

        Returns
        -------
        Tensor of shape (n, n_visible)
            int64, ascending
        """
        noise = draws.uniform(self.n_patches)  # (n, n_patches)
        return noise.topk(self.n_visible, largest=False).indices.sort(1).values

    def encode(self, patches: Tensor, visible: Tensor | None = None, *, class_token: bool = True) -> Tensor:
        """Visible patches to tokens; hidden ones are never computed with.

        Parameters
        ----------
        patches : Tensor of shape (n, n_patches, patch_size)
            as `to_patches` gives them
        visible : Tensor of shape (n, k), optional
            int64, numbers of the patches to encode; all when None
        class_token : bool, default True
            whether it takes part and comes first

        Returns
        -------
        Tensor
            (n, 1 + k, width), or (n, k, width) without the class token
        """
        x = run_blocks(self.blocks, self.embed(patches, visible, class_token), recompute=self.recompute)
        return self.norm(x)

    def decode(self, tokens: Tensor, visible: Tensor | None = None, *, hidden_only: bool = False) -> Tensor:
        """Tokens to patches.

        Parameters
        ----------
        tokens : Tensor of shape (n, 1 + k, width)
            as `encode` gives them, class token first
        visible : Tensor of shape (n, k), optional
            int64, the same as there
        hidden_only : bool, default False
            give only the patches that were hidden, in ascending order

        Returns
        -------
        Tensor of shape (n, n_patches, patch_size)
            in order, or (n, n_patches - k, patch_size)
        """
        code = self._codes(self.config.decoder_width, tokens.device)  # (1 + n_patches, decoder_width)
        x = self.decoder_embed(tokens)

        if visible is None:
            hidden = None
            n_visible = self.n_patches
            x = x + code
        else:
            hidden = self.hidden(visible)
            n_visible = visible.shape[1]
            class_token = x[:, :1] + code[0]
            seen = x[:, 1:] + code[1:][visible]
            masked = self.mask_token + code[1:][hidden]
            x = torch.cat([class_token, seen, masked], dim=1)  # (n, 1 + n_patches, decoder_width)

        x = run_blocks(self.decoder_blocks, x, recompute=self.recompute)[:, 1:]
        if hidden_only:
            x = x[:, n_visible:]

        patches = self.decoder_pred(self.decoder_norm(x))
        if visible is None or hidden is None or hidden_only:
            return patches

        order = torch.cat([visible, hidden], dim=1).argsort(1)  # visible ones stand first so far
        return pick_tokens(patches, order)

    def hidden(self, visible: Tensor) -> Tensor:
        """The other patches: (n, k) to (n, n_patches - k), ascending."""
        flags = torch.zeros(len(visible), self.n_patches, dtype=torch.uint8, device=visible.device)
        order = flags.scatter_(1, visible, 1).argsort(dim=1, stable=True)
        return order[:, : self.n_patches - visible.shape[1]]

    def embed(self, patches: Tensor, visible: Tensor | None = None, class_token: bool = True) -> Tensor:
        """Visible patches as the first block takes them, each with the code of its place.

        Parameters
        ----------
        patches : Tensor of shape (n, n_patches, patch_size)
            as `to_patches` gives them
        visible : Tensor of shape (n, k), optional
            int64, numbers of the patches to embed; all when None
        class_token : bool, default True
            whether it comes first

        Returns
        -------
        Tensor
            (n, 1 + k, width), or (n, k, width) without the class token
        """
        code = self._codes(self.config.width, patches.device)  # (1 + n_patches, width)

        if visible is None:
            chosen = patches
            places = code[1:]
        else:
            chosen = pick_tokens(patches, visible)
            places = code[1:][visible]

        # A convolution whose stride is its length is one product per patch, and takes patches in any order.
        filters = self.patch_embed.get_parameter("proj.weight")[:, 0]  # (width, patch_size)
        bias = self.patch_embed.get_parameter("proj.bias")
        x = F.linear(chosen, filters, bias) + places  # (n, k, width)

        if not class_token:
            return x

        first = (self.cls_token + code[0]).expand(len(x), -1, -1)
        return torch.cat([first, x], dim=1)

    def _codes(self, width: int, device: torch.device) -> Tensor:
        """Position codes, (1 + n_patches, width): the network's own, or those of another length stretched over it."""
        n_source = self.config.positions_of
        if n_source is None or n_source == self.n_patches:
            return position_codes(self.n_patches, width, str(device))

        # Nearest as torch rounds it, which the authors use to fit a checkpoint to another number of patches.
        numbers = torch.arange(1.0, n_source + 1)[None, None]
        source = F.interpolate(numbers, size=self.n_patches)[0, 0].long()
        rows = torch.cat([source.new_zeros(1), source])  # row 0 is the class token's
        return position_codes(n_source, width, str(device))[rows.to(device)]

    def _name(self, subject: str | None) -> str:
        if subject is None and len(self.subjects) == 1:
            return self.subjects[0]

        if subject not in self.n_voxels:
            raise ModelError(
                f"this autoencoder does not know subject {subject}. {did_you_mean(str(subject), self.subjects)}"
            )

        return subject

    # -- training --------------------------------------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of predicting hidden patches from visible ones; of all patches where configured.

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
            loss, and ``{"correlation": mean over rows of Pearson's r between the patches trained on and their
            prediction}``
        """
        inputs, targets = self.inputs(batch, draws)
        visible = self.draw_visible(draws)
        hidden_only = self.config.loss_on == "masked"

        tokens = self.encode(inputs, visible)
        predicted = self.decode(tokens, visible, hidden_only=hidden_only).float()

        if hidden_only:
            targets = pick_tokens(targets, self.hidden(visible))

        with torch.no_grad():
            correlation = row_correlation(targets.flatten(1), predicted.flatten(1)).mean()

        return F.mse_loss(predicted, targets), {"correlation": correlation}

    def inputs(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, Tensor]:
        """Patches of a batch as training sees them, and whole.

        Draws only where ``config.sparsify`` is set, and then before anything else.

        Parameters
        ----------
        batch : Mapping[str, Any]
            as `loss` takes it
        draws : Draws
            noise of this batch

        Returns
        -------
        tuple of (Tensor, Tensor)
            inputs and targets, (n, n_patches, patch_size) in the order of the batch: sparsified where configured, and
            whole
        """
        rate = self.config.sparsify
        noise = None
        if rate:
            noise = draws.uniform(max(self.n_voxels.values()))  # (n, longest)

        inputs = []
        targets = []
        places = []

        for name, betas in batch["betas"].items():
            rows = batch["rows"][name]
            betas = betas.float()
            whole = self.to_patches(betas, name)

            if noise is None:
                inputs.append(whole)
            else:  # noise belongs to the places of a batch
                inputs.append(self.to_patches(sparsified(betas, rate, noise[rows]), name))

            targets.append(whole)
            places.append(rows)

        order = torch.cat(places).argsort()
        ordered = torch.cat(targets)[order]
        if noise is None:
            return ordered, ordered

        return torch.cat(inputs)[order], ordered


def _sizes(config: PatchMaeConfig, n_voxels: Mapping[str, int]) -> tuple[int, int]:
    """Patches of every row, and how many of them stay visible."""
    if not n_voxels or min(n_voxels.values()) < 1:
        raise ModelError(
            f"an autoencoder needs the number of voxels of at least one subject, but got {dict(n_voxels)}."
        )

    longest = max(n_voxels, key=lambda name: n_voxels[name])
    needed = config.patches_of(n_voxels[longest])
    n_patches = config.n_patches or needed
    if n_patches < needed:
        raise ModelError(
            f"{n_voxels[longest]} voxels of subject {longest} need {needed} patches of {config.patch_size}, but n_patches "
            f"is {n_patches}; choose fewer voxels, or leave n_patches out."
        )

    n_visible = int(n_patches * (1 - config.mask_ratio))
    if not n_visible:
        raise ModelError(
            f"hiding a share of {config.mask_ratio} of {n_patches} patches leaves none visible; use smaller patches "
            f"(patch_size is {config.patch_size}) or a smaller mask_ratio."
        )

    return n_patches, n_visible


def pick_tokens(x: Tensor, numbers: Tensor) -> Tensor:
    """Tokens of each item by number.

    Parameters
    ----------
    x : Tensor of shape (n, m, d)
        m tokens of each item
    numbers : Tensor of shape (n, k)
        int64, from 0 to m - 1, of each item its own

    Returns
    -------
    Tensor of shape (n, k, d)
        in the order of `numbers`

    Examples
    --------
    >>> pick_tokens(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[2, 0]])).tolist()
    [[[3.0], [1.0]]]
    """
    return x.gather(1, numbers[..., None].expand(-1, -1, x.shape[2]))


def sparsified(betas: Tensor, rate: float, noise: Tensor) -> Tensor:
    """Betas with exactly ``int(rate * n_voxels)`` voxels of each row set to zero.

    Parameters
    ----------
    betas : Tensor of shape (n, n_voxels)
        in any unit
    rate : float
        0 up to, not including, 1
    noise : Tensor of shape (n, at least n_voxels)
        uniform; the smallest of the first n_voxels mark the voxels to zero

    Returns
    -------
    Tensor of shape (n, n_voxels)
        a copy

    References
    ----------
    Chen et al. 2023, section 4.2, "random sparsification" of 20 %; their code zeroes nothing.
    """
    n_voxels = betas.shape[1]
    zeroed = noise[:, :n_voxels].topk(int(rate * n_voxels), largest=False).indices
    return betas.scatter(1, zeroed, 0.0)


class PatchMaePart(ModulePart):
    """A trained patch-embedded masked autoencoder as a part of a run, working on arrays.

    Parameters
    ----------
    module : PatchMae
        a :class:`phosphene.models.PatchMae`
    config : Mapping[str, Any]
        as `of` makes it
    """

    module: PatchMae

    @classmethod
    def of(cls, network: PatchMae) -> Self:
        """The part that holds this network.

        Parameters
        ----------
        network : PatchMae
            trained

        Returns
        -------
        PatchMaePart
            whose weights are those of the network, not copies
        """
        subjects = [[name, n] for name, n in network.n_voxels.items()]
        return cls(network, {"network": network.config.model_dump(mode="json"), "subjects": subjects})

    @classmethod
    def build(cls, config: dict[str, Any]) -> PatchMae:
        """A network of this configuration without values yet.

        Parameters
        ----------
        config : dict[str, Any]
            as `of` makes it

        Returns
        -------
        PatchMae
            on the CPU; the memory of the weights is not filled
        """
        values = validate(PatchMaeConfig, config["network"], "the saved autoencoder")
        n_voxels = {name: int(n) for name, n in config["subjects"]}
        with torch.device("meta"):
            network = PatchMae(values, n_voxels)

        return network.to_empty(device="cpu")

    def to_tokens(
        self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64, *, class_token: bool = False
    ) -> np.ndarray:
        """Brain to tokens, nothing hidden.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised as in training, array or memory map
        subject : str, optional
            may be left out where there is only one
        batch_size : int, default 64
            rows at a time
        class_token : bool, default False
            whether it takes part and comes first

        Returns
        -------
        ndarray of float32
            (n, patches, width), or (n, 1 + patches, width) with the class token
        """
        half = partial(self.module.to_tokens, subject=subject, class_token=class_token)
        return in_batches(half, self.module, betas, batch_size, "betas")

    def to_latent(self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Brain to latent: the class token, nothing hidden.

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
        ndarray of shape (n, width), float32
            each row as if it were alone, but for rounding
        """
        half = partial(self.module.to_latent, subject=subject)
        return in_batches(half, self.module, betas, batch_size, "betas")

    def reconstruct(
        self,
        betas: np.ndarray,
        subject: str | None = None,
        rng: np.random.Generator | None = None,
        batch_size: int = 64,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Betas predicted from their visible patches.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised as in training, array or memory map
        subject : str, optional
            may be left out where there is only one
        rng : numpy.random.Generator, optional
            draws what is hidden, a share ``mask_ratio`` of the patches of each row; nothing is hidden when None
        batch_size : int, default 64
            rows at a time

        Returns
        -------
        reconstruction : ndarray of shape (n, n_voxels)
            float32, in the units of `betas`
        is_hidden : ndarray of shape (n, n_voxels)
            bool, voxels in hidden patches; a wrapped copy of one may still be visible

        Raises
        ------
        DataError
            For betas that are not one row a trial.
        """
        if np.ndim(betas) != 2:
            raise DataError(f"betas must be one row a trial, but came with shape {np.shape(betas)}.")

        network = self.module
        n = len(betas)

        if rng is None:
            n_visible = network.n_patches
            noise = np.zeros((n, network.n_patches))
        else:
            n_visible = network.n_visible
            noise = rng.random((n, network.n_patches))

        visible = np.sort(noise.argsort(axis=1, kind="stable")[:, :n_visible], axis=1)  # (n, n_visible)
        is_hidden = np.ones((n, network.n_patches), dtype=bool)
        np.put_along_axis(is_hidden, visible, False, axis=1)
        starts = iter(range(0, n, batch_size))  # in_batches calls on one block after the other

        def half(block: Tensor) -> Tensor:
            start = next(starts)
            block_visible = torch.from_numpy(visible[start : start + batch_size]).to(block.device)
            return network.reconstruct(block, subject, visible=block_visible)

        reconstruction = in_batches(half, network, betas, batch_size, "betas")
        voxel_is_hidden = is_hidden.repeat(network.config.patch_size, axis=1)  # (n, n_patches * patch_size)
        return reconstruction, voxel_is_hidden[:, : reconstruction.shape[1]]
