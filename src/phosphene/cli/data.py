"""The verbs of data sets: list, info, check, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phosphene.cli.common import DataOptions, Root, options_of, text

app = typer.Typer(
    no_args_is_help=True, help="Data sets: what there is, what is in it, whether it is sound.", rich_markup_mode=None
)


@app.command("list")
def data_list(root: Root = None) -> None:
    """Data sets phosphene can read, and which of them are there."""
    from phosphene.data import describe

    typer.echo(describe.render(describe.listing(text(root))))


@app.command("info")
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

    dataset = registry.open_dataset(name, root=text(root), options=options_of(option))
    best = yardstick.best_linear(name, root=text(root), options=options_of(option))
    typer.echo(describe.render([*describe.info(dataset), *best]))
    if figure is not None:
        from phosphene.data.atlas import write_atlas

        typer.echo(f"\nfigure: {write_atlas(dataset, figure)}")


@app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="Data set NAME or NAME:SUBJECT, or a path.")],
    root: Root = None,
    option: DataOptions = None,
) -> None:
    """Look for everything that would spoil a result; status 4 when something would."""
    from phosphene.data import describe

    findings = describe.check(name, root=text(root), options=options_of(option))
    typer.echo(describe.render_findings(findings))
    if any(f.level == "problem" for f in findings):
        raise typer.Exit(4)


@app.command("import")
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
        dataset = importing.import_dataset(source, out, root=text(root), options=options_of(option), replace=replace)
    elif betas is None or trials is None:
        raise ConfigError("give a data set to copy, or both --betas and --trials; see `phosphene data import --help`.")
    else:
        dataset = importing.import_table(
            betas=betas, trials=trials, out=out, images=images, voxels=voxels, captions=captions, subject=subject,
            key=key, scale=scale, size=None if size is None else (size, size), transposed=transposed, replace=replace,
        )  # fmt: skip
    typer.echo(describe.render(describe.info(dataset)))
    typer.echo(f"\nimported: {out}\nnext: phosphene fit linear --data {out} --split kfold:5 --out RUN")
