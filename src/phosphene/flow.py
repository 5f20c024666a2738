"""The verbs on a run folder: fit, decode, encode, evaluate. The command line is a few lines over this file.

Each verb opens the run, does its work under the run's lock, and writes results that appear whole or not at all.
Whatever was finished before a kill is found again by the same command.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, create_model

from phosphene import recipes
from phosphene._version import __version__
from phosphene.data import registry, splits
from phosphene.data.quality import ready
from phosphene.errors import ConfigError, ModelError
from phosphene.recipes.base import Recipe, RecipeConfig
from phosphene.run import atomic
from phosphene.run.config import FORMAT, Config, flatten, read_yaml, resolve, to_yaml
from phosphene.run.folder import SEEN, RunFolder
from phosphene.run.progress import Progress
from phosphene.run.stages import STAGE, StageStore
from phosphene.types import Dataset, Images, Split, Stimuli, Trials, digest_of

TEST = "test"
CONTROLS = ("shuffled", "noise", "mean")


class DataConfig(Config):
    """Which trials. The folder they lie in is no part of the science and of no digest."""

    name: str = Field(description="data set, or path to a file or folder")
    subject: str | None = Field(None, description="person; the first by default")
    root: str | None = Field(None, description="folder of the data set; PHOSPHENE_DATA otherwise")
    roi: str | None = Field(None, description="ROI expression such as V1+V2; all voxels by default")
    nan: Literal["error", "drop", "impute"] = Field("error", description="what to do with voxels that hold NaN")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader")


class RunConfig(Config):
    """Everything `fit` is told. `recipe` is the configuration of the recipe named."""

    format: int = FORMAT
    recipe: RecipeConfig
    data: DataConfig
    split: str | None = Field(None, description="named split, kfold:K, or a file; the data set's first by default")
    preset: Literal["lab", "paper"] = "lab"
    seed: int = Field(0, ge=0, lt=2**32)


def configure(recipe: str, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[RunConfig, dict[str, str]]:
    """The configuration of a run, and where each value came from.

    Parameters
    ----------
    recipe : its name
    layers : (origin, values), later ones winning; the recipe's preset lies below them all

    Raises
    ------
    ConfigError
        Unknown recipe or key, wrong type, value out of range.
    """
    cls = recipes.get(recipe)
    model = create_model("RunConfig", __base__=RunConfig, recipe=(cls.config_class, cls.config_class()))
    preset = next((v["preset"] for _, v in reversed(layers) if "preset" in v), "lab")
    below = [(f"preset {preset}", {"recipe": cls.preset(preset)}), ("recipe", {"recipe.kind": recipe})]
    return resolve(model, [*below, *layers])


# -- one opened run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A run together with the data it is about."""

    run: RunFolder
    config: RunConfig

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, opened from where the configuration says."""
        data = self.config.data
        spec = f"{data.name}:{data.subject}" if data.subject else data.name
        return registry.open_dataset(spec, root=data.root, options=data.options)

    @cached_property
    def trials(self) -> Trials:
        """Every usable trial of the subject, ROI selected."""
        trials = self.dataset.trials(self.config.data.subject)
        if self.config.data.roi:
            trials = trials.select(roi=self.config.data.roi)
        return ready(trials, nan=self.config.data.nan)

    @cached_property
    def stimuli(self) -> Stimuli:
        """Stimuli the subject saw and whose picture is there."""
        return self.dataset.stimuli.select(self.trials.stimulus_ids).available()

    @cached_property
    def folds(self) -> list[Split]:
        """One split, or one per fold."""
        return splits.resolve(self.dataset, self.trials, self.config.split, seed=self.config.seed)

    def sides(self, fold: int) -> tuple[Trials, Trials]:
        """Training and test trials of a fold, those without a picture left out."""
        with_picture = set(self.stimuli.ids)
        train, test = self.folds[fold].apply(self.trials)
        return (
            train.take(np.isin(train.stimuli.astype(str), list(with_picture))),
            test.take(np.isin(test.stimuli.astype(str), list(with_picture))),
        )

    def place(self, fold: int) -> Path:
        """Folder of a fold's recipe: the run itself where there is one split only."""
        return self.run.path if len(self.folds) == 1 else self.run.path / "folds" / f"{fold:02d}"

    def recipe(self, fold: int) -> Recipe:
        """The fitted recipe of a fold. Raises ModelError when it is not fitted or damaged."""
        if not (self.place(fold) / "recipe.json").is_file():
            raise ModelError(f"{self.run.path} is not fitted to the end. Run the same `phosphene fit` command again; it goes on.")
        return recipes.get(self.config.recipe.kind).load(self.place(fold))


