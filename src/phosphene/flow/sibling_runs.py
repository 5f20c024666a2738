"""Runs beside a run: those in the same folder that are about the same data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from phosphene.errors import PhospheneError
from phosphene.io.ledger import Ledger, read
from phosphene.io.run_folder import RunFolder
from phosphene.types import digest_of

_MOST = 300  # folders looked into: a folder of thousands of runs would keep an evaluation waiting


@dataclass(frozen=True)
class SiblingRun:
    """Another run of the same data, which may be unfinished, of an earlier version or damaged.

    Attributes
    ----------
    folder : RunFolder
        where it lies
    manifest : dict of str to Any
        what was written down when it was fitted
    """

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
        """When and on what it was evaluated."""
        return read(self.folder.path)


def sibling_runs(run: RunFolder) -> Iterator[SiblingRun]:
    """Runs in the same folder as this one with the same data, in order of their names.

    Parameters
    ----------
    run : RunFolder
        a run

    Yields
    ------
    SiblingRun
        each of the others; what cannot be read is passed over
    """
    own_path = run.path.resolve()
    data = run.manifest.get("data_digest")

    try:
        paths = sorted(path for path in own_path.parent.iterdir() if (path / "manifest.json").is_file())
    except OSError:  # a parent that may not be listed, such as another person's home
        return

    for path in paths[:_MOST]:
        if path == own_path:
            continue

        try:
            manifest = RunFolder(path).manifest
        except PhospheneError:
            continue

        if data is not None and manifest.get("data_digest") == data:
            yield SiblingRun(RunFolder(path), manifest)


def same_recipe(ours: dict[str, Any], theirs: dict[str, Any], *, but: tuple[str, ...] = ()) -> bool:
    """Whether two configurations of recipes agree in everything but these values.

    Parameters
    ----------
    ours, theirs : dict of str to Any
        configurations, as a manifest or a file has them
    but : tuple of str, optional
        keys that may differ

    Returns
    -------
    bool
        True where all others are equal
    """
    first = {key: value for key, value in ours.items() if key not in but}
    second = {key: value for key, value in theirs.items() if key not in but}
    return digest_of(first) == digest_of(second)
