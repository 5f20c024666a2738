"""Pictures of one input as a run keeps them: an array, PNG files, and a table of which is which."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from phosphene.io import atomic
from phosphene.io.run_folder import RunFolder
from phosphene.io.run_tables import write_table
from phosphene.io.seals import seal_folder
from phosphene.run import TEST
from phosphene.types import Images


def write_pictures(
    run: RunFolder,
    source: str,
    images: Images,
    *,
    folds: np.ndarray,
    category: np.ndarray | None = None,
    samples: np.ndarray | None = None,
    latents: Mapping[str, np.ndarray] | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write one input's pictures into ``decoded/test/INPUT``; they appear whole or not at all, and are sealed.

    Parameters
    ----------
    run : RunFolder
        written to
    source : str
        the input, such as ``brain``, ``shuffled`` or ``seen``
    images : Images
        one picture per row, under the id of its stimulus
    folds : ndarray of shape (n,), int
        fold of each
    category : ndarray of shape (n,), str, optional
        of each stimulus
    samples : ndarray of shape (n, n_samples, height, width, channels), uint8, optional
        all pictures drawn, where there are several
    latents : mapping of str to ndarray, optional
        space to (n, ...), decoded ones and, under ``true.SPACE``, true ones
    record : mapping of str to Any, optional
        how they were decoded, for decoding.json

    Raises
    ------
    MachineError
        When the disk is full or the folder cannot be written.
    """
    from PIL import Image
    from safetensors.numpy import save_file

    names = [f"{n:06d}.png" for n in range(len(images))]

    with atomic.folder(run.decoded(TEST, source)) as folder:
        np.save(folder / "pixels.npy", images.clipped(), allow_pickle=False)
        (folder / "images").mkdir()

        for name, picture in zip(names, images.as_uint8(), strict=True):
            if picture.shape[2] == 1:
                picture = picture[:, :, 0]  # PIL knows grey pictures without a channel axis only

            Image.fromarray(picture).save(folder / "images" / name)

        index = pd.DataFrame({"stimulus": images.ids, "fold": folds})
        index["file"] = names
        if category is None:
            index["category"] = ""
        else:
            index["category"] = category

        write_table(index, folder / "index.csv")
        if record is not None:
            (folder / "decoding.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

        if samples is not None:
            np.save(folder / "samples.npy", samples, allow_pickle=False)

        kept = {}
        for name, array in (latents or {}).items():
            kept[name] = np.ascontiguousarray(array, dtype=np.float32)

        if kept:
            save_file(kept, folder / "latents.safetensors")

        seal_folder(folder)
