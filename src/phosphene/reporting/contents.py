"""What a page shows of one run: tables read, pictures chosen, gaps named. Nothing here knows of HTML."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.privacy import telling_names
from phosphene.errors import PhospheneError, PhospheneWarning
from phosphene.io.config import flatten
from phosphene.io.reading import open_npy
from phosphene.io.run_folder import ELSEWHERE, RunFolder, read_json
from phosphene.io.seals import broken_seals
from phosphene.reporting.plain_words import HIDDEN, VERDICTS, is_secret, metric_words
from phosphene.reporting.rows import rows_at
from phosphene.validity.check import rows_where

SHOW_ALL_UP_TO = 12
"""A run of at most this many pictures shows every one, from best to worst."""
PER_GROUP = 4
RANDOM_SAMPLE = 12
SHEET = 120
"""Most pictures on the contact sheet."""
_NUMERIC = {"value", "ci_low", "ci_high", "chance", "p", "n", "gallery", "top"}
_CONTROL_ORDER = ("first_stage", "shuffled", "noise", "mean", "category", "truth")


@dataclass(frozen=True)
class PictureGroup:
    """Some test pictures to show together.

    Parameters
    ----------
    title : str
        such as "Best"
    rows : ndarray of int
        in the decoded pictures
    note : str, default ""
        why these
    """

    title: str
    rows: np.ndarray
    note: str = ""


@dataclass
class Contents:
    """One run, read for a page. Parts that are missing are empty; parts that are damaged are empty and noted.

    Parameters
    ----------
    run : RunFolder
        the run folder
    split : str, default ""
        which split of it; "test" by default, or the only one there is
    notes : list of str, optional
        what is damaged, in the order in which it was read
    """

    run: RunFolder
    split: str = ""
    notes: list[str] = field(default_factory=list)
    _pictures: dict[str, np.ndarray | None] = field(default_factory=dict, repr=False)
    _indices: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)
    _rows: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.split:
            self.split = self._first_split()

    def _first_split(self) -> str:
        names = set()
        for part in ("decoded", "encoded", "evaluation"):
            folder = self.run.path / part
            if folder.is_dir():
                names |= {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}

        if "test" in names or not names:
            return "test"

        return min(names)

    # -- tables ----------------------------------------------------------------------------------------------------

    def table(self, columns: Iterable[str], *where: str) -> pd.DataFrame:
        """A table of the run; empty and noted when it cannot be used.

        Parameters
        ----------
        columns : iterable of str
            that it must have
        *where : str
            folders and name of the file in the run

        Returns
        -------
        DataFrame
            with at least these columns; those that hold numbers are numeric
        """
        columns = list(columns)
        try:
            table = self.run.table(*where)
        except (OSError, ValueError) as error:
            self.note_damage("/".join(where), str(error))
            return pd.DataFrame(columns=columns)

        missing = [c for c in columns if c not in table]
        if len(table.columns) and missing:
            self.note_damage("/".join(where), f"it has no column {', '.join(missing)}")
            return pd.DataFrame(columns=columns)

        if table.empty:
            table = table.reindex(columns=columns)
        else:
            table = table.copy()

        for name in table.columns:
            if name in _NUMERIC and name in columns:
                table[name] = pd.to_numeric(table[name], errors="coerce")

        return table

    def note_damage(self, what: str, why: str) -> None:
        """Note, once, that a part of the run cannot be used.

        Parameters
        ----------
        what : str
            path in the run
        why : str
            the reason
        """
        note = f"{what} cannot be used ({why.rstrip('.')}). Run the command that writes it again."
        if note not in self.notes:
            self.notes.append(note)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Scores of this split, all inputs."""
        for name in broken_seals(self.run.path, ["scores.csv", "validity.csv"]):
            self.notes.append(
                f"{name} was changed after `phosphene evaluate` wrote it: what this page says of it is not what was measured. "
                f"Run {self.command('evaluate')} again."
            )

        table = self.table(
            ["split", "input", "metric", "value", "ci_low", "ci_high", "chance", "p", "n", "setting"], "scores.csv"
        )

        return rows_where(table, split=self.split).reset_index(drop=True)

    @cached_property
    def validity(self) -> pd.DataFrame:
        """Verdicts, most urgent first."""
        table = self.table(["id", "verdict", "value", "reason", "title", "waiver"], "validity.csv")
        rank = {verdict: i for i, verdict in enumerate(VERDICTS)}
        order = table["verdict"].map(lambda verdict: rank.get(verdict, 1.5))  # an unknown one after fail and flag
        return table.iloc[np.argsort(order.to_numpy(float), kind="stable")].reset_index(drop=True)

    @cached_property
    def per_item(self) -> pd.DataFrame:
        """Score of every picture."""
        return self.table(["input", "metric", "stimulus", "value"], *self._detail("per_item.csv"))

    @cached_property
    def retrieval(self) -> pd.DataFrame:
        """Retrieval accuracy over gallery sizes."""
        table = self.table(["space", "direction", "gallery", "top", "value"], *self._detail("retrieval.csv"))
        return table.dropna(subset=["gallery", "top", "value"])

    @cached_property
    def published(self) -> pd.DataFrame:
        """Published numbers, comparable ones first."""
        table = self.table(
            ["method", "metric", "value", "comparable", "difference", "source"], *self._detail("published.csv")
        )

        table["comparable"] = [str(v).lower() in ("true", "yes", "1", "1.0") for v in table["comparable"]]
        return table.sort_values("comparable", ascending=False, kind="stable").reset_index(drop=True)

    @cached_property
    def protocol(self) -> dict[str, Any]:
        """What other runs must share to stand beside this one; empty where an older version did not note it."""
        file = self.run.evaluation(self.split) / "protocol.json"
        if not file.is_file():
            return {}

        try:
            return read_json(file)
        except PhospheneError:
            self.note_damage(f"evaluation/{self.split}/protocol.json", "it is no JSON")
            return {}

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Paired differences between brain and controls, positive when the brain is better."""
        return self.table(["metric", "control", "value", "ci_low", "ci_high", "p"], *self._detail("differences.csv"))

    @cached_property
    def score_notes(self) -> pd.DataFrame:
        """What to know of single scores of the brain: undefined items, galleries."""
        table = self.table(["input", "metric", "note"], *self._detail("notes.csv"))
        return rows_where(table, input="brain")

    @cached_property
    def skipped(self) -> list[tuple[str, list[str]]]:
        """(reason, metrics) of what was not computed; what is missing for a control alone names the control."""
        table = self.table(["metric", "reason"], *self._detail("skipped.csv"))
        if "input" in table:
            skipped_for_brain = list(rows_where(table, input="brain")["metric"])
            of_control = ~table["metric"].isin(skipped_for_brain)
            table.loc[of_control, "metric"] += " (" + table.loc[of_control, "input"].astype(str) + ")"
            table = rows_at(table, of_control | (table["input"] == "brain"))

        skipped = []
        for reason, rows in table.groupby("reason", sort=False):
            skipped.append((str(reason), list(dict.fromkeys(rows["metric"]))))

        return skipped

    def _detail(self, name: str) -> tuple[str, str, str]:
        return "evaluation", self.split, name

    @cached_property
    def conclusions(self) -> list[str]:
        """Generated sentences, one a line of conclusions.txt."""
        file = self.run.evaluation(self.split) / "conclusions.txt"
        if not file.is_file():
            return []

        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line.strip() for line in lines if line.strip()]

    @cached_property
    def voxels(self) -> pd.DataFrame:
        """One row per voxel: r, ceiling_r where known, ROI memberships (``roi.NAME``), and u, v where known."""
        table = self.table([], *self._detail("voxels.csv"))
        encoded = self.table([], "encoded", self.split, "voxels.csv")
        if len(table) and len(encoded) == len(table):
            new = [column for column in encoded if column not in table]
            table = pd.concat([table, encoded[new]], axis=1)

        r = next((column for column in ("r", "pearson", "pearson_r") if column in table), None)
        if r is None:
            return pd.DataFrame()

        table["r"] = pd.to_numeric(table[r], errors="coerce")
        if "ceiling_r" in table:
            table["ceiling_r"] = pd.to_numeric(table["ceiling_r"], errors="coerce")
            return table

        # Older tables hold the ceiling as a share of variance; r is its root.
        share = next((column for column in ("ceiling", "noise_ceiling", "ceiling_variance") if column in table), None)
        if share is not None:
            variance = pd.Series(pd.to_numeric(table[share], errors="coerce"), dtype=float)
            table["ceiling_r"] = np.sqrt(variance.clip(lower=0))

        return table

    @cached_property
    def rois(self) -> pd.DataFrame:
        """One row per ROI: roi, n, value, low, high (median and quartiles over voxels), ceiling; in the run's order."""
        rows = []
        for name, member in self._memberships().items():
            r = self.voxels.loc[member, "r"].dropna()
            if r.empty:
                continue

            ceiling = np.nan
            if "ceiling_r" in self.voxels:
                ceiling = self.voxels.loc[member, "ceiling_r"].median()

            low, middle, high = r.quantile([0.25, 0.5, 0.75])
            rows.append((name, int(member.sum()), middle, low, high, ceiling))

        return pd.DataFrame(rows, columns=["roi", "n", "value", "low", "high", "ceiling"])

    def _memberships(self) -> dict[str, np.ndarray]:
        if self.voxels.empty:
            return {}

        members: dict[str, np.ndarray] = {}
        for column in self.voxels:
            if str(column).startswith("roi."):
                members[column.removeprefix("roi.")] = _truthy(pd.Series(self.voxels[column]))

        if not members and "roi" in self.voxels:
            for name in self.voxels["roi"].dropna().unique():
                members[str(name)] = (self.voxels["roi"] == name).to_numpy()

        return {name: member for name, member in members.items() if member.any()}

    # -- what the run is -------------------------------------------------------------------------------------------

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Contents of manifest.json; a damaged one is noted and empty."""
        try:
            return self.run.manifest
        except PhospheneError as error:
            self.notes.append(str(error))
            return {}

    @cached_property
    def configuration(self) -> list[dict[str, Any]]:
        """Rows key, value, origin and changed (true for what a person chose), secrets hidden."""
        try:
            flat = flatten(self.run.config)
        except PhospheneError as error:
            self.notes.append(str(error))
            flat = {}

        table = self.table(["key", "origin"], "origins.csv")
        origins = dict(zip(table["key"].astype(str), table["origin"].astype(str), strict=True))
        rows = []

        for key, value in flat.items():
            origin = origins.get(key, "")
            is_changed = bool(origin) and origin not in ("default", "recipe") and not origin.startswith("preset")

            text = plain(value)
            if is_secret(key) and value not in (None, ""):
                text = HIDDEN

            rows.append({"key": key, "value": text, "origin": origin or "unknown", "changed": is_changed})

        return rows

    @cached_property
    def identity(self) -> dict[str, Any]:
        """recipe, data, subject, split, setting, conditions, n_train, n_test: whatever the run knows of itself."""
        manifest = self.manifest
        data = self.manifest.get("data")
        split = self.manifest.get("split")

        if not isinstance(data, Mapping):
            data = {"name": data}

        if not isinstance(split, Mapping):
            split = {"name": split}

        sides = self.table(["fold", "side", "unit", "id"], "splits.csv")
        n_train = sides.loc[sides["side"] == "train", "id"].astype(str).nunique()
        n_test = sides.loc[sides["side"] == "test", "id"].astype(str).nunique()
        unit = split.get("unit")

        # Stimuli are counted by their pictures where these are there; trials are not pictures.
        if unit == "stimulus" and self.n_pictures:
            n_test = self.n_pictures

        about = data.get("about")
        if not isinstance(about, Mapping):
            about = {}

        conditions = manifest.get("conditions")
        if not isinstance(conditions, Mapping):
            conditions = {}

        self._warn_of_names(plain(data.get("subject") or ""))

        return {
            "recipe": plain(manifest.get("recipe") or "unknown recipe"),
            "data": plain(data.get("name") or "unknown data"),
            "about": about,
            "subject": plain(data.get("subject") or ""),
            "n_voxels": data.get("n_voxels"),
            "split": plain(split.get("name") or self.split),
            "split_note": plain(split.get("note") or ""),
            "folds": int(split.get("folds") or 1),
            "unit": plain(unit or "stimulus"),
            "n_train": n_train,
            "n_test": n_test or self.n_pictures,
            "setting": plain(manifest.get("setting") or ""),
            "conditions": {str(key): plain(value) for key, value in conditions.items()},
            "transductive": plain(manifest.get("transductive") or ""),
            "state": plain(manifest.get("state") or ""),
        }

    def _warn_of_names(self, subject: str) -> None:
        if telling_names([subject]):
            warnings.warn(
                f"the report of {self.run.path.name} names its subject {subject!r}, which looks like more than a code; name "
                "people by codes such as sub-01 (import the data again) before you share it.",
                PhospheneWarning,
                stacklevel=2,
            )

    @property
    def is_from_elsewhere(self) -> bool:
        """Whether its pictures were made elsewhere and only scored here."""
        return self.manifest.get("origin") == ELSEWHERE

    @property
    def seed(self) -> int:
        """Seed of the run, 0 when it is not known."""
        seed = self.manifest.get("seed")
        if isinstance(seed, int) and seed >= 0:
            return seed

        return 0

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.run.path.resolve().name

    def command(self, verb: str) -> str:
        """What to type to get a missing part."""
        return f"phosphene {verb} {shlex.quote(str(self.run.path))}"

    # -- pictures --------------------------------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> list[str]:
        """Inputs with pictures that can be read: brain, then controls."""
        order = {name: i for i, name in enumerate(("brain", *_CONTROL_ORDER))}
        names = sorted(self.run.inputs(self.split), key=lambda name: (order.get(name, len(order)), name))
        return [name for name in names if self.pictures(name) is not None]

    def pictures(self, source: str) -> np.ndarray | None:
        """(n, h, w, c) pictures of one input, memory-mapped; None when absent or damaged."""
        if source not in self._pictures:
            self._pictures[source] = self._open_pictures(source)

        return self._pictures[source]

    def _open_pictures(self, source: str) -> np.ndarray | None:
        if not (self.run.decoded(self.split, source) / "pixels.npy").is_file():
            return None

        try:
            pixels = self.run.pixels(self.split, source)
        except (OSError, ValueError) as error:
            self.note_damage(f"decoded/{self.split}/{source}/pixels.npy", str(error))
            return None

        if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or not len(pixels) or pixels.dtype.kind not in "fu":
            self.note_damage(
                f"decoded/{self.split}/{source}/pixels.npy", f"it has the shape {pixels.shape} of {pixels.dtype}"
            )

            return None

        return pixels

    @cached_property
    def samples(self) -> np.ndarray | None:
        """(n, samples, h, w, c) uint8, every picture drawn for each stimulus, memory-mapped; None where there is one."""
        file = self.run.decoded(self.split, "brain") / "samples.npy"
        if not file.is_file():
            return None

        try:
            samples = open_npy(file)
        except (OSError, ValueError) as error:
            self.note_damage(f"decoded/{self.split}/brain/samples.npy", str(error))
            return None

        if samples.ndim != 5 or len(samples) != self.n_pictures:
            self.note_damage(f"decoded/{self.split}/brain/samples.npy", f"it has the shape {samples.shape}")
            return None

        return samples

    def index(self, source: str = "brain") -> pd.DataFrame:
        """Stimulus, fold and category of each picture of an input, in the order of the pictures."""
        if source not in self._indices:
            self._indices[source] = self._read_index(source)

        return self._indices[source]

    def _read_index(self, source: str) -> pd.DataFrame:
        pixels = self.pictures(source)
        n = 0
        if pixels is not None:
            n = len(pixels)

        table = self.table(["stimulus"], "decoded", self.split, source, "index.csv")
        if len(table) != n:
            if len(table):
                self.note_damage(f"decoded/{self.split}/{source}/index.csv", f"{len(table)} rows for {n} pictures")

            table = pd.DataFrame({"stimulus": [f"picture {i}" for i in range(n)]})

        return table.assign(stimulus=table["stimulus"].astype(str))

    @property
    def n_pictures(self) -> int:
        """Number of decoded pictures."""
        pixels = self.pictures("brain")
        if pixels is None:
            return 0

        return len(pixels)

    def picture(self, source: str, row: int) -> np.ndarray | None:
        """(h, w, c) the picture of an input that belongs to a row of the decoded ones, or None."""
        pixels = self.pictures(source)
        if pixels is None:
            return None

        if source == "brain":
            return np.asarray(pixels[row])

        other_row = self._rows_of(source)[row]
        if other_row < 0:
            return None

        return np.asarray(pixels[other_row])

    def _rows_of(self, source: str) -> np.ndarray:
        """For every decoded row, the row of the same stimulus in another input; -1 where there is none."""
        if source not in self._rows:
            decoded = self.index()["stimulus"].to_numpy()
            other = self.index(source)["stimulus"].to_numpy()

            if len(decoded) == len(other) and (decoded == other).all():
                self._rows[source] = np.arange(len(decoded))
            else:
                first_row = _first_of_each(other, range(len(other)))
                self._rows[source] = np.array([first_row.get(stimulus, -1) for stimulus in decoded], dtype=int)

        return self._rows[source]

    # -- which pictures --------------------------------------------------------------------------------------------

    @cached_property
    def sorting_metric(self) -> str:
        """The per-picture score that pictures are sorted by: pixcorr, or the first there is; "" without any."""
        names = list(dict.fromkeys(self.per_item.loc[self.per_item["input"] == "brain", "metric"]))
        if "pixcorr" in names:
            return "pixcorr"

        if names:
            return names[0]

        return ""

    @cached_property
    def item_values(self) -> np.ndarray:
        """(n_pictures,) value of the sorting metric, NaN where undefined."""
        table = rows_where(self.per_item, input="brain", metric=self.sorting_metric)
        values = table["value"].to_numpy(float)
        decoded = self.index()["stimulus"].to_numpy()
        scored = table["stimulus"].astype(str).to_numpy()

        if len(decoded) == len(scored) and (decoded == scored).all():
            return values

        first_value = _first_of_each(scored, values)
        return np.array([first_value.get(stimulus, np.nan) for stimulus in decoded], dtype=float)

    def groups(self, rng: np.random.Generator) -> list[PictureGroup]:
        """Best, median and worst pictures, and a random sample, so that the choice flatters nobody.

        Parameters
        ----------
        rng : numpy.random.Generator
            of the random sample

        Returns
        -------
        list of PictureGroup
            all pictures in one group where they are few, none where nothing was decoded
        """
        n = self.n_pictures
        if not n:
            return []

        values = self.item_values
        defined = np.flatnonzero(np.isfinite(values))
        if not defined.size:
            rows = np.sort(rng.choice(n, min(n, RANDOM_SAMPLE), replace=False))
            title = "Random sample"
            if len(rows) == n:
                title = "All pictures"

            return [PictureGroup(title, rows, "No score per picture is known.")]

        sign = -1
        if metric_words(self.sorting_metric).lower_is_better:
            sign = 1

        order = defined[np.argsort(sign * values[defined], kind="stable")]
        undefined = np.setdiff1d(np.arange(n), order)
        if n <= SHOW_ALL_UP_TO:
            return [PictureGroup(f"All {n} test pictures, best to worst", np.concatenate([order, undefined]))]

        k = min(PER_GROUP, len(order) // 3) or 1
        start = max(0, (len(order) - k) // 2)
        groups = [
            PictureGroup("Best", order[:k]),
            PictureGroup("Median", order[start : start + k]),
            PictureGroup("Worst", np.concatenate([order[len(order) - k :], undefined])[-k:]),
        ]

        sample = rng.choice(n, min(n, RANDOM_SAMPLE), replace=False)
        return [*groups, PictureGroup("Random sample", np.sort(sample), "Drawn without looking at the scores.")]


# -- small things ------------------------------------------------------------------------------------------------------


def _first_of_each(stimuli: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
    """Stimulus to its first value: a stimulus may stand in a table once for each of its trials."""
    first: dict[str, Any] = {}
    for stimulus, value in zip(stimuli, values, strict=True):
        first.setdefault(stimulus, value)

    return first


def plain(value: Any) -> str:
    """A value of a configuration or manifest as text, secrets in nested keys hidden.

    Examples
    --------
    >>> plain({"alpha": 0.5, "token": "abc"}), plain([1, True, None])
    ('alpha: 0.5; token: [hidden]', '1, true, –')
    """
    if isinstance(value, Mapping):
        parts = []
        for key, inner in value.items():
            text = HIDDEN if is_secret(str(key)) else plain(inner)
            parts.append(f"{key}: {text}")

        return "; ".join(parts) or "–"

    if isinstance(value, (list, tuple)):
        return ", ".join(plain(inner) for inner in value) or "–"

    if value is None:
        return "–"

    if isinstance(value, bool):
        return str(value).lower()

    if isinstance(value, float):
        return f"{value:.6g}"

    return str(value)


def _truthy(column: pd.Series) -> np.ndarray:
    return column.map(lambda value: str(value).lower() in ("true", "1", "1.0")).to_numpy(bool)
