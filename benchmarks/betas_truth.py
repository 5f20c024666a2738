"""Single-trial betas of every type against those that went in: python -m benchmarks.betas_truth

Six simulated people (300 voxels, 50 pictures once and 50 three times, 4 runs of 50 trials), scanned with the simulator's own
noise, and with strong noise that voxels share. Every voxel's response is one of the simulator's family (three inverse logit
functions with parameters of its own); types B, C and D choose from the library of :mod:`phosphene.betas` (differences of two
gamma functions), which holds none of them. A number is the median, over voxels whose noise ceiling is over 0.05, of the
correlation of betas with truth over all trials; intervals are over people (t, 95 %), and differences from ``lsa`` are paired.

    python -m benchmarks.betas_truth                   the rows of docs/betas.md, half a minute
    python -m benchmarks.betas_truth --people 12       more people
    python -m benchmarks.betas_truth --hrf TABLE       choose from another table of responses
    python -m benchmarks.betas_truth --onsets          are onsets that were moved found? The simulated rows of the other table

Onsets: 10 studies with 6 s from one onset to the next and many rests (2 runs of 40 trials), and 10 rapid ones (4 s, few rests,
3 runs of 40 trials), 60 voxels each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from phosphene.betas import BetaOptions, BoldRun, HrfLibrary, onset_shift, single_trial_betas
from phosphene.lab import make
from phosphene.lab.bold import Bold, Scanner, scan

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
    bold = scan(study, replace(Scanner(), **changes))
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


def moved(runs: Iterable[BoldRun], by_s: float) -> list[BoldRun]:
    """The same runs with events that say so much later than the pictures came on."""
    return [replace(run, events=run.events.assign(onset=run.events["onset"] + by_s)) for run in runs]


def onsets(library: HrfLibrary) -> None:
    """Print how many planted shifts are found, and how far from where they were planted."""
    slow, rapid = [], []
    for seed in range(10):
        few = make("nsd", n_train=20, n_test=20, n_voxels=60, trials_per_run=40, seed=seed)
        many = make("nsd", n_train=60, n_test=20, n_voxels=60, trials_per_run=40, seed=seed)
        slow.append(runs_of(scan(few, seed=seed, gap_s=3.0, blank_share=0.3)))
        rapid.append(runs_of(scan(many, seed=seed)))

    for name, studies in (("6 s apart with rests", slow), ("rapid", rapid)):
        for late_s in (0.0, -3.0, 3.0, 5.0):
            shifts = [onset_shift(moved(runs, late_s), library) for runs in studies]
            errors = [shift.best_s + late_s for shift in shifts if shift.is_suspect]
            where = (
                f", median error {np.median(errors):+.2f} s ({min(errors):+.2f} to {max(errors):+.2f})"
                if errors
                else ""
            )
            print(f"{name}, onsets late by {late_s:+g} s: {len(errors)} of {len(shifts)} called late or early{where}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="Single-trial betas of every type against those that went in.")
    parser.add_argument("--people", type=int, default=6, help="simulated, at least two")
    parser.add_argument("--hrf", help="table of responses to choose from, a row per 0.1 s (default: our own twenty)")
    parser.add_argument("--onsets", action="store_true", help="look for onsets that were moved instead")
    options = parser.parse_args()
    library = HrfLibrary.read(options.hrf) if options.hrf else HrfLibrary()
    if options.onsets:
        onsets(library)
        return

    for name, changes in SCANNERS.items():
        people = [measure(person, changes, library) for person in range(1, options.people + 1)]
        table = np.array(people)  # (n_people, n_kinds)
        print(f"\n{name}, responses chosen from {library.name}\n\n| | r with truth | minus `lsa` |\n|---|---|---|")
        for kind, values in zip(KINDS, table.T, strict=True):
            gain = "" if kind == "lsa" else interval(values - table[:, 0])
            print(f"| `{kind}` | {interval(values)} | {gain} |")


if __name__ == "__main__":
    main()
