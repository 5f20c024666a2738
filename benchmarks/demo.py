"""The demo from end to end, as a program: a simulated subject, fit, decode, encode, evaluate, analyse, report. No peer.

Its seconds and memory are those of the whole process, imports included. Help is what every command begins with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import Step

TITLE = "the demo, end to end"


def program(*words: str) -> dict:
    """Run phosphene once."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "phosphene", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall, memory = time.perf_counter() - start, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"phosphene {' '.join(words)} ended with status {process.returncode}")
    return {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall, "memory_mb": memory, "extra_mb": memory}


def demo(folder: Path, *more: str) -> dict:
    return program("demo", "--quiet", "--out", str(folder / "run"), *more)


CASES = {
    "ours": lambda folder, **_: demo(folder),
    "ours, --fast": lambda folder, **_: demo(folder, "--fast"),
    "ours, --help": lambda folder, **_: program("--help"),
}
STEPS = [
    Step({}, ("ours, --help",), rounds=3, level=0),
    Step({}, ("ours, --fast",), level=0),
    Step({"trials": 2000, "voxels": 2000}, ("ours",)),
]
