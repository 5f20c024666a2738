"""Several fitted parts kept as one, where what a stage holds depends on the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from phosphene.data.standardise import Standardiser
from phosphene.errors import ModelError
from phosphene.io.stages import Part
from phosphene.models.dual_guided import DualGuided
from phosphene.models.ldm import Ldm
from phosphene.models.maskgit import MaskGitPipeline
from phosphene.models.patch_mae import PatchMaePart
from phosphene.models.roi_mae import RoiMaePart
from phosphene.models.stylegan2 import StyleGan2
from phosphene.models.vdvae import VdvaePart
from phosphene.recipes.maps import Predictor

_KINDS: dict[str, type[Part]] = {
    kind.__name__: kind
    for kind in (
        RoiMaePart,
        PatchMaePart,
        Standardiser,
        Predictor,
        MaskGitPipeline,
        StyleGan2,
        VdvaePart,
        DualGuided,
        Ldm,
    )
}


class Parts:
    """Parts by name, none or several.

    Parameters
    ----------
    parts : mapping of {str: Part}, optional
        each of a class that is known here

    Examples
    --------
    >>> len(Parts()), dict(Parts())
    (0, {})
    """

    version: ClassVar[int] = 1

    def __init__(self, parts: Mapping[str, Part] | None = None) -> None:
        self._parts = dict(parts or {})

    def __getitem__(self, name: str) -> Any:
        return self._parts[name]

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def keys(self) -> list[str]:
        """Their names, in order."""
        return list(self._parts)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays under ``NAME/``, and the plain values and class of each."""
        tensors: dict[str, np.ndarray] = {}
        meta: dict[str, Any] = {}

        for name, part in self._parts.items():
            arrays, values = part.state()
            tensors |= {f"{name}/{k}": v for k, v in arrays.items()}
            meta[name] = {"kind": type(part).__name__, "values": values}

        return tensors, {"parts": meta}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same parts again. Raises ModelError for one of an unknown class, and for arrays of none of them."""
        parts: dict[str, Part] = {}
        left = dict(tensors)

        for name, record in meta["parts"].items():
            kind = record["kind"]
            if kind not in _KINDS:
                raise ModelError(f"the saved part '{name}' is a {kind}, unknown to this phosphene; fit again.")

            arrays = {}
            for key in list(left):
                if key.startswith(f"{name}/"):
                    arrays[key.removeprefix(f"{name}/")] = left.pop(key)

            parts[name] = _KINDS[kind].from_state(arrays, record["values"])

        if left:
            raise ModelError(f"the saved parts hold {', '.join(sorted(left)[:3])}, of none of them; fit again.")

        return cls(parts)
