"""What a person asks before and after: what exists, what would run, what came out."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from phosphene import recipes
from phosphene.errors import FailedChecks, NotAvailable
from phosphene.io.config import flatten
from phosphene.io.run_folder import RunFolder
from phosphene.io.stages import STAGE
from phosphene.metrics.registry import kind_of
from phosphene.recipes.base import Recipe
from phosphene.run import TEST, Run, RunConfig, configure

_WIDEST = 48  # characters of a value, so that its origin still fits on the line


def plan(config: RunConfig, out: str | Path) -> str:
    """What `fit` would do with this configuration; reads the data, fits nothing, writes nothing.

    Parameters
    ----------
    config : RunConfig
        what the run would be made with
    out : str or Path
        folder it would be written to, which may hold finished stages

    Returns
    -------
    str
        lines: recipe, data, split with its folds, stages that are there already, memory
    """
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

    n_done = 0
    for number in range(len(folds)):
        for name in names:
            if (opened.place(number) / "stages" / name / STAGE).is_file():
                n_done += 1

    lines.append(f"stages   {n_done} of {len(folds) * len(names)} are there already in {out}")
    lines.append(f"memory   betas {len(trials) * trials.n_voxels * 4 / 1e6:.1f} MB as float32")

    return "\n".join(lines)


def show_recipes() -> str:
    """One line per recipe: name, what it is, whether it encodes, presets of its own."""
    lines = []
    for name in recipes.recipe_names():
        try:
            cls = recipes.recipe(name)
        except NotAvailable as error:
            lines.append(f"{name:<18}{'broken':<16}{error}")
            continue

        if cls.can_encode():
            verbs = "decode, encode"
        else:
            verbs = "decode"

        # A recipe's file begins "Name: what it does", and the name stands at the start of the line already.
        described = sys.modules[cls.__module__].__doc__ or cls.__doc__ or cls.__name__
        title = described.strip().partition("\n")[0]
        what = title.partition(": ")[2] or title

        presets = [preset for preset in cls.presets if preset not in Recipe.presets]
        if presets:
            more = f" Presets beside {' and '.join(Recipe.presets)}: {', '.join(presets)}."
        else:
            more = ""

        lines.append(f"{name:<18}{verbs:<16}{what}{more}")

    return "\n".join(lines)


def show_config(recipe: str, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Every value of a recipe's configuration (or of a run's) and where it came from.

    Parameters
    ----------
    recipe : str
        name of a recipe, or the folder of a run
    layers : sequence of tuple of (str, mapping)
        (origin, values) over the defaults; not used for a run

    Returns
    -------
    str
        a line per value: key, value, origin
    """
    rows = []
    if (Path(recipe) / "manifest.json").is_file():
        table = RunFolder.existing(recipe).table("origins.csv")
        for key, value, origin in zip(table["key"], table["value"], table["origin"], strict=True):
            rows.append((str(key), _short(value), str(origin)))
    else:
        # No recipe runs without data, but its configuration can be looked at before there are any.
        config, origins = configure(recipe, [("(required)", {"data.name": "?"}), *layers])
        origins["preset"] = f"{origins['preset']}; there are {', '.join(recipes.recipe(recipe).presets)}"
        for key, value in flatten(config.model_dump(mode="json")).items():
            rows.append((key, _short(value), origins.get(key, "default")))

    key_width = max(len(key) for key, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows)
    lines = [f"{key:<{key_width}}  {value:<{value_width}}  {origin}" for key, value, origin in rows]

    return "\n".join(lines)


def _short(value: Any) -> str:
    text = str(value)
    if len(text) <= _WIDEST:
        return text

    return text[: _WIDEST - 3] + "..."


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


def require_checks(path: str | Path) -> None:
    """Raise unless all checks of an evaluated run hold or are waived.

    Parameters
    ----------
    path : str or Path
        folder of a run

    Raises
    ------
    FailedChecks
        Naming those that failed.
    """
    verdicts = RunFolder.existing(path).table("validity.csv")
    waived = verdicts["waiver"].notna() & (verdicts["waiver"].astype(str) != "")
    failed = verdicts.loc[(verdicts["verdict"] == "fail") & ~waived, "id"].tolist()
    if failed:
        raise FailedChecks(
            f"{len(failed)} checks of {path} failed: {', '.join(failed)}. Results are written; see above for reasons."
        )


def summary(path: str | Path) -> str:
    """The scores that matter most as a small table with controls, then the conclusions.

    Parameters
    ----------
    path : str or Path
        folder of a run

    Returns
    -------
    str
        lines to print; what to run next, where nothing was scored yet
    """
    run = RunFolder.existing(path)
    scores = run.table("scores.csv")
    if scores.empty:
        return f"{path} has no scores yet. Run: phosphene evaluate {path}"

    lines = score_lines(scores)
    lines += ["", _conditions(run.manifest)]
    conclusions = run.evaluation(TEST) / "conclusions.txt"
    if conclusions.is_file():
        lines += ["", conclusions.read_text(encoding="utf-8").strip()]

    return "\n".join(lines)


def score_lines(scores: pd.DataFrame) -> list[str]:
    """The scores that matter most as lines of a small table, with controls.

    Parameters
    ----------
    scores : DataFrame
        rows of scores.csv

    Returns
    -------
    list of str
        headings, and one line for each metric
    """
    lines = [f"{'metric':<40}{'brain':>8}  {'95 % interval':<17}{'chance':>8}{'p':>9}{'n':>6}  controls"]
    for row in scores.loc[scores["input"] == "brain"].to_dict("records"):
        metric = str(row["metric"])
        if kind_of(metric) in HEADLINES:
            lines.append(_summary_line(row, _control_values(scores, metric)))

    return lines


def _control_values(scores: pd.DataFrame, metric: str) -> str:
    """What every input but the brain scored, such as ``shuffled 0.500, truth 0.980``, in the order of the table."""
    others = scores.loc[(scores["metric"] == metric) & (scores["input"] != "brain")]
    values = dict(zip(others["input"], others["value"].to_numpy(float), strict=True))

    parts = []
    for name in dict.fromkeys(scores["input"]):
        if not math.isnan(values.get(name, math.nan)):
            parts.append(f"{name} {values[name]:.3f}")

    return ", ".join(parts)


def _summary_line(row: Mapping[Hashable, Any], controls: str) -> str:
    """One score of the brain; a dash for what the metric does not have."""
    interval = "-"
    chance = "-"
    p = "-"

    if pd.notna(row["ci_low"]):
        interval = f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"
    if pd.notna(row["chance"]):
        chance = f"{row['chance']:.3f}"
    if pd.notna(row["p"]):
        p = f"{row['p']:.4f}"

    score = f"{row['metric']:<40}{row['value']:>8.3f}"
    return f"{score}  {interval:<17}{chance:>8}{p:>9}{row['n']:>6}  {controls}"


def _conditions(manifest: Mapping[str, Any]) -> str:
    """How the scores came about: the setting, and what else the recipe names."""
    conditions = {"setting": manifest.get("setting", "unknown"), **manifest.get("conditions", {})}
    return "; ".join(f"{name} {value}" for name, value in conditions.items())
