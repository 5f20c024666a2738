"""Decode and encode: the held-out side of a run, and control inputs that take the place of the brain.

A fold decodes the brain's responses, the steps on the way where the recipe has any, and each control: under names that are
made up and in random order (`phosphene.flow.blind`), by a recipe that was read from the stages of the run and sees no true
picture. Another copy of the recipe makes what is known of the truth. All folds of one input are then written together, in the
order of the folds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from phosphene import recipes
from phosphene.errors import ConfigError, did_you_mean
from phosphene.flow.blind import BlindRecipe
from phosphene.flow.picture_files import write_pictures
from phosphene.io import atomic
from phosphene.io.opened_files import OpenedFiles
from phosphene.io.progress import Progress
from phosphene.io.run_folder import SEEN, RunFolder
from phosphene.io.run_tables import write_table
from phosphene.io.seals import seal_folder
from phosphene.metrics.category import CategoryOnlyDecoder
from phosphene.recipes.base import Recipe
from phosphene.run import TEST, Run, RunLike, as_run
from phosphene.types import Images, Stimuli, Trials

CONTROLS = ("shuffled", "noise", "mean", "category", "truth")
"""Controls decoded by default. ``shuffled_training`` costs a second fit and is made when asked for."""

RESPONSES = ("shuffled", "noise", "mean")
"""Controls that are responses, and go the whole way of the brain's."""

KNOWN_CONTROLS = (*CONTROLS, "shuffled_training")
"""Every control there is. Any other input but ``brain`` is a step on the way, such as a first stage."""

SECONDS = "seconds.json"
"""Beside the decoded pictures: how long the recipe took for them."""

_BLOCK = 256  # pictures that are read at a time

_STREAM = 7  # of random numbers, so that a control shares none with the recipe, which has the same seed


def decode(
    opened: RunLike,
    *,
    controls: Sequence[str] = CONTROLS,
    samples: int | None = None,
    progress: Progress | None = None,
) -> RunFolder:
    """Decode the test trials, repeats averaged, and what takes the place of the brain in the controls.

    Of a recipe that draws with chance all samples are kept, and scores are means over them; controls are drawn once.

    Parameters
    ----------
    opened : Run or RunFolder or str or Path
        a fitted run, or its folder
    controls : sequence of str, optional
        any of

        - ``shuffled``: the test responses of all folds in random order (uniform, so that chance is exact)
        - ``noise``: draws from the Gaussian with the mean and covariance of the training responses
        - ``mean``: the mean training response
        - ``category``: no decoder but a classifier of the responses, which draws the mean training picture of the category
          it names; where there are categories
        - ``truth``: no brain at all, the true latents through the generator, where the recipe can
        - ``shuffled_training``: the test responses, decoded by the same recipe fitted on pictures dealt to the training
          stimuli at random
    samples : int, optional
        how many of the samples that the recipe draws for each trial are kept and scored, the first ones; all by default
    progress : Progress, optional
        where progress is shown

    Returns
    -------
    RunFolder
        the run's folder, with pictures, latents and an index of each input in ``decoded/test/INPUT``

    Raises
    ------
    ConfigError
        For a control that does not exist, or fewer than one sample.
    ModelError
        When the run is not fitted to the end, or the recipe looks up the name of a test item.
    """
    opened = as_run(opened)
    progress = progress or Progress(quiet=True)
    if samples is not None and samples < 1:
        raise ConfigError(f"at least 1 sample must be decoded, but {samples} were asked for.")

    for name in controls:
        if name not in KNOWN_CONTROLS:
            raise ConfigError(f"there is no control '{name}'. {did_you_mean(name, KNOWN_CONTROLS)}")

    run = opened.folder
    opened.verify()
    by_input: dict[str, list[_Decoded]] = {}
    files = OpenedFiles()
    n_folds = len(opened.folds)
    streams = [np.random.default_rng([opened.config.seed, fold, _STREAM]) for fold in range(n_folds)]
    shuffled: list[np.ndarray] | None = None
    if "shuffled" in controls:
        shuffled = _shuffled_over_folds(opened, streams[0])

    with run.locked("decode"):
        for fold in progress.each(range(n_folds), "decoding", unit="fold"):
            in_other_order = None
            if shuffled is not None:
                in_other_order = shuffled[fold]

            for name, decoded in _decode_fold(opened, fold, controls, samples, files, streams[fold], in_other_order):
                by_input.setdefault(name, []).append(decoded)

        seconds = round(sum(one.seconds for one in by_input["brain"]), 3)
        record: dict[str, object] = {
            "columns": list(recipes.recipe(opened.config.recipe.kind)(opened.config.recipe).trial_columns),
            "read": sorted(files.read),
            "written": sorted(files.written),
        }
        for name, folds in by_input.items():
            _write_folds(run, name, folds, opened.stimuli, record)

        # No part of what is sealed: the same work takes another time.
        atomic.write_text(run.decoded(TEST, "brain") / SECONDS, json.dumps({"seconds": seconds}) + "\n")
        run.log("decoded", inputs=list(by_input))

    return run


