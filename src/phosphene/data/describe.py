"""What a person sees of a data set: the list of all, the facts of one, what is wrong with it, a sheet of pictures."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.findings import Finding
from phosphene.data.measure import measure
from phosphene.data.quality import check_trials
from phosphene.data.registry import known, locate, reader
from phosphene.data.sheet import contact_sheet
from phosphene.data.splits import same_picture_across, same_pictures
from phosphene.errors import PhospheneError, PhospheneWarning
from phosphene.types import ROI, Dataset, Split, Stimuli, Trials

__all__ = [
    "Section",
    "check",
    "contact_sheet",
    "info",
    "list_rows",
    "listing",
    "render",
    "render_findings",
]


@dataclass(frozen=True)
class Section:
    """A titled list of facts, or a table.

    Parameters
    ----------
    title : such as "splits"
    rows : (name, value) pairs, or rows of a table under `columns`
    columns : headings of the table; empty for pairs
    """

    title: str
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...] = ()


def list_rows(root: str | Path | None = None) -> list[dict[str, str]]:
    """One row per data set that phosphene knows: name, title, what it needs, and where it was found.

    Parameters
    ----------
    root : see `locate`

    Returns
    -------
    list of dicts with the keys name, title, needs, licence, url, found (a path, "built in" or ""), problem
    """
    out = []
    for name in known():
        row = dict.fromkeys(("name", "title", "needs", "licence", "url", "found", "problem"), "")
        row["name"] = name
        try:
            r = reader(name)
            row.update(title=r.title, needs=r.files or "nothing", licence=r.licence, url=r.url)
            row["found"] = str(locate(name, root=root).path) if r.files else "built in"
        except (PhospheneError, ImportError) as error:
            row["problem"] = str(error)
        out.append(row)
    return out


def listing(root: str | Path | None = None) -> list[Section]:
    """`list_rows` as something to show: what can be read, and why what is missing is missing."""
    rows = list_rows(root)
    table = tuple((r["name"], r["title"], r["needs"], r["found"] or "not found") for r in rows)
    out = [Section("data sets", table, ("name", "what", "needs", "where"))]
    problems = tuple((r["name"], r["problem"]) for r in rows if r["problem"])
    if problems:
        out.append(Section("not found", problems))
    formats = (
        ("PATH.mat, .npz, .h5", "a file of responses and pictures; its arrays are named with options"),
        ("FOLDER", "a folder written by 'phosphene data import'"),
    )
    out.append(Section("besides names", formats))
    return out


def info(dataset: Dataset, *, measured: bool = True) -> list[Section]:
    """The facts of a data set: stimuli, subjects, ROIs, splits, values.

    Parameters
    ----------
    dataset : of any source
    measured : read every beta once for value ranges

    Returns
    -------
    list of Section, in the order to show them
    """
    out = [Section("data set", (("name", dataset.name), *((k, str(v)) for k, v in dataset.about.items())))]
    out.append(Section("stimuli", tuple(_stimulus_facts(dataset.stimuli))))
    columns = ("subject", "trials", "stimuli", "repeats", "sessions", "voxels", "noise ceiling")
    rows = []
    for name in dataset.subjects:
        rows.append(_subject_row(dataset.subjects[name]))
    if measured:
        columns = (*columns, "values", "median sd", "NaN")
        rows = [(*row, *_values(dataset.subjects[row[0]])) for row in rows]
    out.append(Section("subjects", tuple(rows), columns))
    rois = tuple(row for name in dataset.subjects for row in _roi_rows(dataset.subjects[name]))
    if rois:
        out.append(Section("ROIs", rois, ("subject", "ROI", "voxels", "shared with others")))
    ceilings = tuple(row for name in dataset.subjects for row in _ceiling_rows(dataset.subjects[name]))
    if ceilings:
        headings = ("subject", "ROI", "voxels", "one trial: median", "10 to 90 %")
        if any(len(row) > len(headings) for row in ceilings):
            headings = (*headings, "mean of three: median", "10 to 90 %")
            ceilings = tuple((*row, *[""] * (len(headings) - len(row))) for row in ceilings)
        out.append(Section("noise ceilings, share of variance", ceilings, headings))
    if dataset.splits:
        first = dataset.trials()
        rows = [_split_row(n, s, first) for n, s in dataset.splits.items()]
        headings = ("split", "by", "training", "test", "trials", "new categories", "digest", "note")
        out.append(Section("splits", tuple(rows), headings))
    return out


def check(
    spec: str | Path,
    *,
    root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Everything that can be checked about a data set before fitting.

    Parameters
    ----------
    spec, root, options : see `open_dataset`

    Returns
    -------
    list of Finding: the reader's own checks, then betas, stimuli and splits. Wrong data are findings of level
    "problem", never an exception.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhospheneWarning)  # what readers warn of is a finding here
        try:
            source = locate(spec, root=root)
            values = source.options(options)
        except PhospheneError as error:
            return [Finding("problem", "where", str(error))]
        out = list(source.reader.check(source.path, values))
        try:
            dataset = source.reader.load(source.path, values, source.subject)
            groups = same_pictures(dataset.stimuli)
            for name in dataset.subjects:
                out += _check_subject(dataset, dataset.subjects[name], groups)
            out += _check_stimuli(dataset, groups)
        except PhospheneError as error:
            if not any(str(error) in f.detail for f in out):
                out.append(Finding("problem", "reading", str(error)))
    return out


def _check_subject(dataset: Dataset, trials: Trials, groups: list[tuple[str, ...]]) -> list[Finding]:
    train = None
    if dataset.splits:
        train = dataset.split().apply(trials)[0]
    out = check_trials(trials, train=train)
    absent = sorted(set(trials.stimulus_ids) - set(dataset.stimuli.ids))
    if absent:
        out.append(
            Finding(
                "problem",
                "stimuli of trials",
                f"{len(absent)} stimuli shown to {trials.subject} are not in the store, first '{absent[0]}'.",
                "Add them to the stimuli, or take their trials out.",
            )
        )
    empty = [r for r in trials.rois if not trials.voxels[ROI + r].any()]
    if empty:
        out.append(Finding("note", "empty ROIs", f"{', '.join(empty)} of {trials.subject} hold no voxel."))
    for name, split in dataset.splits.items():
        both = same_picture_across(split, trials, dataset.stimuli, groups)
        if both:
            out.append(
                Finding(
                    "problem",
                    f"split {name}",
                    f"{len(both)} pictures stand on both sides for {trials.subject}, first "
                    f"{both[0][0]} in training = {both[0][1]} in test.",
                    "Use a split by stimulus, such as kfold:10.",
                )
            )
        else:
            detail = f"no picture stands on both sides for {trials.subject}, by id and by pixels."
            out.append(Finding("ok", f"split {name}", detail))
    return out


def _check_stimuli(dataset: Dataset, groups: list[tuple[str, ...]]) -> list[Finding]:
    stimuli, out = dataset.stimuli, []
    if stimuli.present is not None and not stimuli.present.all():
        gone = stimuli.ids[~stimuli.present]
        detail = f"{len(gone)} of {len(stimuli)} pictures are missing, first '{gone[0]}'."
        out.append(Finding("note", "missing pictures", detail, "Their trials cannot train or test pictures."))
    for group in groups[:5]:
        detail = f"{', '.join(group)} are the same to the last pixel under {len(group)} ids."
        out.append(Finding("problem", "same picture", detail, "Give them one id, so that no split can part them."))
    if stimuli.category is not None and len(set(stimuli.category)) == 1:
        detail = f"every stimulus is of the one category '{stimuli.category[0]}'."
        out.append(Finding("note", "single category", detail, "Scores by category and category splits are undefined."))
    if stimuli.captions is not None:
        without = [i for i, c in zip(stimuli.ids, stimuli.captions, strict=True) if not any(t.strip() for t in c)]
        if without:
            detail = f"{len(without)} of {len(stimuli)} stimuli have no caption, first '{without[0]}'."
            out.append(Finding("note", "captions", detail))
        longest = max((len(t.split()) for c in stimuli.captions for t in c), default=0)
        if longest > 77:
            detail = f"the longest caption has {longest} words; text encoders read about 77 tokens."
            out.append(Finding("note", "captions", detail))
    if not out:
        out.append(Finding("ok", "stimuli", f"{len(stimuli)} stimuli, all different and present."))
    return out


# -- facts -------------------------------------------------------------------------------------------------------------


def _stimulus_facts(stimuli: Stimuli) -> list[tuple[str, str]]:
    out = [("number", str(len(stimuli)))]
    if stimuli.images is None:
        out.append(("pictures", "none"))
    else:
        height, width, channels = stimuli.image_shape
        missing = 0 if stimuli.present is None else int((~stimuli.present).sum())
        colour = "grey" if channels == 1 else "RGB"
        out.append(("pictures", f"{height} x {width} {colour}{f', {missing} missing' if missing else ''}"))
    if stimuli.category is not None:
        names, counts = np.unique(stimuli.category.astype(str), return_counts=True)
        order = np.argsort(-counts, kind="stable")
        shown = ", ".join(f"{names[i]} ({counts[i]})" for i in order[:8])
        out.append(("categories", f"{shown}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"))
    if stimuli.captions is not None:
        counts = [len(c) for c in stimuli.captions]
        out.append(("captions", f"{sum(counts)}, {min(counts)} to {max(counts)} a stimulus"))
    if stimuli.labels is not None:
        out.append(
            ("labels", f"{stimuli.labels.shape[1]}, {stimuli.labels.to_numpy().sum(axis=1).mean():.1f} a stimulus")
        )
    return out


def _subject_row(trials: Trials) -> tuple[str, ...]:
    repeats = pd.Series(trials.stimuli).value_counts()
    low, high = int(repeats.min()), int(repeats.max())
    ceiling = trials.noise_ceiling
    sessions = trials.table["session"].nunique()
    return (
        trials.subject,
        str(len(trials)),
        str(len(repeats)),
        str(low) if low == high else f"{low} to {high}",
        str(sessions),
        str(trials.n_voxels),
        "unknown" if ceiling is None else f"median {np.nanmedian(ceiling):.2f}, best {np.nanmax(ceiling):.2f}",
    )


def _values(trials: Trials) -> tuple[str, str, str]:
    q = measure(trials)
    finite = np.isfinite(q.low)
    if not finite.any():
        return "none finite", "", str(int(q.n_nan.sum()))
    n_nan = int(q.n_nan.sum()) + q.bad_trials.size * trials.n_voxels
    return f"{q.low[finite].min():.3g} to {q.high[finite].max():.3g}", f"{np.median(q.sd[finite]):.3g}", str(n_nan)


def _roi_rows(trials: Trials) -> list[tuple[str, ...]]:
    if not trials.rois:
        return []
    members = np.stack([trials.voxels[ROI + r].to_numpy(bool) for r in trials.rois])
    counts = members.sum(axis=0)
    return [
        (trials.subject, name, str(int(m.sum())), str(int((m & (counts > 1)).sum())))
        for name, m in zip(trials.rois, members, strict=True)
    ]


def _ceiling_rows(trials: Trials) -> list[tuple[str, ...]]:
    """Spread of the ceilings in each ROI, and in the voxels of none; over voxels whose ceiling is a number, 0 included."""
    if trials.noise_ceiling is None:
        return []
    known = [trials.noise_ceiling]
    if "noise_ceiling_3" in trials.voxels:
        known.append(trials.voxels["noise_ceiling_3"].to_numpy(float))
    parts = {name: trials.roi(name) for name in trials.rois}
    if parts:
        outside = ~np.any(list(parts.values()), axis=0)
        parts |= {"none": outside} if outside.any() else {}
    else:
        parts = {"all": np.ones(trials.n_voxels, bool)}
    rows = []
    for name, part in parts.items():
        cells = []
        for ceiling in known:
            values = ceiling[part & np.isfinite(ceiling)]
            low, middle, high = np.quantile(values, (0.1, 0.5, 0.9)) if values.size else (np.nan,) * 3
            cells += [f"{middle:.2f}", f"{low:.2f} to {high:.2f}"] if values.size else ["unknown", ""]
        rows.append((trials.subject, name, str(int(part.sum())), *cells))
    return rows


def _split_row(name: str, split: Split, trials: Trials) -> tuple[str, ...]:
    try:
        train, test = split.apply(trials)
        counts = f"{len(train)} + {len(test)}"
    except PhospheneError:
        counts = "none of this subject"
    disjoint = {True: "yes", False: "no", None: "unknown"}[split.category_disjoint]
    return (
        name,
        split.unit,
        str(len(split.train)),
        str(len(split.test)),
        counts,
        disjoint,
        split.digest[:12],
        split.note,
    )


# -- as text -----------------------------------------------------------------------------------------------------------


def render(sections: Iterable[Section], width: int = 110) -> str:
    """Sections as plain text with aligned columns.

    Parameters
    ----------
    sections : what `listing` and `info` return
    width : of the text; the last column is wrapped to it
    """
    return "\n\n".join(f"{s.title}\n{_aligned(s, width)}" for s in sections)


def _aligned(section: Section, width: int) -> str:
    rows = ([section.columns] if section.columns else []) + list(section.rows)
    if not rows:
        return "  none"
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for row in rows:
        start = "  " + "".join(f"{cell:<{w}}  " for cell, w in zip(row[:-1], widths[:-1], strict=True))
        out.append(_wrapped(start, row[-1], width))
    return "\n".join(out)


def render_findings(findings: Iterable[Finding], width: int = 110) -> str:
    """Findings as plain text, what to do next on a line of its own, and a count at the end."""
    findings = list(findings)
    name = max((len(f.what) for f in findings), default=0)
    out = []
    for f in findings:
        start = f"{f.level:<8} {f.what:<{name}}  "
        out.append(_wrapped(start, f.detail, width))
        if f.next_step:
            out.append(_wrapped(" " * len(start) + "-> ", f.next_step, width))
    counts = {level: sum(f.level == level for f in findings) for level in ("problem", "note", "ok")}
    words = [f"{n} {level if level == 'ok' or n == 1 else level + 's'}" for level, n in counts.items()]
    return "\n".join([*out, ", ".join(words)])


def _wrapped(start: str, text: str, width: int) -> str:
    room = max(30, width - len(start))
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join((start if i == 0 else " " * len(start)) + line for i, line in enumerate(lines)).rstrip()
