"""A run folder as the flow leaves it, filled with a real small decode: pictures, simulated voxels, ridge both ways."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from phosphene.io.run_folder import RunFolder


@dataclass
class Made:
    """What went into the fixture run, to check the page against."""

    run: RunFolder
    seen: np.ndarray
    decoded: dict[str, np.ndarray]
    ids: list[str]
    pixcorr: np.ndarray


def blobs(n: int, side: int, channels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bright blobs (left) and bars (right) on dark ground, (n, side, side, channels) 0-1, and their categories."""
    y, x = np.mgrid[:side, :side] / (side - 1)
    pictures, category = np.empty((n, side, side, channels), np.float32), np.empty(n, dtype=object)
    for i in range(n):
        is_bar = i % 2 == 1
        cx, cy = rng.uniform(0.55, 0.8) if is_bar else rng.uniform(0.2, 0.45), rng.uniform(0.2, 0.8)
        sx, sy = (0.06, 0.3) if is_bar else (0.14, 0.14)
        shape = np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)
        pictures[i] = shape[..., None] * rng.uniform(0.4, 1.0, channels) + 0.05
        category[i] = "bar" if is_bar else "blob"
    return np.clip(pictures, 0, 1), category


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson r of all rows of a with all rows of b."""
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return np.divide(a @ b.T, norms, out=np.full(norms.shape, np.nan), where=norms > 1e-9)


def ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray, alpha: float) -> np.ndarray:
    mx, my = x.mean(axis=0), y.mean(axis=0)
    gram = (x - mx) @ (x - mx).T + alpha * np.eye(len(x))
    return (new - mx) @ (x - mx).T @ np.linalg.solve(gram, y - my) + my


def make_run(
    folder: Path, *, n_test: int = 40, side: int = 28, channels: int = 1, noise: float = 1.0, seed: int = 0
) -> Made:
    """A finished run: decoded, encoded, evaluated."""
    rng = np.random.default_rng(seed)
    n_train, n_voxels = 160, 120
    pictures, category = blobs(n_train + n_test, side, channels, np.random.default_rng(1))  # same stimuli for any seed
    flat = pictures.reshape(len(pictures), -1)
    weights = rng.standard_normal((flat.shape[1], n_voxels)) / np.sqrt(flat.shape[1])
    weights[:, ::3] *= 0.2
    signal = (flat - flat.mean(axis=0)) @ weights
    sigma = noise * signal.std()
    betas = signal + sigma * rng.standard_normal(signal.shape)
    train, test = slice(0, n_train), slice(n_train, None)
    mean, covariance = betas[train].mean(axis=0), np.cov(betas[train].T)
    given = {
        "brain": betas[test],
        "shuffled": betas[test][rng.permutation(n_test)],
        "noise": rng.multivariate_normal(mean, covariance, n_test),
        "mean": np.repeat(mean[None], n_test, axis=0),
    }
    alpha = 0.3 * np.square(betas[train] - mean).sum() / n_train
    shape = (n_test, side, side, channels)
    decoded = {k: np.clip(ridge(betas[train], flat[train], v, alpha), 0, 1).reshape(shape) for k, v in given.items()}
    means = {c: pictures[train][category[train] == c].mean(axis=0) for c in set(category)}
    decoded["category"] = np.stack([means[c] for c in category[test]])
    seen, ids = pictures[test], [f"s{i:03d}" for i in range(n_test)]

    run = RunFolder(folder)
    for name, pixels in {"seen": seen, **decoded}.items():
        place = run.decoded("test", name)
        (place / "images").mkdir(parents=True)
        np.save(place / "pixels.npy", pixels.astype(np.float32))
        index = pd.DataFrame({"stimulus": ids, "fold": 0, "file": [f"{i:06d}.png" for i in range(n_test)]})
        run.write_table(index.assign(category=category[test]), "decoded", "test", name, "index.csv")

    scores, items = [], []
    true = seen.reshape(n_test, -1)
    matrices = {}
    per_picture: dict[tuple[str, str], np.ndarray] = {}
    for name, pixels in decoded.items():
        matrix = correlation(pixels.reshape(n_test, -1), true)
        matrices[name] = matrix
        r = np.diag(matrix)
        m = np.square(pixels - seen).mean(axis=(1, 2, 3))
        two_way = np.array(
            [
                (matrix[i, i] > np.delete(matrix[i], i)).mean() + 0.5 * (matrix[i, i] == np.delete(matrix[i], i)).mean()
                for i in range(n_test)
            ]
        )
        for metric, values, chance in (("pixcorr", r, np.nan), ("mse", m, np.nan), ("two_way.pixels", two_way, 0.5)):
            items += [(name, metric, s, v) for s, v in zip(ids, values, strict=True)]
            per_picture[name, metric] = values if metric != "mse" else -values
            draws = rng.choice(values, (200, n_test)).mean(axis=1)
            low, high = np.quantile(draws, [0.025, 0.975])
            p = 0.0001 if name == "brain" else 0.42
            scores.append(("test", name, metric, np.mean(values), low, high, chance, p, n_test, "strict"))
    differences = []
    for name, metric in per_picture:
        if name != "brain":
            gain = per_picture["brain", metric] - per_picture[name, metric]
            low, high = np.quantile(rng.choice(gain, (500, n_test)).mean(axis=1), [0.025, 0.975])
            differences.append((metric, name, gain.mean(), low, high, 0.001, n_test))
    columns = ["metric", "control", "value", "ci_low", "ci_high", "p", "n"]
    run.write_table(pd.DataFrame(differences, columns=columns), "evaluation", "test", "differences.csv")
    scores.append(("test", "brain", "ssim.2d", 0.41, 0.36, 0.47, np.nan, 0.0001, n_test, "strict"))
    scores.append(("test", "brain", "nway10_top1.pixels", 0.61, 0.52, 0.70, 0.1, 0.0001, n_test, "strict"))
    predicted = ridge(flat[train], betas[train], flat[test], 5.0)
    r = np.diag(correlation(predicted.T, betas[test].T))
    ceiling = signal.var(axis=0) / (signal.var(axis=0) + sigma**2)
    scores.append(
        ("test", "brain", "pearson.voxels", r.mean(), r.mean() - 0.03, r.mean() + 0.03, 0.0, 0.0001, n_voxels, "strict")
    )
    columns = ["split", "input", "metric", "value", "ci_low", "ci_high", "chance", "p", "n", "setting"]
    run.write_table(pd.DataFrame(scores, columns=columns), "scores.csv")
    run.write_table(
        pd.DataFrame(items, columns=["input", "metric", "stimulus", "value"]), "evaluation", "test", "per_item.csv"
    )
    np.save(run.evaluation() / "similarity.pixels.npy", matrices["brain"])

    place = run.encoded()
    place.mkdir(parents=True)
    np.save(place / "predicted.npy", predicted.astype(np.float32))
    np.save(place / "measured.npy", betas[test].astype(np.float32))
    rois = {f"roi.{n}": np.arange(n_voxels) % 4 == i for i, n in enumerate(("V1", "V2", "V3", "hV4"))}
    run.write_table(pd.DataFrame(rois), "encoded", "test", "voxels.csv")
    u, v = rng.uniform(0, 2, n_voxels), rng.uniform(0, 1, n_voxels)
    run.write_table(pd.DataFrame({"r": r, "ceiling": ceiling, "u": u, "v": v}), "evaluation", "test", "voxels.csv")

    own = np.diag(matrices["brain"])[:, None]
    above = (matrices["brain"] > own).sum(axis=1)
    rows = []
    for gallery in (2, 10, n_test):
        chance_above = above / (n_test - 1)
        value = float(np.mean((1 - chance_above) ** (gallery - 1)))
        rows += [("pixels", "forward", gallery, 1, value), ("pixels", "backward", gallery, 1, 0.95 * value)]
    run.write_table(
        pd.DataFrame(rows, columns=["space", "direction", "gallery", "top", "value"]),
        "evaluation",
        "test",
        "retrieval.csv",
    )
    published = [
        ("Peer A (2020)", "pixcorr", 0.70, True, "", "Table 2"),
        ("Peer B (2021)", "two_way.pixels", 0.93, False, "distractors from 300 pictures, another person", "Table 4"),
    ]
    run.write_table(
        pd.DataFrame(published, columns=["method", "metric", "value", "comparable", "difference", "source"]),
        "evaluation", "test", "published.csv",
    )  # fmt: skip
    run.write_table(
        pd.DataFrame(
            [(i, "two_way.alexnet2", "the weights of AlexNet are not on this machine") for i in ("brain", "noise")]
            + [("category", "two_way.pca", "it has no latents")],
            columns=["input", "metric", "reason"],
        ),
        "evaluation", "test", "skipped.csv",
    )  # fmt: skip
    lines = [
        "Above chance (two-way identification 0.95, p = 0.0001).",
        "Not above the category-only decoder.",
        "Transductive step: none.",
    ]
    (run.evaluation() / "conclusions.txt").write_text("\n".join(lines) + "\n")
    verdicts = [
        ("S1", "pass", 0, "no picture stands on both sides", "Same stimulus on both sides", ""),
        ("S10", "flag", n_test, "fewer than 50 test pictures; intervals will be wide", "Size of the test set", ""),
        ("B8", "fail", 0.02, "the category mean does as well", "Category-only decoder", ""),
        ("B9", "not tested", "", "no out-of-distribution set", "Out of distribution", ""),
        ("S6", "not applicable", "", "one session", "Session confound", ""),
    ]
    run.write_table(
        pd.DataFrame(verdicts, columns=["id", "verdict", "value", "reason", "title", "waiver"]), "validity.csv"
    )

    config = {
        "recipe": {"kind": "linear", "alpha": 10.0},
        "data": {"name": "blobs", "root": str(Path.home() / "data")},
        "seed": 3,
    }
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    origins = [
        ("recipe.kind", "recipe"),
        ("recipe.alpha", "--set"),
        ("data.name", "--data"),
        ("data.root", "--root"),
        ("seed", "default"),
    ]
    run.write_table(pd.DataFrame(origins, columns=["key", "origin"]), "origins.csv")
    sides = [(0, "train", "stimulus", f"t{i:03d}") for i in range(n_train)] + [(0, "test", "stimulus", i) for i in ids]
    run.write_table(pd.DataFrame(sides, columns=["fold", "side", "unit", "id"]), "splits.csv")
    manifest = {
        "recipe": "linear", "config_digest": "c" * 64, "data_digest": f"{seed:064d}", "split_digest": "d" * 64,
        "data": {"name": "blobs", "subject": "S1", "n_voxels": n_voxels, "about": {"title": "Blobs and bars", "licence": "none"}},
        "split": {"name": "file", "folds": 1, "unit": "stimulus", "note": "", "category_disjoint": None},
        "seed": 3, "setting": "strict", "state": "fitted", "versions": {"phosphene": "0.1.0", "numpy": np.__version__},
    }  # fmt: skip
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    return Made(run, seen, decoded, ids, np.diag(matrices["brain"]))


@pytest.fixture(name="make_run")
def make_run_fixture():
    return make_run


@pytest.fixture
def full(tmp_path: Path) -> Made:
    """A run of its own, with everything."""
    return make_run(tmp_path / "linear-S1")


@pytest.fixture
def made(full: Made) -> Made:
    """A run of its own without what figures are drawn from: pages of it take a tenth of the time."""
    for name in ("voxels.csv", "similarity.pixels.npy", "retrieval.csv"):
        (full.run.evaluation() / name).unlink()
    scores = full.run.table("scores.csv")
    full.run.write_table(scores[scores["metric"].isin(["pixcorr", "mse", "ssim.2d"])], "scores.csv")
    return full


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One run for all tests that only look at it."""
    return make_run(tmp_path_factory.mktemp("report") / "linear-S1")
