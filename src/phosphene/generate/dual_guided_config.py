"""Sizes of the dual-guided diffusion network and how it refines pictures, as plain values that load without torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from phosphene.generate.unet_sizes import check_sizes
from phosphene.run.config import Config


class DualGuidedConfig(Config):
    """A U-Net over an autoencoder's latents that looks at CLIP tokens of pictures and of texts.

    The defaults are Versatile Diffusion's image flow with the context layers of its two image-making flows, as
    Brain-Diffuser uses them; its share of dropped conditions was not published, 0.1 is the custom.

    Examples
    --------
    >>> config = DualGuidedConfig.paper()
    >>> (config.vision_tokens, config.context), (config.text_tokens, config.context)
    ((257, 768), (77, 768))
    """

    size: int = Field(64, ge=1, description="rows and columns of a latent")
    channels: int = Field(4, ge=1, description="channels of a latent")
    widths: tuple[int, ...] = Field((320, 640, 1280, 1280), min_length=1, description="channels per halving")
    attention: tuple[bool, ...] = Field((True, True, True, False), description="which sizes look at the conditions")
    blocks: int = Field(2, ge=1, description="residual blocks per size on the way down; one more on the way up")
    heads: int = Field(8, ge=1, description="attention heads, a divisor of each width")
    groups: int = Field(32, ge=1, description="of group norms, a divisor of each width")
    context: int = Field(768, ge=1, description="values per token of a condition")
    vision_tokens: int = Field(257, ge=1, description="tokens of a picture: the class token and its patches")
    text_tokens: int = Field(77, ge=1, description="tokens of a text")
    noise_levels: int = Field(1000, ge=2, description="steps of the noising process")
    beta_start: float = Field(0.00085, gt=0, lt=1, description="variance added by its first step")
    beta_end: float = Field(0.012, gt=0, lt=1, description="and by its last; square roots rise evenly")
    mixing: Literal["either", "uniform"] = Field(
        "either",
        description="share of the text in training: 0 or 1, a fair coin per picture, as flows are trained one at a time; "
        "or anything between",
    )
    drop_vision: float = Field(0.1, ge=0, lt=1, description="share of pictures trained without the vision condition")
    drop_text: float = Field(0.1, ge=0, lt=1, description="without the text condition, independently")

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
        }


class RefineConfig(Config):
    """How pictures are refined. The defaults are Brain-Diffuser's, which the two-stage decoder takes over."""

    steps: int = Field(50, ge=1, le=500, description="DDIM steps from pure noise")
    strength: float = Field(
        0.75, ge=0, le=1, description="share of these that are done: 0 keeps the first stage, 1 ignores it"
    )
    guidance: float = Field(7.5, ge=0, description="1 is the conditional prediction alone, 0 the unconditional one")
    text_share: float = Field(0.4, ge=0, le=1, description="weight of the text; the vision condition gets the rest")
    start: Literal["published", "aligned"] = Field(
        "published",
        description="noise level of the first stage: one step above the first that is taken back, as published, or that one",
    )
    posterior: Literal["sample", "mean"] = Field(
        "sample", description="latent of the first stage: drawn from the encoder's distribution, or its mean"
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

    Examples
    --------
    >>> steps_done(50, 0.75), steps_done(100, 0.29)
    (37, 29)
    """
    # 0.29 x 100 is 28.999999999999996.
    return int(round(strength * steps, 9))
