"""The U-Net of latent diffusion with its two conditionings: tokens it looks at, and a vector beside the time (CAD, section
3.3, "time steps conditioning").

::

    tokens (n, count, width) -> context (n, 77, 512) -> cross-attention
                                        |-> one vector, added to the embedding of the time

Chen et al. 2023, "Seeing beyond the brain" (MinD-Vis), section 3.2; Sun et al. 2023 (CAD), section 3.3. What the U-Net
knows of pictures it was taught with labels (Rombach et al. 2022): :class:`Labels` gives that network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

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
from phosphene.models.pixel_range import from_network, to_network
from phosphene.models.unet_sizes import check_sizes
from phosphene.models.vdvae import picture_rng
from phosphene.training.checkpoint import ModulePart, load_module_state
from phosphene.training.sampling import Draws
from phosphene.types.identity import few

if TYPE_CHECKING:
    import numpy as np
    from diffusers import PNDMScheduler, VQModel
    from torch import Tensor

    from phosphene.training.sampling import Draws


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


"""The published first stage, VQ-f4, as fields of diffusers' VQModel: 256 px pictures as 3 x 64 x 64; 55,322,782 weights."""


class BrainTokens(Config):
    """The condition is a response's tokens: mapped to fewer tokens, then to the width of the context.

    The defaults are MinD-Vis' for subject 3 of GOD.
    """

    kind: Literal["tokens"] = "tokens"
    count: int = Field(
        291, ge=1, description="tokens per response: patches of the brain encoder, without its class token"
    )
    width: int = Field(1024, ge=1, description="values per token")
    mapped: int | None = Field(77, ge=1, description="tokens of the context; as many as came, unmixed, when null")


class Labels(Config):
    """The condition is what a picture shows: one learned token for each kind of label."""

    kind: Literal["labels"] = "labels"
    classes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1001,),
        min_length=1,
        description="classes of each kind; the public network: ImageNet's 1000 and 'none of them'",
    )


class LdmConfig(Config):
    """A U-Net over a tokenizer's latents, conditioned by cross-attention and, for brains, once more beside the time.

    The defaults are those of MinD-Vis and CAD: CompVis' label-to-image network with the label replaced.

    Examples
    --------
    >>> LdmConfig.paper().context_tokens, LdmConfig.published().context_tokens, LdmConfig.lab().context_tokens
    (77, 1, 2)
    >>> LdmConfig.lab().with_tokens(65, 128, mapped=16).condition.count
    65
    """

    size: int = Field(64, ge=1, description="rows and columns of a latent")
    channels: int = Field(3, ge=1, description="channels of a latent")
    widths: tuple[int, ...] = Field((192, 384, 576, 960), min_length=1, description="channels per halving")
    attention: tuple[bool, ...] = Field((False, True, True, True), description="which sizes look at the condition")
    blocks: int = Field(2, ge=1, description="residual blocks per size on the way down; one more on the way up")
    heads: int = Field(1, ge=1, description="attention heads, a divisor of each width")
    groups: int = Field(32, ge=1, description="of group norms, a divisor of each width")
    context: int = Field(512, ge=1, description="values per token of the context")
    condition: Annotated[BrainTokens | Labels, Field(discriminator="kind")] = Field(
        BrainTokens(), description="what pictures are drawn from"
    )
    time: Literal["convolutions", "mean", "none"] = Field(
        "convolutions",
        description="the second conditioning, added to the embedding of the time: all context tokens mixed into one by two "
        "convolutions, their mean, or none; then a linear layer",
    )
    zero_time: bool = Field(
        False,
        description="start the second conditioning at zero, so that tuning starts from what was learned; code: false",
    )
    noise_levels: int = Field(1000, ge=2, description="steps of the noising process")
    beta_start: float = Field(0.0015, gt=0, lt=1, description="variance added by its first step")
    beta_end: float = Field(0.0195, gt=0, lt=1, description="and by its last; square roots rise evenly")

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
        count, width : int
            tokens of a response, and values of each
        mapped : int or None, default 77
            tokens of the context
        time : {"convolutions", "mean", "none"}, default "convolutions"
            the second conditioning
        zero_time : bool, default False
            the second conditioning
        """
        condition = BrainTokens(count=count, width=width, mapped=mapped)
        return self.model_copy(update={"condition": condition, "time": time, "zero_time": zero_time})

    @property
    def context_tokens(self) -> int:
        """Tokens that cross-attention looks at."""
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
        return {
            "sample_size": self.size,
            "in_channels": self.channels,
            "out_channels": self.channels,
            "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in self.attention],
            "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(self.attention)],
            "block_out_channels": list(self.widths),
            "layers_per_block": self.blocks,
            # diffusers' name for the number of heads in this class
            "attention_head_dim": self.heads,
            "cross_attention_dim": self.context,
            "norm_num_groups": self.groups,
            # A vector that is added, as it is, to the embedding of the time.
            "class_embed_type": None if self.time == "none" else "identity",
        }


class LdmSampling(Config):
    """How pictures are drawn: PLMS, without guidance. The defaults are those of MinD-Vis and CAD."""

    steps: int = Field(250, ge=2, le=500, description="PLMS steps; the U-Net is called once more than that")
    samples: int = Field(5, ge=1, description="pictures per response")

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab: a tenth of the steps."""
        return cls(steps=25)


