"""A Very Deep VAE: pictures as groups of latents from 1 x 1 to full size, and back. Child 2021, ICLR.

::

    picture -> encoder, fine to coarse -> what it saw at each size
    1 x 1 -> 4 x 4 -> ... -> full size, block by block:
        prior      p(z_k | z_1 .. z_{k-1})             from the state alone
        posterior  q(z_k | z_1 .. z_{k-1}, picture)    from the state and what the encoder saw at this size
        state      += a share of the prior + projection of z_k, then a residual block
    state at full size -> mixture of discretised logistics over the 256 values of each pixel

Training takes every z_k from the posterior. Brain decoders give the first groups, and the prior fills in the rest. Names
of modules are those of the public code, so that its checkpoints load as they are; pictures are -1 to 1 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import DataError
from phosphene.features.vdvae_config import VdvaeConfig
from phosphene.run.config import validate
from phosphene.train.sampling import Draws

Noise = Callable[[int, tuple[int, ...]], Tensor]
"""Group, from 0, and its (channels, height, width) to standard normal noise (n, channels, height, width)."""


class _Block(nn.Module):
    """Four convolutions through a narrow middle; 3 x 3 in between where there is more than 2 x 2 to look at."""

    def __init__(self, n_in: int, middle: int, n_out: int, resolution: int):
        super().__init__()
        size = 3 if resolution > 2 else 1
        self.c1, self.c4 = nn.Conv2d(n_in, middle, 1), nn.Conv2d(middle, n_out, 1)
        self.c2, self.c3 = (nn.Conv2d(middle, middle, size, padding=size // 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.c1, self.c2, self.c3, self.c4):
            x = conv(F.gelu(x))
        return x


class _Encoder(nn.Module):
    def __init__(self, c: VdvaeConfig):
        super().__init__()
        self.steps, n = c.encoder_steps, len(c.encoder_steps)
        self.in_conv = nn.Conv2d(3, c.width, 3, padding=1)
        self.enc_blocks = nn.ModuleList(_Block(c.width, c.middle, c.width, s.resolution) for s in self.steps)
        for block in self.enc_blocks:
            block.c4.weight.data *= n**-0.5  # so that n residual blocks together add about as much as one

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """What is seen at each size, by that size: (n, width, size, size)."""
        x = self.in_conv(x)
        seen = {x.shape[2]: x}
        for step, block in zip(self.steps, self.enc_blocks, strict=True):
            x = x + block(x)
            if step.pool > 1:
                x = F.avg_pool2d(x, step.pool)
            seen[x.shape[2]] = x
        return seen


class _Layer(nn.Module):
    """Prior, posterior and state of one group of latents."""

    def __init__(self, c: VdvaeConfig, resolution: int):
        super().__init__()
        z, width, n = c.latent_channels, c.width, len(c.decoder_steps)
        self.enc = _Block(2 * width, c.middle, 2 * z, resolution)
        self.prior = _Block(width, c.middle, 2 * z + width, resolution)
        self.z_proj = nn.Conv2d(z, width, 1)
        self.resnet = _Block(width, c.middle, width, resolution)
        nn.init.zeros_(self.prior.c4.weight)
        self.z_proj.weight.data *= n**-0.5
        self.resnet.c4.weight.data *= n**-0.5


class _Decoder(nn.Module):
    def __init__(self, c: VdvaeConfig):
        super().__init__()
        self.config, width = c, c.width
        self.dec_blocks = nn.ModuleList(_Layer(c, s.resolution) for s in c.decoder_steps)
        self.bias_xs = nn.ParameterList(nn.Parameter(torch.zeros(1, width, r, r)) for r in c.resolutions)
        self.gain, self.bias = nn.Parameter(torch.ones(1, width, 1, 1)), nn.Parameter(torch.zeros(1, width, 1, 1))
        self.out_net = nn.ModuleDict({"out_conv": nn.Conv2d(width, 10 * c.mixtures, 1)})

    def forward(self, n: int, latent: Callable[..., Tensor], stop: int | None = None) -> Tensor | None:
        """Parameters of the pixels' distributions of `n` pictures, (n, 10 mixtures, size, size).

        `latent(k, layer, state, mean, log_std)` gives z_k: all that tells training, encoding and decoding apart. With
        `stop`, only that many blocks are gone through, and nothing comes out.
        """
        c = self.config
        parts = (c.latent_channels, c.latent_channels, c.width)
        states = {b.shape[2]: b.expand(n, -1, -1, -1) for b in self.bias_xs}
        for k, (layer, step) in enumerate(zip(self.dec_blocks[:stop], c.decoder_steps, strict=False)):
            x = states[step.resolution]
            if step.mixin is not None:
                x = x + F.interpolate(states[step.mixin], scale_factor=step.resolution // step.mixin)
            mean, log_std, more = layer.prior(x).split(parts, 1)
            z = latent(k, layer, x, mean, log_std)
            x = x + more + layer.z_proj(z)
            states[step.resolution] = x + layer.resnet(x)
        if stop is not None:
            return None
        return self.out_net["out_conv"](states[c.image_size] * self.gain + self.bias)


class Vdvae(nn.Module):
    """The network, its training loss, and both ways through it.

    Parameters
    ----------
    config : fields of :class:`VdvaeConfig`; the public ImageNet-64 network's by default. Weights are drawn from torch's
        global generator

    Raises
    ------
    ConfigError
        For fields that do not exist or do not fit.

    References
    ----------
    Child 2021, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images"; its public code.

    Examples
    --------
    >>> network = Vdvae(**VdvaeConfig.lab().model_dump())
    >>> x = torch.zeros(2, 3, 32, 32)
    >>> [tuple(z.shape) for z in network.encode(x, groups=3)]
    [(2, 4, 1, 1), (2, 4, 4, 4), (2, 4, 4, 4)]
    >>> network.picture(network.encode(x)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(self, **config: Any):
        super().__init__()
        self.config = validate(VdvaeConfig, config, "the configuration of the Very Deep VAE")
        self.encoder, self.decoder = _Encoder(self.config), _Decoder(self.config)
        for name, weight in self.named_parameters():
            if name.endswith(".bias") and weight.ndim == 1:
                nn.init.zeros_(weight)

    def posterior(self, x: Tensor, noise: Noise | None, stop: int | None = None) -> tuple[list, list, Tensor | None]:
        """Pictures through encoder and decoder.

        Parameters
        ----------
        x : (n, 3, size, size), -1 to 1
        noise : of the posterior's samples; its means are taken, from coarse to fine, when None
        stop : blocks of the decoder to go through; all by default

        Returns
        -------
        latents, one (n, channels, height, width) per group; divergences of posterior from prior in nats, of the same
        shapes; and parameters of the pixels' distributions, None with `stop`

        Raises
        ------
        DataError
            For pictures of another shape.
        """
        c = self.config
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, c.image_size, c.image_size):
            raise DataError(
                f"this network takes pictures of (n, 3, {c.image_size}, {c.image_size}), but got {tuple(x.shape)}; resize "
                "them first."
            )
        seen = self.encoder(((x + 1) * 127.5 - c.shift) / c.scale)
        latents: list[Tensor] = []
        divergences: list[Tensor] = []

        def latent(k: int, layer: _Layer, state: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
            q_mean, q_log_std = layer.enc(torch.cat([state, seen[state.shape[2]]], 1)).chunk(2, 1)
            z = q_mean if noise is None else q_mean + q_log_std.exp() * noise(k, c.shapes[k])
            latents.append(z)
            divergences.append(gaussian_kl(q_mean.float(), q_log_std.float(), mean.float(), log_std.float()))
            return z

        return latents, divergences, self.decoder(len(x), latent, stop)

    def encode(self, x: Tensor, groups: int | None = None, noise: Noise | None = None) -> list[Tensor]:
        """Latents of pictures, coarse to fine.

        Parameters
        ----------
        x : (n, 3, size, size), -1 to 1
        groups : how many first groups are wanted; finer ones are then not computed. All by default
        noise : for a sample of the posterior, as the published decoders take; its means when None

        Returns
        -------
        one (n, channels, height, width) per group
        """
        self.config.length(groups)
        return self.posterior(x, noise, groups or len(self.config.shapes))[0]

    def decode(self, latents: Sequence[Tensor], n: int, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        """Parameters of the pixels' distributions from the first groups of latents, (n, 10 mixtures, size, size).

        Groups that are not given are drawn from the prior, each given those before it: mean + temperature * standard
        deviation * noise; the mean alone without `noise`.
        """

        def latent(k: int, layer: _Layer, state: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
            if k < len(latents):
                return latents[k]
            if noise is None or temperature == 0:
                return mean
            return mean + temperature * log_std.exp() * noise(k, self.config.shapes[k])

        return self.decoder(n, latent)

    def picture(self, latents: Sequence[Tensor]) -> Tensor:
        """Expected pictures of at least one group of latents, nothing drawn: (n, 3, size, size), -1 to 1."""
        return mixture_mean(self.decode(latents, len(latents[0])).float())

    def elbo(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Both parts of the evidence bound, in bits per value of a picture: pixels (n,), and each group (n, groups).

        Their sum over groups and pixels bounds the cost of a picture from above.
        """
        _, divergences, parameters = self.posterior(x, noise)
        bits = 1 / (math.log(2) * x[0].numel())
        pixels = -mixture_log_likelihood(parameters.float(), x).sum((1, 2)) * bits
        return pixels, torch.stack([d.sum((1, 2, 3)) for d in divergences], 1) * bits

    def loss(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        """Negative evidence bound, in bits per value of a picture.

        Parameters
        ----------
        batch : ``x`` (n, 3, size, size), -1 to 1, on the 256 levels of 8 bits
        draws : noise of this step

        Returns
        -------
        scalar, and its two parts: ``pixels`` and ``latents``
        """
        pixels, latents = self.elbo(batch["x"], lambda k, shape: draws.normal(*shape))
        pixels, latents = pixels.mean(), latents.sum(1).mean()
        return pixels + latents, {"pixels": pixels, "latents": latents}


def gaussian_kl(mean: Tensor, log_std: Tensor, prior_mean: Tensor, prior_log_std: Tensor) -> Tensor:
    """KL divergence of one normal distribution from another, in nats, element by element.

    ln(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2
    """
    spread = (2 * (log_std - prior_log_std)).exp() + ((mean - prior_mean) * (-prior_log_std).exp()).square()
    return prior_log_std - log_std + 0.5 * spread - 0.5


# -- pixels: a mixture of discretised logistics --------------------------------------------------------------------------


def _mixture(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(n, 10 m, h, w) to log weights (n, m, h, w), and means, log scales and coefficients (n, 3, m, h, w)."""
    n, channels, h, w = parameters.shape
    m = channels // 10
    rest = parameters[:, m:].reshape(n, 3, 3, m, h, w)  # colour, kind, mixture
    return parameters[:, :m].log_softmax(1), rest[:, :, 0], rest[:, :, 1].clamp(min=-7), rest[:, :, 2].tanh()


def _means_given(means: Tensor, coefficients: Tensor, red: Tensor, green: Tensor) -> Tensor:
    """Means of a pixel's three colours where green knows red, and blue knows both: (n, 3, m, h, w)."""
    m_green = means[:, 1] + coefficients[:, 0] * red
    m_blue = means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green
    return torch.stack([means[:, 0], m_green, m_blue], 1)


def discretised_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of one of 256 levels, -1 to 1, under a logistic distribution; the outer two take the tails.

        s(b + d) - s(b) = s(b + d) s(-b) (1 - exp(-d)),    s the sigmoid, d the width of a level in scales

    The product, unlike the difference, loses no digits where a level is improbable.
    """
    inverse = (-log_scale).exp()
    upper, lower = (x - mean + 1 / 255) * inverse, (x - mean - 1 / 255) * inverse
    below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
    width = (2 / 255 * inverse).clamp(min=1e-30)  # pictures of black and white alone drive scales beyond float32
    inside = below + above + torch.log(-torch.expm1(-width))
    return torch.where(x < -0.999, below, torch.where(x > 0.999, above, inside))


def mixture_log_likelihood(parameters: Tensor, x: Tensor) -> Tensor:
    """Log probability of each pixel's three colours, in nats.

    Parameters
    ----------
    parameters : (n, 10 m, h, w)
    x : (n, 3, h, w), -1 to 1, on the 256 levels of 8 bits

    Returns
    -------
    (n, h, w)

    References
    ----------
    Salimans et al. 2017, "PixelCNN++", section 2.1.
    """
    log_weights, means, log_scales, coefficients = _mixture(parameters)
    x = x[:, :, None]  # (n, 3, 1, h, w)
    means = _means_given(means, coefficients, x[:, 0], x[:, 1])
    return (discretised_logistic(x, means, log_scales).sum(1) + log_weights).logsumexp(1)


def mixture_mean(parameters: Tensor) -> Tensor:
    """Expected pixels without regard to the ends of the range, then clipped to -1 to 1: (n, 3, h, w)."""
    log_weights, means, _, coefficients = _mixture(parameters)
    red = means[:, 0]
    green = means[:, 1] + coefficients[:, 0] * red
    means = _means_given(means, coefficients, red, green)
    return (means * log_weights.exp()[:, None]).sum(2).clamp(-1, 1)


def mixture_sample(parameters: Tensor, u: Tensor) -> Tensor:
    """Pixels drawn as the published decoders draw them, not rounded to levels: (n, 3, h, w), -1 to 1.

    Parameters
    ----------
    parameters : (n, 10 m, h, w)
    u : (n, m + 3, h, w), uniform in [0, 1): m values choose one of the mixture, three draw the colours
    """
    log_weights, means, log_scales, coefficients = _mixture(parameters)
    m = log_weights.shape[1]
    u = 1e-5 + (1 - 2e-5) * u  # the tails that the public code leaves out
    chosen = (log_weights - torch.log(-torch.log(u[:, :m]))).argmax(1)[:, None, None].expand(-1, 3, -1, -1, -1)
    means, log_scales, coefficients = (a.gather(2, chosen)[:, :, 0] for a in (means, log_scales, coefficients))
    x = means + log_scales.exp() * torch.logit(u[:, m:])
    red = x[:, 0].clamp(-1, 1)
    green = (x[:, 1] + coefficients[:, 0] * red).clamp(-1, 1)
    blue = (x[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green).clamp(-1, 1)
    return torch.stack([red, green, blue], 1)
