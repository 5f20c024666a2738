"""What trains and what tests: named splits, K folds, held-out shares, and split files.

A split is by stimulus: all repeats of a picture stand on one side. Only a file, or folds by run or session, split by
trial, and say so.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from phosphene.data.clusters import directions, spherical_kmeans
from phosphene.errors import ConfigError, PhospheneWarning, SplitError, did_you_mean
from phosphene.io.atomic import checked_path
from phosphene.io.csv_table import read_guarded
from phosphene.io.reading import reads
from phosphene.io.stages import versioned
from phosphene.types import Dataset, Split, Stimuli, Trials, digest_of

Unit = Literal["stimulus", "trial"]

CLUSTER = "cluster:"
"""How a text begins that asks for folds by what pictures look like."""

GROUP = "group"
"""Column of trials whose stimuli depend on each other, such as sizes of one figure: see `with_groups`."""

_HOW = ("stratified", "category", "groups", "session", "run")  # what may follow the comma
_SUFFIXES = (".yaml", ".yml", ".json", ".csv")


def resolve(
    dataset: Dataset,
    trials: Trials,
    spec: str | Path | None,
    seed: int,
    see: Callable[[Stimuli], np.ndarray] | None = None,
) -> list[Split]:
    """The splits that an argument means, for one subject.

    Parameters
    ----------
    dataset : Dataset
        with its named splits
    trials : Trials
        of the subject; folds are made of the stimuli it saw
    spec : str, Path or None
        one of

        - a name of the data set's own splits; its first one when None
        - ``kfold:K``: every stimulus is tested once, in K folds that differ by at most one stimulus.
          ``kfold:K,stratified`` keeps the shares of the categories in every fold; ``kfold:K,category`` keeps a whole
          category on one side, and ``kfold:K,groups`` a whole group (see `with_groups`); ``kfold:K,run`` and
          ``kfold:K,session`` keep runs or sessions whole, by trial
        - ``cluster:K``: pictures are put into K clusters by what they look like, and each cluster is tested once by what
          was fitted on the others: K folds of unequal size
        - ``holdout:0.1``: that share of the stimuli tests, the rest trains; the same endings work
        - a file: YAML or JSON with ``train`` and ``test``, or ``folds: [{test: [...]}, ...]`` (a fold trains on all the
          rest unless it has ``train``), and optionally ``unit: trial``; or a CSV with a column ``stimulus`` or
          ``trial`` and a column ``fold`` or ``side`` (train, test). Lists of whole numbers that are no stimulus ids
          are trial ids.
    seed : int
        of the shuffling; the same stimuli and seed give the same folds whatever the order of the trials
    see : callable, optional
        stimuli to (n, d) features, by which ``cluster:K`` tells pictures apart; small copies of them by default

    Returns
    -------
    list of Split
        named such as ``kfold:10/03``; one entry unless there are folds

    Raises
    ------
    SplitError
        Empty sides, ids on both sides, ids that do not exist, more folds than stimuli.
    ConfigError
        A text that means none of these.
    """
    if spec is None:
        text = None
    else:
        text = str(spec)

    absent = sorted(set(trials.stimulus_ids) - set(dataset.stimuli.ids))
    if absent:
        raise SplitError(
            f"{len(absent)} stimuli in the trials of {trials.subject} are not in the stimulus store of {dataset.name}, "
            f"first '{absent[0]}'. Add them, or take their trials out."
        )

    # Names of the data set come first: one of them may hold a colon.
    if text is None or text in dataset.splits:
        splits = [dataset.split(text)]
    elif text.startswith(("kfold:", "holdout:")):
        splits = _drawn(dataset, trials, text, seed)
    elif text.startswith(CLUSTER):
        splits = _clustered(dataset, trials, text, seed, see or _small)
    elif text.lower().endswith(_SUFFIXES):
        splits = from_file(dataset, trials, text)
    elif ":" in text or "/" in text:
        raise ConfigError(
            f"'{text}' is no split. Give a name ({', '.join(dataset.splits) or 'this data set has none'}), kfold:K, "
            "cluster:K, holdout:SHARE, or a file that ends in .yaml, .json or .csv."
        )
    else:
        splits = [dataset.split(text)]

    for split in splits:
        _check_known(dataset, trials, split, is_own=split.name in dataset.splits)

    return splits


def digest(splits: Iterable[Split]) -> str:
    """SHA-256 of a list of splits: of which ids stand where, in the order of the list."""
    return digest_of([s.digest for s in splits])


@versioned(1)
def inner_folds(trials: Trials, k: int, rng: np.random.Generator) -> np.ndarray:
    """Folds for choices made inside the training trials: all trials of a stimulus in one fold.

    Parameters
    ----------
    trials : Trials
        training trials
    k : int
        number of folds; as many as there are stimuli when that is fewer
    rng : numpy.random.Generator
        shuffles the stimuli

    Returns
    -------
    ndarray of shape (n_trials,), int
        fold of each trial, 0 to k - 1; folds differ by at most one stimulus

    Raises
    ------
    SplitError
        With fewer than two stimuli or folds.

    Examples
    --------
    >>> import pandas as pd
    >>> t = Trials(np.eye(4, dtype="f4"), pd.DataFrame({"stimulus": ["a", "b", "a", "c"]}))
    >>> folds = inner_folds(t, 3, np.random.default_rng(0))
    >>> bool(folds[0] == folds[2]), np.bincount(folds).tolist().count(2)
    (True, 1)
    """
    if GROUP in trials.table:
        units = trials.table[GROUP].to_numpy(str)  # (n_trials,)
        kind = "groups of stimuli"
    else:
        units = trials.stimuli.astype(str)
        kind = "stimuli"

    # Sorted, so that the folds do not depend on the order in which trials were measured.
    ids = np.unique(units)
    k = min(int(k), len(ids))
    if k < 2:
        raise SplitError(
            f"inner folds need at least 2 {kind} and 2 folds, but {trials.subject} has {len(ids)} {kind} in training."
        )

    fold = np.empty(len(ids), dtype=np.int64)
    fold[rng.permutation(len(ids))] = np.arange(len(ids)) % k  # (n_stimuli,)

    return fold[np.searchsorted(ids, units)]  # (n_trials,)


def groups_named(dataset: Dataset, name: str) -> dict[str, str]:
    """Groups of stimuli that depend on each other, by the name of a property or of a file.

    Parameters
    ----------
    dataset : Dataset
        whose stimuli are grouped
    name : str
        ``category``, or a CSV file with the columns ``stimulus`` and ``group``

    Returns
    -------
    dict of str to str
        stimulus id to group

    Raises
    ------
    ConfigError
        When the file is not there or has other columns.
    SplitError
        When stimuli have no categories, or one stands in two groups.
    """
    if name == "category":
        category = categories(dataset)
        if category is None:
            raise SplitError(
                f"groups 'category' need categories, but the stimuli of {dataset.name} have none; give a CSV."
            )

        return {str(stimulus): str(group) for stimulus, group in category.items()}

    file = checked_path(name)
    if not file.is_file():
        raise ConfigError(f"groups '{name}' are neither 'category' nor a CSV file with columns stimulus and group.")

    try:
        table = read_guarded(pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig"))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ConfigError(f"the table of groups {file} is no readable CSV: {error}") from error

    if not {"stimulus", "group"} <= set(table):
        raise ConfigError(f"{file} needs the columns stimulus and group; it has {', '.join(map(str, table.columns))}.")

    table = table.drop_duplicates(["stimulus", "group"])
    repeated = table["stimulus"].duplicated()
    if repeated.any():
        raise SplitError(
            f"'{table.loc[repeated, 'stimulus'].iloc[0]}' stands in two groups of {file}; keep one of the lines."
        )

    return dict(zip(table["stimulus"], table["group"], strict=True))


def group_labels(ids: Iterable[str], group_of: Mapping[str, str]) -> np.ndarray:
    """Group of each stimulus.

    Parameters
    ----------
    ids : iterable of str
        stimulus ids, which may come again
    group_of : Mapping of str to str
        of `groups_named`

    Returns
    -------
    ndarray of shape (n,), object
        str

    Raises
    ------
    SplitError
        When some are in no group, naming the first.
    """
    ids = [str(i) for i in ids]
    missing = sorted({i for i in ids if i not in group_of})
    if missing:
        raise SplitError(
            f"{len(missing)} stimuli are in no group, first '{missing[0]}'. Give each a group; one of its own where it depends "
            "on no other."
        )

    return np.asarray([group_of[i] for i in ids], dtype=object)


def with_groups(trials: Trials, group_of: Mapping[str, str]) -> Trials:
    """Trials with a column that says which of them depend on each other.

    Parameters
    ----------
    trials : Trials
        of one subject
    group_of : Mapping of str to str
        of `groups_named`

    Returns
    -------
    Trials
        with the column ``group``; trials of stimuli that are in no group are refused, see `group_labels`
    """
    return replace(trials, table=trials.table.assign(**{GROUP: group_labels(trials.stimuli, group_of)}))


def same_pictures(stimuli: Stimuli) -> list[tuple[str, ...]]:
    """Groups of stimulus ids whose pictures are the same to the last pixel; reads every picture once.

    Parameters
    ----------
    stimuli : Stimuli
        those without a picture are in no group

    Returns
    -------
    list of tuple of str
        list of groups of two or more ids, in the order of the stimuli
    """
    if stimuli.images is None:
        return []
    groups: dict[str, list[str]] = {}
    for name, picture in zip(stimuli.ids, stimuli.pixel_digests(), strict=True):
        if picture:
            groups.setdefault(picture, []).append(name)

    return [tuple(g) for g in groups.values() if len(g) > 1]


def same_picture_across(
    split: Split, trials: Trials, stimuli: Stimuli, groups: Sequence[tuple[str, ...]] | None = None
) -> list[tuple[str, str]]:
    """Pairs (training id, test id) that show one picture: the same id, or equal pixels under two ids.

    Parameters
    ----------
    split : Split
        of one subject
    trials : Trials
        of one subject
    stimuli : Stimuli
        with pictures, or without (then only ids are compared)
    groups : sequence of tuple of str, optional
        what `same_pictures` found, where that is known already

    Returns
    -------
    list of tuple of (str, str)
        empty where no picture is on both sides
    """
    train_trials, test_trials = split.apply(trials)
    train = set(train_trials.stimulus_ids)
    test = set(test_trials.stimulus_ids)
    pairs = [(i, i) for i in sorted(train & test)]

    if groups is None:
        groups = same_pictures(stimuli.select([i for i in stimuli.ids if i in train or i in test]))

    # Two ids of one picture leak as much as one id on both sides, and no comparison of ids can tell.
    for group in groups:
        for a in group:
            if a in train:
                pairs += [(a, b) for b in group if b in test and b != a]

    return pairs


# -- drawn splits ------------------------------------------------------------------------------------------------------
def _drawn(dataset: Dataset, trials: Trials, text: str, seed: int) -> list[Split]:
    """The splits of ``kfold:K`` and ``holdout:SHARE``, with what follows the comma."""
    kind, _, rest = text.partition(":")
    amount, *how = [part.strip() for part in rest.split(",")]
    unknown = [h for h in how if h not in _HOW]
    if unknown or len(how) > 1:
        raise ConfigError(f"'{text}': at most one of these may follow the comma. {did_you_mean(','.join(how), _HOW)}")

    if how:
        way = how[0]
    else:
        way = ""

    # A picture may be shown in several runs: whole runs can be kept on one side by trial alone.
    if way in ("run", "session"):
        items = trials.table["trial"].astype(str).to_numpy(dtype=object)
        unit: Unit = "trial"
    else:
        items = np.sort(trials.stimulus_ids.astype(str)).astype(object)
        unit = "stimulus"

    groups = _groups(dataset, trials, items, way, text)
    if groups is None or way == "stratified":
        n_groups = len(items)
    else:
        n_groups = len(np.unique(groups))

    kinds = {"": "stimuli", "stratified": "stimuli", "category": "categories", "groups": "groups"}.get(way, f"{way}s")
    rng = np.random.default_rng(seed)
    if kind == "kfold":
        k = _whole(amount, text)
        if not 2 <= k <= n_groups:
            raise SplitError(
                f"'{text}' asks for {k} fold{'s' if k != 1 else ''}, but {trials.subject} has {n_groups} {kinds}; between 2 "
                f"and {n_groups} folds are possible."
            )

        fold = _deal(groups, way, len(items), k, rng)
        width = len(str(k))  # leading zeros, so that names sort as the folds do
        parts = [(f"{text}/{f + 1:0{width}d}", fold == f) for f in range(k)]
    else:
        parts = [(text, _held_out(groups, way, len(items), n_groups, _share(amount, text), kinds, rng))]

    category = categories(dataset)
    if unit == "trial":
        stimulus_of = dict(zip(items, trials.stimuli, strict=True))
    else:
        stimulus_of = dict(zip(items, items, strict=True))

    out = []
    for name, test in parts:
        disjoint = None
        if category is not None:
            test_categories = {category[stimulus_of[i]] for i in items[test]}
            train_categories = {category[stimulus_of[i]] for i in items[~test]}
            disjoint = not (test_categories & train_categories)

        note = f"{test.sum()} of {len(items)} {unit}{'s' if unit == 'trial' else ' ids'} test, drawn with seed {seed}."
        out.append(Split(name, tuple(items[~test]), tuple(items[test]), unit, disjoint, note))

    return out


def _clustered(
    dataset: Dataset, trials: Trials, text: str, seed: int, see: Callable[[Stimuli], np.ndarray]
) -> list[Split]:
    """One fold for each cluster, largest first."""
    k = _whole(text.removeprefix(CLUSTER), text)
    ids = np.sort(trials.stimulus_ids.astype(str)).astype(object)
    pictures = dataset.stimuli.select(ids).available()  # stimuli without a picture are in no fold, on neither side
    if not 2 <= k <= len(pictures) // 2:
        raise SplitError(
            f"'{text}' asks for {k} clusters, but {trials.subject} saw {len(pictures)} pictures; between 2 and "
            f"{len(pictures) // 2} clusters are possible."
        )

    members = spherical_kmeans(directions(see(pictures)), k, np.random.default_rng(seed)).members  # (n_pictures,)
    sizes = np.bincount(members, minlength=k)  # (k,)
    if not sizes.all():
        raise SplitError(
            f"'{text}': the {len(pictures)} pictures of {dataset.name} form only {int((sizes > 0).sum())} clusters; ask "
            "for as many, or use kfold:K."
        )

    category = categories(dataset)
    out = []
    for number, c in enumerate(np.argsort(-sizes, kind="stable")):
        train = pictures.ids[members != c]
        test = pictures.ids[members == c]
        if category is None:
            disjoint = None
        else:
            disjoint = not {category[i] for i in train} & {category[i] for i in test}

        note = f"cluster {number + 1} of {k}, {len(test)} of {len(pictures)} pictures test; seed {seed}."
        name = f"{text}/{number + 1:0{len(str(k))}d}"
        out.append(Split(name, tuple(train), tuple(test), "stimulus", disjoint, note, held_out="clusters"))

    return out


def _small(stimuli: Stimuli) -> np.ndarray:
    """Pictures as vectors of 16 x 16 areas."""
    return stimuli.resized((16, 16)).reshape(len(stimuli), -1)


def _groups(dataset: Dataset, trials: Trials, items: np.ndarray, way: str, text: str) -> np.ndarray | None:
    """(n,) run, session or category of each item; None where items are drawn one by one."""
    if not way:
        return None

    if way in ("run", "session"):
        if way == "run":  # runs are numbered anew in every session
            columns = ["session", "run"]
        else:
            columns = ["session"]
        return trials.table.groupby(columns, sort=True).ngroup().to_numpy()

    if way == "groups":
        if GROUP not in trials.table:
            raise SplitError(f"'{text}' needs groups: name them by --groups category, or --groups FILE.csv.")

        group_of = dict(zip(trials.stimuli.astype(str), trials.table[GROUP], strict=True))
        return np.asarray([group_of[str(i)] for i in items], dtype=object)

    category = categories(dataset)
    if category is None:
        raise SplitError(f"'{text}' needs categories, but the stimuli of {dataset.name} have none; use kfold:K alone.")
    return np.asarray([category.get(i, "") for i in items], dtype=object)


def _deal(groups: np.ndarray | None, way: str, n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) fold of each item."""
    fold = np.empty(n, dtype=np.int64)
    if groups is None:
        fold[rng.permutation(n)] = np.arange(n) % k
    elif way == "stratified":  # dealt like cards, one category after the other
        order = rng.permutation(n)
        order = order[np.argsort(groups[order].astype(str), kind="stable")]  # still shuffled within each category
        fold[order] = np.arange(n) % k
    else:  # whole groups, largest first, each into the fold that has least
        names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        shuffled = rng.permutation(len(names))
        load = np.zeros(k)
        of_group = np.empty(len(names), dtype=np.int64)

        # The largest first: put in last, it would leave the fold it meets far larger than the others.
        for g in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            of_group[g] = int(np.argmin(load))
            load[of_group[g]] += sizes[g]

        fold[:] = of_group[member]

    return fold