Tuned = Literal["cross_attention", "frozen", "all"]


class _Mapper(nn.Module):
    """(n, count, width) to (n, mapped, out): first over tokens in two steps without a nonlinearity, then over values."""

    def __init__(self, count: int, mapped: int | None, width: int, out: int):
        super().__init__()
        half = max(1, count // 2)

        # A convolution of length one over tokens as channels, as the public checkpoints hold it.
        if mapped:
            steps = [nn.Conv1d(count, half, 1), nn.Conv1d(half, mapped, 1)]
        else:
            steps = []

        self.tokens = nn.Sequential(*steps)
        self.values = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.values(self.tokens(x))


class _LabelTokens(nn.Module):
    """One learned token for each kind of label: (n, kinds) integers to (n, kinds, out)."""

    def __init__(self, classes: tuple[int, ...], out: int):
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(n, out) for n in classes)

    def forward(self, labels: Tensor) -> Tensor:
        return torch.stack([e(column) for e, column in zip(self.embeddings, labels.unbind(1), strict=True)], 1)


class LdmUnet(nn.Module):
    """What predicts the noise in a latent, from brain tokens or from labels, and its training loss.

    Parameters
    ----------
    config : Any
        fields of :class:`LdmConfig`; those of MinD-Vis and CAD by default. Weights are drawn from torch's global
        generator

    Attributes
    ----------
    unet : diffusers' UNet2DConditionModel
    condition : nn.Module
        what makes the context
    time : _Mapper or None
        the second conditioning, None without
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

    def __init__(self, **config: Any):
        from diffusers import UNet2DConditionModel

        super().__init__()
        self.config = c = validate(LdmConfig, config, "the configuration of latent diffusion")
        self.unet = UNet2DConditionModel(**c.unet)

        if isinstance(c.condition, Labels):
            self.condition: nn.Module = _LabelTokens(c.condition.classes, c.context)
        else:
            self.condition = _Mapper(c.condition.count, c.condition.mapped, c.condition.width, c.context)

        self.time: _Mapper | None = None
        if c.time != "none":
            self.time = _Mapper(c.context_tokens, 1 if c.time == "convolutions" else None, c.context, c.time_width)
            if c.zero_time:
                nn.init.zeros_(self.time.values.weight)
                nn.init.zeros_(self.time.values.bias)

        betas = torch.linspace(c.beta_start**0.5, c.beta_end**0.5, c.noise_levels, dtype=torch.float64) ** 2
        self.register_buffer("signal", (1 - betas).cumprod(0).float(), persistent=False)

    def context(self, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """The two conditionings.

        Parameters
        ----------
        condition : Tensor of shape (n, count, width), float
            brain tokens; or (n, kinds) integers, labels

        Returns
        -------
        tuple of (Tensor, Tensor or None)
            (n, context_tokens, context), and (n, time_width) or None

        Raises
        ------
        DataError
            For a condition of another shape.
        """
        c = self.config.condition
        if isinstance(c, Labels):
            shape = (len(c.classes),)
        else:
            shape = (c.count, c.width)

        if tuple(condition.shape[1:]) != shape:
            if isinstance(c, Labels):
                what = "labels"
            else:
                what = "brain tokens"

            raise DataError(
                f"this network draws from {what} of shape (n, {', '.join(map(str, shape))}), but {tuple(condition.shape)} came; "
                "condition it as it was trained, or make it anew with with_tokens."
            )

        tokens = self.condition(condition)
        if self.time is None:
            return tokens, None

        if self.config.time == "mean":
            pooled = tokens.mean(1, keepdim=True)
        else:
            pooled = tokens

        return tokens, self.time(pooled)[:, 0]

    def denoise(self, z: Tensor, time: Tensor, context: tuple[Tensor, Tensor | None]) -> Tensor:
        """The noise in latents (n, channels, size, size) at the times (n,) 0 .. noise_levels - 1, from both conditionings."""
        return self.unet(z, time, context[0], class_labels=context[1]).sample

    def forward(self, z: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """The same from brain tokens or labels (:meth:`context`)."""
        return self.denoise(z, time, self.context(condition))

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of the noise, at a time drawn for each picture.

            z_t = sqrt(signal_t) z + sqrt(1 - signal_t) e,    loss = |e - e'(z_t, t, condition)|^2

        Gradients reach the tokens, so that a brain encoder before it learns from the same loss.

        Parameters
        ----------
        batch : dict of {str: Tensor}
            ``latents`` (n, channels, size, size), as :meth:`phosphene.models.ldm.Ldm.encode` gives them; ``tokens`` (n,
            count, width) or ``labels`` (n, kinds)
        draws : Draws
            noise of this step

        Returns
        -------
        tuple of (Tensor, dict of {str: Any})
            scalar, and ``early`` and ``late``: the same of the pictures of this part with a signal above and below one
            half
        """
        c = self.config
        z = batch["latents"].float()
        time = draws.integers(c.noise_levels)
        noise = draws.normal(*z.shape[1:])
        signal = self.signal[time][:, None, None, None]
        noisy = signal.sqrt() * z + (1 - signal).sqrt() * noise
        guess = self(noisy, time, batch["labels" if isinstance(c.condition, Labels) else "tokens"])
        error = F.mse_loss(guess.float(), noise, reduction="none").mean((1, 2, 3))

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
            ``cross_attention``, the heads that look at the context with the norms before them, the code's choice and
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
            is_open = not name.startswith("unet.") or what == "all" or (what == "cross_attention" and is_head)
            weight.requires_grad_(is_open)

        return [name for name, weight in self.named_parameters() if weight.requires_grad]

    def with_tokens(self, count: int, width: int, *, seed: int, **changes: Any) -> LdmUnet:
        """A network with this U-Net's weights that draws from brain tokens; both conditionings are drawn anew.

        Parameters
        ----------
        count, width : int
            tokens of a response, and values of each
        seed : int
            of the new weights
        changes : Any
            ``mapped``, ``time``, ``zero_time`` of :meth:`LdmConfig.with_tokens`

        Examples
        --------
        >>> network = LdmUnet(**LdmConfig.lab().model_dump(mode="json")).with_tokens(65, 128, seed=0, mapped=16)
        >>> [k for k, w in network.named_parameters() if not k.startswith("unet.")][:3]
        ['condition.tokens.0.weight', 'condition.tokens.0.bias', 'condition.tokens.1.weight']
        """
        config = self.config.with_tokens(count, width, **changes)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            new = LdmUnet(**config.model_dump(mode="json"))

        new.unet.load_state_dict(self.unet.state_dict())
        return new.to(self.signal.device)

    def schedule(self) -> PNDMScheduler:
        """PLMS as diffusers' scheduler, with the published settings."""
        from diffusers import PNDMScheduler

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
        pairs = [(row, s) for row in range(len(x)) for s in range(samples)]
        shape = (c.channels, c.size, c.size)
        out = torch.empty(len(pairs), *shape)
        was_training = self.training
        self.eval()

        for start in range(0, len(pairs), batch_size):
            part = pairs[start : start + batch_size]
            # A full batch every time: matrix products of another size would be summed in another order.
            filled = part + [part[-1]] * (batch_size - len(part))
            noise = np.stack([picture_rng(seed, ids[row], s).standard_normal(shape, np.float32) for row, s in filled])
            z = torch.from_numpy(noise).to(x.device)
            context = self.context(x[[row for row, _ in filled]])
            plms = self.schedule()
            plms.set_timesteps(steps)

            for time in plms.timesteps.tolist():
                times = torch.full((batch_size,), time, device=x.device)
                z = plms.step(self.denoise(z, times, context), time, z).prev_sample

            out[start : start + len(part)] = z[: len(part)].cpu()

        self.train(was_training)
        if not bool(out.isfinite().all()):
            raise ModelError(
                "latents became NaN or infinite while they were drawn: the network is broken. Load its weights again, or "
                "train again at a lower learning rate."
            )

        return out.view(len(x), samples, *shape)

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

            bad = ((x < 0) | (x >= torch.tensor(c.classes, device=x.device))).any(1).nonzero().flatten().tolist()
            if bad:
                raise DataError(
                    f"labels of {len(bad)} stimuli are of no class, first those of '{ids[bad[0]]}': {x[bad[0]].tolist()}; "
                    f"there are {', '.join(map(str, c.classes))} of each kind, counted from 0."
                )

            return x.to(self.signal.device, torch.int64)

        if bad := (~torch.isfinite(x)).flatten(1).any(1).nonzero().flatten().tolist():
            raise DataError(
                f"tokens of {len(bad)} stimuli hold NaN or infinite values, first those of '{ids[bad[0]]}'."
            )

        return x.to(self.signal.device, torch.float32)


