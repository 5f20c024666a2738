"""Responses to pictures that were never shown: the encoding direction of a fitted run, asked about a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.picture_pairs import PictureTreatment, as_bytes, read_seen, with_channels
from phosphene.errors import ConfigError, DataError
from phosphene.flow.blind import BlindRecipe
from phosphene.flow.decoding import refuse_decoder
from phosphene.io import atomic
from phosphene.io.progress import Progress
from phosphene.io.run_tables import write_table
from phosphene.io.seals import seal_folder
from phosphene.run import RunLike, as_run
from phosphene.types import Stimuli

_LONGEST_NAME = 60  # characters of a folder's name


def encode_pictures(run: RunLike, pictures: Any, *, name: str | None = None, progress: Progress | None = None) -> Path:
    """Predict the responses to pictures of one's own; nothing was measured, so nothing is scored.

    With several folds the prediction is the mean over the folds' recipes.

    Parameters
    ----------
    run : Run or RunFolder or str or Path
        a fitted run, or its folder
    pictures : str or Path or ndarray or Tensor or Images or list
        a folder of pictures, a ``.npy``, ``.npz``, ``.pt`` or ``.safetensors`` file, or pictures in memory; brought to the
        size of the pictures that the run was fitted on
    name : str, optional
        of the folder written; that of `pictures` by default
    progress : Progress, optional
        where progress is shown

    Returns
    -------
    Path
        ``RUN/predicted/NAME``, with predicted.npy (n, n_voxels) in the units of the betas, index.csv (stimulus) and voxels.csv

    Raises
    ------
    ConfigError
        When the recipe only decodes, or the name is no name of a folder.
    DataError
        When the pictures cannot be read, or have colours where those of the run have none.
    ModelError
        When the run is not fitted to the end.
    """
    opened = as_run(run)
    progress = progress or Progress(quiet=True)
    opened.verify()
    recipes = [opened.recipe(fold) for fold in range(len(opened.folds))]
    for recipe in recipes:
        refuse_decoder(recipe)

    height, width, channels = opened.stimuli.image_shape
    shown = read_seen(pictures, PictureTreatment(size=(height, width)), what="the pictures to encode")
    if shown.image_shape[2] > channels:
        raise DataError(
            f"the pictures to encode have {shown.image_shape[2]} channels, but those that {opened.folder.path} was fitted on are "
            "grey; make them grey as these were."
        )

    shown = with_channels(shown, channels)
    stimuli = Stimuli(np.asarray(shown.names, dtype=object), as_bytes(shown.pixels[:, 0]))
    place = opened.folder.path / "predicted" / _folder_name(name, pictures)

    with opened.folder.locked("encode"):
        total = np.zeros((len(stimuli), opened.trials.n_voxels))
        for fold in progress.each(range(len(recipes)), "encoding", unit="fold"):
            total += BlindRecipe(recipes[fold], [opened.config.seed, fold]).encode(stimuli)

        predicted = (total / len(recipes)).astype(np.float32)  # (n, n_voxels)
        with atomic.folder(place) as folder:
            np.save(folder / "predicted.npy", predicted, allow_pickle=False)
            write_table(pd.DataFrame({"stimulus": stimuli.ids}), folder / "index.csv")
            write_table(opened.trials.voxels.assign(voxel=np.arange(len(opened.trials.voxels))), folder / "voxels.csv")
            seal_folder(folder)

        opened.folder.log("encoded", n=len(stimuli), place=place.name)

    return place


def _folder_name(name: str | None, pictures: Any) -> str:
    """Name of the folder that is written."""
    if name is None:
        name = "pictures"
        if isinstance(pictures, str | Path):
            name = Path(pictures).resolve().stem or name

    if not name.strip() or name.startswith(".") or "/" in name or "\\" in name or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"'{name}' cannot be the name of a folder of predictions; give another one, of letters and digits."
        )

    return name
