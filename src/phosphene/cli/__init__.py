"""The command line: verbs only, each a few lines over the Python API.

Status 0 only on success; errors are one paragraph; ``--debug`` shows the traceback.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import warnings
from textwrap import shorten
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from phosphene.cli import betas, data, doctor, flow, score
from phosphene.cli.output import GuardedStream, guard_streams
from phosphene.errors import MachineError, PhospheneError, PhospheneWarning

_SHORT = 100  # characters of a warning that is named again

app = typer.Typer(
    name="phosphene",
    help="Decode seen images from brain activity, and predict brain activity from images.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


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


flow.add_to(app)
app.command("score")(score.score_pictures)
app.command()(betas.betas)
app.command()(doctor.doctor)
app.add_typer(data.app, name="data")


def _terminated(*_: Any) -> None:
    raise SystemExit(143)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command ``phosphene``; ends the process with its status.

    Parameters
    ----------
    arguments : list of str, optional
        words after the command's name; those of the process by default
    """
    if arguments is None:
        arguments = sys.argv[1:]

    # An option of the command as a whole, but people write it where they are: at the end.
    debug = "--debug" in arguments or bool(os.environ.get("PHOSPHENE_DEBUG"))
    if debug:
        arguments = ["--debug", *[a for a in arguments if a != "--debug"]]

    signal.signal(signal.SIGTERM, _terminated)
    told = _Warnings()
    warnings.showwarning = told.show
    warnings.simplefilter("always", PhospheneWarning)  # each is shown once, whatever lines of code it comes from
    streams = sys.stdout, sys.stderr
    out, _ = guard_streams()

    try:
        _run(arguments, out, debug)
    finally:
        told.sum_up()
        sys.stdout, sys.stderr = streams


def _run(arguments: list[str], out: GuardedStream, debug: bool) -> None:
    """Do what is asked, and end the process with its status."""
    try:
        status = app(args=arguments, prog_name="phosphene", standalone_mode=False)
        out.flush()
        if status == 130:  # what became of Ctrl-C
            raise KeyboardInterrupt

        # Whoever reads had enough, such as `head`; anything else is a text that somebody misses.
        if out.error is not None and not isinstance(out.error, BrokenPipeError):
            sys.stderr.write(
                f"phosphene: the work is done, but what it printed could not be written ({out.error.strerror}). Results are "
                "where they belong.\n"
            )
            sys.exit(MachineError.exit_status)

        if isinstance(status, int):
            sys.exit(status)

        sys.exit(0)
    except TyperException as error:
        # What typer raises are errors of the click inside it, which show their usage; the public base class does not say so.
        error.show()  # pyright: ignore[reportAttributeAccessIssue]
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("\ninterrupted; run the same command again to go on.\n")
        sys.exit(130)
    except Exception as error:
        from phosphene.io import memory

        if debug:
            raise

        if memory.is_exhausted(error):
            error = memory.exhausted(f"running {' '.join(arguments[:1])}", error)

        if isinstance(error, PhospheneError):
            sys.stderr.write(f"phosphene: {error}\n")
            sys.exit(error.exit_status)

        sys.stderr.write(
            f"phosphene: a defect, sorry: {type(error).__name__}: {error}. Run again with --debug and report what it shows.\n"
        )

        sys.exit(1)


class _Warnings:
    """Warnings as a command shows them: each once, and at the end how often it came.

    Attributes
    ----------
    told : dict of str to (str, int)
        the text without its numbers to the first text, and how often it came
    """

    def __init__(self) -> None:
        self.told: dict[str, tuple[str, int]] = {}

    def show(self, message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        """Take the place of ``warnings.showwarning``."""
        if not issubclass(category, PhospheneWarning):
            return

        text = str(message)
        key = re.sub(r"[0-9][0-9.,e+-]*", "#", text)
        first, n = self.told.get(key, (text, 0))
        self.told[key] = first, n + 1
        if n == 0:
            sys.stderr.write(f"warning: {text}\n")

    def sum_up(self) -> None:
        """Name those that came again."""
        for text, n in self.told.values():
            if n > 1:
                sys.stderr.write(f"warning: {n} times in all: {shorten(text, _SHORT, placeholder=' ...')}\n")
