"""What every recipe is: named stages, fitted in order, and arrows both ways.

To add a recipe, write a configuration and a class::

    class ToyConfig(RecipeConfig):
        kind: Literal["toy"] = "toy"
        alpha: float = Field(default=500.0, gt=0, description="L2 strength")

    class Toy(Recipe[ToyConfig]):
        stages = (
            STANDARDISE,                                                   # voxels, in one place for all recipes
            Stage("to_image", Ridge, settings=("alpha",), uses=(Ridge,)),  # what is fitted, and what it depends on
        )

        def fit_to_image(self, trials, stimuli):        # one method per stage
            averaged = self.averaged(trials)
            pictures = stimuli.select(averaged.stimuli).floats()
            return Ridge(self.config.alpha).fit(averaged.betas, pictures.reshape(len(averaged), -1))

        def decode(self, trials):                       # brain to image
            self.check_trials(trials)
            pixels = self.to_image_.predict(self.standardised(trials).betas)
            return Images(trials.stimuli, pixels.reshape(-1, *self.image_shape_))

and name it in ``phosphene.recipes.RECIPES``. Saving, resuming, scoring, controls and the report come with it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, cast, get_args

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene._version import __version__
from phosphene.data.standardise import Standardiser
from phosphene.errors import DataError, ModelError
from phosphene.io import atomic
from phosphene.io.config import Config, validate
from phosphene.io.file_digest import digest_of_path
from phosphene.io.inside import must_stay_inside
from phosphene.io.progress import Progress
from phosphene.io.run_folder import read_json
from phosphene.io.stages import (
    StageStore,
    load_part,
    name_of,
    read_lineage,
    read_picture_lineage,
    save_part,
    version_of,
)
from phosphene.types import Images, Latents, Stimuli, Trials, digest_of

if TYPE_CHECKING:
    from torch import nn

    from phosphene.training import TrainConfig
    from phosphene.training.loop import Fetch, Trained, Trainer

RECIPE = "recipe.json"


class RecipeConfig(Config):
    """What every recipe can be configured with. Subclasses add a literal `kind` and their own fields."""

    kind: str
    setting: Literal["strict", "relax"] = Field(
        default="strict",
        description="relax lets a recipe see test responses (never test pictures); it is shown beside every score",
    )
    per_session: bool = Field(default=False, description="standardise voxels by the training trials of each session")

    @property
    def other_subjects(self) -> tuple[str, ...]:
        """Subjects whose training responses the stages that learn from unpaired responses see as well; none by default."""
        return ()


C = TypeVar("C", bound=RecipeConfig)
Settings = tuple[str, ...]
Reads = tuple[Literal["trials", "stimuli"], ...]
Weights = str | Path | Mapping[str, Any]
"""Weights that a stage reads: the name of a bundled network, a file or folder, or what a feature extractor says of its own."""


@dataclass(frozen=True)
class Stage:
    """One step of a method: what is fitted, from what, and everything its outcome depends on.

    A stage that is fitted already is read back as long as nothing of this has changed. What it depends on is declared here,
    once; the digest is computed in `Recipe.stage_digest` alone.

    Attributes
    ----------
    name : str
        the fitted part is the attribute ``NAME_`` of the recipe
    part : type
        class of what is fitted, with ``state`` and ``from_state``
    fit : str, default ""
        method that fits it; ``fit_NAME`` by default. It gets what the stage reads, in the order of `reads`
    needs : tuple of str, optional
        earlier stages it builds on; all of them by default
    settings : tuple of str or callable, optional
        configuration fields it depends on, dotted where they lie deeper (``generator.source``); all by default. Where these
        differ with the configuration, a function of it
    reads : tuple of str or callable, default ("trials", "stimuli")
        data it gets: trials, the stimuli shown in them, or nothing. Stimuli without trials come sorted by their ids, so
        that what is learned from pictures alone is the same for all people who saw them. Where it differs with the
        configuration, a function of it
    learns_unpaired : bool, default False
        whether it also learns from responses without pictures (`Recipe.unpaired`)
    uses : tuple or callable, default ()
        solvers and parts besides `part` whose version numbers count; where these differ with the configuration, a function
        of it
    weights : callable, optional
        weights that fitting reads, as a function of the recipe; None among them is left out
    when : callable, optional
        whether a configuration has this stage; always by default
    version : int, default 1
        of the method that fits it, raised by hand when its results change

    Examples
    --------
    >>> Stage("standardise", Standardiser, settings=("per_session",), reads=("trials",)).method
    'fit_standardise'
    """

    name: str
    part: type[Any]
    fit: str = ""
    needs: tuple[str, ...] | None = None
    settings: Settings | Callable[[Any], Settings] | None = None
    reads: Reads | Callable[[Any], Reads] = ("trials", "stimuli")
    learns_unpaired: bool = False
    uses: tuple[Any, ...] | Callable[[Any], tuple[Any, ...]] = ()
    weights: Callable[[Any], Iterable[Weights | None]] | None = None
    when: Callable[[Any], bool] | None = None
    version: int = 1

    @property
    def method(self) -> str:
        """Name of the method that fits it."""
        return self.fit or f"fit_{self.name}"

    def exists(self, config: RecipeConfig) -> bool:
        """Whether this configuration has the stage."""
        return self.when is None or self.when(config)

    def data(self, config: RecipeConfig) -> Reads:
        """Data that its method gets, in this order."""
        if isinstance(self.reads, tuple):
            return self.reads

        return self.reads(config)

    def solvers(self, config: RecipeConfig) -> tuple[Any, ...]:
        """What fitting uses besides the part."""
        if isinstance(self.uses, tuple):
            return self.uses

        return self.uses(config)

    def values(self, config: RecipeConfig) -> dict[str, Any]:
        """Configuration values the stage depends on, under their dotted names."""
        everything = config.model_dump(mode="json")
        if self.settings is None:
            return everything

        keys = self.settings
        if not isinstance(keys, tuple):
            keys = keys(config)

        return {key: _field(everything, key, self.name) for key in keys}


def _field(values: Any, dotted: str, stage: str) -> Any:
    for key in dotted.split("."):
        if values is None:  # a section that is left out has no fields
            return None
        if not isinstance(values, Mapping) or key not in values:
            raise ModelError(f"stage '{stage}' depends on '{dotted}', which is no field of the configuration.")

        values = values[key]

    return values


STANDARDISE = Stage("standardise", Standardiser, needs=(), settings=("per_session",), reads=("trials",))
"""Mean and standard deviation of every voxel over the training trials: the first stage of nearly every recipe."""


class Recipe(Generic[C]):
    """A system: fitted stage by stage, decoding brain to image and, where it can, encoding image to brain.

    Parameters
    ----------
    config : C, optional
        values of the recipe; its defaults when None
    seed : int, default 0
        of everything it draws

    Attributes
    ----------
    NAME_ : Part
        one fitted part per stage, after `fit`
    subject_ : str or None
        whom it was fitted on
    n_voxels_ : int
        voxels it was fitted on
    image_shape_ : tuple of int
        (height, width, channels) of a decoded picture
    stage_lineages_ : dict of {str: frozenset of str}
        by stage, the keys of the trials it saw
    picture_lineages_ : dict of {str: frozenset of str or None}
        by stage, the ids of the stimuli whose pictures, captions or labels it saw; None where nobody recorded them
    unpaired : tuple of Trials
        responses whose pictures are not to be known, for the stages that learn from them
    progress : Progress
        where `fit` shows long work; nowhere by default
    trainer : Trainer
        trains every network of the stages; :func:`phosphene.training.train` by default
    """

    config_class: ClassVar[type[RecipeConfig]] = RecipeConfig
    """Class of the configuration; that of ``Recipe[...]`` by default."""
    stages: ClassVar[tuple[Stage, ...]] = ()
    """What is fitted, in order."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"lab": {}, "paper": {}}
    """Values over the defaults by name: ``lab`` (tiny), ``paper`` (published sizes), more where a paper has several."""
    demo: ClassVar[Mapping[str, Any]] = {}
    """Values of a run that ``phosphene demo`` sets for this recipe, such as other people to pretrain on."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "config_class" in vars(cls):
            return

        for base in vars(cls).get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, RecipeConfig):
                    cls.config_class = argument

    def __init__(self, config: C | None = None, seed: int = 0) -> None:
        if config is None:
            config = cast(C, self.config_class.model_validate({}))

        self.config: C = config
        self.seed = seed
        self.subject_: str | None = None
        self.progress = Progress(quiet=True)
        self.unpaired: tuple[Trials, ...] = ()
        self.stage_lineages_: dict[str, frozenset[str]] = {}
        self.picture_lineages_: dict[str, frozenset[str] | None] = {}
        self._training: Path | None = None
        self._trainer: Trainer | None = None

    def __repr__(self) -> str:
        values = [f"kind={self.config.kind!r}"]
        if self.subject_ is not None:
            values += [f"subject={self.subject_!r}", f"n_voxels={self.n_voxels_}"]

        fitted = [stage.name for stage in self.stages_of(self.config) if f"{stage.name}_" in vars(self)]
        values.append(f"fitted=[{', '.join(fitted)}]")

        return f"{type(self).__name__}({', '.join(values)})"

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_") and any(name[:-1] == stage.name for stage in type(self).stages):
            raise ModelError(f"this {type(self).__name__} is not fitted yet; call fit, or load a run.")

        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    # -- written by each recipe ------------------------------------------------------------------------------------

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`.

        Test trials come in random order, under names that say nothing. Noise is drawn by ``trials.noise_keys``.
        """
        raise NotImplementedError

    def encode(self, stimuli: Stimuli) -> Trials:
        """Image to brain: one predicted response per stimulus, in the units of the training betas."""
        raise NotImplementedError

    def latents(self, trials: Trials) -> Latents:
        """Brain to latents, one row per trial; none by default."""
        return Latents(trials.stimuli, {})

    def true_latents(self, stimuli: Stimuli) -> Latents:
        """Image to the same latents as `latents`, for scoring; none by default."""
        return Latents(stimuli.ids, {})

    def text_latents(self, texts: Sequence[str]) -> Latents | None:
        """Texts to the space of `latents`, for zero-shot classification; None where the latents have no text side.

        One row per text, under the text itself.
        """
        return None

    @property
    def fixed_spaces(self) -> frozenset[str]:
        """Latent spaces that are the same whatever the training trials, so that folds can be scored together in them."""
        return frozenset()

    def ceiling(self, stimuli: Stimuli) -> Images | None:
        """Pictures the generator makes from the true latents: the best this recipe could do; None where undefined."""
        return None

    def decode_samples(self, trials: Trials) -> list[Images]:
        """Every picture a recipe with a random generator draws, a list over samples, each one picture per row."""
        return [self.decode(trials)]

    def decode_steps(self, trials: Trials) -> dict[str, Images]:
        """Pictures on the way to the decoded ones, such as a blurry first stage, by name; scored as well."""
        return {}

    @property
    def trial_columns(self) -> tuple[str, ...]:
        """Columns of the trial table that decoding needs besides the responses: none, or the session where voxels go by it.

        When test trials are decoded the table is bare: no column is there but those named here, and check L9 says which.
        """
        if self.config.per_session:
            return ("session",)

        return ()

    @property
    def chooses_sample(self) -> bool:
        """Whether the first of `decode_samples` is one that the recipe chose, which then alone is scored; False by default."""
        return False

    def picture_shape(self, stimuli: Stimuli) -> tuple[int, int, int]:
        """(height, width, channels) of a decoded picture; that of the stimuli by default. Called before anything is fitted."""
        return stimuli.image_shape

    # -- what readers of its scores should know --------------------------------------------------------------------

    def inner_folds(self, trials: Trials) -> np.ndarray | None:
        """(n_trials,) fold of each training trial, as used for choices inside the training set; None if none was made."""
        return None

    def voxel_weights(self) -> np.ndarray | None:
        """(n_voxels,) how much each voxel counts when decoding, 0 for unused; None where undefined."""
        return None

    def conditions(self) -> dict[str, str]:
        """What scores depend on besides the setting, in a few words each, by name; reported with it. None by default."""
        return {}

    def generators(self) -> tuple[str, ...]:
        """Pretrained generators that draw, by their names in `phosphene.recipes.corpora`; none by default."""
        return ()

    # -- the same for all ------------------------------------------------------------------------------------------

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """Values of a preset over the defaults."""
        return dict(cls.presets[name])

    @classmethod
    def can_encode(cls, config: RecipeConfig | None = None) -> bool:
        """Whether the recipe predicts responses from pictures; with a configuration, whether it does so configured."""
        return cls.encode is not Recipe.encode

    @classmethod
    def stages_of(cls, config: RecipeConfig) -> tuple[Stage, ...]:
        """Stages that a configuration has, in order."""
        return tuple(stage for stage in cls.stages if stage.exists(config))

    def fit(
        self, trials: Trials, stimuli: Stimuli, store: StageStore | None = None, unpaired: Sequence[Trials] = ()
    ) -> Self:
        """Fit every stage in order; finished ones are read back from `store`.

        Parameters
        ----------
        trials : Trials
            training trials of one subject
        stimuli : Stimuli
            at least the pictures shown in them
        store : StageStore, optional
            where stages are kept; memory only by default
        unpaired : sequence of Trials, default ()
            responses whose pictures are not to be known, for the stages that learn from such responses

        Returns
        -------
        Recipe
            this one, fitted
        """
        store = store or StageStore()
        stimuli = self.prepare(trials, stimuli, unpaired)
        data = self._data_digests(trials, stimuli)
        digests: dict[str, str] = {}

        for stage in self.stages_of(self.config):
            digests[stage.name] = self.stage_digest(stage, data, digests)
            if store.folder is not None:
                self._training = store.folder.parent / "training" / f"{stage.name}-{digests[stage.name][:12]}"

            lineage = self._lineage(stage, trials)
            fit = partial(self.fit_stage, stage, trials, stimuli)
            pictures = self._picture_lineage(stage, stimuli)
            part = store.get(stage.name, stage.part, digests[stage.name], lineage, fit, pictures)
            setattr(self, f"{stage.name}_", part)
            self.stage_lineages_[stage.name] = lineage
            self.picture_lineages_[stage.name] = pictures

            if self._training is not None and store.writes:
                must_stay_inside(self._training)
                shutil.rmtree(self._training, ignore_errors=True)

        if store.folder is not None and store.writes:
            self._write_recipe(store.folder.parent)

        return self

    def prepare(self, trials: Trials, stimuli: Stimuli, unpaired: Sequence[Trials] = ()) -> Stimuli:
        """Take note of whom and what is about to be fitted.

        Parameters
        ----------
        trials : Trials
            training trials of one subject
        stimuli : Stimuli
            at least the pictures shown in them
        unpaired : sequence of Trials, default ()
            as for `fit`

        Returns
        -------
        Stimuli
            those shown in the training trials, in their order
        """
        stimuli = stimuli.select(trials.stimulus_ids)
        self.subject_ = trials.subject
        self.n_voxels_ = trials.n_voxels
        self.image_shape_ = self.picture_shape(stimuli)
        self.unpaired = tuple(unpaired)
        self.stage_lineages_ = {}
        self.picture_lineages_ = {}

        return stimuli

    def fit_stage(self, stage: Stage, trials: Trials, stimuli: Stimuli) -> Any:
        """The part of one stage, fitted now; the stages it needs are attributes already.

        Parameters
        ----------
        stage : Stage
            one of `stages_of`
        trials : Trials
            training trials
        stimuli : Stimuli
            as `prepare` returns them

        Returns
        -------
        Part
            of class ``stage.part``
        """
        reads = stage.data(self.config)
        if "trials" not in reads:
            stimuli = _sorted(stimuli)

        data = {"trials": trials, "stimuli": stimuli}
        arguments = [data[name] for name in reads]

        return getattr(self, stage.method)(*arguments)

    def stage_digest(self, stage: Stage, data: Mapping[str, str], before: Mapping[str, str]) -> str:
        """SHA-256 of everything a stage depends on: the one place where this is decided.

        Parameters
        ----------
        stage : Stage
            which
        data : mapping of {str: str}
            digests of trials, stimuli, sorted stimuli and unpaired responses
        before : mapping of {str: str}
            digests of earlier stages by name

        Returns
        -------
        str
            64 hexadecimal digits
        """
        if stage.needs is None:
            needs = tuple(before)
        else:
            needs = stage.needs

        names: list[str] = list(stage.data(self.config))
        if names == ["stimuli"]:
            names = ["sorted_stimuli"]
        if stage.learns_unpaired:
            names.append("unpaired")

        weights = ()
        if stage.weights is not None:
            weights = stage.weights(self)

        method = getattr(type(self), stage.method)
        return digest_of(
            {
                "stage": stage.name,
                "part": {name_of(stage.part): version_of(stage.part)},
                "method": {name_of(method): stage.version},
                "uses": {name_of(solver): version_of(solver) for solver in stage.solvers(self.config)},
                "settings": stage.values(self.config),
                "weights": [_weights_digest(one) for one in weights if one is not None],
                "data": {name: data[name] for name in names},
                "needs": {name: before[name] for name in needs if name in before},
                "seed": self.seed,
            }
        )

    def _versions(self, stage: Stage) -> dict[str, int]:
        """Version number of the part, the method and every solver of a stage, by name."""
        numbers = {name_of(stage.part): version_of(stage.part), stage.method: stage.version}
        for solver in stage.solvers(self.config):
            numbers[name_of(solver)] = version_of(solver)

        return numbers

    def _data_digests(self, trials: Trials, stimuli: Stimuli) -> dict[str, str]:
        return {
            "trials": trials.digest(),
            "stimuli": stimuli.digest(),
            "sorted_stimuli": _sorted(stimuli).digest(),
            "unpaired": digest_of([t.digest() for t in self.unpaired]),
        }

    def _lineage(self, stage: Stage, trials: Trials) -> frozenset[str]:
        """Keys of the trials a stage sees."""
        lineage: frozenset[str] = frozenset()
        if "trials" in stage.data(self.config):
            lineage = trials.member_keys()

        if stage.learns_unpaired:
            lineage = lineage.union(*(t.member_keys() for t in self.unpaired))

        return lineage

    def _picture_lineage(self, stage: Stage, stimuli: Stimuli) -> frozenset[str]:
        """Ids of the stimuli a stage sees."""
        if "stimuli" in stage.data(self.config):
            return frozenset(map(str, stimuli.ids))

        return frozenset()

    # -- standardising ---------------------------------------------------------------------------------------------

    def standardiser(self) -> Standardiser:
        """A Standardiser as the configuration asks for it, not fitted yet."""
        return Standardiser(per_session=self.config.per_session)

    def fit_standardise(self, trials: Trials) -> Standardiser:
        """Mean and standard deviation of every voxel over the training trials."""
        return self.standardiser().fit(trials)

    def standardised(self, trials: Trials) -> Trials:
        """Trials in the units of the stage `STANDARDISE`."""
        return self.standardise_.transform(trials)

    def averaged(self, trials: Trials) -> Trials:
        """Standardised trials with repeats averaged: a row is a stimulus."""
        return self.standardised(trials).average_repeats()

    # -- helpers ---------------------------------------------------------------------------------------------------

    def train(
        self,
        network: nn.Module,
        fetch: Fetch,
        n_items: int,
        settings: TrainConfig,
        *,
        data: str,
        part: str = "",
        **more: Any,
    ) -> Trained:
        """Train a network of the stage being fitted; where stages are kept, a killed training goes on from a checkpoint.

        Parameters
        ----------
        network : nn.Module
            as :func:`phosphene.training.train` takes them
        fetch : Fetch
            as :func:`phosphene.training.train` takes them
        n_items : int
            as :func:`phosphene.training.train` takes them
        settings : TrainConfig
            how
        data : str
            digest of what it learns from
        part : str, default ""
            name of this training, where a stage has several
        more : Any
            further arguments of :func:`phosphene.training.train`

        Returns
        -------
        Trained
        """
        more = {"progress": self.progress, **more}
        folder = self.training_folder(part)
        return self.trainer(network, fetch, n_items, settings, seed=self.seed, folder=folder, data=data, **more)

    @property
    def trainer(self) -> Trainer:
        """What trains the networks of the stages, called as :func:`phosphene.training.train` is, which it is by default."""
        if self._trainer is None:
            from phosphene.training import train  # loads torch, which recipes without networks do without

            return train

        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def training_folder(self, part: str = "") -> Path | None:
        """Where checkpoints of a training of the stage being fitted are kept; None where stages are not."""
        if self._training is None:
            return None

        return self._training / part

    def rng(self, *purpose: Any) -> np.random.Generator:
        """A generator of its own for each purpose, a function of the seed and nothing else."""
        return np.random.default_rng([self.seed, *(int(digest_of(p)[:8], 16) for p in purpose)])

    @property
    def lineage_(self) -> frozenset[str]:
        """Keys of the trials any stage saw."""
        return frozenset().union(*self.stage_lineages_.values())

    def check_trials(self, trials: Trials) -> None:
        """Refuse trials that this recipe cannot decode.

        Raises
        ------
        ModelError
            Unless the recipe is fitted, on this subject and as many voxels.
        DataError
            Where a beta is not finite.
        """
        self._check_fitted("")
        if trials.n_voxels != self.n_voxels_:
            raise ModelError(
                f"betas has {trials.n_voxels} voxels but this model was fitted on {self.n_voxels_} (subject "
                f"{self.subject_}); decode with the same ROI mask or refit."
            )

        if trials.subject != self.subject_:
            raise ModelError(
                f"these betas are of subject {trials.subject} but this model was fitted on {self.subject_}; voxels of two "
                "people do not correspond. Decode the same subject or refit."
            )

        if not np.isfinite(trials.betas).all():
            row, voxel = np.argwhere(~np.isfinite(trials.betas))[0]
            raise DataError(
                f"betas must be finite, but row {row}, voxel {voxel} is {trials.betas[row, voxel]}; drop or repair such "
                "trials (data.nan=impute does it from training trials)."
            )

    def as_images(self, ids: Any, pixels: np.ndarray) -> Images:
        """Pictures under their stimuli, grey where the stimuli are.

        Parameters
        ----------
        ids : sequence of str
            stimulus of each picture
        pixels : ndarray of shape (n, height, width, 3)
            0-1

        Returns
        -------
        Images
        """
        is_grey = self.image_shape_[2] == 1
        if is_grey:
            pixels = pixels.mean(axis=-1, keepdims=True)  # (n, height, width, 1)

        return Images(np.asarray(ids, dtype=object), pixels)

    def predicted_trials(self, stimuli: Stimuli, betas: np.ndarray) -> Trials:
        """Predicted responses as Trials, one row per stimulus.

        Parameters
        ----------
        stimuli : Stimuli
            what they are predicted from
        betas : ndarray of shape (n_stimuli, n_voxels)
            in the units of the training betas

        Returns
        -------
        Trials
            ``provenance["predicted_by"]`` names the recipe
        """
        table = pd.DataFrame({"stimulus": stimuli.ids})
        return Trials(betas, table, subject=str(self.subject_), provenance={"predicted_by": self.config.kind})

    def save(self, folder: str | Path) -> None:
        """Write every stage and recipe.json into `folder`, readable by `load`."""
        folder = atomic.checked_path(folder)
        self._check_fitted(" before saving it")

        for stage in self.stages_of(self.config):
            part = getattr(self, f"{stage.name}_")
            lineage = self.stage_lineages_[stage.name]
            pictures = self.picture_lineages_.get(stage.name)
            place = folder / "stages" / stage.name
            save_part(place, part, stage=stage.name, digest="saved", seconds=0.0, lineage=lineage, pictures=pictures)

        self._write_recipe(folder)

    def _check_fitted(self, when: str = "") -> None:
        if self.subject_ is None:
            raise ModelError(f"this {type(self).__name__} is not fitted yet; call fit{when}, or load a run.")

    def _write_recipe(self, folder: Path) -> None:
        record = {
            "kind": self.config.kind,
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
            "subject": self.subject_,
            "n_voxels": self.n_voxels_,
            "image_shape": list(self.image_shape_),
            "stages": [stage.name for stage in self.stages_of(self.config)],
            "versions": {stage.name: self._versions(stage) for stage in self.stages_of(self.config)},
            "phosphene": __version__,
        }

        atomic.write_text(folder / RECIPE, json.dumps(record, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A fitted recipe from a folder written by `save` or `fit`.

        Raises
        ------
        ModelError
            When a stage is missing or damaged, when what fitted it has changed its meaning since, or when the folder holds
            another recipe.
        """
        folder = atomic.checked_path(folder)
        record = read_json(folder / RECIPE)
        kind = cls.config_class.model_fields["kind"].default
        if record.get("kind") != kind:
            raise ModelError(f"{folder} holds the recipe '{record.get('kind')}', not '{kind}'; load it as that.")

        config = validate(cls.config_class, record["config"], str(folder / RECIPE))
        recipe = cls(config, seed=record["seed"])  # pyright: ignore[reportArgumentType]  that class is C

        for stage in cls.stages_of(config):
            filed = record.get("versions", {}).get(stage.name, {})
            _refuse_other_versions(folder, stage.name, filed, recipe._versions(stage), record.get("phosphene"))
            place = folder / "stages" / stage.name
            setattr(recipe, f"{stage.name}_", load_part(place, stage.part))
            recipe.stage_lineages_[stage.name] = read_lineage(place)
            recipe.picture_lineages_[stage.name] = read_picture_lineage(place)

        recipe.subject_ = record["subject"]
        recipe.n_voxels_ = record["n_voxels"]
        recipe.image_shape_ = tuple(record["image_shape"])

        return recipe


def _refuse_other_versions(
    folder: Path, stage: str, filed: Mapping[str, int], now: Mapping[str, int], phosphene: str | None
) -> None:
    """Raise ModelError where a part or solver of a stage computes something else than when the stage was fitted."""
    for name, number in filed.items():
        current = now.get(name, number)  # what is gone or renamed cannot be compared; digests of stages guard the rest
        if current != number:
            raise ModelError(
                f"stage '{stage}' of {folder} was fitted by version {number} of {name}; this phosphene ({__version__}) has "
                f"version {current}, which computes something else. Fit again into another folder, or open the run with "
                f"phosphene {phosphene or 'as it was then'}."
            )


def _sorted(stimuli: Stimuli) -> Stimuli:
    """The same stimuli in the order of their ids."""
    return stimuli.select(np.sort(stimuli.ids.astype(str)))


def _weights_digest(weights: Weights) -> Any:
    """What a stage's digest holds of weights it reads: contents, never a place."""
    if isinstance(weights, Path):
        return digest_of_path(weights)

    if isinstance(weights, str):
        from phosphene.models import bundled  # knows where an installed package keeps them

        return bundled.fingerprint(weights)

    return dict(weights)
