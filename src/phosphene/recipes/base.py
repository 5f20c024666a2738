"""What every recipe is: named stages, fitted in order, and arrows both ways.

To add a recipe, write a configuration and a class::

    class ToyConfig(RecipeConfig):
        kind: Literal["toy"] = "toy"
        alpha: float = Field(500.0, gt=0, description="L2 strength")

    class Toy(Recipe[ToyConfig]):
        config_class = ToyConfig
        stages = {"to_image": Ridge}                    # name -> what it fits, in order

        def fit_to_image(self, trials, stimuli):        # one method per stage: training trials, their stimuli
            return Ridge(self.config.alpha).fit(trials.betas, stimuli.select(trials.stimuli).floats().reshape(...))

        def decode(self, trials):                       # brain to image
            return Images(trials.stimuli, self.to_image_.predict(trials.betas).reshape(...))

and name it in ``phosphene.recipes.RECIPES``. Saving, resuming, scoring, controls and the report come with it.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene._version import __version__
from phosphene.errors import DataError, ModelError
from phosphene.io import atomic
from phosphene.io.config import Config, validate
from phosphene.io.folder import read_json
from phosphene.io.progress import Progress
from phosphene.io.stages import Part, StageStore, load_part, read_lineage
from phosphene.types import Images, Latents, Stimuli, Trials, digest_of

if TYPE_CHECKING:
    from torch import nn

    from phosphene.training import TrainConfig
    from phosphene.training.loop import Fetch, Trained, Trainer

RECIPE = "recipe.json"


class RecipeConfig(Config):
    """What all recipes can be told. Subclasses add a literal `kind` and their own fields."""

    kind: str
    setting: Literal["strict", "relax"] = Field(
        "strict",
        description="relax lets a recipe see test responses (never test pictures); it is shown beside every score",
    )


C = TypeVar("C", bound=RecipeConfig)


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
    NAME_ : one fitted part per stage, after `fit`
    subject_, n_voxels_, image_shape_ : what it was fitted on
    stage_lineages_ : dict of {str: frozenset of str}
        by stage, the keys of the trials it saw
    progress : Progress
        where `fit` shows long work; nowhere by default
    trainer : Trainer
        trains every network of the stages; :func:`phosphene.training.train` by default
    """

    config_class: ClassVar[type[RecipeConfig]]
    stages: ClassVar[dict[str, type[Part]]]
    paper: ClassVar[str] = ""
    needs: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Which earlier stages a stage builds on, where these are not all of them: a change elsewhere then spares it."""
    self_supervised: ClassVar[frozenset[str]] = frozenset()
    """Stages that also learn from responses without pictures: those of `other_subjects`, and test responses in setting
    relax."""
    presets: ClassVar[tuple[str, ...]] = ("lab", "paper")
    """Names that `preset` knows; these two always, more where a paper has several configurations."""
    demo: ClassVar[dict[str, Any]] = {}
    """Values of a run that ``phosphene demo`` sets for this recipe, such as other people to pretrain on."""
    fixed_spaces: ClassVar[frozenset[str]] = frozenset()
    """Latent spaces that are the same whatever the training trials, so that folds can be scored together in them."""

    def __init__(self, config: C | None = None, seed: int = 0) -> None:
        self.config: C
        if config is None:
            self.config = self.config_class()
        else:
            self.config = config

        self.seed = seed
        self.subject_: str | None = None
        self.progress = Progress(quiet=True)
        self.unpaired: tuple[Trials, ...] = ()
        self.stage_lineages_: dict[str, frozenset[str]] = {}
        self._training: Path | None = None
        self._trainer: Trainer | None = None

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_") and name[:-1] in type(self).stages:
            raise ModelError(f"this {type(self).__name__} is not fitted yet; call fit, or load a run.")

        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    # -- to be written by each recipe ------------------------------------------------------------------------------

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """Values of a preset, ``lab`` (tiny), ``paper`` (published sizes) or another of `presets`, over the defaults."""
        return {}

    def decode(self, trials: Trials) -> Images:
        """Brain to image: one picture per row of `trials`."""
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

    def ceiling(self, stimuli: Stimuli) -> Images | None:
        """Pictures the generator makes from the true latents: the best this recipe could do; None where undefined."""
        return None

    def text_latents(self, texts: Sequence[str]) -> Latents | None:
        """Texts to the space of `latents`, one row per text under the text itself, for zero-shot classification; None
        where the latents have no text side."""
        return None

    def decode_samples(self, trials: Trials) -> list[Images]:
        """Every picture a recipe with a random generator draws, a list over samples, each one picture per row."""
        return [self.decode(trials)]

    def decode_steps(self, trials: Trials) -> dict[str, Images]:
        """Pictures on the way to the decoded ones, such as a blurry first stage, by name; scored beside them."""
        return {}

    def inner_folds(self, trials: Trials) -> np.ndarray | None:
        """(n_trials,) fold of each training trial, as used for choices inside the training set; None if none was made."""
        return None

    def voxel_weights(self) -> np.ndarray | None:
        """(n_voxels,) how much each voxel counts when decoding, 0 for unused; None where undefined."""
        return None

    def conditions(self) -> dict[str, str]:
        """What scores depend on beside the setting, in a few words each, by name; shown beside it. None by default."""
        return {}

    def generators(self) -> tuple[str, ...]:
        """Pretrained generators that draw, by their names in `phosphene.recipes.corpora`; none by default."""
        return ()

    # -- the same for all ------------------------------------------------------------------------------------------

    @classmethod
    def can_encode(cls, config: RecipeConfig | None = None) -> bool:
        """Whether the recipe predicts responses from pictures; with a configuration, whether it does so configured."""
        return cls.encode is not Recipe.encode

    @classmethod
    def stages_of(cls, config: RecipeConfig) -> dict[str, type[Part]]:
        """Stages that a configuration asks for, in order; all by default."""
        return cls.stages

    @classmethod
    def other_subjects(cls, config: RecipeConfig) -> tuple[str, ...]:
        """Subjects whose training responses the self-supervised stages are to learn from as well; none by default."""
        return ()

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
            responses whose pictures are not to be known, for the `self_supervised` stages

        Returns
        -------
        self : Recipe
        """
        store = store or StageStore()
        stimuli = stimuli.select(trials.stimulus_ids)
        self._fitted_on(trials, stimuli)
        self.unpaired = tuple(unpaired)
        self.stage_lineages_ = {}
        given = [trials.digest(), stimuli.digest(), self.seed]
        digests: dict[str, str] = {}

        for name, kind in self.stages_of(self.config).items():
            before = [digests[n] for n in self.needs.get(name, tuple(digests))]
            code = code_digest(type(self), kind)
            inputs = list(given)
            lineage = trials.member_keys()

            if name in self.self_supervised and unpaired:
                inputs += [t.digest() for t in unpaired]
                lineage = lineage.union(*(t.member_keys() for t in unpaired))

            digests[name] = digest_of(name, self.stage_config(name), code, inputs, before)
            if store.folder is not None:
                self._training = store.folder.parent / "training" / f"{name}-{digests[name][:12]}"

            part = store.get(name, kind, digests[name], lineage, partial(getattr(self, f"fit_{name}"), trials, stimuli))
            setattr(self, f"{name}_", part)
            self.stage_lineages_[name] = lineage

            if self._training is not None and store.writes:
                shutil.rmtree(self._training, ignore_errors=True)

        if store.folder is not None and store.writes:
            self._write_recipe(store.folder.parent)

        return self

    def stage_config(self, name: str) -> dict[str, Any]:
        """Values a stage depends on; all of them by default. Narrow it so that a late change spares early stages."""
        return self.config.model_dump(mode="json")

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
        """
        more = {"progress": self.progress, **more}
        folder = self._training_folder(part)
        return self.trainer(network, fetch, n_items, settings, seed=self.seed, folder=folder, data=data, **more)

    @property
    def trainer(self) -> Trainer:
        """What trains the networks of the stages, called as :func:`phosphene.training.train` is, which it is by default."""
        if self._trainer is None:
            from phosphene.training import train

            return train

        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def _training_folder(self, part: str) -> Path | None:
        if self._training is None:
            return None

        return self._training / part

    def rng(self, *purpose: Any) -> np.random.Generator:
        """A generator of its own for each purpose, a function of the seed and nothing else."""
        return np.random.default_rng([self.seed, *(int(digest_of(p)[:8], 16) for p in purpose)])

    def _fitted_on(self, trials: Trials, stimuli: Stimuli) -> None:
        self.subject_ = trials.subject
        self.n_voxels_ = trials.n_voxels
        self.image_shape_ = stimuli.image_shape

    @property
    def lineage_(self) -> frozenset[str]:
        """Keys of the trials any stage saw."""
        return frozenset().union(*self.stage_lineages_.values())

    def check_trials(self, trials: Trials) -> None:
        """Raise ModelError unless `trials` have the voxels this recipe was fitted on."""
        if self.subject_ is None:
            raise ModelError(f"this {type(self).__name__} is not fitted yet; call fit, or load a run.")

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

    def predicted_trials(self, stimuli: Stimuli, betas: np.ndarray) -> Trials:
        """Predicted responses (n_stimuli, n_voxels) as Trials, one row per stimulus."""
        table = pd.DataFrame({"stimulus": stimuli.ids})
        return Trials(betas, table, subject=str(self.subject_), provenance={"predicted_by": self.config.kind})

    def save(self, folder: str | Path) -> None:
        """Write every stage and recipe.json into `folder`, readable by `load`."""
        from phosphene.io.stages import save_part

        folder = atomic.checked_path(folder)
        self._check_fitted()

        for name in self.stages_of(self.config):
            part = getattr(self, f"{name}_")
            lineage = self.stage_lineages_[name]
            save_part(folder / "stages" / name, part, stage=name, digest="saved", seconds=0.0, lineage=lineage)

        self._write_recipe(folder)

    def _check_fitted(self) -> None:
        if self.subject_ is None:
            raise ModelError(f"this {type(self).__name__} is not fitted yet; call fit before saving it.")

    def _write_recipe(self, folder: Path) -> None:
        record = {
            "kind": self.config.kind,
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
            "subject": self.subject_,
            "n_voxels": self.n_voxels_,
            "image_shape": list(self.image_shape_),
            "stages": list(self.stages_of(self.config)),
            "phosphene": __version__,
        }

        atomic.write_text(folder / RECIPE, json.dumps(record, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A fitted recipe from a folder written by `save` or `fit`.

        Raises
        ------
        ModelError
            When a stage is missing or damaged, or the folder holds another recipe.
        """
        folder = atomic.checked_path(folder)
        record = read_json(folder / RECIPE)
        kind = cls.config_class.model_fields["kind"].default
        if record.get("kind") != kind:
            raise ModelError(f"{folder} holds the recipe '{record.get('kind')}', not '{kind}'; load it as that.")

        config = validate(cls.config_class, record["config"], str(folder / RECIPE))
        recipe = cls(config, seed=record["seed"])
        stages = cls.stages_of(config)

        for name, part in stages.items():
            setattr(recipe, f"{name}_", load_part(folder / "stages" / name, part))

        recipe.subject_ = record["subject"]
        recipe.n_voxels_ = record["n_voxels"]
        recipe.image_shape_ = tuple(record["image_shape"])
        recipe.stage_lineages_ = {name: read_lineage(folder / "stages" / name) for name in stages}

        return recipe


def code_digest(recipe: type, part: type) -> str:
    """Of the source of the recipe's files and of the part's station: changed code means a changed stage."""
    own = {Path(inspect.getfile(kind)) for kind in recipe.__mro__ if issubclass(kind, Recipe) and kind is not Recipe}
    station = Path(inspect.getfile(part)).parent.glob("*.py")
    return digest_of(__version__, *(f.read_text(encoding="utf-8") for f in (*sorted(own), *sorted(station))))
