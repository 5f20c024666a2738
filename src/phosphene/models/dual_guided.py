"""The dual-guided second stage: a first picture, noised, and taken back by diffusion under the tokens of an image and a text.

::

    first picture -> autoencoder -> z, noised to a level below the highest
    CLIP tokens of the seen picture (n, 257, 768)  -> a transformer T_vision at each place of the U-Net
    CLIP tokens of its description  (n,  77, 768)  -> another one,  T_text
    h + (1 - w) (T_vision(h) - h) + w (T_text(h) - h),    w the share of the text
    z -> 37 of 50 DDIM steps -> autoencoder -> picture (n, 512, 512, 3)

Versatile Diffusion (Xu et al. 2023) as Brain-Diffuser (Ozcelik and VanRullen 2023) mixes it; the two-stage decoder
(Veronese et al. 2024, section 3.3.2) takes it over. The U-Net is diffusers' own for pictures with, in place of each of its
transformers, one for each condition. diffusers' dual transformer and pipeline for it cannot run (0.42.1: their U-Net hands
on a mask that the transformer refuses).

>>> refiner = DualGuided.from_folder("weights/versatile", *unconditional(clip))       # doctest: +SKIP
>>> refiner.refine(first_stage, vision, text, ids, RefineConfig(), seed=0)            # doctest: +SKIP

In this file: the configuration; the network with its training loss and its sampler, :class:`DualUnet`; the fitted part of a
run, :class:`DualGuided`; and the reader of Versatile Diffusion's public weights, from a folder as diffusers lays them out::

    FOLDER/image_unet/config.json   diffusion_pytorch_model.safetensors (or .bin, read without running anything in it)
           text_unet/config.json    ...    only its transformers are read
           vae/config.json          ...
           scheduler/scheduler_config.json

The published repository is ``shi-labs/versatile-diffusion`` (MIT). Nothing here touches the network.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, cast

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import Config, validate
from phosphene.io.foreign import read_foreign
from phosphene.io.reading import reads
from phosphene.io.run_folder import read_json
from phosphene.models import bundled
from phosphene.models.batch_invariance import full_batches, group_noise
from phosphene.models.pixel_range import from_network, to_network
from phosphene.models.unet_sizes import check_sizes, diffusers_fields
from phosphene.training.checkpoint import ModulePart, load_module_state

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    from phosphene.training.sampling import Draws

__all__ = ["DualGuided", "DualGuidedConfig", "DualUnet", "RefineConfig", "unconditional"]


# -- configuration -----------------------------------------------------------------------------------------------------


class DualGuidedConfig(Config):
    """A U-Net over an autoencoder's latents that attends to CLIP tokens of pictures and of texts.

    The defaults are Versatile Diffusion's image flow with the context layers of its two image-making flows, as
    Brain-Diffuser uses them; its share of dropped conditions was not published, 0.1 is the custom.

    Examples
    --------
    >>> config = DualGuidedConfig.paper()
    >>> (config.vision_tokens, config.context), (config.text_tokens, config.context)
    ((257, 768), (77, 768))
    """

    size: int = Field(default=64, ge=1, description="rows and columns of a latent")
    channels: int = Field(default=4, ge=1, description="channels of a latent")
    widths: tuple[int, ...] = Field(default=(320, 640, 1280, 1280), min_length=1, description="channels per halving")
    attention: tuple[bool, ...] = Field(
        default=(True, True, True, False), description="which sizes attend to the conditions"
    )
    blocks: int = Field(default=2, ge=1, description="residual blocks per size on the way down; one more on the way up")
    heads: int = Field(default=8, ge=1, description="attention heads, a divisor of each width")
    groups: int = Field(default=32, ge=1, description="of group norms, a divisor of each width")
    context: int = Field(default=768, ge=1, description="values per token of a condition")
    vision_tokens: int = Field(default=257, ge=1, description="tokens of a picture: the class token and its patches")
    text_tokens: int = Field(default=77, ge=1, description="tokens of a text")
    noise_levels: int = Field(default=1000, ge=2, description="steps of the noising process")
    beta_start: float = Field(default=0.00085, gt=0, lt=1, description="variance added by its first step")
    beta_end: float = Field(default=0.012, gt=0, lt=1, description="and by its last; square roots rise evenly")
    mixing: Literal["either", "uniform"] = Field(
        default="either",
        description="share of the text in training: 0 or 1, a fair coin per picture, as flows are trained one at a time; "
        "or anything between",
    )
    drop_vision: float = Field(
        default=0.1, ge=0, lt=1, description="share of pictures trained without the vision condition"
    )
    drop_text: float = Field(default=0.1, ge=0, lt=1, description="without the text condition, independently")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_sizes(self)
        return self

    @classmethod
    def paper(cls) -> Self:
        """Brain-Diffuser and the two-stage decoder: 1,126,760,324 weights, 512 px pictures, CLIP ViT-L/14."""
        return cls()

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab: latents 4 x 8 x 8 of 32 px pictures, tokens 17 x 64 and 40 x 64; 1,347,028 weights."""
        return cls(
            size=8, widths=(48, 48), attention=(True, True), blocks=1, heads=4, groups=8, context=64, vision_tokens=17,
            text_tokens=40, mixing="uniform", drop_vision=0.3, drop_text=0.3,
        )  # fmt: skip

    @property
    def unet(self) -> dict[str, Any]:
        """The same sizes as fields of diffusers' UNet2DConditionModel."""
        return diffusers_fields(self)


