"""Decode and encode: the held-out side of a run, with control inputs beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError, did_you_mean
from phosphene.io import atomic
from phosphene.io.folder import SEEN, RunFolder
from phosphene.io.progress import Progress
from phosphene.metrics.category import CategoryOnlyDecoder
from phosphene.recipes.base import Recipe
from phosphene.run import TEST, Run
from phosphene.types import Images, Stimuli, Trials

CONTROLS = ("shuffled", "noise", "mean", "category", "truth")
"""Controls decoded by default. ``shuffled_training`` costs a second fit and is made when asked for."""

KNOWN_CONTROLS = (*CONTROLS, "shuffled_training")
"""Every control there is. Other inputs beside ``brain`` are steps on the way, such as a first stage."""


def decode(opened: Run, *, controls: Sequence[str] = CONTROLS, progress: Progress | None = None) -> RunFolder:
    """Decode the test trials, repeats averaged, and what takes the place of the brain in the controls.

    Parameters
    ----------
    opened : Run
        a fitted run
    controls : sequence of str, optional
        any of

        - ``shuffled``: the test responses in random order (uniform, so that chance is exact)
        - ``noise``: draws from the Gaussian with the mean and covariance of the training responses
        - ``mean``: the mean training response
        - ``category``: no decoder but a classifier of the responses, which draws the mean training picture of the category
          it names; where there are categories
        - ``truth``: no brain at all, the true latents through the generator, where the recipe can
        - ``shuffled_training``: the test responses, decoded by the same recipe fitted on pictures dealt to the training
          stimuli at random
    progress : Progress, optional
        where progress is shown

    Raises
    ------
    ConfigError
        For a control that does not exist.
    """
    progress = progress or Progress(quiet=True)
    for name in controls:
        if name not in KNOWN_CONTROLS:
            raise ConfigError(f"there is no control '{name}'. {did_you_mean(name, KNOWN_CONTROLS)}")

    run = opened.folder
    drawn: dict[str, list[_Drawn]] = {}

    with run.locked("decode"):
        for fold in progress.each(range(len(opened.folds)), "decoding", unit="fold"):
            for name, pictures in _decode_fold(opened, fold, controls):
                drawn.setdefault(name, []).append(pictures)

        for name, folds in drawn.items():
            _write_pictures(run, name, folds, opened.stimuli)

        run.log("decoded", inputs=list(drawn))

    return run


class _Drawn(NamedTuple):
    """Pictures of one fold, the latents that may be compared across folds, and all samples (n, samples, h, w, c) uint8."""

    fold: int
    images: Images
    latents: dict[str, np.ndarray]
    samples: np.ndarray | None = None


def _decode_fold(opened: Run, fold: int, controls: Sequence[str]) -> Iterator[tuple[str, _Drawn]]:
    recipe = opened.recipe(fold)
    train, test = opened.sides(fold)
    test = test.average_repeats()
    stimuli = opened.stimuli.select(test.stimuli)
    rng = np.random.default_rng([opened.config.seed, fold, 7])

    if len(opened.folds) == 1:
        comparable = None
    else:
        comparable = recipe.fixed_spaces

    def drawn(model: Recipe, given: Trials, images: Images | None = None) -> _Drawn:
        pairs = {**model.latents(given).arrays}
        pairs |= {f"true.{k}": v for k, v in model.true_latents(stimuli).arrays.items()}
        kept = {k: v for k, v in pairs.items() if comparable is None or k.removeprefix("true.") in comparable}
        return _Drawn(fold, model.decode(given) if images is None else images, kept)

    yield SEEN, _Drawn(fold, Images(stimuli.ids, stimuli.resized(recipe.image_shape_[:2])), {})
    samples = recipe.decode_samples(test)

    if len(samples) > 1:
        every = np.stack([s.as_uint8() for s in samples], axis=1)
    else:
        every = None

    yield "brain", drawn(recipe, test, samples[0])._replace(samples=every)
    for name, images in recipe.decode_steps(test).items():
        yield name, _Drawn(fold, images, {})

    for name in controls:
        if name == "truth":
            ceiling = recipe.ceiling(stimuli)
            if ceiling is not None:
                yield name, _Drawn(fold, ceiling, {})
        elif name == "category":
            pictures = _category_only(opened.stimuli, train, test, recipe)
            if pictures is not None:
                yield name, _Drawn(fold, pictures, {})
        elif name == "shuffled_training":
            yield name, drawn(_fitted_on_shuffled(recipe, train, opened.stimuli, rng), test)
        else:
            yield name, drawn(recipe, _control_input(name, train, test, rng))


def _control_input(name: str, train: Trials, test: Trials, rng: np.random.Generator) -> Trials:
    if name == "shuffled":
        return test.with_betas(test.betas[rng.permutation(len(test))], control="test responses in random order")

    betas = train.average_repeats().betas
    mean = betas.mean(axis=0, dtype=np.float64).astype(np.float32)
    if name == "mean":
        return test.with_betas(np.repeat(mean[None], len(test), axis=0), control="mean training response")

    # Random mixtures of centred training rows have exactly their covariance, which is never formed.
    mix = rng.standard_normal((len(test), len(betas)), dtype=np.float32) / np.float32(np.sqrt(max(1, len(betas) - 1)))
    return test.with_betas(mix @ (betas - mean) + mean, control="Gaussian of the training mean and covariance")


def _category_only(stimuli: Stimuli, train: Trials, test: Trials, recipe: Recipe) -> Images | None:
    if stimuli.category is None:
        return None

    train = train.average_repeats()
    shown = stimuli.select(train.stimuli)
    if len(set(shown.category)) < 2 or len(train) < 3:
        return None

    decoder = CategoryOnlyDecoder().fit(train.betas, shown.category, shown.resized(recipe.image_shape_[:2]))
    return Images(test.stimuli, decoder.decode(test.betas))


def _fitted_on_shuffled(recipe: Recipe, train: Trials, stimuli: Stimuli, rng: np.random.Generator) -> Recipe:
    """The same recipe fitted anew, each training stimulus given the picture of another."""
    ids = train.stimulus_ids
    dealt = dict(zip(ids, ids[rng.permutation(len(ids))], strict=True))
    wrong = replace(train, table=train.table.assign(stimulus=[dealt[i] for i in train.stimuli]))
    return type(recipe)(recipe.config, seed=recipe.seed).fit(wrong, stimuli)


def _write_pictures(run: RunFolder, source: str, folds: Sequence[_Drawn], stimuli: Stimuli) -> None:
    from PIL import Image
    from safetensors.numpy import save_file

    whole = Images(np.concatenate([f.images.ids for f in folds]), np.concatenate([f.images.pixels for f in folds]))
    category = stimuli.select(whole.ids).category
    names = [f"{n:06d}.png" for n in range(len(whole))]

    with atomic.folder(run.decoded(TEST, source)) as folder:
        np.save(folder / "pixels.npy", whole.clipped(), allow_pickle=False)
        (folder / "images").mkdir()

        for name, picture in zip(names, whole.as_uint8(), strict=True):
            Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(folder / "images" / name)

        index = pd.DataFrame({"stimulus": whole.ids, "fold": [f.fold for f in folds for _ in range(len(f.images))]})
        index["file"], index["category"] = names, "" if category is None else category
        index.to_csv(folder / "index.csv", index=False)

        if folds[0].samples is not None:
            np.save(folder / "samples.npy", np.concatenate([f.samples for f in folds]), allow_pickle=False)

        latents = {k: np.concatenate([f.latents[k] for f in folds]) for k in folds[0].latents}
        if latents:
            contiguous = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in latents.items()}
            save_file(contiguous, folder / "latents.safetensors")


def encode(opened: Run, *, progress: Progress | None = None) -> RunFolder:
    """Predict the responses to the test pictures, and lay the measured ones (repeats averaged) beside them.

    With several folds both are relative to the mean response of the fold's training trials. That mean moves against the
    mean of what was left out: with it in, a voxel nobody can predict would correlate at about -1/sqrt(folds).

    Raises
    ------
    ConfigError
        When the recipe only decodes.
    """
    progress = progress or Progress(quiet=True)
    predicted = []
    measured = []
    ids = []
    folds = []
    repeats = []

    with opened.folder.locked("encode"):
        for fold in progress.each(range(len(opened.folds)), "encoding", unit="fold"):
            recipe = opened.recipe(fold)
            if not recipe.can_encode(recipe.config):
                if recipe.can_encode():
                    more = " as it is configured here"
                else:
                    more = ""

                raise ConfigError(
                    f"the recipe {opened.config.recipe.kind} decodes only{more}; it cannot predict responses."
                )

            train, test = opened.sides(fold)
            test = test.average_repeats()

            if len(opened.folds) == 1:
                base = np.float32(0)
            else:
                base = train.average_repeats().betas.mean(axis=0)

            predicted.append(recipe.encode(opened.stimuli.select(test.stimuli)).betas - base)
            measured.append(test.betas - base)
            ids += list(test.stimuli)
            folds += [fold] * len(test)
            repeats += list(test.table["n_repeats"])
            voxels = test.voxels.assign(voxel=np.arange(test.n_voxels))
            weights = recipe.voxel_weights()

            if weights is not None:
                voxels["decoding_weight"] = weights

        with atomic.folder(opened.folder.encoded(TEST)) as folder:
            np.save(folder / "predicted.npy", np.concatenate(predicted), allow_pickle=False)
            np.save(folder / "measured.npy", np.concatenate(measured), allow_pickle=False)
            pd.DataFrame({"stimulus": ids, "fold": folds, "n_repeats": repeats}).to_csv(
                folder / "index.csv", index=False
            )

            voxels.to_csv(folder / "voxels.csv", index=False)

        opened.folder.log("encoded", n=len(ids))

    return opened.folder
