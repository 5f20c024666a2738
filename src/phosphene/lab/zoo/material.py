"""Scenes to train the zoo on, rendered once and kept as plain arrays: pictures, captions, categories, labels.

The worlds used here (:data:`TRAIN` and :data:`HELD_OUT`) are the zoo's own: the lab's data sets have other seeds, so no
network has seen a picture that a recipe is tested on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phosphene.io import atomic
from phosphene.io.folder import read_json

if TYPE_CHECKING:
    import torch

TRAIN = 7_700_001
HELD_OUT = 7_700_002
SIZE = 32
_BLOCK = 2000


@dataclass(frozen=True)
class Scenes:
    """Pictures and what is known of them.

    Attributes
    ----------
    pixels : ndarray of shape (n, 32, 32, 3), uint8
    captions : list of tuple of str
        n tuples of five texts
    good : ndarray of shape (n, 5), bool
        captions that are neither vague nor wrong
    categories, places, names : tuple of str
        names of main categories, of places, and of the columns of `labels`
    category, place : ndarray of shape (n,), int64
        places in these lists
    labels : ndarray of shape (n, n_labels), bool
    digest : str
        SHA-256 of pictures and captions
    """

    pixels: np.ndarray
    captions: list[tuple[str, ...]]
    good: np.ndarray
    categories: tuple[str, ...]
    places: tuple[str, ...]
    names: tuple[str, ...]
    category: np.ndarray
    place: np.ndarray
    labels: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.pixels)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What losses need beside pictures."""
        import torch

        return {
            "good": torch.from_numpy(self.good),
            "category": torch.from_numpy(self.category),
            "place": torch.from_numpy(self.place),
            "labels": torch.from_numpy(self.labels.astype(np.float32)),
        }


def scenes(seed: int, count: int, cache: Path, progress=None) -> Scenes:
    """Scenes 0 .. count - 1 of a world, from the cache where they are there."""
    folder = cache / f"scenes-{seed}-{count}-{_painter_digest()[:12]}"
    if not (folder / "scenes.json").is_file():
        _render(seed, count, folder, progress)

    about = read_json(folder / "scenes.json")
    captions = [tuple(c) for c in json.loads((folder / "captions.json").read_text(encoding="utf-8"))]
    arrays = {key: np.load(folder / f"{key}.npy") for key in ("good", "category", "place", "labels")}
    lists = {key: tuple(about[key]) for key in ("categories", "places", "names")}

    return Scenes(np.load(folder / "pixels.npy", mmap_mode="r"), captions, digest=about["digest"], **arrays, **lists)


def _painter_digest() -> str:
    """Changes when scenes look or are described differently."""
    from phosphene.lab import scenes as painter

    probe = painter.render_many(TRAIN, np.arange(64), SIZE).tobytes()
    told = painter.captions_many(painter.describe_many(TRAIN, np.arange(64)))
    return hashlib.sha256(probe + json.dumps(told).encode()).hexdigest()


def _render(seed: int, count: int, folder: Path, progress) -> None:
    from phosphene.lab import captions
    from phosphene.lab import scenes as painter

    starts = range(0, count, _BLOCK)
    pixels = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)

    for start in progress.each(starts, "painting scenes") if progress else starts:
        stop = min(count, start + _BLOCK)
        pixels[start:stop] = painter.render_many(seed, np.arange(start, stop), SIZE)

    described = painter.describe_many(seed, np.arange(count))
    table = painter.labels(described)
    words = json.dumps(painter.captions_many(described)).encode()
    good = np.array([[quality == "good" for quality in told] for told in captions.truth(described)])

    with atomic.folder(folder) as temporary:
        np.save(temporary / "pixels.npy", pixels)
        (temporary / "captions.json").write_bytes(words)
        np.save(temporary / "good.npy", good)
        np.save(temporary / "category.npy", np.array([painter.THINGS.index(s.main) for s in described]))
        np.save(temporary / "place.npy", np.array([painter.PLACES.index(s.place) for s in described]))
        np.save(temporary / "labels.npy", table.to_numpy(dtype=bool))
        about = {
            "categories": list(painter.THINGS),
            "places": list(painter.PLACES),
            "names": [str(c) for c in table.columns],
            "digest": hashlib.sha256(pixels.tobytes() + words).hexdigest(),
        }

        (temporary / "scenes.json").write_text(json.dumps(about), encoding="utf-8")
