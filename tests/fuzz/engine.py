"""Reading damaged files in child processes, so that a crash, a hang or a flood of memory is counted and survived.

What may come out of a read is the content, or an error of :mod:`phosphene.errors` in one paragraph. Anything else is a
finding: another exception, a signal, more than 10 s of the processor, more than 1 GB of memory, or a call of the kind that
only a pickle with a payload would make.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutate import CANARY, mutated
from tests.fuzz.targets import Target

CPU_S, MEMORY_BYTES, WALL_S = 10, 2**30, 300
_FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
_LONGEST = 3000  # characters of a paragraph


@dataclass
class Counts:
    """What came out of the reads of one reader."""

    reads: int = 0
    refused: int = 0
    accepted: int = 0
    findings: int = 0


@dataclass
class Finding:
    """Something that must not come out of a read, and the first file that made it.

    Parameters
    ----------
    target : reader
    key : what it is: exception and place, or signal
    detail : of the first
    case : seed and number that make the damaged file again
    file : that was damaged
    count : how often
    """

    target: str
    key: str
    detail: str
    case: tuple[int, int]
    file: str
    count: int = 1


@dataclass
class Result:
    """Counts by reader, and findings by reader and key."""

    counts: dict[str, Counts] = field(default_factory=dict)
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)

    def add(self, target: str, outcome: str, key: str, detail: str, case: tuple[int, int], file: str) -> None:
        counts = self.counts.setdefault(target, Counts())
        counts.reads += 1
        setattr(counts, outcome, getattr(counts, outcome) + 1)
        if outcome == "findings":
            known = self.findings.get((target, key))
            if known:
                known.count += 1
            else:
                self.findings[target, key] = Finding(target, key, detail, case, file)


def prepared(target: Target, root: Path) -> Path:
    """The valid files of a reader, made once."""
    folder = root / target.name
    if not folder.exists():
        folder.mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.make(folder)
    return folder


def files_of(target: Target, folder: Path) -> list[Path]:
    """Files that are damaged, in a stable order."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    found = [p for p in found if not target.only or any(part in p.name for part in target.only)]
    return [p for p in found if not any(part in p.name for part in target.never)]


def damage(target: Target, folder: Path, seed: int, number: int) -> tuple[Path | None, bytes]:
    """Which file case `number` damages, and what it becomes. Case 0 damages nothing."""
    files = files_of(target, folder)
    if number == 0:
        return None, b""
    rng = np.random.default_rng([seed, number, zlib.crc32(target.name.encode())])
    kinds: dict[str, list[Path]] = {}
    for file in files:
        kinds.setdefault(f"{file.suffix}/{file.stat().st_size // 50_000}", []).append(file)
    kind = list(kinds.values())[int(rng.integers(len(kinds)))]  # a folder of a thousand pictures has other files too
    file = kind[int(rng.integers(len(kind)))]
    return file, mutated(file.read_bytes(), file.name, rng)


def run(target: Target, root: Path, seed: int, cases: Sequence[int], result: Result) -> None:
    """Read each of these cases in a child; where one dies, the next child goes on after it."""
    folder = prepared(target, root)
    left = list(cases)
    while left:
        left = _batch(target, folder, seed, left, result)


def _batch(target: Target, folder: Path, seed: int, cases: list[int], result: Result) -> list[int]:
    get, put = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(get)
        try:
            _child(target, folder, seed, cases, put)
        except BaseException as error:  # a mistake of the fuzzer's own: told, and raised by the parent
            os.write(
                put,
                (json.dumps({"what": "broken", "why": traceback.format_exc()[-1500:] or str(error)}) + "\n").encode(),
            )
        finally:
            os._exit(0)
    os.close(put)
    started: tuple[int, str] | None = None
    done = 0
    with os.fdopen(get, encoding="utf-8", errors="replace") as lines:
        for message in _messages(lines, child):
            if message["what"] == "broken":
                raise RuntimeError(f"the fuzzer broke on {target.name}: {message['why']}")
            if message["what"] == "start":
                started = (message["case"], message["file"])
            else:
                done += 1
                started = None
                result.add(
                    target.name,
                    message["what"],
                    message["key"],
                    message["detail"],
                    (seed, message["case"]),
                    message["file"],
                )
    _, status = os.waitpid(child, 0)
    if started is not None:
        done += 1
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        name = {signal.SIGPROF: f"more than {CPU_S} s", signal.SIGALRM: f"stood still for {WALL_S} s"}.get(number)
        name = name or (f"killed by {signal.Signals(number).name}" if number else "ended the process")
        result.add(target.name, "findings", name, "", (seed, started[0]), started[1])
    elif not done:
        raise RuntimeError(f"the child for {target.name} died before its first case (status {status})")
    return cases[done:]


def _messages(lines: Any, child: int) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:  # the last line of a child that died
            return


def _child(target: Target, folder: Path, seed: int, cases: list[int], put: int) -> None:
    warnings.simplefilter("ignore")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    called: list[str] = []
    sys.addaudithook(lambda event, args: called.append(f"{event} {str(args)[:200]}") if event in _FORBIDDEN else None)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def tell(**message: Any) -> None:
        os.write(put, (json.dumps(message) + "\n").encode())

    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.chdir(scratch)
    try:
        for number in cases:
            file, data = damage(target, folder, seed, number)
            place = scratch / str(number) / "case"
            _copied(folder, place, target.writes)
            name = ""
            if file is not None:
                name = str(file.relative_to(folder))
                spoiled = place / name
                spoiled.unlink()
                spoiled.write_bytes(data)
            tell(what="start", case=number, file=name)
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            signal.alarm(WALL_S)
            what, key, detail = _outcome(target, place)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            if called or (scratch / CANARY).exists():
                what, key, detail = "findings", "a payload was run", "; ".join(called[:2])
                called.clear()
            if number == 0 and what == "refused":
                what, key = "findings", f"the valid file was refused: {key}"
            tell(what=what, case=number, file=name, key=key, detail=detail[:2000])
            shutil.rmtree(scratch / str(number), ignore_errors=True)
    finally:
        os.chdir("/")
        shutil.rmtree(scratch, ignore_errors=True)


def _copied(folder: Path, place: Path, is_copy: bool) -> None:
    shutil.copytree(folder, place, copy_function=shutil.copy if is_copy else _linked)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy(source, target)


def _outcome(target: Target, place: Path) -> tuple[str, str, str]:
    from phosphene.errors import PhospheneError

    try:
        target.read(place)
    except PhospheneError as error:
        text = str(error)
        if "\n" in text.strip() or not text.strip() or len(text) > _LONGEST:
            return "findings", f"no paragraph: {_place(error)}", text
        return "refused", type(error).__name__, text
    except BaseException as error:
        return (
            "findings",
            f"{type(error).__name__} at {_place(error)}",
            "".join(traceback.format_exception(error))[-2000:],
        )
    return "accepted", "", ""


def _place(error: BaseException) -> str:
    """The innermost line of ours, and the innermost line of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/phosphene/" in f.filename] or frames
    shown = [f"{Path(f.filename).name}:{f.name}:{f.lineno}" for f in (ours[-1], frames[-1]) if f]
    return " < ".join(dict.fromkeys(shown))
