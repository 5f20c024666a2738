"""What a run was told, and a run opened together with its data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from pydantic import Field, create_model

from phosphene import recipes
from phosphene.data import registry, splits
from phosphene.data.quality import Screen
from phosphene.errors import ConfigError, ModelError, PhospheneWarning, did_you_mean
from phosphene.io.atomic import checked_path
from phosphene.io.config import FORMAT, Config, flatten, read_yaml, resolve_layers
from phosphene.io.run_folder import RunFolder
from phosphene.recipes.base import Recipe, RecipeConfig
from phosphene.types import Dataset, Split, Stimuli, Trials, digest_of
from phosphene.validity.picture_features import features_of

TEST = "test"

LARGEST_SCORED = 256
"""Pixels of the longer side of pictures that are scored; larger ones are shrunk before."""

_PLACES = ("data.name", "data.root", "data.mask_from", "split", "groups")
"""Values that say where things lie or come from; digests of data and split stand for what lies there."""


class DataConfig(Config):
    """Which trials. The folder they lie in is no part of the science and of no digest."""

    name: str = Field(description="data set, or path to a file or folder")
    subject: str | None = Field(None, description="person; the first by default")
    root: str | None = Field(None, description="folder of the data set; PHOSPHENE_DATA otherwise")
    roi: str | None = Field(None, description="ROI expression such as V1+V2; all voxels by default")
    nan: Literal["error", "drop", "impute"] = Field("error", description="what to do with voxels that hold NaN")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader")
    mask_from: str | None = Field(None, description="what the data set's voxels were chosen by, such as 'retinotopy'")


class RunConfig(Config):
    """Everything `fit` is told."""

    format: int = Field(default=FORMAT, description="version of this layout of keys")
    recipe: RecipeConfig = Field(description="configuration of the recipe named")
    data: DataConfig = Field(description="which trials")
    split: str | None = Field(
        None, description="named split, kfold:K, cluster:K, or a file; the data set's first by default"
    )
    groups: str | None = Field(
        None,
        description="stimuli that depend on each other: category, or a CSV with columns stimulus and group; they stay together "
        "in kfold:K,groups, in inner folds, intervals and permutations",
    )
    preset: str = Field("lab", description="lab, paper, or another that the recipe has")
    seed: int = Field(0, ge=0, lt=2**32, description="of everything drawn at random")


def configure(recipe: str, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[RunConfig, dict[str, str]]:
    """The configuration of a run, and where each value came from.

    Parameters
    ----------
    recipe : str
        its name
    layers : sequence of tuple of (str, mapping)
        (origin, values), later ones winning; the recipe's preset lies below them all

    Returns
    -------
    config : RunConfig
        complete, with paths that hold from any folder
    origins : dict of str to str
        key to the origin of its value, "default" where no layer names it

    Raises
    ------
    ConfigError
        Unknown recipe, preset or key, wrong type, value out of range.
    """
    cls = recipes.recipe(recipe)
    model = create_model("RunConfig", __base__=RunConfig, recipe=(cls.config_class, cls().config))
    preset = "lab"
    for _, values in layers:
        preset = values.get("preset", preset)

    if preset not in cls.presets:
        raise ConfigError(f"the recipe {recipe} has no preset '{preset}'. {did_you_mean(preset, cls.presets)}")

    below: list[tuple[str, Mapping[str, Any]]] = [("recipe", {"recipe.kind": recipe})]
    if cls.preset(preset):
        below.append((f"preset {preset}", {"recipe": cls.preset(preset)}))

    config, origins = resolve_layers(model, [*below, *layers])
    return _with_absolute_paths(config), origins


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """So that a run can be opened from any folder."""
    data = config.data
    if data.name in registry.known():
        name = data.name
    else:
        name = _absolute_if_there(data.name)

    if data.root is None:
        root = None
    else:
        root = str(checked_path(data.root).resolve())

    if config.split is None:
        split = None
    else:
        split = _absolute_if_there(config.split)

    groups = config.groups
    if groups is not None:
        groups = _absolute_if_there(groups)

    data = data.model_copy(update={"name": name, "root": root})
    return config.model_copy(update={"data": data, "split": split, "groups": groups})


def _absolute_if_there(text: str) -> str:
    path = checked_path(text)
    if path.exists():
        return str(path.resolve())

    return text


# -- one opened run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run together with the data it is about; what every verb takes and `fit` gives.

    Parameters
    ----------
    folder : RunFolder
        where it lies, with all that was written of it
    config : RunConfig
        what it was made with
    """

    folder: RunFolder
    config: RunConfig

    def __repr__(self) -> str:
        """What it is and how far it is; opens no data."""
        data = self.config.data
        if data.subject:
            of = f"{data.name}:{data.subject}"
        else:
            of = data.name

        settings = f"preset {self.config.preset}, seed {self.config.seed}"
        if self.config.split:
            settings += f", split {self.config.split}"

        return f"Run({self.folder.path}: {self.config.recipe.kind} on {of}, {settings}; {self._state()})"

    def _state(self) -> str:
        """The verbs that have left their results in the folder."""
        results = {
            "decoded": self.folder.decoded(),
            "encoded": self.folder.encoded(),
            "evaluated": self.folder.path / "scores.csv",
        }

        n_folds = len(list(self.folder.path.glob("folds/*/recipe.json")))
        if (self.folder.path / "recipe.json").is_file():
            state = ["fitted"]
        elif n_folds:
            state = [f"{n_folds} folds fitted"]
        else:
            return "not fitted to the end"

        for verb, place in results.items():
            if place.exists():
                state.append(verb)

        return ", ".join(state)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, opened from where the configuration says."""
        data = self.config.data
        if data.subject:
            spec = f"{data.name}:{data.subject}"
        else:
            spec = data.name

        return registry.open_dataset(spec, root=data.root, options=data.options)

    @cached_property
    def trials(self) -> Trials:
        """Every usable trial of the subject, ROI selected. Values to impute are still NaN: see `sides`."""
        return self._usable(self.config.data.subject)

    def _usable(self, subject: str | None) -> Trials:
        trials = self.dataset.trials(subject)
        if self.config.data.roi:
            trials = trials.select(roi=self.config.data.roi)

        nan = self.config.data.nan
        if nan != "impute":
            trials = Screen(nan).fit(trials).apply(trials)

        if self.config.groups is None:
            return trials

        return splits.with_groups(trials, self._group_of)

    @cached_property
    def _group_of(self) -> Mapping[str, str]:
        """Group of each stimulus."""
        return splits.groups_named(self.dataset, str(self.config.groups))

    def groups_of(self, ids: Iterable[str]) -> np.ndarray | None:
        """Group of each stimulus.

        Parameters
        ----------
        ids : iterable of str
            stimulus ids, which may come again

        Returns
        -------
        ndarray of shape (n,), object, or None
            str; None where stimuli are taken to be independent
        """
        if self.config.groups is None:
            return None

        return splits.group_labels(ids, self._group_of)

    @cached_property
    def stimuli(self) -> Stimuli:
        """Stimuli the subject saw and whose picture is there."""
        return self.dataset.stimuli.select(self.trials.stimulus_ids).available()

    @property
    def scored_size(self) -> tuple[int, int]:
        """Height and width at which all decoded pictures of this data set are scored: its own, but at most 256 a side.

        A score at the size of a recipe would be highest for the recipe that decodes fewest pixels.
        """
        height, width, _ = self.stimuli.image_shape
        shrink = min(1.0, LARGEST_SCORED / max(height, width))
        return max(1, round(height * shrink)), max(1, round(width * shrink))

    @cached_property
    def folds(self) -> list[Split]:
        """One split, or one per fold."""
        features = partial(_features, self.dataset.name)
        return splits.resolve(self.dataset, self.trials, self.config.split, seed=self.config.seed, see=features)

    def sides(self, fold: int) -> tuple[Trials, Trials]:
        """Training and test trials of a fold, those without a picture left out, imputed from training trials.

        Parameters
        ----------
        fold : int
            number of the fold, from 0

        Returns
        -------
        tuple of (Trials, Trials)
            single trials of the training side, and of the test side
        """
        ids = self.stimuli.ids.astype(str)
        train, test = self.folds[fold].apply(self.trials)
        train = train.take(np.isin(train.stimuli.astype(str), ids))
        test = test.take(np.isin(test.stimuli.astype(str), ids))

        if self.config.data.nan != "impute":
            return train, test

        screen = Screen("impute").fit(train)
        return screen.apply(train), screen.apply(test)

    def unpaired(self, fold: int) -> list[Trials]:
        """Responses that self-supervised stages may see without their pictures.

        In setting relax the test responses of the fold, repeats averaged; and training responses of the other subjects
        that the recipe asks for (no trial of a test stimulus, imputed from their own).

        Parameters
        ----------
        fold : int
            number of the fold, from 0

        Returns
        -------
        list of Trials
            one entry per person, stimuli under names that say nothing; empty in setting strict without other subjects
        """
        config = self.config.recipe
        responses = []
        if config.setting == "relax":
            _, test = self.sides(fold)
            responses.append(_without_pictures(test.average_repeats()))

        for subject in config.other_subjects:
            trials = self._usable(subject)
            if self.config.data.nan == "impute":
                trials = Screen("impute").fit(trials).apply(trials)

            # What another person saw of the test pictures would be a look at them, by another brain.
            _, test = self.sides(fold)
            tested = set(test.stimuli)
            is_free = np.array([stimulus not in tested for stimulus in trials.stimuli])  # (n_trials,)
            responses.append(_without_pictures(trials.take(is_free)))

        return responses

    def identity(self) -> dict[str, str]:
        """What this run is about, read anew: digests of configuration, data, split, and of all that tests.

        Returns
        -------
        dict of str to str
            ``recipe``, ``config_digest``, ``data_digest``, ``split_digest`` and ``test_digest``, as the manifest keeps them. Of
            large data the digest of all trials reads a sample; that of the test trials and their pictures reads every one
        """
        tests = []
        for split in self.folds:
            _, test = split.apply(self.trials)
            shown = [stimulus for stimulus in test.stimulus_ids if stimulus in self._ids]
            tests.append(digest_of(test.table, test.read(slice(None)), self.stimuli.select(shown).digest()))

        return {
            "recipe": self.config.recipe.kind,
            "config_digest": science_of(self.config),
            "data_digest": digest_of(self.trials.digest(), self.stimuli.digest()),
            "split_digest": digest_of([split.digest for split in self.folds]),
            "test_digest": digest_of(tests),
        }

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(self.stimuli.ids.astype(str))

    def verify(self) -> dict[str, str]:
        """Make sure that data, split and configuration are still those that were fitted.

        Returns
        -------
        dict of str to str
            `identity`, as it is now

        Raises
        ------
        ModelError
            When the run was fitted on others; the message names what changed, and the way out.

        Warns
        -----
        PhospheneWarning
            When the run was made by a phosphene that kept no digests, so that nothing can be compared.
        """
        filed = self.folder.manifest
        if "config_digest" not in filed:
            warnings.warn(
                f"{self.folder.path} keeps no digests of what it was fitted on, so nobody can tell whether its data are "
                "still the same.",
                PhospheneWarning,
                stacklevel=2,
            )
            return self.identity()

        # First what costs nothing to compare: reading the data of another configuration would only confuse.
        if science_of(self.config) != filed["config_digest"]:
            self._refuse("its configuration", self._edited_values())

        now = self.identity()
        changed = [key for key, value in now.items() if key in filed and filed[key] != value]
        if "split_digest" in changed:
            self._refuse("the split", self._edited_split())

        if "data_digest" in changed or "test_digest" in changed:
            self._refuse("the data", self._edited_data(changed))

        return now

    def _refuse(self, what: str, details: str) -> NoReturn:
        raise ModelError(
            f"{self.folder.path} was fitted on something else than lies here now: {what} changed since ({details}). Scores "
            "of it would mean nothing. Put back what it was fitted on, or fit anew into another folder: phosphene fit "
            f"{self.config.recipe.kind} --out OTHER."
        )

    def _edited_values(self, most: int = 4) -> str:
        """Which values of config.yaml are not those that the fit wrote into origins.csv."""
        table = self.folder.table("origins.csv")
        if "key" not in table or "value" not in table:
            return "config.yaml was edited"

        filed = dict(zip(table["key"], table["value"].astype(str), strict=True))
        now = flatten(self.config.model_dump(mode="json"))
        parts = []
        for key, value in now.items():
            if key in _PLACES:
                continue

            text = str(value)
            before = filed.get(key, text)
            if before != text and not _is_empty(before, text):
                parts.append(f"{key}: {before} when fitted, {text} now")

        if len(parts) > most:
            parts = [*parts[:most], f"{len(parts) - most} more"]

        return "; ".join(parts) or "config.yaml was edited"

    def _edited_split(self) -> str:
        """How many ids stand on another side than when the run was fitted."""
        table = self.folder.table("splits.csv")
        name = self.config.split or "the data's own"
        if not {"fold", "side", "id"} <= set(table):
            return name

        filed = set(zip(table["fold"].astype(int), table["side"], table["id"].astype(str), strict=True))
        now = set()
        for number, split in enumerate(self.folds):
            now.update((number, "train", str(i)) for i in split.train)
            now.update((number, "test", str(i)) for i in split.test)

        gone = filed - now
        new = now - filed
        return f"{name}: {len(gone)} ids left their side, {len(new)} came to one"

    def _edited_data(self, changed: Sequence[str]) -> str:
        place = self.config.data.root or self.config.data.name
        if "test_digest" in changed:
            return f"responses or pictures of the test side, in {place}"

        return f"responses, ids or pictures, in {place}"

    def place(self, fold: int) -> Path:
        """Folder of a fold's recipe: the run itself where there is one split only."""
        if len(self.folds) == 1:
            return self.folder.path

        return self.folder.path / "folds" / f"{fold:02d}"

    def recipe(self, fold: int) -> Recipe:
        """The fitted recipe of a fold.

        Parameters
        ----------
        fold : int
            number of the fold, from 0

        Returns
        -------
        Recipe
            ready to decode

        Raises
        ------
        ModelError
            When it is not fitted to the end, or damaged.
        """
        if not (self.place(fold) / "recipe.json").is_file():
            raise ModelError(
                f"{self.folder.path} is not fitted to the end. Run the same `phosphene fit` command again; it goes on."
            )

        recipe = recipes.recipe(self.config.recipe.kind).load(self.place(fold))
        if digest_of(recipe.config.model_dump(mode="json")) != digest_of(self.config.recipe.model_dump(mode="json")):
            self._refuse("recipe.json", f"its configuration is not that of config.yaml, in {self.place(fold)}")

        return recipe


