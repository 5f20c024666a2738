"""Single-trial betas of types B, C and D, beside GLMsingle.

4 runs of 300 volumes (TR 1 s), 75 trials of 3 s each, 100 conditions shown three times, twenty responses, up to ten noise
components, twenty fractions; two random walks shared by all voxels, a third of which respond. Each of these has a response of
its own, of the simulator's family (three inverse logit functions), which is in no library. Both sides get the same library,
ours (differences of two gamma functions), the same response for the on-off model, and write no files or figures. What is timed is
the fit alone. Afterwards
GLMsingle's threshold of the noise pool (a mixture fit without a seed, read off a grid) is handed to ours, so that what is
compared is not chance.

GLMsingle is a checkout of cvnlab/GLMsingle, named by GLMSINGLE=FOLDER, or the package where it is installed; it needs
fracridge and tqdm, which ``--peers`` installs.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from benchmarks.measure import Clock, need
from benchmarks.record import growth

TITLE = "single-trial betas, against GLMsingle"
TR_S, STIMULUS_S, VOLUMES, RUNS, TRIALS, CONDITIONS = 1.0, 3.0, 300, 4, 75, 100
KINDS = ("b", "c", "d")


def study(n_voxels: int):
    """Runs, the design as a table of onsets, and responses sampled at the volumes."""
    from phosphene.betas import BoldRun, HrfLibrary
    from phosphene.lab import hrf_shapes

    rng, library = np.random.default_rng(0), HrfLibrary()
    n_responding = n_voxels // 3
    signal = rng.normal(1, 1, (CONDITIONS, n_responding)).astype(np.float32)
    hrf = hrf_shapes.parameters(rng.uniform(size=(n_responding, len(hrf_shapes.SHARES))))
    maps = rng.normal(size=(2, n_voxels)).astype(np.float32)
    shown = np.concatenate([rng.permutation(CONDITIONS) for _ in range(3)]).reshape(RUNS, TRIALS)
    slots = np.sort(rng.choice(TRIALS, 15, replace=False))  # pauses, without which trials cannot be told from drift
    onset = 3 * (np.arange(TRIALS) + np.searchsorted(slots, np.arange(TRIALS)) / 1.0) + 4
    runs, tables = [], []
    for number, conditions in enumerate(shown, 1):
        betas = signal[conditions] * (1 + 0.3 * rng.standard_normal((TRIALS, n_responding), dtype=np.float32))
        walk = np.cumsum(rng.normal(size=(VOLUMES, 2)), axis=0).astype(np.float32)
        percent = (walk - walk.mean(axis=0)) / walk.std(axis=0) @ maps
        percent += rng.standard_normal((VOLUMES, n_voxels), dtype=np.float32)
        percent[:, :n_responding] += hrf_shapes.convolve(onset, betas, hrf, VOLUMES, TR_S, STIMULUS_S)
        events = pd.DataFrame({"onset": onset, "duration": STIMULUS_S, "stimulus": [f"c{c:03d}" for c in conditions]})
        runs.append(BoldRun(1000 * (1 + percent / 100), TR_S, events, 1, number))
        table = np.zeros((VOLUMES, CONDITIONS))
        table[onset.astype(int), conditions] = 1
        tables.append(table)
    return runs, tables, library.responses(np.arange(0, 50, TR_S), STIMULUS_S), library.canonical


def ours(folder: Path, voxels: int, threshold: float | None = None) -> dict:
    """Type D, which makes B and C on its way; B and C are then made for comparison, untimed."""
    from phosphene.betas import BetaOptions, single_trial_betas

    runs, _, sampled, _ = study(voxels)
    clock, found = Clock(), {}
    for kind in reversed(KINDS):
        with clock if kind == "d" else contextlib.nullcontext():
            result = single_trial_betas(runs, BetaOptions(kind=kind, threshold=threshold))
        table = result.trials.voxels
        peak = sampled.max(axis=1)[table["hrf"]]  # GLMsingle's peaks are 1 at a volume, ours in time
        found[kind] = result.trials.betas.T * peak[:, None]
        if kind == "d":
            found |= {"hrf": table["hrf"], "fraction": table["fraction"], "count": result.n_components}
            found |= {"on_off_r2": table["on_off_r2"]}
    np.savez(folder / ("own.npz" if threshold is None else "ours.npz"), **found)
    return clock.figures()


def peer(folder: Path, voxels: int) -> dict:
    import matplotlib

    matplotlib.use("Agg")
    if os.environ.get("GLMSINGLE"):
        sys.path.insert(0, os.environ["GLMSINGLE"])
    glm_single = need("glmsingle.glmsingle").GLM_single
    runs, tables, sampled, assumed = study(voxels)
    options = {
        "hrftoassume": sampled[assumed].copy(), "hrflibrary": sampled.T.copy(), "n_pcs": 10,
        "wantfileoutputs": [0, 0, 0, 0], "wantmemoryoutputs": [0, 1, 1, 1],
    }  # fmt: skip
    clock = Clock()
    with tempfile.TemporaryDirectory() as here, contextlib.redirect_stdout(io.StringIO()):
        data = [np.ascontiguousarray(run.volumes.T) for run in runs]
        with clock:
            fit = glm_single(options).fit(
                tables, data, STIMULUS_S, TR_S, outputdir=f"{here}/files", figuredir=f"{here}/figures"
            )
    found = {kind: np.squeeze(fit[f"type{kind}"]["betasmd"]) for kind in KINDS}
    found |= {"hrf": np.squeeze(fit["typed"]["HRFindex"]), "fraction": np.squeeze(fit["typed"]["FRACvalue"])}
    found |= {"count": fit["typed"]["pcnum"], "pool": np.squeeze(fit["typed"]["noisepool"]).astype(bool)}
    np.savez(folder / "peer.npz", **found)
    return clock.figures()


def compare(folder: Path, voxels: int) -> dict:
    """Agreement with the same noise pool and with our own, and what the betas are worth."""
    if not (folder / "peer.npz").is_file():
        return {}
    own, theirs = (dict(np.load(folder / f"{name}.npz")) for name in ("own", "peer"))
    pool, r2 = theirs["pool"], own["on_off_r2"]
    ours(folder, voxels, float((r2[pool].max() + r2[~pool].min()) / 2))
    mine = dict(np.load(folder / "ours.npz"))
    worst = max(float(np.median(np.abs(mine[k] - theirs[k]) / theirs[k].std())) for k in KINDS)
    return {
        "difference": worst,
        "note": f"same noise pool: {agreement(mine, theirs)}; own threshold: {agreement(own, theirs)}; split-half "
        f"reliability: GLMsingle {reliability(theirs, voxels)}, own threshold {reliability(own, voxels)}",
    }


def reliability(found: dict, n_voxels: int) -> str:
    """Split-half reliability of each type: median over the voxels that respond (the first third)."""
    from phosphene.betas.split_halves import split_half

    table = pd.concat([r.events.assign(run=n) for n, r in enumerate(study(n_voxels)[0])], ignore_index=True)
    r = {k: split_half(found[k].T.astype(np.float32), table, np.random.default_rng(0), n_null=1).r for k in KINDS}
    return ", ".join(f"{k.upper()} {np.nanmedian(v[: n_voxels // 3]):.5f}" for k, v in r.items())


def agreement(mine: dict, theirs: dict) -> str:
    same = np.mean(mine["hrf"] == theirs["hrf"])
    fraction = np.mean(np.abs(mine["fraction"] - theirs["fraction"]) < 1e-6)
    apart = {k: np.abs(mine[k] - theirs[k]) / theirs[k].std() for k in KINDS}
    betas = ", ".join(f"{k.upper()} {np.median(d):.1e} (largest {d.max():.1e})" for k, d in apart.items())
    return (
        f"response {100 * same:.2f} %, fraction {100 * fraction:.2f} %, components {int(mine['count'])} and "
        f"{int(theirs['count'])}; betas differ by, in sd: {betas}"
    )


CASES = {"ours": ours, "GLMsingle": peer}
STEPS = growth("voxels", {1000: 0, 5000: 1, 20_000: 1}, tuple(CASES), up_to={"GLMsingle": 5000})
STEPS += growth("voxels", {20_000: 2}, tuple(CASES))
