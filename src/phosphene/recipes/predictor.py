"""Standardised betas to latents by whichever map a recipe uses, with what is done to its predictions.

`fit_ridge` and `fit_map` make one from pairs; a row is a stimulus.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from phosphene.align.decoders import ALPHAS
from phosphene.align.moments import Mode, Moments
from phosphene.align.reduced_rank import ReducedRankConfig, ReducedRankRidge
from phosphene.align.ridge import Ridge
from phosphene.align.streamed import StreamedRidge
from phosphene.errors import ModelError
from phosphene.io.progress import Progress
from phosphene.io.store import StoredRows
from phosphene.models.gru import LatentNetPart, LatentTraining
from phosphene.training.loop import Trainer

ALL = slice(None)
_KINDS: dict[str, Any] = {
    "ridge": Ridge,
    "streamed_ridge": StreamedRidge,
    "reduced_rank": ReducedRankRidge,
    "network": LatentNetPart,
}
Again = Callable[[np.ndarray, np.ndarray], Any]
"""Fits a map once more, to some of the rows."""


class Predictor:
    """Standardised betas to latents by any of the maps, with the mean and spread of predictions restored.

    Parameters
    ----------
    inner : Any
        Ridge, StreamedRidge, ReducedRankRidge or LatentNetPart
    moments : Moments or None
        what is done to its predictions
    """

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

        def own(prefix: str) -> dict[str, np.ndarray]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        if meta.get("kind") not in _KINDS:
            raise ModelError(f"a saved map of kind '{meta.get('kind')}' is not known to this phosphene; fit again.")

        inner = _KINDS[meta["kind"]].from_state(own("inner."), meta["inner"])
        moments = meta["moments"]

        return cls(inner, None if moments is None else Moments.from_state(own("moments."), moments))


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
    from phosphene.models.gru import fit_latent_net

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
