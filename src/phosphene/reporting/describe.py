"""What a person sees of a data set: the list of all, the facts of one, what is wrong with it, and published counts."""

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
from phosphene.data.plan_check import check_fetched
from phosphene.data.preview import preview
from phosphene.data.privacy import check_privacy
from phosphene.data.quality import check_trials
from phosphene.data.registry import known, locate, reader
from phosphene.data.sections import Section, render, render_findings
from phosphene.data.splits import same_picture_across, same_pictures
from phosphene.data.value_ranges import measure
from phosphene.errors import PhospheneError, PhospheneWarning
from phosphene.io.reading import reading
from phosphene.reporting.contact_sheet import contact_sheet
from phosphene.reporting.rows import rows_at
from phosphene.types import ROI, Dataset, Split, Stimuli, Trials
from phosphene.validity.check import rows_where

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
_MAX_CATEGORIES = 8  # named in a list
_MAX_WORDS = 77  # of a caption; CLIP's text encoder reads so many tokens


def list_rows(root: str | Path | None = None) -> list[dict[str, str]]:
    """One row per data set that phosphene knows: name, title, what it needs, and where it was found.

    Parameters
    ----------
    root : str or Path, optional
        see `locate`

    Returns
    -------
    list of dict of str to str
        keys name, title, needs, licence, url, found (a path, "built in" or ""), problem
    """
    rows = []
    for name in known():
        row: dict[str, str] = dict.fromkeys(("name", "title", "needs", "licence", "url", "found", "problem"), "")
        row["name"] = name

        try:
            of_set = reader(name)
            row["title"] = of_set.title
            row["needs"] = of_set.files or "nothing"
            row["licence"] = of_set.licence
            row["url"] = of_set.url

            if of_set.files:
                row["found"] = str(locate(name, root=root).path)
            else:
                row["found"] = "built in"
        except Exception as error:  # a reader of another package may raise anything; the others are listed all the same
            row["problem"] = str(error)

        rows.append(row)

    return rows


def listing(root: str | Path | None = None) -> list[Section]:
    """Sections of what can be read, and why what is missing is missing.

    Parameters
    ----------
    root : str or Path, optional
        see `locate`

    Returns
    -------
    list of Section
        The data sets, those that were not found and why, and the kinds of files that are read by their path.
    """
    rows = list_rows(root)
    table = tuple((row["name"], row["title"], row["needs"], row["found"] or "not found") for row in rows)
    problems = tuple((row["name"], row["problem"]) for row in rows if row["problem"])
    sections = [Section("data sets", table, ("name", "what", "needs", "where"))]

    if problems:
        sections.append(Section("not found", problems))

    formats = (
        ("PATH.mat, .npz, .h5", "a file of responses and pictures; its arrays are named with options"),
        ("FOLDER", "a folder written by 'phosphene data import'"),
    )

    sections.append(Section("besides names", formats))
    return sections


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
    about = tuple((key, str(value)) for key, value in dataset.about.items())
    subjects = [dataset.subjects[name] for name in dataset.subjects]
    sections = [
        Section("data set", (("name", dataset.name), *about)),
        Section("stimuli", tuple(_stimulus_facts(dataset.stimuli))),
        _subject_section(subjects, measured=measured),
    ]

    rois = tuple(row for trials in subjects for row in _roi_rows(trials))
    if rois:
        sections.append(Section("ROIs", rois, ("subject", "ROI", "voxels", "shared with others")))

    ceilings = [row for trials in subjects for row in _ceiling_rows(trials)]
    if ceilings:
        sections.append(_ceiling_section(ceilings))

    if dataset.splits:
        first = dataset.trials()
        rows = tuple(_split_row(name, split, first) for name, split in dataset.splits.items())
        headings = ("split", "by", "training", "test", "trials", "new categories", "digest", "note")
        sections.append(Section("splits", rows, headings))

    return sections


