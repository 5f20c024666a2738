"""Fit: stages and folds into a run folder."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from phosphene import recipes
from phosphene._version import __version__
from phosphene.data.registry import split_spec
from phosphene.errors import ConfigError
from phosphene.flow.forecast import Forecast, forecast, text_of, write_beside
from phosphene.io import atomic, memory
from phosphene.io.config import flatten, read_yaml, to_yaml
from phosphene.io.device import device
from phosphene.io.progress import Progress
from phosphene.io.ranks import is_first
from phosphene.io.run_folder import RunFolder
from phosphene.io.stages import StageStore
from phosphene.run import Run, RunConfig, configure
from phosphene.types import Split

_FIRST_FILES = ("config.yaml", "origins.csv", "splits.csv")
"""What earlier versions wrote before the manifest; a fit stopped in between left them alone in its folder."""


def fit(
    config: RunConfig | str,
    out: str | Path,
    *,
    data: str | None = None,
    values: Mapping[str, Any] | None = None,
    origins: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    pool: Path | None = None,
    predict: bool = False,
) -> Run:
    """Fit a recipe, stage by stage and fold by fold, into the folder `out`.

    The same call on a folder that holds an unfinished run goes on with it. Under ``torchrun`` networks are trained on all
    processes; the first one alone writes.

    Parameters
    ----------
    config : RunConfig or str
        everything the run is told; or the name of a recipe, with `data` and `values`
    out : str or Path
        its folder
    data : str, optional
        NAME or NAME:SUBJECT of a data set, or a path; of a recipe that is named
    values : mapping of str to Any, optional
        values of the configuration by dotted key, such as ``split`` or ``recipe.curve.kind``; of a recipe that is named
    origins : mapping of str to str, optional
        where each value came from
    progress : Progress, optional
        where progress is shown
    pool : Path, optional
        folder of finished stages that several runs share
    predict : bool, default False
        first predict what each stage will need, and at the end write forecast.csv: that beside what it took

    Returns
    -------
    Run
        the fitted run, which `decode`, `encode`, `evaluate` and `analyse` take

    Raises
    ------
    ConfigError
        When the folder holds a run of another configuration or other data, or a value cannot be used.
    MachineError
        When the responses do not fit into memory, or a device is asked for that is not there.
    """
    if isinstance(config, str):
        config, origins = _configured(config, data, values or {})
    elif data is not None or values:
        raise ConfigError(
            "data and values belong to a recipe that is named, but a whole configuration was given; change that."
        )

    device()  # asked for in the environment, and not there: say so before any work
    progress = progress or Progress(quiet=True)
    opened = Run(RunFolder(Path(out)), config)

    with progress.step("reading the data"):
        identity = opened.identity()

    _check_memory(opened)
    is_writer = is_first()
    if predict and is_writer:
        predicted = _predicted(opened, progress)
    else:
        predicted = None

    if is_writer:
        lock = opened.folder.locked(f"fit {config.recipe.kind}")
    else:
        lock = nullcontext()  # the first process holds it for all

    with lock:
        if is_writer:
            _begin(opened, identity, origins or {})

        for fold in range(len(opened.folds)):
            _fit_fold(opened, fold, progress, pool, is_writer=is_writer)

        if is_writer:
            opened.folder.write_manifest(state="fitted", finished=time.strftime("%Y-%m-%dT%H:%M:%S"))
            if predicted is not None:
                write_beside(opened, predicted)

    return opened


def _configured(recipe: str, data: str | None, values: Mapping[str, Any]) -> tuple[RunConfig, dict[str, str]]:
    """The configuration of a recipe by its name, and where each value came from."""
    asked = dict(values)
    if data is not None:
        name, subject = split_spec(data)
        asked["data.name"] = name
        if subject is not None:
            asked["data.subject"] = subject

    if "data.name" not in asked and "data" not in asked:
        raise ConfigError(
            f"a fit of '{recipe}' needs data: give data='insilico', the name of another data set, or a path."
        )

    return configure(recipe, [("arguments", asked)])


def _fit_fold(opened: Run, fold: int, progress: Progress, pool: Path | None, *, is_writer: bool) -> None:
    """Fit the recipe of one fold; finished stages are read, not fitted again."""
    config = opened.config
    split = opened.folds[fold]
    train, _ = opened.sides(fold)

    if len(opened.folds) == 1:
        title = split.name
    else:
        title = f"fold {fold + 1} of {len(opened.folds)}"

    def announce(stage: str, how: str, seconds: float) -> None:
        if not is_writer:
            return

        if how == "reused":
            outcome = "was there"
        else:
            outcome = f"fitted in {seconds:.1f} s"

        progress.say(f"{title}: {stage} {outcome}")
        opened.folder.log("stage", fold=title, stage=stage, how=how, seconds=seconds)

    store = StageStore(opened.place(fold) / "stages", announce, pool=pool, writes=is_writer)
    recipe = recipes.recipe(config.recipe.kind)(config.recipe, seed=config.seed)

    if is_writer:
        recipe.progress = progress
    else:
        recipe.progress = Progress(quiet=True)

    # Nothing of the test set can be reached from what is handed over: no trial, no picture, no caption, no file.
    shown = opened.stimuli.select(train.stimulus_ids).handed()
    unpaired = [trials.handed() for trials in opened.unpaired(fold)]
    recipe.fit(train.handed(), shown, store, unpaired)


def _predicted(opened: Run, progress: Progress) -> list[Forecast]:
    with progress.step("predicting what each stage will need"):
        predicted = forecast(opened)

    progress.say(text_of(predicted, len(opened.folds)))
    return predicted


def _check_memory(opened: Run) -> None:
    """Refuse responses of which the copy that standardising makes cannot be held. Raises MachineError."""
    n_trials = len(opened.trials)
    n_voxels = opened.trials.n_voxels
    n_bytes = 2 * 4 * n_trials * n_voxels  # two copies of float32

    what = f"The standardised copies of {n_trials} trials of {n_voxels} voxels"
    memory.require_memory(n_bytes, what, "Choose fewer voxels (data.roi), or a machine with more memory.")


def _begin(opened: Run, identity: Mapping[str, str], origins: Mapping[str, str]) -> None:
    """Write down what is about to be fitted. Raises ConfigError when the folder holds another run."""
    folder = opened.folder
    values = opened.config.model_dump(mode="json")
    flat = flatten(values)
    _refuse_another(folder, identity, flat)

    # First: a folder with a manifest is a run, so the same command goes on with it wherever it was stopped.
    folder.write_manifest(**identity, **_circumstances(opened), state="fitting")

    rows = []
    for key, value in flat.items():
        rows.append({"key": key, "value": str(value), "origin": origins.get(key, "given")})

    atomic.write_text(folder.path / "config.yaml", to_yaml(values))
    folder.write_table(pd.DataFrame(rows), "origins.csv")
    folder.write_table(_split_table(opened.folds), "splits.csv")


def _refuse_another(run: RunFolder, identity: Mapping[str, str], asked: Mapping[str, Any]) -> None:
    """Raise ConfigError for a folder that holds anything else than this very run, finished or not."""
    if not (run.path / "manifest.json").is_file():
        names = [p.name for p in run.path.iterdir() if not p.name.startswith(".")]
        foreign = [name for name in names if name not in _FIRST_FILES]
        if foreign:
            raise ConfigError(
                f"{run.path} is not empty and holds no run ({', '.join(sorted(foreign)[:3])} ...); choose another --out."
            )

        return

    before = run.manifest
    titles = {"recipe": "recipe", "config_digest": "configuration", "data_digest": "data", "split_digest": "split"}
    titles["test_digest"] = "data"
    # A run of an earlier version kept fewer digests: what it did not keep cannot differ.
    changed = list(dict.fromkeys(titles[key] for key, value in identity.items() if before.get(key, value) != value))
    if not changed:
        return

    if len(changed) == 1:
        verb = "differs"
    else:
        verb = "differ"

    raise ConfigError(
        f"{run.path} holds a run of {before.get('recipe')} whose {' and '.join(changed)} "
        f"{verb} from what you ask for now{_differences(run, asked)}. Choose "
        "another --out, or delete that folder; nothing in it was touched."
    )


def _differences(run: RunFolder, asked: Mapping[str, Any], most: int = 4) -> str:
    """Which keys of the configuration differ, in words: " (seed: 0 there, 3 asked for)"; "" where none does."""
    filed: Mapping[str, Any] = {}
    if (run.path / "config.yaml").is_file():
        filed = flatten(read_yaml(run.path / "config.yaml"))

    keys = [key for key in {**filed, **asked} if filed.get(key) != asked.get(key)]
    if not keys:
        return ""

    parts = [f"{key}: {filed.get(key)!r} there, {asked.get(key)!r} asked for" for key in keys[:most]]
    if len(keys) > most:
        parts.append(f"{len(keys) - most} keys more")

    return f" ({'; '.join(parts)})"


def _split_table(folds: Sequence[Split]) -> pd.DataFrame:
    """A row per fold, side and id: of a stimulus or of a trial, as the split's unit says."""
    rows = []
    for number, split in enumerate(folds):
        for side, ids in (("train", split.train), ("test", split.test)):
            rows += [(number, side, split.unit, i) for i in ids]

    return pd.DataFrame(rows, columns=["fold", "side", "unit", "id"])


def _circumstances(opened: Run) -> dict[str, Any]:
    """What a reader of the run may want to know, beside its identity: data, split, versions, machine, time."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"phosphene": __version__, "python": platform.python_version()}
    for package in ("numpy", "scipy", "pandas", "scikit-learn", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"

    data = opened.dataset
    trials = opened.trials
    folds = opened.folds

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
            "held_out": folds[0].held_out,
            "unit": folds[0].unit,
            "note": folds[0].note,
        },
        "seed": opened.config.seed,
        "setting": opened.config.recipe.setting,
        "conditions": recipes.recipe(opened.config.recipe.kind)(opened.config.recipe).conditions(),
        "versions": versions,
        "machine": platform.machine(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