class RefineConfig(Config):
    """How pictures are refined. The defaults are Brain-Diffuser's, which the two-stage decoder takes over."""

    steps: int = Field(default=50, ge=1, le=500, description="DDIM steps from pure noise")
    strength: float = Field(
        default=0.75, ge=0, le=1, description="share of these that are done: 0 keeps the first stage, 1 ignores it"
    )
    guidance: float = Field(
        default=7.5, ge=0, description="1 is the conditional prediction alone, 0 the unconditional one"
    )
    text_share: float = Field(
        default=0.4, ge=0, le=1, description="weight of the text; the vision condition gets the rest"
    )
    start: Literal["published", "aligned"] = Field(
        default="published",
        description="noise level of the first stage: one step above the first that is taken back, as published, or that one",
    )
    posterior: Literal["sample", "mean"] = Field(
        default="sample", description="latent of the first stage: drawn from the encoder's distribution, or its mean"
    )

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab: half the steps."""
        return cls(steps=25)

    @property
    def done(self) -> int:
        """Steps that are done with a first stage."""
        return steps_done(self.steps, self.strength)


def steps_done(steps: int, strength: float) -> int:
    """Steps taken back from a first stage: floor(strength x steps).

    Parameters
    ----------
    steps : int
        from pure noise
    strength : float
        share of them that is done, 0-1

    Returns
    -------
    int
        0 .. steps

    Examples
    --------
    >>> steps_done(50, 0.75), steps_done(100, 0.29)
    (37, 29)
    """
    # 0.29 x 100 is 28.999999999999996 in floating point.
    return int(round(strength * steps, 9))


# -- the network -------------------------------------------------------------------------------------------------------


# Parts of a picture's noise: for its latent under the encoder's distribution, and for the noising process.
POSTERIOR = 0
FORWARD = 1


class _Mixed(nn.Module):
    """Two transformers of one place, h + (1 - w) (T_vision(h) - h) + w (T_text(h) - h), w the share of the text."""

    def __init__(self, vision: nn.Module, text: nn.Module):
        super().__init__()
        self.vision = vision
        self.text = text

    def forward(
        self, h: Tensor, encoder_hidden_states: Tensor, cross_attention_kwargs: dict[str, Any], **_: Any
    ) -> tuple[Tensor]:
        text = cross_attention_kwargs["text"]
        share = cross_attention_kwargs["share"]

        # A transformer of no weight is not computed.
        if isinstance(share, float) and share == 0.0:
            return self.vision(h, encoder_hidden_states=encoder_hidden_states, return_dict=False)
        if isinstance(share, float) and share == 1.0:
            return self.text(h, encoder_hidden_states=text, return_dict=False)

        from_vision = self.vision(h, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
        from_text = self.text(h, encoder_hidden_states=text, return_dict=False)[0]

        return (from_vision + share * (from_text - from_vision),)  # of the shape of h


class DualUnet(nn.Module):
    """Predicts the noise in a latent from CLIP tokens of a picture and of a text.

    Parameters
    ----------
    **config : Any
        fields of :class:`DualGuidedConfig`; Versatile Diffusion's by default. Weights are drawn from torch's global
        generator

    Attributes
    ----------
    unet : UNet2DConditionModel
        of diffusers, with two transformers in place of each
    no_vision : Tensor of shape (vision_tokens, context)
        what stands for no picture: the tokens of a grey one. Zeros until :meth:`set_unconditional`
    no_text : Tensor of shape (text_tokens, context)
        what stands for no text: the tokens of an empty one. Zeros until :meth:`set_unconditional`

    Raises
    ------
    ConfigError
        For fields that do not exist or do not fit.

    References
    ----------
    Xu et al. 2023, "Versatile Diffusion"; Ozcelik and VanRullen 2023, "Brain-Diffuser", and its public code.

    Examples
    --------
    >>> network = DualUnet(**DualGuidedConfig.lab().model_dump()).eval()
    >>> sum(w.numel() for w in network.parameters())
    1347028
    >>> network.sample(np.zeros((1, 17, 64)), np.zeros((1, 40, 64)), ["a"], seed=0, steps=2).shape
    torch.Size([1, 4, 8, 8])
    """

    no_vision: Tensor
    no_text: Tensor

    def __init__(self, **config: Any):
        from diffusers.models.transformers.transformer_2d import Transformer2DModel
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        super().__init__()
        self.config = c = validate(DualGuidedConfig, config, "the configuration of the dual-guided U-Net")
        self.unet = UNet2DConditionModel(**c.unet)

        for name, vision in list(self.unet.named_modules()):
            if isinstance(vision, Transformer2DModel):
                sizes = {k: v for k, v in vision.config.items() if not k.startswith("_")}
                self.unet.set_submodule(name, _Mixed(vision, Transformer2DModel(**sizes)))

        self.register_buffer("no_vision", torch.zeros(c.vision_tokens, c.context))
        self.register_buffer("no_text", torch.zeros(c.text_tokens, c.context))

    def schedule(self) -> DDIMScheduler:
        """The noising process as diffusers' scheduler, with the published settings."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        return DDIMScheduler(
            num_train_timesteps=self.config.noise_levels, beta_start=self.config.beta_start,
            beta_end=self.config.beta_end, beta_schedule="scaled_linear", prediction_type="epsilon", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        )  # fmt: skip

    @cached_property
    def _noising(self) -> DDIMScheduler:
        return self.schedule()

    def set_unconditional(self, vision: np.ndarray | Tensor, text: np.ndarray | Tensor) -> None:
        """Set what stands for no condition.

        Parameters
        ----------
        vision : ndarray or Tensor of shape (vision_tokens, context)
            of no picture
        text : ndarray or Tensor of shape (text_tokens, context)
            of no text

        Raises
        ------
        DataError
            For tokens of another shape, or not finite.
        """
        for buffer, tokens, what in ((self.no_vision, vision, "vision"), (self.no_text, text, "text")):
            tokens = torch.as_tensor(tokens)
            if tokens.shape != buffer.shape or not bool(torch.isfinite(tokens).all()):
                raise DataError(
                    f"the unconditional {what} tokens must be finite and {tuple(buffer.shape)}, but have shape "
                    f"{tuple(tokens.shape)}; use those of the CLIP that conditions come from."
                )

            buffer.copy_(tokens)

    def forward(self, z: Tensor, t: Tensor | int, vision: Tensor, text: Tensor, share: Tensor | float) -> Tensor:
        """Predicted noise.

        Parameters
        ----------
        z : Tensor of shape (n, channels, size, size)
            noised latents
        t : Tensor or int
            (n,) or one int, noise level
        vision : Tensor of shape (n, vision_tokens, context)
            CLIP tokens of pictures
        text : Tensor of shape (n, text_tokens, context)
            CLIP tokens of texts
        share : Tensor or float
            weight of the text, 0-1, one for all or (n,); at 0.0 and 1.0 the other condition is not computed

        Returns
        -------
        Tensor of shape (n, channels, size, size)
            of variance 1 where the network is trained
        """
        if isinstance(share, Tensor):
            share = share.view(-1, 1, 1, 1)

        # The one argument that diffusers' U-Net hands on, as it is, to each of its transformers.
        mixed = {"text": text, "share": share}
        return self.unet(z, t, encoder_hidden_states=vision, cross_attention_kwargs=mixed, return_dict=False)[0]

    def guided(
        self, z: Tensor, t: int, vision: Tensor, text: Tensor, share: float = 0.4, guidance: float = 7.5
    ) -> Tensor:
        """Noise under classifier-free guidance: e_u + guidance (e_c - e_u), both conditions dropped together for e_u.

        Parameters
        ----------
        z : Tensor of shape (n, channels, size, size)
            noised latents
        t : int
            noise level
        vision : Tensor of shape (n, vision_tokens, context)
            CLIP tokens of pictures
        text : Tensor of shape (n, text_tokens, context)
            CLIP tokens of texts
        share : float, default 0.4
            weight of the text, 0-1
        guidance : float, default 7.5
            1 is the conditional prediction alone

        Returns
        -------
        Tensor of shape (n, channels, size, size)
            of variance 1 where the network is trained
        """
        if guidance == 1:
            return self(z, t, vision, text, share)

        # Both predictions in one pass: without conditions first, then with them.
        both_vision = torch.cat([self.no_vision.expand_as(vision), vision])  # (2 n, vision_tokens, context)
        both_text = torch.cat([self.no_text.expand_as(text), text])  # (2 n, text_tokens, context)
        e_u, e_c = self(torch.cat([z, z]), t, both_vision, both_text, share).split(len(z))

        return e_u + guidance * (e_c - e_u)

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of predicted noise at a noise level drawn per picture.

        Conditions are dropped per picture, vision and text independently (``drop_vision``, ``drop_text``), and the share
        of the text is drawn per picture as ``mixing`` says.

        Parameters
        ----------
        batch : dict[str, Tensor]
            ``latents`` (n, channels, size, size) scaled to variance 1; ``vision`` and ``text`` tokens; any float
        draws : Draws
            noise of this step

        Returns
        -------
        tuple[Tensor, dict[str, Any]]
            scalar, and ``late`` (error at the upper half of noise levels, where the picture's content is decided)
        """
        c = self.config
        z = batch["latents"].float()  # (n, channels, size, size)
        t = draws.integers(c.noise_levels)  # (n,)
        noise = draws.normal(*z.shape[1:])

        no_vision = draws.uniform() < c.drop_vision  # (n,)
        no_text = draws.uniform() < c.drop_text
        vision = torch.where(no_vision[:, None, None], self.no_vision, batch["vision"].float())
        text = torch.where(no_text[:, None, None], self.no_text, batch["text"].float())

        share = draws.uniform()  # (n,)
        if c.mixing == "either":
            share = (share < 0.5).float()

        noisy = self._noising.add_noise(z, noise, cast("torch.IntTensor", t))
        error = (self(noisy, t, vision, text, share).float() - noise).square()

        with torch.no_grad():
            late = 2 * t >= c.noise_levels
            logs = {"late": (error.mean((1, 2, 3)) * late).sum() / late.sum().clamp(min=1)}

        return error.mean(), logs

    @torch.no_grad()
    def sample(
        self,
        vision: np.ndarray | Tensor,
        text: np.ndarray | Tensor,
        ids: Sequence[Any],
        *,
        seed: int,
        first: np.ndarray | Tensor | None = None,
        steps: int = 50,
        strength: float = 0.75,
        guidance: float = 7.5,
        text_share: float = 0.4,
        start: Literal["published", "aligned"] = "published",
        batch_size: int = 8,
    ) -> Tensor:
        """Latents drawn from conditions by DDIM without noise on the way (eta 0), from a first stage where there is one.

        With tau_0 < tau_1 ... the noise levels visited and k = floor(strength x steps), the first stage is noised to tau_k
        ("published") or tau_(k-1) ("aligned"), and levels tau_(k-1) ... tau_0 are taken back. At k = steps, or without a
        first stage, it all starts from pure noise; at k = 0 the first stage comes back as it is.

        The noise of a picture is a function of `seed` and its id, not of which others are asked for or of their order.
        Only the rounding of the network's sums can depend on the place in a batch.

        Parameters
        ----------
        vision : ndarray or Tensor of shape (n, vision_tokens, context)
            CLIP tokens of pictures
        text : ndarray or Tensor of shape (n, text_tokens, context)
            CLIP tokens of texts
        ids : sequence
            n stimulus ids, unique or not; equal ids get equal noise
        seed : int
            of the noise
        first : ndarray or Tensor of shape (n, channels, size, size), optional
            scaled latents of the first stage
        steps : int, default 50
            as in :class:`RefineConfig`
        strength : float, default 0.75
            as in :class:`RefineConfig`
        guidance : float, default 7.5
            as in :class:`RefineConfig`
        text_share : float, default 0.4
            as in :class:`RefineConfig`
        start : {"published", "aligned"}, default "published"
            as in :class:`RefineConfig`
        batch_size : int, default 8
            pictures that go through the network at once; batches are filled up to it

        Returns
        -------
        Tensor of shape (n, channels, size, size), float32
            scaled, on the network's device

        Raises
        ------
        DataError
            Conditions or latents of another shape, not finite, or not one per id.
        ConfigError
            Options out of range.
        ModelError
            When the network itself gives NaN.
        """
        options = {"steps": steps, "strength": strength, "guidance": guidance, "text_share": text_share, "start": start}
        validate(RefineConfig, options, "the sampling of the dual-guided U-Net")
        if batch_size < 1:
            raise ConfigError(f"batch_size is the number of pictures per pass, at least 1, but is {batch_size}.")

        c = self.config
        device = self.no_text.device
        shape = (c.channels, c.size, c.size)
        vision = self._rows(vision, ids, (c.vision_tokens, c.context), "vision tokens")
        text = self._rows(text, ids, (c.text_tokens, c.context), "text tokens")

        z0 = None
        k = steps
        if first is not None:
            z0 = self._rows(first, ids, shape, "latents of the first stage")
            k = steps_done(steps, strength)
            if k == 0:
                return z0

        scheduler = self.schedule()
        scheduler.set_timesteps(steps)
        levels = scheduler.timesteps[steps - k :].tolist()  # tau_(k-1) ... tau_0

        drawn = torch.empty((len(ids), *shape), device=device)
        was_training = self.training
        self.eval()

        for part, filled in full_batches(len(ids), batch_size):
            noise = group_noise(seed, [ids[i] for i in filled], FORWARD, shape)
            z = torch.from_numpy(noise).to(device)  # (batch_size, channels, size, size)

            if z0 is not None and k < steps:
                level = scheduler.timesteps[steps - k - (start == "published")]
                z = scheduler.add_noise(z0[filled], z, cast("torch.IntTensor", level))

            for t in levels:
                e = self.guided(z, t, vision[filled], text[filled], float(text_share), float(guidance))
                z = scheduler.step(e, t, z, eta=0.0, return_dict=False)[0]

            drawn[part] = z[: part.stop - part.start]

        self.train(was_training)
        if not bool(torch.isfinite(drawn).all()):
            raise ModelError(
                "the dual-guided U-Net gives NaN or infinite latents: load its weights again, or train again at a lower "
                "learning rate."
            )

        return drawn

    def _rows(self, rows: Any, ids: Sequence[Any], shape: tuple[int, ...], what: str) -> Tensor:
        """One finite row for each id, on the network's device."""
        x = torch.as_tensor(rows).to(self.no_text.device, torch.float32)
        if tuple(x.shape) != (len(ids), *shape):
            raise DataError(
                f"{len(ids)} pictures need {what} of shape {(len(ids), *shape)}, but they have {tuple(x.shape)}; use those "
                "this network was trained on, one row per id."
            )

        if not bool(torch.isfinite(x).all()):
            bad = (~torch.isfinite(x.flatten(1))).any(1).nonzero().flatten().tolist()
            raise DataError(f"{what} of {len(bad)} pictures hold NaN or infinite values, first '{ids[bad[0]]}'.")

        return x


# -- the fitted part ---------------------------------------------------------------------------------------------------


class DualGuided(ModulePart):
    """The U-Net and the autoencoder of its latents, as a fitted part of a run.

    Parameters
    ----------
    module : nn.ModuleDict
        ``unet`` and ``autoencoder``
    config : mapping[str, Any]
        ``{"unet": fields of DualGuidedConfig, "autoencoder": fields of diffusers' AutoencoderKL}``
    """

    module: nn.ModuleDict

    @classmethod
    def of(cls, unet: DualUnet, autoencoder: AutoencoderKL) -> Self:
        """The part that holds two networks.

        Parameters
        ----------
        unet : DualUnet
            what predicts noise
        autoencoder : AutoencoderKL
            of diffusers

        Returns
        -------
        DualGuided
            both frozen, in evaluation mode

        Raises
        ------
        ModelError
            When the autoencoder's latents are not what the U-Net works on.
        """
        latent_channels = autoencoder.config["latent_channels"]
        if latent_channels != unet.config.channels:
            raise ModelError(
                f"the autoencoder's latents have {latent_channels} channels, but the U-Net works on "
                f"{unet.config.channels}; take two that were trained together."
            )

        fields = {k: v for k, v in dict(autoencoder.config).items() if not k.startswith("_")}
        config = {"unet": unet.config.model_dump(mode="json"), "autoencoder": json.loads(json.dumps(fields))}
        return cls(_finished(unet, autoencoder), config)

    @classmethod
    def bundled(cls) -> Self:
        """The bundled networks. Raises NotAvailable where they are not installed."""
        unet = cast(DualUnet, bundled.load("dual_guided"))
        autoencoder = cast("AutoencoderKL", bundled.load("kl"))

        return cls.of(unet, autoencoder)

    @classmethod
    def from_folder(cls, folder: str | Path, vision: np.ndarray, text: np.ndarray) -> Self:
        """Versatile Diffusion from a folder on this machine; nothing is ever fetched.

        Parameters
        ----------
        folder : str or Path
            with ``image_unet``, ``text_unet``, ``vae`` and ``scheduler``, as diffusers lays them out
        vision : ndarray of shape (vision tokens, context)
            of no picture (see :func:`unconditional`)
        text : ndarray of shape (text tokens, context)
            of no text

        Returns
        -------
        DualGuided
            all weights as published

        Raises
        ------
        ModelError
            Missing or damaged files, pickles that want to run anything, or sizes and weights that do not fit together.
        """
        return cls.of(*read_versatile_diffusion(Path(folder), vision, text))

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.Module:
        """Untrained networks of this configuration.

        Parameters
        ----------
        config : dict[str, Any]
            as for the class

        Returns
        -------
        nn.ModuleDict
            frozen, in evaluation mode
        """
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return _finished(DualUnet(**config["unet"]), AutoencoderKL(**config["autoencoder"]))

    @property
    def unet(self) -> DualUnet:
        """What predicts noise."""
        return cast(DualUnet, self.module["unet"])  # a ModuleDict forgets the classes of its modules

    @property
    def autoencoder(self) -> AutoencoderKL:
        """What makes latents of pictures, and pictures of latents."""
        return cast("AutoencoderKL", self.module["autoencoder"])

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        halvings = len(self.config["autoencoder"]["block_out_channels"]) - 1
        return int(self.config["unet"]["size"]) * 2**halvings

    @torch.no_grad()
    def refine(
        self,
        first_stage: np.ndarray | None,
        vision: np.ndarray,
        text: np.ndarray,
        ids: Sequence[Any],
        sampling: RefineConfig,
        seed: int,
        *,
        batch_size: int = 8,
    ) -> np.ndarray:
        """Pictures that look like the first stage and mean what the conditions say.

        Parameters
        ----------
        first_stage : ndarray of shape (n, height, width, 3) or None
            floats, 0-1, of any size; without it pictures are drawn from pure noise in all steps
        vision : ndarray of shape (n, vision tokens, context)
            CLIP tokens of pictures
        text : ndarray of shape (n, text tokens, context)
            CLIP tokens of texts
        ids : sequence
            n stimulus ids; the noise of a picture is a function of seed and id, not of the other pictures
        sampling : RefineConfig
            steps, strength, guidance, share of the text
        seed : int
            of the noise
        batch_size : int, default 8
            pictures that go through the networks at once; batches are filled up to it

        Returns
        -------
        ndarray of shape (n, size, size, 3), float32
            0-1

        Raises
        ------
        DataError
            Pictures or conditions of another shape or range, not finite, or not one per id.
        ModelError
            When a network gives NaN.
        """
        if torch.cuda.is_available():
            self.module.to("cuda")

        if first_stage is None:
            first = None
        else:
            first = self.encode(first_stage, ids, sampling, seed, batch_size=batch_size)

        z = self.unet.sample(
            vision, text, ids, seed=seed, first=first, batch_size=batch_size,
            **sampling.model_dump(exclude={"posterior"}),
        )  # fmt: skip

        return self.decode(z, batch_size=batch_size)

    @torch.no_grad()
    def encode(
        self, pixels: np.ndarray, ids: Sequence[Any], sampling: RefineConfig, seed: int, *, batch_size: int = 8
    ) -> Tensor:
        """Scaled latents of pictures.

        Parameters
        ----------
        pixels : ndarray of shape (n, height, width, 3)
            floats, 0-1, of any size
        ids : sequence
            n stimulus ids
        sampling : RefineConfig
            whether a latent is drawn from the encoder's distribution
        seed : int
            of the noise
        batch_size : int, default 8
            pictures that go through the network at once; batches are filled up to it

        Returns
        -------
        Tensor of shape (n, channels, rows, columns), float32
            on the CPU

        Raises
        ------
        DataError
            Pictures of another shape or range, or not one per id.
        """
        pixels = np.asarray(pixels)
        if pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) != len(ids) or pixels.dtype.kind != "f":
            raise DataError(
                f"first-stage pictures of {len(ids)} ids must be ({len(ids)}, height, width, 3) floats of 0-1, but are "
                f"{pixels.dtype} of shape {pixels.shape}."
            )

        if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise DataError(
                f"first-stage pictures must lie in 0-1 without NaN, but span {pixels.min():.3g} to {pixels.max():.3g}; "
                "clip them first."
            )

        network = self.autoencoder
        c = self.unet.config
        shape = (c.channels, c.size, c.size)
        x = to_network(_resized(pixels, self.size))  # (n, 3, size, size)
        latents = torch.empty((len(x), *shape))

        for part, filled in full_batches(len(x), batch_size):
            distribution = network.encode(x[filled].to(network.device), return_dict=False)[0]
            z = distribution.mean  # (batch_size, channels, rows, columns)
            if sampling.posterior == "sample":
                noise = group_noise(seed, [ids[i] for i in filled], POSTERIOR, shape)
                z = z + distribution.std * torch.from_numpy(noise).to(z.device)

            z = z * network.config["scaling_factor"]
            latents[part] = z[: part.stop - part.start].cpu()

        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor, *, batch_size: int = 8) -> np.ndarray:
        """Pictures of scaled latents.

        Parameters
        ----------
        latents : Tensor of shape (n, channels, rows, columns)
            in the units of :meth:`encode`
        batch_size : int, default 8
            pictures that go through the network at once; batches are filled up to it

        Returns
        -------
        ndarray of shape (n, size, size, 3), float32
            0-1

        Raises
        ------
        ModelError
            When the network gives NaN.
        """
        network = self.autoencoder
        pictures = np.empty((len(latents), self.size, self.size, 3), dtype=np.float32)

        for part, filled in full_batches(len(latents), batch_size):
            z = latents[filled] / network.config["scaling_factor"]
            x = network.decode(cast("torch.FloatTensor", z.to(network.device)), return_dict=False)[0]
            pictures[part] = from_network(x[: part.stop - part.start])

        if not np.isfinite(pictures).all():
            raise ModelError("the autoencoder gives NaN; load its weights again.")

        return pictures


