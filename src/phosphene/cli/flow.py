"""The verbs of the flow: fit, decode, encode, evaluate, analyse, report, demo; and what there is to show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from phosphene.cli.common import (
    DataOptions,
    Quiet,
    Root,
    Run,
    command_layer,
    layers_of,
    progress_to,
    shell,
    text,
)

_PRESETS = "lab (tiny), paper (published sizes), or another that `phosphene show recipes` names."


def add_to(app: typer.Typer) -> None:
    """Name every command of this file."""
    for verb in (fit, decode, encode, evaluate, analyse, report, demo, sweep, show):
        app.command()(verb)


def fit(
    recipe: Annotated[str, typer.Argument(help="Recipe; `phosphene show recipes` lists them.")],
    data: Annotated[
        str, typer.Option("--data", help="Data set NAME or NAME:SUBJECT, or the path of a file or folder.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the run; the same command on an unfinished run goes on with it.")
    ],
    root: Root = None,
    split: Annotated[
        str | None, typer.Option(help="Named split, kfold:K, cluster:K, or a file (default: the data set's own).")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="Stimuli that depend on each other: category, or a CSV with columns stimulus and group."),
    ] = None,
    mask_from: Annotated[
        str | None,
        typer.Option(
            "--mask-from", help="What the data set's voxels were chosen by, such as 'retinotopy' or 'anatomy'."
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help=_PRESETS)] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of values.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="One value, such as recipe.curve.kind=none; may be given several times."),
    ] = None,
    option: DataOptions = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything drawn.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done and predict memory, disk and time; do nothing."),
    ] = False,
    predict: Annotated[
        bool, typer.Option("--predict", help="Predict as --dry-run does, then fit; forecast.csv holds both.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Where networks are trained: cpu, cuda, cuda:1 ... (default: the best there is).")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fit a recipe to the training trials, stage by stage; finished stages are never computed twice."""
    from phosphene import flow
    from phosphene.flow.forecast import text_of
    from phosphene.io.device import on
    from phosphene.io.run_folder import RunFolder

    command = command_layer(data, root, split, preset, seed, option)
    if groups is not None:
        command["groups"] = groups

    if mask_from is not None:
        command["data.mask_from"] = mask_from

    resolved, origins = flow.configure(recipe, layers_of(command, config, set_))

    with on(device):
        if dry_run:
            opened = flow.Run(RunFolder(out), resolved)
            typer.echo(f"{flow.plan(resolved, out)}\n\n{text_of(flow.forecast(opened), len(opened.folds))}")
            return

        flow.fit(resolved, out, origins=origins, progress=progress_to(quiet), predict=predict)

    typer.echo(f"fitted: {out}\nnext: phosphene decode {shell(out)}")


def decode(
    run: Run,
    control: Annotated[
        list[str] | None,
        typer.Option("--control", help="shuffled, noise, mean, category, truth (the default), or shuffled_training."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="of the samples a recipe draws for each trial, keep and score the first N; all by default."
        ),
    ] = None,
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Brain to image: decode the test trials, and the control inputs beside them."""
    from phosphene import flow

    opened = flow.open_run(run, text(root))
    flow.decode(opened, controls=control or flow.CONTROLS, samples=samples, progress=progress_to(quiet))
    typer.echo(f"decoded: {run / 'decoded' / 'test' / 'brain' / 'images'}\nnext: phosphene evaluate {shell(run)}")


def encode(
    run: Run,
    pictures: Annotated[
        str | None,
        typer.Option("--pictures", help="Folder or tensor of your own pictures, instead of the test pictures."),
    ] = None,
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Image to brain: predict the responses to the test pictures, or to pictures of your own."""
    from phosphene import flow

    if pictures is not None:
        place = flow.encode_pictures(flow.open_run(run, text(root)), pictures, progress=progress_to(quiet))
        typer.echo(f"encoded: {place / 'predicted.npy'}\nrows: {place / 'index.csv'}, columns: {place / 'voxels.csv'}")
        return

    flow.encode(flow.open_run(run, text(root)), progress=progress_to(quiet))
    typer.echo(f"encoded: {run / 'encoded' / 'test' / 'predicted.npy'}\nnext: phosphene evaluate {shell(run)}")


def evaluate(
    run: Run,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="RUN2", help="Compare with another scored run; may be given several times."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with status 9 when a check fails; nothing else changes.")
    ] = False,
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Score decoded pictures and predicted responses, with intervals, chance, nulls, controls and checks."""
    from phosphene import flow
    from phosphene.reporting import run_comparison as comparison

    if against:  # what cannot be compared is refused before any work is done
        comparison.against(run, against)

    flow.evaluate(flow.open_run(run, text(root)), progress=progress_to(quiet))
    typer.echo(flow.summary(run))
    if against:
        typer.echo(f"\n{comparison.text_table(comparison.against(run, against))}")

    others = "".join(f" {shell(r)}" for r in against or [])
    typer.echo(f"\nscores: {run / 'scores.csv'}\nnext: phosphene report {shell(run)}{others}")
    if strict:
        flow.require_checks(run)


def analyse(
    run: Run,
    name: Annotated[
        str, typer.Argument(help="What to ask, such as reliability or cycle; `phosphene show analyses` lists all.")
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", help="For cycle: a folder of novel pictures instead of the test pictures."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One option, such as n=50; may be given several times.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything drawn (default: that of the run).")] = None,
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Ask a run more: what it makes of noise, what survives a round trip."""
    from phosphene import flow
    from phosphene.io.config import parse_assignments

    options = {**({} if images is None else {"images": str(images)}), **parse_assignments(set_ or [])}
    answer = flow.analyse(flow.open_run(run, text(root)), name, options, seed=seed, progress=progress_to(quiet))
    typer.echo(f"{answer.summary}\n\nanalysis: {answer.folder}\nnext: phosphene report {shell(run)}")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One run, or several to compare.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file (default: report.html in the first run).")
    ] = None,
) -> None:
    """Write one self-contained HTML page."""
    from phosphene.io.run_folder import RunFolder
    from phosphene.reporting import report as write

    folders = [RunFolder.existing(r) for r in runs]
    typer.echo(f"report: {write(folders if len(folders) > 1 else folders[0], out=out)}")