class _Decoded(NamedTuple):
    """What one input of one fold was decoded to.

    Attributes
    ----------
    fold : int
        number of the fold
    images : Images
        one picture per test stimulus
    latents : dict of str to ndarray
        decoded and true latents, of the spaces in which folds may be compared
    samples : ndarray of shape (n, n_samples, height, width, channels), uint8, or None
        all pictures drawn, where there are several
    seconds : float
        that the recipe took
    """

    fold: int
    images: Images
    latents: dict[str, np.ndarray]
    samples: np.ndarray | None = None
    seconds: float = 0.0


def _shuffled_over_folds(opened: Run, rng: np.random.Generator) -> list[np.ndarray]:
    """Responses of the whole test set in random order, (n_test, n_voxels) for each fold.

    Inside a fold of one stimulus, or of two, a random order is often or always the true one.
    """
    tests = []
    for fold in range(len(opened.folds)):
        _, test = opened.sides(fold)
        tests.append(np.asarray(test.average_repeats().betas))

    order = rng.permutation(sum(len(betas) for betas in tests))
    betas = np.concatenate(tests)[order]  # (n_all, n_voxels)
    ends = np.cumsum([len(test) for test in tests])

    return np.split(betas, ends[:-1])


def _decode_fold(
    opened: Run,
    fold: int,
    controls: Sequence[str],
    n_samples: int | None,
    files: OpenedFiles,
    rng: np.random.Generator,
    shuffled: np.ndarray | None,
) -> Iterator[tuple[str, _Decoded]]:
    """Name of each input, and what it was decoded to. The order of controls matters: they draw from one generator."""
    recipe = opened.recipe(fold)  # knows the truth
    seed = [opened.config.seed, fold]
    blind = BlindRecipe(opened.recipe(fold), seed, files)  # never does
    train, test = opened.sides(fold)
    test = test.average_repeats()
    stimuli = opened.stimuli.select(test.stimuli)

    if len(opened.folds) == 1:
        spaces = None
    else:
        spaces = recipe.fixed_spaces  # a space that is fitted is another one in each fold

    blocks = [slice(start, start + _BLOCK) for start in range(0, len(stimuli), _BLOCK)]
    seen = [stimuli.resized(opened.scored_size, rows) for rows in blocks]
    yield SEEN, _Decoded(fold, Images(stimuli.ids, np.concatenate(seen)), {})

    responses: dict[str, Trials] = {}
    refit = None
    for name in controls:
        if name == "shuffled":
            assert shuffled is not None  # as it is among the controls
            responses[name] = test.with_betas(shuffled, control="responses of the whole test set in random order")
        elif name in RESPONSES:
            responses[name] = _control_input(name, train, test, rng)
        elif name == "shuffled_training":
            refit = BlindRecipe(_fitted_on_shuffled(recipe, train, opened.stimuli, rng), seed, files)

    # Noise comes first: statistics that a recipe keeps of its first batch would be those of noise.
    decoded: dict[str, Images] = {}
    if "noise" in responses:
        decoded["noise"] = blind.decode(responses["noise"])

    start = time.perf_counter()
    if n_samples == 1 and not recipe.chooses_sample:
        samples = [blind.decode(test)]
    else:
        samples = blind.decode_samples(test)[:n_samples]

    seconds = time.perf_counter() - start
    if len(samples) > 1:
        all_samples = np.stack([images.as_uint8() for images in samples], axis=1)  # (n, n_samples, h, w, c)
    else:
        all_samples = None

    latents = _latents(blind, recipe, test, stimuli, spaces)
    yield "brain", _Decoded(fold, samples[0], latents, all_samples, seconds)

    for name, images in blind.decode_steps(test).items():
        yield name, _Decoded(fold, images, {})

    for name in controls:
        if name == "truth":
            ceiling = recipe.ceiling(stimuli)
            if ceiling is not None:
                yield name, _Decoded(fold, ceiling, {})
        elif name == "category":
            images = _category_only(opened.stimuli, train, test, recipe)
            if images is not None:
                yield name, _Decoded(fold, images, {})
        elif name == "shuffled_training":
            assert refit is not None  # made above
            latents = _latents(refit, refit.recipe, test, stimuli, spaces)
            yield name, _Decoded(fold, refit.decode(test), latents)
        else:
            latents = _latents(blind, recipe, responses[name], stimuli, spaces)
            images = decoded.get(name)
            if images is None:
                images = blind.decode(responses[name])

            yield name, _Decoded(fold, images, latents)


