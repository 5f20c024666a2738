"""The verbs of data sets: list, plan, fetch, info, check, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phosphene.cli.common import DataOptions, Quiet, Root, options_of, progress_to, shell, text

app = typer.Typer(
    no_args_is_help=True, help="Data sets: what there is, what is in it, whether it is sound.", rich_markup_mode=None
)


@app.command("list")
def data_list(root: Root = None) -> None:
    """Data sets phosphene can read, and which of them are there."""
    from phosphene.reporting import describe

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
    from phosphene.data import oracle, registry
    from phosphene.reporting import describe

    options = options_of(option)
    dataset = registry.open_dataset(name, root=text(root), options=options)
    best = oracle.best_linear(name, root=text(root), options=options)
    typer.echo(describe.render([*describe.info(dataset), *best]))

    if figure is not None:
        from phosphene.reporting.atlas import write_atlas

        typer.echo(f"\nfigure: {write_atlas(dataset, figure)}")
    else:
        typer.echo("\nPictures, flat maps and noise ceilings on one plate: --figure FILE.png")


Subjects = Annotated[list[str] | None, typer.Option("--subject", help="Only this person's files; may be repeated.")]
Parts = Annotated[list[str] | None, typer.Option("--part", help="Only this part, such as rois; may be repeated.")]
Sessions = Annotated[int | None, typer.Option("--sessions", help="Only the first so many sessions.")]
PlanName = Annotated[str, typer.Argument(help="nsd, god, bold5000, hcp, digits69, miyawaki, or weights; NAME:SUBJECT.")]
PlanRoot = Annotated[
    Path | None,
    typer.Option(
        "--root", help="Folder of the files (default: one of the set's name in PHOSPHENE_DATA; PHOSPHENE_WEIGHTS)."
    ),
]


@app.command("plan")
def data_plan(
    name: PlanName,
    root: PlanRoot = None,
    subject: Subjects = None,
    part: Parts = None,
    sessions: Sessions = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, for other programs to download with.")] = False,
) -> None:
    """What to download, from where, how large, under which terms, and what is there already."""
    from phosphene.data import plan as plans
    from phosphene.data.sections import render

    plan = plans.make(name, root=root, subjects=subject or (), parts=part or (), sessions=sessions)
    if as_csv:
        typer.echo(plans.table(plan), nl=False)  # which ends in a line break of its own
    else:
        typer.echo(render(plans.sections(plan)))


@app.command("fetch")
def data_fetch(
    name: PlanName,
    root: PlanRoot = None,
    subject: Subjects = None,
    part: Parts = None,
    sessions: Sessions = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="I read and accepted the terms that the plan names.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Download what a plan lists, whole and checked; an interrupted download goes on where it stopped."""
    from phosphene.data import fetch as fetching
    from phosphene.data import plan as plans
    from phosphene.errors import NotAvailable

    plan = plans.make(name, root=root, subjects=subject or (), parts=part or (), sessions=sessions)
    report = fetching.fetch(plan, accept_terms=accept_terms, say=progress_to(quiet))
    typer.echo(f"{len(report.fetched)} files fetched, {len(report.there)} were there, in {plan.root}")

    for item in report.by_hand:
        line = f"by hand: {item.path.relative_to(plan.root)} from {item.url}"
        if item.note:
            line += f"; {item.note}"

        typer.echo(line)

    # After the others: what is free is there by now, and the same command goes on from here.
    if report.waiting:
        raise NotAvailable(
            f"{len(report.waiting)} files of {plan.name} are under terms ({plan.about.licence}). Read and accept them: "
            f"{plan.about.terms}; then run the same command with --accept-terms."
        )

    if plan.next:
        typer.echo(f"next: {plan.next}")


@app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="Data set NAME or NAME:SUBJECT, a path, or weights.")],
    root: Root = None,
    option: DataOptions = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Read every beta, picture and fetched byte, which may take long.")
    ] = False,
) -> None:
    """Look for everything that would spoil a result; status 4 when something would."""
    from phosphene.reporting import describe

    sections: list[describe.Section] = []
    if name == "weights":
        from phosphene.data import plan as plans
        from phosphene.data.plan_check import check_plan

        findings = check_plan(plans.make(name, root=root), thorough=thorough)
    else:
        findings, sections = describe.examine(name, root=text(root), options=options_of(option), thorough=thorough)

    typer.echo(describe.render_findings(findings))
    if sections:
        typer.echo(f"\n{describe.render(sections)}")

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
    mask_from: Annotated[
        str | None,
        typer.Option("--mask-from", help="What the voxels were chosen by, such as 'retinotopy'; kept with the data."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an older data set in that folder.")] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Read files that links in the folder have outside it.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Copy a data set, or your own files, into a folder that opens at once and fits any recipe."""
    from phosphene.data import importing
    from phosphene.errors import ConfigError
    from phosphene.reporting import describe

    if source is not None and (betas or trials):
        raise ConfigError(f"give either a data set ('{source}') or your own --betas and --trials, not both.")

    if source is not None:
        reader_options = options_of(option)
        if follow_links:
            reader_options["follow_links"] = True

        dataset = importing.import_dataset(
            source, out, root=text(root), options=reader_options, replace=replace, say=progress_to(quiet)
        )
    elif betas is None or trials is None:
        raise ConfigError("give a data set to copy, or both --betas and --trials; see `phosphene data import --help`.")
    else:
        sides = None
        if size is not None:
            sides = (size, size)

        dataset = importing.import_table(
            betas=betas, trials=trials, out=out, images=images, voxels=voxels, captions=captions, subject=subject,
            key=key, scale=scale, size=sides, transposed=transposed, replace=replace, follow_links=follow_links,
            mask_from=mask_from,
        )  # fmt: skip

    typer.echo(describe.render(describe.info(dataset)))
    if dataset.stimuli.images is None:
        if source:
            more = "."
        else:
            more = "; add them with --images FOLDER."

        typer.echo(f"\nimported: {out}\nIt holds no pictures, so nothing can be decoded{more}")
        return

    typer.echo(f"\nimported: {out}\nnext: phosphene fit linear --data {shell(out)} --split kfold:5 --out RUN")
