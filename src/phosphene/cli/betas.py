"""The verb that turns BOLD into single-trial betas."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from phosphene.cli.common import Quiet, shell


def betas(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="BIDS study, or one in the older OpenfMRI layout.")],
    subject: Annotated[str, typer.Option("--subject", "-s", help="Such as 01 or sub-01.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to make; the same command after a stop goes on where it was.")
    ],
    kind: Annotated[
        str,
        typer.Option("--type", help="D (default), C or B of GLMsingle, or lss, lsa with one response for all voxels."),
    ] = "D",
    shift: Annotated[
        str,
        typer.Option(
            "--shift", help="auto: move onsets that the design check finds late or early; none: only warn; or seconds."
        ),
    ] = "none",
    memory: Annotated[str, typer.Option("--memory", help="For working copies, such as 2GB or 500MB.")] = "2GB",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Runs and blocks of voxels done at once (default: all cores)."),
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Image above 0 inside (default: the study's brain mask).")] = None,
    task: Annotated[
        str | None, typer.Option(help="Of a study with several tasks; NAME,NAME where they belong to one experiment.")
    ] = None,
    session: Annotated[
        list[str] | None, typer.Option(help="Only this session; may be given several times (default: all).")
    ] = None,
    stimulus: Annotated[
        str | None,
        typer.Option(
            "--stimulus",
            help="Column of the events that says what was shown (default: stimulus, stim_file or trial_type).",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option("--rows", help="Rows of the events that are trials, such as \"event_type == 'stimulus'\"."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", help="Seconds that every trial lasts, in place of the events'.")
    ] = None,
    tr: Annotated[
        float | None, typer.Option("--tr", help="Seconds between volumes, in place of what JSON and images say.")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Of a derivative: the study with the events (default: above it, or beside it)."),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="File names of the images, where a run has several: 'bold_1slice.nii.gz'.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures shown (default: 'stimuli' of the study).")
    ] = None,
    hrf: Annotated[
        Path | None,
        typer.Option(
            "--hrf",
            help="Table of responses to choose from, a column each, such as GLMsingle's (default: our own twenty).",
        ),
    ] = None,
    hrf_step: Annotated[
        float | None, typer.Option("--hrf-step", help="Seconds between the rows of that table (default: 0.1).")
    ] = None,
    confounds: Annotated[bool, typer.Option("--confounds", help="Project motion parameters out.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="One other setting, such as max_components=5; may come several times."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an older data set in that folder.")] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Read files that links in the folder have outside it.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Single-trial betas of BOLD runs, as a folder that fits any recipe, with a report of what was found."""
    import os

    from phosphene.betas import BetaOptions, betas_from_folder
    from phosphene.errors import ConfigError, did_you_mean
    from phosphene.io.config import parse_assignments, validate
    from phosphene.reporting.betas_page import betas_report

    kinds = ("B", "C", "D", "lss", "lsa")
    if kind.lower() not in {k.lower() for k in kinds}:
        raise ConfigError(f"--type '{kind}' is no kind of betas. {did_you_mean(kind, kinds)}")

    # "auto" is a choice of the folder's reader, seconds are an option of the betas.
    if shift == "auto":
        shift_by: Literal["auto", "none"] = "auto"
        shift_s = 0.0
    elif shift == "none":
        shift_by = "none"
        shift_s = 0.0
    else:
        shift_by = "none"
        shift_s = _seconds(shift)

    values: dict[str, Any] = {
        "kind": kind.lower(),
        "memory_gb": gigabytes(memory),
        "onset_shift_s": shift_s,
        "confounds": confounds,
    }

    if hrf is not None:
        values["hrf_table"] = str(hrf)

    if hrf_step is not None:
        values["hrf_step_s"] = hrf_step

    options = validate(BetaOptions, values | parse_assignments(set_ or []), "command line")
    result = betas_from_folder(
        folder, subject, out, options, _progress_line(quiet), mask=mask, task=task, sessions=session or None,
        pattern=pattern, stimulus=stimulus, rows=rows, duration_s=duration, tr_s=tr, study=study, images=images,
        shift=shift_by, workers=workers or os.cpu_count() or 1, replace=replace,
        follow_links=follow_links,
    )  # fmt: skip

    if result.result is None:
        typer.echo(
            f"{shell(out)} was there already, made of the same files with the same options; --replace makes it anew"
        )

    page = betas_report(result.folder, result.trials.subject)
    typer.echo(f"betas: {result.trials!r}")
    typer.echo(f"report: {page}")
    typer.echo(f"next: phosphene fit linear --data {shell(out)} --split kfold:5 --out RUN")


def gigabytes(text: str) -> float:
    """An amount of memory as gigabytes.

    Parameters
    ----------
    text : str
        a number with a unit, or gigabytes without one; binary units (GiB) are taken for decimal ones

    Returns
    -------
    float
        gigabytes, above 0

    Raises
    ------
    ConfigError
        For anything else.

    Examples
    --------
    >>> gigabytes("500MB"), gigabytes("2GB"), gigabytes("1.5")
    (0.5, 2.0, 1.5)
    """
    import re

    from phosphene.errors import ConfigError

    amount = re.fullmatch(r"\s*([0-9.]+)\s*(k|M|G|T)?i?B?\s*", text, re.IGNORECASE)
    value = 0.0
    unit = "g"

    if amount is not None:
        unit = (amount[2] or "g").lower()
        with suppress(ValueError):  # "1.2.3" is made of digits and dots, and no number
            value = float(amount[1])

    if value <= 0:
        raise ConfigError(f"--memory takes an amount such as 2GB or 500MB; got '{text}'.")

    return value * {"k": 1e-6, "m": 1e-3, "g": 1.0, "t": 1e3}[unit]


def _seconds(text: str) -> float:
    from phosphene.errors import ConfigError

    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--shift takes auto, none, or seconds to add to every onset; got '{text}'.") from None


def _progress_line(quiet: bool) -> Callable[[str, float], None]:
    """A line that is redrawn in a terminal, with the time left; one line a step elsewhere.

    `phosphene.io.progress.Progress` counts items that pass through it; betas report which share of a step is done, from
    wherever they are.
    """
    from phosphene.io.progress import duration

    is_live = sys.stderr.isatty() and not quiet
    started: dict[str, float] = {}

    if is_live:
        clear = "\r\x1b[2K"
    else:
        clear = ""

    def report(step: str, share: float) -> None:
        start = started.setdefault(step, time.perf_counter())
        elapsed = time.perf_counter() - start

        if share >= 1 and not quiet:
            took = ""
            if elapsed > 1:
                took = f" ({duration(elapsed)})"

            sys.stderr.write(f"{clear}{step}{took}\n")
        elif is_live:
            remaining = elapsed / max(share, 1e-6) * (1 - share)
            sys.stderr.write(f"{clear}{step}: {share:.0%}, {duration(remaining)} left")

        sys.stderr.flush()

    return report
