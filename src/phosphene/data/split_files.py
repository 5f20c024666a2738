"""Splits from a file: YAML, JSON or CSV. What may stand in it is said in ``splits.resolve``."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError, SplitError, did_you_mean
from phosphene.run.atomic import checked_path
from phosphene.run.reading import reads
from phosphene.types import Dataset, Split, Trials

Unit = Literal["stimulus", "trial"]


@reads("file", ConfigError)
def from_file(dataset: Dataset, trials: Trials, file: str | Path) -> list[Split]:
    """Splits of a YAML, JSON or CSV file; see `resolve` for what may stand in it.

    Raises
    ------
    ConfigError
        The file is missing, broken, or has unknown keys.
    SplitError
        A side is empty, or an id stands on both sides or does not exist.
    """
    path = checked_path(file)
    if not path.is_file():
        raise ConfigError(
            f"the split file {path} is not there. {did_you_mean(path.stem, dataset.splits) if dataset.splits else ''} "
            "kfold:K works without a file.".replace("  ", " ")
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the split file {path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    content = _csv_content(text, path) if path.suffix.lower() == ".csv" else _mapping(text, path)
    unknown = set(content) - {"train", "test", "folds", "unit", "name", "note"}
    if unknown:
        known = ("train", "test", "folds", "unit", "name", "note")
        raise ConfigError(
            f"{path} has the unknown key '{min(unknown, key=str)}'. {did_you_mean(min(unknown, key=str), known)}"
        )
    folds = content.get("folds")
    if folds is None:
        folds = [{k: content[k] for k in ("train", "test") if k in content}]
    elif "test" in content or "train" in content:
        raise ConfigError(f"{path} has both 'folds' and 'train' or 'test'; keep one of the two.")
    if not isinstance(folds, list) or not folds or not all(isinstance(f, Mapping) for f in folds):
        raise ConfigError(f"'folds' in {path} must be a list of entries with 'test' (and 'train').")
    unit = _unit(content.get("unit"), folds, trials, path)
    everything = trials.table[unit].astype(str).unique()
    name = str(content.get("name", path.name))
    width = len(str(len(folds)))
    return [
        _from_lists(
            name if len(folds) == 1 else f"{name}/{f + 1:0{width}d}", fold, unit, everything, dataset, trials, path
        )
        for f, fold in enumerate(folds)
    ]


def _mapping(text: str, path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".json":
        try:
            value = json.loads(text, object_pairs_hook=lambda pairs: _no_duplicates(pairs, path))
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}.") from error
    else:
        from phosphene.run.config import parse_yaml

        value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path} should hold 'train' and 'test' lists, or 'folds', but holds {type(value).__name__}.")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    keys = [k for k, _ in pairs]
    again = {k for k in keys if keys.count(k) > 1} if len(set(keys)) < len(keys) else set()
    if again:
        raise ConfigError(f"the key '{min(again)}' stands twice in {path}; keep one.")
    return dict(pairs)


def _csv_content(text: str, path: Path) -> dict[str, Any]:
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ConfigError(f"the split file {path} is no readable table: {error}") from error
    units = [c for c in ("stimulus", "trial") if c in table]
    values = [c for c in ("fold", "side") if c in table]
    if len(units) != 1 or len(values) != 1:
        raise ConfigError(
            f"{path} needs one column 'stimulus' or 'trial' and one column 'fold' or 'side'; it has "
            f"{', '.join(map(str, table.columns))}."
        )
    unit, value = units[0], values[0]
    blank = (table[unit].str.strip() == "") | (table[value].str.strip() == "")
    if blank.any():
        raise ConfigError(f"line {int(np.flatnonzero(blank)[0]) + 2} of {path} has an empty {unit} or {value}.")
    again = table[unit].duplicated() & ~table.duplicated([unit, value])
    if again.any():
        row = int(np.flatnonzero(again)[0])
        raise SplitError(
            f"'{table[unit][row]}' stands on both sides or in two folds of {path} (line {row + 2}); keep one of "
            "the lines."
        )
    table = table.drop_duplicates([unit])
    if value == "fold":
        names = sorted(table["fold"].unique(), key=lambda f: (not f.isdigit(), int(f) if f.isdigit() else 0, f))
        ids = list(table[unit])
        in_fold = {n: list(table.loc[table["fold"] == n, unit]) for n in names}
        folds = [{"train": [i for i in ids if i not in set(in_fold[n])], "test": in_fold[n]} for n in names]
        return {"unit": unit, "folds": folds}
    sides = {"train": "train", "training": "train", "test": "test", "": ""}
    odd = [s for s in table["side"].unique() if s.strip().lower() not in sides]
    if odd:
        raise ConfigError(f"'side' in {path} must be train or test, but '{odd[0]}' stands there.")
    side = table["side"].str.strip().str.lower().map(sides)
    return {"unit": unit, **{s: list(table.loc[side == s, unit]) for s in ("train", "test")}}


def _unit(given: Any, folds: Sequence[Mapping[str, Any]], trials: Trials, path: Path) -> Unit:
    if given in ("stimulus", "trial"):
        return given
    if given is not None:
        raise ConfigError(f"'unit' in {path} must be stimulus or trial, but is {given!r}.")
    items = [i for fold in folds for side in fold.values() if isinstance(side, list) for i in side]
    whole = bool(items) and all(isinstance(i, int) and not isinstance(i, bool) for i in items)
    if not whole or {str(i) for i in items} & set(trials.stimulus_ids):
        return "stimulus"
    return "trial"


def _from_lists(
    name: str,
    fold: Mapping[str, Any],
    unit: Unit,
    everything: np.ndarray,
    dataset: Dataset,
    trials: Trials,
    path: Path,
) -> Split:
    if set(fold) - {"train", "test"} or "test" not in fold:
        raise ConfigError(
            f"split '{name}' in {path} needs a list 'test' (and may have 'train'); it has {', '.join(fold)}."
        )
    lists = {}
    for side, ids in fold.items():
        if not isinstance(ids, list) or any(isinstance(i, (list, dict)) or i is None for i in ids):
            raise ConfigError(f"'{side}' of split '{name}' in {path} must be a list of {unit} ids.")
        lists[side] = list(dict.fromkeys(str(i) for i in ids))
    test = set(lists["test"])
    train = lists.get("train", [i for i in everything if i not in test])
    stimulus_of = dict(zip(trials.table["trial"].astype(str), trials.stimuli, strict=True))
    category, disjoint = categories(dataset), None
    if category is not None:
        sides = [
            {category.get(stimulus_of.get(i, "") if unit == "trial" else i) for i in ids} - {None}
            for ids in (train, test)
        ]
        disjoint = not (sides[0] & sides[1])
    return Split(name, tuple(train), tuple(lists["test"]), unit, disjoint, f"from {path.name}")


def categories(dataset: Dataset) -> Mapping[str, str] | None:
    """Stimulus id to category, or None when the data set has none."""
    stimuli = dataset.stimuli
    return None if stimuli.category is None else dict(zip(stimuli.ids, stimuli.category, strict=True))
