"""Sizes of the conditional StyleGAN2, how it is trained and how pictures are drawn, as plain values without torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from phosphene.run.config import Config


class StyleGan2Config(Config):
    """Generator and discriminator of one size. The defaults are Mind Reader's: 256 px, two CLIP conditions.

    Examples
    --------
    >>> c = StyleGan2Config()
    >>> c.sizes, c.channels(256), c.slots
    ((4, 8, 16, 32, 64, 128, 256), 128, 14)
    """

    size: int = Field(256, ge=8, description="side of a picture in pixels, a power of two")
    z: int = Field(512, ge=1, description="values of the noise a picture is drawn from")
    w: int = Field(512, ge=1, description="values the noise is mapped to")
    mapping_layers: int = Field(8, ge=1, description="layers of this mapping")
    condition: int = Field(512, ge=1, description="values of each condition")
    conditions: int = Field(
        2, ge=0, description="how many conditions: image and text; 0 for a generator of noise alone"
    )
    style: int = Field(512, ge=1, description="values the conditions become before they meet w")
    condition_gain: float = Field(1.0, gt=0, description="what conditions, of unit length, are multiplied by in styles")
    condition_pace: float = Field(0.01, gt=0, description="how fast the conditions' layers learn, beside others")
    channel_base: int = Field(32768, ge=8, description="channels times pixels along a side, up to channel_max")
    channel_max: int = Field(512, ge=1, description="most channels of a layer")
    group: int = Field(4, ge=1, description="pictures whose deviation the discriminator sees together")
    logit: Literal["each", "batch"] = Field(
        "each", description="match of features and conditions in a logit: of its own picture, or summed over the batch"
    )

    @model_validator(mode="after")
    def _powers_of_two(self) -> Self:
        if self.size & (self.size - 1):
            raise ValueError(f"size {self.size} must be a power of two")
        if self.channel_base < self.size:
            raise ValueError(f"channel_base {self.channel_base} leaves no channel at {self.size} px")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the pictures inside, from 4."""
        return tuple(2**i for i in range(2, self.size.bit_length()))

    def channels(self, size: int) -> int:
        """Channels at a size."""
        return min(self.channel_base // size, self.channel_max)

    @property
    def hidden(self) -> int:
        """Width between the two layers of a condition."""
        return (self.condition + self.style) // 2

    @property
    def noise_sizes(self) -> tuple[int, ...]:
        """Side of the noise that each convolution adds, in order."""
        return (4, *(size for size in self.sizes[1:] for _ in range(2)))

    @property
    def slots(self) -> int:
        """Places that a w goes to: one per convolution, and one for the last colours."""
        return len(self.noise_sizes) + 1

    @classmethod
    def paper(cls) -> Self:
        """Mind Reader: 55,503,266 weights, and 29,389,441 of its discriminator."""
        return cls()

    @classmethod
    def lab(cls) -> Self:
        """The in-silico lab: 32 px, two latents of 64 values of the lab's CLIP; 916,083 weights.

        Thousands of steps from nothing, where the paper has millions of pictures from pretrained weights: conditions enter
        with unit variance and learn faster, or they would hardly be heard.
        """
        return cls(
            size=32, z=64, w=64, mapping_layers=4, condition=64, style=64, channel_base=1024, channel_max=128,
            condition_gain=8.0, condition_pace=0.3,
        )  # fmt: skip


class GameConfig(Config):
    """What generator and discriminator are trained on. The defaults are Mind Reader's; weights of its appendix are those of
    its released code.
    """

    tau: float = Field(0.5, gt=0, description="temperature of every contrast")
    row_share: float = Field(
        0.0, ge=0, le=1, description="of a contrast's two directions; 0: a condition finds its picture"
    )
    clip_weight: float = Field(10.0, ge=0, description="CLIP of a drawn picture finds its conditions (itc)")
    features_weight: float = Field(10.0, ge=0, description="the discriminator's features find their conditions (itd)")
    real_clip_weight: float = Field(0.0, ge=0, description="CLIP of a drawn picture finds that of the true one (iic)")
    real_features_weight: float = Field(0.0, ge=0, description="the discriminator's features of drawn and true (iid)")
    low_level_weight: float = Field(0.0, ge=0, description="low-level features of drawn and true (ires); 10 where used")
    crop: float = Field(
        0.5, gt=0, le=1, description="least side of the square that CLIP sees, of the picture's; 1: all"
    )
    noise: float = Field(0.1, ge=0, le=1, description="share of noise in a condition")
    pseudo: float = Field(
        0.0, ge=0, le=1, description="chance that a condition is its picture's CLIP latent, well noised"
    )
    pseudo_noise: float = Field(0.75, ge=0, le=1, description="share of noise in such a condition")
    z: Literal["normal", "zero"] = Field("normal", description="the noise trained with; the released code has zeros")
    mixing: float = Field(0.9, ge=0, le=1, description="chance that a picture takes its styles from two noises")
    r1: float = Field(10.0, ge=0, description="weight of the discriminator's squared gradient at true pictures (gamma)")
    r1_every: int = Field(16, ge=1, description="steps between these")
    path: float = Field(2.0, ge=0, description="weight of the generator's path length penalty")
    path_every: int = Field(4, ge=1, description="steps between these")
    path_decay: float = Field(0.01, gt=0, le=1, description="pace of the running mean of path lengths")
    path_shrink: int = Field(2, ge=1, description="the penalty sees the batch divided by this")
    ada_target: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="adaptive augmentation keeps the mean sign of true logits here (0.6); 0: no augmentation",
    )
    ada_thousands: float = Field(
        500.0, gt=0, description="thousands of pictures in which its chance can rise from 0 to 1"
    )
    ada_every: int = Field(4, ge=1, description="steps between its adjustments")


class SamplingConfig(Config):
    """How pictures are drawn."""

    samples: int = Field(1, ge=1, description="pictures per stimulus")
    truncation: float = Field(1.0, ge=0, le=1, description="psi: 1 takes w as drawn, 0 its mean over all noises")
    pixel_noise: bool = Field(True, description="whether each convolution adds noise of its own")
