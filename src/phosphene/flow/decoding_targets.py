"""What a run decodes to, on its training and its test side: for checks B5 to B8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from phosphene.io.run_folder import SEEN
from phosphene.recipes.base import Recipe
from phosphene.run import TEST, Run
from phosphene.types import Stimuli, Trials
from phosphene.validity import DecodingTarget
from phosphene.validity.decoding_target import PICTURES
from phosphene.validity.likeness import thumbnails

_MOST_TRAINING = 2000  # stimuli
_MOST_VALUES = 20_000_000  # of true training latents in all spaces, 80 MB as float32
_MOST_VOXELS = 5000
_BLOCK = 250  # training pictures read, and turned into latents, at a time
_STREAM = 14  # of random numbers

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
    labels : ndarray of shape (n_decoded,), or None
        category of each

    Returns
    -------
    list of DecodingTarget
        empty where the decoded pictures are not those of the test trials
    """
    recipe = fitted[0]
    rng = np.random.default_rng([opened.config.seed, _STREAM])
    train, test = opened.sides(0)
    train = train.average_repeats()
    test = test.average_repeats()
    in_fold = (index["fold"] == 0).to_numpy()  # (n_decoded,)

    if not len(train) or [str(i) for i in index["stimulus"][in_fold]] != [str(i) for i in test.stimuli]:
        return []

    n_training = len(train)
    rows = np.sort(rng.permutation(len(train))[:_MOST_TRAINING])
    voxels = np.sort(rng.permutation(train.n_voxels)[:_MOST_VOXELS])
    train = train.take(rows)
    shown = opened.stimuli.select(train.stimuli)
    betas = np.asarray(train.betas)[:, voxels]  # (n_train, n_some)
    test_betas = np.asarray(test.betas)[:, voxels]  # (n_test, n_some)
    test_labels = None
    if labels is not None:
        test_labels = np.asarray(labels)[in_fold]

    def target(space: str, known: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> DecodingTarget:
        n_known = len(known)  # fewer than were drawn, where latents are wide
        category = None
        if shown.category is not None:
            category = shown.category[:n_known]

        return DecodingTarget(
            space, known, true, predicted,
            n_training=n_training, labels=category, test_labels=test_labels, betas=betas[:n_known], test_betas=test_betas,
        )  # fmt: skip

    targets = []
    decoded = _decoded_latents(opened, recipe, test, in_fold)
    if decoded:
        known = _true_latents(recipe, shown, list(decoded))
        for space, (predicted, true) in decoded.items():
            targets.append(target(space, known[space], true, predicted))

    seen, drawn = (thumbnails(np.asarray(opened.folder.pixels(TEST, name)[in_fold])) for name in (SEEN, "brain"))
    blocks = [thumbnails(shown.pixels(slice(i, i + _BLOCK))) for i in range(0, len(shown), _BLOCK)]

    # Pictures of another number of channels cannot be compared.
    if seen.shape[1] == blocks[0].shape[1]:
        targets.append(target(PICTURES, np.concatenate(blocks), seen, drawn))

    return targets


def _decoded_latents(
    opened: Run, recipe: Recipe, test: Trials, in_fold: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Decoded and true latents of the fold: those filed, or, where folds have spaces of their own, computed anew."""
    from safetensors.numpy import load_file

    file = opened.folder.decoded(TEST, "brain") / "latents.safetensors"
    pairs = {}
    if file.is_file():
        filed = load_file(file)
        for space, decoded in filed.items():
            true = filed.get(f"true.{space}")
            if true is not None:
                pairs[space] = (decoded[in_fold], true[in_fold])

    if pairs or len(opened.folds) == 1:
        return pairs

    decoded = recipe.latents(test).arrays
    true = recipe.true_latents(opened.stimuli.select(test.stimuli)).arrays
    return {space: (np.asarray(decoded[space]), np.asarray(true[space])) for space in decoded if space in true}


def _true_latents(recipe: Recipe, shown: Stimuli, spaces: list[str]) -> dict[str, np.ndarray]:
    """Latents of training pictures by space, (n_known, ...): of the first pictures, as many as fit."""
    blocks: dict[str, list[np.ndarray]] = {space: [] for space in spaces}
    ids = list(shown.ids)
    n_known = 0
    n_values = 0

    while n_known < len(ids):
        arrays = recipe.true_latents(shown.select(ids[n_known : n_known + _BLOCK])).arrays
        for space in spaces:
            block = np.asarray(arrays[space])
            blocks[space].append(block)
            n_values += block.size

        n_known += _BLOCK
        with_next_block = n_values * (1 + _BLOCK / n_known)
        if with_next_block > _MOST_VALUES:
            break

    return {space: np.concatenate(parts) for space, parts in blocks.items()}


def draws_at_random(recipe: Recipe) -> bool:
    """Whether a recipe can draw several pictures for one trial.

    Parameters
    ----------
    recipe : Recipe
        fitted or not

    Returns
    -------
    bool
        True where it has a `decode_samples` of its own
    """
    return type(recipe).decode_samples is not Recipe.decode_samples


def other_kind(opened: Run) -> str:
    """What test stimuli are, where they are of another kind than those of training.

    Parameters
    ----------
    opened : Run
        a run

    Returns
    -------
    str
        such as ``imagery stimuli``; empty where they are of one kind
    """
    split = opened.config.split or opened.folds[0].name
    names = f"{split} {opened.dataset.name} {opened.folds[0].note}".lower()

    for word in OTHER_KINDS:
        if word in names:
            return f"{word} stimuli"

    return ""
