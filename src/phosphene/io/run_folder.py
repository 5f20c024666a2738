"""A run is a folder. This file says what lies where; everything in it opens without phosphene.

::

    RUN/
      config.yaml              every value, resolved; origins.csv says where each came from
      manifest.json            versions, data and split digests, seeds, what was transductive, stages and their times
      log.jsonl                one line per event
      ledger.jsonl             one line per evaluation of the test set, only ever added to; each holds the last one's SHA-256
      stages/NAME/             weights.safetensors, stage.json, lineage.txt (one "subject/trial" a line),
                              pictures.txt (one stimulus id a line)
      folds/NN/stages/NAME/    the same, once per fold, for k-fold splits
      decoded/SPLIT/INPUT/     pixels.npy (n, h, w, c) float32 0-1, index.csv (stimulus, fold, category, file),
                               images/*.png, latents.safetensors (one array per space, and "true.SPACE"), and for
                               "brain" samples.npy (n, samples, h, w, c) uint8 where several pictures are drawn
      encoded/SPLIT/           predicted.npy, measured.npy (n_stimuli, n_voxels) float32, relative to the fold's training
                               mean where there are several folds, index.csv, voxels.csv
      predicted/NAME/          predicted.npy (n, n_voxels) float32 of pictures of one's own, index.csv, voxels.csv
      scores.csv               split, input, metric, value, ci_low, ci_high, chance, p, n, setting
      validity.csv             id, verdict, value, reason, title, waiver
      validity.json            the same with what each verdict rests on, as data
      evaluation/SPLIT/        per_item.csv (input, metric, stimulus, value), similarity.SPACE.npy, voxels.csv,
                               retrieval.csv (space, direction, gallery, top, value), published.csv, conclusions.txt,
                               skipped.csv (metric, reason), nearest.csv (stimulus, nearest, cosine),
                               near_duplicates.csv (test, train, bits, cosine), near_duplicates.png,
                               bottleneck.csv (dimensions, two_way, space)
      analysis/NAME/           analysis.json, summary.txt, tables and figures of `phosphene analyse`
      training/                checkpoints of a stage being trained; gone when it is finished
      figures/  report.html

A run of pictures that were made elsewhere (`phosphene score`) has no stages, and "elsewhere" as the origin in its manifest.

INPUT is ``brain``, a control (see ``phosphene.flow.decoding``), a step on the way such as ``first_stage``, or
``seen``: the pictures shown. SPLIT is ``test``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError, ModelError
from phosphene.io import atomic
from phosphene.io.claims import LEASE, claimed, holder
from phosphene.io.inside import append_line, held_inside, plain_file, refuse_links
from phosphene.io.reading import open_npy
from phosphene.io.run_tables import read_run_table, write_table

LOCK = ".lock"
SEEN = "seen"
ELSEWHERE = "elsewhere"
"""What the manifest calls the origin of pictures that no recipe of ours decoded."""


@dataclass(frozen=True)
class RunFolder:
    """Paths and contents of one run. Making the object touches nothing on disk.

    Parameters
    ----------
    path : Path
        of the run; ``~`` is expanded
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", atomic.checked_path(self.path))

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """A run that is there.

        Parameters
        ----------
        path : str or Path
            of the run

        Returns
        -------
        RunFolder
            which has a manifest

        Raises
        ------
        ModelError
            When the folder holds no run, with what it holds instead; or a link in it leads outside.
        """
        # Every run has a manifest, and a folder that somebody typed by mistake has none.
        run = cls(Path(path))
        if (run.path / "manifest.json").is_file():
            refuse_links(run.path)
            return run

        if run.path.is_dir():
            names = sorted(entry.name for entry in run.path.iterdir())
            state = f"holds {', '.join(names[:5]) or 'nothing'} but no manifest.json"
        else:
            state = "does not exist"

        raise ModelError(
            f"{run.path} is not a run: it {state}. Make one with: phosphene fit RECIPE --data DATA --out {run.path}"
        )

    # -- where things are ------------------------------------------------------------------------------------------

    def stage(self, name: str, fold: int | None = None) -> Path:
        """Folder of a stage, of one fold where the split has several.

        Parameters
        ----------
        name : str
            of the stage
        fold : int, optional
            from 0; None where the split has a single one

        Returns
        -------
        Path
            which need not exist
        """
        if fold is None:
            base = self.path
        else:
            base = self.path / "folds" / f"{fold:02d}"
        return base / "stages" / name

    def decoded(self, split: str = "test", source: str = "brain") -> Path:
        """Folder of the pictures decoded from one input.

        Parameters
        ----------
        split : str, default "test"
            which stimuli
        source : str, default "brain"
            an input, see the top of this file

        Returns
        -------
        Path
            which need not exist
        """
        return self.path / "decoded" / split / source

    def encoded(self, split: str = "test") -> Path:
        """Folder of predicted responses.

        Parameters
        ----------
        split : str, default "test"
            which stimuli

        Returns
        -------
        Path
            which need not exist
        """
        return self.path / "encoded" / split

    def evaluation(self, split: str = "test") -> Path:
        """Folder of the details behind the scores.

        Parameters
        ----------
        split : str, default "test"
            which stimuli

        Returns
        -------
        Path
            which need not exist
        """
        return self.path / "evaluation" / split

    # -- what stands in it -----------------------------------------------------------------------------------------

    @property
    def manifest(self) -> dict[str, Any]:
        """Contents of manifest.json. Raises ModelError when it cannot be read."""
        return read_json(self.path / "manifest.json")

    @property
    def is_from_elsewhere(self) -> bool:
        """Whether its pictures were made elsewhere and only scored here: there is no recipe and no brain data."""
        return self.manifest.get("origin") == ELSEWHERE

    @property
    def config(self) -> dict[str, Any]:
        """Contents of config.yaml as plain values."""
        from phosphene.io.config import read_yaml

        return read_yaml(self.path / "config.yaml")

    def table(self, *where: str) -> pd.DataFrame:
        """A CSV of the run, empty when it is not there. Texts are read as written ('NA' stays 'NA').

        Parameters
        ----------
        *where : str
            parts of its path within the run, such as ``"evaluation", "test", "per_item.csv"``

        Returns
        -------
        DataFrame
            whose column "stimulus", where there is one, holds texts
        """
        return read_run_table(self.path.joinpath(*where))

    def inputs(self, split: str = "test") -> list[str]:
        """Inputs that were decoded, ``brain`` first, without ``seen``.

        Parameters
        ----------
        split : str, default "test"
            which stimuli

        Returns
        -------
        list of str
            empty where nothing was decoded
        """
        parent = self.path / "decoded" / split
        if not parent.is_dir():
            return []

        names = []
        for place in parent.iterdir():
            if (place / "pixels.npy").is_file() and place.name != SEEN:
                names.append(place.name)

        # "brain" gives False, which sorts before True.
        return sorted(names, key=lambda name: (name != "brain", name))

    def pixels(self, split: str = "test", source: str = "brain") -> np.ndarray:
        """Pictures of one input, memory-mapped.

        Parameters
        ----------
        split : str, default "test"
            which stimuli
        source : str, default "brain"
            an input, or "seen" for the pictures shown

        Returns
        -------
        ndarray of shape (n, h, w, c), float32
            0-1, read from the disk when indexed

        Raises
        ------
        ModelError
            When they are not there.
        """
        file = self.decoded(split, source) / "pixels.npy"
        if not file.is_file():
            raise ModelError(f"{self.path} has no pictures decoded from '{source}'. Run: phosphene decode {self.path}")
        return open_npy(file)

    # -- writing ---------------------------------------------------------------------------------------------------

    def write_manifest(self, **values: Any) -> dict[str, Any]:
        """Merge values into manifest.json and return the whole.

        Parameters
        ----------
        **values : Any
            entries to add or replace; what JSON lacks becomes its text

        Returns
        -------
        dict of str to Any
            the whole manifest

        Raises
        ------
        ModelError
            When the manifest that is there is damaged.
        MachineError
            When the disk is full or the folder cannot be written.
        """
        file = self.path / "manifest.json"
        merged: dict[str, Any] = {}
        if file.is_file():
            merged.update(read_json(file))

        merged.update(values)
        atomic.write_text(file, json.dumps(merged, indent=2, default=str) + "\n")
        return merged

    def write_table(self, table: pd.DataFrame, *where: str) -> None:
        """Write a CSV whole or not at all; a leading formula sign in a text is defused for spreadsheets.

        Parameters
        ----------
        table : DataFrame
            its index is not written
        *where : str
            parts of its path within the run
        """
        write_table(table, self.path.joinpath(*where))

    def log(self, event: str, **values: Any) -> None:
        """Append one line to log.jsonl. A full disk must not stop the work, so a failed write is dropped.

        Parameters
        ----------
        event : str
            what happened, in one word
        **values : Any
            what belongs to it; what JSON lacks becomes its text
        """
        # Appended in one write, so that two processes do not mix their lines. A kill may cut the last one short.
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "event": event, **values}, default=str)
        with suppress(OSError):
            append_line(self.path / "log.jsonl", line)

    @contextmanager
    def locked(self, purpose: str) -> Iterator[None]:
        """Hold the run for writing; what a killed process left behind is swept.

        Parameters
        ----------
        purpose : str
            what for, such as "fit lea"; another process that wants to write is told

        Raises
        ------
        ConfigError
            When another living process is writing to this run.
        ModelError
            When a link in it leads outside, now or while it is held.
        """
        # Before the lock, which is a file in there as well.
        refuse_links(self.path)
        with atomic.explained_write(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

        lock = self.path / LOCK
        plain_file(lock)
        with held_inside(self.path), claimed(lock, purpose) as mine:
            if not mine:
                other = holder(lock)
                raise ConfigError(
                    f"{self.path} is being written by process {other.get('pid', '?')} on {other.get('host', '?')} "
                    f"({other.get('purpose', 'unknown')}). Wait for it, or choose another --out. If that machine was lost, the "
                    f"run is free {LEASE:.0f} s after its last sign of life."
                )

            # Under the lock: without it, this would remove what another process is writing.
            atomic.sweep(self.path)
            yield


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file of a run, or of a part of one.

    Parameters
    ----------
    file : Path
        UTF-8

    Returns
    -------
    dict of str to Any
        of plain values

    Raises
    ------
    ModelError
        When it cannot be read, or holds something other than an object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{file} cannot be read ({error}). Delete it and run the command that writes it again."
        ) from error

    if not isinstance(value, dict):
        raise ModelError(f"{file} should hold a JSON object but holds a {type(value).__name__}.")
    return value
