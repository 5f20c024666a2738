"""Single-trial betas of every type against those that went in: python -m benchmarks.betas_truth

Six simulated people (300 voxels, 50 pictures once and 50 three times, 4 runs of 50 trials), scanned with the simulator's own
noise, and with strong noise that voxels share. Every voxel's response is one of the simulator's family (three inverse logit
functions with parameters of its own); types B, C and D choose from the library of :mod:`phosphene.betas` (differences of two gamma
functions), which holds none of them. A number is the median, over voxels whose noise ceiling is over 0.05, of the correlation of
betas with truth over all trials; intervals are over people (t, 95 %), and differences from ``lsa`` are paired.

    python -m benchmarks.betas_truth                   the rows of docs/betas.md, half a minute
    python -m benchmarks.betas_truth --people 12       more people
    python -m benchmarks.betas_truth --hrf TABLE       choose from another table of responses
"""

from __future__ import annotations

import argparse

import numpy as np

from phosphene.betas import BetaOptions, BoldRun, HrfLibrary, single_trial_betas
from phosphene.data.insilico import make
from phosphene.data.insilico.bold import Bold, scan

KINDS = ("lsa", "lss", "b", "c", "d")
SCANNERS = {
    "scanner's own noise": {},
    "strong noise that voxels share": {"physiology_sd": 2.0, "motion_sd": 2.0, "noise_sd": 0.5},
}


def runs_of(bold: Bold) -> list[BoldRun]:
    """The runs of a simulated study as those of any study."""
    runs = []
    for run in bold:
        events = run.trials.rename(columns={"onset_s": "onset"}).assign(duration=bold.scanner.stimulus_s)
        runs.append(BoldRun(run.volumes, run.tr_s, events[["onset", "duration", "stimulus"]], run.session, run.run))
    return runs


def correlation(betas: np.ndarray, truth: np.ndarray) -> float:
    """Median over voxels of the correlation over trials, both (n_trials, n_voxels)."""
    betas = betas - betas.mean(axis=0)
    truth = truth - truth.mean(axis=0)
    along = (betas * truth).sum(axis=0)
    return float(np.median(along / np.sqrt((betas**2).sum(axis=0) * (truth**2).sum(axis=0))))


def measure(person: int, changes: dict[str, float], library: HrfLibrary) -> list[float]:
    """One person's correlation with the truth for every kind of betas."""
    study = make("nsd", subject=person, n_train=50, n_test=50, n_voxels=300, trials_per_run=50, seed=1)
    responds = study.voxels["noise_ceiling"].to_numpy() > 0.05
    bold = scan(study, **changes)
    runs = runs_of(bold)

    found = []
    for kind in KINDS:
        result = single_trial_betas(runs, BetaOptions(kind=kind), library=library)
        found.append(correlation(result.trials.betas[:, responds], bold.betas[:, responds]))
    return found


def interval(values: np.ndarray) -> str:
    """Mean over people and its 95 % interval."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]".replace("-", "−")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=6, help="simulated, at least two")
    parser.add_argument("--hrf", help="table of responses to choose from, a row per 0.1 s (default: our own twenty)")
    options = parser.parse_args()
    library = HrfLibrary.read(options.hrf) if options.hrf else HrfLibrary()

    for name, changes in SCANNERS.items():
        people = [measure(person, changes, library) for person in range(1, options.people + 1)]
        table = np.array(people)  # (n_people, n_kinds)
        print(f"\n{name}, responses chosen from {library.name}\n\n| | r with truth | minus `lsa` |\n|---|---|---|")
        for kind, values in zip(KINDS, table.T, strict=True):
            gain = "" if kind == "lsa" else interval(values - table[:, 0])
            print(f"| `{kind}` | {interval(values)} | {gain} |")


if __name__ == "__main__":
    main()
