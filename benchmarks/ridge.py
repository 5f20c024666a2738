"""Ridge from voxels to the three families of targets of Brain-Diffuser, beside what others do, in one run.

    python benchmarks/ridge.py --scale 8 --rounds 3 --out ridge.json     every rival, everything divided by 8
    python benchmarks/ridge.py --full --out ridge_full.json              8859 x 15,724 to 347,680 targets, disk to disk

Each case runs in its own process, on --threads threads, in turn with its rivals; figures are medians over the rounds of
CPU seconds, wall seconds and the process's largest resident memory. Our cases include reading every target from disk
and writing every prediction; rivals start with their arrays in memory. Widths, rows and test rows are divided by the
scale, the number of tokens is kept, so every cubic term shrinks by scale^3 alike.

Cases
-----
ours            `ridge_predict`, one fixed penalty per family (60,000, 100,000 and 50,000 at full size)
ours_loo        `ridge_predict`, exact leave-one-out among 10 penalties, one per family
ours_per_target `Ridge`, exact leave-one-out among 10 penalties, one per target, weights kept
loop64          scikit-learn `Ridge` per token in float64, fit, predict and score, as the published scripts do; the
                third family in one fit
token64         one token of that loop (--full: the loop is 334 of these and the third family, by its operations)
sklearn64/32    scikit-learn `Ridge`, all targets of a family at once
himalaya        himalaya `KernelRidge`, one fixed penalty per family
himalaya_cv     himalaya `KernelRidgeCV`, 10 penalties, 5 folds, one penalty per target
ridgecv_16th    scikit-learn `RidgeCV`, exact leave-one-out among 10 penalties, on every 16th target
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

ROWS, VOXELS, TEST = 8859, 15_724, 982
FAMILIES = {"vision": (257, 768, 60_000.0), "text": (77, 768, 100_000.0), "vdvae": (1, 91_168, 50_000.0)}
SCALED = (
    "ours",
    "ours_loo",
    "ours_per_target",
    "loop64",
    "sklearn64",
    "sklearn32",
    "himalaya",
    "himalaya_cv",
    "ridgecv_16th",
)
FULL = ("ours", "ours_loo", "token64")


def sizes(scale: int) -> tuple[int, int, int, dict[str, tuple[int, int, float]]]:
    """Rows, voxels, test rows, and tokens, width and penalty of every family at one scale."""
    families = {
        name: (tokens, round(width / scale), alpha / scale) for name, (tokens, width, alpha) in FAMILIES.items()
    }
    return round(ROWS / scale), round(VOXELS / scale), round(TEST / scale), families


def grid(scale: int) -> np.ndarray:
    return np.geomspace(2e3, 2e6, 10) / scale


def make(folder: Path, scale: int, seed: int = 0) -> None:
    """Write x, x_new and one file of targets per family: 64 shared factors of falling size, and noise."""
    rng = np.random.default_rng(seed)
    n, p, m, families = sizes(scale)
    factors = rng.standard_normal((n + m, 64), np.float32)
    strength = np.arange(1, 65, dtype=np.float32)[:, None] ** -0.5
    x = factors @ (strength * rng.standard_normal((64, p), np.float32)) + 3 * rng.standard_normal(
        (n + m, p), np.float32
    )
    x = (x - x[:n].mean(axis=0)) / x[:n].std(axis=0)
    np.save(folder / "x.npy", x[:n])
    np.save(folder / "x_new.npy", x[n:])
    for name, (tokens, width, _) in families.items():
        y = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(n, tokens * width))
        weights = strength * rng.standard_normal((64, tokens * width), np.float32)
        offset = rng.standard_normal(tokens * width, np.float32)
        for start in range(0, n, 512):
            part = slice(start, min(start + 512, n))
            y[part] = factors[part] @ weights + offset
            y[part] += rng.standard_normal(y[part].shape, np.float32)
        y.flush()
        del y


def load(folder: Path, dtype: type) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    x, new = (np.load(folder / f"{name}.npy").astype(dtype) for name in ("x", "x_new"))
    return x, new, {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FAMILIES}


def ours(folder: Path, scale: int, choose: bool) -> dict:
    from phosphene.align import ridge_predict

    _, _, m, families = sizes(scale)
    start = clock()
    x, new = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "x_new"))
    targets, out = {}, {}
    for name, (tokens, width, alpha) in families.items():
        targets[name] = (np.load(folder / f"{name}.npy", mmap_mode="r"), grid(scale) if choose else alpha)
        out[name] = np.lib.format.open_memmap(
            folder / f"ours_{name}.npy", mode="w+", dtype=np.float32, shape=(m, tokens * width)
        )
    _, alphas = ridge_predict(x, new, targets, out=out)
    for array in out.values():
        array.flush()
    return took(start) | {"alphas": alphas}


def ours_per_target(folder: Path, scale: int) -> dict:
    from phosphene.align import Ridge

    start = clock()
    x, new = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "x_new"))
    for name in FAMILIES:
        y = np.load(folder / f"{name}.npy", mmap_mode="r")
        Ridge(grid(scale), per_target=True).fit(x, y).predict(new)
    return took(start)


def scikit_learn(folder: Path, scale: int, dtype: type, per_token: bool, only_one: bool = False) -> dict:
    from sklearn.linear_model import Ridge

    *_, families = sizes(scale)
    x, new, targets = load(folder, dtype)
    spent = np.zeros(2)
    for name, (tokens, width, alpha) in families.items():
        step = width if per_token else tokens * width
        for first in range(0, tokens * width, step):
            y = targets[name][:, first : first + step].astype(dtype)
            truth = y[: len(new)]
            start = clock()
            model = Ridge(alpha, max_iter=10_000, fit_intercept=True).fit(x, y)
            model.predict(new)
            if per_token:
                model.score(new, truth)  # the scripts do, which predicts once more
            spent += list(took(start).values())
            if only_one:
                return dict(zip(("cpu", "wall"), spent, strict=True))
    return dict(zip(("cpu", "wall"), spent, strict=True))


def himalaya(folder: Path, scale: int, choose: bool) -> dict:
    from himalaya.kernel_ridge import KernelRidge, KernelRidgeCV

    x, new, targets = load(folder, np.float32)
    spent = np.zeros(2)
    for name, (_, _, alpha) in sizes(scale)[3].items():
        y = np.array(targets[name])
        y -= y.mean(axis=0)  # this class has no intercept
        start = clock()
        model = KernelRidgeCV(alphas=grid(scale), cv=5) if choose else KernelRidge(alpha=alpha)
        model.fit(x, y).predict(new)
        spent += list(took(start).values())
    return dict(zip(("cpu", "wall"), spent, strict=True))


def ridgecv_16th(folder: Path, scale: int) -> dict:
    from sklearn.linear_model import RidgeCV

    x, new, targets = load(folder, np.float64)
    spent = np.zeros(2)
    for y in targets.values():
        y = y[:, ::16].astype(np.float64)
        start = clock()
        RidgeCV(grid(scale)).fit(x, y).predict(new)
        spent += list(took(start).values())
    return dict(zip(("cpu", "wall"), spent, strict=True))


CASES = {
    "ours": lambda f, s: ours(f, s, choose=False),
    "ours_loo": lambda f, s: ours(f, s, choose=True),
    "ours_per_target": ours_per_target,
    "loop64": lambda f, s: scikit_learn(f, s, np.float64, per_token=True),
    "token64": lambda f, s: scikit_learn(f, s, np.float64, per_token=True, only_one=True),
    "sklearn64": lambda f, s: scikit_learn(f, s, np.float64, per_token=False),
    "sklearn32": lambda f, s: scikit_learn(f, s, np.float32, per_token=False),
    "himalaya": lambda f, s: himalaya(f, s, choose=False),
    "himalaya_cv": lambda f, s: himalaya(f, s, choose=True),
    "ridgecv_16th": ridgecv_16th,
}


def clock() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def took(start: tuple[float, float]) -> dict[str, float]:
    return {"cpu": time.process_time() - start[0], "wall": time.perf_counter() - start[1]}


def peak_memory() -> int:
    """Largest resident memory of this process, in bytes, maps of files included."""
    try:  # ru_maxrss would begin with the peak of the process that started this one
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(case: str, folder: Path, scale: int, threads: int) -> dict:
    """One case in a process of its own."""
    limits = {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, "--case", case, "--folder", str(folder), "--scale", str(scale)]
    done = subprocess.run(command, env=os.environ | limits, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def errors(folder: Path, scale: int, alphas: dict[str, float], columns: int = 96) -> dict[str, float]:
    """Largest difference to a float64 solution over sampled columns of each family, as a share of the spread."""
    from scipy.linalg import cho_factor, cho_solve

    x, new, targets = load(folder, np.float32)
    kernel = cross = 0.0
    for start in range(0, x.shape[1], 1024):
        a, b = (v[:, start : start + 1024].astype(np.float64) for v in (x, new))
        mean = a.mean(axis=0)
        kernel, cross = kernel + (a - mean) @ (a - mean).T, cross + (b - mean) @ (a - mean).T
    found = {}
    for name, y in targets.items():
        chosen = np.sort(np.random.default_rng(1).choice(y.shape[1], min(columns, y.shape[1]), replace=False))
        part = np.array(y[:, chosen], dtype=np.float64)
        mean = part.mean(axis=0)
        factored = cho_factor(kernel + alphas[name] * np.eye(len(kernel)), overwrite_a=True)
        expected = cross @ cho_solve(factored, part - mean) + mean
        got = np.load(folder / f"ours_{name}.npy", mmap_mode="r")[:, chosen]
        found[name] = float((np.abs(got - expected).max(axis=0) / expected.std(axis=0)).max())
    return found


def operations(rows: int, voxels: int, test: int, targets: int) -> float:
    """Operations of one scikit-learn fit and predict."""
    return rows**2 * voxels + rows**3 / 3 + 2 * rows**2 * targets + 2 * (rows + test) * voxels * targets


def product_rate() -> float:
    """Single-precision GFLOP per CPU second."""
    a, best = np.ones((2048, 2048), np.float32), np.inf
    for _ in range(4):
        start = clock()
        a @ a
        best = min(best, took(start)["cpu"])
    return 2 * 2048**3 / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=8, help="divide rows, voxels, widths and test rows by this")
    parser.add_argument("--full", action="store_true", help="scale 1: our cases and one token of the loop")
    parser.add_argument("--rounds", type=int, default=None, help="default 3, with --full 1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="where to put the data; default a temporary folder")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the figures")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        warnings.simplefilter("ignore")
        figures = CASES[arguments.case](arguments.folder, arguments.scale)
        print(json.dumps(figures | {"rss": peak_memory()}))
        return

    scale = 1 if arguments.full else arguments.scale
    rounds = arguments.rounds or (1 if arguments.full else 3)
    cases = arguments.cases or (FULL if arguments.full else SCALED)
    folder = Path(tempfile.mkdtemp(prefix="ridge_", dir=arguments.folder))
    try:
        n, p, m, families = sizes(scale)
        needed = 4.4 * (n + m) * (p + sum(tokens * width for tokens, width, _ in families.values()))
        if shutil.disk_usage(folder).free < needed:
            raise SystemExit(
                f"{folder} has less than the {needed / 1e9:.0f} GB this needs; choose another with --folder."
            )
        make(folder, scale)
        results: dict[str, list[dict]] = {case: [] for case in cases}
        found: dict[str, dict] = {}
        for turn in range(rounds):
            for case in cases:
                results[case].append(run(case, folder, scale, arguments.threads))
                latest = results[case][-1]
                print(f"# round {turn + 1} {case}: {latest['cpu']:.2f} CPU s, {latest['wall']:.2f} s", file=sys.stderr)
                if case in ("ours", "ours_loo") and turn == 0:
                    found[case] = errors(folder, scale, latest["alphas"])
    finally:
        shutil.rmtree(folder)
    report(results, found, scale, rounds, arguments)


def report(results: dict, found: dict, scale: int, rounds: int, arguments: argparse.Namespace) -> None:
    n, p, m, families = sizes(scale)
    targets = sum(tokens * width for tokens, width, _ in families.values())
    median = {
        case: {key: statistics.median(r[key] for r in runs) for key in ("cpu", "wall", "rss")}
        for case, runs in results.items()
    }
    if "token64" in median:
        tokens = sum(tokens for tokens, _, _ in families.values() if tokens > 1)
        whole = operations(n, p, m, families["vdvae"][1]) / operations(n, p, m, families["vision"][1])
        one = median["token64"]
        median["loop64 (extrapolated)"] = {k: one[k] * (tokens + whole) for k in ("cpu", "wall")} | {"rss": np.nan}
    rate = product_rate()
    print(
        f"{n} x {p} to {targets:,} targets, {m} test rows; {arguments.threads} thread(s), {rounds} round(s), medians; "
    )
    print(f"single-precision product on this machine: {rate:.0f} GFLOP per CPU second\n")
    base = median.get("ours", {}).get("cpu", np.nan)
    chosen = median.get("ours_loo", {}).get("cpu", np.nan)
    print(f"{'case':24}{'CPU s':>10}{'wall s':>10}{'peak GB':>10}{'/ ours':>10}{'/ ours_loo':>12}")
    for case, row in median.items():
        print(
            f"{case:24}{row['cpu']:10.2f}{row['wall']:10.2f}{row['rss'] / 1e9:10.2f}"
            f"{row['cpu'] / base:10.1f}{row['cpu'] / chosen:12.1f}"
        )
    for case, shares in found.items():
        text = ", ".join(f"{name} {share:.1e}" for name, share in shares.items())
        print(f"\n{case}: largest error against float64, as a share of the spread: {text}")
        print(f"{case}: penalties {results[case][0]['alphas']}")
    if arguments.out:
        figures = {
            "rows": n, "voxels": p, "targets": targets, "test_rows": m, "threads": arguments.threads, "rounds": rounds,
            "gflop_per_cpu_s": rate, "machine": platform.processor() or platform.machine(), "numpy": np.__version__,
            "median": median, "runs": results, "largest_error": found,
        }  # fmt: skip
        arguments.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
