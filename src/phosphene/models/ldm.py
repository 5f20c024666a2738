"""Latent diffusion: pictures from brain tokens or from labels, through a U-Net over a tokenizer's latents.

::

    tokens (n, count, width) -> context (n, 77, 512) -> cross-attention of the U-Net
                                        |-> one vector, added to the embedding of the time
    noise (n, 3, 64, 64) -> PLMS, 251 calls of the U-Net -> latents -> VQ-f4's decoder -> pictures (n, 256, 256, 3)

MinD-Vis (Chen et al. 2023, "Seeing beyond the brain", section 3.2) and CAD (Sun et al. 2023, section 3.3, "time steps
conditioning") draw pictures like this. The U-Net was trained with labels first (Rombach et al. 2022), and both exchange
the label for a response:

>>> public = Ldm.from_public("model.ckpt")                   # label to picture, as published          # doctest: +SKIP
>>> ldm = public.with_tokens(count=291, width=1024, seed=0)  # the same, from a response's tokens      # doctest: +SKIP
>>> ldm.network.tune("cross_attention")                      # what training changes from here on      # doctest: +SKIP
>>> ldm.sample(tokens, ids, LdmSampling(), seed=0)           # (n, 5, 256, 256, 3)                     # doctest: +SKIP

In this file: the configuration; the network with its training loss and its sampler, :class:`LdmUnet`; the fitted part of
a run, :class:`Ldm`; and the converters of public weights. A converter takes all tensors of its part of a public file and
refuses missing ones, extra ones, and ones of another shape; nothing is loaded in part.

===================  ====================================================================  ==============================
converter            public file                                                           for
===================  ====================================================================  ==============================
`public_network`     ``model.ckpt`` of CompVis' ``cin256-v2``; tuned ones of MinD-Vis      :class:`LdmUnet`
`public_tokenizer`   the same                                                              VQ-f4, diffusers' VQModel
`tuned_encoder`      ``finetuned.pth``, ``checkpoint_best.pth`` of MinD-Vis                the brain encoder, by its names
===================  ====================================================================  ==============================
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.io.config import Config, validate
from phosphene.io.foreign import must_fit, read_foreign
from phosphene.io.reading import reads
from phosphene.models import bundled
from phosphene.models.batch_invariance import full_batches, picture_rng
from phosphene.models.pixel_range import from_network, to_network
from phosphene.models.unet_sizes import check_sizes, diffusers_fields
from phosphene.training.checkpoint import ModulePart, load_module_state
from phosphene.types.identity import few

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel
    from diffusers.schedulers.scheduling_pndm import PNDMScheduler

    from phosphene.training.sampling import Draws

__all__ = ["BrainTokens", "Labels", "Ldm", "LdmConfig", "LdmSampling", "LdmUnet", "random_crops"]


# -- configuration -----------------------------------------------------------------------------------------------------


class BrainTokens(Config):
    """The condition is a response's tokens, mapped to fewer tokens, then to the width of the context.

    The defaults are MinD-Vis' for subject 3 of GOD.
    """

    kind: Literal["tokens"] = "tokens"
    count: int = Field(
        default=291, ge=1, description="tokens per response: patches of the brain encoder, without its class token"
    )
    width: int = Field(default=1024, ge=1, description="values per token")
    mapped: int | None = Field(
        default=77, ge=1, description="tokens of the context; as many as came, unmixed, when null"
    )


class Labels(Config):
    """The condition is what a picture shows: one learned token for each kind of label."""

    kind: Literal["labels"] = "labels"
    classes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1001,),
        min_length=1,
        description="classes of each kind; the public network: ImageNet's 1000 and 'none of them'",
    )


class LdmConfig(Config):
    """A U-Net over a tokenizer's latents, conditioned by cross-attention and, for brains, once more with the time.

    The defaults are those of MinD-Vis and CAD: CompVis' label-to-image network with the label replaced.

    Examples
    --------
    >>> LdmConfig.paper().context_tokens, LdmConfig.published().context_tokens, LdmConfig.lab().context_tokens
    (77, 1, 2)
    >>> LdmConfig.lab().with_tokens(65, 128, mapped=16).condition.count
    65
    """

    size: int = Field(default=64, ge=1, description="rows and columns of a latent")
    channels: int = Field(default=3, ge=1, description="channels of a latent")
    widths: tuple[int, ...] = Field(default=(192, 384, 576, 960), min_length=1, description="channels per halving")
    attention: tuple[bool, ...] = Field(
        default=(False, True, True, True), description="which sizes attend to the condition"
    )
    blocks: int = Field(default=2, ge=1, description="residual blocks per size on the way down; one more on the way up")
    heads: int = Field(default=1, ge=1, description="attention heads, a divisor of each width")
    groups: int = Field(default=32, ge=1, description="of group norms, a divisor of each width")
    context: int = Field(default=512, ge=1, description="values per token of the context")
    condition: Annotated[BrainTokens | Labels, Field(discriminator="kind")] = Field(
        default=BrainTokens(), description="what pictures are drawn from"
    )
    time: Literal["convolutions", "mean", "none"] = Field(
        default="convolutions",
        description="the second conditioning, added to the embedding of the time: all context tokens mixed into one by two "
        "convolutions, their mean, or none; then a linear layer",
    )
    zero_time: bool = Field(
        default=False,
        description="start the second conditioning at zero, so that tuning starts from what was learned; code: false",
    )
    noise_levels: int = Field(default=1000, ge=2, description="steps of the noising process")
    beta_start: float = Field(default=0.0015, gt=0, lt=1, description="variance added by its first step")
    beta_end: float = Field(default=0.0195, gt=0, lt=1, description="and by its last; square roots rise evenly")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_sizes(self)
        return self

    @classmethod
    def paper(cls) -> Self:
        """MinD-Vis and CAD on GOD's subject 3: 401,317,566 weights, and 578,382 to map 291 x 1024 tokens to 77 x 512."""
        return cls()

    @classmethod
    def published(cls) -> Self:
        """The public ``cin256-v2`` they start from: one of 1001 labels in place of a brain; 401,433,091 weights."""
        return cls(condition=Labels(), time="none")

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab: latents 4 x 8 x 8 of 32 px pictures, from main category and place; 1,353,156 weights."""
        return cls(
            size=8, channels=4, widths=(48, 64), attention=(True, True), blocks=1, heads=4, groups=8, context=64,
            condition=Labels(classes=(16, 10)), time="none",
        )  # fmt: skip

    def with_tokens(
        self,
        count: int,
        width: int,
        *,
        mapped: int | None = 77,
        time: Literal["convolutions", "mean", "none"] = "convolutions",
        zero_time: bool = False,
    ) -> Self:
        """The same U-Net drawing from brain tokens.

        Parameters
        ----------
        count : int
            tokens of a response
        width : int
            values of each token
        mapped : int or None, default 77
            tokens of the context; as many as came, unmixed, when None
        time : {"convolutions", "mean", "none"}, default "convolutions"
            how the second conditioning, the one that joins the time, makes one vector of the context
        zero_time : bool, default False
            whether the second conditioning starts at zero

        Returns
        -------
        LdmConfig
            all other fields as here
        """
        condition = BrainTokens(count=count, width=width, mapped=mapped)
        return self.model_copy(update={"condition": condition, "time": time, "zero_time": zero_time})

    @property
    def context_tokens(self) -> int:
        """Tokens of the context, which cross-attention takes keys and values from."""
        if isinstance(self.condition, Labels):
            return len(self.condition.classes)

        return self.condition.mapped or self.condition.count

    @property
    def time_width(self) -> int:
        """Values of the embedding of the time."""
        return 4 * self.widths[0]

    @property
    def unet(self) -> dict[str, Any]:
        """The same sizes as fields of diffusers' UNet2DConditionModel."""
        if self.time == "none":
            embedding = None
        else:
            embedding = "identity"  # a vector that is added, as it is, to the embedding of the time

        return {**diffusers_fields(self), "class_embed_type": embedding}


