"""The pictures and texts that other rooms keep as files: ``python -m phosphene.lab.references`` draws them again.

``features/fingerprint.py`` compares what an extractor makes of eight pictures and texts, ``metrics/golden.py`` scores items made
of eight pictures. Both read a file, so that neither depends on the lab; a test holds the lab to drawing exactly these bytes.
Writing them anew is right only after a change of the scenes that is meant: every kept fingerprint and golden value changes.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from phosphene.io import atomic
from phosphene.io.progress import Progress
from phosphene.lab import scenes

__all__ = ["fingerprint_inputs", "golden_inputs", "write_references"]

_COUNT = 8
_FINGERPRINT_SEED = 7_700_047  # far from the seeds that data sets of the lab are made with
_FINGERPRINT_SIDE = 64
_GOLDEN_SEED = 20
_GOLDEN_SIDE = 32


def fingerprint_inputs() -> dict[str, np.ndarray]:
    """What an extractor is recognised by.

    Returns
    -------
    dict of {str: ndarray}
        ``pictures`` of shape (8, 64, 64, 3), uint8, and ``texts``, one caption of each.
    """
    numbers = range(_COUNT)
    described = scenes.describe_many(_FINGERPRINT_SEED, numbers)
    texts = [captions[0] for captions in scenes.captions_many(described)]
    return {"pictures": scenes.render_many(_FINGERPRINT_SEED, numbers, _FINGERPRINT_SIDE), "texts": np.array(texts)}


def golden_inputs() -> dict[str, np.ndarray]:
    """What the golden values of the metrics are made of.

    Returns
    -------
    dict of {str: ndarray}
        ``pictures`` of shape (8, 32, 32, 3), uint8.
    """
    return {"pictures": scenes.render_many(_GOLDEN_SEED, range(_COUNT), _GOLDEN_SIDE)}


def write_references(package: Path) -> list[Path]:
    """Draw all references and write them where they are read.

    Parameters
    ----------
    package : Path
        The folder of the package ``phosphene``.

    Returns
    -------
    list of Path
        The files written.
    """
    contents = {
        package / "features" / "reference_inputs.npz": fingerprint_inputs(),
        package / "metrics" / "golden_scenes.npz": golden_inputs(),
    }

    for file, arrays in contents.items():
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        atomic.write_bytes(file, buffer.getvalue())

    return list(contents)


if __name__ == "__main__":
    for written in write_references(Path(__file__).parents[1]):
        Progress().say(str(written))
