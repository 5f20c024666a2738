"""What a run decodes to, on its training and its test side: for checks B5 to B8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from phosphene.io.folder import SEEN
from phosphene.recipes.base import Recipe
from phosphene.run import TEST, Run
from phosphene.types import Stimuli, Trials
from phosphene.validity import DecodingTarget
from phosphene.validity.likeness import thumbnails
from phosphene.validity.targets import PICTURES

_MOST_TRAINING = 2000
_MOST_VALUES = 20_000_000
_MOST_VOXELS = 5000
_BLOCK = 250
OTHER_KINDS = ("synthetic", "imagery", "artificial", "shapes")
"""Words in the name of a split or of a data set that say that its test stimuli are of another kind than its training's."""


def targets_of(
    opened: Run, fitted: Sequence[Recipe], index: pd.DataFrame, labels: np.ndarray | None
) -> list[DecodingTarget]:
    """Spaces of latents of the first fold, and small copies of its pictures.

    At most 2,000 training stimuli (fewer of very wide latents) and 5,000 voxels, drawn at random.

    Parameters
    ----------
    opened : Run
        a run
    fitted : sequence of Recipe
        the recipe of each fold
    index : DataFrame
        of the decoded pictures
    labels : ndarray or None
        category of each, or None
    """
    recipe = fitted[0]
    rng = np.random.default_rng([opened.config.seed, 14])
    train, test = (t.average_repeats() for t in opened.sides(0))
    mine = (index["fold"] == 0).to_numpy()

    if not len(train) or [str(i) for i in index["stimulus"][mine]] != [str(i) for i in test.stimuli]:
        return []

    n_training = len(train)
    rows = np.sort(rng.permutation(len(train))[:_MOST_TRAINING])
    train = train.take(rows)
    shown = opened.stimuli.select(train.stimuli)
    voxels = np.sort(rng.permutation(train.n_voxels)[:_MOST_VOXELS])
    given = {
        "n_training": n_training,
        "labels": shown.category,
        "test_labels": None if labels is None else np.asarray(labels)[mine],
        "betas": np.asarray(train.betas)[:, voxels],
        "test_betas": np.asarray(test.betas)[:, voxels],
    }

    found = []
    decoded = _decoded_latents(opened, recipe, test, mine)

    if decoded:
        known = _true_latents(recipe, shown, list(decoded))
    else:
        known = {}

    for space, (predicted, true) in decoded.items():
        n = len(known[space])
        some = given if n == len(shown) else {k: v[:n] if k in ("labels", "betas") and v is not None else v
                                              for k, v in given.items()}  # fmt: skip
        found.append(DecodingTarget(space, known[space], true, predicted, **some))

    small = [thumbnails(np.asarray(opened.folder.pixels(TEST, name)[mine])) for name in (SEEN, "brain")]
    blocks = [thumbnails(shown.pixels(slice(i, i + _BLOCK))) for i in range(0, len(shown), _BLOCK)]
    if small[0].shape[1] == blocks[0].shape[1]:
        found.append(DecodingTarget(PICTURES, np.concatenate(blocks), *small, **given))

    return found


def _decoded_latents(
    opened: Run, recipe: Recipe, test: Trials, mine: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Decoded and true latents of the fold: those kept, or, where folds have spaces of their own, made again."""
    from safetensors.numpy import load_file

    file = opened.folder.decoded(TEST, "brain") / "latents.safetensors"
    if file.is_file():
        kept = load_file(file)
    else:
        kept = {}

    pairs = {k: (v[mine], kept[f"true.{k}"][mine]) for k, v in kept.items() if f"true.{k}" in kept}
    if pairs or len(opened.folds) == 1:
        return pairs

    ours = recipe.latents(test).arrays
    true = recipe.true_latents(opened.stimuli.select(test.stimuli)).arrays

    return {k: (np.asarray(v), np.asarray(true[k])) for k, v in ours.items() if k in true}


def _true_latents(recipe: Recipe, shown: Stimuli, spaces: list[str]) -> dict[str, np.ndarray]:
    """Latents of training pictures, as many as fit."""
    blocks: dict[str, list[np.ndarray]] = {space: [] for space in spaces}
    ids = list(shown.ids)
    n = 0

    while n < len(ids):
        arrays = recipe.true_latents(shown.select(ids[n : n + _BLOCK])).arrays
        for space in spaces:
            blocks[space].append(np.asarray(arrays[space]))

        n += _BLOCK
        if sum(x.size for space in spaces for x in blocks[space]) * (1 + _BLOCK / n) > _MOST_VALUES:
            break

    return {space: np.concatenate(parts) for space, parts in blocks.items()}


def draws_at_random(recipe: Recipe) -> bool:
    """Whether a recipe can draw several pictures for one trial."""
    return type(recipe).decode_samples is not Recipe.decode_samples


def other_kind(opened: Run) -> str:
    """What test stimuli are, where they are of another kind than those of training; otherwise empty."""
    names = f"{opened.config.split or opened.folds[0].name} {opened.dataset.name} {opened.folds[0].note}".lower()
    return next((f"{word} stimuli" for word in OTHER_KINDS if word in names), "")
