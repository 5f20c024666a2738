"""The command ``phosphene doctor``."""

from __future__ import annotations

import typer


def doctor() -> int:
    """Say what is installed, what is broken, and how to mend it.

    Exit status 7 when something is broken.
    """
    from phosphene.data.registry import broken_readers
    from phosphene.errors import MachineError
    from phosphene.io.installation import Remark, examine
    from phosphene.metrics.registry import broken_metrics
    from phosphene.models.bundled import broken_networks
    from phosphene.recipes import broken_recipes

    remarks = examine()
    broken = [*broken_readers(), *broken_recipes(), *broken_metrics(), *broken_networks()]
    remarks += [Remark("problem", "plug-in", sentence) for sentence in broken]
    for remark in remarks:
        typer.echo(str(remark))

    if any(r.level == "problem" for r in remarks):
        return MachineError.exit_status

    return 0
