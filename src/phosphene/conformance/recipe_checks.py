"""`check_recipe`: what every recipe must do, whoever wrote it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phosphene import recipes
from phosphene.conformance.checklist import Checklist, asked_of_python, finite, must, near, same, shaped
from phosphene.conformance.small_study import TinyStudy, tiny_study
from phosphene.io.config import resolve_layers
from phosphene.io.stages import Part, StageStore, version_of
from phosphene.recipes.base import Recipe, RecipeConfig, Stage

_ROUNDING = 1e-3  # of the largest pixel or latent: float32 through several matrix products in batches of another size


def check_recipe(
    recipe: str | type[Recipe],
    *,
    values: Mapping[str, Any] | None = None,
    study: TinyStudy | None = None,
    refit: bool = True,
    pool: Path | None = None,
    seconds: float = 600.0,
    megabytes: float = 4000.0,
    waived: Mapping[str, str] | None = None,
) -> Recipe:
    """Check a recipe: fit its lab preset to a tiny simulated study and hold it to the contract of `Recipe`.

    Parameters
    ----------
    recipe : str or type[Recipe]
        its class, or the name it is registered by
    values : mapping of str to Any, optional
        of its configuration, over the preset "lab", such as fewer training steps
    study : TinyStudy, optional
        by default 40 training and 8 test pictures, 60 voxels
    refit : bool, default True
        whether to fit a second time, to see that the seed decides everything
    pool : Path, optional
        folder of finished stages, read and added to, so that a run on the same data need not fit again
    seconds, megabytes : float, optional
        processor time and memory that the first fit may take
    waived : mapping of str to str, optional
        claims known to fail, and why

    Returns
    -------
    Recipe
        the fitted recipe

    Raises
    ------
    NonConforming
        With everything that does not hold.
    """
    if isinstance(recipe, str):
        cls = recipes.recipe(recipe)
    else:
        cls = recipe

    checks = Checklist(f"the recipe {recipe if isinstance(recipe, str) else cls.__name__}", waived)
    _check_class(checks, cls)
    if isinstance(recipe, str):
        with checks.claim("lazy", "naming recipes not to import this one"):
            code = f"import sys\nfrom phosphene import recipes\nassert {recipe!r} in recipes.recipe_names()\n"
            imported = asked_of_python(f"{code}print(*{{{cls.__module__!r}}} & set(sys.modules))")
            must(not imported, "it is imported")

    config: RecipeConfig | None = None
    with checks.claim("presets", "presets 'lab' and 'paper' that the configuration accepts"):
        must({"lab", "paper"} <= set(cls.presets), f"presets are {', '.join(cls.presets)}")
        for name in cls.presets:
            resolve_layers(cls.config_class, [(f"preset {name}", cls.preset(name))])

        config = resolve_layers(cls.config_class, [("preset lab", cls.preset("lab")), ("values", dict(values or {}))])[
            0
        ]

    if config is None:
        checks.conclude()

    study = study or tiny_study()
    fresh = cls(config)
    checks.refuses("unfitted", "decoding before fitting", lambda: fresh.decode(study.averaged), "fit")

    if cls.can_encode(config):
        tested = study.stimuli.select(study.averaged.stimuli)
        checks.refuses("unfitted", "encoding before fitting", lambda: fresh.encode(tested), "fit")

    with tempfile.TemporaryDirectory() as folder:
        checks.refuses("unfitted", "saving before fitting", lambda: fresh.save(folder), "fit")

    fitted: Recipe | None = None
    guarded = study.guarded()
    before = study.train.digest()

    with checks.claim("fit", "fit to return the fitted recipe, having read training trials and their pictures alone"):
        with (
            checks.bounded(seconds, megabytes),
            checks.untouched_randomness(torch=False),
            tempfile.TemporaryDirectory() as folder,
        ):
            store = StageStore(None if pool is None else Path(folder) / "stages", pool=pool)
            fitted = cls(config).fit(guarded.train, guarded.stimuli, store)

        must(isinstance(fitted, cls), f"fit returned a {type(fitted).__name__}")

    if not isinstance(fitted, cls):
        checks.conclude()

    with checks.claim("input", "training trials to stay as they were"):
        must(study.train.digest() == before, "their betas, table or voxels were changed")

    with checks.claim("lineage", "lineage_ to be the keys of the training trials"):
        must(fitted.lineage_ == study.train.member_keys(), "it is not")

    if refit:
        _check_seed(checks, cls, config, study, fitted)

    pixels = _check_decoding(checks, fitted, study)
    if cls.can_encode(config):
        _check_encoding(checks, fitted, study)

    _check_extras(checks, fitted, study)
    _check_saving(checks, fitted, study, pixels)
    _check_refusals(checks, fitted, study)
    checks.conclude()

    return fitted


def _check_class(checks: Checklist, cls: type[Recipe]) -> None:
    checks.documented(cls)
    with checks.claim(
        "file", "the file's docstring to name it ('Name: what it does') and its paper ('Paper: none' too)"
    ):
        doc = sys.modules[cls.__module__].__doc__ or ""
        must(": " in doc.strip().partition("\n")[0], f"the first line is {doc.strip().partition(chr(10))[0]!r}")
        must("Paper" in doc, "no paper is named")

    with checks.claim("configuration", "config_class to be a RecipeConfig whose fields but kind have defaults"):
        must(issubclass(cls.config_class, RecipeConfig), f"it is {cls.config_class.__name__}")
        kind = cls.config_class.model_fields["kind"].default
        must(isinstance(kind, str), "kind has no default; write kind: Literal['name'] = 'name'")
        must(cls().config.kind == kind, "it is not so")

    with checks.claim(
        "stages", "stages of parts, each with a documented method that fits it, building on earlier ones"
    ):
        must(cls.stages, "there is no stage")
        earlier: list[str] = []

        for stage in cls.stages:
            must(isinstance(stage, Stage), f"{stage!r} is no Stage")
            must(stage.name not in earlier, f"two stages are called '{stage.name}'")
            must(
                issubclass(stage.part, Part),
                f"{stage.part.__name__} of stage '{stage.name}' has no state and from_state",
            )
            method = getattr(cls, stage.method, None)
            must(method is not None, f"there is no {stage.method}")
            must(method.__doc__, f"{stage.method} has no docstring")
            late = set(stage.needs or ()) - set(earlier)
            must(not late, f"'{stage.name}' needs {', '.join(sorted(late))}, not among the stages before it")
            earlier.append(stage.name)

    with checks.claim(
        "settings", "stages to depend on fields of the configuration and on solvers with version numbers"
    ):
        config = cls.config_class(**cls.preset("lab"))
        for stage in cls.stages_of(config):
            stage.values(config)
            for solver in (stage.part, *stage.solvers(config)):
                version_of(solver)

    with checks.claim("decode", "a method decode"):
        must(cls.decode is not Recipe.decode, "there is none")


def _check_seed(checks: Checklist, cls: type[Recipe], config: RecipeConfig, study: TinyStudy, fitted: Recipe) -> None:
    with checks.claim("seed", "a second fit with the same seed to give the same bits in every stage"):
        again = cls(config).fit(study.train, study.stimuli)
        for name in (stage.name for stage in cls.stages_of(config)):
            ours, theirs = (getattr(r, f"{name}_").state()[0] for r in (again, fitted))
            must(set(ours) == set(theirs), f"stage '{name}' holds other arrays")

            for key in ours:
                same(ours[key], theirs[key], f"'{key}' of stage '{name}'")


def _check_decoding(checks: Checklist, recipe: Recipe, study: TinyStudy) -> np.ndarray | None:
    test, before, pixels = study.averaged, study.averaged.digest(), None
    with checks.claim("pictures", "one finite picture per trial, of image_shape_, under the trial's stimulus id"):
        with checks.untouched_randomness(torch=False):
            images = recipe.decode(test)

        pixels = images.pixels
        finite(shaped(images.pixels, (len(test), *recipe.image_shape_), "pixels"), "pixels")
        must(list(images.ids) == list(test.stimuli), "ids are not those of the trials")
        low = float(images.pixels.min())
        high = float(images.pixels.max())
        must(low > -2 and high < 3, f"pixels are nominally 0-1, but go from {low:.3g} to {high:.3g}")

    if pixels is not None and len(pixels) == len(test):
        checks.rows(lambda rows: recipe.decode(test.take(rows)).pixels, pixels, _ROUNDING, "pictures", repeat=False)

    with checks.claim("input", "decoding to leave trials as they were"):
        must(test.digest() == before, "their betas, table or voxels were changed")

    return pixels


def _check_encoding(checks: Checklist, recipe: Recipe, study: TinyStudy) -> None:
    stimuli = study.stimuli.select(study.averaged.stimuli)
    with checks.claim("responses", "one finite response per stimulus, in the voxels it was fitted on"):
        trials = recipe.encode(stimuli)
        finite(shaped(trials.betas, (len(stimuli), recipe.n_voxels_), "betas"), "betas")
        must(list(trials.stimuli) == list(stimuli.ids), "stimuli are not those asked for")
        same(recipe.encode(stimuli).betas, trials.betas, "betas when asked for twice")

        for some in (slice(None, None, -1), slice(1, 2)):
            near(recipe.encode(stimuli.select(stimuli.ids[some])).betas, trials.betas[some], _ROUNDING, "betas")


def _check_extras(checks: Checklist, recipe: Recipe, study: TinyStudy) -> None:
    test = study.averaged
    stimuli = study.stimuli.select(test.stimuli)

    with checks.claim("latents", "decoded and true latents of the same spaces and shapes, finite, one row each"):
        ours = recipe.latents(test)
        true = recipe.true_latents(stimuli)
        must(set(ours.arrays) == set(true.arrays), f"{sorted(ours.arrays)} are decoded, {sorted(true.arrays)} true")
        must(list(ours.ids) == list(test.stimuli), "ids are not those of the trials")

        for space in ours.arrays:
            finite(ours[space], f"decoded {space}")
            finite(shaped(true[space], ours[space].shape, f"true {space}"), f"true {space}")

        unknown = recipe.fixed_spaces - set(ours.arrays)
        must(not unknown, f"fixed_spaces names {', '.join(sorted(unknown))}, which are not decoded")

    with checks.claim("ceiling", "pictures of the true latents to have the shape of decoded ones, or None"):
        ceiling = recipe.ceiling(stimuli)
        if ceiling is not None:
            finite(shaped(ceiling.pixels, (len(stimuli), *recipe.image_shape_), "pixels"), "pixels")

    with checks.claim("samples", "every sample and step to be one finite picture per trial"):
        for images in (*recipe.decode_samples(test), *recipe.decode_steps(test).values()):
            must(len(images) == len(test), f"{len(images)} pictures came for {len(test)} trials")
            finite(images.pixels, "pixels")

    with checks.claim("folds", "inner folds to keep all trials of a stimulus together, or None"):
        folds = recipe.inner_folds(study.train)
        if folds is not None:
            shaped(folds, (len(study.train),), "folds")
            pairs = set(zip(study.train.stimuli, np.asarray(folds).tolist(), strict=True))
            must(len(pairs) == len(study.train.stimulus_ids), "a stimulus stands in several folds")

    with checks.claim("weights", "voxel weights to be finite, at least 0, one per voxel, or None"):
        weights = recipe.voxel_weights()
        if weights is not None:
            must(finite(shaped(weights, (recipe.n_voxels_,), "weights"), "weights").min() >= 0, "some are negative")


def _check_saving(checks: Checklist, recipe: Recipe, study: TinyStudy, pixels: np.ndarray | None) -> None:
    cls = type(recipe)
    test = study.averaged

    with (
        tempfile.TemporaryDirectory() as folder,
        checks.claim("save", "what is saved and loaded to decode (and encode) the same bits"),
    ):
        recipe.save(folder)
        back = cls.load(folder)
        again = back.decode(test).pixels

        if pixels is not None:
            with checks.claim("repeat", "pictures to be the same bits when asked for twice"):
                if not np.array_equal(again, pixels):  # which of the two is to blame
                    same(recipe.decode(test).pixels, pixels, "pictures")

            same(again, pixels, "pixels")

        if cls.can_encode(recipe.config):
            stimuli = study.stimuli.select(test.stimuli)
            same(back.encode(stimuli).betas, recipe.encode(stimuli).betas, "betas")

        must(back.lineage_ == recipe.lineage_, "the lineage is lost")
        record = json.loads((Path(folder) / "recipe.json").read_text(encoding="utf-8"))
        must(record["kind"] == recipe.config.kind, f"recipe.json says {record['kind']}")
        pickles = [p.name for p in Path(folder).rglob("*") if p.suffix in (".pkl", ".pickle", ".pt", ".joblib")]
        must(not pickles, f"{', '.join(pickles)} may be a pickle, which runs code when it is opened")


def _check_refusals(checks: Checklist, recipe: Recipe, study: TinyStudy) -> None:
    from dataclasses import replace

    test = study.averaged
    fewer = test.take_voxels(np.arange(test.n_voxels - 3))
    n = str(fewer.n_voxels)
    checks.refuses("voxels", "another number of voxels", lambda: recipe.decode(fewer), n)
    stranger = replace(test, subject="a stranger")
    checks.refuses("subject", "another person", lambda: recipe.decode(stranger), "a stranger")
    betas = test.betas.copy()
    betas[1, 2] = np.nan
    checks.refuses("NaN", "NaN in betas", lambda: recipe.decode(test.with_betas(betas)), "NaN", "finite")
