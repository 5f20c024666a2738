"""What a person sees of a data set: the list of all, the facts of one, what is wrong with it, a sheet of pictures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.findings import Finding
from phosphene.data.measure import measure
from phosphene.data.plan_check import check_fetched
from phosphene.data.preview import preview
from phosphene.data.privacy import check_privacy
from phosphene.data.quality import check_trials
from phosphene.data.registry import known, locate, reader
from phosphene.data.sections import Section, render, render_findings
from phosphene.data.splits import same_picture_across, same_pictures
from phosphene.errors import PhospheneError, PhospheneWarning
from phosphene.io.reading import reading
from phosphene.reporting.contact_sheet import contact_sheet
from phosphene.types import ROI, Dataset, Split, Stimuli, Trials

__all__ = [
    "Section",
    "check",
    "contact_sheet",
    "counts",
    "examine",
    "info",
    "list_rows",
    "listing",
    "render",
    "render_findings",
]


_PICTURE_BYTES = 2**30  # pictures are compared with each other up to here; 1 GiB takes seconds


def list_rows(root: str | Path | None = None) -> list[dict[str, str]]:
    """One row per data set that phosphene knows: name, title, what it needs, and where it was found.

    Parameters
    ----------
    root : str or Path, optional
        see `locate`

    Returns
    -------
    list of dict of {str: str}
        list of dicts with the keys name, title, needs, licence, url, found (a path, "built in" or ""), problem
    """
    out = []
    for name in known():
        row = dict.fromkeys(("name", "title", "needs", "licence", "url", "found", "problem"), "")
        row["name"] = name

        try:
            r = reader(name)
            row.update(title=r.title, needs=r.files or "nothing", licence=r.licence, url=r.url)

            if r.files:
                row["found"] = str(locate(name, root=root).path)
            else:
                row["found"] = "built in"
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
    dataset : Dataset
        of any source
    measured : bool, default True
        read every beta once for value ranges

    Returns
    -------
    list of Section
        in the order to show them
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
    thorough: bool = False,
) -> list[Finding]:
    """Everything that can be checked about a data set before fitting.

    Parameters
    ----------
    spec : str or Path
        see `open_dataset`
    root : str or Path, optional
        see `open_dataset`
    options : mapping of {str: Any}, optional
        see `open_dataset`
    thorough : bool, default False
        read every beta and picture and every byte of fetched files, which takes long for raw NSD; otherwise of large
        data a bounded part, and the findings say which

    Returns
    -------
    list of Finding
        the reader's own checks, fetched files, then betas, stimuli and splits. Wrong data are findings of level
        "problem", never an exception.
    """
    return examine(spec, root=root, options=options, thorough=thorough)[0]


def examine(
    spec: str | Path,
    *,
    root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    thorough: bool = False,
) -> tuple[list[Finding], list[Section]]:
    """`check`, and beside it the counts of `counts`; empty where the data cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhospheneWarning)  # what readers warn of is a finding here
        try:
            source = locate(spec, root=root)
            values = source.options(options)
        except PhospheneError as error:
            return [Finding("problem", "where", str(error))], []

        try:
            with reading(source.path):
                out = list(source.reader.check(source.path, values))
        except PhospheneError as error:
            return [Finding("problem", "files", str(error))], []

        if not any(f.what == "checksum" for f in out):  # some readers compare their one file themselves
            out += check_fetched(source.name, source.path, thorough=thorough)

        beside: list[Section] = []
        try:
            with reading(source.path):
                dataset = source.reader.load(source.path, values, source.subject)

            beside = counts(dataset)
            compared = thorough or _picture_bytes(dataset.stimuli) <= _PICTURE_BYTES

            if compared:
                groups = same_pictures(dataset.stimuli)
            else:
                groups = []

            if not compared:
                detail = f"{len(dataset.stimuli)} pictures were not compared with each other, as they are many."
                out.append(Finding("note", "same picture", detail, "Ask with --thorough."))

            for name in dataset.subjects:
                out += _check_subject(dataset, dataset.subjects[name], groups, thorough, compared)

            out += _check_stimuli(dataset, groups)
            out += check_privacy(dataset, source.path)
        except PhospheneError as error:
            if not any(str(error) in f.detail for f in out):
                out.append(Finding("problem", "reading", str(error)))

    return out, beside


def _check_subject(
    dataset: Dataset, trials: Trials, groups: list[tuple[str, ...]], thorough: bool, compared: bool
) -> list[Finding]:
    if thorough:
        seen = trials
        words = ""
    else:
        seen, words = preview(trials)

    train = None
    if dataset.splits and seen is trials:
        train = dataset.split().apply(trials)[0]

    out = check_trials(seen, train=train)
    if words:
        out.append(Finding("note", "betas read", f"{words} of {trials.subject}.", "Read them all with --thorough."))

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
            if compared:
                how = "by id and by pixels"
            else:
                how = "by id"

            detail = f"no picture stands on both sides for {trials.subject}, {how}."
            out.append(Finding("ok", f"split {name}", detail))

    return out


def _picture_bytes(stimuli: Stimuli) -> int:
    if stimuli.images is None:
        return 0

    return len(stimuli) * math.prod(stimuli.image_shape)


def _check_stimuli(dataset: Dataset, groups: list[tuple[str, ...]]) -> list[Finding]:
    stimuli = dataset.stimuli
    out = []
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


# -- published counts --------------------------------------------------------------------------------------------------


def counts(dataset: Dataset) -> list[Section]:
    """Trials, voxels and ROI sizes of every subject beside the published ones, where ``counts.csv`` has them.

    No beta is read.

    Returns
    -------
    list of Section
        empty for a data set of which nothing is published
    """
    with (files("phosphene.data") / "counts.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)

    table = table[table["dataset"] == dataset.name]
    rows = []

    for name in dataset.subjects:
        trials = dataset.subjects[name]
        sizes = {f"ROI {r}": int(trials.voxels[ROI + r].sum()) for r in trials.rois}
        found = {"trials": len(trials), "voxels": trials.n_voxels, "pictures": len(trials.stimulus_ids), **sizes}
        found["sessions"] = int(trials.table["session"].nunique())
        mine = table[table["subject"].isin([name, "each"])]
        told = {what: (value, source) for what, value, source in mine[["what", "value", "source"]].to_numpy()}

        for what in [*(w for w in told if w in found), *(w for w in sizes if w not in told)]:
            value, source = told.get(what, ("", ""))
            if not value:
                same = ""
            elif int(value) == found[what]:
                same = "yes"
            else:
                same = "no"

            rows.append((name, what, str(found[what]), value or "not published", same, source))

    headings = ("subject", "what", "found", "published", "the same", "source")
    if len(table) and rows:
        return [Section("counts", tuple(rows), headings)]

    return []


# -- facts -------------------------------------------------------------------------------------------------------------


def _stimulus_facts(stimuli: Stimuli) -> list[tuple[str, str]]:
    out = [("number", str(len(stimuli)))]
    if stimuli.images is None:
        out.append(("pictures", "none"))
    else:
        height, width, channels = stimuli.image_shape
        if stimuli.present is None:
            missing = 0
        else:
            missing = int((~stimuli.present).sum())

        if channels == 1:
            colour = "grey"
        else:
            colour = "RGB"

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
    low = int(repeats.min())
    high = int(repeats.max())
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
            if values.size:
                low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
            else:
                low, middle, high = (np.nan,) * 3

            if values.size:
                cells += [f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
            else:
                cells += ["unknown", ""]

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