def _finished(unet: DualUnet, autoencoder: AutoencoderKL) -> nn.ModuleDict:
    """Both frozen: torch multiplies in another order, with other roundings, where weights want a gradient."""
    return nn.ModuleDict({"unet": unet, "autoencoder": autoencoder}).eval().requires_grad_(False)


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """Bicubic as in Brain-Diffuser, in float32 where that rounds to 8 bits; clipped to 0-1."""
    if pixels.shape[1:3] == (side, side):
        return pixels

    out = np.empty((len(pixels), side, side, 3), dtype=np.float32)
    for i, picture in enumerate(pixels.astype(np.float32)):
        for c in range(3):
            plane = Image.fromarray(np.ascontiguousarray(picture[:, :, c]))  # PIL keeps floats in one plane only
            out[i, :, :, c] = np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC))

    return out.clip(0, 1)


class TokenEncoder(Protocol):
    """What makes tokens of pictures and of texts, such as :class:`phosphene.features.clip.ClipFeatures`."""

    @property
    def output(self) -> str:
        """``"tokens"`` where it gives tokens, not one vector for each picture or text."""
        ...

    def images(self, pixels: np.ndarray, /) -> np.ndarray:
        """Pictures (n, height, width, 3) to (n, vision tokens, context)."""
        ...

    def texts(self, texts: Sequence[str], /) -> np.ndarray:
        """Texts to (n, text tokens, context)."""
        ...


