"""Decode and encode: the held-out side of a run, with control inputs beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError
from phosphene.flow.opened import TEST, Opened
from phosphene.recipes.base import Recipe
from phosphene.run import atomic
from phosphene.run.folder import SEEN, RunFolder
from phosphene.run.progress import Progress
from phosphene.types import Images, Stimuli, Trials

CONTROLS = ("shuffled", "noise", "mean")


def decode(opened: Opened, *, controls: Sequence[str] = CONTROLS, progress: Progress | None = None) -> RunFolder:
    """Decode the test trials, repeats averaged, and the control inputs beside them.

    Controls: ``shuffled`` gives the decoder the test responses in random order (uniform, so chance is exact),
    ``noise`` draws from the Gaussian with the training trials' mean and covariance, ``mean`` is the mean training
    response, ``truth`` draws the true latents, where the recipe can.
    """
    progress = progress or Progress(quiet=True)
    run, n_folds = opened.run, len(opened.folds)
    parts: dict[str, list[tuple[Images, dict[str, np.ndarray]]]] = {}
    seen: list[Images] = []
    fold_of: list[int] = []
    with run.locked("decode"):
        for fold in progress.each(range(n_folds), "decoding"):
            recipe = opened.recipe(fold)
            train, test = opened.sides(fold)
            test = test.average_repeats()
            stimuli = opened.stimuli.select(test.stimuli)
            seen.append(_seen(stimuli, recipe))
            fold_of += [fold] * len(test)
            true = {f"true.{k}": v for k, v in recipe.true_latents(stimuli).arrays.items()}
            rng = np.random.default_rng([opened.config.seed, fold, 7])
            inputs = {"brain": test, **_control_inputs(train, test, [c for c in controls if c != "truth"], rng)}
            for name, given in inputs.items():
                latents = {**recipe.latents(given).arrays, **true}
                parts.setdefault(name, []).append((recipe.decode(given), latents))
            ceiling = recipe.ceiling(stimuli)
            if ceiling is not None:
                parts.setdefault("truth", []).append((ceiling, {}))
        categories = opened.stimuli.select(np.concatenate([s.ids for s in seen])).category
        _write_pictures(run, SEEN, seen, fold_of, categories)
        for name, found in parts.items():
            comparable = [k for k in found[0][1] if n_folds == 1 or k.removeprefix("true.") in recipe.fixed_spaces]
            latents = {k: np.concatenate([f[1][k] for f in found]) for k in comparable}
            _write_pictures(run, name, [f[0] for f in found], fold_of, categories, latents)
        run.log("decoded", inputs=list(parts))
    return run


def _seen(stimuli: Stimuli, recipe: Recipe) -> Images:
    return Images(stimuli.ids, stimuli.resized(recipe.image_shape_[:2]))


def _control_inputs(train: Trials, test: Trials, names: Sequence[str], rng: np.random.Generator) -> dict[str, Trials]:
    out: dict[str, Trials] = {}
    for name in names:
        if name == "shuffled":
            out[name] = test.with_betas(
                test.betas[rng.permutation(len(test))], control="test responses in random order"
            )
        elif name == "mean":
            mean = train.betas.mean(axis=0, dtype=np.float64).astype(np.float32)
            out[name] = test.with_betas(np.repeat(mean[None], len(test), axis=0), control="mean training response")
        elif name == "noise":
            betas = train.average_repeats().betas
            mean = betas.mean(axis=0, dtype=np.float64).astype(np.float32)
            # Random mixtures of centred training rows have exactly their covariance, which is never formed.
            mix = rng.standard_normal((len(test), len(betas)), dtype=np.float32) / np.sqrt(max(1, len(betas) - 1))
            out[name] = test.with_betas(
                mix @ (betas - mean) + mean, control="Gaussian of the training mean and covariance"
            )
        else:
            raise ConfigError(f"there is no control '{name}'; known are {', '.join(CONTROLS)} and truth.")
    return out


def _write_pictures(
    run: RunFolder,
    source: str,
    images: Sequence[Images],
    folds: Sequence[int],
    categories: np.ndarray | None,
    latents: Mapping[str, np.ndarray] | None = None,
) -> None:
    from PIL import Image
    from safetensors.numpy import save_file

    ids = np.concatenate([i.ids for i in images])
    pixels = np.concatenate([i.pixels for i in images])
    whole = Images(ids, pixels)
    with atomic.folder(run.decoded(TEST, source)) as folder:
        np.save(folder / "pixels.npy", whole.clipped(), allow_pickle=False)
        (folder / "images").mkdir()
        names = [f"{n:06d}.png" for n in range(len(ids))]
        for name, picture in zip(names, whole.as_uint8(), strict=True):
            Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(folder / "images" / name)
        index = pd.DataFrame({"stimulus": ids, "fold": list(folds), "file": names})
        index["category"] = "" if categories is None else categories
        index.to_csv(folder / "index.csv", index=False)
        if latents:
            save_file(
                {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in latents.items()},
                folder / "latents.safetensors",
            )


def encode(opened: Opened, *, progress: Progress | None = None) -> RunFolder:
    """Predict the responses to the test pictures, and lay the measured ones (repeats averaged) beside them.

    With several folds both are relative to the mean response of the fold's training trials. That mean moves against the
    mean of what was left out: with it in, a voxel nobody can predict would correlate at about -1/sqrt(folds).

    Raises
    ------
    ConfigError
        When the recipe only decodes.
    """
    progress = progress or Progress(quiet=True)
    predicted, measured, ids, folds, repeats = [], [], [], [], []
    with opened.run.locked("encode"):
        for fold in progress.each(range(len(opened.folds)), "encoding"):
            recipe = opened.recipe(fold)
            if not recipe.can_encode():
                raise ConfigError(f"the recipe {opened.config.recipe.kind} decodes only; it cannot predict responses.")
            train, test = opened.sides(fold)
            test = test.average_repeats()
            base = np.float32(0) if len(opened.folds) == 1 else train.average_repeats().betas.mean(axis=0)
            predicted.append(recipe.encode(opened.stimuli.select(test.stimuli)).betas - base)
            measured.append(test.betas - base)
            ids += list(test.stimuli)
            folds += [fold] * len(test)
            repeats += list(test.table["n_repeats"])
            voxels = test.voxels.copy()
            weights = recipe.voxel_weights()
            if weights is not None:
                voxels["decoding_weight"] = weights
        with atomic.folder(opened.run.encoded(TEST)) as folder:
            np.save(folder / "predicted.npy", np.concatenate(predicted), allow_pickle=False)
            np.save(folder / "measured.npy", np.concatenate(measured), allow_pickle=False)
            pd.DataFrame({"stimulus": ids, "fold": folds, "n_repeats": repeats}).to_csv(
                folder / "index.csv", index=False
            )
            voxels.to_csv(folder / "voxels.csv", index=False)
        opened.run.log("encoded", n=len(ids))
    return opened.run
