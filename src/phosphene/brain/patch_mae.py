"""SC-MBM, the masked autoencoder of MinD-Vis: betas in runs of neighbouring voxels, most of them hidden and predicted.

Chen et al. 2023, CVPR, "Seeing beyond the brain", section 3.1. ::

    betas (n, voxels) -> patches of 16 voxels -> a quarter of them -> 24 blocks of width 1024 -> tokens
    tokens beside mask tokens -> 8 blocks of width 512 -> the hidden patches

Trained, it is a space of brain responses: one token per patch (`to_tokens`, what MinD-Vis conditions its pictures on) or
the class token (`to_latent`). No weight depends on the number of voxels, so subjects share all of them, and so does a
public checkpoint (``sc_mbm.py``). The network is in ``patch_mae_network.py``; here is what needs no torch.

Where the paper and the authors' code differ, the defaults follow the code, which made the published numbers:

- Padding to whole patches repeats the first voxels (the paper pads with zeros), and adds a whole patch where none is
  needed. A repeated voxel may be visible in one place and hidden in the other.
- The paper zeroes 20 % of the voxels as augmentation. The code draws ``int(0.2 * 1)`` places along an axis of length one,
  which is none. `sparsify` does what the paper says; the targets stay whole.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.brain.batches import in_batches
from phosphene.errors import DataError
from phosphene.run.config import Config
from phosphene.train.checkpoint import ModulePart

if TYPE_CHECKING:
    from phosphene.brain.patch_mae_network import PatchMae


class PatchMaeConfig(Config):
    """Sizes and variants of the patch-embedded masked autoencoder; the defaults are those of the authors' code."""

    kind: Literal["patch_mae"] = "patch_mae"
    patch_size: int = Field(16, ge=1, description="neighbouring voxels per token")
    n_patches: int | None = Field(
        None, ge=1, description="of every input; shorter ones are padded on. The longest subject's when null"
    )
    padding: Literal["wrap", "zero"] = Field(
        "wrap", description="with a row's own first voxels (code) or zeros (paper)"
    )
    extra_patch: bool = Field(
        True, description="pad by a whole patch where the voxels fill theirs exactly, as the code"
    )
    positions_of: int | None = Field(
        None, ge=1, description="patches whose position codes are stretched over these; its own codes when null"
    )
    width: int = Field(1024, ge=2, multiple_of=2, description="of encoder tokens")
    depth: int = Field(24, ge=1, description="encoder blocks")
    heads: int = Field(16, ge=1, description="attention heads of the encoder")
    decoder_width: int = Field(512, ge=2, multiple_of=2, description="of decoder tokens")
    decoder_depth: int = Field(8, ge=1, description="decoder blocks")
    decoder_heads: int = Field(16, ge=1, description="attention heads of the decoder")
    mlp_ratio: float = Field(1.0, gt=0, description="hidden units of an MLP over the width; 1 in the authors' code")
    filter_std: float = Field(0.02, gt=0, description="of the patch filters at the start; authors' code")
    mask_ratio: float = Field(0.75, ge=0, lt=1, description="share of patches hidden in training; section 4.2")
    loss_on: Literal["masked", "all"] = Field("masked", description="patches whose error is trained on")
    sparsify: float = Field(
        0.0, ge=0, lt=1, description="share of voxels zeroed in training; 0.2 in the paper, none in the authors' code"
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
        return n_voxels // self.patch_size + 1 if self.extra_patch else -(-n_voxels // self.patch_size)


class PatchMaePart(ModulePart):
    """A trained patch-embedded masked autoencoder as a part of a run, working on arrays.

    Parameters
    ----------
    module : a :class:`phosphene.brain.PatchMae`
    config : as `of` makes it
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

        from phosphene.brain.patch_mae_network import PatchMae
        from phosphene.run.config import validate

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
        betas : (n, n_voxels)
        subject : may be left out where there is only one
        rng : draws what is hidden, a share ``mask_ratio`` of the patches of each row; nothing is hidden when None

        Returns
        -------
        reconstruction : (n, n_voxels) float32
        is_hidden : (n, n_voxels) bool, voxels in hidden patches; a wrapped copy of one may still be visible
        """
        import torch

        if np.ndim(betas) != 2:
            raise DataError(f"betas must be one row a trial, but came with shape {np.shape(betas)}.")
        net = self.module
        n, chosen = len(betas), net.n_patches if rng is None else net.n_visible
        noise = np.zeros((n, net.n_patches)) if rng is None else rng.random((n, net.n_patches))
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