def unconditional(clip: TokenEncoder) -> tuple[np.ndarray, np.ndarray]:
    """What stands for no condition: tokens of a mid-grey picture and of the empty text.

    Parameters
    ----------
    clip : TokenEncoder
        what makes the conditions, with ``output="tokens"``

    Returns
    -------
    tuple[ndarray, ndarray]
        (vision tokens, context), (text tokens, context), float32

    Raises
    ------
    DataError
        When it gives one vector each.

    Notes
    -----
    The grey is passed as 8 bits, 127. As floats, newer versions of transformers scale it twice, and a black picture takes
    its place in the public pipelines.
    """
    if clip.output != "tokens":
        raise DataError(f'conditions are tokens, but {clip!r} gives one vector each; make it with output="tokens".')

    grey = np.full((1, 224, 224, 3), 127, dtype=np.uint8)
    return clip.images(grey)[0], clip.texts([""])[0]


# -- public weights ----------------------------------------------------------------------------------------------------


_WEIGHTS = "diffusion_pytorch_model"  # the file's name without its ending
_PARTS = ("image_unet", "text_unet", "vae")
_TRANSFORMER = re.compile(r"((?:down_blocks\.\d+|mid_block|up_blocks\.\d+)\.attentions\.\d+)\.(.+)")

# The noising process that is expected, by diffusers' names.
_SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}

