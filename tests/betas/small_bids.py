"""Tiny BIDS studies whose responses are planted, so that the right betas are known."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.stats import gamma

from phosphene.betas import BetaOptions, betas_from_folder

STIMULI = tuple(f"s{i:02d}" for i in range(20))
STRENGTH = dict(zip(STIMULI, 10 + 10 * np.abs(np.random.default_rng(9).normal(size=20)), strict=True))
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SHAPE = (4, 4, 3)
TR_S = 2.0


def response(t, onset_s, duration_s):
    """A double gamma of height 1, averaged over the duration of the trial."""
    total = np.zeros_like(t)
    steps = max(1, round(duration_s / 0.1))
    for step in range(steps):
        x = np.clip(t - onset_s - 0.1 * step, 0, None)
        total += (gamma.pdf(x, 6) - gamma.pdf(x, 16) / 6) / 0.175

    return total / steps


def trials(seed):
    """(onset, duration, stimulus) of a run: every stimulus once, about six seconds apart."""
    rng = np.random.default_rng(seed)
    made = []
    for i, stimulus in enumerate(rng.permutation(STIMULI)):
        made.append((4 + 6.0 * i + float(rng.choice([0, 1, 2])), 2.0, str(stimulus)))

    return made


def series(events, *, n=None, tr_s=TR_S, late_s=0.0, seed=0, add=None):
    """(4, 4, 3, n) volumes, of which the first half of the voxels answers; values stand for `late_s` after a volume starts."""
    n = n or int(np.ceil((max(onset for onset, _, _ in events) + 20) / tr_s))
    t = np.arange(n) * tr_s + late_s
    volumes = 1000 + 3 * np.random.default_rng(seed).normal(size=(*SHAPE, n))
    for onset, duration, stimulus in events:
        volumes[:2] += STRENGTH.get(stimulus, 20) * response(t, onset, duration)

    if add is not None:
        volumes += add[:n]

    return volumes


def write_bold(path, volumes, *, header_tr=TR_S):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volumes.astype(np.float32), AFFINE)
    image.header.set_zooms((3, 3, 3, header_tr))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def write_mask(path, shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), AFFINE), path)


def write_tsv(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in [columns, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def plain(events, run):
    """Columns and rows of a table of events that says what was shown."""
    return ("onset", "duration", "stimulus"), events


def write_study(
    root,
    *,
    runs=(1, 2, 3),
    task="see",
    sessions=("",),
    middle="",
    rows=plain,
    tr_json=TR_S,
    header_tr=TR_S,
    change=None,
    **how,
):
    """One subject 01; a mask at the top, events beside the images."""
    write_mask(root / "mask.nii.gz")
    for session in sessions:
        folder = root / "sub-01" / (f"ses-{session}" if session else "") / "func"
        for number, run in enumerate(runs):
            events = trials(number + 1)
            parts = ["sub-01", f"ses-{session}" if session else "", f"task-{task}", middle, f"run-{run}"]
            name = "_".join(part for part in parts if part)
            volumes = series(events, seed=number, **how)
            if change is not None:
                volumes = change(volumes)

            write_bold(folder / f"{name}_bold.nii.gz", volumes, header_tr=header_tr)
            write_tsv(folder / f"{name}_events.tsv", *rows(events, number))

    if tr_json:
        write_json(root / f"task-{task}_bold.json", RepetitionTime=tr_json)

    return root


def made(root, out, *, mask="mask.nii.gz", kind="lsa", options=None, **how):
    """Betas of the subject, and what was warned of."""
    place = None
    if mask is not None:
        place = root / mask

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = betas_from_folder(root, "01", out, BetaOptions(kind=kind, **(options or {})), mask=place, **how)

    return result, [str(one.message) for one in told]


def truth(result, *, run=None, name=str):
    """Correlation of the betas of the half that answers with what was planted: .99 and more when all is well."""
    table = result.trials.table
    chosen = np.ones(len(table), bool)
    if run is not None:
        chosen = (table["run"] == run).to_numpy()

    answers = (result.trials.voxels["i"] < 2).to_numpy()
    betas = np.asarray(result.trials.betas)[:, answers].mean(axis=1)[chosen]
    planted = [STRENGTH[name(stimulus)] for stimulus in table["stimulus"][chosen]]

    return float(np.corrcoef(betas, planted)[0, 1])


def files(root: Path, pattern: str) -> list[Path]:
    """In order, as a list that stays while files are moved."""
    return sorted(root.glob(pattern))
