"""The game that trains the conditional StyleGAN2: generator against discriminator, with conditions that pictures must match.

:class:`Game` is a network for :func:`phosphene.train.train`: each step has turns, in each of which one side learns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import ConfigError
from phosphene.generate.stylegan2_augment import augmented
from phosphene.generate.stylegan2_config import GameConfig
from phosphene.generate.stylegan2_network import Discriminator, Generator
from phosphene.train import Draws, TrainConfig

See = Callable[[Tensor], Tensor]
"""Pictures (n, 3, side, side), -1 to 1, to features (n, d), with gradients flowing back."""


def contrast(a: Tensor, b: Tensor, tau: float = 0.5, row_share: float = 0.0) -> Tensor:
    """How badly rows of `b` find their own row of `a` among all, and the other way round.

        S_ij = cos(a_i, b_j) / tau
        C = - mean_i [ r log softmax_j(S)_ii + (1 - r) log softmax_i(S)_ii ]

    Parameters
    ----------
    a, b : (n, d)
    tau : temperature, above 0
    row_share : r

    Returns
    -------
    scalar; ln(n) when nothing is told apart

    References
    ----------
    Lin et al. 2022, eq. 1; r = 0 and tau = 0.5 in the released code, which takes the logarithm of tau times the softmax:
    another constant, the same gradient.
    """
    s = F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).T / tau
    own = torch.arange(len(s), device=s.device)
    parts = [(row_share, s), (1 - row_share, s.T)]
    return sum(share * F.cross_entropy(logits, own) for share, logits in parts if share)


def noised(c: Tensor, noise: Tensor, share: float) -> Tensor:
    """Unit vectors drawn towards noise: norm((1 - share) norm(c) + share norm(noise)), over the last axis."""
    return F.normalize((1 - share) * F.normalize(c, dim=-1) + share * F.normalize(noise, dim=-1), dim=-1)


def position_means(maps: Tensor, kind: str = "mean") -> Tensor:
    """One value per position from feature maps (n, channels, h, w): (n, h w).

    Parameters
    ----------
    kind : "mean" over channels, over its largest value in the picture; or "released", as Mind Reader's code has it:
        largest and mean over channels, over the largest of each in the whole batch, the mean twice
    """
    mean = maps.mean(1).flatten(1)
    if kind == "mean":
        return mean / mean.abs().amax(1, keepdim=True).clamp(min=1e-12)
    largest = maps.amax(1).flatten(1)
    return largest / largest.max() + 2 * mean / mean.max()


class Game(nn.Module):
    """Both networks and all terms of their losses.

    Parameters
    ----------
    network : the generator, which is what is kept in the end
    discriminator : of the same sizes
    config : weights of the terms
    see : CLIP's latents of pictures, at the size CLIP takes; None leaves these terms out
    low_level : low-level features; needed where their weight is not 0
    side : of the pictures `see` takes; the generator's by default

    Notes
    -----
    The turns of a step are those of StyleGAN2's released training: generator, its path length every 4th step,
    discriminator, R1 every 16th. Each is a step of Adam of its own; penalties are multiplied by their interval.
    """

    path_mean: Tensor
    chance: Tensor
    signs: Tensor

    def __init__(
        self,
        network: Generator,
        discriminator: Discriminator,
        config: GameConfig,
        see: See | None = None,
        low_level: See | None = None,
        side: int | None = None,
    ) -> None:
        super().__init__()
        self.network, self.discriminator, self.rules = network, discriminator, config
        self._see, self._low_level, self._side = see, low_level, side or network.config.size
        wanting = {"see": (see, config.clip_weight + config.real_clip_weight + config.pseudo)}
        wanting["low_level"] = (low_level, config.low_level_weight)
        for name, (found, weight) in wanting.items():
            if weight and found is None:
                raise ConfigError(f"a term of the game has a weight but no '{name}' was given; give it, or set 0.")
        self.register_buffer("path_mean", torch.zeros(()))
        self.register_buffer("chance", torch.zeros(()))  # of each augmentation
        self.register_buffer("signs", torch.zeros(2))  # sum and count of signs of true logits since the last adjustment

    def turns(self, step: int) -> list[str]:
        """What is learned in a step, in order."""
        rules = self.rules
        path = ["path"] if rules.path and step % rules.path_every == 0 else []
        r1 = ["r1"] if rules.r1 and step % rules.r1_every == 0 else []
        return ["generator", *path, "discriminator", *r1]

    def loss(self, batch: dict[str, Tensor], draws: Draws, turn: str) -> tuple[Tensor, dict[str, Any]]:
        """The loss of one turn; only the weights that learn in it get gradients.

        Parameters
        ----------
        batch : ``x`` (n, 3, size, size), -1 to 1, and ``conditions`` (n, conditions, condition)
        draws : noise of this turn
        turn : "generator", "path", "discriminator" or "r1"
        """
        self.network.requires_grad_(turn in ("generator", "path"))
        self.discriminator.requires_grad_(turn in ("discriminator", "r1"))
        return getattr(self, f"_{turn}")(batch["x"], self._conditions(batch, draws), draws)

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _generator(self, x: Tensor, c: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        rules = self.rules
        drawn = self._draw(c, draws)[0]
        logit, features = self.discriminator(self._augment(drawn, draws), c)
        game = F.softplus(-logit).mean()
        terms = {"generator": game, "features": rules.features_weight * self._matches(features, c)}
        if rules.clip_weight or rules.real_clip_weight:
            seen = self._see(self._view(drawn, draws))
            terms["clip"] = rules.clip_weight * self._matches(seen[:, None].expand(-1, c.shape[1], -1), c)
        if rules.real_clip_weight:
            terms["real clip"] = rules.real_clip_weight * self._contrast(seen, self._latents(x))
        if rules.real_features_weight:
            with torch.no_grad():
                real = self.discriminator(x, c)[1]
            terms["real features"] = rules.real_features_weight * self._matches(real, features)
        if rules.low_level_weight:
            with torch.no_grad():
                real = self._low_level(x)
            terms["low level"] = rules.low_level_weight * self._contrast(real, self._low_level(drawn))
        return sum(terms.values()), terms

    def _path(self, x: Tensor, c: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        rules, n = self.rules, max(1, len(c) // self.rules.path_shrink)
        picture, w = self._draw(c, draws, n)
        y = draws.normal(*picture.shape[1:])[:n] / math.sqrt(picture.shape[2] * picture.shape[3])
        (slope,) = torch.autograd.grad((picture * y).sum(), w, create_graph=True)
        length = slope.square().sum(2).mean(1).sqrt()
        mean = self.path_mean.lerp(length.mean(), rules.path_decay)
        self.path_mean.copy_(mean.detach())
        penalty = (length - mean).square().mean()
        return rules.path * rules.path_every * penalty, {"path length": mean}

    def _discriminator(self, x: Tensor, c: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        with torch.no_grad():
            drawn = self._draw(c, draws)[0]
        fake, _ = self.discriminator(self._augment(drawn, draws), c)
        real, features = self.discriminator(self._augment(x, draws), c)
        self._adjust(real.detach())
        game = F.softplus(fake).mean() + F.softplus(-real).mean()
        matches = self._matches(features, c)
        logs = {"discriminator": game, "real features": matches, "true logit": real.mean(), "drawn logit": fake.mean()}
        return game + self.rules.features_weight * matches, logs

    def _r1(self, x: Tensor, c: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        # At what the discriminator is shown: sampling pictures anew, as augmentation does, has no second derivative.
        x = self._augment(x, draws).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(self.discriminator(x, c)[0].sum(), x, create_graph=True)
        penalty = slope.square().sum((1, 2, 3)).mean()
        # Weights the slope does not depend on, such as the last bias, would have no gradient at all.
        return self.rules.r1 / 2 * self.rules.r1_every * penalty, {"r1": penalty}

    # -- what they share -----------------------------------------------------------------------------------------------

    def _conditions(self, batch: dict[str, Tensor], draws: Draws) -> Tensor:
        c, rules = batch["conditions"], self.rules
        out = noised(c, draws.normal(*c.shape[1:]), rules.noise)
        if rules.pseudo:
            seen = self._latents(batch["x"])[:, None].expand_as(c)
            pseudo = noised(seen, draws.normal(*c.shape[1:]), rules.pseudo_noise)
            out = torch.where((draws.uniform() < rules.pseudo)[:, None, None], pseudo, out)
        return out

    def _draw(self, c: Tensor, draws: Draws, n: int | None = None) -> tuple[Tensor, Tensor]:
        """Pictures of the first `n` conditions, and the w they are of, one for each layer."""
        config, n = self.network.config, n or len(c)
        z = draws.normal(2, config.z)[:n]
        one = torch.zeros_like(z[:, 0]) if self.rules.z == "zero" else z[:, 0]
        w = self.network.map(one)
        self.network.follow(w)
        cut = int(torch.randint(1, config.slots, (), generator=draws.generator))
        mixed = float(torch.rand((), generator=draws.generator)) < self.rules.mixing
        w = w[:, None].expand(-1, config.slots, -1)
        if mixed:
            other = self.network.map(z[:, 1])[:, None].expand(-1, config.slots - cut, -1)
            w = torch.cat([w[:, :cut], other], 1)
        noise = [draws.normal(1, side, side)[:n] for side in config.noise_sizes]
        return self.network.paint(w, c[:n], noise), w

    def _contrast(self, a: Tensor, b: Tensor) -> Tensor:
        return contrast(a, b, self.rules.tau, self.rules.row_share)

    def _matches(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean contrast over conditions of (n, conditions, d)."""
        if not a.shape[1]:
            return a.new_zeros(())
        return sum(self._contrast(a[:, k], b[:, k]) for k in range(a.shape[1])) / a.shape[1]

    def _view(self, x: Tensor, draws: Draws) -> Tensor:
        """One random square of all pictures, at the size CLIP takes."""
        side, least = x.shape[2], int(self.rules.crop * x.shape[2])
        if least < side:
            side = int(torch.randint(least, x.shape[2], (), generator=draws.generator))
            top, left = torch.randint(x.shape[2] - side + 1, (2,), generator=draws.generator).tolist()
            x = x[:, :, top : top + side, left : left + side]
        if side == self._side:
            return x
        return F.interpolate(x, (self._side, self._side), mode="bicubic", align_corners=False)

    @torch.no_grad()
    def _latents(self, x: Tensor) -> Tensor:
        if x.shape[2] != self._side:
            x = F.interpolate(x, (self._side, self._side), mode="bicubic", align_corners=False)
        return self._see(x)

    def _augment(self, x: Tensor, draws: Draws) -> Tensor:
        return augmented(x, draws, float(self.chance)) if self.rules.ada_target else x

    @torch.no_grad()
    def _adjust(self, real: Tensor) -> None:
        """Augment more where true pictures are told too surely, less where not (Karras et al. 2020, ADA, section 3.1)."""
        rules = self.rules
        if not rules.ada_target:
            return
        self.signs += torch.stack([real.sign().sum(), torch.full_like(real[0], len(real))])
        if self.signs[1] >= rules.ada_every * len(real):
            step = float(self.signs[1]) / (1000 * rules.ada_thousands)
            self.chance += step * torch.sign(self.signs[0] / self.signs[1] - rules.ada_target)
            self.chance.clamp_(0, 1)
            self.signs.zero_()


def adam(game: Game, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam for both sides, each with rate and decay corrected for its extra penalty steps: lr r, beta^r, r = k / (k + 1).

    One object, two optimisers: a turn leaves the other side without gradients, and what has none is not moved.
    """
    rules, groups = game.rules, []
    for network, penalty, every in (
        (game.network, rules.path, rules.path_every), (game.discriminator, rules.r1, rules.r1_every),
    ):  # fmt: skip
        share = every / (every + 1) if penalty else 1.0
        betas = tuple(b**share for b in config.betas)
        groups.append({"params": list(network.parameters()), "lr": config.lr * share, "betas": betas})
    return torch.optim.Adam(groups, lr=config.lr, betas=config.betas, eps=1e-8)
