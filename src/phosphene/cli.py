"""The command line: verbs only, each a few lines over the Python API.

Status 0 only on success; errors are one paragraph; ``--debug`` shows the traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

app = typer.Typer(
    name="phosphene",
    help="Decode seen images from brain activity, and predict brain activity from images.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
data_app = typer.Typer(
    no_args_is_help=True, help="Data sets: what there is, what is in it, whether it is sound.", rich_markup_mode=None
)
app.add_typer(data_app, name="data")

Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of the data set (default: a folder of its name in PHOSPHENE_DATA)."),
]
DataOptions = Annotated[
    list[str] | None, typer.Option("--option", help="Option of the reader, KEY=VALUE; may be given several times.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def _version(show: bool) -> None:
    if show:
        from phosphene import __version__

        typer.echo(f"phosphene {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


# -- the flow ----------------------------------------------------------------------------------------------------------


@app.command()
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
        str | None, typer.Option(help="Named split, kfold:K, or a file (default: the data set's own).")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="lab (tiny) or paper (published sizes).")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of values.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="One value, such as recipe.curve.kind=none; may be given several times."),
    ] = None,
    option: DataOptions = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything drawn.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fit a recipe to the training trials, stage by stage; finished stages are never computed twice."""
    from phosphene import flow

    command = _command_layer(data, root, split, preset, seed, option)
    resolved, origins = flow.configure(recipe, _layers(command, config, set_))
    if dry_run:
        typer.echo(flow.plan(resolved, out))
        return
    flow.fit(resolved, out, origins=origins, progress=_progress(quiet))
    typer.echo(f"fitted: {out}\nnext: phosphene decode {out}")


