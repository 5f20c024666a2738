"""Ridge from voxels to the three families of targets of Brain-Diffuser, beside what others do.

8,859 x 15,724 to 347,680 targets, 982 test rows; ``scale`` divides rows, voxels, widths and test rows and keeps the
number of tokens, so every cubic term shrinks by scale^3 alike. Without it one family of tokens of 192 targets, to see
how each side grows. Our cases include reading every target from disk and writing every prediction; rivals start with
their arrays in memory. ``--full`` needs 13 GB of disk.

Cases
-----
ours                    `ridge_predict`, one fixed penalty per family (60,000, 100,000 and 50,000 at full size)
ours, chosen            `ridge_predict`, exact leave-one-out among 10 penalties, one per family
ours, per target        `Ridge`, exact leave-one-out among 10 penalties, one per target, weights kept
ours, weights           `Ridge`, one fixed penalty per family, weights kept
scikit-learn per token  in float64, fit, predict and score, as the published scripts do; the third family in one fit
one token of it         the first fit of that loop, which has 334 such and the third family, by its operations
scikit-learn            all targets of a family at once, in float64 or float32
himalaya                `KernelRidge`, one fixed penalty per family
himalaya CV             `KernelRidgeCV`, 10 penalties, 5 folds, one penalty per target
fracridge               one fraction, on every 16th target
scikit-learn CV         `RidgeCV`, exact leave-one-out among 10 penalties, on every 16th target
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.measure import Clock, need, product_rate
from benchmarks.record import Step, growth

TITLE = "ridge: voxels to every target"
ROWS, VOXELS, TEST, TARGETS, TOKEN = 8859, 15_724, 982, 347_680, 192
FAMILIES = {"vision": (257, 768, 60_000.0), "text": (77, 768, 100_000.0), "vdvae": (1, 91_168, 50_000.0)}

Families = dict[str, tuple[int, int, float]]


def families(targets: int, scale: int) -> Families:
    """Tokens, width and penalty of every family."""
    if not scale:
        return {"tokens": (targets // TOKEN, TOKEN, 10_000.0)}
    return {name: (tokens, round(width / scale), alpha / scale) for name, (tokens, width, alpha) in FAMILIES.items()}


def test_rows(trials: int) -> int:
    return round(TEST * trials / ROWS)


def grid(scale: int) -> np.ndarray:
    return np.geomspace(2e3, 2e6, 10) / (scale or 8)


def prepare(folder: Path, trials: int, voxels: int, targets: int, scale: int = 0) -> None:
    """Write x, x_new and one file of targets per family: 64 shared factors of falling size, and noise."""
    rng = np.random.default_rng(0)
    n, m, all_families = trials, test_rows(trials), families(targets, scale)
    needed = 4.4 * (n + m) * (voxels + sum(tokens * width for tokens, width, _ in all_families.values()))
    if shutil.disk_usage(folder).free < needed:
        raise SystemExit(f"{folder} has less than the {needed / 1e9:.0f} GB this needs; set TMPDIR to another place.")
    factors = rng.standard_normal((n + m, 64), np.float32)
    strength = np.arange(1, 65, dtype=np.float32)[:, None] ** -0.5
    x = factors @ (strength * rng.standard_normal((64, voxels), np.float32))
    x += 3 * rng.standard_normal((n + m, voxels), np.float32)
    x = (x - x[:n].mean(axis=0)) / x[:n].std(axis=0)
    np.save(folder / "x.npy", x[:n])
    np.save(folder / "x_new.npy", x[n:])
    for name, (tokens, width, _) in all_families.items():
        y = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(n, tokens * width))
        weights = strength * rng.standard_normal((64, tokens * width), np.float32)
        offset = rng.standard_normal(tokens * width, np.float32)
        for start in range(0, n, 512):
            part = slice(start, min(start + 512, n))
            y[part] = factors[part] @ weights + offset
            y[part] += rng.standard_normal(y[part].shape, np.float32)
        y.flush()
        del y


def load(folder: Path, all_families: Families, dtype: type) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    x, new = (np.load(folder / f"{name}.npy").astype(dtype) for name in ("x", "x_new"))
    return x, new, {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in all_families}


# -- ours --------------------------------------------------------------------------------------------------------------


def ours(folder: Path, trials: int, voxels: int, targets: int, scale: int = 0, choose: bool = False) -> dict:
    from phosphene.align import ridge_predict

    m, clock, given, out = test_rows(trials), Clock(), {}, {}
    with clock:
        x, new = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "x_new"))
        for name, (tokens, width, alpha) in families(targets, scale).items():
            given[name] = (np.load(folder / f"{name}.npy", mmap_mode="r"), grid(scale) if choose else alpha)
            shape = (m, tokens * width)
            out[name] = np.lib.format.open_memmap(folder / f"ours_{name}.npy", "w+", np.float32, shape)
        _, alphas = ridge_predict(x, new, given, out=out)
        for array in out.values():
            array.flush()
    used = {name: float(np.atleast_1d(a)[0]) for name, a in alphas.items()}
    (folder / "alphas.json").write_text(json.dumps(used))
    different = set(used.values())
    work = trials**2 * voxels + len(different) * (trials**3 / 3 + 2 * trials**2 * m) + 2 * m * trials * targets
    share = work / clock.cpu / 1e9 / product_rate()
    return clock.figures(note=f"{work:.1e} operations", **({} if choose else {"share": share}))


def ours_weights(folder: Path, trials: int, voxels: int, targets: int, scale: int = 0, choose: bool = False) -> dict:
    from phosphene.align import Ridge

    clock = Clock()
    with clock:
        x, new = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "x_new"))
        for name, (_, _, alpha) in families(targets, scale).items():
            y = np.load(folder / f"{name}.npy", mmap_mode="r")
            model = Ridge(grid(scale), per_target=True) if choose else Ridge(alpha)
            model.fit(x, y).predict(new)
    return clock.figures()


# -- rivals ------------------------------------------------------------------------------------------------------------


def operations(rows: int, voxels: int, test: int, targets: int) -> float:
    """Operations of one scikit-learn fit and predict."""
    return rows**2 * voxels + rows**3 / 3 + 2 * rows**2 * targets + 2 * (rows + test) * voxels * targets


def scikit_learn(folder: Path, dtype: type, per_token: bool = False, first: bool = False, **sizes: int) -> dict:
    from sklearn.linear_model import Ridge

    all_families = families(sizes["targets"], sizes.get("scale", 0))
    x, new, targets = load(folder, all_families, dtype)
    clock = Clock()
    for name, (tokens, width, alpha) in all_families.items():
        step = width if per_token else tokens * width
        for start in range(0, tokens * width, step):
            y = targets[name][:, start : start + step].astype(dtype)
            with clock:
                model = Ridge(alpha, max_iter=10_000, fit_intercept=True).fit(x, y)
                model.predict(new)
                if per_token:
                    model.score(new, y[: len(new)])  # the scripts do, which predicts once more
            if first:
                work = [operations(len(x), x.shape[1], len(new), w) for _, w, _ in all_families.values()]
                whole = sum(t * w for (t, _, _), w in zip(all_families.values(), work, strict=True)) / work[0]
                return clock.figures(part=1 / whole, note="one token, the whole by operations")
    return clock.figures()


def himalaya(folder: Path, choose: bool = False, **sizes: int) -> dict:
    solvers = need("himalaya.kernel_ridge")
    all_families, scale = families(sizes["targets"], sizes.get("scale", 0)), sizes.get("scale", 0)
    x, new, targets = load(folder, all_families, np.float32)
    clock = Clock()
    for name, (_, _, alpha) in all_families.items():
        y = np.array(targets[name])
        y -= y.mean(axis=0)  # this class has no intercept
        with clock:
            model = solvers.KernelRidgeCV(alphas=grid(scale), cv=5) if choose else solvers.KernelRidge(alpha=alpha)
            model.fit(x, y).predict(new)
    return clock.figures()


def sixteenth(folder: Path, make: Any, **sizes: int) -> dict:
    """A rival in float64 on every 16th target."""
    x, new, targets = load(folder, families(sizes["targets"], sizes.get("scale", 0)), np.float64)
    clock = Clock()
    for y in targets.values():
        y = y[:, ::16].astype(np.float64)
        with clock:
            make().fit(x, y).predict(new)
    return clock.figures(part=1 / 16)


def fracridge(folder: Path, **sizes: int) -> dict:
    solve = need("fracridge").fracridge  # its estimator does not run with a scikit-learn of today

    class Centred:
        def fit(self, x: np.ndarray, y: np.ndarray) -> Centred:
            self.mean = x.mean(axis=0), y.mean(axis=0)
            self.weights = solve(x - self.mean[0], y - self.mean[1], fracs=np.array([0.1]))[0].reshape(x.shape[1], -1)
            return self

        def predict(self, new: np.ndarray) -> np.ndarray:
            return (new - self.mean[0]) @ self.weights + self.mean[1]

    return sixteenth(folder, Centred, **sizes)


def ridge_cv(folder: Path, **sizes: int) -> dict:
    from sklearn.linear_model import RidgeCV

    return sixteenth(folder, lambda: RidgeCV(grid(sizes.get("scale", 0))), **sizes)


def compare(folder: Path, targets: int, scale: int = 0, columns: int = 96, **_: int) -> dict:
    """Largest difference of what `ours` predicted to a float64 solution with its penalties, over sampled columns of each
    family, as a share of the spread; nothing where it did not run."""
    if not (folder / "alphas.json").is_file():
        return {}
    alphas = json.loads((folder / "alphas.json").read_text())
    from scipy.linalg import cho_factor, cho_solve

    all_families = families(targets, scale)
    x, new, given = load(folder, all_families, np.float32)
    kernel = cross = 0.0
    for start in range(0, x.shape[1], 1024):
        a, b = (v[:, start : start + 1024].astype(np.float64) for v in (x, new))
        mean = a.mean(axis=0)
        kernel, cross = kernel + (a - mean) @ (a - mean).T, cross + (b - mean) @ (a - mean).T
    found = {}
    for name, y in given.items():
        chosen = np.sort(np.random.default_rng(1).choice(y.shape[1], min(columns, y.shape[1]), replace=False))
        part = np.array(y[:, chosen], dtype=np.float64)
        mean = part.mean(axis=0)
        factored = cho_factor(kernel + alphas[name] * np.eye(len(kernel)), overwrite_a=True)
        expected = cross @ cho_solve(factored, part - mean) + mean
        got = np.load(folder / f"ours_{name}.npy", mmap_mode="r")[:, chosen]
        found[name] = float((np.abs(got - expected).max(axis=0) / expected.std(axis=0)).max())
    return {"difference": max(found.values()), "note": "to float64, as a share of the spread"}


CASES = {
    "ours": ours,
    "ours, chosen": lambda f, **s: ours(f, choose=True, **s),
    "ours, per target": lambda f, **s: ours_weights(f, choose=True, **s),
    "ours, weights": ours_weights,
    "scikit-learn per token": lambda f, **s: scikit_learn(f, np.float64, per_token=True, **s),
    "one token of it": lambda f, **s: scikit_learn(f, np.float64, per_token=True, first=True, **s),
    "scikit-learn, float64": lambda f, **s: scikit_learn(f, np.float64, **s),
    "scikit-learn, float32": lambda f, **s: scikit_learn(f, np.float32, **s),
    "himalaya": himalaya,
    "himalaya CV": lambda f, **s: himalaya(f, choose=True, **s),
    "fracridge": fracridge,
    "scikit-learn CV": ridge_cv,
}

RIVALS = ("ours", "scikit-learn per token", "himalaya")
SMALL = {"trials": 1000, "voxels": 2000, "targets": 16 * TOKEN}


def divided(scale: int) -> dict[str, int]:
    count = sum(tokens * width for tokens, width, _ in families(0, scale).values())
    return {"trials": round(ROWS / scale), "voxels": round(VOXELS / scale), "targets": count}


STEPS = [
    *growth("voxels", {1000: 0, 2000: 0, 4000: 0, 8000: 1}, RIVALS, SMALL),
    *growth("trials", {500: 0, 1000: 0, 2000: 0, 4000: 1}, RIVALS, SMALL, {RIVALS[1]: 2000}),
    *growth("targets", {768: 0, 3072: 0, 12_288: 0, 49_152: 1}, RIVALS, SMALL, {RIVALS[1]: 12_288}),
    Step(divided(8), ("ours", "scikit-learn per token", "scikit-learn, float64", "scikit-learn, float32", "himalaya",
                      "fracridge"), options={"scale": 8}),
    Step(divided(8), ("ours, chosen", "himalaya CV", "scikit-learn CV", "ours, per target"), options={"scale": 8}),
    Step(divided(8), ("ours, weights",), options={"scale": 8}),
    Step(divided(1), ("ours", "one token of it"), level=2, options={"scale": 1}),
    Step(divided(1), ("ours, chosen",), level=2, options={"scale": 1}),
    Step(divided(1), ("ours",), level=2, threads=2, options={"scale": 1}),
]  # fmt: skip
