"""The papers' numbers, as data, with the protocol behind each.

A published row stands beside a user's only when data set, split, test pictures, repeats and metric variant are the
same; otherwise it is shown with the difference spelled out. One method can have two rows 8 points apart: as printed,
and as re-evaluated by others.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError, did_you_mean
from phosphene.metrics.metric import PICTURES
from phosphene.metrics.registry import find_metric
from phosphene.metrics.resize import CHAIN

_SPLITS = {
    "god": {"god": "test"},
    "bold5000": {"bold5000-113": "repeated"},
    "nsd": {"nsd-982": "shared", "nsd-1000": "shared"},
}
"""Splits as the readers of data sets call them, and what papers say for the same; how many pictures tested is compared
apart."""
PICTURES_OF = {"digits69": "6f7ff5d6a121232c75a1e1a4944611c9ccbf9f68359e81e488889eed2d930e12"}
"""Digest of the sorted `phosphene.validity.picture_digests` of a data set, where it could be had: a name proves nothing."""

_ALL = re.compile(r"all available \((\d+) to (\d+)\)")
_NAMELESS = "subject"  # what a data set of one person calls it
_PERSON = re.compile(r"(?:subject|subj|sub-|sbj_|s)?0*(\d+)", re.IGNORECASE)

_TEXT = ("setting", "subjects", "ssim_variant", "resize_chain", "repeats_averaged", "origin", "source", "table", "note")


@lru_cache(maxsize=1)
def _table() -> pd.DataFrame:
    with (files("phosphene.metrics") / "published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=dict.fromkeys(_TEXT, str))

    return table.fillna(dict.fromkeys(_TEXT, ""))


def published_rows() -> pd.DataFrame:
    """Every published number, one row per method, metric and protocol.

    Returns
    -------
    DataFrame
        ``method, dataset, split, metric, value`` (shares and correlations from 0 to 1; captions and BASIC-H in the
        unit of their source), then the protocol: ``setting, sessions_released, hours`` (of the subject's training
        data), ``test_images, repeats_averaged, subjects, ssim_variant, resize_chain, origin, source, table, note``.
        An empty field was not stated.
    """
    return _table().copy()


def matching(
    dataset: str,
    split: str,
    *,
    metrics: list[str] | None = None,
    test_images: int | None = None,
    repeats_averaged: str | int | None = None,
    subjects: str | None = None,
    setting: str | None = None,
    resize_chain: str | None = None,
) -> pd.DataFrame:
    """Published rows for one's own scores, each with whether it may be compared and why not.

    Parameters
    ----------
    dataset, split : str
        of one's own result, such as ``digits69`` and ``file``; the name a reader gives a split counts as what papers
        call the same, such as ``god`` for GOD's ``test``
    metrics : list of str, optional
        full metric names of one's own table; default every metric of the data set. A published ``ssim`` is listed once
        for each of ``ssim.2d`` and ``ssim.columns`` asked for, a published ``zero_shot_top1`` once for each space of
        latents; published ``two_way.clip`` is also ``two_way.pictures.clip_vit_l14``. Names that end in ``.425`` are of
        pictures resized as the literature on NSD does
    test_images : int, optional
        of one's own result; None leaves that field unchecked. ``repeats_averaged`` is a number, or ``all`` of those
        there are where that differs; a person may be named as in the files, such as ``sbj_3`` or ``subj03`` for 3
    repeats_averaged : str or int, optional
        see `test_images`
    subjects, setting, resize_chain : str, optional
        see `test_images`

    Returns
    -------
    DataFrame
        the rows of the data set with ``compared_with`` (one's own metric), ``comparable`` (bool) and ``difference``
        (text, empty when comparable). ``note`` is a caveat
        that does not by itself forbid a comparison

    Raises
    ------
    ConfigError
        For a data set without published rows, naming those that have some.

    Examples
    --------
    >>> rows = matching("digits69", "kfold:10", metrics=["pixcorr"])
    >>> rows["comparable"].tolist()
    [False]
    """
    table = published_rows()
    if dataset not in set(table["dataset"]):
        known = sorted(set(table["dataset"]))
        raise ConfigError(f"no published numbers for data set {dataset!r}. {did_you_mean(dataset, known)}")

    table = table.take(np.flatnonzero(table["dataset"] == dataset))
    ours = {
        "test_images": test_images,
        "repeats_averaged": repeats_averaged,
        "subjects": None if subjects == _NAMELESS else subjects,
        "setting": setting,
        "resize_chain": resize_chain,
    }

    rows = []
    for row in table.to_dict("records"):
        if metrics is None:
            counterparts = [row["metric"]]
        else:
            counterparts = [name for name in metrics if _is_published_as(name, row["metric"])]

        for name in counterparts:
            reasons = _differences(row, name, split, ours)
            rows.append({**row, "compared_with": name, "comparable": not reasons, "difference": "; ".join(reasons)})

    return pd.DataFrame(rows, columns=[*table.columns, "compared_with", "comparable", "difference"])


def _is_published_as(name: str, published: str) -> bool:
    """Whether one of our metrics, by its full name, is what a table of published numbers calls `published`."""
    metric = find_metric(name)
    if metric is None:
        return name == published
    if metric.published_as == published:  # every variant, every space
        return True

    # Papers do not say whether a space is of latents or of pictures, and their "CLIP" is OpenAI's ViT-L/14.
    ours = name.replace(f".{PICTURES}", ".")
    theirs = published.replace(f".{PICTURES}", ".")
    return ours in (theirs, re.sub(r"\.clip$", ".clip_vit_l14", theirs))


def _differences(row: dict[str, Any], name: str, split: str, ours: dict) -> list[str]:
    """Why a published row is another quantity than our metric of this name, one reason each."""
    metric = find_metric(name)
    protocol = {} if metric is None else metric.protocol
    difference = []
    if row["split"] not in (split, _SPLITS.get(row["dataset"], {}).get(split)):
        difference.append(f"split {row['split']} there, {split} here")

    of_pixels = row["metric"] in ("ssim", "pixcorr")
    if "resize_chain" in protocol:
        ours = {**ours, "resize_chain": protocol["resize_chain"]}
    elif of_pixels and row["resize_chain"] == CHAIN and ours["resize_chain"] is None:
        difference.append(f"pictures resized there ({CHAIN}), as they are stored here")

    for field, value in ours.items():
        theirs = row[field]
        unknown = pd.isna(theirs) or theirs == ""
        title = field.replace("_", " ")
        if field == "resize_chain" and not of_pixels:
            continue
        if unknown and field == "setting":
            continue

        if unknown and value is not None:
            difference.append(f"{title} not stated there")
        elif value is not None and not unknown and not _same(field, _plain(theirs), value):
            difference.append(f"{title} {_plain(theirs)} there, {value} here")

    variant = protocol.get("ssim_variant")
    if row["metric"] == "ssim" and variant is not None and row["ssim_variant"] != variant:
        difference.append(f"SSIM variant {row['ssim_variant'] or 'not stated'} there, {variant} here")

    return difference


def _same(field: str, theirs: str | int, ours: str | int) -> bool:
    """Whether a field of the protocol is the same on both sides, whatever its notation."""
    if field == "repeats_averaged" and (every := _ALL.fullmatch(str(theirs))):
        return str(ours) in ("all", every[2], str(theirs))
    if field == "subjects":
        return _people(str(theirs)) == _people(str(ours))
    return str(theirs) == str(ours)


def _people(names: str) -> list[str]:
    """Numbers of people where their names hold one: ``subj03`` and ``sbj_3`` are both ``3``."""
    people = []
    for name in names.split():
        match = _PERSON.fullmatch(name)
        if match is None:
            people.append(name)
        else:
            people.append(match[1])

    return people


def _plain(value: Any) -> Any:
    """Whole numbers as such: a column with gaps holds them as floats."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