@app.command()
def decode(
    run: Run,
    split: Annotated[str, typer.Option(help="Which side to decode.")] = "test",
    control: Annotated[
        list[str] | None,
        typer.Option("--control", help="shuffled, noise, mean, category, truth (the default), or shuffled_training."),
    ] = None,
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Brain to image: decode the test trials, and the control inputs beside them."""
    from phosphene import flow

    _only_test(split)
    flow.decode(flow.open_run(run, _text(root)), controls=control or flow.CONTROLS, progress=_progress(quiet))
    typer.echo(f"decoded: {run / 'decoded' / split / 'brain' / 'images'}\nnext: phosphene evaluate {run}")


@app.command()
def encode(
    run: Run,
    split: Annotated[str, typer.Option(help="Which side to encode.")] = "test",
    root: Root = None,
    quiet: Quiet = False,
) -> None:
    """Image to brain: predict the responses to the test pictures."""
    from phosphene import flow

    _only_test(split)
    flow.encode(flow.open_run(run, _text(root)), progress=_progress(quiet))
    typer.echo(f"encoded: {run / 'encoded' / split / 'predicted.npy'}\nnext: phosphene evaluate {run}")


@app.command()
def evaluate(run: Run, root: Root = None, quiet: Quiet = False) -> None:
    """Score decoded pictures and predicted responses, with intervals, chance, nulls, controls and checks."""
    from phosphene import flow

    flow.evaluate(flow.open_run(run, _text(root)), progress=_progress(quiet))
    typer.echo(flow.summary(run))
    typer.echo(f"\nscores: {run / 'scores.csv'}\nnext: phosphene report {run}")


@app.command()
def analyse(
    run: Run,
    name: Annotated[
        str, typer.Argument(help="reliability (pictures from noise) or cycle (picture to brain and back).")
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
    from phosphene.analyse import analyse as ask
    from phosphene.run.config import parse_assignments

    options = {**({} if images is None else {"images": str(images)}), **parse_assignments(set_ or [])}
    answer = ask(flow.open_run(run, _text(root)), name, options, seed=seed, progress=_progress(quiet))
    typer.echo(f"{answer.summary}\n\nanalysis: {answer.folder}\nnext: phosphene report {run}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One run, or several to compare.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file (default: report.html in the first run).")
    ] = None,
) -> None:
    """Write one self-contained HTML page."""
    from phosphene.report import report as write
    from phosphene.run.folder import RunFolder

    folders = [RunFolder.existing(r) for r in runs]
    typer.echo(f"report: {write(folders if len(folders) > 1 else folders[0], out=out)}")


@app.command()
def demo(
    recipe: Annotated[str, typer.Option(help="Recipe, or all.")] = "linear",
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = Path("runs/demo"),
    fast: Annotated[bool, typer.Option("--fast", help="A smaller subject, and no analyses.")] = False,
    quiet: Quiet = False,
) -> None:
    """The whole flow on a simulated subject: fit, decode, encode, evaluate, analyse, report."""
    from phosphene import demo as demo_

    typer.echo(demo_.run(recipe, out, fast=fast, progress=_progress(quiet)))


# -- data --------------------------------------------------------------------------------------------------------------


@data_app.command("list")
def data_list(root: Root = None) -> None:
    """Data sets phosphene can read, and which of them are there."""
    from phosphene.data import describe

    typer.echo(describe.render(describe.listing(_text(root))))


@data_app.command("info")
def data_info(
    name: Annotated[str, typer.Argument(help="Data set NAME or NAME:SUBJECT, or a path.")],
    root: Root = None,
    option: DataOptions = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Write pictures, flat maps and noise ceilings to this PNG.")
    ] = None,
) -> None:
    """What is in a data set: subjects, trials, pictures, regions, splits, ceilings."""
    from phosphene.data import describe, registry, yardstick

    dataset = registry.open_dataset(name, root=_text(root), options=_options(option))
    best = yardstick.best_linear(name, root=_text(root), options=_options(option))
    typer.echo(describe.render([*describe.info(dataset), *best]))
    if figure is not None:
        from phosphene.data.atlas import write_atlas

        typer.echo(f"\nfigure: {write_atlas(dataset, figure)}")


@data_app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="Data set NAME or NAME:SUBJECT, or a path.")],
    root: Root = None,
    option: DataOptions = None,
) -> None:
    """Look for everything that would spoil a result; status 4 when something would."""
    from phosphene.data import describe

    findings = describe.check(name, root=_text(root), options=_options(option))
    typer.echo(describe.render_findings(findings))
    if any(f.level == "problem" for f in findings):
        raise typer.Exit(4)


@data_app.command("import")
def data_import(
    source: Annotated[
        str | None, typer.Argument(help="Any data set phosphene reads; or none, and your own files below.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("data"),
    root: Root = None,
    option: DataOptions = None,
    betas: Annotated[
        Path | None, typer.Option(help="Your betas: .npy, .npz, .mat, .h5 or .csv, a row a trial.")
    ] = None,
    trials: Annotated[
        Path | None, typer.Option(help="Your trial table: CSV with a column 'stimulus', a row per row of betas.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of your pictures, named after the stimuli.")] = None,
    voxels: Annotated[
        Path | None, typer.Option(help="CSV with a row per voxel: x, y, z, noise_ceiling, a column per ROI.")
    ] = None,
    captions: Annotated[Path | None, typer.Option(help="CSV (stimulus, caption) or JSON of captions.")] = None,
    subject: Annotated[str, typer.Option(help="Name of the person.")] = "S1",
    key: Annotated[str | None, typer.Option(help="Array of the betas file, where it holds several.")] = None,
    scale: Annotated[float, typer.Option(help="Betas are multiplied by this (NSD's integers: 0.0033333).")] = 1.0,
    size: Annotated[
        int | None, typer.Option(help="Side of the pictures in pixels; as in the files when they agree.")
    ] = None,
    transposed: Annotated[bool, typer.Option("--transposed", help="Betas are (voxels, trials) in the file.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an older data set in that folder.")] = False,
) -> None:
    """Copy a data set, or your own files, into a folder that opens at once and fits any recipe."""
    from phosphene.data import describe, importing
    from phosphene.errors import ConfigError

    own = {"betas": betas, "trials": trials}
    if source is not None and any(own.values()):
        raise ConfigError(f"give either a data set ('{source}') or your own --betas and --trials, not both.")
    if source is not None:
        dataset = importing.import_dataset(source, out, root=_text(root), options=_options(option), replace=replace)
    elif betas is None or trials is None:
        raise ConfigError("give a data set to copy, or both --betas and --trials; see `phosphene data import --help`.")
    else:
        dataset = importing.import_table(
            betas=betas, trials=trials, out=out, images=images, voxels=voxels, captions=captions, subject=subject,
            key=key, scale=scale, size=None if size is None else (size, size), transposed=transposed, replace=replace,
        )  # fmt: skip
    typer.echo(describe.render(describe.info(dataset)))
    typer.echo(f"\nimported: {out}\nnext: phosphene fit linear --data {out} --split kfold:5 --out RUN")


# -- show --------------------------------------------------------------------------------------------------------------


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="recipes, config or data.")],
    recipe: Annotated[str | None, typer.Argument(help="For config: a recipe, or the folder of a run.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of values.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One value, KEY=VALUE.")] = None,
    preset: Annotated[str | None, typer.Option(help="lab or paper.")] = None,
) -> None:
    """What exists, what would run, and where each value comes from."""
    from phosphene.errors import ConfigError, did_you_mean

    if what == "recipes":
        from phosphene import flow

        typer.echo(flow.show_recipes())
    elif what == "data":
        data_list()
    elif what == "config":
        from phosphene import flow

        if recipe is None:
            raise ConfigError(
                "`phosphene show config` needs a recipe or the folder of a run, such as: show config linear"
            )
        command: dict[str, Any] = {"preset": preset} if preset else {}
        typer.echo(flow.show_config(recipe, _layers(command, config, set_)))
    else:
        raise ConfigError(f"cannot show '{what}'. {did_you_mean(what, ['recipes', 'config', 'data'])}")


# -- helpers -----------------------------------------------------------------------------------------------------------


def _layers(command: dict[str, Any], config: Path | None, assignments: list[str] | None) -> list[tuple[str, Any]]:
    from phosphene.run.atomic import checked_path
    from phosphene.run.config import parse_assignments, read_yaml

    layers: list[tuple[str, Any]] = []
    if config is not None:
        layers.append((str(config), read_yaml(checked_path(config))))
    layers.append(("command line", command))
    layers.append(("--set", parse_assignments(assignments or [])))
    return layers


def _command_layer(
    data: str, root: Path | None, split: str | None, preset: str | None, seed: int | None, option: list[str] | None
) -> dict[str, Any]:
    from phosphene.data.registry import split_spec

    name, subject = split_spec(data)
    values: dict[str, Any] = {"data.name": name}
    given = {"data.subject": subject, "data.root": _text(root), "split": split, "preset": preset, "seed": seed}
    values.update({k: v for k, v in given.items() if v is not None})
    if option:
        values["data.options"] = _options(option)
    return values


def _options(option: list[str] | None) -> dict[str, Any]:
    from phosphene.run.config import parse_assignments

    return parse_assignments(option or [])


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _only_test(split: str) -> None:
    if split != "test":
        from phosphene.errors import ConfigError

        raise ConfigError(f"--split takes 'test' here, the side that was held out; got '{split}'.")


def _progress(quiet: bool) -> Any:
    from phosphene.run.progress import Progress

    return Progress(quiet=quiet)


def _terminated(*_: Any) -> None:
    raise SystemExit(143)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command ``phosphene``."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or bool(os.environ.get("PHOSPHENE_DEBUG"))
    arguments = ["--debug", *[a for a in arguments if a != "--debug"]] if debug else arguments
    signal.signal(signal.SIGTERM, _terminated)
    warnings.showwarning = _show_warning
    try:
        status = app(args=arguments, prog_name="phosphene", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except TyperException as error:
        error.show()
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("\ninterrupted; run the same command again to go on.\n")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        from phosphene.errors import PhospheneError

        if debug:
            raise
        if isinstance(error, PhospheneError):
            sys.stderr.write(f"phosphene: {error}\n")
            sys.exit(error.exit_status)
        sys.stderr.write(
            f"phosphene: a defect, sorry: {type(error).__name__}: {error}. Run again with --debug and report what it shows.\n"
        )
        sys.exit(1)


def _show_warning(message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    from phosphene.errors import PhospheneWarning

    if issubclass(category, PhospheneWarning):
        sys.stderr.write(f"warning: {message}\n")


if __name__ == "__main__":
    main()
