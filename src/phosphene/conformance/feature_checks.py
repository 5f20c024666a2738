"""`check_feature`: what every feature space of pictures must do."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.conformance.checklist import Checklist, finite, must, near, same, shaped
from phosphene.conformance.small_study import TinyStudy, tiny_study
from phosphene.types import Stimuli

_ROUNDING = 1e-4  # of the largest value: float32 through a network in batches of another size


def check_feature(
    feature: Any,
    *,
    study: TinyStudy | None = None,
    seconds: float = 120.0,
    megabytes: float = 2000.0,
    waived: Mapping[str, str] | None = None,
) -> None:
    """Check a feature space: pictures to latents, frozen (`ClipFeatures`) or fitted on training pictures (`PixelPca`).

    Parameters
    ----------
    feature : Any
        has ``space``, a name, and ``transform(stimuli)`` to (n, ...) float32; may have ``shape()``, ``images(pixels)``,
        a ``cache`` to transform into with ``spec()`` of what it is filed under, and, where it is fitted,
        ``fit(stimuli)`` with ``state()`` and ``from_state()``. One that is fitted comes unfitted
    study : TinyStudy, optional
        whose pictures; by default 40 training and 8 test pictures
    seconds, megabytes : float, optional
        processor time and memory for fitting and the first pictures
    waived : mapping of str to str, optional
        claims known to fail, and why

    Raises
    ------
    NonConforming
        With everything that does not hold.
    """
    study = study or tiny_study()
    cls = type(feature)
    checks = Checklist(f"the feature {cls.__name__}", waived)
    checks.documented(cls)
    checks.light(cls.__module__)

    with checks.claim("space", "space to be a short name of lower-case letters, digits and _"):
        must(re.fullmatch(r"[a-z][a-z0-9_]*", feature.space), f"it is {feature.space!r}")

    stimuli = study.stimuli.select(study.averaged.stimuli)
    if hasattr(feature, "fit"):
        checks.refuses("unfitted", "transforming before fitting", lambda: feature.transform(stimuli), "fit")
        with checks.claim("fit", "fit to read training pictures alone and to return the feature"):
            guarded = study.guarded()
            train = guarded.stimuli.select(guarded.train.stimulus_ids)

            with checks.untouched_randomness(torch=False):
                must(feature.fit(train) is feature, "something else was returned")

    latents = None
    before = stimuli.digest()

    with checks.claim("latents", "transform to give one row of finite float32 per picture"):
        with checks.bounded(seconds, megabytes), checks.untouched_randomness(torch=False):
            latents = finite(feature.transform(stimuli), "latents")

        must(latents.dtype == np.float32, f"latents are {latents.dtype}")
        if hasattr(feature, "shape"):
            shape = tuple(feature.shape())
        else:
            shape = latents.shape[1:]

        shaped(latents, (len(stimuli), *shape), "latents")
        must(float(latents.std(axis=0).max()) > 0, "all pictures have the same latents")

    if latents is None:
        checks.conclude()
        return

    with checks.claim("input", "pictures to stay as they were"):
        must(stimuli.digest() == before, "they were changed")

    checks.rows(lambda rows: feature.transform(stimuli.select(stimuli.ids[rows])), latents, _ROUNDING, "latents")
    with checks.claim("none", "no pictures to give (0, ...) latents of the same shape"):
        none = feature.transform(stimuli.select([]))
        shaped(none, (0, *latents.shape[1:]), "latents of no pictures")

    without_pictures = replace(stimuli, images=None, rows=None)
    checks.refuses(
        "pictures", "stimuli without pictures", lambda: feature.transform(without_pictures), "picture", "image"
    )

    _check_images(checks, feature, stimuli)

    if hasattr(feature, "state"):
        with checks.claim("save", "the same bits after state and from_state"):
            tensors, meta = feature.state()
            back = cls.from_state(dict(tensors), json.loads(json.dumps(meta)))
            same(back.transform(stimuli), feature.transform(stimuli), "latents")

    if hasattr(feature, "spec"):
        _check_cache(checks, feature, stimuli, latents)

    checks.conclude()


def _check_images(checks: Checklist, feature: Any, stimuli: Stimuli) -> None:
    if hasattr(feature, "fit"):
        other = replace(stimuli, images=np.zeros((len(stimuli), 7, 9, 3), dtype=np.uint8), rows=None)
        if getattr(feature, "size", None) is None:
            checks.refuses("picture size", "pictures of another size", lambda: feature.transform(other), "9")

    if not hasattr(feature, "images"):
        return

    pixels = stimuli.floats()
    with checks.claim("8 bits", "uint8 of 0-255 and the same as floats of 0-1 to give the same latents"):
        near(feature.images(pixels), feature.images(stimuli.pixels()), 1e-5, "latents")

    broken = pixels.copy()
    broken[1, 0, 0, 0] = np.nan
    checks.refuses("NaN", "pixels that are NaN", lambda: feature.images(broken), "NaN", "finite", "0-1", "0 to 1")
    checks.refuses("range", "floats of 0-255", lambda: feature.images(pixels * 255), "0-1", "0 to 1", "range")
    checks.refuses(
        "axes", "pictures without a channel axis", lambda: feature.images(pixels[..., 0]), "shape", "channel"
    )


def _check_cache(checks: Checklist, feature: Any, stimuli: Stimuli, latents: np.ndarray) -> None:
    with checks.claim("spec", "spec to be plain values, without a path, that say what features are filed under"):
        text = json.dumps(feature.spec())
        must(str(Path.home()) not in text, "it names a folder of this machine")

    with (
        tempfile.TemporaryDirectory() as folder,
        checks.claim("cache", "the same latents through a cache as without one, and again when read back"),
    ):
        for _ in range(2):  # written the first time, read the second
            near(feature.transform(stimuli, Path(folder)), latents, _ROUNDING, "latents of the cache")

        must(any(Path(folder).iterdir()), "nothing was written there")
