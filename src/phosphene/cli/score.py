"""The command `score`: pictures that were made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phosphene.cli.common import Quiet, progress_to, shell


def score_pictures(
    seen: Annotated[
        str,
        typer.Argument(metavar="SEEN", help="Folder, .npy, .npz, .pt or .safetensors file of what was seen; or a run."),
    ],
    decoded: Annotated[
        str,
        typer.Argument(
            metavar="DECODED", help="The same of what was decoded, under the same names, or in the same order."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run to write.")],
    train: Annotated[
        str | None, typer.Option("--train", help="Pictures the decoder was trained on, to look for copies.")
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV with the columns stimulus and category.")] = None,
    shuffled: Annotated[
        str | None, typer.Option("--shuffled", help="What the decoder made of responses in random order.")
    ] = None,
    noise: Annotated[str | None, typer.Option("--noise", help="What the decoder made of noise.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="NAME or NAME:SUBJECT the pictures are of: for networks and published numbers."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split tested on, as a reader or a paper calls it.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Responses averaged for each picture.")] = None,
    setting: Annotated[str | None, typer.Option(help="strict, or relax where the decoder saw test responses.")] = None,
    size: Annotated[
        str | None,
        typer.Option(help="SIDE or HEIGHTxWIDTH that all pictures are brought to (default: they must agree)."),
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Of tensors: NHWC or NCHW (default: by their shape).")] = None,
    range_: Annotated[
        str | None,
        typer.Option("--range", help="Of tensors: 0-1, 0-255 or -1-1 (default: 0-255 of bytes, 0-1 of floats)."),
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Score what pairs and leave out the rest, which is counted.")
    ] = False,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="RUN", help="Compare with a scored run; may be given several times."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with status 9 when a check fails; nothing else changes.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Score pictures that were made elsewhere: folders paired by name, or tensors, with several samples where there are."""
    from phosphene import flow
    from phosphene.reporting import run_comparison as comparison

    found = flow.score(
        seen, decoded, train=train, labels=labels, shuffled=shuffled, noise=noise, out=out, data=data, split=split,
        repeats=repeats, setting=setting, size=_size(size), layout=layout, value_range=range_, common=common, seed=seed,
        progress=progress_to(quiet),
    )  # fmt: skip
    typer.echo(repr(found))
    if against:
        typer.echo(f"\n{comparison.text_table(comparison.against(out, against))}")

    others = "".join(f" {shell(run)}" for run in against or [])
    typer.echo(f"\nscores: {out / 'scores.csv'}\nnext: phosphene report {shell(out)}{others}")
    if strict:
        flow.require_checks(out)


def _size(text: str | None) -> int | tuple[int, int] | None:
    """``SIDE`` or ``HEIGHTxWIDTH`` as numbers."""
    from phosphene.errors import ConfigError

    if text is None:
        return None

    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdigit() for side in sides):
        raise ConfigError(f"--size {text} should be SIDE or HEIGHTxWIDTH in pixels, such as 256 or 240x320.")

    if len(sides) == 1:
        return int(sides[0])

    return int(sides[0]), int(sides[1])
