"""The network of the patch-embedded masked autoencoder; :mod:`phosphene.models.patch_mae` says what it is.

Only visible patches are embedded and encoded. The decoder takes tokens in any order, each with the code of its place, so
visible ones stand first and hidden ones after them, and nothing is shuffled back; where only hidden patches are asked
for, only they pass the last layer. Weights carry the names of the authors' code; position codes are computed.
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
from phosphene.io.config import Config
from phosphene.models.batches import in_batches
from phosphene.models.transformer import Block, initialise, positions, run_blocks
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
        """Values over the defaults: none for ``paper``, tiny sizes and a quick start for ``lab``."""
        if name == "paper":
            return {}

        return {
            "patch_size": 8, "width": 64, "depth": 2, "heads": 4,
            "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4, "filter_std": 0.2,
        }  # fmt: skip

    def patches_of(self, n_voxels: int) -> int:
        """Patches that hold so many voxels, padding included.

        Examples
        --------
        >>> [PatchMaeConfig().patches_of(n) for n in (4466, 4480)]
        [280, 281]
        >>> PatchMaeConfig(extra_patch=False).patches_of(4480)
        280
        """
        if self.extra_patch:
            return n_voxels // self.patch_size + 1

        return -(-n_voxels // self.patch_size)

    def wrapped_length(self, n_voxels: int) -> int | None:
        """Length of a row that is padded with its own first voxels; None where it is padded with zeros.

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
    n_voxels : mapping of {str: int}
        by subject; decides nothing but how a row is padded
    recompute : bool, default False
        save memory in training by computing each block twice; results stay the same

    Attributes
    ----------
    n_patches : of every padded row
    n_visible : patches that training leaves visible

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
        n_voxels : mapping of {str: int}
            by subject
        seed : int
            of the weights; torch's global generator is left alone
        recompute : bool, default False
            save memory in training by computing each block twice
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
        """Brain to latent: (n, n_voxels) to the class token, (n, width), nothing hidden."""
        x = self._embed(self.to_patches(betas, subject))
        x = run_blocks(self.blocks, x, first_only=True, recompute=self.recompute)
        return self.norm(x[:, 0])

    def reconstruct(self, betas: Tensor, subject: str | None = None, visible: Tensor | None = None) -> Tensor:
        """Betas (n, n_voxels) predicted from their visible patches, (n, k) numbers; from all when None."""
        tokens = self.encode(self.to_patches(betas, subject), visible)
        return self.decode(tokens, visible).flatten(1)[:, : betas.shape[1]]

    # -- the two halves, on patches --------------------------------------------------------------------------------

    def to_patches(self, betas: Tensor, subject: str | None = None) -> Tensor:
        """Betas (n, n_voxels) of one subject, padded, to (n, n_patches, patch_size).

        Raises
        ------
        ModelError
            For an unknown subject or another number of voxels.
        """
        name = self._name(subject)
        c = self.config
        n = self.n_voxels[name]
        total = self.n_patches * self.config.patch_size

        if betas.ndim != 2 or betas.shape[1] != n:
            raise ModelError(
                f"betas must be (trials, {n}) for subject {name} of this autoencoder, but came as {tuple(betas.shape)}; "
                "use the voxels it was trained on, or fit again."
            )

        if c.padding == "zero":
            padded = F.pad(betas, (0, total - n))
        else:  # wrapped to whole patches, and that again to the longest subject, as the authors do
            own = c.patches_of(n) * c.patch_size
            padded = betas[:, torch.arange(total, device=betas.device) % own % n]

        return padded.unflatten(1, (self.n_patches, c.patch_size))

    def draw_visible(self, draws: Draws) -> Tensor:
        """Patches to leave visible, evenly at random in each row: (n, n_visible) int64 ascending.

        Called twice with the same `draws`, it gives two independent maskings.
        """
        return draws.uniform(self.n_patches).topk(self.n_visible, largest=False).indices.sort(1).values

    def encode(self, patches: Tensor, visible: Tensor | None = None, *, class_token: bool = True) -> Tensor:
        """Visible patches to tokens; hidden ones are never looked at.

        Parameters
        ----------
        patches : Tensor of shape (n, n_patches, patch_size)
        visible : Tensor of shape (n, k), int64, optional
            numbers of the patches to encode; all when None
        class_token : bool, default True
            whether it takes part and comes first

        Returns
        -------
        Tensor
            (n, 1 + k, width), or (n, k, width) without the class token
        """
        x = run_blocks(self.blocks, self._embed(patches, visible, class_token), recompute=self.recompute)
        return self.norm(x)

    def decode(self, tokens: Tensor, visible: Tensor | None = None, *, hidden_only: bool = False) -> Tensor:
        """Tokens to patches.

        Parameters
        ----------
        tokens : Tensor of shape (n, 1 + k, width)
            as `encode` gives them, class token first
        visible : Tensor of shape (n, k), optional
            the same as there
        hidden_only : bool, default False
            give only the patches that were hidden, in ascending order

        Returns
        -------
        Tensor of shape (n, n_patches, patch_size)
            in order, or (n, n_patches - k, patch_size)
        """
        code = self._codes(self.config.decoder_width, tokens.device)
        x = self.decoder_embed(tokens)

        if visible is None:
            x = x + code
        else:
            hidden = self.hidden(visible)
            places = code[1:]
            x = torch.cat([x[:, :1] + code[0], x[:, 1:] + places[visible], self.mask_token + places[hidden]], dim=1)

        x = run_blocks(self.decoder_blocks, x, recompute=self.recompute)[:, 1:]
        if hidden_only:
            x = x[:, x.shape[1] if visible is None else visible.shape[1] :]

        out = self.decoder_pred(self.decoder_norm(x))
        if visible is None or hidden_only:
            return out

        return picked(out, torch.cat([visible, hidden], dim=1).argsort(1))

    def hidden(self, visible: Tensor) -> Tensor:
        """The other patches: (n, k) to (n, n_patches - k), ascending."""
        flags = torch.zeros(len(visible), self.n_patches, dtype=torch.uint8, device=visible.device)
        order = flags.scatter_(1, visible, 1).argsort(dim=1, stable=True)
        return order[:, : self.n_patches - visible.shape[1]]

    def _embed(self, patches: Tensor, visible: Tensor | None = None, class_token: bool = True) -> Tensor:
        filters = self.patch_embed["proj"]
        code = self._codes(self.config.width, patches.device)

        if visible is None:
            places = code[1:]
        else:
            places = code[1:][visible]

        if visible is None:
            chosen = patches
        else:
            chosen = picked(patches, visible)

        x = F.linear(chosen, filters.weight[:, 0], filters.bias) + places  # (n, k, width)
        first = (self.cls_token + code[0]).expand(len(x), -1, -1)
        if class_token:
            return torch.cat([first, x], dim=1)

        return x

    def _codes(self, width: int, device: torch.device) -> Tensor:
        old = self.config.positions_of
        n = self.n_patches
        if old is None or old == n:
            return positions(n, width, str(device))

        # Nearest as torch rounds it, which the authors use to fit a checkpoint to another number of patches.
        source = F.interpolate(torch.arange(1.0, old + 1)[None, None], size=n)[0, 0].long()
        return positions(old, width, str(device))[torch.cat([source.new_zeros(1), source]).to(device)]

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
        batch : mapping of {str: Any}
            ``{"betas": {subject: (k, n_voxels)}, "rows": {subject: (k,) places in the batch}}``, as
            :func:`phosphene.models.subject_batches` makes it
        draws : Draws
            noise of this batch; an item gets the same however the batch is shared out

        Returns
        -------
        tuple of (Tensor, dict of {str: Tensor})
            loss, and ``{"correlation": mean over rows of Pearson's r between the patches trained on and their
            prediction}``
        """
        inputs, targets = self.inputs(batch, draws)
        visible = self.draw_visible(draws)
        masked = self.config.loss_on == "masked"
        predicted = self.decode(self.encode(inputs, visible), visible, hidden_only=masked).float()

        if masked:
            targets = picked(targets, self.hidden(visible))

        with torch.no_grad():
            r = row_correlation(targets.flatten(1), predicted.flatten(1)).mean()

        return F.mse_loss(predicted, targets), {"correlation": r}

    def inputs(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, Tensor]:
        """Patches of a batch as training sees them, sparsified where configured, and whole: each (n, n_patches, patch_size).

        Draws only where ``config.sparsify`` is set, and then before anything else.
        """
        rate = self.config.sparsify
        if rate:
            noise = draws.uniform(max(self.n_voxels.values()))
        else:
            noise = None

        seen = []
        whole = []
        places = []

        for name, betas in batch["betas"].items():
            rows = batch["rows"][name]
            betas = betas.float()
            whole.append(self.to_patches(betas, name))
            seen.append(whole[-1] if noise is None else self.to_patches(sparsified(betas, rate, noise[rows]), name))
            places.append(rows)

        order = torch.cat(places).argsort()  # noise belongs to the places of a batch
        targets = torch.cat(whole)[order]

        return (targets if noise is None else torch.cat(seen)[order]), targets


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
            f"{n_voxels[longest]} voxels of subject {longest} need {needed} patches of {config.patch_size}, but n_patches is "
            f"{n_patches}; choose fewer voxels, or leave n_patches out."
        )

    n_visible = int(n_patches * (1 - config.mask_ratio))
    if not n_visible:
        raise ModelError(
            f"hiding a share of {config.mask_ratio} of {n_patches} patches leaves none visible; use smaller patches "
            f"(patch_size is {config.patch_size}) or a smaller mask_ratio."
        )

    return n_patches, n_visible


def picked(x: Tensor, numbers: Tensor) -> Tensor:
    """Rows of each item: (n, m, d) and (n, k) to (n, k, d)."""
    return x.gather(1, numbers[..., None].expand(-1, -1, x.shape[2]))


def sparsified(betas: Tensor, rate: float, noise: Tensor) -> Tensor:
    """Betas with exactly ``int(rate * n_voxels)`` voxels of each row set to zero.

    Parameters
    ----------
    betas : Tensor of shape (n, n_voxels)
    rate : float
        0 up to, not including, 1
    noise : Tensor of shape (n, at least n_voxels)
        uniform; the smallest of the first n_voxels mark what goes

    References
    ----------
    Chen et al. 2023, section 4.2, "random sparsification" of 20 %; their code zeroes nothing.
    """
    n = betas.shape[1]
    return betas.scatter(1, noise[:, :n].topk(int(rate * n), largest=False).indices, 0.0)


class PatchMaePart(ModulePart):
    """A trained patch-embedded masked autoencoder as a part of a run, working on arrays.

    Parameters
    ----------
    module : PatchMae
        a :class:`phosphene.models.PatchMae`
    config : mapping of {str: Any}
        as `of` makes it
    """

    module: PatchMae

    @classmethod
    def of(cls, network: PatchMae) -> Self:
        """The part that holds this network."""
        subjects = [[name, n] for name, n in network.n_voxels.items()]
        return cls(network, {"network": network.config.model_dump(mode="json"), "subjects": subjects})

    @classmethod
    def build(cls, config: dict[str, Any]) -> PatchMae:
        """A network of this configuration without values yet."""
        import torch

        from phosphene.io.config import validate

        values = validate(PatchMaeConfig, config["network"], "the saved autoencoder")
        with torch.device("meta"):
            network = PatchMae(values, {name: int(n) for name, n in config["subjects"]})

        return network.to_empty(device="cpu")

    def to_tokens(
        self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64, *, class_token: bool = False
    ) -> np.ndarray:
        """Brain to tokens: (n, n_voxels) to (n, patches, width) float32, nothing hidden.

        With `class_token`, it takes part and comes first, (n, 1 + patches, width).
        """

        half = partial(self.module.to_tokens, subject=subject, class_token=class_token)
        return in_batches(half, self.module, betas, batch_size, "betas")

    def to_latent(self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Brain to latent: (n, n_voxels) to the class token, (n, width) float32, nothing hidden."""
        return in_batches(partial(self.module.to_latent, subject=subject), self.module, betas, batch_size, "betas")

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
        subject : str, optional
            may be left out where there is only one
        rng : numpy.random.Generator, optional
            draws what is hidden, a share ``mask_ratio`` of the patches of each row; nothing is hidden when None

        Returns
        -------
        reconstruction : ndarray of shape (n, n_voxels), float32
        is_hidden : ndarray of shape (n, n_voxels), bool
            voxels in hidden patches; a wrapped copy of one may still be visible
        """
        import torch

        if np.ndim(betas) != 2:
            raise DataError(f"betas must be one row a trial, but came with shape {np.shape(betas)}.")

        net = self.module
        n = len(betas)

        if rng is None:
            chosen = net.n_patches
        else:
            chosen = net.n_visible

        if rng is None:
            noise = np.zeros((n, net.n_patches))
        else:
            noise = rng.random((n, net.n_patches))

        visible = np.sort(noise.argsort(axis=1, kind="stable")[:, :chosen], axis=1)
        is_hidden = np.ones((n, net.n_patches), dtype=bool)
        np.put_along_axis(is_hidden, visible, False, axis=1)
        blocks = iter(range(0, n, batch_size))

        def half(block: Any) -> Any:
            start = next(blocks)
            here = torch.from_numpy(visible[start : start + batch_size]).to(block.device)
            return net.reconstruct(block, subject, visible=here)

        out = in_batches(half, net, betas, batch_size, "betas")
        return out, is_hidden.repeat(net.config.patch_size, axis=1)[:, : out.shape[1]]
