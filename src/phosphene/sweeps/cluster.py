"""A sweep as an array of cluster jobs, one per run, through submitit. A job that is preempted is queued again.

Every job is one call of :func:`phosphene.sweeps.execution.one`, so that a run made on the cluster equals one made here; finished
stages are shared through the sweep's folder, which all nodes must see.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phosphene.errors import ConfigError, MachineError, NotAvailable
from phosphene.io.claims import BEAT, LEASE
from phosphene.io.progress import Progress
from phosphene.sweeps.execution import one
from phosphene.sweeps.sweep_folder import Sweep


class Job:
    """What one element of the array does.

    Parameters
    ----------
    whole : Sweep
        the sweep, which travels to the node with the job
    """

    def __init__(self, whole: Sweep) -> None:
        self.whole = whole

    def __call__(self, name: str) -> bool:
        """Make one run.

        Parameters
        ----------
        name : str
            of the run

        Returns
        -------
        bool
            True

        Raises
        ------
        MachineError
            When the run was not made, so that the scheduler calls the element failed: with the reason, or because another
            process holds the run and still lives.
        """
        is_made = one(self.whole, name, Progress())
        if not is_made and not self.whole.failure(name):
            time.sleep(
                LEASE + BEAT
            )  # held elsewhere: by then a lost machine's claim is free, and a living one was touched
            is_made = one(self.whole, name, Progress())

        if not is_made:
            reason = self.whole.failure(name) or "another process, which lives, is making it"
            raise MachineError(f"run '{name}' of {self.whole.out} was not made by this job: {reason}")

        return True

    def checkpoint(self, name: str) -> Any:
        """Called by submitit when the job is about to be preempted: the same again, which goes on where it stopped."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, name)


def submit(
    whole: Sweep,
    names: Sequence[str],
    options: Mapping[str, Any],
    *,
    cluster: str = "slurm",
    at_once: int | None = None,
) -> list[Any]:
    """Queue the runs.

    Parameters
    ----------
    whole : Sweep
        the sweep
    names : sequence of str
        of its runs
    options : mapping of str to Any
        of submitit's executor, such as ``{"timeout_min": 240, "slurm_partition": "gpu", "gpus_per_node": 1}``
    cluster : str, default "slurm"
        ``slurm``, or ``local``: the same through processes of this machine
    at_once : int, optional
        jobs that may run at the same time

    Returns
    -------
    list
        list of submitit jobs; their scripts and logs lie in OUT/jobs

    Raises
    ------
    ConfigError
        For an option with a line break, or a name that is none.
    NotAvailable
        When submitit is not installed, or there is no SLURM.
    """
    try:
        import submitit
    except ImportError as error:
        raise NotAvailable(
            "cluster jobs need submitit, which is not installed: pip install 'phosphene[slurm]'. Without it, "
            "--workers N uses this machine."
        ) from error

    _refuse_lines({"the sweep's folder": str(whole.out), **options})
    folder = whole.out / "jobs"
    folder.mkdir(parents=True, exist_ok=True)

    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
    except RuntimeError as error:
        raise NotAvailable(f"no jobs can be submitted from here ({error}). Log in where `sbatch` is found.") from error

    if at_once and cluster == "slurm":
        limits = {"slurm_array_parallelism": at_once}
    else:
        limits = {}

    executor.update_parameters(name=_job_name(whole.out), **limits, **options)
    return executor.map_array(Job(whole), list(names))


def _refuse_lines(options: Mapping[str, Any]) -> None:
    """submitit quotes every value of a job script; a line break would still end the comment that a value stands in."""
    for key, value in options.items():
        if isinstance(value, (list, tuple)):
            texts = [key, *value]
        else:
            texts = [key, value]

        for text in texts:
            if any(ord(c) < 32 or ord(c) == 127 for c in str(text)):
                raise ConfigError(
                    f"{key} of a cluster job holds a line break or another control character ({str(text)[:80]!r}), which would "
                    "end its line in the job script and begin a command. Write it on one line."
                )

        if not re.fullmatch(r"[a-z][a-z0-9_]*", key) and key != "the sweep's folder":
            raise ConfigError(
                f"'{key}' is no option of a cluster job; options look like timeout_min or slurm_partition."
            )


def _job_name(out: Path) -> str:
    """The folder's name, as far as every queue takes it: letters, digits, hyphens, underscores."""
    letters = []
    for c in out.resolve().name:
        if c.isalnum() or c in "-_":
            letters.append(c)
        else:
            letters.append("-")

    return "phosphene-" + "".join(letters)[:40]
