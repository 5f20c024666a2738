"""The command ``phosphene doctor``."""

from __future__ import annotations

import typer


def doctor() -> int:
    """Say what is installed, what is broken, and how to mend it.

    Exit status 7 when something is broken.
    """
    from phosphene.errors import MachineError
    from phosphene.io.installation import examine

    remarks = examine()
    for remark in remarks:
        typer.echo(str(remark))

    if any(r.level == "problem" for r in remarks):
        return MachineError.exit_status

    return 0