# Attention inside autoencoders had other names until 2023.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@reads("folder", ModelError)
def read_versatile_diffusion(folder: Path, vision: np.ndarray, text: np.ndarray) -> tuple[DualUnet, AutoencoderKL]:
    """U-Net and autoencoder of a folder, frozen, in evaluation mode, float32.

    Parameters
    ----------
    folder : Path
        as in the first lines of this file
    vision : ndarray of shape (vision tokens, context)
        of no picture
    text : ndarray of shape (text tokens, context)
        of no text

    Returns
    -------
    tuple[DualUnet, AutoencoderKL]
        with the weights of the folder

    Raises
    ------
    ModelError
        Missing or damaged files, or sizes and weights that do not fit together.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    config = versatile_diffusion_config(folder, len(vision), len(text))
    fields = _component(folder, "vae", "AutoencoderKL")

    with torch.device("meta"):
        unet = DualUnet(**config.model_dump(mode="json"))
        autoencoder = cast(AutoencoderKL, AutoencoderKL.from_config(fields))

    for network in (unet, autoencoder):
        network.to_empty(device="cpu").eval().requires_grad_(False)

    # All of the image U-Net, and the transformers of the text U-Net.
    tensors = {"no_vision": unet.no_vision, "no_text": unet.no_text}
    for name, tensor in _weights(folder / "image_unet").items():
        tensors[_placed(name, "vision")] = tensor

    for name, tensor in _weights(folder / "text_unet", _is_of_transformer).items():
        tensors[_placed(name, "text")] = tensor

    _fill(unet, tensors, f"the U-Net of {folder}")
    unet.set_unconditional(vision, text)

    tensors = {_renamed(name): tensor for name, tensor in _weights(folder / "vae").items()}
    _fill(autoencoder, tensors, f"{folder}/vae")

    return unet, autoencoder


def versatile_diffusion_config(folder: Path, vision_tokens: int, text_tokens: int) -> DualGuidedConfig:
    """Sizes of the U-Net in a folder.

    Parameters
    ----------
    folder : Path
        as in the first lines of this file
    vision_tokens : int
        of a picture
    text_tokens : int
        of a text

    Returns
    -------
    DualGuidedConfig
        as its configurations have it

    Raises
    ------
    ModelError
        When a file is missing, its two U-Nets do not fit each other, or one has what this network has not.
    """
    image = _component(folder, "image_unet", "UNet2DConditionModel")
    other = _component(folder, "text_unet", "UNetFlatConditionModel")
    schedule = read_json(folder / "scheduler" / "scheduler_config.json")
    came = {key: schedule.get(key, expected) for key, expected in _SCHEDULE.items()}

    if came != _SCHEDULE:
        raise ModelError(f"{folder}/scheduler should be Versatile Diffusion's, {_SCHEDULE}, but is {came}.")

    try:
        config = DualGuidedConfig(
            # What the converter of the public weights leaves open: they were trained on 512 px.
            size=image.get("sample_size") or 64, channels=image["in_channels"], widths=tuple(image["block_out_channels"]),
            attention=tuple("CrossAttn" in kind for kind in image["down_block_types"]), blocks=image["layers_per_block"],
            heads=image["attention_head_dim"], groups=image.get("norm_num_groups", 32), context=image["cross_attention_dim"],
            vision_tokens=vision_tokens, text_tokens=text_tokens,
            beta_start=schedule["beta_start"], beta_end=schedule["beta_end"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder} does not describe Versatile Diffusion's U-Net: {error}.") from error

    _same_unet(config, image, folder / "image_unet")
    alike = ("block_out_channels", "layers_per_block", "attention_head_dim", "cross_attention_dim", "norm_num_groups")
    if differs := [k for k in alike if k in other and k in image and other[k] != image[k]]:
        pairs = ", ".join(f"{k} {image[k]} and {other[k]}" for k in differs)
        raise ModelError(
            f"image_unet and text_unet in {folder} do not fit each other: {pairs}. They are of two models."
        )

    return config


@reads("folder", ModelError)
def versatile_diffusion_digest(folder: Path) -> str:
    """SHA-256 of weights and configurations of a folder: what results made with it are filed under."""
    h = hashlib.sha256()
    for part in _PARTS:
        h.update((folder / part / "config.json").read_bytes())
        with open(_file(folder / part), "rb") as handle:
            h.update(hashlib.file_digest(handle, "sha256").digest())

    h.update((folder / "scheduler" / "scheduler_config.json").read_bytes())
    return h.hexdigest()


def _same_unet(config: DualGuidedConfig, image: dict[str, Any], where: Path) -> None:
    """Refuse a U-Net with settings that shapes of weights do not show, such as another activation."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    def settings(fields: dict[str, Any]) -> dict[str, Any]:
        """All settings of a U-Net of these fields, defaults included; JSON knows no tuples."""
        network = cast(UNet2DConditionModel, UNet2DConditionModel.from_config(fields))

        out = {}
        for name, value in dict(network.config).items():
            if name.startswith("_"):
                continue

            if isinstance(value, tuple):
                value = list(value)

            out[name] = value

        return out

    with torch.device("meta"):
        ours = settings(config.unet)
        theirs = settings(image)

    differs = sorted(name for name in ours if ours[name] != theirs[name] and name != "sample_size")
    if differs:
        differences = ", ".join(f"{name} is {theirs[name]}, not {ours[name]}" for name in differs[:4])
        raise ModelError(f"{where} is not Versatile Diffusion's U-Net: {differences}.")


