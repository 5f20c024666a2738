"""NSD's files against what they should be, without reading betas."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phosphene.data import nsd_stimuli
from phosphene.data.findings import Finding
from phosphene.data.nsd_design import N_SESSIONS, STIM_INFO, Design, design_from_csv
from phosphene.data.nsd_subject import LABELS, SESSIONS, VOXELS, NSDOptions, beta_folder, roi_files, roi_folder
from phosphene.errors import PhospheneError
from phosphene.types import Trials

_EXTRA_STEP = {
    "pictures": f"Fetch {nsd_stimuli.BRICK} to train or test pictures.",
    "captions": f"Put {nsd_stimuli.CAPTIONS}, or COCO's captions_*.json in {nsd_stimuli.COCO}, there to use captions.",
    "categories": f"Put COCO's instances_*.json in {nsd_stimuli.COCO}, with {STIM_INFO}, to use categories.",
}


def check_extras(path: Path) -> list[Finding]:
    """What may be absent, and what is lost then."""
    coco = path / nsd_stimuli.COCO
    there = {
        "pictures": [path / nsd_stimuli.BRICK, path / nsd_stimuli.SHARED_FOLDER],
        "captions": [
            *(path / p / nsd_stimuli.CAPTIONS for p in nsd_stimuli.CAPTION_PLACES),
            *coco.glob("captions_*.json"),
        ],
        "categories": list(coco.glob("instances_*.json")),
    }
    return [
        Finding("note", what, f"{path} has no {what}.", _EXTRA_STEP[what])
        for what, places in there.items()
        if not any(p.exists() for p in places)
    ]


def check_design(path: Path, design: Design) -> Finding:
    """Size of the design, and whether its two files agree."""
    size = f"{design.n_trials} trials a subject, {len(design.shared)} shared pictures"
    if design.origin != Path(STIM_INFO).name and (path / STIM_INFO).is_file():
        try:
            other = design_from_csv(path / STIM_INFO)
        except PhospheneError as error:
            return Finding("problem", "design", str(error))
        for subject, shown in design.shown.items():
            if not np.array_equal(shown, other.shown[subject]):
                detail = f"{design.origin} and {other.origin} show {subject} different pictures."
                return Finding("problem", "design", detail, "Fetch both again from the public bucket.")
    if not design.is_public:
        detail = f"{design.origin} has {size}; the public design has 30000 and 1000."
        return Finding("note", "design", detail, "Published counts do not apply.")
    return Finding("ok", "design", f"{design.origin}: {size}, as published.")


def check_counts(design: Design, trials: Trials, options: NSDOptions) -> list[Finding]:
    """Trials, voxels and pictures of one subject beside the published counts."""
    name, table = trials.subject, trials.table
    n_sessions, n_shown = table["session"].nunique(), len(trials.stimulus_ids)
    out = [
        Finding(
            "ok", name, f"{len(trials)} trials in sessions {trials.provenance['sessions']}, {trials.n_voxels} voxels."
        )
    ]
    if not design.is_public:
        return out
    if options.mask == "nsdgeneral":
        right = trials.n_voxels == VOXELS[name]
        detail = f"{trials.n_voxels} in nsdgeneral{', as published' if right else f'; {VOXELS[name]} are published'}."
        out.append(
            Finding("ok" if right else "problem", f"{name} voxels", detail, "" if right else "Fetch the mask again.")
        )
    if n_sessions < SESSIONS[name]:
        detail = f"{n_sessions} of the {SESSIONS[name]} measured sessions are read."
        out.append(Finding("note", f"{name} sessions", detail, "Compare only with results on as many sessions."))
    if n_sessions == 37 and SESSIONS[name] == N_SESSIONS:
        shared = len(set(table["stimulus"][table["is_shared"]]))
        right = (n_shown - shared, shared) == (8859, 982)
        said = ", as published" if right else "; published: 8859, 982"
        detail = f"{n_shown - shared} training and {shared} test pictures{said}."
        out.append(Finding("ok" if right else "problem", f"{name} pictures", detail))
    return out


def check_files(path: Path, name: str, options: NSDOptions) -> list[Finding]:
    """ROIs and noise ceilings that are not there."""
    missing = [c for c in LABELS if not roi_files(roi_folder(path, name), c)]
    out = []
    if missing:
        detail = f"{', '.join(missing)} are not in {roi_folder(path, name)}."
        out.append(Finding("note", f"{name} ROIs", detail, "Fetch them to select or report by region."))
    if not (beta_folder(path, name, options) / "ncsnr.nii.gz").is_file():
        detail = "ncsnr.nii.gz is missing, so there is no noise ceiling."
        out.append(Finding("note", f"{name} noise ceiling", detail, "Fetch it from the folder of betas."))
    return out
