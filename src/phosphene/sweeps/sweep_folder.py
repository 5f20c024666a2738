"""A sweep on disk: its grid, and what its folder says of every run. Nothing is fitted here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene._version import __version__
from phosphene.io.run_folder import read_json
from phosphene.sweeps.grid import SweepGrid, read_grid

__all__ = ["Layers", "Sweep"]

Layers = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Sweep:
    """A grid and the folder its runs lie in. Small and plain, so that it can be sent to another process.

    Parameters
    ----------
    file : Path
        the sweep file
    out : Path
        folder of all runs
    layers : Layers, default ()
        values over the base of the file
    """

    file: Path
    out: Path
    layers: Layers = ()

    @property
    def grid(self) -> SweepGrid:
        """The grid, read now."""
        return read_grid(self.file, self.layers)

    def folder(self, name: str) -> Path:
        """Where a run lies."""
        return self.out / "runs" / name

    def is_done(self, name: str) -> bool:
        """Whether everything asked of a run is there, made by this version."""
        record = self.out / "done" / f"{name}.json"
        return record.is_file() and read_json(record).get("phosphene") == __version__

    def failure(self, name: str) -> str:
        """Why a run is missing; "" where nothing failed. The whole traceback is in ``failed/NAME.txt``."""
        file = self.out / "failed" / f"{name}.txt"
        if not file.is_file():
            return ""

        return file.read_text(encoding="utf-8").strip().splitlines()[-1].removeprefix("phosphene.errors.")