def _latents(
    blind: BlindRecipe, recipe: Recipe, trials: Trials, stimuli: Stimuli, spaces: Collection[str] | None
) -> dict[str, np.ndarray]:
    """Decoded latents by space, and the true ones under ``true.SPACE``; all of them, or those of some spaces only."""
    latents = {**blind.latents(trials).arrays}
    for space, true in recipe.true_latents(stimuli).arrays.items():
        latents[f"true.{space}"] = true

    if spaces is None:
        return latents

    return {name: array for name, array in latents.items() if name.removeprefix("true.") in spaces}


def _control_input(name: str, train: Trials, test: Trials, rng: np.random.Generator) -> Trials:
    """Responses of a control, under the test stimuli: (n_test, n_voxels)."""
    betas = train.average_repeats().betas  # (n_train, n_voxels)
    mean = betas.mean(axis=0, dtype=np.float64).astype(np.float32)  # (n_voxels,)
    if name == "mean":
        return test.with_betas(np.repeat(mean[None], len(test), axis=0), control="mean training response")

    # Random mixtures of centred training rows have exactly their covariance, which is never formed.
    mix = rng.standard_normal((len(test), len(betas)), dtype=np.float32) / np.float32(np.sqrt(max(1, len(betas) - 1)))
    noise = mix @ (betas - mean) + mean  # (n_test, n_voxels)
    return test.with_betas(noise, control="Gaussian of the training mean and covariance")


def _category_only(stimuli: Stimuli, train: Trials, test: Trials, recipe: Recipe) -> Images | None:
    """The mean training picture of the category read off the responses; None where there is no choice of category."""
    if stimuli.category is None:
        return None

    train = train.average_repeats()
    shown = stimuli.select(train.stimuli)
    assert shown.category is not None  # as all stimuli have one

    if len(set(shown.category)) < 2 or len(train) < 3:
        return None

    decoder = CategoryOnlyDecoder().fit(train.betas, shown.category, shown.resized(recipe.image_shape_[:2]))
    return Images(test.stimuli, decoder.decode(test.betas))


def _fitted_on_shuffled(recipe: Recipe, train: Trials, stimuli: Stimuli, rng: np.random.Generator) -> Recipe:
    """The same recipe fitted anew, each training stimulus given the picture of another."""
    ids = train.stimulus_ids
    other = dict(zip(ids, ids[rng.permutation(len(ids))], strict=True))

    # By stimulus, not by trial: repeats of a stimulus still show one picture, as the recipe expects.
    shuffled = replace(train, table=train.table.assign(stimulus=[other[i] for i in train.stimuli]))
    handed = stimuli.select(ids).handed()
    return type(recipe)(recipe.config, seed=recipe.seed).fit(shuffled.handed(), handed)


