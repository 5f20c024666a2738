"""Sizes of the latent diffusion network and how it draws pictures, as plain values that load without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from phosphene.generate.unet_sizes import check_sizes
from phosphene.run.config import Config

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
        count, width : tokens of a response, and values of each
        mapped : tokens of the context
        time, zero_time : the second conditioning
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
