"""All benchmarks beside their peers: python -m benchmarks

    python -m benchmarks                  all that takes no special disk or patience, on one thread
    python -m benchmarks --quick          smaller sizes, some minutes
    python -m benchmarks ridge nway       these alone; rows of others stay in the table
    python -m benchmarks ridge --full     full size too: 13 GB of disk, and time
    python -m benchmarks --peers          first install himalaya, fracridge and tqdm below OUT, for these runs alone
    python -m benchmarks known_answers    what follows is for that script; it is only run so
    python -m benchmarks faults           every verb, stopped at every operation on files; it is only run so

Writes ``benchmarks.csv`` (every row, as it is measured), ``table.md`` (every bar, and how each grows) and ``figure.png``.
GLMsingle and MinD-Vis are checkouts: name them by GLMSINGLE=FOLDER and MIND_VIS=FOLDER. What is not here is left
unmeasured, and the table says how to get it. Leave the machine alone meanwhile, as far as it is yours.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import PEERS, ROOT, Missing, in_child, in_turn, summary
from benchmarks.record import Record, Step

BENCHMARKS = (
    "nway", "two_way", "ssim", "ridge", "betas", "mae_step", "store", "imports", "reading", "checks", "demo",
)  # fmt: skip
PACKAGES = ("himalaya==0.4.11", "fracridge==2.0", "tqdm")


def machine(folder: Path) -> dict[str, Any]:
    """What this was measured on."""
    import numpy

    rates = in_child("benchmarks.measure", "rates", folder, {})
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load at the start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        **{f"GFLOP per CPU second, {dtype}": round(rate) for dtype, rate in rates.items()},
    }


def measure(name: str, record: Record, level: int) -> None:
    """All steps of one benchmark up to a level, row by row into the record."""
    module = importlib.import_module(f"benchmarks.{name}")
    print(f"\n== {name}: {module.TITLE}", flush=True)
    for step in module.STEPS:
        if step.level <= level:
            with tempfile.TemporaryDirectory(prefix=f"{name}_") as folder:
                take(name, module, step, Path(folder), record)
            record.fit()
            record.write()


def take(name: str, module: Any, step: Step, folder: Path, record: Record) -> None:
    """One step."""
    where, values = module.__name__, {**step.sizes, **step.options}
    if hasattr(module, "prepare"):
        in_child(where, "prepare", folder, values)
    found = in_turn(where, step.cases, folder, values, step.rounds, step.threads)
    base, more = None, {}
    if hasattr(module, "compare") and all(isinstance(found[case], list) for case in step.cases[:2]):
        try:
            more = in_child(where, "compare", folder, values)
        except Missing as error:
            more = {"note": str(error)}
    for case in step.cases:
        row: dict[str, Any] = {"benchmark": name, "who": case, "task": step.task, "along": step.along} | dict(
            step.sizes
        )
        row |= {"threads": step.threads, "load": round(os.getloadavg()[0], 1)}
        runs = found[case]
        if isinstance(runs, str):
            record.add(**row, note=f"not measured: {runs}")
            print(f"   {case}: not measured: {runs}", flush=True)
            continue
        row |= summary(runs)
        base = base or row["cpu_s"]
        row["ratio"] = row["cpu_s"] / base
        if case == step.cases[0] and more:
            row["difference"] = more.get("difference")
            row["note"] = "; ".join(text for text in (row["note"], more.get("note", "")) if text)
        record.add(**row)
        size = ", ".join(f"{value:,} {key}" for key, value in step.sizes.items())
        print(
            f"   {step.task:<10.10} {size:<48} {case:<24} {row['cpu_s']:10.4g} CPU s {row['wall_s']:10.4g} wall "
            f"{row['memory_mb']:8,.0f} MB   x {row['ratio']:,.3g}",
            flush=True,
        )


def peers(out: Path) -> None:
    """Install what a rival needs beside the project, without what it depends on."""
    folder = (out / "peers").resolve()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
    subprocess.run([*command, *PACKAGES], check=True)


def finish(record: Record, about: dict[str, Any], out: Path) -> None:
    from benchmarks import bars, figure, page

    record.fit()
    judged = bars.judge(record)
    record.write()
    page.write(record, judged, about, out / "table.md")
    figure.draw(record, out / "figure.png")
    print(f"\n{page.bars(judged)}\n{out / 'benchmarks.csv'}, {out / 'table.md'}, {out / 'figure.png'}")


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="smaller sizes only")
    sizes.add_argument("--full", action="store_true", help="the largest sizes too")
    parser.add_argument("--peers", action="store_true", help="install the peers that are on PyPI below --out")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args(words)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    if options.peers:
        peers(options.out)
    if (options.out / "peers").is_dir():
        os.environ[PEERS] = str((options.out / "peers").resolve())
    about = machine(options.out)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    (options.out / "machine.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    record = Record(options.out, about["GFLOP per CPU second, float32"])
    failed = []
    for name in options.names or BENCHMARKS:
        try:
            measure(name, record, 0 if options.quick else 2 if options.full else 1)
        except SystemExit as error:  # the others are still worth measuring
            print(error, file=sys.stderr, flush=True)
            failed.append(name)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\nall of this took {used.ru_utime + used.ru_stime:.0f} CPU seconds, {time.perf_counter() - start:.0f} s")
    finish(record, about, options.out)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    if sys.argv[1:2] in (["known_answers"], ["faults"]):
        command = [sys.executable, "-m", f"benchmarks.{sys.argv[1]}", *sys.argv[2:]]
        sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)
    main(sys.argv[1:])