def _write_folds(
    run: RunFolder, source: str, folds: Sequence[_Decoded], stimuli: Stimuli, record: dict[str, object]
) -> None:
    """Write one input's pictures of all folds; beside the brain's, how it was decoded."""
    ids = np.concatenate([f.images.ids for f in folds])
    images = Images(ids, np.concatenate([f.images.pixels for f in folds]))  # pixels (n, h, w, c)
    latents = {name: np.concatenate([f.latents[name] for f in folds]) for name in folds[0].latents}
    samples = [f.samples for f in folds if f.samples is not None]

    all_samples = None
    if samples:
        all_samples = np.concatenate(samples)  # (n, n_samples, h, w, c)

    of_brain = None
    if source == "brain":
        of_brain = record

    write_pictures(
        run,
        source,
        images,
        folds=np.repeat([f.fold for f in folds], [len(f.images) for f in folds]),
        category=stimuli.category_of(ids),
        samples=all_samples,
        latents=latents,
        record=of_brain,
    )


def encode(opened: RunLike, *, progress: Progress | None = None) -> RunFolder:
    """Predict the responses to the test pictures, and lay the measured ones (repeats averaged) beside them.

    The recipe gets pictures and captions in random order, under names that are made up.

    With several folds both are relative to the mean response of the fold's training trials. That mean moves against the
    mean of what was left out: with it in, a voxel nobody can predict would correlate at about -1/sqrt(folds).

    Parameters
    ----------
    opened : Run or RunFolder or str or Path
        a fitted run, or its folder
    progress : Progress, optional
        where progress is shown

    Returns
    -------
    RunFolder
        the run's folder, with predicted.npy and measured.npy of shape (n, n_voxels) in ``encoded/test``

    Raises
    ------
    ConfigError
        When the recipe only decodes.
    ModelError
        When the run is not fitted to the end.
    """
    opened = as_run(opened)
    progress = progress or Progress(quiet=True)
    opened.verify()
    predicted = []
    measured = []
    index = []
    voxels = pd.DataFrame()

    with opened.folder.locked("encode"):
        for fold in progress.each(range(len(opened.folds)), "encoding", unit="fold"):
            recipe = opened.recipe(fold)
            refuse_decoder(recipe)

            train, test = opened.sides(fold)
            test = test.average_repeats()

            if len(opened.folds) == 1:
                base = np.float32(0)
            else:
                base = train.average_repeats().betas.mean(axis=0)  # (n_voxels,)

            blind = BlindRecipe(recipe, [opened.config.seed, fold])
            predicted.append(blind.encode(opened.stimuli.select(test.stimuli)) - base)
            measured.append(test.betas - base)
            rows = {"stimulus": list(test.stimuli), "fold": fold, "n_repeats": list(test.table["n_repeats"])}
            index.append(pd.DataFrame(rows))

            # Weights are those of the last fold; voxels are the same in all of them.
            voxels = test.voxels.assign(voxel=np.arange(test.n_voxels))
            weights = recipe.voxel_weights()
            if weights is not None:
                voxels["decoding_weight"] = weights

        table = pd.concat(index)
        with atomic.folder(opened.folder.encoded(TEST)) as folder:
            np.save(folder / "predicted.npy", np.concatenate(predicted), allow_pickle=False)
            np.save(folder / "measured.npy", np.concatenate(measured), allow_pickle=False)
            write_table(table, folder / "index.csv")
            write_table(voxels, folder / "voxels.csv")
            seal_folder(folder)

        opened.folder.log("encoded", n=len(table))

    return opened.folder


def refuse_decoder(recipe: Recipe) -> None:
    """Raise ConfigError for a recipe that cannot predict responses, at all or as it is configured.

    Parameters
    ----------
    recipe : Recipe
        fitted or not

    Raises
    ------
    ConfigError
        With its name.
    """
    if recipe.can_encode(recipe.config):
        return

    if recipe.can_encode():
        more = " as it is configured here"
    else:
        more = ""

    raise ConfigError(f"the recipe {recipe.config.kind} decodes only{more}; it cannot predict responses.")
