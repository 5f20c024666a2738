"""What a page shows of one run: tables read, pictures chosen, gaps named. Nothing here knows of HTML."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.data.privacy import telling_names
from phosphene.errors import PhospheneError, PhospheneWarning
from phosphene.io.config import flatten
from phosphene.io.folder import RunFolder
from phosphene.io.reading import open_npy
from phosphene.reporting.words import HIDDEN, VERDICTS, is_secret, metric_words

SHOW_ALL_UP_TO = 12
"""A run of at most this many pictures shows every one, from best to worst."""
PER_GROUP = 4
RANDOM_SAMPLE = 12
SHEET = 120
"""Most pictures on the contact sheet."""
_NUMBERS = {"value", "ci_low", "ci_high", "chance", "p", "n", "gallery", "top"}
_CONTROL_ORDER = ("first_stage", "shuffled", "noise", "mean", "category", "truth")


@dataclass(frozen=True)
class PictureGroup:
    """Some test pictures to show together: their rows in the decoded pictures, and why these."""

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
    """

    run: RunFolder
    split: str = ""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.split:
            self.split = self._first_split()

    def _first_split(self) -> str:
        found = {
            p.name
            for part in ("decoded", "encoded", "evaluation")
            if (self.run.path / part).is_dir()
            for p in (self.run.path / part).iterdir()
            if p.is_dir() and not p.name.startswith(".")
        }

        if "test" in found or not found:
            return "test"

        return min(found)

    # -- tables ----------------------------------------------------------------------------------------------------

    def _table(self, columns: Iterable[str], *where: str) -> pd.DataFrame:
        """A table of the run with at least these columns; empty and noted when it cannot be used."""
        columns = list(columns)
        try:
            table = self.run.table(*where)
        except (OSError, ValueError) as error:
            self._damaged("/".join(where), str(error))
            return pd.DataFrame(columns=columns)

        missing = [c for c in columns if c not in table]
        if len(table.columns) and missing:
            self._damaged("/".join(where), f"it has no column {', '.join(missing)}")
            return pd.DataFrame(columns=columns)

        if table.empty:
            table = table.reindex(columns=columns)
        else:
            table = table.copy()

        for name in table.columns:
            if name in _NUMBERS and name in columns:
                table[name] = pd.to_numeric(table[name], errors="coerce")
            elif not pd.api.types.is_numeric_dtype(table[name]):
                table[name] = table[name].map(_undefused)

        return table

    def _damaged(self, what: str, why: str) -> None:
        note = f"{what} cannot be used ({why.rstrip('.')}). Run the command that writes it again."
        if note not in self.notes:
            self.notes.append(note)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Scores of this split, all inputs."""
        table = self._table(
            ["split", "input", "metric", "value", "ci_low", "ci_high", "chance", "p", "n", "setting"], "scores.csv"
        )

        return table[table["split"] == self.split].reset_index(drop=True)

    @cached_property
    def validity(self) -> pd.DataFrame:
        """Verdicts, most urgent first."""
        table = self._table(["id", "verdict", "value", "reason", "title", "waiver"], "validity.csv")
        rank = {v: i for i, v in enumerate(VERDICTS)}
        order = table["verdict"].map(lambda v: rank.get(v, 1.5))
        return table.iloc[np.argsort(order.to_numpy(float), kind="stable")].reset_index(drop=True)

    @cached_property
    def per_item(self) -> pd.DataFrame:
        """Score of every picture."""
        return self._table(["input", "metric", "stimulus", "value"], *self._detail("per_item.csv"))

    @cached_property
    def retrieval(self) -> pd.DataFrame:
        """Retrieval accuracy over gallery sizes."""
        table = self._table(["space", "direction", "gallery", "top", "value"], *self._detail("retrieval.csv"))
        return table.dropna(subset=["gallery", "top", "value"])

    @cached_property
    def published(self) -> pd.DataFrame:
        """Published numbers, comparable ones first."""
        table = self._table(
            ["method", "metric", "value", "comparable", "difference", "source"], *self._detail("published.csv")
        )

        table["comparable"] = [str(v).lower() in ("true", "yes", "1", "1.0") for v in table["comparable"]]
        return table.sort_values("comparable", ascending=False, kind="stable").reset_index(drop=True)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Paired differences between brain and controls, positive when the brain is better."""
        return self._table(["metric", "control", "value", "ci_low", "ci_high", "p"], *self._detail("differences.csv"))

    @cached_property
    def score_notes(self) -> pd.DataFrame:
        """What to know of single scores of the brain: undefined items, galleries."""
        table = self._table(["input", "metric", "note"], *self._detail("notes.csv"))
        return table[table["input"] == "brain"]

    @cached_property
    def skipped(self) -> list[tuple[str, list[str]]]:
        """(reason, metrics) of what was not computed; what is missing for a control alone names the control."""
        table = self._table(["metric", "reason"], *self._detail("skipped.csv"))
        if "input" in table:
            brain = set(table.loc[table["input"] == "brain", "metric"])
            alone = ~table["metric"].isin(brain)
            table.loc[alone, "metric"] += " (" + table.loc[alone, "input"].astype(str) + ")"
            table = table[alone | (table["input"] == "brain")]

        return [(str(r), list(dict.fromkeys(g["metric"]))) for r, g in table.groupby("reason", sort=False)]

    def _detail(self, name: str) -> tuple[str, str, str]:
        return "evaluation", self.split, name

    @cached_property
    def conclusions(self) -> list[str]:
        """Generated sentences, one a line of conclusions.txt."""
        file = self.run.evaluation(self.split) / "conclusions.txt"
        if not file.is_file():
            return []

        return [
            line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]

    @cached_property
    def voxels(self) -> pd.DataFrame:
        """One row per voxel: r, ceiling_r where known, ROI memberships (``roi.NAME``), and u, v where known."""
        table = self._table([], *self._detail("voxels.csv"))
        shown = self._table([], "encoded", self.split, "voxels.csv")
        if len(table) and len(shown) == len(table):
            table = pd.concat([table, shown[[c for c in shown if c not in table]]], axis=1)

        r = next((c for c in ("r", "pearson", "pearson_r") if c in table), None)
        if r is None:
            return pd.DataFrame()

        table["r"] = pd.to_numeric(table[r], errors="coerce")
        if "ceiling_r" in table:
            table["ceiling_r"] = pd.to_numeric(table["ceiling_r"], errors="coerce")
        else:
            share = next((c for c in ("ceiling", "noise_ceiling", "ceiling_variance") if c in table), None)
            if share is not None:
                variance = pd.to_numeric(table[share], errors="coerce").astype(float)
                table["ceiling_r"] = np.sqrt(variance.clip(lower=0))

        return table

    @cached_property
    def rois(self) -> pd.DataFrame:
        """One row per ROI: roi, n, value, low, high (median and quartiles over voxels), ceiling; in the run's order."""
        rows = []
        for name, member in self._memberships().items():
            r = self.voxels.loc[member, "r"].dropna()
            if len(r):
                low, middle, high = r.quantile([0.25, 0.5, 0.75])
                if "ceiling_r" in self.voxels:
                    ceiling = self.voxels.loc[member, "ceiling_r"].median()
                else:
                    ceiling = np.nan

                rows.append((name, int(member.sum()), middle, low, high, ceiling))

        return pd.DataFrame(rows, columns=["roi", "n", "value", "low", "high", "ceiling"])

    def _memberships(self) -> dict[str, np.ndarray]:
        if self.voxels.empty:
            return {}

        out = {c[4:]: _truthy(self.voxels[c]) for c in self.voxels if str(c).startswith("roi.")}
        if not out and "roi" in self.voxels:
            out = {str(n): (self.voxels["roi"] == n).to_numpy() for n in self.voxels["roi"].dropna().unique()}

        return {name: member for name, member in out.items() if member.any()}

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

        table = self._table(["key", "origin"], "origins.csv")
        origins = dict(zip(table["key"].astype(str), table["origin"].astype(str), strict=True))
        rows = []

        for key, value in flat.items():
            origin = origins.get(key, "")
            chosen = bool(origin) and origin not in ("default", "recipe") and not origin.startswith("preset")

            if is_secret(key) and value not in (None, ""):
                shown = HIDDEN
            else:
                shown = plain(value)

            rows.append({"key": key, "value": shown, "origin": origin or "unknown", "changed": chosen})

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

        sides = self._table(["fold", "side", "unit", "id"], "splits.csv")
        conditions = manifest.get("conditions")
        folds = int(split.get("folds") or 1)
        counts = {s: len(sides[(sides["side"] == s)]["id"].astype(str).unique()) for s in ("train", "test")}
        self._warn_of_names(plain(data.get("subject") or ""))

        return {
            "recipe": plain(manifest.get("recipe") or "unknown recipe"),
            "data": plain(data.get("name") or "unknown data"),
            "about": data.get("about") if isinstance(data.get("about"), Mapping) else {},
            "subject": plain(data.get("subject") or ""),
            "n_voxels": data.get("n_voxels"),
            "split": plain(split.get("name") or self.split),
            "split_note": plain(split.get("note") or ""),
            "folds": folds,
            "unit": plain(split.get("unit") or "stimulus"),
            "n_train": counts["train"],
            "n_test": (self.n_pictures if split.get("unit") == "stimulus" else 0) or counts["test"] or self.n_pictures,
            "setting": plain(manifest.get("setting") or ""),
            "conditions": {str(k): plain(v) for k, v in conditions.items()} if isinstance(conditions, Mapping) else {},
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
        order = {"brain": -1, **{n: i for i, n in enumerate(_CONTROL_ORDER)}}
        found = sorted(self.run.inputs(self.split), key=lambda n: (order.get(n, 99), n))
        return [n for n in found if self.pictures(n) is not None]

    def pictures(self, source: str) -> np.ndarray | None:
        """(n, h, w, c) pictures of one input, memory-mapped; None when absent or damaged."""
        cache = self.__dict__.setdefault("_pictures", {})
        if source not in cache:
            cache[source] = self._open_pictures(source)

        return cache[source]

    def _open_pictures(self, source: str) -> np.ndarray | None:
        if not (self.run.decoded(self.split, source) / "pixels.npy").is_file():
            return None

        try:
            pixels = self.run.pixels(self.split, source)
        except (OSError, ValueError) as error:
            self._damaged(f"decoded/{self.split}/{source}/pixels.npy", str(error))
            return None

        if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or not len(pixels) or pixels.dtype.kind not in "fu":
            self._damaged(
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
            self._damaged(f"decoded/{self.split}/brain/samples.npy", str(error))
            return None

        if samples.ndim != 5 or len(samples) != self.n_pictures:
            self._damaged(f"decoded/{self.split}/brain/samples.npy", f"it has the shape {samples.shape}")
            return None

        return samples

    def index(self, source: str = "brain") -> pd.DataFrame:
        """Stimulus, fold and category of each picture of an input, in the order of the pictures."""
        cache = self.__dict__.setdefault("_index", {})
        if source not in cache:
            pixels = self.pictures(source)
            if pixels is None:
                n = 0
            else:
                n = len(pixels)

            table = self._table(["stimulus"], "decoded", self.split, source, "index.csv")
            if len(table) != n:
                if len(table):
                    self._damaged(f"decoded/{self.split}/{source}/index.csv", f"{len(table)} rows for {n} pictures")

                table = pd.DataFrame({"stimulus": [f"picture {i}" for i in range(n)]})

            cache[source] = table.assign(stimulus=table["stimulus"].astype(str))

        return cache[source]

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

        at = self._rows_of(source)
        if at[row] < 0:
            return None

        return np.asarray(pixels[at[row]])

    def _rows_of(self, source: str) -> np.ndarray:
        """For every decoded row, the row of the same stimulus in another input; -1 where there is none."""
        cache = self.__dict__.setdefault("_rows", {})
        if source not in cache:
            mine = self.index()["stimulus"].to_numpy()
            other = self.index(source)["stimulus"].to_numpy()

            if len(mine) == len(other) and (mine == other).all():
                cache[source] = np.arange(len(mine))
            else:
                first = pd.Series(np.arange(len(other)), index=other)
                first = first[~first.index.duplicated()]
                cache[source] = first.reindex(mine).fillna(-1).to_numpy(int)

        return cache[source]

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
        table = self.per_item
        table = table[(table["input"] == "brain") & (table["metric"] == self.sorting_metric)]
        mine = self.index()["stimulus"].to_numpy()
        theirs = table["stimulus"].astype(str).to_numpy()

        if len(mine) == len(theirs) and (mine == theirs).all():
            return table["value"].to_numpy(float)

        values = pd.Series(table["value"].to_numpy(float), index=theirs)
        return values[~values.index.duplicated()].reindex(mine).to_numpy(float)

    def groups(self, rng: np.random.Generator) -> list[PictureGroup]:
        """Best, median and worst pictures, and a random sample, so that the choice flatters nobody."""
        n = self.n_pictures
        if not n:
            return []

        values = self.item_values
        defined = np.flatnonzero(np.isfinite(values))
        if not defined.size:
            rows = np.sort(rng.choice(n, min(n, RANDOM_SAMPLE), replace=False))
            return [
                PictureGroup(
                    "All pictures" if len(rows) == n else "Random sample", rows, "No score per picture is known."
                )
            ]

        if metric_words(self.sorting_metric).lower_is_better:
            sign = 1
        else:
            sign = -1

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


def plain(value: Any) -> str:
    """A value of a configuration or manifest as text, secrets in nested keys hidden."""
    if isinstance(value, Mapping):
        parts = (f"{k}: {HIDDEN if is_secret(str(k)) else plain(v)}" for k, v in value.items())
        return "; ".join(parts) or "–"

    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in value) or "–"
    if value is None:
        return "–"

    if isinstance(value, bool):
        if value:
            return "true"

        return "false"

    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Path):
        return str(value)

    return str(value)


def _undefused(value: Any) -> Any:
    """A text as it was before a formula sign was defused for spreadsheets."""
    if isinstance(value, str) and value[:1] == "'" and value[1:2] in ("=", "+", "@"):
        return value[1:]

    return value


def _truthy(column: pd.Series) -> np.ndarray:
    return column.map(lambda v: str(v).lower() in ("true", "1", "1.0")).to_numpy(bool)
