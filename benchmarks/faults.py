"""Every verb, stopped at every operation on files: python -m benchmarks faults

    python -m benchmarks faults                        every verb, every operation, four kinds of fault (minutes)
    python -m benchmarks faults fit decode             these verbs alone
    python -m benchmarks faults --kinds kill           of kill, full, fail, interrupt, terminate
    python -m benchmarks faults --every 7              every seventh operation only

A small library (faults.c, compiled here, loaded by LD_PRELOAD) counts the calls of a process that change what is on the disk
or make it last (open for writing, write, rename, link, unlink, mkdir, rmdir, truncate, fsync), below one folder. At the k-th
the process is killed (SIGKILL), finds the disk full from there on (ENOSPC), has that one call fail (EIO), or gets SIGINT or
SIGTERM. Then the same command is given again. A run is *lost* when that command fails, and it *differs* when its results are
not those of a run that nothing disturbed. For every k of every verb both must be 0.

Processes are forked from one that has imported everything, so that a fault costs a fraction of a second. States of the disk
that agree in every file under a final name (names starting with ``.partial-`` are never read, and swept by the next command)
are recovered from once.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODES = {"count": 0, "kill": 1, "full": 2, "fail": 3, "interrupt": 4, "terminate": 5}
KINDS = ("kill", "full", "fail", "interrupt", "terminate")
VOLATILE = ("manifest.json", "log.jsonl", "forecast.csv", "seconds.json", "report.html", "analysis.json")
"""Files in which a time, a duration or a path stands; that they are there is compared, and not what they hold."""

TINY = ["--set", "recipe.curve.kind=none", "--set", "recipe.alphas=[1.0, 100.0]"]


@dataclass(frozen=True)
class Verb:
    """A command, and what must have been done before.

    Attributes
    ----------
    name : str
        as it is asked for
    words : sequence of str
        the command; ``{}`` stands for the folder
    after : sequence of str
        verbs before it
    results : str
        folder or file whose contents are compared
    """

    name: str
    words: Sequence[str]
    after: Sequence[str] = ()
    results: str = "run"


VERBS = {
    verb.name: verb
    for verb in (
        Verb("fit", ["fit", "linear", "--data", "{}/pairs.npz", "--out", "{}/run", *TINY]),
        Verb("decode", ["decode", "{}/run", "--control", "shuffled", "--control", "mean"], after=["fit"]),
        Verb("encode", ["encode", "{}/run"], after=["fit"]),
        Verb("evaluate", ["evaluate", "{}/run"], after=["fit", "decode", "encode"]),
        Verb("analyse", ["analyse", "{}/run", "reliability"], after=["fit", "decode"]),
        Verb("report", ["report", "{}/run"], after=["fit", "decode", "encode", "evaluate"]),
        Verb(
            "import",
            ["data", "import", "--betas", "{}/betas.npy", "--trials", "{}/trials.csv", "--images", "{}/pictures",
             "--out", "{}/imported"],
            results="imported",
        ),
        Verb("betas", ["betas", "{}/bids", "--subject", "01", "--type", "b", "--out", "{}/betas"], results="betas"),
        Verb("sweep", ["sweep", "{}/sweep.yaml", "--out", "{}/sweep"], results="sweep"),
    )
}  # fmt: skip


@dataclass
class Outcome:
    """What became of one verb under one kind of fault."""

    verb: str
    kind: str
    operations: int
    tried: int = 0
    recovered: int = 0
    lost: list[tuple[int, str]] = field(default_factory=list)
    differs: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0


def library(folder: Path) -> Path:
    """The library, compiled into a folder.

    Raises
    ------
    SystemExit
        Where there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        raise SystemExit("faults: needs Linux and a C compiler (cc).")

    built = folder / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(HERE / "faults.c"), "-ldl"]
    subprocess.run(command, check=True)
    return built


