"""`check_generator`: what everything that draws pictures from latents must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from phosphene.conformance.checklist import Checklist, finite, must, near, same

Draw = Callable[..., np.ndarray]

_ROUNDING = 1e-3  # of white: float32 through many steps in batches of another size


def check_generator(
    generator: Any,
    latents: np.ndarray | Sequence[np.ndarray],
    *,
    draw: Draw | None = None,
    random: bool = True,
    seconds: float = 300.0,
    megabytes: float = 2000.0,
    waived: Mapping[str, str] | None = None,
) -> None:
    """Check a generator: pictures are a function of latent, stimulus id and seed, and of nothing else.

    Parameters
    ----------
    generator : Any
        what draws
    latents : ndarray or sequence of ndarray
        (n, ...) floats, at least 4 rows, or several such arrays with the same rows
    draw : Draw, optional
        (*latents, ids, seed) to (n, height, width, channels) or (n, samples, height, width, channels), 0-1; by default
        ``generator.decode(latents, ids, seed=seed)``
    random : bool, default True
        whether another seed gives other pictures
    seconds, megabytes : float, optional
        processor time and memory for the first pictures
    waived : mapping of str to str, optional
        claims known to fail, and why

    Raises
    ------
    NonConforming
        With everything that does not hold.
    """
    checks = Checklist(f"the generator {type(generator).__name__}", waived)
    checks.documented(type(generator))
    if isinstance(latents, np.ndarray):
        latents = [latents]

    inputs = [np.array(array) for array in latents]
    draw = draw or (lambda x, ids, seed: generator.decode(x, ids, seed=seed))
    n = len(inputs[0])
    ids = np.array([f"picture-{k}" for k in range(n)], dtype=object)

    def pictures(rows: np.ndarray, seed: int = 5) -> np.ndarray:
        return draw(*(array[rows] for array in inputs), list(ids[rows]), seed)

    drawn = None
    every = np.arange(n)
    before = [array.copy() for array in inputs]

    with checks.claim("pictures", "one picture (or the same number of samples) per latent, float32 of 0-1, finite"):
        with checks.bounded(seconds, megabytes), checks.untouched_randomness():
            drawn = finite(pictures(every), "pixels")

        must(drawn.dtype == np.float32, f"pixels are {drawn.dtype}")
        must(drawn.ndim in (4, 5) and drawn.shape[-1] in (1, 3), f"pictures have shape {drawn.shape}")
        must(len(drawn) == n, f"{len(drawn)} came for {n} latents")
        low = float(drawn.min())
        high = float(drawn.max())
        must(low >= -1e-6 and high <= 1 + 1e-6, f"pixels go from {low:.3g} to {high:.3g}")
        must(float(drawn.std(axis=0).max()) > 0, "all latents give the same picture")

    if drawn is None:
        checks.conclude()
        return

    with checks.claim("input", "latents to stay as they were"):
        for ours, theirs in zip(inputs, before, strict=True):
            same(ours, theirs, "latents")

    checks.rows(pictures, drawn, _ROUNDING, "pictures")
    with checks.claim("id", "noise to follow the stimulus id: equal latents and ids give equal pictures"):
        twice = pictures(np.array([0, 2, 0]))
        near(twice[2], twice[0], _ROUNDING, "the same picture asked for twice in one call")

    if random:
        with checks.claim("seed", "another seed to give other pictures"):
            must(np.abs(pictures(every[:2], seed=6) - drawn[:2]).max() > _ROUNDING, "they are the same")

    broken = [array.copy() for array in inputs]
    broken[0][1].flat[0] = np.nan  # one number of the second row
    checks.refuses("NaN", "NaN in latents", lambda: draw(*broken, list(ids), 5), "NaN", "finite")

    cut = [array[..., :-1] for array in inputs]
    checks.refuses("shape", "latents of another length", lambda: draw(*cut, list(ids), 5))
    checks.refuses(
        "ids", "another number of ids than latents", lambda: draw(*inputs, list(ids[:-1]), 5), str(n - 1), str(n)
    )

    checks.conclude()
