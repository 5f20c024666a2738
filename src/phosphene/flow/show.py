"""What a person asks before and after: what exists, what would run, what came out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from phosphene import recipes
from phosphene.io.config import flatten
from phosphene.io.folder import RunFolder
from phosphene.io.stages import STAGE
from phosphene.metrics.registry import kind_of
from phosphene.recipes.base import Recipe
from phosphene.run import TEST, Run, RunConfig, configure


def plan(config: RunConfig, out: str | Path) -> str:
    """What `fit` would do with this configuration; reads the data, fits nothing, writes nothing."""
    opened = Run(RunFolder(Path(out)), config)
    trials = opened.trials
    folds = opened.folds
    names = [stage.name for stage in recipes.recipe(config.recipe.kind).stages_of(config.recipe)]
    lines = [
        f"recipe   {config.recipe.kind}: {', '.join(names)}",
        f"data     {opened.dataset.name}, subject {trials.subject}: {len(trials)} trials, {trials.n_voxels} voxels",
        f"split    {config.split or folds[0].name}: {len(folds)} fold{'s' if len(folds) > 1 else ''}",
    ]

    for number in range(min(3, len(folds))):
        train, test = opened.sides(number)
        lines.append(
            f"         {folds[number].name}: {len(train)} training trials of {len(train.stimulus_ids)} stimuli, "
            f"{len(test)} test trials of {len(test.stimulus_ids)}"
        )

    if len(folds) > 3:
        lines.append(f"         and {len(folds) - 3} more folds")

    done = sum((opened.place(f) / "stages" / s / STAGE).is_file() for f in range(len(folds)) for s in names)
    lines.append(f"stages   {done} of {len(folds) * len(names)} are there already in {out}")
    lines.append(f"memory   betas {len(trials) * trials.n_voxels * 4 / 1e6:.1f} MB as float32")

    return "\n".join(lines)


def show_recipes() -> str:
    """One line per recipe: name, what it is, whether it encodes, presets of its own."""
    lines = []
    for name in recipes.recipe_names():
        cls = recipes.recipe(name)
        doc = (sys.modules[cls.__module__].__doc__ or "").strip().splitlines()[0]
        own = [preset for preset in cls.presets if preset not in Recipe.presets]

        if own:
            more = f" Presets beside {' and '.join(Recipe.presets)}: {', '.join(own)}."
        else:
            more = ""

        lines.append(
            f"{name:<18}{'decode, encode' if cls.can_encode() else 'decode':<16}{doc.partition(': ')[2] or doc}{more}"
        )

    return "\n".join(lines)


def show_config(recipe: str, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Every value of a recipe's configuration (or of a run's) and where it came from.

    Parameters
    ----------
    recipe : str
        name of a recipe, or the folder of a run
    layers : sequence of tuple of (str, mapping of {str: Any})
        (origin, values) over the defaults; not used for a run
    """
    if (Path(recipe) / "manifest.json").is_file():
        table = RunFolder.existing(recipe).table("origins.csv")
        rows = [(str(r.key), _short(r.value), str(r.origin)) for r in table.itertuples()]
    else:
        config, origins = configure(recipe, [("(required)", {"data.name": "?"}), *layers])
        values = flatten(config.model_dump(mode="json"))
        origins["preset"] = f"{origins['preset']}; there are {', '.join(recipes.recipe(recipe).presets)}"
        rows = [(k, _short(v), origins.get(k, "default")) for k, v in values.items()]

    widths = [max(len(r[i]) for r in rows) for i in range(2)]
    return "\n".join(f"{k:<{widths[0]}}  {v:<{widths[1]}}  {o}" for k, v, o in rows)


def _short(value: Any) -> str:
    text = str(value)
    if len(text) <= 48:
        return text

    return text[:45] + "..."


HEADLINES = (
    "pixcorr",
    "mse",
    "ssim.2d",
    "two_way",
    "two_way_within_class",
    "category",
    "zero_shot_top1",
    "zero_shot_centred_top1",
    "distance",
    "fid",
    "kid",
    "pearson.voxels",
    "pearson.fraction_of_ceiling",
)
"""Kinds of metrics in the summary."""


def summary(path: str | Path) -> str:
    """The scores that matter most as a small table with controls, then the conclusions."""
    run = RunFolder.existing(path)
    scores = run.table("scores.csv")
    if scores.empty:
        return f"{path} has no scores yet. Run: phosphene evaluate {path}"

    inputs = list(pd.unique(scores["input"]))
    lines = [f"{'metric':<40}{'brain':>8}  {'95 % interval':<17}{'chance':>8}{'p':>9}{'n':>6}  controls"]

    for row in scores[scores["input"] == "brain"].itertuples():
        if kind_of(str(row.metric)) not in HEADLINES:
            continue

        others = scores[(scores["metric"] == row.metric) & (scores["input"] != "brain")].set_index("input")["value"]
        controls = ", ".join(f"{i} {others[i]:.3f}" for i in inputs if i in others and pd.notna(others[i]))

        if pd.notna(row.ci_low):
            interval = f"{row.ci_low:.3f} to {row.ci_high:.3f}"
        else:
            interval = "-"

        if pd.notna(row.chance):
            chance = f"{row.chance:.3f}"
        else:
            chance = "-"

        if pd.notna(row.p):
            p = f"{row.p:.4f}"
        else:
            p = "-"

        lines.append(f"{row.metric:<40}{row.value:>8.3f}  {interval:<17}{chance:>8}{p:>9}{row.n:>6}  {controls}")

    lines += ["", _conditions(run.manifest)]
    conclusions = run.evaluation(TEST) / "conclusions.txt"
    if conclusions.is_file():
        lines += ["", conclusions.read_text(encoding="utf-8").strip()]

    return "\n".join(lines)


def _conditions(manifest: Mapping[str, Any]) -> str:
    """How the scores came about: the setting, and what else the recipe names."""
    found = {"setting": manifest.get("setting", "unknown"), **manifest.get("conditions", {})}
    return "; ".join(f"{k} {v}" for k, v in found.items())
