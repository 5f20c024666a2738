"""The U-Net of latent diffusion with its two conditionings: tokens it looks at, and a vector beside the time (CAD, section
3.3, "time steps conditioning").

::

    tokens (n, count, width) -> context (n, 77, 512) -> cross-attention
                                        |-> one vector, added to the embedding of the time

Chen et al. 2023, "Seeing beyond the brain" (MinD-Vis), section 3.2; Sun et al. 2023 (CAD), section 3.3. What the U-Net
knows of pictures it was taught with labels (Rombach et al. 2022): :class:`Labels` gives that network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import ConfigError, DataError, ModelError
from phosphene.features.vdvae_config import picture_rng
from phosphene.generate.ldm_config import Labels, LdmConfig, LdmSampling
from phosphene.run.config import validate
from phosphene.train.sampling import Draws

if TYPE_CHECKING:
    from diffusers import PNDMScheduler

Tuned = Literal["cross_attention", "frozen", "all"]


class _Mapper(nn.Module):
    """(n, count, width) to (n, mapped, out): first over tokens in two steps without a nonlinearity, then over values."""

    def __init__(self, count: int, mapped: int | None, width: int, out: int):
        super().__init__()
        half = max(1, count // 2)
        # A convolution of length one over tokens as channels, as the public checkpoints hold it.
        steps = [nn.Conv1d(count, half, 1), nn.Conv1d(half, mapped, 1)] if mapped else []
        self.tokens, self.values = nn.Sequential(*steps), nn.Linear(width, out)

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
    config : fields of :class:`LdmConfig`; those of MinD-Vis and CAD by default. Weights are drawn from torch's global
        generator

    Attributes
    ----------
    unet : diffusers' UNet2DConditionModel
    condition : what makes the context
    time : the second conditioning, None without
    signal : (noise_levels,) share of a latent's variance that is left after so many steps of noising

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
        condition : (n, count, width) float, brain tokens; or (n, kinds) integers, labels

        Returns
        -------
        (n, context_tokens, context), and (n, time_width) or None

        Raises
        ------
        DataError
            For a condition of another shape.
        """
        c = self.config.condition
        shape = (len(c.classes),) if isinstance(c, Labels) else (c.count, c.width)
        if tuple(condition.shape[1:]) != shape:
            what = "labels" if isinstance(c, Labels) else "brain tokens"
            raise DataError(
                f"this network draws from {what} of shape (n, {', '.join(map(str, shape))}), but {tuple(condition.shape)} came; "
                "condition it as it was trained, or make it anew with with_tokens."
            )
        tokens = self.condition(condition)
        if self.time is None:
            return tokens, None
        pooled = tokens.mean(1, keepdim=True) if self.config.time == "mean" else tokens
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
        batch : ``latents`` (n, channels, size, size), as :meth:`phosphene.generate.ldm.Ldm.encode` gives them; ``tokens``
            (n, count, width) or ``labels`` (n, kinds)
        draws : noise of this step

        Returns
        -------
        scalar, and ``early`` and ``late``: the same of the pictures of this part with a signal above and below one half
        """
        c, z = self.config, batch["latents"].float()
        time, noise = draws.integers(c.noise_levels), draws.normal(*z.shape[1:])
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
        what : ``cross_attention``, the heads that look at the context with the norms before them, the code's choice and
            that of CAD's section 4.2.2; ``frozen``, nothing of the U-Net, CAD's section 3.3; or ``all``. Both conditionings
            are open in any case

        Returns
        -------
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
        count, width : tokens of a response, and values of each
        seed : of the new weights
        changes : ``mapped``, ``time``, ``zero_time`` of :meth:`LdmConfig.with_tokens`

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
        condition : (n, count, width) floats, brain tokens; or (n, kinds) integers, labels
        ids : n stimulus ids, unique or not; equal ids get equal noise
        seed : of all noise
        steps : of PLMS; the U-Net is called once more than that
        samples : latents per condition
        batch_size : latents that go through the network at once; batches are filled up to it

        Returns
        -------
        (n, samples, channels, size, size) float32

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
        c, x = self.config, self._checked(condition, ids)
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
        c, x = self.config.condition, torch.as_tensor(condition)
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