def science_of(config: RunConfig) -> str:
    """Digest of all that decides the numbers.

    Parameters
    ----------
    config : RunConfig
        of a run

    Returns
    -------
    str
        64 hexadecimal digits; places on disk are no part of it, since digests of data and split stand for them
    """
    values = config.model_dump(mode="json")
    for key in _PLACES:
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            place = place[parent]

        place.pop(last)

    return digest_of(values)


def _is_empty(before: str, now: str) -> bool:
    """Whether both say that there is no value, as a table and as Python write it."""
    empty = ("", "None", "nan")
    return before in empty and now in empty


def _features(dataset: str, stimuli: Stimuli) -> np.ndarray:
    """(n_stimuli, d) features that `cluster:K` tells pictures apart by."""
    features, _ = features_of(dataset, stimuli)
    return features


def _without_pictures(trials: Trials) -> Trials:
    """The same responses under names that lead to no picture, so that no stage can pair them by mistake."""
    names = [f"unknown-{n}" for n in range(len(trials))]
    return replace(trials, table=trials.table.assign(stimulus=names))


def open_run(path: str | Path, root: str | None = None) -> Run:
    """A run made by `fit`.

    Parameters
    ----------
    path : str or Path
        its folder
    root : str, optional
        where the data lie now, if they moved since

    Returns
    -------
    Run
        the run; its data are read when they are first asked for

    Raises
    ------
    ModelError
        When the folder holds no run.
    ConfigError
        When its configuration cannot be read.
    """
    folder = RunFolder.existing(path)
    if folder.is_from_elsewhere:
        raise ModelError(
            f"{folder.path} holds pictures that were made elsewhere: there is no recipe to decode, encode, evaluate or analyse "
            f"with. Show them with: phosphene report {folder.path}; score again with: phosphene score SEEN DECODED --out OTHER."
        )

    if not (folder.path / "config.yaml").is_file():
        raise ModelError(
            f"{folder.path} was stopped in the first moments of its fit. Run the same `phosphene fit` command again."
        )

    values = read_yaml(folder.path / "config.yaml")
    recipe = values.get("recipe")
    if not isinstance(recipe, Mapping):
        raise ConfigError(
            f"'recipe' in {folder.path / 'config.yaml'} should hold the settings of a recipe, but holds {recipe!r}. Put the file "
            "back as the fit wrote it."
        )

    kind = str(recipe.get("kind", ""))
    layers: list[tuple[str, Mapping[str, Any]]] = [("config.yaml", values)]

    if root is not None:
        layers.append(("--root", {"data.root": root}))

    config, _ = configure(kind, layers)
    return Run(folder, config)


RunLike = Run | RunFolder | str | Path
"""A run as `fit` returns it, or its folder."""


def as_run(run: RunLike) -> Run:
    """A run, whether it is open already or only its folder is named.

    Parameters
    ----------
    run : Run or RunFolder or str or Path
        as every verb takes it

    Returns
    -------
    Run
        the same where it is open

    Raises
    ------
    ModelError
        When the folder holds no run.
    """
    if isinstance(run, Run):
        return run

    if isinstance(run, RunFolder):
        return open_run(run.path)

    return open_run(run)
