"""`check_brain_model`: what every fitted model from betas to latents must do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from phosphene.conformance.checklist import Checklist, finite, must, same
from phosphene.io.stages import Part

_ROUNDING = 1e-4  # of the largest value: float32 through a network in batches of another size


def check_brain_model(
    model: Any,
    betas: np.ndarray,
    *,
    predict: str | Callable[[Any, np.ndarray], np.ndarray] = "predict",
    fit: Callable[[int], Any] | None = None,
    seconds: float = 60.0,
    megabytes: float = 2000.0,
    waived: Mapping[str, str] | None = None,
) -> None:
    """Check a fitted model from betas to latents, such as `phosphene.models.LatentNetPart`.

    Parameters
    ----------
    model : Any
        fitted, with ``state()`` and ``from_state()``
    betas : ndarray of shape (n, n_voxels), float32
        at least 4 rows it may be asked about
    predict : str or callable, default "predict"
        its method from betas to (n, ...) latents, or (model, betas) to latents
    fit : callable, optional
        seed to a freshly fitted model; without it, that the seed decides everything is not checked
    seconds, megabytes : float, optional
        processor time and memory for the first prediction
    waived : mapping of str to str, optional
        claims known to fail, and why

    Raises
    ------
    NonConforming
        With everything that does not hold.
    """
    cls = type(model)
    betas = np.array(betas, dtype=np.float32)
    checks = Checklist(f"the brain model {cls.__name__}", waived)
    checks.documented(cls)

    def latents_of(x: np.ndarray, who: Any = model) -> np.ndarray:
        if callable(predict):
            return predict(who, x)

        return getattr(who, predict)(x)

    latents = None
    before = betas.copy()

    with checks.claim("latents", "one row of finite floats per row of betas"):
        with checks.bounded(seconds, megabytes), checks.untouched_randomness():
            latents = finite(latents_of(betas), "latents")

        must(latents.ndim >= 2, f"latents have shape {latents.shape}")
        must(len(latents) == len(betas), f"{len(latents)} rows came for {len(betas)} trials")
        must(float(latents.std(axis=0).max()) > 0, "all trials have the same latents")

    if latents is None:
        checks.conclude()

    with checks.claim("input", "betas to stay as they were"):
        same(betas, before, "betas")

    checks.rows(lambda rows: latents_of(betas[rows]), latents, _ROUNDING, "latents")
    with checks.claim("save", "state of finite arrays and plain values, from which comes a model of the same bits"):
        must(isinstance(model, Part), f"{cls.__name__} has no state and from_state")
        tensors, meta = model.state()

        for name, array in tensors.items():
            must(isinstance(array, np.ndarray), f"'{name}' is a {type(array).__name__}, not an array")
            must(array.dtype.kind != "f" or np.isfinite(array).all(), f"'{name}' is not finite")

        # Through JSON, as a file has it: tuples become lists, and what is no plain value is refused.
        copies = {name: array.copy() for name, array in tensors.items()}
        back = cls.from_state(copies, json.loads(json.dumps(meta)))
        same(latents_of(betas, back), latents_of(betas), "latents")

        for name, array in back.state()[0].items():
            same(array, tensors[name], f"'{name}'")

    if isinstance(model, Part):
        tensors, meta = model.state()
        if tensors:
            fewer = dict(list(tensors.items())[1:])
            values = json.loads(json.dumps(meta))
            checks.refuses(
                "missing", "a saved state that lacks an array", lambda: cls.from_state(fewer, values), "missing"
            )

    width = betas.shape[1]
    checks.refuses(
        "voxels", "another number of voxels", lambda: latents_of(betas[:, : width - 1]), str(width - 1), str(width)
    )

    checks.refuses("axes", "one trial without its axis", lambda: latents_of(betas[0]), "shape", "axis", "row")
    broken = betas.copy()
    broken[1, 2] = np.nan
    checks.refuses("NaN", "NaN in betas", lambda: latents_of(broken), "NaN", "finite")

    if fit is not None:
        with checks.claim("seed", "two fits with one seed to give the same bits, without a global generator"):
            with checks.untouched_randomness():
                ours = fit(3).state()[0]

            theirs = fit(3).state()[0]
            for name in ours:
                same(ours[name], theirs[name], f"'{name}'")

    checks.conclude()
