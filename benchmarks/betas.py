"""Single-trial betas of types B, C and D, beside GLMsingle. Run: python benchmarks/betas.py

    python benchmarks/betas.py --glmsingle FOLDER     a checkout of cvnlab/GLMsingle as the peer (or GLMSINGLE=FOLDER)
    python benchmarks/betas.py --voxels 5000 --rounds 3

4 runs of 300 volumes (TR 1 s), 75 trials of 3 s each, 100 conditions shown three times, twenty responses, up to ten noise
components, twenty fractions; two random walks shared by all voxels, a third of which respond. Both sides get the same
library, the same responses for the on-off model, and write no files or figures. GLMsingle's threshold of the noise pool (a
mixture fit without a seed, read off a grid) is handed to ours, so that what is compared is not chance; agreement with our own
threshold is printed too. Each case runs in a process of its own, on --threads threads, in turn with its rival. CPU seconds are
those of the fit alone, medians over rounds; memory is the process's largest. GLMsingle needs fracridge and tqdm installed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from ridge import peak_memory

TR_S, STIMULUS_S, VOLUMES, RUNS, TRIALS, CONDITIONS = 1.0, 3.0, 300, 4, 75, 100
KINDS = ("b", "c", "d")


def study(n_voxels: int):
    """Runs, the design as a table of onsets, and responses sampled at the volumes."""
    from phosphene.betas import BoldRun, HrfLibrary

    rng, library = np.random.default_rng(0), HrfLibrary()
    signal = rng.normal(1, 1, (CONDITIONS, n_voxels)).astype(np.float32)
    signal[:, n_voxels // 3 :] = 0
    hrf, maps = rng.integers(0, len(library), n_voxels), rng.normal(size=(2, n_voxels)).astype(np.float32)
    shown = np.concatenate([rng.permutation(CONDITIONS) for _ in range(3)]).reshape(RUNS, TRIALS)
    slots = np.sort(rng.choice(TRIALS, 15, replace=False))  # pauses, without which trials cannot be told from drift
    onset = 3 * (np.arange(TRIALS) + np.searchsorted(slots, np.arange(TRIALS)) / 1.0) + 4
    runs, tables = [], []
    for number, conditions in enumerate(shown, 1):
        designs = library.designs(onset, np.full(TRIALS, STIMULUS_S), VOLUMES, TR_S).astype(np.float32)
        betas = signal[conditions] * (1 + 0.3 * rng.standard_normal((TRIALS, n_voxels), dtype=np.float32))
        walk = np.cumsum(rng.normal(size=(VOLUMES, 2)), axis=0).astype(np.float32)
        percent = (walk - walk.mean(axis=0)) / walk.std(axis=0) @ maps
        percent += rng.standard_normal((VOLUMES, n_voxels), dtype=np.float32)
        for shape in range(len(library)):
            percent[:, hrf == shape] += designs[shape] @ betas[:, hrf == shape]
        events = pd.DataFrame({"onset": onset, "duration": STIMULUS_S, "stimulus": [f"c{c:03d}" for c in conditions]})
        runs.append(BoldRun(1000 * (1 + percent / 100), TR_S, events, 1, number))
        table = np.zeros((VOLUMES, CONDITIONS))
        table[onset.astype(int), conditions] = 1
        tables.append(table)
    return runs, tables, library.responses(np.arange(0, 50, TR_S), STIMULUS_S), library.canonical


def ours(n_voxels: int, out: Path, threshold: float | None) -> float:
    """CPU seconds of type D, which makes B and C on its way; B and C are then made for comparison, untimed."""
    from phosphene.betas import BetaOptions, single_trial_betas

    runs, _, sampled, _ = study(n_voxels)
    spent, found = 0.0, {}
    for kind in reversed(KINDS):
        start = time.process_time()
        result = single_trial_betas(runs, BetaOptions(kind=kind, threshold=threshold))
        spent = spent or time.process_time() - start
        voxels = result.trials.voxels
        peak = sampled.max(axis=1)[voxels["hrf"]]  # GLMsingle's peaks are 1 at a volume, ours in time
        found[kind] = result.trials.betas.T * peak[:, None]
        if kind == "d":
            found |= {"hrf": voxels["hrf"], "fraction": voxels["fraction"], "count": result.n_components}
            found |= {"on_off_r2": voxels["on_off_r2"]}
    np.savez(out, **found)
    return spent


def peer(n_voxels: int, out: Path, folder: Path) -> float:
    """CPU seconds of GLMsingle's fit."""
    import matplotlib

    matplotlib.use("Agg")
    sys.path.insert(0, str(folder))
    from glmsingle.glmsingle import GLM_single

    runs, tables, sampled, assumed = study(n_voxels)
    options = {
        "hrftoassume": sampled[assumed].copy(), "hrflibrary": sampled.T.copy(), "n_pcs": 10,
        "wantfileoutputs": [0, 0, 0, 0], "wantmemoryoutputs": [0, 1, 1, 1],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as here, contextlib.redirect_stdout(io.StringIO()):
        data = [np.ascontiguousarray(run.volumes.T) for run in runs]
        start = time.process_time()
        fit = GLM_single(options).fit(
            tables, data, STIMULUS_S, TR_S, outputdir=f"{here}/files", figuredir=f"{here}/figures"
        )
        spent = time.process_time() - start
    found = {kind: np.squeeze(fit[f"type{kind}"]["betasmd"]) for kind in KINDS}
    found |= {"hrf": np.squeeze(fit["typed"]["HRFindex"]), "fraction": np.squeeze(fit["typed"]["FRACvalue"])}
    found |= {"count": fit["typed"]["pcnum"], "pool": np.squeeze(fit["typed"]["noisepool"]).astype(bool)}
    np.savez(out, **found)
    return spent


def run(case: str, options: argparse.Namespace, out: Path, threshold: float | None = None) -> dict:
    """One case in a process of its own."""
    limits = {n: str(options.threads) for n in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, "--case", case, "--voxels", str(options.voxels), "--out", str(out)]
    command += ["--glmsingle", str(options.glmsingle)] if options.glmsingle else []
    command += ["--threshold", str(threshold)] if threshold is not None else []
    done = subprocess.run(command, env=os.environ | limits, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def reliability(found: dict, n_voxels: int) -> str:
    """Split-half reliability of each type: median over the voxels that respond (the first third)."""
    from phosphene.betas.reliability import split_half

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--glmsingle", type=Path, default=os.environ.get("GLMSINGLE"), help="checkout of GLMsingle")
    parser.add_argument("--case", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threshold", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        if options.case == "ours":
            spent = ours(options.voxels, options.out, options.threshold)
        else:
            spent = peer(options.voxels, options.out, options.glmsingle)
        print(json.dumps({"cpu": spent, "memory": peak_memory()}))
        return
    before = os.getloadavg()[0]
    done: dict[str, list[dict]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        files = {case: Path(folder) / f"{case}.npz" for case in ("own", *done)}
        for _ in range(options.rounds):
            done["ours"].append(run("ours", options, files["own"]))
            if options.glmsingle:
                done["peer"].append(run("peer", options, files["peer"]))
        found = {case: dict(np.load(path)) for case, path in files.items() if path.exists()}
        if options.glmsingle:
            pool, r2 = found["peer"]["pool"], found["own"]["on_off_r2"]
            run("ours", options, files["ours"], float((r2[pool].max() + r2[~pool].min()) / 2))
            found["ours"] = dict(np.load(files["ours"]))
    cpu = {case: statistics.median(d["cpu"] for d in runs) for case, runs in done.items() if runs}
    memory = {case: max(d["memory"] for d in runs) for case, runs in done.items() if runs}
    print(
        f"Betas B, C, D of {options.voxels:,} voxels, {RUNS} runs of {VOLUMES} volumes, {RUNS * TRIALS} trials, "
        f"{options.threads} thread; load {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    )
    for case, title in {"peer": "GLMsingle", "ours": "phosphene"}.items():
        if case in cpu:
            ratio = f"   ratio {cpu['peer'] / cpu[case]:.1f}" if "peer" in cpu else ""
            print(f"  {title:<10} {cpu[case]:8.2f} CPU s   {memory[case] / 1e9:.2f} GB{ratio}")
    if options.glmsingle:
        print(f"  same noise pool: {agreement(found['ours'], found['peer'])}")
        print(f"  own threshold:   {agreement(found['own'], found['peer'])}")
        for case, title in {"peer": "GLMsingle", "own": "phosphene, own threshold"}.items():
            print(f"  split-half reliability, {title}: {reliability(found[case], options.voxels)}")
    else:
        print("  no checkout of GLMsingle was given: no ratio")


if __name__ == "__main__":
    main()
