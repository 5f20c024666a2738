"""The dual-guided U-Net: diffusers' image U-Net with, in place of each of its transformers, one for each condition.

Versatile Diffusion (Xu et al. 2023) as Brain-Diffuser (Ozcelik and VanRullen 2023) mixes it. diffusers' own dual
transformer and pipeline for it cannot run (0.42.1: their U-Net hands on a mask that the transformer refuses).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.features.vdvae_config import group_noise
from phosphene.generate.dual_guided_config import DualGuidedConfig, RefineConfig, steps_done
from phosphene.run.config import validate
from phosphene.train.sampling import Draws

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

POSTERIOR, FORWARD = 0, 1
"""Parts of a picture's noise: for its latent under the encoder's distribution, and for the noising process."""


class _Mixed(nn.Module):
    """Two transformers of one place, h + (1 - w) (T_vision(h) - h) + w (T_text(h) - h), w the share of the text."""

    def __init__(self, vision: nn.Module, text: nn.Module):
        super().__init__()
        self.vision, self.text = vision, text

    def forward(
        self, h: Tensor, encoder_hidden_states: Tensor, cross_attention_kwargs: dict[str, Any], **_: Any
    ) -> tuple[Tensor]:
        text, share = cross_attention_kwargs["text"], cross_attention_kwargs["share"]
        alone = {0.0: (self.vision, encoder_hidden_states), 1.0: (self.text, text)}
        if isinstance(share, float) and share in alone:
            transformer, condition = alone[share]
            return transformer(h, encoder_hidden_states=condition, return_dict=False)
        seen = self.vision(h, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
        read = self.text(h, encoder_hidden_states=text, return_dict=False)[0]
        return (seen + share * (read - seen),)


class DualUnet(nn.Module):
    """Predicts the noise in a latent from CLIP tokens of a picture and of a text.

    Parameters
    ----------
    config : fields of :class:`DualGuidedConfig`; Versatile Diffusion's by default. Weights are drawn from torch's
        global generator

    Attributes
    ----------
    unet : diffusers' UNet2DConditionModel with two transformers in place of each
    no_vision, no_text : (tokens, context), what stands for no condition: the tokens of a grey picture and of an empty
        text. Zeros until :meth:`set_unconditional`

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
        from diffusers import UNet2DConditionModel
        from diffusers.models.transformers.transformer_2d import Transformer2DModel

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
        from diffusers import DDIMScheduler

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
        z : (n, channels, size, size), noised latents
        t : (n,) or one int, noise level
        vision : (n, vision_tokens, context)
        text : (n, text_tokens, context)
        share : weight of the text, 0-1, one for all or (n,); at 0.0 and 1.0 the other condition is not looked at

        Returns
        -------
        (n, channels, size, size)
        """
        if isinstance(share, Tensor):
            share = share.view(-1, 1, 1, 1)
        mixed = {"text": text, "share": share}
        return self.unet(z, t, encoder_hidden_states=vision, cross_attention_kwargs=mixed, return_dict=False)[0]

    def guided(
        self, z: Tensor, t: int, vision: Tensor, text: Tensor, share: float = 0.4, guidance: float = 7.5
    ) -> Tensor:
        """Noise under classifier-free guidance: e_u + guidance (e_c - e_u), both conditions dropped together for e_u."""
        if guidance == 1:
            return self(z, t, vision, text, share)
        n = len(z)
        none = self.no_vision.expand_as(vision), self.no_text.expand_as(text)
        both = (torch.cat([u, c]) for u, c in zip(none, (vision, text), strict=True))
        e_u, e_c = self(torch.cat([z, z]), t, *both, share).split(n)
        return e_u + guidance * (e_c - e_u)

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Squared error of predicted noise at a noise level drawn per picture.

        Conditions are dropped per picture, vision and text independently (``drop_vision``, ``drop_text``), and the share
        of the text is drawn per picture as ``mixing`` says.

        Parameters
        ----------
        batch : ``latents`` (n, channels, size, size) scaled to variance 1; ``vision`` and ``text`` tokens; any float
        draws : noise of this step

        Returns
        -------
        scalar, and ``late`` (error at the upper half of noise levels, where the picture's content is decided)
        """
        c, z = self.config, batch["latents"].float()
        t, noise = draws.integers(c.noise_levels), draws.normal(*z.shape[1:])
        no_vision, no_text = draws.uniform() < c.drop_vision, draws.uniform() < c.drop_text
        vision = torch.where(no_vision[:, None, None], self.no_vision, batch["vision"].float())
        text = torch.where(no_text[:, None, None], self.no_text, batch["text"].float())
        share = draws.uniform()
        if c.mixing == "either":
            share = (share < 0.5).float()
        error = (self(self._noising.add_noise(z, noise, t), t, vision, text, share).float() - noise).square()
        late = 2 * t >= c.noise_levels
        with torch.no_grad():
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
        vision : (n, vision_tokens, context)
        text : (n, text_tokens, context)
        ids : n stimulus ids, unique or not; equal ids get equal noise
        seed : of the noise
        first : (n, channels, size, size), scaled latents of the first stage
        steps, strength, guidance, text_share, start : as in :class:`RefineConfig`
        batch_size : pictures that go through the network at once; batches are filled up to it

        Returns
        -------
        (n, channels, size, size) float32, scaled, on the network's device

        Raises
        ------
        DataError
            Conditions or latents of another shape, not finite, or not one per id.
        ConfigError
            Options out of range.
        ModelError
            When the network itself gives NaN.
        """
        asked = {"steps": steps, "strength": strength, "guidance": guidance, "text_share": text_share, "start": start}
        validate(RefineConfig, asked, "the sampling of the dual-guided U-Net")
        if batch_size < 1:
            raise ConfigError(f"batch_size is the number of pictures per pass, at least 1, but is {batch_size}.")
        c, (seen, read) = self.config, self._conditions(vision, text, ids)
        shape = (c.channels, c.size, c.size)
        z0 = None if first is None else self._rows(first, ids, shape, "latents of the first stage")
        k = steps if z0 is None else steps_done(steps, strength)
        if k == 0:
            return z0
        scheduler = self.schedule()
        scheduler.set_timesteps(steps)
        was_training, out = self.training, []
        self.eval()
        for begin in range(0, len(ids), batch_size):
            rows = list(range(begin, min(begin + batch_size, len(ids))))
            # A full batch every time: matrix products of another size would be summed in another order.
            filled = rows + [rows[-1]] * (batch_size - len(rows))
            z = torch.from_numpy(group_noise(seed, [ids[i] for i in filled], FORWARD, shape)).to(self.no_text.device)
            if k < steps:
                level = scheduler.timesteps[steps - k - (start == "published")]
                z = scheduler.add_noise(z0[filled], z, level)
            for t in scheduler.timesteps[steps - k :].tolist():
                e = self.guided(z, t, seen[filled], read[filled], float(text_share), float(guidance))
                z = scheduler.step(e, t, z, eta=0.0).prev_sample
            out.append(z[: len(rows)])
        self.train(was_training)
        drawn = torch.cat(out) if out else self.no_text.new_empty((0, *shape))
        if not bool(torch.isfinite(drawn).all()):
            raise ModelError(
                "the dual-guided U-Net gives NaN or infinite latents: load its weights again, or train again at a lower "
                "learning rate."
            )
        return drawn

    def _conditions(self, vision: Any, text: Any, ids: Sequence[Any]) -> tuple[Tensor, Tensor]:
        c = self.config
        return (
            self._rows(vision, ids, (c.vision_tokens, c.context), "vision tokens"),
            self._rows(text, ids, (c.text_tokens, c.context), "text tokens"),
        )

    def _rows(self, rows: Any, ids: Sequence[Any], shape: tuple[int, ...], what: str) -> Tensor:
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
