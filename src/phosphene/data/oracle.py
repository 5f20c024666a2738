"""What can be reached on simulated data: the best linear decoder, which knows the true signals and the true noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.data.registry import locate
from phosphene.data.sections import Section
from phosphene.lab.reader import InSilico, simulation

_LEARNED = 600
"""Pictures at most that `best_linear` learns from: a second of work; its numbers bracket the best on pictures alike."""


def best_linear(
    spec: str | Path,
    *,
    root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Section]:
    """How well the best linear decoder does on simulated data, from the true signals and the true noise.

    Parameters
    ----------
    spec : str or Path
        see `open_dataset`
    root : str or Path, optional
        see `open_dataset`
    options : mapping of {str: Any}, optional
        see `open_dataset`

    Returns
    -------
    list of Section
        one Section, whose numbers are means over pixels of the expected correlation over pictures, nothing drawn; or an
        empty list for data that are not simulated
    """
    source = locate(spec, root=root)
    if not isinstance(source.reader, InSilico):
        return []

    values = source.options(options)
    rows = []

    for name in [source.subject] if source.subject else source.reader.subjects(source.path, values):
        made = simulation(values, name)
        test = made.design.is_test
        learned = np.flatnonzero(~made.design.is_test)[:_LEARNED]
        pixels = made.images.reshape(len(made.images), -1) / 255

        for repeats in dict.fromkeys((1, int(made.design.shown[test].max()))):
            best = made.subject.bayes_linear(made.signal[learned], pixels[learned], repeats)
            here = best.expected(made.signal[test], pixels[test])
            figures = (here.correlation.mean(), best.learned.correlation.mean())
            rows.append((name, str(repeats), *(f"{x:.3f}" for x in figures), str(len(learned))))

    headings = ("subject", "trials averaged", "test pictures", "pictures learned from", "how many of these")
    return [Section("best linear decoder of pixels, expected correlation", tuple(rows), headings)]
