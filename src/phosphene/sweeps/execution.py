"""Run what a grid asks for: in this process, in several, or as an array of cluster jobs. Finished runs are left alone.

::

    OUT/
      grid.yaml            the sweep file as it was read
      runs/NAME/           one run each, as `phosphene fit`, `decode`, `encode`, `evaluate` and `analyse` make it
      stages/              finished stages, shared by all runs that need the same ones
      done/NAME.json       what a finished run took; failed/NAME.txt says why one is missing
      points.csv           one row per point and score;  summary.csv  over repetitions
      figure.png;  sweep.html    one page over all of it
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Sequence
from fnmatch import fnmatchcase
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from phosphene import flow, recipes
from phosphene._version import __version__
from phosphene.analysis import analysis
from phosphene.errors import ConfigError, MachineError, PhospheneError, did_you_mean
from phosphene.io import atomic
from phosphene.io.claims import claimed
from phosphene.io.inside import held_inside, refuse_links
from phosphene.io.progress import Progress, duration
from phosphene.sweeps.grid import Planned, SweepGrid
from phosphene.sweeps.results import write_results
from phosphene.sweeps.sweep_folder import Layers, Sweep
from phosphene.types import digest_of
from phosphene.types.identity import few

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess


def sweep(
    file: str | Path,
    out: str | Path,
    *,
    layers: Layers = (),
    workers: int = 1,
    only: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Make every run of a sweep that is not there yet, and the tables over all of them.

    Parameters
    ----------
    file : str or Path
        the sweep file
    out : str or Path
        folder of all runs; the same call goes on with it
    layers : Layers, default ()
        (origin, values) over the base of the file
    workers : int, default 1
        processes at a time on this machine, which share its cores
    only : sequence of str, optional
        names of runs, where not all are wanted; ``*`` stands for anything
    progress : Progress, optional
        where progress is shown

    Returns
    -------
    Sweep

    Raises
    ------
    ConfigError
        When `only` names no run of the sweep.
    MachineError
        At the end, when some runs failed; all others are there.
    """
    progress = progress or Progress(quiet=True)
    whole = prepare(file, out, layers)
    names = chosen(whole.grid, only)
    missing = [n for n in names if not whole.is_done(n)]
    progress.say(f"{len(names)} runs, {len(names) - len(missing)} of them there already")
    start = time.perf_counter()

    if workers <= 1 or len(missing) <= 1:
        for name in missing:
            one(whole, name, progress)
    else:
        _in_processes(whole, missing, min(workers, len(missing)), progress)

    write_results(whole)
    failed: dict[str, list[str]] = {}

    for name in names:
        if not whole.is_done(name):
            failed.setdefault(whole.failure(name) or "another process is making it", []).append(name)

    if failed:
        n = sum(map(len, failed.values()))
        reasons = " ".join(f"{few(which, 3)}: {why.rstrip('.')}." for why, which in failed.items())
        raise MachineError(f"{n} of {len(names)} runs of {whole.file} are missing. {reasons}")

    if missing:
        progress.say(f"made {len(missing)} runs in {duration(time.perf_counter() - start)}")

    return whole


def prepare(file: str | Path, out: str | Path, layers: Layers = ()) -> Sweep:
    """The sweep with every run resolved and its file copied; nothing is fitted."""
    whole = Sweep(atomic.checked_path(file).resolve(), atomic.checked_path(out), tuple(layers))
    _ = whole.grid
    refuse_links(whole.out)
    atomic.write_text(whole.out / "grid.yaml", whole.file.read_text(encoding="utf-8"))
    return whole


def chosen(grid: SweepGrid, only: Sequence[str] | None) -> list[str]:
    """Names of the runs meant: all, or those that a name or pattern of `only` fits. Raises ConfigError for one that fits none."""
    if not only:
        return list(grid.runs)

    for pattern in only:
        if not any(fnmatchcase(n, pattern) for n in grid.runs):
            raise ConfigError(
                f"no run of this sweep is called '{pattern}'. {did_you_mean(pattern, list(grid.runs))} A * stands for "
                "anything; --dry-run lists the names."
            )

    return [n for n in grid.runs if any(fnmatchcase(n, pattern) for pattern in only)]