def make_inputs(folder: Path, verbs: Sequence[str]) -> None:
    """Tiny data for the verbs asked for: pictures of 8 x 8 pixels, 24 trained and 6 tested, 20 voxels."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (30, 64), dtype=np.uint8)
    betas = (pictures / 255.0) @ rng.standard_normal((64, 20)) + 0.3 * rng.standard_normal((30, 20))
    label = np.tile([1, 2], 15)
    np.savez(
        folder / "pairs.npz",
        fmriTrn=betas[:24], fmriTest=betas[24:], stimTrn=pictures[:24], stimTest=pictures[24:],
        labelTrn=label[:24, None], labelTest=label[24:, None],
    )  # fmt: skip

    np.save(folder / "betas.npy", betas[:12].astype(np.float32))
    names = [f"picture-{n}" for n in range(12)]
    (folder / "trials.csv").write_text("stimulus\n" + "\n".join(names) + "\n")
    (folder / "pictures").mkdir()
    for name, picture in zip(names, pictures, strict=False):
        Image.fromarray(picture.reshape(8, 8)).save(folder / "pictures" / f"{name}.png")

    sweep = {
        "base": {"data": {"name": str(folder / "pairs.npz")}, "recipe.curve.kind": "none"},
        "grid": [{"recipe": ["linear"], "recipe.alphas": [[1.0, 100.0]]}],
        "controls": ["shuffled"],
    }
    (folder / "sweep.yaml").write_text(json.dumps(sweep))

    if "betas" in verbs:
        from phosphene.lab import make
        from phosphene.lab.bold_files import write_bids

        study = make("nsd", n_train=20, n_test=5, n_voxels=60)
        write_bids(study, folder / "bids")


def warm() -> None:
    """Import what verbs import, so that the children need not."""
    import matplotlib.figure
    import nibabel
    import sklearn.linear_model
    import torch

    import phosphene.cli.flow
    import phosphene.flow
    import phosphene.lab
    import phosphene.reporting
    import phosphene.sweeps

    torch.set_num_threads(1)
    del matplotlib, nibabel, sklearn, phosphene


def in_fork(work: Callable[[], None], log: Path) -> int:
    """Do something in a forked child; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open(log, "w") as out, redirect_stdout(out), redirect_stderr(out):
                work()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException as error:
            log.write_text(f"{type(error).__name__}: {error}")
            status = 70
        finally:
            os._exit(status)

    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


class Bench:
    """One folder in which verbs are tried.

    Parameters
    ----------
    folder : Path
        of its own; the library watches what lies below ``folder/work``
    verbs : sequence of str
        for which inputs are made
    """

    def __init__(self, folder: Path, verbs: Sequence[str]) -> None:
        self.library = ctypes.CDLL(os.environ["PHOSPHENE_FAULTS"])
        self.work = folder / "work"
        self.saved = folder / "saved"
        self.log = folder / "log.txt"
        self.counted = folder / "counted.txt"
        os.environ["PHOSPHENE_STATE"] = str(folder / "state")

        self.work.mkdir(parents=True)
        make_inputs(self.work, verbs)
        shutil.copytree(self.work, self.saved)
        self.begun = {"": self.saved}

    def before(self, verb: Verb) -> Path:
        """The folder as it is when a verb is given."""
        key = " ".join(verb.after)
        if key not in self.begun:
            self.reset(self.saved)
            for name in verb.after:
                status = self.run(VERBS[name], "count", -1)
                if status:
                    raise SystemExit(f"faults: {name} itself ends with {status}: {self.log.read_text()[-2000:]}")

            self.begun[key] = self.saved.parent / f"begun-{len(self.begun)}"
            shutil.copytree(self.work, self.begun[key], symlinks=True)

        return self.begun[key]

    def reset(self, begun: Path) -> None:
        """Make the folder what it was."""
        shutil.rmtree(self.work)
        shutil.copytree(begun, self.work, symlinks=True)

    def run(self, verb: Verb, kind: str, k: int) -> int:
        """Give a command, with a fault at the k-th operation; its exit status."""
        words = [word.replace("{}", str(self.work)) for word in verb.words]

        def work() -> None:
            from phosphene.cli import main

            self.library.faults_arm(os.fsencode(f"{self.work}/"), MODES[kind], ctypes.c_long(k))
            try:
                main(words)
            finally:
                self.library.faults_arm(b"", 0, ctypes.c_long(-1)) if kind != "count" else None
                if kind == "count":
                    self.counted.write_text(str(self.library.faults_done()))

        return in_fork(work, self.log)

    def try_all(self, verb: Verb, kind: str, every: int, known: dict[str, str]) -> Outcome:
        """A fault of one kind at every operation of a verb."""
        start = time.perf_counter()
        begun = self.before(verb)
        self.reset(begun)
        if self.run(verb, "count", -1):
            raise SystemExit(f"faults: {verb.name} itself fails: {self.log.read_text()[-2000:]}")

        reference = self.results(verb)
        outcome = Outcome(verb.name, kind, int(self.counted.read_text()))

        for k in range(0, outcome.operations, every):
            self.reset(begun)
            self.run(verb, kind, k)
            outcome.tried += 1

            state = self.state()
            if state not in known:
                outcome.recovered += 1
                known[state] = self._recovered(verb, reference)

            if known[state].startswith("lost"):
                outcome.lost.append((k, known[state]))
            elif known[state]:
                outcome.differs.append((k, known[state]))

        outcome.seconds = time.perf_counter() - start
        return outcome

    def _recovered(self, verb: Verb, reference: dict[str, str]) -> str:
        """Give the command again: "" when all is as if nothing had happened, else what is not."""
        status = self.run(verb, "count", -1)
        results = self.results(verb)

        # An import refuses a folder that holds a data set: where all of it is there already, nothing was lost.
        if status and results != reference:
            return f"lost: status {status}: {self.log.read_text()[-300:]}"

        names = sorted(name for name in {*results, *reference} if results.get(name) != reference.get(name))
        if names:
            return f"differs: {', '.join(names[:5])}"

        return ""

    def results(self, verb: Verb) -> dict[str, str]:
        """Digest of each file a verb has made, as far as it does not hold times."""
        base = self.work / verb.results
        digests = {}
        for file in sorted(base.rglob("*")):
            name = file.relative_to(base).as_posix()
            if not file.is_file() or file.name == ".lock":
                continue

            digests[name] = "" if file.name in VOLATILE else digest(file, self.work)

        return digests

    def state(self) -> str:
        """What is on the disk under final names, and which leftovers there are."""
        h = hashlib.sha256()
        for file in sorted(self.work.rglob("*")):
            name = file.relative_to(self.work).as_posix()
            if ".partial-" in name:
                kind = name.rsplit(".partial-", 1)[1].split("-")[0]
                h.update(f"leftover {name.split('.partial-')[0]} {kind}\n".encode())
            elif file.is_file():
                h.update(f"{name} {digest(file, self.work)}\n".encode())
            else:
                h.update(f"{name}/\n".encode())

        return h.hexdigest()


