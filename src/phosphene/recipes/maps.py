"""Maps from features to latents: ridge, ridge of limited rank, and networks, with what is done to their predictions.

A map is fitted to pairs, a row per stimulus, and gives a `Predictor`. Features are standardised voxels, or what a brain
model makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from phosphene.align.decoders import ALPHAS
from phosphene.align.moments import Mode, Moments
from phosphene.align.reduced_rank import ReducedRankConfig, ReducedRankRidge
from phosphene.align.ridge import Ridge
from phosphene.align.streamed import StreamedRidge
from phosphene.data.splits import inner_folds
from phosphene.errors import ModelError
from phosphene.io.progress import Progress
from phosphene.io.store import StoredRows
from phosphene.models.gru import LatentNetPart, LatentTraining, fit_latent_net
from phosphene.models.mapper import MapperPart
from phosphene.recipes.base import Recipe
from phosphene.recipes.components import LatentMap
from phosphene.training.loop import Trainer
from phosphene.types import Trials

ALL = slice(None)
_KINDS: dict[str, Any] = {
    "ridge": Ridge,
    "streamed_ridge": StreamedRidge,
    "reduced_rank": ReducedRankRidge,
    "network": LatentNetPart,
    "mapper": MapperPart,
}
Again = Callable[[np.ndarray, np.ndarray], Any]
"""Fits a map once more, to some of the rows."""


class Predictor:
    """Standardised betas to latents by any of the maps, with the mean and spread of predictions restored.

    Parameters
    ----------
    inner : Any
        Ridge, StreamedRidge, ReducedRankRidge, LatentNetPart or MapperPart
    moments : Moments or None
        what is done to its predictions
    """

    version: ClassVar[int] = 1

    def __init__(self, inner: Any, moments: Moments | None) -> None:
        self.inner = inner
        self.moments = moments

    def predict(self, betas: np.ndarray, columns: slice = ALL) -> np.ndarray:
        """(n, n_voxels) standardised betas to (n, d) latents, or to some columns of them."""
        if not isinstance(self.inner, StreamedRidge):
            return self._restored(self.inner.predict(betas)[:, columns], columns)

        begin, end, _ = columns.indices(self.inner.n_targets_)
        out = np.empty((len(betas), end - begin), dtype=np.float32)

        for at, part in self.inner.blocks(betas, columns):
            out[:, at.start - begin : at.stop - begin] = self._restored(part, at)

        return out

    def _restored(self, predicted: np.ndarray, columns: slice) -> np.ndarray:
        if self.moments is None:
            return predicted

        return self.moments(predicted, columns)

    def among(self, betas: np.ndarray) -> Predictor:
        """A map that can be given these rows part by part: moments of rows that come together are those of all of them."""
        if self.moments is None or self.moments.mode != "test":
            return self

        is_streamed = isinstance(self.inner, StreamedRidge)
        if is_streamed:
            blocks = (part for _, part in self.inner.blocks(betas))
        else:
            blocks = [self.inner.predict(betas)]

        return Predictor(self.inner, self.moments.among(blocks))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        kind = next(name for name, part in _KINDS.items() if isinstance(self.inner, part))
        arrays, inner = self.inner.state()
        tensors = {f"inner.{k}": v for k, v in arrays.items()}
        meta = {"kind": kind, "inner": inner, "moments": None}

        if self.moments is not None:
            arrays, meta["moments"] = self.moments.state()
            tensors |= {f"moments.{k}": v for k, v in arrays.items()}

        return tensors, meta

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same map again."""

        def under(prefix: str) -> dict[str, np.ndarray]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        if meta.get("kind") not in _KINDS:
            raise ModelError(f"a saved map of kind '{meta.get('kind')}' is not known to this phosphene; fit again.")

        inner = _KINDS[meta["kind"]].from_state(under("inner."), meta["inner"])
        if meta["moments"] is None:
            return cls(inner, None)

        return cls(inner, Moments.from_state(under("moments."), meta["moments"]))


