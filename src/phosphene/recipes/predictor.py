"""Standardised betas to latents by whichever map a two-stage decoder uses, with what is done to its predictions."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from phosphene.align.moments import Moments
from phosphene.align.reduced_rank import ReducedRankRidge
from phosphene.align.ridge import Ridge
from phosphene.align.streamed import StreamedRidge
from phosphene.brain.gru import LatentNetPart
from phosphene.errors import ModelError

ALL = slice(None)
_KINDS: dict[str, Any] = {
    "ridge": Ridge,
    "streamed_ridge": StreamedRidge,
    "reduced_rank": ReducedRankRidge,
    "network": LatentNetPart,
}


class Predictor:
    """Standardised betas to latents by any of the maps, with the mean and spread of predictions restored.

    Parameters
    ----------
    inner : Ridge, StreamedRidge, ReducedRankRidge or LatentNetPart
    moments : what is done to its predictions
    """

    def __init__(self, inner: Any, moments: Moments | None) -> None:
        self.inner, self.moments = inner, moments

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
        return predicted if self.moments is None else self.moments(predicted, columns)

    def among(self, betas: np.ndarray) -> Predictor:
        """A map that can be given these rows part by part: moments of rows that come together are those of all of them."""
        if self.moments is None or self.moments.mode != "test":
            return self
        is_streamed = isinstance(self.inner, StreamedRidge)
        blocks = (part for _, part in self.inner.blocks(betas)) if is_streamed else [self.inner.predict(betas)]
        return Predictor(self.inner, self.moments.among(blocks))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, for saving."""
        kind = next(name for name, part in _KINDS.items() if isinstance(self.inner, part))
        arrays, inner = self.inner.state()
        tensors, meta = {f"inner.{k}": v for k, v in arrays.items()}, {"kind": kind, "inner": inner, "moments": None}
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
