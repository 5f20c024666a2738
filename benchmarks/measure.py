"""How anything here is timed: a case is a function of a benchmark, run in a process of its own and on given threads.

Rivals take turns. Figures are CPU seconds and wall seconds of the work alone, the process's largest resident memory,
and by how much the work made it grow. A case that does a part of the work says which; what it took is then scaled.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
PEERS = "PHOSPHENE_BENCH_PEERS"
"""Environment variable: a folder of peers that are not installed here, made by ``--peers``."""
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
HOW = {
    "himalaya": "--peers installs it",
    "fracridge": "--peers installs it",
    "glmsingle": "git clone https://github.com/cvnlab/GLMsingle, and name it: GLMSINGLE=FOLDER; --peers for what it needs",
}


class Missing(Exception):
    """A peer that is not on this machine; the text says how to get it."""


class Clock:
    """Sums what goes on inside of ``with``: CPU and wall seconds, and the growth of resident memory at its highest."""

    def __init__(self) -> None:
        self.cpu = self.wall = self.extra = 0.0

    def __enter__(self) -> Self:
        self._held = _forget_peak()
        self._start = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu += time.process_time() - self._start[0]
        self.wall += time.perf_counter() - self._start[1]
        self.extra = max(self.extra, peak_memory() - self._held)

    def figures(self, **more: Any) -> dict[str, Any]:
        """Of one case, with what else it has to say: ``part`` of the work that was done, ``note`` ..."""
        return {"cpu_s": self.cpu, "wall_s": self.wall, "extra_mb": self.extra / 1e6, **more}


def timed(call: Callable, *inputs: Any, at_least: float = 0.0) -> tuple[Clock, Any]:
    """Time one call, or as many as take `at_least` CPU seconds after one to warm up; the clock shows one call's share."""
    if at_least:
        call(*inputs)
    clock, n = Clock(), 0
    while not n or clock.cpu < at_least:
        result = None  # not two results at once
        with clock:
            result = call(*inputs)
        n += 1
    clock.cpu, clock.wall = clock.cpu / n, clock.wall / n
    return clock, result


def need(module: str) -> Any:
    """A peer's module. Raises Missing where it is not here."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise Missing(f"{package} is not here ({error}): {HOW.get(package, 'install it')}") from error


# -- memory ------------------------------------------------------------------------------------------------------------

_before = 0
"""Largest resident memory before the peak was last forgotten."""


def _now(name: str) -> int | None:
    try:  # ru_maxrss would begin with the peak of the process that started this one
        return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])
    except OSError:
        return None


def peak_memory() -> int:
    """Largest resident memory since the peak was forgotten, in bytes, maps of files included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _now("VmHWM") or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> int:
    """Begin the peak anew where the system allows it. Returns what is held now."""
    global _before
    _before = max(_before, peak_memory())
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _before
    return _now("VmRSS") or _before


# -- processes ---------------------------------------------------------------------------------------------------------


def in_child(module: str, name: str, folder: Path, values: Mapping[str, Any], threads: int = 1) -> Any:
    """What function `name` of a benchmark (one of its CASES, or its own) returns, called in a process of its own.

    Parameters
    ----------
    module : such as ``benchmarks.ridge``
    name : of the case, or ``prepare`` or ``compare``
    folder : scratch, shared by all cases of one step
    values : keywords of the call, plain

    Returns
    -------
    its figures, with ``memory_mb``; None where it returned none

    Raises
    ------
    Missing
        It needs a peer that is not here.
    SystemExit
        It failed; the text is what it wrote.
    """
    command = [sys.executable, "-m", "benchmarks.measure", module, name, str(folder), json.dumps(dict(values))]
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module}: {name} failed with {dict(values)}:\n{done.stderr[-4000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "missing" in answer:
        raise Missing(answer["missing"])
    return answer["figures"]


def in_turn(
    module: str, cases: tuple[str, ...], folder: Path, values: Mapping[str, Any], rounds: int, threads: int = 1
) -> dict[str, list[dict] | str]:
    """Figures of every case, round by round in turns; of one that is missing, how to get it."""
    found: dict[str, list[dict] | str] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            runs = found[case]
            if isinstance(runs, list):
                try:
                    runs.append(in_child(module, case, folder, values, threads))
                except Missing as error:
                    found[case] = str(error)
    return found


def summary(runs: list[dict]) -> dict[str, Any]:
    """Medians of the seconds, largest of the memory; scaled to the whole where a part was done."""
    part = runs[0].get("part", 1.0)
    cpu = [run["cpu_s"] / part for run in runs]
    shares = [run["share"] for run in runs if "share" in run]
    return {
        "part": part,
        "rounds": len(runs),
        "cpu_s": statistics.median(cpu),
        "cpu_min": min(cpu),
        "cpu_max": max(cpu),
        "wall_s": statistics.median(run["wall_s"] / part for run in runs),
        "memory_mb": max(run["memory_mb"] for run in runs),
        "extra_mb": max(run["extra_mb"] for run in runs),
        "share": statistics.median(shares) if shares else None,
        "note": runs[0].get("note", ""),
    }


def product_rate(dtype: str = "float32", size: int = 2048) -> float:
    """GFLOP per CPU second of a plain product in numpy, the best of four."""
    import numpy as np

    a, best = np.ones((size, size), dtype), float("inf")
    for _ in range(4):
        clock, _ = timed(np.matmul, a, a)
        best = min(best, clock.cpu)
    return 2 * size**3 / best / 1e9


def rates(folder: Path) -> dict[str, float]:
    return {dtype: product_rate(dtype) for dtype in ("float32", "float64")}


def main(module: str, name: str, folder: str, values: str) -> None:
    warnings.simplefilter("ignore")
    if os.environ.get(PEERS):
        sys.path.append(os.environ[PEERS])  # behind all that is installed here
    home = importlib.import_module(module)
    call = getattr(home, "CASES", {}).get(name) or getattr(home, name)
    try:
        figures = call(Path(folder), **json.loads(values))
    except Missing as error:
        print(json.dumps({"missing": str(error)}))
        return
    if isinstance(figures, dict) and "cpu_s" in figures:
        figures.setdefault("memory_mb", max(_before, peak_memory()) / 1e6)
    print("\n" + json.dumps({"figures": figures}))


if __name__ == "__main__":
    # The module that benchmarks import, not a second one under the name __main__.
    importlib.import_module("benchmarks.measure").main(*sys.argv[1:])