def _subject_section(subjects: list[Trials], *, measured: bool) -> Section:
    columns = ("subject", "trials", "stimuli", "repeats", "sessions", "voxels", "noise ceiling")
    rows = [_subject_row(trials) for trials in subjects]
    if measured:
        columns = (*columns, "values", "median sd", "NaN")
        rows = [(*row, *_values(trials)) for row, trials in zip(rows, subjects, strict=True)]

    return Section("subjects", tuple(rows), columns)


def _ceiling_section(rows: list[tuple[str, ...]]) -> Section:
    """Ceilings of one trial, and of the mean of three for those who have them."""
    headings = ("subject", "ROI", "voxels", "one trial: median", "10 to 90 %")
    if any(len(row) > len(headings) for row in rows):
        headings = (*headings, "mean of three: median", "10 to 90 %")

    padded = tuple((*row, *[""] * (len(headings) - len(row))) for row in rows)
    return Section("noise ceilings, share of variance", padded, headings)


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
    options : Mapping[str, Any], optional
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
    """`check` a data set, and count it.

    Parameters
    ----------
    spec : str or Path
        see `open_dataset`
    root : str or Path, optional
        see `open_dataset`
    options : Mapping[str, Any], optional
        see `open_dataset`
    thorough : bool, default False
        see `check`

    Returns
    -------
    tuple of (list of Finding, list of Section)
        the findings of `check`; and the sections of `counts`, none where the data cannot be read
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhospheneWarning)  # what readers warn of is a finding here
        try:
            source = locate(spec, root=root)
            values = source.options(options)
        except PhospheneError as error:
            return [Finding("problem", "where", str(error))], []

        try:
            with reading(source.path):
                findings = list(source.reader.check(source.path, values))
        except PhospheneError as error:
            return [Finding("problem", "files", str(error))], []

        if not any(f.what == "checksum" for f in findings):  # some readers compare their one file themselves
            findings += check_fetched(source.name, source.path, thorough=thorough)

        sections: list[Section] = []
        try:
            with reading(source.path):
                dataset = source.reader.load(source.path, values, source.subject)

            sections = counts(dataset)
            compared = thorough or _picture_bytes(dataset.stimuli) <= _PICTURE_BYTES
            groups: list[tuple[str, ...]] = []

            if compared:
                groups = same_pictures(dataset.stimuli)
            else:
                detail = f"{len(dataset.stimuli)} pictures were not compared with each other, as they are many."
                findings.append(Finding("note", "same picture", detail, "Ask with --thorough."))

            for name in dataset.subjects:
                findings += _check_subject(dataset, dataset.subjects[name], groups, thorough, compared)

            findings += _check_stimuli(dataset, groups)
            findings += check_privacy(dataset, source.path)
        except PhospheneError as error:
            if not any(str(error) in f.detail for f in findings):
                findings.append(Finding("problem", "reading", str(error)))

    return findings, sections


def _check_subject(
    dataset: Dataset, trials: Trials, groups: list[tuple[str, ...]], thorough: bool, compared: bool
) -> list[Finding]:
    part = trials
    words = ""
    if not thorough:
        part, words = preview(trials)

    train = None
    if dataset.splits and part is trials:
        train = dataset.split().apply(trials)[0]

    findings = check_trials(part, train=train)
    if words:
        detail = f"{words} of {trials.subject}."
        findings.append(Finding("note", "betas read", detail, "Read them all with --thorough."))

    absent = sorted(set(trials.stimulus_ids) - set(dataset.stimuli.ids))
    if absent:
        findings.append(
            Finding(
                "problem",
                "stimuli of trials",
                f"{len(absent)} stimuli shown to {trials.subject} are not in the store, first '{absent[0]}'.",
                "Add them to the stimuli, or take their trials out.",
            )
        )

    empty = [roi for roi in trials.rois if not trials.roi(roi).any()]
    if empty:
        findings.append(Finding("note", "empty ROIs", f"{', '.join(empty)} of {trials.subject} hold no voxel."))

    for name, split in dataset.splits.items():
        both = same_picture_across(split, trials, dataset.stimuli, groups)
        if both:
            findings.append(
                Finding(
                    "problem",
                    f"split {name}",
                    f"{len(both)} pictures stand on both sides for {trials.subject}, first "
                    f"{both[0][0]} in training = {both[0][1]} in test.",
                    "Use a split by stimulus, such as kfold:10.",
                )
            )
            continue

        how = "by id"
        if compared:
            how = "by id and by pixels"

        detail = f"no picture stands on both sides for {trials.subject}, {how}."
        findings.append(Finding("ok", f"split {name}", detail))

    return findings


def _picture_bytes(stimuli: Stimuli) -> int:
    if stimuli.images is None:
        return 0

    return len(stimuli) * math.prod(stimuli.image_shape)


def _check_stimuli(dataset: Dataset, groups: list[tuple[str, ...]]) -> list[Finding]:
    stimuli = dataset.stimuli
    findings = []
    if stimuli.present is not None and not stimuli.present.all():
        missing = stimuli.ids[~stimuli.present]
        detail = f"{len(missing)} of {len(stimuli)} pictures are missing, first '{missing[0]}'."
        findings.append(Finding("note", "missing pictures", detail, "Their trials cannot train or test pictures."))

    for group in groups[:5]:
        detail = f"{', '.join(group)} are the same to the last pixel under {len(group)} ids."
        findings.append(Finding("problem", "same picture", detail, "Give them one id, so that no split can part them."))

    if stimuli.category is not None and len(set(stimuli.category)) == 1:
        detail = f"every stimulus is of the one category '{stimuli.category[0]}'."
        findings.append(
            Finding("note", "single category", detail, "Scores by category and category splits are undefined.")
        )

    if stimuli.captions is not None:
        without = []
        longest = 0
        for stimulus, texts in zip(stimuli.ids, stimuli.captions, strict=True):
            longest = max(longest, *(len(text.split()) for text in texts), 0)
            if not any(text.strip() for text in texts):
                without.append(stimulus)

        if without:
            detail = f"{len(without)} of {len(stimuli)} stimuli have no caption, first '{without[0]}'."
            findings.append(Finding("note", "captions", detail))

        if longest > _MAX_WORDS:
            detail = f"the longest caption has {longest} words; text encoders read about {_MAX_WORDS} tokens."
            findings.append(Finding("note", "captions", detail))

    if not findings:
        findings.append(Finding("ok", "stimuli", f"{len(stimuli)} stimuli, all different and present."))

    return findings


# -- published counts --------------------------------------------------------------------------------------------------


def counts(dataset: Dataset) -> list[Section]:
    """Trials, voxels and ROI sizes of every subject beside the published ones, where ``counts.csv`` has them.

    No beta is read.

    Parameters
    ----------
    dataset : Dataset
        of any source

    Returns
    -------
    list of Section
        empty for a data set of which nothing is published
    """
    with (files("phosphene.data") / "counts.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)

    table = rows_where(table, dataset=dataset.name)
    rows = []

    for name in dataset.subjects:
        trials = dataset.subjects[name]
        sizes = {f"ROI {roi}": int(trials.roi(roi).sum()) for roi in trials.rois}
        counted = {"trials": len(trials), "voxels": trials.n_voxels, "pictures": len(trials.stimulus_ids), **sizes}
        counted["sessions"] = len(set(trials.table["session"].dropna()))

        published = {}
        for row in rows_at(table, table["subject"].isin([name, "each"])).to_dict("records"):
            published[row["what"]] = (row["value"], row["source"])

        # What is published first, then ROIs of which nothing is.
        in_order = [what for what in published if what in counted]
        in_order += [what for what in sizes if what not in published]

        for what in in_order:
            value, source = published.get(what, ("", ""))
            if not value:
                same = ""
            elif int(value) == counted[what]:
                same = "yes"
            else:
                same = "no"

            rows.append((name, what, str(counted[what]), value or "not published", same, source))

    headings = ("subject", "what", "found", "published", "the same", "source")
    if len(table) and rows:
        return [Section("counts", tuple(rows), headings)]

    return []


# -- facts -------------------------------------------------------------------------------------------------------------


def _stimulus_facts(stimuli: Stimuli) -> list[tuple[str, str]]:
    facts = [("number", str(len(stimuli))), ("pictures", _picture_facts(stimuli))]

    if stimuli.category is not None:
        names, sizes = np.unique(stimuli.category.astype(str), return_counts=True)
        largest = np.argsort(-sizes, kind="stable")[:_MAX_CATEGORIES]
        text = ", ".join(f"{names[i]} ({sizes[i]})" for i in largest)
        if len(names) > len(largest):
            text += f" and {len(names) - len(largest)} more"

        facts.append(("categories", text))

    if stimuli.captions is not None:
        n_captions = [len(texts) for texts in stimuli.captions]
        facts.append(("captions", f"{sum(n_captions)}, {min(n_captions)} to {max(n_captions)} a stimulus"))

    if stimuli.labels is not None:
        mean = stimuli.labels.to_numpy().sum(axis=1).mean()
        facts.append(("labels", f"{stimuli.labels.shape[1]}, {mean:.1f} a stimulus"))

    return facts


def _picture_facts(stimuli: Stimuli) -> str:
    if stimuli.images is None:
        return "none"

    height, width, channels = stimuli.image_shape
    colour = "RGB"
    if channels == 1:
        colour = "grey"

    text = f"{height} x {width} {colour}"
    if stimuli.present is not None and not stimuli.present.all():
        text += f", {int((~stimuli.present).sum())} missing"

    return text


def _subject_row(trials: Trials) -> tuple[str, ...]:
    repeats = pd.Series(trials.stimuli).value_counts()
    n_repeats = str(int(repeats.min()))
    if repeats.min() < repeats.max():
        n_repeats += f" to {int(repeats.max())}"

    ceiling = "unknown"
    if trials.noise_ceiling is not None:
        ceiling = f"median {np.nanmedian(trials.noise_ceiling):.2f}, best {np.nanmax(trials.noise_ceiling):.2f}"

    return (
        trials.subject,
        str(len(trials)),
        str(len(repeats)),
        n_repeats,
        str(trials.table["session"].nunique()),
        str(trials.n_voxels),
        ceiling,
    )


def _values(trials: Trials) -> tuple[str, str, str]:
    """Range, median standard deviation and number of NaN, of all betas."""
    measured = measure(trials)
    finite = np.isfinite(measured.low)
    if not finite.any():
        return "none finite", "", str(int(measured.n_nan.sum()))

    value_range = f"{measured.low[finite].min():.3g} to {measured.high[finite].max():.3g}"
    n_nan = int(measured.n_nan.sum()) + measured.bad_trials.size * trials.n_voxels
    return value_range, f"{np.median(measured.sd[finite]):.3g}", str(n_nan)


def _roi_rows(trials: Trials) -> list[tuple[str, ...]]:
    if not trials.rois:
        return []

    members = np.stack([trials.voxels[ROI + roi].to_numpy(bool) for roi in trials.rois])  # (n_rois, n_voxels)
    is_shared = members.sum(axis=0) > 1
    rows = []

    for name, member in zip(trials.rois, members, strict=True):
        rows.append((trials.subject, name, str(int(member.sum())), str(int((member & is_shared).sum()))))

    return rows


def _ceiling_rows(trials: Trials) -> list[tuple[str, ...]]:
    """Quantiles of the ceilings in each ROI, and in the voxels of none; over voxels whose ceiling is a number, 0 included."""
    if trials.noise_ceiling is None:
        return []

    ceilings = [trials.noise_ceiling]
    if "noise_ceiling_3" in trials.voxels:
        ceilings.append(trials.voxels["noise_ceiling_3"].to_numpy(float))

    parts = {name: trials.roi(name) for name in trials.rois}
    outside = np.ones(trials.n_voxels, bool)
    if parts:
        outside = ~np.any(list(parts.values()), axis=0)

    if not parts:
        parts["all"] = outside
    elif outside.any():
        parts["none"] = outside

    rows = []
    for name, part in parts.items():
        cells: list[str] = []
        for ceiling in ceilings:
            values = ceiling[part & np.isfinite(ceiling)]
            if values.size:
                low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
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