def _held_out(
    groups: np.ndarray | None, way: str, n: int, n_groups: int, share: float, kinds: str, rng: np.random.Generator
) -> np.ndarray:
    """(n,) bool, which items test."""
    if groups is not None and way == "stratified":
        test = np.zeros(n, bool)
        for g in np.unique(groups.astype(str)):
            members = rng.permutation(np.flatnonzero(groups.astype(str) == g))
            n_test = max(1, round(share * len(members)))  # a category that is too small is tested all the same
            test[members[:n_test]] = True
    else:
        n_test = round(share * n_groups)
        if groups is None:
            names = np.arange(n)
            member = np.arange(n)
        else:
            names = np.unique(groups)
            member = groups

        test = np.isin(member, names[rng.permutation(n_groups)[:n_test]])

    if not 0 < test.sum() < n:
        raise SplitError(
            f"holdout:{share:g} of {n_groups} {kinds} leaves {test.sum()} of {n} items to test; choose a share between "
            f"{1 / n_groups:.2g} and {1 - 1 / n_groups:.2g}, or use kfold:K."
        )

    return test


def _whole(text: str, spec: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"'{spec}': a number of folds was expected, such as kfold:10, but got '{text}'.") from None


def _share(text: str, spec: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0  # refused below with the same words

    if not 0 < share < 1:
        raise ConfigError(f"'{spec}': a share between 0 and 1 was expected, such as holdout:0.1, but got '{text}'.")
    return share


def _check_known(dataset: Dataset, trials: Trials, split: Split, *, is_own: bool) -> None:
    """Raise unless every id exists; warn where this subject lacks some; raise where a side is empty for it."""
    if split.unit == "stimulus":
        store = set(dataset.stimuli.ids)
    else:
        store = set(trials.table["trial"].astype(str))

    for side, ids in (("training", split.train), ("test", split.test)):
        missing = [i for i in ids if i not in store]
        if missing:
            if split.unit == "stimulus":
                where = f"the stimuli of {dataset.name}"
            else:
                where = f"the trials of {trials.subject}"

            raise SplitError(
                f"{len(missing)} of {len(ids)} {side} ids of split '{split.name}' are not among {where}, first "
                f"'{missing[0]}'; ids there look like {', '.join(sorted(store)[:3])}. Correct the ids or leave "
                "them out."
            )

    parts = split.apply(trials)
    for side, ids, part in zip(("training", "test"), (split.train, split.test), parts, strict=True):
        if split.unit == "stimulus":
            n_with_trials = len(part.stimulus_ids)
        else:
            n_with_trials = len(part)

        if n_with_trials < len(ids) and not is_own:  # people of one data set may share a split and see parts of it
            warnings.warn(
                f"{trials.subject} has trials of {n_with_trials} of the {len(ids)} {side} ids of split '{split.name}'.",
                PhospheneWarning,
                stacklevel=3,
            )


# -- split files -------------------------------------------------------------------------------------------------------


@reads("file", ConfigError)
def from_file(dataset: Dataset, trials: Trials, file: str | Path) -> list[Split]:
    """Splits of a YAML, JSON or CSV file; see `resolve` for what may stand in it.

    Parameters
    ----------
    dataset : Dataset
        for the categories, and for its names in messages
    trials : Trials
        of the subject; a fold without ``train`` trains on all of them that it does not test
    file : str or Path
        ends in .csv, .json, .yaml or .yml

    Returns
    -------
    list of Split
        named after the file unless it holds a name; one entry unless there are folds

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

    if path.suffix.lower() == ".csv":
        content = _csv_content(text, path)
    else:
        content = _mapping(text, path)

    # A misspelt 'test' would otherwise leave a file that means something else.
    known = ("train", "test", "folds", "unit", "name", "note")
    unknown = set(content) - set(known)
    if unknown:
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
    everything = np.asarray(trials.table[unit].astype(str).unique())
    name = str(content.get("name", path.name))
    width = len(str(len(folds)))

    splits = []
    for number, fold in enumerate(folds, start=1):
        fold_name = name
        if len(folds) > 1:
            fold_name = f"{name}/{number:0{width}d}"

        splits.append(_from_lists(fold_name, fold, unit, everything, dataset, trials, path))

    return splits


def _mapping(text: str, path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".json":
        try:
            value = json.loads(text, object_pairs_hook=lambda pairs: _no_duplicates(pairs, path))
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}.") from error
    else:
        from phosphene.io.config import parse_yaml

        value = parse_yaml(text, str(path))

    if not isinstance(value, dict):
        raise ConfigError(f"{path} should hold 'train' and 'test' lists, or 'folds', but holds {type(value).__name__}.")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    """The pairs of a JSON object as a dict. Python's own parser keeps the last of two equal keys without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = min(key for key in keys if keys.count(key) > 1)
        raise ConfigError(f"the key '{repeated}' stands twice in {path}; keep one.")

    return content


def _csv_content(text: str, path: Path) -> dict[str, Any]:
    """A table as what a YAML file would hold: ``unit`` with ``folds``, or with ``train`` and ``test``."""
    try:
        table = read_guarded(pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False))
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ConfigError(f"the split file {path} is no readable table: {error}") from error

    units = [c for c in ("stimulus", "trial") if c in table]
    values = [c for c in ("fold", "side") if c in table]
    if len(units) != 1 or len(values) != 1:
        raise ConfigError(
            f"{path} needs one column 'stimulus' or 'trial' and one column 'fold' or 'side'; it has "
            f"{', '.join(map(str, table.columns))}."
        )

    unit = units[0]
    value = values[0]
    blank = (table[unit].str.strip() == "") | (table[value].str.strip() == "")
    if blank.any():
        raise ConfigError(f"line {int(np.flatnonzero(blank)[0]) + 2} of {path} has an empty {unit} or {value}.")
    # Two equal lines do no harm (a table of trials repeats its stimuli); one id with two values is a contradiction.
    is_contradiction = table[unit].duplicated() & ~table.duplicated([unit, value])
    if is_contradiction.any():
        row = int(np.flatnonzero(is_contradiction)[0])
        raise SplitError(
            f"'{table[unit][row]}' stands on both sides or in two folds of {path} (line {row + 2}); keep one of "
            "the lines."
        )

    table = table.drop_duplicates([unit])
    if value == "fold":
        names = sorted(table["fold"].unique(), key=_fold_order)
        folds = []
        for name in names:
            is_test = table["fold"] == name
            folds.append({"train": list(table.loc[~is_test, unit]), "test": list(table.loc[is_test, unit])})

        return {"unit": unit, "folds": folds}

    sides = {"train": "train", "training": "train", "test": "test", "": ""}
    unknown = [s for s in table["side"].unique() if s.strip().lower() not in sides]
    if unknown:
        raise ConfigError(f"'side' in {path} must be train or test, but '{unknown[0]}' stands there.")

    side = table["side"].str.strip().str.lower().map(sides)
    train = list(table.loc[side == "train", unit])
    test = list(table.loc[side == "test", unit])
    return {"unit": unit, "train": train, "test": test}