class Ldm(ModulePart):
    """The U-Net with its conditionings beside the tokenizer of its latents, as a fitted part of a run.

    Parameters
    ----------
    module : nn.ModuleDict
        ``network`` and ``tokenizer``
    config : mapping of {str: Any}
        ``{"network": fields of LdmConfig, "tokenizer": fields of diffusers' VQModel}``

    Notes
    -----
    Latents are the tokenizer's before they are quantised, times its ``scaling_factor`` (1 as published, one over their
    standard deviation in the zoo). They are quantised when they are decoded, as published.
    """

    module: nn.ModuleDict

    @classmethod
    def of(cls, network: LdmUnet, tokenizer: VQModel) -> Self:
        """From two networks.

        Raises
        ------
        ModelError
            When the tokenizer's latents are not what the U-Net works on.
        """
        if tokenizer.config.latent_channels != network.config.channels:
            raise ModelError(
                f"the tokenizer's latents have {tokenizer.config.latent_channels} channels, but the U-Net works on "
                f"{network.config.channels}; take two that were trained together."
            )

        fields = {k: v for k, v in dict(tokenizer.config).items() if not k.startswith("_")}
        config = {"network": network.config.model_dump(mode="json"), "tokenizer": json.loads(json.dumps(fields))}
        return cls(nn.ModuleDict({"network": network, "tokenizer": tokenizer}).eval(), config)

    @classmethod
    def from_zoo(cls) -> Self:
        """The lab's networks, from labels. Raises NotAvailable where they are not bundled."""
        return cls.of(bundled.load("ldm"), bundled.load("vq"))

    @classmethod
    def from_public(cls, file: str | Path, *, inert: Collection[str] = ()) -> Self:
        """CompVis' ``cin256-v2``, which draws from one of 1001 labels and which MinD-Vis and CAD start from.

        Parameters
        ----------
        file : str or Path
            its ``model.ckpt``, 1.8 GB
        inert : collection of str, default ()
            further classes of settings the file may name, such as ``"config.Settings"``; they are never imported

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
        tuple of (Ldm, dict of {str: Tensor})
            the generator, and the weights of the brain encoder before it, by the names of SC-MBM

        Raises
        ------
        ModelError
            As :meth:`from_public`.
        """

        tensors = read_public(file, "model_state_dict", inert=inert)
        return cls._from_tensors(tensors, tuned_config(tensors, LdmConfig.paper())), tuned_encoder(tensors)

    @classmethod
    def _from_tensors(
        cls, tensors: dict[str, Tensor], config: LdmConfig, tokenizer: dict[str, Any] | None = None
    ) -> Self:

        fields = tokenizer or VQ_F4
        weights = public_network(tensors, config), public_tokenizer(tensors, fields)
        sizes = {"network": config.model_dump(mode="json"), "tokenizer": dict(fields)}
        part = cls(cls.build(sizes), sizes)

        for module, found, what in zip(part.module.values(), weights, ("the U-Net", "the tokenizer"), strict=True):
            load_module_state(module, found, f"{what} of latent diffusion")

        return part

    @classmethod
    def build(cls, config: dict[str, Any]) -> nn.ModuleDict:
        """Untrained networks of this configuration."""
        from diffusers import VQModel

        parts = {"network": LdmUnet(**config["network"]), "tokenizer": VQModel(**config["tokenizer"])}
        return nn.ModuleDict(parts).eval()

    def with_tokens(self, count: int, width: int, *, seed: int, **changes: Any) -> Ldm:
        """The same generator drawing from brain tokens, its conditionings drawn anew (:meth:`LdmUnet.with_tokens`)."""
        return Ldm.of(self.network.with_tokens(count, width, seed=seed, **changes), self.tokenizer)

    @property
    def network(self) -> LdmUnet:
        """What predicts noise."""
        return self.module["network"]

    @property
    def tokenizer(self) -> VQModel:
        """What makes latents of pictures, and pictures of latents."""
        return self.module["tokenizer"]

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        return int(self.config["network"]["size"]) * 2 ** (len(self.config["tokenizer"]["block_out_channels"]) - 1)

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
        scale = self.tokenizer.config.scaling_factor

        return torch.cat([(vq.encode(b.to(vq.device)).latents * scale).cpu() for b in x.float().split(batch_size)])

    @torch.no_grad()
    def decode(self, latents: Tensor, *, batch_size: int = 20) -> np.ndarray:
        """Pictures of latents (n, channels, rows, columns), quantised first: (n, size, size, 3) float32, 0-1.

        Raises
        ------
        ModelError
            When the network gives NaN.
        """
        vq = self.tokenizer
        scale = self.tokenizer.config.scaling_factor
        out = [np.empty((0, self.size, self.size, 3), dtype=np.float32)]

        for start in range(0, len(latents), batch_size):
            # Filled up as in `LdmUnet.sample`.
            z = latents[start : start + batch_size]
            filled = torch.cat([z, z[-1:].expand(batch_size - len(z), -1, -1, -1)])
            out.append(from_network(vq.decode((filled / scale).to(vq.device)).sample[: len(z)]))

        pictures = np.concatenate(out)
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
            n stimulus ids; the noise of a picture is a function of seed, id and sample, not of its company
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
        return pictures.reshape(*z.shape[:2], *pictures.shape[1:])


