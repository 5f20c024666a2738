"""A study of a few numbers, made in no time, for checks of parts that are broken on purpose."""

import numpy as np
import pandas as pd

from phosphene.conformance import TinyStudy
from phosphene.types import Stimuli, Trials

N_TRAIN, N_TEST, N_VOXELS, SIDE = 24, 6, 30, 6


def small_study() -> TinyStudy:
    """Responses are a random linear map of the pictures plus noise, every picture shown twice."""
    rng = np.random.default_rng(0)
    n = N_TRAIN + N_TEST
    ids = np.array([f"p{k:02d}" for k in range(n)], dtype=object)
    images = rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    signal = images.reshape(n, -1) @ rng.standard_normal((SIDE * SIDE * 3, N_VOXELS)) / 1000
    shown = rng.permutation(np.repeat(np.arange(n), 2))
    betas = (signal[shown] + 0.3 * rng.standard_normal((2 * n, N_VOXELS))).astype(np.float32)
    trials = Trials(betas, pd.DataFrame({"stimulus": ids[shown]}), subject="someone")
    captions = tuple((f"picture {k}", "a picture") for k in range(n))
    return TinyStudy(
        trials.take(shown < N_TRAIN), trials.take(shown >= N_TRAIN), Stimuli(ids, images, captions=captions)
    )