def demo(
    recipe: Annotated[str, typer.Option(help="Recipe, or all.")] = "linear",
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = Path("runs/demo"),
    fast: Annotated[bool, typer.Option("--fast", help="A smaller subject, and no analyses.")] = False,
    quiet: Quiet = False,
) -> None:
    """The whole flow on a simulated subject: fit, decode, encode, evaluate, analyse, report."""
    from phosphene.flow import demo as demo_

    typer.echo(demo_.run(recipe, out, fast=fast, progress=progress_to(quiet)))


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Sweep file; configs/README.md explains its layout.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of all runs; the same command goes on with it.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Another data set, NAME or NAME:SUBJECT, or a path.")
    ] = None,
    root: Root = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One value over the base of the file; may be given several times.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes at a time on this machine.")] = 1,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Name of a run, * for anything; may be given several times.")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option("--slurm", help="Queue an array of jobs; options such as timeout_min=240, slurm_partition=gpu."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and which are missing.")] = False,
    quiet: Quiet = False,
) -> None:
    """Every run of a grid: recipes, subjects, seeds, ablations. Only what is missing is made."""
    from phosphene.io.config import parse_assignments
    from phosphene.sweeps.execution import chosen, prepare
    from phosphene.sweeps.execution import sweep as make
    from phosphene.sweeps.table import text_table

    command = command_layer(data, root, None, None, None, None)
    layers = [("command line", command), ("--set", parse_assignments(set_ or []))]
    whole = prepare(file, out, layers)
    names = chosen(whole.grid, only)

    if dry_run:
        typer.echo("\n".join(f"{'there  ' if whole.is_done(n) else 'missing'}  {n}" for n in names))
    elif slurm is not None:
        from phosphene.sweeps.cluster import submit

        missing = [n for n in names if not whole.is_done(n)]
        jobs = submit(whole, missing, parse_assignments(slurm))
        typer.echo(
            f"queued {len(jobs)} jobs; scripts and logs: {out / 'jobs'}\nwhen they are done, the same without --slurm"
        )
    else:
        make(file, out, layers=layers, workers=workers, only=only, progress=progress_to(quiet))
        typer.echo(f"{text_table(whole)}\n\ntable: {out / 'summary.csv'}\npage: {out / 'sweep.html'}")


def show(
    what: Annotated[str, typer.Argument(help="recipes, analyses, metrics, checks, config, memory or data.")],
    recipe: Annotated[
        str | None, typer.Argument(help="For config and memory: a recipe; for config also the folder of a run.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of values.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One value, KEY=VALUE.")] = None,
    preset: Annotated[str | None, typer.Option(help=_PRESETS)] = None,
) -> None:
    """What exists, what would run, and where each value comes from."""
    from phosphene.errors import ConfigError, did_you_mean

    if what == "recipes":
        from phosphene import flow

        typer.echo(flow.show_recipes())
    elif what == "analyses":
        from phosphene.analysis import show_analyses

        typer.echo(show_analyses())
    elif what == "metrics":
        from phosphene.metrics import all_metrics

        known = all_metrics()
        width = max(map(len, known))
        typer.echo("\n".join(f"{name:<{width}}  {m.title}; {m.better} is better" for name, m in known.items()))
    elif what == "checks":
        from phosphene.validity import CHECKS

        typer.echo("\n".join(f"{name:<3}  {c.question}" for name, c in CHECKS.items()))
    elif what == "data":
        from phosphene.cli.data import data_list

        data_list()
    elif what == "config":
        from phosphene import flow

        if recipe is None:
            raise ConfigError(
                "`phosphene show config` needs a recipe or the folder of a run, such as: show config linear"
            )

        command: dict[str, Any]
        if preset:
            command = {"preset": preset}
        else:
            command = {}

        typer.echo(flow.show_config(recipe, layers_of(command, config, set_)))
    elif what == "memory":
        _show_memory(recipe, preset or "paper", config, set_)
    else:
        known = ["recipes", "analyses", "metrics", "checks", "config", "memory", "data"]
        raise ConfigError(f"cannot show '{what}'. {did_you_mean(what, known)}")


def _show_memory(recipe: str | None, preset: str, config: Path | None, set_: list[str] | None) -> None:
    """Settings for cards of several sizes, by arithmetic; on simulated data unless data.name says otherwise."""
    from phosphene import flow
    from phosphene.errors import ConfigError
    from phosphene.flow.forecast import show_memory
    from phosphene.io.run_folder import RunFolder

    if recipe is None:
        raise ConfigError("`phosphene show memory` needs a recipe, such as: show memory lea --preset paper")

    command = {"preset": preset, "data.name": "insilico"}
    resolved, _ = flow.configure(recipe, layers_of(command, config, set_))
    typer.echo(show_memory(flow.Run(RunFolder(Path("memory")), resolved)))
