"""Pictures from a latent through MaskGIT and its tokenizer: latent -> codes -> picture (LEA, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn

from phosphene import zoo
from phosphene.generate.maskgit import MaskGit
from phosphene.generate.maskgit_config import SamplingConfig
from phosphene.generate.vq import Tokenizer, Vqgan
from phosphene.train.checkpoint import ModulePart
from phosphene.types import digest_of

if TYPE_CHECKING:
    from phosphene.train import TrainConfig


PORTED: dict[str, Any] = {"eps": 1e-5, "gelu": "none"}
"""MaskGIT as LEA's authors ported it to PyTorch: other epsilons of layer norms, another GELU."""
PORTED_TOKENIZER: dict[str, Any] = {"eps": 1e-5}
"""Its tokenizer likewise."""


class Painter(ModulePart):
    """MaskGIT beside the tokenizer whose codes it draws, as a fitted part of a run.

    Parameters
    ----------
    module : ``maskgit`` and ``tokenizer``
    config : ``{"maskgit": fields of MaskGitConfig, "tokenizer": [class, fields]}``
    """

    module: nn.ModuleDict

    @classmethod
    def of(cls, maskgit: MaskGit, tokenizer: nn.Module) -> Self:
        """From two networks: a MaskGit, and diffusers' VQModel or a :class:`Vqgan`."""
        kind = "vqgan" if isinstance(tokenizer, Vqgan) else "vq"
        fields = tokenizer.config.model_dump(mode="json") if kind == "vqgan" else _plain(tokenizer.config)
        config = {"maskgit": maskgit.config.model_dump(mode="json"), "tokenizer": [kind, fields]}
        return cls(nn.ModuleDict({"maskgit": maskgit, "tokenizer": tokenizer}).eval(), config)

    @classmethod
    def from_zoo(cls) -> Self:
        """The lab's networks. Raises NotAvailable where they are not bundled."""
        return cls.of(zoo.load("maskgit"), zoo.load("vq"))

    @classmethod
    def from_public(cls, transformer: str | Path, tokenizer: str | Path, seed: int, *, ported: bool = False) -> Self:
        """The public ImageNet-256 networks; the layer that takes the latent is drawn anew and has to be trained.

        Parameters
        ----------
        transformer : Flax checkpoint ``maskgit_imagenet256_checkpoint``
        tokenizer : Flax checkpoint ``tokenizer_imagenet256_checkpoint``, or the same network as PyTorch's
            ``maskgit-vqgan-imagenet-f16-256.bin``
        seed : of what is drawn
        ported : epsilons and GELU of LEA's PyTorch port, not those the public weights were trained with

        Raises
        ------
        ModelError
            Missing or damaged files, or weights that do not fit.
        """
        from phosphene.generate.flax_file import read_flax
        from phosphene.generate.maskgit_weights import flax_tokenizer, start_from_public, torch_tokenizer
        from phosphene.train.checkpoint import load_module_state
        from phosphene.train.foreign import read_foreign

        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            maskgit, vqgan = MaskGit(**(PORTED if ported else {})), Vqgan(**(PORTED_TOKENIZER if ported else {}))
        start_from_public(maskgit, read_flax(transformer))
        if Path(tokenizer).suffix in (".bin", ".pt", ".pth"):
            weights = torch_tokenizer(read_foreign(tokenizer), vqgan.config)
        else:
            weights = flax_tokenizer(read_flax(tokenizer), vqgan.config)
        load_module_state(vqgan, weights, "the public tokenizer")
        return cls.of(maskgit, vqgan)

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.Module:
        """Untrained networks of this configuration."""
        from diffusers import VQModel

        kind, fields = config["tokenizer"]
        tokenizer = Vqgan(**fields) if kind == "vqgan" else VQModel(**fields)
        return nn.ModuleDict({"maskgit": MaskGit(**config["maskgit"]), "tokenizer": tokenizer}).eval()

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        kind, fields = self.config["tokenizer"]
        levels = len(fields["multipliers"] if kind == "vqgan" else fields["block_out_channels"])
        return int(self.module["maskgit"].config.grid * 2 ** (levels - 1))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, ready for pictures."""
        return Tokenizer(self.module["tokenizer"])

    def learn(
        self,
        pixels: np.ndarray,
        see: Callable[[np.ndarray], np.ndarray],
        settings: TrainConfig,
        train: Callable[..., Any],
        *,
        flip: bool,
        crops: int = 0,
        seed: int = 0,
    ) -> None:
        """Train MaskGIT on with pictures; the tokenizer stays.

        Parameters
        ----------
        pixels : (n, size, size, 1 or 3) float32, 0-1
        see : pictures to latents
        settings : how
        train : called with network, fetch, number of items, `settings` and a digest of the data
        flip : whether to learn from mirrored pictures as well
        crops : random crops of each picture, and of its mirror, to learn from as well, stretched back to full size;
            every one has the latent and the codes of what it shows
        seed : of where they are cut
        """
        pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
        seen = [(see(p), self.tokenizer.encode(p)) for p in _versions(pixels, flip, crops, seed)]
        latents, tokens = (torch.from_numpy(np.concatenate(kind)) for kind in zip(*seen, strict=True))
        maskgit = self.module["maskgit"].requires_grad_(True)

        def fetch(rows: np.ndarray) -> dict[str, torch.Tensor]:
            return {"latents": latents[rows], "tokens": tokens[rows]}

        data = digest_of(latents.numpy(), tokens.numpy())
        train(maskgit, fetch, len(latents), settings, data=data)
        maskgit.requires_grad_(False).cpu()

    def paint(self, latents: np.ndarray, ids: Sequence[str], sampling: SamplingConfig, seed: int) -> np.ndarray:
        """Pictures of latents.

        Parameters
        ----------
        latents : (n, latent)
        ids : n stimulus ids; the noise of a picture is a function of seed, id and sample, not of its company
        sampling : steps, samples and temperature
        seed : of the noise

        Returns
        -------
        (n, samples, size, size, 3) float32, 0-1
        """
        if torch.cuda.is_available():
            self.module.to("cuda")
        maskgit: MaskGit = self.module["maskgit"]
        codes = maskgit.sample(latents, ids, seed=seed, batch_size=8, **sampling.model_dump())
        n, samples, grid, _ = codes.shape
        pictures = self.tokenizer.decode(codes.reshape(-1, grid, grid))
        return pictures.reshape(n, samples, *pictures.shape[1:])


def _versions(pixels: np.ndarray, flip: bool, crops: int, seed: int) -> Iterator[np.ndarray]:
    """(n, size, size, 3) pictures as they are and mirrored, then random crops of both, one version at a time."""
    from phosphene.generate.ldm import random_crops
    from phosphene.train.sampling import Draws

    both = [pixels, pixels[:, :, ::-1]] if flip else [pixels]
    for number in range(1 + crops):
        for turn, p in enumerate(both):
            if not number:
                yield np.ascontiguousarray(p)
                continue
            x = torch.from_numpy(np.array(p)).permute(0, 3, 1, 2)
            cut = random_crops(x, Draws(seed, number, len(x), turn=turn), share=1.0).clamp(0, 1)
            yield np.ascontiguousarray(cut.permute(0, 2, 3, 1).numpy())


def _plain(config: Any) -> dict[str, Any]:
    return {k: v for k, v in dict(config).items() if not k.startswith("_")}
