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
from phosphene.io.run_folder import read_json
from phosphene.lab import scenes as drawing
from phosphene.lab.scene_captions import GOOD
from phosphene.lab.scene_captions import truth as caption_qualities

if TYPE_CHECKING:
    import torch

    from phosphene.io.progress import Progress

__all__ = ["HELD_OUT", "SIZE", "TRAIN", "Scenes", "scenes"]

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
        RGB, 0-255
    captions : list of tuple of str
        n tuples of five texts
    good : ndarray of shape (n, 5), bool
        captions that are neither vague nor wrong
    categories, places, names : tuple of str
        names of main categories, of places, and of the columns of `labels`
    category, place : ndarray of shape (n,), int64
        places in these lists
    labels : ndarray of shape (n, n_labels), bool
        everything that is in a picture
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


def scenes(seed: int, count: int, cache: Path, progress: Progress | None = None) -> Scenes:
    """Scenes of a world, from the cache where they are there.

    Parameters
    ----------
    seed : int
        Of the world: :data:`TRAIN` or :data:`HELD_OUT`.
    count : int
        Scenes 0 .. count - 1.
    cache : Path
        Folder; what other versions of the scenes left there is not used.
    progress : Progress, optional
        Shows how far the rendering is.

    Returns
    -------
    Scenes
        Whose pictures are a memory map.
    """
    folder = cache / f"scenes-{seed}-{count}-{_drawing_digest()[:12]}"
    if not (folder / "scenes.json").is_file():
        _render(seed, count, folder, progress)

    about = read_json(folder / "scenes.json")
    captions = [tuple(c) for c in json.loads((folder / "captions.json").read_text(encoding="utf-8"))]

    return Scenes(
        pixels=np.load(folder / "pixels.npy", mmap_mode="r"),
        captions=captions,
        good=np.load(folder / "good.npy"),
        categories=tuple(about["categories"]),
        places=tuple(about["places"]),
        names=tuple(about["names"]),
        category=np.load(folder / "category.npy"),
        place=np.load(folder / "place.npy"),
        labels=np.load(folder / "labels.npy"),
        digest=about["digest"],
    )


def _drawing_digest() -> str:
    """Changes when scenes look or are described differently."""
    numbers = np.arange(64)
    pixels = drawing.render_many(TRAIN, numbers, SIZE).tobytes()
    captions = drawing.captions_many(drawing.describe_many(TRAIN, numbers))
    return hashlib.sha256(pixels + json.dumps(captions).encode()).hexdigest()


def _render(seed: int, count: int, folder: Path, progress: Progress | None) -> None:
    """Draw scenes and keep them in a folder, which appears whole or not at all."""
    starts = range(0, count, _BLOCK)
    if progress is None:
        blocks = iter(starts)
    else:
        blocks = progress.each(starts, "painting scenes")

    pixels = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    for start in blocks:
        stop = min(count, start + _BLOCK)
        pixels[start:stop] = drawing.render_many(seed, np.arange(start, stop), SIZE)
    described = drawing.describe_many(seed, np.arange(count))
    table = drawing.labels(described)
    words = json.dumps(drawing.captions_many(described)).encode()
    qualities = np.array(caption_qualities(described))  # (n, 5)
    good = qualities == GOOD
    categories = []
    places = []
    for scene in described:
        categories.append(drawing.THINGS.index(scene.main))
        places.append(drawing.PLACES.index(scene.place))

    with atomic.folder(folder) as temporary:
        np.save(temporary / "pixels.npy", pixels)
        (temporary / "captions.json").write_bytes(words)
        np.save(temporary / "good.npy", good)
        np.save(temporary / "category.npy", np.array(categories))
        np.save(temporary / "place.npy", np.array(places))
        np.save(temporary / "labels.npy", table.to_numpy(dtype=bool))
        about = {
            "categories": list(drawing.THINGS),
            "places": list(drawing.PLACES),
            "names": [str(c) for c in table.columns],
            "digest": hashlib.sha256(pixels.tobytes() + words).hexdigest(),
        }

        (temporary / "scenes.json").write_text(json.dumps(about), encoding="utf-8")