class LdmSampling(Config):
    """How pictures are drawn: PLMS, without guidance. The defaults are those of MinD-Vis and CAD."""

    steps: int = Field(default=250, ge=2, le=500, description="PLMS steps; the U-Net is called once more than that")
    samples: int = Field(default=5, ge=1, description="pictures per response")

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab: a tenth of the steps."""
        return cls(steps=25)


# The published first stage, VQ-f4, as fields of diffusers' VQModel: 256 px pictures as 3 x 64 x 64; 55,322,782 weights.
VQ_F4: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [128, 256, 512],
    "layers_per_block": 2,
    "latent_channels": 3,
    "sample_size": 256,
    "num_vq_embeddings": 8192,
    "vq_embed_dim": 3,
    "norm_num_groups": 32,
    "scaling_factor": 1.0,  # latents were diffused as they are; diffusers' own default is of another model
}


# -- the network -------------------------------------------------------------------------------------------------------


Tuned = Literal["cross_attention", "frozen", "all"]


class _Mapper(nn.Module):
    """Tokens mixed into fewer by two steps without a nonlinearity, then each mapped to another width."""

    def __init__(self, count: int, mapped: int | None, width: int, out: int):
        super().__init__()
        half = max(1, count // 2)

        # A convolution of length one, over tokens as channels, as the public checkpoints hold it.
        steps: list[nn.Module] = []
        if mapped:
            steps = [nn.Conv1d(count, half, 1), nn.Conv1d(half, mapped, 1)]

        self.tokens = nn.Sequential(*steps)
        self.values = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.tokens(x)  # (n, mapped, width)
        return self.values(mixed)  # (n, mapped, out)


class _LabelTokens(nn.Module):
    """One learned token for each kind of label: (n, kinds) integers to (n, kinds, out)."""

    def __init__(self, classes: tuple[int, ...], out: int):
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(n, out) for n in classes)

    def forward(self, labels: Tensor) -> Tensor:
        columns = zip(self.embeddings, labels.unbind(1), strict=True)
        return torch.stack([embedding(column) for embedding, column in columns], 1)  # (n, kinds, out)


class LdmUnet(nn.Module):
    """What predicts the noise in a latent, from brain tokens or from labels, with its training loss and its sampler.

    Parameters
    ----------
    **config : Any
        fields of :class:`LdmConfig`; those of MinD-Vis and CAD by default. Weights are drawn from torch's global
        generator

    Attributes
    ----------
    unet : UNet2DConditionModel
        of diffusers
    condition : nn.Module
        what makes the context
    time : nn.Module or None
        the second conditioning; None without one
    signal : array of shape (noise_levels,)
        share of a latent's variance that is left after so many steps of noising

    Raises
    ------
    ConfigError
        For fields that do not exist or do not fit.

    Examples
    --------
    >>> network = LdmUnet(**LdmConfig.lab().model_dump(mode="json"))
    >>> sum(w.numel() for w in network.parameters())
    1353156
    >>> network(torch.zeros(2, 4, 8, 8), torch.tensor([0, 999]), torch.tensor([[3, 1], [0, 9]])).shape
    torch.Size([2, 4, 8, 8])
    """

    signal: Tensor

    def __init__(self, **config: Any):
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        super().__init__()
        self.config = c = validate(LdmConfig, config, "the configuration of latent diffusion")
        self.unet = UNet2DConditionModel(**c.unet)

        if isinstance(c.condition, Labels):
            self.condition: nn.Module = _LabelTokens(c.condition.classes, c.context)
        else:
            self.condition = _Mapper(c.condition.count, c.condition.mapped, c.condition.width, c.context)

        self.time: _Mapper | None = None
        if c.time != "none":
            if c.time == "convolutions":
                mapped = 1
            else:
                mapped = None

            self.time = _Mapper(c.context_tokens, mapped, c.context, c.time_width)

            if c.zero_time:
                nn.init.zeros_(self.time.values.weight)
                nn.init.zeros_(self.time.values.bias)

        betas = _betas(c)  # (noise_levels,)
        self.register_buffer("signal", (1 - betas).cumprod(0).float(), persistent=False)

    def context(self, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """The two conditionings.

        Parameters
        ----------
        condition : Tensor of shape (n, count, width), float
            brain tokens; or (n, kinds) integers, labels

        Returns
        -------
        tuple[Tensor, Tensor or None]
            (n, context_tokens, context), and (n, time_width) or None

        Raises
        ------
        DataError
            For a condition of another shape.
        """
        c = self.config.condition
        if isinstance(c, Labels):
            kind = "labels"
            shape = (len(c.classes),)
        else:
            kind = "brain tokens"
            shape = (c.count, c.width)

        if tuple(condition.shape[1:]) != shape:
            raise DataError(
                f"this network draws from {kind} of shape (n, {', '.join(map(str, shape))}), but {tuple(condition.shape)} came; "
                "condition it as it was trained, or make it anew with with_tokens."
            )

        tokens = self.condition(condition)  # (n, context_tokens, context)
        if self.time is None:
            return tokens, None

        if self.config.time == "mean":
            pooled = tokens.mean(1, keepdim=True)  # (n, 1, context)
        else:
            pooled = tokens

        return tokens, self.time(pooled)[:, 0]  # (n, time_width)

    def denoise(self, z: Tensor, time: Tensor, context: tuple[Tensor, Tensor | None]) -> Tensor:
        """The noise in latents, from both conditionings.

        Parameters
        ----------
        z : Tensor of shape (n, channels, size, size)
            noised latents
        time : Tensor of shape (n,)
            int64, 0 .. noise_levels - 1
        context : tuple[Tensor, Tensor or None]
            what :meth:`context` gives

        Returns
        -------
        Tensor of shape (n, channels, size, size)
            of variance 1 where the network is trained
        """
        tokens, vector = context
        return self.unet(z, time, tokens, class_labels=vector).sample

    def forward(self, z: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """The noise in latents, from brain tokens or labels.

        Parameters
        ----------
        z : Tensor of shape (n, channels, size, size)
            noised latents
        time : Tensor of shape (n,)
            int64, 0 .. noise_levels - 1
        condition : Tensor of shape (n, count, width) or (n, kinds)
            as :meth:`context` takes it

        Returns
        -------
        Tensor of shape (n, channels, size, size)
            of variance 1 where the network is trained
        """
        return self.denoise(z, time, self.context(condition))

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of the noise, at a time drawn for each picture (CAD, eq. 9).

            z_t = sqrt(signal_t) z + sqrt(1 - signal_t) e,    loss = |e - e'(z_t, t, condition)|^2

        Gradients reach the tokens, so that a brain encoder before it learns from the same loss.

        Parameters
        ----------
        batch : dict[str, Tensor]
            ``latents`` (n, channels, size, size), as :meth:`Ldm.encode` gives them; ``tokens`` (n, count, width) or
            ``labels`` (n, kinds)
        draws : Draws
            noise of this step

        Returns
        -------
        tuple[Tensor, dict[str, Any]]
            scalar; and ``early`` and ``late``, the same over the pictures whose signal is above and below one half
        """
        if isinstance(self.config.condition, Labels):
            condition = batch["labels"]
        else:
            condition = batch["tokens"]

        z = batch["latents"].float()  # (n, channels, size, size)
        time = draws.integers(self.config.noise_levels)  # (n,)
        noise = draws.normal(*z.shape[1:])

        signal = self.signal[time][:, None, None, None]  # (n, 1, 1, 1)
        noisy = signal.sqrt() * z + (1 - signal).sqrt() * noise

        guess = self(noisy, time, condition)
        error = F.mse_loss(guess.float(), noise, reduction="none").mean((1, 2, 3))  # (n,)

        with torch.no_grad():
            early = (signal[:, 0, 0, 0] > 0.5).float()
            logs = {
                "early": (error * early).sum() / early.sum().clamp(min=1),
                "late": (error * (1 - early)).sum() / (1 - early).sum().clamp(min=1),
            }

        return error.mean(), logs

    def tune(self, what: Tuned = "cross_attention") -> list[str]:
        """Leave open to training what is tuned to a brain, and freeze the rest.

        Parameters
        ----------
        what : {"cross_attention", "frozen", "all"}, default "cross_attention"
            ``cross_attention``, the heads that attend to the context with the norms before them, the code's choice and
            that of CAD's section 4.2.2; ``frozen``, nothing of the U-Net, CAD's section 3.3; or ``all``. Both
            conditionings are open in any case

        Returns
        -------
        list of str
            names of the open weights
        """
        for name, weight in self.named_parameters():
            # Residual blocks have a norm2 of their own, which is not meant.
            is_head = "transformer_blocks" in name and (".attn2." in name or ".norm2." in name)
            is_conditioning = not name.startswith("unet.")
            weight.requires_grad_(is_conditioning or what == "all" or (what == "cross_attention" and is_head))

        return [name for name, weight in self.named_parameters() if weight.requires_grad]

    def with_tokens(self, count: int, width: int, *, seed: int, **changes: Any) -> LdmUnet:
        """A network with this U-Net's weights that draws from brain tokens; both conditionings are drawn anew.

        Parameters
        ----------
        count : int
            tokens of a response
        width : int
            values of each token
        seed : int
            of the new weights
        **changes : Any
            ``mapped``, ``time``, ``zero_time`` of :meth:`LdmConfig.with_tokens`

        Returns
        -------
        LdmUnet
            on the device of this one

        Examples
        --------
        >>> network = LdmUnet(**LdmConfig.lab().model_dump(mode="json")).with_tokens(65, 128, seed=0, mapped=16)
        >>> [k for k, w in network.named_parameters() if not k.startswith("unet.")][:3]
        ['condition.tokens.0.weight', 'condition.tokens.0.bias', 'condition.tokens.1.weight']
        """
        config = self.config.with_tokens(count, width, **changes)

        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            network = LdmUnet(**config.model_dump(mode="json"))

        network.unet.load_state_dict(self.unet.state_dict())
        return network.to(self.signal.device)

    def schedule(self) -> PNDMScheduler:
        """PLMS as diffusers' scheduler, with the published settings."""
        from diffusers.schedulers.scheduling_pndm import PNDMScheduler

        c = self.config
        return PNDMScheduler(
            num_train_timesteps=c.noise_levels, beta_start=c.beta_start, beta_end=c.beta_end,
            beta_schedule="scaled_linear", skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1,
            timestep_spacing="leading", prediction_type="epsilon",
        )  # fmt: skip

    @torch.no_grad()
    def sample(
        self,
        condition: np.ndarray | Tensor,
        ids: Sequence[Any],
        *,
        seed: int,
        steps: int = 250,
        samples: int = 5,
        batch_size: int = 20,
    ) -> Tensor:
        """Latents drawn from noise by PLMS, in the units of the batches it was trained on.

        Latent s of a stimulus is a function of the weights, its condition, `seed`, its id and s, not of which other
        stimuli are asked for, of their order, or of the number of samples. Only the rounding of the network's sums can
        depend on the place in a batch (never on one CPU thread, at a fixed `batch_size`).

        Parameters
        ----------
        condition : ndarray or Tensor of shape (n, count, width)
            floats, brain tokens; or (n, kinds) integers, labels
        ids : sequence
            n stimulus ids, unique or not; equal ids get equal noise
        seed : int
            of all noise
        steps : int, default 250
            of PLMS; the U-Net is called once more than that
        samples : int, default 5
            latents per condition
        batch_size : int, default 20
            latents that go through the network at once; batches are filled up to it

        Returns
        -------
        Tensor of shape (n, samples, channels, size, size), float32
            on the CPU

        Raises
        ------
        DataError
            A condition of another shape, not finite, out of the known labels, or not one per id.
        ConfigError
            Steps, samples or batch size out of range.
        ModelError
            When the network gives NaN.

        References
        ----------
        Liu et al. 2022, "Pseudo numerical methods for diffusion models on manifolds".
        """
        validate(LdmSampling, {"steps": steps, "samples": samples}, "the sampling of latent diffusion")
        if batch_size < 1:
            raise ConfigError(f"batch_size is the number of latents per pass, at least 1, but is {batch_size}.")

        c = self.config
        x = self._checked(condition, ids)
        shape = (c.channels, c.size, c.size)
        latents = torch.empty(len(x) * samples, *shape)

        was_training = self.training
        self.eval()

        for part, filled in full_batches(len(latents), batch_size):
            # Latent number i is sample i % samples of condition i // samples.
            rows = [i // samples for i in filled]
            noise = []
            for i, row in zip(filled, rows, strict=True):
                rng = picture_rng(seed, ids[row], i % samples)
                noise.append(rng.standard_normal(shape, np.float32))

            z = torch.from_numpy(np.stack(noise)).to(x.device)  # (batch_size, channels, size, size)
            context = self.context(x[rows])

            # PLMS remembers its last predictions, so each batch has a scheduler of its own.
            plms = self.schedule()
            plms.set_timesteps(steps)

            assert plms.timesteps is not None
            for time in plms.timesteps.tolist():
                times = torch.full((batch_size,), time, device=x.device)
                noise_guess = self.denoise(z, times, context)
                z = plms.step(noise_guess, time, z, return_dict=False)[0]

            latents[part] = z[: part.stop - part.start].cpu()

        self.train(was_training)
        if not bool(latents.isfinite().all()):
            raise ModelError(
                "latents became NaN or infinite while they were drawn: the network is broken. Load its weights again, or "
                "train again at a lower learning rate."
            )

        return latents.view(len(x), samples, *shape)

    def _checked(self, condition: np.ndarray | Tensor, ids: Sequence[Any]) -> Tensor:
        """The condition on the network's device, floats or integers as it needs them."""
        c = self.config.condition
        x = torch.as_tensor(condition)
        if len(x) != len(ids):
            raise DataError(f"{len(x)} conditions came with {len(ids)} ids; give one a stimulus.")

        if isinstance(c, Labels):
            if x.is_floating_point() or x.shape[1:] != (len(c.classes),):
                raise DataError(
                    f"this network draws from integer labels of shape (n, {len(c.classes)}), but {x.dtype} of shape "
                    f"{tuple(x.shape)} came."
                )

            is_unknown = (x < 0) | (x >= torch.tensor(c.classes, device=x.device))  # (n, kinds)
            bad = is_unknown.any(1).nonzero().flatten().tolist()
            if bad:
                raise DataError(
                    f"labels of {len(bad)} stimuli are of no class, first those of '{ids[bad[0]]}': {x[bad[0]].tolist()}; "
                    f"there are {', '.join(map(str, c.classes))} of each kind, counted from 0."
                )

            return x.to(self.signal.device, torch.int64)

        bad = (~torch.isfinite(x)).flatten(1).any(1).nonzero().flatten().tolist()
        if bad:
            raise DataError(
                f"tokens of {len(bad)} stimuli hold NaN or infinite values, first those of '{ids[bad[0]]}'."
            )

        return x.to(self.signal.device, torch.float32)


# -- the fitted part ---------------------------------------------------------------------------------------------------


class Ldm(ModulePart):
    """The U-Net with its conditionings, and the tokenizer of its latents, as a fitted part of a run.

    Parameters
    ----------
    module : nn.ModuleDict
        ``network`` and ``tokenizer``
    config : mapping[str, Any]
        ``{"network": fields of LdmConfig, "tokenizer": fields of diffusers' VQModel}``

    Notes
    -----
    Latents are the tokenizer's before they are quantised, times its ``scaling_factor`` (1 as published, one over their
    standard deviation in the in-silico lab). They are quantised when they are decoded, as published.
    """

    module: nn.ModuleDict

    @classmethod
    def of(cls, network: LdmUnet, tokenizer: VQModel) -> Self:
        """The part that holds two networks.

        Parameters
        ----------
        network : LdmUnet
            what predicts noise
        tokenizer : VQModel
            of diffusers

        Returns
        -------
        Ldm
            both in evaluation mode

        Raises
        ------
        ModelError
            When the tokenizer's latents are not what the U-Net works on.
        """
        latent_channels = tokenizer.config["latent_channels"]
        if latent_channels != network.config.channels:
            raise ModelError(
                f"the tokenizer's latents have {latent_channels} channels, but the U-Net works on "
                f"{network.config.channels}; take two that were trained together."
            )

        fields = {k: v for k, v in dict(tokenizer.config).items() if not k.startswith("_")}
        config = {"network": network.config.model_dump(mode="json"), "tokenizer": json.loads(json.dumps(fields))}
        return cls(nn.ModuleDict({"network": network, "tokenizer": tokenizer}).eval(), config)

    @classmethod
    def bundled(cls) -> Self:
        """The bundled networks, which draw from labels. Raises NotAvailable where they are not installed."""
        network = cast(LdmUnet, bundled.load("ldm"))
        tokenizer = cast("VQModel", bundled.load("vq"))

        return cls.of(network, tokenizer)

    @classmethod
    def from_public(cls, file: str | Path, *, inert: Collection[str] = ()) -> Self:
        """CompVis' ``cin256-v2``, which draws from one of 1001 labels and which MinD-Vis and CAD start from.

        Parameters
        ----------
        file : str or Path
            its ``model.ckpt``, 1.8 GB
        inert : collection of str, default ()
            further classes of settings the file may name, such as ``"config.Settings"``; they are never imported

        Returns
        -------
        Ldm
            all weights as published

        Raises
        ------
        ModelError
            Missing or damaged files, files that want to run anything, or weights that do not fit.
        """
        return cls._from_tensors(read_public(file, inert=inert), LdmConfig.published())

    @classmethod
    def from_tuned(cls, file: str | Path, *, inert: Collection[str] = ()) -> tuple[Self, dict[str, Tensor]]:
        """A checkpoint that MinD-Vis tuned to a brain, such as its public ``finetuned.pth``.

        Parameters
        ----------
        file : str or Path
            with ``model_state_dict``
        inert : collection of str, default ()
            as for :meth:`from_public`

        Returns
        -------
        tuple[Ldm, dict[str, Tensor]]
            the generator, and the weights of the brain encoder before it, by the names of SC-MBM

        Raises
        ------
        ModelError
            As :meth:`from_public`.
        """
        tensors = read_public(file, "model_state_dict", inert=inert)
        config = tuned_config(tensors, LdmConfig.paper())

        return cls._from_tensors(tensors, config), tuned_encoder(tensors)

    @classmethod
    def _from_tensors(
        cls, tensors: dict[str, Tensor], config: LdmConfig, tokenizer: dict[str, Any] | None = None
    ) -> Self:
        fields = tokenizer or VQ_F4
        network_weights = public_network(tensors, config)
        tokenizer_weights = public_tokenizer(tensors, fields)

        sizes = {"network": config.model_dump(mode="json"), "tokenizer": dict(fields)}
        part = cls(cls.build(sizes), sizes)
        load_module_state(part.network, network_weights, "the U-Net of latent diffusion")
        load_module_state(part.tokenizer, tokenizer_weights, "the tokenizer of latent diffusion")

        return part

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.ModuleDict:
        """Untrained networks of this configuration.

        Parameters
        ----------
        config : dict[str, Any]
            as for the class

        Returns
        -------
        nn.ModuleDict
            in evaluation mode
        """
        from diffusers.models.autoencoders.vq_model import VQModel

        parts = {"network": LdmUnet(**config["network"]), "tokenizer": VQModel(**config["tokenizer"])}
        return nn.ModuleDict(parts).eval()

    def with_tokens(self, count: int, width: int, *, seed: int, **changes: Any) -> Ldm:
        """The same generator drawing from brain tokens, its conditionings drawn anew.

        Parameters
        ----------
        count : int
            tokens of a response
        width : int
            values of each token
        seed : int
            of the new weights
        **changes : Any
            ``mapped``, ``time``, ``zero_time`` of :meth:`LdmConfig.with_tokens`

        Returns
        -------
        Ldm
            with the same tokenizer
        """
        return Ldm.of(self.network.with_tokens(count, width, seed=seed, **changes), self.tokenizer)

    @property
    def network(self) -> LdmUnet:
        """What predicts noise."""
        return self.module["network"]  # pyright: ignore[reportReturnType]  a ModuleDict forgets the classes of its modules

    @property
    def tokenizer(self) -> VQModel:
        """What makes latents of pictures, and pictures of latents."""
        return self.module["tokenizer"]  # pyright: ignore[reportReturnType]  as above

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        halvings = len(self.config["tokenizer"]["block_out_channels"]) - 1
        return int(self.config["network"]["size"]) * 2**halvings

    @torch.no_grad()
    def encode(self, pixels: np.ndarray | Tensor, *, batch_size: int = 20) -> Tensor:
        """Latents to train on.

        Parameters
        ----------
        pixels : ndarray or Tensor of shape (n, size, size, 3)
            uint8 of 0-255 or floats of 0-1; or a tensor (n, 3, size, size), -1 to 1
        batch_size : int, default 20
            pictures that go through the network at once

        Returns
        -------
        Tensor of shape (n, channels, rows, columns), float32
            on the CPU

        Raises
        ------
        DataError
            Pictures of another size or range.
        """
        if isinstance(pixels, Tensor):
            x = pixels
        else:
            x = to_network(pixels)

        if x.shape[1:] != (3, self.size, self.size):
            raise DataError(
                f"pictures must be {self.size} x {self.size} with three channels, but have shape {tuple(pixels.shape)}; "
                "resize them first."
            )

        vq = self.tokenizer
        blocks = []
        for block in x.float().split(batch_size):
            z = vq.encode(block.to(vq.device)).latents * vq.config["scaling_factor"]  # (k, channels, rows, columns)
            blocks.append(z.cpu())

        return torch.cat(blocks)

    @torch.no_grad()
    def decode(self, latents: Tensor, *, batch_size: int = 20) -> np.ndarray:
        """Pictures of latents, which are quantised first.

        Parameters
        ----------
        latents : Tensor of shape (n, channels, rows, columns)
            in the units of :meth:`encode`
        batch_size : int, default 20
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
        vq = self.tokenizer
        pictures = np.empty((len(latents), self.size, self.size, 3), dtype=np.float32)

        for part, filled in full_batches(len(latents), batch_size):
            z = latents[filled] / vq.config["scaling_factor"]
            x = vq.decode(z.to(vq.device), return_dict=False)[0]  # (batch_size, 3, size, size)
            pictures[part] = from_network(x[: part.stop - part.start])

        if not np.isfinite(pictures).all():
            raise ModelError("the tokenizer gives NaN; load its weights again.")

        return pictures

    def sample(
        self,
        condition: np.ndarray | Tensor,
        ids: Sequence[Any],
        sampling: LdmSampling,
        seed: int,
        *,
        batch_size: int = 20,
    ) -> np.ndarray:
        """Pictures drawn from brain tokens, or from labels.

        Parameters
        ----------
        condition : ndarray or Tensor of shape (n, count, width)
            floats, brain tokens; or (n, kinds) integers, labels
        ids : sequence
            n stimulus ids; the noise of a picture is a function of seed, id and sample, not of the other pictures
        sampling : LdmSampling
            steps and samples
        seed : int
            of the noise
        batch_size : int, default 20
            pictures that go through the networks at once; batches are filled up to it

        Returns
        -------
        ndarray of shape (n, samples, size, size, 3), float32
            0-1

        Raises
        ------
        DataError
            A condition of another shape, not finite, out of the known labels, or not one per id.
        ModelError
            When a network gives NaN.

        Notes
        -----
        The authors cut pictures down to 8 bits (``floor(255 x)``) before they score them; these are left as they are.
        """
        if torch.cuda.is_available():
            self.module.to("cuda")

        z = self.network.sample(condition, ids, seed=seed, batch_size=batch_size, **sampling.model_dump())
        pictures = self.decode(z.flatten(0, 1), batch_size=batch_size)

        return pictures.reshape(*z.shape[:2], *pictures.shape[1:])  # (n, samples, size, size, 3)


def random_crops(x: Tensor, draws: Draws, *, share: float = 0.5, cut: float = 0.2) -> Tensor:
    """Some pictures cut smaller at random and stretched back, as MinD-Vis and CAD vary what they train on.

    Parameters
    ----------
    x : Tensor of shape (n, 3, size, size)
        pictures of this part of a batch
    draws : Draws
        noise of this step
    share : float, default 0.5
        of pictures that are cut
    cut : float, default 0.2
        share of the side that is cut off: 256 - floor(0.2 x 256) = 205 pixels are left of 256

    Returns
    -------
    Tensor of shape (n, 3, size, size)
        pixels between others interpolated bilinearly
    """
    size = x.shape[-1]
    side = size - int(cut * size)
    u = draws.uniform(3).cpu()  # (n, 3): whether, top, left
    chosen = (u[:, 0] < share).nonzero().flatten().tolist()
    out = x.clone()

    for i in chosen:
        top, left = (u[i, 1:] * (size - side + 1)).long().tolist()
        part = x[i : i + 1, :, top : top + side, left : left + side]  # (1, 3, side, side)
        out[i] = F.interpolate(part, size=(size, size), mode="bilinear", align_corners=False)[0]

    return out


# -- public weights ----------------------------------------------------------------------------------------------------


# Beginnings of the public names: U-Net, first stage, what makes the context; and the brain encoder within the last.
NETWORK = "model.diffusion_model."
TOKENIZER = "first_stage_model."
CONDITION = "cond_stage_model."
ENCODER = f"{CONDITION}mae."

# The noising process, which follows from three numbers of the configuration.
_SCHEDULE = frozenset(
    [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "lvlb_weights",
        "logvar",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "scale_factor",
    ]
)

# Classes of settings that public files hold next to the weights; they are never imported.
_SETTINGS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.argparse.AttributeDict",
    "config.Config_Generative_Model",
    "config.Config_MBM_finetune",
    "config.Config_MBM_fMRI",
)


class Public(NamedTuple):
    """Where one of our tensors comes from: its public name, the shape it has there, and the one it has here."""

    name: str
    shape: tuple[int, ...]
    ours: tuple[int, ...]


@reads("file", ModelError)
def read_public(file: str | Path, *path: str, inert: Collection[str] = ()) -> dict[str, Tensor]:
    """All tensors of a public checkpoint, read without running anything in it.

    Parameters
    ----------
    file : str or Path
        of CompVis, or of MinD-Vis
    *path : str
        keys that lead to the weights; ``state_dict`` by default
    inert : collection of str, default ()
        further classes of settings the file may name

    Returns
    -------
    dict[str, Tensor]
        by public name, on the CPU

    Raises
    ------
    ModelError
        Missing or damaged files, or files that want to run anything.
    """
    return read_foreign(file, *(path or ("state_dict",)), inert=(*_SETTINGS, *inert))


def public_network(tensors: Mapping[str, Tensor], config: LdmConfig) -> dict[str, np.ndarray]:
    """The U-Net with its conditionings as weights of :class:`LdmUnet`.

    Parameters
    ----------
    tensors : mapping[str, Tensor]
        of the whole file, tokenizer included
    config : LdmConfig
        sizes of the network they are meant for: :meth:`LdmConfig.published`, or :func:`tuned_config`

    Returns
    -------
    dict[str, ndarray]
        float32, by our names

    Raises
    ------
    ModelError
        Naming tensors that are missing, too many, of another shape or not finite; or another noise schedule.
    """
    _check_rest(tensors)

    if "betas" in tensors:
        ours = _betas(config)
        theirs = tensors["betas"].double()
        if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=1e-4):
            raise ModelError(
                f"the file was trained with {len(theirs)} noise levels of {float(theirs[0]):.4g} to {float(theirs[-1]):.4g}, "
                f"but {len(ours)} of {float(ours[0]):.4g} to {float(ours[-1]):.4g} are configured; it is of another network."
            )

    network = {}
    for name, tensor in tensors.items():
        if name.startswith((NETWORK, CONDITION)) and not name.startswith(ENCODER):
            network[name] = tensor

    return _convert(network, network_table(config), "the public U-Net of latent diffusion")


def public_tokenizer(tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The first stage as weights of diffusers' VQModel.

    Parameters
    ----------
    tensors : mapping[str, Tensor]
        of the whole file, U-Net included
    fields : mapping[str, Any]
        of the VQModel they are meant for

    Returns
    -------
    dict[str, ndarray]
        float32, by diffusers' names

    Raises
    ------
    ModelError
        As :func:`public_network`.
    """
    _check_rest(tensors)
    tokenizer = {name: tensor for name, tensor in tensors.items() if name.startswith(TOKENIZER)}

    return _convert(tokenizer, tokenizer_table(fields), "the public VQ-f4")


def tuned_config(tensors: Mapping[str, Tensor], config: LdmConfig) -> LdmConfig:
    """The configuration of a network that MinD-Vis tuned to a brain.

    Parameters
    ----------
    tensors : mapping[str, Tensor]
        of the whole file
    config : LdmConfig
        what all but the conditionings are taken from

    Returns
    -------
    LdmConfig
        with tokens as the file's mappers take them

    Raises
    ------
    ModelError
        When the file has no mappers from brain tokens.
    """
    values = tensors.get(f"{CONDITION}dim_mapper.weight")
    if values is None:
        raise ModelError(
            f"a network tuned to a brain has '{CONDITION}dim_mapper.weight', but this file has not; the label-to-image "
            "network itself is read by Ldm.from_public."
        )

    first = tensors.get(f"{CONDITION}channel_mapper.0.weight")
    last = tensors.get(f"{CONDITION}channel_mapper.1.weight")

    # The variant without a mapper over tokens has their mean as its only token.
    time: Literal["convolutions", "mean", "none"]
    if first is None or last is None:
        count = 1
        mapped = None
        time = "mean"
    else:
        count = int(first.shape[1])
        mapped = int(last.shape[0])
        time = "convolutions"

    if not any(name.startswith(f"{NETWORK}time_embed_condtion.") for name in tensors):
        time = "none"

    return config.with_tokens(count, int(values.shape[1]), mapped=mapped, time=time)


def tuned_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the brain encoder in a file that MinD-Vis tuned, by the names of SC-MBM."""
    return {k.removeprefix(ENCODER): v for k, v in tensors.items() if k.startswith(ENCODER)}


def network_table(config: LdmConfig) -> dict[str, Public]:
    """Public name and shape of each tensor of a :class:`LdmUnet` of this configuration, by its name here."""
    table = {}
    for ours, shape in _network_shapes(config.model_dump_json()).items():
        table[ours] = Public(_network_name(ours, config), shape, shape)

    return table


def tokenizer_table(fields: Mapping[str, Any]) -> dict[str, Public]:
    """Public name and shape of each tensor of diffusers' VQModel of these fields, by its name here."""
    levels = len(fields["block_out_channels"])
    table = {}

    for ours, shape in _tokenizer_shapes(json.dumps(dict(fields))).items():
        # Attention of the public network is a convolution of one pixel; here it is a linear layer.
        is_pixel = ".attentions." in ours and ours.endswith(".weight") and len(shape) == 2
        if is_pixel:
            public_shape = (*shape, 1, 1)
        else:
            public_shape = shape

        table[ours] = Public(_tokenizer_name(ours, levels), public_shape, shape)

    return table


def _check_rest(tensors: Mapping[str, Tensor]) -> None:
    """Refuse a file that holds more than latent diffusion and its schedule."""
    known = (NETWORK, TOKENIZER, CONDITION)
    rest = sorted(name for name in tensors if not name.startswith(known) and name not in _SCHEDULE)

    if rest:
        raise ModelError(
            f"latent diffusion has weights under {', '.join(known)} and a schedule, but {few(rest, 3)} came as well; the file "
            "is of another network."
        )


def _convert(tensors: Mapping[str, Tensor], table: Mapping[str, Public], what: str) -> dict[str, np.ndarray]:
    must_fit(tensors, {public.name: public.shape for public in table.values()}, what)

    weights = {}
    for ours, public in table.items():
        weights[ours] = tensors[public.name].float().reshape(public.ours).numpy()

    return weights


def _betas(c: LdmConfig) -> Tensor:
    """Variance added by each step of the noising process: square roots rise evenly (noise_levels,)."""
    return torch.linspace(c.beta_start**0.5, c.beta_end**0.5, c.noise_levels, dtype=torch.float64) ** 2


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@lru_cache(maxsize=4)
def _network_shapes(config: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return _shapes(LdmUnet(**json.loads(config)))


@lru_cache(maxsize=4)
def _tokenizer_shapes(fields: str) -> dict[str, tuple[int, ...]]:
    from diffusers.models.autoencoders.vq_model import VQModel

    with torch.device("meta"):
        return _shapes(VQModel(**json.loads(fields)))


# -- their names -------------------------------------------------------------------------------------------------------


# Public names of the layers of a residual block, of what stands outside the blocks, and of VQ-f4's attention.
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}

_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _network_name(ours: str, c: LdmConfig) -> str:
    """Public name of a tensor of :class:`LdmUnet`."""
    if ours.startswith("unet."):
        return NETWORK + _unet_name(ours.removeprefix("unet."), c)

    if ours.startswith("condition.embeddings."):
        return ours.replace("condition.embeddings.0", f"{CONDITION}embedding", 1)

    if ours.startswith("condition."):
        rest = ours.removeprefix("condition.")
        return CONDITION + rest.replace("tokens", "channel_mapper", 1).replace("values", "dim_mapper", 1)

    # Over tokens first, then over values; the file spells it without an "i". The mean has a linear layer alone.
    if c.time == "convolutions":
        values = "time_embed_condtion.2"
    else:
        values = "time_embed_condtion"

    return NETWORK + ours.replace("time.tokens", "time_embed_condtion", 1).replace("time.values", values, 1)


def _unet_name(name: str, c: LdmConfig) -> str:
    """Public name of a tensor of diffusers' U-Net."""
    for ours, public in _ENDS.items():
        if name.startswith(f"{ours}."):
            return public + _inner(name.removeprefix(ours))

    # Public blocks are counted through all sizes: the residual blocks of one, then what leads to the next.
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(\..+)", name)
    assert match, name
    side = match[1]
    level = int(match[2])
    kind = match[3]
    i = int(match[4])
    rest = match[5]
    layer = int(kind == "attentions")  # within a public block: 0 the residual block, 1 the transformer after it

    if side == "down":
        start = 1 + level * (c.blocks + 1)
        if kind == "downsamplers":
            return f"input_blocks.{start + c.blocks}.0.op{rest.removeprefix('.conv')}"

        return f"input_blocks.{start + i}.{layer}{_inner(rest)}"

    start = level * (c.blocks + 1)
    if kind == "upsamplers":
        layer = 1 + int(
            c.attention[-1 - level]
        )  # after the last residual block, and its transformer where there is one
        return f"output_blocks.{start + c.blocks}.{layer}{rest}"

    return f"output_blocks.{start + i}.{layer}{_inner(rest)}"


def _inner(rest: str) -> str:
    """``.conv1.weight`` of a residual block as ``.in_layers.2.weight``; anything else, such as a transformer's, stays."""
    head, _, tail = rest[1:].partition(".")
    if head in _RESNET:
        return f".{_RESNET[head]}.{tail}"

    return rest


def _tokenizer_name(name: str, levels: int) -> str:
    """Public name of a tensor of diffusers' VQModel."""

    # The public decoder counts its sizes from the finest, the middle its blocks from 1.
    def level(match: re.Match[str]) -> str:
        return f"up.{levels - 1 - int(match[1])}"

    def block(match: re.Match[str]) -> str:
        return f"mid.block_{int(match[1]) + 1}"

    name = re.sub(r"up_blocks\.(\d+)", level, name)
    name = name.replace("down_blocks.", "down.").replace("samplers.0.conv.", "sample.conv.")

    attention = re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", name)
    if attention:
        return f"{TOKENIZER}{attention[1]}.mid.attn_1.{_ATTENTION[attention[2]]}.{attention[3]}"

    name = re.sub(r"mid_block\.resnets\.(\d)", block, name)
    name = name.replace(".resnets.", ".block.").replace("conv_shortcut", "nin_shortcut")

    return TOKENIZER + name.replace("conv_norm_out", "norm_out")