def one(whole: Sweep, name: str, progress: Progress | None = None) -> bool:
    """Make one run; False where it failed (its reason is filed) or another process is at it."""
    progress = progress or Progress(quiet=True)
    grid = whole.grid
    (whole.out / "claims").mkdir(parents=True, exist_ok=True)

    with held_inside(whole.out), claimed(whole.out / "claims" / name) as mine:
        if not mine:
            progress.say(f"{name}: another process is making it")
            return False

        if whole.is_done(name):
            return True

        start = time.perf_counter()
        progress.say(f"-- {name}")
        failed = whole.out / "failed" / f"{name}.txt"

        try:
            _make(whole, grid.runs[name], grid, progress)
        except (PhospheneError, ArithmeticError, RuntimeError, ValueError, OSError, MemoryError) as error:
            atomic.write_text(failed, traceback.format_exc())
            progress.say(f"{name} failed: {error}")
            return False

        failed.unlink(missing_ok=True)
        record = {"phosphene": __version__, "seconds": round(time.perf_counter() - start, 1)}
        atomic.write_text(whole.out / "done" / f"{name}.json", json.dumps(record) + "\n")
        return True


def _make(whole: Sweep, planned: Planned, grid: SweepGrid, progress: Progress) -> None:
    kind = planned.config.recipe.kind
    opened = flow.fit(
        planned.config,
        whole.folder(planned.name),
        origins=planned.origins,
        progress=progress,
        pool=whole.out / "stages",
    )

    if grid.file.controls is None:
        controls = flow.CONTROLS
    else:
        controls = tuple(grid.file.controls)

    flow.decode(opened, controls=controls, progress=progress)
    if recipes.recipe(kind).can_encode(planned.config.recipe):
        flow.encode(opened, progress=progress)

    flow.evaluate(
        opened,
        progress=progress,
        sweep=digest_of(str(whole.out.resolve())),
        n_planned=whole.planned_looks[planned.name],
    )
    for name in grid.file.analyses:
        if analysis(name).applies_to(kind):
            flow.analyse(opened, name, progress=progress)


def _in_processes(whole: Sweep, names: Sequence[str], workers: int, progress: Progress) -> None:
    """Make runs in processes of their own, some at a time; a process that is killed is noted, and its run tried once more."""
    context = multiprocessing.get_context("spawn")  # a forked process inherits the threads of BLAS in an unknown state
    threads = max(1, (os.cpu_count() or 1) // workers)
    waiting = deque(names)
    retried: set[str] = set()
    running: dict[int, tuple[str, SpawnProcess]] = {}  # by what tells that a process has ended
    ended = 0

    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.popleft()
                process = context.Process(target=_quietly, args=(whole, name, threads))
                process.start()
                running[process.sentinel] = (name, process)

            for sentinel in wait(list(running)):
                assert isinstance(sentinel, int)
                name, process = running.pop(sentinel)
                process.join()

                if process.exitcode == 0:
                    ended += 1
                    progress.say(f"{name}: ended, {ended} of {len(names)}")
                    continue

                lost = _how_it_ended(process.exitcode)
                if name in retried:
                    ended += 1
                    atomic.write_text(whole.out / "failed" / f"{name}.txt", f"the process that made it {lost}, twice\n")
                    progress.say(f"{name}: its process {lost} again; it is left out")
                else:
                    retried.add(name)
                    waiting.append(name)
                    progress.say(f"{name}: its process {lost}; it is tried once more")
    finally:
        for _, process in running.values():  # Ctrl-C, or a defect here: nothing is left behind at work
            process.terminate()

        for _, process in running.values():
            process.join()


def _how_it_ended(status: int | None) -> str:
    """A verb for a status that is not 0."""
    if status == -signal.SIGKILL:
        return "was killed (signal 9, as the system does when memory runs out)"
    if status is not None and status < 0:
        return f"was ended by signal {-status}"

    return f"ended with status {status}"


def _share_cores(threads: int) -> None:
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    threadpool_limits(threads)


def _quietly(whole: Sweep, name: str, threads: int) -> None:
    _share_cores(threads)
    one(whole, name)