@dataclass(frozen=True)
class Restore:
    """How mean and spread of predictions are restored.

    Parameters
    ----------
    mode : Mode
        see :class:`phosphene.align.moments.Moments`; ``none`` leaves predictions as they are
    folds : callable
        gives the fold of each row, for ``train_oof``
    """

    mode: Mode
    folds: Callable[[], np.ndarray]

    def around(self, inner: Any, x: np.ndarray, y: np.ndarray, again: Again) -> Predictor:
        """A map fitted to (n, d) and (n, k), with its moments; `again` fits it without a fold."""
        if self.mode == "none":
            return Predictor(inner, None)

        left_out = np.empty(y.shape, dtype=np.float32)
        if self.mode == "test":
            left_out[:] = y  # the moments of predictions come from the test batch; only those of targets are kept
        else:
            fold = self.folds()
            for f in np.unique(fold):
                left_out[fold == f] = again(x[fold != f], y[fold != f]).predict(x[fold == f])

        return Predictor(inner, Moments(self.mode).fit(left_out, y))


def fit_ridge(x: np.ndarray, y: np.ndarray | StoredRows, alpha: float | None, restore: Restore) -> Predictor:
    """Ridge with a given penalty, or the one that exact leave-one-out chooses.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        of about unit variance
    y : ndarray or StoredRows
        (n, k) in memory, or rows of a store, which are then read whenever it predicts
    alpha : float or None
        penalty; chosen when None
    restore : Restore
        what is done to predictions
    """
    alphas = ALPHAS if alpha is None else alpha
    if isinstance(y, StoredRows):
        streamed = StreamedRidge(alphas).fit(x, y)
        if restore.mode == "none":
            return Predictor(streamed, None)

        blocks = ((true, true) for true in streamed.true_blocks())  # as above: only the moments of targets are kept
        if restore.mode == "train_oof":
            blocks = streamed.left_out(x, y, restore.folds())

        return Predictor(streamed, Moments(restore.mode).fit_blocks(blocks))

    ridge = Ridge(alphas, choose="loo").fit(x, y)
    return restore.around(ridge, x, y, lambda x, y: Ridge(float(ridge.alpha_)).fit(x, y))


