"""Runs beside a run: those in the same folder that are about the same data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from phosphene.errors import PhospheneError
from phosphene.io.folder import RunFolder
from phosphene.io.ledger import Ledger, read
from phosphene.types import digest_of

_MOST = 300  # folders looked into


@dataclass(frozen=True)
class SiblingRun:
    """Another run of the same data."""

    folder: RunFolder
    manifest: dict[str, Any]

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Its recipe's configuration; empty where it cannot be read."""
        try:
            return dict(self.folder.config.get("recipe", {}))
        except PhospheneError:
            return {}

    @property
    def scores(self) -> pd.DataFrame | None:
        """Its scores; None before it is evaluated, or where they cannot be read."""
        try:
            table = self.folder.table("scores.csv")
        except (OSError, ValueError):
            return None

        if {"input", "metric", "value"} <= set(table):
            return table

        return None

    @property
    def ledger(self) -> Ledger:
        """Its looks at test sets."""
        return read(self.folder.path)


def sibling_runs(run: RunFolder) -> Iterator[SiblingRun]:
    """Runs in the same folder as this one with the same data, in order of their names."""
    data = run.manifest.get("data_digest")
    try:
        folders = sorted(p for p in run.path.resolve().parent.iterdir() if (p / "manifest.json").is_file())
    except OSError:
        return

    for path in folders[:_MOST]:
        if path == run.path.resolve():
            continue

        try:
            manifest = RunFolder(path).manifest
        except PhospheneError:
            continue

        if data is not None and manifest.get("data_digest") == data:
            yield SiblingRun(RunFolder(path), manifest)


def same_recipe(ours: dict[str, Any], theirs: dict[str, Any], *, but: tuple[str, ...] = ()) -> bool:
    """Whether two configurations of recipes agree in everything but these values."""
    strip = [{k: v for k, v in c.items() if k not in but} for c in (ours, theirs)]
    return digest_of(strip[0]) == digest_of(strip[1])