def open_run(path: str | Path, root: str | None = None) -> Opened:
    """A run made by `fit`.

    Parameters
    ----------
    path : its folder
    root : where the data lie now, if they moved since

    Raises
    ------
    ModelError, ConfigError
        When the folder holds no run, or its configuration cannot be read.
    """
    run = RunFolder.existing(path)
    values = read_yaml(run.path / "config.yaml")
    kind = str(values.get("recipe", {}).get("kind", ""))
    layers: list[tuple[str, Mapping[str, Any]]] = [("config.yaml", values)]
    if root is not None:
        layers.append(("--root", {"data.root": root}))
    return Opened(run, configure(kind, layers)[0])


# -- fit ---------------------------------------------------------------------------------------------------------------


def fit(
    config: RunConfig, out: str | Path, *, origins: Mapping[str, str] | None = None, progress: Progress | None = None
) -> Opened:
    """Fit a recipe, stage by stage and fold by fold, into the folder `out`.

    The same call on a folder that holds an unfinished run goes on with it.

    Raises
    ------
    ConfigError
        When the folder holds a run of another configuration or other data.
    """
    progress = progress or Progress(quiet=True)
    opened = Opened(RunFolder(Path(out)), config)
    with progress.step("reading the data"):
        trials, folds = opened.trials, opened.folds
        identity = {
            "recipe": config.recipe.kind,
            "config_digest": _science(config),
            "data_digest": digest_of(trials.digest(), opened.stimuli.digest()),
            "split_digest": digest_of([s.digest for s in folds]),
        }
    run = opened.run
    with run.locked(f"fit {config.recipe.kind}"):
        _refuse_another(run, identity)
        atomic.write_text(run.path / "config.yaml", to_yaml(config.model_dump(mode="json")))
        flat = flatten(config.model_dump(mode="json"))
        run.write_table(
            pd.DataFrame([{"key": k, "value": str(v), "origin": (origins or {}).get(k, "given")} for k, v in flat.items()]),
            "origins.csv",
        )
        run.write_table(_split_table(folds), "splits.csv")
        run.write_manifest(**identity, **_circumstances(opened), state="fitting")
        for number, fold in enumerate(folds):
            train, _ = opened.sides(number)
            what = fold.name if len(folds) == 1 else f"fold {number + 1} of {len(folds)}"

            def announce(stage: str, how: str, seconds: float, what: str = what) -> None:
                progress.say(f"{what}: {stage} {'was there' if how == 'reused' else f'fitted in {seconds:.1f} s'}")
                run.log("stage", fold=what, stage=stage, how=how, seconds=seconds)

            store = StageStore(opened.place(number) / "stages", announce)
            recipes.get(config.recipe.kind)(config.recipe, seed=config.seed).fit(train, opened.stimuli, store)
        run.write_manifest(state="fitted", finished=time.strftime("%Y-%m-%dT%H:%M:%S"))
    return opened


def _science(config: RunConfig) -> str:
    values = config.model_dump(mode="json")
    values["data"].pop("root")
    values["data"].pop("name")  # a path; the data digest stands for it
    return digest_of(values)