_TIMES = ("time", "seconds", "peak_bytes", "started", "finished", "before", "made", "created", "written")


def digest(file: Path, work: Path) -> str:
    """SHA-256 of a file; of JSON without entries that hold times."""
    data = file.read_bytes()
    if file.suffix in (".json", ".jsonl"):
        text = data.decode("utf-8", "replace")
        lines = [text]
        if file.suffix == ".jsonl":
            lines = text.splitlines()

        with suppress(ValueError):  # damaged, or cut short: compared as it stands
            data = json.dumps([_timeless(json.loads(line)) for line in lines]).encode()

    return hashlib.sha256(data.replace(os.fsencode(str(work)), b"")).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(entry) for key, entry in value.items() if key not in _TIMES}

    if isinstance(value, list):
        return [_timeless(entry) for entry in value]

    return value


def table(outcomes: Sequence[Outcome]) -> str:
    """Outcomes as a Markdown table."""
    rows = [
        "| verb | fault | operations | tried | distinct states | lost | results that differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        rows.append(
            f"| {o.verb} | {o.kind} | {o.operations} | {o.tried} | {o.recovered} | {len(o.lost)} | {len(o.differs)} |"
        )

    return "\n".join(rows)


def inside(verbs: Sequence[str], kinds: Sequence[str], every: int, out: Path) -> None:
    """What runs under the library."""
    warm()
    outcomes = []
    for name in verbs:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            bench = Bench(Path(folder), verbs)
            known: dict[str, str] = {}
            for kind in kinds:
                outcome = bench.try_all(VERBS[name], kind, every, known)
                outcomes.append(outcome)
                print(f"{name}, {kind}: {outcome.operations} operations, {len(outcome.lost)} lost, "
                      f"{len(outcome.differs)} differ, {outcome.seconds:.0f} s", flush=True)  # fmt: skip
                for k, why in [*outcome.lost, *outcome.differs][:3]:
                    print(f"    at operation {k}: {why}", flush=True)

    out.write_text(json.dumps([vars(outcome) for outcome in outcomes]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 1 when anything was lost or differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks faults", description=__doc__.splitlines()[0])
    parser.add_argument("verbs", nargs="*", default=list(VERBS), help=f"of {', '.join(VERBS)}")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--every", type=int, default=1, help="take every n-th operation")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.verbs) - set(VERBS):
        parser.error(f"no verb {', '.join(sorted(unknown))}; there are {', '.join(VERBS)}")

    if options.inside:
        inside(options.verbs, options.kinds, options.every, options.inside)
        return 0

    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        built = library(Path(folder))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, **threads, "LD_PRELOAD": str(built), "PHOSPHENE_FAULTS": str(built)}

        def one(verb: str) -> list[Outcome]:
            out = Path(folder) / f"{verb}.json"
            command = [sys.executable, "-m", "benchmarks.faults", verb, "--kinds", *options.kinds]
            command += ["--every", str(options.every), "--inside", str(out)]
            subprocess.run(command, check=True, env=environment)
            return [Outcome(**values) for values in json.loads(out.read_text())]

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # a thread waits for each process
            outcomes = list(chain.from_iterable(pool.map(one, options.verbs)))

    print(table(outcomes))
    n_lost = sum(len(outcome.lost) for outcome in outcomes)
    n_differs = sum(len(outcome.differs) for outcome in outcomes)
    print(f"runs lost: {n_lost}; results that differ: {n_differs}")
    return int(n_lost + n_differs > 0)


if __name__ == "__main__":
    sys.exit(main())