def fit_map(
    config: Any,
    x: np.ndarray,
    y: np.ndarray,
    ids: Sequence[str] | np.ndarray,
    training: LatentTraining,
    restore: Restore,
    *,
    seed: int,
    trainer: Trainer,
    groups: Sequence[np.ndarray] = (),
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Predictor:
    """A network, or ridge of limited rank.

    Parameters
    ----------
    config : Any
        ReducedRankConfig, or one of :data:`phosphene.models.gru.LATENT_NETS`
    x, y : ndarray
        (n, d), (n, k)
    ids : sequence of str or ndarray
        (n,) stimuli
    training : LatentTraining
        of a network
    restore : Restore
        what is done to predictions
    seed : int
        as for :func:`phosphene.models.fit_latent_net`
    trainer : Trainer
        trains the network, as the recipe's
    groups : sequence of ndarray, default ()
        as for :func:`phosphene.models.fit_latent_net`
    folder : Path, optional
        as for :func:`phosphene.models.fit_latent_net`
    progress : Progress, optional
        as for :func:`phosphene.models.fit_latent_net`
    """
    if isinstance(config, ReducedRankConfig):
        ranked = config.make().fit(x, y, ids)
        return restore.around(ranked, x, y, lambda x, y: type(ranked)(ranked.rank_, ranked.alpha_).fit(x, y))

    def fitted(x: np.ndarray, y: np.ndarray, ids: Any, folder: Path | None = None) -> LatentNetPart:
        return fit_latent_net(
            config,
            x,
            y,
            ids,
            training,
            seed=seed,
            groups=groups,
            folder=folder,
            progress=progress,
            trainer=trainer,
        )

    whole = fitted(x, y, ids, folder)
    return restore.around(whole, x, y, lambda x, y: fitted(x, y, np.arange(len(x)).astype(str)))


class RestoringMap(LatentMap):
    """A map whose predictions get the mean and spread that the configuration asks for.

    Parameters
    ----------
    mode : Mode
        see :class:`phosphene.align.moments.Moments`; ``none`` leaves predictions as they are
    n_folds : int
        folds over training stimuli for ``train_oof``
    """

    def __init__(self, mode: Mode, n_folds: int) -> None:
        self.mode: Mode = mode
        self.n_folds = n_folds

    def restore(self, recipe: Recipe[Any], features: Trials) -> Restore:
        """Moments of predictions; rows are stimuli, so that whole stimuli are left out."""
        return Restore(self.mode, lambda: inner_folds(features, self.n_folds, recipe.rng("moments")))


class RidgeMap(RestoringMap):
    """Ridge, with a given penalty or the one that exact leave-one-out chooses.

    Parameters
    ----------
    alpha : float or None
        penalty; chosen when None
    mode : Mode
        as for `RestoringMap`
    n_folds : int
        as for `RestoringMap`
    """

    uses = (Ridge, StreamedRidge, Moments)
    streams = True

    def __init__(self, alpha: float | None, mode: Mode, n_folds: int) -> None:
        super().__init__(mode, n_folds)
        self.alpha = alpha

    def fit(
        self, recipe: Recipe[Any], name: str, features: Trials, targets: Any, groups: Sequence[np.ndarray] = ()
    ) -> Predictor:
        """One ridge for all targets, which may be rows of a store."""
        return fit_ridge(features.betas, targets, self.alpha, self.restore(recipe, features))


class ReducedRankMap(RestoringMap):
    """Ridge of limited rank.

    Parameters
    ----------
    config : ReducedRankConfig
        rank and penalties to choose among
    mode : Mode
        as for `RestoringMap`
    n_folds : int
        as for `RestoringMap`
    """

    uses = (ReducedRankRidge, Moments)

    def __init__(self, config: ReducedRankConfig, mode: Mode, n_folds: int) -> None:
        super().__init__(mode, n_folds)
        self.config = config

    def fit(
        self, recipe: Recipe[Any], name: str, features: Trials, targets: Any, groups: Sequence[np.ndarray] = ()
    ) -> Predictor:
        """Rank and penalty chosen inside the training stimuli."""
        return fit_map(
            self.config,
            features.betas,
            targets,
            features.stimuli.astype(str),
            LatentTraining(),
            self.restore(recipe, features),
            seed=recipe.seed,
            trainer=recipe.trainer,
        )


class NetworkMap(RestoringMap):
    """One of the two-stage decoder's networks, such as its GRU, or a GRU over groups of features.

    Parameters
    ----------
    config : Any
        one of :data:`phosphene.models.gru.LATENT_NETS`
    training : LatentTraining
        how it is trained
    mode : Mode
        as for `RestoringMap`
    n_folds : int
        as for `RestoringMap`
    """

    uses = (LatentNetPart, fit_latent_net, Moments)

    def __init__(self, config: Any, training: LatentTraining, mode: Mode, n_folds: int) -> None:
        super().__init__(mode, n_folds)
        self.config = config
        self.training = training

    def fit(
        self, recipe: Recipe[Any], name: str, features: Trials, targets: Any, groups: Sequence[np.ndarray] = ()
    ) -> Predictor:
        """A network that walks over `groups` where it is of that kind."""
        return fit_map(
            self.config,
            features.betas,
            targets,
            features.stimuli.astype(str),
            self.training,
            self.restore(recipe, features),
            seed=recipe.seed,
            trainer=recipe.trainer,
            groups=groups,
            folder=recipe.training_folder(name),
            progress=recipe.progress,
        )