def _fold_order(name: str) -> tuple[bool, int, str]:
    """Numbers by size, so that fold 10 comes after fold 9, then names by the alphabet."""
    if name.isdigit():
        return False, int(name), name

    return True, 0, name


def _unit(value: Any, folds: Sequence[Mapping[str, Any]], trials: Trials, path: Path) -> Unit:
    """What the file's ids are: what it says, else trials where all are whole numbers and none is a stimulus id."""
    if value in ("stimulus", "trial"):
        return value

    if value is not None:
        raise ConfigError(f"'unit' in {path} must be stimulus or trial, but is {value!r}.")

    items = []
    for fold in folds:
        for side in fold.values():
            if isinstance(side, list):
                items += side

    # In Python and in YAML, true is a whole number too.
    is_whole = bool(items) and all(isinstance(i, int) and not isinstance(i, bool) for i in items)
    if not is_whole or {str(i) for i in items} & set(trials.stimulus_ids):
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
    category = categories(dataset)
    disjoint = None

    if category is not None:
        # Ids that do not exist have no category here; `resolve` refuses them with a better message.
        sides = []
        for ids in (train, test):
            stimuli = ids
            if unit == "trial":
                stimuli = [stimulus_of.get(i, "") for i in ids]

            sides.append({category.get(i) for i in stimuli} - {None})

        disjoint = not (sides[0] & sides[1])

    return Split(name, tuple(train), tuple(lists["test"]), unit, disjoint, f"from {path.name}")


def categories(dataset: Dataset) -> Mapping[str, str] | None:
    """Stimulus id to category, or None when the data set has none.

    Parameters
    ----------
    dataset : Dataset
        whose stimuli may have a ``category``
    """
    stimuli = dataset.stimuli
    if stimuli.category is None:
        return None
    return dict(zip(stimuli.ids, stimuli.category, strict=True))