def _refuse_another(run: RunFolder, identity: Mapping[str, str]) -> None:
    if not (run.path / "manifest.json").is_file():
        foreign = [p.name for p in run.path.iterdir() if not p.name.startswith(".")]
        if foreign:
            raise ConfigError(
                f"{run.path} is not empty and holds no run ({', '.join(sorted(foreign)[:3])} ...); choose another --out."
            )
        return
    before = run.manifest
    what = {"recipe": "recipe", "config_digest": "configuration", "data_digest": "data", "split_digest": "split"}
    changed = [what[k] for k, v in identity.items() if before.get(k) != v]
    if changed:
        raise ConfigError(
            f"{run.path} holds a run of {before.get('recipe')} whose {' and '.join(changed)} "
            f"{'differs' if len(changed) == 1 else 'differ'} from what you ask for now. Choose another --out, or delete "
            "that folder; nothing in it was touched."
        )


def _split_table(folds: Sequence[Split]) -> pd.DataFrame:
    rows = [
        (number, side, split.unit, i)
        for number, split in enumerate(folds)
        for side, ids in (("train", split.train), ("test", split.test))
        for i in ids
    ]
    return pd.DataFrame(rows, columns=["fold", "side", "unit", "id"])


def _circumstances(opened: Opened) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"phosphene": __version__, "python": platform.python_version()}
    for package in ("numpy", "scipy", "pandas", "scikit-learn", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    data, trials, folds = opened.dataset, opened.trials, opened.folds
    return {
        "data": {
            "name": data.name,
            "about": dict(data.about),
            "subject": trials.subject,
            "n_trials": len(trials),
            "n_voxels": trials.n_voxels,
            "n_stimuli": len(trials.stimulus_ids),
            "rois": list(trials.rois),
            "provenance": {k: str(v) for k, v in trials.provenance.items()},
            "without_picture": len(trials.stimulus_ids) - len(opened.stimuli),
        },
        "split": {
            "name": opened.config.split or folds[0].name,
            "folds": len(folds),
            "category_disjoint": folds[0].category_disjoint,
            "unit": folds[0].unit,
            "note": folds[0].note,
        },
        "seed": opened.config.seed,
        "setting": opened.config.recipe.setting,
        "versions": versions,
        "machine": platform.machine(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


# -- decode and encode -------------------------------------------------------------------------------------------------


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
            out[name] = test.with_betas(test.betas[rng.permutation(len(test))], control="test responses in random order")
        elif name == "mean":
            mean = train.betas.mean(axis=0, dtype=np.float64).astype(np.float32)
            out[name] = test.with_betas(np.repeat(mean[None], len(test), axis=0), control="mean training response")
        elif name == "noise":
            betas = train.average_repeats().betas
            mean = betas.mean(axis=0, dtype=np.float64).astype(np.float32)
            # Random mixtures of centred training rows have exactly their covariance, which is never formed.
            mix = rng.standard_normal((len(test), len(betas)), dtype=np.float32) / np.sqrt(max(1, len(betas) - 1))
            out[name] = test.with_betas(mix @ (betas - mean) + mean, control="Gaussian of the training mean and covariance")
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
            save_file({k: np.ascontiguousarray(v, dtype=np.float32) for k, v in latents.items()}, folder / "latents.safetensors")


def encode(opened: Opened, *, progress: Progress | None = None) -> RunFolder:
    """Predict the responses to the test pictures, and lay the measured ones (repeats averaged) beside them.

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
            if not recipe.can_encode:
                raise ConfigError(f"the recipe {opened.config.recipe.kind} decodes only; it cannot predict responses.")
            test = opened.sides(fold)[1].average_repeats()
            predicted.append(recipe.encode(opened.stimuli.select(test.stimuli)).betas)
            measured.append(test.betas)
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
            pd.DataFrame({"stimulus": ids, "fold": folds, "n_repeats": repeats}).to_csv(folder / "index.csv", index=False)
            voxels.to_csv(folder / "voxels.csv", index=False)
        opened.run.log("encoded", n=len(ids))
    return opened.run