def random_crops(x: Tensor, draws: Draws, *, share: float = 0.5, cut: float = 0.2) -> Tensor:
    """Some pictures cut smaller at random and stretched back: how MinD-Vis and CAD vary what they train on.

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
    out = x.clone()
    side = size - int(cut * size)
    u = draws.uniform(3).cpu()

    for i in (u[:, 0] < share).nonzero().flatten().tolist():
        top, left = (u[i, 1:] * (size - side + 1)).long().tolist()
        part = x[i : i + 1, :, top : top + side, left : left + side]
        out[i] = F.interpolate(part, size=(size, size), mode="bilinear", align_corners=False)[0]

    return out


__all__ = ["BrainTokens", "Labels", "Ldm", "LdmConfig", "LdmSampling", "LdmUnet", "random_crops"]


NETWORK = "model.diffusion_model."
TOKENIZER = "first_stage_model."
CONDITION = "cond_stage_model."


ENCODER = f"{CONDITION}mae."


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


# Classes of settings beside the weights; they are never imported.
_SETTINGS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.argparse.AttributeDict",
    "config.Config_Generative_Model",
    "config.Config_MBM_finetune",
    "config.Config_MBM_fMRI",
)


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
    path : str
        keys that lead to the weights; ``state_dict`` by default
    inert : collection of str, default ()
        further classes of settings the file may name

    Raises
    ------
    ModelError
        Missing or damaged files, or files that want to run anything.
    """
    return read_foreign(file, *(path or ("state_dict",)), inert=(*_SETTINGS, *inert))