def _component(folder: Path, part: str, kind: str) -> dict[str, Any]:
    """Configuration of one part of the folder, which must be of this class of diffusers."""
    config = read_json(folder / part / "config.json")
    if config.get("_class_name") != kind:
        raise ModelError(
            f"{folder / part} holds a '{config.get('_class_name')}', but a '{kind}' of diffusers was expected; give the "
            "folder of Versatile Diffusion that holds image_unet, text_unet, vae and scheduler."
        )

    return config


def _placed(name: str, condition: str) -> str:
    """Name in our network of a weight of one of the U-Nets: each transformer stands next to the other condition's."""
    match = _TRANSFORMER.match(name)
    if match:
        return f"unet.{match[1]}.{condition}.{match[2]}"

    return f"unet.{name}"


def _is_of_transformer(name: str) -> bool:
    return bool(_TRANSFORMER.match(name))


def _renamed(name: str) -> str:
    """Today's name of a weight of the autoencoder."""
    for old, new in _RENAMED.items():
        name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)

    return name


def _file(folder: Path) -> Path:
    """The file of weights in a folder of one part."""
    for suffix in (".safetensors", ".bin"):
        file = folder / f"{_WEIGHTS}{suffix}"
        if file.is_file():
            return file

    raise ModelError(
        f"{folder} should hold {_WEIGHTS}.safetensors or .bin, but holds neither. Get the checkpoint again."
    )


def _weights(folder: Path, is_needed: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """Needed weights of one part of the folder, by name, all finite."""
    from safetensors import SafetensorError, safe_open

    file = _file(folder)
    tensors = {}

    if file.suffix == ".bin":
        for name, tensor in read_foreign(file).items():
            if is_needed(name):
                tensors[name] = tensor
    else:
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118  a handle is no mapping
                    if is_needed(name):
                        tensors[name] = handle.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is no valid safetensors file ({error}). Get the checkpoint again.") from error

    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"'{name}' in {file} holds NaN or infinite values. Get the checkpoint again.")

    return tensors


def _fill(network: nn.Module, tensors: dict[str, Tensor], owner: str) -> None:
    """Put tensors into a network, whole or not at all."""
    arrays = {}
    for name, tensor in tensors.items():
        # numpy has no bfloat16; what else there is stays as it is, so that nothing is in memory twice.
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()

        arrays[name] = tensor.numpy()

    load_module_state(network, arrays, owner)