def network_table(config: LdmConfig) -> dict[str, Public]:
    """Public name and shape of each tensor of a :class:`LdmUnet` of this configuration, by its name here."""
    return {ours: Public(_network_name(ours, config), shape, shape) for ours, shape in _network_shapes(config).items()}


def tokenizer_table(fields: Mapping[str, Any]) -> dict[str, Public]:
    """Public name and shape of each tensor of diffusers' VQModel of these fields, by its name here."""
    levels = len(fields["block_out_channels"])
    out = {}

    for ours, shape in _tokenizer_shapes(json.dumps(dict(fields))).items():
        # Attention of the public network is a convolution of one pixel; here it is a linear layer.
        is_pixel = ".attentions." in ours and ours.endswith(".weight") and len(shape) == 2
        out[ours] = Public(_tokenizer_name(ours, levels), (*shape, 1, 1) if is_pixel else shape, shape)

    return out


def public_network(tensors: Mapping[str, Tensor], config: LdmConfig) -> dict[str, np.ndarray]:
    """The U-Net with its conditionings as weights of :class:`LdmUnet`.

    Parameters
    ----------
    tensors : mapping of {str: Tensor}
        of the whole file, tokenizer included
    config : LdmConfig
        sizes of the network they are meant for: :meth:`LdmConfig.published`, or :func:`tuned_config`

    Raises
    ------
    ModelError
        Naming tensors that are missing, too many, of another shape or not finite; or another noise schedule.
    """
    import torch

    _check_rest(tensors)
    if "betas" in tensors:
        c = config
        betas = torch.linspace(c.beta_start**0.5, c.beta_end**0.5, c.noise_levels, dtype=torch.float64) ** 2
        theirs = tensors["betas"].double()
        if theirs.shape != betas.shape or not torch.allclose(theirs, betas, rtol=1e-4):
            raise ModelError(
                f"the file was trained with {len(theirs)} noise levels of {float(theirs[0]):.4g} to {float(theirs[-1]):.4g}, "
                f"but {len(betas)} of {float(betas[0]):.4g} to {float(betas[-1]):.4g} are configured; it is of another network."
            )

    own = {k: v for k, v in tensors.items() if k.startswith((NETWORK, CONDITION)) and not k.startswith(ENCODER)}
    return _convert(own, network_table(config), "the public U-Net of latent diffusion")


def public_tokenizer(tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The first stage as weights of diffusers' VQModel of these fields. Raises like :func:`public_network`."""
    _check_rest(tensors)
    own = {k: v for k, v in tensors.items() if k.startswith(TOKENIZER)}
    return _convert(own, tokenizer_table(fields), "the public VQ-f4")


def tuned_config(tensors: Mapping[str, Tensor], config: LdmConfig) -> LdmConfig:
    """The configuration of a network that MinD-Vis tuned: tokens as its mappers take them, other sizes of `config`.

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

    first, last = (tensors.get(f"{CONDITION}channel_mapper.{i}.weight") for i in (0, 1))
    is_pooled = first is None or last is None

    if is_pooled:
        count = 1
        mapped = None
    else:
        count = first.shape[1]
        mapped = last.shape[0]

    if is_pooled:
        time = "mean"
    else:
        time = "convolutions"

    if not any(k.startswith(f"{NETWORK}time_embed_condtion.") for k in tensors):
        time = "none"

    return config.with_tokens(int(count), int(values.shape[1]), mapped=mapped and int(mapped), time=time)


def tuned_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the brain encoder in a file that MinD-Vis tuned, by the names of SC-MBM."""
    return {k.removeprefix(ENCODER): v for k, v in tensors.items() if k.startswith(ENCODER)}


def _check_rest(tensors: Mapping[str, Tensor]) -> None:
    known = (NETWORK, TOKENIZER, CONDITION)
    if rest := sorted(k for k in tensors if not k.startswith(known) and k not in _SCHEDULE):
        raise ModelError(
            f"latent diffusion has weights under {', '.join(known)} and a schedule, but {few(rest, 3)} came as well; the file "
            "is of another network."
        )


def _convert(own: Mapping[str, Tensor], table: Mapping[str, Public], what: str) -> dict[str, np.ndarray]:
    must_fit(own, {public.name: public.shape for public in table.values()}, what)
    return {ours: own[public.name].float().reshape(public.ours).numpy() for ours, public in table.items()}


@lru_cache(maxsize=4)
def _network_shapes(config: LdmConfig) -> dict[str, tuple[int, ...]]:
    import torch

    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in LdmUnet(**config.model_dump(mode="json")).state_dict().items()}


@lru_cache(maxsize=4)
def _tokenizer_shapes(fields: str) -> dict[str, tuple[int, ...]]:
    import torch
    from diffusers import VQModel

    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in VQModel(**json.loads(fields)).state_dict().items()}


# -- names -------------------------------------------------------------------------------------------------------------
def _network_name(ours: str, c: LdmConfig) -> str:
    if ours.startswith("unet."):
        return NETWORK + _unet_name(ours.removeprefix("unet."), c)
    if ours.startswith("condition.embeddings."):
        return ours.replace("condition.embeddings.0", f"{CONDITION}embedding", 1)

    if ours.startswith("condition."):
        rest = ours.removeprefix("condition.")
        return CONDITION + rest.replace("tokens", "channel_mapper", 1).replace("values", "dim_mapper", 1)

    # Over tokens first, then over values; the file spells it without an "i". The mean has a linear layer alone.
    steps = "time_embed_condtion" + (".2" if c.time == "convolutions" else "")
    return NETWORK + ours.replace("time.tokens", "time_embed_condtion", 1).replace("time.values", steps, 1)


def _unet_name(name: str, c: LdmConfig) -> str:
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

    if side == "down":
        start = 1 + level * (c.blocks + 1)
        if kind == "downsamplers":
            return f"input_blocks.{start + c.blocks}.0.op{rest.removeprefix('.conv')}"

        return f"input_blocks.{start + i}.{0 if kind == 'resnets' else 1}{_inner(rest)}"

    start = level * (c.blocks + 1)
    if kind == "upsamplers":
        return f"output_blocks.{start + c.blocks}.{2 if c.attention[-1 - level] else 1}{rest}"

    return f"output_blocks.{start + i}.{0 if kind == 'resnets' else 1}{_inner(rest)}"


def _inner(rest: str) -> str:
    """``.conv1.weight`` of a residual block as ``.in_layers.2.weight``; anything else, such as a transformer's, stays."""
    head, _, tail = rest[1:].partition(".")
    if head in _RESNET:
        return f".{_RESNET[head]}.{tail}"

    return rest


def _tokenizer_name(name: str, levels: int) -> str:
    name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
    name = name.replace("down_blocks.", "down.").replace("samplers.0.conv.", "sample.conv.")
    if match := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", name):
        return f"{TOKENIZER}{match[1]}.mid.attn_1.{_ATTENTION[match[2]]}.{match[3]}"

    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace(".resnets.", ".block.").replace("conv_shortcut", "nin_shortcut")

    return TOKENIZER + name.replace("conv_norm_out", "norm_out")
